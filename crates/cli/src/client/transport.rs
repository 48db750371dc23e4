//! One HTTP/1.1 request on one connection: over a Unix socket, TCP or TLS.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::resolve;
use super::target::{BaseUrl, Target};
use crate::error::Error;

/// An answer is a page of a list at most.
const ANSWER_LIMIT: usize = 64 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What came back.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its whole body.
    pub body: Bytes,
}

/// Sends one request and reads the whole answer. `timeout` is for all of it; `None` waits as long as the server works.
pub async fn send(
    target: &Target,
    ca_file: Option<&Path>,
    request: Request<Full<Bytes>>,
    timeout: Option<Duration>,
) -> Result<Answer, Error> {
    let exchange = async {
        match target {
            Target::Socket(path) => {
                let stream = in_time(target, UnixStream::connect(path)).await?;
                exchange(target, stream, request).await
            }
            Target::Url(url) => {
                let stream = in_time(target, resolve::connect(url.host(), url.port())).await?;
                stream.set_nodelay(true).map_err(|e| unreachable(target, e))?;
                if !url.tls() {
                    return exchange(target, stream, request).await;
                }
                let stream = in_time(target, handshake(url, ca_file, stream)?).await?;
                exchange(target, stream, request).await
            }
        }
    };
    match timeout {
        None => exchange.await,
        Some(limit) => tokio::time::timeout(limit, exchange)
            .await
            .unwrap_or_else(|_| Err(Error::TimedOut { target: target.to_string(), seconds: limit.as_secs() })),
    }
}

async fn in_time<T>(target: &Target, connecting: impl Future<Output = std::io::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(result) => result.map_err(|e| unreachable(target, e)),
        Err(_) => Err(Error::TimedOut { target: target.to_string(), seconds: CONNECT_TIMEOUT.as_secs() }),
    }
}

async fn exchange<S>(target: &Target, stream: S, request: Request<Full<Bytes>>) -> Result<Answer, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| unreachable(target, e))?;
    let driver = tokio::spawn(connection);
    let result = async {
        let answer = sender.send_request(request).await.map_err(|e| unreachable(target, e))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_LIMIT)
            .collect()
            .await
            .map_err(|source| Error::Unreachable { target: target.to_string(), source })?;
        Ok(Answer { status: head.status, body: body.to_bytes() })
    }
    .await;
    driver.abort();
    result
}

type Handshake = tokio_rustls::Connect<TcpStream>;

/// The authorities are the system's (or those of `SSL_CERT_FILE`), and those of `ca_file` besides.
fn handshake(url: &BaseUrl, ca_file: Option<&Path>, stream: TcpStream) -> Result<Handshake, Error> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca_file {
        let bad = |why: String| Error::Usage {
            message: format!("{} holds no usable certificate: {why}", path.display()),
            help: Some("--ca-file takes a PEM file of certificate authorities".to_owned()),
        };
        let mut found = 0;
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| bad(e.to_string()))? {
            roots.add(certificate.map_err(|e| bad(e.to_string()))?).map_err(|e| bad(e.to_string()))?;
            found += 1;
        }
        if found == 0 {
            return Err(bad("there is none in it".to_owned()));
        }
    }
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(url.host().to_owned())
        .map_err(|_| Error::Usage { message: format!("{} is no name for TLS", url.host()), help: None })?;
    Ok(tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream))
}

fn unreachable(target: &Target, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Unreachable { target: target.to_string(), source: error.into() }
}
