//! `gateway bench` as it is typed. What the numbers may be is for [`crate::bench`] to say.

use std::path::PathBuf;

use clap::{Arg, ArgGroup, Args, Subcommand, value_parser};

/// `gateway bench`
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum Bench {
    /// Pairs of services, one sending to the other as fast as it takes them.
    #[command(after_help = "Example: gateway bench pairs --spawn --workers 1 --pairs 8 --size 1024", mut_args = number)]
    Pairs(BenchPairs),
    /// Many services that send to one, as fast as it takes them.
    #[command(after_help = "Example: gateway bench fan-in --spawn --services 64", mut_args = number)]
    FanIn(BenchFanIn),
    /// How long messages take at a fixed rate, counted from when each was due.
    #[command(after_help = "Example: gateway bench latency --spawn --rate 20000 --seconds 10", mut_args = number)]
    Latency(BenchLatency),
    /// Services that do nothing: how fast they connect, and what memory each takes.
    #[command(after_help = "Example: gateway bench idle --spawn --connections 5000", mut_args = number)]
    Idle(BenchIdle),
    /// All connections are cut at once amid messages; how long until every service has resumed its
    /// session, and whether a message was lost.
    #[command(after_help = "Example: gateway bench reconnect --spawn --services 1000 --rate 5000", mut_args = number)]
    Reconnect(BenchReconnect),
    /// Throughput and CPU time for each message from 1 to 4,096 pairs of services, with one worker
    /// and with two. Writes JSON, which `gateway bench plot` draws.
    #[command(after_help = "Example: gateway bench scaling > scaling.json", mut_args = number)]
    Scaling(BenchScaling),
    /// Draw what `gateway bench scaling` wrote, as SVG.
    #[command(after_help = "Example: gateway bench plot scaling.json -o scaling.svg")]
    Plot(BenchPlot),
    /// Services that come and go for a long time; every message is checked, and so is what the gateway
    /// keeps.
    #[command(after_help = "Example: gateway bench soak --spawn --minutes 15", mut_args = number)]
    Soak(BenchSoak),
    /// A gateway for a bench, which does not outlive it. What benches start, and nobody else.
    #[command(hide = true)]
    Gateway(BenchGateway),
}

/// `--rate -5` is a wrong value, not an unknown flag.
fn number(flag: Arg) -> Arg {
    let takes_value = flag.get_action().takes_values();
    flag.allow_negative_numbers(takes_value)
}

/// Which gateway is measured.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(next_help_heading = "Which gateway")]
pub struct Target {
    /// Where the gateway listens; `ws://` only, not `wss://`.
    #[arg(long, default_value = "ws://127.0.0.1:7117/gateway", conflicts_with = "spawn")]
    pub url: String,
    /// The gateway's process id, to see its CPU time and memory.
    #[arg(long, conflicts_with = "spawn")]
    pub pid: Option<u32>,
    /// Start a gateway for it, of this executable, on a free port and with nothing on the disk, and stop it at
    /// the end. Its other settings can be given by variables.
    #[arg(long)]
    pub spawn: bool,
    /// How many workers that gateway has.
    #[arg(long, requires = "spawn", conflicts_with_all = ["pid", "url"], value_parser = value_parser!(u32).range(1..=1024))]
    pub workers: Option<u32>,
    /// What the services identify with, where the gateway wants credentials: the token of one that permits the names
    /// `bench-*` and sending to `bench-*`.
    #[arg(long)]
    pub token: Option<String>,
}

/// What all that send have in common.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(next_help_heading = "How")]
pub struct Load {
    /// Size of each message's `d`, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    pub size: i64,
    /// How long to measure, in seconds; fractions will do.
    #[arg(long, value_name = "SECONDS", default_value = "5")]
    pub seconds: Seconds,
    /// Threads that make the load; that of fan-in is always one.
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=256))]
    pub threads: u32,
    /// Look for work all the time instead of waiting for it: takes whole cores, and wakes nobody up late.
    #[arg(long)]
    pub spin: bool,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// As typed: a number above 0, of at most a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seconds(pub std::time::Duration);

