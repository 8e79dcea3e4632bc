//! Who asks, and by what name it reached the gateway: as the connection shows it or, where a trusted
//! proxy is at its other end, as that tells.
//!
//! It is found once for a request, and kept with it: limits, logs, audit and tickets all go by the
//! same address.

use std::rc::Rc;

use actix_web::http::header::{
    FORWARDED, HOST, HeaderMap, HeaderName, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO,
};
use actix_web::http::uri::Authority as UriAuthority;
use actix_web::{HttpMessage, HttpRequest};

use super::entrance::Arrival;
use super::forwarded;
use super::stream::Encrypted;
use crate::config::{Authority, Host, Scheme, TrustedProxies, WebOrigin};
use crate::state::peer::Peer;

/// The client of a request.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    peer: Peer,
    /// The origin that a page of the gateway's own would have for it.
    pub(crate) own_origin: WebOrigin,
    /// Every host that the request names: `Host`, the URL's, and that of a trusted proxy.
    pub(crate) hosts: Vec<Host>,
}

impl Client {
    /// The error says what is malformed.
    pub(crate) fn of(request: &HttpRequest, trusted: &TrustedProxies) -> Result<Self, String> {
        let peer = peer(request).ok_or("the connection has no address")?;
        // A user of the Unix domain socket is no proxy.
        let address = if let Peer::Address(address) = peer { Some(address) } else { None };
        let is_trusted = address.is_some_and(|address| trusted.contain(address));
        let host = host(request.headers())?;
        let in_url = request.uri().authority().map(UriAuthority::as_str);
        let in_url =
            in_url.map(|text| Authority::parse(text).ok_or("the URL of the request has no host that is one"));
        let in_url = in_url.transpose()?;
        let headers = headers(request.headers(), is_trusted)?;
        let told = address.map(|address| forwarded::client(address, &headers, trusted)).transpose();
        let told = told.map_err(|malformed| malformed.to_string())?.unwrap_or_default();
        let named = [Some(&host), in_url.as_ref(), told.host.as_ref()];
        let hosts = named.into_iter().flatten().map(|authority| authority.host.clone()).collect();
        let scheme = told.scheme.unwrap_or(if is_tls(request) { Scheme::Https } else { Scheme::Http });
        // What the URL names stands above `Host` (RFC 9112 section 3.2.2).
        let own_origin = WebOrigin::of(scheme, told.host.or(in_url).unwrap_or(host));
        Ok(Self { peer: told.address.map_or(peer, Peer::Address), own_origin, hosts })
    }
}

impl Client {
    /// Whether it came by the Unix domain socket.
    pub(crate) fn is_local_user(&self) -> bool {
        matches!(self.peer, Peer::User(_))
    }
}

/// Where the request comes from. `None`: it did not go by the guard, which finds that out.
pub(crate) fn client_of(request: &HttpRequest) -> Option<Peer> {
    request.extensions().get::<Client>().map(|client| client.peer)
}

/// What is at the other end of the connection.
fn peer(request: &HttpRequest) -> Option<Peer> {
    let arrival = request.conn_data::<Rc<Arrival>>().map(|arrival| arrival.peer());
    arrival.or_else(|| request.peer_addr().map(|address| Peer::Address(address.ip().to_canonical())))
}

/// Whether the connection itself is encrypted.
fn is_tls(request: &HttpRequest) -> bool {
    request.conn_data::<Encrypted>().is_some()
}

/// The one `Host` that a request has to have (RFC 9112 section 3.2).
fn host(headers: &HeaderMap) -> Result<Authority, &'static str> {
    let mut values = headers.get_all(HOST);
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err("a request must have one Host header, and only one");
    };
    let authority = value.to_str().ok().and_then(Authority::parse);
    authority.ok_or("Host must be a host, and may have a port")
}

/// What proxies wrote; nothing where it is not believed anyway.
fn headers(headers: &HeaderMap, is_trusted: bool) -> Result<forwarded::Headers<'_>, &'static str> {
    if !is_trusted {
        return Ok(forwarded::Headers::default());
    }
    let all = |name: &HeaderName| {
        let values = headers.get_all(name).map(|value| value.to_str().map_err(|_| NOT_ASCII));
        values.collect::<Result<Vec<_>, _>>()
    };
    Ok(forwarded::Headers {
        forwarded: all(&FORWARDED)?,
        x_for: all(&X_FORWARDED_FOR)?,
        x_host: all(&X_FORWARDED_HOST)?,
        x_proto: all(&X_FORWARDED_PROTO)?,
    })
}

const NOT_ASCII: &str = "a trusted proxy sent Forwarded or X-Forwarded-… with other characters than ASCII";
