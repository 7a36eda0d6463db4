//! The JSON API below `/api/v1`, and the metrics.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use callreel_core::wav::{self, Encoding, Spec};
use hyper::body::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval_at};

use super::parts::Part;
use super::views::{Summary, json_of};
use super::{Admin, Problem, accept, parts, stream};
use crate::metrics::{Format, Process, Scrape};
use crate::outbox::Outbox;
use crate::ready::Phase;
use crate::record::{Key, Record, UnknownEncoding, parse_day};
use crate::store::catalog::{Cursor, Filter};
use crate::tasks;
use crate::tls::Certificate;

/// Recordings on one page: the default and the maximum.
const PAGE: usize = 50;
const PAGE_MAX: usize = 200;

/// Columns of a waveform: the default and the maximum.
const COLUMNS: usize = 800;
const COLUMNS_MAX: usize = 4000;

/// Interval at which a listener gets new audio: as often as media threads look at their sockets.
const LISTEN_INTERVAL: Duration = Duration::from_millis(100);

/// Headers of an answer that holds samples alone: their rate and channels.
const SAMPLE_RATE: HeaderName = HeaderName::from_static("callreel-sample-rate");
const CHANNELS: HeaderName = HeaderName::from_static("callreel-channels");

/// Most characters of an unknown `format` that an answer repeats.
const FORMAT_CHARS_SHOWN: usize = 32;

/// Bytes of a file that are read and sent at once.
const PIECE_BYTES: u64 = 64 * 1024;

/// Longest search text, in bytes.
const SEARCH_BYTES_MAX: usize = 200;

/// Error text for a path that names no recording.
const NO_RECORDING: &str = "there is no such recording";

impl Admin {
    /// Waits for this request's turn, then reads files on a thread that may block.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&crate::store::Store) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Problem> {
        let _turn = self.readers.acquire().await.map_err(Problem::internal)?;
        let store = Arc::clone(&self.sources.store);
        let done = tasks::blocking(move || work(&store)).await;
        Ok(done.map_err(Problem::internal)??)
    }

    async fn record(&self, key: &Key) -> Result<Record, Problem> {
        let wanted = key.clone();
        let record = self.read(move |store| store.catalog().record(&wanted)).await?;
        record.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, NO_RECORDING))
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

#[derive(Deserialize)]
pub(super) struct ListQuery {
    q: Option<String>,
    state: Option<String>,
    from: Option<String>,
    to: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

impl ListQuery {
    fn filter(&self) -> Result<Filter, Problem> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let day = |text: &Option<String>| match given(text) {
            None => Ok(None),
            Some(text) => match parse_day(&text) {
                Some(day) => Ok(Some(day)),
                None => Err(Problem::bad_request("`from` and `to` are days like 2026-11-22")),
            },
        };
        let state = match given(&self.state) {
            None => None,
            Some(state) => Some(serde_json::from_value(Value::String(state)).map_err(|_| {
                Problem::bad_request("`state` is complete, partial, recovered or failed")
            })?),
        };
        let text = given(&self.q).map(|text| text.trim().to_owned());
        if text.as_ref().is_some_and(|text| text.len() > SEARCH_BYTES_MAX) {
            return Err(Problem::bad_request("`q` is too long"));
        }
        Ok(Filter { text, state, from: day(&self.from)?, to: day(&self.to)? })
    }
}

/// `GET /api/v1/recordings`.
pub(super) async fn recordings(
    State(admin): State<Admin>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let query = asked(query)?;
    let filter = query.filter()?;
    let limit = count("limit", query.limit.as_deref(), PAGE, PAGE_MAX)?;
    let after: Option<Cursor> = match query.cursor.as_deref().filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => Some(text.parse().map_err(|()| {
            Problem::bad_request("unknown cursor: pass `next` of the previous page unchanged")
        })?),
    };
    let summary = |record: &Record| Summary::of(&record.brief());
    let list = move |store: &crate::store::Store| {
        store.catalog().list(&filter, after.as_ref(), limit, summary)
    };
    let page = admin.read(list).await?;
    #[derive(Serialize)]
    struct Recordings {
        recordings: Vec<Summary>,
        next: Option<String>,
    }
    let recordings = page.records;
    let next = page.next.map(|cursor| cursor.to_string());
    Ok(as_json(&Recordings { recordings, next }))
}

