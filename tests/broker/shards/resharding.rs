//! Changing the number of shards while they run.

use gateway::state::shards::{BudgetRecord, Change};
use gateway::store::Store;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{ask, connect, granted, shard};
use crate::support::{Gateway, Service, discord_unauthorized, eventually, token_file};

/// Its shard is 0 of 2 shards, and 2 of 3.
const GUILD: u64 = 2 << 22;

fn reshard(gateway: &Gateway, body: &Value) -> (u16, Value) {
    gateway.post_json("/api/v1/shards/reshard", &body.to_string())
}

fn begin(gateway: &Gateway, body: &Value) {
    let (status, answer) = reshard(gateway, body);
    assert_eq!(status, 202, "{answer}");
}

fn abort(gateway: &Gateway) -> (u16, Value) {
    let (status, body) = gateway.http("DELETE", "/api/v1/shards/reshard", &[], "");
    (status, serde_json::from_str(&body).unwrap())
}

fn ready(service: &mut Service, shard_id: u32, shard_count: u32) {
    let state = json!({"opcode": 31, "shard_id": shard_id, "shard_count": shard_count, "state": "ready"});
    service.send_op(&state);
}

/// So many shards of the next generation are known to be ready.
fn wait_until_ready(gateway: &Gateway, shards: u64) {
    let progress = || gateway.get_json("/api/v1/shards")["reshard"].clone();
    eventually(&format!("{shards} are ready"), || (progress()["ready"] == shards).then_some(()));
}

fn lease(service: &mut Service) -> (u64, u64) {
    let lease = connect(service);
    (lease["shard_id"].as_u64().unwrap(), lease["shard_count"].as_u64().unwrap())
}

/// What `source` sends to the target comes to the service.
fn expect_route(source: &mut Service, target: &str, service: &mut Service) {
    source.send(target, "x", &format!("\"{target}\""));
    let message = service.next();
    assert_eq!((message.topic(), message.data()), ("x", &json!(target)), "{}", message.text);
}

fn expect_revoke(service: &mut Service, shard_id: u32, shard_count: u32) -> Value {
    let revoke = service.expect_op(33);
    assert_eq!((&revoke["shard_id"], &revoke["shard_count"]), (&json!(shard_id), &json!(shard_count)));
    revoke
}

/// `a` holds shard 0 of 2, and `b` holds 1.
fn two() -> (Gateway, Service, Service) {
    let gateway = Gateway::start(&["--shards=2"]);
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    assert_eq!((lease(&mut a), lease(&mut b)), ((0, 2), (1, 2)));
    (gateway, a, b)
}

#[test]
fn a_rolling_reshard_switches_over_when_every_new_id_is_ready() {
    let (gateway, mut a, mut b) = two();
    let (mut x, mut y, mut source) = (gateway.service("x"), gateway.service("y"), gateway.service("source"));
    begin(&gateway, &json!({"shard_count": 3}));
    // `b` holds an id of each generation.
    assert_eq!((lease(&mut x), lease(&mut y), lease(&mut b)), ((0, 3), (1, 3), (2, 3)));
    for (service, id) in [(&mut x, 0), (&mut b, 2)] {
        ready(service, id, 3);
    }
    wait_until_ready(&gateway, 2);
    assert_eq!(gateway.get_json("/api/v1/shards")["reshard"]["shard_count"], 3);
    assert_eq!(gateway.metric("gateway_reshard_shards", ""), 3);
    assert_eq!(gateway.metric("gateway_reshard_ready", ""), 2);
    // Nothing is routed by the new one yet, and the old one goes on.
    expect_route(&mut source, "shard/0", &mut a);
    expect_route(&mut source, "shard/1", &mut b);
    expect_route(&mut source, &format!("guild/{GUILD}"), &mut a);
    source.send("shard/2", "x", "1");
    source.expect_error("no_such_shard");
    let claim = json!({"opcode": 10, "shard_id": 0, "shard_count": 2, "identify": false});
    a.send_op(&claim);
    assert_eq!(a.expect_op(11)["shard_count"], 2);

    ready(&mut y, 1, 3);
    for (service, id) in [(&mut x, 0), (&mut y, 1), (&mut b, 2)] {
        let live = service.expect_op(32);
        assert_eq!(live, json!({"opcode": 32, "shard_id": id, "shard_count": 3}));
    }
    expect_revoke(&mut a, 0, 2);
    expect_revoke(&mut b, 1, 2);
    let shutdown = a.expect_op(3);
    assert!(shutdown["reason"].as_str().unwrap().contains("3 now"), "{shutdown}");
    assert_eq!(shutdown["deadline_ms"], 10_000);
    expect_route(&mut source, "shard/0", &mut x);
    expect_route(&mut source, "shard/1", &mut y);
    expect_route(&mut source, "shard/2", &mut b);
    expect_route(&mut source, &format!("guild/{GUILD}"), &mut b);
    a.send_op(&claim);
    a.expect_error("stale_shard");
    b.expect_nothing();
    let report = gateway.get_json("/api/v1/shards");
    assert_eq!((&report["shard_count"], &report["reshard"]), (&json!(3), &Value::Null));
    assert_eq!(gateway.metric("gateway_reshard_shards", ""), 0);
}

