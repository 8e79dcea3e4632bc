//! Web pages and the hosts under which they reach the gateway, as browsers and settings spell them.
//!
//! Which of them a request shows is not told here; the rules are applied by `http::guard`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::directory::NONE;
use super::list::List;
use super::setting::Kind;
use super::value::{Field, Value};

/// The longest name that DNS knows.
const MAX_NAME_BYTES: usize = 253;

/// In `allowed_origins`: pages that the gateway's own host served.
const SAME_HOST: &str = "same-host";

/// In `allowed_hosts`: loopback's names where it listens there, any host elsewhere.
const AUTO: &str = "auto";

/// In `allowed_hosts`: whatever a request says.
const ANY: &str = "any";

/// A host, without a port. Two are equal if they are the same host to a browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    Address(IpAddr),
    /// In lower case.
    Name(Box<str>),
}

impl Host {
    /// As URLs spell it: an IPv6 address in brackets. Names of other scripts have to be in Punycode, as
    /// browsers send them.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(v6) = text.strip_prefix('[') {
            let v6: Ipv6Addr = v6.strip_suffix(']')?.parse().ok()?;
            return Some(Self::Address(IpAddr::from(v6).to_canonical()));
        }
        if let Ok(v4) = text.parse::<Ipv4Addr>() {
            return Some(Self::Address(v4.into()));
        }
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let is_sized = (1..=MAX_NAME_BYTES).contains(&text.len());
        (is_sized && text.bytes().all(is_name)).then(|| Self::Name(text.to_ascii_lowercase().into()))
    }

    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Address(address) => address.is_loopback(),
            Self::Name(name) => &**name == "localhost",
        }
    }
}

/// A host and, where one is named, a port: what the header `Host` and a URL's authority hold (RFC 9110
/// section 7.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    pub host: Host,
    pub port: Option<u16>,
}

impl Authority {
    pub fn parse(text: &str) -> Option<Self> {
        let split = text.rfind(':').filter(|at| !text[*at..].contains(']'));
        let (host, port) = split.map_or((text, ""), |at| (&text[..at], &text[at + 1..]));
        let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = if port.is_empty() { None } else { Some(port.parse().ok().filter(|_| is_port)?) };
        Some(Self { host: Host::parse(host)?, port })
    }
}

/// By what a page, or a request, came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// Those of WebSockets are what they are built on.
    pub fn parse(text: &str) -> Option<Self> {
        let is = |scheme: &str| text.eq_ignore_ascii_case(scheme);
        if is("http") || is("ws") {
            Some(Self::Http)
        } else if is("https") || is("wss") {
            Some(Self::Https)
        } else {
            None
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Where a web page is from (RFC 6454 section 6.2): `https://bots.example:8443`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebOrigin {
    scheme: Scheme,
    host: Host,
    port: u16,
}

impl WebOrigin {
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = Scheme::parse(scheme).filter(|_| scheme.len() >= "http".len())?;
        Some(Self::of(scheme, Authority::parse(rest)?))
    }

    /// That of a page which was reached so.
    pub fn of(scheme: Scheme, Authority { host, port }: Authority) -> Self {
        Self { scheme, host, port: port.unwrap_or(scheme.default_port()) }
    }
}

impl fmt::Display for WebOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.scheme == Scheme::Http { "http" } else { "https" };
        match &self.host {
            Host::Address(IpAddr::V6(v6)) => write!(f, "{scheme}://[{v6}]")?,
            Host::Address(v4) => write!(f, "{scheme}://{v4}")?,
            Host::Name(name) => write!(f, "{scheme}://{name}")?,
        }
        if self.port == self.scheme.default_port() { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// Which web pages may use the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedOrigins {
    same_host: bool,
    listed: Vec<WebOrigin>,
}

impl AllowedOrigins {
    /// `own` is the origin that pages of the gateway itself would have.
    pub fn allow(&self, origin: &WebOrigin, own: &WebOrigin) -> bool {
        (self.same_host && origin == own) || self.listed.contains(origin)
    }
}

/// Under which hosts the gateway may be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedHosts {
    auto: bool,
    any: bool,
    listed: Vec<Host>,
}

impl AllowedHosts {
    /// `on_loopback`: only this machine can reach the gateway.
    pub fn allow(&self, host: &Host, on_loopback: bool) -> bool {
        let by_default = self.auto && (!on_loopback || host.is_loopback());
        self.any || by_default || self.listed.contains(host)
    }
}

