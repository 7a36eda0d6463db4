//! G.711 mu-law and A-law: one byte a sample on the telephone network, 16-bit linear PCM everywhere
//! else.
//!
//! Source: ITU-T G.711, tables 1a and 2a, with the usual scaling of their 13-bit and 14-bit values to
//! 16 bits; both agree with ffmpeg and SoX on all 256 codes.
//!
//! ```
//! use callreel_core::g711::{decode_alaw, decode_mulaw, encode_alaw, encode_mulaw};
//!
//! assert_eq!((encode_mulaw(1000), encode_alaw(1000)), (0xCE, 0xFA));
//! assert_eq!((decode_mulaw(0xCE), decode_alaw(0xFA)), (988, 1008));
//! ```

/// Sample rate of every G.711 stream, in samples a second.
pub const SAMPLE_RATE_HZ: u32 = 8000;

/// The mu-law code of silence (positive zero; 0x7F, negative zero, decodes to 0 as well).
pub const MULAW_SILENCE: u8 = 0xFF;

/// The A-law code of silence (the smallest positive sample, 8: A-law has no zero).
pub const ALAW_SILENCE: u8 = 0xD5;

/// The bits that A-law inverts, so that silence has many changes of bits on the line.
pub(crate) const ALAW_INVERTED: u8 = 0x55;

/// Added to a magnitude before its segment is found, so that every segment starts at a power of two.
const BIAS: i32 = 0x84;

/// The largest magnitude that can be encoded; louder samples are clipped to it.
const MAGNITUDE_MAX: i32 = 32635;

/// The sample of each mu-law code, computed at compile time.
pub static MULAW_TABLE: [i16; 256] = mulaw_table();

#[expect(clippy::indexing_slicing, reason = "runs in the compiler, which checks the index")]
const fn mulaw_table() -> [i16; 256] {
    let mut table = [0; 256];
    let mut code = 0;
    while code < 256 {
        let inverted = !(code as u8);
        let exponent = (inverted >> 4) & 7;
        let mantissa = (inverted & 15) as i32;
        let magnitude = ((2 * mantissa + 33) << (exponent + 2)) - BIAS;
        table[code] = if inverted & 0x80 == 0 { magnitude } else { -magnitude } as i16;
        code += 1;
    }
    table
}

/// The sample of each A-law code, computed at compile time.
pub static ALAW_TABLE: [i16; 256] = alaw_table();

#[expect(clippy::indexing_slicing, reason = "runs in the compiler, which checks the index")]
const fn alaw_table() -> [i16; 256] {
    let mut table = [0; 256];
    let mut code = 0;
    while code < 256 {
        let bits = code as u8 ^ ALAW_INVERTED;
        let exponent = (bits >> 4) & 7;
        let mantissa = (bits & 15) as i32;
        // The middle of the code's interval. The first two segments have the same step.
        let magnitude = if exponent == 0 {
            (2 * mantissa + 1) << 3
        } else {
            (2 * mantissa + 33) << (exponent + 2)
        };
        table[code] = if bits & 0x80 == 0 { -magnitude } else { magnitude } as i16;
        code += 1;
    }
    table
}

/// Decodes one mu-law code to a 16-bit sample, by table.
#[inline]
#[must_use]
#[expect(clippy::indexing_slicing, reason = "a byte cannot pass the end of 256 entries")]
pub const fn decode_mulaw(code: u8) -> i16 {
    MULAW_TABLE[code as usize]
}

/// Decodes one A-law code to a 16-bit sample, by table.
#[inline]
#[must_use]
#[expect(clippy::indexing_slicing, reason = "a byte cannot pass the end of 256 entries")]
pub const fn decode_alaw(code: u8) -> i16 {
    ALAW_TABLE[code as usize]
}

/// Decodes each mu-law code to the sample at the same index, up to the end of the shorter slice.
///
/// On 64-bit machines this is arithmetic that the compiler turns into SIMD, three times as fast as the
/// table; elsewhere it is the table. The samples are the same.
#[inline]
pub fn decode_mulaw_all(codes: &[u8], samples: &mut [i16]) {
    for (sample, code) in samples.iter_mut().zip(codes) {
        *sample = decode_one_of_many(*code);
    }
}

/// Decodes a code inside a loop over many.
#[inline(always)]
pub(crate) fn decode_one_of_many(code: u8) -> i16 {
    if cfg!(target_pointer_width = "64") { decode_by_float(code) } else { decode_mulaw(code) }
}

/// Decodes a code as a floating-point number: sign, exponent and mantissa.
///
/// Each step is an addition at most, so nothing rounds. Only values depend on the code: no branch, no
/// address.
#[inline(always)]
fn decode_by_float(code: u8) -> i16 {
    /// Changes the exponent's bias to that of an `f32`, appends half a step to the mantissa, and sets
    /// the sign: the number is then minus the sum of magnitude and `BIAS`.
    const NEGATIVE_UNBIASED: u32 = 1 << 31 | (127 + 7) << 23 | 1 << 18;
    /// An `f32` so large that its last bit is worth one: adding it to a whole number leaves that number,
    /// as an integer, in the low bits.
    const WHOLE: f32 = 12_582_912.0;
    let bits = (u32::from(!code & 0x7F) << 19).wrapping_add(NEGATIVE_UNBIASED);
    let negated = f32::from_bits(bits) + (WHOLE + BIAS as f32);
    let negated = negated.to_bits().wrapping_sub(WHOLE.to_bits()).cast_signed();
    // The value always fits. With `clamp`, SIMD narrows eight values in one instruction.
    let negated = negated.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
    // All ones for a positive sample.
    let sign = i16::from(code.cast_signed()) >> 15;
    (negated ^ sign).wrapping_sub(sign)
}

