//! Discord's HTTP API, as far as the gateway asks it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;

use serde_json::json;
use tempfile::TempDir;

/// Answers every request like that; its address.
fn discord(status: &'static str, body: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let api = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            while head.next().is_some_and(|line| !line.is_empty()) {}
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
            // Whoever asks may have been killed meanwhile.
            let _ = stream.write_all((head + &body).as_bytes());
        }
    });
    api
}

/// Discord, for a bot with that `max_concurrency`.
pub(crate) fn discord_of(max_concurrency: u32) -> String {
    let limit = json!({"total": 9, "remaining": 9, "reset_after": 1, "max_concurrency": max_concurrency});
    discord("200 OK", json!({"shards": 32, "session_start_limit": limit}).to_string())
}

/// Discord, which takes no token.
pub(crate) fn discord_unauthorized() -> String {
    discord("401 Unauthorized", json!({"message": "401: Unauthorized", "code": 0}).to_string())
}

/// The flag that names a file with a bot's token.
pub(crate) fn token_file(directory: &TempDir) -> String {
    let token = directory.path().join("token");
    fs::write(&token, "secret").unwrap();
    format!("--discord-token-file={}", token.display())
}
