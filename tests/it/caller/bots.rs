//! Calls with a voice bot: its audio as the caller hears it, the echoes of its marks, clears, turns and their
//! latency, held against the bot's own account of the call.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use callreel::audio::Audio;
use callreel::caller::{CallEnd, Error, Heard, Look, Plan, Report, Words};
use serde_json::{Value, json};

use super::{block_on, only, place};
use crate::harness::bot::{Bot, Talk};
use crate::harness::oracle;
use crate::harness::process::callreel;

/// Samples a second.
const RATE: f64 = 8000.0;

/// A plan of one call whose caller says a word from 200 ms to 300 ms.
fn plan(url: &str, duration_ms: u64) -> Plan {
    let mut plan = Plan::new(url);
    plan.duration = Some(Duration::from_millis(duration_ms));
    plan.say = vec![Words { at: Duration::from_millis(200), audio: Audio::mono(vec![0x20; 800]) }];
    plan
}

fn heard(report: &Report) -> &Heard {
    only(report).heard.as_ref().expect("a conversation")
}

fn samples(seconds: f64) -> usize {
    let samples = seconds * RATE;
    assert!((samples - samples.round()).abs() < 1e-6, "{seconds} s is a whole number of samples");
    samples.round() as usize
}

/// Codes of which each is loud, so that all of them are sound, and that differ from sample to sample.
fn tone(seed: usize, samples: usize) -> Vec<u8> {
    (0..samples)
        .map(|at| ((at * 7 + at / 251 + seed * 13) % 96) as u8 ^ ((at as u8 & 1) << 7))
        .collect()
}

/// The channels of a WAV, read by hound.
fn channels(path: &Path) -> [Vec<i16>; 2] {
    let mut reader = hound::WavReader::open(path).unwrap();
    let spec = reader.spec();
    assert_eq!((spec.channels, spec.sample_rate, spec.bits_per_sample), (2, 8000, 16));
    let all: Vec<i16> = reader.samples().map(Result::unwrap).collect();
    [0, 1].map(|side| all.iter().skip(side).step_by(2).copied().collect())
}

/// Audio at a place between silence, decoded by ffmpeg.
fn placed(at: usize, codes: &[u8], total: usize) -> Vec<i16> {
    let mut samples = vec![0; total];
    let decoded = oracle::ffmpeg_mulaw(codes);
    samples[at..at + decoded.len()].copy_from_slice(&decoded);
    samples
}

/// The echoes of marks that come, each with the number of chunks before it.
fn echoes(talk: &mut Talk) -> Vec<(String, u64)> {
    let mut echoes = Vec::new();
    while let Some(message) = talk.next() {
        match message["event"].as_str() {
            Some("mark") => {
                let name = message["mark"]["name"].as_str().unwrap().to_owned();
                echoes.push((name, talk.chunks));
            }
            Some("stop") => talk.close(1000),
            _ => {}
        }
    }
    echoes
}

/// Asserts that an echo came when the audio up to `due_s` had been played, and not later than the next chunks.
fn assert_echoed_at(chunks: u64, due_s: f64) {
    let before = (due_s * 50.0).floor() as u64 + 1;
    assert!(
        (before..before + 3).contains(&chunks),
        "{chunks} chunks before the echo due at {due_s} s"
    );
}

#[test]
fn a_burst_is_heard_at_real_time_and_its_marks_come_back_when_they_are_due() {
    let dir = tempfile::tempdir().unwrap();
    let bot = Bot::start(|talk| {
        talk.until_chunk(10);
        talk.mark("before");
        talk.play(&tone(1, 8000));
        talk.mark("same");
        talk.send(&json!({"event": "mark", "streamSid": null}));
        talk.play_in_fragments(&tone(2, 4000));
        talk.mark("same");
        let echoes = echoes(talk);
        (echoes, std::mem::take(&mut talk.heard))
    });
    let mut plan = plan(&bot.url, 2500);
    plan.save_heard = Some(dir.path().join("heard.wav"));
    let report = place(&plan);
    let (echoes, said) = bot.end();
    let heard = heard(&report);
    assert!(report.is_good(), "{report:?}");

    let amounts = (heard.received_s, heard.heard_s, heard.cleared_s, heard.unheard_s);
    assert_eq!(amounts, (1.5, 1.5, 0.0, 0.0));
    assert_eq!((heard.messages, heard.largest_message_s), (2, 1.0));
    assert_eq!((heard.marks, heard.nameless_marks, heard.echoes), (4, 1, 3));
    let [utterance] = heard.utterances[..] else { panic!("{heard:?}") };
    let at = samples(utterance.from_s);
    assert_eq!(samples(utterance.to_s) - at, 12_000);
    assert!(at >= 9 * 160, "after the tenth chunk: {at}");

    let names: Vec<_> = echoes.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["before", "same", "same"]);
    assert!(echoes[0].1 < 10 + 50, "{echoes:?}");
    assert_echoed_at(echoes[1].1, utterance.from_s + 1.0);
    assert_echoed_at(echoes[2].1, utterance.from_s + 1.5);

    let [left, right] = channels(heard.file.as_ref().unwrap());
    assert_eq!(said.len(), 20_000);
    assert_eq!(left, oracle::ffmpeg_mulaw(&said));
    assert_eq!(right, placed(at, &[tone(1, 8000), tone(2, 4000)].concat(), 20_000));
    assert_eq!(only(&report).notes, Vec::<String>::new());
}

