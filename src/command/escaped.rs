//! What a stranger has sent, as a terminal may show it.

/// The text with everything escaped that would move the cursor, end the line, or turn the direction of what follows.
pub(super) fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut all, c| {
        if is_harmful(c) {
            all.extend(c.escape_default())
        } else {
            all.push(c)
        }
        all
    })
}

/// Controls (C0, C1) but the tab, the ends of lines, and marks of direction.
pub(super) fn is_harmful(c: char) -> bool {
    (c.is_control() && c != '\t')
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_harmful_is_escaped_and_nothing_else() {
        for (text, shown) in [
            ("größe 🎉 👩‍🚀\tx\\", "größe 🎉 👩‍🚀\tx\\"),
            ("a\r\nb\x1b[2J\x07\0", r"a\r\nb\u{1b}[2J\u{7}\u{0}"),
            ("\u{9b}\u{202e}\u{2029}\u{7f}", r"\u{9b}\u{202e}\u{2029}\u{7f}"),
        ] {
            assert_eq!(escaped(text), shown);
        }
    }
}
