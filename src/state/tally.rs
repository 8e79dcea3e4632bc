//! What is counted beside the messages: connections, ERRORs sent, closes, panics, who was held back,
//! who was turned away, and what operators were warned of.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::protocol::close::Close;
use crate::protocol::error::ErrorCode;
use crate::state::shards::Warning;

/// How many WebSocket connections there are, identified or not.
#[derive(Debug, Default)]
pub struct ConnectionTally(AtomicU64);

impl ConnectionTally {
    pub fn began(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    pub fn ended(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }

    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// A kind of thing that is counted by kind.
pub trait Kind: Copy + 'static {
    /// Every kind, each at its [index](Self::index).
    const ALL: &'static [Self];

    fn index(self) -> usize;
}

/// How often each kind was counted.
#[derive(Debug)]
pub struct Tally<K> {
    counts: Box<[AtomicU64]>,
    kind: PhantomData<fn(K)>,
}

impl<K: Kind> Default for Tally<K> {
    fn default() -> Self {
        Self { counts: K::ALL.iter().map(|_| AtomicU64::new(0)).collect(), kind: PhantomData }
    }
}

impl<K: Kind> Tally<K> {
    pub fn add(&self, kind: K) {
        self.counts[kind.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub fn iter(&self) -> impl Iterator<Item = (K, u64)> {
        K::ALL.iter().copied().zip(&self.counts).map(|(kind, count)| (kind, count.load(Ordering::Relaxed)))
    }
}

impl Tally<Close> {
    /// How many connections were closed with each code, codes in order.
    pub fn by_code(&self) -> BTreeMap<u16, u64> {
        let mut codes = BTreeMap::new();
        for (close, count) in self.iter() {
            *codes.entry(close.code()).or_default() += count;
        }
        codes
    }
}

impl Kind for Close {
    const ALL: &'static [Self] = &Self::ALL;

    fn index(self) -> usize {
        self as usize
    }
}

impl Kind for ErrorCode {
    const ALL: &'static [Self] = &Self::ALL;

    fn index(self) -> usize {
        self as usize
    }
}

/// An enum whose kinds are words in metrics.
macro_rules! kinds {
    ($(#[$doc:meta])+ $name:ident { $($(#[$kind_doc:meta])* $kind:ident = $word:literal,)+ }) => {
        $(#[$doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$kind_doc])* $kind,)+ }

        impl $name {
            /// Its label in metrics.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $word,)+ }
            }
        }

        impl Kind for $name {
            const ALL: &'static [Self] = &[$(Self::$kind,)+];

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

kinds! {
    /// What is restarted after a panic.
    Part {
        Session = "session",
        Gateway = "gateway",
        Allocator = "allocator",
        /// A message on a connection; the connection itself stays.
        Connection = "connection",
    }
}

kinds! {
    /// Why a connection was not read for a while.
    Held {
        /// A mailbox that it sends to was full.
        MailboxFull = "mailbox_full",
        /// Too many answers to its ops are unread.
        Answers = "answers",
        /// `max_frames_per_second`
        Frames = "frames",
        /// `max_bytes_per_second`
        Bytes = "bytes",
        /// `max_ops_per_second`
        Ops = "ops",
    }
}

kinds! {
    /// Why a connection never became a service, or a request was not answered as it asked.
    Turned {
        /// It ended before a whole request had come.
        NoRequest = "no_request",
        /// It had not identified, and others came: `max_unidentified`.
        Displaced = "displaced",
        /// There were more than `max_connections`.
        AtCapacity = "at_capacity",
        /// The process had no descriptor left for it.
        NoDescriptor = "no_descriptor",
        /// The body of a request took longer than `handshake_timeout_ms`.
        SlowBody = "slow_body",
        /// What it showed was no valid credential.
        Unauthorized = "unauthorized",
        /// Likewise, and too many came from its address to look at it: `auth_failures_per_minute`.
        TooManyFailures = "too_many_failures",
        /// Its credential does not permit that name or that request.
        Forbidden = "forbidden",
        /// `Host`, `Origin` or the URL showed that a web page is behind it.
        ForeignPage = "foreign_page",
        /// Its TLS handshake failed: no TLS, or a certificate that is not trusted.
        TlsHandshake = "tls_handshake",
        /// On the Unix domain socket: its user is none of `unix_uids`.
        ForeignUser = "foreign_user",
        /// `Host`, `Origin`, the URL, or what a trusted proxy said of its client, was not well formed.
        MalformedHead = "malformed_head",
    }
}

kinds! {
    /// What operators were warned of about the shard ids.
    Warned {
        BudgetLow = "budget_low",
        BudgetExhausted = "budget_exhausted",
        Frozen = "frozen",
        CrashLoop = "crash_loop",
        Unclaimed = "unclaimed",
        MoreShardsRecommended = "more_shards_recommended",
    }
}

impl Warned {
    pub fn of(warning: &Warning) -> Self {
        match warning {
            Warning::BudgetLow { .. } => Self::BudgetLow,
            Warning::BudgetExhausted { .. } => Self::BudgetExhausted,
            Warning::Frozen { .. } => Self::Frozen,
            Warning::CrashLoop { .. } => Self::CrashLoop,
            Warning::Unclaimed { .. } => Self::Unclaimed,
            Warning::MoreShardsRecommended { .. } => Self::MoreShardsRecommended,
        }
    }
}
