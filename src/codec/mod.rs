//! The codec: bytes in, messages out; messages in, bytes out. No socket, no clock, no thread.
//!
//! Its layers, from below: [`Stream`] (TLS or none), `frames` and `mask` (RFC 6455, section 5), `deflate` (RFC 7692), and here
//! the messages and the closing handshake. A driver feeds what it received, asks for events until there are none, and
//! sends what is pending. Between messages a connection keeps no buffer.
//!
//! tungstenite parses and writes the frame headers. Its `WebSocket` and `Frame` are not used: they need a socket, reserve as
//! much memory as a frame announces, check text only when a whole frame has arrived, and know no compression.

mod close;
mod deflate;
mod failure;
mod frames;
mod mask;
mod partial;
mod stream;
#[cfg(feature = "__tls")]
mod tls;
mod work;

use bytes::Bytes;
/// Which end of a connection this is: a client masks its frames, a server does not (RFC 6455, section 5.1).
pub(crate) use tungstenite::protocol::Role;

#[cfg(feature = "__tls")]
pub(crate) use self::tls::{Acceptor, Connector};
pub(crate) use self::{
    close::sendable as sendable_close,
    deflate::{Compressing, Deflate, Direction, Forms, MAX_WINDOW_BITS, MIN_WINDOW_BITS, Outgoing},
    failure::Failure,
    mask::apply_mask,
    stream::Stream,
    work::Work,
};
use self::{
    deflate::Deflater,
    frames::{Control, Data, Header, MAX_CONTROL, OpCode, put_header},
    mask::Masks,
    partial::Partial,
};
use crate::{
    limits::Limits,
    message::{CloseCode, Message, Text},
};

/// Messages of up to so many bytes may share a buffer (`take_short`).
const MAX_SHORT: u64 = 125;

/// The codec of one connection.
#[derive(Debug)]
pub(crate) struct Codec {
    role: Role,
    stream: Stream,
    max_message: u64,
    max_frame: u64,
    /// The data frame that is arriving, if it did not come whole.
    frame: Option<PartialFrame>,
    /// The message that is arriving, if it did not come whole.
    message: Option<Box<Partial>>,
    /// More of it arrived since this was last asked.
    progress: bool,
    deflater: Option<Box<Deflater>>,
    /// What arrives of messages is thrown away.
    forgets: bool,
    /// Only a client's frames are masked.
    masks: Option<Box<Masks>>,
    /// Our close frame is in the output: nothing may follow it.
    close_sent: bool,
    /// The peer's close frame has arrived: all that follows it is ignored (RFC 6455, section 5.5.1).
    close_received: bool,
}

/// A data frame whose payload has not arrived completely.
#[derive(Clone, Copy, Debug)]
struct PartialFrame {
    /// Bytes still to come.
    rest: u64,
    /// For the next of these bytes.
    mask: Option<[u8; 4]>,
    is_final: bool,
}

/// What the peer sent.
#[derive(Debug, PartialEq)]
pub(crate) enum Event {
    Message(Message),
    /// The pong is in the output already.
    Ping,
    Pong(Bytes),
    /// To be answered with the same code, unless it is itself an answer (RFC 6455, section 5.5.1).
    Close(CloseCode, Text),
}

impl Codec {
    /// A codec for the frames that follow the opening handshake on `stream`.
    pub(crate) fn new(role: Role, stream: Stream, limits: &Limits, deflate: Option<Deflate>) -> Self {
        let deflater = deflate.map(|agreed| Box::new(Deflater::new(agreed, limits.min_compressed_size)));
        Self {
            role,
            stream,
            max_message: limits.max_message_size as u64,
            max_frame: limits.max_frame_size as u64,
            frame: None,
            message: None,
            progress: false,
            forgets: false,
            deflater,
            masks: (role == Role::Client).then(|| Box::new(Masks::new())),
            close_sent: false,
            close_received: false,
        }
    }

    /// The byte stream that carries the frames.
    pub(crate) fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// Frees all memory, because the connection has ended.
    pub(crate) fn clear(&mut self) {
        self.stream = Stream::plain();
        (self.frame, self.message) = (None, None);
        self.deflater = None;
        self.close_received = true;
    }

    /// Whether what is [held](Self::held) may have changed by much since this was last asked.
    pub(crate) fn take_resized(&mut self) -> bool {
        self.stream.take_resized()
    }

    /// How much memory its buffers take.
    pub(crate) fn held(&self) -> usize {
        let mut held = self.stream.held();
        if let Some(message) = &self.message {
            held += message.capacity();
        }
        if let Some(deflater) = &self.deflater {
            held += deflater.held();
        }
        held
    }

