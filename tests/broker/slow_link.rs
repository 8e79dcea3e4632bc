//! A receiver behind a link that is far slower than its senders: it costs nobody else anything, and
//! the gateway a bounded memory.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Gateway, Network, PATIENCE, Service, eventually};

/// A message of `bytes` bytes of data; `n` is its data too, after a comma.
fn text(source: &str, target: &str, n: u64, bytes: usize) -> String {
    let padding = "x".repeat(bytes);
    format!(r#"{{"s":"{source}","t":"gateway-proxy:{target}:x","d":[{n},"{padding}"],"n":{n}}}"#)
}

/// The number of the message after which a service is no longer read.
const LAST: u64 = u64::MAX - 1;

/// Reads messages, which come in order, until the last or the end of the connection; counts them.
fn read_all(service: &mut Service, last: u64, came: &AtomicU64) {
    let mut before = None;
    while let Some(frame) = service.next_frame().filter(|frame| frame.opcode == 1) {
        let message: Value = serde_json::from_slice(&frame.payload).unwrap();
        let n = message["d"][0].as_u64();
        assert!(n > before, "{n:?} came after {before:?}");
        came.fetch_add(1, Ordering::Relaxed);
        before = n;
        if n == Some(last) {
            break;
        }
    }
}

/// Ends the connection of a reader whose test has failed, so that it does not read on.
struct HangUp(Service);

impl Drop for HangUp {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.hang_up();
        }
    }
}

/// Reads all that comes for `slow` meanwhile; how many messages came.
fn while_reading(slow: &mut Service, last: u64, act: impl FnOnce(&Reading<'_>)) -> u64 {
    let (came, has_ended) = (AtomicU64::new(0), AtomicBool::new(false));
    let (writer, hang_up) = (slow.writer(), HangUp(slow.writer()));
    thread::scope(|scope| {
        let _hang_up = hang_up;
        scope.spawn(|| {
            let _ended = WhenDropped(&has_ended);
            read_all(slow, last, &came);
        });
        act(&Reading { came: &came, has_ended: &has_ended, writer: RefCell::new(writer) });
    });
    came.into_inner()
}

/// How far the reader is.
struct Reading<'a> {
    came: &'a AtomicU64,
    has_ended: &'a AtomicBool,
    writer: RefCell<Service>,
}

impl Reading<'_> {
    /// How many messages came.
    fn came(&self) -> u64 {
        self.came.load(Ordering::Relaxed)
    }

    /// Waits until the connection has ended for the reader, too. What the gateway's kernel said of that may have
    /// been lost with the slow link's queue, and a kernel that has given a connection up does not repeat it;
    /// it resets whoever speaks to it.
    fn until_ended(&self) {
        eventually("the connection ends for who was cut off", || {
            self.writer.borrow_mut().frame(0x8A, b"");
            self.has_ended.load(Ordering::Relaxed).then_some(())
        });
    }
}

/// Takes what has come for the source: how many messages were refused with `mailbox_full`.
fn refusals(source: &mut Service) -> u64 {
    let mut refused = 0;
    while let Some(message) = source.poll().expect("the source stays connected") {
        assert_eq!(message.data()["code"], "mailbox_full", "{}", message.text);
        refused += 1;
    }
    refused
}

#[test]
#[ignore = "needs network namespaces (root, iproute2): run tests/run, or add --include-ignored"]
fn a_flood_for_a_slow_link_fills_its_mailbox_and_no_more() {
    const SENT: u64 = 5_000;
    const HIGH_KIB: u64 = 32 * 1024;
    let network = Network::new();
    let far = network.host();
    let gateway = network.gateway(&["--mailbox-bytes=4194304"]);
    let mut slow = far.run(|| gateway.service("slow"));
    let mut source = gateway.service("source");
    far.slow_down("256kbit");
    let mut accepted = 0;
    let came = while_reading(&mut slow, LAST, |_| {
        // 40 MB, of which the link passes some 32 KB a second.
        let mut refused = 0;
        for first in (0..SENT).step_by(10) {
            source.texts((first..first + 10).map(|n| text("source", "slow", n, 8_000)));
            refused += refusals(&mut source);
        }
        eventually("each is accepted or refused", || {
            refused += refusals(&mut source);
            (gateway.account("slow")[0] + refused == SENT).then_some(())
        });
        let [all, _, returned, dead, _] = account(&gateway, "slow");
        assert_eq!((returned, dead), (0, 0));
        assert!(refused > SENT / 2, "{refused} of {SENT} were refused");
        let high = gateway.memory_kib("VmHWM");
        println!("{all} accepted, {refused} refused, at most {high} KiB resident");
        assert!(high < HIGH_KIB, "{high} KiB resident for a mailbox of 4 MiB");
        accepted = all;

        far.speed_up();
        eventually("its mailbox has room again", || (gateway.account("slow")[4] == 0).then_some(()));
        source.texts([text("source", "slow", LAST, 1)]);
    });
    assert_eq!(came, accepted + 1, "all that was accepted came, in order");
}

