//! Receiving blobs: upload sessions, uploads in one request, and mounts.
//!
//! A session is a row: who opened it, how many bytes it has, the state of its hashes, and where its bytes lie (in the
//! row up to [`crate::INLINE_MAX`], beyond that in a file named after the session). A request that sends to it holds
//! its lease. The bytes are synced before the row says that they are there, so a row never claims more than the disk
//! has, and a session goes on after a restart where it was.

mod lease;
mod mount;
mod receive;

use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use meta::{Finish, Location, NewBlob};
use oci::{Algorithm, ContentRange, Digest, Hasher};
use policy::Access;

use crate::right::Decisions;
use crate::{Body, Error, INLINE_MAX, Registry, Right, actor};
use lease::Lease;
use receive::{Received, Stored, receive};

pub use mount::{mount, mount_from_anywhere};

/// For this long a lease is held without being renewed.
const LEASE: Duration = Duration::from_secs(30);

/// The id of an upload session: a random UUID (122 bits) in lower case with dashes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct UploadId(String);

impl UploadId {
    /// Parses an id; `None` when it is not one, and so belongs to no session.
    pub fn parse(text: &str) -> Option<Self> {
        let id = uuid::Uuid::try_parse(text).ok()?.hyphenated().to_string();
        (id == text).then_some(Self(id))
    }

