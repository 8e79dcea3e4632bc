//! Bytes out: what waits to be written to one connection, and in which order.
//!
//! Ops go first, then proxied messages, written raw as they were framed at their sender's side,
//! then the close frame. The stream here wraps the one that drives the actor: polling it runs the
//! actor, and its items are the response's body. Whoever writes that takes so much at once
//! (`upgraded::WRITE_BYTES`, `WRITE_PIECES`, or all that there is), writes it, and only then asks for more:
//! by that it is known here what was written.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::AddAssign;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use actix_web::Error;
use bytes::Bytes;
use futures_util::Stream;

use super::upgraded::{WRITE_BYTES, WRITE_PIECES};
use crate::actors::link::{Life, OpPermit};

/// Written bytes are told to the session in portions of at least this size, or when nothing is left.
const WRITTEN_PORTION: usize = 64 * 1024;

/// Is told what the server has written.
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
    /// What the server took since it last had written all.
    in_hand: InHand,
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

/// What the server took to write at once.
#[derive(Debug, Default)]
struct InHand {
    bytes: usize,
    pieces: usize,
    /// What is to be told once it is written.
    written: Written,
    /// Given back then.
    permits: Vec<OpPermit>,
}

impl InHand {
    /// Whether it takes no more before that is written.
    fn is_full(&self) -> bool {
        self.bytes >= WRITE_BYTES || self.pieces >= WRITE_PIECES
    }
}

#[derive(Debug)]
struct Op {
    frame: Bytes,
    permit: Option<OpPermit>,
    is_presence: bool,
}

/// What was written and not yet told.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) bytes: usize,
    pub(crate) presences: usize,
}

impl AddAssign for Written {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.presences += other.presences;
    }
}

