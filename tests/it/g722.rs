//! G.722: samples to the bit, silence in gaps, and a call in it from its messages to its file.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use base64::prelude::*;
use callreel_core::g722::{Decoder, Encoder};
use serde_json::{Value, json};

use crate::harness::oracle::{self, bytes, samples};
use crate::harness::peer::{FIN, Peer, TEXT, frame};
use crate::harness::process::Setup;
use crate::harness::python;
use crate::harness::recorder::{Core, Recorder as _, Recording, record_one};
use crate::harness::shelf;

/// Bytes of a chunk of 20 ms, and its samples.
const CHUNK_BYTES: usize = 160;
const CHUNK_SAMPLES: usize = 2 * CHUNK_BYTES;

/// The bytes that ffmpeg's encoder makes of samples at 16 kHz.
fn encoded(samples: &[i16]) -> Vec<u8> {
    let arguments = "-v error -f s16le -ar 16000 -ac 1 -i pipe:0 -c:a g722 -f g722 pipe:1";
    oracle::run("ffmpeg", &arguments.split(' ').collect::<Vec<_>>(), &bytes(samples))
}

/// The samples that ffmpeg decodes.
pub(crate) fn decoded_by_ffmpeg(codes: &[u8]) -> Vec<i16> {
    let arguments = "-v error -f g722 -i pipe:0 -c:a pcm_s16le -f s16le pipe:1";
    samples(&oracle::run("ffmpeg", &arguments.split(' ').collect::<Vec<_>>(), codes))
}

/// The samples that the G722 of PyPI decodes.
fn decoded_by_pypi(codes: &[u8]) -> Vec<i16> {
    let program = "import base64, sys, array
from G722 import G722
decoded = G722(16000, 64000).decode(base64.b64decode(sys.stdin.read()))
print(base64.b64encode(array.array('h', decoded).tobytes()).decode())";
    let answer = python::run(program, &BASE64_STANDARD.encode(codes));
    samples(&BASE64_STANDARD.decode(answer).unwrap())
}

fn decoded(codes: &[u8]) -> Vec<i16> {
    let mut decoder = Decoder::new();
    codes.iter().flat_map(|code| decoder.decode(*code)).collect()
}

/// Numbers without a pattern.
fn noise(count: usize) -> impl Iterator<Item = u32> {
    (0..count as u32).map(|at| at.wrapping_mul(0x9E37_79B9) ^ at.wrapping_mul(at) >> 3)
}

/// Speech at 16 kHz, with both bands in use.
fn speech(seed: u64, chunks: usize) -> Vec<i16> {
    let codes = callreel::audio::speech(seed, chunks * CHUNK_BYTES);
    let arguments = "-D -t raw -e mu-law -r 8000 -c 1 - -t raw -e signed -b 16 -L -r 16000 -";
    let wide = oracle::run("sox", &arguments.split(' ').collect::<Vec<_>>(), &codes);
    // A hiss above the band of the telephone.
    let hiss = noise(chunks * CHUNK_SAMPLES).map(|number| (number >> 8) as i16 % 400);
    let hiss = hiss.enumerate().map(|(at, hiss)| if at % 2 == 0 { hiss } else { -hiss });
    samples(&wide).into_iter().zip(hiss).map(|(sample, hiss)| sample.saturating_add(hiss)).collect()
}

#[test]
fn every_sample_is_that_of_ffmpeg_and_of_pypi() {
    let loud =
        speech(2, 200).into_iter().map(|sample| sample.saturating_mul(8)).collect::<Vec<_>>();
    let white: Vec<i16> = noise(64_000).map(|number| (number >> 7) as i16).collect();
    for (name, codes) in [
        ("speech", encoded(&speech(1, 400))),
        ("clipped speech", encoded(&loud)),
        ("loud noise", encoded(&white)),
        ("silence", encoded(&[0; 16_000])),
    ] {
        let ours = decoded(&codes);
        assert_eq!(ours.len(), 2 * codes.len());
        assert!(ours == decoded_by_ffmpeg(&codes), "{name}: not as ffmpeg");
        assert!(ours == decoded_by_pypi(&codes), "{name}: not as PyPI");
    }
    // Codes that no encoder sends, among them the lowest ones.
    let any: Vec<u8> = noise(64_000).map(|number| (number >> 11) as u8).collect();
    let low: Vec<u8> = any.iter().map(|code| code & 0xC3).collect();
    for codes in [any, low] {
        assert!(decoded(&codes) == decoded_by_ffmpeg(&codes));
    }
}

