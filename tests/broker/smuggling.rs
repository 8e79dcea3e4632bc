//! Requests that two programs could read differently, and paths that lead somewhere by a detour.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use crate::credentials::{Guarded, bearer, entry, operator};
use crate::support::{Gateway, PATIENCE};

const HOST: &str = "Host: localhost\r\n";
const OPERATOR: &str = "Authorization: Bearer the-operators-token\r\n";

/// The statuses of all answers to these bytes, and their text.
fn answers(gateway: &Gateway, bytes: &[u8]) -> (Vec<u16>, String) {
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may be refused before all of it was sent.
    let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut came = Vec::new();
    if let Err(error) = stream.read_to_end(&mut came) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{}", String::from_utf8_lossy(&came));
    }
    let text = String::from_utf8_lossy(&came).into_owned();
    let statuses = text.split("HTTP/1.").skip(1).map(|rest| rest[2..5].parse().unwrap()).collect();
    (statuses, text)
}

fn open_to_the_operator() -> Guarded {
    Guarded::start(&operator(), &["--auth-failures-per-minute=1000000"])
}

#[test]
fn a_head_that_can_be_read_in_two_ways_is_refused() {
    let guarded = open_to_the_operator();
    let services = "GET /api/v1/services HTTP/1.1\r\n";
    let with = |headers: &str| format!("{services}{HOST}{OPERATOR}{headers}\r\n");
    assert_eq!(answers(&guarded.gateway, with("").as_bytes()).0, [200]);
    let token = OPERATOR.trim_end();
    for (head, status) in [
        (with(HOST), 400),
        (with("Host: evil.example\r\n"), 400),
        (format!("{services}Host: localhost, evil.example\r\n{OPERATOR}\r\n"), 400),
        (format!("{services}Host: localhost\r\n evil.example\r\n{OPERATOR}\r\n"), 400),
        (format!("{services}Host : localhost\r\n{OPERATOR}\r\n"), 400),
        (format!("{services}Host: localhost\0.evil.example\r\n{OPERATOR}\r\n"), 400),
        (format!("{services}Host: lo\u{fc}calhost\r\n{OPERATOR}\r\n"), 400),
        (format!("{services}{OPERATOR}\r\n"), 400),
        (with("Origin: http://localhost\r\nOrigin: http://evil.example\r\n"), 400),
        (with("Origin: http://localhost, http://evil.example\r\n"), 403),
        (with("Authorization: Bearer other\r\n"), 401),
        (with(OPERATOR), 401),
        (format!("{services}{HOST}Authorization: Bearer other\r\n{OPERATOR}\r\n"), 401),
        (format!("{services}{HOST}{token}, Bearer other\r\n\r\n"), 401),
        (format!("{services}{HOST}{token}\0\r\n\r\n"), 400),
        (format!("{services}{HOST}Authorization: Bearer\r\n the-operators-token\r\n\r\n"), 400),
        (with("X: a\0b\r\n"), 400),
        (with("X: a\rb\r\n"), 400),
        (with("X: a\nHost: evil.example\r\n"), 400),
        (with("X Y: a\r\n"), 400),
        (format!("GET /api/v1 /services HTTP/1.1\r\n{HOST}{OPERATOR}\r\n"), 400),
        (format!("GET http://evil.example/api/v1/services HTTP/1.1\r\n{HOST}{OPERATOR}\r\n"), 403),
        (
            format!("GET http://localhost/api/v1/services HTTP/1.1\r\nHost: evil.example\r\n{OPERATOR}\r\n"),
            403,
        ),
        (with(&format!("X: {}\r\n", "x".repeat(200_000))), 431),
        (with(&"X: y\r\n".repeat(300)), 431),
    ] {
        let (statuses, came) = answers(&guarded.gateway, head.as_bytes());
        assert_eq!(statuses, [status], "{:?}: {came}", &head[..head.len().min(300)]);
    }
}

#[test]
fn a_body_that_can_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_answered() {
    let guarded = open_to_the_operator();
    let behind = format!("GET /metrics HTTP/1.1\r\n{HOST}{OPERATOR}\r\n");
    for (framing, body) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
        ("Content-Length: 0\r\nContent-Length: 5\r\n", ""),
        ("Content-Length: 0\r\nContent-Length: 0\r\n", ""),
        ("Content-Length: 0, 0\r\n", ""),
        ("Content-Length: +0\r\n", ""),
        ("Content-Length: -1\r\n", ""),
        ("Content-Length: 0x0\r\n", ""),
        ("Content-Length: 99999999999999999999\r\n", ""),
        ("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: identity\r\n", ""),
        ("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: \u{b}chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "0x0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "FFFFFFFFFFFFFFFFF\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "1\nx\r\n0\r\n\r\n"),
    ] {
        let request = format!(
            "POST /api/v1/shards/freeze HTTP/1.1\r\n{HOST}{OPERATOR}Content-Type: application/json\r\n{framing}\r\n{body}{behind}"
        );
        let (statuses, came) = answers(&guarded.gateway, request.as_bytes());
        assert_eq!(statuses, [400], "{framing:?} {body:?}: {came}");
    }
    let (_, shards) = guarded.gateway.http("GET", "/api/v1/shards", &[OPERATOR.trim_end()], "");
    let shards: serde_json::Value = serde_json::from_str(&shards).unwrap();
    assert_eq!(shards["frozen"], serde_json::Value::Null, "{shards}");
}

