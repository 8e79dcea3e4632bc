//! What holds at every moment, and at the end.

use gateway::state::account::Amount;
use gateway::state::session::Input;

use super::super::burst::index_of;
use super::super::service::{BOUNDS, Health, Service};
use super::{LUMP_BYTES, SERVICES, TOTAL_BYTES, World};

impl World {
    /// What holds at every moment.
    pub(in super::super) fn check(&self) {
        let mut everywhere = 0;
        let mut queued = [Amount::default(); SERVICES];
        for service in self.services.iter().chain(&self.gone) {
            let (mut found, messages) = service.found();
            if let Some(burst) = &self.burst {
                found += burst.held_of(&service.route);
            }
            let held = service.route.gauge().held();
            assert_eq!(held, found, "{}'s gauge", service.route.name());
            assert!(held.messages <= BOUNDS.messages && held.bytes <= BOUNDS.bytes, "{held:?}");
            everywhere += found.bytes;
            queued[service.index] += messages;
        }
        self.services.iter().for_each(Service::check);
        let total = self.shared.total.held();
        let lumps = if self.burst.is_some() { 2 * LUMP_BYTES } else { 0 };
        assert!((everywhere..=everywhere + lumps).contains(&total), "{total} for {everywhere}");
        assert!(total <= TOTAL_BYTES);
        for row in self.shared.accounts.snapshot() {
            let pair = (index_of(&row.source), index_of(&row.target));
            self.ledger.check(pair, &row);
            queued[pair.1] -= row.balance.queued;
        }
        assert_eq!(queued, [Amount::default(); SERVICES], "queued beside what the accounts say");
    }

    /// Everything that is under way comes to its end.
    pub(in super::super) fn settle(&mut self) {
        self.end_burst(true);
        for _ in 0..30 {
            for index in 0..SERVICES {
                self.attach(index, false);
                self.set_health(index, Health::Well);
                for _ in 0..20 {
                    self.handle(index);
                    self.write(index, usize::MAX, usize::MAX);
                }
            }
            for gone in 0..self.gone.len() {
                while let Some(parcel) = self.gone[gone].queue.pop() {
                    self.step_gone(gone, Input::Deliver(parcel));
                }
                if self.gone[gone].goes_on {
                    self.step_gone(gone, Input::Wake(None));
                }
            }
            if !self.services.iter().chain(&self.gone).any(Service::is_busy) {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// Each accepted message has ended once: it was delivered, returned, or is dead.
    pub(in super::super) fn check_ends(&self) {
        for row in self.shared.accounts.snapshot() {
            self.ledger.check_end((index_of(&row.source), index_of(&row.target)), &row);
        }
        self.ledger.check_receipts();
        assert_eq!(self.shared.total.held(), 0);
    }
}
