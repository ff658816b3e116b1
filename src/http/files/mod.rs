//! Serves the files of a folder, for pages that use a WebSocket. Nothing outside the folder is served, and no hidden files.

mod coding;
mod conditions;
mod kind;
mod open;
mod range;

use std::{
    fs::{File, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
    time::{Duration, SystemTime},
};

use http::{HeaderValue, Method, StatusCode, header};
use log::Level;
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};

use self::{
    coding::Coding,
    conditions::{Validators, Verdict},
    kind::content_type,
    open::{Opened, Root},
    range::Wanted,
};
use super::{
    header::header_line,
    part::FilePart,
    request::Request,
    response::{Body, Refusal, Response},
};
use crate::{seldom::Seldom, shown::Shown};

/// So much older than its original, in seconds, a compressed copy may be: some write the copy first.
const OLDER: i64 = 1;

/// The files of a folder, for [`ServerBuilder::files`](crate::ServerBuilder::files), which takes a path as well.
///
/// ```
/// # fn main() -> Result<(), switchboard::ServerError> {
/// # let folder = std::env::temp_dir();
/// use switchboard::{Files, Server};
///
/// let server = Server::builder()
///     .listen("127.0.0.1:0")
///     .files("/*", &folder)
///     // Names that change with the content may be kept for ever.
///     .files("/assets/*", Files::new(&folder).cache_control("public, max-age=31536000, immutable"))
///     .bind()?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Files {
    folder: PathBuf,
    cache_control: Option<HeaderValue>,
    /// The first mistake, for `open`.
    mistake: Option<Box<str>>,
}

impl<P: AsRef<Path>> From<P> for Files {
    fn from(folder: P) -> Self {
        Self::new(folder)
    }
}

impl Files {
    /// The files of this folder, with the default settings. It must exist when it is given to the builder. It is looked for anew
    /// at each request, so that it may be replaced, or be a link that is switched over.
    pub fn new(folder: impl AsRef<Path>) -> Self {
        Self { folder: folder.as_ref().to_owned(), cache_control: None, mistake: None }
    }

    /// How long browsers and proxies may use a file without asking again. Default: what
    /// [`ServerBuilder::header`](crate::ServerBuilder::header) says of `Cache-Control`, else `no-cache`: they keep it, but ask
    /// each time whether it has changed, which costs a round trip and no transfer. `bind` refuses what cannot be in a header.
    pub fn cache_control(mut self, value: impl TryInto<HeaderValue>) -> Self {
        match header_line(header::CACHE_CONTROL, value) {
            Ok((_, value)) => self.cache_control = Some(value),
            Err(mistake) => self.mistake = Some(mistake),
        }
        self
    }

    /// Checks the settings, and makes the folder's path independent of the process's current folder.
    ///
    /// # Errors
    /// The first mistake, as text.
    pub(crate) fn open(mut self) -> Result<Self, Box<str>> {
        let failed = |e: io::Error| format!("cannot serve files of {}: {e}", self.folder.display());
        if let Some(mistake) = self.mistake.take() {
            return Err(mistake);
        }
        let folder = std::path::absolute(&self.folder).map_err(failed)?;
        // It has to be there, and to be a folder.
        Root::new(&folder).map_err(failed)?;
        Ok(Self { folder, ..self })
    }

    /// The `Cache-Control` of files for which none was chosen.
    pub(crate) fn set_default_cache_control(&mut self, value: &HeaderValue) {
        self.cache_control.get_or_insert_with(|| value.clone());
    }

    /// Answers a GET or a HEAD for the file at `path`, which is relative to the folder, and normal: nothing in it is
    /// encoded. For a folder its `index.html`.
    pub(crate) fn get(&self, path: &str, request: &Request) -> Response {
        self.find(path, request).unwrap_or_else(Response::from)
    }

