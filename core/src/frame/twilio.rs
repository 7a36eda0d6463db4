//! Twilio Media Streams. Read on 2026-11-22: <https://www.twilio.com/docs/voice/media-streams/websocket-messages>

use core::fmt;

use heapless::Vec;
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::base64;

use super::{
    Body, Dialect, Dtmf, Frame, Mark, Media, PARAMETERS_MAX, PeerError, Start, Text, Track, Tracks,
    canonicalise,
};

const DIALECT: Dialect = Dialect {
    numbers: &[b"sequenceNumber", b"chunk", b"timestamp", b"sampleRate", b"channels"],
    free: b"customParameters",
};

/// How long Twilio's ids are; others' may be of any length.
const SID_BYTES: usize = 34;

#[expect(unexpected_cfgs, reason = "only the firmware's proof that media cannot panic sets it")]
pub(super) fn parse(text: &mut [u8]) -> Result<Frame<'_>, PeerError> {
    if let Some(found) = match_media(text) {
        return found.decode(text);
    }
    if cfg!(callreel_frequent_only) {
        return Err(PeerError::Shape);
    }
    canonicalise(text, &DIALECT)?;
    if let Some(found) = parse_media(text)? {
        return found.decode(text);
    }
    parse_rare(text)
}

/// A media message before its payload is decoded; the payload is a range of the text, so that the
/// text can be changed.
#[derive(Clone, Copy)]
struct Found {
    sequence: Option<u64>,
    track: Track,
    chunk: Option<u64>,
    timestamp_ms: Option<u64>,
    payload_start: usize,
    payload_end: usize,
}

impl Found {
    fn decode(self, text: &mut [u8]) -> Result<Frame<'_>, PeerError> {
        let payload = text.get_mut(self.payload_start..self.payload_end).unwrap_or_default();
        let Self { sequence, track, chunk, timestamp_ms, .. } = self;
        let codes = base64::decode_in_place(payload).ok_or(PeerError::Base64)?;
        Ok(Frame { sequence, body: Body::Media(Media { track, chunk, timestamp_ms, codes }) })
    }
}

/// Recognises a media message in exactly the spelling that Twilio sends, byte for byte. Whatever
/// differs is left to the parser, which must agree on everything that is accepted here.
fn match_media(text: &[u8]) -> Option<Found> {
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

    // The stream's id is short, the payload long: the end is found from behind.
    let rest = before(rest, br#""}"#)?;
    let usual =
        rest.len().checked_sub(SID_BYTES).filter(|at| rest.get(at.wrapping_sub(1)) == Some(&b'"'));
    let id_start = match usual {
        Some(start) => start,
        None => rest.iter().rposition(|byte| *byte == b'"')? + 1,
    };
    let (rest, id) = rest.split_at_checked(id_start)?;
    let payload = before(rest, br#""},"streamSid":""#)?;
    if !is_plain(payload) || !is_plain(id) {
        return None;
    }
    Some(Found {
        sequence: Some(sequence),
        track,
        chunk: Some(chunk),
        timestamp_ms: Some(timestamp_ms),
        payload_start,
        payload_end: payload_start + payload.len(),
    })
}

/// What comes after `prefix`. Compared by words here, since small machines' `memcmp` goes by bytes.
#[inline]
fn after<'t, const N: usize>(text: &'t [u8], prefix: &[u8; N]) -> Option<&'t [u8]> {
    let (start, rest) = text.split_first_chunk::<N>()?;
    is_same(start, prefix).then_some(rest)
}

/// What comes before `suffix`, likewise.
#[inline]
fn before<'t, const N: usize>(text: &'t [u8], suffix: &[u8; N]) -> Option<&'t [u8]> {
    let (rest, end) = text.split_last_chunk::<N>()?;
    is_same(end, suffix).then_some(rest)
}

#[inline]
fn is_same<const N: usize>(text: &[u8; N], expected: &[u8; N]) -> bool {
    let (Some(last), Some(last_expected)) = (text.last_chunk(), expected.last_chunk()) else {
        return text == expected;
    };
    let difference = |word, expected| usize::from_ne_bytes(word) ^ usize::from_ne_bytes(expected);
    // The last word may have been looked at before.
    let mut all = difference(*last, *last_expected);
    for (word, expected) in text.as_chunks().0.iter().zip(expected.as_chunks().0) {
        all |= difference(*word, *expected);
    }
    all == 0
}

