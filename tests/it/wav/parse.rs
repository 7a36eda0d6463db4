//! Headers: those of other programs, read as ffprobe and soxi read them; whole, cut short and damaged.

use std::fs;
use std::path::{Path, PathBuf};

use callreel::audio::Audio;
use callreel_core::g711::{decode_alaw, encode_mulaw};
use callreel_core::wav::{
    DATA_BYTES_MAX, Encoding, Layout, Length, ParseError, Spec, header, parse,
};
use proptest::prelude::*;

use super::{ALAW, MONO, MULAW, STEREO};
use crate::harness::oracle;

/// Options of ffmpeg for files with all kinds of headers: with chunks before the samples (`LIST`,
/// `bext`), with plain, long and extensible formats.
const BY_FFMPEG: [&str; 9] = [
    "-ar 8000 -c:a pcm_s16le -metadata title=odd",
    "-ar 44100 -ac 2 -c:a pcm_s16le -bitexact",
    "-ar 8000 -c:a pcm_mulaw",
    "-ar 8000 -ac 2 -c:a pcm_alaw",
    "-ar 8000 -c:a pcm_alaw -write_bext 1",
    "-ar 8000 -c:a pcm_u8",
    "-ar 96000 -c:a pcm_s24le",
    "-ar 8000 -ac 6 -c:a pcm_s16le",
    "-ar 8000 -c:a pcm_f32le",
];

/// Options of SoX for such files.
const BY_SOX: [&str; 6] = [
    "-r 8000 -b 16 -e signed",
    "-r 8000 -e a-law",
    "-r 8000 -c 2 -e u-law",
    "-r 48000 -b 24",
    "-r 8000 -b 16 -c 4",
    "-r 8000 -b 32 -e float",
];

/// Makes a tenth of a second of sound at `path`, and reads the file.
fn by_ffmpeg(options: &str, path: &Path) -> Vec<u8> {
    let input = "-v error -y -f lavfi -i sine=d=0.1".split(' ');
    let arguments: Vec<_> =
        input.chain(options.split(' ')).chain([path.to_str().unwrap()]).collect();
    oracle::run("ffmpeg", &arguments, &[]);
    fs::read(path).unwrap()
}

fn by_sox(options: &str, path: &Path) -> Vec<u8> {
    let output = [path.to_str().unwrap()].into_iter();
    let synth = "synth 0.1 sine 440".split(' ');
    let arguments: Vec<_> =
        ["-n"].into_iter().chain(options.split(' ')).chain(output).chain(synth).collect();
    oracle::run("sox", &arguments, &[]);
    fs::read(path).unwrap()
}

/// The value of `key` in the output of ffprobe: codec, format, number of sample frames, place of the
/// first packet.
fn probed<'p>(probe: &'p str, key: &str) -> &'p str {
    let values = probe.lines().filter_map(|line| line.split_once('='));
    values
        .filter(|(name, _)| *name == key)
        .map(|(_, value)| value)
        .next()
        .expect("ffprobe tells it")
}

/// The name that ffmpeg has for the samples.
fn codec(layout: &Layout) -> &'static str {
    match (layout.format.kind(), layout.format.bits) {
        (1, 8) => "pcm_u8",
        (1, 16) => "pcm_s16le",
        (1, 24) => "pcm_s24le",
        (3, 32) => "pcm_f32le",
        (6, 8) => "pcm_alaw",
        (7, 8) => "pcm_mulaw",
        other => panic!("{other:?}"),
    }
}

/// Fails unless ffprobe and soxi read the header of a file as `layout` tells it.
fn check_by_other_tools(layout: &Layout, path: &Path) {
    let path = path.to_str().unwrap();
    let entries = "stream=codec_name,sample_rate,channels,bits_per_sample,duration_ts:packet=pos";
    let arguments = ["-v", "error", "-of", "default=nw=1", "-show_entries", entries];
    let arguments = [&arguments[..], &["-read_intervals", "%+#1", path]].concat();
    let probe = String::from_utf8(oracle::run("ffprobe", &arguments, &[])).unwrap();
    let number = |key| probed(&probe, key).parse::<usize>().unwrap();
    let format = layout.format;
    assert_eq!(codec(layout), probed(&probe, "codec_name"), "{path}");
    let ours = [usize::from(format.channels), format.sample_rate_hz as usize, layout.data_at];
    assert_eq!(ours, ["channels", "sample_rate", "pos"].map(number), "{path}");
    assert_eq!(usize::from(format.bits), number("bits_per_sample"), "{path}");
    let frames = layout.announced().unwrap() as usize / usize::from(format.frame_bytes);
    assert_eq!(frames, number("duration_ts"), "{path}");
    let told = |option| {
        let said = oracle::run("soxi", &[option, path], &[]);
        String::from_utf8(said).unwrap().trim().parse::<usize>().unwrap()
    };
    let ours = [ours[0], ours[1], usize::from(format.bits), frames];
    assert_eq!(ours, ["-c", "-r", "-b", "-s"].map(told), "{path}");
}

