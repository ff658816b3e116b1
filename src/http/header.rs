//! Header lines: those that applications give, checked, so that nothing in them can begin another line (RFC 9110, section 5.5),
//! and lists over several lines.

use http::{HeaderMap, HeaderName, HeaderValue};

/// So much of a malformed name the log shows.
const SHOWN: usize = 64;

/// The header line of this name and value, each a string or typed. The error is for the log: it names the header, but does not
/// show the value, which may be a secret.
pub(crate) fn header_line(
    name: impl TryInto<HeaderName> + AsRef<[u8]>,
    value: impl TryInto<HeaderValue>,
) -> Result<(HeaderName, HeaderValue), Box<str>> {
    // The conversion takes it, and may give nothing back.
    let (mut start, length) = ([0; SHOWN], name.as_ref().len().min(SHOWN));
    start[..length].copy_from_slice(&name.as_ref()[..length]);
    let Ok(name) = name.try_into() else {
        return Err(format!("\"{}\" cannot be the name of a header", start[..length].escape_ascii()).into());
    };
    match value.try_into() {
        Ok(value) => Ok((name, value)),
        Err(_) => {
            Err(format!("the value of the header {name} has a line break or another control character")
                .into())
        }
    }
}

/// The lines of a head that was parsed.
///
/// # Errors
/// What is wrong with one of them.
pub(super) fn header_map(lines: &[httparse::Header<'_>]) -> Result<HeaderMap, &'static str> {
    let mut headers = HeaderMap::with_capacity(lines.len());
    for line in lines {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| "malformed HTTP header name")?;
        let value = HeaderValue::from_bytes(line.value).map_err(|_| "malformed HTTP header value")?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// The items of a header that is a list, over all of its lines. Cut as bytes: one item that is not text leaves the others as they
/// are.
pub(super) fn items(headers: &HeaderMap, name: HeaderName, separator: u8) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(name).into_iter();
    lines
        .flat_map(move |line| line.as_bytes().split(move |&b| b == separator))
        .map(<[u8]>::trim_ascii)
        .filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    #[test]
    fn strings_and_typed_values_are_taken() {
        let expected = (header::RETRY_AFTER, HeaderValue::from(5));
        assert_eq!(header_line("Retry-After", "5"), Ok(expected.clone()));
        assert_eq!(header_line(String::from("retry-after"), String::from("5")), Ok(expected.clone()));
        assert_eq!(header_line(b"retry-after".as_slice(), b"5".as_slice()), Ok(expected.clone()));
        assert_eq!(header_line(header::RETRY_AFTER, HeaderValue::from_static("5")), Ok(expected.clone()));
        assert_eq!(header_line(&header::RETRY_AFTER, 5), Ok(expected));
        assert_eq!(header_line("x-name", "Zoë\t").unwrap().1, "Zoë\t", "bytes above ASCII may be in a value");
    }

    #[test]
    fn whatever_could_begin_another_line_is_named() {
        for bad in ["a\r\nb: c", "\n", "\r", "\0", "\x7f", "a\x1bb"] {
            let error = header_line("X-User", bad).unwrap_err();
            assert!(error.contains("the header x-user") && !error.contains(bad), "{error}");
        }
        for (bad, shown) in [
            ("", "\"\""),
            ("a b", "\"a b\""),
            ("a:", "\"a:\""),
            ("x\r\nset-cookie", r#""x\r\nset-cookie""#),
            ("x\0", r#""x\x00""#),
            ("ä", r#""\xc3\xa4""#),
        ] {
            let error = header_line(bad, "v").unwrap_err();
            assert!(error.starts_with(shown), "{error}");
        }
        assert!(header_line("ä".repeat(100_000), "v").unwrap_err().len() < 500);
    }
}
