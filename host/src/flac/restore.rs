//! The WAV again that a FLAC was made of.

use std::io::{BufReader, Read, Write};

use callreel_core::wav;
use flac_codec::decode::FlacSampleReader;
use flac_codec::metadata::Application;

use super::{CODES, Error, size_of_chunk};

/// Writes the WAV that a FLAC of [`encode`](super::encode) was made of, bit for bit. To be compared with the digest
/// of the WAV: the FLAC may have been damaged. Memory does not grow with the length of the file.
///
/// # Errors
/// [`Error::NoWav`]: nothing was written. [`Error::Flac`] and [`Error::Io`]: the content so far is not to be used.
pub fn restore(flac: impl Read, out: &mut dyn Write) -> Result<(), Error> {
    let mut reader = FlacSampleReader::new(BufReader::new(flac))?;
    let blocks = reader.metadata().get_all::<Application>();
    let blocks = blocks.filter(|block| matches!(block.id, Application::RIFF | CODES));
    let chunks: Vec<Vec<u8>> = blocks.map(|block| block.data.clone()).collect();
    let is_data = |chunk: &Vec<u8>| chunk.starts_with(b"data") && chunk.len() == 8;
    let data = chunks.iter().position(is_data).ok_or(Error::NoWav)?;
    let (head, behind) = chunks.split_at(data + 1);
    let (head, size) = (head.concat(), size_of_chunk(&chunks[data]));
    let spec = wav::parse(&head).ok().and_then(|layout| layout.spec()).ok_or(Error::NoWav)?;
    out.write_all(&head)?;
    let (mut samples, mut bytes) = (Vec::new(), Vec::new());
    loop {
        let read = reader.fill_buf()?;
        let count = read.len();
        if count == 0 {
            break;
        }
        samples.clear();
        samples.extend(read.iter().map(|sample| *sample as i16));
        reader.consume(count);
        bytes.resize(count * usize::from(spec.encoding.sample_bytes()), 0);
        spec.encoding.encode(&samples, &mut bytes);
        out.write_all(&bytes)?;
    }
    out.write_all(&vec![0; size % 2])?;
    Ok(behind.iter().try_for_each(|chunk| out.write_all(chunk))?)
}

#[cfg(test)]
mod tests {
    use callreel_core::format::Codec;
    use callreel_core::wav::Encoding;

    use super::super::NEGATIVE_ZERO;

    #[test]
    fn every_code_but_one_has_a_sample_of_its_own() {
        for (codec, encoding) in [(Codec::Alaw, Encoding::Alaw), (Codec::Mulaw, Encoding::Mulaw)] {
            for code in 0..=u8::MAX {
                let (mut sample, mut again) = ([0; 1], [0; 1]);
                codec.decode(&[code], &mut sample);
                encoding.encode(&sample, &mut again);
                let is_lost = encoding == Encoding::Mulaw && code == NEGATIVE_ZERO;
                assert_eq!(again != [code], is_lost, "{encoding:?} {code:#x}");
            }
        }
    }
}
