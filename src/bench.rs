//! `gateway bench`: a load on a running gateway, and a check of every message in it.
//!
//! [`pairs`]: P pairs of services; each producer keeps `window` messages in flight to its
//! consumer, through the gateway. Messages are formatted once, then only the digits of the
//! sequence number are patched. The consumer compares each message whole: lost, duplicated,
//! reordered and altered ones are counted apart, and so are those that the gateway refused.
//!
//! Not for absolute peaks: load and check run in this process and share the machine with the
//! gateway. The gateway's CPU time for each message is the figure to compare.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::{AddAssign, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Client, ClientError, Event, Identify, Receiver, Sender};
use crate::protocol::close::LEAVES_FOR_GOOD;
use crate::protocol::op::Opcode;

const WARM_UP: Duration = Duration::from_millis(500);
/// How long after the last arrival a message in flight counts as lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many digits a sequence number has.
const DIGITS: usize = 10;
/// Fills `d`: nested values, numbers, escapes, text beyond ASCII. A flat string would flatter
/// the gateway's scanner.
const FILLER: &str =
    r#"{"id":"81384788765712384","name":"Zoë \"z\" \u2603","flags":[1,-2.5e-3,true,null],"in":{"a":[]}}"#;

/// What to run.
#[derive(Debug, Clone)]
pub struct PairsOptions {
    /// Like `ws://127.0.0.1:7117/gateway`.
    pub url: String,
    pub pairs: usize,
    /// Bytes of each message's `d`.
    pub size: usize,
    /// Length of the measured time; a warm-up comes before it.
    pub seconds: f64,
    /// Messages in flight in each pair.
    pub window: u64,
    /// The gateway's process, for its CPU time.
    pub pid: Option<u32>,
}

/// The run could not be made, or broke off.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("--{option} must be {expected}, not {got}")]
    Option { option: &'static str, expected: String, got: String },
    #[error("no CPU clock of process {pid}: {reason}")]
    NoCpuClock { pid: u32, reason: nix::Error },
    #[error("{name}: {error}")]
    Client { name: String, error: ClientError },
    #[error("{name}: the connection ended")]
    Ended { name: String },
    #[error("{name}: the gateway has read nothing more for too long")]
    Stuck { name: String },
    #[error("a pair's task panicked: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}

/// What was measured. Displayed as a few lines of text.
#[derive(Debug, Clone)]
pub struct PairsReport {
    pub options: PairsOptions,
    /// The measured time.
    pub elapsed: Duration,
    /// Messages that arrived in it.
    pub messages: u64,
    /// CPU time of `pid` in it, user and system, all its threads. From the process's CPU clock
    /// (`clock_getcpuclockid`), which counts in ns.
    pub cpu: Option<Duration>,
    /// Messages sent in all, warm-up included.
    pub sent: u64,
    /// What the checks found, warm-up included.
    pub faults: Faults,
}

/// Messages that did not end as they should.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Never arrived, and not refused either.
    pub lost: u64,
    /// Arrived again.
    pub duplicated: u64,
    /// Arrived after one that was sent later.
    pub reordered: u64,
    /// Not what any sent message should arrive as.
    pub altered: u64,
    /// Answered with ERROR.
    pub refused: u64,
}

/// Runs the load. An `Ok` still has to be asked whether it [`passed`](PairsReport::passed).
pub async fn pairs(options: PairsOptions) -> Result<PairsReport, BenchError> {
    options.check()?;
    let clock = options.pid.map(CpuClock::of).transpose()?;
    let salt = std::process::id();
    let mut running = Vec::with_capacity(options.pairs);
    for index in 0..options.pairs {
        running.push(Pair::start(&options, index, salt).await?);
    }

    sleep(WARM_UP).await;
    let before = Snapshot::take(&running, clock)?;
    sleep(Duration::from_secs_f64(options.seconds)).await;
    let after = Snapshot::take(&running, clock)?;

    for pair in &running {
        pair.flow.stop();
    }
    let mut sent = 0;
    let mut faults = Faults::default();
    for pair in running {
        let (pair_sent, pair_faults) = pair.finish().await?;
        sent += pair_sent;
        faults += pair_faults;
    }
    Ok(PairsReport {
        elapsed: after.at - before.at,
        messages: after.arrived - before.arrived,
        cpu: after.cpu.zip(before.cpu).map(|(after, before)| after.saturating_sub(before)),
        sent,
        faults,
        options,
    })
}

