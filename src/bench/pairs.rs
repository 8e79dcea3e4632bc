//! `gateway bench pairs`: P pairs of services; each producer keeps `window` messages in flight to
//! its consumer, through the gateway. Messages are formatted once, then only the digits of the
//! sequence number are patched. The consumer compares each message whole: lost, duplicated,
//! reordered and altered ones are counted apart, and so are those that the gateway refused.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::checker::{Checker, Faults};
use super::pattern::{FILLER, Pattern};
use super::process::CpuClock;
use super::{BenchError, connect, failed, wrong_option};
use crate::client::{Event, Receiver, Sender};
use crate::protocol::close::LEAVES_FOR_GOOD;
use crate::protocol::op::Opcode;

const WARM_UP: Duration = Duration::from_millis(500);
/// How long after the last arrival a message in flight counts as lost.
const PATIENCE: Duration = Duration::from_secs(5);

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
        let least = Pattern::data("", 0).len();
        if self.pairs == 0 {
            return Err(wrong_option("pairs", "at least 1", self.pairs));
        }
        if self.size < least {
            return Err(wrong_option("size", format!("at least {least}"), self.size));
        }
        if self.window == 0 {
            return Err(wrong_option("window", "at least 1", self.window));
        }
        if !(self.seconds > 0.0 && self.seconds <= 86_400.0) {
            return Err(wrong_option("seconds", "above 0 and at most 86400", self.seconds));
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

    #[tokio::test]
    async fn an_option_out_of_range_is_named() {
        let options =
            PairsOptions { url: String::new(), pairs: 1, size: 10, seconds: 1.0, window: 1, pid: None };
        let error = pairs(options).await.expect_err("too small").to_string();
        assert!(error.starts_with("--size must be at least 3"), "{error}");
    }
}
