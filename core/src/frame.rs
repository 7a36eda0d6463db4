//! The common vocabulary of the providers' messages.
//!
//! [`parse`] turns one text message of a [`Provider`] into a [`Frame`]. Wire names live in the
//! provider's own file and nowhere else.

#[cfg(feature = "acs")]
mod acs;
#[cfg(feature = "asterisk")]
mod asterisk;
#[cfg(feature = "audiocodes")]
mod audiocodes;
#[cfg(feature = "bandwidth")]
mod bandwidth;
#[cfg(feature = "relay")]
pub mod bot;
#[cfg(feature = "binary")]
mod control;
mod detect;
#[cfg(feature = "replies")]
pub(crate) mod dialogue;
#[cfg(feature = "formats")]
mod encoding;
mod exact;
#[cfg(feature = "exotel")]
mod exotel;
mod foreign;
mod found;
#[cfg(feature = "genesys")]
mod genesys;
#[cfg(feature = "jambonz")]
mod jambonz;
#[cfg(feature = "json")]
mod json;
mod media;
mod members;
#[cfg(feature = "mod-audio-stream")]
mod mod_audio_stream;
#[cfg(any(feature = "json", feature = "relay"))]
mod names;
#[cfg(feature = "replies")]
mod nested;
#[cfg(feature = "relay")]
mod outgoing;
#[cfg(feature = "plivo")]
mod plivo;
mod provider;
#[cfg(feature = "replies")]
mod reply;
#[cfg(feature = "ringcentral")]
mod ringcentral;
#[cfg(feature = "signalwire")]
mod signalwire;
#[cfg(feature = "sinch")]
mod sinch;
mod spelling;
mod start;
#[cfg(feature = "telnyx")]
mod telnyx;
mod text;
mod twilio;
#[cfg(any(feature = "json", feature = "relay", feature = "replies"))]
mod usual;
#[cfg(feature = "vonage")]
mod vonage;
#[cfg(feature = "voximplant")]
mod voximplant;
#[cfg(feature = "wavix")]
mod wavix;
#[cfg(feature = "webex")]
mod webex;

pub use self::detect::{Detector, Verdict};
#[cfg(feature = "replies")]
pub use self::dialogue::{Ask, Dialogue, Skipped};
pub(crate) use self::exact::is_same;
pub use self::media::{Media, MediaFrame, Track, Tracks};
pub use self::provider::{Habits, Provider};
#[cfg(feature = "replies")]
pub use self::reply::{REPLY_BYTES_MAX, Reply};
pub use self::text::Text;
pub(crate) use self::twilio::SID_BYTES;

use core::fmt;

use heapless::Vec;

use crate::format::{ChunkLayout, Format};

/// Deepest nesting of arrays and objects: the parser recurses, and a device's stack is small.
pub const DEPTH_MAX: usize = 32;

/// Most custom parameters of a stream that are kept; further ones are counted.
///
/// Fewer on a microcontroller: while a start is parsed, the stack holds several copies of them.
pub const PARAMETERS_MAX: usize = if cfg!(target_pointer_width = "64") { 32 } else { 8 };

/// Reason that a peer's message was not taken. Each costs that message and nothing else.
///
/// ```
/// use callreel_core::frame::{PeerError, Provider, parse};
///
/// let error = parse(Provider::Twilio, &mut *b"{".to_vec()).map(drop).unwrap_err();
/// assert_eq!((error, error.name()), (PeerError::Json, "json"));
/// assert_eq!(PeerError::ALL[error.index()], error);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum PeerError {
    /// The payload is not base64: standard alphabet, padded, no blanks, no stray bits (RFC 4648,
    /// section 4). With the feature `lenient` neither padding nor that alphabet is needed.
    Base64,
    /// Arrays and objects nest deeper than [`DEPTH_MAX`].
    Depth,
    /// Not JSON (RFC 8259).
    Json,
    /// Longer than the messages that are read.
    Length,
    /// Not an object; or a field that the event needs is absent, has another type, or occurs twice.
    Shape,
    /// Audio of a track that the stream did not announce.
    Track,
}

impl PeerError {
    /// Every reason, in the order of [`index`](Self::index).
    pub const ALL: [Self; 6] =
        [Self::Base64, Self::Depth, Self::Json, Self::Length, Self::Shape, Self::Track];

