//! The page of the clients is that of this run. Runs last; `UPDATE=1` rewrites the page.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use portcullis_tests::report;

const PAGE: &str = "docs/reference/clients.md";

#[test]
fn the_page_is_what_the_clients_did() -> Result<()> {
    let folder = std::env::var_os(report::FOLDER)
        .with_context(|| format!("{} is not set: run `cargo xtask test`", report::FOLDER))?;
    let folder = Path::new(&folder).parent().context("the rows of one file of tests have a folder of their own")?;
    let page = report::page(folder)?;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(PAGE);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &page)?;
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    let changed: Vec<&str> = page.lines().filter(|line| !found.lines().any(|known| known == *line)).collect();
    let lost: Vec<&str> = found.lines().filter(|line| !page.lines().any(|known| known == *line)).collect();
    ensure!(
        found == page,
        "{PAGE} is not what the clients did: `UPDATE=1 cargo xtask test --only client-report` rewrites it\nnew: \
         {changed:#?}\nlost: {lost:#?}"
    );
    Ok(())
}
