//! A gateway of its own for each test, as a process.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio_rustls::rustls::ClientConfig;

use super::{PATIENCE, Service, Wire, eventually, secrets};

pub(crate) struct Gateway {
    child: Child,
    address: SocketAddr,
    log: Arc<Mutex<String>>,
    is_log_read: Arc<AtomicBool>,
    /// How TLS is spoken with it, where it is.
    tls: Option<Arc<ClientConfig>>,
    /// Whether its account may differ from its mailboxes.
    is_miscounted: bool,
}

impl Gateway {
    /// Starts a gateway with these flags on a port of its own. Shard ids are not paced, and kept in
    /// memory only, unless a flag says so.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::start_on("127.0.0.1:0", flags)
    }

    /// As [`start`](Self::start), on this address.
    pub(crate) fn start_on(listen: &str, flags: &[&str]) -> Self {
        Self::start_as(&mut Self::command(), listen, flags)
    }

    /// As [`start_on`](Self::start_on), by a command that runs the gateway with the flags it is given.
    pub(crate) fn start_as(command: &mut Command, listen: &str, flags: &[&str]) -> Self {
        let is_paced = flags.iter().any(|flag| flag.starts_with("--identify-interval-ms"));
        let unpaced = ["--identify-interval-ms=0"];
        let mut child = command
            .args(["--listen", listen])
            .args(if is_paced { &[] } else { &unpaced[..] })
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the gateway's binary runs");
        let log = Arc::new(Mutex::new(String::new()));
        let is_log_read = Arc::new(AtomicBool::new(true));
        let (stderr, kept, is_read) = (child.stderr.take().unwrap(), log.clone(), is_log_read.clone());
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                writeln!(kept.lock().unwrap(), "{line}").unwrap();
                while !is_read.load(Ordering::Relaxed) {
                    thread::park();
                }
            }
        });
        let address = eventually("the gateway listens", || {
            let log = log.lock().unwrap();
            let (_, rest) = log.split_once("listening on ")?;
            rest.lines().next()?.parse().ok()
        });
        Self { child, address, log, is_log_read, tls: None, is_miscounted: false }
    }

    /// As [`start`](Self::start); everything is said over TLS, by that client.
    pub(crate) fn start_with_tls(flags: &[&str], client: Arc<ClientConfig>) -> Self {
        let mut gateway = Self::start(flags);
        gateway.tls = Some(client);
        gateway
    }

    /// What is told, in one line, by a gateway that does not start with these flags, since its user has
    /// something to mend.
    pub(crate) fn refused(flags: &[String]) -> String {
        let mut command = Self::command();
        command.arg("--listen=127.0.0.1:0").args(flags).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the gateway's binary runs");
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                child.kill().unwrap();
            }
            thread::sleep(Duration::from_millis(5));
        }
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {told}");
        assert_eq!(told.lines().count(), 1, "{flags:?}: {told}");
        told
    }

    /// A connection to it.
    pub(crate) fn wire(&self) -> io::Result<Wire> {
        match &self.tls {
            None => Wire::tcp(self.address),
            Some(config) => Wire::tls(self.address, config),
        }
    }

    /// The gateway's binary, with none of this process's settings, and everything in memory.
    pub(crate) fn command() -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
        Self::clear_settings(&mut command);
        command.env("GATEWAY_DATA_DIR", "none");
        command
    }

    fn clear_settings(command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("GATEWAY_") {
                command.env_remove(name);
            }
        }
    }

    /// From the next line on, the pipe that the log goes to is not read any more.
    pub(crate) fn stop_reading_the_log(&self) {
        self.is_log_read.store(false, Ordering::Relaxed);
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Makes the gateway count a message that never was, and waits until it finds out.
    #[cfg(feature = "fault-injection")]
    pub(crate) fn miscount(&mut self, service: &mut Service) {
        self.is_miscounted = true;
        service.send_op(&serde_json::json!({"panic": "account"}));
        self.wait_for_log("the account and the mailboxes differ");
    }

    pub(crate) fn wait_for_log(&self, text: &str) {
        eventually(&format!("the log says {text:?}"), || self.log().contains(text).then_some(()));
    }

    /// A WebSocket that has not identified.
    pub(crate) fn connect(&self) -> Service {
        Service::try_open_over(self.wire().unwrap(), &self.address.to_string(), "/gateway", "")
            .unwrap_or_else(|answer| panic!("no WebSocket: {answer}"))
    }

    /// A service that is accepted.
    pub(crate) fn service(&self, name: &str) -> Service {
        let mut service = self.connect();
        service.identify(name);
        service
    }

    /// One HTTP request; the status, and the body.
    pub(crate) fn http(&self, method: &str, path: &str, headers: &[&str], body: &str) -> (u16, String) {
        let answer = self.http_raw(method, path, headers, body);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_else(|| panic!("no HTTP answer to {method} {path}: {answer:?}")), body.to_owned())
    }

    /// As [`http`](Self::http), but head and all. Sends `Host` unless the headers have one.
    pub(crate) fn http_raw(&self, method: &str, path: &str, headers: &[&str], body: &str) -> String {
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        if !headers.iter().any(|header| header.starts_with("Host:")) {
            write!(request, "Host: {}\r\n", self.address).unwrap();
        }
        for header in headers {
            write!(request, "{header}\r\n").unwrap();
        }
        let request = format!("{request}\r\n{body}");
        secrets::learn(self.address.port(), &request);
        let mut stream = self.wire().unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        if path == "/gateway" {
            secrets::learn(self.address.port(), &answer);
        } else {
            let leaked = secrets::leaked(self.address.port(), &answer);
            assert_eq!(leaked, None, "{method} {path} tells a secret: {answer}");
        }
        answer
    }

    pub(crate) fn get_json(&self, path: &str) -> Value {
        let (status, body) = self.http("GET", path, &[], "");
        assert_eq!(status, 200, "GET {path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    pub(crate) fn post_json(&self, path: &str, body: &str) -> (u16, Value) {
        let (status, body) = self.http("POST", path, &["Content-Type: application/json"], body);
        (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("POST {path}: {status} {body:?}")))
    }

    /// The sum of a metric over all its labels that contain `label`.
    pub(crate) fn metric(&self, name: &str, label: &str) -> u64 {
        let (_, text) = self.http("GET", "/metrics", &[], "");
        text.lines()
            .filter(|line| line.split(['{', ' ']).next() == Some(name) && line.contains(label))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }

    /// Accepted, delivered, returned, dead and queued messages to a target, of one moment.
    pub(crate) fn account(&self, target: &str) -> [u64; 5] {
        let accounting = self.get_json("/api/v1/accounting");
        let sum = &accounting["targets"][target]["sum"];
        ["accepted", "delivered", "returned", "dead", "queued"]
            .map(|part| sum[part]["messages"].as_u64().unwrap_or(0))
    }

    /// The last word of a gateway that has stopped: accepted, delivered, returned, dead and queued
    /// messages that some line of its log with that start tells. `stopped; messages` is the sum.
    pub(crate) fn last_account(&self, start: &str) -> [u64; 5] {
        self.wait_for_log("stopped; messages: ");
        let log = self.log();
        let mut sum = [0; 5];
        for line in log.lines().filter_map(|line| line.split_once(start)).map(|(_, line)| line) {
            let numbers = line.split(' ').filter_map(|word| word.parse::<u64>().ok());
            sum.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
        }
        sum
    }

    /// Resident memory in KiB; `VmRSS` or `VmHWM`.
    pub(crate) fn memory_kib(&self, which: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(which)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// How many descriptors the process has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Waits for the process to end by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("the gateway ends", || child.try_wait().unwrap())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let is_wrong = !self.is_miscounted && self.log().contains("the account and the mailboxes differ");
        if thread::panicking() || is_wrong {
            eprintln!("--- the gateway's log\n{}---", self.log());
        }
        let leaked = secrets::leaked(self.address.port(), &self.log());
        assert!(
            thread::panicking() || leaked.is_none(),
            "a secret stands in the log: {leaked:?}\n{}",
            self.log()
        );
        assert!(thread::panicking() || !is_wrong, "the account and the mailboxes differ, see the log");
    }
}
