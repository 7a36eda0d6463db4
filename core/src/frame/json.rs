//! The reader of JSON dialects that differ in the names of their fields: any legal spelling, each field
//! by itself.

use super::found::{Anything, Found, Slow, decode_rare, from_json, range_in, to_str};
use super::members::{self, Members, Value};
use super::names::{Kind, Names};
use super::spelling::canonicalise;
use super::start::track;
use super::{Body, Dtmf, Frame, Mark, PeerError, Start, Text, Track, usual};

#[inline(never)]
pub(super) fn parse<'t>(text: &'t mut [u8], names: &Names) -> Result<Frame<'t>, PeerError> {
    match usual::find(text, names) {
        Some(found) => Ok(found.decode(text)),
        None => parse_any(text, names),
    }
}

/// Parses a message in any spelling.
pub(super) fn parse_any<'t>(text: &'t mut [u8], names: &Names) -> Result<Frame<'t>, PeerError> {
    let odd_fields = canonicalise(text, &names.dialect)?;
    match parse_media(text, names)? {
        Slow::Media(found) => Ok(decode_rare(found, text)),
        Slow::Rejected { sequence, stream, error } => {
            let stream_id = text.get(stream.0..stream.1).unwrap_or_default();
            Ok(Frame::new(sequence, stream_id, Body::Rejected(error)))
        }
        Slow::Other { sequence } => parse_rare(text, names, sequence, odd_fields),
    }
}

/// The members of a message and the meaning of its event; `None` if it is none of the provider's events.
fn open<'t>(text: &'t [u8], names: &Names) -> Result<(Members<'t>, Option<Kind>), PeerError> {
    let Anything {} = from_json(text)?;
    let message = members::members(to_str(text)?);
    let Some(Value::String(event)) = message.clone().only(names.event)? else {
        return Err(PeerError::Shape);
    };
    let kind = names.events.iter().find(|(name, _)| *name == event).map(|(_, kind)| *kind);
    Ok((message, kind))
}

fn parse_media(text: &[u8], names: &Names) -> Result<Slow, PeerError> {
    let (message, kind) = open(text, names)?;
    if kind != Some(Kind::Media) {
        return Ok(Slow::Other { sequence: number(&message, names.sequence) });
    }
    let mut fields = Fields::default();
    let mut has_object = names.media.is_empty();
    for (name, value) in message {
        if !has_object && name == names.media {
            let Value::Object(_) = value else {
                fields.error = Some(PeerError::Shape);
                continue;
            };
            has_object = true;
            value.members().for_each(|(name, value)| fields.note(names, name, value, true));
        } else if name == names.media && !name.is_empty() {
            fields.error = Some(PeerError::Shape);
        } else {
            fields.note(names, name, value, names.media.is_empty());
        }
    }
    if !has_object {
        fields.error = Some(PeerError::Shape);
    }
    let Fields { sequence, stream, track, chunk, timestamp_ms, payload, error } = fields;
    let stream = range_in(text, stream.unwrap_or_default());
    if let Some(error) = error {
        return Ok(Slow::Rejected { sequence, stream, error });
    }
    let (payload_start, payload_end) = range_in(text, payload.unwrap_or_default());
    Ok(Slow::Media(Found {
        sequence,
        track: track.unwrap_or(Track::Inbound),
        chunk,
        timestamp_ms,
        payload_start,
        payload_end,
        id_start: stream.0,
        id_end: stream.1,
        is_known: false,
    }))
}

/// The fields of a media message, collected in one pass.
#[derive(Default)]
struct Fields<'t> {
    sequence: Option<u64>,
    stream: Option<&'t str>,
    track: Option<Track>,
    chunk: Option<u64>,
    timestamp_ms: Option<u64>,
    payload: Option<&'t str>,
    error: Option<PeerError>,
}

