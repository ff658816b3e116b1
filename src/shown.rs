//! What strangers send, as the log shows it.

use std::fmt::{self, Display, Write};

use crate::id::WebSocketId;

/// So many characters are shown at most; an ellipsis stands for the rest.
const MOST: usize = 200;

/// Shows a value that holds what a stranger has sent: on one line, with everything escaped that a terminal or an editor would
/// not show as a character of its own, and cut to 200 characters. Everything that goes into the log goes through it, unless it
/// is our own text.
#[derive(Debug)]
pub(crate) struct Shown<T>(pub(crate) T);

impl<T: Display> Display for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(&self.0, MOST, f)
    }
}

/// The same for a path. An ID in it is a key, so only its first characters are shown.
#[derive(Debug)]
pub(crate) struct ShownPath<'a>(pub(crate) &'a str);

impl Display for ShownPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Shown(Shortened(self.0)).fmt(f)
    }
}

/// A text whose IDs are shortened, whatever stands before and after them.
struct Shortened<'a>(&'a str);

impl Display for Shortened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_of_id = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let mut rest = self.0;
        while !rest.is_empty() {
            let word = rest.bytes().position(|b| !is_of_id(b)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(word);
            match word.parse::<WebSocketId>() {
                Ok(id) => write!(f, "{}…", id.short())?,
                Err(_) => f.write_str(word)?,
            }
            let (between, next) = after.split_at(after.bytes().position(is_of_id).unwrap_or(after.len()));
            f.write_str(between)?;
            rest = next;
        }
        Ok(())
    }
}

/// The same for a sentence of a program, or of ours, that may quote what a stranger has sent: it is longer, and what it advises
/// comes last.
#[derive(Debug)]
pub(crate) struct Sentence<T>(pub(crate) T);

impl<T: Display> Display for Sentence<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(&self.0, 3 * MOST, f)
    }
}

/// The same within a text that says something of it: in quotation marks, which it cannot end itself.
#[derive(Debug)]
pub(crate) struct Quoted<T>(pub(crate) T);

impl<T: Display> Display for Quoted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        let is_complete = put(&self.0, MOST, is_special, f);
        f.write_str(if is_complete { "\"" } else { "\"…" })
    }
}

fn show(value: &impl Display, most: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    // No backslash is escaped: what is escaped already stays as it is.
    if put(value, most, is_hidden, f) { Ok(()) } else { f.write_char('…') }
}

/// False: there is more.
fn put(value: &impl Display, most: usize, is_escaped: fn(char) -> bool, f: &mut fmt::Formatter<'_>) -> bool {
    // It fails when it is full, or because the value cannot be formatted: it may be of a type that is not ours.
    write!(Line { out: f, left: most, is_escaped }, "{value}").is_ok()
}

/// Takes characters until it is full; then it fails, so that a long value is not even formatted.
struct Line<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    left: usize,
    is_escaped: fn(char) -> bool,
}

impl Line<'_, '_> {
    /// An escape is not cut in the middle.
    fn put(&mut self, characters: impl ExactSizeIterator<Item = char>) -> fmt::Result {
        self.left = self.left.checked_sub(characters.len()).ok_or(fmt::Error)?;
        characters.into_iter().try_for_each(|c| self.out.write_char(c))
    }
}

impl Write for Line<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if (self.is_escaped)(c) {
                self.put(c.escape_default())?;
            } else {
                self.put(std::iter::once(c))?;
            }
        }
        Ok(())
    }
}

/// Whether a character has to be escaped in quotation marks.
fn is_special(c: char) -> bool {
    is_hidden(c) || matches!(c, '"' | '\\')
}

