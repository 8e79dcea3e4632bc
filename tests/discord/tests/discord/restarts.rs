//! Shards of a real library while the gateway is killed, and while their number changes.

use gateway_discord_tests::Fake;
use serde_json::{Value, json};

use crate::processes::eventually;
use crate::world::World;

/// The ids from 0 on, each once.
fn each_once(shards: u32) -> Vec<u64> {
    (0..u64::from(shards)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_go_on_over_kills_of_the_gateway() {
    const SHARDS: u32 = 8;
    // So that a process has some of its shards, and waits for the others, when the gateway is killed.
    const MAX_CONCURRENCY: u32 = 2;
    let mut world = World::new(MAX_CONCURRENCY, SHARDS).await;
    world.spawn_all("process", SHARDS);
    let some = || !world.fake.connected().is_empty();
    eventually("the first shards are connected", || some().then_some(())).await;
    world.kill_gateway().await;
    assert!(!world.is_complete(SHARDS), "it was killed amid the start");
    world.start_gateway().await;
    world.counted("killed while they started", SHARDS, (8, 0)).await;

    // Who is connected to Discord needs no gateway: not to hear, and not to resume.
    world.kill_gateway().await;
    world.fake.say("without a gateway");
    world.every_shard_hears_once("without a gateway", SHARDS).await;
    world.fake.drop_connections();
    world.counted("connections were lost without a gateway", SHARDS, (8, 8)).await;
    // Who has to IDENTIFY waits for it.
    world.fake.invalidate_sessions();
    eventually("the sessions have ended", || world.fake.connected().is_empty().then_some(())).await;
    world.start_gateway().await;
    world.counted("sessions were ended without a gateway", SHARDS, (16, 8)).await;

    world.fake.say("in the end");
    world.every_shard_hears_once("in the end", SHARDS).await;
    assert_eq!(world.had("LEASED", &Value::Null), each_once(SHARDS), "each id was leased once");
    assert_eq!(world.had("LEASED", &json!(1)), each_once(SHARDS), "and has that lease still");
    world.assert_no_violations();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_reshard_leaves_only_the_new_shards_at_work_though_the_gateway_is_killed_amid_it() {
    const BEFORE: u32 = 8;
    const AFTER: u32 = 12;
    const MAX_CONCURRENCY: u32 = 4;
    let mut world = World::start(MAX_CONCURRENCY, BEFORE).await;
    let old = std::mem::take(&mut world.processes);
    let reshard = json!({"shard_count": AFTER, "mode": "rolling"}).to_string();
    let (status, plan) = world.gateway.http("POST", "/api/v1/shards/reshard", &reshard).await;
    assert_eq!((status, &plan["identifies"]), (202, &json!(AFTER)), "{plan}");

    world.spawn_all("new", AFTER);
    let new = |fake: &Fake| fake.connected().iter().filter(|shard| shard.1 == AFTER).count();
    eventually("the new shards begin to connect", || (new(&world.fake) > 0).then_some(())).await;
    world.fake.say("meanwhile");
    for process in &old {
        let heard = || process.had("FAKE_SAYS", &json!("meanwhile")).len();
        eventually("the old shards go on", || (heard() == 4).then_some(())).await;
    }
    world.kill_gateway().await;
    assert!(new(&world.fake) < AFTER as usize, "it was killed amid the reshard");
    assert_eq!(world.had("LIVE", &Value::Null), Vec::<u64>::new(), "not all of them are ready");
    world.start_gateway().await;

    world.counted("resharded", AFTER, (20, 0)).await;
    for mut process in old {
        process.ended().await;
        let is_revoked = || process.had("REVOKED", &json!(BEFORE)) == process.had("LEASED", &Value::Null);
        eventually("its ids are revoked", || is_revoked().then_some(())).await;
    }
    eventually("all are told to go on", || {
        (world.had("LIVE", &json!(AFTER)) == each_once(AFTER)).then_some(())
    })
    .await;
    assert_eq!(world.had("LEASED", &Value::Null), each_once(AFTER), "each new id was leased once");
    let (_, report) = world.gateway.http("GET", "/api/v1/shards", "").await;
    assert_eq!((&report["shard_count"], &report["reshard"]), (&json!(AFTER), &Value::Null));
    world.fake.say("after it");
    world.every_shard_hears_once("after it", AFTER).await;

    // What Discord recommends is still the old count: the stored one holds.
    world.kill_gateway().await;
    world.start_gateway().await;
    world.fake.drop_connections();
    world.counted("killed once more", AFTER, (20, 12)).await;
    assert_eq!(world.had("LEASED", &Value::Null), each_once(AFTER));
}
