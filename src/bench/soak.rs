//! `gateway bench soak`: hundreds of services live a long life in fast motion, and a line tells
//! every few seconds how the gateway is.
//!
//! | module | what it is |
//! |---|---|
//! | [`options`] | what is typed |
//! | [`cast`] | who plays what, and who sends to whom |
//! | [`service`] | a service's life: it comes, loses its connection, leaves, comes back |
//! | [`reader`], [`writer`], [`desk`] | the two halves of its connection |
//! | [`strangers`] | connections that are no services |
//! | [`message`], [`arrivals`], [`outstanding`], [`leases`] | the checks: content, order, that each message ends once, shard ids |
//! | [`world`], [`faults`] | what all share, and what was wrong |
//! | [`sample`], [`report`], [`json`] | a line, and the end |
//!
//! What is strict: between services that stay connected nothing may be missing, and neither may
//! anything that an acknowledging service was sent. What is not: where a connection ends, the
//! protocol lets messages be lost with it; those are [excused](outstanding).

mod arrivals;
mod cast;
mod desk;
mod faults;
mod json;
mod leases;
mod message;
mod options;
mod outstanding;
mod reader;
mod report;
mod sample;
mod service;
mod strangers;
mod world;
mod writer;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use self::cast::Cast;
use self::faults::Fault;
pub use self::options::{SoakOptions, Subject};
pub use self::report::SoakReport;
pub use self::sample::Sample;
use self::world::{Stage, World};
use super::BenchError;
use super::gateway::asked_to_stop;
use super::http::Http;
use super::process::raise_descriptor_limit;
use super::spawned::Spawned;

/// How long the services may take to come, and to leave.
const PATIENCE: Duration = Duration::from_mins(1);
/// How much longer than the gateway's resume window anything may take to end.
const SETTLE_SLACK: Duration = Duration::from_secs(15);
/// Between two looks at whether something has happened.
const LOOK: Duration = Duration::from_millis(100);
/// How many looks in a row show that nothing changes.
const LOOKS_AT_REST: u32 = 5;
/// For so many services there is one stranger at a time.
const SERVICES_PER_STRANGER: usize = 20;
/// One in so many services may be taken over, and has two connections for a moment.
const SERVICES_PER_TAKE_OVER: usize = 2;

/// A gateway that is started for it has short windows and small mailboxes, so that much happens in
/// little time.
const SPAWN_FLAGS: [&str; 12] = [
    "--shards",
    "8",
    "--resume-window-ms",
    "3000",
    "--identify-timeout-ms",
    "2000",
    "--mailbox-messages",
    "1024",
    "--identify-interval-ms",
    "0",
    "--data-dir",
    "none",
];

/// Runs the soak; `tell` gets each line as it comes, and ends it where that fails. An `Ok` still has to be asked
/// whether it [`passed`](SoakReport::passed). SIGINT, SIGTERM, SIGQUIT and SIGHUP end it early, with its report once the
/// services have gathered; a second one ends it at once.
pub async fn soak(
    options: SoakOptions,
    tell: impl Fn(&str) -> Result<(), BenchError>,
) -> Result<SoakReport, BenchError> {
    options.check()?;
    raise_descriptor_limit(options.wanted())?;
    // Whoever ends the soak ends its gateway too, at any time.
    let mut asked = pin!(asked_to_stop());
    let (spawned, url, pid) = match &options.gateway {
        Subject::Running { url, pid } => (None, url.clone(), *pid),
        Subject::Spawned { workers } => {
            let workers = workers.map(|workers| format!("--workers={workers}"));
            let flags: Vec<&str> = SPAWN_FLAGS.into_iter().chain(workers.as_deref()).collect();
            let spawned = unless(asked.as_mut(), Spawned::start(&flags)).await?;
            let (url, pid) = (spawned.url(), spawned.pid());
            (Some(spawned), url, pid)
        }
    };
    let head = format!("seed {}, {} services, {url}, process {pid}", options.seed, options.services);
    let soaked = async {
        tell(&head)?;
        unless(asked.as_mut(), Soak::start(options, url, pid)).await?.run(tell, asked).await
    };
    let soaked = soaked.await;
    let Some(spawned) = spawned else { return soaked };
    let log = spawned.log();
    match soaked {
        Ok(report) => spawned.stop().await.map(|()| SoakReport { log, ..report }),
        // That is none of the gateway's doing.
        Err(error @ (BenchError::Interrupted | BenchError::Stdout(_))) => {
            spawned.stop().await.and(Err(error))
        }
        Err(error) => Err(BenchError::Broken { error: error.into(), log }),
    }
}

/// A soak under way.
struct Soak {
    options: SoakOptions,
    http: Http,
    pid: u32,
    before: Sample,
    world: Arc<World>,
    stage: watch::Sender<Stage>,
    tasks: JoinSet<()>,
}

impl Soak {
    async fn start(options: SoakOptions, url: String, pid: u32) -> Result<Self, BenchError> {
        let http = Http::beside(&url)?.with_token(options.token.clone());
        let before = at_rest(&http, pid).await?;
        let (stage, stages) = watch::channel(Stage::Gathering);
        let cast = Cast::new(options.services as usize, options.seed);
        let world = Arc::new(World::new(url, cast, &options, stages));
        let mut tasks = JoinSet::new();
        let services = options.services as usize;
        for index in 0..services {
            tasks.spawn(service::live(Arc::clone(&world), index));
        }
        for index in 0..services.div_ceil(SERVICES_PER_STRANGER) {
            tasks.spawn(strangers::come_and_go(Arc::clone(&world), http.clone(), index));
        }
        Ok(Self { options, http, pid, before, world, stage, tasks })
    }

