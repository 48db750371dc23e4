//! pgbouncer of Debian's package in transaction mode.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::postgres::{Postgres, url};
use crate::process::{Account, free_port, signal, wait, wait_until_listening};
use crate::{PASSWORD, ROLE};

/// A pooler in front of a server. Ends when dropped.
pub struct Pgbouncer {
    folder: TempDir,
    account: Account,
    port: u16,
    child: Option<Child>,
}

impl Pgbouncer {
    /// Starts one for every database of the server, in transaction mode, the rest as by default.
    pub fn start(server: &Postgres) -> Result<Self> {
        let account = Account::find()?;
        let folder = tempfile::Builder::new().prefix("testdb-").tempdir()?;
        account.own(folder.path())?;
        let port = free_port()?;
        let path = folder.path().display();
        let config = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir = {path}\nauth_type = scram-sha-256\nauth_file = {path}/users\npool_mode = transaction\n\
             max_client_conn = 2000\ndefault_pool_size = 20\nserver_idle_timeout = 10\n",
            server.address().port(),
        );
        for (name, text) in [("config", config), ("users", format!("\"{ROLE}\" \"{PASSWORD}\"\n"))] {
            fs::write(folder.path().join(name), text)?;
            account.own(&folder.path().join(name))?;
        }
        let mut pooler = Self { folder, account, port, child: None };
        pooler.launch()?;
        Ok(pooler)
    }

    /// Starts it again after [`Pgbouncer::stop`].
    pub fn launch(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "pgbouncer runs already");
        let log = self.folder.path().join("log");
        let file = File::options().create(true).append(true).open(&log)?;
        let mut command = self.account.command("/usr/sbin/pgbouncer");
        command.arg(self.folder.path().join("config")).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().context("cannot start pgbouncer; Debian's package `pgbouncer` has it")?;
        let address = self.address();
        wait_until_listening(self.child.insert(child), address, &log)
    }

    /// Ends it at once; every connection breaks.
    pub fn stop(&mut self) -> Result<()> {
        let mut child = self.child.take().context("pgbouncer does not run")?;
        signal(child.id(), Signal::TERM)?;
        if wait(&mut child, Duration::from_secs(5))?.is_none() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The URL of a database by way of the pooler, with role and password.
    pub fn url(&self, database: &str) -> String {
        url(self.address(), database)
    }
}

impl Drop for Pgbouncer {
    fn drop(&mut self) {
        if self.child.is_some() {
            let _ = self.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::postgres::Options;
    use crate::process::output;

    #[test]
    fn statements_go_through_it() {
        let server = Postgres::start(&Options::default()).unwrap();
        server.create_database("pooled").unwrap();
        let mut pooler = Pgbouncer::start(&server).unwrap();
        let ask = |pooler: &Pgbouncer| {
            let mut psql = Command::new("psql");
            output(psql.args(["-X", "-A", "-t", "-c", "SELECT current_database()"]).arg(pooler.url("pooled")))
        };
        assert_eq!(ask(&pooler).unwrap().trim(), "pooled");
        pooler.stop().unwrap();
        assert!(ask(&pooler).is_err());
        pooler.launch().unwrap();
        assert_eq!(ask(&pooler).unwrap().trim(), "pooled");
    }
}
