//! The Unix domain socket: everything that is true of TCP, the file, and who may come by it.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Gateway, Service, Wire, eventually};

/// Debian's `nobody`.
const NOBODY: u32 = 65_534;

/// A gateway that listens on a socket in a directory of its own.
struct OnSocket {
    gateway: Gateway,
    path: PathBuf,
    _directory: TempDir,
}

impl OnSocket {
    fn start(flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Whoever the file lets in may reach it.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let path = directory.path().join("gateway.sock");
        let gateway = Self::start_at(&path, flags);
        Self { gateway, path, _directory: directory }
    }

    fn start_at(path: &Path, flags: &[&str]) -> Gateway {
        let unix = format!("--unix={}", path.display());
        let flags: Vec<&str> = std::iter::once(&*unix).chain(flags.iter().copied()).collect();
        let gateway = Gateway::start(&flags);
        gateway.wait_for_log("listening on the socket");
        gateway
    }

    fn connect(&self) -> Service {
        let wire = Wire::unix(&self.path).unwrap();
        Service::try_open_over(wire, "localhost", "/gateway", "")
            .unwrap_or_else(|answer| panic!("no WebSocket: {answer}"))
    }

    fn service(&self, name: &str) -> Service {
        let mut service = self.connect();
        service.identify(name);
        service
    }

    /// The whole answer to a request.
    fn http(&self, method: &str, path: &str, body: &str) -> String {
        let mut wire = Wire::unix(&self.path).unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        wire.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        wire.read_to_string(&mut answer).unwrap();
        answer
    }

    /// What a process of that user gets that asks `/healthz`.
    fn asked_by(&self, uid: u32) -> String {
        const ASK: &str = "import socket, sys\n\
            s = socket.socket(socket.AF_UNIX)\n\
            s.connect(sys.argv[1])\n\
            s.sendall(b'GET /healthz HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n')\n\
            print(s.makefile().read())";
        let output =
            Command::new("python3").args(["-c", ASK]).arg(&self.path).uid(uid).gid(uid).output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    }
}

#[test]
fn a_conversation_over_the_socket_is_as_one_over_tcp() {
    let mut on = OnSocket::start(&[]);
    let (mut a, mut b) = (on.service("a"), on.gateway.service("b"));
    // More than the socket's buffer holds.
    let large = format!("\"{}\"", "☃".repeat(300_000));
    for round in 0..5 {
        a.send("b", "x", &large);
        assert!(b.next().text.contains(&large));
        b.send("a", "y", &large);
        assert!(a.next().text.contains(&large));
        a.send("a", "z", &round.to_string());
        assert_eq!(a.next().json["d"], round);
    }
    assert!(on.http("GET", "/healthz", "").ends_with("ok\n"));
    // A connection that ended without a word is no obstacle.
    a.vanish();
    let mut a = on.connect();
    let accept = a.identify("a");
    assert_eq!(accept["resumed"], true);
    let mut again = on.connect();
    again.identify_with("a", json!({"session": accept["session"]}));
    a.expect_close(4010);
    b.close(4000);
    on.gateway.signal(Signal::SIGTERM);
    again.expect_close(1012);
    assert_eq!(on.gateway.wait().code(), Some(0));
    assert!(!on.path.exists(), "the file goes with the gateway");
}

