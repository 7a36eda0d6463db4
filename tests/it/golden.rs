//! Each fixture becomes the WAV beside it, and independent tools read the audio sent in it.

use std::collections::BTreeSet;
use std::fs;

use base64::prelude::*;
use callreel_core::frame::Track;
use callreel_core::g711::{decode_alaw, encode_alaw};
use serde_json::Value;

use crate::dialects;
use crate::harness::client;
use crate::harness::fixtures::{self, Fixture};
use crate::harness::oracle;
use crate::harness::recorder::{Core, Recorder, Recording, connection};

#[test]
fn every_fixture_becomes_the_wav_beside_it() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    for fixture in &[fixtures::twilio(), dialects::all_fixtures()].concat() {
        let made = Core.record(&fixture.messages());
        for (index, wav) in made.iter().enumerate() {
            let path = fixture.wav(index);
            if update {
                fs::write(&path, wav).unwrap();
            }
            let golden = fs::read(&path).unwrap_or_default();
            assert!(*wav == golden, "{}: differs from {}", fixture.name, path.display());
        }
        let more = fixture.wav(made.len());
        // A session rejects such a track; a server records it beside the stream.
        let is_of_servers = fixture.name == "media-of-a-track-that-was-not-announced";
        assert!(is_of_servers || !more.exists(), "{}: {}", fixture.name, more.display());
    }
}

#[test]
fn every_recording_holds_what_was_sent_as_ffmpeg_decodes_it() {
    let mut codes = Vec::new();
    let mut heard = Vec::new();
    for fixture in fixtures::twilio() {
        let recordings = record(&fixture);
        let calls = payloads(&fixture);
        assert_eq!(recordings.len(), calls.len(), "{}", fixture.name);
        for (recording, tracks) in recordings.iter().zip(calls) {
            let announced = [Track::Inbound, Track::Outbound].into_iter().zip(tracks);
            let announced = announced.filter_map(|(track, sent)| Some((track, sent?)));
            for (channel, (track, sent)) in announced.enumerate() {
                let mut samples = outside_gaps(recording, channel, track);
                let padding = samples.split_off(sent.len().min(samples.len()));
                assert!(padding.iter().all(|sample| *sample == 0), "{}", fixture.name);
                heard.push((fixture.name.clone(), track, sent.len(), samples));
                codes.extend(sent);
            }
        }
    }
    let mut decoded = oracle::ffmpeg_mulaw(&codes);
    for (name, track, count, samples) in heard {
        let expected: Vec<_> = decoded.drain(..count).collect();
        assert!(samples == expected, "{name}: {track:?} differs from the audio sent");
    }
}

#[test]
fn other_tools_read_the_same_samples_in_every_recording() {
    let all = fixtures::twilio();
    for channels in [1, 2] {
        let recordings = all.iter().flat_map(record).filter(|r| r.spec.channels == channels);
        let (wavs, expected): (Vec<_>, Vec<_>) =
            recordings.map(|recording| (recording.wav(), recording.samples)).unzip();
        let wavs = wavs.iter().map(Vec::as_slice);
        let wavs = oracle::Wavs::new(&format!("golden-{channels}"), wavs);
        assert!(wavs.ffmpeg() == expected, "ffmpeg reads other samples");
        assert!(wavs.hound() == expected, "hound reads other samples");
        let row = expected.concat();
        assert!(wavs.sox() == row, "SoX reads other samples");
        assert!(wavs.python(channels) == row, "Python reads other samples");
    }
}

fn record(fixture: &Fixture) -> Vec<Recording> {
    let bytes: Vec<u8> = fixture.messages().iter().flat_map(client::message).collect();
    connection(&[&bytes], 256 << 10)
}

/// The samples of a channel without the silence that fills its gaps.
fn outside_gaps(recording: &Recording, channel: usize, track: Track) -> Vec<i16> {
    let mut samples = recording.channel(channel);
    for gap in recording.gaps.iter().rev().filter(|gap| gap.track == track) {
        let filled = gap.at as usize..(gap.at + gap.filled) as usize;
        assert!(samples.drain(filled).all(|sample| sample == 0), "{gap:?} is not silent");
    }
    samples
}

/// The names of the tracks that a start announces: an array or a word, in `start` or beside it.
fn announced(start: &Value) -> Vec<Value> {
    let places = [&start["start"]["tracks"], &start["tracks"]];
    match places.into_iter().find(|tracks| !tracks.is_null()) {
        Some(Value::Array(tracks)) => tracks.clone(),
        Some(Value::String(word)) if word == "both_tracks" => {
            vec!["inbound".into(), "outbound".into()]
        }
        _ => vec!["inbound".into()],
    }
}