impl std::str::FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seconds = text.parse().ok().filter(|seconds: &f64| (0.001..=86_400.0).contains(seconds));
        let seconds = seconds.ok_or("expected a number of seconds from 0.001 to 86400")?;
        Ok(Self(std::time::Duration::from_secs_f64(seconds)))
    }
}

impl std::fmt::Display for Seconds {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.as_secs_f64().fmt(formatter)
    }
}

/// `gateway bench pairs`
#[derive(Debug, Clone, PartialEq, Args)]
pub struct BenchPairs {
    /// Pairs of a sender and a receiver.
    #[arg(short = 'P', long, value_name = "PAIRS", default_value_t = 8, value_parser = value_parser!(u32).range(1..=100_000))]
    pub pairs: u32,
    /// Messages in flight for each pair.
    #[arg(long, value_name = "MESSAGES", default_value_t = 1024, value_parser = value_parser!(u32).range(1..))]
    pub window: u32,
    /// Messages for each second, of all pairs together [default: as many as the window lets]
    #[arg(long, value_name = "MESSAGES")]
    pub rate: Option<f64>,
    /// The receivers acknowledge each message.
    #[arg(long)]
    pub ack: bool,
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub target: Target,
}

/// `gateway bench fan-in`
#[derive(Debug, Clone, PartialEq, Args)]
pub struct BenchFanIn {
    /// Services that send to one more.
    #[arg(long, default_value_t = 8, value_parser = value_parser!(u32).range(1..=100_000))]
    pub services: u32,
    /// Messages in flight for each sender [default: its share of 32768 in all, at most 1024]
    #[arg(long, value_name = "MESSAGES", value_parser = value_parser!(u32).range(1..))]
    pub window: Option<u32>,
    /// Messages for each second, of all senders together [default: as many as the window lets]
    #[arg(long, value_name = "MESSAGES")]
    pub rate: Option<f64>,
    /// The receiver acknowledges each message.
    #[arg(long)]
    pub ack: bool,
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub target: Target,
}

/// `gateway bench latency`
#[derive(Debug, Clone, PartialEq, Args)]
pub struct BenchLatency {
    /// Messages for each second, of all pairs together.
    #[arg(long, value_name = "MESSAGES", default_value_t = 20_000.0)]
    pub rate: f64,
    /// Pairs of a sender and a receiver.
    #[arg(short = 'P', long, value_name = "PAIRS", default_value_t = 8, value_parser = value_parser!(u32).range(1..=100_000))]
    pub pairs: u32,
    /// Messages in flight for each pair; what is due beyond it waits, and its latency counts all the same.
    #[arg(long, value_name = "MESSAGES", default_value_t = 1024, value_parser = value_parser!(u32).range(1..))]
    pub window: u32,
    /// The receivers acknowledge each message.
    #[arg(long)]
    pub ack: bool,
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub target: Target,
}

/// `gateway bench idle`
#[derive(Debug, Clone, PartialEq, Args)]
pub struct BenchIdle {
    /// Services that connect, 128 at a time for each thread.
    #[arg(long, default_value_t = 5000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub connections: u32,
    /// How long they stay, in seconds; fractions will do. Only what is longer than two of the gateway's
    /// heartbeats (11 s, by default) surely has pings in its CPU time.
    #[arg(long, value_name = "SECONDS", default_value = "2")]
    pub seconds: Seconds,
    /// Threads that connect.
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=256))]
    pub threads: u32,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: Target,
}

