//! The codec: bytes in, messages out; messages in, bytes out. No socket, no clock, no thread.
//!
//! A stack over memory, from below: [`Stream`] (TLS or none), `frames` (RFC 6455, section 5), `deflate` (RFC 7692), and
//! here the messages and the closing handshake. A driver feeds what it received, asks for events until there are none, and
//! sends what is pending. Between messages a connection keeps no buffer.

mod deflate;
mod failure;
mod frames;
mod partial;
mod stream;
#[cfg(feature = "tls")]
mod tls;

use bytes::Bytes;

use self::{
    deflate::Deflater,
    frames::{BINARY, CLOSE, Header, MAX_CONTROL, MAX_SHORT, PING, PONG, Short, TEXT},
    partial::{Partial, split_utf8},
};
pub(crate) use self::{
    deflate::{Deflate, Direction, Forms, Outgoing},
    failure::Failure,
    frames::unmask,
    stream::Stream,
};
use crate::{
    limits::Limits,
    message::{CloseCode, Message, Text},
};

/// The longest text of a close frame, in bytes: 125 less the code (RFC 6455, section 5.5).
const MAX_CLOSE_TEXT: usize = MAX_CONTROL - 2;

/// Frames in, frames out.
#[derive(Debug)]
pub(crate) struct Codec {
    stream: Stream,
    max_message: u64,
    max_frame: u64,
    /// The data frame that is arriving, if it does not come whole.
    frame: Option<Rest>,
    /// The message that is arriving, if it does not come whole.
    message: Option<Box<Partial>>,
    deflater: Option<Box<Deflater>>,
    /// Our close frame is out: nothing may follow it.
    close_sent: bool,
    /// The client's has come: whatever else comes means nothing (RFC 6455, section 5.5.1).
    close_received: bool,
}

/// What is still to come of a data frame.
#[derive(Clone, Copy, Debug)]
struct Rest {
    payload: u64,
    mask: [u8; 4],
    is_final: bool,
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

impl Codec {
    /// The frames that follow the opening handshake on `stream`.
    pub(crate) fn new(stream: Stream, limits: &Limits, deflate: Option<Deflate>) -> Self {
        let deflater = deflate.map(|agreed| Box::new(Deflater::new(agreed, limits.min_compressed_size)));
        Self {
            stream,
            max_message: limits.max_message_size as u64,
            max_frame: limits.max_frame_size as u64,
            frame: None,
            message: None,
            deflater,
            close_sent: false,
            close_received: false,
        }
    }

    /// The bytes below.
    pub(crate) fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// Gives everything back: the connection is over.
    pub(crate) fn clear(&mut self) {
        self.stream = Stream::plain();
        self.message = None;
        self.deflater = None;
        self.close_received = true;
    }

    /// Gives back the buffers that hold nothing; of an `idle` connection also what it can do without until the next message.
    pub(crate) fn park(&mut self, idle: bool) {
        self.stream.park();
        if idle && let Some(deflater) = &mut self.deflater {
            deflater.park();
        }
    }

    /// The next thing the peer sent; `None`: feed more.
    ///
    /// After an error, [`fail`](Self::fail) makes the close frame that says so.
    pub(crate) fn next(&mut self) -> Result<Option<Event>, Failure> {
        while !self.close_received {
            if self.frame.is_none() {
                let Some(header) = Header::parse(self.stream.input())? else { return Ok(None) };
                if header.is_control() {
                    if header.total() > self.stream.input().len() {
                        return Ok(None);
                    }
                    return self.control(&header).map(Some);
                }
                let compressed = self.check(&header)?;
                let is_whole = header.is_final() && header.total() <= self.stream.input().len();
                if is_whole && !compressed && self.message.is_none() {
                    return self.take_whole(&header).map(|message| Some(Event::Message(message)));
                }
                self.begin(&header, compressed);
            }
            match self.take_payload()? {
                Some(message) => return Ok(Some(Event::Message(message))),
                None if self.frame.is_some() => return Ok(None),
                None => {} // a fragment was complete
            }
        }
        Ok(None)
    }

