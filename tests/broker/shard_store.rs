//! What a gateway that was killed knows when it is started again, and what keeps it from starting.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use gateway::protocol::name::Name;
use gateway::state::shards::{BudgetRecord, Change, ReshardRecord, Snapshot};
use gateway::store::Store;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Gateway, Service, discord_of, discord_unauthorized, eventually, token_file};

/// A gateway that keeps its pool there.
fn start(directory: &TempDir, flags: &[&str]) -> Gateway {
    let data_dir = format!("--data-dir={}", directory.path().display());
    Gateway::start(&[&[data_dir.as_str()], flags].concat())
}

fn scratch() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// As `kill -9` does it.
fn kill(mut gateway: Gateway) {
    gateway.signal(Signal::SIGKILL);
    gateway.wait();
}

fn stored(directory: &TempDir) -> Snapshot {
    Store::open(directory.path()).unwrap().snapshot().unwrap()
}

fn connect(service: &mut Service) -> Value {
    service.send_op(&json!({"opcode": 10}));
    service.expect_op(11)
}

/// The ids that ACCEPT lists.
fn return_as(gateway: &Gateway, name: &str) -> (Service, Value) {
    let mut service = gateway.connect();
    let accept = service.identify(name);
    assert_eq!(accept["resumed"], false, "its session is over");
    (service, accept["shards"].clone())
}

/// Until one id is in that state, and that is stored.
fn wait_for_state(gateway: &Gateway, state: &str) {
    let is_one = || (gateway.metric("gateway_shards", state) == 1).then_some(());
    eventually(&format!("an id is {state}"), is_one);
}

#[test]
fn a_killed_gateway_knows_who_held_what() {
    let directory = scratch();
    let gateway = start(&directory, &["--shards=3"]);
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    connect(&mut a);
    connect(&mut b);
    a.send_op(&json!({"opcode": 12}));
    assert_eq!(connect(&mut a)["epoch"], 2);
    kill(gateway);
    // The number of shards is stored too.
    let gateway = start(&directory, &[]);
    let (mut a, shards) = return_as(&gateway, "a");
    assert_eq!(shards, json!([0]));
    a.send_op(&json!({"opcode": 10, "shard_id": 0, "shard_count": 3, "identify": false}));
    let lease = a.expect_op(11);
    assert_eq!((&lease["shard_id"], &lease["epoch"]), (&json!(0), &json!(2)), "the same lease");
    // Routes know the stored leases.
    gateway.service("backend").send("shard/0", "x", "1");
    assert_eq!(a.next().topic(), "x");
    // Who knows only the founding ops gets its own too, and who is new something else.
    let mut c = gateway.service("c");
    assert_eq!(connect(&mut c)["shard_id"], 2);
    let (mut b, shards) = return_as(&gateway, "b");
    assert_eq!(shards, json!([1]));
    let lease = connect(&mut b);
    assert_eq!((&lease["shard_id"], &lease["epoch"]), (&json!(1), &json!(1)));
    a.send_op(&json!({"opcode": 12}));
    wait_for_state(&gateway, "free");
    assert_eq!(connect(&mut c)["epoch"], 3, "over restarts too");
}

#[test]
fn a_reshard_goes_on_where_it_was() {
    let directory = scratch();
    let gateway = start(&directory, &["--shards=1"]);
    connect(&mut gateway.service("a"));
    kill(gateway);
    let mut store = Store::open(directory.path()).unwrap();
    let mut pool = store.snapshot().unwrap().pool.unwrap();
    pool.reshard = Some(ReshardRecord { shard_count: 2, since_ms: now_ms() });
    store.apply(&[Change::Pool(pool)]).unwrap();
    drop(store);
    let gateway = start(&directory, &[]);
    let lease = connect(&mut gateway.service("b"));
    assert_eq!((&lease["shard_id"], &lease["shard_count"]), (&json!(0), &json!(2)));
    kill(gateway);
    let gateway = start(&directory, &[]);
    assert_eq!(return_as(&gateway, "a").1, json!([0]), "of the old generation");
    assert_eq!(return_as(&gateway, "b").1, json!([0]), "of the one that is being filled");
}

