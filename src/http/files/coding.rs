//! Which of a file and its compressed copies a client gets, by its `Accept-Encoding` (RFC 9110, section 12.5.3). Pure.

use http::header;

use crate::http::request::Request;

/// How a copy of a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Brotli,
    Gzip,
}

impl Coding {
    /// The smaller one first.
    pub(super) const ALL: [Self; 2] = [Self::Brotli, Self::Gzip];

    /// Its name in `Content-Encoding`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    /// What is added to a file's name for the copy beside it.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Brotli => ".br",
            Self::Gzip => ".gz",
        }
    }

    fn is_called(self, name: &str) -> bool {
        name.eq_ignore_ascii_case(self.name()) || (self == Self::Gzip && name.eq_ignore_ascii_case("x-gzip"))
    }
}

/// The copy that the client likes best of those `available`, which are in our order; `None`: the file as it is.
///
/// A client that accepts nothing gets the file as it is, too, as section 12.5.3 allows: it can read that best.
pub(super) fn choose(request: &Request, available: impl Iterator<Item = Coding>) -> Option<Coding> {
    let weight = |is_called: &dyn Fn(&str) -> bool| {
        let mut rest = None;
        for item in request.tokens(header::ACCEPT_ENCODING) {
            let Some((name, weight)) = parse(item) else { continue };
            if is_called(name) {
                return Some(weight);
            }
            if name == "*" {
                rest = Some(weight);
            }
        }
        rest
    };
    // A client that says nothing of `identity` accepts it, but likes all better that it has named.
    let plain = weight(&|name| name.eq_ignore_ascii_case("identity")).unwrap_or(0);
    let mut best = (plain.max(1), None);
    for coding in available {
        let weight = weight(&|name| coding.is_called(name)).unwrap_or(0);
        if weight > best.0 || (weight == best.0 && best.1.is_none()) {
            best = (weight, Some(coding));
        }
    }
    best.1
}

/// A name, and its weight in thousandths. `None`: malformed.
fn parse(item: &str) -> Option<(&str, u16)> {
    let Some((name, parameter)) = item.split_once(';') else { return Some((item, 1000)) };
    let (key, value) = parameter.split_once('=')?;
    let value = value.trim();
    let (whole, decimals) = value.split_once('.').unwrap_or((value, ""));
    let is_weight = key.trim().eq_ignore_ascii_case("q")
        && matches!(whole, "0" | "1")
        && decimals.len() <= 3
        && decimals.bytes().all(|b| b.is_ascii_digit());
    let thousandths = || format!("{whole}{decimals:0<3}").parse().ok().filter(|&weight| weight <= 1000);
    Some((name.trim(), is_weight.then(thousandths)??))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::parse_head;

    fn chosen(accept: &str, available: &[Coding]) -> Option<Coding> {
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{accept}\r\n");
        let (request, _) = parse_head(head.as_bytes(), 1000).unwrap().unwrap();
        choose(&request, available.iter().copied())
    }

    #[test]
    fn the_client_decides_and_we_where_it_does_not_care() {
        use Coding::{Brotli, Gzip};
        for (accept, expected) in [
            ("gzip, deflate, br, zstd", Some(Brotli)),
            ("gzip, deflate", Some(Gzip)),
            ("X-GZIP", Some(Gzip)),
            ("br;q=0.5, gzip", Some(Gzip)),
            ("br;q=0.5,gzip;q=0.501", Some(Gzip)),
            ("br ; Q = 0.5 , gzip;q=0.5", Some(Brotli)),
            ("gzip;q=0.001", Some(Gzip)),
            ("gzip;q=0.5, identity", None),
            ("gzip;q=0.5, identity;q=0.5", Some(Gzip)),
            ("gzip;q=0.5, *", Some(Brotli)),
            ("*", Some(Brotli)),
            ("*;q=0.5, br;q=0", Some(Gzip)),
            ("*;q=0", None),
            ("identity;q=0, *;q=0", None),
            ("identity;q=1, *;q=0", None),
            ("gzip;q=0, br;q=0.000", None),
            ("gzip;q=2, br;q=1.001", None),
            ("gzip;q=0.1234, br;q=", None),
            ("gzip;level=9", None),
            ("deflate", None),
            ("identity", None),
            ("", None),
        ] {
            assert_eq!(chosen(&format!("Accept-Encoding: {accept}\r\n"), &Coding::ALL), expected, "{accept}");
        }
        assert_eq!(chosen("", &Coding::ALL), None, "a client that says nothing may know none of them");
        let lines = "Accept-Encoding: br\r\nAccept-Encoding: gzip\r\n";
        assert_eq!(chosen(lines, &[Gzip]), Some(Gzip));
        assert_eq!(chosen(lines, &[]), None);
    }
}
