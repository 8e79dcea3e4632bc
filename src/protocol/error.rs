//! Every reason for which the gateway refuses something, with the word that stands for it on the
//! wire.

/// `code` of an ERROR: something that a service sent had no effect, or came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorCode {
    /// The message is not what the protocol asks for; `message` says which part.
    Malformed,
    /// The topic is over `max_topic_bytes`.
    TooLarge,
    /// The topic is none that the gateway understands.
    UnroutableTopic,
    /// Something came before IDENTIFY.
    NotIdentified,
    /// `s` is not the service's own name.
    SourceMismatch,
    /// An op that only the gateway sends.
    GatewayOnlyOp,
    /// No op has that number.
    UnknownOp,
    /// Nobody of that name is connected or away.
    NoSuchService,
    /// Nobody holds that shard id.
    NoSuchShard,
    /// The mailbox of the target (or the sender's own, for an answer) is full.
    MailboxFull,
    /// The gateway is stopping.
    Draining,
    /// The gateway failed at this message.
    Internal,
    /// The target went down before it took the message; the text says why.
    Expired,
    /// SHARD_DEATH or SHARD_STATE from a service that does not hold the id.
    NotShardHolder,
    /// A claim with a `shard_count` of no living generation.
    StaleShard,
    /// The service's credential does not permit that target or op.
    Forbidden,
    /// Too much waits for shard ids already, of all services together.
    AtCapacity,
}

impl ErrorCode {
    pub const ALL: [Self; 17] = [
        Self::Malformed,
        Self::TooLarge,
        Self::UnroutableTopic,
        Self::NotIdentified,
        Self::SourceMismatch,
        Self::GatewayOnlyOp,
        Self::UnknownOp,
        Self::NoSuchService,
        Self::NoSuchShard,
        Self::MailboxFull,
        Self::Draining,
        Self::Internal,
        Self::Expired,
        Self::NotShardHolder,
        Self::StaleShard,
        Self::Forbidden,
        Self::AtCapacity,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::UnroutableTopic => "unroutable_topic",
            Self::NotIdentified => "not_identified",
            Self::SourceMismatch => "source_mismatch",
            Self::GatewayOnlyOp => "gateway_only_op",
            Self::UnknownOp => "unknown_op",
            Self::NoSuchService => "no_such_service",
            Self::NoSuchShard => "no_such_shard",
            Self::MailboxFull => "mailbox_full",
            Self::Draining => "draining",
            Self::Internal => "internal",
            Self::Expired => "expired",
            Self::NotShardHolder => "not_shard_holder",
            Self::StaleShard => "stale_shard",
            Self::Forbidden => "forbidden",
            Self::AtCapacity => "at_capacity",
        }
    }
}

/// `code` of a REJECT: an IDENTIFY was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectCode {
    /// Credentials are missing or wrong.
    Unauthorized,
    /// This credential may not take this name.
    Forbidden,
    /// The name has a live connection, or somebody else's ticket is out for it.
    AlreadyConnected,
    /// `max_connections` or `max_sessions` is reached.
    AtCapacity,
    /// The gateway is stopping.
    Draining,
    /// The name is not well formed.
    InvalidName,
    /// The message is not a well-formed IDENTIFY.
    Malformed,
}

impl RejectCode {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::AlreadyConnected => "already_connected",
            Self::AtCapacity => "at_capacity",
            Self::Draining => "draining",
            Self::InvalidName => "invalid_name",
            Self::Malformed => "malformed",
        }
    }

    /// The status of the answer to `POST /gateway`.
    pub fn http_status(self) -> u16 {
        match self {
            Self::InvalidName | Self::Malformed => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::AlreadyConnected => 409,
            Self::AtCapacity | Self::Draining => 503,
        }
    }
}