impl<'t> Fields<'t> {
    /// Takes a field, which `is_own` if it stands where the audio does.
    fn note(&mut self, names: &Names, name: &str, value: Value<'t>, is_own: bool) {
        match (name, value) {
            ("", _) => {}
            ("track", Value::String(name)) if is_own => match track(name) {
                Some(track) => self.track = Some(track),
                None => self.error = Some(PeerError::Track),
            },
            ("payload", Value::String(payload)) if is_own && self.payload.is_none() => {
                self.payload = Some(payload);
            }
            ("track" | "payload", Value::Null) if is_own => {}
            ("track" | "payload", _) if is_own => self.error = Some(PeerError::Shape),
            ("chunk", value) if is_own => self.chunk = digits(value),
            ("timestamp", value) if is_own => self.timestamp_ms = digits(value),
            (name, value) if name == names.sequence => self.sequence = digits(value),
            (name, value) if name == names.stream_id => {
                // The one beside the audio has precedence, and comes in any order.
                let id = value.scalar().map(Text::as_escaped);
                self.stream = if is_own { id.or(self.stream) } else { self.stream.or(id) };
            }
            _ => {}
        }
    }
}

/// The value of a number, which has one spelling by now.
fn digits(value: Value<'_>) -> Option<u64> {
    match value {
        Value::Scalar(digits) => digits.parse().ok(),
        _ => None,
    }
}

/// The value of a field; `None` if the provider has no such field.
fn find<'t>(place: &Members<'t>, name: &str) -> Option<Value<'t>> {
    if name.is_empty() { None } else { place.clone().find(name) }
}

/// The value of a field with a number.
fn number(place: &Members<'_>, name: &str) -> Option<u64> {
    digits(find(place, name)?)
}

/// Reads any other message, each field by itself.
#[cold]
#[inline(never)]
fn parse_rare<'t>(
    text: &'t [u8],
    names: &Names,
    sequence: Option<u64>,
    odd_fields: u32,
) -> Result<Frame<'t>, PeerError> {
    let (message, kind) = open(text, names)?;
    // An event's own object has its name; with some providers, every event has that of a start.
    let own = message.clone().find(names.event).and_then(Value::scalar).unwrap_or_default();
    let objects = [own.as_escaped(), names.start].map(|name| find(&message, name));
    let [own, other] = objects.map(|object| object.unwrap_or(Value::Null).members());
    let places = [own, other, message.clone()];
    // The text of a key or a mark; some senders leave out a mark's name.
    let field = |name: &str| {
        let value = places.iter().find_map(|place| find(place, name));
        value.and_then(Value::scalar).unwrap_or_default()
    };
    let body = match kind {
        Some(Kind::Connected) => Body::Connected,
        Some(Kind::Start) => Body::Start(start(&message, names, odd_fields)),
        Some(Kind::Dtmf) => Body::Dtmf(Dtmf { digit: field("digit") }),
        Some(Kind::Mark) => Body::Mark(Mark { name: field("name") }),
        Some(Kind::Stop) => Body::Stop,
        Some(Kind::Media) | None => Body::Other,
    };
    let stream_id = match &body {
        Body::Start(start) => start.stream_id,
        _ => field(names.stream_id),
    };
    let stream_id = stream_id.as_escaped().as_bytes();
    Ok(Frame::new(sequence, stream_id, body))
}

/// Reads a start as far as it makes sense: an odd field costs the recording nothing.
#[inline(never)]
fn start<'t>(message: &Members<'t>, names: &Names, odd_fields: u32) -> Start<'t> {
    let habits = names.habits;
    let mut found = Start {
        format: habits.default_format,
        tracks: habits.default_tracks,
        odd_fields,
        ..Start::new()
    };
    let inner = match message.clone().find(names.start) {
        Some(object @ Value::Object(_)) => object.members(),
        start => {
            found.odd_fields += u32::from(!matches!(start, None | Some(Value::Null)));
            Value::Null.members()
        }
    };
    let places = [inner, message.clone()];
    let field = |name: &str| {
        let named = places.iter().filter_map(|place| find(place, name));
        named.into_iter().find(|value| *value != Value::Null)
    };
    let mut id = |name: &str| {
        let value = field(name);
        let text = value.and_then(Value::scalar);
        found.odd_fields += u32::from(!matches!(value, None | Some(Value::String(_))));
        text.unwrap_or_default()
    };
    (found.stream_id, found.call_id, found.account_id) =
        (id(names.stream_id), id(names.call_id), id(names.account_id));
    found.read_tracks(field(names.tracks));
    found.read_format(field(names.format), &names.format_names, habits.linear);
    found.read_parameters(names.parameters, field(names.parameters));
    found.read_ends(field);
    (names.more)(&mut found, message);
    found
}

