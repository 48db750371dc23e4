//! What the process gives up before it serves: privileges, files, ports and system calls.
//!
//! Done on the only thread, before the runtime starts, since Landlock and the filter of system calls bind a thread and the
//! threads that it makes. Whoever finds a way to run code in the server then has the data directory and the open
//! connections, and nothing else: no program can be started, no other file opened, no other port bound or reached but that
//! of the database.

mod files;
mod privileges;
pub mod probe;
mod system_calls;

use std::fmt;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use crate::config::{Config, DatabaseUrl, SandboxMode};
use crate::error::Error;

/// What was given up, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// The user and group that it runs as.
    pub identity: privileges::Became,
    /// Files and ports, by Landlock.
    pub files: Level,
    /// System calls, by seccomp.
    pub system_calls: Level,
}

/// How much of a means of the kernel is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Level {
    /// All that is asked for.
    Full,
    /// Some of it: the kernel is older.
    Partial(String),
    /// None of it, and why.
    None(String),
    /// `sandbox.mode` is `off`.
    Off,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("full"),
            Self::Partial(why) => write!(f, "partial ({why})"),
            Self::None(why) => write!(f, "none ({why})"),
            Self::Off => f.write_str("off"),
        }
    }
}

impl Level {
    fn is_full(&self) -> bool {
        matches!(self, Self::Full)
    }
}

impl Confinement {
    /// One line for the log: at `info` when all is in force, else a warning.
    pub fn tell(&self) {
        let (user, files, system_calls) = (&self.identity, &self.files, &self.system_calls);
        if files.is_full() && system_calls.is_full() {
            tracing::info!(%user, %files, %system_calls, "confined");
        } else {
            tracing::warn!(
                %user, %files, %system_calls,
                "the process is not fully confined: it could reach more than it needs if it were broken into"
            );
        }
    }
}

/// Gives up what the server does not need. Call it once, on the only thread of the process, after the data directory is
/// there; it cannot be undone.
///
/// # Errors
/// [`Error::Unsafe`] when `sandbox.mode` is `required` and the kernel does not give everything; [`Error::System`] when
/// privileges cannot be dropped.
pub fn confine(config: &Config) -> Result<Confinement, Error> {
    let identity = privileges::drop_them(config)?;
    // After the change of user, at which the kernel sets anew whether there may be dumps (`fs.suid_dumpable`).
    no_core_dumps()?;
    let (files, system_calls) = match config.sandbox.mode {
        SandboxMode::Off => (Level::Off, Level::Off),
        SandboxMode::BestEffort | SandboxMode::Required => {
            let files = files::restrict(config)?;
            let lookups = matches!(&config.database.url, DatabaseUrl::Postgres(url) if url.is_looked_up());
            (files, system_calls::restrict(lookups))
        }
    };
    let confinement = Confinement { identity, files, system_calls };
    let all = confinement.files.is_full() && confinement.system_calls.is_full();
    if config.sandbox.mode == SandboxMode::Required && !all {
        return Err(Error::refuse(
            format!(
                "sandbox.mode is `required`, and this system gives: files and ports {}, system calls {}",
                confinement.files, confinement.system_calls
            ),
            "use a kernel with Landlock (6.12 or newer for all of it) and seccomp, or set sandbox.mode = \"best-effort\"",
        ));
    }
    Ok(confinement)
}

/// Memory holds keys and passwords; none of it goes to a file, and no other process of the same user may read it.
fn no_core_dumps() -> Result<(), Error> {
    let failed = |source: rustix::io::Errno| Error::System { action: "switch core dumps off", source: source.into() };
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(failed)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed)
}
