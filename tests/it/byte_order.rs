//! The byte order of 16-bit samples: measured over speech, kept where nothing tells it, and corrected in
//! the file from the first sample on.

use std::path::Path;
use std::process::Command;

use base64::prelude::*;
use callreel_core::byte_order::ByteOrder;
use callreel_core::format::Codec;
use serde_json::json;

use crate::harness::oracle;
use crate::harness::peer::{FIN, Peer, TEXT, frame};
use crate::harness::process::{Setup, callreel};
use crate::harness::shelf;

const RATES_HZ: [u32; 4] = [8000, 16_000, 24_000, 48_000];

/// Speech of these seeds, as SoX makes it at this rate and level out of `kind`, its name of an encoding.
fn speech(seed: u64, seconds: usize, rate_hz: u32, level_db: i32, kind: &str) -> Vec<i16> {
    let codes = callreel::audio::speech(seed, seconds * 8000);
    let words = |text: String| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let run = |arguments: String, input: &[u8]| {
        let arguments = words(arguments);
        oracle::run("sox", &arguments.iter().map(String::as_str).collect::<Vec<_>>(), input)
    };
    let same = format!("-D -t raw -e mu-law -r 8000 -c 1 - -t raw -e {kind} -r 8000 -");
    let codes = run(same, &codes);
    let to = format!("-t raw -e signed -b 16 -L -r {rate_hz} - vol {level_db}dB");
    oracle::samples(&run(format!("-D -t raw -e {kind} -r 8000 -c 1 - {to}"), &codes))
}

fn bytes(samples: &[i16], codec: Codec) -> Vec<u8> {
    match codec {
        Codec::L16Be => samples.iter().flat_map(|sample| sample.to_be_bytes()).collect(),
        _ => samples.iter().flat_map(|sample| sample.to_le_bytes()).collect(),
    }
}

/// The order found in each second of the samples, given in chunks of 20 ms.
fn found(samples: &[i16], rate_hz: u32, codec: Codec) -> Vec<Option<Codec>> {
    let mut verdicts = Vec::new();
    let mut order = ByteOrder::new(rate_hz, false);
    for chunk in samples.chunks(rate_hz as usize / 50) {
        order.note(&bytes(chunk, codec));
        if order.is_over() {
            verdicts.push(order.codec());
            order = ByteOrder::new(rate_hz, false);
        }
    }
    verdicts
}

#[test]
fn the_order_of_speech_is_found_at_every_rate_and_level_and_from_every_codec() {
    let mut windows = 0;
    for rate_hz in RATES_HZ {
        for level_db in [0, -20, -40] {
            for (seed, kind) in [(1, "mu-law"), (2, "a-law"), (3, "mu-law"), (4, "a-law")] {
                let samples = speech(seed, 12, rate_hz, level_db, kind);
                for codec in [Codec::L16Be, Codec::L16Le] {
                    for (at, verdict) in found(&samples, rate_hz, codec).into_iter().enumerate() {
                        let place = format!("{rate_hz} Hz {level_db} dB {kind} {seed}, {at}");
                        assert_eq!(verdict, Some(codec), "{place}");
                        windows += 1;
                    }
                }
            }
        }
    }
    assert!(windows > 900, "{windows} windows");
}

/// Numbers without a pattern.
fn noise(count: usize) -> impl Iterator<Item = u32> {
    let next = |state: &u64| Some(state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1));
    std::iter::successors(Some(1), next).map(|state| (state >> 33) as u32).take(count)
}

#[test]
fn sound_that_fits_both_orders_and_silence_tell_none() {
    let white: Vec<i16> = noise(40_000).map(|number| (number >> 7) as i16).collect();
    // Samples of 8 bits, as some converters make of them.
    let narrow: Vec<i16> = white.iter().map(|sample| sample & !0xFF).collect();
    for samples in [&white, &narrow] {
        for codec in [Codec::L16Be, Codec::L16Le] {
            assert_eq!(found(samples, 8000, codec), [None; 5]);
        }
    }
    assert_eq!(found(&[0; 40_000], 8000, Codec::L16Le), []);
    let mut click = ByteOrder::new(8000, true);
    click.note(&[0, 0, 0, 1]);
    click.note(&[0; 32_000]);
    assert!(click.is_over() && click.is_too_short());
    assert_eq!(click.codec(), None);
}

