//! A setting's value once it is checked, and how it becomes a field of [`Config`](super::Config).

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::directory::NONE;
use super::token::BotToken;

/// A setting's value, checked against its kind. It is displayed as the file spells it.
///
/// A secret has a variant of its own, displayed as a redaction that is no value.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Address(SocketAddr),
    Number(u64),
    Switch(bool),
    Text(String),
    List(Vec<String>),
    Token(Option<BotToken>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "\"{address}\""),
            Self::Number(n) => write!(f, "{n}"),
            Self::Switch(on) => write!(f, "{on}"),
            Self::Token(None) => write!(f, "\"{NONE}\""),
            Self::Token(Some(_)) => f.write_str("\"(hidden)\""),
            // JSON's escapes are TOML's too.
            Self::Text(text) => f.write_str(&serde_json::to_string(text).map_err(|_| fmt::Error)?),
            Self::List(items) => f.write_str(&serde_json::to_string(items).map_err(|_| fmt::Error)?),
        }
    }
}

/// A type that a field of [`Config`](super::Config) can have.
///
/// A type that doesn't fit its setting's kind is a mistake in the table, and panics:
/// `Config::default()` finds each.
pub(super) trait Field {
    fn from_value(value: Value) -> Self;
}

impl Field for SocketAddr {
    fn from_value(value: Value) -> Self {
        match value {
            Value::Address(address) => address,
            other => panic!("{other} is no address"),
        }
    }
}

impl Field for u64 {
    fn from_value(value: Value) -> Self {
        match value {
            Value::Number(n) => n,
            other => panic!("{other} is no number"),
        }
    }
}

impl Field for u32 {
    fn from_value(value: Value) -> Self {
        u64::from_value(value).try_into().expect("the table's range fits 32 bits")
    }
}

impl Field for usize {
    fn from_value(value: Value) -> Self {
        u64::from_value(value).try_into().expect("the table's range fits a pointer's width")
    }
}

impl Field for Duration {
    fn from_value(value: Value) -> Self {
        Duration::from_millis(u64::from_value(value))
    }
}

impl Field for bool {
    fn from_value(value: Value) -> Self {
        match value {
            Value::Switch(on) => on,
            other => panic!("{other} is no switch"),
        }
    }
}

impl Field for String {
    fn from_value(value: Value) -> Self {
        match value {
            Value::Text(text) => text,
            other => panic!("{other} is no text"),
        }
    }
}

impl Field for Vec<String> {
    fn from_value(value: Value) -> Self {
        match value {
            Value::List(items) => items,
            other => panic!("{other} is no list"),
        }
    }
}

/// A number, or `None` for the word.
impl Field for Option<u32> {
    fn from_value(value: Value) -> Self {
        match value {
            Value::Text(_) => None,
            number => Some(u32::from_value(number)),
        }
    }
}

/// A path, or `none`.
impl Field for Option<PathBuf> {
    fn from_value(value: Value) -> Self {
        let text = String::from_value(value);
        (text != NONE).then(|| text.into())
    }
}

impl Field for Option<BotToken> {
    fn from_value(value: Value) -> Self {
        match value {
            Value::Token(token) => token,
            other => panic!("{other} is no token"),
        }
    }
}