impl PairsOptions {
    fn check(&self) -> Result<(), BenchError> {
        let wrong = |option, expected: &str, got: String| {
            Err(BenchError::Option { option, expected: expected.to_owned(), got })
        };
        let least = Pattern::data("", 0).len();
        if self.pairs == 0 {
            return wrong("pairs", "at least 1", self.pairs.to_string());
        }
        if self.size < least {
            return wrong("size", &format!("at least {least}"), self.size.to_string());
        }
        if self.window == 0 {
            return wrong("window", "at least 1", self.window.to_string());
        }
        if !(self.seconds > 0.0 && self.seconds <= 86_400.0) {
            return wrong("seconds", "above 0 and at most 86400", self.seconds.to_string());
        }
        Ok(())
    }
}

impl PairsReport {
    /// Whether every message arrived once, in order and unaltered.
    pub fn passed(&self) -> bool {
        self.faults == Faults::default() && self.messages > 0
    }
}

#[expect(clippy::cast_precision_loss, reason = "rates are shown with few digits")]
impl fmt::Display for PairsReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PairsOptions { pairs, size, window, .. } = self.options;
        let Faults { lost, duplicated, reordered, altered, refused } = self.faults;
        let seconds = self.elapsed.as_secs_f64();
        let rate = self.messages as f64 / seconds;
        writeln!(formatter, "pairs        {pairs}, {window} messages of {size} bytes in flight in each")?;
        writeln!(formatter, "messages/s   {rate:.0}  ({} in {seconds:.2} s)", self.messages)?;
        writeln!(formatter, "MB/s         {:.1}  (of data)", rate * size as f64 / 1e6)?;
        if let Some(cpu) = self.cpu {
            let micros = cpu.as_secs_f64() * 1e6 / self.messages as f64;
            let percent = cpu.as_secs_f64() * 100.0 / seconds;
            writeln!(formatter, "gateway CPU  {micros:.3} µs for each message  ({percent:.0} % of a core)")?;
        }
        write!(
            formatter,
            "checks       {}: {} sent, {lost} lost, {duplicated} duplicated, {reordered} reordered, \
             {altered} altered, {refused} refused",
            if self.passed() { "ok" } else { "FAILED" },
            self.sent,
        )
    }
}

impl AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.altered += other.altered;
        self.refused += other.refused;
    }
}

/// A producer and its consumer at work.
struct Pair {
    /// The producer's name.
    name: String,
    flow: Arc<Flow>,
    producer: JoinHandle<Result<Sender, BenchError>>,
    /// Reads what the gateway says to the producer, and so answers its pings.
    listener: JoinHandle<Result<(), BenchError>>,
    consumer: JoinHandle<Result<Checker, BenchError>>,
    /// The consumer's own side, which only says goodbye.
    consumer_sender: Sender,
}

/// What a pair's tasks know of each other.
#[derive(Default)]
struct Flow {
    sent: AtomicU64,
    arrived: AtomicU64,
    refused: AtomicU64,
    /// A share of the window is free again.
    room: Notify,
    stopping: AtomicBool,
}

impl Pair {
    async fn start(options: &PairsOptions, index: usize, salt: u32) -> Result<Self, BenchError> {
        let (from, to) = (format!("bench-a-{index}-{salt}"), format!("bench-b-{index}-{salt}"));
        let (consumer_sender, receiver) = connect(&options.url, &to).await?;
        let (sender, listener) = connect(&options.url, &from).await?;
        let flow = Arc::new(Flow::default());
        let data = Pattern::data(FILLER, options.size);
        let outgoing = Pattern::message(&from, &format!("gateway-proxy:{to}:bench:pairs"), &data);
        let incoming = Pattern::message(&from, "bench:pairs", &data);
        let checker = Checker::new(incoming, options.window);
        let window = options.window;
        Ok(Self {
            producer: tokio::spawn(produce(sender, outgoing, window, from.clone(), Arc::clone(&flow))),
            listener: tokio::spawn(listen(listener, from.clone(), Arc::clone(&flow))),
            consumer: tokio::spawn(consume(receiver, checker, window, to, Arc::clone(&flow))),
            name: from,
            flow,
            consumer_sender,
        })
    }

