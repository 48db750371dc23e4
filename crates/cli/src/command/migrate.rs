//! `portcullis migrate`

use std::path::{Path, PathBuf};

use serde_json::json;
use server::config::{Config, Environment, load};
use server::offline::{Location, Migrated, Progress as Step};

use super::config::flags;
use super::fsck::{findings, state_of};
use crate::client::job::checked;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::fields;
use crate::progress::Progress;

/// The longest file with an address in it.
const FILE_LIMIT: u64 = 64 << 10;

const AFTER_HELP: &str = "\
Moves the rows between SQLite and PostgreSQL, in either direction; blobs stay in the data directory. The server has to \
be stopped, and the new database empty. What was interrupted goes on where it ended when it is run again. At the end \
rows and blobs are compared as by `portcullis fsck`. The old database stays as it is; `meta.db` is renamed to \
`meta.db-migrated`.

URL is `sqlite` (the file in the data directory), `sqlite:PATH`, or `postgres://USER@HOST/DATABASE`. One with a password \
does not belong on a command line: give it by --from-file or --to-file, or as the setting `database.url`, which stands for \
the side that is not named.

Examples:
  portcullis migrate --to-file /etc/portcullis/database-url
  portcullis migrate --from-file /etc/portcullis/database-url --to sqlite";

/// Move the rows from one database to another
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
#[group(required = true, multiple = true)]
pub struct Args {
    /// Where the rows are
    #[arg(long, value_name = "URL", conflicts_with = "from_file")]
    from: Option<String>,
    /// A file with that
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// Where they go
    #[arg(long, value_name = "URL", conflicts_with = "to_file")]
    to: Option<String>,
    /// A file with that
    #[arg(long, value_name = "FILE")]
    to_file: Option<PathBuf>,
}

/// Copies, checks, and tells what to do next.
pub async fn run(context: &Context, args: Args) -> Result<Exit, Error> {
    context.refuse_server("migrate")?;
    let config = load(&flags(&context.global), &Environment::current())?;
    let from = side(&config, "--from", args.from, args.from_file.as_deref())?;
    let to = side(&config, "--to", args.to, args.to_file.as_deref())?;
    let progress = Progress::start(&context.output, "copying");
    let shown = progress.clone();
    let done = server::offline::migrate(&config, &from, &to, &move |step| match step {
        Step::Copying(copied) => shown.set(format!("{} rows of {}", copied.rows, copied.table)),
        Step::Checking(so_far) => shown.set(checked(&so_far)),
    })
    .await;
    progress.finish();
    let done = done?;
    show(context, &from, &to, &done)?;
    if let Some(path) = &done.set_aside {
        context.output.note(&format!("the old database is now {}", path.display()));
    }
    context.output.note(&format!("next: set database.url to {to}, and start the server"));
    Ok(state_of(&done.fsck.findings))
}

/// A side as it was given; the configured database when it was not.
fn side(config: &Config, name: &str, url: Option<String>, file: Option<&Path>) -> Result<Location, Error> {
    let text = match (url, file) {
        (Some(url), _) => {
            let location = Location::parse(name, &url, &config.data_dir)?;
            return match &location {
                Location::Postgres(url) if url.has_password() => Err(Error::usage(
                    format!("the password in {name} can be read by everybody on this machine"),
                    format!("write the URL into a file of mode 0600 and name it with {name}-file"),
                )),
                _ => Ok(location),
            };
        }
        (None, Some(file)) => read(file)?,
        (None, None) => return Ok(Location::of(&config.database.url, &config.data_dir)),
    };
    Ok(Location::parse(&format!("{name}-file"), text.trim(), &config.data_dir)?)
}

fn read(path: &Path) -> Result<String, Error> {
    use std::io::Read as _;
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_LIMIT + 1).read_to_string(&mut text));
    match read {
        Ok(length) if length as u64 > FILE_LIMIT => {
            Err(Error::io("read", path, std::io::Error::other("it is longer than 64 KiB, so it holds no URL")))
        }
        Ok(_) => Ok(text),
        Err(error) => Err(Error::io("read", path, error)),
    }
}

fn show(context: &Context, from: &Location, to: &Location, done: &Migrated) -> Result<(), Error> {
    let rows: u64 = done.tables.iter().map(|(_, rows)| rows).sum();
    if context.output.json() {
        let tables: serde_json::Map<_, _> =
            done.tables.iter().map(|(table, rows)| ((*table).to_owned(), json!(rows))).collect();
        return context.output.value(&json!({
            "from": from.to_string(), "to": to.to_string(), "rows": rows, "tables": tables, "fsck": done.fsck,
        }));
    }
    let mut text = findings(&done.fsck.findings);
    text.push_str(&fields(&[
        ("from", from.to_string()),
        ("to", to.to_string()),
        ("rows", rows.to_string()),
        ("blobs checked", done.fsck.checked.blobs.to_string()),
        ("findings", (done.fsck.findings.len() as u64 + done.fsck.omitted).to_string()),
    ]));
    context.output.text(&text)
}