/// Whether a character is no picture, but changes how others look: controls (C0, C1), the ends of lines, and what is invisible
/// or turns the direction (the categories Cf, Zl and Zp of Unicode, and Default_Ignorable_Code_Point).
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{8e2}' | '\u{feff}')
        || matches!(c, '\u{600}'..='\u{605}' | '\u{890}'..='\u{891}' | '\u{115f}'..='\u{1160}')
        || matches!(c, '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}')
        || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{ffa0}')
        || matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}')
        || matches!(c, '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}')
        || matches!(c, '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        Shown(text).to_string()
    }

    #[test]
    fn what_can_be_seen_stays_as_it_is() {
        for text in ["", "/a%20b?c=\"d\"'e'", "Zoë 北京 हिन्दी 🎉", "a\u{301}"] {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn what_is_invisible_is_escaped() {
        assert_eq!(shown("a\r\nb\tc\0\u{1b}[2J"), r"a\r\nb\tc\u{0}\u{1b}[2J");
        assert_eq!(shown(r"a\n\u{1b}"), r"a\n\u{1b}", "and not twice");
        for hidden in [
            "\u{7f}",
            "\u{80}",
            "\u{85}",
            "\u{9b}",
            "\u{ad}",
            "\u{61c}",
            "\u{180e}",
            "\u{200b}",
            "\u{200d}",
            "\u{200e}",
            "\u{200f}",
            "\u{2028}",
            "\u{2029}",
            "\u{202a}",
            "\u{202e}",
            "\u{2060}",
            "\u{2066}",
            "\u{2069}",
            "\u{206f}",
            "\u{feff}",
            "\u{fffb}",
            "\u{e0001}",
            "\u{e0041}",
            "\u{fe0f}",
            "\u{3164}",
        ] {
            assert_eq!(shown(hidden), hidden.escape_unicode().to_string());
        }
    }

    #[test]
    fn it_is_cut_to_200_characters() {
        let long = |text: &str, n| text.repeat(n);
        assert_eq!(shown(&long("ä", 200)), long("ä", 200));
        assert_eq!(shown(&long("ä", 201)), long("ä", 200) + "…");
        assert_eq!(shown(&long("\n", 1_000_000)), long(r"\n", 100) + "…");
        assert_eq!(shown(&long("\u{202e}", 30)), long(r"\u{202e}", 25) + "…", "an escape is whole");
        assert_eq!(
            Shown(format_args!("{}{}", long("a", 150), long("b", 150))).to_string().chars().count(),
            201
        );
    }

    #[test]
    fn a_quotation_cannot_end_itself() {
        let quoted = |text: &str| Quoted(text).to_string();
        assert_eq!(quoted("http://böx"), "\"http://böx\"");
        assert_eq!(quoted("a\" b\\\n\u{202e}"), r#""a\" b\\\n\u{202e}""#);
        assert_eq!(quoted(&"ä".repeat(201)), format!("\"{}\"…", "ä".repeat(200)));
        assert_eq!(quoted(&"\"".repeat(101)), format!("\"{}\"…", "\\\"".repeat(100)));
        let lossy = String::from_utf8_lossy(b"h\xff");
        assert_eq!(Quoted(lossy).to_string(), "\"h\u{fffd}\"");
    }

    #[test]
    fn of_an_id_in_a_path_only_its_beginning_is_shown() {
        let id = "b3kT9ZcYw4mQ1s8xAAAAKg";
        let shown = |path: &str| ShownPath(&path.replace("ID", id)).to_string();
        for (path, expected) in [
            ("/", "/"),
            ("ID", "b3kT9ZcY…"),
            ("/@connections/ID", "/@connections/b3kT9ZcY…"),
            ("/@connections/ID/topics/ä", "/@connections/b3kT9ZcY…/topics/ä"),
            ("/äID\",ID\n", "/äb3kT9ZcY…\",b3kT9ZcY…\\n"),
            ("/b3kT9ZcYw4mQ1s8xAAAAKgA", "/b3kT9ZcYw4mQ1s8xAAAAKgA"),
        ] {
            assert_eq!(shown(path), expected);
        }
        assert_eq!(shown(&"ID/".repeat(100)), "b3kT9ZcY…/".repeat(20) + "…");
    }

    #[test]
    fn a_value_that_cannot_be_formatted_does_no_harm() {
        struct Bad;
        impl Display for Bad {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                Err(fmt::Error)
            }
        }
        assert_eq!(Shown(Bad).to_string(), "…");
    }
}