#[test]
fn a_clear_cuts_at_its_time_and_returns_all_marks_and_late_audio_is_heard_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let bot = Bot::start(|talk| {
        talk.until_chunk(5);
        for part in 0..6 {
            talk.play(&tone(part, 4000));
            talk.mark("responsePart");
        }
        talk.until_chunk(40);
        talk.clear();
        talk.play(&tone(7, 1600));
        talk.mark("late");
        echoes(talk)
    });
    let mut plan = plan(&bot.url, 2000);
    plan.say[0].at = Duration::from_millis(600);
    plan.save_heard = Some(dir.path().join("heard.wav"));
    let report = place(&plan);
    let echoes = bot.end();
    let heard = heard(&report);
    assert!(report.is_good(), "{report:?}");

    assert_eq!((heard.received_s, heard.clears, heard.unheard_s), (3.2, 1, 0.0));
    let (at, played) = (samples(heard.utterances[0].from_s), samples(3.0 - heard.cleared_s));
    // The clear was sent behind the 40th chunk, whose time is 39 times 20 ms.
    assert!(at + played >= 39 * 160, "{at} {played}");
    assert_eq!(samples(heard.heard_s), played + 1600);
    let all: Vec<u8> = (0..6).flat_map(|part| tone(part, 4000)).collect();
    let [left, right] = channels(heard.file.as_ref().unwrap());
    // The late audio was taken a moment after the clear.
    let cut = at + played;
    let late = cut + right[cut..].iter().position(|sample| *sample != 0).expect("late audio");
    let silence = vec![0xFF; late - cut];
    let codes = [&all[..played], &silence, &tone(7, 1600)].concat();
    assert_eq!(right, placed(at, &codes, left.len()));

    // Of the marks, one half of a second was played; those of the rest come back with the clear.
    let whole = played / 4000;
    let names: Vec<_> = echoes.iter().map(|(name, _)| name.as_str()).collect();
    // Those that came back before the 40th chunk were not looked at.
    let seen = names.len() - 1;
    assert!(seen >= 6 - whole, "{names:?}");
    assert_eq!(names[seen], "late");
    assert!(names[..seen].iter().all(|name| *name == "responsePart"), "{names:?}");
    assert_echoed_at(echoes[seen - 1].1, cut as f64 / RATE);
    assert_echoed_at(echoes[seen].1, late as f64 / RATE + 0.2);
    assert_eq!(heard.echoes, 7);

    // The bot speaks on over the caller's word at 600 ms, up to the end of the late audio.
    let yielded_ms = (at < 4800).then(|| (late + 1600 - 4800) as f64 / 8.0);
    let [turn] = heard.turns[..] else { panic!("{heard:?}") };
    assert_eq!((turn.yielded_ms, turn.answer_s), (yielded_ms, None));
}

#[test]
fn audio_that_is_longer_than_the_call_is_unheard_from_its_end_on() {
    let bot = Bot::start(|talk| {
        talk.until_chunk(1);
        talk.play(&tone(1, 240_000));
        talk.mark("end");
        let echoes = echoes(talk);
        talk.ws.get_ref().shutdown(std::net::Shutdown::Both).unwrap();
        echoes
    });
    let report = place(&plan(&bot.url, 600));
    let heard = heard(&report);
    assert!(report.is_good(), "{report:?}");
    assert_eq!(bot.end(), []);
    assert_eq!((heard.received_s, heard.largest_message_s, heard.cleared_s), (30.0, 30.0, 0.0));
    assert_eq!(samples(heard.heard_s) + samples(heard.unheard_s), 240_000);
    assert!(heard.heard_s > 0.0 && heard.utterances.len() == 1, "{heard:?}");
}

