//! A server and providers that wait for its answers.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use base64::prelude::*;
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest as _;
use tungstenite::{Bytes, Message, WebSocket};

use super::Sent;
use super::served::records;
use crate::harness::fixtures::Fixture;
use crate::harness::line::Line;
use crate::harness::oracle;
use crate::harness::process::{PATIENCE, PROMPT, Server, Setup, eventually};
use crate::harness::shelf;

/// A provider's end of a connection.
struct Caller(WebSocket<Line>);

impl Caller {
    fn new(server: &Server) -> Self {
        let request = "ws://callreel/media-stream".into_client_request().unwrap();
        Self(tungstenite::client(request, server.connect()).unwrap().0)
    }

    fn say(&mut self, message: impl Into<Message>) {
        self.0.send(message.into()).unwrap();
    }

    /// The next message of the server that is not a ping.
    fn hear(&mut self) -> Message {
        loop {
            match self.0.read().unwrap() {
                Message::Ping(_) => {}
                message => return message,
            }
        }
    }

    /// The next answer.
    fn answer(&mut self) -> Value {
        match self.hear() {
            Message::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("no answer but {other:?}"),
        }
    }

    /// The code of the server's close frame, which comes next.
    fn close_code(&mut self) -> u16 {
        match self.hear() {
            Message::Close(Some(frame)) => frame.code.into(),
            other => panic!("not closed, but {other:?}"),
        }
    }
}

/// The streams of a fixture with audio in texts, in the order of their first audio.
pub(super) fn sent(fixture: &Fixture) -> Vec<Sent> {
    let mut streams: Vec<Sent> = Vec::new();
    let (mut format, mut starts) = ("s16le", 0);
    for message in fixture.messages() {
        let message: Value = serde_json::from_slice(&message).unwrap();
        let text = message.to_string().to_ascii_lowercase();
        // Where both are offered, the first one is chosen: linear samples.
        let is_mulaw = text.contains("mulaw") && !text.contains("raw/lpcm16");
        if is_mulaw || message["event"] == "Start" {
            format = "mulaw";
        }
        // Streams of AudioCodes have one name.
        starts += u64::from(message["type"] == "userStream.start");
        let input = &message["payload"]["voice_va_input_type"]["audio_input"];
        let payloads = [
            &message["audioChunk"],
            &message["audioData"]["data"],
            &message["media"],
            &input["caller_audio_b64"],
        ];
        let Some(payload) = payloads.into_iter().find_map(Value::as_str) else {
            continue;
        };
        let mut audio = BASE64_STANDARD.decode(payload).unwrap();
        if audio.starts_with(b"RIFF") {
            // The shortest header of a file.
            audio.drain(..44);
        }
        let id = json!([starts, message["audioData"]["participantRawID"]]);
        let index = streams.iter().position(|stream| stream.id == id).unwrap_or_else(|| {
            streams.push(Sent { id, format, ..Sent::default() });
            streams.len() - 1
        });
        let track = usize::from(message["perspective"] == "Conference");
        streams[index].tracks[track].push((0, audio));
    }
    streams
}

/// The end record of a recording, once it is finished, and its samples.
fn wait(dir: &Path, id: &str) -> (Value, Vec<i16>) {
    eventually(PATIENCE, "the recording", || {
        let files = shelf::files(dir);
        let named = |end: &str| files.iter().find(|path| path.ends_with(format!("{id}.{end}")));
        let (record, wav) = (fs::read(named("json")?).unwrap(), fs::read(named("wav")?).unwrap());
        // A plain header.
        Some((serde_json::from_slice(&record).unwrap(), oracle::samples(&wav[44..])))
    })
}

const ID: &str = "e160e428-53b8-487c-a110-8b2c1e2f0001";
const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

/// A message of Genesys.
fn genesys(kind: &str, seq: u64, parameters: &Value) -> String {
    let message = json!({"version": "2", "type": kind, "id": ID, "seq": seq, "serverseq": seq - 1,
        "position": "PT0S", "parameters": parameters});
    message.to_string()
}

