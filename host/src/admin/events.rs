//! Looks at all live recordings, several times a second, once for all watchers together.
//!
//! Each stream of server-sent events gets the changes. A stream that falls behind gets the whole
//! picture again instead of the events it missed. Levels are different: a stream takes the latest
//! levels when it can, and they are serialised for the first stream that does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use hyper::body::Bytes;
use serde::Serialize;
use serde_json::json;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{MissedTickBehavior, interval};

use super::views::{CallView, Head, LevelView, Levels, MomentView, ProgressView, Summary, json_of};
use super::{Admin, stream};
use crate::board::{Board, Entry, Moment};
use crate::lock::lock;

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

/// Most events that a slow stream may lag behind.
const BACKLOG_MAX: usize = 256;

/// The live recordings at the last look, and the streams that get the changes of the next.
pub(super) struct Watch {
    calls: Mutex<BTreeMap<u64, Seen>>,
    told: broadcast::Sender<Bytes>,
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
            told: broadcast::channel(BACKLOG_MAX).0,
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
        #[derive(Serialize)]
        struct Calls {
            calls: Vec<CallView>,
        }
        self.look_if_older(LOOK_INTERVAL, board);
        let mut picture = lock(&self.picture);
        let version = self.version.load(Ordering::Relaxed);
        if picture.0 != version {
            let calls = Calls { calls: lock(&self.calls).values().map(Seen::view).collect() };
            *picture = (version, json_of(&calls).into());
        }
        picture.1.clone()
    }

    /// One live recording, with all its parameters.
    pub(super) fn call(&self, key: u64, board: &Board) -> Option<CallView> {
        self.look_if_older(LOOK_INTERVAL, board);
        lock(&self.calls).get(&key).map(|seen| seen.view_with(Head::of(&seen.entry.record)))
    }

    fn tell(&self, event: &str, data: &impl Serialize) {
        if self.told.receiver_count() > 0 {
            // The last stream may have ended meanwhile.
            let _ = self.told.send(text_of(event, data));
        }
    }

    /// Looks at every live recording, unless that was done less than `age_max` ago.
    fn look_if_older(&self, age_max: Duration, board: &Board) {
        let mut looked = lock(&self.looked);
        if looked.is_none_or(|looked| looked.elapsed() >= age_max) {
            *looked = Some(Instant::now());
            self.look(board.entries());
        }
    }

    /// Looks at every live recording, in the order of their keys, and sends the changes to the streams.
    fn look(&self, entries: Vec<Arc<Entry>>) {
        let mut calls = lock(&self.calls);
        // Before any event is sent, so that a stream that begins meanwhile gets no picture without it.
        self.version.fetch_add(1, Ordering::Relaxed);
        let is_live = |key: &u64| entries.binary_search_by_key(key, |entry| entry.key).is_ok();
        let ended: Vec<u64> = calls.keys().filter(|key| !is_live(key)).copied().collect();
        for key in ended {
            // The last moments are sent before the end.
            if let Some(mut seen) = calls.remove(&key) {
                self.tell_moments(key, seen.look());
                self.tell("ended", &json!({ "key": key.to_string() }));
            }
        }
        for entry in entries {
            let key = entry.key;
            let is_new = !calls.contains_key(&key);
            let seen = calls.entry(key).or_insert_with(|| Seen::new(entry));
            let news = seen.look();
            if is_new {
                self.tell("started", &seen.view());
            } else {
                self.tell_moments(key, news);
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

    /// The levels at the last look, as an event.
    fn levels(&self) -> Bytes {
        let mut told = lock(&self.levels);
        let look = *self.looks.borrow();
        if told.0 != look {
            let calls = lock(&self.calls);
            let level = |(key, seen): (&u64, &Seen)| LevelView {
                key: key.to_string(),
                progress: seen.progress(),
            };
            let levels = Levels { calls: calls.iter().map(level).collect() };
            *told = (look, text_of("level", &levels));
        }
        told.1.clone()
    }

    fn tell_moments(&self, key: u64, moments: Vec<MomentView>) {
        for moment in moments {
            self.tell(moment.kind(), &json!({ "key": key.to_string(), "moment": moment }));
        }
    }
}

/// Looks at the live recordings until the task is dropped.
pub(super) async fn watch(admin: Admin) {
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    admin.sources.board.attend();
    for look in 0u32.. {
        ticks.tick().await;
        let board = &admin.sources.board;
        let is_watched = admin.watch.told.receiver_count() > 0;
        let age_max = if is_watched { Duration::ZERO } else { IDLE_LOOK_INTERVAL };
        admin.watch.look_if_older(age_max, board);
        for brief in board.take_published() {
            admin.watch.tell("published", &Summary::of(&brief));
        }
        let told = &admin.watch.told;
        board.watch(told.receiver_count() > 0);
        // A stream that began between the two calls must miss nothing.
        if told.receiver_count() > 0 {
            board.watch(true);
        }
        if look % STATUS_LOOKS == 0 && admin.watch.told.receiver_count() > 0 {
            admin.watch.tell("status", &admin.status());
        }
    }
}

/// `GET /api/v1/events`.
pub(super) async fn stream(State(admin): State<Admin>) -> Response {
    let mut told = admin.watch.told.subscribe();
    admin.sources.board.watch(true);
    let mut looks = admin.watch.looks.subscribe();
    let body = stream::body(async move |feed| {
        feed.send("retry: 1000\n\n").await?;
        send_picture(&admin, &feed).await?;
        loop {
            let event = tokio::select! {
                biased;
                event = told.recv() => event,
                _ = looks.changed() => Ok(admin.watch.levels()),
                () = feed.gone() => return Ok(()),
            };
            match event {
                Ok(event) => feed.send(event).await?,
                Err(RecvError::Lagged(_)) => {
                    told = told.resubscribe();
                    send_picture(&admin, &feed).await?;
                }
                Err(RecvError::Closed) => return Ok(()),
            }
        }
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], stream::LIVE, body).into_response()
}

/// Sends the whole picture to a new stream. Streams that begin at one time share the memory of the
/// calls.
async fn send_picture(admin: &Admin, feed: &stream::Feed) -> Result<(), stream::Gone> {
    let status = json_of(&admin.status());
    feed.send(format!("event: hello\ndata: {{\"status\":{status},")).await?;
    feed.send(admin.watch.calls(&admin.sources.board).slice(1..)).await?;
    feed.send("\n\n").await
}

fn text_of(event: &str, data: &impl Serialize) -> Bytes {
    format!("event: {event}\ndata: {}\n\n", json_of(data)).into()
}
