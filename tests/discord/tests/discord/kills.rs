//! The gateway is killed at random moments, over and over, while a bot's shards lease ids and IDENTIFY;
//! some of its processes are killed too. The seed is told. The fake Discord is the judge: of the
//! distance between two IDENTIFYs of one key, of sessions, and of the daily limit.

use std::ops::Range;
use std::time::{Duration, Instant};

use gateway_discord_tests::Http;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::processes::PATIENCE;
use crate::world::World;

/// Bots side by side, and how often the gateway of each is killed.
const BOTS: u64 = 4;
const KILLS: u32 = 8;

const SHARDS: u32 = 32;
const MAX_CONCURRENCY: u32 = 16;

/// How long after the sessions have ended a kill comes: not before twilight is back, after a second,
/// and not after the last permit.
const KILL_MS: Range<u64> = 1_000..3_000;

/// Session starts that are left for a part of the shards.
const LEFT: u64 = 20;

struct Story {
    world: World,
    dice: fastrand::Rng,
    /// Kills while some shard was not connected.
    amid: u32,
}

impl Story {
    async fn begin(seed: u64) -> Self {
        let mut world = World::new(MAX_CONCURRENCY, SHARDS).await;
        world.spawn_all("process", SHARDS);
        Self { world, dice: fastrand::Rng::with_seed(seed), amid: 0 }
    }

    /// All shards have to IDENTIFY, and the gateway is killed amid that.
    async fn round(&mut self) {
        if self.dice.bool() {
            self.kill_a_process().await;
        }
        self.kill_in(KILL_MS).await;
        self.world.start_gateway().await;
        self.world.all_connected("after a kill", SHARDS).await;
        self.world.fake.invalidate_sessions();
    }

    async fn kill_in(&mut self, ms: Range<u64>) {
        tokio::time::sleep(Duration::from_millis(self.dice.u64(ms))).await;
        self.world.kill_gateway().await;
        self.amid += u32::from(!self.world.is_complete(SHARDS));
    }

    /// It comes back under its name, and has the ids that it had.
    async fn kill_a_process(&mut self) {
        let number = self.dice.usize(..self.world.processes.len());
        let process = self.world.processes.remove(number);
        let name = process.name().to_owned();
        process.kill().await;
        let again = self.world.spawn(&name);
        self.world.processes.insert(number, again);
    }

    /// All shards have to IDENTIFY and a part of them may. The gateway is killed amid that, and the next
    /// one is not told by Discord what is left. Then a new day begins.
    async fn a_day_that_ends_early(&mut self) {
        self.world.kill_gateway().await;
        self.world.fake.change(|settings| settings.remaining = LEFT);
        self.world.start_gateway().await;
        self.kill_in(0..1_500).await;
        self.world.fake.set_http(Http::Status(503));
        self.world.start_gateway().await;
        self.all_is_used_up().await;
        self.kill_in(0..1_000).await;
        self.world.fake.set_http(Http::Answer);
        self.world.start_gateway().await;
        // Less those permits that were lost with a gateway.
        self.all_is_used_up().await;
        self.kill_in(0..1_000).await;
        self.world.fake.change(|settings| {
            assert!(settings.remaining < LEFT / 2, "{} starts were not used", settings.remaining);
            settings.remaining = settings.total;
        });
        self.world.start_gateway().await;
        self.world.all_connected("on a new day", SHARDS).await;
    }

    async fn all_is_used_up(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (_, report) = self.world.gateway.http("GET", "/api/v1/shards", "").await;
            self.world.assert_no_violations();
            if report["budget"]["remaining"] == 0 {
                return;
            }
            assert!(Instant::now() < deadline, "session starts are left: {report}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn live(mut self) -> u32 {
        for _ in 0..KILLS {
            self.round().await;
        }
        let amid = self.amid;
        self.a_day_that_ends_early().await;
        self.world.fake.say("in the end");
        self.world.every_shard_hears_once("in the end", SHARDS).await;
        let everyone: Vec<u64> = (0..u64::from(SHARDS)).collect();
        assert_eq!(self.world.had("LEASED", &Value::Null), everyone, "each id is leased once");
        self.world.assert_no_violations();
        amid
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_the_gateway_amid_connecting_shards_let_none_of_them_violate_a_rule_of_discords() {
    let seed = std::env::var("GATEWAY_KILL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("GATEWAY_KILL_SEED={seed}");
    let mut bots = JoinSet::new();
    for number in 0..BOTS {
        bots.spawn(async move { Story::begin(seed + number).await.live().await });
    }
    while let Some(amid) = bots.join_next().await {
        let amid = amid.unwrap_or_else(|_| panic!("with GATEWAY_KILL_SEED={seed}, see above"));
        println!("{amid} of {KILLS} kills while some shard was not connected");
        assert!(amid > KILLS / 2, "too few kills came while shards connected");
    }
}
