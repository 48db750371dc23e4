//! The names by which a registry is asked: the target's authority, then each `Host`, one a line; and `public_urls`.

use http::header::HOST;
use http::{HeaderValue, Request, StatusCode};
use server::auth::{Challenge, Hosts, Scheme};
use server::config::PublicUrl;

use crate::Input;

const OURS: [&str; 4] = ["https://reg.example", "http://intern:8080", "http://localhost:5000", "http://[::1]:5000"];

// security: F-03
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let target = input.line();
    let mut request = Request::builder();
    let target = String::from_utf8_lossy(target).into_owned();
    if target.contains(['/', '?', '#']) {
        return;
    }
    if !target.is_empty() {
        request = request.uri(format!("https://{target}/v2/"));
    }
    let mut names = Vec::new();
    while !input.is_empty() {
        let name = input.line();
        let Ok(value) = HeaderValue::from_bytes(name) else { return };
        names.push(String::from_utf8_lossy(name).into_owned());
        request = request.header(HOST, value);
    }
    for text in names.iter().chain([&target]) {
        url(text);
    }
    let Ok(request) = request.body(()) else { return };
    let (parts, ()) = request.into_parts();
    let urls: Vec<PublicUrl> = OURS.iter().map(|url| PublicUrl::parse(url).unwrap()).collect();
    match Hosts::new(urls).of(&parts) {
        Ok(url) => {
            assert!(OURS.contains(&url.to_string().as_str()));
            assert!(names.len() <= 1 && !(names.is_empty() && target.is_empty()));
            for name in names.iter().chain((!target.is_empty()).then_some(&target)) {
                assert_eq!(plain(name, url.is_https()), Some(url.authority().to_owned()), "{name}");
            }
            challenge(url);
        }
        Err(status) => {
            assert!(matches!(status, StatusCode::BAD_REQUEST | StatusCode::MISDIRECTED_REQUEST));
            let only =
                |name: &String| OURS.iter().any(|url| url.split_once("://").is_some_and(|(_, ours)| ours == name));
            assert!(!(names.len() == 1 && target.is_empty() && only(&names[0])), "{names:?} {status}");
        }
    }
}

/// The canonical form of a name that may be ours: lower case, no default port.
fn plain(name: &str, https: bool) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let (host, port) = match name.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host.to_owned(), Some(port.parse::<u16>().ok()?)),
        _ => (name.clone(), None),
    };
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => format!("[{}]", address.parse::<std::net::Ipv6Addr>().ok()?),
        None => host,
    };
    let port = port.filter(|port| *port != if https { 443 } else { 80 });
    Some(port.map_or_else(|| host.clone(), |port| format!("{host}:{port}")))
}

/// A URL of the configuration prints as what is read again, and names nothing but a host.
fn url(text: &str) {
    let forms = [text.to_owned(), format!("https://{text}"), format!("http://{text}/")];
    for url in forms.iter().filter_map(|text| PublicUrl::parse(text).ok()) {
        assert_eq!(PublicUrl::parse(&url.to_string()), Ok(url.clone()));
        assert!(url.is_host(url.authority()) && url.is_host(&url.authority().to_ascii_uppercase()));
        assert!(!url.authority().contains(['@', '/', '?', '#', '"', '\\', ' ', ',', ';', '=']), "{url}");
        assert!(!url.authority().bytes().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii_graphic()), "{url}");
        assert_eq!(http::Uri::try_from(url.to_string()).unwrap().authority().unwrap().as_str(), url.authority());
        challenge(&url);
    }
}

fn challenge(url: &PublicUrl) {
    let header = Challenge::new(Scheme::Bearer, url.clone()).header(Some("repository:a:pull"), None);
    let realm = header.strip_prefix("Bearer realm=\"").and_then(|rest| rest.split('"').next()).unwrap();
    assert_eq!(realm, format!("{url}/token"));
    assert!(HeaderValue::from_str(&header).is_ok() && header.matches('"').count() == 6, "{header}");
}
