//! What is to be sent.

use std::io::{BufRead, BufReader, IsTerminal, Read, stdin};

use clap::Args;
use switchboard::Message;

use super::failure::Failure;
use crate::command::{
    say::say,
    stdin::{Stdin, hex},
};

/// No server takes longer messages over its management listener.
const LONGEST: usize = 64 << 20;

#[derive(Debug, Args)]
pub(super) struct Input {
    /// What to send: this text, or, without one and with -, all that standard input has, without the line end behind it
    #[arg(value_name = "TEXT|-")]
    text: Option<String>,
    /// Send each line of standard input as a message
    #[arg(long, conflicts_with = "binary")]
    lines: bool,
    /// Send binary messages: standard input as it is, or, in place of TEXT, hexadecimal bytes
    #[arg(long, short)]
    binary: bool,
}

impl Input {
    /// To be called before anything is done.
    ///
    /// # Errors
    /// It cannot be sent, whatever standard input has.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match self.text.as_deref() {
            None | Some("-") => Ok(()),
            Some(_) if self.lines => {
                Err(Failure::usage("--lines sends what standard input has, and there is a TEXT as well"))
            }
            Some(text) if self.binary => hex(text).map(drop).map_err(Failure::usage),
            Some(_) => Ok(()),
        }
    }

    /// Has each message sent, in order, until one cannot be.
    pub(super) fn each(&self, mut send: impl FnMut(Message) -> Result<(), Failure>) -> Result<(), Failure> {
        match self.text.as_deref() {
            None | Some("-") if self.lines => self.each_line(send),
            None | Some("-") => send(self.whole()?),
            Some(text) if self.binary => send(hex(text).map_err(Failure::usage)?),
            Some(text) => send(Message::from(text)),
        }
    }

    /// Whether there may be several.
    pub(super) fn is_many(&self) -> bool {
        self.lines
    }

    fn each_line(&self, mut send: impl FnMut(Message) -> Result<(), Failure>) -> Result<(), Failure> {
        let mut input = BufReader::new(self.stdin()?);
        for number in 1.. {
            let mut line = Vec::new();
            let mut part = input.by_ref().take(LONGEST as u64 + 2);
            if part.read_until(b'\n', &mut line).map_err(|e| Failure::input(&e))? == 0 {
                break;
            }
            // What has no line end is the last. A terminal that is read again would have to say a second time that it has ended.
            let is_last = line.last() != Some(&b'\n');
            trim(&mut line);
            let message = message(line, false).map_err(|e| e.at(number))?;
            send(message).map_err(|e| e.at(number))?;
            if is_last {
                break;
            }
        }
        Ok(())
    }

    fn whole(&self) -> Result<Message, Failure> {
        let mut bytes = Vec::new();
        let mut input = self.stdin()?.take(LONGEST as u64 + 2);
        input.read_to_end(&mut bytes).map_err(|e| Failure::input(&e))?;
        if !self.binary {
            trim(&mut bytes);
        }
        message(bytes, self.binary)
    }

    fn stdin(&self) -> Result<Stdin, Failure> {
        if stdin().is_terminal() {
            say(if self.lines {
                "each line is a message; Ctrl-D ends"
            } else {
                "type the message, and then Ctrl-D"
            });
        }
        Stdin::new().map_err(|e| Failure::input(&e))
    }
}

/// Without the line end behind it.
fn trim(bytes: &mut Vec<u8>) {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
}

fn message(bytes: Vec<u8>, is_binary: bool) -> Result<Message, Failure> {
    if bytes.len() > LONGEST {
        return Err(Failure::other(format!("a message has at most {LONGEST} bytes")));
    }
    if is_binary {
        return Ok(Message::from(bytes));
    }
    let text = String::from_utf8(bytes);
    text.map(Message::from)
        .map_err(|_| Failure::other("what is to be sent is not UTF-8: send it with --binary"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_no_part_of_a_text() {
        for (bytes, text) in [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a\r", "a\r"), ("", "")] {
            let mut bytes = bytes.as_bytes().to_vec();
            trim(&mut bytes);
            assert_eq!(message(bytes, false).unwrap(), Message::from(text));
        }
        assert!(message(vec![0xff], false).unwrap_err().text.unwrap().contains("--binary"));
        assert_eq!(message(vec![0xff], true).unwrap(), Message::from(vec![0xff]));
    }
}
