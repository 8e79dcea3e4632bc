//! A bot's token at Discord. Whoever knows it is the bot, so nothing here shows it.

use std::net::IpAddr;
use std::path::Path;
use std::{fmt, io};

use super::{Config, ConfigError, NOT_SHOWN, shown};

/// A token, without the word `Bot` before it.
#[derive(Clone, PartialEq, Eq)]
pub struct BotToken(Box<str>);

impl BotToken {
    /// Space around it, such as a file's last line end, and the word `Bot` of the HTTP header do not
    /// count. `None`: it is no token.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let after_word = text.strip_prefix("Bot").filter(|rest| rest.is_empty() || rest.starts_with(' '));
        let token = after_word.unwrap_or(text).trim_start();
        let is_token = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        (!token.is_empty() && token.chars().all(is_token)).then(|| Self(token.into()))
    }

    /// To be sent to Discord alone.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BotToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("BotToken(…)")
    }
}

/// What a file of a token may hold at most: it is no token far below that.
const MAX_TOKEN_BYTES: usize = 4096;

/// Sets the token from the file that holds it, if there is one; `origin` is where its path is from.
pub(super) fn read(
    config: &mut Config,
    origin: String,
    read_file: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<(), ConfigError> {
    let Some(path) = &config.discord_token_file else { return Ok(()) };
    let text = read_file(path).map_err(|why| ConfigError::TokenUnreadable {
        path: shown(path),
        why: why.to_string(),
        origin: origin.clone(),
    })?;
    let token =
        Some(&text).filter(|text| text.len() <= MAX_TOKEN_BYTES).and_then(|text| BotToken::parse(text));
    config.discord_token = Some(token.ok_or_else(|| ConfigError::Value {
        setting: "discord_token_file",
        expected: format!(
            "the file {} to hold a bot's token as Discord shows it, and nothing else",
            shown(path)
        ),
        got: NOT_SHOWN.to_owned(),
        origin,
    })?);
    Ok(())
}

/// Only warned of: a proxy for Discord's API may stand beside the gateway.
pub(super) fn in_the_clear(config: &Config) -> Option<String> {
    config.discord_token.as_ref()?;
    let url: ureq::http::Uri = config.discord_api.parse().ok()?;
    let host = url.host()?.trim_matches(['[', ']']);
    let is_local = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    (url.scheme_str() != Some("https") && !is_local).then(|| {
        format!("the bot's token goes to {} unencrypted: discord_api is not https", config.discord_api)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_taken_as_people_paste_it_and_never_shown() {
        for typed in ["MTk4.Cl2F-M_Q", " MTk4.Cl2F-M_Q\r\n", "Bot MTk4.Cl2F-M_Q\n"] {
            let token = BotToken::parse(typed).unwrap();
            assert_eq!(token.reveal(), "MTk4.Cl2F-M_Q");
            assert!(!format!("{token:?}").contains("MTk4"));
        }
        for wrong in ["", "\n", "Bot ", "two words", "(hidden)", "a\nb", "é"] {
            assert_eq!(BotToken::parse(wrong), None, "{wrong:?}");
        }
    }
}
