//! The fake as a process: what other processes can ask it for.
//!
//! | request | effect |
//! |---|---|
//! | `GET /fake/report` | [`Fake::report`](crate::Fake::report), as JSON |
//! | `POST /fake/http/<how>` | `/gateway/bot` answers so: `answer`, `garbage`, `hang`, `429/<seconds>`, or a status |
//! | `POST /fake/drop`, `/fake/close/<code>`, `/fake/reconnect` | to every shard's connection |
//! | `POST /fake/say/<text>` | an event for every session |

use serde_json::json;

use crate::server::{Http, Order, Shared, lock};

/// Status and body.
pub(crate) fn answer(shared: &Shared, method: &str, path: &str) -> (u16, String) {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match (method, &parts[..]) {
        ("GET", ["fake", "report"]) => return (200, shared.report().to_string()),
        ("POST", ["fake", "http", how @ ..]) => match http(how) {
            Some(http) => *lock(&shared.http) = http,
            None => return (400, format!("no such way to answer: {}", how.join("/"))),
        },
        ("POST", ["fake", "drop"]) => shared.order_all(&Order::Drop),
        ("POST", ["fake", "close", code]) => match code.parse() {
            Ok(code) => shared.order_all(&Order::Close(code)),
            Err(_) => return (400, format!("no close code: {code}")),
        },
        ("POST", ["fake", "reconnect"]) => shared.order_all(&Order::Send(json!({"op": 7, "d": null}))),
        ("POST", ["fake", "say", text]) => shared.say(text),
        _ => return (404, r#"{"message": "404: Not Found", "code": 0}"#.to_owned()),
    }
    (200, "{}".to_owned())
}

fn http(how: &[&str]) -> Option<Http> {
    Some(match how {
        ["answer"] => Http::Answer,
        ["garbage"] => Http::Garbage,
        ["hang"] => Http::Hang,
        ["429", seconds] => Http::RateLimited(seconds.parse().ok()?),
        [status] => Http::Status(status.parse().ok()?),
        _ => return None,
    })
}
