//! A bot's messages, read as the provider of a look reads them.
//!
//! This is no parser of the recorder's: the caller is the measure for that one.

use std::borrow::Cow;

use callreel_core::format::Codec;
use data_encoding::BASE64;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::looks::Tongue;

/// A message of a bot.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    Audio {
        /// Audio as it is on the wire.
        bytes: Vec<u8>,
        /// Codec and samples a second, where the message tells them; else those of the stream.
        codec: Option<Codec>,
        rate_hz: Option<u32>,
    },
    /// Its audio so far is to be heard before this mark is echoed; `None`: a mark without a name.
    Mark(Option<String>),
    /// Audio that was not heard yet is thrown away.
    Clear,
    /// Marks are forgotten, and the audio plays on.
    ClearMarks,
    HangUp,
    /// A message that the provider knows and that plays nothing.
    Known,
    /// A message that the provider would not take, and the reason.
    Odd(&'static str),
}

/// A message with the id of its stream, if it names one.
#[derive(Debug, PartialEq)]
pub(super) struct Heard<'t> {
    pub(super) said: Said,
    pub(super) stream: Option<Cow<'t, str>>,
}

const NOT_JSON: &str = "a text that is no object of JSON, or has members of other types";
const UNKNOWN: &str = "an event that this provider does not know";
const NO_PAYLOAD: &str = "audio without a payload";
const BAD_BASE64: &str = "audio in broken base64";
const OTHER_TYPE: &str = "audio of a type that this provider does not play";
const BINARY: &str = "a binary message";

/// The members of a bot's text that any provider looks at.
#[derive(Default, Deserialize)]
struct Text<'t> {
    #[serde(default, borrow, deserialize_with = "text")]
    event: Option<Cow<'t, str>>,
    #[serde(default, borrow, rename = "eventType", deserialize_with = "text")]
    event_type: Option<Cow<'t, str>>,
    #[serde(default, borrow, deserialize_with = "text")]
    action: Option<Cow<'t, str>>,
    #[serde(default, borrow, deserialize_with = "text")]
    r#type: Option<Cow<'t, str>>,
    #[serde(default, borrow, deserialize_with = "text")]
    command: Option<Cow<'t, str>>,
    #[serde(default, borrow, deserialize_with = "text")]
    correlation_id: Option<Cow<'t, str>>,
    #[serde(default, borrow, deserialize_with = "text")]
    name: Option<Cow<'t, str>>,
    #[serde(
        default,
        borrow,
        alias = "streamSid",
        alias = "stream_sid",
        alias = "streamId",
        alias = "stream_id",
        deserialize_with = "text"
    )]
    stream: Option<Cow<'t, str>>,
    #[serde(default, borrow)]
    media: Option<Media<'t>>,
    #[serde(default, borrow)]
    mark: Option<Named<'t>>,
    #[serde(default, borrow)]
    data: Option<Named<'t>>,
    #[serde(default, borrow)]
    payload: Option<&'t RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Media<'t> {
    #[serde(default, borrow, deserialize_with = "text")]
    payload: Option<Cow<'t, str>>,
    #[serde(default, borrow, deserialize_with = "text")]
    content_type: Option<Cow<'t, str>>,
    #[serde(default, borrow, deserialize_with = "text")]
    sample_rate: Option<Cow<'t, str>>,
}

#[derive(Deserialize)]
struct Named<'t> {
    #[serde(default, borrow, deserialize_with = "text")]
    name: Option<Cow<'t, str>>,
}

/// A string, a number as the string of its digits, and all else as nothing.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cow<'de, str>>, D::Error> {
    let raw = <&RawValue>::deserialize(deserializer)?.get();
    Ok(match raw.as_bytes() {
        [b'"', inside @ .., b'"'] if !inside.contains(&b'\\') => {
            Some(Cow::Borrowed(&raw[1..raw.len() - 1]))
        }
        [b'"', ..] => serde_json::from_str(raw).ok().map(Cow::Owned),
        [b'0'..=b'9', ..] => Some(Cow::Borrowed(raw)),
        _ => None,
    })
}

/// Reads a text of the bot's.
pub(super) fn read_text(tongue: Tongue, text: &str) -> Heard<'_> {
    if tongue == Tongue::Asterisk && !text.trim_start().starts_with('{') {
        let (command, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        return Heard { said: command_of_asterisk(command, rest), stream: None };
    }
    match serde_json::from_str::<Text<'_>>(text) {
        // An array would be read as the members in their order.
        Ok(parsed) if text.trim_start().starts_with('{') => {
            let said = said(tongue, &parsed);
            Heard { said, stream: parsed.stream }
        }
        _ => Heard { said: Said::Odd(NOT_JSON), stream: None },
    }
}

