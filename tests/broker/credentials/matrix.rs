//! Who may do what: every op and every route, for every kind of caller. The README shows the same
//! table.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::tokens::{Signed, claims};
use super::{Guarded, bearer, entry, operator};
use crate::support::Service;

const CALLERS: [&str; 9] =
    ["nothing", "wrong", "expired", "too early", "other name", "service", "shard", "reader", "operator"];

/// What is asked for, and what comes of it: `yes`, a status, or the code of a REJECT or an ERROR; `-`
/// where the caller is no service.
type Row = (&'static str, [&'static str; 9]);

const IDENTIFY: [&str; 9] = [
    "unauthorized",
    "unauthorized",
    "unauthorized",
    "unauthorized",
    "forbidden",
    "yes",
    "yes",
    "forbidden",
    "yes",
];
const POST_IDENTIFY: [&str; 9] = ["401", "401", "401", "401", "403", "yes", "yes", "403", "yes"];
const EVERYBODY: [&str; 9] = ["yes"; 9];
const SERVICES: [&str; 9] = ["-", "-", "-", "-", "-", "yes", "yes", "-", "yes"];
const BUT_SERVICE: [&str; 9] = ["-", "-", "-", "-", "-", "forbidden", "yes", "-", "yes"];
const BUT_SHARD: [&str; 9] = ["-", "-", "-", "-", "-", "forbidden", "forbidden", "-", "yes"];
const READ: [&str; 9] = ["401", "401", "401", "401", "403", "403", "403", "yes", "yes"];
const WRITE: [&str; 9] = ["401", "401", "401", "401", "403", "403", "403", "403", "yes"];

const TABLE: [Row; 29] = [
    ("IDENTIFY as `shard-1`", IDENTIFY),
    ("`POST /gateway` as `shard-1`", POST_IDENTIFY),
    ("a message to `backend`", SERVICES),
    ("a message to `shard/0`", BUT_SERVICE),
    ("a message to `guild/1`", BUT_SHARD),
    ("a message to `other`", BUT_SHARD),
    ("a heartbeat", SERVICES),
    ("ACK", SERVICES),
    ("SHARD_CONNECT", BUT_SERVICE),
    ("SHARD_STATE", BUT_SERVICE),
    ("SHARD_DEATH", BUT_SERVICE),
    ("WATCH", BUT_SHARD),
    ("`GET /`", EVERYBODY),
    ("`GET /healthz`", EVERYBODY),
    ("`GET /readyz`", EVERYBODY),
    ("`GET /metrics`", READ),
    ("`GET /api/v1/services`", READ),
    ("`GET /api/v1/services/{name}`", READ),
    ("`GET /api/v1/shards`", READ),
    ("`GET /api/v1/accounting`", READ),
    ("`POST /api/v1/services/{name}/shutdown`", WRITE),
    ("`POST /api/v1/services/{name}/reboot`", WRITE),
    ("`POST /api/v1/shards/{id}/release`", WRITE),
    ("`POST /api/v1/shards/freeze`", WRITE),
    ("`POST /api/v1/shards/thaw`", WRITE),
    ("`POST /api/v1/shards/reshard`", WRITE),
    ("`DELETE /api/v1/shards/reshard`", WRITE),
    ("`POST /api/v1/reload`", WRITE),
    ("any other path", WRITE_OR_NOT_FOUND),
];

/// `GET` of what is not there takes the right to look: nobody else learns what there is.
const WRITE_OR_NOT_FOUND: [&str; 9] = READ;

/// The tokens of all callers, in their order.
fn tokens(signed: &Signed) -> [Option<String>; 9] {
    let at = |seconds| claims(seconds);
    let mut early = at(7200);
    early["nbf"] = json!(early["exp"].as_u64().unwrap() - 3600);
    let plain = |token: &str| Some(token.to_owned());
    [
        None,
        plain("wrong-token"),
        plain("the-expired-token"),
        Some(signed.token(&early)),
        plain("the-others-token"),
        plain("the-services-token"),
        plain("the-shards-token"),
        plain("the-readers-token"),
        plain("the-operators-token"),
    ]
}

fn credentials() -> String {
    [
        operator().replace("api", "ops = [\"shards\", \"watch\"]\napi"),
        entry(
            "expired",
            "the-expired-token",
            "names = [\"*\"]\napi = \"write\"\nexpires = 2020-01-01T00:00:00Z",
        ),
        entry("others", "the-others-token", "names = [\"other-*\"]\nsend = [\"*\"]"),
        entry("service", "the-services-token", "names = [\"shard-*\"]\nsend = [\"backend\"]"),
        entry(
            "shard",
            "the-shards-token",
            "names = [\"shard-*\"]\nsend = [\"backend\", \"shard/*\"]\nops = [\"shards\"]",
        ),
        entry("reader", "the-readers-token", "api = \"read\""),
    ]
    .concat()
}

