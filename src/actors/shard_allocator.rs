//! `ShardAllocator`: hands out the shard ids. Owned by the `Gateway`, which alone talks to it.
//!
//! The rules are in [`state::shards`](crate::state::shards). What a step of them changes is durable
//! before anything that comes of it is told: the [`writer`] has the disk, and until it is done the pool stands
//! still. Nothing is granted, and what comes in waits in a [backlog](crate::state::backlog), to be taken in
//! and stored together, as the next step: however much one service sends, the others wait for few writes.
//! Where a step cannot be stored, or not soon, who waits for an id or an answer is told, and the write is
//! tried again. A panic on the way changes nothing about that: the step is stored after the restart.

mod answer;
#[cfg(feature = "fault-injection")]
mod crash;
mod operators;
mod step;
mod storing;
mod writer;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, SpawnHandle, Supervised, fut,
};
use tokio::sync::oneshot;

pub use self::answer::{Answer, Outcome};
#[cfg(feature = "fault-injection")]
pub use self::crash::Crash;
pub use self::operators::{ReportShards, ShardCommand};
pub(crate) use self::step::now;
use self::step::{Clock, Pace, Step, Unstored, asker, stands_still};
use self::storing::RETRY_INTERVAL;
pub use self::writer::Writer;
use super::gateway::Gateway;
use super::link::OpPermit;
use super::supervision::guard;
use crate::protocol::name::ConnectionId;
use crate::state::backlog::Backlog;
use crate::state::backlog::places::Place;
use crate::state::route::Shared;
use crate::state::shards::{Action, Input, Now, Report, ShardPool};
use crate::state::tally::Part;

/// How many inputs are stored at once, and done without a pause.
const INPUTS_AT_ONCE: usize = 256;

/// How often it is looked whether the wall clock was set. What is stored is wrong for that long.
const CLOCK_INTERVAL: Duration = Duration::from_millis(250);

/// The pool as it was found at the start, and where its changes go: `None` is nowhere.
pub struct Restored {
    pub pool: ShardPool<ConnectionId>,
    pub writer: Option<Writer>,
}

/// The actor. A request is known by the connection that made it.
pub struct ShardAllocator {
    pool: ShardPool<ConnectionId>,
    writer: Option<Writer>,
    gateway: Addr<Gateway>,
    shared: Arc<Shared>,
    clock: Clock,
    /// Of the store.
    pace: Pace,
    backlog: Backlog<ConnectionId, Option<Pass>>,
    /// Operators' commands that wait likewise, each with the number of the input that came next, and who is to be
    /// told how the pool stands.
    commands: VecDeque<(u64, ShardCommand)>,
    reports: Vec<oneshot::Sender<Report>>,
    /// The last step, until it is stored.
    unstored: Option<Step>,
    /// Until the write that is under way takes too long.
    patience: Option<SpawnHandle>,
    /// Whether it does.
    hangs: bool,
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
        let Restored { pool, writer } = restored;
        Self {
            pool,
            writer,
            gateway,
            shared,
            clock: Clock::default(),
            pace: Pace::default(),
            backlog: Backlog::default(),
            commands: VecDeque::new(),
            reports: Vec::new(),
            unstored: None,
            patience: None,
            hangs: false,
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
        (self.alarm, self.retry, self.patience, self.goes_on) = (None, None, None, false);
        // As in a session: what was cancelled right before it has to be taken out first.
        context.wait(fut::ready(()).map(|(), allocator: &mut Self, context: &mut Context<Self>| {
            allocator.schedule(context);
        }));
    }
}

impl Supervised for ShardAllocator {}