fn open(conversation: &str, participant: &str) -> String {
    let media = json!([{"type": "audio", "format": "PCMU", "channels": ["external", "internal"], "rate": 8000}]);
    let parameters = json!({"organizationId": ID, "conversationId": conversation,
        "participant": {"id": participant, "ani": "+15555550123", "aniName": "", "dnis": ""},
        "media": media});
    genesys("open", 1, &parameters)
}

/// A conversation of Genesys by another library: audio, a ping between it, a pause and lost audio. It
/// prints each answer, and the milliseconds that it took.
const CONVERSATION: &str = r#"
import asyncio, json, sys, time, websockets
ID = 'e160e428-53b8-487c-a110-8b2c1e2f0001'
async def talk(url, codes):
    headers = {'Audiohook-Session-Id': ID, 'Audiohook-Organization-Id': ID, 'X-API-KEY': 'k'}
    async with websockets.connect(url, additional_headers=headers) as ws:
        state = {'seq': 0, 'serverseq': 0}
        async def say(kind, position, parameters, is_answered=False):
            state['seq'] += 1
            message = {'version': '2', 'type': kind, 'id': ID, 'seq': state['seq'],
                       'serverseq': state['serverseq'], 'position': position, 'parameters': parameters}
            began = time.monotonic()
            await ws.send(json.dumps(message))
            if is_answered:
                answer = json.loads(await ws.recv())
                assert answer['seq'] == state['serverseq'] + 1, answer
                assert answer['clientseq'] == state['seq'] and answer['id'] == ID, answer
                state['serverseq'] = answer['seq']
                print(answer['type'], round(1000 * (time.monotonic() - began)), flush=True)
        both = {'type': 'audio', 'format': 'PCMU', 'channels': ['external', 'internal'], 'rate': 8000}
        one = {**both, 'channels': ['external']}
        await say('open', 'PT0S', {'organizationId': ID, 'conversationId': ID[::-1].replace('-', 'a'),
            'participant': {'id': ID, 'ani': '+15555550123', 'aniName': 'John', 'dnis': '+18005550199'},
            'media': [one, both], 'customConfig': {'room': '7'}}, True)
        await ws.send(codes[:3200])
        await say('ping', 'PT0.2S', {}, True)
        await ws.send(codes[3200:6400])
        await say('ping', 'PT0.4S', {'rtt': 'PT0.01S'}, True)
        await say('paused', 'PT0.4S', {})
        await say('resumed', 'PT1.4S', {'start': 'PT0.4S', 'discarded': 'PT1S'})
        await ws.send(codes[6400:9600])
        await say('discarded', 'PT1.85S', {'start': 'PT1.6S', 'discarded': 'PT0.25S'})
        await ws.send(codes[9600:])
        await say('close', 'PT2S', {'reason': 'end'}, True)
asyncio.run(talk(sys.argv[1], open(sys.argv[2], 'rb').read()))
"#;

