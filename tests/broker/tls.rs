//! TLS, as its clients see it: who gets in and who does not, that everything else is as it is without,
//! and that certificates are replaced while it runs.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;
use serde_json::json;
use tokio_rustls::rustls::ClientConfig;

use crate::credentials::{bearer, operator};
use crate::support::{Authority, Gateway, PATIENCE, Pair, Service, Wire, eventually};

/// A gateway with that certificate, to which everything is said over TLS.
fn start(pair: &Pair, client: Arc<ClientConfig>, flags: &[&str]) -> Gateway {
    let tls = pair.flags();
    let flags: Vec<&str> = tls.iter().map(String::as_str).chain(flags.iter().copied()).collect();
    Gateway::start_with_tls(&flags, client)
}

/// The handshakes that the gateway has counted as failed.
fn failed_handshakes(gateway: &Gateway) -> u64 {
    gateway.metric("gateway_turned_away_total", "tls_handshake")
}

/// What a client gets that asks `/healthz` with this configuration.
fn ask(gateway: &Gateway, client: &Arc<ClientConfig>) -> Result<String, String> {
    let mut wire = Wire::tls(gateway.address(), client).map_err(|error| error.to_string())?;
    let request =
        format!("GET /healthz HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", gateway.address());
    wire.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let mut answer = String::new();
    wire.read_to_string(&mut answer).map_err(|error| error.to_string())?;
    Ok(answer)
}

