//! Calls to the providers' own software: each is taken by a package of the provider's make, or of others for it,
//! with its own parser, and heard as it was sent.
//!
//! `CALLREEL_LONG` adds the serializers of pipecat, thirteen calls one after the other.

use std::fs;
use std::time::Duration;

use base64::prelude::*;
use callreel::audio::{Audio, speech};
use callreel::caller::{AskedCodec, CallReport, Cue, DialledTracks, Look, Plan};
use callreel_core::format::Codec;
use serde_json::{Value, json};

use crate::caller::{block_on, only};
use crate::harness::packages;
use crate::harness::program::Program;

/// A call as it was placed, and as it was taken.
struct Taken {
    report: CallReport,
    /// The audio of each track, as it was sent.
    sent: Vec<Vec<u8>>,
    /// The audio that the package gave.
    heard: Vec<u8>,
    told: Value,
}

impl Program {
    /// Places one call at real pace, with a last chunk that is short, to the package of this name.
    fn take(&mut self, name: &str, look: &str, change: impl FnOnce(&mut Plan)) -> Taken {
        let mut plan = Plan::new(format!("ws://127.0.0.1:{}/{name}", self.port));
        plan.look = Look::named(look).unwrap();
        plan.duration = Some(Duration::from_millis(1010));
        plan.audio = Some(Audio::stereo(speech(1, 8080), speech(2, 8080)));
        plan.tracks = Some(DialledTracks::Inbound);
        let dir = tempfile::tempdir().unwrap();
        plan.save_sent = Some(dir.path().to_owned());
        change(&mut plan);
        let report = only(&block_on(callreel::caller::place(&plan)).unwrap()).clone();
        assert!(report.good, "{look}: {report:?}");
        let told = self.told();
        let heard = BASE64_STANDARD.decode(told["audio"].as_str().unwrap()).unwrap();
        let mut files = crate::harness::shelf::files(dir.path());
        files.sort_by_key(|path| path.to_string_lossy().len());
        let sent = files.iter().map(|path| fs::read(path).unwrap()).collect();
        Taken { report, sent, heard, told }
    }
}

impl Taken {
    /// Whether the package told these values.
    fn has_told(&self, expected: &Value) -> bool {
        expected.as_object().unwrap().iter().all(|(name, value)| self.told[name] == *value)
    }

    fn assert_told(&self, expected: &Value) {
        let mut told = self.told.clone();
        told["audio"] = Value::Null;
        assert!(self.has_told(expected), "{told:#}\nis not {expected:#}");
    }
}

fn python() -> Program {
    Program::python("sdks", "sdks", &packages::SDKS)
}

fn node() -> Program {
    Program::node("sdks", "sdks-node", &packages::SDKS_OF_NODE)
}

fn key(digit: char) -> Vec<Cue> {
    vec![Cue { at: None, action: callreel::caller::Action::Dtmf(digit) }]
}

#[test]
fn plivos_own_package_validates_each_message_and_hears_the_audio() {
    let mut program = python();
    let mulaw = program.take("plivo", "plivo", |plan| {
        plan.parameters = vec![("userId".to_owned(), "12345".to_owned())];
        plan.cues = key('5');
    });
    assert!(mulaw.heard == mulaw.sent[0]);
    let ids = json!({"stream": mulaw.report.stream_sid, "call": mulaw.report.call_sid});
    mulaw.assert_told(&ids);
    mulaw.assert_told(&json!({"errors": [], "keys": "5", "encoding": "audio/x-mulaw",
        "rate": 8000, "headers": "userId=12345", "chunks": (1..=51).collect::<Vec<_>>()}));
    let linear = program.take("plivo", "plivo", |plan| {
        (plan.codec, plan.rate_hz) = (Some(AskedCodec::L16), Some(16_000));
        plan.tracks = Some(DialledTracks::Both);
    });
    linear.assert_told(&json!({"errors": [], "tracks": ["inbound", "outbound"], "rate": 16_000}));
    // The package gives both tracks by turns, as they come.
    let [inbound, outbound] = &linear.sent[..] else { panic!("two tracks") };
    let by_turns = inbound.chunks(640).zip(outbound.chunks(640)).flat_map(|(i, o)| [i, o].concat());
    assert!(linear.heard == by_turns.collect::<Vec<_>>());
}

