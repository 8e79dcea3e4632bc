//! How a step gets to the disk and on from there, and who is told where that takes long.

use std::time::{Duration, Instant};

use actix::{Addr, AsyncContext, Context, Handler, Message};

use super::step::{Unstored, asker, stands_still};
use super::writer::{Ended, WriteEnded};
use super::{ShardAllocator, Writer};

/// How long after a failed write it is tried again.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Who waits for what comes of a write that takes longer is told so.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);

impl Handler<WriteEnded> for ShardAllocator {
    type Result = ();

    fn handle(&mut self, _: WriteEnded, context: &mut Self::Context) {
        self.guarded(context, |allocator, context| {
            if let Some(ended) = allocator.writer.as_mut().and_then(Writer::take_ended) {
                allocator.go_on_after(ended, context);
            }
        });
    }
}

/// The write that is under way takes too long.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct TakesLong;

impl Handler<TakesLong> for ShardAllocator {
    type Result = ();

    fn handle(&mut self, _: TakesLong, context: &mut Self::Context) {
        self.patience = None;
        self.guarded(context, |allocator, _| {
            allocator.hangs = allocator.is_writing();
            allocator.wait_no_longer();
        });
    }
}

impl ShardAllocator {
    /// Has the last step stored first, or does what comes of it where nothing of it is to be; whether it did.
    pub(super) fn finish_step(&mut self, context: &mut Context<Self>) -> bool {
        #[cfg(feature = "fault-injection")]
        assert!(self.unstored.is_none() || !std::mem::take(&mut self.crash_at_write), "as asked");
        if self.begin_write(Some(context.address())) {
            self.be_patient(context);
            return false;
        }
        self.pass_on();
        true
    }

    /// For the write that is under way.
    pub(super) fn be_patient(&mut self, context: &mut Context<Self>) {
        self.patience = Some(context.notify_later(TakesLong, PATIENCE));
    }

    /// Has the last step stored, unless nothing of it is to be; whether a write is under way.
    pub(super) fn begin_write(&mut self, tell: Option<Addr<Self>>) -> bool {
        let (Some(step), Some(writer)) = (&mut self.unstored, &mut self.writer) else { return false };
        if writer.is_writing() {
            return true;
        }
        let changes = step.take_changes(&self.pace);
        if changes.is_empty() {
            return false;
        }
        self.shared.store.begin(Instant::now());
        writer.begin(changes, tell);
        true
    }

    pub(super) fn is_writing(&self) -> bool {
        self.writer.as_ref().is_some_and(Writer::is_writing)
    }

    fn go_on_after(&mut self, ended: Ended, context: &mut Context<Self>) {
        self.patience.take().map(|patience| context.cancel_future(patience));
        self.hangs = false;
        if let Err(why) = self.judge(ended) {
            return self.put_off(why, context);
        }
        if self.shared.store.succeed() {
            log::warn!("data_dir: the store takes writes again: shard ids are granted");
        }
        self.pass_on();
        self.work_soon(context);
    }

    /// Whether the last step is stored by that write, and in time.
    pub(super) fn judge(&mut self, ended: Ended) -> Result<(), Unstored> {
        let Ended { changes, took, result } = ended;
        let judged = result.map_err(Unstored::Failed).and_then(|()| {
            self.pace.note(took).map_err(|why| {
                let path = self.writer.as_ref().map(Writer::path).unwrap_or_default();
                Unstored::Late(format!("data_dir: a write to {path} took {why}"))
            })
        });
        if judged.is_err()
            && let Some(step) = &mut self.unstored
        {
            step.keep(changes);
        }
        judged
    }

    fn put_off(&mut self, why: Unstored, context: &mut Context<Self>) {
        let (why, delay) = match why {
            Unstored::Failed(why) => (why, RETRY_INTERVAL),
            Unstored::Late(why) => (why, Duration::ZERO),
        };
        if self.shared.store.fail(why.clone()) {
            log::error!("no shard id is granted until the store takes it: {why}");
        }
        self.wait_no_longer();
        self.retry_after(delay, context);
    }

    /// The last step is not stored for now: tells who waits for what comes of it, or for the next one.
    fn wait_no_longer(&mut self) {
        let Some(step) = self.unstored.as_mut().filter(|step| !step.is_put_off) else { return };
        let places = step.granted + self.pool.waiting();
        let asking = (1..).zip(self.backlog.inputs().filter_map(asker));
        let behind =
            asking.map(|(nth, (service, request))| stands_still(service, request, places as u64 + nth));
        let waits: Vec<_> = step.put_off().into_iter().chain(behind).collect();
        if !waits.is_empty() {
            self.tell_waits(waits);
        }
        self.refuse_commands();
        self.answer_reports();
    }

    /// Whether nobody waits for the last step any more.
    pub(super) fn is_put_off(&self) -> bool {
        self.unstored.as_ref().is_some_and(|step| step.is_put_off)
    }

    /// Does what comes of the last step, if there is one.
    pub(super) fn pass_on(&mut self) {
        let Some(mut step) = self.unstored.take() else { return };
        let reports = std::mem::take(&mut step.reports);
        let (standstill, done) = step.into_done();
        self.clock.stand_still(standstill);
        for done in done {
            self.gateway.do_send(done);
        }
        for report in reports {
            let _ = report.send(self.pool.report(self.clock.now()));
        }
    }
}
