//! The codec: bytes in, messages out; messages in, bytes out. No socket, no clock, no thread.
//!
//! A stack over memory, from below: [`Stream`] (TLS or none), `frames` (where frames begin), tungstenite (RFC 6455).
//! A driver feeds what it received, asks for events until there are none, and sends what is pending. tungstenite's
//! context is made when bytes arrive and dropped as soon as it holds nothing: an idle connection keeps no buffers.

mod frames;
mod stream;
#[cfg(feature = "tls")]
mod tls;

use std::borrow::Cow;

use bytes::Bytes;
use tungstenite::{
    Message as Tungstenite, WebSocket,
    protocol::{
        CloseFrame, Role, WebSocketConfig,
        frame::{
            Frame,
            coding::{Data, OpCode},
        },
    },
};

use self::frames::Frames;
pub(crate) use self::stream::Stream;
use crate::message::{CloseCode, Message, Text};

/// The longest text of a close frame, in bytes: 125 less the code (RFC 6455, section 5.5).
const MAX_CLOSE_TEXT: usize = 123;

/// Frames in, frames out.
#[derive(Debug)]
pub(crate) struct Codec {
    decoder: Decoder,
    /// A close frame went out or came in: tungstenite keeps the state of that, so it may not be dropped any more.
    closing: bool,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "the large one is the one that is kept")]
enum Decoder {
    Idle(Frames),
    /// Boxed, so that an idle connection does not keep its size.
    Busy(Box<WebSocket<Frames>>),
    /// Only while one becomes the other.
    Changing,
}

/// What the peer sent.
#[derive(Debug, PartialEq)]
pub(crate) enum Event {
    Message(Message),
    /// Its answer is pending already.
    Ping,
    Pong(Bytes),
    /// Its answer is pending already, unless this is one.
    Close(CloseCode, Text),
}

/// Why a connection cannot go on: the close code that says so, and a text for the peer and the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: CloseCode,
    pub(crate) text: Cow<'static, str>,
}

impl Failure {
    fn protocol(text: impl Into<Cow<'static, str>>) -> Self {
        Self { code: CloseCode::PROTOCOL_ERROR, text: text.into() }
    }

    fn too_big(text: impl Into<Cow<'static, str>>) -> Self {
        Self { code: CloseCode::TOO_BIG, text: text.into() }
    }

    /// The bytes themselves are broken, or have ended: no close frame can be sent.
    pub(crate) fn network(text: impl Into<Cow<'static, str>>) -> Self {
        Self { code: CloseCode::ABNORMAL, text: text.into() }
    }
}

impl From<tungstenite::Error> for Failure {
    fn from(error: tungstenite::Error) -> Self {
        use tungstenite::Error as E;
        match error {
            E::Utf8(_) => Self { code: CloseCode::INVALID_DATA, text: "text that is not UTF-8".into() },
            E::Capacity(e) => Self::too_big(e.to_string()),
            E::Protocol(e) => Self::protocol(e.to_string()),
            other => Self::network(other.to_string()),
        }
    }
}

impl Codec {
    /// The frames that follow the opening handshake on `stream`. Sizes are in bytes.
    pub(crate) fn new(stream: Stream, max_message: usize, max_frame: usize) -> Self {
        Self { decoder: Decoder::Idle(Frames::new(stream, max_message, max_frame)), closing: false }
    }

    /// The bytes below.
    pub(crate) fn stream(&mut self) -> &mut Stream {
        match &mut self.decoder {
            Decoder::Idle(frames) => &mut frames.stream,
            Decoder::Busy(ws) => &mut ws.get_mut().stream,
            Decoder::Changing => unreachable!("the decoder is put back before anyone can ask"),
        }
    }

