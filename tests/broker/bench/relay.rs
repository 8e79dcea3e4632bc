//! Something between a gateway and its services that tampers with one message on its way, or with RECEIPTs.

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
    /// Its first byte, a brace, is missing.
    Behead,
    /// It never comes to the gateway.
    Swallow,
    /// Nothing; but no RECEIPT comes to a service.
    DropReceipts,
    /// Nothing; but each RECEIPT comes twice.
    RepeatReceipts,
    /// Nothing; but connections after the first so many are held back for a while.
    HoldConnections(usize),
}

/// How long a connection is held back.
pub(super) const HELD: Duration = Duration::from_millis(1500);
/// How many messages pass before one is tampered with.
const PASSED: usize = 20;
/// In a frame's second byte, where it comes from a service.
const MASKED: u8 = 0x80;

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
            let (to, from) = (state.clone(), state.clone());
            thread::spawn(move || pass_on(client, to_server, |frame| to.lock().unwrap().sent(frame)));
            thread::spawn(move || pass_on(server, to_client, |frame| from.lock().unwrap().came(frame)));
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
    /// What goes on to the gateway in place of a frame.
    fn sent(&mut self, frame: &[u8]) -> Vec<u8> {
        if self.tamper != Tamper::Swallow || !is_message(&unmasked(frame)) {
            return frame.to_vec();
        }
        self.passed += 1;
        if self.passed == PASSED { Vec::new() } else { frame.to_vec() }
    }

    /// What goes on to a service in place of a frame.
    fn came(&mut self, frame: &[u8]) -> Vec<u8> {
        let is_receipt = frame.windows(11).any(|it| it == br#""opcode":21"#);
        match self.tamper {
            Tamper::DropReceipts if is_receipt => return Vec::new(),
            Tamper::RepeatReceipts if is_receipt => return frame.repeat(2),
            Tamper::Swallow | Tamper::DropReceipts | Tamper::RepeatReceipts => return frame.to_vec(),
            _ if !is_message(frame) => return frame.to_vec(),
            _ => self.passed += 1,
        }
        if let Some(delayed) = self.delayed.take() {
            return [frame, &delayed].concat();
        }
        match self.tamper {
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
            Tamper::Behead => {
                // A length of two bytes, by the messages' size.
                let length = u16::try_from(frame.len() - 4 - 1).unwrap();
                [&frame[..2], &length.to_be_bytes(), &frame[5..]].concat()
            }
            _ => frame.to_vec(),
        }
    }
}

fn is_message(frame: &[u8]) -> bool {
    frame.windows(7).any(|it| it == br#"{"seq":"#)
}

/// What a service's frame holds.
fn unmasked(frame: &[u8]) -> Vec<u8> {
    let start = header_bytes(frame[1]);
    let (mask, payload) = frame[start - 4..].split_at(4);
    payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect()
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, replace: impl Fn(&[u8]) -> Vec<u8>) {
    let (mut buffer, mut bytes, mut has_head) = (vec![0; 1 << 16], Vec::new(), false);
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..length]);
        let mut out = Vec::new();
        while let Some(end) = if has_head { frame_end(&bytes) } else { head_end(&bytes) } {
            let unit: Vec<u8> = bytes.drain(..end).collect();
            out.extend(if has_head { replace(&unit) } else { unit });
            has_head = true;
        }
        if to.write_all(&out).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}

/// Where the head of the handshake ends.
fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|it| it == b"\r\n\r\n").map(|at| at + 4)
}

/// Where the first frame ends.
fn frame_end(bytes: &[u8]) -> Option<usize> {
    let second = *bytes.get(1)?;
    let payload = match second & !MASKED {
        126 => usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap())),
        127 => usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap())).unwrap(),
        length => usize::from(length),
    };
    let end = header_bytes(second) + payload;
    (bytes.len() >= end).then_some(end)
}

/// How long a frame's header is, by its second byte.
fn header_bytes(second: u8) -> usize {
    let length = match second & !MASKED {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + length + if second & MASKED == 0 { 0 } else { 4 }
}
