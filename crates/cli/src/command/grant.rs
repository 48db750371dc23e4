//! `portcullis grant`

use api::{CreateGrant, Grant, Removed, Route};
use clap::Subcommand;

use crate::args::Paging;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::{table, time};
use crate::span::{Moment, parse_moment};

const ROLES: [&str; 3] = ["reader", "writer", "maintainer"];

const ADD_HELP: &str = "\
Roles: reader = pull, list. writer = reader + push, tag-create, tag-move. maintainer = writer + \
tag-delete, delete.

Repository patterns: `payments/api` is exactly that one; `*` is any run of characters within one \
component; `**` is one or more components, at the end only. `payments/**` does not include `payments`.

Tag patterns bind writes, and reads by tag. Who may pull can pull every manifest of the repository by \
its digest: bytes are kept apart by repositories, not by tags.

Examples:
  portcullis grant add user:alice reader 'payments/**'
  portcullis grant add robot:payments.ci push,tag-create payments/api --tags 'v*' --expires 90d
  portcullis grant add anonymous reader 'public/**' --reason \"our base images\"";

/// What to do with grants.
#[derive(Debug, Subcommand)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub enum Command {
    /// Let a subject do something with repositories
    #[command(after_help = ADD_HELP)]
    Add {
        /// user:NAME, robot:NAME or anonymous
        subject: String,
        /// A role (reader, writer, maintainer), or verbs with commas between them
        #[arg(value_name = "ROLE|VERB[,VERB…]")]
        rights: String,
        /// Which repositories, as a pattern
        pattern: String,
        /// Only for tags that match; may be repeated
        #[arg(long, value_name = "PATTERN")]
        tags: Vec<String>,
        /// When it ends: a duration or a time; by default never
        #[arg(long, value_name = "D", value_parser = parse_moment)]
        expires: Option<Moment>,
        /// Why, for those who read it later
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// List grants
    List {
        /// Only those of this subject
        #[arg(long, value_name = "SUBJECT")]
        subject: Option<String>,
        /// Which part of the list
        #[command(flatten)]
        paging: Paging,
    },
    /// Remove a grant by its id, or all grants of a subject
    #[command(after_help = "\
Examples:
  portcullis grant remove 7
  portcullis grant remove --subject user:alice")]
    Remove {
        /// The grant's id, see `portcullis grant list`
        #[arg(required_unless_present = "subject")]
        id: Option<i64>,
        /// Remove all grants of this subject
        #[arg(long, value_name = "SUBJECT", conflicts_with = "id")]
        subject: Option<String>,
    },
}

/// Talks to the server about grants.
pub async fn run(context: &Context, command: Command) -> Result<Exit, Error> {
    match command {
        Command::Add { subject, rights, pattern, tags, expires, reason } => {
            let (role, verbs) = role_or_verbs(&rights);
            let (expires_in, expires_at) = Moment::split(expires);
            let request =
                CreateGrant { subject, role, verbs, repository: pattern, tags, expires_in, expires_at, reason };
            let grant: Grant = context.client()?.send(Route::GrantCreate, &[], &request).await?;
            added(context, &grant)?;
        }
        Command::List { subject, paging } => list(context, subject, &paging).await?,
        Command::Remove { subject: Some(subject), .. } => {
            let query = [("subject", Some(subject.clone()))];
            let removed: Removed = context.client()?.call(Route::GrantRemoveBySubject, &[], &query).await?;
            context.output.note(&format!("{} grants of {subject} removed", removed.removed));
            if context.output.json() {
                context.output.value(&removed)?;
            }
        }
        Command::Remove { id, subject: None } => {
            let id = id.map(|id| id.to_string()).unwrap_or_default();
            context.client()?.call::<()>(Route::GrantRemove, &[&id], &[]).await?;
            context.output.note(&format!("grant {id} removed"));
        }
    }
    Ok(Exit::Done)
}

/// One word that is a role is a role; anything else is a list of verbs, which the server judges.
fn role_or_verbs(text: &str) -> (Option<String>, Option<Vec<String>>) {
    if ROLES.contains(&text) {
        return (Some(text.to_owned()), None);
    }
    (None, Some(text.split(',').map(|verb| verb.trim().to_owned()).collect()))
}

fn added(context: &Context, grant: &Grant) -> Result<(), Error> {
    if context.output.json() {
        return context.output.value(grant);
    }
    let note = |text: String| context.output.note(&text);
    context.output.text(&format!(
        "grant {}: {} may {} in {}\n",
        grant.id,
        grant.subject,
        grant.verbs.join(", "),
        grant.repository
    ))?;
    if let Some(parent) = grant.repository.strip_suffix("/**") {
        note(format!("note: {} does not include the repository `{parent}` itself", grant.repository));
    }
    if !grant.tags.is_empty() && grant.verbs.iter().any(|v| v == "pull") {
        note("note: tag patterns do not bind pulls by digest".to_owned());
    }
    Ok(())
}

async fn list(context: &Context, subject: Option<String>, paging: &Paging) -> Result<(), Error> {
    let filter = [("subject", subject)];
    let page: api::Page<Grant> = context.client()?.list(Route::GrantList, &[], &filter, paging).await?;
    context.page(&page, || {
        let rows = page.items.iter().map(|grant| {
            let rights = grant.role.clone().unwrap_or_else(|| grant.verbs.join(","));
            vec![
                grant.id.to_string(),
                grant.subject.clone(),
                rights,
                grant.repository.clone(),
                grant.tags.join(" "),
                grant.expires_at.map(time).unwrap_or_default(),
                grant.reason.clone().unwrap_or_default(),
            ]
        });
        table(&["ID", "SUBJECT", "RIGHTS", "REPOSITORY", "TAGS", "EXPIRES", "REASON"], rows)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_is_a_role_when_it_names_one() {
        assert_eq!(role_or_verbs("writer"), (Some("writer".to_owned()), None));
        let verbs = |list: &[&str]| (None, Some(list.iter().map(|v| (*v).to_owned()).collect()));
        assert_eq!(role_or_verbs("pull"), verbs(&["pull"]));
        assert_eq!(role_or_verbs("push, tag-create"), verbs(&["push", "tag-create"]));
    }
}
