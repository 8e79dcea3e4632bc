//! A service at the level of frames, so that it can send what no library would.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use serde_json::{Value, json};

use super::{PATIENCE, Wire, secrets};

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// How much of what was sent and came is told on failure.
const TRANSCRIPT_LINES: usize = 40;

pub(crate) struct Service {
    stream: Wire,
    name: String,
    unread: Vec<u8>,
    transcript: Vec<String>,
    arrival: Duration,
}

/// A frame from the gateway.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

/// What every message has.
#[derive(serde::Deserialize)]
struct Parts {
    t: String,
}

/// A text message from the gateway.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) text: String,
    /// Null where `serde_json` cannot hold it: lone surrogates, deep nesting.
    pub(crate) json: Value,
    topic: String,
}

impl Message {
    fn new(payload: Vec<u8>) -> Self {
        let text = String::from_utf8(payload).unwrap();
        let parts: Parts = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        Self { json: serde_json::from_str(&text).unwrap_or_default(), topic: parts.t, text }
    }

    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    pub(crate) fn data(&self) -> &Value {
        &self.json["d"]
    }
}

impl Service {
    /// The handshake.
    pub(crate) fn open(address: SocketAddr, path: &str) -> Self {
        Self::try_open(address, path).unwrap_or_else(|answer| panic!("no WebSocket: {answer}"))
    }

    /// The handshake; what else was answered.
    pub(crate) fn try_open(address: SocketAddr, path: &str) -> Result<Self, String> {
        Self::try_open_with(address, path, "")
    }

    /// As [`try_open`](Self::try_open), with header lines, each with its end.
    pub(crate) fn try_open_with(address: SocketAddr, path: &str, headers: &str) -> Result<Self, String> {
        let wire = Wire::tcp(address).map_err(|error| error.to_string())?;
        Self::try_open_over(wire, &address.to_string(), path, headers)
    }

