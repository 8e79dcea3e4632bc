//! The thread that owns the store and writes to it. The allocator goes on meanwhile: a write takes from half a
//! millisecond to whatever a busy disk needs, and where the disk hangs it does not end.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use actix::{Addr, Message};

use super::ShardAllocator;
use crate::actors::supervision::text_of;
use crate::state::shards::Change;
use crate::store::Store;

/// Writes one step at a time. Dropping it waits for the write that is under way, and closes the store.
pub struct Writer {
    path: String,
    /// `None`: the thread is to end.
    orders: Option<Sender<Order>>,
    written: Receiver<Written>,
    /// Since when a write is under way, if one is.
    since: Option<Instant>,
    thread: Option<JoinHandle<()>>,
}

enum Order {
    Write {
        changes: Vec<Change>,
        /// Is told when it has [ended](WriteEnded).
        tell: Option<Addr<ShardAllocator>>,
    },
    #[cfg(feature = "fault-injection")]
    SlowDown(Duration),
}

struct Written {
    changes: Vec<Change>,
    result: Result<(), String>,
}

/// A write has ended: [`Writer::take_ended`] has how.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct WriteEnded;

/// How a write ended.
pub(super) struct Ended {
    /// What was to be written.
    pub(super) changes: Vec<Change>,
    /// Until this was asked for.
    pub(super) took: Duration,
    /// Whether all of that is durable, or what went wrong. Then it is not known what became of it.
    pub(super) result: Result<(), String>,
}

impl Writer {
    pub fn start(store: Store) -> io::Result<Self> {
        let path = store.path().display().to_string();
        let (orders, to_do) = channel();
        let (done, written) = channel();
        let thread = Builder::new().name("store".to_owned()).spawn(move || serve(store, &to_do, &done))?;
        Ok(Self { path, orders: Some(orders), written, since: None, thread: Some(thread) })
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn is_writing(&self) -> bool {
        self.since.is_some()
    }

    /// Begins a write, all or nothing. None is under way.
    pub(super) fn begin(&mut self, changes: Vec<Change>, tell: Option<Addr<ShardAllocator>>) {
        self.since = Some(Instant::now());
        self.order(Order::Write { changes, tell });
    }

    /// How the write ended that was under way, if it has.
    pub(super) fn take_ended(&mut self) -> Option<Ended> {
        let written = self.written.try_recv().ok()?;
        self.ended(written)
    }

    /// Waits for the end of the write that is under way; `None`: there is none.
    pub(super) fn wait(&mut self) -> Option<Ended> {
        self.since?;
        let written = self.written.recv().ok()?;
        self.ended(written)
    }

    /// From now on each write takes so much longer, for tests.
    #[cfg(feature = "fault-injection")]
    pub(super) fn slow_down(&self, by: Duration) {
        self.order(Order::SlowDown(by));
    }

    fn ended(&mut self, Written { changes, result }: Written) -> Option<Ended> {
        let took = self.since.take()?.elapsed();
        Some(Ended { changes, took, result })
    }

    /// The thread ends only when this does.
    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(order);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.orders = None;
        self.thread.take().map(JoinHandle::join);
    }
}

fn serve(mut store: Store, orders: &Receiver<Order>, written: &Sender<Written>) {
    for order in orders {
        match order {
            Order::Write { changes, tell } => {
                let result = write(&mut store, &changes);
                let _ = written.send(Written { changes, result });
                if let Some(allocator) = tell {
                    allocator.do_send(WriteEnded);
                }
            }
            #[cfg(feature = "fault-injection")]
            Order::SlowDown(by) => store.slow_down(by),
        }
    }
}

/// A panic is an error like others: the store opens its file anew after either.
fn write(store: &mut Store, changes: &[Change]) -> Result<(), String> {
    match catch_unwind(AssertUnwindSafe(|| store.apply(changes))) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => Err(format!("data_dir: the store panicked: {}", text_of(panic.as_ref()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::name::{Epoch, ShardId};

    fn epoch(number: u64) -> Vec<Change> {
        vec![Change::Epoch { shard_id: ShardId(0), epoch: Epoch(number) }]
    }

    #[test]
    fn a_write_is_under_way_until_it_is_asked_how_it_ended() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::start(Store::open(directory.path()).unwrap()).unwrap();
        assert!(!writer.is_writing() && writer.take_ended().is_none() && writer.wait().is_none());
        writer.begin(epoch(1), None);
        assert!(writer.is_writing());
        let ended = writer.wait().unwrap();
        assert_eq!((ended.result, ended.changes), (Ok(()), epoch(1)));
        assert!(!writer.is_writing());
    }

    #[test]
    fn whoever_drops_it_finds_the_store_closed_with_all_that_was_to_be_written() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::start(Store::open(directory.path()).unwrap()).unwrap();
        writer.begin(epoch(7), None);
        drop(writer);
        let mut store = Store::open(directory.path()).unwrap();
        assert_eq!(store.snapshot().unwrap().epochs[&ShardId(0)], Epoch(7));
    }
}
