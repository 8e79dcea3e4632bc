//! An async client of the gateway: one service, one WebSocket.
//!
//! For the integration tests and `gateway bench`, and good enough to write a service with. Each
//! method does one thing of the protocol; [`Client::next`] hands over what came, and must be
//! called all the time: that is also where the gateway's pings are answered.
//!
//! ```no_run
//! # async fn example() -> Result<(), gateway::client::ClientError> {
//! use gateway::client::{Client, Event, Identify};
//!
//! let (mut client, accepted) =
//!     Client::connect("ws://127.0.0.1:7117/gateway", &Identify::named("backend")).await?;
//! println!("connected as {}", accepted.service);
//! client.send("shard-3", "cache:evict", &["81384788765712384"]).await?;
//! while let Some(event) = client.next().await? {
//!     match event {
//!         Event::Message(message) => println!("{} says {}", message.source, message.data),
//!         Event::Op(op) => println!("op {}: {}", op.opcode, op.data),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Left out, for the caller to add: reconnecting (an error's code says whether to), time-outs
//! (`tokio::time::timeout` around any call), TLS.

mod messages;
mod shards;

use std::fmt;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message as Frame};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

pub use self::messages::{Accepted, Event, Identify, Message, Op, Refused, Rejected, Secret};
pub use self::shards::{Death, Lease, Live, Revoke, Wait};
use crate::protocol::close::LEAVES_FOR_GOOD;
use crate::protocol::op::Opcode;
use crate::protocol::{HEARTBEAT_PREFIX, OPCODE_TOPIC, PROXY_PREFIX};

/// The largest message that is read. Far above `max_message_bytes`, which may be raised.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A connected service. Taken apart by [`Client::split`] where one task sends and another reads.
#[derive(Debug)]
pub struct Client {
    sender: Sender,
    receiver: Receiver,
}

/// The half that speaks.
pub struct Sender {
    name: String,
    sink: SplitSink<Socket, Frame>,
}

/// The half that listens.
pub struct Receiver {
    stream: SplitStream<Socket>,
}

/// A connection could not be made, or is over; only [`ClientError::Unreadable`] and
/// [`ClientError::Data`] leave it usable.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no WebSocket at {url}: {reason}")]
    Unreachable { url: String, reason: Box<tungstenite::Error> },
    #[error("the gateway rejected the service: {} ({})", .0.message, .0.code)]
    Rejected(Rejected),
    /// The codes are listed in [`Close`](crate::protocol::close::Close).
    #[error("the gateway closed the connection: {code} {reason}")]
    Closed { code: u16, reason: String },
    #[error("the connection ended without a close frame: {0}")]
    Broken(Box<tungstenite::Error>),
    #[error("expected a message of the protocol, got {text}: {reason}")]
    Unreadable { text: String, reason: String },
    #[error("the data cannot be written as JSON: {0}")]
    Data(serde_json::Error),
}

impl ClientError {
    fn unreadable(text: &str, reason: &str) -> Self {
        Self::Unreadable { text: format!("{text:.256}"), reason: reason.to_owned() }
    }
}

impl Client {
    /// Opens a WebSocket and identifies. `url` is like `ws://127.0.0.1:7117/gateway`.
    pub async fn connect(url: &str, identify: &Identify) -> Result<(Self, Accepted), ClientError> {
        let mut client = Self::open(url, &identify.name).await?;
        client.identify(identify).await?;
        let accepted = client.accepted().await?;
        Ok((client, accepted))
    }

