//! FreeSWITCH's mod_audio_stream, by its documentation on 2026-11-27, and other senders of bare 16-bit
//! audio that announce nothing: 2600Hz Pivot with `rawAudio`, mod_audio_fork with metadata of the user's.

use super::control::{is_json, read};
use super::found::to_str;
use super::members::Value;
use super::spelling::Dialect;
use super::{Body, Frame, Habits, PeerError, Start, Text};
use crate::format::{Codec, Format};

/// A text is metadata of the user's, if there is any; a last one may come at the end. Neither tells the
/// format.
pub(super) const HABITS: Habits = Habits {
    ends_with_stop: false,
    names_streams: false,
    default_format: Some(Format { codec: Codec::L16Le, sample_rate_hz: 8000 }),
    has_binary_audio: true,
    has_optional_start: true,
    has_free_start: true,
    ..Habits::USUAL
};

const DIALECT: Dialect = Dialect { numbers: &[], free: &[] };

/// Name of the parameter with a text that is not an object of JSON.
const METADATA: &str = "metadata";

pub(super) fn parse(text: &mut [u8]) -> Result<Frame<'_>, PeerError> {
    let mut found = Start::assumed(super::Provider::ModAudioStream);
    // A text that only looks like JSON is as good as any other.
    let is_object = is_json(text) && read(text, &DIALECT).is_ok();
    let text = to_str(text)?.trim_ascii();
    if is_object {
        found.keep_members(super::members::members(text), &[]);
    } else if !text.is_empty() {
        found.add_parameter(Text::new(METADATA), Value::String(text));
    }
    Ok(Frame::new(None, b"", Body::Start(found)))
}
