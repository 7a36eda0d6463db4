//! The other direction of a stream: the messages by which a bot at the other end plays audio to the caller,
//! and the answers of the provider.
//!
//! Sources: those of each look, and captures of bots' own packages. Nothing documents the fate of a mark
//! whose audio was cleared but for Twilio, jambonz and Telnyx; Plivo's `playedStream` is for played audio.

use super::Spelling;

/// The way in which a provider takes a bot's audio and answers it.
#[derive(Clone, Copy, Debug)]
pub(in crate::caller) struct BotSide {
    pub(in crate::caller) tongue: Tongue,
    /// The echo of a mark whose audio was played, where it is not spelled like the mark of a cue.
    played: Option<&'static str>,
    pub(in crate::caller) dropped: Dropped,
    /// The answer to a clear; empty: none.
    pub(in crate::caller) cleared: &'static str,
}

/// The spelling of a bot's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::caller) enum Tongue {
    /// The provider takes no audio, or nobody tells how.
    None,
    /// `media`, `mark` and `clear`, in the key `event`.
    Media,
    /// `playAudio`, `checkpoint` and `clearAudio`.
    Plivo,
    /// `playAudio` and `clear`, in the key `eventType`.
    Bandwidth,
    /// Audio in binary messages, `clear` and `notify` in the key `action`.
    Vonage,
    /// Audio in binary messages, `mark`, `clearMarks` and `killAudio` in the key `type`.
    Jambonz,
    /// Audio in binary messages, commands in plain text or in the key `command`.
    Asterisk,
}

/// The fate of the marks whose audio was cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::caller) enum Dropped {
    AsPlayed,
    Never,
    /// They are echoed in a spelling of its own.
    As(&'static str),
}

impl BotSide {
    pub(super) const NONE: Self =
        Self { tongue: Tongue::None, played: None, dropped: Dropped::Never, cleared: "" };

    /// Twilio, its clones, Telnyx and Wavix.
    pub(super) const MEDIA: Self =
        Self { tongue: Tongue::Media, dropped: Dropped::AsPlayed, ..Self::NONE };

    pub(super) const EXOTEL: Self = Self {
        played: Some(
            r#"{"event":"mark","sequence_number":"$seq","stream_sid":"$stream","mark":{"name":"$mark"}}"#,
        ),
        ..Self::MEDIA
    };

    pub(super) const PLIVO: Self = Self {
        tongue: Tongue::Plivo,
        cleared: r#"{"event":"clearedAudio","sequenceNumber":$seq,"streamId":"$stream"}"#,
        ..Self::NONE
    };

    pub(super) const VOBIZ: Self =
        Self { cleared: r#"{"event":"clearedAudio","streamId":"$stream"}"#, ..Self::PLIVO };

    pub(super) const BANDWIDTH: Self = Self { tongue: Tongue::Bandwidth, ..Self::NONE };

    /// The mark is the payload of a `notify`, which comes back as it is.
    pub(super) const VONAGE: Self = Self {
        tongue: Tongue::Vonage,
        played: Some(r#"{"event":"websocket:notify","payload":$verbatim}"#),
        dropped: Dropped::Never,
        cleared: r#"{"event":"websocket:cleared"}"#,
    };

    /// Infobip and Vonage Video, of which no `notify` is known.
    pub(super) const VONAGE_CLEAR: Self = Self { played: None, ..Self::VONAGE };

    pub(super) const JAMBONZ: Self = Self {
        tongue: Tongue::Jambonz,
        dropped: Dropped::As(r#"{"type":"mark","data":{"name":"$mark","event":"cleared"}}"#),
        ..Self::NONE
    };

    pub(super) const ASTERISK: Self = Self { tongue: Tongue::Asterisk, ..Self::NONE };

    /// The template of a mark's echo in a look of this spelling; empty: there is none.
    pub(in crate::caller) fn played(&self, spelling: &Spelling) -> &'static str {
        self.played.unwrap_or(spelling.mark)
    }
}
