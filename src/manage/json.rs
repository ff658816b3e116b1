//! JSON (RFC 8259), only written: so that it needs no tree of values, and no crate for a table of escapes.

use std::{
    fmt::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// What can stand in an object or a list.
pub(super) trait Value {
    fn write(&self, out: &mut String);
}

/// An object that is being written, in the order of its names.
pub(super) struct Object(String);

/// A list that is being written.
pub(super) struct List(String);

impl Object {
    pub(super) fn new() -> Self {
        Self("{".into())
    }

    /// Adds a value. No name may be added twice.
    pub(super) fn with(mut self, name: &str, value: impl Value) -> Self {
        separate(&mut self.0);
        name.write(&mut self.0);
        self.0.push(':');
        value.write(&mut self.0);
        self
    }

    pub(super) fn into_text(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

impl List {
    pub(super) fn new() -> Self {
        Self("[".into())
    }

    pub(super) fn push(&mut self, value: impl Value) {
        separate(&mut self.0);
        value.write(&mut self.0);
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl<V: Value> FromIterator<V> for List {
    fn from_iter<I: IntoIterator<Item = V>>(values: I) -> Self {
        let mut list = Self::new();
        values.into_iter().for_each(|value| list.push(value));
        list
    }
}

/// A comma, unless it is the first.
fn separate(out: &mut String) {
    if out.len() > 1 {
        out.push(',');
    }
}

impl Value for Object {
    fn write(&self, out: &mut String) {
        out.push_str(&self.0);
        out.push('}');
    }
}

impl Value for List {
    fn write(&self, out: &mut String) {
        out.push_str(&self.0);
        out.push(']');
    }
}

impl Value for str {
    fn write(&self, out: &mut String) {
        out.push('"');
        for c in self.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => {
                    let _ = write!(out, "\\u{:04x}", u32::from(c)); // a String takes all
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

impl Value for bool {
    fn write(&self, out: &mut String) {
        out.push_str(if *self { "true" } else { "false" });
    }
}

impl Value for u64 {
    fn write(&self, out: &mut String) {
        let _ = write!(out, "{self}");
    }
}

impl Value for usize {
    fn write(&self, out: &mut String) {
        let _ = write!(out, "{self}");
    }
}

impl<V: Value> Value for Option<V> {
    fn write(&self, out: &mut String) {
        match self {
            Some(value) => value.write(out),
            None => out.push_str("null"),
        }
    }
}

impl<V: Value + ?Sized> Value for &V {
    fn write(&self, out: &mut String) {
        (**self).write(out);
    }
}

/// A time, as a number of milliseconds.
pub(super) struct Millis(pub(super) Duration);

impl Value for Millis {
    fn write(&self, out: &mut String) {
        let micros = self.0.as_micros();
        let _ = write!(out, "{}.{:03}", micros / 1000, micros % 1000);
    }
}

/// A time, as a number of seconds.
pub(super) struct Seconds(pub(super) Duration);

impl Value for Seconds {
    fn write(&self, out: &mut String) {
        let _ = write!(out, "{}.{:03}", self.0.as_secs(), self.0.subsec_millis());
    }
}

/// A date as ISO 8601 has it, in UTC: `2026-11-26T14:25:30.123Z`. What is before 1970 counts as that.
pub(super) struct Date(pub(super) SystemTime);

impl Value for Date {
    fn write(&self, out: &mut String) {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (seconds, millis) = (since.as_secs(), since.subsec_millis());
        let (year, month, day) = civil(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let _ =
            write!(out, "\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z\"");
    }
}

/// Year, month and day of so many days after the first one of 1970, in years that begin with March: so the day that only some
/// years have is the last one.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since 0000-03-01
    let (era, day) = (days / 146_097, days % 146_097); // of 400 years
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(value: impl Value) -> String {
        let mut out = String::new();
        value.write(&mut out);
        out
    }

    #[test]
    fn values_of_each_kind() {
        let list: List = ["a", "b"].into_iter().collect();
        let object = Object::new()
            .with("text", "x\"\\\n\u{1b}ä")
            .with("none", None::<&str>)
            .with("yes", true)
            .with("number", u64::MAX)
            .with("list", list)
            .with("empty", List::new())
            .with("inner", Object::new())
            .with("time", Millis(Duration::from_micros(1_002_003)))
            .with("age", Seconds(Duration::from_micros(1_002_003)));
        assert_eq!(
            object.into_text(),
            "{\"text\":\"x\\\"\\\\\\n\\u001bä\",\"none\":null,\"yes\":true,\"number\":18446744073709551615,\
             \"list\":[\"a\",\"b\"],\"empty\":[],\"inner\":{},\"time\":1002.003,\"age\":1.002}"
        );
    }

    #[test]
    fn dates() {
        let at = |millis| text(Date(UNIX_EPOCH + Duration::from_millis(millis)));
        assert_eq!(at(0), "\"1970-01-01T00:00:00.000Z\"");
        assert_eq!(at(951_782_400_001), "\"2000-02-29T00:00:00.001Z\"");
        assert_eq!(at(4_107_542_399_999), "\"2100-02-28T23:59:59.999Z\"");
        assert_eq!(at(4_107_542_400_000), "\"2100-03-01T00:00:00.000Z\"");
        assert_eq!(text(Date(UNIX_EPOCH - Duration::from_secs(1))), "\"1970-01-01T00:00:00.000Z\"");
    }

    proptest! {
        #[test]
        fn any_text_is_read_back(one: String, other: String) {
            let object = Object::new().with(&format!("n{one}"), other.as_str()).into_text();
            let read: serde_json::Value = serde_json::from_str(&object).unwrap();
            prop_assert_eq!(read[format!("n{one}")].as_str(), Some(other.as_str()));
        }

        /// The same day as another format has it.
        #[test]
        fn any_date(seconds in 0..253_402_300_800_u64) {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            let (iso, http) = (text(Date(time)), httpdate::fmt_http_date(time));
            prop_assert_eq!(&iso[1..5], &http[12..16]);
            prop_assert_eq!(&iso[9..11], &http[5..7]);
            prop_assert_eq!(&iso[12..20], &http[17..25]);
            const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
            let month: usize = iso[6..8].parse().unwrap();
            prop_assert_eq!(&MONTHS[3 * month - 3..3 * month], &http[8..11]);
        }
    }
}
