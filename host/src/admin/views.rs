//! The shapes of the API's JSON: records, live recordings and the state of the recorder.

use callreel_core::conversation::Totals;
use callreel_core::frame::Track;
use serde::Serialize;

use super::{Admin, health};
use crate::board::{Moment, Talk};
use crate::home;
use crate::outbox::{self, Outbox};
use crate::public_url::STREAM_PATH;
use crate::ready::{Phase, Readiness};
use crate::record::texts;
use crate::record::{FilledBy, Head, What, Word};
use crate::store::{Recovery, Store};

/// Bytes of a moment as JSON, beside its text.
const MOMENT_BYTES: usize = 110;

/// A live recording, as the API shows it.
#[derive(Serialize)]
pub(super) struct CallView {
    pub key: String,
    #[serde(flatten)]
    pub head: Head,
    #[serde(flatten)]
    pub progress: ProgressView,
    pub moments: Vec<MomentView>,
}

/// All live recordings.
#[derive(Serialize)]
pub(super) struct Calls {
    pub calls: Vec<CallView>,
}

/// The figures of a live recording that change all the time.
#[derive(Serialize)]
pub(super) struct ProgressView {
    pub duration_ms: u64,
    pub elapsed_ms: u64,
    /// Largest amplitude of each track since the look before, 0 to 32768.
    pub levels: Vec<u16>,
    pub frames: u64,
    pub late: u64,
    pub missing: u64,
    pub rejected: u64,
    pub gaps: u64,
    pub missing_ms: u64,
    pub is_paused: bool,
    /// The facts of the conversation; absent unless there are two tracks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation: Option<TalkView>,
}

/// The facts of a live conversation. Lists are in the order of the tracks.
#[derive(Serialize)]
pub(super) struct TalkView {
    is_speaking: [bool; 2],
    talk_ms: [u64; 2],
    turns: [u64; 2],
    interruptions: [u64; 2],
    overlap_ms: u64,
    silence_ms: u64,
    dead_air_ms: u64,
    /// The last response latency; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    response_ms: Option<u64>,
}

impl From<Talk> for TalkView {
    fn from(talk: Talk) -> Self {
        let Totals { inbound, outbound, overlap_ms, silence_ms, dead_air_ms, .. } = talk.totals;
        let sides = [inbound, outbound];
        Self {
            is_speaking: talk.is_speaking,
            talk_ms: sides.map(|side| side.talk_ms),
            turns: sides.map(|side| side.turns),
            interruptions: sides.map(|side| side.interruptions),
            overlap_ms,
            silence_ms,
            dead_air_ms,
            response_ms: talk.latency_ms,
        }
    }
}

/// The figures of all live recordings.
#[derive(Serialize)]
pub(super) struct Levels {
    pub calls: Vec<LevelView>,
}

/// The figures of one live recording.
#[derive(Serialize)]
pub(super) struct LevelView {
    pub key: String,
    #[serde(flatten)]
    pub progress: ProgressView,
}

/// A gap, a key or a mark.
#[derive(Clone, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum MomentView {
    Gap {
        at_ms: u64,
        track: Word<Track>,
        missing_ms: u64,
        filled_ms: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        filled_by: Option<FilledBy>,
    },
    Dtmf {
        at_ms: u64,
        value: String,
    },
    Mark {
        at_ms: u64,
        value: String,
    },
}

impl MomentView {
    pub(super) fn json_bytes(&self) -> usize {
        let text = match self {
            Self::Gap { .. } => 0,
            Self::Dtmf { value, .. } | Self::Mark { value, .. } => texts::json_bytes(value),
        };
        MOMENT_BYTES + text
    }
}

impl From<Moment> for MomentView {
    fn from(moment: Moment) -> Self {
        match moment {
            Moment::Gap(gap, _counted_ms) => Self::Gap {
                at_ms: gap.at_ms,
                track: gap.track,
                missing_ms: gap.missing_ms,
                filled_ms: gap.filled_ms,
                filled_by: gap.filled_by,
            },
            Moment::Event(event) => match event.what {
                What::Dtmf(value) => Self::Dtmf { at_ms: event.at_ms, value },
                What::Mark(value) => Self::Mark { at_ms: event.at_ms, value },
            },
        }
    }
}

/// State of the recorder.
#[derive(Serialize)]
pub(super) struct Status {
    version: &'static str,
    uptime_s: u64,
    calls: usize,
    is_draining: bool,
    /// Connections that still go on; absent unless the recorder is draining.
    #[serde(skip_serializing_if = "Option::is_none")]
    calls_left: Option<usize>,
    /// Whether this instance does the work in the directory that one instance does for all.
    keeps_house: bool,
    /// CPUs in use: 1.0 is one whole CPU.
    cpus: f64,
    cpus_total: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk: Option<health::Disk>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retention: Option<health::Retention>,
    /// Progress of recovering the recordings that an earlier run left unfinished, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery: Option<Recovery>,
    allows_delete: bool,
    has_token: bool,
    /// Address for streams; absent, as the disk and the retention are, from a console without a recorder.
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook_url: Option<String>,
    /// Health of the webhook for finished recordings, if one is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook: Option<outbox::Health>,
    /// State of the home of finished recordings, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    home: Option<home::Health>,
    /// Address of the home whose recordings are listed as well, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    reads_home: Option<String>,
}

impl Admin {
    /// State of the recorder.
    pub(super) fn status(&self) -> Status {
        let store = self.sources.store.as_deref();
        let stream_url = self.sources.public_address.map(|mut address| {
            if address.ip().is_unspecified() {
                address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
            }
            let scheme = if self.sources.certificate.is_some() { "wss" } else { "ws" };
            format!("{scheme}://{address}{}{STREAM_PATH}", self.config.path_prefix.as_str())
        });
        Status {
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: self.began.elapsed().as_secs(),
            calls: self.sources.board.count(),
            is_draining: self.is_draining(),
            calls_left: self.sources.readiness.as_ref().and_then(Readiness::calls_left),
            keeps_house: store.is_some_and(Store::keeps_house),
            cpus: (self.process.cpus() * 1000.0).round() / 1000.0,
            cpus_total: self.cpus_total,
            disk: store.and_then(Store::room).map(health::Disk::from),
            retention: store.map(|store| store.retention().into()),
            recovery: store.and_then(health::recovery),
            allows_delete: self.config.allows_delete,
            has_token: self.config.token.is_some(),
            stream_url,
            webhook_url: self.sources.webhook_url.clone(),
            webhook: self.sources.outbox.as_ref().map(Outbox::health),
            home: store.and_then(Store::home),
            reads_home: self.sources.library.as_ref().map(|l| l.home().address().to_string()),
        }
    }

    /// Whether the recorder was told to end; after `--drain-delay` it takes no new calls.
    pub(super) fn is_draining(&self) -> bool {
        *self.phase.borrow() != Phase::Open
    }
}

/// Serialises plain values as JSON.
pub(super) fn json_of(data: &impl Serialize) -> String {
    serde_json::to_string(data).expect("these are plain values")
}
