//! The providers of this build, and their customs.

#[cfg(feature = "acs")]
use super::acs;
#[cfg(feature = "asterisk")]
use super::asterisk;
#[cfg(feature = "audiocodes")]
use super::audiocodes;
#[cfg(feature = "bandwidth")]
use super::bandwidth;
#[cfg(feature = "exotel")]
use super::exotel;
#[cfg(feature = "genesys")]
use super::genesys;
#[cfg(feature = "jambonz")]
use super::jambonz;
#[cfg(feature = "mod-audio-stream")]
use super::mod_audio_stream;
#[cfg(feature = "plivo")]
use super::plivo;
#[cfg(feature = "ringcentral")]
use super::ringcentral;
#[cfg(feature = "signalwire")]
use super::signalwire;
#[cfg(feature = "sinch")]
use super::sinch;
#[cfg(feature = "telnyx")]
use super::telnyx;
use super::twilio;
#[cfg(feature = "vonage")]
use super::vonage;
#[cfg(feature = "voximplant")]
use super::voximplant;
#[cfg(feature = "wavix")]
use super::wavix;
#[cfg(feature = "webex")]
use super::webex;
use super::{Track, Tracks};
use crate::format::{Codec, Format};

/// Provider of a connection's messages.
///
/// ```
/// use callreel_core::frame::{Body, Provider, parse};
///
/// let mut text = *br#"{"event":"stop","streamSid":"MZ1"}"#;
/// let frame = parse(Provider::Twilio, &mut text)?;
/// assert!(matches!(frame.body, Body::Stop));
/// assert_eq!(Provider::Twilio.name(), "twilio");
/// # Ok::<(), callreel_core::frame::PeerError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Provider {
    /// Azure Communication Services: audio streaming of Call Automation. With the feature `acs`.
    #[cfg(feature = "acs")]
    Acs,
    /// Asterisk: the WebSocket channel driver, `chan_websocket`. With the feature `asterisk`.
    #[cfg(feature = "asterisk")]
    Asterisk,
    /// AudioCodes: VoiceAI Connect and Live Hub. With the feature `audiocodes`.
    #[cfg(feature = "audiocodes")]
    AudioCodes,
    /// Bandwidth: `<StartStream>`. With the feature `bandwidth`.
    #[cfg(feature = "bandwidth")]
    Bandwidth,
    /// Exotel: the Voicebot and Stream applets, `StartStream`. With the feature `exotel`.
    #[cfg(feature = "exotel")]
    Exotel,
    /// Genesys: AudioHook Monitor. With the feature `genesys`.
    #[cfg(feature = "genesys")]
    Genesys,
    /// jambonz: `listen` and `stream`, and FreeSWITCH's mod_audio_fork, of which it is made. With the
    /// feature `jambonz`.
    #[cfg(feature = "jambonz")]
    Jambonz,
    /// FreeSWITCH's mod_audio_stream, and other senders of bare 16-bit audio. With the feature
    /// `mod-audio-stream`.
    #[cfg(feature = "mod-audio-stream")]
    ModAudioStream,
    /// Plivo: `<Stream>`, and Vobiz, which speaks its dialect. With the feature `plivo`.
    #[cfg(feature = "plivo")]
    Plivo,
    /// RingCentral: audio streaming of Engage Voice. With the feature `ringcentral`.
    #[cfg(feature = "ringcentral")]
    RingCentral,
    /// SignalWire: `<Stream>` of cXML. With the feature `signalwire`; without it these streams are
    /// [`Twilio`](Self::Twilio)'s, of which it speaks the dialect.
    #[cfg(feature = "signalwire")]
    SignalWire,
    /// Sinch: media streams of Voice 2.0. With the feature `sinch`.
    #[cfg(feature = "sinch")]
    Sinch,
    /// Telnyx: media streaming over WebSockets. With the feature `telnyx`.
    #[cfg(feature = "telnyx")]
    Telnyx,
    /// Twilio Media Streams, and senders that speak its dialect.
    Twilio,
    /// Vonage: WebSockets of the Voice API and the Audio Connector of the Video API; and Infobip, which
    /// speaks its dialect. With the feature `vonage`.
    #[cfg(feature = "vonage")]
    Vonage,
    /// Voximplant: media streams of VoxEngine. With the feature `voximplant`.
    #[cfg(feature = "voximplant")]
    Voximplant,
    /// Wavix: call streaming. With the feature `wavix`.
    #[cfg(feature = "wavix")]
    Wavix,
    /// Webex Contact Center: virtual agents of one's own (BYOVA). With the feature `webex`.
    #[cfg(feature = "webex")]
    Webex,
}

