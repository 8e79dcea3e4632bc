//! The README's shard service in Rust (those in other languages are run by `tests/clients/readme.py`), and the
//! words that it says are on the wire and in metrics.

use std::fs;
use std::path::Path;

use gateway::protocol::error::{ErrorCode, RejectCode};
use serde_json::json;

use crate::support::{Gateway, eventually};

#[expect(clippy::unused_async, reason = "what stands for a Discord library has nothing to await")]
mod example {
    include!("../clients/shard_service.rs");

    /// Runs it until it ends.
    pub(super) fn run(url: &str) -> Result<(), ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(shard_service(url))
    }
}

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

/// The rows of the table with that head.
fn table<'a>(readme: &'a str, head: &str) -> Vec<&'a str> {
    let (_, table) = readme.split_once(head).unwrap_or_else(|| panic!("the README has no table {head}"));
    table.lines().skip(2).take_while(|line| line.trim_start().starts_with('|')).collect()
}

#[test]
fn the_readme_says_what_each_refusal_means() {
    let readme = readme();
    let errors = table(&readme, "| ERROR | |");
    for code in ErrorCode::ALL.map(ErrorCode::as_str) {
        let is_told = errors.iter().any(|row| row.split('|').nth(1).unwrap().contains(&format!("`{code}`")));
        assert!(is_told, "no row for {code}: {errors:#?}");
    }
    let rejects = table(&readme, "| REJECT | HTTP | |");
    for code in [
        RejectCode::Unauthorized,
        RejectCode::Forbidden,
        RejectCode::AlreadyConnected,
        RejectCode::AtCapacity,
        RejectCode::Draining,
        RejectCode::InvalidName,
        RejectCode::Malformed,
    ] {
        let (word, status) = (format!("`{}`", code.as_str()), format!("| {} |", code.http_status()));
        let is_told = rejects.iter().any(|row| row.contains(&word) && row.contains(&status));
        assert!(is_told, "no row for {word} with {status}: {rejects:#?}");
    }
}

#[test]
fn the_metrics_that_the_readme_names_are_told() {
    let gateway = Gateway::start(&[]);
    drop(gateway.service("a"));
    let (_, metrics) = gateway.http("GET", "/metrics", &[], "");
    let readme = readme();
    let is_code = |word: &str| ErrorCode::ALL.iter().any(|code| code.as_str() == word);
    let is_metric = |word: &&str| word.starts_with("gateway_") && !is_code(word);
    let named: Vec<&str> = readme.split('`').filter(is_metric).collect();
    assert!(named.len() > 20, "{named:?}");
    for metric in named {
        let (name, labels) = metric.split_once('{').unwrap_or((metric, ""));
        // Those of Discord's budget are there only where Discord was asked.
        if !name.starts_with("gateway_session_starts_") {
            assert!(metrics.contains(&format!("\n# TYPE {name} ")), "{name} is not in\n{metrics}");
        }
        let lines = || metrics.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        for label in labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()) {
            let (label, value) = label.split_once('=').unwrap_or((label, "\""));
            let told = format!("{label}={value}");
            let is_told = lines().next().is_none() || lines().any(|line| line.contains(&told));
            assert!(is_told, "{metric} has no {told} in\n{metrics}");
        }
    }
}

#[test]
fn the_readme_shows_the_shard_service_that_is_tested() {
    let readme = readme();
    let block = format!("```rust shard_service.rs\n{}```\n", include_str!("../clients/shard_service.rs"));
    assert!(readme.contains(&block), "the README's block must be tests/clients/shard_service.rs: {block}");
}

#[test]
fn the_readmes_shard_service_gets_an_id_and_leaves_when_it_is_told() {
    let gateway = Gateway::start(&["--heartbeat-ms=3600000"]);
    let url = format!("ws://{}/gateway", gateway.address());
    let service = std::thread::spawn(move || example::run(&url));
    let shard = || gateway.get_json("/api/v1/shards")["shards"][0].clone();
    eventually("its shard is ready", || (shard()["state"] == "ready").then_some(()));
    assert_eq!(shard()["holder"], "shard-rs");
    assert_eq!(gateway.post_json("/api/v1/services/shard-rs/shutdown", "").0, 202);
    service.join().unwrap().unwrap();
    eventually("its id is free at once", || (shard()["state"] == "free").then_some(()));
    assert_eq!(gateway.get_json("/api/v1/services"), json!({"services": []}));
}
