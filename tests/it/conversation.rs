//! The facts of a conversation: of scripted calls they are as the script says, however the audio comes.

use std::path::Path;

use callreel::admin::Config;
use callreel::audio::Audio;
use callreel_core::conversation::{Conversation, Event, Heard, Totals};
use callreel_core::format::{Codec, Format};
use callreel_core::frame::Track::{self, Inbound, Outbound};
use callreel_core::g711::{encode_alaw, encode_mulaw};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::admin::validate;
use crate::harness::admin::Recorder;
use crate::harness::messages::{media, start};
use crate::harness::oracle;
use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, Setup, eventually};
use crate::harness::{python, shelf};

/// Longest error of a time in these facts, in milliseconds.
const ERROR_MS: u64 = 10;

/// A side's sound: track, beginning and end in milliseconds, and the amplitude.
type Said = (Track, u64, u64, f64);

/// The samples of a call, inbound and outbound by turns: tones in the noise of a line.
fn played(script: &[Said], length_ms: u64, noise: f64, rate_hz: u32) -> Vec<i16> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut samples = Vec::new();
    for index in 0..length_ms * u64::from(rate_hz) / 1000 {
        let at_ms = index * 1000 / u64::from(rate_hz);
        for track in [Inbound, Outbound] {
            let is_on = |said: &&Said| said.0 == track && (said.1..said.2).contains(&at_ms);
            let loud = script.iter().find(is_on).map_or(0.0, |said| said.3);
            let hz = if track == Inbound { 440.0 } else { 310.0 };
            let angle = index as f64 / f64::from(rate_hz) * hz * std::f64::consts::TAU;
            let tone = if loud > 0.0 { angle.sin() * loud } else { 0.0 };
            let noise = if noise > 0.0 { (random.f64() - 0.5) * 2.0 * noise } else { 0.0 };
            samples.push((tone + noise) as i16);
        }
    }
    samples
}

/// The samples as a provider sends them.
fn wire(samples: &[i16], codec: Codec) -> Vec<u8> {
    let samples = samples.iter();
    match codec {
        Codec::Alaw => samples.map(|sample| encode_alaw(*sample)).collect(),
        Codec::Mulaw => samples.map(|sample| encode_mulaw(*sample)).collect(),
        Codec::L16Be => samples.flat_map(|sample| sample.to_be_bytes()).collect(),
        Codec::L16Le | Codec::G722 => samples.flat_map(|sample| sample.to_le_bytes()).collect(),
    }
}

fn drain(mut heard: Heard<'_, '_>, events: &mut Vec<Event>) {
    while let Some(event) = heard.poll() {
        events.push(event);
    }
}

/// All facts of a call that comes at once.
fn facts(bytes: &[u8], format: Format) -> (Vec<Event>, Totals) {
    let (mut conversation, mut events) = (Conversation::new(format), Vec::new());
    drain(conversation.handle_audio(bytes), &mut events);
    drain(conversation.handle_end(), &mut events);
    (events, conversation.totals())
}

/// Checks that two lists of facts are equal but for errors of their times.
fn assert_near(found: &[Event], expected: &[Event]) {
    let word = |event: &Event| match *event {
        Event::Began { track, at_ms } => ("began", Some(track), vec![at_ms], false),
        Event::Ended { track, at_ms, duration_ms } => {
            ("ended", Some(track), vec![at_ms, duration_ms], false)
        }
        Event::Turn { track, at_ms, latency_ms } => {
            ("turn", Some(track), vec![at_ms, latency_ms.unwrap_or(u64::MAX)], false)
        }
        Event::Interruption { by, at_ms, overlap_ms, is_heeded } => {
            ("interruption", Some(by), vec![at_ms, overlap_ms], is_heeded)
        }
        Event::DeadAir { at_ms, duration_ms } => {
            ("dead air", None, vec![at_ms, duration_ms], false)
        }
        _ => panic!("{event:?}"),
    };
    let is_near = found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| {
            let (found, expected) = (word(found), word(expected));
            let near = |(a, b): (&u64, &u64)| a.abs_diff(*b) <= ERROR_MS;
            (found.0, found.1, found.3) == (expected.0, expected.1, expected.3)
                && found.2.iter().zip(&expected.2).all(near)
        });
    assert!(is_near, "found {found:#?}\nexpected {expected:#?}");
}

