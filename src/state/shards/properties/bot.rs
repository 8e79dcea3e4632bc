//! The services of a bot: they ask for ids, IDENTIFY, and get into trouble.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::protocol::name::{Name, ShardId};
use crate::protocol::op::{self, LeaseState};

use super::super::*;
use super::discord::Discord;
use super::gateway::Gateway;
use super::service::{Known, Manner, Service};
use super::{DAY, Dice, HOUR, MINUTE, SECOND, Story};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    Reconnect(usize),
    /// Asks for what it lacks.
    Ask(usize),
    Identify {
        service: usize,
        life: u64,
        shard: Shard,
    },
    Ready {
        service: usize,
        life: u64,
        shard: Shard,
    },
    /// The gateway notices that a connection ended, whose last frame came then.
    Noticed {
        service: usize,
        link: u64,
        last_frame: u64,
    },
    /// The session's window is over.
    WindowOver {
        service: usize,
        link: u64,
        last_frame: u64,
    },
    /// It has heard nothing for the window.
    CloseSessions {
        service: usize,
        link: u64,
    },
    GatewayStarts,
    Thaw,
    /// Discord counts for an answer.
    DiscordCounts {
        run: u64,
        asked: u64,
        answers_in: u64,
    },
    DiscordAnswers {
        run: u64,
        asked: u64,
        limit: SessionStartLimit,
    },
}

pub(super) struct Bot {
    pub(super) gateway: Gateway,
    pub(super) discord: Discord,
    pub(super) services: Vec<Service>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    scheduled: u64,
    pub(super) dice: Dice,
    /// Nothing goes wrong any more.
    at_rest: bool,
    pub(super) story: Story,
}

impl Bot {
    pub(super) fn new(story: Story) -> Self {
        let mut bot = Self::build(story, false);
        bot.gateway.crashes_one_in = 150 + u64::from(story.shard_count) * 4;
        bot
    }

    /// One service for each shard, all of which IDENTIFY at once when they may.
    pub(super) fn prompt(story: Story) -> Self {
        let mut bot = Self::build(story, true);
        bot.at_rest = true;
        bot
    }

    fn build(story: Story, prompt: bool) -> Self {
        let settings = Settings {
            shard_count: None,
            max_concurrency: 1,
            asks_discord: true,
            identify_interval: Duration::from_millis(5_500),
            permit_ttl: Duration::from_secs(5),
            resume_window: Duration::from_secs(30),
            heartbeat: Duration::from_secs(5),
        };
        let count = u64::from(story.shard_count);
        let mut dice = Dice(story.seed);
        let mut gateway = Gateway::new(Settings { shard_count: Some(story.shard_count), ..settings });
        let total = if prompt { 2 * count } else { 2 * count + 5 + dice.below(count * 4) };
        let now = gateway.now_ms();
        let mut discord = Discord::new(story.max_concurrency, story.shard_count, total, now);
        let limit = Input::SessionStartLimit { limit: discord.limit(now), asked_at: gateway.instant(now) };
        gateway.step(limit, &mut dice);
        let number = if prompt { story.shard_count } else { (story.shard_count + 2).min(40) };
        let mut bot = Self {
            gateway,
            discord,
            services: (0..number).map(|index| Service::new(index, prompt)).collect(),
            events: BinaryHeap::new(),
            scheduled: 0,
            dice,
            at_rest: false,
            story,
        };
        bot.want();
        (0..bot.services.len()).for_each(|index| bot.schedule(0, Event::Reconnect(index)));
        bot
    }

    /// Everybody together wants a little more than there is.
    pub(super) fn want(&mut self) {
        let each = self.gateway.target() as usize / self.services.len() + 1;
        for (index, service) in self.services.iter_mut().enumerate() {
            service.wants = each + usize::from(index == 0 && each > 1);
        }
    }

    pub(super) fn live_through(&mut self, troubles: u32) {
        for _ in 0..troubles {
            let pause = match self.dice.below(12) {
                0 => self.dice.below(4 * HOUR),
                1 | 2 => self.dice.below(10 * MINUTE),
                _ => self.dice.below(40 * SECOND),
            };
            self.live_until(self.gateway.now_ms() + pause);
            self.trouble();
        }
    }

    /// From now on nothing goes wrong: every id is granted in the end, and a reshard comes to its end.
    pub(super) fn come_to_rest(&mut self) {
        self.gateway.crashes_one_in = 0;
        self.at_rest = true;
        self.live_until(self.gateway.now_ms() + 2 * MINUTE);
        self.operate(Command::Thaw);
        for index in 0..self.services.len() {
            // Nobody waits for an id that it thought of in its troubles.
            self.services[index].connected = false;
            self.schedule(0, Event::Reconnect(index));
        }
        let end = self.gateway.now_ms() + 8 * DAY;
        while self.gateway.leased() < self.gateway.target() as usize || self.gateway.pool.next.is_some() {
            assert!(self.gateway.now_ms() < end, "ids are left: {:?}", self.story);
            self.next_event();
        }
        self.gateway.check_all();
    }

