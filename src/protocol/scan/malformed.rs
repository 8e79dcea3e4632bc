//! What can be wrong with a message, and how that is said.

use std::fmt;

use super::fields::MAX_NONCE_BYTES;

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

#[cold]
pub(super) fn unexpected(text: &str, at: usize, expected: &'static str) -> Malformed {
    Malformed::Unexpected { expected, found: found(text, at), at }
}

/// What ends a string without being its quote.
#[cold]
pub(super) fn bad_string(text: &str, at: usize) -> Malformed {
    match found(text, at) {
        Found(None) => unexpected(text, at, "a closing quote"),
        found => Malformed::ControlCharacter { found, at },
    }
}

fn found(text: &str, at: usize) -> Found {
    Found(text.get(at..).and_then(|rest| rest.chars().next()))
}
