//! An open connection of another process, over the link to it. It is opened there, and again on another link when that is needed. What
//! was read is acknowledged by what is asked next.

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use super::socket::Whose;
use crate::{
    connection::About,
    delivery::Delivery,
    error::{CloseReason, Error, Result},
    history::Since,
    id::WebSocketId,
    info::Recovery,
    message::{CloseCode, Message},
    registry::Registry,
    remote::{Handle, Linked, Loan, Trouble, ended, is_done, unknown_end},
    sync::LockExt,
    thread::must_not_wait,
    wire::{self, Answer, AsText, Request},
};

#[derive(Debug)]
pub(super) struct Remote {
    link: Arc<Linked>,
    /// This server, if the connection is one of another node of its cluster.
    home: Option<Arc<Registry>>,
    about: Box<About>,
    handle: Mutex<Arc<Handle>>,
    /// What was read, and is to be acknowledged with what is asked next.
    unacked: Mutex<Vec<Loan>>,
    /// How it ended, as far as it is known.
    reason: OnceLock<CloseReason>,
    /// Its process does not know it any more.
    is_gone: AtomicBool,
    binary_data: AtomicBool,
    session_end_on_close: AtomicBool,
}

impl Remote {
    /// # Errors
    /// As [`Hub::open_server`](crate::Hub::open_server).
    pub(super) fn open(link: &Arc<Linked>, id: &WebSocketId, home: Option<Arc<Registry>>) -> Result<Self> {
        let (handle, about) = Handle::open(link, id)?;
        let request = Request::BinaryData { handle: handle.number() };
        let binary_data = handle.ask(&[], &request, Duration::ZERO, flag).map_err(Trouble::into_error)?;
        Ok(Self {
            link: link.clone(),
            home,
            about,
            handle: Mutex::new(handle),
            unacked: Mutex::default(),
            reason: OnceLock::new(),
            is_gone: AtomicBool::new(false),
            binary_data: AtomicBool::new(binary_data),
            session_end_on_close: AtomicBool::new(false),
        })
    }

