//! Who may come in, and what they may do.

mod guessing;
mod matrix;
mod throttle;
mod tokens;
mod turnover;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use ring::digest::{SHA256, digest};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{Gateway, Service};

/// A gateway with a file of credentials, which can be written anew.
pub(crate) struct Guarded {
    directory: TempDir,
    pub(crate) gateway: Gateway,
}

impl Guarded {
    pub(crate) fn start(credentials: &str, flags: &[&str]) -> Self {
        Self::start_with_keys(credentials, "", flags)
    }

    /// With that as `keys.json` beside the file.
    fn start_with_keys(credentials: &str, keys: &str, flags: &[&str]) -> Self {
        Self::start_as(&mut Gateway::command(), credentials, keys, flags)
    }

    /// By that command.
    fn start_as(command: &mut Command, credentials: &str, keys: &str, flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("keys.json"), keys).unwrap();
        let file = directory.path().join("credentials.toml");
        std::fs::write(&file, credentials).unwrap();
        let flag = format!("--credentials={}", file.display());
        let flags: Vec<&str> = std::iter::once(flag.as_str()).chain(flags.iter().copied()).collect();
        Self { gateway: Gateway::start_as(command, "127.0.0.1:0", &flags), directory }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("credentials.toml")
    }

    /// Writes the file anew, and has it read; the answer.
    fn reload(&self, credentials: &str, token: &str) -> (u16, String) {
        std::fs::write(self.file(), credentials).unwrap();
        self.gateway.http("POST", "/api/v1/reload", &[&bearer(token)], "")
    }

    /// The value of a metric with that label.
    fn metric(&self, name: &str, label: &str) -> u64 {
        let (_, text) = self.gateway.http("GET", "/metrics", &[&bearer("the-operators-token")], "");
        let line = text.lines().find(|line| line.starts_with(name) && line.contains(label));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{text}"))
    }

    /// A service that identifies with the token, and what it is answered.
    pub(crate) fn identify(&self, name: &str, token: &str) -> Result<Service, String> {
        let mut service = self.gateway.connect();
        service.send_identify(name, json!({"token": token}));
        let answer = service.next().json["d"].clone();
        match answer["opcode"].as_u64() {
            Some(1) => Ok(service),
            Some(2) => {
                service.expect_close(4003);
                Err(answer["code"].as_str().unwrap().to_owned())
            }
            _ => panic!("{answer}"),
        }
    }
}

/// Where a service was expected to be refused, this shows why that is wrong.
impl std::fmt::Debug for Service {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a service that was accepted")
    }
}

pub(crate) fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

/// An entry of the file; `rights` are its other lines.
pub(crate) fn entry(id: &str, token: &str, rights: &str) -> String {
    let mut hash = String::new();
    for byte in digest(&SHA256, token.as_bytes()).as_ref() {
        write!(hash, "{byte:02x}").unwrap();
    }
    format!("[[credential]]\nid = \"{id}\"\ntoken_sha256 = \"{hash}\"\n{rights}\n")
}

/// Who may do everything.
pub(crate) fn operator() -> String {
    entry("operator", "the-operators-token", "names = [\"*\"]\nsend = [\"*\"]\napi = \"write\"")
}
