//! A finished recording below `/api/v1/recordings`: on the disk, or in the home. The disk comes first.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Bytes;
use object_store::path::Path as ObjectPath;
use serde::Deserialize;

use super::api::{as_json, asked, count};
use super::from_home::{self, NO_RECORDING, PIECE_BYTES};
use super::parts::Part;
use super::{Admin, Problem, parts, stream};
use crate::home::Home;
use crate::instance::Instance;
use crate::record::{Key, Record, UnknownEncoding, Wav};
use crate::store::outline::Drawing;
use crate::tasks;

/// Columns of a waveform: the default and the maximum.
const COLUMNS: usize = 800;
const COLUMNS_MAX: usize = 4000;

/// The place of a recording.
enum Place {
    /// The directory of the recorder.
    Disk,
    /// The home, at this URL.
    Home(String),
}

impl Admin {
    /// The record of a recording, and its place.
    async fn record(
        &self,
        key: &Key,
        instance: Option<&Instance>,
    ) -> Result<(Record, Place), Problem> {
        if self.sources.store.is_some() {
            let wanted = key.clone();
            let record = self.read(move |store| store.catalog().record(&wanted)).await?;
            let is_of = |record: &Record| {
                instance.is_none_or(|name| record.instance.as_deref() == Some(name.as_str()))
            };
            if let Some(record) = record.filter(is_of) {
                return Ok((record, Place::Disk));
            }
        }
        let found = self.record_in_home(key, instance).await?;
        found.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, NO_RECORDING))
    }

    async fn record_in_home(
        &self,
        key: &Key,
        instance: Option<&Instance>,
    ) -> Result<Option<(Record, Place)>, Problem> {
        let Some(library) = &self.sources.library else { return Ok(None) };
        let Some(url) = library.find(key, instance).await? else { return Ok(None) };
        let record = library.record(key, &url).await?;
        Ok(record.map(|record| (record, Place::Home(url))))
    }
}

#[derive(Deserialize)]
pub(super) struct InstanceQuery {
    instance: Option<String>,
}

/// The instance of a query, if it names one.
fn instance(name: Option<&str>) -> Result<Option<Instance>, Problem> {
    let parsed = name.filter(|name| !name.is_empty()).map(str::parse).transpose();
    parsed.map_err(|_| Problem::new(StatusCode::NOT_FOUND, NO_RECORDING))
}

/// `GET /api/v1/recordings/{day}/{id}`: the end record.
pub(super) async fn record(
    State(admin): State<Admin>,
    path: Result<Path<(String, String)>, PathRejection>,
    query: Result<Query<InstanceQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let (key, query) = (recording_key(path)?, asked(query)?);
    let instance = instance(query.instance.as_deref())?;
    Ok(as_json(&admin.record(&key, instance.as_ref()).await?.0))
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
        return Err(match admin.record_in_home(&key, None).await? {
            Some(_) => Problem::new(
                StatusCode::CONFLICT,
                "the recording is in the home alone, and callreel deletes nothing there: use the store's own means",
            ),
            None => Problem::new(StatusCode::NOT_FOUND, NO_RECORDING),
        });
    }
    tracing::info!(day = %key.day(), id = key.id().as_str(), "a recording was deleted through the API");
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Deserialize)]
pub(super) struct PeaksQuery {
    columns: Option<String>,
    from_ms: Option<String>,
    to_ms: Option<String>,
    instance: Option<String>,
}

/// The part of a recording that a waveform is asked for.
fn part_ms(query: &PeaksQuery) -> Result<Range<u64>, Problem> {
    let place = |name: &str, text: Option<&str>, default: u64| match text {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| {
            Problem::bad_request(format!("`{name}` is a whole number of milliseconds"))
        }),
    };
    let from = place("from_ms", query.from_ms.as_deref(), 0)?;
    let to = place("to_ms", query.to_ms.as_deref(), u64::MAX)?;
    if from >= to {
        return Err(Problem::bad_request("`to_ms` must lie behind `from_ms`"));
    }
    Ok(from..to)
}

/// `GET /api/v1/recordings/{day}/{id}/peaks`: the waveform, or a part of it.
pub(super) async fn peaks(
    State(admin): State<Admin>,
    path: Result<Path<(String, String)>, PathRejection>,
    query: Result<Query<PeaksQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let key = recording_key(path)?;
    let query = asked(query)?;
    let columns = count("columns", query.columns.as_deref(), COLUMNS, COLUMNS_MAX)?;
    let drawing = Drawing { columns, part_ms: part_ms(&query)? };
    let instance = instance(query.instance.as_deref())?;
    let (record, place) = admin.record(&key, instance.as_ref()).await?;
    let unknown = |error: UnknownEncoding| {
        Problem::new(StatusCode::NOT_FOUND, format!("the recording has no waveform: {error}"))
    };
    record.format.spec().map_err(unknown)?;
    let no_audio = || Problem::new(StatusCode::NOT_FOUND, "the recording has no audio");
    if let (Place::Home(url), Some(library)) = (place, &admin.sources.library) {
        let wav = record.wav.clone().ok_or_else(no_audio)?;
        return Ok(as_json(
            &from_home::peaks(&admin, library.home(), &url, record, &wav, drawing).await?,
        ));
    }
    let (wanted, drawn) = (key.clone(), record.clone());
    let peaks = admin.read(move |store| store.peaks(&wanted, &drawn, &drawing)).await?;
    let peaks = peaks.ok_or_else(no_audio)?;
    if let Some(store) = admin.sources.store.clone().filter(|_| peaks.is_sampled) {
        // So that the next answer is exact. Nobody waits for it.
        drop(tasks::blocking(move || {
            if let Err(error) = store.make_peaks(&key, &record) {
                tracing::debug!(%error, "cannot make the peaks of a recording");
            }
        }));
    }
    Ok(as_json(&peaks))
}

