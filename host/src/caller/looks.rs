//! The looks that a call can have: a table a provider, which says how its messages are spelled.
//!
//! A look is data. Its messages are templates ([`template`](super::template)); the places in them are:
//!
//! | place | value |
//! |---|---|
//! | `$stream`, `$call`, `$account`, `$session` | ids of the call |
//! | `$seq`, `$chunk`, `$time`, `$stamp` | number of the message, number of the chunk, time of the chunk, the same as a date and time in UTC |
//! | `$now`, `$moment` | date and time in UTC, to the second and to the millisecond |
//! | `$track`, `$payload` | name of the track, audio in base64 |
//! | `$digit`, `$key`, `$mark` | the key, its name in capitals, the name of the mark |
//! | `$encoding`, `$rate`, `$frame` | name of the codec, samples a second, bytes of a chunk |
//! | `$tracks`, `$trackformats`, `$mix`, `$offer` | the tracks: as names, with a format each, as a word of jambonz, as an offer of Genesys |
//! | `$parameters`, `$members`, `$metadata`, `$pairs`, `$object` | the custom parameters: an object; members behind others; an object or nothing; `a=b;c=d`; an object inside a string |
//! | `$tag` | `"tag":"ID",` if a stream id was asked for, else nothing |
//! | `$bytes`, `$seconds` | audio so far |
//! | `$verbatim` | JSON of the bot's, as it came |
//! | `$heard`, `$position`, `$rtt`, `$from`, `$discarded`, `$reason` | of a conversation, see [`Talk`] |
//!
//! A new provider is a new table.

use std::time::Duration;

use callreel_core::format::{Codec, Format};
use callreel_core::g722::SAMPLES_PER_BYTE;
use clap::ValueEnum;

pub(super) use self::bot::{BotSide, Dropped, Tongue};
use self::steps::Steps;
use self::twilio::TWILIO;
use super::cue::{Action, Fault};
use super::wire as frames;

mod acs;
mod asterisk;
mod audiocodes;
mod bot;
pub(super) mod genesys;
mod jambonz;
mod plivo;
mod ringcentral;
mod sinch;
pub(super) mod steps;
mod telnyx;
mod texts;
mod twilio;
mod vonage;
mod webex;

/// The look of a call: that of a provider, with its messages, pace, order and end.
#[derive(Debug)]
pub struct Look {
    pub(super) name: &'static str,
    /// Formats of the audio; the first is the usual one.
    pub(super) wires: &'static [Wire],
    pub(super) tracks: Carried,
    pub(super) chunk_ms: u32,
    pub(super) clock: Clock,
    pub(super) ids: IdForms,
    /// Number of the first message that has one.
    pub(super) first_number: u64,
    pub(super) spelling: Spelling,
    pub(super) end: End,
    pub(super) subprotocol: Option<&'static str>,
    /// Headers of the handshake: names, and values as templates.
    pub(super) headers: &'static [(&'static str, &'static str)],
    pub(super) proof: Proof,
    /// Whether the provider follows TwiML.
    pub(super) has_twiml: bool,
    pub(super) talk: Talk,
    pub(super) bot: BotSide,
}

/// A codec as a provider names it, and the rates that it has there, in Hz.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wire {
    pub(super) codec: Codec,
    pub(super) encoding: &'static str,
    pub(super) rates_hz: &'static [u32],
}

const fn wire(codec: Codec, encoding: &'static str, rates_hz: &'static [u32]) -> Wire {
    Wire { codec, encoding, rates_hz }
}

const MULAW: Wire = wire(Codec::Mulaw, "audio/x-mulaw", &[8000]);