/// A call with every kind of fact, and its length.
const SCRIPT: [Said; 9] = [
    // The caller, with a pause that is no turn.
    (Inbound, 1003, 1900, 6000.0),
    (Inbound, 2200, 3097, 6000.0),
    // Answered after 704 ms.
    (Outbound, 3801, 6500, 9000.0),
    // Interrupted by the caller, and heeded after 500 ms.
    (Inbound, 6000, 7204, 5000.0),
    // Answered after 1.2 s, with the caller's word of 400 ms between.
    (Outbound, 8404, 10_800, 9000.0),
    (Inbound, 9300, 9700, 4000.0),
    // The caller goes on after 600 ms; the bot is in the caller's way for 150 ms, which is no interruption.
    (Inbound, 11_400, 13_000, 6000.0),
    (Outbound, 12_850, 14_000, 9000.0),
    // Dead air, and a click that is no speech.
    (Inbound, 18_000, 18_030, 9000.0),
];
const LENGTH_MS: u64 = 20_000;

fn expected() -> Vec<Event> {
    let began = |track, at_ms| Event::Began { track, at_ms };
    let ended =
        |track, at_ms, until_ms| Event::Ended { track, at_ms, duration_ms: until_ms - at_ms };
    let turn = |track, at_ms, latency_ms| Event::Turn { track, at_ms, latency_ms };
    let interruption =
        |by, at_ms, overlap_ms, is_heeded| Event::Interruption { by, at_ms, overlap_ms, is_heeded };
    vec![
        began(Inbound, 1003),
        turn(Inbound, 1003, None),
        ended(Inbound, 1003, 3097),
        began(Outbound, 3801),
        turn(Outbound, 3801, Some(704)),
        began(Inbound, 6000),
        ended(Outbound, 3801, 6500),
        interruption(Inbound, 6000, 500, true),
        turn(Inbound, 6000, None),
        ended(Inbound, 6000, 7204),
        began(Outbound, 8404),
        turn(Outbound, 8404, Some(1200)),
        began(Inbound, 9300),
        ended(Inbound, 9300, 9700),
        interruption(Inbound, 9300, 400, false),
        ended(Outbound, 8404, 10_800),
        began(Inbound, 11_400),
        turn(Inbound, 11_400, Some(600)),
        began(Outbound, 12_850),
        ended(Inbound, 11_400, 13_000),
        turn(Outbound, 12_850, Some(0)),
        ended(Outbound, 12_850, 14_000),
        Event::DeadAir { at_ms: 14_000, duration_ms: 6000 },
    ]
}

#[test]
fn a_scripted_call_has_the_facts_of_its_script_in_every_format_and_in_noise() {
    for (codec, sample_rate_hz) in [
        (Codec::Mulaw, 8000),
        (Codec::Alaw, 8000),
        (Codec::Alaw, 9000),
        (Codec::L16Le, 16_000),
        (Codec::L16Be, 11_000),
        // No whole number of samples in five milliseconds.
        (Codec::L16Le, 44_100),
    ] {
        // Digital silence, a quiet line, and a line at -50 dB.
        for noise in [0.0, 20.0, 180.0] {
            let samples = played(&SCRIPT, LENGTH_MS, noise, sample_rate_hz);
            let bytes = wire(&samples, codec);
            let (events, totals) = facts(&bytes, Format { codec, sample_rate_hz });
            assert_near(&events, &expected());
            let Totals { inbound, outbound, .. } = totals;
            assert_eq!((inbound.turns, outbound.turns, inbound.interruptions), (3, 3, 2));
            assert_eq!((outbound.interruptions, totals.duration_ms), (0, LENGTH_MS));
            assert!(inbound.talk_ms.abs_diff(2094 + 1204 + 400 + 1600) <= 4 * ERROR_MS);
            assert!(totals.overlap_ms.abs_diff(500 + 400 + 150) <= 3 * ERROR_MS);
            let talk_ms = inbound.talk_ms + outbound.talk_ms;
            assert_eq!(talk_ms + totals.silence_ms - totals.overlap_ms, LENGTH_MS);
        }
    }
}

