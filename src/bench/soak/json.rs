//! What a soak found, as JSON.

use serde_json::{Value, json};

use super::report::SoakReport;
use super::sample::{Balance, Sample};

impl SoakReport {
    /// One object, with the units in the names.
    pub(in crate::bench) fn to_json(&self) -> Value {
        let slope = self.slope();
        json!({
            "bench": "soak",
            "services": self.options.services,
            "rate_messages_per_s": self.options.rate,
            "seed": self.options.seed,
            "before": self.before.to_json(),
            "samples": self.samples.iter().map(Sample::to_json).collect::<Vec<_>>(),
            "after": self.after.to_json(),
            "resident_slope": slope.map(|slope| json!({
                "kib_per_hour": slope.rate,
                // Infinite where the readings are too few: then there is none.
                "standard_error_kib_per_hour": slope.error.is_finite().then_some(slope.error),
                "readings": slope.readings,
            })),
            "counts": self.counts,
            "faults": self.faults.by_kind(),
            "fault_details": self.faults.details(),
            "left_nothing_behind": self.has_let_go(),
            "passed": self.passed(),
        })
    }
}

impl Sample {
    fn to_json(&self) -> Value {
        let Balance { accepted, delivered, returned, dead, queued } = self.sum;
        json!({
            "elapsed_seconds": self.elapsed.as_secs_f64(),
            "resident_kib": self.resident_kib,
            "descriptors": self.descriptors,
            "connections": self.connections,
            "sessions": self.sessions,
            "mailbox_messages": self.mailbox_messages,
            "mailbox_bytes": self.mailbox_bytes,
            "accepted": accepted,
            "delivered": delivered,
            "returned": returned,
            "dead": dead,
            "queued": queued,
            "unbalanced_targets": self.unbalanced,
        })
    }
}
