//! WAV files: their bytes, also after failures of the sink.

use callreel_core::format::Codec;
use callreel_core::g711::{decode_alaw, decode_mulaw, encode_alaw, encode_mulaw};
use callreel_core::wav::{
    DATA_BYTES_MAX, Encoding, Error, HEADER_BYTES_MAX, Length, Spec, Unbegun, Writer, ending,
    header,
};
use embedded_io::{ErrorKind, ErrorType, Seek, SeekFrom, Write};
use proptest::prelude::*;

use crate::harness::oracle::{Wavs, samples};
use crate::harness::recorder::Sink;

mod composer;
mod parse;

const MONO: Spec = Spec { channels: 1, sample_rate_hz: 8000, encoding: Encoding::Pcm16 };
const STEREO: Spec = Spec { channels: 2, ..MONO };
const MULAW: Spec = Spec { encoding: Encoding::Mulaw, ..MONO };
const ALAW: Spec = Spec { encoding: Encoding::Alaw, ..MONO };

#[test]
fn the_bytes_of_a_stream_in_any_format_are_encoded_as_its_samples_are() {
    let codes: Vec<u8> = (0..=255).collect();
    let every: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_be_bytes).collect();
    for codec in [Codec::Alaw, Codec::L16Be, Codec::L16Le, Codec::Mulaw] {
        let bytes = if codec.width() == 1 { &codes } else { &every };
        let mut samples = vec![0; bytes.len() / codec.width()];
        codec.decode(bytes, &mut samples);
        for encoding in [Encoding::Alaw, Encoding::Mulaw, Encoding::Pcm16] {
            let mut expected = vec![0; samples.len() * usize::from(encoding.sample_bytes())];
            encoding.encode(&samples, &mut expected);
            let mut found = vec![0; expected.len()];
            assert_eq!(encoding.encode_wire(codec, bytes, &mut found), samples.len());
            assert!(found == expected, "{codec:?} as {encoding:?}");
            // Half a sample is not read, and a buffer of three bytes takes as much as fits.
            let mut short = [0x55; 3];
            let fitting = 3 / usize::from(encoding.sample_bytes());
            let few = &bytes[..7 * codec.width() + codec.width() - 1];
            assert_eq!(encoding.encode_wire(codec, few, &mut short), fitting);
            let used = fitting * usize::from(encoding.sample_bytes());
            assert_eq!(short[..used], expected[..used], "{codec:?} as {encoding:?}");
            assert!(short[used..].iter().all(|byte| *byte == 0x55));
        }
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.as_chunks().0.iter().map(byte).collect()
}

#[test]
fn the_pcm_header_is_that_of_ffmpeg_bitexact_and_sox() {
    let expected = "52494646 24020000 57415645 666d7420 10000000 0100 0100 401f0000 803e0000 0200
        1000 64617461 00020000";
    assert_eq!(header(MONO, Length::Bytes(512)), hex(expected)[..]);
    // A stream's sizes: whole sample frames, and consistent.
    let expected = "52494646 f4ffffff 57415645 666d7420 10000000 0100 0200 401f0000 007d0000 0400
        1000 64617461 d0ffffff";
    assert_eq!(header(STEREO, Length::Unknown), hex(expected)[..]);
}

#[test]
fn the_mulaw_header_has_an_18_byte_format_and_a_fact() {
    let expected = "52494646 50010000 57415645 666d7420 12000000 0700 0100 401f0000 401f0000 0100
        0800 0000 66616374 04000000 ff000000 64617461 ff000000";
    // 255 bytes and their ending: RIFF counts the ending, data does not.
    assert_eq!(header(MULAW, Length::Bytes(255)), hex(expected)[..]);
    let expected = "52494646 f2ffffff 57415645 666d7420 12000000 0700 0100 401f0000 401f0000 0100
        0800 0000 66616374 04000000 00000000 64617461 c0ffffff";
    assert_eq!(header(MULAW, Length::Unknown), hex(expected)[..]);
    let expected = "52494646 32000000 57415645 666d7420 12000000 0700 0100 401f0000 401f0000 0100
        0800 0000 66616374 04000000 00000000 64617461 00000000";
    assert_eq!(header(MULAW, Length::Bytes(0)), hex(expected)[..]);
    // That of A-law differs in the tag alone.
    let mut alaw = header(MULAW, Length::Bytes(255)).to_vec();
    alaw[20] = 6;
    assert_eq!(header(ALAW, Length::Bytes(255))[..], alaw);
    // The fact counts the samples of one channel.
    let stereo = header(Spec { channels: 2, ..MULAW }, Length::Bytes(300));
    assert_eq!(stereo[46..50], 150u32.to_le_bytes());
}

