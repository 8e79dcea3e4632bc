//! Panics: they cost neither the process nor a service; and a thread that is gone, which costs the process.
//! Only in builds with `fault-injection`.

use std::net::TcpStream;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{Gateway, Service, eventually};

fn provoke(service: &mut Service, part: &str) {
    service.send_op(&json!({"panic": part}));
}

fn panics(gateway: &Gateway, part: &str) -> u64 {
    gateway.metric("gateway_panics_total", part)
}

fn send(source: &mut Service, numbers: std::ops::Range<u64>) {
    source.texts(numbers.map(|n| format!(r#"{{"s":"a","t":"gateway-proxy:b:x","d":{n},"n":{n}}}"#)));
}

#[test]
fn a_panic_at_a_message_is_answered_and_the_connection_stays() {
    let gateway = Gateway::start(&[]);
    let mut a = gateway.service("a");
    for count in 1..=10 {
        provoke(&mut a, "connection");
        a.expect_error("internal");
        assert_eq!(panics(&gateway, "connection"), count);
    }
    a.expect_nothing();
}

#[test]
fn a_session_that_panics_keeps_its_connection_its_mailbox_and_what_is_unacknowledged() {
    let gateway = Gateway::start(&["--max-unacked=5"]);
    let mut source = gateway.service("a");
    let mut target = gateway.connect();
    target.identify_with("b", json!({"ack": true}));
    send(&mut source, 0..10);
    for n in 0..5 {
        assert_eq!(target.next().json["d"], n);
    }
    provoke(&mut target, "session");
    gateway.wait_for_log("b panicked and is restarted: as asked");
    // Five wait in the mailbox and five for their acknowledgement.
    target.send_op(&json!({"opcode": 22, "i": 5}));
    send(&mut source, 10..12);
    for n in 5..10 {
        let message = target.next();
        assert_eq!((&message.json["d"], &message.json["i"]), (&json!(n), &json!(n + 1)), "{}", message.text);
    }
    target.send_op(&json!({"opcode": 22, "i": 10}));
    assert_eq!(target.next().json["d"], 10);
    assert_eq!(target.next().json["d"], 11);
    assert_eq!(panics(&gateway, "session"), 1);
    assert_eq!(gateway.account("b")[0], 12);
}

#[test]
fn a_session_that_panics_too_often_is_given_up() {
    let gateway = Gateway::start(&[]);
    let mut watcher = gateway.service("w");
    watcher.send_op(&json!({"opcode": 23, "services": "b"}));
    let mut source = gateway.service("a");
    let mut target = gateway.connect();
    target.identify_with("b", json!({"ack": true}));
    assert_eq!(watcher.expect_op(24)["event"], "up");
    send(&mut source, 0..3);
    (0..3).for_each(|_| drop(target.next()));
    for _ in 0..6 {
        provoke(&mut target, "session");
    }
    target.expect_close(4500);
    let presence = watcher.expect_op(24);
    assert_eq!((&presence["event"], &presence["reason"]), (&json!("down"), &json!("it crashed too often")));
    for n in 0..3 {
        let error = source.expect_error("expired");
        let message = json!("its service is gone: it crashed too often");
        assert_eq!((&error["n"], &error["message"]), (&json!(n), &message), "its mailbox is returned");
    }
    assert_eq!(gateway.account("b"), [3, 0, 3, 0, 0]);
    assert_eq!(gateway.connect().identify("b")["resumed"], false);
}

#[test]
fn a_gateway_that_panics_knows_everybody_after_it() {
    let gateway = Gateway::start(&["--shards=2"]);
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    a.send_op(&json!({"opcode": 10}));
    a.expect_op(11);
    for count in 1..=8 {
        provoke(&mut a, "gateway");
        eventually("the panic is counted", || (panics(&gateway, "gateway") == count).then_some(()));
        a.send("b", "x", "1");
        assert_eq!(b.next().topic(), "x");
    }
    let mut taken = gateway.connect();
    taken.send_identify("a", json!({}));
    taken.expect_reject("already_connected");
    a.vanish();
    let accept = gateway.connect().identify("a");
    assert_eq!((&accept["resumed"], &accept["shards"]), (&json!(true), &json!([0])));
    gateway.service("c").expect_nothing();
}

#[test]
fn a_thread_that_ended_ends_the_gateway_in_order() {
    let mut gateway = Gateway::start(&["--workers=2"]);
    // As each thread has one of them, the next comes to the one that ended.
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    provoke(&mut a, "worker");
    eventually("nothing is listened on", || TcpStream::connect(gateway.address()).err());
    b.expect_close(1012);
    assert_eq!(gateway.wait().code(), Some(1));
    gateway.wait_for_log("of `workers` serves no connections");
    gateway.wait_for_log("stopped; messages: ");
}

#[test]
fn one_signal_ends_a_gateway_that_failed_and_waits_for_its_disk() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = format!("--data-dir={}", directory.path().display());
    let mut gateway = Gateway::start(&["--workers=2", "--shards=2", &data_dir]);
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    provoke(&mut b, "hung_disk");
    b.send_op(&json!({"opcode": 10}));
    eventually("the disk hangs", || {
        let (_, metrics) = gateway.http("GET", "/metrics", &[], "");
        metrics.contains("\ngateway_shards_reported 0\n").then_some(())
    });
    provoke(&mut a, "worker");
    eventually("nothing is listened on", || TcpStream::connect(gateway.address()).err());
    gateway.wait_for_log("the disk is waited for");
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait().code(), Some(1));
}

#[test]
fn an_allocator_that_panics_keeps_its_leases_and_its_queue() {
    let gateway = Gateway::start(&["--shards=1"]);
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    a.send_op(&json!({"opcode": 10}));
    a.expect_op(11);
    b.send_op(&json!({"opcode": 10}));
    b.expect_op(30);
    provoke(&mut a, "allocator");
    eventually("the panic is counted", || (panics(&gateway, "allocator") == 1).then_some(()));
    a.send_op(&json!({"opcode": 12}));
    assert_eq!(b.expect_op(11)["epoch"], 2);
}

/// Every test's gateway is asked for such differences when it ends; this shows that they are found.
#[test]
fn a_debug_build_finds_what_is_counted_and_not_there() {
    let mut gateway = Gateway::start(&[]);
    let mut a = gateway.service("a");
    gateway.miscount(&mut a);
    gateway
        .wait_for_log("a to other: 1 messages of 1 bytes are counted as queued, the mailboxes hold 0 of 0");
}
