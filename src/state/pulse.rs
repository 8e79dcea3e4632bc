//! Whether a connection still lives and still takes what is sent to it.
//!
//! Two rules, both about one connection. *Silent*: no frame came for three intervals of
//! `heartbeat_ms`. *Too slow*: less than `min_drain_bytes` were taken in `stuck_ms` while more
//! was waiting. A connection that reads slowly gets pings late and answers late, so taking what
//! waited counts as life too.

use std::time::{Duration, Instant};

use crate::protocol::close::Close;

/// How many intervals of `heartbeat_ms` may pass without a frame.
const MISSED_HEARTBEATS: u32 = 3;

/// It is looked at no more often than this.
const LEAST_INTERVAL: Duration = Duration::from_millis(10);

/// The settings that decide.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub heartbeat: Duration,
    pub stuck: Duration,
    pub min_drain_bytes: u64,
}

/// What is seen of a connection at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Observation {
    /// When the last frame came, or, where reading was paused on purpose, now.
    pub heard: Instant,
    /// The bytes that the peer has acknowledged since the connection began.
    pub taken: u64,
    /// Whether more is waiting for it: in the mailbox, in our buffers or unacknowledged.
    pub waiting: bool,
    /// The bytes that its socket was given since the connection began; `None` where still more
    /// waits to be given.
    pub given: Option<u64>,
}

/// One connection's pulse.
#[derive(Debug)]
pub struct Pulse {
    limits: Limits,
    taken: u64,
    progressed: Instant,
    /// When it last gave a sign of life, as far as it was looked at.
    alive: Instant,
    owing: Option<Owing>,
}

/// From when on a connection has to take `min_drain_bytes`, or all that waited then.
#[derive(Debug, Clone, Copy)]
struct Owing {
    since: Instant,
    /// What it had taken.
    taken: u64,
    /// What it will have taken once it has all that waited; `None` until all of it was given to the
    /// socket.
    all: Option<u64>,
}

impl Pulse {
    pub fn new(limits: Limits, now: Instant) -> Self {
        Self { limits, taken: 0, progressed: now, alive: now, owing: None }
    }

    /// When to [check](Self::check) next: often enough to see whether it takes what it should, and
    /// at the moment from which on it is silent.
    pub fn next_check(&self, now: Instant) -> Instant {
        let interval = self.limits.heartbeat.min(self.limits.stuck / 8);
        let silent = self.alive + self.limits.heartbeat * MISSED_HEARTBEATS;
        (now + interval).min(silent).max(now + LEAST_INTERVAL)
    }

    /// Says whether, and why, the connection is to be ended.
    pub fn check(&mut self, seen: Observation, now: Instant) -> Option<Close> {
        if seen.taken != self.taken || !seen.waiting {
            self.taken = seen.taken;
            self.progressed = now;
        }
        if self.is_too_slow(seen, now) {
            return Some(Close::TooSlow);
        }
        self.alive = if seen.waiting { seen.heard.max(self.progressed) } else { seen.heard };
        (now.saturating_duration_since(self.alive) >= self.limits.heartbeat * MISSED_HEARTBEATS)
            .then_some(Close::Silent)
    }

    fn is_too_slow(&mut self, seen: Observation, now: Instant) -> bool {
        if !seen.waiting {
            self.owing = None;
            return false;
        }
        let begin = Owing { since: now, taken: seen.taken, all: seen.given };
        let owing = self.owing.get_or_insert(begin);
        owing.all = owing.all.or(seen.given);
        let took_enough = seen.taken.saturating_sub(owing.taken) >= self.limits.min_drain_bytes;
        // Of a little that comes all the time, something is always unacknowledged.
        let took_all = owing.all.is_some_and(|all| seen.taken >= all);
        if took_enough || took_all {
            *owing = begin;
        }
        now.saturating_duration_since(owing.since) >= self.limits.stuck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { heartbeat: Duration::from_secs(5), stuck: Duration::from_secs(30), min_drain_bytes: 65_536 };

    /// Checks once a second for `seconds`, with what `seen` says of each; the first verdict and
    /// its second.
    fn first_verdict(seconds: u64, seen: impl Fn(u64, Instant) -> Observation) -> Option<(u64, Close)> {
        let start = Instant::now();
        let mut pulse = Pulse::new(LIMITS, start);
        (0..=seconds).find_map(|second| {
            let now = start + Duration::from_secs(second);
            pulse.check(seen(second, start), now).map(|close| (second, close))
        })
    }

    #[test]
    fn three_missed_heartbeats_are_silence() {
        let verdict = first_verdict(60, |_, start| Observation {
            heard: start,
            taken: 0,
            waiting: false,
            given: Some(0),
        });
        assert_eq!(verdict, Some((15, Close::Silent)));
    }

    #[test]
    fn silence_is_found_when_it_is_complete_and_not_a_check_later() {
        let start = Instant::now();
        let heard = start + Duration::from_millis(3_200);
        let (mut pulse, mut now) = (Pulse::new(LIMITS, start), start);
        let verdict = loop {
            now = pulse.next_check(now);
            let seen = Observation { heard: heard.min(now), taken: 0, waiting: false, given: Some(0) };
            if let Some(close) = pulse.check(seen, now) {
                break close;
            }
        };
        assert_eq!((verdict, now), (Close::Silent, heard + Duration::from_secs(15)));
    }

    #[test]
    fn a_service_that_is_heard_lives() {
        let verdict = first_verdict(600, |second, start| Observation {
            heard: start + Duration::from_secs(second.saturating_sub(14)),
            taken: 0,
            waiting: false,
            given: Some(0),
        });
        assert_eq!(verdict, None);
    }

    #[test]
    fn one_that_talks_but_does_not_read_is_too_slow() {
        let verdict = first_verdict(60, |second, start| Observation {
            heard: start + Duration::from_secs(second),
            taken: 1000 * second,
            waiting: true,
            given: (second > 5).then_some(1_000_000),
        });
        assert_eq!(verdict, Some((30, Close::TooSlow)));
    }

    #[test]
    fn one_that_reads_slowly_but_enough_lives_though_its_pongs_are_late() {
        let verdict = first_verdict(600, |second, start| Observation {
            heard: start,
            taken: 3000 * second,
            waiting: true,
            given: None,
        });
        assert_eq!(verdict, None);
    }

    #[test]
    fn one_that_gets_little_and_takes_it_all_lives_though_its_last_bytes_are_never_acknowledged_yet() {
        let verdict = first_verdict(600, |second, start| Observation {
            heard: start + Duration::from_secs(second),
            taken: 100 * second,
            waiting: true,
            given: (second % 3 != 0).then_some(100 * second + 100),
        });
        assert_eq!(verdict, None);
    }

    #[test]
    fn a_hung_service_with_a_full_buffer_is_silent_before_it_is_slow() {
        let verdict = first_verdict(60, |_, start| Observation {
            heard: start,
            taken: 7,
            waiting: true,
            given: Some(8),
        });
        assert_eq!(verdict, Some((15, Close::Silent)));
    }
}
