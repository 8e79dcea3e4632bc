//! What is answered over HTTP, and what is refused.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use serde_json::json;

use crate::support::{Gateway, PATIENCE, eventually};

#[test]
fn what_a_web_page_could_have_sent_is_refused_before_anything_else() {
    let gateway = Gateway::start(&[]);
    let own = format!("Origin: http://{}", gateway.address());
    for path in ["/gateway", "/api/v1/services", "/metrics", "/healthz", "/nowhere"] {
        for header in ["Origin: http://evil.example", "Origin: null", "Host: evil.example"] {
            let (status, body) = gateway.http("GET", path, &[header], "");
            assert_eq!(status, 403, "{path} with {header}: {body}");
        }
        assert_ne!(gateway.http("GET", path, &[&own], "").0, 403, "{path}");
    }
    let upgrade = [
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    let from_page = [&upgrade[..], &["Origin: http://evil.example"]].concat();
    assert_eq!(gateway.http("GET", "/gateway", &from_page, "").0, 403);
}

#[test]
fn a_body_must_be_json_of_a_sane_size() {
    let gateway = Gateway::start(&[]);
    let json = "Content-Type: application/json; charset=utf-8";
    for path in ["/gateway", "/api/v1/services/a/shutdown"] {
        for header in ["Content-Type: text/plain", "Content-Type: application/x-www-form-urlencoded", "X: y"]
        {
            assert_eq!(gateway.http("POST", path, &[header], "{}").0, 415, "{path} with {header}");
        }
        assert_eq!(gateway.http("POST", path, &[json], &"x".repeat(65_537)).0, 413, "{path}");
    }
    for body in [
        "{",
        "[]",
        r#"{"reason":7}"#,
        r#"{"deadline_ms":-1}"#,
        r#"{"deadline_ms":3600001}"#,
        r#"{"deadline":1}"#,
        r#"{"reason":"\n"}"#,
    ] {
        let (status, answer) = gateway.post_json("/api/v1/services/a/shutdown", body);
        assert_eq!((status, &answer["error"]["code"]), (400, &json!("bad_request")), "{body}: {answer}");
    }
    assert_eq!(gateway.post_json("/api/v1/services/a%20b/shutdown", "{}").0, 400);
    assert_eq!(gateway.post_json("/api/v1/services/a/shutdown", "{}").0, 404);
}

#[test]
fn what_is_not_there_is_said_so() {
    let gateway = Gateway::start(&[]);
    assert_eq!(gateway.http("GET", "/nowhere", &[], "").0, 404);
    let answer = gateway.http_raw("DELETE", "/api/v1/services", &[], "");
    assert!(answer.starts_with("HTTP/1.1 405") && answer.to_lowercase().contains("allow: get"), "{answer}");
    let answer = gateway.http_raw("GET", "/gateway", &[], "");
    assert!(answer.starts_with("HTTP/1.1 426") && answer.contains("upgrade: websocket"), "{answer}");
    let (status, index) = gateway.http("GET", "/", &[], "");
    assert_eq!(status, 200);
    for route in
        ["/services", "/services/{name}/reboot", "/shards", "/shards/{id}/release", "/shards/reshard"]
    {
        assert!(index.contains(&format!(" /api/v1{route} ")), "{route} is not in\n{index}");
    }
}

#[test]
fn who_asks_for_a_websocket_where_there_is_none_gets_the_whole_answer_and_the_end() {
    let gateway = Gateway::start(&[]);
    for (asked, status) in
        [("GET /metrics", 200), ("GET /nowhere", 404), ("POST /api/v1/services", 405), ("GET /gateway", 426)]
    {
        let mut wire = gateway.wire().unwrap();
        let host = gateway.address();
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket";
        write!(wire, "{asked} HTTP/1.1\r\nHost: {host}\r\n{upgrade}\r\n\r\n").unwrap();
        let mut answer = String::new();
        wire.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{asked}: {answer:?}"));
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{asked}: {head}");
        assert!(head.contains("connection: close"), "{asked}: {head}");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{asked}: {answer}");
    }
}

/// Such a request says where it ends by ending the connection.
#[test]
fn what_comes_with_an_offer_of_a_websocket_is_read_to_its_end() {
    let gateway = Gateway::start(&["--workers=1"]);
    let host = gateway.address();
    let mut wire = TcpStream::connect(host).unwrap();
    wire.set_nodelay(true).unwrap();
    wire.set_read_timeout(Some(PATIENCE)).unwrap();
    let headers = "Content-Type: application/json\r\nConnection: Upgrade\r\nUpgrade: websocket";
    let head = format!("POST /gateway HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n\r\n");
    for part in [&head, r#"{"s":"a","#, r#""t":"gateway:opcode","#, r#""d":{"opcode":0}}"#] {
        wire.write_all(part.as_bytes()).unwrap();
        // The one thread of the gateway's has read the part once it has answered what came later.
        (0..2).for_each(|_| assert_eq!(gateway.http("GET", "/healthz", &[], "").0, 200));
    }
    wire.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    wire.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("ticket"), "{answer}");
}

#[test]
fn services_are_listed_with_what_waits_for_them() {
    let gateway = Gateway::start(&["--shards=2"]);
    let mut here = gateway.connect();
    here.identify_with("here", json!({"group": "g"}));
    here.send_op(&json!({"opcode": 10}));
    here.expect_op(11);
    gateway.service("gone").vanish();
    gateway.wait_for_log("gone is away");
    here.send("gone", "x", "12345");
    here.expect_nothing();
    let services = gateway.get_json("/api/v1/services");
    let [gone, here] = services["services"].as_array().unwrap().as_slice() else { panic!("{services}") };
    let bytes = r#"{"s":"here","t":"x","d":12345}"#.len();
    assert_eq!((&gone["name"], &gone["state"]), (&json!("gone"), &json!("away")));
    assert_eq!(gone["queued"], json!({"messages": 1, "bytes": bytes}));
    assert_eq!((&here["state"], &here["shards"], &here["group"]), (&json!("up"), &json!([0]), &json!("g")));
    assert!(here["since"].as_u64().unwrap() > 1_600_000_000_000);
}

#[test]
fn metrics_count_what_is_there() {
    let gateway = Gateway::start(&["--shards=3"]);
    let mut a = gateway.service("a");
    gateway.service("b").vanish();
    gateway.wait_for_log("b is away");
    a.send("b", "x", "1");
    a.expect_nothing();
    let count = |name: &str, label: &str| gateway.metric(name, label);
    assert_eq!(count("gateway_messages_accepted_total", r#"source="a",target="b""#), 1);
    assert_eq!(count("gateway_messages_queued", r#"source="a",target="b""#), 1);
    let bytes = r#"{"s":"a","t":"x","d":1}"#.len() as u64;
    assert_eq!(count("gateway_message_bytes_queued", r#"source="a",target="b""#), bytes);
    assert_eq!(count("gateway_mailbox_bytes", ""), bytes);
    let accounting = gateway.get_json("/api/v1/accounting");
    assert_eq!(accounting["balanced"], true);
    assert_eq!(accounting["targets"]["b"]["sources"]["a"]["queued"], json!({"messages": 1, "bytes": bytes}));
    // The end of a connection is told before its socket is closed.
    eventually("b's connection is closed", || (count("gateway_connections", "") == 1).then_some(()));
    assert_eq!(count("gateway_sessions", "up"), 1);
    assert_eq!(count("gateway_sessions", "away"), 1);
    assert_eq!(count("gateway_shards", "free"), 3);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(gateway.http("GET", path, &[], ""), (200, "ok\n".to_owned()));
    }
}
