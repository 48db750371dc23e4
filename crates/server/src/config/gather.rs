//! Collects what was set where: file, environment, flags. Values are still as typed here.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use toml::de::{DeTable, DeValue};

use super::keys::{self, Form, KEYS, Key};

/// The longest configuration file, and the longest file that a `_file` key names.
const FILE_LIMIT: u64 = 1 << 20;
/// What the file is called.
pub const FILE_NAME: &str = "portcullis.toml";
/// Variables with our prefix that are not settings; they belong to the client commands.
const CONFIG_VARIABLE: &str = "PORTCULLIS_CONFIG";
const PREFIX: &str = "PORTCULLIS_";

/// The flags of `serve` that set something, as typed. They beat everything else.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--listen`.
    pub listen: Option<String>,
    /// `--admin-listen`.
    pub admin_listen: Option<String>,
    /// `--ops-listen`.
    pub ops_listen: Option<String>,
    /// `--public-url`, as often as given.
    pub public_urls: Vec<String>,
}

/// The variables of the environment whose names begin with `PORTCULLIS_`.
#[derive(Clone, Debug, Default)]
pub struct Environment(pub BTreeMap<String, String>);

impl Environment {
    /// Of this process. An empty variable counts as unset; one that is not UTF-8 is not looked at.
    pub fn current() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty())
                .collect(),
        )
    }
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A variable of the environment.
    Environment(String),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// Something wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The key; empty when the problem is the whole file.
    pub key: String,
    /// Where it was set.
    pub origin: String,
    /// What is wrong, and what was probably meant.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.origin.as_str(), self.key.as_str()) {
            ("", "") => f.write_str(&self.message),
            (origin, "") => write!(f, "{origin}: {}", self.message),
            ("default", key) => write!(f, "{key}: {}", self.message),
            (origin, key) => write!(f, "{key} ({origin}): {}", self.message),
        }
    }
}

/// A value as typed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Typed {
    Text(String),
    List(Vec<String>),
    Number(i64),
    Switch(bool),
}

/// A value and its place.
#[derive(Clone)]
pub(super) struct Value {
    pub typed: Typed,
    pub origin: Origin,
    /// The directory from which a relative path is taken; `None` is the working directory.
    pub base: Option<PathBuf>,
}

/// All values as typed, by key, and what was wrong on the way. [`Raw::check`](super::check) makes a `Config` of it.
pub struct Raw {
    pub(super) values: BTreeMap<&'static str, Value>,
    pub(super) problems: Vec<Problem>,
    pub(super) file: Option<PathBuf>,
}

