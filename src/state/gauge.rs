//! How full a mailbox is: what senders reserve before a message is accepted, and what is freed
//! when it left.
//!
//! A gauge is shared by every sender to one mailbox, so it is made of atomics; [`Total`] is the
//! bound of all mailboxes together.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::account::Amount;

/// Messages are counted in the bits above these, bytes in these.
const BYTES_BITS: u32 = 40;
const BYTES_MASK: u64 = (1 << BYTES_BITS) - 1;

/// The most bytes and messages that a gauge can be told to hold.
pub const MAX_BYTES: u64 = BYTES_MASK / 2;
pub const MAX_MESSAGES: u64 = (1 << (64 - BYTES_BITS - 1)) - 1;

/// The most that a mailbox may hold.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub messages: u64,
    pub bytes: u64,
}

/// A reservation could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There is no room now; there may be soon.
    Full,
    /// There was no room for long; nothing is taken until three quarters are left.
    StillFull,
    /// The session is down.
    Closed,
}

/// One mailbox's gauge.
#[derive(Debug)]
pub struct Gauge {
    bounds: Bounds,
    held: AtomicU64,
    closed: AtomicBool,
    refusing: AtomicBool,
    waiting: AtomicUsize,
    freed: Notify,
}

impl Gauge {
    pub fn new(bounds: Bounds) -> Self {
        let bounds =
            Bounds { messages: bounds.messages.min(MAX_MESSAGES), bytes: bounds.bytes.min(MAX_BYTES) };
        Self {
            bounds,
            held: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
        }
    }

    /// Takes room for one message.
    pub fn reserve(&self, bytes: usize) -> Result<(), Refused> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Refused::Closed);
        }
        if self.refusing.load(Ordering::Relaxed) {
            return Err(Refused::StillFull);
        }
        let one = pack(Amount::message(bytes));
        let held = unpack(self.held.fetch_add(one, Ordering::AcqRel) + one);
        if held.messages > self.bounds.messages || held.bytes > self.bounds.bytes {
            // Nobody has to be woken: for them nothing has changed.
            self.subtract(one);
            return Err(Refused::Full);
        }
        Ok(())
    }

    /// Gives room back.
    pub fn release(&self, amount: Amount) {
        if amount.is_zero() {
            return;
        }
        self.subtract(pack(amount));
        if self.waiting.load(Ordering::Acquire) > 0 {
            self.freed.notify_waiters();
        }
    }

    fn subtract(&self, amount: u64) {
        // Either this sees that it refuses, or who makes it refuse sees what was given back: one order for
        // all four operations is what `SeqCst` is for.
        let held = unpack(self.held.fetch_sub(amount, Ordering::SeqCst) - amount);
        if self.refusing.load(Ordering::SeqCst) && self.is_below_three_quarters(held) {
            self.refusing.store(false, Ordering::Relaxed);
        }
    }

    fn is_below_three_quarters(&self, held: Amount) -> bool {
        held.messages < three_quarters(self.bounds.messages) && held.bytes < three_quarters(self.bounds.bytes)
    }

    /// Refuses from now on, until three quarters are left: a sender was held long enough.
    pub fn start_refusing(&self) {
        if !self.is_below_three_quarters(self.held()) {
            self.refusing.store(true, Ordering::SeqCst);
            // It may have been emptied between the two lines above.
            if self.is_below_three_quarters(unpack(self.held.load(Ordering::SeqCst))) {
                self.refusing.store(false, Ordering::Relaxed);
            }
        }
    }

    /// Refuses for good.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.freed.notify_waiters();
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether it is above three quarters of either bound.
    pub fn is_crowded(&self) -> bool {
        !self.is_below_three_quarters(self.held())
    }

    /// What is reserved now.
    pub fn held(&self) -> Amount {
        unpack(self.held.load(Ordering::Acquire))
    }

    /// Counts as waiting for room as long as it lives.
    pub fn waiter(&self) -> Waiter<'_> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        Waiter(self)
    }
}

/// A sender that waits for room.
#[derive(Debug)]
pub struct Waiter<'a>(&'a Gauge);

impl Waiter<'_> {
    /// Resolves when something was freed after this call.
    pub fn freed(&self) -> Notified<'_> {
        self.0.freed.notified()
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The bytes in all mailboxes together.
#[derive(Debug)]
pub struct Total {
    bound: u64,
    held: AtomicU64,
}

impl Total {
    pub fn new(bound: u64) -> Self {
        Self { bound, held: AtomicU64::new(0) }
    }

    /// Takes room, or says that there is none.
    #[must_use]
    pub fn reserve(&self, bytes: u64) -> bool {
        let fits = self.held.fetch_add(bytes, Ordering::AcqRel) + bytes <= self.bound;
        if !fits {
            self.release(bytes);
        }
        fits
    }

    pub fn release(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::AcqRel);
    }

    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }

    /// Whether it is above three quarters of its bound.
    pub fn is_crowded(&self) -> bool {
        self.held() >= three_quarters(self.bound)
    }
}

fn three_quarters(bound: u64) -> u64 {
    bound - bound / 4
}

fn pack(amount: Amount) -> u64 {
    amount.messages << BYTES_BITS | amount.bytes
}

fn unpack(held: u64) -> Amount {
    Amount { messages: held >> BYTES_BITS, bytes: held & BYTES_MASK }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gauge(messages: u64, bytes: u64) -> Gauge {
        Gauge::new(Bounds { messages, bytes })
    }

    #[test]
    fn room_is_bounded_by_messages_and_by_bytes() {
        let few = gauge(2, 1000);
        assert_eq!([few.reserve(1), few.reserve(1), few.reserve(1)], [Ok(()), Ok(()), Err(Refused::Full)]);
        let small = gauge(1000, 10);
        assert_eq!(
            [small.reserve(9), small.reserve(2), small.reserve(1)],
            [Ok(()), Err(Refused::Full), Ok(())]
        );
        assert_eq!(small.held(), Amount { messages: 2, bytes: 10 });
    }

    #[test]
    fn once_it_refuses_it_does_so_until_three_quarters_are_left() {
        let gauge = gauge(8, 1000);
        for _ in 0..8 {
            gauge.reserve(10).unwrap();
        }
        gauge.start_refusing();
        gauge.release(Amount { messages: 2, bytes: 20 });
        assert_eq!(gauge.reserve(10), Err(Refused::StillFull), "6 of 8 are not below three quarters");
        gauge.release(Amount::message(10));
        assert_eq!(gauge.reserve(10), Ok(()));
    }

    #[test]
    fn an_emptied_mailbox_does_not_start_to_refuse() {
        let gauge = gauge(8, 1000);
        gauge.start_refusing();
        assert_eq!(gauge.reserve(10), Ok(()));
    }

    #[test]
    fn a_closed_gauge_takes_nothing_but_still_frees() {
        let gauge = gauge(8, 1000);
        gauge.reserve(10).unwrap();
        gauge.close();
        assert_eq!(gauge.reserve(10), Err(Refused::Closed));
        gauge.release(Amount::message(10));
        assert_eq!(gauge.held(), Amount::default());
    }

    #[test]
    fn all_mailboxes_together_are_bounded() {
        let total = Total::new(100);
        assert!(total.reserve(60));
        assert!(!total.reserve(50));
        assert!(total.reserve(40));
        total.release(100);
        assert_eq!(total.held(), 0);
    }
}
