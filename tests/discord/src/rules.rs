//! Discord's rules for sessions, without sockets: what IDENTIFY and RESUME lead to, and what was
//! against the rules.
//!
//! From Discord's documentation: <https://discord.com/developers/docs/events/gateway> (sharding,
//! session start limit, resuming) and its list of close codes. What Discord punishes, and what a
//! shard manager must never do (one id twice), is recorded as a [`Violation`]. What it merely answers,
//! such as a RESUME that comes too late, is none.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

#[cfg(test)]
mod tests;

/// What this Discord demands.
#[derive(Debug, Clone)]
pub struct Settings {
    pub token: String,
    /// Recommended.
    pub shards: u32,
    pub max_concurrency: u32,
    /// Session starts a day.
    pub total: u64,
    pub remaining: u64,
    pub reset_after: Duration,
    /// Between two IDENTIFYs of one key: Discord's 5 s, or less.
    pub identify_interval: Duration,
    pub heartbeat: Duration,
    /// How long a session can be resumed after its connection.
    pub session_life: Duration,
    /// `shard_count` must be a multiple of it, as is demanded of large bots.
    pub shards_multiple: u32,
    /// Bots with fewer shards get 4011.
    pub least_shards: u32,
    /// What must not be asked for: 4014.
    pub disallowed_intents: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            token: "fake.bot-token".to_owned(),
            shards: 1,
            max_concurrency: 1,
            total: 1000,
            remaining: 1000,
            reset_after: Duration::from_hours(4),
            identify_interval: Duration::from_secs(5),
            heartbeat: Duration::from_secs(10),
            session_life: Duration::from_mins(2),
            shards_multiple: 1,
            least_shards: 1,
            disallowed_intents: 0,
        }
    }
}

/// Something that a shard manager must not let happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(pub String);

/// `[shard_id, shard_count]`
pub type Shard = (u32, u32);

/// The answer to IDENTIFY or RESUME.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Its first event is READY.
    Ready {
        session: String,
    },
    Resumed {
        session: String,
        replay: Vec<Value>,
    },
    /// Op 9: start anew.
    InvalidSession,
    Close {
        code: u16,
        reason: &'static str,
    },
}

/// A session, live or waiting to be resumed.
#[derive(Debug)]
struct Session {
    shard: Shard,
    /// All events, the first one with the sequence number 1.
    events: Vec<Value>,
    connection: Option<u64>,
    ended: Option<Instant>,
}

/// Discord's state.
#[derive(Debug)]
pub struct Rules {
    settings: Settings,
    last_identify: HashMap<u32, (Instant, Shard)>,
    sessions: BTreeMap<String, Session>,
    violations: Vec<Violation>,
    identifies: u64,
    resumes: u64,
}