#[test]
fn a_latency_is_true_within_ten_milliseconds_wherever_the_sounds_lie() {
    for shift_ms in 0..20 {
        let script = [
            (Inbound, 200 + shift_ms * 7, 700 + shift_ms * 3, 3000.0),
            (Outbound, 1500 + shift_ms, 1800, 3000.0),
        ];
        let expected = 800 + shift_ms - shift_ms * 3;
        let bytes = wire(&played(&script, 2500, 15.0, 8000), Codec::Mulaw);
        let (events, _) = facts(&bytes, Format::TELEPHONE);
        let latencies = events.iter().filter_map(|event| match event {
            Event::Turn { track: Outbound, latency_ms, .. } => Some(latency_ms.unwrap()),
            _ => None,
        });
        let latencies: Vec<u64> = latencies.collect();
        let [latency] = latencies[..] else { panic!("{events:?}") };
        assert!(latency <= expected && expected - latency < ERROR_MS, "{latency} {expected}");
    }
}

#[test]
fn steady_noise_is_no_speech_for_long_and_a_loud_tone_always_is() {
    let noise = wire(&played(&[], 30_000, 500.0, 8000), Codec::Mulaw);
    let (_, totals) = facts(&noise, Format::TELEPHONE);
    assert!(totals.inbound.talk_ms < 500, "{totals:?}");
    // Noise that begins later is speech until it is known as noise.
    let late = [wire(&played(&[], 3000, 0.0, 8000), Codec::Mulaw), noise].concat();
    let (_, totals) = facts(&late, Format::TELEPHONE);
    assert!(totals.inbound.talk_ms < 11_000, "{totals:?}");
    let tone = [(Outbound, 1000, 31_000, 9000.0)];
    let (_, totals) =
        facts(&wire(&played(&tone, 32_000, 20.0, 8000), Codec::Mulaw), Format::TELEPHONE);
    assert!(totals.outbound.talk_ms.abs_diff(30_000) <= ERROR_MS, "{totals:?}");
}