    fn find(&self, path: &str, request: &Request) -> Result<Response, Refusal> {
        let below = visible(path).ok_or_else(not_found)?;
        let refuse = |below: &Path, e: io::Error| refuse(&self.folder.join(below), &e);
        let root = Root::new(&self.folder).map_err(|e| refuse(below, e))?;
        let open = |below: &Path| root.open(below).map_err(|e| refuse(below, e));
        let asks_for_folder = path.is_empty() || path.ends_with('/');
        match open(below)? {
            Opened::File(file, metadata) if !asks_for_folder => {
                self.send(&root, below, (file, metadata), request)
            }
            Opened::Folder if !asks_for_folder => {
                Ok(self.with_cache_control(redirect_to_folder(path, request.query())))
            }
            Opened::File(..) => Err(not_found()),
            Opened::Folder => {
                let index = below.join("index.html");
                let Opened::File(file, metadata) = open(&index)? else { return Err(not_found()) };
                self.send(&root, &index, (file, metadata), request)
            }
        }
    }

    /// Answers with a file or a compressed copy of it, as far as the client does not have it.
    fn send(
        &self,
        root: &Root<'_>,
        below: &Path,
        original: (File, Metadata),
        request: &Request,
    ) -> Result<Response, Refusal> {
        let copies = compressed_copies(root, below, &original.1);
        let is_negotiated = !copies.is_empty();
        let coding = coding::choose(request, copies.iter().map(|(coding, ..)| *coding));
        let chosen = copies.into_iter().find(|(of, ..)| Some(*of) == coding);
        let (file, metadata) = chosen.map_or(original, |(_, file, metadata)| (file, metadata));
        let validators = Validators::new(&metadata, coding, SystemTime::now());
        let mut response = match validators.check(request) {
            Verdict::Failed => {
                return Err(Refusal::new(StatusCode::PRECONDITION_FAILED, "the file is another one by now"));
            }
            Verdict::NotModified => Response::without_body(StatusCode::NOT_MODIFIED),
            Verdict::Proceed => {
                let wanted = wanted(request, &validators, metadata.len());
                let response = content(file, metadata.len(), wanted, &content_type(below))?;
                match coding {
                    Some(coding) => response.with_header(header::CONTENT_ENCODING, coding.name()),
                    None => response,
                }
            }
        };
        if let Some(etag) = validators.etag {
            response = response.with_header(header::ETAG, etag);
        }
        if let Some(modified) = validators.modified {
            response = response.with_header(header::LAST_MODIFIED, httpdate::fmt_http_date(modified));
        }
        if is_negotiated {
            response = response.with_header(header::VARY, "accept-encoding");
        }
        Ok(self.with_cache_control(response))
    }

    fn with_cache_control(&self, response: Response) -> Response {
        match &self.cache_control {
            Some(value) => response.with_header(header::CACHE_CONTROL, value.clone()),
            None => response,
        }
    }
}

/// The path as a relative one. `None` if it has a hidden name, or one such as `..`. Names that begin with a dot are hidden, but
/// not that which every site has for others to look at (RFC 8615).
fn visible(path: &str) -> Option<&Path> {
    let relative = Path::new(path.trim_start_matches('/'));
    let is_visible = |(depth, part): (usize, Component<'_>)| match part {
        Component::Normal(name) => {
            !name.as_encoded_bytes().starts_with(b".") || (depth == 0 && name == ".well-known")
        }
        _ => false,
    };
    relative.components().enumerate().all(is_visible).then_some(relative)
}

/// The copies that are beside the file: `x.js.br` and `x.js.gz`. One that is older than the file is that of an earlier version.
fn compressed_copies(root: &Root<'_>, below: &Path, original: &Metadata) -> Vec<(Coding, File, Metadata)> {
    let copy = |coding: Coding| {
        let mut name = below.as_os_str().to_owned();
        name.push(coding.suffix());
        match root.open(Path::new(&name)) {
            Ok(Opened::File(file, metadata))
                if metadata.mtime().saturating_add(OLDER) >= original.mtime() =>
            {
                Some((coding, file, metadata))
            }
            _ => None,
        }
    };
    Coding::ALL.into_iter().filter_map(copy).collect()
}

