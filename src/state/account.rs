//! What became of the messages: for each target one account, in it a balance for each source.
//!
//! The account answers for `accepted = delivered + returned + dead + queued`. Each change is one
//! update under the account's lock, and so is a reading of it, so the sum holds whenever it is
//! looked at. An account outlives the sessions that it is about; what bounds memory is
//! `max_account_names`, beyond which names are counted together as [`OTHER`].

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::{AddAssign, SubAssign};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::protocol::name::Name;

/// Stands in the account for every name beyond `max_account_names`, and for targets that are no
/// service's. A service that is called so is counted with them.
pub const OTHER: &str = "other";

/// How many pairs of source and target are kept for each name that is.
const PAIRS_PER_NAME: usize = 16;

/// A number of messages, and the bytes of their JSON as the target gets it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    pub messages: u64,
    pub bytes: u64,
}

impl Amount {
    /// One message of that many bytes.
    pub fn message(bytes: usize) -> Self {
        Self { messages: 1, bytes: bytes as u64 }
    }

    pub fn is_zero(self) -> bool {
        self.messages == 0
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
    }
}

impl SubAssign for Amount {
    fn sub_assign(&mut self, other: Self) {
        self.messages -= other.messages;
        self.bytes -= other.bytes;
    }
}

/// The five counters. `accepted` is the sum of the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balance {
    pub accepted: Amount,
    pub delivered: Amount,
    pub returned: Amount,
    pub dead: Amount,
    pub queued: Amount,
}

impl Balance {
    /// Whether every accepted message is somewhere.
    pub fn balances(&self) -> bool {
        let mut sum = self.delivered;
        sum += self.returned;
        sum += self.dead;
        sum += self.queued;
        sum == self.accepted
    }
}

impl fmt::Display for Balance {
    /// The messages, as the sum that they are.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [accepted, delivered, returned, dead, queued] =
            [self.accepted, self.delivered, self.returned, self.dead, self.queued]
                .map(|amount| amount.messages);
        write!(
            formatter,
            "accepted {accepted} = delivered {delivered} + returned {returned} + dead {dead} + queued {queued}"
        )
    }
}

impl AddAssign for Balance {
    fn add_assign(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.delivered += other.delivered;
        self.returned += other.returned;
        self.dead += other.dead;
        self.queued += other.queued;
    }
}

/// How an accepted message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Handed to the target's connection.
    Delivered,
    /// An ERROR for it went into its source's mailbox.
    Returned,
    /// It was to be returned, but its source was gone too, or its mailbox full.
    Dead,
}

/// One target's account.
#[derive(Debug)]
struct Account {
    /// By slot: the source's label and balance.
    balances: Mutex<Vec<(Arc<str>, Balance)>>,
}

/// Tells the balances of all accounts apart, as long as the accounts live.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Place {
    account: usize,
    slot: usize,
}

/// One source's place in one target's account.
#[derive(Debug, Clone)]
pub struct Entry {
    account: Arc<Account>,
    slot: usize,
}

impl Entry {
    /// Messages were accepted: they are queued.
    pub fn accept(&self, amount: Amount) {
        self.update(|balance| {
            balance.accepted += amount;
            balance.queued += amount;
        });
    }

    /// Queued messages ended. Nothing, where the amount is zero.
    pub fn end(&self, amount: Amount, end: End) {
        if amount.is_zero() {
            return;
        }
        self.update(|balance| {
            balance.queued -= amount;
            match end {
                End::Delivered => balance.delivered += amount,
                End::Returned => balance.returned += amount,
                End::Dead => balance.dead += amount,
            }
        });
    }

    /// Which balance this is.
    pub fn place(&self) -> Place {
        Place { account: Arc::as_ptr(&self.account).addr(), slot: self.slot }
    }

    fn update(&self, change: impl FnOnce(&mut Balance)) {
        change(&mut lock(&self.account.balances)[self.slot].1);
    }
}

/// All accounts.
#[derive(Debug)]
pub struct Accounts {
    max_names: usize,
    directory: Mutex<Directory>,
}

#[derive(Debug, Default)]
struct Directory {
    names: HashSet<Arc<str>>,
    targets: HashMap<Arc<str>, Target>,
    pairs: usize,
}

#[derive(Debug)]
struct Target {
    account: Arc<Account>,
    slots: HashMap<Arc<str>, usize>,
}

/// One row of a [snapshot](Accounts::snapshot).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub source: Arc<str>,
    pub target: Arc<str>,
    pub place: Place,
    pub balance: Balance,
}

impl Accounts {
    pub fn new(max_names: usize) -> Self {
        Self { max_names, directory: Mutex::default() }
    }

