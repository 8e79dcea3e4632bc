//! A bot, and where it lives: a Discord, a gateway that may be killed, and processes of shards.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use gateway_discord_tests::{Fake, Settings};
use serde_json::Value;
use tempfile::TempDir;

use crate::processes::{Gateway, Library, Shards, eventually, fake};

/// Discord's 5 s, scaled down. The gateway's 5.5 s are scaled less, so that what lies between them is
/// enough for a loaded machine. A permit is good for less than the interval, as with Discord: twilight
/// takes a second from its lease to its IDENTIFY.
pub const FAKE_INTERVAL: Duration = Duration::from_millis(500);
pub const PACED: [&str; 3] = ["--shards=auto", "--identify-interval-ms=1500", "--permit-ttl-ms=1400"];

const FOR_EACH_PROCESS: u32 = 4;

pub struct World {
    pub fake: Fake,
    pub gateway: Gateway,
    pub processes: Vec<Shards>,
    library: Library,
    url: String,
    /// Where each of its gateways listens.
    address: SocketAddr,
    flags: Vec<String>,
    /// Where each of them keeps its pool.
    _directory: TempDir,
}

impl World {
    /// A bot of so many shards, none of which is started.
    pub async fn new(max_concurrency: u32, shards: u32) -> Self {
        Self::of(Library::Twilight, &[], max_concurrency, shards).await
    }

    /// As [`new`](Self::new), with that library, and further flags for each gateway.
    pub async fn of(library: Library, flags: &[&str], max_concurrency: u32, shards: u32) -> Self {
        let identify_interval = FAKE_INTERVAL;
        let settings = Settings { shards, max_concurrency, identify_interval, ..Settings::default() };
        let fake = fake(settings).await;
        let directory = tempfile::tempdir().unwrap();
        let data_dir = format!("--data-dir={}", directory.path().display());
        let mut flags: Vec<String> = PACED.iter().chain(flags).map(|flag| (*flag).to_owned()).collect();
        flags.push(data_dir);
        let gateway = gateway(&fake, SocketAddr::from((own_address(), 0)), &flags);
        let (url, address) = (gateway.url().await, gateway.address().await.parse().unwrap());
        Self { fake, gateway, processes: Vec::new(), library, url, address, flags, _directory: directory }
    }

    /// Starts all its shards, and waits until they are connected.
    pub async fn start(max_concurrency: u32, shards: u32) -> Self {
        let mut world = Self::new(max_concurrency, shards).await;
        world.spawn_all("process", shards);
        world.all_connected("the shards start", shards).await;
        world
    }

    /// Starts the processes that it takes for so many shards.
    pub fn spawn_all(&mut self, name: &str, shards: u32) {
        for number in 0..shards / FOR_EACH_PROCESS {
            self.processes.push(self.spawn(&format!("{name}-{number}")));
        }
    }

    pub fn spawn(&self, name: &str) -> Shards {
        Shards::spawn(self.library, &self.url, &self.fake, name, FOR_EACH_PROCESS as usize)
    }

    /// As `kill -9` does it.
    pub async fn kill_gateway(&mut self) {
        self.gateway.kill().await;
        let log = self.gateway.log();
        assert!(!log.contains("panicked"), "{log}");
    }

    /// Starts another one where the last one was, with what that stored.
    pub async fn start_gateway(&mut self) {
        self.gateway = gateway(&self.fake, self.address, &self.flags);
        self.gateway.address().await;
    }

    /// Waits until each of so many shards is connected once, and nothing else is.
    pub async fn all_connected(&self, what: &str, shards: u32) {
        let is_over = || self.is_complete(shards) || !self.fake.violations().is_empty();
        eventually(&format!("{shards} shards are connected: {what}"), || is_over().then_some(())).await;
        self.assert_no_violations();
    }

    pub fn is_complete(&self, shards: u32) -> bool {
        self.fake.connected().into_iter().eq((0..shards).map(|id| (id, shards)))
    }

    /// Waits for so many IDENTIFYs and RESUMEs in all, after which all shards are connected.
    pub async fn counted(&self, what: &str, shards: u32, expected: (u64, u64)) {
        let is_over = || {
            let (identifies, resumes) = self.fake.counts();
            identifies >= expected.0 && resumes >= expected.1 || !self.fake.violations().is_empty()
        };
        eventually(&format!("{what}: {expected:?} IDENTIFYs and RESUMEs"), || is_over().then_some(())).await;
        self.all_connected(what, shards).await;
        assert_eq!(self.fake.counts(), expected, "{what}: IDENTIFYs and RESUMEs");
    }

    pub fn assert_no_violations(&self) {
        assert_eq!(self.fake.violations(), Vec::<String>::new());
    }

    /// Which shards had an event of that name and text, over all processes that live.
    pub fn had(&self, event: &str, text: &Value) -> Vec<u64> {
        let mut shards: Vec<u64> = self.processes.iter().flat_map(|it| it.had(event, text)).collect();
        shards.sort_unstable();
        shards
    }

    /// Waits until so many shards heard that text; each heard it once.
    pub async fn every_shard_hears_once(&self, text: &str, shards: u32) {
        let everyone: Vec<u64> = (0..u64::from(shards)).collect();
        let heard = || self.had("FAKE_SAYS", &Value::from(text));
        eventually(&format!("all hear {text:?}"), || (heard().len() >= everyone.len()).then_some(())).await;
        assert_eq!(heard(), everyone);
    }
}

fn gateway(fake: &Fake, address: SocketAddr, flags: &[String]) -> Gateway {
    let listen = format!("--listen={address}");
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain([listen.as_str()]).collect();
    Gateway::spawn(fake, &flags)
}

/// Of loopback, and used by nobody else: nothing else can have the port of a gateway that was killed
/// before the next one has it.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high.max(1), low, NEXT.fetch_add(1, Ordering::Relaxed))
}
