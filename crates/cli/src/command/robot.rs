//! `portcullis robot`

use api::{CreateRobot, CreatedRobot, Robot, RotateRobot, Route, UpdateRobot};
use clap::Subcommand;

use super::user::print_secret;
use crate::args::Paging;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::{fields, table, time, yes_no};
use crate::span::{Moment, parse_moment};

/// What to do with robots.
#[derive(Debug, Subcommand)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub enum Command {
    /// Add a robot; its secret is printed once, and always expires
    #[command(after_help = "\
The login name is the namespace with `/` written `.`, then `.`, then the robot's own name.

Examples:
  portcullis robot add payments ci                  # logs in as payments.ci
  portcullis robot add payments/api deploy --expires 30d --quiet | docker login -u payments.api.deploy --password-stdin localhost:5000")]
    Add {
        /// Where the robot belongs, like a repository's name without its end
        namespace: String,
        /// The robot's own name
        name: String,
        /// When it expires: a duration or a time, at most 366d ahead
        #[arg(long, value_name = "D", default_value = "90d", value_parser = parse_moment)]
        expires: Moment,
    },
    /// List robots
    List(Paging),
    /// Show a robot and its secrets' ids
    Show {
        /// The login name
        name: String,
    },
    /// Give a robot a second secret, printed once; when it has two, the older one ends
    #[command(after_help = "\
Examples:
  portcullis robot rotate payments.ci
  portcullis robot rotate payments.ci --expires 90d # and let it live longer
  portcullis robot rotate payments.ci --revoke-old  # the old secret leaked")]
    Rotate {
        /// The login name
        name: String,
        /// When robot and secret expire; by default the robot's expiry stays
        #[arg(long, value_name = "D", value_parser = parse_moment)]
        expires: Option<Moment>,
        /// End all older secrets and tokens at once
        #[arg(long)]
        revoke_old: bool,
    },
    /// Lock a robot out, with the next request
    Disable {
        /// The login name
        name: String,
    },
    /// Let a disabled robot in again
    Enable {
        /// The login name
        name: String,
    },
    /// Remove a robot and its grants
    Remove {
        /// The login name
        name: String,
    },
}

/// Talks to the server about robots.
pub async fn run(context: &Context, command: Command) -> Result<Exit, Error> {
    match command {
        Command::Add { namespace, name, expires } => {
            let (expires_in, expires_at) = Moment::split(Some(expires));
            let request = CreateRobot { namespace, name, expires_in, expires_at };
            let robot: CreatedRobot = context.client()?.send(Route::RobotCreate, &[], &request).await?;
            context.output.note(&format!("robot {} added, it expires on {}", robot.name, robot.expires_at));
            created(context, &robot)?;
            context.output.note(&format!("next: portcullis grant add robot:{} writer REPOSITORY", robot.name));
        }
        Command::List(paging) => list(context, &paging).await?,
        Command::Show { name } => show(context, &context.client()?.call(Route::RobotShow, &[&name], &[]).await?)?,
        Command::Rotate { name, expires, revoke_old } => {
            let (expires_in, expires_at) = Moment::split(expires);
            let request = RotateRobot { expires_in, expires_at, revoke_old };
            let robot: CreatedRobot = context.client()?.send(Route::RobotRotate, &[&name], &request).await?;
            context.output.note(&format!("robot {} has a new secret, it expires on {}", robot.name, robot.expires_at));
            created(context, &robot)?;
        }
        Command::Disable { name } => set_disabled(context, &name, true).await?,
        Command::Enable { name } => set_disabled(context, &name, false).await?,
        Command::Remove { name } => {
            let client = context.client()?;
            context.confirm(&format!("Remove robot {name} and all its grants"))?;
            client.call::<()>(Route::RobotRemove, &[&name], &[]).await?;
            context.output.note(&format!("robot {name} removed"));
        }
    }
    Ok(Exit::Done)
}

async fn set_disabled(context: &Context, name: &str, disabled: bool) -> Result<(), Error> {
    let robot: Robot = context.client()?.send(Route::RobotUpdate, &[name], &UpdateRobot { disabled }).await?;
    context.output.note(&format!("robot {} {}", robot.name, if robot.disabled { "disabled" } else { "enabled" }));
    if context.output.json() { context.output.value(&robot) } else { Ok(()) }
}

fn created(context: &Context, robot: &CreatedRobot) -> Result<(), Error> {
    match &robot.secret {
        _ if context.output.json() => context.output.value(robot),
        Some(secret) => print_secret(context, "secret", &robot.name, secret),
        None => Ok(()),
    }
}

async fn list(context: &Context, paging: &Paging) -> Result<(), Error> {
    let page: api::Page<Robot> = context.client()?.list(Route::RobotList, &[], &[], paging).await?;
    context.page(&page, || {
        let rows = page.items.iter().map(|robot| {
            let last = robot.last_login_at.map(time).unwrap_or_default();
            let secrets = robot.secrets.len().to_string();
            vec![robot.name.clone(), robot.namespace.clone(), secrets, time(robot.expires_at), last]
        });
        table(&["NAME", "NAMESPACE", "SECRETS", "EXPIRES", "LAST LOGIN"], rows)
    })
}

fn show(context: &Context, robot: &Robot) -> Result<(), Error> {
    if context.output.json() {
        return context.output.value(robot);
    }
    let mut text = fields(&[
        ("name", robot.name.clone()),
        ("namespace", robot.namespace.clone()),
        ("disabled", yes_no(robot.disabled)),
        ("expires", time(robot.expires_at)),
        ("created", time(robot.created_at)),
        ("last login", robot.last_login_at.map_or_else(|| "never".to_owned(), time)),
    ]);
    let rows = robot.secrets.iter().map(|s| vec![s.id.to_string(), time(s.created_at), time(s.expires_at)]);
    text.push('\n');
    text.push_str(&table(&["SECRET", "CREATED", "EXPIRES"], rows));
    context.output.text(&text)
}
