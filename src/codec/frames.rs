//! The header of one frame, and the rules for it (RFC 6455, section 5.2). tungstenite parses it and writes it.

use std::{io::Cursor, ops::Range};

use tungstenite::protocol::Role;
use tungstenite::protocol::frame::FrameHeader;
pub(super) use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::failure::Failure;

/// The longest payload of a control frame (RFC 6455, section 5.5), and of any frame that has its length in one byte.
pub(super) const MAX_CONTROL: usize = 125;

/// The header of a frame from the peer, after all checks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Header {
    pub(super) opcode: OpCode,
    pub(super) is_final: bool,
    /// The first reserved bit, RSV1 (RFC 7692, section 6).
    pub(super) is_compressed: bool,
    pub(super) mask: Option<[u8; 4]>,
    /// Bytes of the header itself.
    pub(super) size: usize,
    /// Bytes of the payload, as announced.
    pub(super) payload_size: u64,
}

impl Header {
    /// `None` while the header is incomplete.
    #[inline(always)] // saves a tenth of the instructions for a short message
    pub(super) fn parse(input: &[u8], role: Role) -> Result<Option<Self>, Failure> {
        if input.is_empty() {
            return Ok(None); // the most frequent case
        }
        let short = match role {
            Role::Server => Self::parse_short(input),
            Role::Client => Self::parse_short_unmasked(input),
        };
        match short {
            Some(header) => Ok(Some(header)),
            None => Self::parse_any(input, role),
        }
    }

    /// The most frequent header from a client: that of a whole message of at most 125 bytes. Parsing it here is 13 % faster
    /// when many short messages arrive together, and 4 % with 16 at a time (`benches/README.md`).
    #[inline(always)]
    pub(super) fn parse_short(input: &[u8]) -> Option<Self> {
        let &[first, second, a, b, c, d, ..] = input else { return None };
        Self::short(first, second.checked_sub(0x80)?, Some([a, b, c, d]), 6)
    }

    /// The same from a server.
    #[inline(always)]
    pub(super) fn parse_short_unmasked(input: &[u8]) -> Option<Self> {
        let &[first, payload_size, ..] = input else { return None };
        Self::short(first, payload_size, None, 2)
    }

    #[inline(always)]
    fn short(first: u8, payload_size: u8, mask: Option<[u8; 4]>, size: usize) -> Option<Self> {
        let opcode = match first {
            0x81 => OpCode::Data(Data::Text),
            0x82 => OpCode::Data(Data::Binary),
            _ => return None,
        };
        (usize::from(payload_size) <= MAX_CONTROL).then(|| Self {
            opcode,
            is_final: true,
            is_compressed: false,
            mask,
            size,
            payload_size: payload_size.into(),
        })
    }

    pub(super) fn parse_any(input: &[u8], role: Role) -> Result<Option<Self>, Failure> {
        let mut cursor = Cursor::new(input);
        match FrameHeader::parse(&mut cursor) {
            Ok(Some((header, payload_size))) => {
                let size = cursor.position() as usize;
                match broken_rule(&header, size, payload_size, role) {
                    None => Ok(Some(Self::new(&header, size, payload_size))),
                    Some(rule) => Err(Failure::protocol(rule)),
                }
            }
            Ok(None) => Ok(None),
            // The only error that it returns (RFC 6455, section 5.2).
            Err(_) => Err(Failure::protocol("reserved opcode")),
        }
    }

    fn new(header: &FrameHeader, size: usize, payload_size: u64) -> Self {
        let &FrameHeader { opcode, is_final, rsv1: is_compressed, mask, .. } = header;
        Self { opcode, is_final, is_compressed, mask, size, payload_size }
    }

    /// Bytes of header and payload; `usize::MAX` if they would not fit into memory.
    pub(super) fn total_size(&self) -> usize {
        usize::try_from(self.payload_size).unwrap_or(usize::MAX).saturating_add(self.size)
    }

    /// Where the payload is, if the frame begins at `start` and has arrived whole.
    pub(super) fn payload(&self, start: usize) -> Range<usize> {
        start + self.size..start + self.total_size()
    }

    pub(super) fn is_control(&self) -> bool {
        matches!(self.opcode, OpCode::Control(_))
    }

    pub(super) fn is_continuation(&self) -> bool {
        self.opcode == OpCode::Data(Data::Continue)
    }

    pub(super) fn is_text(&self) -> bool {
        self.opcode == OpCode::Data(Data::Text)
    }

    /// Whether the frame is a whole message, not compressed, of at most `max_size` bytes.
    pub(super) fn is_message_up_to(&self, max_size: u64) -> bool {
        let is_data = !self.is_control() && !self.is_continuation();
        is_data && self.is_final && !self.is_compressed && self.payload_size <= max_size
    }
}

/// The rule that a header breaks, if any. tungstenite checks these only when it has the whole frame, or not at all.
#[inline(always)]
fn broken_rule(header: &FrameHeader, size: usize, payload_size: u64, role: Role) -> Option<&'static str> {
    match (role, header.mask) {
        (Role::Server, Some(_)) | (Role::Client, None) => {}
        (Role::Server, None) => return Some("a client's frame must be masked"), // RFC 6455, section 5.1
        (Role::Client, Some(_)) => return Some("a server's frame must not be masked"), // section 5.1
    }
    if size != header.len(payload_size) || payload_size >> 63 != 0 {
        return Some("a length must be written in as few bytes as possible"); // section 5.2
    }
    if header.rsv2 || header.rsv3 {
        return Some("reserved bits are set"); // section 5.2
    }
    if matches!(header.opcode, OpCode::Control(_)) {
        if payload_size > MAX_CONTROL as u64 || !header.is_final {
            return Some("a control frame must be short and unfragmented"); // section 5.5
        }
        if header.rsv1 {
            return Some("a control frame must not be compressed"); // RFC 7692, section 6.1
        }
    }
    None
}

/// Appends the header of a frame that is a whole message or a control frame.
pub(super) fn put_header(
    opcode: OpCode,
    is_compressed: bool,
    mask: Option<[u8; 4]>,
    payload_size: usize,
    output: &mut Vec<u8>,
) {
    let header = FrameHeader { opcode, rsv1: is_compressed, mask, ..FrameHeader::default() };
    // Writing to memory cannot fail.
    let _ = header.format(payload_size as u64, output);
}
