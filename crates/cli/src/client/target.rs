//! Where a client command goes: a URL or the socket of a data directory.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::Error;

/// The other end of a client command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The admin socket in a data directory; whoever can open it needs no login.
    Socket(PathBuf),
    /// The admin API of a server over TCP.
    Url(BaseUrl),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Url(url) => write!(f, "{url}"),
        }
    }
}

/// `http://host:port` or `https://host:port`, nothing behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    tls: bool,
    host: String,
    port: u16,
}

impl BaseUrl {
    /// Whether TLS is spoken there.
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// The host: a name, or an IP address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, the scheme's own when none was given.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// For the `Host` header and for showing: brackets around IPv6, no port where it is the scheme's own.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let own = if self.tls { 443 } else { 80 };
        if self.port == own { host } else { format!("{host}:{}", self.port) }
    }

    /// Whether the host is this machine's loopback.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Whether credentials may be sent there: TLS, or no network in between.
    pub fn check_private(&self) -> Result<(), Error> {
        if self.tls || self.is_loopback() { Ok(()) } else { Err(Error::PlainHttp { url: self.to_string() }) }
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

/// Scheme, host and port; a path, a query or a login in it is refused. Without a scheme: TLS, except on loopback.
impl FromStr for BaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("`{}` is not a server's URL: {why}", text.escape_debug());
        if text.len() > 512 {
            return Err("a server's URL has at most 512 bytes".to_owned());
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
            None => (None, text),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err(bad("it ends after the port, like https://registry.example.com:5001"));
        }
        if authority.contains('@') {
            return Err(bad("it has no place for a login, use `portcullis login`"));
        }
        let parsed: http::uri::Authority = authority.parse().map_err(|_| bad("there is no host in it"))?;
        let host = parsed.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if host.is_empty() {
            return Err(bad("there is no host in it"));
        }
        let rest = authority.get(parsed.host().len()..).unwrap_or("");
        let given = match rest.strip_prefix(':') {
            Some(port) => {
                Some(port.parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(|| bad("the port is 1 to 65535"))?)
            }
            None => None,
        };
        let tls = match scheme.as_deref() {
            Some("https") => true,
            Some("http") => false,
            Some(_) => return Err(bad("it starts with https:// or http://")),
            None => !(Self { tls: false, host: host.clone(), port: 80 }).is_loopback(),
        };
        Ok(Self { tls, host, port: given.unwrap_or(if tls { 443 } else { 80 }) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_scheme_host_and_port() {
        for (text, shown, tls, port) in [
            ("https://Registry.Example.com:5001", "https://registry.example.com:5001", true, 5001),
            ("https://registry.example.com/", "https://registry.example.com", true, 443),
            ("http://127.0.0.1:5001", "http://127.0.0.1:5001", false, 5001),
            ("https://[::1]:5001", "https://[::1]:5001", true, 5001),
            ("localhost:5001", "http://localhost:5001", false, 5001),
            ("registry.example.com", "https://registry.example.com", true, 443),
        ] {
            let url: BaseUrl = text.parse().unwrap();
            assert_eq!((url.to_string().as_str(), url.tls(), url.port()), (shown, tls, port), "{text}");
        }
        for text in
            ["", "https://", "ftp://x", "https://x/y", "https://a:b@x", "https://x:0", "https://x:70000", "https://x?y"]
        {
            assert!(text.parse::<BaseUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn credentials_go_nowhere_in_the_clear() {
        for (text, allowed) in [
            ("http://127.0.0.1:1", true),
            ("http://[::1]:1", true),
            ("http://localhost:1", true),
            ("https://10.0.0.1:1", true),
            ("http://10.0.0.1:1", false),
            ("http://localhost.example.com:1", false),
        ] {
            assert_eq!(text.parse::<BaseUrl>().unwrap().check_private().is_ok(), allowed, "{text}");
        }
    }
}
