//! Looks at all live recordings, several times a second, once for all watchers together.
//!
//! Each stream of server-sent events gets the changes that it asks for. A client that comes back, or falls
//! behind, gets the events that it missed and then the whole picture again; if they are too many, an event
//! tells that some are lost. Levels are different: a stream takes the latest levels when it can, and they
//! are serialised for the first stream that does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{MissedTickBehavior, interval};

use super::api::asked;
use super::told::{Kind, Position, Start, Told, Wishes, text_of};
use super::views::{CallView, Calls, LevelView, Levels, MomentView, ProgressView, json_of};
use super::{Admin, Problem, stream};
use crate::board::{Board, Entry, Moment, News};
use crate::lock::lock;
use crate::record::{Head, Summary};

/// Interval of the looks at the live recordings while anybody watches.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Interval of the looks while nobody watches. Up to 64 moments of a call wait for the next look
/// (`MOMENTS_MAX` in `board`); more are lost.
const IDLE_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Ticks of [`LOOK_INTERVAL`] between two `status` events: disk, CPU, and a sign that the recorder is
/// alive.
const STATUS_LOOKS: u32 = 10;

/// Most moments of a call that are kept for later watchers.
const MOMENTS_KEPT: usize = 50;

/// Most bytes that the kept moments of a call may take as JSON.
const MOMENTS_BYTES_KEPT: usize = 4096;

/// Time for which events are kept after the last stream has ended, for clients that come back.
const LINGER: Duration = Duration::from_secs(60);

/// A comment in a stream that takes no `status`: a sign that the recorder is alive.
const SIGN_OF_LIFE: &str = ":\n\n";

/// The live recordings at the last look, and the streams that get the changes of the next.
pub(super) struct Watch {
    calls: Mutex<BTreeMap<u64, Seen>>,
    told: Told,
    /// The last time at which a stream was seen.
    watched: Mutex<Option<Instant>>,
    /// Number of looks that found at least one live recording.
    looks: tokio::sync::watch::Sender<u64>,
    /// The levels as last asked for, as an event, and the value of `looks` they belong to.
    levels: Mutex<(u64, Bytes)>,
    /// Number of the last look; 1 before the first.
    version: AtomicU64,
    /// All live calls as JSON, for new watchers, and the value of `version` they belong to.
    picture: Mutex<(u64, Bytes)>,
    /// Start of the last look.
    looked: Mutex<Option<Instant>>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            calls: Mutex::default(),
            told: Told::default(),
            watched: Mutex::default(),
            looks: tokio::sync::watch::Sender::new(0),
            levels: Mutex::default(),
            version: AtomicU64::new(1),
            picture: Mutex::default(),
            looked: Mutex::default(),
        }
    }
}

/// A live recording at the last look.
struct Seen {
    entry: Arc<Entry>,
    levels: Vec<u16>,
    gaps: u64,
    missing_ms: u64,
    moments: VecDeque<MomentView>,
    moments_bytes: usize,
}

impl Seen {
    fn new(entry: Arc<Entry>) -> Self {
        let levels = vec![0; usize::from(entry.record.format.channels)];
        Self { entry, levels, gaps: 0, missing_ms: 0, moments: VecDeque::new(), moments_bytes: 0 }
    }

    /// Looks again; returns the moments since the last look.
    fn look(&mut self) -> Vec<MomentView> {
        let peaks = self.entry.take_peaks();
        self.levels.iter_mut().zip(peaks).for_each(|(level, peak)| *level = peak);
        let mut news = Vec::new();
        for moment in self.entry.take_moments() {
            if let Moment::Gap(_, counted_ms) = &moment {
                self.gaps += 1;
                self.missing_ms = self.missing_ms.saturating_add(*counted_ms);
            }
            let moment = MomentView::from(moment);
            self.moments_bytes += moment.json_bytes();
            self.moments.push_back(moment.clone());
            while self.moments.len() > MOMENTS_KEPT || self.moments_bytes > MOMENTS_BYTES_KEPT {
                let oldest = self.moments.pop_front();
                self.moments_bytes -= oldest.map_or(self.moments_bytes, |it| it.json_bytes());
            }
            news.push(moment);
        }
        news
    }

