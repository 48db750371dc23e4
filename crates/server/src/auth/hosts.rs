//! The names under which this registry may be addressed. Nothing else of a request decides what its answers point to.

use http::StatusCode;
use http::header::HOST;
use http::request::Parts;

pub use crate::config::Challenge as Scheme;
use crate::config::PublicUrl;

/// All of the names.
#[derive(Clone, Debug)]
pub struct Hosts {
    urls: Vec<PublicUrl>,
}

/// How to challenge a client that came by one of the names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    scheme: Scheme,
    url: PublicUrl,
}

impl Hosts {
    /// The hosts of these URLs, those of the loopback interface included where it is listened on.
    pub fn new(urls: Vec<PublicUrl>) -> Self {
        Self { urls }
    }

    /// The URL by whose name this request came: its target's authority (HTTP/2, or an absolute target) and its `Host`
    /// must both be it, where they are there. 400 when neither is or there are two, 421 when it is not ours.
    pub fn of(&self, parts: &Parts) -> Result<&PublicUrl, StatusCode> {
        let mut headers = parts.headers.get_all(HOST).iter();
        let (first, second) = (headers.next(), headers.next());
        if second.is_some() {
            return Err(StatusCode::BAD_REQUEST);
        }
        let header = first.map(|value| value.to_str().map_err(|_| StatusCode::BAD_REQUEST)).transpose()?;
        let target = parts.uri.authority().map(http::uri::Authority::as_str);
        let find = |name: &str| self.find(name).ok_or(StatusCode::MISDIRECTED_REQUEST);
        match (target, header) {
            (None, None) => Err(StatusCode::BAD_REQUEST),
            (Some(name), None) | (None, Some(name)) => find(name),
            (Some(target), Some(header)) => {
                let url = find(target)?;
                if find(header)? == url { Ok(url) } else { Err(StatusCode::BAD_REQUEST) }
            }
        }
    }

    /// Whether a name, as in `?ns=`, is ours.
    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    fn find(&self, name: &str) -> Option<&PublicUrl> {
        self.urls.iter().find(|url| url.is_host(name))
    }
}

impl Challenge {
    /// For a client that came by the name of this URL.
    pub fn new(scheme: Scheme, url: PublicUrl) -> Self {
        Self { scheme, url }
    }

    /// The value of `WWW-Authenticate`: canonical, one challenge, no blank behind commas and no `=` in the realm, since
    /// some clients split it naively (Q4, Q5). `error` is for requests that came with a token.
    pub fn header(&self, scope: Option<&str>, error: Option<&str>) -> String {
        let service = self.url.authority();
        if self.scheme == Scheme::Basic {
            return format!("Basic realm=\"{service}\"");
        }
        let mut value = format!("Bearer realm=\"{}/token\",service=\"{service}\"", self.url);
        for (key, text) in [("scope", scope), ("error", error)] {
            if let Some(text) = text {
                value.push_str(&format!(",{key}=\"{text}\""));
            }
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn hosts() -> Hosts {
        let urls = ["https://reg.example", "http://Intern:8080/"];
        let loopback = ["http://localhost:5000", "http://127.0.0.1:5000", "http://[::1]:5000"];
        Hosts::new(urls.into_iter().chain(loopback).map(|url| PublicUrl::parse(url).unwrap()).collect())
    }

    fn of(target: &str, headers: &[&str]) -> Result<String, u16> {
        let mut request = Request::builder().uri(target);
        for host in headers {
            request = request.header(HOST, *host);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        hosts().of(&parts).map(PublicUrl::to_string).map_err(|status| status.as_u16())
    }

    #[test]
    fn f03_only_our_names() {
        for (header, url) in [
            ("reg.example", "https://reg.example"),
            ("REG.example:443", "https://reg.example"),
            ("intern:8080", "http://intern:8080"),
            ("localhost:5000", "http://localhost:5000"),
            ("127.0.0.1:5000", "http://127.0.0.1:5000"),
            ("[::1]:5000", "http://[::1]:5000"),
        ] {
            assert_eq!(of("/v2/", &[header]), Ok(url.to_owned()), "{header}");
        }
        for header in [
            "evil.example",
            "reg.example:80",
            "reg.example:5000",
            "evil@reg.example",
            "reg.example@evil",
            "reg.example.",
            "localhost",
            "127.0.0.1",
            "",
            "reg.example, reg.example",
        ] {
            assert_eq!(of("/v2/", &[header]), Err(421), "{header}");
        }
        assert_eq!(of("/v2/", &[]), Err(400));
        assert_eq!(of("/v2/", &["reg.example", "reg.example"]), Err(400));
        assert_eq!(of("https://reg.example/v2/", &[]), Ok("https://reg.example".to_owned()));
        assert_eq!(of("https://evil/v2/", &["reg.example"]), Err(421));
        assert_eq!(of("https://reg.example/v2/", &["evil"]), Err(421));
        assert_eq!(of("https://reg.example/v2/", &["intern:8080"]), Err(400));
        assert_eq!(of("https://u:p@reg.example/v2/", &["reg.example"]), Err(421));
    }

    #[test]
    fn q05_challenges_are_canonical() {
        let url = PublicUrl::parse("https://reg.example").unwrap();
        let challenge = Challenge::new(Scheme::Bearer, url.clone());
        assert_eq!(challenge.header(None, None), r#"Bearer realm="https://reg.example/token",service="reg.example""#);
        assert_eq!(
            challenge.header(Some("repository:a/b:pull"), Some("insufficient_scope")),
            r#"Bearer realm="https://reg.example/token",service="reg.example",scope="repository:a/b:pull",error="insufficient_scope""#
        );
        assert_eq!(Challenge::new(Scheme::Basic, url).header(Some("x"), None), r#"Basic realm="reg.example""#);
    }
}
