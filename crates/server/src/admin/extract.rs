//! The parts of a request, parsed once and refused in the API's own words.

use api::{BODY_LIMIT, ErrorCode};
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use http::header::CONTENT_TYPE;
use oci::RepositoryName;
use policy::AdminAccess;
use serde::de::DeserializeOwned;

use super::Failure;

/// The decision that let the request in; made by `admit` before any handler runs.
pub struct Admin(pub AdminAccess);

impl<S: Sync> FromRequestParts<S> for Admin {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let access = parts.extensions.get::<AdminAccess>().cloned();
        access.map(Self).ok_or_else(|| Failure::internal("a handler runs that `admit` does not guard"))
    }
}

/// A body of JSON; an empty one stands for `{}`.
pub struct Input<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Input<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        let bytes = read(body).await?;
        if bytes.is_empty() {
            return parse(b"{}").map(Self);
        }
        let content_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            let message = "the body has to be sent as Content-Type: application/json";
            return Err(Failure::new(ErrorCode::UnsupportedMediaType, message, ""));
        }
        parse(&bytes).map(Self)
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|error| Failure::request(format!("the body cannot be read: {error}")))
}

/// A whole body, at most [`BODY_LIMIT`] bytes.
pub async fn read(body: Body) -> Result<bytes::Bytes, Failure> {
    axum::body::to_bytes(body, BODY_LIMIT).await.map_err(|error| {
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(cause) = source {
            if cause.is::<http_body_util::LengthLimitError>() {
                return Failure::new(ErrorCode::TooLarge, format!("the body is larger than {BODY_LIMIT} bytes"), "");
            }
            source = cause.source();
        }
        Failure::request("the body broke off")
    })
}

/// The query.
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query.map(|Query(value)| Self(value)).map_err(|error| Failure::request(error.body_text()))
    }
}

/// The parameters of the path, percent-decoded.
pub struct At<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for At<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        path.map(|Path(value)| Self(value)).map_err(|error| Failure::request(error.body_text()))
    }
}

/// A repository's name from the path.
pub fn repository(text: &str) -> Result<RepositoryName, Failure> {
    RepositoryName::parse(text).map_err(|error| Failure::new(ErrorCode::InvalidName, error.message, ""))
}

/// How many items a page takes.
pub fn limit(asked: Option<u32>) -> Result<usize, Failure> {
    type Page = api::Page<()>;
    match asked.unwrap_or(Page::DEFAULT) {
        0 => Err(Failure::request("limit is 0; ask for at least one item")),
        asked => Ok(asked.min(Page::MAX) as usize),
    }
}

/// A page of at most `limit` of `items`, of which one more was read than was asked for; the cursor names the last item.
pub fn page<T, U>(
    mut items: Vec<T>,
    limit: usize,
    cursor: impl Fn(&T) -> String,
    show: impl FnMut(T) -> U,
) -> api::Page<U> {
    let more = items.len() > limit;
    items.truncate(limit);
    let next = if more { items.last().map(cursor) } else { None };
    api::Page { items: items.into_iter().map(show).collect(), next }
}

/// A cursor that is a number.
pub fn number(cursor: Option<&str>) -> Result<Option<i64>, Failure> {
    cursor.map(|text| text.parse().map_err(|_| invalid_cursor())).transpose()
}

/// The failure of a cursor that was not given out.
pub fn invalid_cursor() -> Failure {
    Failure::new(ErrorCode::InvalidCursor, "this list did not give out that cursor", "begin without a cursor")
}

/// An expiry that was given as a length of time from now, as a time, or not at all.
pub fn expiry(
    state: &super::AdminState,
    within: Option<api::Lifetime>,
    at: Option<api::Time>,
) -> Result<Option<oci::Timestamp>, Failure> {
    match (within, at) {
        (None, None) => Ok(None),
        (Some(within), None) => Ok(Some((state.app.clock)().plus(within.0))),
        (None, Some(at)) => Ok(Some(at.0)),
        (Some(_), Some(_)) => {
            Err(Failure::new(ErrorCode::InvalidExpiry, "give either expires_in or expires_at, not both", ""))
        }
    }
}