impl Provider {
    /// Every provider of this build, in the order of their names.
    pub const ALL: &'static [Self] = &[
        #[cfg(feature = "acs")]
        Self::Acs,
        #[cfg(feature = "asterisk")]
        Self::Asterisk,
        #[cfg(feature = "audiocodes")]
        Self::AudioCodes,
        #[cfg(feature = "bandwidth")]
        Self::Bandwidth,
        #[cfg(feature = "exotel")]
        Self::Exotel,
        #[cfg(feature = "genesys")]
        Self::Genesys,
        #[cfg(feature = "jambonz")]
        Self::Jambonz,
        #[cfg(feature = "mod-audio-stream")]
        Self::ModAudioStream,
        #[cfg(feature = "plivo")]
        Self::Plivo,
        #[cfg(feature = "ringcentral")]
        Self::RingCentral,
        #[cfg(feature = "signalwire")]
        Self::SignalWire,
        #[cfg(feature = "sinch")]
        Self::Sinch,
        #[cfg(feature = "telnyx")]
        Self::Telnyx,
        Self::Twilio,
        #[cfg(feature = "vonage")]
        Self::Vonage,
        #[cfg(feature = "voximplant")]
        Self::Voximplant,
        #[cfg(feature = "wavix")]
        Self::Wavix,
        #[cfg(feature = "webex")]
        Self::Webex,
    ];

    /// Name in records and logs: lower-case letters and hyphens.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "acs")]
            Self::Acs => "acs",
            #[cfg(feature = "asterisk")]
            Self::Asterisk => "asterisk",
            #[cfg(feature = "audiocodes")]
            Self::AudioCodes => "audiocodes",
            #[cfg(feature = "bandwidth")]
            Self::Bandwidth => "bandwidth",
            #[cfg(feature = "exotel")]
            Self::Exotel => "exotel",
            #[cfg(feature = "genesys")]
            Self::Genesys => "genesys",
            #[cfg(feature = "jambonz")]
            Self::Jambonz => "jambonz",
            #[cfg(feature = "mod-audio-stream")]
            Self::ModAudioStream => "mod-audio-stream",
            #[cfg(feature = "plivo")]
            Self::Plivo => "plivo",
            #[cfg(feature = "ringcentral")]
            Self::RingCentral => "ringcentral",
            #[cfg(feature = "signalwire")]
            Self::SignalWire => "signalwire",
            #[cfg(feature = "sinch")]
            Self::Sinch => "sinch",
            #[cfg(feature = "telnyx")]
            Self::Telnyx => "telnyx",
            Self::Twilio => "twilio",
            #[cfg(feature = "vonage")]
            Self::Vonage => "vonage",
            #[cfg(feature = "voximplant")]
            Self::Voximplant => "voximplant",
            #[cfg(feature = "wavix")]
            Self::Wavix => "wavix",
            #[cfg(feature = "webex")]
            Self::Webex => "webex",
        }
    }

    /// The provider of a [`name`](Self::name); `None` if this build has none of that name.
    ///
    /// ```
    /// use callreel_core::frame::Provider;
    ///
    /// assert_eq!(Provider::named("twilio"), Some(Provider::Twilio));
    /// assert_eq!(Provider::named("Twilio"), None);
    /// ```
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|provider| provider.name() == name)
    }

    /// The name of the field in a stream's URL that tells the sample rate, for a start that leaves it out.
    /// With the feature `formats`.
    #[cfg(feature = "formats")]
    #[must_use]
    pub const fn rate_field(self) -> Option<&'static str> {
        match self {
            #[cfg(feature = "exotel")]
            Self::Exotel => Some(exotel::RATE_FIELD),
            _ => None,
        }
    }

    /// Customs of the provider.
    #[must_use]
    pub const fn habits(self) -> &'static Habits {
        match self {
            #[cfg(feature = "acs")]
            Self::Acs => &acs::HABITS,
            #[cfg(feature = "asterisk")]
            Self::Asterisk => &asterisk::HABITS,
            #[cfg(feature = "audiocodes")]
            Self::AudioCodes => &audiocodes::HABITS,
            #[cfg(feature = "bandwidth")]
            Self::Bandwidth => &bandwidth::HABITS,
            #[cfg(feature = "exotel")]
            Self::Exotel => &exotel::HABITS,
            #[cfg(feature = "genesys")]
            Self::Genesys => &genesys::HABITS,
            #[cfg(feature = "jambonz")]
            Self::Jambonz => &jambonz::HABITS,
            #[cfg(feature = "mod-audio-stream")]
            Self::ModAudioStream => &mod_audio_stream::HABITS,
            #[cfg(feature = "plivo")]
            Self::Plivo => &plivo::HABITS,
            #[cfg(feature = "ringcentral")]
            Self::RingCentral => &ringcentral::HABITS,
            #[cfg(feature = "signalwire")]
            Self::SignalWire => &signalwire::HABITS,
            #[cfg(feature = "sinch")]
            Self::Sinch => &sinch::HABITS,
            #[cfg(feature = "telnyx")]
            Self::Telnyx => &telnyx::HABITS,
            Self::Twilio => &twilio::HABITS,
            #[cfg(feature = "vonage")]
            Self::Vonage => &vonage::HABITS,
            #[cfg(feature = "voximplant")]
            Self::Voximplant => &voximplant::HABITS,
            #[cfg(feature = "wavix")]
            Self::Wavix => &wavix::HABITS,
            #[cfg(feature = "webex")]
            Self::Webex => &webex::HABITS,
        }
    }
}

