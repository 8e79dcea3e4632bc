//! A message by bit masks: 64 bytes at once, one bit for each, and no branch for each token.
//!
//! The first step is simdjson's (Langdale and Lemire, "Parsing Gigabytes of JSON per Second", 2019):
//! which quotes are escaped, and which bytes stand inside strings. The second checks the grammar
//! without visiting tokens: what may follow a token depends on what it is, so for each kind the
//! places right behind its tokens are computed together, beyond white space, and held against what
//! stands there. Only commas need to know what is open around them; between two brackets that is the
//! same for all of them. So only brackets are visited one by one, and what is rarer: scalars of more
//! than one byte, escapes, control characters, and the colons and commas of the message's own object.
//!
//! A block hands on what the next one must know as one bit for each kind. It is safe code, and runs
//! on any machine that can make [`Masks`]; how these are made is not its business.

mod marks;
mod scalar;

use self::marks::Marks;
use super::Limits;
use crate::protocol::envelope::Envelope;

/// How many bytes are looked at together: one for each bit of a mask.
pub(super) const BLOCK: usize = 64;

/// Most levels of nesting: a bit of a word for each, and the word's last one for the end.
const MAX_DEPTH: u32 = u64::BITS - 1;

/// What the machine does with 64 bytes or bits.
pub(super) trait Machine: Copy {
    fn masks(self, block: &[u8; BLOCK]) -> Masks;

    /// The places of digits.
    fn digits(self, block: &[u8; BLOCK]) -> u64;

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
    pub(super) spaces: u64,
    /// All four kinds.
    pub(super) brackets: u64,
    pub(super) colons: u64,
    pub(super) commas: u64,
}

/// `None`: the message is malformed, or has more fields or levels than are looked at here.
#[allow(clippy::inline_always, reason = "to be compiled with the caller's instructions")]
#[inline(always)]
pub(super) fn scan<M: Machine>(text: &str, limits: Limits, machine: M) -> Option<Envelope<'_>> {
    let body = trimmed(text);
    let mut marks = Marks::default();
    let mut grammar = Grammar::new(body, limits, machine)?;
    let (blocks, rest) = body.as_bytes().as_chunks::<BLOCK>();
    let mut last = [b' '; BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    let last = (!rest.is_empty()).then_some(&last);
    for block in blocks.iter().chain(last) {
        grammar.block(block, &mut marks)?;
    }
    grammar.holds().then(|| marks.fields(body, text))??.envelope(text).ok()
}

/// Without white space before and behind it.
#[inline]
pub(super) fn trimmed(text: &str) -> &str {
    let is_token = |byte: Option<&u8>| byte.is_some_and(|byte| *byte > b' ');
    let bytes = text.as_bytes();
    if is_token(bytes.first()) && is_token(bytes.last()) {
        return text;
    }
    text.trim_matches(is_white_space)
}

fn is_white_space(character: char) -> bool {
    matches!(character, ' ' | '\n' | '\r' | '\t')
}

/// What one block must know of those before it. Words that are one bit or all ones, so that they
/// enter the masks as they are.
struct Grammar<'a, M> {
    machine: M,
    text: &'a [u8],
    max_depth: u32,
    /// Where the block begins.
    base: usize,
    /// All ones: the last block ended inside a string.
    in_string: u64,
    /// 1: its last byte was a backslash that escapes.
    is_escaping: u64,
    /// 1: the string that it ended in is a key.
    in_key: u64,
    /// 1: it ended in a number or literal.
    in_scalar: u64,
    next: Next,
    /// What is open: a bit for each level, the innermost lowest, set for objects; above all a 1.
    open: u64,
    /// Not 0: something is wrong.
    wrong: u64,
}

/// 1: the next token, maybe behind white space, must be this.
#[derive(Default)]
struct Next {
    /// A key, or the end of an object without any.
    key: u64,
    /// A value, or the end of an array without any.
    value: u64,
    /// No end.
    no_end: u64,
    colon: u64,
    /// A comma, or an end.
    comma: u64,
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
    /// Every byte of a number or literal.
    scalars: u64,
    /// The first byte of each.
    scalar_starts: u64,
    brackets: u64,
    colons: u64,
    commas: u64,
}

/// What the brackets of a block do.
struct Brackets {
    /// Those that close.
    closing: u64,
    /// The places that stand in an object; an opening bracket does if it opens one.
    in_objects: u64,
}

/// Every other place, the first among them.
const EVEN: u64 = 0x5555_5555_5555_5555;

/// Nothing is open.
const OUTERMOST: u64 = 1;

#[allow(clippy::inline_always, reason = "as above; each call that stays costs the registers")]
impl<'a, M: Machine> Grammar<'a, M> {
    fn new(body: &'a str, limits: Limits, machine: M) -> Option<Self> {
        let is_object = body.starts_with('{') && body.ends_with('}');
        // Marks are kept in 32 bits.
        (is_object && u32::try_from(body.len()).is_ok()).then(|| Self {
            machine,
            text: body.as_bytes(),
            max_depth: limits.max_depth.min(MAX_DEPTH),
            base: 0,
            in_string: 0,
            is_escaping: 0,
            in_key: 0,
            in_scalar: 0,
            next: Next { value: 1, ..Next::default() },
            open: OUTERMOST,
            wrong: 0,
        })
    }

