//! Responses: pages and refusals, and their encoding as bytes. No I/O.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{
    date::push_date,
    head::{CommonHeaders, begin_head, push_line},
    header::{header_line, items},
    part::FilePart,
};
use crate::{
    error::{Error, OverLimit},
    message::CloseCode,
};

/// What a client is told of a mistake in the application.
pub(crate) const FAILED: &str = "the handler failed";

/// A plain HTTP response.
///
/// Names and values of header lines are strings, or typed as [`HeaderName`](crate::HeaderName) and
/// [`HeaderValue`](crate::HeaderValue). What cannot be in a header, such as a line break, is never sent: then the response is
/// a 500, whatever else is set, and the log names the header.
///
/// ```
/// use switchboard::{Response, StatusCode};
/// let page = Response::html("<p>hello</p>").with_header("cache-control", "no-store");
/// let error = Response::text(StatusCode::CONFLICT, "somebody was faster");
/// let mistake = Response::html("").with_header("x-user", "ada\r\nset-cookie: a=b");
/// # assert_eq!(page.status(), 200); assert_eq!(error.status(), 409);
/// assert_eq!(mistake.status(), StatusCode::INTERNAL_SERVER_ERROR);
/// ```
#[derive(Debug)]
#[must_use = "a response is sent when the handler returns it"]
pub struct Response {
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
    /// What went wrong, for the log: this is a 500, and stays one.
    fault: Option<Box<str>>,
    is_late: bool,
}

#[derive(Debug)]
pub(crate) enum Body {
    Bytes(Bytes),
    File(FilePart),
    #[cfg(feature = "manage")]
    Produced(super::produced::Producer),
}

impl Response {
    /// Status 200, with this body and content type, such as `application/json`.
    pub fn new(content_type: impl TryInto<HeaderValue>, body: impl Into<Bytes>) -> Self {
        Self::with_body(content_type, Body::Bytes(body.into()))
    }

    /// Status 200, with HTML in UTF-8.
    pub fn html(body: impl Into<String>) -> Self {
        Self::new("text/html; charset=utf-8", body.into())
    }

    /// Status 200, with JSON (`application/json`) that is text already, such as from `serde_json::to_string`.
    pub fn json(body: impl Into<Bytes>) -> Self {
        Self::new("application/json", body)
    }

