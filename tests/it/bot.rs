//! The messages of voice bots, in any spelling: captures of real bots and examples of documents, read by core
//! and by serde_json.

use base64::prelude::*;
use callreel_core::format::{Codec, Format};
use callreel_core::frame::bot::{BotFrame, parse, parse_binary, told_format};
use callreel_core::frame::{DEPTH_MAX, PeerError, Provider, Text};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::harness::fixtures;

/// The meaning of a message, owned.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    Audio(Vec<u8>),
    Clear,
    Mark(Option<String>),
    Other,
}

fn said(provider: Provider, text: &str) -> Result<Said, PeerError> {
    let mut text = text.as_bytes().to_vec();
    parse(provider, &mut text).map(|frame| match frame {
        BotFrame::Audio(bytes) => Said::Audio(bytes.to_vec()),
        BotFrame::Clear => Said::Clear,
        BotFrame::Mark(name) => Said::Mark(name.map(|name| {
            let name = core::str::from_utf8(name).expect("a part of the text");
            Text::new(name).to_string()
        })),
        BotFrame::Other => Said::Other,
    })
}

/// The text with every letter of its strings as an escape.
fn escaped(value: &Value) -> String {
    match value {
        Value::String(text) => {
            let units = text.encode_utf16().map(|unit| format!("\\u{unit:04x}"));
            format!("\"{}\"", units.collect::<String>())
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(escaped).collect::<Vec<_>>().join(","))
        }
        Value::Object(members) => {
            let one = |(name, value): (&String, &Value)| {
                format!("{}\t:\r\n{}", escaped(&json!(name)), escaped(value))
            };
            format!("{{{}}}", members.iter().map(one).collect::<Vec<_>>().join(" , "))
        }
        other => other.to_string(),
    }
}

/// The meaning of a message in each of several spellings, which must be the same.
fn said_in_any_spelling(provider: Provider, text: &str) -> Result<Said, PeerError> {
    let expected = said(provider, text);
    let value: Value = serde_json::from_str(text).expect("it is JSON");
    let spellings = [
        value.to_string(),
        serde_json::to_string_pretty(&value).unwrap(),
        escaped(&value),
        format!(" {text}\n"),
        format!("\u{feff}{text}"),
    ];
    for spelling in spellings {
        assert_eq!(said(provider, &spelling), expected, "{spelling}");
    }
    expected
}

/// The meaning of a captured message, as serde_json reads it.
fn expected(message: &Value) -> Said {
    let audio = |payload: &Value| {
        Said::Audio(BASE64_STANDARD.decode(payload.as_str().expect("base64")).unwrap())
    };
    let name = |name: &Value| Said::Mark(name.as_str().map(str::to_owned));
    match (message["event"].as_str(), message["action"].as_str(), message["type"].as_str()) {
        (Some("media" | "playAudio"), ..) => audio(&message["media"]["payload"]),
        (Some("clear" | "clearAudio"), ..) | (_, Some("clear"), _) => Said::Clear,
        (Some("mark"), ..) => name(&message["mark"]["name"]),
        (Some("checkpoint"), ..) => name(&message["name"]),
        (.., Some("event")) => {
            assert_eq!(message["parameters"]["entities"][0]["type"], "barge_in");
            Said::Clear
        }
        (.., Some("opened" | "disconnect")) => Said::Other,
        other => panic!("{other:?} in {message}"),
    }
}

#[test]
fn every_captured_message_means_the_same_to_core_and_serde_json() {
    let mut count = 0;
    for capture in fixtures::in_folder("bots") {
        let (provider, ..) = crate::playout::stream_of(&capture.name);
        for line in capture.messages() {
            let line: Value = serde_json::from_slice(&line).unwrap();
            let Some(raw) = line["raw"].as_str() else { continue };
            let message: Value = serde_json::from_str(raw).unwrap();
            assert_eq!(said_in_any_spelling(provider, raw), Ok(expected(&message)), "{raw}");
            count += 1;
        }
    }
    assert!(count > 400, "{count}");
}

