//! Which operation a `/v2` request asks for: method and path, parsed once into types that cannot be wrong.
//!
//! Paths are read from the right, since a component of a repository's name may itself be `blobs`, `manifests`, `tags`,
//! `uploads` or `referrers` (the specification, "Pulling manifests"). Each component is percent-decoded exactly once,
//! after the path was cut at its slashes, so that an encoded slash never makes a component.

use std::borrow::Cow;

use http::Method;
use oci::{Digest, Error, ErrorCode, Reference, RepositoryName, Tag};
use policy::{Need, Verb};
use registry::push::UploadId;

/// An operation of the distribution API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// end-1: the version check.
    Base,
    /// The catalog extension.
    Catalog,
    /// `/v2/_oci/ext/discover`.
    Discover,
    /// end-8.
    Tags(RepositoryName),
    /// end-12.
    Referrers(RepositoryName, Digest),
    /// end-3, GET.
    ManifestGet(RepositoryName, Reference),
    /// end-3, HEAD.
    ManifestHead(RepositoryName, Reference),
    /// end-7.
    ManifestPut(RepositoryName, Reference),
    /// end-9.
    ManifestDelete(RepositoryName, Reference),
    /// end-2, GET.
    BlobGet(RepositoryName, Digest),
    /// end-2, HEAD.
    BlobHead(RepositoryName, Digest),
    /// end-10.
    BlobDelete(RepositoryName, Digest),
    /// end-4 and end-11.
    UploadStart(RepositoryName),
    /// end-5.
    UploadAppend(RepositoryName, UploadId),
    /// end-6.
    UploadFinish(RepositoryName, UploadId),
    /// end-13.
    UploadStatus(RepositoryName, UploadId),
    /// end-14.
    UploadCancel(RepositoryName, UploadId),
}

/// Why a path and method are no [`Route`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteError {
    /// No such endpoint: 404.
    NotFound,
    /// The endpoint exists, for the methods of this `Allow` header: 405.
    Method(&'static str),
    /// An upload id that cannot exist: 404, as for one that does not.
    UploadUnknown,
    /// A part is malformed: 400.
    Invalid(Error),
}

impl From<Error> for RouteError {
    fn from(error: Error) -> Self {
        Self::Invalid(error)
    }
}

/// What the path names, before the method is looked at.
enum Shape<'a> {
    Base,
    Catalog,
    Discover,
    Tags(&'a [Cow<'a, str>]),
    Referrers(&'a [Cow<'a, str>], &'a str),
    Manifest(&'a [Cow<'a, str>], &'a str),
    Blob(&'a [Cow<'a, str>], &'a str),
    Uploads(&'a [Cow<'a, str>]),
    Upload(&'a [Cow<'a, str>], &'a str),
}

impl Route {
    /// Parses a method and a raw path (as it stood in the request, with its percent-encoding) that is `/v2` or begins
    /// with `/v2/`.
    pub fn parse(method: &Method, path: &str) -> Result<Self, RouteError> {
        let rest = match path.strip_prefix("/v2") {
            Some("") => "",
            Some(rest) => rest.strip_prefix('/').ok_or(RouteError::NotFound)?,
            None => return Err(RouteError::NotFound),
        };
        let components = rest.split('/').map(decode).collect::<Result<Vec<_>, _>>()?;
        let texts: Vec<&str> = components.iter().map(AsRef::as_ref).collect();
        let name = |behind: usize| &components[..components.len() - behind];
        let shape = match texts.as_slice() {
            [""] => Shape::Base,
            ["_catalog"] => Shape::Catalog,
            ["_oci", "ext", "discover"] => Shape::Discover,
            [.., "blobs", "uploads"] => Shape::Uploads(name(2)),
            [.., "blobs", "uploads", ""] => Shape::Uploads(name(3)),
            [.., "blobs", "uploads", id] => Shape::Upload(name(3), id),
            [.., "tags", "list"] => Shape::Tags(name(2)),
            [.., "manifests", reference] => Shape::Manifest(name(2), reference),
            [.., "blobs", digest] => Shape::Blob(name(2), digest),
            [.., "referrers", digest] => Shape::Referrers(name(2), digest),
            // No endpoint: a path that is not canonical is told so, since it may have been meant as another one.
            _ if texts.iter().any(|part| matches!(*part, "" | "." | "..") || part.contains(['/', '\\'])) => {
                return Err(RouteError::Invalid(not_canonical()));
            }
            _ => return Err(RouteError::NotFound),
        };
        Self::from_shape(method, &shape)
    }