    /// By what hub it is found.
    pub(super) fn whose(&self) -> Whose<'_> {
        match &self.home {
            Some(registry) => Whose::Local(registry),
            None => Whose::Remote(&self.link),
        }
    }

    pub(super) fn about(&self) -> &About {
        &self.about
    }

    pub(super) fn may_wait(&self) -> bool {
        !must_not_wait()
    }

    /// As it is open on the link that there is now.
    fn handle(&self) -> Result<Arc<Handle>> {
        if self.is_gone.load(Relaxed) {
            return Err(self.closed());
        }
        let handle = self.handle.locked().clone();
        if handle.is_current() {
            return Ok(handle);
        }
        match Handle::open(&self.link, &self.about.id) {
            Ok((handle, _)) => {
                self.handle.locked().clone_from(&handle);
                Ok(handle)
            }
            Err(error) => Err(self.noted(error)),
        }
    }

    /// Notes what an error says of the end.
    fn noted(&self, error: Error) -> Error {
        match error {
            Error::UnknownId => {
                self.is_gone.store(true, Relaxed);
                self.closed()
            }
            Error::Closed(reason) => {
                let _ = self.reason.set(reason.clone());
                Error::Closed(reason)
            }
            other => other,
        }
    }

    /// It has ended; if nobody knows how, that is said.
    fn closed(&self) -> Error {
        Error::Closed(self.reason.get_or_init(unknown_end).clone())
    }

    /// Asks something of the connection, and acknowledges what was read before. What did not reach the other process since the
    /// link was another one is asked again.
    fn ask<T>(
        &self,
        ask: impl Fn(&Arc<Handle>, &[Request<'_>]) -> std::result::Result<T, Trouble>,
    ) -> Result<T> {
        let mut is_second = false;
        loop {
            let handle = self.handle()?;
            let unacked = std::mem::take(&mut *self.unacked.locked());
            let acks: Vec<_> = unacked.iter().filter_map(|loan| loan.ack_request(&handle)).collect();
            match ask(&handle, &acks) {
                Err(Trouble::Stale) if !is_second => is_second = true,
                Err(Trouble::Stale) => return Err(Error::Unreachable),
                // It may not have been sent. What is acknowledged twice is acknowledged.
                Err(Trouble::Error(
                    error @ (Error::Unreachable | Error::MustNotWait | Error::OverLimit(_)),
                )) => {
                    self.unacked.locked().extend(unacked);
                    return Err(error);
                }
                result => {
                    for loan in unacked {
                        match loan.ack_request(&handle) {
                            Some(_) => loan.forget(),
                            None => drop(loan), // with a link that has ended
                        }
                    }
                    return result.map_err(|trouble| self.noted(trouble.into_error()));
                }
            }
        }
    }

    fn do_with(&self, extra: Duration, request: impl Fn(u32) -> Request<'static>) -> Result<()> {
        self.ask(|handle, acks| handle.ask(acks, &request(handle.number()), extra, is_done))
    }

    fn loan(&self, len: usize, timeout: Duration) -> Result<Loan> {
        self.ask(|handle, acks| Loan::read(handle, acks, len, timeout))
    }

    pub(super) fn read(&self, len: usize, timeout: Duration) -> Result<(Message, bool)> {
        let mut loan = self.loan(len, timeout)?;
        let read = (Message::clone(&loan), loan.at_end());
        loan.ack_later();
        self.unacked.locked().push(loan);
        Ok(read)
    }

    pub(super) fn read_delivery(&self, len: usize, timeout: Duration) -> Result<Delivery> {
        self.loan(len, timeout).map(Delivery::remote)
    }

    pub(super) fn write(&self, message: Message) -> Result<()> {
        self.ask(|handle, acks| {
            let payload = wire::Payload::new(&message, None);
            let request = Request::Write { handle: handle.number(), payload };
            handle.ask(acks, &request, handle.write_timeout(), is_done)
        })
    }

    pub(super) fn flush(&self) -> Result<()> {
        self.ask(|handle, acks| {
            handle.ask(acks, &Request::Flush { handle: handle.number() }, handle.write_timeout(), is_done)
        })
    }

    pub(super) fn close(&self, code: CloseCode, text: &str) {
        let request = |handle: u32| Request::End { handle, code: code.into(), text };
        if must_not_wait() {
            let handle = self.handle.locked().clone();
            handle.tell(&[request(handle.number())]);
            return;
        }
        // If nobody can be told, it ends in another way, or has.
        let _ = self.ask(|handle, acks| handle.ask(acks, &request(handle.number()), Duration::ZERO, is_done));
    }

    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        if self.reason.get().is_none()
            && let Ok(Some(reason)) = self.ask_reason()
        {
            let _ = self.reason.set(reason);
        }
        self.reason.get().cloned()
    }

    fn ask_reason(&self) -> Result<Option<CloseReason>> {
        let handle = self.handle.locked().clone();
        if !handle.is_current() {
            return match self.link.close_reason(&self.about.id) {
                Err(Error::UnknownId) => {
                    self.noted(Error::UnknownId);
                    Ok(self.reason.get().cloned())
                }
                other => other,
            };
        }
        let request = Request::Ended { handle: handle.number() };
        handle.ask(&[], &request, Duration::ZERO, ended).map_err(Trouble::into_error)
    }

    pub(super) fn set_binary_data(&self, on: bool) {
        self.binary_data.store(on, Relaxed);
        self.set(|handle| Request::SetBinaryData { handle, on });
    }

    /// As it was when this was opened, or was set by this: each write needs it.
    pub(super) fn binary_data(&self) -> bool {
        self.binary_data.load(Relaxed)
    }

    pub(super) fn set_session_end_on_close(&self, on: bool) {
        self.session_end_on_close.store(on, Relaxed);
        self.set(|handle| Request::SetSessionEndOnClose { handle, on });
    }

    fn set(&self, request: impl Fn(u32) -> Request<'static>) {
        if must_not_wait() {
            let handle = self.handle.locked().clone();
            handle.tell(&[request(handle.number())]);
        } else {
            let _ = self.do_with(Duration::ZERO, request);
        }
    }

    /// As it is there, or as far as this knows.
    pub(super) fn session_end_on_close(&self) -> bool {
        let asked = self.ask(|handle, acks| {
            let request = Request::SessionEndOnClose { handle: handle.number() };
            handle.ask(acks, &request, Duration::ZERO, flag)
        });
        asked.unwrap_or_else(|_| self.session_end_on_close.load(Relaxed))
    }

    pub(super) fn join(&self, topic: &str) -> Result<()> {
        let request = Request::Join { id: AsText(self.about.id), topic };
        self.known(self.link.ask(&request, Duration::ZERO, is_done))
    }

    pub(super) fn join_since(&self, topic: &str, since: &Since) -> Result<Recovery> {
        let since = since.to_text();
        let since = wire::Since::of(since.as_deref());
        let request = Request::JoinSince { id: AsText(self.about.id), topic, since };
        self.known(self.link.ask(&request, Duration::ZERO, |answer| match answer {
            Answer::Recovery(recovery) => Some(recovery.into()),
            _ => None,
        }))
    }

    pub(super) fn leave(&self, topic: &str) -> Result<()> {
        let request = Request::Leave { id: AsText(self.about.id), topic };
        self.known(self.link.ask(&request, Duration::ZERO, is_done))
    }

    pub(super) fn topics(&self) -> Vec<Arc<str>> {
        let request = Request::TopicsOf { id: AsText(self.about.id) };
        let topics = self.link.ask(&request, Duration::ZERO, |answer| match answer {
            Answer::Names(names) => Some(names.into_iter().map(Into::into).collect()),
            _ => None,
        });
        topics.unwrap_or_default()
    }

    /// The ID becomes unknown at the very end of the connection: then it is asked how that was.
    fn known<T>(&self, result: Result<T>) -> Result<T> {
        match result {
            Err(Error::UnknownId) => {
                let _ = self.close_reason();
                Err(self.closed())
            }
            other => other,
        }
    }
}

fn flag(answer: Answer<'_>) -> Option<bool> {
    match answer {
        Answer::Flag(on) => Some(on),
        _ => None,
    }
}
