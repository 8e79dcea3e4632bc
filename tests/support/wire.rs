//! What a test's bytes go through: TCP, TLS over TCP, or a Unix domain socket.

use std::io::{self, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::PATIENCE;

pub(crate) enum Wire {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Unix(UnixStream),
}

impl Wire {
    pub(crate) fn tcp(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        setsockopt(&stream, sockopt::ReceiveTimestampns, &true)?;
        Self::Tcp(stream).patient()
    }

    /// With the handshake done, as far as the client can tell.
    pub(crate) fn tls(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let name = ServerName::IpAddress(address.ip().into());
        let mut session = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut stream)?;
        }
        Self::Tls(Box::new(StreamOwned::new(session, stream))).patient()
    }

    pub(crate) fn unix(path: &Path) -> io::Result<Self> {
        Self::Unix(UnixStream::connect(path)?).patient()
    }

    fn patient(self) -> io::Result<Self> {
        self.set_read_timeout(PATIENCE)?;
        self.set_write_timeout(PATIENCE)?;
        Ok(self)
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => &stream.sock,
            Self::Unix(_) => panic!("a Unix domain socket is no TCP"),
        }
    }

    pub(crate) fn set_read_timeout(&self, time: Duration) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_read_timeout(Some(time)),
            _ => self.socket().set_read_timeout(Some(time)),
        }
    }

    pub(crate) fn set_write_timeout(&self, time: Duration) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_write_timeout(Some(time)),
            _ => self.socket().set_write_timeout(Some(time)),
        }
    }

    /// Reads; and when what was read came to this machine, where the kernel tells.
    pub(crate) fn receive(&mut self, bytes: &mut [u8]) -> io::Result<(usize, Option<Duration>)> {
        if let Self::Tls(stream) = self {
            return stream.read(bytes).map(|read| (read, None));
        }
        let mut parts = [IoSliceMut::new(bytes)];
        let mut space = nix::cmsg_space!(TimeSpec);
        let received =
            recvmsg::<()>(self.as_fd().as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty())?;
        let at = received.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::ScmTimestampns(at) => Some(at.into()),
            _ => None,
        });
        Ok((received.bytes, at))
    }

    /// Ends the direction to the gateway.
    pub(crate) fn stop_sending(&self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
            _ => self.socket().shutdown(Shutdown::Write),
        }
    }

    pub(crate) fn shutdown(&self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
            _ => self.socket().shutdown(Shutdown::Both),
        }
    }

    /// The gateway's port; a Unix domain socket has none.
    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Self::Unix(_) => None,
            _ => self.socket().peer_addr().ok().map(|gateway| gateway.port()),
        }
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
            Self::Tls(_) => panic!("a TLS session has one owner"),
        }
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            _ => self.socket().as_fd(),
        }
    }
}

impl Read for Wire {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.receive(bytes).map(|(read, _)| read)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tls(stream) => stream.flush(),
            _ => Ok(()),
        }
    }
}