impl Rules {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            last_identify: HashMap::new(),
            sessions: BTreeMap::new(),
            violations: Vec::new(),
            identifies: 0,
            resumes: 0,
        }
    }

    pub fn settings(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// `url` is where a session is to be resumed.
    pub fn identify(&mut self, connection: u64, data: &Value, url: &str, now: Instant) -> Verdict {
        let shard = match self.check_identify(data) {
            Ok(shard) => shard,
            Err((code, reason)) => return Verdict::Close { code, reason },
        };
        self.identifies += 1;
        let Some(left) = self.settings.remaining.checked_sub(1) else {
            // Discord resets the token of such a bot.
            self.violate(format!("shard {shard:?} IDENTIFYs, and no session start is left"));
            return Verdict::Close { code: 4004, reason: "Authentication failed." };
        };
        self.settings.remaining = left;
        if !self.is_paced(shard, now) {
            return Verdict::InvalidSession;
        }
        if let Some(id) = self.live_session(shard) {
            self.violate(format!("shard {shard:?} IDENTIFYs while its session {id} is connected"));
        }
        self.sessions.retain(|_, other| other.shard != shard || other.connection.is_some());
        let session = format!("session-{}-of-{}-{}", shard.0, shard.1, self.identifies);
        let ready =
            json!({"v": 10, "session_id": session, "resume_gateway_url": url, "shard": [shard.0, shard.1]});
        let events = vec![event(1, "READY", &ready)];
        let live = Session { shard, events, connection: Some(connection), ended: None };
        self.sessions.insert(session.clone(), live);
        Verdict::Ready { session }
    }

    /// Libraries send it with the word `Bot` too, and Discord takes that.
    fn is_token(&self, told: &Value) -> bool {
        let told = told.as_str().unwrap_or_default();
        told.strip_prefix("Bot ").unwrap_or(told) == self.settings.token
    }

    fn check_identify(&self, data: &Value) -> Result<Shard, (u16, &'static str)> {
        if !self.is_token(&data["token"]) {
            return Err((4004, "Authentication failed."));
        }
        let Some(intents) = data["intents"].as_u64() else { return Err((4013, "Invalid intent(s).")) };
        if intents & self.settings.disallowed_intents != 0 {
            return Err((4014, "Disallowed intent(s)."));
        }
        let number = |index: usize| data["shard"][index].as_u64().and_then(|n| u32::try_from(n).ok());
        let told = if data.get("shard").is_some() { number(0).zip(number(1)) } else { Some((0, 1)) };
        let Some(shard @ (id, count)) = told else { return Err((4010, "Invalid shard.")) };
        if id >= count || !count.is_multiple_of(self.settings.shards_multiple) {
            return Err((4010, "Invalid shard."));
        }
        if count < self.settings.least_shards {
            return Err((4011, "Sharding required."));
        }
        Ok(shard)
    }

    fn is_paced(&mut self, shard: Shard, now: Instant) -> bool {
        let key = shard.0 % self.settings.max_concurrency;
        let before = self.last_identify.insert(key, (now, shard));
        let Some((at, other)) = before.filter(|(at, _)| now - *at < self.settings.identify_interval) else {
            return true;
        };
        self.violate(format!(
            "shard {shard:?} IDENTIFYs {} ms after shard {other:?}, of the same key {key}",
            (now - at).as_millis()
        ));
        false
    }

    fn live_session(&self, shard: Shard) -> Option<String> {
        let is_live = |session: &Session| session.shard == shard && session.connection.is_some();
        self.sessions.iter().find(|(_, session)| is_live(session)).map(|(id, _)| id.clone())
    }

    /// The connection that had the session, if another one has it still, loses it.
    pub fn resume(&mut self, connection: u64, data: &Value, now: Instant) -> Verdict {
        if !self.is_token(&data["token"]) {
            return Verdict::Close { code: 4004, reason: "Authentication failed." };
        }
        let life = self.settings.session_life;
        let id = data["session_id"].as_str().unwrap_or_default().to_owned();
        let session = self.sessions.get_mut(&id).filter(|it| it.ended.is_none_or(|ended| now - ended < life));
        let Some(session) = session else { return Verdict::InvalidSession };
        let seq = data["seq"].as_u64().and_then(|seq| usize::try_from(seq).ok());
        let Some(missed) = seq.and_then(|seq| session.events.get(seq..)) else {
            return Verdict::Close { code: 4007, reason: "Invalid seq." };
        };
        let replay = missed.to_vec();
        if session.connection.is_some() {
            let violation = format!("shard {:?} resumes a session that is connected", session.shard);
            self.violations.push(Violation(violation));
        }
        (session.connection, session.ended) = (Some(connection), None);
        self.resumes += 1;
        Verdict::Resumed { session: id, replay }
    }

    /// A connection of that session has ended.
    pub fn disconnect(&mut self, connection: u64, session: &str, now: Instant) {
        if let Some(session) = self.sessions.get_mut(session).filter(|it| it.connection == Some(connection)) {
            (session.connection, session.ended) = (None, Some(now));
        }
    }

    /// It cannot be resumed any more: its client closed with 1000 or 1001.
    pub fn end(&mut self, session: &str) {
        self.sessions.remove(session);
    }

    /// Whether that connection has the session still.
    pub fn is_of(&self, connection: u64, session: &str) -> bool {
        self.sessions.get(session).is_some_and(|it| it.connection == Some(connection))
    }

    /// An event for one session, kept until it is gone; its text.
    pub fn dispatch(&mut self, session: &str, name: &str, data: &Value) -> Option<Value> {
        let session = self.sessions.get_mut(session)?;
        let event = event(session.events.len() + 1, name, data);
        session.events.push(event.clone());
        Some(event)
    }

    /// All sessions, those that wait to be resumed too.
    pub fn session_ids(&self) -> Vec<String> {
        self.sessions.keys().cloned().collect()
    }

    /// The events of a session so far.
    pub fn events(&self, session: &str) -> &[Value] {
        self.sessions.get(session).map_or(&[], |session| &session.events)
    }

    /// Shards that are connected.
    pub fn connected(&self) -> Vec<Shard> {
        let live = self.sessions.values().filter(|session| session.connection.is_some());
        let mut shards: Vec<_> = live.map(|session| session.shard).collect();
        shards.sort_unstable();
        shards
    }

    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    pub fn violate(&mut self, what: String) {
        self.violations.push(Violation(what));
    }

    /// How many IDENTIFYs and RESUMEs there were.
    pub fn counts(&self) -> (u64, u64) {
        (self.identifies, self.resumes)
    }

    /// The body of `GET /gateway/bot`.
    pub fn gateway_bot(&self, url: &str) -> Value {
        let Settings { shards, max_concurrency, total, remaining, reset_after, .. } = &self.settings;
        let reset_after = u64::try_from(reset_after.as_millis()).unwrap_or(u64::MAX);
        json!({"url": url, "shards": shards, "session_start_limit": {
            "total": total, "remaining": remaining, "reset_after": reset_after, "max_concurrency": max_concurrency
        }})
    }
}

fn event(seq: usize, name: &str, data: &Value) -> Value {
    json!({"op": 0, "s": seq, "t": name, "d": data})
}
