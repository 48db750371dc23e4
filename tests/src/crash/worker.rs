//! One worker: random pushes, tag moves and deletes in its repository, recorded before and after each request.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use oci::{Algorithm, Digest, Hasher};
use serde_json::json;
use testkit::client::{location_of, with_digest};
use testkit::http::{Body, Response};
use testkit::image::MANIFEST;
use testkit::{Client, Rng};

use super::model::{Content, Known, Manifest, Repository};
use super::traffic::{End, Shared, new_content};

/// Above this number of manifests, deletes are more likely than pushes.
const MANY: usize = 12;

/// A session that a cut request held is free again before this.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts to go on with it.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a worker stopped working.
enum Stop {
    /// The server is gone.
    Gone,
    /// The server did what it must not do.
    Wrong(anyhow::Error),
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Wrong(error)
    }
}

/// An upload that was cut, to go on with after the restart.
struct Cut {
    location: String,
    digest: Digest,
    bytes: Arc<Vec<u8>>,
    since: Instant,
    /// Whether it goes on after the server was away.
    resumed: bool,
}

impl Cut {
    /// Whether the session may be gone: what it had received was not synced, and is lost with the power.
    fn may_be_lost(&self, shared: &Shared) -> bool {
        self.resumed && shared.end == End::PowerCut
    }

    /// Whether the request that was cut may hold the session: it gives it back when the database is there again.
    fn is_still_taken(&self, shared: &Shared) -> bool {
        shared.end == End::Database && self.since.elapsed() < PATIENCE
    }
}

/// One worker.
pub struct Worker {
    /// Its connection.
    pub client: Client,
    rng: Rng,
    pool: Arc<Vec<Arc<Vec<u8>>>>,
    neighbours: u64,
    cut: Option<Cut>,
}

impl Worker {
    /// A worker that takes some of its contents from `pool` and mounts from `neighbours` repositories.
    pub fn new(client: Client, rng: Rng, pool: Arc<Vec<Arc<Vec<u8>>>>, neighbours: usize) -> Self {
        Self { client, rng, pool, neighbours: neighbours as u64, cut: None }
    }

    /// Works until the server is gone. Fails when the server did what it must not do.
    pub fn work(&mut self, shared: &Shared, repository: &mut Repository) -> Result<()> {
        loop {
            match self.step(shared, repository) {
                Ok(()) => {}
                Err(Stop::Gone) => return Ok(()),
                Err(Stop::Wrong(error)) => return Err(error),
            }
        }
    }

    fn step(&mut self, shared: &Shared, repository: &mut Repository) -> Result<(), Stop> {
        if let Some(cut) = self.cut.take() {
            return self.go_on(shared, repository, &cut);
        }
        let present: Vec<Digest> = repository
            .manifests
            .iter()
            .filter(|(_, manifest)| manifest.present.is(&true))
            .map(|(digest, _)| digest.clone())
            .collect();
        let crowded = present.len() > MANY;
        match self.rng.below(100) {
            0..10 if !present.is_empty() => self.move_tag(shared, repository, &present),
            10..20 => self.delete_tag(shared, repository),
            20..30 if !present.is_empty() => self.delete_manifest(shared, repository, &present),
            30..70 if crowded => self.delete_manifest(shared, repository, &present),
            _ => self.push(shared, repository),
        }
    }

