//! The socket under a connection: counts bytes, judges heads, and stays usable after the HTTP library is done with it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use super::activity::Activity;
use super::framing::{Framing, Refusal};

/// After the last answer, this much that the client still sends is taken in and thrown away.
const LINGER_BYTES: u64 = 64 << 20;
/// The last bytes and the goodbye of TLS get this long.
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// The transports.
#[derive(Debug)]
pub(super) enum Transport {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

macro_rules! each {
    ($transport:expr, $stream:ident => $work:expr) => {
        match $transport {
            Transport::Tcp($stream) => $work,
            Transport::Tls($stream) => $work,
            Transport::Unix($stream) => $work,
        }
    };
}

impl Transport {
    /// Makes closing send a reset, and forget what was not sent: for clients that do not read.
    fn abort_on_close(&self) {
        match self {
            Self::Tcp(stream) => abort(stream),
            Self::Tls(stream) => abort(stream.get_ref().0),
            Self::Unix(_) => {}
        }
    }
}

fn abort(stream: &TcpStream) {
    // A socket that cannot be set up so is closed in the ordinary way.
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

impl AsyncRead for Transport {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(&mut *self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(&mut *self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(&mut *self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        each!(self, stream => stream.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut *self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut *self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

/// A socket that the HTTP library uses and that is still here afterwards. Clones are the same; the lock is never held
/// across a wait, and nobody else wants it meanwhile.
#[derive(Clone, Debug)]
pub(super) struct Socket(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    transport: Transport,
    activity: Arc<Activity>,
    /// Bytes that were read to find out what is spoken.
    prefix: Bytes,
    /// `None` for HTTP/2.
    framing: Option<Framing>,
    refusal: Option<Refusal>,
    /// The other end has closed its side.
    ended: bool,
}

impl Socket {
    /// For HTTP/1 with heads of at most `header_limit` bytes; for HTTP/2 without a limit of its own.
    pub(super) fn new(
        transport: Transport,
        activity: Arc<Activity>,
        prefix: Bytes,
        header_limit: Option<usize>,
    ) -> Self {
        let framing = header_limit.map(Framing::new);
        Self(Arc::new(Mutex::new(Inner { transport, activity, prefix, framing, refusal: None, ended: false })))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the last head was refused.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.lock().refusal
    }

    /// Whether the head of a request is incomplete.
    pub(super) fn in_head(&self) -> bool {
        self.lock().framing.as_ref().is_some_and(Framing::in_head)
    }

    /// Makes closing a reset.
    pub(super) fn abort_on_close(&self) {
        self.lock().transport.abort_on_close();
    }

    /// Sends the last bytes and says that there will be no more. Then takes in what the client still sends, for as long as
    /// `linger`.
    pub(super) async fn close(mut self, last: Option<Vec<u8>>, linger: Duration) {
        let say_goodbye = async {
            if let Some(last) = last {
                self.write_all(&last).await?;
            }
            self.flush().await?;
            std::future::poll_fn(|cx| Pin::new(&mut self.lock().transport).poll_shutdown(cx)).await
        };
        if let Ok(Ok(())) = tokio::time::timeout(CLOSE_TIME, say_goodbye).await
            && !linger.is_zero()
        {
            // Whether it read everything or not, nothing more can be done for this client.
            let _ = tokio::time::timeout(linger, self.throw_away()).await;
        }
    }

    async fn throw_away(&self) -> io::Result<()> {
        let mut thrown = vec![0; 64 << 10];
        let mut left = LINGER_BYTES;
        while left > 0 && !self.lock().ended {
            let read = std::future::poll_fn(|cx| {
                let mut buf = ReadBuf::new(&mut thrown);
                let inner = &mut *self.lock();
                Pin::new(&mut inner.transport).poll_read(cx, &mut buf).map_ok(|()| buf.filled().len())
            });
            match read.await? {
                0 => return Ok(()),
                read => left = left.saturating_sub(read as u64),
            }
        }
        Ok(())
    }
}

impl Inner {
    fn written(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &result {
            Poll::Ready(Ok(bytes)) => self.activity.sent(*bytes),
            Poll::Pending => self.activity.stuck(),
            Poll::Ready(Err(_)) => {}
        }
        result
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.framing.as_ref().is_some_and(Framing::is_lost) {
            // The body breaks off here: whoever reads it is told so, and can answer.
            return Poll::Ready(Ok(()));
        }
        if self.refusal.is_some() {
            // The end comes after the answers that are under way: the library asks again when they are done.
            return if self.activity.in_flight() == 0 { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        let before = buf.filled().len();
        if self.prefix.is_empty() {
            ready!(Pin::new(&mut self.transport).poll_read(cx, buf))?;
            self.activity.received(buf.filled().len() - before);
        } else {
            let taken = self.prefix.len().min(buf.remaining());
            buf.put_slice(&self.prefix[..taken]);
            self.prefix.advance(taken);
        }
        if buf.filled().len() == before {
            self.ended = true;
            return Poll::Ready(Ok(()));
        }
        let Some(framing) = &mut self.framing else { return Poll::Ready(Ok(())) };
        let was_in_head = framing.in_head();
        match framing.see(&buf.filled()[before..]) {
            Ok(seen) => {
                if let Some(believed) = seen.believed {
                    buf.set_filled(before + believed);
                }
                if seen.head_ended {
                    self.activity.head_ended();
                }
                if seen.head_began && (seen.head_ended || !was_in_head) {
                    self.activity.head_began();
                }
                Poll::Ready(Ok(()))
            }
            Err(refusal) => {
                self.refusal = Some(refusal);
                buf.set_filled(before);
                if self.activity.in_flight() == 0 { Poll::Ready(Ok(())) } else { Poll::Pending }
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.lock().poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let inner = &mut *self.lock();
        let written = Pin::new(&mut inner.transport).poll_write(cx, buf);
        inner.written(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let inner = &mut *self.lock();
        let written = Pin::new(&mut inner.transport).poll_write_vectored(cx, bufs);
        inner.written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.lock().transport.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.lock();
        ready!(Pin::new(&mut inner.transport).poll_flush(cx))?;
        inner.activity.flushed();
        Poll::Ready(Ok(()))
    }

    /// Not yet: [`Socket::close`] does it, when what has to be said was said.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads until it is clear whether this is HTTP/2 without negotiation; also returns what was read. The caller bounds the
/// time.
pub(super) async fn sniff(transport: &mut Transport, activity: &Activity) -> io::Result<(Protocol, Bytes)> {
    let mut seen = [0; PREFACE.len()];
    let mut length = 0;
    loop {
        let read = transport.read(&mut seen[length..]).await?;
        activity.received(read);
        length += read;
        let protocol = if !PREFACE.starts_with(&seen[..length]) || read == 0 {
            Protocol::Http1
        } else if length == PREFACE.len() {
            Protocol::Http2
        } else {
            continue;
        };
        return Ok((protocol, Bytes::copy_from_slice(&seen[..length])));
    }
}
