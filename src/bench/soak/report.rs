//! What a soak found.

use std::fmt;
use std::time::Duration;

use super::SoakOptions;
use super::faults::Found;
use super::sample::Sample;
use crate::bench::slope::Slope;

/// The least time of warm-up, and how long a run must be for it, and to be judged.
const WARM_UP: Duration = Duration::from_mins(1);
const LONG_ENOUGH: Duration = Duration::from_mins(2);
/// How many targets are named whose account does not balance.
const TOLD: usize = 3;

/// Displayed as a few lines of text.
#[derive(Debug)]
pub struct SoakReport {
    pub(super) options: SoakOptions,
    /// Before any service came.
    pub(super) before: Sample,
    /// While they were there.
    pub(super) samples: Vec<Sample>,
    /// After all had left.
    pub(super) after: Sample,
    /// What happened, in words.
    pub(super) counts: String,
    pub(super) faults: Found,
    /// The end of the log of a gateway that was started for it.
    pub(super) log: String,
}

impl SoakReport {
    /// Whether nothing was lost, and everything is as it was before.
    pub fn passed(&self) -> bool {
        let is_balanced = self.all().all(|sample| sample.unbalanced.is_empty());
        self.faults.is_empty() && is_balanced && self.has_let_go() && !self.samples.is_empty()
    }

    /// Whether the services left nothing behind.
    pub(super) fn has_let_go(&self) -> bool {
        self.after.let_go_since(&self.before)
    }

    fn all(&self) -> impl Iterator<Item = &Sample> {
        [&self.before, &self.after].into_iter().chain(&self.samples)
    }

    fn elapsed(&self) -> Duration {
        self.samples.last().map_or(Duration::ZERO, |sample| sample.elapsed)
    }

    /// Resident memory after the warm-up, in KiB for each hour.
    pub fn slope(&self) -> Option<Slope> {
        let warm = warm_up(self.elapsed());
        let readings = self.samples.iter().filter(|sample| sample.elapsed >= warm);
        let points: Vec<(f64, f64)> = readings.map(Sample::memory).collect();
        Slope::through(&points)
    }
}

/// The first third of a run, but at least a minute.
fn warm_up(run: Duration) -> Duration {
    if run >= LONG_ENOUGH { (run / 3).max(WARM_UP) } else { run / 3 }
}

impl Sample {
    /// Whether as many descriptors, connections, sessions and messages are there as then.
    pub(super) fn let_go_since(&self, before: &Self) -> bool {
        let held = |sample: &Self| {
            let Self { descriptors, connections, sessions, mailbox_messages, mailbox_bytes, sum, .. } =
                sample;
            (*descriptors, *connections, *sessions, *mailbox_messages, *mailbox_bytes, sum.queued)
        };
        held(self) == held(before)
    }

    /// Hours, and KiB.
    #[expect(clippy::cast_precision_loss, reason = "memory is far below 2^52 KiB")]
    fn memory(&self) -> (f64, f64) {
        (self.elapsed.as_secs_f64() / 3600.0, self.resident_kib as f64)
    }
}

impl fmt::Display for SoakReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SoakOptions { services, rate, .. } = self.options;
        let minutes = self.elapsed().as_secs_f64() / 60.0;
        writeln!(formatter, "services     {services} for {minutes:.1} min, {rate} messages/s asked for")?;
        writeln!(formatter, "{}", self.counts)?;
        writeln!(formatter, "memory       {}", self.memory())?;
        writeln!(formatter, "left behind  {}", self.left_behind())?;
        writeln!(formatter, "account      {}", self.account())?;
        writeln!(formatter, "faults       {}", self.faults)?;
        write!(formatter, "verdict      {}", if self.passed() { "ok" } else { "FAILED" })?;
        if !self.passed() && !self.log.is_empty() {
            write!(formatter, "\nthe end of the gateway's log:\n{}", self.log)?;
        }
        Ok(())
    }
}

/// What the lines say.
impl SoakReport {
    fn memory(&self) -> String {
        let Some(slope) = self.slope() else { return "too few readings for a slope".to_owned() };
        let Slope { rate, error, readings } = slope;
        let verdict = match (slope.is_clear(), rate > 0.0) {
            _ if self.elapsed() < LONG_ENOUGH => "too short a run to judge",
            (false, _) => "not distinguishable from 0",
            (true, true) => "it GROWS",
            (true, false) => "it shrinks",
        };
        let warm = warm_up(self.elapsed()).as_secs_f64() / 60.0;
        let end = self.after.resident_kib;
        format!(
            "{rate:+.0} ± {error:.0} KiB/hour by {readings} readings after {warm:.1} min: {verdict}; {end} KiB at \
             the end"
        )
    }

