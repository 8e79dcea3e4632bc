use std::path::Path;
use std::sync::LazyLock;

use super::*;
use crate::config::{Config, Sources};

const PROXY: &str = "10.0.0.1";

static TRUSTED: LazyLock<TrustedProxies> = LazyLock::new(|| {
    let flags = [
        ("trusted_proxies", "10.0.0.0/8,fd00::/8".to_owned()),
        ("expose_without_credentials", "true".to_owned()),
        ("data_dir", "none".to_owned()),
    ];
    let read_file = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
    let sources = Sources { flags: flags.into(), file: None, variables: Vec::new(), read_file: &read_file };
    Config::load(sources).unwrap().config.trusted_proxies
});

fn by(peer: &str, headers: &Headers<'_>) -> Result<Told, Malformed> {
    client(peer.parse().unwrap(), headers, &TRUSTED)
}

fn forwarded<'a>(lines: &[&'a str]) -> Headers<'a> {
    Headers { forwarded: lines.into(), ..Headers::default() }
}

fn x_for<'a>(lines: &[&'a str]) -> Headers<'a> {
    Headers { x_for: lines.into(), ..Headers::default() }
}

fn address(headers: &Headers<'_>) -> String {
    let told = by(PROXY, headers).unwrap_or_else(|malformed| panic!("{headers:?}: {malformed}"));
    told.address.map_or_else(|| "none".to_owned(), |address| address.to_string())
}

#[test]
fn nobody_but_a_trusted_proxy_is_believed() {
    let headers = Headers {
        forwarded: vec!["for=1.1.1.1;host=evil.example;proto=https", "for=\"broken"],
        x_for: vec!["2.2.2.2"],
        x_host: vec!["evil.example"],
        x_proto: vec!["gopher"],
    };
    for peer in ["192.0.2.1", "::ffff:192.0.2.1", "127.0.0.1", "::1"] {
        assert_eq!(by(peer, &headers), Ok(Told::default()), "{peer}");
    }
    assert!(by(PROXY, &headers).is_err() && by("::ffff:10.0.0.1", &headers).is_err());
}

