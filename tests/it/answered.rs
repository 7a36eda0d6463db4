//! Providers that must be answered: the text of each answer, and the numbers in it, on sessions without a
//! socket. `dialects/answered.rs` has the server.

use callreel_core::format::{Codec, Format};
use callreel_core::frame::{Dialogue, Provider, REPLY_BYTES_MAX, Track, Tracks};
use callreel_core::session::{Event, Gap, Session, SilenceBudget, Turn};
use serde_json::{Value, json};

const ID: &str = "e160e428-53b8-487c-a110-8b2c1e2f0001";

/// A conversation: the messages of its provider, and the answers to them.
struct Talk {
    session: Session<Vec<u8>>,
    audio: Vec<u8>,
    gaps: Vec<Gap>,
}

impl Talk {
    fn new(provider: Provider) -> Self {
        let session = Session::new(provider, vec![0; 64 << 10]);
        Self { session, audio: vec![], gaps: vec![] }
    }

    /// Says a message; returns the name of its event, and the answer.
    fn say(&mut self, message: &str) -> (String, Option<String>) {
        let mut text = message.as_bytes().to_vec();
        let mut turn = self.session.handle_message(&mut text).unwrap();
        let event = format!("{:?}", turn.event());
        let reply = turn.reply().map(|reply| reply.to_string());
        assert!(reply.as_ref().is_none_or(|reply| reply.len() <= REPLY_BYTES_MAX));
        self.gaps.extend(turn.gaps());
        drain(&mut turn, &mut self.audio);
        drop(turn);
        (event.split(['(', ' ']).next().unwrap().to_owned(), reply)
    }

    /// The answer to a message.
    fn answer(&mut self, message: &str) -> Option<String> {
        self.say(message).1
    }

    fn hear(&mut self, bytes: &[u8]) {
        let mut turn = self.session.handle_audio(bytes).unwrap();
        drain(&mut turn, &mut self.audio);
    }
}

fn drain(turn: &mut Turn<'_, '_, Vec<u8>>, audio: &mut Vec<u8>) {
    let mut bytes = [0; 400];
    while let count @ 1.. = turn.poll_wire(&mut bytes) {
        audio.extend(&bytes[..count]);
    }
}

/// A message of Genesys, as its reference client prints it.
fn genesys(kind: &str, seq: u64, serverseq: u64, position: &str, parameters: &Value) -> String {
    format!(
        r#"{{"version":"2","type":"{kind}","id":"{ID}","seq":{seq},"serverseq":{serverseq},"position":"{position}","parameters":{parameters}}}"#
    )
}

/// An `open` that offers these media.
fn open(media: &Value) -> String {
    let parameters = json!({
        "organizationId": "d7934305-0972-4844-938e-9060eef7d001",
        "conversationId": "090eaa2f-72fa-480a-83e0-8667ff890001",
        "participant": {"id": "883efee8-3d6c-4537-b500-6d7ca4b90001", "ani": "+1-555-555-0123",
            "aniName": "John Doe", "dnis": "+1-800-555-0199"},
        "media": media,
    });
    genesys("open", 1, 0, "PT0S", &parameters)
}

fn media(format: &str, channels: &[&str]) -> Value {
    json!({"type": "audio", "format": format, "channels": channels, "rate": 8000})
}

fn usual_media() -> Value {
    json!([
        media("PCMU", &["external", "internal"]),
        media("PCMU", &["external"]),
        media("PCMU", &["internal"]),
    ])
}

/// An answer that the reference client of Genesys has taken, with other numbers.
fn taken(kind: &str, seq: u64, clientseq: u64, parameters: &str) -> Option<String> {
    Some(format!(
        r#"{{"version":"2","type":"{kind}","seq":{seq},"clientseq":{clientseq},"id":"{ID}","parameters":{parameters}}}"#
    ))
}

const STEREO: &str = r#"{"media":[{"type":"audio","format":"PCMU","channels":["external","internal"],"rate":8000}]}"#;

