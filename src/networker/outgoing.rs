//! Bytes out: what waits to be written to one connection, and in which order.
//!
//! Ops go first, then proxied messages, written raw as they were framed at their sender's side,
//! then the close frame. The stream here wraps the one that drives the actor: polling it runs the
//! actor, and its items are the response's body.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use actix_web::Error;
use bytes::Bytes;
use futures_util::Stream;

use crate::actors::link::{Life, OpPermit};

/// Written bytes are told to the session in portions of at least this size, or when nothing is
/// left.
const WRITTEN_PORTION: usize = 64 * 1024;

/// Is told what the server took over to write.
pub(crate) type OnWritten = Box<dyn Fn(Written)>;

/// What waits to be written.
#[derive(Default)]
pub(crate) struct Outgoing {
    ops: VecDeque<Op>,
    frames: VecDeque<Bytes>,
    /// The answer to the last ping; earlier ones need none (RFC 6455 section 5.5.3).
    pong: Option<Bytes>,
    close: Option<Bytes>,
    /// Nothing more is taken, or written after the close frame.
    is_closing: bool,
    is_finished: bool,
    written: Written,
    on_written: Option<OnWritten>,
    taken: Taken,
    waker: Option<Waker>,
}

/// What the server has of it to write.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// It has written all that it took.
    #[default]
    Nothing,
    Some,
    /// All that there was: it asks again once that is written.
    All,
}

#[derive(Debug)]
struct Op {
    frame: Bytes,
    /// Given back when the op is written.
    _permit: Option<OpPermit>,
    is_presence: bool,
}

/// What was written and not yet told.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) bytes: usize,
    pub(crate) presences: usize,
}

impl Outgoing {
    pub(crate) fn push_op(&mut self, frame: Bytes, permit: Option<OpPermit>, is_presence: bool) {
        if !self.is_closing {
            self.ops.push_back(Op { frame, _permit: permit, is_presence });
            self.wake();
        }
    }

    pub(crate) fn push_frames(&mut self, frames: Vec<Bytes>) {
        if !self.is_closing {
            self.frames.extend(frames);
            self.wake();
        }
    }

    pub(crate) fn set_pong(&mut self, frame: Bytes) {
        if !self.is_closing {
            self.pong = Some(frame);
            self.wake();
        }
    }

    /// The last frame: nothing is taken after it. Only the first close counts.
    pub(crate) fn close(&mut self, frame: Bytes) {
        if !self.is_closing {
            self.is_closing = true;
            self.close = Some(frame);
            self.wake();
        }
    }

    pub(crate) fn set_on_written(&mut self, on_written: OnWritten) {
        self.on_written = Some(on_written);
    }

    /// Ends the connection once all is written.
    pub(crate) fn finish(&mut self) {
        self.is_closing = true;
        self.is_finished = true;
        self.wake();
    }

    /// Tells what was written, once it is worth it.
    fn tell_written(&mut self) {
        let is_due = self.written.bytes >= WRITTEN_PORTION || (self.frames.is_empty() && self.ops.is_empty());
        if is_due && self.written != Written::default() {
            let written = std::mem::take(&mut self.written);
            if let Some(on_written) = &self.on_written {
                on_written(written);
            }
        }
    }

    /// Whether there is nothing on its way to the service.
    pub(crate) fn is_idle(&self) -> bool {
        self.taken == Taken::Nothing && self.is_empty()
    }

    fn asked(&mut self) {
        if self.taken == Taken::All {
            self.taken = Taken::Nothing;
        }
    }

    fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.pong.is_none() && self.frames.is_empty() && self.close.is_none()
    }

    fn pop(&mut self) -> Option<Bytes> {
        if let Some(op) = self.ops.pop_front() {
            self.written.presences += usize::from(op.is_presence);
            return Some(op.frame);
        }
        if let Some(pong) = self.pong.take() {
            return Some(pong);
        }
        if let Some(frames) = self.frames.pop_front() {
            self.written.bytes += frames.len();
            return Some(frames);
        }
        self.close.take()
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// The body of the response that a WebSocket is.
pub(crate) struct Body<S> {
    /// Runs the actor; yields nothing itself.
    actor: Pin<Box<S>>,
    outgoing: Rc<RefCell<Outgoing>>,
    life: Arc<Life>,
}

impl<S> Body<S> {
    pub(crate) fn new(actor: S, outgoing: Rc<RefCell<Outgoing>>, life: Arc<Life>) -> Self {
        Self { actor: Box::pin(actor), outgoing, life }
    }

    /// Ends the stream. The end of the socket has to come from us: the service waits for it (RFC 6455
    /// section 7.1.1), and the server for the service's. It comes as the server flushes what it took.
    fn end(&self) -> Poll<Option<Result<Bytes, Error>>> {
        self.life.finish_writing();
        Poll::Ready(None)
    }
}

impl<S: Stream<Item = Result<Bytes, Error>>> Stream for Body<S> {
    type Item = Result<Bytes, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        this.outgoing.borrow_mut().asked();
        // The actor goes on once all is taken that it has made: not again for each part of it.
        let has_ended = this.outgoing.borrow().is_empty()
            && matches!(this.actor.as_mut().poll_next(context), Poll::Ready(None));
        let mut outgoing = this.outgoing.borrow_mut();
        let next = outgoing.pop();
        outgoing.tell_written();
        match next {
            Some(bytes) => {
                outgoing.taken = Taken::Some;
                Poll::Ready(Some(Ok(bytes)))
            }
            None if has_ended || outgoing.is_finished => {
                drop(outgoing);
                this.end()
            }
            None => {
                if outgoing.taken == Taken::Some {
                    outgoing.taken = Taken::All;
                }
                outgoing.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use futures_util::stream;

    use super::*;
    use crate::socket::Socket;

    #[test]
    fn nothing_is_on_its_way_once_the_server_asks_again_after_it_had_all() {
        let outgoing: Rc<RefCell<Outgoing>> = Rc::default();
        let is_idle = || outgoing.borrow().is_idle();
        let (socket, _peer) = UnixStream::pair().unwrap();
        let life = Arc::new(Life::new(Arc::new(Socket::of_unix(&socket).unwrap())));
        let mut body = Body::new(stream::pending(), outgoing.clone(), life);
        let mut ask = || Pin::new(&mut body).poll_next(&mut Context::from_waker(Waker::noop())).is_ready();
        assert_eq!((ask(), is_idle()), (false, true));
        outgoing.borrow_mut().push_frames(vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")]);
        assert!(!is_idle());
        assert_eq!((ask(), is_idle(), ask(), is_idle()), (true, false, true, false));
        assert_eq!((ask(), is_idle()), (false, false), "it has all, and may not have written it");
        assert_eq!((ask(), is_idle()), (false, true));
    }
}
