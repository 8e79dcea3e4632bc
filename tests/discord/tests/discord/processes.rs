//! The gateway, and processes of shards.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gateway_discord_tests::{Fake, Settings};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// The longest that anything is waited for.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// Checks again and again until `found` finds something; `what` is told where it does not.
pub async fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "it never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn fake(settings: Settings) -> Fake {
    Fake::start("127.0.0.1:0", settings).await.unwrap()
}

/// What a process writes, line by line.
type Lines = Arc<Mutex<String>>;

fn keep(stream: impl AsyncRead + Unpin + Send + 'static, kept: Lines) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let mut kept = kept.lock().unwrap();
            kept.push_str(&line);
            kept.push('\n');
        }
    });
}

/// A gateway that asks the fake.
pub struct Gateway {
    child: Child,
    log: Lines,
}

/// What a gateway is started with where no flag says otherwise.
const DEFAULTS: [(&str, &str); 2] = [("--listen", "127.0.0.1:0"), ("--data-dir", "none")];

impl Gateway {
    /// `GATEWAY_BINARY` names it; else it is the one that `cargo build` makes. The token is the fake's
    /// own, unless a flag names the file of another.
    pub fn spawn(fake: &Fake, flags: &[&str]) -> Self {
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/debug/gateway");
        let binary = std::env::var_os("GATEWAY_BINARY").map_or(built, Into::into);
        let mut command = Command::new(&binary);
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GATEWAY_"))
        {
            command.env_remove(name);
        }
        let is_set = |name: &str| flags.iter().any(|flag| flag.starts_with(name));
        if !is_set("--discord-token-file") {
            command.env("GATEWAY_DISCORD_TOKEN", Settings::default().token);
        }
        command.args(DEFAULTS.iter().filter(|it| !is_set(it.0)).map(|it| format!("{}={}", it.0, it.1)));
        let mut child = command
            .arg(format!("--discord-api={}", fake.api()))
            .args(flags)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
        let log = Lines::default();
        keep(child.stderr.take().unwrap(), log.clone());
        Self { child, log }
    }

    /// Once it listens.
    pub async fn address(&self) -> String {
        eventually("the gateway listens", || {
            let log = self.log.lock().unwrap();
            let (_, rest) = log.split_once("listening on ")?;
            Some(rest.lines().next()?.to_owned())
        })
        .await
    }

    /// The URL for services.
    pub async fn url(&self) -> String {
        format!("ws://{}/gateway", self.address().await)
    }

    /// One request with a body of JSON, if any; the status and the answer.
    pub async fn http(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let address = self.address().await;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let json = status.zip(serde_json::from_str(body).ok());
        json.unwrap_or_else(|| panic!("{method} {path}: {answer:?}"))
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub async fn wait_for_log(&self, text: &str) {
        eventually(&format!("the log says {text:?}"), || self.log().contains(text).then_some(())).await;
    }

    /// SIGKILL, and the end of it.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// How it ends by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("the gateway ends").unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the gateway's log\n{}---", self.log());
        }
    }
}

/// A process of shards.
pub struct Shards {
    name: String,
    child: Child,
    said: Lines,
}

/// What runs the shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// twilight-gateway, in Rust.
    Twilight,
    /// @discordjs/ws, in JavaScript.
    DiscordJs,
}

impl Library {
    /// The process takes what `src/bin/shards.rs` describes, and prints the same.
    fn command(self) -> Command {
        match self {
            Self::Twilight => Command::new(env!("CARGO_BIN_EXE_shards")),
            Self::DiscordJs => {
                let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-node-discord");
                let directory = std::env::var_os("DISCORD_NODE_DIRECTORY").map_or(installed, Into::into);
                let mut command = Command::new("node");
                command.arg(directory.join("shards.mjs"));
                command
            }
        }
    }
}

impl Shards {
    pub fn spawn(library: Library, gateway: &str, fake: &Fake, name: &str, shards: usize) -> Self {
        let mut child = library
            .command()
            .args([gateway, &fake.gateway(), &Settings::default().token, name, &shards.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let said = Lines::default();
        keep(child.stdout.take().unwrap(), said.clone());
        keep(child.stderr.take().unwrap(), said.clone());
        Self { name: name.to_owned(), child, said }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// SIGKILL, and the end of it.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Gives all its shards back, and ends.
    pub async fn leave(mut self) {
        drop(self.child.stdin.take());
        self.ended().await;
    }

    /// Ends by itself: it has no shard any more.
    pub async fn ended(&mut self) {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("the shards end").unwrap();
        assert!(ended.success(), "{}: {ended}", self.name);
    }

    /// Which shards had an event of that name and text; `Null` for any.
    pub fn had(&self, event: &str, text: &Value) -> Vec<u64> {
        let said = self.said.lock().unwrap();
        let events = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let matching = events.filter(|it| it["event"] == event && (text.is_null() || it["data"] == *text));
        let mut shards: Vec<u64> = matching.filter_map(|event| event["shard"].as_u64()).collect();
        shards.sort_unstable();
        shards
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}\n{}---", self.name, self.said.lock().unwrap());
        }
    }
}
