//! A PostgreSQL server of Debian's package, in a folder of its own.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::{Account, free_port, output, signal, tail, wait, wait_until_listening};
use crate::{PASSWORD, ROLE, certificate};

const SUPERUSER: &str = "postgres";

/// How a server is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether it syncs. Without, databases are made and changed faster, and a power cut would damage them.
    pub durable: bool,
    /// Whether it speaks TLS over TCP, and nothing else.
    pub tls: bool,
    /// Further settings of `postgresql.conf`.
    pub settings: Vec<(String, String)>,
}

/// How a server goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Transactions are rolled back, what was committed is written (SIGINT).
    Fast,
    /// At once; the next start recovers from the log (SIGQUIT).
    Immediate,
    /// `kill -9` of all its processes.
    Kill,
}

/// A server. Ends when dropped, and its files with it.
pub struct Postgres {
    folder: TempDir,
    account: Account,
    port: u16,
    tls: bool,
    child: Option<Child>,
}

/// The folder of the programs: the newest version that Debian has installed.
pub fn programs() -> Result<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .context("Debian's package `postgresql` is not installed; `cargo xtask test` does it")?
        .filter_map(|entry| entry.ok())
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("postgres").exists())
        .collect();
    versions.sort();
    versions.pop().map(|(_, bin)| bin).context("there is no server in /usr/lib/postgresql")
}

impl Postgres {
    /// Makes a cluster, starts it, and makes the role [`ROLE`], which may create databases.
    pub fn start(options: &Options) -> Result<Self> {
        let account = Account::find()?;
        let folder = tempfile::Builder::new().prefix("testdb-").tempdir()?;
        account.own(folder.path())?;
        let mut server = Self { folder, account, port: free_port()?, tls: options.tls, child: None };
        let password = server.path("superuser");
        fs::write(&password, PASSWORD)?;
        account.own(&password)?;
        let mut initdb = account.command(programs()?.join("initdb"));
        initdb.args(["--no-sync", "--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8", "--locale=C"]);
        initdb.args(["--username", SUPERUSER]).arg("--pwfile").arg(&password).arg("-D").arg(server.path("cluster"));
        output(&mut initdb)?;
        server.configure(options)?;
        server.launch()?;
        let quoted = PASSWORD.replace('\'', "''");
        server.run("postgres", &format!("CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{quoted}'"))?;
        Ok(server)
    }