    /// The source's place in the target's account. Where the target is no service's name (or
    /// not known), it is `None` and counted as [`OTHER`].
    pub fn entry(&self, source: &Name, target: Option<&Name>) -> Entry {
        let mut directory = lock(&self.directory);
        let target =
            target.map_or_else(|| OTHER.into(), |target| directory.label(target.as_str(), self.max_names));
        let mut source = directory.label(source.as_str(), self.max_names);
        let max_pairs = self.max_names.saturating_mul(PAIRS_PER_NAME);
        let known = directory.targets.get(&target).is_some_and(|target| target.slots.contains_key(&source));
        if !known && directory.pairs >= max_pairs {
            source = OTHER.into();
        }
        directory.entry(source, target)
    }

    /// A reading of every balance, target by target. Those of one target are of one moment.
    pub fn snapshot(&self) -> Vec<Row> {
        let accounts: Vec<(Arc<str>, Arc<Account>)> = {
            let directory = lock(&self.directory);
            directory.targets.iter().map(|(name, target)| (name.clone(), target.account.clone())).collect()
        };
        let mut rows = Vec::new();
        for (target, account) in accounts {
            let balances = lock(&account.balances);
            rows.extend(balances.iter().enumerate().map(|(slot, (source, balance))| Row {
                source: source.clone(),
                target: target.clone(),
                place: Place { account: Arc::as_ptr(&account).addr(), slot },
                balance: *balance,
            }));
        }
        rows
    }
}

impl Directory {
    fn label(&mut self, name: &str, max_names: usize) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return known.clone();
        }
        if self.names.len() >= max_names {
            return OTHER.into();
        }
        let label: Arc<str> = name.into();
        self.names.insert(label.clone());
        label
    }

    fn entry(&mut self, source: Arc<str>, target: Arc<str>) -> Entry {
        let target = self.targets.entry(target).or_insert_with(|| Target {
            account: Arc::new(Account { balances: Mutex::default() }),
            slots: HashMap::new(),
        });
        let pairs = &mut self.pairs;
        let account = &target.account;
        let slot = *target.slots.entry(source).or_insert_with_key(|source| {
            *pairs += 1;
            let mut balances = lock(&account.balances);
            balances.push((source.clone(), Balance::default()));
            balances.len() - 1
        });
        Entry { account: target.account.clone(), slot }
    }
}

/// The counters under these locks are whole after every statement, so a panic elsewhere that
/// poisoned one does no harm.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn labels(accounts: &Accounts) -> Vec<(String, String)> {
        let mut labels: Vec<_> =
            accounts.snapshot().iter().map(|row| (row.source.to_string(), row.target.to_string())).collect();
        labels.sort();
        labels
    }

    #[test]
    fn every_end_moves_messages_out_of_the_queue() {
        let accounts = Accounts::new(10);
        let entry = accounts.entry(&name("a"), Some(&name("b")));
        entry.accept(Amount { messages: 6, bytes: 60 });
        entry.end(Amount { messages: 1, bytes: 10 }, End::Delivered);
        entry.end(Amount { messages: 2, bytes: 20 }, End::Returned);
        entry.end(Amount { messages: 1, bytes: 10 }, End::Dead);
        let balance = accounts.snapshot()[0].balance;
        assert_eq!(balance.queued, Amount { messages: 2, bytes: 20 });
        assert!(balance.balances(), "{balance:?}");
    }

    #[test]
    fn an_entry_asked_for_twice_is_the_same() {
        let accounts = Accounts::new(10);
        for _ in 0..2 {
            accounts.entry(&name("a"), Some(&name("b"))).accept(Amount::message(5));
        }
        let rows = accounts.snapshot();
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!(rows[0].balance.accepted, Amount { messages: 2, bytes: 10 });
    }

    #[test]
    fn names_beyond_the_bound_are_counted_as_other() {
        let accounts = Accounts::new(2);
        accounts.entry(&name("a"), Some(&name("b")));
        accounts.entry(&name("c"), Some(&name("b")));
        accounts.entry(&name("a"), Some(&name("d")));
        accounts.entry(&name("a"), None);
        assert_eq!(
            labels(&accounts),
            [("a", "b"), ("a", "other"), ("other", "b")].map(|(s, t)| (s.to_owned(), t.to_owned()))
        );
    }

    #[test]
    fn pairs_are_bounded_too() {
        let accounts = Accounts::new(40);
        for source in 0..20 {
            for target in 0..20 {
                accounts.entry(&name(&format!("s{source}")), Some(&name(&format!("t{target}"))));
            }
        }
        assert_eq!(accounts.snapshot().len(), 400);
        let tight = Accounts::new(4);
        for source in 0..4 {
            tight.entry(&name(&format!("s{source}")), Some(&name("s0")));
        }
        assert!(tight.snapshot().len() <= 4 * PAIRS_PER_NAME);
    }
}
