//! `Basic` credentials (the first line, then a name and a secret to be encoded) and the addresses that proxies report.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue};
use server::fuzzing::{basic, client_address};

use crate::Input;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let value = input.text_line();
    if let Some(Some((name, secret))) = basic(&value) {
        assert!(!name.is_empty() && !name.contains(':'));
        // Encoded again it is the same, but for padding and blanks around it.
        let again = STANDARD.encode(format!("{name}:{secret}"));
        assert_eq!(again.trim_end_matches('='), value.trim().trim_end_matches('='));
    }
    let (name, secret) = (input.text_line(), input.text_line());
    let known = basic(&STANDARD.encode(format!("{name}:{secret}")));
    match (name.is_empty(), secret.is_empty()) {
        (true, true) => assert_eq!(known, Some(None)),
        (true, false) => assert_eq!(known, None),
        // A colon ends the name (RFC 7617 section 2).
        _ if name.contains(':') => assert_ne!(known, Some(Some((name, secret)))),
        _ if known.is_some() => assert_eq!(known, Some(Some((name, secret)))),
        _ => assert!(name.len() > 255, "{name}"),
    }
    addresses(input);
}

/// Only what one of the proxies wrote is believed.
fn addresses(mut input: Input<'_>) {
    let proxies = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
    let mut headers = HeaderMap::new();
    while !input.is_empty() {
        let name = if input.byte().is_multiple_of(2) { "forwarded" } else { "x-forwarded-for" };
        if let Ok(value) = HeaderValue::from_bytes(input.line()) {
            headers.append(name, value);
        }
    }
    let outside: IpAddr = "192.0.2.1".parse().unwrap();
    assert_eq!(client_address(outside, &headers, &proxies), outside);
    let peer: IpAddr = "10.0.0.1".parse().unwrap();
    let found = client_address(peer, &headers, &proxies);
    assert_eq!(found, found.to_canonical());
    // What a client invents stays to the left of what a proxy saw.
    let seen = HeaderValue::from_static("198.51.100.7");
    headers.append("x-forwarded-for", seen);
    if !headers.contains_key("forwarded") {
        assert_eq!(client_address(peer, &headers, &proxies).to_string(), "198.51.100.7");
    }
}
