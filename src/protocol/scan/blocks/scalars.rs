//! Numbers and literals, for the scan by blocks.
//!
//! What has only digits, a minus and a dot is checked for all numbers of a block together; a literal is
//! one comparison. The rest is looked at byte by byte: exponents, and what goes on in the next block.

use super::{Block, Machine, NumberMasks};

/// Whether all of these bytes are whole numbers and literals (RFC 8259, sections 3 and 6). If `in_scalar`
/// is 1 and not 0, the first goes on from the last block, where it was looked at.
#[allow(clippy::inline_always, reason = "each call that stays costs the registers")]
#[inline(always)]
pub(super) fn are_valid<M: Machine>(block: &Block<'_>, scalars: u64, in_scalar: u64, machine: M) -> bool {
    let here = scalars & scalars.wrapping_add(in_scalar);
    let last = here.leading_ones();
    let here = here & u64::MAX.checked_shr(last).unwrap_or(0);
    let is_last_valid = last == 0 || is_scalar(block.from(u64::BITS - last));
    is_last_valid
        && (here == 0 || are_plain(block, here, machine) || are_scalars(block.text, block.base, here))
}

/// Whether these are literals, and numbers without exponents, all of which end in this block.
#[allow(clippy::inline_always, reason = "as above")]
#[inline(always)]
fn are_plain<M: Machine>(block: &Block<'_>, scalars: u64, machine: M) -> bool {
    let NumberMasks { digits, zeros, minuses, dots } = block.number_masks(machine);
    let starts = scalars & !(scalars << 1);
    let digits = digits & scalars;
    let minuses = starts & minuses;
    // Where integers must begin: adding that to all digits carries to what comes behind them, where a dot
    // may stand.
    let integers = starts & digits | minuses << 1;
    let dots = integers.wrapping_add(digits) & !digits & dots;
    // Where all digits must begin.
    let runs = integers | dots << 1;
    let literals = literals(block, starts & !digits & !minuses);

    let misplaced = digits & !(digits << 1) ^ runs;
    let leading_zeros = integers & zeros & digits >> 1;
    let others = scalars & !digits ^ (minuses | dots | literals);
    misplaced | leading_zeros | others == 0
}

/// The bytes of the literals that begin at these places.
#[allow(clippy::inline_always, reason = "as above")]
#[inline(always)]
fn literals(block: &Block<'_>, mut starts: u64) -> u64 {
    let mut literals = 0;
    while starts != 0 {
        let place = starts.trailing_zeros();
        literals |= ((1 << literal(block.from(place))) - 1) << place;
        starts &= starts - 1;
    }
    literals
}

/// The length of the literal that the text begins with, 0 if it is none.
#[allow(clippy::inline_always, reason = "as above")]
#[inline(always)]
fn literal(text: &[u8]) -> usize {
    // Words are compared at once, slices byte by byte.
    let word =
        |from: usize| text.get(from..).and_then(<[u8]>::first_chunk).map(|word| u32::from_ne_bytes(*word));
    if word(0) == Some(u32::from_ne_bytes(*b"true")) || word(0) == Some(u32::from_ne_bytes(*b"null")) {
        4
    } else if word(1) == Some(u32::from_ne_bytes(*b"alse")) && text[0] == b'f' {
        5
    } else {
        0
    }
}

/// Whether at each place where one of these begins stands a number or literal.
#[cold]
fn are_scalars(text: &[u8], base: usize, scalars: u64) -> bool {
    let mut starts = scalars & !(scalars << 1);
    while starts != 0 {
        let rest = text.get(base + starts.trailing_zeros() as usize..);
        if !rest.is_some_and(is_scalar) {
            return false;
        }
        starts &= starts - 1;
    }
    true
}

/// Whether the text begins with a number or literal, and something that may follow one.
#[inline(never)]
fn is_scalar(text: &[u8]) -> bool {
    let length = match literal(text) {
        0 => number(text).unwrap_or(0),
        length => length,
    };
    length > 0 && matches!(text.get(length), Some(b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r'))
}

/// The length of the number that the text begins with (RFC 8259, section 6).
fn number(text: &[u8]) -> Option<usize> {
    let digits = |from: usize| {
        let rest = text.get(from..).unwrap_or_default();
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        (count > 0).then_some(from + count)
    };
    let is = |at: usize, bytes: &[u8]| text.get(at).is_some_and(|byte| bytes.contains(byte));
    let first = usize::from(is(0, b"-"));
    let mut at = if is(first, b"0") { first + 1 } else { digits(first)? };
    if is(at, b".") {
        at = digits(at + 1)?;
    }
    if is(at, b"eE") {
        let sign = usize::from(is(at + 1, b"+-"));
        at = digits(at + 1 + sign)?;
    }
    Some(at)
}