    /// Opens a WebSocket and says nothing: for a URL with a ticket, and for tests.
    pub async fn open(url: &str, name: &str) -> Result<Self, ClientError> {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES));
        let without_delay = true;
        let (socket, _) = connect_async_with_config(url, Some(config), without_delay)
            .await
            .map_err(|error| ClientError::Unreachable { url: url.to_owned(), reason: Box::new(error) })?;
        let (sink, stream) = socket.split();
        Ok(Self { sender: Sender { name: name.to_owned(), sink }, receiver: Receiver { stream } })
    }

    /// Sends IDENTIFY.
    pub async fn identify(&mut self, identify: &Identify) -> Result<(), ClientError> {
        self.sender.op(Opcode::Identify, identify).await
    }

    /// Waits for ACCEPT. REJECT, and a close before either, are errors.
    pub async fn accepted(&mut self) -> Result<Accepted, ClientError> {
        match self.receiver.next().await? {
            Some(Event::Op(op)) if op.is(Opcode::Accept) => op.read(),
            Some(Event::Op(op)) if op.is(Opcode::Reject) => Err(ClientError::Rejected(op.read()?)),
            Some(other) => Err(ClientError::unreadable(&format!("{other:?}"), "it came before ACCEPT")),
            None => Err(ClientError::Closed { code: 1000, reason: "before ACCEPT".to_owned() }),
        }
    }

    /// See [`Sender::send`].
    pub async fn send(
        &mut self,
        target: &str,
        topic: &str,
        data: &impl Serialize,
    ) -> Result<(), ClientError> {
        self.sender.send(target, topic, data).await
    }

    /// See [`Sender::send_with_nonce`].
    pub async fn send_with_nonce(
        &mut self,
        target: &str,
        topic: &str,
        nonce: u64,
        data: &impl Serialize,
    ) -> Result<(), ClientError> {
        self.sender.send_with_nonce(target, topic, nonce, data).await
    }

    /// See [`Sender::send_raw`].
    pub async fn send_raw(&mut self, text: String) -> Result<(), ClientError> {
        self.sender.send_raw(text).await
    }

    /// See [`Sender::heartbeat`].
    pub async fn heartbeat(&mut self) -> Result<(), ClientError> {
        self.sender.heartbeat().await
    }

    /// See [`Receiver::next`].
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        self.receiver.next().await
    }

    /// See [`Receiver::next_text`].
    pub async fn next_text(&mut self) -> Result<Option<String>, ClientError> {
        self.receiver.next_text().await
    }

    /// See [`Sender::close`].
    pub async fn close(&mut self, code: u16) -> Result<(), ClientError> {
        self.sender.close(code).await
    }

    /// Parts that can work in different tasks.
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }
}

impl Sender {
    /// Sends a message to `target`: a service's name, `shard/<id>` or `guild/<snowflake>`.
    pub async fn send(
        &mut self,
        target: &str,
        topic: &str,
        data: &impl Serialize,
    ) -> Result<(), ClientError> {
        self.message(&format!("{PROXY_PREFIX}{target}:{topic}"), None, data).await
    }

    /// Sends a message that RECEIPT and ERROR will name by `nonce`.
    pub async fn send_with_nonce(
        &mut self,
        target: &str,
        topic: &str,
        nonce: u64,
        data: &impl Serialize,
    ) -> Result<(), ClientError> {
        self.message(&format!("{PROXY_PREFIX}{target}:{topic}"), Some(nonce), data).await
    }

    /// Sends a whole text message as it is.
    pub async fn send_raw(&mut self, text: String) -> Result<(), ClientError> {
        self.sink.send(Frame::text(text)).await.map_err(broken)
    }

    /// Like [`send_raw`](Self::send_raw), but may keep it in memory until [`flush`](Self::flush):
    /// many small messages then leave in one write.
    pub async fn feed_raw(&mut self, text: String) -> Result<(), ClientError> {
        self.sink.feed(Frame::text(text)).await.map_err(broken)
    }

