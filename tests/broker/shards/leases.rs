//! Who gets which id, and in which order.

use serde_json::json;

use super::{ask, connect, expect_event, give_back, granted, wait_for_state, watcher};
use crate::support::{Gateway, Service};

#[test]
fn the_lowest_free_id_is_leased() {
    let gateway = Gateway::start(&["--shards=2", "--max-concurrency=16"]);
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    let expected = json!({"opcode": 11, "shard_id": 0, "shard_count": 2, "epoch": 1, "max_concurrency": 16});
    assert_eq!(connect(&mut a), expected);
    b.send_op(&json!({"opcode": "10"}));
    assert_eq!(b.expect_op(11)["shard_id"], 1);
    assert_eq!(gateway.metric("gateway_shards", "leased"), 2);
}

#[test]
fn a_restarted_process_that_knows_only_the_founding_ops_keeps_its_id() {
    let gateway = Gateway::start(&["--shards=3"]);
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    connect(&mut a);
    assert_eq!(connect(&mut b)["shard_id"], 1);
    b.vanish();
    let mut b = gateway.connect();
    let accept = b.identify("b");
    assert_eq!((&accept["resumed"], &accept["shards"]), (&json!(true), &json!([1])));
    let lease = connect(&mut b);
    assert_eq!((&lease["shard_id"], &lease["epoch"]), (&json!(1), &json!(1)), "the same lease");
    // Once all of its own are claimed it gets another.
    assert_eq!(connect(&mut b)["shard_id"], 2);
}

#[test]
fn the_id_held_last_is_preferred() {
    let gateway = Gateway::start(&["--shards=4"]);
    let mut others: Vec<Service> = (0..4).map(|index| gateway.service(&format!("s{index}"))).collect();
    for (index, other) in others.iter_mut().enumerate() {
        assert_eq!(connect(other)["shard_id"], index);
    }
    for (id, other) in (0..).zip(&mut others).skip(1) {
        give_back(&gateway, other, id, json!({}));
    }
    let lease = connect(&mut others[3]);
    assert_eq!((&lease["shard_id"], &lease["epoch"]), (&json!(3), &json!(2)), "a new lease of it");
}

#[test]
fn who_finds_none_free_waits_and_is_served_in_order() {
    let gateway = Gateway::start(&["--shards=1"]);
    let mut holder = gateway.service("holder");
    connect(&mut holder);
    let (mut first, mut second) = (gateway.service("first"), gateway.service("second"));
    for (service, position) in [(&mut first, 1), (&mut second, 2)] {
        service.send_op(&json!({"opcode": 10}));
        let wait = service.expect_op(30);
        assert_eq!((&wait["reason"], &wait["position"]), (&json!("no_free_shard"), &json!(position)));
    }
    holder.send_op(&json!({"opcode": 12, "close_code": 1000}));
    assert_eq!(first.expect_op(11)["epoch"], 2);
    assert_eq!(second.expect_op(30)["position"], 1);
    first.close(4000);
    assert_eq!(second.expect_op(11)["epoch"], 3);
}

#[test]
fn a_waiting_service_that_goes_away_loses_its_place() {
    let gateway = Gateway::start(&["--shards=1"]);
    let mut holder = gateway.service("holder");
    connect(&mut holder);
    let mut first = gateway.service("first");
    first.send_op(&json!({"opcode": 10}));
    first.expect_op(30);
    let mut second = gateway.service("second");
    second.send_op(&json!({"opcode": 10}));
    assert_eq!(second.expect_op(30)["position"], 2);
    first.vanish();
    assert_eq!(second.expect_op(30)["position"], 1);
    holder.send_op(&json!({"opcode": 12}));
    second.expect_op(11);
    // It comes back and waits anew.
    let mut first = gateway.service("first");
    first.send_op(&json!({"opcode": 10}));
    assert_eq!(first.expect_op(30)["position"], 1);
}

