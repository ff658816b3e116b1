//! What is sent: lines of standard input, all of it, or what the options say. On a thread of its own, which waits for the server.

use std::{
    io::{self, BufRead, BufReader, IsTerminal, Read},
    sync::{Arc, Weak},
};

use switchboard::{Client, Error, Message};

use super::{
    args::Connect,
    typing::{Prompt, Typed},
};
use crate::command::{
    say::say,
    stdin::{Stdin, hex},
    terminal,
};

/// Read at a time.
const BUFFER: usize = 64 * 1024;

/// Characters for a byte in hexadecimal, with a space.
const HEX: usize = 3;

/// Where messages come from, and what they are.
#[derive(Debug)]
pub(super) struct Input {
    source: Source,
    /// Only the first.
    one: bool,
    /// The largest message.
    max: usize,
}

#[derive(Debug)]
enum Source {
    Given(Vec<Message>),
    /// Texts, each up to this byte; and whether they are typed.
    Lines(u8, bool),
    /// Binary messages, typed in hexadecimal.
    HexLines,
    /// One binary message.
    Whole,
}

/// Why it went no further.
enum Stop {
    /// The connection has ended: whoever reads from it knows why.
    Closed,
    Failed(String),
}

impl Input {
    /// As the options say.
    ///
    /// # Errors
    /// If `--send` is not what `--binary` or `--one` wants.
    pub(super) fn new(args: &Connect) -> Result<Self, String> {
        if args.one && args.send.len() > 1 {
            return Err("--one sends one message, and there are several --send".into());
        }
        let is_typed = io::stdin().is_terminal();
        let source = match (&args.send[..], args.binary) {
            ([], false) => Source::Lines(args.end(), is_typed),
            ([], true) if is_typed => Source::HexLines,
            ([], true) => Source::Whole,
            (texts, false) => Source::Given(texts.iter().map(Message::from).collect()),
            (texts, true) => Source::Given(texts.iter().map(|text| hex(text)).collect::<Result<_, _>>()?),
        };
        Ok(Self { source, one: args.one, max: args.max_message_size })
    }

    /// Whether somebody types it.
    pub(super) fn is_typed(&self) -> bool {
        matches!(self.source, Source::Lines(_, true) | Source::HexLines)
    }

    /// Sends all there is.
    ///
    /// # Errors
    /// What failed, if it was not the connection.
    pub(super) fn send(self, client: &Weak<Client>, prompt: Option<&Arc<Prompt>>) -> Result<(), String> {
        match self.send_all(client, prompt) {
            Ok(()) | Err(Stop::Closed) => Ok(()),
            Err(Stop::Failed(text)) => Err(text),
        }
    }

    fn send_all(self, client: &Weak<Client>, prompt: Option<&Arc<Prompt>>) -> Result<(), Stop> {
        match self.source {
            Source::Given(messages) => messages.into_iter().try_for_each(|message| send(client, message)),
            Source::Lines(end, is_typed) => {
                each_line(lines(prompt)?, end, self.max, self.one, |line| match String::from_utf8(line) {
                    Ok(line) => send(client, Message::from(line)).map(|()| true),
                    Err(_) if is_typed => skipped("that is not UTF-8, and was not sent", prompt),
                    Err(_) => {
                        Err(Stop::failed("a line of standard input is not UTF-8: send it with --binary"))
                    }
                })
            }
            Source::HexLines => {
                let max = self.max.saturating_mul(HEX);
                each_line(lines(prompt)?, b'\n', max, self.one, |line| {
                    match hex(&String::from_utf8_lossy(&line)) {
                        Ok(message) => send(client, message).map(|()| true),
                        Err(e) => skipped(&e, prompt),
                    }
                })
            }
            Source::Whole => whole(self.max).and_then(|bytes| match bytes.is_empty() {
                true => Ok(()),
                false => send(client, Message::from(bytes)),
            }),
        }
    }

    /// A prompt for lines of that size, if somebody types them.
    pub(super) fn prompt(&self) -> io::Result<Option<Arc<Prompt>>> {
        let has_one = self.is_typed() && terminal::is_there();
        Ok(has_one.then(|| Prompt::new(self.max.saturating_mul(HEX))).transpose()?.map(Arc::new))
    }
}

impl Stop {
    fn failed(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }
}

/// False, since nothing is sent.
fn skipped(text: &str, prompt: Option<&Arc<Prompt>>) -> Result<bool, Stop> {
    let tell = || {
        say(text);
        Ok(())
    };
    let told = prompt.map_or_else(tell, |prompt| prompt.above(|_| tell()));
    told.map(|()| false).map_err(|e| Stop::failed(format!("cannot write to the terminal: {e}")))
}

fn send(client: &Weak<Client>, message: Message) -> Result<(), Stop> {
    let client = client.upgrade().ok_or(Stop::Closed)?;
    match client.write(message) {
        Err(Error::Closed(_) | Error::Timeout) => Err(Stop::Closed),
        Err(e) => Err(Stop::failed(e.to_string())),
        Ok(()) => Ok(()),
    }
}

/// Has each line sent, without its end, until the first one is sent if it is to be one. A last one without an end is a line, too.
fn each_line(
    input: impl Read,
    end: u8,
    max: usize,
    one: bool,
    mut send: impl FnMut(Vec<u8>) -> Result<bool, Stop>,
) -> Result<(), Stop> {
    let mut input = BufReader::with_capacity(BUFFER, input);
    loop {
        let mut line = Vec::new();
        let room = (max as u64).saturating_add(2); // for what ends it
        if input.by_ref().take(room).read_until(end, &mut line).map_err(unreadable)? == 0 {
            return Ok(());
        }
        if line.last() == Some(&end) {
            line.pop();
            if end == b'\n' && line.last() == Some(&b'\r') {
                line.pop();
            }
        }
        if line.len() > max {
            return Err(Stop::failed(format!("a line has more than {max} bytes: see --max-message-size")));
        }
        if send(line)? && one {
            return Ok(());
        }
    }
}

/// Where lines come from.
fn lines(prompt: Option<&Arc<Prompt>>) -> Result<Box<dyn Read>, Stop> {
    let stdin = Stdin::new().map_err(unreadable)?;
    Ok(match prompt {
        Some(prompt) => Box::new(Typed::new(stdin, prompt.clone())),
        None => Box::new(stdin),
    })
}

fn whole(max: usize) -> Result<Vec<u8>, Stop> {
    let mut bytes = Vec::new();
    let mut input = Stdin::new().map_err(unreadable)?.take((max as u64).saturating_add(1));
    input.read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > max {
        return Err(Stop::failed(format!(
            "standard input has more than {max} bytes: see --max-message-size"
        )));
    }
    Ok(bytes)
}

fn unreadable(e: io::Error) -> Stop {
    Stop::failed(format!("cannot read standard input: {e}"))
}
