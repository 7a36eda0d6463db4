//! Whether the process lives, and whether it can record.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use super::Admin;
use crate::store::{self, Plan, Recovery, Room, Store};

/// Room on the disk of the recordings.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Disk {
    /// What is free to us.
    pub free_bytes: u64,
    /// What there is.
    pub total_bytes: u64,
    /// While less than this is free, no new call is taken.
    pub keep_free_bytes: u64,
    /// Inodes that are free to us; with the next two absent where the file system has no limit of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_inodes: Option<u64>,
    /// Inodes that there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_inodes: Option<u64>,
    /// While fewer than these are free, no new call is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_free_inodes: Option<u64>,
}

impl From<Room> for Disk {
    fn from(room: Room) -> Self {
        Self {
            free_bytes: room.free,
            total_bytes: room.total,
            keep_free_bytes: room.keep_free,
            free_inodes: room.inodes.map(|inodes| inodes.free),
            total_inodes: room.inodes.map(|inodes| inodes.total),
            keep_free_inodes: room.inodes.map(|inodes| inodes.keep_free),
        }
    }
}

/// What automatic deletion is about to do, and what keeps it from it.
#[derive(Clone, Debug, Serialize)]
pub struct Retention {
    /// What the next look removes because of its age; absent if that is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Plan>,
    /// Why nothing is removed although that is wished, in words.
    alarms: Vec<String>,
}

impl From<store::Retention> for Retention {
    fn from(retention: store::Retention) -> Self {
        Self { alarms: retention.alarms(), next: retention.next }
    }
}

/// What an earlier run left unfinished, if it left anything.
pub fn recovery(store: &Store) -> Option<Recovery> {
    Some(store.recovery()).filter(|recovery| recovery.found > 0)
}

/// The process answers.
pub async fn alive() -> Response {
    answer(StatusCode::OK, &[], &[], None)
}

/// It takes calls, and its disk takes audio.
pub async fn ready(State(admin): State<Admin>) -> Response {
    let readiness = &admin.sources.readiness;
    let faults = readiness.look().await;
    let status = if faults.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(status, &faults, &readiness.warnings(), recovery(&admin.sources.store))
}

fn answer(
    status: StatusCode,
    faults: &[String],
    warnings: &[String],
    recovery: Option<Recovery>,
) -> Response {
    let word = if status.is_success() { "ok" } else { "unavailable" };
    let mut body = json!({ "status": word, "faults": faults, "warnings": warnings });
    if let Some(recovery) = recovery {
        body["recovery"] = json!(recovery);
    }
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
