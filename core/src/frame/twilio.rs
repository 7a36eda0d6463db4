//! Twilio Media Streams. Read on 2026-11-22: <https://www.twilio.com/docs/voice/media-streams/websocket-messages>

use serde::Deserialize;

use super::exact::{after, before, digits, is_plain, is_same};
use super::members::{self, Value};
use super::spelling::{Dialect, canonicalise};
use super::{Body, Dtmf, Frame, Habits, Mark, Media, PeerError, Start, Text, Track, Tracks};
use crate::base64;
use crate::format::Format;

const DIALECT: Dialect = Dialect {
    numbers: &[b"sequenceNumber", b"chunk", b"timestamp", b"sampleRate", b"channels"],
    free: &[b"customParameters", b"custom_parameters"],
};

pub(super) const HABITS: Habits =
    Habits { ends_with_stop: true, default_format: Some(Format::TELEPHONE) };

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
    let odd_fields = canonicalise(text, &DIALECT)?;
    match parse_media(text)? {
        Slow::Media(found) => Ok(found.decode(text)),
        Slow::Rejected { sequence, stream, error } => {
            let stream_id = text.get(stream.0..stream.1).unwrap_or_default();
            Ok(Frame { sequence, stream_id, body: Body::Rejected(error), is_known: false })
        }
        Slow::Other => parse_rare(text, odd_fields),
    }
}

/// A media message before its payload is decoded. Payload and stream id are ranges of the text, so that
/// the text can be changed.
#[derive(Clone, Copy)]
struct Found {
    sequence: Option<u64>,
    track: Track,
    chunk: Option<u64>,
    timestamp_ms: Option<u64>,
    payload_start: usize,
    payload_end: usize,
    id_start: usize,
    id_end: usize,
    is_known: bool,
}

impl Found {
    #[inline]
    fn decode(self, text: &mut [u8]) -> Frame<'_> {
        let Self { sequence, track, chunk, timestamp_ms, id_start, id_end, .. } = self;
        let (before, rest) = text.split_at_mut_checked(self.payload_start).unwrap_or_default();
        let length = self.payload_end.saturating_sub(self.payload_start);
        let (payload, after) = rest.split_at_mut_checked(length).unwrap_or_default();
        let stream_id = match id_start.checked_sub(self.payload_end) {
            Some(start) => after.get(start..id_end.saturating_sub(self.payload_end)),
            None => before.get(id_start..id_end),
        };
        let body = match base64::decode_in_place(payload) {
            Some(bytes) => {
                Body::Media(Media { tracks: Tracks::One(track), chunk, timestamp_ms, bytes })
            }
            None => Body::Rejected(PeerError::Base64),
        };
        Frame { sequence, stream_id: stream_id.unwrap_or_default(), body, is_known: self.is_known }
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

/// A message in a spelling left to the parser.
enum Slow {
    Media(Found),
    /// Not media.
    Other,
    /// Media that cannot be taken; `stream` is the range of its stream id.
    Rejected {
        sequence: Option<u64>,
        stream: (usize, usize),
        error: PeerError,
    },
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
    if wire.event != "media" {
        return Ok(Slow::Other);
    }
    let sequence = wire.sequence_number;
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

/// The range in `text` of a part that borrows from it, or is empty: a difference of addresses.
fn range_in(text: &[u8], part: &str) -> (usize, usize) {
    let start = part.as_ptr().addr().wrapping_sub(text.as_ptr().addr()).min(text.len());
    (start, (start + part.len()).min(text.len()))
}

/// Reads any other message, each field by itself.
#[cold]
#[inline(never)]
fn parse_rare(text: &[u8], odd_fields: u32) -> Result<Frame<'_>, PeerError> {
    let wire: WireEvent<'_> = from_json(text)?;
    let message = members::members(to_str(text)?);
    // The text of a key or a mark; some senders leave out a mark's name.
    let field = |object: &str, name: &str| {
        let inner = message.clone().find(object).map(Value::members);
        let value = inner.and_then(|inner| inner.find(name));
        value.and_then(Value::scalar).unwrap_or_default()
    };
    let body = match wire.event {
        "connected" => Body::Connected,
        "start" => Body::Start(start(message.clone(), odd_fields)),
        "dtmf" => Body::Dtmf(Dtmf { digit: field("dtmf", "digit") }),
        "mark" => Body::Mark(Mark { name: field("mark", "name") }),
        "stop" => Body::Stop,
        _ => Body::Other,
    };
    let stream_id = match &body {
        Body::Start(start) => start.stream_id,
        _ => message.find("streamSid").and_then(Value::scalar).unwrap_or_default(),
    };
    let stream_id = stream_id.as_escaped().as_bytes();
    Ok(Frame { sequence: wire.sequence_number, stream_id, body, is_known: false })
}

/// Reads a start as far as it makes sense: an odd field costs the recording nothing.
///
/// A field may stand in `start` or beside it; the one in `start` has precedence.
#[inline(never)]
fn start<'t>(message: members::Members<'t>, odd_fields: u32) -> Start<'t> {
    let mut found = Start { format: HABITS.default_format, odd_fields, ..Start::new() };
    let inner = match message.clone().find("start") {
        Some(object @ Value::Object(_)) => object.members(),
        start => {
            found.odd_fields += u32::from(!matches!(start, None | Some(Value::Null)));
            Value::Null.members()
        }
    };
    let places = [inner, message];
    let field = |name: &str| {
        let named = |place: &members::Members<'t>| place.clone().find(name);
        places.iter().filter_map(named).find(|value| *value != Value::Null)
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
    found.read_format(format);
    for place in &places {
        if found.parameters.is_empty() {
            for name in ["customParameters", "custom_parameters"] {
                found.read_parameters(name, place.clone().find(name));
            }
        }
    }
    found
}

