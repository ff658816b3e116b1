//! Tokens: who shows one, or signs with it, may manage the server, or only look at it. They are compared in a time that tells nothing
//! of them, and neither kept nor shown.

use std::{
    fmt, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::header;
use sha2::Sha256;

use super::signature::{Key, Signed, digest, is_signed};
use crate::{
    error::{Result, ServerError},
    http::{Refusal, Request},
    small_file,
};

/// Characters of a token.
const MIN_LEN: usize = 16;
const MAX_LEN: usize = 1024;

/// Where a token comes from.
pub(super) enum Source {
    File(PathBuf),
    Text(String),
}

/// What a request may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rights {
    All,
    Read,
}

/// Why a request may do nothing.
#[derive(Debug)]
pub(super) enum Denied {
    /// It shows no token, or not where it belongs.
    Missing,
    Wrong,
    /// It is signed in a way that cannot be checked.
    Unclear(&'static str),
    /// It is signed, and its body could not be received.
    NoBody(Refusal),
}

/// Of a body: whether it is known that somebody sends it who may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    Known,
    Unknown,
}

/// The tokens of a management listener.
#[derive(Debug)]
pub(super) struct Tokens {
    all: Option<Token>,
    read: Option<Token>,
}

impl Tokens {
    /// # Errors
    /// [`ServerError::Config`] for one that cannot be used.
    pub(super) fn new(all: Option<Source>, read: Option<Source>) -> Result<Self, ServerError> {
        let all = all.map(|source| source.text("the token")).transpose()?;
        let read = read.map(|source| source.text("the token for reading")).transpose()?;
        if all.is_some() && all == read {
            return Err(ServerError::config(
                "the two tokens of the management listener are the same: whoever may only read could do everything",
            ));
        }
        let token = |text: Option<String>| text.map(|text| Token::new(text.as_bytes())).transpose();
        Ok(Self { all: token(all)?, read: token(read)? })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_none() && self.read.is_none()
    }

    /// What the token of a request allows: `Authorization: Bearer TOKEN`, once (RFC 6750, section 2.1). Nowhere else, since URLs
    /// are logged, and cookies are sent by strangers' pages, too. Or the request is signed with it; then its `body` may be needed.
    pub(super) fn check(
        &self,
        request: &Request,
        body: impl FnOnce(Sender) -> std::result::Result<Bytes, Refusal>,
    ) -> std::result::Result<Rights, Denied> {
        let mut lines = request.headers().get_all(header::AUTHORIZATION).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else { return Err(Denied::Missing) };
        if is_signed(line.as_bytes()) {
            return self.check_signature(line.as_bytes(), request, body);
        }
        let given = bearer(line.as_bytes()).ok_or(Denied::Missing)?;
        self.find(|token| token.is(given))
    }

    fn check_signature(
        &self,
        line: &[u8],
        request: &Request,
        body: impl FnOnce(Sender) -> std::result::Result<Bytes, Refusal>,
    ) -> std::result::Result<Rights, Denied> {
        let signed = Signed::parse(line, request).map_err(Denied::Unclear)?;
        signed.check_time(SystemTime::now()).map_err(Denied::Unclear)?;
        let digest_of_body = |sender| Ok(digest(&body(sender).map_err(Denied::NoBody)?));
        match signed.content() {
            None => {
                let content = digest_of_body(Sender::Unknown)?;
                self.find(|token| signed.is_by(&token.signing, &content))
            }
            // First whether it is known who sends the body.
            Some(content) => {
                let rights = self.find(|token| signed.is_by(&token.signing, content))?;
                let is_same = digest_of_body(Sender::Known)?.eq_ignore_ascii_case(content);
                is_same.then_some(rights).ok_or(Denied::Unclear("the body is not the one that is signed"))
            }
        }
    }

    fn find(&self, is: impl Fn(&Token) -> bool) -> std::result::Result<Rights, Denied> {
        // Both are compared in any case: so the time says nothing of which one it is.
        let is = |token: &Option<Token>| token.as_ref().is_some_and(&is);
        match (is(&self.all), is(&self.read)) {
            (true, _) => Ok(Rights::All),
            (false, true) => Ok(Rights::Read),
            (false, false) => Err(Denied::Wrong),
        }
    }
}

fn bearer(line: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = line.split_at_checked("Bearer ".len())?;
    Some(token.trim_ascii()).filter(|token| scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty())
}

/// Recognizes a token by its signature with a random key: two signatures can be compared without telling where the texts differ,
/// or how long they are.
struct Token {
    key: Hmac<Sha256>,
    signature: [u8; 32],
    /// What requests are signed with that do not show it.
    signing: Key,
}

