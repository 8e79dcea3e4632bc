//! Two services that talk while others attack.

use std::time::{Duration, Instant};

use crate::support::{Gateway, Service};

/// Deliveries in one measurement.
const DELIVERIES: usize = 400;

pub(crate) struct Bystanders {
    source: Service,
    target: Service,
    sent: usize,
}

impl Bystanders {
    pub(crate) fn new(gateway: &Gateway) -> Self {
        Self { source: gateway.service("bystander-a"), target: gateway.service("bystander-b"), sent: 0 }
    }

    /// The time that 99 of 100 deliveries stay below, from one service to the other.
    pub(crate) fn p99(&mut self) -> Duration {
        let mut times: Vec<Duration> = (0..DELIVERIES).map(|_| self.deliver()).collect();
        times.sort_unstable();
        times[DELIVERIES * 99 / 100]
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
