//! One frame: the client's with its header, the rules for it, its mask, and ours (RFC 6455, section 5.2).

use std::ops::Range;

use super::failure::Failure;

/// The longest payload of a control frame (RFC 6455, section 5.5).
pub(super) const MAX_CONTROL: usize = 125;

/// The longest payload whose length stands in one byte (section 5.2).
pub(super) const MAX_SHORT: usize = 125;

/// The opcodes (RFC 6455, section 11.8).
const CONTINUATION: u8 = 0x0;
pub(super) const TEXT: u8 = 0x1;
pub(super) const BINARY: u8 = 0x2;
pub(super) const CLOSE: u8 = 0x8;
pub(super) const PING: u8 = 0x9;
pub(super) const PONG: u8 = 0xa;

/// A frame's header, and how long it and its payload are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    /// FIN, three reserved bits, and the opcode.
    first: u8,
    pub(super) mask: [u8; 4],
    /// Bytes of the header itself.
    pub(super) size: usize,
    /// Bytes of the payload.
    pub(super) payload: u64,
}

impl Header {
    /// `None` while it has not arrived whole.
    pub(super) fn parse(input: &[u8]) -> Result<Option<Self>, Failure> {
        let &[first, second, ref rest @ ..] = input else { return Ok(None) };
        if second & 0x80 == 0 {
            return Err(Failure::protocol("a client's frame must be masked")); // RFC 6455, section 5.1
        }
        let (payload, least, length) = match second & 0x7f {
            127 => (rest.first_chunk().map(|n| u64::from_be_bytes(*n)), 0x1_0000, 8),
            126 => (rest.first_chunk().map(|n| u16::from_be_bytes(*n).into()), 126, 2),
            short => (Some(short.into()), 0, 0),
        };
        let (Some(payload), Some(mask)) = (payload, rest.get(length..).and_then(<[u8]>::first_chunk)) else {
            return Ok(None);
        };
        if payload < least || payload >> 63 != 0 {
            return Err(Failure::protocol("a length must be written in as few bytes as it can")); // section 5.2
        }
        let header = Self { first, mask: *mask, size: 2 + length + mask.len(), payload };
        header.check().map(|()| Some(header))
    }

    /// The rules for the first byte.
    fn check(&self) -> Result<(), Failure> {
        if self.first & 0x30 != 0 {
            return Err(Failure::protocol("reserved bits are set")); // RFC 6455, section 5.2
        }
        if matches!(self.opcode(), 0x3..=0x7 | 0xb..) {
            return Err(Failure::protocol("reserved opcode")); // section 5.2
        }
        if self.is_control() {
            if self.payload > MAX_CONTROL as u64 || !self.is_final() {
                return Err(Failure::protocol("a control frame must be short and whole")); // section 5.5
            }
            if self.is_compressed() {
                return Err(Failure::protocol("a control frame is never compressed")); // RFC 7692, section 6.1
            }
        }
        Ok(())
    }

    /// Bytes of header and payload. More than there can be in memory counts as the most that there can be.
    pub(super) fn total(&self) -> usize {
        usize::try_from(self.payload).unwrap_or(usize::MAX).saturating_add(self.size)
    }

    pub(super) fn is_final(&self) -> bool {
        self.first & 0x80 != 0
    }

    /// The first reserved bit (RFC 7692, section 6).
    pub(super) fn is_compressed(&self) -> bool {
        self.first & 0x40 != 0
    }

    pub(super) fn opcode(&self) -> u8 {
        self.first & 0x0f
    }

    pub(super) fn is_control(&self) -> bool {
        self.opcode() & 0x08 != 0
    }

    pub(super) fn is_continuation(&self) -> bool {
        self.opcode() == CONTINUATION
    }

    pub(super) fn is_text(&self) -> bool {
        self.opcode() == TEXT
    }
}

/// A frame of the usual kind, which has arrived whole: a message of at most 125 bytes, not compressed.
pub(super) struct Short {
    pub(super) is_text: bool,
    pub(super) mask: [u8; 4],
    pub(super) payload: Range<usize>,
}

impl Short {
    /// `None` if what begins at `start` is something else.
    pub(super) fn parse(input: &[u8], start: usize) -> Option<Self> {
        let &[first, second, a, b, c, d, ref rest @ ..] = input.get(start..)? else { return None };
        let is_text = first == 0x80 | TEXT;
        let is_usual = second & 0x80 != 0 && (is_text || first == 0x80 | BINARY);
        let length = usize::from(second & 0x7f);
        let payload = start + 6..start + 6 + length;
        (is_usual && length <= MAX_SHORT.min(rest.len())).then_some(Self {
            is_text,
            mask: [a, b, c, d],
            payload,
        })
    }
}

/// Whether a frame that ends its message has arrived whole, if it is one of the usual, with at most 125 bytes. For the others,
/// `None`.
pub(super) fn is_short_and_whole(input: &[u8]) -> Option<bool> {
    let &[first, second, ..] = input else { return Some(false) };
    let (length, is_masked) = (usize::from(second & 0x7f), second & 0x80 != 0);
    (first & 0x80 != 0 && is_masked && length <= MAX_SHORT).then(|| input.len() >= 2 + 4 + length)
}

/// Appends the header of a frame of ours, which is a whole message and has no mask (section 5.1).
pub(super) fn begin(opcode: u8, compressed: bool, length: usize, output: &mut Vec<u8>) {
    let first = 0x80 | u8::from(compressed) << 6 | opcode;
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ ..126), _) => output.extend_from_slice(&[first, length]),
        (_, Ok(length)) => {
            let [a, b] = length.to_be_bytes();
            output.extend_from_slice(&[first, 126, a, b]);
        }
        _ => {
            output.extend_from_slice(&[first, 127]);
            output.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Takes the mask off (RFC 6455, section 5.3).
pub(crate) fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    // In pieces that the processor takes at once.
    let (wide, rest) = bytes.as_chunks_mut::<32>();
    for piece in wide {
        *piece = std::array::from_fn(|i| piece[i] ^ mask[i % 4]);
    }
    let (words, rest) = rest.as_chunks_mut::<4>();
    for word in words {
        *word = std::array::from_fn(|i| word[i] ^ mask[i]);
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_goes_on_where_it_stopped() {
        let plain: Vec<u8> = (0..100).collect();
        let mask = [1, 20, 100, 255];
        let masked: Vec<u8> = plain.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        for cut in 0..=plain.len() {
            let (mut bytes, mut mask) = (masked.clone(), mask);
            let (first, second) = bytes.split_at_mut(cut);
            unmask(first, mask);
            mask.rotate_left(cut % 4);
            unmask(second, mask);
            assert_eq!(bytes, plain);
        }
    }
}
