//! What all reports have in common: figures with their units, as a table or as JSON.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::checker::Checks;
use super::gateway::Usage;

/// From this share of its threads on, the load is what limits the figures, in percent.
const LIMIT_PERCENT: f64 = 90.0;
/// From this share of all cores on, none of them was free, in percent.
const FULL_PERCENT: f64 = 95.0;

/// What the gateway's process used.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct GatewayUse {
    /// User and system, of all its threads, by the process's CPU clock; `None` where no message came.
    pub(super) cpu_us_per_message: Option<f64>,
    /// Of one core.
    pub(super) cpu_percent: f64,
    /// Before the services came.
    pub(super) resident_before_kib: u64,
    /// At the end of the measured time.
    pub(super) resident_kib: u64,
}

/// What the load itself used.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct GeneratorUse {
    pub(super) threads: usize,
    pub(super) cpu_us_per_message: Option<f64>,
    /// Of one core.
    pub(super) cpu_percent: f64,
    /// Whether its threads had next to no time left: the gateway may do more than was measured.
    pub(super) is_limit: bool,
    /// Whether it would use more threads.
    #[serde(skip)]
    pub(super) can_grow: bool,
}

/// What else went on where it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Machine {
    pub(super) cores: usize,
    /// Of one core, by processes other than the gateway and the load, and by a hypervisor; `None` where the
    /// gateway's process is not known. Figures from a machine that is busy with something else say
    /// little.
    pub(super) others_cpu_percent: Option<f64>,
    /// Whether gateway, load and others had next to no core left: with more of them the gateway may do more.
    pub(super) no_core_free: bool,
}

impl GatewayUse {
    pub(super) fn between(start: &Usage, before: &Usage, after: &Usage, messages: u64) -> Option<Self> {
        let ((_, resident_before_kib), (from, _), (to, resident_kib)) =
            (start.gateway?, before.gateway?, after.gateway?);
        let cpu = to.saturating_sub(from);
        Some(Self {
            cpu_us_per_message: micros_each(cpu, messages),
            cpu_percent: percent(cpu, after.at - before.at),
            resident_before_kib,
            resident_kib,
        })
    }
}

impl GeneratorUse {
    pub(super) fn between(before: &Usage, after: &Usage, messages: u64, threads: usize, spin: bool) -> Self {
        let cpu = after.own_cpu.saturating_sub(before.own_cpu);
        let cpu_percent = percent(cpu, after.at - before.at);
        Self {
            threads,
            cpu_us_per_message: micros_each(cpu, messages),
            cpu_percent,
            // Threads that spin are busy, whether they have much to do or not.
            is_limit: !spin && cpu_percent >= LIMIT_PERCENT * as_f64(threads as u64),
            can_grow: false,
        }
    }
}

impl Machine {
    pub(super) fn between(before: &Usage, after: &Usage) -> Self {
        let used = |usage: &Usage| Some((usage.machine_cpu, usage.gateway?.0 + usage.own_cpu));
        let others = used(before).zip(used(after)).map(|((all, known), (all_after, known_after))| {
            let all = all_after.saturating_sub(all);
            percent(all.saturating_sub(known_after.saturating_sub(known)), after.at - before.at)
        });
        let all = percent(after.machine_cpu.saturating_sub(before.machine_cpu), after.at - before.at);
        let cores = cores();
        Self { cores, others_cpu_percent: others, no_core_free: is_full(all, cores) }
    }
}

/// Whether so much, in percent of one core, leaves nothing of so many.
fn is_full(used: f64, cores: usize) -> bool {
    used >= FULL_PERCENT * as_f64(cores as u64)
}

/// How many cores this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl fmt::Display for GatewayUse {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu_us_per_message, cpu_percent, resident_before_kib, resident_kib } = self;
        each(formatter, *cpu_us_per_message, *cpu_percent)?;
        write!(formatter, "; {resident_before_kib} KiB resident before, {resident_kib} KiB then")
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cores = self.cores;
        write!(formatter, "{cores} {}", if cores == 1 { "core" } else { "cores" })?;
        if let Some(percent) = self.others_cpu_percent {
            write!(formatter, "; others used {percent:.0} % of one")?;
        }
        write!(formatter, "{}", if self.no_core_free { ": NO CORE WAS FREE" } else { "" })
    }
}

impl fmt::Display for GeneratorUse {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        each(formatter, self.cpu_us_per_message, self.cpu_percent)?;
        let threads = self.threads;
        write!(formatter, "; {threads} {}", if threads == 1 { "thread" } else { "threads" })?;
        if self.is_limit {
            write!(formatter, ": IT WAS THE LIMIT, the gateway may do more")?;
            write!(formatter, "{}", if self.can_grow { " (--threads)" } else { "" })?;
        }
        Ok(())
    }
}

