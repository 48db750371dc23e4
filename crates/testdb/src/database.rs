//! A database for one test, on the server that the environment names.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

use crate::postgres::programs;
use crate::process::output;

/// Names what tests run on: `sqlite` (also when it is not set), `postgres`, or `pgbouncer`, which is PostgreSQL by way of that.
pub const ENGINE: &str = "PORTCULLIS_TEST_DATABASE";
/// The URL of a database of a PostgreSQL server, as a role that may create databases.
pub const POSTGRES: &str = "PORTCULLIS_TEST_POSTGRES";
/// The same by way of pgbouncer in transaction mode.
pub const PGBOUNCER: &str = "PORTCULLIS_TEST_PGBOUNCER";

/// What keeps the rows in a run of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// A file in the data directory.
    Sqlite,
    /// A server.
    Postgres,
}

/// The engine that this run of the tests is about.
///
/// # Panics
/// When [`ENGINE`] names none: a run that was meant for PostgreSQL must not pass on SQLite.
pub fn engine() -> Engine {
    match std::env::var(ENGINE).as_deref() {
        Err(std::env::VarError::NotPresent) | Ok("sqlite") => Engine::Sqlite,
        Ok("postgres" | "pgbouncer") => Engine::Postgres,
        other => panic!("{ENGINE} is {other:?}; it has to be `sqlite`, `postgres` or `pgbouncer`"),
    }
}

/// An empty database; removed when dropped, with whatever is connected to it.
#[derive(Debug)]
pub struct Database {
    name: String,
    server: String,
    url: String,
    direct: String,
}

impl Database {
    /// Makes one on the server that [`POSTGRES`] names.
    pub fn create() -> Result<Self> {
        let server = std::env::var(POSTGRES).with_context(|| {
            format!("{POSTGRES} is not set; `cargo xtask postgres COMMAND` runs a command with a server")
        })?;
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{number}", std::process::id());
        sql(&server, &format!("CREATE DATABASE {name} LOCALE 'C' TEMPLATE template0 STRATEGY file_copy"))?;
        let direct = with_database(&server, &name)?;
        let url = match std::env::var(ENGINE).as_deref() {
            Ok("pgbouncer") => {
                let pooler = std::env::var(PGBOUNCER).with_context(|| format!("{PGBOUNCER} is not set"))?;
                with_database(&pooler, &name)?
            }
            _ => direct.clone(),
        };
        Ok(Self { name, server, url, direct })
    }

    /// Where the product finds it: by way of pgbouncer where the run says so.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs SQL behind the back of the product; what `psql` printed, without decoration.
    pub fn run(&self, text: &str) -> Result<String> {
        sql(&self.direct, text)
    }

    /// Everything in it, as `pg_dump` prints it: columns of bytes in hexadecimal digits.
    pub fn dump(&self) -> Result<String> {
        output(Command::new(programs()?.join("pg_dump")).arg(&self.direct).stdin(Stdio::null()))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Err(error) = sql(&self.server, &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name)) {
            eprintln!("a database of a test is left over: {error:#}");
        }
    }
}

fn sql(url: &str, text: &str) -> Result<String> {
    // Debian's `psql` in the path is a script that looks for this one.
    let mut psql = Command::new(programs()?.join("psql"));
    psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", text]).arg(url).stdin(Stdio::null());
    output(&mut psql)
}

/// The same URL with another database.
fn with_database(url: &str, name: &str) -> Result<String> {
    let (rest, query) = match url.split_once('?') {
        Some((rest, query)) => (rest, format!("?{query}")),
        None => (url, String::new()),
    };
    let authority = rest.split_once("://").context("no URL")?.1;
    match authority.split_once('/') {
        Some((_, database)) if !database.is_empty() => {
            Ok(format!("{}{name}{query}", &rest[..rest.len() - database.len()]))
        }
        _ => bail!("{POSTGRES} names no database"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_of_a_url_is_exchanged() {
        for (url, changed) in [
            ("postgres://a:b@127.0.0.1:5/postgres", "postgres://a:b@127.0.0.1:5/x"),
            ("postgres://a@h/postgres?sslmode=require", "postgres://a@h/x?sslmode=require"),
        ] {
            assert_eq!(with_database(url, "x").unwrap(), changed);
        }
        assert!(with_database("postgres://h", "x").is_err());
    }
}
