//! Somebody who guesses tokens, as fast as a few connections allow.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ring::digest::{SHA256, digest};
use serde_json::json;
use tempfile::NamedTempFile;

use crate::attack::{FACTOR, ROUNDS, in_most_tries, in_quiet, is_as_good, median, take_turn};
use crate::priority::{go_first, go_last};
use crate::support::{Gateway, PATIENCE};

/// How many are guessed in all, and how many that is for a round.
const GUESSES: usize = 100_000;
const A_ROUND: usize = GUESSES / ROUNDS;

/// Connections that the guesser has at once, and guesses that it sends by each without an answer.
const AT_ONCE: usize = 4;
const PIPELINED: usize = 16;

/// Connects in one measurement, by one who has a token.
const CONNECTS: usize = 100;

/// `auth_failures_per_minute`
const ALLOWED: usize = 30;

const TOKEN: &str = "the-right-token";

/// What became of the guesses.
#[derive(Default)]
struct Outcome {
    unauthorized: AtomicUsize,
    too_many: AtomicUsize,
}

impl Outcome {
    fn answered(&self) -> usize {
        self.unauthorized.load(Ordering::Relaxed) + self.too_many.load(Ordering::Relaxed)
    }

    /// Sends guesses until so many were answered.
    fn guess(&self, address: SocketAddr, until: usize) {
        go_last();
        while self.answered() < until {
            let requests = (0..PIPELINED).map(|_| request(address)).collect::<Vec<_>>().concat();
            let mut came = Vec::new();
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            // The gateway ends the connection after it has answered.
            let _ = stream.write_all(requests.as_bytes()).and_then(|()| stream.read_to_end(&mut came));
            let text = String::from_utf8_lossy(&came);
            self.unauthorized.fetch_add(text.matches("HTTP/1.1 401").count(), Ordering::Relaxed);
            self.too_many.fetch_add(text.matches("HTTP/1.1 429").count(), Ordering::Relaxed);
            assert!(!text.contains("HTTP/1.1 2"), "a guess was right: {text}");
        }
    }
}

/// Shows a token that nobody has.
fn request(address: SocketAddr) -> String {
    let token = fastrand::u128(..);
    format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer gw_{token:064x}\r\n\r\n")
}

/// A file with the one credential that there is.
fn credentials() -> NamedTempFile {
    let hash = digest(&SHA256, TOKEN.as_bytes());
    let hash = hash.as_ref().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let file = NamedTempFile::new().unwrap();
    let entry = format!("[[credential]]\nid = \"regular\"\ntoken_sha256 = \"{hash}\"\nnames = [\"*\"]\n");
    std::fs::write(file.path(), entry).unwrap();
    file
}

/// 99 of 100 connects of a service that shows its token, from the same address, take at most so long:
/// handshake, IDENTIFY, ACCEPT, and its end.
fn connects(gateway: &Gateway) -> Duration {
    let mut times: Vec<Duration> = (0..CONNECTS)
        .map(|_| {
            let start = Instant::now();
            let mut service = gateway.connect();
            service.identify_with("regular", json!({"token": TOKEN}));
            let took = start.elapsed();
            service.close(4000);
            took
        })
        .collect();
    times.sort_unstable();
    times[CONNECTS * 99 / 100]
}

/// What connects take while a round of guesses is under way.
fn under_attack(gateway: &Gateway, outcome: &Outcome) -> Vec<Duration> {
    let until = outcome.answered() + A_ROUND;
    let mut times = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| outcome.guess(gateway.address(), until));
        }
        while outcome.answered() < until {
            times.push(connects(gateway));
        }
    });
    times
}

#[test]
fn a_hundred_thousand_guesses_are_throttled_and_cost_those_who_know_nothing() {
    let _turn = take_turn();
    let file = credentials();
    let flag = format!("--credentials={}", file.path().display());
    let gateway = Gateway::start(&[&flag, &format!("--auth-failures-per-minute={ALLOWED}")]);
    go_first(&gateway);
    let before = gateway.memory_kib("VmRSS");
    let (start, outcome, mut tries) = (Instant::now(), Outcome::default(), 0);
    let is_met = in_most_tries(|| {
        tries += 1;
        let (mut quiet, mut attacked) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            quiet.push(in_quiet(AT_ONCE, || connects(&gateway)));
            attacked.extend(under_attack(&gateway, &outcome));
        }
        let (quiet, attacked) = (median(quiet), median(attacked));
        println!("p99 of connects: {quiet:?} in quiet, {attacked:?} while {GUESSES} tokens are guessed");
        is_as_good(attacked, quiet)
    });
    assert!(is_met, "connects take more than {FACTOR} times what they do in quiet");
    assert!(outcome.answered() >= GUESSES * tries);
    let looked_at = outcome.unauthorized.load(Ordering::Relaxed);
    println!("{looked_at} of {} guesses were looked at in {:?}", outcome.answered(), start.elapsed());
    let minutes = usize::try_from(start.elapsed().as_secs() / 60).unwrap();
    let allowed = ALLOWED * (2 + minutes);
    assert!(
        (ALLOWED..=allowed).contains(&looked_at),
        "{looked_at} guesses were looked at, {allowed} are allowed"
    );
    let lines = gateway.log().matches("showed no valid credential").count();
    assert!(lines <= allowed, "{lines} lines in the log");
    let grown = gateway.memory_kib("VmHWM").saturating_sub(before) / 1024;
    assert!(grown <= 32, "memory grew by {grown} MiB");
}
