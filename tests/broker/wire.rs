//! What passes as a message, and what does not: frames, JSON, topics, ops.

use serde_json::json;

use crate::support::{Frame, Gateway, Service};

/// A gateway, a service under test, and a neighbour to which nothing may leak.
fn cast(flags: &[&str]) -> (Gateway, Service, Service) {
    let gateway = Gateway::start(flags);
    let (service, neighbour) = (gateway.service("a"), gateway.service("b"));
    (gateway, service, neighbour)
}

/// The text of a message to `b`, with this `d`.
fn to_neighbour(data: &str) -> String {
    format!(r#"{{"s":"a","t":"gateway-proxy:b:x","d":{data}}}"#)
}

#[test]
fn data_arrives_byte_for_byte() {
    let (_gateway, mut a, mut b) = cast(&[]);
    for data in [
        "null",
        "1.0",
        "1e5",
        "1E+5",
        "-0",
        "12345678901234567890123",
        r#"{"b":1,"a":2,"b":3}"#,
        r#""\u00e9 é \/ \ud800 \n""#,
        "[ 1 ,\n\t2 ]",
        r#"{"s":"forged","t":"forged","i":7}"#,
    ] {
        a.text(&to_neighbour(data));
        assert_eq!(b.next().text, format!(r#"{{"s":"a","t":"x","d":{data}}}"#));
    }
}

#[test]
fn keys_of_the_senders_own_and_white_space_are_forwarded() {
    let (_gateway, mut a, mut b) = cast(&[]);
    a.text("{ \"v\" : 1, \"t\":\"gateway-proxy:b:x:y\" ,\"s\":\"a\", \"n\": \"\\u0041\" }");
    assert_eq!(b.next().text, "{ \"v\" : 1, \"t\":\"x:y\" ,\"s\":\"a\", \"n\": \"\\u0041\" }");
}

#[test]
fn a_topic_may_be_spelled_with_escapes() {
    let (_gateway, mut a, mut b) = cast(&[]);
    a.text(r#"{"\u0073":"\u0061","t":"gateway\u002dproxy\u003ab:x\u003ay","d":1}"#);
    assert_eq!(b.next().text, r#"{"\u0073":"\u0061","t":"x\u003ay","d":1}"#);
}

#[test]
fn fragments_with_pings_between_them_are_one_message() {
    let (_gateway, mut a, mut b) = cast(&[]);
    let text = to_neighbour(r#""in pieces: é漢""#);
    let pieces: Vec<&[u8]> = text.as_bytes().chunks(5).collect();
    for (index, piece) in pieces.iter().enumerate() {
        let first = u8::from(index == 0);
        let fin = if index == pieces.len() - 1 { 0x80 } else { 0x00 };
        a.frame(first | fin, piece);
        if fin == 0 {
            let ping = format!("ping {index}");
            a.frame(0x89, ping.as_bytes());
            assert_eq!(a.any_frame(), Some(Frame { opcode: 10, payload: ping.into_bytes() }));
        }
    }
    assert_eq!(b.next().text, r#"{"s":"a","t":"x","d":"in pieces: é漢"}"#);
}

#[test]
fn a_message_of_the_largest_size_passes_and_one_byte_more_closes_1009() {
    let (gateway, mut a, mut b) = cast(&[]);
    let sized =
        |bytes: usize| to_neighbour(&format!("\"{}\"", "x".repeat(bytes - to_neighbour("\"\"").len())));
    a.text(&sized(1 << 20));
    assert_eq!(b.next().text.len(), (1 << 20) - "gateway-proxy:b:".len());
    a.text(&sized((1 << 20) + 1));
    assert!(a.expect_close(1009).contains("max_message_bytes"));
    b.expect_nothing();
    assert_eq!(gateway.metric("gateway_closes_total", "1009"), 1);
}

#[test]
fn a_declared_gibibyte_is_refused_before_it_comes() {
    let (_gateway, mut a, mut b) = cast(&[]);
    a.bytes(&[0x81, 0xFF, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3, 4]);
    a.expect_close(1009);
    b.expect_nothing();
}

#[test]
fn fragments_are_bounded_together() {
    let (_gateway, mut a, _b) = cast(&["--max-message-bytes=1000"]);
    a.frame(0x01, &[b'x'; 600]);
    a.frame(0x00, &[b'x'; 600]);
    a.expect_close(1009);
}

#[test]
fn text_that_is_not_utf8_closes_1007() {
    for pieces in [vec![b"\"\xff\"".to_vec()], vec![b"\"\xe6\xbc".to_vec(), b"\"".to_vec()]] {
        let (_gateway, mut a, mut b) = cast(&[]);
        for (index, piece) in pieces.iter().enumerate() {
            let first = u8::from(index == 0);
            let fin = if index == pieces.len() - 1 { 0x80 } else { 0x00 };
            a.frame(first | fin, piece);
        }
        a.expect_close(1007);
        b.expect_nothing();
    }
}

#[test]
fn a_binary_message_closes_1003() {
    let (_gateway, mut a, mut b) = cast(&[]);
    a.frame(0x82, to_neighbour("1").as_bytes());
    a.expect_close(1003);
    b.expect_nothing();
}

#[test]
fn frames_that_rfc_6455_forbids_close_1002() {
    let unmasked = [&[0x81, 2][..], b"{}"].concat();
    let long_ping = [&[0x89, 0xFE, 0, 126][..], &[0; 130]].concat();
    for bytes in [
        unmasked,
        long_ping,
        vec![0xC1, 0x80, 0, 0, 0, 0],
        vec![0x83, 0x80, 0, 0, 0, 0],
        vec![0x09, 0x80, 0, 0, 0, 0],
        vec![0x80, 0x80, 0, 0, 0, 0],
    ] {
        let (_gateway, mut a, mut b) = cast(&[]);
        a.bytes(&bytes);
        a.expect_close(1002);
        b.expect_nothing();
    }
}

#[test]
fn what_is_no_message_is_answered_and_the_connection_stays() {
    let (gateway, mut a, mut b) = cast(&[]);
    let deep = |levels: usize| to_neighbour(&format!("{}{}", "[".repeat(levels), "]".repeat(levels)));
    let bad = [
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        r#"{"s":"a","t":"gateway-proxy:b:x","d":01}"#.to_owned(),
        r#"{"s":"a","t":"gateway-proxy:b:x","d":1} x"#.to_owned(),
        r#"{"s":"a","s":"a","t":"gateway-proxy:b:x"}"#.to_owned(),
        r#"{"s":"a","t":"gateway-proxy:b:x","\u0073":"b"}"#.to_owned(),
        r#"{"s":"a","t":"gateway-proxy:b:x","\u0074":"y"}"#.to_owned(),
        r#"{"s":"a","t":"gateway-proxy:b:x","i":1}"#.to_owned(),
        r#"{"s":"a","t":"gateway-proxy:b:x","n":1.5}"#.to_owned(),
        r#"{"s":7,"t":"gateway-proxy:b:x"}"#.to_owned(),
        r#"{"t":"gateway-proxy:b:x"}"#.to_owned(),
        deep(128),
        deep(100_000),
    ];
    for text in &bad {
        a.text(text);
        a.expect_error("malformed");
    }
    a.text(&deep(127));
    assert_eq!(b.next().topic(), "x");
    b.expect_nothing();
    assert_eq!(gateway.metric("gateway_errors_sent_total", "malformed"), bad.len() as u64);
}

#[test]
fn a_forged_source_is_refused_and_reaches_nobody() {
    let (_gateway, mut a, mut b) = cast(&[]);
    a.text(r#"{"s":"b","t":"gateway-proxy:b:x","d":1,"n":7}"#);
    let error = a.expect_error("source_mismatch");
    assert_eq!((&error["t"], &error["n"]), (&json!("gateway-proxy:b:x"), &json!(7)));
    b.expect_nothing();
}

#[test]
fn ops_of_the_gateways_and_unknown_ones_are_told_apart() {
    let (_gateway, mut a, mut b) = cast(&[]);
    for opcode in [1, 2, 3, 4, 11, 20, 21, 24, 30, 32, 33] {
        a.send_op(&json!({"opcode": opcode}));
        a.expect_error("gateway_only_op");
    }
    for opcode in [json!(5), json!("99")] {
        a.send_op(&json!({"opcode": opcode}));
        a.expect_error("unknown_op");
    }
    for (op, field) in [
        (json!({}), "d.opcode"),
        (json!({"opcode": 10, "shard_id": "x"}), "d.shard_id"),
        (json!({"opcode": 23, "services": 7}), "d.services"),
        (json!({"opcode": 0}), "identified already"),
    ] {
        a.send_op(&op);
        let error = a.expect_error("malformed");
        assert!(error["message"].as_str().unwrap().contains(field), "{op}: {error}");
    }
    b.expect_nothing();
}

#[test]
fn topics_that_lead_nowhere_are_named_in_the_error() {
    let (_gateway, mut a, mut b) = cast(&[]);
    for (topic, code) in [
        ("nowhere", "unroutable_topic"),
        ("gateway:other", "unroutable_topic"),
        ("gateway-proxy:b", "malformed"),
        ("gateway-proxy:b:", "malformed"),
        ("gateway-proxy::x", "malformed"),
        ("gateway-proxy:b c:x", "malformed"),
        ("gateway-proxy:shard/x:x", "malformed"),
        ("gateway-proxy:*:x", "malformed"),
        ("heartbeat:b", "malformed"),
        ("gateway-proxy:nobody:x", "no_such_service"),
        ("gateway-proxy:shard/0:x", "no_such_shard"),
        ("gateway-proxy:shard/99:x", "no_such_shard"),
        ("gateway-proxy:guild/81384788765712384:x", "no_such_shard"),
    ] {
        a.text(&format!(r#"{{"s":"a","t":"{topic}","d":1,"n":"the \u006e"}}"#));
        let error = a.expect_error(code);
        assert_eq!((&error["t"], &error["n"]), (&json!(topic), &json!("the n")), "{error}");
    }
    b.expect_nothing();
}

#[test]
fn a_topic_of_the_largest_size_passes_and_one_byte_more_is_too_large() {
    let (_gateway, mut a, mut b) = cast(&[]);
    let topic = "x".repeat(256 - "gateway-proxy:b:".len());
    a.send("b", &topic, "1");
    assert_eq!(b.next().topic(), topic);
    a.send("b", &format!("{topic}x"), "1");
    a.expect_error("too_large");
    b.expect_nothing();
}

#[test]
fn a_close_frame_is_answered_with_its_code() {
    let gateway = Gateway::start(&[]);
    let mut a = gateway.service("a");
    a.frame(0x88, &[0x0F, 0xA1, b'b', b'y', b'e']);
    assert_eq!(a.any_frame(), Some(Frame { opcode: 8, payload: vec![0x0F, 0xA1] }));
    assert_eq!(a.any_frame(), None);
    let mut b = gateway.service("b");
    b.frame(0x88, &[0x03]);
    b.expect_close(1002);
}