    fn progress(&self) -> ProgressView {
        let progress = self.entry.progress();
        ProgressView {
            duration_ms: self.entry.record.format.ms(progress.samples),
            elapsed_ms: self.entry.began.elapsed().as_millis() as u64,
            levels: self.levels.clone(),
            frames: progress.frames,
            late: progress.late,
            missing: progress.missing,
            rejected: progress.rejected,
            gaps: self.gaps,
            missing_ms: self.missing_ms,
            is_paused: self.entry.asked_pause().is_some(),
            conversation: self.entry.talk().map(Into::into),
        }
    }

    /// The recording as a list shows it.
    fn view(&self) -> CallView {
        self.view_with(Head::brief(&self.entry.record))
    }

    fn view_with(&self, head: Head) -> CallView {
        CallView {
            key: self.entry.key.to_string(),
            head,
            progress: self.progress(),
            moments: self.moments.iter().cloned().collect(),
        }
    }
}

impl Watch {
    /// The live recordings at a recent look, as JSON that is made once for all requests.
    pub(super) fn calls(&self, board: &Board) -> Bytes {
        self.look_if_older(LOOK_INTERVAL, board);
        let mut picture = lock(&self.picture);
        let version = self.version.load(Ordering::Relaxed);
        if picture.0 != version {
            let calls = Calls { calls: lock(&self.calls).values().map(Seen::view).collect() };
            *picture = (version, json_of(&calls).into());
        }
        picture.1.clone()
    }

    /// The live recordings of the call that a stream asks for, as JSON.
    fn calls_of(&self, wishes: &Wishes, board: &Board) -> Bytes {
        self.look_if_older(LOOK_INTERVAL, board);
        let calls = lock(&self.calls);
        let wanted = calls.values().filter(|seen| wishes.takes_call(&seen.entry.record.call_id));
        json_of(&Calls { calls: wanted.map(Seen::view).collect() }).into()
    }

    /// One live recording, with all its parameters.
    pub(super) fn call(&self, key: u64, board: &Board) -> Option<CallView> {
        self.look_if_older(LOOK_INTERVAL, board);
        lock(&self.calls).get(&key).map(|seen| seen.view_with(Head::of(&seen.entry.record)))
    }

    /// Notes that a stream begins. The next look may be too late for it.
    fn note_stream(&self) {
        *lock(&self.watched) = Some(Instant::now());
    }

    /// Whether a stream is open, or was a short time ago.
    fn is_watched(&self) -> bool {
        let mut watched = lock(&self.watched);
        if self.told.has_streams() {
            *watched = Some(Instant::now());
        }
        watched.is_some_and(|at| at.elapsed() < LINGER)
    }

    fn tell(&self, kind: Kind, call_id: &str, data: &impl Serialize) {
        if self.is_watched() {
            self.told.tell(kind, call_id, data);
        }
    }

    /// Looks at every live recording, unless that was done less than `age_max` ago.
    fn look_if_older(&self, age_max: Duration, board: &Board) {
        let mut looked = lock(&self.looked);
        if looked.is_none_or(|looked| looked.elapsed() >= age_max) {
            *looked = Some(Instant::now());
            self.look(board);
        }
    }