    /// How many messages were sent, and what became of them.
    async fn finish(mut self) -> Result<(u64, Faults), BenchError> {
        let stuck = BenchError::Stuck { name: self.name };
        let mut producer_sender = timeout(PATIENCE, self.producer).await.map_err(|_| stuck)???;
        let checker = self.consumer.await??;
        self.listener.abort();
        match self.listener.await {
            Ok(failed) => failed?,
            Err(error) if error.is_cancelled() => {}
            Err(error) => return Err(error.into()),
        }
        // They leave for good, so that the gateway keeps nothing for them. It may have ended first.
        for sender in [&mut producer_sender, &mut self.consumer_sender] {
            let _ = sender.close(LEAVES_FOR_GOOD).await;
        }
        let sent = self.flow.sent.load(Ordering::Acquire);
        Ok((sent, checker.finish(sent, self.flow.refused.load(Ordering::Acquire))))
    }
}

impl Flow {
    fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.room.notify_one();
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn all_settled(&self) -> bool {
        self.settled() >= self.sent.load(Ordering::Acquire)
    }

    fn settled(&self) -> u64 {
        self.arrived.load(Ordering::Acquire) + self.refused.load(Ordering::Acquire)
    }

    /// Counts an arrival or a refusal, and wakes the producer once in each quarter of a window: a
    /// fast gateway must not be fed in smaller pieces than a slow one.
    fn settle(&self, counter: &AtomicU64, window: u64) {
        counter.fetch_add(1, Ordering::AcqRel);
        if self.settled().is_multiple_of(window.div_ceil(4)) {
            self.room.notify_one();
        }
    }
}

async fn connect(url: &str, name: &str) -> Result<(Sender, Receiver), BenchError> {
    let connected = Client::connect(url, &Identify::named(name)).await;
    let (client, _) = connected.map_err(|error| failed(name, error))?;
    Ok(client.split())
}

/// Sends until it is told to stop, never more than the window ahead.
async fn produce(
    mut sender: Sender,
    mut pattern: Pattern,
    window: u64,
    name: String,
    flow: Arc<Flow>,
) -> Result<Sender, BenchError> {
    let mut sent = 0;
    while !flow.is_stopping() {
        let end = flow.settled() + window;
        for sequence in sent..end {
            flow.sent.store(sequence + 1, Ordering::Release);
            sender.feed_raw(pattern.number(sequence)).await.map_err(|error| failed(&name, error))?;
        }
        sender.flush().await.map_err(|error| failed(&name, error))?;
        sent = sent.max(end);
        flow.room.notified().await;
    }
    Ok(sender)
}

/// Counts refusals.
async fn listen(mut receiver: Receiver, name: String, flow: Arc<Flow>) -> Result<(), BenchError> {
    loop {
        match receiver.next().await.map_err(|error| failed(&name, error))? {
            Some(Event::Op(op)) if op.is(Opcode::Error) => flow.settle(&flow.refused, 1),
            Some(_) => {}
            None => return Err(BenchError::Ended { name }),
        }
    }
}

/// Checks what comes until everything sent has come, or nothing more does.
async fn consume(
    mut receiver: Receiver,
    mut checker: Checker,
    window: u64,
    name: String,
    flow: Arc<Flow>,
) -> Result<Checker, BenchError> {
    let mut last = Instant::now();
    loop {
        let text = match timeout(Duration::from_millis(100), receiver.next_text()).await {
            Ok(text) => text.map_err(|error| failed(&name, error))?,
            Err(_) if flow.is_stopping() && (flow.all_settled() || last.elapsed() > PATIENCE) => {
                return Ok(checker);
            }
            Err(_) => continue,
        };
        let Some(text) = text else { return Err(BenchError::Ended { name }) };
        if checker.check(&text) {
            last = Instant::now();
            flow.settle(&flow.arrived, window);
        }
    }
}

