//! Messages between services: order, receipts, full mailboxes, and the account of it all.

use serde_json::json;

use crate::support::{Gateway, Service, eventually};

fn numbered(source: &str, target: &str, numbers: std::ops::Range<u64>) -> impl Iterator<Item = String> {
    numbers.map(move |n| format!(r#"{{"s":"{source}","t":"gateway-proxy:{target}:x","d":{n},"n":{n}}}"#))
}

#[test]
fn messages_of_each_source_arrive_in_the_order_sent() {
    const EACH: u64 = 5_000;
    let gateway = Gateway::start(&[]);
    let mut target = gateway.service("target");
    std::thread::scope(|scope| {
        for index in 0..4 {
            let gateway = &gateway;
            scope.spawn(move || {
                let name = format!("source-{index}");
                let mut source = gateway.service(&name);
                for start in (0..EACH).step_by(100) {
                    source.texts(numbered(&name, "target", start..start + 100));
                }
                source.expect_nothing();
            });
        }
        let mut next = std::collections::HashMap::new();
        for _ in 0..4 * EACH {
            let message = target.next();
            let expected = next.entry(message.json["s"].as_str().unwrap().to_owned()).or_insert(0_u64);
            assert_eq!(message.json["d"], *expected, "{}", message.text);
            *expected += 1;
        }
    });
    assert_eq!(gateway.account("target"), [4 * EACH, 4 * EACH, 0, 0, 0]);
}

#[test]
fn shards_and_guilds_are_reached_through_whoever_holds_them() {
    let gateway = Gateway::start(&["--shards=2"]);
    let mut sender = gateway.service("sender");
    let mut holders = [gateway.service("zero"), gateway.service("one")];
    for holder in &mut holders {
        holder.send_op(&json!({"opcode": 10}));
        holder.expect_op(11);
    }
    // (81384788765712384 >> 22) % 2 is 0, and one step of the snowflake's clock later it is 1.
    let guild = |odd: u64| format!("guild/{}", 81_384_788_765_712_384_u64 + (odd << 22));
    for (index, holder) in holders.iter_mut().enumerate() {
        sender.send(&format!("shard/{index}"), "x", "1");
        assert_eq!(holder.next().text, r#"{"s":"sender","t":"x","d":1}"#);
        sender.send(&guild(index as u64), "y", "2");
        assert_eq!(holder.next().topic(), "y");
    }
    let [zero, mut one] = holders;
    zero.close(4000);
    eventually("shard 0 is free", || {
        sender.send("shard/0", "x", "1");
        let message = sender.next();
        (message.data()["code"] == "no_such_shard").then_some(())
    });
    one.send_op(&json!({"opcode": 10}));
    assert_eq!(one.expect_op(11)["shard_id"], 0);
    sender.send("shard/0", "z", "3");
    assert_eq!(one.next().topic(), "z");
}

#[test]
fn a_receipt_comes_for_each_accepted_message_with_an_n() {
    let gateway = Gateway::start(&[]);
    let mut target = gateway.service("b");
    let mut source = gateway.connect();
    source.identify_with("a", json!({"receipts": true}));
    source.text(r#"{"s":"a","t":"gateway-proxy:b:x","n":1}"#);
    source.text(r#"{"s":"a","t":"gateway-proxy:b:x"}"#);
    source.text(r#"{"s":"a","t":"gateway-proxy:nobody:x","n":2}"#);
    source.text(r#"{"s":"a","t":"gateway-proxy:b:x","n":"three \u00e9"}"#);
    assert_eq!(source.expect_op(21)["n"], 1);
    assert_eq!(source.expect_error("no_such_service")["n"], 2);
    assert_eq!(source.expect_op(21)["n"], "three é");
    (0..3).for_each(|_| drop(target.next()));
    target.expect_nothing();
}

/// A service that is away, so that its mailbox only fills.
fn away(gateway: &Gateway, name: &str) {
    gateway.service(name).vanish();
    gateway.wait_for_log(&format!("{name} is away"));
}

#[test]
fn a_full_mailbox_refuses_until_it_is_below_three_quarters() {
    let gateway = Gateway::start(&["--mailbox-messages=100", "--resume-window-ms=60000"]);
    away(&gateway, "b");
    let mut source = gateway.service("a");
    source.texts(numbered("a", "b", 0..150));
    for n in 100..150 {
        let error = source.expect_error("mailbox_full");
        assert_eq!((&error["n"], &error["t"]), (&json!(n), &json!("gateway-proxy:b:x")));
    }
    assert_eq!(gateway.account("b"), [100, 0, 0, 0, 100]);
    let mut target = gateway.service("b");
    for n in 0..100 {
        assert_eq!(target.next().json["d"], n);
    }
    source.texts(numbered("a", "b", 150..151));
    assert_eq!(target.next().json["d"], 150);
    assert_eq!(gateway.account("b"), [101, 101, 0, 0, 0]);
}

#[test]
fn a_full_mailbox_is_bounded_by_bytes_too() {
    let gateway = Gateway::start(&["--max-message-bytes=1000", "--mailbox-bytes=1000", "--hold-ms=0"]);
    away(&gateway, "b");
    let mut source = gateway.service("a");
    let data = format!("\"{}\"", "x".repeat(450));
    for _ in 0..2 {
        source.send("b", "x", &data);
    }
    source.send("b", "x", &data);
    source.expect_error("mailbox_full");
}

#[test]
fn a_sender_is_not_held_for_longer_than_it_may_be_by_what_is_larger_than_the_room_that_is_left() {
    const EACH: u64 = 200;
    // A hold takes a millisecond at least: a hundred of them would be a hundred times what it may be held.
    for (hold, most_holds) in [("--hold-ms=0", 0), ("--hold-ms=1", EACH / 2)] {
        let gateway = Gateway::start(&["--max-message-bytes=60000", "--mailbox-bytes=100000", hold]);
        away(&gateway, "b");
        let (mut source, mut free) = (gateway.service("a"), gateway.service("free"));
        source.send("b", "x", &format!("\"{}\"", "x".repeat(55_000)));
        let large = "x".repeat(52_000);
        let large = |n| format!(r#"{{"s":"a","t":"gateway-proxy:b:x","n":{n},"d":"{large}"}}"#);
        source.texts((0..EACH).flat_map(|n| {
            let small = ["b", "free"].map(|target| numbered("a", target, n..n + 1));
            [large(n)].into_iter().chain(small.into_iter().flatten())
        }));
        for n in 0..EACH {
            assert_eq!(source.expect_error("mailbox_full")["n"], n);
            assert_eq!(free.next().json["d"], n);
        }
        source.expect_nothing();
        assert_eq!(gateway.account("b"), [1 + EACH, 0, 0, 0, 1 + EACH], "what fits is taken");
        let holds = gateway.metric("gateway_held_total", "mailbox_full");
        assert!(holds <= most_holds, "{hold}: it was held {holds} times");
    }
}

#[test]
fn all_mailboxes_together_are_bounded() {
    let gateway = Gateway::start(&[
        "--max-message-bytes=1000",
        "--mailbox-bytes=1000",
        "--mailbox-total-bytes=1200",
        "--hold-ms=0",
    ]);
    away(&gateway, "b");
    away(&gateway, "c");
    let mut source = gateway.service("a");
    let data = format!("\"{}\"", "x".repeat(800));
    source.send("b", "x", &data);
    source.send("c", "x", &data);
    source.expect_error("mailbox_full");
    assert_eq!([gateway.account("b")[4], gateway.account("c")[4]], [1, 0]);
}

#[test]
fn a_held_sender_reaches_others_first_and_goes_on_when_there_is_room() {
    let gateway = Gateway::start(&["--mailbox-messages=10", "--hold-ms=1000"]);
    away(&gateway, "full");
    let mut source = gateway.service("a");
    let mut free = gateway.service("free");
    let burst =
        numbered("a", "free", 0..5).chain(numbered("a", "full", 0..11)).chain(numbered("a", "free", 5..6));
    source.texts(burst);
    for n in 0..5 {
        assert_eq!(free.next().json["d"], n, "what came before the full mailbox does not wait");
    }
    // The sender is held now; the mailbox is emptied before its time is over.
    let mut full = gateway.service("full");
    for n in 0..11 {
        assert_eq!(full.next().json["d"], n);
    }
    assert_eq!(free.next().json["d"], 5);
    source.expect_nothing();
}

#[test]
fn an_error_without_room_makes_its_message_dead() {
    let gateway = Gateway::start(&["--mailbox-messages=5", "--hold-ms=0", "--resume-window-ms=3000"]);
    away(&gateway, "b");
    let mut source = gateway.service("a");
    source.texts(numbered("a", "b", 0..5));
    source.expect_nothing();
    // While it is away too, its mailbox fills: there is no room for what comes back from b.
    source.vanish();
    gateway.wait_for_log("a is away");
    let mut other = gateway.service("other");
    other.texts(numbered("other", "a", 0..5));
    eventually("b's messages are dead", || (gateway.account("b") == [5, 0, 0, 5, 0]).then_some(()));
}

#[test]
fn what_a_service_did_not_come_back_for_is_returned_to_its_senders() {
    let gateway = Gateway::start(&["--resume-window-ms=2500", "--shards=1"]);
    let mut target = gateway.service("b");
    target.send_op(&json!({"opcode": 10}));
    target.expect_op(11);
    target.vanish();
    gateway.wait_for_log("b is away");
    let mut source = gateway.service("a");
    source.text(r#"{"s":"a","t":"gateway-proxy:b:x:\u0079","d":1,"n":"first"}"#);
    source.text(r#"{"s":"a","t":"gateway-proxy:shard/0:z","d":2}"#);
    let error = source.expect_error("expired");
    assert_eq!(
        (&error["t"], &error["n"], &error["target"]),
        (&json!("gateway-proxy:b:x:y"), &json!("first"), &json!("b"))
    );
    assert_eq!(error["message"], "its service is gone: it did not come back within resume_window_ms");
    let error = source.expect_error("expired");
    assert_eq!(
        (&error["t"], error.get("n"), &error["target"]),
        (&json!("gateway-proxy:shard/0:z"), None, &json!("shard/0"))
    );
    source.send("b", "x", "1");
    source.expect_error("no_such_service");
    assert_eq!(gateway.account("b"), [2, 0, 2, 0, 0]);
    assert_eq!(gateway.connect().identify("b")["resumed"], false, "a later service of that name is new");
}

#[test]
fn what_filled_all_mailboxes_is_returned_in_the_room_that_it_had() {
    let gateway = Gateway::start(&[
        "--max-message-bytes=1100",
        "--mailbox-bytes=10000",
        "--mailbox-total-bytes=10000",
        "--resume-window-ms=2500",
    ]);
    away(&gateway, "b");
    let mut source = gateway.service("a");
    let message = |n, rest: &str| format!(r#"{{"s":"a","t":"gateway-proxy:b:x","n":{n},"d":"{rest}"}}"#);
    let padding = "x".repeat(1_000 - message(0, "").len() + "gateway-proxy:b:".len());
    source.texts((0..10).map(|n| message(n, &padding)));
    eventually("all mailboxes are full", || {
        (gateway.metric("gateway_mailbox_bytes", "") == 10_000).then_some(())
    });
    for n in 0..10 {
        assert_eq!(source.expect_error("expired")["n"], n);
    }
    assert_eq!(gateway.account("b"), [10, 0, 10, 0, 0]);
}

#[test]
fn what_cannot_even_be_returned_is_dead() {
    let gateway = Gateway::start(&["--resume-window-ms=2500"]);
    away(&gateway, "b");
    let mut source = gateway.service("a");
    source.send("b", "x", "1");
    source.expect_nothing();
    source.close(4000);
    eventually("the message is dead", || (gateway.account("b") == [1, 0, 0, 1, 0]).then_some(()));
    gateway.wait_for_log("1 messages from a to b are dead");
}

#[test]
fn names_beyond_the_bound_are_counted_as_other() {
    let gateway = Gateway::start(&["--max-account-names=2"]);
    let mut services: Vec<Service> = ["a", "b", "c"].map(|name| gateway.service(name)).into();
    for (from, to) in [(0, 1), (0, 2), (2, 1)] {
        let name = ["a", "b", "c"][to];
        services[from].send(name, "x", "1");
        services[to].next();
    }
    assert_eq!(gateway.metric("gateway_messages_accepted_total", "source=\"other\",target=\"b\""), 1);
    assert_eq!(gateway.metric("gateway_messages_accepted_total", "source=\"a\",target=\"other\""), 1);
}
