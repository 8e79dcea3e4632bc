//! `gateway bench`, for moments: what it measures is consistent, and what is wrong makes the exit code.
//! (The soak has tests of its own.)

mod readme;
mod relay;
mod wrong;

use std::process::{Child, Output, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::credentials::{Guarded, entry};
use crate::support::{Gateway, eventually};

fn start(line: &str) -> Child {
    let mut command = Gateway::command();
    command.arg("bench").args(line.split(' ')).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the gateway's binary runs")
}

/// The exit code, and what was said on stdout and on stderr.
fn end(bench: Child) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = bench.wait_with_output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn run(line: &str) -> (Option<i32>, String, String) {
    end(start(line))
}

/// The report of one that passed. Nothing else may stand on stdout.
fn report(line: &str) -> Value {
    let (code, stdout, stderr) = run(line);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{line}: {stdout}");
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{line}: {error}: {stdout}"))
}

/// How a run on a gateway ends that is beside it.
fn run_beside(gateway: &Gateway, address: std::net::SocketAddr, line: &str) -> (Option<i32>, String, String) {
    run(&format!("{line} --url ws://{address}/gateway --pid {}", gateway.pid()))
}

fn number(report: &Value, path: &str) -> f64 {
    let value = report.pointer(path).and_then(Value::as_f64);
    value.unwrap_or_else(|| panic!("no number {path} in {report:#}"))
}

fn count(report: &Value, path: &str) -> u64 {
    let value = report.pointer(path).and_then(Value::as_u64);
    value.unwrap_or_else(|| panic!("no count {path} in {report:#}"))
}

/// The checks of a report in which all is well. Returns how many messages were sent.
fn checked(report: &Value) -> u64 {
    let of = |name: &str| count(report, &format!("/checks/{name}"));
    assert_eq!(of("sent"), of("arrived") + of("lost") + of("refused") + of("in_doubt"), "{report:#}");
    for fault in ["lost", "duplicated", "reordered", "altered", "misnumbered", "refused"] {
        assert_eq!(of(fault), 0, "{fault}: {report:#}");
    }
    assert_eq!((of("without_receipt"), of("wrong_receipts")), (0, 0), "{report:#}");
    assert_eq!(report["passed"], true, "{report:#}");
    of("sent")
}

/// What every report of sent messages has to hold.
fn consistent(report: &Value) {
    let (messages, seconds) = (count(report, "/messages"), number(report, "/seconds"));
    let sent = checked(report);
    assert!(messages > 0 && messages <= sent, "{report:#}");
    let near = |found: f64, expected: f64| (found - expected).abs() <= 0.01 * expected.abs().max(0.1);
    #[expect(clippy::cast_precision_loss)]
    let rate = messages as f64 / seconds;
    assert!(near(number(report, "/messages_per_s"), rate), "{report:#}");
    let megabytes = rate * number(report, "/size_bytes") / 1e6;
    assert!(near(number(report, "/data_mb_per_s"), megabytes), "{report:#}");
    for process in ["gateway", "generator"] {
        let each = number(report, &format!("/{process}/cpu_us_per_message"));
        let percent = number(report, &format!("/{process}/cpu_percent"));
        assert!(percent > 0.0 && near(each * rate / 1e4, percent), "{process}: {report:#}");
    }
    assert!(count(report, "/machine/cores") > 0 && number(report, "/machine/others_cpu_percent") >= 0.0);
    assert!(number(report, "/gateway/resident_before_kib") > 1024.0, "{report:#}");
    assert!(number(report, "/gateway/resident_kib") > 1024.0, "{report:#}");
}

/// What a distribution of times has to hold, of at least 100. Returns how many times there are.
fn ordered(report: &Value, name: &str) -> u64 {
    let of = |percentile: &str| number(report, &format!("/{name}/{percentile}_us"));
    // A p99.9 there is of a thousand only.
    let times = ["p50", "p90", "p99", "max"].map(of);
    assert!(times[0] > 0.0 && times.is_sorted(), "{name}: {report:#}");
    count(report, &format!("/{name}/count"))
}

#[test]
fn pairs_are_measured_and_every_message_is_accounted_for() {
    let report =
        report("pairs --spawn --workers 2 -P 3 --size 300 --window 64 --seconds 1 --threads 2 --json");
    consistent(&report);
    let words = [&report["bench"], &report["ack"], &report["rate_messages_per_s"], &report["latency"]];
    assert_eq!(words, [&Value::from("pairs"), &Value::from(false), &Value::Null, &Value::Null]);
    let counts =
        ["senders", "size_bytes", "window_messages", "workers"].map(|it| count(&report, &format!("/{it}")));
    assert_eq!(counts, [3, 300, 64, 2]);
    assert_eq!(count(&report, "/generator/threads"), 2);
}

#[test]
fn pairs_that_acknowledge_are_measured_too() {
    let report = report("pairs --spawn -P 2 --ack --seconds 1 --json");
    consistent(&report);
    assert_eq!(report["ack"], true);
}

#[test]
fn pairs_keep_a_rate_that_is_asked_for() {
    let report = report("pairs --spawn -P 2 --rate 500 --seconds 0.5 --json");
    consistent(&report);
    // A schedule: no more is due, however fast the machine is.
    let most = 500.0 * (number(&report, "/seconds") + 1.0) + 1.0;
    assert!(number(&report, "/messages") < most, "{report:#}");
    assert_eq!(report["rate_messages_per_s"], 500.0);
    assert_eq!(report["rate_kept"], count(&report, "/unsent_messages") == 0, "{report:#}");
}

#[test]
fn many_services_send_to_one() {
    let report = report("fan-in --spawn --services 5 --window 32 --seconds 1 --json");
    consistent(&report);
    assert_eq!((report["bench"].as_str(), count(&report, "/senders")), (Some("fan-in"), 5));
}

#[test]
fn latency_is_told_with_how_late_the_load_itself_was() {
    let report = report("latency --spawn --rate 400 -P 4 --seconds 0.5 --json");
    consistent(&report);
    let (latencies, latenesses) = (ordered(&report, "latency"), ordered(&report, "lateness"));
    // All that were due in the measured time, whenever they came.
    assert_eq!(latencies, latenesses + count(&report, "/held_messages"), "{report:#}");
    assert!(latencies > 0 && latencies <= count(&report, "/checks/sent"), "{report:#}");
}

#[test]
fn a_gateway_that_stands_still_for_a_while_is_not_spared_what_was_due_meanwhile() {
    let gateway = Gateway::start(&[]);
    let bench = start(&format!(
        "latency --rate 1000 -P 1 --seconds 2 --window 10 --json --url ws://{}/gateway",
        gateway.address()
    ));
    let accepted = || gateway.get_json("/api/v1/accounting")["sum"]["accepted"]["messages"].as_u64();
    // The warm-up is half a second: with 700 messages it is over.
    eventually("it is measured", || accepted().filter(|accepted| *accepted >= 700));
    gateway.signal(Signal::SIGSTOP);
    std::thread::sleep(std::time::Duration::from_millis(400));
    gateway.signal(Signal::SIGCONT);
    let (code, stdout, stderr) = end(bench);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    // 400 of 2,000 messages were due while it stood. A load that waits for the answers would have sent the
    // window, 10 messages, and told of a p99 without them.
    assert!(number(&report, "/latency/p99_us") > 300_000.0, "{report:#}");
    // And that is not the load's own lateness.
    assert!(count(&report, "/held_messages") > 200, "{report:#}");
    assert!(number(&report, "/lateness/p50_us") < 100_000.0, "{report:#}");
    assert!(report["gateway"].is_null(), "no process was named: {report:#}");
}

#[test]
fn what_never_could_be_sent_counts_as_long_as_it_had_waited() {
    // With one message in flight there cannot be 200,000 in a second.
    let gateway = Gateway::start(&[]);
    let line = "latency --rate 200000 -P 1 --window 1 --seconds 0.5 --json";
    let (code, stdout, stderr) = run_beside(&gateway, gateway.address(), line);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    let unsent = count(&report, "/unsent_messages");
    assert_eq!(report["rate_kept"], false, "{report:#}");
    assert!(unsent > count(&report, "/messages"), "{report:#}");
    // All that were due are in it, though most of them never came.
    let latencies = count(&report, "/latency/count");
    assert!(latencies >= unsent && latencies >= 50_000, "{report:#}");
    assert!(number(&report, "/latency/p50_us") > 100_000.0, "{report:#}");
}

#[test]
fn idle_services_are_counted_and_weighed() {
    let report = report("idle --spawn --connections 300 --threads 2 --seconds 0.2 --json");
    assert_eq!((report["bench"].as_str(), count(&report, "/connections")), (Some("idle"), 300));
    let rate = 300.0 / number(&report, "/connect_seconds");
    assert!((number(&report, "/connections_per_s") - rate).abs() < 0.05 * rate, "{report:#}");
    let grown = number(&report, "/gateway/resident_kib") - number(&report, "/gateway/resident_before_kib");
    let each = number(&report, "/gateway/resident_bytes_per_connection");
    assert!(each > 1024.0 && (each - grown * 1024.0 / 300.0).abs() <= 1.0, "{report:#}");
    assert!(number(&report, "/gateway/cpu_us_per_connection") > 0.0, "{report:#}");
    assert_eq!(report["passed"], true);
}

#[test]
fn services_that_were_all_cut_off_are_back_without_a_loss() {
    let gateway = Gateway::start(&["--workers=1"]);
    let line = "reconnect --services 30 --rate 600 --seconds 0.5 --json";
    let (code, stdout, stderr) = run_beside(&gateway, gateway.address(), line);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    checked(&report);
    // They really were. One that is back before its reset was seen takes its own place, without ever being
    // away; on a busy machine a few are.
    let log = gateway.log();
    assert_eq!(log.matches(" is resumed: it came back").count(), 30);
    assert!(log.matches(" is away: its connection was lost").count() >= 15, "{report:#}");
    assert_eq!((count(&report, "/services"), count(&report, "/not_resumed")), (30, 0));
    assert_eq!(count(&report, "/back/count"), 30);
    assert!(report["back"]["p99_us"].is_null(), "{report:#}");
    // The load's own share is told, as `latency` does.
    assert!(number(&report, "/generator/cpu_percent") > 0.0, "{report:#}");
    let (late, held) = (count(&report, "/lateness/count"), count(&report, "/held_messages"));
    // What is in doubt never came, and has no latency.
    let (latencies, in_doubt) = (count(&report, "/latency/count"), count(&report, "/checks/in_doubt"));
    assert!(latencies <= late + held && latencies + in_doubt >= late + held, "{report:#}");
    assert_eq!(report["rate_kept"], count(&report, "/unsent_messages") == 0, "{report:#}");
    let slowest = number(&report, "/back/max_us") / 1e3;
    assert!((number(&report, "/all_back_ms") - slowest).abs() <= 0.01 * slowest, "{report:#}");
    // As many as were due in the second, the cut included.
    assert!(ordered(&report, "latency") >= 550, "{report:#}");
}

/// More of them than connect at a time: the last have messages to send before they have a connection.
#[test]
fn services_that_came_back_send_what_they_owe() {
    let line = "reconnect --spawn --services 400 --rate 2000 --seconds 0.5 --json";
    let (code, stdout, stderr) = run(line);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    let (sent, unsent) = (count(&report, "/checks/sent"), count(&report, "/unsent_messages"));
    assert!(sent > 0 && unsent * 10 < sent, "{report:#}");
}

#[test]
fn the_services_identify_with_a_token_where_one_is_wanted() {
    let credentials = entry("bench", "the-bench-token", "names = [\"bench-*\"]\nsend = [\"*\"]");
    let guarded = Guarded::start(&credentials, &[]);
    let address = guarded.gateway.address();
    let line = "pairs -P 1 --seconds 1";
    let (code, stdout, stderr) =
        run_beside(&guarded.gateway, address, &format!("{line} --token the-bench-token"));
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    for other in ["", " --token another"] {
        let (code, _, stderr) = run_beside(&guarded.gateway, address, &format!("{line}{other}"));
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains("(unauthorized); --token is"), "{stderr}");
    }
}

