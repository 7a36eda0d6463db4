//! Compression of answers for clients that take gzip.
//!
//! Only whole texts are compressed: never audio, and never an answer that goes on as long as a call or a
//! client. `tower-http` compresses streams as well, holds parts of them back, and is far larger.

use std::io::{self, Write as _};

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::{Body as _, Bytes};

use super::{Admin, accept};
use crate::tasks;

/// Shortest text that is compressed, in bytes: a shorter one fits into a packet as it is.
const BYTES_MIN: u64 = 1400;

/// Longest text that is compressed on the thread that answers requests, in bytes; it takes a
/// millisecond.
const AT_ONCE_MAX: usize = 64 * 1024;

/// Content types that are compressed, without their parameters.
const TYPES: [&str; 8] = [
    "application/json",
    "application/openmetrics-text",
    "application/problem+json",
    "image/svg+xml",
    "text/css",
    "text/html",
    "text/javascript",
    "text/plain",
];

/// Answers a request, with gzip if the client takes it and the answer is a whole text.
pub(super) async fn gzip(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let is_head = request.method() == Method::HEAD;
    let is_wanted = accept::quality(request.headers(), header::ACCEPT_ENCODING, "gzip")
        .is_some_and(|quality| quality > 0.0);
    let mut response = next.run(request).await;
    if !is_text(&response) {
        return response;
    }
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept-encoding"));
    let is_long = response.body().size_hint().exact().is_some_and(|bytes| bytes >= BYTES_MIN);
    if is_head || !is_wanted || !is_long || response.status() == StatusCode::PARTIAL_CONTENT {
        return response;
    }
    let (mut head, body) = response.into_parts();
    // An answer that is made at once cannot fail.
    let Ok(text) = to_bytes(body, usize::MAX).await else {
        return Response::from_parts(head, Body::empty());
    };
    let packed = if text.len() <= AT_ONCE_MAX {
        pack(&text)
    } else {
        let text = text.clone();
        let _turn = admin.packers.acquire().await;
        let packed = tasks::blocking(move || pack(&text)).await;
        packed.unwrap_or_else(|error| Err(io::Error::other(error)))
    };
    let Ok(packed) = packed else {
        return Response::from_parts(head, Body::from(text));
    };
    head.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    head.headers.remove(header::CONTENT_LENGTH);
    weaken_tag(&mut head.headers);
    Response::from_parts(head, Body::from(packed))
}

/// Whether an answer is a text with an end.
fn is_text(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    TYPES.contains(&kind)
}

fn pack(text: &[u8]) -> io::Result<Bytes> {
    let packed = Vec::with_capacity(text.len() / 4);
    let mut encoder = GzEncoder::new(packed, Compression::fast());
    encoder.write_all(text)?;
    Ok(encoder.finish()?.into())
}

/// Makes a strong entity tag weak: the compressed bytes are not those that it names.
fn weaken_tag(headers: &mut HeaderMap) {
    if let Some(tag) = headers.get(header::ETAG)
        && tag.as_bytes().starts_with(b"\"")
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        headers.insert(header::ETAG, weak);
    }
}
