//! Runs an attack, and measures what it costs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::attacker::yield_to_others;
use crate::bystanders::{Bystanders, Times};
use crate::support::{Gateway, eventually};

/// How often quiet and attack take turns in one try.
pub(crate) const ROUNDS: usize = 5;

/// Something else on the machine may disturb a try; what the gateway does, disturbs each.
pub(crate) const TRIES: usize = 5;

/// How much slower the bystanders may get.
pub(crate) const FACTOR: u32 = 3;

/// What a wake-up may take longer where the kernel is busy: the attackers are on the same two cores,
/// and their side of each connection is work of the kernel's, whatever the gateway does.
pub(crate) const WAKE_UP: Duration = Duration::from_millis(1);

/// What a time slice of the kernel's scheduler may add, where an attacker keeps the gateway's own
/// threads as busy as a busy service may.
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

/// Lets the attack run against the gateway while bystanders talk. It has begun once `has_begun`
/// says so; the gateway's memory may grow by `memory_mib` meanwhile.
pub(crate) fn endure(
    gateway: &Gateway,
    memory_mib: u64,
    has_begun: impl Fn(&Gateway) -> bool,
    attack: impl Fn(&Gateway, &Progress) + Sync,
) {
    endure_for(WAKE_UP, gateway, memory_mib, has_begun, attack);
}

/// As [`endure`], where the attacker does what a service may do: it has its share of the threads.
pub(crate) fn endure_a_share(
    gateway: &Gateway,
    memory_mib: u64,
    attack: impl Fn(&Gateway, &Progress) + Sync,
) {
    endure_for(TIME_SLICE, gateway, memory_mib, |_| true, attack);
}

fn endure_for(
    slack: Duration,
    gateway: &Gateway,
    memory_mib: u64,
    has_begun: impl Fn(&Gateway) -> bool,
    attack: impl Fn(&Gateway, &Progress) + Sync,
) {
    let mut bystanders = Bystanders::new(gateway);
    let before = gateway.memory_kib("VmRSS");
    let is_met = (0..TRIES).any(|_| {
        let (mut quiet, mut attacked, mut longest) = (Vec::new(), Vec::new(), Duration::ZERO);
        for _ in 0..ROUNDS {
            quiet.push(bystanders.times().p99);
            let times = under_attack(gateway, &has_begun, &attack, &mut bystanders);
            attacked.push(times.p99);
            longest = longest.max(times.longest);
        }
        let (quiet, attacked) = (median(quiet), median(attacked));
        println!("p99 of the bystanders: {quiet:?} in quiet, {attacked:?} under attack; longest {longest:?}");
        attacked <= quiet * FACTOR + slack
    });
    let grown = gateway.memory_kib("VmHWM").saturating_sub(before) / 1024;
    println!("memory grew by {grown} MiB, {memory_mib} are allowed");
    assert!(is_met, "the bystanders' deliveries take more than {FACTOR} times what they do in quiet");
    assert!(grown <= memory_mib, "memory grew by {grown} MiB, {memory_mib} are allowed");
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
            yield_to_others();
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