    fn from_shape(method: &Method, shape: &Shape<'_>) -> Result<Self, RouteError> {
        let reading = matches!(*method, Method::GET | Method::HEAD);
        let only_reading = |route: Self| if reading { Ok(route) } else { Err(RouteError::Method("GET, HEAD")) };
        match *shape {
            Shape::Base => only_reading(Self::Base),
            Shape::Catalog => only_reading(Self::Catalog),
            Shape::Discover => only_reading(Self::Discover),
            Shape::Tags(name) => only_reading(Self::Tags(repository(name)?)),
            Shape::Referrers(name, digest) => only_reading(Self::Referrers(repository(name)?, Digest::parse(digest)?)),
            Shape::Manifest(name, text) => {
                let (name, reference) = (repository(name)?, reference(text)?);
                match *method {
                    Method::GET => Ok(Self::ManifestGet(name, reference)),
                    Method::HEAD => Ok(Self::ManifestHead(name, reference)),
                    Method::PUT => Ok(Self::ManifestPut(name, reference)),
                    Method::DELETE => Ok(Self::ManifestDelete(name, reference)),
                    _ => Err(RouteError::Method("GET, HEAD, PUT, DELETE")),
                }
            }
            Shape::Blob(name, digest) => {
                let (name, digest) = (repository(name)?, Digest::parse(digest)?);
                match *method {
                    Method::GET => Ok(Self::BlobGet(name, digest)),
                    Method::HEAD => Ok(Self::BlobHead(name, digest)),
                    Method::DELETE => Ok(Self::BlobDelete(name, digest)),
                    _ => Err(RouteError::Method("GET, HEAD, DELETE")),
                }
            }
            Shape::Uploads(name) => {
                let name = repository(name)?;
                if *method == Method::POST { Ok(Self::UploadStart(name)) } else { Err(RouteError::Method("POST")) }
            }
            Shape::Upload(name, id) => {
                let name = repository(name)?;
                let id = UploadId::parse(id).ok_or(RouteError::UploadUnknown)?;
                match *method {
                    Method::PATCH => Ok(Self::UploadAppend(name, id)),
                    Method::PUT => Ok(Self::UploadFinish(name, id)),
                    Method::GET | Method::HEAD => Ok(Self::UploadStatus(name, id)),
                    Method::DELETE => Ok(Self::UploadCancel(name, id)),
                    _ => Err(RouteError::Method("GET, HEAD, PATCH, PUT, DELETE")),
                }
            }
        }
    }

    /// The endpoint's name, as the label of metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Catalog => "catalog",
            Self::Discover => "discover",
            Self::Tags(_) => "tags",
            Self::Referrers(..) => "referrers",
            Self::ManifestGet(..) | Self::ManifestHead(..) | Self::ManifestPut(..) | Self::ManifestDelete(..) => {
                "manifest"
            }
            Self::BlobGet(..) | Self::BlobHead(..) | Self::BlobDelete(..) => "blob",
            Self::UploadStart(_) => "uploads",
            Self::UploadAppend(..) | Self::UploadFinish(..) | Self::UploadStatus(..) | Self::UploadCancel(..) => {
                "upload"
            }
        }
    }

    /// The repository that the path names.
    pub fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Base | Self::Catalog | Self::Discover => None,
            Self::Tags(name)
            | Self::Referrers(name, _)
            | Self::ManifestGet(name, _)
            | Self::ManifestHead(name, _)
            | Self::ManifestPut(name, _)
            | Self::ManifestDelete(name, _)
            | Self::BlobGet(name, _)
            | Self::BlobHead(name, _)
            | Self::BlobDelete(name, _)
            | Self::UploadStart(name)
            | Self::UploadAppend(name, _)
            | Self::UploadFinish(name, _)
            | Self::UploadStatus(name, _)
            | Self::UploadCancel(name, _) => Some(name),
        }
    }

    /// Whether it changes something. The list is one of those that do not, so that a new route is refused by a read-only
    /// server until it is named here.
    pub fn is_change(&self) -> bool {
        !matches!(
            self,
            Self::Base
                | Self::Catalog
                | Self::Discover
                | Self::Tags(_)
                | Self::Referrers(..)
                | Self::ManifestGet(..)
                | Self::ManifestHead(..)
                | Self::BlobGet(..)
                | Self::BlobHead(..)
                | Self::UploadStatus(..)
        )
    }

    /// The methods that a read-only server takes where this one was sent: the value of `Allow`.
    pub fn reading_methods(&self) -> &'static str {
        // RFC 9110, 10.2.1: an empty list says that no method is allowed there.
        if matches!(self, Self::UploadStart(_)) { "" } else { "GET, HEAD" }
    }

    /// What a caller must be allowed to do in that repository. Cancelling an upload takes the right to push only:
    /// pushers never hold `delete`.
    pub fn need(&self) -> Option<Need<'_>> {
        match self {
            Self::Base | Self::Catalog | Self::Discover => None,
            Self::Tags(_) | Self::Referrers(..) => Some(Need::List),
            Self::ManifestGet(_, Reference::Tag(tag)) | Self::ManifestHead(_, Reference::Tag(tag)) => {
                Some(Need::PullTag(tag))
            }
            Self::ManifestGet(..) | Self::ManifestHead(..) | Self::BlobGet(..) | Self::BlobHead(..) => Some(Need::Pull),
            Self::ManifestDelete(_, Reference::Tag(tag)) => Some(Need::DeleteTag(tag)),
            Self::ManifestDelete(..) | Self::BlobDelete(..) => Some(Need::Delete),
            Self::ManifestPut(..)
            | Self::UploadStart(_)
            | Self::UploadAppend(..)
            | Self::UploadFinish(..)
            | Self::UploadStatus(..)
            | Self::UploadCancel(..) => Some(Need::Push),
        }
    }
}