#[test]
fn a_message_may_have_16_mib_of_audio() {
    // 16 MiB of 0xFF in base64.
    let payload = "/".repeat((16 << 20) / 3 * 4) + "/w==";
    let text = format!("{{\"event\":\"media\",\"media\":{{\"payload\":\"{payload}\"}}}}");
    let bot = Bot::start(|talk| {
        talk.until_chunk(1);
        talk.ws.send(tungstenite::Message::text(text)).unwrap();
        drop(talk.rest());
    });
    let report = place(&plan(&bot.url, 600));
    assert!(report.is_good(), "{report:?}");
    assert_eq!(samples(heard(&report).largest_message_s), 16 << 20);
    bot.end();
}

#[test]
fn echoes_can_be_late_early_or_missing() {
    let run = |fault: &'static str| {
        let bot = Bot::start(|talk| {
            talk.until_chunk(5);
            talk.play(&tone(1, 4000));
            talk.mark("m");
            echoes(talk)
        });
        let mut plan = plan(&bot.url, 1200);
        plan.fault(fault).unwrap();
        (plan, bot)
    };
    let calls = ["late-echo=200ms", "early-echo", "no-echo"].map(run);
    let reports = block_on(async {
        let mut calls = calls.iter().map(|(plan, _)| Box::pin(callreel::caller::place(plan)));
        let [a, b, c] = [(); 3].map(|()| calls.next().unwrap());
        let (a, b, c) = tokio::join!(a, b, c);
        [a, b, c].map(Result::unwrap)
    });
    let [late, early, missing] = calls.map(|(_, bot)| bot.end());
    assert!(reports.iter().all(Report::is_good), "{reports:?}");
    assert_echoed_at(late[0].1, heard(&reports[0]).utterances[0].from_s + 0.7);
    let from_s = heard(&reports[1]).utterances[0].from_s;
    assert_echoed_at(early[0].1, from_s);
    assert_eq!(missing, []);
    assert_eq!([0, 1, 2].map(|at| heard(&reports[at]).echoes), [1, 1, 0]);
}