#[test]
fn a_conversation_of_genesys_is_answered_in_time_and_recorded_with_its_pause() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).args(&["--read-interval", "1s"]).start();
    // 0.6 s and a last message that is shorter: both sides by turns.
    let codes: Vec<u8> = (0..9700_u32).map(|place| (place * 31 + place / 256) as u8).collect();
    let sent = dir.path().with_extension("codes");
    fs::write(&sent, &codes).unwrap();
    let url = format!("ws://{}/media-stream", server.address);
    let python = Command::new("python3").args(["-c", CONVERSATION, &url]).arg(&sent).output();
    fs::remove_file(&sent).unwrap();
    let said = python.expect("python3 runs: apt-get install python3 python3-websockets");
    let told = String::from_utf8_lossy(&said.stderr);
    let answers = String::from_utf8_lossy(&said.stdout).into_owned();
    let answers: Vec<(&str, u64)> = answers
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(kind, ms)| (kind, ms.parse().unwrap()))
        .collect();
    let kinds: Vec<_> = answers.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, ["opened", "pong", "pong", "closed"], "{told}");
    // Genesys waits for five seconds.
    assert!(answers.iter().all(|(_, ms)| *ms < 5000), "{answers:?}");

    let (record, samples) = wait(dir.path(), ID);
    assert_eq!((&record["state"], &record["end"]), (&json!("complete"), &json!("stop")));
    assert_eq!(
        (&record["provider"], &record["tracks"]),
        (&json!("genesys"), &json!(["inbound", "outbound"]))
    );
    let expected = json!({"participant": ID, "ani": "+15555550123", "aniName": "John",
        "dnis": "+18005550199", "room": "7"});
    assert_eq!(record["parameters"], expected);
    let pause = json!([{"at_ms": 400, "duration_ms": 1000, "by": "provider", "keys": 0}]);
    assert_eq!(record["pauses"], pause);
    let gap = |track| json!({"track": track, "at_ms": 1600, "missing_ms": 250, "filled_ms": 250});
    assert_eq!(record["gaps"], json!([gap("inbound"), gap("outbound")]));
    assert_eq!((&record["missing_ms"], &record["frames"]["missing"]), (&json!(250), &json!(0)));
    let heard = oracle::ffmpeg_mulaw(&codes);
    let silence = |ms: usize| vec![0; 2 * 8 * ms];
    let expected =
        [&heard[..6400], &silence(1000), &heard[6400..9600], &silence(250), &heard[9600..]]
            .concat();
    assert!(samples == expected, "{} samples", samples.len());
}

#[test]
fn a_probe_of_genesys_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Setup::new(dir.path()).start();
    let mut caller = Caller::new(&server);
    caller.say(open(NOBODY, NOBODY));
    let opened = caller.answer();
    assert_eq!((&opened["type"], &opened["parameters"]["media"]), (&json!("opened"), &json!([])));
    caller.say(genesys("ping", 2, &json!({})));
    assert_eq!(caller.answer()["type"], "pong");
    // Even with audio, which none was asked for.
    caller.say(Message::Binary(Bytes::from_static(&[0xFF; 3200])));
    caller.say(genesys("close", 3, &json!({"reason": "end"})));
    let closed = caller.answer();
    assert_eq!(
        (&closed["type"], &closed["seq"], &closed["clientseq"]),
        (&json!("closed"), &json!(3), &json!(3))
    );
    caller.0.close(None).unwrap();
    while caller.0.read().is_ok() {}
    server.stop();
    let left = shelf::files(dir.path());
    let is_record =
        |path: &&std::path::PathBuf| path.extension().is_some_and(|e| e == "json" || e == "wav");
    assert_eq!(left.iter().find(is_record), None);
}

#[test]
fn a_connection_that_genesys_leaves_open_is_closed_after_its_recording_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).start();
    let mut caller = Caller::new(&server);
    caller.say(open(ID, ID));
    assert_eq!(caller.answer()["type"], "opened");
    caller.say(Message::Binary(vec![0x80; 3200].into()));
    caller.say(genesys("close", 2, &json!({"reason": "disconnect"})));
    assert_eq!(caller.answer()["type"], "closed");
    assert_eq!(wait(dir.path(), ID).0["state"], "complete");
    let began = Instant::now();
    assert_eq!(caller.close_code(), 1000);
    assert!(began.elapsed() < PROMPT);
}

