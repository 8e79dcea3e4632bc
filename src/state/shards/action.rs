//! What goes into the pool and what comes out of it.

use std::fmt;
use std::time::{Duration, Instant};

use crate::protocol::name::Name;
use crate::protocol::op;

use super::budget::SessionStartLimit;
use super::records::{Change, Shard};

/// What happened. `R` is what the driver needs to find the asker again; the pool hands it back.
#[derive(Debug, Clone)]
pub enum Input<R> {
    /// A `SHARD_CONNECT` came. From a service that is away it is dropped: nobody is there to be
    /// answered, and a permit would be stale when used.
    Connect { service: Name, request: R, connect: op::ShardConnect },
    /// A `SHARD_DEATH` came. It counts while its service is away too.
    Death { service: Name, request: R, death: op::ShardDeath },
    /// A `SHARD_STATE` came.
    State { service: Name, request: R, state: op::ShardState },
    /// The service identified: for the first time, or again, whether it was away or its connection
    /// was taken over. Its leases are unclaimed until it asks, and its places in the queue are gone.
    /// What comes of it goes out after ACCEPT.
    Resumed { service: Name },
    /// The service's connection ended: it keeps its leases and loses its places in the queue.
    Away {
        service: Name,
        /// When its last frame came, where that is known; else that is now.
        last_frame: Option<Instant>,
    },
    /// The service is told which leases it has, over HTTP or by the ACCEPT of a connection: from now on it may
    /// keep them for another window, though their end may be under way.
    Heard { service: Name },
    /// Its session ended: its leases go back.
    Down { service: Name, departure: Departure },
    /// Discord told its limit, which it was asked for then, by the real clock.
    SessionStartLimit { limit: SessionStartLimit, asked_at: Instant },
    /// The moment of [`next_wake`](super::ShardPool::next_wake) has come.
    Wake,
}

impl<R> Input<R> {
    /// Whom it is of.
    pub fn service(&self) -> Option<&Name> {
        match self {
            Self::Connect { service, .. }
            | Self::Death { service, .. }
            | Self::State { service, .. }
            | Self::Resumed { service }
            | Self::Away { service, .. }
            | Self::Heard { service }
            | Self::Down { service, .. } => Some(service),
            Self::SessionStartLimit { .. } | Self::Wake => None,
        }
    }
}

/// How a session ended: what the pool may think of its Discord connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// By its own will: it closed with 4000, or its connection ended after it was sent SHUTDOWN and
    /// before the deadline. It has closed its Discord connections; its ids are free at once.
    Left,
    /// In any other way: it may not know that it lost its ids. They are not granted before it must
    /// have noticed.
    Vanished {
        /// When its last frame came; where that is not known, [`Input::Away`] told it, or it is now.
        last_frame: Option<Instant>,
    },
}

/// What is to be done about it, in this order.
#[derive(Debug, Clone)]
pub enum Action<R> {
    /// To be stored as one transaction, and to be durable before anything after it is done. Comes
    /// first, and once in a step.
    Persist(Vec<Change>),
    /// The current generation is another: all of who holds what in it, by id. From now on
    /// `shard/` and `guild/` targets follow it.
    Switch {
        shard_count: u32,
        holders: Vec<Option<Name>>,
    },
    /// The lease of an id began (`Some`) or ended (`None`), in the current generation or in the one
    /// that is being filled. Comes before the `Accept` that belongs to it; an id that changes hands
    /// ends first. Those of a generation that a `Switch` ends are not told one by one.
    Holder {
        shard: Shard,
        holder: Option<Name>,
    },
    /// The request is done: here is its lease, new or its own still.
    Accept {
        service: Name,
        request: R,
        accept: op::ShardAccept,
        /// Whether it is a permit to IDENTIFY: who claims with `identify: false` gets none.
        permit: bool,
        /// Real time for which what is there to resume with is worth something yet.
        resume_for: Duration,
    },
    /// The request waits. Told at first, and at changes, not more than once a second.
    Wait {
        service: Name,
        request: R,
        wait: op::ShardWait,
    },
    /// The request is done: it had no effect.
    Refuse {
        service: Name,
        request: R,
        error: op::Error,
    },
    Live {
        service: Name,
        live: op::ShardLive,
    },
    /// To be dropped where the service is away: its next ACCEPT does not list the id.
    Revoke {
        service: Name,
        revoke: op::ShardRevoke,
    },
    /// The service is to be sent SHUTDOWN; if it is away, its session is to be ended.
    Shutdown {
        service: Name,
        reason: String,
    },
    /// The service is to be sent REBOOT, with `keep_discord_session` false; not if it is away.
    Reboot {
        service: Name,
        reason: String,
    },
    /// To be logged as a warning.
    Warn(Warning),
}

/// What an operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    BudgetLow { remaining: u64, total: u64, resets_in_ms: u64 },
    BudgetExhausted { total: u64, resets_in_ms: u64 },
    Frozen { shard: Shard, close_code: u16 },
    CrashLoop { shard: Shard, deaths: u64, held_ms: u64 },
    Unclaimed { service: Name, shards: usize },
    MoreShardsRecommended { recommended: u32, shard_count: u32 },
}

impl fmt::Display for Warning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BudgetLow { remaining, total, resets_in_ms } => write!(
                out,
                "only {remaining} of Discord's {total} session starts are left for the next {} min",
                resets_in_ms.div_ceil(60_000)
            ),
            Self::BudgetExhausted { total, resets_in_ms } => write!(
                out,
                "all {total} of Discord's session starts are used up: no shard can IDENTIFY for {} min",
                resets_in_ms.div_ceil(60_000)
            ),
            Self::Frozen { shard, close_code } => write!(
                out,
                "Discord closed shard {shard} with {close_code}, which reconnecting does not mend: no shard \
                 id is granted until POST /api/v1/shards/thaw"
            ),
            Self::CrashLoop { shard, deaths, held_ms } => write!(
                out,
                "shard {shard} died too often ({deaths} times in all): it is held back for {} s",
                held_ms.div_ceil(1000)
            ),
            Self::Unclaimed { service, shards } => write!(
                out,
                "{service} did not come back within resume_window_ms after the restart: its {shards} shard \
                 ids go back to the pool"
            ),
            Self::MoreShardsRecommended { recommended, shard_count } => write!(
                out,
                "Discord recommends {recommended} shards, and there are {shard_count}: POST \
                 /api/v1/shards/reshard changes that"
            ),
        }
    }
}