    /// Sends the browser to another page: with 303 (`SEE_OTHER`) after a form, so that it asks for the page with GET; with 307 or
    /// 308 by the method that it has used, for now or for ever. The location is a URL or a path; with what cannot be in a
    /// header, or a status that is no redirect, the response is a 500, as above.
    ///
    /// ```
    /// use switchboard::{Response, StatusCode};
    /// let done = Response::redirect(StatusCode::SEE_OTHER, "/inbox?sent=1");
    /// # assert_eq!(done.status(), 303);
    /// ```
    pub fn redirect(status: StatusCode, location: impl TryInto<HeaderValue>) -> Self {
        if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Refusal::internal(format!("{status} is no redirect")).into();
        }
        Self::text(status, format!("{status}\n")).with_header(header::LOCATION, location)
    }

    /// Any status, with plain text in UTF-8.
    pub fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self::new("text/plain; charset=utf-8", body.into()).with_status(status)
    }

    pub(crate) fn with_body(content_type: impl TryInto<HeaderValue>, body: Body) -> Self {
        let response = Self { body, ..Self::without_body(StatusCode::OK) };
        response
            .with_header(header::CONTENT_TYPE, content_type)
            .with_header(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))
    }

    pub(crate) fn without_body(status: StatusCode) -> Self {
        let body = Body::Bytes(Bytes::new());
        Self { status, headers: HeaderMap::new(), body, fault: None, is_late: false }
    }

    /// Sets the status.
    pub fn with_status(mut self, status: StatusCode) -> Self {
        if self.fault.is_none() {
            self.status = status;
        }
        self
    }

    /// Sets a header line; it replaces earlier ones of the same name. For several of one name:
    /// [`headers_mut`](Self::headers_mut).
    pub fn with_header(
        mut self,
        name: impl TryInto<HeaderName> + AsRef<[u8]>,
        value: impl TryInto<HeaderValue>,
    ) -> Self {
        if self.fault.is_some() {
            return self;
        }
        match set_header(&mut self.headers, name, value) {
            Ok(()) => self,
            Err(fault) => Refusal::internal(fault).into(),
        }
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The header lines.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }

    /// Why it is not the response that was meant: for the log, and not for the client.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Whether it is to come [late](Refusal::late).
    pub(crate) fn is_late(&self) -> bool {
        self.is_late
    }

    /// The same response, late if that refusal is.
    #[cfg(feature = "manage")]
    pub(crate) fn late_as(self, refusal: &Refusal) -> Self {
        Self { is_late: refusal.is_late, ..self }
    }

    /// Whether another response can follow on the same connection.
    pub(crate) fn can_persist(&self) -> bool {
        let mut options = items(&self.headers, header::CONNECTION, b',');
        !self.status.is_informational() && !options.any(|option| option.eq_ignore_ascii_case(b"close"))
    }

    /// The client knows no chunks: a body whose length nobody knows ends with the connection.
    #[cfg(feature = "manage")]
    pub(crate) fn without_chunks(mut self) -> Self {
        if let Body::Produced(producer) = &mut self.body {
            producer.is_chunked = false;
        }
        self
    }

    /// The bytes of the head, and the body to be sent after it; how they are delimited is not the handler's to say. `common` are
    /// the header lines of all responses. It `persists` if another response may follow on the same connection.
    pub(crate) fn into_parts(mut self, common: &CommonHeaders, persists: bool) -> (Vec<u8>, Body) {
        if has_no_body(self.status) {
            self.headers.remove(header::CONTENT_LENGTH);
            self.body = Body::Bytes(Bytes::new());
        } else {
            let length = match &self.body {
                Body::Bytes(bytes) => Some(bytes.len() as u64),
                Body::File(part) => Some(part.len()),
                #[cfg(feature = "manage")]
                Body::Produced(_) => None,
            };
            match length {
                Some(length) => drop(self.headers.insert(header::CONTENT_LENGTH, length.into())),
                None => drop(self.headers.remove(header::CONTENT_LENGTH)),
            }
        }
        self.headers.remove(header::TRANSFER_ENCODING);
        #[cfg(feature = "manage")]
        if matches!(&self.body, Body::Produced(producer) if producer.is_chunked()) {
            self.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        // Who sends Upgrade says so in Connection, too (RFC 9110, section 7.8).
        let connection = match (self.headers.contains_key(header::UPGRADE), persists) {
            (false, true) => None,
            (false, false) => Some("close"),
            (true, true) => Some("Upgrade"),
            (true, false) => Some("Upgrade, close"),
        };
        self.headers.remove(header::CONNECTION);
        let connection = connection.map(|value| (header::CONNECTION, HeaderValue::from_static(value)));
        self.headers.extend(connection);
        (encode_head(self.status, &self.headers, common), self.body)
    }
}

/// Sets a header line in place of those of its name.
///
/// # Errors
/// What is wrong with it, for the log.
fn set_header(
    headers: &mut HeaderMap,
    name: impl TryInto<HeaderName> + AsRef<[u8]>,
    value: impl TryInto<HeaderValue>,
) -> Result<(), Box<str>> {
    let (name, value) = header_line(name, value)?;
    match headers.try_insert(name, value) {
        Ok(_) => Ok(()),
        Err(_) => Err("there are too many header lines".into()),
    }
}

