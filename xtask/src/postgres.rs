//! The PostgreSQL server for tests of a run, and pgbouncer in front of it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use testdb::{ENGINE, Options, PGBOUNCER, POSTGRES, Pgbouncer, Postgres};

/// Both; they end when dropped.
pub struct Servers {
    pooler: Pgbouncer,
    postgres: Postgres,
}

impl Servers {
    /// Starts them.
    pub fn start() -> Result<Self> {
        let postgres = Postgres::start(&Options::default())?;
        let pooler = Pgbouncer::start(&postgres)?;
        Ok(Self { pooler, postgres })
    }

    /// What tells tests to use PostgreSQL, directly.
    pub fn direct(&self) -> Vec<(&'static str, String)> {
        vec![(ENGINE, "postgres".to_owned()), (POSTGRES, self.postgres.url("postgres"))]
    }

    /// What tells tests to use PostgreSQL by way of pgbouncer.
    pub fn pooled(&self) -> Vec<(&'static str, String)> {
        vec![
            (ENGINE, "pgbouncer".to_owned()),
            (POSTGRES, self.postgres.url("postgres")),
            (PGBOUNCER, self.pooler.url("postgres")),
        ]
    }
}

/// Runs a command with servers; whether it succeeded.
pub fn with_server(root: &Path, command: &[&str]) -> Result<bool> {
    let (pooled, command) = match command {
        ["--pgbouncer", rest @ ..] => (true, rest),
        all => (false, all),
    };
    let (program, arguments) = command.split_first().context("cargo xtask postgres takes a command")?;
    let servers = Servers::start()?;
    let variables = if pooled { servers.pooled() } else { servers.direct() };
    let status = Command::new(program).args(arguments).current_dir(root).envs(variables).status();
    Ok(status.with_context(|| format!("cannot start {program}"))?.success())
}
