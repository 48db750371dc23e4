//! For tests: PostgreSQL and pgbouncer as processes of their own, a database for each test, and a proxy that cuts.
//!
//! Nothing of ours is used here, so that `xtask` can start a server for all tests of a run without building the product.
//! The tests find that server by [`POSTGRES`] and [`PGBOUNCER`], and [`ENGINE`] says which engine they are about.

mod certificate;
mod database;
mod pgbouncer;
mod postgres;
mod process;
mod proxy;

pub use database::{Database, ENGINE, Engine, PGBOUNCER, POSTGRES, engine};
pub use pgbouncer::Pgbouncer;
pub use postgres::{End, Options, Postgres};
pub use proxy::{Mode, Proxy};

/// The role of the tests, which may create databases.
pub const ROLE: &str = "portcullis";
/// Its password.
pub const PASSWORD: &str = "a long password/with:signs@in it";
