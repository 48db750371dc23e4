//! Taking in the body of a request.

use blobs::{Key, Writer};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use meta::UploadRow;
use oci::{Algorithm, Digest, Hasher};

use super::lease::{Lease, Progress};
use crate::{Body, Error, INLINE_MAX, Registry};

/// Everything of the session that is durable, with its lease still held.
pub(super) struct Received {
    pub lease: Lease,
    pub offset: u64,
    pub stored: Stored,
    hashers: Vec<Hasher>,
    key: Option<Key>,
}

/// Where a session's bytes lie.
pub(super) enum Stored {
    Inline(Bytes),
    File { key: Key, mtime_ns: i64 },
}

/// The hashes of a session: resumed, or of nothing yet by `algorithms`. One that cannot be resumed is left out, and
/// the bytes are read again at the end.
pub(super) fn hashers(row: &UploadRow, algorithms: &[Algorithm]) -> Vec<Hasher> {
    match row.offset {
        0 => algorithms.iter().copied().map(Hasher::new).collect(),
        _ => row.states.iter().filter_map(|state| Hasher::resume(state)).collect(),
    }
}

/// Takes in `body` behind what the session has, and syncs it. The row is not written yet, unless this fails: then it
/// says what was kept, and the lease is given back.
///
/// `expected` bytes must come; if others do, the session stays at its offset. A body that breaks off and a failed
/// write keep what came before.
pub(super) async fn receive(
    lease: Lease,
    row: UploadRow,
    hashers: Vec<Hasher>,
    mut body: Body,
    expected: Option<u64>,
) -> Result<Received, Error> {
    let mut sink = match Sink::open(&lease, row, hashers).await {
        Ok(sink) => sink,
        Err(Refused { error, discard: true }) => {
            lease.discard().await;
            return Err(error);
        }
        Err(Refused { error, discard: false }) => {
            lease.release().await;
            return Err(error);
        }
    };
    let mut actual = 0;
    while let Some(frame) = body.next().await {
        let bytes = match frame {
            Ok(bytes) => bytes,
            Err(error) => return Err(sink.keep(lease, Error::ClientGone(error)).await),
        };
        actual += bytes.len() as u64;
        if expected.is_some_and(|expected| actual > expected) {
            break;
        }
        if lease.lost() {
            sink.abandon().await;
            lease.forget();
            return Err(Error::UploadUnknown);
        }
        if let Err(error) = sink.write(&lease, bytes).await {
            return Err(sink.keep(lease, error).await);
        }
    }
    if let Some(expected) = expected.filter(|expected| *expected != actual) {
        sink.abandon().await;
        lease.release().await;
        return Err(Error::SizeMismatch { expected, actual });
    }
    sink.finish(lease).await
}

impl Received {
    /// The digest of the bytes, from the hash made while they came in, or else by reading them again.
    pub(super) async fn digest(&self, r: &Registry, algorithm: Algorithm) -> Result<Digest, Error> {
        if let Some(hasher) = self.hashers.iter().find(|hasher| hasher.algorithm() == algorithm) {
            return Ok(hasher.clone().finish());
        }
        match &self.stored {
            Stored::Inline(bytes) => Ok(Hasher::digest(algorithm, bytes)),
            Stored::File { key, .. } => {
                let (size, digests) = r.blobs().hash(key, &[algorithm]).await?;
                let digest = digests.into_iter().next().filter(|_| size == self.offset);
                digest
                    .ok_or_else(|| Error::internal(format!("the upload's file has {size} bytes, not {}", self.offset)))
            }
        }
    }

    /// Writes the row, for the session to go on later.
    pub(super) async fn save(self) -> Result<bool, Error> {
        let states = self.hashers.iter().map(Hasher::export).collect();
        let inline = match self.stored {
            Stored::Inline(bytes) => Some(bytes),
            Stored::File { .. } => None,
        };
        self.lease.save(Progress { offset: self.offset, states, inline, key: self.key }).await
    }
}

/// Where the bytes go while they come in.
struct Sink {
    target: Target,
    /// The key that the row names, whether there is a file or not.
    key: Option<Key>,
}

enum Target {
    Inline(Inline),
    /// `head` is what the row holds, when this request has moved it to the file: it outlives a disk that is full.
    File {
        writer: Box<Writer>,
        head: Option<Inline>,
    },
}

struct Inline {
    bytes: BytesMut,
    hashers: Vec<Hasher>,
}

/// A session that cannot be opened.
struct Refused {
    error: Error,
    /// Its bytes are gone, so it cannot go on at all.
    discard: bool,
}

