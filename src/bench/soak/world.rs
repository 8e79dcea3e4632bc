//! What all services of a soak share: who there is, what is under way, what was wrong.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::cast::{Cast, Kind, Role};
use super::faults::{Fault, Faults};
use super::leases::Leases;
use super::message::Target;
use super::options::SoakOptions;
use super::outstanding::Outstanding;
use crate::client::Secret;
use crate::protocol::error::ErrorCode;

/// How far the soak is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Services come.
    Gathering,
    /// They do all they do.
    Running,
    /// They come back, read and acknowledge, and send nothing.
    Settling,
    /// They leave for good.
    Leaving,
}

/// See the module.
#[derive(Debug)]
pub(super) struct World {
    pub(super) url: String,
    pub(super) token: Option<Secret>,
    pub(super) seed: u64,
    /// Messages for each second and service.
    pub(super) rate: f64,
    pub(super) cast: Cast,
    pub(super) stage: watch::Receiver<Stage>,
    pub(super) faults: Faults,
    pub(super) counts: Counts,
    pub(super) leases: Mutex<Leases>,
    prefix: String,
    /// The gateway's resume window, as ACCEPT told it, in ms.
    window_ms: AtomicU64,
    /// By service: whether it is connected.
    connected: Vec<AtomicBool>,
    /// By source, then by target.
    streams: Vec<Mutex<HashMap<Target, Outstanding>>>,
}

/// What happened.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) sent: AtomicU64,
    pub(super) arrived: AtomicU64,
    /// Messages that an acknowledging service got once more.
    pub(super) again: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) receipts: AtomicU64,
    pub(super) presences: AtomicU64,
    pub(super) leases: AtomicU64,
    pub(super) mistakes: AtomicU64,
    pub(super) connections: AtomicU64,
    pub(super) resumed: AtomicU64,
    pub(super) strangers: AtomicU64,
}

impl World {
    pub(super) fn new(url: String, cast: Cast, options: &SoakOptions, stage: watch::Receiver<Stage>) -> Self {
        let services = cast.roles.len();
        Self {
            url,
            token: options.token.clone(),
            seed: options.seed,
            rate: options.rate / f64::from(options.services),
            stage,
            faults: Faults::default(),
            counts: Counts::default(),
            leases: Mutex::default(),
            // Two soaks of one gateway must not take each other's names.
            prefix: format!("soak-{}-", std::process::id()),
            window_ms: AtomicU64::new(0),
            connected: (0..services).map(|_| AtomicBool::new(false)).collect(),
            streams: (0..services).map(|_| Mutex::default()).collect(),
            cast,
        }
    }

    pub(super) fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    pub(super) fn role(&self, index: usize) -> Role {
        self.cast.roles[index]
    }

    pub(super) fn name(&self, index: usize) -> String {
        format!("{}{index}", self.prefix)
    }

    /// A pattern that matches every service of this soak.
    pub(super) fn pattern(&self) -> String {
        format!("{}*", self.prefix)
    }

    /// The service of that name.
    pub(super) fn index(&self, name: &str) -> Option<usize> {
        let index = name.strip_prefix(&self.prefix)?.parse().ok()?;
        (index < self.connected.len()).then_some(index)
    }

    /// A target as messages name it.
    pub(super) fn written(&self, target: Target) -> String {
        match target {
            Target::Service(index) => self.name(index),
            Target::Nobody(index) => format!("{}nobody-{index}", self.prefix),
            Target::Shard(id) => format!("shard/{id}"),
        }
    }

    pub(super) fn set_window(&self, window_ms: u64) {
        self.window_ms.store(window_ms, Ordering::Release);
    }

    /// The gateway's resume window, once a service has been told it.
    pub(super) fn window(&self) -> Duration {
        Duration::from_millis(self.window_ms.load(Ordering::Acquire))
    }

    pub(super) fn set_connected(&self, index: usize, connected: bool) {
        self.connected[index].store(connected, Ordering::Release);
    }

