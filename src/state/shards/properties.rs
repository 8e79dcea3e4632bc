//! Days in the life of a bot, on a simulated clock: services ask, die, are killed, lose their
//! connection without noticing, leave and come back; the gateway is killed between any two of its
//! actions, and goes on with other settings; somebody sets the wall clock forward and back; operators
//! freeze, release and reshard. A witness that knows Discord's rules, and nothing
//! of the pool but its actions, finds them kept after every step.

mod bot;
mod discord;
mod gateway;
mod service;
mod trouble;

use proptest::prelude::*;

use super::*;

use self::bot::Bot;

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// SplitMix64 (Steele, Lea, Flood 2014): the same run for the same seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// `0 … below-1`
    fn below(&mut self, below: u64) -> u64 {
        self.next() % below.max(1)
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// One bot's days.
#[derive(Debug, Clone, Copy)]
struct Story {
    shard_count: u32,
    max_concurrency: u32,
    /// How many troubles happen before everything is left alone.
    troubles: u32,
    seed: u64,
}

impl Story {
    fn tell(self) -> Bot {
        let mut bot = Bot::new(self);
        bot.live_through(self.troubles);
        bot.come_to_rest();
        bot
    }
}

fn small() -> impl Strategy<Value = Story> {
    (1_u32..=9, prop_oneof![Just(1_u32), Just(16), Just(64)], any::<u64>()).prop_map(
        |(shard_count, max_concurrency, seed)| Story { shard_count, max_concurrency, troubles: 60, seed },
    )
}

fn middling() -> impl Strategy<Value = Story> {
    (10_u32..=200, prop_oneof![Just(1_u32), Just(16), Just(64)], any::<u64>()).prop_map(
        |(shard_count, max_concurrency, seed)| Story { shard_count, max_concurrency, troubles: 80, seed },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_small_bot_lives_by_the_rules(story in small()) {
        story.tell();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_middling_bot_lives_by_the_rules(story in middling()) {
        story.tell();
    }
}

#[test]
fn large_bots_live_by_the_rules() {
    for (shard_count, max_concurrency, troubles) in
        [(1_024, 1, 60), (4_096, 1, 2), (4_096, 16, 30), (4_096, 64, 30)]
    {
        Story { shard_count, max_concurrency, troubles, seed: 1 }.tell();
    }
}

/// Where every troubled moment of the stories above is rare, this one looks whether they came at all.
#[test]
fn the_stories_are_eventful() {
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..80 {
        let bot = Story { shard_count: 6, max_concurrency: 1, troubles: 60, seed }.tell();
        for (what, times) in bot.gateway.seen {
            *seen.entry(what).or_default() += times;
        }
    }
    for what in [
        "crash before the write",
        "crash after the write",
        "crash among the actions",
        "restart with a lease lost",
        "switch",
        "abort",
        "frozen by a close code",
        "crash loop",
        "budget exhausted",
        "resume handed on",
        "vanished holder held back",
        "lease without a permit",
        "own lease again",
        "clock set forward",
        "clock set back",
        "other settings",
        "told without a connection",
    ] {
        assert!(seen.get(what).is_some_and(|times| *times >= 3), "{what} is missing: {seen:?}");
    }
}

/// The least time that the rules allow for 256 shards with 16 keys: 15 intervals.
#[test]
fn a_start_of_256_shards_takes_no_longer_than_the_rules_demand() {
    let story = Story { shard_count: 256, max_concurrency: 16, troubles: 0, seed: 7 };
    let mut bot = Bot::prompt(story);
    let start = bot.gateway.now_ms();
    while bot.gateway.leased() < 256 {
        bot.next_event();
    }
    let (took, least) = (bot.gateway.now_ms() - start, 15 * 5_500);
    assert!(took >= least, "{took} ms is less than the rules allow");
    assert!(took * 100 <= least * 105, "{took} ms, and the rules allow {least} ms");
}