#[test]
fn a_header_is_as_long_as_its_spec_says_and_its_sizes_never_wrap() {
    for spec in [MONO, STEREO, ALAW, MULAW, Spec { channels: 2, ..MULAW }] {
        for data in [0, 1, 2, 1 << 31, DATA_BYTES_MAX - 1, DATA_BYTES_MAX, u32::MAX] {
            let header = header(spec, Length::Bytes(data));
            assert_eq!(header.len() as u32, spec.header_bytes());
            assert!(header.len() <= HEADER_BYTES_MAX);
            let size = |at: usize| u32::from_le_bytes(*header[at..].first_chunk().unwrap());
            let data = data.min(DATA_BYTES_MAX);
            assert_eq!(size(header.len() - 4), data);
            let audio_end = u64::from(spec.header_bytes()) + u64::from(data);
            assert_eq!(u64::from(size(4)) + 8, audio_end + ending(data).len() as u64);
            let unknown = callreel_core::wav::header(spec, Length::Unknown);
            let unknown = |at: usize| u32::from_le_bytes(*unknown[at..].first_chunk().unwrap());
            assert!(size(4) < unknown(4) && data < unknown(header.len() - 4));
        }
    }
}

#[test]
fn other_tools_read_finished_and_unfinished_files() {
    let codes: Vec<u8> = (0..801).map(|i| i as u8).collect();
    let written: Vec<i16> = codes.iter().map(|code| decode_mulaw(*code)).collect();
    let finished = |spec| {
        let mut writer = Writer::new(Sink::default(), spec).unwrap();
        writer.write(&written).unwrap();
        let by_samples = writer.finish().unwrap().bytes;
        let mut writer = Writer::new(Sink::default(), spec).unwrap();
        codes.chunks(300).for_each(|codes| writer.write_mulaw(codes).unwrap());
        assert_eq!(writer.finish().unwrap().bytes, by_samples);
        by_samples
    };
    let stream = |spec: Spec| {
        let mut bytes = vec![0; codes.len() * usize::from(spec.sample_frame_bytes())];
        spec.encoding.encode(&written, &mut bytes);
        [&header(spec, Length::Unknown)[..], &bytes].concat()
    };
    let (pcm, mulaw) = (finished(MONO), finished(MULAW));
    assert_eq!((pcm.len(), mulaw.len()), (44 + 1602, 58 + 801 + 31));

    let (pcm_stream, mulaw_stream) = (stream(MONO), stream(MULAW));
    let wavs = Wavs::new("wav", [&pcm[..], &mulaw, &pcm_stream, &mulaw_stream]);
    assert!(wavs.ffmpeg().iter().all(|read| *read == written));
    assert_eq!(wavs.sox(), [&written[..]; 4].concat());
    // A-law has other samples: those next to the written ones.
    let wavs = [finished(ALAW), stream(ALAW)];
    let codes = written.iter().map(|sample| encode_alaw(*sample));
    let expected: Vec<i16> = codes.map(decode_alaw).collect();
    let wavs = Wavs::new("wav-alaw", wavs.iter().map(Vec::as_slice));
    assert!(wavs.ffmpeg().iter().all(|read| *read == expected));
    assert_eq!(wavs.sox(), [&expected[..]; 2].concat());
    let wavs = Wavs::new("wav-pcm", [&pcm[..]]);
    assert_eq!((wavs.hound().concat(), wavs.python(1)), (written.clone(), written));
}

