//! A recorder in this process with its admin listener, an HTTP client for it, and calls to it.

use std::io::{BufRead as _, BufReader, Lines, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use callreel::caller::{Plan, Report, place};
use callreel::{Config, admin, store, webhook};
use serde_json::Value;
use tempfile::TempDir;
use ureq::http::Response;

use super::process::{PATIENCE, eventually};
use super::serving::Serving;

/// A running recorder; stopped when dropped.
pub(crate) struct Recorder {
    serving: Serving,
    pub public: SocketAddr,
    pub admin: SocketAddr,
    pub dir: Arc<TempDir>,
}

impl Recorder {
    pub(crate) fn start(admin: admin::Config) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), admin, None)
    }

    pub(crate) fn start_in(
        dir: Arc<TempDir>,
        admin: admin::Config,
        webhook: Option<webhook::Config>,
    ) -> Self {
        let store = store::Config { dir: dir.path().to_owned(), ..store::Config::default() };
        let serving = Serving::start_plain(Config { admin, store, webhook, ..Config::default() });
        Self { public: serving.public, admin: serving.admin, serving, dir }
    }

    pub(crate) fn stop(&mut self) {
        self.serving.stop();
    }

    /// A plan of calls to this recorder.
    pub(crate) fn plan(&self) -> Plan {
        Plan::new(format!("ws://{}/media-stream", self.public))
    }

    /// Places calls and waits for their end.
    pub(crate) fn place(&self, plan: &Plan) -> Report {
        self.serving.runtime.block_on(place(plan)).unwrap()
    }

    /// Places calls in the background.
    pub(crate) fn place_meanwhile(&self, plan: Plan) -> tokio::task::JoinHandle<Report> {
        self.serving.runtime.spawn(async move { place(&plan).await.unwrap() })
    }

    /// Runs a future on the recorder's runtime to its end.
    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.serving.runtime.block_on(work)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.admin)
    }

    /// Sends a request with these headers; returns the answer.
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(PATIENCE))
            .build()
            .new_agent();
        let mut request = ureq::http::Request::builder().method(method).uri(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::read(agent.run(request.body(()).unwrap()).unwrap())
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[])
    }

    /// Sends requests until `look` finds its value in the answer.
    pub(crate) fn wait_for<T>(&self, path: &str, look: impl Fn(&Value) -> Option<T>) -> T {
        eventually(PATIENCE, path, || look(&self.get(path).json()))
    }

    /// Waits for `count` finished recordings; returns their summaries, newest first.
    pub(crate) fn wait_for_recordings(&self, count: usize) -> Vec<Value> {
        self.wait_for("/api/v1/recordings", |answer| {
            let recordings = answer["recordings"].as_array()?;
            (recordings.len() >= count).then(|| recordings.clone())
        })
    }
}

/// Events of an admin listener from now on, for [`PATIENCE`] at most.
pub(crate) struct Events(Lines<BufReader<ureq::BodyReader<'static>>>);

impl Events {
    pub(crate) fn of(admin: SocketAddr) -> Self {
        let request = ureq::get(format!("http://{admin}/api/v1/events"));
        let request = request.config().timeout_global(Some(PATIENCE)).build();
        let body = request.call().unwrap().into_body();
        Self(BufReader::new(body.into_reader()).lines())
    }

    /// The name and the data of the next event.
    pub(crate) fn next(&mut self) -> (String, Value) {
        let mut event = String::new();
        loop {
            let line = self.0.next().expect("the events go on").expect("an event in time");
            if let Some(name) = line.strip_prefix("event: ") {
                event = name.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                return (event, serde_json::from_str(data).unwrap());
            }
        }
    }

    /// Skips the events before the next one of this name.
    pub(crate) fn wait_for(&mut self, name: &str) {
        while self.next().0 != name {}
    }
}

pub(crate) struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    fn read(response: Response<ureq::Body>) -> Self {
        let (parts, body) = response.into_parts();
        let mut bytes = Vec::new();
        body.into_reader().take(64 << 20).read_to_end(&mut bytes).unwrap();
        Self { status: parts.status.as_u16(), headers: parts.headers, body: bytes }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }
}

/// A tone of this frequency and duration, as mu-law.
pub(crate) fn tone(hz: f64, duration: Duration) -> Vec<u8> {
    let count = (duration.as_secs_f64() * 8000.0) as usize;
    let sample = |index: usize| {
        let angle = index as f64 / 8000.0 * hz * std::f64::consts::TAU;
        callreel_core::g711::encode_mulaw((angle.sin() * 12_000.0) as i16)
    };
    (0..count).map(sample).collect()
}

/// The frequency of a tone in Hz, by its changes of sign.
pub(crate) fn pitch(samples: &[i16]) -> f64 {
    let changes = samples.windows(2).filter(|two| (two[0] < 0) != (two[1] < 0)).count();
    changes as f64 / 2.0 / (samples.len() as f64 / 8000.0)
}

/// Makes a finished recording of the given id and day, as an earlier run would have left it.
pub(crate) fn shelve(dir: &Path, day: &str, id: &str) {
    let record = serde_json::json!({
        "schema": 1, "recorder": "callreel", "id": id, "state": "complete", "end": "stop",
        "provider": "twilio", "stream_id": id, "call_id": format!("CA-{id}"), "account_id": "AC1",
        "parameters": {"number": id}, "parameters_dropped": 0,
        "started_at": format!("{day}T12:00:00Z"), "ended_at": format!("{day}T12:00:01Z"),
        "tracks": ["inbound"], "format": {"encoding": "pcm16", "sample_rate_hz": 8000, "channels": 1},
        "samples": 0, "duration_ms": 0, "elapsed_ms": 0,
        "frames": {"received": 0, "late": 0, "repeated": 0, "before_start": 0,
            "missing": 0, "rejected": {}},
        "gaps": [], "gaps_dropped": 0, "missing_ms": 0, "events": [], "events_dropped": 0,
        "lost_ms": 0, "silent_tracks": [], "equal_channels": false,
    });
    let day = dir.join(day);
    std::fs::create_dir_all(&day).unwrap();
    std::fs::write(day.join(format!("{id}.json")), record.to_string()).unwrap();
}
