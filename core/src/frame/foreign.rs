//! First messages of providers that are not recorded, so that a refusal can name them.

use super::members::{Members, Value};

/// The provider of a message; `None` if it is none that is known here. Every rule is about fields that
/// are there.
pub(super) fn of_message(message: &Members<'_>) -> Option<&'static str> {
    let text = |name| match message.clone().find(name) {
        Some(Value::String(text)) => text,
        _ => "",
    };
    Some(match (text("event"), text("t")) {
        ("incoming_call", _) => "Sunvone",
        (_, "hello") => "46elks",
        _ => return None,
    })
}