/// `gateway bench reconnect`
#[derive(Debug, Clone, PartialEq, Args)]
pub struct BenchReconnect {
    /// Services, each of which sends to the next; they acknowledge, and ask for RECEIPTs.
    #[arg(long, default_value_t = 1000, value_parser = value_parser!(u32).range(1..=100_000))]
    pub services: u32,
    /// Messages for each second, of all services together.
    #[arg(long, value_name = "MESSAGES", default_value_t = 5_000.0)]
    pub rate: f64,
    /// Size of each message's `d`, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    pub size: i64,
    /// How long messages flow before the cut, and again after it, in seconds; fractions will do.
    #[arg(long, value_name = "SECONDS", default_value = "2")]
    pub seconds: Seconds,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: Target,
}

/// `gateway bench scaling`
#[derive(Debug, Clone, PartialEq, Args)]
pub struct BenchScaling {
    /// Pairs of services to measure with.
    #[arg(long, value_name = "PAIRS", value_delimiter = ',', default_values_t = [1, 8, 64, 512, 4096], value_parser = value_parser!(u32).range(1..=100_000))]
    pub pairs: Vec<u32>,
    /// Workers of the gateways that are started for it.
    #[arg(long, value_name = "WORKERS", value_delimiter = ',', default_values_t = [1, 2], value_parser = value_parser!(u32).range(1..=1024))]
    pub workers: Vec<u32>,
    /// How often each is measured; the median counts.
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Size of each message's `d`, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    pub size: i64,
    /// How long each measurement takes, in seconds; fractions will do.
    #[arg(long, value_name = "SECONDS", default_value = "2")]
    pub seconds: Seconds,
    /// Threads that make the load.
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=256))]
    pub threads: u32,
}

/// `gateway bench plot`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct BenchPlot {
    /// What `gateway bench scaling` wrote.
    #[arg(value_name = "FILE.json")]
    pub from: PathBuf,
    /// Where the SVG goes.
    #[arg(short, long, value_name = "FILE.svg")]
    pub output: PathBuf,
}

/// `gateway bench soak`
#[derive(Debug, Clone, PartialEq, Args)]
#[command(group = ArgGroup::new("gateway").args(["pid", "spawn"]).required(true))]
pub struct BenchSoak {
    /// Where the gateway listens; `ws://` only, not `wss://`.
    #[arg(long, default_value = "ws://127.0.0.1:7117/gateway", conflicts_with = "spawn")]
    pub url: String,
    /// The gateway's process id, to see its memory and descriptors. It must have no other services.
    #[arg(long)]
    pub pid: Option<u32>,
    /// Start a gateway for it, with short windows and small mailboxes, and stop it at the end. Its other
    /// settings can be given by variables.
    #[arg(long)]
    pub spawn: bool,
    /// How many workers that gateway has.
    #[arg(long, requires = "spawn", conflicts_with_all = ["pid", "url"], value_parser = value_parser!(u32).range(1..=1024))]
    pub workers: Option<u32>,
    /// What the services identify with, and what the API is read with, where the gateway wants credentials.
    /// It must let them be `soak-*`, send to `*`, hold shards, watch, and read the API.
    #[arg(long)]
    pub token: Option<String>,
    /// How many services; 20 are one of each kind.
    #[arg(long, default_value_t = 200, value_parser = value_parser!(u32).range(20..=100_000))]
    pub services: u32,
    /// How long, in minutes; fractions will do.
    #[arg(long, default_value_t = 15.0)]
    pub minutes: f64,
    /// Between two lines, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = value_parser!(u64).range(1..))]
    pub interval: u64,
    /// Messages for each second, of all services together.
    #[arg(long, value_name = "MESSAGES", default_value_t = 3000.0)]
    pub rate: f64,
    /// What every choice is made from [default: another one each time, which is printed]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Print one JSON object at the end instead of the report; what is told meanwhile goes to stderr.
    #[arg(long)]
    pub json: bool,
}

/// `gateway bench gateway`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct BenchGateway {
    /// The bench's process id.
    #[arg(value_name = "PID")]
    pub bench: u32,
    /// What the gateway is started with.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<std::ffi::OsString>,
}

#[cfg(test)]
mod tests;
