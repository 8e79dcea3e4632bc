//! Bytes in: turns what was read from a socket into messages, all of one read at once.
//!
//! The frames are the [`FrameReader`]'s. Here is when to read, and whose buffers are used. What the
//! messages mean is [`dispatch`](super::dispatch)'s.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use actix_web::web::Payload;
use futures_util::Stream;

use super::throttle::Throttle;
use super::upgraded::READ_BYTES;
pub(crate) use crate::protocol::burst::{Burst, Item};
use crate::protocol::reader::FrameReader;

/// Buffers that grew beyond this are not kept: a read seldom completes a message that large, or brings that many
/// messages.
const MAX_SPARE_BYTES: usize = 4 * READ_BYTES;

thread_local! {
    /// A burst's buffers, kept for the next: idle connections hold none.
    static SPARE: RefCell<Option<Burst>> = const { RefCell::new(None) };
}

fn take_spare() -> Burst {
    SPARE.take().unwrap_or_default()
}

/// A burst that has to wait, and the item that it goes on with.
pub(crate) struct Paused {
    burst: Burst,
    at: usize,
}

impl Paused {
    pub(crate) fn new(mut burst: Burst, at: usize) -> Self {
        // It must not hold the memory that others read into for a few bytes.
        burst.fit(at, READ_BYTES);
        Self { burst, at }
    }

    pub(crate) fn into_parts(self) -> (Burst, usize) {
        (self.burst, self.at)
    }
}

/// Keeps a burst's buffers for the next.
pub(crate) fn give_back(mut burst: Burst) {
    if burst.capacity() <= MAX_SPARE_BYTES {
        burst.clear();
        SPARE.set(Some(burst));
    }
}

/// Whether reading is paused, seen by the connection and by its stream.
#[derive(Default)]
pub(crate) struct Gate {
    paused: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Gate {
    pub(crate) fn pause(&self) {
        self.paused.set(true);
    }

    pub(crate) fn resume(&self) {
        self.paused.set(false);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// The bursts of a connection.
pub(crate) struct Bursts {
    payload: Payload,
    reader: FrameReader,
    gate: Rc<Gate>,
    throttle: Throttle,
    ended: bool,
}

impl Bursts {
    pub(crate) fn new(
        payload: Payload,
        max_message_bytes: usize,
        gate: Rc<Gate>,
        throttle: Throttle,
    ) -> Self {
        Self { payload, reader: FrameReader::new(max_message_bytes), gate, throttle, ended: false }
    }
}

impl Stream for Bursts {
    type Item = Burst;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Burst>> {
        let this = self.get_mut();
        loop {
            if this.gate.paused.get() || this.ended {
                // After the end, too: a stream that finishes would stop its actor, which has its
                // own way to end.
                this.gate.waker.set(Some(context.waker().clone()));
                return Poll::Pending;
            }
            std::task::ready!(this.throttle.poll(context));
            let Poll::Ready(read) = Pin::new(&mut this.payload).poll_next(context) else {
                return Poll::Pending;
            };
            let mut burst = take_spare();
            if let Some(Ok(bytes)) = read {
                this.reader.read(&bytes, &mut burst);
                this.throttle.spend(burst.frames(), bytes.len());
            } else {
                this.ended = true;
                burst.end();
            }
            if !burst.is_empty() {
                return Poll::Ready(Some(burst));
            }
            give_back(burst);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// So many messages without a text.
    fn read(messages: usize) -> (Bytes, Burst) {
        let bytes = Bytes::from([0x81, 0x80, 1, 2, 3, 4].repeat(messages));
        let mut burst = Burst::default();
        FrameReader::new(100).read(&bytes, &mut burst);
        assert_eq!(burst.len(), messages);
        (bytes, burst)
    }

    #[test]
    fn what_waits_lets_go_of_the_memory_that_connections_read_into() {
        let (bytes, burst) = read(2);
        assert!(!bytes.is_unique());
        let (mut burst, at) = Paused::new(burst, 1).into_parts();
        assert!(bytes.is_unique());
        assert_eq!((at, burst.get(at)), (1, Some((Item::Text, &b""[..]))));
    }

    #[test]
    fn buffers_are_kept_for_the_next_burst_up_to_a_bound() {
        let (_, burst) = read(1_000);
        let capacity = burst.capacity();
        give_back(burst);
        assert_eq!(take_spare().capacity(), capacity);
        let (_, burst) = read(40_000);
        assert!(burst.capacity() > MAX_SPARE_BYTES);
        give_back(burst);
        assert_eq!(take_spare().capacity(), 0);
    }
}
