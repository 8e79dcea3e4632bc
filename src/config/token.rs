//! A bot's token at Discord. Whoever knows it is the bot, so nothing here shows it.

use std::fmt;

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
