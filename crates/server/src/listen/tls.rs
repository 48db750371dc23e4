//! TLS 1.2 and 1.3 from PEM files, which may change while the server runs.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsFiles;
use crate::error::Error;

/// The longest PEM file that is read.
const FILE_LIMIT: u64 = 1 << 20;

/// A certificate in use.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
    stamp: Mutex<Stamp>,
}

/// What tells a new file from the old one: a symbolic link that points elsewhere, or another time, size or place.
type Stamp = Vec<(u64, u64, i64, i64, u64)>;

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`Error::Unsafe`] when others can read the key, [`Error::Tls`] when a file cannot be used.
    pub fn load(files: &TlsFiles) -> Result<Self, Error> {
        let stamp = stamp(files);
        let config = ArcSwap::from_pointee(server_config(files)?);
        Ok(Self { files: files.clone(), config, stamp: Mutex::new(stamp) })
    }

    /// For the next connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.load_full())
    }

    /// Takes up changed files; true when there were any. Blocks on the disk. After an error the certificate in use stays,
    /// and the same files are not tried again.
    ///
    /// # Errors
    /// As [`Tls::load`].
    pub fn reload_if_changed(&self) -> Result<bool, Error> {
        let now = stamp(&self.files);
        let mut stamp = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        if *stamp == now {
            return Ok(false);
        }
        stamp.clone_from(&now);
        drop(stamp);
        self.config.store(Arc::new(server_config(&self.files)?));
        Ok(true)
    }
}

fn stamp(files: &TlsFiles) -> Stamp {
    [Some(&files.certificate), Some(&files.key), files.client_ca.as_ref()]
        .into_iter()
        .flatten()
        .map(|path| match fs::metadata(path) {
            Ok(m) => (m.dev(), m.ino(), m.mtime(), m.mtime_nsec(), m.size()),
            Err(_) => (0, 0, 0, 0, 0),
        })
        .collect()
}

fn server_config(files: &TlsFiles) -> Result<ServerConfig, Error> {
    let wrong = |path: &Path, reason: String| Error::Tls { path: path.to_owned(), reason };
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&read_key(&files.key)?)
        .map_err(|error| wrong(&files.key, format!("it holds no private key: {error}")))?;
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&files.certificate, error.to_string()))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| wrong(path, error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| wrong(path, error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| wrong(&files.certificate, format!("it does not go with the key: {error}")))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let wrong = |reason: String| Error::Tls { path: path.to_owned(), reason };
    let pem = read(File::open(path).map_err(|source| Error::io("read", path, source))?, path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(format!("it is not a PEM file of certificates: {error}")))?;
    if certificates.is_empty() {
        return Err(wrong("it holds no certificate".to_owned()));
    }
    Ok(certificates)
}

/// The group may read it, as some distributions arrange it for keys; nobody else.
fn read_key(path: &Path) -> Result<Vec<u8>, Error> {
    let file = File::open(path).map_err(|source| Error::io("read", path, source))?;
    let metadata = file.metadata().map_err(|source| Error::io("read", path, source))?;
    if metadata.mode() & 0o027 != 0 {
        let what =
            format!("the TLS key {} can be read by others (mode {:04o})", path.display(), metadata.mode() & 0o7777);
        return Err(Error::refuse(what, format!("chmod 600 {}", path.display())));
    }
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != own && metadata.uid() != 0 {
        let what = format!("the TLS key {} belongs to another user (id {})", path.display(), metadata.uid());
        return Err(Error::refuse(what, format!("chown {own} {}", path.display())));
    }
    read(file, path)
}

fn read(file: File, path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    file.take(FILE_LIMIT).read_to_end(&mut bytes).map_err(|source| Error::io("read", path, source))?;
    Ok(bytes)
}
