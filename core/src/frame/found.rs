//! A media message before its payload is decoded, and the way from its text to typed values.

use serde::Deserialize;

use super::{Body, Frame, Media, PeerError, Track, Tracks};
use crate::base64;

/// A media message before its payload is decoded. Payload and stream id are ranges of the text, so that
/// the text can be changed.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) sequence: Option<u64>,
    pub(super) track: Track,
    pub(super) chunk: Option<u64>,
    pub(super) timestamp_ms: Option<u64>,
    pub(super) payload_start: usize,
    pub(super) payload_end: usize,
    pub(super) id_start: usize,
    pub(super) id_end: usize,
    pub(super) is_known: bool,
}

impl Found {
    /// Decodes the payload: the way of the many messages.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    #[cfg_attr(not(target_pointer_width = "64"), inline)]
    pub(super) fn decode(self, text: &mut [u8]) -> Frame<'_> {
        let Self { sequence, track, chunk, timestamp_ms, id_start, id_end, .. } = self;
        let (before, rest) = text.split_at_mut_checked(self.payload_start).unwrap_or_default();
        let length = self.payload_end.saturating_sub(self.payload_start);
        let (payload, after) = rest.split_at_mut_checked(length).unwrap_or_default();
        let stream_id = match id_start.checked_sub(self.payload_end) {
            Some(start) => after.get(start..id_end.saturating_sub(self.payload_end)),
            None => before.get(id_start..id_end),
        };
        #[cfg(feature = "lenient")]
        let mut is_odd_base64 = false;
        #[cfg(feature = "lenient")]
        let decoded = base64::decode_any_in_place(payload, &mut is_odd_base64);
        #[cfg(not(feature = "lenient"))]
        let decoded = base64::decode_in_place(payload);
        let body = match decoded {
            Some(bytes) => {
                Body::Media(Media { tracks: Tracks::One(track), chunk, timestamp_ms, bytes })
            }
            None => Body::Rejected(PeerError::Base64),
        };
        Frame {
            sequence,
            stream_id: stream_id.unwrap_or_default(),
            body,
            is_known: self.is_known,
            #[cfg(feature = "lenient")]
            is_odd_base64,
        }
    }
}

/// Decodes the payload of one of few messages, which need no copy of the code of their own.
#[cfg_attr(target_pointer_width = "64", inline(never))]
pub(super) fn decode_rare(found: Found, text: &mut [u8]) -> Frame<'_> {
    found.decode(text)
}

/// A message that is left to the parser.
pub(super) enum Slow {
    Media(Found),
    /// Not media.
    Other {
        sequence: Option<u64>,
    },
    /// Media that cannot be taken; `stream` is the range of its stream id.
    Rejected {
        sequence: Option<u64>,
        stream: (usize, usize),
        error: PeerError,
    },
}

/// The range in `text` of a part that borrows from it, or is empty: a difference of addresses.
pub(super) fn range_in(text: &[u8], part: &str) -> (usize, usize) {
    let start = part.as_ptr().addr().wrapping_sub(text.as_ptr().addr()).min(text.len());
    (start, (start + part.len()).min(text.len()))
}

/// Any object. Reading one checks that the whole text is JSON.
#[cfg(any(feature = "binary", feature = "json", feature = "relay", feature = "replies"))]
#[derive(Deserialize)]
pub(super) struct Anything {}

pub(super) fn from_json<'t, T: Deserialize<'t>>(text: &'t [u8]) -> Result<T, PeerError> {
    use serde_json_core::de::Error;
    serde_json_core::from_slice(text).map(|(value, _)| value).map_err(|error| match error {
        // Missing and repeated fields, and values of another type.
        Error::CustomError | Error::InvalidType | Error::InvalidNumber => PeerError::Shape,
        _ => PeerError::Json,
    })
}

pub(super) fn to_str(text: &[u8]) -> Result<&str, PeerError> {
    core::str::from_utf8(text).map_err(|_| PeerError::Json)
}
