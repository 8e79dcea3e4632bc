//! What is read and written, by example.

use super::*;
use crate::protocol::name::{Epoch, ShardId};

fn code_of(data: &str) -> ErrorCode {
    ServiceOp::parse(data).expect_err(data).code
}

#[test]
fn an_opcode_is_a_number_or_a_numeric_string() {
    for data in [r#"{"opcode":0}"#, r#"{"opcode":"0"}"#] {
        assert_eq!(ServiceOp::parse(data), Ok(ServiceOp::Identify(Identify::default())), "{data}");
    }
    for data in [
        "null",
        "{}",
        "[]",
        r#"{"opcode":null}"#,
        r#"{"opcode":1.5}"#,
        r#"{"opcode":-1}"#,
        r#"{"opcode":"x"}"#,
        r#"{"opcode":""}"#,
        "[22]",
        r#" ["22"]"#,
    ] {
        assert_eq!(code_of(data), ErrorCode::Malformed, "{data}");
    }
}

#[test]
fn an_op_of_the_gateways_is_told_from_an_unknown_one() {
    for number in [1, 2, 3, 4, 11, 20, 21, 24, 30, 32, 33] {
        assert_eq!(code_of(&format!(r#"{{"opcode":{number}}}"#)), ErrorCode::GatewayOnlyOp, "{number}");
    }
    for number in ["5", "99", "18446744073709551616"] {
        assert_eq!(code_of(&format!(r#"{{"opcode":{number}}}"#)), ErrorCode::UnknownOp, "{number}");
    }
}

#[test]
fn a_field_that_does_not_fit_is_named() {
    let cases = [
        (r#"{"opcode":0,"session":7}"#, "`d.session`"),
        (r#"{"opcode":0,"group":"a b"}"#, "`d.group`"),
        (r#"{"opcode":10,"shard_id":"x"}"#, "`d.shard_id`"),
        (r#"{"opcode":10,"shard_id":-1}"#, "`d.shard_id`"),
        (r#"{"opcode":10,"shard_count":4}"#, "`d.shard_count`"),
        (r#"{"opcode":12,"close_code":70000}"#, "`d.close_code`"),
        (r#"{"opcode":31,"state":"ready"}"#, "shard_id"),
        (r#"{"opcode":23,"services":"a b"}"#, "`d.services`"),
    ];
    for (data, field) in cases {
        let error = ServiceOp::parse(data).expect_err(data);
        assert_eq!(error.code, ErrorCode::Malformed, "{data}");
        assert!(error.message.contains(field), "{data}: {}", error.message);
    }
}

#[test]
fn a_pattern_with_stars_matches_any_run() {
    let matches = |pattern: &str, name: &str| Watch { services: pattern.to_owned() }.matches(name);
    assert!(matches("*", "anything"));
    assert!(matches("shard-*", "shard-3"));
    assert!(matches("*-3", "shard-3"));
    assert!(matches("s*d-*", "shard-3"));
    assert!(matches("shard-3", "shard-3"));
    assert!(!matches("shard-3", "shard-33"));
    assert!(!matches("shard-*", "backend"));
    assert!(!matches("ab*ba", "aba"));
}

#[test]
fn an_op_of_the_gateways_is_one_message() {
    let op = GatewayOp::Error(Error {
        n: RawValue::from_string("7".to_owned()).ok(),
        ..Error::new(ErrorCode::Malformed, "no")
    });
    assert_eq!(
        op.to_json(),
        r#"{"s":"gateway","t":"gateway:opcode","d":{"opcode":20,"code":"malformed","message":"no","n":7}}"#
    );
}

#[test]
fn resume_data_is_handed_on_byte_for_byte() {
    let json = r#"{"session_id":"a\u0062","seq":1.50,"seq":2,"resume_gateway_url":"wss://x"}"#;
    let data = format!(r#"{{"opcode":12,"close_code":1006,"resume":{json}}}"#);
    let Ok(ServiceOp::ShardDeath(death)) = ServiceOp::parse(&data) else { panic!("{data}") };
    assert_eq!(death.close_code, Some(1006));
    let accept = ShardAccept {
        shard_id: ShardId(0),
        shard_count: 1,
        epoch: Epoch(2),
        max_concurrency: 1,
        resume: death.resume,
    };
    let text = GatewayOp::ShardAccept(accept).to_json();
    assert!(text.ends_with(&format!(r#""max_concurrency":1,"resume":{json}}}}}"#)), "{text}");
}

#[test]
fn resume_data_that_is_too_long_is_malformed() {
    let resume = |length: usize| format!(r#"{{"opcode":12,"resume":"{}"}}"#, "x".repeat(length - 2));
    assert!(ServiceOp::parse(&resume(shard::MAX_RESUME_BYTES)).is_ok());
    let error = ServiceOp::parse(&resume(shard::MAX_RESUME_BYTES + 1)).expect_err("too long");
    assert_eq!(error.code, ErrorCode::Malformed);
    assert!(error.message.contains("at most 4096 bytes"), "{}", error.message);
}

#[test]
fn a_state_of_a_shard_is_one_of_three() {
    let state = |state: &str| {
        let data = format!(r#"{{"opcode":"31","shard_id":3,"state":"{state}","resume":null}}"#);
        ServiceOp::parse(&data)
    };
    for (word, expected) in [
        ("identifying", LeaseState::Identifying),
        ("ready", LeaseState::Ready),
        ("resumed", LeaseState::Resumed),
    ] {
        let told = ShardState { shard_id: 3, shard_count: None, state: expected, resume: None };
        assert_eq!(state(word), Ok(ServiceOp::ShardState(told)));
    }
    let error = state("dead").expect_err("no such state");
    assert!(error.message.contains("`d.state`"), "{}", error.message);
}

#[test]
fn reasons_to_wait_are_told_as_the_protocol_spells_them() {
    for reason in WaitReason::ALL {
        let wait = ShardWait { reason, position: 2, retry_after_ms: Some(7) };
        let text = GatewayOp::ShardWait(wait).to_json();
        let expected = format!(r#""reason":"{}","position":2,"retry_after_ms":7"#, reason.as_str());
        assert!(text.contains(&expected), "{text}");
    }
}

#[test]
fn a_value_that_does_not_fit_is_not_repeated_at_length() {
    for filling in ["x", "é", "\u{7f}", r"\n"] {
        let data = format!(r#"{{"opcode":22,"i":"{}"}}"#, filling.repeat(100_000));
        let message = ServiceOp::parse(&data).expect_err("a string is no number").message;
        assert!(message.len() < 512, "{} bytes: {message}", message.len());
        assert!(message.contains("`d.i`: invalid type: string"), "{message}");
        assert!(message.contains("expected u64"), "{message}");
    }
}
