//! Who is believed about where a request comes from.

use std::net::IpAddr;

use ipnet::IpNet;

use super::list::List;
use super::setting::Kind;
use super::value::{Field, Value};

/// The addresses of reverse proxies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Whether no proxy is trusted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

pub(super) const PROXIES: Kind = Kind::List(List {
    placeholder: "NETWORK",
    expected: "IP addresses such as `10.0.0.7` and networks such as `10.0.0.0/8`",
    default: &[],
    may_be_empty: true,
    is_item: |item| parse(item).is_some(),
});

/// A network that is written as one of its addresses and its length is that network.
fn parse(item: &str) -> Option<IpNet> {
    let network = item.parse().map(|address: IpAddr| IpNet::from(address.to_canonical()));
    network.or_else(|_| item.parse().map(|network: IpNet| network.trunc())).ok()
}

impl Field for TrustedProxies {
    fn from_value(value: Value) -> Self {
        let items = Vec::from_value(value);
        Self(items.iter().map(|item| parse(item).expect("the value was checked against its kind")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_trusted_however_it_is_spelled() {
        let listed = ["10.0.0.7", "192.168.1.9/16", "fd00::/8", "::ffff:10.9.9.9"];
        let proxies = TrustedProxies::from_value(Value::List(listed.map(str::to_owned).into()));
        let trusted = |text: &str| proxies.contain(text.parse().unwrap());
        for address in
            ["10.0.0.7", "::ffff:10.0.0.7", "192.168.0.1", "192.168.255.255", "fd12::1", "10.9.9.9"]
        {
            assert!(trusted(address), "{address}");
        }
        for address in ["10.0.0.8", "192.169.0.1", "fe80::1", "::1", "127.0.0.1"] {
            assert!(!trusted(address), "{address}");
        }
    }
}
