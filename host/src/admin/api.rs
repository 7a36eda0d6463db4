//! The JSON API below `/api/v1` but for the [recordings](super::recordings), and the metrics.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use callreel_core::wav::{self, Encoding, Spec};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval_at};

use super::views::json_of;
use super::{Admin, Problem, accept, stream};
use crate::metrics::{Format, Process, Scrape};
use crate::outbox::Outbox;
use crate::ready::Phase;
use crate::tasks;
use crate::tls::Certificate;

/// Interval at which a listener gets new audio: as often as media threads look at their sockets.
const LISTEN_INTERVAL: Duration = Duration::from_millis(100);

/// Headers of an answer that holds samples alone: their rate and channels.
const SAMPLE_RATE: HeaderName = HeaderName::from_static("callreel-sample-rate");
const CHANNELS: HeaderName = HeaderName::from_static("callreel-channels");

/// Most characters of an unknown `format` that an answer repeats.
const FORMAT_CHARS_SHOWN: usize = 32;

impl Admin {
    /// Waits for this request's turn, then reads files on a thread that may block.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&crate::store::Store) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Problem> {
        let _turn = self.readers.acquire().await.map_err(Problem::internal)?;
        let Some(store) = self.sources.store.clone() else { return Err(no_recorder()) };
        let done = tasks::blocking(move || work(&store)).await;
        Ok(done.map_err(Problem::internal)??)
    }
}

/// `GET /api/v1/status`.
pub(super) async fn status(State(admin): State<Admin>) -> Response {
    as_json(&admin.status())
}

/// `POST /api/v1/drain`: takes no new calls, and ends the recorder with the last running one.
pub(super) async fn drain(State(admin): State<Admin>) -> Response {
    tracing::info!("told to drain through the API");
    admin.sources.stop.drain();
    // The send of a phase fails only at the end of the process.
    let _ = admin.phase.clone().wait_for(|phase| *phase != Phase::Open).await;
    (StatusCode::ACCEPTED, as_json(&admin.status())).into_response()
}

/// `GET /api/v1/calls`.
pub(super) async fn calls(State(admin): State<Admin>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], admin.watch.calls(&admin.sources.board))
        .into_response()
}

/// `GET /api/v1/calls/{key}`.
pub(super) async fn call(
    State(admin): State<Admin>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let key = call_key(path)?;
    Ok(as_json(&admin.watch.call(key, &admin.sources.board).ok_or_else(no_call)?))
}

#[derive(Deserialize)]
pub(super) struct ListenQuery {
    track: Option<String>,
    format: Option<String>,
}

/// `GET /api/v1/calls/{key}/listen`: live audio until the call ends, as a WAV or as samples alone.
pub(super) async fn listen(
    State(admin): State<Admin>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<ListenQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let entry = admin.sources.board.entry(call_key(path)?).ok_or_else(no_call)?;
    let query = asked(query)?;
    let has_header = match query.format.as_deref() {
        None | Some("wav") => true,
        Some("s16le") => false,
        Some(other) => {
            let other: String = other.chars().take(FORMAT_CHARS_SHOWN).collect();
            let detail = format!("`format` is {other:?}: it can be wav or s16le");
            return Err(Problem::bad_request(detail));
        }
    };
    let tracks = &entry.record.tracks;
    let channels = match query.track.as_deref() {
        None | Some("both") => 0..tracks.len().clamp(1, 2),
        Some(name) => {
            let index = tracks.iter().position(|track| track.as_str() == name);
            let index = index
                .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "the call has no such track"))?;
            index..index + 1
        }
    };
    let spec = Spec {
        channels: channels.len() as u16,
        sample_rate_hz: entry.record.format.sample_rate_hz,
        encoding: Encoding::Pcm16,
    };
    let mut listener = entry.listen();
    let body = stream::body(async move |feed| {
        if has_header {
            feed.send(wav::header(spec, wav::Length::Unknown).to_vec()).await?;
        }
        // All listeners tick at the same instants, so that they cost one wake-up.
        let mut ticks = interval_at(admin.began.into(), LISTEN_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut heard = Vec::new();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = feed.gone() => return Ok(()),
            }
            heard.clear();
            let goes_on = listener.poll(&mut heard);
            let mut bytes = Vec::with_capacity(heard.len() * channels.len() * 2);
            for frame in &heard {
                for sample in &frame[channels.clone()] {
                    bytes.extend_from_slice(&sample.to_le_bytes());
                }
            }
            if !bytes.is_empty() {
                feed.send(bytes).await?;
            }
            if !goes_on {
                return Ok(());
            }
        }
    });
    if has_header {
        return Ok(([(header::CONTENT_TYPE, "audio/wav")], stream::LIVE, body).into_response());
    }
    // No registered type means little-endian samples: audio/L16 is big-endian.
    let kind = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (SAMPLE_RATE, HeaderValue::from(spec.sample_rate_hz)),
        (CHANNELS, HeaderValue::from(spec.channels)),
    ];
    Ok((kind, stream::LIVE, body).into_response())
}

