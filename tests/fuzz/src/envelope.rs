//! The envelope parser: what passes, what is found and what is cut is what `serde_json` says, and all
//! scans that the machine's instructions allow say the same as the one by tokens.
//!
//! Input: one byte for `max_depth`, then the message. What is not UTF-8 is left off, as the
//! connection checks that before.

use gateway::protocol::envelope::{Envelope, Proxy, Route};
use gateway::protocol::error::ErrorCode;
use gateway::protocol::name::{Name, ShardId};
use gateway::protocol::op::{Hidden, OpError, ServiceOp};
use gateway::protocol::scan::{Head, Limits, Malformed, scan, scan_each_way};
use gateway::protocol::target::Target;
use serde_json::Value;

use super::oracle::{Message, decode};

/// The most bytes in the text of an ERROR, whatever it is about.
const MAX_ERROR_BYTES: usize = 512;

pub fn run(input: &[u8]) {
    let [max_depth, text @ ..] = input else { return };
    let text = text.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    let max_depth = 1 + u32::from(*max_depth);
    let expected = Message::parse(text, max_depth);
    let found = scan(text, Limits { max_depth });
    for same in scan_each_way(text, Limits { max_depth }) {
        assert_eq!(found, same, "in {text:?}");
    }
    match (found, expected) {
        (Ok(envelope), Some(expected)) => check(&envelope, &expected),
        (Err(malformed), None) => {
            let told = malformed.to_string();
            assert!(told.len() <= MAX_ERROR_BYTES, "{} bytes: {told}", told.len());
        }
        (found, expected) => panic!("found {found:?}\nexpected {expected:?}\nin {text:?}"),
    }
    check_behind_head(text, Limits { max_depth });
}

