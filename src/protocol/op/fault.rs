//! What tests ask for that provoke failures.

use serde::Deserialize;

/// `d` of a message that provokes a panic: `{"panic": "session"}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Fault {
    pub panic: FaultIn,
}

/// Who is to panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultIn {
    Connection,
    /// Nobody panics: the connection's thread ends.
    Worker,
    Session,
    Gateway,
    Allocator,
    /// The allocator, when it next stores a step.
    Store,
    /// Nobody panics: a message is counted that never was.
    Account,
    /// Nobody panics: each write of the allocator takes a second.
    SlowDisk,
    /// Each takes 50 ms.
    BusyDisk,
    /// Each takes a minute.
    HungDisk,
    /// Nobody panics: Discord is said to have 3 of 10 session starts left.
    Budget,
}
