//! How long something took, as a distribution: as a table or as JSON. Only what the number of samples can tell:
//! of five of them none is the slowest of a thousand.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::load::Outcome;
use super::report::{as_f64, rounded, row};

/// A distribution of times, by an HDR histogram with three digits. `None`: there are too few for it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Percentiles {
    pub(super) count: u64,
    pub(super) p50_us: Option<f64>,
    pub(super) p90_us: Option<f64>,
    pub(super) p99_us: Option<f64>,
    #[serde(rename = "p99.9_us")]
    pub(super) p999_us: Option<f64>,
    pub(super) max_us: Option<f64>,
}

/// How messages fared that are due at a fixed rate.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Timing {
    /// From when each message was due until it had come; `None` without a rate.
    latency: Option<Percentiles>,
    /// From when each message was due until it was written, of those that nothing held back: how late the
    /// generator itself was.
    lateness: Option<Percentiles>,
    /// Messages that were held back: by a full window, a full socket, or a connection that was away.
    held_messages: u64,
    /// Those of them that were still held back at the end, and never sent: they are in `latency` with the
    /// time until then.
    unsent_messages: u64,
    /// Whether all that was due was sent: otherwise `latency` tells lower bounds. `None` without a rate.
    rate_kept: Option<bool>,
    /// Messages for each second that were asked for.
    #[serde(skip)]
    rate: Option<f64>,
}

impl Percentiles {
    /// Of times in ns.
    pub(super) fn of(times: &Histogram<u64>) -> Self {
        let count = times.len();
        // One sample at least has to lie beyond.
        let at = |quantile: f64, least| (count >= least).then(|| micros(times.value_at_quantile(quantile)));
        Self {
            count,
            p50_us: at(0.5, 2),
            p90_us: at(0.9, 10),
            p99_us: at(0.99, 100),
            p999_us: at(0.999, 1000),
            max_us: (count > 0).then(|| micros(times.max())),
        }
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, p50_us, p90_us, p99_us, p999_us, max_us } = self;
        let named = [("p50", p50_us), ("p90", p90_us), ("p99", p99_us), ("p99.9", p999_us), ("max", max_us)];
        for (name, micros) in named {
            if let Some(micros) = micros {
                write!(formatter, "{name} {micros:.0}, ")?;
            }
        }
        write!(formatter, "of {count}")
    }
}

impl Timing {
    pub(super) fn of(outcome: &Outcome, rate: Option<f64>) -> Self {
        let Outcome { latency, lateness, held, unsent, .. } = outcome;
        Self {
            latency: rate.map(|_| Percentiles::of(latency)),
            lateness: rate.map(|_| Percentiles::of(lateness)),
            held_messages: *held,
            unsent_messages: *unsent,
            rate_kept: rate.map(|_| *unsent == 0),
            rate,
        }
    }

    /// Whether there was a rate, and no message in the whole measured time.
    pub(super) fn is_empty(&self) -> bool {
        self.latency.is_some_and(|latency| latency.count == 0)
    }

    /// What was asked for, where it was a rate.
    pub(super) fn rate_row(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(rate) = self.rate else { return Ok(()) };
        let is_kept = self.rate_kept != Some(false);
        let note = if is_kept { "" } else { "; rate not kept: the percentiles are lower bounds" };
        row(formatter, "asked for", &format_args!("{rate} messages/s{note}"))
    }

    pub(super) fn rows(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(latency) = &self.latency {
            row(formatter, "latency µs", latency)?;
        }
        let Some(lateness) = &self.lateness else { return Ok(()) };
        let Self { held_messages, unsent_messages, .. } = self;
        let held =
            format_args!("{lateness}; {held_messages} held back, {unsent_messages} not sent by the end");
        row(formatter, "sent late µs", &held)
    }
}

fn micros(nanos: u64) -> f64 {
    rounded(as_f64(nanos) / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(count: u64) -> Percentiles {
        let mut times = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).unwrap();
        for micros in 1..=count {
            times.record(micros * 1000).unwrap();
        }
        Percentiles::of(&times)
    }

    #[test]
    fn percentiles_are_those_of_the_times() {
        let found = times(1000);
        // Three significant digits: half a µs at most from the true value.
        for (found, expected) in [
            (found.p50_us, 500.0),
            (found.p90_us, 900.0),
            (found.p99_us, 990.0),
            (found.p999_us, 999.0),
            (found.max_us, 1000.0),
        ] {
            assert!((found.unwrap() - expected).abs() <= 0.6, "{found:?} is not {expected}");
        }
        assert_eq!(found.count, 1000);
        let json = serde_json::to_value(found).unwrap();
        for name in ["count", "p50_us", "p90_us", "p99_us", "p99.9_us", "max_us"] {
            assert!(json[name].is_number(), "{name} in {json}");
        }
    }

    #[test]
    fn what_the_samples_are_too_few_for_is_left_out() {
        let named = ["p50_us", "p90_us", "p99_us", "p99.9_us", "max_us"];
        for (count, expected) in
            [(0, ""), (1, "max"), (5, "p50 max"), (99, "p50 p90 max"), (999, "p50 p90 p99 max")]
        {
            let (found, told) = (times(count), times(count).to_string());
            let json = serde_json::to_value(found).unwrap();
            let names: Vec<&str> = named.into_iter().filter(|it| !json[*it].is_null()).collect();
            assert_eq!(names.join(" ").replace("_us", ""), expected, "{json}");
            assert!(told.ends_with(&format!("of {count}")), "{told}");
            let is_told = |name: &&str| told.contains(&format!("{name} "));
            assert_eq!(
                ["p50", "p90", "p99", "p99.9", "max"].iter().filter(|it| is_told(it)).count(),
                names.len(),
                "{told}"
            );
        }
    }
}