#[test]
fn no_tone_tells_the_wrong_order() {
    let mut told = 0;
    for hz in (100..3900).step_by(95) {
        for loudness in [30_000.0, 3000.0, 300.0_f64] {
            let wave = |at: i32| f64::from(at) * f64::from(hz) / 8000.0 * std::f64::consts::TAU;
            let samples: Vec<i16> =
                (0..8000).map(|at| (wave(at).sin() * loudness) as i16).collect();
            for codec in [Codec::L16Be, Codec::L16Le] {
                let [verdict] = found(&samples, 8000, codec)[..] else { panic!() };
                assert!(verdict.is_none_or(|order| order == codec), "{hz} Hz, {loudness}");
                told += usize::from(verdict.is_some());
            }
        }
    }
    assert!(told > 150, "{told} tones");
}

/// The messages of a Plivo call with these samples in this order; Plivo does not document it.
fn plivo_call(id: &str, rate_hz: u32, samples: &[i16], codec: Codec) -> Vec<String> {
    let format = json!({"encoding": "audio/x-l16", "sampleRate": rate_hz});
    let start =
        json!({"callId": "c1", "streamId": id, "tracks": ["inbound"], "mediaFormat": format});
    let mut messages =
        vec![json!({"event": "start", "sequenceNumber": 0, "start": start}).to_string()];
    messages.extend(samples.chunks(rate_hz as usize / 50).enumerate().map(|(number, chunk)| {
        let payload = BASE64_STANDARD.encode(bytes(chunk, codec));
        json!({"event": "media", "sequenceNumber": number + 1, "streamId": id, "media": {
            "track": "inbound", "timestamp": (20 * number).to_string(), "chunk": number + 1,
            "payload": payload,
        }})
        .to_string()
    }));
    messages.push(
        json!({"event": "stop", "sequenceNumber": messages.len(), "streamId": id}).to_string(),
    );
    messages
}

#[test]
fn a_stream_in_the_other_order_is_corrected_from_its_first_sample_on_and_its_record_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).args(&["--admin", "127.0.0.1:0"]).start();
    // Digital silence, a click, silence, and speech: the click alone tells nothing.
    let mut spoken = vec![0; 8000];
    spoken.extend([0, 300, -300, 1]);
    spoken.resize(26_000, 0);
    spoken.extend(speech(7, 4, 16_000, -10, "mu-law"));
    let short: Vec<i16> = speech(8, 1, 16_000, 0, "mu-law")[..8000].to_vec();
    let hiss: Vec<i16> = noise(32_000).map(|number| (number >> 7) as i16).collect();
    let mut captured = Vec::new();
    for (id, samples, codec, order) in [
        ("spoken-big", &spoken, Codec::L16Be, json!(["l16be", "big", "measured"])),
        ("spoken-little", &spoken, Codec::L16Le, json!(["l16le", "little", "measured"])),
        ("short-big", &short, Codec::L16Be, json!(["l16be", "big", "measured"])),
        ("hiss", &hiss, Codec::L16Le, json!(["l16le", "little", "table"])),
    ] {
        let messages = plivo_call(id, 16_000, samples, codec);
        let mut peer = Peer::connect(&server, id);
        for message in &messages {
            peer.send(&frame(FIN | TEXT, message.as_bytes()));
        }
        assert_eq!(peer.close_code(), Some(1000), "{id}");
        let found = shelf::wait_for(dir.path(), id);
        // The click is in the order of the table.
        let mut expected = samples.clone();
        if id == "spoken-big" {
            expected[8000..8004].iter_mut().for_each(|sample| *sample = sample.swap_bytes());
        }
        let first = found.samples().iter().zip(&expected).position(|(found, sent)| found != sent);
        assert_eq!((first, found.samples().len()), (None, expected.len()), "{id}");
        let wire = &found.record["wire"];
        assert_eq!(
            json!([wire["codec"], wire["byte_order"], wire["byte_order_from"]]),
            order,
            "{id}"
        );
        assert_eq!(wire["clock"], "milliseconds", "{id}");
        captured.push((messages, expected));
    }
    assert_eq!(server.metric("callreel_byte_orders_corrected_total"), 2.0);
    assert_eq!(server.metric("callreel_calls_begun_by_codec_total{codec=\"l16le\"}"), 4.0);
    let capture = dir.path().join("capture.jsonl");
    for (messages, expected) in captured {
        std::fs::write(&capture, messages.join("\n")).unwrap();
        let arguments = [&capture, Path::new("-o"), Path::new("-")];
        let decoded = Command::new(callreel()).arg("decode").args(arguments).output().unwrap();
        assert!(decoded.status.success(), "{decoded:?}");
        assert!(decoded.stdout[44..] == oracle::bytes(&expected));
    }
}
