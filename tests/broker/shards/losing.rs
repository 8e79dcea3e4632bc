//! How leases end, and what becomes of their ids.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{ask, connect, expect_event, give_back, shard, wait_for_state, watcher};
use crate::support::{Gateway, Service, eventually};

#[test]
fn leases_stand_while_away_and_end_when_down() {
    let gateway = Gateway::start(&["--shards=1", "--resume-window-ms=500", "--heartbeat-ms=1000"]);
    let mut watcher = watcher(&gateway, "a");
    let mut a = gateway.service("a");
    connect(&mut a);
    a.vanish();
    expect_event(&mut watcher, "a", "away");
    let mut b = gateway.service("b");
    b.send_op(&json!({"opcode": 10}));
    b.expect_op(30);
    expect_event(&mut watcher, "a", "down");
    assert_eq!(b.expect_op(11)["epoch"], 2);
}

/// With pings an hour apart a holder that vanished has three hours to notice.
const HOURS_TO_NOTICE: [&str; 3] = ["--shards=1", "--resume-window-ms=100", "--heartbeat-ms=3600000"];

#[test]
fn the_id_of_a_holder_that_vanished_is_not_granted_before_it_must_have_noticed() {
    let gateway = Gateway::start(&HOURS_TO_NOTICE);
    let mut watcher = watcher(&gateway, "a");
    let mut a = gateway.service("a");
    connect(&mut a);
    a.vanish();
    expect_event(&mut watcher, "a", "down");
    let mut b = gateway.service("b");
    ask(&mut b);
    let wait = b.expect_op(30);
    assert_eq!(wait["reason"], "no_free_shard");
    assert!(wait["retry_after_ms"].as_u64().unwrap() > 10_000_000, "{wait}");
    let held_back = shard(&gateway, 0);
    assert_eq!((&held_back["state"], &held_back["holder"]), (&json!("held_back"), &Value::Null));
    assert_eq!(held_back["awaits"]["what"], "holder_vanished");
    assert_eq!(gateway.metric("gateway_shards_kept_back", "holder_vanished"), 1);
    b.expect_nothing();
}

#[test]
fn a_holder_that_is_told_its_ids_by_http_has_all_its_time_to_notice_from_then_on() {
    let gateway = Gateway::start(&["--shards=1", "--resume-window-ms=1000", "--heartbeat-ms=3600000"]);
    let mut watcher = watcher(&gateway, "a");
    let mut a = gateway.service("a");
    connect(&mut a);
    a.vanish();
    expect_event(&mut watcher, "a", "away");
    let identify = json!({"s": "a", "t": "gateway:opcode", "d": {"opcode": 0}}).to_string();
    let tell = || (Instant::now(), gateway.post_json("/gateway", &identify).1["d"]["shards"].clone());
    // It is told that it has its id for as long as it is away.
    let mut told_at = None;
    let gone = || match tell() {
        (at, shards) if shards == json!([0]) => {
            told_at = Some(at);
            None
        }
        (_, shards) => Some(shards),
    };
    assert_eq!(eventually("its id is lost", gone), json!([]));
    let mut b = gateway.service("b");
    ask(&mut b);
    let left_ms = b.expect_op(30)["retry_after_ms"].as_u64().unwrap();
    let since = told_at.expect("it was told while it was away").elapsed();
    // What is left is told in whole ms.
    let until = since + Duration::from_millis(left_ms + 10);
    assert!(until >= Duration::from_secs(3 * 3_600 + 1), "{since:?} and {left_ms} ms");
}

#[test]
fn the_id_of_a_holder_that_gave_it_back_or_left_is_granted_at_once() {
    let gateway = Gateway::start(&HOURS_TO_NOTICE);
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    connect(&mut a);
    ask(&mut b);
    b.expect_op(30);
    a.send_op(&json!({"opcode": 12}));
    assert_eq!(b.expect_op(11)["epoch"], 2);
    ask(&mut a);
    a.expect_op(30);
    b.close(4000);
    assert_eq!(a.expect_op(11)["epoch"], 3);
}

