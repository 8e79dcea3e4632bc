//! `ShardAllocator`: hands out the shard ids. Owned by the `Gateway`, which alone talks to it.
//!
//! The rules are in [`state::shards`](crate::state::shards). What a step of them changes is durable
//! before anything that comes of it is told: the allocator waits for the disk, on a thread of its
//! own, because a write takes from half a millisecond to whatever a busy disk needs, and nobody else
//! is to wait for that. What comes in meanwhile is taken in and stored together, as one step: however much
//! one service sends, the others wait for few writes. While a step cannot be stored the pool stands still:
//! nothing is granted, what comes in waits in a [backlog](crate::state::backlog), and the write is tried
//! again. A panic on the way changes nothing about that: the step is stored after the restart.

mod answer;
#[cfg(feature = "fault-injection")]
mod crash;
mod step;

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, SpawnHandle, Supervised, fut,
};
use tokio::sync::oneshot;

use self::step::{Clock, Pace, Step, Unstored, asker, stands_still};
use super::gateway::Gateway;
use super::link::OpPermit;
use super::supervision::guard;
use crate::protocol::name::ConnectionId;
use crate::state::backlog::Backlog;
use crate::state::backlog::places::Place;
use crate::state::route::Shared;
use crate::state::shards::{Action, Command, Input, Report, ShardPool};
use crate::state::tally::Part;
use crate::store::Store;

pub use self::answer::{Answer, Outcome};
#[cfg(feature = "fault-injection")]
pub use self::crash::Crash;
pub(crate) use self::step::now;

/// How long after a failed write it is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// How many inputs are stored at once, and done without a pause.
const INPUTS_AT_ONCE: usize = 256;

/// How often it is looked whether the wall clock was set. What is stored is wrong for that long.
const CLOCK_INTERVAL: Duration = Duration::from_millis(250);

/// The pool as it was found at the start, and where its changes go: `None` is nowhere.
pub struct Restored {
    pub pool: ShardPool<ConnectionId>,
    pub store: Option<Store>,
}

/// The actor. A request is known by the connection that made it.
pub struct ShardAllocator {
    pool: ShardPool<ConnectionId>,
    store: Option<Store>,
    gateway: Addr<Gateway>,
    shared: Arc<Shared>,
    clock: Clock,
    /// Of the store.
    pace: Pace,
    backlog: Backlog<ConnectionId, Option<Pass>>,
    /// The last step, until it is stored.
    unstored: Option<Step>,
    /// Until the next try.
    retry: Option<SpawnHandle>,
    /// Whether it is about to go on with what waits.
    goes_on: bool,
    /// Of the pool's next deadline.
    alarm: Option<SpawnHandle>,
    #[cfg(feature = "fault-injection")]
    crash_at_write: bool,
}

impl ShardAllocator {
    pub fn new(restored: Restored, gateway: Addr<Gateway>, shared: Arc<Shared>) -> Self {
        let Restored { pool, store } = restored;
        Self {
            pool,
            store,
            gateway,
            shared,
            clock: Clock::default(),
            pace: Pace::default(),
            backlog: Backlog::default(),
            unstored: None,
            retry: None,
            goes_on: false,
            alarm: None,
            #[cfg(feature = "fault-injection")]
            crash_at_write: false,
        }
    }
}

impl Actor for ShardAllocator {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        // A restart drops what was scheduled.
        (self.alarm, self.retry, self.goes_on) = (None, None, false);
        // As in a session: what was cancelled right before it has to be taken out first.
        context.wait(fut::ready(()).map(|(), allocator: &mut Self, context: &mut Context<Self>| {
            allocator.schedule(context);
        }));
    }
}

impl Supervised for ShardAllocator {}

impl Drop for ShardAllocator {
    /// The thread ends, and with it what was scheduled. What came before is stored, so that the next gateway
    /// knows who has left; nobody is there any more to be told.
    fn drop(&mut self) {
        while !std::thread::panicking() {
            if self.unstored.is_none() {
                self.decide();
            }
            let (Some(step), Some(store)) = (&mut self.unstored, &mut self.store) else { return };
            if let Err(Unstored::Failed(_)) = step.write(store, &mut self.pace) {
                return;
            }
            self.unstored = None;
        }
    }
}

