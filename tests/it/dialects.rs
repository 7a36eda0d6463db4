//! Providers beside Twilio: the audio of their messages as an independent tool decodes it, messages that
//! overtake each other, and the ways to tell a provider.

mod answered;
mod binary;
mod lenient;
mod served;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use base64::prelude::*;
use callreel_core::frame::{Detector, Provider, Verdict};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::harness::client::{Said, said};
use crate::harness::fixtures::{self, Fixture};
use crate::harness::oracle;
use crate::harness::recorder::record_one;

/// Folders of fixtures, beside Twilio's.
const FOLDERS: [&str; 17] = [
    "acs",
    "asterisk",
    "audiocodes",
    "bandwidth",
    "clones",
    "exotel",
    "genesys",
    "jambonz",
    "plivo",
    "ringcentral",
    "signalwire",
    "sinch",
    "telnyx",
    "voximplant",
    "vonage",
    "wavix",
    "webex",
];

/// The fixtures of all providers but Twilio, and those of Twilio's dialect by others, in the order of
/// their folders and names.
pub(crate) fn all_fixtures() -> Vec<Fixture> {
    FOLDERS.into_iter().flat_map(fixtures::in_folder).collect()
}

/// Name of a fixture's folder.
fn folder(fixture: &Fixture) -> String {
    let wav = fixture.wav(0);
    let folder = wav.parent().and_then(Path::file_name).unwrap();
    folder.to_string_lossy().into_owned()
}

/// A stream of a fixture, read without core.
#[derive(Default)]
struct Sent {
    /// The name by which its media messages are found: an id or a tag.
    id: Value,
    /// ffmpeg's name of its format.
    format: &'static str,
    /// Bytes of each track, by chunk number.
    tracks: [Vec<(u64, Vec<u8>)>; 2],
}

/// ffmpeg's name for an encoding, which a provider may name in many ways.
fn format_of(folder: &str, encoding: &str) -> &'static str {
    let encoding = encoding.to_ascii_lowercase();
    let is = |names: &[&str]| names.iter().any(|name| encoding.contains(name));
    match () {
        () if is(&["mulaw", "pcmu"]) => "mulaw",
        () if is(&["alaw", "pcma"]) => "alaw",
        () if folder == "telnyx" => "s16be",
        () => "s16le",
    }
}

/// The stream of a fixture with audio in binary messages, if it has any.
fn sent_in_binary(fixture: &Fixture) -> Option<Sent> {
    let (mut format, mut channels, mut audio) = ("s16le", 1, Vec::new());
    for line in fixture.messages() {
        let text = match said(&line) {
            Said::Binary(bytes) => {
                audio.extend(bytes);
                continue;
            }
            Said::Text(text) => String::from_utf8(text).unwrap(),
        };
        if text.contains("MEDIA_START") && text.contains("ulaw") || text.contains("PCMU") {
            format = "mulaw";
        }
        if text.contains("\"mixType\":\"stereo\"") || text.contains("[\"external\",\"internal\"]") {
            channels = 2;
        }
    }
    let samples: Vec<&[u8]> = audio.chunks(if format == "mulaw" { 1 } else { 2 }).collect();
    let track = |channel| {
        let bytes = samples.iter().skip(channel).step_by(channels);
        let bytes = bytes.flat_map(|sample| sample.to_vec()).collect();
        if channel < channels { vec![(0, bytes)] } else { vec![] }
    };
    let tracks = [track(0), track(1)];
    (!audio.is_empty()).then(|| Sent { format, tracks, ..Sent::default() })
}