    async fn run(
        mut self,
        tell: impl Fn(&str) -> Result<(), BenchError>,
        mut asked: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<SoakReport, BenchError> {
        let gathered = eventually(PATIENCE, async || Ok(self.world.are_all_connected()));
        let gathered = unless(asked.as_mut(), gathered).await?;
        if !gathered {
            let (faults, seconds) = (self.world.faults.found().to_string(), PATIENCE.as_secs());
            return Err(BenchError::NotGathered { seconds, faults });
        }
        self.stage.send_replace(Stage::Running);
        let start = Instant::now();
        let samples = self.watch(start, &tell, asked).await?;
        // Asked once, it ends in order; asked again, at once.
        let ending = async {
            self.settle().await?;
            self.leave().await
        };
        let after = unless(pin!(asked_to_stop()), ending).await?;
        let after = Sample { elapsed: start.elapsed(), ..after };
        tell(&after.to_string())?;
        Ok(SoakReport {
            before: self.before,
            samples,
            after,
            counts: self.world.counts.to_string(),
            faults: self.world.faults.found(),
            log: String::new(),
            options: self.options,
        })
    }

    /// Takes a sample every so often until the time is over, or somebody wants it to be.
    async fn watch(
        &self,
        start: Instant,
        tell: &impl Fn(&str) -> Result<(), BenchError>,
        mut asked: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Vec<Sample>, BenchError> {
        tell(Sample::HEAD)?;
        let interval = self.options.interval;
        let (mut ticks, mut samples) = (interval_at(start + interval, interval), Vec::new());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while start.elapsed() + interval / 2 < self.options.duration {
            tokio::select! {
                _ = ticks.tick() => {
                    let sample = Sample::take(&self.http, self.pid, start.elapsed()).await?;
                    tell(&sample.to_string())?;
                    samples.push(sample);
                }
                () = asked.as_mut() => break,
            }
        }
        Ok(samples)
    }

    /// Lets everything that is under way end.
    async fn settle(&self) -> Result<(), BenchError> {
        self.stage.send_replace(Stage::Settling);
        let settled = eventually(self.longest(), async || {
            let is_quiet = self.world.under_way() == 0 && self.world.are_all_connected();
            Ok(is_quiet && self.sample().await?.sum.queued == self.before.sum.queued)
        });
        if !settled.await? {
            self.world.give_up();
        }
        Ok(())
    }

    /// Lets all services leave, and waits until the gateway has let go of them.
    async fn leave(&mut self) -> Result<Sample, BenchError> {
        self.stage.send_replace(Stage::Leaving);
        let world = Arc::clone(&self.world);
        let all_left = async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Err(error) = ended {
                    world.faults.add(Fault::Ended, || format!("a task of the soak: {error}"));
                }
            }
        };
        if timeout(PATIENCE, all_left).await.is_err() {
            world.faults.add(Fault::Ended, || "some services did not leave".to_owned());
        }
        let start = Instant::now();
        loop {
            let sample = self.sample().await?;
            if sample.let_go_since(&self.before) || start.elapsed() > self.longest() {
                return Ok(sample);
            }
            sleep(LOOK).await;
        }
    }

    async fn sample(&self) -> Result<Sample, BenchError> {
        Sample::take(&self.http, self.pid, Duration::ZERO).await
    }

    /// The longest that anything may take to end.
    fn longest(&self) -> Duration {
        self.world.window() + SETTLE_SLACK
    }
}

/// Does it, unless somebody wants all to end first.
async fn unless<T>(
    asked: Pin<&mut impl Future<Output = ()>>,
    work: impl Future<Output = Result<T, BenchError>>,
) -> Result<T, BenchError> {
    tokio::select! {
        biased;
        () = asked => Err(BenchError::Interrupted),
        done = work => done,
    }
}

/// How the gateway is without services: the same at some looks in a row. It may have just started,
/// and the connection of one question may still be closing at the next.
async fn at_rest(http: &Http, pid: u32) -> Result<Sample, BenchError> {
    let (start, mut alike) = (Instant::now(), 0);
    let mut rest = Sample::take(http, pid, Duration::ZERO).await?;
    while alike < LOOKS_AT_REST {
        if start.elapsed() > PATIENCE {
            let Sample { connections, sessions, descriptors, .. } = rest;
            return Err(BenchError::NotAtRest {
                seconds: PATIENCE.as_secs(),
                connections,
                sessions,
                descriptors,
            });
        }
        sleep(LOOK).await;
        let sample = Sample::take(http, pid, Duration::ZERO).await?;
        alike = if sample.let_go_since(&rest) { alike + 1 } else { 0 };
        rest = sample;
    }
    Ok(rest)
}

/// Looks again and again until it is so. False: it was not in all that time.
async fn eventually(
    patience: Duration,
    is_so: impl AsyncFn() -> Result<bool, BenchError>,
) -> Result<bool, BenchError> {
    let start = Instant::now();
    while !is_so().await? {
        if start.elapsed() > patience {
            return Ok(false);
        }
        sleep(LOOK).await;
    }
    Ok(true)
}
