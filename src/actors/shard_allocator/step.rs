//! What the pool decided at one moment, on its way: stored, then told. And the time by which the pool goes,
//! which stands still meanwhile.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;

use super::{Answer, ShardActions};
use crate::actors::link::OpPermit;
use crate::protocol::name::{ConnectionId, Name};
use crate::protocol::op::{ShardWait, WaitReason};
use crate::state::shards::{Action, Change, Input, Now, Report};

/// A write that took so much longer than was reckoned with counts as failed, and is done again with its
/// times moved: after a restart nothing but the store tells when a permit was given. Discord wants 5 s
/// between two, and `identify_interval_ms` is so much more.
const LATEST: Duration = Duration::from_millis(500);

/// No write is reckoned to take longer. A disk that is slower than that grants nothing.
const SLOWEST_WRITE: Duration = Duration::from_hours(1);

/// What a write usually takes at most. The times of a step that waited longer are moved.
const USUAL_WRITE: Duration = Duration::from_millis(20);

/// How far the pool's time goes on at most while a step waits with which no time [begins](begins_time): by so
/// much what came meanwhile is taken in too late, such as that a holder IDENTIFIED just before its permit ran
/// out. Half of what permits have to spare.
const LONGEST_PASSAGE: Duration = Duration::from_millis(250);

/// What the pool decided at one moment, of one input or of several.
pub(super) struct Step {
    /// To be stored, all at once, before anything else is done.
    changes: Vec<Change>,
    /// Of each input.
    done: Vec<ShardActions>,
    /// Who is to be told then how the pool stands.
    pub(super) reports: Vec<oneshot::Sender<Report>>,
    decided: Instant,
    /// How far the times in `changes` have been moved.
    moved_ms: i64,
    /// How many get an id by it.
    pub(super) granted: usize,
    /// Whether one of its actions [begins a time](begins_time) for who is told of it.
    begins_time: bool,
    /// Whether it was put [off](Self::put_off).
    pub(super) is_put_off: bool,
}

/// Why a step is not stored.
pub(super) enum Unstored {
    Failed(String),
    /// It is stored, but so late that its times are wrong.
    Late(String),
}

impl Step {
    pub(super) fn new(decided: Instant) -> Self {
        Self {
            changes: Vec::new(),
            done: Vec::new(),
            reports: Vec::new(),
            decided,
            moved_ms: 0,
            granted: 0,
            begins_time: false,
            is_put_off: false,
        }
    }

    /// Adds what came of one more input.
    pub(super) fn add(
        &mut self,
        mut actions: Vec<Action<ConnectionId>>,
        permit: Option<OpPermit>,
        answer: Option<Answer>,
    ) {
        self.begins_time |= actions.iter().any(begins_time);
        actions.retain_mut(|action| match action {
            Action::Persist(persist) => {
                self.changes.append(persist);
                false
            }
            Action::Accept { .. } => {
                self.granted += 1;
                true
            }
            _ => true,
        });
        if !actions.is_empty() || answer.is_some() {
            self.done.push(ShardActions { actions, permit, answer });
        }
    }

    /// What is to be stored now, if anything is. To be [kept](Self::keep) where that goes wrong.
    pub(super) fn take_changes(&mut self, pace: &Pace) -> Vec<Change> {
        self.move_times(pace.reckoned);
        std::mem::take(&mut self.changes)
    }

    /// They are to be stored again.
    pub(super) fn keep(&mut self, changes: Vec<Change>) {
        self.changes = changes;
    }

    /// Brings the times of a step that waited to the moment at which it will be stored.
    fn move_times(&mut self, reckoned: Duration) {
        let late = self.decided.elapsed() + reckoned;
        if late > USUAL_WRITE {
            let late_ms = i64::try_from(late.as_millis()).unwrap_or(i64::MAX);
            let by = late_ms - self.moved_ms;
            self.changes.iter_mut().for_each(|change| change.shift(by));
            self.moved_ms = late_ms;
        }
    }

    /// For how long the pool's time stands still for it, and what is to be done now that it is stored.
    /// What was left to resume with is not told where it grew stale meanwhile.
    pub(super) fn into_done(mut self) -> (Duration, Vec<ShardActions>) {
        let waited = self.decided.elapsed();
        for action in self.done.iter_mut().flat_map(|done| &mut done.actions) {
            if let Action::Accept { accept, resume_for, .. } = action
                && waited >= *resume_for
            {
                accept.resume = None;
            }
        }
        (standstill(waited, self.begins_time), self.done)
    }

    /// Who gets an id by it, and by which request.
    fn accepted(&self) -> impl Iterator<Item = (Name, ConnectionId)> {
        self.actions().filter_map(|action| match action {
            Action::Accept { service, request, .. } => Some((service.clone(), *request)),
            _ => None,
        })
    }