    pub(super) fn live_until(&mut self, end: u64) {
        while self.next_ms().is_some_and(|next| next <= end) {
            self.next_event();
        }
        self.gateway.pass_to(end.max(self.gateway.now_ms()));
    }

    fn next_ms(&self) -> Option<u64> {
        let event = self.events.peek().map(|Reverse((at, ..))| *at);
        event.into_iter().chain(self.gateway.next_wake_ms()).min()
    }

    pub(super) fn next_event(&mut self) {
        let wake = self.gateway.next_wake_ms();
        let event = self.events.peek().map(|Reverse((at, ..))| *at);
        let now = self.gateway.now_ms();
        match (event, wake) {
            (Some(at), wake) if wake.is_none_or(|wake| at <= wake) => {
                self.gateway.pass_to(at.max(now));
                let Some(Reverse((_, _, event))) = self.events.pop() else { return };
                self.happen(&event);
            }
            (_, Some(wake)) => {
                // Timers are late now and then.
                let late = if self.at_rest { 0 } else { self.dice.below(30) };
                self.gateway.pass_to((wake + late).max(now).min(event.unwrap_or(u64::MAX)).max(now));
                self.step(Input::Wake);
            }
            (_, None) => panic!("nothing will ever happen again: {:?}", self.story),
        }
    }