/// Whether a response of this status ends with its head, whatever that says (RFC 9112, section 6.3).
fn has_no_body(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// The status line and the header lines (RFC 9112, section 2.1).
fn encode_head(status: StatusCode, headers: &HeaderMap, common: &CommonHeaders) -> Vec<u8> {
    let mut head = Vec::new();
    begin_head(status, &mut head);
    if !headers.contains_key(header::DATE) {
        push_date(&mut head);
    }
    for (name, value) in headers {
        push_line(name, value.as_bytes(), &mut head);
    }
    common.write(|name| headers.contains_key(name), &mut head);
    head.extend_from_slice(b"\r\n");
    head
}

/// The refusal of an opening handshake: an HTTP status, and one line that says why.
///
/// In [`on_pre_server`](crate::WebSocketServer::on_pre_server) `?` makes one of a [`StatusCode`](crate::StatusCode) and of an
/// [`Error`](crate::Error) of this crate. What else can fail there is either the client's mistake, which a refusal of your own
/// explains, or [internal](Self::internal).
///
/// ```
/// use switchboard::{Opening, Refusal, StatusCode};
///
/// fn on_pre_server(opening: &mut Opening) -> Result<(), Refusal> {
///     let request = opening.request();
///     let user = request.cookie("user").ok_or(StatusCode::UNAUTHORIZED)?;
///     let room = request.query_value("room").unwrap_or_default();
///     let room: u32 = room.parse().map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "say ?room=NUMBER"))?;
///     let banned = std::fs::read_to_string("banned.txt").map_err(Refusal::internal)?;
///     if banned.lines().any(|name| name == user) {
///         return Err(Refusal::new(StatusCode::FORBIDDEN, "not you"));
///     }
///     opening.session().set("room", &room.to_string())?;
///     Ok(())
/// }
///
/// let refusal = Refusal::new(StatusCode::UNAUTHORIZED, "members only").with_header("www-authenticate", "Basic");
/// assert_eq!(refusal.to_string(), "401 Unauthorized: members only");
/// ```
#[derive(Debug, Clone)]
#[must_use = "a refusal is sent when `on_pre_server` returns it"]
pub struct Refusal {
    status: StatusCode,
    reason: Cow<'static, str>,
    /// Few have any.
    headers: Option<Box<HeaderMap>>,
    /// What went wrong, for the log.
    fault: Option<Box<str>>,
    is_late: bool,
}

impl Refusal {
    /// The reason is sent to the client, so it must not contain secrets.
    pub fn new(status: StatusCode, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { status, reason: reason.into(), headers: None, fault: None, is_late: false }
    }

    /// 500, for an error that is not the client's: the client is told only that the handler failed, and the error is logged.
    /// Use it as `.map_err(Refusal::internal)?`.
    pub fn internal(error: impl fmt::Display) -> Self {
        let fault = Some(error.to_string().into());
        Self { fault, ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, FAILED) }
    }

    /// Sets a header line, such as `WWW-Authenticate`; it replaces earlier ones of the same name. For several of one name:
    /// [`headers_mut`](Self::headers_mut). Name and value are as in a [`Response`]: with what cannot be in a header, this
    /// becomes a 500, and the log names the header.
    pub fn with_header(
        mut self,
        name: impl TryInto<HeaderName> + AsRef<[u8]>,
        value: impl TryInto<HeaderValue>,
    ) -> Self {
        match set_header(self.headers_mut(), name, value) {
            Ok(()) => self,
            Err(fault) => Self::internal(fault),
        }
    }

    /// It comes half a second late, for whoever may be guessing a secret. The connection has to end with it.
    #[cfg(feature = "manage")]
    pub(crate) fn late(self) -> Self {
        Self { is_late: true, ..self }
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The reason, as it is sent to the client.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The header lines.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers.get_or_insert_default()
    }

    /// What went wrong, for the log and not for the client.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.reason)
    }
}

impl std::error::Error for Refusal {}

impl From<StatusCode> for Refusal {
    fn from(status: StatusCode) -> Self {
        Self::new(status, "refused")
    }
}

