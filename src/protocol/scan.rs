//! One pass over a message: is it one JSON object (RFC 8259, all of it checked), does it keep the
//! rules for the keys that are the gateway's, and where do they stand?
//!
//! This is the largest cost in the broker. `Scanner` goes from token to token with one bit for each
//! open bracket, never recursing. What is dear in that is to find where strings end: their lengths
//! can't be predicted. So `Strings` looks at 64 bytes at once and keeps one bit for each byte that a
//! string can't simply hold; finding the next one is then a shift and a count. `specials` makes
//! those bits: the one place for instructions of a given machine, of which it uses none so far (its
//! loop is written so that the compiler makes vector code of it).
//!
//! Nothing is decoded, copied or allocated, except for one bit a level beyond 64 levels of nesting.
//! The text must be UTF-8 already, and its size is bounded elsewhere.

use std::fmt;

use super::envelope::{Envelope, JsonString};

/// The most bytes that `n` may have: decoded where it is a string, digits where it is an integer.
pub const MAX_NONCE_BYTES: usize = 64;

/// What a message may have at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Levels of nesting; the message's own object is the first.
    pub max_depth: u32,
}

/// Why a message is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("expected {expected} at byte {at}, found {found}")]
    Unexpected { expected: &'static str, found: Found, at: usize },
    #[error("expected an escape instead of the control character at byte {at}, found {found}")]
    ControlCharacter { found: Found, at: usize },
    #[error(r#"expected one of \" \\ \/ \b \f \n \r \t \uXXXX at byte {at}, found another escape"#)]
    Escape { at: usize },
    #[error("expected at most {max_depth} levels of nesting (`max_depth`), found one more at byte {at}")]
    TooDeep { max_depth: u32, at: usize },
    #[error("expected `{0}` in the message's object, found none")]
    Missing(char),
    #[error("expected `{0}` once in the message's object, found it twice")]
    Twice(char),
    #[error("expected `{0}` to be a string, found something else")]
    NotAString(char),
    #[error(
        "expected `n` to be a string of at most {MAX_NONCE_BYTES} bytes or an integer of at most {MAX_NONCE_BYTES} digits, found something else"
    )]
    Nonce,
    #[error("expected no `i`, which only the gateway writes, found one")]
    DeliveryNumber,
}

/// What stands where something else was expected: a character, or the end of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found(Option<char>);

impl fmt::Display for Found {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some('`') => formatter.write_str("a backtick"),
            Some('"') => formatter.write_str("`\"`"),
            Some(character) => write!(formatter, "`{}`", character.escape_debug()),
            None => formatter.write_str("the end of the message"),
        }
    }
}

/// Checks a message and finds its parts.
pub fn scan(text: &str, limits: Limits) -> Result<Envelope<'_>, Malformed> {
    Scanner {
        text,
        bytes: text.as_bytes(),
        at: 0,
        strings: Strings::default(),
        nesting: Nesting::new(limits.max_depth),
    }
    .message()
}

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    /// What has been looked at: all before this.
    at: usize,
    strings: Strings,
    nesting: Nesting,
}

