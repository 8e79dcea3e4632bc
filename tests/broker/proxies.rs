//! Behind a reverse proxy, and for web pages.

use serde_json::{Value, json};

use crate::credentials::{Guarded, bearer, operator};
use crate::support::{Gateway, Service};

/// What the test is to the gateway: a reverse proxy.
const TRUSTED: &str = "--trusted-proxies=127.0.0.1,10.0.0.0/8";

const UPGRADE: [&str; 4] = [
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

fn guess(guarded: &Guarded, from: &str) -> u16 {
    guarded.gateway.http("GET", "/metrics", &[&bearer("a-wrong-token"), from], "").0
}

#[test]
fn guesses_count_for_the_client_and_not_for_its_proxy() {
    let guarded = Guarded::start(&operator(), &[TRUSTED, "--auth-failures-per-minute=2"]);
    let guesser = "X-Forwarded-For: 203.0.113.7";
    assert_eq!([(); 3].map(|()| guess(&guarded, guesser)), [401, 401, 429]);
    for same in [
        "X-Forwarded-For: 198.51.100.1, 203.0.113.7",
        "X-Forwarded-For: 198.51.100.1, 203.0.113.7:4711, 10.1.2.3",
        "Forwarded: for=198.51.100.1, for=203.0.113.7",
        "Forwarded: for=\"203.0.113.7:4711\";proto=https, for=10.0.0.9",
    ] {
        assert_eq!(guess(&guarded, same), 429, "{same}");
    }
    for other in ["X-Forwarded-For: 203.0.113.8", "Forwarded: for=\"[2001:db8::7]\"", "X: y"] {
        assert_eq!(guess(&guarded, other), 401, "{other}");
    }
    guarded.gateway.wait_for_log("203.0.113.7 showed no valid credential");
    guarded.gateway.wait_for_log("2001:db8::7 showed no valid credential");
}

#[test]
fn who_is_no_trusted_proxy_cannot_be_somebody_else() {
    let guarded =
        Guarded::start(&operator(), &["--trusted-proxies=10.0.0.0/8", "--auth-failures-per-minute=2"]);
    let spoofed =
        ["X-Forwarded-For: 203.0.113.1", "Forwarded: for=203.0.113.2", "X-Forwarded-For: no address"];
    assert_eq!(spoofed.map(|header| guess(&guarded, header)), [401, 401, 429]);
    assert!(!guarded.gateway.log().contains("203.0.113"), "{}", guarded.gateway.log());
}

#[test]
fn the_audit_and_the_log_tell_the_clients_address() {
    let guarded = Guarded::start(&operator(), &[TRUSTED]);
    let headers = [&bearer("the-operators-token"), "X-Forwarded-For: 203.0.113.7, 10.0.0.2"];
    guarded.gateway.http("POST", "/api/v1/shards/freeze", &headers, "");
    guarded.gateway.wait_for_log("audit] operator at 203.0.113.7: POST /api/v1/shards/freeze: 2");
    let from = "X-Forwarded-For: 203.0.113.9\r\n";
    let mut service = Service::try_open_with(guarded.gateway.address(), "/gateway", from).unwrap();
    service.send_identify("a", json!({"token": "a-wrong-token"}));
    service.expect_reject("unauthorized");
    guarded.gateway.wait_for_log("203.0.113.9 showed no valid credential");
    let json = ["Content-Type: application/json", "Forwarded: for=203.0.113.11"];
    let identify = json!({"s": "a", "t": "gateway:opcode", "d": {"opcode": 0}}).to_string();
    assert_eq!(guarded.gateway.http("POST", "/gateway", &json, &identify).0, 401);
    guarded.gateway.wait_for_log("203.0.113.11 showed no valid credential");
}

#[test]
fn a_ticket_by_address_is_the_clients() {
    let gateway = Gateway::start(&[TRUSTED, "--expose-without-credentials"]);
    let json = ["Content-Type: application/json", "X-Forwarded-For: 203.0.113.7"];
    let identify = json!({"s": "a", "t": "gateway:opcode", "d": {"opcode": 0}}).to_string();
    assert_eq!(gateway.http("POST", "/gateway", &json, &identify).0, 200);
    let named = |from: &str| {
        let mut service = Service::try_open_with(gateway.address(), "/gateway", from).unwrap();
        service.text(r#"{"s":"a","t":"heartbeat:a","d":null}"#);
        service.next().json["d"]["opcode"].clone()
    };
    for other in ["", "X-Forwarded-For: 203.0.113.8\r\n", "X-Forwarded-For: 203.0.113.7, 203.0.113.8\r\n"] {
        assert_eq!(named(other), json!(20), "{other}");
    }
    assert_eq!(named("Forwarded: for=203.0.113.7;proto=https\r\n"), json!(1));
}

#[test]
fn what_a_trusted_proxy_says_must_be_understood() {
    let (trusting, alone) = (Gateway::start(&[TRUSTED, "--expose-without-credentials"]), Gateway::start(&[]));
    for headers in [
        &["X-Forwarded-For: nobody"][..],
        &["X-Forwarded-For: 203.0.113.7, 10.0.0.300"],
        &["X-Forwarded-Proto: gopher"],
        &["X-Forwarded-Host: a b"],
        &["Forwarded: for=203.0.113.7;for=203.0.113.8"],
        &["Forwarded: for=\"203.0.113.7"],
        &["Forwarded: for=203.0.113.7", "X-Forwarded-For: 203.0.113.8"],
        &["Forwarded: for=203.0.113.7;host=localhost", "X-Forwarded-Host: 127.0.0.1"],
    ] {
        for path in ["/gateway", "/healthz", "/api/v1/services", "/nowhere"] {
            let (status, body) = trusting.http("GET", path, headers, "");
            let body: Value = serde_json::from_str(&body).unwrap();
            let message = body["error"]["message"].as_str().unwrap_or_default();
            assert!(
                status == 400 && message.starts_with("a trusted proxy sent "),
                "{path} {headers:?}: {body}"
            );
            assert_ne!(alone.http("GET", path, headers, "").0, 400, "{path} {headers:?}");
        }
        let upgrade = [&UPGRADE[..], headers].concat();
        assert_eq!(trusting.http("GET", "/gateway", &upgrade, "").0, 400, "{headers:?}");
    }
    assert_eq!(trusting.metric("gateway_turned_away_total", "malformed_head"), 8 * 5);
}

/// The status of a handshake: 101 opens the WebSocket.
fn handshake(gateway: &Gateway, headers: &[&str]) -> u16 {
    let lines = format!("{}\r\n", headers.join("\r\n"));
    match Service::try_open_with(gateway.address(), "/gateway", &lines) {
        Ok(_) => 101,
        Err(answer) => answer.split(' ').nth(1).unwrap().parse().unwrap(),
    }
}

#[test]
fn a_page_is_judged_by_the_name_and_the_scheme_that_its_browser_used() {
    let gateway =
        Gateway::start(&[TRUSTED, "--expose-without-credentials", "--allowed-hosts=auto,bots.example"]);
    let https =
        ["X-Forwarded-Host: bots.example", "X-Forwarded-Proto: https", "X-Forwarded-For: 203.0.113.7"];
    let standard = ["Forwarded: for=203.0.113.7;host=bots.example;proto=https"];
    for said in [&https[..], &standard[..]] {
        for (origin, is_allowed) in [
            ("Origin: https://bots.example", true),
            ("Origin: http://bots.example", false),
            ("Origin: https://bots.example:8443", false),
            ("Origin: https://evil.example", false),
            ("Origin: null", false),
        ] {
            let headers = [said, &[origin]].concat();
            let expected = if is_allowed { (200, 101) } else { (403, 403) };
            let found =
                (gateway.http("GET", "/api/v1/services", &headers, "").0, handshake(&gateway, &headers));
            assert_eq!(found, expected, "{headers:?}");
        }
    }
    let foreign =
        ["X-Forwarded-Host: evil.example", "X-Forwarded-Proto: https", "Origin: https://evil.example"];
    assert_eq!((gateway.http("GET", "/healthz", &foreign, "").0, handshake(&gateway, &foreign)), (403, 403));
}

#[test]
fn a_listed_origin_may_open_the_websocket_and_an_unlisted_host_may_not_be_asked() {
    let gateway =
        Gateway::start(&["--allowed-origins=https://bots.example:8443", "--allowed-hosts=gateway.example"]);
    let host = "Host: gateway.example:7117";
    let ask = |headers: &[&str]| gateway.http("GET", "/healthz", headers, "").0;
    assert_eq!(ask(&[host]), 200);
    assert_eq!(ask(&[host, "Origin: https://bots.example:8443"]), 200);
    for headers in [
        &[host, "Origin: http://bots.example:8443"][..],
        &[host, "Origin: http://gateway.example:7117"],
        &["Host: localhost"],
        &["Host: gateway.example.evil.example"],
    ] {
        assert_eq!(ask(headers), 403, "{headers:?}");
        let upgrade = [&UPGRADE[..], headers].concat();
        assert_eq!(gateway.http("GET", "/gateway", &upgrade, "").0, 403, "{headers:?}");
    }
    let absolute = gateway.http("GET", "http://evil.example/healthz", &[host], "");
    assert_eq!(absolute.0, 403, "{absolute:?}");
}

#[test]
fn a_page_of_a_listed_origin_may_read_what_its_token_permits() {
    let guarded = Guarded::start(&operator(), &["--allowed-origins=https://bots.example"]);
    let (page, token) = ("Origin: https://bots.example", bearer("the-operators-token"));
    let ask = |method: &str, headers: &[&str]| {
        let answer = guarded.gateway.http_raw(method, "/api/v1/services", headers, "").to_lowercase();
        let (head, _) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse::<u16>().unwrap(), head.to_owned())
    };
    let preflight =
        [page, "Access-Control-Request-Method: GET", "Access-Control-Request-Headers: authorization"];
    for (method, headers, expected) in
        [("OPTIONS", &preflight[..], 204), ("GET", &[page, &token], 200), ("GET", &[page], 401)]
    {
        let (status, head) = ask(method, headers);
        assert_eq!(status, expected, "{head}");
        assert!(head.contains("access-control-allow-origin: https://bots.example\r\n"), "{head}");
        assert!(head.contains("vary: origin") && !head.contains("allow-credentials"), "{head}");
        assert_eq!(head.contains("access-control-allow-headers: authorization"), status == 204, "{head}");
    }
    // What is no preflight is what it always was, and other pages learn nothing.
    assert_eq!(ask("OPTIONS", &[page, &token]).0, 405);
    let (status, head) = ask("GET", &["Origin: https://evil.example", &token]);
    assert!(status == 403 && !head.contains("access-control-"), "{head}");
    assert!(!ask("GET", &[&token]).1.contains("access-control-"));
}

#[test]
fn by_default_no_answer_lets_other_pages_read_it_and_no_cookie_is_a_credential() {
    let origin = "Origin: https://bots.example";
    let guarded = Guarded::start(&operator(), &[]);
    let token = bearer("the-operators-token");
    let preflight =
        [origin, "Access-Control-Request-Method: GET", "Access-Control-Request-Headers: authorization"];
    let cookie = "Cookie: token=the-operators-token; Authorization=Bearer the-operators-token";
    for path in
        ["/", "/gateway", "/healthz", "/metrics", "/api/v1/services", "/api/v1/shards/freeze", "/nowhere"]
    {
        for (method, headers) in [
            ("OPTIONS", &preflight[..]),
            ("GET", &[origin, &token]),
            ("POST", &[origin, &token]),
            ("GET", &[origin, cookie]),
        ] {
            let answer = guarded.gateway.http_raw(method, path, headers, "").to_lowercase();
            let head = answer.split("\r\n\r\n").next().unwrap();
            assert!(
                !head.contains("access-control-") && !head.contains("set-cookie"),
                "{method} {path}: {answer}"
            );
            let is_preflight_refused = !head.starts_with("http/1.1 2");
            assert!(method != "OPTIONS" || is_preflight_refused, "{path}: {answer}");
        }
    }
    assert_eq!(guarded.gateway.http("GET", "/api/v1/services", &[cookie], "").0, 401);
    assert_eq!(guarded.gateway.http("GET", "/api/v1/services", &[&token], "").0, 200, "without any cookie");
}
