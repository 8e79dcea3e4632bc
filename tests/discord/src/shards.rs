//! A bot's shards: each is twilight's, and leases its id from the gateway.
//!
//! One process has one connection to the gateway, its [`Link`], and several shards. Each leases an id,
//! resumes what the id's last holder left, or waits for a permit and IDENTIFYs: twilight asks its
//! [queue] for that whenever it has to, and the queue here asks the gateway. A session that
//! can be resumed is deposited at the gateway, so that the shard can go on in another process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use gateway::client::Lease;
use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use twilight_gateway::{CloseFrame, ConfigBuilder, Intents, Message, Session, Shard, ShardId};

use self::link::{Claim, Id, Link};
use self::queue::GatewayQueue;

mod link;
mod queue;

/// The longest that the end of a session takes.
const CLOSING: Duration = Duration::from_millis(500);

/// Where the shards connect to, and as what.
#[derive(Debug, Clone)]
pub struct Bot {
    /// The gateway: `ws://127.0.0.1:7117/gateway`.
    pub gateway: String,
    /// Discord's gateway: `ws://127.0.0.1:8080`.
    pub discord: String,
    pub token: String,
    /// Its name at the gateway.
    pub service: String,
    /// How many shards it is to run.
    pub shards: usize,
}

/// Runs the shards until `leave` tells true: then they are given back, to be resumed elsewhere.
/// What happens is printed, a JSON object a line.
pub async fn run(bot: Bot, leave: watch::Receiver<bool>) {
    let bot = Arc::new(bot);
    let (link, own) = Link::open(&bot.gateway, &bot.service).await;
    let mut shards = JoinSet::new();
    // Those that this name has still, and as many more as it takes.
    let own_or_any = own.iter().map(|id| Claim::Listed(*id)).chain(std::iter::repeat(Claim::Any));
    for claim in own_or_any.take(bot.shards.max(own.len())) {
        shards.spawn(run_shard(bot.clone(), link.clone(), claim, leave.clone()));
    }
    while shards.join_next().await.is_some() {}
    link.leave().await;
}

async fn run_shard(bot: Arc<Bot>, mut link: Link, claim: Claim, mut leave: watch::Receiver<bool>) {
    // It may be that one that it has can resume, which takes no permit; else the queue asks for one.
    let identify = claim == Claim::Any;
    let lease = tokio::select! {
        lease = link.lease(claim, identify) => lease,
        () = is_told(&mut leave) => return,
    };
    let id = (lease.shard_id, lease.shard_count);
    tell(id.0, "LEASED", &json!(lease.epoch));
    let mut shard = shard(&bot, &link, &lease, identify.then(Instant::now));
    loop {
        let message = tokio::select! {
            message = shard.next() => message,
            () = link.loses(id) => break close(shard).await,
            () = is_told(&mut leave) => break link.death(id, None, resume(&shard)),
        };
        match message {
            Some(Ok(Message::Text(text))) => take(&text, &shard, &link),
            Some(Ok(Message::Close(frame))) => {
                tell(id.0, "CLOSED", &json!(frame.as_ref().map(|frame| frame.code)));
                if let Some(code) = frame.map(|frame| frame.code).filter(|_| is_fatal(&shard)) {
                    break link.death(id, Some(code), Value::Null);
                }
            }
            Some(Err(error)) => tell(id.0, "FAILED", &json!(error.to_string())),
            None => break link.death(id, None, Value::Null),
        }
    }
}

/// Ends the session, where it has one now.
async fn close(mut shard: Shard<GatewayQueue>) {
    shard.close(CloseFrame::NORMAL);
    let closed = async { while let Some(Ok(Message::Text(_))) = shard.next().await {} };
    // Without a connection there is nothing to end, and it makes none.
    let _ = tokio::time::timeout(CLOSING, closed).await;
}

async fn is_told(leave: &mut watch::Receiver<bool>) {
    let _ = leave.wait_for(|leave| *leave).await;
}

fn is_fatal(shard: &Shard<GatewayQueue>) -> bool {
    shard.state() == twilight_gateway::ShardState::FatallyClosed
}

fn shard(bot: &Bot, link: &Link, lease: &Lease, permit: Option<Instant>) -> Shard<GatewayQueue> {
    let id = (lease.shard_id, lease.shard_count);
    let queue = GatewayQueue { link: link.clone(), id, permit: Arc::new(Mutex::new(permit)) };
    let mut config =
        ConfigBuilder::new(bot.token.clone(), Intents::GUILDS).proxy_url(bot.discord.clone()).queue(queue);
    let left = lease.resume.as_ref().and_then(|left| serde_json::from_str::<Value>(left.get()).ok());
    if let Some(left) = left {
        let text = |key: &str| left[key].as_str().unwrap_or_default().to_owned();
        let seq = left["seq"].as_u64().unwrap_or_default();
        config = config.session(Session::new(seq, text("session_id"))).resume_url(text("resume_gateway_url"));
    }
    Shard::with_config(ShardId::new(lease.shard_id, lease.shard_count), config.build())
}

/// What the gateway keeps for whoever has the id next.
fn resume(shard: &Shard<GatewayQueue>) -> Value {
    let Some(session) = shard.session() else { return Value::Null };
    json!({"session_id": session.id(), "seq": session.sequence(), "resume_gateway_url": shard.resume_url()})
}

fn take(text: &str, shard: &Shard<GatewayQueue>, link: &Link) {
    let id: Id = (shard.id().number(), shard.id().total());
    let event: Value = serde_json::from_str(text).unwrap_or_default();
    match event["t"].as_str() {
        Some("READY") => link.state(id, "ready", resume(shard)),
        Some("RESUMED") => link.state(id, "resumed", resume(shard)),
        Some(_) => {}
        None => return,
    }
    tell(id.0, event["t"].as_str().unwrap_or_default(), &event["d"]["text"]);
}

fn tell(shard: u32, event: &str, data: &Value) {
    println!("{}", json!({"shard": shard, "event": event, "data": data}));
}
