//! Moving the rows of a registry from one database to another. The blobs stay where they are.

use std::fmt;
use std::path::{Path, PathBuf};

use api::{Checked, FsckReport, Severity};
use blobs::Blobs;
use meta::{Copied, Db, EventFilter, Options, PostgresOptions, PostgresUrl};
use oci::{Clock, Random};
use registry::{Authority, Registry, fsck as checks};

use super::{private_files, with_strays};
use crate::admin::fsck_report;
use crate::clock::{system_clock, system_random};
use crate::config::{Config, DatabaseUrl, Problem};
use crate::data_dir::{self, DataDir, names};
use crate::error::Error;
use crate::serve::{blocking, registry_settings};

/// A database from or to which rows are moved. Neither `Debug` nor `Display` shows a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A file.
    Sqlite(PathBuf),
    /// A server.
    Postgres(PostgresUrl),
}

/// How far it has come.
#[derive(Clone, Debug)]
pub enum Progress<'a> {
    /// Rows are being copied.
    Copying(&'a Copied),
    /// They are being compared with the blobs.
    Checking(Checked),
}

/// What was moved.
#[derive(Clone, Debug)]
pub struct Migrated {
    /// The rows of each table.
    pub tables: Vec<(&'static str, u64)>,
    /// What the check of the new database and the blobs found.
    pub fsck: FsckReport,
    /// Where the file of the old database is now, so that no server starts on it by mistake.
    pub set_aside: Option<PathBuf>,
}

impl Location {
    /// Parses `sqlite` (the file in the data directory), `sqlite:PATH` (a file, or the data directory that holds it), or
    /// `postgres://…`.
    ///
    /// # Errors
    /// [`Error::Config`] with `name` as the place of the problem.
    pub fn parse(name: &str, text: &str, data_dir: &Path) -> Result<Self, Error> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = Path::new(path);
            return Ok(Self::Sqlite(if path.is_dir() { path.join(names::DATABASE) } else { path.to_owned() }));
        }
        match DatabaseUrl::parse(text) {
            Ok(url) => Ok(Self::of(&url, data_dir)),
            Err(message) => Err(Error::Config(vec![Problem { key: name.to_owned(), origin: String::new(), message }])),
        }
    }

    /// The database of a configuration.
    pub fn of(url: &DatabaseUrl, data_dir: &Path) -> Self {
        match url {
            DatabaseUrl::Sqlite => Self::Sqlite(data_dir.join(names::DATABASE)),
            DatabaseUrl::Postgres(url) => Self::Postgres(url.clone()),
        }
    }

    async fn open(&self, may_make: bool, clock: &Clock, random: &Random) -> Result<Db, Error> {
        let (clock, random) = (clock.clone(), random.clone());
        match self {
            Self::Sqlite(path) if !may_make && !path.exists() => Err(Error::DataDir {
                what: format!("there is no database {}", path.display()),
                help: "name the one that holds the registry with --from".to_owned(),
            }),
            Self::Sqlite(path) => {
                let (path, options) = (path.clone(), Options { for_copy: may_make, ..Options::default() });
                blocking(move || {
                    let opened = Db::open_sqlite_with(&path, clock, random, &options);
                    opened.map_err(|error| Error::Database(Box::new(error)))
                })
                .await
            }
            Self::Postgres(url) => {
                let options = PostgresOptions { for_copy: may_make, ..PostgresOptions::new(url.clone()) };
                let opened = Db::open_postgres(&options, clock, random).await;
                opened.map_err(|error| Error::Database(Box::new(error)))
            }
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => url.fmt(f),
        }
    }
}

