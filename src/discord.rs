//! What Discord allows a bot: `GET /gateway/bot`, asked again and again.
//!
//! Discord tells how many shards it recommends, how many may IDENTIFY side by side, and how many
//! session starts are left until when ([`SessionStartLimit`]). What follows from that is the
//! [pool](crate::state::shards)'s. Here is only the asking: [when](schedule), [how](request), and
//! [what the answer means](answer). A failure changes nothing: the last answer stands.
//!
//! Left out: Discord's own gateway. The gateway never connects to that; the shards do.

mod answer;
mod request;
mod schedule;

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use self::answer::Answer;
use self::schedule::Schedule;
use crate::config::{BotToken, Config, ShardCount};
use crate::state::shards::SessionStartLimit;

/// How long a start waits for Discord where it could do without. With an answer, the very first
/// permits are counted and paced as Discord demands.
const FIRST_ANSWER: Duration = Duration::from_secs(3);

/// Discord does not take the token, and it is to be asked for the number of shards.
#[derive(Debug, thiserror::Error)]
#[error(
    "shards: `auto` asks Discord, which does not take the bot's token (401 from {api}): expected a valid one \
     in {setting}, or a number of shards"
)]
pub struct Unauthorized {
    api: String,
    setting: &'static str,
}

/// A new pool is to have a number of shards with which Discord would let none IDENTIFY.
#[derive(Debug, thiserror::Error)]
#[error(
    "shards: expected a multiple of {of}, which Discord demands of a bot with that `max_concurrency` (it \
     recommends {recommended} shards), got {shard_count}; --shards chooses another"
)]
pub struct NotAMultiple {
    shard_count: u32,
    of: u32,
    recommended: u32,
}

impl Told {
    /// Whether a new pool may have that many shards.
    pub fn check(&self, shard_count: u32) -> Result<(), NotAMultiple> {
        let recommended = self.limit.shards;
        match self.limit.demands_instead_of(shard_count) {
            Some(of) => Err(NotAMultiple { shard_count, of, recommended }),
            None => Ok(()),
        }
    }
}

/// An answer of Discord's.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    pub limit: SessionStartLimit,
    /// The numbers are of a moment after this one.
    pub asked_at: Instant,
}

/// What Discord answers, from a task that goes on asking until this is dropped.
pub struct Answers {
    received: mpsc::UnboundedReceiver<Told>,
    api: String,
    setting: &'static str,
}

/// Begins to ask Discord. `None`: there is no token. To be called in an actix system.
pub fn follow(config: &Config) -> Option<Answers> {
    let from_file = config.discord_token_file.is_some();
    let setting = if from_file { "discord_token_file" } else { "discord_token" };
    let (api, token) = (config.discord_api.clone(), config.discord_token.clone()?);
    let (sender, received) = mpsc::unbounded_channel();
    let answers = Answers { received, api: api.clone(), setting };
    let schedule = Schedule::new(Instant::now());
    let mut follower = Follower { api, token, setting, schedule, is_answered: false };
    actix_rt::spawn(async move {
        tokio::select! {
            () = follower.ask_on(&sender) => {}
            () = sender.closed() => {}
        }
    });
    Some(answers)
}

impl Answers {
    /// Waits for the next answer, however long that takes. `None`: there will be none, since Discord
    /// does not take the token; that is logged.
    pub async fn next(&mut self) -> Option<Told> {
        self.received.recv().await
    }

    /// The first answer. Where it is to tell the number of shards, it is waited for, and that number
    /// is set; a failure to reach Discord is logged and waited out, as one at a later time is. Where a
    /// number is set, or stored (the gateway never reshards by itself), the start goes on after a moment
    /// without it. With `auto` a token that is not taken is an error all the same.
    pub async fn first(
        &mut self,
        shards: &mut ShardCount,
        is_stored: bool,
    ) -> Result<Option<Told>, Unauthorized> {
        let is_auto = *shards == ShardCount::Auto;
        if is_auto && !is_stored {
            log::info!("shards: waiting for Discord to tell how many, as they are `auto`");
            let told = self.next().await.ok_or_else(|| self.unauthorized())?;
            *shards = ShardCount::Fixed(told.limit.shards);
            return Ok(Some(told));
        }
        match tokio::time::timeout(FIRST_ANSWER, self.next()).await {
            Ok(None) if is_auto => Err(self.unauthorized()),
            Ok(told) => Ok(told),
            Err(_late) => Ok(None),
        }
    }

    fn unauthorized(&self) -> Unauthorized {
        Unauthorized { api: self.api.clone(), setting: self.setting }
    }
}

/// Asks Discord, for as long as there is something to ask.
struct Follower {
    api: String,
    token: BotToken,
    /// Where the token is from.
    setting: &'static str,
    schedule: Schedule,
    is_answered: bool,
}

impl Follower {
    async fn ask_on(&mut self, answers: &mpsc::UnboundedSender<Told>) {
        while let Some(next) = self.schedule.next() {
            tokio::time::sleep_until(next.into()).await;
            let asked_at = Instant::now();
            let answer = request::ask(&self.api, &self.token).await;
            let was_failing = self.schedule.is_failing();
            self.schedule.note(&answer, Instant::now(), fastrand::f64());
            self.log(&answer, was_failing);
            if let Answer::Told { limit, .. } = answer {
                self.is_answered = true;
                let _ = answers.send(Told { limit, asked_at });
            }
        }
    }

    fn log(&self, answer: &Answer, was_failing: bool) {
        let again = || {
            let wait = self.schedule.next().map(|next| next.saturating_duration_since(Instant::now()));
            format!("asked again in {} s", wait.unwrap_or_default().as_secs_f64().ceil())
        };
        let kept = if self.is_answered { "its last answer stands" } else { "it has not answered yet" };
        match answer {
            Answer::Told { limit, .. } if was_failing || !self.is_answered => {
                log::info!("Discord answers: {}", told(limit));
            }
            Answer::Told { limit, .. } => log::debug!("Discord answers: {}", told(limit)),
            Answer::Unauthorized => log::error!(
                "Discord does not take the bot's token (401 from {}): it is not asked again, {kept}; a \
                 valid one in {} and a restart mend that",
                self.api,
                self.setting
            ),
            Answer::RateLimited { .. } => {
                log::warn!("Discord limits how often it is asked (429): {}, {kept}", again());
            }
            Answer::Failed(why) => log::warn!("Discord cannot be asked: {why}; {}, {kept}", again()),
        }
    }
}

fn told(limit: &SessionStartLimit) -> String {
    let SessionStartLimit { shards, max_concurrency, total, remaining, reset_after_ms } = limit;
    let minutes = reset_after_ms.div_ceil(60_000);
    format!(
        "{shards} shards recommended, max_concurrency {max_concurrency}, {remaining} of {total} session \
         starts left for {minutes} min"
    )
}