/// `GET /metrics`: OpenMetrics for clients that ask for it, else Prometheus' text format.
pub(super) async fn metrics(
    State(admin): State<Admin>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let quality = |kind| accept::quality(&headers, header::ACCEPT, kind);
    let format = match quality("application/openmetrics-text") {
        Some(wish) if wish > 0.0 && wish >= quality("text/plain").unwrap_or(0.0) => {
            Format::OpenMetrics
        }
        _ => Format::Text,
    };
    let began_at = admin.began_at;
    let process = tasks::blocking(move || Process::read(began_at)).await;
    let Some(store) = &admin.sources.store else { return Err(no_recorder()) };
    let board = Arc::clone(&admin.sources.board);
    let left_for = store.oldest_left().map(|ended| Timestamp::now().duration_since(ended));
    let unfinished = left_for.map_or(0.0, |left| left.as_secs_f64());
    let scrape = Scrape {
        unfinished_s: unfinished.max(board.longest_unfinished().as_secs_f64()),
        board,
        room: store.room(),
        retention: store.retention(),
        is_draining: admin.is_draining(),
        webhook: admin.sources.outbox.as_ref().map(Outbox::health),
        home: store.home(),
        certificate_until: admin.sources.certificate.as_ref().and_then(Certificate::until),
        process: process.map_err(Problem::internal)?,
    };
    let head = [(header::CONTENT_TYPE, format.content_type()), (header::VARY, "accept")];
    Ok((head, scrape.into_text(format)).into_response())
}

pub(super) fn asked<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    // Every parameter takes any text at first, so a repeated parameter is the only possible error here.
    let twice = |_| Problem::bad_request("a parameter is given twice");
    query.map(|Query(query)| query).map_err(twice)
}

/// Parses a number of the query; returns `usual` if it is absent or empty.
pub(super) fn count(
    name: &str,
    text: Option<&str>,
    usual: usize,
    max: usize,
) -> Result<usize, Problem> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(usual);
    };
    let number = text.parse().ok().filter(|number| (1..=max).contains(number));
    number.ok_or_else(|| Problem::bad_request(format!("`{name}` is a number from 1 to {max}")))
}

fn call_key(path: Result<Path<String>, PathRejection>) -> Result<u64, Problem> {
    let key = path.ok().and_then(|Path(key)| key.parse().ok());
    key.ok_or_else(no_call)
}

/// The answer where a recorder is asked for and there is none.
pub(super) fn no_recorder() -> Problem {
    let detail = "this console reads a home: no recorder is behind it";
    Problem::new(StatusCode::NOT_FOUND, detail)
}

pub(super) fn no_call() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is no such call now; see the recordings")
}

pub(super) fn as_json(value: &impl Serialize) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], json_of(value)).into_response()
}
