//! The times of streams: those that their timestamps tell, of each kind that a provider sends, and those of
//! arrival, where there are none.

use std::time::Duration;

use base64::prelude::*;
use callreel_core::frame::{Provider, Track};
use callreel_core::session::{MediaClock, RING_BOTH_TRACKS_MIN, Session, SilenceBudget};
use serde_json::{Value, json};

use crate::harness::messages::chunk;
use crate::harness::peer::{FIN, Peer, TEXT, frame};
use crate::harness::process::Setup;
use crate::harness::recorder::record_one;
use crate::harness::shelf;
use crate::harness::taken::Taken;

/// A kind of stream: its start, and the message of a chunk with this number, time and payload.
type Kind = (&'static str, fn() -> Value, fn(u64, Value, String) -> Value);

const TWILIO: Kind = (
    "twilio",
    || {
        json!({"event": "start", "sequenceNumber": "1", "streamSid": "MZ1", "start": {
        "streamSid": "MZ1", "callSid": "CA1", "tracks": ["inbound"]}})
    },
    |number, time, payload| {
        json!({"event": "media", "sequenceNumber": (number + 2).to_string(),
        "streamSid": "MZ1", "media": {"track": "inbound", "timestamp": time, "payload": payload}})
    },
);

const PLIVO: Kind = (
    "plivo",
    || {
        json!({"event": "start", "sequenceNumber": 0, "start": {"callId": "c", "streamId": "s",
        "tracks": ["inbound"], "mediaFormat": {"encoding": "audio/x-l16", "sampleRate": 16_000}}})
    },
    |number, time, payload| {
        json!({"event": "media", "sequenceNumber": number + 1, "streamId": "s",
        "media": {"track": "inbound", "timestamp": time, "chunk": number + 1, "payload": payload}})
    },
);

const WAVIX: Kind = (
    "wavix",
    || {
        json!({"event": "start", "event_time": "2024-01-15T10:30:00Z", "call_id": "c",
        "stream_id": "s", "stream_type": "oneway", "channel": "inbound", "sequence_number": 1})
    },
    |number, time, payload| {
        json!({"event": "media", "call_id": "c", "stream_id": "s",
        "sequence_number": number + 2,
        "media": {"payload": payload, "track": "inbound", "timestamp": time, "chunk": number + 1}})
    },
);

const VOXIMPLANT: Kind = (
    "voximplant",
    || {
        json!({"event": "start", "sequenceNumber": 0, "start": {
        "mediaFormat": {"encoding": "PCM16", "sampleRate": 16_000}}})
    },
    |number, time, payload| {
        json!({"event": "media", "sequenceNumber": number + 1,
        "media": {"chunk": number + 1, "timestamp": time, "payload": payload}})
    },
);

/// Chunks before the gap, the gap in milliseconds, and chunks behind it. The gap is no multiple of a chunk's
/// samples, which would pass for another unit.
const CHUNKS: [u64; 2] = [14, 6];
const GAP_MS: u64 = 610;

#[test]
fn each_kind_of_timestamp_puts_audio_and_gaps_in_their_places() {
    use MediaClock::{Microseconds, Milliseconds, Samples, UnixMilliseconds};
    type Time = fn(u64) -> Value;
    let cases: [(Kind, u64, Time, MediaClock); 9] = [
        // From the start of the stream, with wobble.
        (TWILIO, 8, |ms| json!((ms + 52 + ms / 20 % 3).to_string()), Milliseconds),
        // By the clock of arrival: wide wobble.
        (TWILIO, 8, |ms| json!((ms + 40 + ms / 20 * 17 % 31).to_string()), Milliseconds),
        // Since 1970 or from the start of the stream.
        (PLIVO, 16, |ms| json!((1_764_230_000_000 + ms).to_string()), UnixMilliseconds),
        (PLIVO, 16, |ms| json!(ms), Milliseconds),
        // In a unit that is not documented.
        (WAVIX, 24, |ms| json!(160 + 24 * ms), Samples),
        (WAVIX, 24, |ms| json!(ms), Milliseconds),
        (VOXIMPLANT, 16, |ms| json!(16 * ms), Samples),
        (VOXIMPLANT, 16, |ms| json!(1000 * ms), Microseconds),
        (VOXIMPLANT, 16, |ms| json!(ms), Milliseconds),
    ];
    for ((name, start, media), per_ms, time, clock) in cases {
        let width = if name == "twilio" { 1 } else { 2 };
        let bytes = |number: u64| vec![number as u8 | 1; 20 * per_ms as usize * width];
        let mut messages = vec![];
        if name != "plivo" && name != "voximplant" {
            messages.push(json!({"event": "connected"}).to_string());
        }
        messages.push(start().to_string());
        messages.extend((0..CHUNKS[0] + CHUNKS[1]).map(|number| {
            let gap = if number >= CHUNKS[0] { GAP_MS } else { 0 };
            let payload = BASE64_STANDARD.encode(bytes(number));
            media(number, time(20 * number + gap), payload).to_string()
        }));
        let recording = record_one(&messages);
        let case = format!("{name}, {clock:?}");
        assert_eq!(recording.clock, clock, "{case}");
        let silent = recording.samples.iter().filter(|sample| **sample == 0).count() as u64;
        // Timestamps that wobble tell a gap no better.
        assert!(silent.abs_diff(GAP_MS * per_ms) <= 32 * per_ms, "{case}: {silent}");
        let at = CHUNKS[0] * 20 * per_ms;
        let [gap] = recording.gaps[..] else { panic!("{case}: {:?}", recording.gaps) };
        assert_eq!((gap.at, gap.missing, gap.is_by_arrival), (at, silent, false), "{case}");
    }
}

/// A session of Bandwidth's messages that has begun.
fn begun(tracks: &[&str], silence: SilenceBudget) -> Taken {
    let named: Vec<Value> = tracks.iter().map(|name| json!({"name": name})).collect();
    let start = json!({"eventType": "start", "metadata": {"streamId": "s", "tracks": named}});
    Taken::new(Provider::Bandwidth, &start.to_string(), tracks.len(), silence)
}

/// Takes chunk `number` of a track, which arrives at `at_ms`.
fn hear(heard: &mut Taken, track: &str, number: u64, at_ms: Option<u64>) {
    heard.session.set_arrival_ms(at_ms);
    let payload = BASE64_STANDARD.encode(chunk(number));
    heard.take(&json!({"eventType": "media", "track": track, "payload": payload}).to_string());
}

/// The gaps of a session, in milliseconds.
fn told(heard: &Taken) -> Vec<(u64, u64, u64)> {
    assert!(heard.gaps.iter().all(|gap| gap.is_by_arrival && gap.track == Track::Inbound));
    heard.gaps.iter().map(|gap| (gap.at / 8, gap.missing / 8, gap.filled / 8)).collect()
}

#[test]
fn silence_that_was_not_sent_is_filled_in_by_the_times_of_arrival() {
    let unlimited = SilenceBudget::UNLIMITED;
    // Ten chunks, each at its time and a little late, and ten more after `quiet_ms`.
    let play = |quiet_ms: u64, silence, is_known: bool| {
        let mut heard = begun(&["inbound"], silence);
        for number in 0..20 {
            let quiet_ms = if number < 10 { 0 } else { quiet_ms };
            let at_ms = 7000 + 20 * number + quiet_ms + number * 13 % 40;
            hear(&mut heard, "inbound", number, Some(at_ms).filter(|_| is_known || number != 10));
        }
        heard
    };
    let heard = play(3000, unlimited, true);
    let [(200, missing @ 2960..=3040, filled)] = told(&heard)[..] else {
        panic!("{:?}", heard.gaps)
    };
    assert_eq!(missing, filled);
    let (first, rest) = heard.codes.split_at(1600);
    let (silence, last) = rest.split_at(8 * filled as usize);
    assert!(first == (0..10).flat_map(chunk).collect::<Vec<_>>());
    assert!(silence.iter().all(|code| *code == 0xFF));
    assert!(last == (10..20).flat_map(chunk).collect::<Vec<_>>());
    // A network may be late by half a second; and where many messages come at once, they waited.
    for heard in [play(450, unlimited, true), play(3000, unlimited, false)] {
        assert_eq!((told(&heard), heard.codes.len()), (vec![], 3200));
    }
    // More than ten seconds, too: this clock is the recorder's own.
    assert!(matches!(told(&play(60_000, unlimited, true))[..], [(200, 59_000.., 59_000..)]));
    // The budget pays.
    let heard = play(40_000, SilenceBudget::new(), true);
    assert!(matches!(told(&heard)[..], [(200, 39_000.., 0)]), "{:?}", heard.gaps);
    assert_eq!(heard.codes.len(), 3200);
}

#[test]
fn both_tracks_stay_together_when_one_or_both_are_quiet() {
    let mut heard = begun(&["inbound", "outbound"], SilenceBudget::UNLIMITED);
    let mut expected = [vec![], vec![]];
    for number in 0..200u64 {
        let is_quiet = [(40..90).contains(&number), (60..150).contains(&number)];
        for (track, is_quiet) in is_quiet.into_iter().enumerate() {
            if is_quiet {
                expected[track].extend([0xFF; 160]);
            } else {
                hear(&mut heard, ["inbound", "outbound"][track], number, Some(20 * number));
                expected[track].extend(chunk(number));
            }
        }
    }
    let mut turn = heard.session.handle_end();
    let mut out = [0; 512];
    while let count @ 1.. = turn.poll_wire(&mut out) {
        heard.codes.extend(&out[..count]);
    }
    for (channel, expected) in expected.into_iter().enumerate() {
        let found: Vec<u8> = heard.codes.iter().skip(channel).step_by(2).copied().collect();
        let first = found.iter().zip(&expected).position(|(found, sent)| found != sent);
        assert_eq!((first, found.len()), (None, expected.len()), "channel {channel}");
    }
}

#[test]
fn other_providers_do_not_depend_on_the_time_of_arrival() {
    let mut session = Session::new(Provider::Twilio, vec![0; RING_BOTH_TRACKS_MIN]);
    let mut count = 0;
    for (at_ms, message) in [
        (0, json!({"event": "start", "streamSid": "MZ1"})),
        (10, json!({"event": "media", "media": {"payload": "gIB/fw=="}})),
        (9000, json!({"event": "media", "media": {"payload": "gIB/fw=="}})),
    ] {
        session.set_arrival_ms(Some(at_ms));
        let mut text = message.to_string().into_bytes();
        let mut turn = session.handle_message(&mut text).unwrap();
        while let more @ 1.. = turn.poll_wire(&mut [0; 512]) {
            count += more;
        }
    }
    assert_eq!(count, 8);
}

#[test]
fn a_server_fills_in_the_silence_of_bandwidth_and_its_record_says_by_what() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).args(&["--admin", "127.0.0.1:0"]).start();
    let start = json!({"eventType": "start", "metadata": {"callId": "c-1", "streamId": "s-1",
        "tracks": [{"name": "inbound", "mediaFormat": {"encoding": "PCMU", "sampleRate": 8000}}]}});
    let mut peer = Peer::connect(&server, "s-1");
    let mut say = |message: &Value| peer.send(&frame(FIN | TEXT, message.to_string().as_bytes()));
    say(&start);
    for number in 0..10 {
        if number == 5 {
            // The caller is quiet, and nothing is sent.
            std::thread::sleep(Duration::from_millis(1300));
        }
        let payload = BASE64_STANDARD.encode(chunk(number));
        say(&json!({"eventType": "media", "track": "inbound", "payload": payload}));
    }
    say(&json!({"eventType": "stop", "metadata": {"streamId": "s-1"}}));
    assert_eq!(peer.close_code(), Some(1000));
    let found = shelf::wait_for(dir.path(), "s-1");
    let gap = &found.record["gaps"][0];
    assert_eq!((&gap["filled_by"], &gap["at_ms"]), (&json!("arrival"), &json!(100)), "{gap}");
    let filled = gap["filled_ms"].as_u64().unwrap();
    assert!(filled > 700, "{filled}");
    assert_eq!(found.record["duration_ms"], 200 + filled);
    assert_eq!(found.record["wire"]["clock"], "absent");
}
