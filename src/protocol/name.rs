//! Names and numbers that identify something, each a type of its own that cannot be built wrong.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The most bytes that a service's name may have.
pub const MAX_NAME_BYTES: usize = 64;

/// The name of a service: 1 to 64 of `A-Z a-z 0-9 . _ -`, and not `gateway`.
///
/// Cloning is cheap: the text is shared.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// A name was not well formed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    #[error("a service's name must match [A-Za-z0-9._-]{{1,64}}")]
    Shape,
    #[error("the name `gateway` is the gateway's own")]
    Reserved,
}

impl Name {
    /// Checks the text and makes it a name.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        if !is_well_formed(text) {
            return Err(InvalidName::Shape);
        }
        if text == super::GATEWAY_NAME {
            return Err(InvalidName::Reserved);
        }
        Ok(Self(Arc::from(text)))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether the text has the form of a name (`gateway`, which is reserved, has it too).
pub fn is_well_formed(text: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", &*self.0)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

/// A Discord shard's id: `0 … shard_count-1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardId(pub u32);

impl fmt::Display for ShardId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Grows by one with each new lease of a shard id: of two holders, the one with the higher epoch
/// came later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// One WebSocket connection, for the life of the process. Minted before anything is done with
/// the connection, so that whatever is said about it can be matched to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_1_to_64_of_the_allowed_characters() {
        let longest = "x".repeat(64);
        for good in ["a", "shard-3", "A.b_c-9", longest.as_str()] {
            assert_eq!(Name::new(good).map(|name| name.to_string()), Ok(good.to_owned()));
        }
        let too_long = "x".repeat(65);
        for bad in ["", "a b", "a:b", "a/b", "ä", "a\0", "*", "@group", too_long.as_str()] {
            assert_eq!(Name::new(bad), Err(InvalidName::Shape), "{bad:?}");
        }
    }

    #[test]
    fn the_gateways_own_name_is_reserved() {
        assert_eq!(Name::new("gateway"), Err(InvalidName::Reserved));
        assert!(Name::new("gateway2").is_ok());
    }
}
