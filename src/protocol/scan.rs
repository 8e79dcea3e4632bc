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

/// Random JSON, and what `serde_json` says of a message.
#[cfg(test)]
pub(super) mod testing {
    use std::fmt;

    use proptest::test_runner::{Config, RngSeed};
    use serde::Deserialize;
    use serde::de::{Deserializer, MapAccess, Visitor};
    use serde_json::value::RawValue;

    /// The same cases in every run.
    pub(crate) fn config(cases: u32) -> Config {
        Config { cases, rng_seed: RngSeed::Fixed(8259), failure_persistence: None, ..Config::default() }
    }

    /// What decides in a generator. Runs into zeros, so that shorter means simpler.
    pub(crate) struct Choices<'a>(pub(crate) &'a [u8]);

    impl Choices<'_> {
        pub(crate) fn below(&mut self, bound: usize) -> usize {
            let Some((first, rest)) = self.0.split_first() else { return 0 };
            self.0 = rest;
            usize::from(*first) % bound
        }
    }

    pub(crate) fn white_space(choices: &mut Choices<'_>) -> &'static str {
        let long = "                                                                      ";
        ["", "", "", "", " ", "\n\t", "\r\n", long][choices.below(8)]
    }

    /// Appends a value of at most that many levels.
    pub(crate) fn json(choices: &mut Choices<'_>, levels: usize, out: &mut String) {
        match choices.below(if levels == 0 { 6 } else { 12 }) {
            0 => out.push_str(["null", "true", "false", "0", "-0"][choices.below(5)]),
            1..=2 => number(choices, out),
            3..=5 => string(choices, out),
            6..=8 => several(choices, "[", "]", out, |choices, out| json(choices, levels - 1, out)),
            _ => several(choices, "{", "}", out, |choices, out| {
                string(choices, out);
                out.push_str(white_space(choices));
                out.push(':');
                out.push_str(white_space(choices));
                json(choices, levels - 1, out);
            }),
        }
    }

    fn several(
        choices: &mut Choices<'_>,
        open: &str,
        close: &str,
        out: &mut String,
        mut item: impl FnMut(&mut Choices<'_>, &mut String),
    ) {
        out.push_str(open);
        for index in 0..choices.below(5) {
            out.push_str(if index == 0 { "" } else { "," });
            out.push_str(white_space(choices));
            item(choices, out);
            out.push_str(white_space(choices));
        }
        out.push_str(close);
    }

    fn number(choices: &mut Choices<'_>, out: &mut String) {
        out.push_str(["", "-"][choices.below(2)]);
        out.push_str(
            ["0", "7", "10", "999999999999999999", "123456789012345678901234567890"][choices.below(5)],
        );
        out.push_str(["", "", ".0", ".25", ".00000000000000000000001"][choices.below(5)]);
        out.push_str(["", "", "", "e0", "E+17", "e-9", "e99999"][choices.below(7)]);
    }

    fn string(choices: &mut Choices<'_>, out: &mut String) {
        let long = "the quick brown fox jumps over the lazy dog, and it does so again: {[]}";
        out.push('"');
        for _ in 0..choices.below(6) {
            out.push_str(
                [
                    "a",
                    "s",
                    "t",
                    "é",
                    "漢字",
                    "😀",
                    "\u{7f}",
                    "\u{2028}",
                    r#"\""#,
                    r"\\",
                    r"\/",
                    r"\b\f\n\r\t",
                    r"\u0073",
                    r"\u00E9",
                    r"\ud83d\ude00",
                    r"\ud83d",
                    r"\udE00",
                    long,
                    "{",
                    ":",
                ][choices.below(20)],
            );
        }
        out.push('"');
    }

    /// Whether a message is well formed, by `serde_json` and the rules of PROTOCOL.md, section 1.
    pub(crate) fn oracle(text: &str, max_depth: u32) -> bool {
        serde_json::from_str::<Fields<'_>>(text).is_ok_and(|fields| fields.keep_the_rules())
            && depth(text) <= max_depth
    }

    /// The deepest level of valid JSON.
    fn depth(text: &str) -> u32 {
        let (mut depth, mut deepest, mut in_string, mut escaped) = (0, 0, false, false);
        for byte in text.bytes() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = !in_string,
                b'{' | b'[' if !in_string => depth += 1,
                b'}' | b']' if !in_string => depth -= 1,
                _ => {}
            }
            deepest = deepest.max(depth);
        }
        deepest
    }

    /// The message's object as raw JSON. Raw, `serde_json` checks a string's grammar and lets lone
    /// surrogates pass.
    struct Fields<'a>(Vec<(&'a RawValue, &'a RawValue)>);

    impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Object;
            impl<'de> Visitor<'de> for Object {
                type Value = Fields<'de>;

                fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                    formatter.write_str("an object")
                }

                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                    let mut fields = Vec::new();
                    while let Some(field) = map.next_entry()? {
                        fields.push(field);
                    }
                    Ok(Fields(fields))
                }
            }
            deserializer.deserialize_map(Object)
        }
    }

    impl Fields<'_> {
        fn keep_the_rules(&self) -> bool {
            let all = |wanted: &str| -> Vec<&str> {
                // A key with a lone surrogate doesn't decode, and is none of the gateway's.
                let is = |key: &str| serde_json::from_str::<String>(key).is_ok_and(|key| key == wanted);
                self.0.iter().filter(|(key, _)| is(key.get())).map(|(_, value)| value.get()).collect()
            };
            let is_string = |values: &[&str]| values.len() == 1 && values[0].starts_with('"');
            let nonces = all("n");
            is_string(&all("s"))
                && is_string(&all("t"))
                && all("d").len() <= 1
                && all("i").is_empty()
                && nonces.len() <= 1
                && nonces.iter().all(|nonce| is_nonce(nonce))
        }
    }

    fn is_nonce(value: &str) -> bool {
        if value.starts_with('"') {
            return serde_json::from_str::<DecodedLen>(value).unwrap().0 <= 64;
        }
        let digits = value.trim_start_matches('-');
        digits.len() <= 64 && digits.chars().all(|digit| digit.is_ascii_digit())
    }

    /// As bytes, `serde_json` decodes a lone surrogate to three, as many as U+FFFD has.
    struct DecodedLen(usize);

    impl<'de> Deserialize<'de> for DecodedLen {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Bytes;
            impl Visitor<'_> for Bytes {
                type Value = DecodedLen;

                fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                    formatter.write_str("a string")
                }

                fn visit_bytes<E>(self, bytes: &[u8]) -> Result<DecodedLen, E> {
                    Ok(DecodedLen(bytes.len()))
                }
            }
            deserializer.deserialize_bytes(Bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::testing::{Choices, config, json, oracle, white_space};
    use super::*;

    const LIMITS: Limits = Limits { max_depth: 128 };

    fn error(text: &str) -> Malformed {
        scan(text, LIMITS).expect_err(text)
    }

    #[test]
    fn the_parts_of_a_message_are_found() {
        let text = r#" { "x":[1] , "s" : "a" ,"t":"heartbeat:a", "d" : {"s":1,"s":2} , "n" : "7" } "#;
        let envelope = scan(text, LIMITS).unwrap();
        assert_eq!(envelope.text(), text);
        assert_eq!(envelope.source().raw(), "a");
        assert_eq!(envelope.topic().raw(), "heartbeat:a");
        assert_eq!(envelope.data(), r#"{"s":1,"s":2}"#);
        assert_eq!(envelope.nonce(), Some(r#""7""#));
    }

    #[test]
    fn absent_data_reads_as_null() {
        let envelope = scan(r#"{"t":"","s":""}"#, LIMITS).unwrap();
        assert_eq!((envelope.data(), envelope.nonce()), ("null", None));
    }

    #[test]
    fn source_and_topic_must_be_there_as_strings() {
        assert_eq!(error("{}"), Malformed::Missing('s'));
        assert_eq!(error(r#"{"s":"a"}"#), Malformed::Missing('t'));
        assert_eq!(error(r#"{"t":"a"}"#), Malformed::Missing('s'));
        for value in ["1", "null", "true", "{}", "[]"] {
            assert_eq!(error(&format!(r#"{{"s":{value},"t":"a"}}"#)), Malformed::NotAString('s'));
            assert_eq!(error(&format!(r#"{{"s":"a","t":{value}}}"#)), Malformed::NotAString('t'));
        }
    }

    #[test]
    fn a_key_of_the_gateways_stands_at_most_once_in_any_spelling() {
        for (key, escaped, value) in [
            ('s', r"\u0073", r#""a""#),
            ('t', r"\u0074", r#""a""#),
            ('d', r"\u0064", "1"),
            ('n', r"\u006e", "1"),
            ('n', r"\u006E", "1"),
        ] {
            let others = match key {
                's' => r#""t":"a","#,
                't' => r#""s":"a","#,
                _ => r#""s":"a","t":"a","#,
            };
            assert!(scan(&format!(r#"{{{others}"{escaped}":{value}}}"#), LIMITS).is_ok());
            for twice in [
                format!(r#"{{{others}"{key}":{value},"{key}":{value}}}"#),
                format!(r#"{{{others}"{key}":{value},"{escaped}":{value}}}"#),
                format!(r#"{{{others}"{escaped}":{value},"x":0,"{key}":{value}}}"#),
            ] {
                assert_eq!(error(&twice), Malformed::Twice(key), "{twice}");
            }
        }
    }

    #[test]
    fn a_delivery_number_is_the_gateways_to_write() {
        for key in ["i", r"\u0069"] {
            assert_eq!(error(&format!(r#"{{"s":"a","t":"b","{key}":1}}"#)), Malformed::DeliveryNumber);
        }
    }

    #[test]
    fn other_keys_pass_also_twice() {
        for key in ["", "x", "ss", "S", "ſ", r"\n", r"\u0173", r"\u00731", r"\ud800", r"\u0053"] {
            let text = format!(r#"{{"{key}":1,"s":"a","t":"b","{key}":[]}}"#);
            assert!(scan(&text, LIMITS).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_nonce_is_a_short_string_or_an_integer() {
        let with = |nonce: &str| scan(&format!(r#"{{"s":"a","t":"b","n":{nonce}}}"#), LIMITS).map(drop);
        let nines = "9".repeat(64);
        let spelt = r"\u0061".repeat(64);
        let lone = r"\ud800".repeat(21);
        for good in [
            "0",
            "-0",
            "7",
            &nines,
            &format!("-{nines}"),
            r#""""#,
            &format!(r#""{nines}""#),
            &format!(r#""{spelt}""#),
            &format!(r#""{lone}a""#),
        ] {
            assert_eq!(with(good), Ok(()), "{good}");
        }
        for bad in [
            "null",
            "true",
            "[]",
            "{}",
            "1.0",
            "1e3",
            "1E3",
            &format!("{nines}9"),
            &format!("-{nines}9"),
            &format!(r#""{nines}9""#),
            &format!(r#""{spelt}a""#),
            &format!(r#""{lone}ab""#),
            &format!(r#""{}""#, "é".repeat(33)),
        ] {
            assert_eq!(with(bad), Err(Malformed::Nonce), "{bad}");
        }
    }

    #[test]
    fn data_is_checked_to_the_last_byte() {
        for bad in [
            "01",
            "-",
            "+1",
            ".5",
            "1.",
            "1.e1",
            "1e",
            "1e+",
            "0x1",
            "1_0",
            "--1",
            "NaN",
            "tru",
            "truee",
            "True",
            "nul",
            "nullx",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[1",
            "[1}",
            "{",
            "{]",
            "{1:2}",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{"a" 1}"#,
            r#"{"a":1 "b":2}"#,
            "{a:1}",
            "'a'",
            r#""a"#,
            r#""a""b""#,
            r#""\x""#,
            r#""\u12""#,
            r#""\u123g""#,
            r#""\"#,
            r#""\u"#,
            r#"1"a""#,
            r#"\"a""#,
            "\u{b}1",
            "\u{feff}1",
            "1\u{a0}",
            "/**/1",
            "\0",
            "1\0",
        ] {
            for text in
                [format!(r#"{{"s":"a","t":"b","d":{bad}}}"#), format!(r#"{{"s":"a","t":"b","x":[{bad},0]}}"#)]
            {
                assert!(!oracle(&text, 128), "{text}");
                error(&text);
            }
        }
    }

    #[test]
    fn control_characters_stand_in_no_string() {
        for control in 0..0x20_u8 {
            for before in [0, 1, 15, 16, 63, 64, 200] {
                let text =
                    format!(r#"{{"s":"a","t":"b","d":"{}{}"}}"#, "x".repeat(before), char::from(control));
                let error = error(&text);
                assert!(matches!(error, Malformed::ControlCharacter { .. }), "{text:?}: {error}");
            }
        }
        assert!(scan("{\"s\":\"\u{7f}\u{80}\",\"t\":\"\"}", LIMITS).is_ok());
    }

    #[test]
    fn a_message_is_exactly_one_object() {
        for bad in [
            "",
            " ",
            "null",
            "[]",
            r#""s""#,
            r#"[{"s":"a","t":"b"}]"#,
            r#"{"s":"a","t":"b"}}"#,
            r#"{"s":"a","t":"b"},"#,
            r#"{"s":"a","t":"b"}{}"#,
            "{\"s\":\"a\",\"t\":\"b\"}\0",
            r#"{"s":"a","t":"b""#,
            r#"{"s":"a","t":"b",}"#,
            "\u{feff}{\"s\":\"a\",\"t\":\"b\"}",
        ] {
            error(bad);
        }
        assert!(scan("\r\n\t {\"s\":\"a\",\"t\":\"b\"} \t\r\n", LIMITS).is_ok());
    }

    #[test]
    fn every_cut_off_message_is_malformed() {
        let text = r#"{"s":"a","t":"gateway-proxy:b:c","d":[{"x":[1.5e3,true,"\u00e9\n é"]},{}],"n":12}"#;
        assert!(scan(text, LIMITS).is_ok());
        for (end, _) in text.char_indices() {
            error(&text[..end]);
        }
    }

    #[test]
    fn nesting_is_counted_from_the_messages_own_object() {
        for depth in [1, 2, 3, 63, 64, 65, 66, 127, 128, 129, 193, 1000, 200_000] {
            for (open, close) in [("[", "]"), (r#"{"a":"#, "}"), (r#"[{"b":"#, "}]")] {
                let levels = (depth - 1) / open.matches(['{', '[']).count();
                let innermost = if open == "[" { "" } else { "0" };
                let d = format!("{}{innermost}{}", open.repeat(levels), close.repeat(levels));
                let d = if d.is_empty() { "0" } else { &d };
                let text = format!(r#"{{"s":"a","t":"b","d":{d}}}"#);
                let used = u32::try_from(1 + levels * open.matches(['{', '[']).count()).unwrap();
                assert_eq!(scan(&text, Limits { max_depth: used }).unwrap().data(), d);
                let error = scan(&text, Limits { max_depth: used - 1 }).unwrap_err();
                assert!(matches!(error, Malformed::TooDeep { .. }), "{depth} {open}: {error}");
            }
        }
    }

    #[test]
    fn brackets_that_do_not_match_are_malformed_at_every_depth() {
        for depth in [1, 62, 63, 64, 65, 127, 128, 129] {
            for wrong in 0..depth {
                let closing: String = (0..depth).map(|at| if at == wrong { '}' } else { ']' }).collect();
                let text = format!(r#"{{"s":"a","t":"b","d":{}{closing}}}"#, "[".repeat(depth));
                assert!(scan(&text, Limits { max_depth: 1000 }).is_err(), "{text}");
            }
        }
    }

    #[test]
    fn an_error_says_what_was_expected_and_what_came() {
        for (text, message) in [
            ("", "expected an object at byte 0, found the end of the message"),
            (r#"{"s":x}"#, "expected a value at byte 5, found `x`"),
            (r#"{"s":"a" "t"}"#, r#"expected `,` or `}` at byte 9, found `"`"#),
            ("{\"s\":\"\n\"}", "expected an escape instead of the control character at byte 6, found `\\n`"),
            (r#"{"s":"a"#, "expected a closing quote at byte 7, found the end of the message"),
            (r#"{"s":1,"t":""}"#, "expected `s` to be a string, found something else"),
        ] {
            assert_eq!(error(text).to_string(), message, "{text}");
        }
        let error = scan(r#"{"d":[]}"#, Limits { max_depth: 1 }).unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected at most 1 levels of nesting (`max_depth`), found one more at byte 5"
        );
    }

    /// Keys and values of a message, in a random order, with random white space.
    fn message(choices: &mut Choices<'_>) -> (String, String) {
        let mut data = String::new();
        json(choices, 7, &mut data);
        let topic = ["gateway-proxy:b:c", "gateway:opcode", "", r"\u0067ateway"][choices.below(4)];
        let mut fields = vec![
            format!(r#""{}":"{}""#, ["s", r"\u0073"][choices.below(8) / 7], "x".repeat(choices.below(130))),
            format!(r#""t":"{topic}""#),
            format!(r#""d":{}{data}{}"#, white_space(choices), white_space(choices)),
        ];
        match choices.below(4) {
            1 => fields.push(format!(r#""n":{}"#, choices.below(1000))),
            2 => fields.push(format!(r#""n":"{}""#, r"\u00e9".repeat(choices.below(34)))),
            3 => fields.push(r#""own":{"s":1}"#.to_owned()),
            _ => {}
        }
        let turn = choices.below(fields.len());
        fields.rotate_left(turn);
        let comma = format!("{},{}", white_space(choices), white_space(choices));
        (format!("{}{{{}}}{}", white_space(choices), fields.join(&comma), white_space(choices)), data)
    }

    /// What a mutation puts in: what means something in JSON, and a few bytes that do not.
    const BYTES: &[u8] = b"{}[]:,\"\"\\/u019-+.eEstdnifalrx \n\t\0\x1f\x7f\xc3\xa9";

    fn mutate(text: &str, mutations: &[(u16, u8, u8)]) -> String {
        let mut bytes = text.as_bytes().to_vec();
        for (place, kind, byte) in mutations {
            let at = usize::from(*place) % (bytes.len() + 1);
            let byte = BYTES[usize::from(*byte) % BYTES.len()];
            match kind % 4 {
                0 => bytes.insert(at, byte),
                1 if at < bytes.len() => bytes[at] = byte,
                2 if at < bytes.len() => drop(bytes.remove(at)),
                3 => bytes.extend_from_within(at..(at + usize::from(byte)).min(bytes.len())),
                _ => {}
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    proptest! {
        #![proptest_config(config(6_000))]

        #[test]
        fn any_json_passes_as_data_untouched(choices in prop::collection::vec(any::<u8>(), 0..400)) {
            let (text, data) = message(&mut Choices(&choices));
            let reference: serde_json::Result<&serde_json::value::RawValue> = serde_json::from_str(&data);
            prop_assert!(reference.is_ok(), "{}", data);
            let envelope = scan(&text, LIMITS);
            prop_assert!(envelope.is_ok() || envelope.as_ref().err() == Some(&Malformed::Nonce), "{} {:?}", text, envelope);
            if let Ok(envelope) = envelope {
                prop_assert_eq!(envelope.data(), data);
            }
        }
    }

    proptest! {
        #![proptest_config(config(20_000))]

        #[test]
        fn a_damaged_message_passes_exactly_when_serde_json_takes_it(
            choices in prop::collection::vec(any::<u8>(), 0..120),
            mutations in prop::collection::vec(any::<(u16, u8, u8)>(), 0..4),
            max_depth in 1..9_u32,
        ) {
            let text = mutate(&message(&mut Choices(&choices)).0, &mutations);
            let outcome = scan(&text, Limits { max_depth });
            prop_assert_eq!(outcome.is_ok(), oracle(&text, max_depth), "{:?}\n{:?}", text, outcome);
        }
    }
}
