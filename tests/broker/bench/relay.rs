//! Something between a gateway and its services that tampers with one message on its way to a service.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What becomes of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tamper {
    Drop,
    Repeat,
    /// It goes behind the next one.
    Delay,
    /// One byte of its data becomes another.
    Alter,
    /// Nothing; but connections after the first so many are held back for a while.
    HoldConnections(usize),
}

/// How long a connection is held back.
pub(super) const HELD: Duration = Duration::from_millis(1500);
/// How many messages pass before one is tampered with.
const PASSED: usize = 20;

/// Where services connect to instead of the gateway.
pub(super) fn start(gateway: SocketAddr, tamper: Tamper) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let state = Arc::new(Mutex::new(State { tamper, passed: 0, delayed: None }));
    thread::spawn(move || {
        for (index, client) in listener.incoming().map_while(Result::ok).enumerate() {
            if tamper == Tamper::HoldConnections(index) {
                thread::sleep(HELD);
            }
            let Ok(server) = TcpStream::connect(gateway) else { return };
            let (to_server, to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || copy(client, to_server));
            let state = state.clone();
            thread::spawn(move || tampered(server, to_client, &state));
        }
    });
    address
}

struct State {
    tamper: Tamper,
    passed: usize,
    delayed: Option<Vec<u8>>,
}

impl State {
    /// What goes on in place of a frame.
    fn replace(&mut self, frame: &[u8]) -> Vec<u8> {
        if !frame.windows(7).any(|it| it == br#"{"seq":"#) {
            return frame.to_vec();
        }
        self.passed += 1;
        if let Some(delayed) = self.delayed.take() {
            return [frame, &delayed].concat();
        }
        match self.tamper {
            Tamper::HoldConnections(_) => frame.to_vec(),
            _ if self.passed != PASSED => frame.to_vec(),
            Tamper::Drop => Vec::new(),
            Tamper::Repeat => frame.repeat(2),
            Tamper::Delay => {
                self.delayed = Some(frame.to_vec());
                Vec::new()
            }
            Tamper::Alter => {
                let mut altered = frame.to_vec();
                // The last byte of the padding, before `"}}`.
                let at = altered.len() - 4;
                altered[at] ^= 1;
                altered
            }
        }
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}

fn tampered(mut from: TcpStream, mut to: TcpStream, state: &Mutex<State>) {
    let (mut buffer, mut bytes, mut has_head) = (vec![0; 1 << 16], Vec::new(), false);
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..length]);
        let mut out = Vec::new();
        while let Some(end) = if has_head { frame_end(&bytes) } else { head_end(&bytes) } {
            let unit: Vec<u8> = bytes.drain(..end).collect();
            out.extend(if has_head { state.lock().unwrap().replace(&unit) } else { unit });
            has_head = true;
        }
        if to.write_all(&out).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}

/// Where the head of the answer to the handshake ends.
fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|it| it == b"\r\n\r\n").map(|at| at + 4)
}

/// Where the first frame ends.
fn frame_end(bytes: &[u8]) -> Option<usize> {
    let end = match *bytes.get(1)? {
        126 => 4 + usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap())),
        127 => 10 + usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap())).unwrap(),
        length => 2 + usize::from(length),
    };
    (bytes.len() >= end).then_some(end)
}
