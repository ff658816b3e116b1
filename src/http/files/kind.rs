//! The media type of a file, by its name.

use std::{borrow::Cow, path::Path};

/// Text is taken to be UTF-8, except XML, which says itself what it is.
pub(super) fn content_type(file: &Path) -> Cow<'static, str> {
    let extension = file.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let known = newer(&extension).or_else(|| mime_guess::from_ext(&extension).first_raw());
    match known {
        None => "application/octet-stream".into(),
        Some(text) if text.starts_with("text/") => format!("{text}; charset=utf-8").into(),
        Some(other) => other.into(),
    }
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
