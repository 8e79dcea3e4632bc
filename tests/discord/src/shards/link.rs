//! A process's connection to the gateway, shared by its shards, and made anew where it is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::process::exit;
use std::time::{Duration, Instant};

use gateway::client::{
    Accepted, Client, ClientError, Event, Identify, Lease, Live, Op, Receiver, Revoke, Sender,
};
use gateway::protocol::op::Opcode;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};

/// The gateway has not been heard for so long that the ids may be another's.
const LOST_THE_GATEWAY: i32 = 3;

const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// `shard_id`, `shard_count`: while the bot is resharded, one id has two holders.
pub(super) type Id = (u32, u32);

/// What the shards use. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Link {
    requests: mpsc::UnboundedSender<Request>,
    /// All that were taken away.
    lost: watch::Receiver<BTreeSet<Id>>,
}

#[derive(Debug)]
enum Request {
    Connect(Ask),
    Op(Opcode, Value),
    Leave(oneshot::Sender<()>),
}

/// Which id is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    Any,
    /// One that ACCEPT listed, which does not tell of how many.
    Listed(u32),
    Held(Id),
}

/// A `SHARD_CONNECT` that has not been answered yet.
#[derive(Debug)]
struct Ask {
    claim: Claim,
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
        let (losing, lost) = watch::channel(BTreeSet::new());
        let (url, service) = (url.to_owned(), service.to_owned());
        tokio::spawn(async move {
            let window = Duration::from_millis(accepted.resume_window_ms);
            let (sender, receiver) = client.split();
            let (asks, held) = (Vec::new(), BTreeMap::new());
            Serving { url, service, window, sender, receiver, requested, asks, held, losing }.serve().await;
        });
        (Self { requests, lost }, own)
    }

    /// Asks for an id; where `identify` says so, with a permit to IDENTIFY.
    pub(super) async fn lease(&self, claim: Claim, identify: bool) -> Lease {
        let (lease, leased) = oneshot::channel();
        let _ = self.requests.send(Request::Connect(Ask { claim, identify, lease: Some(lease) }));
        leased.await.expect("the link serves until the process ends")
    }

    /// Returns when the id is taken away: its session must end.
    pub(super) async fn loses(&mut self, id: Id) {
        let _ = self.lost.wait_for(|lost| lost.contains(&id)).await;
    }

    pub(super) fn state(&self, id: Id, state: &str, resume: Value) {
        let fields = json!({"shard_id": id.0, "shard_count": id.1, "state": state});
        self.op(Opcode::ShardState, fields, resume);
    }

    pub(super) fn death(&self, id: Id, close_code: Option<u16>, resume: Value) {
        let fields = json!({"shard_id": id.0, "shard_count": id.1, "close_code": close_code});
        self.op(Opcode::ShardDeath, fields, resume);
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
                exit(LOST_THE_GATEWAY);
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
    /// With the last SHARD_STATE of each: a gateway that is killed may not have taken it in.
    held: BTreeMap<Id, Value>,
    losing: watch::Sender<BTreeSet<Id>>,
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
                self.note(opcode, &fields);
                self.sender.op(opcode, &fields).await
            }
            Request::Leave(_) => Ok(()),
        }
    }

    fn note(&mut self, opcode: Opcode, fields: &Value) {
        let is_same = |id: &Id| json!([id.0, id.1]) == json!([fields["shard_id"], fields["shard_count"]]);
        if opcode == Opcode::ShardDeath {
            self.held.retain(|id, _| !is_same(id));
        } else if let Some((_, state)) = self.held.iter_mut().find(|(id, _)| is_same(id)) {
            *state = fields.clone();
        }
    }

    fn take(&mut self, op: &Op) {
        if op.is(Opcode::ShardAccept) {
            self.accept(op.read().expect("SHARD_ACCEPT has the protocol's fields"));
        } else if op.is(Opcode::ShardRevoke) {
            let Revoke { shard_id, shard_count, reason } =
                op.read().expect("SHARD_REVOKE has the protocol's fields");
            super::tell(shard_id, "REVOKED", &json!(shard_count));
            self.lose((shard_id, shard_count), &reason);
        } else if op.is(Opcode::ShardLive) {
            let live: Live = op.read().expect("SHARD_LIVE has the protocol's fields");
            super::tell(live.shard_id, "LIVE", &json!(live.shard_count));
        } else if !op.is(Opcode::ShardWait) {
            eprintln!("{}: op {}: {}", self.service, op.opcode, op.data);
        }
    }

    fn accept(&mut self, lease: Lease) {
        let id = (lease.shard_id, lease.shard_count);
        self.held.entry(id).or_default();
        let asked = |claim| self.asks.iter().position(|ask| ask.claim == claim);
        let answered =
            asked(Claim::Held(id)).or_else(|| asked(Claim::Listed(id.0))).or_else(|| asked(Claim::Any));
        let ask = answered.map(|index| self.asks.remove(index));
        if let Some(waits) = ask.and_then(|ask| ask.lease) {
            let _ = waits.send(lease);
        }
    }

    fn lose(&mut self, id: Id, reason: &str) {
        eprintln!("{}: shard {id:?} is lost: {reason}", self.service);
        self.held.remove(&id);
        self.asks.retain(|ask| ask.claim != Claim::Held(id));
        self.losing.send_modify(|lost| {
            lost.insert(id);
        });
    }

    /// The shards go on meanwhile; the gateway is told again what they have and what they wait for.
    async fn reconnect(&mut self, error: &ClientError) {
        eprintln!("{}: the gateway is gone: {error}", self.service);
        loop {
            let (client, accepted) = connect(&self.url, &self.service, self.window).await;
            let is_gone = |id: &Id| !accepted.shards.contains(&id.0);
            for id in self.held.keys().copied().filter(is_gone).collect::<Vec<_>>() {
                self.lose(id, "ACCEPT does not list it");
            }
            (self.sender, self.receiver) = client.split();
            self.asks = asks_again(std::mem::take(&mut self.asks), self.held.keys().copied());
            if self.tell_again().await.is_ok() {
                return;
            }
        }
    }

    async fn tell_again(&mut self) -> Result<(), ClientError> {
        for ask in &self.asks {
            self.sender.op(Opcode::ShardConnect, &fields(ask)).await?;
        }
        for state in self.held.values().filter(|state| !state.is_null()) {
            self.sender.op(Opcode::ShardState, state).await?;
        }
        Ok(())
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

/// What is to be asked on a new connection: what somebody waits for still, and for all ids that it has.
fn asks_again(asks: Vec<Ask>, held: impl Iterator<Item = Id>) -> Vec<Ask> {
    let mut asks: Vec<_> = asks.into_iter().filter(|ask| ask.lease.is_some()).collect();
    for id in held {
        if !asks.iter().any(|ask| ask.claim == Claim::Held(id)) {
            asks.push(Ask { claim: Claim::Held(id), identify: false, lease: None });
        }
    }
    // What it has comes first: else the gateway, which takes that for unclaimed, grants it to those that
    // ask for any id.
    asks.sort_by_key(|ask| ask.claim == Claim::Any);
    asks
}

fn fields(ask: &Ask) -> Value {
    match ask.claim {
        Claim::Any => json!({}),
        Claim::Listed(id) => json!({"shard_id": id, "identify": ask.identify}),
        Claim::Held((id, count)) => json!({"shard_id": id, "shard_count": count, "identify": ask.identify}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two shards of one id would IDENTIFY at once.
    #[test]
    fn what_a_process_has_is_asked_for_before_any_id() {
        let waits = |claim| Ask { claim, identify: true, lease: Some(oneshot::channel().0) };
        let told_only = Ask { claim: Claim::Held((9, 32)), identify: false, lease: None };
        let asks = vec![
            waits(Claim::Any),
            waits(Claim::Held((0, 32))),
            told_only,
            waits(Claim::Any),
            waits(Claim::Listed(4)),
        ];
        let claims: Vec<_> =
            asks_again(asks, [(0, 32), (1, 32)].into_iter()).iter().map(|ask| ask.claim).collect();
        let expected = [Claim::Held((0, 32)), Claim::Listed(4), Claim::Held((1, 32)), Claim::Any, Claim::Any];
        assert_eq!(claims, expected);
    }
}