/// Reads a binary message of the bot's.
pub(super) fn read_binary(tongue: Tongue, bytes: &[u8]) -> Said {
    match tongue {
        Tongue::Vonage | Tongue::Jambonz | Tongue::Asterisk => {
            Said::Audio { bytes: bytes.to_vec(), codec: None, rate_hz: None }
        }
        Tongue::None | Tongue::Media | Tongue::Plivo | Tongue::Bandwidth => Said::Odd(BINARY),
    }
}

fn said(tongue: Tongue, text: &Text<'_>) -> Said {
    let mark = |name: &Option<Cow<'_, str>>| Said::Mark(name.as_deref().map(str::to_owned));
    let key = match tongue {
        Tongue::None => return Said::Known,
        Tongue::Media | Tongue::Plivo => &text.event,
        Tongue::Bandwidth => &text.event_type,
        Tongue::Vonage => &text.action,
        Tongue::Jambonz => &text.r#type,
        Tongue::Asterisk => &text.command,
    };
    match (tongue, key.as_deref().unwrap_or_default()) {
        (Tongue::Media, "media") => audio(text, false),
        (Tongue::Plivo | Tongue::Bandwidth, "playAudio") => audio(text, true),
        (Tongue::Media, "mark") => {
            Said::Mark(text.mark.as_ref().and_then(|m| m.name.as_deref()).map(str::to_owned))
        }
        (Tongue::Plivo, "checkpoint") => mark(&text.name),
        (Tongue::Vonage, "notify") => {
            Said::Mark(text.payload.map(|payload| payload.get().to_owned()))
        }
        (Tongue::Jambonz, "mark") => {
            Said::Mark(text.data.as_ref().and_then(|d| d.name.as_deref()).map(str::to_owned))
        }
        (Tongue::Media | Tongue::Bandwidth | Tongue::Vonage, "clear")
        | (Tongue::Plivo, "clearAudio")
        | (Tongue::Jambonz, "killAudio") => Said::Clear,
        (Tongue::Jambonz, "clearMarks") => Said::ClearMarks,
        (Tongue::Jambonz, "disconnect") | (Tongue::Plivo, "stop") => Said::HangUp,
        (Tongue::Plivo, "sendDTMF") | (Tongue::Media, "dtmf") => Said::Known,
        (Tongue::Asterisk, command) => {
            command_of_asterisk(command, text.correlation_id.as_deref().unwrap_or_default())
        }
        _ => Said::Odd(UNKNOWN),
    }
}

fn command_of_asterisk(command: &str, rest: &str) -> Said {
    match command {
        "FLUSH_MEDIA" => Said::Clear,
        "MARK_MEDIA" => Said::Mark(Some(rest.to_owned())),
        "HANGUP" => Said::HangUp,
        "ANSWER"
        | "START_MEDIA_BUFFERING"
        | "STOP_MEDIA_BUFFERING"
        | "PAUSE_MEDIA"
        | "CONTINUE_MEDIA"
        | "GET_STATUS"
        | "REPORT_QUEUE_DRAINED" => Said::Known,
        _ => Said::Odd(UNKNOWN),
    }
}