/// A service asks for a shard or gives one up, or something became of it.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ShardInput {
    pub input: Input<ConnectionId>,
    /// `None`: it is no op.
    pub pass: Option<Pass>,
}

/// What goes with an op.
#[derive(Debug)]
pub struct Pass {
    /// Goes on with the answer, if there is one.
    pub permit: OpPermit,
    /// Until the pool takes the op in.
    pub place: Place,
}

/// What the allocator decided, in this order.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ShardActions {
    pub actions: Vec<Action<ConnectionId>>,
    pub permit: Option<OpPermit>,
    /// For the operator who asked for it, after all the actions.
    pub answer: Option<Answer>,
}

impl Handler<ShardInput> for ShardAllocator {
    type Result = ();

    fn handle(&mut self, message: ShardInput, context: &mut Self::Context) {
        let ShardInput { input, pass } = message;
        self.wait_its_turn(input, pass);
        self.work_soon(context);
    }
}

/// Time to try the write again.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Retry;

impl Handler<Retry> for ShardAllocator {
    type Result = ();

    fn handle(&mut self, _: Retry, context: &mut Self::Context) {
        self.retry = None;
        self.work(context);
    }
}

/// Time to do more of what waits.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct GoOn;

impl Handler<GoOn> for ShardAllocator {
    type Result = ();

    fn handle(&mut self, _: GoOn, context: &mut Self::Context) {
        self.goes_on = false;
        self.work(context);
    }
}

impl ShardAllocator {
    /// Puts an input behind those that wait. Who asks for an id while none can be granted is told that it has
    /// to wait.
    fn wait_its_turn(&mut self, input: Input<ConnectionId>, pass: Option<Pass>) {
        let asker = asker(&input);
        self.backlog.push(input, pass, |service| self.pool.knows(service));
        // Else the pool tells it.
        let Some(step) = &self.unstored else { return };
        if let Some((service, request)) = asker {
            let places = step.granted + self.pool.waiting() + self.backlog.requests();
            let actions = vec![stands_still(service, request, places as u64)];
            self.gateway.do_send(ShardActions { actions, permit: None, answer: None });
        }
    }

    /// As soon as nothing more has come, all of which is stored at once then: each write takes the disk, and
    /// one service may send much.
    fn work_soon(&mut self, context: &mut Context<Self>) {
        if self.retry.is_none() && !std::mem::replace(&mut self.goes_on, true) {
            context.notify(GoOn);
        }
    }

    /// Does what there is to do, unless the last step cannot be stored; where that is much, the rest a moment
    /// later, so that operators are answered meanwhile.
    fn work(&mut self, context: &mut Context<Self>) {
        let shared = self.shared.clone();
        guard::<Self, ()>("ShardAllocator", Part::Allocator, &shared.panics, context, |context| {
            if self.retry.is_some() || !self.finish_step(context) {
                return;
            }
            self.decide();
            if !self.finish_step(context) {
                return;
            }
            if self.backlog.is_empty() {
                self.set_alarm(context);
            } else if !std::mem::replace(&mut self.goes_on, true) {
                context.notify_later(GoOn, Duration::ZERO);
            }
        });
    }

    /// Has the pool take in what waits, all at one moment: after a panic the step has what came of those before.
    fn decide(&mut self) {
        let now = self.clock.now();
        let decided = Instant::now();
        for _ in 0..INPUTS_AT_ONCE {
            let Some((input, pass)) = self.backlog.pop() else { return };
            let actions = self.pool.step(input, now);
            let step = self.unstored.get_or_insert_with(|| Step::new(decided));
            step.add(actions, pass.map(|pass| pass.permit), None);
        }
    }

    /// Stores the last step and does what comes of it; whether that is done.
    fn finish_step(&mut self, context: &mut Context<Self>) -> bool {
        let Some(step) = &mut self.unstored else { return true };
        if let Some(store) = &mut self.store {
            self.shared.store.begin(Instant::now());
            #[cfg(feature = "fault-injection")]
            assert!(!std::mem::take(&mut self.crash_at_write), "as asked");
            if let Err(why) = step.write(store, &mut self.pace) {
                if let Unstored::Failed(_) = why {
                    let waits = step.leave_undone();
                    if !waits.is_empty() {
                        self.gateway.do_send(ShardActions { actions: waits, permit: None, answer: None });
                    }
                }
                self.put_off(why, context);
                return false;
            }
            if self.shared.store.succeed() {
                log::warn!("data_dir: the store takes writes again: shard ids are granted");
            }
        }
        self.unstored.take().into_iter().for_each(|step| self.pass_on(step));
        true
    }

