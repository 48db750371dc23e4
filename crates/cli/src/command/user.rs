//! `portcullis user`

use api::{ChangePassword, ChangedPassword, CreateUser, CreatedUser, Route, UpdateUser, User};
use clap::Subcommand;

use crate::args::Paging;
use crate::context::{Context, password_from_stdin};
use crate::error::Error;
use crate::exit::Exit;
use crate::output::{fields, table, time, yes_no};

/// What to do with users.
#[derive(Debug, Subcommand)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub enum Command {
    /// Add a user; without --password-stdin a password is generated and printed once
    #[command(after_help = "\
Examples:
  portcullis user add alice
  portcullis user add bob --admin --password-stdin < password-file")]
    Add {
        /// The login name: lower-case letters, digits, `.`, `_`, `-`
        name: String,
        /// Let the user administrate this registry (gives no right to pull or push)
        #[arg(long)]
        admin: bool,
        /// Read the password from standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// List users
    List(Paging),
    /// Show a user
    Show {
        /// The login name
        name: String,
    },
    /// Set a user's password; the old one and every login with it end at once
    #[command(after_help = "\
Examples:
  portcullis user passwd alice                      # generate a password and print it once
  portcullis user passwd alice --password-stdin < password-file")]
    Passwd {
        /// The login name
        name: String,
        /// Read the password from standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// Lock a user out, with the next request
    Disable {
        /// The login name
        name: String,
    },
    /// Let a disabled user in again
    Enable {
        /// The login name
        name: String,
    },
    /// Remove a user and the user's grants
    Remove {
        /// The login name
        name: String,
    },
}

/// Talks to the server about users.
pub async fn run(context: &Context, command: Command) -> Result<Exit, Error> {
    match command {
        Command::Add { name, admin, password_stdin } => add(context, name, admin, password_stdin).await?,
        Command::List(paging) => list(context, &paging).await?,
        Command::Show { name } => show(context, &context.client()?.call(Route::UserShow, &[&name], &[]).await?)?,
        Command::Passwd { name, password_stdin } => passwd(context, &name, password_stdin).await?,
        Command::Disable { name } => set_disabled(context, &name, true).await?,
        Command::Enable { name } => set_disabled(context, &name, false).await?,
        Command::Remove { name } => {
            let client = context.client()?;
            context.confirm(&format!("Remove user {name} and all grants of that user"))?;
            client.call::<()>(Route::UserRemove, &[&name], &[]).await?;
            context.output.note(&format!("user {name} removed"));
        }
    }
    Ok(Exit::Done)
}

async fn add(context: &Context, name: String, administrator: bool, password_stdin: bool) -> Result<(), Error> {
    let client = context.client()?;
    let password = typed_password(password_stdin)?;
    let created: CreatedUser =
        client.send(Route::UserCreate, &[], &CreateUser { name, administrator, password }).await?;
    let name = &created.user.name;
    context.output.note(&format!("user {name} added"));
    if context.output.json() {
        context.output.value(&created)?;
    } else if let Some(password) = &created.password {
        print_secret(context, "password", name, password)?;
    }
    if !administrator {
        context.output.note(&format!("next: portcullis grant add user:{name} reader 'REPOSITORY'"));
    }
    Ok(())
}

async fn list(context: &Context, paging: &Paging) -> Result<(), Error> {
    let page: api::Page<User> = context.client()?.list(Route::UserList, &[], &[], paging).await?;
    context.page(&page, || {
        let rows = page.items.iter().map(|user| {
            let state = if user.disabled { "disabled" } else { "active" };
            let last = user.last_login_at.map(time).unwrap_or_default();
            vec![user.name.clone(), yes_no(user.administrator), state.to_owned(), time(user.created_at), last]
        });
        table(&["NAME", "ADMINISTRATOR", "STATE", "CREATED", "LAST LOGIN"], rows)
    })
}

fn show(context: &Context, user: &User) -> Result<(), Error> {
    if context.output.json() {
        return context.output.value(user);
    }
    context.output.text(&fields(&[
        ("name", user.name.clone()),
        ("administrator", yes_no(user.administrator)),
        ("disabled", yes_no(user.disabled)),
        ("created", time(user.created_at)),
        ("last login", user.last_login_at.map_or_else(|| "never".to_owned(), time)),
    ]))
}

async fn passwd(context: &Context, name: &str, password_stdin: bool) -> Result<(), Error> {
    let client = context.client()?;
    let password = typed_password(password_stdin)?;
    let changed: ChangedPassword = client.send(Route::UserPassword, &[name], &ChangePassword { password }).await?;
    context.output.note(&format!("password of {} changed", changed.name));
    if context.output.json() {
        context.output.value(&changed)?;
    } else if let Some(password) = &changed.password {
        print_secret(context, "password", &changed.name, password)?;
    }
    Ok(())
}

async fn set_disabled(context: &Context, name: &str, disabled: bool) -> Result<(), Error> {
    let change = UpdateUser { disabled: Some(disabled), ..UpdateUser::default() };
    let user: User = context.client()?.send(Route::UserUpdate, &[name], &change).await?;
    context.output.note(&format!("user {} {}", user.name, if user.disabled { "disabled" } else { "enabled" }));
    if context.output.json() { context.output.value(&user) } else { Ok(()) }
}

fn typed_password(stdin: bool) -> Result<Option<String>, Error> {
    if stdin { password_from_stdin().map(Some) } else { Ok(None) }
}

/// The one time that a secret is shown; with `--quiet` nothing but the secret.
pub fn print_secret(context: &Context, kind: &str, name: &str, secret: &str) -> Result<(), Error> {
    if context.output.quiet() {
        return context.output.text(&format!("{secret}\n"));
    }
    context.output.text(&format!("{kind} for {name}: {secret}\n"))?;
    context.output.note(&format!("write it down: this {kind} is not shown again"));
    Ok(())
}
