//! Files: those of upload sessions, and those that no row knows.

use blobs::Key;

use super::{Check, Code, Severity};
use crate::{Error, gc};

/// How many sessions are read at once.
const PAGE: usize = 200;

impl Check<'_> {
    /// The bytes that a session says it has were synced before the row was written.
    pub(super) async fn uploads(&mut self) -> Result<(), Error> {
        let mut after: Option<String> = None;
        loop {
            let page = self.r.db().check_uploads(after.as_deref(), PAGE).await?;
            for row in &page {
                if self.lost(row).await? {
                    let again = self.r.db().check_uploads(after.as_deref(), PAGE).await?;
                    let again = again.iter().find(|again| again.id == row.id);
                    if let Some(row) = again
                        && self.lost(row).await?
                    {
                        let message = format!("the upload {} has lost its bytes; its client has to start anew", row.id);
                        self.add(Code::UploadDamaged, Severity::Warning, message, None, Some(&row.repository));
                    }
                }
            }
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some(last.id.clone()),
                _ => return Ok(()),
            }
        }
    }

    async fn lost(&self, row: &meta::UploadRow) -> Result<bool, Error> {
        if let Some(bytes) = &row.inline {
            return Ok(bytes.len() as u64 != row.offset);
        }
        if row.offset == 0 {
            return Ok(false);
        }
        let Some(key) = row.key.as_deref().and_then(Key::parse) else { return Ok(true) };
        match self.r.blobs().open_any(&key).await {
            Ok(open) => Ok(open.size < row.offset),
            Err(blobs::Error::NotFound { .. } | blobs::Error::Damaged { .. }) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn files(&mut self) -> Result<(), Error> {
        for name in self.r.blobs().strays().await? {
            let message = format!("blobs/{name} is not of the store; remove it if you know what it is");
            self.add(Code::StrayFile, Severity::Note, message, None, None);
        }
        for prefix in 0..=u8::MAX {
            for entry in self.r.blobs().list_prefix(prefix).await? {
                if entry.key.is_none() {
                    let message = format!("blobs/{} is not of the store; remove it if you know what it is", entry.name);
                    self.add(Code::StrayFile, Severity::Note, message, None, None);
                }
            }
            for orphan in gc::orphans(self.r, prefix, self.r.now()).await? {
                let Some(key) = &orphan.key else { continue };
                let message = format!("blobs/{} is known to no row; collection will remove it", orphan.name);
                self.add(Code::OrphanFile, Severity::Note, message, None, None);
                if self.repairs() {
                    self.r.blobs().delete(key).await?;
                }
            }
            self.tell();
        }
        Ok(())
    }
}
