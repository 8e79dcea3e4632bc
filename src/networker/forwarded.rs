//! What reverse proxies say of the clients behind them: `Forwarded` (RFC 7239), and
//! `X-Forwarded-For`, `-Host` and `-Proto`, which most of them send instead.
//!
//! Each proxy adds to the right of what it got, which the client may have made up. So it is read from
//! the right, and only as far as those who said it are trusted; what is left of that is not even
//! looked at. Where both kinds come they have to agree: else a client could add the one that its proxy
//! does not write. Which headers a request has is the caller's to find.

use std::net::{IpAddr, Ipv6Addr};

use crate::config::{Authority, Host, Scheme, TrustedProxies};

/// The values of the headers, each in the order of its lines.
#[derive(Debug, Default)]
pub(super) struct Headers<'a> {
    pub(super) forwarded: Vec<&'a str>,
    pub(super) x_for: Vec<&'a str>,
    pub(super) x_host: Vec<&'a str>,
    pub(super) x_proto: Vec<&'a str>,
}

/// The client of a request, as far as trusted proxies tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The last address that is not a trusted proxy's; where there is none, the first.
    pub(super) address: Option<IpAddr>,
    pub(super) host: Option<Authority>,
    pub(super) scheme: Option<Scheme>,
}

/// What a trusted proxy sent is not to be understood; what, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a trusted proxy sent {0}")]
pub(super) struct Malformed(&'static str);

/// Who is behind a connection from that address. Nothing is told of who is no trusted proxy.
pub(super) fn client(
    peer: IpAddr,
    headers: &Headers<'_>,
    trusted: &TrustedProxies,
) -> Result<Told, Malformed> {
    if !trusted.contain(peer) {
        return Ok(Told::default());
    }
    let by_standard = walk(peer, &elements(&headers.forwarded)?, trusted)?;
    let by_custom = custom(peer, headers, trusted)?;
    Ok(Told {
        address: agreed(by_standard.address, by_custom.address)?,
        host: agreed(by_standard.host, by_custom.host)?,
        scheme: agreed(by_standard.scheme, by_custom.scheme)?,
    })
}

fn agreed<T: PartialEq>(by_standard: Option<T>, by_custom: Option<T>) -> Result<Option<T>, Malformed> {
    if by_standard.is_some() && by_custom.is_some() && by_standard != by_custom {
        return Err(Malformed("Forwarded and X-Forwarded-… that differ: it has to set, or remove, both"));
    }
    Ok(by_standard.or(by_custom))
}

const GRAMMAR: Malformed = Malformed(
    "a Forwarded that is not as in for=192.0.2.1;host=bots.example;proto=https (RFC 7239 section 4)",
);

/// One proxy's word on whom it got the request from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Element {
    node: Option<String>,
    host: Option<String>,
    proto: Option<String>,
}

/// Goes from proxy to proxy, as long as they are trusted.
fn walk(peer: IpAddr, elements: &[Element], trusted: &TrustedProxies) -> Result<Told, Malformed> {
    let (mut told, mut proxy) = (Told::default(), peer.to_canonical());
    for element in elements.iter().rev() {
        if let Some(host) = &element.host {
            told.host = Some(authority(host)?);
        }
        if let Some(proto) = &element.proto {
            told.scheme = Some(scheme(proto)?);
        }
        let Some(name) = &element.node else { break };
        // A proxy that hides its client stands for it.
        let address = node(name)?;
        told.address = Some(address.unwrap_or(proxy));
        match address {
            Some(address) if trusted.contain(address) => proxy = address,
            _ => break,
        }
    }
    Ok(told)
}

/// By the headers that no standard knows. Of more than one host or scheme, the last is the nearest
/// proxy's.
fn custom(peer: IpAddr, headers: &Headers<'_>, trusted: &TrustedProxies) -> Result<Told, Malformed> {
    let nodes = items(&headers.x_for);
    let nodes = nodes.map(|node| Element { node: Some(node.to_owned()), ..Element::default() });
    Ok(Told {
        host: items(&headers.x_host).last().map(authority).transpose()?,
        scheme: items(&headers.x_proto).last().map(scheme).transpose()?,
        ..walk(peer, &nodes.collect::<Vec<_>>(), trusted)?
    })
}

