//! Benches in which something is wrong, or that cannot be run: what is told, and the exit code.

use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::relay::{self, Tamper};
use super::{count, end, number, run, run_beside, start};
use crate::support::{Gateway, eventually};

#[test]
fn a_session_that_was_not_kept_fails_a_reconnect() {
    let gateway = Gateway::start(&["--resume-window-ms=500"]);
    assert!(relay::HELD.as_millis() > 2 * 500);
    let address = relay::start(gateway.address(), Tamper::HoldConnections(4));
    let (code, stdout, stderr) =
        run_beside(&gateway, address, "reconnect --services 4 --rate 100 --seconds 0.3 --json");
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert!(count(&report, "/not_resumed") > 0 && report["passed"] == false, "{report:#}");
    assert!(number(&report, "/all_back_ms") > 1500.0, "{report:#}");
}

#[test]
fn what_is_done_to_one_message_on_its_way_is_told_and_fails() {
    let lines = ["pairs -P 1", "pairs -P 1 --ack", "fan-in --services 1", "latency -P 1 --rate 200"];
    for line in lines {
        // Four gateways and benches at once: more of them would wait for each other's cores.
        std::thread::scope(|scope| {
            for (tamper, fault) in [
                (Tamper::Drop, "lost"),
                (Tamper::Repeat, "duplicated"),
                (Tamper::Delay, "reordered"),
                (Tamper::Alter, "altered"),
            ] {
                scope.spawn(move || fails(line, tamper, fault));
            }
        });
    }
}