impl Outgoing {
    pub(crate) fn push_op(&mut self, frame: Bytes, permit: Option<OpPermit>, is_presence: bool) {
        if !self.is_closing {
            self.ops.push_back(Op { frame, permit, is_presence });
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

    /// The server asks for more. Where it had all that there was, or as much as it takes, it has written that.
    fn asked(&mut self) {
        // It takes what the actor makes meanwhile without being woken.
        self.waker = None;
        if self.taken == Taken::All || self.in_hand.is_full() {
            self.taken = Taken::Nothing;
            self.written += std::mem::take(&mut self.in_hand).written;
        }
    }

    fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.pong.is_none() && self.frames.is_empty() && self.close.is_none()
    }

    fn pop(&mut self) -> Option<Bytes> {
        let mut next = Written::default();
        let piece = if let Some(op) = self.ops.pop_front() {
            next.presences = usize::from(op.is_presence);
            self.in_hand.permits.extend(op.permit);
            op.frame
        } else if let Some(pong) = self.pong.take() {
            pong
        } else if let Some(frames) = self.frames.pop_front() {
            next.bytes = frames.len();
            frames
        } else {
            self.close.take()?
        };
        debug_assert!(!piece.is_empty(), "it is not counted as a piece by who writes it");
        self.in_hand.bytes += piece.len();
        self.in_hand.pieces += 1;
        self.in_hand.written += next;
        Some(piece)
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Wakes the task that writes, and notes that it is for the actor.
struct Call {
    is_due: AtomicBool,
    task: Waker,
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_due.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

/// The body of the response that a WebSocket is.
pub(crate) struct Body<S> {
    /// Runs the actor; yields nothing itself.
    actor: Pin<Box<S>>,
    has_ended: bool,
    call: Option<Arc<Call>>,
    outgoing: Rc<RefCell<Outgoing>>,
    life: Arc<Life>,
}

impl<S> Body<S> {
    pub(crate) fn new(actor: S, outgoing: Rc<RefCell<Outgoing>>, life: Arc<Life>) -> Self {
        Self { actor: Box::pin(actor), has_ended: false, call: None, outgoing, life }
    }

    /// What the actor is polled with by that task, due where it is new.
    fn call(&mut self, task: &Waker) -> Arc<Call> {
        match &self.call {
            Some(call) if call.task.will_wake(task) => call.clone(),
            _ => {
                let call = Arc::new(Call { is_due: AtomicBool::new(true), task: task.clone() });
                self.call.insert(call).clone()
            }
        }
    }

    /// Ends the stream. The end of the socket has to come from us: the service waits for it (RFC 6455
    /// section 7.1.1), and the server for the service's. It comes as the server flushes what it took.
    fn end(&self) -> Poll<Option<Result<Bytes, Error>>> {
        self.life.finish_writing();
        Poll::Ready(None)
    }
}

impl<S: Stream<Item = Result<Bytes, Error>>> Body<S> {
    /// Lets the actor go on, if anything has woken it: the server asks several times for each message.
    fn run_actor(&mut self, task: &Waker) {
        let call = self.call(task);
        if call.is_due.swap(false, Ordering::Acquire) {
            let waker = Waker::from(call);
            let polled = self.actor.as_mut().poll_next(&mut Context::from_waker(&waker));
            self.has_ended = matches!(polled, Poll::Ready(None));
        }
    }
}

impl<S: Stream<Item = Result<Bytes, Error>>> Stream for Body<S> {
    type Item = Result<Bytes, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        this.outgoing.borrow_mut().asked();
        // The actor goes on once all is taken that it has made: not again for each part of it.
        if this.outgoing.borrow().is_empty() && !this.has_ended {
            this.run_actor(context.waker());
        }
        let has_ended = this.has_ended;
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
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;

    use futures_util::stream;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::socket::Socket;

    /// A body, what waits for it, and the bytes that it told to be written, one entry each time.
    struct Asked {
        outgoing: Rc<RefCell<Outgoing>>,
        body: Body<stream::Pending<Result<Bytes, Error>>>,
        told: Rc<RefCell<Vec<usize>>>,
        _peer: UnixStream,
    }

    impl Asked {
        fn new() -> Self {
            let (outgoing, told): (Rc<RefCell<Outgoing>>, Rc<RefCell<Vec<usize>>>) = Default::default();
            let telling = told.clone();
            let on_written = move |written: Written| telling.borrow_mut().push(written.bytes);
            outgoing.borrow_mut().set_on_written(Box::new(on_written));
            let (body, peer) = body_of(&outgoing, stream::pending());
            Self { outgoing, body, told, _peer: peer }
        }

        /// The server asks: whether it gets something.
        fn ask(&mut self) -> bool {
            Pin::new(&mut self.body).poll_next(&mut Context::from_waker(Waker::noop())).is_ready()
        }

        fn push(&self, frames: Vec<Bytes>) {
            self.outgoing.borrow_mut().push_frames(frames);
        }

        fn is_idle(&self) -> bool {
            self.outgoing.borrow().is_idle()
        }
    }

    /// Of so many bytes each.
    fn frames<const COUNT: usize>(bytes: [usize; COUNT]) -> Vec<Bytes> {
        bytes.map(|bytes| vec![b'x'; bytes].into()).into()
    }

    /// A body whose actor is `actor`.
    fn body_of<S: Stream<Item = Result<Bytes, Error>>>(
        outgoing: &Rc<RefCell<Outgoing>>,
        actor: S,
    ) -> (Body<S>, UnixStream) {
        let (socket, peer) = UnixStream::pair().unwrap();
        let life = Arc::new(Life::new(Arc::new(Socket::of_unix(&socket).unwrap())));
        (Body::new(actor, outgoing.clone(), life), peer)
    }

    /// A task: how often it was woken.
    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_actor_goes_on_when_it_was_woken_and_what_it_makes_then_wakes_nobody() {
        let outgoing = Rc::<RefCell<Outgoing>>::default();
        let polled = RefCell::new(Vec::new());
        let actor = stream::poll_fn(|context| {
            polled.borrow_mut().push(context.waker().clone());
            outgoing.borrow_mut().push_frames(frames([1]));
            Poll::Pending
        });
        let (body, _peer) = body_of(&outgoing, actor);
        let (mut body, task) = (pin!(body), Arc::new(Task::default()));
        let waker = Waker::from(task.clone());
        let mut ask = |waker: &Waker| body.as_mut().poll_next(&mut Context::from_waker(waker)).is_ready();
        assert_eq!([(); 3].map(|()| ask(&waker)), [true, false, false]);
        assert_eq!((polled.borrow().len(), task.0.load(Ordering::Relaxed)), (1, 0));
        polled.borrow()[0].wake_by_ref();
        assert_eq!(task.0.load(Ordering::Relaxed), 1);
        assert_eq!([(); 3].map(|()| ask(&waker)), [true, false, false]);
        assert_eq!((polled.borrow().len(), task.0.load(Ordering::Relaxed)), (2, 1));
        assert!(ask(Waker::noop()), "another task has to be known to whatever wakes the actor");
        assert_eq!(polled.borrow().len(), 3);
        outgoing.borrow_mut().push_frames(frames([1]));
        assert_eq!(task.0.load(Ordering::Relaxed), 1, "who is not waiting for more is not woken");
    }

    #[test]
    fn what_is_pushed_while_the_server_waits_wakes_it() {
        let outgoing = Rc::<RefCell<Outgoing>>::default();
        let (mut body, _peer) = body_of(&outgoing, stream::pending());
        let task = Arc::new(Task::default());
        let waker = Waker::from(task.clone());
        assert!(Pin::new(&mut body).poll_next(&mut Context::from_waker(&waker)).is_pending());
        outgoing.borrow_mut().push_frames(frames([1]));
        assert_eq!(task.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_the_actor_made_last_goes_before_its_end() {
        let outgoing = Rc::<RefCell<Outgoing>>::default();
        let actor = stream::poll_fn(|_| {
            outgoing.borrow_mut().push_frames(frames([1, 2]));
            Poll::Ready(None)
        });
        let (body, _peer) = body_of(&outgoing, actor);
        let mut body = pin!(body);
        let mut ask = || body.as_mut().poll_next(&mut Context::from_waker(Waker::noop()));
        let lengths: Vec<usize> = std::iter::from_fn(|| match ask() {
            Poll::Ready(Some(Ok(bytes))) => Some(bytes.len()),
            end => {
                assert!(matches!(end, Poll::Ready(None)), "it waits");
                None
            }
        })
        .collect();
        assert_eq!(lengths, [1, 2]);
    }

    #[test]
    fn nothing_is_on_its_way_once_the_server_asks_again_after_it_had_all() {
        let mut asked = Asked::new();
        assert_eq!((asked.ask(), asked.is_idle()), (false, true));
        asked.push(frames([1, 1]));
        assert!(!asked.is_idle());
        assert_eq!((asked.ask(), asked.is_idle(), asked.ask(), asked.is_idle()), (true, false, true, false));
        assert_eq!((asked.ask(), asked.is_idle()), (false, false), "it has all, and may not have written it");
        assert_eq!((asked.ask(), asked.is_idle()), (false, true));
    }

    #[test]
    fn what_the_server_took_is_told_once_it_has_written_it() {
        let mut asked = Asked::new();
        asked.push(frames([1, 2]));
        assert_eq!([asked.ask(), asked.ask(), asked.ask()], [true, true, false]);
        assert_eq!(*asked.told.borrow(), [0; 0], "it has all, and may not have written it");
        assert!(!asked.ask());
        assert_eq!(*asked.told.borrow(), [3]);
    }

    #[test]
    fn the_permit_of_an_op_is_given_back_once_its_answer_is_written() {
        let mut asked = Asked::new();
        let permits = Arc::new(Semaphore::new(1));
        let permit = permits.clone().try_acquire_owned().unwrap();
        asked.outgoing.borrow_mut().push_op(Bytes::from_static(b"a"), Some(permit), false);
        assert_eq!((asked.ask(), asked.ask(), permits.available_permits()), (true, false, 0));
        assert_eq!((asked.ask(), permits.available_permits()), (false, 1));
    }

    #[test]
    fn as_much_as_the_server_takes_is_told_once_it_asks_for_more() {
        let mut asked = Asked::new();
        asked.push(frames([WRITE_BYTES, 1]));
        assert!(asked.ask() && asked.told.borrow().is_empty());
        assert!(asked.ask());
        assert_eq!(*asked.told.borrow(), [WRITE_BYTES]);
        asked.push(frames([1; WRITE_PIECES]));
        assert!((1..WRITE_PIECES).all(|_| asked.ask()) && asked.told.borrow().len() == 1);
        assert!(asked.ask());
        assert_eq!(*asked.told.borrow(), [WRITE_BYTES, WRITE_PIECES]);
    }
}
