//! What a repository must hold, and the look that compares.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use oci::{Algorithm, Digest, Hasher};
use testkit::Client;
use testkit::http::Body;

/// Deleted manifests that are still looked for.
const REMEMBERED_DELETES: usize = 8;

/// What is known about something that can change: the states that it may be in, one when that is certain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known<T>(Vec<T>);

impl<T: Clone + PartialEq + std::fmt::Debug> Known<T> {
    /// This for certain.
    pub fn certain(state: T) -> Self {
        Self(vec![state])
    }

    /// This too, from now on: a request is on its way.
    pub fn may_become(&mut self, state: T) {
        if !self.0.contains(&state) {
            self.0.push(state);
        }
    }

    /// Somebody looked, or the request was answered.
    pub fn becomes(&mut self, state: T) {
        self.0 = vec![state];
    }

    /// Whether it may be in this state.
    pub fn may_be(&self, state: &T) -> bool {
        self.0.contains(state)
    }

    /// Whether it is in this state and no other.
    pub fn is(&self, state: &T) -> bool {
        self.0.len() == 1 && self.may_be(state)
    }
}

/// A manifest that was pushed or may have been.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What it names.
    pub blobs: Vec<Digest>,
    /// Whether it is there.
    pub present: Known<bool>,
}

/// A blob that was pushed or may have been.
#[derive(Clone, Debug)]
pub struct Content {
    /// Its bytes.
    pub bytes: Arc<Vec<u8>>,
    /// When the last push of it was acknowledged. Without a manifest it may be collected some time after.
    pub acknowledged: Option<Instant>,
}

/// What one repository must hold.
#[derive(Clone, Debug, Default)]
pub struct Repository {
    /// Its name.
    pub name: String,
    /// Tags and what they may point to.
    pub tags: BTreeMap<String, Known<Option<Digest>>>,
    /// Manifests by digest.
    pub manifests: BTreeMap<Digest, Manifest>,
    /// Blobs by digest.
    pub blobs: BTreeMap<Digest, Content>,
}

impl Repository {
    /// An empty repository of this name.
    pub fn new(name: String) -> Self {
        Self { name, ..Self::default() }
    }

    /// Compares with what the server has; what was uncertain is certain afterwards. Nobody else may use the repository
    /// meanwhile. A blob that no manifest needs is expected for `kept` after its push.
    pub fn look(&mut self, client: &mut Client, kept: Duration) -> Result<()> {
        self.look_at_tags(client)?;
        self.look_at_manifests(client)?;
        let now = Instant::now();
        let needed: Vec<Digest> = self
            .manifests
            .values()
            .filter(|manifest| manifest.present.is(&true))
            .flat_map(|manifest| manifest.blobs.clone())
            .collect();
        let mut gone = Vec::new();
        for (digest, content) in &self.blobs {
            let fresh = content.acknowledged.is_some_and(|then| now.duration_since(then) < kept);
            let response = client.blob(&self.name, digest)?;
            match response.status {
                200 => ensure!(response.body == **content.bytes, "{}: {digest} is served with other bytes", self.name),
                404 if !fresh && !needed.contains(digest) => gone.push(digest.clone()),
                _ => bail!("{}: {digest} was acknowledged ({fresh}) or is needed: {response:?}", self.name),
            }
        }
        self.blobs.retain(|digest, _| !gone.contains(digest));
        self.forget();
        Ok(())
    }

    /// Nothing else is there: neither a tag, nor what `later` has beyond this, of which nothing was sent yet.
    pub fn holds_no_more(&self, client: &mut Client, later: &Self) -> Result<()> {
        let listed = client.send(&self.name, "GET", &format!("/v2/{}/tags/list", self.name), &[], Body::None)?;
        if listed.status != 404 {
            let listed: serde_json::Value = serde_json::from_slice(&listed.expect_status(200)?.body)?;
            for tag in listed["tags"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_str) {
                ensure!(self.tags.contains_key(tag), "{}:{tag} is there", self.name);
                client.assert_whole(&self.name, tag)?;
            }
        }
        for digest in later.manifests.keys().filter(|digest| !self.manifests.contains_key(*digest)) {
            ensure!(found(client, &self.name, digest.as_str())?.is_none(), "{}@{digest} is there", self.name);
        }
        for digest in later.blobs.keys().filter(|digest| !self.blobs.contains_key(*digest)) {
            let response = client.blob(&self.name, digest)?;
            ensure!(response.status == 404, "{}: {digest} is there: {response:?}", self.name);
        }
        Ok(())
    }

