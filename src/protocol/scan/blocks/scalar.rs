//! Numbers and literals, for the scan by blocks.

use super::BLOCK;

/// Where the number or literal ends that begins at this place of a block, by the places of its
/// digits. `None`: it is none, or has an exponent, or may go on in the next block.
#[allow(clippy::inline_always, reason = "measured")]
#[inline(always)]
pub(super) fn end(block: &[u8; BLOCK], place: u32, digits: u64) -> Option<u32> {
    let behind_digits = |from: u32| {
        let end = from + digits.checked_shr(from)?.trailing_ones();
        (end > from).then_some(end)
    };
    let at = |place: u32| block.get(place as usize).copied();
    let first = at(place)?;
    if first.is_ascii_lowercase() {
        return match block.get(place as usize..)?.first_chunk::<4>()? {
            b"true" | b"null" => Some(place + 4),
            b"fals" => (at(place + 4)? == b'e').then_some(place + 5),
            _ => None,
        };
    }
    let integer = place + u32::from(first == b'-');
    let end = behind_digits(integer)?;
    match at(end)? {
        _ if at(integer)? == b'0' && end > integer + 1 => None,
        b'.' => behind_digits(end + 1).filter(|end| !matches!(at(*end), Some(b'e' | b'E'))),
        b'e' | b'E' => None,
        _ => Some(end),
    }
}

/// Whether the text begins with a number or literal, and something that may follow one.
#[cold]
pub(super) fn is_scalar(text: &[u8]) -> bool {
    let length = match text.first_chunk::<4>() {
        Some(b"true" | b"null") => 4,
        Some(b"fals") if text.get(4) == Some(&b'e') => 5,
        _ => match number(text) {
            Some(length) => length,
            None => return false,
        },
    };
    matches!(text.get(length), Some(b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r'))
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
