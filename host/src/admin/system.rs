//! `GET /api/v1/system`: the settings in force, refusals, the disk's future, slow writes and the last warnings.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use serde::Serialize;

use super::api::as_json;
use super::{Admin, Problem};
use crate::board::{Histogram, Refused, RequestRefused};
use crate::log;
use crate::outbox::dead;
use crate::store::Store;

/// Writes and syncs of the disk that take longer than this are slow, in seconds.
const SLOW_S: f64 = 1.0;

/// The shortest time whose rate tells anything of the disk's future, in seconds.
const RATE_FROM_S: u64 = 600;

/// A setting in force.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Setting {
    /// The option, like `--max-calls`.
    pub name: String,
    /// Its value, without logins and queries of URLs; absent for a secret, which is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The place that it comes from.
    pub set_by: SetBy,
}

/// The place that a setting comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SetBy {
    /// The option of the command line.
    CommandLine,
    /// The default.
    Default,
    /// A variable of the environment.
    Environment,
}

#[derive(Serialize)]
struct System<'s> {
    version: &'static str,
    began_at: Timestamp,
    settings: &'s [Setting],
    refused_calls: BTreeMap<&'static str, u64>,
    refused_requests: BTreeMap<&'static str, u64>,
    /// Bytes of audio recorded since the start.
    recorded_bytes: u64,
    /// Seconds until the disk is full for new calls, if calls go on as they did since the start; absent in the first
    /// ten minutes, and where nothing was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    full_in_s: Option<u64>,
    slow_writes: u64,
    slow_syncs: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letters: Option<usize>,
    warnings: Vec<String>,
}

/// `GET /api/v1/system`.
pub(super) async fn system(State(admin): State<Admin>) -> Result<Response, Problem> {
    let dead_letters = match admin.sources.outbox {
        Some(_) => Some(admin.read(|store| dead::list(store.dir())).await?.len()),
        None => None,
    };
    let counters = &admin.sources.board.counters;
    let recorded_bytes = counters.audio_bytes.load(Ordering::Relaxed);
    let uptime_s = admin.began.elapsed().as_secs();
    let room = admin.sources.store.as_deref().and_then(Store::room);
    let full_in_s = room.filter(|_| uptime_s >= RATE_FROM_S).and_then(|room| {
        let left = room.free.saturating_sub(room.keep_free);
        let seconds = u128::from(left) * u128::from(uptime_s) / u128::from(recorded_bytes.max(1));
        u64::try_from(seconds).ok().filter(|_| recorded_bytes > 0)
    });
    Ok(as_json(&System {
        version: env!("CARGO_PKG_VERSION"),
        began_at: admin.began_at,
        settings: &admin.config.settings,
        refused_calls: by_name(Refused::ALL.map(Refused::name), &counters.refused),
        refused_requests: by_name(
            RequestRefused::ALL.map(RequestRefused::name),
            &counters.requests_refused,
        ),
        recorded_bytes,
        full_in_s,
        slow_writes: slow(&counters.write_time),
        slow_syncs: slow(&counters.sync_time),
        dead_letters,
        warnings: log::warnings(),
    }))
}

/// The counts that are not 0.
fn by_name<const N: usize>(
    names: [&'static str; N],
    counts: &[AtomicU64; N],
) -> BTreeMap<&'static str, u64> {
    let counts = counts.iter().map(|count| count.load(Ordering::Relaxed));
    names.into_iter().zip(counts).filter(|(_, count)| *count > 0).collect()
}

/// The times that were slow.
fn slow(times: &Histogram) -> u64 {
    let (buckets, _) = times.read();
    buckets.iter().filter(|(bound, _)| *bound > SLOW_S).map(|(_, count)| count).sum()
}
