//! The list of tags.

use std::io;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, stream};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use oci::Tag;
use policy::Access;
use registry::list::{self, Page};
use registry::{Registry, Reservation};
use serde::Serialize;

use super::error::Failure;
use super::{Call, pages, respond};

/// How many tags of a list without an end are held at a time: 64 KiB of the longest.
const PIECE: usize = 480;
/// The longest tag, quoted, and a comma.
const ENTRY: usize = 131;

#[derive(Serialize)]
struct Tags<'a> {
    name: &'a str,
    tags: Vec<&'a str>,
}

pub(super) async fn list(call: &Call<'_>, access: &Access) -> Result<Response, Failure> {
    let limit = pages::limit(call.query.n.as_deref(), pages::MAX_PAGE)?;
    let registry = &call.state.registry;
    let room = list::reserve(registry, access.caller(), 512 + ENTRY * limit.unwrap_or(PIECE)).await?;
    let page = list::tags(registry, access, call.query.last.as_deref(), Some(limit.unwrap_or(PIECE))).await?;
    if limit.is_none() && page.more {
        let mut response = Response::new(Body::from_stream(all(registry.clone(), access.clone(), page, room)));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        return Ok(response);
    }
    let name = access.repository().as_str();
    let last = page.items.last().map(Tag::as_str).filter(|_| page.more);
    let body = serde_json::to_vec(&Tags { name, tags: page.items.iter().map(Tag::as_str).collect() });
    let body = room.hold(body.map_err(registry::Error::internal)?);
    let mut response = respond::bytes(StatusCode::OK, "application/json", body);
    pages::set_link(response.headers_mut(), &format!("/v2/{name}/tags/list"), last, limit);
    Ok(response)
}

/// A list without an end, as it is being sent.
struct Sending {
    registry: Registry,
    access: Access,
    /// What comes next; `None` after the last.
    next: Option<Page<Tag>>,
    begun: bool,
    /// For one piece at a time.
    _room: Reservation,
}

/// All tags from `first` on, read as the client takes them, so that a list of any length takes little memory.
fn all(
    registry: Registry,
    access: Access,
    first: Page<Tag>,
    room: Reservation,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let sending = Sending { registry, access, next: Some(first), begun: false, _room: room };
    stream::try_unfold(sending, |mut sending| async move {
        let Some(page) = sending.next.take() else { return Ok(None) };
        let mut piece = String::new();
        if !sending.begun {
            piece = format!("{{\"name\":\"{}\",\"tags\":[", sending.access.repository());
        }
        // Neither names nor tags have characters that JSON would escape.
        for tag in &page.items {
            let comma = if std::mem::replace(&mut sending.begun, true) { "," } else { "" };
            piece.extend([comma, "\"", tag.as_str(), "\""]);
        }
        if page.more {
            let last = page.items.last().map(Tag::as_str);
            let next = list::tags(&sending.registry, &sending.access, last, Some(PIECE)).await;
            // The answer has begun: all that can be done is to break it off.
            sending.next = Some(next.map_err(io::Error::other)?);
        } else {
            piece.push_str("]}");
        }
        Ok(Some((Bytes::from(piece), sending)))
    })
}
