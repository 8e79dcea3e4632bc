//! The request itself: blocking, on a thread of its own.

use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use ureq::http::HeaderMap;
use ureq::http::header::RETRY_AFTER;

use super::answer::{Answer, Response};
use crate::config::BotToken;

/// From the name's look-up to the last byte of the answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Discord's answer has some 200 bytes.
const MAX_BODY_BYTES: u64 = 65_536;

/// What Discord demands of a bot's library.
const USER_AGENT: &str = concat!("DiscordBot (gateway, ", env!("CARGO_PKG_VERSION"), ")");

/// Asks once. Whoever drops this does not wait for it.
pub(super) async fn ask(api: &str, token: &BotToken) -> Answer {
    let (url, token) = (format!("{api}/gateway/bot"), token.clone());
    let (answered, answer) = oneshot::channel();
    // Not a thread of the runtime, which would be waited for at the end of the process.
    let started = thread::Builder::new().name("discord".to_owned()).spawn(move || {
        let response = get(&url, &token);
        let _ = answered.send(response.map_or_else(
            |error| Answer::Failed(format!("{url} cannot be reached: {error}")),
            |response| Answer::read(&response),
        ));
    });
    match started {
        Ok(_) => answer.await.unwrap_or_else(|_| Answer::Failed("the request panicked".to_owned())),
        Err(error) => Answer::Failed(format!("no thread to ask from: {error}")),
    }
}

fn get(url: &str, token: &BotToken) -> Result<Response, ureq::Error> {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        // Nobody else is to get the token.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(USER_AGENT)
        .build()
        .new_agent();
    let authorization = format!("Bot {}", token.reveal());
    let mut response = agent.get(url).header("Authorization", authorization).call()?;
    let body = response.body_mut().with_config().limit(MAX_BODY_BYTES).lossy_utf8(true).read_to_string()?;
    let headers = response.headers();
    Ok(Response {
        status: response.status().as_u16(),
        retry_after: number(headers, RETRY_AFTER.as_str()),
        remaining: number(headers, "x-ratelimit-remaining"),
        reset_after: number(headers, "x-ratelimit-reset-after"),
        body,
    })
}

fn number<T: std::str::FromStr>(headers: &HeaderMap, name: &str) -> Option<T> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}