#[test]
fn every_message_of_genesys_is_answered_with_the_numbers_of_both_sides() {
    let mut talk = Talk::new(Provider::Genesys);
    let none = json!({});
    assert_eq!(talk.answer(&open(&usual_media())), taken("opened", 1, 1, STEREO));
    assert_eq!(talk.session.tracks(), Tracks::Both);
    talk.hear(&[1, 2].repeat(1600));
    assert_eq!(talk.answer(&genesys("ping", 2, 1, "PT1S", &none)), taken("pong", 2, 2, "{}"));
    let rtt = json!({"rtt": "PT0.003269937S"});
    assert_eq!(talk.answer(&genesys("ping", 3, 2, "PT1S", &rtt)), taken("pong", 3, 3, "{}"));
    assert_eq!(talk.answer(&genesys("paused", 4, 3, "PT1S", &none)), None);
    let language = json!({"language": "es-ES"});
    let updated = talk.answer(&genesys("update", 5, 3, "PT1S", &language));
    assert_eq!(updated, taken("updated", 4, 5, "{}"));
    let failed = json!({"code": 408, "message": "Timeout waiting for pong"});
    let (event, reply) = talk.say(&genesys("error", 6, 4, "PT1S", &failed));
    assert_eq!((event.as_str(), reply), ("Trouble", None));
    let (event, _) = talk.say(&genesys("dtmf", 7, 4, "PT1S", &json!({"digit": "5"})));
    assert_eq!(event, "Dtmf");
    let (event, reply) = talk.say(&genesys("close", 8, 4, "PT1S", &json!({"reason": "end"})));
    assert_eq!((event.as_str(), reply), ("Over", taken("closed", 5, 8, "{}")));
    assert_eq!(talk.audio, [1, 2].repeat(1600));
    assert_eq!((talk.session.stats().missing, talk.session.stats().after_stop), (0, 0));
}

#[test]
fn the_best_of_the_media_that_genesys_offers_is_chosen() {
    let (both, external, internal) =
        (&["external", "internal"][..], &["external"][..], &["internal"][..]);
    for (offered, chosen) in [
        (usual_media(), Some(media("PCMU", both))),
        // Both sides, and mu-law, wherever they stand.
        (json!([media("L16", both), media("PCMU", both)]), Some(media("PCMU", both))),
        (json!([media("PCMU", external), media("L16", both)]), Some(media("L16", both))),
        (json!([media("L16", internal)]), Some(media("L16", internal))),
        (json!([media("PCMU", internal), media("PCMU", external)]), Some(media("PCMU", internal))),
        (json!([media("OPUS", both), media("PCMU", external)]), Some(media("PCMU", external))),
        (json!([media("PCMU", &["internal", "external"])]), None),
        (json!([]), None),
    ] {
        let mut talk = Talk::new(Provider::Genesys);
        let (event, reply) = talk.say(&open(&offered));
        let reply: Value = serde_json::from_str(&reply.unwrap()).unwrap();
        match chosen {
            Some(chosen) => assert_eq!(reply["parameters"]["media"], json!([chosen]), "{offered}"),
            None => assert_eq!((event.as_str(), &reply["type"]), ("Refused", &json!("disconnect"))),
        }
    }
}