impl Token {
    fn new(text: &[u8]) -> Result<Self, ServerError> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|e| io::Error::other(e.to_string()))?;
        let key = Hmac::<Sha256>::new_from_slice(&key).map_err(|e| io::Error::other(e.to_string()))?;
        let signature = key.clone().chain_update(text).finalize().into_bytes().into();
        Ok(Self { key, signature, signing: Key::new(text) })
    }

    fn is(&self, text: &[u8]) -> bool {
        self.key.clone().chain_update(text).verify_slice(&self.signature).is_ok()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Source {
    /// The token; `what` it is, for errors, which never show it.
    fn text(self, what: &str) -> Result<String, ServerError> {
        let (text, name) = match self {
            Self::Text(text) => (text, what.to_owned()),
            Self::File(path) => {
                let name = format!("{what} in {}", path.display());
                let text =
                    read(&path).map_err(|e| ServerError::config(format!("{name}: {}", Failed(e, &path))))?;
                (text, name)
            }
        };
        let token = text.trim_ascii();
        let wrong = |why: String| Err(ServerError::config(format!("{name} {why}")));
        match token.len() {
            0 => wrong("is empty; `openssl rand -hex 32` makes one".into()),
            n if n < MIN_LEN => {
                wrong(format!("has {n} characters: it needs {MIN_LEN}; `openssl rand -hex 32` makes one"))
            }
            n if n > MAX_LEN => wrong(format!("has more than {MAX_LEN} characters")),
            _ if !token.bytes().all(|b| b.is_ascii_graphic()) => {
                wrong("may have letters, digits and signs of ASCII only, without spaces".into())
            }
            _ => Ok(token.to_owned()),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({path:?})"),
            Self::Text(_) => f.write_str("Text(…)"),
        }
    }
}

/// Why a token's file cannot be read, and how one is made.
struct Failed<'a>(io::Error, &'a Path);

impl fmt::Display for Failed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(error, path) = self;
        error.fmt(f)?;
        if error.kind() == io::ErrorKind::NotFound {
            write!(f, "; `(umask 077; openssl rand -hex 32 > {})` makes one", path.display())?;
        }
        Ok(())
    }
}

/// Reads a token's file, and warns of one that everybody can read, or replace by one that they know.
fn read(path: &Path) -> io::Result<String> {
    let file = small_file::open(path)?;
    let mode = file.metadata()?.mode();
    let may = |bit| mode & bit != 0;
    if let Some(can) = may(0o004).then_some("read").or_else(|| may(0o002).then_some("change")) {
        log::warn!("{}: every user of this machine can {can} this token: chmod 600", path.display());
    }
    // What is longer is no token, and is told so.
    small_file::read_text(&file, 2 * MAX_LEN as u64, small_file::PATIENCE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::parse_head;

    const ALL: &str = "0123456789abcdef";
    const READ: &str = "fedcba9876543210";

    fn text(token: &str) -> Option<Source> {
        Some(Source::Text(token.into()))
    }

    fn check(lines: &str) -> std::result::Result<Rights, &'static str> {
        let tokens = Tokens::new(text(ALL), text(READ)).unwrap();
        let head = format!("GET /?token={ALL} HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
        let request = parse_head(head.as_bytes(), 8000).unwrap().unwrap().0;
        tokens.check(&request, |_| panic!("no body is needed")).map_err(|denied| match denied {
            Denied::Missing => "missing",
            Denied::Wrong => "wrong",
            Denied::Unclear(why) => why,
            Denied::NoBody(_) => "no body",
        })
    }

    #[test]
    fn a_token_is_shown_in_one_place() {
        for (lines, result) in [
            (format!("Authorization: Bearer {ALL}\r\n"), Ok(Rights::All)),
            (format!("authorization: bEARER   {READ} \r\n"), Ok(Rights::Read)),
            (format!("Authorization: Bearer {ALL}x\r\n"), Err("wrong")),
            (format!("Authorization: Bearer {}\r\n", &ALL[1..]), Err("wrong")),
            (format!("Authorization: Bearer {ALL} {READ}\r\n"), Err("wrong")),
            (format!("Authorization: Bearer {ALL}\r\nAuthorization: Bearer {ALL}\r\n"), Err("missing")),
            (
                format!("Authorization: AWS4-HMAC-SHA256 {ALL}\r\n"),
                Err("Authorization: Credential is missing"),
            ),
            (format!("Authorization: AWS4-HMAC-SHA256,{ALL}\r\n"), Err("missing")),
            (format!("Authorization: Bearer{ALL}\r\n"), Err("missing")),
            (format!("Authorization: Basic {ALL}\r\n"), Err("missing")),
            (format!("Authorization: {ALL}\r\n"), Err("missing")),
            (format!("Cookie: token={ALL}\r\nX-Api-Key: {ALL}\r\n"), Err("missing")),
            ("Authorization: Bearer \r\n".into(), Err("missing")),
            ("Authorization: \r\n".into(), Err("missing")),
            (String::new(), Err("missing")),
        ] {
            assert_eq!(check(&lines), result, "{lines}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_shown() {
        let error = |token: &str| Tokens::new(text(token), None).unwrap_err().to_string();
        for (token, part) in [
            ("", "is empty"),
            (" \n", "is empty"),
            ("0123456789abcde\n", "15 characters"),
            ("0123456789 abcdef", "ASCII"),
            ("0123456789abcdeä", "ASCII"),
        ] {
            assert!(error(token).contains(part), "{token}: {}", error(token));
        }
        assert!(error(&"x".repeat(1025)).contains("1024"));
        assert!(!error("secret-15-chars").contains("secret"));
        let same = Tokens::new(text(ALL), text(ALL)).unwrap_err().to_string();
        assert!(same.contains("the same") && !same.contains(ALL), "{same}");
        let shown = format!("{:?} {:?}", Tokens::new(text(ALL), None).unwrap(), text(ALL));
        assert!(!shown.contains(ALL), "{shown}");
    }
}