impl<'t> Start<'t> {
    /// Reads the names of tracks: an array of names, or one word. Skips unknown names.
    #[inline(never)]
    fn read_tracks(&mut self, value: Option<Value<'t>>) {
        let mut found = [false; 2];
        let mut note = |name: Value<'_>| match name {
            Value::String("both" | "both_tracks") => found = [true; 2],
            Value::String(name) => match track(name) {
                Some(Track::Inbound) => found[0] = true,
                Some(Track::Outbound) => found[1] = true,
                None => {}
            },
            _ => {}
        };
        match value {
            None => {}
            Some(names @ Value::Array(_)) => {
                let mut odd = 0u32;
                for name in names.elements() {
                    odd = odd.saturating_add(u32::from(!matches!(name, Value::String(_))));
                    note(name);
                }
                self.odd_fields = self.odd_fields.saturating_add(odd);
            }
            Some(word) => {
                self.odd_fields += 1;
                note(word);
            }
        }
        self.tracks = match found {
            [true, true] => Tracks::Both,
            [false, true] => Tracks::One(Track::Outbound),
            [_, false] => Tracks::One(Track::Inbound),
        };
    }

    /// Reads the format of the audio. Absent fields have the values that Twilio always sends.
    #[inline(never)]
    fn read_format(&mut self, value: Option<Value<'t>>) {
        let encoding = match value {
            None => None,
            Some(format @ Value::Object(_)) => {
                // Numbers have one spelling by now.
                let is = |name, expected| {
                    let value = format.members().find(name).and_then(Value::scalar);
                    value.is_none_or(|value| value.as_escaped() == expected)
                };
                if !is("sampleRate", "8000") || !is("channels", "1") {
                    self.format = None;
                }
                format.members().find("encoding").filter(|value| *value != Value::Null)
            }
            // The encoding alone.
            Some(word) => {
                self.odd_fields += 1;
                Some(word)
            }
        };
        match encoding {
            Some(Value::String(name)) => {
                let known = ["audio/x-mulaw", "audio/pcmu", "PCMU"];
                if !known.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                    self.format = None;
                }
                self.encoding = Text::new(name);
            }
            Some(_) => self.odd_fields += 1,
            None => {}
        }
    }

    /// Reads the user's parameters: an object of texts, or any other value, kept as JSON text.
    #[inline(never)]
    fn read_parameters(&mut self, key: &'static str, value: Option<Value<'t>>) {
        match value {
            None | Some(Value::Null | Value::String("")) => {}
            Some(pairs @ Value::Object(_)) => {
                for (name, value) in pairs.members() {
                    self.add_parameter(Text::new(name), value);
                }
            }
            // PHP and others write an empty map like this.
            Some(list @ Value::Array(_)) if list.elements().next().is_none() => {}
            Some(other) => {
                self.odd_fields = self.odd_fields.saturating_add(1);
                self.add_parameter(Text::new(key), other);
            }
        }
    }

    /// Keeps a parameter, or counts it if [`PARAMETERS_MAX`](super::PARAMETERS_MAX) are already kept.
    fn add_parameter(&mut self, name: Text<'t>, value: Value<'t>) {
        if !matches!(value, Value::String(_)) {
            self.odd_fields = self.odd_fields.saturating_add(1);
        }
        if self.parameters.push((name, value.text())).is_err() {
            self.parameters_dropped = self.parameters_dropped.saturating_add(1);
        }
    }
}

/// The track named `name`; TwiML, the REST API and DTMF messages append `_track`.
fn track(name: &str) -> Option<Track> {
    match name {
        "inbound" | "inbound_track" => Some(Track::Inbound),
        "outbound" | "outbound_track" => Some(Track::Outbound),
        _ => None,
    }
}

fn from_json<'t, T: Deserialize<'t>>(text: &'t [u8]) -> Result<T, PeerError> {
    use serde_json_core::de::Error;
    serde_json_core::from_slice(text).map(|(value, _)| value).map_err(|error| match error {
        // Missing and repeated fields, and values of another type.
        Error::CustomError | Error::InvalidType | Error::InvalidNumber => PeerError::Shape,
        _ => PeerError::Json,
    })
}

fn to_str(text: &[u8]) -> Result<&str, PeerError> {
    core::str::from_utf8(text).map_err(|_| PeerError::Json)
}
