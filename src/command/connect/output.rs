//! Where messages go: standard output, which is a terminal, a pipe or a file.

use std::{
    fs::File,
    io::{self, IsTerminal},
    mem,
    os::fd::AsFd,
    sync::Arc,
};

use crossbeam_channel::Sender;
use switchboard::Message;

use super::{args::Connect, control::Control, typing::Prompt};
use crate::command::{form::Form, logging::write, reader};

/// Messages, in the form that fits where they go.
pub(super) struct Output {
    sink: File,
    form: Form,
    /// If it is a terminal where lines are typed.
    prompt: Option<Arc<Prompt>>,
    /// What is to be written next.
    pending: Vec<u8>,
}

impl Output {
    /// As the options say, unless it is a terminal.
    pub(super) fn new(args: &Connect, prompt: Option<Arc<Prompt>>) -> io::Result<Self> {
        let stdout = io::stdout();
        let form = Form::for_stdout(args.binary, args.end(), io::stdin().is_terminal());
        // A descriptor of our own: that of std would look for line ends, and hold its lock as long as a write takes.
        let sink = File::from(stdout.as_fd().try_clone_to_owned()?);
        Ok(Self { sink, form, prompt, pending: Vec::new() })
    }

    /// Has it told when nobody reads what is written any more, also while there is nothing to write.
    pub(super) fn watch(&self, tell: Sender<Control>) -> io::Result<()> {
        reader::watch(self.sink.try_clone()?, move || {
            let _ = tell.send(Control::OutputClosed); // nobody listens after the end
        })
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
