//! Tokens: of the file, signed, minted.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::{Guarded, bearer, entry, operator};
use crate::support::{Gateway, Service};

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let groups = bytes.chunks(3).flat_map(|group| {
        let bits =
            group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        (0..=group.len()).map(move |digit| char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63]))
    });
    groups.collect()
}

/// Somebody who signs tokens, with a key of each kind.
pub(super) struct Signed {
    ed25519: Ed25519KeyPair,
    secret: Vec<u8>,
}

impl Signed {
    pub(super) fn new() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self {
            ed25519: Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap(),
            secret: b"a secret of more than thirty-two bytes".to_vec(),
        }
    }

    fn keys(&self) -> Value {
        json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": base64url(self.ed25519.public_key().as_ref())},
            {"kty": "oct", "kid": "hmac", "k": base64url(&self.secret)},
        ]})
    }

    /// A gateway that knows these keys, and these credentials.
    pub(super) fn start(&self, credentials: &str, flags: &[&str]) -> Guarded {
        let signed = "[signed]\nkeys = \"keys.json\"\naudience = \"gateway\"\nleeway_s = 0\n";
        Guarded::start_with_keys(&(credentials.to_owned() + signed), &self.keys().to_string(), flags)
    }

    pub(super) fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg": "EdDSA", "kid": "ed"}), claims)
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let text = format!(
            "{}.{}",
            base64url(header.to_string().as_bytes()),
            base64url(claims.to_string().as_bytes())
        );
        let signature = if header["alg"] == "EdDSA" {
            self.ed25519.sign(text.as_bytes()).as_ref().to_vec()
        } else {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.secret), text.as_bytes()).as_ref().to_vec()
        };
        format!("{text}.{}", base64url(&signature))
    }
}

/// Claims that are good for so many seconds.
pub(super) fn claims(seconds: i64) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let rights = json!({"names": ["*"], "send": ["*"]});
    json!({"sub": "platform", "aud": "gateway", "exp": now.saturating_add_signed(seconds), "gateway": rights})
}

#[test]
fn a_signed_token_is_good_if_all_of_it_is() {
    let signed = Signed::new();
    let guarded = signed.start("", &["--auth-failures-per-minute=1000"]);
    let (ed, hmac) = (json!({"alg": "EdDSA", "kid": "ed"}), json!({"alg": "HS256", "kid": "hmac"}));
    let good = claims(3600);
    let with = |key: &str, value: Value| {
        let mut changed = good.clone();
        changed[key] = value;
        changed
    };
    for (n, header) in [&ed, &hmac].into_iter().enumerate() {
        drop(guarded.identify(&format!("good-{n}"), &signed.sign(header, &good)).unwrap());
    }
    let later = good["exp"].as_u64().unwrap();
    let bad = [
        signed.sign(&ed, &claims(-1)),
        signed.sign(&ed, &with("nbf", json!(later))),
        signed.sign(&ed, &with("nbf", json!("soon"))),
        signed.sign(&ed, &with("aud", json!("others"))),
        signed.sign(&ed, &with("aud", Value::Null)),
        signed.sign(&ed, &with("exp", Value::Null)),
        signed.sign(&ed, &with("exp", json!("never"))),
        signed.sign(&ed, &with("sub", Value::Null)),
        signed.sign(&ed, &with("gateway", json!({"names": ["*"], "everything": true}))),
        signed.sign(&ed, &with("gateway", json!({"names": ["* "]}))),
        signed.sign(&json!({"alg": "EdDSA"}), &good),
        signed.sign(&json!({"alg": "EdDSA", "kid": "other"}), &good),
        // The key decides on the algorithm: a public key is no secret to sign with.
        signed.sign(&json!({"alg": "HS256", "kid": "ed"}), &good),
        signed.sign(&json!({"alg": "none", "kid": "hmac"}), &good),
        Signed::new().sign(&ed, &good),
        format!("{}A", signed.sign(&ed, &good)),
        format!("x{}", signed.sign(&hmac, &good)),
    ];
    for token in bad {
        assert_eq!(guarded.identify("bad", &token).unwrap_err(), "unauthorized", "{token}");
    }
    let narrow = with("gateway", json!({"names": ["shard-*"], "send": ["backend"]}));
    let token = signed.sign(&ed, &narrow);
    assert_eq!(guarded.identify("backend", &token).unwrap_err(), "forbidden");
    let mut shard = guarded.identify("shard-1", &token).unwrap();
    shard.send("good-0", "x", "1");
    shard.expect_error("forbidden");
    shard.send("backend", "x", "1");
    shard.expect_error("no_such_service");
    assert_eq!(guarded.gateway.http("GET", "/metrics", &[&bearer(&token)], "").0, 403);
}

#[test]
fn a_token_comes_in_identify_or_with_the_handshake() {
    let guarded = Guarded::start(&operator(), &[]);
    let address = guarded.gateway.address();
    for scheme in ["Bearer", "bearer"] {
        let header = format!("Authorization: {scheme} the-operators-token\r\n");
        let mut service = Service::try_open_with(address, "/gateway", &header).unwrap();
        service.identify(scheme);
    }
    let twice = "Authorization: Bearer the-operators-token\r\n".repeat(2);
    let mut service = Service::try_open_with(address, "/gateway", &twice).unwrap();
    service.send_identify("twice", json!({}));
    service.expect_reject("unauthorized");
    let headers = [bearer("the-operators-token"), "Content-Type: application/json".to_owned()];
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    let identify = json!({"s": "posted", "t": "gateway:opcode", "d": {"opcode": 0}}).to_string();
    assert_eq!(guarded.gateway.http("POST", "/gateway", &headers, &identify).0, 200);
}

