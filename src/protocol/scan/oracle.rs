//! What `serde_json` says of a message, and the rules for its keys written down once more.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A well-formed message. All values are as they stand in its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) source: &'a str,
    pub(super) topic: &'a str,
    pub(super) data: Option<&'a str>,
    pub(super) nonce: Option<&'a str>,
    /// Every other key and its value.
    pub(super) others: Vec<(&'a str, &'a str)>,
}

impl<'a> Message<'a> {
    /// `None`: `serde_json` does not take it, or it breaks a rule for `s`, `t`, `d`, `n` or `i`.
    pub(super) fn parse(text: &'a str, max_depth: u32) -> Option<Self> {
        let fields = serde_json::from_str::<Fields<'_>>(text).ok()?.0;
        if depth(text) > max_depth {
            return None;
        }
        let (mut own, mut others) = ([const { Vec::new() }; 5], Vec::new());
        for (key, value) in fields {
            let (key, value) = (key.get(), value.get());
            // A key with a lone surrogate does not decode, and is none of the gateway's.
            let decoded = serde_json::from_str::<String>(key).ok();
            match ["s", "t", "d", "n", "i"].iter().position(|own| decoded.as_deref() == Some(own)) {
                Some(index) => own[index].push(value),
                None => others.push((key, value)),
            }
        }
        let [source, topic, data, nonce, i] = own;
        let message = Self {
            source: source.first()?,
            topic: topic.first()?,
            data: data.first().copied(),
            nonce: nonce.first().copied(),
            others,
        };
        let counts = [source.len(), topic.len(), data.len(), nonce.len(), i.len() + 1];
        let is_well_formed = counts.iter().all(|count| *count <= 1)
            && message.source.starts_with('"')
            && message.topic.starts_with('"')
            && message.nonce.is_none_or(is_nonce);
        is_well_formed.then_some(message)
    }
}

/// What a string, with its quotes, stands for; a lone surrogate is U+FFFD.
pub(super) fn decode(string: &str) -> String {
    let mut bytes = serde_json::from_str::<Decoded>(string).expect("a valid string").0;
    // As bytes, `serde_json` decodes a lone surrogate to three: ED, and one of A0 to BF.
    for at in 1..bytes.len() {
        if bytes[at - 1] == 0xED && bytes[at] >= 0xA0 {
            bytes[at - 1..=at + 1].copy_from_slice("\u{fffd}".as_bytes());
        }
    }
    String::from_utf8(bytes).expect("only lone surrogates are not UTF-8")
}

fn is_nonce(value: &str) -> bool {
    if value.starts_with('"') {
        return decode(value).len() <= 64;
    }
    let digits = value.trim_start_matches('-');
    digits.len() <= 64 && digits.chars().all(|digit| digit.is_ascii_digit())
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

/// An object as raw JSON, duplicates among it. Raw, `serde_json` checks a string's grammar and lets
/// lone surrogates pass.
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

struct Decoded(Vec<u8>);

impl<'de> Deserialize<'de> for Decoded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Decoded;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Decoded, E> {
                Ok(Decoded(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}
