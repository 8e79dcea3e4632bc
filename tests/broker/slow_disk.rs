//! A disk under the store that stands still for seconds: a write neither fails nor ends. What is
//! granted then is granted late, and nobody IDENTIFYs too early for it.
//!
//! The disk is an ext4 in a file, mounted in a mount namespace of its own and frozen there. It is
//! gone with the last process in the namespace, however the test ends. Needs root, a loop device and
//! util-linux: `tests/run` tries that first.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Gateway, Service, eventually};

const INTERVAL: Duration = Duration::from_secs(2);

/// As far below the interval as Discord's 5 s are below 5.5 s.
const DEMANDED: Duration = Duration::from_millis(1_500);

/// Mounts the disk, says so, and stays until its standard input ends.
const HOLD: &str =
    r#"truncate --size 16M "$1" && mkfs.ext4 -q "$1" && mount -o loop "$1" "$2" && echo && exec cat"#;

struct Disk {
    holder: Child,
    mounted: PathBuf,
    _directory: TempDir,
}

impl Disk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (image, mounted) = (directory.path().join("image"), directory.path().join("mounted"));
        std::fs::create_dir(&mounted).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", HOLD, "sh"]).args([&image, &mounted]);
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(ready, "\n", "a disk needs root, a loop device, mkfs.ext4 and util-linux");
        Self { holder, mounted, _directory: directory }
    }

    /// A command where the disk is mounted.
    fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &self.holder.id().to_string()]);
        command
    }

    /// One permit at a time, and a store on the disk.
    fn start_gateway(&self) -> Gateway {
        let mut command = self.command();
        command.arg(Gateway::command().get_program());
        let interval = format!("--identify-interval-ms={}", INTERVAL.as_millis());
        let data_dir = format!("--data-dir={}", self.mounted.join("store").display());
        let flags = ["--shards=4", "--permit-ttl-ms=300", &interval, &data_dir];
        Gateway::start_as(&mut command, "127.0.0.1:0", &flags)
    }

    /// Whoever writes there waits, until this is dropped.
    fn freeze(&self) -> Frozen<'_> {
        self.fsfreeze("--freeze");
        Frozen(self)
    }

    fn fsfreeze(&self, how: &str) {
        let status = self.command().args(["fsfreeze", how]).arg(&self.mounted).status().unwrap();
        assert!(status.success(), "fsfreeze {how}: {status}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

struct Frozen<'a>(&'a Disk);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.0.fsfreeze("--unfreeze");
    }
}

fn ask(service: &mut Service) {
    service.send_op(&json!({"opcode": 10}));
}

/// The id of the next SHARD_ACCEPT, after any number of SHARD_WAIT; and when it came.
fn granted(service: &mut Service) -> (Value, Duration) {
    loop {
        let op = service.next().data().clone();
        match op["opcode"].as_u64() {
            Some(11) => return (op["shard_id"].clone(), service.arrival()),
            Some(30) => {}
            _ => panic!("{op}"),
        }
    }
}

/// `b` is granted an id while the disk stands still for seconds. Its permit is as late as its disk.
fn granted_amid_a_stall(disk: &Disk, gateway: &Gateway, b: &mut Service) -> Duration {
    let (mut a, mut source) = (gateway.service("a"), gateway.service("source"));
    ask(&mut a);
    let (first, _) = granted(&mut a);
    assert_eq!(first, 0);
    let frozen = disk.freeze();
    ask(b);
    eventually("a write takes long, and operators are told", || {
        let (status, body) = gateway.http("GET", "/readyz", &[], "");
        (status == 503 && body.contains("a write to data_dir takes longer than 2s")).then_some(())
    });
    // Everything else goes on.
    source.send("shard/0", "x", "1");
    assert_eq!(a.next().topic(), "x");
    while let Some(message) = b.poll().unwrap() {
        assert_eq!(message.data()["opcode"], 30, "nothing is granted before it is stored");
    }
    drop(frozen);
    let (second, came) = granted(b);
    assert_eq!(second, 1);
    gateway.wait_for_log("expected 500ms at most");
    eventually("the store is well again", || {
        (gateway.http("GET", "/readyz", &[], "").0 == 200).then_some(())
    });
    came
}

#[test]
#[ignore = "needs a disk of its own (root, a loop device): run tests/run, or add --include-ignored"]
fn a_disk_that_stands_still_delays_a_permit_and_does_not_hurry_the_next() {
    let disk = Disk::new();
    let gateway = disk.start_gateway();
    let (mut b, mut c) = (gateway.service("b"), gateway.service("c"));
    let before = granted_amid_a_stall(&disk, &gateway, &mut b);
    ask(&mut c);
    let (id, came) = granted(&mut c);
    assert_eq!(id, 2);
    let since = came.saturating_sub(before);
    assert!(since >= DEMANDED, "the next permit came {since:?} after the delayed one");
}

#[test]
#[ignore = "needs a disk of its own (root, a loop device): run tests/run, or add --include-ignored"]
fn a_gateway_that_is_killed_after_a_stall_knows_how_late_the_permit_was() {
    let disk = Disk::new();
    let mut gateway = disk.start_gateway();
    let before = granted_amid_a_stall(&disk, &gateway, &mut gateway.service("b"));
    gateway.signal(Signal::SIGKILL);
    gateway.wait();
    let gateway = disk.start_gateway();
    let mut c = gateway.service("c");
    ask(&mut c);
    let (id, came) = granted(&mut c);
    assert_eq!(id, 2);
    let since = came.saturating_sub(before);
    assert!(since >= DEMANDED, "the next permit came {since:?} after the delayed one");
}
