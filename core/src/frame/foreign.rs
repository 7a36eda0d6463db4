//! First messages of providers that are not recorded, so that a refusal can name them.

use super::members::{Members, Value};

/// The provider of a text that is not JSON; `None` if it is none that is known here.
pub(super) fn of_text(text: &[u8]) -> Option<&'static str> {
    text.starts_with(b"MEDIA_START").then_some("Asterisk's chan_websocket")
}

/// The provider of a message; `None` if it is none that is known here. Every rule is about fields that
/// are there.
pub(super) fn of_message(message: &Members<'_>) -> Option<&'static str> {
    let text = |name| match message.clone().find(name) {
        Some(Value::String(text)) => text,
        _ => "",
    };
    let has = |name| message.clone().find(name).is_some();
    let is_audio = |text: &str| text.get(..6).is_some_and(|t| t.eq_ignore_ascii_case("audio/"));
    Some(match (text("event"), text("type")) {
        ("MEDIA_START", _) => "Asterisk's chan_websocket",
        #[cfg(not(feature = "ringcentral"))]
        ("Connected" | "Start", _) => "RingCentral",
        ("websocket:connected", _) => "Vonage or Infobip",
        #[cfg(not(feature = "genesys"))]
        (_, "open") if text("version") == "2" => "Genesys AudioHook",
        #[cfg(not(feature = "audiocodes"))]
        (_, "session.initiate" | "session.resume" | "connection.validate") => "AudioCodes",
        #[cfg(not(feature = "webex"))]
        (_, "VOICE_VA_REQUEST") => "Webex",
        _ if is_audio(text("content-type")) => "Vonage or Infobip",
        #[cfg(not(feature = "sinch"))]
        _ if text("command") == "connect" => "Sinch",
        #[cfg(not(feature = "acs"))]
        _ if text("kind") == "AudioMetadata" => "Azure Communication Services",
        _ if has("sampleRate") && has("mixType") => "jambonz or mod_audio_fork",
        _ => return None,
    })
}
