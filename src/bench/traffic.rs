//! `gateway bench pairs`, `fan-in` and `latency`: messages from some services to others, as fast as they go or
//! at a fixed rate.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::checker::Checks;
use super::gateway::Gateway;
use super::load::{Crew, Outcome, Pace, Plan, Shape};
use super::pattern::Pattern;
use super::process::raise_descriptor_limit;
use super::progress::Progress;
use super::report::{GatewayUse, GeneratorUse, Machine, as_f64, per_second, rounded, row, verdict};
use super::times::Timing;
use super::{BenchError, wrong_option};
use crate::cli::{BenchFanIn, BenchLatency, BenchPairs, Load, Target};

/// Sent before it is measured: buffers grow, caches fill, and connections find their pace.
const WARM_UP: Duration = Duration::from_millis(500);
/// In flight to the one receiver of `fan-in`, where no window is asked for: half of the default
/// `mailbox_messages`.
const FAN_IN_FLIGHT: u32 = 32_768;
/// In flight of each sender of `fan-in` at most, where no window is asked for.
const MAX_WINDOW: u32 = 1024;
/// The slowest schedule: one message in 100 s. With less, nothing would be measured.
const MIN_RATE: f64 = 0.01;
/// The fastest schedule: more than one thread can look at.
const MAX_RATE: f64 = 1e7;
/// The largest `max_message_bytes` that a gateway takes: nothing larger gets through any of them.
const MAX_SIZE: i64 = 268_435_456;

/// Figures of messages that were sent and arrived.
#[derive(Debug, Clone, Serialize)]
pub(super) struct TrafficReport {
    /// `pairs`, `fan-in` or `latency`.
    pub(super) bench: &'static str,
    /// Services that sent.
    pub(super) senders: usize,
    pub(super) size_bytes: usize,
    /// Of each sender.
    pub(super) window_messages: u64,
    /// What was asked for; `None`: as fast as the window let.
    pub(super) rate_messages_per_s: Option<f64>,
    pub(super) ack: bool,
    /// Of a gateway that was started for it, where a number was asked for.
    pub(super) workers: Option<u32>,
    /// The measured time.
    pub(super) seconds: f64,
    /// Messages that arrived in it.
    pub(super) messages: u64,
    pub(super) messages_per_s: f64,
    /// Of `d`, in 10⁶ bytes.
    pub(super) data_mb_per_s: f64,
    /// `None`: its process is not known.
    pub(super) gateway: Option<GatewayUse>,
    pub(super) generator: GeneratorUse,
    pub(super) machine: Machine,
    #[serde(flatten)]
    pub(super) timing: Timing,
    /// Of all messages, those of the warm-up included.
    pub(super) checks: Checks,
    /// What the gateway said to the first message that it refused.
    pub(super) first_refusal: Option<String>,
    pub(super) passed: bool,
}

/// What is asked for.
pub(super) struct Wish {
    pub(super) bench: &'static str,
    pub(super) plan: Plan,
    pub(super) length: Duration,
}

impl Wish {
    pub(super) fn pairs(typed: &BenchPairs) -> Result<Self, BenchError> {
        let BenchPairs { pairs, window, rate, ack, load, target } = typed;
        Self::of("pairs", Shape::Pairs(*pairs as usize), load, target, *window, *rate, *ack)
    }

    pub(super) fn fan_in(typed: &BenchFanIn) -> Result<Self, BenchError> {
        let BenchFanIn { services, window, rate, ack, load, target } = typed;
        let window = window.unwrap_or_else(|| fan_in_window(*services));
        Self::of("fan-in", Shape::FanIn(*services as usize), load, target, window, *rate, *ack)
    }

    pub(super) fn latency(typed: &BenchLatency) -> Result<Self, BenchError> {
        let BenchLatency { rate, pairs, window, ack, load, target } = typed;
        Self::of("latency", Shape::Pairs(*pairs as usize), load, target, *window, Some(*rate), *ack)
    }

    fn of(
        bench: &'static str,
        shape: Shape,
        load: &Load,
        target: &Target,
        window: u32,
        rate: Option<f64>,
        ack: bool,
    ) -> Result<Self, BenchError> {
        let plan = Plan {
            shape,
            size: checked_size(load.size)?,
            window: window.into(),
            pace: rate.map_or(Ok(Pace::Window), |rate| checked_rate(rate).map(Pace::Rate))?,
            ack,
            receipts: false,
            spin: load.spin,
            threads: load.threads as usize,
            token: target.token.clone(),
        };
        Ok(Self { bench, plan, length: load.seconds.0 })
    }
}

/// Of each sender: its share of what one mailbox of default size has room for, twice over.
fn fan_in_window(services: u32) -> u32 {
    (FAN_IN_FLIGHT / services.max(1)).clamp(1, MAX_WINDOW)
}

pub(super) fn checked_size(typed: i64) -> Result<usize, BenchError> {
    let least = Pattern::least_bytes();
    let size = usize::try_from(typed).ok().filter(|size| *size >= least && typed <= MAX_SIZE);
    size.ok_or_else(|| wrong_option("size", format!("from {least} to {MAX_SIZE}"), typed))
}

pub(super) fn checked_rate(rate: f64) -> Result<f64, BenchError> {
    if (MIN_RATE..=MAX_RATE).contains(&rate) {
        return Ok(rate);
    }
    Err(wrong_option("rate", format!("from {MIN_RATE} to {MAX_RATE}"), rate))
}

