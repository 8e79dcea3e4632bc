//! Starting, stopping, and telling services to stop.

use std::fs::File;
use std::io::{Read, Write};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{Gateway, eventually};

/// What a gateway that cannot start says, and its exit code.
fn fails(arguments: &[&str]) -> (String, Option<i32>) {
    let output = Gateway::command().args(arguments).output().unwrap();
    (String::from_utf8(output.stderr).unwrap(), output.status.code())
}

#[test]
fn what_a_user_can_mend_is_one_line_and_exit_code_2() {
    let gateway = Gateway::start(&[]);
    let busy = format!("--listen={}", gateway.address());
    for (arguments, says) in [
        (vec![busy.as_str(), "--data-dir=none"], "--listen"),
        (vec!["--heartbeat-ms=abc"], "heartbeat_ms"),
        (vec!["--listen=0.0.0.0:0"], "--expose-without-credentials"),
        (vec!["--config=/nowhere/gateway.toml"], "/nowhere/gateway.toml"),
        (vec!["--mailbox-bytes=1000"], "max_message_bytes"),
        (vec!["--data-dir=~/state"], "none"),
    ] {
        let (error, code) = fails(&arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{arguments:?}: {error}");
        assert!(error.contains(says), "{arguments:?}: {error}");
    }
}

#[test]
fn config_prints_what_is_in_force_and_where_it_comes_from() {
    let output = Gateway::command()
        .args(["config", "--shards=7"])
        .env("GATEWAY_HEARTBEAT_MS", "1234")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for line in ["shards = 7", "heartbeat_ms = 1234", "resume_window_ms = 30000"] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(text.contains("GATEWAY_HEARTBEAT_MS") && text.contains("--shards"), "{text}");
}

#[test]
fn what_stdout_does_not_take_is_one_line_and_exit_code_1() {
    for arguments in [&["config"][..], &["token", "new", "--name=a"]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = Gateway::command().args(arguments).stdout(full).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        let last = error.lines().last().unwrap_or_default();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        assert!(last.starts_with("gateway: stdout: "), "{arguments:?}: {error}");
    }
}

#[test]
fn a_signal_delivers_what_is_queued_closes_1012_and_exits_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut gateway = Gateway::start(&[]);
        let mut target = gateway.service("b");
        let mut source = gateway.service("a");
        let mut unidentified = gateway.connect();
        source.texts((0..5_000).map(|n| format!(r#"{{"s":"a","t":"gateway-proxy:b:x","d":{n}}}"#)));
        source.expect_nothing();
        gateway.signal(signal);
        for n in 0..5_000 {
            assert_eq!(target.next().json["d"], n);
        }
        for service in [&mut target, &mut source, &mut unidentified] {
            assert!(service.expect_close(1012).contains("restarts"));
        }
        assert_eq!(gateway.wait().code(), Some(0));
    }
}

#[test]
fn while_it_stops_nothing_new_is_taken_and_what_stays_is_returned() {
    let mut gateway = Gateway::start(&["--stop-ms=4000"]);
    let mut stuck = gateway.service("stuck");
    let mut source = gateway.service("a");
    let data = "x".repeat(10_000);
    for _ in 0..60 {
        source.texts((0..50).map(|_| format!(r#"{{"s":"a","t":"gateway-proxy:stuck:x","d":"{data}"}}"#)));
    }
    source.expect_nothing();
    let queued = gateway.account("stuck")[4];
    assert!(queued > 0, "the sockets' buffers cannot hold 30 MB");
    gateway.signal(Signal::SIGTERM);
    gateway.wait_for_log("stopping");
    let (status, body) = eventually("it is draining", || {
        let ready = gateway.http("GET", "/readyz", &[], "");
        (ready.0 == 503).then_some(ready)
    });
    assert!(body.contains("draining"), "{status} {body}");
    source.send("stuck", "late", "1");
    source.expect_error("draining");
    let mut late = gateway.connect();
    late.send_identify("late", json!({}));
    late.expect_reject("draining");
    for _ in 0..queued {
        let message = source.expect_error("expired")["message"].clone();
        assert_eq!(message, "its service is gone: the gateway is stopping");
    }
    source.expect_close(1012);
    assert_eq!(gateway.wait().code(), Some(0));
    while stuck.any_frame().is_some() {}
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut gateway = Gateway::start(&["--stop-ms=600000"]);
    let mut stuck = gateway.service("stuck");
    let mut source = gateway.service("a");
    let data = "x".repeat(10_000);
    for _ in 0..60 {
        source.texts((0..50).map(|_| format!(r#"{{"s":"a","t":"gateway-proxy:stuck:x","d":"{data}"}}"#)));
    }
    source.expect_nothing();
    gateway.signal(Signal::SIGTERM);
    gateway.wait_for_log("stopping");
    gateway.signal(Signal::SIGINT);
    assert_eq!(gateway.wait().code(), Some(1));
    gateway.wait_for_log("SIGINT came after SIGTERM: ending at once, what mailboxes still hold is lost");
    while stuck.any_frame().is_some() {}
}

#[test]
fn a_hangup_where_nothing_can_be_reloaded_changes_nothing() {
    let mut gateway = Gateway::start(&[]);
    let mut service = gateway.service("a");
    gateway.signal(Signal::SIGHUP);
    gateway.wait_for_log("SIGHUP came, and there is nothing to reload");
    assert_eq!(gateway.http("POST", "/api/v1/reload", &[], ""), (200, r#"{"reloaded":[]}"#.to_owned()));
    service.expect_nothing();
    gateway.signal(Signal::SIGTERM);
    service.expect_close(1012);
    assert_eq!(gateway.wait().code(), Some(0));
}

#[cfg(feature = "fault-injection")]
#[test]
fn a_second_signal_ends_it_while_its_store_does_not_answer() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = format!("--data-dir={}", directory.path().display());
    let mut gateway = Gateway::start(&["--shards=2", &data_dir]);
    let mut service = gateway.service("a");
    service.send_op(&json!({"panic": "hung_disk"}));
    service.send_op(&json!({"opcode": 10}));
    eventually("the disk hangs", || {
        let (_, metrics) = gateway.http("GET", "/metrics", &[], "");
        metrics.contains("\ngateway_shards_reported 0\n").then_some(())
    });
    gateway.signal(Signal::SIGTERM);
    service.expect_close(1012);
    gateway.wait_for_log("the disk is waited for");
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait().code(), Some(1));
}

#[test]
fn shutdown_and_reboot_are_told_and_enforced() {
    let gateway = Gateway::start(&["--resume-window-ms=2000"]);
    for (path, opcode) in [("shutdown", 3), ("reboot", 4)] {
        let mut service = gateway.service("a");
        let (status, answer) = gateway
            .post_json(&format!("/api/v1/services/a/{path}"), r#"{"reason":"deploy","deadline_ms":1500}"#);
        assert_eq!((status, answer), (202, json!({"service": "a", "state": "stopping"})));
        let op = service.expect_op(opcode);
        assert_eq!((&op["reason"], &op["deadline_ms"]), (&json!("deploy"), &json!(1500)));
        assert_eq!(op.get("keep_discord_session").is_some(), opcode == 4);
        assert_eq!(gateway.get_json("/api/v1/services/a")["state"], "stopping");
        service.expect_close(4011);
        let expected = if opcode == 3 { "a is down" } else { "a is away" };
        gateway.wait_for_log(expected);
    }
    // After REBOOT it may be away for five times the usual window.
    assert_eq!(gateway.connect().identify("a")["resumed"], true);
}

/// The name is given at once, and what is ordered may be there before the connection is.
#[test]
fn shutdown_right_behind_identify_is_told() {
    let gateway = Gateway::start(&[]);
    let request = |name: &str| {
        let address = gateway.address();
        let head = format!("POST /api/v1/services/{name}/shutdown HTTP/1.1\r\nHost: {address}");
        format!("{head}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    };
    let mut told = 0;
    for number in 0..200_u32 {
        let name = format!("service-{number}");
        let mut service = gateway.connect();
        let mut operator = gateway.wire().unwrap();
        service.send_identify(&name, json!({}));
        // Sooner it does not know the name.
        let start = Instant::now();
        while start.elapsed() < Duration::from_micros(5) * (number % 40) {}
        operator.write_all(request(&name).as_bytes()).unwrap();
        let mut answer = String::new();
        operator.read_to_string(&mut answer).unwrap();
        assert_eq!(service.expect_op(1)["service"], name);
        if answer.starts_with("HTTP/1.1 202") {
            service.expect_op(3);
            told += 1;
        } else {
            assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        }
    }
    assert!(told > 0, "none was asked for after it had the name");
}

#[test]
fn a_service_that_obeys_shutdown_is_down_at_once() {
    let gateway = Gateway::start(&[]);
    let service = gateway.service("a");
    assert_eq!(gateway.post_json("/api/v1/services/a/shutdown", "{}").0, 202);
    service.close(1000);
    gateway.wait_for_log("a is down");
    assert_eq!(gateway.post_json("/api/v1/services/a/shutdown", "{}").0, 404);
}

#[test]
fn a_service_that_is_away_can_be_shut_down_but_not_rebooted() {
    let gateway = Gateway::start(&[]);
    gateway.service("a").vanish();
    gateway.wait_for_log("a is away");
    assert_eq!(gateway.post_json("/api/v1/services/a/reboot", "{}").0, 409);
    let (status, answer) = gateway.post_json("/api/v1/services/a/shutdown", "{}");
    assert_eq!((status, answer), (200, json!({"service": "a", "state": "down"})));
}

#[test]
fn more_workers_than_there_can_be_threads_are_a_setting_to_mend() {
    // Each thread takes 2 MiB of addresses for its stack.
    let limited = r#"ulimit -v 1800000; exec timeout 60 env -i "$0" --workers=1024 --listen=127.0.0.1:0 --data-dir=none"#;
    let run =
        Command::new("sh").args(["-c", limited]).arg(Gateway::command().get_program()).output().unwrap();
    let said = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(2), "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("gateway: workers: cannot start 1024 threads: "), "{said}");
    assert!(last.ends_with("(--workers chooses another number)"), "{said}");
}
