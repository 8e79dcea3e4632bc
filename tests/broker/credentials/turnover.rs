//! Credentials that end, change, or are read anew.

use super::tokens::{Signed, claims};
use super::{Guarded, bearer, entry, operator};

fn shard(rights: &str) -> String {
    entry("shards", "the-shards-token", rights)
}

#[test]
fn a_credential_that_is_revoked_closes_its_sessions_and_no_others() {
    let guarded = Guarded::start(&(operator() + &shard("names = [\"*\"]")), &[]);
    let mut kept = guarded.identify("kept", "the-operators-token").unwrap();
    let mut revoked = guarded.identify("revoked", "the-shards-token").unwrap();
    let (status, body) = guarded.reload(&operator(), "the-operators-token");
    assert_eq!((status, body.as_str()), (200, r#"{"reloaded":["credentials"]}"#));
    assert!(revoked.expect_close(4003).contains("revoked"));
    kept.expect_nothing();
    assert_eq!(guarded.identify("revoked", "the-shards-token").unwrap_err(), "unauthorized");
    // What waited for it waits for whoever may have the name.
    kept.send("revoked", "x", "1");
    let mut heir = guarded.identify("revoked", "the-operators-token").unwrap();
    assert_eq!(heir.next().topic(), "x");
}

#[test]
fn a_credential_that_permits_other_things_closes_its_sessions_which_come_back_to_them() {
    let guarded = Guarded::start(&(operator() + &shard("names = [\"*\"]")), &[]);
    let mut service = guarded.identify("a", "the-shards-token").unwrap();
    service.send("a", "x", "1");
    service.expect_error("forbidden");
    let wider = operator() + &shard("names = [\"*\"]\nsend = [\"a\"]");
    assert_eq!(guarded.reload(&wider, "the-operators-token").0, 200);
    service.expect_close(4003);
    let mut service = guarded.identify("a", "the-shards-token").unwrap();
    service.expect_nothing();
}

#[test]
fn a_broken_file_keeps_the_old_one_and_says_why() {
    let guarded = Guarded::start(&operator(), &[]);
    let mut service = guarded.identify("a", "the-operators-token").unwrap();
    let (status, body) = guarded.reload("[[credential]]\nnaem = 1", "the-operators-token");
    assert!(status == 409 && body.contains("line 2: unknown field `naem`"), "{status} {body}");
    guarded.gateway.wait_for_log("credentials not reloaded, the old one stays in force");
    service.expect_nothing();
    drop(guarded.identify("b", "the-operators-token").unwrap());
}

#[test]
fn a_credential_that_expires_closes_its_sessions() {
    let signed = Signed::new();
    let guarded = signed.start(&operator(), &[]);
    let mut service = guarded.identify("a", &signed.token(&claims(3))).unwrap();
    assert!(service.expect_close(4003).contains("expired"));
    let mut service = guarded.identify("a", &signed.token(&claims(3600))).unwrap();
    service.expect_nothing();
}

#[test]
fn a_key_that_is_taken_away_closes_the_sessions_of_its_tokens() {
    let signed = Signed::new();
    let guarded = signed.start(&operator(), &[]);
    let mut service = guarded.identify("a", &signed.token(&claims(3600))).unwrap();
    assert_eq!(guarded.reload(&operator(), "the-operators-token").0, 200);
    service.expect_close(4003);
}

#[test]
fn whoever_changes_something_leaves_a_line() {
    let reader = entry("reader", "the-readers-token", "api = \"read\"");
    let guarded = Guarded::start(&(operator() + &reader), &[]);
    let freeze = |token: &str| guarded.gateway.http("POST", "/api/v1/shards/freeze", &[&bearer(token)], "").0;
    assert_eq!(
        (freeze("the-operators-token"), freeze("the-readers-token"), freeze("guess")),
        (200, 403, 401)
    );
    for line in [
        "audit: operator at 127.0.0.1: POST /api/v1/shards/freeze: 200",
        "audit: reader at 127.0.0.1: POST /api/v1/shards/freeze: 403",
        "audit: nobody at 127.0.0.1: POST /api/v1/shards/freeze: 401",
    ] {
        guarded.gateway.wait_for_log(line);
    }
}
