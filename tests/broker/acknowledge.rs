//! Numbered deliveries: acknowledged, or delivered again.

use serde_json::json;

use crate::support::{Gateway, Service, eventually};

fn acknowledging(gateway: &Gateway, name: &str) -> Service {
    let mut service = gateway.connect();
    service.identify_with(name, json!({"ack": true}));
    service
}

fn send(source: &mut Service, target: &str, numbers: std::ops::Range<u64>) {
    source.texts(numbers.map(|n| format!(r#"{{"s":"a","t":"gateway-proxy:{target}:x","d":{n}}}"#)));
}

/// The next messages have these delivery numbers, and this data.
fn expect(target: &mut Service, numbers: std::ops::RangeInclusive<u64>) {
    for i in numbers {
        assert_eq!(target.next().text, format!(r#"{{"i":{i},"s":"a","t":"x","d":{}}}"#, i - 1));
    }
}

fn acknowledge(service: &mut Service, i: u64) {
    service.send_op(&json!({"opcode": 22, "i": i}));
}

/// Waits until the acknowledgement was read: the one behind it is refused.
fn settle(service: &mut Service) {
    acknowledge(service, u64::MAX);
    let error = service.expect_error("malformed");
    assert!(error["message"].as_str().unwrap().contains("has not been sent"), "{error}");
}

/// What was acknowledged gets to the session, and into the account of what is for `b`.
fn expect_account(gateway: &Gateway, account: [u64; 5]) {
    eventually(&format!("the account is {account:?}"), || (gateway.account("b") == account).then_some(()));
}

#[test]
fn deliveries_are_numbered_and_count_as_delivered_once_acknowledged() {
    let gateway = Gateway::start(&[]);
    let (mut source, mut target) = (gateway.service("a"), acknowledging(&gateway, "b"));
    send(&mut source, "b", 0..10);
    expect(&mut target, 1..=10);
    assert_eq!(gateway.account("b"), [10, 0, 0, 0, 10]);
    acknowledge(&mut target, 7);
    settle(&mut target);
    expect_account(&gateway, [10, 7, 0, 0, 3]);
    acknowledge(&mut target, 3);
    settle(&mut target);
    acknowledge(&mut target, 10);
    settle(&mut target);
    expect_account(&gateway, [10, 10, 0, 0, 0]);
}

#[test]
fn what_was_not_acknowledged_is_delivered_again_in_order_with_its_number() {
    let gateway = Gateway::start(&[]);
    let (mut source, mut target) = (gateway.service("a"), acknowledging(&gateway, "b"));
    send(&mut source, "b", 0..10);
    expect(&mut target, 1..=10);
    acknowledge(&mut target, 4);
    settle(&mut target);
    target.vanish();
    gateway.wait_for_log("b is away");
    send(&mut source, "b", 10..12);
    source.expect_nothing();
    let mut target = acknowledging(&gateway, "b");
    expect(&mut target, 5..=12);
    acknowledge(&mut target, 12);
    settle(&mut target);
    expect_account(&gateway, [12, 12, 0, 0, 0]);
}

#[test]
fn a_resume_without_ack_ends_the_numbers() {
    let gateway = Gateway::start(&[]);
    let (mut source, mut target) = (gateway.service("a"), acknowledging(&gateway, "b"));
    send(&mut source, "b", 0..3);
    expect(&mut target, 1..=3);
    target.vanish();
    gateway.wait_for_log("b is away");
    let mut target = gateway.service("b");
    for n in 0..3 {
        assert_eq!(target.next().text, format!(r#"{{"s":"a","t":"x","d":{n}}}"#));
    }
    target.expect_nothing();
    assert_eq!(gateway.account("b"), [4, 4, 0, 0, 0]);
    acknowledge(&mut target, 4);
    target.expect_error("malformed");
}

#[test]
fn of_many_acknowledgements_at_once_the_highest_counts_and_each_wrong_one_is_refused() {
    let gateway = Gateway::start(&[]);
    let (mut source, mut target) = (gateway.service("a"), acknowledging(&gateway, "b"));
    send(&mut source, "b", 0..10);
    expect(&mut target, 1..=10);
    let ack = |i: u64| format!(r#"{{"s":"b","t":"gateway:opcode","d":{{"opcode":22,"i":{i}}}}}"#);
    target.texts([3, 4, 99, 6, 2, 0, 5, 98].map(ack));
    for wrong in [99, 0, 98] {
        let error = target.expect_error("malformed");
        let message = error["message"].as_str().unwrap();
        assert_eq!(message, format!("`d.i`: delivery {wrong} has not been sent; the last one is 10"));
    }
    expect_account(&gateway, [10, 6, 0, 0, 4]);
}

#[test]
fn no_more_than_max_unacked_are_outstanding() {
    let gateway = Gateway::start(&["--max-unacked=5"]);
    let (mut source, mut target) = (gateway.service("a"), acknowledging(&gateway, "b"));
    send(&mut source, "b", 0..12);
    source.expect_nothing();
    expect(&mut target, 1..=5);
    // Ops are not kept back by what is not acknowledged.
    settle(&mut target);
    acknowledge(&mut target, 2);
    expect(&mut target, 6..=7);
    acknowledge(&mut target, 7);
    expect(&mut target, 8..=12);
    acknowledge(&mut target, 12);
    settle(&mut target);
    expect_account(&gateway, [12, 12, 0, 0, 0]);
}

#[test]
fn what_was_not_acknowledged_is_returned_when_the_service_is_down() {
    let gateway = Gateway::start(&[]);
    let (mut source, mut target) = (gateway.service("a"), acknowledging(&gateway, "b"));
    source.texts((0..3).map(|n| format!(r#"{{"s":"a","t":"gateway-proxy:b:x","d":{n},"n":{n}}}"#)));
    (0..3).for_each(|_| drop(target.next()));
    acknowledge(&mut target, 1);
    settle(&mut target);
    target.close(4000);
    for n in 1..3 {
        assert_eq!(source.expect_error("expired")["n"], n);
    }
    assert_eq!(gateway.account("b"), [3, 1, 2, 0, 0]);
}

#[test]
fn notices_have_no_number() {
    let gateway = Gateway::start(&[]);
    let mut service = gateway.connect();
    service.identify_with("a", json!({"ack": true, "receipts": true}));
    service.text(r#"{"s":"a","t":"gateway-proxy:a:x","d":0,"n":"n"}"#);
    service.text(r#"{"s":"a","t":"gateway-proxy:nobody:x"}"#);
    assert_eq!(service.expect_op(21)["n"], "n");
    service.expect_error("no_such_service");
    assert_eq!(service.next().text, r#"{"i":1,"s":"a","t":"x","d":0,"n":"n"}"#);
}
