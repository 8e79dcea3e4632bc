//! What is counted beside the messages: connections, ERRORs sent, closes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::protocol::close::Close;
use crate::protocol::error::ErrorCode;

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

/// What is restarted after a panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Session,
    Gateway,
    Allocator,
    /// A message on a connection; the connection itself stays.
    Connection,
}

impl Part {
    pub const ALL: [Self; 4] = [Self::Session, Self::Gateway, Self::Allocator, Self::Connection];

    /// Its label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Gateway => "gateway",
            Self::Allocator => "allocator",
            Self::Connection => "connection",
        }
    }
}

/// How many panics were caught, by where.
#[derive(Debug, Default)]
pub struct PanicTally([AtomicU64; Part::ALL.len()]);

impl PanicTally {
    pub fn add(&self, part: Part) {
        self.0[part as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn iter(&self) -> impl Iterator<Item = (Part, u64)> {
        Part::ALL.into_iter().zip(&self.0).map(|(part, count)| (part, count.load(Ordering::Relaxed)))
    }
}

/// Why a connection never became a service, or a request was not answered as it asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// It ended before a whole request had come.
    NoRequest,
    /// It had not identified, and others came: `max_unidentified`.
    Displaced,
    /// There were more than `max_connections`.
    AtCapacity,
    /// The process had no descriptor left for it.
    NoDescriptor,
    /// The body of a request took longer than `handshake_timeout_ms`.
    SlowBody,
    /// `Host`, `Origin` or the URL showed that a web page is behind it.
    ForeignPage,
}

impl Turned {
    pub const ALL: [Self; 6] = [
        Self::NoRequest,
        Self::Displaced,
        Self::AtCapacity,
        Self::NoDescriptor,
        Self::SlowBody,
        Self::ForeignPage,
    ];

    /// Its label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoRequest => "no_request",
            Self::Displaced => "displaced",
            Self::AtCapacity => "at_capacity",
            Self::NoDescriptor => "no_descriptor",
            Self::SlowBody => "slow_body",
            Self::ForeignPage => "foreign_page",
        }
    }
}

/// How many were turned away, by why.
#[derive(Debug, Default)]
pub struct TurnedTally([AtomicU64; Turned::ALL.len()]);

impl TurnedTally {
    pub fn add(&self, why: Turned) {
        self.0[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn iter(&self) -> impl Iterator<Item = (Turned, u64)> {
        Turned::ALL.into_iter().zip(&self.0).map(|(why, count)| (why, count.load(Ordering::Relaxed)))
    }
}

/// How many ERRORs of each code were sent.
#[derive(Debug, Default)]
pub struct ErrorTally([AtomicU64; ErrorCode::ALL.len()]);

impl ErrorTally {
    pub fn add(&self, code: ErrorCode) {
        self.0[code as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn iter(&self) -> impl Iterator<Item = (ErrorCode, u64)> {
        ErrorCode::ALL.into_iter().zip(&self.0).map(|(code, count)| (code, count.load(Ordering::Relaxed)))
    }
}

/// How many connections were closed in each way.
#[derive(Debug, Default)]
pub struct CloseTally([AtomicU64; Close::ALL.len()]);

impl CloseTally {
    /// How many connections were closed with each code, codes in order.
    pub fn by_code(&self) -> BTreeMap<u16, u64> {
        let mut codes = BTreeMap::new();
        for (close, count) in Close::ALL.into_iter().zip(&self.0) {
            *codes.entry(close.code()).or_default() += count.load(Ordering::Relaxed);
        }
        codes
    }

    pub fn add(&self, close: Close) {
        self.0[close as usize].fetch_add(1, Ordering::Relaxed);
    }
}