    pub(super) fn schedule(&mut self, in_ms: u64, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((self.gateway.now_ms() + in_ms, self.scheduled, event)));
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Reconnect(index) => self.reconnect(index),
            Event::Ask(index) => self.ask(index),
            Event::Identify { service, life, shard } => self.identify(service, life, shard),
            Event::Ready { service, life, shard } => {
                if self.services[service].life == life && self.services[service].sessions.contains(&shard) {
                    self.tell(service, shard, LeaseState::Ready);
                }
            }
            Event::Noticed { service, link, last_frame } => {
                if self.services[service].link == link && self.services[service].known == Known::Up {
                    self.gone(service, last_frame);
                }
            }
            Event::WindowOver { service, link, last_frame } => {
                if self.services[service].link == link && self.services[service].known == Known::Away {
                    let last_frame = Some(self.gateway.instant(last_frame));
                    self.down(service, Departure::Vanished { last_frame });
                }
            }
            Event::CloseSessions { service, link } => {
                let told_until = self.services[service].told_until;
                if self.services[service].link != link || self.services[service].connected {
                    return;
                }
                match told_until.saturating_sub(self.gateway.now_ms()) {
                    0 => self.new_life(service),
                    left => self.schedule(left, Event::CloseSessions { service, link }),
                }
            }
            Event::GatewayStarts => self.start_gateway(),
            Event::Thaw => self.operate(Command::Thaw),
            Event::DiscordCounts { run, asked, answers_in } => {
                let limit = self.discord.limit(self.gateway.now_ms());
                self.schedule(answers_in, Event::DiscordAnswers { run, asked, limit });
            }
            Event::DiscordAnswers { run, asked, limit } => {
                if self.gateway.runs == run {
                    let asked_at = self.gateway.instant(asked);
                    self.step(Input::SessionStartLimit { limit, asked_at });
                }
            }
        }
    }

    /// Hands an input in, and the services what comes of it.
    pub(super) fn step(&mut self, input: Input<u64>) {
        if self.gateway.is_up {
            let actions = self.gateway.step(input, &mut self.dice);
            self.deliver(actions);
        }
    }

    pub(super) fn operate(&mut self, command: Command) {
        if !self.gateway.is_up {
            return;
        }
        let (answer, actions) = self.gateway.operate(command, &mut self.dice);
        self.deliver(actions);
        match answer {
            Ok(Done::Resharding(_)) => {
                self.want();
                (0..self.services.len()).for_each(|index| self.schedule(100, Event::Ask(index)));
            }
            Ok(Done::Aborted) => {
                self.gateway.note("abort");
                self.want();
            }
            _ => {}
        }
    }

    fn deliver(&mut self, actions: Vec<Action<u64>>) {
        for action in actions {
            match action {
                Action::Accept { service, accept, .. } => self.accepted(&service, &accept),
                Action::Refuse { service, .. } => {
                    if let Some(index) = self.reached(&service) {
                        self.schedule(SECOND, Event::Ask(index));
                    }
                }
                Action::Revoke { service, revoke } => {
                    let shard = Shard { shard_count: revoke.shard_count, shard_id: revoke.shard_id };
                    if let Some(index) = self.reached(&service) {
                        self.services[index].sessions.remove(&shard);
                        self.schedule(50, Event::Ask(index));
                    }
                }
                Action::Shutdown { service, .. } => {
                    if let Some(index) = self.reached(&service) {
                        self.leave(index);
                    }
                }
                Action::Reboot { service, .. } => {
                    if let Some(index) = self.reached(&service) {
                        self.kill(index);
                    }
                }
                _ => {}
            }
        }
        if !self.gateway.is_up {
            self.lose_gateway();
        }
    }

    /// Whom a message for that name reaches.
    fn reached(&self, name: &Name) -> Option<usize> {
        Some(name.as_str()[1..].parse().unwrap()).filter(|index: &usize| self.services[*index].connected)
    }

    fn accepted(&mut self, name: &Name, accept: &op::ShardAccept) {
        let shard = Shard { shard_count: accept.shard_count, shard_id: accept.shard_id };
        let Some(index) = self.reached(name) else { return };
        for (other, service) in self.services.iter().enumerate() {
            let is_double = other != index && service.sessions.contains(&shard);
            assert!(!is_double, "{shard} is granted to {name}, and {} is connected with it", service.name);
        }
        let was_connected = !self.services[index].sessions.insert(shard);
        if was_connected || shard.shard_count != self.gateway.target() {
            // It got what it had already, and goes on asking.
            self.schedule(1, Event::Ask(index));
        }
        let service = &self.services[index];
        let delay = match service.manner {
            // It said that it is connected.
            Manner::Reporting if was_connected => return,
            _ if self.at_rest => 0,
            Manner::Founding => self.dice.below(500),
            // As long as nobody knows that it reports, it is as quick as one that does not.
            _ if !service.has_reported => self.dice.below(500),
            Manner::Reporting | Manner::Sloppy => self.dice.below(self.gateway.ttl_ms() + 1),
        };
        self.schedule(delay, Event::Identify { service: index, life: service.life, shard });
    }

    fn identify(&mut self, index: usize, life: u64, shard: Shard) {
        let service = &self.services[index];
        if service.life != life || !service.sessions.contains(&shard) {
            return;
        }
        self.discord.identify(shard.shard_id.0, self.gateway.now_ms());
        let tells = match service.manner {
            Manner::Founding => return,
            Manner::Reporting => true,
            Manner::Sloppy => !service.has_reported,
        };
        if tells {
            self.tell(index, shard, LeaseState::Identifying);
        }
        let delay = 200 + self.dice.below(3 * SECOND);
        self.schedule(delay, Event::Ready { service: index, life, shard });
    }

    fn tell(&mut self, index: usize, shard: Shard, state: LeaseState) {
        let service = &mut self.services[index];
        if !service.connected || service.manner == Manner::Founding {
            return;
        }
        service.has_reported = true;
        let resume = op::Resume::new(r#"{"session_id":"x"}"#).filter(|_| state == LeaseState::Ready);
        let state = op::ShardState {
            shard_id: shard.shard_id.0,
            shard_count: Some(shard.shard_count),
            state,
            resume,
        };
        let service = service.name.clone();
        self.step(Input::State { service, request: 0, state });
    }

    fn reconnect(&mut self, index: usize) {
        if self.services[index].connected || !self.gateway.is_up {
            return;
        }
        let name = self.services[index].name.clone();
        let input = Input::Resumed { service: name.clone() };
        let actions = self.gateway.step(input, &mut self.dice);
        if !self.gateway.is_up {
            return self.lose_gateway();
        }
        let listed = self.gateway.pool.shards_of(name.as_str());
        let service = &mut self.services[index];
        (service.connected, service.known) = (true, Known::Up);
        service.link += 1;
        service.sessions.retain(|shard| listed.contains(&shard.shard_id));
        self.deliver(actions);
        let service = &self.services[index];
        // What it still has at Discord it needs no permit for, and is told again.
        let (kept, life, manner) = (service.sessions.clone(), service.life, service.manner);
        for shard in kept {
            if manner == Manner::Reporting {
                self.request(index, Some(shard), false);
            }
            self.schedule(5 * SECOND, Event::Ready { service: index, life, shard });
        }
        self.schedule(1, Event::Ask(index));
    }

    fn ask(&mut self, index: usize) {
        let target = self.gateway.target();
        let service = &self.services[index];
        let name = service.name.clone();
        // Who comes back asks in the end for all that it had, also where it wants less by now.
        let listed = self.gateway.pool.target().held_by(name.as_str()).count();
        let wants = service.wants.max(if self.at_rest { listed } else { 0 });
        let has = service.sessions.iter().filter(|shard| shard.shard_count == target).count();
        let open = self.gateway.open.values().filter(|open| open.service == name).count();
        for _ in has + open..wants {
            let claim = (!self.at_rest && self.dice.one_in(12)).then(|| Shard {
                shard_count: target,
                shard_id: ShardId(u32::try_from(self.dice.below(u64::from(target))).unwrap()),
            });
            self.request(index, claim, true);
        }
    }

    fn request(&mut self, index: usize, claim: Option<Shard>, permit: bool) {
        if self.services[index].connected && self.gateway.is_up {
            let name = self.services[index].name.clone();
            let actions = self.gateway.connect(&name, claim, permit, &mut self.dice);
            self.deliver(actions);
        }
    }
}
