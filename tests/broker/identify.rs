//! Who may be whom: IDENTIFY, takeover, tickets, limits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::support::{Gateway, Service, eventually};

#[test]
fn accept_says_what_a_service_needs_to_know() {
    let gateway = Gateway::start(&["--heartbeat-ms=700", "--resume-window-ms=900"]);
    let accept = gateway.connect().identify("a");
    let session = accept["session"].as_str().unwrap();
    assert!(session.len() >= 32, "at least 128 random bits: {session}");
    let expected = json!({
        "opcode": 1, "service": "a", "session": session, "resumed": false, "heartbeat_ms": 700,
        "resume_window_ms": 900, "max_message_bytes": 1_048_576, "shards": [], "version": 1,
    });
    assert_eq!(accept, expected);
}

#[test]
fn anything_but_identify_comes_too_early() {
    let gateway = Gateway::start(&[]);
    for text in [
        r#"{"s":"a","t":"gateway-proxy:b:x","d":1}"#,
        r#"{"s":"a","t":"gateway:opcode","d":{"opcode":10}}"#,
        r#"{"s":"a","t":"heartbeat:a"}"#,
        "garbage",
    ] {
        let mut early = gateway.connect();
        early.text(text);
        early.expect_error("not_identified");
        early.expect_close(4001);
    }
}

#[test]
fn a_connection_that_stays_silent_is_closed() {
    let gateway = Gateway::start(&["--identify-timeout-ms=200"]);
    gateway.connect().expect_close(4001);
}

