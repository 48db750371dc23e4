//! What the fuzz targets reach of parsers that are private to this crate. Nothing else uses it, and nothing is promised.

use std::net::IpAddr;

use http::{HeaderMap, StatusCode};
use ipnet::IpNet;

pub use crate::auth::token::{Holder, MAX_TOKEN, Token, Use};

use crate::auth::{TokenKeys, basic, origin};
use crate::listen::framing::Framing;

/// Name and secret of a `Basic` credential; `Some(None)` is "no credentials", `None` a malformed one.
#[allow(clippy::option_option, reason = "malformed and empty are different")]
pub fn basic(value: &str) -> Option<Option<(String, String)>> {
    basic::parse(value)
}

/// The address that a request comes from, by its peer and what the proxies among the peers say.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, proxies: &[IpNet]) -> IpAddr {
    origin::client_address(peer, headers, proxies)
}

/// A token whose claims are these bytes, signed as ours.
pub fn sign_claims(keys: &TokenKeys, claims: &[u8]) -> String {
    keys.sign_claims(claims)
}

/// What was made of the bytes of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framed {
    /// Where heads ended, as far as the pieces tell: the end of the piece in which one did.
    pub ends: Vec<usize>,
    /// The answer to a head that was refused; nothing after it was looked at.
    pub refused: Option<StatusCode>,
    /// What is expected next, in words that are the same for the same state.
    pub state: String,
    /// The end of a body cannot be found any more.
    pub lost: bool,
}

/// Follows the requests on a connection whose bytes come in these pieces; heads longer than `limit` are refused.
pub fn framing<'a>(limit: usize, pieces: impl IntoIterator<Item = &'a [u8]>) -> Framed {
    let mut framing = Framing::new(limit);
    let (mut ends, mut at) = (Vec::new(), 0);
    for piece in pieces {
        at += piece.len();
        match framing.see(piece) {
            Ok(seen) if seen.head_ended => ends.push(at),
            Ok(_) => {}
            Err(refusal) => {
                return Framed { ends, refused: Some(refusal.status), state: String::new(), lost: false };
            }
        }
    }
    Framed { ends, refused: None, state: format!("{framing:?}"), lost: framing.is_lost() }
}
