//! The keys of the message's object that are the gateway's: each at most once, in any spelling, and
//! with a value of the right kind. Every other key passes, however often it stands there.

use super::Malformed;
use crate::protocol::envelope::{Envelope, JsonString};

/// The most bytes that `n` may have: decoded where it is a string, digits where it is an integer.
pub const MAX_NONCE_BYTES: usize = 64;

/// A valid JSON value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'a> {
    pub(super) raw: &'a str,
    /// Whether it is a string with escapes.
    pub(super) escaped: bool,
    /// Where it stands in the message.
    pub(super) at: usize,
}

impl<'a> Value<'a> {
    fn as_string(self) -> Option<JsonString<'a>> {
        let raw = self.raw.strip_prefix('"')?.strip_suffix('"')?;
        Some(JsonString::known(raw, self.escaped))
    }
}

/// The values of those keys.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    source: Option<Value<'a>>,
    topic: Option<Value<'a>>,
    data: Option<Value<'a>>,
    nonce: Option<Value<'a>>,
}

impl<'a> Fields<'a> {
    /// `key` is raw, without its quotes.
    #[inline]
    pub(super) fn add(&mut self, key: &str, value: Value<'a>) -> Result<(), Malformed> {
        let key = match key.as_bytes() {
            [byte] => *byte,
            [b'\\', b'u', b'0', b'0', hex @ ..] => escaped_letter(hex),
            _ => return Ok(()),
        };
        let slot = match key {
            b's' => &mut self.source,
            b't' => &mut self.topic,
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

    pub(super) fn envelope(self, text: &'a str) -> Result<Envelope<'a>, Malformed> {
        if !self.nonce.is_none_or(is_nonce) {
            return Err(Malformed::Nonce);
        }
        let (source, source_at) = string('s', self.source)?;
        let (topic, topic_at) = string('t', self.topic)?;
        Ok(Envelope {
            text,
            source,
            source_at,
            topic,
            topic_at,
            data: self.data.map(|value| value.raw),
            nonce: self.nonce.map(|value| value.raw),
        })
    }
}

/// The character that `\u00` and these two hex digits stand for; nothing of interest if there
/// are more or fewer.
#[cold]
fn escaped_letter(hex: &[u8]) -> u8 {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match hex {
        [high, low] => digit(*high).zip(digit(*low)).map_or(0, |(high, low)| high << 4 | low),
        _ => 0,
    }
}

/// What stands between the quotes, and where.
fn string(key: char, value: Option<Value<'_>>) -> Result<(JsonString<'_>, usize), Malformed> {
    let value = value.ok_or(Malformed::Missing(key))?;
    let string = value.as_string().ok_or(Malformed::NotAString(key))?;
    Ok((string, value.at + 1))
}

fn is_nonce(value: Value<'_>) -> bool {
    if let Some(string) = value.as_string() {
        return string.decoded_len() <= MAX_NONCE_BYTES;
    }
    let digits = value.raw.strip_prefix('-').unwrap_or(value.raw);
    digits.len() <= MAX_NONCE_BYTES && digits.bytes().all(|byte| byte.is_ascii_digit())
}