#[test]
fn the_headers_of_ffmpeg_and_sox_are_read_as_ffprobe_and_soxi_read_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = |index: usize| dir.path().join(format!("{index}.wav"));
    let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    for options in BY_FFMPEG {
        files.push((path(files.len()), by_ffmpeg(options, &path(files.len()))));
    }
    for options in BY_SOX {
        files.push((path(files.len()), by_sox(options, &path(files.len()))));
    }
    let mut found = Vec::new();
    for (path, bytes) in &files {
        let layout = parse(bytes).unwrap();
        assert_eq!(layout.riff_size as usize + 8, bytes.len(), "{}", path.display());
        check_by_other_tools(&layout, path);
        if let Some(fact_at) = layout.fact_at {
            let frames = u32::from_le_bytes(*bytes[fact_at..].first_chunk().unwrap());
            assert_eq!(frames, layout.data_size / u32::from(layout.format.frame_bytes));
        }
        // Only SoX and ffmpeg's bit-exact output write the headers that callreel writes.
        let is_plain = layout.spec().is_some_and(|spec| layout.is_header_of(spec));
        found.push((layout.spec().map(|spec| (spec.encoding, spec.channels)), is_plain));
        check_in_pieces(bytes);
    }
    let (alaw, mulaw, pcm) = (Encoding::Alaw, Encoding::Mulaw, Encoding::Pcm16);
    let of_ffmpeg = [
        (Some((pcm, 1)), false),
        (Some((pcm, 2)), true),
        (Some((mulaw, 1)), false),
        (Some((alaw, 2)), false),
        (Some((alaw, 1)), false),
        (None, false),
        (None, false),
        (Some((pcm, 6)), false),
        (None, false),
    ];
    let of_sox = [
        (Some((pcm, 1)), true),
        (Some((alaw, 1)), true),
        (Some((mulaw, 2)), true),
        (None, false),
        (Some((pcm, 4)), false),
        (None, false),
    ];
    assert_eq!(found, [&of_ffmpeg[..], &of_sox].concat());
}

#[test]
fn a_stream_of_ffmpeg_announces_nothing_and_a_file_of_64_bits_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = "-v error -f lavfi -i sine=d=0.1 -ar 8000 -c:a pcm_alaw -f wav pipe:1";
    let stream = oracle::run("ffmpeg", &arguments.split(' ').collect::<Vec<_>>(), &[]);
    let layout = parse(&stream).unwrap();
    assert_eq!((layout.announced(), layout.data_size), (None, u32::MAX));
    assert_eq!((layout.spec(), stream.len() - layout.data_at), (Some(ALAW), 800));

    let path = dir.path().join("rf64.wav");
    let rf64 = by_ffmpeg("-ar 8000 -c:a pcm_s16le -rf64 always", &path);
    assert_eq!(parse(&rf64), Err(ParseError::Rf64));
    let refusal = Audio::read(&path).unwrap_err().to_string();
    assert!(refusal.contains("64-bit") && refusal.contains("ffmpeg -i IN"), "{refusal}");
}

#[test]
fn alaw_files_of_ffmpeg_and_sox_are_call_audio() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("alaw.wav");
    let made = [
        by_ffmpeg("-ar 8000 -ac 2 -c:a pcm_alaw -y", &path),
        by_sox("-r 8000 -c 2 -e a-law", &path),
    ];
    for bytes in made {
        fs::write(&path, &bytes).unwrap();
        let audio = Audio::read(&path).unwrap();
        let codes = &bytes[parse(&bytes).unwrap().data_at..][..1600];
        let channel = |index| codes.iter().skip(index).step_by(2).copied();
        let mulaw = |code| encode_mulaw(decode_alaw(code));
        assert!(audio.inbound().iter().copied().eq(channel(0).map(mulaw)));
        assert!(audio.outbound().unwrap().iter().copied().eq(channel(1).map(mulaw)));
    }
}

/// Parses ever more of a file as [`ParseError::NeedMore`] asks for, and checks that it asks for no byte
/// too many, and that the rest of the file changes nothing.
fn check_in_pieces(bytes: &[u8]) {
    let whole = parse(bytes);
    let mut held = 0;
    while let Err(ParseError::NeedMore { bytes_min }) = parse(&bytes[..held]) {
        assert!(bytes_min > held);
        let last = bytes.get(..bytes_min - 1).unwrap_or(bytes);
        assert_eq!(parse(last), Err(ParseError::NeedMore { bytes_min }));
        if bytes_min > bytes.len() {
            assert_eq!(whole, Err(ParseError::NeedMore { bytes_min }));
            return;
        }
        held = bytes_min;
    }
    assert_eq!(parse(&bytes[..held]), whole);
}

/// A WAV of these chunks.
fn file(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let mut bytes = b"RIFF\0\0\0\0WAVE".to_vec();
    for (name, content) in chunks {
        bytes.extend(*name);
        bytes.extend((content.len() as u32).to_le_bytes());
        bytes.extend(*content);
        bytes.extend(&[0][..content.len() % 2]);
    }
    bytes
}

