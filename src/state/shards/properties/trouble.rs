//! What goes wrong with a bot and its gateway.

use crate::protocol::name::ShardId;
use crate::protocol::op;

use super::super::*;
use super::bot::{Bot, Event};
use super::service::Known;
use super::{HOUR, MINUTE, SECOND};

impl Bot {
    pub(super) fn trouble(&mut self) {
        let index = usize::try_from(self.dice.below(self.services.len() as u64)).unwrap();
        match self.dice.below(28) {
            0..=3 => self.kill(index),
            4..=6 | 13 => self.cut(index),
            7..=11 => self.die(index),
            12 => self.leave(index),
            14 => {
                self.operate(Command::Freeze);
                self.thaw_later();
            }
            15 => {
                let target = self.gateway.pool.shard_count();
                let id = u32::try_from(self.dice.below(u64::from(target))).unwrap();
                self.operate(Command::Release { shard_id: ShardId(id), shard_count: None });
            }
            16..=18 => self.reshard(),
            19 => self.operate(Command::AbortReshard),
            20 => self.ask_discord(),
            // One shard dies again and again.
            21 | 22 => self.die_in_a_loop(),
            23 | 24 => self.set_clock(),
            25 | 26 => self.ask_by_http(index),
            _ => {
                if self.gateway.is_up {
                    self.gateway.is_up = false;
                    self.lose_gateway();
                }
            }
        }
    }

    /// A request takes up to ten seconds; when Discord counts meanwhile is not known.
    fn ask_discord(&mut self) {
        let (counts_in, answers_in) = (self.dice.below(5 * SECOND), self.dice.below(5 * SECOND));
        let (run, asked) = (self.gateway.runs, self.gateway.now_ms());
        self.schedule(counts_in, Event::DiscordCounts { run, asked, answers_in });
    }

    /// Somebody sets the wall clock. A gateway that runs looks at it, and is not killed before; where
    /// none runs, nobody can tell a clock that was set forward from time that went by.
    fn set_clock(&mut self) {
        let most = if self.dice.one_in(2) { 20 * SECOND } else { 3 * HOUR };
        let by = (200 + self.dice.below(most)).cast_signed();
        if self.dice.one_in(2) {
            self.gateway.note("clock set back");
            self.gateway.wall -= by;
        } else if self.gateway.is_up {
            self.gateway.note("clock set forward");
            self.gateway.wall += by;
        }
        if self.gateway.is_up && self.gateway.pool.is_clock_off(self.gateway.now()) {
            let crashes_one_in = std::mem::take(&mut self.gateway.crashes_one_in);
            self.step(Input::Wake);
            self.gateway.crashes_one_in = crashes_one_in;
        }
    }

    fn reshard(&mut self) {
        let (count, keys) = (self.story.shard_count, self.story.max_concurrency);
        let other = 1 + u32::try_from(self.dice.below(u64::from(2 * count))).unwrap();
        let shard_count = if keys > 1 { other.div_ceil(keys) * keys } else { other };
        // A small bot with many keys has few counts to choose from.
        let shard_count = if self.dice.one_in(3) { count } else { shard_count.min(4_096) };
        let mode = if self.dice.one_in(4) { Mode::Immediate } else { Mode::Rolling };
        self.operate(Command::Reshard { shard_count, mode, dry_run: false });
    }

    pub(super) fn thaw_later(&mut self) {
        let delay = self.dice.below(3 * MINUTE);
        self.schedule(delay, Event::Thaw);
    }

    /// Its process is gone, and its Discord connections with it.
    pub(super) fn kill(&mut self, index: usize) {
        if self.services[index].connected {
            self.new_life(index);
            self.services[index].connected = false;
            self.gone(index, self.gateway.now_ms());
        }
        let most = if self.dice.one_in(2) { 20 * SECOND } else { 2 * MINUTE };
        let delay = self.dice.below(most);
        self.schedule(delay, Event::Reconnect(index));
    }

    /// Its connection dies without a word. The gateway notices within three heartbeats, and may have
    /// been heard for as long; the service keeps its Discord connections for a window after that.
    pub(super) fn cut(&mut self, index: usize) {
        if !self.services[index].connected {
            return;
        }
        let (now, three) = (self.gateway.now_ms(), self.gateway.silence_ms());
        self.services[index].connected = false;
        self.services[index].link += 1;
        let link = self.services[index].link;
        let noticed = self.dice.below(three + 1);
        self.schedule(noticed, Event::Noticed { service: index, link, last_frame: now });
        let closes = self.gateway.window_ms() + self.dice.below(three);
        self.schedule(closes, Event::CloseSessions { service: index, link });
        let back = self.dice.below(2 * MINUTE);
        self.schedule(back, Event::Reconnect(index));
    }