/// Takes a number as a machine prints it: no leading zero, and short enough never to overflow.
#[inline]
fn digits(text: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0u64;
    let mut rest = text;
    while let [digit @ b'0'..=b'9', behind @ ..] = rest {
        number = number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
        rest = behind;
    }
    match (text, text.len() - rest.len()) {
        (_, 0) | (_, 20..) | ([b'0', ..], 2..) => None,
        _ => Some((number, rest)),
    }
}

/// Whether a JSON string of these bytes means just them, told a machine word at a time: no quote, no
/// backslash, and neither what comes before `#` nor what is not ASCII, which is not looked into.
#[inline]
fn is_plain(text: &[u8]) -> bool {
    const fn each(byte: u8) -> usize {
        usize::MAX / 255 * byte as usize
    }
    const HIGH: usize = each(0x80);
    let Some(last) = text.last_chunk() else {
        return text.iter().all(|byte| matches!(byte, b'#'..=b'[' | b']'..=0x7F));
    };
    let plain = |word: [u8; size_of::<usize>()]| {
        let word = usize::from_le_bytes(word);
        let reaches_hash = (word | HIGH) - each(b'#');
        let is_no_backslash = (word ^ each(b'\\')).wrapping_add(each(0x7F));
        reaches_hash & is_no_backslash & !word
    };
    // The last word may have been looked at before.
    let mut all = HIGH & plain(*last);
    for word in text.as_chunks().0 {
        all &= plain(*word);
    }
    all == HIGH
}

/// What is read of an event that is none of ours.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireOther<'t> {
    event: &'t str,
    sequence_number: Option<u64>,
}

/// Reads an event that is none of ours; its fields may have our fields' names and other types.
fn parse_other(text: &[u8]) -> Option<Frame<'static>> {
    let wire: WireOther<'_> = from_json(text).ok()?;
    let known = ["connected", "dtmf", "mark", "media", "start", "stop"].contains(&wire.event);
    (!known).then_some(Frame { sequence: wire.sequence_number, body: Body::Other })
}

/// What is read of a media message; everything else in it is skipped.
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

/// Reads a media message; `None` when the event is another one.
// Out of line, as is `parse_rare`: the stack of the frames that come fifty times a second stays small.
#[cold]
#[inline(never)]
fn parse_media(text: &[u8]) -> Result<Option<Found>, PeerError> {
    let wire: WireMedia<'_> = match from_json(text) {
        Err(PeerError::Shape) if parse_other(text).is_some() => return Ok(None),
        wire => wire?,
    };
    if wire.event != "media" {
        return Ok(None);
    }
    let media = wire.media.ok_or(PeerError::Shape)?;
    let track = match media.track {
        None => Track::Inbound,
        Some(name) => track(name).ok_or(PeerError::Track)?,
    };
    let payload = media.payload.unwrap_or_default().as_bytes();
    // The payload borrows from the text, or is empty: its place there is a difference of addresses.
    let payload_start =
        (payload.as_ptr().addr().wrapping_sub(text.as_ptr().addr())).min(text.len());
    Ok(Some(Found {
        sequence: wire.sequence_number,
        track,
        chunk: media.chunk,
        timestamp_ms: media.timestamp,
        payload_start,
        payload_end: payload_start + payload.len(),
    }))
}

/// What is read of every other message.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireRare<'t> {
    event: &'t str,
    sequence_number: Option<u64>,
    stream_sid: Option<&'t str>,
    #[serde(borrow)]
    start: Option<WireStart<'t>>,
    #[serde(borrow)]
    dtmf: Option<WireDtmf<'t>>,
    #[serde(borrow)]
    mark: Option<WireMark<'t>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireStart<'t> {
    stream_sid: Option<&'t str>,
    call_sid: Option<&'t str>,
    account_sid: Option<&'t str>,
    tracks: Option<WireTracks>,
    #[serde(borrow)]
    media_format: Option<WireFormat<'t>>,
    #[serde(borrow)]
    custom_parameters: Option<WireParameters<'t>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireFormat<'t> {
    encoding: Option<&'t str>,
    sample_rate: Option<u64>,
    channels: Option<u64>,
}

#[derive(Deserialize)]
struct WireDtmf<'t> {
    digit: &'t str,
}

