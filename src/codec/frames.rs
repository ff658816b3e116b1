//! The frame layer beneath tungstenite: it knows where frames begin and end (RFC 6455, section 5.2).
//!
//! tungstenite reads through it. What it adds:
//! - **No memory by announcement.** tungstenite reserves the length that a frame header announces. A frame that has
//!   not arrived whole is handed on in pieces, as fragments, so memory grows only with bytes received.
//! - **Early checks.** A message beyond the limits, or text that is not UTF-8, is refused when it shows, not when the
//!   frame is complete.
//! - **What still waits.** Whether whole messages are left decides when answers are sent, and whether the decoder
//!   holds anything decides when it may be dropped.

use std::io::{self, Read, Write};

use super::{Failure, Stream};
use crate::message::CloseCode;

/// A binary frame up to this size is handed on as it is, though it has not arrived whole: tungstenite reserves this much.
const RESERVE: u64 = 16 * 1024;

/// The longest payload of a control frame (RFC 6455, section 5.5).
const MAX_CONTROL: u64 = 125;

/// The opcode of a close frame.
const CLOSE: u8 = 8;

/// The longest header: two bytes, a 64-bit length, a mask.
const MAX_HEADER: usize = 14;

#[derive(Debug)]
pub(super) struct Frames {
    pub(super) stream: Stream,
    max_message: u64,
    max_frame: u64,
    /// Bytes of the input that belong to the frame, or the piece of one, being handed on.
    passing: u64,
    /// Whether a message, or a control frame, ends with those.
    passing_ends: bool,
    /// The rest of a frame that is handed on in pieces.
    cut: Option<Cut>,
    /// A header made for a piece, and how much of it tungstenite still has to take.
    made: [u8; MAX_HEADER],
    made_left: std::ops::Range<usize>,
    /// Payload of the data frames of the message in progress; `None` between messages.
    message: Option<u64>,
    /// Messages and control frames handed on completely, and not yet returned by tungstenite.
    pub(super) unreturned: usize,
    /// What broke the rules. tungstenite sees the end of its input, the codec asks here.
    pub(super) failure: Option<Failure>,
}

#[derive(Debug, Clone, Copy)]
struct Cut {
    header: Header,
    left: u64,
    begun: bool,
}

#[derive(Debug, Clone, Copy)]
struct Header {
    first: u8,
    mask: [u8; 4],
    /// Of the header itself.
    size: usize,
    payload: u64,
}

impl Header {
    /// `None` while it has not arrived whole.
    fn parse(input: &[u8]) -> Option<(Self, bool)> {
        let (&first, &second) = (input.first()?, input.get(1)?);
        let (payload, at) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes(*input[2..].first_chunk()?)), 4),
            127 => (u64::from_be_bytes(*input[2..].first_chunk()?), 10),
            short => (u64::from(short), 2),
        };
        let masked = second & 0x80 != 0;
        let mask = if masked { *input[at..].first_chunk()? } else { [0; 4] };
        Some((Self { first, mask, size: at + if masked { 4 } else { 0 }, payload }, masked))
    }

    fn is_final(self) -> bool {
        self.first & 0x80 != 0
    }

    fn opcode(self) -> u8 {
        self.first & 0x0f
    }

    fn is_control(self) -> bool {
        self.opcode() & 0x08 != 0
    }
}

impl Frames {
    pub(super) fn new(stream: Stream, max_message: usize, max_frame: usize) -> Self {
        Self {
            stream,
            max_message: max_message as u64,
            max_frame: max_frame as u64,
            passing: 0,
            passing_ends: false,
            cut: None,
            made: [0; MAX_HEADER],
            made_left: 0..0,
            message: None,
            unreturned: 0,
            failure: None,
        }
    }

    /// Whether all that was handed on is whole messages, and all of those were returned: tungstenite holds nothing.
    pub(super) fn is_at_boundary(&self) -> bool {
        self.passing == 0
            && self.cut.is_none()
            && self.made_left.is_empty()
            && self.message.is_none()
            && self.unreturned == 0
    }

    /// Whether a whole message, or a whole control frame, can be had without another byte from the peer.
    pub(super) fn has_whole_message(&self) -> bool {
        if self.unreturned > 0 {
            return true;
        }
        let input = self.stream.input();
        let current = self.passing.saturating_add(self.cut.map_or(0, |cut| cut.left));
        if current > input.len() as u64 {
            return false;
        }
        if current > 0 && self.cut.map_or(self.passing_ends, |cut| cut.header.is_final()) {
            return true;
        }
        let mut at = current as usize;
        while let Some((header, _)) = input.get(at..).and_then(Header::parse) {
            let end = (at as u64).saturating_add(header.size as u64).saturating_add(header.payload);
            if end > input.len() as u64 {
                return false;
            }
            if header.is_final() {
                return true;
            }
            at = end as usize;
        }
        false
    }

