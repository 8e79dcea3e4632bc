//! What an answer to `GET /gateway/bot` means. Pure: a response goes in as it came.
//!
//! The rules are Discord's: <https://discord.com/developers/docs/events/gateway#get-gateway-bot> and
//! <https://discord.com/developers/docs/topics/rate-limits>.

use std::time::Duration;

use serde::Deserialize;

use crate::state::shards::SessionStartLimit;

/// The most shards that a pool can have, and so the most keys.
const MAX_SHARDS: u64 = 65_536;

/// How much of an answer that is not understood is told.
const MAX_SHOWN_CHARS: usize = 120;

/// An HTTP response, less what nobody needs.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Response {
    pub(super) status: u16,
    /// `Retry-After`, in seconds.
    pub(super) retry_after: Option<f64>,
    /// `X-RateLimit-Remaining`: requests that are left now.
    pub(super) remaining: Option<u64>,
    /// `X-RateLimit-Reset-After`: in so many seconds there are more.
    pub(super) reset_after: Option<f64>,
    pub(super) body: String,
}

/// What came of asking.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    Told {
        limit: SessionStartLimit,
        /// Discord takes no further request before that.
        pause: Duration,
    },
    /// The token is not, or no longer, that of a bot: asking again is no use.
    Unauthorized,
    RateLimited {
        /// Where Discord says it.
        retry_after: Option<Duration>,
    },
    /// Whatever may be over by itself: what came instead of an answer.
    Failed(String),
}

impl Answer {
    pub(super) fn read(response: &Response) -> Self {
        match response.status {
            200 => read_limit(&response.body).map_or_else(Self::Failed, |limit| {
                let reset_after = response.reset_after.filter(|_| response.remaining == Some(0));
                Self::Told { limit, pause: reset_after.map_or(Duration::ZERO, seconds) }
            }),
            401 => Self::Unauthorized,
            429 => Self::RateLimited { retry_after: retry_after(response) },
            status => {
                Self::Failed(format!("expected status 200, got {status} with {}", shown(&response.body)))
            }
        }
    }
}

/// The header is in whole seconds, the body more exact; the longer one is safe.
fn retry_after(response: &Response) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Body {
        retry_after: f64,
    }
    let body = serde_json::from_str(&response.body).ok().map(|body: Body| body.retry_after);
    let told = [response.retry_after, response.reset_after, body];
    told.into_iter().flatten().map(seconds).max()
}

fn read_limit(body: &str) -> Result<SessionStartLimit, String> {
    #[derive(Deserialize)]
    struct GatewayBot {
        shards: u64,
        session_start_limit: Limit,
    }
    #[derive(Deserialize)]
    struct Limit {
        total: u64,
        remaining: u64,
        reset_after: u64,
        max_concurrency: u64,
    }
    let GatewayBot { shards, session_start_limit: limit } = serde_json::from_str(body).map_err(|error| {
        format!("expected `shards` and `session_start_limit` as JSON, got {}: {error}", shown(body))
    })?;
    let within = |name: &str, n: u64| match u32::try_from(n) {
        Ok(count @ 1..) if n <= MAX_SHARDS => Ok(count),
        _ => Err(format!("expected `{name}` from 1 to {MAX_SHARDS}, got {n}")),
    };
    Ok(SessionStartLimit {
        shards: within("shards", shards)?,
        max_concurrency: within("max_concurrency", limit.max_concurrency)?,
        total: limit.total,
        remaining: limit.remaining,
        reset_after_ms: limit.reset_after,
    })
}

/// A day at most: Discord waits no longer.
fn seconds(n: f64) -> Duration {
    const DAY_S: f64 = 86_400.0;
    Duration::try_from_secs_f64(n.clamp(0.0, DAY_S)).unwrap_or_default()
}

/// The start of a text, as one line.
fn shown(text: &str) -> String {
    if text.trim().is_empty() {
        return "an empty body".to_owned();
    }
    let start: String = text.chars().take(MAX_SHOWN_CHARS).collect();
    format!("{start:?}{}", if start.len() < text.len() { " …" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Discord's documentation has it.
    const BODY: &str = r#"{"url": "wss://gateway.discord.gg/", "shards": 9, "session_start_limit":
        {"total": 1000, "remaining": 999, "reset_after": 14400000, "max_concurrency": 16}}"#;

    fn ok(body: &str) -> Response {
        Response { status: 200, body: body.to_owned(), ..Response::default() }
    }

    #[test]
    fn discords_numbers_are_taken_over() {
        let limit = SessionStartLimit {
            shards: 9,
            max_concurrency: 16,
            total: 1000,
            remaining: 999,
            reset_after_ms: 14_400_000,
        };
        assert_eq!(Answer::read(&ok(BODY)), Answer::Told { limit, pause: Duration::ZERO });
    }

    #[test]
    fn a_used_up_rate_limit_is_a_pause() {
        let pause_of =
            |remaining, reset_after| match Answer::read(&Response { remaining, reset_after, ..ok(BODY) }) {
                Answer::Told { pause, .. } => pause,
                other => panic!("{other:?}"),
            };
        assert_eq!(pause_of(Some(0), Some(1.5)), Duration::from_millis(1500));
        assert_eq!(pause_of(Some(1), Some(1.5)), Duration::ZERO);
        assert_eq!(pause_of(Some(0), Some(f64::NAN)), Duration::ZERO);
    }

    #[test]
    fn the_longest_wait_that_a_429_tells_is_kept() {
        let limited = |retry_after, body: &str| {
            Answer::read(&Response { status: 429, retry_after, body: body.to_owned(), ..Response::default() })
        };
        let told = |seconds| Answer::RateLimited { retry_after: Some(Duration::from_secs_f64(seconds)) };
        assert_eq!(limited(Some(65.0), r#"{"retry_after": 64.57}"#), told(65.0));
        assert_eq!(limited(Some(1.0), r#"{"retry_after": 64.57}"#), told(64.57));
        assert_eq!(limited(Some(-1.0), ""), told(0.0));
        assert_eq!(limited(Some(1e300), ""), told(86_400.0));
        assert_eq!(limited(None, "<html>"), Answer::RateLimited { retry_after: None });
    }

    #[test]
    fn what_is_no_answer_is_told_with_what_was_expected() {
        let failed = |response: &Response| match Answer::read(response) {
            Answer::Failed(why) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            failed(&Response { status: 502, body: "<html>\n".repeat(99), ..Response::default() }),
            format!("expected status 200, got 502 with {:?} …", &"<html>\n".repeat(99)[..120])
        );
        let expected =
            "expected `shards` and `session_start_limit` as JSON, got \"{}\": missing field `shards`";
        assert!(failed(&ok("{}")).starts_with(expected), "{}", failed(&ok("{}")));
        assert!(failed(&ok("\n")).contains("as JSON, got an empty body: EOF"), "{}", failed(&ok("\n")));
        for (right, wrong) in
            [("\"shards\": 9", "\"shards\": 0"), ("y\": 16", "y\": 0"), ("y\": 16", "y\": 65537")]
        {
            assert!(failed(&ok(&BODY.replace(right, wrong))).contains("from 1 to 65536, got"));
        }
        assert!(failed(&ok(&BODY.replace("999", "-1"))).contains("invalid value"));
    }

    #[test]
    fn a_wrong_token_is_not_asked_with_again() {
        assert_eq!(Answer::read(&Response { status: 401, ..Response::default() }), Answer::Unauthorized);
    }
}