    /// Index in [`ALL`](Self::ALL).
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// One word for records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Base64 => "base64",
            Self::Depth => "depth",
            Self::Json => "json",
            Self::Length => "length",
            Self::Shape => "shape",
            Self::Track => "track",
        }
    }
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base64 => "the peer's payload is not padded standard base64",
            Self::Depth => "the peer's message nests too deep",
            Self::Json => "the peer's message is not JSON",
            Self::Length => "the peer's message is longer than those that are read",
            Self::Shape => "the peer's message has a missing, repeated or mistyped field",
            Self::Track => "the peer sent audio of a track it did not announce",
        })
    }
}

impl core::error::Error for PeerError {}

/// One message of a provider.
///
/// ```
/// use callreel_core::frame::{Body, Frame, Provider, parse};
///
/// let mut text = *br#"{"event":"mark","sequenceNumber":"7","streamSid":"MZ1","mark":{"name":"a"}}"#;
/// let frame = parse(Provider::Twilio, &mut text)?;
/// assert_eq!((frame.sequence, frame.stream_id), (Some(7), &b"MZ1"[..]));
/// assert!(matches!(frame.body, Body::Mark(_)));
///
/// // A provider of your own: parse its messages, and give a session the frames.
/// let stop = Frame::new(Some(8), b"MZ1", Body::Stop);
/// assert!(stop.media().is_none());
/// # Ok::<(), callreel_core::frame::PeerError>(())
/// ```
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Frame<'t> {
    /// Number among the stream's messages, if the message has one.
    pub sequence: Option<u64>,
    /// Id of the message's stream, as it stands between the quotes; empty if there is none.
    pub stream_id: &'t [u8],
    /// Content of the message.
    pub body: Body<'t>,
    /// The stream id equals the `known` id that was given to the parser.
    pub(crate) is_known: bool,
    /// The payload is base64 in another spelling than that of RFC 4648, section 4.
    #[cfg(feature = "lenient")]
    pub(crate) is_odd_base64: bool,
}

impl<'t> Frame<'t> {
    /// A message that the caller has parsed, for
    /// [`Session::handle_frame`](crate::session::Session::handle_frame).
    #[must_use]
    pub const fn new(sequence: Option<u64>, stream_id: &'t [u8], body: Body<'t>) -> Self {
        Self {
            sequence,
            stream_id,
            body,
            is_known: false,
            #[cfg(feature = "lenient")]
            is_odd_base64: false,
        }
    }

    /// The message without the space that a start takes; `None` if it is not media.
    #[must_use]
    #[inline]
    pub const fn media(&self) -> Option<MediaFrame<'t>> {
        match self {
            Self {
                sequence,
                stream_id,
                body: Body::Media(media),
                is_known,
                #[cfg(feature = "lenient")]
                is_odd_base64,
            } => {
                let (sequence, stream_id, media) = (*sequence, *stream_id, *media);
                Some(MediaFrame {
                    sequence,
                    stream_id,
                    media,
                    is_known: *is_known,
                    #[cfg(feature = "lenient")]
                    is_odd_base64: *is_odd_base64,
                })
            }
            _ => None,
        }
    }
}

