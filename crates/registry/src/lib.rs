//! The operations of the registry, each of which takes proof of access.
//!
//! Free functions over a [`Registry`]. Every operation reads the repository from the `Access` it is given, so an
//! operation on a repository that was not authorized does not compile. One that changes something takes a [`Right`]: the
//! way to the `Access` of the moment at which it is done. Here bytes (`blobs`) and rows (`meta`) are put
//! in order: bytes are durable before a row names them, and are removed after the last row that named them.

pub mod accounts;
pub mod backup;
pub mod delete;
mod error;
pub mod events;
pub mod fsck;
pub mod gc;
pub mod list;
pub mod manifest;
pub mod pull;
pub mod push;
pub mod repository;
mod right;
mod room;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use oci::{Clock, Random, Timestamp};
use policy::{Access, AdminAccess};

pub use error::{BoxError, Error};
pub use right::Right;
pub use room::Reservation;

/// The body of a request as the server hands it over. An error means that the client is gone, was too slow, or broke
/// the framing; what came before it is kept.
pub type Body = Pin<Box<dyn Stream<Item = Result<Bytes, std::io::Error>> + Send>>;

/// Blobs and manifests up to this many bytes lie in the database.
pub const INLINE_MAX: usize = 16 << 10;

/// What the operations work on. Clones are the same registry.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    db: meta::Db,
    blobs: blobs::Blobs,
    settings: Settings,
    clock: Clock,
    random: Random,
    /// One collection at a time.
    collecting: tokio::sync::Mutex<()>,
    rooms: room::Rooms,
}

/// Settings of the operations.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether an image manifest may name layers that are not in the repository.
    pub sparse_images: bool,
    /// The longest manifest, in bytes.
    pub manifest_limit: usize,
    /// How many upload sessions one subject may have open.
    pub uploads_per_subject: u32,
    /// After this long without a request an upload session is discarded.
    pub upload_idle: Duration,
    /// For this long something unreferenced is kept.
    pub gc_grace: Duration,
    /// Whether each blob is hashed before it is served.
    pub verify_reads: bool,
}

impl Registry {
    /// A registry over open stores.
    pub fn new(db: meta::Db, blobs: blobs::Blobs, settings: Settings, clock: Clock, random: Random) -> Self {
        // Whoever references a blob touches it, unless that was done within this time.
        db.set_touch_after(settings.gc_grace / 4);
        let (collecting, rooms) = (tokio::sync::Mutex::new(()), room::Rooms::new());
        Self(Arc::new(Inner { db, blobs, settings, clock, random, collecting, rooms }))
    }

    /// The database.
    pub fn db(&self) -> &meta::Db {
        &self.0.db
    }

    /// The blob store.
    pub fn blobs(&self) -> &blobs::Blobs {
        &self.0.blobs
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    pub(crate) fn rooms(&self) -> &room::Rooms {
        &self.0.rooms
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.0.clock)()
    }

    pub(crate) fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        (self.0.random)(&mut bytes);
        bytes
    }
}

/// The error for something that is not in the repository: `missing`, or that there is no such repository.
pub(crate) async fn unknown<T>(r: &Registry, access: &Access, missing: Error) -> Result<T, Error> {
    match r.db().repository_exists(access.repository()).await? {
        true => Err(missing),
        false => Err(Error::NameUnknown),
    }
}

/// Who asks for an operation on the registry as a whole.
#[derive(Clone, Copy, Debug)]
pub enum Authority<'a> {
    /// An administrator.
    Administrator(&'a AdminAccess),
    /// A task of the server, which holds `Access::system` of any repository.
    System(&'a Access),
    /// Whoever has opened the data directory itself, offline.
    DataDirectory,
}

impl Authority<'_> {
    /// Who it is, for the event.
    pub(crate) fn actor(self) -> meta::Actor {
        let (subject, name, caller) = match self {
            Self::Administrator(admin) => (admin.subject_id(), admin.label(), admin.caller()),
            Self::System(access) => return actor(access),
            Self::DataDirectory => return meta::Actor::system("offline"),
        };
        actor_of(subject, name, caller)
    }
}

/// Who does it, for the event, and by which rules.
pub(crate) fn actor(access: &Access) -> meta::Actor {
    let actor = actor_of(access.subject_id(), access.label(), access.caller());
    meta::Actor { policy_epoch: access.epoch(), ..actor }
}

fn actor_of(subject: Option<policy::SubjectId>, name: String, caller: &policy::Caller) -> meta::Actor {
    meta::Actor {
        subject: subject.map(|subject| subject.0),
        name,
        credential: caller.credential_id.clone(),
        source: caller.source.clone(),
        request_id: caller.request_id.clone(),
        policy_epoch: None,
    }
}
