//! Constant-time base64 decoding, many characters at once.
//!
//! `base64ct` decodes one character at a time and would be the largest cost of a media frame: 5 800
//! instructions for a Twilio payload on baseline x86-64. This module does the same arithmetic on as many
//! characters as a register holds: with the compiler's SIMD where there is any, else on the four bytes
//! of a word. Tests compare both with `base64ct`.

use core::cell::Cell;

const GROUP_CHARS: usize = 4;
const GROUP_BYTES: usize = 3;

/// Whether the compiler turns a loop over bytes into SIMD: nearly all 64-bit machines have it.
const HAS_SIMD: bool = cfg!(target_pointer_width = "64");

/// Decodes a whole text in place; `None` if it is not base64: standard alphabet, padded, no blanks, no
/// stray bits (RFC 4648, section 4).
///
/// No branch and no address depends on a character, except on padding in the last two. After an error
/// the text holds garbage.
#[cfg(not(feature = "lenient"))]
pub(crate) fn decode_in_place(text: &mut [u8]) -> Option<&[u8]> {
    if HAS_SIMD { decode_by_bytes(text) } else { decode_by_words(text) }
}

/// Decodes a whole text in UTF-8 in place, also without padding and in the alphabet for URLs (RFC 4648,
/// section 5); `None` if it is not base64: blanks, stray bits, padding in part. Sets `is_odd` if it
/// differs from the standard alphabet with padding (section 4).
///
/// No branch and no address depends on a character, except on padding in the last two, and on which of the
/// alphabets the text needs. After an error the text holds garbage.
#[cfg(feature = "lenient")]
pub(crate) fn decode_any_in_place<'t>(text: &'t mut [u8], is_odd: &mut bool) -> Option<&'t [u8]> {
    if HAS_SIMD { decode_any_by_bytes(text, is_odd) } else { decode_any_by_words(text, is_odd) }
}

/// The decoder for machines with SIMD.
#[cfg(any(not(feature = "lenient"), test))]
#[inline]
pub(crate) fn decode_by_bytes(text: &mut [u8]) -> Option<&[u8]> {
    decode(text, |text| by_bytes(text, |_| true))
}

/// The decoder for machines without SIMD.
#[cfg(any(not(feature = "lenient"), test))]
#[inline]
pub(crate) fn decode_by_words(text: &mut [u8]) -> Option<&[u8]> {
    decode(text, by_words)
}

/// The decoder of all spellings for machines with SIMD.
#[cfg(any(feature = "lenient", test))]
#[inline]
pub(crate) fn decode_any_by_bytes<'t>(text: &'t mut [u8], is_odd: &mut bool) -> Option<&'t [u8]> {
    if !text.len().is_multiple_of(GROUP_CHARS) {
        *is_odd = true;
        return decode_unpadded(text, |text| by_bytes(text, take_url_characters));
    }
    let second = |text: &mut [u8]| {
        *is_odd = true;
        take_url_characters(text)
    };
    decode(text, |text| by_bytes(text, second))
}

/// The decoder of all spellings for machines without SIMD.
#[cfg(any(feature = "lenient", test))]
#[inline]
pub(crate) fn decode_any_by_words<'t>(text: &'t mut [u8], is_odd: &mut bool) -> Option<&'t [u8]> {
    if !text.len().is_multiple_of(GROUP_CHARS) {
        *is_odd = true;
        return decode_unpadded(text, |text| {
            spell_usually(text);
            by_words(text)
        });
    }
    *is_odd |= spell_usually(text);
    decode(text, by_words)
}

/// Decodes text that lacks the padding of its last group.
#[cfg(any(feature = "lenient", test))]
#[cold]
fn decode_unpadded(text: &mut [u8], groups: impl Fn(&mut [u8]) -> bool) -> Option<&[u8]> {
    let (whole, rest) = text.split_at_mut_checked(text.len() / GROUP_CHARS * GROUP_CHARS)?;
    // One character alone is no byte.
    let count = rest.len().checked_sub(1).filter(|count| *count > 0)?;
    let mut last = [b'A'; GROUP_CHARS];
    last.iter_mut().zip(rest).for_each(|(place, char)| *place = *char);
    let is_strange = groups(whole) | groups(&mut last);
    let bytes = whole.len() / GROUP_CHARS * GROUP_BYTES;
    let (decoded, stray) = last.get(..GROUP_BYTES)?.split_at_checked(count)?;
    let stray = stray.iter().fold(0, |all, byte| all | byte);
    text.get_mut(bytes..bytes + count)?.copy_from_slice(decoded);
    let decoded = text.get(..bytes + count)?;
    if is_strange | (stray != 0) { None } else { Some(decoded) }
}