/// Content of a message.
///
/// ```
/// use callreel_core::frame::{Body, PeerError, Provider, parse};
///
/// let mut text = *br#"{"event":"media","media":{"payload":"?"}}"#;
/// let frame = parse(Provider::Twilio, &mut text)?;
/// assert!(matches!(frame.body, Body::Rejected(PeerError::Base64)));
/// # Ok::<(), PeerError>(())
/// ```
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[cfg_attr(
    target_pointer_width = "64",
    expect(
        clippy::large_enum_variant,
        reason = "a start is rare, lives on the stack for a moment, and there is no heap to box it on"
    )
)]
#[non_exhaustive]
pub enum Body<'t> {
    /// A question: the session's turn has the answer. With the feature `replies`.
    #[cfg(feature = "replies")]
    Asked(Ask<'t>),
    /// The conversation is over, and with it every stream of the connection. With the feature `replies`.
    #[cfg(feature = "replies")]
    Bye,
    /// The connection is open; nothing else is known yet.
    Connected,
    /// A key was pressed.
    Dtmf(Dtmf<'t>),
    /// Audio that was sent to the call has been played.
    Mark(Mark<'t>),
    /// Audio.
    Media(Media<'t>),
    /// The ends of the call, which the start of a stream does not tell. With the feature `replies`.
    #[cfg(feature = "replies")]
    Ends(Ends<'t>),
    /// The conversation begins, and the streams that follow have audio of this format; `None` if it is not
    /// known. With the ends of the call, as far as it tells them. With the feature `replies`.
    #[cfg(feature = "replies")]
    Offer(Option<Format>, Ends<'t>),
    /// An event of no use to a recorder, known or unknown.
    Other,
    /// Media that cannot be taken, and the reason.
    Rejected(PeerError),
    /// Media time passed for which there is no audio. With the feature `replies`.
    #[cfg(feature = "replies")]
    Skipped(Skipped),
    /// A stream begins.
    Start(Start<'t>),
    /// The stream is over.
    Stop,
    /// The provider complains, in its own words. With the feature `replies`.
    #[cfg(feature = "replies")]
    Trouble(Text<'t>),
}

/// Content of a stream's start message.
///
/// ```
/// use callreel_core::format::Format;
/// use callreel_core::frame::{Body, Provider, Tracks, parse};
///
/// let mut text = br#"{"event":"start","start":{"streamSid":"MZ1","tracks":["inbound","outbound"],
///     "customParameters":{"room":"7"}}}"#.to_vec();
/// let Body::Start(start) = parse(Provider::Twilio, &mut text)?.body else { panic!() };
/// assert_eq!((start.tracks, start.format), (Tracks::Both, Some(Format::TELEPHONE)));
/// let (name, value) = start.parameters[0];
/// assert_eq!((name.as_escaped(), value.as_escaped()), ("room", "7"));
/// # Ok::<(), callreel_core::frame::PeerError>(())
/// ```
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Start<'t> {
    /// Id of the stream; empty if not given. Not checked in any way: not fit for a path.
    pub stream_id: Text<'t>,
    /// Id of the call; empty if not given.
    pub call_id: Text<'t>,
    /// Id of the account; empty if not given.
    pub account_id: Text<'t>,
    /// The tracks announced; the provider's default if none is named
    /// ([`Habits::default_tracks`]).
    pub tracks: Tracks,
    /// The provider's starts do not tell the tracks, and `tracks` are those that may come. A track that
    /// begins late, or never, has no gap there.
    pub has_assumed_tracks: bool,
    /// Encoding of the audio, in the provider's words; empty if not given.
    pub encoding: Text<'t>,
    /// Format of the audio: the provider's default if the start names none, `None` if the start names a
    /// format that the parser does not know.
    pub format: Option<Format>,
    /// The start leaves out the encoding or the sample rate, and `format` has the provider's default in
    /// its place.
    pub is_format_assumed: bool,
    /// The start leaves out the sample rate. With the feature `formats`.
    #[cfg(feature = "formats")]
    pub is_rate_assumed: bool,
    /// The ends of the call, as far as the start tells them. With the feature `json`, which most providers
    /// bring.
    #[cfg(feature = "json")]
    pub ends: Ends<'t>,
    /// Whether each chunk holds both tracks, sample by sample. Counts only if both are announced.
    pub is_interleaved: bool,
    /// Parameters that the user gave the stream: at most [`PARAMETERS_MAX`] names and values.
    pub parameters: Vec<(Text<'t>, Text<'t>), PARAMETERS_MAX>,
    /// Number of further parameters, not kept.
    pub parameters_dropped: u32,
    /// Fields of a type other than the provider documents. Fields that recording needs are read as far
    /// as they make sense, the others as if they were absent.
    pub odd_fields: u32,
}

impl Start<'_> {
    /// The start of an inbound track in [`Format::TELEPHONE`], without ids and parameters.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            stream_id: Text::new(""),
            call_id: Text::new(""),
            account_id: Text::new(""),
            tracks: Tracks::One(Track::Inbound),
            has_assumed_tracks: false,
            encoding: Text::new(""),
            format: Some(Format::TELEPHONE),
            is_format_assumed: false,
            #[cfg(feature = "formats")]
            is_rate_assumed: false,
            #[cfg(feature = "json")]
            ends: Ends::NONE,
            is_interleaved: false,
            parameters: Vec::new(),
            parameters_dropped: 0,
            odd_fields: 0,
        }
    }

    /// Takes a sample rate that the handshake told, where the start leaves it out; returns whether it did.
    /// With the feature `formats`.
    ///
    /// ```
    /// use callreel_core::frame::{Body, Provider, parse};
    ///
    /// let mut text = *br#"{"event":"start","start":{"media_format":{"encoding":"audio/x-raw"}}}"#;
    /// let Body::Start(mut start) = parse(Provider::Exotel, &mut text)?.body else { panic!() };
    /// assert!(start.is_format_assumed && start.assume_rate(16_000) && !start.is_format_assumed);
    /// assert_eq!(start.format.map(|format| format.sample_rate_hz), Some(16_000));
    /// assert!(!start.assume_rate(8000));
    /// # Ok::<(), callreel_core::frame::PeerError>(())
    /// ```
    #[cfg(feature = "formats")]
    pub fn assume_rate(&mut self, sample_rate_hz: u32) -> bool {
        let Some(format) = self.format.as_mut().filter(|_| self.is_rate_assumed) else {
            return false;
        };
        format.sample_rate_hz = sample_rate_hz;
        self.is_rate_assumed = false;
        self.is_format_assumed = self.encoding.as_escaped().is_empty();
        true
    }

    /// The start of a stream of which no message tells anything: tracks and format are the provider's
    /// usual ones, and the format counts as assumed. Where settings of the user's tell more, change
    /// `tracks`, `format` and `is_interleaved`.
    ///
    /// ```
    /// use callreel_core::format::Format;
    /// use callreel_core::frame::{Provider, Start};
    ///
    /// let start = Start::assumed(Provider::Twilio);
    /// assert_eq!((start.format, start.is_format_assumed), (Some(Format::TELEPHONE), true));
    /// ```
    #[must_use]
    pub fn assumed(provider: Provider) -> Self {
        let habits = provider.habits();
        Self {
            tracks: habits.default_tracks,
            format: habits.default_format,
            is_format_assumed: true,
            ..Self::new()
        }
    }

    /// ChunkLayout of the chunks; `None` if it cannot be recorded.
    pub(crate) fn layout(&self) -> Option<ChunkLayout> {
        ChunkLayout::new(self.format?, self.is_interleaved && self.tracks == Tracks::Both)
    }
}

/// The ends of a call, in the provider's words; each empty if it is not told.
///
/// ```
/// use callreel_core::frame::{Body, Provider, parse};
///
/// # #[cfg(feature = "telnyx")] {
/// let mut text = br#"{"event":"start","stream_id":"1","start":{"call_control_id":"v3:1",
///     "from":"+15550100","to":"+15550101"}}"#.to_vec();
/// let Body::Start(start) = parse(Provider::Telnyx, &mut text)?.body else { panic!() };
/// assert_eq!([start.ends.from, start.ends.to].map(|end| end.as_escaped()), ["+15550100", "+15550101"]);
/// # }
/// # Ok::<(), callreel_core::frame::PeerError>(())
/// ```
#[cfg(any(feature = "json", feature = "replies"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Ends<'t> {
    /// The number or address of the calling party.
    pub from: Text<'t>,
    /// The number or address that was called.
    pub to: Text<'t>,
    /// The direction, like `inbound`.
    pub direction: Text<'t>,
}

#[cfg(any(feature = "json", feature = "replies"))]
impl Ends<'_> {
    /// Nothing is told.
    pub const NONE: Self =
        Self { from: Text::new(""), to: Text::new(""), direction: Text::new("") };
}

impl Default for Start<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// A pressed key.
///
/// ```
/// use callreel_core::frame::{Body, Provider, parse};
///
/// let mut text = *br#"{"event":"dtmf","dtmf":{"track":"inbound_track","digit":"5"}}"#;
/// let Body::Dtmf(dtmf) = parse(Provider::Twilio, &mut text)?.body else { panic!() };
/// assert!(dtmf.digit.chars().eq(['5']));
/// # Ok::<(), callreel_core::frame::PeerError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Dtmf<'t> {
    /// The key, one character; the keys in their order, where a message of Webex tells several.
    pub digit: Text<'t>,
}

