//! A connection that does what no service would, as fast as it can, and never waits for long.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a write may wait for a gateway that does not read.
const WRITE_PATIENCE: Duration = Duration::from_millis(20);

/// A write is so short: this machine's kernel copies it to the gateway's socket on a core that nobody
/// else gets meanwhile.
const MAX_WRITE: usize = 16 * 1024;

pub(crate) struct Attacker {
    stream: TcpStream,
    /// What writes left, from `sent` on: a frame is not to be cut.
    unsent: Vec<u8>,
    sent: usize,
}

/// The gateway has ended the connection.
#[derive(Debug)]
pub(crate) struct Ended;

impl Attacker {
    pub(crate) fn connect(address: SocketAddr) -> Result<Self, Ended> {
        let stream = TcpStream::connect(address).map_err(|_| Ended)?;
        stream.set_read_timeout(Some(Duration::from_millis(1))).map_err(|_| Ended)?;
        stream.set_write_timeout(Some(WRITE_PATIENCE)).map_err(|_| Ended)?;
        Ok(Self { stream, unsent: Vec::new(), sent: 0 })
    }

    /// A connection whose handshake is sent; the answer comes with the rest.
    pub(crate) fn websocket(address: SocketAddr) -> Result<Self, Ended> {
        let mut attacker = Self::connect(address)?;
        attacker.send(handshake(address, "").as_bytes())?;
        Ok(attacker)
    }

    /// As [`websocket`](Self::websocket), with an IDENTIFY behind it.
    pub(crate) fn identify(address: SocketAddr, name: &str) -> Result<Self, Ended> {
        let mut attacker = Self::websocket(address)?;
        let identify = format!(r#"{{"s":"{name}","t":"gateway:opcode","d":{{"opcode":0}}}}"#);
        attacker.send(&frame(0x81, identify.as_bytes()))?;
        Ok(attacker)
    }

    /// Sends as much of what it has to send as the gateway takes. More is only taken up when the
    /// rest is gone.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        if self.has_sent_all() {
            self.unsent.clear();
            self.unsent.extend_from_slice(bytes);
            self.sent = 0;
        }
        while !self.has_sent_all() {
            let end = self.unsent.len().min(self.sent + MAX_WRITE);
            match self.stream.write(&self.unsent[self.sent..end]) {
                Ok(written) => self.sent += written,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(_) => return Err(Ended),
            }
        }
        Ok(())
    }

    pub(crate) fn has_sent_all(&self) -> bool {
        self.sent == self.unsent.len()
    }

    /// Throws away what came.
    pub(crate) fn drain(&mut self) -> Result<(), Ended> {
        let mut bytes = [0; 16_384];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(Ended),
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(()),
            Err(_) => Err(Ended),
        }
    }

    /// Reads until the gateway ends the connection, or for two minutes.
    pub(crate) fn read_to_end(mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let _ = self.stream.set_read_timeout(Some(Duration::from_mins(2)));
        let _ = self.stream.read_to_end(&mut all);
        all
    }
}

pub(crate) fn handshake(address: SocketAddr, headers: &str) -> String {
    format!(
        "GET /gateway HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
    )
}

/// A client's frame, of at most 64 KiB, masked with zeros.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    if let Ok(short @ 0..126) = u8::try_from(payload.len()) {
        frame.push(0x80 | short);
    } else {
        frame.push(0xFE);
        frame.extend_from_slice(&u16::try_from(payload.len()).expect("a short frame").to_be_bytes());
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}