#[test]
fn chunks_of_any_length_are_skipped_and_the_last_format_counts() {
    let (mono, mulaw) = (header(MONO, Length::Unknown), header(MULAW, Length::Unknown));
    let (mono, mulaw) = (&mono[20..36], &mulaw[20..38]);
    let long = [7; 100_001];
    let bytes = file(&[
        (b"JUNK", &[]),
        (b"fmt ", mono),
        (b"odd ", &[1]),
        (b"fact", &[0; 6]),
        (b"LIST", &long),
        (b"fmt ", mulaw),
        (b"data", &[1, 2, 3]),
    ]);
    let layout = parse(&bytes).unwrap();
    assert_eq!((layout.spec(), layout.fact_at), (Some(MULAW), None));
    assert_eq!((layout.announced(), layout.data_at), (Some(3), bytes.len() - 4));
    check_in_pieces(&bytes);
    // The end of a chunk that nobody holds.
    let mut endless = file(&[(b"fmt ", mono), (b"LIST", &[])]);
    let end = endless.len();
    endless[end - 4..].fill(0xFF);
    let bytes_min = end + u32::MAX as usize + 1 + 8;
    assert_eq!(parse(&endless), Err(ParseError::NeedMore { bytes_min }));
    // Sizes that announce nothing.
    for (size, announced) in [
        (0, None),
        (1, Some(1)),
        (DATA_BYTES_MAX, Some(DATA_BYTES_MAX)),
        (DATA_BYTES_MAX + 1, None),
    ] {
        let mut bytes = header(STEREO, Length::Unknown);
        bytes[40..44].copy_from_slice(&size.to_le_bytes());
        assert_eq!(parse(&bytes).unwrap().announced(), announced, "{size}");
    }
}

#[test]
fn a_damaged_or_foreign_header_is_refused_by_its_reason() {
    let format = header(MONO, Length::Unknown);
    let format = &format[20..36];
    for (bytes, error) in [
        (file(&[(b"data", &[]), (b"fmt ", format)]), ParseError::NoFormat),
        (file(&[(b"fmt ", &format[..14]), (b"data", &[])]), ParseError::NoFormat),
        (b"RIFF\0\0\0\0AVI LIST".to_vec(), ParseError::NotWav),
        (b"RIFX\0\0\0\0WAVEfmt ".to_vec(), ParseError::NotWav),
        (b"{\"event\":\"start\"}".to_vec(), ParseError::NotWav),
        (b"BW64\xFF\xFF\xFF\xFFWAVEds64".to_vec(), ParseError::Rf64),
        (file(&[(b"fmt ", format)]), ParseError::NeedMore { bytes_min: 44 }),
        (file(&[(b"fmt ", format)])[..22].to_vec(), ParseError::NeedMore { bytes_min: 36 }),
        (Vec::new(), ParseError::NeedMore { bytes_min: 12 }),
    ] {
        assert_eq!(parse(&bytes), Err(error));
        check_in_pieces(&bytes);
    }
    // An encoding that is not known is none, and above all not PCM.
    let spec_of = |at: usize, byte: u8| {
        let mut bytes = header(MONO, Length::Bytes(0));
        bytes[at] = byte;
        let layout = parse(&bytes).unwrap();
        (layout.spec(), layout.is_header_of(MONO))
    };
    let (tag, channels, second_bytes, frame_bytes, bits) = (20, 22, 28, 32, 34);
    assert_eq!(spec_of(tag, 1), (Some(MONO), true));
    for (at, byte) in [(tag, 3), (tag, 7), (tag, 0xFE), (tag + 1, 1), (channels, 0), (bits, 8)] {
        assert_eq!(spec_of(at, byte), (None, false), "{at}: {byte}");
    }
    // Players do not look at these.
    for (at, byte) in [(second_bytes, 0), (frame_bytes, 3)] {
        assert_eq!(spec_of(at, byte), (Some(MONO), false), "{at}: {byte}");
    }
}

proptest! {
    #[test]
    fn a_written_header_gives_its_spec_back(
        encoding in prop::sample::select(&[Encoding::Alaw, Encoding::Mulaw, Encoding::Pcm16][..]),
        channels in 1..=u16::MAX,
        sample_rate_hz in any::<u32>(),
        data_bytes in any::<u32>(),
        behind_bytes in any::<u32>(),
    ) {
        let spec = Spec { channels, sample_rate_hz, encoding };
        let lengths = [
            (Length::Bytes(data_bytes), Some(data_bytes)),
            (Length::Followed { data_bytes, behind_bytes }, Some(data_bytes)),
            (Length::Unknown, None),
        ];
        for (length, announced) in lengths {
            let bytes = header(spec, length);
            let layout = parse(&bytes).unwrap();
            prop_assert_eq!(layout.spec(), Some(spec));
            prop_assert!(layout.is_header_of(spec));
            prop_assert_eq!(layout.data_at, bytes.len());
            let announced = announced.map(|bytes| bytes.min(DATA_BYTES_MAX));
            prop_assert_eq!(layout.announced(), announced.filter(|bytes| *bytes > 0));
            check_in_pieces(&bytes);
            check_in_pieces(&bytes[..bytes.len() - 1]);
        }
    }
}
