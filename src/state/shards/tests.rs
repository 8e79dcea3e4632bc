//! Each rule of the pool as a sentence.

mod leases;
mod losing;
mod operating;
mod pacing;
mod resharding;
mod restarting;

use super::reshard::MAX_SHARDS;
use super::*;
use crate::protocol::op::{self, LeaseState};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;

/// Unix time at the start of every scene.
const START: u64 = 1_700_000_000_000;

/// A pool, and who asks it: each request is numbered, and each answer told as one line. A second goes
/// by before each step.
struct Table {
    pool: ShardPool<u32>,
    settings: Settings,
    stored: Snapshot,
    requests: u32,
    now: Now,
}

impl Table {
    /// Without pacing.
    fn of(shard_count: u32) -> Self {
        Self::with(shard_count, |settings| settings.identify_interval = Duration::ZERO)
    }

    /// With one key.
    fn paced(shard_count: u32) -> Self {
        Self::with(shard_count, |_| {})
    }

    fn with(shard_count: u32, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            shard_count: Some(shard_count),
            max_concurrency: 1,
            asks_discord: true,
            identify_interval: Duration::from_millis(5_500),
            permit_ttl: Duration::from_secs(5),
            resume_window: Duration::from_secs(30),
            heartbeat: Duration::from_secs(5),
        };
        change(&mut settings);
        let now = Now { instant: Instant::now(), unix_ms: START, stood_still: Duration::ZERO };
        let pool = ShardPool::restore(Snapshot::default(), settings, now).unwrap();
        Self { pool, settings, stored: Snapshot::default(), requests: 0, now }
    }

    /// Lets that many ms go by.
    fn pass(&mut self, ms: u64) {
        self.now.instant += Duration::from_millis(ms);
        self.now.unix_ms += ms;
    }

    fn step(&mut self, input: Input<u32>) -> Vec<String> {
        self.pass(SECOND);
        let actions = self.pool.step(input, self.now);
        self.note(&actions)
    }

    /// Discord answers at once.
    fn limit(&mut self, limit: SessionStartLimit) -> Vec<String> {
        let asked_at = self.now.instant + self.now.stood_still + Duration::from_millis(SECOND);
        self.step(Input::SessionStartLimit { limit, asked_at })
    }

    fn operate(&mut self, command: Command) -> (Result<Done, CommandError>, Vec<String>) {
        self.pass(SECOND);
        let (answer, actions) = self.pool.operate(command, self.now);
        (answer, self.note(&actions))
    }

    fn note_stored(&mut self, actions: &[Action<u32>]) {
        for action in actions {
            if let Action::Persist(changes) = action {
                for change in changes {
                    self.stored.apply(change);
                }
            }
        }
    }

    fn note(&mut self, actions: &[Action<u32>]) -> Vec<String> {
        self.note_stored(actions);
        self.pool.check_invariants();
        let timeline = &self.pool.timeline;
        let stored = self.stored.shifted(-timeline.drift_ms(self.now), -timeline.real_drift_ms(self.now));
        assert_eq!(stored, self.pool.snapshot(), "what is stored");
        actions.iter().filter_map(line).collect()
    }

    /// What happens by itself in that many ms.
    fn wait(&mut self, ms: u64) -> Vec<String> {
        let end = self.now.instant + Duration::from_millis(ms);
        let mut lines = Vec::new();
        while let Some(wake) = self.pool.next_wake().filter(|wake| *wake <= end) {
            let pause = wake.saturating_duration_since(self.now.instant);
            self.pass(u64::try_from(pause.as_millis()).unwrap());
            let actions = self.pool.step(Input::Wake, self.now);
            lines.extend(self.note(&actions));
        }
        let rest = end.saturating_duration_since(self.now.instant);
        self.pass(u64::try_from(rest.as_millis()).unwrap());
        lines
    }

    /// The gateway is killed, and is back after that many ms.
    fn restart_after(&mut self, ms: u64) {
        self.pass(ms);
        self.pool = ShardPool::restore(self.stored.clone(), self.settings, self.now).unwrap();
        for change in &self.pool.catch_up(self.now) {
            self.stored.apply(change);
        }
    }

    fn connect(&mut self, service: &str, connect: op::ShardConnect) -> Vec<String> {
        self.requests += 1;
        self.step(Input::Connect { service: name(service), request: self.requests, connect })
    }

    /// `SHARD_CONNECT` for any id.
    fn ask(&mut self, service: &str) -> Vec<String> {
        self.connect(service, op::ShardConnect::default())
    }

    /// `SHARD_CONNECT` for that id.
    fn claim(&mut self, service: &str, id: u32) -> Vec<String> {
        self.connect(service, op::ShardConnect { shard_id: Some(id), ..Default::default() })
    }

    /// `SHARD_CONNECT` for that id, which is connected to Discord already.
    fn claim_connected(&mut self, service: &str, id: u32) -> Vec<String> {
        let connect = op::ShardConnect { shard_id: Some(id), identify: Some(false), ..Default::default() };
        self.connect(service, connect)
    }

    fn death(&mut self, service: &str, shard_id: Option<u32>) -> Vec<String> {
        self.die(service, op::ShardDeath { shard_id, ..Default::default() })
    }

    fn die(&mut self, service: &str, death: op::ShardDeath) -> Vec<String> {
        self.requests += 1;
        self.step(Input::Death { service: name(service), request: self.requests, death })
    }

    /// `SHARD_STATE`
    fn tell(&mut self, service: &str, shard_id: u32, state: LeaseState) -> Vec<String> {
        self.tell_with(service, op::ShardState { shard_id, shard_count: None, state, resume: None })
    }

    fn tell_with(&mut self, service: &str, state: op::ShardState) -> Vec<String> {
        self.requests += 1;
        self.step(Input::State { service: name(service), request: self.requests, state })
    }

    fn away(&mut self, service: &str) -> Vec<String> {
        self.step(Input::Away { service: name(service), last_frame: None })
    }

    /// It is told its ids without a connection.
    fn heard(&mut self, service: &str) -> Vec<String> {
        self.step(Input::Heard { service: name(service) })
    }

    fn resumed(&mut self, service: &str) -> Vec<String> {
        self.step(Input::Resumed { service: name(service) })
    }

    /// It leaves for good.
    fn down(&mut self, service: &str) -> Vec<String> {
        self.step(Input::Down { service: name(service), departure: Departure::Left })
    }

    /// It is down, and nobody knows whether it noticed.
    fn vanish(&mut self, service: &str) -> Vec<String> {
        let departure = Departure::Vanished { last_frame: None };
        self.step(Input::Down { service: name(service), departure })
    }

    fn shards_of(&self, service: &str) -> Vec<u32> {
        self.pool.shards_of(service).into_iter().map(|id| id.0).collect()
    }

    /// How an id of the current generation stands, and what it waits for.
    fn view(&self, id: usize) -> ShardView {
        self.pool.report(self.now).shards[id].clone()
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// `#2 b: waits at 1`; requests are numbered from 1, an op at a time. What is stored is no line.
fn line(action: &Action<u32>) -> Option<String> {
    Some(match action {
        Action::Accept { service, request, accept, .. } => {
            let resume = accept.resume.as_ref().map(|it| format!(" resumes {}", it.as_json()));
            let (id, epoch) = (accept.shard_id, accept.epoch.0);
            format!("#{request} {service}: has {id} epoch {epoch}{}", resume.unwrap_or_default())
        }
        Action::Wait { service, request, wait } => {
            let reason = match wait.reason {
                op::WaitReason::NoFreeShard => String::new(),
                reason => format!(" {}", reason.as_str()),
            };
            let retry = wait.retry_after_ms.map(|ms| format!(" for {ms} ms")).unwrap_or_default();
            format!("#{request} {service}: waits at {}{reason}{retry}", wait.position)
        }
        Action::Refuse { service, request, error } => {
            format!("#{request} {service}: {}: {}", error.code.as_str(), error.message)
        }
        Action::Holder { shard, holder: Some(holder) } => format!("{} to {holder}", shard.shard_id),
        Action::Holder { shard, holder: None } => format!("{} free", shard.shard_id),
        Action::Switch { shard_count, holders } => {
            let holders: Vec<_> =
                holders.iter().map(|it| it.as_ref().map_or("-", Name::as_str).to_owned()).collect();
            format!("now {shard_count}: {}", holders.join(" "))
        }
        Action::Live { service, live } => format!("{service}: live {}/{}", live.shard_id, live.shard_count),
        Action::Revoke { service, revoke } => {
            format!("{service}: revoked {}/{}", revoke.shard_id, revoke.shard_count)
        }
        Action::Shutdown { service, .. } => format!("{service}: shutdown"),
        Action::Reboot { service, .. } => format!("{service}: reboot"),
        Action::Warn(warning) => format!("! {warning}"),
        Action::Persist(_) => return None,
    })
}