#[test]
fn an_id_that_is_given_back_as_the_last_word_is_free_at_once() {
    let gateway = Gateway::start(&["--shards=40", "--resume-window-ms=100", "--heartbeat-ms=3600000"]);
    for id in 0..40 {
        let name = format!("holder-{id}");
        let mut holder = gateway.service(&name);
        holder.send_op(&json!({"opcode": 10, "shard_id": id}));
        holder.expect_op(11);
        // A session stays on the thread of its first connection; the second one is on another.
        holder.vanish();
        let mut holder = gateway.connect();
        assert_eq!(holder.identify(&name)["shards"], json!([id]));
        holder.close_after_op(&json!({"opcode": 12, "shard_id": id}), 1000);
        wait_for_state(&gateway, id, "free");
    }
}

/// The gateway waits for the last word as long as that takes on most days: on a busy machine a few may be late.
#[test]
fn an_id_that_is_given_back_as_the_last_word_is_free_though_its_holder_comes_back_at_once() {
    let gateway = Gateway::start(&["--shards=60", "--heartbeat-ms=3600000"]);
    let mut holder = gateway.service("holder");
    let mut late = 0;
    for id in 0..60 {
        holder.send_op(&json!({"opcode": 10, "shard_id": id, "identify": false}));
        while holder.next().json["d"]["opcode"] != 11 {}
        let next = gateway.connect();
        let death = json!({"opcode": 12, "shard_id": id});
        holder.close_after_op(&death, 1001);
        holder = next;
        assert_eq!(holder.identify("holder")["resumed"], true);
        let start = Instant::now();
        while shard(&gateway, id)["state"] != "free" && start.elapsed() < Duration::from_secs(2) {}
        if shard(&gateway, id)["state"] != "free" {
            late += 1;
            holder.send_op(&death);
            wait_for_state(&gateway, id, "free");
        }
    }
    assert!(late <= 3, "{late} of 60 were lost");
}

#[test]
fn the_id_of_a_holder_that_obeys_shutdown_is_granted_at_once() {
    let gateway = Gateway::start(&HOURS_TO_NOTICE);
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    connect(&mut a);
    ask(&mut b);
    b.expect_op(30);
    assert_eq!(gateway.post_json("/api/v1/services/a/shutdown", "{}").0, 202);
    a.expect_op(3);
    a.close(1000);
    assert_eq!(b.expect_op(11)["epoch"], 2);
}

#[test]
fn the_id_of_a_holder_that_does_not_obey_shutdown_is_held_back() {
    for obeys_too_late in [true, false] {
        let gateway = Gateway::start(&HOURS_TO_NOTICE);
        let mut a = gateway.service("a");
        connect(&mut a);
        let deadline_ms = if obeys_too_late { 0 } else { 3_600_000 };
        let body = json!({"deadline_ms": deadline_ms}).to_string();
        assert_eq!(gateway.post_json("/api/v1/services/a/shutdown", &body).0, 202);
        if obeys_too_late {
            a.expect_close(4011);
        } else {
            // Its connection is lost: who knows whether SHUTDOWN came.
            a.vanish();
        }
        gateway.wait_for_log("a is down");
        wait_for_state(&gateway, 0, "held_back");
    }
}

#[test]
fn what_a_holder_left_to_resume_with_is_handed_to_the_next_one_once() {
    let gateway = Gateway::start(&["--shards=1"]);
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    let resume = json!({"session_id": "s", "seq": 1.50, "resume_gateway_url": "wss://x"});
    assert_eq!(connect(&mut a).get("resume"), None);
    give_back(&gateway, &mut a, 0, json!({"close_code": 4000, "resume": resume}));
    assert_eq!(connect(&mut b)["resume"], resume);
    give_back(&gateway, &mut b, 0, json!({}));
    assert_eq!(connect(&mut a).get("resume"), None, "only once");
    a.send_op(&json!({"opcode": 31, "shard_id": 0, "state": "ready", "resume": resume}));
    wait_for_state(&gateway, 0, "ready");
    a.close(4000);
    wait_for_state(&gateway, 0, "free");
    assert_eq!(connect(&mut b)["resume"], resume, "by SHARD_STATE too");
}