    /// Whether a data frame may come now, and be so large; returns whether it is compressed.
    fn check(&self, header: &Header) -> Result<bool, Failure> {
        let is_new = !header.is_continuation();
        if header.is_compressed() && !(is_new && self.deflater.is_some()) {
            return Err(Failure::protocol("reserved bits are set")); // RFC 7692, section 6.1
        }
        let (compressed, received) = match &self.message {
            None if is_new => (header.is_compressed(), 0),
            Some(message) if !is_new => (message.compressed, message.received),
            // RFC 6455, section 5.4.
            None => return Err(Failure::protocol("a continuation of nothing")),
            Some(_) => return Err(Failure::protocol("a message within a message")),
        };
        let bound = if compressed { Deflate::bound } else { |size| size };
        if header.payload > bound(self.max_frame) {
            return Err(Failure::too_big(format!("frame of more than {} bytes", self.max_frame)));
        }
        if received.saturating_add(header.payload) > bound(self.max_message) {
            return Err(Failure::too_big(format!("message of more than {} bytes", self.max_message)));
        }
        Ok(compressed)
    }

    /// The usual case: a message of one frame, which has arrived whole.
    fn take_whole(&mut self, header: &Header) -> Result<Message, Failure> {
        let payload = &mut self.stream.input_mut()[header.size..header.total()];
        unmask(payload, header.mask);
        if let Some(payload) = self.stream.take_buffer(header.size..header.total()) {
            return Partial::whole(header.is_text(), payload);
        }
        let payload = Bytes::copy_from_slice(&self.stream.input()[header.size..header.total()]);
        let message = Partial::whole(header.is_text(), payload)?;
        self.stream.consume(header.total());
        Ok(message)
    }

    /// Takes in the header of a data frame.
    fn begin(&mut self, header: &Header, compressed: bool) {
        self.stream.consume(header.size);
        self.frame = Some(Rest { payload: header.payload, mask: header.mask, is_final: header.is_final() });
        let message =
            self.message.get_or_insert_with(|| Box::new(Partial::new(header.is_text(), compressed)));
        message.received += header.payload;
    }

    /// Takes in what has arrived of the frame's payload. Returns the message that ends with it.
    fn take_payload(&mut self) -> Result<Option<Message>, Failure> {
        let (Some(rest), Some(message)) = (&mut self.frame, &mut self.message) else { return Ok(None) };
        let input = self.stream.input_mut();
        let arrived = input.len().min(usize::try_from(rest.payload).unwrap_or(usize::MAX));
        let piece = &mut input[..arrived];
        unmask(piece, rest.mask);
        rest.mask.rotate_left(arrived % 4); // the mask goes on where this piece stops
        rest.payload -= arrived as u64;
        let frame_ends = rest.payload == 0;
        let message_ends = frame_ends && rest.is_final;
        match &mut self.deflater {
            Some(deflater) if message.compressed => {
                deflater.inflate(piece, message_ends, message, self.max_message)?;
            }
            _ => message.push(piece)?,
        }
        self.stream.consume(arrived);
        if frame_ends {
            self.frame = None;
        }
        if message_ends && let Some(message) = self.message.take() {
            return message.finish().map(Some);
        }
        Ok(None)
    }

    /// Takes in a control frame, which has arrived whole (RFC 6455, section 5.5).
    fn control(&mut self, header: &Header) -> Result<Event, Failure> {
        let mut buffer = [0; MAX_CONTROL];
        let payload = &mut buffer[..header.payload as usize];
        payload.copy_from_slice(&self.stream.input()[header.size..header.total()]);
        unmask(payload, header.mask);
        self.stream.consume(header.total());
        match header.opcode() {
            CLOSE => {
                let (code, text) = parse_close(payload)?;
                self.close_received = true;
                // Answered with the same code (RFC 6455, section 5.5.1).
                if !self.close_sent {
                    self.close(code, &text);
                }
                Ok(Event::Close(code, text))
            }
            PING => {
                if !self.close_sent {
                    self.put_control(PONG, payload);
                }
                Ok(Event::Ping)
            }
            _ => Ok(Event::Pong(Bytes::copy_from_slice(payload))),
        }
    }

