//! Where the parts of the message's own object stand, for the scan by blocks.

use super::super::fields::Fields;
use super::trimmed;

/// Most keys of the message's own object. A service may send four; what has more is left to the scan
/// by tokens.
pub(super) const MAX_FIELDS: usize = 8;

/// Where a colon and the comma behind its value stand, in turns, in the message's own object; the last
/// is its end.
pub(super) struct Marks {
    at: [u32; MAX_FIELDS * 2],
    count: usize,
}

impl Default for Marks {
    fn default() -> Self {
        Self { at: [0; MAX_FIELDS * 2], count: 0 }
    }
}

impl Marks {
    #[allow(clippy::cast_possible_truncation, reason = "the body's length has 32 bits")]
    #[inline]
    pub(super) fn push(&mut self, at: usize) -> Option<()> {
        *self.at.get_mut(self.count)? = at as u32;
        self.count += 1;
        Some(())
    }

    /// Only for a message that holds: `None` if a key of the gateway's is not as it must be.
    #[inline]
    pub(super) fn fields<'a>(&self, body: &'a str, text: &'a str) -> Option<Fields<'a>> {
        let mut fields = Fields::default();
        let mut start = 1;
        for [colon, end] in self.at.get(..self.count)?.as_chunks::<2>().0 {
            let (colon, end) = (*colon as usize, *end as usize);
            let key = trimmed(body.get(start..colon)?);
            let value = trimmed(body.get(colon + 1..end)?);
            let key = key.strip_prefix('"')?.strip_suffix('"')?;
            fields.add(key, value, value.as_ptr().addr() - text.as_ptr().addr()).ok()?;
            start = end + 1;
        }
        Some(fields)
    }
}
