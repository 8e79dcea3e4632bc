//! The pool of 4,096 shard ids, all but one of which are held, each by a service of its own; 64 more
//! wait where none is free.

use std::time::{Duration, Instant};

use gateway::protocol::name::{ConnectionId, Name};
use gateway::protocol::op::{LeaseState, ShardConnect, ShardDeath, ShardState};
use gateway::state::shards::{Action, Departure, Input, Now, Settings, ShardPool, Snapshot};

const SHARDS: u32 = 4_096;
const WAITING: u32 = 64;

const SETTINGS: Settings = Settings {
    shard_count: Some(SHARDS),
    max_concurrency: 16,
    asks_discord: true,
    identify_interval: Duration::from_millis(5_500),
    permit_ttl: Duration::from_secs(5),
    resume_window: Duration::from_secs(30),
    heartbeat: Duration::from_secs(5),
};

pub(crate) struct Pool {
    shards: ShardPool<ConnectionId>,
    now: Now,
    next: Input<ConnectionId>,
}

/// Which input comes next.
#[derive(Clone, Copy)]
pub(crate) enum Next {
    /// SHARD_CONNECT, which gets the last free id.
    Connect,
    /// SHARD_STATE `ready`.
    Ready,
    /// SHARD_DEATH with a code after which Discord has to be identified with anew.
    Death,
    /// A holder leaves, and who has waited longest gets its id.
    Left,
    /// Nothing but time.
    Wake,
}

impl Pool {
    /// One with that to do next.
    pub(crate) fn before(next: Next) -> Self {
        let now = Now { instant: Instant::now(), unix_ms: 1_700_000_000_000, stood_still: Duration::ZERO };
        let pool = ShardPool::restore(Snapshot::default(), SETTINGS, now).unwrap();
        let mut table = Self { shards: pool, now, next: Input::Wake };
        let is_last_free = matches!(next, Next::Connect);
        let askers = if is_last_free { SHARDS - 1 } else { SHARDS + WAITING };
        (0..askers).for_each(|index| table.connect(index));
        let (service, request) = asker(7);
        table.next = match next {
            Next::Connect => {
                let (service, request) = asker(askers);
                table.step(Input::Resumed { service: service.clone() });
                Input::Connect { service, request, connect: ShardConnect::default() }
            }
            Next::Ready => {
                let shard_id = table.shard_of(&service);
                let state =
                    ShardState { shard_id, shard_count: None, state: LeaseState::Ready, resume: None };
                Input::State { service, request, state }
            }
            Next::Death => {
                let death = ShardDeath { close_code: Some(4_009), ..ShardDeath::default() };
                Input::Death { service, request, death }
            }
            Next::Left => Input::Down { service, departure: Departure::Left },
            Next::Wake => Input::Wake,
        };
        table
    }

    fn shard_of(&self, service: &Name) -> u32 {
        self.shards.shards_of(service.as_str())[0].0
    }

    fn connect(&mut self, index: u32) {
        let (service, request) = asker(index);
        self.step(Input::Resumed { service: service.clone() });
        self.step(Input::Connect { service, request, connect: ShardConnect::default() });
    }

    /// With time enough for the next permit of every key.
    fn step(&mut self, input: Input<ConnectionId>) -> Vec<Action<ConnectionId>> {
        self.now.instant += Duration::from_secs(20);
        self.now.unix_ms += 20_000;
        self.shards.step(input, self.now)
    }

    /// Takes the next input, and asks when to come again, as a driver does.
    pub(crate) fn go_on(&mut self) -> (Vec<Action<ConnectionId>>, Option<Instant>) {
        let next = std::mem::replace(&mut self.next, Input::Wake);
        (self.step(next), self.shards.next_wake())
    }
}

fn asker(index: u32) -> (Name, ConnectionId) {
    (Name::new(&format!("shard-{index}")).unwrap(), ConnectionId(u64::from(index) + 1))
}
