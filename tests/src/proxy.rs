//! nginx and haproxy in front of a server, with the configurations of `docs/guide/proxies.md`: what the page says is what runs,
//! only names, ports and paths of files are others.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::{Stage, Transport};

/// The address from which the proxies connect; that of the clients is 127.0.0.1.
pub const PROXY: &str = "127.0.0.9";

/// A proxy and how it talks to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// nginx, plain HTTP behind it.
    Nginx,
    /// nginx, TLS behind it.
    NginxTls,
    /// haproxy, plain HTTP behind it.
    Haproxy,
    /// haproxy, TLS and HTTP/2 behind it.
    HaproxyTls,
}

impl Kind {
    fn is_tls(self) -> bool {
        matches!(self, Self::NginxTls | Self::HaproxyTls)
    }

    fn is_nginx(self) -> bool {
        matches!(self, Self::Nginx | Self::NginxTls)
    }
}

/// A stage behind a proxy; both end when it is dropped.
pub struct Proxied {
    /// The stage. Its own host is the server's, beside the proxy.
    pub stage: Stage,
    port: u16,
    _daemon: Daemon,
    directory: TempDir,
}

impl Proxied {
    /// Starts server and proxy.
    pub fn start(kind: Kind) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("portcullis-proxy-").tempdir()?;
        let folder = directory.path();
        let port = free_port()?;
        let page = Page::read()?;
        // Two authorities: one that the clients trust, one that the proxy trusts.
        for place in ["front", "back"] {
            make_certificate(&folder.join(place))?;
        }
        let settings = page.block("Portcullis", "toml", usize::from(kind.is_tls()))?;
        let settings = replaced(
            &settings,
            &[
                ("10.0.0.7/32", &format!("{PROXY}/32")),
                ("https://registry.example.com", &format!("https://localhost:{port}")),
                ("10.0.0.5:5000", "127.0.0.1:0"),
            ],
        )?;
        let settings = match kind.is_tls() {
            true => replaced(
                &settings,
                &[
                    ("/etc/portcullis/tls.crt", &text(&file(&folder.join("back"), "server.crt"))),
                    ("/etc/portcullis/tls.key", &text(&file(&folder.join("back"), "server.key"))),
                ],
            )?,
            false => settings,
        };
        let mut stage = Stage::plain_with(&settings)?;
        stage.set_transport(if kind.is_nginx() { Transport::Nginx } else { Transport::Haproxy });
        let command = match kind.is_nginx() {
            true => nginx(&page, kind, folder, port, stage.server.address())?,
            false => haproxy(&page, kind, folder, port, stage.server.address())?,
        };
        let is_ready = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        let daemon = Daemon::start(command, &folder.join("log"), is_ready)?;
        Ok(Self { stage, port, _daemon: daemon, directory })
    }

    /// What clients call it: `localhost:PORT`.
    pub fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// Repository or reference below the host.
    pub fn at(&self, reference: &str) -> String {
        format!("{}/{reference}", self.host())
    }

    /// As [`Stage::close`].
    pub fn close(self) -> Result<()> {
        self.stage.close()
    }

    /// The certificate of the authority that clients have to trust.
    pub fn authority(&self) -> String {
        text(&file(&self.directory.path().join("front"), "ca.crt"))
    }
}

