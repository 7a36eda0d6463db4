//! AudioCodes: VoiceAI Connect and Live Hub, by techdocs.audiocodes.com ("AC Bot API, voice streaming") and
//! rasa-pro 3.21.0 on 2026-11-27.

use core::fmt;

use super::dialogue::{Cause, Dialogue};
use super::members::{Members, Value};
use super::nested::{Audio, Meaning, Reader, all, as_it_is, object, string};
use super::spelling::Dialect;
use super::usual::{self, Fields};
use super::{Ask, Body, Dtmf, Ends, Habits, PeerError, Start, Text, Track};
use crate::format::{Codec, Format};

/// A conversation has streams one after the other, or beside each other with a participant each.
pub(super) const HABITS: Habits =
    Habits { closes_after_stop: false, is_answered: true, default_format: None, ..Habits::USUAL };

pub(super) const READER: Reader = Reader {
    habits: &HABITS,
    dialect: Dialect { numbers: &[], free: &[] },
    prepare: as_it_is,
    read,
    usual: Some(note),
    samples: all,
};

/// Names of the formats that can be accepted.
const FORMATS: [(&str, Format); 4] = [
    ("raw/lpcm16", Format { codec: Codec::L16Le, sample_rate_hz: 16_000 }),
    ("raw/lpcm16_8", Format { codec: Codec::L16Le, sample_rate_hz: 8000 }),
    ("raw/lpcm16_24", Format { codec: Codec::L16Le, sample_rate_hz: 24_000 }),
    ("raw/mulaw", Format::TELEPHONE),
];

fn read<'t>(message: &Members<'t>, odd_fields: u32) -> Result<Meaning<'t>, PeerError> {
    let Some(Value::String(kind)) = message.clone().only("type")? else {
        return Err(PeerError::Shape);
    };
    let call_id = string(message, "conversationId");
    let participant = string(message, "participant");
    let stream_id = if participant.is_empty() { call_id } else { participant };
    let start = Start {
        stream_id: Text::new(stream_id),
        call_id: Text::new(call_id),
        format: None,
        odd_fields,
        ..Start::new()
    };
    let body = match kind {
        "session.initiate" | "session.resume" => offer(message, start),
        "connection.validate" => Body::Asked(Ask::Probe),
        "userStream.start" => Body::Start(start),
        "userStream.chunk" => {
            return Ok(match message.clone().find("audioChunk") {
                Some(Value::String(payload)) => Meaning::Audio(Audio {
                    sequence: None,
                    stream_id,
                    track: Track::Inbound,
                    timestamp_ms: None,
                    payload,
                    start: None,
                }),
                _ => Meaning::Rejected { sequence: None, stream_id, error: PeerError::Shape },
            });
        }
        "userStream.stop" => Body::Stop,
        "activities" => activity(message),
        "session.end" => Body::Bye,
        _ => Body::Other,
    };
    Ok(Meaning::of(stream_id, body))
}

/// The first of the offered formats that can be recorded; the offer of others alone is a start that will
/// be refused.
fn offer<'t>(message: &Members<'t>, start: Start<'t>) -> Body<'t> {
    let offered = message.clone().find("supportedMediaFormats").unwrap_or(Value::Null);
    let known = offered.elements().find_map(|name| {
        let format = FORMATS.iter().find(|(known, _)| name == Value::String(known));
        format.map(|(_, format)| *format)
    });
    match (known, offered.elements().next()) {
        (Some(format), _) => Body::Offer(Some(format), ends(message)),
        (None, None) => Body::Offer(FORMATS.first().map(|(_, format)| *format), ends(message)),
        (None, Some(first)) => Body::Start(Start { encoding: first.text(), ..start }),
    }
}

/// The ends of the call: an offer tells the caller, the beginning of the conversation both.
fn ends<'t>(place: &Members<'t>) -> Ends<'t> {
    let [from, to] = ["caller", "callee"].map(|name| Text::new(string(place, name)));
    Ends { from, to, ..Ends::NONE }
}

/// The first of the activities that are of use to a recorder: a key that was pressed, or the beginning of
/// the conversation, which tells the ends of the call.
fn activity<'t>(message: &Members<'t>) -> Body<'t> {
    let activities = message.clone().find("activities").unwrap_or(Value::Null);
    for activity in activities.elements() {
        let activity = activity.members();
        match string(&activity, "name") {
            "DTMF" => {
                let digit = activity.find("value").and_then(Value::scalar).unwrap_or_default();
                return Body::Dtmf(Dtmf { digit });
            }
            "start" => return Body::Ends(ends(&object(&activity, "parameters"))),
            _ => {}
        }
    }
    Body::Other
}

/// Content of an answer.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) enum Words {
    /// The name of the format that was chosen.
    Accepted(&'static str),
    Started,
    Stopped,
    Validated,
}

pub(super) fn reply(cause: Cause<'_, '_>, dialogue: Dialogue) -> Option<Words> {
    Some(match cause {
        Cause::Hello => {
            let format = dialogue.format?;
            let (name, _) = FORMATS.iter().find(|(_, known)| *known == format)?;
            Words::Accepted(name)
        }
        Cause::Start(_) => Words::Started,
        Cause::Stop => Words::Stopped,
        Cause::Ask(Ask::Probe) => Words::Validated,
        _ => return None,
    })
}

/// Writes an answer. That to a participant's stream names the participant, as AudioCodes' own bot API does.
pub(super) fn write(words: Words, dialogue: &Dialogue, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let kind = match words {
        Words::Accepted(format) => {
            return write!(f, r#"{{"type":"session.accepted","mediaFormat":"{format}"}}"#);
        }
        Words::Validated => {
            return f.write_str(r#"{"type":"connection.validated","success":true}"#);
        }
        Words::Started => "started",
        Words::Stopped => "stopped",
    };
    write!(f, r#"{{"type":"userStream.{kind}""#)?;
    if let Some(participant) = dialogue.part() {
        write!(f, r#","participant":"{participant}""#)?;
    }
    f.write_str("}")
}

/// Takes a field of an audio message in its usual spelling.
fn note(fields: &mut Fields, object: &[u8], name: &[u8], value: &usual::Value<'_>) -> Option<()> {
    match (object, name) {
        (b"", b"type") => fields.take_event(value.is("userStream.chunk")),
        (b"", b"conversationId") => fields.take_call(value),
        (b"", b"participant") => fields.take_stream(value),
        (b"", b"audioChunk") => fields.take_payload(value),
        _ => Some(()),
    }
}

/// Whether a message is of this provider.
pub(super) fn is_mine(message: &Members<'_>) -> bool {
    let kinds = ["session.initiate", "session.resume", "connection.validate"];
    kinds.contains(&string(message, "type"))
}
