//! What a connection's bytes go through: TCP, TLS over TCP, or a Unix domain socket.
//!
//! To the HTTP server all three are one type. What was known of a connection before the server had
//! it, its [`Arrival`] and its client certificate, comes with it.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_web::dev::Extensions;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use super::entrance::Arrival;

/// What a verified client certificate says of its holder. In the connection's data, where there is
/// one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    /// The subject's common name (RFC 5280 section 4.1.2.6).
    pub(crate) common_name: String,
}

/// In the data of a connection that TLS encrypts.
pub(crate) struct Encrypted;

/// A connection that was let in.
pub(crate) struct Stream {
    transport: Transport,
    /// `None` where there was no descriptor for it.
    arrival: Option<Rc<Arrival>>,
    certificate: Option<ClientCertificate>,
}

pub(crate) enum Transport {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl Stream {
    pub(crate) fn new(
        transport: Transport,
        arrival: Option<Rc<Arrival>>,
        certificate: Option<ClientCertificate>,
    ) -> Self {
        Self { transport, arrival, certificate }
    }

    /// Puts what is known of the connection into its data.
    pub(crate) fn introduce(&self, data: &mut Extensions) {
        if let Some(arrival) = &self.arrival {
            data.insert(arrival.clone());
        }
        if matches!(self.transport, Transport::Tls(_)) {
            data.insert(Encrypted);
        }
        if let Some(certificate) = &self.certificate {
            log::debug!("a client has the certificate of {}", certificate.common_name);
            data.insert(certificate.clone());
        }
    }

    fn is_finishing(&self) -> bool {
        self.arrival.as_ref().is_some_and(|arrival| arrival.socket().is_finishing())
    }
}

impl Transport {
    fn poll_read(&mut self, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, into),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, into),
            // The end of TCP without TLS's own is an end like any other: frames and bodies say
            // themselves whether they are whole. As an error it would cost what was read before it.
            Self::Tls(stream) => Pin::new(stream).poll_read(context, into).map(|read| match read {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
                read => read,
            }),
        }
    }

    fn writer(&mut self) -> Pin<&mut (dyn AsyncWrite + Unpin)> {
        match self {
            Self::Tcp(stream) => Pin::new(stream),
            Self::Tls(stream) => Pin::new(&mut **stream),
            Self::Unix(stream) => Pin::new(stream),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(self.transport.poll_read(context, into))?;
        if let Some(arrival) = &self.arrival
            && into.filled().len() > before
        {
            arrival.socket().read();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.transport.writer().poll_write(context, bytes))?;
        if let Some(arrival) = &self.arrival {
            arrival.socket().wrote(written);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.transport.writer().poll_write_vectored(context, slices))?;
        if let Some(arrival) = &self.arrival {
            arrival.socket().wrote(written);
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Tcp(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
            Transport::Unix(stream) => stream.is_write_vectored(),
        }
    }

    /// The server flushes after it wrote all that it took: so this is where nothing more comes.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_finishing() {
            return self.transport.writer().poll_flush(context);
        }
        // A peer that has ended the connection already is no failure; reading will tell.
        let _ = ready!(self.transport.writer().poll_shutdown(context));
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.writer().poll_shutdown(context)
    }
}
