//! Two services that talk while others attack.

use std::time::{Duration, Instant};

use crate::support::{Gateway, Service};

/// Deliveries in one measurement.
const DELIVERIES: usize = 400;

/// How long deliveries took.
pub(crate) struct Times {
    /// 99 of 100 stay below.
    pub(crate) p99: Duration,
    pub(crate) longest: Duration,
}

pub(crate) struct Bystanders {
    source: Service,
    target: Service,
    sent: usize,
}

impl Bystanders {
    pub(crate) fn new(gateway: &Gateway) -> Self {
        Self { source: gateway.service("bystander-a"), target: gateway.service("bystander-b"), sent: 0 }
    }

    /// Measures deliveries from one service to the other.
    pub(crate) fn times(&mut self) -> Times {
        let mut times: Vec<Duration> = (0..DELIVERIES).map(|_| self.deliver()).collect();
        times.sort_unstable();
        Times { p99: times[DELIVERIES * 99 / 100], longest: times[DELIVERIES - 1] }
    }

    fn deliver(&mut self) -> Duration {
        let number = self.sent;
        self.sent += 1;
        let start = Instant::now();
        self.source.send("bystander-b", "x", &number.to_string());
        let message = self.target.next();
        let took = start.elapsed();
        assert_eq!(message.json["d"], number, "{}", message.text);
        // Answers the source's pings too.
        if number.is_multiple_of(50) {
            self.source.expect_nothing();
        }
        took
    }
}
