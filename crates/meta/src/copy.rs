//! Copies a whole database into an empty one, of either engine.
//!
//! Table by table, in the order of [`TABLES`], page by page in the order of the primary key, each page in one transaction: so the
//! last key that is there says where to go on after an interruption. Ids are kept. The target is marked (`store.filled_from`)
//! before its first row comes and no longer after all rows were compared; until then only a copy opens it.

use std::path::Path;

use oci::{Clock, Random};

use crate::db::{Db, Engine, Options};
use crate::error::Error;
use crate::tx::{Tx, TxFuture};
use crate::value::{Cell, Column, Value};

// `/* copy */` tells whoever looks at the server, and the test of plans, that these read everything by purpose.

/// So many rows in one transaction, fewer of those that may be large.
const PAGE: i64 = 2000;
const PAGE_OF_BODIES: i64 = 50;
const PAGE_BESIDE: i64 = 8;

/// How far a copy has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The table.
    pub table: &'static str,
    /// Its rows that are copied by now.
    pub rows: u64,
    /// Whether these are all.
    pub done: bool,
}

struct Table {
    name: &'static str,
    /// The primary key first.
    columns: &'static [&'static str],
    key: usize,
    /// Whether the engine gives out the key.
    identity: bool,
    page: i64,
}

const fn table(name: &'static str, columns: &'static [&'static str], key: usize) -> Table {
    Table { name, columns, key, identity: false, page: PAGE }
}

const fn identity(name: &'static str, columns: &'static [&'static str]) -> Table {
    Table { name, columns, key: 1, identity: true, page: PAGE }
}

const fn bodies(name: &'static str) -> Table {
    Table { name, columns: &["domain", "digest", "bytes"], key: 2, identity: false, page: PAGE_OF_BODIES }
}

/// Every table but `store`, those first that others refer to.
const TABLES: &[Table] = &[
    identity(
        "repository",
        &["id", "domain", "name", "created_at", "created_by", "deleted_at", "deleted_by", "emptied_at"],
    ),
    table(
        "blob",
        &["domain", "digest", "size", "storage", "location", "mtime_ns", "state", "created_at", "touched_at", "linked"],
        2,
    ),
    bodies("blob_body"),
    table(
        "link",
        &[
            "repository_id",
            "digest",
            "domain",
            "state",
            "first_seen",
            "pushed_by",
            "pushed_from",
            "touched_at",
            "referenced",
        ],
        2,
    ),
    bodies("manifest_body"),
    identity(
        "manifest",
        &[
            "id",
            "repository_id",
            "domain",
            "digest",
            "state",
            "state_at",
            "media_type",
            "size",
            "artifact_type",
            "annotations",
            "subject",
            "pushed_by",
            "pushed_from",
            "pushed_at",
        ],
    ),
    table("edge", &["repository_id", "target", "manifest_id", "kind"], 4),
    identity(
        "tag",
        &[
            "id",
            "repository_id",
            "name",
            "digest",
            "state",
            "old_digest",
            "new_digest",
            "pushed_at",
            "pushed_by",
            "pushed_from",
            "closed_at",
            "closed_by",
            "closed_from",
        ],
    ),
    table(
        "upload",
        &[
            "id",
            "repository",
            "owner",
            "received",
            "algorithm",
            "states",
            "head",
            "location",
            "created_at",
            "touched_at",
            "lease_holder",
            "lease_until",
        ],
        1,
    ),
    identity("garbage", &["id", "location", "size", "added_at"]),
    table("hold", &["id", "purpose", "created_at", "expires_at"], 1),
    identity(
        "event",
        &[
            "id",
            "occurred_at",
            "action",
            "outcome",
            "subject_id",
            "subject",
            "credential",
            "source",
            "request_id",
            "repository",
            "reference",
            "digest",
            "detail",
            "batch",
            "place",
        ],
    ),
    identity(
        "subject",
        &[
            "id",
            "name",
            "kind",
            "namespace",
            "administrator",
            "disabled",
            "password_hash",
            "epoch",
            "created_at",
            "expires_at",
            "last_login_at",
        ],
    ),
    identity("secret", &["id", "subject_id", "hash", "created_at", "expires_at"]),
    identity(
        "access_grant",
        &[
            "id",
            "subject_id",
            "role",
            "verbs",
            "repository",
            "tags",
            "expires_at",
            "reason",
            "created_by",
            "created_at",
        ],
    ),
    table("signing_key", &["id", "purpose", "wrapped", "created_at", "retired_at"], 1),
    table("idempotency", &["owner", "key", "request_hash", "status", "answer", "created_at"], 2),
];

/// A value of any column.
#[derive(Clone, Debug, PartialEq)]
enum Held {
    Null,
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
}

impl Column for Held {
    fn read(cell: Cell<'_>) -> Result<Self, Error> {
        Ok(match cell {
            Cell::Null => Self::Null,
            Cell::Int(value) => Self::Int(value),
            Cell::Text(text) => Self::Text(text.to_owned()),
            Cell::Bytes(bytes) => Self::Bytes(bytes.to_vec()),
        })
    }
}

impl<'a> From<&'a Held> for Value<'a> {
    fn from(value: &'a Held) -> Self {
        match value {
            Held::Null => Self::Null,
            Held::Int(value) => Self::Int(*value),
            Held::Text(text) => Self::Text(text),
            Held::Bytes(bytes) => Self::Bytes(bytes),
        }
    }
}

type Row = Vec<Held>;

/// Copies all rows of `from` to `to`, ids and the identity of the store included, and compares them all at the end. `to` must
/// have been opened with `for_copy`, and is marked as being filled until the end, so that no server starts on it
/// ([`Error::BeingFilled`]); a copy that was interrupted goes on where it ended. Nothing else may write to either meanwhile.
/// `progress` is called after each page. Afterwards `to` has to be opened anew.
///
/// # Errors
/// [`Error::Conflict`] when `to` holds rows that are not of an unfinished copy of `from`, or are of one from before `from` was
/// changed.
pub async fn copy(from: &Db, to: &Db, mut progress: impl FnMut(&Copied) + Send) -> Result<(), Error> {
    begin(from.store_id(), to).await?;
    for table in TABLES {
        let mut rows = count(to, table).await?;
        let mut after = last_key(to, table).await?;
        loop {
            let page = read_page(from, table, after).await?;
            let done = (page.len() as i64) < table.page;
            after = page.last().map(|row| row[..table.key].to_vec());
            rows += page.len() as u64;
            write_page(to, table, page).await?;
            progress(&Copied { table: table.name, rows, done });
            if done {
                break;
            }
        }
        if table.identity {
            continue_ids(from, to, table).await?;
        }
    }
    compare(from, to).await?;
    let identity = from.read_single(identity_of).await?;
    end(identity, to).await
}

/// Between an interruption and going on, a server may have run on the source: a row that was copied before says what was true
/// then, and its number is the same.
async fn compare(from: &Db, to: &Db) -> Result<(), Error> {
    for table in TABLES {
        let mut after = None;
        loop {
            let wanted = read_page(from, table, after.clone()).await?;
            let found = read_page(to, table, after).await?;
            if !wanted.iter().map(as_stored).eq(found.iter().map(as_stored)) {
                return Err(Error::conflict(format!("a copy of other rows in the table {}", table.name)));
            }
            if (wanted.len() as i64) < table.page {
                break;
            }
            after = wanted.last().map(|row| row[..table.key].to_vec());
        }
    }
    Ok(())
}

/// A row as either engine gives it back: PostgreSQL's texts hold no zero byte (see `postgres::types`).
fn as_stored(row: &Row) -> Row {
    let held = |held: &Held| match held {
        Held::Text(text) => Held::Text(text.replace('\0', "\u{1}")),
        other => other.clone(),
    };
    row.iter().map(held).collect()
}

/// Writes one state of `from` to a new file of SQLite, while others go on changing it. Left half full when it fails.
pub(crate) async fn to_file(from: &Db, path: &Path, clock: &Clock, random: &Random) -> Result<(), Error> {
    let (path, clock, random, source) = (path.to_owned(), clock.clone(), random.clone(), from.store_id().to_owned());
    from.read(move |tx| {
        Box::pin(async move {
            // The transaction is run again when its connection is lost, and then sees another state.
            remove_file(&path)?;
            let open = move || {
                let options = Options { for_copy: true, ..Options::default() };
                Db::open_sqlite_with(&path, clock, random, &options)
            };
            let opened = tokio::task::spawn_blocking(open).await;
            let to = opened.map_err(|error| Error::db("making the copy of the database", error))??;
            let filled = fill(tx, &source, &to).await;
            let closed = to.close().await;
            filled.and(closed)
        })
    })
    .await
}

/// The same as [`copy`] within one transaction, which sees one state throughout.
async fn fill(tx: &mut Tx, source: &str, to: &Db) -> Result<(), Error> {
    begin(source, to).await?;
    for table in TABLES {
        // Bodies are held in memory, and this runs beside everything else that a server does.
        let limit = if table.page == PAGE_OF_BODIES { PAGE_BESIDE } else { table.page };
        let mut after = None;
        loop {
            let page = page_of(tx, table, after, limit).await?;
            let done = (page.len() as i64) < limit;
            after = page.last().map(|row| row[..table.key].to_vec());
            write_page(to, table, page).await?;
            if done {
                break;
            }
        }
        if table.identity {
            let last = last_id(tx, table).await?;
            to.write(move |tx| Box::pin(async move { set_last_id(tx, table, last).await })).await?;
        }
    }
    end(identity_of(tx).await?, to).await
}

/// Removes a file of SQLite and what lies beside it.
pub(crate) fn remove_file(path: &Path) -> Result<(), Error> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::db("removing a copy of the database", error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Marks the target, which must be empty or the one of an unfinished copy of the same store.
async fn begin(source: &str, to: &Db) -> Result<(), Error> {
    let source = source.to_owned();
    to.write(move |tx| {
        Box::pin(async move {
            let filled_from =
                tx.one("SELECT filled_from FROM store WHERE id = 1", &[], |row| row.get::<Option<String>>(0)).await?;
            match filled_from {
                Some(begun) if begun == source => return Ok(()),
                Some(begun) => return Err(Error::conflict(format!("an unfinished copy of the store {begun}"))),
                None => {}
            }
            for table in TABLES {
                let sql = format!("/* copy */ SELECT 1 FROM {} LIMIT 1", table.name);
                if tx.optional(&sql, &[], |_| Ok(())).await?.is_some() {
                    return Err(Error::conflict(format!("a row in the table {} of the target", table.name)));
                }
            }
            tx.execute("UPDATE store SET filled_from = $1 WHERE id = 1", &[(&source).into()]).await.map(drop)
        })
    })
    .await
}

/// Id, epoch and birth of a store.
type Identity = (String, i64, i64);

fn identity_of(tx: &mut Tx) -> TxFuture<'_, Identity> {
    Box::pin(async move {
        tx.one("SELECT store_id, policy_epoch, created_at FROM store WHERE id = 1", &[], |row| {
            Ok((row.get::<String>(0)?, row.get::<i64>(1)?, row.get::<i64>(2)?))
        })
        .await
    })
}

/// Gives the target the identity of the source, and takes the mark away.
async fn end(store: Identity, to: &Db) -> Result<(), Error> {
    to.write(move |tx| {
        Box::pin(async move {
            tx.execute(
                "UPDATE store SET store_id = $1, policy_epoch = $2, created_at = $3, filled_from = NULL WHERE id = 1",
                &[(&store.0).into(), store.1.into(), store.2.into()],
            )
            .await
            .map(drop)
        })
    })
    .await
}

async fn count(db: &Db, table: &'static Table) -> Result<u64, Error> {
    let sql = format!("/* copy */ SELECT COUNT(*) FROM {}", table.name);
    db.read_single(move |tx| Box::pin(async move { tx.one(&sql, &[], |row| row.get(0)).await })).await
}

async fn last_key(db: &Db, table: &'static Table) -> Result<Option<Row>, Error> {
    let key = table.columns[..table.key].join(", ");
    let order = table.columns[..table.key].join(" DESC, ");
    let sql = format!("/* copy */ SELECT {key} FROM {} ORDER BY {order} DESC LIMIT 1", table.name);
    db.read_single(move |tx| Box::pin(async move { tx.optional(&sql, &[], |row| read(row, table.key)).await })).await
}

async fn read_page(db: &Db, table: &'static Table, after: Option<Row>) -> Result<Vec<Row>, Error> {
    db.read_single(move |tx| Box::pin(page_of(tx, table, after, table.page))).await
}

async fn page_of(tx: &mut Tx, table: &'static Table, after: Option<Row>, limit: i64) -> Result<Vec<Row>, Error> {
    let (columns, key) = (table.columns.join(", "), table.columns[..table.key].join(", "));
    let mut values: Vec<Value<'_>> = after.iter().flatten().map(Value::from).collect();
    let places: Vec<String> = (1..=values.len()).map(|n| format!("${n}")).collect();
    let begin = match values.len() {
        0 => String::new(),
        _ => format!("WHERE ({key}) > ({})", places.join(", ")),
    };
    values.push(limit.into());
    let sql = format!("/* copy */ SELECT {columns} FROM {} {begin} ORDER BY {key} LIMIT ${}", table.name, values.len());
    tx.query(&sql, &values, |row| read(row, table.columns.len())).await
}

fn read(row: &crate::tx::Row<'_>, columns: usize) -> Result<Row, Error> {
    (0..columns).map(|place| row.get(place)).collect()
}

async fn write_page(db: &Db, table: &'static Table, page: Vec<Row>) -> Result<(), Error> {
    if page.is_empty() {
        return Ok(());
    }
    let places: Vec<String> = (1..=table.columns.len()).map(|n| format!("${n}")).collect();
    let sql = format!("INSERT INTO {} ({}) VALUES ({})", table.name, table.columns.join(", "), places.join(", "));
    let page = std::sync::Arc::new(page);
    db.write(move |tx| {
        Box::pin(async move {
            let rows: Vec<Vec<Value<'_>>> = page.iter().map(|row| row.iter().map(Value::from).collect()).collect();
            tx.execute_each(&sql, &rows).await.map(drop)
        })
    })
    .await
}

/// Makes the target give out ids above all that the source has given out, those of rows that are gone included.
async fn continue_ids(from: &Db, to: &Db, table: &'static Table) -> Result<(), Error> {
    let last = from.read_single(move |tx| Box::pin(async move { last_id(tx, table).await })).await?;
    to.write(move |tx| Box::pin(async move { set_last_id(tx, table, last).await })).await
}

async fn last_id(tx: &mut Tx, table: &Table) -> Result<i64, Error> {
    let sql = match tx.engine() {
        Engine::Sqlite => {
            format!("/* copy */ SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence WHERE name = '{}'", table.name)
        }
        Engine::Postgres => {
            format!("/* copy */ SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {}_id_seq", table.name)
        }
    };
    tx.one(&sql, &[], |row| row.get(0)).await
}

async fn set_last_id(tx: &mut Tx, table: &Table, last: i64) -> Result<(), Error> {
    match tx.engine() {
        Engine::Sqlite => {
            let sql = format!("/* copy */ DELETE FROM sqlite_sequence WHERE name = '{}'", table.name);
            tx.execute(&sql, &[]).await?;
            let sql = format!("INSERT INTO sqlite_sequence (name, seq) VALUES ('{}', $1)", table.name);
            tx.execute(&sql, &[last.into()]).await.map(drop)
        }
        Engine::Postgres => {
            let sql = format!("/* copy */ SELECT setval('{}_id_seq', GREATEST($1, 1), $1 > 0)", table.name);
            tx.one(&sql, &[last.into()], |_| Ok(())).await
        }
    }
}

#[cfg(test)]
pub(crate) fn tables() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    TABLES.iter().map(|table| (table.name, table.columns))
}
