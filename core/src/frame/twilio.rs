//! Twilio Media Streams. Read on 2026-11-22: <https://www.twilio.com/docs/voice/media-streams/websocket-messages>

use serde::Deserialize;

use super::exact::{after, before, digits, is_plain, is_same};
use super::found::{Found, Slow, decode_rare, from_json, range_in, to_str};
use super::members::{self, Value};
use super::spelling::{Dialect, canonicalise};
use super::start::{FormatNames, track};
#[cfg(any(feature = "json", feature = "relay", feature = "replies"))]
use super::usual::{self, Fields};
use super::{Body, Dtmf, Frame, Habits, Mark, PeerError, Start, Text, Track};

const DIALECT: Dialect = Dialect {
    numbers: &[b"sequenceNumber", b"chunk", b"timestamp", b"sampleRate", b"channels"],
    free: &[b"customParameters", b"custom_parameters"],
};

pub(super) const HABITS: Habits = Habits::USUAL;

/// Length of Twilio's ids, in bytes; ids of other senders may have any length.
pub(crate) const SID_BYTES: usize = 34;

pub(super) fn parse<'t>(text: &'t mut [u8], known: &[u8]) -> Result<Frame<'t>, PeerError> {
    if let Some(found) = match_media(text, known) {
        return Ok(found.decode(text));
    }
    // Set by the firmware's proof that media cannot panic.
    if cfg!(callreel_frequent_only) {
        return Err(PeerError::Shape);
    }
    parse_other_spelling(text)
}

/// Parses a message in a spelling other than Twilio's own.
// Out of line: Twilio's own media, fifty messages a second, keep few registers.
#[cfg_attr(target_pointer_width = "64", inline(never))]
fn parse_other_spelling(text: &mut [u8]) -> Result<Frame<'_>, PeerError> {
    #[cfg(any(feature = "json", feature = "relay", feature = "replies"))]
    if let Some(found) = usual::find_by(text, note) {
        return Ok(decode_rare(found, text));
    }
    parse_any(text)
}

/// Parses a message in any spelling.
fn parse_any(text: &mut [u8]) -> Result<Frame<'_>, PeerError> {
    let odd_fields = canonicalise(text, &DIALECT)?;
    match parse_media(text)? {
        Slow::Media(found) => Ok(decode_rare(found, text)),
        Slow::Rejected { sequence, stream, error } => {
            let stream_id = text.get(stream.0..stream.1).unwrap_or_default();
            Ok(Frame::new(sequence, stream_id, Body::Rejected(error)))
        }
        Slow::Other { sequence } => parse_rare(text, sequence, odd_fields),
    }
}

