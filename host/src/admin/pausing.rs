//! The pause of live recordings, for numbers that must not be recorded.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use super::views::json_of;
use super::{Admin, Problem, api};
use crate::board::Entry;
use crate::record::PauseCause;

/// The recordings that were paused, or that go on.
#[derive(Serialize)]
struct PausedCalls<'a> {
    calls: Vec<PausedCall<'a>>,
}

#[derive(Serialize)]
struct PausedCall<'a> {
    key: String,
    stream_id: &'a str,
    call_id: &'a str,
    is_paused: bool,
}

/// `POST /api/v1/calls/{key}/pause`.
pub(super) async fn pause(
    State(admin): State<Admin>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    ask(&admin, path, Some(PauseCause::Api))
}

/// `POST /api/v1/calls/{key}/resume`.
pub(super) async fn resume(
    State(admin): State<Admin>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    ask(&admin, path, None)
}

/// Asks for a pause, or for its end, in every recording with this key, stream id or call id: a program
/// often knows the call's id alone.
fn ask(
    admin: &Admin,
    path: Result<Path<String>, PathRejection>,
    cause: Option<PauseCause>,
) -> Result<Response, Problem> {
    let Path(name) = path.map_err(|_| api::no_call())?;
    let is_named = |entry: &Arc<Entry>| {
        let record = &entry.record;
        [&record.stream_id, &record.call_id].into_iter().any(|id| *id == name)
    };
    let board = &admin.sources.board;
    let named = match name.parse().ok().and_then(|key| board.entry(key)) {
        Some(entry) => vec![entry],
        None => board.entries().into_iter().filter(is_named).collect(),
    };
    if named.is_empty() {
        return Err(api::no_call());
    }
    for entry in &named {
        entry.ask_pause(cause);
    }
    let calls = named.iter().map(|entry| PausedCall {
        key: entry.key.to_string(),
        stream_id: &entry.record.stream_id,
        call_id: &entry.record.call_id,
        is_paused: cause.is_some(),
    });
    let body = json_of(&PausedCalls { calls: calls.collect() });
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}