#[test]
fn nothing_is_written_past_4_gib() {
    // A sink that only counts, so that the limit is really reached.
    struct Count(u64);
    impl ErrorType for Count {
        type Error = core::convert::Infallible;
    }
    impl Seek for Count {
        fn seek(&mut self, _: SeekFrom) -> Result<u64, Self::Error> {
            Ok(0)
        }
    }
    impl Write for Count {
        fn write(&mut self, data: &[u8]) -> Result<usize, Self::Error> {
            self.0 += data.len() as u64;
            Ok(data.len())
        }
        fn flush(&mut self) -> Result<(), Self::Error> {
            Ok(())
        }
    }
    let mut writer = Writer::new(Count(0), STEREO).unwrap();
    let block = vec![0; 1 << 24];
    let whole = DATA_BYTES_MAX as usize / block.len();
    for _ in 0..whole {
        writer.write_encoded(&block).unwrap();
    }
    assert_eq!(writer.write_encoded(&block), Err(Error::Full));
    assert_eq!(writer.write(&vec![0; block.len() / 2]), Err(Error::Full));
    let rest = (DATA_BYTES_MAX - writer.data_bytes()) as usize / 4 * 4;
    writer.write_encoded(&block[..rest]).unwrap();
    assert_eq!(writer.write(&[0; 2]), Err(Error::Full));
    let data = writer.data_bytes();
    assert!(data <= DATA_BYTES_MAX && DATA_BYTES_MAX - data < 4);
    // Chunks that do not fit are not written either; the file is completed without them.
    assert_eq!(writer.seal_with(&[0; 100]), Err(Error::Full));
    assert_eq!(writer.into_sink().0, 44 + u64::from(data));
}

/// A file in memory. Its operation number `fails_at` fails, a write after half of its bytes.
#[derive(Default)]
struct Failing {
    file: Sink,
    operations: usize,
    fails_at: Option<usize>,
}

impl Failing {
    fn operate(&mut self) -> Result<(), ErrorKind> {
        let fails = self.fails_at == Some(self.operations);
        self.operations += 1;
        if fails { Err(ErrorKind::Other) } else { Ok(()) }
    }
}

impl ErrorType for Failing {
    type Error = ErrorKind;
}

impl Write for Failing {
    fn write(&mut self, data: &[u8]) -> Result<usize, ErrorKind> {
        let result = self.operate();
        let data = if result.is_err() { &data[..data.len() / 2] } else { data };
        let Ok(count) = self.file.write(data);
        result.map(|()| count)
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        self.operate()
    }
}

impl Seek for Failing {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, ErrorKind> {
        self.operate()?;
        let Ok(position) = self.file.seek(to);
        Ok(position)
    }
}

#[test]
fn whatever_operation_fails_the_audio_before_it_stays_in_place() {
    let block = |index: i16| vec![index * 100 + 1; 50];
    // Writes blocks, with a checkpoint after every second one, repeated if it fails; returns the sink,
    // the number of blocks written and whether an operation failed.
    let record = |fails_at: Option<usize>| {
        let mut sink = Failing { fails_at, ..Failing::default() };
        let mut blocks = 0;
        let mut failed = false;
        if let Ok(mut writer) = Writer::new(&mut sink, MONO) {
            for index in 0..4 {
                match writer.write(&block(index)) {
                    Ok(()) => blocks += 1,
                    Err(error) => {
                        assert_eq!(error, Error::Sink(ErrorKind::Other));
                        failed = true;
                        break;
                    }
                }
                if index % 2 == 1 && writer.checkpoint().is_err() {
                    failed = true;
                    writer.checkpoint().unwrap();
                }
            }
        } else {
            failed = true;
        }
        (sink, blocks, failed)
    };
    let (sink, blocks, failed) = record(None);
    assert_eq!((blocks, failed), (4, false));
    for fails_at in 0..sink.operations {
        let (sink, blocks, failed) = record(Some(fails_at));
        assert!(failed, "the failure of operation {fails_at} was hidden");
        let expected: Vec<i16> = (0..blocks).flat_map(block).collect();
        let bytes = sink.file.bytes;
        let data = samples(&bytes[bytes.len().min(44)..]);
        assert!(data.starts_with(&expected), "operation {fails_at}");
    }
}

#[test]
fn a_sink_that_fails_while_a_file_is_finished_says_so() {
    for spec in [MONO, MULAW] {
        let finish = |fails_at: Option<usize>| {
            let sink = Failing { fails_at, ..Failing::default() };
            let mut writer = Writer::new(sink, spec).unwrap();
            writer.write(&[1, 2, 3]).unwrap();
            writer.finish()
        };
        let operations = finish(None).ok().unwrap().operations;
        // The header and the samples took two operations.
        for fails_at in 2..operations {
            assert_eq!(finish(Some(fails_at)).err(), Some(Error::Sink(ErrorKind::Other)));
        }
    }
}