    /// Throws away what has arrived of a message, and what is still to arrive of messages: nobody wants them any more.
    pub(crate) fn forget_messages(&mut self) {
        self.stream.note_resized();
        self.forgets = true;
        if let Some(message) = &mut self.message {
            message.clear();
        }
        if let Some(deflater) = &mut self.deflater {
            deflater.forget();
        }
    }

    /// Frees the buffers that are empty; if the connection is `idle`, also what it does not need until the next message.
    pub(crate) fn park(&mut self, idle: bool) {
        self.stream.park();
        if idle && let Some(deflater) = &mut self.deflater {
            deflater.park();
        }
    }

    /// The next event; `None` if the input is not enough for one, or the work [is done](Work::is_done).
    ///
    /// After an error, [`close`](Self::close) tells the peer.
    pub(crate) fn next(&mut self, work: &mut Work) -> Result<Option<Event>, Failure> {
        while !self.close_received && !work.is_done() {
            if self.frame.is_none() {
                let input = self.stream.input();
                let Some(header) = Header::parse(input, self.role)? else { return Ok(None) };
                let is_whole = header.total_size() <= input.len();
                let opcode = match header.opcode {
                    OpCode::Control(_) if !is_whole => return Ok(None),
                    OpCode::Control(opcode) => {
                        work.frame(0);
                        return self.take_control(opcode, &header).map(Some);
                    }
                    OpCode::Data(opcode) => opcode,
                };
                let compressed = self.check(&header)?;
                if is_whole && header.is_final && !compressed && self.message.is_none() {
                    work.frame(header.total_size());
                    return self.take_whole(opcode, &header).map(|message| Some(Event::Message(message)));
                }
                work.frame(0);
                self.begin(opcode, &header, compressed);
            }
            match self.take_payload(work)? {
                Some(message) => return Ok(Some(Event::Message(message))),
                None if self.frame.is_some() => return Ok(None), // the rest has not arrived, or the work is done
                None => {} // a fragment is complete, but not its message
            }
        }
        Ok(None)
    }

    /// Checks whether this data frame is allowed now, and its size. Returns whether it is compressed.
    fn check(&self, header: &Header) -> Result<bool, Failure> {
        let is_first = !header.is_continuation();
        if header.is_compressed && !(is_first && self.deflater.is_some()) {
            return Err(Failure::protocol("reserved bits are set")); // RFC 7692, section 6.1
        }
        let (compressed, announced) = match &self.message {
            None if is_first => (header.is_compressed, 0),
            Some(message) if !is_first => (message.compressed, message.announced),
            // RFC 6455, section 5.4.
            None => return Err(Failure::protocol("a continuation frame without a message")),
            Some(_) => return Err(Failure::protocol("a new message before the last one is complete")),
        };
        let bound = if compressed { Deflate::bound } else { |size| size };
        if header.payload_size > bound(self.max_frame) {
            return Err(Failure::too_big(format!("frame of more than {} bytes", self.max_frame)));
        }
        if announced.saturating_add(header.payload_size) > bound(self.max_message) {
            return Err(Failure::too_big(format!("message of more than {} bytes", self.max_message)));
        }
        Ok(compressed)
    }

    /// Takes a message that is one uncompressed frame and has arrived whole: the usual case.
    fn take_whole(&mut self, opcode: Data, header: &Header) -> Result<Message, Failure> {
        let is_text = opcode == Data::Text;
        let payload = header.payload(0);
        if let Some(mask) = header.mask {
            apply_mask(&mut self.stream.input_mut()[payload.clone()], mask);
        }
        if let Some(payload) = self.stream.take_buffer(payload.clone()) {
            return Partial::whole(is_text, payload);
        }
        let message = Partial::whole(is_text, Bytes::copy_from_slice(&self.stream.input()[payload]))?;
        self.stream.consume(header.total_size());
        Ok(message)
    }

    /// Begins a data frame whose payload is taken as it arrives.
    fn begin(&mut self, opcode: Data, header: &Header, compressed: bool) {
        self.stream.consume(header.size);
        self.stream.note_resized();
        self.progress |= header.payload_size > 0;
        self.frame =
            Some(PartialFrame { rest: header.payload_size, mask: header.mask, is_final: header.is_final });
        let new = || Box::new(Partial::new(opcode == Data::Text, compressed));
        self.message.get_or_insert_with(new).announced += header.payload_size;
    }

