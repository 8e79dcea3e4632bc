//! Services behind a network that is cut, half open, or loses packets.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Gateway, Host, Network, Service, eventually};

/// A service that reads numbered messages from `source` and knows which comes next.
struct Reader {
    service: Service,
    acknowledges: bool,
    next: u64,
}

impl Reader {
    fn new(service: Service, acknowledges: bool, next: u64) -> Self {
        Self { service, acknowledges, next }
    }

    /// Reads all that is there, and acknowledges it; nothing is missing and nothing comes twice.
    fn read(&mut self) {
        let before = self.next;
        while let Ok(Some(message)) = self.service.poll() {
            self.check(&message.json);
        }
        if self.acknowledges && self.next > before {
            self.service.send_op(&json!({"opcode": 22, "i": self.next}));
        }
    }

    fn check(&mut self, message: &Value) {
        let i = if self.acknowledges { json!(self.next + 1) } else { Value::Null };
        assert_eq!((&message["d"], &message["i"]), (&json!(self.next), &i), "{message}");
        self.next += 1;
    }

    /// Reads until the message before `end` has come, and nothing after it.
    fn read_to(&mut self, end: u64) {
        eventually(&format!("all up to {end} have come"), || {
            self.read();
            (self.next == end).then_some(())
        });
        assert_eq!(self.next, end);
    }
}