/// Round trips between two services, sorted: one every 2 ms for a second, and on until `enough`.
/// Where one takes longer, those that would have begun meanwhile count as well, for the rest of its
/// time.
fn round_trips([near, other]: &mut [Service; 2], enough: impl Fn() -> bool) -> Vec<Duration> {
    const TIME: Duration = Duration::from_secs(1);
    const INTERVAL: Duration = Duration::from_millis(2);
    let start = Instant::now();
    let mut round_trips = Vec::new();
    while start.elapsed() < TIME || !enough() {
        assert!(start.elapsed() < PATIENCE, "it is not enough yet");
        let sent = Instant::now();
        near.send("other", "ping", "1");
        assert_eq!(other.next().topic(), "ping");
        other.send("near", "pong", "1");
        assert_eq!(near.next().topic(), "pong");
        let mut took = Some(sent.elapsed());
        while let Some(rest) = took {
            round_trips.push(rest);
            took = rest.checked_sub(INTERVAL);
        }
        thread::sleep(INTERVAL.saturating_sub(sent.elapsed()));
    }
    round_trips.sort_unstable();
    round_trips
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// A sender that is no flood, but more than the slow link passes: each turn is a few messages to
/// `slow`, then one to itself. What it is held back for is how long that one took.
struct Sender {
    service: Service,
    next: u64,
    refused: u64,
    began: Instant,
    turns: Vec<Duration>,
}

impl Sender {
    fn new(service: Service) -> Self {
        Self { service, next: 0, refused: 0, began: Instant::now(), turns: Vec::new() }
    }

    fn turn(&mut self) {
        let start = Instant::now();
        let numbers = self.next..self.next + 4;
        self.next = numbers.end;
        let echo = r#"{"s":"source","t":"gateway-proxy:source:echo"}"#.to_owned();
        self.service.texts(numbers.map(|n| text("source", "slow", n, 2_000)).chain([echo]));
        loop {
            let message = self.service.next();
            if message.topic() == "echo" {
                break;
            }
            assert_eq!(message.data()["code"], "mailbox_full", "{}", message.text);
            self.refused += 1;
        }
        self.turns.push(start.elapsed());
        thread::sleep(Duration::from_millis(2));
    }

    /// Begins to count its turns.
    fn begin(&mut self) {
        self.turns.clear();
        self.began = Instant::now();
    }

    /// For what part of the time since then it was held back: what its turns took beyond the usual.
    fn held(&self) -> f64 {
        let usual = median(self.turns.clone());
        let held: Duration = self.turns.iter().map(|turn| turn.saturating_sub(usual * 4)).sum();
        held.as_secs_f64() / self.began.elapsed().as_secs_f64()
    }
}

/// Sets a flag when it is dropped, on a panic too.
struct WhenDropped<'a>(&'a AtomicBool);

impl Drop for WhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The p99 of the neighbours' round trips while the sender takes its turns; until it is refused, if
/// it is to be.
fn with_sender(sender: &mut Sender, neighbours: &mut [Service; 2], to_be_refused: bool) -> Duration {
    sender.begin();
    let (done, enough) = (AtomicBool::new(false), AtomicBool::new(!to_be_refused));
    thread::scope(|scope| {
        scope.spawn(|| {
            let before = sender.refused;
            while !done.load(Ordering::Relaxed) {
                sender.turn();
                enough.fetch_or(sender.refused > before, Ordering::Relaxed);
            }
        });
        let _done = WhenDropped(&done);
        let round_trips = round_trips(neighbours, || enough.load(Ordering::Relaxed));
        round_trips[round_trips.len() * 99 / 100]
    })
}

