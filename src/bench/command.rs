//! `gateway bench` as it is typed: runs it, prints what it found, and says so by the exit code.

use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::{
    BenchError, PairsOptions, PairsReport, SoakOptions, SoakReport, Subject, pairs, soak, wrong_option,
};
use crate::cli::{Bench, BenchPairs, BenchSoak};

/// The longest soak, in minutes: a year.
const MAX_MINUTES: f64 = 525_600.0;

/// Exit code 0: everything passed. 1: something did not, or could not be run.
pub fn run(typed: Bench) -> ExitCode {
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    match typed {
        Bench::Pairs(typed) => {
            let report = runtime.block_on(pairs(pairs_options(typed)));
            shown(report, PairsReport::passed)
        }
        Bench::Soak(typed) => {
            let report = runtime.block_on(soaked(typed));
            shown(report, SoakReport::passed)
        }
    }
}

async fn soaked(typed: BenchSoak) -> Result<SoakReport, BenchError> {
    soak(soak_options(typed)?, |line| println!("{line}")).await
}

fn shown<R: Display>(report: Result<R, BenchError>, passed: impl Fn(&R) -> bool) -> ExitCode {
    match report {
        Ok(report) => {
            println!("{report}");
            if passed(&report) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn Display) -> ExitCode {
    eprintln!("gateway: {error}");
    ExitCode::FAILURE
}

fn pairs_options(typed: BenchPairs) -> PairsOptions {
    let BenchPairs { url, pairs, size, seconds, window, pid } = typed;
    PairsOptions {
        url,
        pairs: pairs as usize,
        size,
        seconds: Duration::from_secs(seconds).as_secs_f64(),
        window: window.into(),
        pid,
    }
}

fn soak_options(typed: BenchSoak) -> Result<SoakOptions, BenchError> {
    let BenchSoak { url, pid, spawn: _, services, minutes, interval, rate, seed } = typed;
    if !(0.0..=MAX_MINUTES).contains(&minutes) {
        return Err(wrong_option("minutes", format!("from 0 to {MAX_MINUTES}"), minutes));
    }
    Ok(SoakOptions {
        gateway: pid.map_or(Subject::Spawned, |pid| Subject::Running { url, pid }),
        services,
        duration: Duration::from_secs_f64(minutes * 60.0),
        interval: Duration::from_secs(interval),
        rate,
        seed: seed.unwrap_or_else(|| fastrand::Rng::new().u64(..)),
    })
}
