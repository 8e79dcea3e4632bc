//! One service's life: it comes, works, loses its connection or leaves, and comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::desk::Desk;
use super::faults::Fault;
use super::reader::{Checks, Reader};
use super::world::{Stage, World, count, lock};
use super::writer::Writer;
use crate::bench::hints;
use crate::client::{Accepted, Client, Identify, Receiver, Secret, Sender};
use crate::protocol::close::LEAVES_FOR_GOOD;

/// How long connecting, and the other side's close, may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a connection of a restless service lasts, in ms.
const LASTS_MS: std::ops::Range<u64> = 1_000..20_000;
/// How much longer than its window a session may be kept.
const EXPIRY_SLACK: Duration = Duration::from_secs(2);
/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(500);
/// The close code of one that comes back.
const COMES_BACK: u16 = 1000;

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parting {
    /// Its socket is closed, with whatever was unread.
    Cut,
    /// It closes with 1000.
    Closed,
    /// Another connection takes its place.
    TakenOver,
    /// It closes with 4000.
    Left,
}

/// The time between two connections.
struct Away {
    parting: Parting,
    /// Just before the connection ended, and just after.
    before: Instant,
    after: Instant,
    pause: Duration,
    knows_secret: bool,
    /// Where it was taken over: the connection of old.
    old: Option<Connected>,
}

/// One connection.
struct Connected {
    sender: Sender,
    receiver: Receiver,
    desk: Desk,
}

struct Service {
    world: Arc<World>,
    index: usize,
    random: Rng,
    connections: u64,
    secret: Option<Secret>,
    checks: Checks,
}

