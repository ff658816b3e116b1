//! One frame of the client: its header, the rules for it, its mask (RFC 6455, section 5.2).

use super::Failure;

/// The longest payload of a control frame (RFC 6455, section 5.5).
pub(super) const MAX_CONTROL: usize = 125;

/// The opcodes (RFC 6455, section 11.8).
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
pub(super) const CLOSE: u8 = 0x8;
pub(super) const PING: u8 = 0x9;

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

/// Takes the mask off (RFC 6455, section 5.3).
pub(super) fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
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
