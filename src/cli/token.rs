//! `gateway token new`: a token for a service or an operator, and the entry of the file of credentials
//! that goes with it.

use std::fmt::Write as _;

use clap::{Args, ValueEnum};

use crate::auth::token::{TokenHash, mint};
use crate::protocol::pattern::Patterns;

/// `gateway token new`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct NewToken {
    /// What the credential is called, in logs too [default: the first name]
    #[arg(long)]
    pub id: Option<String>,
    /// A name that it may take; `*` stands for anything. Can be given again.
    #[arg(long = "name", value_name = "PATTERN")]
    pub names: Vec<String>,
    /// A target that it may send to: a name, `shard/3`, `guild/8138`; `*` stands for anything. Can be
    /// given again.
    #[arg(long, value_name = "PATTERN")]
    pub send: Vec<String>,
    /// Ops that it may use beyond those that every service needs. Can be given again.
    #[arg(long = "op", value_name = "OPS")]
    pub ops: Vec<OpsWord>,
    /// What it may do with the operators' API.
    #[arg(long, default_value = "none")]
    pub api: ApiWord,
    /// From when on it is not valid any more, such as 2027-01-01T00:00:00Z [default: never]
    #[arg(long, value_name = "TIME")]
    pub expires: Option<jiff::Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OpsWord {
    /// SHARD_CONNECT, SHARD_DEATH, SHARD_STATE
    Shards,
    /// WATCH
    Watch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ApiWord {
    None,
    Read,
    Write,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum NoToken {
    #[error("{0}")]
    Pattern(#[from] crate::protocol::pattern::InvalidPattern),
    #[error("--id: expected a name for the credential, of 1 to 64 bytes without white space or `\"`")]
    Id,
    #[error("--expires: expected a time to come, got {0}: the token would never be valid")]
    Expired(jiff::Timestamp),
    #[error("the operating system gives no randomness: {0}")]
    NoRandomness(#[from] getrandom::Error),
}

/// A new token, to be shown once, and the entry that goes with it.
pub fn new_token(wish: &NewToken) -> Result<(String, String), NoToken> {
    Patterns::new(wish.names.iter().chain(&wish.send).cloned())?;
    let id = wish.id.as_ref().or(wish.names.first()).ok_or(NoToken::Id)?;
    let is_allowed = |character: char| {
        !character.is_whitespace() && !character.is_control() && character != '"' && character != '\\'
    };
    if !(1..=64).contains(&id.len()) || !id.chars().all(is_allowed) {
        return Err(NoToken::Id);
    }
    if let Some(expired) = wish.expires.filter(|expires| *expires <= jiff::Timestamp::now()) {
        return Err(NoToken::Expired(expired));
    }
    let token = mint()?;
    let entry = entry(wish, id, TokenHash::of(&token));
    Ok((token, entry))
}

fn entry(wish: &NewToken, id: &str, hash: TokenHash) -> String {
    let mut entry = format!("[[credential]]\nid = \"{id}\"\ntoken_sha256 = \"{hash}\"\n");
    let words = |words: &[OpsWord]| words.iter().map(|word| format!("{word:?}").to_lowercase()).collect();
    let lists: [(&str, Vec<String>); 3] =
        [("names", wish.names.clone()), ("send", wish.send.clone()), ("ops", words(&wish.ops))];
    for (key, list) in lists.iter().filter(|(_, list)| !list.is_empty()) {
        let _ = writeln!(entry, "{key} = {list:?}");
    }
    if wish.api != ApiWord::None {
        let _ = writeln!(entry, "api = \"{}\"", format!("{:?}", wish.api).to_lowercase());
    }
    if let Some(expires) = wish.expires {
        let _ = writeln!(entry, "expires = {expires}");
    }
    entry
}
