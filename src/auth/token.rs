//! Tokens: 256 random bits, of which only a hash is kept.
//!
//! Nobody can guess so many bits, so the hash need not be slow; and since it is the hash that is
//! looked up, the time that takes says nothing of the token.

use std::fmt;

use ring::digest::{SHA256, digest};

use crate::state::secret::Secret;

/// Every token starts so: a scanner for secrets that were committed by mistake can find it.
const PREFIX: &str = "gw_";

/// A token's SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

impl TokenHash {
    pub fn of(token: &str) -> Self {
        Self(sha256(token.as_bytes()))
    }

    /// 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: Vec<u8> = text
            .chars()
            .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect::<Option<_>>()?;
        let (pairs, []) = digits.as_chunks::<2>() else { return None };
        let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TokenHash")
    }
}

/// A new token; the error is the operating system's.
pub fn mint() -> Result<String, getrandom::Error> {
    Ok(format!("{PREFIX}{}", Secret::random()?.reveal()))
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_sha_256_in_hexadecimal() {
        let hash = TokenHash::of("abc");
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash.to_string(), text);
        assert_eq!(TokenHash::parse(text), Some(hash));
        assert_eq!(TokenHash::parse(&text.to_uppercase()), Some(hash));
        for wrong in ["", "ba", &text[1..], &format!("{text}00"), &text.replace('b', "g")] {
            assert_eq!(TokenHash::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn tokens_differ() {
        let (one, other) = (mint().unwrap(), mint().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), 3 + 64);
    }
}
