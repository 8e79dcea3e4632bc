//! The file of credentials.
//!
//! ```toml
//! [[credential]]
//! id = "shards"
//! token_sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
//! names = ["shard-*"]
//! send = ["backend", "shard/*"]
//! ops = ["shards"]
//! api = "none"
//! expires = 2027-01-01T00:00:00Z
//!
//! [signed]
//! keys = "keys.json"
//! audience = "gateway"
//! ```
//!
//! What an entry leaves out it does not permit. Anything that is not understood is an error: a
//! typing mistake must not widen a right.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use foldhash::fast::FixedState;
use serde::Deserialize;

use super::Shown;
use super::signed::{Keys, KeysError};
use super::token::TokenHash;
use crate::protocol::pattern::Patterns;
use crate::state::grant::{Api, Grant, Ops, Source};

/// The most bytes that the id of a credential may have.
const MAX_ID_BYTES: usize = 64;

/// All that one file permits.
#[derive(Default)]
pub struct Credentials {
    by_id: HashMap<Arc<str>, Arc<Grant>>,
    /// The keys are the file's own: nobody can choose them so that they collide.
    by_token: HashMap<TokenHash, Arc<Grant>, FixedState>,
    keys: Option<Keys>,
}

/// The file cannot be used. Nothing of a secret is in the text.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("credentials: cannot read `{path}`: {why}")]
    Unreadable { path: String, why: io::Error },
    #[error("credentials: {path}, line {line}: {why}")]
    NotUnderstood { path: String, line: usize, why: String },
    #[error("credentials: {path}, the entry {id}: {why}")]
    Entry { path: String, id: String, why: String },
    #[error("credentials: {path}, [signed]: {why}")]
    Signed { path: String, why: KeysError },
    #[error("credentials: {path} has no entry and no [signed]: nobody could come in")]
    Empty { path: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    credential: Vec<Entry>,
    signed: Option<Signed>,
}

/// One `[[credential]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    token_sha256: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    send: Vec<String>,
    #[serde(default)]
    ops: Vec<String>,
    api: Option<String>,
    expires: Option<toml::value::Datetime>,
}

/// `[signed]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    keys: String,
    audience: String,
    #[serde(default = "default_leeway")]
    leeway_s: u64,
}

fn default_leeway() -> u64 {
    30
}

/// What an entry, or a signed token, permits. The same words in both.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Rights {
    names: Vec<String>,
    send: Vec<String>,
    ops: Vec<String>,
    api: Option<String>,
}

impl Rights {
    pub(super) fn grant(self, id: &str, expires_at_ms: Option<u64>, source: Source) -> Result<Grant, String> {
        let patterns =
            |key: &str, patterns| Patterns::new(patterns).map_err(|wrong| format!("{key}: {wrong}"));
        let api = self.api.as_deref().map_or(Some(Api::None), Api::parse);
        Ok(Grant {
            id: Arc::from(id),
            names: patterns("names", self.names)?,
            send: patterns("send", self.send)?,
            ops: ops(&self.ops)?,
            api: api.ok_or("api: expected \"none\", \"read\" or \"write\"")?,
            expires_at_ms,
            source,
        })
    }
}

fn ops(words: &[String]) -> Result<Ops, String> {
    let mut ops = Ops::default();
    for word in words {
        match word.as_str() {
            "shards" => ops.shards = true,
            "watch" => ops.watch = true,
            _ => return Err("ops: expected \"shards\" and \"watch\"".to_owned()),
        }
    }
    Ok(ops)
}

impl Credentials {
    pub(super) fn read(
        path: &Path,
        read_file: &dyn Fn(&Path) -> io::Result<String>,
    ) -> Result<Self, FileError> {
        let shown = path.display().to_string();
        let text = read_file(path).map_err(|why| FileError::Unreadable { path: shown.clone(), why })?;
        let file = parse(&shown, &text)?;
        let mut credentials = Self::default();
        for entry in file.credential {
            credentials.add(&shown, entry)?;
        }
        if let Some(signed) = file.signed {
            let path_of_keys = path.parent().unwrap_or(Path::new("")).join(&signed.keys);
            let keys = Keys::read(&path_of_keys, &signed.audience, signed.leeway_s, read_file);
            credentials.keys = Some(keys.map_err(|why| FileError::Signed { path: shown.clone(), why })?);
        }
        if credentials.is_empty() {
            return Err(FileError::Empty { path: shown });
        }
        Ok(credentials)
    }

    fn add(&mut self, path: &str, entry: Entry) -> Result<(), FileError> {
        let id = entry.id.clone();
        self.try_add(entry).map_err(|why| FileError::Entry {
            path: path.to_owned(),
            id: format!("`{}`", id.escape_default()),
            why,
        })
    }

    fn try_add(&mut self, entry: Entry) -> Result<(), String> {
        let Entry { id, token_sha256, names, send, ops, api, expires } = entry;
        if !is_id(&id) {
            return Err(format!("id: expected 1 to {MAX_ID_BYTES} bytes without white space"));
        }
        let token = token_sha256
            .map(|text| TokenHash::parse(&text).ok_or("token_sha256: expected 64 hexadecimal digits"))
            .transpose()?;
        let expires_at_ms = expires.map(unix_ms_of).transpose()?;
        let source = Source::Entry { token: token.map(|hash| hash.0) };
        let rights = Rights { names, send, ops, api };
        let grant = Arc::new(rights.grant(&id, expires_at_ms, source)?);
        if let Some(token) = token
            && self.by_token.insert(token, grant.clone()).is_some()
        {
            return Err("token_sha256: another entry has the same".to_owned());
        }
        if self.by_id.insert(grant.id.clone(), grant).is_some() {
            return Err("id: another entry has the same".to_owned());
        }
        Ok(())
    }