/// Customs of a provider that a recorder must know besides its messages.
///
/// ```
/// use callreel_core::format::Format;
/// use callreel_core::frame::Provider;
///
/// let habits = Provider::Twilio.habits();
/// assert!(habits.ends_with_stop && habits.closes_after_stop);
/// assert_eq!(habits.default_format, Some(Format::TELEPHONE));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct Habits {
    /// A stream ends with a stop, so audio may be missing where the connection is closed without one. If
    /// false, closing the connection is the end of the stream.
    pub ends_with_stop: bool,
    /// The connection is over when the last of its streams has stopped. If false, another stream may
    /// start on it.
    pub closes_after_stop: bool,
    /// Media messages name their stream. If false, a message without a stream id is nothing unusual.
    pub names_streams: bool,
    /// Tracks of a stream with a start that names none.
    pub default_tracks: Tracks,
    /// Format of the audio if a start names none; `None` if a start always names it.
    pub default_format: Option<Format>,
    /// Codec of 16-bit samples: the order of their bytes.
    pub linear: Codec,
    /// Messages may come in another order than that of their audio. The chunks of each track are
    /// numbered from 1 on, and their numbers tell the order.
    pub orders_by_chunk: bool,
    /// Audio comes in binary messages, which hold nothing else: give them to
    /// [`Session::handle_audio`](crate::session::Session::handle_audio). If false, a binary message is
    /// nothing of the provider's.
    pub has_binary_audio: bool,
    /// A stream may begin with audio, and have no start message: give the session
    /// [`Start::assumed`](super::Start::assumed) before the first audio.
    pub has_optional_start: bool,
    /// Any text is a start: the words are the user's own. A connection has one stream, and a session
    /// ignores every text behind the first ([`Event::Ignored`](crate::session::Event::Ignored)).
    pub has_free_start: bool,
    /// Some messages must be answered in time: send each [`Turn::reply`](crate::session::Turn::reply). False
    /// without the feature `replies`.
    pub is_answered: bool,
    /// A stream begins with its first audio. [`Session::parse`](crate::session::Session::parse) returns
    /// the message as a start; once the session has taken that, parse the same text again for its audio.
    pub begins_with_audio: bool,
    /// Audio has no timestamps, and none may be sent while it is quiet: the times of arrival tell the
    /// silence ([`Session::set_arrival_ms`](crate::session::Session::set_arrival_ms)).
    pub leaves_silence_out: bool,
    /// Headers of the handshake, in lower case, that tell the ids of the stream and of its call where the
    /// start does not; empty if there are none.
    pub id_headers: [&'static str; 2],
}

impl Habits {
    /// The customs that most providers share.
    pub(super) const USUAL: Self = Self {
        ends_with_stop: true,
        closes_after_stop: true,
        names_streams: true,
        default_tracks: Tracks::One(Track::Inbound),
        default_format: Some(Format::TELEPHONE),
        linear: Codec::L16Le,
        orders_by_chunk: false,
        has_binary_audio: false,
        has_optional_start: false,
        has_free_start: false,
        is_answered: false,
        begins_with_audio: false,
        leaves_silence_out: false,
        id_headers: [""; 2],
    };
}
