//! The number of shards, as far as settings know it.

use super::setting::{AUTO, STORED};
use super::value::{Field, Value};

/// How many shards there are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardCount {
    Fixed(u32),
    /// As many as are stored, or 1.
    Stored,
    /// As many as are stored, or as Discord recommends.
    Auto,
}

impl ShardCount {
    /// The number, where it is known without Discord.
    pub fn fixed(self) -> Option<u32> {
        match self {
            Self::Fixed(count) => Some(count),
            Self::Stored | Self::Auto => None,
        }
    }
}

impl Field for ShardCount {
    fn from_value(value: Value) -> Self {
        match value {
            Value::Text(text) if text == AUTO => Self::Auto,
            Value::Text(text) if text == STORED => Self::Stored,
            value => Self::Fixed(u32::from_value(value)),
        }
    }
}
