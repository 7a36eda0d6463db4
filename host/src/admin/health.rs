//! Health checks: the process is alive, and it can record.

use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use super::Admin;
use crate::outbox::{self, Outbox};
use crate::store::{self, Plan, Recovery, Room, Store};
use crate::tls::Certificate;

/// The longest wait for a home.
const PATIENCE: Duration = Duration::from_secs(5);

/// Room on the file system of the recordings.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Disk {
    /// Free bytes that the recorder may use.
    pub free_bytes: u64,
    /// Size of the file system, in bytes.
    pub total_bytes: u64,
    /// While fewer bytes than these are free, no new call is taken.
    pub keep_free_bytes: u64,
    /// Free inodes that the recorder may use. This field and the next two are absent if the file system
    /// has no limit of inodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_inodes: Option<u64>,
    /// Inodes of the file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_inodes: Option<u64>,
    /// While fewer inodes than these are free, no new call is taken.
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

/// State of automatic deletion: its next step, and the reasons that hold it up.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Retention {
    /// Recordings that the next look removes for their age; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Plan>,
    /// Reasons, in words, for which wanted deletions do not happen.
    alarms: Vec<String>,
}

impl From<store::Retention> for Retention {
    fn from(retention: store::Retention) -> Self {
        Self { alarms: retention.alarms(), next: retention.next }
    }
}

/// Progress of recovering the recordings that an earlier run left unfinished, if there are any.
pub(super) fn recovery(store: &Store) -> Option<Recovery> {
    Some(store.recovery()).filter(|recovery| recovery.found > 0)
}

/// `GET /healthz`: the process answers.
pub(super) async fn alive() -> Response {
    answer(StatusCode::OK, &[], &[], None)
}

/// `GET /readyz`: the recorder takes calls, and its disk takes audio.
pub(super) async fn ready(State(admin): State<Admin>) -> Response {
    let (Some(store), Some(readiness)) = (&admin.sources.store, &admin.sources.readiness) else {
        return admin.reads_home().await;
    };
    let faults = readiness.look().await;
    let mut warnings = readiness.warnings();
    let delivery = admin.sources.outbox.as_ref().map(Outbox::health);
    warnings.extend(delivery.iter().flat_map(outbox::Health::warnings));
    let certificate = admin.sources.certificate.as_ref();
    warnings.extend(certificate.and_then(Certificate::warning));
    let status = if faults.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(status, &faults, &warnings, recovery(store))
}

impl Admin {
    /// Whether a console without a recorder can read its home.
    async fn reads_home(&self) -> Response {
        let trial = async {
            match &self.sources.library {
                Some(library) => library.try_it().await.map_err(|fault| fault.to_string()),
                None => Ok(()),
            }
        };
        let late = || Err("no answer in time".to_owned());
        let faults = match tokio::time::timeout(PATIENCE, trial).await.unwrap_or_else(|_| late()) {
            Ok(()) => Vec::new(),
            Err(reason) => vec![format!("the home cannot be read: {reason}")],
        };
        let status =
            if faults.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        answer(status, &faults, &[], None)
    }
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
