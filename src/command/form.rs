//! Messages, in the form that fits where they go.

use std::{
    fmt::Write as _,
    io::{IsTerminal, stdout},
};

use switchboard::Message;

use super::escaped::escaped;

/// Of a binary message, so many bytes are shown on a terminal.
const SHOWN: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A line each, for people; marked, if what they type stands between.
    Terminal { is_marked: bool },
    /// As they are, each with this behind it; a binary one as hexadecimal bytes.
    Each(u8),
    /// As they are, with nothing between them.
    Raw,
}

impl Form {
    /// For standard output. `end` stands behind each message, where it is no terminal.
    pub(super) fn for_stdout(is_binary: bool, end: u8, is_marked: bool) -> Self {
        match is_binary {
            _ if stdout().is_terminal() => Self::Terminal { is_marked },
            true => Self::Raw,
            false => Self::Each(end),
        }
    }

    /// Adds a message to what is to be written.
    pub(super) fn append(self, message: &Message, to: &mut Vec<u8>) {
        match self {
            Self::Raw => to.extend_from_slice(message.as_bytes()),
            Self::Each(end) => {
                match message {
                    Message::Text(text) => to.extend_from_slice(text.as_bytes()),
                    Message::Binary(bytes) => to.extend(data_encoding::HEXLOWER.encode(bytes).bytes()),
                }
                to.push(end);
            }
            Self::Terminal { is_marked } => {
                if is_marked {
                    to.extend_from_slice(b"< ");
                }
                to.extend(shown(message).into_bytes());
                to.push(b'\n');
            }
        }
    }
}

/// A message for people.
fn shown(message: &Message) -> String {
    match message {
        Message::Text(text) => escaped(text),
        Message::Binary(bytes) => {
            let mut line = format!("({} bytes)", bytes.len());
            for byte in bytes.iter().take(SHOWN) {
                let _ = write!(line, " {byte:02x}"); // a String takes all
            }
            if bytes.len() > SHOWN {
                line.push_str(" …");
            }
            line
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formed(form: Form, message: impl Into<Message>) -> String {
        let mut bytes = Vec::new();
        form.append(&message.into(), &mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn on_a_terminal_each_message_is_one_harmless_line() {
        let terminal = Form::Terminal { is_marked: true };
        assert_eq!(formed(terminal, "a\nb\x1b[2J"), "< a\\nb\\u{1b}[2J\n");
        assert_eq!(formed(terminal, vec![0, 10, 255]), "< (3 bytes) 00 0a ff\n");
        assert_eq!(formed(terminal, ""), "< \n");
        assert_eq!(formed(Form::Terminal { is_marked: false }, "x"), "x\n");
        let long = formed(terminal, vec![7; 1 << 20]);
        assert!(long.len() < 4096 && long.starts_with("< (1048576 bytes) 07 07") && long.ends_with("07 …\n"));
    }

    #[test]
    fn elsewhere_it_is_passed_on() {
        assert_eq!(formed(Form::Each(b'\n'), "a\nb\x1b[2J"), "a\nb\x1b[2J\n");
        assert_eq!(formed(Form::Each(0), "a\nb"), "a\nb\0");
        assert_eq!(formed(Form::Each(b'\n'), vec![0, 10, 255]), "000aff\n");
        assert_eq!(formed(Form::Raw, vec![0, 10, 65]) + &formed(Form::Raw, "x"), "\0\nAx");
    }
}
