//! Who sends to whom, how much and how fast.

use std::ops::Range;

use crate::bench::process::Wanted;

/// The load of a run. Times are in seconds, sizes in bytes.
#[derive(Debug, Clone)]
pub(in crate::bench) struct Plan {
    pub(in crate::bench) shape: Shape,
    /// Of each message's `d`.
    pub(in crate::bench) size: usize,
    /// Messages of each sender that may be under way.
    pub(in crate::bench) window: u64,
    pub(in crate::bench) pace: Pace,
    /// The receivers acknowledge.
    pub(in crate::bench) ack: bool,
    /// The senders ask for RECEIPTs.
    pub(in crate::bench) receipts: bool,
    /// Threads look for work all the time instead of waiting for it.
    pub(in crate::bench) spin: bool,
    pub(in crate::bench) threads: usize,
    pub(in crate::bench) token: Option<String>,
}

/// Who sends to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bench) enum Shape {
    /// So many pairs: the services 0, 2, 4 … send to 1, 3, 5 …
    Pairs(usize),
    /// So many services send to one.
    FanIn(usize),
    /// Each of so many services sends to the next, and the last to the first.
    Ring(usize),
    /// Nobody sends.
    Idle(usize),
}

/// How fast it is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::bench) enum Pace {
    /// As fast as the window lets.
    Window,
    /// So many messages for each second, of all senders together, by a schedule that does not wait.
    Rate(f64),
}

impl Shape {
    pub(in crate::bench) fn services(self) -> usize {
        match self {
            Self::Pairs(pairs) => 2 * pairs,
            Self::FanIn(senders) => senders + 1,
            Self::Ring(services) | Self::Idle(services) => services,
        }
    }

    /// What is asked of this process's descriptors, and of those of a gateway that it `spawns`.
    pub(in crate::bench) fn wanted(self, spawns: bool) -> Wanted {
        let (flag, value) = match self {
            Self::Pairs(pairs) => ("pairs", pairs),
            Self::FanIn(services) | Self::Ring(services) => ("services", services),
            Self::Idle(connections) => ("connections", connections),
        };
        Wanted { connections: self.services(), flag, value, spawns }
    }

    pub(in crate::bench) fn senders(self) -> usize {
        (0..self.services()).filter(|index| self.target(*index).is_some()).count()
    }

    /// To whom a service sends.
    pub(super) fn target(self, index: usize) -> Option<usize> {
        match self {
            Self::Pairs(_) => index.is_multiple_of(2).then_some(index + 1),
            Self::FanIn(_) => (index > 0).then_some(0),
            Self::Ring(services) => Some((index + 1) % services),
            Self::Idle(_) => None,
        }
    }

    /// How many threads have services, where so many are asked for.
    pub(in crate::bench) fn threads(self, asked: usize) -> usize {
        self.parts(asked).len()
    }

    /// The services of each thread; who sends to whom stays together. Some may have none.
    pub(super) fn parts(self, threads: usize) -> Vec<Range<usize>> {
        let services = self.services();
        let (threads, step) = match self {
            Self::Pairs(_) => (threads, 2),
            Self::Idle(_) => (threads, 1),
            Self::FanIn(_) | Self::Ring(_) => (1, services),
        };
        let start = |thread: usize| services / step * thread / threads * step;
        (0..threads).map(|thread| start(thread)..start(thread + 1)).filter(|part| !part.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sends_to_whom_is_on_one_thread_and_nobody_is_left_out() {
        for shape in [Shape::Pairs(1), Shape::Pairs(7), Shape::FanIn(5), Shape::Ring(6), Shape::Idle(5)] {
            for threads in 1..5 {
                let parts = shape.parts(threads);
                let all: Vec<usize> = parts.iter().cloned().flatten().collect();
                assert_eq!(all, (0..shape.services()).collect::<Vec<_>>(), "{shape:?}");
                for part in &parts {
                    let mut targets = part.clone().filter_map(|index| shape.target(index));
                    assert!(targets.all(|target| part.contains(&target)), "{shape:?}: {parts:?}");
                }
            }
        }
    }

    #[test]
    fn each_shape_has_its_senders() {
        assert_eq!((Shape::Pairs(3).senders(), Shape::Pairs(3).target(2)), (3, Some(3)));
        assert_eq!((Shape::FanIn(3).senders(), Shape::FanIn(3).target(2)), (3, Some(0)));
        assert_eq!((Shape::Ring(3).senders(), Shape::Ring(3).target(2)), (3, Some(0)));
        assert_eq!((Shape::Idle(3).senders(), Shape::Idle(3).target(2)), (0, None));
    }
}
