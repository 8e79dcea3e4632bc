//! `gateway bench`: a load on a running gateway, and a check of every message in it.
//!
//! | module | what it is |
//! |---|---|
//! | [`pairs`] | pairs of services, one sending to the other as fast as it takes them |
//! | [`checker`], [`pattern`] | numbered messages, and what is wrong with those that arrived |
//! | [`process`] | what the gateway's process uses |
//!
//! Not for absolute peaks: load and check run in this process and share the machine with the
//! gateway. The gateway's CPU time for each message is the figure to compare.

mod checker;
mod pairs;
mod pattern;
mod process;

pub use self::checker::Faults;
pub use self::pairs::{PairsOptions, PairsReport, pairs};

use crate::client::{Client, ClientError, Identify, Receiver, Sender};

/// The run could not be made, or broke off.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("--{option} must be {expected}, not {got}")]
    Option { option: &'static str, expected: String, got: String },
    #[error("no CPU clock of process {pid}: {reason}")]
    NoCpuClock { pid: u32, reason: nix::Error },
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
