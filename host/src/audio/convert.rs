//! Audio in another format.

use callreel_core::format::{Codec, Format};
use callreel_core::g711::{encode_alaw, encode_mulaw};

/// Writes a sample in a codec, into as many bytes as it takes there. G.722 has two samples a byte: nothing is
/// written.
pub(crate) fn encode(value: i16, codec: Codec, sample: &mut [u8]) {
    match codec {
        Codec::L16Le => sample.copy_from_slice(&value.to_le_bytes()),
        Codec::L16Be => sample.copy_from_slice(&value.to_be_bytes()),
        Codec::Alaw => sample.fill(encode_alaw(value)),
        Codec::Mulaw => sample.fill(encode_mulaw(value)),
        // It has two samples a byte.
        Codec::G722 => {}
    }
}

/// Audio of one format in another one, with samples on the straight lines between its samples.
pub(crate) fn converted(bytes: &[u8], from: Format, to: Format) -> Vec<u8> {
    let mut samples = vec![0; bytes.len() / from.codec.width()];
    from.codec.decode(bytes, &mut samples);
    let (near, far) = (u64::from(from.sample_rate_hz), u64::from(to.sample_rate_hz));
    let Some(&last) = samples.last() else { return Vec::new() };
    let width = to.codec.width();
    let mut out = vec![0; (samples.len() as u64 * far / near.max(1)) as usize * width];
    for (at, sample) in (0..).zip(out.chunks_exact_mut(width)) {
        let (place, fraction) = ((at * near / far) as usize, (at * near % far) as i64);
        let [before, after] =
            [place, place + 1].map(|place| i64::from(*samples.get(place).unwrap_or(&last)));
        let value = before + (after - before) * fraction / far as i64;
        encode(value as i16, to.codec, sample);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audio_of_another_rate_is_taken_to_that_of_the_stream() {
        let wide = Format { codec: Codec::L16Le, sample_rate_hz: 16_000 };
        let narrow = Format { codec: Codec::L16Be, sample_rate_hz: 8000 };
        assert_eq!(converted(&[0, 10, 0, 20], narrow, wide), [10, 0, 15, 0, 20, 0, 20, 0]);
        assert_eq!(converted(&[10, 0, 15, 0, 20, 0, 20, 0], wide, narrow), [0, 10, 0, 20]);
        assert!(converted(&[], narrow, wide).is_empty());
    }
}