    fn actions(&self) -> impl Iterator<Item = &Action<ConnectionId>> {
        self.done.iter().flat_map(|done| &done.actions)
    }

    /// It is not stored for now: operators are told, and, by what is returned, once, who waits for an id.
    pub(super) fn put_off(&mut self) -> Vec<Action<ConnectionId>> {
        self.done.iter_mut().flat_map(|done| &mut done.answer).for_each(Answer::put_off);
        if std::mem::replace(&mut self.is_put_off, true) {
            return Vec::new();
        }
        let mut places: HashMap<_, u64> = HashMap::new();
        for (position, asker) in (1..).zip(self.accepted()) {
            places.entry(asker).or_insert(position);
        }
        // What else somebody waits for who gets an id is told when this is stored; of several places of one
        // request the last one counts.
        let granted = self.granted as u64;
        let accepted: HashSet<_> = self.accepted().collect();
        for action in self.actions() {
            if let Action::Wait { service, request, wait } = action
                && !accepted.contains(&(service.clone(), *request))
            {
                places.insert((service.clone(), *request), granted + wait.position);
            }
        }
        let stands_still = |((service, request), position)| stands_still(service, request, position);
        places.into_iter().map(stands_still).collect()
    }
}

/// What a service is told whose request waits for the store.
pub(super) fn stands_still(service: Name, request: ConnectionId, position: u64) -> Action<ConnectionId> {
    let wait = ShardWait { reason: WaitReason::Frozen, position, retry_after_ms: None };
    Action::Wait { service, request, wait }
}

/// Who asks for an id, and by which request.
pub(super) fn asker(input: &Input<ConnectionId>) -> Option<(Name, ConnectionId)> {
    match input {
        Input::Connect { service, request, .. } => Some((service.clone(), *request)),
        _ => None,
    }
}

/// How long the disk takes. What is stored is written as of the end of its write: a disk that always
/// takes long would else never be in time. Stored too late does no harm: after a restart a permit then
/// holds a little longer.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// What the next write is reckoned to take.
    reckoned: Duration,
}

impl Pace {
    /// A write took that long; the error says so where that was too long for what it wrote. The next
    /// one is reckoned to take twice as long then, so that one of few is in time; a quick disk halves
    /// that again each time.
    pub(super) fn note(&mut self, took: Duration) -> Result<(), String> {
        let most = self.reckoned + LATEST;
        if took > most {
            self.reckoned = (took * 2).min(SLOWEST_WRITE);
            return Err(format!("{took:?}, expected {most:?} at most; it is done again as of later"));
        }
        let halved = if self.reckoned > LATEST { self.reckoned / 2 } else { Duration::ZERO };
        self.reckoned = if took > LATEST { took.max(halved) } else { halved };
        Ok(())
    }
}

/// Whether a time of the pool's begins for whoever is told of that: until the next permit of the same key, or
/// until a holder must have noticed that it lost an id.
fn begins_time(action: &Action<ConnectionId>) -> bool {
    matches!(
        action,
        Action::Accept { permit: true, .. }
            | Action::Revoke { .. }
            | Action::Shutdown { .. }
            | Action::Reboot { .. }
    )
}

/// For how long the pool's time stands still for a step that `waited` so long. What it decided leaves only
/// after that wait; were the time to pass meanwhile, the next permit of the same key would follow too soon, and
/// an id be free before its holder let go. Where the step [begins](begins_time) no such time, it passes: else
/// whoever has much stored on a slow disk would keep everybody's permits back. But not in one long leap, over
/// all that came meanwhile.
fn standstill(waited: Duration, begins_time: bool) -> Duration {
    if begins_time { waited } else { waited.saturating_sub(LONGEST_PASSAGE) }
}

/// The pool's time: the real one, less what was spent in [waiting](standstill) for the disk.
#[derive(Default)]
pub(super) struct Clock {
    stood_still: Duration,
}

impl Clock {
    pub(super) fn now(&self) -> Now {
        let real = now();
        let instant = real.instant.checked_sub(self.stood_still).unwrap_or(real.instant);
        Now { instant, stood_still: self.stood_still, ..real }
    }

    /// How long until that moment of the pool's.
    pub(super) fn until(&self, moment: Instant) -> Duration {
        (moment + self.stood_still).saturating_duration_since(Instant::now())
    }

    /// It has stood still for so long.
    pub(super) fn stand_still(&mut self, time: Duration) {
        self.stood_still += time;
    }
}

/// What reading two clocks takes at most; whoever was interrupted meanwhile reads them again.
const BETWEEN_CLOCKS: Duration = Duration::from_millis(5);

