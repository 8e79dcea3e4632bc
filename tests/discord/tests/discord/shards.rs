//! Shards of a real library, twilight's, as the gateway hands their ids out.

use std::time::Duration;

use gateway_discord_tests::{Fake, Settings};
use serde_json::Value;

use crate::processes::{Gateway, Shards, eventually, fake};

const SHARDS: u32 = 16;
const FOR_EACH_PROCESS: u32 = 4;

/// Discord's 5 s, scaled down. The gateway's 5.5 s are scaled less, so that what lies between them is
/// enough for a loaded machine. A permit is good for less than the interval, as with Discord: twilight
/// takes a second from its lease to its IDENTIFY.
const FAKE_INTERVAL: Duration = Duration::from_millis(500);
const PACED: [&str; 3] = ["--shards=auto", "--identify-interval-ms=1500", "--permit-ttl-ms=1400"];

/// A bot, and where it lives.
struct World {
    fake: Fake,
    gateway: Gateway,
    url: String,
    processes: Vec<Shards>,
}

impl World {
    /// Starts all its shards, and waits until they are connected.
    async fn start(max_concurrency: u32, shards: u32) -> Self {
        let identify_interval = FAKE_INTERVAL;
        let settings = Settings { shards, max_concurrency, identify_interval, ..Settings::default() };
        let fake = fake(settings).await;
        let gateway = Gateway::spawn(&fake, &PACED);
        let url = gateway.url().await;
        let mut world = Self { fake, gateway, url, processes: Vec::new() };
        for number in 0..shards / FOR_EACH_PROCESS {
            world.processes.push(world.spawn(&format!("process-{number}")));
        }
        world.all_connected("the shards start").await;
        world
    }

    fn spawn(&self, name: &str) -> Shards {
        Shards::spawn(&self.url, &self.fake, name, FOR_EACH_PROCESS as usize)
    }

    /// Each id once, and nothing against the rules.
    async fn all_connected(&self, what: &str) {
        let shards = self.fake.report()["connected"].as_array().map_or(0, Vec::len);
        let what = format!("all are connected: {what} ({shards} at first)");
        let is_over = || self.is_complete() || !self.fake.violations().is_empty();
        eventually(&what, || is_over().then_some(())).await;
        self.assert_no_violations();
    }

    fn is_complete(&self) -> bool {
        let connected = self.fake.connected();
        connected.iter().map(|(id, _)| *id).eq(0..SHARDS) && connected.iter().all(|it| it.1 == SHARDS)
    }

    /// Waits for so many IDENTIFYs and RESUMEs in all.
    async fn counted(&self, what: &str, expected: (u64, u64)) {
        let is_over = || {
            let (identifies, resumes) = self.fake.counts();
            identifies >= expected.0 && resumes >= expected.1 || !self.fake.violations().is_empty()
        };
        eventually(&format!("{what}: {expected:?} IDENTIFYs and RESUMEs"), || is_over().then_some(())).await;
        self.all_connected(what).await;
        assert_eq!(self.fake.counts(), expected, "{what}: IDENTIFYs and RESUMEs");
    }

    fn assert_no_violations(&self) {
        assert_eq!(self.fake.violations(), Vec::<String>::new());
    }

    /// Which shards heard that text, over all processes that live.
    fn heard(&self, text: &str) -> Vec<u64> {
        let text = Value::from(text);
        let mut shards: Vec<u64> = self.processes.iter().flat_map(|it| it.had("FAKE_SAYS", &text)).collect();
        shards.sort_unstable();
        shards
    }

    async fn every_shard_hears_once(&self, text: &str) {
        let everyone: Vec<u64> = (0..u64::from(SHARDS)).collect();
        eventually(&format!("all hear {text:?}"), || {
            (self.heard(text).len() >= everyone.len()).then_some(())
        })
        .await;
        assert_eq!(self.heard(text), everyone);
    }
}

/// A day in the life of a bot: it starts, loses connections, is told to reconnect, crashes, is
/// redeployed, and has to start over.
async fn live(max_concurrency: u32) {
    let mut world = World::start(max_concurrency, SHARDS).await;
    world.counted("started", (16, 0)).await;

    world.fake.drop_connections();
    world.fake.say("while away");
    world.counted("connections were lost", (16, 16)).await;
    world.every_shard_hears_once("while away").await;

    world.fake.ask_to_reconnect();
    world.counted("told to reconnect", (16, 32)).await;

    for number in [2, 1] {
        world.processes.remove(number).kill().await;
        world.processes.push(world.spawn(&format!("process-{number}")));
    }
    world.counted("two processes were killed", (16, 40)).await;

    let spare = world.spawn("spare");
    world.processes.remove(0).leave().await;
    world.processes.push(spare);
    world.counted("one process gave its shards back", (16, 44)).await;

    world.fake.invalidate_sessions();
    world.counted("all sessions were ended", (32, 44)).await;
    world.fake.say("in the end");
    world.every_shard_hears_once("in the end").await;
    world.assert_no_violations();
    assert!(!world.gateway.log().contains("panicked"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_one_at_a_time_violate_no_rule_of_discords() {
    live(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_four_at_a_time_violate_no_rule_of_discords() {
    live(4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_pacing_discord_would_see_it() {
    let settings = Settings { shards: 4, identify_interval: FAKE_INTERVAL, ..Settings::default() };
    let fake = fake(settings).await;
    let gateway = Gateway::spawn(&fake, &["--shards=auto", "--identify-interval-ms=0"]);
    let _shards = Shards::spawn(&gateway.url().await, &fake, "process", 4);
    eventually("a violation", || (!fake.violations().is_empty()).then_some(())).await;
    assert!(fake.violations()[0].contains("of the same key 0"), "{:?}", fake.violations());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_discord_wants_nobody_to_try_again_freezes_the_pool() {
    let settings = Settings { shards: 1, identify_interval: FAKE_INTERVAL, ..Settings::default() };
    let fake = fake(settings).await;
    let gateway = Gateway::spawn(&fake, &PACED);
    let _shards = Shards::spawn(&gateway.url().await, &fake, "process", 1);
    eventually("the shard is connected", || (fake.connected() == [(0, 1)]).then_some(())).await;
    fake.close_connections(4014);
    gateway.wait_for_log("Discord closed shard 0/1 with 4014").await;
}
