//! An object or array by bit masks: 64 bytes at once, one bit for each, and no branch for each token.
//!
//! The first step is simdjson's (Langdale and Lemire, "Parsing Gigabytes of JSON per Second", 2019):
//! which quotes are escaped, and which bytes stand inside strings. The second checks the grammar
//! without visiting tokens. Values stand exactly where an opening bracket, a comma or a colon comes
//! before them, and colons exactly behind keys; so the places right behind such tokens are computed
//! together, beyond white space, and held against what stands there. Only commas need to know what is
//! open around them; between two brackets that is the same for all of them. So only [`brackets`] are
//! visited one by one, and what is rarer: escapes by `\u`, and among the [`scalars`] literals, exponents
//! and what goes over a border.
//!
//! A block hands on what the next one must know as one bit for each kind. It is safe code, and runs
//! on any machine that can make [`Masks`]; how these are made is not its business, nor is what is
//! wrong with a value that does not pass.

mod brackets;
mod scalars;

use std::ops::Shr;

use self::brackets::{Brackets, Open};
use super::strings::BLOCK;

/// What the machine does with 64 bytes or bits.
pub(super) trait Machine: Copy {
    fn masks(self, block: &[u8; BLOCK]) -> Masks;

    fn number_masks(self, block: &[u8; BLOCK]) -> NumberMasks;

    /// The bytes that mean something behind a backslash, but for `u`.
    fn escapes(self, block: &[u8; BLOCK]) -> u64;

    /// For each bit the parity of itself and all below it.
    fn prefix_xor(self, bits: u64) -> u64;
}

/// One bit for each byte of a block, the first lowest: which byte is what, also inside strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Masks {
    pub(super) quotes: u64,
    pub(super) backslashes: u64,
    /// All below 0x20.
    pub(super) controls: u64,
    /// The four that RFC 8259 allows between tokens.
    pub(super) white: u64,
    /// `{` and `[`
    pub(super) opening: u64,
    /// `}` and `]`
    pub(super) closing: u64,
    /// Among brackets: `{` and `}`. Any other byte may be in it.
    pub(super) braces: u64,
    pub(super) colons: u64,
    pub(super) commas: u64,
}

/// The same for what numbers are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NumberMasks {
    pub(super) digits: u64,
    pub(super) zeros: u64,
    pub(super) minuses: u64,
    pub(super) dots: u64,
}

/// Where the object or array ends whose opening bracket stands at `at`. `None`: it is malformed,
/// or has more levels than `max_levels` or than fit a word, or the text is shorter than a block.
#[allow(clippy::inline_always, reason = "to be compiled with the caller's instructions")]
#[inline(always)]
pub(super) fn end<M: Machine>(text: &[u8], at: usize, max_levels: u32, machine: M) -> Option<usize> {
    let mut grammar = Grammar::new(max_levels, machine);
    let mut base = at;
    loop {
        let block = Block::at(text, base)?;
        let live = grammar.block(&block)?;
        if grammar.open.is_closed() {
            return Some(base + (u64::BITS - live.leading_zeros()) as usize);
        }
        base += BLOCK;
    }
}

/// A part of a text.
struct Block<'a> {
    text: &'a [u8],
    /// Where it begins.
    base: usize,
    bytes: &'a [u8; BLOCK],
    /// How many of `bytes` stand before `base`. Not 0 only for the text's last block, which is shorter
    /// than the others: `bytes` are the text's last ones.
    before: u32,
}

#[allow(clippy::inline_always, reason = "as above; each call that stays costs the registers")]
impl<'a> Block<'a> {
    /// `None`: the text ends before, or is shorter than a block.
    #[inline(always)]
    fn at(text: &'a [u8], base: usize) -> Option<Self> {
        let rest = text.get(base..)?;
        if let Some(bytes) = rest.first_chunk() {
            return Some(Self { text, base, bytes, before: 0 });
        }
        let bytes = text.last_chunk()?;
        let before = u32::try_from(BLOCK - rest.len()).ok().filter(|before| *before < u64::BITS)?;
        Some(Self { text, base, bytes, before })
    }

    #[inline(always)]
    fn masks<M: Machine>(&self, machine: M) -> Masks {
        let masks = machine.masks(self.bytes);
        if self.before == 0 { masks } else { masks >> self.before }
    }

