//! When the machine lets the gateway down: no descriptors, a log that is stuck or full; and a stop
//! under full load.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{Frame, Gateway, Service, eventually};

/// One message from one to the other, and that it comes.
fn exchange(source: &mut Service, target: &mut Service, rounds: u64) {
    for round in 0..rounds {
        source.send("b", "x", &round.to_string());
        assert_eq!(target.next().json["d"], round);
    }
}

/// Sets how many descriptors a process may open; its hard limit stays.
fn limit_descriptors(gateway: &Gateway, limit: usize) {
    let arguments = [format!("--pid={}", gateway.id()), format!("--nofile={limit}:")];
    let status = Command::new("prlimit").args(arguments).status();
    assert!(status.is_ok_and(|status| status.success()), "prlimit, of Debian's util-linux, is needed");
}

#[test]
fn without_descriptors_nobody_new_gets_in_and_services_go_on() {
    let gateway = Gateway::start(&[]);
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    exchange(&mut a, &mut b, 1);
    let before = gateway.descriptors();
    limit_descriptors(&gateway, before + 7);
    let crowd: Vec<TcpStream> = (0..30).map(|_| TcpStream::connect(gateway.address()).unwrap()).collect();
    eventually("it has no descriptor left", || (gateway.descriptors() >= before + 6).then_some(()));
    gateway.wait_for_log("Too many open files");
    exchange(&mut a, &mut b, 200);
    let now = gateway.descriptors();
    assert!(now <= before + 10, "{now} descriptors for a crowd of 30, {before} before");
    // By itself, once there are descriptors again; until then whoever gets in is told so.
    drop(crowd);
    let mut c = eventually("somebody gets in", || match Service::try_open(gateway.address(), "/gateway") {
        Ok(service) => Some(service),
        Err(answer) => {
            assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
            None
        }
    });
    c.identify("c");
    c.expect_nothing();
    limit_descriptors(&gateway, before + 200);
    gateway.service("d").expect_nothing();
    exchange(&mut a, &mut b, 10);
    eventually("what the crowd had is given back", || (gateway.descriptors() <= before + 10).then_some(()));
}

