//! What a credential permits: which names it may take, whom it may send to, which ops it may use,
//! and whether it may operate the gateway.
//!
//! Where no credentials are in use, everybody has [`Grant::everything`]. How a credential is shown
//! and checked is `crate::auth`'s.

use std::fmt;
use std::sync::Arc;

use crate::protocol::op::ServiceOp;
use crate::protocol::pattern::Patterns;

/// What one credential permits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// What the credential is called, in logs too; a signed token's is `jwt:` and its `sub`.
    pub id: Arc<str>,
    /// The names that it may take.
    pub names: Patterns,
    /// The targets that it may send to, as they are spelled in topics: `backend`, `shard/3`.
    pub send: Patterns,
    pub ops: Ops,
    pub api: Api,
    /// Unix time in ms from which on it is not valid any more.
    pub expires_at_ms: Option<u64>,
    pub source: Source,
}

/// Ops beyond those that every service needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ops {
    /// SHARD_CONNECT, SHARD_DEATH and SHARD_STATE.
    pub shards: bool,
    /// WATCH.
    pub watch: bool,
}

/// The operators' API, `/metrics` included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Api {
    #[default]
    None,
    Read,
    /// Reading included.
    Write,
}

/// Where a credential comes from, and so what its being valid depends on.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// No credentials are in use.
    Open,
    /// An entry of the file, with its token's hash.
    Entry { token: Option<[u8; 32]> },
    /// A signed token; the hash of the key that it was signed with.
    Signed { key: [u8; 32] },
}

/// Hashes are no secrets, but nothing to show either.
impl fmt::Debug for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Open => "Open",
            Self::Entry { .. } => "Entry",
            Self::Signed { .. } => "Signed",
        })
    }
}

impl Grant {
    /// Everything, for everybody.
    pub fn everything() -> Self {
        Self {
            id: Arc::from("anybody"),
            names: Patterns::everything(),
            send: Patterns::everything(),
            ops: Ops { shards: true, watch: true },
            api: Api::Write,
            expires_at_ms: None,
            source: Source::Open,
        }
    }

    /// Whether it came from a credential at all.
    pub fn is_open(&self) -> bool {
        self.source == Source::Open
    }

    /// Whether both are of one credential, though it may permit other things by now.
    pub fn is_same_credential(&self, other: &Self) -> bool {
        let is_same_source = match (&self.source, &other.source) {
            (Source::Entry { .. }, Source::Entry { .. }) => true,
            (one, other) => one == other,
        };
        is_same_source && self.id == other.id
    }

    pub fn may_be(&self, name: &str) -> bool {
        self.names.cover(name)
    }

    pub fn may_send_to(&self, target: &str) -> bool {
        self.send.cover(target)
    }

    pub fn may_use(&self, op: &ServiceOp) -> bool {
        match op {
            ServiceOp::ShardConnect(_) | ServiceOp::ShardDeath(_) | ServiceOp::ShardState(_) => {
                self.ops.shards
            }
            ServiceOp::Watch(_) => self.ops.watch,
            ServiceOp::Identify(_) | ServiceOp::Ack(_) => true,
            #[cfg(feature = "fault-injection")]
            ServiceOp::Fault(_) => true,
        }
    }

    pub fn has_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_some_and(|expires| now_ms >= expires)
    }
}

impl Api {
    /// The word in files and tokens.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "none" => Self::None,
            "read" => Self::Read,
            "write" => Self::Write,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_permits_what_it_names_and_no_more() {
        let patterns = |text: &str| Patterns::new([text.to_owned()]).unwrap();
        let grant = Grant {
            names: patterns("shard-*"),
            send: patterns("backend"),
            ops: Ops { shards: true, watch: false },
            api: Api::Read,
            expires_at_ms: Some(1000),
            ..Grant::everything()
        };
        assert!(grant.may_be("shard-1") && !grant.may_be("backend"));
        assert!(grant.may_send_to("backend") && !grant.may_send_to("shard/1"));
        let op = |data: &str| ServiceOp::parse(data).unwrap();
        assert!(grant.may_use(&op(r#"{"opcode":10}"#)) && grant.may_use(&op(r#"{"opcode":22,"i":1}"#)));
        assert!(!grant.may_use(&op(r#"{"opcode":23}"#)));
        assert!(grant.api >= Api::Read && grant.api < Api::Write);
        assert!(!grant.has_expired(999) && grant.has_expired(1000));
    }
}
