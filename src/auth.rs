//! Who may come in, and what they may do: credentials, and how what was shown is held against them.
//!
//! Without the setting `credentials` everybody has every right. With it, a service or an operator
//! shows a token (`token` of IDENTIFY, or `Authorization: Bearer`) and gets the [`Grant`] that goes
//! with it, or is refused without a word on what was wrong.
//!
//! | module | what it holds |
//! |---|---|
//! | [`file`](mod@file) | the file of credentials |
//! | [`token`] | random tokens, of which the file has hashes |
//! | [`signed`] | tokens that somebody else signed (JWT) |
//!
//! What a grant permits is decided where it is asked for, by the rules in [`crate::state::grant`].

pub mod file;
pub mod signed;
#[cfg(test)]
mod timing;
pub mod token;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};
use std::{fs, io};

use self::file::{Credentials, FileError};
use self::token::TokenHash;
use crate::state::grant::{Grant, Source};
use crate::state::guesses::Guesses;
use crate::state::peer::Peer;

/// The most signed tokens that are remembered.
const MAX_VERIFIED: usize = 10_000;

/// The credentials in use, which can be read anew while the gateway runs.
pub struct Auth {
    /// `None`: none are in use.
    file: Option<PathBuf>,
    everything: Arc<Grant>,
    credentials: RwLock<Arc<Credentials>>,
    guesses: Mutex<Guesses>,
    /// Signed tokens that were checked and found valid: they need no second check.
    verified: Mutex<HashMap<TokenHash, Arc<Grant>>>,
    /// One reading of the file at a time: an older one must not win over a newer one.
    reloading: Mutex<()>,
}

/// What was shown is no valid credential. It is not said why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unauthorized {
    /// Too many wrong ones came from that address: so long, none is checked.
    pub retry_after: Option<Duration>,
}

impl Auth {
    /// Reads the file, if there is one. `failures_a_minute` is a setting.
    pub fn new(file: Option<&Path>, failures_a_minute: u32) -> Result<Self, FileError> {
        let credentials = file.map(read).transpose()?.unwrap_or_default();
        Ok(Self {
            file: file.map(Path::to_owned),
            everything: Arc::new(Grant::everything()),
            credentials: RwLock::new(Arc::new(credentials)),
            guesses: Mutex::new(Guesses::new(failures_a_minute)),
            verified: Mutex::default(),
            reloading: Mutex::default(),
        })
    }

    /// Whether credentials are in use.
    pub fn is_in_use(&self) -> bool {
        self.file.is_some()
    }

    /// What `shown` permits, or what everybody may where no credentials are in use.
    pub fn authenticate(&self, shown: Shown<'_>, peer: Peer) -> Result<Arc<Grant>, Unauthorized> {
        if !self.is_in_use() {
            return Ok(self.everything.clone());
        }
        let (credentials, now_ms) = (self.current(), unix_ms());
        // A right one gets in, whatever else comes from its address.
        let known = || credentials.look_up(shown, now_ms).or_else(|| self.verified(shown.token?));
        if let Some(grant) = known() {
            return Ok(grant);
        }
        let retry_after = self.must_wait(peer);
        if retry_after.is_some() {
            return Err(Unauthorized { retry_after });
        }
        if let Some(grant) = shown.token.and_then(|token| self.verify(&credentials, token)) {
            return Ok(grant);
        }
        self.note_failure(peer);
        Err(Unauthorized { retry_after: None })
    }

    /// What the entry permits that a client's certificate stands for, by its common name.
    pub fn of_certificate(&self, common_name: &str) -> Option<Arc<Grant>> {
        let shown = Shown { token: None, certificate: Some(common_name) };
        self.current().look_up(shown, unix_ms())
    }

    /// How long nothing of that peer is checked, if it has shown too much that was wrong.
    pub fn must_wait(&self, peer: Peer) -> Option<Duration> {
        lock(&self.guesses).must_wait(peer, Instant::now())
    }

    /// It showed something that was wrong.
    pub fn note_failure(&self, peer: Peer) {
        lock(&self.guesses).note(peer, Instant::now());
    }

    /// A signed token that was valid before, and still is.
    fn verified(&self, token: &str) -> Option<Arc<Grant>> {
        let grant = lock(&self.verified).get(&TokenHash::of(token)).cloned();
        grant.filter(|grant| self.stands(grant))
    }

    fn verify(&self, credentials: &Credentials, token: &str) -> Option<Arc<Grant>> {
        let grant = Arc::new(credentials.signed(token)?);
        let mut verified = lock(&self.verified);
        if verified.len() >= MAX_VERIFIED {
            // So many are rare, and to check one again is not dear.
            verified.clear();
        }
        verified.insert(TokenHash::of(token), grant.clone());
        Some(grant)
    }

    /// Whether the grant stands: the file may have been read anew since, or its time be over.
    pub fn stands(&self, grant: &Grant) -> bool {
        match &grant.source {
            Source::Open => !self.is_in_use(),
            Source::Entry { .. } => {
                !grant.has_expired(unix_ms())
                    && self.current().entry(&grant.id).is_some_and(|entry| **entry == *grant)
            }
            Source::Signed { key } => !grant.has_expired(unix_ms()) && self.current().has_key(key),
        }
    }

    /// Reads the file anew; how many credentials it has. On an error those before stay.
    pub fn reload(&self) -> Result<usize, FileError> {
        let Some(path) = &self.file else { return Ok(0) };
        let _one_at_a_time = lock(&self.reloading);
        let credentials = read(path)?;
        let count = credentials.len();
        *self.credentials.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(credentials);
        Ok(count)
    }

    fn current(&self) -> Arc<Credentials> {
        self.credentials.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What somebody showed.
#[derive(Clone, Copy, Default)]
pub struct Shown<'a> {
    /// A token, whichever way it came.
    pub token: Option<&'a str>,
    /// The common name of the certificate that its TLS connection was made with, which counts where
    /// there is no token.
    pub certificate: Option<&'a str>,
}

fn read(path: &Path) -> Result<Credentials, FileError> {
    Credentials::read(path, &|path: &Path| -> io::Result<String> { fs::read_to_string(path) })
}

/// Now, as Unix time in ms.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