    /// It is told which ids it has still, though it has no connection, and goes by that.
    fn ask_by_http(&mut self, index: usize) {
        let service = &mut self.services[index];
        if service.connected || service.known == Known::Up || !self.gateway.is_up {
            return;
        }
        let listed = self.gateway.pool.shards_of(service.name.as_str());
        service.sessions.retain(|shard| listed.contains(&shard.shard_id));
        if listed.is_empty() {
            return;
        }
        service.told_until = self.gateway.now_ms() + self.gateway.window_ms();
        if !service.sessions.is_empty() {
            self.gateway.note("told without a connection");
        }
        let service = service.name.clone();
        self.step(Input::Heard { service });
    }

    fn die_in_a_loop(&mut self) {
        let target = self.gateway.target();
        let id = ShardId(u32::try_from(self.dice.below(u64::from(target))).unwrap());
        let shard = Shard { shard_count: target, shard_id: id };
        for _ in 0..self.dice.below(6) + 5 {
            if let Some(index) = self.services.iter().position(|service| service.sessions.contains(&shard)) {
                self.lose(index, shard);
            }
            self.live_until(self.gateway.now_ms() + 15 * SECOND);
        }
    }

    pub(super) fn die(&mut self, index: usize) {
        if let Some(shard) = self.services[index].sessions.first().copied() {
            self.lose(index, shard);
        }
    }

    /// Discord closes a connection.
    fn lose(&mut self, index: usize, shard: Shard) {
        if !self.services[index].connected {
            return;
        }
        let code = match self.dice.below(30) {
            0 => 4014,
            1 => 4004,
            2..=9 => 1006,
            _ => 4009,
        };
        let resume = op::Resume::new(r#"{"session_id":"y"}"#).filter(|_| self.dice.one_in(2));
        let death = op::ShardDeath {
            shard_id: Some(shard.shard_id.0),
            shard_count: Some(shard.shard_count),
            close_code: Some(code),
            resume,
        };
        self.services[index].sessions.remove(&shard);
        let service = self.services[index].name.clone();
        self.step(Input::Death { service, request: 0, death });
        if code == 4014 || code == 4004 {
            self.thaw_later();
        }
        let delay = self.dice.below(2 * SECOND);
        self.schedule(delay, Event::Ask(index));
    }

    /// It leaves for good, and another process of its name comes.
    pub(super) fn leave(&mut self, index: usize) {
        if self.services[index].connected {
            self.new_life(index);
            self.services[index].connected = false;
            self.services[index].link += 1;
            self.down(index, Departure::Left);
        }
        let delay = self.dice.below(MINUTE);
        self.schedule(delay, Event::Reconnect(index));
    }

    pub(super) fn new_life(&mut self, index: usize) {
        self.services[index].life += 1;
        self.services[index].sessions.clear();
    }

    pub(super) fn gone(&mut self, index: usize, last_frame: u64) {
        let service = &mut self.services[index];
        service.known = Known::Away;
        service.link += 1;
        let (link, name) = (service.link, service.name.clone());
        // One that is only cut off goes on by what it hears.
        let last = self.gateway.instant(last_frame);
        self.step(Input::Away { service: name, last_frame: Some(last) });
        self.schedule(self.gateway.window_ms(), Event::WindowOver { service: index, link, last_frame });
        if !self.services[index].sessions.is_empty() {
            let heard_until = last_frame + self.gateway.silence_ms() - 1;
            let closes = (heard_until + self.gateway.window_ms()).saturating_sub(self.gateway.now_ms());
            self.schedule(closes, Event::CloseSessions { service: index, link });
        }
    }

    pub(super) fn down(&mut self, index: usize, departure: Departure) {
        self.services[index].known = Known::Gone;
        self.services[index].has_reported = false;
        let service = self.services[index].name.clone();
        self.step(Input::Down { service, departure });
    }

    /// The gateway was killed: nobody hears of it until it is back.
    pub(super) fn lose_gateway(&mut self) {
        for index in 0..self.services.len() {
            let service = &mut self.services[index];
            (service.known, service.has_reported) = (Known::Gone, false);
            // Who was cut off before has heard nothing for longer.
            if service.connected {
                service.connected = false;
                service.link += 1;
                let link = service.link;
                self.schedule(self.gateway.window_ms() - 1, Event::CloseSessions { service: index, link });
            }
        }
        let most = if self.dice.one_in(3) { 2 * MINUTE } else { 10 * SECOND };
        let delay = self.dice.below(most);
        self.schedule(delay, Event::GatewayStarts);
    }

    pub(super) fn start_gateway(&mut self) {
        if self.gateway.is_up {
            return;
        }
        if self.dice.one_in(3) {
            self.gateway.change_settings(&mut self.dice);
        }
        self.gateway.start_again();
        self.ask_discord();
        self.want();
        for index in 0..self.services.len() {
            let most = if self.dice.one_in(4) { MINUTE } else { 20 * SECOND };
            let delay = self.dice.below(most);
            self.schedule(delay, Event::Reconnect(index));
        }
    }
}