fn failed(name: &str, error: ClientError) -> BenchError {
    BenchError::Client { name: name.to_owned(), error }
}

/// A message that is formatted once; only its number changes.
#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    digits: Range<usize>,
}

impl Pattern {
    /// `d` of exactly `size` bytes, or as few as it can have.
    fn data(filler: &str, size: usize) -> String {
        let frame =
            |rich: &str, pad: &str| format!(r#"{{"seq":"{:0DIGITS$}","rich":[{rich}],"pad":"{pad}"}}"#, 0);
        let free = size.saturating_sub(frame("", "").len());
        let rich = vec![filler; (free + 1) / (filler.len() + 1)].join(",");
        frame(&rich, &"x".repeat(free - rich.len()))
    }

    fn message(source: &str, topic: &str, data: &str) -> Self {
        const BEFORE_DIGITS: &str = r#"{"seq":""#;
        let head = format!(r#"{{"s":"{source}","t":"{topic}","d":"#);
        let start = head.len() + BEFORE_DIGITS.len();
        Self { text: format!("{head}{data}}}"), digits: start..start + DIGITS }
    }

    fn number(&mut self, sequence: u64) -> String {
        self.text.replace_range(self.digits.clone(), &format!("{sequence:0DIGITS$}"));
        self.text.clone()
    }

    /// The number of a message that is this one but for its digits.
    fn number_of(&self, text: &str) -> Option<u64> {
        let Range { start, end } = self.digits;
        let (text, own) = (text.as_bytes(), self.text.as_bytes());
        let same = text.len() == own.len() && text[..start] == own[..start] && text[end..] == own[end..];
        let digits = same.then(|| &text[start..end]).filter(|it| it.iter().all(u8::is_ascii_digit))?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }
}

/// Judges what arrives at one consumer.
#[derive(Debug)]
struct Checker {
    expected: Pattern,
    window: u64,
    /// One more than the highest number that came.
    next: u64,
    /// Numbers below `next` that have not come.
    missing: BTreeSet<u64>,
    faults: Faults,
}

impl Checker {
    fn new(expected: Pattern, window: u64) -> Self {
        Self { expected, window, next: 0, missing: BTreeSet::new(), faults: Faults::default() }
    }

    /// Judges one text. `false`: it was an op, not a proxied message.
    fn check(&mut self, text: &str) -> bool {
        match self.expected.number_of(text) {
            Some(sequence) => self.arrived(sequence),
            None if matches!(Event::parse(text), Ok(Event::Op(_))) => return false,
            None => self.faults.altered += 1,
        }
        true
    }

    fn arrived(&mut self, sequence: u64) {
        if sequence == self.next {
            self.next += 1;
        } else if self.missing.remove(&sequence) {
            self.faults.reordered += 1;
        } else if sequence < self.next {
            self.faults.duplicated += 1;
        } else if sequence < self.next + self.window {
            self.missing.extend(self.next..sequence);
            self.next = sequence + 1;
        } else {
            // No such message can be under way: its digits were altered.
            self.faults.altered += 1;
        }
    }

    /// The verdict, given how many were sent and how many of those the gateway refused.
    fn finish(self, sent: u64, refused: u64) -> Faults {
        let absent = self.missing.len() as u64 + sent.saturating_sub(self.next);
        Faults { lost: absent.saturating_sub(refused), refused, ..self.faults }
    }
}

/// The CPU time that a process has used.
#[derive(Debug, Clone, Copy)]
struct CpuClock {
    pid: u32,
    clock: ClockId,
}

impl CpuClock {
    fn of(pid: u32) -> Result<Self, BenchError> {
        let id = i32::try_from(pid).map_err(|_| nix::Error::ESRCH);
        let clock = id.and_then(|id| clock_getcpuclockid(Pid::from_raw(id)));
        clock.map(|clock| Self { pid, clock }).map_err(|reason| BenchError::NoCpuClock { pid, reason })
    }

    fn read(self) -> Result<Duration, BenchError> {
        let Self { pid, clock } = self;
        clock_gettime(clock).map(Duration::from).map_err(|reason| BenchError::NoCpuClock { pid, reason })
    }
}

/// Where the run stands at one moment.
struct Snapshot {
    at: Instant,
    cpu: Option<Duration>,
    arrived: u64,
}

impl Snapshot {
    fn take(pairs: &[Pair], clock: Option<CpuClock>) -> Result<Self, BenchError> {
        Ok(Self {
            at: Instant::now(),
            cpu: clock.map(CpuClock::read).transpose()?,
            arrived: pairs.iter().map(|pair| pair.flow.arrived.load(Ordering::Acquire)).sum(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = 8;

    fn pattern() -> Pattern {
        Pattern::message("a", "x:y", &Pattern::data(FILLER, 300))
    }

    /// The faults found when `arrivals` of `sent` messages come.
    fn faults(sent: u64, arrivals: &[u64]) -> Faults {
        let mut checker = Checker::new(pattern(), WINDOW);
        for sequence in arrivals {
            assert!(checker.check(&pattern().number(*sequence)));
        }
        checker.finish(sent, 0)
    }

    #[test]
    fn what_arrives_once_and_in_order_is_no_fault() {
        assert_eq!(faults(4, &[0, 1, 2, 3]), Faults::default());
    }

    #[test]
    fn a_lost_message_is_detected_in_the_middle_and_at_the_end() {
        assert_eq!(faults(6, &[0, 2, 3]), Faults { lost: 3, ..Faults::default() });
    }

    #[test]
    fn a_refused_message_is_not_lost() {
        let mut checker = Checker::new(pattern(), WINDOW);
        checker.check(&pattern().number(1));
        assert_eq!(checker.finish(3, 1), Faults { lost: 1, refused: 1, ..Faults::default() });
    }

    #[test]
    fn a_duplicated_message_is_detected() {
        assert_eq!(faults(3, &[0, 1, 1, 2, 0]), Faults { duplicated: 2, ..Faults::default() });
    }

    #[test]
    fn a_reordered_message_is_detected_and_not_lost() {
        assert_eq!(faults(4, &[0, 2, 1, 3]), Faults { reordered: 1, ..Faults::default() });
    }

    #[test]
    fn a_message_altered_anywhere_is_detected() {
        let original = pattern().number(0);
        for at in 0..original.len() {
            let mut bytes = original.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(altered) = String::from_utf8(bytes) else { continue };
            let mut checker = Checker::new(pattern(), WINDOW);
            checker.check(&altered);
            assert_ne!(checker.finish(1, 0), Faults::default(), "byte {at}: {altered}");
        }
        let mut checker = Checker::new(pattern(), WINDOW);
        checker.check(&original[..original.len() - 1]);
        checker.check(&pattern().number(WINDOW));
        checker.check(&original);
        assert_eq!(checker.finish(1, 0), Faults { altered: 2, ..Faults::default() });
    }

    #[test]
    fn an_op_is_not_taken_for_a_message() {
        let mut checker = Checker::new(pattern(), WINDOW);
        assert!(!checker.check(r#"{"s":"gateway","t":"gateway:opcode","d":{"opcode":3}}"#));
        assert_eq!(checker.finish(0, 0), Faults::default());
    }

    #[test]
    fn data_is_json_of_the_size_asked_for() {
        for size in [40, 64, 137, 138, 256, 1024, 65_536] {
            let data = Pattern::data(FILLER, size);
            assert_eq!(data.len(), size.max(Pattern::data("", 0).len()));
            assert!(serde_json::from_str::<serde_json::Value>(&data).is_ok(), "{data}");
        }
    }

    #[test]
    fn the_cpu_clock_of_a_process_runs() {
        let clock = CpuClock::of(std::process::id()).expect("a clock");
        let before = clock.read().expect("a time");
        while clock.read().expect("a time") == before {}
    }

    #[tokio::test]
    async fn an_option_out_of_range_is_named() {
        let options =
            PairsOptions { url: String::new(), pairs: 1, size: 10, seconds: 1.0, window: 1, pid: None };
        let error = pairs(options).await.expect_err("too small").to_string();
        assert!(error.starts_with("--size must be at least 3"), "{error}");
    }
}