    /// Reads the next header of the input and decides how its frame is handed on. False: more bytes are needed.
    fn next_frame(&mut self) -> Result<bool, Failure> {
        let input = self.stream.input();
        let Some((header, masked)) = Header::parse(input) else { return Ok(false) };
        self.message = self.check(header, masked)?;
        let arrived = (input.len() - header.size) as u64;
        if header.opcode() == CLOSE && header.payload >= 2 {
            let Some(&[high, low]) = input[header.size..].first_chunk() else { return Ok(false) };
            check_close_code(u16::from_be_bytes([high ^ header.mask[0], low ^ header.mask[1]]))?;
        }
        let is_text_or_more = header.opcode() != 2;
        if arrived >= header.payload || header.is_control() || !(is_text_or_more || header.payload > RESERVE)
        {
            self.passing = header.size as u64 + header.payload;
            self.passing_ends = header.is_final();
        } else {
            self.stream.consume(header.size);
            self.cut = Some(Cut { header, left: header.payload, begun: false });
        }
        Ok(true)
    }

    /// The rules that need no payload. Returns the size of the message in progress after this frame.
    fn check(&self, header: Header, masked: bool) -> Result<Option<u64>, Failure> {
        if header.first & 0x70 != 0 {
            return Err(Failure::protocol("reserved bits are set")); // RFC 6455, section 5.2
        }
        if !masked {
            return Err(Failure::protocol("a client's frame must be masked")); // section 5.1
        }
        if matches!(header.opcode(), 3..=7 | 11..) {
            return Err(Failure::protocol("reserved opcode")); // section 5.2
        }
        if header.is_control() {
            if header.payload > MAX_CONTROL || !header.is_final() {
                return Err(Failure::protocol("a control frame must be short and whole")); // section 5.5
            }
            return Ok(self.message);
        }
        let size = self.message.unwrap_or(0).saturating_add(header.payload);
        if header.payload > self.max_frame {
            return Err(Failure::too_big(format!("frame of more than {} bytes", self.max_frame)));
        }
        if size > self.max_message {
            return Err(Failure::too_big(format!("message of more than {} bytes", self.max_message)));
        }
        let minimal = match header.size - if masked { 4 } else { 0 } {
            2 => true,
            4 => header.payload > 125,
            _ => header.payload > 0xffff,
        };
        if !minimal {
            return Err(Failure::protocol("a length must be written in as few bytes as it can")); // section 5.2
        }
        Ok((!header.is_final()).then_some(size))
    }

    /// Makes the header of the next piece of a cut frame out of what has arrived of it. False: more bytes are needed.
    fn next_piece(&mut self, mut cut: Cut) -> bool {
        let piece = cut.left.min(self.stream.input().len() as u64);
        if piece == 0 && cut.left > 0 {
            return false;
        }
        let last = piece == cut.left;
        let opcode = if cut.begun { 0 } else { cut.header.opcode() };
        let fin = if last { cut.header.first & 0x80 } else { 0 };
        // The mask goes on where the last piece stopped.
        let mut mask = cut.header.mask;
        mask.rotate_left(((cut.header.payload - cut.left) % 4) as usize);
        self.made[0] = fin | opcode;
        self.made[1] = 0x80 | 127;
        self.made[2..10].copy_from_slice(&piece.to_be_bytes());
        self.made[10..].copy_from_slice(&mask);
        self.made_left = 0..MAX_HEADER;
        self.passing = piece;
        cut.left -= piece;
        cut.begun = true;
        self.cut = (!last).then_some(cut);
        self.passing_ends = fin != 0;
        true
    }
}

/// Some codes are for the endpoint's own use and never on the wire, others have no meaning (RFC 6455, section 7.4).
fn check_close_code(code: u16) -> Result<(), Failure> {
    if CloseCode(code).is_sendable() {
        Ok(())
    } else {
        Err(Failure::protocol("a close code that may not be sent"))
    }
}

impl Read for Frames {
    /// Hands on as many frames as have arrived and fit.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut n = 0;
        while n < buf.len() {
            if !self.made_left.is_empty() {
                let take = self.made_left.len().min(buf.len() - n);
                let start = self.made_left.start;
                buf[n..n + take].copy_from_slice(&self.made[start..start + take]);
                self.made_left.start += take;
                n += take;
            } else if self.passing > 0 {
                let input = self.stream.input();
                let take =
                    input.len().min(buf.len() - n).min(usize::try_from(self.passing).unwrap_or(usize::MAX));
                if take == 0 {
                    break;
                }
                buf[n..n + take].copy_from_slice(&input[..take]);
                self.stream.consume(take);
                self.passing -= take as u64;
                self.unreturned += usize::from(self.passing == 0 && self.passing_ends);
                n += take;
            } else if let Some(cut) = self.cut {
                if !self.next_piece(cut) {
                    break;
                }
            } else if self.failure.is_some() {
                break;
            } else {
                match self.next_frame() {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(failure) => self.failure = Some(failure),
                }
            }
        }
        if n > 0 { Ok(n) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }
}

impl Write for Frames {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.output().extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