/// What the request wants of a file of this length. Only a GET may have a part of it (RFC 9110, section 14.2).
fn wanted(request: &Request, validators: &Validators, length: u64) -> Wanted {
    let mut headers = request.headers().get_all(header::RANGE).iter();
    match (headers.next().map(HeaderValue::to_str), headers.next()) {
        (Some(Ok(range)), None)
            if *request.method() == Method::GET && validators.is_same_for_range(request) =>
        {
            range::wanted(range, length)
        }
        _ => Wanted::Whole,
    }
}

/// A response with the file, or a part of it (RFC 9110, sections 15.3.7 and 15.5.17).
fn content(file: File, length: u64, wanted: Wanted, content_type: &str) -> Result<Response, Refusal> {
    let response = match wanted {
        Wanted::Whole => Response::with_body(content_type, Body::File(FilePart::new(file, 0..length))),
        Wanted::Part(part) => {
            let range = format!("bytes {}-{}/{length}", part.start, part.end - 1);
            Response::with_body(content_type, Body::File(FilePart::new(file, part)))
                .with_status(StatusCode::PARTIAL_CONTENT)
                .with_header(header::CONTENT_RANGE, range)
        }
        Wanted::Nothing => {
            return Err(Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "the file has no such part")
                .with_header(header::CONTENT_RANGE, format!("bytes */{length}")));
        }
    };
    Ok(response.with_header(header::ACCEPT_RANGES, "bytes"))
}

/// All but what needs no encoding in a path (RFC 3986, section 3.3). A colon does not need it, as `./` is before it.
const IN_PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':').remove(b'@');

/// What may not be in a header line, or would end a query.
const IN_QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>');

/// A redirect that adds the slash, without which relative links in the folder's page would be wrong. It begins with `./`,
/// because a name with a colon would be taken for a URL with a scheme.
fn redirect_to_folder(path: &str, query: &str) -> Response {
    let name = utf8_percent_encode(path.rsplit('/').next().unwrap_or(path), IN_PATH);
    let mark = if query.is_empty() { "" } else { "?" };
    let query = utf8_percent_encode(query, IN_QUERY);
    Response::text(StatusCode::MOVED_PERMANENTLY, "this is a folder\n")
        .with_header(header::LOCATION, format!("./{name}/{mark}{query}"))
}

/// Any stranger can ask for a file as often as they like.
static CANNOT_OPEN: Seldom = Seldom::new(Duration::from_secs(60));

fn not_found() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "no such file")
}

/// What is answered when a file cannot be opened.
fn refuse(file: &Path, e: &io::Error) -> Refusal {
    if e.kind() == io::ErrorKind::NotFound {
        return not_found();
    }
    CANNOT_OPEN.log(Level::Error, format_args!("cannot open {}: {e}", Shown(file.display())));
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the file cannot be opened")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::http::request::parse_head;

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
        let files = Files::new(&root).open().unwrap();
        let (request, _) = parse_head(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", 1000).unwrap().unwrap();
        let found = |path: &str| {
            let mut response = files.get(path, &request);
            (response.status().as_u16(), response.headers_mut()["content-type"].clone())
        };

        assert_eq!(found(""), (200, HeaderValue::from_static("text/html; charset=utf-8")));
        let script = (200, HeaderValue::from_static("text/javascript; charset=utf-8"));
        assert_eq!(found("sub dir/ä.js"), script);
        assert_eq!(found("sub dir").0, 301);
        for bad in ["../secret", "..%2fsecret", "sub dir/../../secret", "/../secret"] {
            assert_eq!(found(bad).0, 404, "{bad}");
        }
        for bad in
            ["link", ".hidden", "nothing", "sub dir/", "sub%20dir/", "\0", "/etc/passwd", "index.html/"]
        {
            assert_eq!(found(bad).0, 404, "{bad}");
        }
        assert!(Files::new(root.join("index.html")).open().is_err());
        fs::remove_dir_all(&outer).unwrap();
    }
}