/// A call at random: the lengths of sounds and pauses of each side in milliseconds.
fn calls() -> impl Strategy<Value = Vec<i16>> {
    let side = || prop::collection::vec((0_u64..1200, 5_u64..1000), 0..8);
    (side(), side()).prop_map(|sides| {
        let mut script = Vec::new();
        for (track, parts) in [(Inbound, sides.0), (Outbound, sides.1)] {
            let mut at_ms = 0;
            for (pause_ms, sound_ms) in parts {
                let from_ms = at_ms + pause_ms;
                at_ms = from_ms + sound_ms;
                script.push((track, from_ms, at_ms, 4000.0));
            }
        }
        played(&script, 8000, 0.0, 8000)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(25))]

    #[test]
    fn any_split_of_the_audio_gives_the_same_facts(
        samples in calls(),
        cuts in prop::collection::vec(1_usize..3000, 1..40),
        is_number in any::<bool>(),
    ) {
        let bytes = wire(&samples, Codec::Mulaw);
        let whole = facts(&bytes, Format::TELEPHONE);
        let (mut conversation, mut events) = (Conversation::new(Format::TELEPHONE), Vec::new());
        let (mut rest, mut cuts) = (&bytes[..], cuts.into_iter().cycle());
        while !rest.is_empty() {
            let count = (2 * cuts.next().unwrap()).min(rest.len());
            let (piece, after) = rest.split_at(count);
            if is_number && piece.iter().all(|code| *code == 0xFF) {
                drain(conversation.handle_silence(count as u64 / 2), &mut events);
            } else {
                drain(conversation.handle_audio(piece), &mut events);
            }
            rest = after;
        }
        drain(conversation.handle_end(), &mut events);
        prop_assert_eq!(&(events, conversation.totals()), &whole);

        // Segments of a side are speech apart from each other, and add up to its talk.
        let (events, totals) = whole;
        for track in [Inbound, Outbound] {
            let segments: Vec<(u64, u64)> = events.iter().filter_map(|event| match *event {
                Event::Ended { track: of, at_ms, duration_ms } if of == track => {
                    Some((at_ms, duration_ms))
                }
                _ => None,
            }).collect();
            prop_assert!(segments.iter().all(|(_, duration_ms)| *duration_ms >= 50));
            prop_assert!(segments.windows(2).all(|two| two[0].0 + two[0].1 + 400 <= two[1].0));
            let talk_ms: u64 = segments.iter().map(|(_, duration_ms)| duration_ms).sum();
            prop_assert_eq!(talk_ms, totals.side(track).talk_ms);
        }
        let talk_ms = totals.inbound.talk_ms + totals.outbound.talk_ms;
        prop_assert_eq!(talk_ms + totals.silence_ms - totals.overlap_ms, totals.duration_ms);
    }

    #[test]
    fn no_bytes_and_no_silence_are_too_much(
        pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..2000), any::<u64>()), 1..20),
        rate in prop::sample::select(vec![0, 1, 441, 1000, 8000, 16_000, 44_100, 192_000]),
    ) {
        for codec in [Codec::Alaw, Codec::G722, Codec::L16Be, Codec::L16Le, Codec::Mulaw] {
            let format = Format { codec, sample_rate_hz: rate };
            let mut conversation = Conversation::new(format);
            for (bytes, silence) in &pieces {
                drop(conversation.handle_audio(bytes));
                drop(conversation.handle_silence(*silence));
            }
            drop(conversation.handle_end());
            let totals = conversation.totals();
            prop_assert!(totals.overlap_ms <= totals.inbound.talk_ms);
        }
    }
}

/// The script as the audio of a call.
pub(crate) fn audio() -> Audio {
    let samples = played(&SCRIPT, LENGTH_MS, 15.0, 8000);
    let side = |first: usize| {
        samples.iter().skip(first).step_by(2).map(|sample| encode_mulaw(*sample)).collect()
    };
    Audio::stereo(side(0), side(1))
}

#[test]
fn a_recorded_call_tells_its_facts_in_its_record_and_in_the_metrics() {
    let recorder = Recorder::start(Config::default());
    let mut plan = recorder.plan();
    plan.flood = true;
    plan.audio = Some(audio());
    assert!(recorder.place(&plan).is_good());
    let summary = &recorder.wait_for_recordings(1)[0];
    let path = format!(
        "/api/v1/recordings/{}/{}",
        summary["day"].as_str().unwrap(),
        summary["id"].as_str().unwrap()
    );
    let record = recorder.get(&path).json();
    let told = &record["conversation"];
    check_record(told);
    // The same in the file beside the WAV.
    assert_eq!(records(recorder.dir.path()), std::slice::from_ref(&record));
    let description = recorder.get("/openapi.json").json();
    let schemas = &description["components"]["schemas"];
    validate(&description, &schemas["Record"], &record);
    let metrics = recorder.get("/metrics").text().to_owned();
    let value = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name}")).parse::<f64>().unwrap()
    };
    assert_eq!(value("callreel_turns_total{track=\"inbound\"}"), 3.0);
    assert_eq!(value("callreel_turns_total{track=\"outbound\"}"), 3.0);
    assert_eq!(value("callreel_interruptions_total{track=\"inbound\"}"), 2.0);
    assert_eq!(value("callreel_interruptions_total{track=\"outbound\"}"), 0.0);
    // 0, 0.7 and 1.2 s.
    let bucket =
        |le: &str| value(&format!("callreel_response_latency_seconds_bucket{{le=\"{le}\"}}"));
    assert_eq!(
        ["0.1", "0.5", "1.0", "1.5", "10.0", "+Inf"].map(bucket),
        [1.0, 1.0, 2.0, 3.0, 3.0, 3.0]
    );
    // A call with one track has none.
    plan.audio = Some(Audio::mono(vec![0x80; 16_000]));
    assert!(recorder.place(&plan).is_good());
    recorder.wait_for_recordings(2);
    let one = records(recorder.dir.path()).into_iter();
    let one: Vec<Value> = one.filter(|record| record["tracks"] == json!(["inbound"])).collect();
    assert!(one.len() == 1 && one[0].get("conversation").is_none(), "{one:?}");
}

