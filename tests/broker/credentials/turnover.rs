//! Credentials that end, change, or are read anew.

use nix::sys::signal::Signal;
use serde_json::json;

use super::tokens::{Signed, claims};
use super::{Guarded, bearer, entry, operator};
use crate::shard_store::{limit_files, to_be_limited};
use crate::support::Service;

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
        "INFO  audit] operator at 127.0.0.1: POST /api/v1/shards/freeze: 200",
        "INFO  audit] reader at 127.0.0.1: POST /api/v1/shards/freeze: 403",
    ] {
        guarded.gateway.wait_for_log(line);
    }
    let log = guarded.gateway.log();
    assert_eq!(log.matches("audit]").count(), 2, "who has no credential leaves none: {log}");
}

#[test]
fn no_filter_turns_the_lines_of_changes_off() {
    let guarded = Guarded::start(&operator(), &["--log=error,gateway=info,audit=off"]);
    let path = format!("/{}", "x".repeat(5000));
    guarded.gateway.http("POST", &path, &[&bearer("the-operators-token")], "");
    guarded.gateway.wait_for_log(&format!("audit] operator at 127.0.0.1: POST /{}: 404", "x".repeat(127)));
}

/// A gateway where `shards` may use these ops, and a service that has shard 0 and a watch with it.
fn holder(ops: &str) -> (Guarded, Service) {
    let all = "names = [\"*\"]\nsend = [\"*\"]\n";
    let guarded = Guarded::start(&(operator() + &shard(&format!("{all}ops = [{ops}]"))), &["--shards=1"]);
    let mut holder = guarded.identify("a", "the-shards-token").unwrap();
    holder.send_op(&json!({"opcode": 10}));
    holder.expect_op(11);
    holder.send_op(&json!({"opcode": 23, "services": "other"}));
    // It hears of itself being told nothing: a second op is answered behind the first.
    holder.send_op(&json!({"opcode": 99}));
    holder.expect_error("unknown_op");
    (guarded, holder)
}

/// Whoever comes back as `a` with that token has neither the id nor the watch.
fn expect_no_rights(guarded: &Guarded, token: &str) {
    let mut heir = guarded.gateway.connect();
    let accept = heir.identify_with("a", json!({"token": token}));
    assert_eq!((&accept["resumed"], &accept["shards"]), (&json!(true), &json!([])));
    heir.send_op(&json!({"opcode": 12, "shard_id": 0}));
    heir.expect_error("forbidden");
    let mut source = guarded.identify("other", "the-operators-token").unwrap();
    source.send("shard/0", "x", "1");
    source.expect_error("no_such_shard");
    heir.expect_nothing();
}

#[test]
fn a_name_that_another_credential_takes_over_brings_no_rights_with_it() {
    let (guarded, holder) = holder("\"shards\", \"watch\"");
    holder.vanish();
    guarded.gateway.wait_for_log("a is away");
    expect_no_rights(&guarded, "the-operators-token");
}

#[cfg(feature = "fault-injection")]
#[test]
fn whoever_takes_a_name_over_gets_nothing_for_its_shards_while_the_disk_hangs() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = format!("--data-dir={}", directory.path().display());
    let credentials = operator() + &shard("names = [\"*\"]\nops = [\"shards\"]");
    let guarded = Guarded::start(&credentials, &["--shards=1", &data_dir]);
    let mut holder = guarded.identify("a", "the-shards-token").unwrap();
    holder.send_op(&json!({"opcode": 10}));
    holder.expect_op(11);
    holder.send_op(&json!({"panic": "hung_disk"}));
    // The allocator answers this behind that.
    holder.send_op(&json!({"opcode": 10}));
    holder.expect_op(30);
    holder.vanish();
    guarded.gateway.wait_for_log("a is away");
    expect_no_rights(&guarded, "the-operators-token");
}

