//! The keys of the message's object that are the gateway's: each at most once, in any spelling, and
//! with a value of the right kind. Every other key passes, however often it stands there.

use super::Malformed;
use crate::protocol::envelope::{Envelope, JsonString};

/// The most bytes that `n` may have: decoded where it is a string, digits where it is an integer.
pub const MAX_NONCE_BYTES: usize = 64;

/// The values of those keys, raw.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    source: Option<&'a str>,
    topic: Option<&'a str>,
    topic_at: usize,
    data: Option<&'a str>,
    nonce: Option<&'a str>,
}

impl<'a> Fields<'a> {
    /// `key` is raw, without its quotes; `value` is raw and stands at `at` in the message.
    #[inline]
    pub(super) fn add(&mut self, key: &str, value: &'a str, at: usize) -> Result<(), Malformed> {
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

    pub(super) fn envelope(self, text: &'a str) -> Result<Envelope<'a>, Malformed> {
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
        [high, low] => digit(*high).zip(digit(*low)).map_or(0, |(high, low)| high << 4 | low),
        _ => 0,
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
