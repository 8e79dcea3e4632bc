//! How many wrong credentials an address may show: so many at once, then so many a minute.
//!
//! Beyond that nothing of it is checked any more but tokens, whose check is one look-up. The
//! addresses that are remembered are bounded: those that guessed least lately are forgotten.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::peer::Peer;

/// The most addresses that are remembered.
const MAX_ADDRESSES: usize = 10_000;

const MINUTE: Duration = Duration::from_mins(1);

/// The wrong credentials of all addresses.
#[derive(Debug)]
pub struct Guesses {
    a_minute: u32,
    /// When all that an address showed would have come, had it come at the rate.
    due: HashMap<Peer, Instant>,
}

impl Guesses {
    /// `a_minute` is above 0; so many may also come at once.
    pub fn new(a_minute: u32) -> Self {
        Self { a_minute, due: HashMap::new() }
    }

    /// How long the address has to wait, if it has shown too many.
    pub fn must_wait(&self, peer: Peer, now: Instant) -> Option<Duration> {
        let due = self.due.get(&whose(peer))?;
        (due.saturating_duration_since(now) + self.each()).checked_sub(MINUTE).filter(|wait| !wait.is_zero())
    }

    /// A wrong one came. Counts as long as the address need not wait.
    pub fn note(&mut self, peer: Peer, now: Instant) {
        let (each, peer) = (self.each(), whose(peer));
        if !self.due.contains_key(&peer) {
            self.make_room(now);
        }
        let due = self.due.entry(peer).or_insert(now);
        *due = (*due).max(now) + each;
    }

    fn each(&self) -> Duration {
        MINUTE / self.a_minute
    }

    fn make_room(&mut self, now: Instant) {
        if self.due.len() < MAX_ADDRESSES {
            return;
        }
        self.due.retain(|_, due| *due > now);
        if self.due.len() >= MAX_ADDRESSES {
            // Half of them at once: a look over all is dear.
            let mut dues: Vec<Instant> = self.due.values().copied().collect();
            let (_, middle, _) = dues.select_nth_unstable(MAX_ADDRESSES / 2);
            let middle = *middle;
            self.due.retain(|_, due| *due > middle);
        }
    }
}

/// A host has a whole /64 of IPv6 addresses.
fn whose(peer: Peer) -> Peer {
    let Peer::Address(address) = peer else { return peer };
    Peer::Address(match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Peer {
        Peer::Address(text.parse().unwrap())
    }

    #[test]
    fn a_minutes_worth_may_come_at_once_and_then_it_is_the_rate() {
        let start = Instant::now();
        let mut guesses = Guesses::new(6);
        let (here, elsewhere) = (address("10.0.0.1"), address("10.0.0.2"));
        for _ in 0..6 {
            assert_eq!(guesses.must_wait(here, start), None);
            guesses.note(here, start);
        }
        assert_eq!(guesses.must_wait(here, start), Some(Duration::from_secs(10)));
        assert_eq!(guesses.must_wait(elsewhere, start), None);
        let later = start + Duration::from_secs(10);
        assert_eq!(guesses.must_wait(here, later), None);
        guesses.note(here, later);
        assert_eq!(guesses.must_wait(here, later), Some(Duration::from_secs(10)));
        assert_eq!(guesses.must_wait(here, start + Duration::from_mins(10)), None);
    }

    #[test]
    fn a_host_is_one_address_however_many_it_has() {
        let start = Instant::now();
        let mut guesses = Guesses::new(1);
        guesses.note(address("2001:db8::1"), start);
        assert!(guesses.must_wait(address("2001:db8::2"), start).is_some());
        assert!(guesses.must_wait(address("2001:db8:0:1::1"), start).is_none());
        guesses.note(address("::ffff:10.0.0.1"), start);
        assert!(guesses.must_wait(address("10.0.0.1"), start).is_some());
    }

    #[test]
    fn the_addresses_that_are_remembered_are_bounded() {
        let start = Instant::now();
        let mut guesses = Guesses::new(1);
        for n in 0..20_000_u32 {
            guesses.note(Peer::Address(IpAddr::V4(n.into())), start + Duration::from_millis(n.into()));
            assert!(guesses.due.len() <= MAX_ADDRESSES);
        }
        let end = start + Duration::from_secs(20);
        assert!(guesses.must_wait(Peer::Address(IpAddr::V4(19_999.into())), end).is_some());
    }
}
