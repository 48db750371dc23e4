//! The address of a PostgreSQL database, parsed once into what a connection needs.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;

/// PostgreSQL's own port.
const PORT: u16 = 5432;

/// Where a PostgreSQL database is, who logs in, and how the connection is protected.
///
/// `postgres://user:password@host:port/database?sslmode=…&sslrootcert=…`; a socket by `?host=/directory`. Neither `Debug` nor
/// `Display` shows the password.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl {
    pub(super) user: String,
    pub(super) password: Option<String>,
    pub(super) host: Host,
    pub(super) port: u16,
    pub(super) database: String,
    pub(super) tls: Tls,
}

/// The other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// A name, to be resolved at each connection.
    Name(String),
    /// An address.
    Address(IpAddr),
    /// The directory of a Unix socket.
    Directory(PathBuf),
}

impl Host {
    /// Whether what is sent stays on this machine.
    fn is_local(&self) -> bool {
        match self {
            Self::Name(name) => name.eq_ignore_ascii_case("localhost"),
            Self::Address(address) => address.is_loopback(),
            Self::Directory(_) => true,
        }
    }
}

/// How the connection is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tls {
    /// Not at all.
    Off,
    /// By TLS; certificate and name are checked.
    Verified {
        /// The file of the authorities; none for those of the system.
        roots: Option<PathBuf>,
    },
}

/// Who vouches for the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authorities<'a> {
    /// Those in this file.
    File(&'a Path),
    /// Those that the system trusts.
    System,
}

/// Why a text is no address of a database: a sentence that says what to write. Holds no part of the password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PostgresUrlError(String);

impl PostgresUrlError {
    fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl PostgresUrl {
    /// Parses an address.
    ///
    /// Without `sslmode` the connection is by TLS with the certificate and its name checked (`verify-full`), unless it stays on
    /// this machine. `disable` beyond this machine needs `allow_plaintext=true` beside it. Modes that encrypt and check nothing
    /// are refused: whoever stands in between would read all the same.
    ///
    /// # Errors
    /// A sentence that says what to write instead.
    pub fn parse(text: &str) -> Result<Self, PostgresUrlError> {
        let rest = text
            .strip_prefix("postgres://")
            .or_else(|| text.strip_prefix("postgresql://"))
            .ok_or_else(|| PostgresUrlError::new("the address of a database begins with postgres://"))?;
        if rest.contains('#') {
            return Err(PostgresUrlError::new("the address must not hold '#'; in a password write %23"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(decode("the password", password)?)),
            None => (login, None),
        };
        let user = decode("the user", user)?;
        if user.is_empty() {
            return Err(PostgresUrlError::new("the address names no user: postgres://USER@host/database"));
        }
        let database = decode("the name of the database", database)?;
        if database.is_empty() || database.contains('/') {
            return Err(PostgresUrlError::new("the address names no database: postgres://user@host/DATABASE"));
        }
        let parameters = Parameters::parse(query)?;
        let (host, port) = host(address, parameters.host.as_deref())?;
        let port = port.or(parameters.port).unwrap_or(PORT);
        let tls = parameters.tls(&host)?;
        Ok(Self { user, password, host, port, database, tls })
    }

    /// The same with this password, which comes from elsewhere, for example from a file.
    #[must_use]
    pub fn with_password(self, password: impl Into<String>) -> Self {
        Self { password: Some(password.into()), ..self }
    }

    /// The same address with another database.
    #[must_use]
    pub fn with_database(self, database: impl Into<String>) -> Self {
        Self { database: database.into(), ..self }
    }

    /// The port that is connected to; none of a socket.
    pub fn tcp_port(&self) -> Option<u16> {
        match self.host {
            Host::Name(_) | Host::Address(_) => Some(self.port),
            Host::Directory(_) => None,
        }
    }

    /// Whether the host is a name, which has to be looked up.
    pub fn is_looked_up(&self) -> bool {
        matches!(self.host, Host::Name(_))
    }

    /// By which authorities the server's certificate is checked, where it is: those in a file, or the system's.
    pub fn authorities(&self) -> Option<Authorities<'_>> {
        match &self.tls {
            Tls::Off => None,
            Tls::Verified { roots: Some(file) } => Some(Authorities::File(file)),
            Tls::Verified { roots: None } => Some(Authorities::System),
        }
    }

    /// Whether a password is there.
    pub fn has_password(&self) -> bool {
        self.password.is_some()
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encode = |text| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
        write!(f, "postgres://{}@", encode(&self.user))?;
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{}", self.port)?,
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port)?,
            Host::Address(address) => write!(f, "{address}:{}", self.port)?,
            Host::Directory(_) => write!(f, ":{}", self.port)?,
        }
        write!(f, "/{}", encode(&self.database))?;
        let mode = match self.tls {
            Tls::Off => "disable",
            Tls::Verified { .. } => "verify-full",
        };
        write!(f, "?sslmode={mode}")?;
        if let Host::Directory(directory) = &self.host {
            write!(f, "&host={}", directory.display())?;
        }
        Ok(())
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({self})")
    }
}