#[test]
fn a_service_that_stops_reading_the_socket_is_cut_off() {
    let on = OnSocket::start(&["--stuck-ms=1000", "--heartbeat-ms=5000"]);
    let mut stuck = on.service("stuck");
    let mut source = on.gateway.service("a");
    // One leaves little unread, all of it in the socket; the other all that its mailbox has besides.
    let mut deaf = on.service("deaf");
    source.send("deaf", "x", "1");
    send_much(&mut source, "stuck", 3_000);
    // Where there is room, a close frame goes first.
    for (name, how, service) in [("stuck", "cut off", &mut stuck), ("deaf", "closed", &mut deaf)] {
        eventually("who stopped reading is cut off", || {
            service.text(&format!(r#"{{"s":"{name}","t":"heartbeat:{name}"}}"#));
            on.gateway.log().contains(&format!("{name} is away: {how} with 4008")).then_some(())
        });
    }
    let connections = || on.gateway.metric("gateway_connections", "");
    eventually("only the sender's connection is left", || (connections() == 1).then_some(()));
    let queued = on.gateway.account("stuck")[4];
    assert!(queued > 0);
    let mut back = on.service("stuck");
    (0..queued).for_each(|_| assert_eq!(back.next().topic(), "x"));
    back.expect_nothing();
}

/// So many messages of 10 kB.
fn send_much(source: &mut Service, target: &str, messages: usize) {
    let text = format!(r#"{{"s":"a","t":"gateway-proxy:{target}:x","d":"{}"}}"#, "x".repeat(10_000));
    for _ in 0..messages / 50 {
        source.texts((0..50).map(|_| text.clone()));
    }
    source.expect_nothing();
}

#[test]
fn a_service_that_reads_the_socket_slowly_but_enough_stays() {
    const MESSAGES: usize = 3_000;
    let on = OnSocket::start(&["--stuck-ms=1000", "--heartbeat-ms=5000", "--min-drain-bytes=20000"]);
    let mut slow = on.service("slow");
    std::thread::scope(|scope| {
        scope.spawn(|| send_much(&mut on.gateway.service("a"), "slow", MESSAGES));
        // (The pause is what is tested: a reader that is slow.)
        for _ in 0..MESSAGES / 100 {
            (0..100).for_each(|_| drop(slow.next()));
            std::thread::sleep(Duration::from_millis(80));
        }
    });
    slow.expect_nothing();
}

#[test]
fn silence_on_the_socket_is_found() {
    // Silence is three times that: much more than a busy machine makes of a tenth of it.
    let heartbeat = Duration::from_millis(400);
    let on = OnSocket::start(&[&format!("--heartbeat-ms={}", heartbeat.as_millis())]);
    let mut silent = on.service("silent");
    while let Some(frame) = silent.any_frame() {
        assert!(matches!(frame.opcode, 8 | 9), "{frame:?}");
    }
    assert_eq!(on.gateway.metric("gateway_closes_total", "4009"), 1);
    // A message that takes longer than that to come is life.
    let mut slow = on.service("slow");
    slow.bytes(&[0x81, 0xFE, 0x10, 0x00, 0, 0, 0, 0]);
    let start = Instant::now();
    while start.elapsed() < heartbeat * 4 {
        slow.bytes(b" ");
        std::thread::sleep(heartbeat / 10);
    }
    assert_eq!(on.gateway.metric("gateway_closes_total", "4009"), 1);
}

#[test]
fn a_ticket_is_good_for_another_connection_of_the_same_user_and_not_for_tcp() {
    let on = OnSocket::start(&[]);
    let identify = r#"{"s":"a","t":"gateway:opcode","d":{"opcode":0}}"#;
    let answer = on.http("POST", "/gateway", identify);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mut over_tcp = on.gateway.connect();
    over_tcp.text(r#"{"s":"a","t":"gateway-proxy:a:x","d":1}"#);
    over_tcp.expect_error("not_identified");
    let mut over_tcp = on.gateway.connect();
    over_tcp.send_identify("a", json!({}));
    over_tcp.expect_reject("already_connected");
    let mut a = on.connect();
    a.text(r#"{"s":"a","t":"gateway-proxy:a:x","d":1}"#);
    assert_eq!(a.expect_op(1)["service"], "a");
    assert_eq!(a.next().json["d"], 1);
    let answer = on.http("POST", "/gateway", &identify.replace("\"a\"", "\"b\""));
    let accept: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let path = format!("/gateway?ticket={}", accept["d"]["ticket"].as_str().unwrap());
    let mut b = Service::try_open_over(Wire::unix(&on.path).unwrap(), "localhost", &path, "").unwrap();
    assert_eq!(b.expect_op(1)["service"], "b");
}

#[test]
#[ignore = "needs root, to be other users"]
fn only_the_users_of_the_list_get_in() {
    let on = OnSocket::start(&["--unix-mode=0666"]);
    assert!(on.asked_by(0).contains("200 OK"));
    let refused = on.asked_by(NOBODY);
    assert!(refused.contains("403 Forbidden") && refused.contains("user 65534 may not"), "{refused}");
    assert_eq!(on.gateway.metric("gateway_turned_away_total", "foreign_user"), 1);

    let on = OnSocket::start(&["--unix-mode=0666", "--unix-uids=65534,12345"]);
    assert!(on.asked_by(NOBODY).contains("200 OK"));
    assert!(on.asked_by(12_345).contains("200 OK"));
    assert!(on.asked_by(0).contains("403 Forbidden"), "root only where it is listed");

    let on = OnSocket::start(&["--unix-uids=65534"]);
    assert!(on.asked_by(NOBODY).contains("Permission denied"), "the file's mode is 0600");
}

#[test]
fn the_file_has_its_mode_and_a_dead_gateways_is_replaced() {
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let mut on = OnSocket::start(&["--unix-mode=0660"]);
    assert_eq!(mode(&on.path), 0o660);
    let message = refused_start(&on.path);
    assert!(message.contains("another process listens on"), "{message}");
    on.service("a").expect_nothing();

    on.gateway.signal(Signal::SIGKILL);
    on.gateway.wait();
    assert!(fs::metadata(&on.path).unwrap().file_type().is_socket(), "the killed one left its file");
    on.gateway = OnSocket::start_at(&on.path, &[]);
    assert_eq!(mode(&on.path), 0o600);
    on.service("a").expect_nothing();

    // What took its place meanwhile is not its own to remove.
    fs::remove_file(&on.path).unwrap();
    let successor = UnixListener::bind(&on.path).unwrap();
    on.gateway.signal(Signal::SIGTERM);
    assert_eq!(on.gateway.wait().code(), Some(0));
    UnixStream::connect(&on.path).unwrap();
    drop(successor);

    let file = on.path.with_file_name("file");
    fs::write(&file, "precious").unwrap();
    let message = refused_start(&file);
    assert!(message.contains("is there and no socket"), "{message}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    for path in [on.path.with_file_name("no/where"), on.path.with_file_name("x".repeat(200))] {
        let message = refused_start(&path);
        assert!(message.contains("unix: cannot listen on"), "{message}");
    }
}

/// What is told by a gateway that cannot listen there.
fn refused_start(path: &Path) -> String {
    Gateway::refused(&[format!("--unix={}", path.display())])
}