#[test]
fn what_fails_may_be_tried_again_until_the_file_is_whole() {
    let cases =
        [(MONO, 200, &[][..]), (MULAW, 201, &[]), (MONO, 200, &CHUNKS), (MULAW, 201, &CHUNKS)];
    for (spec, samples, chunks) in cases {
        let written: Vec<i16> = (0..samples).collect();
        // Fails once, at operation `fails_at`; returns the sink and the number of failures.
        let record = |fails_at: Option<usize>| {
            let mut sink = Failing { fails_at, ..Failing::default() };
            let mut writer = Writer::new(&mut sink, spec).unwrap();
            writer.write(&written).unwrap();
            let mut failures = 0;
            while writer.checkpoint().is_err() {
                failures += 1;
            }
            while writer.seal_with(chunks).is_err() {
                failures += 1;
            }
            (sink, failures)
        };
        let (whole, failures) = record(None);
        assert_eq!(failures, 0);
        // The header and the samples took two operations.
        for fails_at in 2..whole.operations {
            let (sink, failures) = record(Some(fails_at));
            assert_eq!(failures, 1, "the failure of operation {fails_at} was hidden");
            assert!(sink.file.bytes == whole.file.bytes, "operation {fails_at}");
        }
    }
}

#[test]
fn after_a_failed_write_nothing_is_written_before_a_checkpoint_succeeds() {
    let written: Vec<i16> = (1..2001).collect();
    let begin = |fails_at: usize| {
        let sink = Failing { fails_at: Some(fails_at), ..Failing::default() };
        Writer::new(sink, MONO).unwrap()
    };
    let whole = {
        let mut writer = begin(usize::MAX);
        writer.write(&written).unwrap();
        writer.finish().unwrap()
    };
    // The header took one operation.
    for fails_at in 1..whole.operations {
        let mut writer = begin(fails_at);
        let mut rest = &written[..];
        // As a recorder does: after an error a checkpoint, then the samples not yet in the file.
        while let Err(error) = writer.write(rest).and_then(|()| writer.checkpoint()) {
            assert_eq!(error, Error::Sink(ErrorKind::Other));
            let before = writer.data_bytes();
            assert_eq!(writer.write(&[-1]), Err(Error::Adrift));
            assert_eq!(writer.write_mulaw(&[0]), Err(Error::Adrift));
            assert_eq!(writer.write_encoded(&[0; 2]), Err(Error::Adrift));
            assert_eq!(writer.data_bytes(), before);
            writer.checkpoint().unwrap();
            rest = &written[before as usize / 2..];
        }
        writer.seal().unwrap();
        assert!(writer.into_sink().file.bytes == whole.file.bytes, "operation {fails_at}");
    }
}

/// A file in memory, and its contents after each write.
#[derive(Default)]
struct Watched {
    file: Sink,
    instants: Vec<Vec<u8>>,
}

impl ErrorType for Watched {
    type Error = core::convert::Infallible;
}

