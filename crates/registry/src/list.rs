//! Lists: tags, repositories, referrers. Each is paged by key and filtered to what the caller may see.

use bytes::Bytes;
use oci::{Digest, Referrer, ReferrersPage, RepositoryName, Tag};
use policy::{Access, Caller, CatalogAccess, Verb};

use crate::room::SMALL;
use crate::{Error, Registry, Reservation};

/// How many rows are read at once while a page is being filled.
const CHUNK: usize = 1000;

/// How many rows of the referrers list are read at once, at most.
const REFERRERS_CHUNK: usize = 100;

/// The longest page of the catalog.
pub const CATALOG_MAX: usize = 1000;

/// The page of the catalog where the client names no length.
pub const CATALOG_DEFAULT: usize = 100;

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// In byte order.
    pub items: Vec<T>,
    /// Whether the list goes on after the last of them.
    pub more: bool,
}

/// A page of the referrers list.
#[derive(Clone, Debug)]
pub struct Referrers {
    /// An image index of at most 4 MiB.
    pub body: Bytes,
    /// Where the next page begins: `after` of the next request.
    pub next: Option<String>,
}

/// The tags after `last` that the caller may see, at most `limit`, else all of them.
pub async fn tags(r: &Registry, access: &Access, last: Option<&str>, limit: Option<usize>) -> Result<Page<Tag>, Error> {
    let mut page = Filling::new(limit.unwrap_or(usize::MAX));
    let mut last = last.map(str::to_owned);
    let chunk = limit.map_or(10 * CHUNK, |limit| limit.saturating_add(1).min(CHUNK));
    loop {
        let rows = r.db().tags(access.repository(), last.as_deref(), chunk).await?.ok_or(Error::NameUnknown)?;
        let end = rows.len() < chunk;
        last = rows.last().map(|tag| tag.as_str().to_owned()).or(last);
        let visible = rows.into_iter().filter(|tag| access.may_tag(Verb::List, tag));
        if page.fill(visible) || end {
            return Ok(page.finish());
        }
    }
}

/// The names of repositories after `last` that the caller may list: at most `limit`, 100 without it, never over 1000.
pub async fn catalog(
    r: &Registry,
    access: &CatalogAccess,
    last: Option<&str>,
    limit: Option<usize>,
) -> Result<Page<RepositoryName>, Error> {
    let limit = limit.unwrap_or(CATALOG_DEFAULT).min(CATALOG_MAX);
    let ranges: Vec<(String, Option<String>)> =
        access.ranges().iter().map(|range| (range.start.clone(), range.end.clone())).collect();
    let mut page = Filling::new(limit);
    let mut last = last.map(str::to_owned);
    loop {
        let rows = r.db().repositories(&ranges, last.as_deref(), CHUNK).await?;
        let end = rows.len() < CHUNK;
        last = rows.last().map(|name| name.as_str().to_owned()).or(last);
        if page.fill(rows.into_iter().filter(|name| access.may_list(name))) || end {
            return Ok(page.finish());
        }
    }
}

/// Memory for an answer of at most so many bytes, to be held until it is sent. Waits, some seconds at most, while much
/// else is being sent: then [`Error::Unavailable`].
pub async fn reserve(r: &Registry, caller: &Caller, length: usize) -> Result<Reservation, Error> {
    r.rooms().pulled.reserve(caller.identity, length).await
}

/// The manifests of the repository whose subject is `subject`, from `after` on, of any of `artifact_types` if there are
/// some. Empty for an unknown subject and for an unknown repository.
pub async fn referrers(
    r: &Registry,
    access: &Access,
    subject: &Digest,
    artifact_types: &[String],
    after: Option<&str>,
) -> Result<Referrers, Error> {
    let mut length = SMALL;
    loop {
        let reservation = reserve(r, access.caller(), length).await?;
        let making = r.rooms().making.acquire().await.map_err(Error::internal)?;
        let made = referrers_page(r, access, subject, artifact_types, after, length).await?;
        drop(making);
        if let Some((body, next)) = made {
            return Ok(Referrers { body: reservation.hold(body), next });
        }
        // Most lists are short. A long one is made again, when there is memory for the longest.
        length = ReferrersPage::MAX_BYTES;
    }
}

/// The page and where the next begins; `None` when it needs more than `length` bytes.
async fn referrers_page(
    r: &Registry,
    access: &Access,
    subject: &Digest,
    artifact_types: &[String],
    after: Option<&str>,
    length: usize,
) -> Result<Option<(Vec<u8>, Option<String>)>, Error> {
    let mut page = ReferrersPage::new();
    let mut after = after.map(str::to_owned);
    loop {
        let rows = r.db().referrers(access.repository(), subject, after.as_deref(), REFERRERS_CHUNK).await?;
        if rows.is_empty() {
            return Ok(Some((tight(page), None)));
        }
        for row in rows {
            let artifact_type = row.artifact_type.as_deref();
            let wanted = artifact_types.is_empty()
                || artifact_type.is_some_and(|is| artifact_types.iter().any(|wanted| wanted == is));
            let referrer = Referrer {
                media_type: &row.media_type,
                digest: &row.digest,
                size: row.size,
                artifact_type,
                annotations: row.annotations.as_deref(),
            };
            if wanted && !page.push(&referrer) {
                return Ok(Some((tight(page), after)));
            }
            if page.length() > length {
                return Ok(None);
            }
            after = Some(row.digest.as_str().to_owned());
        }
    }
}

/// The page, without the spare memory in which it grew.
fn tight(page: ReferrersPage) -> Vec<u8> {
    let mut body = page.finish();
    body.shrink_to_fit();
    body
}

/// A page while it is being filled. It takes in one more than it shows, to know whether there is more.
struct Filling<T> {
    items: Vec<T>,
    limit: usize,
}

impl<T> Filling<T> {
    fn new(limit: usize) -> Self {
        Self { items: Vec::new(), limit }
    }

    /// Whether it is full.
    fn fill(&mut self, items: impl Iterator<Item = T>) -> bool {
        let room = self.limit.saturating_add(1) - self.items.len();
        self.items.extend(items.take(room));
        self.items.len() > self.limit || self.limit == 0
    }

    fn finish(mut self) -> Page<T> {
        let more = self.limit > 0 && self.items.len() > self.limit;
        self.items.truncate(self.limit);
        Page { items: self.items, more }
    }
}
