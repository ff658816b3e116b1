//! The `Range` of a request (RFC 9110, section 14). Pure.

use std::ops::Range;

/// What of a file is sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it.
    Whole,
    /// These bytes; at least one.
    Part(Range<u64>),
    /// None of those asked for are there.
    Nothing,
}

/// What is wanted of so many bytes. A header that is malformed, of another unit, or of several ranges is ignored, as a server
/// may (section 14.2): no browser asks for several, and a multipart answer would cost more than the file.
pub(super) fn wanted(header: &str, length: u64) -> Wanted {
    let Some(spec) = only_range(header) else { return Wanted::Whole };
    let Some((first, last)) = spec.split_once('-') else { return Wanted::Whole };
    let range = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(length),
        (Some(first), None) if last.is_empty() => first..length,
        // The last bytes, of which an empty file has none: then all of it is what is wanted.
        (None, Some(count)) if first.is_empty() && count > 0 && length == 0 => return Wanted::Whole,
        (None, Some(count)) if first.is_empty() => length.saturating_sub(count)..length,
        _ => return Wanted::Whole,
    };
    if range.is_empty() { Wanted::Nothing } else { Wanted::Part(range) }
}

/// The range, if there is one only.
fn only_range(header: &str) -> Option<&str> {
    let (unit, set) = header.split_once('=')?;
    let mut ranges = set.split(',').map(str::trim).filter(|spec| !spec.is_empty());
    let first = ranges.next();
    first.filter(|_| unit.trim().eq_ignore_ascii_case("bytes") && ranges.next().is_none())
}

/// A number above all lengths counts as the largest.
fn number(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_cut_to_what_there_is() {
        use Wanted::{Nothing, Part, Whole};
        for (header, length, expected) in [
            ("bytes=0-0", 10, Part(0..1)),
            ("bytes=0-9", 10, Part(0..10)),
            ("bytes=3-", 10, Part(3..10)),
            ("bytes=3-99", 10, Part(3..10)),
            ("bytes=9-9", 10, Part(9..10)),
            ("bytes=-3", 10, Part(7..10)),
            ("bytes=-99", 10, Part(0..10)),
            ("Bytes= 1-2 ,", 10, Part(1..3)),
            ("bytes=1-18446744073709551615", 10, Part(1..10)),
            ("bytes=1-99999999999999999999999", 10, Part(1..10)),
            ("bytes=0-18446744073709551615", u64::MAX, Part(0..u64::MAX)),
            ("bytes=10-", 10, Nothing),
            ("bytes=10-20", 10, Nothing),
            ("bytes=99999999999999999999999-", 10, Nothing),
            ("bytes=-0", 10, Nothing),
            ("bytes=0-", 0, Nothing),
            ("bytes=-1", 0, Whole),
            ("bytes=2-1", 10, Whole),
            ("bytes=0-1,3-4", 10, Whole),
            ("bytes=", 10, Whole),
            ("bytes=-", 10, Whole),
            ("bytes=--1", 10, Whole),
            ("bytes=+1-2", 10, Whole),
            ("bytes=1 - 2", 10, Whole),
            ("bytes=a-b", 10, Whole),
            ("bytes", 10, Whole),
            ("lines=0-1", 10, Whole),
            ("", 10, Whole),
        ] {
            assert_eq!(wanted(header, length), expected, "{header:?} of {length}");
        }
    }
}
