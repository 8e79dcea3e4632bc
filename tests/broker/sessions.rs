//! Sessions outlive their connections: heartbeats, away, resumed, down, and who is told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Gateway, Service, eventually};

fn watch(gateway: &Gateway, name: &str, pattern: &str) -> Service {
    let mut watcher = gateway.service(name);
    watcher.send_op(&json!({"opcode": 23, "services": pattern}));
    watcher
}

#[test]
fn nothing_sent_meanwhile_is_lost_when_a_service_comes_back() {
    let gateway = Gateway::start(&[]);
    let mut target = gateway.service("b");
    let mut source = gateway.service("a");
    let texts = |numbers: std::ops::Range<u64>| {
        numbers.map(|n| format!(r#"{{"s":"a","t":"gateway-proxy:b:x","d":{n}}}"#)).collect::<Vec<_>>()
    };
    source.texts(texts(0..100));
    for n in 0..100 {
        assert_eq!(target.next().json["d"], n);
    }
    target.vanish();
    gateway.wait_for_log("b is away");
    source.texts(texts(100..600));
    source.expect_nothing();
    let mut target = gateway.connect();
    assert_eq!(target.identify("b")["resumed"], true);
    for n in 100..600 {
        assert_eq!(target.next().json["d"], n);
    }
    target.expect_nothing();
    assert_eq!(gateway.account("b"), [601, 601, 0, 0, 0]);
}

#[test]
fn any_frame_is_a_heartbeat() {
    let gateway = Gateway::start(&["--heartbeat-ms=500"]);
    let mut by_message = gateway.service("by-message");
    let mut by_ping = gateway.service("by-ping");
    let mut by_pong = gateway.service("by-pong");
    let start = Instant::now();
    // Three times as long as silence may be.
    while start.elapsed() < Duration::from_millis(500 * 9) {
        by_message.text(r#"{"s":"by-message","t":"heartbeat:by-message","d":null}"#);
        by_ping.frame(0x89, b"");
        // The next ping of the gateway's: only this is answered.
        let ping = by_pong.any_frame().unwrap();
        assert_eq!(ping.opcode, 9);
        by_pong.frame(0x8A, &ping.payload);
    }
    for service in [&mut by_message, &mut by_pong] {
        service.expect_nothing();
    }
    by_ping.text(r#"{"s":"by-ping","t":"gateway-proxy:by-ping:x"}"#);
    while by_ping.next_frame().unwrap().opcode != 1 {}
}

#[test]
fn silence_closes_4009_and_the_session_is_away() {
    let gateway = Gateway::start(&["--heartbeat-ms=100"]);
    let mut silent = gateway.service("silent");
    let closed = loop {
        let frame = silent.any_frame().expect("a close frame comes first");
        if frame.opcode != 9 {
            break frame;
        }
    };
    assert_eq!((closed.opcode, &closed.payload[..2]), (8, &4009_u16.to_be_bytes()[..]));
    gateway.wait_for_log("silent is away: closed with 4009");
    assert_eq!(gateway.metric("gateway_closes_total", "4009"), 1);
    assert_eq!(gateway.connect().identify("silent")["resumed"], true);
}

#[test]
fn a_watcher_is_told_what_becomes_of_services() {
    let gateway = Gateway::start(&["--resume-window-ms=2500", "--shards=4"]);
    let mut shard = gateway.connect();
    shard.identify_with("shard-1", json!({"group": "shards"}));
    shard.send_op(&json!({"opcode": 10}));
    shard.expect_op(11);
    gateway.service("backend").expect_nothing();
    let mut watcher = watch(&gateway, "watcher", "shard-*");
    let mut event = |expected: &str| {
        let presence = watcher.expect_op(24);
        assert_eq!(
            (&presence["service"], &presence["event"]),
            (&json!("shard-1"), &json!(expected)),
            "{presence}"
        );
        assert!(presence["at"].as_u64().unwrap() > 1_600_000_000_000, "Unix time in ms: {presence}");
        presence
    };
    let known = event("up");
    assert_eq!(
        (&known["group"], &known["shards"]),
        (&json!("shards"), &json!([0])),
        "a known service is told first"
    );
    shard.vanish();
    assert_eq!(event("away")["reason"], "its connection was lost");
    let shard = gateway.service("shard-1");
    assert_eq!(event("resumed")["shards"], json!([0]));
    shard.vanish();
    event("away");
    event("down");
    gateway.service("shard-1").close(4000);
    event("up");
    assert_eq!(event("down")["reason"], "it left for good");
}

#[test]
fn a_watch_outlives_its_connection() {
    let gateway = Gateway::start(&[]);
    let mut watcher = watch(&gateway, "watcher", "b");
    watcher.expect_nothing();
    watcher.vanish();
    gateway.wait_for_log("watcher is away");
    let _b = gateway.service("b");
    let mut watcher = gateway.service("watcher");
    let presence = watcher.expect_op(24);
    assert_eq!((&presence["service"], &presence["event"]), (&json!("b"), &json!("up")));
}

/// Starts a service that sends itself as much as it can without reading any of it.
fn stuff(gateway: &Gateway, name: &str, messages: usize) -> Service {
    let mut stuck = gateway.service(name);
    let mut source = gateway.service(&format!("source-of-{name}"));
    let data = "x".repeat(10_000);
    for _ in 0..messages / 50 {
        source.texts(
            (0..50)
                .map(|_| format!(r#"{{"s":"source-of-{name}","t":"gateway-proxy:{name}:x","d":"{data}"}}"#)),
        );
    }
    source.expect_nothing();
    stuck.text(&format!(r#"{{"s":"{name}","t":"heartbeat:{name}"}}"#));
    stuck
}

#[test]
fn a_service_that_stops_reading_is_cut_off_while_its_neighbours_go_on() {
    let gateway = Gateway::start(&["--stuck-ms=4000", "--heartbeat-ms=10000", "--resume-window-ms=60000"]);
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    let is_cut_off = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let neighbours = scope.spawn(|| {
            let mut rounds = 0;
            while !is_cut_off.load(Ordering::Relaxed) {
                a.send("b", "x", "1");
                assert_eq!(b.next().topic(), "x");
                rounds += 1;
                if rounds % 50 == 0 {
                    a.expect_nothing();
                }
            }
            rounds
        });
        // 30 MB: more than the sockets' buffers hold, less than its mailbox.
        let mut stuck = stuff(&gateway, "stuck", 3_000);
        eventually("the stuck service is cut off", || {
            // It is not silent: it only does not read.
            stuck.text(r#"{"s":"stuck","t":"heartbeat:stuck"}"#);
            gateway.log().contains("stuck is away: cut off with 4008").then_some(())
        });
        is_cut_off.store(true, Ordering::Relaxed);
        let rounds = neighbours.join().unwrap();
        assert!(rounds > 10, "the neighbours' messages went on meanwhile: {rounds}");
    });
    assert_eq!(gateway.metric("gateway_closes_total", "4008"), 1);
    let high = gateway.memory_kib("VmHWM");
    assert!(high < 128 * 1024, "{high} KiB resident for a mailbox of 64 MiB");
    // What it had not been handed waits for it.
    let queued = gateway.account("stuck")[4];
    assert!(queued > 0);
    let mut back = gateway.service("stuck");
    for _ in 0..queued {
        assert_eq!(back.next().topic(), "x");
    }
    back.expect_nothing();
}

#[test]
fn a_service_that_reads_slowly_but_enough_stays() {
    const MESSAGES: usize = 6_000;
    let gateway = Gateway::start(&["--stuck-ms=4000", "--heartbeat-ms=5000", "--min-drain-bytes=20000"]);
    let mut slow = gateway.service("slow");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut source = gateway.service("a");
            let text = format!(r#"{{"s":"a","t":"gateway-proxy:slow:x","d":"{}"}}"#, "x".repeat(10_000));
            for _ in 0..MESSAGES / 50 {
                source.texts((0..50).map(|_| text.clone()));
            }
            source.expect_nothing();
        });
        // 1 MB at a time, for longer than stuck_ms: the buffers between are never empty, so what it
        // does not read stays unread. (The pause is what is tested: a reader that is slow.)
        for _ in 0..MESSAGES / 100 {
            (0..100).for_each(|_| drop(slow.next()));
            std::thread::sleep(Duration::from_millis(120));
        }
    });
    slow.expect_nothing();
}

#[test]
fn a_stuck_connection_can_be_taken_over() {
    let gateway = Gateway::start(&[]);
    let mut stuck = gateway.connect();
    let session = stuck.identify("stuck")["session"].clone();
    let mut source = gateway.service("a");
    let data = "x".repeat(10_000);
    for _ in 0..60 {
        source.texts((0..50).map(|_| format!(r#"{{"s":"a","t":"gateway-proxy:stuck:x","d":"{data}"}}"#)));
    }
    source.expect_nothing();
    let mut new = gateway.connect();
    let accept = new.identify_with("stuck", json!({"session": session}));
    assert_eq!(accept["resumed"], true);
    let [accepted, delivered, _, _, queued] = gateway.account("stuck");
    assert_eq!(accepted, delivered + queued);
    source.send("stuck", "last", "1");
    while new.next().topic() != "last" {}
}

#[test]
fn ops_are_not_queued_behind_messages() {
    let gateway = Gateway::start(&[]);
    let mut busy = stuff(&gateway, "busy", 3_000);
    busy.send_op(&json!({"opcode": 10}));
    let mut before = 0;
    while busy.next().json["d"]["opcode"] != 11 {
        before += 1;
    }
    assert!(before < 2_500, "the answer came behind {before} of 3000 messages that were sent before it");
}

#[test]
fn answers_that_are_not_read_bound_the_asking() {
    const ASKED: usize = 100_000;
    let gateway = Gateway::start(&["--stuck-ms=60000", "--max-ops-per-second=100000000"]);
    let mut greedy = gateway.service("greedy");
    let before = gateway.memory_kib("VmRSS");
    let text = r#"{"s":"greedy","t":"nowhere"}"#;
    std::thread::scope(|scope| {
        let mut writer = greedy.writer();
        scope.spawn(move || {
            for _ in 0..ASKED / 100 {
                writer.texts((0..100).map(|_| text.to_owned()));
            }
        });
        // Nobody reads: the gateway stops to answer long before all was asked.
        let answered = || gateway.metric("gateway_errors_sent_total", "unroutable_topic");
        let mut before = 0;
        let stopped_at = eventually("the gateway reads no more", || {
            let now = answered();
            let was = std::mem::replace(&mut before, now);
            std::thread::sleep(Duration::from_millis(300));
            (now > 0 && now == was).then_some(now)
        });
        assert!(stopped_at < ASKED as u64 / 2, "{stopped_at} answers wait to be read");
        for _ in 0..ASKED {
            greedy.expect_error("unroutable_topic");
        }
    });
    let grown = gateway.memory_kib("VmHWM").saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB for answers that were not read yet");
}

#[test]
fn a_thousand_idle_services_fit_into_48_mib() {
    let gateway = Gateway::start(&["--workers=2"]);
    let services: Vec<Service> = (0..1_000).map(|index| gateway.service(&format!("idle-{index}"))).collect();
    let resident = gateway.memory_kib("VmRSS");
    println!("{resident} KiB resident with {} services", services.len());
    assert!(resident < 48 * 1024, "{resident} KiB");
}

#[test]
fn services_that_are_away_hold_no_descriptors() {
    let gateway = Gateway::start(&[]);
    let watcher = gateway.service("watcher");
    let before = gateway.descriptors();
    let services: Vec<Service> = (0..50).map(|index| gateway.service(&format!("s{index}"))).collect();
    assert!(gateway.descriptors() >= before + 100, "two for each connection");
    services.into_iter().for_each(Service::vanish);
    eventually("all are away", || (gateway.metric("gateway_sessions", "away") == 50).then_some(()));
    eventually("their descriptors are closed", || (gateway.descriptors() <= before + 10).then_some(()));
    drop(watcher);
}

#[test]
fn nothing_is_handed_to_a_connection_that_has_closed() {
    let gateway = Gateway::start(&[]);
    let mut source = gateway.service("a");
    for round in 0..100 {
        // The close is answered, so the service may be gone: what is sent now waits for it.
        gateway.service("b").close(1000);
        source.send("b", "x", &round.to_string());
        source.expect_nothing();
        let mut back = gateway.service("b");
        assert_eq!(back.next().json["d"], round);
        back.close(1000);
    }
}
