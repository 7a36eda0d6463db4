//! The fields of a start that providers spell alike: tracks, format and the user's parameters.

#[cfg(feature = "formats")]
use super::encoding::Encoding;
use super::members::Value;
use super::{Start, Text, Track, Tracks};
use crate::format::Codec;
#[cfg(feature = "formats")]
use crate::format::{Format, G722_RATE_HZ};

/// Names of the fields of an object with a format.
pub(super) struct FormatNames {
    pub(super) encoding: &'static str,
    pub(super) sample_rate: &'static str,
    pub(super) channels: &'static str,
}

impl FormatNames {
    pub(super) const CAMEL: Self =
        Self { encoding: "encoding", sample_rate: "sampleRate", channels: "channels" };

    #[cfg(any(feature = "exotel", feature = "telnyx", feature = "wavix"))]
    pub(super) const SNAKE: Self = Self { sample_rate: "sample_rate", ..Self::CAMEL };
}

impl<'t> Start<'t> {
    /// Reads the names of tracks: an array of names, or one word. Skips unknown names; changes nothing if
    /// no name is known.
    #[inline(never)]
    pub(super) fn read_tracks(&mut self, value: Option<Value<'t>>) {
        let mut found = [false; 2];
        let mut note = |name: Value<'_>| match name {
            Value::String("both" | "both_tracks") => found = [true; 2],
            Value::String(name) => match track(name) {
                Some(Track::Inbound) => found[0] = true,
                Some(Track::Outbound) => found[1] = true,
                None => {}
            },
            _ => {}
        };
        match value {
            None => {}
            Some(names @ Value::Array(_)) => {
                let mut odd = 0u32;
                for name in names.elements() {
                    odd = odd.saturating_add(u32::from(!matches!(name, Value::String(_))));
                    note(name);
                }
                self.odd_fields = self.odd_fields.saturating_add(odd);
            }
            Some(word) => {
                self.odd_fields += 1;
                note(word);
            }
        }
        self.tracks = match found {
            [true, true] => Tracks::Both,
            [false, true] => Tracks::One(Track::Outbound),
            [true, false] => Tracks::One(Track::Inbound),
            [false, false] => self.tracks,
        };
    }

    /// Reads the format of the audio, with `linear` as the codec of 16-bit samples. What is absent is as
    /// in the format that the start has, the provider's default, and counts as assumed.
    #[cfg(feature = "formats")]
    #[inline(never)]
    pub(super) fn read_format(
        &mut self,
        value: Option<Value<'t>>,
        names: &FormatNames,
        linear: Codec,
    ) {
        let mut rate = None;
        let mut has_one_channel = true;
        let encoding = match value {
            None => None,
            Some(format @ Value::Object(_)) => {
                // Numbers have one spelling by now.
                let number = |name| format.members().find(name).and_then(Value::scalar);
                rate = number(names.sample_rate).map(|rate| rate.as_escaped().parse::<u32>());
                has_one_channel =
                    number(names.channels).is_none_or(|count| count.as_escaped() == "1");
                format.members().find(names.encoding).filter(|value| *value != Value::Null)
            }
            // The encoding alone.
            Some(word) => {
                self.odd_fields += 1;
                Some(word)
            }
        };
        let mut named = None;
        match encoding {
            Some(Value::String(name)) => {
                self.encoding = Text::new(name);
                named = Some(Encoding::of(name));
            }
            Some(_) => self.odd_fields += 1,
            None => {}
        }
        let named_rate = named.as_ref().and_then(|encoding| encoding.sample_rate_hz);
        let rate = rate.or(named_rate.map(Ok));
        let default = self.format;
        let codec = match &named {
            Some(encoding) => encoding.codec(linear),
            None => default.map(|format| format.codec),
        };
        let is_g722 = codec == Some(Codec::G722);
        self.is_rate_assumed = rate.is_none() && !is_g722;
        self.is_format_assumed = named.is_none() || self.is_rate_assumed;
        let sample_rate_hz = match rate {
            // Some name the rate of its bytes, as RTP does.
            _ if is_g722 => Some(G722_RATE_HZ),
            Some(rate) => rate.ok(),
            None => default.map(|format| format.sample_rate_hz),
        };
        self.format = match (codec, sample_rate_hz) {
            (Some(codec), Some(sample_rate_hz)) if has_one_channel => {
                Some(Format { codec, sample_rate_hz })
            }
            _ => None,
        };
    }

    /// Reads the format of the audio: that of the telephone network, or none. What is absent counts as
    /// assumed.
    #[cfg(not(feature = "formats"))]
    #[inline(never)]
    pub(super) fn read_format(
        &mut self,
        value: Option<Value<'t>>,
        names: &FormatNames,
        _linear: Codec,
    ) {
        let mut has_rate = false;
        let encoding = match value {
            None => None,
            Some(format @ Value::Object(_)) => {
                // Numbers have one spelling by now.
                let mut is = |name, expected| {
                    let value = format.members().find(name).and_then(Value::scalar);
                    has_rate |= value.is_some() && name == names.sample_rate;
                    value.is_none_or(|value| value.as_escaped() == expected)
                };
                if !is(names.sample_rate, "8000") || !is(names.channels, "1") {
                    self.format = None;
                }
                format.members().find(names.encoding).filter(|value| *value != Value::Null)
            }
            // The encoding alone.
            Some(word) => {
                self.odd_fields += 1;
                Some(word)
            }
        };
        self.is_format_assumed = !has_rate;
        match encoding {
            Some(Value::String(name)) => {
                let known = ["audio/x-mulaw", "audio/pcmu", "PCMU"];
                if !known.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                    self.format = None;
                }
                self.encoding = Text::new(name);
            }
            encoding => {
                self.odd_fields += u32::from(encoding.is_some());
                self.is_format_assumed = true;
            }
        }
    }

    /// Reads the ends of the call. `field` finds a field by its name; all providers that tell the ends use
    /// the same names.
    #[cfg(feature = "json")]
    #[inline(never)]
    pub(super) fn read_ends(&mut self, field: impl Fn(&str) -> Option<Value<'t>>) {
        let text = |name: &str| field(name).and_then(Value::scalar).unwrap_or_default();
        let [from, to, direction] = ["from", "to", "direction"].map(text);
        self.ends = super::Ends { from, to, direction };
    }

    /// Reads the user's parameters: an object of texts, or any other value, kept as JSON text.
    #[inline(never)]
    pub(super) fn read_parameters(&mut self, key: &'static str, value: Option<Value<'t>>) {
        match value {
            None | Some(Value::Null | Value::String("")) => {}
            Some(pairs @ Value::Object(_)) => {
                for (name, value) in pairs.members() {
                    self.add_parameter(Text::new(name), value);
                }
            }
            // PHP and others write an empty map like this.
            Some(list @ Value::Array(_)) if list.elements().next().is_none() => {}
            Some(other) => {
                self.odd_fields = self.odd_fields.saturating_add(1);
                self.add_parameter(Text::new(key), other);
            }
        }
    }

    /// Keeps a parameter, or counts it if [`PARAMETERS_MAX`](super::PARAMETERS_MAX) are already kept.
    pub(super) fn add_parameter(&mut self, name: Text<'t>, value: Value<'t>) {
        if !matches!(value, Value::String(_)) {
            self.odd_fields = self.odd_fields.saturating_add(1);
        }
        if self.parameters.push((name, value.text())).is_err() {
            self.parameters_dropped = self.parameters_dropped.saturating_add(1);
        }
    }
}

/// The track named `name`; TwiML, the REST API and DTMF messages append `_track`.
pub(super) fn track(name: &str) -> Option<Track> {
    match name {
        "inbound" | "inbound_track" => Some(Track::Inbound),
        "outbound" | "outbound_track" => Some(Track::Outbound),
        _ => None,
    }
}
