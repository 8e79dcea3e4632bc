//! Holds the account against the mailboxes: what is counted as queued must be there.
//!
//! Only debug builds walk the mailboxes ([`gateway`](crate::actors::gateway)); the comparison makes
//! sense only while traffic rests.

use std::collections::HashMap;

use super::account::{Amount, Place, Row};
use super::parcel::Parcel;

/// What walking over mailboxes found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Walk {
    queued: HashMap<Place, Amount>,
    /// All that takes room, notices too.
    held: Amount,
}

impl Walk {
    /// Walks over one mailbox.
    pub fn over<'a>(parcels: impl Iterator<Item = &'a Parcel>) -> Self {
        let mut walk = Self::default();
        for parcel in parcels {
            walk.held += parcel.amount();
            if let Some(place) = parcel.place() {
                *walk.queued.entry(place).or_default() += parcel.amount();
            }
        }
        walk
    }

    /// What takes room in the mailboxes walked over.
    pub fn held(&self) -> Amount {
        self.held
    }

    /// Adds what was found elsewhere.
    pub fn add(&mut self, other: Self) {
        self.held += other.held;
        for (place, amount) in other.queued {
            *self.queued.entry(place).or_default() += amount;
        }
    }

    /// One line for each source and target whose messages are not where the account says.
    pub fn differences(&self, rows: &[Row]) -> Vec<String> {
        let found = |row: &Row| self.queued.get(&row.place).copied().unwrap_or_default();
        let differs = |row: &&Row| found(row) != row.balance.queued;
        rows.iter()
            .filter(differs)
            .map(|row| {
                let (counted, found) = (row.balance.queued, found(row));
                format!(
                    "{} to {}: {} messages of {} bytes are counted as queued, the mailboxes hold {} of {}",
                    row.source, row.target, counted.messages, counted.bytes, found.messages, found.bytes
                )
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::protocol::name::Name;
    use crate::state::gauge::Bounds;
    use crate::state::parcel::OpenParcel;
    use crate::state::route::{Inbox, Route, Shared};

    #[derive(Default, Clone)]
    struct Kept(Arc<Mutex<Vec<Parcel>>>);

    impl Inbox for Kept {
        fn deliver(&self, parcel: Parcel) {
            self.0.lock().unwrap().push(parcel);
        }
    }

    #[test]
    fn what_is_counted_as_queued_must_be_in_the_mailbox() {
        let shared = Arc::new(Shared::new(10, 1_000_000));
        let bounds = Bounds { messages: 10, bytes: 1_000 };
        let [source, target] =
            ["a", "b"].map(|name| Arc::new(Route::new(Name::new(name).unwrap(), bounds, shared.clone())));
        let kept = Kept::default();
        target.open(Box::new(kept.clone()));
        let entry = source.entry(Some(target.name()));
        for _ in 0..2 {
            let mut parcel = OpenParcel::new(target.clone(), 0);
            parcel.push([b"{\"t\":\"x\"}", b""]).unwrap();
            parcel.send(Some((&source, &entry)));
        }
        let walk = |kept: &Kept| Walk::over(kept.0.lock().unwrap().iter());
        let mut both = walk(&kept);
        assert_eq!(both.differences(&shared.accounts.snapshot()), Vec::<String>::new());
        assert_eq!(both.held(), target.gauge().held());
        // One that the account does not know of, and one that the mailbox has lost.
        both.add(walk(&kept));
        assert_eq!(both.differences(&shared.accounts.snapshot()).len(), 1);
        let lost = Walk::default().differences(&shared.accounts.snapshot());
        assert_eq!(lost, ["a to b: 2 messages of 18 bytes are counted as queued, the mailboxes hold 0 of 0"]);
    }
}