/// What stands behind the question mark.
#[derive(Default)]
struct Parameters {
    host: Option<String>,
    port: Option<u16>,
    mode: Option<String>,
    roots: Option<PathBuf>,
    allow_plaintext: bool,
}

impl Parameters {
    fn parse(query: &str) -> Result<Self, PostgresUrlError> {
        let mut found = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(key, value)?;
            match key {
                "host" => found.host = Some(value),
                "port" => found.port = Some(port(&value)?),
                "sslmode" => found.mode = Some(value),
                "sslrootcert" => found.roots = Some(PathBuf::from(value)),
                "allow_plaintext" => found.allow_plaintext = value == "true",
                _ => {
                    let known = "host, port, sslmode, sslrootcert and allow_plaintext";
                    return Err(PostgresUrlError::new(format!(
                        "'{key}' is not known here; the parameters are {known}"
                    )));
                }
            }
        }
        Ok(found)
    }

    fn tls(self, host: &Host) -> Result<Tls, PostgresUrlError> {
        if self.roots.is_some() && self.mode.as_deref().is_some_and(|mode| mode != "verify-full") {
            return Err(PostgresUrlError::new("sslrootcert is for sslmode=verify-full"));
        }
        match self.mode.as_deref() {
            None if self.roots.is_none() && host.is_local() => Ok(Tls::Off),
            None | Some("verify-full") if matches!(host, Host::Directory(_)) => {
                Err(PostgresUrlError::new("PostgreSQL has no TLS on a Unix socket; leave sslmode out"))
            }
            None | Some("verify-full") => Ok(Tls::Verified { roots: self.roots }),
            Some("disable") if host.is_local() || self.allow_plaintext => Ok(Tls::Off),
            Some("disable") => Err(PostgresUrlError::new(
                "without TLS the password and every row cross the network in the clear: use sslmode=verify-full, or, where the \
                 network itself is private, add allow_plaintext=true",
            )),
            Some(mode @ ("allow" | "prefer" | "require" | "verify-ca")) => Err(PostgresUrlError::new(format!(
                "sslmode={mode} does not check who answers: use sslmode=verify-full, with sslrootcert=FILE for an own authority",
            ))),
            Some(mode) => {
                Err(PostgresUrlError::new(format!("sslmode={mode} is not known; use verify-full or disable")))
            }
        }
    }
}

fn host(address: &str, directory: Option<&str>) -> Result<(Host, Option<u16>), PostgresUrlError> {
    if address.contains(',') {
        return Err(PostgresUrlError::new("the address must name one host; use a name that leads to the primary"));
    }
    let (name, number) = match address.strip_prefix('[') {
        Some(rest) => {
            let (inside, after) = rest
                .split_once(']')
                .ok_or_else(|| PostgresUrlError::new("the IPv6 address in the address has no ']'"))?;
            let number = after.strip_prefix(':');
            if number.is_none() && !after.is_empty() {
                return Err(PostgresUrlError::new("behind the ']' of the IPv6 address stands no port"));
            }
            (inside, number)
        }
        None => address.split_once(':').map_or((address, None), |(name, number)| (name, Some(number))),
    };
    let number = number.filter(|number| !number.is_empty()).map(port).transpose()?;
    let name = decode("the host", name)?;
    let name = match (name.is_empty(), directory) {
        (true, Some(directory)) => directory.to_owned(),
        (true, None) => {
            return Err(PostgresUrlError::new("the address names no host: write one, or ?host=/DIRECTORY of a socket"));
        }
        (false, Some(_)) => return Err(PostgresUrlError::new("the address names two hosts")),
        (false, None) => name,
    };
    let host = match name.parse::<IpAddr>() {
        Ok(address) => Host::Address(address),
        Err(_) if name.starts_with('/') => Host::Directory(PathBuf::from(name)),
        Err(_) => {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            if !name.chars().all(plain) {
                return Err(PostgresUrlError::new("the host is neither a name nor an address nor a directory"));
            }
            Host::Name(name)
        }
    };
    Ok((host, number))
}