/// Finds the characters of the alphabet for URLs alone among the sextets that [`by_bytes`] has made of the
/// others; returns whether a character is of neither alphabet.
#[cfg(any(feature = "lenient", test))]
#[cold]
fn take_url_characters(sextets: &mut [u8]) -> bool {
    let mut all = MARK;
    for sextet in sextets {
        let step = |char: u8, value: u8| {
            if *sextet == char { (MARK | value).wrapping_sub(char) } else { 0 }
        };
        *sextet = sextet.wrapping_add(step(b'-', 62)).wrapping_add(step(b'_', 63));
        all &= *sextet;
    }
    // No ASCII has the mark, and of a longer character only the first byte.
    all != MARK
}

/// Spells the characters of the alphabet for URLs alone as the usual one does; returns whether there were
/// any.
#[cfg(any(feature = "lenient", test))]
fn spell_usually(text: &mut [u8]) -> bool {
    let mut found = 0;
    for char in text {
        let step = |url: u8, usual: u8| if *char == url { url ^ usual } else { 0 };
        let change = step(b'-', b'+') | step(b'_', b'/');
        *char ^= change;
        found |= change;
    }
    found != 0
}

/// Decodes with `groups`, which decodes text without padding and returns whether a character was
/// invalid.
#[inline(always)]
fn decode(text: &mut [u8], groups: impl FnOnce(&mut [u8]) -> bool) -> Option<&[u8]> {
    if !text.len().is_multiple_of(GROUP_CHARS) {
        return None;
    }
    let bytes = text.len() / GROUP_CHARS * GROUP_BYTES;
    // Padding becomes zero bits; the stray bits beside it must be zero as well.
    let padding = match text {
        [.., last_but_one @ b'=', last @ b'='] => {
            (*last_but_one, *last) = (b'A', b'A');
            2
        }
        [.., last @ b'='] => {
            *last = b'A';
            1
        }
        _ => 0,
    };
    let is_strange = groups(text);
    let (decoded, stray) = text.get(..bytes)?.split_at_checked(bytes - padding)?;
    let stray = stray.iter().fold(0, |all, byte| all | byte);
    // The result is not secret, so a branch may depend on it.
    if is_strange | (stray != 0) { None } else { Some(decoded) }
}

/// The bits that are set in the sextets of valid characters, and in no text in UTF-8 in every byte; [`pack`]
/// passes over them.
const MARK: u8 = 0xC0;

/// Decodes groups step by step, each step in a loop that the compiler turns into SIMD. If a character is
/// invalid, `second` looks at the sextets, each with the [`MARK`]; invalid characters are still there. It
/// returns whether they stay invalid.
#[inline(always)]
fn by_bytes(text: &mut [u8], second: impl FnOnce(&mut [u8]) -> bool) -> bool {
    let mut least = u8::MAX;
    for char in &mut *text {
        // The distance from the character to its sextet if it is in this range, else zero.
        let step = |first: u8, count: u8, sextet: u8| {
            if char.wrapping_sub(first) < count { (MARK | sextet).wrapping_sub(first) } else { 0 }
        };
        let step = step(b'A', 26, 0)
            .wrapping_add(step(b'a', 26, 26))
            .wrapping_add(step(b'0', 10, 52))
            .wrapping_add(step(b'+', 1, 62))
            .wrapping_add(step(b'/', 1, 63));
        least = least.min(step);
        *char = char.wrapping_add(step);
    }
    let mut is_strange = false;
    if least == 0 {
        is_strange = second(text);
    }
    for group in text.as_chunks_mut().0 {
        *group = pack(u32::from_le_bytes(*group)).to_ne_bytes();
    }
    each_group(text, u32::from_ne_bytes);
    is_strange
}