#[test]
fn a_conversation_of_audiocodes_has_a_recording_for_each_of_its_streams() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).start();
    let mut caller = Caller::new(&server);
    let message = |kind: &str, more: Value| {
        let mut message = json!({"conversationId": "4a5b", "type": kind});
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        message.to_string()
    };
    caller.say(message("session.initiate", json!({"supportedMediaFormats": ["raw/lpcm16_24"]})));
    let accepted = json!({"type": "session.accepted", "mediaFormat": "raw/lpcm16_24"});
    assert_eq!(caller.answer(), accepted);
    for round in 1..=2_i16 {
        caller.say(message("userStream.start", json!({})));
        let audio = BASE64_STANDARD.encode(round.to_le_bytes().repeat(480));
        caller.say(message("userStream.chunk", json!({"audioChunk": audio})));
        // Pings and messages are answered in their order.
        caller.say(Message::Ping(Bytes::from_static(b"here")));
        caller.say(message("userStream.stop", json!({})));
        assert_eq!(caller.answer()["type"], "userStream.started");
        assert_eq!(caller.hear(), Message::Pong(Bytes::from_static(b"here")));
        assert_eq!(caller.answer()["type"], "userStream.stopped");
        let id = if round == 1 { "4a5b" } else { "4a5b-2" };
        let (record, samples) = wait(dir.path(), id);
        assert_eq!((&record["state"], &record["call_id"]), (&json!("complete"), &json!("4a5b")));
        assert_eq!(samples, [round; 480]);
    }
    caller.say(message("session.end", json!({"reasonCode": "client-side"})));
    caller.0.close(None).unwrap();
    while caller.0.read().is_ok() {}
    assert_eq!(records(dir.path(), 2).len(), 2);
}

#[test]
fn the_ends_of_a_call_of_audiocodes_are_in_its_records_and_in_no_log_line() {
    let message = |id: &str, kind: &str, more: Value| {
        let mut message = json!({"conversationId": id, "type": kind});
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        message.to_string()
    };
    let formats = json!(["raw/mulaw"]);
    let ends =
        json!({"caller": "+15555550123", "callee": "+18005550199", "callerHost": "192.0.2.1"});
    let begins = |parameters: &Value| json!({"activities": [{"type": "event", "name": "start", "id": "1", "parameters": parameters}]});
    let both = json!({"from": "+15555550123", "to": "+18005550199"});
    let dir = tempfile::tempdir().unwrap();
    let mut server = Setup::new(dir.path()).start();
    for (id, initiate, activity, told) in [
        // As the documentation has it: the offer tells the caller, the beginning both.
        ("a1", json!({"caller": "+15555550123"}), Some(begins(&ends)), both.clone()),
        ("a2", json!({"caller": "+15555550123"}), None, json!({"from": "+15555550123"})),
        ("a3", json!({"caller": "+15555550123", "callee": "+18005550199"}), None, both),
        ("a4", json!({}), Some(begins(&json!({}))), Value::Null),
        // Written with escapes in the message.
        ("a5", json!({"caller": "sip:\"a\"@b\\c"}), None, json!({"from": "sip:\"a\"@b\\c"})),
    ] {
        let mut caller = Caller::new(&server);
        let mut offer = initiate;
        offer["supportedMediaFormats"] = formats.clone();
        caller.say(message(id, "session.initiate", offer));
        assert_eq!(caller.answer()["type"], "session.accepted");
        activity.into_iter().for_each(|more| caller.say(message(id, "activities", more)));
        // Each stream of the conversation has the same ends.
        for name in [id.to_owned(), format!("{id}-2")] {
            caller.say(message(id, "userStream.start", json!({})));
            assert_eq!(caller.answer()["type"], "userStream.started");
            let audio = BASE64_STANDARD.encode([0x80; 160]);
            caller.say(message(id, "userStream.chunk", json!({"audioChunk": audio})));
            caller.say(message(id, "userStream.stop", json!({})));
            assert_eq!(caller.answer()["type"], "userStream.stopped");
            assert_eq!(wait(dir.path(), &name).0["caller"], told, "{name}");
        }
    }
    server.stop();
    let log = server.log_lines().join("\n");
    assert!(log.contains("a3-2") && !log.contains("5555550123") && !log.contains("8005550199"));
}

