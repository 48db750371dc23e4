//! What each client was seen to do: rows that the tests write, and the page that is made of them.
//!
//! A test calls [`Stage::record`] after what it names has passed. With `PORTCULLIS_CLIENT_REPORT` set, which `cargo xtask`
//! does, the rows go into that folder; `tests/client_report.rs` makes `docs/reference/clients.md` of those of a whole run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{Stage, Tool};

/// Names the folder for the rows of one file of tests.
pub const FOLDER: &str = "PORTCULLIS_CLIENT_REPORT";

/// A client that the page has to show.
struct Client {
    name: &'static str,
    about: &'static str,
    /// Arguments that make it print its version.
    version: &'static [&'static str],
}

const fn client(name: &'static str, about: &'static str, version: &'static [&'static str]) -> Client {
    Client { name, about, version }
}

/// Every client of the page, in its order. Each must have been recorded in a whole run.
const CLIENTS: &[Client] = &[
    client("docker", "docker engine of Debian, classic image store", &["version", "-f", "{{.Server.Version}}"]),
    client("docker-containerd", "docker engine (`dockerd`), containerd image store", &["--version"]),
    client("podman", "podman of Debian", &["version", "-f", "{{.Client.Version}}"]),
    client("buildah", "buildah of Debian", &["--version"]),
    client("skopeo", "skopeo of Debian", &["--version"]),
    client("umoci", "layouts of umoci, moved by skopeo", &["--version"]),
    client("ctr-1.6", "containerd of Debian, `ctr`", &["version"]),
    client("ctr-2", "containerd 2, `ctr`", &["version"]),
    client("buildkit", "`buildctl` with `buildkitd`", &["--version"]),
    client("crane", "go-containerregistry", &["version"]),
    client("oras", "oras", &["version"]),
    client("regctl", "regclient", &["version"]),
    client("helm-3", "helm 3", &["version", "--short"]),
    client("helm-4", "helm 4", &["version", "--short"]),
    client("cosign", "cosign, a local key, no transparency log", &["version"]),
    client("lazy-reader", "a reader of our own: ranges as lazy pullers send them", &[]),
];

/// What most clients are asked for. The page shows these first and in this order; anything else is named freely.
pub mod tried {
    /// A log in with the right password; one with a wrong password is [`WRONG_PASSWORD`].
    pub const LOGIN: &str = "log in";
    /// The server has every byte of it afterwards.
    pub const PUSH: &str = "push";
    /// The client has every byte of it afterwards.
    pub const PULL_BY_TAG: &str = "pull by tag";
    /// The same, by digest.
    pub const PULL_BY_DIGEST: &str = "pull by digest";
    /// An index of several platforms, pushed or copied whole, or one platform of it chosen.
    pub const PLATFORMS: &str = "several platforms";
    /// An image of sixty layers.
    pub const SIXTY_LAYERS: &str = "sixty layers";
    /// A layer of one gibibyte.
    pub const LARGE_LAYER: &str = "a layer of 1 GiB";
    /// From one repository to another.
    pub const COPY: &str = "copy between repositories";
    /// Blobs that are there already are mounted, not sent again.
    pub const MOUNT: &str = "mount instead of push";
    /// Tags, and repositories where the client can.
    pub const LIST: &str = "list";
    /// Repositories found by name.
    pub const SEARCH: &str = "search";
    /// Manifest or config shown without a pull.
    pub const INSPECT: &str = "inspect";
    /// An artifact attached to an image and found again.
    pub const REFERRERS: &str = "referrers";
    /// A tag or a manifest is gone afterwards.
    pub const DELETE: &str = "delete";
    /// A push that was killed half way; what it left is collected.
    pub const CANCELLED_PUSH: &str = "cancelled push, its garbage collected";
    /// Refused; the client prints why.
    pub const WRONG_PASSWORD: &str = "wrong password is refused, with the cause";
    /// Refused; the client prints why.
    pub const DENIED_PULL: &str = "pull without a grant is refused, with the cause";
    /// Refused; the client prints why.
    pub const DENIED_PUSH: &str = "push without a grant is refused, with the cause";
    /// Without the authority's certificate the client does not go on.
    pub const UNKNOWN_AUTHORITY: &str = "an unknown authority is refused by the client";

    /// All of them, in the order of the page.
    pub(super) const ORDER: &[&str] = &[
        LOGIN,
        PUSH,
        PULL_BY_TAG,
        PULL_BY_DIGEST,
        PLATFORMS,
        SIXTY_LAYERS,
        LARGE_LAYER,
        COPY,
        MOUNT,
        LIST,
        SEARCH,
        INSPECT,
        REFERRERS,
        DELETE,
        CANCELLED_PUSH,
        WRONG_PASSWORD,
        DENIED_PULL,
        DENIED_PUSH,
        UNKNOWN_AUTHORITY,
    ];
}

/// How client and server talked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Plain HTTP/1.1 on loopback.
    Http,
    /// TLS, with an authority that the client was told of; HTTP/2 where the client offers it.
    Tls,
    /// TLS and HTTP/2, as seen by the server.
    Http2,
    /// TLS to nginx in front of the server.
    Nginx,
    /// TLS to haproxy in front of the server.
    Haproxy,
}

impl Transport {
    const ALL: [Self; 5] = [Self::Http, Self::Tls, Self::Http2, Self::Nginx, Self::Haproxy];

    fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Tls => "TLS",
            Self::Http2 => "HTTP/2",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }
}

