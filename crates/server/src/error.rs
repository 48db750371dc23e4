//! Why the server does not start, or had to stop.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::Problem;

/// Errors of starting, of running and of the offline commands. A request never ends in one of these.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is invalid; all problems are listed.
    #[error("the configuration is invalid{}", list(.0))]
    Config(Vec<Problem>),
    /// Refused as unsafe.
    #[error("{what}")]
    Unsafe {
        /// What is unsafe.
        what: String,
        /// The key or the command that mends it.
        help: String,
    },
    /// Another process has the data directory open.
    #[error("the data directory {} is in use by {holder}", .path.display())]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// Process, host and start of the holder, as it wrote them down.
        holder: String,
    },
    /// Another server serves the store: its database is the one of this configuration.
    #[error("the store is served by {holder}")]
    Served {
        /// Process and host.
        holder: String,
    },
    /// The data directory was written by a newer version.
    #[error("the data directory {} has format {found}; this version reads up to format {supported}", .path.display())]
    NewerFormat {
        /// The data directory.
        path: PathBuf,
        /// The format that it has.
        found: u64,
        /// The newest that this version knows.
        supported: u64,
    },
    /// The data directory is not in order; nothing was changed.
    #[error("{what}")]
    DataDir {
        /// What is wrong.
        what: String,
        /// What to do.
        help: String,
    },
    /// A file or directory.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An address that cannot be listened on.
    #[error("cannot listen on {address} ({key})")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The setting that names it.
        key: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate or key that cannot be used.
    #[error("cannot use {}: {reason}", .path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Something in the system that is needed to run.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// From the database.
    #[error("the database failed")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// From the store of blobs, or from an operation of the registry.
    #[error("{action} failed")]
    Operation {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What kind of end this is; each has an exit state that scripts rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It failed.
    Failed,
    /// Wrong configuration.
    Invalid,
    /// Refused as unsafe.
    Unsafe,
    /// The data directory is locked by another, or its format is too new.
    Unavailable,
}

impl Error {
    /// An error on a path.
    pub fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { action, path: path.into(), source }
    }

    /// A refusal.
    pub fn refuse(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Unsafe { what: what.into(), help: help.into() }
    }

    /// An error of the database of this data directory.
    pub fn database(data_dir: &std::path::Path, error: meta::Error) -> Self {
        let number = |format: i64| u64::try_from(format).unwrap_or_default();
        match error {
            meta::Error::NewerFormat { found, supported } => {
                Self::NewerFormat { path: data_dir.to_owned(), found: number(found), supported: number(supported) }
            }
            other => Self::Database(Box::new(other)),
        }
    }

    /// An operation that failed.
    pub fn operation(action: &'static str, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Operation { action, source: Box::new(source) }
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Config(_) => Kind::Invalid,
            Self::Unsafe { .. } => Kind::Unsafe,
            Self::Locked { .. } | Self::Served { .. } | Self::NewerFormat { .. } => Kind::Unavailable,
            Self::DataDir { .. }
            | Self::Io { .. }
            | Self::Listen { .. }
            | Self::Tls { .. }
            | Self::System { .. }
            | Self::Database(_)
            | Self::Operation { .. } => Kind::Failed,
        }
    }

    /// The exit state of the process that ends with this.
    pub fn exit_code(&self) -> u8 {
        match self.kind() {
            Kind::Failed => 1,
            Kind::Invalid => 2,
            Kind::Unsafe => 6,
            Kind::Unavailable => 7,
        }
    }

    /// The stable name of this error, listed in the reference.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config(_) => "config_invalid",
            Self::Unsafe { .. } => "unsafe",
            Self::Locked { .. } => "data_dir_locked",
            Self::Served { .. } => "store_served",
            Self::NewerFormat { .. } => "data_dir_too_new",
            Self::DataDir { .. } => "data_dir_damaged",
            Self::Io { .. } => "io",
            Self::Listen { .. } => "cannot_listen",
            Self::Tls { .. } => "tls",
            Self::System { .. } => "system",
            Self::Database(_) => "database",
            Self::Operation { .. } => "failed",
        }
    }

    /// The next step, where there is one.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Config(_) => Some("`portcullis config reference` lists every setting".to_owned()),
            Self::Unsafe { help, .. } | Self::DataDir { help, .. } => Some(help.clone()),
            Self::Locked { .. } => {
                Some("stop the other server, or give this one a directory of its own with --data-dir DIR".to_owned())
            }
            Self::Served { .. } => {
                Some("stop that server, or give this one a database of its own (database.url)".to_owned())
            }
            Self::NewerFormat { .. } => Some("use the newer version that wrote it, or restore a backup".to_owned()),
            Self::Listen { key, source, .. } => Some(match source.kind() {
                io::ErrorKind::AddrInUse => format!("another program listens there; set {key} to a free address"),
                io::ErrorKind::PermissionDenied => format!("set {key} to a port of 1024 or above"),
                _ => format!("set {key} to an address of this machine"),
            }),
            Self::Tls { .. } => Some("see server.tls in `portcullis config reference`".to_owned()),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("free some space on that disk".to_owned())
            }
            Self::Database(source) if matches!(source.downcast_ref(), Some(meta::Error::Full)) => {
                Some("free a few MiB on the disk of the data directory: the file `reserve` in it is used up".to_owned())
            }
            Self::Database(source) if matches!(source.downcast_ref(), Some(meta::Error::Unavailable { .. })) => Some(
                "see that the database server runs, and what database.url says (`portcullis config show`)".to_owned(),
            ),
            Self::Io { .. } | Self::System { .. } | Self::Database(_) | Self::Operation { .. } => None,
        }
    }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_the_exit_states_that_scripts_rely_on() {
        let io = || io::Error::from(io::ErrorKind::AddrInUse);
        for (error, exit, code) in [
            (Error::Config(vec![]), 2, "config_invalid"),
            (Error::refuse("a", "b"), 6, "unsafe"),
            (Error::Locked { path: "/d".into(), holder: "process 7".into() }, 7, "data_dir_locked"),
            (Error::NewerFormat { path: "/d".into(), found: 2, supported: 1 }, 7, "data_dir_too_new"),
            (Error::io("read", "/d", io()), 1, "io"),
        ] {
            assert_eq!((error.exit_code(), error.code()), (exit, code));
        }
        let error = Error::Listen { address: ([127, 0, 0, 1], 5000).into(), key: "server.listen", source: io() };
        assert!(error.help().unwrap().contains("server.listen"));
    }
}
