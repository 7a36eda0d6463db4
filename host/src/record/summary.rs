//! The summary of a finished recording: a line of a list, or of an index.

use callreel_core::frame::{Provider, Track};
use jiff::Timestamp;
use jiff::civil::Date;
use serde::Serialize;

use super::{End, EventRecord, Id, Parameters, Record, State, What, Wire, Word, texts};
use crate::caller_ids::CallerIds;

/// Identity of a recording: the data known from its start on.
#[derive(Serialize)]
pub struct Head {
    provider: Word<Provider>,
    stream_id: String,
    call_id: String,
    account_id: String,
    parameters: Parameters,
    /// Number of parameters that are missing from `parameters`, or cut there.
    #[serde(skip_serializing_if = "is_zero")]
    parameters_left_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<Box<CallerIds>>,
    tracks: Vec<Word<Track>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wire: Option<Box<Wire>>,
    started_at: Timestamp,
}

impl Head {
    /// The head of a record.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        Self::with(record, record.parameters.clone(), 0)
    }

    /// The head of a record, with no more of its parameters than a list shows.
    #[must_use]
    pub fn brief(record: &Record) -> Self {
        let (parameters, left_out) = record.parameters.brief();
        Self::with(record, parameters, left_out)
    }

    fn with(record: &Record, parameters: Parameters, parameters_left_out: u64) -> Self {
        Self {
            provider: record.provider.clone(),
            stream_id: record.stream_id.clone(),
            call_id: record.call_id.clone(),
            account_id: record.account_id.clone(),
            parameters,
            parameters_left_out,
            caller: record.caller.clone(),
            tracks: record.tracks.clone(),
            wire: record.wire.clone(),
            started_at: record.started_at,
        }
    }
}

/// A record as a list shows it. Gaps, keys and marks are only counted, and the facts of a conversation left out;
/// parameters take a few hundred bytes.
#[derive(Debug)]
pub struct Brief {
    /// The record without what is left out.
    pub record: Record,
    /// The number of parameters that are not shown whole.
    parameters_left_out: u64,
    keys: u64,
    marks: u64,
    interruptions: u64,
    response_max_ms: Option<u64>,
}

impl Brief {
    /// The brief of a record.
    #[must_use]
    pub fn of(whole: &Record) -> Self {
        let (parameters, parameters_left_out) = whole.parameters.brief();
        let mut record = Record {
            gaps_dropped: whole.gaps_dropped + whole.gaps.len() as u64,
            events_dropped: whole.events_dropped + whole.events.len() as u64,
            pauses_dropped: whole.pauses_dropped + whole.pauses.len() as u64,
            parameters,
            // An earlier build kept ids of any length.
            stream_id: texts::id(whole.stream_id.clone()),
            call_id: texts::id(whole.call_id.clone()),
            account_id: texts::id(whole.account_id.clone()),
            outages: None,
            bot: whole.bot.as_deref().map(|bot| Box::new(bot.brief())),
            conversation: None,
            ..whole.clone()
        };
        (record.gaps, record.events, record.pauses) = (Vec::new(), Vec::new(), Vec::new());
        let is_key = |event: &&EventRecord| matches!(event.what, What::Dtmf(_));
        let keys = whole.events.iter().filter(is_key).count() as u64;
        let talk = whole.conversation.as_deref();
        Self {
            record,
            parameters_left_out,
            keys,
            marks: whole.events.len() as u64 - keys,
            interruptions: talk
                .map_or(0, |talk| talk.interruptions.len() as u64 + talk.interruptions_dropped),
            response_max_ms: talk.and_then(|talk| talk.response_max_ms),
        }
    }
}

/// A recording in a list.
#[derive(Serialize)]
pub struct Summary {
    day: Date,
    id: Option<Id>,
    state: State,
    end: Word<End>,
    reason: Option<String>,
    #[serde(flatten)]
    head: Head,
    ended_at: Timestamp,
    duration_ms: u64,
    gaps: u64,
    missing_ms: u64,
    lost_ms: u64,
    late: u64,
    /// Tracks without any audible sound; absent when none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    silent_tracks: Vec<Word<Track>>,
    /// Keys, marks and interruptions that the record lists; absent when none.
    #[serde(skip_serializing_if = "is_zero")]
    keys: u64,
    #[serde(skip_serializing_if = "is_zero")]
    marks: u64,
    #[serde(skip_serializing_if = "is_zero")]
    interruptions: u64,
    /// The slowest answer of the outbound side; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    response_max_ms: Option<u64>,
    /// Size of the WAV; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    /// The instance that recorded it; absent where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<Box<str>>,
    /// Its URL in the home, without the endings of its objects; absent without a home.
    #[serde(skip_serializing_if = "Option::is_none")]
    home: Option<Box<str>>,
}

impl Summary {
    /// The summary of a published record.
    #[must_use]
    pub fn of(brief: &Brief) -> Self {
        let Brief { record, parameters_left_out, .. } = brief;
        Self {
            day: record.day(),
            id: record.id.clone(),
            state: record.state,
            end: record.end.clone(),
            reason: record.reason.clone(),
            head: Head::with(record, record.parameters.clone(), *parameters_left_out),
            ended_at: record.ended_at,
            duration_ms: record.duration_ms,
            gaps: record.gaps.len() as u64 + record.gaps_dropped,
            missing_ms: record.missing_ms,
            lost_ms: record.lost_ms,
            late: record.frames.late,
            silent_tracks: record.silent_tracks.clone(),
            keys: brief.keys,
            marks: brief.marks,
            interruptions: brief.interruptions,
            response_max_ms: brief.response_max_ms,
            bytes: record.wav.as_ref().map(|wav| wav.bytes),
            instance: record.instance.clone(),
            home: record.home.clone(),
        }
    }

    /// The summary of a recording at this URL in the home, of this instance.
    #[must_use]
    pub fn at(mut self, url: &str, instance: &str) -> Self {
        (self.home, self.instance) = (Some(url.into()), Some(instance.into()));
        self
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}
