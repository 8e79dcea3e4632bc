//! A process's connection to the gateway, shared by its shards, and made anew where it is lost.

use std::collections::BTreeSet;
use std::process::exit;
use std::time::{Duration, Instant};

use gateway::client::{Accepted, Client, ClientError, Event, Identify, Lease, Op, Receiver, Sender};
use gateway::protocol::op::Opcode;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

/// An id was taken away: the process must not go on with its Discord session.
const LOST_A_SHARD: i32 = 3;

const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// What the shards use. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Link {
    requests: mpsc::UnboundedSender<Request>,
}

#[derive(Debug)]
enum Request {
    Connect(Ask),
    Op(Opcode, Value),
    Leave(oneshot::Sender<()>),
}

/// A `SHARD_CONNECT` that has not been answered yet.
#[derive(Debug)]
struct Ask {
    shard_id: Option<u32>,
    identify: bool,
    /// Nobody waits where only the lease is claimed anew.
    lease: Option<oneshot::Sender<Lease>>,
}

impl Link {
    /// Connects, and tells the ids that the name has already.
    pub(super) async fn open(url: &str, service: &str) -> (Self, Vec<u32>) {
        let (client, accepted) = connect(url, service, Duration::from_secs(30)).await;
        let own = accepted.shards.clone();
        let (requests, requested) = mpsc::unbounded_channel();
        let (url, service) = (url.to_owned(), service.to_owned());
        tokio::spawn(async move {
            let window = Duration::from_millis(accepted.resume_window_ms);
            let (sender, receiver) = client.split();
            let held = BTreeSet::new();
            Serving { url, service, window, sender, receiver, requested, asks: Vec::new(), held }
                .serve()
                .await;
        });
        (Self { requests }, own)
    }

    /// Any id, with a permit to IDENTIFY.
    pub(super) async fn connect(&self) -> Lease {
        self.ask(None, true).await
    }

    /// An id that this service has.
    pub(super) async fn claim(&self, shard_id: u32, identify: bool) -> Lease {
        self.ask(Some(shard_id), identify).await
    }

    async fn ask(&self, shard_id: Option<u32>, identify: bool) -> Lease {
        let (lease, leased) = oneshot::channel();
        let _ = self.requests.send(Request::Connect(Ask { shard_id, identify, lease: Some(lease) }));
        leased.await.expect("the link serves until the process ends")
    }

    pub(super) fn state(&self, shard_id: u32, state: &str, resume: Value) {
        self.op(Opcode::ShardState, json!({"shard_id": shard_id, "state": state}), resume);
    }

    pub(super) fn death(&self, shard_id: u32, close_code: Option<u16>, resume: Value) {
        self.op(Opcode::ShardDeath, json!({"shard_id": shard_id, "close_code": close_code}), resume);
    }

    fn op(&self, opcode: Opcode, mut fields: Value, resume: Value) {
        if !resume.is_null() {
            fields["resume"] = resume;
        }
        let _ = self.requests.send(Request::Op(opcode, fields));
    }

    /// Says goodbye: whatever it holds still is free at once.
    pub(super) async fn leave(&self) {
        let (left, has_left) = oneshot::channel();
        let _ = self.requests.send(Request::Leave(left));
        let _ = has_left.await;
    }
}

/// Ends the process where the gateway is not there for so long: its ids may be another's then.
async fn connect(url: &str, service: &str, patience: Duration) -> (Client, Accepted) {
    let deadline = Instant::now() + patience;
    loop {
        match Client::connect(url, &Identify::named(service)).await {
            Ok(connected) => return connected,
            Err(error) if Instant::now() > deadline => {
                eprintln!("{service}: {error}");
                exit(LOST_A_SHARD);
            }
            Err(_) => tokio::time::sleep(BETWEEN_TRIES).await,
        }
    }
}

struct Serving {
    url: String,
    service: String,
    window: Duration,
    sender: Sender,
    receiver: Receiver,
    requested: mpsc::UnboundedReceiver<Request>,
    asks: Vec<Ask>,
    held: BTreeSet<u32>,
}

