//! Azure Communication Services: audio streaming of Call Automation, by the parser of
//! `@azure/communication-call-automation` 1.6.0 (npm) and learn.microsoft.com on 2026-11-27.

use super::members::{Members, Value};
use super::nested::{Audio, Meaning, Reader, all, as_it_is, number, object, string, unix_ms};
use super::spelling::Dialect;
use super::usual::{self, Fields};
use super::{Body, Dtmf, Ends, Habits, PeerError, Start, Text, Track};
use crate::format::Format;

/// Unmixed audio has a stream for each participant. Nothing tells its end but that of the connection.
pub(super) const HABITS: Habits = Habits {
    ends_with_stop: false,
    names_streams: false,
    default_format: None,
    begins_with_audio: true,
    ..Habits::USUAL
};

pub(super) const READER: Reader = Reader {
    habits: &HABITS,
    dialect: Dialect { numbers: &[b"sampleRate", b"channels", b"length"], free: &[] },
    prepare: as_it_is,
    read,
    usual: Some(note),
    samples: all,
};

fn read<'t>(message: &Members<'t>, _: u32) -> Result<Meaning<'t>, PeerError> {
    let Some(Value::String(kind)) = message.clone().only("kind")? else {
        return Err(PeerError::Shape);
    };
    let body = match kind {
        "AudioMetadata" => Body::Offer(format(&object(message, "audioMetadata")), Ends::NONE),
        "AudioData" => return Ok(audio(&object(message, "audioData"))),
        "DtmfData" => {
            let data = object(message, "dtmfData");
            let dtmf = Dtmf { digit: Text::new(string(&data, "data")) };
            return Ok(Meaning::of(string(&data, "participantRawID"), Body::Dtmf(dtmf)));
        }
        _ => Body::Other,
    };
    Ok(Meaning::of("", body))
}

/// The format that the metadata tells, if it is one that is known.
fn format(metadata: &Members<'_>) -> Option<Format> {
    let is_pcm = string(metadata, "encoding").eq_ignore_ascii_case("pcm");
    let is_mono = number(metadata, "channels").is_none_or(|count| count == 1);
    let sample_rate_hz = number(metadata, "sampleRate")?.try_into().ok()?;
    (is_pcm && is_mono).then_some(Format { codec: HABITS.linear, sample_rate_hz })
}

/// Audio of a participant, or of all of them together if none is named.
fn audio<'t>(data: &Members<'t>) -> Meaning<'t> {
    let stream_id = string(data, "participantRawID");
    let Some(Value::String(payload)) = data.clone().find("data") else {
        return Meaning::Rejected { sequence: None, stream_id, error: PeerError::Shape };
    };
    let start = Start { stream_id: Text::new(stream_id), format: None, ..Start::new() };
    Meaning::Audio(Audio {
        sequence: None,
        stream_id,
        track: Track::Inbound,
        timestamp_ms: unix_ms(string(data, "timestamp")),
        payload,
        start: Some(start),
    })
}

/// Takes a field of an audio message in its usual spelling.
fn note(fields: &mut Fields, object: &[u8], name: &[u8], value: &usual::Value<'_>) -> Option<()> {
    match (object, name) {
        (b"", b"kind") => fields.take_event(value.is("AudioData")),
        (b"", b"audioData") => fields.enter(value),
        (b"audioData", b"data") => fields.take_payload(value),
        (b"audioData", b"participantRawID") => fields.take_stream(value),
        (b"audioData", b"timestamp") => fields.set_timestamp(unix_ms(value.text()?)),
        _ => Some(()),
    }
}

/// Whether a message is of this provider.
pub(super) fn is_mine(message: &Members<'_>) -> bool {
    let kinds = ["AudioMetadata", "AudioData"];
    kinds.contains(&string(message, "kind"))
}
