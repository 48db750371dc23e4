//! What every request is handled with, and what the listener says about a request.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use oci::Clock;
use policy::Rules;
use registry::Registry;

use crate::auth::Auth;
use crate::config::Config;
use crate::metrics::Metrics;

/// What the handlers of all listeners share.
#[derive(Clone)]
pub struct AppState {
    /// The operations.
    pub registry: Registry,
    /// Who is calling.
    pub auth: Auth,
    /// Who may do what.
    pub rules: RulesHandle,
    /// The settings; `server.listen` is the bound address.
    pub config: Arc<Config>,
    /// Counters.
    pub metrics: Metrics,
    /// The time of day.
    pub clock: Clock,
}

/// Where a request came in; the listener puts it into the extensions of each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The other end; `None` on the socket.
    pub addr: Option<SocketAddr>,
    /// Whether it came by TLS.
    pub tls: bool,
    /// The listener.
    pub listener: Listener,
}

/// The listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Listener {
    /// `/v2` and the token service.
    Main,
    /// The admin API over TCP.
    Admin,
    /// Health and metrics.
    Ops,
    /// The admin API over the socket in the data directory.
    Socket,
}

/// The id of a request, which its answer, its log lines and its events carry; in the extensions of each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub String);
