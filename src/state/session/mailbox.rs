//! What a session holds for its service: what waits, and what waits to be acknowledged.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::protocol::error::ErrorCode;
use crate::state::outstanding::{NeverSent, Outstanding};
use crate::state::parcel::Parcel;
use crate::state::spare;

/// What a connection may hold of ours before it has written it: what can be lost with it.
pub const CREDIT_BYTES: usize = 256 * 1024;

/// How many bytes of messages are returned in one go when a session is down: a full mailbox
/// must not hold up its neighbours on the same thread.
const RETURN_SLICE_BYTES: usize = 128 * 1024;

/// One session's mailbox.
#[derive(Debug)]
pub(super) struct Mailbox {
    waiting: VecDeque<Parcel>,
    outstanding: Outstanding,
    max_unacked: u64,
}

impl Mailbox {
    /// An empty one; at most `max_unacked` deliveries wait to be acknowledged.
    pub(super) fn new(max_unacked: u64) -> Self {
        Self { waiting: VecDeque::new(), outstanding: Outstanding::default(), max_unacked }
    }

    pub(super) fn push(&mut self, parcel: Parcel) {
        self.waiting.push_back(parcel);
    }

    /// All that is there, in order, what is not acknowledged first.
    pub(super) fn parcels(&self) -> impl Iterator<Item = &Parcel> {
        self.outstanding.parcels().chain(&self.waiting)
    }

    /// Whether something could be taken now, had the connection credit for it.
    pub(super) fn has_next(&self, acks: bool) -> bool {
        let is_kept_back = acks && self.outstanding.messages() >= self.max_unacked;
        !self.waiting.is_empty() && !is_kept_back
    }

    /// The next frames for a connection that has not written `in_flight` bytes: a parcel that
    /// fits into its credit, or one that is larger than all credit when nothing is under way.
    pub(super) fn next(&mut self, acks: bool, in_flight: usize) -> Option<Bytes> {
        let fits = |bytes: usize| in_flight == 0 || in_flight + bytes <= CREDIT_BYTES;
        if acks && self.outstanding.has_more() {
            return self.outstanding.hand_again(fits);
        }
        let front = self.waiting.front()?;
        if acks && !front.is_notice() {
            return self.next_numbered(fits);
        }
        if fits(front.frame_bytes()) { self.pop().map(Parcel::delivered) } else { None }
    }

    fn pop(&mut self) -> Option<Parcel> {
        let parcel = self.waiting.pop_front();
        spare::let_go(&mut self.waiting);
        parcel
    }

    fn next_numbered(&mut self, fits: impl FnOnce(usize) -> bool) -> Option<Bytes> {
        let room = self.max_unacked.saturating_sub(self.outstanding.messages());
        let front = self.waiting.front_mut().filter(|front| fits(Outstanding::numbered_bytes(front)))?;
        if room == 0 {
            return None;
        }
        if front.amount().messages > room {
            return Some(self.outstanding.hand(front.split_front(room)));
        }
        self.pop().map(|parcel| self.outstanding.hand(parcel))
    }

    /// A new connection: with `acks` it gets again what is not acknowledged, with the numbers it
    /// had; else that is delivered once more, without.
    pub(super) fn rewind(&mut self, acks: bool) {
        if acks { self.outstanding.rewind() } else { self.unnumber() }
    }

    /// The number that a delivery was given last; 0: none yet.
    pub(super) fn last_number(&self) -> u64 {
        self.outstanding.last()
    }

    pub(super) fn acknowledge(&mut self, i: u64) -> Result<(), NeverSent> {
        self.outstanding.acknowledge(i)
    }

    /// Puts what is not acknowledged back before the rest.
    fn unnumber(&mut self) {
        for parcel in self.outstanding.take().rev() {
            self.waiting.push_front(parcel);
        }
    }

    /// Returns some of what is there to its sources, since its service is gone for that reason. True: that was
    /// all.
    pub(super) fn give_back_some(&mut self, reason: &str) -> bool {
        self.unnumber();
        let mut bytes = 0;
        while bytes < RETURN_SLICE_BYTES {
            let Some(parcel) = self.pop() else { return true };
            bytes += parcel.frame_bytes();
            expire(parcel, reason);
        }
        false
    }
}

/// Returns what reaches a session that is down for that reason.
pub(super) fn expire(parcel: Parcel, reason: &str) {
    parcel.give_back(ErrorCode::Expired, &format!("its service is gone: {reason}"));
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;
    use crate::protocol::name::Name;
    use crate::state::gauge::Bounds;
    use crate::state::parcel::OpenParcel;
    use crate::state::route::{Inbox, Route, Shared};

    struct Sent(mpsc::Sender<Parcel>);

    impl Inbox for Sent {
        fn deliver(&self, parcel: Parcel) {
            self.0.send(parcel).unwrap();
        }
    }

    /// So many messages or notices, each in a parcel of its own.
    fn parcels(count: usize, are_messages: bool) -> impl Iterator<Item = Parcel> {
        let bounds = Bounds { messages: 1_000, bytes: 1_000_000 };
        let shared = Arc::new(Shared::new(10, 1_000_000));
        let target = Arc::new(Route::new(Name::new("b").unwrap(), bounds, shared));
        let (sent, parcels) = mpsc::channel();
        target.open(Box::new(Sent(sent)));
        let entry = target.entry(Some(target.name()));
        for _ in 0..count {
            let mut parcel = OpenParcel::new(target.clone(), 0);
            parcel.push([b"{}", b""]).unwrap();
            parcel.send(are_messages.then_some((&target, &entry)));
        }
        parcels.into_iter().take(count)
    }

    #[test]
    fn what_was_acknowledged_holds_no_memory_either() {
        let mut mailbox = Mailbox::new(1_000);
        parcels(1_000, true).for_each(|parcel| mailbox.push(parcel));
        while mailbox.next(true, 0).is_some() {}
        assert_eq!((mailbox.waiting.capacity(), mailbox.outstanding.messages()), (0, 1_000));
        mailbox.acknowledge(999).unwrap();
        assert!(mailbox.outstanding.capacity() >= 1_000);
        mailbox.acknowledge(1_000).unwrap();
        assert_eq!(mailbox.outstanding.capacity(), 0);
    }

    #[test]
    fn a_mailbox_that_was_full_holds_no_memory_once_it_is_empty() {
        let mut mailbox = Mailbox::new(10);
        parcels(1_000, false).for_each(|parcel| mailbox.push(parcel));
        assert!(mailbox.waiting.capacity() >= 1_000);
        while mailbox.next(false, 0).is_some() {}
        assert_eq!(mailbox.waiting.capacity(), 0);
        parcels(spare::KEPT / 2, false).for_each(|parcel| mailbox.push(parcel));
        let capacity = mailbox.waiting.capacity();
        assert!(mailbox.give_back_some("it left for good"));
        assert_eq!(mailbox.waiting.capacity(), capacity, "what is needed all the time is kept");
    }
}
