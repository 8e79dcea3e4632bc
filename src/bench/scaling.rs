//! `gateway bench scaling`: `pairs` with more and more services, and gateways with one worker and with two.
//!
//! Rounds go over all cases before one is measured again, each on a gateway that is started for it: a
//! machine that grows slow for a minute spoils one round of many cases, and not all rounds of one. The median
//! counts. At most 32,768 messages are in flight, however many pairs there are: up to 32 pairs
//! have 1,024 each, 512 pairs 64 and 4,096 pairs 8.
//!
//! It takes minutes: what is measured when a case fails, or when it is interrupted, is told all the same.

use serde::{Deserialize, Serialize};

use super::BenchError;
use super::command::tell;
use super::load::{Pace, Plan, Shape};
use super::progress::Progress;
use super::report::cores;
use super::traffic::{TrafficReport, Wish, checked_size, traffic};
use crate::cli::{BenchScaling, Target};

/// Messages in flight in all pairs together, at most: few enough to come round many times while it is measured.
const IN_FLIGHT: u64 = 32_768;
/// In flight in one pair, at most.
const MAX_WINDOW: u64 = 1024;

/// All cases, measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ScalingReport {
    /// `scaling`.
    pub(super) bench: String,
    pub(super) size_bytes: usize,
    /// Of each measurement.
    pub(super) seconds: f64,
    pub(super) rounds: u32,
    /// Cores of the machine, which the gateway and the load share.
    pub(super) cores: usize,
    pub(super) generator_threads: u32,
    /// By workers, then by pairs.
    pub(super) points: Vec<Point>,
    /// Whether each case was measured in each round. Otherwise something failed, or it was interrupted.
    #[serde(default = "whole")]
    pub(super) is_whole: bool,
    pub(super) passed: bool,
}

/// One case. Medians over its rounds, each with the lowest and the highest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Point {
    pub(super) workers: u32,
    pub(super) pairs: u32,
    /// Two for each pair.
    pub(super) services: u32,
    /// In flight in each pair.
    pub(super) window_messages: u64,
    pub(super) messages_per_s: Spread,
    /// Of the gateway, for each message.
    pub(super) gateway_cpu_us_per_message: Spread,
    /// Of the gateway, of one core.
    pub(super) gateway_cpu_percent: Spread,
    pub(super) generator_cpu_us_per_message: Spread,
    /// Of one core, by processes other than the gateway and the load.
    pub(super) others_cpu_percent: Spread,
    /// Rounds that were measured.
    #[serde(default)]
    pub(super) rounds_measured: u32,
    /// Rounds in which the load had no time left.
    pub(super) rounds_limited_by_generator: u32,
    /// Rounds in which gateway, load and others had next to no core left.
    #[serde(default)]
    pub(super) rounds_without_free_core: u32,
}

/// What was written before it was told was always whole.
fn whole() -> bool {
    true
}

/// A figure over some rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Spread {
    /// In another unit.
    pub(super) fn scaled(self, factor: f64) -> Self {
        let Self { median, min, max } = self;
        Self { median: median * factor, min: min * factor, max: max * factor }
    }

    /// Of at least one figure.
    fn of(mut figures: Vec<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        let (low, high) = (figures[(figures.len() - 1) / 2], figures[figures.len() / 2]);
        Self { median: f64::midpoint(low, high), min: figures[0], max: figures[figures.len() - 1] }
    }
}

/// One case, and its rounds so far.
struct Case {
    workers: u32,
    pairs: u32,
    rounds: Vec<TrafficReport>,
}

