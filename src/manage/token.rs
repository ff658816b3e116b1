//! Tokens: who shows one may manage the server, or only look at it. They are compared in a time that tells nothing of them, and
//! neither kept nor shown.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use hmac::{Hmac, KeyInit, Mac};
use http::header;
use sha2::Sha256;

use crate::{
    error::{Result, ServerError},
    http::Request,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// It shows no token, or not where it belongs.
    Missing,
    Wrong,
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
    /// are logged, and cookies are sent by strangers' pages, too.
    pub(super) fn check(&self, request: &Request) -> std::result::Result<Rights, Denied> {
        let mut lines = request.headers().get_all(header::AUTHORIZATION).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else { return Err(Denied::Missing) };
        let given = bearer(line.as_bytes()).ok_or(Denied::Missing)?;
        // Both are compared in any case: so the time says nothing of which one it is.
        let is = |token: &Option<Token>| token.as_ref().is_some_and(|token| token.is(given));
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
}

impl Token {
    fn new(text: &[u8]) -> Result<Self, ServerError> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|e| io::Error::other(e.to_string()))?;
        let key = Hmac::<Sha256>::new_from_slice(&key).map_err(|e| io::Error::other(e.to_string()))?;
        let signature = key.clone().chain_update(text).finalize().into_bytes().into();
        Ok(Self { key, signature })
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
            0 => wrong("is empty".into()),
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

/// Reads a token's file, and warns of one that everybody can read.
fn read(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    if file.metadata()?.mode() & 0o004 != 0 {
        log::warn!("{}: every user of this machine can read this token: chmod 600", path.display());
    }
    let mut text = String::new();
    // What is longer is no token, and is told so.
    file.take(2 * MAX_LEN as u64).read_to_string(&mut text)?;
    Ok(text)
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

    fn check(lines: &str) -> std::result::Result<Rights, Denied> {
        let tokens = Tokens::new(text(ALL), text(READ)).unwrap();
        let head = format!("GET /?token={ALL} HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
        tokens.check(&parse_head(head.as_bytes(), 8000).unwrap().unwrap().0)
    }

    #[test]
    fn a_token_is_shown_in_one_place() {
        for (lines, result) in [
            (format!("Authorization: Bearer {ALL}\r\n"), Ok(Rights::All)),
            (format!("authorization: bEARER   {READ} \r\n"), Ok(Rights::Read)),
            (format!("Authorization: Bearer {ALL}x\r\n"), Err(Denied::Wrong)),
            (format!("Authorization: Bearer {}\r\n", &ALL[1..]), Err(Denied::Wrong)),
            (format!("Authorization: Bearer {ALL} {READ}\r\n"), Err(Denied::Wrong)),
            (format!("Authorization: Bearer {ALL}\r\nAuthorization: Bearer {ALL}\r\n"), Err(Denied::Missing)),
            (format!("Authorization: Bearer{ALL}\r\n"), Err(Denied::Missing)),
            (format!("Authorization: Basic {ALL}\r\n"), Err(Denied::Missing)),
            (format!("Authorization: {ALL}\r\n"), Err(Denied::Missing)),
            (format!("Cookie: token={ALL}\r\nX-Api-Key: {ALL}\r\n"), Err(Denied::Missing)),
            ("Authorization: Bearer \r\n".into(), Err(Denied::Missing)),
            ("Authorization: \r\n".into(), Err(Denied::Missing)),
            (String::new(), Err(Denied::Missing)),
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