#[test]
fn a_handshake_with_a_body_is_refused() {
    let gateway = Gateway::start(&[]);
    let handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for framing in ["Transfer-Encoding: chunked\r\n", "Transfer-Encoding: Chunked\r\n"] {
        let request = format!("GET /gateway HTTP/1.1\r\n{HOST}{handshake}{framing}\r\n0\r\n\r\n");
        let (statuses, came) = answers(&gateway, request.as_bytes());
        assert_eq!(statuses, [400], "{framing:?}: {came}");
        assert!(came.contains("a handshake has no Transfer-Encoding"), "{came}");
    }
}

/// Every route, with something in the place of its parameter.
fn routes(gateway: &Gateway) -> Vec<(String, String)> {
    let (_, index) = gateway.http("GET", "/", &[], "");
    let lines =
        index.lines().filter(|line| ["GET ", "POST", "DELE"].iter().any(|method| line.starts_with(method)));
    let routes = lines.flat_map(|line| {
        let (method, rest) = line.split_once(' ').unwrap();
        let paths = rest.split_whitespace().take_while(|word| word.starts_with('/'));
        paths.map(|path| {
            let path = path.trim_end_matches(',').replace("{name}", "here").replace("{id}", "0");
            (method.to_owned(), path)
        })
    });
    routes.collect()
}

/// Other spellings of a path, and detours to it.
fn detours(path: &str) -> Vec<String> {
    let last = path.rfind('/').unwrap();
    let (before, name) = path.split_at(last);
    let doors = ["/", "/healthz", "/readyz", "/gateway"];
    let through = doors.iter().flat_map(|door| {
        let door = door.trim_end_matches('/');
        [format!("{door}/..{path}"), format!("{door}/%2e%2e{path}"), format!("{door}/..%2f{}", &path[1..])]
    });
    let spelled = [
        format!("/{path}"),
        format!("/.{path}"),
        format!("/%2e{path}"),
        format!("/%2f{}", &path[1..]),
        path.replace('/', "//"),
        format!("/{}", path[1..].replace('/', "%2f")),
        format!("/{}", path[1..].replace('/', "\\")),
        format!("{before}/.{name}"),
        format!("{before}/x/..{name}"),
        format!("{before}/x/%2e%2e{name}"),
        path.to_uppercase(),
        // Another spelling of the same path: it may do no more, or less.
        format!("{before}/%{:02x}{}", name.as_bytes()[1], &name[2..]),
    ];
    let ends = [
        "/",
        "/.",
        "/..",
        "/../",
        "/%2e%2e",
        "%00",
        "%00.html",
        "%20",
        "%2f",
        ";x=y",
        "%3f",
        "%23",
        "?x",
        "%0d%0aX:y",
    ];
    let ended = ends.iter().map(|end| format!("{path}{end}"));
    through.chain(spelled).chain(ended).collect()
}

#[test]
fn no_detour_leads_where_the_plain_path_does_not() {
    let reader = entry("reader", "the-readers-token", "api = \"read\"");
    let guarded = Guarded::start(
        &(operator() + &reader),
        &["--auth-failures-per-minute=1000000", "--identify-interval-ms=0"],
    );
    let _here = guarded.identify("here", "the-operators-token").unwrap();
    let mut tried = 0;
    for token in [None, Some(bearer("the-readers-token"))] {
        let ask = |method: &str, path: &str| {
            let token = token.as_ref().map_or(String::new(), |token| format!("{token}\r\n"));
            let request = format!(
                "{method} {path} HTTP/1.1\r\n{HOST}{token}Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
            );
            let (statuses, came) = answers(&guarded.gateway, request.as_bytes());
            assert_eq!(statuses.len(), 1, "{method} {path}: {came}");
            statuses[0]
        };
        for (method, path) in routes(&guarded.gateway).into_iter().filter(|(_, path)| path.len() > 1) {
            let plain = ask(&method, &path);
            for detour in detours(&path) {
                let status = ask(&method, &detour);
                let is_open = (200..300).contains(&status);
                assert!(
                    !is_open || (200..300).contains(&plain),
                    "{method} {detour}: {status}, {path}: {plain}"
                );
                tried += 1;
            }
        }
    }
    assert!(tried > 1_000, "{tried}");
    let log = guarded.gateway.log();
    assert!(!log.contains("\nX:y"), "a path must not write lines of its own: {log}");
}
