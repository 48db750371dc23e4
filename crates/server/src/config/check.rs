//! From values as typed to a [`Config`]: every value is parsed, every problem reported.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::gather::{Problem, Raw, Typed, Value, resolve};
use super::keys::{self, Form, KEYS};
use super::value::{ByteSize, parse_duration};
use super::{
    AdminConfig, AuthConfig, BootstrapConfig, Challenge, Config, ContentConfig, DatabaseConfig, DatabaseUrl, GcConfig,
    KeysConfig, LimitsConfig, LogConfig, LogFormat, Mode, OpsConfig, PublicUrl, SandboxConfig, SandboxMode,
    ServerConfig, Setting, StorageConfig, TlsFiles, UploadConfig,
};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

impl Raw {
    /// The configuration, or everything that is wrong with it.
    pub fn check(self) -> Result<Config, Vec<Problem>> {
        let mut checker = Checker { raw: &self, problems: self.problems.clone() };
        let config = checker.config();
        match config {
            Some(config) if checker.problems.is_empty() => Ok(config),
            _ => {
                let mut problems = checker.problems;
                problems.sort_by(|a, b| (&a.key, &a.message).cmp(&(&b.key, &b.message)));
                Err(problems)
            }
        }
    }
}

struct Checker<'a> {
    raw: &'a Raw,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    /// Everything is read before anything is given up, so that all problems are seen.
    fn config(&mut self) -> Option<Config> {
        let data_dir = self.path("data_dir");
        let server = self.server();
        let admin = AdminConfig { listen: self.address_or_off("admin.listen").flatten() };
        let ops = OpsConfig { listen: self.address_or_off("ops.listen").flatten() };
        let database = self.database();
        let reserve = self.size("storage.reserve", 0..=1 << 50);
        let timeout = self.duration("storage.timeout", SECOND / 10..=3600 * SECOND);
        let verify_reads = self.switch("storage.verify_reads");
        let sandbox = self.sandbox();
        let keys = KeysConfig { kek_file: self.path("keys.kek_file") };
        let auth = self.auth();
        let content = self.switch("content.sparse_images").map(|sparse_images| ContentConfig { sparse_images });
        let limits = self.limits();
        let upload = self.duration("upload.idle", SECOND..=365 * DAY).map(|idle| UploadConfig { idle });
        let gc_interval = self.duration("gc.interval", SECOND / 10..=365 * DAY);
        let gc_grace = self.duration("gc.grace", Duration::ZERO..=3650 * DAY);
        let log = self.log();
        let bootstrap = BootstrapConfig { password_file: self.path("bootstrap.password_file") };
        Some(Config {
            data_dir: data_dir?,
            server: server?,
            admin,
            ops,
            database: database?,
            sandbox: sandbox?,
            storage: StorageConfig { reserve: reserve?, timeout: timeout?, verify_reads: verify_reads? },
            keys,
            auth: auth?,
            content: content?,
            limits: limits?,
            upload: upload?,
            gc: GcConfig { interval: gc_interval?, grace: gc_grace? },
            log: log?,
            bootstrap,
            file: self.raw.file.clone(),
            settings: settings(self.raw),
        })
    }

    fn server(&mut self) -> Option<ServerConfig> {
        let listen = self.one("server.listen", address);
        let public_urls = self.list("server.public_urls", PublicUrl::parse);
        let plain_from = self.list("server.plain_from", network);
        let certificate = self.path("server.tls.certificate");
        let key = self.path("server.tls.key");
        let client_ca = self.path("server.tls.client_ca");
        let drain_timeout = self.duration("server.drain_timeout", Duration::ZERO..=DAY);
        let mode = self.one("server.mode", |text| match text {
            "read-write" => Ok(Mode::ReadWrite),
            "read-only" => Ok(Mode::ReadOnly),
            _ => Err(format!("`{text}` is neither `read-write` nor `read-only`")),
        });
        let tls = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key, client_ca }),
            (None, None) => {
                if client_ca.is_some() {
                    self.problem("server.tls.client_ca", "needs server.tls.certificate and server.tls.key");
                }
                None
            }
            (Some(_), None) => {
                self.problem("server.tls.certificate", "needs server.tls.key beside it");
                None
            }
            (None, Some(_)) => {
                self.problem("server.tls.key", "needs server.tls.certificate beside it");
                None
            }
        };
        Some(ServerConfig { listen: listen?, public_urls, plain_from, tls, drain_timeout: drain_timeout?, mode: mode? })
    }

    fn auth(&mut self) -> Option<AuthConfig> {
        let challenge = self.one("auth.challenge", |text| match text {
            "bearer" => Ok(Challenge::Bearer),
            "basic" => Ok(Challenge::Basic),
            _ => Err(format!("`{text}` is neither `bearer` nor `basic`")),
        });
        let token_lifetime = self.duration("auth.token_lifetime", 60 * SECOND..=DAY);
        let backoff = self.duration("auth.backoff", Duration::ZERO..=DAY);
        Some(AuthConfig { challenge: challenge?, token_lifetime: token_lifetime?, backoff: backoff? })
    }

    fn sandbox(&mut self) -> Option<SandboxConfig> {
        let mode = self.one("sandbox.mode", |text| match text {
            "best-effort" => Ok(SandboxMode::BestEffort),
            "required" => Ok(SandboxMode::Required),
            "off" => Ok(SandboxMode::Off),
            _ => Err(format!("`{text}` is none of `best-effort`, `required`, `off`")),
        });
        let write = self.list("sandbox.write", |text| match Path::new(text) {
            path if path.is_absolute() => Ok(path.to_owned()),
            _ => Err(format!("`{text}` is not an absolute path")),
        });
        Some(SandboxConfig { mode: mode?, write })
    }

    fn limits(&mut self) -> Option<LimitsConfig> {
        let manifest = self.size("limits.manifest", 1 << 10..=4 << 20);
        let connections = self.count("limits.connections", 1..=1_000_000);
        let connections_per_source = self.count("limits.connections_per_source", 1..=1_000_000);
        let uploads_per_subject = self.count("limits.uploads_per_subject", 1..=1_000_000);
        let header = self.size("limits.header", 8 << 10..=1 << 20);
        let header_time = self.duration("limits.header_time", SECOND / 10..=DAY);
        let idle = self.duration("limits.idle", SECOND / 10..=DAY);
        let progress = self.size("limits.progress", 0..=1 << 30);
        let progress_time = self.duration("limits.progress_time", SECOND / 10..=DAY);
        let failed_logins = self.count("limits.failed_logins", 1..=u32::MAX);
        Some(LimitsConfig {
            manifest: manifest?,
            connections: connections?,
            connections_per_source: connections_per_source?,
            uploads_per_subject: uploads_per_subject?,
            header: header?,
            header_time: header_time?,
            idle: idle?,
            progress: progress?,
            progress_time: progress_time?,
            failed_logins: failed_logins?,
        })
    }

    fn log(&mut self) -> Option<LogConfig> {
        let format = self.one("log.format", |text| match text {
            "auto" => Ok(LogFormat::Auto),
            "pretty" => Ok(LogFormat::Pretty),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("`{text}` is none of `auto`, `pretty`, `json`")),
        });
        let level = self.one("log.level", |text| match crate::logs::filter(text) {
            Ok(_) => Ok(text.to_owned()),
            Err(error) => Err(format!("`{text}` is not a level or a filter: {error}")),
        });
        Some(LogConfig { format: format?, level: level? })
    }

    fn database(&mut self) -> Option<DatabaseConfig> {
        let url = self.one("database.url", DatabaseUrl::parse);
        let connections = self.count("database.connections", 2..=1000);
        let start_timeout = self.duration("database.start_timeout", Duration::ZERO..=DAY);
        Some(DatabaseConfig { url: url?, connections: connections?, start_timeout: start_timeout? })
    }

    fn value(&self, key: &'static str) -> Option<&Value> {
        self.raw.values.get(key)
    }

    fn problem(&mut self, key: &'static str, message: impl Into<String>) {
        let origin = self.value(key).map(|value| value.origin.to_string()).unwrap_or_default();
        self.problems.push(Problem { key: key.to_owned(), origin, message: message.into() });
    }

    /// A value that is one text; numbers and switches count as the text that they were typed as.
    fn one<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let parsed = match &self.value(key)?.typed {
            Typed::Text(text) => parse(text.trim()),
            Typed::Number(number) => parse(&number.to_string()),
            Typed::Switch(switch) => parse(&switch.to_string()),
            Typed::List(_) => Err("is a list; one value is wanted".to_owned()),
        };
        parsed.map_err(|message| self.problem(key, message)).ok()
    }

    /// A list; items that are wrong are reported and left out.
    fn list<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let items = match self.value(key).map(|value| &value.typed) {
            None => return Vec::new(),
            Some(Typed::List(items)) => items.clone(),
            Some(Typed::Text(_) | Typed::Number(_) | Typed::Switch(_)) => {
                self.problem(key, "is not a list");
                return Vec::new();
            }
        };
        items.iter().filter_map(|item| parse(item.trim()).map_err(|message| self.problem(key, message)).ok()).collect()
    }

    fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        let base = self.value(key)?.base.clone();
        self.one(key, |text| {
            if text.is_empty() { Err("is empty".to_owned()) } else { Ok(resolve(Path::new(text), base.as_deref())) }
        })
    }

    fn address_or_off(&mut self, key: &'static str) -> Option<Option<SocketAddr>> {
        self.one(key, |text| if text == "off" { Ok(None) } else { address(text).map(Some) })
    }

    fn switch(&mut self, key: &'static str) -> Option<bool> {
        self.one(key, |text| text.parse().map_err(|_| format!("`{text}` is neither `true` nor `false`")))
    }

    fn count(&mut self, key: &'static str, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
        self.one(key, |text| match text.parse() {
            Ok(number) if range.contains(&number) => Ok(number),
            Ok(_) => Err(format!("{text} is not between {} and {}", range.start(), range.end())),
            Err(_) => Err(format!("`{text}` is not a whole number between {} and {}", range.start(), range.end())),
        })
    }

    fn size(&mut self, key: &'static str, range: std::ops::RangeInclusive<u64>) -> Option<ByteSize> {
        self.one(key, |text| match ByteSize::parse(text)? {
            size if range.contains(&size.0) => Ok(size),
            _ => Err(format!("{text} is not between {} and {}", ByteSize(*range.start()), ByteSize(*range.end()))),
        })
    }

    fn duration(&mut self, key: &'static str, range: std::ops::RangeInclusive<Duration>) -> Option<Duration> {
        let print = super::value::duration_text;
        self.one(key, |text| match parse_duration(text)? {
            duration if range.contains(&duration) => Ok(duration),
            _ => Err(format!("{text} is not between {} and {}", print(*range.start()), print(*range.end()))),
        })
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let literal = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None if text.starts_with(':') => format!("0.0.0.0{text}"),
        None => text.to_owned(),
    };
    literal.parse().map_err(|_| format!("`{text}` is not an address and a port such as 127.0.0.1:5000 or [::1]:5000"))
}