impl Route {
    /// The verb that the need comes down to, for the trail of denials.
    pub fn verb(&self) -> Option<Verb> {
        Some(match self.need()? {
            Need::Pull | Need::PullTag(_) => Verb::Pull,
            Need::List => Verb::List,
            Need::Push => Verb::Push,
            Need::Delete => Verb::Delete,
            Need::DeleteTag(_) => Verb::TagDelete,
        })
    }
}

fn repository(components: &[Cow<'_, str>]) -> Result<RepositoryName, Error> {
    // Joined, a decoded slash would pass for a separator.
    if components.iter().any(|component| component.contains('/')) {
        return Err(not_canonical());
    }
    RepositoryName::parse(&components.join("/"))
}

/// A reference from the path. Text behind an encoded separator is neither tag nor digest.
fn reference(text: &str) -> Result<Reference, Error> {
    if text.is_empty() { Tag::parse(text).map(Reference::Tag) } else { Reference::parse(text) }
}

fn not_canonical() -> Error {
    Error::new(
        ErrorCode::NameInvalid,
        "the path is not canonical: it may hold neither empty components nor '.', '..', nor encoded separators",
    )
}

/// One path component, percent-decoded once. Strict: every `%` must begin an escape and the result must be UTF-8.
fn decode(component: &str) -> Result<Cow<'_, str>, Error> {
    if !component.contains('%') {
        return Ok(Cow::Borrowed(component));
    }
    let bad = || Error::new(ErrorCode::NameInvalid, "the path holds a malformed percent-encoding");
    let mut escapes = component.split('%');
    escapes.next();
    let well_formed = |part: &str| {
        let bytes = part.as_bytes();
        bytes.len() >= 2 && bytes[0].is_ascii_hexdigit() && bytes[1].is_ascii_hexdigit()
    };
    if !escapes.all(well_formed) {
        return Err(bad());
    }
    percent_encoding::percent_decode_str(component).decode_utf8().map_err(|_| bad())
}

/// Whether a path outside of `/v2` may have been meant as one inside, after some server in front would have cleaned it.
/// Such paths are refused (400) rather than unknown (404), and never cleaned here.
pub fn is_confusing(path: &str) -> bool {
    let lenient = |part: &str| percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned();
    let mut parts = path.split('/').skip(1).map(lenient).peekable();
    if parts.peek().is_some_and(|first| first.split(';').next().is_some_and(|first| first.eq_ignore_ascii_case("v2"))) {
        return true;
    }
    let count = path.split('/').count() - 1;
    parts.enumerate().any(|(i, part)| {
        part == "." || part == ".." || part.contains(['/', '\\']) || (part.is_empty() && i + 1 < count)
    })
}

#[cfg(test)]
mod tests;
