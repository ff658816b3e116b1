//! The media type of a file, by its name.

use std::{borrow::Cow, path::Path};

/// Text is taken to be UTF-8, except XML, which says itself what it is.
pub(super) fn content_type(file: &Path) -> Cow<'static, str> {
    let extension = file.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    match usual(&extension).or_else(|| newer(&extension)).or_else(|| known(&extension)) {
        None => "application/octet-stream".into(),
        Some(text) if text.starts_with("text/") => format!("{text}; charset=utf-8").into(),
        Some(other) => other.into(),
    }
}

/// All types that are known, in lines as those of /etc/mime.types: as text it takes a sixth of what a table of references does.
const KNOWN: &str = include_str!("mime.types");

fn known(extension: &str) -> Option<&'static str> {
    let lines = KNOWN.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once(' '))
        .find_map(|(kind, extensions)| extensions.split(' ').any(|one| one == extension).then_some(kind))
}

/// What most pages are made of need not be searched for.
fn usual(extension: &str) -> Option<&'static str> {
    Some(match extension {
        "css" => "text/css",
        "gif" => "image/gif",
        "htm" | "html" => "text/html",
        "ico" => "image/x-icon",
        "jpeg" | "jpg" => "image/jpeg",
        "js" => "text/javascript",
        "json" => "application/json",
        "png" => "image/png",
        "svg" => "image/svg+xml",
        "wasm" => "application/wasm",
        "webp" => "image/webp",
        "woff2" => "font/woff2",
        _ => return None,
    })
}

/// Those that have been registered since (RFC 7303, 8081, 9239, 9512), or that a browser has another use for.
fn newer(extension: &str) -> Option<&'static str> {
    Some(match extension {
        "cjs" | "mjs" => "text/javascript",
        "m3u8" => "application/vnd.apple.mpegurl",
        "m4a" => "audio/mp4",
        "map" => "application/json",
        "otf" => "font/otf",
        "ts" => "video/mp2t",
        "woff" => "font/woff",
        "xml" => "application/xml",
        "yaml" | "yml" => "application/yaml",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it fails because `mime_guess` has learned something, `mime.types` is to be changed, and the version that it names.
    #[test]
    fn types_are_those_that_mime_guess_knows() {
        let all = mime_guess::get_extensions("*", "*").unwrap();
        assert!(all.len() > 1300);
        for extension in all {
            let expected = mime_guess::from_ext(extension).first_raw().unwrap();
            let known = known(extension).unwrap_or("application/octet-stream");
            assert_eq!(known, expected, "{extension}");
            assert_eq!(usual(extension).unwrap_or(expected), expected, "{extension}");
        }
        let kept: usize = KNOWN.lines().skip(1).map(|line| line.split(' ').count() - 1).sum();
        assert!(kept <= all.len(), "some are not of mime_guess, or twice");
        assert_eq!(known(""), None);
    }

    #[test]
    fn case_does_not_matter_and_only_the_last_extension_does() {
        for (name, expected) in [
            ("a/b.JS", "text/javascript; charset=utf-8"),
            ("app.min.MJS", "text/javascript; charset=utf-8"),
            ("app.js.map", "application/json"),
            ("page.html.gz", "application/gzip"),
            ("feed.xml", "application/xml"),
            ("logo.svg", "image/svg+xml"),
            ("a.b/c", "application/octet-stream"),
            ("js", "application/octet-stream"),
            ("x.ä", "application/octet-stream"),
        ] {
            assert_eq!(content_type(Path::new(name)), expected, "{name}");
        }
    }
}