impl Raw {
    /// Reads the file, if there is one, then the environment, then the flags. Never fails at once: what is wrong is
    /// reported by [`check`](Self::check), together with everything else.
    pub fn gather(flags: &Flags, environment: &Environment) -> Self {
        let mut raw = Self { values: BTreeMap::new(), problems: Vec::new(), file: None };
        for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
            let value = Value { typed: Typed::Text(key.default.to_owned()), origin: Origin::Default, base: None };
            raw.values.insert(key.name, value);
        }
        let named = flags.config.clone().or_else(|| environment.0.get(CONFIG_VARIABLE).map(PathBuf::from));
        let path = named.clone().unwrap_or_else(|| beside(flags, environment));
        match std::fs::File::open(&path) {
            Ok(file) => raw.read_file(&path, file),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => {}
            Err(error) => raw.problem("", &path.display().to_string(), format!("cannot be read: {error}")),
        }
        raw.read_environment(environment);
        raw.read_flags(flags);
        raw
    }

    fn problem(&mut self, key: &str, origin: &str, message: impl Into<String>) {
        self.problems.push(Problem { key: key.to_owned(), origin: origin.to_owned(), message: message.into() });
    }

    fn read_file(&mut self, path: &Path, file: std::fs::File) {
        let place = path.display().to_string();
        let mut text = String::new();
        match file.take(FILE_LIMIT + 1).read_to_string(&mut text) {
            Err(error) => return self.problem("", &place, format!("cannot be read: {error}")),
            Ok(length) if length as u64 > FILE_LIMIT => return self.problem("", &place, "is longer than 1MiB"),
            Ok(_) => {}
        }
        self.file = Some(path.to_owned());
        let (table, errors) = DeTable::parse_recoverable(&text);
        for error in &errors {
            let line = error.span().map_or(1, |span| line_of(&text, span.start));
            self.problem("", &format!("{place}:{line}"), error.message().trim_end().replace('\n', ", "));
        }
        if errors.is_empty() {
            self.read_table(path, &text, "", table.get_ref());
        }
    }

    fn read_table(&mut self, path: &Path, text: &str, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = format!("{prefix}{}", name.get_ref());
            let origin = Origin::File { path: path.to_owned(), line: line_of(text, name.span().start) };
            match value.get_ref() {
                DeValue::Table(inner) => {
                    let section = format!("{key}.");
                    if KEYS.iter().any(|known| known.name.starts_with(&section)) || !inner.is_empty() {
                        self.read_table(path, text, &section, inner);
                    } else {
                        self.unknown(&key, &origin);
                    }
                }
                other => {
                    let base = path.parent().map(Path::to_owned);
                    match typed(other) {
                        Ok(typed) => self.set(&key, Value { typed, origin, base }),
                        Err(message) => self.problem(&key, &origin.to_string(), message),
                    }
                }
            }
        }
    }

    fn read_environment(&mut self, environment: &Environment) {
        for (name, value) in &environment.0 {
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            let key = rest.to_ascii_lowercase().replace("__", ".");
            // Without `__` it is a key of the top level, or a variable of somebody else: of our client commands, or one
            // that Kubernetes makes up for a service called `portcullis`.
            if !rest.contains("__") && keys::find(key.strip_suffix("_file").unwrap_or(&key)).is_none() {
                continue;
            }
            let origin = Origin::Environment(name.clone());
            self.set(&key, Value { typed: Typed::Text(value.clone()), origin, base: None });
        }
    }

    fn read_flags(&mut self, flags: &Flags) {
        let data_dir = flags.data_dir.as_ref().map(|path| Typed::Text(path.to_string_lossy().into_owned()));
        let text = |value: &Option<String>| value.clone().map(Typed::Text);
        let urls = (!flags.public_urls.is_empty()).then(|| Typed::List(flags.public_urls.clone()));
        for (name, typed) in [
            ("data_dir", data_dir),
            ("server.listen", text(&flags.listen)),
            ("admin.listen", text(&flags.admin_listen)),
            ("ops.listen", text(&flags.ops_listen)),
            ("server.public_urls", urls),
        ] {
            let flag = keys::find(name).and_then(Key::flag_name);
            if let (Some(typed), Some(flag)) = (typed, flag) {
                self.set(name, Value { typed, origin: Origin::Flag(flag), base: None });
            }
        }
    }

    /// Takes a value; a key that ends in `_file` is read from the file that it names.
    fn set(&mut self, name: &str, value: Value) {
        if let Some(key) = keys::find(name) {
            return self.put(key, value);
        }
        let Some(key) = name.strip_suffix("_file").and_then(keys::find) else {
            return self.unknown(name, &value.origin);
        };
        let Typed::Text(path) = &value.typed else {
            return self.problem(name, &value.origin.to_string(), "is not a path");
        };
        let path = resolve(Path::new(path), value.base.as_deref());
        match read_value(&path) {
            Ok(text) => self.put(key, Value { typed: Typed::Text(text), ..value }),
            Err(error) => {
                self.problem(name, &value.origin.to_string(), format!("{} cannot be read: {error}", path.display()));
            }
        }
    }

    fn put(&mut self, key: &'static Key, value: Value) {
        let twice = self.values.get(key.name).is_some_and(|before| match (&before.origin, &value.origin) {
            (Origin::File { .. }, Origin::File { .. }) | (Origin::Environment(_), Origin::Environment(_)) => true,
            (Origin::Default | Origin::File { .. } | Origin::Environment(_) | Origin::Flag(_), _) => false,
        });
        if twice {
            self.problem(key.name, &value.origin.to_string(), format!("is set twice; `{}_file` sets it too", key.name));
        }
        let list = matches!(key.form, Form::Urls | Form::Networks | Form::Paths);
        let typed = match value.typed {
            Typed::Text(text) if list => {
                Typed::List(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
            }
            typed => typed,
        };
        self.values.insert(key.name, Value { typed, ..value });
    }

    fn unknown(&mut self, name: &str, origin: &Origin) {
        let message = match keys::nearest(name) {
            Some(nearest) => format!("is not a setting; did you mean `{nearest}`?"),
            None => "is not a setting".to_owned(),
        };
        self.problem(name, &origin.to_string(), message);
    }
}

/// The file beside the data directory that flags, environment or default name; whether it is there or not.
pub fn beside(flags: &Flags, environment: &Environment) -> PathBuf {
    let default = keys::find("data_dir").map_or("", |key| key.default);
    let data_dir = flags
        .data_dir
        .clone()
        .or_else(|| environment.0.get("PORTCULLIS_DATA_DIR").map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from(default));
    match data_dir.parent() {
        Some(parent) => parent.join(FILE_NAME),
        None => PathBuf::from(FILE_NAME),
    }
}

/// A relative path taken from `base`; from the working directory without one.
pub(super) fn resolve(path: &Path, base: Option<&Path>) -> PathBuf {
    match base {
        Some(base) => base.join(path),
        None => path.to_owned(),
    }
}

fn read_value(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_LIMIT).read_to_string(&mut text)?;
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(text)
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

fn typed(value: &DeValue<'_>) -> Result<Typed, String> {
    match value {
        DeValue::String(text) => Ok(Typed::Text(text.to_string())),
        DeValue::Boolean(switch) => Ok(Typed::Switch(*switch)),
        DeValue::Integer(number) => i64::from_str_radix(&number.as_str().replace('_', ""), number.radix())
            .map(Typed::Number)
            .map_err(|_| "is too large a number".to_owned()),
        DeValue::Array(items) => items
            .iter()
            .map(|item| {
                item.get_ref().as_str().map(str::to_owned).ok_or_else(|| "is a list of more than texts".to_owned())
            })
            .collect::<Result<_, _>>()
            .map(Typed::List),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => {
            Err(format!("cannot be a {}", value.type_str()))
        }
    }
}
