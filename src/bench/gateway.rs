//! The gateway that is measured: one that runs, or one that is started for it.

use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use super::BenchError;
use super::http::Http;
use super::process::{CpuClock, ignores_hangup, machine_cpu, resident_kib};
use super::spawned::Spawned;
use crate::cli::Target;

/// Room for more connections than a bench needs.
const SPARE_CONNECTIONS: usize = 1_000;

pub(super) struct Gateway {
    http: Http,
    process: Option<(u32, CpuClock)>,
    workers: Option<u32>,
}

/// What the processes have used up to one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    pub(super) at: Instant,
    /// Of the gateway, where its process is known: CPU time, and resident memory in KiB.
    pub(super) gateway: Option<(Duration, u64)>,
    /// CPU time of this process.
    pub(super) own_cpu: Duration,
    /// CPU time of all processes of the machine.
    pub(super) machine_cpu: Duration,
}

/// Resolves at SIGINT, SIGTERM, SIGQUIT and SIGHUP: at whatever a terminal or a supervisor ends processes with.
pub(super) async fn asked_to_stop() {
    let mut kinds = vec![SignalKind::interrupt(), SignalKind::terminate(), SignalKind::quit()];
    // Under nohup it goes on.
    if !ignores_hangup() {
        kinds.push(SignalKind::hangup());
    }
    let Ok(mut signals) = kinds.into_iter().map(signal).collect::<Result<Vec<_>, _>>() else {
        return std::future::pending().await;
    };
    std::future::poll_fn(|context| {
        let has_come = signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
        if has_come { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

impl Gateway {
    /// Runs something on the gateway that was asked for; with room for so many services, where it is started
    /// for that.
    pub(super) async fn with<R>(
        target: &Target,
        services: usize,
        run: impl AsyncFnOnce(&Self) -> Result<R, BenchError>,
    ) -> Result<R, BenchError> {
        if !target.spawn {
            let gateway = Self::new(&target.url, target.pid, None)?;
            return run(&gateway).await;
        }
        let connections = (services + SPARE_CONNECTIONS).max(10_000).to_string();
        let sessions = (2 * (services + SPARE_CONNECTIONS)).max(20_000).to_string();
        let mut flags = vec!["--data-dir", "none", "--shards", "1"];
        flags.extend(["--max-connections", &connections, "--max-sessions", &sessions]);
        let workers = target.workers.map(|workers| workers.to_string());
        if let Some(workers) = &workers {
            flags.extend(["--workers", workers]);
        }
        // Whoever ends the bench ends that gateway too, at any time.
        let asked = asked_to_stop();
        tokio::pin!(asked);
        let spawned = tokio::select! {
            biased;
            () = &mut asked => return Err(BenchError::Interrupted),
            started = Spawned::start(&flags) => started?,
        };
        let gateway = Self::new(&spawned.url(), Some(spawned.pid()), target.workers)?;
        let ran = tokio::select! {
            biased;
            () = &mut asked => Err(BenchError::Interrupted),
            ran = run(&gateway) => ran,
        };
        let log = spawned.log();
        match ran {
            Ok(report) => spawned.stop().await.map(|()| report),
            // That is none of the gateway's doing.
            Err(error @ (BenchError::Interrupted | BenchError::Option { .. })) => {
                spawned.stop().await.and(Err(error))
            }
            Err(error) => Err(BenchError::Broken { error: error.into(), log }),
        }
    }

    fn new(url: &str, pid: Option<u32>, workers: Option<u32>) -> Result<Self, BenchError> {
        let process = pid.map(|pid| Ok::<_, BenchError>((pid, CpuClock::of(pid)?))).transpose()?;
        Ok(Self { http: Http::beside(url)?, process, workers })
    }

    /// Where it is reached.
    pub(super) fn http(&self) -> &Http {
        &self.http
    }

    /// How many workers it was started with.
    pub(super) fn workers(&self) -> Option<u32> {
        self.workers
    }

    pub(super) fn usage(&self) -> Result<Usage, BenchError> {
        let of = |(pid, clock): (u32, CpuClock)| Ok::<_, BenchError>((clock.read()?, resident_kib(pid)?));
        Ok(Usage {
            at: Instant::now(),
            gateway: self.process.map(of).transpose()?,
            own_cpu: CpuClock::of(std::process::id())?.read()?,
            machine_cpu: machine_cpu().map_err(|reason| BenchError::Machine { reason })?,
        })
    }
}
