//! Serves the files of a folder, for pages that use a WebSocket. Nothing outside the folder is served, and no hidden files.

use std::{
    fs::File,
    io,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use http::StatusCode;
use log::Level;
use percent_encoding::percent_decode_str;

use super::response::{Body, Refusal, Response};
use crate::{seldom::Seldom, shown::Shown};

/// Any stranger can ask for a file as often as they like.
static CANNOT_OPEN: Seldom = Seldom::new(Duration::from_secs(60));

/// A folder that is served.
#[derive(Debug)]
pub(crate) struct Files {
    root: PathBuf,
}

impl Files {
    /// The folder must exist.
    pub(crate) fn new(root: &Path) -> io::Result<Self> {
        let root = root.canonicalize()?;
        if root.is_dir() { Ok(Self { root }) } else { Err(io::ErrorKind::NotADirectory.into()) }
    }

    /// The file at `path`, which is relative to the folder and percent-encoded as in a URL; for a folder its
    /// `index.html`.
    pub(crate) fn get(&self, path: &str) -> Result<Response, Refusal> {
        let not_found = || Refusal::new(StatusCode::NOT_FOUND, "no such file");
        let mut file = self.resolve(path).ok_or_else(not_found)?;
        if file.is_dir() {
            if !path.is_empty() && !path.ends_with('/') {
                return Ok(redirect_to_folder(path));
            }
            file.push("index.html");
        }
        let open = || -> io::Result<(File, u64)> {
            // Checked before the file is opened, because opening a FIFO would wait for its other end.
            if !file.metadata()?.is_file() {
                return Err(io::ErrorKind::NotFound.into());
            }
            let handle = File::open(&file)?;
            let length = handle.metadata()?.len();
            Ok((handle, length))
        };
        let (handle, length) = open().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => not_found(),
            _ => {
                CANNOT_OPEN.log(Level::Error, format_args!("cannot open {}: {e}", Shown(file.display())));
                Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the file cannot be opened")
            }
        })?;
        Ok(Response::with_body(content_type(&file), Body::File(handle, length)))
    }

    /// `None` for what does not exist, is hidden, or leads out of the folder, by `..` or by a link.
    fn resolve(&self, path: &str) -> Option<PathBuf> {
        let path = percent_decode_str(path).decode_utf8().ok()?;
        let relative = Path::new(path.trim_start_matches('/'));
        let plain = |part: Component<'_>| match part {
            Component::Normal(name) => !name.as_encoded_bytes().starts_with(b"."),
            _ => false,
        };
        if path.contains('\0') || !relative.components().all(plain) {
            return None;
        }
        self.root.join(relative).canonicalize().ok().filter(|file| file.starts_with(&self.root))
    }
}

/// A redirect that adds the slash, without which relative links in the folder's page would be wrong. It begins with `./`,
/// because a name with a colon would be taken for a URL with a scheme.
fn redirect_to_folder(path: &str) -> Response {
    let name = path.rsplit('/').next().unwrap_or(path);
    Response::text(StatusCode::MOVED_PERMANENTLY, "this is a folder\n")
        .with_header("location", format!("./{name}/"))
}

fn content_type(file: &Path) -> &'static str {
    let extension = file.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    match extension.as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "txt" | "md" => "text/plain; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "xml" => "application/xml",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "wasm" => "application/wasm",
        "woff2" => "font/woff2",
        "pdf" => "application/pdf",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn serves_what_is_inside_and_nothing_else() {
        let outer = std::env::temp_dir().join(format!("switchboard-files-{}", std::process::id()));
        let root = outer.join("www");
        fs::create_dir_all(root.join("sub dir")).unwrap();
        fs::write(outer.join("secret"), "s").unwrap();
        fs::write(root.join(".hidden"), "h").unwrap();
        fs::write(root.join("index.html"), "index").unwrap();
        fs::write(root.join("sub dir/ä.js"), "js").unwrap();
        std::os::unix::fs::symlink(outer.join("secret"), root.join("link")).unwrap();
        let files = Files::new(&root).unwrap();
        let found = |path: &str| files.get(path).map(|mut r| r.headers_mut()["content-type"].clone()).ok();

        assert_eq!(found("").unwrap(), "text/html; charset=utf-8");
        assert_eq!(found("sub%20dir/%C3%A4.js").unwrap(), "text/javascript; charset=utf-8");
        assert_eq!(files.get("sub%20dir").unwrap().status(), 301);
        for bad in ["../secret", "%2e%2e/secret", "..%2fsecret", "sub%20dir/../../secret", "/../secret"] {
            assert!(found(bad).is_none(), "{bad}");
        }
        for bad in ["link", ".hidden", "nothing", "sub%20dir/", "%00", "%ff", "/etc/passwd"] {
            assert!(found(bad).is_none(), "{bad}");
        }
        assert!(Files::new(&root.join("index.html")).is_err());
        fs::remove_dir_all(&outer).unwrap();
    }
}
