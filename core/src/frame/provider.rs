//! The providers of this build, and their customs.

#[cfg(feature = "bandwidth")]
use super::bandwidth;
#[cfg(feature = "exotel")]
use super::exotel;
#[cfg(feature = "plivo")]
use super::plivo;
#[cfg(feature = "signalwire")]
use super::signalwire;
#[cfg(feature = "telnyx")]
use super::telnyx;
use super::twilio;
#[cfg(feature = "voximplant")]
use super::voximplant;
#[cfg(feature = "wavix")]
use super::wavix;
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
    /// Bandwidth: `<StartStream>`. With the feature `bandwidth`.
    #[cfg(feature = "bandwidth")]
    Bandwidth,
    /// Exotel: the Voicebot and Stream applets, `StartStream`. With the feature `exotel`.
    #[cfg(feature = "exotel")]
    Exotel,
    /// Plivo: `<Stream>`, and Vobiz, which speaks its dialect. With the feature `plivo`.
    #[cfg(feature = "plivo")]
    Plivo,
    /// SignalWire: `<Stream>` of cXML. With the feature `signalwire`; without it these streams are
    /// [`Twilio`](Self::Twilio)'s, of which it speaks the dialect.
    #[cfg(feature = "signalwire")]
    SignalWire,
    /// Telnyx: media streaming over WebSockets. With the feature `telnyx`.
    #[cfg(feature = "telnyx")]
    Telnyx,
    /// Twilio Media Streams, and senders that speak its dialect.
    Twilio,
    /// Voximplant: media streams of VoxEngine. With the feature `voximplant`.
    #[cfg(feature = "voximplant")]
    Voximplant,
    /// Wavix: call streaming. With the feature `wavix`.
    #[cfg(feature = "wavix")]
    Wavix,
}

impl Provider {
    /// Every provider of this build, in the order of their names.
    pub const ALL: &'static [Self] = &[
        #[cfg(feature = "bandwidth")]
        Self::Bandwidth,
        #[cfg(feature = "exotel")]
        Self::Exotel,
        #[cfg(feature = "plivo")]
        Self::Plivo,
        #[cfg(feature = "signalwire")]
        Self::SignalWire,
        #[cfg(feature = "telnyx")]
        Self::Telnyx,
        Self::Twilio,
        #[cfg(feature = "voximplant")]
        Self::Voximplant,
        #[cfg(feature = "wavix")]
        Self::Wavix,
    ];

    /// Name in records and logs: lower-case letters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "bandwidth")]
            Self::Bandwidth => "bandwidth",
            #[cfg(feature = "exotel")]
            Self::Exotel => "exotel",
            #[cfg(feature = "plivo")]
            Self::Plivo => "plivo",
            #[cfg(feature = "signalwire")]
            Self::SignalWire => "signalwire",
            #[cfg(feature = "telnyx")]
            Self::Telnyx => "telnyx",
            Self::Twilio => "twilio",
            #[cfg(feature = "voximplant")]
            Self::Voximplant => "voximplant",
            #[cfg(feature = "wavix")]
            Self::Wavix => "wavix",
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

    /// Customs of the provider.
    #[must_use]
    pub const fn habits(self) -> &'static Habits {
        match self {
            #[cfg(feature = "bandwidth")]
            Self::Bandwidth => &bandwidth::HABITS,
            #[cfg(feature = "exotel")]
            Self::Exotel => &exotel::HABITS,
            #[cfg(feature = "plivo")]
            Self::Plivo => &plivo::HABITS,
            #[cfg(feature = "signalwire")]
            Self::SignalWire => &signalwire::HABITS,
            #[cfg(feature = "telnyx")]
            Self::Telnyx => &telnyx::HABITS,
            Self::Twilio => &twilio::HABITS,
            #[cfg(feature = "voximplant")]
            Self::Voximplant => &voximplant::HABITS,
            #[cfg(feature = "wavix")]
            Self::Wavix => &wavix::HABITS,
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
    /// Audio has no timestamps, and none may be sent while it is quiet: the times of arrival tell the
    /// silence ([`Session::set_arrival_ms`](crate::session::Session::set_arrival_ms)).
    pub leaves_silence_out: bool,
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
        leaves_silence_out: false,
    };
}
