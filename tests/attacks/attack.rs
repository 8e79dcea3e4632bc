//! Runs an attack, and measures what it costs.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::bystanders::{Bystanders, Times};
use crate::priority::{go_first, go_last, is_permitted};
use crate::support::{Gateway, eventually};

/// How often quiet and attack take turns in one try.
pub(crate) const ROUNDS: usize = 5;

/// Something else on the machine may disturb a try; what the gateway does, disturbs most.
const TRIES: usize = 5;

/// How much slower the bystanders may get.
pub(crate) const FACTOR: u32 = 3;

/// What others may wait besides, however short the quiet is: an attacker's turn on a thread of the
/// gateway's, whose length does not depend on it.
const ONE_TURN: Duration = Duration::from_micros(50);

/// What a time slice of the kernel's scheduler may add, where no [priority](crate::priority) keeps the
/// attackers and other work from the cores of gateway and bystanders.
const TIME_SLICE: Duration = Duration::from_millis(4);

/// Attacks take turns.
static TURN: Mutex<()> = Mutex::new(());

/// How far an attack is.
#[derive(Default)]
pub(crate) struct Progress {
    steps: AtomicU64,
    is_over: AtomicBool,
}

impl Progress {
    /// The attack has done something; false: it is to end.
    pub(crate) fn goes_on(&self) -> bool {
        self.steps.fetch_add(1, Ordering::Relaxed);
        !self.is_over.load(Ordering::Relaxed)
    }

    pub(crate) fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }
}

/// Waits until no other attack is under way on this machine.
pub(crate) fn take_turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets this process open so many connections.
pub(crate) fn raise_descriptor_limit(connections: usize) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    assert!(
        hard > connections as u64 + 1_000,
        "ulimit -n is {hard}: this test needs {connections} connections"
    );
}

/// Lets the attack run against the gateway while bystanders talk. It has begun once `has_begun`
/// says so; the gateway's memory may grow by `memory_mib` meanwhile.
pub(crate) fn endure(
    gateway: &Gateway,
    memory_mib: u64,
    has_begun: impl Fn(&Gateway) -> bool,
    attack: impl Fn(&Gateway, &Progress) + Sync,
) {
    go_first(gateway);
    let mut bystanders = Bystanders::new(gateway);
    let before = gateway.memory_kib("VmRSS");
    let is_met = in_most_tries(|| {
        let (mut quiet, mut attacked, mut longest) = (Vec::new(), Vec::new(), Duration::ZERO);
        for _ in 0..ROUNDS {
            quiet.push(in_quiet(1, || bystanders.times().p99));
            let times = under_attack(gateway, &has_begun, &attack, &mut bystanders);
            attacked.push(times.p99);
            longest = longest.max(times.longest);
        }
        let (quiet, attacked) = (median(quiet), median(attacked));
        println!("p99 of the bystanders: {quiet:?} in quiet, {attacked:?} under attack; longest {longest:?}");
        is_as_good(attacked, quiet)
    });
    let grown = gateway.memory_kib("VmHWM").saturating_sub(before) / 1024;
    println!("memory grew by {grown} MiB, {memory_mib} are allowed");
    assert!(is_met, "the bystanders' deliveries take more than {FACTOR} times what they do in quiet");
    assert!(grown <= memory_mib, "memory grew by {grown} MiB, {memory_mib} are allowed");
}

/// Tries until most of the tries have had one result.
pub(crate) fn in_most_tries(mut is_met: impl FnMut() -> bool) -> bool {
    let (mut met, mut missed) = (0, 0);
    while met.max(missed) <= TRIES / 2 {
        if is_met() { met += 1 } else { missed += 1 }
    }
    met > missed
}

/// Whether what was measured under attack is at most [`FACTOR`] times what it is in quiet, and the slack.
pub(crate) fn is_as_good(attacked: Duration, quiet: Duration) -> bool {
    let slack = if is_permitted() { ONE_TURN } else { TIME_SLICE };
    attacked <= quiet * FACTOR + slack
}

/// Measures while nobody attacks. So many threads keep the cores as busy as attackers would: a core
/// that sleeps takes long to wake up, and would make the quiet too slow.
pub(crate) fn in_quiet<T>(threads: usize, measure: impl FnOnce() -> T) -> T {
    let (progress, busy) = (Progress::default(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                go_last();
                busy.fetch_add(1, Ordering::Relaxed);
                while progress.goes_on() {
                    std::hint::spin_loop();
                }
            });
        }
        let _end = EndAtDrop(&progress);
        eventually("the cores are busy", || (busy.load(Ordering::Relaxed) == threads).then_some(()));
        measure()
    })
}

fn under_attack(
    gateway: &Gateway,
    has_begun: &impl Fn(&Gateway) -> bool,
    attack: &(impl Fn(&Gateway, &Progress) + Sync),
    bystanders: &mut Bystanders,
) -> Times {
    let progress = Progress::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            go_last();
            attack(gateway, &progress);
        });
        // Ends the attack even if the measurement panics: the scope waits for it.
        let _end = EndAtDrop(&progress);
        eventually("the attack is under way", || (progress.steps() > 20 && has_begun(gateway)).then_some(()));
        bystanders.times()
    })
}

struct EndAtDrop<'a>(&'a Progress);

impl Drop for EndAtDrop<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