#[test]
fn a_reshard_does_not_wait_for_the_word_of_services_that_know_only_the_founding_ops() {
    let gateway = Gateway::start(&["--shards=1", "--permit-ttl-ms=100"]);
    let mut old = gateway.service("old");
    connect(&mut old);
    begin(&gateway, &json!({"shard_count": 2, "mode": "rolling"}));
    let (mut x, mut y) = (gateway.service("x"), gateway.service("y"));
    connect(&mut x);
    old.expect_nothing();
    connect(&mut y);
    x.expect_op(32);
    y.expect_op(32);
    expect_revoke(&mut old, 0, 1);
    old.expect_op(3);
}

#[test]
fn until_it_switches_over_a_reshard_can_be_aborted() {
    let (gateway, mut a, mut b) = two();
    let (mut x, mut source) = (gateway.service("x"), gateway.service("source"));
    begin(&gateway, &json!({"shard_count": 3}));
    assert_eq!(lease(&mut x), (0, 3));
    ready(&mut x, 0, 3);
    wait_until_ready(&gateway, 1);
    assert_eq!(abort(&gateway), (200, json!({"aborted": true})));
    assert!(expect_revoke(&mut x, 0, 3)["reason"].as_str().unwrap().contains("aborted"));
    expect_route(&mut source, "shard/0", &mut a);
    expect_route(&mut source, "shard/1", &mut b);
    ask(&mut x);
    assert_eq!(x.expect_op(30)["reason"], "no_free_shard", "both ids of the two are held");
    let (status, answer) = abort(&gateway);
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("no_reshard")));
    // Who was told to let go of a shard of three may need a moment.
    let (status, answer) = reshard(&gateway, &json!({"shard_count": 3}));
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("recently_ended")));
    begin(&gateway, &json!({"shard_count": 4}));
    assert_eq!(granted(&mut x)["shard_count"], 4, "who waits is served from the new ones");
}

#[test]
fn an_immediate_reshard_voids_all_leases_and_reboots_their_holders() {
    let (gateway, mut a, mut b) = two();
    let (mut waiting, mut bystander) = (gateway.service("waiting"), gateway.service("bystander"));
    ask(&mut waiting);
    waiting.expect_op(30);
    begin(&gateway, &json!({"shard_count": 3, "mode": "immediate"}));
    for (service, id) in [(&mut a, 0), (&mut b, 1)] {
        expect_revoke(service, id, 2);
        let reboot = service.expect_op(4);
        assert_eq!(reboot["keep_discord_session"], false);
        assert!(reboot["reason"].as_str().unwrap().contains("3 shards"), "{reboot}");
    }
    let lease = granted(&mut waiting);
    let expected = (&json!(0), &json!(3), &json!(2));
    assert_eq!((&lease["shard_id"], &lease["shard_count"], &lease["epoch"]), expected);
    expect_route(&mut bystander, "shard/0", &mut waiting);
    bystander.send("shard/1", "x", "1");
    bystander.expect_error("no_such_shard");
    a.close(1000);
    gateway.wait_for_log("a is away");
    let mut a = gateway.connect();
    assert_eq!(a.identify("a")["shards"], json!([]));
    assert_eq!(connect(&mut a)["shard_id"], 1);
    bystander.expect_nothing();
}

