//! `gateway bench` as it is typed: runs it, prints what it found, and says so by the exit code.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use tokio::runtime::Runtime;

use super::idle::idle;
use super::plot::plot;
use super::reconnect::reconnect;
use super::scaling::scaling;
use super::spawned::become_gateway;
use super::traffic::{Wish, traffic};
use super::{BenchError, SoakOptions, SoakReport, Subject, soak, wrong_option};
use crate::cli::{Bench, BenchSoak, Target};
use crate::client::Secret;

/// The longest soak, in minutes: a year.
const MAX_MINUTES: f64 = 525_600.0;

/// Exit code of a flag that cannot be, as of those that are not understood.
const USAGE: u8 = 2;

/// Exit code 0: everything passed. 1: something did not, or could not be run. 2: a flag is wrong.
pub fn run(typed: Bench) -> ExitCode {
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error, ExitCode::FAILURE),
    };
    let passed = runtime.block_on(passed(typed));
    // A thread of a load that broke may still wait for a socket.
    runtime.shutdown_background();
    match passed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error @ BenchError::Option { .. }) => failed(&error, ExitCode::from(USAGE)),
        Err(error) => failed(&error, ExitCode::FAILURE),
    }
}

/// Runs it, prints the report, and tells whether all was well.
async fn passed(typed: Bench) -> Result<bool, BenchError> {
    match typed {
        Bench::Pairs(typed) => sent(Wish::pairs(&typed)?, &typed.target, typed.load.json).await,
        Bench::FanIn(typed) => sent(Wish::fan_in(&typed)?, &typed.target, typed.load.json).await,
        Bench::Latency(typed) => sent(Wish::latency(&typed)?, &typed.target, typed.load.json).await,
        Bench::Idle(typed) => {
            let report = idle(&typed).await?;
            print(&report, typed.json)?;
            Ok(report.passed)
        }
        Bench::Reconnect(typed) => {
            let report = reconnect(&typed).await?;
            print(&report, typed.json)?;
            Ok(report.passed)
        }
        Bench::Scaling(typed) => {
            let (report, broken) = scaling(&typed).await?;
            print_line(&json(&report))?;
            broken.map_or(Ok(report.passed), Err)
        }
        Bench::Plot(typed) => plot(&typed).map(|()| true),
        Bench::Gateway(typed) => Err(become_gateway(&typed)),
        Bench::Soak(typed) => {
            let is_json = typed.json;
            let report = soaked(typed).await?;
            if is_json {
                print_line(&json(&report.to_json()))?;
            } else {
                print_line(&report)?;
            }
            Ok(report.passed())
        }
    }
}

async fn sent(wish: Wish, target: &Target, is_json: bool) -> Result<bool, BenchError> {
    let report = traffic(wish, target).await?;
    print(&report, is_json)?;
    Ok(report.passed)
}

fn print(report: &(impl Display + Serialize), is_json: bool) -> Result<(), BenchError> {
    if is_json { print_line(&json(report)) } else { print_line(report) }
}

/// Whoever reads stdout may be gone, or its disk full.
fn print_line(line: &dyn Display) -> Result<(), BenchError> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(BenchError::Stdout)
}

/// Says something beside the report. Where stderr is gone too there is nobody to tell.
pub(super) fn tell(line: &dyn Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn json(report: &impl Serialize) -> String {
    serde_json::to_string_pretty(report).expect("figures and text")
}

async fn soaked(typed: BenchSoak) -> Result<SoakReport, BenchError> {
    let is_json = typed.json;
    // What is told meanwhile is no part of the object.
    let told = |line: &str| {
        if !is_json {
            return print_line(&line);
        }
        tell(&line);
        Ok(())
    };
    soak(soak_options(typed)?, told).await
}

fn failed(error: &dyn Display, code: ExitCode) -> ExitCode {
    tell(&format_args!("gateway: {error}"));
    code
}

fn soak_options(typed: BenchSoak) -> Result<SoakOptions, BenchError> {
    let BenchSoak { url, pid, spawn: _, workers, token, services, minutes, interval, rate, seed, json: _ } =
        typed;
    if !(0.0..=MAX_MINUTES).contains(&minutes) {
        return Err(wrong_option("minutes", format!("from 0 to {MAX_MINUTES}"), minutes));
    }
    Ok(SoakOptions {
        gateway: pid.map_or(Subject::Spawned { workers }, |pid| Subject::Running { url, pid }),
        token: token.map(Secret),
        services,
        duration: Duration::from_secs_f64(minutes * 60.0),
        interval: Duration::from_secs(interval),
        rate,
        seed: seed.unwrap_or_else(|| fastrand::Rng::new().u64(..)),
    })
}