fn each(formatter: &mut fmt::Formatter<'_>, micros: Option<f64>, percent: f64) -> fmt::Result {
    if let Some(micros) = micros {
        write!(formatter, "{micros:.3} µs of CPU for each message, ")?;
    }
    write!(formatter, "{percent:.0} % of a core")
}

/// One line of a table.
pub(super) fn row(formatter: &mut fmt::Formatter<'_>, title: &str, value: &dyn fmt::Display) -> fmt::Result {
    writeln!(formatter, "{title:<13}{value}")
}

/// The last line of a table. Where nothing was measured, messages that all arrived say nothing of the figures.
pub(super) fn verdict(formatter: &mut fmt::Formatter<'_>, checks: &Checks, is_empty: bool) -> fmt::Result {
    if !is_empty {
        return write!(formatter, "{:<13}{checks}", "checks");
    }
    let nothing = "nothing was measured: no message came or was due in the measured time (--seconds, --rate)";
    write!(formatter, "{:<13}FAILED: {nothing}; {}", "checks", checks.told())
}

/// Three decimals are enough for anyone, and JSON stays readable.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// How many for each second.
pub(super) fn per_second(count: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { rounded(as_f64(count) / time.as_secs_f64()) }
}

/// CPU time for each of so many, in µs.
pub(super) fn micros_each(cpu: Duration, count: u64) -> Option<f64> {
    (count > 0).then(|| rounded(cpu.as_secs_f64() * 1e6 / as_f64(count)))
}

pub(super) fn percent(cpu: Duration, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { rounded(cpu.as_secs_f64() * 100.0 / time.as_secs_f64()) }
}

#[expect(clippy::cast_precision_loss, reason = "figures are shown with few digits")]
pub(super) fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn usage(start: Instant, at_ms: u64, gateway_ms: u64, own_ms: u64) -> Usage {
        let millis = Duration::from_millis;
        let gateway = Some((millis(gateway_ms), 10 + at_ms));
        let machine_cpu = millis(gateway_ms + own_ms + at_ms / 4);
        Usage { at: start + millis(at_ms), gateway, own_cpu: millis(own_ms), machine_cpu }
    }

    #[test]
    fn what_was_used_is_shared_among_the_messages() {
        let start = Instant::now();
        let usages = [usage(start, 0, 5, 5), usage(start, 1000, 10, 10), usage(start, 3000, 1010, 1790)];
        let [rest, before, after] = &usages;
        let gateway = GatewayUse::between(rest, before, after, 1_000_000).unwrap();
        assert_eq!(
            gateway,
            GatewayUse {
                cpu_us_per_message: Some(1.0),
                cpu_percent: 50.0,
                resident_before_kib: 10,
                resident_kib: 3010
            }
        );
        let generator = GeneratorUse::between(before, after, 0, 1, false);
        assert_eq!((generator.cpu_us_per_message, generator.is_limit), (None, false));
        assert!((generator.cpu_percent - 89.0).abs() < 1e-9);
        assert_eq!(Machine::between(before, after).others_cpu_percent, Some(25.0));
    }

    #[test]
    fn a_load_that_had_no_time_left_says_so() {
        let start = Instant::now();
        let (before, after) = (usage(start, 0, 0, 0), usage(start, 1000, 500, 930));
        let used = |threads, spin| GeneratorUse::between(&before, &after, 1, threads, spin);
        assert!(used(1, false).is_limit && used(1, false).to_string().contains("IT WAS THE LIMIT"));
        assert!(!used(2, false).is_limit && !used(1, true).is_limit);
    }

    #[test]
    fn more_threads_are_proposed_only_where_they_would_be_used() {
        let start = Instant::now();
        let (before, after) = (usage(start, 0, 0, 0), usage(start, 1000, 500, 930));
        let used =
            |can_grow| GeneratorUse { can_grow, ..GeneratorUse::between(&before, &after, 1, 1, false) };
        assert!(used(true).to_string().ends_with("may do more (--threads)"));
        assert!(used(false).to_string().ends_with("may do more"));
    }

    #[test]
    fn a_machine_without_a_free_core_says_so() {
        assert!(is_full(190.0, 2) && !is_full(189.0, 2) && !is_full(190.0, 4));
        let start = Instant::now();
        let machine = |busy_ms| {
            let after = Usage { machine_cpu: Duration::from_millis(busy_ms), ..usage(start, 1000, 0, 0) };
            Machine::between(&usage(start, 0, 0, 0), &after)
        };
        let all_ms = 1000 * u64::try_from(cores()).unwrap();
        assert!(machine(all_ms).no_core_free && machine(all_ms).to_string().ends_with(": NO CORE WAS FREE"));
        assert!(!machine(100).no_core_free && !machine(100).to_string().contains("FREE"));
    }
}