/// `GET /api/v1/recordings/{day}/{id}`: the end record.
pub(super) async fn recording(
    State(admin): State<Admin>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Problem> {
    Ok(as_json(&admin.record(&recording_key(path)?).await?))
}

/// `DELETE /api/v1/recordings/{day}/{id}`.
pub(super) async fn delete(
    State(admin): State<Admin>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Problem> {
    let key = recording_key(path)?;
    if !admin.config.allows_delete {
        let detail = "recordings can be deleted only when the recorder runs with --allow-delete";
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    let unwanted = key.clone();
    if !admin.read(move |store| store.delete(&unwanted)).await? {
        return Err(Problem::new(StatusCode::NOT_FOUND, NO_RECORDING));
    }
    tracing::info!(day = %key.day(), id = key.id().as_str(), "a recording was deleted through the API");
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Deserialize)]
pub(super) struct PeaksQuery {
    columns: Option<String>,
}

/// `GET /api/v1/recordings/{day}/{id}/peaks`: the waveform.
pub(super) async fn peaks(
    State(admin): State<Admin>,
    path: Result<Path<(String, String)>, PathRejection>,
    query: Result<Query<PeaksQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let key = recording_key(path)?;
    let query = asked(query)?;
    let columns = count("columns", query.columns.as_deref(), COLUMNS, COLUMNS_MAX)?;
    let record = admin.record(&key).await?;
    let unknown = |error: UnknownEncoding| {
        Problem::new(StatusCode::NOT_FOUND, format!("the recording has no waveform: {error}"))
    };
    record.format.spec().map_err(unknown)?;
    let (wanted, drawn) = (key.clone(), record.clone());
    let peaks = admin.read(move |store| store.peaks(&wanted, &drawn, columns)).await?;
    let peaks =
        peaks.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "the recording has no audio"))?;
    if peaks.is_sampled {
        // So that the next answer is exact. Nobody waits for it.
        let store = Arc::clone(&admin.sources.store);
        drop(tasks::blocking(move || {
            if let Err(error) = store.make_peaks(&key, &record) {
                tracing::debug!(%error, "cannot make the peaks of a recording");
            }
        }));
    }
    Ok(as_json(&peaks))
}

/// `GET /api/v1/recordings/{day}/{id}/audio`: the WAV, or a part of it.
pub(super) async fn audio(
    State(admin): State<Admin>,
    path: Result<Path<(String, String)>, PathRejection>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let key = recording_key(path)?;
    let record = admin.record(&key).await?;
    let (opened, name) = (key.clone(), format!("{}.wav", key.id()));
    let file = admin.read(move |store| store.open_wav(&opened)).await?;
    let (Some(file), Some(wav)) = (file, record.wav) else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "the recording has no audio"));
    };
    let etag = wav.etag();
    let head = [
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::CACHE_CONTROL, "private, no-cache, no-transform".to_owned()),
        (header::CONTENT_DISPOSITION, format!("inline; filename=\"{name}\"")),
        (header::CONTENT_TYPE, "audio/wav".to_owned()),
        (header::ETAG, etag.clone()),
    ];
    if parts::is_known(&headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, head).into_response());
    }
    let (status, range) = match parts::asked(&method, &headers, &etag, wav.bytes) {
        Part::Whole => (StatusCode::OK, 0..wav.bytes),
        Part::Range(range) => (StatusCode::PARTIAL_CONTENT, range),
        Part::Beyond => {
            let range = [(header::CONTENT_RANGE, format!("bytes */{}", wav.bytes))];
            let detail = "the range holds no byte of the recording";
            let problem = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, detail);
            return Ok((range, problem).into_response());
        }
    };
    let length = [(header::CONTENT_LENGTH, (range.end - range.start).to_string())];
    let part = format!("bytes {}-{}/{}", range.start, range.end.saturating_sub(1), wav.bytes);
    let body = file_body(file, range);
    let mut response = (status, head, length, body).into_response();
    if status == StatusCode::PARTIAL_CONTENT {
        let part = part.parse().map_err(Problem::internal)?;
        response.headers_mut().insert(header::CONTENT_RANGE, part);
    }
    Ok(response)
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
    let store = &admin.sources.store;
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

fn file_body(file: File, range: std::ops::Range<u64>) -> Body {
    let file = Arc::new(file);
    stream::body(async move |feed| {
        let mut at = range.start;
        while at < range.end {
            let length = (range.end - at).min(PIECE_BYTES) as usize;
            let file = Arc::clone(&file);
            let read = tasks::blocking(move || {
                let mut piece = vec![0; length];
                file.read_exact_at(&mut piece, at).map(|()| piece)
            });
            // The length is announced already: a body that ends early tells the client of the error.
            let Ok(Ok(piece)) = read.await else {
                return Ok(());
            };
            at += length as u64;
            feed.send(Bytes::from(piece)).await?;
        }
        Ok(())
    })
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

pub(super) fn no_call() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is no such call now; see the recordings")
}

fn recording_key(path: Result<Path<(String, String)>, PathRejection>) -> Result<Key, Problem> {
    let key = path.ok().and_then(|Path((day, id))| Key::parse(&day, &id));
    key.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, NO_RECORDING))
}

pub(super) fn as_json(value: &impl Serialize) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], json_of(value)).into_response()
}
