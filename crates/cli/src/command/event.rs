//! `portcullis event`

use std::time::Duration;

use api::{Event, Order, Page, Route, ServerInfo, Time};
use clap::Subcommand;

use crate::args::Paging;
use crate::client::Client;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::{printable, table, time};
use crate::span::{Moment, parse_moment};

/// How often `--follow` asks.
const PAUSE: Duration = Duration::from_secs(1);

/// What to do with the audit trail.
#[derive(Debug, Subcommand)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub enum Command {
    /// List events, the newest first; with --follow the oldest first, and then what happens
    #[command(after_help = "\
Examples:
  portcullis event list --since 24h --subject user:alice
  portcullis event list --repository payments/api --action tag.move
  portcullis event list --follow --json             # one JSON object a line")]
    List(Args),
}

/// Which events.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Not before this: a duration or a time
    #[arg(long, value_name = "D", value_parser = parse_moment)]
    since: Option<Moment>,
    /// Only of this subject: user:NAME, robot:NAME, anonymous, socket, system
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// Only of this action, such as tag.move
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// Only in this repository
    #[arg(long, value_name = "REPOSITORY")]
    repository: Option<String>,
    /// Wait for more and print them as they come; without --since only what happens from now on
    #[arg(long, conflicts_with_all = ["limit", "cursor", "all"])]
    follow: bool,
    /// Which part of the list
    #[command(flatten)]
    paging: Paging,
}

/// Talks to the server about events.
pub async fn run(context: &Context, command: Command) -> Result<Exit, Error> {
    let Command::List(args) = command;
    let client = context.client()?;
    let since = match (args.since, args.follow) {
        (Some(Moment::At(time)), _) => Some(time),
        (Some(Moment::Distance(lifetime)), _) => Some(Time(server_time(&client).await?.0.minus(lifetime.0))),
        (None, true) => Some(server_time(&client).await?),
        (None, false) => None,
    };
    let filter = [
        ("since", since.map(|t| t.to_string())),
        ("subject", args.subject),
        ("action", args.action),
        ("repository", args.repository),
    ];
    if args.follow {
        return follow(context, &client, &filter).await;
    }
    let page: Page<Event> = client.list(Route::EventList, &[], &filter, &args.paging).await?;
    context.page(&page, || {
        let header = ["TIME", "ACTION", "OUTCOME", "SUBJECT", "REPOSITORY", "REFERENCE", "DIGEST", "SOURCE"];
        table(&header, page.items.iter().map(row))
    })?;
    Ok(Exit::Done)
}

/// Distances are taken from the server's clock: this machine's may be another.
async fn server_time(client: &Client) -> Result<Time, Error> {
    client.call::<ServerInfo>(Route::ServerShow, &[], &[]).await.map(|server| server.time)
}

/// Until the reader of standard output goes away, or a signal ends the process.
async fn follow(context: &Context, client: &Client, filter: &[(&str, Option<String>)]) -> Result<Exit, Error> {
    let mut cursor: Option<String> = None;
    let order = serde_json::to_value(Order::Oldest).ok().and_then(|v| v.as_str().map(str::to_owned));
    loop {
        let mut query = vec![("order", order.clone()), ("cursor", cursor.clone())];
        query.push(("limit", Some(Page::<Event>::MAX.to_string())));
        query.extend_from_slice(filter);
        let page: Page<Event> = client.call(Route::EventList, &[], &query).await?;
        for event in &page.items {
            let line = if context.output.json() {
                serde_json::to_string(event)
                    .map_err(|e| Error::Stream { action: "render JSON", source: std::io::Error::other(e) })?
            } else {
                printable(row(event).join("  ").trim_end())
            };
            context.output.text(&format!("{line}\n"))?;
        }
        cursor = page.next.or(cursor);
        if page.items.is_empty() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn row(event: &Event) -> Vec<String> {
    let digest = event.digest.as_deref().unwrap_or_default();
    vec![
        time(event.time),
        event.action.clone(),
        event.outcome.clone(),
        event.subject.clone(),
        event.repository.clone().unwrap_or_default(),
        event.reference.clone().unwrap_or_default(),
        // Enough to tell digests apart; --json has all of it.
        digest.chars().take(19).collect(),
        event.source.clone(),
    ]
}
