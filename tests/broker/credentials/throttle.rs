//! Guessing.

use super::tokens::{Signed, claims};
use super::{Guarded, bearer, entry, operator};
use crate::support::Service;

#[test]
fn who_guesses_is_not_looked_at_and_who_knows_gets_in_all_the_same() {
    let guarded = Guarded::start(&operator(), &["--auth-failures-per-minute=5"]);
    let turned = |why: &str| guarded.metric("gateway_turned_away_total", why);
    for n in 0..5 {
        assert_eq!(guarded.identify("a", &format!("guess-{n}")).unwrap_err(), "unauthorized");
    }
    let mut service = guarded.gateway.connect();
    service.send_identify("a", serde_json::json!({"token": "guess"}));
    let reject = service.expect_reject("unauthorized");
    assert!(reject["retry_after_ms"].as_u64().unwrap() <= 12_000, "{reject}");
    let raw = guarded.gateway.http_raw("GET", "/metrics", &[&bearer("guess")], "");
    assert!(raw.starts_with("HTTP/1.1 429 ") && raw.to_lowercase().contains("\r\nretry-after: "), "{raw}");
    assert_eq!((turned("\"unauthorized\""), turned("too_many_failures")), (5, 2));
    drop(guarded.identify("a", "the-operators-token").unwrap());
    let lines = guarded.gateway.log().matches("showed no valid credential").count();
    assert_eq!(lines, 5, "what is not looked at is not logged either");
}

#[test]
fn a_signed_token_that_is_new_is_not_checked_for_who_guesses_too_much() {
    let signed = Signed::new();
    let guarded = signed.start(&operator(), &["--auth-failures-per-minute=1"]);
    let token = signed.token(&claims(3600));
    drop(guarded.identify("a", &token).unwrap());
    assert_eq!(guarded.identify("b", "guess").unwrap_err(), "unauthorized");
    drop(guarded.identify("b", &token).unwrap());
    let new = signed.token(&claims(3601));
    assert_eq!(guarded.identify("c", &new).unwrap_err(), "unauthorized");
}

#[test]
fn guessed_tickets_count_as_well() {
    let guarded = Guarded::start(&operator(), &["--auth-failures-per-minute=3"]);
    let guess = || {
        let mut service = Service::open(guarded.gateway.address(), "/gateway?ticket=guess");
        service.expect_reject("unauthorized")["retry_after_ms"].as_u64()
    };
    assert_eq!([guess(), guess(), guess()], [None; 3]);
    assert!(guess().is_some());
    assert_eq!(guarded.metric("gateway_turned_away_total", "\"unauthorized\""), 3);
}

#[test]
fn an_answer_does_not_tell_what_was_wrong() {
    let expired = entry("old", "an-old-token", "names = [\"*\"]\nexpires = 2020-01-01T00:00:00Z");
    let guarded = Guarded::start(&(operator() + &expired), &[]);
    let answer = |fields| {
        let mut service = guarded.gateway.connect();
        service.send_identify("a", fields);
        service.expect_reject("unauthorized").to_string()
    };
    let missing = answer(serde_json::json!({}));
    for token in ["", "wrong", "an-old-token", "eyJhbGciOiJub25lIn0.e30."] {
        assert_eq!(answer(serde_json::json!({"token": token})), missing, "{token}");
    }
}
