//! Random operations against a plain map: pushes in pieces, mounts, tags, deletes, collection, restarts, a clock that
//! jumps and a disk that fails. What was acknowledged is there with the right bytes; what nothing references for the
//! grace is gone; what was never acknowledged is whole or absent.
//!
//! `MODEL_SEED` repeats a run, `MODEL_STEPS` sets its length (300).

#![recursion_limit = "256"]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test: it may panic, and prints its seed")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher as _};

use common::*;
use oci::{Digest, Reference, Timestamp};
use policy::Access;
use registry::push::{self, Position};
use registry::{Authority, Error, delete, fsck, gc, list, pull};
use rustix::io::Errno;

const REPOSITORIES: [&str; 3] = ["a/one", "a/two", "b"];
const TAGS: [&str; 4] = ["latest", "v1", "v2", "v3"];

/// A small generator with a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

#[derive(Clone, Debug)]
struct Stored {
    bytes: Vec<u8>,
    blobs: BTreeSet<Digest>,
}

#[derive(Debug, Default)]
struct Repository {
    manifests: BTreeMap<Digest, Stored>,
    tags: BTreeMap<&'static str, Digest>,
    /// When each blob was last used, and whether it may have been collected since.
    links: BTreeMap<Digest, Timestamp>,
    exists: bool,
}

impl Repository {
    fn needs(&self, blob: &Digest) -> bool {
        self.manifests.values().any(|manifest| manifest.blobs.contains(blob))
    }
}

struct Model {
    world: World,
    dice: Dice,
    contents: BTreeMap<Digest, Vec<u8>>,
    repositories: BTreeMap<&'static str, Repository>,
    log: Vec<String>,
}

#[tokio::test]
async fn model() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = number("MODEL_SEED").unwrap_or_else(|| std::hash::RandomState::new().build_hasher().finish());
    let steps = number("MODEL_STEPS").unwrap_or(300);
    println!("MODEL_SEED={seed} MODEL_STEPS={steps}");
    let mut dice = Dice(seed);
    let contents: Vec<Vec<u8>> = (0..10)
        .map(|n| {
            let mut content = bytes([0, 10, 16_384, 16_385, 300_000][n % 5]);
            content.push(n as u8);
            content.push(dice.next() as u8);
            content
        })
        .collect();
    let contents = contents.into_iter().map(|content| (sha256(&content), content)).collect();
    let repositories = REPOSITORIES.into_iter().map(|name| (name, Repository::default())).collect();
    let mut model = Model { world: world().await, dice, contents, repositories, log: Vec::new() };
    for step in 0..steps {
        model = model.step(step).await;
    }
    model.end().await;
}

impl Model {
    async fn step(mut self, step: u64) -> Self {
        match self.dice.below(20) {
            0..=5 => self.push_blob().await,
            6..=9 => self.push_manifest().await,
            10 | 11 => self.mount().await,
            12 => self.delete_manifest().await,
            13 => self.delete_tag().await,
            14 => self.delete_blob().await,
            15 => self.look().await,
            16 => {
                let hours = [1, 5, 12, 23, 30][self.dice.below(5)];
                self.log.push(format!("{hours} h pass"));
                self.world.pass(GRACE / 24 * hours);
            }
            17 | 18 => self.collect().await,
            _ => {
                self.log.push("restart".to_owned());
                self.world = self.world.restart().await;
            }
        }
        if step.is_multiple_of(5) {
            self.compare().await;
        }
        self
    }

    fn repository(&mut self) -> (&'static str, Access) {
        let name = *self.dice.pick(&REPOSITORIES);
        (name, self.world.access(ALICE, name))
    }

    fn blob(&mut self) -> Digest {
        let n = self.dice.below(self.contents.len());
        self.contents.keys().nth(n).unwrap().clone()
    }

    fn used(&mut self, repository: &'static str, blob: &Digest) {
        let now = self.world.time();
        let repository = self.repositories.get_mut(repository).unwrap();
        repository.exists = true;
        repository.links.insert(blob.clone(), now);
    }

    async fn push_blob(&mut self) {
        let ((name, access), digest) = (self.repository(), self.blob());
        let content = self.contents[&digest].clone();
        let fault = (self.dice.below(4) == 0).then(|| {
            (1 + self.dice.below(12) as u64, *self.dice.pick(&[Errno::IO, Errno::NOSPC, Errno::ROFS, Errno::MFILE]))
        });
        if let Some((n, errno)) = fault {
            self.world.faults.fail_at(n, errno);
        }
        let done = self.send(&access, &digest, &content).await;
        self.world.faults.clear();
        self.log.push(format!("push {digest} to {name} with {fault:?}: {done:?}"));
        match done {
            Ok(()) => self.used(name, &digest),
            Err(_) if fault.is_some() => {}
            Err(error) => panic!("{error:?}: {:#?}", self.log),
        }
    }

