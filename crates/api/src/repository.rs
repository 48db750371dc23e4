//! Repositories and tags.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Time;

/// A repository. It comes into being with the first push that is finished.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Repository {
    /// Its name.
    #[schema(examples("payments/api"))]
    pub name: String,
    /// When the first push to it ended.
    pub created_at: Time,
    /// Who made it.
    pub created_by: String,
}

/// A repository with what it holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RepositoryDetail {
    /// Its name.
    pub name: String,
    /// When the first push to it ended.
    pub created_at: Time,
    /// Who made it.
    pub created_by: String,
    /// Tags.
    pub tags: u64,
    /// Manifests, indexes among them.
    pub manifests: u64,
    /// Blobs.
    pub blobs: u64,
    /// The sizes of the blobs, each counted once; what is shared with other repositories is counted in each.
    pub bytes: u64,
}

/// A tag and what it points at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Tag {
    /// The tag.
    #[schema(examples("v1.2.0"))]
    pub name: String,
    /// The digest of its manifest.
    pub digest: String,
    /// The media type of the manifest.
    pub media_type: String,
    /// The size of the manifest in bytes, without the layers.
    pub size: u64,
    /// When the tag was set to this digest.
    pub pushed_at: Time,
    /// By whom.
    #[schema(examples("robot:payments.api.deploy"))]
    pub pushed_by: String,
}
