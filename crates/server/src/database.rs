//! Opening the database of a data directory: of either engine, and only together with the files that belong to it.

use std::time::Duration;

use meta::{Db, Engine, Options, PostgresOptions};
use oci::{Clock, Random};
use tokio::time::Instant;

use crate::config::{Config, DatabaseUrl};
use crate::data_dir::{DataDir, names};
use crate::error::Error;
use crate::keys::needs_kek;
use crate::logs;
use crate::serve::blocking;
use crate::space::Space;

/// Between two attempts to reach a database that is away.
const PAUSE: Duration = Duration::from_millis(500);

/// Opens the database and settles that it and the data directory are of one store. One that is away is waited for at most
/// `patience`.
pub async fn open(
    config: &Config,
    data: &DataDir,
    clock: &Clock,
    random: &Random,
    patience: Duration,
) -> Result<Db, Error> {
    let db = match &config.database.url {
        DatabaseUrl::Sqlite => sqlite(config, data, clock, random).await?,
        DatabaseUrl::Postgres(url) => {
            let mut options = PostgresOptions::new(url.clone());
            options.connections = config.database.connections as usize;
            postgres(&options, clock, random, patience).await.map_err(|error| Error::database(data.root(), error))?
        }
    };
    let settled = settle(data, &db).await;
    if settled.is_err() {
        // The first error is the one that counts.
        let _ = db.clone().close().await;
    }
    settled.map(|()| db)
}

async fn sqlite(config: &Config, data: &DataDir, clock: &Clock, random: &Random) -> Result<Db, Error> {
    let (file, at) = (data.path(names::DATABASE), data.root().to_owned());
    let (clock, random, space) = (clock.clone(), random.clone(), Space::of(config));
    blocking(move || {
        let options = Options { make_room: space.hook(), ..Options::default() };
        Db::open_sqlite_with(&file, clock, random, &options).map_err(|error| Error::database(&at, error))
    })
    .await
}

async fn postgres(
    options: &PostgresOptions,
    clock: &Clock,
    random: &Random,
    patience: Duration,
) -> Result<Db, meta::Error> {
    let began = Instant::now();
    let mut told = false;
    loop {
        match Db::open_postgres(options, clock.clone(), random.clone()).await {
            Err(error @ (meta::Error::Unavailable { .. } | meta::Error::Busy)) if began.elapsed() < patience => {
                if !told {
                    let error = logs::chain(&error);
                    tracing::warn!(target: logs::ALWAYS, database = %options.url, error, "waiting for the database");
                    told = true;
                }
                tokio::time::sleep(PAUSE).await;
            }
            other => return other,
        }
    }
}

/// A database outlives its data directory: one that has a registry in it is not joined by an empty directory, where none of
/// its blobs would be.
async fn settle(data: &DataDir, db: &Db) -> Result<(), Error> {
    if db.engine() == Engine::Postgres && !data.is_settled()? && needs_kek(db).await? {
        return Err(Error::DataDir {
            what: format!(
                "the database holds the registry of store {}, and {} is not its data directory",
                db.store_id(),
                data.root().display()
            ),
            help: "name the data directory with its files (--data-dir DIR), or an empty database (database.url)"
                .to_owned(),
        });
    }
    let number = |format: i64| u64::try_from(format).unwrap_or_default();
    data.settle_format(db.store_id(), number(meta::FORMAT), number(meta::MIN_READER))
}
