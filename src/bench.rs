//! `gateway bench`: a load on a running gateway, and a check of every message in it.
//!
//! | module | what it is |
//! |---|---|
//! | [`command`] | what was typed, and the exit code |
//! | [`traffic`] | pairs, fan-in, latency: messages as fast as they go, or at a fixed rate |
//! | [`mod@idle`], [`mod@reconnect`] | connections that do nothing; connections that are cut and come back |
//! | [`mod@scaling`], [`mod@plot`] | pairs again and again, with more and more of them; and as a picture |
//! | [`mod@soak`] | hundreds of services, coming and going for a long time |
//! | [`load`] | the services of all of these but the soak |
//! | [`checker`], [`sequence`], [`deliveries`], [`receipts`], [`pattern`] | numbered messages, and what is wrong with those that arrived |
//! | [`gateway`], [`spawned`], [`process`], [`http`] | the gateway, maybe one of one's own; what its process uses; what it tells |
//! | [`hints`] | which flag mends what a gateway refuses |
//! | [`report`], [`times`], [`progress`], [`slope`] | figures; how long messages took; how far a run is; whether something grows |
//!
//! Not for absolute peaks: load and check run on the same machine and share its cores with the
//! gateway. The gateway's CPU time for each message is the figure to compare. What the load takes itself
//! is told beside it, and whether it was the limit.

mod checker;
mod command;
mod deliveries;
mod gateway;
mod hints;
mod http;
mod idle;
mod load;
mod pattern;
mod plot;
mod process;
mod progress;
mod receipts;
mod reconnect;
mod report;
mod scaling;
mod sequence;
mod slope;
mod soak;
mod spawned;
mod times;
mod traffic;

pub use self::command::run;
pub use self::soak::{Sample, SoakOptions, SoakReport, Subject, soak};

use std::fmt::Display;

use crate::client::ClientError;

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
    #[error("{name}: {}", hints::told(error))]
    Client { name: String, error: ClientError },
    #[error("{name}: the connection ended")]
    Ended { name: String },
    #[error("{name}: the connection broke: {reason}")]
    Broke { name: String, reason: String },
    #[error("{name}: no WebSocket, but {answer}")]
    NoWebSocket { name: String, answer: String },
    #[error("{name}: no socket: {error}")]
    NoSocket { name: String, error: std::io::Error },
    #[error("no gateway can be reached at {authority}: {reason}")]
    Unreachable { authority: String, reason: String },
    #[error("only {open} of {services} services were connected, and no more came for {seconds} s")]
    NotConnected { open: u64, services: u64, seconds: u64 },
    #[error("/proc/stat does not tell what CPU time the machine used: {reason}")]
    Machine { reason: std::io::Error },
    #[error("{path}: {reason}")]
    Plot { path: String, reason: String },
    #[error("the limit of open files cannot be raised: {reason}")]
    DescriptorLimit { reason: nix::Error },
    #[error("sockets cannot be waited for: {0}")]
    Poll(nix::Error),
    #[error("stdout: {0}")]
    Stdout(std::io::Error),
    #[error("it was interrupted")]
    Interrupted,
    #[error("another thread of the load has failed")]
    Abandoned,
    #[error("a thread of the load panicked: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}

fn wrong_option(option: &'static str, expected: impl Into<String>, got: impl Display + Copy) -> BenchError {
    BenchError::Option { option, expected: expected.into(), got: got.to_string() }
}