#[test]
fn vonages_audio_connector_finds_the_ids_of_the_handshake_and_hears_the_audio() {
    let mut program = python();
    let taken = program.take("vonage", "vonage-video", |_| ());
    assert!(taken.heard == taken.sent[0]);
    let text = r#"{"event":"websocket:connected","content-type":"audio/l16;rate=16000"}"#;
    taken.assert_told(&json!({"stream": taken.report.stream_sid, "call": taken.report.call_sid,
        "texts": [text]}));
}

#[test]
fn a_server_for_asterisk_reads_its_messages_and_hears_each_format() {
    let mut program = python();
    for (codec, rate, encoding, frame) in
        [(AskedCodec::Alaw, 8000, "alaw", 160), (AskedCodec::L16, 48_000, "slin48", 1920)]
    {
        let taken = program.take("asterisk", "asterisk-json", |plan| {
            (plan.codec, plan.rate_hz) = (Some(codec), Some(rate));
            plan.cues = key('7');
        });
        assert!(taken.heard == taken.sent[0], "{encoding}");
        taken.assert_told(&json!({"stream": taken.report.stream_sid, "rate": rate, "frame": frame,
            "call": taken.report.call_sid, "encoding": encoding, "key": "7",
            "events": ["MEDIA_START", "DTMF_END", "HANGUP"]}));
    }
}

#[test]
fn jambonzs_own_package_reads_its_messages_and_hears_both_channels() {
    let mut program = node();
    let taken = program.take("jambonz", "jambonz", |plan| {
        plan.tracks = Some(DialledTracks::Both);
        let mark = callreel::caller::Action::Mark("m1".to_owned());
        plan.cues = [key('5'), vec![Cue { at: None, action: mark }]].concat();
    });
    let [inbound, outbound] = &taken.sent[..] else { panic!("two tracks") };
    let both = inbound.chunks(2).zip(outbound.chunks(2)).flat_map(|(i, o)| [i, o].concat());
    assert!(taken.heard == both.collect::<Vec<_>>());
    taken.assert_told(&json!({"call": taken.report.call_sid, "rate": 8000, "mix": "stereo",
        "keys": ["5"], "marks": ["m1 playout"], "code": 1000}));
}

#[test]
fn microsofts_parser_reads_each_message_of_azure() {
    let mut program = node();
    let mixed = program.take("acs", "acs", |plan| {
        plan.rate_hz = Some(24_000);
        plan.cues = key('5');
    });
    assert!(mixed.heard == mixed.sent[0]);
    mixed.assert_told(&json!({"keys": ["5"], "silent": false, "participants": {"": 51},
        "kinds": {"AudioMetadata": 1, "AudioData": 51, "DtmfData": 1}}));
    let told = &mixed.told["metadata"];
    let facts = [&told["encoding"], &told["sampleRate"], &told["channels"]];
    assert_eq!(facts, [&json!("PCM"), &json!(24_000), &json!(1)]);
    let unmixed = program.take("acs", "acs-unmixed", |plan| {
        plan.tracks = Some(DialledTracks::Both);
    });
    let participants = unmixed.told["participants"].as_object().unwrap();
    assert_eq!(participants.values().collect::<Vec<_>>(), [&json!(51), &json!(51)]);
    let kinds: Vec<_> = participants.keys().map(|id| id.contains("phoneNumber")).collect();
    assert!(kinds.contains(&true) && kinds.contains(&false), "{participants:?}");
}

