//! One shard's connection.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::{Order, Shared, lock};
use crate::rules::Verdict;

/// Of one connection in [`RATE_PERIOD`].
const MAX_MESSAGES: u32 = 120;
const RATE_PERIOD: Duration = Duration::from_mins(1);

/// Why the fake closes.
type Refusal = (u16, &'static str);

struct Connection<'a> {
    id: u64,
    shared: &'a Shared,
    orders: UnboundedSender<Order>,
    session: Option<String>,
    last_heartbeat: Instant,
    /// Since when how many messages came.
    rate: (Instant, u32),
}

pub(super) async fn converse(stream: TcpStream, id: u64, shared: &Shared) {
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
    let (orders, mut ordered) = unbounded_channel();
    let heartbeat = shared.rules().settings().heartbeat;
    let millis = u64::try_from(heartbeat.as_millis()).unwrap_or(u64::MAX);
    let _ = orders.send(Order::Send(json!({"op": 10, "d": {"heartbeat_interval": millis}})));
    lock(&shared.connections).insert(id, orders.clone());
    let now = Instant::now();
    let mut connection =
        Connection { id, shared, orders, session: None, last_heartbeat: now, rate: (now, 0) };
    loop {
        let dead_at = connection.last_heartbeat + 2 * heartbeat;
        let refusal = tokio::select! {
            order = ordered.recv() => match order {
                Some(Order::Send(event)) => match socket.send(Message::text(event.to_string())).await {
                    Ok(()) => None,
                    Err(_) => break,
                },
                Some(Order::Close(code)) => {
                    close(&mut socket, (code, "as the test wants it")).await;
                    break;
                }
                Some(Order::Drop) | None => break,
            },
            frame = socket.next() => match frame {
                Some(Ok(Message::Text(text))) => connection.take(&text).err(),
                Some(Ok(Message::Close(frame))) => {
                    connection.leave(frame.as_ref());
                    break;
                }
                Some(Ok(_)) => None,
                Some(Err(_)) | None => break,
            },
            () = tokio::time::sleep_until(dead_at.into()) => Some((4009, "Session timed out.")),
        };
        if let Some((code, reason)) = refusal {
            let session = connection.session.as_deref().unwrap_or("a connection without a session");
            shared.rules().violate(format!("{session} was closed with {code}: {reason}"));
            close(&mut socket, (code, reason)).await;
            break;
        }
    }
    lock(&shared.connections).remove(&id);
    if let Some(session) = &connection.session {
        shared.rules().disconnect(id, session, Instant::now());
    }
}

async fn close(socket: &mut WebSocketStream<TcpStream>, (code, reason): Refusal) {
    let frame = CloseFrame { code: code.into(), reason: reason.into() };
    let _ = socket.close(Some(frame)).await;
    // Until the other side has answered, so that it gets the frame.
    let answered = async { while let Some(Ok(_)) = socket.next().await {} };
    let _ = tokio::time::timeout(Duration::from_secs(2), answered).await;
}

impl Connection<'_> {
    fn take(&mut self, text: &str) -> Result<(), Refusal> {
        self.count()?;
        let Ok(message) = serde_json::from_str::<Value>(text) else { return Err((4002, "Decode error.")) };
        match (message["op"].as_u64(), &self.session) {
            (Some(1), _) => {
                self.last_heartbeat = Instant::now();
                self.send(json!({"op": 11}));
                Ok(())
            }
            (Some(2 | 6), Some(_)) => Err((4005, "Already authenticated.")),
            (Some(2), None) => self.identify(&message["d"]),
            (Some(6), None) => self.resume(&message["d"]),
            (Some(3 | 4 | 8), None) => Err((4003, "Not authenticated.")),
            (Some(3 | 4 | 8), Some(_)) => Ok(()),
            _ => Err((4001, "Unknown opcode.")),
        }
    }

    fn count(&mut self) -> Result<(), Refusal> {
        if self.rate.0.elapsed() >= RATE_PERIOD {
            self.rate = (Instant::now(), 0);
        }
        self.rate.1 += 1;
        if self.rate.1 > MAX_MESSAGES { Err((4008, "You are being rate limited.")) } else { Ok(()) }
    }

    fn identify(&mut self, data: &Value) -> Result<(), Refusal> {
        // Whatever follows from it goes out before anything that another thread makes of it.
        let mut rules = self.shared.rules();
        match rules.identify(self.id, data, &self.shared.url(), Instant::now()) {
            Verdict::Ready { session } => {
                rules.events(&session).iter().for_each(|event| self.send(event.clone()));
                drop(rules);
                self.session = Some(session);
            }
            Verdict::Close { code, reason } => return Err((code, reason)),
            Verdict::InvalidSession | Verdict::Resumed { .. } => self.send(json!({"op": 9, "d": false})),
        }
        Ok(())
    }

    fn resume(&mut self, data: &Value) -> Result<(), Refusal> {
        let mut rules = self.shared.rules();
        match rules.resume(self.id, data, Instant::now()) {
            Verdict::Resumed { session, replay } => {
                for event in replay {
                    self.send(event);
                }
                if let Some(resumed) = rules.dispatch(&session, "RESUMED", &json!({})) {
                    self.send(resumed);
                }
                drop(rules);
                self.session = Some(session);
            }
            Verdict::Close { code, reason } => return Err((code, reason)),
            Verdict::InvalidSession | Verdict::Ready { .. } => self.send(json!({"op": 9, "d": false})),
        }
        Ok(())
    }

    fn leave(&mut self, frame: Option<&CloseFrame>) {
        let ends = frame.is_some_and(|frame| matches!(u16::from(frame.code), 1000 | 1001));
        if let Some(session) = self.session.take_if(|_| ends) {
            self.shared.rules().end(&session);
        }
    }

    fn send(&self, message: Value) {
        let _ = self.orders.send(Order::Send(message));
    }
}