/// Decodes groups one by one, four characters in a word.
#[inline(always)]
fn by_words(text: &mut [u8]) -> bool {
    let mut strange = 0;
    each_group(text, |group| {
        let (sextets, bad) = sextets(u32::from_le_bytes(group));
        strange |= bad;
        pack(sextets)
    });
    strange & HIGH != 0
}

/// Replaces each group by the three highest bytes of the word that `work` returns, without spaces
/// between.
#[inline(always)]
fn each_group(text: &mut [u8], mut work: impl FnMut([u8; GROUP_CHARS]) -> u32) {
    let text = Cell::from_mut(text).as_slice_of_cells();
    let groups = text.as_chunks::<GROUP_CHARS>().0;
    // The bytes written lie before the bytes still to be read.
    for (group, place) in groups.iter().zip(text.as_chunks::<GROUP_BYTES>().0) {
        let bytes = work(group.each_ref().map(Cell::get)).to_be_bytes();
        place.iter().zip(bytes).for_each(|(place, byte)| place.set(byte));
    }
}

/// Packs the low six bits of four bytes, the first lowest, into three bytes, the first highest.
#[inline(always)]
const fn pack(sextets: u32) -> u32 {
    let twelves = (sextets & 0x003F_003F) << 6 | (sextets >> 8) & 0x003F_003F;
    twelves << 20 | (twelves >> 16) << 8
}

/// A word with `byte` in each of its four bytes.
const fn each(byte: u8) -> u32 {
    u32::MAX / 255 * byte as u32
}

const HIGH: u32 = each(0x80);

/// The sextet of each character, in the low bits of its byte; and a second word, with the high bit of a
/// byte set for each invalid character.
#[inline(always)]
const fn sextets(word: u32) -> (u32, u32) {
    let chars = word & !HIGH;
    let (slash, zero) = (reaches(chars, b'/'), reaches(chars, b'0'));
    let (upper, lower) = (reaches(chars, b'A'), reaches(chars, b'a'));
    // Valid characters: `+`, `/` to `9`, `A` to `Z`, `a` to `z`. Each of them reaches an odd number of
    // these limits.
    let inside = reaches(chars, b'+') ^ reaches(chars, b',') ^ slash ^ reaches(chars, b':');
    let inside = inside ^ upper ^ reaches(chars, b'[') ^ lower ^ reaches(chars, b'{');
    // `+` becomes 62. At each further limit the difference shrinks: by 3 at `/`, by 12 at `0`, by 69 at
    // `A` (of which 64 do not count), by 6 at `a`.
    let (slash, zero, upper, lower) = (one(slash), one(zero), one(upper), one(lower));
    let thirds = slash + (zero << 2) + (lower << 1);
    let sextets = chars + each(62 - b'+') - thirds - (thirds << 1) - upper - (upper << 2);
    (sextets, !inside | word)
}

/// Sets the high bit of each byte with a 7-bit character of at least `low`.
#[inline(always)]
const fn reaches(chars: u32, low: u8) -> u32 {
    chars + each(0x80 - low)
}