#[test]
fn a_gateway_that_stops_as_asked_leaves_the_leases_too() {
    let directory = scratch();
    let mut gateway = start(&directory, &[]);
    let mut a = gateway.service("a");
    connect(&mut a);
    gateway.signal(Signal::SIGTERM);
    a.expect_close(1012);
    assert!(gateway.wait().success());
    let gateway = start(&directory, &[]);
    assert_eq!(return_as(&gateway, "a").1, json!([0]));
}

#[test]
fn what_nobody_claims_returns_to_the_pool_after_the_window() {
    let directory = scratch();
    let window = ["--shards=1", "--resume-window-ms=1000", "--heartbeat-ms=500"];
    let gateway = start(&directory, &window);
    let mut a = gateway.service("a");
    connect(&mut a);
    kill(gateway);
    let gateway = start(&directory, &window);
    let mut b = gateway.service("b");
    b.send_op(&json!({"opcode": 10}));
    assert_eq!(b.expect_op(30)["reason"], "no_free_shard");
    loop {
        let next = b.next();
        if next.data()["opcode"] == 11 {
            assert_eq!(next.data()["epoch"], 2, "{}", next.text);
            break;
        }
    }
    gateway.wait_for_log("a did not come back within resume_window_ms after the restart");
    let mut a = gateway.service("a");
    a.send_op(&json!({"opcode": 10, "shard_id": 0, "shard_count": 1, "identify": false}));
    a.expect_op(30);
}

#[test]
fn a_permit_counts_over_a_restart() {
    let directory = scratch();
    let paced = ["--shards=2", "--identify-interval-ms=600000"];
    let gateway = start(&directory, &paced);
    let mut a = gateway.service("a");
    connect(&mut a);
    kill(gateway);
    let gateway = start(&directory, &paced);
    let mut b = gateway.service("b");
    b.send_op(&json!({"opcode": 10}));
    let wait = b.expect_op(30);
    assert_eq!(wait["reason"], "identify_rate_limit");
    let retry_after_ms = wait["retry_after_ms"].as_u64().unwrap();
    assert!((1..=600_000).contains(&retry_after_ms), "{wait}");
}