impl Stage {
    /// Records what this client did over the transport of the stage. To be called when it has passed. `tool` is the program
    /// whose version the page shows: that of the engine where a client has one without a version of its own.
    pub fn record(&self, client: &str, tool: &Tool, tried: &[&str]) -> Result<()> {
        tried.iter().try_for_each(|tried| self.record_result(client, tool, tried, "passed"))
    }

    /// As [`Stage::record`], for what has a result that a reader should know: `passed, with …`.
    pub fn record_result(&self, client: &str, tool: &Tool, tried: &str, result: &str) -> Result<()> {
        let known = CLIENTS.iter().find(|known| known.name == client);
        let known = known.with_context(|| format!("{client} is not in the list of clients of report.rs"))?;
        let Some(folder) = std::env::var_os(FOLDER) else {
            return Ok(());
        };
        let version = match known.version {
            [] => String::new(),
            arguments => tool.version(arguments)?,
        };
        let row = json!({
            "client": client,
            "version": version,
            "tried": tried,
            "transport": self.transport().name(),
            "result": result,
        });
        fs::create_dir_all(&folder)?;
        let mut file = File::options().create(true).append(true).open(Path::new(&folder).join("rows.jsonl"))?;
        file.write_all(format!("{row}\n").as_bytes())?;
        Ok(())
    }
}

const HEAD: &str = "\
<!-- generated by `cargo xtask test` from what its clients did; see tests/src/report.rs -->

# Clients

What `cargo xtask test` did with each client, against the release build of this version. Every row was seen to pass: bytes
that were pushed or pulled were compared by digest, refusals had to name their cause in what the client printed, and after
each test `portcullis fsck` found nothing. Garbage was collected every second meanwhile.

HTTP is HTTP/1.1 on loopback; TLS is with an authority of its own, as `portcullis init` makes it, and HTTP/2 where the client
offers it.
";

/// The page made of all rows below this folder. Fails when a client of the list has no row, or two versions.
pub fn page(folder: &Path) -> Result<String> {
    let rows = rows(folder)?;
    let missing: Vec<&str> = CLIENTS
        .iter()
        .map(|client| client.name)
        .filter(|name| !rows.iter().any(|row| row["client"] == *name))
        .collect();
    ensure!(missing.is_empty(), "these clients recorded nothing: {}", missing.join(", "));
    let mut text = HEAD.to_owned();
    text.push_str("\n| client | version | what it is |\n|---|---|---|\n");
    for client in CLIENTS {
        let versions: BTreeSet<&str> = field(&rows, client.name, "version").collect();
        ensure!(versions.len() == 1, "{} has several versions: {versions:?}", client.name);
        let version = versions.first().copied().unwrap_or_default();
        writeln!(text, "| [{0}](#{1}) | {version} | {2} |", client.name, client.name.replace('.', ""), client.about)?;
    }
    for client in CLIENTS {
        write!(text, "\n## {}\n\n| tried | over | result |\n|---|---|---|\n", client.name)?;
        for ((_, tried, result), transports) in grouped(&rows, client.name) {
            let over: Vec<&str> =
                Transport::ALL.iter().map(|one| one.name()).filter(|name| transports.contains(name)).collect();
            writeln!(text, "| {tried} | {} | {result} |", over.join(", "))?;
        }
    }
    Ok(text)
}

fn field<'a>(rows: &'a [Value], client: &str, name: &str) -> impl Iterator<Item = &'a str> {
    rows.iter().filter(move |row| row["client"] == client).filter_map(move |row| row[name].as_str())
}

/// Rows of one client: place in the order, what was tried and its result, with all transports.
fn grouped<'a>(rows: &'a [Value], client: &str) -> BTreeMap<(usize, &'a str, &'a str), BTreeSet<&'a str>> {
    let mut grouped: BTreeMap<_, BTreeSet<&str>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row["client"] == client) {
        let text = |name: &str| row[name].as_str().unwrap_or_default();
        let place = tried::ORDER.iter().position(|known| *known == text("tried")).unwrap_or(usize::MAX);
        grouped.entry((place, text("tried"), text("result"))).or_default().insert(text("transport"));
    }
    grouped
}

fn rows(folder: &Path) -> Result<Vec<Value>> {
    let mut rows = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("no rows in {}", folder.display()))? {
        let file = entry?.path().join("rows.jsonl");
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        for line in text.lines() {
            rows.push(serde_json::from_str(line).with_context(|| format!("{}: {line}", file.display()))?);
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, clients: &[&str]) {
        let row = |client: &str, version: &str, tried: &str, transport: &str| json!({"client": client, "version": version, "tried": tried, "transport": transport, "result": "passed"});
        let mut text = String::new();
        for client in clients {
            for (tried, transport) in [("zoom", "HTTP"), (tried::PUSH, "TLS"), (tried::PUSH, "HTTP")] {
                text.push_str(&format!("{}\n", row(client, "1.0", tried, transport)));
            }
        }
        fs::create_dir_all(folder.join("clients_all")).unwrap();
        fs::write(folder.join("clients_all/rows.jsonl"), text).unwrap();
    }

    #[test]
    fn a_page_has_every_client_once_and_standard_phrases_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut names: Vec<&str> = CLIENTS.iter().map(|client| client.name).collect();
        write(folder.path(), &names);
        let page = page(folder.path()).unwrap();
        assert_eq!(page.matches("| push | HTTP, TLS | passed |\n| zoom | HTTP | passed |\n").count(), names.len());
        assert!(page.contains("| [ctr-1.6](#ctr-16) | 1.0 |"));
        let lost = names.remove(3);
        write(folder.path(), &names);
        assert!(super::page(folder.path()).unwrap_err().to_string().contains(lost));
    }
}
