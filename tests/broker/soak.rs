//! `gateway bench soak`, for seconds: it passes with a gateway that does its duty, and tells what is
//! wrong with one that does not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Gateway, eventually};

/// Services that stay connected all the time, send to whom they like, and read at once: the rest
/// may lose messages with their connections.
const STEADY: [&str; 6] = ["0", "2", "4", "10", "12", "14"];

fn start(arguments: &[&str]) -> Child {
    let mut command = Gateway::command();
    command.args(["bench", "soak", "--services", "20", "--interval", "1", "--seed", "1"]).args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the gateway's binary runs")
}

/// A soak of a gateway that is reached there.
fn start_beside(gateway: &Gateway, address: SocketAddr, minutes: &str) -> Child {
    let (url, pid) = (format!("ws://{address}/gateway"), gateway.pid().to_string());
    start(&["--url", &url, "--pid", &pid, "--minutes", minutes, "--rate", "400"])
}

/// Its exit code and all that it said.
fn end(soak: Child) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = soak.wait_with_output().unwrap();
    (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

/// The words of the line that begins with `title`.
fn line<'a>(said: &'a str, title: &str) -> &'a str {
    let line = said.lines().find_map(|line| line.strip_prefix(title));
    line.unwrap_or_else(|| panic!("no line {title:?} in\n{said}")).trim()
}

#[test]
fn a_soak_of_a_few_seconds_passes_and_tells_what_it_saw() {
    let (code, said) = end(start(&["--spawn", "--minutes", "0.1", "--rate", "400"]));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("seed 1, 20 services, ws://127.0.0.1:"), "{said}");
    let samples: Vec<Vec<&str>> = said
        .lines()
        .skip_while(|line| !line.starts_with("elapsed"))
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        .map(|line| line.split_whitespace().collect())
        .collect();
    // One each second, and one after all have left.
    assert!(samples.len() >= 5, "{said}");
    for sample in &samples {
        let number = |column: usize| sample[column].parse::<u64>().unwrap_or_else(|_| panic!("{said}"));
        assert_eq!((sample.len(), sample[12]), (13, "balanced"), "{said}");
        assert!(number(1) > 1024 && number(2) > 10, "{said}");
        assert_eq!(number(7), number(8) + number(9) + number(10) + number(11), "{said}");
    }
    assert!(samples[2][3].parse::<u64>().unwrap() >= 10, "services are connected: {said}");
    let left = &samples[samples.len() - 1];
    assert_eq!((left[3], left[4], left[5], left[6], left[11]), ("0", "0", "0", "0", "0"), "{said}");
    let arrived = line(&said, "messages").split(", ").nth(1).unwrap();
    let arrived: u64 = arrived.split(' ').next().unwrap().parse().unwrap();
    assert!(arrived > 500, "{said}");
    assert!(line(&said, "memory").contains(" KiB/hour by "), "{said}");
    let (_, after) = line(&said, "left behind").split_once("all let go: descriptors ").expect("equal");
    let (before, after) = after.split_once(" before, ").unwrap();
    assert_eq!(after.split(' ').next(), Some(before), "{said}");
    assert!(line(&said, "account").starts_with("balanced for every target"), "{said}");
    assert_eq!((line(&said, "faults"), line(&said, "verdict")), ("none", "ok"), "{said}");
}

#[test]
fn the_gateway_of_a_soak_has_the_workers_that_were_asked_for_and_does_not_outlive_it() {
    let mut soak = start(&["--spawn", "--workers", "3", "--minutes", "5"]);
    let mut said = String::new();
    BufReader::new(soak.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
    let gateway = Pid::from_raw(said.trim().rsplit(' ').next().and_then(|pid| pid.parse().ok()).unwrap());
    let command = std::fs::read_to_string(format!("/proc/{gateway}/cmdline"));
    kill(Pid::from_raw(soak.id().cast_signed()), Signal::SIGINT).unwrap();
    let (_, said) = end(soak);
    assert_eq!(kill(gateway, None), Err(nix::Error::ESRCH), "it is still there: {said}");
    let command = command.unwrap();
    assert!(command.split('\0').any(|argument| argument == "--workers=3"), "{command:?}");
}

#[test]
fn a_message_that_is_altered_on_its_way_fails_a_soak() {
    let gateway = Gateway::start(&["--shards=8", "--resume-window-ms=500", "--identify-timeout-ms=1000"]);
    let address = relay(gateway.address());
    let (code, said) = end(start_beside(&gateway, address, "0.1"));
    assert_eq!(code, Some(1), "{said}");
    // It is not what was sent, and what was sent did not come.
    assert!(
        line(&said, "faults").contains("1 lost") && line(&said, "faults").contains("1 altered"),
        "{said}"
    );
    assert_eq!(line(&said, "verdict"), "FAILED", "{said}");
}

#[test]
fn a_gateway_that_ends_is_told() {
    let gateway = Gateway::start(&["--resume-window-ms=500"]);
    let soak = start_beside(&gateway, gateway.address(), "5");
    eventually("the soak is under way", || {
        let sum = &gateway.get_json("/api/v1/accounting")["sum"];
        (sum["delivered"]["messages"].as_u64() > Some(100)).then_some(())
    });
    gateway.signal(Signal::SIGKILL);
    let (code, said) = end(soak);
    assert_eq!(code, Some(1), "{said}");
    let is_told = said.contains("cannot be looked at") || said.contains("GET http://");
    assert!(is_told && said.contains(&gateway.pid().to_string()), "{said}");
}

/// Something between a gateway and its services that alters one message between two steady ones.
fn relay(gateway: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let done = Arc::new(AtomicBool::new(false));
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(gateway) else { return };
            let (to_server, to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || pass_on(client, to_server, |_| {}));
            let done = done.clone();
            thread::spawn(move || pass_on(server, to_client, |bytes| alter_one(bytes, &done)));
        }
    });
    address
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, change: impl Fn(&mut [u8])) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        change(&mut buffer[..length]);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}

/// Changes a digit of a message's number.
fn alter_one(bytes: &mut [u8], done: &AtomicBool) {
    // Frames have heads that are no text.
    let text: String =
        bytes.iter().map(|byte| if byte.is_ascii() { char::from(*byte) } else { '?' }).collect();
    for (start, _) in text.match_indices(r#"{"s":"soak-"#) {
        let Some(end) = text[start..].find(r#""number":"#).map(|at| start + at + 9) else { return };
        let names: Vec<&str> = text[start..end].split('"').filter(|it| it.starts_with("soak-")).collect();
        let are_steady = names.len() == 2
            && names.iter().all(|name| STEADY.contains(&name.rsplit('-').next().unwrap_or_default()));
        if are_steady && bytes.len() > end && !done.swap(true, Ordering::AcqRel) {
            bytes[end] = if bytes[end] == b'1' { b'2' } else { b'1' };
            return;
        }
    }
}