    #[inline(always)]
    fn number_masks<M: Machine>(&self, machine: M) -> NumberMasks {
        let masks = machine.number_masks(self.bytes);
        if self.before == 0 { masks } else { masks >> self.before }
    }

    /// What stands from this place on, also beyond the block.
    #[inline(always)]
    fn from(&self, place: u32) -> &'a [u8] {
        self.text.get(self.base + place as usize..).unwrap_or_default()
    }
}

impl Shr<u32> for Masks {
    type Output = Self;

    #[inline]
    fn shr(self, by: u32) -> Self {
        Self {
            quotes: self.quotes >> by,
            backslashes: self.backslashes >> by,
            controls: self.controls >> by,
            white: self.white >> by,
            opening: self.opening >> by,
            closing: self.closing >> by,
            braces: self.braces >> by,
            colons: self.colons >> by,
            commas: self.commas >> by,
        }
    }
}

impl Shr<u32> for NumberMasks {
    type Output = Self;

    #[inline]
    fn shr(self, by: u32) -> Self {
        Self {
            digits: self.digits >> by,
            zeros: self.zeros >> by,
            minuses: self.minuses >> by,
            dots: self.dots >> by,
        }
    }
}

/// What one block must know of those before it. Words that are one bit or all ones, so that they
/// enter the masks as they are.
struct Grammar<M> {
    machine: M,
    /// All ones: the last block ended inside a string.
    in_string: u64,
    /// 1: its last byte was a backslash that escapes.
    is_escaping: u64,
    /// 1: the string that it ended in is a key.
    in_key: u64,
    /// 1: it ended in a number or literal.
    in_scalar: u64,
    next: Next,
    open: Open,
}

/// 1: at the next token, maybe behind white space,
#[derive(Default)]
struct Next {
    /// a value must stand, or the end of something empty.
    value: u64,
    /// something may end that is empty.
    end: u64,
    /// a key must stand, or the end of something empty.
    key: u64,
    /// a colon must stand.
    colon: u64,
}

/// The tokens of a block.
struct Tokens {
    /// Every byte of white space.
    white: u64,
    /// Opening quotes.
    strings: u64,
    /// The strings' bytes with the opening quotes, without the closing ones.
    inside: u64,
    /// Closing quotes.
    string_ends: u64,
    /// The bytes that backslashes escape.
    escaped: u64,
    /// Every byte of a number or literal.
    scalars: u64,
    /// The first byte of each.
    scalar_starts: u64,
    colons: u64,
    commas: u64,
}

/// Every other place, the first among them.
const EVEN: u64 = 0x5555_5555_5555_5555;

#[allow(clippy::inline_always, reason = "as above")]
impl<M: Machine> Grammar<M> {
    #[inline(always)]
    fn new(max_levels: u32, machine: M) -> Self {
        Self {
            machine,
            in_string: 0,
            is_escaping: 0,
            in_key: 0,
            in_scalar: 0,
            next: Next { value: 1, ..Next::default() },
            open: Open::new(max_levels),
        }
    }

    /// The places up to the value's end, or all. `None`: something is wrong there.
    #[inline(always)]
    fn block(&mut self, block: &Block<'_>) -> Option<u64> {
        let masks = block.masks(self.machine);
        let specials = masks.quotes | masks.backslashes | masks.controls | self.is_escaping;
        if specials | !self.in_string == 0 {
            // Nothing but more of a string.
            return Some(u64::MAX);
        }
        let tokens = self.tokens(&masks);
        let brackets = self.open.block(&masks, !tokens.inside)?;
        // Most JSON on the wire has no white space, and without it this is half as much.
        let mut wrong = if tokens.white == 0 {
            self.order(&tokens, &brackets, 0)
        } else {
            self.order(&tokens, &brackets, tokens.white)
        };
        // Outside of strings one that is no white space counts as a scalar, and is none.
        wrong |= masks.controls & tokens.inside;
        let live = brackets.live;
        let escapes = tokens.escaped & live;
        let is_right = wrong & live == 0
            && (escapes == 0 || are_escapes(block, escapes, self.machine))
            && (tokens.scalars == 0
                || scalars::are_valid(block, tokens.scalars & live, self.in_scalar, self.machine));
        self.in_scalar = tokens.scalars >> 63;
        is_right.then_some(live)
    }

