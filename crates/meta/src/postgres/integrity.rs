//! What can be wrong with the tables themselves and is cheap to see.

use std::collections::BTreeSet;

use super::Postgres;
use crate::error::Error;
use crate::migrations::MIGRATIONS;

/// Sentences about indexes that are missing or not valid, and constraints that were not checked; empty when all is well. The
/// files are the server's matter (`pg_amcheck`, checksums), the rows that of the check of rows against store.
pub(super) async fn check(postgres: &Postgres) -> Result<Vec<String>, Error> {
    let found = postgres
        .read_single(|tx| {
            Box::pin(async move {
                tx.query(
                    "SELECT CAST(c.relname AS TEXT), i.indisvalid AND i.indisready
                     FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                     JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = current_schema()",
                    &[],
                    |row| Ok((row.get::<String>(0)?, row.get::<bool>(1)?)),
                )
                .await
            })
        })
        .await?;
    let mut problems: Vec<String> = found
        .iter()
        .filter(|(_, valid)| !valid)
        .map(|(name, _)| format!("the index {name} is not valid: REINDEX INDEX {name}"))
        .collect();
    let there: BTreeSet<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    problems.extend(expected().filter(|name| !there.contains(name)).map(|name| format!("the index {name} is missing")));
    let unchecked = postgres
        .read_single(|tx| {
            Box::pin(async move {
                tx.query(
                    "SELECT CAST(c.conname AS TEXT) FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace
                     WHERE n.nspname = current_schema() AND NOT c.convalidated",
                    &[],
                    |row| row.get::<String>(0),
                )
                .await
            })
        })
        .await?;
    problems.extend(unchecked.into_iter().map(|name| format!("the constraint {name} was never checked")));
    Ok(problems)
}

/// The indexes that the migrations make by name.
fn expected() -> impl Iterator<Item = &'static str> {
    let lines = MIGRATIONS.iter().flat_map(|migration| migration.sql.lines());
    lines.filter_map(|line| {
        let rest = line.strip_prefix("CREATE UNIQUE INDEX ").or_else(|| line.strip_prefix("CREATE INDEX "))?;
        rest.split(' ').next()
    })
}
