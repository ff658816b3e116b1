//! What is asked of shared connections that a link has opened.

use std::time::Duration;

use super::{
    ask::{Asked, Outcome},
    opened::{Handle, Reached},
};
use crate::{
    connection::About,
    error::{Error, Result},
    id::WebSocketId,
    websocket::READ_LEN,
    wire::{Answer, AsText, Failure, Malformed, Opened, Request, as_usize},
};

impl Asked<'_> {
    pub(super) fn answer_opened(mut self, request: &Request<'_>) -> Result<Outcome, Malformed> {
        match *request {
            Request::Open { id } => self.open_server(&id.0),
            Request::Read { handle, len, timeout } => {
                return Ok(self.on(handle, |this, handle| this.read(handle, len, timeout)));
            }
            Request::Write { handle, payload } => {
                let message = payload.data.message(self.message)?;
                if !self.talk.is_given_up() {
                    self.done(handle, |connection| connection.write(message));
                }
            }
            Request::Flush { handle } => self.done(handle, |connection| connection.flush()),
            Request::End { handle, code, text } => self.done(handle, |connection| {
                connection.close(code.into(), text);
                Ok(())
            }),
            Request::Ended { handle } => {
                self.on(handle, |this, handle| {
                    let reason = handle.connection.reason();
                    (this.put)(&Answer::Ended(reason.as_ref().map(Into::into)));
                    Outcome::Done
                });
            }
            Request::SetSessionEndOnClose { handle, on } => self.done(handle, |connection| {
                connection.set_session_end_on_close(on);
                Ok(())
            }),
            Request::SessionEndOnClose { handle } => {
                self.tell(handle, |connection| Answer::Flag(connection.session_end_on_close()))
            }
            Request::SetBinaryData { handle, on } => self.done(handle, |connection| {
                connection.set_binary_data(on);
                Ok(())
            }),
            Request::BinaryData { handle } => {
                self.tell(handle, |connection| Answer::Flag(connection.binary_data()));
            }
            Request::Ack { handle, delivery } => self.settle(handle, delivery, true),
            Request::GiveBack { handle, delivery } => self.settle(handle, delivery, false),
            Request::Release { handle } => {
                self.talk.handles.release(handle);
                self.say_done(Ok(()));
            }
            // All others were answered before.
            _ => {
                (self.put)(&Answer::Failed(Failure::Unsupported));
            }
        }
        Ok(Outcome::Done)
    }

    fn open_server(&mut self, id: &WebSocketId) {
        let opened = self.open(id).and_then(|connection| {
            if !connection.about().shared {
                return Err(Error::NotShared);
            }
            match connection.reason() {
                Some(reason) => Err(Error::Closed(reason.clone())),
                None => Ok(Reached::Here(connection)),
            }
        });
        self.say_opened(opened);
    }

    pub(super) fn say_opened(&mut self, opened: Result<Reached>) {
        let reached = match opened {
            Ok(reached) => reached,
            Err(error) => return self.say_done(Err(error)),
        };
        let Some((number, handle)) = self.talk.handles.add(reached) else {
            (self.put)(&Answer::Failed(Failure::TooMany));
            return;
        };
        let opened = describe(handle.connection.about(), number);
        if !(self.put)(&Answer::Opened(Box::new(opened))) {
            self.talk.handles.release(number);
        }
    }

    fn read(&mut self, handle: &Handle, len: u64, timeout: Duration) -> Outcome {
        if handle.connection.is_elsewhere() && !self.may_wait {
            return Outcome::Waits(None);
        }
        let len = if len == 0 { READ_LEN } else { as_usize(len) };
        let wait = if self.may_wait { timeout } else { Duration::ZERO };
        match handle.read(len, wait) {
            Err(Error::Timeout) if wait < timeout => return Outcome::Waits(None),
            Ok(None) => {
                (self.put)(&Answer::Failed(Failure::UnknownHandle));
            }
            Ok(Some(read)) => {
                if !(self.put)(&read.answer()) {
                    handle.give_back_unseen(read.number());
                }
            }
            Err(error) => self.say_done(Err(error)),
        }
        Outcome::Done
    }

    fn settle(&mut self, handle: u32, delivery: u64, is_done: bool) {
        self.on(handle, |this, handle| {
            handle.settle(delivery, is_done);
            this.say_done(Ok(()));
            Outcome::Done
        });
    }

    fn done(&mut self, handle: u32, call: impl FnOnce(&Reached) -> Result<()>) {
        self.on(handle, |this, handle| {
            this.say_done(call(&handle.connection));
            Outcome::Done
        });
    }

    fn tell(&mut self, handle: u32, answer: impl FnOnce(&Reached) -> Answer<'static>) {
        self.on(handle, |this, handle| {
            (this.put)(&answer(&handle.connection));
            Outcome::Done
        });
    }

    fn on(&mut self, handle: u32, call: impl FnOnce(&mut Self, &Handle) -> Outcome) -> Outcome {
        match self.talk.handles.get(handle) {
            Some(handle) => call(self, &handle),
            None => {
                (self.put)(&Answer::Failed(Failure::UnknownHandle));
                Outcome::Done
            }
        }
    }
}

fn describe(about: &About, handle: u32) -> Opened<'_> {
    Opened {
        handle,
        path: &about.path,
        route: about.route(),
        subprotocol: about.subprotocol(),
        session_id: about.session_id.as_ref().map(|id| id.as_str()),
        user: about.user().map(|user| &**user),
        tags: about.tags().iter().collect(),
        peer: about.peer.map(AsText),
        client_address: about.client().map(AsText),
    }
}
