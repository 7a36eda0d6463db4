//! Whether the process lives, and whether it can record.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use super::Admin;
use crate::store::Room;

/// A disk that does not answer in this time is stuck.
const PATIENCE: Duration = Duration::from_secs(3);

/// The name of the file that shows that the directory can be written to.
const PROBE: &str = ".callreel.probe";

/// Room on the disk of the recordings.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Disk {
    /// What is free to us.
    pub free_bytes: u64,
    /// What there is.
    pub total_bytes: u64,
    /// While less than this is free, no new call is taken.
    pub keep_free_bytes: u64,
}

impl From<Room> for Disk {
    fn from(room: Room) -> Self {
        Self { free_bytes: room.free, total_bytes: room.total, keep_free_bytes: room.keep_free }
    }
}

/// The process answers.
pub async fn alive() -> Response {
    answer(StatusCode::OK, &[])
}

/// It takes calls, and its disk takes audio.
pub async fn ready(State(admin): State<Admin>) -> Response {
    let mut faults = Vec::new();
    if admin.is_draining() {
        faults.push("it is draining: no new calls are taken");
    }
    let store = &admin.sources.store;
    if store.is_full().load(Ordering::Relaxed) {
        faults.push("less disk is free than --keep-free: no new calls are taken");
    }
    let probe = async {
        // One at a time: a disk that hangs is to hold up one thread, not one for each who asks.
        let turn = Arc::clone(&admin.probing).lock_owned().await;
        let dir = store.dir().to_owned();
        let probed = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            probe(&dir)
        });
        probed.await
    };
    match tokio::time::timeout(PATIENCE, probe).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => {
            tracing::warn!(%error, "not ready: the directory cannot be written to");
            faults.push("the directory of the recordings cannot be written to");
        }
        _ => faults.push("the disk does not answer"),
    }
    let status = if faults.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(status, &faults)
}

fn answer(status: StatusCode, faults: &[&str]) -> Response {
    let word = if status.is_success() { "ok" } else { "unavailable" };
    let body = json!({ "status": word, "faults": faults }).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn probe(dir: &Path) -> io::Result<()> {
    let path = dir.join(PROBE);
    fs::write(&path, b"callreel")?;
    fs::remove_file(path)
}
