//! Where the services connect to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use crate::bench::BenchError;
use crate::bench::http::Http;

/// So many connections have one loopback address as their source, of 28,232 ports that Linux gives out.
const CONNECTIONS_PER_SOURCE: usize = 20_000;

pub(super) struct Endpoint {
    pub(super) address: SocketAddr,
    authority: String,
    path: String,
}

impl Endpoint {
    pub(super) fn of(http: &Http) -> Result<Self, BenchError> {
        let (authority, path) = (http.authority().to_owned(), http.path().to_owned());
        let failed = |reason: String| BenchError::Unreachable { authority: authority.clone(), reason };
        let mut found = authority.to_socket_addrs().map_err(|error| failed(error.to_string()))?;
        let address = found.next().ok_or_else(|| failed("the name has no address".to_owned()))?;
        Ok(Self { address, authority, path })
    }

    /// The request for a WebSocket.
    pub(super) fn request(&self, key: &str) -> String {
        let Self { authority, path, .. } = self;
        format!(
            "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        )
    }

    /// Where connection number `index` comes from, where the gateway is on the loopback and one address may
    /// not have ports enough.
    pub(super) fn source(&self, index: usize) -> Option<IpAddr> {
        let further = u8::try_from(index / CONNECTIONS_PER_SOURCE).ok().filter(|further| *further > 0)?;
        let is_loopback = self.address.is_ipv4() && self.address.ip().is_loopback();
        is_loopback.then(|| Ipv4Addr::new(127, 0, 1, further).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Endpoint {
        Endpoint::of(&Http::beside(url).unwrap()).unwrap()
    }

    #[test]
    fn a_loopback_address_is_the_source_of_as_many_connections_as_it_has_ports_for() {
        let loopback = endpoint("ws://127.0.0.1:1/gateway");
        assert_eq!(loopback.source(19_999), None);
        assert_eq!(loopback.source(20_000), Some(Ipv4Addr::new(127, 0, 1, 1).into()));
        assert_eq!(loopback.source(40_000), Some(Ipv4Addr::new(127, 0, 1, 2).into()));
        assert_eq!(endpoint("ws://192.0.2.1:1/gateway").source(40_000), None);
    }

    #[test]
    fn the_request_is_for_what_the_url_names() {
        let request = endpoint("ws://127.0.0.1:1/behind?a=b").request("the-key");
        assert!(request.starts_with("GET /behind?a=b HTTP/1.1\r\nHost: 127.0.0.1:1\r\n"), "{request}");
        assert!(request.ends_with("Sec-WebSocket-Key: the-key\r\n\r\n"), "{request}");
    }
}