/// Lives until the soak is over.
pub(super) async fn live(world: Arc<World>, index: usize) {
    let random =
        Rng::with_seed(world.seed.wrapping_add(1 + index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut service = Service { world, index, random, connections: 0, secret: None, checks: Checks::new() };
    let mut away = None;
    while let Some(connected) = service.come(away.take()).await {
        away = service.serve(connected).await;
        if away.is_none() {
            return;
        }
    }
}

impl Service {
    /// Connects, as soon as it is time to. `None`: the soak is over.
    async fn come(&mut self, away: Option<Away>) -> Option<Connected> {
        let mut stage = self.world.stage.clone();
        if let Some(away) = &away {
            tokio::select! {
                () = sleep(away.pause) => {}
                _ = stage.wait_for(|stage| *stage >= Stage::Settling) => {}
            }
        }
        let started = Instant::now();
        let secret = self.secret.take().filter(|_| away.as_ref().is_some_and(|away| away.knows_secret));
        let (client, accepted) = self.connect(secret).await?;
        self.judge_resume(away.as_ref(), started, accepted.resumed);
        let (sender, receiver) = client.split();
        let connected = Connected { sender, receiver, desk: Desk::default() };
        if let Some(old) = away.and_then(|away| away.old) {
            self.drain(old).await;
        }
        self.arrived(&connected.desk, accepted);
        Some(connected)
    }

    async fn connect(&mut self, secret: Option<Secret>) -> Option<(Client, Accepted)> {
        let role = self.world.role(self.index);
        let identify = Identify {
            token: self.world.token.clone(),
            session: secret,
            ack: role.acknowledges(),
            receipts: role.kind == super::cast::Kind::Receipts,
            ..Identify::named(self.world.name(self.index))
        };
        while self.world.stage() < Stage::Leaving {
            let reason = match timeout(PATIENCE, Client::connect(&self.world.url, &identify)).await {
                Ok(Ok(connected)) => return Some(connected),
                Ok(Err(error)) => hints::told(&error),
                Err(_) => "no answer".to_owned(),
            };
            self.fault(Fault::Rejected, &reason);
            sleep(RETRY).await;
        }
        None
    }

    /// A session is kept for its window after its connection ended, and not for longer.
    fn judge_resume(&self, away: Option<&Away>, started: Instant, resumed: bool) {
        let expected = match away {
            None | Some(Away { parting: Parting::Left, .. }) => false,
            Some(Away { parting: Parting::TakenOver, .. }) => true,
            Some(away) if away.before.elapsed() < self.world.window() => true,
            Some(away) if started - away.after > self.world.window() + EXPIRY_SLACK => false,
            Some(_) => resumed,
        };
        if expected != resumed {
            let told = away.map(|away| format!("{:?} {:?} ago", away.parting, away.before.elapsed()));
            self.fault(Fault::WrongResume, &format!("resumed is {resumed}; its connection was {told:?}"));
        }
    }

    fn arrived(&mut self, desk: &Desk, accepted: Accepted) {
        count(&self.world.counts.connections);
        if accepted.resumed {
            count(&self.world.counts.resumed);
        }
        // What was sent until now may have been handed to the connection that ended.
        if self.connections > 0 {
            self.world.excuse(self.index);
        }
        self.connections += 1;
        self.world.set_window(accepted.resume_window_ms);
        self.checks.deliveries.connected(accepted.resumed);
        for id in accepted.shards {
            desk.got_shard(id);
            let kept = lock(&self.world.leases).kept(id, self.index, Instant::now());
            if let Err(fault) = kept {
                self.fault(fault, &format!("shard {id} in ACCEPT"));
            }
        }
        self.secret = Some(accepted.session);
        self.world.set_connected(self.index, true);
    }

    /// Reads what the connection of old was still handed.
    async fn drain(&mut self, old: Connected) {
        // Its mistakes may still be answered. Dropped, its half that writes would end it.
        let Connected { mut receiver, desk, sender: _sender } = old;
        let random = self.random.fork();
        let mut reader =
            Reader { world: &self.world, index: self.index, checks: &mut self.checks, desk: &desk };
        let end = timeout(PATIENCE, reader.run(&mut receiver, random)).await;
        let end = end.unwrap_or_else(|_| "nothing".to_owned());
        if !end.contains("4010") {
            self.fault(Fault::Ended, &format!("{end}, where it was taken over"));
        }
    }

    /// Works until it is time to end. `None`: the soak is over.
    async fn serve(&mut self, connected: Connected) -> Option<Away> {
        let Connected { mut sender, mut receiver, desk } = connected;
        let (world, index, connection) = (Arc::clone(&self.world), self.index, self.connections);
        let (lasts, pauses) = (self.lasts(), self.random.fork());
        let mut reader = Reader { world: &world, index, checks: &mut self.checks, desk: &desk };
        let mut writer = Writer { world: &world, index, connection, desk: &desk, random: &mut self.random };
        let ended = tokio::select! {
            ended = reader.run(&mut receiver, pauses) => Some(ended),
            ended = writer.run(&mut sender) => Some(ended),
            () = lasting(lasts, world.stage.clone()) => None,
            () = all_done(&desk, world.stage.clone()) => None,
        };
        if let Some(ended) = ended {
            self.fault(Fault::Ended, &ended);
            self.gone(&desk);
            let now = Instant::now();
            let (parting, knows_secret) = (Parting::Cut, false);
            return Some(Away { parting, before: now, after: now, pause: RETRY, knows_secret, old: None });
        }
        if world.stage() == Stage::Leaving {
            let unanswered = desk.unanswered();
            world.faults.add_many(Fault::Unanswered, unanswered, || world.name(index));
            self.leave(sender, receiver, &desk, LEAVES_FOR_GOOD).await;
            return None;
        }
        Some(self.part(Connected { sender, receiver, desk }).await)
    }

    fn lasts(&mut self) -> Option<Duration> {
        let is_restless = self.world.role(self.index).is_restless;
        is_restless.then(|| Duration::from_millis(self.random.u64(LASTS_MS)))
    }

    /// Ends the connection in one of the ways that there are.
    async fn part(&mut self, connected: Connected) -> Away {
        let Connected { sender, receiver, desk } = connected;
        let soon = self.world.window().mul_f64(self.random.f64() / 2.0);
        let late = self.world.window() + EXPIRY_SLACK + Duration::from_millis(self.random.u64(100..2_000));
        let (parting, pause) = match self.random.u32(0..10) {
            0..3 => (Parting::Cut, soon),
            3 => (Parting::Closed, soon),
            4..6 => (Parting::TakenOver, Duration::ZERO),
            6..8 => (Parting::Left, soon),
            _ => (Parting::Cut, late),
        };
        let knows_secret = parting == Parting::TakenOver || self.random.bool();
        let before = Instant::now();
        let mut old = None;
        match parting {
            Parting::Cut => {
                self.gone(&desk);
                drop((sender, receiver));
            }
            Parting::Closed => self.leave(sender, receiver, &desk, COMES_BACK).await,
            Parting::Left => self.leave(sender, receiver, &desk, LEAVES_FOR_GOOD).await,
            Parting::TakenOver => {
                self.world.excuse(self.index);
                old = Some(Connected { sender, receiver, desk });
            }
        }
        Away { parting, before, after: Instant::now(), pause, knows_secret, old }
    }

    /// Closes, and waits for the other side's close.
    async fn leave(&mut self, mut sender: Sender, mut receiver: Receiver, desk: &Desk, code: u16) {
        self.gone(desk);
        if code == LEAVES_FOR_GOOD {
            for id in desk.shards() {
                lock(&self.world.leases).leaves(id, self.index, Instant::now());
            }
        }
        let closed = async {
            sender.close(code).await?;
            while receiver.next_text().await?.is_some() {}
            Ok::<_, crate::client::ClientError>(())
        };
        match timeout(PATIENCE, closed).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.fault(Fault::Ended, &format!("{error}, after it closed with {code}")),
            Err(_) => self.fault(Fault::Ended, &format!("no answer to its close with {code}")),
        }
    }

    /// Its connection ends now, or has just ended.
    fn gone(&self, desk: &Desk) {
        self.world.set_connected(self.index, false);
        self.world.excuse(self.index);
        for id in desk.shards() {
            lock(&self.world.leases).leaves(id, self.index, Instant::now() + self.world.window());
        }
    }

    fn fault(&self, fault: Fault, told: &str) {
        let (name, role) = (self.world.name(self.index), self.world.role(self.index));
        self.world.faults.add(fault, || format!("{name} ({:?}): {told}", role.kind));
    }
}

/// Ends so long after the soak runs; never where there is no time, or once it settles.
async fn lasting(time: Option<Duration>, mut stage: watch::Receiver<Stage>) {
    let Some(time) = time else { return std::future::pending().await };
    let _ = stage.wait_for(|stage| *stage >= Stage::Running).await;
    sleep(time).await;
    if *stage.borrow() >= Stage::Settling {
        std::future::pending::<()>().await;
    }
}

/// Ends once the soak is over and the last mistake is answered, or will not be.
async fn all_done(desk: &Desk, mut stage: watch::Receiver<Stage>) {
    let _ = stage.wait_for(|stage| *stage == Stage::Leaving).await;
    let over = Instant::now();
    while desk.unanswered() > 0 && over.elapsed() < PATIENCE {
        sleep(Duration::from_millis(20)).await;
    }
}
