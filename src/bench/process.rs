//! What the gateway's process uses, seen from outside.

use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use super::BenchError;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_clock_of_a_process_runs() {
        let clock = CpuClock::of(std::process::id()).expect("a clock");
        let before = clock.read().expect("a time");
        while clock.read().expect("a time") == before {}
    }
}