/// The tracks that a provider can send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carried {
    /// One or both, each in messages of its own.
    Apart,
    /// The same; messages have these names for inbound and outbound.
    Named([&'static str; 2]),
    /// One or both, sample by sample in the same message.
    Interleaved,
    /// One, of this name.
    One(&'static str),
}

/// The time that a media message tells.
#[derive(Clone, Copy, Debug)]
pub(super) enum Clock {
    /// Milliseconds, within one of the true time; the first is one seen in captures.
    Twilio,
    /// Milliseconds, of which the first chunk has `first`.
    Ms {
        first: u64,
    },
    /// Milliseconds as a wall clock shows them when the chunk is sent.
    Arrival,
    /// Milliseconds since 1970.
    UnixMs,
    /// Samples, at the end of the chunk.
    Samples,
    None,
}

/// Forms of ids, see [`template::random_id`].
#[derive(Clone, Copy, Debug)]
pub(super) struct IdForms {
    pub(super) account: &'static str,
    pub(super) call: &'static str,
    pub(super) stream: &'static str,
    pub(super) session: &'static str,
}

const UUID: &str = "########-####-4###-8###-############";

const UUIDS: IdForms = IdForms { account: UUID, call: UUID, stream: UUID, session: UUID };

/// Templates of messages. An empty one is not sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spelling {
    pub(super) greeting: &'static str,
    pub(super) start: &'static str,
    /// Empty: a chunk is a binary message.
    pub(super) media: &'static str,
    pub(super) dtmf: &'static str,
    pub(super) mark: &'static str,
    pub(super) stop: &'static str,
}

/// The end of a call in good order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The caller says stop, and the server closes.
    ServerCloses,
    /// The caller says stop, keeps the connection for a while, and closes it.
    Lingers,
    /// The caller closes.
    CallerCloses,
    /// The caller sends an empty binary message and closes.
    EmptyThenCloses,
    /// The caller says close, the server answers, and the caller closes without a code.
    Farewell,
}

/// The way in which a handshake proves its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    None,
    /// User and password of the URL.
    Basic,
    /// The token itself.
    Bearer,
    Fonoster,
    Genesys,
    Plivo,
    Twilio,
    Vonage,
}

/// Whether the caller listens to the server's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Talk {
    None,
    /// As a client of AudioHook: it waits for answers, pings, and takes orders.
    Genesys,
    /// It says messages in turn, and waits for their answers.
    Steps(&'static Steps),
}

impl Talk {
    /// Whether audio is sent only behind an answer.
    fn is_answered_first(self) -> bool {
        match self {
            Self::None => false,
            Self::Genesys => true,
            Self::Steps(steps) => !steps.opening.is_empty(),
        }
    }
}

/// A codec that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AskedCodec {
    /// G.711 A-law
    Alaw,
    /// G.722 at 64 kbit/s, 16 kHz
    G722,
    /// 16-bit PCM, in the provider's order of bytes
    L16,
    /// 16-bit PCM, the high byte first
    L16be,
    /// 16-bit PCM, the low byte first
    L16le,
    /// G.711 mu-law
    Mulaw,
}

impl AskedCodec {
    fn is(self, codec: Codec) -> bool {
        match self {
            Self::Alaw => codec == Codec::Alaw,
            Self::G722 => codec == Codec::G722,
            Self::L16 => matches!(codec, Codec::L16Be | Codec::L16Le),
            Self::L16be => codec == Codec::L16Be,
            Self::L16le => codec == Codec::L16Le,
            Self::Mulaw => codec == Codec::Mulaw,
        }
    }
}

/// Every look, in the order of names.
static LOOKS: [&Look; 30] = [
    &twilio::PIVOT,
    &twilio::PIVOT_RAW,
    &acs::MIXED,
    &acs::UNMIXED,
    &asterisk::PLAIN,
    &asterisk::JSON,
    &audiocodes::AUDIOCODES,
    &texts::BANDWIDTH,
    &twilio::CLOUDONIX,
    &texts::EXOTEL,
    &twilio::FONOSTER,
    &genesys::AUDIOHOOK,
    &vonage::INFOBIP,
    &jambonz::JAMBONZ,
    &jambonz::FORK,
    &jambonz::STREAM,
    &plivo::PLIVO,
    &ringcentral::RINGCENTRAL,
    &twilio::SIGNALWIRE,
    &sinch::SINCH,
    &twilio::SMARTFLO,
    &twilio::SOMLENG,
    &telnyx::TELNYX,
    &TWILIO,
    &plivo::VOBIZ,
    &vonage::VONAGE,
    &vonage::VIDEO,
    &texts::VOXIMPLANT,
    &texts::WAVIX,
    &webex::WEBEX,
];

