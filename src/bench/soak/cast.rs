//! Who plays what: the same for the same number of services and the same seed.

use fastrand::Rng;

use crate::protocol::error::ErrorCode;

/// How many others each service sends to. Each pair has an account, so all pairs would be more of
/// them than a real set of services has.
const CIRCLE: usize = 8;
/// How many services one flooder floods.
const FLOODED: usize = 4;
/// The least that has one of every kind.
pub(super) const LEAST_SERVICES: u32 = 20;
/// As many as any bench has.
pub(super) const MOST_SERVICES: u32 = 100_000;

/// What a service does beside sending and receiving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing.
    Plain,
    /// Sends to shards too.
    Backend,
    /// Acknowledges what it gets.
    Acknowledging,
    /// Asks for RECEIPTs.
    Receipts,
    /// Does not read for seconds, and gets big messages.
    Slow,
    /// Takes shard ids and gives them back.
    Shard,
    /// Watches the others.
    Watcher,
    /// Fills the mailboxes of those that are away.
    Flooder,
}

/// The part that one service plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Role {
    pub(super) kind: Kind,
    /// Whether it loses its connection, leaves and comes back.
    pub(super) is_restless: bool,
}

/// The parts, and who sends to whom.
#[derive(Debug)]
pub(super) struct Cast {
    pub(super) roles: Vec<Role>,
    /// By source: the services that it sends to.
    pub(super) circles: Vec<Vec<usize>>,
    /// By target: the services that send to it.
    pub(super) sources: Vec<Vec<usize>>,
}

impl Role {
    /// The part of the service with that index.
    pub(super) fn of(index: usize) -> Self {
        let (kind, is_restless) = match index % 10 {
            0 => (Kind::Backend, false),
            2 => (Kind::Acknowledging, false),
            3 => (Kind::Acknowledging, true),
            4 => (Kind::Receipts, false),
            5 => (Kind::Receipts, true),
            6 => (Kind::Slow, false),
            7 => (Kind::Shard, true),
            9 if (index / 10).is_multiple_of(2) => (Kind::Watcher, false),
            9 => (Kind::Flooder, false),
            _ => (Kind::Plain, true),
        };
        Self { kind, is_restless }
    }

    pub(super) fn acknowledges(self) -> bool {
        self.kind == Kind::Acknowledging
    }

    /// Whether a message to it may be answered with that code.
    pub(super) fn may_refuse(self, code: ErrorCode) -> bool {
        match code {
            ErrorCode::NoSuchService | ErrorCode::Expired => self.is_restless,
            // A flooder's mailbox is full of what comes back to it.
            ErrorCode::MailboxFull => self.is_restless || matches!(self.kind, Kind::Slow | Kind::Flooder),
            _ => false,
        }
    }
}

impl Cast {
    pub(super) fn new(services: usize, seed: u64) -> Self {
        let roles: Vec<Role> = (0..services).map(Role::of).collect();
        let mut random = Rng::with_seed(seed);
        let restless: Vec<usize> = (0..services).filter(|index| roles[*index].is_restless).collect();
        let circles: Vec<Vec<usize>> = (0..services)
            .map(|index| {
                let is_flooder = roles[index].kind == Kind::Flooder;
                let mut others: Vec<usize> =
                    if is_flooder { restless.clone() } else { (0..services).collect() };
                others.retain(|other| *other != index);
                random.shuffle(&mut others);
                others.truncate(if is_flooder { FLOODED } else { CIRCLE });
                others
            })
            .collect();
        let mut sources = vec![Vec::new(); services];
        for (source, circle) in circles.iter().enumerate() {
            for target in circle {
                sources[*target].push(source);
            }
        }
        Self { roles, circles, sources }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_cast_has_every_kind() {
        let cast = Cast::new(LEAST_SERVICES as usize, 1);
        for kind in [
            Kind::Plain,
            Kind::Backend,
            Kind::Acknowledging,
            Kind::Receipts,
            Kind::Slow,
            Kind::Shard,
            Kind::Watcher,
            Kind::Flooder,
        ] {
            assert!(cast.roles.iter().any(|role| role.kind == kind), "nobody is {kind:?}");
        }
    }

    #[test]
    fn the_seed_decides_who_sends_to_whom() {
        let circles = |seed| Cast::new(200, seed).circles;
        assert_eq!(circles(7), circles(7));
        assert_ne!(circles(7), circles(8));
    }

    #[test]
    fn nobody_sends_to_itself_and_flooders_only_to_those_that_go_away() {
        let cast = Cast::new(200, 3);
        for (source, circle) in cast.circles.iter().enumerate() {
            assert!(!circle.is_empty() && !circle.contains(&source));
            let is_flooder = cast.roles[source].kind == Kind::Flooder;
            for target in circle {
                assert!(!is_flooder || cast.roles[*target].is_restless);
                assert!(cast.sources[*target].contains(&source));
            }
        }
    }
}
