//! Shard ids: asked for, paced, kept, lost, and changed in number.

mod budget;
mod leases;
mod losing;
mod operating;
mod pacing;
mod resharding;

use serde_json::{Value, json};

use crate::support::{Gateway, Service, eventually};

/// Asks for any id.
fn ask(service: &mut Service) {
    service.send_op(&json!({"opcode": 10}));
}

/// Asks for any id and gets it at once; SHARD_ACCEPT.
fn connect(service: &mut Service) -> Value {
    ask(service);
    service.expect_op(11)
}

/// The next SHARD_ACCEPT, however often it is told to wait before.
fn granted(service: &mut Service) -> Value {
    loop {
        let op = service.next().json["d"].clone();
        if op["opcode"] != 30 {
            assert_eq!(op["opcode"], 11, "{op}");
            return op;
        }
    }
}

/// SHARD_DEATH with these fields, of a service that holds the id; it is gone then.
fn give_back(gateway: &Gateway, service: &mut Service, id: u32, mut fields: Value) {
    let deaths = || shard(gateway, id)["deaths"].as_u64().unwrap();
    let before = deaths();
    (fields["opcode"], fields["shard_id"]) = (json!(12), json!(id));
    service.send_op(&fields);
    eventually(&format!("shard {id} died"), || (deaths() > before).then_some(()));
}

/// What `/api/v1/shards` says of an id of the current generation.
fn shard(gateway: &Gateway, id: u32) -> Value {
    let shards = gateway.get_json("/api/v1/shards");
    let found =
        shards["shards"].as_array().unwrap().iter().find(|shard| {
            (&shard["shard_id"], &shard["shard_count"]) == (&json!(id), &shards["shard_count"])
        });
    found.unwrap_or_else(|| panic!("shard {id} is not in {shards}")).clone()
}

fn wait_for_state(gateway: &Gateway, id: u32, state: &str) {
    eventually(&format!("shard {id} is {state}"), || (shard(gateway, id)["state"] == state).then_some(()));
}

fn watcher(gateway: &Gateway, pattern: &str) -> Service {
    let mut watcher = gateway.service("watcher");
    watcher.send_op(&json!({"opcode": 23, "services": pattern}));
    watcher
}

/// Waits until the watcher is told that the service did that; PRESENCE.
fn expect_event(watcher: &mut Service, service: &str, event: &str) -> Value {
    loop {
        let presence = watcher.expect_op(24);
        if presence["service"] == service && presence["event"] == event {
            return presence;
        }
    }
}
