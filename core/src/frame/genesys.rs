//! Genesys: AudioHook Monitor, by its reference client (purecloudlabs/audiohook-reference-implementation of
//! 2026-01-01), which was run.

use core::fmt;

use super::dialogue::{Cause, Dialogue, is_repeatable};
use super::members::{Members, Value};
use super::nested::{Meaning, Reader, all, as_it_is, millionths, number, object, string};
#[cfg(feature = "relay")]
use super::outgoing::{Outgoing, Said};
use super::spelling::Dialect;
use super::{Ask, Body, Dtmf, Habits, PeerError, Skipped, Start, Text, Track, Tracks};
use crate::format::{Codec, Format};

/// Audio comes in binary messages, without a time: its place follows from that before it, and from the
/// messages that tell of time without audio.
pub(super) const HABITS: Habits = Habits {
    closes_after_stop: false,
    names_streams: false,
    is_answered: true,
    has_binary_audio: true,
    default_format: None,
    ..Habits::USUAL
};

pub(super) const READER: Reader = Reader {
    habits: &HABITS,
    dialect: Dialect { numbers: &[b"seq", b"serverseq", b"rate"], free: &[b"customConfig"] },
    prepare: as_it_is,
    read,
    usual: None,
    samples: all,
};

/// The messages that the AudioConnector takes beside audio in binary ones: by pipecat 1.14.0.
#[cfg(feature = "relay")]
pub(super) const OUTGOING: Outgoing = Outgoing {
    kind: "type",
    more: |kind, message| {
        let entities = object(message, "parameters").find("entities").unwrap_or(Value::Null);
        let is_barge_in = |entity: Value<'_>| string(&entity.members(), "type") == "barge_in";
        if kind == "event" && entities.elements().any(is_barge_in) {
            Said::Clear
        } else {
            Said::Other
        }
    },
    ..Outgoing::NONE
};

/// Id of the conversation, and of the participant, that a probe of the connection has.
const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

fn read<'t>(message: &Members<'t>, odd_fields: u32) -> Result<Meaning<'t>, PeerError> {
    let Some(Value::String(kind)) = message.clone().only("type")? else {
        return Err(PeerError::Shape);
    };
    let stream_id = string(message, "id");
    let parameters = object(message, "parameters");
    let body = match kind {
        "open" if !is_repeatable(stream_id.as_bytes()) => return Err(PeerError::Shape),
        "open" => open(stream_id, &parameters, odd_fields),
        "ping" => Body::Asked(Ask::Ping(Text::new(""))),
        "update" => Body::Asked(Ask::Update),
        "close" => Body::Bye,
        "discarded" => skipped(&parameters, false),
        "resumed" => skipped(&parameters, true),
        "dtmf" => Body::Dtmf(Dtmf { digit: Text::new(string(&parameters, "digit")) }),
        "error" => Body::Trouble(Text::new(string(&parameters, "message"))),
        // A pause has its length at its end.
        _ => Body::Other,
    };
    Ok(Meaning::Other { sequence: number(message, "seq"), stream_id, body })
}

fn open<'t>(stream_id: &'t str, parameters: &Members<'t>, odd_fields: u32) -> Body<'t> {
    let participant = object(parameters, "participant");
    let call_id = string(parameters, "conversationId");
    if call_id == NOBODY && string(&participant, "id") == NOBODY {
        return Body::Asked(Ask::Probe);
    }
    let mut start = Start {
        stream_id: Text::new(stream_id),
        call_id: Text::new(call_id),
        account_id: Text::new(string(parameters, "organizationId")),
        format: None,
        odd_fields,
        ..Start::new()
    };
    let media = parameters.clone().find("media").unwrap_or(Value::Null);
    let mut best = 0;
    for offered in media.elements() {
        let offered = Offered::of(&offered.members());
        if start.encoding.is_empty() {
            start.encoding = Text::new(offered.name);
        }
        // The first of the best ones: they come in the order of preference.
        if let Some((format, tracks)) = offered.audio
            && offered.rank() > best
        {
            best = offered.rank();
            start.encoding = Text::new(offered.name);
            start.format = Some(format);
            start.tracks = tracks;
            start.is_interleaved = tracks == Tracks::Both;
        }
    }
    start.keep("participant", string(&participant, "id"));
    for name in ["ani", "aniName", "dnis"] {
        start.keep(name, string(&participant, name));
    }
    start.keep("language", string(parameters, "language"));
    let continued = parameters.clone().find("continuedSessions").unwrap_or(Value::Null);
    if let Some(last) = continued.elements().last() {
        start.keep("continues", string(&last.members(), "id"));
    }
    start.read_parameters("customConfig", parameters.clone().find("customConfig"));
    Body::Start(start)
}

/// Audio that the provider offers to send.
struct Offered<'t> {
    name: &'t str,
    audio: Option<(Format, Tracks)>,
}