impl Write for Watched {
    fn write(&mut self, data: &[u8]) -> Result<usize, Self::Error> {
        let count = self.file.write(data)?;
        self.instants.push(self.file.bytes.clone());
        Ok(count)
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

impl Seek for Watched {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, Self::Error> {
        self.file.seek(to)
    }
}

/// A `cue ` chunk with one point, and a label for it.
const CHUNKS: [u8; 54] =
    *b"cue \x1C\0\0\0\x01\0\0\0\x01\0\0\0\x64\0\0\0data\0\0\0\0\0\0\0\0\x64\0\0\0\
    LIST\x0A\0\0\0adtl\0\0\0\0\0\0";

#[test]
fn no_instant_of_a_file_announces_more_than_there_is_nor_ever_an_unknown_size() {
    for (spec, samples) in [(MONO, 200), (STEREO, 200), (MULAW, 201), (MULAW, 200), (MULAW, 0)] {
        for chunks in [&CHUNKS[..], &[]] {
            let mut writer = Writer::new(Watched::default(), spec).unwrap();
            for _ in 0..3 {
                writer.write(&vec![1000; samples]).unwrap();
                writer.checkpoint().unwrap();
            }
            let data_bytes = writer.data_bytes();
            writer.seal_with(chunks).unwrap();
            let Watched { file, instants } = writer.into_sink();
            let size = |bytes: &[u8], at| u32::from_le_bytes(*bytes[at..].first_chunk().unwrap());
            let data_at = spec.header_bytes() as usize - 4;
            for instant in &instants {
                let (riff, data) = (size(instant, 4) as usize, size(instant, data_at) as usize);
                assert!(riff + 8 <= instant.len(), "{spec:?}: {riff} of {}", instant.len());
                assert!(data + data_at + 4 <= riff + 8, "{spec:?}: {data} of {riff}");
                if spec.encoding == Encoding::Mulaw {
                    assert_eq!(size(instant, 46) as usize, data);
                }
            }
            assert_eq!(instants[0], header(spec, Length::Bytes(0))[..]);
            let behind = &file.bytes[data_at + 4 + data_bytes as usize..];
            let expected = match chunks {
                _ if data_bytes == 0 => vec![],
                [] => ending(data_bytes).to_vec(),
                chunks => [&[0][..data_bytes as usize % 2], chunks].concat(),
            };
            assert_eq!(behind, expected);
            assert_eq!(size(&file.bytes, 4) as usize + 8, file.bytes.len());
        }
    }
}

#[test]
fn a_file_is_gone_on_with_where_its_samples_end() {
    let written: Vec<i16> = (0..201).collect();
    let whole = |spec| {
        let mut writer = Writer::new(Sink::default(), spec).unwrap();
        writer.write(&written).unwrap();
        writer.finish().unwrap().bytes
    };
    for spec in [MONO, MULAW] {
        let mut writer = Writer::new(Sink::default(), spec).unwrap();
        writer.write(&written[..101]).unwrap();
        let data_bytes = writer.data_bytes();
        let mut writer = Writer::resume(writer.into_sink(), spec, data_bytes);
        assert_eq!(writer.write(&[1]), Err(Error::Adrift));
        writer.checkpoint().unwrap();
        writer.write(&written[101..]).unwrap();
        assert_eq!(writer.finish().unwrap().bytes, whole(spec));
    }
}

/// A sink that reports the same count for each write.
#[derive(Debug)]
struct Liar(usize);

impl ErrorType for Liar {
    type Error = ErrorKind;
}

impl Write for Liar {
    fn write(&mut self, _: &[u8]) -> Result<usize, ErrorKind> {
        Ok(self.0)
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

#[test]
fn a_sink_that_takes_nothing_is_an_error_and_one_that_takes_too_much_is_believed() {
    let Unbegun { error, sink } = Writer::new(Liar(0), MONO).unwrap_err();
    assert_eq!((error, sink.0), (Error::Zero, 0), "the sink comes back");
    let mut writer = Writer::new(Liar(usize::MAX), MONO).unwrap();
    assert_eq!(writer.write(&[0; 1000]), Ok(()));
    assert_eq!(writer.data_bytes(), 2000);
}

proptest! {
    #[test]
    fn what_is_written_in_any_pieces_is_read_back(
        written in proptest::collection::vec(any::<i16>(), 0..2000),
        piece in 1..700usize,
        checkpoints in any::<bool>(),
        mulaw in any::<bool>(),
    ) {
        let spec = if mulaw { MULAW } else { MONO };
        let mut writer = Writer::new(Sink::default(), spec).unwrap();
        for samples in written.chunks(piece) {
            writer.write(samples).unwrap();
            if checkpoints {
                writer.checkpoint().unwrap();
            }
        }
        let data_bytes = writer.data_bytes();
        let bytes = writer.finish().unwrap().bytes;
        prop_assert_eq!(&bytes[..spec.header_bytes() as usize], &header(spec, Length::Bytes(data_bytes))[..]);
        let data = &bytes[spec.header_bytes() as usize..];
        if mulaw {
            let codes: Vec<u8> = written.iter().map(|sample| encode_mulaw(*sample)).collect();
            prop_assert_eq!(&data[..codes.len()], &codes);
            prop_assert_eq!(&data[codes.len()..], ending(data_bytes));
        } else {
            prop_assert_eq!(samples(data), written);
        }
    }
}