#[test]
fn nothing_of_a_bench_stays_in_the_gateway() {
    let gateway = Gateway::start(&[]);
    for line in ["pairs -P 2 --seconds 1", "idle --connections 20 --seconds 0.1"] {
        let (code, stdout, stderr) = run_beside(&gateway, gateway.address(), line);
        assert_eq!(code, Some(0), "{stdout}{stderr}");
        eventually("all have left for good", || {
            (gateway.get_json("/api/v1/services")["services"].as_array()?.is_empty()).then_some(())
        });
    }
}

#[test]
fn a_soak_is_told_as_one_object_too() {
    let line = "soak --spawn --services 20 --minutes 0.05 --interval 1 --rate 200 --seed 1 --json";
    let (code, stdout, stderr) = run(line);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"));
    assert_eq!((&report["bench"], &report["passed"]), (&"soak".into(), &true.into()), "{report:#}");
    let samples = report["samples"].as_array().unwrap();
    assert!(samples.len() >= 2, "{report:#}");
    for sample in samples.iter().chain([&report["before"], &report["after"]]) {
        let of = |name: &str| count(sample, &format!("/{name}"));
        let ended = of("delivered") + of("returned") + of("dead") + of("queued");
        assert_eq!(of("accepted"), ended, "{sample:#}");
        assert!(of("resident_kib") > 1024, "{sample:#}");
    }
    assert!(count(&report, "/after/accepted") > 100, "{report:#}");
    assert!(stderr.starts_with("seed 1, 20 services, "), "{stderr}");
}

