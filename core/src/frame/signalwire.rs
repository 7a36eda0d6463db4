//! SignalWire: `<Stream>` of cXML, by the page of that name in the repository signalwire/docs on
//! 2026-11-27. The dialect is Twilio's.

use super::Habits;
use super::members::{Members, Value};

/// Media and stop name no stream.
pub(super) const HABITS: Habits = Habits { names_streams: false, ..Habits::USUAL };

/// Version of the protocol in the first message.
pub(super) const VERSION: &str = "0.2.0";

/// Whether a start is of this provider, after a first message with [`VERSION`]: its ids are UUIDs. Old
/// senders of Twilio's have the same version and other ids.
pub(super) fn is_mine(start: &Members<'_>) -> bool {
    let is_uuid_of = |name| match start.clone().find(name) {
        Some(Value::String(id)) => is_uuid(id),
        _ => false,
    };
    is_uuid_of("streamSid") && is_uuid_of("callSid")
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}
