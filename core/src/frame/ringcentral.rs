//! RingCentral: audio streaming of Engage Voice, by `ev-audio-streaming-transcription` 1.1.1 (npm) and its
//! namesake 1.0.2 (PyPI), read on 2026-11-27.

use super::members::{Members, Value};
use super::nested::{Audio, Meaning, Reader, all, as_it_is, object, string};
use super::spelling::Dialect;
use super::usual::{self, Fields};
use super::{Body, Habits, PeerError, Start, Text, Track, Tracks};

/// Media has neither a number nor a time. No message tells the perspectives that will come.
pub(super) const HABITS: Habits = Habits { default_tracks: Tracks::Both, ..Habits::USUAL };

pub(super) const READER: Reader = Reader {
    habits: &HABITS,
    dialect: Dialect { numbers: &[], free: &[] },
    prepare: as_it_is,
    read,
    usual: Some(note),
    samples: all,
};

fn read<'t>(message: &Members<'t>, odd_fields: u32) -> Result<Meaning<'t>, PeerError> {
    let Some(Value::String(event)) = message.clone().only("event")? else {
        return Err(PeerError::Shape);
    };
    let id = string(&object(message, "metadata"), "callId");
    let body = match event {
        "Connected" => Body::Connected,
        "Start" => Body::Start(Start {
            stream_id: Text::new(id),
            call_id: Text::new(id),
            format: HABITS.default_format,
            // Neither is told.
            is_format_assumed: true,
            tracks: HABITS.default_tracks,
            has_assumed_tracks: true,
            odd_fields,
            ..Start::new()
        }),
        "Media" => return Ok(audio(message, id)),
        "Stop" => Body::Stop,
        _ => Body::Other,
    };
    Ok(Meaning::of(id, body))
}

/// Audio of the participant, or of all others: each is a message of its own.
fn audio<'t>(message: &Members<'t>, stream_id: &'t str) -> Meaning<'t> {
    let track = perspective(string(message, "perspective")).ok_or(PeerError::Track);
    let payload = match message.clone().find("media") {
        Some(Value::String(payload)) => Ok(payload),
        _ => Err(PeerError::Shape),
    };
    match (payload, track) {
        (Ok(payload), Ok(track)) => Meaning::Audio(Audio {
            sequence: None,
            stream_id,
            track,
            timestamp_ms: None,
            payload,
            start: None,
        }),
        (Err(error), _) | (_, Err(error)) => Meaning::Rejected { sequence: None, stream_id, error },
    }
}

/// Takes a field of an audio message in its usual spelling.
fn note(fields: &mut Fields, object: &[u8], name: &[u8], value: &usual::Value<'_>) -> Option<()> {
    match (object, name) {
        (b"", b"event") => {
            fields.require_track();
            fields.take_event(value.is("Media"))
        }
        (b"", b"metadata") => fields.enter(value),
        (b"", b"perspective") => fields.set_track(perspective(value.text()?)?),
        (b"", b"media") => fields.take_payload(value),
        (b"metadata", b"callId") => fields.take_stream(value),
        _ => Some(()),
    }
}

/// The track of the participant, or of all others.
fn perspective(name: &str) -> Option<Track> {
    match name {
        "Participant" => Some(Track::Inbound),
        "Conference" => Some(Track::Outbound),
        _ => None,
    }
}

/// Whether a message is of this provider: others write their events in small letters.
pub(super) fn is_mine(message: &Members<'_>) -> bool {
    ["Connected", "Start"].contains(&string(message, "event"))
}