#[test]
fn ringcentrals_package_hears_all_but_each_sixth_chunk_which_it_loses() {
    let mut program = python();
    let taken = program.take("ringcentral", "ringcentral", |_| ());
    // It writes five chunks in the place of a sixth, and no rest at the end.
    let groups = taken.sent[0].chunks_exact(6 * 160).flat_map(|chunks| &chunks[..5 * 160]);
    assert!(taken.heard == groups.copied().collect::<Vec<_>>());
}

/// A call to a serializer: path, look, codec, rate, and the name that pipecat finds out by the first messages.
type Row = (&'static str, &'static str, Option<AskedCodec>, Option<u32>, Option<&'static str>);

const SERIALIZED: [Row; 16] = {
    use AskedCodec::{Alaw, L16be, Mulaw};
    let telnyx = "telnyx?inbound_encoding=PCMA&outbound_encoding=PCMA";
    [
        ("twilio", "twilio", None, None, Some("twilio")),
        ("twilio", "signalwire", None, None, Some("twilio")),
        ("twilio", "fonoster", None, None, Some("twilio")),
        ("twilio", "cloudonix", None, None, Some("twilio")),
        ("twilio", "somleng", None, None, Some("twilio")),
        ("telnyx", "telnyx", None, None, Some("telnyx")),
        (telnyx, "telnyx", Some(Alaw), None, Some("telnyx")),
        ("plivo", "plivo", None, None, Some("plivo")),
        ("exotel", "exotel", None, None, Some("exotel")),
        ("vonage?rate=16000", "vonage", None, None, None),
        ("vonage?rate=24000", "vonage", None, Some(24_000), None),
        ("genesys", "genesys", None, None, None),
        ("bandwidth", "bandwidth", None, None, None),
        ("wavix?rate=24000", "wavix", None, None, None),
        ("vobiz", "vobiz", Some(Mulaw), None, Some("plivo")),
        // It takes the order of bytes of networks for granted, which other users of Vobiz do not meet.
        ("vobiz?rate=16000", "vobiz", Some(L16be), Some(16_000), Some("plivo")),
    ]
};

#[test]
fn pipecats_serializers_know_the_provider_and_give_the_samples_that_were_sent() {
    if std::env::var_os("CALLREEL_LONG").is_none() {
        // Thirteen calls, one after the other.
        return;
    }
    let mut program = Program::python("sdks_pipecat", "pipecat", &packages::PIPECAT);
    for (path, look, codec, rate_hz, provider) in SERIALIZED {
        let has_keys = !["bandwidth", "wavix", "somleng"].contains(&look);
        let taken = program.take(path, look, |plan| {
            (plan.codec, plan.rate_hz) = (codec, rate_hz);
            if has_keys {
                plan.cues = key('5');
            }
        });
        let sent = pcm(&taken.sent[0], codec, look);
        let heard = taken.heard.as_chunks().0.iter().map(|pair| i16::from_le_bytes(*pair));
        assert!(heard.collect::<Vec<_>>() == sent, "{path} {look}: other samples");
        taken.assert_told(&json!({"keys": if has_keys { "5" } else { "" }}));
        if let Some(provider) = provider {
            let CallReport { stream_sid, call_sid, .. } = &taken.report;
            taken.assert_told(&json!({"provider": provider}));
            assert_eq!(taken.told["data"]["stream_id"], **stream_sid, "{look}");
            assert_eq!(taken.told["data"]["call_id"], **call_sid, "{look}");
        }
        if look == "genesys" {
            assert_eq!(taken.told["answers"], json!(["opened", "pong", "closed"]));
        }
    }
}

/// The samples of audio that a look sent.
fn pcm(bytes: &[u8], codec: Option<AskedCodec>, look: &str) -> Vec<i16> {
    let codec = match codec {
        Some(AskedCodec::Alaw) => Codec::Alaw,
        Some(AskedCodec::L16be) => Codec::L16Be,
        None if ["exotel", "vonage", "wavix"].contains(&look) => Codec::L16Le,
        _ => Codec::Mulaw,
    };
    let mut samples = vec![0; bytes.len() / codec.width()];
    codec.decode(bytes, &mut samples);
    samples
}
