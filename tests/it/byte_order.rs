//! The byte order of 16-bit samples: measured over speech, kept where nothing tells it, and corrected in
//! the file from the first sample on.

use callreel_core::byte_order::ByteOrder;
use callreel_core::format::Codec;

use crate::harness::oracle;

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