/// `a` holds the only id, or asked for it last, and whoever has its name next may not have shards, while the
/// disk takes nothing; then it recovers.
fn taken_over_while_the_disk_takes_nothing(is_granted_before: bool) {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = format!("--data-dir={}", directory.path().display());
    let credentials = operator() + &shard("names = [\"*\"]\nops = [\"shards\"]");
    let guarded = Guarded::start_as(&mut to_be_limited(), &credentials, "", &["--shards=1", &data_dir]);
    let mut holder = guarded.identify("a", "the-shards-token").unwrap();
    let mut other = guarded.identify("b", "the-shards-token").unwrap();
    if is_granted_before {
        holder.send_op(&json!({"opcode": 10}));
        holder.expect_op(11);
        limit_files(&guarded.gateway, "0");
        holder.send_op(&json!({"opcode": 31, "shard_id": 0, "state": "ready"}));
    } else {
        limit_files(&guarded.gateway, "0");
        holder.send_op(&json!({"opcode": 10}));
    }
    guarded.gateway.wait_for_log("no shard id is granted until the store takes it");
    holder.vanish();
    guarded.gateway.wait_for_log("a is away");
    expect_no_rights(&guarded, "the-operators-token");
    limit_files(&guarded.gateway, "unlimited");
    guarded.gateway.wait_for_log("shard 0/1 is free");
    // What the pool says is the same: the id is held back until whoever had it must have noticed.
    other.send_op(&json!({"opcode": 10}));
    assert_eq!(other.expect_op(30)["reason"], "no_free_shard");
    expect_no_rights(&guarded, "the-operators-token");
}

#[test]
fn what_was_granted_to_a_name_is_over_once_another_has_it_even_if_the_disk_hears_of_both_later() {
    taken_over_while_the_disk_takes_nothing(false);
}

#[test]
fn what_a_name_held_is_over_once_another_has_it_even_if_the_disk_hears_of_that_later() {
    taken_over_while_the_disk_takes_nothing(true);
}

#[cfg(feature = "fault-injection")]
#[test]
fn a_lease_that_is_told_late_is_not_told_to_whoever_has_the_name_by_then() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = format!("--data-dir={}", directory.path().display());
    let credentials = operator() + &shard("names = [\"*\"]\nops = [\"shards\"]");
    let guarded = Guarded::start(&credentials, &["--shards=1", &data_dir]);
    let mut holder = guarded.identify("a", "the-shards-token").unwrap();
    let mut source = guarded.identify("other", "the-operators-token").unwrap();
    // From now on each write takes a second, in which more comes, and the first one is done again.
    holder.send_op(&json!({"panic": "slow_disk"}));
    holder.send_op(&json!({"opcode": 10}));
    guarded.gateway.wait_for_log("it is done again as of later");
    holder.vanish();
    guarded.gateway.wait_for_log("a is away");
    let mut heir = guarded.identify("a", "the-operators-token").unwrap();
    guarded.gateway.wait_for_log("shard 0/1 is leased to a");
    source.send("shard/0", "x", "1");
    source.expect_error("no_such_shard");
    guarded.gateway.wait_for_log("shard 0/1 is free");
    heir.expect_nothing();
}

#[test]
fn rights_that_are_taken_away_are_over_when_the_service_comes_back() {
    let (guarded, mut holder) = holder("\"shards\", \"watch\"");
    let narrower = operator() + &shard("names = [\"*\"]\nsend = [\"*\"]");
    assert_eq!(guarded.reload(&narrower, "the-operators-token").0, 200);
    holder.expect_close(4003);
    guarded.gateway.wait_for_log("a is away");
    expect_no_rights(&guarded, "the-shards-token");
}

#[test]
fn sighup_reads_the_file_anew() {
    let guarded = Guarded::start(&(operator() + &shard("names = [\"*\"]")), &[]);
    let mut revoked = guarded.identify("a", "the-shards-token").unwrap();
    std::fs::write(guarded.file(), operator()).unwrap();
    guarded.gateway.signal(Signal::SIGHUP);
    revoked.expect_close(4003);
    guarded.gateway.wait_for_log("credentials reloaded");
}

#[test]
fn tokens_for_another_audience_end_when_it_changes() {
    let signed = Signed::new();
    let guarded = signed.start(&operator(), &[]);
    let mut service = guarded.identify("a", &signed.token(&claims(3600))).unwrap();
    let file = std::fs::read_to_string(guarded.file()).unwrap();
    let other = file.replace("audience = \"gateway\"", "audience = \"another\"");
    assert_eq!(guarded.reload(&other, "the-operators-token").0, 200);
    service.expect_close(4003);
    assert_eq!(guarded.identify("a", &signed.token(&claims(3600))).unwrap_err(), "unauthorized");
}