    #[inline(always)]
    fn tokens(&mut self, masks: &Masks) -> Tokens {
        let escaped = self.escaped(masks.backslashes);
        let quotes = masks.quotes & !escaped;
        let inside = self.machine.prefix_xor(quotes) ^ self.in_string;
        self.in_string = (inside.cast_signed() >> 63).cast_unsigned();
        let string_ends = quotes & !inside;
        let Masks { white, opening, closing, colons, commas, .. } = *masks;
        let scalars = !(inside | string_ends | white | opening | closing | colons | commas);
        Tokens {
            white: white & !inside,
            strings: quotes & inside,
            inside,
            string_ends,
            escaped,
            scalars,
            scalar_starts: scalars & !(scalars << 1 | self.in_scalar),
            colons: colons & !inside,
            commas: commas & !inside,
        }
    }

    /// The bytes behind a backslash that escapes them.
    #[inline(always)]
    fn escaped(&mut self, backslashes: u64) -> u64 {
        if backslashes | self.is_escaping == 0 {
            return 0;
        }
        // Runs of backslashes escape each other in pairs: a run that starts at an odd place is told
        // from one at an even place by where adding its start carries to.
        let backslashes = backslashes & !self.is_escaping;
        let behind = backslashes << 1 | self.is_escaping;
        let odd_starts = backslashes & !EVEN & !behind;
        let (even_runs, carried) = odd_starts.overflowing_add(backslashes);
        self.is_escaping = u64::from(carried);
        (EVEN ^ even_runs << 1) & behind
    }

    /// The places where something stands that may not stand behind what came before.
    #[inline(always)]
    fn order(&mut self, tokens: &Tokens, brackets: &Brackets, white: u64) -> u64 {
        let Tokens { strings, inside, string_ends, scalar_starts, colons, commas, .. } = *tokens;
        let Brackets { opening, closing, opening_objects, in_objects, .. } = *brackets;
        let Next { value, end, key, colon } = &mut self.next;

        let at_value = behind(opening | commas | colons, white, value);
        let at_end = behind(opening, white, end);
        let values = strings | scalar_starts | opening;
        let misplaced = (values ^ at_value) & !(closing & at_end);

        let at_key = behind(opening_objects | commas & in_objects, white, key) & !closing;
        // Adding a string's first bit to its bits carries to its closing quote.
        let (carried, in_key) = inside.overflowing_add(strings & at_key | self.in_key);
        self.in_key = u64::from(in_key);
        let at_colon = behind(carried & string_ends, white, colon);

        misplaced | at_key & !strings | at_colon ^ colons
    }
}

/// Whether all of these places, which are behind backslashes, hold what may be escaped (RFC 8259,
/// section 7).
#[allow(clippy::inline_always, reason = "as above")]
#[inline(always)]
fn are_escapes<M: Machine>(block: &Block<'_>, escaped: u64, machine: M) -> bool {
    let mut others = escaped & !(machine.escapes(block.bytes) >> block.before);
    while others != 0 {
        match block.from(others.trailing_zeros()) {
            [b'u', a, b, c, d, ..] if [a, b, c, d].into_iter().all(u8::is_ascii_hexdigit) => {}
            _ => return false,
        }
        others &= others - 1;
    }
    true
}

/// The places of the tokens that come next behind these last bytes, or at the block's first byte
/// (`next`), beyond white space. `next` becomes what holds for the next block.
///
/// ```text
/// text      [  7,   [ 8
/// last      1.......1..    the brackets that open
/// answer    ...1......1    what comes next behind each
/// ```
#[allow(clippy::inline_always, reason = "as above")]
#[inline(always)]
fn behind(last: u64, white: u64, next: &mut u64) -> u64 {
    let places = last << 1 | *next;
    // Adding the first bit of a run of white space carries to what stands behind it.
    let (carried, beyond) = white.overflowing_add(places & white);
    *next = last >> 63 | u64::from(beyond);
    (places | carried) & !white
}

#[cfg(test)]
pub(super) mod tests;