/// Recognises a media message in exactly the spelling that Twilio sends, byte for byte. Any other
/// spelling is left to the parser, which must agree on everything that is accepted here.
fn match_media(text: &[u8], known: &[u8]) -> Option<Found> {
    let rest = after(text, br#"{"event":"media","sequenceNumber":""#)?;
    let (sequence, rest) = digits(rest)?;
    let rest = after(rest, br#"","media":{"track":""#)?;
    let (track, rest) = match after(rest, b"inbound") {
        Some(rest) => (Track::Inbound, rest),
        None => (Track::Outbound, after(rest, b"outbound")?),
    };
    let rest = after(rest, br#"","chunk":""#)?;
    let (chunk, rest) = digits(rest)?;
    let rest = after(rest, br#"","timestamp":""#)?;
    let (timestamp_ms, rest) = digits(rest)?;
    let rest = after(rest, br#"","payload":""#)?;
    let payload_start = text.len() - rest.len();

    // The stream id is short, the payload long: search from the end.
    let rest = before(rest, br#""}"#)?;
    let (id_start, is_known) = match known_id(rest, known) {
        Some(start) => (start, true),
        None => (unknown_id(rest)?, false),
    };
    let (rest, id) = rest.split_at_checked(id_start)?;
    let payload = before(rest, br#""},"streamSid":""#)?;
    if !is_plain(payload) || !is_known && !is_plain(id) {
        return None;
    }
    Some(Found {
        sequence: Some(sequence),
        track,
        chunk: Some(chunk),
        timestamp_ms: Some(timestamp_ms),
        payload_start,
        payload_end: payload_start + payload.len(),
        // The message ends with `"}` behind the id.
        id_start: text.len() - id.len() - 2,
        id_end: text.len() - 2,
        is_known,
    })
}

/// Start of the stream id at the end of `text`, if it is the known id and as long as Twilio's.
#[inline]
fn known_id(text: &[u8], known: &[u8]) -> Option<usize> {
    let known: &[u8; SID_BYTES] = known.try_into().ok()?;
    let (rest, id) = text.split_last_chunk::<SID_BYTES>()?;
    (rest.last() == Some(&b'"') && is_same(id, known)).then_some(rest.len())
}

/// Start of a stream id at the end of `text`.
fn unknown_id(text: &[u8]) -> Option<usize> {
    let usual = text.len().checked_sub(SID_BYTES);
    match usual.filter(|at| text.get(at.wrapping_sub(1)) == Some(&b'"')) {
        Some(start) => Some(start),
        None => Some(text.iter().rposition(|byte| *byte == b'"')? + 1),
    }
}

/// Takes a field of a media message in a spelling other than Twilio's own, as its clones send them.
#[cfg(any(feature = "json", feature = "relay", feature = "replies"))]
fn note(fields: &mut Fields, object: &[u8], name: &[u8], value: &usual::Value<'_>) -> Option<()> {
    match (object, name) {
        (b"", b"event") => fields.take_event(value.is("media")),
        (b"", b"media") => fields.enter(value),
        (b"", b"sequenceNumber") => fields.take_sequence(value),
        (b"", b"streamSid") => fields.take_stream(value),
        (b"media", b"track") => fields.take_track(value),
        (b"media", b"chunk") => fields.take_chunk(value),
        (b"media", b"timestamp") => fields.take_timestamp(value),
        (b"media", b"payload") => fields.take_payload(value),
        _ => Some(()),
    }
}

/// The parts of a message that tell its kind. Parsing them checks that the whole text is JSON.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireEvent<'t> {
    event: &'t str,
    sequence_number: Option<u64>,
}

/// The parts of a media message that are read; everything else in it is skipped.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMedia<'t> {
    event: &'t str,
    sequence_number: Option<u64>,
    #[serde(borrow)]
    media: Option<WireChunk<'t>>,
}

#[derive(Deserialize)]
struct WireChunk<'t> {
    track: Option<&'t str>,
    chunk: Option<u64>,
    timestamp: Option<u64>,
    payload: Option<&'t str>,
}

/// Reads a media message.
// Out of line, like `parse_rare`: the stack of media messages, fifty a second, stays small.
#[cold]
#[inline(never)]
fn parse_media(text: &[u8]) -> Result<Slow, PeerError> {
    let wire = match from_json::<WireMedia<'_>>(text) {
        // In other events, `media` may be anything.
        Err(PeerError::Shape) => {
            let WireEvent { event, sequence_number } = from_json(text)?;
            WireMedia { event, sequence_number, media: None }
        }
        wire => wire?,
    };
    let sequence = wire.sequence_number;
    if wire.event != "media" {
        return Ok(Slow::Other { sequence });
    }
    let stream = members::members(to_str(text)?).find("streamSid").and_then(Value::scalar);
    let stream = range_in(text, stream.map(Text::as_escaped).unwrap_or_default());
    let reject = |error| Ok(Slow::Rejected { sequence, stream, error });
    let Some(media) = wire.media else {
        return reject(PeerError::Shape);
    };
    let track = match media.track {
        None => Track::Inbound,
        Some(name) => match track(name) {
            None => return reject(PeerError::Track),
            Some(track) => track,
        },
    };
    let (payload_start, payload_end) = range_in(text, media.payload.unwrap_or_default());
    Ok(Slow::Media(Found {
        sequence,
        track,
        chunk: media.chunk,
        timestamp_ms: media.timestamp,
        payload_start,
        payload_end,
        id_start: stream.0,
        id_end: stream.1,
        is_known: false,
    }))
}

/// Reads any other message, each field by itself. The text is JSON, and has one event: [`parse_media`] has checked
/// that, and read the sequence number.
#[cold]
#[inline(never)]
fn parse_rare(text: &[u8], sequence: Option<u64>, odd_fields: u32) -> Result<Frame<'_>, PeerError> {
    let message = members::members(to_str(text)?);
    let names = ["event", "streamSid", "start"];
    let [event, stream, inner] = message.clone().find_each(names);
    // The text of a key or a mark; some senders leave out a mark's name.
    let field = |object: &str, name: &str| {
        let inner = message.clone().find(object).map(Value::members);
        let value = inner.and_then(|inner| inner.find(name));
        value.and_then(Value::scalar).unwrap_or_default()
    };
    let body = match event {
        Some(Value::String("connected")) => Body::Connected,
        Some(Value::String("start")) => Body::Start(start(message, inner, odd_fields)),
        Some(Value::String("dtmf")) => Body::Dtmf(Dtmf { digit: field("dtmf", "digit") }),
        Some(Value::String("mark")) => Body::Mark(Mark { name: field("mark", "name") }),
        Some(Value::String("stop")) => Body::Stop,
        _ => Body::Other,
    };
    let stream_id = match &body {
        Body::Start(start) => start.stream_id,
        _ => stream.and_then(Value::scalar).unwrap_or_default(),
    };
    let stream_id = stream_id.as_escaped().as_bytes();
    Ok(Frame::new(sequence, stream_id, body))
}

/// Fields of a start.
const FIELDS: [&str; 10] = [
    "streamSid",
    "callSid",
    "accountSid",
    "tracks",
    "mediaFormat",
    "from",
    "to",
    "direction",
    "customParameters",
    "custom_parameters",
];

/// Reads a start as far as it makes sense: an odd field costs the recording nothing.
///
/// A field may stand in `start`, which is `inner`, or beside it; the one in `start` has precedence.
#[inline(never)]
fn start<'t>(
    message: members::Members<'t>,
    inner: Option<Value<'t>>,
    odd_fields: u32,
) -> Start<'t> {
    let mut found = Start { format: HABITS.default_format, odd_fields, ..Start::new() };
    let inner = match inner {
        Some(object @ Value::Object(_)) => object.members(),
        odd => {
            found.odd_fields += u32::from(!matches!(odd, None | Some(Value::Null)));
            Value::Null.members()
        }
    };
    let places = [Place::of(inner), Place::of(message)];
    let field = |name: &str| {
        let mut named = places.iter().filter_map(|place| place.find(name));
        named.find(|value| *value != Value::Null)
    };
    let (stream, call, account) = (field("streamSid"), field("callSid"), field("accountSid"));
    let (tracks, format) = (field("tracks"), field("mediaFormat"));
    let mut id = |value: Option<Value<'t>>| {
        let text = value.and_then(Value::scalar);
        found.odd_fields += u32::from(!matches!(value, None | Some(Value::String(_))));
        text.unwrap_or_default()
    };
    (found.stream_id, found.call_id, found.account_id) = (id(stream), id(call), id(account));
    found.read_tracks(tracks);
    found.read_format(format, &FormatNames::CAMEL, HABITS.linear);
    #[cfg(feature = "json")]
    found.read_ends(field);
    for place in &places {
        if found.parameters.is_empty() {
            for name in ["customParameters", "custom_parameters"] {
                found.read_parameters(name, place.find(name));
            }
        }
    }
    found
}

