//! Rows: blobs with their bytes, links, manifests with their edges, tags.

use std::collections::BTreeSet;

use blobs::Key;
use meta::{BlobCheck, Edge, EdgeKind, Location, ManifestCheck};
use oci::{Digest, Hasher, Manifest, RepositoryName};

use super::{Check, Code, Severity};
use crate::{Error, pull};

/// How many small rows are read at once.
const PAGE: usize = 200;

/// How many repositories with a damaged blob are named.
const HIT_NAMED: usize = 16;

/// How many manifests are read at once, each of up to 4 MiB.
const MANIFESTS: usize = 8;

/// What is wrong with the bytes of a blob.
enum Bytes {
    Right,
    /// Right, but the file was written at another time than recorded.
    Touched {
        key: String,
        mtime_ns: i64,
    },
    /// Other bytes, of the right length and time.
    Other {
        key: Key,
    },
    Wrong(Code, String),
}

impl Check<'_> {
    pub(super) async fn blobs(&mut self) -> Result<(), Error> {
        let mut after: Option<Digest> = None;
        loop {
            let page = self.r.db().check_blobs(after.as_ref(), PAGE).await?;
            let end = page.len() < PAGE;
            for row in page {
                self.blob(after.as_ref(), &row).await?;
                self.report.checked.blobs += 1;
                self.tell();
                after = Some(row.digest);
            }
            if end {
                return Ok(());
            }
        }
    }

    async fn blob(&mut self, before: Option<&Digest>, row: &BlobCheck) -> Result<(), Error> {
        let mut found = self.bytes(row).await?;
        if !matches!(found, Bytes::Right) {
            let Some(again) = self.blob_again(before, row).await? else { return Ok(()) };
            found = self.bytes(&again).await?;
        }
        match found {
            Bytes::Right => {}
            Bytes::Touched { key, mtime_ns } => {
                let message = format!("the file {key} was written to or copied, but holds the right bytes");
                self.add(Code::BlobTimeChanged, Severity::Note, message, Some(&row.digest), None);
                if self.repairs() {
                    self.r.db().record_mtime(&row.digest, &key, mtime_ns).await?;
                }
            }
            Bytes::Other { key } => {
                pull::distrust(self.r, &row.digest, &key).await;
                self.wrong_bytes(Code::BlobDamaged, &format!("the file {key} holds other bytes"), &row.digest).await?;
            }
            Bytes::Wrong(code, what) => self.wrong_bytes(code, &what, &row.digest).await?,
        }
        if !row.mark_agrees && self.blob_again(before, row).await?.is_some_and(|row| !row.mark_agrees) {
            let message = "the blob's mark does not say whether a repository has it".to_owned();
            self.add(Code::MarkWrong, Severity::Warning, message, Some(&row.digest), None);
            if self.repairs() {
                self.r.db().repair_blob_mark(&row.digest).await?;
            }
        }
        Ok(())
    }

    /// A blob is one for all repositories that have it: each is hit.
    async fn wrong_bytes(&mut self, code: Code, what: &str, digest: &Digest) -> Result<(), Error> {
        let mut names = self.r.db().linking_repositories(digest, HIT_NAMED + 1).await?;
        let more = if names.len() > HIT_NAMED { " and others" } else { "" };
        names.truncate(HIT_NAMED);
        let first = names.first().cloned();
        let hit = match names.iter().map(RepositoryName::as_str).collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => String::new(),
            names => format!(" of {names}{more}"),
        };
        let message = format!("{what}; push the blob{hit} again to heal it");
        self.add(code, Severity::Error, message, Some(digest), first.as_ref());
        Ok(())
    }

    async fn blob_again(&self, before: Option<&Digest>, row: &BlobCheck) -> Result<Option<BlobCheck>, Error> {
        let page = self.r.db().check_blobs(before, PAGE).await?;
        Ok(page.into_iter().find(|again| again.digest == row.digest))
    }

    async fn bytes(&self, row: &BlobCheck) -> Result<Bytes, Error> {
        let (key, recorded) = match &row.location {
            None => return Ok(Bytes::Wrong(Code::BlobMissing, "its bytes are not in the database".to_owned())),
            Some(Location::Inline(bytes)) => {
                let right = Hasher::digest(row.digest.algorithm(), bytes) == row.digest;
                return Ok(match right && bytes.len() as u64 == row.size {
                    true => Bytes::Right,
                    false => Bytes::Wrong(Code::BlobDamaged, "the database holds other bytes".to_owned()),
                });
            }
            Some(Location::File { key, mtime_ns }) => (key, *mtime_ns),
        };
        let Some(parsed) = Key::parse(key) else {
            return Ok(Bytes::Wrong(Code::BlobMissing, format!("it is said to lie at '{key}', which is no key")));
        };
        match self.r.blobs().hash_on_disk(&parsed, row.size, &[row.digest.algorithm()]).await {
            Ok((_, digests)) if digests.first() != Some(&row.digest) => Ok(Bytes::Other { key: parsed }),
            Ok((open, _)) if open.mtime_ns != recorded => {
                Ok(Bytes::Touched { key: key.clone(), mtime_ns: open.mtime_ns })
            }
            Ok(_) => Ok(Bytes::Right),
            Err(error @ blobs::Error::NotFound { .. }) => Ok(Bytes::Wrong(Code::BlobMissing, error.to_string())),
            Err(error @ (blobs::Error::Damaged { .. } | blobs::Error::Io { .. })) => {
                Ok(Bytes::Wrong(Code::BlobDamaged, error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn links(&mut self) -> Result<(), Error> {
        let mut after: Option<(i64, Digest)> = None;
        loop {
            let cursor = after.clone();
            let cursor = cursor.as_ref().map(|(id, digest)| (*id, digest));
            let page = self.r.db().check_links(cursor, PAGE).await?;
            for row in &page {
                let wrong = !row.has_blob && row.state == "live" || !row.mark_agrees;
                let again = match wrong {
                    true => self.r.db().check_links(cursor, PAGE).await?,
                    false => Vec::new(),
                };
                let again = again
                    .into_iter()
                    .find(|again| (again.repository_id, &again.digest) == (row.repository_id, &row.digest));
                if let Some(row) = again {
                    let (digest, repository) = (Some(&row.digest), Some(&row.repository));
                    if !row.has_blob && row.state == "live" {
                        let message = "the repository has a blob that is not in the store; push it again".to_owned();
                        self.add(Code::LinkDangling, Severity::Error, message, digest, repository);
                    }
                    if !row.mark_agrees {
                        let message = "the mark of the blob does not say whether a manifest names it".to_owned();
                        self.add(Code::MarkWrong, Severity::Warning, message, digest, repository);
                        if self.repairs() {
                            self.r.db().repair_link_mark(row.repository_id, &row.digest).await?;
                        }
                    }
                }
                self.report.checked.links += 1;
            }
            self.tell();
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some((last.repository_id, last.digest.clone())),
                _ => return Ok(()),
            }
        }
    }

    pub(super) async fn manifests(&mut self) -> Result<(), Error> {
        let mut after = None;
        loop {
            let page = self.r.db().check_manifests(after, MANIFESTS).await?;
            for row in &page {
                let mut wrong = self.manifest(row).await?;
                if wrong.is_some() {
                    let again = self.r.db().check_manifests(Some(row.id - 1), 1).await?;
                    wrong = match again.first().filter(|again| again.id == row.id) {
                        Some(again) => self.manifest(again).await?,
                        None => None,
                    };
                }
                if let Some((code, severity, message)) = wrong {
                    self.add(code, severity, message, Some(&row.digest), Some(&row.repository));
                }
                self.report.checked.manifests += 1;
                self.tell();
            }
            match page.last() {
                Some(last) if page.len() == MANIFESTS => after = Some(last.id),
                _ => return Ok(()),
            }
        }
    }

    /// The first thing that is wrong with a manifest.
    async fn manifest(&self, row: &ManifestCheck) -> Result<Option<(Code, Severity, String)>, Error> {
        let error = |code, what: &str| Ok(Some((code, Severity::Error, what.to_owned())));
        let Some(bytes) = &row.bytes else {
            return error(Code::ManifestMissing, "the bytes of the manifest are gone; push it again");
        };
        if Hasher::digest(row.digest.algorithm(), bytes) != row.digest || bytes.len() as u64 != row.size {
            return error(Code::ManifestDamaged, "the database holds other bytes; push the manifest again");
        }
        if row.state == "deleted" {
            return match row.edges.is_empty() {
                true => Ok(None),
                false => error(Code::ManifestDiffers, "the manifest is deleted but still keeps blobs"),
            };
        }
        let manifest = match Manifest::parse(bytes, Some(&row.media_type)) {
            Ok(manifest) => manifest,
            Err(why) => {
                let message = format!("this version of the program would refuse the manifest: {why}");
                return Ok(Some((Code::ManifestUnreadable, Severity::Warning, message)));
            }
        };
        let recorded: BTreeSet<Edge> = row.edges.iter().cloned().collect();
        let subject = manifest.subject.as_ref().map(|subject| &subject.digest);
        if recorded != edges(&manifest) || subject != row.subject.as_ref() {
            return error(Code::ManifestDiffers, "what is recorded of the manifest is not what it says; push it again");
        }
        match self.missing(row, &manifest).await? {
            None => Ok(None),
            Some(blob) => {
                let message =
                    format!("the manifest needs the blob {blob}, which is not in the repository; push it again");
                Ok(Some((Code::ManifestIncomplete, Severity::Error, message)))
            }
        }
    }

    /// A blob that a push of this manifest would ask for and that is not there.
    async fn missing(&self, row: &ManifestCheck, manifest: &Manifest) -> Result<Option<Digest>, Error> {
        if self.r.settings().sparse_images {
            return Ok(None);
        }
        let edges = self.r.db().check_edges(Some(row.id - 1), 1).await?;
        let here = |digest: &&Digest| {
            !edges.iter().any(|edge| edge.manifest_id == row.id && edge.target == **digest && !edge.has_blob)
        };
        Ok(manifest.required().iter().find(|digest| !here(digest)).cloned())
    }

    pub(super) async fn tags(&mut self) -> Result<(), Error> {
        let mut after = None;
        loop {
            let page = self.r.db().check_tags(after, PAGE).await?;
            for row in &page {
                self.report.checked.tags += 1;
                if row.has_manifest {
                    continue;
                }
                let again = self.r.db().check_tags(Some(row.id - 1), 1).await?;
                if again.first().is_some_and(|again| again.id == row.id && !again.has_manifest) {
                    let message = format!("the tag {} points to a manifest that is not there; push it again", row.tag);
                    let (digest, repository) = (Some(&row.digest), Some(&row.repository));
                    self.add(Code::TagDangling, Severity::Error, message, digest, repository);
                }
            }
            self.tell();
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some(last.id),
                _ => return Ok(()),
            }
        }
    }
}

/// The edges that a manifest has in the database; its subject is no row.
fn edges(manifest: &Manifest) -> BTreeSet<Edge> {
    crate::manifest::edges(manifest).into_iter().filter(|edge| edge.kind != EdgeKind::Subject).collect()
}