/// A provider, the bot's messages (audio is binary if there is none for it), and the provider's answers to a
/// mark that was played, to one that was cleared, and to the clear. `ID` stands for the stream's id.
type Row = (&'static str, Option<Value>, Value, Value, Option<Value>, Option<Value>, Option<Value>);

/// 100 ms of 8 kHz mu-law in base64.
const SILENT: &str = "$AUDIO";

fn dialects() -> Vec<Row> {
    let media = || Some(json!({"event": "media", "media": {"payload": SILENT}}));
    let mark = || json!({"event": "mark", "mark": {"name": "m"}});
    let clear = || json!({"event": "clear"});
    let twilio = || Some(json!({"event": "mark", "streamSid": "ID", "mark": {"name": "m"}}));
    let telnyx = || Some(json!({"event": "mark", "stream_id": "ID", "mark": {"name": "m"}}));
    let exotel = || Some(json!({"event": "mark", "stream_sid": "ID", "mark": {"name": "m"}}));
    let play = || {
        let media = json!({"contentType": "audio/x-mulaw", "sampleRate": 8000, "payload": SILENT});
        Some(json!({"event": "playAudio", "media": media}))
    };
    let checkpoint = || json!({"event": "checkpoint", "streamId": "ID", "name": "m"});
    let clear_audio = || json!({"event": "clearAudio", "streamId": "ID"});
    let notify = json!({"action": "notify", "payload": {"m": [1, "\u{e4}"]}});
    let notified = json!({"event": "websocket:notify", "payload": {"m": [1, "\u{e4}"]}});
    let cleared = json!({"event": "websocket:cleared"});
    let jambonz = |event| Some(json!({"type": "mark", "data": {"name": "m", "event": event}}));
    let bandwidth = json!({"contentType": "audio/pcmu", "payload": SILENT});
    let bandwidth = Some(json!({"eventType": "playAudio", "media": bandwidth}));
    let asterisk = || Some(json!("MEDIA_MARK_PROCESSED m"));
    vec![
        ("signalwire", media(), mark(), clear(), twilio(), twilio(), None),
        ("smartflo", media(), mark(), clear(), twilio(), twilio(), None),
        ("telnyx", media(), mark(), clear(), telnyx(), telnyx(), None),
        ("exotel", media(), mark(), clear(), exotel(), exotel(), None),
        (
            "plivo",
            play(),
            checkpoint(),
            clear_audio(),
            Some(json!({"event": "playedStream", "streamId": "ID", "name": "m"})),
            None,
            Some(json!({"event": "clearedAudio", "streamId": "ID"})),
        ),
        (
            "vobiz",
            play(),
            checkpoint(),
            clear_audio(),
            Some(json!({"event": "playedStream", "name": "m"})),
            None,
            Some(json!({"event": "clearedAudio", "streamId": "ID"})),
        ),
        ("bandwidth", bandwidth, json!({}), json!({"eventType": "clear"}), None, None, None),
        ("vonage", None, notify, json!({"action": "clear"}), Some(notified), None, Some(cleared)),
        (
            "jambonz",
            None,
            json!({"type": "mark", "data": {"name": "m"}}),
            json!({"type": "killAudio"}),
            jambonz("playout"),
            jambonz("cleared"),
            None,
        ),
        ("asterisk", None, json!("MARK_MEDIA m"), json!("FLUSH_MEDIA"), asterisk(), None, None),
    ]
}

/// Whether a message has all members of the expected one.
fn matches(message: &Value, expected: &Value) -> bool {
    match (message, expected) {
        (Value::Object(message), Value::Object(expected)) => {
            expected.iter().all(|(name, value)| message.get(name) == Some(value))
        }
        _ => message == expected,
    }
}

#[test]
fn every_dialect_has_its_audio_marks_and_clears() {
    let mut calls = Vec::new();
    for (look, audio, mark, clear, played, dropped, cleared) in dialects() {
        let mut plan = Plan::new("");
        plan.look = Look::named(look).unwrap();
        plan.stream_sid = Some("ID".to_owned());
        plan.duration = Some(Duration::from_millis(2500));
        plan.say = self::plan("", 0).say;
        let rate = match look {
            "vonage" => 16_000,
            _ => 8000,
        };
        let is_16_bit = ["exotel", "vonage", "jambonz"].contains(&look);
        let bot = Bot::start(move |talk| {
            let width = if is_16_bit { 2 } else { 1 };
            let bytes = |ms: usize| vec![0x20; rate / 1000 * ms * width];
            let play = |talk: &mut Talk, ms| match &audio {
                Some(message) => {
                    use base64ct::Encoding as _;
                    let payload = base64ct::Base64::encode_string(&bytes(ms));
                    let text = message.to_string().replace(SILENT, &payload);
                    talk.ws.send(tungstenite::Message::text(text)).unwrap();
                }
                None => talk.ws.send(tungstenite::Message::binary(bytes(ms))).unwrap(),
            };
            let say = |talk: &mut Talk, message: &Value| {
                let text = message.as_str().map_or_else(|| message.to_string(), str::to_owned);
                talk.ws.send(tungstenite::Message::text(text)).unwrap();
            };
            let start = talk.next();
            let greeting = start.as_ref().is_some_and(|start| start["event"] == "connected");
            let _ = greeting.then(|| talk.next());
            talk.until_chunk(1);
            play(talk, 100);
            say(talk, &mark);
            let first = played.as_ref().map(|_| talk.next().unwrap());
            play(talk, 10_000);
            say(talk, &mark);
            say(talk, &clear);
            let mut answers = Vec::new();
            for expected in [&dropped, &cleared].into_iter().flatten() {
                let answer = talk.next().unwrap();
                answers.push((matches(&answer, expected), answer));
            }
            let rest = talk.rest();
            let is_first_right =
                first.iter().zip(&played).all(|(answer, expected)| matches(answer, expected));
            assert!(is_first_right, "{look}: {first:?}");
            assert!(answers.iter().all(|(is_right, _)| *is_right), "{look}: {answers:?}");
            let is_stop =
                |message: &Value| message["event"] == "stop" || message["eventType"] == "stop";
            assert!(rest.iter().all(is_stop), "{look}: {rest:?}");
        });
        plan.url.clone_from(&bot.url);
        calls.push((look, plan, bot));
    }
    let reports = block_on(async {
        let mut all = tokio::task::JoinSet::new();
        for (at, (_, plan, _)) in calls.iter().enumerate() {
            let plan = plan.clone();
            all.spawn(async move { (at, callreel::caller::place(&plan).await.unwrap()) });
        }
        let mut reports = all.join_all().await;
        reports.sort_by_key(|(at, _)| *at);
        reports
    });
    for ((look, _, bot), (_, report)) in calls.into_iter().zip(reports) {
        bot.end();
        let heard = heard(&report);
        assert!(report.is_good(), "{look}: {report:?}");
        assert_eq!((heard.clears, heard.messages, heard.largest_message_s), (1, 2, 10.0), "{look}");
        assert!((heard.received_s - 10.1).abs() < 1e-9, "{look}: {heard:?}");
        assert!(heard.cleared_s > 5.0 && heard.unheard_s == 0.0, "{look}: {heard:?}");
        let is_odd = u64::from(look == "bandwidth");
        assert_eq!(heard.odd_messages, 2 * is_odd, "{look}: {report:?}");
    }
}

#[test]
fn a_bot_may_end_in_several_ways() {
    type End = fn(&mut Talk);
    let rows: [(End, bool, bool); 5] = [
        // Waits for the caller's close, as most bots do.
        (|talk| drop(talk.rest()), true, false),
        (
            |talk| while talk.next().is_some_and(|message| message["event"] != "stop") {},
            true,
            false,
        ),
        // Hangs up.
        (
            |talk| {
                talk.close(1000);
                drop(talk.rest());
            },
            true,
            true,
        ),
        (
            |talk| {
                talk.close(1011);
                drop(talk.rest());
            },
            false,
            true,
        ),
        // Breaks down.
        (|_| {}, false, true),
    ];
    for (at, (end, is_good, is_hang_up)) in rows.into_iter().enumerate() {
        let bot = Bot::start(move |talk| {
            talk.until_chunk(5);
            talk.play(&tone(1, 800));
            end(talk);
        });
        let mut plan = Plan::new(&bot.url);
        plan.duration = Some(Duration::from_millis(400));
        let report = place(&plan);
        assert_eq!(report.is_good(), is_good, "{at}: {report:?}");
        assert_eq!(heard(&report).hung_up_s.is_some(), is_hang_up, "{at}: {report:?}");
        bot.end();
    }
}

#[test]
fn messages_that_the_provider_would_not_take_are_told() {
    let bot = Bot::start(|talk| {
        talk.until_chunk(1);
        talk.ws.send(tungstenite::Message::binary(vec![1, 2, 3])).unwrap();
        for text in
            ["no JSON", r#"{"event":"media","media":{"payload":"A"}}"#, r#"{"event":"transcript"}"#]
        {
            talk.ws.send(tungstenite::Message::text(text)).unwrap();
        }
        talk.send(&json!({"event": "media", "streamSid": "other", "media": {"payload": "AAAA"}}));
        drop(talk.rest());
    });
    let mut plan = Plan::new(&bot.url);
    plan.duration = Some(Duration::from_millis(300));
    let report = place(&plan);
    bot.end();
    assert!(report.is_good(), "{report:?}");
    assert_eq!((heard(&report).odd_messages, heard(&report).messages), (4, 1));
    let notes = only(&report).notes.join("\n");
    for part in [
        "a binary message (Twilio: 31950)",
        "no object of JSON",
        "base64",
        "event",
        "another stream",
    ] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
}

#[test]
fn a_server_that_only_listens_is_no_conversation() {
    let sink = super::Sink::start(super::Manner::Polite);
    let mut plan = Plan::new(&sink.url);
    plan.duration = Some(Duration::from_millis(100));
    assert!(only(&place(&plan)).heard.is_none());
}

#[test]
fn a_conversation_that_cannot_be_is_refused_before_the_call() {
    let refusal = |change: fn(&mut Plan)| {
        let mut plan = plan("ws://127.0.0.1:9/", 1000);
        change(&mut plan);
        block_on(callreel::caller::place(&plan)).unwrap_err()
    };
    let is_one_way = |error: &Error| matches!(error, Error::OneWay { .. });
    assert!(is_one_way(&refusal(|plan| plan.flood = true)));
    assert!(is_one_way(&refusal(|plan| plan.look = Look::named("voximplant").unwrap())));
    let both = |plan: &mut Plan| plan.tracks = Some(callreel::caller::DialledTracks::Both);
    assert!(is_one_way(&refusal(both)));
    let late = refusal(|plan| plan.say[0].at = Duration::from_secs(1)).to_string();
    assert!(late.contains("words at 1s are after the end of the call (1s)"), "{late}");
    let no_mark = refusal(|plan| {
        plan.look = Look::named("bandwidth").unwrap();
        plan.fault("no-echo").unwrap();
    });
    assert!(no_mark.to_string().contains("it echoes no marks"), "{no_mark}");
    let there = refusal(|plan| plan.save_heard = Some(callreel().to_owned())).to_string();
    assert!(there.contains("there is such a file"), "{there}");
}

/// A running `callreel bot`; killed when dropped.
struct OwnBot {
    child: std::process::Child,
    url: String,
}

impl OwnBot {
    fn start() -> Self {
        use std::io::BufRead as _;
        let mut child = Command::new(callreel())
            .args(["bot", "--listen", "127.0.0.1:0", "--answer", "1s", "--pause", "300ms"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim_end().rsplit(' ').next().unwrap().to_owned();
        Self { child, url }
    }

    /// Calls the bot: a word, and one over its answer.
    fn call(&self, dir: &Path, options: &[&str]) -> std::process::Child {
        let mut call = Command::new(callreel());
        call.current_dir(dir).args(["call", "--url", &self.url, "--duration", "3500ms"]);
        call.args(["--say", "word.ulaw@200ms", "--say", "word.ulaw", "--barge-in", "1.2s"]);
        call.args(options).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

impl Drop for OwnBot {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first and the last sample of sound in a range of a channel.
fn sound(channel: &[i16], range: std::ops::Range<usize>) -> (usize, usize) {
    let loud = |at: &usize| channel[*at].unsigned_abs() >= 256;
    let first = range.clone().find(loud).expect("sound");
    (first, range.rev().find(loud).unwrap())
}

#[test]
fn the_own_bot_answers_yields_and_answers_again_and_the_latency_decides_the_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("word.ulaw"), tone(3, 2400)).unwrap();
    let bot = OwnBot::start();
    let good = ["--json", "--max-latency", "10s", "--save-heard", "heard.wav"];
    let calls = [&good[..], &["--max-latency", "1ms"]].map(|options| bot.call(dir.path(), options));
    let [good, slow] = calls.map(|call| call.wait_with_output().unwrap());
    let said = |output: &Output| String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    let report: Value = serde_json::from_str(&said(&good)).unwrap();
    let heard = &report["calls"][0]["heard"];
    let turns = heard["turns"].as_array().unwrap();
    assert_eq!((turns.len(), heard["clears"].as_u64()), (2, Some(1)), "{heard}");

    // The file tells the same, measured here: the caller's last sample, and the bot's first one behind it.
    let [left, right] = channels(&dir.path().join("heard.wav"));
    let mut latencies = Vec::new();
    for (turn, from_ms) in turns.iter().zip([200, 1200]) {
        let range = from_ms * 8..from_ms * 8 + 2400;
        let (first, last) = sound(&left, range.clone());
        assert_eq!((first, last + 1), (range.start, range.end));
        let (answer, _) = sound(&right, range.end..right.len());
        let latency_ms = (answer - range.end) as f64 / 8.0;
        let told = turn["latency_ms"].as_f64().unwrap();
        assert!((told - latency_ms).abs() < 1e-6, "{told} {latency_ms}");
        assert!(told >= 280.0, "the bot waits for 300 ms of silence, in chunks: {told}");
        latencies.push(told);
    }
    let [one, other] = latencies[..] else { panic!("two") };
    let latency = &heard["latency"];
    assert!((latency["median_ms"].as_f64().unwrap() - f64::midpoint(one, other)).abs() < 1e-6);
    assert_eq!(latency["worst_ms"].as_f64(), Some(one.max(other)));
    assert!(turns[0]["yielded_ms"].is_null(), "{heard}");

    assert_eq!(slow.status.code(), Some(1), "{slow:?}");
    let slow = said(&slow);
    let bad = slow.lines().filter(|line| line.ends_with("above --max-latency")).count();
    assert!(bad == 2 && slow.contains("latency of the answers: median "), "{slow}");
    assert!(slow.contains(" s  the caller speaks for 0.30 s\n"), "{slow}");
}

#[test]
fn a_bot_that_says_nothing_has_no_latency_that_is_low_enough() {
    let bot = Bot::start(|talk| drop(talk.rest()));
    let mut plan = plan(&bot.url, 800);
    plan.max_latency = Some(Duration::from_millis(100));
    let report = place(&plan);
    bot.end();
    let call = only(&report);
    assert_eq!(call.end, CallEnd::Closed { code: 1000, reason: String::new() });
    assert!(call.good && !report.is_good() && heard(&report).turns[0].is_too_slow, "{report:?}");
}