/// Moves the rows of the registry in the configuration's data directory, which no server may use, from one database to
/// another, empty one, and checks the new one against the blobs. One that was interrupted goes on where it ended. The old
/// database is not changed; a file in the data directory is renamed at the end.
///
/// # Errors
/// [`Error::Locked`] while a server runs, [`Error::Database`] when the new database is not empty or either cannot be reached.
pub async fn migrate(
    config: &Config,
    from: &Location,
    to: &Location,
    progress: &(dyn Fn(Progress<'_>) + Send + Sync),
) -> Result<Migrated, Error> {
    private_files();
    if from == to {
        let message = "is the database that the rows come from".to_owned();
        return Err(Error::Config(vec![Problem { key: "--to".to_owned(), origin: String::new(), message }]));
    }
    let (clock, random) = (system_clock(), system_random());
    let (root, for_lock) = (config.data_dir.clone(), clock.clone());
    if !data_dir::holds_registry(&root) {
        return Err(Error::DataDir {
            what: format!("there is no registry in {}", root.display()),
            help: "name its data directory with --data-dir DIR".to_owned(),
        });
    }
    let data = blocking(move || DataDir::open_existing(&root, &for_lock)).await?;
    let source = from.open(false, &clock, &random).await?;
    // Rows of another registry would name none of the blobs.
    data.belongs_to(source.store_id())?;
    let tables = {
        let target = to.open(true, &clock, &random).await?;
        let tables = match is_copy(&source, &target).await {
            // The one before was stopped when it had only to be checked.
            Ok(true) => Ok(Vec::new()),
            Ok(false) => copy(&source, &target, progress).await,
            Err(error) => Err(error),
        };
        close(target, data.root()).await.and(tables)
    };
    close(source, data.root()).await?;
    let tables = tables?;
    // As a server opens it: it knows whose it is now.
    let target = to.open(false, &clock, &random).await?;
    let fsck = check(config, &data, &target, (&clock, &random), progress).await;
    close(target, data.root()).await?;
    let fsck = fsck?;
    let sound = fsck.findings.iter().all(|finding| finding.severity == Severity::Note);
    let set_aside = match from {
        Location::Sqlite(path) if sound && *path == data.path(names::DATABASE) => Some(set_aside(path)?),
        _ => None,
    };
    Ok(Migrated { tables, fsck, set_aside })
}

/// Moves the rows of a restored backup, which are in a file, to the database of the configuration, which has to be empty.
pub(super) async fn restored(config: &Config, data: &DataDir, clock: &Clock, random: &Random) -> Result<(), Error> {
    let file = data.path(names::DATABASE);
    let (from, to) = (Location::Sqlite(file.clone()), Location::of(&config.database.url, data.root()));
    // Not one that another copy has begun to fill: it may have been of another backup of this store.
    close(to.open(false, clock, random).await?, data.root()).await?;
    let source = from.open(false, clock, random).await?;
    let copied = match to.open(true, clock, random).await {
        Ok(target) => {
            let copied = copy(&source, &target, &|_| {}).await;
            close(target, data.root()).await.and(copied)
        }
        Err(error) => Err(error),
    };
    close(source, data.root()).await?;
    copied?;
    for suffix in ["", "-wal", "-shm"] {
        data_dir::remove(&data.path(&format!("{}{suffix}", names::DATABASE)))?;
    }
    data_dir::sync_dir(data.root())
}

async fn close(db: Db, root: &Path) -> Result<(), Error> {
    db.close().await.map_err(|error| Error::database(root, error))
}

/// Whether the target is a finished copy of the source to the last event. Each start of a server writes one, so a copy on
/// either side of which something was done later is none.
async fn is_copy(source: &Db, target: &Db) -> Result<bool, Error> {
    if source.store_id() != target.store_id() {
        return Ok(false);
    }
    let last = async |db: &Db| {
        let events = db.events_before(&EventFilter::default(), None, 1).await;
        events.map_err(|error| Error::Database(Box::new(error)))
    };
    Ok(last(source).await? == last(target).await?)
}

async fn copy(
    source: &Db,
    target: &Db,
    progress: &(dyn Fn(Progress<'_>) + Send + Sync),
) -> Result<Vec<(&'static str, u64)>, Error> {
    let mut tables: Vec<(&'static str, u64)> = Vec::new();
    let copied = meta::copy(source, target, |copied: &Copied| {
        progress(Progress::Copying(copied));
        match tables.last_mut() {
            Some((table, rows)) if *table == copied.table => *rows = copied.rows,
            _ => tables.push((copied.table, copied.rows)),
        }
    })
    .await;
    copied.map(|()| tables).map_err(|error| match error {
        meta::Error::Conflict { .. } => Error::DataDir {
            what: "the database that the rows would go to holds others already".to_owned(),
            help: "name an empty one with --to".to_owned(),
        },
        other => Error::Database(Box::new(other)),
    })
}

async fn check(
    config: &Config,
    data: &DataDir,
    target: &Db,
    (clock, random): (&Clock, &Random),
    progress: &(dyn Fn(Progress<'_>) + Send + Sync),
) -> Result<FsckReport, Error> {
    let folder = data.make_dir(names::BLOBS)?;
    let store =
        blocking(move || Blobs::open_fs(&folder).map_err(|error| Error::operation("opening the store", error))).await?;
    let registry = Registry::new(target.clone(), store, registry_settings(config), clock.clone(), random.clone());
    let tell = |so_far: &checks::Checked| {
        let (blobs, manifests, tags, links) = (so_far.blobs, so_far.manifests, so_far.tags, so_far.links);
        progress(Progress::Checking(Checked { blobs, manifests, tags, links }));
    };
    let report = checks::check(&registry, Authority::DataDirectory, &tell).await;
    let report = report.map_err(|error| Error::operation("the check", error))?;
    Ok(with_strays(fsck_report(report), data.root()))
}

/// Renames the file of a closed database; what belongs to it went into it when it was closed.
fn set_aside(path: &Path) -> Result<PathBuf, Error> {
    let aside = free_name(path)?;
    std::fs::rename(path, &aside).map_err(|source| Error::io("rename", path, source))?;
    for suffix in ["-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        data_dir::remove(Path::new(&name))?;
    }
    if let Some(folder) = path.parent() {
        data_dir::sync_dir(folder)?;
    }
    Ok(aside)
}

/// A name beside the file that is not taken: what an earlier migration has set aside stays.
fn free_name(path: &Path) -> Result<PathBuf, Error> {
    let mut number = 1;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(if number == 1 { "-migrated".to_owned() } else { format!("-migrated-{number}") });
        let name = PathBuf::from(name);
        if !name.try_exists().map_err(|source| Error::io("look at", &name, source))? {
            return Ok(name);
        }
        number += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_aside_stays() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("meta.db");
        for (content, name) in [("one", "meta.db-migrated"), ("two", "meta.db-migrated-2")] {
            std::fs::write(&database, content).unwrap();
            assert_eq!(set_aside(&database).unwrap(), dir.path().join(name));
        }
        assert_eq!(std::fs::read_to_string(dir.path().join("meta.db-migrated")).unwrap(), "one");
    }

    #[test]
    fn places_of_rows() {
        let dir = tempfile::tempdir().unwrap();
        let parse = |text: &str| Location::parse("--from", text, Path::new("/data"));
        assert_eq!(parse("sqlite").unwrap(), Location::Sqlite("/data/meta.db".into()));
        assert_eq!(parse("sqlite:/x/y.db").unwrap(), Location::Sqlite("/x/y.db".into()));
        let folder = format!("sqlite:{}", dir.path().display());
        assert_eq!(parse(&folder).unwrap(), Location::Sqlite(dir.path().join("meta.db")));
        let url = parse("postgres://u:canary@localhost/d").unwrap();
        assert!(!format!("{url} {url:?}").contains("canary"));
        let error = parse("postgres://u:canary@localhost").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("--from") && !error.to_string().contains("canary"), "{error}");
    }
}