/// What comes of a request over HTTP.
fn ask(guarded: &Guarded, request: &str, token: Option<&str>) -> String {
    let request = request.replace("{name}", "nobody").replace("{id}", "0");
    let (method, path) = request.split_once(' ').unwrap();
    let body = match path {
        "/gateway" => json!({"s": "shard-1", "t": "gateway:opcode", "d": {"opcode": 0}}).to_string(),
        "/api/v1/shards/reshard" if method == "POST" => {
            json!({"shard_count": 2, "dry_run": true}).to_string()
        }
        _ => String::new(),
    };
    let token = token.map(bearer);
    let headers: Vec<&str> = token.as_deref().into_iter().chain(["Content-Type: application/json"]).collect();
    match guarded.gateway.http(method, path, &headers, &body).0 {
        status @ (401 | 403 | 429) => status.to_string(),
        status => {
            assert!(status < 500, "{request}: {status}");
            "yes".to_owned()
        }
    }
}

/// Reads up to an ERROR with the code that only the last message can have; whether one of the others
/// was forbidden.
fn read_to(service: &mut Service, code: &str) -> String {
    let mut outcome = "yes";
    loop {
        let answer = service.next().json["d"].clone();
        match answer["code"].as_str() {
            Some("forbidden") => outcome = "forbidden",
            Some(last) if last == code => return outcome.to_owned(),
            _ => {}
        }
    }
}

/// What comes of something that a service sends.
fn send(service: &mut Service, what: &str) -> String {
    if let Some(target) = what.strip_prefix("a message to ") {
        service.send(target.trim_matches('`'), "x", "1");
        service.send("no target", "x", "1");
        return read_to(service, "malformed");
    }
    match what {
        "a heartbeat" => service.text(r#"{"s":"shard-1","t":"heartbeat:shard-1"}"#),
        "ACK" => service.send_op(&json!({"opcode": 22, "i": 1})),
        "SHARD_CONNECT" => service.send_op(&json!({"opcode": 10})),
        "SHARD_STATE" => service.send_op(&json!({"opcode": 31, "shard_id": 0, "state": "ready"})),
        "SHARD_DEATH" => service.send_op(&json!({"opcode": 12, "shard_id": 0})),
        "WATCH" => service.send_op(&json!({"opcode": 23})),
        _ => panic!("nobody knows how to send {what}"),
    }
    service.send_op(&json!({"opcode": 99}));
    read_to(service, "unknown_op")
}

fn column(guarded: &Guarded, token: Option<&str>) -> Vec<String> {
    let mut service = None;
    TABLE
        .iter()
        .map(|(what, _)| {
            if let Some(path) = what.strip_prefix('`') {
                let outcome = ask(guarded, path.split('`').next().unwrap(), token);
                // The ticket must not be in the way of what comes next.
                return outcome;
            }
            match (*what, &mut service) {
                ("any other path", _) => ask(guarded, "GET /api/v1/secrets", token),
                (what, _) if what.starts_with("IDENTIFY") => {
                    let mut newcomer = guarded.gateway.connect();
                    let fields = token.map_or(json!({}), |token| json!({"token": token}));
                    newcomer.send_identify("shard-1", fields);
                    let answer: Value = newcomer.next().json["d"].clone();
                    let outcome = answer["code"].as_str().unwrap_or("yes").to_owned();
                    service = (outcome == "yes").then_some(newcomer);
                    outcome
                }
                (_, None) => "-".to_owned(),
                (what, Some(service)) => send(service, what),
            }
        })
        .collect()
}

/// As the README has it.
fn table() -> String {
    let mut text = format!("| | {} |\n|---{}|\n", CALLERS.join(" | "), "|---".repeat(CALLERS.len()));
    for (what, cells) in TABLE {
        writeln!(text, "| {what} | {} |", cells.join(" | ")).unwrap();
    }
    text
}

#[test]
fn every_op_and_every_route_permits_what_the_table_says() {
    let signed = Signed::new();
    for (index, token) in tokens(&signed).iter().enumerate() {
        let guarded = signed.start(&credentials(), &["--auth-failures-per-minute=1000"]);
        let found = column(&guarded, token.as_deref());
        for ((what, expected), found) in TABLE.iter().zip(found) {
            // A name that is taken was permitted.
            let found = if found == "409" { "yes".to_owned() } else { found };
            assert_eq!(found, expected[index], "{what} for {}", CALLERS[index]);
        }
    }
}

#[test]
fn the_readme_shows_the_same_table() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    assert!(readme.contains(&table()), "README.md lacks\n{}", table());
}

#[test]
fn no_route_is_missing_in_the_table() {
    let guarded = Guarded::start(&operator(), &[]);
    let (_, index) = guarded.gateway.http("GET", "/", &[], "");
    let in_index: BTreeSet<String> = index
        .lines()
        .filter_map(|line| {
            let (method, rest) = line.split_once(' ')?;
            let is_method = ["GET", "POST", "DELETE"].contains(&method);
            is_method.then(|| {
                format!("{method} {}", rest.split_whitespace().next().unwrap().trim_end_matches(','))
            })
        })
        .collect();
    let in_table: BTreeSet<String> = TABLE
        .iter()
        .filter_map(|(what, _)| what.strip_prefix('`')?.split('`').next().map(str::to_owned))
        .chain(["GET /gateway".to_owned()])
        .filter(|route| !["GET /", "GET /readyz"].contains(&route.as_str()))
        .collect();
    assert_eq!(in_index, in_table);
}