    fn put_off(&mut self, why: Unstored, context: &mut Context<Self>) {
        let (why, delay) = match why {
            Unstored::Failed(why) => (why, RETRY_INTERVAL),
            Unstored::Late(why) => (why, Duration::ZERO),
        };
        if self.shared.store.fail(why.clone()) {
            log::error!("no shard id is granted until the store takes it: {why}");
        }
        self.retry_after(delay, context);
    }

    /// Begins, or goes on after a restart.
    fn schedule(&mut self, context: &mut Context<Self>) {
        if self.store.is_some() {
            context.run_interval(CLOCK_INTERVAL, Self::look_at_the_clock);
        }
        if self.unstored.is_some() {
            self.retry_after(RETRY_INTERVAL, context);
        } else {
            self.set_alarm(context);
            // What waited behind the input that made it panic.
            context.notify(Retry);
        }
    }

    fn retry_after(&mut self, delay: Duration, context: &mut Context<Self>) {
        self.alarm.take().map(|alarm| context.cancel_future(alarm));
        self.retry = Some(context.notify_later(Retry, delay));
    }

    fn pass_on(&mut self, step: Step) {
        let (standstill, done) = step.into_done();
        self.clock.stand_still(standstill);
        for done in done {
            self.gateway.do_send(done);
        }
    }

    fn look_at_the_clock(&mut self, context: &mut Context<Self>) {
        if self.unstored.is_none() && self.pool.is_clock_off(self.clock.now()) {
            log::warn!("the wall clock was set: what is stored is brought to its time");
            self.wait_its_turn(Input::Wake, None);
            self.work(context);
        }
    }

    fn set_alarm(&mut self, context: &mut Context<Self>) {
        self.alarm.take().map(|alarm| context.cancel_future(alarm));
        self.alarm = self.pool.next_wake().map(|at| {
            context.notify_later(ShardInput { input: Input::Wake, pass: None }, self.clock.until(at))
        });
    }
}

/// An operator's command. Its answer comes through the `Gateway`, when that has done what comes of
/// it; there is none after a panic. While the store fails it is refused, and the one whose step is the
/// first to fail is told that it is decided.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ShardCommand {
    pub command: Command,
    pub answer: oneshot::Sender<Outcome>,
}

impl Handler<ShardCommand> for ShardAllocator {
    type Result = ();

    fn handle(&mut self, message: ShardCommand, context: &mut Self::Context) {
        let ShardCommand { command, answer: to } = message;
        // In its order, unless very much waits.
        self.work(context);
        if self.unstored.is_some() {
            let why = self.shared.store.trouble(Instant::now()).unwrap_or_else(|| "a part failed".to_owned());
            let _ = to.send(Outcome::StoreFailing(why));
            return;
        }
        let shared = self.shared.clone();
        guard::<Self, ()>("ShardAllocator", Part::Allocator, &shared.panics, context, |context| {
            let (result, actions) = self.pool.operate(command, self.clock.now());
            let step = self.unstored.insert(Step::new(Instant::now()));
            step.add(actions, None, Some(Answer::new(command, result, to)));
            if self.finish_step(context) {
                self.set_alarm(context);
            }
        });
    }
}

/// What each shard id is doing, for operators; `None` after a panic.
#[derive(Debug, Message)]
#[rtype(result = "Option<Report>")]
pub struct ReportShards;

impl Handler<ReportShards> for ShardAllocator {
    type Result = Option<Report>;

    fn handle(&mut self, _: ReportShards, context: &mut Self::Context) -> Self::Result {
        // In its order, as a command.
        self.work(context);
        let (shared, now) = (self.shared.clone(), self.clock.now());
        guard::<Self, Report>("ShardAllocator", Part::Allocator, &shared.panics, context, |_| {
            self.pool.report(now)
        })
    }
}
