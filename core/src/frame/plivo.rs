//! Plivo: `<Stream>`, and Vobiz, which speaks its dialect, by plivo.com ("Audio Streaming reference") and
//! the models of plivo-stream-sdk 0.1.1 on 2026-11-27.

use super::members::{Members, Value};
use super::names::{CAMEL_NUMBERS, Kind, Names};
#[cfg(feature = "relay")]
use super::outgoing::{Outgoing, names};
use super::spelling::Dialect;
use super::start::FormatNames;
use super::{Habits, Start, Text};

/// There is no stop: the connection is closed.
pub(super) const HABITS: Habits = Habits { ends_with_stop: false, ..Habits::USUAL };

pub(super) const NAMES: Names = Names {
    habits: &HABITS,
    dialect: Dialect { numbers: CAMEL_NUMBERS, free: &[HEADERS.as_bytes()] },
    event: "event",
    events: &[
        ("media", Kind::Media),
        // Not sent; other dialects begin with it.
        ("connected", Kind::Connected),
        ("start", Kind::Start),
        ("dtmf", Kind::Dtmf),
        // The echo of a checkpoint.
        ("playedStream", Kind::Mark),
        // Not documented; nothing else could be meant.
        ("stop", Kind::Stop),
    ],
    sequence: "sequenceNumber",
    media: "media",
    start: "start",
    stream_id: "streamId",
    call_id: "callId",
    account_id: "accountId",
    tracks: "tracks",
    format: "mediaFormat",
    format_names: FormatNames::CAMEL,
    parameters: "",
    more: |start, message| read_headers(start, message.clone().find(HEADERS)),
};

/// The messages that Plivo takes: by the same sources, and by those of bots.
#[cfg(feature = "relay")]
pub(super) const OUTGOING: Outgoing = Outgoing {
    usual: Some(&names("event", &[("playAudio", Kind::Media)])),
    audio: "playAudio",
    clear: "clearAudio",
    mark: "checkpoint",
    mark_object: "",
    ..Outgoing::TWILIO
};

/// The object with a message's audio, and its fields that tell the encoding and the sample rate.
#[cfg(all(feature = "relay", feature = "formats"))]
pub(super) const TOLD: [&str; 3] = ["media", "contentType", "sampleRate"];

/// The field with the user's parameters.
const HEADERS: &str = "extra_headers";

/// Reads the user's parameters: a text of the form `name=value;name=value`, or JSON in a text. A text of
/// another form is one parameter.
fn read_headers<'t>(start: &mut Start<'t>, value: Option<Value<'t>>) {
    let Some(Value::String(text)) = value else {
        return start.read_parameters(HEADERS, value);
    };
    if let Some(json) = text.trim().strip_prefix('{') {
        if read_json(start, json).is_none() {
            start.add_parameter(Text::new(HEADERS), Value::String(text));
        }
        return;
    }
    for pair in text.split(';').map(str::trim).filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some((name, value)) => start.add_parameter(Text::new(name), Value::String(value)),
            None => start.add_parameter(Text::new(HEADERS), Value::String(pair)),
        }
    }
}

/// Reads an object of texts, behind its bracket, whose quotes are escaped since it stands in a string.
/// `None`: it is something else, or texts in it have escapes of their own. Then nothing is read.
fn read_json<'t>(start: &mut Start<'t>, json: &'t str) -> Option<()> {
    let quoted = |text: &'t str| {
        let (text, rest) = text.trim_start().strip_prefix("\\\"")?.split_once("\\\"")?;
        // An escape of the inner JSON is a backslash, which is escaped here.
        (!text.ends_with('\\') && !text.contains("\\\\")).then_some((text, rest.trim_start()))
    };
    let next = |text: &'t str| {
        let (name, rest) = quoted(text)?;
        let (value, rest) = quoted(rest.strip_prefix(':')?)?;
        Some((name, value, rest))
    };
    // Once to see whether all of it can be read, once to read it.
    for is_sure in [false, true] {
        let mut rest = json.trim_start();
        while rest.trim() != "}" {
            let (name, value, behind) = next(rest)?;
            if is_sure {
                start.add_parameter(Text::new(name), Value::String(value));
            }
            rest = match behind.strip_prefix(',') {
                Some(more) => more,
                None if behind.trim() == "}" => behind,
                None => return None,
            };
        }
    }
    Some(())
}

/// Whether a start is of this provider.
pub(super) fn is_mine(start: &Members<'_>) -> bool {
    ["streamId", "callId"].iter().any(|name| start.clone().find(name).is_some())
}

#[cfg(test)]
mod tests {
    use std::borrow::ToOwned as _;
    use std::string::{String, ToString as _};
    use std::vec::Vec;
    use std::{format, vec};

    use crate::frame::{Body, Provider, parse};

    fn parameters(headers: &str) -> Vec<(String, String)> {
        let mut text =
            format!(r#"{{"event":"start","start":{{}},"extra_headers":{headers}}}"#).into_bytes();
        let Body::Start(start) = parse(Provider::Plivo, &mut text).unwrap().body else { panic!() };
        let pairs = start.parameters.iter();
        pairs.map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn the_users_parameters_are_read_in_every_form() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let both = vec![pair("user", "12"), pair("room", "a b")];
        for headers in [
            r#""user=12;room=a b""#,
            r#""user=12; room=a b;""#,
            r#""{\"user\":\"12\",\"room\":\"a b\"}""#,
            r#""{ \"user\" : \"12\", \"room\" : \"a b\" }""#,
            r#"{"user":"12","room":"a b"}"#,
        ] {
            assert_eq!(parameters(headers), both, "{headers}");
        }
        for headers in [r#""""#, r#""{}""#, r#""{ }""#, "null", "{}", "[]"] {
            assert_eq!(parameters(headers), [], "{headers}");
        }
        for (headers, whole) in [
            (r#""plain""#, "plain"),
            (r#""{\"user\":12}""#, r#"{"user":12}"#),
            (r#""{\"user\":\"a\\\"b\"}""#, r#"{"user":"a\"b"}"#),
            (r#""{\"user\":\"a\"""#, r#"{"user":"a""#),
            (r#""{\"user\":\"a\" 1}""#, r#"{"user":"a" 1}"#),
        ] {
            assert_eq!(parameters(headers), [pair("extra_headers", whole)], "{headers}");
        }
    }
}
