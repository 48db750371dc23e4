//! Opening the database of a data directory: of either engine, and only together with the files that belong to it.

use std::sync::Arc;
use std::time::Duration;

use meta::{Db, Engine, Options, PostgresOptions, Server, TakeStore};
use oci::{Clock, Random, Timestamp};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::{Config, DatabaseUrl};
use crate::data_dir::{DataDir, names};
use crate::error::Error;
use crate::keys::needs_kek;
use crate::logs;
use crate::serve::blocking;
use crate::space::Space;
use crate::tasks::{Run, Task};

/// Between two attempts to reach a database that is away.
const PAUSE: Duration = Duration::from_millis(500);
/// For so long the store is this server's after the last sign of life.
const LEASE: Duration = Duration::from_secs(30);
/// How often that sign is given.
const RENEWAL: Duration = Duration::from_secs(5);

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
            options.read_only = config.is_read_only();
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
    let (timeout, read_only) = (config.storage.timeout, config.is_read_only());
    blocking(move || {
        let options = Options { make_room: space.hook(), timeout, read_only, ..Options::default() };
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

/// The right of this server to the store, where the database could be another one's too.
#[derive(Clone, Debug)]
pub struct Lease {
    db: Db,
    session: String,
    lost: Arc<watch::Sender<bool>>,
}

impl Lease {
    /// Takes the store of a database that several servers can reach; `None` where the data directory's lock is enough. One
    /// whose server gives no sign of life any more is waited for.
    ///
    /// # Errors
    /// [`Error::Served`] when another server is alive, [`Error::Database`].
    pub async fn take(db: &Db, data: &DataDir, random: &Random) -> Result<Option<Self>, Error> {
        if db.engine() == Engine::Sqlite {
            return Ok(None);
        }
        let failed = |error| Error::database(data.root(), error);
        let mut bytes = [0; 16];
        random(&mut bytes);
        let session: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let server = Server { holder: data.identity()?, session: session.clone(), label: DataDir::label() };
        let mut seen: Option<(Timestamp, Instant)> = None;
        loop {
            // By this machine's clock alone: another's may be ahead.
            let gone = seen.filter(|(_, since)| since.elapsed() >= LEASE).map(|(until, _)| until);
            match db.take_store(&server, LEASE, gone).await {
                Ok(TakeStore::Taken) => break,
                // The last changes of the server before this one are under way still.
                Err(meta::Error::Busy) => {}
                Err(error) => return Err(failed(error)),
                Ok(TakeStore::Held { label, until }) if seen.is_some_and(|(before, _)| before != until) => {
                    return Err(Error::Served { holder: label });
                }
                Ok(TakeStore::Held { label, until }) => {
                    if seen.is_none() {
                        tracing::warn!(
                            target: logs::ALWAYS, server = label,
                            "another server has the store: waiting for a sign of life"
                        );
                    }
                    seen = Some((until, seen.map_or_else(Instant::now, |(_, since)| since)));
                }
            }
            tokio::time::sleep(RENEWAL / 5).await;
        }
        db.fence(&session);
        Ok(Some(Self { db: db.clone(), session, lost: Arc::new(watch::Sender::new(false)) }))
    }

    /// The task that gives the sign of life.
    pub fn task(&self) -> Task {
        let lease = self.clone();
        let run = move || -> Run {
            let lease = lease.clone();
            Box::pin(async move {
                if !lease.db.keep_store(&lease.session, LEASE).await? {
                    lease.lost.send_replace(true);
                    return Err("another server has taken the store".into());
                }
                Ok("kept".to_owned())
            })
        };
        Task { name: "lease of the store", interval: RENEWAL, run: Box::new(run) }
    }

    /// Returns when another server has taken the store.
    pub async fn lost(&self) {
        // The sender lives as long as this.
        let _ = self.lost.subscribe().wait_for(|lost| *lost).await;
    }

    /// Gives the store back, so that nobody has to wait for it.
    pub async fn leave(&self) {
        if let Err(error) = self.db.leave_store(&self.session).await {
            tracing::warn!(
                error = logs::chain(&error),
                "the store could not be given back; it is free in half a minute"
            );
        }
    }
}
