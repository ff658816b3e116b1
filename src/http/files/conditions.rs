//! What tells one version of a file from another, and the conditions of a request about it (RFC 9110, sections 8.8 and 13).

use std::{
    fs::Metadata,
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::fs::MetadataExt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderName, header};

use super::coding::Coding;
use crate::http::request::Request;

/// Up to here a time is none: images are built with 1970 or 1980 as the time of all their files, and some boxes begin with one
/// of them at each start. It is 1980-01-02.
const NO_TIME: i64 = 315_619_200;

/// The validators of a file, or of a compressed copy.
#[derive(Debug)]
pub(super) struct Validators {
    /// A strong one. `None`: nothing would change in it when the file does.
    pub(super) etag: Option<String>,
    /// In whole seconds.
    pub(super) modified: Option<SystemTime>,
}

/// What the conditions of a request say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Answer as if there were none.
    Proceed,
    /// The client has it: 304.
    NotModified,
    /// It is not what the client takes it for: 412.
    Failed,
}

impl Validators {
    pub(super) fn new(metadata: &Metadata, coding: Option<Coding>, now: SystemTime) -> Self {
        let is_dated = metadata.mtime().max(metadata.ctime()) > NO_TIME;
        let modified = u64::try_from(metadata.mtime()).unwrap_or(0);
        let modified = UNIX_EPOCH + Duration::from_secs(modified);
        Self {
            etag: is_dated.then(|| etag(metadata, coding)),
            // Never later than the response (section 8.8.2.1), which the date of a wrong clock would be.
            modified: Some(modified).filter(|&at| metadata.mtime() > NO_TIME && at <= now),
        }
    }

    /// Evaluates the conditions, in the order of section 13.2.2, for a GET or a HEAD.
    pub(super) fn check(&self, request: &Request) -> Verdict {
        let has = |name| request.headers().contains_key(name);
        let is_match = if has(header::IF_MATCH) {
            self.is_among(request, header::IF_MATCH, |tag| tag)
        } else {
            date(request, header::IF_UNMODIFIED_SINCE)
                .is_none_or(|date| self.modified.is_none_or(|at| at <= date))
        };
        let is_known = if has(header::IF_NONE_MATCH) {
            self.is_among(request, header::IF_NONE_MATCH, |tag| tag.strip_prefix("W/").unwrap_or(tag))
        } else {
            date(request, header::IF_MODIFIED_SINCE)
                .is_some_and(|date| self.modified.is_some_and(|at| at <= date))
        };
        match (is_match, is_known) {
            (false, _) => Verdict::Failed,
            (true, true) => Verdict::NotModified,
            (true, false) => Verdict::Proceed,
        }
    }

    /// Whether a part of the file is a part of what the client has (section 13.1.5), as far as it asks for that.
    pub(super) fn is_same_for_range(&self, request: &Request) -> bool {
        if !request.headers().contains_key(header::IF_RANGE) {
            return true;
        }
        let tag = request.header("if-range").map(str::trim);
        let same_tag = tag.is_some() && tag == self.etag.as_deref();
        let same_date = date(request, header::IF_RANGE);
        same_tag || (same_date.is_some() && same_date == self.modified)
    }

    /// Whether the header is `*`, or a list that has our tag. `compared` takes from each what is compared.
    fn is_among(&self, request: &Request, name: HeaderName, compared: fn(&str) -> &str) -> bool {
        // No tag contains a quote, so that also of one that contains a comma no part can be taken for ours.
        request.tokens(name).any(|tag| tag == "*" || Some(compared(tag)) == self.etag.as_deref())
    }
}

/// It changes with whatever is done to a file, also where size and time of its content are kept; and it is another one for
/// each coding.
fn etag(metadata: &Metadata, coding: Option<Coding>) -> String {
    let mut hasher = DefaultHasher::new();
    (metadata.ino(), metadata.len(), coding.map(Coding::name)).hash(&mut hasher);
    (metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()).hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

/// A header that is a date; one that is malformed counts as absent (section 13.1.3).
fn date(request: &Request, name: HeaderName) -> Option<SystemTime> {
    let text = request.headers().get(name)?.to_str().ok()?;
    httpdate::parse_http_date(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::parse_head;

    /// The date of the examples in the RFC.
    const THEN: u64 = 784_111_777;

    fn request(lines: &str) -> Box<Request> {
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
        parse_head(head.as_bytes(), 1000).unwrap().unwrap().0
    }

    fn ours() -> Validators {
        let modified = Some(UNIX_EPOCH + Duration::from_secs(THEN));
        Validators { etag: Some("\"x\"".into()), modified }
    }

    #[test]
    fn conditions_in_their_order() {
        use Verdict::{Failed, NotModified, Proceed};
        let (then, before) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:36 GMT");
        for (lines, expected) in [
            (String::new(), Proceed),
            ("If-None-Match: \"x\"\r\n".into(), NotModified),
            ("If-None-Match: W/\"x\"\r\n".into(), NotModified),
            ("If-None-Match: \"a,b\", \"x\"\r\n".into(), NotModified),
            ("If-None-Match: \"a\"\r\nIf-None-Match: \"x\"\r\n".into(), NotModified),
            ("If-None-Match: *\r\n".into(), NotModified),
            ("If-None-Match: \"y\"\r\n".into(), Proceed),
            ("If-None-Match: x\r\n".into(), Proceed),
            ("If-None-Match:\r\n".into(), Proceed),
            (format!("If-Modified-Since: {then}\r\n"), NotModified),
            ("If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT\r\n".into(), NotModified),
            ("If-Modified-Since: Sun Nov  6 08:49:37 1994\r\n".into(), NotModified),
            (format!("If-Modified-Since: {before}\r\n"), Proceed),
            ("If-Modified-Since: yesterday\r\n".into(), Proceed),
            (format!("If-None-Match: \"y\"\r\nIf-Modified-Since: {then}\r\n"), Proceed),
            (format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {before}\r\n"), NotModified),
            ("If-Match: \"y\", \"x\"\r\n".into(), Proceed),
            ("If-Match: *\r\n".into(), Proceed),
            ("If-Match: \"y\"\r\n".into(), Failed),
            ("If-Match: W/\"x\"\r\n".into(), Failed),
            ("If-Match: \"y\"\r\nIf-None-Match: \"x\"\r\n".into(), Failed),
            ("If-Match: \"x\"\r\nIf-None-Match: \"x\"\r\n".into(), NotModified),
            (format!("If-Unmodified-Since: {then}\r\n"), Proceed),
            (format!("If-Unmodified-Since: {before}\r\n"), Failed),
            (format!("If-Match: \"x\"\r\nIf-Unmodified-Since: {before}\r\n"), Proceed),
        ] {
            assert_eq!(ours().check(&request(&lines)), expected, "{lines}");
        }
    }

    #[test]
    fn a_part_of_another_version_is_never_sent() {
        for (value, expected) in [
            ("\"x\"", true),
            ("W/\"x\"", false),
            ("\"y\"", false),
            ("Sun, 06 Nov 1994 08:49:37 GMT", true),
            ("Sun, 06 Nov 1994 08:49:38 GMT", false),
            ("", false),
        ] {
            assert_eq!(
                ours().is_same_for_range(&request(&format!("If-Range: {value}\r\n"))),
                expected,
                "{value}"
            );
        }
        assert!(ours().is_same_for_range(&request("")));
        let none = Validators { etag: None, modified: None };
        assert!(!none.is_same_for_range(&request("If-Range: \"x\"\r\n")));
    }
}