// Each call that is not inlined would keep the scanner in memory, which costs an eighth.
#[allow(clippy::inline_always, reason = "measured")]
impl<'a> Scanner<'a> {
    fn message(mut self) -> Result<Envelope<'a>, Malformed> {
        let mut fields = Fields::default();
        self.expect(b'{', "an object")?;
        self.nesting.push(OBJECT, 0)?;
        if !self.take(b'}') {
            loop {
                self.field(&mut fields)?;
                if self.take(b'}') {
                    break;
                }
                self.expect(b',', "`,` or `}`")?;
            }
        }
        self.token();
        if self.at < self.bytes.len() {
            return Err(self.unexpected("the end of the message"));
        }
        fields.envelope(self.text)
    }

    /// One key and value of the message's object.
    #[inline(always)]
    fn field(&mut self, fields: &mut Fields<'a>) -> Result<(), Malformed> {
        self.expect(b'"', "a key in quotes")?;
        let start = self.at;
        self.string()?;
        let key = &self.text[start..self.at - 1];
        self.expect(b':', "`:`")?;
        self.token();
        let start = self.at;
        self.value()?;
        fields.add(key, &self.text[start..self.at], start)
    }

    /// A value and all that is in it.
    #[inline(always)]
    fn value(&mut self) -> Result<(), Malformed> {
        let floor = self.nesting.depth;
        loop {
            match self.byte() {
                b' ' | b'\n' | b'\r' | b'\t' => {
                    self.after_white_space();
                    continue;
                }
                b'"' => {
                    self.at += 1;
                    self.string()?;
                }
                b'{' => {
                    self.nesting.push(OBJECT, self.at)?;
                    self.at += 1;
                    if !self.take(b'}') {
                        self.key()?;
                        continue;
                    }
                    self.nesting.pop();
                }
                b'[' => {
                    self.nesting.push(ARRAY, self.at)?;
                    self.at += 1;
                    if !self.take(b']') {
                        continue;
                    }
                    self.nesting.pop();
                }
                b'-' | b'0'..=b'9' => self.number()?,
                b't' => self.literal(b"true")?,
                b'f' => self.literal(b"false")?,
                b'n' => self.literal(b"null")?,
                _ => return Err(self.unexpected("a value")),
            }
            if self.after_value(floor)? {
                return Ok(());
            }
        }
    }

    /// Closes what ends after a value, then goes on to the next one. True: nothing is open above
    /// the floor any more.
    #[inline(always)]
    fn after_value(&mut self, floor: u32) -> Result<bool, Malformed> {
        while self.nesting.depth != floor {
            let in_object = self.nesting.in_object();
            if self.take(b',') {
                if in_object {
                    self.key()?;
                }
                return Ok(false);
            }
            if in_object {
                self.expect(b'}', "`,` or `}`")?;
            } else {
                self.expect(b']', "`,` or `]`")?;
            }
            self.nesting.pop();
        }
        Ok(true)
    }

    /// A key and its colon.
    #[inline(always)]
    fn key(&mut self) -> Result<(), Malformed> {
        self.expect(b'"', "a key in quotes")?;
        self.string()?;
        self.expect(b':', "`:`")
    }

    /// The rest of a string whose opening quote has been read.
    #[inline(always)]
    fn string(&mut self) -> Result<(), Malformed> {
        loop {
            self.at = self.strings.next_special(self.bytes, self.at);
            match self.byte() {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => self.escape()?,
                _ => return Err(self.bad_string()),
            }
        }
    }

    #[inline(always)]
    fn escape(&mut self) -> Result<(), Malformed> {
        let escape = &self.bytes[self.at..];
        self.at += match escape.get(1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(b'u') if is_hex(escape.get(2..6)) => 6,
            _ => return Err(Malformed::Escape { at: self.at }),
        };
        Ok(())
    }

    #[inline(always)]
    fn literal(&mut self, literal: &'static [u8]) -> Result<(), Malformed> {
        if !self.bytes[self.at..].starts_with(literal) {
            return Err(self.unexpected("a value"));
        }
        self.at += literal.len();
        Ok(())
    }

    #[inline(always)]
    fn number(&mut self) -> Result<(), Malformed> {
        self.at += usize::from(self.byte() == b'-');
        if self.byte() == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.byte() == b'.' {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), b'e' | b'E') {
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), b'+' | b'-'));
            self.digits()?;
        }
        Ok(())
    }

    /// At least one digit.
    #[inline(always)]
    fn digits(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        while self.byte().is_ascii_digit() {
            self.at += 1;
        }
        if self.at == start { Err(self.unexpected("a digit")) } else { Ok(()) }
    }

    /// The next byte that is not white space, which is not yet taken. [`END`] at the end.
    #[inline(always)]
    fn token(&mut self) -> u8 {
        let byte = self.byte();
        if byte <= b' ' { self.after_white_space() } else { byte }
    }

    /// Out of the way: most JSON on the wire has no white space.
    #[inline(always)]
    fn after_white_space(&mut self) -> u8 {
        while matches!(self.byte(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
        self.byte()
    }

    /// Whether the next token is this one, which is then taken.
    #[inline(always)]
    fn take(&mut self, byte: u8) -> bool {
        let taken = self.byte() == byte || self.token() == byte;
        self.at += usize::from(taken);
        taken
    }

    #[inline(always)]
    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), Malformed> {
        if self.take(byte) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    /// The next byte, [`END`] at the end.
    #[inline(always)]
    fn byte(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(END)
    }

    fn unexpected(&self, expected: &'static str) -> Malformed {
        unexpected(self.text, self.at, expected)
    }

    fn bad_string(&self) -> Malformed {
        bad_string(self.text, self.at)
    }
}

/// Stands for the byte beyond the last. As a byte of the text it is allowed nowhere either.
const END: u8 = 0;

// The errors take no `&Scanner`, so that it can live in registers.

#[cold]
fn unexpected(text: &str, at: usize, expected: &'static str) -> Malformed {
    Malformed::Unexpected { expected, found: found(text, at), at }
}

/// What ends a string without being its quote.
#[cold]
fn bad_string(text: &str, at: usize) -> Malformed {
    match found(text, at) {
        Found(None) => unexpected(text, at, "a closing quote"),
        found => Malformed::ControlCharacter { found, at },
    }
}

fn is_hex(digits: Option<&[u8]>) -> bool {
    digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

fn found(text: &str, at: usize) -> Found {
    Found(text.get(at..).and_then(|rest| rest.chars().next()))
}

/// The keys of the message's object that are the gateway's.
#[derive(Debug, Default)]
struct Fields<'a> {
    source: Option<&'a str>,
    topic: Option<&'a str>,
    topic_at: usize,
    data: Option<&'a str>,
    nonce: Option<&'a str>,
}

impl<'a> Fields<'a> {
    /// `key` is raw, without its quotes; `value` is raw and stands at `at` in the message.
    #[inline]
    fn add(&mut self, key: &str, value: &'a str, at: usize) -> Result<(), Malformed> {
        let key = match key.as_bytes() {
            [byte] => *byte,
            [b'\\', b'u', b'0', b'0', hex @ ..] => escaped_letter(hex),
            _ => return Ok(()),
        };
        let slot = match key {
            b's' => &mut self.source,
            b't' => {
                self.topic_at = at + 1;
                &mut self.topic
            }
            b'd' => &mut self.data,
            b'n' => &mut self.nonce,
            b'i' => return Err(Malformed::DeliveryNumber),
            _ => return Ok(()),
        };
        if slot.replace(value).is_some() {
            return Err(Malformed::Twice(char::from(key)));
        }
        Ok(())
    }

    fn envelope(self, text: &'a str) -> Result<Envelope<'a>, Malformed> {
        if !self.nonce.is_none_or(is_nonce) {
            return Err(Malformed::Nonce);
        }
        Ok(Envelope {
            text,
            source: string('s', self.source)?,
            topic: string('t', self.topic)?,
            topic_at: self.topic_at,
            data: self.data,
            nonce: self.nonce,
        })
    }
}

/// The character that `\u00` and these two hex digits stand for; nothing of interest if there
/// are more or fewer.
#[cold]
fn escaped_letter(hex: &[u8]) -> u8 {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match hex {
        [high, low] => digit(*high).zip(digit(*low)).map_or(END, |(high, low)| high << 4 | low),
        _ => END,
    }
}

fn string(key: char, value: Option<&str>) -> Result<JsonString<'_>, Malformed> {
    let value = value.ok_or(Malformed::Missing(key))?;
    unquote(value).map(JsonString::new).ok_or(Malformed::NotAString(key))
}

/// What is between the quotes of a valid JSON value, if it is a string.
fn unquote(value: &str) -> Option<&str> {
    value.strip_prefix('"')?.strip_suffix('"')
}

fn is_nonce(value: &str) -> bool {
    if let Some(raw) = unquote(value) {
        return JsonString::new(raw).decoded_len() <= MAX_NONCE_BYTES;
    }
    let digits = value.strip_prefix('-').unwrap_or(value);
    digits.len() <= MAX_NONCE_BYTES && digits.bytes().all(|byte| byte.is_ascii_digit())
}

const OBJECT: u64 = 1;
const ARRAY: u64 = 0;

/// What is open: one bit a level, the innermost lowest. The first 64 levels need no memory.
struct Nesting {
    depth: u32,
    max_depth: u32,
    innermost: u64,
    outer: Vec<u64>,
}

impl Nesting {
    fn new(max_depth: u32) -> Self {
        Self { depth: 0, max_depth, innermost: 0, outer: Vec::new() }
    }

    #[inline]
    fn push(&mut self, kind: u64, at: usize) -> Result<(), Malformed> {
        if self.depth >= self.max_depth {
            return Err(Malformed::TooDeep { max_depth: self.max_depth, at });
        }
        if self.depth.is_multiple_of(u64::BITS) {
            self.spill();
        }
        self.innermost = self.innermost << 1 | kind;
        self.depth += 1;
        Ok(())
    }

    #[inline]
    fn pop(&mut self) {
        self.innermost >>= 1;
        self.depth -= 1;
        if self.depth.is_multiple_of(u64::BITS) {
            self.innermost = self.outer.pop().unwrap_or(0);
        }
    }

    /// Makes room for 64 levels more.
    #[cold]
    fn spill(&mut self) {
        if self.depth > 0 {
            self.outer.push(self.innermost);
        }
    }

    #[inline]
    fn in_object(&self) -> bool {
        self.innermost & 1 == OBJECT
    }
}

/// How many bytes are looked at together: one for each bit of a mask.
const BLOCK: usize = 64;

/// Where the bytes are that a string can't simply hold: quotes, backslashes, control characters.
#[derive(Debug, Default)]
struct Strings {
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
    fn next_special(&mut self, bytes: &[u8], at: usize) -> usize {
        if at < self.end {
            let rest = self.specials >> ((at - self.block) % BLOCK);
            if rest != 0 {
                return at + rest.trailing_zeros() as usize;
            }
        }
        self.next_block(bytes, at.max(self.end))
    }

    #[inline]
    fn next_block(&mut self, bytes: &[u8], mut at: usize) -> usize {
        loop {
            self.specials = specials_at(bytes, at);
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
fn specials_at(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at..).unwrap_or_default();
    if let Some(block) = rest.first_chunk() {
        return specials(block);
    }
    let mut block = [END; BLOCK];
    block[..rest.len()].copy_from_slice(rest);
    specials(&block)
}

/// One bit for each byte of the block, the first lowest: set for quotes, backslashes, and all
/// below 0x20.
#[inline]
fn specials(block: &[u8; BLOCK]) -> u64 {
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

#[cfg(test)]
mod oracle;
#[cfg(test)]
pub(super) mod random;
#[cfg(test)]
mod tests;
