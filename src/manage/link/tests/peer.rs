//! The other end of a link, by hand.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    time::Duration,
};

use bytes::Bytes;

use super::PATIENCE;
use crate::{
    Client, ClientError, CloseReason, Error, Message, Payload, WebSocketId,
    wire::{self, Answer, AsText, Frames, Hello, Request, SUBPROTOCOL, append, decode},
};

pub(super) struct Peer {
    pub(super) client: Client,
    pub(super) hello: Bytes,
    last: Cell<u32>,
    /// What came while something else was waited for.
    others: RefCell<HashMap<u32, Reply>>,
    /// Messages that have come.
    pub(super) messages: Cell<usize>,
}

/// An answer as it came.
#[derive(Debug, Clone)]
pub(super) struct Reply(Bytes);

impl Reply {
    pub(super) fn answer(&self) -> Answer<'_> {
        decode(&self.0).unwrap()
    }

    /// What was read, the number of the delivery, whether it is at its end, and whether it was delivered before.
    pub(super) fn delivery(&self) -> (Message, u64, bool, bool) {
        match self.answer() {
            Answer::Delivery(it) => {
                (it.data.message(&self.0).unwrap(), it.delivery, it.at_end, it.redelivered)
            }
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn handle(&self) -> u32 {
        match self.answer() {
            Answer::Opened(opened) => opened.handle,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn number(&self) -> u64 {
        match self.answer() {
            Answer::Number(number) => number,
            other => panic!("{other:?}"),
        }
    }
}

/// What a hub says first.
pub(super) fn hello(max_message: u64) -> Vec<u8> {
    hello_of(0, max_message)
}

/// What this hub says first, if it has a number.
pub(super) fn hello_of(hub: u64, max_message: u64) -> Vec<u8> {
    Hello {
        version: 1,
        software: "a test",
        max_message,
        max_unanswered: 0,
        max_waits: 0,
        handshake_timeout: 0,
        write_timeout: 0,
        epoch: hub,
    }
    .encode()
}

impl Peer {
    pub(super) fn connect(url: &str, token: Option<&str>) -> Result<Self, ClientError> {
        let builder = Client::builder(url).subprotocol(SUBPROTOCOL);
        let builder = token
            .iter()
            .fold(builder, |builder, token| builder.header("authorization", format!("Bearer {token}")));
        Ok(Self::over(builder.connect()?, 1 << 20))
    }

    /// `max_message` is the longest message that it says to take.
    pub(super) fn over(client: Client, max_message: u64) -> Self {
        Self::greeting(client, hello(max_message))
    }

    pub(super) fn greeting(client: Client, first: Vec<u8>) -> Self {
        client.write(Message::from(first)).unwrap();
        let hello = client.read_message(PATIENCE).unwrap().into_bytes();
        let (last, others, messages) = Default::default();
        Self { client, hello, last, others, messages }
    }

    /// Sends requests in one message. Returns the number of the first; the others have the next ones.
    pub(super) fn send<'a>(&self, requests: impl IntoIterator<Item = Request<'a>>) -> u32 {
        let (first, mut message) = (self.last.get() + 1, Vec::new());
        for request in requests {
            self.last.set(self.last.get() + 1);
            append(&mut message, self.last.get(), &request).unwrap();
        }
        self.client.write(Message::from(message)).unwrap();
        first
    }

    /// Sends a request that gets no answer.
    pub(super) fn send_unanswered(&self, request: &Request<'_>) {
        let mut message = Vec::new();
        append(&mut message, wire::UNANSWERED, request).unwrap();
        self.client.write(Message::from(message)).unwrap();
    }

    /// The answer to this request.
    pub(super) fn reply(&self, number: u32) -> Reply {
        loop {
            if let Some(reply) = self.others.borrow_mut().remove(&number) {
                return reply;
            }
            self.receive(PATIENCE).unwrap();
        }
    }

    /// Whether a request is answered, as far as that has come.
    pub(super) fn has_reply(&self, number: u32) -> bool {
        while self.receive(Duration::ZERO).is_ok() {}
        self.others.borrow().contains_key(&number)
    }

    /// Takes in the next message. Returns the numbers of its answers.
    pub(super) fn receive(&self, timeout: Duration) -> Result<Vec<u32>, Error> {
        let message = self.client.read_message(timeout)?.into_bytes();
        self.messages.set(self.messages.get() + 1);
        let frames = Frames::of(&message).map(Result::unwrap);
        let frames = frames.map(|(number, body)| (number, Reply(message.slice_ref(body))));
        let mut numbers = Vec::new();
        for (number, reply) in frames {
            numbers.push(number);
            assert!(self.others.borrow_mut().insert(number, reply).is_none(), "answered twice");
        }
        Ok(numbers)
    }

    pub(super) fn ask(&self, request: Request<'_>) -> Reply {
        self.reply(self.send([request]))
    }

    /// The end of the link.
    pub(super) fn end(&self) -> CloseReason {
        loop {
            match self.client.read_message(PATIENCE) {
                Ok(_) => {}
                Err(Error::Closed(reason)) => return reason,
                Err(other) => panic!("{other}"),
            }
        }
    }

    pub(super) fn open(&self, id: &WebSocketId) -> u32 {
        self.ask(Request::Open { id: AsText(*id) }).handle()
    }
}

/// A push of this to this connection.
pub(super) fn push<'a>(id: &WebSocketId, message: &'a Message) -> Request<'a> {
    Request::Push { id: AsText(*id), payload: payload(message) }
}

pub(super) fn payload(message: &Message) -> wire::Payload<'_> {
    wire::Payload::new(message, None)
}

/// A read of a whole message.
pub(super) fn read(handle: u32, timeout: Duration) -> Request<'static> {
    Request::Read { handle, len: u64::MAX, timeout }
}

/// The message that something is sent as.
pub(super) fn message(data: impl Into<Payload>) -> Message {
    data.into().into_message()
}