    /// Takes what has arrived of the frame's payload, as far as the work goes. Returns the message if it is complete then.
    fn take_payload(&mut self, work: &mut Work) -> Result<Option<Message>, Failure> {
        let (Some(frame), Some(message)) = (&mut self.frame, &mut self.message) else { return Ok(None) };
        let input = self.stream.input_mut();
        let arrived = input.len().min(usize::try_from(frame.rest).unwrap_or(usize::MAX));
        let piece = &mut input[..arrived];
        if let Some(mask) = frame.mask {
            apply_mask(piece, mask);
        }
        let is_last = frame.is_final && frame.rest == arrived as u64;
        let (taken, is_through) = match &mut self.deflater {
            _ if self.forgets => {
                work.payload(arrived);
                (arrived, true)
            }
            Some(deflater) if message.compressed => {
                deflater.inflate(piece, is_last, message, self.max_message, work)?
            }
            _ => {
                work.payload(arrived);
                message.push(piece)?;
                (arrived, true)
            }
        };
        if let Some(mask) = &mut frame.mask {
            mask.rotate_left(taken % 4); // so that it fits the next piece
            if taken < arrived {
                apply_mask(&mut piece[taken..], *mask); // as it came
            }
        }
        frame.rest -= taken as u64;
        self.progress |= taken > 0;
        self.stream.consume(taken);
        self.stream.note_resized();
        if frame.rest > 0 || !is_through {
            return Ok(None);
        }
        self.frame = None;
        if is_last
            && let Some(message) = self.message.take()
            && !self.forgets
        {
            return message.finish().map(Some);
        }
        Ok(None)
    }

    /// Whether nothing has arrived of a message or frame that is not complete. All that can be decoded has been.
    pub(crate) fn is_between_messages(&self) -> bool {
        self.frame.is_none() && self.message.is_none() && self.stream.input().is_empty()
    }

