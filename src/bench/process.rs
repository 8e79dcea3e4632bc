//! What the gateway's process uses, seen from outside.

use std::time::Duration;
use std::{fs, io};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::{Pid, SysconfVar, sysconf};

use super::{BenchError, wrong_option};
use crate::config::Config;
use crate::networker::entrance::REFUSED_AT_ONCE;

/// Descriptors that this process needs beside its connections, or a gateway.
const SPARE_DESCRIPTORS: u64 = 128;
/// Of what it has descriptors for, a gateway keeps one in so many at most for those that have not
/// identified.
const UNIDENTIFIED_SHARE: u64 = 4;

/// The CPU time that a process has used.
#[derive(Debug, Clone, Copy)]
pub(super) struct CpuClock {
    pid: u32,
    clock: ClockId,
}

impl CpuClock {
    pub(super) fn of(pid: u32) -> Result<Self, BenchError> {
        let id = i32::try_from(pid).map_err(|_| nix::Error::ESRCH);
        let clock = id.and_then(|id| clock_getcpuclockid(Pid::from_raw(id)));
        clock.map(|clock| Self { pid, clock }).map_err(|reason| BenchError::NoCpuClock { pid, reason })
    }

    pub(super) fn read(self) -> Result<Duration, BenchError> {
        let Self { pid, clock } = self;
        clock_gettime(clock).map(Duration::from).map_err(|reason| BenchError::NoCpuClock { pid, reason })
    }
}

/// Resident memory of a process, in KiB.
pub(super) fn resident_kib(pid: u32) -> Result<u64, BenchError> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"));
    let status = status.map_err(|reason| BenchError::NoProcess { pid, reason })?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    // A process that has ended and is not waited for has no memory.
    resident.ok_or_else(|| BenchError::NoProcess { pid, reason: io::ErrorKind::NotFound.into() })
}

/// Whether this process was started with SIGHUP ignored, as by nohup(1).
pub(super) fn ignores_hangup() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 << (Signal::SIGHUP as u8 - 1) != 0)
}

/// The CPU time that all processes of the machine together have used, and what a hypervisor took.
pub(super) fn machine_cpu() -> io::Result<Duration> {
    // user nice system idle iowait irq softirq steal, in ticks; guests are within user (proc_stat(5)).
    const WAITING: [usize; 2] = [3, 4];
    const COLUMNS: usize = 8;
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let ticks = line.split_whitespace().take(COLUMNS).enumerate();
    let busy =
        ticks.filter(|(column, _)| !WAITING.contains(column)).filter_map(|(_, it)| it.parse::<u64>().ok());
    let ticks_per_second = sysconf(SysconfVar::CLK_TCK)?.and_then(|it| u64::try_from(it).ok()).unwrap_or(100);
    Ok(Duration::from_micros(busy.sum::<u64>() * 1_000_000 / ticks_per_second.max(1)))
}

/// How many descriptors a process has open.
pub(super) fn descriptors(pid: u32) -> Result<usize, BenchError> {
    let open = fs::read_dir(format!("/proc/{pid}/fd"));
    Ok(open.map_err(|reason| BenchError::NoProcess { pid, reason })?.count())
}

/// Connections that are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) connections: usize,
    /// The flag that makes them so many, and what it is.
    pub(super) flag: &'static str,
    pub(super) value: usize,
    /// Whether a gateway is started for them: it has this process's limit.
    pub(super) spawns: bool,
}

/// Raises this process's limit of open descriptors as far as it goes; a gateway that it starts has it
/// too. An error where so many connections do not fit in it.
pub(super) fn raise_descriptor_limit(wanted: Wanted) -> Result<(), BenchError> {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok(hard)
    });
    let hard = raised.map_err(|reason| BenchError::DescriptorLimit { reason })?;
    let Wanted { connections, flag, value, spawns } = wanted;
    let most = most_connections(hard, spawns);
    if connections as u64 > most {
        let expected = format!("so few that they need no more than {most} connections (ulimit -n)");
        return Err(wrong_option(flag, expected, value));
    }
    Ok(())
}

/// How many connections a process has so many descriptors for; where it `spawns` the gateway, both.
fn most_connections(descriptors: u64, spawns: bool) -> u64 {
    let free = descriptors.saturating_sub(SPARE_DESCRIPTORS);
    if !spawns {
        return free;
    }
    // A gateway takes two for each, as it takes them for those that have not identified.
    let both = free / 2;
    let unidentified = (Config::default().max_unidentified + REFUSED_AT_ONCE) as u64;
    both - unidentified.min(both / UNIDENTIFIED_SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_clock_of_a_process_runs() {
        let clock = CpuClock::of(std::process::id()).expect("a clock");
        let before = clock.read().expect("a time");
        while clock.read().expect("a time") == before {}
    }

    #[test]
    fn what_one_process_uses_the_machine_uses() {
        let clock = CpuClock::of(std::process::id()).expect("a clock");
        let (own, all) = (clock.read().expect("a time"), machine_cpu().expect("a time"));
        // The kernel counts the machine's time in ticks: a few of them may be missing.
        while clock.read().expect("a time").saturating_sub(own) < Duration::from_millis(300) {}
        let used = machine_cpu().expect("a time").saturating_sub(all);
        assert!(used >= Duration::from_millis(200), "{used:?}");
    }

    #[test]
    fn a_descriptor_more_is_seen() {
        // Others are opened and closed beside this test: look until this one's show.
        let own = std::process::id();
        let held: Vec<_> = (0..500).map(|_| fs::File::open("/dev/null").expect("a file")).collect();
        assert!(descriptors(own).expect("a count") >= held.len());
    }

    #[test]
    fn more_connections_than_descriptors_are_refused() {
        let wanted = |pairs| Wanted { connections: 2 * pairs, flag: "pairs", value: pairs, spawns: true };
        raise_descriptor_limit(wanted(10)).expect("a few");
        let error = raise_descriptor_limit(wanted(1 << 40)).expect_err("too many").to_string();
        assert!(error.starts_with("--pairs must be so few that they need no more than "), "{error}");
        assert!(error.ends_with(" connections (ulimit -n), not 1099511627776"), "{error}");
    }

    #[test]
    fn a_gateway_that_is_started_needs_descriptors_too() {
        assert_eq!([0, 128, 1_128].map(|limit| most_connections(limit, false)), [0, 0, 1_000]);
        assert_eq!([0, 128, 1_128, 20_128].map(|limit| most_connections(limit, true)), [0, 0, 375, 8_744]);
    }

    #[test]
    fn memory_that_is_used_is_resident() {
        let own = std::process::id();
        let used = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(resident_kib(own).expect("a size") > 64 << 10, "{}", used.len());
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = resident_kib(u32::MAX).expect_err("nobody").to_string();
        assert!(error.starts_with("process 4294967295 cannot be looked at"), "{error}");
    }
}
