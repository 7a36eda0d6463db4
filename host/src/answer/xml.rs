//! Answers in the XML of four providers.

use std::fmt::Write as _;

use super::{CALL_SECONDS_MAX, Login, Terms, text_of, with_query};
use crate::stream_tokens::{CALL, PARAMETER, PLAIN_PARAMETER};
use crate::twilio::{escape_attribute, escape_text};

/// Elements in which a language speaks and pauses.
struct Words {
    say: &'static str,
    pause: &'static str,
}

const LIKE_TWILIO: Words = Words { say: "Say", pause: r#"<Pause length="1" />"# };

/// A document with the texts of the terms, and `rest` behind them.
fn document(words: &Words, terms: &Terms<'_>, rest: &str) -> String {
    let Words { say, pause } = words;
    let texts = [&terms.texts.greeting, &terms.texts.ready].map(text_of);
    let is_both = texts.iter().all(Option::is_some);
    let spoken: Vec<String> = texts
        .iter()
        .flatten()
        .map(|text| format!("<{say}>{}</{say}>", escape_text(text)))
        .collect();
    let spoken = spoken.join(if is_both { pause } else { "" });
    format!(r#"<?xml version="1.0" encoding="UTF-8"?><Response>{spoken}{rest}</Response>"#)
}

/// An element with attributes; those without a value are left out. Without content it is empty.
fn element(name: &str, attributes: &[(&str, Option<&str>)], content: &str) -> String {
    let mut text = format!("<{name}");
    for (name, value) in attributes {
        if let Some(value) = value {
            let _ = write!(text, r#" {name}="{}""#, escape_attribute(value));
        }
    }
    match content {
        "" => text.push_str(" />"),
        content => {
            let _ = write!(text, ">{content}</{name}>");
        }
    }
    text
}

/// A parameter of the stream, if there is a value for it.
fn parameter(element_name: &str, name: &str, value: Option<&str>) -> String {
    let of = |value| element(element_name, &[("name", Some(name)), ("value", Some(value))], "");
    value.map(of).unwrap_or_default()
}

/// The stream is a service that the call waits for. TeXML has no parameters of a stream, so they are in
/// its URL; and the id of a call in the stream's start may differ from that of the webhook.
pub(super) fn telnyx(terms: &Terms<'_>) -> String {
    let token = terms.token.map(|token| token.usual.as_str());
    let url = with_query(terms.stream_url, &[(CALL, terms.call_id), (PARAMETER, token)]);
    let stream = element("Stream", &[("url", Some(&url)), ("track", Some("both_tracks"))], "");
    document(&LIKE_TWILIO, terms, &element("Connect", &[], &stream))
}

/// A stream of both tracks does not hold the call up, so a pause of a day follows.
pub(super) fn signalwire(terms: &Terms<'_>) -> String {
    let token = terms.token.map(|token| token.usual.as_str());
    let parameter = parameter("Parameter", PARAMETER, token);
    let attributes = [("url", Some(terms.stream_url)), ("track", Some("both_tracks"))];
    let start = element("Start", &[], &element("Stream", &attributes, &parameter));
    let length = CALL_SECONDS_MAX.to_string();
    let pause = element("Pause", &[("length", Some(&length))], "");
    document(&LIKE_TWILIO, terms, &format!("{start}{pause}"))
}

/// Both tracks demand a stream in one direction. Parameters are of letters and digits alone.
pub(super) fn plivo(terms: &Terms<'_>) -> String {
    let headers = terms.token.map(|token| format!("{PLAIN_PARAMETER}={}", token.plain));
    let seconds = CALL_SECONDS_MAX.to_string();
    let attributes = [
        ("bidirectional", Some("false")),
        ("audioTrack", Some("both")),
        ("keepCallAlive", Some("true")),
        ("streamTimeout", Some(&*seconds)),
        ("contentType", Some("audio/x-mulaw;rate=8000")),
        ("extraHeaders", headers.as_deref()),
    ];
    let stream = element("Stream", &attributes, &escape_text(terms.stream_url));
    document(&Words { say: "Speak", pause: r#"<Wait length="1" />"# }, terms, &stream)
}

/// The verb that stops the stream waits until it has ended.
pub(super) fn bandwidth(terms: &Terms<'_>) -> String {
    const NAME: Option<&str> = Some("callreel");
    let (user, password) = match terms.login {
        Some(Login::Basic { user, password }) => (Some(user.as_str()), Some(password.as_str())),
        _ => (None, None),
    };
    let attributes = [
        ("name", NAME),
        ("tracks", Some("both")),
        ("destination", Some(terms.stream_url)),
        ("destinationUsername", user),
        ("destinationPassword", password),
    ];
    let token = terms.token.map(|token| token.usual.as_str());
    let start = element("StartStream", &attributes, &parameter("StreamParam", PARAMETER, token));
    let stop = element("StopStream", &[("name", NAME), ("wait", Some("true"))], "");
    let words = Words { say: "SpeakSentence", pause: r#"<Pause duration="1" />"# };
    document(&words, terms, &format!("{start}{stop}"))
}
