//! A message token by token: the reference, which runs on every machine and says what is wrong.
//!
//! `Scanner` goes from token to token with one bit for each open bracket, never recursing. What is
//! dear in that is to find where strings end: their lengths can't be predicted. So [`Strings`] looks
//! at 64 bytes at once. An object or array in the message's own object is left to the machine's
//! [`Shortcuts`] where it has some. Nothing is allocated, except for one bit a level beyond 64 levels
//! of nesting.

use super::fields::{Fields, Value};
use super::head::Head;
use super::malformed::{bad_string, unexpected};
use super::strings::{self, BLOCK, Strings};
use super::{Limits, Malformed};
use crate::protocol::envelope::Envelope;

/// What a machine may have instructions for.
pub(super) trait Shortcuts: Copy {
    /// One bit for each byte of the block, the first lowest: set for quotes, backslashes, and all
    /// below 0x20.
    fn specials(self, block: &[u8; BLOCK]) -> u64;

    /// Where the object or array ends that begins at `at` and may have that many levels. `None`: it is
    /// to be looked at token by token, malformed or not.
    fn nested_end(self, text: &[u8], at: usize, max_levels: u32) -> Option<usize>;
}

/// Any machine.
#[derive(Clone, Copy)]
pub(super) struct NoShortcuts;

impl Shortcuts for NoShortcuts {
    #[inline]
    fn specials(self, block: &[u8; BLOCK]) -> u64 {
        strings::specials(block)
    }

    #[inline]
    fn nested_end(self, _: &[u8], _: usize, _: u32) -> Option<usize> {
        None
    }
}

/// Checks a message and finds its parts. If `head` is given, the message must begin with it, and is checked
/// from its end on.
#[allow(clippy::inline_always, reason = "to be compiled with the caller's instructions")]
#[inline(always)]
pub(super) fn scan<'a, S: Shortcuts>(
    head: Option<&Head>,
    text: &'a str,
    limits: Limits,
    shortcuts: S,
) -> Result<Envelope<'a>, Malformed> {
    // Not in the scanner: calls of `Vec` take its address, and would keep the whole scanner in memory.
    let mut outer = Vec::new();
    Scanner {
        text,
        bytes: text.as_bytes(),
        at: 0,
        shortcuts,
        shortcuts_left: MAX_SHORTCUTS,
        strings: Strings::default(),
        nesting: Nesting::new(limits.max_depth, &mut outer),
    }
    .message(head)
}

/// Most shortcuts in one message. Each costs at least a block, so a message that is nothing but small
/// values would cost ten times as much as by tokens. A service has one such value to send, `d`.
const MAX_SHORTCUTS: u32 = 8;

struct Scanner<'a, 'b, S> {
    text: &'a str,
    bytes: &'a [u8],
    /// What has been looked at: all before this.
    at: usize,
    shortcuts: S,
    shortcuts_left: u32,
    strings: Strings,
    nesting: Nesting<'b>,
}

// Each call that is not inlined would keep the scanner in memory, which costs an eighth.
#[allow(clippy::inline_always, reason = "measured")]
impl<'a, S: Shortcuts> Scanner<'a, '_, S> {
    #[inline(always)]
    fn message(mut self, head: Option<&Head>) -> Result<Envelope<'a>, Malformed> {
        let mut fields = Fields::default();
        let mut is_first = head.is_none();
        if let Some(head) = head {
            self.head(head, &mut fields)?;
        } else {
            self.expect(b'{', "an object")?;
            self.nesting.push(OBJECT, 0)?;
        }
        while !self.take(b'}') {
            if !is_first {
                self.expect(b',', "`,` or `}`")?;
            }
            is_first = false;
            self.field(&mut fields)?;
        }
        self.token();
        if self.at < self.bytes.len() {
            return Err(self.unexpected("the end of the message"));
        }
        fields.envelope(self.text)
    }

    /// The head that the message is known to have, and the rest of the topic, amid which it ends.
    #[inline(always)]
    fn head(&mut self, head: &Head, fields: &mut Fields<'a>) -> Result<(), Malformed> {
        debug_assert!(self.text.starts_with(head.text()), "{head:?}");
        self.nesting.push(OBJECT, 0)?;
        fields.add("s", head.source(self.text))?;
        self.at = head.text().len();
        let escaped = self.string()?;
        let at = head.topic_value_at();
        fields.add("t", Value { raw: &self.text[at..self.at], escaped, at })
    }

    /// One key and value of the message's object.
    #[inline(always)]
    fn field(&mut self, fields: &mut Fields<'a>) -> Result<(), Malformed> {
        self.expect(b'"', "a key in quotes")?;
        let start = self.at;
        _ = self.string()?;
        let key = &self.text[start..self.at - 1];
        self.expect(b':', "`:`")?;
        let first = self.token();
        let start = self.at;
        let mut escaped = false;
        if first == b'"' {
            self.at += 1;
            escaped = self.string()?;
        } else if let Some(end) = self.nested_end(first) {
            self.at = end;
        } else {
            self.value()?;
        }
        fields.add(key, Value { raw: &self.text[start..self.at], escaped, at: start })
    }

    /// The end of the value that begins here with that byte, by a shortcut.
    #[inline(always)]
    fn nested_end(&mut self, first: u8) -> Option<usize> {
        if !matches!(first, b'{' | b'[') {
            return None;
        }
        self.shortcuts_left = self.shortcuts_left.checked_sub(1)?;
        let max_levels = self.nesting.max_depth - self.nesting.depth;
        self.shortcuts.nested_end(self.bytes, self.at, max_levels)
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
                    _ = self.string()?;
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
        _ = self.string()?;
        self.expect(b':', "`:`")
    }

    /// The rest of a string whose opening quote has been read: whether it has escapes.
    #[inline(always)]
    fn string(&mut self) -> Result<bool, Malformed> {
        let mut escaped = false;
        loop {
            self.at = self.strings.next_special(self.bytes, self.at, self.shortcuts);
            match self.byte() {
                b'"' => {
                    self.at += 1;
                    return Ok(escaped);
                }
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
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

fn is_hex(digits: Option<&[u8]>) -> bool {
    digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

const OBJECT: u64 = 1;
const ARRAY: u64 = 0;

/// What is open: one bit a level, the innermost lowest. The first 64 levels need no memory.
struct Nesting<'b> {
    depth: u32,
    max_depth: u32,
    innermost: u64,
    outer: &'b mut Vec<u64>,
}

impl<'b> Nesting<'b> {
    fn new(max_depth: u32, outer: &'b mut Vec<u64>) -> Self {
        Self { depth: 0, max_depth, innermost: 0, outer }
    }

    #[inline]
    fn push(&mut self, kind: u64, at: usize) -> Result<(), Malformed> {
        if self.depth >= self.max_depth {
            return Err(Malformed::TooDeep { max_depth: self.max_depth, at });
        }
        if self.depth > 0 && self.depth.is_multiple_of(u64::BITS) {
            self.outer.push(self.innermost);
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

    #[inline]
    fn in_object(&self) -> bool {
        self.innermost & 1 == OBJECT
    }
}
