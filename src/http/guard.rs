//! Refuses what a web page could have sent.
//!
//! Any page that a browser on this machine shows can reach a loopback port: directly, which its
//! `Origin` tells, or by a name of its own that resolves to 127.0.0.1, which `Host` tells. (OWASP:
//! cross-site WebSocket hijacking; DNS rebinding.)

use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{HOST, HeaderMap, HeaderName, ORIGIN};
use actix_web::http::uri::Authority;
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpResponse};

use super::body::error;
use crate::config::Config;
use crate::networker::entrance::{Arrival, Entrance};
use crate::state::tally::Turned;

/// How long an answer may take to be read.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Under which hosts the gateway may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hosts {
    /// It listens on loopback: only under loopback's names.
    Loopback,
    /// It was exposed on purpose.
    Any,
}

impl Hosts {
    pub(crate) fn new(config: &Config) -> Self {
        if is_loopback(config.listen.ip()) { Self::Loopback } else { Self::Any }
    }

    /// Why the request is refused, if it is. `authority` is the host of an absolute URL in the
    /// request line, which stands above `Host` (RFC 9112 section 3.2.2).
    fn refusal(self, authority: Option<&str>, headers: &HeaderMap) -> Option<&'static str> {
        let Ok(host) = only(headers, &HOST) else { return Some("a request has one Host header") };
        let Some(host) = host else { return Some("a request must have a Host header") };
        if self == Self::Loopback && ![Some(host), authority].into_iter().flatten().all(is_loopback_host) {
            return Some("this gateway listens on loopback: Host must be localhost, 127.0.0.1 or [::1]");
        }
        match only(headers, &ORIGIN) {
            Ok(None) => None,
            Ok(Some(origin)) if is_same_host(origin, host) => None,
            _ => Some("a request from a web page must come from this gateway's own host (Origin)"),
        }
    }
}

/// The middleware.
pub(crate) async fn guard(
    hosts: Data<Hosts>,
    entrance: Data<Entrance>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if let Some(arrival) = request.conn_data::<Rc<Arrival>>() {
        arrival.asked();
    }
    let authority = request.uri().authority().map(Authority::as_str);
    if let Some(message) = hosts.refusal(authority, request.headers()) {
        entrance.turn_away(Turned::ForeignPage);
        log::debug!("a request was refused: {message}");
        let response: HttpResponse = error(403, "forbidden", message);
        return Ok(request.into_response(response));
    }
    let response = next.call(request).await?.map_into_boxed_body();
    if response.status() != StatusCode::SWITCHING_PROTOCOLS
        && let Some(arrival) = response.request().conn_data::<Rc<Arrival>>()
    {
        arrival.cut_off_after(ANSWER_TIMEOUT);
    }
    Ok(response)
}

/// The value of a header that may stand once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(drop),
        (Some(_), Some(_)) => Err(()),
    }
}

fn is_loopback_host(host: &str) -> bool {
    let name = without_port(host);
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse().is_ok_and(is_loopback)
}

fn is_loopback(address: IpAddr) -> bool {
    address.is_loopback() || matches!(address, IpAddr::V6(v6) if mapped_is_loopback(v6))
}

fn mapped_is_loopback(address: Ipv6Addr) -> bool {
    address.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback())
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

/// Whether an origin is a page that this very host served.
fn is_same_host(origin: &str, host: &str) -> bool {
    let with_port = |host: &str, port: &str| {
        if without_port(host).len() == host.len() { format!("{host}:{port}") } else { host.to_owned() }
    };
    let same = |rest: &str, port| with_port(rest, port).eq_ignore_ascii_case(&with_port(host, port));
    match origin.split_once("://") {
        Some(("http", rest)) => same(rest, "80"),
        Some(("https", rest)) => same(rest, "443"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn refusal(hosts: Hosts, sent: &[(HeaderName, &str)]) -> Option<&'static str> {
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        hosts.refusal(None, &headers)
    }

    #[test]
    fn an_absolute_url_stands_above_the_host() {
        let mut headers = HeaderMap::new();
        headers.append(HOST, HeaderValue::from_static("localhost:7117"));
        assert_eq!(Hosts::Loopback.refusal(Some("127.0.0.1:7117"), &headers), None);
        assert!(Hosts::Loopback.refusal(Some("evil.example:7117"), &headers).is_some());
        assert_eq!(Hosts::Any.refusal(Some("evil.example:7117"), &headers), None);
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
            assert_eq!(refusal(Hosts::Loopback, &[(HOST, host)]), None, "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:7117",
            "localhost.evil.example",
            "10.0.0.1",
            "[::2]:7117",
            "",
            "0.0.0.0:7117",
        ] {
            assert!(refusal(Hosts::Loopback, &[(HOST, host)]).is_some(), "{host}");
            assert_eq!(refusal(Hosts::Any, &[(HOST, host)]), None, "{host}");
        }
        assert!(refusal(Hosts::Loopback, &[]).is_some());
        assert!(refusal(Hosts::Any, &[(HOST, "a"), (HOST, "a")]).is_some());
    }

    #[test]
    fn a_web_page_must_come_from_the_same_host() {
        let with = |host, origin| refusal(Hosts::Loopback, &[(HOST, host), (ORIGIN, origin)]);
        for (host, origin) in [
            ("127.0.0.1:7117", "http://127.0.0.1:7117"),
            ("localhost:7117", "https://LOCALHOST:7117"),
            ("localhost", "http://localhost"),
            ("localhost:80", "http://localhost"),
            ("[::1]:7117", "http://[::1]:7117"),
        ] {
            assert_eq!(with(host, origin), None, "{origin} at {host}");
        }
        for origin in [
            "null",
            "",
            "http://evil.example",
            "http://127.0.0.1",
            "http://127.0.0.1:7118",
            "http://localhost:7117",
            "http://127.0.0.1:7117.evil.example",
            "ftp://127.0.0.1:7117",
            "http://127.0.0.1:7117/",
        ] {
            assert!(with("127.0.0.1:7117", origin).is_some(), "{origin}");
        }
        let twice = [(HOST, "localhost"), (ORIGIN, "http://localhost"), (ORIGIN, "http://localhost")];
        assert!(refusal(Hosts::Loopback, &twice).is_some());
    }
}
