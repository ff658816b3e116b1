//! The mask of a frame (RFC 6455, section 5.3). tungstenite has this, too, but does not export it.

/// How many masks one call of the operating system makes.
const BATCH: usize = 64;

/// Applies a mask, or removes it, which is the same operation.
pub(crate) fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) {
    // In blocks that the compiler turns into vector instructions.
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

/// A client's supply of masks: each frame needs a new one that nobody can predict.
#[derive(Debug)]
pub(super) struct Masks {
    /// From the operating system.
    random: [[u8; 4]; BATCH],
    used: usize,
}

impl Masks {
    pub(super) fn new() -> Self {
        Self { random: [[0; 4]; BATCH], used: BATCH }
    }

    /// # Panics
    /// If the operating system has no random numbers, which on Unix happens only early at boot.
    pub(super) fn next(&mut self) -> [u8; 4] {
        if self.used == BATCH {
            getrandom::fill(self.random.as_flattened_mut())
                .expect("random numbers from the operating system");
            self.used = 0;
        }
        self.used += 1;
        self.random[self.used - 1]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_mask_goes_on_where_it_stopped() {
        let plain: Vec<u8> = (0..100).collect();
        let mask = [1, 20, 100, 255];
        let masked: Vec<u8> = plain.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        for cut in 0..=plain.len() {
            let (mut bytes, mut mask) = (masked.clone(), mask);
            let (first, second) = bytes.split_at_mut(cut);
            apply_mask(first, mask);
            mask.rotate_left(cut % 4);
            apply_mask(second, mask);
            assert_eq!(bytes, plain);
        }
    }

    #[test]
    fn masks_differ_beyond_a_batch() {
        let mut masks = Masks::new();
        let different: HashSet<_> = std::iter::repeat_with(|| masks.next()).take(4 * BATCH).collect();
        assert!(
            different.len() >= 4 * BATCH - 2,
            "masks of 32 bits may be equal by chance, but hardly three pairs"
        );
    }
}
