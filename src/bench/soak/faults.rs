//! What can be wrong, and how often it was.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many faults are told in full.
const DETAILS: usize = 20;

/// Something that the protocol does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// A message never ended although both its services were there all the time.
    Lost,
    /// A message came again.
    Duplicated,
    /// A message came after one that was sent later on the same connection.
    Reordered,
    /// A message is not what was sent.
    Altered,
    /// A message came to another service than it was sent to.
    Misdirected,
    /// A delivery number is not the next one, or stands on another message than before.
    Misnumbered,
    /// A message was both delivered and refused or returned, or ended twice.
    TwoEnds,
    /// A RECEIPT for a message that had one, had an ERROR, or did not ask.
    WrongReceipt,
    /// No RECEIPT came for a message that was delivered.
    NoReceipt,
    /// A message was refused for a reason that it had not.
    WrongError,
    /// A mistake was not answered with its ERROR.
    Unanswered,
    /// A session was resumed that should have been gone, or is gone that should have been kept.
    WrongResume,
    /// A service was rejected or could not connect.
    Rejected,
    /// A connection ended that nobody had ended.
    Ended,
    /// A shard id was given to two services at once, or an epoch was given twice.
    TwoHolders,
    /// Something came that is none of the protocol's messages.
    Unreadable,
}

impl Fault {
    fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Duplicated => "duplicated",
            Self::Reordered => "reordered",
            Self::Altered => "altered",
            Self::Misdirected => "misdirected",
            Self::Misnumbered => "misnumbered",
            Self::TwoEnds => "with two ends",
            Self::WrongReceipt => "wrong receipts",
            Self::NoReceipt => "without receipt",
            Self::WrongError => "wrong errors",
            Self::Unanswered => "mistakes unanswered",
            Self::WrongResume => "wrongly resumed or not",
            Self::Rejected => "rejected",
            Self::Ended => "connections ended",
            Self::TwoHolders => "shards with two holders",
            Self::Unreadable => "unreadable",
        }
    }
}

/// The faults of a run.
#[derive(Debug, Default)]
pub(super) struct Faults {
    found: Mutex<Found>,
}

/// How many of each kind there were, and what the first were in full.
#[derive(Debug, Default, Clone)]
pub(super) struct Found {
    by_kind: BTreeMap<Fault, u64>,
    details: Vec<String>,
}

impl Faults {
    pub(super) fn add(&self, fault: Fault, detail: impl FnOnce() -> String) {
        self.add_many(fault, 1, detail);
    }

    pub(super) fn add_many(&self, fault: Fault, count: u64, detail: impl FnOnce() -> String) {
        if count == 0 {
            return;
        }
        let mut found = self.lock();
        *found.by_kind.entry(fault).or_default() += count;
        if found.details.len() < DETAILS {
            let detail = format!("{}: {}", fault.as_str(), detail());
            found.details.push(detail);
        }
    }

    pub(super) fn found(&self) -> Found {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Found {
    pub(super) fn is_empty(&self) -> bool {
        self.by_kind.is_empty()
    }

    /// How many there are of each kind, by its name.
    pub(super) fn by_kind(&self) -> BTreeMap<&'static str, u64> {
        self.by_kind.iter().map(|(fault, count)| (fault.as_str(), *count)).collect()
    }

    /// The first ones in full.
    pub(super) fn details(&self) -> &[String] {
        &self.details
    }
}

impl fmt::Display for Found {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return formatter.write_str("none");
        }
        let kinds: Vec<String> =
            self.by_kind.iter().map(|(fault, count)| format!("{count} {}", fault.as_str())).collect();
        formatter.write_str(&kinds.join(", "))?;
        self.details.iter().try_for_each(|detail| write!(formatter, "\n  {detail}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_counted_by_kind_and_the_first_are_told() {
        let faults = Faults::default();
        assert_eq!(faults.found().to_string(), "none");
        faults.add(Fault::Lost, || "a to b: 7".to_owned());
        faults.add_many(Fault::Duplicated, 100, || "c to d: 9".to_owned());
        faults.add_many(Fault::Altered, 0, || unreachable!());
        let shown = faults.found().to_string();
        assert_eq!(shown, "1 lost, 100 duplicated\n  lost: a to b: 7\n  duplicated: c to d: 9");
    }
}
