//! A second hold on a connection's socket, beside the one in the HTTP server.
//!
//! A connection whose peer does not read is not polled any more, its timers included, so
//! whatever must happen on time happens here: looking whether the peer hung up, how much it took,
//! and ending the connection.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::socket::{Shutdown as How, getsockopt, setsockopt, shutdown, sockopt};

use crate::protocol::close::Close;
use crate::state::tally::Tally;

mod option {
    // The macro calls the others by their bare names.
    use nix::{getsockopt_impl, libc, sockopt_impl};

    sockopt_impl!(
        /// What the kernel knows of a TCP connection (tcp(7), `TCP_INFO`).
        TcpInfo, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, libc::tcp_info
    );
}

/// `tcpi_state` of a connection that neither side has ended (linux/net/tcp_states.h).
const TCP_ESTABLISHED: u8 = 1;

/// A duplicate of a connection's descriptor.
#[derive(Debug)]
pub(crate) struct Socket {
    descriptor: OwnedFd,
    /// Whether it was counted how the connection ended.
    is_counted: AtomicBool,
}

/// What the kernel says of a connection.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Traffic {
    /// The bytes that the peer has acknowledged since the connection began.
    pub(crate) acknowledged: u64,
    /// The bytes that the socket was given to send since the connection began.
    pub(crate) given: u64,
    /// Whether bytes wait to be sent or acknowledged.
    pub(crate) unacknowledged: bool,
    /// How long ago data came, read by us or not.
    pub(crate) silent_for: Duration,
}

impl Socket {
    pub(crate) fn duplicate(stream: &impl AsFd) -> io::Result<Self> {
        let descriptor = stream.as_fd().try_clone_to_owned()?;
        Ok(Self { descriptor, is_counted: AtomicBool::new(false) })
    }

    /// Counts how the connection ends, once: whoever decides it first is right.
    pub(crate) fn count_close(&self, close: Close, closes: &Tally<Close>) {
        if !self.is_counted.swap(true, Ordering::AcqRel) {
            closes.add(close);
        }
    }

    /// Tells the kernel to give the connection up when bytes stay unacknowledged for that long.
    pub(crate) fn set_user_timeout(&self, timeout: Duration) {
        let millis = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = setsockopt(&self.descriptor, sockopt::TcpUserTimeout, &millis) {
            log::debug!("TCP_USER_TIMEOUT could not be set: {error}");
        }
    }

    /// Whether the peer has closed its side, even if we have not read so far.
    pub(crate) fn has_hung_up(&self) -> bool {
        getsockopt(&self.descriptor, option::TcpInfo).is_ok_and(|info| info.tcpi_state != TCP_ESTABLISHED)
    }

    /// What the kernel says; nothing where it is not TCP.
    pub(crate) fn traffic(&self) -> Traffic {
        getsockopt(&self.descriptor, option::TcpInfo).map_or_else(
            |_| Traffic::default(),
            |info| Traffic {
                acknowledged: info.tcpi_bytes_acked,
                given: info.tcpi_bytes_sent.saturating_sub(info.tcpi_bytes_retrans)
                    + u64::from(info.tcpi_notsent_bytes),
                unacknowledged: info.tcpi_notsent_bytes > 0 || info.tcpi_unacked > 0,
                silent_for: Duration::from_millis(info.tcpi_last_data_recv.into()),
            },
        )
    }

    /// Ends the connection in both directions; whoever reads or writes it finds out at once.
    pub(crate) fn shut_down(&self) {
        self.shut(Shutdown::Both);
    }

    /// Says that nothing more will be written. What was written before still arrives.
    pub(crate) fn finish_writing(&self) {
        self.shut(Shutdown::Write);
    }

    fn shut(&self, how: Shutdown) {
        let how = if how == Shutdown::Write { How::Write } else { How::Both };
        // It fails only where the peer has ended the connection already.
        let _ = shutdown(std::os::fd::AsRawFd::as_raw_fd(&self.descriptor), how);
    }
}