#[test]
fn a_probe_of_genesys_is_answered_and_begins_no_recording() {
    let mut talk = Talk::new(Provider::Genesys);
    let nobody = "00000000-0000-0000-0000-000000000000";
    let probe = open(&usual_media())
        .replace("090eaa2f-72fa-480a-83e0-8667ff890001", nobody)
        .replace("883efee8-3d6c-4537-b500-6d7ca4b90001", nobody);
    assert_eq!(talk.answer(&probe), taken("opened", 1, 1, r#"{"media":[]}"#));
    let close = genesys("close", 2, 1, "PT0S", &json!({"reason": "end"}));
    assert_eq!(talk.answer(&close), taken("closed", 2, 2, "{}"));
    assert_eq!(talk.session.spec(), None);
}

#[test]
fn an_id_that_an_answer_cannot_repeat_is_not_taken() {
    let mut session = Session::new(Provider::Genesys, vec![0; 4096]);
    for id in ["", r"\u00e9", "é", &"x".repeat(65)] {
        let mut text = open(&usual_media()).replace(ID, id).into_bytes();
        session.handle_message(&mut text).map(drop).unwrap_err();
    }
    assert_eq!(*session.dialogue_mut(), Dialogue::new());
}

#[test]
fn time_that_genesys_skips_is_silence_and_a_gap_unless_it_was_a_pause() {
    let mut talk = Talk::new(Provider::Genesys);
    talk.say(&open(&usual_media()));
    talk.hear(&[1, 2].repeat(1600));
    let skipped = json!({"start": "PT0.2S", "discarded": "PT1.5S"});
    assert_eq!(talk.say(&genesys("resumed", 2, 1, "PT1.7S", &skipped)).0, "Skipped");
    assert_eq!(talk.gaps, []);
    talk.hear(&[3, 4].repeat(10));
    let skipped = json!({"start": "PT1.70125S", "discarded": "PT0.000125S"});
    talk.say(&genesys("discarded", 3, 1, "PT1.701375S", &skipped));
    talk.hear(&[5, 6]);
    let at = 1600 + 12_000 + 10;
    let gap = |track| Gap { track, at, missing: 1, filled: 1, is_by_arrival: false };
    assert_eq!(talk.gaps, [gap(Track::Inbound), gap(Track::Outbound)]);
    let pieces =
        [[1, 2].repeat(1600), vec![0xFF; 24_000], [3, 4].repeat(10), vec![0xFF; 2], vec![5, 6]];
    assert!(talk.audio == pieces.concat());

    // A peer gets no more silence than its time pays for: the rest is told, and closed up.
    *talk.session.silence_mut() = SilenceBudget::new();
    talk.audio.clear();
    let skipped = json!({"start": "PT1.7S", "discarded": "PT1H"});
    talk.say(&genesys("resumed", 4, 1, "PT1H", &skipped));
    let gap = talk.gaps.last().unwrap();
    assert_eq!((gap.missing, gap.filled, talk.audio.len()), (3600 * 8000, 0, 0));
    // A length that makes no sense is no silence.
    let skipped = json!({"start": "PT1.7S", "discarded": "soon"});
    let mut text = genesys("resumed", 5, 1, "PT1H", &skipped).into_bytes();
    talk.session.handle_message(&mut text).map(drop).unwrap_err();
    assert_eq!(talk.session.stats().missing, 0);
}

/// A message of AudioCodes.
fn audiocodes(kind: &str, more: &str) -> String {
    format!(r#"{{"conversationId":"4a5b4b9d","type":"{kind}"{more}}}"#)
}

#[test]
fn a_conversation_of_audiocodes_has_streams_one_after_the_other() {
    let mut talk = Talk::new(Provider::AudioCodes);
    let offer = r#","supportedMediaFormats":["wav/lpcm16","raw/lpcm16_8","raw/mulaw"]"#;
    let accepted = r#"{"type":"session.accepted","mediaFormat":"raw/lpcm16_8"}"#;
    let initiated = talk.answer(&audiocodes("session.initiate", offer));
    assert_eq!(initiated.as_deref(), Some(accepted));
    for round in 1..3 {
        let (event, reply) = talk.say(&audiocodes("userStream.start", ""));
        let started = Some(r#"{"type":"userStream.started"}"#);
        assert_eq!((event.as_str(), reply.as_deref()), ("Started", started));
        let format = Format { codec: Codec::L16Le, sample_rate_hz: 8000 };
        assert_eq!(talk.session.format(), Some(format));
        talk.say(&audiocodes("userStream.chunk", r#","audioChunk":"AQACAA==""#));
        let activity = r#","activities":[{"type":"event","name":"DTMF","value":"5"}]"#;
        assert_eq!(talk.say(&audiocodes("activities", activity)).0, "Dtmf");
        let (event, reply) = talk.say(&audiocodes("userStream.stop", ""));
        let stopped = Some(r#"{"type":"userStream.stopped"}"#);
        assert_eq!((event.as_str(), reply.as_deref()), ("Stopped", stopped));
        assert_eq!(talk.audio, [1, 0, 2, 0].repeat(round));
        // The agreement holds for the next stream.
        talk.session.reset();
    }
    // Of an agent's call, each participant has a stream.
    for (kind, done) in [("start", "started"), ("stop", "stopped")] {
        let said = audiocodes(&format!("userStream.{kind}"), r#","participant":"agent""#);
        let expected = format!(r#"{{"type":"userStream.{done}","participant":"agent"}}"#);
        assert_eq!(talk.answer(&said), Some(expected));
    }
    let resumed = r#","supportedMediaFormats":["raw/mulaw"]"#;
    let accepted = r#"{"type":"session.accepted","mediaFormat":"raw/mulaw"}"#;
    assert_eq!(talk.answer(&audiocodes("session.resume", resumed)).as_deref(), Some(accepted));
    let validated = r#"{"type":"connection.validated","success":true}"#;
    assert_eq!(talk.answer(&audiocodes("connection.validate", "")).as_deref(), Some(validated));
    let (event, reply) = talk.say(&audiocodes("session.end", r#","reasonCode":"client-side""#));
    assert_eq!((event.as_str(), reply), ("Over", None));
    // None of the formats can be recorded.
    let mut talk = Talk::new(Provider::AudioCodes);
    let offer = r#","supportedMediaFormats":["raw/opus"]"#;
    assert_eq!(talk.say(&audiocodes("session.initiate", offer)), ("Refused".to_owned(), None));
}

#[test]
fn a_ping_of_webex_is_answered_with_its_number_and_sinch_with_the_word_that_it_waits_for() {
    let mut talk = Talk::new(Provider::Webex);
    let ping =
        r#"{"type":"PING","seq":3,"ts":"2025-08-21T08:20:40.000Z","conversation_id":"d7e2"}"#;
    let pong =
        r#"{"type":"PONG","seq":3,"ts":"2025-08-21T08:20:40.000Z","conversation_id":"d7e2"}"#;
    assert_eq!(talk.answer(ping).as_deref(), Some(pong));
    let long = ping.replace("2025", &"2".repeat(1000));
    let short = pong.replace("2025-08-21T08:20:40.000Z", "");
    assert_eq!(talk.answer(&long), Some(short));
    let mut talk = Talk::new(Provider::Sinch);
    let connect =
        r#"{"command":"connect","version":1,"callId":"0f1e","codec":"PCM","sampleRate":8000}"#;
    assert_eq!(talk.answer(connect).as_deref(), Some(r#"{"command":"answer"}"#));
    talk.hear(&[1, 0, 2, 0]);
    assert_eq!(talk.audio, [1, 0, 2, 0]);
}

#[test]
fn all_keys_of_a_message_of_webex_are_told_in_their_order() {
    let key = |names: &[&str]| {
        let input = json!({"dtmf_input": {"dtmf_events": names}});
        let payload = json!({"customer_org_id": "org-1", "voice_va_input_type": input});
        let request = json!({"type": "VOICE_VA_REQUEST", "seq": 2, "conversation_id": "51",
            "payload": payload});
        let mut text = request.to_string().into_bytes();
        let mut session = Session::new(Provider::Webex, [0; 0]);
        match session.handle_message(&mut text).unwrap().event() {
            Event::Dtmf { digit, .. } => Some(digit.to_string()),
            _ => None,
        }
    };
    let several = ["DTMF_DIGIT_ONE", "DTMF_DIGIT_POUND", "DTMF_DIGIT_ONE", "DTMF_DIGIT_D"];
    assert_eq!(key(&several).as_deref(), Some("1#1D"));
    assert_eq!(key(&several[1..2]).as_deref(), Some("#"));
    assert_eq!(key(&["DTMF_EVENT_UNSPECIFIED"]), None);
    assert_eq!(key(&["DTMF_DIGIT_ONE", "DTMF_EVENT_UNSPECIFIED"]), None);
    assert_eq!(key(&["yes"]), None);
}

#[test]
fn audio_begins_the_stream_of_a_participant() {
    let mut talk = Talk::new(Provider::Acs);
    let metadata = r#"{"kind":"AudioMetadata","audioMetadata":{"subscriptionId":"89e8","encoding":"PCM","sampleRate":24000,"channels":1,"length":960}}"#;
    assert_eq!(talk.say(metadata), ("Connected".to_owned(), None));
    let id = "8:acs:00000000-0000-4000-8000-000000000001_00000000-0000-4000-8000-000000000002";
    let audio = |id: &str| {
        format!(
            r#"{{"kind":"AudioData","audioData":{{"timestamp":"2024-11-15T19:16:12.925Z","participantRawID":"{id}","data":"AQACAA==","silent":false}}}}"#
        )
    };
    let first = audio(id);
    assert_eq!(talk.say(&first).0, "Started");
    let format = Format { codec: Codec::L16Le, sample_rate_hz: 24_000 };
    assert_eq!(talk.session.format(), Some(format));
    for _ in 0..2 {
        assert_eq!(talk.say(&first).0, "Media");
    }
    assert_eq!(talk.say(&audio("4:+15555550123")).0, "Restart");
    assert_eq!(talk.audio, [1, 0, 2, 0, 1, 0, 2, 0]);
    let turn = talk.session.handle_end();
    assert!(matches!(turn.event(), Event::Ended));
}