impl Drop for ShardAllocator {
    /// The thread ends, and with it what was scheduled. What came before is stored, so that the next gateway
    /// knows who has left; nobody is there any more to be told. What operators asked for is not done.
    fn drop(&mut self) {
        self.commands.clear();
        self.reports.clear();
        while self.writer.is_some() && !std::thread::panicking() {
            if self.unstored.is_none() {
                self.decide();
            }
            if self.unstored.is_none() {
                return;
            }
            self.begin_write(None);
            let ended = self.writer.as_mut().and_then(Writer::wait);
            match ended.map(|ended| self.judge(ended)) {
                Some(Err(Unstored::Failed(_))) => return,
                Some(Err(Unstored::Late(_))) => {}
                Some(Ok(())) | None => self.unstored = None,
            }
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
        // Else the pool tells it soon.
        let Some(step) = self.unstored.as_ref().filter(|step| step.is_put_off) else { return };
        if let Some((service, request)) = asker {
            let places = step.granted + self.pool.waiting() + self.backlog.requests();
            self.tell_waits(vec![stands_still(service, request, places as u64)]);
        }
    }

    fn tell_waits(&self, actions: Vec<Action<ConnectionId>>) {
        self.gateway.do_send(ShardActions { actions, permit: None, answer: None });
    }

    /// As soon as nothing more has come, all of which is stored at once then: each write takes the disk, and
    /// one service may send much.
    fn work_soon(&mut self, context: &mut Context<Self>) {
        if self.retry.is_none() && !self.is_writing() && !std::mem::replace(&mut self.goes_on, true) {
            context.notify(GoOn);
        }
    }

    /// Does what there is to do, unless the last step is not stored; where that is much, the rest a moment
    /// later, so that operators are answered meanwhile.
    fn work(&mut self, context: &mut Context<Self>) {
        self.guarded(context, |allocator, context| {
            if allocator.retry.is_some() || allocator.is_writing() || !allocator.finish_step(context) {
                return;
            }
            allocator.decide();
            allocator.set_alarm(context);
            if allocator.finish_step(context)
                && allocator.has_more()
                && !std::mem::replace(&mut allocator.goes_on, true)
            {
                context.notify_later(GoOn, Duration::ZERO);
            }
        });
    }

    fn has_more(&self) -> bool {
        !self.backlog.is_empty() || !self.commands.is_empty()
    }

    fn guarded(&mut self, context: &mut Context<Self>, handler: impl FnOnce(&mut Self, &mut Context<Self>)) {
        let shared = self.shared.clone();
        let panics = &shared.panics;
        guard::<Self, ()>("ShardAllocator", Part::Allocator, panics, context, |context| {
            handler(self, context);
        });
    }

    /// Has the pool take in what waits, all at one moment: after a panic the step has what came of those before.
    fn decide(&mut self) {
        let (now, decided) = (self.clock.now(), Instant::now());
        for _ in 0..INPUTS_AT_ONCE {
            self.obey(now, decided);
            let Some((input, pass)) = self.backlog.pop() else { break };
            let actions = self.pool.step(input, now);
            let step = self.unstored.get_or_insert_with(|| Step::new(decided));
            step.add(actions, pass.map(|pass| pass.permit), None);
        }
        self.obey(now, decided);
        if !self.reports.is_empty() {
            let step = self.unstored.get_or_insert_with(|| Step::new(decided));
            step.reports.append(&mut self.reports);
        }
    }

    /// Does what operators asked for before the input came whose turn it is.
    fn obey(&mut self, now: Now, decided: Instant) {
        let is_due =
            |(before, _): &(u64, ShardCommand)| self.backlog.first().is_none_or(|first| *before <= first);
        while self.commands.front().is_some_and(is_due)
            && let Some((_, ShardCommand { command, answer })) = self.commands.pop_front()
        {
            let (result, actions) = self.pool.operate(command, now);
            let step = self.unstored.get_or_insert_with(|| Step::new(decided));
            step.add(actions, None, Some(Answer::new(command, result, answer)));
        }
    }

    /// Begins, or goes on after a restart.
    fn schedule(&mut self, context: &mut Context<Self>) {
        if self.writer.is_some() {
            context.run_interval(CLOCK_INTERVAL, Self::look_at_the_clock);
        }
        if self.is_writing() {
            self.be_patient(context);
        } else if self.unstored.is_some() {
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