#[derive(Deserialize)]
struct WireMark<'t> {
    name: &'t str,
}

#[cold]
#[inline(never)]
fn parse_rare(text: &[u8]) -> Result<Frame<'_>, PeerError> {
    let wire: WireRare<'_> = match from_json(text) {
        Err(PeerError::Shape) => return parse_other(text).ok_or(PeerError::Shape),
        wire => wire?,
    };
    let body = match wire.event {
        "connected" => Body::Connected,
        "start" => Body::Start(start(wire.start.ok_or(PeerError::Shape)?, wire.stream_sid)),
        "dtmf" => {
            let digit = Text::new(wire.dtmf.ok_or(PeerError::Shape)?.digit);
            Body::Dtmf(Dtmf { digit })
        }
        "mark" => {
            let name = Text::new(wire.mark.ok_or(PeerError::Shape)?.name);
            Body::Mark(Mark { name })
        }
        "stop" => Body::Stop,
        _ => Body::Other,
    };
    Ok(Frame { sequence: wire.sequence_number, body })
}

fn start<'t>(wire: WireStart<'t>, stream_sid: Option<&'t str>) -> Start<'t> {
    let format = wire.media_format.unwrap_or_default();
    let text = |id: Option<&'t str>| Text::new(id.unwrap_or_default());
    let encodings = ["audio/x-mulaw", "audio/pcmu", "PCMU"];
    // What is not said is what Twilio always sends.
    let supported = format
        .encoding
        .is_none_or(|encoding| encodings.iter().any(|known| known.eq_ignore_ascii_case(encoding)))
        && format.sample_rate.is_none_or(|rate| rate == u64::from(crate::g711::SAMPLE_RATE_HZ))
        && format.channels.is_none_or(|channels| channels == 1);
    let (parameters, parameters_dropped) =
        wire.custom_parameters.map_or((Vec::new(), 0), |found| (found.kept, found.dropped));
    Start {
        stream_id: text(wire.stream_sid.or(stream_sid)),
        call_id: text(wire.call_sid),
        account_id: text(wire.account_sid),
        tracks: wire.tracks.map_or(Tracks::One(Track::Inbound), |tracks| tracks.0),
        encoding: text(format.encoding),
        supported,
        parameters,
        parameters_dropped,
    }
}

/// The track of that name; `…_track` is how TwiML, the REST API and DTMF messages say it.
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

/// `["inbound", "outbound"]` in any order; names nobody knows are passed over.
struct WireTracks(Tracks);

impl<'de> Deserialize<'de> for WireTracks {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = WireTracks;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of track names")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<WireTracks, A::Error> {
                let mut found = [false; 2];
                while let Some(name) = names.next_element::<&str>()? {
                    match track(name) {
                        Some(Track::Inbound) => found[0] = true,
                        Some(Track::Outbound) => found[1] = true,
                        None => {}
                    }
                }
                Ok(WireTracks(match found {
                    [true, true] => Tracks::Both,
                    [false, true] => Tracks::One(Track::Outbound),
                    [_, false] => Tracks::One(Track::Inbound),
                }))
            }
        }
        deserializer.deserialize_seq(Names)
    }
}

/// An object of strings, of which the first [`PARAMETERS_MAX`] are kept.
struct WireParameters<'t> {
    kept: Vec<(Text<'t>, Text<'t>), PARAMETERS_MAX>,
    dropped: u32,
}

impl<'de: 't, 't> Deserialize<'de> for WireParameters<'t> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = WireParameters<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Self::Value, A::Error> {
                let mut found = WireParameters { kept: Vec::new(), dropped: 0 };
                while !found.kept.is_full() {
                    let Some((name, value)) = pairs.next_entry::<&str, &str>()? else {
                        return Ok(found);
                    };
                    let _ = found.kept.push((Text::new(name), Text::new(value)));
                }
                while pairs.next_entry::<&str, IgnoredAny>()?.is_some() {
                    found.dropped = found.dropped.saturating_add(1);
                }
                Ok(found)
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}