/// The end records of a folder.
fn records(dir: &Path) -> Vec<Value> {
    let files = shelf::contents(dir).into_iter();
    let records = files.filter(|(path, _)| path.extension().is_some_and(|end| end == "json"));
    records.map(|(_, text)| serde_json::from_slice(&text).unwrap()).collect()
}

/// Checks the facts of the script's call in its record.
fn check_record(told: &Value) {
    let near = |value: &Value, expected: u64| {
        assert!(value.as_u64().unwrap().abs_diff(expected) <= ERROR_MS, "{value} {expected}");
    };
    let [inbound, outbound] = [&told["sides"][0], &told["sides"][1]];
    assert_eq!((&inbound["track"], &outbound["track"]), (&json!("inbound"), &json!("outbound")));
    near(&inbound["first_word_ms"], 1003);
    near(&outbound["first_word_ms"], 3801);
    assert_eq!(outbound["segments"].as_array().unwrap().len(), 3);
    near(&outbound["segments"][1]["at_ms"], 8404);
    near(&outbound["segments"][1]["duration_ms"], 2396);
    let turns = told["turns"].as_array().unwrap();
    assert_eq!(turns.len(), 6);
    near(&turns[1]["latency_ms"], 704);
    assert_eq!(turns[2].get("latency_ms"), None);
    near(&told["response_median_ms"], 704);
    near(&told["response_max_ms"], 1200);
    let interruption = &told["interruptions"][0];
    assert_eq!(
        (&interruption["by"], &interruption["is_heeded"]),
        (&json!("inbound"), &json!(true))
    );
    near(&interruption["overlap_ms"], 500);
    near(&told["dead_air"][0]["at_ms"], 14_000);
    near(&told["dead_air_ms"], 6000);
    let ratios = [&inbound["talk_ratio"], &outbound["talk_ratio"], &told["silence_ratio"]];
    let [inbound, outbound, silence] = ratios.map(|ratio| ratio.as_f64().unwrap());
    assert!((inbound - 0.265).abs() < 0.003 && (outbound - 0.312).abs() < 0.003);
    assert!((silence - 0.475).abs() < 0.005, "{silence}");
}

#[test]
fn a_live_call_shows_its_facts_and_a_crash_keeps_those_that_were_noted() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Setup::new(dir.path()).args(&["--admin", "127.0.0.1:0"]).start();
    let mut peer = Peer::connect(&server, "MZ1");
    peer.text(&start(&["inbound", "outbound"]));
    let audio = audio();
    let sides = [("inbound", audio.inbound()), ("outbound", audio.outbound().unwrap())];
    let mut sequence = 2;
    for chunk in 0..400 {
        for (track, codes) in sides {
            let codes = &codes[chunk as usize * 160..][..160];
            peer.text(&media(track, sequence, chunk * 20, codes));
            sequence += 1;
        }
    }
    peer.text(r#"{"event":"mark","streamSid":"MZ1","mark":{"name":"here"}}"#);
    let talk = eventually(PATIENCE, "the live call tells its facts", || {
        let (_, answer) = server.ask_admin("/api/v1/calls");
        let calls: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1)?).ok()?;
        let talk = &calls["calls"][0]["conversation"];
        (talk["turns"] == json!([2, 1])).then(|| talk.clone())
    });
    assert_eq!(
        (&talk["interruptions"], &talk["is_speaking"]),
        (&json!([1, 0]), &json!([false, false]))
    );
    assert!(talk["response_ms"].as_u64().unwrap().abs_diff(704) <= ERROR_MS, "{talk}");
    let (_, description) = server.ask_admin("/openapi.json");
    let description: Value =
        serde_json::from_str(description.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    validate(&description, &description["components"]["schemas"]["Talk"], &talk);
    eventually(PATIENCE, "the record on the disk tells them", || {
        let files = shelf::contents(dir.path());
        let (_, text) = files.iter().find(|(path, _)| path.ends_with("MZ1.json.part"))?;
        let record: Value = serde_json::from_slice(text).ok()?;
        (record["conversation"]["turns"].as_array()?.len() == 3).then_some(())
    });
    server.kill();
    drop(Setup::new(dir.path()).start_and_recover());
    let record = &records(dir.path())[0];
    assert_eq!(record["state"], "recovered");
    let told = &record["conversation"];
    assert_eq!(told["sides"][0]["segments"].as_array().unwrap().len(), 2, "{told}");
    assert_eq!(told["interruptions"][0]["by"], "inbound");
}