/// Runs it. An `Ok` still has to be asked whether it `passed`.
pub(super) async fn traffic(wish: Wish, target: &Target) -> Result<TrafficReport, BenchError> {
    let services = wish.plan.shape.services();
    raise_descriptor_limit(wish.plan.shape.wanted(target.spawn))?;
    Gateway::with(target, services, async |gateway| measure(wish, gateway).await).await
}

async fn measure(wish: Wish, gateway: &Gateway) -> Result<TrafficReport, BenchError> {
    let Wish { bench, plan, length } = wish;
    let progress = Progress::new(bench);
    let rest = gateway.usage()?;
    let mut crew = Crew::start(plan.clone(), gateway.http())?;
    progress.show("connecting");
    crew.gathered().await?;
    crew.warm_up();
    progress.watch(&crew, WARM_UP).await;
    let (before, came_before) = (gateway.usage(), crew.arrived());
    crew.measure();
    progress.watch(&crew, length).await;
    let (after, came) = (gateway.usage(), crew.arrived());
    // First what the load says of an end: that the gateway's process is gone as well explains less.
    let outcome = crew.end().await?;
    drop(progress);
    let (before, after, messages) = (before?, after?, came - came_before);
    let Plan { shape, size, window, pace, ack, spin, threads, .. } = plan;
    let messages_per_s = per_second(messages, after.at - before.at);
    let rate = if let Pace::Rate(rate) = pace { Some(rate) } else { None };
    let timing = Timing::of(&outcome, rate);
    let Outcome { checks, refusal, .. } = outcome;
    let asked = threads;
    let threads = shape.threads(asked);
    let can_grow = shape.threads(asked + 1) > threads;
    Ok(TrafficReport {
        bench,
        senders: shape.senders(),
        size_bytes: size,
        window_messages: window,
        rate_messages_per_s: rate,
        ack,
        workers: gateway.workers(),
        seconds: rounded((after.at - before.at).as_secs_f64()),
        messages,
        messages_per_s,
        data_mb_per_s: rounded(messages_per_s * as_f64(size as u64) / 1e6),
        gateway: GatewayUse::between(&rest, &before, &after, messages),
        generator: GeneratorUse {
            can_grow,
            ..GeneratorUse::between(&before, &after, messages, threads, spin)
        },
        machine: Machine::between(&before, &after),
        passed: checks.passed() && messages > 0 && !timing.is_empty(),
        timing,
        checks,
        first_refusal: refusal,
    })
}

impl fmt::Display for TrafficReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { senders, size_bytes, window_messages, seconds, messages, checks, .. } = self;
        let acknowledged = if self.ack { ", acknowledged" } else { "" };
        let load =
            format!("{senders} senders, {window_messages} messages of {size_bytes} bytes in flight for each");
        row(formatter, self.bench, &format_args!("{load}{acknowledged}"))?;
        self.timing.rate_row(formatter)?;
        let rate = format_args!("{:.0}  ({messages} in {seconds:.2} s)", self.messages_per_s);
        row(formatter, "messages/s", &rate)?;
        row(formatter, "MB/s", &format_args!("{:.1}  (of data)", self.data_mb_per_s))?;
        self.timing.rows(formatter)?;
        if let Some(gateway) = &self.gateway {
            row(formatter, "gateway", gateway)?;
        }
        row(formatter, "generator", &self.generator)?;
        row(formatter, "machine", &self.machine)?;
        if let Some(refusal) = &self.first_refusal {
            row(formatter, "refused", refusal)?;
        }
        verdict(formatter, checks, *messages == 0 || self.timing.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{Config, Sources};

    #[test]
    fn what_is_in_flight_to_one_fits_into_its_mailbox() {
        assert_eq!([1, 8, 32, 100, 32_768, 100_000].map(fan_in_window), [1024, 1024, 1024, 327, 1, 1]);
        let mailbox = Config::default().mailbox_messages;
        assert!(u64::from(FAN_IN_FLIGHT) * 2 <= mailbox);
    }

    #[test]
    fn the_largest_size_is_that_of_the_largest_message_that_a_gateway_can_be_told_to_take() {
        let is_taken = |bytes: i64| {
            let [message, mailbox] = ["GATEWAY_MAX_MESSAGE_BYTES", "GATEWAY_MAILBOX_BYTES"];
            let variables = [(message, bytes), (mailbox, MAX_SIZE + 1)];
            let sources = Sources {
                flags: BTreeMap::from([("data_dir", "none".to_owned())]),
                file: None,
                variables: variables.map(|(name, value)| (name.to_owned(), value.to_string())).to_vec(),
                read_file: &|_| Err(std::io::ErrorKind::NotFound.into()),
            };
            Config::load(sources).is_ok()
        };
        assert!(is_taken(MAX_SIZE) && !is_taken(MAX_SIZE + 1));
    }

    #[test]
    fn a_size_or_a_rate_out_of_range_is_named() {
        let least = i64::try_from(Pattern::least_bytes()).unwrap();
        for size in [-1, least - 1, MAX_SIZE + 1] {
            let error = checked_size(size).unwrap_err().to_string();
            assert_eq!(error, format!("--size must be from {least} to {MAX_SIZE}, not {size}"));
        }
        assert!(checked_size(least).is_ok() && checked_size(MAX_SIZE).is_ok());
        for rate in [0.0, 1e-11, -1.0, f64::NAN, 1e10] {
            let error = checked_rate(rate).unwrap_err().to_string();
            assert!(error.starts_with("--rate must be from 0.01 to 10000000, not "), "{error}");
        }
        assert!(checked_rate(MIN_RATE).is_ok() && checked_rate(MAX_RATE).is_ok());
    }
}