#[test]
fn the_client_is_the_last_address_that_is_no_trusted_proxy() {
    for (chain, client) in [
        ("192.0.2.1", "192.0.2.1"),
        ("6.6.6.6, 192.0.2.1", "192.0.2.1"),
        ("6.6.6.6, 192.0.2.1, 10.0.0.9, 10.1.2.3", "192.0.2.1"),
        ("10.0.0.5, 192.0.2.1", "192.0.2.1"),
        ("garbage, 192.0.2.1, 10.0.0.9", "192.0.2.1"),
        ("10.0.0.5,10.0.0.9", "10.0.0.5"),
        ("6.6.6.6, unknown, 10.0.0.9", "10.0.0.9"),
        ("6.6.6.6, _hidden", "10.0.0.1"),
        (" , 192.0.2.1 ,, ", "192.0.2.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("::ffff:192.0.2.1, ::ffff:10.0.0.9", "192.0.2.1"),
        ("6.6.6.6, fd00::7", "6.6.6.6"),
        ("", "none"),
    ] {
        assert_eq!(address(&x_for(&[chain])), client, "{chain}");
    }
    assert_eq!(address(&x_for(&["6.6.6.6", "192.0.2.1"])), "192.0.2.1");
    assert_eq!(address(&x_for(&["192.0.2.1", "10.0.0.9"])), "192.0.2.1");
}

#[test]
fn forwarded_is_read_as_its_standard_has_it() {
    for (line, client) in [
        ("for=192.0.2.1", "192.0.2.1"),
        ("For=\"192.0.2.1:4711\";Proto=https", "192.0.2.1"),
        ("for=\"[2001:db8::1]:4711\"", "2001:db8::1"),
        ("for=\"192.0.2.1:_port\"", "192.0.2.1"),
        ("proto=https ; by=_x; secret=\"a\\\",for=6.6.6.6\" ;for=192.0.2.1", "192.0.2.1"),
        ("for=6.6.6.6, for=192.0.2.1,for=10.0.0.9", "192.0.2.1"),
        (", for=192.0.2.1 ,", "192.0.2.1"),
        ("for=6.6.6.6, for=unknown", "10.0.0.1"),
        ("for=6.6.6.6, proto=http", "none"),
        ("for=nonsense, for=192.0.2.1", "192.0.2.1"),
    ] {
        assert_eq!(address(&forwarded(&[line])), client, "{line}");
    }
}

#[test]
fn host_and_protocol_are_those_that_the_farthest_trusted_proxy_saw() {
    let told = by(
        PROXY,
        &forwarded(&[
            "for=6.6.6.6;host=evil.example;proto=http, for=192.0.2.1;host=\"bots.example:8443\";proto=HTTPS, for=10.0.0.9;host=inner;proto=http",
        ]),
    );
    let told = told.unwrap();
    assert_eq!((told.host, told.scheme), (Authority::parse("bots.example:8443"), Some(Scheme::Https)));
    let headers = Headers {
        x_for: vec!["192.0.2.1"],
        x_host: vec!["evil.example, bots.example"],
        x_proto: vec!["http", "wss"],
        ..Headers::default()
    };
    let told = by(PROXY, &headers).unwrap();
    assert_eq!((told.host, told.scheme), (Authority::parse("bots.example"), Some(Scheme::Https)));
}

#[test]
fn what_a_trusted_proxy_sends_must_be_well_formed() {
    for line in [
        "192.0.2.1",
        "for",
        "for=",
        "for=\"",
        "for=\"192.0.2.1",
        "for=\"1.1.1.1\"2",
        "for=1.1.1.1;for=1.1.1.1",
        "for=1.1.1.1;",
        "for=1.1.1.1 proto=http",
        "=x",
        "for =1.1.1.1",
        "for=bots.example",
        "for=1.1.1.1:port",
        "for=1.1.1",
        "for=\"[::1\"",
        "for=1.1.1.1;proto=gopher",
        "for=1.1.1.1;host=\"a/b\"",
        "for=_",
        "for=6.6.6.6;x=\", for=192.0.2.1",
    ] {
        assert!(by(PROXY, &forwarded(&[line])).is_err(), "{line}: {:?}", by(PROXY, &forwarded(&[line])));
    }
    for node in
        ["garbage", "1.1.1.1, garbage, 10.0.0.9", "1.1.1.1:99999999", "[1.1.1.1]", "300.1.1.1", "1.1.1.1 2"]
    {
        assert!(by(PROXY, &x_for(&[node])).is_err(), "{node}");
    }
    for headers in [
        Headers { x_host: vec!["a b"], ..Headers::default() },
        Headers { x_proto: vec!["ftp"], ..Headers::default() },
    ] {
        assert!(by(PROXY, &headers).is_err(), "{headers:?}");
    }
}

#[test]
fn what_a_client_adds_for_its_proxy_does_not_count() {
    let both =
        |forwarded, x_for| Headers { forwarded: vec![forwarded], x_for: vec![x_for], ..Headers::default() };
    assert_eq!(address(&both("for=192.0.2.1", "192.0.2.1")), "192.0.2.1");
    assert_eq!(address(&both("for=6.6.6.6, for=192.0.2.1", "7.7.7.7, 192.0.2.1")), "192.0.2.1");
    assert_eq!(address(&both("proto=https", "192.0.2.1")), "192.0.2.1");
    for (forwarded, x_for) in
        [("for=6.6.6.6", "192.0.2.1"), ("for=192.0.2.1", "6.6.6.6"), ("for=unknown", "6.6.6.6")]
    {
        assert!(by(PROXY, &both(forwarded, x_for)).is_err(), "{forwarded} and {x_for}");
    }
    let hosts = |forwarded, x_host| Headers {
        forwarded: vec![forwarded],
        x_host: vec![x_host],
        ..Headers::default()
    };
    assert!(by(PROXY, &hosts("for=192.0.2.1;host=a.example", "b.example")).is_err());
    assert_eq!(by(PROXY, &hosts("for=192.0.2.1", "b.example")).unwrap().host, Authority::parse("b.example"));
    // A quote that the client left open ends with its line.
    assert!(by(PROXY, &forwarded(&["for=\"6.6.6.6", "for=192.0.2.1"])).is_err());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 10_000, failure_persistence: None, ..Default::default() })]

    /// Whatever a client writes, it is not another's: what the proxy adds on a line of its own, or after
    /// a comma, decides, or the request is refused.
    #[test]
    fn whatever_a_client_writes_it_is_nobody_else(written in "[for=\"\\\\;,:\\[\\]0-9. a-z_-]{0,40}", host in "[a-z]{0,3}") {
        let own = format!("for=192.0.2.1;host=h{host};proto=\"https\"");
        let joined = format!("{written}, {own}");
        for lines in [vec![written.as_str(), own.as_str()], vec![joined.as_str()]] {
            if let Ok(told) = by(PROXY, &forwarded(&lines)) {
                proptest::prop_assert_eq!(told.address, Some("192.0.2.1".parse().unwrap()), "{:?}", lines);
            }
        }
        let added = format!("{written}, 192.0.2.1");
        proptest::prop_assert_eq!(address(&x_for(&[&added])), "192.0.2.1");
        proptest::prop_assert_eq!(address(&x_for(&[&written, "192.0.2.1"])), "192.0.2.1");
    }
}
