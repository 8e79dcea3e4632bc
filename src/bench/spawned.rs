//! A gateway of one's own: the same executable, on a port that is free.

use std::collections::VecDeque;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use super::BenchError;
use crate::cli::BenchGateway;

const START_PATIENCE: Duration = Duration::from_secs(30);
/// More than `stop_ms` and the gateway's own grace for closing.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// How much of its log is kept, in lines.
const LOG_LINES: usize = 100;
/// What it logs before the address.
const LISTENING: &str = "listening on ";

/// A running gateway. Killed where it is dropped.
pub(super) struct Spawned {
    child: Child,
    address: String,
    pid: u32,
    /// What it logged before it listened: it may explain what fails later.
    beginning: String,
    log: Arc<Mutex<VecDeque<String>>>,
}

impl Spawned {
    /// Starts it with these flags and waits until it listens. It logs warnings only.
    pub(super) async fn start(flags: &[&str]) -> Result<Self, BenchError> {
        let failed = |reason: String| BenchError::Spawn { reason };
        let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        let mut child = Command::new(program)
            // It becomes the gateway: see `become_gateway`.
            .args(["bench", "gateway", &std::process::id().to_string()])
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "warn,gateway::server=info"])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // A Ctrl-C is for this process, which then stops that one.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let (Some(pid), Some(stderr)) = (child.id(), child.stderr.take()) else {
            return Err(failed("it ended at once".to_owned()));
        };
        let mut lines = BufReader::new(stderr).lines();
        let address = timeout(START_PATIENCE, address(&mut lines)).await;
        let address = address.unwrap_or_else(|_| Err("it does not say where it listens".to_owned()));
        let (address, beginning) = address.map_err(failed)?;
        let log = Arc::new(Mutex::new(VecDeque::new()));
        tokio::spawn(keep(lines, Arc::clone(&log)));
        Ok(Self { child, address, pid, beginning, log })
    }

    pub(super) fn url(&self) -> String {
        format!("ws://{}/gateway", self.address)
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// The beginning and the end of its log.
    pub(super) fn log(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let end = log.iter().flat_map(|line| [line.as_str(), "\n"]);
        [self.beginning.as_str()].into_iter().chain(end).collect()
    }

    /// Stops it by SIGTERM; an exit code other than 0 is an error.
    pub(super) async fn stop(mut self) -> Result<(), BenchError> {
        let stopped = |reason: String, log: String| BenchError::Stop { reason, log };
        let sent = kill(Pid::from_raw(self.pid.cast_signed()), Signal::SIGTERM);
        sent.map_err(|error| stopped(error.to_string(), self.log()))?;
        match timeout(STOP_PATIENCE, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(stopped(format!("{status}"), self.log())),
            Ok(Err(error)) => Err(stopped(error.to_string(), self.log())),
            Err(_) => Err(stopped(format!("still there after {} s", STOP_PATIENCE.as_secs()), self.log())),
        }
    }
}

/// Turns this process, which a bench has started, into a gateway that the kernel kills when the bench ends, in whatever
/// way: one that is killed can stop nothing any more. Only the process itself can ask for that, and it
/// outlasts exec(2). Returns why it could not.
pub(super) fn become_gateway(typed: &BenchGateway) -> BenchError {
    let failed = |reason: String| BenchError::Spawn { reason };
    // It is tied to the thread that started this process: of a bench, its first one, which lasts.
    if let Err(error) = set_pdeathsig(Signal::SIGKILL) {
        return failed(error.to_string());
    }
    // It may have ended before that was asked for.
    if getppid() != Pid::from_raw(typed.bench.cast_signed()) {
        return failed(format!("process {}, for which it is, has ended", typed.bench));
    }
    match std::env::current_exe() {
        Ok(program) => failed(std::process::Command::new(program).args(&typed.arguments).exec().to_string()),
        Err(error) => failed(error.to_string()),
    }
}

/// Reads the log as far as the line that tells the address. Returns that, and what stood before.
async fn address(lines: &mut Lines<BufReader<ChildStderr>>) -> Result<(String, String), String> {
    let mut before = String::new();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some((_, address)) = line.split_once(LISTENING) {
            return Ok((address.trim().to_owned(), before));
        }
        before += &line;
        before.push('\n');
    }
    Err(format!("it ended before it listened: {}", before.trim_end()))
}

/// Keeps the end of the log, and the pipe empty.
async fn keep(mut lines: Lines<BufReader<ChildStderr>>, log: Arc<Mutex<VecDeque<String>>>) {
    while let Ok(Some(line)) = lines.next_line().await {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() == LOG_LINES {
            log.pop_front();
        }
        log.push_back(line);
    }
}