#[test]
fn an_identify_that_does_not_fit_is_rejected_with_a_reason() {
    let gateway = Gateway::start(&[]);
    for name in ["", "gateway", "a b", "a\\u0000b", "é", &"x".repeat(65)] {
        let mut service = gateway.connect();
        service.text(&format!(r#"{{"s":"{name}","t":"gateway:opcode","d":{{"opcode":0}}}}"#));
        service.expect_reject("invalid_name");
    }
    for fields in
        [json!({"session": 7}), json!({"group": "a b"}), json!({"receipts": "yes"}), json!({"ack": 1})]
    {
        let mut service = gateway.connect();
        service.send_identify("a", fields);
        service.expect_reject("malformed");
    }
}

#[test]
fn an_opcode_may_be_a_string() {
    let gateway = Gateway::start(&[]);
    let mut service = gateway.connect();
    service.text(r#"{"s":"a","t":"gateway:opcode","d":{"opcode":"0"}}"#);
    service.expect_op(1);
}

#[test]
fn a_name_that_is_taken_is_refused_and_its_holder_stays() {
    let gateway = Gateway::start(&[]);
    let mut holder = gateway.service("a");
    let mut second = gateway.connect();
    second.send_identify("a", json!({"session": "guessed"}));
    let reject = second.expect_reject("already_connected");
    assert!(reject["retry_after_ms"].as_u64().unwrap() > 0, "{reject}");
    holder.expect_nothing();
}

#[test]
fn whoever_shows_the_session_secret_takes_a_live_connection_over() {
    let gateway = Gateway::start(&[]);
    let mut old = gateway.connect();
    let first = old.identify("a")["session"].clone();
    let mut other = gateway.service("b");
    let mut new = gateway.connect();
    let accept = new.identify_with("a", json!({"session": first}));
    assert_eq!(accept["resumed"], true);
    assert_ne!(accept["session"], first, "every ACCEPT has a new secret");
    old.expect_close(4010);
    other.send("a", "x", "1");
    assert_eq!(new.next().topic(), "x");

    // The secret before stays valid until the first message on the new connection.
    let mut third = gateway.connect();
    third.identify_with("a", json!({"session": accept["session"]}));
    let mut fourth = gateway.connect();
    let accept = fourth.identify_with("a", json!({"session": accept["session"]}));
    fourth.expect_nothing();
    let mut fifth = gateway.connect();
    fifth.send_identify("a", json!({"session": first}));
    fifth.expect_reject("already_connected");
    let mut sixth = gateway.connect();
    sixth.identify_with("a", json!({"session": accept["session"]}));
}

#[test]
fn a_service_restarted_at_once_is_never_refused() {
    let gateway = Gateway::start(&[]);
    let busy = AtomicBool::new(true);
    thread::scope(|scope| {
        // Neighbours keep both threads of the gateway busy meanwhile.
        for name in ["busy-1", "busy-2"] {
            let (gateway, busy) = (&gateway, &busy);
            scope.spawn(move || {
                let mut service = gateway.service(name);
                while busy.load(Ordering::Relaxed) {
                    service.texts(
                        (0..200)
                            .map(|_| format!(r#"{{"s":"{name}","t":"gateway-proxy:{name}:x","d":[1,2]}}"#)),
                    );
                    (0..200).for_each(|_| drop(service.next()));
                }
            });
        }
        for round in 0..60 {
            let service = gateway.service("a");
            match round % 3 {
                0 => service.vanish(),
                1 => service.close(1000),
                // A process that was killed: its socket is closed with bytes unread.
                _ => drop(service),
            }
        }
        busy.store(false, Ordering::Relaxed);
    });
    assert_eq!(gateway.connect().identify("a")["resumed"], true);
}

#[test]
fn a_service_that_died_while_it_was_held_is_not_in_its_own_way() {
    let gateway = Gateway::start(&["--mailbox-messages=1", "--hold-ms=1000"]);
    gateway.service("full").vanish();
    gateway.wait_for_log("full is away");
    let mut held = gateway.service("a");
    held.texts((0..2).map(|_| r#"{"s":"a","t":"gateway-proxy:full:x"}"#.to_owned()));
    eventually("the mailbox is full", || (gateway.account("full")[4] == 1).then_some(()));
    // The gateway does not read it for a second, and so does not notice its end.
    held.vanish();
    assert_eq!(gateway.connect().identify("a")["resumed"], true);
}

#[test]
fn close_4000_ends_the_session_at_once() {
    let gateway = Gateway::start(&[]);
    let mut watcher = gateway.service("w");
    gateway.service("a").close(4000);
    gateway.wait_for_log("a is down: it left for good");
    watcher.send("a", "x", "1");
    watcher.expect_error("no_such_service");
    assert_eq!(gateway.connect().identify("a")["resumed"], false);
}

#[test]
fn who_left_for_good_and_is_back_at_once_is_new_however_busy_its_thread_is() {
    let gateway = Gateway::start(&[]);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for n in 0..6 {
            let mut busy = gateway.service(&format!("busy-{n}"));
            let refused = format!(r#"{{"s":"busy-{n}","t":"gateway-proxy:nobody:x"}}"#);
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    busy.texts((0..200).map(|_| refused.clone()));
                    (0..200).for_each(|_| drop(busy.next()));
                }
            });
        }
        let _end = EndAtDrop(&is_over);
        for _ in 0..60 {
            let mut service = gateway.connect();
            assert_eq!(service.identify("a")["resumed"], false);
            service.close(4000);
        }
    });
}

/// Ends what the other threads do even if the test panics: its scope waits for them.
struct EndAtDrop<'a>(&'a AtomicBool);

impl Drop for EndAtDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn sessions_and_connections_are_bounded() {
    let gateway = Gateway::start(&["--max-sessions=2"]);
    let (_a, b) = (gateway.service("a"), gateway.service("b"));
    let mut third = gateway.connect();
    third.send_identify("c", json!({}));
    third.expect_reject("at_capacity");
    b.close(4000);
    gateway.service("c");

    // One that is away and holds something keeps its place; one that holds nothing does not.
    let gateway = Gateway::start(&["--max-sessions=2"]);
    let mut a = gateway.service("a");
    gateway.service("b").vanish();
    gateway.wait_for_log("b is away");
    a.send("b", "x", "1");
    a.expect_nothing();
    let mut third = gateway.connect();
    third.send_identify("c", json!({}));
    third.expect_reject("at_capacity");
    let mut b = gateway.service("b");
    assert_eq!(b.next().topic(), "x");
    b.vanish();
    eventually("b is away again", || (gateway.metric("gateway_sessions", "away") == 1).then_some(()));
    gateway.service("c").expect_nothing();
    gateway.wait_for_log("b is down: it held nothing");

    let gateway = Gateway::start(&["--max-connections=1"]);
    let mut first = gateway.service("a");
    gateway.connect().expect_reject("at_capacity");
    first.expect_nothing();
}

fn post(gateway: &Gateway, name: &str, fields: &Value) -> (u16, Value) {
    let mut data = fields.clone();
    data["opcode"] = json!(0);
    let body = json!({"s": name, "t": "gateway:opcode", "d": data});
    gateway.post_json("/gateway", &body.to_string())
}

#[test]
fn a_ticket_is_good_for_one_connection() {
    let gateway = Gateway::start(&[]);
    let (status, accept) = post(&gateway, "a", &json!({"receipts": true}));
    assert_eq!(
        (status, &accept["d"]["opcode"], &accept["d"]["ticket_expires_ms"]),
        (200, &json!(1), &json!(30_000))
    );
    let path = format!("/gateway?ticket={}", accept["d"]["ticket"].as_str().unwrap());
    let mut service = Service::open(gateway.address(), &path);
    let accepted = service.expect_op(1);
    assert_eq!((&accepted["service"], &accepted["resumed"]), (&json!("a"), &json!(false)));
    // What was asked for by POST holds.
    service.text(r#"{"s":"a","t":"gateway-proxy:a:x","n":7}"#);
    assert_eq!(service.expect_op(21)["n"], 7);
    assert_eq!(service.next().topic(), "x");
    Service::open(gateway.address(), &path).expect_reject("unauthorized");
    Service::open(gateway.address(), "/gateway?ticket=guessed").expect_reject("unauthorized");
}

#[test]
fn a_service_that_knows_no_tickets_names_itself() {
    let gateway = Gateway::start(&[]);
    post(&gateway, "a", &json!({}));
    let mut by_message = gateway.connect();
    by_message.text(r#"{"s":"a","t":"gateway-proxy:a:x","d":1}"#);
    by_message.expect_op(1);
    assert_eq!(by_message.next().text, r#"{"s":"a","t":"x","d":1}"#, "its first message is a message too");
    post(&gateway, "b", &json!({}));
    let _holder = gateway.service("b");
    // The ticket is used up.
    let mut second = gateway.connect();
    second.send_identify("b", json!({}));
    second.expect_reject("already_connected");
}

#[test]
fn identifying_by_http_is_refused_as_by_websocket() {
    let gateway = Gateway::start(&["--max-sessions=1"]);
    let holder = gateway.service("a");
    let code = |(status, answer): (u16, Value)| {
        (status, answer["d"]["code"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(code(post(&gateway, "a", &json!({}))), (409, "already_connected".to_owned()));
    assert_eq!(code(post(&gateway, "b", &json!({}))), (503, "at_capacity".to_owned()));
    assert_eq!(code(post(&gateway, "b c", &json!({}))), (400, "invalid_name".to_owned()));
    assert_eq!(code(post(&gateway, "b", &json!({"group": 7}))), (400, "malformed".to_owned()));
    assert_eq!(code(gateway.post_json("/gateway", "{")), (400, "malformed".to_owned()));
    holder.close(4000);
    eventually("the name is free", || (post(&gateway, "b", &json!({})).0 == 200).then_some(()));
}

#[test]
fn connections_that_never_identify_displace_each_other_and_no_service() {
    let gateway = Gateway::start(&["--max-unidentified=20"]);
    let mut early = gateway.service("early");
    let mut idle: Vec<Service> = (0..60).map(|_| gateway.connect()).collect();
    // Once they have waited for two seconds.
    for displaced in &mut idle[..40] {
        while displaced.any_frame().is_some() {}
    }
    gateway.service("late").expect_nothing();
    early.expect_nothing();
    idle.last_mut().unwrap().identify("last");
    let displaced = gateway.metric("gateway_turned_away_total", "displaced");
    assert!((40..=41).contains(&displaced), "{displaced}: 40, and perhaps one for those that came after");
    assert_eq!(gateway.metric("gateway_turned_away_total", "no_request"), 0, "each is counted once");
}

#[test]
fn a_storm_of_services_displaces_nobody() {
    const SERVICES: usize = 400;
    let gateway = Gateway::start(&["--max-unidentified=20"]);
    // All are there before the first of them speaks, as after a restart of the gateway.
    let mut storm: Vec<Service> = (0..SERVICES).map(|_| gateway.connect()).collect();
    for (index, service) in storm.iter_mut().enumerate() {
        service.send_identify(&format!("s{index}"), json!({}));
    }
    for service in &mut storm {
        service.expect_op(1);
    }
    assert_eq!(gateway.metric("gateway_turned_away_total", "displaced"), 0);
}

#[test]
fn of_two_connections_that_take_over_at_once_the_one_that_stays_is_served() {
    let gateway = Gateway::start(&["--workers=2"]);
    let mut owner = gateway.connect();
    let mut session = owner.identify("a")["session"].clone();
    let mut source = gateway.service("b");
    for round in 0..150 {
        let mut pair = [gateway.connect(), gateway.connect()];
        for service in &mut pair {
            service.send_identify("a", json!({"session": session}));
        }
        (owner, session) = who_stays(pair);
        source.send("a", "x", &round.to_string());
        assert_eq!(owner.next().json["d"], round);
    }
}

/// The one whose connection is not closed, and the secret that it was told.
fn who_stays(pair: [Service; 2]) -> (Service, Value) {
    let mut accepts: [Option<Value>; 2] = [None, None];
    let mut pair = pair.map(Some);
    eventually("one of the two is closed", || {
        for (place, accept) in pair.iter_mut().zip(&mut accepts) {
            let Some(service) = place else { continue };
            match service.poll() {
                Ok(Some(message)) if message.json["d"]["opcode"] == 1 => *accept = Some(message.json),
                Ok(_) => {}
                Err(()) => *place = None,
            }
        }
        let is_decided = pair.iter().zip(&accepts).any(|(place, accept)| place.is_some() && accept.is_some());
        (is_decided && pair.iter().flatten().count() == 1).then_some(())
    });
    let (service, accept) =
        pair.into_iter().zip(accepts).find_map(|(service, accept)| service.zip(accept)).unwrap();
    (service, accept["d"]["session"].clone())
}

#[test]
fn a_takeover_by_an_older_websocket_that_dies_at_once_leaves_the_session_away() {
    let gateway = Gateway::start(&["--resume-window-ms=200", "--workers=2"]);
    for round in 0..60 {
        let mut older = gateway.connect();
        let mut current = gateway.connect();
        let name = format!("s{round}");
        let session = current.identify(&name)["session"].clone();
        older.send_identify(&name, json!({"session": session}));
        // Its socket is reset before the answer.
        drop(older);
        drop(current);
        gateway.wait_for_log(&format!("{name} is down"));
    }
}