impl<'t> Offered<'t> {
    fn of(offered: &Members<'t>) -> Self {
        let name = string(offered, "format");
        let codec = match name {
            "PCMU" => Some(Codec::Mulaw),
            "L16" => Some(HABITS.linear),
            _ => None,
        };
        let channels = offered.clone().find("channels").unwrap_or(Value::Null);
        let mut channels = channels.elements();
        let tracks = match [channels.next(), channels.next(), channels.next()] {
            [Some(Value::String("external")), None, _] => Some(Tracks::One(Track::Inbound)),
            [Some(Value::String("internal")), None, _] => Some(Tracks::One(Track::Outbound)),
            [Some(Value::String("external")), Some(Value::String("internal")), None] => {
                Some(Tracks::Both)
            }
            _ => None,
        };
        let rate = number(offered, "rate").and_then(|rate| u32::try_from(rate).ok());
        let format =
            codec.zip(rate).map(|(codec, sample_rate_hz)| Format { codec, sample_rate_hz });
        let format = format.filter(|format| format.is_recordable());
        Self { name, audio: format.zip(tracks) }
    }

    /// Both sides are better than one, and mu-law, which is what the telephone network has, is better
    /// than samples made of it.
    fn rank(&self) -> u8 {
        let Some((format, tracks)) = self.audio else {
            return 0;
        };
        2 * tracks.channels() as u8 + u8::from(format.codec == Codec::Mulaw)
    }
}

fn skipped<'t>(parameters: &Members<'t>, is_pause: bool) -> Body<'t> {
    match micros(string(parameters, "discarded")) {
        Some(micros) => Body::Skipped(Skipped { micros, is_pause }),
        None => Body::Rejected(PeerError::Shape),
    }
}

/// Microseconds of a duration by ISO 8601 in hours, minutes and seconds: `PT1.5S`.
fn micros(text: &str) -> Option<u64> {
    let mut rest = text.strip_prefix("PT").filter(|rest| !rest.is_empty())?;
    let mut sum = 0u64;
    for (unit, seconds) in [('H', 3600), ('M', 60), ('S', 1)] {
        if let Some((number, behind)) = rest.split_once(unit) {
            let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
            let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
            let value = whole.checked_mul(1_000_000)?.checked_add(millionths(fraction)?)?;
            sum = sum.checked_add(value.checked_mul(seconds)?)?;
            rest = behind;
        }
    }
    rest.is_empty().then_some(sum)
}

/// Content of an answer.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) enum Words {
    Closed,
    Disconnect,
    /// The audio that was chosen; none for a probe.
    Opened(Option<(Format, Tracks)>),
    Pong,
    Updated,
}

pub(super) fn reply(cause: Cause<'_, '_>) -> Option<Words> {
    Some(match cause {
        Cause::Start(start) => Words::Opened(start.format.map(|format| (format, start.tracks))),
        Cause::Ask(Ask::Probe) => Words::Opened(None),
        Cause::Ask(Ask::Ping(_)) => Words::Pong,
        Cause::Ask(Ask::Update) => Words::Updated,
        Cause::Refused => Words::Disconnect,
        Cause::Over => Words::Closed,
        Cause::Hello | Cause::Stop => return None,
    })
}

/// Writes an answer.
pub(super) fn write(words: Words, dialogue: &Dialogue, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let kind = match words {
        Words::Closed => "closed",
        Words::Disconnect => "disconnect",
        Words::Opened(_) => "opened",
        Words::Pong => "pong",
        Words::Updated => "updated",
    };
    let Dialogue { sent, received, .. } = dialogue;
    let id = dialogue.id();
    write!(
        f,
        r#"{{"version":"2","type":"{kind}","seq":{sent},"clientseq":{received},"id":"{id}","#
    )?;
    f.write_str(r#""parameters":{"#)?;
    match words {
        Words::Opened(None) => f.write_str(r#""media":[]"#)?,
        Words::Opened(Some((format, tracks))) => {
            let name = if format.codec == Codec::Mulaw { "PCMU" } else { "L16" };
            let channels = match tracks {
                Tracks::Both => r#""external","internal""#,
                Tracks::One(Track::Inbound) => r#""external""#,
                Tracks::One(Track::Outbound) => r#""internal""#,
            };
            let rate = format.sample_rate_hz;
            write!(f, r#""media":[{{"type":"audio","format":"{name}","channels":[{channels}],"#)?;
            write!(f, r#""rate":{rate}}}]"#)?;
        }
        Words::Disconnect => f.write_str(
            r#""reason":"error","info":"none of the offered media can be recorded: offer PCMU or L16""#,
        )?,
        _ => {}
    }
    f.write_str("}}")
}

/// Whether a message is of this provider.
pub(super) fn is_mine(message: &Members<'_>) -> bool {
    string(message, "type") == "open" && string(message, "version") == "2"
}

#[cfg(test)]
mod tests {
    use super::micros;

    #[test]
    fn durations_are_microseconds() {
        for (text, expected) in [
            ("PT0S", Some(0)),
            ("PT1S", Some(1_000_000)),
            ("PT1.5S", Some(1_500_000)),
            ("PT0.003269937S", Some(3269)),
            ("PT.5S", Some(500_000)),
            ("PT1M1.25S", Some(61_250_000)),
            ("PT2H", Some(7_200_000_000)),
            ("PT1H1M1S", Some(3_661_000_000)),
            ("PT18446744073709551615S", None),
            ("PT", None),
            ("PT1", None),
            ("PT-1S", None),
            ("PT1.xS", None),
            ("P1D", None),
            ("", None),
        ] {
            assert_eq!(micros(text), expected, "{text}");
        }
    }
}
