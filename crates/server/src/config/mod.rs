//! Settings: one table of keys; values from the file, the environment and flags; everything that is wrong at once.

mod check;
mod database;
mod gather;
mod keys;
mod public_url;
mod reference;
#[cfg(test)]
mod tests;
mod value;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

pub use database::DatabaseUrl;
pub use gather::{Environment, FILE_NAME, Flags, Origin, Problem, Raw, beside};
pub use keys::{Form, KEYS, Key};
pub use public_url::PublicUrl;
pub use reference::reference;
pub use value::{ByteSize, duration_text, parse_duration};

use crate::error::Error;

/// The configuration, checked. Each component gets its own section.
#[derive(Clone, Debug)]
pub struct Config {
    /// `data_dir`.
    pub data_dir: PathBuf,
    /// `server.…`.
    pub server: ServerConfig,
    /// `admin.…`.
    pub admin: AdminConfig,
    /// `ops.…`.
    pub ops: OpsConfig,
    /// `database.…`.
    pub database: DatabaseConfig,
    /// `storage.…`.
    pub storage: StorageConfig,
    /// `sandbox.…`.
    pub sandbox: SandboxConfig,
    /// `keys.…`.
    pub keys: KeysConfig,
    /// `auth.…`.
    pub auth: AuthConfig,
    /// `content.…`.
    pub content: ContentConfig,
    /// `limits.…`.
    pub limits: LimitsConfig,
    /// `upload.…`.
    pub upload: UploadConfig,
    /// `gc.…`.
    pub gc: GcConfig,
    /// `log.…`.
    pub log: LogConfig,
    /// `bootstrap.…`.
    pub bootstrap: BootstrapConfig,
    /// The file that was read.
    pub file: Option<PathBuf>,
    settings: Vec<Setting>,
}

/// The main listener.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where it listens. `serve` puts the bound address here, so that a port of 0 is never seen by a request.
    pub listen: SocketAddr,
    /// As configured; [`ServerConfig::urls`] has the implied ones too.
    pub public_urls: Vec<PublicUrl>,
    /// Peers that may speak plain HTTP.
    pub plain_from: Vec<IpNet>,
    /// TLS, if configured.
    pub tls: Option<TlsFiles>,
    /// How long requests may go on after the signal to stop.
    pub drain_timeout: Duration,
    /// Whether anything may be changed.
    pub mode: Mode,
}

/// Whether anything may be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By whoever has the right to.
    ReadWrite,
    /// By nobody, the server included.
    ReadOnly,
}

impl Mode {
    /// As it stands in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadWrite => "read-write",
            Self::ReadOnly => "read-only",
        }
    }
}

impl ServerConfig {
    /// Every URL by which a client may name the registry: the configured ones, then the loopback names with the port while
    /// loopback is listened on, else the address itself.
    pub fn urls(&self) -> Vec<PublicUrl> {
        let mut urls = self.public_urls.clone();
        let implied = match self.listen.ip() {
            ip if ip.is_loopback() || ip.is_unspecified() => {
                ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).to_vec()
            }
            IpAddr::V4(ip) => vec![ip.to_string()],
            IpAddr::V6(ip) => vec![format!("[{ip}]")],
        };
        for host in implied {
            if let Ok(url) = PublicUrl::new(self.tls.is_some(), &host, self.listen.port())
                && !urls.contains(&url)
            {
                urls.push(url);
            }
        }
        urls
    }

    /// Whether this peer may speak plain HTTP to us.
    pub fn may_speak_plain(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.plain_from.iter().any(|net| net.contains(&peer))
    }
}

/// PEM files.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The chain.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
    /// Authorities of clients' certificates.
    pub client_ca: Option<PathBuf>,
}

/// The admin listener.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// Where it listens; `None` is off.
    pub listen: Option<SocketAddr>,
}

/// The ops listener.
#[derive(Clone, Debug)]
pub struct OpsConfig {
    /// Where it listens; `None` is off.
    pub listen: Option<SocketAddr>,
}

/// The database.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// Which engine, and where.
    pub url: DatabaseUrl,
    /// Connections to PostgreSQL at a time.
    pub connections: u32,
    /// How long a start waits for PostgreSQL.
    pub start_timeout: Duration,
}

/// The store.
#[derive(Clone, Debug)]
pub struct StorageConfig {
    /// Bytes of the disk that pushes leave free; zero is none.
    pub reserve: ByteSize,
    /// How long a request waits for a disk that does not answer.
    pub timeout: Duration,
    /// Hash every blob before it is sent.
    pub verify_reads: bool,
}

