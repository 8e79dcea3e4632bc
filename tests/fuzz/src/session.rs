//! Sessions: random lives of a few services, with every rule checked after each step.
//!
//! The input is a program: each step is one byte that says what happens, and a few that say to whom.
//! Around the real sessions, routes, parcels and accounts stands a small [`world`]: each session's
//! actor mailbox is a queue, each connection a list of what it was handed, and time only passes
//! when a step says so. What is to become of each message stands in the [`ledger`].

mod burst;
mod ledger;
mod service;
mod world;

use std::time::Duration;

use gateway::protocol::close::Close;

use self::burst::Send;
use self::service::Health;
use self::world::{SERVICES, World};

/// Longer programs find nothing that shorter ones do not.
const MAX_STEPS: usize = 200;

/// Sizes of `d`: about where a frame's header changes, and about what a connection may be handed.
const SIZES: [usize; 16] = [0, 0, 0, 1, 5, 20, 60, 70, 80, 150, 150, 1000, 65_500, 90_000, 130_000, 270_000];

/// Large messages are slow: after so many bytes a program sends small ones only.
const MAX_LARGE_BYTES: usize = 500_000;

pub fn run(input: &[u8]) {
    let mut choices = Choices { bytes: input, large_bytes: MAX_LARGE_BYTES };
    let mut world = World::new();
    for _ in 0..MAX_STEPS {
        if choices.bytes.is_empty() {
            break;
        }
        step(&mut world, &mut choices);
        world.check();
    }
    world.settle();
    world.check();
    world.check_ends();
}

fn step(world: &mut World, choices: &mut Choices<'_>) {
    match choices.below(22) {
        0..=2 => send(world, choices),
        3..=5 => {
            let (service, parcels) = (choices.service(), 1 + choices.below(4));
            (0..parcels).for_each(|_| world.handle(service));
        }
        6 => world.write(choices.service(), choices.below(256) * 2000, choices.below(256)),
        7 => world.write(choices.service(), usize::MAX, usize::MAX),
        8 => world.attach(choices.service(), choices.below(2) == 1),
        9 => world.acknowledge(choices.service(), choices.below(256)),
        10 => world.acknowledge_wrongly(choices.service(), choices.below(2) == 1),
        11 => world.detach(choices.service(), choices.below(4) == 3),
        12 => world.go_down(choices.service()),
        13 => world.lose(choices.service()),
        14 => world.release(choices.service(), choices.below(4) == 3),
        15 => world.presence(choices.service(), choices.below(256), [1, 1, 2, 12, 50, 255][choices.below(6)]),
        16 => world.shard_wait(choices.service()),
        17 => world.op(choices.service(), choices.below(2) == 1),
        18 => {
            let close = [Close::ShutDown, Close::Rebooted][choices.below(2)];
            world.close_after(choices.service(), Duration::from_secs(choices.below(20) as u64), close);
        }
        19 => world.close(choices.service()),
        20 => match choices.below(3) {
            0 => world.end_burst(choices.below(4) != 3),
            1 => world.late(choices.below(8), choices.below(6)),
            _ => {
                let health = [Health::Well, Health::Silent, Health::Stuck][choices.below(3)];
                world.set_health(choices.service(), health);
            }
        },
        _ => world.pass(Duration::from_millis([1, 400, 1000, 3000, 5000, 31_000][choices.below(6)])),
    }
}

fn send(world: &mut World, choices: &mut Choices<'_>) {
    let (from, to) = (choices.service(), choices.service());
    let flags = choices.below(256);
    let sizes = (0..=flags & 3).map(|_| choices.size()).collect();
    world.send(&Send {
        from,
        to,
        sizes,
        shape: flags >> 2 & 3,
        is_spelled: flags & 0x10 != 0,
        wants_receipts: flags & 0x20 != 0,
        ends_burst: flags & 0xC0 != 0xC0,
        may_refuse: flags & 0x40 != 0,
    });
}

/// What decides. Runs into zeros, so that shorter means simpler.
struct Choices<'a> {
    bytes: &'a [u8],
    large_bytes: usize,
}

impl Choices<'_> {
    fn below(&mut self, bound: usize) -> usize {
        let Some((first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        usize::from(*first) % bound
    }

    fn service(&mut self) -> usize {
        self.below(SERVICES)
    }

    fn size(&mut self) -> usize {
        let size = SIZES[self.below(SIZES.len())];
        if size > 1000 {
            match self.large_bytes.checked_sub(size) {
                Some(left) => self.large_bytes = left,
                None => return 0,
            }
        }
        size
    }
}