/// By both clocks.
pub(crate) fn now() -> Now {
    let read = || (Instant::now(), SystemTime::now());
    let (mut instant, mut wall) = read();
    for _ in 0..3 {
        if instant.elapsed() <= BETWEEN_CLOCKS {
            break;
        }
        (instant, wall) = read();
    }
    let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let unix_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    Now { instant, unix_ms, stood_still: Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::name::{Epoch, ShardId};
    use crate::protocol::op;
    use crate::state::shards::{PermitRecord, Shard, Warning};
    use crate::store::Store;

    fn step_of(actions: Vec<Action<ConnectionId>>) -> Step {
        let mut step = Step::new(Instant::now());
        step.add(actions, None, None);
        step
    }

    fn step() -> Step {
        let shard = Shard { shard_count: 1, shard_id: ShardId(0) };
        let record = PermitRecord { shard, epoch: Epoch(1), granted_ms: 1000, next_ms: 6500, used: false };
        let warning = Warning::BudgetExhausted { total: 1, resets_in_ms: 1 };
        step_of(vec![Action::Persist(vec![Change::Permit { key: 0, record }]), Action::Warn(warning)])
    }

    fn accept(permit: bool) -> Action<ConnectionId> {
        let accept = op::ShardAccept {
            shard_id: ShardId(0),
            shard_count: 1,
            epoch: Epoch(1),
            max_concurrency: 1,
            resume: op::Resume::new("{}"),
        };
        let (service, request) = (Name::new("a").unwrap(), ConnectionId(1));
        Action::Accept { service, request, accept, permit, resume_for: Duration::from_mins(2) }
    }

    fn write(step: &mut Step, store: &mut Store, pace: &Pace) {
        let changes = step.take_changes(pace);
        store.apply(&changes).unwrap();
        step.keep(changes);
    }

    #[test]
    fn a_step_that_waited_is_stored_as_of_the_moment_that_it_leaves() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(directory.path()).unwrap();
        let mut step = step();
        for waited_ms in [60_000, 90_000] {
            step.decided = Instant::now().checked_sub(Duration::from_millis(waited_ms)).unwrap();
            write(&mut step, &mut store, &Pace::default());
            let permit = store.snapshot().unwrap().permits[&0];
            let waited = (permit.granted_ms - 1000, permit.next_ms - 6500);
            assert!(
                waited.0 >= waited_ms && waited.0 < waited_ms + 10_000 && waited.0 == waited.1,
                "{waited:?}"
            );
        }
        let (_, done) = step.into_done();
        assert!(matches!(done[0].actions[..], [Action::Warn(_)]), "stored before the rest is done");
    }

    #[test]
    fn what_several_inputs_changed_is_stored_at_once_and_told_input_by_input() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(directory.path()).unwrap();
        let epoch = |epoch| Change::Epoch { shard_id: ShardId(0), epoch: Epoch(epoch) };
        let warning = |remaining| Warning::BudgetLow { remaining, total: 1, resets_in_ms: 1 };
        let mut step = Step::new(Instant::now());
        for number in [1, 2] {
            step.add(vec![Action::Persist(vec![epoch(number)]), Action::Warn(warning(number))], None, None);
        }
        write(&mut step, &mut store, &Pace::default());
        assert_eq!(store.snapshot().unwrap().epochs[&ShardId(0)], Epoch(2), "the later one stands");
        let (_, done) = step.into_done();
        let told = done.iter().map(|done| &done.actions[..]);
        let told: Vec<_> = told.map(|actions| matches!(actions, [Action::Warn(_)])).collect();
        assert_eq!(told, [true, true]);
    }

    #[test]
    fn whoever_asked_is_told_once_that_the_store_takes_nothing_whatever_else_came_with_it() {
        let asker = |name: &str| (Name::new(name).unwrap(), ConnectionId(1));
        let waits = |name: &str, position| {
            let (service, request) = asker(name);
            let wait = ShardWait { reason: WaitReason::NoFreeShard, position, retry_after_ms: None };
            Action::Wait { service, request, wait }
        };
        let mut step = step_of(vec![waits("a", 1), waits("b", 2)]);
        step.add(vec![accept(true), waits("b", 1)], None, None);
        let mut told: Vec<_> = step
            .put_off()
            .into_iter()
            .map(|action| match action {
                Action::Wait { service, wait, .. } => (service.to_string(), wait.reason, wait.position),
                other => panic!("{other:?}"),
            })
            .collect();
        told.sort_unstable_by_key(|(service, ..)| service.clone());
        let frozen = |service: &str, position| (service.to_owned(), WaitReason::Frozen, position);
        assert_eq!(told, [frozen("a", 1), frozen("b", 2)]);
        assert!(step.put_off().is_empty());
    }

    #[test]
    fn resume_data_that_grew_stale_while_its_step_waited_is_not_told() {
        let waited = |minutes: u64| {
            let mut step = step_of(vec![accept(true)]);
            step.decided = Instant::now().checked_sub(Duration::from_mins(minutes)).unwrap();
            let (_, done) = step.into_done();
            let [Action::Accept { accept, .. }] = &done[0].actions[..] else { panic!("{done:?}") };
            accept.resume.is_some()
        };
        assert_eq!([0, 1, 2, 60].map(waited), [true, true, false, false]);
    }

    #[test]
    fn a_time_begins_for_who_may_identify_and_for_who_lost_an_id_and_for_nobody_else() {
        let (service, shard) = (Name::new("a").unwrap(), Shard { shard_count: 1, shard_id: ShardId(0) });
        let (holder, reason) = (service.clone(), String::new);
        let begin = [
            accept(true),
            Action::Revoke {
                service: holder.clone(),
                revoke: op::ShardRevoke { shard_id: ShardId(0), shard_count: 1, reason: reason() },
            },
            Action::Shutdown { service: holder.clone(), reason: reason() },
            Action::Reboot { service: holder, reason: reason() },
        ];
        let others = [
            accept(false),
            stands_still(service.clone(), ConnectionId(1), 1),
            Action::Holder { shard, holder: None },
            Action::Live { service, live: op::ShardLive { shard_id: ShardId(0), shard_count: 1 } },
        ];
        assert!(!step_of(others.to_vec()).begins_time);
        for action in begin {
            let mut step = step_of(others.to_vec());
            step.add(vec![action.clone()], None, None);
            step.add(others.to_vec(), None, None);
            assert!(step.begins_time, "{action:?}");
        }
    }

    #[test]
    fn the_pools_time_passes_while_nobodys_begins_but_not_in_one_long_leap() {
        let stands_still = |waited_ms| {
            let waited = Duration::from_millis(waited_ms);
            [true, false].map(|begins_time| standstill(waited, begins_time).as_millis())
        };
        assert_eq!(stands_still(0), [0, 0]);
        assert_eq!(stands_still(1), [1, 0]);
        assert_eq!(stands_still(250), [250, 0]);
        assert_eq!(stands_still(60_000), [60_000, 59_750]);
    }

    #[test]
    fn the_pools_time_stands_still_for_as_long_as_a_permit_waited() {
        let mut step = step_of(vec![accept(true)]);
        step.decided = Instant::now().checked_sub(Duration::from_mins(1)).unwrap();
        let (standstill, _) = step.into_done();
        assert!(standstill >= Duration::from_mins(1), "{standstill:?}");
    }

    #[test]
    fn a_write_that_took_too_long_is_done_again() {
        let mut pace = Pace::default();
        assert!(pace.note(LATEST).is_ok());
        let why = pace.note(LATEST + Duration::from_millis(1)).expect_err("it passed");
        assert!(why.contains("501ms, expected 500ms at most"), "{why}");
    }

    #[test]
    fn a_disk_is_in_time_soon_however_slow_it_is_and_never_by_more_than_was_reckoned() {
        let mut dice = fastrand::Rng::with_seed(7);
        for slow_ms in [501, 700, 3_000, 60_000, 1_200_000] {
            let (mut pace, mut late_in_a_row) = (Pace::default(), 0);
            for _ in 0..1_000 {
                let took = Duration::from_millis(slow_ms + dice.u64(..slow_ms / 2));
                let most = pace.reckoned + LATEST;
                let is_late = pace.note(took).is_err();
                assert_eq!(is_late, took > most);
                late_in_a_row = if is_late { late_in_a_row + 1 } else { 0 };
                assert!(late_in_a_row <= 1, "{slow_ms} ms: again and again");
            }
            (0..30).for_each(|_| pace.note(Duration::from_millis(1)).unwrap());
            assert_eq!(pace.reckoned, Duration::ZERO, "a disk that has recovered is trusted");
        }
    }

    #[test]
    fn a_step_is_stored_as_of_the_end_of_its_write() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(directory.path()).unwrap();
        let pace = Pace { reckoned: Duration::from_mins(1) };
        write(&mut step(), &mut store, &pace);
        let permit = store.snapshot().unwrap().permits[&0];
        let moved = (permit.granted_ms - 1000, permit.next_ms - 6500);
        assert!(moved.0 >= 60_000 && moved.0 < 70_000 && moved.0 == moved.1, "{moved:?}");
    }

    #[test]
    fn the_pools_time_stands_still_while_a_step_waits() {
        let mut clock = Clock::default();
        let decided = Instant::now().checked_sub(Duration::from_mins(1)).unwrap();
        clock.stand_still(Duration::from_mins(1));
        let now = clock.now().instant;
        assert!(now >= decided && now < decided + Duration::from_secs(10), "it goes on where it stopped");
        let until = clock.until(now + Duration::from_secs(5));
        assert!(until <= Duration::from_secs(5) && until > Duration::from_secs(1), "{until:?}");
    }
}
