//! Connections: accept, deadlines, limits, TLS, and what is done around every request.
//!
//! ```text
//! accept -> table (is there room?) -> TLS, version -> socket (counts, judges heads) -> hyper -> request -> router
//!                                        ^ activity: who waits for whom; looked at by the connection's own task
//! ```

mod activity;
mod connection;
pub(crate) mod framing;
mod request;
mod socket;
mod table;
mod tls;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use oci::Random;
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::watch;

pub use request::current_request_id;
pub use tls::Tls;

use crate::config::{Config, ServerConfig};
use crate::error::Error;
use crate::metrics::{Closed, Metrics};
use crate::state::Listener;
use connection::Service;
use request::Refusals;
use socket::Transport;
use table::{Admission, Place, Table};

/// Connections of the listeners that are not for clients: few, and apart from theirs, so that a flood of clients does not
/// lock out who wants to see what is going on.
const SIDE_CONNECTIONS: u32 = 256;
/// Connections that wait to be accepted; the kernel may allow fewer (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;
/// For so long it is not told again that connections cannot be accepted.
const QUIET: Duration = Duration::from_secs(60);
/// A path of a socket must fit into the address (Linux: 108 bytes with the final zero).
const SOCKET_PATH: usize = 107;

/// How far the end of the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Run,
    /// No new connections; requests in flight go on.
    Drain,
    /// Bodies end, handlers keep what they have.
    Cut,
}

/// A listener that is bound and not yet served.
#[derive(Debug)]
pub struct Bound {
    listener: Listener,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener),
}

impl Bound {
    /// Binds an address; `key` is the setting that names it.
    ///
    /// # Errors
    /// [`Error::Listen`].
    pub fn tcp(listener: Listener, key: &'static str, address: SocketAddr) -> Result<Self, Error> {
        let wrong = |source| Error::Listen { address, key, source };
        let socket = listen_on(address).map_err(wrong)?;
        let bound = socket.local_addr().map_err(wrong)?;
        Ok(Self { listener, kind: Kind::Tcp(socket, bound) })
    }

    /// Makes the socket for the commands of the owner of the data directory. What is left of an earlier one is removed: the
    /// caller holds the lock of the directory.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::DataDir`] when the path is too long for a socket.
    pub fn unix(path: &Path) -> Result<Self, Error> {
        if path.as_os_str().len() > SOCKET_PATH {
            return Err(Error::DataDir {
                what: format!("the path {} is too long for a socket ({SOCKET_PATH} bytes)", path.display()),
                help: "choose a data directory with a shorter path: --data-dir DIR".to_owned(),
            });
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io("remove", path, error)),
            _ => {}
        }
        let socket = UnixListener::bind(path).map_err(|source| Error::io("make the socket", path, source))?;
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path, mode).map_err(|source| Error::io("set the mode of", path, source))?;
        Ok(Self { listener: Listener::Socket, kind: Kind::Unix(socket) })
    }

    /// Which listener this is.
    pub fn listener(&self) -> Listener {
        self.listener
    }

    /// The bound address; `None` of the socket.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.kind {
            Kind::Tcp(_, address) => Some(*address),
            Kind::Unix(_) => None,
        }
    }
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A server that is started again finds its port, although connections of the last one are still fading away.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A listener that is being served.
#[derive(Debug)]
pub struct Serving {
    /// `None` once it has ended.
    accepting: Option<tokio::task::JoinHandle<()>>,
    table: Table,
    listener: Listener,
}

impl Serving {
    /// Waits until nothing is accepted any more and every connection has ended. May be given up and called again.
    pub async fn ended(&mut self) {
        if let Some(accepting) = &mut self.accepting {
            // A loop that panicked accepts nothing either.
            let _ = accepting.await;
            self.accepting = None;
        }
        self.table.all_ended().await;
    }

    /// Open connections.
    pub fn connections(&self) -> usize {
        self.table.count()
    }

    /// Which listener this is.
    pub fn listener(&self) -> Listener {
        self.listener
    }
}

/// What every listener needs.
#[derive(Clone)]
pub struct Context {
    /// Settings.
    pub config: Arc<Config>,
    /// The certificate, if TLS is configured.
    pub tls: Option<Arc<Tls>>,
    /// Counters.
    pub metrics: Metrics,
    /// For request ids.
    pub random: Random,
}

