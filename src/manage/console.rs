//! The console: a page for people who look after the server. Its files are compiled into the program, hold nothing secret, and so need
//! no token; what the page asks for does.

use http::{StatusCode, header};

use super::{query::Query, signature::digest};
use crate::http::{Refusal, Request, Response};

/// The page loads nothing from elsewhere, has no inline code, makes no markup of text, asks only this server, and is in nobody's
/// frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// A file of the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum File {
    Page,
    Style,
    Script,
}

impl File {
    /// At a path without its slash.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "" => Some(Self::Page),
            "console.css" => Some(Self::Style),
            "console.js" => Some(Self::Script),
            _ => None,
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Page => "text/html; charset=utf-8",
            Self::Style => "text/css; charset=utf-8",
            Self::Script => "text/javascript; charset=utf-8",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Page => include_str!("console/index.html"),
            Self::Style => include_str!("console/console.css"),
            Self::Script => include_str!("console/console.js"),
        }
    }

    /// A strong one: another text has another.
    fn etag(self) -> String {
        format!("\"{}\"", &digest(self.text().as_bytes())[..16])
    }
}

pub(super) fn answer(file: File, request: &Request) -> Result<Response, Refusal> {
    Query::of(request, &[])?;
    let etag = file.etag();
    let response = if is_known(request, &etag) {
        Response::without_body(StatusCode::NOT_MODIFIED)
    } else {
        Response::new(file.content_type(), file.text())
            .with_header("content-security-policy", POLICY)
            .with_header("referrer-policy", "no-referrer")
            .with_header("cross-origin-opener-policy", "same-origin")
            .with_header("cross-origin-resource-policy", "same-origin")
    };
    // It may be kept, but is asked for each time: a new version of the server has a new console.
    Ok(response.with_header(header::CACHE_CONTROL, "no-cache").with_header(header::ETAG, etag))
}

/// Whether the client has it already (RFC 9110, section 13.1.2).
fn is_known(request: &Request, etag: &str) -> bool {
    request.tokens(header::IF_NONE_MATCH).any(|tag| {
        let tag = tag.strip_prefix(b"W/").unwrap_or(tag);
        tag == b"*" || tag == etag.as_bytes()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::parse_head;

    const ALL: [File; 3] = [File::Page, File::Style, File::Script];

    fn get(file: File, lines: &str) -> Response {
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
        answer(file, &parse_head(head.as_bytes(), 8000).unwrap().unwrap().0).unwrap()
    }

    #[test]
    fn it_is_small() {
        let size: usize = ALL.map(|file| file.text().len()).iter().sum();
        assert!(size < 60 << 10, "{size} bytes");
    }

    #[test]
    fn who_has_it_is_not_sent_it_again() {
        for file in ALL {
            let mut first = get(file, "");
            assert_eq!(first.status(), 200);
            let tag = first.headers_mut()[header::ETAG].to_str().unwrap().to_owned();
            for (lines, status) in [
                (format!("If-None-Match: {tag}\r\n"), 304),
                (format!("If-None-Match: \"x\", W/{tag}\r\n"), 304),
                ("If-None-Match: *\r\n".into(), 304),
                ("If-None-Match: \"x\"\r\n".into(), 200),
            ] {
                let mut again = get(file, &lines);
                assert_eq!(again.status(), status, "{lines}");
                assert_eq!(again.headers_mut()[header::ETAG], tag);
                assert_eq!(again.headers_mut()[header::CACHE_CONTROL], "no-cache");
            }
        }
    }

    #[test]
    fn what_the_page_loads_is_there_and_nothing_in_it_is_inline() {
        let page = File::Page.text();
        for name in ["console.css", "console.js"] {
            assert!(page.contains(&format!("\"{name}\"")) && File::named(name).is_some(), "{name}");
        }
        assert!(!page.contains(" style=") && !page.contains("<style") && !page.contains("onclick"));
        assert_eq!(page.matches("<script").count(), 1);
        let script = File::Script.text();
        for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "localStorage"]
        {
            assert!(!script.contains(way), "{way}");
        }
    }
}
