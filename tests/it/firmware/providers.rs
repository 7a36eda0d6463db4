//! Providers beside Twilio, on the image that has them.

use std::fs;

use callreel_core::wav::{self, Encoding, Length, Spec};
use callreel_firmware_sim::call::MESSAGE_BYTES_MAX;

use super::bench::{Bench, budget, ensure};
use super::client::{self, BINARY, CLOSE, FIN, Said};
use super::device_peer::Peer;
use super::fixtures::{self, Fixture};
use super::{Outcome, play_fixtures};

/// Fixtures that a host records, and this image refuses: it has no decoder of G.722, and no room for two
/// tracks of 16-bit samples at 16 kHz that wait for each other.
const TOO_MUCH: [&str; 2] =
    ["g722-with-a-lost-chunk", "l16-with-the-high-byte-first-and-both-tracks"];

const JAMBONZ: &str = "audio.jambonz.org";

/// The image of several providers makes a host's file of each fixture, and refuses a stream that it cannot
/// record.
pub(crate) fn fixtures_of_other_providers() -> Outcome {
    let bench = Bench::with_providers("providers")?;
    let mut played = Vec::new();
    for folder in ["telnyx", "jambonz"] {
        for fixture in fixtures::in_folder(folder) {
            let name = format!("{folder}/{}", fixture.name);
            let file = fs::read(fixture.wav(0)).ok();
            match file.filter(|_| !TOO_MUCH.contains(&&*fixture.name)) {
                Some(file) => {
                    play(&bench, folder, &fixture, &file)
                        .map_err(|error| format!("{name}: {}", error.message().unwrap_or("")))?;
                    played.push(folder);
                }
                None => refuse(&bench, &name, &fixture)?,
            }
        }
    }
    let count = |folder| played.iter().filter(|played| **played == folder).count();
    ensure(count("telnyx") >= 4 && count("jambonz") >= 2, || format!("{played:?}"))?;
    audio_without_a_start(&bench)?;
    // Twilio's dialect is that of an image without others.
    play_fixtures(&bench, |_| true)?;
    let stack = bench.health()?["stack_bytes_peak"].as_u64().unwrap_or(u64::MAX);
    println!("other providers: stack {stack} bytes at most");
    ensure(stack <= budget("stack_bytes_peak_max")?, || format!("stack: {stack} bytes"))
}

/// The bytes of a line's message, which is cut if it is binary and longer than the device takes: the
/// boundaries of such messages mean nothing.
fn bytes_of(line: &[u8]) -> Vec<u8> {
    match client::said(line) {
        Said::Binary(audio) if !audio.is_empty() => {
            let pieces = audio.chunks(MESSAGE_BYTES_MAX);
            pieces.flat_map(|piece| client::frame(FIN | BINARY, piece)).collect()
        }
        _ => client::message(line),
    }
}

fn close_frame() -> Vec<u8> {
    client::frame(FIN | CLOSE, &1000u16.to_be_bytes())
}

fn play(bench: &Bench, folder: &str, fixture: &Fixture, file: &[u8]) -> Outcome {
    let number = bench.recordings()? as u32 + 1;
    let has_stop = folder == "telnyx";
    let (mut peer, answer) = if has_stop {
        (Peer::connect(bench.appliance.address())?, None)
    } else {
        Peer::offering(&format!("{JAMBONZ}, other"), bench.appliance.address())?
    };
    ensure(has_stop || answer.as_deref() == Some(JAMBONZ), || format!("answered {answer:?}"))?;
    let mut bytes: Vec<u8> = fixture.messages().iter().flat_map(|line| bytes_of(line)).collect();
    if !has_stop {
        bytes.extend(close_frame());
    }
    peer.send_bytes(&bytes)?;
    let code = peer.close_code()?;
    ensure(code == 1000, || format!("closed with {code}"))?;
    bench.await_health(|health| health["calls"] == 0)?;
    ensure(bench.wav(number)? == file, || "another file than on a host".into())?;
    let record = bench.end_record(number)?;
    let is_told = record["provider"] == folder && record["state"] == "complete";
    ensure(is_told, || record.to_string())
}

/// Sends the messages up to the start.
fn refuse(bench: &Bench, name: &str, fixture: &Fixture) -> Outcome {
    let before = bench.recordings()?;
    let mut peer = Peer::connect(bench.appliance.address())?;
    for line in fixture.messages().iter().take(2) {
        peer.send_bytes(&bytes_of(line))?;
    }
    let code = peer.close_code()?;
    ensure(code == 1003, || format!("{name}: closed with {code}"))?;
    ensure(bench.recordings()? == before, || format!("{name}: a recording of a refused stream"))
}

/// FreeSWITCH's module by itself may send no text: its subprotocol tells the provider.
fn audio_without_a_start(bench: &Bench) -> Outcome {
    let number = bench.recordings()? as u32 + 1;
    let (mut peer, _) = Peer::offering("audio.drachtio.org", bench.appliance.address())?;
    let samples: Vec<u8> = (0..4000i16).flat_map(|at| at.wrapping_mul(37).to_le_bytes()).collect();
    let said = samples.chunks(640).flat_map(|piece| client::frame(FIN | BINARY, piece));
    peer.send_bytes(&said.chain(close_frame()).collect::<Vec<_>>())?;
    ensure(peer.close_code()? == 1000, || "another close code".into())?;
    let spec = Spec { channels: 1, sample_rate_hz: 8000, encoding: Encoding::Pcm16 };
    let header = wav::header(spec, Length::Bytes(samples.len() as u32));
    let file: Vec<u8> = header.into_iter().chain(samples).collect();
    ensure(bench.wav(number)? == file, || "other audio than sent without a start".into())
}
