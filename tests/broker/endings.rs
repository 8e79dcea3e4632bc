//! What a service is told and handed before its connection ends comes before that end.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::{Gateway, Service, eventually};

fn numbered(target: &str, numbers: Range<u64>) -> impl Iterator<Item = String> {
    let target = target.to_owned();
    numbers.map(move |n| format!(r#"{{"s":"a","t":"gateway-proxy:{target}:x","d":{n},"n":{n}}}"#))
}

/// All that comes up to the end, and the code of the close frame.
fn read_to_the_end(service: &mut Service) -> (Vec<Value>, Option<u16>) {
    let (mut messages, mut code) = (Vec::new(), None);
    while let Some(frame) = service.next_frame() {
        match frame.opcode {
            1 => messages.push(serde_json::from_slice(&frame.payload).unwrap()),
            8 => {
                code = Some(u16::from_be_bytes([frame.payload[0], frame.payload[1]]));
                // The answer, where it is none itself: the gateway ends the connection then.
                service.frame(0x88, &frame.payload[..2]);
            }
            other => panic!("{other}"),
        }
    }
    (messages, code)
}

/// The numbers of those among them that have one.
fn numbers<'a>(
    messages: impl IntoIterator<Item = &'a Value>,
    which: impl Fn(&Value) -> Option<u64>,
) -> Vec<u64> {
    messages.into_iter().filter_map(which).collect()
}

fn data(message: &Value) -> Option<u64> {
    message["d"].as_u64()
}

#[test]
fn answers_to_the_last_burst_come_before_the_close_whoever_closes_and_why() {
    const SENT: u64 = 200;
    let gateway = Gateway::start(&["--max-message-bytes=100000", "--mailbox-bytes=10000000"]);
    let mut target = gateway.service("b");
    let large = vec![b'x'; 100_001];
    let endings: [(u8, &[u8], u16); 5] = [
        (0x88, &1000_u16.to_be_bytes(), 1000),
        (0x88, &4000_u16.to_be_bytes(), 4000),
        (0x81, &large, 1009),
        (0x82, b"binary", 1003),
        (0x81, b"\xff", 1007),
    ];
    for (first, payload, expected) in endings {
        let mut source = gateway.connect();
        source.identify_with("a", json!({"receipts": true}));
        let to_all = ["nobody", "b", "a"].into_iter().flat_map(|target| numbered(target, 0..SENT));
        source.texts_and(to_all, first, payload);
        let (messages, code) = read_to_the_end(&mut source);
        assert_eq!(code, Some(expected));
        let all: Vec<u64> = (0..SENT).collect();
        let op = |opcode: u64| {
            numbers(&messages, |it| (it["d"]["opcode"] == opcode).then(|| it["d"]["n"].as_u64())?)
        };
        assert_eq!(op(20), all, "{expected}: an ERROR for each that went to nobody");
        assert_eq!(op(21), all.repeat(2), "{expected}: a RECEIPT for each other one");
        assert_eq!(numbers(&messages, data), all, "{expected}: what it sent to itself");
        for n in 0..SENT {
            assert_eq!(target.next().json["d"], n);
        }
    }
}

#[test]
fn what_a_service_that_hangs_up_was_not_told_it_is_told_when_it_is_back() {
    // So few that now and then they are read together with the end.
    const SENT: u64 = 10;
    let gateway = Gateway::start(&[]);
    for _ in 0..100 {
        let mut source = gateway.service("a");
        source.texts(numbered("nobody", 0..SENT));
        source.stop_sending();
        let (mut told, code) = read_to_the_end(&mut source);
        assert_eq!(code, None);
        let mut back = gateway.service("a");
        back.send("a", "last", "null");
        told.extend(std::iter::from_fn(|| Some(back.next().json).filter(|it| it["t"] != "last")));
        assert_eq!(numbers(&told, |it| it["d"]["n"].as_u64()), (0..SENT).collect::<Vec<_>>());
        back.close(4000);
    }
}

/// Sends to `b` until told to stop; how many messages it sent.
fn send_all_the_time(gateway: &Gateway, go_on: &AtomicBool) -> u64 {
    let mut source = gateway.service("a");
    let mut sent = 0;
    while go_on.load(Ordering::Relaxed) {
        source.texts(numbered("b", sent..sent + 20));
        sent += 20;
        eventually("few wait", || (gateway.account("b")[4] < 1_000).then_some(()));
    }
    sent
}

/// Ends the sending, also where the test fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Lets `b` come and go while `a` sends, and sees whether all comes.
fn nothing_is_lost(come_and_go: impl Fn(&Gateway, &mut BTreeSet<u64>)) {
    let gateway = Gateway::start(&["--workers=2"]);
    let go_on = AtomicBool::new(true);
    let mut came = BTreeSet::new();
    gateway.service("b").close(1000);
    let sent = std::thread::scope(|scope| {
        let sending = scope.spawn(|| send_all_the_time(&gateway, &go_on));
        let ending = Ending(&go_on);
        come_and_go(&gateway, &mut came);
        drop(ending);
        sending.join().unwrap()
    });
    let mut last = gateway.service("b");
    last.send("b", "last", "null");
    came.extend(
        std::iter::from_fn(|| Some(last.next().json).filter(|it| it["t"] != "last"))
            .filter_map(|it| data(&it)),
    );
    let lost: Vec<u64> = (0..sent).filter(|n| !came.contains(n)).collect();
    assert!(lost.is_empty(), "{} of {sent} never came: {lost:?}", lost.len());
    let [accepted, delivered, ..] = gateway.account("b");
    assert_eq!((accepted, delivered), (sent + 1, sent + 1));
}

#[test]
fn whoever_closes_and_reads_to_the_end_has_all_that_was_handed_to_it() {
    nothing_is_lost(|gateway, came| {
        for _ in 0..200 {
            let mut target = gateway.service("b");
            came.extend(data(&target.next().json));
            target.frame(0x88, &1000_u16.to_be_bytes());
            let (messages, code) = read_to_the_end(&mut target);
            assert_eq!(code, Some(1000));
            came.extend(numbers(&messages, data));
        }
    });
}

#[test]
fn a_connection_that_is_replaced_and_its_heir_have_all_between_them() {
    nothing_is_lost(|gateway, came| {
        let mut target = gateway.connect();
        let mut session = target.identify("b")["session"].clone();
        for _ in 0..200 {
            came.extend(data(&target.next().json));
            let mut heir = gateway.connect();
            session = heir.identify_with("b", json!({"session": session}))["session"].clone();
            let (messages, code) = read_to_the_end(&mut target);
            assert_eq!(code, Some(4010));
            came.extend(numbers(&messages, data));
            target = heir;
        }
        target.frame(0x88, &1000_u16.to_be_bytes());
        came.extend(numbers(&read_to_the_end(&mut target).0, data));
    });
}

#[test]
fn a_service_that_resets_its_connection_amid_its_messages_is_no_error_in_the_log() {
    let gateway = Gateway::start(&[]);
    let mut source = gateway.service("a");
    for round in 1..=50 {
        let target = gateway.service("b");
        let data = "x".repeat(2_000);
        let texts = (0..50).map(|_| format!(r#"{{"s":"a","t":"gateway-proxy:b:x","d":"{data}"}}"#));
        source.texts(texts);
        target.lose_power();
        let is_away = || (gateway.log().matches("b is away").count() == round).then_some(());
        eventually("its end is told", is_away);
    }
    let log = gateway.log();
    let errors: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(errors.is_empty(), "{errors:?}");
}