fn audio(text: &Text<'_>, has_type: bool) -> Said {
    let Some(media) = &text.media else { return Said::Odd(NO_PAYLOAD) };
    let Some(payload) = &media.payload else { return Said::Odd(NO_PAYLOAD) };
    let Ok(bytes) = BASE64.decode(payload.as_bytes()) else { return Said::Odd(BAD_BASE64) };
    if !has_type {
        return Said::Audio { bytes, codec: None, rate_hz: None };
    }
    let codec = match media.content_type.as_deref().map(str::to_ascii_lowercase).as_deref() {
        None => None,
        Some(name) if name.contains("mulaw") || name.contains("pcmu") => Some(Codec::Mulaw),
        Some(name) if name.contains("l16") => Some(Codec::L16Le),
        Some(_) => return Said::Odd(OTHER_TYPE),
    };
    let rate_hz = media.sample_rate.as_deref().and_then(|rate| rate.parse().ok());
    Said::Audio { bytes, codec, rate_hz }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audio_of(bytes: &[u8]) -> Said {
        Said::Audio { bytes: bytes.to_vec(), codec: None, rate_hz: None }
    }

    fn said_in(tongue: Tongue, text: &str) -> Said {
        read_text(tongue, text).said
    }

    #[test]
    fn spellings_of_real_bots_are_read() {
        let media = [
            r#"{"event": "media", "streamSid": "MZ1", "media": {"payload": "/38="}}"#,
            r#"{"event":"media","media":{"payload":"\/38="},"streamSid":"MZ1"}"#,
        ];
        for text in media {
            let heard = read_text(Tongue::Media, text);
            assert_eq!(
                (heard.said, heard.stream.as_deref()),
                (audio_of(&[0xFF, 0x7F]), Some("MZ1"))
            );
        }
        let mark = |name: &str| Said::Mark(Some(name.to_owned()));
        let media = |text| said_in(Tongue::Media, text);
        assert_eq!(
            media(r#"{"event":"media","streamSid":null,"media":{"payload":""}}"#),
            audio_of(&[])
        );
        assert_eq!(media(r#"{"event":"mark","streamSid":"MZ1"}"#), Said::Mark(None));
        assert_eq!(media(r#"{"event":"mark","mark":{"name":"a\"b"}}"#), mark("a\"b"));
        assert_eq!(media(r#"{"event":"clear","streamSid":"MZ1"}"#), Said::Clear);
        let plivo = |text: &str| said_in(Tongue::Plivo, text);
        let play = r#"{"event":"playAudio","media":{"payload":"AAE=","sampleRate":"8000","contentType":"audio/x-mulaw"}}"#;
        let audio =
            Said::Audio { bytes: vec![0, 1], codec: Some(Codec::Mulaw), rate_hz: Some(8000) };
        assert_eq!(plivo(play), audio);
        let (bare, file) = (play.replace("\"8000\"", "8000"), play.replace("audio/x-mulaw", "wav"));
        assert_eq!(plivo(&bare), audio);
        assert_eq!(plivo(&file), Said::Odd(OTHER_TYPE));
        assert_eq!(plivo(r#"{"event":"checkpoint","streamId":"1","name":"fm_1"}"#), mark("fm_1"));
        assert_eq!(plivo(r#"{"event":"clearAudio"}"#), Said::Clear);
        let vonage = |text| said_in(Tongue::Vonage, text);
        assert_eq!(
            vonage(r#"{"action":"notify","payload":{"name":"m7"}}"#),
            mark(r#"{"name":"m7"}"#)
        );
        assert_eq!(vonage(r#"{"action":"clear"}"#), Said::Clear);
        let bandwidth = |text| said_in(Tongue::Bandwidth, text);
        let play =
            r#"{"eventType":"playAudio","media":{"contentType":"audio/pcmu","payload":"AA=="}}"#;
        assert!(matches!(bandwidth(play), Said::Audio { codec: Some(Codec::Mulaw), .. }));
        assert_eq!(bandwidth(r#"{"eventType":"clear"}"#), Said::Clear);
        let jambonz = |text| said_in(Tongue::Jambonz, text);
        assert_eq!(jambonz(r#"{"type":"mark","data":{"name":"m1"}}"#), mark("m1"));
        assert_eq!(jambonz(r#"{"type":"killAudio"}"#), Said::Clear);
        assert_eq!(jambonz(r#"{"type":"disconnect"}"#), Said::HangUp);
        let asterisk = |text| said_in(Tongue::Asterisk, text);
        assert_eq!(asterisk("MARK_MEDIA m1"), mark("m1"));
        assert_eq!(asterisk(r#"{"command":"FLUSH_MEDIA"}"#), Said::Clear);
    }

    #[test]
    fn a_message_of_another_provider_plays_nothing() {
        let media = |text| said_in(Tongue::Media, text);
        for text in [
            r#"{"event":"playAudio","media":{"payload":"AA=="}}"#,
            r#"{"event":"transcript"}"#,
            r#"{"event":{"media":1}}"#,
        ] {
            assert_eq!(media(text), Said::Odd(UNKNOWN), "{text}");
        }
        for text in ["", "hello", "[]", "{", "1"] {
            assert_eq!(media(text), Said::Odd(NOT_JSON), "{text}");
        }
        assert_eq!(media(r#"{"event":"media"}"#), Said::Odd(NO_PAYLOAD));
        assert_eq!(media(r#"{"event":"media","media":{"payload":"A"}}"#), Said::Odd(BAD_BASE64));
        assert_eq!(read_binary(Tongue::Media, &[1]), Said::Odd(BINARY));
        assert_eq!(read_binary(Tongue::Vonage, &[1, 2]), audio_of(&[1, 2]));
    }
}
