use std::net::SocketAddr;

use actix_web::test::TestRequest;

use super::*;
use crate::config::Sources;

/// By the flags of a gateway.
fn hosts(flags: &[(&'static str, &str)]) -> Hosts {
    let given = flags.iter().chain(&[("data_dir", "none"), ("expose_without_credentials", "true")]);
    let read_file = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
    let flags = given.map(|(name, typed)| (*name, (*typed).to_owned())).collect();
    let sources = Sources { flags, file: None, variables: Vec::new(), read_file: &read_file };
    Hosts::new(&Config::load(sources).unwrap().config)
}

fn loopback() -> Hosts {
    hosts(&[])
}

fn exposed() -> Hosts {
    hosts(&[("listen", "0.0.0.0:7117")])
}

/// The status that a request with these headers is refused with, or 200; the peer is a loopback address.
fn status_of(hosts: &Hosts, url: &str, sent: &[(&'static str, &str)]) -> u16 {
    let peer = SocketAddr::from(([127, 0, 0, 1], 4711));
    let request = sent
        .iter()
        .fold(TestRequest::with_uri(url).peer_addr(peer), |request, header| request.append_header(*header));
    match hosts.check(&request.to_http_request()) {
        Ok(_) => 200,
        Err(Refusal::Malformed(_)) => 400,
        Err(Refusal::ForeignPage(_)) => 403,
    }
}

fn status(hosts: &Hosts, sent: &[(&'static str, &str)]) -> u16 {
    status_of(hosts, "/", sent)
}

#[test]
fn an_absolute_url_stands_above_the_host() {
    let (loopback, host) = (loopback(), ("host", "localhost:7117"));
    assert_eq!(status_of(&loopback, "http://127.0.0.1:7117/", &[host]), 200);
    assert_eq!(status_of(&loopback, "http://evil.example:7117/", &[host]), 403);
    assert_eq!(status_of(&loopback, "http://localhost:7117/", &[("host", "evil.example")]), 403);
    assert_eq!(status_of(&loopback, "http://evil@localhost:7117/", &[host]), 400);
    assert_eq!(status_of(&exposed(), "http://evil.example:7117/", &[host]), 200);
    let page = |origin| status_of(&loopback, "http://127.0.0.1:7117/", &[host, ("origin", origin)]);
    assert_eq!((page("http://127.0.0.1:7117"), page("http://localhost:7117")), (200, 403));
}

#[test]
fn a_gateway_on_loopback_is_reached_under_loopbacks_names_only() {
    for host in [
        "localhost",
        "LOCALHOST:7117",
        "127.0.0.1:7117",
        "127.8.9.1",
        "[::1]:7117",
        "[::1]",
        "[::ffff:127.0.0.1]:1",
    ] {
        assert_eq!(status(&loopback(), &[("host", host)]), 200, "{host}");
    }
    for host in [
        "evil.example",
        "evil.example:7117",
        "localhost.evil.example",
        "10.0.0.1",
        "[::2]:7117",
        "0.0.0.0:7117",
    ] {
        assert_eq!(status(&loopback(), &[("host", host)]), 403, "{host}");
        assert_eq!(status(&exposed(), &[("host", host)]), 200, "{host}");
    }
}

#[test]
fn a_request_has_one_host_that_is_one() {
    for sent in
        [&[][..], &[("host", "localhost"), ("host", "localhost")], &[("host", "")], &[("host", "a b")]]
    {
        assert_eq!(status(&exposed(), sent), 400, "{sent:?}");
    }
}

#[test]
fn hosts_are_those_that_were_listed() {
    let listed = hosts(&[("allowed_hosts", "bots.example,::1")]);
    for (host, expected) in
        [("Bots.Example:8443", 200), ("[::1]:7117", 200), ("localhost", 403), ("www.bots.example", 403)]
    {
        assert_eq!(status(&listed, &[("host", host)]), expected, "{host}");
    }
    let more = hosts(&[("allowed_hosts", "auto,bots.example")]);
    for (host, expected) in [("bots.example", 200), ("localhost", 200), ("evil.example", 403)] {
        assert_eq!(status(&more, &[("host", host)]), expected, "{host}");
    }
    assert_eq!(status(&hosts(&[("allowed_hosts", "any")]), &[("host", "evil.example")]), 200);
}

#[test]
fn a_web_page_must_come_from_the_same_host() {
    let with = |host, origin| status(&loopback(), &[("host", host), ("origin", origin)]);
    for (host, origin) in [
        ("127.0.0.1:7117", "http://127.0.0.1:7117"),
        ("localhost:7117", "http://LOCALHOST:7117"),
        ("localhost", "http://localhost"),
        ("localhost:80", "http://localhost"),
        ("[::1]:7117", "http://[::1]:7117"),
    ] {
        assert_eq!(with(host, origin), 200, "{origin} at {host}");
    }
    for origin in [
        "null",
        "",
        "http://evil.example",
        "http://127.0.0.1",
        "http://127.0.0.1:7118",
        "https://127.0.0.1:7117",
        "http://localhost:7117",
        "http://127.0.0.1:7117.evil.example",
        "http://evil.example@127.0.0.1:7117",
        "ftp://127.0.0.1:7117",
        "http://127.0.0.1:7117/",
        "http://127.0.0.1:7117 http://evil.example",
    ] {
        assert_eq!(with("127.0.0.1:7117", origin), 403, "{origin}");
    }
    let twice = [("host", "localhost"), ("origin", "http://localhost"), ("origin", "http://localhost")];
    assert_eq!(status(&loopback(), &twice), 400);
}

#[test]
fn origins_are_those_that_were_listed() {
    let host = ("host", "localhost:7117");
    let from = |origins, origin| status(&hosts(&[("allowed_origins", origins)]), &[host, ("origin", origin)]);
    let (own, listed) = ("http://localhost:7117", "https://bots.example:8443");
    assert_eq!((from(listed, listed), from(listed, own)), (200, 403));
    assert_eq!((from("same-host,https://bots.example:8443", own), from("none", own)), (200, 403));
    for other in
        ["http://bots.example:8443", "https://bots.example", "https://evil.bots.example:8443", "null"]
    {
        assert_eq!(from(listed, other), 403, "{other}");
    }
    assert_eq!(status(&hosts(&[("allowed_origins", "none")]), &[host]), 200, "what is no page has no origin");
}

#[test]
fn a_trusted_proxys_word_stands_above_the_host_and_each_host_must_be_allowed() {
    let proxied = hosts(&[("trusted_proxies", "127.0.0.1"), ("allowed_hosts", "auto,bots.example")]);
    let https = ("x-forwarded-proto", "https");
    let with = |hosts: &Hosts, host, x_host, origin| {
        status(hosts, &[("host", host), ("x-forwarded-host", x_host), https, ("origin", origin)])
    };
    assert_eq!(with(&proxied, "127.0.0.1:7117", "bots.example", "https://bots.example"), 200);
    assert_eq!(with(&proxied, "127.0.0.1:7117", "bots.example", "http://bots.example"), 403);
    assert_eq!(with(&proxied, "127.0.0.1:7117", "bots.example", "https://127.0.0.1:7117"), 403);
    assert_eq!(with(&proxied, "127.0.0.1:7117", "evil.example", "https://evil.example"), 403);
    // A page that has a name of its own for a loopback address can write any header.
    assert_eq!(with(&proxied, "evil.example:7117", "localhost", "https://localhost"), 403);
    // Who is no proxy is not heard.
    let alone = hosts(&[("allowed_hosts", "auto,bots.example")]);
    assert_eq!(with(&alone, "127.0.0.1:7117", "bots.example", "https://bots.example"), 403);
    assert_eq!(with(&alone, "127.0.0.1:7117", "evil.example", "http://127.0.0.1:7117"), 200);
    assert_eq!(status(&proxied, &[("host", "localhost"), ("x-forwarded-for", "nobody")]), 400);
    assert_eq!(status(&alone, &[("host", "localhost"), ("x-forwarded-for", "nobody")]), 200);
}
