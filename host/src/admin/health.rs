//! Whether the process lives, and whether it can record.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use rustix::fs::statvfs;
use serde::Serialize;
use serde_json::json;

use super::Admin;
use crate::http::Phase;

/// Less free disk than this is as good as none: ten calls fill it in an hour.
const FREE_BYTES_MIN: u64 = 256 << 20;

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
}

/// Looks at the disk; `None` if it does not say.
pub fn disk(dir: &Path) -> Option<Disk> {
    let stat = statvfs(dir).ok()?;
    Some(Disk {
        free_bytes: stat.f_bavail * stat.f_frsize,
        total_bytes: stat.f_blocks * stat.f_frsize,
    })
}

/// The process answers.
pub async fn alive() -> Response {
    answer(StatusCode::OK, &[])
}

/// It takes calls, and its disk takes audio.
pub async fn ready(State(admin): State<Admin>) -> Response {
    let mut faults = Vec::new();
    if *admin.phase.borrow() != Phase::Open {
        faults.push("it is draining: no new calls are taken");
    }
    let dir = admin.sources.store.dir().to_owned();
    let look = tokio::task::spawn_blocking(move || (probe(&dir), disk(&dir)));
    match tokio::time::timeout(PATIENCE, look).await {
        Ok(Ok((probed, disk))) => {
            if let Err(error) = probed {
                tracing::warn!(%error, "not ready: the directory cannot be written to");
                faults.push("the directory of the recordings cannot be written to");
            }
            if disk.is_none_or(|disk| disk.free_bytes < FREE_BYTES_MIN) {
                faults.push("less than 256 MiB of disk are free");
            }
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
