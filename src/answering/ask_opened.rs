//! What is asked of shared connections that a link has opened.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{
    ask::{Asked, Outcome},
    opened::Handle,
};
use crate::{
    connection::Connection,
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
                    self.done(handle, |connection| connection.write(message, false));
                }
            }
            Request::Flush { handle } => self.done(handle, |connection| connection.flush_all()),
            Request::End { handle, code, text } => self.done(handle, |connection| {
                connection.close(code.into(), text);
                Ok(())
            }),
            Request::Ended { handle } => {
                self.tell(handle, |connection| Answer::Ended(connection.reason().map(Into::into)))
            }
            Request::SetSessionEndOnClose { handle, on } => self.done(handle, |connection| {
                connection.session_end_on_close.store(on, Relaxed);
                Ok(())
            }),
            Request::SessionEndOnClose { handle } => {
                self.tell(handle, |connection| Answer::Flag(connection.session_end_on_close.load(Relaxed)))
            }
            Request::SetBinaryData { handle, on } => self.done(handle, |connection| {
                connection.binary_data.store(on, Relaxed);
                Ok(())
            }),
            Request::BinaryData { handle } => {
                self.tell(handle, |connection| Answer::Flag(connection.binary_data.load(Relaxed)));
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
                None => Ok(connection),
            }
        });
        let handle = match &opened {
            Ok(connection) => self.talk.handles.add(connection.clone()),
            Err(_) => Some(0),
        };
        let Some(handle) = handle else {
            (self.put)(&Answer::Failed(Failure::TooMany));
            return;
        };
        if !self.say(opened, |connection| Answer::Opened(Box::new(describe(connection, handle)))) {
            self.talk.handles.release(handle);
        }
    }

    fn read(&mut self, handle: &Handle, len: u64, timeout: Duration) -> Outcome {
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

    fn done(&mut self, handle: u32, call: impl FnOnce(&Arc<Connection>) -> Result<()>) {
        self.on(handle, |this, handle| {
            this.say_done(call(&handle.connection));
            Outcome::Done
        });
    }

    fn tell(&mut self, handle: u32, answer: impl for<'c> FnOnce(&'c Connection) -> Answer<'c>) {
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

fn describe(connection: &Connection, handle: u32) -> Opened<'_> {
    let about = connection.about();
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