    /// Whether more arrived of a message that is not complete; asks once.
    pub(crate) fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.progress)
    }

    /// Takes a control frame that has arrived whole, and answers it (RFC 6455, section 5.5).
    fn take_control(&mut self, opcode: Control, header: &Header) -> Result<Event, Failure> {
        let mut buffer = [0; MAX_CONTROL];
        let payload = &mut buffer[..header.payload(0).len()];
        payload.copy_from_slice(&self.stream.input()[header.payload(0)]);
        if let Some(mask) = header.mask {
            apply_mask(payload, mask);
        }
        self.stream.consume(header.total_size());
        match opcode {
            Control::Close => {
                let (code, text) = close::parse(payload)?;
                self.close_received = true;
                Ok(Event::Close(code, text))
            }
            Control::Ping => {
                if !self.close_sent {
                    self.put_control(Control::Pong, payload);
                }
                Ok(Event::Ping)
            }
            // Reserved opcodes were refused when the header was parsed.
            Control::Pong | Control::Reserved(_) => Ok(Event::Pong(Bytes::copy_from_slice(payload))),
        }
    }

    /// Takes the short messages that come next and have arrived whole, up to `max_count` of them. They share one buffer, which
    /// costs less than a buffer for each. It stops before anything else, which is left to [`next`](Self::next).
    pub(crate) fn take_short(&mut self, messages: &mut Vec<Message>, max_count: usize) {
        let is_between = self.frame.is_none() && self.message.is_none() && !self.close_received;
        if !is_between || self.max_message.min(self.max_frame) < MAX_SHORT {
            return;
        }
        let (headers, size) = self.short_headers(max_count);
        if headers.is_empty() {
            return;
        }
        let mut buffer = self.stream.input()[..size].to_vec();
        let mut start = 0;
        for header in &headers {
            if let Some(mask) = header.mask {
                apply_mask(&mut buffer[header.payload(start)], mask);
            }
            start += header.total_size();
        }
        let buffer = Bytes::from(buffer);
        messages.reserve(headers.len());
        let mut start = 0;
        for header in headers {
            let payload = buffer.slice(header.payload(start));
            let Ok(message) = Partial::whole(header.is_text(), payload) else { return };
            messages.push(message);
            self.stream.consume(header.total_size());
            start += header.total_size();
        }
    }

    /// The headers of the short messages that come next and have arrived whole, and the size of all those frames together.
    fn short_headers(&self, max_count: usize) -> (Vec<Header>, usize) {
        let input = self.stream.input();
        let (mut headers, mut end) = (Vec::new(), 0);
        while headers.len() < max_count
            && let Ok(Some(header)) = Header::parse(&input[end..], self.role)
            && header.is_message_up_to(MAX_SHORT)
            && header.total_size() <= input.len() - end
        {
            if headers.is_empty() {
                headers.reserve(max_count.min(input.len() / header.total_size()));
            }
            end += header.total_size();
            headers.push(header);
        }
        (headers, end)
    }

    /// Whether something has arrived that was not decoded.
    pub(crate) fn has_input(&self) -> bool {
        // The last bytes of a frame may be taken, and not all of what they inflate to.
        !self.stream.input().is_empty() || self.frame.is_some_and(|frame| frame.rest == 0)
    }

    /// Whether a whole message or a whole control frame has arrived, so that `next` will return it.
    pub(crate) fn has_whole_message(&self) -> bool {
        let input = self.stream.input();
        let mut at = 0;
        if let Some(frame) = self.frame {
            at = usize::try_from(frame.rest).unwrap_or(usize::MAX);
            if at <= input.len() && frame.is_final {
                return true;
            }
        }
        while let Some(rest) = input.get(at..)
            && let Ok(Some(header)) = Header::parse(rest, self.role)
        {
            at = at.saturating_add(header.total_size());
            if at <= input.len() && header.is_final {
                return true;
            }
        }
        false
    }

    /// Appends a message, as one frame, to the output. If compressing it takes long, it is returned together with the
    /// connection's compressor: the caller [compresses](Compressing::run) it without a lock, and gives both
    /// [back](Self::encode_compressed).
    pub(crate) fn encode(&mut self, mut outgoing: Outgoing) -> Option<Box<Compressing>> {
        if let Some(deflater) = &mut self.deflater {
            if deflater.takes_long(&outgoing) {
                self.stream.note_resized();
                return Some(deflater.lend(outgoing));
            }
            deflater.deflate(&mut outgoing);
        }
        self.append(outgoing);
        None
    }

    /// As [`encode`](Self::encode), however long that takes.
    #[cfg(any(test, fuzzing, feature = "__bench"))]
    pub(crate) fn encode_now(&mut self, outgoing: Outgoing) {
        if let Some(mut compressing) = self.encode(outgoing) {
            compressing.run();
            self.encode_compressed(*compressing, true);
        }
    }

    /// Takes the compressor back, and appends the message if it still `is_sendable`.
    pub(crate) fn encode_compressed(&mut self, compressed: Compressing, is_sendable: bool) {
        if let Some(deflater) = &mut self.deflater {
            let outgoing = deflater.take_back(compressed);
            self.stream.note_resized();
            if is_sendable {
                self.append(outgoing);
            }
        }
    }

    fn append(&mut self, outgoing: Outgoing) {
        let opcode = OpCode::Data(if outgoing.message.is_text() { Data::Text } else { Data::Binary });
        let is_compressed = outgoing.compressed.is_some();
        let payload = outgoing.compressed.unwrap_or_else(|| outgoing.message.into_bytes());
        if self.masks.is_some() {
            // Masked in a copy, because other connections may send the same payload.
            return self.put_frame(opcode, is_compressed, &payload);
        }
        put_header(opcode, is_compressed, None, payload.len(), self.stream.output());
        self.stream.append(payload, outgoing.is_shared);
    }

    /// Whether [`park`](Self::park) would free anything of the compression when the connection is idle.
    pub(crate) fn is_warm(&self) -> bool {
        self.deflater.as_ref().is_some_and(|deflater| deflater.is_warm())
    }

    /// Appends a ping to the output.
    pub(crate) fn ping(&mut self, payload: [u8; 8]) {
        self.put_control(Control::Ping, &payload);
    }

    /// Appends a close frame, unless there was one already; nothing may be appended after it. If the code may not be sent, the
    /// frame is empty. Returns the code and the text as the peer sees them.
    pub(crate) fn close<'a>(&mut self, code: CloseCode, text: &'a str) -> (CloseCode, &'a str) {
        let (code, text) = close::sendable(code, text);
        if !std::mem::replace(&mut self.close_sent, true) {
            self.put_control(Control::Close, &close::payload(code, text));
        }
        (code, text)
    }

    /// Appends a control frame; its payload has at most 125 bytes (RFC 6455, section 5.5).
    fn put_control(&mut self, opcode: Control, payload: &[u8]) {
        self.put_frame(OpCode::Control(opcode), false, payload);
    }

    /// Appends a frame with a copy of the payload, which a client masks.
    fn put_frame(&mut self, opcode: OpCode, is_compressed: bool, payload: &[u8]) {
        let mask = self.masks.as_mut().map(|masks| masks.next());
        let output = self.stream.output();
        put_header(opcode, is_compressed, mask, payload.len(), output);
        let start = output.len();
        output.extend_from_slice(payload);
        if let Some(mask) = mask {
            apply_mask(&mut output[start..], mask);
        }
        self.stream.note_output();
    }
}

#[cfg(test)]
mod tests;
