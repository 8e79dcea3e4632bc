//! Signed tokens (JSON Web Tokens, RFC 7519): a platform mints them, the gateway has only the keys.
//!
//! The keys are a JSON Web Key Set (RFC 7517) of Ed25519 public keys (`"kty":"OKP"`) and HMAC secrets
//! (`"kty":"oct"`). Which algorithm a token must be signed with is its key's to say, never the token's
//! (RFC 8725 section 3.1). A token must have `exp`, `aud` and `sub`; what it permits stands in its claim
//! `gateway`, in the words of the file of credentials:
//!
//! ```json
//! {"sub": "shards-eu", "aud": "gateway", "exp": 1798758000,
//!  "gateway": {"names": ["shard-*"], "send": ["backend"], "ops": ["shards"]}}
//! ```

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Once;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet};
use jsonwebtoken::signature::{Error as BadSignature, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Validation, decode, decode_header};
use ring::{hmac, signature};
use serde::Deserialize;

use super::file::{Rights, is_id};
use super::token::sha256;
use crate::state::grant::{Grant, Source};

/// The fewest bytes of an HMAC secret (RFC 7518 section 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// The most that clocks may differ, in seconds.
const MAX_LEEWAY_S: u64 = 3600;

/// The most bytes of a token that are looked at.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// The keys, and what else a token must fit.
pub(super) struct Keys {
    /// By `kid`, where a key has one.
    by_id: HashMap<Option<String>, Key>,
    audience: String,
    leeway_s: u64,
}

struct Key {
    algorithm: Algorithm,
    decoding: DecodingKey,
    hash: [u8; 32],
}

/// The keys cannot be used. No part of a key is in the text.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("keys: cannot read `{path}`: {why}")]
    Unreadable { path: String, why: io::Error },
    #[error("keys: {path} is no JSON Web Key Set ({{\"keys\": [...]}}), line {line}")]
    NotUnderstood { path: String, line: usize },
    #[error("keys: {path}, key {index}: {why}")]
    Key { path: String, index: usize, why: &'static str },
    #[error("leeway_s: expected at most {MAX_LEEWAY_S}")]
    Leeway,
    #[error("keys: {path} has no key")]
    Empty { path: String },
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: u64,
    #[serde(default)]
    gateway: Rights,
}

impl Keys {
    pub(super) fn read(
        path: &Path,
        audience: &str,
        leeway_s: u64,
        read_file: &dyn Fn(&Path) -> io::Result<String>,
    ) -> Result<Self, KeysError> {
        let shown = || path.display().to_string();
        let text = read_file(path).map_err(|why| KeysError::Unreadable { path: shown(), why })?;
        let set: JwkSet = serde_json::from_str(&text)
            .map_err(|error| KeysError::NotUnderstood { path: shown(), line: error.line() })?;
        if leeway_s > MAX_LEEWAY_S {
            return Err(KeysError::Leeway);
        }
        let mut keys = HashMap::new();
        for (index, jwk) in set.keys.iter().enumerate() {
            let key = Key::new(jwk, audience).map_err(|why| KeysError::Key { path: shown(), index, why })?;
            if keys.insert(jwk.common.key_id.clone(), key).is_some() {
                let why = "another key has the same `kid`, or none as well";
                return Err(KeysError::Key { path: shown(), index, why });
            }
        }
        if keys.is_empty() {
            return Err(KeysError::Empty { path: shown() });
        }
        Ok(Self { by_id: keys, audience: audience.to_owned(), leeway_s })
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn has(&self, hash: &[u8; 32]) -> bool {
        self.by_id.values().any(|key| key.hash == *hash)
    }

    /// What the token permits, if it is valid now.
    pub(super) fn verify(&self, token: &str) -> Option<Grant> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        use_ring();
        let header = decode_header(token).ok()?;
        // RFC 7515 section 4.1.11: what is critical and not understood makes a token invalid.
        if header.crit.is_some() {
            return None;
        }
        let key = self.by_id.get(&header.kid)?;
        let mut validation = Validation::new(key.algorithm);
        validation.set_audience(&[&self.audience]);
        validation.set_required_spec_claims(&["exp", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = self.leeway_s;
        let Claims { sub, exp, gateway } = decode(token, &key.decoding, &validation).ok()?.claims;
        let expires_at_ms = exp.saturating_add(self.leeway_s).saturating_mul(1000);
        if !is_id(&sub) {
            return None;
        }
        gateway.grant(&format!("jwt:{sub}"), Some(expires_at_ms), Source::Signed { key: key.hash }).ok()
    }
}

impl Key {
    fn new(jwk: &Jwk, audience: &str) -> Result<Self, &'static str> {
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
                Algorithm::EdDSA
            }
            AlgorithmParameters::OctetKey(_) => Algorithm::HS256,
            _ => return Err("expected an Ed25519 public key (kty OKP) or an HMAC secret (kty oct)"),
        };
        let malformed = "its value is no base64url";
        let decoding = DecodingKey::from_jwk(jwk).map_err(|_| malformed)?;
        let bytes = decoding.try_get_as_bytes().map_err(|_| malformed)?;
        if algorithm == Algorithm::HS256 && bytes.len() < MIN_SECRET_BYTES {
            return Err("an HMAC secret must have at least 32 bytes");
        }
        if algorithm == Algorithm::EdDSA && bytes.len() != 32 {
            return Err("an Ed25519 public key has 32 bytes");
        }
        // What a token depends on: when any of it changes, the tokens before end.
        let id = jwk.common.key_id.as_deref().unwrap_or_default();
        let hash = sha256(&[audience.as_bytes(), b"\0", id.as_bytes(), b"\0", bytes].concat());
        Ok(Self { algorithm, decoding, hash })
    }
}

/// The cryptography that the rest of the gateway has already.
fn use_ring() {
    static PROVIDER: CryptoProvider = CryptoProvider {
        signer_factory: no_signer,
        verifier_factory: verifier,
        key_utils: KeyUtils::new_unimplemented(),
    };
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = PROVIDER.install_default();
    });
}

fn no_signer(_: &Algorithm, _: &EncodingKey) -> jsonwebtoken::errors::Result<Box<dyn JwtSigner>> {
    Err(ErrorKind::UnsupportedAlgorithm.into())
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> jsonwebtoken::errors::Result<Box<dyn JwtVerifier>> {
    let key = key.try_get_as_bytes()?.to_vec();
    match algorithm {
        Algorithm::HS256 | Algorithm::EdDSA => Ok(Box::new(Ring { algorithm: *algorithm, key })),
        _ => Err(ErrorKind::UnsupportedAlgorithm.into()),
    }
}

/// A signature's check by `ring`.
struct Ring {
    algorithm: Algorithm,
    key: Vec<u8>,
}

impl fmt::Debug for Ring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Ring")
    }
}

impl Verifier<Vec<u8>> for Ring {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), BadSignature> {
        let checked = match self.algorithm {
            Algorithm::HS256 => {
                hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &self.key), message, signature)
            }
            _ => signature::UnparsedPublicKey::new(&signature::ED25519, &self.key).verify(message, signature),
        };
        checked.map_err(|_| BadSignature::new())
    }
}

impl JwtVerifier for Ring {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
