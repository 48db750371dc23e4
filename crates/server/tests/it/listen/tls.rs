//! TLS from files.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use server::config::{Environment, Flags, TlsFiles};
use server::listen::Tls;
use server::offline::{Init, init};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Served, config, read_to_end, request};

struct Certified {
    folder: tempfile::TempDir,
    init: Init,
}

impl Certified {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let flags = Flags { data_dir: Some(folder.path().join("portcullis-data")), ..Flags::default() };
        let names = ["registry.test".to_owned()];
        let init = init(&flags, &Environment::default(), &names).unwrap();
        Self { folder, init }
    }

    fn files(&self) -> TlsFiles {
        TlsFiles { certificate: self.init.certificate.clone(), key: self.init.key.clone(), client_ca: None }
    }

    fn client(&self, versions: &[&'static SupportedProtocolVersion], alpn: &[&str]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.init.authority).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        client
    }

    async fn connect(&self, served: &Served, name: &str) -> std::io::Result<TlsStream<tokio::net::TcpStream>> {
        let client = self.client(&[&rustls::version::TLS13, &rustls::version::TLS12], &["http/1.1"]);
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(client)).connect(name, served.connect().await).await
    }
}

async fn served(files: &TlsFiles, settings: &[(&str, &str)]) -> (Served, Arc<Tls>) {
    let tls = Arc::new(Tls::load(files).unwrap());
    (Served::with(config(settings), Some(tls.clone())).await, tls)
}

// security: A-06
#[tokio::test]
async fn q86_tls_1_2_and_1_3_and_http_by_negotiation() {
    let certified = Certified::new();
    let (served, _tls) = served(&certified.files(), &[]).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (alpn, chosen) in
            [(&["h2", "http/1.1"][..], Some(&b"h2"[..])), (&["http/1.1"], Some(b"http/1.1")), (&[], None)]
        {
            let client = certified.client(&[version], alpn);
            let name = ServerName::try_from("registry.test").unwrap();
            let stream = served.connect().await;
            let mut stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), chosen);
            if chosen != Some(b"h2") {
                stream.write_all(request("GET /", "Connection: close\r\n").as_bytes()).await.unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.expect("the end is said");
                assert!(answer.contains("GET / true "), "{answer}");
            }
        }
    }
    for name in ["localhost", "127.0.0.1", "::1"] {
        certified.connect(&served, name).await.unwrap();
    }
    assert!(certified.connect(&served, "other.test").await.is_err());
}

// security: A-06
#[tokio::test]
async fn a06_plain_http_to_the_tls_port_gets_no_answer() {
    let certified = Certified::new();
    let (served, _tls) = served(&certified.files(), &[]).await;
    let answer = served.raw(request("GET /", "Authorization: Basic YTpi\r\n")).await;
    assert!(!answer.contains("HTTP") && !answer.contains("ocation"), "{answer}");
    // TLS 1.1: a client hello of its own, which no library here would send.
    let hello = [&[0x16, 3, 1, 0, 47, 1, 0, 0, 43, 3, 2][..], &[7; 32], &[0, 0, 4, 0xc0, 0x13, 0, 0x2f, 1, 0]].concat();
    let mut stream = served.connect().await;
    stream.write_all(&hello).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert_eq!(answer.first(), Some(&0x15), "an alert: {answer:?}");
}

#[tokio::test]
async fn peers_that_may_speak_plain_can_do_both() {
    let certified = Certified::new();
    let (served, _tls) = served(&certified.files(), &[("PORTCULLIS_SERVER__PLAIN_FROM", "127.0.0.0/8")]).await;
    let answer = served.raw(request("GET /", "Connection: close\r\n")).await;
    assert!(answer.contains("GET / false "), "{answer}");
    certified.connect(&served, "localhost").await.unwrap();
}

#[tokio::test]
async fn i02_a_handshake_has_its_time() {
    let certified = Certified::new();
    let (served, _tls) = served(&certified.files(), &[("PORTCULLIS_LIMITS__HEADER_TIME", "300ms")]).await;
    let mut stream = served.connect().await;
    stream.write_all(&[0x16, 3, 1, 1]).await.unwrap();
    assert_eq!(read_to_end(&mut stream).await, "");
    assert_eq!(served.closed("header_time"), 1);
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_up_and_a_broken_one_is_not() {
    let (old, new) = (Certified::new(), Certified::new());
    // As Kubernetes mounts secrets: the files are links into a directory that is itself a link.
    let mounted = old.folder.path().join("mounted");
    let point = |to: &Path| {
        let next = old.folder.path().join("next");
        std::os::unix::fs::symlink(to, &next).unwrap();
        std::fs::rename(&next, &mounted).unwrap();
    };
    point(old.init.certificate.parent().unwrap());
    let files = TlsFiles { certificate: mounted.join("server.crt"), key: mounted.join("server.key"), client_ca: None };
    let (served, tls) = served(&files, &[]).await;
    old.connect(&served, "registry.test").await.unwrap();
    assert!(!tls.reload_if_changed().unwrap());
    point(new.init.certificate.parent().unwrap());
    assert!(tls.reload_if_changed().unwrap());
    new.connect(&served, "registry.test").await.unwrap();
    assert!(old.connect(&served, "registry.test").await.is_err());
    tokio::time::sleep(Duration::from_millis(20)).await;
    std::fs::write(&new.init.certificate, "nonsense").unwrap();
    assert_eq!(tls.reload_if_changed().unwrap_err().code(), "tls");
    assert!(!tls.reload_if_changed().unwrap(), "said once");
    new.connect(&served, "registry.test").await.expect("the certificate in use stays");
}

// security: A-06
#[tokio::test]
async fn a_client_needs_a_certificate_where_an_authority_is_named() {
    let certified = Certified::new();
    let files = TlsFiles { client_ca: Some(certified.init.authority.clone()), ..certified.files() };
    let (served, _tls) = served(&files, &[]).await;
    let refused = match certified.connect(&served, "registry.test").await {
        // With TLS 1.3 the client learns of it at its first read.
        Ok(mut stream) => stream.read_u8().await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
}

#[test]
fn m06_a_key_that_others_can_read_is_refused() {
    let certified = Certified::new();
    let set = |mode| std::fs::set_permissions(&certified.init.key, std::fs::Permissions::from_mode(mode)).unwrap();
    for (mode, refused) in [(0o644, true), (0o604, true), (0o620, true), (0o640, false), (0o400, false)] {
        set(mode);
        match Tls::load(&certified.files()) {
            Ok(_) => assert!(!refused, "{mode:o}"),
            Err(error) => {
                assert!(refused && error.exit_code() == 6, "{mode:o}: {error}");
                assert!(error.help().unwrap().starts_with("chmod 600 "));
            }
        }
    }
    let other = Certified::new();
    let mismatched = TlsFiles { key: other.init.key.clone(), ..certified.files() };
    assert_eq!(Tls::load(&mismatched).unwrap_err().code(), "tls");
    let none = TlsFiles { key: certified.init.authority.clone(), ..certified.files() };
    assert_ne!(Tls::load(&none).unwrap_err().code(), "");
}
