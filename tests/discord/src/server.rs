//! The fake's sockets: `GET /gateway/bot` and the WebSockets of shards, on one port of loopback.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use crate::rules::{Rules, Settings, Shard};

mod http;
mod session;

/// How `/gateway/bot` answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Http {
    /// As it should, or with 401 where the token is another.
    Answer,
    Status(u16),
    /// 429; whoever asks again before so many seconds are over violates the rules.
    RateLimited(f64),
    /// 200, and no JSON.
    Garbage,
    /// Not at all.
    Hang,
}

/// What a test tells a shard's connection.
#[derive(Debug, Clone)]
pub(crate) enum Order {
    Send(Value),
    Close(u16),
    /// Without a close frame.
    Drop,
}

/// A Discord of one bot. Ends with all its connections when it is dropped.
pub struct Fake {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

pub(crate) struct Shared {
    address: SocketAddr,
    rules: Mutex<Rules>,
    pub(crate) http: Mutex<Http>,
    /// When `/gateway/bot` was asked.
    asked: Mutex<Vec<Instant>>,
    connections: Mutex<HashMap<u64, UnboundedSender<Order>>>,
    next_connection: AtomicU64,
}

impl Fake {
    /// Starts on this address, such as `127.0.0.1:0`.
    pub async fn start(listen: &str, settings: Settings) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            address,
            rules: Mutex::new(Rules::new(settings)),
            http: Mutex::new(Http::Answer),
            asked: Mutex::default(),
            connections: Mutex::default(),
            next_connection: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Ok(Self { address, shared, accepting })
    }

    /// For the gateway's `discord_api`.
    pub fn api(&self) -> String {
        format!("http://{}/api/v10", self.address)
    }

    /// For shards.
    pub fn gateway(&self) -> String {
        self.shared.url()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set_http(&self, http: Http) {
        *lock(&self.shared.http) = http;
    }

    pub fn change(&self, change: impl FnOnce(&mut Settings)) {
        change(self.shared.rules().settings());
    }

    /// When `/gateway/bot` was asked.
    pub fn asked(&self) -> Vec<Instant> {
        lock(&self.shared.asked).clone()
    }

    /// What was against the rules.
    pub fn violations(&self) -> Vec<String> {
        self.shared.rules().violations().iter().map(|violation| violation.0.clone()).collect()
    }

    /// How many IDENTIFYs and RESUMEs there were.
    pub fn counts(&self) -> (u64, u64) {
        self.shared.rules().counts()
    }

    /// Shards with a live session, in order.
    pub fn connected(&self) -> Vec<Shard> {
        self.shared.rules().connected()
    }

    /// Cuts every connection off.
    pub fn drop_connections(&self) {
        self.shared.order_all(&Order::Drop);
    }

    /// Closes every connection.
    pub fn close_connections(&self, code: u16) {
        self.shared.order_all(&Order::Close(code));
    }

    /// Tells every shard to reconnect and resume (op 7).
    pub fn ask_to_reconnect(&self) {
        self.shared.order_all(&Order::Send(json!({"op": 7, "d": null})));
    }

    /// Ends every session: each shard has to IDENTIFY (op 9).
    pub fn invalidate_sessions(&self) {
        let mut rules = self.shared.rules();
        rules.session_ids().iter().for_each(|session| rules.end(session));
        drop(rules);
        self.shared.order_all(&Order::Send(json!({"op": 9, "d": false})));
    }

    /// An event for every session; those that are not connected get it when they resume.
    pub fn say(&self, text: &str) {
        self.shared.say(text);
    }

    /// All that a test may want to know.
    pub fn report(&self) -> Value {
        self.shared.report()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.accepting.abort();
        self.drop_connections();
    }
}

impl Shared {
    fn rules(&self) -> MutexGuard<'_, Rules> {
        lock(&self.rules)
    }

    fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    pub(crate) fn order_all(&self, order: &Order) {
        for connection in lock(&self.connections).values() {
            let _ = connection.send(order.clone());
        }
    }

    pub(crate) fn say(&self, text: &str) {
        // Under the lock, so that no RESUME comes between an event and its place in the sequence.
        let mut rules = self.rules();
        let connections = lock(&self.connections);
        for session in rules.session_ids() {
            let event = rules.dispatch(&session, "FAKE_SAYS", &json!({"text": text}));
            let live = connections.iter().find(|(connection, _)| rules.is_of(**connection, &session));
            if let (Some((_, connection)), Some(event)) = (live, event) {
                let _ = connection.send(Order::Send(event));
            }
        }
    }

    pub(crate) fn report(&self) -> Value {
        let rules = self.rules();
        let (identifies, resumes) = rules.counts();
        let violations: Vec<&str> = rules.violations().iter().map(|violation| violation.0.as_str()).collect();
        json!({
            "violations": violations, "identifies": identifies, "resumes": resumes,
            "connected": rules.connected(), "asked": lock(&self.asked).len(),
        })
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let (shared, id) = (shared.clone(), shared.next_connection.fetch_add(1, Ordering::Relaxed));
        tokio::spawn(async move {
            if is_gateway(&stream).await {
                session::converse(stream, id, &shared).await;
            } else {
                let _ = http::answer(stream, &shared).await;
            }
        });
    }
}

/// Whether the request is for a WebSocket: shards ask for `/?v=10&encoding=json`.
async fn is_gateway(stream: &TcpStream) -> bool {
    const START: &[u8] = b"GET /?";
    let mut start = [0; START.len()];
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match stream.peek(&mut start).await {
            Ok(read) if read == START.len() => return start == START,
            Ok(0) | Err(_) => return false,
            Ok(_) if Instant::now() > deadline => return false,
            // The rest of the first line is on its way.
            Ok(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}
