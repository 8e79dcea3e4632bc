//! Numbers and literals, for the scan by blocks.
//!
//! What has only digits, a minus and a dot is checked for all numbers of a block together; a literal is
//! one comparison. The rest is looked at byte by byte: what has an exponent or is wrong, and what goes on in
//! the next block.

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
    is_last_valid && (here == 0 || are_ended_valid(block, here, machine))
}

/// The same for those that all end in this block.
#[allow(clippy::inline_always, reason = "as above")]
#[inline(always)]
fn are_ended_valid<M: Machine>(block: &Block<'_>, scalars: u64, machine: M) -> bool {
    let starts = scalars & !(scalars << 1);
    let others = not_plain(block, scalars, starts, machine);
    others == 0 || are_scalars(block.text, block.base, starts, others)
}

/// Where something stands, or should, that makes one of these neither a literal nor a number without
/// an exponent: in it, or right behind it.
#[allow(clippy::inline_always, reason = "as above")]
#[inline(always)]
fn not_plain<M: Machine>(block: &Block<'_>, scalars: u64, starts: u64, machine: M) -> u64 {
    let NumberMasks { digits, zeros, minuses, dots } = block.number_masks(machine);
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
    misplaced | leading_zeros | scalars & !digits ^ (minuses | dots | literals)
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

/// Whether a number or literal begins at each of `starts` in or right behind which one of `others` stands.
#[cold]
fn are_scalars(text: &[u8], base: usize, starts: u64, mut others: u64) -> bool {
    while others != 0 {
        let up_to = others ^ (others - 1);
        let Some(start) = (starts & up_to).checked_ilog2() else { return false };
        if !text.get(base + start as usize..).is_some_and(is_scalar) {
            return false;
        }
        // All from the next one on.
        let later = starts & !up_to;
        others &= later | later.wrapping_neg();
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
    let first = usize::from(text.first() == Some(&b'-'));
    let mut at = if text.get(first) == Some(&b'0') { first + 1 } else { digits(first)? };
    if text.get(at) == Some(&b'.') {
        at = digits(at + 1)?;
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        at = digits(at + 1 + sign)?;
    }
    Some(at)
}
