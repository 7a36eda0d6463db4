//! Audio, and the tracks that it is of.

/// One media message of a provider.
///
/// ```
/// use callreel_core::frame::{Provider, parse};
///
/// let mut text = *br#"{"event":"media","sequenceNumber":"2","media":{"payload":"gIB/fw=="}}"#;
/// let media = parse(Provider::Twilio, &mut text)?.media().expect("it is media");
/// assert_eq!((media.sequence, media.media.bytes), (Some(2), &[0x80, 0x80, 0x7F, 0x7F][..]));
/// # Ok::<(), callreel_core::frame::PeerError>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct MediaFrame<'t> {
    /// Number among the stream's messages, if the message has one.
    pub sequence: Option<u64>,
    /// Id of the message's stream, as it stands between the quotes; empty if there is none.
    pub stream_id: &'t [u8],
    /// The audio.
    pub media: Media<'t>,
    /// As in [`Frame`].
    pub(crate) is_known: bool,
    /// As in [`Frame`].
    #[cfg(feature = "lenient")]
    pub(crate) is_odd_base64: bool,
}

/// A piece of a track's audio.
///
/// ```
/// use callreel_core::frame::{Body, Frame, Media, Track, Tracks};
///
/// let bytes = [0xFF; 160];
/// let tracks = Tracks::One(Track::Inbound);
/// let media = Media { tracks, chunk: None, timestamp_ms: Some(20), bytes: &bytes };
/// let frame = Frame::new(None, b"MZ1", Body::Media(media));
/// assert_eq!(frame.media().map(|frame| frame.media), Some(media));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Media<'t> {
    /// Track of the audio; [`Tracks::Both`] if the tracks alternate sample by sample, inbound first
    /// ([`Start::is_interleaved`](super::Start::is_interleaved)).
    pub tracks: Tracks,
    /// Number among the chunks of the track (with some providers, of the stream).
    pub chunk: Option<u64>,
    /// Place in media time, in milliseconds by the provider's documentation (but see
    /// [`MediaClock`](crate::session::MediaClock)), from an origin of the provider's choice.
    pub timestamp_ms: Option<u64>,
    /// Samples as the provider encodes them ([`Start::format`](super::Start::format)), decoded
    /// from base64.
    pub bytes: &'t [u8],
}

/// A direction of the call.
///
/// ```
/// use callreel_core::frame::Track;
///
/// assert_eq!([Track::Inbound, Track::Outbound].map(Track::name), ["inbound", "outbound"]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Track {
    /// From the far party to the provider.
    Inbound,
    /// From the provider to the far party.
    Outbound,
}

impl Track {
    /// Name in records and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// The tracks that a stream announces.
///
/// ```
/// use callreel_core::frame::{Track, Tracks};
///
/// assert_eq!((Tracks::Both.channels(), Tracks::Both.channel(Track::Outbound)), (2, Some(1)));
/// let one = Tracks::One(Track::Outbound);
/// assert_eq!((one.channel(Track::Outbound), one.channel(Track::Inbound)), (Some(0), None));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Tracks {
    /// Inbound and outbound.
    Both,
    /// One track.
    One(Track),
}

impl Tracks {
    /// Channels of the recording: one for each track.
    #[must_use]
    pub const fn channels(self) -> u16 {
        match self {
            Self::Both => 2,
            Self::One(_) => 1,
        }
    }

    /// The channel of `track`, inbound first; `None` when it was not announced.
    #[must_use]
    pub fn channel(self, track: Track) -> Option<usize> {
        match self {
            Self::Both => Some(track as usize),
            Self::One(announced) => (announced == track).then_some(0),
        }
    }

    /// The tracks in the order of their channels.
    pub fn iter(self) -> impl Iterator<Item = Track> {
        [Track::Inbound, Track::Outbound].into_iter().filter(move |t| self.channel(*t).is_some())
    }
}