#[test]
fn a_session_of_genesys_that_continues_another_is_a_recording_of_its_own_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).start();
    let after = "e160e428-53b8-487c-a110-8b2c1e2f0009";
    let continued = json!([{"id": "e160e428-53b8-487c-a110-8b2c1e2f0000", "serverseq": 7, "clientseq": 9},
        {"id": ID, "serverseq": 2, "clientseq": 2}]);
    for (id, byte, continued) in [(ID, 0x80, json!([])), (after, 0x00, continued)] {
        // The connection of the first is lost before the second begins: there is no `close`.
        let mut caller = Caller::new(&server);
        let mut opens: Value = serde_json::from_str(&open(ID, ID)).unwrap();
        opens["id"] = id.into();
        opens["parameters"]["continuedSessions"] = continued;
        caller.say(opens.to_string());
        let opened = caller.answer();
        assert_eq!((&opened["type"], &opened["id"]), (&json!("opened"), &json!(id)));
        caller.say(Message::Binary(vec![byte; 3200].into()));
    }
    for (id, sample, continues) in [(ID, 32_124, Value::Null), (after, -32_124, json!(ID))] {
        let (record, samples) = wait(dir.path(), id);
        assert_eq!(
            (&record["call_id"], &record["parameters"]["continues"]),
            (&json!(ID), &continues)
        );
        assert_eq!((&record["state"], &record["end"]), (&json!("partial"), &json!("disconnect")));
        assert_eq!(samples, [sample; 3200]);
    }
}

#[test]
fn each_participant_of_an_unmixed_stream_of_azure_has_a_recording() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).start();
    let mut caller = Caller::new(&server);
    let metadata = json!({"kind": "AudioMetadata", "audioMetadata": {"subscriptionId": "89e8",
        "encoding": "PCM", "sampleRate": 16000, "channels": 1, "length": 640}});
    caller.say(metadata.to_string());
    // One more than have a place.
    for round in 0..3_i16 {
        for number in 0..9_i16 {
            let id = format!("8:acs:00000000-0000-4000-8000-00000000000{number}_participant");
            let audio = BASE64_STANDARD.encode((100 * round + number).to_le_bytes().repeat(320));
            let time = format!("2024-11-15T19:16:12.{:03}Z", 20 * round);
            let data =
                json!({"timestamp": time, "participantRawID": id, "data": audio, "silent": false});
            caller.say(json!({"kind": "AudioData", "audioData": data}).to_string());
        }
    }
    caller.0.close(None).unwrap();
    while caller.0.read().is_ok() {}
    let mut numbers = Vec::new();
    for record in records(dir.path(), 8) {
        assert_eq!((&record["state"], &record["end"]), (&json!("partial"), &json!("close")));
        assert!(record["reason"].as_str().unwrap().contains("track"), "of the ninth: {record}");
        let (_, samples) = wait(dir.path(), record["id"].as_str().unwrap());
        let number = samples[0];
        assert!(samples == [0, 1, 2].map(|round| [100 * round + number; 320]).as_flattened());
        numbers.push(number);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..8).collect::<Vec<_>>());
}

#[test]
fn a_peer_that_asks_and_reads_no_answers_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Setup::new(dir.path()).args(&["--read-interval", "0s"]).start();
    let mut caller = Caller::new(&server);
    rustix::net::sockopt::set_socket_recv_buffer_size(caller.0.get_ref(), 4096).unwrap();
    caller.say(open(ID, ID));
    let ping = genesys("ping", 2, &json!({}));
    // Far more answers than the sockets hold.
    for _ in 0..100_000 {
        if caller.0.send(ping.as_str().into()).is_err() {
            break;
        }
    }
    server.wait_for_log("does not read the answers");
    assert_eq!(records(dir.path(), 1)[0]["end"], "idle");
    assert!(server.memory("VmHWM") < 64 << 20, "{} bytes", server.memory("VmHWM"));
    server.stop();
}
