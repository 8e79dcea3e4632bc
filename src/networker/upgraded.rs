//! A WebSocket's socket, once its handshake was read.
//!
//! The HTTP server keeps 8 KiB to read into and 8 KiB to write from for each connection, and reads and
//! copies by these. Here all connections of a thread read into the same memory, and what they write
//! is written from where it lies: an idle one holds no buffer. What is asked for, and what is
//! answered, stays the app's. A request that asked for a WebSocket and gets another answer is answered
//! here too.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_codec::{Encoder, Framed, FramedParts};
use actix_http::body::{BodySize, BoxBody, MessageBody};
use actix_http::error::PayloadError;
use actix_http::h1::{Codec, Message};
use actix_http::{BoxedPayloadStream, ConnectionType, Payload, Request, Response};
use actix_service::Service;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::Stream as Items;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::task::yield_now;

use super::stream::Stream;

/// How much is read, and given to its reader, before other connections have their turn. With half as much,
/// parcels and writes halved too, a forwarded message costs a tenth more CPU; with twice as much, no less.
pub(super) const READ_BYTES: usize = 128 * 1024;

/// So much is taken from the body, and written, before other connections have their turn: what one read
/// brought, where all of it goes to one target.
pub(super) const WRITE_BYTES: usize = READ_BYTES;

/// In so many pieces at most.
pub(super) const WRITE_PIECES: usize = 32;

thread_local! {
    /// What the connections of this thread read into. What one has read is its own, and is read
    /// into again once that is gone.
    static MEMORY: RefCell<BytesMut> = RefCell::default();
}

/// A socket, of which the payload reads while the body is polled, and whose body is written.
struct Wire {
    stream: Stream,
    /// What was read with the request.
    unread: Bytes,
    /// How much it may read in this turn: it begins no read after that.
    room: usize,
}

impl Wire {
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if !self.unread.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.unread))));
        }
        if self.room == 0 {
            return others_first(context);
        }
        MEMORY.with_borrow_mut(|memory| {
            memory.reserve(READ_BYTES);
            let read = ready!(pin!(self.stream.read_buf(memory)).poll(context));
            // Whoever has nothing to read is told when there is.
            Poll::Ready(match read {
                Ok(0) => None,
                Ok(bytes) => {
                    self.room = self.room.saturating_sub(bytes);
                    Some(Ok(memory.split().freeze()))
                }
                Err(error) => Some(Err(error)),
            })
        })
    }
}

/// Polls the task again once the thread has looked at all its sockets.
fn others_first<T>(context: &mut Context<'_>) -> Poll<T> {
    let _ = pin!(yield_now()).poll(context);
    Poll::Pending
}

/// What comes from the socket.
struct Reading(Rc<RefCell<Wire>>);

impl Items for Reading {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.borrow_mut().poll_read(context).map_err(PayloadError::Io)
    }
}

/// Asks the app, and writes what it answers until that ends. `linger`: how long the peer then has to end
/// the connection, too.
pub(crate) async fn serve<S, B>(
    app: Rc<S>,
    request: Request,
    framed: Framed<Stream, Codec>,
    linger: Duration,
) -> io::Result<()>
where
    S: Service<Request>,
    S::Response: Into<Response<B>>,
    S::Error: Into<Response<BoxBody>>,
    B: MessageBody + 'static,
{
    let FramedParts { io, codec, read_buf, .. } = framed.into_parts();
    let unread = Bytes::copy_from_slice(&read_buf);
    drop(read_buf);
    let wire = Rc::new(RefCell::new(Wire { stream: io, unread, room: READ_BYTES }));
    let payload: BoxedPayloadStream = Box::pin(Reading(wire.clone()));
    let (request, _) = request.replace_payload(Payload::from(payload));
    let response = {
        let mut answer = pin!(app.call(request));
        let answer = poll_fn(|context| {
            wire.borrow_mut().room = READ_BYTES;
            answer.as_mut().poll(context)
        });
        match answer.await {
            Ok(response) => response.into().map_into_boxed_body(),
            Err(error) => error.into(),
        }
    };
    drop(app);
    let mut writing = Writing::new(wire, codec, response)?;
    if let Err(error) = poll_fn(|context| writing.poll(context)).await {
        // A peer that went away is no failure of ours; whose connection it was tells of its end.
        log::debug!("a connection ended amid a write: {error}");
        return Ok(());
    }
    let _ = tokio::time::timeout(linger, writing.finish()).await;
    Ok(())
}

/// An answer on its way out.
struct Writing {
    wire: Rc<RefCell<Wire>>,
    /// Frames the body. `None`: it is written as it is.
    codec: Option<Codec>,
    body: Option<BoxBody>,
    pieces: VecDeque<Bytes>,
}

