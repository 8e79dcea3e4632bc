//! A service, as it sees itself and as the gateway knows it.

use std::collections::BTreeSet;

use crate::protocol::name::Name;

use super::super::Shard;

/// How a service deals with SHARD_STATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Knows only the founding ops: IDENTIFIES as soon as it may.
    Founding,
    /// Tells when it IDENTIFIES, which may be late in the permit's life.
    Reporting,
    /// Tells when it is ready, and when it IDENTIFIES only as long as nothing was told before.
    Sloppy,
}

/// What the gateway knows of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Up,
    Away,
    Gone,
}

pub(super) struct Service {
    pub(super) name: Name,
    pub(super) manner: Manner,
    /// How many ids it wants.
    pub(super) wants: usize,
    /// Whether it reaches the gateway.
    pub(super) connected: bool,
    pub(super) known: Known,
    /// Counts its connections, and ends of connections.
    pub(super) link: u64,
    /// Counts its processes.
    pub(super) life: u64,
    /// Its Discord connections, those that are about to IDENTIFY included.
    pub(super) sessions: BTreeSet<Shard>,
    pub(super) has_reported: bool,
    /// Until when it goes by what it was told without a connection.
    pub(super) told_until: u64,
}

impl Service {
    /// One of three manners, or, where all are prompt, that which does nothing but IDENTIFY.
    pub(super) fn new(index: u32, prompt: bool) -> Self {
        Self {
            name: Name::new(&format!("s{index}")).unwrap(),
            manner: match index % 3 {
                _ if prompt => Manner::Founding,
                0 => Manner::Reporting,
                1 => Manner::Founding,
                _ => Manner::Sloppy,
            },
            wants: 0,
            connected: false,
            known: Known::Gone,
            link: 0,
            life: 0,
            sessions: BTreeSet::new(),
            has_reported: false,
            told_until: 0,
        }
    }
}