fn fails(line: &str, tamper: Tamper, fault: &str) {
    let gateway = Gateway::start(&[]);
    let address = relay::start(gateway.address(), tamper);
    let line = format!("{line} --window 40 --seconds 0.1 --json");
    let (code, stdout, stderr) = run_beside(&gateway, address, &line);
    assert_eq!(code, Some(1), "{tamper:?} {line}: {stdout}{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    let (found, checks) = (count(&report, &format!("/checks/{fault}")), &report["checks"]);
    if line.contains("--ack") {
        // There the delivery number gives it away first.
        assert!(found > 0 || count(checks, "/misnumbered") > 0, "{tamper:?} {line}: {report:#}");
    } else {
        assert_eq!(found, 1, "{tamper:?} {line}: {report:#}");
    }
    assert_eq!(report["passed"], false, "{tamper:?} {line}: {report:#}");
}

#[test]
fn a_gap_in_the_deliveries_fails_a_reconnect_though_what_was_missing_comes_after_it() {
    let gateway = Gateway::start(&[]);
    let address = relay::start(gateway.address(), Tamper::Drop);
    let line = "reconnect --services 2 --rate 200 --seconds 0.3";
    let (code, stdout, stderr) = run_beside(&gateway, address, line);
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    assert!(stdout.contains("checks       FAILED") && stdout.contains(" misnumbered"), "{stdout}");
}

#[test]
fn a_delivery_without_its_first_brace_is_altered() {
    fails("pairs -P 1", Tamper::Behead, "altered");
}

#[test]
fn a_message_that_is_lost_before_the_cut_fails_a_reconnect() {
    let report = failed_reconnect(Tamper::Swallow);
    assert_eq!(count(&report, "/checks/lost"), 1, "{report:#}");
}

#[test]
fn receipts_that_never_come_or_come_twice_fail_a_reconnect() {
    let report = failed_reconnect(Tamper::DropReceipts);
    assert!(count(&report, "/checks/without_receipt") > 0, "{report:#}");
    let report = failed_reconnect(Tamper::RepeatReceipts);
    assert!(count(&report, "/checks/wrong_receipts") > 0, "{report:#}");
}

fn failed_reconnect(tamper: Tamper) -> Value {
    let gateway = Gateway::start(&[]);
    let address = relay::start(gateway.address(), tamper);
    let line = "reconnect --services 2 --rate 200 --seconds 0.3 --json";
    let (code, stdout, stderr) = run_beside(&gateway, address, line);
    assert_eq!(code, Some(1), "{tamper:?}: {stdout}{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

#[test]
fn a_refused_message_fails_and_its_reason_is_told() {
    let gateway =
        Gateway::start(&["--max-message-bytes=1024", "--mailbox-bytes=1024", "--mailbox-messages=1"]);
    let line = "fan-in --services 4 --window 100 --size 600 --seconds 1";
    let (code, stdout, stderr) = run_beside(&gateway, gateway.address(), line);
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    assert!(
        stdout.contains("checks       FAILED") && stdout.contains("(mailbox_full); a smaller --window"),
        "{stdout}"
    );
}

#[test]
fn a_bench_that_cannot_be_run_says_why() {
    let gateway = Gateway::start(&["--max-connections=5"]);
    let url = format!("--url ws://{}/gateway", gateway.address());
    for (line, reason) in [
        ("pairs --url ws://127.0.0.1:1/gateway".to_owned(), "no gateway can be reached at 127.0.0.1:1"),
        (format!("idle --connections 50 {url}"), "(at_capacity)"),
        (format!("pairs {url} --pid 4294967295"), "no CPU clock of process 4294967295"),
        ("plot /nowhere.json -o /nowhere.svg".to_owned(), "/nowhere.json: No such file"),
    ] {
        let (code, stdout, stderr) = run(&line);
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{line}: {stderr}");
        assert!(stderr.starts_with("gateway: ") && stderr.contains(reason), "{line}: {stderr}");
    }
}

#[test]
fn messages_that_are_too_big_for_the_gateway_name_the_flag() {
    let gateway = Gateway::start(&["--max-message-bytes=1024"]);
    let (code, stdout, stderr) = run_beside(&gateway, gateway.address(), "pairs -P 1 --size 1000");
    assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
    let expected = "gateway: --size must be smaller: a whole message may have 1024 bytes (the gateway's max_message_bytes)";
    assert!(stderr.starts_with(expected) && stderr.ends_with(", not 1000\n"), "{stderr}");
}

#[test]
fn a_flag_that_is_out_of_range_is_named_with_what_it_may_be() {
    for (line, reason) in [
        ("pairs --url http://127.0.0.1:1", "--url must be like ws://127.0.0.1:7117/gateway"),
        ("pairs --spawn --size 1", "--size must be from 39 to 268435456, not 1"),
        ("reconnect --spawn --size 99999999999", "--size must be from 39 to 268435456, not 99999999999"),
        ("scaling --size 268435457", "--size must be from 39 to 268435456, not 268435457"),
        ("latency --spawn --rate 0", "--rate must be from 0.01 to"),
        ("latency --spawn --rate -5", "--rate must be from 0.01 to 10000000, not -5"),
        ("pairs --spawn --size -5", "--size must be from 39 to 268435456, not -5"),
        ("idle --spawn --connections -5", "-5 is not in 1..=1000000"),
        ("reconnect --spawn --services 1", "--services must be at least 2"),
        ("soak --spawn --services 100001", "100001 is not in 20..=100000"),
    ] {
        let (code, stdout, stderr) = run(line);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{line}: {stderr}");
        assert!(stderr.contains(reason), "{line}: {stderr}");
    }
}

#[test]
fn what_a_gateway_said_before_it_listened_is_told_where_it_fails() {
    let script = "ulimit -n 1100; exec \"$0\" bench idle --spawn --connections 10 --seconds 3600";
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).arg(Gateway::command().get_program()).stdin(Stdio::null());
    let bench = shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let gateway = eventually("a gateway is started", || child_of(bench.id()));
    eventually("services connect", || (sockets(bench.id()) > 10).then_some(()));
    kill(gateway, Signal::SIGKILL).unwrap();
    let (code, _, stderr) = end(bench);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("max_connections is lowered from 10000 to "), "{stderr}");
}

/// How many a process has open.
fn sockets(process: u32) -> usize {
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let targets = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

#[test]
fn more_connections_than_there_are_descriptors_for_are_refused_at_once() {
    for (line, most) in [
        ("soak --spawn --services 200", 102),
        ("pairs --spawn --pairs 200", 102),
        ("fan-in --services 200 --url ws://127.0.0.1:1/", 172),
        ("reconnect --services 200 --url ws://127.0.0.1:1/", 172),
        ("idle --connections 200 --url ws://127.0.0.1:1/", 172),
    ] {
        let (limit, gateway) = (if most == 102 { 400 } else { 300 }, Gateway::command());
        let script = format!("ulimit -n {limit}; exec \"$0\" bench {line}");
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(script).arg(gateway.get_program()).stdin(Stdio::null());
        let bench = shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (code, stdout, stderr) = end(bench);
        let flag = line.split(' ').find(|word| ["--services", "--pairs", "--connections"].contains(word));
        let expected = format!(
            "gateway: {} must be so few that they need no more than {most} connections (ulimit -n), not 200\n",
            flag.unwrap()
        );
        assert_eq!((code, stdout.as_str(), stderr), (Some(2), "", expected), "{line}");
    }
}

/// As at a full disk, or where whoever read has ended.
#[test]
fn what_cannot_be_printed_is_one_line_on_stderr() {
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into();
    let closed = || std::io::pipe().unwrap().1.into();
    for line in [
        "idle --spawn --connections 5 --seconds 0.01",
        "pairs --spawn -P 1 --seconds 1 --json",
        "scaling --pairs 1 --workers 1 --rounds 1 --seconds 1",
        "soak --spawn --services 20 --minutes 5",
    ] {
        for (stdout, reason) in [(full(), "No space left on device"), (closed(), "Broken pipe")] {
            let mut command = Gateway::command();
            let bench = command.arg("bench").args(line.split(' ')).stdin(Stdio::null());
            let stdout: Stdio = stdout;
            let (code, _, stderr) = end(bench.stdout(stdout).stderr(Stdio::piped()).spawn().unwrap());
            assert_eq!(code, Some(1), "{line}: {stderr}");
            assert!(stderr.starts_with(&format!("gateway: stdout: {reason}")), "{line}: {stderr}");
        }
    }
}

#[test]
fn a_run_in_which_nothing_was_measured_fails() {
    // One message in 100 s, the first at once: none is due in the measured time.
    let line = "--spawn --rate 0.01 --seconds 0.1";
    for bench in ["latency -P 1", "pairs -P 1", "reconnect --services 2"] {
        let (code, stdout, stderr) = run(&format!("{bench} {line}"));
        assert_eq!(code, Some(1), "{bench}: {stdout}{stderr}");
        assert!(stdout.contains("checks       FAILED: nothing was measured: "), "{bench}: {stdout}");
        let (_, stdout, _) = run(&format!("{bench} {line} --json"));
        let report: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!((count(&report, "/latency/count"), &report["passed"]), (0, &false.into()), "{report:#}");
        assert!(report["latency"]["p50_us"].is_null(), "{report:#}");
    }
}

#[test]
fn idle_connections_to_a_gateway_that_stands_still_fail() {
    let gateway = Gateway::start(&[]);
    let url = format!("ws://{}/gateway", gateway.address());
    let bench = start(&format!("idle --connections 20 --seconds 4 --json --url {url}"));
    eventually("all are there", || {
        (gateway.get_json("/api/v1/services")["services"].as_array()?.len() == 20).then_some(())
    });
    gateway.signal(Signal::SIGSTOP);
    let (code, stdout, stderr) = end(bench);
    gateway.signal(Signal::SIGCONT);
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((count(&report, "/unanswered"), count(&report, "/not_ended")), (20, 0), "{report:#}");
    assert_eq!(report["passed"], false, "{report:#}");
}

#[test]
fn a_gateway_that_ends_amid_a_bench_is_told() {
    let gateway = Gateway::start(&[]);
    let bench = start(&format!("pairs -P 1 --seconds 3600 --url ws://{}/gateway", gateway.address()));
    let accepted = || gateway.get_json("/api/v1/accounting")["sum"]["accepted"]["messages"].as_u64();
    eventually("messages flow", || accepted().filter(|accepted| *accepted > 100));
    gateway.signal(Signal::SIGKILL);
    let (code, stdout, stderr) = end(bench);
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(stderr.contains(": the connection "), "{stderr}");
}

/// The process that a process started.
fn child_of(parent: u32) -> Option<Pid> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let stats = processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    let mut children = stats.filter_map(|stat| {
        // pid (name) state ppid …: proc_pid_stat(5).
        let (pid, rest) = (stat.split(' ').next()?, stat.rsplit_once(") ")?.1);
        (rest.split(' ').nth(1)? == parent.to_string()).then(|| pid.parse().ok().map(Pid::from_raw))?
    });
    children.next()
}

#[test]
fn what_a_scaling_has_measured_is_told_where_it_is_interrupted() {
    let bench = start("scaling --pairs 1,2 --workers 1 --rounds 1000 --seconds 0.1");
    let first = eventually("a gateway is started", || child_of(bench.id()));
    eventually("the next one is started", || child_of(bench.id()).filter(|next| *next != first));
    kill(Pid::from_raw(bench.id().cast_signed()), Signal::SIGINT).unwrap();
    let (code, stdout, stderr) = end(bench);
    assert_eq!((code, stderr.as_str()), (Some(1), "gateway: it was interrupted\n"), "{stdout}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&report["is_whole"], &report["passed"]), (&false.into(), &false.into()), "{report:#}");
    assert_eq!(count(&report, "/points/0/pairs"), 1, "{report:#}");
    assert!(count(&report, "/points/0/rounds_measured") >= 1, "{report:#}");
}

fn is_serving(process: &Pid) -> bool {
    let command = std::fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap_or_default();
    command.split('\0').nth(1) == Some("serve")
}

#[test]
fn a_gateway_that_was_started_for_a_bench_does_not_outlive_it() {
    for stop in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGKILL] {
        let bench = start("pairs -P 1 --seconds 3600 --spawn");
        let gateway = eventually("a gateway is started", || child_of(bench.id()).filter(is_serving));
        kill(Pid::from_raw(bench.id().cast_signed()), stop).unwrap();
        let (code, stdout, stderr) = end(bench);
        if stop != Signal::SIGKILL {
            assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stop}: {stderr}");
            assert_eq!(stderr, "gateway: it was interrupted\n", "{stop}");
        }
        eventually("the gateway has ended too", || {
            (kill(gateway, None) == Err(nix::Error::ESRCH)).then_some(())
        });
    }
}