/// The echo of a mark.
///
/// ```
/// use callreel_core::frame::{Body, Provider, parse};
///
/// let mut text = *br#"{"event":"mark","mark":{"name":"greeting"}}"#;
/// let Body::Mark(mark) = parse(Provider::Twilio, &mut text)?.body else { panic!() };
/// assert_eq!(mark.name.as_escaped(), "greeting");
/// # Ok::<(), callreel_core::frame::PeerError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Mark<'t> {
    /// Name that the mark was given; empty if there is none.
    pub name: Text<'t>,
}

/// Parses one text message, and decodes its payload in place. Takes linear time.
///
/// `text` must be UTF-8, as [`ws`](crate::ws) ensures. It is scratch memory: its escapes are rewritten
/// and its payload is decoded. Only a message other than media may be parsed again.
///
/// The parser extracts, it does not validate: JSON with a fault inside an unused field may pass, though
/// other parsers refuse it. Messages that other parsers accept, within the limits, are read with equal
/// values, in any spelling: blanks, key order, escapes, numbers bare or quoted, unknown events and
/// fields.
///
/// # Errors
/// [`PeerError`]: count the message and go on with the next.
#[inline]
pub fn parse(provider: Provider, text: &mut [u8]) -> Result<Frame<'_>, PeerError> {
    parse_known(provider, text, b"")
}