#[test]
fn a_dry_run_tells_what_a_reshard_needs_and_does_nothing() {
    let flags = ["--shards=2", "--max-concurrency=4", "--identify-interval-ms=5500"];
    let gateway = Gateway::start(&flags);
    let mut a = gateway.service("a");
    connect(&mut a);
    let (status, plan) = reshard(&gateway, &json!({"shard_count": 64, "mode": "immediate", "dry_run": true}));
    let expected = json!({
        "shard_count": 64, "mode": "immediate", "dry_run": true, "identifies": 64,
        "duration_ms": 15 * 5_500, "minutes": 2, "budget": null, "covered": true
    });
    assert_eq!((status, plan), (200, expected));
    a.expect_nothing();
    let report = gateway.get_json("/api/v1/shards");
    assert_eq!((&report["shard_count"], &report["reshard"]), (&json!(2), &Value::Null));
    begin(&gateway, &json!({"shard_count": 64}));
    for dry_run in [true, false] {
        let (status, answer) = reshard(&gateway, &json!({"shard_count": 5, "dry_run": dry_run}));
        assert_eq!((status, &answer["error"]["code"]), (409, &json!("reshard_under_way")));
        assert!(answer["error"]["message"].as_str().unwrap().contains("64"), "{answer}");
    }
}

/// A gateway with 16 shards that Discord has told of a large bot: its `max_concurrency` is 16, and 24
/// shards are recommended. (It is told by the store, from an earlier run, and
/// nothing else comes.)
fn of_a_large_bot(directory: &tempfile::TempDir) -> Gateway {
    let data_dir = format!("--data-dir={}", directory.path().display());
    let mut earlier = Gateway::start(&["--shards=16", &data_dir]);
    connect(&mut earlier.service("a"));
    earlier.signal(Signal::SIGKILL);
    earlier.wait();
    let told = BudgetRecord {
        recommended_shards: 24,
        max_concurrency: 16,
        total: 1000,
        remaining: 1000,
        resets_ms: u64::MAX,
        uncertain_ms: 0,
        recent: Vec::new(),
    };
    Store::open(directory.path()).unwrap().apply(&[Change::Budget(told)]).unwrap();
    let api = format!("--discord-api={}", discord_unauthorized());
    Gateway::start(&[&data_dir, &api, &token_file(directory)])
}

#[test]
fn a_large_bot_is_resharded_only_to_what_discord_would_not_close_with_4010() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = of_a_large_bot(&directory);
    for body in [
        json!({"shard_count": 40}),
        json!({"shard_count": 17, "mode": "rolling"}),
        json!({"shard_count": 8, "mode": "immediate"}),
        json!({"shard_count": 40, "dry_run": true}),
    ] {
        let (status, answer) = reshard(&gateway, &body);
        let message = format!(
            "`shard_count` must be a multiple of 16, not {}: Discord demands that of a bot with a \
             `max_concurrency` of 16",
            body["shard_count"]
        );
        let expected = json!({"error": {"code": "not_a_multiple", "message": message}});
        assert_eq!((status, &answer), (409, &expected), "{body}");
    }
    let report = gateway.get_json("/api/v1/shards");
    assert_eq!((&report["shard_count"], &report["reshard"]), (&json!(16), &Value::Null), "nothing was done");
    assert_eq!(shard(&gateway, 0)["holder"], "a", "leases stand");
    // What Discord recommends is a multiple of what it demands, whatever that is.
    for shard_count in [24, 48, 32] {
        let (status, plan) = reshard(&gateway, &json!({"shard_count": shard_count, "dry_run": true}));
        assert_eq!((status, &plan["identifies"]), (200, &json!(shard_count)), "{plan}");
    }
    begin(&gateway, &json!({"shard_count": 32}));
    assert_eq!(gateway.get_json("/api/v1/shards")["reshard"]["shard_count"], 32);
}
