//! A fresh database of the engine under test.
//!
//! `PORTCULLIS_TEST_DATABASE` names it: `sqlite` (also when it is not set), `postgres`, or `pgbouncer`. The latter two need
//! `PORTCULLIS_TEST_POSTGRES`, the address of a superuser at a maintenance database; each fresh database is created there.
//! `pgbouncer` reaches it through `PORTCULLIS_TEST_PGBOUNCER`. What is not set and needed is a failure, never a silent pass.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use super::random;
use crate::conformance::{Bench, clock};
use crate::{Db, PostgresOptions, PostgresUrl};

/// A fresh, empty database that goes with this value.
pub(crate) struct Fresh {
    /// The database and its clock.
    pub(crate) bench: Bench,
    /// Where it is.
    pub(crate) place: Place,
    _gone: Gone,
}

/// Where a fresh database is.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// In this file.
    Sqlite(PathBuf),
    /// On a server, perhaps through pgbouncer.
    Postgres(PostgresUrl),
}

enum Gone {
    Sqlite { _directory: tempfile::TempDir },
    Postgres { server: PostgresUrl, name: String },
}

/// Which engine is under test.
pub(crate) fn under_test() -> String {
    std::env::var("PORTCULLIS_TEST_DATABASE").unwrap_or_else(|_| "sqlite".to_owned())
}

impl Fresh {
    /// A fresh database of the engine under test.
    pub(crate) async fn open() -> Self {
        match under_test().as_str() {
            "sqlite" => Self::sqlite(),
            "postgres" => Self::postgres(None).await,
            "pgbouncer" => Self::postgres(Some(url("PORTCULLIS_TEST_PGBOUNCER"))).await,
            other => panic!("PORTCULLIS_TEST_DATABASE={other}: sqlite, postgres or pgbouncer"),
        }
    }

    /// A fresh database for a copy, of the other engine where there is one.
    pub(crate) async fn target() -> Self {
        match under_test().as_str() {
            "sqlite" => Self::sqlite(),
            "postgres" | "pgbouncer" => Self::postgres(None).await,
            other => panic!("PORTCULLIS_TEST_DATABASE={other}"),
        }
    }

    /// Opens it as a copy does.
    pub(crate) async fn for_copy(&self) -> Db {
        match &self.place {
            Place::Sqlite(path) => {
                let options = crate::Options { for_copy: true, ..crate::Options::default() };
                Db::open_sqlite_with(path, clock().0, random(), &options).unwrap()
            }
            Place::Postgres(url) => {
                let options = PostgresOptions { for_copy: true, ..PostgresOptions::new(url.clone()) };
                Db::open_postgres(&options, clock().0, random()).await.unwrap()
            }
        }
    }

    /// SQLite, whatever is under test.
    pub(crate) fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meta.db");
        let (clock, time) = clock();
        let db = Db::open_sqlite(&path, clock, random()).unwrap();
        Self { bench: Bench { db, time }, place: Place::Sqlite(path), _gone: Gone::Sqlite { _directory: directory } }
    }

    /// A fresh database on the server, reached there or through `by`.
    pub(crate) async fn postgres(by: Option<PostgresUrl>) -> Self {
        let (place, gone) = create_database(by).await;
        let (clock, time) = clock();
        let db = Db::open_postgres(&PostgresOptions::new(place.clone()), clock, random()).await.unwrap();
        Self { bench: Bench { db, time }, place: Place::Postgres(place), _gone: gone }
    }

    /// Opens it once more, as another process would.
    pub(crate) async fn again(&self) -> Db {
        self.try_again().await.unwrap()
    }

    pub(crate) async fn try_again(&self) -> Result<Db, crate::Error> {
        match &self.place {
            Place::Sqlite(path) => Db::open_sqlite(path, clock().0, random()),
            Place::Postgres(url) => Db::open_postgres(&PostgresOptions::new(url.clone()), clock().0, random()).await,
        }
    }
}

/// The address in this variable.
pub(crate) fn url(variable: &str) -> PostgresUrl {
    let text = std::env::var(variable).unwrap_or_else(|_| panic!("{variable} must be set for tests on PostgreSQL"));
    PostgresUrl::parse(&text).unwrap_or_else(|error| panic!("{variable}: {error}"))
}

/// A database without tables; how to reach it, and what removes it.
async fn create_database(by: Option<PostgresUrl>) -> (PostgresUrl, Gone) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let server = url("PORTCULLIS_TEST_POSTGRES");
    let name = format!("portcullis_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    crate::postgres::command(&server, &format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'"))
        .await
        .unwrap();
    (by.unwrap_or_else(|| server.clone()).with_database(&name), Gone::Postgres { server, name })
}

impl Drop for Gone {
    fn drop(&mut self) {
        let Self::Postgres { server, name } = self else { return };
        let (server, name) = (server.clone(), std::mem::take(name));
        // A runtime of its own: this one may be ending.
        let removed = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(crate::postgres::command(&server, &format!("DROP DATABASE {name} WITH (FORCE)")))
        });
        if let Ok(Err(error)) = removed.join() {
            eprintln!("a test database was left behind: {error}");
        }
    }
}
