//! Faults of the allocator that tests ask for.

use std::time::Duration;

use actix::{Context, Handler, Message};

use super::ShardAllocator;

/// Panic, for tests.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub enum Crash {
    Now,
    /// When the next step is decided and not stored yet.
    AtTheNextWrite,
    /// No panic: from now on each write takes longer by that.
    SlowDown(Duration),
}

impl Handler<Crash> for ShardAllocator {
    type Result = ();

    fn handle(&mut self, crash: Crash, context: &mut Context<Self>) {
        // What came before is to be done before.
        self.work(context);
        match crash {
            Crash::Now => {}
            Crash::AtTheNextWrite => return self.crash_at_write = true,
            Crash::SlowDown(by) => return self.writer.iter().for_each(|writer| writer.slow_down(by)),
        }
        self.guarded(context, |_, _| panic!("as asked"));
    }
}
