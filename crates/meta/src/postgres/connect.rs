//! Making connections: names, TLS, the pool.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};
use futures_util::FutureExt;
use hickory_resolver::TokioResolver;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::PostgresOptions;
use super::url::{Host, PostgresUrl, Tls};
use crate::error::Error;

/// One connection to the server or to pgbouncer.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) client: Client,
    driver: JoinHandle<()>,
}

impl Connection {
    /// Cuts it, whatever it is doing: the server rolls back what was not committed.
    pub(super) fn cut(&self) {
        self.driver.abort();
    }
}

/// Makes connections for the pool.
pub(super) struct Manager {
    url: PostgresUrl,
    timeout: Duration,
    tls: Option<MakeRustlsConnect>,
    /// Names are looked up here, because the C library cannot in a static binary. None where the host is no name.
    resolver: Option<TokioResolver>,
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manager").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Manager {
    /// Reads what every connection needs: authorities and the settings of the resolver.
    pub(super) fn new(options: &PostgresOptions) -> Result<Self, Error> {
        let tls = match &options.url.tls {
            Tls::Off => None,
            Tls::Verified { roots } => Some(MakeRustlsConnect::new(tls(roots.as_deref())?)),
        };
        let resolver = match options.url.host {
            Host::Name(_) => Some(
                TokioResolver::builder_tokio()
                    .and_then(|builder| builder.build())
                    .map_err(|error| Error::db("reading /etc/resolv.conf", error))?,
            ),
            Host::Address(_) | Host::Directory(_) => None,
        };
        Ok(Self { url: options.url.clone(), timeout: options.connect_timeout, tls, resolver })
    }

    async fn addresses(&self) -> Result<Vec<IpAddr>, Error> {
        let (name, resolver) = match (&self.url.host, &self.resolver) {
            (Host::Address(address), _) => return Ok(vec![*address]),
            (Host::Name(name), Some(resolver)) => (name, resolver),
            _ => return Ok(Vec::new()),
        };
        let found = resolver.lookup_ip(name.as_str()).await;
        Ok(found
            .map_err(|error| Error::unavailable("connecting", format!("looking up '{name}': {error}")))?
            .iter()
            .collect())
    }

    async fn connect(&self) -> Result<Connection, Error> {
        let mut config = Config::new();
        config.user(&self.url.user).dbname(&self.url.database).application_name("portcullis").port(self.url.port);
        config.keepalives_idle(Duration::from_secs(30)).tcp_user_timeout(Duration::from_secs(30));
        if let Some(password) = &self.url.password {
            config.password(password);
        }
        config.ssl_mode(if self.tls.is_some() { SslMode::Require } else { SslMode::Disable });
        if let Host::Directory(directory) = &self.url.host {
            config.host_path(directory);
            return self.open(&config).await;
        }
        let mut last = Error::unavailable("connecting", "the host has no address");
        let addresses = self.addresses().await?;
        // One that swallows packets leaves time for the others.
        config.connect_timeout(self.timeout / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX));
        for address in addresses {
            let mut config = config.clone();
            // The name is for TLS, the address is where it goes.
            match &self.url.host {
                Host::Name(name) => config.host(name),
                _ => config.host(address.to_string()),
            };
            config.hostaddr(address);
            match self.open(&config).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn open(&self, config: &Config) -> Result<Connection, Error> {
        match &self.tls {
            Some(tls) => {
                let (client, connection) = config.connect(tls.clone()).await.map_err(refused)?;
                Ok(Connection { client, driver: tokio::spawn(drive(connection)) })
            }
            None => {
                let (client, connection) = config.connect(NoTls).await.map_err(refused)?;
                Ok(Connection { client, driver: tokio::spawn(drive(connection)) })
            }
        }
    }
}

/// A connection that could not be made. A wrong password or a missing database may be right a moment later: the server is
/// starting, or being set up.
fn refused(error: tokio_postgres::Error) -> Error {
    Error::Unavailable { doing: "connecting", source: Arc::new(error) }
}

async fn drive(connection: impl Future<Output = Result<(), tokio_postgres::Error>>) {
    if let Err(error) = connection.await {
        tracing::warn!(error = &error as &dyn std::error::Error, "a connection to the database ended");
    }
}

impl managed::Manager for Manager {
    type Type = Connection;
    type Error = Error;

    async fn create(&self) -> Result<Connection, Error> {
        let late =
            |_| Error::unavailable("connecting", format!("no connection within {} ms", self.timeout.as_millis()));
        // Boxed: it is seldom made, and large enough for the futures of whole requests to feel it.
        tokio::time::timeout(self.timeout, self.connect().boxed()).await.map_err(late)?
    }

    /// A closed connection is not used again. Whether an open one still leads anywhere shows at its next statement, which is
    /// tried once more on a new one.
    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<Error> {
        match connection.client.is_closed() {
            true => Err(RecycleError::message("it is closed")),
            false => Ok(()),
        }
    }
}

/// TLS that checks the server's certificate and name, by the authorities in the file or else by the system's.
fn tls(roots: Option<&std::path::Path>) -> Result<rustls::ClientConfig, Error> {
    let mut store = rustls::RootCertStore::empty();
    match roots {
        Some(path) => {
            let failed = |error: rustls::pki_types::pem::Error| Error::db("reading the file sslrootcert", error);
            for certificate in CertificateDer::pem_file_iter(path).map_err(failed)? {
                let added = store.add(certificate.map_err(failed)?);
                added.map_err(|error| Error::db("reading the file sslrootcert", error))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            store.add_parsable_certificates(found.certs);
        }
    }
    if store.is_empty() {
        let why = "no authority was found: give sslrootcert=FILE, or install the system's certificates";
        return Err(Error::db("setting up TLS to the database", why));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::db("setting up TLS to the database", error))?;
    Ok(config.with_root_certificates(store).with_no_client_auth())
}
