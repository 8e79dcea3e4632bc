//! One service tells much of its shards: others are served still, and what waits is bounded.

use serde_json::json;
use tempfile::TempDir;

use crate::shard_store::{limit_files, to_be_limited};
#[cfg(feature = "fault-injection")]
use crate::support::eventually;
use crate::support::{Gateway, Service};

fn start(directory: &TempDir) -> Gateway {
    let data_dir = format!("--data-dir={}", directory.path().display());
    let flags = ["--shards=2", "--max-concurrency=2", &data_dir];
    Gateway::start_as(&mut to_be_limited(), "127.0.0.1:0", &flags)
}

/// Asks for an id, and waits for it.
fn connect(service: &mut Service) {
    service.send_op(&json!({"opcode": 10}));
    wait_for_id(service);
}

fn wait_for_id(service: &mut Service) {
    loop {
        let op = service.next().data().clone();
        match op["opcode"].as_u64() {
            Some(11) => return,
            Some(30) => {}
            _ => panic!("{op}"),
        }
    }
}

/// Each of them changes what is stored.
fn flood(holder: &mut Service, states: usize) {
    for seq in 0..states {
        holder.send_op(&json!({"opcode": 31, "shard_id": 0, "state": "ready", "resume": {"seq": seq}}));
    }
}

#[cfg(feature = "fault-injection")]
#[test]
fn what_one_service_tells_at_once_costs_the_others_no_write_for_each() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = start(&directory);
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    connect(&mut a);
    // Each write takes a second, and nobody waits for 200 of them.
    a.send_op(&json!({"panic": "slow_disk"}));
    flood(&mut a, 200);
    // Answered behind them.
    a.send_op(&json!({"opcode": 12, "shard_id": 1}));
    a.expect_error("not_shard_holder");
    connect(&mut b);
}

/// Where the pool's time stood still for each write, it would never be time for the next permit.
#[cfg(feature = "fault-injection")]
#[test]
fn a_holder_that_has_much_stored_keeps_no_permit_back_on_a_busy_disk() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = format!("--data-dir={}", directory.path().display());
    let gateway = Gateway::start(&["--shards=2", "--identify-interval-ms=2000", &data_dir]);
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    a.send_op(&json!({"panic": "busy_disk"}));
    connect(&mut a);
    a.send_op(&json!({"opcode": 31, "shard_id": 0, "state": "identifying"}));
    b.send_op(&json!({"opcode": 10}));
    let mut states = ["ready", "resumed"].into_iter().cycle();
    let accept = eventually("the second permit comes", || {
        // There is always one to be stored.
        a.send_op(&json!({"opcode": 31, "shard_id": 0, "state": states.next()}));
        b.poll().unwrap().filter(|message| message.data()["opcode"] == 11)
    });
    assert_eq!(accept.data()["shard_id"], 1);
}

#[test]
fn of_a_service_that_comes_back_with_ever_more_only_so_many_ops_wait() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = start(&directory);
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    connect(&mut a);
    limit_files(&gateway, "0");
    for _ in 0..2 {
        flood(&mut a, 1000);
        // All of them have been read when this is answered.
        a.send_op(&json!({"opcode": 99}));
        a.expect_error("unknown_op");
        a.vanish();
        a = gateway.service("a");
    }
    flood(&mut a, 1000);
    let refused = a.expect_error("at_capacity");
    assert_eq!(
        refused["message"],
        "2048 ops of this service about shard ids wait already; send it again later"
    );
    // There is room for the others, and the disk recovers.
    b.send_op(&json!({"opcode": 10}));
    assert_eq!(b.expect_op(30)["reason"], "frozen");
    limit_files(&gateway, "unlimited");
    wait_for_id(&mut b);
}
