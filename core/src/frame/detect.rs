//! The provider of a connection, told from its handshake and its first messages.

use super::members::{self, Members, Value};
use super::spelling::{Dialect, canonicalise};
use super::{PeerError, Provider, foreign, twilio};

/// The provider of a connection, as far as the messages so far tell it.
///
/// In this order: the provider that the caller knows of ([`of`](Self::of)), for example by the path of
/// the request; the first header of the handshake that tells it ([`note_header`](Self::note_header));
/// the first text that does ([`note_text`](Self::note_text)). Nothing is ever concluded from the absence
/// of a header or a field, nor from a binary message, since the bytes of audio tell no provider: where
/// one comes before there is a verdict, keep it until there is.
///
/// ```
/// use callreel_core::frame::{Detector, Provider, Verdict};
///
/// let mut detector = Detector::new();
/// let mut hello = *br#"{"event":"connected","version":"1.0.0"}"#;
/// assert_eq!(detector.note_text(&mut hello)?, Verdict::Undecided);
/// let mut start = *br#"{"event":"start","start":{"streamSid":"MZ1","callSid":"CA1"}}"#;
/// assert_eq!(detector.note_text(&mut start)?, Verdict::Known(Provider::Twilio));
/// # Ok::<(), callreel_core::frame::PeerError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Detector {
    verdict: Verdict,
    /// The first message was that of Twilio's dialect.
    has_call_protocol: bool,
    /// The first message had the version that SignalWire sends.
    has_old_version: bool,
}

/// Provider of a connection.
///
/// ```
/// use callreel_core::frame::{Detector, Verdict};
///
/// let mut detector = Detector::new();
/// let mut first = *br#"{"t":"hello","callid":"c1"}"#;
/// assert_eq!(detector.note_text(&mut first)?, Verdict::Foreign("46elks"));
/// # Ok::<(), callreel_core::frame::PeerError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Verdict {
    /// One that can be recorded.
    Known(Provider),
    /// One that is known by name, and not recorded.
    Foreign(&'static str),
    /// None of the messages so far is one that only one provider sends.
    Undecided,
}

/// For the first look at a message, which needs neither numbers nor the user's own fields.
const ANY: Dialect = Dialect { numbers: &[], free: &[] };

/// Members of a message that are read once for all looks: more than those that providers send.
const TABLE_LENGTH: usize = 12;

/// Headers of a handshake, in lower case, that only one provider sends.
const HEADERS: &[(&str, Verdict)] = &[
    ("x-twilio-signature", Verdict::Known(Provider::Twilio)),
    // Fonoster speaks Twilio's dialect.
    ("x-fonoster-signature", Verdict::Known(Provider::Twilio)),
    #[cfg(feature = "plivo")]
    ("x-plivo-signature-v3", Verdict::Known(Provider::Plivo)),
    #[cfg(feature = "genesys")]
    ("audiohook-session-id", Verdict::Known(Provider::Genesys)),
    #[cfg(feature = "vonage")]
    ("x-opentok-ws-sessionid", Verdict::Known(Provider::Vonage)),
];

/// Subprotocols that only one provider offers.
const SUBPROTOCOLS: &[(&str, Verdict)] = &[
    // Somleng speaks Twilio's dialect.
    ("audio.somleng.org", Verdict::Known(Provider::Twilio)),
    #[cfg(feature = "jambonz")]
    ("audio.drachtio.org", Verdict::Known(Provider::Jambonz)),
    #[cfg(feature = "jambonz")]
    ("audio.jambonz.org", Verdict::Known(Provider::Jambonz)),
    #[cfg(feature = "asterisk")]
    ("media", Verdict::Known(Provider::Asterisk)),
];

