//! The console's files, compiled into the program.

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::{Problem, parts};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Name, type and content of each file below `/console/`.
const FILES: [(&str, &str, &str); 21] = [
    ("app.js", SCRIPT, include_str!("../console/app.js")),
    ("call.js", SCRIPT, include_str!("../console/call.js")),
    ("card.js", SCRIPT, include_str!("../console/card.js")),
    ("dom.js", SCRIPT, include_str!("../console/dom.js")),
    ("feed-worker.js", SCRIPT, include_str!("../console/feed-worker.js")),
    ("feed.js", SCRIPT, include_str!("../console/feed.js")),
    ("find.js", SCRIPT, include_str!("../console/find.js")),
    ("icon.svg", SVG, include_str!("../console/icon.svg")),
    ("listen.js", SCRIPT, include_str!("../console/listen.js")),
    ("live.js", SCRIPT, include_str!("../console/live.js")),
    ("player.js", SCRIPT, include_str!("../console/player.js")),
    ("recordings.js", SCRIPT, include_str!("../console/recordings.js")),
    ("sound.js", SCRIPT, include_str!("../console/sound.js")),
    ("style.css", CSS, include_str!("../console/style.css")),
    ("system.js", SCRIPT, include_str!("../console/system.js")),
    ("talk.js", SCRIPT, include_str!("../console/talk.js")),
    ("theme.js", SCRIPT, include_str!("../console/theme.js")),
    ("trouble.js", SCRIPT, include_str!("../console/trouble.js")),
    ("views.js", SCRIPT, include_str!("../console/views.js")),
    ("wall.js", SCRIPT, include_str!("../console/wall.js")),
    ("wave.js", SCRIPT, include_str!("../console/wave.js")),
];

const INDEX: &str = include_str!("../console/index.html");
const LOGIN: &str = include_str!("../console/login.html");
const OPENAPI: &str = include_str!("openapi.json");

/// Place of an error message in the login page.
const LOGIN_NOTE: &str = "<!-- note -->";

/// The console.
pub(super) async fn index(headers: HeaderMap) -> Response {
    unless_known(&headers, HTML, INDEX)
}

/// One of the console's files.
pub(super) async fn file(
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let file = FILES.iter().find(|(file, ..)| *file == name);
    let (_, content_type, content) =
        file.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "the console has no such file"))?;
    Ok(unless_known(&headers, content_type, content))
}

/// The OpenAPI description of the API.
pub(super) async fn openapi(headers: HeaderMap) -> Response {
    unless_known(&headers, "application/json", OPENAPI)
}

/// The login page, with a note.
pub(super) fn login(note: &str) -> Html<String> {
    Html(LOGIN.replace(LOGIN_NOTE, note))
}

/// The content, or status 304 if the client has it already. The ETag is a digest, since the content
/// changes only with the program.
fn unless_known(headers: &HeaderMap, content_type: &str, content: &'static str) -> Response {
    let digest = Sha256::digest(content);
    let etag = format!("\"{}\"", HEXLOWER.encode(&digest[..12]));
    let head = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-cache"),
        (header::ETAG, &etag),
    ];
    if parts::is_known(headers, &etag) {
        return (StatusCode::NOT_MODIFIED, head).into_response();
    }
    (head, content).into_response()
}
