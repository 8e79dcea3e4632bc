//! What operators see of the shard ids, and do to them.

use serde_json::{Value, json};

use super::{ask, connect, granted, shard, wait_for_state};
use crate::support::Gateway;

#[test]
fn every_id_is_shown_with_its_holder_and_what_it_waits_for() {
    let gateway = Gateway::start(&["--shards=3", "--max-concurrency=16"]);
    let mut a = gateway.service("a");
    connect(&mut a);
    a.send_op(&json!({"opcode": 31, "shard_id": 0, "state": "ready"}));
    wait_for_state(&gateway, 0, "ready");
    let mut gone = gateway.service("gone");
    connect(&mut gone);
    gone.vanish();
    wait_for_state(&gateway, 1, "away");
    let report = gateway.get_json("/api/v1/shards");
    assert_eq!((&report["shard_count"], &report["max_concurrency"]), (&json!(3), &json!(16)));
    for nothing in ["frozen", "reshard", "budget"] {
        assert_eq!(report[nothing], Value::Null, "{nothing}");
    }
    assert_eq!(
        (&report["permits"], &report["waiting"], &report["deaths"]),
        (&json!(2), &json!({}), &json!({}))
    );
    let [held, away, free] = report["shards"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert!(held["since"].as_u64().unwrap() > 1_600_000_000_000, "{held}");
    let expected = json!({
        "shard_id": 0, "shard_count": 3, "state": "ready", "holder": "a", "epoch": 1,
        "since": held["since"], "deaths": 0, "awaits": null
    });
    assert_eq!(*held, expected);
    assert_eq!((&away["holder"], &away["state"]), (&json!("gone"), &json!("away")));
    let expected = json!({
        "shard_id": 2, "shard_count": 3, "state": "free", "holder": null, "epoch": 0,
        "since": null, "deaths": 0, "awaits": {"what": "request", "in_ms": null}
    });
    assert_eq!(*free, expected);
}

#[test]
fn a_released_id_is_revoked_and_reaches_nobody() {
    let gateway = Gateway::start(&["--shards=1", "--heartbeat-ms=3600000"]);
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    connect(&mut a);
    let (status, answer) = gateway.post_json("/api/v1/shards/0/release", r#"{"shard_count":1}"#);
    assert_eq!((status, &answer["holder"]), (200, &json!("a")), "{answer}");
    assert!(answer["free_in_ms"].as_u64().unwrap() > 10_000_000, "{answer}");
    let revoke = a.expect_op(33);
    assert_eq!((&revoke["shard_id"], &revoke["shard_count"]), (&json!(0), &json!(1)));
    assert!(revoke["reason"].as_str().unwrap().contains("operator"), "{revoke}");
    b.send("shard/0", "x", "1");
    b.expect_error("no_such_shard");
    a.send_op(&json!({"opcode": 31, "shard_id": 0, "state": "ready"}));
    a.expect_error("not_shard_holder");
    ask(&mut b);
    assert_eq!(b.expect_op(30)["reason"], "no_free_shard");
    gateway.wait_for_log("an operator took a shard id from a");
}

#[test]
fn while_the_pool_is_frozen_nothing_is_granted() {
    let gateway = Gateway::start(&["--shards=2"]);
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    connect(&mut a);
    assert_eq!(gateway.post_json("/api/v1/shards/freeze", ""), (200, json!({"frozen": true})));
    ask(&mut b);
    let wait = b.expect_op(30);
    assert_eq!((&wait["reason"], wait.get("retry_after_ms")), (&json!("frozen"), None));
    let report = gateway.get_json("/api/v1/shards");
    assert_eq!(report["frozen"]["by"], "operator");
    assert_eq!(report["shards"][1]["awaits"], json!({"what": "frozen", "in_ms": null}));
    assert_eq!(shard(&gateway, 0)["holder"], "a", "leases stand");
    assert_eq!(gateway.metric("gateway_shard_requests_waiting", "frozen"), 1);
    assert_eq!(gateway.metric("gateway_shards_frozen", ""), 1);
    b.expect_nothing();
    assert_eq!(gateway.post_json("/api/v1/shards/thaw", "{}"), (200, json!({"frozen": false})));
    assert_eq!(granted(&mut b)["shard_id"], 1);
    assert_eq!(gateway.metric("gateway_shards_frozen", ""), 0);
}

#[test]
fn a_request_that_makes_no_sense_says_what_was_expected() {
    let gateway = Gateway::start(&["--shards=2"]);
    connect(&mut gateway.service("a"));
    for (path, body, status, code, says) in [
        ("0/release", r#"{"shard_count":7}"#, 404, "no_such_shard", "no shard 0 of 7"),
        ("2/release", "", 404, "no_such_shard", "no shard 2 of 2"),
        ("1/release", "{}", 409, "not_leased", "no holder"),
        ("x/release", "{}", 400, "bad_request", "a number"),
        ("-1/release", "{}", 400, "bad_request", "a number"),
        ("0/release", r#"{"count":2}"#, 400, "bad_request", "shard_count"),
        ("0/release", "[]", 400, "bad_request", "object"),
        ("freeze", r#"{"reason":"x"}"#, 400, "bad_request", "without fields"),
        ("thaw", "1", 400, "bad_request", "without fields"),
        ("reshard", "", 400, "bad_request", "shard_count"),
        ("reshard", "[3]", 400, "bad_request", "object"),
        ("reshard", r#"{"shard_count":"3"}"#, 400, "bad_request", "number"),
        ("reshard", r#"{"shard_count":3,"mode":"slow"}"#, 400, "bad_request", "rolling"),
        ("reshard", r#"{"shard_count":0}"#, 400, "out_of_range", "1 to 65536"),
        ("reshard", r#"{"shard_count":65537}"#, 400, "out_of_range", "1 to 65536"),
        ("reshard", r#"{"shard_count":2,"dry_run":true}"#, 409, "same_count", "2 shards already"),
    ] {
        let (found, answer) = gateway.post_json(&format!("/api/v1/shards/{path}"), body);
        assert_eq!((found, &answer["error"]["code"]), (status, &json!(code)), "{path} {body}: {answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(says), "{path} {body}: {message}");
    }
    for path in ["0/release", "freeze", "thaw", "reshard"] {
        let path = format!("/api/v1/shards/{path}");
        assert_eq!(gateway.http("POST", &path, &["Content-Type: text/plain"], "{}").0, 415, "{path}");
        let json = ["Content-Type: application/json"];
        assert_eq!(gateway.http("POST", &path, &json, &"x".repeat(65_537)).0, 413, "{path}");
        assert_eq!(gateway.http("GET", &path, &[], "").0, 405, "{path}");
    }
    assert_eq!(gateway.get_json("/api/v1/shards")["shards"][0]["holder"], "a", "nothing was done");
}

#[cfg(feature = "fault-injection")]
#[test]
fn operators_are_answered_after_the_allocator_panicked() {
    let gateway = Gateway::start(&["--shards=1"]);
    let mut a = gateway.service("a");
    connect(&mut a);
    a.send_op(&json!({"panic": "allocator"}));
    gateway.wait_for_log("ShardAllocator panicked");
    assert_eq!(shard(&gateway, 0)["holder"], "a");
    assert_eq!(gateway.post_json("/api/v1/shards/freeze", "").0, 200);
}
