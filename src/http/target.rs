//! The target of a request (RFC 9112, section 3.2), and its path in the one form that routes, guards and files know. No I/O.

use std::{borrow::Cow, ops::Range};

use percent_encoding::percent_decode_str;

use super::host::Host;

/// What a request asks for: a path, perhaps with a query, perhaps with a host before it.
#[derive(Debug)]
pub(super) struct Target {
    /// As it was sent, without a fragment.
    text: Box<str>,
    path: Range<usize>,
    /// The path in its normal form, if it was sent in another one.
    normal: Option<Box<str>>,
}

impl Target {
    /// A target of any form; that of CONNECT is a host, which is no route's path.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(target: &str, is_connect: bool) -> Result<Self, &'static str> {
        // A fragment is for the client alone.
        let text = &target[..find(target, b'#').unwrap_or(target.len())];
        let start = match text.as_bytes() {
            [b'/', ..] | b"*" => 0,
            _ if is_connect && Host::parse(text.as_bytes()).is_some() => 0,
            _ => end_of_authority(text).ok_or("the HTTP request target is neither a path nor a URL")?,
        };
        let end = find(&text[start..], b'?').map_or(text.len(), |n| start + n);
        let normal = match normalize(&text[start..end])? {
            Cow::Borrowed(_) => None,
            Cow::Owned(path) => Some(path.into()),
        };
        Ok(Self { text: text.into(), path: start..end, normal })
    }

    /// The path in its normal form: see [`normalize`].
    pub(super) fn path(&self) -> &str {
        self.normal.as_deref().unwrap_or_else(|| self.raw_path())
    }

    /// The path as it was sent.
    pub(super) fn raw_path(&self) -> &str {
        if self.path.is_empty() { "/" } else { &self.text[self.path.clone()] }
    }

    /// The query as it was sent, without the `?`.
    pub(super) fn query(&self) -> &str {
        self.text[self.path.end..].strip_prefix('?').unwrap_or_default()
    }

    /// The host, if the target is a whole URL.
    pub(super) fn authority(&self) -> Option<&str> {
        self.text[..self.path.start].split_once("://").map(|(_, authority)| authority)
    }
}

/// As `str::find`, which costs more for a text as short as these.
fn find(text: &str, byte: u8) -> Option<usize> {
    text.bytes().position(|b| b == byte)
}

/// Where the path of a URL begins.
fn end_of_authority(url: &str) -> Option<usize> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let is_scheme =
        !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    Host::parse(authority.as_bytes()).filter(|_| is_scheme)?;
    Some(scheme.len() + "://".len() + authority.len())
}

/// The path as routes, guards and files compare it, so that there is one way only to write each of them: percent-decoded, without
/// empty segments, and with `.` and `..` resolved, which `..` never leads above the root. An encoded slash is no separator, and
/// stays encoded (`%2F`). A slash at the end stays. Nothing is decoded twice.
///
/// # Errors
/// What is wrong with it: it contains NUL, or is not UTF-8.
pub(crate) fn normalize(path: &str) -> Result<Cow<'_, str>, &'static str> {
    let is_odd = |pair: &[u8]| matches!(pair, b"//" | b"/." | [_, b'%']);
    if !path.starts_with('/') || !path.as_bytes().windows(2).any(is_odd) {
        return Ok(path.into());
    }
    let mut normal = String::with_capacity(path.len());
    let mut ends_with_slash = false;
    for segment in path.split('/').skip(1) {
        let name = percent_decode_str(segment).decode_utf8().map_err(|_| "the path is not UTF-8")?;
        ends_with_slash = true;
        match &*name {
            "" | "." => {}
            ".." => normal.truncate(normal.rfind('/').unwrap_or(0)),
            name if name.contains('\0') => return Err("the path contains NUL"),
            name => {
                normal.push('/');
                normal.push_str(&name.replace('/', "%2F")); // it was encoded, or the segment would end there
                ends_with_slash = false;
            }
        }
    }
    if ends_with_slash {
        normal.push('/');
    }
    Ok(normal.into())
}

/// What the `*` of a route stands for in a path that it serves; of an exact path it is nothing.
pub(crate) fn tail<'a>(path: &'a str, route: &str) -> &'a str {
    route.strip_suffix('*').and_then(|prefix| path.strip_prefix(prefix)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_a_target() {
        let parts = |text: &str| {
            let target = Target::parse(text, false).unwrap();
            let authority = target.authority().map(str::to_owned);
            (authority, target.raw_path().to_owned(), target.query().to_owned())
        };
        let own = |authority: Option<&str>, path: &str, query: &str| {
            (authority.map(str::to_owned), path.to_owned(), query.to_owned())
        };
        assert_eq!(parts("/a%20b?x=/y?z"), own(None, "/a%20b", "x=/y?z"));
        assert_eq!(parts("/a#b?c"), own(None, "/a", ""));
        assert_eq!(parts("*"), own(None, "*", ""));
        assert_eq!(parts("//h/a"), own(None, "//h/a", ""), "no host");
        assert_eq!(parts("http://h"), own(Some("h"), "/", ""));
        assert_eq!(parts("wss://h:80?q"), own(Some("h:80"), "/", "q"));
        assert_eq!(parts("http://[::1]:8/a://b?q"), own(Some("[::1]:8"), "/a://b", "q"));
        assert_eq!(parts("/\"<>|{}\\^`?\"<>"), own(None, "/\"<>|{}\\^`", "\"<>"));
        for bad in
            ["", "#", "a", "h:80", "?q", "*?q", "http:/a", "http:///a", "http://u@h/", "a b://h/", "://h/"]
        {
            assert!(Target::parse(bad, false).is_err(), "{bad}");
        }
        assert_eq!(Target::parse("h:443", true).unwrap().path(), "h:443");
        assert!(Target::parse("h/../x:443", true).is_err());
    }

    #[test]
    fn a_path_has_one_normal_form() {
        for (path, normal) in [
            ("/", "/"),
            ("//", "/"),
            ("/.", "/"),
            ("/..", "/"),
            ("/../..//a", "/a"),
            ("/a/", "/a/"),
            ("/a//", "/a/"),
            ("/a/.", "/a/"),
            ("/a/./", "/a/"),
            ("/a/b/..", "/a/"),
            ("/a/b/../", "/a/"),
            ("/a/b/../c", "/a/c"),
            ("/a//b", "/a/b"),
            ("/a///.//b", "/a/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a/%2e", "/a/"),
            ("/%70rivate/%78", "/private/x"),
            ("/a%2Fb%2fc", "/a%2Fb%2Fc"),
            ("/a/..%2Fb", "/a/..%2Fb"),
            ("/a/%2F/../b", "/a/b"),
            ("/%252F%252e", "/%2F%2e"),
            ("/100%", "/100%"),
            ("/%zz%2", "/%zz%2"),
            ("/a%20b%3Fc%23", "/a b?c#"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("/a.", "/a."),
            ("/%C3%A4", "/ä"),
            ("/ä", "/ä"),
            ("/a\\..\\b", "/a\\..\\b"),
            ("*", "*"),
        ] {
            assert_eq!(normalize(path).unwrap(), normal, "{path}");
        }
        for bad in
            ["/%00", "/a%00b/..", "/%ff", "/%ff/..", "/%c0%ae%c0%ae/x", "/%C3", "/%C3/%A4", "/%ed%a0%80"]
        {
            assert!(normalize(bad).is_err(), "{bad}");
        }
    }
}
