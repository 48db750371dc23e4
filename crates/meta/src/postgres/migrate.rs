//! Brings the schema of a PostgreSQL database up to date.

use oci::Timestamp;

use super::transaction::Kind;
use super::{Postgres, PostgresOptions};
use crate::error::Error;
use crate::lock::Lock;
use crate::migrations::{MIGRATIONS, Migration, checksum_of};
use crate::tx::Tx;

/// What the comment on `schema_migration` says of a schema that is ours.
const OWNER: &str = "Portcullis";

/// The oldest server that is supported: 13.
const OLDEST: i64 = 130_000;

/// Brings the schema up to date, all or nothing. A second starter waits for the first and then finds nothing to do.
///
/// Returns the id of the store: `new_store_id` when the database is new.
pub(super) async fn migrate(
    postgres: &Postgres,
    new_store_id: &str,
    options: &PostgresOptions,
) -> Result<String, Error> {
    let (new_store_id, for_copy) = (new_store_id.to_owned(), options.for_copy);
    if options.read_only {
        return postgres.run(Kind::Snapshot, |tx| Box::pin(check_schema(tx))).await;
    }
    postgres.run(Kind::Synced, move |tx| Box::pin(async move { run(tx, &new_store_id, for_copy).await })).await
}

/// The id of the store in a database whose schema is this program's; changes nothing.
async fn check_schema(tx: &mut Tx) -> Result<String, Error> {
    let applied = applied(tx).await?;
    crate::migrations::check(&applied, MIGRATIONS)?;
    if applied.len() < MIGRATIONS.len() {
        let what =
            "its schema is older than this program: start it once in mode read-write, which brings it up to date";
        return Err(Error::db("opening the database to read it", what));
    }
    store(tx, false).await
}

async fn run(tx: &mut Tx, new_store_id: &str, for_copy: bool) -> Result<String, Error> {
    tx.lock(&Lock::Schema);
    check_server(tx).await?;
    check_owner(tx).await?;
    let applied = applied(tx).await?;
    bring(tx, &applied, MIGRATIONS, new_store_id).await?;
    store(tx, for_copy).await
}

async fn store(tx: &mut Tx, for_copy: bool) -> Result<String, Error> {
    let (store_id, filled_from) = tx
        .one("SELECT store_id, filled_from FROM store WHERE id = 1", &[], |row| {
            Ok((row.get::<String>(0)?, row.get::<Option<String>>(1)?))
        })
        .await?;
    if filled_from.is_some() && !for_copy { Err(Error::BeingFilled) } else { Ok(store_id) }
}

async fn check_server(tx: &mut Tx) -> Result<(), Error> {
    let (version, encoding, fsync, schema) = tx
        .one(
            "SELECT CAST(current_setting('server_version_num') AS BIGINT), current_setting('server_encoding'),
                    current_setting('fsync'), CAST(current_schema() AS TEXT)",
            &[],
            |row| Ok((row.get::<i64>(0)?, row.get::<String>(1)?, row.get::<String>(2)?, row.get::<Option<String>>(3)?)),
        )
        .await?;
    let refuse = |why: String| Err(Error::db("opening the database", why));
    if version < OLDEST {
        return refuse(format!("the server has version {version}, the oldest that is supported is {OLDEST}"));
    }
    if encoding != "UTF8" {
        return refuse(format!("its encoding is {encoding}: create it with ENCODING 'UTF8'"));
    }
    if schema.is_none() {
        return refuse("no schema of its search_path is there: create the schema 'public'".to_owned());
    }
    if fsync != "on" {
        tracing::warn!("the database server runs with fsync = off: a power cut destroys the database");
    }
    Ok(())
}

/// Refuses a schema that another program made, before anything is written to it.
async fn check_owner(tx: &mut Tx) -> Result<(), Error> {
    let tables = tx
        .query(
            "SELECT CAST(c.relname AS TEXT), COALESCE(obj_description(c.oid, 'pg_class'), '')
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
             AND NOT EXISTS (SELECT 1 FROM pg_depend d  -- what an extension brought is nobody's
                             WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')",
            &[],
            |row| Ok((row.get::<String>(0)?, row.get::<String>(1)?)),
        )
        .await?;
    if tables.iter().any(|(name, comment)| name == "schema_migration" && comment == OWNER) {
        return Ok(());
    }
    if let Some((name, _)) = tables.first() {
        return Err(Error::corrupt(format!("it holds a table '{name}' of another program; give us one of our own")));
    }
    batch(
        tx,
        &format!(
            "CREATE TABLE schema_migration (
                 number BIGINT PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at BIGINT NOT NULL);
             COMMENT ON TABLE schema_migration IS '{OWNER}'"
        ),
    )
    .await
}

async fn applied(tx: &mut Tx) -> Result<Vec<(i64, String, String)>, Error> {
    tx.query("SELECT number, name, checksum FROM schema_migration ORDER BY number", &[], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })
    .await
}

async fn bring(
    tx: &mut Tx,
    applied: &[(i64, String, String)],
    migrations: &[Migration],
    new_store_id: &str,
) -> Result<(), Error> {
    crate::migrations::check(applied, migrations)?;
    let now: Timestamp = tx.now();
    for migration in migrations.iter().skip(applied.len()) {
        batch(tx, migration.sql).await?;
        tx.execute(
            "INSERT INTO schema_migration (number, name, checksum, applied_at) VALUES ($1, $2, $3, $4)",
            &[migration.number.into(), migration.name.into(), (&checksum_of(migration)).into(), now.into()],
        )
        .await?;
        if migration.number == 1 {
            tx.execute(
                "INSERT INTO store (id, store_id, policy_epoch, created_at) VALUES (1, $1, 1, $2)",
                &[new_store_id.into(), now.into()],
            )
            .await?;
        }
    }
    Ok(())
}

async fn batch(tx: &mut Tx, sql: &str) -> Result<(), Error> {
    match tx {
        Tx::Postgres(tx) => tx.batch(sql).await,
        Tx::Sqlite(_) => Err(Error::NotForEngine { what: "a batch of statements" }),
    }
}