    fn push(&mut self, shared: &Shared, repository: &mut Repository) -> Result<(), Stop> {
        let mut descriptors = Vec::new();
        let mut digests = Vec::new();
        for _ in 0..=self.rng.below(3) {
            let bytes = match self.rng.chance(40) {
                true => self.rng.pick(&self.pool).cloned().unwrap_or_default(),
                false => Arc::new(new_content(&mut self.rng)),
            };
            let digest = Hasher::digest(Algorithm::Sha256, &bytes);
            descriptors.push(json!({
                "mediaType": "application/octet-stream", "digest": digest.as_str(), "size": bytes.len()
            }));
            self.push_blob(shared, repository, &digest, &bytes)?;
            digests.push(digest);
        }
        let Some((config, layers)) = descriptors.split_first() else { return Ok(()) };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config,
            "layers": layers,
            "annotations": {"number": self.rng.number().to_string()},
        });
        let bytes = manifest.to_string().into_bytes();
        let digest = Hasher::digest(Algorithm::Sha256, &bytes);
        let manifest = Manifest { bytes, blobs: digests, present: Known::certain(false) };
        repository.manifests.insert(digest.clone(), manifest);
        let tags: Vec<String> = (0..self.rng.below(3)).map(|_| self.tag()).collect();
        self.put_manifest(shared, repository, &digest, &tags)
    }

    /// Puts a manifest by a tag, by its digest, or by its digest with several tags.
    fn put_manifest(
        &mut self,
        shared: &Shared,
        repository: &mut Repository,
        digest: &Digest,
        tags: &[String],
    ) -> Result<(), Stop> {
        let Some(manifest) = repository.manifests.get_mut(digest) else { return Ok(()) };
        manifest.present.may_become(true);
        for tag in tags {
            let state = repository.tags.entry(tag.clone()).or_insert(Known::certain(None));
            state.may_become(Some(digest.clone()));
        }
        let reference = match tags {
            [tag] => tag.clone(),
            tags => {
                let query: Vec<String> = tags.iter().map(|tag| format!("tag={tag}")).collect();
                format!("{digest}?{}", query.join("&"))
            }
        };
        let bytes = manifest.bytes.clone();
        let name = repository.name.clone();
        let response = shared.flying(|| self.client.put_manifest(&name, &reference, MANIFEST, &bytes))?;
        expect(shared, &response, &[201])?;
        if let Some(manifest) = repository.manifests.get_mut(digest) {
            manifest.present.becomes(true);
        }
        for tag in tags {
            repository.tags.insert(tag.clone(), Known::certain(Some(digest.clone())));
        }
        Ok(())
    }

    fn move_tag(&mut self, shared: &Shared, repository: &mut Repository, present: &[Digest]) -> Result<(), Stop> {
        let Some(digest) = self.rng.pick(present).cloned() else { return Ok(()) };
        let tag = self.tag();
        self.put_manifest(shared, repository, &digest, &[tag])
    }

    fn delete_tag(&mut self, shared: &Shared, repository: &mut Repository) -> Result<(), Stop> {
        let tags: Vec<String> = repository.tags.keys().cloned().collect();
        let Some(tag) = self.rng.pick(&tags).cloned() else { return Ok(()) };
        let Some(state) = repository.tags.get_mut(&tag) else { return Ok(()) };
        let was_there = !state.is(&None);
        state.may_become(None);
        let name = repository.name.clone();
        let target = format!("/v2/{name}/manifests/{tag}");
        let response = shared.flying(|| self.client.send(&name, "DELETE", &target, &[], Body::None))?;
        expect(shared, &response, &[if was_there { 202 } else { 404 }])?;
        repository.tags.insert(tag, Known::certain(None));
        Ok(())
    }

    fn delete_manifest(
        &mut self,
        shared: &Shared,
        repository: &mut Repository,
        present: &[Digest],
    ) -> Result<(), Stop> {
        let Some(digest) = self.rng.pick(present).cloned() else { return Ok(()) };
        if let Some(manifest) = repository.manifests.get_mut(&digest) {
            manifest.present.may_become(false);
        }
        let pointing: Vec<String> = repository
            .tags
            .iter()
            .filter(|(_, state)| state.may_be(&Some(digest.clone())))
            .map(|(tag, _)| tag.clone())
            .collect();
        for tag in &pointing {
            if let Some(state) = repository.tags.get_mut(tag) {
                state.may_become(None);
            }
        }
        let name = repository.name.clone();
        let target = format!("/v2/{name}/manifests/{digest}");
        let response = shared.flying(|| self.client.send(&name, "DELETE", &target, &[], Body::None))?;
        expect(shared, &response, &[202])?;
        if let Some(manifest) = repository.manifests.get_mut(&digest) {
            manifest.present.becomes(false);
        }
        for tag in pointing {
            repository.tags.insert(tag, Known::certain(None));
        }
        Ok(())
    }

    /// Pushes a blob in one of the ways that clients do.
    fn push_blob(
        &mut self,
        shared: &Shared,
        repository: &mut Repository,
        digest: &Digest,
        bytes: &Arc<Vec<u8>>,
    ) -> Result<(), Stop> {
        let name = repository.name.clone();
        let content = Content { bytes: Arc::clone(bytes), acknowledged: None };
        repository.blobs.entry(digest.clone()).or_insert(content);
        let way = self.rng.below(4);
        if way == 0 {
            let target = format!("/v2/{name}/blobs/uploads/?digest={digest}");
            let response = shared.flying(|| self.client.send(&name, "POST", &target, &[], Body::Bytes(bytes)))?;
            expect(shared, &response, &[201])?;
            return acknowledged(repository, digest);
        }
        let target = match way {
            1 => {
                let source = self.rng.below(self.neighbours);
                format!("/v2/{name}/blobs/uploads/?mount={digest}&from=crash/w{source}")
            }
            _ => format!("/v2/{name}/blobs/uploads/"),
        };
        let response = shared.flying(|| self.client.send(&name, "POST", &target, &[], Body::Bytes(b"")))?;
        if way == 1 && response.status == 201 {
            return acknowledged(repository, digest);
        }
        expect(shared, &response, &[202])?;
        let location = location_of(&response)?;
        if way == 2 {
            let target = with_digest(&location, digest);
            let response = shared.flying(|| self.client.send(&name, "PUT", &target, &[], Body::Bytes(bytes)))?;
            expect(shared, &response, &[201])?;
            return acknowledged(repository, digest);
        }
        let cut =
            Cut { location, digest: digest.clone(), bytes: Arc::clone(bytes), since: Instant::now(), resumed: false };
        self.send_chunks(shared, repository, cut, 0)
    }

    /// Sends the rest of an upload in a few chunks and closes it. Remembers it when the server goes away.
    fn send_chunks(
        &mut self,
        shared: &Shared,
        repository: &mut Repository,
        mut cut: Cut,
        mut offset: usize,
    ) -> Result<(), Stop> {
        let name = repository.name.clone();
        let chunk = cut.bytes.len() / 3 + 1;
        while offset < cut.bytes.len() {
            let end = cut.bytes.len().min(offset + chunk);
            let range = format!("{offset}-{}", end - 1);
            let headers = [("Content-Range", range.as_str())];
            let body = Body::Bytes(&cut.bytes[offset..end]);
            let sent = shared.flying(|| self.client.send(&name, "PATCH", &cut.location, &headers, body));
            let response = match sent {
                Ok(response) => response,
                Err(_) => {
                    self.cut = Some(cut);
                    return Err(Stop::Gone);
                }
            };
            if response.status == 416 && cut.is_still_taken(shared) {
                std::thread::sleep(PAUSE);
                continue;
            }
            if response.status == 404 && cut.may_be_lost(shared) {
                return Ok(());
            }
            match expect(shared, &response, &[202]) {
                Err(Stop::Gone) if shared.end == End::Database => {
                    self.cut = Some(cut);
                    return Err(Stop::Gone);
                }
                expected => expected?,
            }
            cut.location = location_of(&response)?;
            offset = end;
        }
        let target = with_digest(&cut.location, &cut.digest);
        let response = shared.flying(|| self.client.send(&name, "PUT", &target, &[], Body::Bytes(b"")))?;
        if response.status == 404 && cut.may_be_lost(shared) {
            return Ok(());
        }
        expect(shared, &response, &[201])?;
        acknowledged(repository, &cut.digest)
    }

    /// Goes on with an upload that was cut in the middle of a PATCH.
    fn go_on(&mut self, shared: &Shared, repository: &mut Repository, cut: &Cut) -> Result<(), Stop> {
        let name = repository.name.clone();
        let path = cut.location.split('?').next().unwrap_or("").to_owned();
        let response = shared.flying(|| self.client.send(&name, "GET", &path, &[], Body::None))?;
        if response.status == 404 && shared.end != End::Kill {
            return Ok(());
        }
        expect(shared, &response, &[204])?;
        let offset = match response.header("range") {
            Some("0-0") | None => 0,
            Some(range) => range.trim_start_matches("0-").parse::<usize>().map_err(anyhow::Error::from)? + 1,
        };
        let whole = cut.bytes.len();
        if offset > whole {
            return Err(Stop::Wrong(anyhow!("{offset} bytes received of {whole} that were sent")));
        }
        let again = Cut {
            location: location_of(&response)?,
            digest: cut.digest.clone(),
            bytes: Arc::clone(&cut.bytes),
            since: Instant::now(),
            resumed: true,
        };
        self.send_chunks(shared, repository, again, offset)?;
        shared.totals.resumed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn tag(&mut self) -> String {
        format!("t{}", self.rng.below(6))
    }
}

fn acknowledged(repository: &mut Repository, digest: &Digest) -> Result<(), Stop> {
    if let Some(content) = repository.blobs.get_mut(digest) {
        content.acknowledged = Some(Instant::now());
    }
    Ok(())
}

/// A server whose disk has stopped may answer with an error, one whose database is away has to say so; anything else that is
/// not expected is wrong.
fn expect(shared: &Shared, response: &Response, wanted: &[u16]) -> Result<(), Stop> {
    match response.status {
        status if wanted.contains(&status) => Ok(()),
        500 | 503 | 507 if shared.end == End::PowerCut => Err(Stop::Gone),
        503 if shared.end == End::Database => match response.header("retry-after") {
            Some(_) => Err(Stop::Gone),
            None => Err(Stop::Wrong(anyhow!("503 without Retry-After: {response:?}"))),
        },
        _ => Err(Stop::Wrong(anyhow!("status {wanted:?} expected: {response:?}"))),
    }
}
