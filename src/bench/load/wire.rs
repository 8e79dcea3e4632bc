//! One WebSocket, without blocking and without an async runtime.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::sockopt::{self, IpBindAddressNoPort, TcpNoDelay};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket,
};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::endpoint::Endpoint;
use super::frame;

/// How much is read at once.
pub(super) const READ_BYTES: usize = 256 << 10;
/// The longest head of an answer to the handshake.
const MAX_HEAD_BYTES: usize = 8 << 10;

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
    /// Begins to connect, as connection number `index` of all.
    pub(super) fn start(endpoint: &Endpoint, index: usize, mask: [u8; 4]) -> io::Result<Self> {
        let address = endpoint.address;
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(family, SockType::Stream, flags, None)?;
        setsockopt(&socket, TcpNoDelay, &true)?;
        if let Some(source) = endpoint.source(index) {
            setsockopt(&socket, IpBindAddressNoPort, &true)?;
            bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(source, 0)))?;
        }
        match connect(socket.as_raw_fd(), &SockaddrStorage::from(address)) {
            Ok(()) | Err(nix::Error::EINPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let key = generate_key();
        Ok(Self {
            socket: TcpStream::from(socket),
            out: endpoint.request(&key).into_bytes(),
            key: Some(key),
            mask,
            written: 0,
            carry: Vec::new(),
            is_watched: true,
        })
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