fn send(source: &mut Service, target: &str, numbers: std::ops::Range<u64>) {
    source.texts(numbers.map(|n| format!(r#"{{"s":"source","t":"gateway-proxy:{target}:x","d":{n}}}"#)));
}

/// Takes a name that no connection has any more: at the first attempt.
fn come_back(gateway: &Gateway, name: &str, acknowledges: bool) -> Service {
    let mut service = gateway.connect();
    let accept = service.identify_with(name, json!({"ack": acknowledges}));
    assert_eq!(accept["resumed"], true);
    service
}

/// Tries to take a name, without its secret, until the gateway knows that the connection which had
/// it is gone; how often that was refused. Meanwhile `source` answers pings.
fn come_back_in_time(gateway: &Gateway, host: &Host<'_>, name: &str, source: &mut Service) -> (Service, u32) {
    let mut refused = 0;
    let service = eventually(&format!("{name} is accepted"), || {
        source.answer_pings();
        let mut service = host.run(|| gateway.connect());
        service.send_identify(name, json!({"ack": true}));
        let answer = service.next();
        if answer.data()["opcode"] == 1 {
            assert_eq!(answer.data()["resumed"], true);
            return Some(service);
        }
        assert_eq!(answer.data()["code"], "already_connected", "{}", answer.text);
        refused += 1;
        // Who is refused waits, if not as long as it is told to.
        std::thread::sleep(Duration::from_millis(50));
        None
    });
    (service, refused)
}

fn closes(gateway: &Gateway, code: &str) -> u64 {
    gateway.metric("gateway_closes_total", code)
}

/// What was accepted for a target has exactly one end each; all counts.
fn account(gateway: &Gateway, target: &str) -> [u64; 5] {
    let counts @ [accepted, delivered, returned, dead, queued] = gateway.account(target);
    assert_eq!(accepted, delivered + returned + dead + queued, "{target}: {counts:?}");
    counts
}

#[test]
#[ignore = "needs network namespaces (root, iproute2): run tests/run, or add --include-ignored"]
fn a_black_hole_is_found_by_silence_and_nothing_that_waits_is_lost() {
    let network = Network::new();
    let far = network.host();
    let gateway = network.gateway(&["--heartbeat-ms=1000", "--resume-window-ms=60000"]);
    let [acks, plain] = ["acks", "plain"].map(|name| {
        let mut service = far.run(|| gateway.connect());
        service.identify_with(name, json!({"ack": name == "acks"}));
        service
    });
    let (mut acks, mut plain) = (Reader::new(acks, true, 0), Reader::new(plain, false, 0));
    let (mut source, mut a, mut b) = (gateway.service("source"), gateway.service("a"), gateway.service("b"));
    let mut sent = 0;
    let mut send_more = |count: u64| {
        let numbers = sent..sent + count;
        sent = numbers.end;
        send(&mut source, "acks", numbers.clone());
        send(&mut source, "plain", numbers);
        source.expect_nothing();
        sent
    };
    for _ in 0..50 {
        send_more(10);
        acks.read();
        plain.read();
        b.answer_pings();
    }
    // Some are on their way, and some that came are not acknowledged.
    send_more(10);
    far.cut();

    let (mut rounds, cut) = (0, Instant::now());
    eventually("both are found silent", || {
        send_more(10);
        a.send("b", "x", "1");
        assert_eq!(b.next().topic(), "x", "the neighbours go on");
        rounds += 1;
        account(&gateway, "acks");
        account(&gateway, "plain");
        (closes(&gateway, "4009") == 2).then_some(())
    });
    println!("found silent after {:?}", cut.elapsed());
    assert!(rounds > 5, "the neighbours' messages went on meanwhile: {rounds}");
    gateway.wait_for_log("acks is away");
    gateway.wait_for_log("plain is away");
    let sent = send_more(100);
    assert!(account(&gateway, "acks")[4] > 100, "what it did not acknowledge waits for it");
    let queued = account(&gateway, "plain")[4];
    assert!(queued >= 100, "what it was not handed waits for it: {queued}");

    far.mend();
    let again = far.run(|| come_back(&gateway, "plain", false));
    Reader::new(again, false, sent - queued).read_to(sent);
    assert_eq!(account(&gateway, "plain"), [sent, sent, 0, 0, 0]);
    let mut again = far.run(|| come_back(&gateway, "acks", true));
    // Its last acknowledgement may have been lost, so it may get again what it had acknowledged.
    let first = again.next();
    let i = first.json["i"].as_u64().unwrap();
    assert!((1..=acks.next + 1).contains(&i), "{i} came after {} had come", acks.next);
    let mut again = Reader::new(again, true, i - 1);
    again.check(&first.json);
    again.read_to(sent);
    eventually("all is acknowledged", || (account(&gateway, "acks") == [sent, sent, 0, 0, 0]).then_some(()));
    // What their old sockets still get was handed to them before.
    acks.read();
    plain.read();
    assert!(plain.next <= sent - queued, "{} of {sent} came on the old connection too", plain.next);
    for name in ["acks", "plain"] {
        let log = gateway.log();
        let ends =
            log.lines().filter(|line| line.contains(&format!("{name} is away: ")) && line.contains("4009"));
        assert_eq!(ends.count(), 1, "{name} was found silent once");
    }
}

/// The far host loses power and is up again: `busy`, with messages for its service on their way.
fn reboot(heartbeat: &str, busy: bool) {
    let network = Network::new();
    let (far, other) = (network.host(), network.host());
    let gateway = network.gateway(&[heartbeat]);
    let mut target = far.run(|| gateway.connect());
    target.identify_with("target", json!({"ack": true}));
    let mut target = Reader::new(target, true, 0);
    let mut source = gateway.service("source");
    send(&mut source, "target", 0..3);
    target.read_to(3);
    eventually("they are acknowledged", || (gateway.account("target")[1] == 3).then_some(()));
    far.cut();
    target.service.lose_power();
    if busy {
        send(&mut source, "target", 3..5);
        source.expect_nothing();
    }
    let mut early = other.run(|| gateway.connect());
    early.send_identify("target", json!({"ack": true}));
    early.expect_reject("already_connected");
    far.mend();
    let (service, refused) = come_back_in_time(&gateway, &far, "target", &mut source);
    println!("{heartbeat}, busy: {busy}: accepted after {refused} refusals");
    assert_eq!(closes(&gateway, "4009"), 0, "it did not take silence to know that the old machine is gone");
    let end = if busy { 5 } else { 4 };
    if !busy {
        send(&mut source, "target", 3..4);
    }
    Reader::new(service, true, 3).read_to(end);
    eventually("all is acknowledged", || (account(&gateway, "target") == [end, end, 0, 0, 0]).then_some(()));
}

#[test]
#[ignore = "needs network namespaces (root, iproute2): run tests/run, or add --include-ignored"]
fn a_rebooted_machine_says_at_the_next_packet_that_the_old_connection_is_gone() {
    // Silence would take three minutes; messages for it are sent again by the kernel until then.
    reboot("--heartbeat-ms=60000", true);
}

#[test]
#[ignore = "needs network namespaces (root, iproute2): run tests/run, or add --include-ignored"]
fn a_rebooted_machine_without_traffic_says_at_the_next_ping_that_the_old_connection_is_gone() {
    reboot("--heartbeat-ms=1500", false);
}

/// What is sent to the far service is lost, but not what it sends: it is cut off with this code.
fn one_way(flags: &[&str], code: &str) {
    let network = Network::new();
    let (far, other) = (network.host(), network.host());
    let gateway = network.gateway(flags);
    let mut target = far.run(|| gateway.connect());
    target.identify_with("target", json!({"ack": true}));
    let mut target = Reader::new(target, true, 0);
    let (mut source, mut listener) = (gateway.service("source"), gateway.service("listener"));
    send(&mut source, "target", 0..3);
    target.read_to(3);
    eventually("they are acknowledged", || (gateway.account("target")[1] == 3).then_some(()));
    far.deafen();
    send(&mut source, "target", 3..10);
    source.expect_nothing();
    target.service.send("listener", "heard", "1");
    assert_eq!(listener.next().topic(), "heard");
    eventually("the service is cut off", || {
        source.answer_pings();
        listener.answer_pings();
        gateway.log().contains("target is away").then_some(())
    });
    let expected = |other: &str| u64::from(other == code);
    for code in ["4008", "4009"] {
        assert_eq!(closes(&gateway, code), expected(code), "closed with {code}");
    }
    let again = other.run(|| come_back(&gateway, "target", true));
    Reader::new(again, true, 3).read_to(10);
    eventually("all is acknowledged", || (account(&gateway, "target") == [10, 10, 0, 0, 0]).then_some(()));
}

#[test]
#[ignore = "needs network namespaces (root, iproute2): run tests/run, or add --include-ignored"]
fn a_service_that_gets_nothing_any_more_is_cut_off_after_stuck_ms() {
    one_way(&["--stuck-ms=1500", "--heartbeat-ms=60000"], "4008");
}

#[test]
#[ignore = "needs network namespaces (root, iproute2): run tests/run, or add --include-ignored"]
fn a_service_that_gets_nothing_any_more_is_cut_off_after_three_heartbeats() {
    one_way(&["--stuck-ms=60000", "--heartbeat-ms=1000"], "4009");
}

#[test]
#[ignore = "needs network namespaces (root, iproute2): run tests/run, or add --include-ignored"]
fn a_service_in_a_black_hole_is_taken_over_with_its_secret_at_once_and_without_it_after_silence() {
    let network = Network::new();
    let (first, second) = (network.host(), network.host());
    let gateway = network.gateway(&["--heartbeat-ms=2000"]);
    let mut source = gateway.service("source");
    let [(secret, mut known), (_, mut unknown)] = ["known", "unknown"].map(|name| {
        let mut service = first.run(|| gateway.connect());
        let accept = service.identify_with(name, json!({"ack": true}));
        send(&mut source, name, 0..10);
        (accept["session"].clone(), Reader::new(service, true, 0))
    });
    known.read_to(10);
    unknown.read_to(10);
    for name in ["known", "unknown"] {
        eventually("they are acknowledged", || (gateway.account(name)[1] == 10).then_some(()));
    }
    first.cut();
    send(&mut source, "known", 10..20);
    send(&mut source, "unknown", 10..20);
    source.expect_nothing();

    for name in ["known", "unknown"] {
        let mut stranger = second.run(|| gateway.connect());
        stranger.send_identify(name, json!({"ack": true}));
        let reject = stranger.expect_reject("already_connected");
        assert_eq!(reject["retry_after_ms"], 2000, "{reject}");
    }
    let mut successor = second.run(|| gateway.connect());
    let accept = successor.identify_with("known", json!({"ack": true, "session": secret}));
    assert_eq!(accept["resumed"], true);
    Reader::new(successor, true, 10).read_to(20);
    assert_eq!([closes(&gateway, "4009"), closes(&gateway, "4010")], [0, 1], "nobody waited for silence");

    let (successor, refused) = come_back_in_time(&gateway, &second, "unknown", &mut source);
    println!("accepted after {refused} refusals");
    assert_eq!(closes(&gateway, "4009"), 1, "silence is what freed the name");
    Reader::new(successor, true, 10).read_to(20);
    for name in ["known", "unknown"] {
        eventually("all is acknowledged", || (account(&gateway, name) == [20, 20, 0, 0, 0]).then_some(()));
    }
}

#[test]
#[ignore = "needs network namespaces (root, iproute2): run tests/run, or add --include-ignored"]
fn lost_packets_lose_no_message() {
    const EACH: u64 = 3_000;
    let network = Network::new();
    let (from, to) = (network.host(), network.host());
    from.lose_packets();
    to.lose_packets();
    let gateway = network.gateway(&[]);
    let mut source = from.run(|| gateway.service("source"));
    let mut target = to.run(|| gateway.connect());
    target.identify_with("target", json!({"ack": true}));
    let mut target = Reader::new(target, true, 0);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for first in (0..EACH).step_by(10) {
                let padding = "x".repeat(500);
                source.texts((first..first + 10).map(|n| {
                    format!(r#"{{"s":"source","t":"gateway-proxy:target:x","d":{n},"padding":"{padding}"}}"#)
                }));
            }
        });
        target.read_to(EACH);
    });
    eventually("all is acknowledged", || {
        (account(&gateway, "target") == [EACH, EACH, 0, 0, 0]).then_some(())
    });
    let lost = [from.lost_packets(), to.lost_packets()];
    println!("packets lost on the way to and from the source, and the target: {lost:?}");
    assert!(lost[0][1] > 20 && lost[1][0] > 20, "messages were lost on the way: {lost:?}");
}
