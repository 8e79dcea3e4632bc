//! What operators ask of the allocator: in its order among what services do, and never for longer than the disk
//! is waited for.

use std::time::Instant;

use actix::{Context, Handler, Message, ResponseFuture};
use tokio::sync::oneshot;

use super::storing::PATIENCE;
use super::{Outcome, ShardAllocator};
use crate::state::shards::{Command, Report};

/// An operator's command. Its answer comes through the `Gateway`, when that has done what comes of
/// it; there is none after a panic. While a step cannot be stored it is refused, and who gave one that belongs
/// to that very step is told that it is decided.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ShardCommand {
    pub command: Command,
    pub answer: oneshot::Sender<Outcome>,
}

impl Handler<ShardCommand> for ShardAllocator {
    type Result = ();

    fn handle(&mut self, message: ShardCommand, context: &mut Context<Self>) {
        self.commands.push_back((self.backlog.next(), message));
        if self.is_put_off() {
            self.refuse_commands();
        } else {
            self.work_soon(context);
        }
    }
}

/// What each shard id is doing, for operators; `None` after a panic, and while the disk does not answer.
#[derive(Debug, Message)]
#[rtype(result = "Option<Report>")]
pub struct ReportShards;

impl Handler<ReportShards> for ShardAllocator {
    type Result = ResponseFuture<Option<Report>>;

    fn handle(&mut self, _: ReportShards, context: &mut Context<Self>) -> Self::Result {
        let (report, told) = oneshot::channel();
        self.reports.push(report);
        if self.is_put_off() {
            self.guarded(context, |allocator, _| allocator.answer_reports());
        } else {
            self.work_soon(context);
        }
        Box::pin(async move { told.await.ok() })
    }
}

impl ShardAllocator {
    pub(super) fn refuse_commands(&mut self) {
        let trouble = self.shared.store.trouble(Instant::now());
        let why = trouble.unwrap_or_else(|| format!("a write to data_dir takes longer than {PATIENCE:?}"));
        for (_, ShardCommand { answer, .. }) in self.commands.drain(..) {
            let _ = answer.send(Outcome::StoreFailing(why.clone()));
        }
    }

    /// Not while the disk hangs: nobody knows then what is stored.
    pub(super) fn answer_reports(&mut self) {
        let of_step = self.unstored.iter_mut().flat_map(|step| step.reports.drain(..));
        let reports: Vec<_> = of_step.chain(self.reports.drain(..)).collect();
        for report in reports.into_iter().filter(|_| !self.hangs) {
            let _ = report.send(self.pool.report(self.clock.now()));
        }
    }
}