    fn configure(&self, options: &Options) -> Result<()> {
        let cluster = self.path("cluster");
        let mut text = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\nmax_connections = 300\n\
             password_encryption = 'scram-sha-256'\nlogging_collector = off\nlog_line_prefix = '%m %d '\n",
            self.port,
            self.folder.path().display()
        );
        if !options.durable {
            text.push_str("fsync = off\nfull_page_writes = off\nwal_level = minimal\nmax_wal_senders = 0\n");
        }
        if options.tls {
            certificate::make(self.folder.path())?;
            for name in ["server.crt", "server.key"] {
                self.account.own(&self.path(name))?;
                writeln!(
                    text,
                    "ssl_{} = '{}'",
                    &name[7..].replace("crt", "cert_file").replace("key", "key_file"),
                    self.path(name).display()
                )?;
            }
            text.push_str("ssl = on\n");
            let rules = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
            fs::write(cluster.join("pg_hba.conf"), rules)?;
        }
        for (name, value) in &options.settings {
            writeln!(text, "{name} = '{value}'")?;
        }
        let file = cluster.join("postgresql.conf");
        let before = fs::read_to_string(&file)?;
        fs::write(&file, before + &text)?;
        Ok(())
    }

    /// Starts it again on its files, after [`Postgres::stop`]; returns when it takes connections, recovered if it had to.
    pub fn launch(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "the server runs already");
        let log = File::options().create(true).append(true).open(self.log_file())?;
        let mut command = self.account.command(programs()?.join("postgres"));
        command.arg("-D").arg(self.path("cluster")).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("cannot start postgres")?;
        let child = self.child.insert(child);
        wait_until_listening(child, SocketAddr::from(([127, 0, 0, 1], self.port)), &self.folder.path().join("log"))?;
        let start = Instant::now();
        loop {
            match self.run("postgres", "SELECT 1") {
                Ok(_) => return Ok(()),
                Err(error) if start.elapsed() > Duration::from_secs(60) => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Ends it and waits until all its processes are gone.
    pub fn stop(&mut self, end: End) -> Result<()> {
        let mut child = self.child.take().context("the server does not run")?;
        let id = child.id();
        let children = children(id);
        match end {
            End::Fast => signal(id, Signal::INT)?,
            End::Immediate => signal(id, Signal::QUIT)?,
            End::Kill => {
                signal(id, Signal::KILL)?;
                children.iter().try_for_each(|id| signal(*id, Signal::KILL))?;
            }
        }
        if wait(&mut child, Duration::from_secs(30))?.is_none() {
            child.kill()?;
            child.wait()?;
            bail!("postgres did not end within 30 seconds\n{}", tail(&self.log_file()));
        }
        let start = Instant::now();
        // A new server refuses to start while one of them holds the shared memory.
        while children.iter().any(|id| is_ours(*id)) {
            ensure!(start.elapsed() < Duration::from_secs(30), "processes of postgres live on");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Runs SQL as the superuser, over the socket; what `psql` printed, without decoration.
    pub fn run(&self, database: &str, sql: &str) -> Result<String> {
        let mut psql = self.account.command(programs()?.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", SUPERUSER, "-d", database, "-c", sql]);
        psql.arg("-h").arg(self.folder.path()).arg("-p").arg(self.port.to_string());
        output(&mut psql)
    }

    /// Makes a database that belongs to [`ROLE`].
    pub fn create_database(&self, name: &str) -> Result<()> {
        self.run("postgres", &format!("CREATE DATABASE {name} OWNER {ROLE}")).map(drop)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The folder of its socket.
    pub fn socket_folder(&self) -> &Path {
        self.folder.path()
    }

    /// The authority of its certificate, when it speaks TLS.
    pub fn authority(&self) -> PathBuf {
        self.path("ca.crt")
    }

    /// The URL of a database, with role and password.
    pub fn url(&self, database: &str) -> String {
        let url = url(self.address(), database);
        match self.tls {
            true => format!("{url}?sslmode=require"),
            false => url,
        }
    }

    /// What it printed so far.
    pub fn log_file(&self) -> PathBuf {
        self.path("log")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.child.is_some() && self.stop(End::Immediate).is_err() {
            eprintln!("postgres did not end: {}", tail(&self.log_file()));
        }
    }
}

/// The URL of a database there, with [`ROLE`] and [`PASSWORD`].
pub fn url(address: SocketAddr, database: &str) -> String {
    let mut password = String::new();
    for byte in PASSWORD.bytes() {
        match byte.is_ascii_alphanumeric() {
            true => password.push(char::from(byte)),
            false => password.push_str(&format!("%{byte:02X}")),
        }
    }
    format!("postgres://{ROLE}:{password}@{address}/{database}")
}

fn children(id: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

/// Whether a process of PostgreSQL still has this id, ended and not collected ones left out.
fn is_ours(id: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    status.starts_with("Name:\tpostgres") && !status.contains("State:\tZ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_rows_outlive_every_end() {
        let mut server = Postgres::start(&Options::default()).unwrap();
        server.create_database("ends").unwrap();
        server.run("ends", "CREATE TABLE a (n int)").unwrap();
        for (n, end) in [End::Fast, End::Immediate, End::Kill].into_iter().enumerate() {
            server.run("ends", &format!("INSERT INTO a VALUES ({n})")).unwrap();
            server.stop(end).unwrap();
            assert!(server.run("ends", "SELECT 1").is_err());
            server.launch().unwrap();
            assert_eq!(server.run("ends", "SELECT count(*) FROM a").unwrap().trim(), (n + 1).to_string());
        }
    }

    #[test]
    fn tls_with_an_authority_of_its_own() {
        let server = Postgres::start(&Options { tls: true, ..Options::default() }).unwrap();
        let connect = |mode: &str| {
            let url = format!("{}?sslmode={mode}", url(server.address(), "postgres"));
            let mut psql = server.account.command(programs().unwrap().join("psql"));
            psql.args(["-X", "-A", "-t", "-c", "SELECT 1"]).arg(url);
            // Debian's root certificates are not those of the test.
            psql.env("PGSSLROOTCERT", server.authority());
            output(&mut psql)
        };
        account_may_read(&server);
        assert_eq!(connect("verify-full").unwrap().trim(), "1");
        assert!(connect("disable").is_err());
    }

    fn account_may_read(server: &Postgres) {
        server.account.own(&server.authority()).unwrap();
    }
}