    fn random(registry: &Registry) -> Self {
        Self(uuid::Builder::from_random_bytes(registry.random()).into_uuid().hyphenated().to_string())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of the session's file.
    fn key(&self) -> Result<blobs::Key, Error> {
        blobs::Key::parse(&self.0.replace('-', "")).ok_or_else(|| Error::internal("an upload id that is not a key"))
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A session, as its status shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Its id.
    pub id: UploadId,
    /// How many bytes were received and kept.
    pub offset: u64,
}

/// Where the request says that its bytes go, and how many there are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Position {
    /// The offset that the upload's URL carries. It counts only where there is no `range`.
    pub offset: Option<u64>,
    /// `Content-Range`.
    pub range: Option<ContentRange>,
    /// `Content-Length`; `None` for a chunked body.
    pub length: Option<u64>,
}

/// Opens a session. With `algorithm` the bytes are hashed by it too while they come in.
pub async fn start(r: &Registry, access: &Access, algorithm: Option<Algorithm>) -> Result<Upload, Error> {
    let id = UploadId::random(r);
    let limit = r.settings().uploads_per_subject;
    match r.db().create_upload(id.as_str(), access.repository(), owner(access), algorithm, limit).await? {
        meta::CreateUpload::Created => Ok(Upload { id, offset: 0 }),
        meta::CreateUpload::TooMany => Err(Error::TooManyUploads { limit }),
    }
}

/// How far a session is.
pub async fn status(r: &Registry, access: &Access, id: &UploadId) -> Result<Upload, Error> {
    let row = r.db().upload(access.repository(), id.as_str(), owner(access)).await?.ok_or(Error::UploadUnknown)?;
    Ok(Upload { id: id.clone(), offset: row.offset })
}

/// Discards a session, even while another request sends to it: that one then fails.
pub async fn cancel(r: &Registry, access: &Access, id: &UploadId) -> Result<(), Error> {
    match r.db().cancel_upload(access.repository(), id.as_str(), owner(access)).await? {
        true => Ok(()),
        false => Err(Error::UploadUnknown),
    }
}

/// Adds bytes to a session. When the body breaks off, or the disk is full, what came before is kept.
///
/// The work goes on to its orderly end when this future is dropped.
pub async fn append(
    r: &Registry,
    access: &Access,
    id: &UploadId,
    position: Position,
    body: Body,
) -> Result<Upload, Error> {
    let (registry, access, upload) = (r.clone(), access.clone(), id.clone());
    let received = spawn(async move {
        let (lease, row, expected) = take(&registry, &access, &upload, position).await?;
        let hashers = receive::hashers(&row, &new_hashers(&row));
        let received = receive(lease, row, hashers, body, expected).await?;
        let offset = received.offset;
        match received.save().await? {
            true => Ok(offset),
            false => Err(Error::UploadUnknown),
        }
    });
    Ok(Upload { id: id.clone(), offset: received.await? })
}

/// Adds the last bytes, if any, and makes the whole upload the blob `digest` of the repository.
///
/// The blob is durable when this returns. A wrong digest discards the session; anything found wrong before the body
/// is read, a break in the body, and a full disk leave it alive.
pub async fn finish(
    r: &Registry,
    access: &Access,
    id: &UploadId,
    position: Position,
    digest: &Digest,
    body: Body,
    right: &dyn Right,
) -> Result<Digest, Error> {
    let received = close(r, access, id, position, digest, body).await?;
    complete(r, received, digest, right).await
}

/// Takes in the last bytes of an upload, which is to be of this digest.
async fn close(
    r: &Registry,
    access: &Access,
    id: &UploadId,
    position: Position,
    digest: &Digest,
    body: Body,
) -> Result<Received, Error> {
    let (registry, access, upload) = (r.clone(), access.clone(), id.clone());
    let algorithm = digest.algorithm();
    spawn(async move {
        let (lease, row, expected) = take(&registry, &access, &upload, position).await?;
        let hashers = receive::hashers(&row, &[algorithm]);
        receive(lease, row, hashers, body, expected).await
    })
    .await
}

/// Receives a blob in one request. Nothing is left of it when it fails, for the client knows no session to resume.
pub async fn monolithic(
    r: &Registry,
    access: &Access,
    digest: &Digest,
    length: Option<u64>,
    mut body: Body,
    right: &dyn Right,
) -> Result<Digest, Error> {
    let mut head = BytesMut::new();
    while head.len() <= INLINE_MAX {
        match body.next().await {
            Some(Ok(bytes)) => head.extend_from_slice(&bytes),
            Some(Err(error)) => return Err(Error::ClientGone(error)),
            None => return small(r, digest, length, head.freeze(), right).await,
        }
    }
    let upload = start(r, access, None).await?;
    let position = Position { length, ..Position::default() };
    let body = stream::once(async { Ok(head.freeze()) }).chain(body).boxed();
    let discard = Discard { registry: r.clone(), access: access.clone(), id: Some(upload.id.clone()) };
    let done = finish(r, access, &upload.id, position, digest, body, right).await;
    discard.disarm();
    if let Err(error) = &done {
        undo(r, access, &upload.id, error).await;
    }
    done
}

/// Removes what an upload in one request has left behind. The bytes go first, so that on a full disk there is room for the
/// end of the row.
async fn undo(r: &Registry, access: &Access, id: &UploadId, error: &Error) {
    // A commit that may have been made names the file: then collection finds out.
    if !matches!(error, Error::Internal(_) | Error::Unsure(_))
        && let Ok(key) = id.key()
        && let Err(error) = r.blobs().delete(&key).await
    {
        tracing::warn!(upload = id.as_str(), error = &error as &dyn std::error::Error, "a file stays for collection");
    }
    // If it fails, the session expires.
    let _ = cancel(r, access, id).await;
}

/// A blob that fits in the database needs no session.
async fn small(
    r: &Registry,
    digest: &Digest,
    length: Option<u64>,
    bytes: Bytes,
    right: &dyn Right,
) -> Result<Digest, Error> {
    let size = bytes.len() as u64;
    if let Some(expected) = length.filter(|length| *length != size) {
        return Err(Error::SizeMismatch { expected, actual: size });
    }
    let actual = Hasher::digest(digest.algorithm(), &bytes);
    if actual != *digest {
        return Err(Error::DigestMismatch { expected: digest.clone(), actual });
    }
    let blob = NewBlob { digest: actual, size, location: Location::Inline(bytes) };
    commit(r, None, blob, right).await?;
    Ok(digest.clone())
}

/// The transaction that ends an upload, by the rights of its moment.
async fn commit(
    r: &Registry,
    session: Option<(&str, &str)>,
    blob: NewBlob,
    right: &dyn Right,
) -> Result<Finish, Error> {
    let mut decisions = Decisions::on(right);
    loop {
        let access = decisions.next().await?;
        match r.db().finish_upload(access.repository(), session, blob.clone(), &actor(&access)).await {
            Err(meta::Error::Outdated) => {}
            done => return Ok(done?),
        }
    }
}

/// Discards the session of an upload in one request whose future is dropped.
struct Discard {
    registry: Registry,
    access: Access,
    id: Option<UploadId>,
}

impl Discard {
    fn disarm(mut self) {
        self.id = None;
    }
}

impl Drop for Discard {
    fn drop(&mut self) {
        let (Some(id), Ok(runtime)) = (self.id.take(), tokio::runtime::Handle::try_current()) else { return };
        let (r, access) = (self.registry.clone(), self.access.clone());
        runtime.spawn(async move {
            // If it fails, the session expires.
            let _ = cancel(&r, &access, &id).await;
        });
    }
}

/// The lease of a session, once all is found right that can be judged before the body: the session exists, nobody
/// else sends to it, and the bytes follow on those received. Also how many bytes the body must have, where it is known.
async fn take(
    r: &Registry,
    access: &Access,
    id: &UploadId,
    position: Position,
) -> Result<(Lease, meta::UploadRow, Option<u64>), Error> {
    let holder: [u8; 16] = r.random();
    let holder = holder.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let row = match r.db().lease_upload(access.repository(), id.as_str(), owner(access), &holder, LEASE).await {
        Err(error) => {
            // Lost on the way back, it may have been taken all the same.
            if !error.is_certainly_aborted() {
                lease::give_back(r.clone(), id.clone(), holder);
            }
            return Err(error.into());
        }
        Ok(meta::Lease::Taken(row)) => row,
        Ok(meta::Lease::Busy(row)) => return Err(Error::UploadBusy { id: id.clone(), offset: row.offset }),
        Ok(meta::Lease::Gone) => return Err(Error::UploadUnknown),
    };
    let lease = Lease::hold(r.clone(), access, id.clone(), holder);
    match expected_length(id, row.offset, position) {
        Ok(expected) => Ok((lease, row, expected)),
        Err(error) => {
            lease.release().await;
            Err(error)
        }
    }
}

fn expected_length(id: &UploadId, offset: u64, position: Position) -> Result<Option<u64>, Error> {
    let out_of_range = || Error::OutOfRange { id: id.clone(), offset };
    let Some(range) = position.range else {
        return match position.offset {
            Some(claimed) if claimed != offset => Err(out_of_range()),
            _ => Ok(position.length),
        };
    };
    if range.start != offset {
        return Err(out_of_range());
    }
    match position.length {
        Some(actual) if actual != range.length() => Err(Error::SizeMismatch { expected: range.length(), actual }),
        _ => Ok(Some(range.length())),
    }
}

/// From verified bytes to the row: digest, right, transaction.
async fn complete(r: &Registry, received: Received, digest: &Digest, right: &dyn Right) -> Result<Digest, Error> {
    let actual = match received.digest(r, digest.algorithm()).await {
        Ok(actual) => actual,
        Err(error) => {
            let _ = received.save().await;
            return Err(error);
        }
    };
    if actual != *digest {
        received.lease.discard().await;
        return Err(Error::DigestMismatch { expected: digest.clone(), actual });
    }
    let location = match &received.stored {
        Stored::Inline(bytes) => Location::Inline(bytes.clone()),
        Stored::File { key, mtime_ns } => Location::File { key: key.as_str().to_owned(), mtime_ns: *mtime_ns },
    };
    let blob = NewBlob { digest: actual, size: received.offset, location };
    let session = Some(received.lease.session());
    match commit(r, session, blob, right).await {
        Ok(Finish::Done) => {
            received.lease.forget();
            Ok(digest.clone())
        }
        Ok(Finish::UploadGone) => {
            received.lease.forget();
            Err(Error::UploadUnknown)
        }
        Err(refused @ Error::Refused(_)) => {
            received.lease.discard().await;
            Err(refused)
        }
        Err(error) => {
            // If it was committed after all, the row is gone and nothing is saved. If it cannot be saved, the session stays
            // where it was. The first error counts: whether the commit was made is known from it.
            let _ = received.save().await;
            Err(error)
        }
    }
}

/// By which algorithms a session's bytes are hashed while they come in.
fn new_hashers(row: &meta::UploadRow) -> Vec<Algorithm> {
    let mut algorithms = vec![Algorithm::Sha256];
    algorithms.extend(row.algorithm.filter(|algorithm| *algorithm != Algorithm::Sha256));
    algorithms
}

/// Runs `work` to its end even when the future that waits for it is dropped.
async fn spawn<T: Send + 'static>(work: impl Future<Output = Result<T, Error>> + Send + 'static) -> Result<T, Error> {
    tokio::spawn(work).await.unwrap_or_else(|error| Err(Error::internal(error)))
}

/// Whose sessions these are. Nobody has the id 0.
fn owner(access: &Access) -> i64 {
    access.subject_id().map_or(0, |subject| subject.0)
}
