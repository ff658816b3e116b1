//! The cookie that names a session.

use std::time::Duration;

use http::{HeaderName, HeaderValue, header};

use crate::{error::ServerError, http::Request};

/// The cookie that names a session: for [`ServerBuilder::session_cookie`](crate::ServerBuilder::session_cookie).
///
/// The server writes it: `HttpOnly`, so that no script can read it; `SameSite=Lax`, so that pages of other sites do not send
/// it along; `Path=/`; and `Secure` where the client's connection has TLS ([`Request::is_secure`](crate::Request::is_secure)).
/// Cookies do not tell ports apart: servers on several ports of one host need different names, or the same
/// [keys](crate::ServerBuilder::session_keys).
///
/// ```
/// use std::time::Duration;
/// use switchboard::{Server, SessionCookie};
///
/// let month = Duration::from_secs(30 * 86_400);
/// let builder = Server::builder().session_cookie(SessionCookie::new("my-app").max_age(month));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct SessionCookie {
    name: String,
    max_age: Option<Duration>,
}

impl Default for SessionCookie {
    fn default() -> Self {
        Self::new("switchboard-session")
    }
}

impl SessionCookie {
    /// A cookie of this name, that ends with the browser. The default's name is `switchboard-session`. With a name that begins
    /// with `__Host-` no other host of the same domain can set it, but then browsers take it over TLS only.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), max_age: None }
    }

    /// For how long browsers keep it, from when it was set, also when they are ended; in whole seconds. Default: until they are
    /// ended. It says how long an ID stays the same; how long values are kept is
    /// [`Limits::session_timeout`](crate::Limits::session_timeout).
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = Some(max_age);
        self
    }

    /// Checks that a cookie may have this name (RFC 6265, section 4.1.1).
    ///
    /// # Errors
    /// [`ServerError::Config`] if not.
    pub(crate) fn check(&self) -> Result<(), ServerError> {
        let is_token = HeaderName::from_bytes(self.name.as_bytes()).is_ok();
        if is_token {
            Ok(())
        } else {
            Err(ServerError::config(format!("{:?} cannot be the name of a cookie", self.name)))
        }
    }

    /// The values of all cookies of this name in a request.
    pub(super) fn values<'a>(&'a self, request: &'a Request) -> impl Iterator<Item = &'a [u8]> {
        let pairs = request.cookie_pairs();
        pairs.filter_map(|pair| pair.strip_prefix(self.name.as_bytes())?.strip_prefix(b"="))
    }

    /// The header line that sets it. `max_age` is for this session, instead of that for all.
    pub(super) fn header(
        &self,
        value: &str,
        max_age: Option<Duration>,
        secure: bool,
    ) -> (HeaderName, HeaderValue) {
        let mut text = format!("{}={value}; Path=/; HttpOnly; SameSite=Lax", self.name);
        if let Some(max_age) = max_age.or(self.max_age) {
            text.push_str(&format!("; Max-Age={}", max_age.as_secs()));
        }
        if secure {
            text.push_str("; Secure");
        }
        (header::SET_COOKIE, HeaderValue::try_from(text).expect("its name and its value were checked"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::parse_head;

    #[test]
    fn its_values_are_found_among_others() {
        let head = b"GET / HTTP/1.1\r\nHost: h\r\nCookie: a=1;s=2; name=Zo\xeb;s =3;xs=4\r\nCookie: s=;S=5; s=6=7\r\n\r\n";
        let request = parse_head(head, 1000).unwrap().unwrap().0;
        let cookie = SessionCookie::new("s");
        let values: Vec<_> = cookie.values(&request).collect();
        assert_eq!(values, [&b"2"[..], b"", b"6=7"]);
    }

    #[test]
    fn is_written_with_all_that_protects_it() {
        let text = |cookie: &SessionCookie, max_age, secure| {
            cookie.header("v", max_age, secure).1.to_str().unwrap().to_owned()
        };
        let cookie = SessionCookie::new("s");
        assert_eq!(text(&cookie, None, false), "s=v; Path=/; HttpOnly; SameSite=Lax");
        let short = Some(Duration::from_secs(5));
        assert_eq!(text(&cookie, short, true), "s=v; Path=/; HttpOnly; SameSite=Lax; Max-Age=5; Secure");
        let cookie = cookie.max_age(Duration::from_millis(9999));
        assert!(text(&cookie, None, false).ends_with("; Max-Age=9"));
        assert!(text(&cookie, short, false).ends_with("; Max-Age=5"));
    }

    #[test]
    fn a_bad_name_is_an_error() {
        for bad in ["", "a b", "a=b", "a;b", "é"] {
            let error = SessionCookie::new(bad).check().unwrap_err();
            assert!(error.to_string().contains(&format!("{bad:?}")));
        }
        SessionCookie::new("__Host-A.b_c").check().unwrap();
    }
}