    /// In one request, or in pieces, some of which break off.
    async fn send(&mut self, access: &Access, digest: &Digest, content: &[u8]) -> Result<(), Error> {
        let (r, again) = (self.world.registry.clone(), access.clone());
        if self.dice.below(3) == 0 {
            return push::monolithic(&r, access, digest, None, body(content), &again).await.map(drop);
        }
        let id = push::start(&r, access, None).await?.id;
        let mut acknowledged = 0;
        for _ in 0..self.dice.below(4) {
            let offset = push::status(&r, access, &id).await?.offset as usize;
            assert!(offset >= acknowledged);
            acknowledged = offset;
            let end = offset + self.dice.below(content.len() - offset + 1);
            let at = Position { offset: Some(offset as u64), ..Position::default() };
            match self.dice.below(3) {
                0 => {
                    let sent = push::append(&r, access, &id, at, broken(&content[offset..end])).await;
                    assert!(sent.is_err());
                }
                _ => {
                    // After an error the status tells how to go on.
                    let _ = push::append(&r, access, &id, at, body(&content[offset..end])).await;
                }
            }
        }
        let offset = push::status(&r, access, &id).await?.offset;
        assert!(offset >= acknowledged as u64);
        let at = Position { offset: Some(offset), ..Position::default() };
        push::finish(&r, access, &id, at, digest, body(&content[offset as usize..]), &again).await.map(drop)
    }

    async fn push_manifest(&mut self) {
        let (name, access) = self.repository();
        let blobs: BTreeSet<Digest> = (0..1 + self.dice.below(3)).map(|_| self.blob()).collect();
        let list: Vec<Digest> = blobs.iter().cloned().collect();
        let bytes = image(&list[0], &list[1..]);
        let tag = *self.dice.pick(&TAGS);
        let done = self.world.push_manifest(&access, tag, &bytes).await;
        self.log.push(format!("push manifest {} {name}:{tag}: {done:?}", sha256(&bytes)));
        match done {
            Ok(pushed) => {
                let repository = self.repositories.get_mut(name).unwrap();
                for blob in &blobs {
                    assert!(repository.links.contains_key(blob), "{blob}: {:#?}", self.log);
                }
                repository.manifests.insert(pushed.digest.clone(), Stored { bytes, blobs: blobs.clone() });
                repository.tags.insert(tag, pushed.digest);
                for blob in &blobs {
                    self.used(name, blob);
                }
            }
            Err(Error::MissingBlobs(missing)) => {
                let (repository, now) = (&self.repositories[name], self.world.time());
                for blob in missing {
                    let last = repository.links.get(&blob);
                    let kept = last.is_some_and(|last| *last > now.minus(GRACE / 4 * 3)) || repository.needs(&blob);
                    assert!(!kept, "{blob}: {:#?}", self.log);
                }
            }
            Err(error) => panic!("{error:?}: {:#?}", self.log),
        }
    }

    async fn mount(&mut self) {
        let ((name, access), digest) = (self.repository(), self.blob());
        let done = match self.dice.below(2) {
            0 => push::mount_from_anywhere(&self.world.registry, &access, &digest).await.unwrap(),
            _ => {
                let from = common::name(self.dice.pick::<&str>(&REPOSITORIES));
                push::mount(&self.world.registry, &access, &from, &digest).await.unwrap()
            }
        };
        self.log.push(format!("mount {digest} to {name}: {done}"));
        if done {
            assert!(self.repositories.values().any(|repository| repository.links.contains_key(&digest)));
            self.used(name, &digest);
        }
    }

    async fn delete_manifest(&mut self) {
        let (name, access) = self.repository();
        let digests: Vec<Digest> = self.repositories[name].manifests.keys().cloned().collect();
        if digests.is_empty() {
            return;
        }
        let digest = self.dice.pick(&digests).clone();
        self.log.push(format!("delete {digest} of {name}"));
        delete::manifest(&self.world.registry, &access, &Reference::Digest(digest.clone())).await.unwrap();
        let repository = self.repositories.get_mut(name).unwrap();
        let stored = repository.manifests.remove(&digest).unwrap();
        repository.tags.retain(|_, target| *target != digest);
        for blob in &stored.blobs {
            self.used(name, blob);
        }
    }