/// The streams of a fixture, in the order of their starts.
fn sent(fixture: &Fixture) -> Vec<Sent> {
    if let Some(stream) = sent_in_binary(fixture) {
        return vec![stream];
    }
    if ["acs", "audiocodes", "genesys", "ringcentral", "webex"].contains(&&*folder(fixture)) {
        return answered::sent(fixture);
    }
    let mut streams: Vec<Sent> = Vec::new();
    for message in fixture.messages() {
        let message: Value = serde_json::from_slice(&message).unwrap();
        let one_of = |paths: &[&str]| {
            let mut found = paths.iter().filter_map(|path| message.pointer(path));
            found.next().cloned().unwrap_or_default()
        };
        let id = one_of(&[
            "/streamSid",
            "/start/streamSid",
            "/stream_id",
            "/streamId",
            "/start/streamId",
            "/stream_sid",
            "/start/tag",
            "/media/tag",
        ]);
        match one_of(&["/event", "/eventType"]).as_str().unwrap() {
            "start" => {
                let encoding = one_of(&[
                    "/start/mediaFormat/encoding",
                    "/start/media_format/encoding",
                    "/metadata/tracks/0/mediaFormat/encoding",
                ]);
                let format = format_of(&folder(fixture), encoding.as_str().unwrap_or_default());
                streams.push(Sent { id, format, ..Sent::default() });
            }
            "media" => {
                let track = one_of(&["/media/track", "/track"]);
                let track = usize::from(track.as_str() == Some("outbound"));
                let payload = one_of(&["/media/payload", "/payload"]);
                let payload = payload.as_str().unwrap();
                let padded = BASE64_STANDARD.decode(payload);
                let payload = padded.or_else(|_| BASE64_STANDARD_NO_PAD.decode(payload));
                let number = match one_of(&["/media/chunk"]) {
                    Value::String(text) => text.parse().unwrap(),
                    number => number.as_u64().unwrap_or_default(),
                };
                let named = streams.iter().rposition(|stream| stream.id == id);
                let stream = &mut streams[named.unwrap_or(0)];
                if let Ok(payload) = payload {
                    stream.tracks[track].push((number, payload));
                }
            }
            _ => {}
        }
    }
    streams
}

#[test]
fn the_audio_of_every_dialect_is_in_its_file_as_ffmpeg_decodes_it() {
    // A tool's start takes longer than its work: each gets all at once.
    let (mut wavs, mut expected, mut sent_bytes) = (Vec::new(), Vec::new(), BTreeMap::new());
    for fixture in all_fixtures() {
        // A gap and a message that is rejected are the matter of the golden files, and a decoder with a
        // state that of the area `g722`.
        let others = [
            "a-pause-and-lost-audio",
            "documented-messages",
            "g722-with-a-lost-chunk",
            "outbound-begins-later",
        ];
        if others.contains(&&*fixture.name) {
            continue;
        }
        for (index, stream) in sent(&fixture).into_iter().enumerate() {
            let Ok(wav) = fs::read(fixture.wav(index)) else { continue };
            let channels = usize::from(wav[22]);
            let mut tracks = Vec::new();
            for mut chunks in stream.tracks.into_iter().take(channels) {
                chunks.sort_by_key(|(number, _)| *number);
                let bytes: Vec<u8> = chunks.into_iter().flat_map(|(_, bytes)| bytes).collect();
                let all: &mut Vec<u8> = sent_bytes.entry(stream.format).or_default();
                let width = if stream.format.starts_with('s') { 2 } else { 1 };
                tracks.push((all.len() / width, bytes.len() / width));
                all.extend(bytes);
            }
            wavs.push(wav);
            expected.push((
                format!("{}/{}", folder(&fixture), fixture.name),
                stream.format,
                tracks,
            ));
        }
    }
    let read = oracle::Wavs::new("dialects", wavs.iter().map(Vec::as_slice)).ffmpeg();
    let decoded: BTreeMap<_, _> = sent_bytes
        .iter()
        .map(|(format, bytes)| (*format, oracle::ffmpeg_raw(format, bytes)))
        .collect();
    let mut compared = 0;
    for ((name, format, tracks), read) in expected.into_iter().zip(read) {
        for (channel, (at, count)) in tracks.iter().enumerate() {
            let samples: Vec<i16> =
                read.iter().skip(channel).step_by(tracks.len()).copied().collect();
            let is_silent = *count == 0 && samples.iter().all(|s| s.unsigned_abs() <= 8);
            let is_equal = is_silent || samples == decoded[format][*at..*at + *count];
            assert!(is_equal, "{name}: channel {channel}");
            compared += samples.len();
        }
    }
    assert!(compared > 20_000, "{compared} samples");
}

/// The messages of a Telnyx call with these chunks of the two tracks, in the order given.
fn telnyx_call(order: &[(bool, u64)]) -> Vec<String> {
    let mut messages = vec![
        json!({"event": "connected", "version": "1.0.0"}).to_string(),
        json!({"event": "start", "sequence_number": "1", "stream_id": "S1", "start": {
            "call_control_id": "v2:1",
            "media_format": {"encoding": "PCMU", "sample_rate": 8000, "channels": 1},
        }})
        .to_string(),
    ];
    messages.extend(order.iter().map(|(is_outbound, number)| {
        let track = if *is_outbound { "outbound" } else { "inbound" };
        let payload = BASE64_STANDARD.encode(codes(*is_outbound, *number));
        json!({"event": "media", "stream_id": "S1", "sequence_number": "7", "media": {
            "track": track, "chunk": number.to_string(),
            "timestamp": (20 * number).to_string(), "payload": payload,
        }})
        .to_string()
    }));
    messages.push(json!({"event": "stop", "stream_id": "S1"}).to_string());
    messages
}