fn items<'a>(lines: &[&'a str]) -> impl Iterator<Item = &'a str> {
    lines.iter().flat_map(|line| line.split(',')).map(str::trim).filter(|item| !item.is_empty())
}

fn authority(text: &str) -> Result<Authority, Malformed> {
    Authority::parse(text).ok_or(Malformed("a host that is none (Forwarded, X-Forwarded-Host)"))
}

fn scheme(text: &str) -> Result<Scheme, Malformed> {
    Scheme::parse(text)
        .ok_or(Malformed("a protocol that is neither http nor https (Forwarded, X-Forwarded-Proto)"))
}

/// The address of a node (RFC 7239 section 6). `None`: `unknown`, or a name that only its proxy
/// understands.
fn node(text: &str) -> Result<Option<IpAddr>, Malformed> {
    if text.eq_ignore_ascii_case("unknown") || is_obfuscated(text) {
        return Ok(None);
    }
    let expected = Malformed("an address that is none (Forwarded: for=…, X-Forwarded-For)");
    if let Ok(v6) = text.parse::<Ipv6Addr>() {
        return Ok(Some(IpAddr::from(v6).to_canonical()));
    }
    let address = match text.rsplit_once(':') {
        Some((address, port)) if is_port(port) || is_obfuscated(port) => address,
        _ => text,
    };
    match Host::parse(address) {
        Some(Host::Address(address)) => Ok(Some(address)),
        _ => Err(expected),
    }
}

fn is_port(text: &str) -> bool {
    (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_obfuscated(text: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    text.strip_prefix('_').is_some_and(|name| !name.is_empty() && name.bytes().all(is_name))
}

/// The elements of all lines (RFC 7239 section 4). No element goes over two lines: a quote that a
/// client left open does not reach what its proxy wrote on another.
fn elements(lines: &[&str]) -> Result<Vec<Element>, Malformed> {
    let mut elements = Vec::new();
    for line in lines {
        let mut rest = line.trim();
        while !rest.is_empty() {
            let Some(after) = rest.strip_prefix(',') else {
                let (element, after) = element(rest).ok_or(GRAMMAR)?;
                elements.push(element);
                rest = after;
                continue;
            };
            rest = after.trim_start();
        }
    }
    Ok(elements)
}

/// The element that the text begins with, and the rest, which is empty or begins with a comma.
fn element(text: &str) -> Option<(Element, &str)> {
    let (mut element, mut rest) = (Element::default(), text);
    loop {
        let (name, value, after) = pair(rest)?;
        element.set(name, value)?;
        let after = after.trim_start();
        match after.strip_prefix(';') {
            Some(next) => rest = next.trim_start(),
            None => return (after.is_empty() || after.starts_with(',')).then_some((element, after)),
        }
    }
}

impl Element {
    /// `None`: the parameter stands twice. What is not known is skipped.
    fn set(&mut self, name: &str, value: String) -> Option<()> {
        let known = [("for", &mut self.node), ("host", &mut self.host), ("proto", &mut self.proto)];
        match known.into_iter().find(|(known, _)| name.eq_ignore_ascii_case(known)) {
            Some((_, field)) => field.replace(value).is_none().then_some(()),
            None => Some(()),
        }
    }
}

/// `name=value`, where the value is a token or quoted, and what comes after it.
fn pair(text: &str) -> Option<(&str, String, &str)> {
    let (name, value) = text.split_once('=')?;
    if name.is_empty() || !name.bytes().all(is_token) {
        return None;
    }
    if let Some(quoted) = value.strip_prefix('"') {
        let (value, after) = unquote(quoted)?;
        return Some((name, value, after));
    }
    // Beyond the standard: addresses with ports and IPv6 ones that were left unquoted.
    let end =
        value.bytes().position(|byte| !is_token(byte) && !b":[]".contains(&byte)).unwrap_or(value.len());
    (end > 0).then(|| (name, value[..end].to_owned(), &value[end..]))
}

fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            _ => value.push(character),
        }
    }
    None
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
