//! WATCH: which services' comings and goings a service wants to hear of.

use serde::Deserialize;

use super::{OpError, fields};
use crate::protocol::{name, pattern};

/// `d` of WATCH: a name, or a pattern in which `*` stands for any run of characters.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Watch {
    #[serde(default = "everything", deserialize_with = "null_is_everything")]
    pub services: String,
}

impl Watch {
    pub(super) fn parse(data: &str) -> Result<Self, OpError> {
        let watch: Self = fields(data)?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'*');
        if !(1..=name::MAX_NAME_BYTES).contains(&watch.services.len()) || !watch.services.bytes().all(allowed)
        {
            return Err(OpError::malformed(
                "`d.services` must be a name, or a pattern of a name's characters and `*`",
            ));
        }
        Ok(watch)
    }

    /// Whether the pattern covers the name.
    pub fn matches(&self, name: &str) -> bool {
        pattern::covers(&self.services, name)
    }
}

fn everything() -> String {
    "*".to_owned()
}

fn null_is_everything<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_else(everything))
}
