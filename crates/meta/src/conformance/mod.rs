//! The suite of the seam: what every engine must do. Panics where an engine does not do it.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a suite of tests, behind a feature")]

mod accounts;
mod blobs;
mod collection;
mod manifests;
mod serving;
mod uploads;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use oci::conditional::Precondition;
use oci::{Algorithm, Clock, Digest, Hasher, Reference, RepositoryName, Tag, Timestamp};

use crate::{Action, Actor, Db, Edge, EdgeKind, EventFilter, EventRow, Location, NewBlob, NewManifest, TagRight};

pub use accounts::{decisions, events, grants, idempotency, robots, signing_keys, users};
pub use blobs::{blob_life, deleted_blobs, mounts, replaced_bytes};
pub use collection::{checks, deleted_repositories, graces, holds, touch_before_reference};
pub use manifests::{
    all_or_nothing, catalog, deleted_manifests, manifest_life, preconditions, referrers, sparse_indexes, tag_lists,
    tag_rights,
};
pub use serving::serving;
pub use uploads::{expiry, finishing, leases, sessions};

/// A fresh, empty database and the clock that it was opened with.
pub struct Bench {
    /// The database.
    pub db: Db,
    /// Its time, in milliseconds.
    pub time: Arc<AtomicI64>,
}

/// A clock that stands still until it is moved, and its hand.
pub fn clock() -> (Clock, Arc<AtomicI64>) {
    let time = Arc::new(AtomicI64::new(1_800_000_000_000));
    let hand = time.clone();
    (Arc::new(move || Timestamp(hand.load(Ordering::SeqCst))), time)
}

/// One hour: the grace in this suite is four.
pub const HOUR: Duration = Duration::from_secs(3600);
/// The grace of collection in this suite.
pub const GRACE: Duration = Duration::from_secs(4 * 3600);

impl Bench {
    /// The database's time.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.time.load(Ordering::SeqCst))
    }

    /// Lets time pass.
    pub fn pass(&self, duration: Duration) {
        self.time.fetch_add(i64::try_from(duration.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Runs every step of collection to its end, with a grace of four hours: what manifests, links and blobs it took.
    pub async fn collect(&self) -> [u64; 3] {
        let cutoff = self.now().minus(GRACE);
        let system = Actor::system("gc");
        let mut removed = [0; 3];
        while self.db.gc_repositories(7, &system).await.unwrap().more {}
        loop {
            let step = self.db.gc_manifests(cutoff, 3, &system).await.unwrap();
            removed[0] += step.removed;
            if !step.more {
                break;
            }
        }
        loop {
            let step = self.db.gc_links(cutoff, 3, &system).await.unwrap();
            removed[1] += step.removed;
            if !step.more {
                break;
            }
        }
        loop {
            let step = self.db.gc_blobs(cutoff, 3, &system).await.unwrap();
            removed[2] += step.removed;
            if !step.more {
                break;
            }
        }
        removed
    }

    /// The keys that are waiting for the removal of their bytes.
    pub async fn garbage_keys(&self) -> BTreeSet<String> {
        self.db.garbage(None, usize::MAX).await.unwrap().into_iter().map(|row| row.key).collect()
    }

    /// Pushes a blob of one byte more than `n` as a file under the key `key`, without a session.
    pub async fn push_blob(&self, repository: &str, n: u64, key: &str) -> Digest {
        let blob = blob(n, key);
        let digest = blob.digest.clone();
        self.db.finish_upload(&name(repository), None, blob, &alice()).await.unwrap();
        digest
    }

    /// The events of one kind, the oldest first.
    pub async fn told(&self, action: Action) -> Vec<EventRow> {
        let filter = EventFilter { action: Some(action), ..EventFilter::default() };
        self.db.events(&filter, None, usize::MAX).await.unwrap()
    }

    /// Asserts that marks and rows agree everywhere.
    pub async fn assert_sound(&self) {
        assert_eq!(self.db.integrity_check().await.unwrap(), Vec::<String>::new());
        for blob in self.db.check_blobs(None, usize::MAX).await.unwrap() {
            assert!(blob.mark_agrees && blob.location.is_some(), "{blob:?}");
        }
        for link in self.db.check_links(None, usize::MAX).await.unwrap() {
            assert!(link.mark_agrees && link.has_blob, "{link:?}");
        }
        for manifest in self.db.check_manifests(None, usize::MAX).await.unwrap() {
            assert_eq!(manifest.bytes.map(|bytes| bytes.len() as u64), Some(manifest.size), "{}", manifest.digest);
            assert!(manifest.state != "deleted" || manifest.edges.is_empty());
        }
        for tag in self.db.check_tags(None, usize::MAX).await.unwrap() {
            assert!(tag.has_manifest, "{tag:?}");
        }
    }
}

/// The person who pushes.
pub fn alice() -> Actor {
    Actor {
        subject: None,
        name: "user:alice".to_owned(),
        credential: "basic".to_owned(),
        source: "192.0.2.1".to_owned(),
        request_id: "request-1".to_owned(),
        policy_epoch: None,
    }
}

/// A repository name.
pub fn name(text: &str) -> RepositoryName {
    RepositoryName::parse(text).unwrap()
}

/// A tag.
pub fn tag(text: &str) -> Tag {
    Tag::parse(text).unwrap()
}

/// The digest of `text`.
pub fn digest(text: &str) -> Digest {
    Hasher::digest(Algorithm::Sha256, text.as_bytes())
}

/// The blob number `n`, in a file.
pub fn blob(n: u64, key: &str) -> NewBlob {
    let location = Location::File { key: key.to_owned(), mtime_ns: 1 };
    NewBlob { digest: digest(&format!("blob {n}")), size: n + 1, location }
}

/// A manifest that requires these blobs as layers.
pub fn image(text: &str, layers: &[&Digest]) -> NewManifest {
    NewManifest {
        digest: digest(text),
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        bytes: Bytes::copy_from_slice(text.as_bytes()),
        artifact_type: None,
        annotations: None,
        subject: None,
        edges: layers.iter().map(|layer| Edge { target: (*layer).clone(), kind: EdgeKind::Layer }).collect(),
        required: layers.iter().map(|layer| (*layer).clone()).collect(),
    }
}

/// What asks for nothing.
pub static FREE: Precondition = Precondition { if_match: None, if_none_match: None };

/// Every right to a tag.
pub fn any(text: &str) -> TagRight {
    TagRight { tag: tag(text), create: true, move_: true }
}