impl Writing {
    fn new(wire: Rc<RefCell<Wire>>, mut codec: Codec, response: Response<BoxBody>) -> io::Result<Self> {
        let (mut response, body) = response.into_parts();
        let is_raw = response.upgrade();
        if !is_raw {
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        let size = body.size();
        let mut head = BytesMut::new();
        codec.encode(Message::Item((response, size)), &mut head)?;
        let has_body = !matches!(size, BodySize::None | BodySize::Sized(0));
        Ok(Self {
            wire,
            codec: (!is_raw).then_some(codec),
            body: has_body.then_some(body),
            pieces: VecDeque::from([head.freeze()]),
        })
    }

    /// Ready once the body has ended and all is written.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.borrow_mut().room = READ_BYTES;
        let mut written = 0;
        loop {
            // While the peer takes nothing, nothing is asked of the body.
            written += ready!(self.poll_write(context))?;
            if !self.pieces.is_empty() || written >= WRITE_BYTES {
                return others_first(context);
            }
            // What TLS holds back is not written.
            ready!(Pin::new(&mut self.wire.borrow_mut().stream).poll_flush(context))?;
            if self.body.is_none() {
                return Poll::Ready(Ok(()));
            }
            self.take(context)?;
            if self.pieces.is_empty() && self.body.is_some() {
                // The body says when there is more.
                return Poll::Pending;
            }
        }
    }

