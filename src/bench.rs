//! `gateway bench`: a load on a running gateway, and a check of every message in it.
//!
//! | module | what it is |
//! |---|---|
//! | [`command`] | what was typed, and the exit code |
//! | [`mod@pairs`] | pairs of services, one sending to the other as fast as it takes them |
//! | [`mod@soak`] | hundreds of services, coming and going for a long time |
//! | [`checker`], [`pattern`] | numbered messages, and what is wrong with those that arrived |
//! | [`spawned`], [`process`], [`http`] | a gateway of one's own; what its process uses; what it tells |
//! | [`slope`] | whether something grows |
//!
//! Not for absolute peaks: load and check run in this process and share the machine with the
//! gateway. The gateway's CPU time for each message is the figure to compare.

mod checker;
mod command;
mod http;
mod pairs;
mod pattern;
mod process;
mod slope;
mod soak;
mod spawned;

pub use self::checker::Faults;
pub use self::command::run;
pub use self::pairs::{PairsOptions, PairsReport, pairs};
pub use self::soak::{Sample, SoakOptions, SoakReport, Subject, soak};

use std::fmt::Display;

use crate::client::{Client, ClientError, Identify, Receiver, Sender};

/// The run could not be made, or broke off.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("--{option} must be {expected}, not {got}")]
    Option { option: &'static str, expected: String, got: String },
    #[error("no CPU clock of process {pid}: {reason}")]
    NoCpuClock { pid: u32, reason: nix::Error },
    #[error("process {pid} cannot be looked at: {reason} (it must be the gateway's, and one's own)")]
    NoProcess { pid: u32, reason: std::io::Error },
    #[error("GET {url}: {reason}")]
    Http { url: String, reason: String },
    #[error("no gateway could be started: {reason}")]
    Spawn { reason: String },
    #[error("the gateway did not stop with exit code 0: {reason}; the end of its log:\n{log}")]
    Stop { reason: String, log: String },
    #[error(
        "the gateway was not at rest within {seconds} s, as it must be before services come: it has \
         {connections} connections, {sessions} sessions and {descriptors} descriptors, and they change"
    )]
    NotAtRest { seconds: u64, connections: u64, sessions: u64, descriptors: usize },
    #[error("not all services could connect within {seconds} s; faults: {faults}")]
    NotGathered { seconds: u64, faults: String },
    #[error("{error}; the end of the gateway's log:\n{log}")]
    Broken { error: Box<BenchError>, log: String },
    #[error("{name}: {error}")]
    Client { name: String, error: ClientError },
    #[error("{name}: the connection ended")]
    Ended { name: String },
    #[error("{name}: the gateway has read nothing more for too long")]
    Stuck { name: String },
    #[error("a pair's task panicked: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}

async fn connect(url: &str, name: &str) -> Result<(Sender, Receiver), BenchError> {
    let connected = Client::connect(url, &Identify::named(name)).await;
    let (client, _) = connected.map_err(|error| failed(name, error))?;
    Ok(client.split())
}

fn failed(name: &str, error: ClientError) -> BenchError {
    BenchError::Client { name: name.to_owned(), error }
}

fn wrong_option(option: &'static str, expected: impl Into<String>, got: impl Display + Copy) -> BenchError {
    BenchError::Option { option, expected: expected.into(), got: got.to_string() }
}