#[test]
fn a_given_id_can_be_claimed() {
    let gateway = Gateway::start(&["--shards=4"]);
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    let claim = json!({"opcode": 10, "shard_id": 2, "shard_count": 4, "identify": false});
    a.send_op(&claim);
    assert_eq!(a.expect_op(11)["shard_id"], 2);
    a.send_op(&claim);
    assert_eq!(a.expect_op(11)["epoch"], 1, "a fresh permit for the same lease");
    b.send_op(&claim);
    b.expect_op(30);
    b.send_op(&json!({"opcode": 10, "shard_id": 2, "shard_count": 5}));
    b.expect_error("stale_shard");
    b.send_op(&json!({"opcode": 10, "shard_id": 4, "shard_count": 4}));
    b.expect_error("malformed");
}

#[test]
fn only_the_holder_can_give_an_id_back() {
    let gateway = Gateway::start(&["--shards=2"]);
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    connect(&mut a);
    b.send_op(&json!({"opcode": 12, "shard_id": 0}));
    b.expect_error("not_shard_holder");
    b.send_op(&json!({"opcode": 12}));
    b.expect_error("not_shard_holder");
    connect(&mut a);
    a.send_op(&json!({"opcode": 12}));
    let error = a.expect_error("malformed");
    assert!(error["message"].as_str().unwrap().contains("shard_id"), "{error}");
    give_back(&gateway, &mut a, 1, json!({}));
    assert_eq!(connect(&mut b)["shard_id"], 1);
}

#[test]
fn a_service_may_hold_several_ids_and_is_told_all_of_them() {
    let gateway = Gateway::start(&["--shards=3"]);
    let mut watcher = watcher(&gateway, "a");
    let mut a = gateway.service("a");
    for id in 0..3 {
        assert_eq!(connect(&mut a)["shard_id"], id);
    }
    ask(&mut a);
    assert_eq!(a.expect_op(30)["reason"], "no_free_shard");
    assert_eq!(gateway.get_json("/api/v1/services/a")["shards"], json!([0, 1, 2]));
    a.vanish();
    assert_eq!(expect_event(&mut watcher, "a", "away")["shards"], json!([0, 1, 2]));
    assert_eq!(gateway.connect().identify("a")["shards"], json!([0, 1, 2]));
    assert_eq!(expect_event(&mut watcher, "a", "resumed")["shards"], json!([0, 1, 2]));
}

#[test]
fn after_a_resume_its_own_ids_come_before_any_other() {
    let gateway = Gateway::start(&["--shards=3"]);
    let (mut b, mut a) = (gateway.service("b"), gateway.service("a"));
    assert_eq!(connect(&mut b)["shard_id"], 0);
    assert_eq!(
        (connect(&mut a)["shard_id"].as_u64(), connect(&mut a)["shard_id"].as_u64()),
        (Some(1), Some(2))
    );
    b.close(4000);
    wait_for_state(&gateway, 0, "free");
    a.vanish();
    wait_for_state(&gateway, 1, "away");
    let mut a = gateway.connect();
    assert_eq!(a.identify("a")["shards"], json!([1, 2]));
    for (id, epoch) in [(1, 1), (2, 1), (0, 2)] {
        let lease = connect(&mut a);
        assert_eq!((&lease["shard_id"], &lease["epoch"]), (&json!(id), &json!(epoch)));
    }
}

#[test]
fn a_claim_waits_for_its_own_id_only() {
    let gateway = Gateway::start(&["--shards=3"]);
    let (mut a, mut b, mut c) = (gateway.service("a"), gateway.service("b"), gateway.service("c"));
    connect(&mut a);
    assert_eq!(connect(&mut a)["shard_id"], 1);
    b.send_op(&json!({"opcode": 10, "shard_id": 1, "shard_count": 3}));
    b.expect_op(30);
    assert_eq!(connect(&mut c)["shard_id"], 2, "who asks for any does not wait behind it");
    give_back(&gateway, &mut a, 0, json!({}));
    b.expect_nothing();
    give_back(&gateway, &mut a, 1, json!({}));
    assert_eq!(granted(&mut b)["shard_id"], 1);
}