    /// Writes what there is, at most as much as others have to wait for; how much.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut total = 0;
        while total < WRITE_BYTES && !self.pieces.is_empty() {
            let mut slices = [IoSlice::new(&[]); WRITE_PIECES];
            let (mut count, mut left) = (0, WRITE_BYTES - total);
            for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                *slice = IoSlice::new(&piece[..piece.len().min(left)]);
                left -= slice.len();
                count += 1;
            }
            let written = {
                let stream = &mut self.wire.borrow_mut().stream;
                ready!(Pin::new(stream).poll_write_vectored(context, &slices[..count]))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.wrote(written);
            total += written;
        }
        Poll::Ready(Ok(total))
    }

    fn wrote(&mut self, mut bytes: usize) {
        while let Some(piece) = self.pieces.front_mut() {
            if bytes < piece.len() {
                return piece.advance(bytes);
            }
            bytes -= piece.len();
            self.pieces.pop_front();
        }
        // An idle connection holds nothing.
        self.pieces = VecDeque::new();
    }

    /// Takes from the body what is to be written at once, all of the last having been written: the body
    /// [relies on that](super::outgoing). It has ended once there is none.
    fn take(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        debug_assert!(self.pieces.is_empty());
        let mut bytes = 0;
        while let Some(body) = &mut self.body
            && self.pieces.len() < WRITE_PIECES
            && bytes < WRITE_BYTES
        {
            let Poll::Ready(next) = Pin::new(body).poll_next(context) else { break };
            let next = next.transpose().map_err(|error| io::Error::other(error.to_string()))?;
            if next.is_none() {
                self.body = None;
            }
            let piece = match &mut self.codec {
                None => next.unwrap_or_default(),
                Some(codec) => {
                    let mut framed = BytesMut::new();
                    codec.encode(Message::Chunk(next), &mut framed)?;
                    framed.freeze()
                }
            };
            bytes += piece.len();
            self.pieces.extend(Some(piece).filter(|piece| !piece.is_empty()));
        }
        Ok(())
    }

    /// Says that nothing more comes, and reads until the peer says so: a socket that is closed over unread
    /// bytes is reset, and what was written last may be lost.
    async fn finish(self) {
        let wire = self.wire;
        // A peer that has ended the connection already is no failure; reading will tell.
        let _ = poll_fn(|context| Pin::new(&mut wire.borrow_mut().stream).poll_shutdown(context)).await;
        let mut end = pin!(async {
            while let Some(Ok(_)) = poll_fn(|context| wire.borrow_mut().poll_read(context)).await {}
        });
        poll_fn(|context| {
            wire.borrow_mut().room = READ_BYTES;
            end.as_mut().poll(context)
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::task::Waker;
    use std::time::Instant;

    use actix_http::body::BodyStream;
    use futures_util::stream;

    use super::super::outgoing::{Body, Outgoing, Written};
    use super::super::stream::Transport;
    use super::*;
    use crate::actors::link::Life;
    use crate::socket::Socket;

    /// So much that a socket does not take it at once, nor gives it.
    const MUCH: usize = 1 << 20;

    /// A socket, the same beside it, and its peer, none of which waits.
    fn connected() -> (Rc<RefCell<Wire>>, TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        for stream in [&peer, &socket] {
            stream.set_nonblocking(true).unwrap();
        }
        let same = socket.try_clone().unwrap();
        let transport = Transport::Tcp(tokio::net::TcpStream::from_std(socket).unwrap());
        let wire =
            Wire { stream: Stream::new(transport, None, None), unread: Bytes::new(), room: READ_BYTES };
        (Rc::new(RefCell::new(wire)), same, peer)
    }

    fn answer(wire: &Rc<RefCell<Wire>>) -> Writing {
        let response = Response::ok().set_body(vec![b'x'; MUCH]).map_into_boxed_body();
        Writing::new(wire.clone(), Codec::default(), response).unwrap()
    }

    /// How much comes from a stream without waiting.
    fn drained(mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> usize {
        let mut bytes = vec![0; MUCH];
        std::iter::from_fn(|| read(&mut bytes).ok().filter(|read| *read > 0)).sum()
    }

    #[test]
    fn others_wait_for_one_piece_of_what_is_written() {
        actix_rt::System::new().block_on(async {
            let (wire, _, mut peer) = connected();
            let mut writing = answer(&wire);
            // Its registration with the runtime comes first.
            tokio::task::yield_now().await;
            assert!(writing.poll(&mut Context::from_waker(Waker::noop())).is_pending());
            // It all comes, but not at once: the kernel's window opens as it is read.
            peer.set_nonblocking(false).unwrap();
            peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            peer.read_exact(&mut vec![0; WRITE_BYTES]).unwrap();
            peer.set_nonblocking(true).unwrap();
            let more = drained(|bytes| peer.read(bytes));
            assert!(more < 1_000, "{more} bytes came beyond one piece and the head");
        });
    }

    #[test]
    fn what_is_told_to_be_written_the_kernel_has_taken_and_in_the_end_that_is_all() {
        const FRAME_BYTES: usize = 50_000;
        actix_rt::System::new().block_on(async {
            let (wire, same, mut peer) = connected();
            let (outgoing, told) = (Rc::<RefCell<Outgoing>>::default(), Rc::new(Cell::new(0)));
            let telling = told.clone();
            let on_written = move |written: Written| telling.set(telling.get() + written.bytes);
            outgoing.borrow_mut().set_on_written(Box::new(on_written));
            let life = Arc::new(Life::new(Arc::new(Socket::of_tcp(&same).unwrap())));
            let body = BodyStream::new(Body::new(stream::pending(), outgoing.clone(), life)).boxed();
            let mut writing = Writing { wire, codec: None, body: Some(body), pieces: VecDeque::new() };
            tokio::task::yield_now().await;
            let left_of = |writing: &Writing| writing.pieces.iter().map(Bytes::len).sum::<usize>();
            let poll = |writing: &mut Writing| {
                assert!(writing.poll(&mut Context::from_waker(Waker::noop())).is_pending());
            };
            let (mut pushed, mut read) = (0, 0);
            // Polled in vain, it waits for the kernel and not for others to have their turn.
            let mut is_full = false;
            while !is_full {
                outgoing.borrow_mut().push_frames(vec![vec![b'x'; FRAME_BYTES].into()]);
                pushed += FRAME_BYTES;
                poll(&mut writing);
                let left = left_of(&writing);
                poll(&mut writing);
                is_full = left > 0 && left == left_of(&writing);
                assert!(told.get() <= pushed - left, "{} of {pushed} told, {left} left", told.get());
            }
            assert!(told.get() < pushed);
            let start = Instant::now();
            while told.get() < pushed {
                assert!(start.elapsed().as_secs() < 20, "{} of {pushed} told, {read} read", told.get());
                read += drained(|bytes| peer.read(bytes));
                tokio::task::yield_now().await;
                poll(&mut writing);
            }
            assert!(writing.pieces.is_empty() && read <= pushed);
        });
    }

    #[test]
    fn others_wait_for_one_piece_of_what_comes_after_the_end() {
        actix_rt::System::new().block_on(async {
            let (wire, mut same, mut peer) = connected();
            let mut sent = 0;
            while let Ok(written) = peer.write(&[b'x'; 8_192]) {
                sent += written;
            }
            let mut finishing = pin!(answer(&wire).finish());
            // Until the runtime knows that there is something to read; read without end, the room never lacks.
            for _ in (0..1_000).take_while(|_| wire.borrow().room == READ_BYTES) {
                tokio::task::yield_now().await;
                assert!(finishing.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            }
            let left = drained(|bytes| same.read(bytes));
            let read = sent - left;
            assert!((1..2 * READ_BYTES).contains(&read), "{read} of {sent} bytes were read");
        });
    }
}