#[test]
fn a_ticket_is_its_credentials_and_good_once() {
    let other = entry("other", "another-token", "names = [\"*\"]");
    let guarded = Guarded::start(&(operator() + &other), &[]);
    let identify = json!({"s": "a", "t": "gateway:opcode", "d": {"opcode": 0, "token": "another-token"}});
    let post = || {
        let (status, body) = guarded.gateway.http(
            "POST",
            "/gateway",
            &["Content-Type: application/json"],
            &identify.to_string(),
        );
        assert_eq!(status, 200, "{body}");
        let accept: Value = serde_json::from_str(&body).unwrap();
        format!("/gateway?ticket={}", accept["d"]["ticket"].as_str().unwrap())
    };
    let path = post();
    assert_eq!(guarded.identify("a", "the-operators-token").unwrap_err(), "already_connected");
    let mut thief = Service::try_open_with(
        guarded.gateway.address(),
        &path,
        "Authorization: Bearer the-operators-token\r\n",
    )
    .unwrap();
    thief.expect_reject("unauthorized");
    let mut silent = guarded.gateway.connect();
    silent.text(r#"{"s":"a","t":"x","d":0}"#);
    silent.expect_error("not_identified");
    let mut owner = Service::open(guarded.gateway.address(), &path);
    assert_eq!(owner.expect_op(1)["service"], "a");
    Service::open(guarded.gateway.address(), &path).expect_reject("unauthorized");
    owner.close(4000);
    // An IDENTIFY by the same credential does as well, from wherever.
    let path = post();
    drop(guarded.identify("a", "another-token").unwrap());
    Service::open(guarded.gateway.address(), &path).expect_reject("unauthorized");
}

#[test]
fn a_new_token_and_its_entry_fit_together() {
    let minted = Command::new(env!("CARGO_BIN_EXE_gateway"))
        .args([
            "token",
            "new",
            "--name=shard-*",
            "--send=backend",
            "--send=shard/*",
            "--op=shards",
            "--api=read",
        ])
        .args(["--expires=2999-01-01T00:00:00Z"])
        .output()
        .unwrap();
    assert!(minted.status.success(), "{minted:?}");
    let text = String::from_utf8(minted.stdout).unwrap();
    let told = String::from_utf8(minted.stderr).unwrap();
    let token = told.trim().rsplit(' ').next().unwrap().to_owned();
    assert!(token.starts_with("gw_") && !text.contains(&token), "{told}{text}");
    let guarded = Guarded::start(&text, &[]);
    let mut shard = guarded.identify("shard-7", &token).unwrap();
    shard.send_op(&json!({"opcode": 10}));
    shard.expect_op(11);
    shard.send_op(&json!({"opcode": 23}));
    shard.expect_error("forbidden");
    assert_eq!(guarded.gateway.http("GET", "/metrics", &[&bearer(&token)], "").0, 200);
    assert!(!guarded.gateway.log().contains(&token));
}

#[test]
fn a_token_that_would_never_be_valid_is_not_made() {
    let refused = Gateway::command()
        .args(["token", "new", "--name=a", "--expires=2020-01-01T00:00:00Z"])
        .output()
        .unwrap();
    assert_eq!((refused.status.code(), refused.stdout.as_slice()), (Some(2), &b""[..]));
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(told.contains("--expires: expected a time to come, got 2020-01-01T00:00:00Z"), "{told}");
}

#[test]
fn a_file_that_cannot_be_used_is_an_error_before_anything_listens() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("c.toml");
    let run = |text: Option<&str>| {
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        let run =
            Gateway::command().arg("--listen=127.0.0.1:0").arg("--credentials").arg(&file).output().unwrap();
        assert_eq!(run.status.code(), Some(2), "{run:?}");
        String::from_utf8(run.stderr).unwrap()
    };
    assert!(run(None).contains("credentials: cannot read"));
    assert!(run(Some("")).contains("nobody could come in"));
    assert!(run(Some("[[credential]]\nid = \"a\"\nname = \"b\"")).contains("line 3: unknown field `name`"));
    let keys = run(Some("[signed]\nkeys = \"none.json\"\naudience = \"x\""));
    assert!(keys.contains("[signed]: keys: cannot read"), "{keys}");
    for (set, expected) in [
        ("{}", "is no JSON Web Key Set"),
        (r#"{"keys":[]}"#, "has no key"),
        (r#"{"keys":[{"kty":"oct","k":"c2hvcnQ"}]}"#, "key 0: an HMAC secret must have at least 32 bytes"),
        (r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#, "key 0: expected an Ed25519 public key"),
    ] {
        std::fs::write(directory.path().join("keys.json"), set).unwrap();
        let error = run(Some("[signed]\nkeys = \"keys.json\"\naudience = \"x\""));
        assert!(error.contains(expected) && error.trim().lines().count() == 1, "{set}: {error}");
    }
}