/// 503 if the session store has failed, or if something is full that will have room again, else 500: none of these errors is the client's. The client is not told
/// which one it is; the log is.
impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let refusal = Self::internal(&error);
        let busy = |fault| {
            let busy = Self::new(StatusCode::SERVICE_UNAVAILABLE, "try again later");
            Self { fault, ..busy.with_header(header::RETRY_AFTER, 5) }
        };
        match error {
            Error::SessionsFull
            | Error::QueueFull
            | Error::Unreachable
            | Error::OverLimit(OverLimit::AllTopics | OverLimit::Calls) => busy(refusal.fault),
            // What others publish has filled its queue before it was open.
            Error::Closed(reason) if reason.code() == CloseCode::TRY_AGAIN => busy(None),
            Error::SessionStore(_) => busy(None), // it was logged when it happened
            // What it has too much of, the client has mostly sent.
            Error::OverLimit(limit) => Self::new(StatusCode::BAD_REQUEST, limit.to_string()),
            _ => refusal,
        }
    }
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Self {
        let mut response = Self::text(refusal.status, format!("{refusal}\n"));
        response.headers.extend(refusal.headers.into_iter().flat_map(|headers| *headers));
        response.fault = refusal.fault;
        response.is_late = refusal.is_late;
        response
    }
}

/// With the name of the status as its text, where it may have one: for a handler that has nothing else to say.
impl From<StatusCode> for Response {
    fn from(status: StatusCode) -> Self {
        Self::text(status, format!("{status}\n"))
    }
}

