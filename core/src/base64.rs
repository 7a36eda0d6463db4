//! Constant-time base64 decoding, many characters at once.
//!
//! `base64ct` decodes one character at a time and would be the largest cost of a media frame: 5 800
//! instructions of a Twilio payload on baseline x86-64. Here the same arithmetic is done on as many
//! characters as a register holds: by the compiler's SIMD where there is any, on the four bytes of a
//! word where there is none. Tests hold both against `base64ct`.

use core::cell::Cell;

const GROUP_CHARS: usize = 4;
const GROUP_BYTES: usize = 3;

/// Whether the compiler makes SIMD of a loop over bytes: nearly all 64-bit machines have it.
const HAS_SIMD: bool = cfg!(target_pointer_width = "64");

/// Decodes a whole text in place, or tells that it is not base64: standard alphabet, padded, no
/// blanks, no stray bits (RFC 4648, section 4).
///
/// No branch and no address depends on a character, but for whether the last two are padding. After
/// an error the text is rubbish.
pub(crate) fn decode_in_place(text: &mut [u8]) -> Option<&[u8]> {
    if HAS_SIMD { decode_by_bytes(text) } else { decode_by_words(text) }
}

/// The way of machines with SIMD.
#[inline]
pub(crate) fn decode_by_bytes(text: &mut [u8]) -> Option<&[u8]> {
    decode(text, by_bytes)
}

/// The way of those without.
#[inline]
pub(crate) fn decode_by_words(text: &mut [u8]) -> Option<&[u8]> {
    decode(text, by_words)
}

/// Decodes by what decodes groups without padding and says whether a character was strange.
#[inline(always)]
fn decode(text: &mut [u8], groups: fn(&mut [u8]) -> bool) -> Option<&[u8]> {
    if !text.len().is_multiple_of(GROUP_CHARS) {
        return None;
    }
    let bytes = text.len() / GROUP_CHARS * GROUP_BYTES;
    // Padding becomes zeros, which the bits beside it must be as well.
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
    // The verdict is no secret.
    if is_strange | (stray != 0) { None } else { Some(decoded) }
}

/// Decodes groups step by step, each in a loop of a form that the compiler makes SIMD of.
#[inline(always)]
fn by_bytes(text: &mut [u8]) -> bool {
    let mut least = u8::MAX;
    for char in &mut *text {
        // What makes it its sextet if it is one of these, else zero.
        let step = |first: u8, count: u8, sextet: u8| {
            if char.wrapping_sub(first) < count { sextet.wrapping_sub(first) } else { 0 }
        };
        let step = step(b'A', 26, 0)
            .wrapping_add(step(b'a', 26, 26))
            .wrapping_add(step(b'0', 10, 52))
            .wrapping_add(step(b'+', 1, 62))
            .wrapping_add(step(b'/', 1, 63));
        least = least.min(step);
        *char = char.wrapping_add(step);
    }
    for group in text.as_chunks_mut().0 {
        *group = pack(u32::from_le_bytes(*group)).to_ne_bytes();
    }
    each_group(text, u32::from_ne_bytes);
    least == 0
}

/// Decodes groups one after the other, four characters in a word.
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

/// Replaces each group by the three highest bytes of the word that is made of it, one after the other.
#[inline(always)]
fn each_group(text: &mut [u8], mut work: impl FnMut([u8; GROUP_CHARS]) -> u32) {
    let text = Cell::from_mut(text).as_slice_of_cells();
    let groups = text.as_chunks::<GROUP_CHARS>().0;
    // What is written lies before what is still to be read.
    for (group, place) in groups.iter().zip(text.as_chunks::<GROUP_BYTES>().0) {
        let bytes = work(group.each_ref().map(Cell::get)).to_be_bytes();
        place.iter().zip(bytes).for_each(|(place, byte)| place.set(byte));
    }
}

/// Packs the low six bits of four bytes, the first lowest, to three bytes, the first highest.
#[inline(always)]
const fn pack(sextets: u32) -> u32 {
    let twelves = (sextets & 0x003F_003F) << 6 | (sextets >> 8) & 0x003F_003F;
    twelves << 20 | (twelves >> 16) << 8
}

/// A word with this in each of its four bytes.
const fn each(byte: u8) -> u32 {
    u32::MAX / 255 * byte as u32
}

const HIGH: u32 = each(0x80);

/// A sextet in the low bits of each byte for each character, and in the second word a high bit for
/// each that stands for none.
#[inline(always)]
const fn sextets(word: u32) -> (u32, u32) {
    let chars = word & !HIGH;
    let (slash, zero) = (reaches(chars, b'/'), reaches(chars, b'0'));
    let (upper, lower) = (reaches(chars, b'A'), reaches(chars, b'a'));
    // `+`, `/` to `9`, `A` to `Z`, `a` to `z`: a character in one of these reaches an odd number of
    // their limits.
    let inside = reaches(chars, b'+') ^ reaches(chars, b',') ^ slash ^ reaches(chars, b':');
    let inside = inside ^ upper ^ reaches(chars, b'[') ^ lower ^ reaches(chars, b'{');
    // `+` becomes 62; from each of the limits on the difference is smaller: by 3 from `/` on, by 12
    // from `0`, by 69 from `A`, of which 64 do not count, by 6 from `a`.
    let (slash, zero, upper, lower) = (one(slash), one(zero), one(upper), one(lower));
    let thirds = slash + (zero << 2) + (lower << 1);
    let sextets = chars + each(62 - b'+') - thirds - (thirds << 1) - upper - (upper << 2);
    (sextets, !inside | word)
}

/// Tells by the high bit of each byte whether its 7-bit character is `low` or more.
#[inline(always)]
const fn reaches(chars: u32, low: u8) -> u32 {
    chars + each(0x80 - low)
}

/// One in each byte whose high bit is set.
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

    /// Miri, which looks at each memory access, gets through a sample of it.
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