/// The codes of each stream's tracks, `None` for a track not announced, read by other means than core's.
fn payloads(fixture: &Fixture) -> Vec<[Option<Vec<u8>>; 2]> {
    type Pieces = Vec<(Option<u64>, Vec<u8>)>;
    let messages = &fixture.messages();
    let names = ["inbound", "outbound"];
    let mut streams: Vec<[Option<Pieces>; 2]> = Vec::new();
    let mut ids = Vec::new();
    let mut live = Vec::new();
    let mut last = None;
    for message in messages {
        let text = message.strip_prefix("\u{feff}".as_bytes()).unwrap_or(message);
        let value: Value = serde_json::from_slice(text).expect("a fixture is JSON");
        let id = &value["streamSid"];
        let named = ids.iter().rposition(|known| known == id);
        let index = named.or_else(|| live.iter().rposition(|live| *live));
        match value["event"].as_str() {
            Some("start") => {
                let format = &value["start"]["mediaFormat"]["encoding"];
                if format.as_str().is_none_or(|encoding| encoding == "audio/x-mulaw") {
                    let tracks = announced(&value);
                    streams.push(names.map(|name| tracks.contains(&name.into()).then(Vec::new)));
                    ids.push(id.clone());
                    live.push(true);
                }
            }
            Some("stop") => index.into_iter().for_each(|index| live[index] = false),
            Some("media") if index.is_some_and(|index| live[index]) && last != Some(message) => {
                let track = value["media"]["track"].as_str().unwrap_or("inbound");
                let track = names.iter().position(|name| *name == track).unwrap();
                let payload = value["media"]["payload"].as_str().unwrap_or("!");
                if let Some(codes) = &mut streams[index.unwrap()][track] {
                    let number = value["sequenceNumber"].as_str().and_then(|n| n.parse().ok());
                    let piece = BASE64_STANDARD.decode(payload).unwrap_or_default();
                    codes.push((number, piece));
                }
            }
            _ => {}
        }
        last = Some(message);
    }
    // For late chunks the sequence numbers tell the order.
    let in_order = |mut pieces: Pieces| {
        if fixture.name.contains("late") && !fixture.name.contains("too-late") {
            pieces.sort_by_key(|(number, _)| *number);
        }
        pieces.into_iter().flat_map(|(_, codes)| codes).collect()
    };
    streams.into_iter().map(|tracks| tracks.map(|track| track.map(in_order))).collect()
}

#[test]
fn the_mulaw_table_is_that_of_ffmpeg_on_all_256_codes() {
    let codes: Vec<u8> = (0..=255).collect();
    assert_eq!(callreel_core::g711::MULAW_TABLE.to_vec(), oracle::ffmpeg_mulaw(&codes));
}

#[test]
fn alaw_is_that_of_ffmpeg_and_sox_on_all_codes_and_on_all_samples() {
    let codes: Vec<u8> = (0..=255).collect();
    let decode = |codes: &[u8]| codes.iter().map(|code| decode_alaw(*code)).collect::<Vec<_>>();
    assert_eq!(oracle::ffmpeg_alaw(&codes), decode(&codes));
    assert_eq!(oracle::sox_alaw(&codes), decode(&codes));
    // The samples in between are rounded by each tool in its own way, but never further than to the
    // next code.
    let samples: Vec<i16> = (i16::MIN..=i16::MAX).collect();
    let ours = samples.iter().map(|sample| encode_alaw(*sample));
    let steps: Vec<i16> = decode(&codes).into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    let step = |code| steps.binary_search(&decode_alaw(code)).unwrap();
    for (tool, theirs) in
        [("ffmpeg", oracle::to_alaw_by_ffmpeg(&samples)), ("SoX", oracle::to_alaw_by_sox(&samples))]
    {
        assert_eq!(theirs.len(), samples.len());
        let others =
            theirs.iter().copied().zip(ours.clone()).filter(|(theirs, ours)| theirs != ours);
        let others: Vec<_> = others.collect();
        assert!(others.len() < 1100, "{tool}: {} other codes", others.len());
        assert!(
            others.iter().all(|(theirs, ours)| step(*theirs).abs_diff(step(*ours)) == 1),
            "{tool}"
        );
    }
}