/// The codes of a chunk, different in each.
fn codes(is_outbound: bool, number: u64) -> Vec<u8> {
    let step = 3 + 2 * u64::from(is_outbound);
    (0..160).map(|place| (number * 41 + place * step) as u8 | 1).collect()
}

/// The chunks 1 to `count` of a track, each up to two places later than its turn.
fn disorder(count: u64) -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(0..=2u64, count as usize).prop_map(move |delays| {
        let mut chunks: Vec<u64> = (1..=count).collect();
        chunks.sort_by_key(|number| number + delays[*number as usize - 1]);
        chunks
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever overtakes what by two places, the recording is that of the messages in order.
    #[test]
    fn chunks_of_telnyx_are_put_in_order_by_track_and_number(
        inbound in disorder(14),
        outbound in disorder(14),
    ) {
        let both = inbound.iter().zip(&outbound);
        let order: Vec<_> = both.flat_map(|(i, o)| [(false, *i), (true, *o)]).collect();
        let recording = record_one(&telnyx_call(&order));
        for (channel, is_outbound) in [false, true].into_iter().enumerate() {
            let codes: Vec<u8> = (1..=14).flat_map(|number| codes(is_outbound, number)).collect();
            let expected = codes.into_iter().map(callreel_core::g711::decode_mulaw);
            prop_assert!(recording.channel(channel).into_iter().eq(expected), "{order:?}");
        }
        prop_assert_eq!((recording.stats.late, recording.stats.media), (0, 28));
        prop_assert_eq!(recording.stats.missing, recording.stats.reordered);
        prop_assert_eq!(recording.gaps, vec![]);
    }
}

#[test]
fn a_chunk_of_telnyx_that_never_comes_is_silence_and_missing() {
    let order = [1, 2, 4, 5, 6, 7, 8, 9].map(|number| (false, number));
    let recording = record_one(&telnyx_call(&order));
    let samples = recording.channel(0);
    assert!(samples[320..480].iter().all(|sample| *sample == 0) && samples.len() == 9 * 160);
    assert_eq!((recording.stats.missing, recording.gaps.len()), (1, 1));
    // Numbers that begin elsewhere tell of no loss.
    for first in [2, 3, 500] {
        let order: Vec<_> = (first..first + 6).map(|number| (false, number)).collect();
        let recording = record_one(&telnyx_call(&order));
        let expected: Vec<u8> =
            (first..first + 6).flat_map(|number| codes(false, number)).collect();
        let expected = expected.into_iter().map(callreel_core::g711::decode_mulaw);
        assert!(recording.channel(0).into_iter().eq(expected), "{first}");
        assert_eq!((recording.stats.missing, recording.gaps), (0, vec![]), "{first}");
    }
}

/// The verdict on these messages, the last of which decides.
fn verdict(messages: &[&str]) -> Verdict {
    let mut detector = Detector::new();
    for message in messages {
        detector.note_text(&mut message.as_bytes().to_vec()).unwrap();
    }
    detector.verdict()
}

#[test]
fn a_provider_is_told_by_what_only_it_sends() {
    use Verdict::{Foreign, Known, Undecided};
    const OLD: &str = r#"{"event":"connected","protocol":"Call","version":"0.2.0"}"#;
    const CALL: &str = r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#;
    const UUIDS: &str = r#"{"event":"start","start":{"streamSid":"7d56cc11-536d-4a45-b4fb-ed3d55be0001",
        "callSid":"76ac3c36-56da-4a3e-a0d6-b5f8df6d0001"}}"#;
    const SIDS: &str = r#"{"event":"start","start":{"streamSid":"MZ1","callSid":"CA1"}}"#;
    const BARE: &str = r#"{"event":"start"}"#;
    let twilio = Known(Provider::Twilio);
    for (messages, expected) in [
        (&[OLD, UUIDS][..], Known(Provider::SignalWire)),
        // Somleng has UUIDs, old Twilio has the version.
        (&[CALL, UUIDS], twilio),
        (&[OLD, SIDS], twilio),
        (&[SIDS], twilio),
        // The greeting is Twilio's; without one, a start without any field is nobody's.
        (&[CALL, BARE], twilio),
        (&[BARE], Undecided),
        (&[r#"{"event":"connected"}"#, BARE], Undecided),
        // Line breaks and blanks inside a message.
        (&["{ \n  \"event\": \"connected\",\n  \"protocol\": \"Call\"\n  }", UUIDS], twilio),
        // In escapes.
        (
            &[
                r#"{"\u0065vent":"st\u0061rt","start":{"c\u0061ll_control_id":"v2"},"stream_id":"S"}"#,
            ],
            Known(Provider::Telnyx),
        ),
        // A name of the user's own tells nothing.
        (&[r#"{"event":"start","start":{"customParameters":{"streamSid":"MZ1"}}}"#], Undecided),
        (
            &[r#"{"event":"start","start":{"mediaFormat":{}},"x":{"stream_sid":"1"}}"#],
            Known(Provider::Voximplant),
        ),
        (&["MEDIA_START connection_id:1 format:ulaw"], Known(Provider::Asterisk)),
        (&[r#"{"event":"MEDIA_START","format":"slin"}"#], Known(Provider::Asterisk)),
        (&[r#"{"version":"2","type":"open","seq":1}"#], Known(Provider::Genesys)),
        // An open of another version, and of others'.
        (&[r#"{"version":"1","type":"open"}"#, r#"{"type":"open"}"#], Undecided),
        (&[r#"{"type":"session.resume"}"#], Known(Provider::AudioCodes)),
        (&[r#"{"type":"connection.validate"}"#], Known(Provider::AudioCodes)),
        (&[r#"{"type":"VOICE_VA_REQUEST"}"#], Known(Provider::Webex)),
        (&[r#"{"kind":"AudioMetadata"}"#], Known(Provider::Acs)),
        (&[r#"{"command":"connect"}"#], Known(Provider::Sinch)),
        (
            &[r#"{"event":"websocket:connected","content-type":"audio/l16;rate=16000"}"#],
            Known(Provider::Vonage),
        ),
        (&[r#"{"content-type":"audio\/l16;rate=8000","app":"x"}"#], Known(Provider::Vonage)),
        // Types of other things than audio, and events of others'.
        (&[r#"{"content-type":"application/json"}"#], Undecided),
        (&[r#"{"event":"x","content-type":"audio/l16"}"#], Undecided),
        (&[r#"{"callSid":"1","sampleRate":8000,"mixType":"mono"}"#], Known(Provider::Jambonz)),
        (&[r#"{"event":"x","sampleRate":8000,"mixType":"mono"}"#], Undecided),
        (&[r#"{"event":"Start","metadata":{}}"#], Known(Provider::RingCentral)),
        (&[r#"{"t":"hello","callid":"1"}"#], Foreign("46elks")),
        (&[r#"{"event":"hello"}"#, "[]", "5", "hello", r#""start""#], Undecided),
    ] {
        assert_eq!(verdict(messages), expected, "{messages:?}");
    }
    for broken in [&b"{\"a\" \"b\"}"[..], b"{\"a\":\xFF}", &[b'['; 40]] {
        let mut detector = Detector::new();
        detector.note_text(&mut broken.to_vec()).unwrap_err();
        assert_eq!(detector, Detector::new());
    }
    // The first evidence counts.
    let mut detector = Detector::of(Provider::Plivo);
    detector.note_header("x-twilio-signature", "x");
    assert_eq!(detector.note_text(&mut SIDS.as_bytes().to_vec()), Ok(Known(Provider::Plivo)));
    for (name, value, provider) in [
        ("sec-websocket-protocol", "a, audio.drachtio.org", Provider::Jambonz),
        ("sec-websocket-protocol", "audio.jambonz.org", Provider::Jambonz),
        ("sec-websocket-protocol", "media", Provider::Asterisk),
        ("x-opentok-ws-sessionid", "1", Provider::Vonage),
        ("audiohook-session-id", "e160e428", Provider::Genesys),
    ] {
        let mut detector = Detector::new();
        detector.note_header(name, value);
        assert_eq!(detector.verdict(), Known(provider), "{value}");
    }
    let mut detector = Detector::new();
    for (name, value) in [("x-plivo-signature-v3", "x"), ("x-twilio-signature", "x")] {
        detector.note_header(name, value);
    }
    assert_eq!(detector.verdict(), Known(Provider::Plivo));
}
