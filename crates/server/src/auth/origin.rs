//! Where a request comes from.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::http::request::Parts;
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use policy::{Caller, Credential, Identity};

use super::Source;
use crate::state::{Peer, RequestId};

/// What the request's connection, and the proxies in front of it, say about where it comes from.
pub struct Origin {
    /// By which attempts are counted.
    pub source: Source,
    /// For events.
    pub address: String,
    /// The request's id.
    pub request_id: String,
}

impl Origin {
    /// The origin of this request. What a peer says about whom it speaks for counts only if it is one of `proxies`.
    pub fn of(parts: &Parts, proxies: &[IpNet]) -> Self {
        let peer = parts.extensions.get::<Peer>().and_then(|peer| peer.addr).map(|address| address.ip().to_canonical());
        let address = peer.map(|peer| client_address(peer, &parts.headers, proxies));
        let request_id = parts.extensions.get::<RequestId>().map_or_else(String::new, |id| id.0.clone());
        // Without an address it came by the socket: one source for all.
        let source = Source::of(address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        let address = address.map_or_else(|| "local".to_owned(), |address| address.to_string());
        Self { source, address, request_id }
    }

    /// A caller from here.
    pub fn caller(&self, identity: Identity, credential: Credential, credential_id: &str) -> Arc<Caller> {
        Arc::new(Caller {
            identity,
            credential,
            credential_id: credential_id.to_owned(),
            source: self.address.clone(),
            request_id: self.request_id.clone(),
        })
    }
}

/// The last address that was not written by one of the proxies: `X-Forwarded-For` or `Forwarded` (RFC 7239), read from the
/// right, since each proxy appends whom it saw and everything to the left may be invented.
///
/// A proxy writes one of the two headers and may hand on what the client wrote into the other. Which one is whose cannot be
/// seen, so when they disagree neither is believed and the answer is the peer itself.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, proxies: &[IpNet]) -> IpAddr {
    let trusted = |address: &IpAddr| proxies.iter().any(|net| net.contains(address));
    if !trusted(&peer) {
        return peer;
    }
    let last = |name: &str, read: fn(&str) -> Option<IpAddr>| {
        headers.contains_key(name).then(|| {
            let mut last = peer;
            for hop in elements(headers, name).rev().map(|hop| hop.and_then(read)) {
                // What cannot be read ends what can be believed.
                let Some(hop) = hop else { break };
                last = hop;
                if !trusted(&hop) {
                    break;
                }
            }
            last
        })
    };
    match (last("forwarded", forwarded_for), last("x-forwarded-for", address)) {
        (Some(one), Some(other)) if one != other => peer,
        (one, other) => one.or(other).unwrap_or(peer),
    }
}

/// The elements of all lines of a list header; `None` for those of a line that is not text.
fn elements<'a>(headers: &'a HeaderMap, name: &str) -> impl DoubleEndedIterator<Item = Option<&'a str>> {
    let lines: Vec<&HeaderValue> = headers.get_all(name).iter().collect();
    let elements = lines.into_iter().flat_map(|line| match line.to_str() {
        Ok(text) => text.split(',').map(|element| Some(element.trim())).collect::<Vec<_>>(),
        Err(_) => vec![None],
    });
    elements.collect::<Vec<_>>().into_iter()
}

/// The `for` of one element of `Forwarded`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.into_iter().find(|(key, _)| key.eq_ignore_ascii_case("for"))?;
    address(value.trim_matches('"'))
}

/// An address, which may have a port and, for IPv6, brackets.
fn address(text: &str) -> Option<IpAddr> {
    let host = match text.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None if text.matches(':').count() == 1 => text.split(':').next()?,
        None => text,
    };
    host.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(peer: &str, headers: &[(&'static str, &str)]) -> String {
        let proxies = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().unwrap());
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        client_address(peer.parse().unwrap(), &map, &proxies).to_string()
    }

    #[test]
    fn only_proxies_speak_for_others() {
        let client = [("x-forwarded-for", "192.0.2.7")];
        assert_eq!(of("198.51.100.1", &client), "198.51.100.1");
        assert_eq!(of("10.0.0.1", &client), "192.0.2.7");
        assert_eq!(of("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn reads_from_the_right_as_far_as_it_can_be_believed() {
        for (name, value, expected) in [
            ("x-forwarded-for", "6.6.6.6, 192.0.2.7", "192.0.2.7"),
            ("x-forwarded-for", "6.6.6.6, 192.0.2.7, 10.1.1.1", "192.0.2.7"),
            ("x-forwarded-for", "192.0.2.7:4711", "192.0.2.7"),
            ("x-forwarded-for", "[2001:db8::1]:4711", "2001:db8::1"),
            ("x-forwarded-for", "2001:db8::1", "2001:db8::1"),
            ("x-forwarded-for", "::ffff:192.0.2.7", "192.0.2.7"),
            ("x-forwarded-for", "192.0.2.7, unknown, 10.1.1.1", "10.1.1.1"),
            ("x-forwarded-for", "nonsense", "10.0.0.1"),
            ("x-forwarded-for", "", "10.0.0.1"),
            ("forwarded", "for=6.6.6.6, for=192.0.2.7;proto=https;by=10.0.0.1", "192.0.2.7"),
            ("forwarded", "proto=https;For=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("forwarded", "for=_hidden", "10.0.0.1"),
        ] {
            assert_eq!(of("10.0.0.1", &[(name, value)]), expected, "{name}: {value}");
        }
        let two = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "192.0.2.7")];
        assert_eq!(of("10.0.0.1", &two), "192.0.2.7");
    }

    #[test]
    fn what_a_proxy_hands_on_does_not_beat_what_it_writes() {
        let of = |forwarded, x_forwarded_for| {
            of("10.0.0.1", &[("forwarded", forwarded), ("x-forwarded-for", x_forwarded_for)])
        };
        assert_eq!(of("for=6.6.6.6", "192.0.2.7"), "10.0.0.1");
        assert_eq!(of("for=192.0.2.7", "6.6.6.6"), "10.0.0.1");
        assert_eq!(of("for=192.0.2.7", "6.6.6.6, 192.0.2.7"), "192.0.2.7");
        assert_eq!(of("for=_hidden", "192.0.2.7"), "10.0.0.1");
    }
}