/// Like [`parse`], faster for messages that name the stream `known`: an id seen before need not be
/// checked again. `known` is an earlier [`Frame::stream_id`], or empty.
#[inline]
pub(crate) fn parse_known<'t>(
    provider: Provider,
    text: &'t mut [u8],
    known: &[u8],
) -> Result<Frame<'t>, PeerError> {
    // First, since it is the one that is held to a budget of instructions.
    if provider == Provider::Twilio {
        return twilio::parse(text, known);
    }
    parse_other(provider, text, |_| true)
}

/// Like [`parse`], for a provider with streams that begin with their first audio: a message with audio of
/// a stream that is not `begun` is parsed as its start, and may be parsed again.
#[cfg(feature = "replies")]
pub(crate) fn parse_or_start(
    provider: Provider,
    text: &mut [u8],
    has_begun: impl Fn(&[u8]) -> bool,
) -> Result<Frame<'_>, PeerError> {
    parse_other(provider, text, has_begun)
}

/// Parses a message of another provider than Twilio.
#[cold]
#[inline(never)]
fn parse_other(
    provider: Provider,
    text: &mut [u8],
    has_begun: impl Fn(&[u8]) -> bool,
) -> Result<Frame<'_>, PeerError> {
    let _ = &has_begun;
    match provider {
        Provider::Twilio => twilio::parse(text, b""),
        #[cfg(feature = "acs")]
        Provider::Acs => nested::parse(text, &acs::READER, has_begun),
        #[cfg(feature = "asterisk")]
        Provider::Asterisk => asterisk::parse(text),
        #[cfg(feature = "audiocodes")]
        Provider::AudioCodes => nested::parse(text, &audiocodes::READER, has_begun),
        #[cfg(feature = "bandwidth")]
        Provider::Bandwidth => json::parse(text, &bandwidth::NAMES),
        #[cfg(feature = "exotel")]
        Provider::Exotel => json::parse(text, &exotel::NAMES),
        #[cfg(feature = "genesys")]
        Provider::Genesys => nested::parse(text, &genesys::READER, has_begun),
        #[cfg(feature = "jambonz")]
        Provider::Jambonz => jambonz::parse(text),
        #[cfg(feature = "mod-audio-stream")]
        Provider::ModAudioStream => mod_audio_stream::parse(text),
        #[cfg(feature = "plivo")]
        Provider::Plivo => json::parse(text, &plivo::NAMES),
        #[cfg(feature = "ringcentral")]
        Provider::RingCentral => nested::parse(text, &ringcentral::READER, has_begun),
        #[cfg(feature = "signalwire")]
        Provider::SignalWire => twilio::parse(text, b""),
        #[cfg(feature = "sinch")]
        Provider::Sinch => nested::parse(text, &sinch::READER, has_begun),
        #[cfg(feature = "telnyx")]
        Provider::Telnyx => json::parse(text, &telnyx::NAMES),
        #[cfg(feature = "vonage")]
        Provider::Vonage => vonage::parse(text),
        #[cfg(feature = "voximplant")]
        Provider::Voximplant => json::parse(text, &voximplant::NAMES),
        #[cfg(feature = "wavix")]
        Provider::Wavix => json::parse(text, &wavix::NAMES),
        #[cfg(feature = "webex")]
        Provider::Webex => nested::parse(text, &webex::READER, has_begun),
    }
}