#[test]
fn every_byte_of_the_encoder_is_that_of_ffmpegs() {
    let loud: Vec<i16> = speech(2, 200).into_iter().map(|s| s.saturating_mul(8)).collect();
    let white: Vec<i16> = noise(64_000).map(|number| (number >> 7) as i16).collect();
    let square: Vec<i16> =
        (0..32_000).map(|at| if at / 37 % 2 == 0 { i16::MAX } else { i16::MIN }).collect();
    for (name, samples) in [
        ("speech", speech(1, 400)),
        ("clipped speech", loud),
        ("loud noise", white),
        ("full scale", square),
        ("silence", vec![0; 16_000]),
    ] {
        let mut encoder = Encoder::new();
        let pairs = samples.as_chunks().0.iter();
        let ours: Vec<u8> = pairs.map(|pair| encoder.encode(*pair)).collect();
        let theirs = encoded(&samples);
        let first = ours.iter().zip(&theirs).position(|(ours, theirs)| ours != theirs);
        assert!(first.is_none() && ours.len() == theirs.len(), "{name}: other from {first:?} on");
    }
}

#[test]
fn the_itus_own_data_are_encoded_and_decoded_bit_for_bit() {
    let Some(folder) = std::env::var_os("CALLREEL_G722").map(PathBuf::from) else {
        eprintln!("CALLREEL_G722 names no folder with the data of the ITU's Software Tool Library");
        return;
    };
    let read = |name: &str| fs::read(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let (said, heard) = (samples(&read("inpsp.bin")), samples(&read("outsp1.bin")));
    // A code in the lower half of each word.
    let codes: Vec<u8> = samples(&read("codspw.cod")).iter().map(|word| *word as u8).collect();
    assert!(codes.len() > 40_000 && heard.len() == 2 * codes.len());
    let mut encoder = Encoder::new();
    let ours: Vec<u8> = said.as_chunks().0.iter().map(|pair| encoder.encode(*pair)).collect();
    let other = ours.iter().zip(&codes).position(|(ours, theirs)| ours != theirs);
    assert_eq!((other, ours.len()), (None, codes.len()), "the encoder");
    let ours = decoded(&codes);
    let other = ours.iter().zip(&heard).position(|(ours, theirs)| ours != theirs);
    assert_eq!((other, ours.len()), (None, heard.len()), "the decoder");
}

/// The messages of a Telnyx call in G.722, with the chunks of each track that are named.
fn call(tracks: [&[u8]; 2], order: &[(usize, usize)]) -> Vec<String> {
    // Some name the rate of the bytes.
    let format = json!({"encoding": "G722", "sample_rate": 8000, "channels": 1});
    let mut messages = vec![
        json!({"event": "connected", "version": "1.0.0"}).to_string(),
        json!({"event": "start", "sequence_number": "1", "stream_id": "S1",
            "start": {"call_control_id": "v2:1", "media_format": format}})
        .to_string(),
    ];
    messages.extend(order.iter().map(|(track, number)| {
        let at = number * CHUNK_BYTES;
        let payload = BASE64_STANDARD.encode(&tracks[*track][at..at + CHUNK_BYTES]);
        let name = if *track == 0 { "inbound" } else { "outbound" };
        json!({"event": "media", "stream_id": "S1", "media": {
            "track": name, "chunk": (number + 1).to_string(),
            "timestamp": (20 * number).to_string(), "payload": payload,
        }})
        .to_string()
    }));
    messages.push(json!({"event": "stop", "stream_id": "S1"}).to_string());
    messages
}

/// The samples of chunks as ffmpeg decodes those that came, in a row, with zeros in place of the others.
fn expected(codes: &[u8], came: impl Fn(usize) -> bool) -> Vec<i16> {
    let chunks: BTreeMap<usize, &[u8]> = codes.chunks(CHUNK_BYTES).enumerate().collect();
    let there: Vec<u8> =
        chunks.iter().filter(|(number, _)| came(**number)).flat_map(|(_, c)| c.to_vec()).collect();
    let decoded = decoded_by_ffmpeg(&there);
    let mut pieces = decoded.chunks(CHUNK_SAMPLES);
    chunks
        .keys()
        .flat_map(|number| {
            if came(*number) { pieces.next().unwrap().to_vec() } else { vec![0; CHUNK_SAMPLES] }
        })
        .collect()
}

fn channel(recording: &Recording, channel: usize) -> Vec<i16> {
    recording.channel(channel)
}

#[test]
fn a_call_in_g722_is_recorded_at_16_khz_and_a_gap_is_silence_that_the_decoder_does_not_see() {
    let inbound = encoded(&speech(3, 40));
    // Codes of zero among the others: audio, not silence.
    let outbound: Vec<u8> = encoded(&speech(4, 40))
        .iter()
        .enumerate()
        .map(|(n, c)| if n % 7 == 0 { 0 } else { *c })
        .collect();
    let lost = |track: usize, number: usize| match track {
        0 => (10..13).contains(&number) || number == 30,
        _ => number == 20,
    };
    let both: Vec<_> = (0..40).flat_map(|number| [(0, number), (1, number)]).collect();
    let mut order: Vec<_> = both.into_iter().filter(|(t, n)| !lost(*t, *n)).collect();
    // Two chunks of the inbound track change places.
    let at = order.iter().position(|place| *place == (0, 5)).unwrap();
    let late = order.remove(at);
    order.insert(at + 2, late);
    let recording = record_one(&call([&inbound, &outbound], &order));
    assert_eq!((recording.spec.sample_rate_hz, recording.spec.channels), (16_000, 2));
    for (track, codes) in [inbound, outbound].iter().enumerate() {
        let expected = expected(codes, |number| !lost(track, number));
        let found = channel(&recording, track);
        let first = found.iter().zip(&expected).position(|(found, expected)| found != expected);
        assert_eq!((first, found.len()), (None, expected.len()), "track {track}");
    }
    let gaps: Vec<_> = recording.gaps.iter().map(|gap| (gap.at, gap.missing, gap.filled)).collect();
    let gap = |number: u64, chunks: u64| (number * 320, chunks * 320, chunks * 320);
    assert_eq!(gaps, [gap(10, 3), gap(20, 1), gap(30, 1)]);
    assert_eq!((recording.stats.missing, recording.stats.reordered), (6, 1));
}

#[test]
fn g722_in_binary_messages_is_recorded_as_ffmpeg_decodes_it() {
    let codes = encoded(&speech(5, 30));
    let start = "\"MEDIA_START connection_id:c channel:x channel_id:y format:g722 ptime:20\"";
    let mut lines = vec![start.as_bytes().to_vec()];
    // Of any length: the decoder's state goes on.
    lines.extend(
        codes
            .chunks(170)
            .map(|piece| json!({"binary": BASE64_STANDARD.encode(piece)}).to_string().into_bytes()),
    );
    let files = Core.record(&lines);
    let read = oracle::Wavs::new("g722-binary", [&files[0][..]]).ffmpeg().remove(0);
    assert_eq!((files.len(), read == decoded_by_ffmpeg(&codes)), (1, true));
}

#[test]
fn a_track_of_g722_that_never_comes_is_silent() {
    let inbound = encoded(&speech(5, 30));
    let order: Vec<_> = (0..30).map(|number| (0, number)).collect();
    let recording = record_one(&call([&inbound, &[]], &order));
    assert!(channel(&recording, 0) == expected(&inbound, |_| true));
    assert!(channel(&recording, 1).iter().all(|sample| *sample == 0));
}

#[test]
fn a_server_records_g722_as_pcm_at_16_khz_and_its_record_names_the_codec() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).args(&["--admin", "127.0.0.1:0"]).start();
    let [inbound, outbound] = [6, 7].map(|seed| encoded(&speech(seed, 60)));
    let lost = |number: usize| (20..22).contains(&number);
    let order = (0..60).flat_map(|number| [(0, number), (1, number)]);
    let order: Vec<_> = order.filter(|(track, number)| *track == 1 || !lost(*number)).collect();
    let mut peer = Peer::connect(&server, "S1");
    for message in call([&inbound, &outbound], &order) {
        peer.send(&frame(FIN | TEXT, message.as_bytes()));
    }
    assert_eq!(peer.close_code(), Some(1000));
    let files = shelf::files(dir.path());
    let of = |extension: &str| {
        let mut found =
            files.iter().filter(|path| path.extension().is_some_and(|e| e == extension));
        std::fs::read(found.next().unwrap()).unwrap()
    };
    let record: Value = serde_json::from_slice(&of("json")).unwrap();
    let wire = &record["wire"];
    assert_eq!((&wire["codec"], &wire["sample_rate_hz"]), (&json!("g722"), &json!(16_000)));
    let format = json!({"encoding": "pcm16", "sample_rate_hz": 16_000, "channels": 2});
    assert_eq!((&record["format"], &record["duration_ms"]), (&format, &json!(1200)));
    assert_eq!(record["gaps"][0]["at_ms"], 400);
    let read = oracle::Wavs::new("g722", [&of("wav")[..]]).ffmpeg().remove(0);
    for (channel, codes) in [inbound, outbound].iter().enumerate() {
        let expected = expected(codes, |number| channel == 1 || !lost(number));
        assert!(read.iter().skip(channel).step_by(2).eq(&expected), "channel {channel}");
    }
}
