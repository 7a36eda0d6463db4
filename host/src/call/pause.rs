//! The ways in which a peer pauses its recording: a key, a mark, a parameter of the stream.

use std::fmt;
use std::str::FromStr;
use std::time::Instant;

use callreel_core::frame::{Body, Dtmf, Text};

use crate::record::{Parameters, PauseCause};
use crate::recording::Recording;

/// Longest text of a key or a mark that is kept, in characters.
pub(super) const TEXT_CHARS_MAX: usize = 256;

/// Parameter of a stream's start with which its recording begins paused, if its value is `true`.
pub const PARAMETER: &str = "callreel-pause";

/// Name of the mark that pauses a recording.
pub const PAUSE_MARK: &str = "callreel-pause";

/// Name of the mark that ends a pause.
pub const RESUME_MARK: &str = "callreel-resume";

/// A key of a telephone: a digit, `*`, `#`, or `A` to `D`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PauseKey(char);

/// The text is not a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("give one key of a telephone: 0 to 9, *, #, or A to D")]
pub struct NotAKey;

impl FromStr for PauseKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let mut characters = text.chars().map(|key| key.to_ascii_uppercase());
        match (characters.next(), characters.next()) {
            (Some(key @ ('0'..='9' | '*' | '#' | 'A'..='D')), None) => Ok(Self(key)),
            _ => Err(NotAKey),
        }
    }
}

impl fmt::Display for PauseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether the parameters of a start ask for a recording that begins paused.
pub(super) fn is_asked_by(parameters: &Parameters) -> bool {
    parameters.get(PARAMETER).is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// Pauses a recording, or ends its pause, at each of the `keys` that is `pause_key`. Returns the keys that
/// are kept in the record: those that are pressed during a pause are only counted.
pub(super) fn heed_keys(
    recording: &mut Recording,
    keys: &Text<'_>,
    pause_key: Option<&PauseKey>,
    now: Instant,
) -> String {
    let mut kept = String::new();
    for key in keys.chars().take(TEXT_CHARS_MAX) {
        if pause_key.is_some_and(|PauseKey(wanted)| key == *wanted) {
            let cause = (!recording.is_pause_asked()).then_some(PauseCause::Key);
            recording.ask_pause(cause, now);
            kept.push(key);
        } else if recording.is_paused() {
            recording.count_key();
        } else {
            kept.push(key);
        }
    }
    kept
}

/// Whether a message tells the pause key and others beside it: some of them may be secret.
pub(super) fn has_keys_of_pause(body: &Body<'_>, pause_key: Option<&PauseKey>) -> bool {
    let (Body::Dtmf(Dtmf { digit: keys }), Some(PauseKey(wanted))) = (body, pause_key) else {
        return false;
    };
    keys.chars().nth(1).is_some() && keys.chars().any(|key| key == *wanted)
}

/// Pauses a recording, or ends its pause, if the mark has one of the two names for it.
pub(super) fn heed_mark(recording: &mut Recording, name: &Text<'_>, now: Instant) {
    if name.chars().eq(PAUSE_MARK.chars()) {
        recording.ask_pause(Some(PauseCause::Mark), now);
    } else if name.chars().eq(RESUME_MARK.chars()) {
        recording.ask_pause(None, now);
    }
}
