//! Accepts connections, while there may be more of them.

use std::convert::Infallible;
use std::io;
use std::net;
use std::os::unix;
use std::time::Duration;

use nix::errno::Errno;
use tokio::net::{TcpListener, UnixListener};

use super::workers::Balancer;

/// How long to wait before the next try where none can be accepted: mostly there are no descriptors left.
const RETRY: Duration = Duration::from_millis(500);

/// What is listened on.
pub(super) trait Listener {
    /// A connection that does not block, and is not bound to a thread yet.
    type Stream;

    async fn next(&self) -> io::Result<Self::Stream>;
}

impl Listener for TcpListener {
    type Stream = net::TcpStream;

    async fn next(&self) -> io::Result<net::TcpStream> {
        self.accept().await?.0.into_std()
    }
}

impl Listener for UnixListener {
    type Stream = unix::net::UnixStream;

    async fn next(&self) -> io::Result<unix::net::UnixStream> {
        self.accept().await?.0.into_std()
    }
}

/// Lets in whoever comes. Ends only by an error after which not everybody can come.
pub(super) async fn accept<L: Listener>(
    listener: L,
    mut balancer: Balancer<L::Stream>,
) -> io::Result<Infallible> {
    loop {
        // Whoever there is no room for waits in the kernel.
        let permit = balancer.permit().await;
        balancer.dispatch(next(&listener).await, permit)?;
    }
}

async fn next<L: Listener>(listener: &L) -> L::Stream {
    loop {
        match listener.next().await {
            Ok(stream) => return stream,
            Err(error) if is_about_one_connection(&error) => {
                log::debug!("a connection ended before it was accepted: {error}");
            }
            Err(error) => {
                log::error!("cannot accept connections: {error}; it is tried again in {RETRY:?}");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Whether only this connection failed, and the next one may not: what the kernel says of one that ended, or
/// that its network ended (accept(2), "Error handling").
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(
            Errno::ECONNABORTED
                | Errno::ECONNREFUSED
                | Errno::ECONNRESET
                | Errno::EHOSTDOWN
                | Errno::EHOSTUNREACH
                | Errno::EINTR
                | Errno::ENETDOWN
                | Errno::ENETUNREACH
                | Errno::ENONET
                | Errno::ENOPROTOOPT
                | Errno::EOPNOTSUPP
                | Errno::EPROTO
        )
    )
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::pending;
    use std::time::Instant;

    use actix_service::fn_service;
    use tokio::sync::mpsc::unbounded_channel;

    use super::super::workers::Workers;
    use super::*;

    /// Brings these, one after the other, and then nobody.
    struct Script(RefCell<Vec<Result<u32, Errno>>>);

    impl Listener for Script {
        type Stream = u32;

        async fn next(&self) -> io::Result<u32> {
            let next = self.0.borrow_mut().pop();
            match next {
                Some(next) => Ok(next?),
                None => pending().await,
            }
        }
    }

    #[test]
    fn one_connection_that_failed_is_told_from_all_that_do() {
        let is_about_one_connection = |errno: Errno| is_about_one_connection(&errno.into());
        for errno in [Errno::ECONNABORTED, Errno::EPROTO, Errno::ENETUNREACH] {
            assert!(is_about_one_connection(errno), "{errno}");
        }
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM, Errno::EINVAL] {
            assert!(!is_about_one_connection(errno), "{errno}");
        }
    }

    #[actix::test]
    async fn who_comes_after_a_failure_is_let_in() {
        let workers = Workers::start(2, 10).unwrap();
        let (came, mut comes) = unbounded_channel();
        let balancer = workers.serve(move || {
            let came = came.clone();
            fn_service(move |stream: u32| {
                came.send(stream).unwrap();
                pending::<Result<(), ()>>()
            })
        });
        let mut script = vec![Ok(1), Err(Errno::ECONNABORTED), Ok(2), Err(Errno::EMFILE), Ok(3)];
        script.reverse();
        let begun = Instant::now();
        let accepting = actix_rt::spawn(accept(Script(RefCell::new(script)), balancer));
        let mut all = Vec::new();
        while all.len() < 3 {
            let next = tokio::time::timeout(20 * RETRY, comes.recv()).await;
            all.extend(next.unwrap_or_else(|_| panic!("nobody came after {all:?}")));
        }
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3]);
        assert!(begun.elapsed() >= RETRY, "it was tried again at once where it could not help");
        accepting.abort();
        workers.stop(Duration::ZERO).await;
    }
}