    /// A collection without grace is about to begin: what no manifest names may go.
    pub fn may_be_collected(&mut self) {
        let manifests = self.manifests.values().filter(|manifest| manifest.present.may_be(&true));
        let needed: Vec<Digest> = manifests.flat_map(|manifest| manifest.blobs.clone()).collect();
        for (digest, content) in &mut self.blobs {
            if !needed.contains(digest) {
                content.acknowledged = None;
            }
        }
    }

    fn look_at_tags(&mut self, client: &mut Client) -> Result<()> {
        for (tag, state) in &mut self.tags {
            let found = found(client, &self.name, tag)?;
            let digest = found.as_ref().map(|(digest, _)| digest.clone());
            ensure!(state.may_be(&digest), "{}:{tag} is {digest:?}, expected {state:?}", self.name);
            if let Some((digest, bytes)) = found {
                let manifest = self.manifests.get(&digest);
                ensure!(
                    manifest.is_some_and(|manifest| manifest.bytes == bytes),
                    "{}:{tag} has other bytes",
                    self.name
                );
            }
            state.becomes(digest);
        }
        Ok(())
    }

    fn look_at_manifests(&mut self, client: &mut Client) -> Result<()> {
        for (digest, manifest) in &mut self.manifests {
            let found = found(client, &self.name, digest.as_str())?;
            ensure!(
                manifest.present.may_be(&found.is_some()),
                "{}@{digest} is there: {}, expected {:?}",
                self.name,
                found.is_some(),
                manifest.present
            );
            if let Some((actual, bytes)) = &found {
                ensure!(actual == digest && *bytes == manifest.bytes, "{}@{digest} has other bytes", self.name);
            }
            manifest.present.becomes(found.is_some());
        }
        let there = |digest: &Digest| self.manifests.get(digest).is_some_and(|manifest| manifest.present.is(&true));
        for (tag, state) in &self.tags {
            for digest in state.0.iter().flatten() {
                ensure!(there(digest), "{}:{tag} points to {digest}, which is not there", self.name);
            }
        }
        Ok(())
    }

    /// Forgets most of what is gone for certain, so that a look takes bounded time.
    fn forget(&mut self) {
        let gone: Vec<Digest> = self
            .manifests
            .iter()
            .filter(|(_, manifest)| manifest.present.is(&false))
            .map(|(digest, _)| digest.clone())
            .collect();
        for digest in gone.iter().skip(REMEMBERED_DELETES) {
            self.manifests.remove(digest);
        }
        let needed: Vec<Digest> = self.manifests.values().flat_map(|manifest| manifest.blobs.clone()).collect();
        self.blobs.retain(|digest, content| {
            needed.contains(digest) || content.acknowledged.is_some_and(|then| then.elapsed() < Duration::from_secs(60))
        });
    }
}

/// A manifest as served: its digest and bytes, `None` when there is none. Anything else fails, and so do bytes that are not
/// those of the digest in the header.
fn found(client: &mut Client, repository: &str, reference: &str) -> io::Result<Option<(Digest, Vec<u8>)>> {
    let response = client.manifest(repository, reference)?;
    if response.status == 404 {
        return Ok(None);
    }
    let response = response.expect_status(200)?;
    let digest = Hasher::digest(Algorithm::Sha256, &response.body);
    if response.header("docker-content-digest") != Some(digest.as_str()) {
        return Err(io::Error::other(format!("{repository}:{reference} is not what its header says: {response:?}")));
    }
    Ok(Some((digest, response.body)))
}
