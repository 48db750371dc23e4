//! The PostgreSQL engine: a pool of connections, straight or through pgbouncer in transaction mode.

mod url;

use std::time::Duration;

pub use url::{PostgresUrl, PostgresUrlError};

/// How a PostgreSQL database is opened.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// Where it is.
    pub url: PostgresUrl,
    /// How many connections are open at most; at least 1.
    pub connections: usize,
    /// How long a connection may take to be made, its name to be looked up included.
    pub connect_timeout: Duration,
    /// How long a request waits for one of the connections before it fails with [`crate::Error::Busy`].
    pub pool_timeout: Duration,
    /// How long one statement may take.
    pub statement_timeout: Duration,
}

impl PostgresOptions {
    /// The usual settings for this address.
    pub fn new(url: PostgresUrl) -> Self {
        Self {
            url,
            connections: 16,
            connect_timeout: Duration::from_secs(5),
            pool_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(30),
        }
    }
}
