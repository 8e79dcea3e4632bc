//! The README's shard service in Rust. (Those in other languages are run by `tests/clients/readme.py`.)

use std::fs;
use std::path::Path;

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

#[test]
fn the_readme_shows_the_shard_service_that_is_tested() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
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
