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
#[cfg(feature = "formats")]
use super::encoding::Encoding;
#[cfg(feature = "formats")]
use super::members::{self, Value};
use super::outgoing::{Heard, Outgoing, read};
use super::{PeerError, Provider};
#[cfg(feature = "formats")]
use crate::format::{Codec, Format};

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
    /// Audio for the caller, decoded from base64: samples in the format that the message tells, see
    /// `told_format`, or else in that of the stream, or that which the bot and its provider have agreed on.
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
/// Genesys, jambonz, Plivo, SignalWire, Sinch, Telnyx, Twilio, Vonage and Wavix, and for those that speak their
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
        #[cfg(feature = "wavix")]
        Provider::Wavix => &Outgoing::TWILIO,
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

/// The format of the audio in a text message of a bot, where the message tells it, as those for Bandwidth, jambonz and
/// Plivo do: it need not be the format of the stream, on which the provider puts it. With the feature `formats`.
///
/// `None`: it tells none that is known, of 8 to 192 kHz. A-law and mu-law without a sample rate have 8 kHz, and
/// 16-bit samples the low byte first. Ask before [`parse`], which changes the text. Names with escapes are not
/// found. Takes linear time.
///
/// ```
/// use callreel_core::format::Format;
/// use callreel_core::frame::Provider;
/// use callreel_core::frame::bot::told_format;
///
/// let text = r#"{"event":"playAudio","media":{"contentType":"audio/x-mulaw","sampleRate":"8000","payload":"/w=="}}"#;
/// # #[cfg(feature = "plivo")]
/// assert_eq!(told_format(Provider::Plivo, text), Some(Format::TELEPHONE));
/// assert_eq!(told_format(Provider::Twilio, text), None);
/// ```
#[cfg(feature = "formats")]
#[must_use]
pub fn told_format(provider: Provider, text: &str) -> Option<Format> {
    let words: Option<[&str; 3]> = match provider {
        #[cfg(feature = "bandwidth")]
        Provider::Bandwidth => Some(super::bandwidth::TOLD),
        #[cfg(feature = "jambonz")]
        Provider::Jambonz => Some(super::jambonz::TOLD),
        #[cfg(feature = "plivo")]
        Provider::Plivo => Some(super::plivo::TOLD),
        _ => None,
    };
    let [object, encoding, rate] = words?;
    let audio = members::members(text).find(object)?.members();
    let Some(Value::String(encoding)) = audio.clone().find(encoding) else { return None };
    let encoding = Encoding::of(encoding);
    let codec = encoding.codec(Codec::L16Le).filter(|codec| *codec != Codec::G722)?;
    let told = audio.find(rate).and_then(Value::scalar);
    let told = told.and_then(|rate| rate.as_escaped().parse().ok()).or(encoding.sample_rate_hz);
    let usual = (codec != Codec::L16Le).then_some(8000);
    let sample_rate_hz = told.or(usual)?;
    let is_known = (8000..=Format::SAMPLE_RATE_HZ_MAX).contains(&sample_rate_hz);
    is_known.then_some(Format { codec, sample_rate_hz })
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