    /// `None`: the message is not looked at any further.
    #[inline(always)]
    fn block(&mut self, block: &[u8; BLOCK], marks: &mut Marks) -> Option<()> {
        let tokens = self.tokens(self.machine.masks(block));
        let brackets = self.brackets(block, &tokens, marks)?;
        if tokens.scalar_starts != 0 {
            self.scalars(block, &tokens);
        }
        // Most JSON on the wire has no white space, and without it this is half as much.
        if tokens.white == 0 {
            self.order(&tokens, &brackets, 0);
        } else {
            self.order(&tokens, &brackets, tokens.white);
        }
        self.in_scalar = tokens.scalars >> 63;
        self.base += BLOCK;
        Some(())
    }

    /// Whether it was one whole object.
    #[inline(always)]
    fn holds(&self) -> bool {
        self.wrong == 0 && self.open == OUTERMOST
    }

    #[inline(always)]
    fn tokens(&mut self, masks: Masks) -> Tokens {
        let Masks { quotes, backslashes, controls, spaces, brackets, colons, commas } = masks;
        let quotes = quotes & !self.escaped(backslashes);
        let inside = self.machine.prefix_xor(quotes) ^ self.in_string;
        self.in_string = (inside.cast_signed() >> 63).cast_unsigned();
        if controls != 0 {
            self.wrong |= wrong_controls(self.text, self.base, controls, inside);
        }
        let outside = !inside;
        let string_ends = quotes & outside;
        let white = (spaces | controls) & outside;
        let (brackets, colons, commas) = (brackets & outside, colons & outside, commas & outside);
        let scalars = outside & !(string_ends | white | brackets | colons | commas);
        Tokens {
            white,
            strings: quotes & inside,
            inside,
            string_ends,
            scalars,
            scalar_starts: scalars & !(scalars << 1 | self.in_scalar),
            brackets,
            colons,
            commas,
        }
    }

    /// The bytes behind a backslash that escapes them. What such an escape is gets checked.
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
        let escaped = (EVEN ^ even_runs << 1) & behind;
        self.wrong |= wrong_escapes(self.text, self.base, escaped);
        escaped
    }

    /// Opens and closes what the block's brackets do, and marks what stands in the message's own
    /// object. `None`: too deep, too many fields, or something behind the end.
    #[inline(always)]
    fn brackets(&mut self, block: &[u8; BLOCK], tokens: &Tokens, marks: &mut Marks) -> Option<Brackets> {
        let before = self.open;
        let (mut closing, mut flips, mut top_flips) = (0, 0, 0);
        let mut rest = tokens.brackets;
        while rest != 0 {
            let bit = rest & rest.wrapping_neg();
            let place = rest.trailing_zeros() as usize % BLOCK;
            // The four brackets differ in these bits.
            let is_object = u64::from(block[place] >> 5 & 1);
            let closes = block[place] & 4 != 0;
            let outer = if closes { self.open >> 1 } else { self.open };
            let inner = outer << 1 | is_object;
            self.wrong |= if closes { inner ^ self.open } else { 0 };
            closing |= if closes { bit } else { 0 };
            let open = if closes { outer } else { inner };
            flips |= bit & ((open ^ self.open) & 1).wrapping_neg();
            self.open = open;
            if outer < OUTERMOST << 2 {
                top_flips |= bit;
                // The message's end.
                if open == OUTERMOST && self.base + place + 1 != self.text.len() {
                    return None;
                }
            }
            rest &= rest - 1;
        }
        self.check_depth(before, tokens.brackets, closing)?;
        self.mark(before, top_flips, tokens, marks)?;
        let in_objects = self.machine.prefix_xor(flips) ^ (before & 1).wrapping_neg();
        Some(Brackets { closing, in_objects })
    }

    /// `None`: more is open at once than may be. `before` is never 0: the bit that stands above all levels
    /// is pushed out only by more of them than pass here, and nothing is closed behind the message's end.
    #[inline(always)]
    fn check_depth(&self, before: u64, brackets: u64, closing: u64) -> Option<()> {
        let opening = brackets & !closing;
        let at_most = before.ilog2() + opening.count_ones();
        (at_most <= self.max_depth || deepest(before.ilog2(), brackets, closing) <= self.max_depth)
            .then_some(())
    }

    /// Marks colons and commas of the message's own object, and its end.
    #[inline(always)]
    fn mark(&self, before: u64, top_flips: u64, tokens: &Tokens, marks: &mut Marks) -> Option<()> {
        let was_top = before >> 1 == OUTERMOST;
        if !was_top && top_flips == 0 {
            return Some(());
        }
        let top = self.machine.prefix_xor(top_flips) ^ u64::from(was_top).wrapping_neg();
        let mut rest = (tokens.colons | tokens.commas) & top;
        while rest != 0 {
            marks.push(self.base + rest.trailing_zeros() as usize)?;
            rest &= rest - 1;
        }
        if self.open == OUTERMOST { marks.push(self.text.len() - 1) } else { Some(()) }
    }

    /// Numbers and literals. A single digit is right as it is, which spares most of them.
    #[inline(always)]
    fn scalars(&mut self, block: &[u8; BLOCK], tokens: &Tokens) {
        let digits = self.machine.digits(block);
        let goes_on = tokens.scalars >> 1 | 1 << 63;
        let mut long = tokens.scalar_starts & (goes_on | !digits);
        while long != 0 {
            let place = long.trailing_zeros();
            let end = scalar::end(block, place, digits).filter(|end| *end < u64::BITS);
            let is_valid = match end {
                Some(end) => tokens.scalars >> end & 1 == 0,
                None => self.text.get(self.base + place as usize..).is_some_and(scalar::is_scalar),
            };
            self.wrong |= u64::from(!is_valid);
            long &= long - 1;
        }
    }

    /// Holds each token against the one before it.
    #[inline(always)]
    fn order(&mut self, tokens: &Tokens, brackets: &Brackets, white: u64) {
        let Tokens { strings, inside, string_ends, scalars, scalar_starts, colons, commas, .. } = *tokens;
        let Brackets { closing, in_objects } = *brackets;
        let Next { key, value, no_end, colon, comma } = &mut self.next;
        let opening = tokens.brackets & !closing;
        let first = opening | commas;

        let at_key = behind(first & in_objects, 0, white, key);
        let at_value = behind(first & !in_objects | colons, 0, white, value);
        let at_no_end = behind(commas | colons, 0, white, no_end);

        // Adding a string's first bit to its bits carries to its closing quote.
        let (carried, in_key) = inside.overflowing_add(strings & at_key | self.in_key);
        self.in_key = u64::from(in_key);
        let key_ends = carried & string_ends;
        let at_colon = behind(key_ends, 0, white, colon);

        let behind_scalars = (scalars << 1 | self.in_scalar) & !scalars;
        let at_comma = behind(string_ends & !key_ends | closing, behind_scalars, white, comma);

        let values = strings | scalar_starts | opening;
        self.wrong |= at_key & !(strings | closing)
            | at_value & !(values | closing)
            | at_no_end & closing
            | at_colon & !colons
            | at_comma & !(commas | closing);
    }
}