    /// The next thing the peer sent; `None`: feed more.
    ///
    /// After an error, [`fail`](Self::fail) makes the close frame that says so.
    pub(crate) fn next(&mut self) -> Result<Option<Event>, Failure> {
        loop {
            if let Decoder::Idle(frames) = &self.decoder
                && frames.stream.input().is_empty()
            {
                return Ok(None);
            }
            let ws = self.busy();
            let result = ws.read();
            if result.is_ok() {
                let frames = ws.get_mut();
                frames.unreturned = frames.unreturned.saturating_sub(1);
            }
            return match result {
                Ok(Tungstenite::Text(text)) => Ok(Some(Event::Message(Message::Text(Text(text))))),
                Ok(Tungstenite::Binary(bytes)) => Ok(Some(Event::Message(Message::Binary(bytes)))),
                Ok(Tungstenite::Ping(_)) => {
                    self.flush_control();
                    Ok(Some(Event::Ping))
                }
                Ok(Tungstenite::Pong(payload)) => Ok(Some(Event::Pong(payload))),
                Ok(Tungstenite::Close(frame)) => {
                    self.closing = true;
                    self.flush_control();
                    let (code, text) = frame.map_or((CloseCode::NO_STATUS, Text::default()), |frame| {
                        (CloseCode(frame.code.into()), Text(frame.reason))
                    });
                    Ok(Some(Event::Close(code, text)))
                }
                // Never returned by a read.
                Ok(Tungstenite::Frame(_)) => continue,
                Err(tungstenite::Error::Io(e)) if e.kind() == std::io::ErrorKind::WouldBlock => {
                    if let Some(failure) = ws.get_mut().failure.clone() {
                        return Err(failure);
                    }
                    self.rest();
                    Ok(None)
                }
                // Both close frames have been: whatever else comes means nothing.
                Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed) => Ok(None),
                Err(e) => Err(e.into()),
            };
        }
    }

    /// Whether a whole message waits that `next` would return without another byte.
    pub(crate) fn has_whole_message(&self) -> bool {
        match &self.decoder {
            Decoder::Idle(frames) => frames.has_whole_message(),
            Decoder::Busy(ws) => ws.get_ref().has_whole_message(),
            Decoder::Changing => false,
        }
    }

    /// Appends one message, whole, to what is pending.
    pub(crate) fn encode(&mut self, message: Message) {
        let (kind, payload) = match message {
            Message::Text(text) => (Data::Text, text.into_bytes()),
            Message::Binary(bytes) => (Data::Binary, bytes),
        };
        self.put(Frame::message(payload, OpCode::Data(kind), true));
    }

    /// Appends a ping to what is pending, of at most 125 bytes (RFC 6455, section 5.5).
    pub(crate) fn ping(&mut self, payload: [u8; 8]) {
        self.put(Frame::ping(Bytes::copy_from_slice(&payload)));
    }

    /// Appends a close frame; once only, and nothing after it. A code that may not be sent makes an empty one. Returns the
    /// code and the text as the peer sees them.
    pub(crate) fn close<'a>(&mut self, code: CloseCode, text: &'a str) -> (CloseCode, &'a str) {
        self.closing = true;
        let (code, text) = if code.is_sendable() {
            (code, cut_text(text, MAX_CLOSE_TEXT))
        } else {
            (CloseCode::NO_STATUS, "")
        };
        let frame = code.is_sendable().then(|| CloseFrame { code: code.0.into(), reason: text.into() });
        // Into memory: it cannot fail, unless the close frame is out already.
        let _ = self.busy().close(frame);
        (code, text)
    }

    /// Appends the close frame that answers a failure of [`next`](Self::next), if one can be sent at all.
    pub(crate) fn fail(&mut self, failure: &Failure) {
        if failure.code.is_sendable() && !self.closing {
            self.close(failure.code, &failure.text);
        }
    }

    fn put(&mut self, frame: Frame) {
        let output = self.stream().output();
        output.reserve(frame.len());
        // Into a vector: it cannot fail.
        let _ = frame.format(output);
    }

    /// tungstenite keeps the answer to a ping or a close until its next call.
    fn flush_control(&mut self) {
        // After a close it says ConnectionClosed: the answer is written by then.
        let _ = self.busy().flush();
    }

    /// tungstenite's context, made to the measure of what has arrived.
    fn busy(&mut self) -> &mut WebSocket<Frames> {
        if let Decoder::Idle(_) = self.decoder
            && let Decoder::Idle(frames) = std::mem::replace(&mut self.decoder, Decoder::Changing)
        {
            let size = frames.stream.input().len().clamp(64, 64 * 1024);
            let config = WebSocketConfig::default()
                .read_buffer_size(size)
                .write_buffer_size(0)
                // The frame layer has checked both, and cuts what is larger than it likes.
                .max_message_size(None)
                .max_frame_size(None);
            let ws = WebSocket::from_raw_socket(frames, Role::Server, Some(config));
            self.decoder = Decoder::Busy(Box::new(ws));
        }
        match &mut self.decoder {
            Decoder::Busy(ws) => ws,
            _ => unreachable!("made above"),
        }
    }

    /// Drops tungstenite's context if it holds nothing.
    fn rest(&mut self) {
        if !self.closing
            && let Decoder::Busy(ws) = &self.decoder
            && ws.get_ref().is_at_boundary()
            && let Decoder::Busy(ws) = std::mem::replace(&mut self.decoder, Decoder::Changing)
        {
            self.decoder = Decoder::Idle(ws.into_inner());
        }
    }
}

/// The longest prefix of at most `most` bytes that ends between characters.
fn cut_text(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests;
