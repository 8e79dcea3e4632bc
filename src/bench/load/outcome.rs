//! What a thread found.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::bench::checker::Checks;

/// The longest time that is told apart from longer ones.
const LONGEST: Duration = Duration::from_hours(1);
/// Significant digits of a time.
const DIGITS: u8 = 3;

/// Added up over all threads.
#[derive(Debug, Clone)]
pub(in crate::bench) struct Outcome {
    pub(in crate::bench) checks: Checks,
    /// From when each message was due until it had come, in ns.
    pub(in crate::bench) latency: Histogram<u64>,
    /// From when each message was due until it was written, in ns, where nothing held it back.
    pub(in crate::bench) lateness: Histogram<u64>,
    /// Messages that were held back: by a full window, a full socket, or a connection that was away.
    pub(in crate::bench) held: u64,
    /// Messages that were due and still held back at the end.
    pub(in crate::bench) unsent: u64,
    /// From the cut of all connections until each service was back, in ns.
    pub(in crate::bench) back: Histogram<u64>,
    /// Services that came back and did not resume their session.
    pub(in crate::bench) not_resumed: u64,
    /// Idle services whose connection did not answer a ping at the end.
    pub(in crate::bench) unanswered: u64,
    /// Of the others, those whose connection the gateway did not end when they left.
    pub(in crate::bench) not_ended: u64,
    /// From the start until all had come.
    pub(in crate::bench) gathered: Duration,
    /// The first refusal.
    pub(in crate::bench) refusal: Option<String>,
}

impl Outcome {
    pub(super) fn new() -> Self {
        Self {
            checks: Checks::default(),
            latency: histogram(),
            lateness: histogram(),
            held: 0,
            unsent: 0,
            back: histogram(),
            not_resumed: 0,
            unanswered: 0,
            not_ended: 0,
            gathered: Duration::ZERO,
            refusal: None,
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.checks += other.checks;
        for (own, more) in [
            (&mut self.latency, &other.latency),
            (&mut self.lateness, &other.lateness),
            (&mut self.back, &other.back),
        ] {
            own.add(more).expect("all have the same bounds");
        }
        self.held += other.held;
        self.unsent += other.unsent;
        self.not_resumed += other.not_resumed;
        self.unanswered += other.unanswered;
        self.not_ended += other.not_ended;
        self.gathered = self.gathered.max(other.gathered);
        self.refusal = self.refusal.take().or(other.refusal);
    }
}

fn histogram() -> Histogram<u64> {
    let longest = u64::try_from(LONGEST.as_nanos()).expect("an hour fits");
    Histogram::new_with_bounds(1, longest, DIGITS).expect("the bounds are in order")
}
