//! `gateway bench reconnect`: all connections are cut at once, amid messages, and all services come back.
//!
//! Each service sends to the next at a steady rate, acknowledges what it gets, and asks for RECEIPTs. The cut
//! is a reset without a close frame, as when a process that is all of them is killed and started again. What the
//! gateway surely had must arrive once, and in order; what arrives again must have the delivery number it had before.
//! What was written before the cut, behind the last message with a RECEIPT, is in doubt: the gateway may
//! never have had it.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::checker::Checks;
use super::gateway::Gateway;
use super::load::{Crew, Outcome, Pace, Plan, Shape};
use super::process::raise_descriptor_limit;
use super::progress::Progress;
use super::report::{GatewayUse, GeneratorUse, Machine, per_second, rounded, row, verdict};
use super::times::{Percentiles, Timing};
use super::traffic::{checked_rate, checked_size};
use super::{BenchError, wrong_option};
use crate::cli::BenchReconnect;

/// Sent before anything counts.
const WARM_UP: Duration = Duration::from_millis(200);

/// Figures of a return.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ReconnectReport {
    /// `reconnect`.
    pub(super) bench: &'static str,
    pub(super) services: u64,
    pub(super) size_bytes: usize,
    pub(super) rate_messages_per_s: f64,
    /// Of a gateway that was started for it, where a number was asked for.
    pub(super) workers: Option<u32>,
    /// From the cut until the last service was accepted again.
    pub(super) all_back_ms: f64,
    pub(super) reconnections_per_s: f64,
    /// From the cut until each was accepted again.
    pub(super) back: Percentiles,
    /// Came back, but not to the session they had.
    pub(super) not_resumed: u64,
    /// Of messages; the cut is in it.
    #[serde(flatten)]
    pub(super) timing: Timing,
    /// `None`: its process is not known.
    pub(super) gateway: Option<GatewayUse>,
    pub(super) generator: GeneratorUse,
    pub(super) machine: Machine,
    pub(super) checks: Checks,
    /// What the gateway said to the first message that it refused.
    pub(super) first_refusal: Option<String>,
    pub(super) passed: bool,
}

pub(super) async fn reconnect(typed: &BenchReconnect) -> Result<ReconnectReport, BenchError> {
    let services = typed.services as usize;
    if services < 2 {
        return Err(wrong_option("services", "at least 2, as each sends to the next", services));
    }
    let plan = Plan {
        shape: Shape::Ring(services),
        size: checked_size(typed.size)?,
        // The schedule alone decides: what is in doubt would fill a window for ever.
        window: u64::MAX,
        pace: Pace::Rate(checked_rate(typed.rate)?),
        ack: true,
        receipts: true,
        spin: false,
        threads: 1,
        token: typed.target.token.clone(),
    };
    raise_descriptor_limit(plan.shape.wanted(typed.target.spawn))?;
    Gateway::with(&typed.target, services, async |gateway| measure(plan, typed, gateway).await).await
}

async fn measure(
    plan: Plan,
    typed: &BenchReconnect,
    gateway: &Gateway,
) -> Result<ReconnectReport, BenchError> {
    let (services, size_bytes, threads) = (plan.shape.services() as u64, plan.size, plan.threads);
    let progress = Progress::new("reconnect");
    let rest = gateway.usage()?;
    let mut crew = Crew::start(plan, gateway.http())?;
    progress.show("connecting");
    crew.gathered().await?;
    crew.warm_up();
    progress.watch(&crew, WARM_UP).await;
    let (before, came_before) = (gateway.usage()?, crew.arrived());
    crew.measure();
    progress.watch(&crew, typed.seconds.0).await;
    crew.cut();
    crew.gathered().await?;
    progress.watch(&crew, typed.seconds.0).await;
    let (after, came) = (gateway.usage(), crew.arrived());
    let outcome = crew.end().await?;
    let after = after?;
    let timing = Timing::of(&outcome, Some(typed.rate));
    let Outcome { checks, back, not_resumed, refusal, .. } = outcome;
    let (all_back, messages) = (Duration::from_nanos(back.max()), came - came_before);
    Ok(ReconnectReport {
        bench: "reconnect",
        services,
        size_bytes,
        rate_messages_per_s: typed.rate,
        workers: gateway.workers(),
        all_back_ms: rounded(all_back.as_secs_f64() * 1e3),
        reconnections_per_s: per_second(services, all_back),
        back: Percentiles::of(&back),
        not_resumed,
        gateway: GatewayUse::between(&rest, &before, &after, messages),
        generator: GeneratorUse::between(&before, &after, messages, threads, false),
        machine: Machine::between(&before, &after),
        passed: checks.passed() && not_resumed == 0 && !timing.is_empty(),
        timing,
        checks,
        first_refusal: refusal,
    })
}

impl fmt::Display for ReconnectReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { services, size_bytes, all_back_ms, not_resumed, .. } = self;
        row(formatter, "reconnect", &format_args!("{services} services, messages of {size_bytes} bytes"))?;
        self.timing.rate_row(formatter)?;
        let rate = self.reconnections_per_s;
        row(
            formatter,
            "all back",
            &format_args!("{all_back_ms:.1} ms after the cut, {rate:.0} for each second"),
        )?;
        row(formatter, "each back µs", &self.back)?;
        row(formatter, "resumed", &format_args!("{} of {services}", services - not_resumed))?;
        self.timing.rows(formatter)?;
        if let Some(gateway) = &self.gateway {
            row(formatter, "gateway", gateway)?;
        }
        row(formatter, "generator", &self.generator)?;
        row(formatter, "machine", &self.machine)?;
        if let Some(refusal) = &self.first_refusal {
            row(formatter, "refused", refusal)?;
        }
        verdict(formatter, &self.checks, self.timing.is_empty())
    }
}