#[test]
fn a_log_that_nobody_reads_holds_up_nobody() {
    let gateway = Gateway::start(&["--log=debug", "--max-ops-per-second=1000000"]);
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    gateway.stop_reading_the_log();
    // Far more lines than a pipe and the queue of the log hold.
    for _ in 0..300 {
        a.texts((0..100).map(|_| r#"{"s":"a","t":"gateway-proxy:nobody:x","n":1}"#.to_owned()));
        (0..100).for_each(|_| drop(a.expect_error("no_such_service")));
    }
    exchange(&mut a, &mut b, 100);
    assert_eq!(gateway.http("GET", "/healthz", &[], "").0, 200);
}

#[test]
fn a_full_disk_under_the_log_stops_nothing() {
    // Its log cannot tell the port.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut child = Gateway::command()
        .arg(format!("--listen=127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .stderr(full)
        .spawn()
        .unwrap();
    let address = ([127, 0, 0, 1], port).into();
    eventually("it listens", || TcpStream::connect(address).ok());
    let [mut a, mut b] = ["a", "b"].map(|name| {
        let mut service = Service::open(address, "/gateway");
        service.identify(name);
        service
    });
    exchange(&mut a, &mut b, 100);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    a.expect_close(1012);
    b.expect_close(1012);
    let status = eventually("it ends", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

/// Services that all send to each other, and the messages of each that are on their way at most.
const TALKERS: usize = 4;
const WINDOW: u64 = 500;

/// What one of them saw.
#[derive(Default)]
struct Talk {
    came: BTreeSet<(String, u64)>,
    receipts: BTreeSet<u64>,
    errors: BTreeSet<u64>,
}

/// Sends to all others until the stop, and reads until its connection is closed. Every second talker
/// acknowledges.
fn talk(gateway: &Gateway, index: usize, is_over: &AtomicBool) -> Talk {
    let name = format!("t{index}");
    let mut service = gateway.connect();
    let acks = index.is_multiple_of(2);
    service.identify_with(&name, json!({"receipts": true, "ack": acks}));
    let settled = AtomicU64::new(0);
    let mut writer = service.writer();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !is_over.load(Ordering::Relaxed) {
                if number >= settled.load(Ordering::Relaxed) + WINDOW {
                    thread::yield_now();
                    continue;
                }
                let texts = (number..number + 50).map(|n| {
                    let to = usize::try_from(n).unwrap() % TALKERS;
                    format!(r#"{{"s":"{name}","t":"gateway-proxy:t{to}:x","d":{n},"n":{n}}}"#)
                });
                writer.texts(texts);
                number += 50;
            }
        });
        let talk = listen(&mut service, &settled, acks);
        is_over.store(true, Ordering::Relaxed);
        talk
    })
}

fn listen(service: &mut Service, settled: &AtomicU64, acks: bool) -> Talk {
    let mut talk = Talk::default();
    while let Some(Frame { opcode, payload }) = service.next_frame() {
        if opcode == 8 {
            assert_eq!(payload[..2], 1012_u16.to_be_bytes());
            service.frame(0x88, &payload[..2]);
            continue;
        }
        let message: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        let data = &message["d"];
        if message["s"] == "gateway" {
            let number = data["n"].as_u64().unwrap();
            let told = if data["opcode"] == 21 { &mut talk.receipts } else { &mut talk.errors };
            assert!(told.insert(number), "{message} came twice");
            settled.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let source = message["s"].as_str().unwrap().to_owned();
        assert!(talk.came.insert((source, data.as_u64().unwrap())), "{message} came twice");
        if acks {
            service.send_op(&json!({"opcode": 22, "i": message["i"]}));
        }
    }
    talk
}

#[test]
fn a_stop_under_full_load_loses_nothing_that_was_accepted() {
    let mut gateway = Gateway::start(&[]);
    let is_over = AtomicBool::new(false);
    let talks: Vec<Talk> = thread::scope(|scope| {
        let talkers: Vec<_> = (0..TALKERS)
            .map(|index| {
                scope.spawn({
                    let (gateway, is_over) = (&gateway, &is_over);
                    move || talk(gateway, index, is_over)
                })
            })
            .collect();
        eventually("all talk", || {
            let accepted = (0..TALKERS).map(|target| gateway.account(&format!("t{target}"))[0]);
            accepted.min().is_some_and(|least| least > 1_000).then_some(())
        });
        gateway.signal(Signal::SIGTERM);
        talkers.into_iter().map(|talker| talker.join().unwrap()).collect()
    });
    assert_eq!(gateway.wait().code(), Some(0));
    let mut came = 0;
    for (index, talk) in talks.iter().enumerate() {
        for number in &talk.receipts {
            let target = &talks[usize::try_from(*number).unwrap() % TALKERS];
            let is_delivered = target.came.contains(&(format!("t{index}"), *number));
            let is_returned = talk.errors.contains(number);
            assert!(is_delivered || is_returned, "t{index}: {number} was accepted and is nowhere");
        }
        came += talk.came.len() as u64;
    }
    let [accepted, delivered, returned, dead, queued] = gateway.last_account("stopped; messages: ");
    let receipts: u64 = talks.iter().map(|talk| talk.receipts.len() as u64).sum();
    assert_eq!((delivered, queued), (came, 0), "what came was counted");
    assert_eq!(accepted, delivered + returned + dead);
    assert_eq!(accepted - dead, receipts, "each accepted message had its receipt");
}

#[test]
fn what_was_sent_by_a_service_that_reads_no_more_holds_up_no_stop_and_is_no_fault_of_its_target() {
    let flags = ["--workers=1", "--stop-ms=2000", "--stuck-ms=60000", "--heartbeat-ms=60000"];
    let mut gateway = Gateway::start(&flags);
    let [mut target, mut deaf, mut feeder] = ["target", "deaf", "feeder"].map(|name| gateway.service(name));
    thread::scope(|scope| {
        scope.spawn(|| while target.poll().is_ok() {});
        scope.spawn(|| {
            let large = format!("\"{}\"", "x".repeat(10_000));
            while feeder.poll().is_ok() {
                (0..10).for_each(|_| feeder.send("deaf", "x", &large));
            }
        });
        // A burst takes more than a turn; amid one, the socket that nobody reads is full.
        let burst = || (0..1_000).map(|n| format!(r#"{{"s":"deaf","t":"gateway-proxy:target:x","d":{n}}}"#));
        while deaf.texts_within(Duration::from_millis(500), burst()) {}
        gateway.signal(Signal::SIGTERM);
    });
    assert_eq!(gateway.wait().code(), Some(0));
    assert!(gateway.log().contains("deaf did not take"), "it did not read");
    assert!(!gateway.log().contains("target did not take"), "it did");
}