#[test]
fn documented_messages_of_each_provider_are_read() {
    let audio = |bytes: &[u8]| Ok(Said::Audio(bytes.to_vec()));
    let mark = |name: &str| Ok(Said::Mark(Some(name.to_owned())));
    let clear = || Ok(Said::Clear);
    let other = || Ok(Said::Other);
    for (provider, text, meaning) in [
        (
            Provider::Twilio,
            r#"{"event":"media","streamSid":"MZ1","media":{"payload":"AAcO"}}"#,
            audio(&[0, 7, 14]),
        ),
        (
            Provider::Twilio,
            r#"{"event":"mark","streamSid":"MZ1","mark":{"name":"my label"}}"#,
            mark("my label"),
        ),
        (Provider::Twilio, r#"{"event":"clear","streamSid":"MZ1"}"#, clear()),
        (Provider::SignalWire, r#"{"event":"clear","streamSid":"MZ1"}"#, clear()),
        (Provider::Telnyx, r#"{"event":"media","media":{"payload":"AAcO"}}"#, audio(&[0, 7, 14])),
        (
            Provider::Wavix,
            r#"{"event": "media", "stream_id": "w1", "media": {"payload": "AAcO"}}"#,
            audio(&[0, 7, 14]),
        ),
        (Provider::Wavix, r#"{"event": "clear", "stream_id": "w1"}"#, clear()),
        (Provider::Telnyx, r#"{"event":"mark","mark":{"name":"m1"}}"#, mark("m1")),
        (Provider::Telnyx, r#"{"event":"clear"}"#, clear()),
        (
            Provider::Exotel,
            r#"{"event":"media","stream_sid":"s","media":{"payload":"AAcO"}}"#,
            audio(&[0, 7, 14]),
        ),
        (
            Provider::Exotel,
            r#"{"event":"mark","stream_sid":"s","mark":{"name":"bye"}}"#,
            mark("bye"),
        ),
        (
            Provider::Plivo,
            r#"{"event":"playAudio","media":{"contentType":"audio/x-mulaw","sampleRate":8000,"payload":"AAcO"}}"#,
            audio(&[0, 7, 14]),
        ),
        (Provider::Plivo, r#"{"event":"checkpoint","streamId":"b7","name":"c1"}"#, mark("c1")),
        (Provider::Plivo, r#"{"event":"clearAudio","streamId":"b7"}"#, clear()),
        (Provider::Plivo, r#"{"event":"sendDTMF","dtmf":"123"}"#, other()),
        // Vobiz.
        (Provider::Plivo, r#"{"event":"stop","streamId":"c4"}"#, other()),
        // Messages of another provider's dialect are not this one's.
        (Provider::Plivo, r#"{"event":"media","media":{"payload":"AAcO"}}"#, other()),
        (
            Provider::Bandwidth,
            r#"{"eventType":"playAudio","media":{"contentType":"audio/pcmu","payload":"AAcO"}}"#,
            audio(&[0, 7, 14]),
        ),
        (Provider::Bandwidth, r#"{"eventType":"clear"}"#, clear()),
        (Provider::Vonage, r#"{"action":"clear"}"#, clear()),
        (Provider::Vonage, r#"{"action":"notify","payload":{"name":"m7"}}"#, mark("m7")),
        (Provider::Jambonz, r#"{"type":"mark","data":{"name":"m1"}}"#, mark("m1")),
        (Provider::Jambonz, r#"{"type":"killAudio"}"#, clear()),
        (Provider::Jambonz, r#"{"type":"clearMarks"}"#, other()),
        (Provider::Jambonz, r#"{"type":"disconnect"}"#, other()),
        (
            Provider::Jambonz,
            r#"{"type":"playAudio","data":{"audioContent":"AAcO","audioContentType":"raw","sampleRate":8000,"id":"p1"}}"#,
            audio(&[0, 7, 14]),
        ),
        (
            Provider::Jambonz,
            r#"{"type":"playAudio","data":{"audioContent":"AAcO","audioContentType":"wave"}}"#,
            other(),
        ),
        (Provider::Sinch, r#"{"command":"clear"}"#, clear()),
        (Provider::Sinch, r#"{"command":"heartbeat"}"#, other()),
        (
            Provider::Genesys,
            r#"{"version":"2","type":"event","seq":2,"parameters":{"entities":[{"type":"other"},{"type":"barge_in"}]}}"#,
            clear(),
        ),
        (
            Provider::Genesys,
            r#"{"version":"2","type":"event","seq":2,"parameters":{"entities":[{"type":"playback"}]}}"#,
            other(),
        ),
        (
            Provider::Genesys,
            r#"{"version":"2","type":"pong","seq":2,"clientseq":2,"parameters":{}}"#,
            other(),
        ),
        (Provider::Asterisk, r#"{"command":"FLUSH_MEDIA"}"#, clear()),
        (Provider::Asterisk, r#"{"command":"MARK_MEDIA","correlation_id":"m1"}"#, mark("m1")),
        (Provider::Asterisk, r#"{"command":"MARK_MEDIA"}"#, Ok(Said::Mark(None))),
        (Provider::Asterisk, r#"{"command":"HANGUP"}"#, other()),
    ] {
        assert_eq!(said_in_any_spelling(provider, text), meaning, "{text}");
    }
    for (words, meaning) in [
        ("FLUSH_MEDIA", clear()),
        ("MARK_MEDIA m1", mark("m1")),
        ("MARK_MEDIA", Ok(Said::Mark(None))),
        ("ANSWER", other()),
        ("", other()),
    ] {
        assert_eq!(said(Provider::Asterisk, words), meaning, "{words}");
    }
}

#[test]
fn the_format_that_a_message_tells_is_known() {
    let told = |codec, sample_rate_hz| Some(Format { codec, sample_rate_hz });
    let media =
        |told: &str| format!(r#"{{"event":"playAudio","media":{{{told}"payload":"AAcO"}}}}"#);
    for (fields, expected) in [
        (r#""contentType":"audio/x-mulaw","sampleRate":8000,"#, told(Codec::Mulaw, 8000)),
        (r#""sampleRate":"8000", "contentType" : "audio\/x-mulaw" ,"#, told(Codec::Mulaw, 8000)),
        (r#""contentType":"audio/x-l16;rate=16000","#, told(Codec::L16Le, 16_000)),
        (
            r#""contentType":"audio/x-l16;rate=16000","sampleRate":24000,"#,
            told(Codec::L16Le, 24_000),
        ),
        (r#""contentType":"audio/x-mulaw","#, told(Codec::Mulaw, 8000)),
        (r#""contentType":"audio/pcma","sampleRate":null,"#, told(Codec::Alaw, 8000)),
        (r#""contentType":"audio/x-l16","#, None),
        (r#""contentType":"audio/x-l16","sampleRate":7999,"#, None),
        (r#""contentType":"audio/x-l16","sampleRate":192001,"#, None),
        (r#""contentType":"audio/g722","sampleRate":16000,"#, None),
        (r#""contentType":"wav","sampleRate":8000,"#, None),
        (r#""contentType":8,"sampleRate":8000,"#, None),
        (r#""sampleRate":8000,"#, None),
    ] {
        let text = media(fields);
        assert_eq!(told_format(Provider::Plivo, &text), expected, "{text}");
        assert_eq!(told_format(Provider::Twilio, &text), None);
    }
    for (provider, text, expected) in [
        (
            Provider::Bandwidth,
            r#"{"eventType":"playAudio","media":{"contentType":"audio/pcmu","payload":"AAcO"}}"#,
            told(Codec::Mulaw, 8000),
        ),
        (
            Provider::Jambonz,
            r#"{"type":"playAudio","data":{"audioContent":"AAcO","audioContentType":"raw","sampleRate":"16000"}}"#,
            told(Codec::L16Le, 16_000),
        ),
        (Provider::Jambonz, r#"{"type":"killAudio"}"#, None),
        (Provider::Plivo, r#"{"media":"#, None),
        (Provider::Plivo, r#"{"media":[{"contentType":"audio/x-mulaw"}]}"#, None),
        (Provider::Plivo, "hello", None),
        (Provider::Plivo, "", None),
    ] {
        assert_eq!(told_format(provider, text), expected, "{text}");
    }
}

#[test]
fn odd_messages_of_bots_are_read_as_they_are_meant() {
    for (text, meaning) in [
        (r#"{"event":"mark","streamSid":"MZ1"}"#, Said::Mark(None)),
        (r#"{"event":"mark","mark":null}"#, Said::Mark(None)),
        (r#"{"event":"mark","mark":{}}"#, Said::Mark(None)),
        (r#"{"event":"mark","mark":{"name":null}}"#, Said::Mark(None)),
        (r#"{"event":"mark","mark":{"name":1584}}"#, Said::Mark(Some("1584".to_owned()))),
        (
            r#"{"event":"mark","mark":{"name":"café \"1\""}}"#,
            Said::Mark(Some("café \"1\"".to_owned())),
        ),
        (r#"{"event":"clear","streamSid":null}"#, Said::Clear),
        (r#"{"event":"media","streamSid":null,"media":{"payload":""}}"#, Said::Audio(Vec::new())),
        (
            r#"{"media":{"payload":"AAcO","x":[{"payload":1}]},"event":"media"}"#,
            Said::Audio(vec![0, 7, 14]),
        ),
        (r#"{"type":"connected","message":"hello"}"#, Said::Other),
        (r#"{"event":"whatever","media":{"payload":"AAcO"}}"#, Said::Other),
        (r#"{"event":1}"#, Said::Other),
        (r#"{"event":null}"#, Said::Other),
        (r#"{"event":""}"#, Said::Other),
        ("{}", Said::Other),
    ] {
        assert_eq!(said_in_any_spelling(Provider::Twilio, text), Ok(meaning), "{text}");
    }
    // Other spellings of base64: for URLs, and without padding.
    for payload in ["-_-_", "+_-/", "+/+/"] {
        let text = json!({"event": "media", "media": {"payload": payload}}).to_string();
        assert_eq!(said(Provider::Twilio, &text), Ok(Said::Audio(vec![0xFB, 0xFF, 0xBF])));
    }
    let unpadded = r#"{"event":"media","media":{"payload":"gA"}}"#;
    assert_eq!(said(Provider::Twilio, unpadded), Ok(Said::Audio(vec![0x80])));
}

#[test]
fn messages_that_cannot_be_read_tell_the_reason() {
    let nested = format!(r#"{{"event":{}"#, "[".repeat(DEPTH_MAX));
    for (text, error) in [
        (r#"{"event":"media","media":{"payload":"?"}}"#, PeerError::Base64),
        (r#"{"event":"media","media":{"payload":"AAA=AAAA"}}"#, PeerError::Base64),
        (r#"{"event":"media","media":{"payload":"AA cO"}}"#, PeerError::Base64),
        (r#"{"event":"media"}"#, PeerError::Shape),
        (r#"{"event":"media","media":"AAcO"}"#, PeerError::Shape),
        (r#"{"event":"media","media":{"payload":5}}"#, PeerError::Shape),
        (r#"{"event":"media","media":{}}"#, PeerError::Shape),
        (r#"{"event":"media","media":{"payload":"AAcO","payload":"AAcO"}}"#, PeerError::Shape),
        (
            r#"{"event":"media","media":{"payload":"AAcO"},"media":{"payload":"AAcO"}}"#,
            PeerError::Shape,
        ),
        (r#"{"event":"media","media":"AAcO","media":{"payload":"AAcO"}}"#, PeerError::Shape),
        (r#"{"event":"media","event":"clear","media":{"payload":"AAcO"}}"#, PeerError::Shape),
        (r#"{"event":"media","media":{"payload":"AAcO"}"#, PeerError::Json),
        ("hello", PeerError::Shape),
        ("", PeerError::Json),
        (&nested, PeerError::Depth),
    ] {
        assert_eq!(said(Provider::Twilio, text), Err(error), "{text}");
    }
}

#[test]
fn binary_messages_are_audio_where_the_provider_takes_them() {
    for provider in Provider::ALL {
        let expected = match provider.name() {
            "asterisk" | "genesys" | "jambonz" | "mod-audio-stream" | "sinch" | "vonage" => {
                BotFrame::Audio(b"audio")
            }
            _ => BotFrame::Other,
        };
        assert_eq!(parse_binary(*provider, b"audio"), expected, "{}", provider.name());
        assert_eq!(parse_binary(*provider, b""), BotFrame::Other);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn audio_of_any_length_is_decoded(bytes in proptest::collection::vec(any::<u8>(), 0..2000), times in 1..120usize) {
        // Up to half a minute in one message.
        let bytes = bytes.repeat(times);
        let payload = BASE64_STANDARD.encode(&bytes);
        for text in [
            format!(r#"{{"event": "media", "streamSid": "MZ1", "media": {{"payload": "{payload}"}}}}"#),
            format!(r#"{{"event":"media","streamSid":null,"media":{{"payload":"{payload}"}}}}"#),
        ] {
            prop_assert!(said(Provider::Twilio, &text) == Ok(Said::Audio(bytes.clone())));
        }
    }
}
