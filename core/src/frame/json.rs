//! The reader of JSON dialects that differ in the names of their fields: any legal spelling, each field
//! by itself.

use super::found::{Anything, Found, Slow, from_json, range_in, to_str};
use super::members::{self, Members, Value};
use super::spelling::{Dialect, canonicalise};
use super::start::{FormatNames, track};
use super::{Body, Dtmf, Frame, Habits, Mark, PeerError, Start, Text, Track, usual};

/// Names of one provider's fields. An empty name stands for a field that the provider does not have.
///
/// A field may stand in the object of its event or beside it; the one in the object has precedence.
pub(super) struct Names {
    pub(super) habits: &'static Habits,
    pub(super) dialect: Dialect,
    /// Name of the event.
    pub(super) event: &'static str,
    /// Names of events, and their meanings.
    pub(super) events: &'static [(&'static str, Kind)],
    /// Number among the messages of the stream.
    pub(super) sequence: &'static str,
    /// Object with the audio; empty if the audio stands beside the event.
    pub(super) media: &'static str,
    /// Object of a start and of a stop.
    pub(super) start: &'static str,
    pub(super) stream_id: &'static str,
    pub(super) call_id: &'static str,
    pub(super) account_id: &'static str,
    pub(super) tracks: &'static str,
    /// Object with the format of the audio, and the names of its fields.
    pub(super) format: &'static str,
    pub(super) format_names: FormatNames,
    /// Object with the user's parameters.
    pub(super) parameters: &'static str,
    /// Reads the fields of a start that no other provider has: `message` is the whole message.
    pub(super) more: for<'t> fn(&mut Start<'t>, message: &Members<'t>),
}

/// Meaning of an event.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Connected,
    Dtmf,
    Mark,
    Media,
    Start,
    Stop,
}

/// Numbers of the providers that spell them `sequence_number`, as Exotel, Telnyx and Wavix do.
#[cfg(any(feature = "exotel", feature = "telnyx", feature = "wavix"))]
pub(super) const SNAKE_NUMBERS: &[&[u8]] =
    &[b"sequence_number", b"chunk", b"timestamp", b"sample_rate", b"channels"];

/// Numbers of the providers that spell them `sequenceNumber`.
#[cfg(any(feature = "bandwidth", feature = "plivo", feature = "voximplant"))]
pub(super) const CAMEL_NUMBERS: &[&[u8]] =
    &[b"sequenceNumber", b"chunk", b"timestamp", b"sampleRate", b"channels"];

/// Events of most providers.
#[cfg(any(
    feature = "bandwidth",
    feature = "exotel",
    feature = "telnyx",
    feature = "voximplant",
    feature = "wavix"
))]
pub(super) const EVENTS: &[(&str, Kind)] = &[
    ("media", Kind::Media),
    ("connected", Kind::Connected),
    ("start", Kind::Start),
    ("dtmf", Kind::Dtmf),
    ("mark", Kind::Mark),
    ("stop", Kind::Stop),
];

/// For providers with no field of their own.
#[cfg(any(feature = "exotel", feature = "voximplant"))]
pub(super) fn no_more<'t>(_: &mut Start<'t>, _: &Members<'t>) {}

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
        Slow::Media(found) => Ok(found.decode(text)),
        Slow::Rejected { sequence, stream, error } => {
            let stream_id = text.get(stream.0..stream.1).unwrap_or_default();
            Ok(Frame::new(sequence, stream_id, Body::Rejected(error)))
        }
        Slow::Other => parse_rare(text, names, odd_fields),
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
        return Ok(Slow::Other);
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
fn parse_rare<'t>(text: &'t [u8], names: &Names, odd_fields: u32) -> Result<Frame<'t>, PeerError> {
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
    let sequence = number(&message, names.sequence);
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
