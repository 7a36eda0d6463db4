//! Bounds of a call's texts. They come from the wire, and a live call keeps them in memory, in its
//! record and in the API.
//!
//! All figures are bytes of JSON. A text is never shorter in JSON than in memory; if it is full of
//! control characters, it is six times as long.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The most that a record's ids, parameters, ends of the call, keys, marks and gaps take together.
pub(crate) const TEXTS_BYTES_MAX: usize = 64 * 1024;

/// The longest id, and the longest name of a parameter.
pub(crate) const ID_BYTES_MAX: usize = 256;

/// The most that all parameters take together.
const PARAMETERS_BYTES_MAX: usize = 32 * 1024;

/// The most that a list of calls shows of one call's parameters together, and of one name or value.
const BRIEF_BYTES_MAX: usize = 512;
const BRIEF_TEXT_BYTES_MAX: usize = 96;

/// Bytes of a parameter's quotes, colon, comma, indentation and line break.
const PARAMETER_FRAME_BYTES: usize = 14;

/// The parts of a cut text's mark before the length of the whole text, and before its digest.
const CUT: &str = "…[cut: ";
const DIGEST: &str = " bytes, sha256 ";

/// Hexadecimal digits of that digest.
const DIGEST_DIGITS: usize = 32;

/// The longest such mark.
const MARK_BYTES_MAX: usize = CUT.len() + 7 + DIGEST.len() + DIGEST_DIGITS + 1;

/// The bytes that a text takes in JSON, without its quotes.
pub(crate) fn json_bytes(text: &str) -> usize {
    text.bytes().map(json_bytes_of).sum()
}

const fn json_bytes_of(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0C => 2,
        0..0x20 => 6,
        _ => 1,
    }
}

/// The longest beginning of a text that takes at most `bytes_max` bytes in JSON.
fn head(text: &str, bytes_max: usize) -> &str {
    let mut bytes = 0;
    let mut is_too_much = |byte| {
        bytes += json_bytes_of(byte);
        bytes > bytes_max
    };
    let end = text.bytes().position(&mut is_too_much).unwrap_or(text.len());
    &text[..text.floor_char_boundary(end)]
}

/// The text as it is if it takes at most `bytes_max` bytes. Else its beginning and a mark: the length of
/// the whole text and the first digits of its SHA-256. Adds 1 to `cut` if the text is cut.
pub(crate) fn bounded(mut text: String, bytes_max: usize, cut: &mut u64) -> String {
    if json_bytes(&text) > bytes_max {
        let digest = digest(&text);
        let kept = head(&text, bytes_max.saturating_sub(MARK_BYTES_MAX));
        text = format!("{kept}{CUT}{}{DIGEST}{digest}]", text.len());
        *cut += 1;
    }
    // Every live call has these in memory: keep no spare capacity.
    text.shrink_to_fit();
    text
}

/// The id, cut to [`ID_BYTES_MAX`].
pub(crate) fn id(text: String) -> String {
    bounded(text, ID_BYTES_MAX, &mut 0)
}

/// The first digits of a text's SHA-256; of a cut text, those of the whole text.
pub(crate) fn digest_of(text: &str) -> String {
    let marked = text.rsplit_once(CUT).and_then(|(_, mark)| mark.strip_suffix(']'));
    let digits = marked.and_then(|mark| Some(mark.split_once(DIGEST)?.1));
    let is_digest = |digits: &&str| {
        digits.len() == DIGEST_DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit())
    };
    digits.filter(is_digest).map_or_else(|| digest(text), str::to_ascii_lowercase)
}

fn digest(text: &str) -> String {
    let mut digits = HEXLOWER.encode(&Sha256::digest(text));
    digits.truncate(DIGEST_DIGITS);
    digits
}

/// The beginning of a text, as watchers of a live call see it.
pub(crate) fn brief(text: &str) -> String {
    let kept = head(text, BRIEF_TEXT_BYTES_MAX);
    if kept.len() == text.len() { kept.to_owned() } else { format!("{kept}…") }
}

/// Custom parameters that the user gave a stream, by name. Copies of a record share them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Parameters(Arc<BTreeMap<String, String>>);

impl Parameters {
    /// Takes names and values. If they take too much together, the longest values are cut to one
    /// length, so that short ones stay whole. Adds 1 to `cut` for each name and value that is cut.
    pub fn new(given: impl Iterator<Item = (String, String)>, cut: &mut u64) -> Self {
        let mut all: Vec<(String, String)> =
            given.map(|(name, value)| (bounded(name, ID_BYTES_MAX, cut), value)).collect();
        let names: usize =
            all.iter().map(|(name, _)| json_bytes(name) + PARAMETER_FRAME_BYTES).sum();
        let lengths = all.iter().map(|(_, value)| json_bytes(value)).collect();
        let value_max = level(lengths, PARAMETERS_BYTES_MAX.saturating_sub(names));
        for (_, value) in &mut all {
            *value = bounded(std::mem::take(value), value_max, cut);
        }
        Self(Arc::new(all.into_iter().collect()))
    }