/// A network in CIDR form, or a single address.
fn network(text: &str) -> Result<IpNet, String> {
    let net: Result<IpNet, _> = text.parse();
    match net {
        Ok(net) => Ok(net.trunc()),
        Err(_) => text
            .parse::<std::net::IpAddr>()
            .map(IpNet::from)
            .map_err(|_| format!("`{text}` is not a network such as 10.0.0.0/8 or an address")),
    }
}

/// What is in force, with its origin; secrets are not shown.
fn settings(raw: &Raw) -> Vec<Setting> {
    KEYS.iter()
        .filter_map(|key| {
            let value = raw.values.get(key.name)?;
            let shown = if key.secret && value.origin != super::Origin::Default {
                "\"(not shown)\"".to_owned()
            } else {
                toml_text(key, value)
            };
            Some(Setting { key: key.name, value: shown, origin: value.origin.to_string() })
        })
        .collect()
}

fn toml_text(key: &keys::Key, value: &Value) -> String {
    let quote = |text: &str| toml::Value::String(text.to_owned()).to_string();
    match (&value.typed, key.form) {
        // As TOML writes it: without the blanks and leading zeros that a variable may have.
        (Typed::Text(text), Form::Count) => {
            text.trim().parse::<u64>().map_or_else(|_| text.clone(), |number| number.to_string())
        }
        (Typed::Text(text), Form::Switch) => text.trim().to_owned(),
        (Typed::Text(text), Form::Path) => quote(&resolve(Path::new(text), value.base.as_deref()).to_string_lossy()),
        (Typed::Text(text), _) => quote(text),
        (Typed::Number(number), _) => number.to_string(),
        (Typed::Switch(switch), _) => switch.to_string(),
        (Typed::List(items), _) => format!("[{}]", items.iter().map(|item| quote(item)).collect::<Vec<_>>().join(", ")),
    }
}