    /// Looks at every live recording, in the order of their keys, and sends the changes to the streams:
    /// the beginning and the end of each, also of one that was over before this look.
    fn look(&self, board: &Board) {
        let mut calls = lock(&self.calls);
        let (entries, news) = board.look();
        // Before any event is sent, so that a stream that begins meanwhile gets no picture without it.
        self.version.fetch_add(1, Ordering::Relaxed);
        for news in news {
            match news {
                News::Began(entry) => self.tell_start(&mut calls, entry),
                News::Ended(key) => self.tell_end(&mut calls, key),
                News::Published(brief) => {
                    self.tell(Kind::Published, &brief.record.call_id, &Summary::of(&brief));
                }
            }
        }
        // No news are kept while nobody watches.
        let is_live = |key: &u64| entries.binary_search_by_key(key, |entry| entry.key).is_ok();
        let ended: Vec<u64> = calls.keys().filter(|key| !is_live(key)).copied().collect();
        for key in ended {
            self.tell_end(&mut calls, key);
        }
        for entry in entries {
            match calls.get_mut(&entry.key) {
                Some(seen) => {
                    let news = seen.look();
                    self.tell_moments(seen, news);
                }
                None => self.tell_start(&mut calls, entry),
            }
        }
        let is_empty = calls.is_empty();
        drop(calls);
        // The old picture is out of date, and no request for a new one may follow: free its memory now.
        *lock(&self.picture) = (0, Bytes::new());
        if !is_empty {
            self.looks.send_modify(|look| *look += 1);
        }
    }

    /// The levels at the last look, as an event; `None` if the stream takes none.
    fn levels(&self, wishes: &Wishes) -> Option<Bytes> {
        if !wishes.takes(Kind::Level) {
            return None;
        }
        if wishes.call.is_some() {
            let calls = self.levels_of(wishes);
            return (!calls.calls.is_empty()).then(|| text_of(Kind::Level, None, &calls));
        }
        let mut told = lock(&self.levels);
        let look = *self.looks.borrow();
        if told.0 != look {
            *told = (look, text_of(Kind::Level, None, &self.levels_of(wishes)));
        }
        Some(told.1.clone())
    }

    fn levels_of(&self, wishes: &Wishes) -> Levels {
        let calls = lock(&self.calls);
        let wanted = calls.iter().filter(|(_, seen)| wishes.takes_call(&seen.entry.record.call_id));
        let level = |(key, seen): (&u64, &Seen)| LevelView {
            key: key.to_string(),
            progress: seen.progress(),
        };
        Levels { calls: wanted.map(level).collect() }
    }

    /// Tells of a recording that is seen for the first time.
    fn tell_start(&self, calls: &mut BTreeMap<u64, Seen>, entry: Arc<Entry>) {
        let mut seen = Seen::new(entry);
        let _ = seen.look();
        self.tell(Kind::Started, &seen.entry.record.call_id, &seen.view());
        calls.insert(seen.entry.key, seen);
    }

    /// Tells the last moments and the end of a recording, if it is known.
    fn tell_end(&self, calls: &mut BTreeMap<u64, Seen>, key: u64) {
        if let Some(mut seen) = calls.remove(&key) {
            let news = seen.look();
            self.tell_moments(&seen, news);
            let call_id = &seen.entry.record.call_id;
            self.tell(Kind::Ended, call_id, &json!({ "key": key.to_string() }));
        }
    }

    fn tell_moments(&self, seen: &Seen, moments: Vec<MomentView>) {
        let key = seen.entry.key.to_string();
        for moment in moments {
            let data = json!({ "key": key, "moment": moment });
            self.tell(Kind::from(&moment), &seen.entry.record.call_id, &data);
        }
    }
}

/// Looks at the live recordings until the task is dropped.
pub(super) async fn watch(admin: Admin) {
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    admin.sources.board.attend();
    let mut was_watched = false;
    for look in 0u32.. {
        ticks.tick().await;
        let board = &admin.sources.board;
        let is_watched = admin.watch.is_watched();
        let age_max = if is_watched { Duration::ZERO } else { IDLE_LOOK_INTERVAL };
        admin.watch.look_if_older(age_max, board);
        let told = &admin.watch.told;
        if was_watched && !is_watched {
            told.forget();
        }
        was_watched = is_watched;
        board.watch(admin.watch.is_watched());
        // A stream that began between the two calls must miss nothing.
        if told.has_streams() {
            board.watch(true);
        }
        if look % STATUS_LOOKS == 0 && told.has_streams() {
            told.tell_only(Kind::Status, &admin.status());
        }
    }
}

