//! Where the log goes: to stderr, written by a thread of its own.
//!
//! Whoever reads stderr may be slow, stuck or gone, and its disk full. That must never hold up
//! those who log, who deliver messages: so lines wait in a bounded queue, and where that is full
//! they are dropped, counted, and the count is written once there is room.

use std::io::{self, Write};
use std::iter;
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use env_logger::{Builder, Target};
use log::LevelFilter;

/// The target of lines that say who changed what. No filter turns them off.
pub const AUDIT: &str = "audit";

/// Lines that may wait to be written.
const MAX_LINES: usize = 8192;

/// How long the end of the process waits for what is still to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the thread does not look for more once it has written all. While it looks, each line costs its
/// waking; where thousands of services connect at once that was a twentieth of the CPU.
const REST: Duration = Duration::from_millis(5);

/// So much is written at once, or one line that is longer. A pipe takes so much as one piece, also where others
/// write to it (pipe(7), `PIPE_BUF`).
const PIECE_BYTES: usize = 4096;

/// Where [`flush`] finds the writer.
static QUEUE: OnceLock<SyncSender<Entry>> = OnceLock::new();

/// All lines that were dropped.
static DROPPED: AtomicU64 = AtomicU64::new(0);

enum Entry {
    Line(Vec<u8>),
    /// All before it is written: tell so.
    Flush(SyncSender<()>),
}

/// Sends the log, as `filter` selects it (`info`, `warn,gateway=debug`), to stderr. Panics are
/// logged too, not printed. To be called once.
pub fn start(filter: &str) {
    let (queue, entries) = sync_channel(MAX_LINES);
    let dropped = Arc::new(AtomicU64::new(0));
    let lines = Lines { queue: queue.clone(), dropped: dropped.clone() };
    let spawned = thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write_all(&entries, &dropped, io::stderr()));
    // Without the thread the log is still written, by those who log.
    let target = if spawned.is_ok() { Target::Pipe(Box::new(lines)) } else { Target::Stderr };
    Builder::new()
        .parse_filters(filter)
        // It writes requests to Discord, with their token, at the finer levels: no filter turns that on.
        .filter_module("ureq", LevelFilter::Warn)
        .filter_module("ureq_proto", LevelFilter::Warn)
        .filter_module(AUDIT, LevelFilter::Info)
        .target(target)
        .init();
    let _ = QUEUE.set(queue);
    panic::set_hook(Box::new(|info| log::error!("{info}")));
}

/// How many lines were dropped since the process began.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Waits, but not for long, until what was logged so far is written.
pub fn flush() {
    let Some(queue) = QUEUE.get() else { return };
    let deadline = Instant::now() + FLUSH_TIMEOUT;
    let left = || deadline.saturating_duration_since(Instant::now());
    let (done, is_done) = sync_channel(1);
    while let Err(TrySendError::Full(_)) = queue.try_send(Entry::Flush(done.clone())) {
        if left().is_zero() {
            return;
        }
        thread::sleep(REST);
    }
    drop(done);
    let _ = is_done.recv_timeout(left());
}

/// The end that is logged into; each write is one line.
struct Lines {
    queue: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Entry::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes what comes, and what comes while it rests together. What cannot be written is lost: there is nobody
/// to tell.
fn write_all(entries: &Receiver<Entry>, dropped: &AtomicU64, mut out: impl Write) {
    let mut text = Vec::with_capacity(PIECE_BYTES);
    while let Ok(first) = entries.recv() {
        for entry in iter::once(first).chain(entries.try_iter()) {
            match entry {
                Entry::Line(line) => {
                    if text.len() + line.len() > PIECE_BYTES {
                        write(&mut text, dropped, &mut out);
                    }
                    text.extend(line);
                }
                Entry::Flush(done) => {
                    write(&mut text, dropped, &mut out);
                    let _ = done.try_send(());
                }
            }
        }
        write(&mut text, dropped, &mut out);
        thread::sleep(REST);
    }
}

/// Writes that text, and how many lines were dropped since the last time.
fn write(text: &mut Vec<u8>, dropped: &AtomicU64, out: &mut impl Write) {
    let lost = dropped.swap(0, Ordering::Relaxed);
    if lost > 0 {
        text.extend(format!("{lost} log lines were dropped here: the log is not read fast enough\n").bytes());
    }
    let _ = out.write_all(text);
    text.clear();
    text.shrink_to(PIECE_BYTES);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader of the log that is stuck until it is let go.
    struct Stuck(Receiver<()>, SyncSender<Vec<u8>>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            let _ = self.1.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_that_is_not_read_holds_up_nobody_and_says_later_what_is_missing() {
        let (queue, entries) = sync_channel(2);
        let dropped = Arc::new(AtomicU64::new(0));
        let mut lines = Lines { queue, dropped: dropped.clone() };
        let (let_go, stuck) = sync_channel(100);
        let (written, out) = sync_channel(100);
        // Nobody reads yet: two lines wait, and eight find no room.
        for number in 0..10 {
            lines.write_all(format!("{number}\n").as_bytes()).unwrap();
        }
        drop(lines);
        let writer = thread::spawn(move || write_all(&entries, &dropped, Stuck(stuck, written)));
        (0..100).for_each(|_| let_go.try_send(()).unwrap());
        drop(let_go);
        writer.join().unwrap();
        let text: Vec<u8> = out.try_iter().flatten().collect();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text, "0\n1\n8 log lines were dropped here: the log is not read fast enough\n");
    }

    #[test]
    fn lines_that_wait_are_written_together() {
        let (queue, entries) = sync_channel(100);
        let mut lines = Lines { queue, dropped: Arc::default() };
        let (let_go, stuck) = sync_channel(100);
        let (written, out) = sync_channel(100);
        for number in 0..10 {
            lines.write_all(format!("{number}\n").as_bytes()).unwrap();
        }
        drop(lines);
        (0..100).for_each(|_| let_go.try_send(()).unwrap());
        write_all(&entries, &AtomicU64::new(0), Stuck(stuck, written));
        let all = b"0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n".to_vec();
        assert_eq!(out.try_iter().collect::<Vec<_>>(), [all]);
    }

    #[test]
    fn a_log_that_cannot_be_written_is_no_error() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (queue, entries) = sync_channel(2);
        let (done, is_done) = sync_channel(1);
        queue.try_send(Entry::Line(b"lost".to_vec())).unwrap_or_default();
        queue.try_send(Entry::Flush(done)).unwrap_or_default();
        drop(queue);
        write_all(&entries, &AtomicU64::new(0), Full);
        is_done.try_recv().expect("what comes after is handled");
    }
}
