//! Shards of a real library, twilight's, as the gateway hands their ids out.

use gateway_discord_tests::Settings;

use crate::processes::{Gateway, Library, Shards, eventually, fake};
use crate::world::{FAKE_INTERVAL, PACED, World};

/// A day in the life of a bot: it starts, loses connections, is told to reconnect, crashes, is
/// redeployed, and has to start over.
async fn live(max_concurrency: u32, shards: u32) {
    let mut world = World::start(max_concurrency, shards).await;
    let all = u64::from(shards);
    world.counted("started", shards, (all, 0)).await;

    world.fake.drop_connections();
    world.fake.say("while away");
    world.counted("connections were lost", shards, (all, all)).await;
    world.every_shard_hears_once("while away", shards).await;

    world.fake.ask_to_reconnect();
    world.counted("told to reconnect", shards, (all, 2 * all)).await;

    for number in [2, 1] {
        world.processes.remove(number).kill().await;
        world.processes.push(world.spawn(&format!("process-{number}")));
    }
    world.counted("two processes were killed", shards, (all, 2 * all + 8)).await;

    let spare = world.spawn("spare");
    world.processes.remove(0).leave().await;
    world.processes.push(spare);
    world.counted("one process gave its shards back", shards, (all, 2 * all + 12)).await;

    world.fake.invalidate_sessions();
    world.counted("all sessions were ended", shards, (2 * all, 2 * all + 12)).await;
    world.fake.say("in the end");
    world.every_shard_hears_once("in the end", shards).await;
    world.assert_no_violations();
    assert!(!world.gateway.log().contains("panicked"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_one_at_a_time_violate_no_rule_of_discords() {
    live(1, 12).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_four_at_a_time_violate_no_rule_of_discords() {
    live(4, 16).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_pacing_discord_would_see_it() {
    let settings = Settings { shards: 4, identify_interval: FAKE_INTERVAL, ..Settings::default() };
    let fake = fake(settings).await;
    let gateway = Gateway::spawn(&fake, &["--shards=auto", "--identify-interval-ms=0"]);
    let _shards = Shards::spawn(Library::Twilight, &gateway.url().await, &fake, "process", 4);
    eventually("a violation", || (!fake.violations().is_empty()).then_some(())).await;
    assert!(fake.violations()[0].contains("of the same key 0"), "{:?}", fake.violations());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_discord_wants_nobody_to_try_again_freezes_the_pool() {
    let settings = Settings { shards: 1, identify_interval: FAKE_INTERVAL, ..Settings::default() };
    let fake = fake(settings).await;
    let gateway = Gateway::spawn(&fake, &PACED);
    let _shards = Shards::spawn(Library::Twilight, &gateway.url().await, &fake, "process", 1);
    eventually("the shard is connected", || (fake.connected() == [(0, 1)]).then_some(())).await;
    fake.close_connections(4014);
    gateway.wait_for_log("Discord closed shard 0/1 with 4014").await;
}
