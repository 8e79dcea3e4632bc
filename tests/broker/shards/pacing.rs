//! Permits to IDENTIFY to Discord, one by one.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{ask, connect, granted, wait_for_state};
use crate::support::Gateway;

const HOUR_MS: u64 = 3_600_000;

/// Whether it is that many hours, less the little that a test takes, and more by an interval of less
/// than a second.
fn is_hours(ms: &Value, hours: u64) -> bool {
    let ms = ms.as_u64().unwrap_or_else(|| panic!("expected ms, got {ms}"));
    (hours * HOUR_MS - 600_000..hours * HOUR_MS + 1_000).contains(&ms)
}

#[test]
fn a_permit_comes_no_sooner_than_the_interval_after_the_one_before() {
    let interval = Duration::from_millis(400);
    let gateway = Gateway::start(&["--shards=4", "--identify-interval-ms=400"]);
    let start = Instant::now();
    let mut waits = 0;
    for (index, name) in (0_u32..).zip(["a", "b", "c", "d"]) {
        let mut service = gateway.service(name);
        let asked = Instant::now();
        ask(&mut service);
        let mut answer = service.next().json["d"].clone();
        if answer["opcode"] == 30 {
            waits += 1;
            assert_eq!((&answer["reason"], &answer["position"]), (&json!("identify_rate_limit"), &json!(1)));
            let told = Duration::from_millis(answer["retry_after_ms"].as_u64().unwrap());
            assert!(told <= interval, "{name} is to wait for {told:?}");
            answer = granted(&mut service);
            assert!(asked.elapsed() >= told, "{name} was told to wait for {told:?}, and waited less");
        }
        assert_eq!(answer["shard_id"], index);
        // The gateway's clock has the resolution of 1 ms.
        let least = Duration::from_millis(399) * index;
        assert!(start.elapsed() >= least, "{name} had its permit after {:?}", start.elapsed());
    }
    assert!(waits > 0, "nobody had to wait");
    assert_eq!(gateway.metric("gateway_shard_permits_total", ""), 4);
}

#[test]
fn who_waits_for_a_permit_is_told_how_long() {
    let gateway = Gateway::start(&["--shards=3", "--identify-interval-ms=3600000"]);
    connect(&mut gateway.service("a"));
    let (mut b, mut c) = (gateway.service("b"), gateway.service("c"));
    for (service, position) in [(&mut b, 1), (&mut c, 2)] {
        ask(service);
        let wait = service.expect_op(30);
        assert_eq!((&wait["reason"], &wait["position"]), (&json!("identify_rate_limit"), &json!(position)));
        assert!(is_hours(&wait["retry_after_ms"], position), "{wait}");
    }
    let report = gateway.get_json("/api/v1/shards");
    assert_eq!(report["waiting"], json!({"identify_rate_limit": 2}));
    let awaits = &report["shards"][1]["awaits"];
    assert!(awaits["what"] == "identify_rate_limit" && is_hours(&awaits["in_ms"], 1), "{awaits}");
    assert_eq!(gateway.metric("gateway_shard_requests_waiting", "identify_rate_limit"), 2);
}

#[test]
fn keys_do_not_wait_for_each_other_and_go_in_order() {
    let flags = ["--shards=6", "--max-concurrency=3", "--identify-interval-ms=3600000"];
    let gateway = Gateway::start(&flags);
    let (mut a, mut b, mut c) = (gateway.service("a"), gateway.service("b"), gateway.service("c"));
    assert_eq!(connect(&mut a)["shard_id"], 0);
    b.send_op(&json!({"opcode": 10, "shard_id": 3, "shard_count": 6}));
    assert_eq!(b.expect_op(30)["reason"], "identify_rate_limit", "0 and 3 have the same key");
    assert_eq!(connect(&mut c)["shard_id"], 1);
    assert_eq!(connect(&mut a)["shard_id"], 2);
    ask(&mut c);
    assert_eq!(c.expect_op(30)["reason"], "identify_rate_limit", "all keys are closed");
}

#[test]
fn keys_that_open_are_served_in_order() {
    let flags = ["--shards=6", "--max-concurrency=2", "--identify-interval-ms=300"];
    let gateway = Gateway::start(&flags);
    let mut service = gateway.service("a");
    for _ in 0..6 {
        ask(&mut service);
    }
    let ids: Vec<_> = (0..6).map(|_| granted(&mut service)["shard_id"].clone()).collect();
    assert_eq!(ids, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_shard_that_need_not_identify_needs_no_permit() {
    let gateway = Gateway::start(&["--shards=4", "--identify-interval-ms=3600000"]);
    let (mut a, mut b, mut c) = (gateway.service("a"), gateway.service("b"), gateway.service("c"));
    connect(&mut a);
    b.send_op(&json!({"opcode": 10, "shard_id": 1, "shard_count": 4}));
    assert_eq!(b.expect_op(30)["reason"], "identify_rate_limit");
    c.send_op(&json!({"opcode": 10, "shard_id": 2, "shard_count": 4, "identify": false}));
    assert_eq!(c.expect_op(11)["shard_id"], 2);
    assert_eq!(gateway.metric("gateway_shard_permits_total", ""), 1);
    // Without an id it is a request like any other: nobody can be connected with an id that is free.
    c.send_op(&json!({"opcode": 10, "identify": false}));
    assert_eq!(c.expect_op(30)["reason"], "identify_rate_limit");
}

#[test]
fn who_reports_identifying_lets_the_next_one_come_an_interval_later() {
    let flags = ["--shards=3", "--identify-interval-ms=200", "--permit-ttl-ms=3600000"];
    let gateway = Gateway::start(&flags);
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    connect(&mut a);
    a.send_op(&json!({"opcode": 31, "shard_id": 0, "state": "identifying"}));
    wait_for_state(&gateway, 0, "identifying");
    ask(&mut a);
    assert_eq!(granted(&mut a)["shard_id"], 1);
    // It tells when it uses a permit, so this one may be used until it runs out.
    ask(&mut b);
    let wait = b.expect_op(30);
    assert!(wait["reason"] == "identify_rate_limit" && is_hours(&wait["retry_after_ms"], 1), "{wait}");
    a.send_op(&json!({"opcode": 31, "shard_id": 1, "state": "identifying"}));
    assert_eq!(granted(&mut b)["shard_id"], 2);
}

#[test]
fn who_does_not_hold_an_id_cannot_report_its_state() {
    let gateway = Gateway::start(&["--shards=2"]);
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    connect(&mut a);
    b.send_op(&json!({"opcode": 31, "shard_id": 0, "state": "ready"}));
    b.expect_error("not_shard_holder");
    a.send_op(&json!({"opcode": 31, "shard_id": 0, "state": "happy"}));
    assert!(a.expect_error("malformed")["message"].as_str().unwrap().contains("state"));
    for state in ["identifying", "ready", "resumed"] {
        a.send_op(&json!({"opcode": 31, "shard_id": 0, "state": state}));
        wait_for_state(&gateway, 0, state);
    }
    assert_eq!(gateway.metric("gateway_shards", "resumed"), 1);
}