    /// How many entries and keys there are.
    pub fn len(&self) -> usize {
        self.by_id.len() + self.keys.as_ref().map_or(0, Keys::len)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry that goes with what was shown: the token's, or without one that whose id the client's
    /// certificate has as its common name.
    pub(super) fn look_up(&self, shown: Shown<'_>, now_ms: u64) -> Option<Arc<Grant>> {
        let grant = match (shown.token, shown.certificate) {
            (Some(token), _) => self.by_token.get(&TokenHash::of(token)),
            (None, certificate) => self.by_id.get(certificate?),
        };
        grant.filter(|grant| !grant.has_expired(now_ms)).cloned()
    }

    pub(super) fn entry(&self, id: &str) -> Option<&Arc<Grant>> {
        self.by_id.get(id)
    }

    /// What a signed token permits, if it is valid.
    pub(super) fn signed(&self, token: &str) -> Option<Grant> {
        self.keys.as_ref()?.verify(token)
    }

    pub(super) fn has_key(&self, key: &[u8; 32]) -> bool {
        self.keys.as_ref().is_some_and(|keys| keys.has(key))
    }
}

/// Whether a credential may be called so: it must fit into a line of the log.
pub(super) fn is_id(id: &str) -> bool {
    let is_visible = |character: char| !character.is_control() && !character.is_whitespace();
    (1..=MAX_ID_BYTES).contains(&id.len()) && id.chars().all(is_visible)
}

fn parse(path: &str, text: &str) -> Result<File, FileError> {
    toml::from_str(text).map_err(|error: toml::de::Error| FileError::NotUnderstood {
        path: path.to_owned(),
        line: 1 + text
            .bytes()
            .take(error.span().map_or(0, |span| span.start))
            .filter(|&byte| byte == b'\n')
            .count(),
        why: error.message().replace('\n', ", "),
    })
}

/// Unix time in ms of a date with time and offset.
fn unix_ms_of(time: toml::value::Datetime) -> Result<u64, String> {
    let time: Option<jiff::Timestamp> = time.to_string().parse().ok();
    let unix_ms = time.and_then(|time| u64::try_from(time.as_millisecond()).ok());
    unix_ms.ok_or_else(|| {
        "expires: expected a date with time and offset, such as 2027-01-01T00:00:00Z".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn read(text: &str) -> Result<Credentials, String> {
        let read_file = |_: &Path| Ok(text.replace("HASH", HASH));
        Credentials::read(Path::new("c.toml"), &read_file).map_err(|error| error.to_string())
    }

    fn look_up(credentials: &Credentials, token: &str, now_ms: u64) -> Option<Arc<Grant>> {
        credentials.look_up(Shown { token: Some(token), certificate: None }, now_ms)
    }

    #[test]
    fn an_entry_permits_what_it_says_and_nothing_else() {
        let credentials = read(
            r#"
            [[credential]]
            id = "shards"
            token_sha256 = "HASH"
            names = ["shard-*"]
            send = ["backend"]
            ops = ["shards"]
            expires = 2027-01-01T00:00:00+01:00
            "#,
        )
        .unwrap();
        let grant = look_up(&credentials, "abc", 0).unwrap();
        assert_eq!(&*grant.id, "shards");
        assert!(grant.may_be("shard-1") && !grant.may_be("backend") && grant.may_send_to("backend"));
        assert_eq!((grant.ops, grant.api), (Ops { shards: true, watch: false }, Api::None));
        assert_eq!(grant.expires_at_ms, Some(1_798_758_000_000));
        assert!(look_up(&credentials, "abd", 0).is_none());
        assert!(look_up(&credentials, "abc", 1_798_757_999_999).is_some());
        assert!(look_up(&credentials, "abc", 1_798_758_000_000).is_none());
    }

    #[test]
    fn whatever_is_not_understood_is_an_error_that_says_where() {
        for (text, expected) in [
            ("", "nobody could come in"),
            ("x", "line 1"),
            ("\n[[credential]]\nname = 1", "line 3: unknown field `name`"),
            ("[[credential]]\nid = \"\"", "id: expected 1 to 64 bytes"),
            ("[[credential]]\nid = \"a b\"", "without white space"),
            ("[[credential]]\nid = \"a\"\ntoken_sha256 = \"abc\"", "64 hexadecimal digits"),
            ("[[credential]]\nid = \"a\"\nnames = [\"a b\"]", "names: `a b` is no pattern"),
            ("[[credential]]\nid = \"a\"\nops = [\"shard\"]", "ops: expected"),
            ("[[credential]]\nid = \"a\"\napi = \"all\"", "api: expected"),
            ("[[credential]]\nid = \"a\"\nexpires = 2027-01-01", "expires: expected"),
            ("[[credential]]\nid = \"a\"\n[[credential]]\nid = \"a\"", "id: another entry has the same"),
            (
                "[[credential]]\nid=\"a\"\ntoken_sha256=\"HASH\"\n[[credential]]\nid=\"b\"\ntoken_sha256=\"HASH\"",
                "the entry `b`: token_sha256: another entry has the same",
            ),
        ] {
            let error = read(text).err().unwrap_or_else(|| panic!("{text} was taken"));
            assert!(error.contains(expected), "{text}: {error}");
            assert!(!error.contains('\n') && !error.contains(HASH), "{error}");
        }
    }
}
