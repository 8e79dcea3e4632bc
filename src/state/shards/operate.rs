//! What operators can do to the pool.

use crate::protocol::name::{Name, ShardId};
use crate::protocol::op;

use super::leases::End;
use super::records::{FrozenRecord, Shard};
use super::reshard::{MAX_SHARDS, Mode, Plan};
use super::{Action, Now, ShardPool};

/// An operator's wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Nothing is granted from now on.
    Freeze,
    Thaw,
    /// Takes an id from its holder, or frees one that is held back.
    Release {
        shard_id: ShardId,
        /// `None`: the current generation.
        shard_count: Option<u32>,
    },
    Reshard {
        shard_count: u32,
        mode: Mode,
        /// Only tells what it would need.
        dry_run: bool,
    },
    AbortReshard,
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    Frozen,
    Thawed,
    /// The id had that holder, which was sent SHARD_REVOKE; it is granted again after that time.
    Released {
        holder: Name,
        free_in_ms: u64,
    },
    /// The id was held back, and is so no longer than its last holder may need to notice.
    Freed {
        free_in_ms: u64,
    },
    /// The answer to a dry run.
    Planned(Plan),
    Resharding(Plan),
    Aborted,
}

/// A command had no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    #[error("there is no shard {shard_id} of {shard_count}")]
    NoSuchShard { shard_id: ShardId, shard_count: u32 },
    #[error("shard {0} has no holder and is not held back")]
    NotLeased(Shard),
    #[error("a reshard to {shard_count} is under way; it can be aborted until it switches over")]
    ReshardUnderWay { shard_count: u32 },
    #[error("no reshard is under way")]
    NoReshard,
    #[error("there are {shard_count} shards already")]
    SameCount { shard_count: u32 },
    #[error("`shard_count` must be in 1 to {MAX_SHARDS}, not {shard_count}")]
    OutOfRange { shard_count: u32 },
    #[error(
        "`shard_count` must be a multiple of {of}, not {shard_count}: Discord demands that of a bot with a \
         `max_concurrency` of {of}"
    )]
    NotAMultiple { shard_count: u32, of: u32 },
    #[error(
        "there were {shard_count} shards a moment ago, and a holder may not have noticed yet that it lost \
         one; try again in {retry_after_ms} ms"
    )]
    RecentlyEnded { shard_count: u32, retry_after_ms: u64 },
    #[error(
        "{needed} shards must IDENTIFY, and Discord allows {remaining} more for the next {resets_in_ms} ms"
    )]
    BudgetTooSmall { needed: u64, remaining: u64, resets_in_ms: u64 },
}

impl<R: Clone> ShardPool<R> {
    /// Does what an operator asks for. The actions are carried out as those of a
    /// [`step`](Self::step); the operator is answered after the first of them, where that is
    /// [`Action::Persist`].
    pub fn operate(&mut self, command: Command, now: Now) -> (Result<Done, CommandError>, Vec<Action<R>>) {
        let mut actions = Vec::new();
        let at = self.timeline.pass(now);
        self.pass_time(at);
        let answer = self.obey(command, at, &mut actions);
        (answer, self.settle(None, now, actions))
    }

    fn obey(
        &mut self,
        command: Command,
        now: u64,
        actions: &mut Vec<Action<R>>,
    ) -> Result<Done, CommandError> {
        match command {
            Command::Freeze => {
                let frozen = self.frozen.unwrap_or(FrozenRecord { cause: None, since_ms: now });
                self.set_frozen(Some(frozen));
                Ok(Done::Frozen)
            }
            Command::Thaw => {
                self.set_frozen(None);
                Ok(Done::Thawed)
            }
            Command::Release { shard_id, shard_count } => self.release(shard_id, shard_count, now, actions),
            Command::Reshard { shard_count, dry_run: true, .. } => {
                self.plan(shard_count, now).map(Done::Planned)
            }
            Command::Reshard { shard_count, mode, dry_run: false } => {
                let plan = self.plan(shard_count, now)?;
                self.reshard(plan, mode, now, actions).map(|()| Done::Resharding(plan))
            }
            Command::AbortReshard => self.abort_reshard(now, actions).map(|()| Done::Aborted),
        }
    }

    fn set_frozen(&mut self, frozen: Option<FrozenRecord>) {
        if self.frozen != frozen {
            self.frozen = frozen;
            (self.is_dirty, self.told.is_stale) = (true, true);
        }
    }

    /// A holder that is told to let go may not know SHARD_REVOKE, so that its id is held back like
    /// that of one that vanished.
    fn release(
        &mut self,
        shard_id: ShardId,
        shard_count: Option<u32>,
        now: u64,
        actions: &mut Vec<Action<R>>,
    ) -> Result<Done, CommandError> {
        let shard_count = shard_count.unwrap_or(self.current.shard_count());
        let shard = Shard { shard_count, shard_id };
        let generation = self.generation_mut(shard_count).filter(|_| shard_id.0 < shard_count);
        let Some((generation, pacing)) = generation else {
            return Err(CommandError::NoSuchShard { shard_id, shard_count });
        };
        let Some(holder) = generation.lease(shard_id).map(|lease| lease.holder.clone()) else {
            let free_at = generation.free_held_back(shard_id, now, pacing);
            if free_at.is_some() {
                // Whatever made it die was mended: what it did before is no measure of it.
                generation.forget_crashes(shard_id);
            }
            self.reconsider(shard);
            let freed = free_at.map(|at| Done::Freed { free_in_ms: at - now });
            return freed.ok_or(CommandError::NotLeased(shard));
        };
        let noticed_ms = self.noticed_ms(now);
        self.end(shard, End::Taken { noticed_ms }, now, actions);
        let revoke = op::ShardRevoke { shard_id, shard_count, reason: "an operator released it".to_owned() };
        actions.push(Action::Revoke { service: holder.clone(), revoke });
        Ok(Done::Released { holder, free_in_ms: noticed_ms - now })
    }
}