/// The certificate that a new connection is shown.
fn shown_certificate(gateway: &Gateway, client: &Arc<ClientConfig>) -> Vec<u8> {
    let Ok(Wire::Tls(wire)) = Wire::tls(gateway.address(), client) else { panic!("no TLS") };
    wire.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn a_conversation_over_tls_is_as_one_without() {
    let authority = Authority::new();
    let gateway = start(&authority.server("server"), authority.trusting(None), &[]);
    let (mut a, mut b) = (gateway.service("a"), gateway.connect());
    let session = b.identify("b")["session"].clone();
    let large = format!("\"{}\"", "☃".repeat(300_000));
    for round in 0..5 {
        a.send("b", "x", &large);
        assert!(b.next().text.contains(&large));
        b.send("a", "y", &round.to_string());
        assert_eq!(a.next().json["d"], round);
    }
    a.send("nobody", "x", "1");
    a.expect_error("no_such_service");
    // Both ends of a connection end it with TLS's own farewell: without it, reading fails.
    a.close(4000);
    let mut again = gateway.connect();
    assert_eq!(again.identify_with("b", json!({"session": session}))["resumed"], true);
    b.expect_close(4010);
    // One whose connection ends without a word is no obstacle to itself.
    gateway.service("c").vanish();
    let mut c = gateway.connect();
    assert_eq!(c.identify("c")["resumed"], true);
    gateway.signal(Signal::SIGTERM);
    c.expect_close(1012);
    again.expect_close(1012);
}

#[test]
fn a_service_that_stops_reading_under_tls_is_cut_off() {
    let authority = Authority::new();
    let flags = ["--stuck-ms=1000", "--heartbeat-ms=5000"];
    let gateway = start(&authority.server("server"), authority.trusting(None), &flags);
    let mut stuck = gateway.service("stuck");
    let mut source = gateway.service("a");
    let data = "x".repeat(10_000);
    for _ in 0..60 {
        source.texts((0..50).map(|_| format!(r#"{{"s":"a","t":"gateway-proxy:stuck:x","d":"{data}"}}"#)));
    }
    source.expect_nothing();
    eventually("the stuck service is cut off", || {
        stuck.text(r#"{"s":"stuck","t":"heartbeat:stuck"}"#);
        gateway.log().contains("stuck is away: cut off with 4008").then_some(())
    });
    source.expect_nothing();
    eventually("its descriptors are closed", || {
        (gateway.metric("gateway_connections", "") == 1).then_some(())
    });
}

#[test]
fn who_does_not_shake_hands_waits_where_all_wait() {
    let authority = Authority::new();
    // One thread takes them in the order in which they come.
    let flags = ["--workers=1", "--max-unidentified=3", "--handshake-timeout-ms=3600000"];
    let gateway = start(&authority.server("server"), authority.trusting(None), &flags);
    let connect = |gateway: &Gateway| {
        let stream = TcpStream::connect(gateway.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let mut silent: Vec<TcpStream> = (0..5).map(|_| connect(&gateway)).collect();
    eventually("two have left for the others", || {
        // The one that asks needs a place too.
        (gateway.metric("gateway_turned_away_total", "displaced") >= 3).then_some(())
    });
    assert_eq!(silent[0].read(&mut [0]).unwrap(), 0, "the oldest was closed");

    let flags = ["--handshake-timeout-ms=1000"];
    let gateway = start(&authority.server("server"), authority.trusting(None), &flags);
    let mut silent = connect(&gateway);
    assert_eq!(silent.read(&mut [0]).unwrap(), 0, "who says nothing is closed in time");
    assert_eq!(failed_handshakes(&gateway), 0);
    let mut plain = connect(&gateway);
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert_eq!(failed_handshakes(&gateway), 1, "who speaks no TLS is counted");
}

#[test]
fn clients_refuse_another_authority_and_an_expired_certificate() {
    let (authority, other) = (Authority::new(), Authority::new());
    let gateway = start(&authority.server("server"), authority.trusting(None), &[]);
    assert!(ask(&gateway, &authority.trusting(None)).unwrap().ends_with("ok\n"));
    let refused = ask(&gateway, &other.trusting(None)).unwrap_err();
    assert!(refused.contains("UnknownIssuer") || refused.contains("BadSignature"), "{refused}");
    let gateway = start(&authority.expired_server("expired"), authority.trusting(None), &[]);
    let refused = ask(&gateway, &authority.trusting(None)).unwrap_err();
    assert!(refused.contains("certificate expired"), "{refused}");
}

#[test]
fn a_client_certificate_need_not_be_shown_but_must_be_good() {
    let (authority, other) = (Authority::new(), Authority::new());
    let ca = format!("--tls-client-ca={}", authority.file().display());
    let gateway = start(&authority.server("server"), authority.trusting(None), &[&ca, "--log=debug"]);
    assert!(ask(&gateway, &authority.trusting(None)).unwrap().ends_with("ok\n"), "none is shown");
    assert!(!gateway.log().contains("has the certificate"));
    let good = authority.client("shard-7");
    assert!(ask(&gateway, &authority.trusting(Some(&good))).unwrap().ends_with("ok\n"));
    gateway.wait_for_log("a client has the certificate of shard-7");
    let bad = [other.client("stranger"), authority.expired_client("late"), authority.server("no-client")];
    for (refused, pair) in bad.iter().enumerate() {
        let answer = ask(&gateway, &authority.trusting(Some(pair)));
        assert!(answer.as_ref().is_err_and(|error| error.contains("alert")), "{answer:?}");
        assert_eq!(failed_handshakes(&gateway), refused as u64 + 1);
    }
    // Without the setting nobody is asked for one.
    let gateway = start(&authority.server("server"), authority.trusting(None), &["--log=debug"]);
    assert!(ask(&gateway, &authority.trusting(Some(&bad[0]))).unwrap().ends_with("ok\n"));
    assert!(!gateway.log().contains("has the certificate"));
}

struct EndsLoad<'a>(&'a AtomicBool);

impl Drop for EndsLoad<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_client_certificate_identifies_the_credential_that_is_called_as_it_is() {
    let authority = Authority::new();
    let credentials = authority.path("credentials.toml");
    let entries = "[[credential]]\nid = \"shards\"\nnames = [\"shard-*\"]\napi = \"read\"\n";
    fs::write(&credentials, entries).unwrap();
    let flags = [
        format!("--tls-client-ca={}", authority.file().display()),
        format!("--credentials={}", credentials.display()),
    ];
    let flags = flags.each_ref().map(String::as_str);
    let (server, known) = (authority.server("server"), authority.client("shards"));
    let gateway = start(&server, authority.trusting(Some(&known)), &flags);
    let mut shard = gateway.service("shard-1");
    shard.send("backend", "x", "1");
    shard.expect_error("forbidden");
    assert_eq!(gateway.http("GET", "/metrics", &[], "").0, 200);
    let reject = |gateway: &Gateway, name: &str, code: &str| {
        let mut service = gateway.connect();
        service.send_identify(name, json!({}));
        service.expect_reject(code);
    };
    reject(&gateway, "backend", "forbidden");
    // Another name, or none, is nobody; and a token that is shown stands above the certificate.
    let token = ["Authorization: Bearer wrong"];
    assert_eq!(gateway.http("GET", "/metrics", &token, "").0, 401);
    for shown in [Some(authority.client("others")), None] {
        let gateway = start(&server, authority.trusting(shown.as_ref()), &flags);
        assert_eq!(gateway.http("GET", "/metrics", &[], "").0, 401);
        reject(&gateway, "shard-1", "unauthorized");
    }
}

#[test]
fn a_ticket_is_not_for_who_shows_another_credentials_certificate() {
    let authority = Authority::new();
    let credentials = authority.path("credentials.toml");
    let entry = |id: &str| format!("[[credential]]\nid = \"{id}\"\nnames = [\"*\"]\n");
    fs::write(&credentials, entry("owner") + &entry("thief")).unwrap();
    let flags = [
        format!("--tls-client-ca={}", authority.file().display()),
        format!("--credentials={}", credentials.display()),
    ];
    let flags = flags.each_ref().map(String::as_str);
    let owner = authority.trusting(Some(&authority.client("owner")));
    let gateway = start(&authority.server("server"), owner.clone(), &flags);
    let identify = json!({"s": "a", "t": "gateway:opcode", "d": {"opcode": 0}});
    let (status, accept) = gateway.post_json("/gateway", &identify.to_string());
    assert_eq!(status, 200, "{accept}");
    let path = format!("/gateway?ticket={}", accept["d"]["ticket"].as_str().unwrap());
    let host = gateway.address().to_string();
    let open = |client: &Arc<ClientConfig>| {
        let wire = Wire::tls(gateway.address(), client).unwrap();
        Service::try_open_over(wire, &host, &path, "").unwrap()
    };
    open(&authority.trusting(Some(&authority.client("thief")))).expect_reject("unauthorized");
    // One that stands for no entry shows nothing.
    assert_eq!(open(&authority.trusting(Some(&authority.client("unknown")))).expect_op(1)["service"], "a");
}

#[test]
fn a_page_of_the_gateways_own_host_came_by_https() {
    let authority = Authority::new();
    let gateway = start(&authority.server("server"), authority.trusting(None), &[]);
    let status = |scheme: &str| {
        let origin = format!("Origin: {scheme}://{}", gateway.address());
        gateway.http("GET", "/healthz", &[&origin], "").0
    };
    assert_eq!((status("https"), status("http")), (200, 403));
}

#[test]
fn a_reload_replaces_the_certificate_under_load_and_costs_no_session() {
    let authority = Authority::new();
    let client = authority.trusting(None);
    let (first, second) = (authority.server("first"), authority.server("second"));
    let used = authority.server("used");
    first.replace(&used);
    let gateway = start(&used, client.clone(), &[]);
    let before = shown_certificate(&gateway, &client);
    let (mut a, mut b) = (gateway.service("a"), gateway.service("b"));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut round = 0;
            while !is_over.load(Ordering::Relaxed) {
                a.send("b", "x", &round.to_string());
                assert_eq!(b.next().json["d"], round);
                round += 1;
            }
            a.expect_nothing();
            round
        });
        // However this ends: the load ends with it.
        let load_ends = EndsLoad(&is_over);
        second.replace(&used);
        assert_eq!(shown_certificate(&gateway, &client), before, "only a signal reloads");
        gateway.signal(Signal::SIGHUP);
        gateway.wait_for_log("TLS certificate reloaded");
        let after = shown_certificate(&gateway, &client);
        assert_ne!(after, before);
        // A key that belongs to the other certificate: the pair that is in force stays.
        fs::copy(&first.key, &used.key).unwrap();
        gateway.signal(Signal::SIGHUP);
        gateway.wait_for_log("TLS certificate not reloaded, the old one stays in force: tls_cert, tls_key:");
        assert_eq!(shown_certificate(&gateway, &client), after);
        fs::write(&used.certificate, "nothing").unwrap();
        gateway.signal(Signal::SIGHUP);
        gateway.wait_for_log("not reloaded, the old one stays in force: tls_cert:");
        assert_eq!(shown_certificate(&gateway, &client), after);
        first.replace(&used);
        gateway.signal(Signal::SIGHUP);
        eventually("the first is back", || (shown_certificate(&gateway, &client) == before).then_some(()));
        drop(load_ends);
        assert!(load.join().unwrap() > 10, "messages went on meanwhile");
    });
    assert_eq!(gateway.metric("gateway_closes_total", ""), 0);
    assert_eq!(gateway.metric("gateway_sessions", "up"), 2);
}

#[test]
fn what_was_reloaded_is_told_beside_what_was_not() {
    let authority = Authority::new();
    let used = authority.server("used");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("c.toml");
    fs::write(&file, operator()).unwrap();
    let flag = format!("--credentials={}", file.display());
    let gateway = start(&used, authority.trusting(None), &[&flag]);
    let reload = || {
        let (status, body) = gateway.http("POST", "/api/v1/reload", &[&bearer("the-operators-token")], "");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        (status, body["reloaded"].clone(), body["error"]["message"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(reload(), (200, json!(["TLS certificate", "credentials"]), String::new()));
    fs::write(&used.certificate, "nothing").unwrap();
    let (status, reloaded, message) = reload();
    assert_eq!((status, reloaded), (409, json!(["credentials"])));
    assert!(message.starts_with("tls_cert: "), "{message}");
    fs::write(&file, "").unwrap();
    let (status, reloaded, message) = reload();
    assert_eq!((status, reloaded), (409, json!([])));
    let credentials = format!("; credentials: {}", file.display());
    assert!(message.starts_with("tls_cert: ") && message.contains(&credentials), "{message}");
}

#[test]
fn openssl_connects_and_refuses_another_authority() {
    let (authority, other) = (Authority::new(), Authority::new());
    let gateway = start(&authority.server("server"), authority.trusting(None), &[]);
    let ask = |ca: &Authority, version: &str| {
        let mut child = Command::new("openssl")
            .args(["s_client", "-connect", &gateway.address().to_string(), version, "-CAfile"])
            .arg(ca.file())
            .args(["-verify_return_error", "-verify_ip", "127.0.0.1", "-quiet", "-ign_eof"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl, of Debian's package of that name, is needed");
        let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let _ = child.stdin.take().unwrap().write_all(request.as_bytes());
        let output = child.wait_with_output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    };
    for version in ["-tls1_2", "-tls1_3"] {
        let (is_well, output) = ask(&authority, version);
        assert!(is_well && output.contains("HTTP/1.1 200 OK"), "{output}");
        assert!(!output.contains("unexpected eof"), "it ends with close_notify: {output}");
        let (is_well, output) = ask(&other, version);
        assert!(!is_well && output.contains("verify failed"), "{output}");
        assert!(!output.contains("HTTP/1.1"), "{output}");
    }
    let (is_well, output) = ask(&authority, "-tls1_1");
    assert!(!is_well, "older than TLS 1.2: {output}");
}

#[test]
fn what_is_wrong_with_the_files_is_told_at_the_start() {
    let authority = Authority::new();
    let (pair, other) = (authority.server("server"), authority.server("other"));
    let junk = authority.path("junk");
    fs::write(&junk, "nothing").unwrap();
    let (certificate, key) = (&*pair.certificate, &*pair.key);
    let nowhere = authority.path("nowhere");
    for (flags, told) in [
        (
            &[("tls-cert", certificate)][..],
            "tls_key: expected the file of the private key of tls_cert, got none",
        ),
        (&[("tls-key", key)], "tls_cert: expected the file of the certificate of tls_key, got none"),
        (
            &[("tls-client-ca", certificate)],
            "tls_client_ca: expected none without tls_cert and tls_key, got one",
        ),
        (&[("tls-cert", &nowhere), ("tls-key", key)], "tls_cert: cannot read `"),
        (
            &[("tls-cert", certificate), ("tls-key", &junk)],
            "expected a PEM file of the certificate's private key",
        ),
        (&[("tls-cert", &junk), ("tls-key", key)], "expected a PEM file of the certificate, then those"),
        (&[("tls-cert", certificate), ("tls-key", &other.key)], "do not go together"),
        (&[("tls-cert", certificate), ("tls-key", key), ("tls-client-ca", &junk)], "tls_client_ca: `"),
    ] {
        let flags: Vec<String> =
            flags.iter().map(|(flag, path): &(&str, &Path)| format!("--{flag}={}", path.display())).collect();
        let error = Gateway::refused(&flags);
        assert!(error.contains(told), "{flags:?} should be told {told:?}: {error}");
    }
}