    /// Sends what was fed.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        self.sink.flush().await.map_err(broken)
    }

    /// Says that the service lives. Not needed while [`Receiver::next`] answers pings.
    pub async fn heartbeat(&mut self) -> Result<(), ClientError> {
        self.message(&format!("{HEARTBEAT_PREFIX}{}", self.name), None, &()).await
    }

    /// Sends any op: `fields` are those of `d` beside the opcode.
    pub async fn op(&mut self, opcode: Opcode, fields: &impl Serialize) -> Result<(), ClientError> {
        #[derive(Serialize)]
        struct Data<'a, T> {
            opcode: u8,
            #[serde(flatten)]
            fields: &'a T,
        }
        self.message(OPCODE_TOPIC, None, &Data { opcode: opcode as u8, fields }).await
    }

    /// Starts to close. Read on until [`Receiver::next`] returns `None`, so that the other side
    /// gets the frame.
    pub async fn close(&mut self, code: u16) -> Result<(), ClientError> {
        let frame = CloseFrame { code: code.into(), reason: "".into() };
        self.sink.send(Frame::Close(Some(frame))).await.map_err(broken)
    }

    async fn message(
        &mut self,
        topic: &str,
        nonce: Option<u64>,
        data: &impl Serialize,
    ) -> Result<(), ClientError> {
        #[derive(Serialize)]
        struct Envelope<'a, T> {
            s: &'a str,
            t: &'a str,
            d: &'a T,
            #[serde(skip_serializing_if = "Option::is_none")]
            n: Option<u64>,
        }
        let envelope = Envelope { s: &self.name, t: topic, d: data, n: nonce };
        let text = serde_json::to_string(&envelope).map_err(ClientError::Data)?;
        self.send_raw(text).await
    }
}

impl Receiver {
    /// Waits for the next message or op. `None`: the service itself had closed (1000, 1001 or
    /// 4000). May be dropped while it waits; nothing is lost by that.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        self.next_text().await?.map(|text| Event::parse(&text)).transpose()
    }

    /// Like [`next`](Self::next), but hands over the text.
    pub async fn next_text(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            match self.stream.next().await {
                Some(Ok(Frame::Text(text))) => return Ok(Some(text.as_str().to_owned())),
                Some(Ok(Frame::Close(frame))) => return ended(frame),
                Some(Ok(_)) => {}
                Some(Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed))
                | None => return Ok(None),
                Some(Err(error)) => return Err(broken(error)),
            }
        }
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Sender").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Receiver").finish_non_exhaustive()
    }
}

/// What a close frame means to the service. Its own close is answered with its own code.
fn ended(frame: Option<CloseFrame>) -> Result<Option<String>, ClientError> {
    let (code, reason) =
        frame.map_or((1005, String::new()), |frame| (frame.code.into(), frame.reason.to_string()));
    match code {
        1000 | 1001 | LEAVES_FOR_GOOD => Ok(None),
        _ => Err(ClientError::Closed { code, reason }),
    }
}

