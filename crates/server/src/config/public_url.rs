//! A URL by which clients reach the registry.

use std::fmt;

/// `http` or `https`, a host and perhaps a port; nothing else. Kept in lower case, without the scheme's own port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PublicUrl {
    https: bool,
    authority: String,
}

impl PublicUrl {
    /// Parses `https://registry.example.com[:PORT]`; a slash at the end is ignored.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong = |why: &str| Err(format!("`{text}` {why}; a URL here looks like https://registry.example.com"));
        let (https, rest) = if let Some(rest) = text.strip_prefix("https://") {
            (true, rest)
        } else if let Some(rest) = text.strip_prefix("http://") {
            (false, rest)
        } else {
            return wrong("does not begin with https:// or http://");
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return wrong("holds a user name");
        }
        if rest.contains(['/', '?', '#']) {
            return wrong("holds more than a host and a port");
        }
        match normal(rest, https) {
            Some(authority) => Ok(Self { https, authority }),
            None => wrong("has no valid host"),
        }
    }

    /// Of a host and a port.
    pub fn new(https: bool, host: &str, port: u16) -> Result<Self, String> {
        Self::parse(&format!("{}://{host}:{port}", if https { "https" } else { "http" }))
    }

    /// Whether clients use TLS.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// Host and port as a client's `Host` header has them; without the port if it is the scheme's own.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether a `Host` header (or `:authority`) means this URL: case and the scheme's own port make no difference.
    pub fn is_host(&self, host: &str) -> bool {
        normal(host, self.https).as_deref() == Some(&self.authority)
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.https { "https" } else { "http" }, self.authority)
    }
}

/// Lower case, without the default port; `None` when it is not a host with or without a port.
fn normal(authority: &str, https: bool) -> Option<String> {
    if authority.len() > 255 + 6 {
        return None;
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']')?;
            let address: std::net::Ipv6Addr = address.parse().ok()?;
            (format!("[{address}]"), if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host.to_ascii_lowercase(), Some(port)),
            None => (authority.to_ascii_lowercase(), None),
        },
    };
    let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if host.is_empty() || !host.starts_with('[') && !host.chars().all(name) {
        return None;
    }
    match port {
        None => Some(host),
        Some(port) => {
            if !port.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            match port.parse::<u16>().ok()? {
                0 => None,
                443 if https => Some(host),
                80 if !https => Some(host),
                port => Some(format!("{host}:{port}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, printed) in [
            ("https://Registry.Example.com", "https://registry.example.com"),
            ("https://registry.example.com:443/", "https://registry.example.com"),
            ("http://localhost:5000", "http://localhost:5000"),
            ("http://[::1]:80", "http://[::1]"),
            ("http://127.0.0.1:443", "http://127.0.0.1:443"),
        ] {
            assert_eq!(PublicUrl::parse(text).unwrap().to_string(), printed);
        }
        for text in [
            "",
            "registry.example.com",
            "ftp://a",
            "https://",
            "https://a/b",
            "https://u:p@a",
            "https://a:b",
            "https://a:0",
            "https://a:70000",
            "https://a b",
            "https://[::1",
            "https://a:+5",
        ] {
            assert!(PublicUrl::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts() {
        let url = PublicUrl::parse("https://a.example").unwrap();
        for (host, same) in [
            ("a.example", true),
            ("A.EXAMPLE:443", true),
            ("a.example:80", false),
            ("b.example", false),
            ("x@a.example", false),
            ("", false),
        ] {
            assert_eq!(url.is_host(host), same, "{host}");
        }
        assert!(PublicUrl::parse("http://[::1]:5000").unwrap().is_host("[0:0::1]:5000"));
    }
}
