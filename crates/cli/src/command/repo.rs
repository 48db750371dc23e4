//! `portcullis repo`

use api::{Repository, RepositoryDetail, Route};
use clap::Subcommand;

use crate::args::Paging;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::{bytes, fields, table, time};

/// What to do with repositories.
#[derive(Debug, Subcommand)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub enum Command {
    /// List repositories
    List(Paging),
    /// Show what a repository holds
    Show {
        /// The repository
        repository: String,
    },
    /// Delete a repository with all its tags and manifests
    Delete {
        /// The repository
        repository: String,
    },
}

/// Talks to the server about repositories.
pub async fn run(context: &Context, command: Command) -> Result<Exit, Error> {
    match command {
        Command::List(paging) => list(context, &paging).await?,
        Command::Show { repository } => {
            show(context, &context.client()?.call(Route::RepositoryShow, &[&repository], &[]).await?)?;
        }
        Command::Delete { repository } => {
            let client = context.client()?;
            context.confirm(&format!("Delete repository {repository} with all its tags and manifests"))?;
            client.call::<()>(Route::RepositoryRemove, &[&repository], &[]).await?;
            context.output.note(&format!("repository {repository} deleted; its bytes go with a later collection"));
        }
    }
    Ok(Exit::Done)
}

async fn list(context: &Context, paging: &Paging) -> Result<(), Error> {
    let page: api::Page<Repository> = context.client()?.list(Route::RepositoryList, &[], &[], paging).await?;
    context.page(&page, || {
        let rows = page.items.iter().map(|r| vec![r.name.clone(), time(r.created_at), r.created_by.clone()]);
        table(&["NAME", "CREATED", "BY"], rows)
    })
}

fn show(context: &Context, repository: &RepositoryDetail) -> Result<(), Error> {
    if context.output.json() {
        return context.output.value(repository);
    }
    context.output.text(&fields(&[
        ("name", repository.name.clone()),
        ("created", time(repository.created_at)),
        ("by", repository.created_by.clone()),
        ("tags", repository.tags.to_string()),
        ("manifests", repository.manifests.to_string()),
        ("blobs", repository.blobs.to_string()),
        ("size", bytes(repository.bytes)),
    ]))
}