/// One of the two places of a start's fields.
struct Place<'t> {
    members: members::Members<'t>,
    /// The values of the [`FIELDS`], read in one pass: a look for each name would read the start many times.
    /// Not on a small machine, where flash is short and starts are few.
    table: Option<[Option<Value<'t>>; FIELDS.len()]>,
}

impl<'t> Place<'t> {
    fn of(members: members::Members<'t>) -> Self {
        let has_table = cfg!(target_pointer_width = "64");
        let table = has_table.then(|| members.clone().find_all(FIELDS));
        Self { members, table }
    }

    /// The value of the last member of this name, one of the [`FIELDS`].
    #[inline]
    fn find(&self, name: &str) -> Option<Value<'t>> {
        match &self.table {
            Some(table) if cfg!(target_pointer_width = "64") => FIELDS
                .iter()
                .zip(table)
                .find(|(known, _)| **known == name)
                .and_then(|found| *found.1),
            _ => self.members.clone().find(name),
        }
    }
}

/// Whether a message is of this dialect.
pub(super) fn is_mine(message: &members::Members<'_>, start: &members::Members<'_>) -> bool {
    let names = ["streamSid", "callSid", "accountSid"];
    // Others name calls in this way, too, in messages that are no events.
    let is_event = matches!(message.clone().find("event"), Some(Value::String(_)));
    is_event
        && names.iter().any(|name| {
            let values = [message, start].map(|place| place.clone().find(name));
            values.iter().flatten().any(|value| *value != Value::Null)
        })
}

#[cfg(any(feature = "json", feature = "relay", feature = "replies"))]
#[cfg(test)]
mod tests {
    use std::format;

    use super::*;

    #[test]
    fn media_of_clones_means_the_same_to_the_reader_of_all_spellings() {
        for text in [
            r#"{"event": "media", "sequenceNumber": "4", "media": {"track": "outbound", "chunk": "2", "timestamp": "20", "payload": "AAcOFRwj"}, "streamSid": "MZ1"}"#,
            r#"{"streamSid":"MZ1","media":{"payload":"AAcOFRwj","a":true},"event":"media"}"#,
        ] {
            let quick = |text: &mut [u8]| {
                let found = usual::find_by(text, note)?;
                Some(format!("Ok({:?})", found.decode(text)))
            };
            let slow = |text: &mut [u8]| format!("{:?}", parse_any(text));
            assert!(quick(&mut text.as_bytes().to_vec()).is_some(), "{text}");
            let found = usual::compare(text, quick, slow);
            assert!(found > 500, "{found}");
        }
    }
}
