//! Errors as pages, for people whose browser asked for one.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;

use super::{Problem, accept};
use crate::twilio::escape_text;

const PAGE: &str = include_str!("../console/problem.html");

/// Answers a request. An error becomes a page if the client likes HTML best, as a browser does that follows a link.
pub(super) async fn pages(request: Request, next: Next) -> Response {
    let wants_page = likes_pages(request.headers());
    // The page may be asked for below a prefix, so its links are relative.
    let depth = request.uri().path().matches('/').count().saturating_sub(1);
    let response = next.run(request).await;
    let Some(problem) = response.extensions().get::<Problem>().filter(|_| wants_page) else {
        return response;
    };
    let title = problem.status.canonical_reason().unwrap_or("Error");
    let root = if depth == 0 { "./".to_owned() } else { "../".repeat(depth) };
    let detail = escape_text(&problem.detail);
    let page = PAGE.replace("{title}", title).replace("{root}", &root).replace("{detail}", &detail);
    let (mut head, _) = response.into_parts();
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.remove(header::CONTENT_ENCODING);
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    head.headers.insert(header::CONTENT_TYPE, html);
    Response::from_parts(head, page.into())
}

fn likes_pages(headers: &HeaderMap) -> bool {
    let quality = |kind| accept::quality(headers, header::ACCEPT, kind).unwrap_or(0.0);
    quality("text/html") > quality("application/json")
}
