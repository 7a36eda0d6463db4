//! The provider of a connection: found out before a stream starts, or the reason for a refusal.

use std::time::Instant;

use callreel_core::frame::{Detector, Provider, Verdict};
use callreel_core::ws;

use super::{Call, Context};
use crate::record::{End, Word};

/// The provider that a handshake or messages tell, if it is one that is recorded.
pub(super) const fn provider_of(detector: Detector) -> Option<Provider> {
    match detector.verdict() {
        Verdict::Known(provider) => Some(provider),
        Verdict::Foreign(_) | Verdict::Undecided => None,
    }
}

impl Call {
    /// The provider, once it is known.
    pub(super) const fn provider(&self) -> Option<Provider> {
        provider_of(self.detector)
    }

    /// The provider for a record.
    pub(super) fn provider_word(&self) -> Word<Provider> {
        self.provider().map_or_else(Word::unknown_provider, Word::from)
    }

    /// Whether the provider expects the connection to be closed when the last stream has stopped.
    pub(super) fn closes_after_stop(&self) -> bool {
        self.provider().is_none_or(|provider| provider.habits().closes_after_stop)
    }

    /// Whether a binary message is one that should have been a text: JSON, perhaps behind a byte order mark
    /// and blanks. None of the providers sends audio in binary messages.
    pub(super) fn is_message(bytes: &[u8]) -> bool {
        let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes).trim_ascii_start();
        text.first() == Some(&b'{') && std::str::from_utf8(bytes).is_ok()
    }

    /// Finds out the provider from a message before the first start. Returns whether the message is to be
    /// parsed.
    pub(super) fn identify(
        &mut self,
        text: &mut [u8],
        context: &mut Context,
        now: Instant,
    ) -> bool {
        if self.provider().is_some() {
            return true;
        }
        match self.detector.note_text(text) {
            Ok(Verdict::Known(provider)) => {
                self.streams.iter_mut().for_each(|stream| stream.set_provider(provider));
                true
            }
            Ok(Verdict::Undecided) => true,
            Ok(Verdict::Foreign(name)) => {
                let reason =
                    format!("the peer speaks the protocol of {name}, which is not recorded");
                self.refuse_peer(reason, context, now);
                false
            }
            Err(error) => {
                self.reject(error, context, now);
                false
            }
        }
    }

    /// Refuses a start of which nothing tells the provider.
    pub(super) fn refuse_unknown(&mut self, context: &mut Context, now: Instant) {
        let reason = "the start message is of no provider that is known: name the provider of its path \
                      with --provider";
        self.refuse_peer(reason.to_owned(), context, now);
    }

    /// Ends a connection on which no stream started, because of its last message.
    fn refuse_peer(&mut self, reason: String, context: &mut Context, now: Instant) {
        if let Some(opening) = &mut self.opening {
            opening.refuse(reason);
        }
        self.end(End::Refused, ws::CloseCode::UNSUPPORTED, context, now);
    }
}