    /// Removes a parameter and returns its value.
    pub fn remove(&mut self, name: &str) -> Option<String> {
        self.0.contains_key(name).then(|| Arc::make_mut(&mut self.0).remove(name)).flatten()
    }

    /// The parameters as a list of calls shows them, and the number of those that are cut or left out.
    pub fn brief(&self) -> (Self, u64) {
        let (mut shown, mut bytes, mut left_out) = (BTreeMap::new(), 0, 0);
        for (name, value) in self.iter() {
            let (brief_name, brief_value) = (brief(name), brief(value));
            let takes = json_bytes(&brief_name) + json_bytes(&brief_value) + PARAMETER_FRAME_BYTES;
            let is_whole = brief_name == *name && brief_value == *value;
            let fits = bytes + takes <= BRIEF_BYTES_MAX;
            left_out += u64::from(!is_whole || !fits);
            if fits {
                bytes += takes;
                shown.insert(brief_name, brief_value);
            }
        }
        if left_out == 0 { (self.clone(), 0) } else { (Self(Arc::new(shown)), left_out) }
    }

    /// The bytes that all parameters take in JSON.
    pub fn json_bytes(&self) -> usize {
        let one = |(name, value): (&String, &String)| json_bytes(name) + json_bytes(value);
        self.iter().map(one).sum::<usize>() + self.len() * PARAMETER_FRAME_BYTES
    }
}

impl Deref for Parameters {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Serialize for Parameters {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_ref().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(deserializer).map(|all| Self(Arc::new(all)))
    }
}

/// The length to which longer ones must be cut so that all of `lengths` together are `sum` at most.
fn level(mut lengths: Vec<usize>, mut sum: usize) -> usize {
    lengths.sort_unstable();
    for (index, length) in lengths.iter().enumerate() {
        let share = sum / (lengths.len() - index);
        if *length > share {
            return share;
        }
        sum -= length;
    }
    usize::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_in_json_is_what_serde_writes() {
        let all: String = (0..0x300).filter_map(char::from_u32).chain(['\u{1F600}']).collect();
        assert_eq!(json_bytes(&all) + 2, serde_json::to_string(&all).unwrap().len());
    }

    #[test]
    fn a_cut_text_is_no_longer_than_it_may_be_and_names_the_whole() {
        for unit in ["a", "ä", "\u{1F480}", "\0", "\""] {
            let long = unit.repeat(10_000);
            let mut cut = 0;
            let kept = bounded(long.clone(), ID_BYTES_MAX, &mut cut);
            assert!(json_bytes(&kept) <= ID_BYTES_MAX && kept.starts_with(unit), "{kept}");
            assert_eq!((cut, digest_of(&kept)), (1, digest(&long)));
            // A text that was cut is not cut again.
            assert_eq!(bounded(kept.clone(), ID_BYTES_MAX, &mut cut), kept);
            assert_eq!(cut, 1);
        }
        assert_eq!(id("CA1".to_owned()), "CA1");
    }

    #[test]
    fn long_parameters_cost_short_ones_nothing() {
        let given = |pairs: &[(&str, usize)]| {
            let pairs: Vec<_> =
                pairs.iter().map(|(name, n)| ((*name).to_owned(), "x".repeat(*n))).collect();
            let mut cut = 0;
            (Parameters::new(pairs.into_iter(), &mut cut), cut)
        };
        let (all, cut) = given(&[("a", 200_000), ("b", 500), ("c", 20_000), ("d", 0)]);
        assert_eq!((cut, all["b"].len()), (2, 500));
        assert!(all["a"].len() > 16_000 && all["a"].len().abs_diff(all["c"].len()) < 10);
        assert!(all["c"].contains("20000 bytes") && all.json_bytes() <= PARAMETERS_BYTES_MAX);
        let (all, cut) = given(&[("a", 30_000), ("b", 500)]);
        assert_eq!((cut, all["a"].len(), all["b"].len()), (0, 30_000, 500));
        let names: Vec<String> = (0..32).map(|n| format!("{n}{}", "n".repeat(8000))).collect();
        let pairs: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 8000)).collect();
        let (all, cut) = given(&pairs);
        assert_eq!((cut, all.len()), (64, 32));
        assert!(all.json_bytes() <= PARAMETERS_BYTES_MAX && all.values().all(|v| v.len() > 300));
    }

    #[test]
    fn a_brief_view_has_a_few_hundred_bytes_and_says_what_it_lacks() {
        let short = |n: usize| (format!("name{n}"), "value".to_owned());
        let all = Parameters::new((0..10).map(short), &mut 0);
        assert_eq!(all.brief(), (all.clone(), 0));
        let all = Parameters::new((0..32).map(|n| (format!("{n}"), "\0".repeat(1000))), &mut 0);
        let (brief, left_out) = all.brief();
        assert!(brief.json_bytes() <= BRIEF_BYTES_MAX && brief.len() >= 3);
        assert_eq!(left_out, 32);
    }
}
