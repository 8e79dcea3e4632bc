//! `gateway bench idle`: services that connect, and then do nothing but answer pings.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::BenchError;
use super::gateway::Gateway;
use super::load::{Crew, Outcome, Pace, Plan, Shape};
use super::process::raise_descriptor_limit;
use super::progress::Progress;
use super::report::{Machine, micros_each, per_second, percent, rounded, row};
use crate::cli::BenchIdle;

/// Figures of connections.
#[derive(Debug, Clone, Serialize)]
pub(super) struct IdleReport {
    /// `idle`.
    pub(super) bench: &'static str,
    pub(super) connections: u64,
    /// Of a gateway that was started for it, where a number was asked for.
    pub(super) workers: Option<u32>,
    /// From the first connection until the last service was accepted.
    pub(super) connect_seconds: f64,
    pub(super) connections_per_s: f64,
    /// CPU time of this process for each connection, handshake and IDENTIFY included.
    pub(super) generator_cpu_us_per_connection: Option<f64>,
    /// How long they stayed.
    pub(super) idle_seconds: f64,
    /// `None`: its process is not known.
    pub(super) gateway: Option<IdleGateway>,
    /// While they connected.
    pub(super) machine: Machine,
    /// Connections that did not answer a ping at the end.
    pub(super) unanswered: u64,
    /// Of the others, those that the gateway did not end when their services left.
    pub(super) not_ended: u64,
    pub(super) passed: bool,
}

/// What the gateway used for them.
#[derive(Debug, Clone, Serialize)]
pub(super) struct IdleGateway {
    /// Before the services came.
    pub(super) resident_before_kib: u64,
    /// After they had been there for a while.
    pub(super) resident_kib: u64,
    /// The difference, for each connection; the kernel's own memory is not in it.
    pub(super) resident_bytes_per_connection: i64,
    /// While they connected.
    pub(super) cpu_us_per_connection: Option<f64>,
    /// While they were idle, of one core.
    pub(super) idle_cpu_percent: f64,
}

pub(super) async fn idle(typed: &BenchIdle) -> Result<IdleReport, BenchError> {
    let connections = typed.connections as usize;
    let plan = Plan {
        shape: Shape::Idle(connections),
        size: 0,
        window: 1,
        pace: Pace::Window,
        ack: false,
        receipts: false,
        spin: false,
        threads: typed.threads as usize,
        token: typed.target.token.clone(),
    };
    raise_descriptor_limit(plan.shape.wanted(typed.target.spawn))?;
    Gateway::with(&typed.target, connections, async |gateway| measure(plan, typed.seconds.0, gateway).await)
        .await
}

async fn measure(plan: Plan, length: Duration, gateway: &Gateway) -> Result<IdleReport, BenchError> {
    let connections = plan.shape.services() as u64;
    let progress = Progress::new("idle");
    let rest = gateway.usage()?;
    let mut crew = Crew::start(plan, gateway.http())?;
    progress.show("connecting");
    crew.gathered().await?;
    let there = gateway.usage()?;
    progress.show("idle");
    progress.watch(&crew, length).await;
    let after = gateway.usage();
    let Outcome { gathered, unanswered, not_ended, .. } = crew.end().await?;
    let after = after?;
    let used = |(before, rest_kib): (Duration, u64)| {
        let ((there_cpu, _), (after_cpu, resident_kib)) = (there.gateway?, after.gateway?);
        let grown = i64::try_from(resident_kib).ok()?.checked_sub_unsigned(rest_kib)? * 1024;
        Some(IdleGateway {
            resident_before_kib: rest_kib,
            resident_kib,
            resident_bytes_per_connection: grown / i64::try_from(connections).ok()?,
            cpu_us_per_connection: micros_each(there_cpu.saturating_sub(before), connections),
            idle_cpu_percent: percent(after_cpu.saturating_sub(there_cpu), after.at - there.at),
        })
    };
    Ok(IdleReport {
        bench: "idle",
        connections,
        workers: gateway.workers(),
        connect_seconds: rounded(gathered.as_secs_f64()),
        connections_per_s: per_second(connections, gathered),
        generator_cpu_us_per_connection: micros_each(there.own_cpu.saturating_sub(rest.own_cpu), connections),
        idle_seconds: rounded((after.at - there.at).as_secs_f64()),
        gateway: rest.gateway.and_then(used),
        machine: Machine::between(&rest, &there),
        unanswered,
        not_ended,
        // A connection that ends before breaks the run off, with its name.
        passed: unanswered + not_ended == 0,
    })
}

impl fmt::Display for IdleReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, connect_seconds, connections_per_s, idle_seconds, .. } = self;
        row(formatter, "connections", &format_args!("{connections}, idle for {idle_seconds:.1} s"))?;
        row(
            formatter,
            "connects/s",
            &format_args!("{connections_per_s:.0}  (all in {connect_seconds:.2} s)"),
        )?;
        if let Some(gateway) = &self.gateway {
            let IdleGateway { resident_before_kib, resident_kib, idle_cpu_percent, .. } = gateway;
            let bytes = gateway.resident_bytes_per_connection;
            let memory = format_args!(
                "{bytes} bytes resident for each ({resident_before_kib} KiB before, {resident_kib} KiB then)"
            );
            row(formatter, "memory", &memory)?;
            let connecting = gateway.cpu_us_per_connection.unwrap_or_default();
            let cpu = format_args!(
                "{connecting:.1} µs of CPU for each to connect, {idle_cpu_percent:.1} % of a core when idle"
            );
            row(formatter, "gateway", &cpu)?;
        }
        let own = self.generator_cpu_us_per_connection.unwrap_or_default();
        row(formatter, "generator", &format_args!("{own:.1} µs of CPU for each to connect"))?;
        row(formatter, "machine", &self.machine)?;
        let Self { unanswered, not_ended, .. } = self;
        let verdict = if self.passed { "ok" } else { "FAILED" };
        write!(
            formatter,
            "{:<13}{verdict}: {unanswered} did not answer a ping at the end, {not_ended} were not ended when they left",
            "checks"
        )
    }
}
