//! The lease of an upload session: who holds it is the only one to send to the session.

use std::time::Duration;

use meta::UploadRow;
use oci::RepositoryName;
use policy::Access;
use tokio::task::JoinHandle;

use super::{LEASE, UploadId, owner};
use crate::{Error, Registry};

/// How often a held lease is renewed.
const RENEWAL: Duration = Duration::from_secs(10);

/// An answer does not wait longer for a lease to be given back.
const PATIENCE: Duration = Duration::from_secs(1);

/// Between two attempts to give it back.
const PAUSE: Duration = Duration::from_millis(200);

/// A held lease. It is renewed until it is dropped, and given back on every path.
pub(super) struct Lease {
    held: Option<Held>,
    ticker: JoinHandle<()>,
}

struct Held {
    registry: Registry,
    repository: RepositoryName,
    id: UploadId,
    owner: i64,
    holder: String,
}

/// What the session's row is to say from now on.
pub(super) struct Progress {
    pub offset: u64,
    pub states: Vec<Vec<u8>>,
    pub inline: Option<bytes::Bytes>,
    pub key: Option<blobs::Key>,
}

impl Lease {
    pub(super) fn hold(registry: Registry, access: &Access, id: UploadId, holder: String) -> Self {
        let (r, text, name) = (registry.clone(), id.clone(), holder.clone());
        let ticker = tokio::spawn(async move {
            loop {
                tokio::time::sleep(RENEWAL).await;
                // A database that does not answer is no reason to give up: the lease may outlast it, and the last
                // step checks it anyhow.
                if let Ok(false) = r.db().renew_upload(text.as_str(), &name, LEASE).await {
                    break;
                }
            }
        });
        let (repository, owner) = (access.repository().clone(), owner(access));
        Self { held: Some(Held { registry, repository, id, owner, holder }), ticker }
    }

    /// Whether another request may have the session by now, or it was cancelled.
    pub(super) fn lost(&self) -> bool {
        self.ticker.is_finished()
    }

    fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    pub(super) fn registry(&self) -> Option<&Registry> {
        self.held().map(|held| &held.registry)
    }

    /// The session and its holder, for the last transaction.
    pub(super) fn session(&self) -> (&str, &str) {
        self.held().map_or(("", ""), |held| (held.id.as_str(), &held.holder))
    }

    /// The error for bytes that cannot be taken in because another request still works on the session's file.
    pub(super) fn busy(&self, row: &UploadRow) -> Error {
        match self.held() {
            Some(held) => Error::UploadBusy { id: held.id.clone(), offset: row.offset },
            None => Error::UploadUnknown,
        }
    }

    /// Says where the session's bytes will lie, before there is a file, so that no file is unknown.
    pub(super) async fn name_key(&self) -> Result<blobs::Key, Error> {
        let Some(held) = self.held() else { return Err(Error::UploadUnknown) };
        let key = held.id.key()?;
        match held.registry.db().name_upload_key(held.id.as_str(), &held.holder, key.as_str()).await? {
            true => Ok(key),
            false => Err(Error::UploadUnknown),
        }
    }

    /// Writes the row and gives the lease back; `false` when it was lost or the session is gone.
    pub(super) async fn save(mut self, progress: Progress) -> Result<bool, Error> {
        match self.held.take() {
            Some(held) => held.save(progress).await,
            None => Ok(false),
        }
    }

    /// Gives the lease back and leaves the row as it was.
    pub(super) async fn release(mut self) {
        if let Some(held) = self.held.take() {
            held.release().await;
        }
    }

    /// Ends the session; its file becomes garbage.
    pub(super) async fn discard(mut self) {
        if let Some(held) = self.held.take() {
            // If it fails, the session expires.
            let _ = held.registry.db().cancel_upload(&held.repository, held.id.as_str(), held.owner).await;
        }
    }

    /// The session's row is gone: there is nothing to give back.
    pub(super) fn forget(mut self) {
        self.held = None;
    }
}

impl Held {
    async fn save(self, progress: Progress) -> Result<bool, Error> {
        let Progress { offset, states, inline, key } = progress;
        let key = key.map(|key| key.as_str().to_owned());
        let saved = self.registry.db().save_upload(self.id.as_str(), &self.holder, offset, states, inline, key).await;
        if saved.is_err() {
            give_back(self.registry, self.id, self.holder);
        }
        Ok(saved?)
    }

    async fn release(self) {
        let released = self.registry.db().release_upload(self.id.as_str(), &self.holder);
        if !matches!(tokio::time::timeout(PATIENCE, released).await, Ok(Ok(_))) {
            give_back(self.registry, self.id, self.holder);
        }
    }
}

/// Gives a lease back in the background, as soon as a database that is away is there again: the client goes on with the
/// session then, and would find it taken. When nothing helps, the lease runs out by itself.
pub(super) fn give_back(registry: Registry, id: UploadId, holder: String) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async move {
        let again = async {
            while registry.db().release_upload(id.as_str(), &holder).await.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
        };
        let _ = tokio::time::timeout(LEASE, again).await;
    });
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.ticker.abort();
        // Only when the future of the last step was dropped: everything else has given it back.
        if let (Some(held), Ok(runtime)) = (self.held.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(held.release());
        }
    }
}