    fn left_behind(&self) -> String {
        let verdict = if self.has_let_go() { "all let go" } else { "NOT ALL LET GO" };
        let (before, after) = (&self.before, &self.after);
        format!(
            "{verdict}: descriptors {} before, {} after; connections {} and {}; sessions {} and {}; queued {} and {}",
            before.descriptors,
            after.descriptors,
            before.connections,
            after.connections,
            before.sessions,
            after.sessions,
            before.sum.queued,
            after.sum.queued,
        )
    }

    fn account(&self) -> String {
        let unbalanced: Vec<&Sample> = self.all().filter(|sample| !sample.unbalanced.is_empty()).collect();
        let Some(Sample { elapsed, unbalanced: targets, .. }) = unbalanced.first() else {
            return format!("balanced for every target at all {} readings", self.all().count());
        };
        format!(
            "UNBALANCED at {} readings, first at {elapsed:?} of {} targets: {}",
            unbalanced.len(),
            targets.len(),
            targets[..targets.len().min(TOLD)].join(", "),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::faults::{Fault, Faults};
    use super::super::sample::Balance;
    use super::*;

    /// A run of 30 minutes whose memory follows `memory`.
    fn report(memory: impl Fn(u64) -> u64) -> SoakReport {
        let sample = |at: u64| Sample {
            elapsed: Duration::from_secs(at * 10),
            resident_kib: memory(at),
            descriptors: 400,
            connections: 200,
            ..Sample::default()
        };
        let rest = Sample { descriptors: 20, ..Sample::default() };
        SoakReport {
            options: SoakOptions::default(),
            before: rest.clone(),
            samples: (1..=180).map(sample).collect(),
            after: rest,
            counts: String::new(),
            faults: Faults::default().found(),
            log: "a line\n".to_owned(),
        }
    }

    #[test]
    fn memory_that_grows_only_while_it_warms_up_is_flat() {
        let shown = report(|at| 20_000 + 100 * at.min(60) + at % 2).to_string();
        assert!(
            shown.contains("KiB/hour by 121 readings after 10.0 min: not distinguishable from 0"),
            "{shown}"
        );
        assert!(shown.ends_with("verdict      ok"), "{shown}");
    }

    #[test]
    fn a_leak_is_told_with_its_size() {
        // A KiB every ten seconds, under noise.
        let report = report(|at| 20_000 + at + at * 7 % 11);
        let slope = report.slope().unwrap();
        assert!((slope.rate - 360.0).abs() < 10.0, "{slope:?}");
        assert!(report.to_string().contains("it GROWS"), "{report}");
    }

    #[test]
    fn a_run_that_only_warms_up_is_not_judged() {
        let mut report = report(|at| 20_000 + 1_000 * at);
        report.samples.truncate(11);
        let shown = report.to_string();
        assert!(shown.contains("KiB/hour by 8 readings after 0.6 min: too short a run to judge"), "{shown}");
    }

    #[test]
    fn the_warm_up_is_a_third_and_at_least_a_minute() {
        let seconds = Duration::from_secs;
        assert_eq!(warm_up(seconds(900)), seconds(300));
        assert_eq!(warm_up(seconds(120)), seconds(60));
        assert_eq!(warm_up(seconds(30)), seconds(10));
    }

    fn failure(change: impl FnOnce(&mut SoakReport)) -> String {
        let mut report = report(|_| 20_000);
        assert!(report.passed());
        change(&mut report);
        assert!(!report.passed(), "{report}");
        let shown = report.to_string();
        assert!(shown.contains("verdict      FAILED") && shown.ends_with("a line\n"), "{shown}");
        shown
    }

    #[test]
    fn a_descriptor_that_is_not_let_go_fails() {
        let shown = failure(|report| report.after.descriptors += 1);
        assert!(shown.contains("NOT ALL LET GO: descriptors 20 before, 21 after"), "{shown}");
    }

    #[test]
    fn a_message_that_stays_queued_fails() {
        let shown = failure(|report| report.after.sum = Balance { queued: 1, ..Balance::default() });
        assert!(shown.contains("queued 0 and 1"), "{shown}");
    }

    #[test]
    fn an_account_that_does_not_balance_fails() {
        let shown = failure(|report| report.samples[3].unbalanced.push("b".to_owned()));
        assert!(shown.contains("UNBALANCED at 1 readings, first at 40s of 1 targets: b"), "{shown}");
    }

    #[test]
    fn a_fault_fails() {
        let faults = Faults::default();
        faults.add(Fault::Lost, || "message 7".to_owned());
        let shown = failure(|report| report.faults = faults.found());
        assert!(shown.contains("faults       1 lost\n  lost: message 7"), "{shown}");
    }
}
