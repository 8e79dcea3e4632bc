//! Shards of a library in another language, that shares nothing with the gateway but the protocol.

use serde_json::{Value, json};

use crate::processes::{Library, eventually};
use crate::world::World;

const SHARDS: u32 = 12;
const MAX_CONCURRENCY: u32 = 4;

/// So that the ids of a process that was killed are another's after some seconds.
const FLAGS: [&str; 2] = ["--resume-window-ms=6000", "--heartbeat-ms=2000"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Node and @discordjs/ws, which tests/run installs"]
async fn shards_of_discordjs_violate_no_rule_of_discords() {
    let mut world = World::of(Library::DiscordJs, &FLAGS, MAX_CONCURRENCY, SHARDS).await;
    world.spawn_all("process", SHARDS);
    world.counted("started", SHARDS, (12, 0)).await;

    world.fake.drop_connections();
    world.fake.say("while away");
    world.counted("connections were lost", SHARDS, (12, 12)).await;
    world.every_shard_hears_once("while away", SHARDS).await;

    world.fake.ask_to_reconnect();
    world.counted("told to reconnect", SHARDS, (12, 24)).await;

    // Its ids move on, and so do their sessions: with a new epoch each.
    let killed = world.processes.remove(1);
    let moved = killed.had("LEASED", &Value::Null);
    killed.kill().await;
    world.fake.say("to nobody");
    world.processes.push(world.spawn("heir"));
    world.counted("a process was killed", SHARDS, (12, 28)).await;
    let heir = &world.processes[2];
    let is_heir =
        || heir.had("LEASED", &json!(2)) == moved && heir.had("FAKE_SAYS", &json!("to nobody")) == moved;
    eventually(&format!("{moved:?} are the heir's, sessions and all"), || is_heir().then_some(())).await;

    let spare = world.spawn("spare");
    world.processes.remove(0).leave().await;
    world.processes.push(spare);
    world.counted("a process gave its shards back", SHARDS, (12, 32)).await;

    world.fake.invalidate_sessions();
    world.kill_gateway().await;
    world.start_gateway().await;
    world.counted("all sessions were ended, and the gateway was killed", SHARDS, (24, 32)).await;
    world.fake.say("in the end");
    world.every_shard_hears_once("in the end", SHARDS).await;
    let everyone: Vec<u64> = (0..u64::from(SHARDS)).collect();
    assert_eq!(world.had("LEASED", &Value::Null), everyone, "each id is leased once");
    world.assert_no_violations();
}