impl Serving {
    async fn serve(mut self) {
        loop {
            let done = tokio::select! {
                request = self.requested.recv() => match request {
                    Some(Request::Leave(left)) => return self.leave(left).await,
                    Some(request) => self.request(request).await,
                    None => return,
                },
                event = self.receiver.next() => match event {
                    Ok(Some(Event::Op(op))) => { self.take(&op); Ok(()) }
                    Ok(Some(Event::Message(_))) | Err(ClientError::Unreadable { .. }) => Ok(()),
                    Ok(None) => return,
                    Err(error) => Err(error),
                },
            };
            if let Err(error) = done {
                self.reconnect(&error).await;
            }
        }
    }

    async fn request(&mut self, request: Request) -> Result<(), ClientError> {
        match request {
            Request::Connect(ask) => {
                let fields = fields(&ask);
                // Kept first: it is asked again where this connection is lost.
                self.asks.push(ask);
                self.sender.op(Opcode::ShardConnect, &fields).await
            }
            Request::Op(opcode, fields) => {
                if let (Opcode::ShardDeath, Some(id)) = (opcode, fields["shard_id"].as_u64()) {
                    self.held.retain(|held| u64::from(*held) != id);
                }
                self.sender.op(opcode, &fields).await
            }
            Request::Leave(_) => Ok(()),
        }
    }

    fn take(&mut self, op: &Op) {
        if op.is(Opcode::ShardAccept) {
            let lease: Lease = op.read().expect("SHARD_ACCEPT has the protocol's fields");
            self.held.insert(lease.shard_id);
            let is_for = |ask: &Ask, id| ask.shard_id == id;
            let claimed = self.asks.iter().position(|ask| is_for(ask, Some(lease.shard_id)));
            let answered = claimed.or_else(|| self.asks.iter().position(|ask| is_for(ask, None)));
            let ask = answered.map(|index| self.asks.remove(index));
            if let Some(waits) = ask.and_then(|ask| ask.lease) {
                let _ = waits.send(lease);
            }
        } else if op.is(Opcode::ShardRevoke) {
            eprintln!("{}: a shard was revoked: {}", self.service, op.data);
            exit(LOST_A_SHARD);
        } else if !op.is(Opcode::ShardWait) {
            eprintln!("{}: op {}: {}", self.service, op.opcode, op.data);
        }
    }

    /// The shards go on meanwhile; the gateway is told again what they wait for and what they have.
    async fn reconnect(&mut self, error: &ClientError) {
        eprintln!("{}: the gateway is gone: {error}", self.service);
        loop {
            let (client, accepted) = connect(&self.url, &self.service, self.window).await;
            if let Some(lost) = self.held.iter().find(|id| !accepted.shards.contains(id)) {
                eprintln!("{}: the shard id {lost} is lost", self.service);
                exit(LOST_A_SHARD);
            }
            (self.sender, self.receiver) = client.split();
            self.asks.retain(|ask| ask.lease.is_some());
            let held = self.held.iter().filter(|id| !self.asks.iter().any(|ask| ask.shard_id == Some(**id)));
            let held: Vec<_> =
                held.map(|id| Ask { shard_id: Some(*id), identify: false, lease: None }).collect();
            self.asks.extend(held);
            let mut asked = Ok(());
            for ask in &self.asks {
                asked = asked.and(self.sender.op(Opcode::ShardConnect, &fields(ask)).await);
            }
            if asked.is_ok() {
                return;
            }
        }
    }

    async fn leave(mut self, left: oneshot::Sender<()>) {
        // Its ERROR (there is no such shard) shows that what was sent before has been taken in: of ops
        // that a close follows at once the last may be lost.
        let _ = self.sender.op(Opcode::ShardDeath, &json!({})).await;
        while let Ok(Some(event)) = self.receiver.next().await {
            if matches!(event, Event::Op(op) if op.is(Opcode::Error)) {
                break;
            }
        }
        let _ = self.sender.close(gateway::protocol::close::LEAVES_FOR_GOOD).await;
        while let Ok(Some(_)) = self.receiver.next().await {}
        let _ = left.send(());
    }
}

fn fields(ask: &Ask) -> Value {
    match ask.shard_id {
        Some(id) => json!({"shard_id": id, "identify": ask.identify}),
        None => json!({}),
    }
}