/// What the process gives up.
#[derive(Clone, Debug)]
pub struct SandboxConfig {
    /// How much of it is insisted on.
    pub mode: SandboxMode,
    /// Directories beside the data directory that it may write to.
    pub write: Vec<PathBuf>,
}

/// `sandbox.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxMode {
    /// What the kernel gives.
    BestEffort,
    /// All or no start.
    Required,
    /// Nothing.
    Off,
}

/// Keys.
#[derive(Clone, Debug)]
pub struct KeysConfig {
    /// The key-encryption key, when it is not in the data directory.
    pub kek_file: Option<PathBuf>,
}

/// Authentication.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// How clients are asked for credentials.
    pub challenge: Challenge,
    /// Life of an access token.
    pub token_lifetime: Duration,
    /// First wait after too many failed logins; zero is never.
    pub backoff: Duration,
}

/// How clients are asked for credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// With the token service.
    Bearer,
    /// With name and password.
    Basic,
}

/// Content.
#[derive(Clone, Debug)]
pub struct ContentConfig {
    /// Accept manifests with missing layers.
    pub sparse_images: bool,
}

/// Limits.
#[derive(Clone, Debug)]
pub struct LimitsConfig {
    /// Largest manifest.
    pub manifest: ByteSize,
    /// Connections at a time.
    pub connections: u32,
    /// Connections at a time from one address.
    pub connections_per_source: u32,
    /// Open upload sessions of one subject.
    pub uploads_per_subject: u32,
    /// Largest head of a request.
    pub header: ByteSize,
    /// Time for a handshake and for the head of a request.
    pub header_time: Duration,
    /// Time without a request.
    pub idle: Duration,
    /// Bytes a second; zero is no limit.
    pub progress: ByteSize,
    /// Over this time.
    pub progress_time: Duration,
    /// Failed logins before the back-off begins.
    pub failed_logins: u32,
}

/// Uploads.
#[derive(Clone, Debug)]
pub struct UploadConfig {
    /// Life of an untouched session.
    pub idle: Duration,
}

/// Garbage collection.
#[derive(Clone, Debug)]
pub struct GcConfig {
    /// Between two runs.
    pub interval: Duration,
    /// How long something unreferenced stays.
    pub grace: Duration,
}

/// Logs.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// The form of a line.
    pub format: LogFormat,
    /// The filter.
    pub level: String,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Pretty on a terminal, else JSON.
    Auto,
    /// For people.
    Pretty,
    /// One object a line.
    Json,
}

/// The first start.
#[derive(Clone, Debug)]
pub struct BootstrapConfig {
    /// The first administrator's password.
    pub password_file: Option<PathBuf>,
}

/// A setting in force.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    /// The key.
    pub key: &'static str,
    /// The value as it would stand in the file; secrets are replaced.
    pub value: String,
    /// `default`, `FILE:LINE`, a variable or a flag.
    pub origin: String,
}

/// Reads file, environment and flags.
///
/// # Errors
/// [`Error::Config`] with everything that is wrong.
pub fn load(flags: &Flags, environment: &Environment) -> Result<Config, Error> {
    Raw::gather(flags, environment).check().map_err(Error::Config)
}

impl Config {
    /// Every setting in force, in the order of the reference. Settings without a value are left out.
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// Whether nothing may be changed.
    pub fn is_read_only(&self) -> bool {
        self.server.mode == Mode::ReadOnly
    }

    /// The settings as a TOML file with the origin of each value beside it.
    pub fn show(&self) -> String {
        self.settings.iter().map(|s| format!("{} = {}  # {}\n", s.key, s.value, s.origin)).collect()
    }

    /// What would be unsafe about serving with this: a listener beyond loopback that neither speaks TLS nor names its peers.
    ///
    /// # Errors
    /// [`Error::Unsafe`].
    pub fn refuse_unsafe(&self) -> Result<(), Error> {
        let listeners = [
            ("server.listen", Some(self.server.listen)),
            ("admin.listen", self.admin.listen),
            ("ops.listen", self.ops.listen),
        ];
        if self.server.tls.is_some() || !self.server.plain_from.is_empty() {
            return Ok(());
        }
        for (key, address) in listeners {
            if let Some(address) = address
                && !address.ip().to_canonical().is_loopback()
            {
                return Err(Error::refuse(
                    format!(
                        "{key} is {address}: beyond loopback, passwords and images would cross the network in the clear"
                    ),
                    "set server.tls.certificate and server.tls.key (`portcullis init` makes them), or name the peers that may \
                     speak plain HTTP in server.plain_from",
                ));
            }
        }
        Ok(())
    }
}