/// Serves a bound listener with this router until the phase changes.
pub fn serve(bound: Bound, router: Router, context: &Context, phase: watch::Receiver<Phase>) -> Serving {
    let listener = bound.listener;
    let limits = &context.config.limits;
    let table = match listener {
        Listener::Main => Table::new(limits.connections, limits.connections_per_source),
        Listener::Admin | Listener::Ops | Listener::Socket => Table::new(SIDE_CONNECTIONS, SIDE_CONNECTIONS),
    };
    // Beside the main listener, what only this machine can reach needs no TLS.
    let is_loopback = bound.address().is_none_or(|address| address.ip().to_canonical().is_loopback());
    let tls = context.tls.clone().filter(|_| listener == Listener::Main || !is_loopback);
    let service = Arc::new(Service {
        router,
        listener,
        limits: limits.clone(),
        server: context.config.server.clone(),
        tls,
        table: table.clone(),
        metrics: context.metrics.clone(),
        random: context.random.clone(),
        refusals: Refusals::default(),
    });
    let accepting = tokio::spawn(accept(bound.kind, service, phase));
    Serving { accepting: Some(accepting), table, listener }
}

async fn accept(kind: Kind, service: Arc<Service>, mut phase: watch::Receiver<Phase>) {
    let mut told: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            _ = phase.wait_for(|phase| *phase != Phase::Run) => return,
            accepted = next(&kind) => accepted,
        };
        let (transport, addr) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors or memory: connections that end make room. One that is gone already is no matter.
                if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                    // Once, not at each try while it lasts.
                    if told.is_none_or(|told| told.elapsed() >= QUIET) {
                        tracing::warn!(%error, listener = service.listener.as_str(), "cannot accept a connection");
                        told = Some(Instant::now());
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                continue;
            }
        };
        if !may_connect(&service, &transport, addr) {
            service.metrics.connection_closed(Closed::Peer);
            continue;
        }
        let Some(place) = place(&service, addr, &mut phase).await else { continue };
        tokio::spawn(connection::serve(service.clone(), transport, addr, place, phase.clone()));
    }
}

async fn next(kind: &Kind) -> io::Result<(Transport, Option<SocketAddr>)> {
    match kind {
        Kind::Tcp(socket, _) => {
            let (stream, addr) = socket.accept().await?;
            // Small answers must not wait for more; a socket that refuses is only slower.
            let _ = stream.set_nodelay(true);
            Ok((Transport::Tcp(stream), Some(addr)))
        }
        Kind::Unix(socket) => Ok((Transport::Unix(socket.accept().await?.0), None)),
    }
}

/// Plain HTTP is for this machine and for named peers, the socket for the owner of the data directory and for root.
fn may_connect(service: &Service, transport: &Transport, addr: Option<SocketAddr>) -> bool {
    match (transport, addr) {
        (Transport::Unix(stream), _) => {
            let own = rustix::process::geteuid().as_raw();
            stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
        }
        (_, Some(addr)) => service.tls.is_some() || may_be_plain(&service.server, addr.ip()),
        (_, None) => false,
    }
}

fn may_be_plain(server: &ServerConfig, peer: IpAddr) -> bool {
    peer.to_canonical().is_loopback() || server.may_speak_plain(peer)
}

/// A place for the new connection; waits while all are busy. `None`: it is not to be served.
async fn place(service: &Service, addr: Option<SocketAddr>, phase: &mut watch::Receiver<Phase>) -> Option<Place> {
    let source = addr.map(|addr| addr.ip().to_canonical()).filter(|ip| !may_be_plain(&service.server, *ip));
    loop {
        match service.table.admit(source) {
            Admission::In(place) => return Some(place),
            Admission::SourceFull => {
                service.metrics.connection_closed(Closed::Limit);
                return None;
            }
            Admission::Full => {}
        }
        tokio::select! {
            () = service.table.one_ended() => {}
            // One may have ended just before this began to wait.
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
            _ = phase.wait_for(|phase| *phase != Phase::Run) => return None,
        }
    }
}

/// The name of the socket in a data directory.
pub const SOCKET: &str = "admin.sock";

/// Where the socket of a data directory is.
pub fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join(SOCKET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_and_for_named_peers() {
        let variables = [("PORTCULLIS_SERVER__PLAIN_FROM", "10.1.0.0/16,fd00::/8")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let flags = crate::config::Flags { data_dir: Some("/nonexistent/data".into()), ..Default::default() };
        let config = crate::config::load(&flags, &crate::config::Environment(variables)).unwrap();
        for (peer, may) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("fd00::7", true),
            ("10.2.2.3", false),
            ("192.168.0.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(may_be_plain(&config.server, peer.parse().unwrap()), may, "{peer}");
        }
    }
}
