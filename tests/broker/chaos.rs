//! Random services send numbered messages while random faults are injected; at the end every
//! message has exactly one end, and the account says so.
//!
//! Each run is made from a seed, which is printed where it fails. `GATEWAY_CHAOS_SEEDS` says how
//! many are run (200), `GATEWAY_CHAOS_FIRST` which is the first (0). Every other run ends by SIGTERM
//! in the middle of the traffic.

mod actor;
mod ends;
mod random;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use nix::sys::signal::Signal;

use self::actor::Actor;
use self::ends::{Counted, Sent};
use self::random::Random;
use crate::support::{Gateway, eventually};

const SERVICES: usize = 4;
const STEPS: usize = 80;

/// Runs at the same time: most of their time they wait.
const AT_ONCE: usize = 12;

struct Run {
    gateway: Gateway,
    random: Random,
    actors: Vec<Actor>,
    sent: Sent,
}

impl Run {
    fn new(seed: u64) -> Self {
        let gateway = Gateway::start(&[
            "--workers=2",
            "--mailbox-messages=40",
            "--max-unacked=8",
            "--hold-ms=5",
            "--resume-window-ms=600000",
            "--heartbeat-ms=60000",
            "--identify-timeout-ms=600000",
            "--log=warn,gateway::server=debug",
        ]);
        let actors = (0..SERVICES).map(Actor::new).collect();
        let mut run = Self { gateway, random: Random(seed), actors, sent: Sent::new() };
        for actor in &mut run.actors {
            actor.start(&run.gateway, false);
        }
        run
    }

    fn step(&mut self) {
        let index = self.random.below(SERVICES);
        let choice = self.random.below(100);
        let actor = &mut self.actors[index];
        if actor.connection.is_none() {
            actor.start(&self.gateway, choice.is_multiple_of(2));
            return;
        }
        match choice {
            0..45 => self.send(index),
            45..66 => drop(actor.read(50)),
            66..78 => actor.acknowledge(),
            78..80 => actor.vanish(),
            80..82 => actor.reset(),
            82 => actor.open_spare(&self.gateway),
            83 => actor.start_and_die(&self.gateway),
            84..86 => actor.freeze(),
            86..88 => actor.deaf_for = 10,
            88..90 => {
                // Another process takes it over.
                let old = actor.connection.take();
                actor.has_lost = true;
                actor.start(&self.gateway, true);
                drop(old);
            }
            90..92 => actor.leave(),
            92..94 => actor.provoke("session", 1),
            94 => {
                // Too often: it is given up.
                actor.provoke("session", 6);
                actor.has_lost = true;
                actor.was_down = true;
            }
            95 => actor.provoke("connection", 1),
            96..98 => actor.provoke("gateway", 1),
            _ => actor.provoke("allocator", 1),
        }
    }

    fn send(&mut self, from: usize) {
        let (to, count) = (self.random.below(SERVICES), 1 + self.random.below(12) as u64);
        let first = self.sent.len() as u64;
        for number in first..first + count {
            self.sent.insert(number, (from, to));
        }
        self.actors[from].send(to, first..first + count);
    }

    /// Everybody comes back and takes and acknowledges all there is, until nothing is queued.
    fn settle(&mut self) {
        let Self { gateway, actors, .. } = self;
        eventually("nothing is queued", || {
            for actor in actors.iter_mut() {
                actor.deaf_for = 0;
                if actor.connection.is_none() || !actor.read(10_000) {
                    actor.start(gateway, true);
                }
                actor.acknowledge();
            }
            let sum = &gateway.get_json("/api/v1/accounting")["sum"];
            (sum["queued"]["messages"] == 0 && gateway.metric("gateway_mailbox_bytes", "") == 0).then_some(())
        });
        for actor in actors {
            actor.read(10_000);
        }
    }

    /// Stops the gateway; whoever is connected reads and acknowledges until it has gone.
    fn stop(&mut self) {
        self.gateway.signal(Signal::SIGTERM);
        let Self { gateway, actors, .. } = self;
        // Whoever is away, or frozen, is not waited for.
        for actor in actors.iter_mut() {
            actor.was_down |= actor.connection.is_none() || actor.is_contested;
            actor.deaf_for = 0;
        }
        eventually("all connections are closed", || {
            for actor in actors.iter_mut() {
                actor.read(10_000);
                actor.acknowledge();
            }
            actors.iter().all(|actor| actor.connection.is_none()).then_some(())
        });
        assert_eq!(gateway.wait().code(), Some(0));
    }

    /// What the gateway that has stopped counted, by target.
    fn counted(&self) -> Vec<Counted> {
        let [accepted, delivered, returned, dead, queued] = self.gateway.last_account("stopped; messages: ");
        assert_eq!((accepted, queued), (delivered + returned + dead, 0), "the account balances");
        let of = |target: usize| {
            let sources = (0..SERVICES).map(|source| format!("from s{source} to s{target}: "));
            let mut sum = [0; 5];
            for account in sources.map(|start| self.gateway.last_account(&start)) {
                sum.iter_mut().zip(account).for_each(|(sum, part)| *sum += part);
            }
            let [accepted, delivered, returned, dead, queued] = sum;
            assert_eq!((accepted, queued), (delivered + returned + dead, 0), "s{target} balances");
            Counted { delivered, returned, dead }
        };
        (0..SERVICES).map(of).collect()
    }
}

fn run(seed: u64) {
    let mut run = Run::new(seed);
    for _ in 0..STEPS {
        run.step();
    }
    if seed.is_multiple_of(2) {
        run.settle();
    }
    run.stop();
    let counted = run.counted();
    ends::check(&run.sent, &run.actors, &counted);
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a whole number"))
}

#[test]
fn whatever_fails_every_message_has_one_end() {
    let first = setting("GATEWAY_CHAOS_FIRST", 0);
    let end = first + setting("GATEWAY_CHAOS_SEEDS", 200);
    let next = AtomicU64::new(first);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let failed = thread::Builder::new().name(format!("seed {seed}")).spawn(move || run(seed));
                    assert!(
                        failed.unwrap().join().is_ok(),
                        "failed with seed {seed}: GATEWAY_CHAOS_FIRST={seed} GATEWAY_CHAOS_SEEDS=1"
                    );
                }
            });
        }
    });
}