/// One in each byte that has its high bit set.
#[inline(always)]
const fn one(reached: u32) -> u32 {
    (reached >> 7) & each(1)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use base64ct::{Base64, Encoding as _};

    use super::*;

    fn agree(text: &[u8]) {
        let mut buffer = std::vec![0; text.len()];
        let expected = Base64::decode(text, &mut buffer).ok();
        for decode in [decode_by_bytes, decode_by_words] {
            let mut in_place = Vec::from(text);
            assert_eq!(decode(&mut in_place), expected, "{text:?}");
        }
    }

    /// Both decoders of all spellings against `base64ct`'s of each.
    fn agree_on_any(text: &[u8]) {
        use base64ct::{Base64Unpadded, Base64Url, Base64UrlUnpadded};
        let mut buffer = std::vec![0; text.len()];
        let usual = Base64::decode(text, &mut buffer).ok().map(Vec::from);
        let mut other = |decode: fn(&[u8], &mut [u8]) -> Option<Vec<u8>>| decode(text, &mut buffer);
        let others = [
            other(|text, buffer| Base64Url::decode(text, buffer).ok().map(Vec::from)),
            other(|text, buffer| Base64Unpadded::decode(text, buffer).ok().map(Vec::from)),
            other(|text, buffer| Base64UrlUnpadded::decode(text, buffer).ok().map(Vec::from)),
        ];
        let expected = match (usual, others.into_iter().flatten().next()) {
            (Some(usual), _) => Some((usual, false)),
            (None, other) => other.map(|other| (other, true)),
        };
        for decode in [decode_any_by_bytes, decode_any_by_words] {
            let (mut in_place, mut is_odd) = (Vec::from(text), false);
            let decoded = decode(&mut in_place, &mut is_odd).map(Vec::from);
            let decoded = decoded.map(|bytes| (bytes, is_odd));
            assert_eq!(decoded, expected, "{text:?}");
        }
    }

    #[test]
    fn the_other_spellings_are_taken_as_base64ct_takes_them() {
        let bytes: Vec<u8> = (0..100u32).map(|i| (i * i * 7 + i) as u8 | 0xF8).collect();
        for length in (0..bytes.len()).step_by(STEP) {
            let mut text = std::vec![0; 300];
            let text = Base64::encode(&bytes[..length], &mut text).unwrap().as_bytes();
            let url: Vec<u8> = text
                .iter()
                .map(|char| match char {
                    b'+' => b'-',
                    b'/' => b'_',
                    char => *char,
                })
                .collect();
            for text in [text, &url] {
                (0..=text.len()).for_each(|end| agree_on_any(&text[..end]));
                agree_on_any(&[text, b"="].concat());
                agree_on_any(&[text, b" "].concat());
            }
        }
        // In a text of one alphabet alone: any byte at any place.
        let good = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_AA";
        for place in (0..good.len()).step_by(STEP) {
            for byte in (0..0x80).filter(|byte| !matches!(byte, b'+' | b'/')) {
                let mut text = *good;
                text[place] = byte;
                agree_on_any(&text);
                agree_on_any(&text[..64]);
            }
        }
        // And characters of several bytes.
        for character in
            ["\u{80}", "\u{bf}", "\u{ff}", "\u{7ff}", "\u{800}", "\u{ffff}", "\u{10ffff}"]
        {
            for end in [0, 1, 2, 3, 4, 17, 63] {
                agree_on_any(&[&good[..end], character.as_bytes(), &good[end..]].concat());
                agree_on_any(&[&good[..end], character.as_bytes(), b"-_--"].concat());
            }
        }
    }

    #[test]
    fn both_alphabets_in_one_text_are_taken() {
        for decode in [decode_any_by_bytes, decode_any_by_words] {
            let (mut text, mut is_odd) = (*b"+-/_", false);
            assert_eq!(decode(&mut text, &mut is_odd), Some(&[0xFB, 0xEF, 0xFF][..]));
            assert!(is_odd);
        }
    }

    /// Miri, which checks each memory access, runs a sample.
    const STEP: usize = if cfg!(miri) { 41 } else { 1 };

    #[test]
    fn every_byte_at_every_place_is_taken_as_base64ct_takes_it() {
        let good = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/AAAA";
        for place in 0..good.len() {
            for byte in (0..=u8::MAX).step_by(STEP) {
                let mut text = *good;
                text[place] = byte;
                agree(&text);
            }
        }
    }

    #[test]
    fn every_pair_of_bytes_in_a_group_is_taken_as_base64ct_takes_it() {
        for pair in (0..=u16::MAX).step_by(STEP * STEP) {
            let [a, b] = pair.to_be_bytes();
            for group in [[a, b, b'A', b'A'], [b'A', a, b, b'A'], [b'A', b'A', a, b]] {
                agree(&[group, *b"AAAA"].concat());
                agree(&[*b"AAAA", group].concat());
            }
        }
    }

    #[test]
    fn texts_of_every_length_are_taken_as_base64ct_takes_them() {
        let bytes: Vec<u8> = (0..200u32).map(|i| (i * i * 7 + i) as u8).collect();
        for length in (0..bytes.len()).step_by(STEP) {
            let mut text = std::vec![0; 300];
            let text = Base64::encode(&bytes[..length], &mut text).unwrap().as_bytes();
            agree(text);
            (0..text.len()).for_each(|end| agree(&text[..end]));
            agree(&[text, b"="].concat());
            agree(&[text, b"===="].concat());
        }
    }
}