/// Not 0: one of these bytes is no escape.
#[allow(clippy::inline_always, reason = "as above")]
#[inline(always)]
fn wrong_escapes(text: &[u8], base: usize, mut escaped: u64) -> u64 {
    let mut wrong = 0;
    while escaped != 0 {
        let is_valid = match text.get(base + escaped.trailing_zeros() as usize..) {
            Some([b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..]) => true,
            Some([b'u', a, b, c, d, ..]) => [a, b, c, d].into_iter().all(u8::is_ascii_hexdigit),
            _ => false,
        };
        wrong |= u64::from(!is_valid);
        escaped &= escaped - 1;
    }
    wrong
}

/// Not 0: one of these control characters stands in a string, or is no white space.
#[cold]
fn wrong_controls(text: &[u8], base: usize, controls: u64, inside: u64) -> u64 {
    let mut wrong = controls & inside;
    let mut outside = controls & !inside;
    while outside != 0 {
        let byte = text.get(base + outside.trailing_zeros() as usize);
        wrong |= u64::from(!matches!(byte, Some(b'\t' | b'\n' | b'\r')));
        outside &= outside - 1;
    }
    wrong
}

/// The places of the tokens that come next behind these last bytes, or at these places, or at the
/// block's first byte (`next`), beyond white space. `next` becomes what holds for the next block.
///
/// ```text
/// text      [  7,   [ 8
/// last      1.......1..    the brackets that open
/// answer    ...1......1    what comes next behind each
/// ```
#[allow(clippy::inline_always, reason = "as above")]
#[inline(always)]
fn behind(last: u64, places: u64, white: u64, next: &mut u64) -> u64 {
    let places = last << 1 | places | *next;
    // Adding the first bit of a run of white space carries to what stands behind it.
    let (carried, beyond) = white.overflowing_add(places & white);
    *next = last >> 63 | u64::from(beyond);
    (places | carried) & !white
}

/// How much is open at once, at most.
#[cold]
fn deepest(before: u32, brackets: u64, closing: u64) -> u32 {
    let (mut depth, mut deepest, mut rest) = (before, before, brackets);
    while rest != 0 {
        let bit = rest & rest.wrapping_neg();
        depth = if closing & bit == 0 { depth + 1 } else { depth.saturating_sub(1) };
        deepest = deepest.max(depth);
        rest &= rest - 1;
    }
    deepest
}

#[cfg(test)]
pub(super) mod tests;
