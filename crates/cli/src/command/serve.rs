//! `portcullis serve`

use server::config::{Environment, Flags, load};

use super::config::flags;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;

const AFTER_HELP: &str = "\
Settings come from flags, else the environment, else the file, else defaults; see `portcullis config reference`. \
Beyond loopback it wants TLS (`portcullis init` makes a certificate) and refuses to start without. SIGTERM and \
Ctrl-C let requests in flight finish; a second signal stops at once.

The first start makes the user `admin`. On a terminal it prints the password, once; elsewhere it writes it to \
`initial-password` in the data directory.

Examples:
  portcullis serve
  portcullis serve --data-dir /var/lib/portcullis --config /etc/portcullis/portcullis.toml
  portcullis serve --listen 127.0.0.1:8080 --admin-listen off --ops-listen 127.0.0.1:9100";

/// Run the registry
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Where clients connect [default: 127.0.0.1:5000]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Where the admin API listens besides its socket [default: 127.0.0.1:5001]
    #[arg(long, value_name = "ADDR:PORT|off")]
    admin_listen: Option<String>,
    /// Where health and metrics are; they are at the admin API too [default: off]
    #[arg(long, value_name = "ADDR:PORT")]
    ops_listen: Option<String>,
    /// A URL by which clients reach the registry; may be repeated
    #[arg(long, value_name = "URL")]
    public_url: Vec<String>,
}

/// Serves until a signal.
pub fn run(context: &Context, args: Args) -> Result<Exit, Error> {
    context.refuse_server("serve")?;
    let flags = Flags {
        listen: args.listen,
        admin_listen: args.admin_listen,
        ops_listen: args.ops_listen,
        public_urls: args.public_url,
        ..flags(&context.global)
    };
    server::serve::run(load(&flags, &Environment::current())?)?;
    Ok(Exit::Done)
}