/// So that a handler may use `?`.
impl<E: Into<Response>> From<Result<Response, E>> for Response {
    fn from(result: Result<Response, E>) -> Self {
        result.unwrap_or_else(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(response: impl Into<Response>) -> (String, String) {
        let (head, Body::Bytes(body)) = response.into().into_parts(&CommonHeaders::default(), false) else {
            panic!()
        };
        (String::from_utf8(head).unwrap(), String::from_utf8(body.into()).unwrap())
    }

    #[test]
    fn a_refusal_is_one_line_with_its_status() {
        let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "no").with_header(header::ALLOW, "GET");
        let (head, body) = sent(refusal);
        assert!(head.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{head}");
        assert!(head.contains("allow: GET\r\n") && head.contains("connection: close\r\n"));
        assert_eq!(body, "405 Method Not Allowed: no\n");
    }

    #[test]
    fn a_header_replaces_those_of_its_name_and_there_may_be_several() {
        let mut refusal = Refusal::from(StatusCode::UNAUTHORIZED)
            .with_header("Content-Type", "text/x")
            .with_header("www-authenticate", "Wrong")
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
        refusal.headers_mut().append(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        let (head, _) = sent(refusal);
        assert!(head.contains("www-authenticate: Basic\r\nwww-authenticate: Bearer\r\n"), "{head}");
        assert!(!head.contains("Wrong") && head.matches("\ncontent-type").count() == 1, "{head}");
        let (head, _) = sent(Response::html("").with_header("Content-Type", "text/x"));
        assert!(head.contains("content-type: text/x\r\n") && !head.contains("text/html"), "{head}");
    }

    #[test]
    fn a_header_that_cannot_be_makes_a_500_that_stays_one() {
        let good = || Response::html("secret").with_header("x-first", "1");
        for bad in ["a\r\nset-cookie: b", "a\nb", "\0", "\x7f"] {
            for response in [
                good().with_header("X-User", bad),
                good().with_header("X-User", bad).with_status(StatusCode::OK).with_header("x-user", "fine"),
                good().with_header(format!("X-User{bad}"), "fine"),
                Response::new(bad, "secret"),
                Refusal::new(StatusCode::FORBIDDEN, "secret").with_header("x-user", bad).into(),
            ] {
                let fault = response.fault().unwrap().to_owned();
                assert!(
                    ["x-user", "X-User", "content-type"].iter().any(|name| fault.contains(name)),
                    "{fault}"
                );
                assert_eq!(response.status(), 500);
                let (head, body) = sent(response);
                assert_eq!(body, "500 Internal Server Error: the handler failed\n");
                assert!(
                    !head.to_ascii_lowercase().contains("x-user") && !head.contains("set-cookie"),
                    "{head}"
                );
                assert!(!head.contains("x-first") && head.contains("content-type: text/plain"), "{head}");
            }
        }
        let (head, body) =
            sent(Response::html("kept").with_header("x-name", "Zoë").with_header("x-tab", "a\tb"));
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("x-name: Zoë\r\n"), "{head}");
        assert_eq!(body, "kept");
        assert_eq!(Response::html("").with_header("ä", "a").status(), 500);
    }

    #[test]
    fn an_error_is_for_the_log_and_not_for_the_client() {
        let told = |refusal: Refusal| (refusal.fault().map(str::to_owned), sent(refusal).1);
        let failed = "500 Internal Server Error: the handler failed\n".to_owned();
        let internal = std::fs::read("/no such file").map_err(Refusal::internal).unwrap_err();
        assert!(internal.fault().unwrap().contains("No such file"));
        assert_eq!(told(internal).1, failed);
        assert_eq!(told(Error::NotShared.into()), (Some(Error::NotShared.to_string()), failed));
        let full = Refusal::from(Error::SessionsFull);
        assert!(sent(full.clone()).0.contains("retry-after: 5\r\n"));
        let text = "503 Service Unavailable: try again later\n".to_owned();
        assert_eq!(told(full), (Some(Error::SessionsFull.to_string()), text));
        let boxed: Box<dyn std::error::Error + Send + Sync> = Refusal::from(StatusCode::NOT_FOUND).into();
        assert_eq!(boxed.to_string(), "404 Not Found: refused");
    }

    #[test]
    fn redirects_and_json() {
        for status in [301, 302, 303, 307, 308] {
            let redirect = Response::redirect(StatusCode::from_u16(status).unwrap(), "/a?b=c".to_owned());
            let (head, _) = sent(redirect);
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            assert!(head.contains("location: /a?b=c\r\n"), "{head}");
        }
        for (status, location) in
            [(StatusCode::OK, "/"), (StatusCode::NOT_MODIFIED, "/"), (StatusCode::FOUND, "/\r\nx: y")]
        {
            let wrong = Response::redirect(status, location);
            assert!(wrong.status() == 500 && wrong.fault().is_some(), "{wrong:?}");
        }
        let (head, body) = sent(StatusCode::GONE);
        assert!(head.starts_with("HTTP/1.1 410 ") && body == "410 Gone\n", "{head}");
        assert_eq!(sent(StatusCode::NO_CONTENT).1, "");
        let (head, body) = sent(Response::json(vec![b'1']));
        assert!(head.contains("content-type: application/json\r\n") && body == "1", "{head}");
    }

    #[test]
    fn some_responses_have_no_body_whatever_was_given() {
        for status in [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED] {
            let response = Response::text(status, "text").with_header("content-length", "4");
            let (head, Body::Bytes(body)) = response.into_parts(&CommonHeaders::default(), false) else {
                panic!()
            };
            assert!(!String::from_utf8(head).unwrap().contains("content-length") && body.is_empty());
        }
    }

    #[test]
    fn how_a_response_is_delimited_is_not_the_handlers_to_say() {
        let head = |response: Response, persists| {
            let (head, Body::Bytes(body)) = response.into_parts(&CommonHeaders::default(), persists) else {
                panic!()
            };
            (String::from_utf8(head).unwrap(), body)
        };
        let lies = || {
            let response = Response::html("four").with_header("content-length", "3");
            response.with_header("transfer-encoding", "chunked").with_header("connection", "keep-alive")
        };
        let (text, body) = head(lies(), true);
        assert!(text.contains("content-length: 4\r\n") && body == "four", "{text}");
        assert!(!text.contains("transfer-encoding") && !text.contains("connection"), "{text}");
        for status in [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED, StatusCode::SWITCHING_PROTOCOLS] {
            let (text, body) = head(lies().with_status(status), true);
            assert!(!text.contains("content-length") && body.is_empty(), "{text}");
        }
        assert!(lies().can_persist() && !lies().with_header("connection", "x, Close").can_persist());
        assert!(!lies().with_status(StatusCode::CONTINUE).can_persist());
        let (text, _) = head(lies().with_header("date", "some time"), false);
        assert_eq!(text.matches("date: ").count(), 1, "{text}");
    }
}