impl Detector {
    /// Nothing is known yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { verdict: Verdict::Undecided, has_call_protocol: false, has_old_version: false }
    }

    /// The caller knows the provider: no header and no message changes it.
    #[must_use]
    pub const fn of(provider: Provider) -> Self {
        Self { verdict: Verdict::Known(provider), ..Self::new() }
    }

    /// The verdict so far.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Takes a header of the handshake, with its name in lower case.
    ///
    /// ```
    /// use callreel_core::frame::{Detector, Provider, Verdict};
    ///
    /// let mut detector = Detector::new();
    /// detector.note_header("host", "calls.example.com");
    /// assert_eq!(detector.verdict(), Verdict::Undecided);
    /// detector.note_header("sec-websocket-protocol", "audio.somleng.org");
    /// assert_eq!(detector.verdict(), Verdict::Known(Provider::Twilio));
    /// ```
    pub fn note_header(&mut self, name: &str, value: &str) {
        if self.verdict != Verdict::Undecided {
            return;
        }
        let found = match name {
            "sec-websocket-protocol" => {
                let mut offered = value.split(',').map(str::trim);
                offered.find_map(|offered| SUBPROTOCOLS.iter().find(|(name, _)| *name == offered))
            }
            _ => HEADERS.iter().find(|(header, _)| *header == name),
        };
        if let Some((_, verdict)) = found {
            self.verdict = *verdict;
        }
    }

    /// Takes a text message, and returns the verdict with it. Once there is one, reads no further
    /// message. The bytes of `text` are rewritten, and it may be parsed afterwards. Takes linear time.
    ///
    /// # Errors
    /// The message is not JSON, or nests too deep: [`PeerError::Json`] or [`PeerError::Depth`]. The
    /// detector is unchanged, and the text cannot be parsed any more.
    #[cold]
    pub fn note_text(&mut self, text: &mut [u8]) -> Result<Verdict, PeerError> {
        if self.verdict != Verdict::Undecided {
            return Ok(self.verdict);
        }
        #[cfg(feature = "asterisk")]
        if super::asterisk::is_mine_in_words(text) {
            self.verdict = Verdict::Known(Provider::Asterisk);
            return Ok(self.verdict);
        }
        canonicalise(text, &ANY)?;
        let message = members::members(core::str::from_utf8(text).map_err(|_| PeerError::Json)?);
        let mut table = [("", Value::Null); TABLE_LENGTH];
        let message = message.read_into(&mut table);
        self.note_greeting(&message);
        self.verdict = match self.provider_of(&message) {
            Some(provider) => Verdict::Known(provider),
            None => foreign::of_message(&message).map_or(Verdict::Undecided, Verdict::Foreign),
        };
        Ok(self.verdict)
    }

    fn note_greeting(&mut self, message: &Members<'_>) {
        let is = |name, text| message.clone().find(name) == Some(Value::String(text));
        if is("event", "connected") {
            self.has_call_protocol |= is("protocol", "Call");
            #[cfg(feature = "signalwire")]
            {
                self.has_old_version |= is("version", super::signalwire::VERSION);
            }
        }
    }

    /// The provider that alone sends this message.
    fn provider_of(&self, message: &Members<'_>) -> Option<Provider> {
        #[cfg(feature = "bandwidth")]
        if super::bandwidth::is_mine(message) {
            return Some(Provider::Bandwidth);
        }
        #[cfg(feature = "replies")]
        if let Some(provider) = of_conversation(message) {
            return Some(provider);
        }
        #[cfg(feature = "asterisk")]
        if super::asterisk::is_mine(message) {
            return Some(Provider::Asterisk);
        }
        #[cfg(feature = "jambonz")]
        if super::jambonz::is_mine(message) {
            return Some(Provider::Jambonz);
        }
        #[cfg(feature = "vonage")]
        if super::vonage::is_mine(message) {
            return Some(Provider::Vonage);
        }
        let is_start = message.clone().find("event") == Some(Value::String("start"));
        let start = message.clone().find("start").unwrap_or(Value::Null).members();
        #[cfg(feature = "signalwire")]
        if self.has_old_version {
            if is_start && super::signalwire::is_mine(&start) {
                return Some(Provider::SignalWire);
            }
            // Messages behind the start tell no more than Twilio's dialect.
            return (is_start && twilio::is_mine(message, &start)).then_some(Provider::Twilio);
        }
        if twilio::is_mine(message, &start) {
            return Some(Provider::Twilio);
        }
        if !is_start {
            return None;
        }
        #[cfg(feature = "telnyx")]
        if super::telnyx::is_mine(message, &start) {
            return Some(Provider::Telnyx);
        }
        #[cfg(feature = "plivo")]
        if super::plivo::is_mine(&start) {
            return Some(Provider::Plivo);
        }
        #[cfg(feature = "exotel")]
        if super::exotel::is_mine(&start) {
            return Some(Provider::Exotel);
        }
        #[cfg(feature = "wavix")]
        if super::wavix::is_mine(message) {
            return Some(Provider::Wavix);
        }
        if self.has_call_protocol {
            return Some(Provider::Twilio);
        }
        #[cfg(feature = "voximplant")]
        if super::voximplant::is_mine(&start) {
            return Some(Provider::Voximplant);
        }
        None
    }
}

/// The provider of a message that begins a conversation, and is no event with a small letter.
#[cfg(feature = "replies")]
fn of_conversation(message: &Members<'_>) -> Option<Provider> {
    type Rule = (fn(&Members<'_>) -> bool, Provider);
    const RULES: &[Rule] = &[
        #[cfg(feature = "acs")]
        (super::acs::is_mine, Provider::Acs),
        #[cfg(feature = "audiocodes")]
        (super::audiocodes::is_mine, Provider::AudioCodes),
        #[cfg(feature = "genesys")]
        (super::genesys::is_mine, Provider::Genesys),
        #[cfg(feature = "ringcentral")]
        (super::ringcentral::is_mine, Provider::RingCentral),
        #[cfg(feature = "sinch")]
        (super::sinch::is_mine, Provider::Sinch),
        #[cfg(feature = "webex")]
        (super::webex::is_mine, Provider::Webex),
    ];
    RULES.iter().find(|(is_mine, _)| is_mine(message)).map(|(_, provider)| *provider)
}

impl Default for Detector {
    fn default() -> Self {
        Self::new()
    }
}
