//! Names that are somebody else's: guessed secrets, and tickets that keep others away.

use serde_json::{Value, json};

use super::{Guarded, bearer, entry, operator};
use crate::support::Gateway;

/// What somebody may try who knows what a secret looks like, and even nearly knows it.
fn guesses(secret: &str) -> Vec<String> {
    let nearly = |at: usize| {
        let mut bytes = secret.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        String::from_utf8(bytes).unwrap()
    };
    let length = secret.len();
    let mut guesses: Vec<String> = (0..length).map(nearly).collect();
    guesses.extend(["", "null", "*", "%", "0", "' or '1'='1"].map(str::to_owned));
    guesses.extend([&secret[1..], &secret[..length - 1]].map(str::to_owned));
    guesses.extend([
        format!("{secret}0"),
        format!(" {secret}"),
        format!("{secret}\n"),
        format!("{secret}\0"),
    ]);
    guesses.extend(
        [secret.to_uppercase(), "0".repeat(length), secret.repeat(2)]
            .into_iter()
            .filter(|guess| guess != secret),
    );
    guesses
}

#[test]
fn a_live_name_is_not_given_to_whoever_guesses_its_session() {
    // The owner answers no ping meanwhile, and whoever is away is not live.
    let gateway = Gateway::start(&["--heartbeat-ms=3600000"]);
    let mut owner = gateway.connect();
    let accept = owner.identify_with("owned", json!({}));
    let secret = accept["session"].as_str().unwrap();
    owner.expect_nothing();
    for guess in guesses(secret) {
        let mut thief = gateway.connect();
        thief.send_identify("owned", json!({"session": guess}));
        thief.expect_reject("already_connected");
        let post = json!({"s": "owned", "t": "gateway:opcode", "d": {"opcode": 0, "session": guess}});
        assert_eq!(gateway.post_json("/gateway", &post.to_string()).0, 409, "{guess:?}");
    }
    owner.expect_nothing();
    assert_eq!(gateway.metric("gateway_closes_total", "4010"), 0);
    let mut heir = gateway.connect();
    assert_eq!(
        heir.identify_with("owned", json!({"session": secret}))["resumed"],
        true,
        "the secret itself does"
    );
    owner.expect_close(4010);
}

#[test]
fn a_ticket_is_not_guessed() {
    let gateway = Gateway::start(&[]);
    let post = json!({"s": "held", "t": "gateway:opcode", "d": {"opcode": 0}});
    let (status, accept) = gateway.post_json("/gateway", &post.to_string());
    assert_eq!(status, 200, "{accept}");
    let ticket = accept["d"]["ticket"].as_str().unwrap();
    let is_plain = |guess: &String| guess.bytes().all(|byte| byte.is_ascii_alphanumeric());
    for guess in guesses(ticket).into_iter().filter(is_plain) {
        let path = format!("/gateway?ticket={guess}");
        crate::support::Service::open(gateway.address(), &path).expect_reject("unauthorized");
    }
    let mut owner = crate::support::Service::open(gateway.address(), &format!("/gateway?ticket={ticket}"));
    assert_eq!(owner.expect_op(1)["service"], "held");
}

#[test]
fn nobody_keeps_all_names_from_the_others_by_tickets() {
    let other = entry("other", "another-token", "names = [\"*\"]");
    let guarded = Guarded::start(&(operator() + &other), &["--max-tickets=3"]);
    let post = |name: &str, token: &str| -> (u16, Value) {
        let identify = json!({"s": name, "t": "gateway:opcode", "d": {"opcode": 0}});
        let headers = ["Content-Type: application/json", &bearer(token)];
        let (status, body) = guarded.gateway.http("POST", "/gateway", &headers, &identify.to_string());
        (status, serde_json::from_str::<Value>(&body).unwrap()["d"].clone())
    };
    let tickets: Vec<Value> =
        ["a", "b", "c"].iter().map(|name| post(name, "another-token").1["ticket"].clone()).collect();
    let (status, reject) = post("d", "another-token");
    assert_eq!((status, &reject["code"]), (503, &json!("at_capacity")), "{reject}");
    let message = reject["message"].as_str().unwrap();
    assert!(message.contains("max_tickets = 3"), "{message}");
    assert!((1..=30_000).contains(&reject["retry_after_ms"].as_u64().unwrap()), "{reject}");
    // Neither others nor its own services are in its way.
    assert_eq!(post("d", "the-operators-token").0, 200);
    drop(guarded.identify("e", "another-token").unwrap());
    let path = format!("/gateway?ticket={}", tickets[0].as_str().unwrap());
    crate::support::Service::open(guarded.gateway.address(), &path).expect_op(1);
    assert_eq!(post("f", "another-token").0, 200, "one was used");
}
