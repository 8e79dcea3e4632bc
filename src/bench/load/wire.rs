//! One WebSocket, without blocking and without an async runtime.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::sockopt::{self, IpBindAddressNoPort, TcpNoDelay};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket,
};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::frame;

/// How much is read at once.
pub(super) const READ_BYTES: usize = 256 << 10;
/// The longest head of an answer to the handshake.
const MAX_HEAD_BYTES: usize = 8 << 10;
/// So many connections have one loopback address as their source, of 28,232 ports that Linux gives out.
const CONNECTIONS_PER_SOURCE: usize = 20_000;

pub(super) struct Wire {
    socket: TcpStream,
    /// The key of a handshake that is under way.
    key: Option<String>,
    mask: [u8; 4],
    out: Vec<u8>,
    /// How much of `out` is written.
    written: usize,
    /// The start of a frame whose end has not come.
    carry: Vec<u8>,
    /// Whether the poller watches it for room to write.
    pub(super) is_watched: bool,
}

impl Wire {
    /// Begins to connect. `index` tells which source address it has, where a loopback address would run
    /// out of ports.
    pub(super) fn start(address: SocketAddr, index: usize, mask: [u8; 4]) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(family, SockType::Stream, flags, None)?;
        setsockopt(&socket, TcpNoDelay, &true)?;
        if let Some(source) = source(address, index) {
            setsockopt(&socket, IpBindAddressNoPort, &true)?;
            bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(source, 0)))?;
        }
        match connect(socket.as_raw_fd(), &SockaddrStorage::from(address)) {
            Ok(()) | Err(nix::Error::EINPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let mut wire = Self {
            socket: TcpStream::from(socket),
            key: Some(generate_key()),
            mask,
            out: Vec::new(),
            written: 0,
            carry: Vec::new(),
            is_watched: true,
        };
        wire.ask(address);
        Ok(wire)
    }

    fn ask(&mut self, address: SocketAddr) {
        let key = self.key.as_deref().unwrap_or_default();
        let request = format!(
            "GET /gateway HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        );
        self.out.extend_from_slice(request.as_bytes());
    }

    /// Whether it is a WebSocket already.
    pub(super) fn is_open(&self) -> bool {
        self.key.is_none()
    }

    /// What is to be written, to append whole frames to.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    pub(super) fn put(&mut self, opcode: u8, payload: &[u8]) {
        frame::put(&mut self.out, opcode, self.mask, payload);
    }

    /// Writes as much as the socket takes. True: all of it.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        while self.written < self.out.len() {
            match self.socket.write(&self.out[self.written..]) {
                Ok(length) => self.written += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(true)
    }

    /// How many bytes wait to be written.
    pub(super) fn unwritten(&self) -> usize {
        self.out.len() - self.written
    }

    /// Reads into `buffer`, behind what was left over before. Returns how much is in it; `None`: nothing
    /// came. Nothing more ever comes: an error.
    pub(super) fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
        let left = self.carry.len();
        if buffer.len() < left + READ_BYTES {
            buffer.resize(left + READ_BYTES, 0);
        }
        let length = match self.socket.read(&mut buffer[left..left + READ_BYTES]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        buffer[..left].copy_from_slice(&self.carry);
        self.carry.clear();
        Ok(Some(left + length))
    }

    /// Ends the connection by a reset, as if the process had been killed amid its work: what waits in either
    /// direction is gone.
    pub(super) fn reset(self) {
        let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        // Where that fails it ends like any other.
        let _ = setsockopt(&self.socket, sockopt::Linger, &at_once);
    }

    /// Keeps the start of a frame for the next read.
    pub(super) fn keep(&mut self, rest: &[u8]) {
        self.carry.extend_from_slice(rest);
    }

    /// Takes the answer to the handshake off `bytes`. `false`: it is not all there.
    pub(super) fn upgrade(&mut self, bytes: &mut &[u8]) -> Result<bool, String> {
        let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") else {
            return if bytes.len() > MAX_HEAD_BYTES {
                Err("its head has no end".to_owned())
            } else {
                Ok(false)
            };
        };
        let head = String::from_utf8_lossy(&bytes[..end]);
        let expected = derive_accept_key(self.key.as_deref().unwrap_or_default().as_bytes());
        let is_accepted = head.lines().any(|line| {
            let header = line.split_once(':');
            header.is_some_and(|(name, value)| {
                name.eq_ignore_ascii_case("sec-websocket-accept") && value.trim() == expected
            })
        });
        if !head.starts_with("HTTP/1.1 101 ") || !is_accepted {
            return Err(String::from_utf8_lossy(bytes).chars().take(300).collect());
        }
        *bytes = &bytes[end + 4..];
        self.key = None;
        Ok(true)
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Where a connection comes from, where the gateway is on the loopback and one address may not do.
fn source(address: SocketAddr, index: usize) -> Option<IpAddr> {
    let further = u8::try_from(index / CONNECTIONS_PER_SOURCE).ok().filter(|further| *further > 0)?;
    let is_loopback = address.is_ipv4() && address.ip().is_loopback();
    is_loopback.then(|| Ipv4Addr::new(127, 0, 1, further).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_address_is_the_source_of_as_many_connections_as_it_has_ports_for() {
        let loopback = "127.0.0.1:1".parse().unwrap();
        assert_eq!(source(loopback, 19_999), None);
        assert_eq!(source(loopback, 20_000), Some(Ipv4Addr::new(127, 0, 1, 1).into()));
        assert_eq!(source(loopback, 40_000), Some(Ipv4Addr::new(127, 0, 1, 2).into()));
        assert_eq!(source("192.0.2.1:1".parse().unwrap(), 40_000), None);
    }
}
