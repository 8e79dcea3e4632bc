//! What a Unix domain socket does not count by itself: how much was written, and when something came.
//!
//! How much the peer has not read yet, the kernel tells (`SIOCOUTQ`, which is `SO_MEMINFO`'s write
//! memory): not in bytes, but in the memory of the pieces that the bytes lie in, each of which is
//! freed when it was read to its end. So what the peer took is known to the piece, of up to 48 KiB,
//! and never too high while something waits.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::getsockopt;

use super::Traffic;

mod option {
    // The macro calls the others by their bare names.
    use nix::{getsockopt_impl, libc, sockopt_impl};

    sockopt_impl!(
        /// The memory of a socket (linux/sock_diag.h, `SK_MEMINFO_*`).
        MemInfo, GetOnly, libc::SOL_SOCKET, libc::SO_MEMINFO, [u32; 9]
    );
}

/// What was sent and not read (`SK_MEMINFO_WMEM_ALLOC`).
const WRITE_MEMORY: usize = 2;

/// Counts what goes through one socket.
#[derive(Debug)]
pub(super) struct Meter {
    began: Instant,
    written: AtomicU64,
    read_after_ms: AtomicU64,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), written: AtomicU64::new(0), read_after_ms: AtomicU64::new(0) }
    }

    pub(super) fn wrote(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::AcqRel);
    }

    pub(super) fn read(&self) {
        self.read_after_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn traffic(&self, socket: &OwnedFd) -> Traffic {
        // In this order: what is written in between then counts as not taken.
        let given = self.written.load(Ordering::Acquire);
        let unread = getsockopt(socket, option::MemInfo).map_or(0, |memory| memory[WRITE_MEMORY].into());
        // What waits to be read came at some time since: that it was not read is not its sender's fault.
        let waits = has(socket, PollFlags::POLLIN);
        let read_ago = self.now_ms().saturating_sub(self.read_after_ms.load(Ordering::Relaxed));
        Traffic {
            acknowledged: given.saturating_sub(unread),
            given,
            unacknowledged: unread > 0,
            silent_for: if waits { Duration::ZERO } else { Duration::from_millis(read_ago) },
        }
    }
}

/// Whether the peer has closed its side.
pub(super) fn has_hung_up(socket: &OwnedFd) -> bool {
    has(socket, PollFlags::from_bits_retain(nix::libc::POLLRDHUP))
}

/// Whether the socket is in one of these states, or ended.
fn has(socket: &OwnedFd, flags: PollFlags) -> bool {
    let mut asked = [PollFd::new(socket.as_fd(), flags)];
    let ended = PollFlags::POLLHUP | PollFlags::POLLERR;
    poll(&mut asked, PollTimeout::ZERO).is_ok()
        // `None` where there is a flag that nix does not know: POLLRDHUP, which was asked for then.
        && asked[0].revents().is_none_or(|seen| seen.intersects(flags | ended))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::socket::Socket;

    fn pair() -> (UnixStream, UnixStream, Socket) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let socket = Socket::of_unix(&ours).unwrap();
        (ours, theirs, socket)
    }

    #[test]
    fn what_the_peer_took_is_never_told_too_high_and_all_of_it_in_the_end() {
        let (mut ours, mut theirs, socket) = pair();
        ours.set_nonblocking(true).unwrap();
        let mut given = 0;
        while let Ok(written) = ours.write(&[7; 10_000]) {
            socket.wrote(written);
            given += written as u64;
        }
        let Traffic { acknowledged, given: told, unacknowledged, .. } = socket.traffic();
        assert_eq!((acknowledged, told, unacknowledged), (0, given, true), "the buffer is full");
        let mut taken = 0;
        while taken < given {
            taken += theirs.read(&mut [0; 4_096]).unwrap() as u64;
            let acknowledged = socket.traffic().acknowledged;
            assert!(acknowledged <= taken, "{acknowledged} told of {taken}");
        }
        let Traffic { acknowledged, unacknowledged, .. } = socket.traffic();
        assert_eq!((acknowledged, unacknowledged), (given, false));
    }

    #[test]
    fn what_waits_to_be_read_is_no_silence() {
        let (mut ours, mut theirs, socket) = pair();
        std::thread::sleep(Duration::from_millis(20));
        let silent_for = socket.traffic().silent_for;
        assert!(silent_for >= Duration::from_millis(19), "{silent_for:?}");
        theirs.write_all(b"x").unwrap();
        assert_eq!(socket.traffic().silent_for, Duration::ZERO);
        ours.read_exact(&mut [0]).unwrap();
        assert!(socket.traffic().silent_for >= Duration::from_millis(19), "nobody told that it was read");
        let start = Instant::now();
        socket.read();
        let silent_for = socket.traffic().silent_for;
        assert!(silent_for <= start.elapsed() + Duration::from_millis(1), "{silent_for:?} since it was read");
    }

    #[test]
    fn the_end_is_seen_behind_what_was_not_read() {
        let (_ours, mut theirs, socket) = pair();
        theirs.write_all(b"unread").unwrap();
        assert!(!socket.has_hung_up());
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(socket.has_hung_up(), "half of it");
        let (_ours, theirs, socket) = pair();
        drop(theirs);
        assert!(socket.has_hung_up(), "all of it");
    }

    #[test]
    fn cutting_off_ends_both_sides() {
        let (mut ours, mut theirs, socket) = pair();
        socket.shut_down();
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
        assert!(ours.write(b"x").is_err());
    }
}
