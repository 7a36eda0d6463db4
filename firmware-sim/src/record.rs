//! End records: what is known of a recording, as JSON.

use core::fmt::{self, Write as _};

use callreel_core::frame::{PeerError, Track, Tracks};
use callreel_core::g711::SAMPLE_RATE_HZ;
use callreel_core::names;
use callreel_core::wav::Spec;
use embedded_sdmmc::BlockDevice;
use heapless::String;

use crate::call::{Id, Opening, Origin, Summary};
use crate::clock::Clock;
use crate::fat::{self, File, Volume};

/// Samples of one channel in a millisecond.
pub(crate) const fn samples_a_ms(spec: Spec) -> u32 {
    if cfg!(feature = "formats") { spec.sample_rate_hz / 1000 } else { SAMPLE_RATE_HZ / 1000 }
}

/// An end record on its way to the card. It takes no memory but that of its file; the first error is kept.
pub(crate) struct Text<'v, D: BlockDevice> {
    pub(crate) volume: &'v mut Volume<D>,
    pub(crate) file: &'v mut File,
    pub(crate) result: Result<(), fat::Error<D::Error>>,
}

impl<D: BlockDevice> Text<'_, D> {
    pub(crate) fn finish(self) -> Result<(), fat::Error<D::Error>> {
        self.result?;
        self.volume.flush(self.file)
    }
}

impl<D: BlockDevice> fmt::Write for Text<'_, D> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.result.is_ok() {
            self.result = self.volume.append_all(self.file, text.as_bytes());
        }
        self.result.as_ref().map(drop).map_err(|_| fmt::Error)
    }
}

/// Adds the format and the length of a file.
pub(crate) fn put_content(text: &mut dyn fmt::Write, spec: Spec, samples: u32) {
    let Spec { channels, sample_rate_hz, .. } = spec;
    let _ = write!(
        text,
        r#","format":{{"encoding":"pcm16","sample_rate_hz":{sample_rate_hz},"channels":{channels}}}"#,
    );
    put(text, ",", "samples", samples);
    put(text, ",", "duration_ms", samples / samples_a_ms(spec));
}

/// The maker of end records: this appliance, and its clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct Maker<'a> {
    /// Name of the appliance; empty if it has none.
    pub instance: &'a str,
    /// Its clock.
    pub clock: Clock,
}

/// Name and version of the program, in end records.
pub(crate) const RECORDER: &str = concat!("callreel-appliance ", env!("CARGO_PKG_VERSION"));

/// Whether the first block of an end record names this stream or call.
pub fn is_record_of(block: &[u8], id: &Id) -> bool {
    ["stream_id", "call_id"].into_iter().any(|name| {
        let mut line = String::<60>::new();
        // Fits: the longest name and the longest id.
        let _ = write!(line, r#""{name}":"{id}""#);
        !id.is_empty() && block.windows(line.len()).any(|part| part == line.as_bytes())
    })
}

/// Adds what is known at the start of a recording, each member with a comma. Not inlined: the device has little
/// flash.
#[inline(never)]
pub(crate) fn put_start(text: &mut dyn fmt::Write, opening: &Opening, clock: Clock) {
    put_word(text, "provider", opening.provider().name());
    put_origin(text, &opening.origin);
    if let Some(start) = clock.at(opening.started_ms) {
        let _ = write!(text, r#""started_at":"{start}","#);
    }
    let tracks = match opening.tracks {
        Tracks::Both => r#""inbound","outbound""#,
        Tracks::One(Track::Inbound) => r#""inbound""#,
        Tracks::One(Track::Outbound) => r#""outbound""#,
    };
    let _ = write!(text, r#""tracks":[{tracks}],"#);
}

fn put_origin(text: &mut dyn fmt::Write, origin: &Origin) {
    put_word(text, "stream_id", &origin.stream_id);
    put_word(text, "call_id", &origin.call_id);
    put_word(text, "account_id", &origin.account_id);
    let members = origin.parameters.strip_suffix(',').unwrap_or_default();
    let _ = write!(text, r#""parameters":{{{members}}},"#);
    if origin.parameters_dropped > 0 {
        put(text, "", "parameters_dropped", origin.parameters_dropped);
        let _ = text.write_str(",");
    }
}

/// Adds a field and its text, if it is not empty, and a comma.
#[inline(never)]
pub(crate) fn put_word(text: &mut dyn fmt::Write, name: &str, word: &str) {
    if !word.is_empty() {
        let _ = write!(text, r#""{name}":"{word}","#);
    }
}

impl Summary {
    /// Ends a record with the counts, under the names that they have on a server.
    pub(crate) fn put(&self, text: &mut dyn fmt::Write, samples_a_ms: u32) {
        put(text, ",", names::GAPS_DROPPED, self.gaps);
        put(text, ",", names::FILLED_MS, self.filled / samples_a_ms);
        put(text, ",", names::LOST_MS, self.lost.div_ceil(samples_a_ms));
        let _ = text.write_str(r#","frames":{"rejected":{"#);
        let mut separator = "";
        for (error, count) in PeerError::ALL.iter().zip(self.rejected) {
            if count > 0 {
                put(text, separator, error.name(), count);
                separator = ",";
            }
        }
        let _ = text.write_char('}');
        put(text, ",", names::RECEIVED, self.received);
        put(text, ",", names::LATE, self.late);
        put(text, ",", names::REPEATED, self.repeated);
        put(text, ",", names::MISSING, self.missing);
        let _ = text.write_str("}}\n");
    }
}

/// Adds a field and its number. Not inlined: the device has little flash.
#[inline(never)]
pub(crate) fn put(text: &mut dyn fmt::Write, separator: &str, name: &str, number: u32) {
    let _ = write!(text, r#"{separator}"{name}":{number}"#);
}
