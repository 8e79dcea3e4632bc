//! Discord's daily limit of session starts. (Here a fault tells that 3 of 10 are left.)
#![cfg(feature = "fault-injection")]

use serde_json::json;

use super::{ask, connect};
use crate::support::{Gateway, Service, eventually};

/// Three session starts are left.
fn limited(shards: u32) -> (Gateway, Service) {
    let gateway = Gateway::start(&[&format!("--shards={shards}")]);
    let mut a = gateway.service("a");
    a.send_op(&json!({"panic": "budget"}));
    eventually("the limit is known", || {
        (gateway.metric("gateway_session_starts_limit", "") == 10).then_some(())
    });
    (gateway, a)
}

#[test]
fn when_the_budget_is_used_up_services_wait_and_are_told_how_long() {
    let (gateway, mut a) = limited(4);
    assert_eq!(gateway.metric("gateway_session_starts_remaining", ""), 3);
    assert_eq!(gateway.metric("gateway_shard_warnings_total", ""), 0);
    connect(&mut a);
    gateway.wait_for_log("only 2 of Discord's 10 session starts are left");
    assert_eq!(gateway.metric("gateway_shard_warnings_total", "budget_low"), 1);
    connect(&mut a);
    connect(&mut a);
    gateway.wait_for_log("all 10 of Discord's session starts are used up");
    ask(&mut a);
    let wait = a.expect_op(30);
    assert_eq!(wait["reason"], "budget_exhausted");
    assert!((3_000_000..=3_600_000).contains(&wait["retry_after_ms"].as_u64().unwrap()), "{wait}");
    assert_eq!(gateway.metric("gateway_shard_warnings_total", "budget_exhausted"), 1);
    let report = gateway.get_json("/api/v1/shards");
    assert_eq!((&report["budget"]["total"], &report["budget"]["remaining"]), (&json!(10), &json!(0)));
    assert_eq!(report["shards"][3]["awaits"]["what"], "budget_exhausted");
    assert_eq!(gateway.metric("gateway_shards_kept_back", "budget_exhausted"), 1);
    // Who is connected already uses none of it.
    a.send_op(&json!({"opcode": 10, "shard_id": 3, "shard_count": 4, "identify": false}));
    assert_eq!(a.expect_op(11)["shard_id"], 3);
}

#[test]
fn a_reshard_that_the_budget_does_not_cover_is_refused() {
    let (gateway, mut a) = limited(1);
    connect(&mut a);
    let reshard = |body: serde_json::Value| gateway.post_json("/api/v1/shards/reshard", &body.to_string());
    let (status, plan) = reshard(json!({"shard_count": 3, "dry_run": true}));
    assert_eq!((status, &plan["covered"], &plan["identifies"]), (200, &json!(false), &json!(3)), "{plan}");
    assert_eq!(plan["budget"]["remaining"], 2);
    for mode in ["rolling", "immediate"] {
        let (status, answer) = reshard(json!({"shard_count": 3, "mode": mode}));
        assert_eq!((status, &answer["error"]["code"]), (409, &json!("budget_too_small")), "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains("3 shards must IDENTIFY") && message.contains("allows 2 more"), "{message}");
    }
    a.expect_nothing();
    assert_eq!(reshard(json!({"shard_count": 2})).0, 202);
}
