//! The messages that a voice bot sends to its provider. With the feature `relay`.
//!
//! A relay forwards each message as it is, and reads a copy. The reader takes any legal spelling, and does
//! not look at ids: bots send `null`, or the id of something else. See [`playout`](crate::playout) for the
//! time at which the audio is heard.
//!
//! ```
//! use callreel_core::frame::Provider;
//! use callreel_core::frame::bot::{BotFrame, parse};
//!
//! let mut text = *br#"{"event": "media", "streamSid": null, "media": {"payload": "gIB/fw=="}}"#;
//! let frame = parse(Provider::Twilio, &mut text)?;
//! assert_eq!(frame, BotFrame::Audio(&[0x80, 0x80, 0x7F, 0x7F]));
//! # Ok::<(), callreel_core::frame::PeerError>(())
//! ```

#[cfg(feature = "asterisk")]
use super::control::is_json;
use super::outgoing::{Heard, Outgoing, read};
use super::{PeerError, Provider};

/// One message of a bot.
///
/// ```
/// use callreel_core::frame::Provider;
/// use callreel_core::frame::bot::{BotFrame, parse, parse_binary};
///
/// let mut text = *br#"{"event":"mark","streamSid":"MZ1","mark":{"name":"greeting"}}"#;
/// assert_eq!(parse(Provider::Twilio, &mut text)?, BotFrame::Mark(Some(b"greeting")));
/// // Twilio takes no binary messages.
/// assert_eq!(parse_binary(Provider::Twilio, &[0xFF; 160]), BotFrame::Other);
/// # Ok::<(), callreel_core::frame::PeerError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum BotFrame<'t> {
    /// Audio for the caller, decoded from base64: samples in the encoding of the stream, or in that which
    /// the bot and its provider have agreed on. Nothing in the message is trusted to tell it.
    Audio(&'t [u8]),
    /// The audio that is not played yet is to be dropped.
    Clear,
    /// The provider is to tell when the audio before this has been played. With the name as it stands between
    /// the quotes, or the spelling of a number; `None` if there is no name, and then there is no echo.
    Mark(Option<&'t [u8]>),
    /// Any other message: it does not change the audio that is heard.
    Other,
}

/// Parses one text message of a bot, and decodes its payload in place. Takes linear time.
///
/// `text` must be UTF-8. It is scratch memory, as with [`frame::parse`](super::parse). All messages to a
/// provider without a reader for them are [`BotFrame::Other`]: there is one for Asterisk, Bandwidth, Exotel,
/// Genesys, jambonz, Plivo, SignalWire, Sinch, Telnyx, Twilio and Vonage, and for those that speak their
/// dialects.
///
/// # Errors
/// [`PeerError`]: count the message, and forward it all the same.
pub fn parse(provider: Provider, text: &mut [u8]) -> Result<BotFrame<'_>, PeerError> {
    let words: &Outgoing = match provider {
        Provider::Twilio => &Outgoing::TWILIO,
        #[cfg(feature = "asterisk")]
        Provider::Asterisk if !is_json(text) => return Ok(frame(super::asterisk::command(text))),
        #[cfg(feature = "asterisk")]
        Provider::Asterisk => &super::asterisk::OUTGOING,
        #[cfg(feature = "bandwidth")]
        Provider::Bandwidth => &super::bandwidth::OUTGOING,
        #[cfg(feature = "exotel")]
        Provider::Exotel => &Outgoing::TWILIO,
        #[cfg(feature = "genesys")]
        Provider::Genesys => &super::genesys::OUTGOING,
        #[cfg(feature = "jambonz")]
        Provider::Jambonz => &super::jambonz::OUTGOING,
        #[cfg(feature = "plivo")]
        Provider::Plivo => &super::plivo::OUTGOING,
        #[cfg(feature = "signalwire")]
        Provider::SignalWire => &Outgoing::TWILIO,
        #[cfg(feature = "sinch")]
        Provider::Sinch => &super::sinch::OUTGOING,
        #[cfg(feature = "telnyx")]
        Provider::Telnyx => &Outgoing::TWILIO,
        #[cfg(feature = "vonage")]
        Provider::Vonage => &super::vonage::OUTGOING,
        #[cfg(feature = "acs")]
        Provider::Acs => return Ok(BotFrame::Other),
        #[cfg(feature = "audiocodes")]
        Provider::AudioCodes => return Ok(BotFrame::Other),
        #[cfg(feature = "mod-audio-stream")]
        Provider::ModAudioStream => return Ok(BotFrame::Other),
        #[cfg(feature = "ringcentral")]
        Provider::RingCentral => return Ok(BotFrame::Other),
        #[cfg(feature = "voximplant")]
        Provider::Voximplant => return Ok(BotFrame::Other),
        #[cfg(feature = "wavix")]
        Provider::Wavix => return Ok(BotFrame::Other),
        #[cfg(feature = "webex")]
        Provider::Webex => return Ok(BotFrame::Other),
    };
    Ok(frame(read(text, words)?))
}

fn frame(heard: Heard<'_>) -> BotFrame<'_> {
    match heard {
        Heard::Audio(bytes) => BotFrame::Audio(bytes),
        Heard::Clear => BotFrame::Clear,
        Heard::Mark(name) => BotFrame::Mark(name),
        Heard::Other => BotFrame::Other,
    }
}

/// The meaning of a binary message of a bot: audio, with a provider that takes audio in binary messages
/// ([`Habits::has_binary_audio`](super::Habits::has_binary_audio)). An empty one is none.
#[must_use]
pub fn parse_binary(provider: Provider, bytes: &[u8]) -> BotFrame<'_> {
    if provider.habits().has_binary_audio && !bytes.is_empty() {
        BotFrame::Audio(bytes)
    } else {
        BotFrame::Other
    }
}