/// The audio of a recording: the WAV, or the FLAC that stands for it in the home.
struct Audio {
    kind: &'static str,
    /// The ending of its name.
    ending: &'static str,
    bytes: u64,
    etag: String,
    place: AudioPlace,
}

/// The bytes of the audio.
enum AudioPlace {
    File(File),
    Home(Home, ObjectPath),
}

impl Audio {
    fn of_wav(wav: &Wav, place: AudioPlace) -> Self {
        let (kind, ending) = ("audio/wav", ".wav");
        Self { kind, ending, bytes: wav.bytes, etag: wav.etag(), place }
    }
}

/// `GET /api/v1/recordings/{day}/{id}/audio`: the WAV, or the FLAC that stands for it in the home, or a part of
/// either.
pub(super) async fn audio(
    State(admin): State<Admin>,
    path: Result<Path<(String, String)>, PathRejection>,
    query: Result<Query<InstanceQuery>, QueryRejection>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (key, query) = (recording_key(path)?, asked(query)?);
    let instance = instance(query.instance.as_deref())?;
    let Audio { kind, ending, bytes, etag, place } =
        admin.open_audio(&key, instance.as_ref()).await?;
    let name = format!("{}{ending}", key.id());
    let head = [
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::CACHE_CONTROL, "private, no-cache, no-transform".to_owned()),
        (header::CONTENT_DISPOSITION, format!("inline; filename=\"{name}\"")),
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::ETAG, etag.clone()),
    ];
    if parts::is_known(&headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, head).into_response());
    }
    let (status, range) = match parts::asked(&method, &headers, &etag, bytes) {
        Part::Whole => (StatusCode::OK, 0..bytes),
        Part::Range(range) => (StatusCode::PARTIAL_CONTENT, range),
        Part::Beyond => {
            let range = [(header::CONTENT_RANGE, format!("bytes */{bytes}"))];
            let detail = "the range holds no byte of the recording";
            let problem = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, detail);
            return Ok((range, problem).into_response());
        }
    };
    let length = [(header::CONTENT_LENGTH, (range.end - range.start).to_string())];
    let part = format!("bytes {}-{}/{}", range.start, range.end.saturating_sub(1), bytes);
    let body = match place {
        _ if method == Method::HEAD => Body::empty(),
        AudioPlace::File(file) => file_body(file, range),
        AudioPlace::Home(home, path) => from_home::body(home, path, range).await?,
    };
    let mut response = (status, head, length, body).into_response();
    if status == StatusCode::PARTIAL_CONTENT {
        let part = part.parse().map_err(Problem::internal)?;
        response.headers_mut().insert(header::CONTENT_RANGE, part);
    }
    Ok(response)
}

impl Admin {
    /// The audio of a recording, on the disk or in the home.
    async fn open_audio(&self, key: &Key, instance: Option<&Instance>) -> Result<Audio, Problem> {
        let no_audio = || Problem::new(StatusCode::NOT_FOUND, "the recording has no audio");
        let (mut record, mut place) = self.record(key, instance).await?;
        if let Place::Disk = place {
            let opened = key.clone();
            let file = self.read(move |store| store.open_wav(&opened)).await?;
            if let (Some(file), Some(wav)) = (file, record.wav) {
                return Ok(Audio::of_wav(&wav, AudioPlace::File(file)));
            }
            // It may have been evicted meanwhile.
            let found = self.record_in_home(key, instance).await?;
            (record, place) = found.ok_or_else(no_audio)?;
        }
        let (Place::Home(url), Some(library)) = (place, &self.sources.library) else {
            return Err(no_audio());
        };
        let (home, wav) = (library.home(), record.wav.ok_or_else(no_audio)?);
        let place = |ending| {
            let path = home.address().path_of(&url, ending).ok_or_else(no_audio)?;
            Ok::<_, Problem>(AudioPlace::Home(home.clone(), path))
        };
        Ok(match wav.made() {
            Some((_, made)) => {
                let (kind, ending, etag) = ("audio/flac", ".flac", format!("\"{}\"", made.sha256));
                Audio { kind, ending, bytes: made.bytes, etag, place: place(ending)? }
            }
            None => Audio::of_wav(&wav, place(".wav")?),
        })
    }
}

fn file_body(file: File, range: Range<u64>) -> Body {
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

fn recording_key(path: Result<Path<(String, String)>, PathRejection>) -> Result<Key, Problem> {
    let key = path.ok().and_then(|Path((day, id))| Key::parse(&day, &id));
    key.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, NO_RECORDING))
}