impl Look {
    /// The look of Twilio.
    #[must_use]
    pub fn twilio() -> &'static Self {
        &TWILIO
    }

    /// Every look, in the order of names.
    #[must_use]
    pub fn all() -> &'static [&'static Self] {
        &LOOKS
    }

    /// The look of this name; `None` if there is none.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        LOOKS.into_iter().find(|look| look.name == name)
    }

    /// Name in options: lower-case letters, digits, `-` and `_`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Whether the errors of a call are Twilio's.
    pub(super) fn is_twilio(&self) -> bool {
        self.name == TWILIO.name
    }

    pub(super) const fn is_binary(&self) -> bool {
        self.spelling.media.is_empty()
    }

    /// Whether the marks of a bot are echoed.
    pub(super) fn has_marks(&self) -> bool {
        self.bot.tongue != Tongue::None && !self.bot.played(&self.spelling).is_empty()
    }

    /// The opcode of a media message.
    pub(super) const fn opcode(&self) -> u8 {
        if self.is_binary() { frames::BINARY } else { frames::TEXT }
    }

    /// The format with this codec and rate, where `None` is the usual one.
    pub(super) fn stride(&self, codec: Option<AskedCodec>, rate_hz: Option<u32>) -> Option<Stride> {
        let mut found = self.wires.iter().filter(|wire| codec.is_none_or(|c| c.is(wire.codec)));
        let (wire, rate_hz) = match rate_hz {
            Some(rate_hz) => (found.find(|wire| wire.rates_hz.contains(&rate_hz))?, rate_hz),
            None => {
                let wire = found.next()?;
                (wire, *wire.rates_hz.first()?)
            }
        };
        let format = Format { codec: wire.codec, sample_rate_hz: rate_hz };
        Some(Stride { format, encoding: wire.encoding, chunk_ms: self.chunk_ms })
    }

    /// The formats, in words.
    pub(super) fn formats(&self) -> String {
        let formats = self.wires.iter().map(|wire| {
            let rates: Vec<_> = wire.rates_hz.iter().map(u32::to_string).collect();
            format!("{} {}", wire.codec.name(), rates.join("/"))
        });
        formats.collect::<Vec<_>>().join(", ")
    }

    /// The reason for which the provider never does this; `None` if it may.
    pub(super) fn obstacle(&self, action: &Action) -> Option<&'static str> {
        let Spelling { greeting, start, dtmf, mark, stop, .. } = self.spelling;
        let has_json = start.starts_with('{') || greeting.starts_with('{');
        let no = |is_impossible: bool, reason| is_impossible.then_some(reason);
        let no_start = no(start.is_empty() && !self.is_binary(), "its streams have no start");
        match action {
            Action::Dtmf(_) => no(dtmf.is_empty(), "it sends no keys"),
            Action::Mark(_) => no(mark.is_empty(), "it sends no marks"),
            Action::Fault(fault, _) => match fault {
                Fault::BadBase64 => no(self.is_binary(), "its audio is not in base64"),
                Fault::Binary => no(self.is_binary(), "its audio comes in binary messages"),
                Fault::BadJson => no(!has_json, "its messages are not JSON"),
                Fault::TimestampJump => {
                    no(matches!(self.clock, Clock::None), "its audio has no timestamps")
                }
                Fault::StopMissing | Fault::MediaAfterStop => {
                    no(stop.is_empty() || self.is_binary(), "it says no stop")
                }
                Fault::SecondStart | Fault::SecondStartOther => {
                    let is_alone = self.is_binary() || self.talk.is_answered_first();
                    no(is_alone, "its connections carry one stream").or(no_start)
                }
                Fault::MediaBeforeStart => {
                    let is_answered_first = self.talk.is_answered_first();
                    no(is_answered_first, "it waits for an answer before its audio").or(no_start)
                }
                Fault::EarlyEcho | Fault::LateEcho | Fault::NoEcho => {
                    no(!self.has_marks(), "it echoes no marks")
                }
                _ => None,
            },
        }
    }
}

impl Clock {
    /// Milliseconds of the first chunk of the call `index`.
    pub(super) fn first_ms(self, index: u32) -> u64 {
        /// First timestamps seen in captures.
        const TWILIO_MS: [u64; 4] = [52, 102, 155, 171];
        match self {
            Self::Twilio => TWILIO_MS[index as usize % 4],
            Self::Ms { first } => first,
            Self::Arrival => 21,
            Self::UnixMs | Self::Samples | Self::None => 0,
        }
    }

    /// Deviation of the timestamp of a chunk in milliseconds, plus 1. The first does not deviate.
    pub(super) fn wobble_ms(self, age: u64) -> u64 {
        let spread = match self {
            Self::Twilio => 3,
            Self::Arrival => 9,
            _ => return 1,
        };
        if age == 0 { 1 } else { (age.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) % spread }
    }
}

/// The audio of a call, cut into chunks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stride {
    pub(super) format: Format,
    /// The provider's name for the codec.
    pub(super) encoding: &'static str,
    pub(super) chunk_ms: u32,
}

