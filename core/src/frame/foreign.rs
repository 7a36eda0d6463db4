//! First messages of providers that are not recorded, so that a refusal can name them.

use super::members::{Members, Value};

/// The provider of a message; `None` if it is none that is known here. Every rule is about fields that
/// are there.
pub(super) fn of_message(message: &Members<'_>) -> Option<&'static str> {
    let text = |name| match message.clone().find(name) {
        Some(Value::String(text)) => text,
        _ => "",
    };
    Some(match (text("event"), text("type")) {
        ("Connected" | "Start", _) => "RingCentral",
        (_, "open") if text("version") == "2" => "Genesys AudioHook",
        (_, "session.initiate" | "session.resume" | "connection.validate") => "AudioCodes",
        (_, "VOICE_VA_REQUEST") => "Webex",
        _ if text("command") == "connect" => "Sinch",
        _ if text("kind") == "AudioMetadata" => "Azure Communication Services",
        _ => return None,
    })
}