fn port(text: &str) -> Result<u16, PostgresUrlError> {
    text.parse()
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| PostgresUrlError::new("the port is not a number from 1 to 65535"))
}

fn decode(what: &str, text: &str) -> Result<String, PostgresUrlError> {
    let decoded = percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| PostgresUrlError::new(format!("{what} is not UTF-8 behind its percent signs")))?;
    if decoded.contains('\0') {
        return Err(PostgresUrlError::new(format!("{what} must not hold a zero byte")));
    }
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let roots = |file: &str| Tls::Verified { roots: Some(PathBuf::from(file)) };
        let verified = || Tls::Verified { roots: None };
        let name = |name: &str| Host::Name(name.to_owned());
        let cases = [
            ("postgres://u@localhost/d", name("localhost"), 5432, Tls::Off),
            ("postgresql://u:p@127.0.0.1:6432/d", Host::Address([127, 0, 0, 1].into()), 6432, Tls::Off),
            ("postgres://u:p@[::1]:1/d?sslmode=verify-full", Host::Address("::1".parse().unwrap()), 1, verified()),
            ("postgres://u:p@db.example:1/d", name("db.example"), 1, verified()),
            (
                "postgres://u@10.0.0.1/d?sslrootcert=%2Fca.pem",
                Host::Address([10, 0, 0, 1].into()),
                5432,
                roots("/ca.pem"),
            ),
            ("postgres://u@db/d?sslmode=disable&allow_plaintext=true", name("db"), 5432, Tls::Off),
            ("postgres://u@/d?host=/run/postgresql&port=7", Host::Directory("/run/postgresql".into()), 7, Tls::Off),
            ("postgres://u@%2Frun%2Fx:8/d", Host::Directory("/run/x".into()), 8, Tls::Off),
        ];
        for (text, host, port, tls) in cases {
            let url = PostgresUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((url.host, url.port, url.tls), (host, port, tls), "{text}");
        }
    }

    #[test]
    fn what_is_refused_says_what_to_write() {
        for (text, sentence) in [
            ("mysql://u@h/d", "begins with postgres://"),
            ("postgres://h/d", "names no user"),
            ("postgres://u@h", "names no database"),
            ("postgres://u@/d", "names no host"),
            ("postgres://u@h:0/d", "the port"),
            ("postgres://u@a,b/d", "one host"),
            ("postgres://u@[::1]evil/d", "']'"),
            ("postgres://u@h/d?sslmode=require", "does not check who answers"),
            ("postgres://u@h/d?sslmode=prefer", "does not check who answers"),
            ("postgres://u@h/d?sslmode=verify-ca", "does not check who answers"),
            ("postgres://u@h/d?sslmode=disable", "allow_plaintext=true"),
            ("postgres://u@h/d?sslmode=off", "is not known"),
            ("postgres://u@h/d?sslmode=disable&allow_plaintext=true&sslrootcert=x", "sslrootcert is for"),
            ("postgres://u@/d?host=/x&sslmode=verify-full", "no TLS on a Unix socket"),
            ("postgres://u@h/d?options=-c", "'options' is not known"),
            ("postgres://u:a#b@h/d", "%23"),
        ] {
            let error = PostgresUrl::parse(text).unwrap_err().to_string();
            assert!(error.contains(sentence), "{text}: {error}");
        }
    }

    #[test]
    fn the_password_is_not_shown() {
        let url = PostgresUrl::parse("postgres://u:s%20ecret@h/d").unwrap();
        assert_eq!(url.password.as_deref(), Some("s ecret"));
        for text in [format!("{url}"), format!("{url:?}")] {
            assert!(!text.contains("ecret") && text.contains("postgres://u@h:5432/d"), "{text}");
        }
        let bad = PostgresUrl::parse("postgres://u:secret@h:x/d").unwrap_err();
        assert!(!format!("{bad:?}").contains("secret"));
    }
}
