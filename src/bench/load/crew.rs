//! The threads of the load, and what they are told to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::endpoint::Endpoint;
use super::engine::Engine;
use super::outcome::Outcome;
use super::plan::Plan;
use crate::bench::BenchError;
use crate::bench::http::Http;

/// Between two looks at what the threads have done.
const LOOK: Duration = Duration::from_millis(2);
/// How long no service may have come any more before it is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the threads do. Each state comes after the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Phase {
    Gathering,
    /// Sending, but not measuring.
    Warming,
    Measuring,
    /// Sending no more; what is under way comes.
    Settling,
    /// One of them has failed.
    Abandoned,
}

/// What the threads and the one that leads them tell each other.
pub(super) struct Orders {
    phase: AtomicU8,
    /// How often all connections were to be cut.
    pub(super) cuts: AtomicU32,
    /// Services that are connected and accepted.
    pub(super) open: AtomicU64,
    pub(super) arrived: AtomicU64,
    pub(super) start: Instant,
}

impl Orders {
    pub(super) fn phase(&self) -> Phase {
        let phases = [Phase::Gathering, Phase::Warming, Phase::Measuring, Phase::Settling];
        phases.get(usize::from(self.phase.load(Ordering::Acquire))).copied().unwrap_or(Phase::Abandoned)
    }

    pub(super) fn set(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
    }
}

pub(in crate::bench) struct Crew {
    orders: Arc<Orders>,
    threads: Vec<JoinHandle<Result<Outcome, BenchError>>>,
    services: u64,
}

impl Crew {
    /// Starts the threads, whose services connect to that gateway.
    pub(in crate::bench) fn start(plan: Plan, http: &Http) -> Result<Self, BenchError> {
        let endpoint = Arc::new(Endpoint::of(http)?);
        let orders = Arc::new(Orders {
            phase: AtomicU8::new(Phase::Gathering as u8),
            cuts: AtomicU32::new(0),
            open: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
            start: Instant::now(),
        });
        let (plan, salt) = (Arc::new(plan), fastrand::u32(..));
        let thread = |part| {
            let (plan, endpoint, orders) = (Arc::clone(&plan), Arc::clone(&endpoint), Arc::clone(&orders));
            tokio::task::spawn_blocking(move || {
                let worked =
                    Engine::new(plan, part, salt, endpoint, Arc::clone(&orders)).and_then(Engine::work);
                if worked.is_err() {
                    orders.set(Phase::Abandoned);
                }
                worked
            })
        };
        let threads = plan.shape.parts(plan.threads).into_iter().map(thread).collect();
        Ok(Self { orders, threads, services: plan.shape.services() as u64 })
    }

    /// Waits until all services are there.
    pub(in crate::bench) async fn gathered(&mut self) -> Result<(), BenchError> {
        let (mut progress, mut open) = (Instant::now(), self.open());
        while open < self.services {
            if self.has_ended() {
                return Err(self.failure().await);
            }
            if progress.elapsed() > PATIENCE {
                self.orders.set(Phase::Abandoned);
                let seconds = PATIENCE.as_secs();
                return Err(BenchError::NotConnected { open, services: self.services, seconds });
            }
            sleep(LOOK).await;
            let before = std::mem::replace(&mut open, self.open());
            if open != before {
                progress = Instant::now();
            }
        }
        Ok(())
    }

    pub(in crate::bench) fn open(&self) -> u64 {
        self.orders.open.load(Ordering::Acquire)
    }

    /// Messages that have arrived so far.
    pub(in crate::bench) fn arrived(&self) -> u64 {
        self.orders.arrived.load(Ordering::Acquire)
    }

    pub(in crate::bench) fn warm_up(&self) {
        self.orders.set(Phase::Warming);
    }

    pub(in crate::bench) fn measure(&self) {
        self.orders.set(Phase::Measuring);
    }

    /// Resets all connections at once; the services come back.
    pub(in crate::bench) fn cut(&self) {
        self.orders.open.store(0, Ordering::Release);
        self.orders.cuts.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether a thread has ended, which none does before it settles.
    pub(in crate::bench) fn has_ended(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Lets what is under way come, and all services leave for good.
    pub(in crate::bench) async fn end(mut self) -> Result<Outcome, BenchError> {
        self.orders.set(Phase::Settling);
        let mut sum = Outcome::new();
        let mut failure = None;
        for thread in std::mem::take(&mut self.threads) {
            match thread.await? {
                Ok(outcome) => sum.add(outcome),
                // One that was abandoned tells less than the one that failed.
                Err(error) if failure.is_none() || !matches!(error, BenchError::Abandoned) => {
                    failure = Some(error);
                }
                Err(_) => {}
            }
        }
        failure.map_or(Ok(sum), Err)
    }

    async fn failure(&mut self) -> BenchError {
        let (orders, threads) = (Arc::clone(&self.orders), std::mem::take(&mut self.threads));
        let ended = Self { orders, threads, services: self.services };
        ended.end().await.err().unwrap_or(BenchError::Abandoned)
    }
}

impl Drop for Crew {
    /// Threads that nobody leads any more end.
    fn drop(&mut self) {
        self.orders.set(Phase::Abandoned);
    }
}