/// Encodes one 16-bit sample to its mu-law code.
///
/// The inverse of [`decode_mulaw`] on every code except 0x7F: its sample, 0, gives 0xFF. Other samples
/// lose the precision that eight bits cannot hold.
#[inline]
#[must_use]
pub const fn encode_mulaw(sample: i16) -> u8 {
    let wide = sample as i32;
    let sign = if wide < 0 { 0x80 } else { 0 };
    let clipped = if wide.abs() > MAGNITUDE_MAX { MAGNITUDE_MAX } else { wide.abs() };
    let biased = (clipped + BIAS) as u32;
    let exponent = (24 - biased.leading_zeros()) as u8;
    let mantissa = (biased >> (exponent + 3)) as u8 & 15;
    !(sign | (exponent << 4) | mantissa)
}

/// Encodes one 16-bit sample to its A-law code.
///
/// The inverse of [`decode_alaw`] on every code. Other samples lose the precision that eight bits
/// cannot hold.
#[inline]
#[must_use]
pub const fn encode_alaw(sample: i16) -> u8 {
    // In 12 bits. A negative sample counts from -1 on, so that both signs have as many codes.
    let (magnitude, sign) = if sample < 0 { (!sample, 0) } else { (sample, 0x80) };
    let magnitude = (magnitude >> 4) as u32;
    // 0 for the first two segments: their codes are their magnitudes.
    let exponent = 27 - (magnitude | 31).leading_zeros();
    let code = (magnitude >> exponent) + (exponent << 4);
    (sign | code as u8) ^ ALAW_INVERTED
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sample of an A-law code, and the code of a sample, in the words of ITU-T G.191's reference.
    fn alaw_by_the_reference(code: u8) -> i16 {
        let bits = code ^ 0x55;
        let segment = i16::from(bits & 0x70) >> 4;
        let mut magnitude = i16::from(bits & 0x0F);
        if segment > 0 {
            magnitude += 16;
        }
        magnitude = (magnitude << 4) + 8;
        if segment > 1 {
            magnitude <<= segment - 1;
        }
        if bits > 127 { magnitude } else { -magnitude }
    }

    fn to_alaw_by_the_reference(sample: i16) -> u8 {
        let mut index = if sample < 0 { !sample >> 4 } else { sample >> 4 };
        if index > 15 {
            let mut exponent = 1;
            while index > 16 + 15 {
                index >>= 1;
                exponent += 1;
            }
            index -= 16;
            index += exponent << 4;
        }
        if sample >= 0 {
            index |= 0x80;
        }
        (index ^ 0x55) as u8
    }

    #[test]
    fn every_alaw_code_and_every_sample_is_that_of_the_reference() {
        for code in 0..=u8::MAX {
            assert_eq!(decode_alaw(code), alaw_by_the_reference(code), "{code:#04x}");
            assert_eq!(encode_alaw(decode_alaw(code)), code);
        }
        for sample in i16::MIN..=i16::MAX {
            assert_eq!(encode_alaw(sample), to_alaw_by_the_reference(sample), "{sample}");
        }
        assert_eq!((encode_alaw(0), decode_alaw(ALAW_SILENCE)), (ALAW_SILENCE, 8));
    }

    #[test]
    fn the_table_has_the_sums_of_the_reference() {
        let sum: i64 = MULAW_TABLE.iter().map(|&s| i64::from(s)).sum();
        let magnitudes: i64 = MULAW_TABLE.iter().map(|&s| i64::from(s).abs()).sum();
        let squares: i64 = MULAW_TABLE.iter().map(|&s| i64::from(s).pow(2)).sum();
        assert_eq!((sum, magnitudes, squares), (0, 1_532_928, 26_310_951_424));
        assert_eq!((decode_mulaw(0x00), decode_mulaw(0x80)), (-32124, 32124));
        assert_eq!((decode_mulaw(0x2A), decode_mulaw(0xAB)), (-5372, 5116));
        assert_eq!((decode_mulaw(0x7F), decode_mulaw(0xFF)), (0, 0));
    }

    #[test]
    fn many_at_once_and_one_by_one_are_the_same_samples() {
        let codes: [u8; 256] = core::array::from_fn(|code| code as u8);
        assert_eq!(codes.map(decode_by_float), MULAW_TABLE);
        // Every length, so that each code is decoded both in a block and behind the last block.
        for count in 0..codes.len() {
            let mut samples = [1; 256];
            decode_mulaw_all(&codes[..count], &mut samples);
            assert_eq!(samples[..count], MULAW_TABLE[..count]);
            assert!(samples[count..].iter().all(|sample| *sample == 1));
        }
    }

    #[test]
    fn every_code_survives_decoding_and_encoding_except_negative_zero() {
        for code in 0..=u8::MAX {
            let expected = if code == 0x7F { MULAW_SILENCE } else { code };
            assert_eq!(encode_mulaw(decode_mulaw(code)), expected, "{code:#04x}");
        }
    }

    #[test]
    fn encoding_keeps_order_and_clips() {
        let decoded = |sample| decode_mulaw(encode_mulaw(sample));
        assert!((i16::MIN..=i16::MAX).is_sorted_by_key(decoded));
        assert_eq!((decoded(i16::MAX), decoded(i16::MIN)), (32124, -32124));
    }
}