/// Parts of prompts, 10 ms each, in which webrtcvad hears speech.
const WEBRTC: &str = "import base64, json, sys, webrtcvad\n\
    vad = webrtcvad.Vad(2)\n\
    pcm = base64.b64decode(sys.stdin.read())\n\
    step = 160\n\
    print(json.dumps([vad.is_speech(pcm[at:at + step], 8000)\n\
        for at in range(0, len(pcm) - step + 1, step)]))";

#[test]
fn speech_of_people_is_heard_where_another_detector_hears_it() {
    if std::env::var_os("CALLREEL_LONG").is_none() {
        return;
    }
    use base64::prelude::*;
    let folder = "/usr/share/asterisk/sounds/en_US_f_Allison";
    let mut prompts: Vec<_> = std::fs::read_dir(folder)
        .expect("apt-get install asterisk-core-sounds-en-gsm")
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "gsm"))
        .filter(|path| path.metadata().unwrap().len() > 1650 * 3)
        .collect();
    prompts.sort();
    let mut pcm = Vec::new();
    for path in prompts.iter().step_by(4) {
        let from = path.to_str().unwrap();
        let prompt = oracle::run(
            "sox",
            &["-D", from, "-t", "raw", "-e", "signed", "-b", "16", "-L", "-"],
            &[],
        );
        pcm.extend(oracle::samples(&prompt));
        pcm.extend([0; 8000]);
    }
    let bytes: Vec<u8> = pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let judged = python::run(WEBRTC, &BASE64_STANDARD.encode(&bytes));
    let judged: Vec<bool> = serde_json::from_str(&judged).unwrap();
    let both: Vec<i16> = pcm.iter().flat_map(|sample| [*sample, 0]).collect();
    let (events, totals) = facts(&wire(&both, Codec::Mulaw), Format::TELEPHONE);
    let mut heard = vec![false; judged.len()];
    for event in &events {
        if let Event::Ended { track: Inbound, at_ms, duration_ms } = event {
            let parts = (*at_ms / 10) as usize..((at_ms + duration_ms) / 10) as usize;
            heard[parts].fill(true);
        }
    }
    // Pauses of less than 400 ms are part of a segment.
    let judged = bridged(&judged, 40);
    let equal = heard.iter().zip(&judged).filter(|(one, other)| one == other).count();
    let agreement = equal as f64 / judged.len() as f64;
    eprintln!(
        "{} prompts, {} s, {} segments: {:.1} % of 10 ms parts agree",
        prompts.len().div_ceil(4),
        pcm.len() / 8000,
        totals.inbound.segments,
        agreement * 100.0
    );
    assert!(agreement > 0.9, "{agreement}");
}

/// The parts with those between two true ones fewer than `length` apart.
fn bridged(parts: &[bool], length: usize) -> Vec<bool> {
    let mut bridged = parts.to_vec();
    let mut last = None;
    for (at, is_speech) in parts.iter().enumerate() {
        if *is_speech {
            if let Some(last) = last.filter(|last| at - last < length) {
                bridged[last..at].fill(true);
            }
            last = Some(at);
        }
    }
    bridged
}