    pub(super) fn is_connected(&self, index: usize) -> bool {
        self.connected[index].load(Ordering::Acquire)
    }

    pub(super) fn are_all_connected(&self) -> bool {
        (0..self.connected.len()).all(|index| self.is_connected(index))
    }

    /// The number of the message that is sent now.
    pub(super) fn send(&self, source: usize, target: Target) -> u64 {
        let kind = self.role(source).kind;
        // What comes back to a flooder may find its mailbox full; a shard's holder changes.
        let excused = kind == Kind::Flooder || matches!(target, Target::Shard(_));
        count(&self.counts.sent);
        let mut streams = lock(&self.streams[source]);
        streams.entry(target).or_default().send(kind == Kind::Receipts, excused)
    }

    /// Runs a check of one stream, and counts what is wrong.
    pub(super) fn check(
        &self,
        source: usize,
        target: Target,
        number: u64,
        check: impl FnOnce(&mut Outstanding) -> Result<(), Fault>,
    ) {
        let judged = check(lock(&self.streams[source]).entry(target).or_default());
        if let Err(fault) = judged {
            self.faults.add(fault, || self.told(source, target, number));
        }
    }

    /// Whether an ERROR about a message to that target may carry that code.
    pub(super) fn may_refuse(&self, target: Target, code: ErrorCode) -> bool {
        match target {
            Target::Service(index) => self.cast.roles.get(index).is_some_and(|role| role.may_refuse(code)),
            Target::Nobody(_) => code == ErrorCode::NoSuchService,
            Target::Shard(_) => {
                let role = Role { kind: Kind::Shard, is_restless: true };
                code == ErrorCode::NoSuchShard || role.may_refuse(code)
            }
        }
    }

    /// A connection of the service ended: what it sent, and what it was handed, may be lost.
    pub(super) fn excuse(&self, index: usize) {
        lock(&self.streams[index]).values_mut().for_each(Outstanding::excuse);
        if self.role(index).acknowledges() {
            return;
        }
        for source in &self.cast.sources[index] {
            if let Some(stream) = lock(&self.streams[*source]).get_mut(&Target::Service(index)) {
                stream.excuse();
            }
        }
    }

    /// How many messages have not ended, or have no RECEIPT yet.
    pub(super) fn under_way(&self) -> u64 {
        let absent = |streams: &Mutex<HashMap<Target, Outstanding>>| -> u64 {
            lock(streams).values().map(Outstanding::absent).map(|absent| absent.ends + absent.receipts).sum()
        };
        self.streams.iter().map(absent).sum()
    }

    /// What is under way will not come any more.
    pub(super) fn give_up(&self) {
        for (source, streams) in self.streams.iter().enumerate() {
            for (target, stream) in lock(streams).iter() {
                let absent = stream.absent();
                let first = stream.first().unwrap_or_default();
                self.faults.add_many(Fault::Lost, absent.ends, || self.told(source, *target, first));
                self.faults.add_many(Fault::NoReceipt, absent.receipts, || self.told(source, *target, first));
            }
        }
    }

    fn told(&self, source: usize, target: Target, number: u64) -> String {
        let (kind, to) = (self.role(source).kind, self.written(target));
        let told = format!("message {number} of {} ({kind:?}) to {to}", self.name(source));
        match target {
            Target::Service(index) => format!("{told} ({:?})", self.role(index).kind),
            _ => told,
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        writeln!(
            formatter,
            "messages     {} sent, {} arrived, {} of them again after a resume; {} ERRORs, {} RECEIPTs",
            of(&self.sent),
            of(&self.arrived),
            of(&self.again),
            of(&self.errors),
            of(&self.receipts),
        )?;
        write!(
            formatter,
            "churn        {} connections, {} resumed; {} strangers, {} mistakes, {} leases, {} PRESENCEs",
            of(&self.connections),
            of(&self.resumed),
            of(&self.strangers),
            of(&self.mistakes),
            of(&self.leases),
            of(&self.presences),
        )
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What these locks guard is whole after every statement.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
