//! A TCP proxy between the product and its database, for what networks do.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

/// How often a connection looks whether the mode has changed.
const TICK: Duration = Duration::from_millis(20);

/// What the proxy does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Hands them on.
    Pass,
    /// Takes them and keeps them, in both directions; new connections are accepted and hear nothing.
    Hang,
    /// Closes new connections at once.
    Refuse,
}

/// A proxy in front of an address. Its connections end when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    target: SocketAddr,
    mode: Mutex<Mode>,
    connections: Mutex<Vec<(TcpStream, TcpStream)>>,
    done: AtomicBool,
}

impl Shared {
    fn mode(&self) -> Mode {
        *self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Proxy {
    /// Starts one on a free port of loopback.
    pub fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            mode: Mutex::new(Mode::Pass),
            connections: Mutex::default(),
            done: AtomicBool::new(false),
        });
        let for_thread = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || accept(&listener, &for_thread));
        Ok(Self { address, shared, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same URL by way of the proxy.
    pub fn through(&self, url: &str) -> String {
        url.replace(&self.shared.target.to_string(), &self.address.to_string())
    }

    /// Changes what happens to bytes from now on.
    pub fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap_or_else(PoisonError::into_inner) = mode;
    }

    /// Ends every connection in good order: both ends see its end.
    pub fn cut(&self) {
        for (client, server) in self.take() {
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
    }

    /// Breaks every connection off: the ends get a reset.
    pub fn reset(&self) {
        for (client, server) in self.take() {
            for stream in [&client, &server] {
                let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
                let _ = stream.shutdown(Shutdown::Read);
            }
        }
    }

    fn take(&self) -> Vec<(TcpStream, TcpStream)> {
        std::mem::take(&mut *self.shared.connections.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.done.store(true, Ordering::SeqCst);
        self.cut();
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.done.load(Ordering::SeqCst) {
            return;
        }
        let Ok(client) = client else { continue };
        if shared.mode() == Mode::Refuse {
            continue;
        }
        let Ok(server) = TcpStream::connect(shared.target) else { continue };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (Ok(a), Ok(b), Ok(c), Ok(d)) =
            (client.try_clone(), server.try_clone(), client.try_clone(), server.try_clone())
        else {
            continue;
        };
        shared.connections.lock().unwrap_or_else(PoisonError::into_inner).push((client, server));
        for (from, to) in [(a, b), (d, c)] {
            let shared = Arc::clone(shared);
            std::thread::spawn(move || pump(from, to, &shared));
        }
    }
}

/// Hands bytes on in one direction until either end is gone.
fn pump(mut from: TcpStream, mut to: TcpStream, shared: &Shared) {
    let _ = from.set_read_timeout(Some(TICK));
    let mut kept: Vec<u8> = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => kept.extend_from_slice(&buffer[..n]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
        if shared.mode() != Mode::Hang && !kept.is_empty() {
            if to.write_all(&kept).is_err() {
                break;
            }
            kept.clear();
        }
    }
    // One that is to be reset must not say good-bye.
    if !matches!(rustix::net::sockopt::socket_linger(&to), Ok(Some(_))) {
        let _ = to.shutdown(Shutdown::Write);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends back what it gets.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let mut buffer = [0; 100];
                    while let Ok(n @ 1..) = stream.read(&mut buffer) {
                        stream.write_all(&buffer[..n]).unwrap();
                    }
                });
            }
        });
        address
    }

    fn client(proxy: &Proxy) -> TcpStream {
        let stream = TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        stream
    }

    fn ask(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<Vec<u8>> {
        stream.write_all(text)?;
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    }

    #[test]
    fn it_hands_on_hangs_refuses_cuts_and_resets() {
        let proxy = Proxy::start(echo()).unwrap();
        let mut stream = client(&proxy);
        assert_eq!(ask(&mut stream, b"one").unwrap(), b"one");
        proxy.set(Mode::Hang);
        let kind = ask(&mut stream, b"two").unwrap_err().kind();
        assert!(matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{kind}");
        proxy.set(Mode::Pass);
        let mut late = [0; 3];
        stream.read_exact(&mut late).unwrap();
        assert_eq!(&late, b"two", "nothing is lost in between");
        proxy.cut();
        assert_eq!(ask(&mut stream, b"x").unwrap_err().kind(), ErrorKind::UnexpectedEof);
        let mut stream = client(&proxy);
        ask(&mut stream, b"three").unwrap();
        proxy.reset();
        std::thread::sleep(TICK * 3);
        assert_eq!(ask(&mut stream, b"x").unwrap_err().kind(), ErrorKind::ConnectionReset);
        proxy.set(Mode::Refuse);
        assert!(ask(&mut client(&proxy), b"four").is_err());
        proxy.set(Mode::Pass);
        assert_eq!(ask(&mut client(&proxy), b"five").unwrap(), b"five");
    }
}