/// Query of `/api/v1/events`.
#[derive(Deserialize)]
pub(super) struct EventsQuery {
    call: Option<String>,
    kind: Option<String>,
}

impl EventsQuery {
    fn wishes(self) -> Result<Wishes, Problem> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let kind_of = |name: &str| Kind::ALL.into_iter().find(|kind| kind.name() == name);
        let kinds = match given(self.kind) {
            None => None,
            Some(names) => {
                Some(names.split(',').map(kind_of).collect::<Option<_>>().ok_or_else(|| {
                    let all = Kind::ALL.map(Kind::name).join(", ");
                    Problem::bad_request(format!(
                        "`kind` takes these, with commas between them: {all}"
                    ))
                })?)
            }
        };
        Ok(Wishes { call: given(self.call), kinds })
    }
}

/// `GET /api/v1/events`.
pub(super) async fn stream(
    State(admin): State<Admin>,
    query: Result<Query<EventsQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wishes = asked(query)?.wishes()?;
    let last = headers.get("last-event-id").map(|id| id.to_str().unwrap_or_default());
    let watch = &admin.watch;
    let position = last.map_or(Position::Now, |id| watch.told.position(id));
    let start = watch.told.begin(position);
    watch.note_stream();
    admin.sources.board.watch(true);
    let mut looks = watch.looks.subscribe();
    let body = stream::body(async move |feed| {
        feed.send("retry: 1000\n\n").await?;
        let mut start = start;
        loop {
            let mut at = begin(&admin, &feed, &wishes, &mut start).await?;
            loop {
                let event = tokio::select! {
                    biased;
                    event = start.to_come.recv() => event,
                    _ = looks.changed() => {
                        if let Some(levels) = admin.watch.levels(&wishes) {
                            feed.send(levels).await?;
                        }
                        continue;
                    }
                    () = feed.gone() => return Ok(()),
                };
                match event {
                    Ok(event) => {
                        at = event.number.unwrap_or(at);
                        if wishes.takes_event(&event) {
                            feed.send(event.text.clone()).await?;
                        } else if event.kind == Kind::Status {
                            feed.send(SIGN_OF_LIFE).await?;
                        }
                    }
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return Ok(()),
                }
            }
            start = admin.watch.told.begin(Position::After(at));
        }
    });
    Ok(([(header::CONTENT_TYPE, "text/event-stream")], stream::LIVE, body).into_response())
}

/// Sends the events that a client has missed, or tells that some are lost, and then the whole picture.
/// Returns the position of the stream.
async fn begin(
    admin: &Admin,
    feed: &stream::Feed,
    wishes: &Wishes,
    start: &mut Start,
) -> Result<u64, stream::Gone> {
    match start.missed.take() {
        Some(missed) => {
            for event in missed.iter().filter(|event| wishes.takes_event(event)) {
                feed.send(event.text.clone()).await?;
            }
        }
        None => feed.send(text_of(Kind::Lost, None, &json!({}))).await?,
    }
    if wishes.takes(Kind::Hello) {
        send_picture(admin, feed, wishes, start.position).await?;
    }
    Ok(start.position)
}

/// Sends the whole picture. Streams that begin at one time share the memory of the calls.
async fn send_picture(
    admin: &Admin,
    feed: &stream::Feed,
    wishes: &Wishes,
    position: u64,
) -> Result<(), stream::Gone> {
    let (id, status) = (admin.watch.told.id(position), json_of(&admin.status()));
    feed.send(format!("id: {id}\nevent: hello\ndata: {{\"status\":{status},")).await?;
    let calls = match &wishes.call {
        None => admin.watch.calls(&admin.sources.board),
        Some(_) => admin.watch.calls_of(wishes, &admin.sources.board),
    };
    feed.send(calls.slice(1..)).await?;
    feed.send("\n\n").await
}