#[test]
fn the_budget_is_not_overdrawn_by_a_restart() {
    let directory = scratch();
    let in_an_hour = now_ms() + 3_600_000;
    let budget = BudgetRecord {
        recommended_shards: 4,
        max_concurrency: 1,
        total: 10,
        remaining: 2,
        resets_ms: in_an_hour,
        uncertain_ms: 0,
        recent: Vec::new(),
    };
    let gateway = start(&directory, &["--shards=4"]);
    connect(&mut gateway.service("a"));
    kill(gateway);
    Store::open(directory.path()).unwrap().apply(&[Change::Budget(budget)]).unwrap();
    // Nothing new is learned, so that what is stored counts.
    let (api, token) = (format!("--discord-api={}", discord_unauthorized()), token_file(&directory));
    let bot = [api.as_str(), token.as_str()];
    for (name, remaining) in [("b", 1), ("c", 0)] {
        let gateway = start(&directory, &bot);
        connect(&mut gateway.service(name));
        kill(gateway);
        assert_eq!(stored(&directory).budget.unwrap().remaining, remaining);
    }
    let gateway = start(&directory, &bot);
    let mut d = gateway.service("d");
    d.send_op(&json!({"opcode": 10}));
    assert_eq!(d.expect_op(30)["reason"], "budget_exhausted");
    kill(gateway);
    // Without a token session starts are not counted.
    let gateway = start(&directory, &["--identify-interval-ms=0"]);
    connect(&mut gateway.service("d"));
    kill(gateway);
    assert_eq!(stored(&directory).budget, None);
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

#[test]
fn what_a_holder_left_to_resume_with_outlives_the_gateway() {
    let directory = scratch();
    let resume = json!({"session_id": "s", "seq": 7, "resume_gateway_url": "wss://example.org"});
    let gateway = start(&directory, &["--shards=2"]);
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    connect(&mut a);
    a.send_op(&json!({"opcode": 31, "shard_id": 0, "state": "ready", "resume": resume}));
    connect(&mut b);
    b.send_op(&json!({"opcode": 12, "resume": resume}));
    wait_for_state(&gateway, "ready");
    wait_for_state(&gateway, "free");
    kill(gateway);
    let gateway = start(&directory, &[]);
    let mut b = gateway.service("b");
    assert_eq!(connect(&mut b)["resume"], resume);
    let (mut a, _) = return_as(&gateway, "a");
    a.send_op(&json!({"opcode": 12}));
    assert_eq!(connect(&mut a)["resume"], resume);
    // Once.
    a.send_op(&json!({"opcode": 12}));
    assert_eq!(connect(&mut a)["resume"], Value::Null);
}

/// Runs a gateway that cannot start: the line that it says, and nothing else.
fn refusal(data_dir: &Path, flags: &[&str]) -> String {
    let said = refusal_after_errors(data_dir, flags);
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

/// Likewise, with what it logged before.
fn refusal_after_errors(data_dir: &Path, flags: &[&str]) -> String {
    let data_dir = format!("--data-dir={}", data_dir.display());
    let mut command = Gateway::command();
    command.args(["--listen=127.0.0.1:0", "--log=error", &data_dir]).args(flags).stdin(Stdio::null());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the gateway ends", || child.try_wait().unwrap());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    said
}

#[test]
fn a_directory_has_one_gateway() {
    let directory = scratch();
    let gateway = start(&directory, &[]);
    let said = refusal(directory.path(), &[]);
    assert!(said.contains(&format!("is used by another gateway (process {})", gateway.pid())), "{said}");
    gateway.service("a").expect_nothing();
}

#[test]
fn a_damaged_store_is_never_begun_anew() {
    let directory = scratch();
    let gateway = start(&directory, &["--shards=3"]);
    connect(&mut gateway.service("a"));
    kill(gateway);
    let path = directory.path().join("shards.redb");
    let whole = fs::read(&path).unwrap();
    for damage in [vec![], b"not a store".to_vec(), whole[..whole.len() / 2].to_vec()] {
        fs::write(&path, &damage).unwrap();
        for _ in 0..2 {
            let said = refusal(directory.path(), &["--shards=3"]);
            assert!(said.contains("is damaged") && said.contains(path.to_str().unwrap()), "{said}");
        }
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(return_as(&start(&directory, &[]), "a").1, json!([0]));
}

#[test]
fn another_number_of_shards_than_the_stored_is_refused() {
    let directory = scratch();
    kill({
        let gateway = start(&directory, &["--shards=3"]);
        connect(&mut gateway.service("a"));
        gateway
    });
    let said = refusal(directory.path(), &["--shards=4"]);
    assert!(said.contains("`shards` is 4, and the stored pool has 3 shards"), "{said}");
    assert!(said.contains("/api/v1/shards/reshard"), "{said}");
    start(&directory, &["--shards=3"]);
}

#[test]
fn the_number_of_shards_is_stored_before_anybody_asks_for_one() {
    let directory = scratch();
    kill(start(&directory, &["--shards=3"]));
    let said = refusal(directory.path(), &["--shards=4"]);
    assert!(said.contains("`shards` is 4, and the stored pool has 3 shards"), "{said}");
    let gateway = start(&directory, &[]);
    gateway.wait_for_log("3 shard ids, kept in");
}

#[test]
fn a_directory_that_cannot_be_made_or_written_is_named() {
    let directory = scratch();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    for impossible in [&file.join("gateway"), &file, Path::new("/proc/gateway")] {
        let said = refusal(impossible, &[]);
        assert!(said.contains(impossible.to_str().unwrap()) && said.contains("--data-dir"), "{said}");
    }
}

#[test]
fn it_keeps_its_state_where_xdg_says_unless_told_otherwise() {
    let home = scratch();
    let mut command = Gateway::command();
    command.args(["--listen=127.0.0.1:0"]).env("HOME", home.path());
    command.env_remove("XDG_STATE_HOME").env_remove("GATEWAY_DATA_DIR");
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let store = home.path().join(".local/state/gateway/shards.redb");
    eventually("the store is made", || store.exists().then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
    let mut command = Gateway::command();
    command.env_remove("HOME").env_remove("XDG_STATE_HOME").env_remove("GATEWAY_DATA_DIR");
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("--data-dir"), "{said}");
}

/// Changes how large a file the process may write: 0 is a disk that takes nothing.
pub(crate) fn limit_files(gateway: &Gateway, bytes: &str) {
    let limit = format!("--fsize={bytes}:");
    let status = Command::new("prlimit").args(["--pid", &gateway.pid().to_string(), &limit]).status();
    assert!(status.unwrap().success());
}

/// A gateway to which that limit is an error, and not a signal that kills.
pub(crate) fn to_be_limited() -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", r#"trap "" XFSZ; exec "$0" "$@""#]).arg(Gateway::command().get_program());
    command
}

#[test]
fn nothing_is_granted_while_the_disk_takes_nothing() {
    let directory = scratch();
    let data_dir = format!("--data-dir={}", directory.path().display());
    let paced = ["--shards=4", "--max-concurrency=4", &data_dir];
    let gateway = Gateway::start_as(&mut to_be_limited(), "127.0.0.1:0", &paced);
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    connect(&mut a);
    assert_eq!(gateway.http("GET", "/readyz", &[], "").0, 200);
    limit_files(&gateway, "0");
    b.send_op(&json!({"opcode": 10}));
    gateway.wait_for_log("no shard id is granted until the store takes it: data_dir: cannot");
    let (status, body) = gateway.http("GET", "/readyz", &[], "");
    assert!(status == 503 && body.contains("store_failing") && body.contains("shards.redb"), "{body}");
    // Everything else goes on.
    b.send("a", "x", "1");
    assert_eq!(a.next().topic(), "x");
    // What comes meanwhile waits. One of those who wait goes away, and has lost its place.
    let (mut c, mut d) = (gateway.service("c"), gateway.service("d"));
    c.send_op(&json!({"opcode": 10}));
    let frozen = |position: u64| json!({"opcode": 30, "reason": "frozen", "position": position});
    assert_eq!((b.expect_op(30), c.expect_op(30)), (frozen(1), frozen(2)));
    d.send_op(&json!({"opcode": 10}));
    assert_eq!(d.expect_op(30), frozen(3));
    c.close(4000);
    eventually("it is tried again", || {
        (gateway.metric("gateway_store_failures_total", "") > 2).then_some(())
    });
    b.expect_nothing();
    limit_files(&gateway, "unlimited");
    assert_eq!(b.expect_op(11)["shard_id"], 1);
    assert_eq!(d.expect_op(11)["shard_id"], 2);
    assert_eq!(gateway.http("GET", "/readyz", &[], "").0, 200);
    kill(gateway);
    let holders: Vec<_> =
        stored(&directory).shards.into_values().map(|it| it.lease.unwrap().holder).collect();
    assert_eq!(holders.iter().map(Name::as_str).collect::<Vec<_>>(), ["a", "b", "d"]);
}

#[test]
fn an_operator_is_told_what_becomes_of_a_command_while_the_disk_takes_nothing() {
    let directory = scratch();
    let data_dir = format!("--data-dir={}", directory.path().display());
    let gateway = Gateway::start_as(&mut to_be_limited(), "127.0.0.1:0", &["--shards=2", &data_dir]);
    let mut a = gateway.service("a");
    connect(&mut a);
    limit_files(&gateway, "0");
    // Nobody knows yet that the disk takes nothing.
    let (status, body) = gateway.post_json("/api/v1/shards/freeze", "");
    assert_eq!((status, &body), (202, &json!({"waits_for": "data_dir"})));
    gateway.wait_for_log("Freeze is decided, and waits for data_dir");
    let (status, body) = gateway.post_json("/api/v1/shards/0/release", "");
    assert_eq!((status, &body["error"]["code"]), (503, &json!("store_failing")), "{body}");
    limit_files(&gateway, "unlimited");
    gateway.wait_for_log("an operator froze the shard ids");
    let shards = gateway.get_json("/api/v1/shards");
    assert_eq!(shards["frozen"]["by"], "operator");
    assert_eq!(shards["shards"][0]["holder"], "a", "what was refused is not done later");
    assert_eq!(gateway.post_json("/api/v1/shards/thaw", "").0, 200);
}

#[test]
fn all_that_waited_for_the_disk_is_done_in_its_order_however_much_it_is() {
    let directory = scratch();
    let data_dir = format!("--data-dir={}", directory.path().display());
    let gateway = Gateway::start_as(&mut to_be_limited(), "127.0.0.1:0", &["--shards=1", &data_dir]);
    let mut a = gateway.service("a");
    limit_files(&gateway, "0");
    a.send_op(&json!({"opcode": 10}));
    assert_eq!(a.expect_op(30)["reason"], "frozen");
    for id in 1..=900 {
        a.send_op(&json!({"opcode": 12, "shard_id": id}));
    }
    a.expect_nothing();
    limit_files(&gateway, "unlimited");
    assert_eq!(a.expect_op(11)["shard_id"], 0);
    for id in 1..=900 {
        let error = a.expect_error("not_shard_holder");
        assert_eq!(error["message"], format!("this service does not hold the shard id {id}"));
    }
}

#[test]
fn what_a_service_is_just_losing_is_not_listed_when_it_is_back() {
    let directory = scratch();
    let data_dir = format!("--data-dir={}", directory.path().display());
    let gateway =
        Gateway::start_as(&mut to_be_limited(), "127.0.0.1:0", &["--resume-window-ms=300", &data_dir]);
    let mut a = gateway.service("a");
    connect(&mut a);
    limit_files(&gateway, "0");
    a.vanish();
    gateway.wait_for_log("no shard id is granted until the store takes it");
    gateway.wait_for_log("a is down");
    // Its lease ends as soon as that can be stored.
    let (mut a, listed) = return_as(&gateway, "a");
    assert_eq!(listed, json!([]));
    limit_files(&gateway, "unlimited");
    a.expect_nothing();
}

#[test]
fn a_kill_while_the_disk_takes_nothing_loses_nothing_that_was_told() {
    let directory = scratch();
    let data_dir = format!("--data-dir={}", directory.path().display());
    let gateway = Gateway::start_as(&mut to_be_limited(), "127.0.0.1:0", &["--shards=2", &data_dir]);
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    connect(&mut a);
    limit_files(&gateway, "0");
    b.send_op(&json!({"opcode": 10}));
    gateway.wait_for_log("no shard id is granted until the store takes it");
    kill(gateway);
    let gateway = start(&directory, &[]);
    assert_eq!(return_as(&gateway, "a").1, json!([0]));
    assert_eq!(return_as(&gateway, "b").1, json!([]), "it was never told");
}

#[cfg(feature = "fault-injection")]
#[test]
fn a_panic_between_decision_and_disk_loses_neither() {
    let directory = scratch();
    let gateway = start(&directory, &["--shards=2"]);
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    connect(&mut a);
    b.send_op(&json!({"panic": "store"}));
    b.send_op(&json!({"opcode": 10}));
    assert_eq!(b.expect_op(11)["shard_id"], 1, "after the restart of the allocator");
    assert_eq!(gateway.metric("gateway_panics_total", "allocator"), 1);
    kill(gateway);
    let gateway = start(&directory, &[]);
    assert_eq!(return_as(&gateway, "b").1, json!([1]));
}

#[cfg(feature = "fault-injection")]
#[test]
fn a_disk_that_is_always_slow_grants_still() {
    let directory = scratch();
    let gateway = start(&directory, &["--shards=2", "--max-concurrency=2"]);
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    a.send_op(&json!({"panic": "slow_disk"}));
    for (service, id) in [(&mut a, 0), (&mut b, 1)] {
        service.send_op(&json!({"opcode": 10}));
        // Meanwhile it is told that it has to wait.
        assert_eq!(service.expect_op(30)["reason"], "frozen");
        assert_eq!(service.expect_op(11)["shard_id"], id);
    }
    gateway.wait_for_log("it is done again as of later");
    kill(gateway);
    assert_eq!(stored(&directory).epochs.len(), 2);
}

#[cfg(feature = "fault-injection")]
#[test]
fn what_came_during_the_last_writes_is_stored_before_the_end() {
    /// More than are stored at once.
    const SHARDS: usize = 300;
    let directory = scratch();
    let mut gateway = start(&directory, &[&format!("--shards={SHARDS}")]);
    let mut a = gateway.service("a");
    for shard_id in 0..SHARDS {
        a.send_op(&json!({"opcode": 10, "shard_id": shard_id, "identify": false}));
    }
    for _ in 0..SHARDS {
        a.expect_op(11);
    }
    // Each write takes a second from here on.
    a.send_op(&json!({"panic": "slow_disk"}));
    for shard_id in 0..SHARDS {
        a.send_op(&json!({"opcode": 12, "shard_id": shard_id}));
    }
    a.close(1000);
    gateway.signal(Signal::SIGTERM);
    assert!(gateway.wait().success());
    let gateway = start(&directory, &[]);
    assert_eq!(gateway.metric("gateway_shards", "free"), SHARDS as u64);
}

#[cfg(feature = "fault-injection")]
#[test]
fn metrics_are_told_while_the_disk_does_not_answer() {
    let directory = scratch();
    let gateway = start(&directory, &["--shards=2"]);
    let mut a = gateway.service("a");
    assert_eq!(gateway.metric("gateway_shards_reported", ""), 1);
    a.send_op(&json!({"panic": "hung_disk"}));
    a.send_op(&json!({"opcode": 10}));
    eventually("the disk hangs", || (gateway.metric("gateway_shards_reported", "") == 0).then_some(()));
    let (status, metrics) = gateway.http("GET", "/metrics", &[], "");
    assert!(status == 200 && metrics.contains("gateway_connections 1"), "{metrics}");
    assert!(!metrics.contains("gateway_shards{"), "{metrics}");
    let (status, body) = gateway.http("GET", "/api/v1/shards", &[], "");
    assert!(status == 503 && body.contains("unavailable"), "{body}");
}

#[cfg(feature = "fault-injection")]
#[test]
fn who_asks_while_the_disk_does_not_answer_is_told_to_wait() {
    let directory = scratch();
    let gateway = start(&directory, &["--shards=4", "--max-concurrency=4"]);
    let (mut a, mut b, mut c) = (gateway.service("a"), gateway.service("b"), gateway.service("c"));
    a.send_op(&json!({"panic": "hung_disk"}));
    // Answered behind that.
    a.send_op(&json!({"opcode": 12}));
    a.expect_error("not_shard_holder");
    a.send_op(&json!({"opcode": 10}));
    b.send_op(&json!({"opcode": 10}));
    let frozen = |position: u64| json!({"opcode": 30, "reason": "frozen", "position": position});
    // Whichever came first.
    let told = [a.expect_op(30), b.expect_op(30)];
    assert!([1, 2].iter().all(|position| told.contains(&frozen(*position))), "{told:?}");
    c.send_op(&json!({"opcode": 10}));
    assert_eq!(c.expect_op(30), frozen(3));
    // Everything else goes on, and operators are answered.
    b.send("a", "x", "1");
    assert_eq!(a.next().topic(), "x");
    let (status, body) = gateway.post_json("/api/v1/shards/freeze", "");
    assert_eq!((status, &body["error"]["code"]), (503, &json!("store_failing")), "{body}");
}

#[cfg(feature = "fault-injection")]
#[test]
fn an_operator_is_told_what_becomes_of_a_command_while_the_disk_does_not_answer() {
    let directory = scratch();
    let gateway = start(&directory, &["--shards=2"]);
    let mut a = gateway.service("a");
    a.send_op(&json!({"panic": "slow_disk"}));
    // Answered behind that.
    a.send_op(&json!({"opcode": 12}));
    a.expect_error("not_shard_holder");
    let (status, body) = gateway.post_json("/api/v1/shards/freeze", "");
    assert_eq!((status, &body), (202, &json!({"waits_for": "data_dir"})));
    gateway.wait_for_log("an operator froze the shard ids");
    eventually("the store is well again", || {
        (gateway.http("GET", "/readyz", &[], "").0 == 200).then_some(())
    });
    let shards = eventually("the disk answers", || {
        let (status, body) = gateway.http("GET", "/api/v1/shards", &[], "");
        (status == 200).then_some(body)
    });
    let shards: Value = serde_json::from_str(&shards).unwrap();
    assert_eq!(shards["frozen"]["by"], "operator");
}

#[test]
fn a_token_that_discord_does_not_take_ends_a_start_with_auto_and_shows_in_a_gauge_with_a_number() {
    let directory = scratch();
    kill(start(&directory, &["--shards=2"]));
    let (api, token) = (format!("--discord-api={}", discord_unauthorized()), token_file(&directory));
    let said = refusal_after_errors(directory.path(), &["--shards=auto", &api, &token]);
    assert!(said.contains("shards: `auto` asks Discord, which does not take the bot's token (401"), "{said}");
    for shards in ["--shards=2", "--shards=stored"] {
        let gateway = start(&directory, &[shards, &api, &token]);
        eventually("the token is known to be wrong", || {
            (gateway.metric("gateway_discord_token_rejected", "") == 1).then_some(())
        });
        assert_eq!(gateway.http("GET", "/readyz", &[], "").0, 200);
        assert_eq!(gateway.get_json("/api/v1/shards")["shard_count"], 2);
        kill(gateway);
    }
    let api = format!("--discord-api={}", discord_of(1));
    let gateway = start(&directory, &["--shards=auto", &api, &token]);
    assert_eq!(gateway.get_json("/api/v1/shards")["shard_count"], 2, "what is stored stands");
    assert_eq!(gateway.metric("gateway_discord_token_rejected", ""), 0);
}

#[test]
fn the_number_of_shards_may_be_set_until_a_service_has_asked_for_one() {
    let directory = scratch();
    let (api, token) = (format!("--discord-api={}", discord_of(1)), token_file(&directory));
    let gateway = start(&directory, &[&api, &token]);
    eventually("Discord's answer is stored", || {
        (gateway.metric("gateway_session_starts_limit", "") == 9).then_some(())
    });
    gateway.service("backend").close(4000);
    gateway.wait_for_log("backend is down");
    kill(gateway);
    assert!(stored(&directory).budget.is_some());
    for (shards, count) in [("--shards=auto", 32), ("--shards=stored", 32)] {
        let gateway = start(&directory, &[&api, &token, shards]);
        assert_eq!(gateway.get_json("/api/v1/shards")["shard_count"], count);
        kill(gateway);
    }
    let said = refusal(directory.path(), &["--shards=16"]);
    assert!(said.contains("the stored pool has 32 shards"), "{said}");
}

#[test]
fn a_new_pool_of_a_large_bot_has_a_multiple_of_what_discord_demands() {
    let directory = scratch();
    let (api, token) = (format!("--discord-api={}", discord_of(16)), token_file(&directory));
    let said = refusal(&directory.path().join("data"), &["--shards=40", &api, &token]);
    assert!(said.contains("expected a multiple of 16") && said.contains("got 40"), "{said}");
    start(&directory, &["--shards=48", &api, &token]);
}
