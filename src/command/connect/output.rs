//! Where messages go: standard output, which is a terminal, a pipe or a file.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, IsTerminal},
    mem,
    os::{fd::AsFd, unix::fs::FileTypeExt},
    sync::Arc,
    thread,
};

use crossbeam_channel::Sender;
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use switchboard::Message;

use super::{args::Connect, control::Control, typing::Prompt};
use crate::command::{escaped::escaped, logging::write};

/// Of a binary message, so many bytes are shown on a terminal.
const SHOWN: usize = 1024;

/// Messages, in the form that fits where they go.
pub(super) struct Output {
    sink: File,
    form: Form,
    /// If it is a terminal where lines are typed.
    prompt: Option<Arc<Prompt>>,
    /// What is to be written next.
    pending: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A line each, for people; marked, if what they type stands between.
    Terminal { is_marked: bool },
    /// As they are, each with this behind it; a binary one as hexadecimal bytes.
    Each(u8),
    /// As they are, with nothing between them.
    Raw,
}

impl Output {
    /// As the options say, unless it is a terminal.
    pub(super) fn new(args: &Connect, prompt: Option<Arc<Prompt>>) -> io::Result<Self> {
        let stdout = io::stdout();
        let form = match args.binary {
            _ if stdout.is_terminal() => Form::Terminal { is_marked: io::stdin().is_terminal() },
            true => Form::Raw,
            false => Form::Each(args.end()),
        };
        // A descriptor of our own: that of std would look for line ends, and hold its lock as long as a write takes.
        let sink = File::from(stdout.as_fd().try_clone_to_owned()?);
        Ok(Self { sink, form, prompt, pending: Vec::new() })
    }

    /// Has it told when nobody reads what is written any more, also while there is nothing to write.
    pub(super) fn watch(&self, tell: Sender<Control>) -> io::Result<()> {
        if !self.sink.metadata()?.file_type().is_fifo() {
            return Ok(()); // a file is there always, and a terminal's end is a SIGHUP
        }
        let sink = self.sink.try_clone()?;
        thread::Builder::new().name("switchboard-out".into()).spawn(move || {
            // No flag: only errors are told, such as that there is no reader.
            while let Ok(0) | Err(Errno::INTR) = poll(&mut [PollFd::new(&sink, PollFlags::empty())], None) {}
            let _ = tell.send(Control::OutputClosed); // nobody listens after the end
        })?;
        Ok(())
    }

    /// Takes a message, for the next [`flush`](Self::flush).
    pub(super) fn put(&mut self, message: &Message) {
        self.form.append(message, &mut self.pending);
    }

    /// Writes what was put.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let pending = mem::take(&mut self.pending);
        match &self.prompt {
            Some(prompt) => prompt.above(|sink| write(sink, &pending)),
            None => write(&mut self.sink, &pending),
        }
    }
}

impl Form {
    fn append(self, message: &Message, to: &mut Vec<u8>) {
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