    /// As [`try_open_with`](Self::try_open_with), over that wire and with that `Host`.
    pub(crate) fn try_open_over(
        mut stream: Wire,
        host: &str,
        path: &str,
        headers: &str,
    ) -> Result<Self, String> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
        );
        if let Some(port) = stream.port() {
            secrets::learn(port, &request);
        }
        stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).map_err(|error| format!("{error} after {head:?}"))?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        if !head.starts_with("HTTP/1.1 101 ") {
            return Err(head);
        }
        Ok(Self {
            stream,
            name: String::new(),
            unread: Vec::new(),
            transcript: Vec::new(),
            arrival: Duration::ZERO,
        })
    }

    /// Identifies and reads ACCEPT, whose `d` it gives.
    pub(crate) fn identify(&mut self, name: &str) -> Value {
        self.identify_with(name, json!({}))
    }

    pub(crate) fn identify_with(&mut self, name: &str, fields: Value) -> Value {
        self.send_identify(name, fields);
        self.expect_op(1)
    }

    pub(crate) fn send_identify(&mut self, name: &str, mut fields: Value) {
        name.clone_into(&mut self.name);
        fields["opcode"] = json!(0);
        self.send_op(&fields);
    }

    /// An op; `data` has its opcode.
    pub(crate) fn send_op(&mut self, data: &Value) {
        self.send_message("gateway:opcode", &data.to_string());
    }

    /// A proxied message; `data` is JSON.
    pub(crate) fn send(&mut self, target: &str, topic: &str, data: &str) {
        self.send_message(&format!("gateway-proxy:{target}:{topic}"), data);
    }

    fn send_message(&mut self, topic: &str, data: &str) {
        let text = format!(r#"{{"s":"{}","t":"{topic}","d":{data}}}"#, self.name);
        self.text(&text);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.frame(0x81, text.as_bytes());
    }

    /// A frame with this first byte (FIN, reserved bits and opcode), masked.
    pub(crate) fn frame(&mut self, first: u8, payload: &[u8]) {
        self.note("sent", first, payload);
        let frame = masked(first, payload);
        self.bytes(&frame);
    }

    /// Many messages in one write.
    pub(crate) fn texts(&mut self, texts: impl IntoIterator<Item = String>) {
        let frames: Vec<u8> = texts.into_iter().flat_map(|text| masked(0x81, text.as_bytes())).collect();
        self.note("sent many", 0x81, &frames);
        self.bytes(&frames);
    }

    /// Many messages, and a frame with this first byte behind them, in one write.
    pub(crate) fn texts_and(&mut self, texts: impl IntoIterator<Item = String>, first: u8, payload: &[u8]) {
        let mut frames: Vec<u8> = texts.into_iter().flat_map(|text| masked(0x81, text.as_bytes())).collect();
        frames.extend(masked(first, payload));
        self.note("sent many and another", first, &frames);
        self.bytes(&frames);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        if let Err(error) = self.stream.write_all(bytes) {
            // A gateway that has closed reads no more: what it said is still to be read.
            assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
        }
    }

    /// Many messages; whether the gateway takes them, each part of them in that time.
    pub(crate) fn texts_within(&mut self, time: Duration, texts: impl IntoIterator<Item = String>) -> bool {
        let frames: Vec<u8> = texts.into_iter().flat_map(|text| masked(0x81, text.as_bytes())).collect();
        self.note("sent many", 0x81, &frames);
        self.stream.set_write_timeout(time).unwrap();
        let sent = self.stream.write_all(&frames);
        self.stream.set_write_timeout(PATIENCE).unwrap();
        sent.is_ok()
    }

    /// The next frame that is no ping, which is answered.
    pub(crate) fn next_frame(&mut self) -> Option<Frame> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let frame = self.any_frame()?;
            assert!(Instant::now() < deadline, "{}: nothing but pings came", self.name);
            if frame.opcode != 9 {
                return Some(frame);
            }
            self.frame(0x8A, &frame.payload);
        }
    }

    /// The next frame, pings included; `None` at the end of the connection.
    pub(crate) fn any_frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = take_frame(&mut self.unread) {
                self.note("got", frame.opcode, &frame.payload);
                return Some(frame);
            }
            let mut bytes = [0; 16_384];
            match self.receive(&mut bytes) {
                Ok(0) => return None,
                Ok(read) => self.unread.extend_from_slice(&bytes[..read]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("{} waited for a frame: {error}", self.name),
            }
        }
    }

    fn receive(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let (read, at) = self.stream.receive(bytes)?;
        self.arrival = at.unwrap_or(self.arrival);
        Ok(read)
    }

    /// When the last bytes came to this machine, since the epoch, however late they were read.
    pub(crate) fn arrival(&self) -> Duration {
        self.arrival
    }

    /// A text message, if one is there or comes at once; `Err` at the end of the connection.
    pub(crate) fn poll(&mut self) -> Result<Option<Message>, ()> {
        self.poll_for(Duration::from_millis(1))
    }

    /// A text message, if one comes in that time; `Err` at the end of the connection.
    pub(crate) fn poll_for(&mut self, time: Duration) -> Result<Option<Message>, ()> {
        self.stream.set_read_timeout(time).map_err(drop)?;
        let polled = self.poll_frame();
        self.stream.set_read_timeout(PATIENCE).map_err(drop)?;
        match polled? {
            Some(Frame { opcode: 1, payload }) => Ok(Some(Message::new(payload))),
            Some(Frame { opcode: 8, payload }) => {
                self.frame(0x88, &payload[..payload.len().min(2)]);
                Err(())
            }
            Some(Frame { opcode: 9, payload }) => {
                self.frame(0x8A, &payload);
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// Lives on, while no message is expected: answers pings that have come.
    pub(crate) fn answer_pings(&mut self) {
        let came = self.poll().unwrap_or_else(|()| panic!("{}: the connection ended", self.name));
        assert!(came.is_none(), "{} got what was not for it: {came:?}", self.name);
    }

    fn poll_frame(&mut self) -> Result<Option<Frame>, ()> {
        if let Some(frame) = take_frame(&mut self.unread) {
            return Ok(Some(frame));
        }
        let mut bytes = [0; 16_384];
        match self.receive(&mut bytes) {
            Ok(0) => Err(()),
            Ok(read) => {
                self.unread.extend_from_slice(&bytes[..read]);
                Ok(take_frame(&mut self.unread))
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(None),
                _ => Err(()),
            },
        }
    }

    /// The next text message.
    pub(crate) fn next(&mut self) -> Message {
        let frame = self
            .next_frame()
            .unwrap_or_else(|| panic!("{}: the connection ended instead of a message", self.name));
        assert_eq!(frame.opcode, 1, "{}: expected a message, got {frame:?}", self.name);
        Message::new(frame.payload)
    }

    /// The next message, which is this op; its `d`.
    pub(crate) fn expect_op(&mut self, opcode: u64) -> Value {
        let message = self.next();
        assert_eq!(message.json["s"], "gateway", "{}", message.text);
        assert_eq!(message.json["d"]["opcode"], opcode, "{}", message.text);
        message.json["d"].clone()
    }

    /// The next message, which is an ERROR with this code; its `d`.
    pub(crate) fn expect_error(&mut self, code: &str) -> Value {
        let error = self.expect_op(20);
        assert_eq!(error["code"], code, "{error}");
        error
    }

    /// The next message, which is a REJECT with this code; then close 4003.
    pub(crate) fn expect_reject(&mut self, code: &str) -> Value {
        let reject = self.expect_op(2);
        assert_eq!(reject["code"], code, "{reject}");
        self.expect_close(4003);
        reject
    }

    /// A close frame with this code, after whatever comes before it; its reason. The connection
    /// then ends.
    pub(crate) fn expect_close(&mut self, code: u16) -> String {
        loop {
            let frame =
                self.next_frame().unwrap_or_else(|| panic!("{}: ended without close {code}", self.name));
            if frame.opcode == 8 {
                assert_eq!(u16::from_be_bytes([frame.payload[0], frame.payload[1]]), code, "{frame:?}");
                self.frame(0x88, &frame.payload[..2]);
                while self.any_frame().is_some() {}
                return String::from_utf8(frame.payload[2..].to_vec()).unwrap();
            }
        }
    }

    /// Shows that nothing has come: what it sends to itself is the next to come.
    pub(crate) fn expect_nothing(&mut self) {
        let (name, probe) = (self.name.clone(), format!("probe-{}", self.transcript.len()));
        self.send(&name, &probe, "null");
        let next = self.next();
        assert_eq!(next.topic(), probe, "{} got what was not for it: {}", self.name, next.text);
    }

    /// Closes with this code, as a service that leaves does, and waits for the end.
    pub(crate) fn close(mut self, code: u16) {
        self.frame(0x88, &code.to_be_bytes());
        while self.next_frame().is_some() {}
    }

    /// As [`close`](Self::close), with an op just before, in the same write; `data` has its opcode.
    pub(crate) fn close_after_op(mut self, data: &Value, code: u16) {
        let op = format!(r#"{{"s":"{}","t":"gateway:opcode","d":{data}}}"#, self.name);
        self.note("sent with a close frame", 0x81, op.as_bytes());
        let frames = [masked(0x81, op.as_bytes()), masked(0x88, &code.to_be_bytes())].concat();
        self.bytes(&frames);
        while self.next_frame().is_some() {}
    }

    /// Ends the connection without a word: FIN.
    pub(crate) fn vanish(self) {
        self.stream.shutdown().unwrap();
    }

    /// Says at the socket that it sends nothing more, and goes on reading.
    pub(crate) fn stop_sending(&self) {
        self.stream.stop_sending().unwrap();
    }

    /// Ends the connection, if it is still there, under whoever reads it.
    pub(crate) fn hang_up(&self) {
        let _ = self.stream.shutdown();
    }

    /// Is gone as when its machine loses power, where the cable is cut: what its kernel says as it
    /// closes is a single reset, which is never repeated.
    pub(crate) fn lose_power(self) {
        let no_linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&self.stream, sockopt::Linger, &no_linger).unwrap();
    }

    /// The same connection, to write to from another thread.
    pub(crate) fn writer(&self) -> Self {
        let stream = self.stream.try_clone().unwrap();
        Self {
            stream,
            name: self.name.clone(),
            unread: Vec::new(),
            transcript: Vec::new(),
            arrival: Duration::ZERO,
        }
    }

    fn note(&mut self, what: &str, first: u8, payload: &[u8]) {
        let shown = String::from_utf8_lossy(&payload[..payload.len().min(300)]);
        if let Some(port) = self.stream.port() {
            secrets::learn(port, &shown);
        }
        self.transcript.push(format!("{what} {first:#04x} ({} bytes) {shown}", payload.len()));
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if thread::panicking() {
            let skipped = self.transcript.len().saturating_sub(TRANSCRIPT_LINES);
            eprintln!("--- {} (after {skipped} more)\n{}", self.name, self.transcript[skipped..].join("\n"));
        }
    }
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | u8::try_from(length).unwrap()),
        length @ 126..0x1_0000 => {
            frame.push(0xFE);
            frame.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            frame.push(0xFF);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// Takes the first frame of a server off the bytes, if it is whole.
fn take_frame(bytes: &mut Vec<u8>) -> Option<Frame> {
    let (length, header) = match *bytes.get(1)? {
        126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        127 => (usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?, 10),
        length => (usize::from(length), 2),
    };
    if bytes.len() < header + length {
        return None;
    }
    let payload = bytes[header..header + length].to_vec();
    let opcode = bytes[0] & 0x0F;
    bytes.drain(..header + length);
    Some(Frame { opcode, payload })
}
