//! Webhook messages that were given up: their list, and the order to send them again.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use super::api::{as_json, asked, count};
use super::{Admin, Problem};
use crate::outbox::dead;

/// Letters in one answer, unless asked for another number, and at most.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = dead::KEPT_MAX;

#[derive(Deserialize)]
pub(super) struct ListQuery {
    limit: Option<String>,
}

/// `GET /api/v1/webhook/dead`: the dead letters, the oldest message first.
pub(super) async fn list(
    State(admin): State<Admin>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let limit = count("limit", asked(query)?.limit.as_deref(), LIMIT, LIMIT_MAX)?;
    let mut letters = admin.read(|store| dead::list(store.dir())).await?;
    let total = letters.len();
    letters.truncate(limit);
    Ok(as_json(&json!({ "dead": letters, "total": total })))
}

#[derive(Deserialize)]
pub(super) struct RedeliverQuery {
    id: Option<String>,
}

/// `POST /api/v1/webhook/dead?id=ID|all`: sends them again.
pub(super) async fn redeliver(
    State(admin): State<Admin>,
    query: Result<Query<RedeliverQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Some(id) = asked(query)?.id.filter(|id| !id.is_empty()) else {
        let detail = "`id` is the id of a message, the name of a dead letter, or `all`";
        return Err(Problem::bad_request(detail));
    };
    if admin.sources.outbox.is_none() {
        let detail = "this recorder has no receiver to send to: set --webhook";
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    }
    let wanted = Some(id).filter(|id| id != "all");
    let is_one = wanted.is_some();
    let sent = admin.read(move |store| dead::redeliver(store.dir(), wanted.as_deref())).await?;
    if sent == 0 && is_one {
        return Err(Problem::new(StatusCode::NOT_FOUND, "there is no such dead letter"));
    }
    tracing::info!(count = sent, "dead webhook messages are sent again, as the API was asked");
    Ok(as_json(&json!({ "redelivered": sent })))
}