    /// Takes the short messages that come next and have arrived whole, up to `most` of them, into one buffer together: that
    /// costs less than a buffer for each. Whatever else comes is left to [`next`](Self::next).
    pub(crate) fn take_short(&mut self, messages: &mut Vec<Message>, most: usize) {
        let is_within = self.frame.is_some() || self.message.is_some() || self.close_received;
        if is_within || self.max_message.min(self.max_frame) < MAX_SHORT as u64 {
            return;
        }
        let input = self.stream.input();
        let (mut count, mut end) = (0, 0);
        while count < most
            && let Some(frame) = Short::parse(input, end)
        {
            count += 1;
            end = frame.payload.end;
        }
        if count == 0 {
            return;
        }
        messages.reserve(count);
        let mut buffer = input[..end].to_vec();
        let mut at = 0;
        while let Some(frame) = Short::parse(&buffer, at) {
            at = frame.payload.end;
            unmask(&mut buffer[frame.payload], frame.mask);
        }
        let buffer = Bytes::from(buffer);
        let mut at = 0;
        while let Some(frame) = Short::parse(&buffer, at) {
            let end = frame.payload.end;
            let Ok(message) = Partial::whole(frame.is_text, buffer.slice(frame.payload)) else { return };
            messages.push(message);
            self.stream.consume(end - at);
            at = end;
        }
    }

    /// Whether a whole message, or a whole control frame, waits: `next` would return it without another byte.
    pub(crate) fn has_whole_message(&self) -> bool {
        let input = self.stream.input();
        let mut at = 0;
        if self.frame.is_none()
            && let Some(whole) = frames::is_short_and_whole(input)
        {
            return whole;
        }
        if let Some(rest) = self.frame {
            at = usize::try_from(rest.payload).unwrap_or(usize::MAX);
            if at <= input.len() && rest.is_final {
                return true;
            }
        }
        while let Some(Ok(Some(header))) = input.get(at..).map(Header::parse) {
            at = at.saturating_add(header.total());
            if at <= input.len() && header.is_final() {
                return true;
            }
        }
        false
    }

    /// Appends one message, whole, to what is pending.
    pub(crate) fn encode(&mut self, outgoing: Outgoing) {
        let deflated = self.deflater.as_mut().and_then(|deflater| deflater.deflate(&outgoing));
        let opcode = if outgoing.message.is_text() { TEXT } else { BINARY };
        let compressed = deflated.is_some();
        let payload = deflated.unwrap_or_else(|| outgoing.message.into_bytes());
        frames::begin(opcode, compressed, payload.len(), self.stream.output());
        self.stream.append(payload);
    }

    /// Appends a ping to what is pending, of at most 125 bytes (RFC 6455, section 5.5).
    pub(crate) fn ping(&mut self, payload: [u8; 8]) {
        self.put_control(PING, &payload);
    }

    /// Appends a close frame; once only, and nothing after it. A code that may not be sent makes an empty one. Returns the
    /// code and the text as the peer sees them.
    pub(crate) fn close<'a>(&mut self, code: CloseCode, text: &'a str) -> (CloseCode, &'a str) {
        let (code, text) = if code.is_sendable() {
            (code, cut_text(text, MAX_CLOSE_TEXT))
        } else {
            (CloseCode::NO_STATUS, "")
        };
        if !std::mem::replace(&mut self.close_sent, true) {
            let payload = if code.is_sendable() {
                [&code.0.to_be_bytes(), text.as_bytes()].concat()
            } else {
                Vec::new()
            };
            self.put_control(CLOSE, &payload);
        }
        (code, text)
    }

    /// Appends the close frame that answers a failure of [`next`](Self::next), if one can be sent at all.
    pub(crate) fn fail(&mut self, failure: &Failure) {
        if failure.code.is_sendable() {
            self.close(failure.code, &failure.text);
        }
    }

    fn put_control(&mut self, opcode: u8, payload: &[u8]) {
        let output = self.stream.output();
        frames::begin(opcode, false, payload.len(), output);
        output.extend_from_slice(payload);
    }
}

/// The code and the text of a close frame (RFC 6455, section 5.5.1). Some codes are for the endpoint's own use and never on
/// the wire, others have no meaning (section 7.4).
fn parse_close(payload: &[u8]) -> Result<(CloseCode, Text), Failure> {
    let Some((code, text)) = payload.split_first_chunk() else {
        if payload.is_empty() {
            return Ok((CloseCode::NO_STATUS, Text::default()));
        }
        return Err(Failure::protocol("a close code has two bytes"));
    };
    let code = CloseCode(u16::from_be_bytes(*code));
    if !code.is_sendable() {
        return Err(Failure::protocol("a close code that may not be sent"));
    }
    match split_utf8(text)? {
        (text, []) => Ok((code, text.into())),
        _ => Err(Failure::not_utf8()),
    }
}

/// The longest prefix of at most `most` bytes that ends between characters.
fn cut_text(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests;
