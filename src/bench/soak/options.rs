//! What a soak is asked to be.

use std::time::Duration;

use super::cast::{LEAST_SERVICES, MOST_SERVICES};
use super::{SERVICES_PER_STRANGER, SERVICES_PER_TAKE_OVER};
use crate::bench::process::Wanted;
use crate::bench::{BenchError, wrong_option};
use crate::client::Secret;

/// What to run.
#[derive(Debug, Clone)]
pub struct SoakOptions {
    pub gateway: Subject,
    /// What services identify with, and what the API is read with, where the gateway wants credentials.
    pub token: Option<Secret>,
    pub services: u32,
    pub duration: Duration,
    /// Between two lines.
    pub interval: Duration,
    /// Messages for each second, of all services together.
    pub rate: f64,
    /// What every choice is made from.
    pub seed: u64,
}

/// Which gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// One that runs, and has no services beside.
    Running { url: String, pid: u32 },
    /// One that is started for it, and stopped at the end. `workers`: from 1 to 1024; without, as many as there
    /// are cores.
    Spawned { workers: Option<u32> },
}

impl Default for SoakOptions {
    fn default() -> Self {
        Self {
            gateway: Subject::Spawned { workers: None },
            token: None,
            services: 200,
            duration: Duration::from_mins(15),
            interval: Duration::from_secs(10),
            rate: 3000.0,
            seed: 1,
        }
    }
}

impl SoakOptions {
    /// The connections that there may be at once.
    pub(super) fn wanted(&self) -> Wanted {
        let services = self.services as usize;
        let more = services.div_ceil(SERVICES_PER_TAKE_OVER) + services.div_ceil(SERVICES_PER_STRANGER);
        let spawns = matches!(self.gateway, Subject::Spawned { .. });
        Wanted { connections: services + more, flag: "services", value: services, spawns }
    }

    pub(super) fn check(&self) -> Result<(), BenchError> {
        if !(LEAST_SERVICES..=MOST_SERVICES).contains(&self.services) {
            let expected = format!("from {LEAST_SERVICES}, which are one of each kind, to {MOST_SERVICES}");
            return Err(wrong_option("services", expected, self.services));
        }
        if self.duration < self.interval || self.interval.is_zero() {
            let expected = "as long as --interval at least, and that above 0";
            return Err(wrong_option("minutes", expected, self.duration.as_secs_f64() / 60.0));
        }
        if !(self.rate > 0.0 && self.rate <= 1e6) {
            return Err(wrong_option("rate", "above 0 and at most 1000000", self.rate));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut SoakOptions)) -> String {
        let mut options = SoakOptions::default();
        options.check().expect("the defaults will do");
        change(&mut options);
        options.check().expect_err("it is out of range").to_string()
    }

    #[test]
    fn an_option_out_of_range_is_named() {
        for services in [19, 100_001] {
            let error = refused(|options| options.services = services);
            let expected = "--services must be from 20, which are one of each kind, to 100000, not ";
            assert_eq!(error, format!("{expected}{services}"));
        }
        let error = refused(|options| options.duration = Duration::from_secs(6));
        assert_eq!(error, "--minutes must be as long as --interval at least, and that above 0, not 0.1");
        assert_eq!(
            refused(|options| options.rate = f64::NAN),
            "--rate must be above 0 and at most 1000000, not NaN"
        );
    }
}