fn broken(error: tungstenite::Error) -> ClientError {
    ClientError::Broken(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::op::LeaseState;
    use serde_json::json;
    use std::net::SocketAddr;
    use tokio::net::TcpListener;

    const ACCEPT: &str = r#"{"s":"gateway","t":"gateway:opcode","d":{"opcode":1,"service":"a","session":"x",
        "resumed":false,"heartbeat_ms":5000,"resume_window_ms":30000,"max_message_bytes":1048576,
        "shards":[3],"version":1,"to_come":7}}"#;

    const LEASE: &str =
        r#"{"opcode":11,"shard_id":3,"shard_count":8,"epoch":2,"max_concurrency":1,"resume":{"seq":1.0}}"#;

    /// A gateway for one connection: says `answers` after the first message, closes, and tells
    /// all that came.
    async fn fake(
        answers: Vec<Frame>,
    ) -> Result<(SocketAddr, tokio::task::JoinHandle<Vec<String>>), std::io::Error> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let heard = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a connection");
            let mut socket = tokio_tungstenite::accept_async(stream).await.expect("a handshake");
            let mut heard = vec![];
            while let Some(Ok(frame)) = socket.next().await {
                heard.push(frame.to_string());
                if heard.len() == 1 {
                    for answer in answers.clone() {
                        socket.send(answer).await.expect("an answer goes out");
                    }
                }
            }
            heard
        });
        Ok((address, heard))
    }

    async fn connect(answers: Vec<Frame>) -> Result<(Client, Accepted), ClientError> {
        let (address, _) = fake(answers).await.expect("a listener");
        Client::connect(&format!("ws://{address}/gateway"), &Identify::named("a")).await
    }

    #[tokio::test]
    async fn what_is_sent_is_what_the_protocol_says() {
        let (address, heard) = fake(vec![Frame::text(ACCEPT)]).await.expect("a listener");
        let identify = Identify { receipts: true, group: Some("g".to_owned()), ..Identify::named("a") };
        let (mut client, accepted) =
            Client::connect(&format!("ws://{address}/gateway"), &identify).await.expect("ACCEPT");
        assert_eq!((accepted.service.as_str(), accepted.shards.as_slice()), ("a", [3].as_slice()));
        client.send("b", "x:\"y", &json!({"k": 1})).await.expect("sent");
        client.send_with_nonce("shard/3", "x", 7, &()).await.expect("sent");
        client.heartbeat().await.expect("sent");
        client.shard_connect().await.expect("sent");
        client.shard_claim(3, 8, false).await.expect("sent");
        let lease: Lease = serde_json::from_str(LEASE).expect("a lease");
        client.shard_state(&lease, LeaseState::Identifying).await.expect("sent");
        let resume = lease.resume.as_deref().expect("resume data");
        client.shard_state_with_resume(&lease, LeaseState::Ready, resume).await.expect("sent");
        client.shard_death(&Death { close_code: Some(4004), ..Death::default() }).await.expect("sent");
        client.close(1000).await.expect("sent");
        assert!(client.next().await.expect("an end").is_none());
        drop(client);
        let heard = heard.await.expect("no panic");
        assert_eq!(
            heard[..9],
            [
                r#"{"s":"a","t":"gateway:opcode","d":{"opcode":0,"ack":false,"receipts":true,"group":"g"}}"#,
                r#"{"s":"a","t":"gateway-proxy:b:x:\"y","d":{"k":1}}"#,
                r#"{"s":"a","t":"gateway-proxy:shard/3:x","d":null,"n":7}"#,
                r#"{"s":"a","t":"heartbeat:a","d":null}"#,
                r#"{"s":"a","t":"gateway:opcode","d":{"opcode":10}}"#,
                r#"{"s":"a","t":"gateway:opcode","d":{"opcode":10,"identify":false,"shard_count":8,"shard_id":3}}"#,
                r#"{"s":"a","t":"gateway:opcode","d":{"opcode":31,"shard_id":3,"shard_count":8,"state":"identifying"}}"#,
                r#"{"s":"a","t":"gateway:opcode","d":{"opcode":31,"shard_id":3,"shard_count":8,"state":"ready","resume":{"seq":1.0}}}"#,
                r#"{"s":"a","t":"gateway:opcode","d":{"opcode":12,"close_code":4004}}"#,
            ]
        );
    }

    #[tokio::test]
    async fn a_reject_is_an_error_with_its_code() {
        let reject = r#"{"s":"gateway","t":"gateway:opcode","d":{"opcode":2,"code":"already_connected",
            "message":"no","retry_after_ms":250}}"#;
        match connect(vec![Frame::text(reject)]).await {
            Err(ClientError::Rejected(rejected)) => {
                assert_eq!(
                    (rejected.code.as_str(), rejected.retry_after_ms),
                    ("already_connected", Some(250))
                );
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_close_is_an_error_with_its_code() {
        let frame = CloseFrame { code: 4009.into(), reason: "silent".into() };
        let (mut client, _) =
            connect(vec![Frame::text(ACCEPT), Frame::Close(Some(frame))]).await.expect("ACCEPT");
        match client.next().await {
            Err(ClientError::Closed { code: 4009, reason }) => assert_eq!(reason, "silent"),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_message_over_the_gateways_limit_is_read() {
        let data = "x".repeat(2 << 20);
        let large = format!(r#"{{"s":"b","t":"x:y","d":"{data}"}}"#);
        let (mut client, _) = connect(vec![Frame::text(ACCEPT), Frame::text(large)]).await.expect("ACCEPT");
        match client.next().await {
            Ok(Some(Event::Message(message))) => assert_eq!(message.data.get().len(), data.len() + 2),
            other => panic!("{other:?}"),
        }
    }
}
