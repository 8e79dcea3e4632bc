//! Which brackets match, and what is open where, for the scan by blocks.

use super::Masks;

/// Nothing is open.
const OUTERMOST: u64 = 1;

/// Most levels: a bit of a word for each, one above all of them, and the word's last one to see that
/// there are more.
const MAX_LEVELS: u32 = u64::BITS - 2;

/// What is open at the end of the last block.
pub(super) struct Open {
    /// A bit for each level, the innermost lowest, set for objects; above all a 1.
    levels: u64,
    /// What `levels` is at most with as many as there may be.
    most: u64,
}

/// The brackets of a block.
pub(super) struct Brackets {
    pub(super) opening: u64,
    pub(super) closing: u64,
    /// Those that open an object.
    pub(super) opening_objects: u64,
    /// The places between brackets that stand in an object.
    pub(super) in_objects: u64,
    /// The places up to the bracket that closes the last level, or all.
    pub(super) live: u64,
}

#[allow(clippy::inline_always, reason = "each call that stays costs the registers")]
impl Open {
    #[inline(always)]
    pub(super) fn new(max_levels: u32) -> Self {
        Self { levels: OUTERMOST, most: u64::MAX >> (u64::BITS - 1 - max_levels.min(MAX_LEVELS)) }
    }

    /// Whether all is closed again.
    #[inline(always)]
    pub(super) fn is_closed(&self) -> bool {
        self.levels == OUTERMOST
    }

    /// Opens and closes what the brackets do that stand outside of strings. `None`: one does not match,
    /// or too much is open.
    #[inline(always)]
    pub(super) fn block(&mut self, masks: &Masks, outside: u64) -> Option<Brackets> {
        let (opening, closing, braces) = (masks.opening & outside, masks.closing & outside, masks.braces);
        let brackets = opening | closing;
        // Where nothing is open, this and the next say that an object is: no token stands there that counts.
        let was_in_object = self.levels & 1;
        let (mut deepest, mut live) = (0, u64::MAX);
        // The brackets behind which an object is open.
        let mut before_objects = 0;
        let mut rest = brackets;
        while rest != 0 {
            let place = rest.trailing_zeros();
            let inner = self.levels << 1 | braces >> place & 1;
            let outer = self.levels >> 1;
            self.levels = if closing >> place & 1 == 0 { inner } else { outer };
            before_objects |= (self.levels & 1) << place;
            deepest |= self.levels;
            if self.is_closed() {
                live = rest ^ (rest - 1);
                break;
            }
            rest &= rest - 1;
        }
        // Adding the first place behind a bracket to all places without any carries to the next one, where
        // it tells what that one stands in.
        let carried = (before_objects << 1 | was_in_object).wrapping_add(!brackets);
        let in_objects = !(brackets | carried);
        let mismatched = closing & (carried ^ braces) & live;
        (mismatched == 0 && deepest <= self.most).then_some(Brackets {
            opening,
            closing,
            opening_objects: opening & braces,
            in_objects,
            live,
        })
    }
}
