//! `portcullis tag`

use api::{Route, Tag};
use clap::Subcommand;

use crate::args::Paging;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::{bytes, table, time};

/// What to do with tags.
#[derive(Debug, Subcommand)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub enum Command {
    /// List the tags of a repository
    List {
        /// The repository
        repository: String,
        /// Which part of the list
        #[command(flatten)]
        paging: Paging,
    },
    /// Delete a tag; the manifest stays
    Delete {
        /// The repository
        repository: String,
        /// The tag
        tag: String,
    },
}

/// Talks to the server about tags.
pub async fn run(context: &Context, command: Command) -> Result<Exit, Error> {
    match command {
        Command::List { repository, paging } => list(context, &repository, &paging).await?,
        Command::Delete { repository, tag } => {
            let client = context.client()?;
            context.confirm(&format!("Delete tag {tag} of {repository}"))?;
            client.call::<()>(Route::TagRemove, &[&repository, &tag], &[]).await?;
            context.output.note(&format!("tag {tag} of {repository} deleted"));
        }
    }
    Ok(Exit::Done)
}

async fn list(context: &Context, repository: &str, paging: &Paging) -> Result<(), Error> {
    let page: api::Page<Tag> = context.client()?.list(Route::TagList, &[repository], &[], paging).await?;
    context.page(&page, || {
        let rows = page.items.iter().map(|tag| {
            vec![tag.name.clone(), tag.digest.clone(), bytes(tag.size), time(tag.pushed_at), tag.pushed_by.clone()]
        });
        table(&["NAME", "DIGEST", "SIZE", "PUSHED", "BY"], rows)
    })
}
