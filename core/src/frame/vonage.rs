//! Vonage: WebSockets of the Voice API, by developer.vonage.com ("WebSockets"), and the Audio Connector of
//! the Video API; Infobip speaks their dialect. On 2026-11-27.

use super::control::{read, scalar, string};
use super::encoding::Encoding;
use super::members::{Members, Value};
#[cfg(feature = "relay")]
use super::outgoing::{Outgoing, Said};
use super::spelling::Dialect;
use super::{Body, Dtmf, Frame, Habits, Mark, PeerError, Start, Text};
use crate::format::{Codec, Format};

/// There is no stop: the connection is closed. The audio of all parties is mixed.
pub(super) const HABITS: Habits = Habits {
    ends_with_stop: false,
    names_streams: false,
    default_format: Some(Format { codec: Codec::L16Le, sample_rate_hz: 16_000 }),
    has_binary_audio: true,
    // Of the Audio Connector.
    id_headers: ["x-opentok-ws-connectionid", "x-opentok-ws-sessionid"],
    ..Habits::USUAL
};

const DIALECT: Dialect = Dialect { numbers: &[], free: &[] };

/// The messages that Vonage takes beside audio in binary ones.
#[cfg(feature = "relay")]
pub(super) const OUTGOING: Outgoing = Outgoing {
    kind: "action",
    clear: "clear",
    more: |kind, message| match kind {
        "notify" => Said::Mark(Some(name(message)).filter(|name| !name.is_empty())),
        _ => Said::Other,
    },
    ..Outgoing::NONE
};

/// The field with the format, as a media type.
const FORMAT: &str = "content-type";

pub(super) fn parse(text: &mut [u8]) -> Result<Frame<'_>, PeerError> {
    let (message, odd_fields) = read(text, &DIALECT)?;
    let body = match string(&message, "event") {
        _ if is_mine(&message) => Body::Start(start(message, odd_fields)),
        "websocket:dtmf" => Body::Dtmf(Dtmf { digit: digit(&message) }),
        // The echo of a `notify`, which is of any form.
        "websocket:notify" => Body::Mark(Mark { name: name(&message) }),
        _ => Body::Other,
    };
    Ok(Frame::new(None, b"", body))
}

/// The key, which some senders write into an object of its own.
fn digit<'t>(message: &Members<'t>) -> Text<'t> {
    let inner = message.clone().find("dtmf").unwrap_or(Value::Null).members();
    let digit = scalar(message, "digit");
    if digit.is_empty() { scalar(&inner, "digit") } else { digit }
}

/// The name in what was sent to be echoed, or all of it.
fn name<'t>(message: &Members<'t>) -> Text<'t> {
    let payload = message.clone().find("payload").unwrap_or(Value::String(""));
    let name = payload.members().find("name").and_then(Value::scalar);
    name.unwrap_or(payload.text())
}

/// The start: the user's own fields stand beside those of the dialect.
fn start<'t>(message: Members<'t>, odd_fields: u32) -> Start<'t> {
    let mut found = Start { format: HABITS.default_format, odd_fields, ..Start::new() };
    let name = string(&message, FORMAT);
    let encoding = Encoding::of(name);
    found.encoding = Text::new(name);
    found.is_format_assumed = name.is_empty() || encoding.sample_rate_hz.is_none();
    if !name.is_empty() {
        let default = found.format.map(|format| format.sample_rate_hz);
        let rate = encoding.sample_rate_hz.or(default);
        let format = encoding.codec(HABITS.linear).zip(rate);
        found.format = format.map(|(codec, sample_rate_hz)| Format { codec, sample_rate_hz });
    }
    found.keep_members(message, &["event", FORMAT]);
    found
}

/// Whether a message is the start of a stream of this provider. Older starts have no event.
pub(super) fn is_mine(message: &Members<'_>) -> bool {
    let is_audio = |name: &str| name.get(..6).is_some_and(|t| t.eq_ignore_ascii_case("audio/"));
    match message.clone().find("event") {
        None | Some(Value::Null) => is_audio(string(message, FORMAT)),
        event => event == Some(Value::String("websocket:connected")),
    }
}
