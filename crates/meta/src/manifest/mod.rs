//! Manifests: one body for all repositories, a row in each, an edge to everything that it names.

mod delete;
mod push;
mod read;

use bytes::Bytes;
use oci::{Digest, Tag};

use crate::error::Error;
use crate::tx::Tx;

pub(crate) use delete::remove as remove_rows;
pub use delete::{DeleteManifest, TagJudge};
pub use push::{PushManifest, TagChange};
pub use read::{ManifestRow, ManifestStat};

/// What a manifest names a digest as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EdgeKind {
    /// The configuration of an image.
    Config,
    /// A layer.
    Layer,
    /// A blob of an artifact.
    Blob,
    /// An entry of an index: a manifest, or a blob (build caches do that), which the edge keeps.
    Child,
    /// The subject. It keeps nothing; it is the column `subject` of the manifest, not a row.
    Subject,
}

impl EdgeKind {
    /// The name in rows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Layer => "layer",
            Self::Blob => "blob",
            Self::Child => "child",
            Self::Subject => "subject",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        match text {
            "config" => Ok(Self::Config),
            "layer" => Ok(Self::Layer),
            "blob" => Ok(Self::Blob),
            "child" => Ok(Self::Child),
            _ => Err(Error::corrupt(format!("an edge of the unknown kind '{text}'"))),
        }
    }
}

/// What a manifest names. The target need not exist.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edge {
    /// The digest that it names.
    pub target: Digest,
    /// As what.
    pub kind: EdgeKind,
}

/// A manifest that was parsed and whose digest was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewManifest {
    /// The digest of `bytes`, of the algorithm that it was pushed by.
    pub digest: Digest,
    /// The media type that it is served with in this repository.
    pub media_type: String,
    /// Exactly as pushed.
    pub bytes: Bytes,
    /// The type that the list of referrers shows and filters by.
    pub artifact_type: Option<String>,
    /// The annotations that the list of referrers shows: a JSON object as text.
    pub annotations: Option<String>,
    /// The manifest that this one refers to.
    pub subject: Option<Digest>,
    /// Everything that it names.
    pub edges: Vec<Edge>,
    /// What must be a live blob of the repository.
    pub required: Vec<Digest>,
}

/// A tag that a push sets, and what the caller may do to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagRight {
    /// The tag.
    pub tag: Tag,
    /// Whether the caller may create it.
    pub create: bool,
    /// Whether the caller may move it to another manifest.
    pub move_: bool,
}

/// What a push would have had to do to a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagVerb {
    /// Create it.
    Create,
    /// Move it.
    Move,
}

/// The edges of a manifest, in the order of their targets.
pub(crate) async fn edges(tx: &mut Tx, manifest: i64) -> Result<Vec<Edge>, Error> {
    tx.query("SELECT target, kind FROM edge WHERE manifest_id = $1 ORDER BY target, kind", &[manifest.into()], |row| {
        Ok(Edge { target: row.get(0)?, kind: EdgeKind::parse(&row.get::<String>(1)?)? })
    })
    .await
}
