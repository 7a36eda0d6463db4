//! The reader of messages that a bot sends to its provider: a provider's own file tells their words.

use super::found::{Anything, Found, from_json, range_in, to_str};
use super::members::{self, Members, Value};
use super::names::{Kind, Names};
use super::spelling::{Dialect, canonicalise};
use super::start::FormatNames;
use super::{Body, Habits, PeerError, Text, Track, usual};

/// Words of the messages that one provider takes. An empty word stands for one that the provider does not have.
pub(super) struct Outgoing {
    /// The field with the kind of a message.
    pub(super) kind: &'static str,
    /// Names in the usual spelling of audio: none where audio comes in binary messages.
    pub(super) usual: Option<&'static Names>,
    /// Kind of audio in JSON, in an object `media`.
    pub(super) audio: &'static str,
    /// Kind of an order to drop the audio that is not played yet.
    pub(super) clear: &'static str,
    /// Kind of a mark.
    pub(super) mark: &'static str,
    /// The object with a mark's name; empty if the name stands beside the kind.
    pub(super) mark_object: &'static str,
    /// The field with a mark's name.
    pub(super) name: &'static str,
    /// Reads a message of any other kind.
    pub(super) more: for<'t> fn(kind: &str, message: &Members<'t>) -> Said<'t>,
}

impl Outgoing {
    /// Twilio's words, which many share.
    pub(super) const TWILIO: Self = Self {
        kind: "event",
        usual: Some(&names("event", &[("media", Kind::Media)])),
        audio: "media",
        clear: "clear",
        mark: "mark",
        mark_object: "mark",
        name: "name",
        more: no_more,
    };

    /// Audio in binary messages, and no words at all.
    #[cfg(any(
        feature = "asterisk",
        feature = "genesys",
        feature = "jambonz",
        feature = "sinch",
        feature = "vonage"
    ))]
    pub(super) const NONE: Self = Self {
        kind: "",
        usual: None,
        audio: "",
        clear: "",
        mark: "",
        mark_object: "",
        name: "name",
        more: no_more,
    };
}

/// The names in audio of the usual spelling: an event with an object `media`.
pub(super) const fn names(event: &'static str, events: &'static [(&'static str, Kind)]) -> Names {
    Names {
        habits: &Habits::USUAL,
        dialect: PLAIN,
        event,
        events,
        sequence: "",
        media: MEDIA,
        start: "",
        // It may be missing, or that of something else.
        stream_id: "",
        call_id: "",
        account_id: "",
        tracks: "",
        format: "",
        format_names: FormatNames::CAMEL,
        parameters: "",
        more: |_, _| {},
    }
}

const MEDIA: &str = "media";
const PLAIN: Dialect = Dialect { numbers: &[], free: &[] };

/// For providers without further messages.
pub(super) fn no_more<'t>(_: &str, _: &Members<'t>) -> Said<'t> {
    Said::Other
}

/// Meaning of a message.
pub(super) enum Said<'t> {
    /// Base64.
    Audio(&'t str),
    Clear,
    Mark(Option<Text<'t>>),
    Other,
}

/// Meaning of a message, with its payload decoded.
pub(super) enum Heard<'t> {
    Audio(&'t [u8]),
    Clear,
    Mark(Option<&'t [u8]>),
    Other,
}

/// A meaning, with ranges of the text in place of its parts.
enum Place {
    Audio(usize, usize),
    Clear,
    Mark(Option<(usize, usize)>),
    Other,
}

pub(super) fn read<'t>(text: &'t mut [u8], words: &Outgoing) -> Result<Heard<'t>, PeerError> {
    if let Some(found) = words.usual.and_then(|names| usual::find(text, names)) {
        return decode(found, text);
    }
    // Set by the firmware's proof that media cannot panic.
    if cfg!(callreel_frequent_only) {
        return Err(PeerError::Shape);
    }
    canonicalise(text, &PLAIN)?;
    match find(text, words)? {
        Place::Audio(payload_start, payload_end) => {
            let found = Found {
                sequence: None,
                track: Track::Outbound,
                chunk: None,
                timestamp_ms: None,
                payload_start,
                payload_end,
                id_start: 0,
                id_end: 0,
                is_known: false,
            };
            decode(found, text)
        }
        Place::Clear => Ok(Heard::Clear),
        Place::Mark(name) => {
            Ok(Heard::Mark(name.map(|(start, end)| text.get(start..end).unwrap_or_default())))
        }
        Place::Other => Ok(Heard::Other),
    }
}

fn decode(found: Found, text: &mut [u8]) -> Result<Heard<'_>, PeerError> {
    match found.decode(text).body {
        Body::Media(media) => Ok(Heard::Audio(media.bytes)),
        Body::Rejected(error) => Err(error),
        _ => Ok(Heard::Other),
    }
}

fn find(text: &[u8], words: &Outgoing) -> Result<Place, PeerError> {
    let Anything {} = from_json(text)?;
    let message = members::members(to_str(text)?);
    Ok(match meaning(&message, words)? {
        Said::Audio(payload) => {
            let (start, end) = range_in(text, payload);
            Place::Audio(start, end)
        }
        Said::Clear => Place::Clear,
        Said::Mark(name) => Place::Mark(name.map(|name| range_in(text, name.as_escaped()))),
        Said::Other => Place::Other,
    })
}

fn meaning<'t>(message: &Members<'t>, words: &Outgoing) -> Result<Said<'t>, PeerError> {
    let Some(Value::String(kind)) = message.clone().only(words.kind)? else {
        return Ok(Said::Other);
    };
    Ok(match kind {
        "" => Said::Other,
        kind if kind == words.audio => {
            let Some(media @ Value::Object(_)) = message.clone().only(MEDIA)? else {
                return Err(PeerError::Shape);
            };
            let Some(Value::String(payload)) = media.members().only("payload")? else {
                return Err(PeerError::Shape);
            };
            Said::Audio(payload)
        }
        kind if kind == words.clear => Said::Clear,
        kind if kind == words.mark => {
            let name = match words.mark_object {
                "" => message.clone().find(words.name),
                object => {
                    let object = message.clone().find(object).unwrap_or(Value::Null);
                    object.members().find(words.name)
                }
            };
            Said::Mark(name.and_then(Value::scalar))
        }
        kind => (words.more)(kind, message),
    })
}
