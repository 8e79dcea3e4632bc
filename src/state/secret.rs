//! Session secrets and tickets: random text that whoever knows it may use.

use std::fmt;

/// Bits of randomness in a secret; the protocol asks for at least 128.
const RANDOM_BYTES: usize = 32;

/// A secret, as the service gets it. Shown by no `Debug`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(Box<str>);

impl Secret {
    /// A new secret from the operating system's randomness; the error is the system's.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; RANDOM_BYTES];
        getrandom::fill(&mut bytes)?;
        let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).expect("a nibble is below 16");
        Ok(Self(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()))
    }

    /// One that is known, for tests.
    #[cfg(test)]
    pub(crate) fn known(text: &str) -> Self {
        Self(text.into())
    }

    /// To be sent to the one service that it is for.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether `text` is the secret. The time it takes does not tell how much of it is right.
    pub fn is(&self, text: &str) -> bool {
        let (own, other) = (self.0.as_bytes(), text.as_bytes());
        own.len() == other.len()
            && own.iter().zip(other).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_and_are_not_shown() {
        let (one, other) = (Secret::random().unwrap(), Secret::random().unwrap());
        assert!(one.is(one.reveal()) && !one.is(other.reveal()) && !one.is(""));
        assert_eq!(one.reveal().len(), 64);
        assert!(!format!("{one:?}").contains(one.reveal()));
    }
}