impl Stride {
    /// Media time of a chunk.
    pub(super) fn chunk(self) -> Duration {
        Duration::from_millis(self.chunk_ms.into())
    }

    /// Samples of a chunk of one track.
    pub(super) fn chunk_samples(self) -> usize {
        self.format.samples(self.chunk_ms) as usize
    }

    /// Bytes of a chunk of one track.
    pub(super) fn chunk_bytes(self) -> usize {
        self.bytes(self.chunk_samples())
    }

    /// Bytes of samples of one track. Of G.722 only pairs of samples have bytes.
    pub(super) fn bytes(self, samples: usize) -> usize {
        match self.format.codec {
            Codec::G722 => samples / SAMPLES_PER_BYTE,
            codec => samples * codec.width(),
        }
    }

    /// Samples of one track in `bytes`.
    pub(super) fn samples_in(self, bytes: usize) -> usize {
        match self.format.codec {
            Codec::G722 => bytes * SAMPLES_PER_BYTE,
            codec => bytes / codec.width(),
        }
    }

    /// Samples a second as messages tell them: those of G.722 are the bytes, as those of RTP are.
    pub(super) fn told_rate_hz(self) -> u32 {
        match self.format.codec {
            Codec::G722 => self.format.sample_rate_hz / SAMPLES_PER_BYTE as u32,
            _ => self.format.sample_rate_hz,
        }
    }

    /// Samples of `length`, rounded down.
    pub(super) fn samples(self, length: Duration) -> u64 {
        (length.as_micros() * u128::from(self.format.sample_rate_hz) / 1_000_000) as u64
    }

    /// Number of chunks of a track with `samples` samples.
    pub(super) fn chunks(self, samples: u64) -> u64 {
        samples.div_ceil(self.chunk_samples() as u64)
    }

    /// Number of whole chunks in `time`.
    pub(super) fn chunks_in(self, time: Duration) -> u64 {
        (time.as_micros() / self.chunk().as_micros()) as u64
    }

    /// The byte that is as loud as possible when repeated, so that it is never mistaken for speech.
    pub(super) fn loudest(self) -> u8 {
        match self.format.codec {
            Codec::Mulaw => 0,
            Codec::Alaw => 0x2A,
            Codec::G722 | Codec::L16Be | Codec::L16Le => 0x7F,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_order_and_find_their_look() {
        let names: Vec<_> = Look::all().iter().map(|look| look.name()).collect();
        assert!(names.is_sorted(), "{names:?}");
        for look in Look::all() {
            assert_eq!(Look::named(look.name()).unwrap().name(), look.name());
        }
        assert!(Look::named("Twilio").is_none());
    }

    #[test]
    fn every_chunk_is_whole_samples_in_every_format() {
        for look in Look::all() {
            for wire in look.wires {
                for &rate_hz in wire.rates_hz {
                    let ms = u64::from(look.chunk_ms);
                    assert_eq!(u64::from(rate_hz) * ms % 1000, 0, "{} {rate_hz}", look.name());
                }
            }
            assert!(look.stride(None, None).is_some());
        }
    }

    #[test]
    fn a_format_is_found_by_codec_by_rate_and_by_both() {
        let telnyx = Look::named("telnyx").unwrap();
        let found =
            |codec, rate| telnyx.stride(codec, rate).map(|s| (s.encoding, s.format.sample_rate_hz));
        assert_eq!(found(None, None), Some(("PCMU", 8000)));
        assert_eq!(found(Some(AskedCodec::L16), Some(16_000)), Some(("L16", 16_000)));
        assert_eq!(found(None, Some(24_000)), Some(("L16", 24_000)));
        assert_eq!(found(Some(AskedCodec::Alaw), None), Some(("PCMA", 8000)));
        assert_eq!(found(Some(AskedCodec::L16le), None), None);
        assert_eq!(found(None, Some(11_025)), None);
    }

    #[test]
    fn timestamps_stay_near_the_time_and_do_not_stand_still() {
        for (clock, most) in [(Clock::Twilio, 2), (Clock::Arrival, 8)] {
            let wobbles: Vec<u64> = (0..1000).map(|age| clock.wobble_ms(age)).collect();
            assert_eq!(wobbles[0], 1);
            for wobble in 0..=most {
                let count = wobbles.iter().filter(|&&other| other == wobble).count();
                assert!(count > 700 / (most as usize + 1), "{wobble}: {count}");
            }
        }
    }
}