pub(super) const ORIGINS: Kind = Kind::List(List {
    placeholder: "ORIGIN",
    expected: "origins such as `https://bots.example:8443` (scheme http or https, host, port, and nothing after \
               it) and `same-host`",
    default: &[SAME_HOST],
    may_be_empty: true,
    is_item: |item| item == SAME_HOST || WebOrigin::parse(item).is_some(),
});

pub(super) const HOSTS: Kind = Kind::List(List {
    placeholder: "HOST",
    expected: "hosts such as `bots.example` or `10.0.0.1` (without scheme and port), `auto` or `any`",
    default: &[AUTO],
    may_be_empty: false,
    // Everywhere else that is no item at all, and under no host nobody could ask.
    is_item: |item| item != NONE && listed_host(item).is_some(),
});

/// An IPv6 address needs no brackets, as no port can follow.
fn listed_host(item: &str) -> Option<Host> {
    let v6 = item.parse().ok().map(|v6: Ipv6Addr| Host::Address(IpAddr::from(v6).to_canonical()));
    v6.or_else(|| Host::parse(item))
}

impl Field for AllowedOrigins {
    fn from_value(value: Value) -> Self {
        let items = Vec::from_value(value);
        let origins = items.iter().filter(|item| *item != SAME_HOST);
        let listed =
            origins.map(|item| WebOrigin::parse(item).expect("the value was checked against its kind"));
        Self { same_host: items.iter().any(|item| item == SAME_HOST), listed: listed.collect() }
    }
}

impl Field for AllowedHosts {
    fn from_value(value: Value) -> Self {
        let items = Vec::from_value(value);
        let has = |word| items.iter().any(|item| item == word);
        let hosts = items.iter().filter(|item| ![AUTO, ANY].contains(&item.as_str()));
        let listed = hosts.map(|item| listed_host(item).expect("the value was checked against its kind"));
        Self { auto: has(AUTO), any: has(ANY), listed: listed.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Host {
        Host::parse(text).unwrap_or_else(|| panic!("{text} is no host"))
    }

    #[test]
    fn a_host_is_known_however_it_is_spelled() {
        assert_eq!(host("LOCALHOST"), host("localhost"));
        assert_eq!(host("[::ffff:127.0.0.1]"), host("127.0.0.1"));
        assert_eq!(host("[0:0::1]"), host("[::1]"));
        for no_host in [
            "",
            "a b",
            "a/b",
            "a@b",
            "a:1",
            "[::1",
            "::1",
            "[127.0.0.1]",
            "%6cocalhost",
            "bücher.example",
            "a\0",
            "*",
        ] {
            assert_eq!(Host::parse(no_host), None, "{no_host:?}");
        }
        assert_eq!(Host::parse(&"a".repeat(254)), None);
    }

    #[test]
    fn a_port_is_digits_after_the_last_colon() {
        let port = |text| Authority::parse(text).map(|authority| authority.port);
        assert_eq!(port("localhost"), Some(None));
        assert_eq!(port("localhost:7117"), Some(Some(7117)));
        assert_eq!(port("[::1]:7117"), Some(Some(7117)));
        assert_eq!(port("[::1]"), Some(None));
        for wrong in ["localhost:+80", "localhost:70000", "localhost:x", "a:1:2", ":80", "[::1]7117"] {
            assert_eq!(port(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_origin_is_a_scheme_a_host_and_a_port_and_all_of_them_count() {
        let origin = |text| WebOrigin::parse(text).unwrap_or_else(|| panic!("{text} is no origin"));
        assert_eq!(origin("https://Bots.example"), origin("https://bots.example:443"));
        assert_eq!(origin("http://a").to_string(), "http://a");
        assert_eq!(origin("https://[::1]:8443").to_string(), "https://[::1]:8443");
        for other in ["http://bots.example", "https://bots.example:8443", "https://www.bots.example"] {
            assert_ne!(origin("https://bots.example"), origin(other), "{other}");
        }
        for no_origin in
            ["null", "", "*", "bots.example", "https://", "https://a/", "ftp://a", "ws://a", "https://u@a"]
        {
            assert_eq!(WebOrigin::parse(no_origin), None, "{no_origin}");
        }
    }
}
