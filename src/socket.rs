//! A second hold on a connection's socket, beside the one in the HTTP server.
//!
//! A connection whose peer does not read is not polled any more, its timers included, so
//! whatever must happen on time happens here: looking whether the peer hung up, how much it took,
//! and ending the connection. TCP tells all of that by itself, under TLS too; a Unix domain socket
//! tells less, and [`unix`] adds what is missing.

mod unix;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::socket::{Shutdown, getsockopt, setsockopt, shutdown, sockopt};

use self::unix::Meter;
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
    /// Of a Unix domain socket.
    meter: Option<Meter>,
    /// Whether nothing more is to be written.
    is_finishing: AtomicBool,
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
    pub(crate) fn of_tcp(stream: &impl AsFd) -> io::Result<Self> {
        Self::duplicate(stream, None)
    }

    /// Whoever reads and writes the connection has to tell of it: [`wrote`](Self::wrote),
    /// [`read`](Self::read).
    pub(crate) fn of_unix(stream: &impl AsFd) -> io::Result<Self> {
        Self::duplicate(stream, Some(Meter::new()))
    }

    fn duplicate(stream: &impl AsFd, meter: Option<Meter>) -> io::Result<Self> {
        let descriptor = stream.as_fd().try_clone_to_owned()?;
        let (is_finishing, is_counted) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self { descriptor, meter, is_finishing, is_counted })
    }

    /// The kernel took so many bytes to send.
    pub(crate) fn wrote(&self, bytes: usize) {
        if let Some(meter) = &self.meter {
            meter.wrote(bytes);
        }
    }

    /// Bytes were read.
    pub(crate) fn read(&self) {
        if let Some(meter) = &self.meter {
            meter.read();
        }
    }

    /// Counts how the connection ends, once: whoever decides it first is right.
    pub(crate) fn count_close(&self, close: Close, closes: &Tally<Close>) {
        if !self.is_counted.swap(true, Ordering::AcqRel) {
            closes.add(close);
        }
    }

    /// Tells the kernel to give the connection up when bytes stay unacknowledged for that long. (None
    /// ever do on a Unix domain socket.)
    pub(crate) fn set_user_timeout(&self, timeout: Duration) {
        if self.meter.is_some() {
            return;
        }
        let millis = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = setsockopt(&self.descriptor, sockopt::TcpUserTimeout, &millis) {
            log::debug!("TCP_USER_TIMEOUT could not be set: {error}");
        }
    }

    /// Whether the peer has closed its side, even if we have not read so far.
    pub(crate) fn has_hung_up(&self) -> bool {
        if self.meter.is_some() {
            return unix::has_hung_up(&self.descriptor);
        }
        getsockopt(&self.descriptor, option::TcpInfo).is_ok_and(|info| info.tcpi_state != TCP_ESTABLISHED)
    }

    /// What the kernel says.
    pub(crate) fn traffic(&self) -> Traffic {
        if let Some(meter) = &self.meter {
            return meter.traffic(&self.descriptor);
        }
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
        // It fails only where the peer has ended the connection already.
        let _ = shutdown(self.descriptor.as_raw_fd(), Shutdown::Both);
    }

    /// Says that nothing more will be written: whoever writes the connection ends it in that direction
    /// with the next flush, after TLS's own farewell.
    pub(crate) fn finish_writing(&self) {
        self.is_finishing.store(true, Ordering::Release);
    }

    pub(crate) fn is_finishing(&self) -> bool {
        self.is_finishing.load(Ordering::Acquire)
    }
}