#[test]
fn a_soak_identifies_and_reads_the_api_with_a_token_where_one_is_wanted() {
    let rights = "names = [\"soak-*\"]\nsend = [\"*\"]\nops = [\"shards\", \"watch\"]\napi = \"read\"";
    let flags = ["--shards=8", "--resume-window-ms=500", "--identify-timeout-ms=1000"];
    let guarded = Guarded::start(&entry("soak", "the-soak-token", rights), &flags);
    let address = guarded.gateway.address();
    let line = "soak --services 20 --minutes 0.05 --interval 1 --rate 200 --seed 1";
    let (code, stdout, stderr) =
        run_beside(&guarded.gateway, address, &format!("{line} --token the-soak-token"));
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let (code, stdout, stderr) = run_beside(&guarded.gateway, address, line);
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    assert!(stderr.contains("401"), "{stderr}");
}

#[test]
fn scaling_is_measured_in_every_case_and_drawn() {
    let directory = tempfile::tempdir().unwrap();
    let (json, svg) = (directory.path().join("scaling.json"), directory.path().join("scaling.svg"));
    let report = report("scaling --pairs 1,4 --workers 1,2 --rounds 1 --seconds 1");
    let points = report["points"].as_array().unwrap();
    let cases: Vec<_> =
        points.iter().map(|point| (count(point, "/workers"), count(point, "/pairs"))).collect();
    assert_eq!(cases, [(1, 1), (1, 4), (2, 1), (2, 4)]);
    for point in points {
        assert_eq!(count(point, "/services"), 2 * count(point, "/pairs"));
        for figure in ["messages_per_s", "gateway_cpu_us_per_message", "gateway_cpu_percent"] {
            let of = |part: &str| number(point, &format!("/{figure}/{part}"));
            assert!(
                of("median") > 0.0 && of("min") <= of("median") && of("median") <= of("max"),
                "{point:#}"
            );
        }
    }
    std::fs::write(&json, report.to_string()).unwrap();
    let (code, stdout, stderr) = run(&format!("plot {} -o {}", json.display(), svg.display()));
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (Some(0), "", ""));
    let svg = std::fs::read_to_string(&svg).unwrap();
    let document = roxmltree::Document::parse(&svg).unwrap_or_else(|error| panic!("{error}: {svg}"));
    let circles =
        document.descendants().filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "circle")));
    assert_eq!(circles.count(), 8, "{svg}");
    let mut failed = report;
    failed["passed"] = false.into();
    let not_drawn = directory.path().join("x");
    for (wrong, told) in [
        ("{}".to_owned(), "expected the JSON of `gateway bench scaling`"),
        (failed.to_string(), "expected measurements that all passed their checks"),
    ] {
        std::fs::write(&json, wrong).unwrap();
        let (code, _, stderr) = run(&format!("plot {} -o {}", json.display(), not_drawn.display()));
        assert!(code == Some(1) && stderr.contains(told) && !not_drawn.exists(), "{stderr}");
    }
}
