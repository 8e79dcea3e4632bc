//! Where strings end, for the scan by tokens: one bit for each byte that a string can't simply hold;
//! finding the next one is then a shift and a count. Without [`Shortcuts`] the loop over the bytes is
//! written so that the compiler makes vector code of it on any machine.

use super::tokens::Shortcuts;

/// How many bytes are looked at together: one for each bit of a mask.
pub(super) const BLOCK: usize = 64;

/// Where the bytes are that a string can't simply hold: quotes, backslashes, control characters.
#[derive(Debug, Default)]
pub(super) struct Strings {
    /// Where the block begins that was looked at last.
    block: usize,
    /// One bit for each of its bytes, the first lowest.
    specials: u64,
    /// Where it ends.
    end: usize,
}

impl Strings {
    /// The first such byte at or after `at`, or the text's end.
    #[inline]
    pub(super) fn next_special<S: Shortcuts>(&mut self, bytes: &[u8], at: usize, shortcuts: S) -> usize {
        if at < self.end {
            let rest = self.specials >> ((at - self.block) % BLOCK);
            if rest != 0 {
                return at + rest.trailing_zeros() as usize;
            }
        }
        self.next_block(bytes, at.max(self.end), shortcuts)
    }

    #[inline]
    fn next_block<S: Shortcuts>(&mut self, bytes: &[u8], mut at: usize, shortcuts: S) -> usize {
        loop {
            self.specials = specials_at(bytes, at, shortcuts);
            self.block = at;
            self.end = at + BLOCK;
            if self.specials != 0 {
                return at + self.specials.trailing_zeros() as usize;
            }
            at = self.end;
        }
    }
}

/// The specials from there on. The first byte beyond the text is one too, so that a search ends.
#[inline(never)]
fn specials_at<S: Shortcuts>(bytes: &[u8], at: usize, shortcuts: S) -> u64 {
    let rest = bytes.get(at..).unwrap_or_default();
    if let Some(block) = rest.first_chunk() {
        return shortcuts.specials(block);
    }
    let mut block = [0; BLOCK];
    block[..rest.len()].copy_from_slice(rest);
    shortcuts.specials(&block)
}

/// One bit for each byte of the block, the first lowest: set for quotes, backslashes, and all
/// below 0x20.
#[inline]
pub(super) fn specials(block: &[u8; BLOCK]) -> u64 {
    let mut places = [0; BLOCK];
    for (index, (place, byte)) in places.iter_mut().zip(block).enumerate() {
        let special = matches!(*byte, b'"' | b'\\' | 0..0x20);
        *place = if special { 1 << (index % 8) } else { 0 };
    }
    // Each place is one bit of a byte's worth of bytes: their product's highest byte is their sum.
    let (words, _) = places.as_chunks::<8>();
    words.iter().rev().fold(0, |bits, word| {
        let sum = u64::from_le_bytes(*word).wrapping_mul(0x0101_0101_0101_0101);
        bits << 8 | sum >> 56
    })
}