#[test]
#[ignore = "needs network namespaces (root, iproute2): run tests/run, or add --include-ignored"]
fn a_slow_link_delays_no_neighbour_and_its_sender_for_no_more_than_hold_ms() {
    const ROUNDS: usize = 5;
    let network = Network::new();
    network.bound_send_buffers(64 * 1024);
    let (far, elsewhere) = (network.host(), network.host());
    let gateway = network.gateway(&["--workers=1", "--max-message-bytes=65536", "--mailbox-bytes=65536"]);
    let mut slow = far.run(|| gateway.service("slow"));
    let mut neighbours = [gateway.service("near"), elsewhere.run(|| gateway.service("other"))];
    let mut sender = Sender::new(gateway.service("source"));
    let (mut fast_p99s, mut slow_p99s, mut held) = (Vec::new(), Vec::new(), Vec::new());
    while_reading(&mut slow, LAST, |reading| {
        let until_all_came = |sender: &mut Sender| {
            eventually("each message is refused, or came", || {
                sender.refused += refusals(&mut sender.service);
                let came = reading.came();
                (came == gateway.account("slow")[0] && came + sender.refused == sender.next).then_some(())
            });
        };
        for _ in 0..ROUNDS {
            far.slow_down("2mbit");
            slow_p99s.push(with_sender(&mut sender, &mut neighbours, true));
            held.push(sender.held());
            far.speed_up();
            until_all_came(&mut sender);
            fast_p99s.push(with_sender(&mut sender, &mut neighbours, false));
        }
        until_all_came(&mut sender);
        sender.service.texts([text("source", "slow", LAST, 1)]);
    });
    println!("the neighbours' p99 beside a slow link {slow_p99s:?}, beside a fast one {fast_p99s:?}");
    println!("the part of its time that the sender was held: {held:.2?}");
    let (slow, fast) = (median(slow_p99s), median(fast_p99s));
    assert!(slow <= fast * 3 + Duration::from_millis(3), "p99 {slow:?} beside a slow link, {fast:?} without");
    // 250 ms in any second, with slack.
    assert!(held.iter().all(|held| *held < 0.5), "{held:?}");
    assert!(held.iter().all(|held| *held > 0.05), "it was held before it was refused: {held:?}");
}

#[test]
#[ignore = "needs network namespaces (root, iproute2): run tests/run, or add --include-ignored"]
fn a_slow_link_that_passes_enough_stays_and_one_that_passes_less_is_cut_off() {
    let network = Network::new();
    let far = network.host();
    let gateway = network.gateway(&["--stuck-ms=2000", "--min-drain-bytes=20000", "--heartbeat-ms=1000"]);
    let mut slow = far.run(|| gateway.service("slow"));
    let mut source = gateway.service("source");
    far.slow_down("256kbit");
    source.texts((0..3_000).map(|n| text("source", "slow", n, 1_000)));
    source.expect_nothing();
    // Three times stuck_ms at that rate.
    for n in 0..190 {
        assert_eq!(slow.next().json["d"][0], n);
        source.answer_pings();
    }
    for code in ["4008", "4009"] {
        assert_eq!(gateway.metric("gateway_closes_total", code), 0, "it takes more than min_drain_bytes");
    }
    far.slow_down("32kbit");
    let slowed = Instant::now();
    while_reading(&mut slow, LAST, |reading| {
        eventually("it is cut off", || {
            source.answer_pings();
            gateway.log().contains("slow is away").then_some(())
        });
        println!("cut off after {:?}", slowed.elapsed());
        assert_eq!(gateway.metric("gateway_closes_total", "4009"), 0, "it was slow, not silent");
        far.speed_up();
        reading.until_ended();
    });
    assert_eq!(gateway.metric("gateway_closes_total", "4008"), 1);
    let queued = account(&gateway, "slow")[4];
    let mut back = far.run(|| gateway.connect());
    assert_eq!(back.identify_with("slow", json!({}))["resumed"], true);
    let came = while_reading(&mut back, 2_999, |_| {});
    assert_eq!(came, queued, "what waited for it came when it was back, in order");
}

fn account(gateway: &Gateway, target: &str) -> [u64; 5] {
    let counts @ [accepted, delivered, returned, dead, queued] = gateway.account(target);
    assert_eq!(accepted, delivered + returned + dead + queued, "{target}: {counts:?}");
    counts
}
