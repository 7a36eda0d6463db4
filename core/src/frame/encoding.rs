//! The names that providers give to encodings.

use crate::format::Codec;

/// An encoding, as a provider names it.
#[derive(Debug, PartialEq)]
pub(super) struct Encoding {
    kind: Kind,
    /// Samples a second, if the name has them: `audio/x-mulaw;rate=8000`.
    pub(super) sample_rate_hz: Option<u32>,
}

#[derive(Debug, PartialEq)]
enum Kind {
    Mulaw,
    Alaw,
    G722,
    /// 16-bit samples, in the byte order of the provider.
    Linear,
    Unknown,
}

const MULAW: [&str; 4] = ["mulaw", "pcmu", "ulaw", "mulaw_format"];
const ALAW: [&str; 3] = ["alaw", "pcma", "alaw_format"];
// Exotel calls raw samples after the form of their transport.
const LINEAR: [&str; 9] =
    ["l16", "pcm16", "pcm", "raw", "slin", "lpcm16", "linear16", "linear16_format", "base64"];

impl Encoding {
    /// The encoding of a name: in any case, with or without the type of a media type, an `x-` and
    /// parameters.
    pub(super) fn of(name: &str) -> Self {
        let (name, parameters) = name.split_once(';').unwrap_or((name, ""));
        let mut parameters = parameters.split(';').filter_map(|text| text.split_once('='));
        let rate = parameters.find(|(key, _)| key.trim().eq_ignore_ascii_case("rate"));
        let sample_rate_hz = rate.and_then(|(_, rate)| rate.trim().parse().ok());
        let name = name.split_once('/').map_or(name, |(_, behind)| behind).trim();
        let name = match name.split_at_checked(2) {
            Some(("x-" | "X-", behind)) => behind,
            _ => name,
        };
        let is_one_of = |names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
        let kind = match () {
            () if is_one_of(&MULAW) => Kind::Mulaw,
            () if is_one_of(&ALAW) => Kind::Alaw,
            () if is_one_of(&["g722"]) => Kind::G722,
            () if is_one_of(&LINEAR) => Kind::Linear,
            () => Kind::Unknown,
        };
        Self { kind, sample_rate_hz }
    }

    /// The codec, with `linear` as that of 16-bit samples; `None` if it is not known.
    pub(super) const fn codec(&self, linear: Codec) -> Option<Codec> {
        match self.kind {
            Kind::Mulaw => Some(Codec::Mulaw),
            Kind::Alaw => Some(Codec::Alaw),
            Kind::G722 => Some(Codec::G722),
            Kind::Linear => Some(linear),
            Kind::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_that_was_seen_is_known() {
        for (names, codec) in [
            (
                &[
                    "audio/x-mulaw",
                    "PCMU",
                    "audio/PCMU",
                    "ULAW",
                    "ulaw",
                    "mulaw",
                    "raw/mulaw",
                    "MULAW_FORMAT",
                ][..],
                Some(Codec::Mulaw),
            ),
            (&["PCMA", "ALAW", "alaw", "audio/x-alaw", "ALAW_FORMAT"], Some(Codec::Alaw)),
            (
                &[
                    "audio/x-l16",
                    "audio/x-L16",
                    "audio/L16",
                    "L16",
                    "PCM16",
                    "slin",
                    "raw/lpcm16",
                    "LINEAR16_FORMAT",
                    "PCM",
                    "audio/x-raw",
                    "raw/slin",
                    "base64",
                ],
                Some(Codec::L16Be),
            ),
            (&["G722", "g722", "audio/G722;rate=8000"], Some(Codec::G722)),
            (&["OPUS", "audio/opus", "G722-1", "AMR-WB", "g729", "silk", "", "x-", "/", "é"], None),
        ] {
            for name in names {
                assert_eq!(Encoding::of(name).codec(Codec::L16Be), codec, "{name}");
            }
        }
    }

    #[test]
    fn a_rate_may_be_in_the_name() {
        for (name, rate) in [
            ("audio/x-mulaw;rate=8000", Some(8000)),
            ("audio/l16; channels=1; rate=16000", Some(16_000)),
            ("audio/l16;rate=", None),
            ("audio/l16;rate", None),
            ("audio/l16", None),
        ] {
            assert_eq!(Encoding::of(name).sample_rate_hz, rate, "{name}");
        }
    }
}