    async fn delete_tag(&mut self) {
        let ((name, access), tag) = (self.repository(), *self.dice.pick(&TAGS));
        let done = delete::manifest(&self.world.registry, &access, &Reference::parse(tag).unwrap()).await;
        self.log.push(format!("delete {name}:{tag}: {done:?}"));
        let had = self.repositories.get_mut(name).unwrap().tags.remove(tag).is_some();
        assert_eq!(done.is_ok(), had, "{:#?}", self.log);
    }

    async fn delete_blob(&mut self) {
        let ((name, access), digest) = (self.repository(), self.blob());
        let done = delete::blob(&self.world.registry, &access, &digest).await;
        self.log.push(format!("delete blob {digest} of {name}: {done:?}"));
        let repository = self.repositories.get_mut(name).unwrap();
        match done {
            Ok(()) => drop(repository.links.remove(&digest).unwrap()),
            Err(Error::BlobInUse { .. }) => assert!(repository.needs(&digest)),
            Err(Error::BlobUnknown(_) | Error::NameUnknown) => assert!(!repository.needs(&digest)),
            Err(error) => panic!("{error:?}"),
        }
    }

    /// A pusher who finds a blob may count on it.
    async fn look(&mut self) {
        let ((name, access), digest) = (self.repository(), self.blob());
        let found = pull::blob_head(&self.world.registry, &access, &digest).await.is_ok();
        self.log.push(format!("look for {digest} in {name}: {found}"));
        if found {
            assert!(self.repositories[name].links.contains_key(&digest), "{:#?}", self.log);
            self.used(name, &digest);
        }
    }

    async fn collect(&mut self) {
        let report = gc::run(&self.world.registry, Authority::DataDirectory, GRACE, &|_| {}).await.unwrap();
        self.log.push(format!("collect: {report:?}"));
        // What has not been used for the grace is gone for certain.
        let cutoff = self.world.time().minus(GRACE);
        for repository in self.repositories.values_mut() {
            let needed: BTreeSet<Digest> = repository.manifests.values().flat_map(|m| m.blobs.clone()).collect();
            repository.links.retain(|blob, last| *last > cutoff || needed.contains(blob));
        }
    }

    /// Everything is as the map says. Looks only as a reader, which touches nothing.
    async fn compare(&self) {
        for (name, repository) in &self.repositories {
            let (r, bob) = (&self.world.registry, self.world.access(BOB, name));
            let listed = list::tags(r, &bob, None, None).await;
            match repository.exists {
                true => {
                    let tags: Vec<_> = listed.unwrap().items.iter().map(|tag| tag.as_str().to_owned()).collect();
                    assert_eq!(tags, repository.tags.keys().copied().collect::<Vec<_>>(), "{name}: {:#?}", self.log);
                }
                false => assert!(matches!(listed, Err(Error::NameUnknown))),
            }
            for (tag, digest) in &repository.tags {
                let found = pull::manifest_head(r, &bob, &Reference::parse(tag).unwrap()).await.unwrap();
                assert_eq!(found.digest, *digest);
            }
            for (digest, stored) in &repository.manifests {
                let found = pull::manifest(r, &bob, &Reference::Digest(digest.clone())).await;
                assert_eq!(found.unwrap_or_else(|error| panic!("{error}: {:#?}", self.log)).bytes, stored.bytes);
                for blob in &stored.blobs {
                    let found = self.world.read_blob(&bob, blob).await;
                    let found = found.unwrap_or_else(|error| panic!("{name} {blob}: {error}: {:#?}", self.log));
                    assert!(found == self.contents[blob], "{:#?}", self.log);
                }
            }
            for blob in self.contents.keys().filter(|blob| !repository.needs(blob)) {
                assert!(self.world.read_blob(&bob, blob).await.is_err(), "{name} {blob}: {:#?}", self.log);
            }
        }
    }

    /// After two graces without use only what manifests need is left, down to the files.
    async fn end(mut self) {
        self.compare().await;
        for _ in 0..2 {
            self.world.pass(GRACE * 2);
            self.collect().await;
        }
        self.compare().await;
        let report = fsck::check(&self.world.registry, Authority::DataDirectory, &|_| {}).await.unwrap();
        assert!(report.findings.is_empty(), "{:#?} {:#?}", report.findings, self.log);
        let needed: BTreeSet<&Digest> =
            self.repositories.values().flat_map(|r| r.manifests.values().flat_map(|m| &m.blobs)).collect();
        assert_eq!(report.checked.blobs, needed.len() as u64);
        let files = needed.iter().filter(|blob| self.contents[**blob].len() > registry::INLINE_MAX).count();
        assert_eq!(self.world.files().len(), files, "{:#?}", self.log);
    }
}