#[cfg(feature = "providers")]
#[cfg(test)]
mod tests {
    use std::format;
    use std::string::String;

    use super::super::{bandwidth, exotel, plivo, telnyx, voximplant, wavix};
    use super::*;

    const MESSAGES: [(&Names, &str); 10] = [
        (
            &telnyx::NAMES,
            r#"{"mediA":"AAcO","media":{"payload":"AAcO"},"event":"media","stream_id":"S"}"#,
        ),
        (
            &plivo::NAMES,
            r#"{"media":{"track":"inbound","payload":"AAcO","chunk":1,"chunk2":7},"event":"media","streamId":"b7","sequenceNumber":2}"#,
        ),
        (
            &bandwidth::NAMES,
            r#"{"track":"inbound","payload":"AAcO","eventType":"media","streamId":"s","sequenceNumber":2}"#,
        ),
        (
            &telnyx::NAMES,
            r#"{"event":"media","sequence_number":"4","media":{"track":"inbound","chunk":"2","timestamp":"20","payload":"AAcOFRwjKjE="},"stream_id":"32DE0DEA-1"}"#,
        ),
        (
            &plivo::NAMES,
            r#"{"sequenceNumber":2,"streamId":"b77e","event":"media","media":{"track":"outbound","timestamp":"1764200000020","chunk":1,"payload":"AAcOFRwjKjE="},"extra_headers":"{}"}"#,
        ),
        (
            &exotel::NAMES,
            r#"{"event": "media", "sequence_number": 3, "stream_sid": "s-1", "media": {"chunk": 2, "timestamp": "10", "payload": "AAcOFRwj"}}"#,
        ),
        (
            &bandwidth::NAMES,
            r#"{"eventType":"media","streamId":"s-1","track":"inbound","payload":"AAcOFRwjKjE="}"#,
        ),
        (
            &voximplant::NAMES,
            r#"{"event":"media","sequenceNumber":1,"media":{"tag":"a","chunk":0,"timestamp":0,"payload":"AAcO"}}"#,
        ),
        (
            &wavix::NAMES,
            r#"{"event":"media","event_time":"2026","call_id":"c","stream_id":"s","sequence_number":7,"media":{"track":"inbound","chunk":1,"timestamp":160,"payload":"AAcOFRwj"}}"#,
        ),
        (&telnyx::NAMES, r#"{"stream_id":"S","media":{"payload":"AAcO"},"event":"media"}"#),
    ];

    /// Reads a text in both ways, and returns whether it is of the usual spelling.
    fn agree(names: &Names, text: &[u8]) -> bool {
        let Some(found) = usual::find(text, names) else { return false };
        let quick = format!("{:?}", found.decode(&mut text.to_vec()));
        let slow = format!("{:?}", parse_any(&mut text.to_vec(), names).map(Some));
        assert_eq!(format!("Ok(Some({quick}))"), slow, "{}", String::from_utf8_lossy(text));
        true
    }

    #[test]
    fn usual_messages_are_found() {
        for (names, text) in MESSAGES {
            assert!(agree(names, text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn a_message_that_is_found_means_the_same_to_the_reader_of_all_spellings() {
        let mut found = 0u32;
        for (names, text) in MESSAGES {
            for other in usual::others(text.as_bytes()) {
                found += u32::from(agree(names, &other));
            }
        }
        assert!(found > 1000, "{found}");
    }
}