/// What passes behind a known head, and is found, is what the scan of the whole finds.
fn check_behind_head(text: &str, limits: Limits) {
    let (begun, any) = (r#"{"s":"a","t":"gateway-proxy:b:"#, Limits { max_depth: 1 });
    let first = format!(r#"{begun}c"}}"#);
    let (envelope, proxy) = routed(&first, any).and_then(Result::ok).expect("it is well formed");
    let head = Head::of(&envelope, &proxy).expect("it is plain");
    // As the rest of the topic with all behind it, and as its data.
    for rest in [text, &format!(r#"c","d":{text}}}"#)] {
        let whole = format!("{begun}{rest}");
        let expected = routed(&whole, limits).filter(|_| !rest.starts_with('"'));
        assert_eq!(head.scan(&whole, limits), expected, "in {whole:?}");
    }
}

/// `None`: it is not to be forwarded.
fn routed(text: &str, limits: Limits) -> Option<Result<(Envelope<'_>, Proxy<'_>), Malformed>> {
    match scan(text, limits) {
        Ok(envelope) => match envelope.route() {
            Route::Proxy(proxy) => Some(Ok((envelope, proxy))),
            _ => None,
        },
        Err(malformed) => Some(Err(malformed)),
    }
}

fn check(envelope: &Envelope<'_>, expected: &Message<'_>) {
    let (source, topic) = (envelope.source(), envelope.topic());
    assert!(is_same(source.raw(), unquoted(expected.source)), "{envelope:?}\n{expected:?}");
    assert!(is_same(topic.raw(), unquoted(expected.topic)), "{envelope:?}\n{expected:?}");
    assert_eq!(envelope.data(), expected.data.unwrap_or("null"));
    assert_eq!(envelope.nonce(), expected.nonce);
    assert_eq!(source.decode(), decode(expected.source));
    let topic = decode(expected.topic);
    assert_eq!(envelope.topic().decode(), topic);
    check_route(envelope, expected, &topic);
}

/// Whether these are the same bytes at the same place.
fn is_same(one: &str, other: &str) -> bool {
    one == other && one.as_ptr() == other.as_ptr()
}

fn unquoted(string: &str) -> &str {
    &string[1..string.len() - 1]
}

fn check_route(envelope: &Envelope<'_>, expected: &Message<'_>, topic: &str) {
    let route = envelope.route();
    if let Some(rest) = topic.strip_prefix("gateway-proxy:") {
        let parts = rest.split_once(':').filter(|(target, rest)| !target.is_empty() && !rest.is_empty());
        match (route, parts) {
            (Route::Proxy(proxy), Some((target, rest))) => {
                assert_eq!(proxy.target, target);
                if let Some(head) = Head::of(envelope, &proxy) {
                    let again = head.scan(envelope.text(), Limits { max_depth: u32::MAX });
                    assert_eq!(again, Some(Ok((*envelope, proxy.clone()))));
                }
                check_target(target);
                let text = envelope.text();
                check_cut(&[&text[..proxy.cut.start], &text[proxy.cut.end..]].concat(), expected, rest);
            }
            (Route::Malformed(_), None) => {}
            (route, parts) => panic!("{route:?} for {parts:?} in {topic:?}"),
        }
    } else if let Some(name) = topic.strip_prefix("heartbeat:") {
        assert_eq!(route, Route::Heartbeat(name.into()));
    } else if topic == "gateway:opcode" {
        assert_eq!(route, Route::Op);
        check_op(envelope.data());
    } else {
        assert_eq!(route, Route::Unroutable, "{topic:?}");
    }
}

/// What the target gets is the same message with the rest of the topic.
fn check_cut(text: &str, before: &Message<'_>, topic: &str) {
    let after = Message::parse(text, u32::MAX).unwrap_or_else(|| panic!("the cut left {text:?}"));
    assert_eq!(decode(after.topic), topic, "{text:?}");
    assert_eq!(Message { topic: before.topic, ..after }, *before);
    let envelope = scan(text, Limits { max_depth: u32::MAX }).expect("it is well formed");
    assert_eq!(envelope.topic().raw(), unquoted(after.topic));
}

fn check_target(text: &str) {
    let is_name = Name::new(text).is_ok() || text == "gateway";
    let number = |prefix: &str| {
        let number = text.strip_prefix(prefix)?.parse::<u64>().ok()?;
        (format!("{prefix}{number}") == text).then_some(number)
    };
    let expected = if let Some(shard) = number("shard/").and_then(|number| number.try_into().ok()) {
        Some(Target::Shard(ShardId(shard)))
    } else if let Some(guild) = number("guild/") {
        Some(Target::Guild(guild))
    } else {
        is_name.then_some(Target::Service(text))
    };
    assert_eq!(Target::parse(text), expected, "{text:?}");
}

fn check_op(data: &str) {
    let parsed = ServiceOp::parse(data);
    if let Err(OpError { message, .. }) = &parsed {
        assert!(message.len() <= MAX_ERROR_BYTES, "{} bytes: {message}", message.len());
    }
    // A lone surrogate, a number out of range and more than 128 levels are no `Value`.
    let Ok(data) = serde_json::from_str::<Value>(data) else { return };
    let number = match &data["opcode"] {
        Value::String(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
        number => number.as_u64(),
    };
    match parsed {
        Ok(op) => check_fields(&op, number, &data),
        Err(OpError { code: ErrorCode::GatewayOnlyOp, .. }) => {
            assert!(matches!(number, Some(1..=4 | 11 | 20 | 21 | 24 | 30 | 32 | 33)), "{data}");
        }
        Err(OpError { code: ErrorCode::UnknownOp, .. }) => {
            assert!(!matches!(number, Some(0..=4 | 10..=12 | 20..=24 | 30 | 32 | 33)), "{data}");
        }
        Err(OpError { code, .. }) => assert_eq!(code, ErrorCode::Malformed, "{data}"),
    }
}

/// What was read of an op is what stands there.
#[allow(clippy::match_wildcard_for_single_variants, reason = "without `fault-injection` there is none")]
fn check_fields(op: &ServiceOp, number: Option<u64>, data: &Value) {
    let is = |key: &str, expected: Value| assert_eq!(data[key], expected, "`{key}` of {data}");
    // serde reads a struct from an array too; an op is an object.
    assert!(data.is_object(), "{data}");
    match op {
        ServiceOp::Identify(identify) => {
            assert_eq!(number, Some(0), "{data}");
            is("token", identify.token.as_ref().map(Hidden::reveal).into());
            is("session", identify.session.as_ref().map(Hidden::reveal).into());
            is("group", identify.group.clone().into());
            assert_eq!(data["ack"].as_bool().unwrap_or_default(), identify.ack, "{data}");
            assert_eq!(data["receipts"].as_bool().unwrap_or_default(), identify.receipts, "{data}");
        }
        ServiceOp::ShardConnect(connect) => {
            assert_eq!(number, Some(10), "{data}");
            is("shard_id", connect.shard_id.into());
            is("shard_count", connect.shard_count.into());
            is("identify", connect.identify.into());
        }
        ServiceOp::ShardDeath(death) => {
            assert_eq!(number, Some(12), "{data}");
            is("shard_id", death.shard_id.into());
            is("close_code", death.close_code.into());
        }
        ServiceOp::Ack(ack) => {
            assert_eq!(number, Some(22), "{data}");
            is("i", ack.i.into());
        }
        ServiceOp::Watch(watch) => {
            assert_eq!(number, Some(23), "{data}");
            assert_eq!(data["services"].as_str().unwrap_or("*"), watch.services, "{data}");
        }
        #[allow(unreachable_patterns, reason = "there is one more with `fault-injection`")]
        _ => {}
    }
}