/// `portcullis init` in this folder.
fn make_certificate(folder: &Path) -> Result<()> {
    fs::create_dir(folder)?;
    let made = Command::new(testkit::binary())
        .args(["init", "--hostname", "localhost", "--config"])
        .arg(folder.join("portcullis.toml"))
        .arg("--data-dir")
        .arg(folder.join("data"))
        .output()?;
    ensure!(made.status.success(), "init: {}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}

fn file(folder: &Path, name: &str) -> PathBuf {
    folder.join("portcullis-tls").join(name)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A port that was free a moment ago: the server has to be told the proxy's before either starts.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn nginx(page: &Page, kind: Kind, folder: &Path, port: u16, server: SocketAddr) -> Result<Command> {
    let mut site = page.block("nginx", "nginx", 0)?;
    if kind.is_tls() {
        let lines = page.block("nginx", "nginx", 1)?;
        site = replaced(&site, &[("        proxy_pass              http://portcullis;\n", &lines)])?;
        let authority = text(&file(&folder.join("back"), "ca.crt"));
        site = replaced(
            &site,
            &[
                ("/etc/nginx/portcullis-ca.crt", &authority),
                ("proxy_ssl_name                registry.example.com", "proxy_ssl_name localhost"),
            ],
        )?;
    }
    let site = replaced(
        &site,
        &[
            ("server 10.0.0.5:5000", &format!("server {server}")),
            ("listen 443", &format!("listen 127.0.0.1:{port}")),
            ("server_name registry.example.com", "server_name localhost"),
            ("/etc/nginx/registry.crt", &text(&file(&folder.join("front"), "server.crt"))),
            ("/etc/nginx/registry.key", &text(&file(&folder.join("front"), "server.key"))),
        ],
    )?;
    // What nginx.conf of a distribution has around such a file, in a folder of our own; and the address of the proxy.
    let around = format!(
        "daemon off; user root; worker_processes 1; error_log stderr; pid {0}/pid;\nevents {{ worker_connections 1024; }}\n\
         http {{\naccess_log off; proxy_bind {PROXY};\nclient_body_temp_path {0}/body; proxy_temp_path {0}/answer;\n\
         fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u; scgi_temp_path {0}/s;\n{site}}}\n",
        folder.display()
    );
    let configuration = folder.join("nginx.conf");
    fs::write(&configuration, around)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).args(["-e", "stderr", "-c"]).arg(configuration);
    Ok(command)
}

fn haproxy(page: &Page, kind: Kind, folder: &Path, port: u16, server: SocketAddr) -> Result<Command> {
    let mut all = page.block("haproxy", "haproxy", 0)?;
    if kind.is_tls() {
        let line = page.block("haproxy", "haproxy", 1)?;
        all = replaced(&all, &[("    server portcullis 10.0.0.5:5000\n", &line)])?;
        let authority = text(&file(&folder.join("back"), "ca.crt"));
        all = replaced(
            &all,
            &[
                ("/etc/haproxy/portcullis-ca.crt", &authority),
                ("str(registry.example.com)", "str(localhost)"),
                ("verifyhost registry.example.com", "verifyhost localhost"),
            ],
        )?;
    }
    let pem = folder.join("registry.pem");
    let front = folder.join("front");
    let chain = fs::read_to_string(file(&front, "server.crt"))?;
    fs::write(&pem, chain + &fs::read_to_string(file(&front, "server.key"))?)?;
    let all = replaced(
        &all,
        &[
            ("server portcullis 10.0.0.5:5000", &format!("server portcullis {server} source {PROXY}")),
            ("bind :443", &format!("bind 127.0.0.1:{port}")),
            ("/etc/haproxy/registry.pem", &text(&pem)),
        ],
    )?;
    let configuration = folder.join("haproxy.cfg");
    fs::write(&configuration, all)?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(configuration);
    Ok(command)
}

/// The text with each of these replaced; each has to be there.
fn replaced(original: &str, replacements: &[(&str, &str)]) -> Result<String> {
    let mut changed = original.to_owned();
    for (old, new) in replacements {
        ensure!(changed.contains(old), "docs/guide/proxies.md has no {old:?} any more: {original}");
        changed = changed.replace(old, new);
    }
    Ok(changed)
}

/// The page of the guide.
struct Page(String);

impl Page {
    fn read() -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide/proxies.md");
        Ok(Self(fs::read_to_string(&path).with_context(|| path.display().to_string())?))
    }

    /// The n-th block of code in this language below this heading, from 0.
    fn block(&self, heading: &str, language: &str, n: usize) -> Result<String> {
        let missing = || format!("docs/guide/proxies.md has no block {n} of {language} below {heading}");
        let (_, section) = self.0.split_once(&format!("\n## {heading}\n")).with_context(missing)?;
        let section = section.split("\n## ").next().unwrap_or_default();
        let after = section.split(&format!("```{language}\n")).nth(n + 1).with_context(missing)?;
        let (block, _) = after.split_once("```").with_context(missing)?;
        Ok(block.to_owned())
    }
}
