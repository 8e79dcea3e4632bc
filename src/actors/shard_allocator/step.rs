//! One step of the pool on its way: stored, then told. And the time by which the pool goes, which
//! stands still meanwhile.

use std::time::{Duration, Instant, SystemTime};

use super::{Answer, ShardActions};
use crate::actors::link::OpPermit;
use crate::protocol::name::ConnectionId;
use crate::state::shards::{Action, Change, Now};
use crate::store::Store;

/// A write that took longer counts as failed, and is done again with its times moved: after a restart
/// nothing but the store tells when a permit was given. Discord wants 5 s between two, and
/// `identify_interval_ms` is so much more.
const SLOWEST_WRITE: Duration = Duration::from_millis(500);

/// What a write usually takes at most. For the rest of a longer one the pool's time stands still.
const USUAL_WRITE: Duration = Duration::from_millis(20);

/// What the pool decided in one step.
pub(super) struct Step {
    /// To be stored before anything else is done.
    changes: Vec<Change>,
    done: ShardActions,
    decided: Instant,
    /// How far the times in `changes` have been moved.
    moved_ms: i64,
}

/// Why a step is not stored.
pub(super) enum Unstored {
    Failed(String),
    /// It is stored, but so late that its times are wrong.
    Late(String),
}

impl Step {
    pub(super) fn new(
        mut actions: Vec<Action<ConnectionId>>,
        permit: Option<OpPermit>,
        answer: Option<Answer>,
    ) -> Self {
        let mut changes = Vec::new();
        actions.retain_mut(|action| match action {
            Action::Persist(persist) => {
                changes.append(persist);
                false
            }
            _ => true,
        });
        let done = ShardActions { actions, permit, answer };
        Self { changes, done, decided: Instant::now(), moved_ms: 0 }
    }

    /// Makes its changes durable. To be called again after an error.
    pub(super) fn write(&mut self, store: &mut Store) -> Result<(), Unstored> {
        if self.changes.is_empty() {
            return Ok(());
        }
        self.move_times();
        let begun = Instant::now();
        store.apply(&self.changes).map_err(|error| Unstored::Failed(error.to_string()))?;
        check_time(begun.elapsed(), store)
    }

    /// Brings the times of a step that waited to the present.
    fn move_times(&mut self) {
        let late = self.decided.elapsed();
        if late > USUAL_WRITE {
            let late_ms = i64::try_from(late.as_millis()).unwrap_or(i64::MAX);
            let by = late_ms - self.moved_ms;
            self.changes.iter_mut().for_each(|change| change.shift(by));
            self.moved_ms = late_ms;
        }
    }

    /// When it was decided, and what is to be done now that it is stored.
    pub(super) fn into_done(self) -> (Instant, ShardActions) {
        (self.decided, self.done)
    }

    /// Whoever waits for an answer has waited long enough.
    pub(super) fn leave_unanswered(&mut self) {
        self.done.answer = None;
    }
}

fn check_time(took: Duration, store: &Store) -> Result<(), Unstored> {
    if took <= SLOWEST_WRITE {
        return Ok(());
    }
    let path = store.path();
    let path = path.display();
    let why = format!("data_dir: a write to {path} took {took:?}, expected {SLOWEST_WRITE:?} at most");
    Err(Unstored::Late(why))
}

/// The pool's time: the real one, less what was spent in waiting for the disk. What the pool decided
/// leaves only after that wait; were the time to pass meanwhile, the next permit of the same key
/// would follow too soon.
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

    /// What was decided then leaves now.
    pub(super) fn stand_still_since(&mut self, decided: Instant) {
        let waited = decided.elapsed();
        if waited > USUAL_WRITE {
            self.stood_still += waited;
        }
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
    use crate::state::shards::{PermitRecord, Shard, Warning};

    fn step() -> Step {
        let shard = Shard { shard_count: 1, shard_id: ShardId(0) };
        let record = PermitRecord { shard, epoch: Epoch(1), granted_ms: 1000, next_ms: 6500, used: false };
        let warning = Warning::BudgetExhausted { total: 1, resets_in_ms: 1 };
        Step::new(
            vec![Action::Persist(vec![Change::Permit { key: 0, record }]), Action::Warn(warning)],
            None,
            None,
        )
    }

    #[test]
    fn a_step_that_waited_is_stored_as_of_the_moment_that_it_leaves() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(directory.path()).unwrap();
        let mut step = step();
        for waited_ms in [60_000, 90_000] {
            step.decided = Instant::now().checked_sub(Duration::from_millis(waited_ms)).unwrap();
            assert!(step.write(&mut store).is_ok());
            let permit = store.snapshot().unwrap().permits[&0];
            let waited = (permit.granted_ms - 1000, permit.next_ms - 6500);
            assert!(
                waited.0 >= waited_ms && waited.0 < waited_ms + 10_000 && waited.0 == waited.1,
                "{waited:?}"
            );
        }
        let (_, done) = step.into_done();
        assert!(matches!(done.actions[..], [Action::Warn(_)]), "stored before the rest is done");
    }

    #[test]
    fn a_write_that_took_too_long_is_done_again() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        assert!(check_time(SLOWEST_WRITE, &store).is_ok());
        let late = check_time(SLOWEST_WRITE + Duration::from_millis(1), &store);
        let Err(Unstored::Late(why)) = late else { panic!("it passed") };
        assert!(why.contains("took 501ms, expected 500ms at most"), "{why}");
    }

    #[test]
    fn the_pools_time_stands_still_while_a_step_waits() {
        let mut clock = Clock::default();
        let decided = Instant::now().checked_sub(Duration::from_mins(1)).unwrap();
        clock.stand_still_since(decided);
        let now = clock.now().instant;
        assert!(now >= decided && now < decided + Duration::from_secs(10), "it goes on where it stopped");
        let until = clock.until(now + Duration::from_secs(5));
        assert!(until <= Duration::from_secs(5) && until > Duration::from_secs(1), "{until:?}");
    }
}