impl Sink {
    async fn open(lease: &Lease, row: UploadRow, hashers: Vec<Hasher>) -> Result<Self, Refused> {
        let key = row.key.as_deref().and_then(Key::parse);
        let (true, Some(key)) = (row.inline.is_none() && row.offset > 0, &key) else {
            let bytes = row.inline.as_deref().unwrap_or_default();
            if bytes.len() as u64 != row.offset {
                let error = Error::internal(format!("the upload {} has lost its bytes", row.id));
                return Err(Refused { error, discard: true });
            }
            return Ok(Self { target: Target::Inline(Inline { bytes: bytes.into(), hashers }), key });
        };
        let Some(r) = lease.registry() else { return Err(Refused { error: Error::UploadUnknown, discard: false }) };
        match r.blobs().writer(key, row.offset, hashers).await {
            Ok(writer) => {
                let target = Target::File { writer: Box::new(writer), head: None };
                Ok(Self { target, key: Some(key.clone()) })
            }
            Err(blobs::Error::Busy { .. }) => Err(Refused { error: lease.busy(&row), discard: false }),
            Err(error @ (blobs::Error::NotFound { .. } | blobs::Error::Damaged { .. })) => {
                tracing::warn!(
                    upload = row.id,
                    error = &error as &dyn std::error::Error,
                    "an upload has lost its bytes"
                );
                Err(Refused { error: Error::UploadUnknown, discard: true })
            }
            Err(error) => Err(Refused { error: error.into(), discard: false }),
        }
    }

    async fn write(&mut self, lease: &Lease, frame: Bytes) -> Result<(), Error> {
        match &mut self.target {
            Target::Inline(Inline { bytes, hashers }) if bytes.len() + frame.len() <= INLINE_MAX => {
                hashers.iter_mut().for_each(|hasher| hasher.update(&frame));
                bytes.extend_from_slice(&frame);
                return Ok(());
            }
            Target::Inline(_) => self.spill(lease).await?,
            Target::File { .. } => {}
        }
        match &mut self.target {
            Target::File { writer, .. } => Ok(writer.write(frame).await?),
            Target::Inline(_) => Err(Error::internal("the upload has no file")),
        }
    }

    /// From the row to a file. When it fails, the bytes in memory are still good.
    async fn spill(&mut self, lease: &Lease) -> Result<(), Error> {
        let Target::Inline(head) = &mut self.target else { return Ok(()) };
        let r = lease.registry().ok_or(Error::UploadUnknown)?;
        let key = match &self.key {
            Some(key) => key.clone(),
            None => lease.name_key().await?,
        };
        self.key = Some(key.clone());
        let fresh = head.hashers.iter().map(|hasher| Hasher::new(hasher.algorithm())).collect();
        let mut writer = r.blobs().writer(&key, 0, fresh).await?;
        writer.write(Bytes::copy_from_slice(&head.bytes)).await?;
        let head = Inline { bytes: std::mem::take(&mut head.bytes), hashers: std::mem::take(&mut head.hashers) };
        self.target = Target::File { writer: Box::new(writer), head: Some(head) };
        Ok(())
    }

    /// Keeps what is good after `error`, writes it to the row and gives the lease back.
    async fn keep(self, lease: Lease, error: Error) -> Error {
        let kept = match self.target {
            Target::Inline(whole) => Ok(inline(whole, self.key, lease)),
            Target::File { mut writer, head } => {
                // After a failed write this fails again, and keeps what came before it.
                let _ = writer.flush().await;
                match (writer.keep().await, head) {
                    (Ok(written), Some(head)) if written.size < head.bytes.len() as u64 => {
                        Ok(inline(head, self.key, lease))
                    }
                    (Err(error), Some(head)) if !matches!(error, blobs::Error::Unsynced { .. }) => {
                        Ok(inline(head, self.key, lease))
                    }
                    (written, _) => synced(written, self.key, lease).await,
                }
            }
        };
        if let Ok(received) = kept {
            // If it fails, the session stays where it was before this request.
            let _ = received.save().await;
        }
        error
    }

    async fn finish(self, lease: Lease) -> Result<Received, Error> {
        match self.target {
            Target::Inline(whole) => Ok(inline(whole, self.key, lease)),
            Target::File { mut writer, head } => match writer.flush().await {
                Ok(()) => synced(writer.finish().await, self.key, lease).await,
                Err(error) => {
                    let sink = Self { target: Target::File { writer, head }, key: self.key };
                    Err(sink.keep(lease, error.into()).await)
                }
            },
        }
    }

    /// Waits for what is being written, so that the next request does not meet it.
    async fn abandon(self) {
        if let Target::File { mut writer, .. } = self.target {
            let _ = writer.flush().await;
        }
    }
}

fn inline(Inline { bytes, hashers }: Inline, key: Option<Key>, lease: Lease) -> Received {
    Received { lease, offset: bytes.len() as u64, stored: Stored::Inline(bytes.freeze()), hashers, key }
}

async fn synced(
    written: Result<blobs::Written, blobs::Error>,
    key: Option<Key>,
    lease: Lease,
) -> Result<Received, Error> {
    match (written, key) {
        (Ok(written), Some(key)) => {
            let stored = Stored::File { key: key.clone(), mtime_ns: written.mtime_ns };
            Ok(Received { lease, offset: written.size, stored, hashers: written.hashers, key: Some(key) })
        }
        (Err(error @ blobs::Error::Unsynced { .. }), _) => {
            lease.discard().await;
            Err(error.into())
        }
        (Err(error), _) => {
            lease.release().await;
            Err(error.into())
        }
        (Ok(_), None) => {
            lease.release().await;
            Err(Error::internal("an upload's file without a key"))
        }
    }
}