/// Measures all cases, as far as that goes. The report still has to be asked whether it `passed`, and why it is not
/// whole stands beside it.
pub(super) async fn scaling(typed: &BenchScaling) -> Result<(ScalingReport, Option<BenchError>), BenchError> {
    let size = checked_size(typed.size)?;
    let case = |workers: &u32, pairs: &u32| Case { workers: *workers, pairs: *pairs, rounds: Vec::new() };
    let mut cases: Vec<Case> =
        typed.workers.iter().flat_map(|workers| typed.pairs.iter().map(|it| case(workers, it))).collect();
    let broken = measure(typed, size, &mut cases).await.err();
    let is_whole = broken.is_none();
    let report = ScalingReport {
        bench: "scaling".to_owned(),
        size_bytes: size,
        seconds: typed.seconds.0.as_secs_f64(),
        rounds: typed.rounds,
        cores: cores(),
        generator_threads: typed.threads,
        points: cases.iter().filter(|case| !case.rounds.is_empty()).map(point).collect(),
        is_whole,
        passed: is_whole && cases.iter().flat_map(|case| &case.rounds).all(|report| report.passed),
    };
    // Without a point there is only the error to tell.
    match broken {
        Some(error) if report.points.is_empty() => Err(error),
        broken => Ok((report, broken)),
    }
}

async fn measure(typed: &BenchScaling, size: usize, cases: &mut [Case]) -> Result<(), BenchError> {
    for round in 1..=typed.rounds {
        for Case { workers, pairs, rounds } in &mut *cases {
            let progress = Progress::new("scaling");
            progress.tell(&format!("round {round} of {}: {pairs} pairs, {workers} workers", typed.rounds));
            let report = traffic(wish(typed, size, *pairs), &spawned(*workers)).await?;
            drop(progress);
            if !report.passed {
                tell(&format_args!(
                    "gateway: {pairs} pairs, {workers} workers, round {round} did not pass:\n{report}"
                ));
            }
            rounds.push(report);
        }
    }
    Ok(())
}

fn wish(typed: &BenchScaling, size: usize, pairs: u32) -> Wish {
    let plan = Plan {
        shape: Shape::Pairs(pairs as usize),
        size,
        window: window(pairs),
        pace: Pace::Window,
        ack: false,
        receipts: false,
        spin: false,
        threads: typed.threads as usize,
        token: None,
    };
    Wish { bench: "scaling", plan, length: typed.seconds.0 }
}

fn window(pairs: u32) -> u64 {
    (IN_FLIGHT / u64::from(pairs)).clamp(1, MAX_WINDOW)
}

fn spawned(workers: u32) -> Target {
    Target { url: String::new(), pid: None, spawn: true, workers: Some(workers), token: None }
}

fn point(case: &Case) -> Point {
    let Case { workers, pairs, rounds: reports } = case;
    let (workers, pairs) = (*workers, *pairs);
    let spread = |figure: &dyn Fn(&TrafficReport) -> f64| Spread::of(reports.iter().map(figure).collect());
    let gateway = |figure: fn(&super::report::GatewayUse) -> f64| {
        spread(&move |report: &TrafficReport| report.gateway.as_ref().map_or(0.0, figure))
    };
    let count = |is_so: fn(&&TrafficReport) -> bool| {
        u32::try_from(reports.iter().filter(is_so).count()).unwrap_or(u32::MAX)
    };
    Point {
        workers,
        pairs,
        services: 2 * pairs,
        window_messages: window(pairs),
        messages_per_s: spread(&|report| report.messages_per_s),
        gateway_cpu_us_per_message: gateway(|used| used.cpu_us_per_message.unwrap_or_default()),
        gateway_cpu_percent: gateway(|used| used.cpu_percent),
        generator_cpu_us_per_message: spread(&|report| {
            report.generator.cpu_us_per_message.unwrap_or_default()
        }),
        others_cpu_percent: spread(&|report| report.machine.others_cpu_percent.unwrap_or_default()),
        rounds_measured: count(|_| true),
        rounds_limited_by_generator: count(|report| report.generator.is_limit),
        rounds_without_free_core: count(|report| report.machine.no_core_free),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_stands_between_its_ends() {
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of(vec![4.0, 1.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of(vec![7.0]), Spread { median: 7.0, min: 7.0, max: 7.0 });
    }

    #[test]
    fn no_more_is_in_flight_the_more_pairs_there_are() {
        assert_eq!([1, 8, 32, 64, 512, 4096].map(window), [1024, 1024, 1024, 512, 64, 8]);
        assert_eq!(window(1_000_000), 1);
    }
}