#[test]
fn a_restarted_holder_gets_back_what_it_left_to_resume_with() {
    let gateway = Gateway::start(&["--shards=1"]);
    let mut a = gateway.service("a");
    connect(&mut a);
    let resume = json!({"session_id": "s", "seq": 7});
    a.send_op(&json!({"opcode": 31, "shard_id": 0, "state": "ready", "resume": resume}));
    wait_for_state(&gateway, 0, "ready");
    a.vanish();
    wait_for_state(&gateway, 0, "away");
    let mut a = gateway.service("a");
    let lease = connect(&mut a);
    assert_eq!((&lease["resume"], &lease["epoch"]), (&resume, &json!(1)));
    assert_eq!(connect_again(&mut a).get("resume"), None);
}

/// Claims the id 0 that it holds: a fresh permit.
fn connect_again(service: &mut Service) -> Value {
    service.send_op(&json!({"opcode": 10, "shard_id": 0, "shard_count": 1}));
    service.expect_op(11)
}

#[test]
fn what_discord_says_not_to_reconnect_after_freezes_the_pool_until_it_is_thawed() {
    let gateway = Gateway::start(&["--shards=6"]);
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    for id in 0..6 {
        assert_eq!(connect(&mut a)["shard_id"], id);
    }
    for (id, close_code) in (0..).zip([4004, 4010, 4011, 4012, 4013, 4014]) {
        give_back(&gateway, &mut a, id, json!({"close_code": close_code}));
        ask(&mut b);
        assert_eq!(b.expect_op(30)["reason"], "frozen", "{close_code}");
        let frozen = &gateway.get_json("/api/v1/shards")["frozen"];
        let why = (&frozen["by"], &frozen["close_code"], &frozen["shard_id"]);
        assert_eq!(why, (&json!("close_code"), &json!(close_code), &json!(id)));
        assert_eq!(gateway.metric("gateway_shards_frozen", ""), 1);
        gateway.wait_for_log(&format!("shard {id}/6 with {close_code}"));
        assert_eq!(gateway.post_json("/api/v1/shards/thaw", ""), (200, json!({"frozen": false})));
        assert_eq!(b.expect_op(11)["shard_id"], id);
    }
    assert_eq!(gateway.metric("gateway_shard_warnings_total", "frozen"), 6);
    give_back(&gateway, &mut b, 3, json!({"close_code": 4009}));
    assert_eq!(connect(&mut a)["shard_id"], 3, "any other code freezes nothing");
}

#[test]
fn an_id_that_dies_again_and_again_is_held_back() {
    let gateway = Gateway::start(&["--shards=1"]);
    let mut a = gateway.service("a");
    for _ in 0..6 {
        connect(&mut a);
        a.send_op(&json!({"opcode": 12, "close_code": 4009}));
    }
    ask(&mut a);
    let wait = a.expect_op(30);
    assert_eq!(wait["reason"], "crash_loop");
    assert!((1..=10_000).contains(&wait["retry_after_ms"].as_u64().unwrap()), "{wait}");
    let held_back = shard(&gateway, 0);
    assert_eq!((&held_back["state"], &held_back["deaths"]), (&json!("held_back"), &json!(6)));
    assert_eq!(held_back["awaits"]["what"], "crash_loop");
    assert_eq!(gateway.metric("gateway_shard_deaths_total", "4009"), 6);
    assert_eq!(gateway.metric("gateway_shards_kept_back", "crash_loop"), 1);
    assert_eq!(gateway.metric("gateway_shard_warnings_total", "crash_loop"), 1);
    let (status, answer) = gateway.post_json("/api/v1/shards/0/release", "{}");
    assert_eq!((status, answer), (200, json!({"released": true, "holder": null, "free_in_ms": 0})));
    assert_eq!(a.expect_op(11)["epoch"], 7);
}
