//! `GET /gateway/bot`, and what `fake-discord` is told by its tests.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Http, Shared, lock};
use crate::control;

const MAX_HEAD_BYTES: usize = 16_384;

pub(super) async fn answer(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD_BYTES {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let answer = match path {
        "/api/v10/gateway/bot" if method == "GET" => gateway_bot(shared, &head).await,
        path => {
            let (status, body) = control::answer(shared, method, path);
            Some((status, String::new(), body))
        }
    };
    let Some((status, headers, body)) = answer else { return Ok(()) };
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\
         Connection: close\r\n\r\n{body}"
    );
    stream.write_all(answer.as_bytes()).await
}

/// Status, further headers and body; `None`: nothing is answered.
async fn gateway_bot(shared: &Shared, head: &str) -> Option<(u16, String, String)> {
    const BUCKET: &str =
        "X-RateLimit-Limit: 2\r\nX-RateLimit-Remaining: 1\r\nX-RateLimit-Reset-After: 5.000\r\n";
    let http = *lock(&shared.http);
    let before = lock(&shared.asked).last().copied();
    lock(&shared.asked).push(Instant::now());
    match http {
        Http::Answer => {
            let token = authorization(head);
            let mut rules = shared.rules();
            if token != Some(rules.settings().token.as_str()) {
                let body = r#"{"message": "401: Unauthorized", "code": 0}"#;
                return Some((401, String::new(), body.to_owned()));
            }
            Some((200, BUCKET.to_owned(), rules.gateway_bot(&shared.url()).to_string()))
        }
        Http::Status(status) => Some((status, String::new(), "<html>".to_owned())),
        Http::RateLimited(seconds) => {
            let since = before.map(|before| before.elapsed());
            if let Some(since) = since.filter(|since| *since < Duration::from_secs_f64(seconds)) {
                let since = since.as_millis();
                shared.rules().violate(format!("asked again after {since} ms, Retry-After was {seconds} s"));
            }
            let body = format!(r#"{{"message": "limited", "retry_after": {seconds}, "global": false}}"#);
            let whole = seconds.ceil();
            Some((429, format!("Retry-After: {whole}\r\nX-RateLimit-Scope: user\r\n"), body))
        }
        Http::Garbage => Some((200, String::new(), "{\"shards\": ".to_owned())),
        Http::Hang => {
            tokio::time::sleep(Duration::from_mins(10)).await;
            None
        }
    }
}

fn authorization(head: &str) -> Option<&str> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("authorization").then(|| value.strip_prefix("Bot "))?
    })
}
