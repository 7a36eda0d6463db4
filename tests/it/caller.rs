//! The Twilio look-alike, received by an independent server (tungstenite and serde_json).

mod bots;
mod genesys;
mod looks;
mod pings;
mod reach;
mod steps;
mod twiml;

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use base64ct::{Base64, Encoding};
use callreel::audio::Audio;
use callreel::caller::{Action, CallEnd, CallReport, Cue, DialledTracks, Plan, Report};
use callreel::twilio::{self, AuthToken};
use serde_json::Value;
use tungstenite::error::{CapacityError, ProtocolError};
use tungstenite::handshake::server::{Request, Response};
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

use crate::harness::process::callreel;
use crate::harness::receiver::{is_whole, request_on};

/// Far above the time of any step here, far below a hang.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_call_is_spelled_like_twilios_and_loses_no_sample() {
    let sink = Sink::start(Manner::Polite);
    let (left, right) = (noise(1, 8_123), noise(2, 8_123));
    let mut plan = sink.flood();
    plan.audio = Some(Audio::stereo(left.clone(), right.clone()));
    plan.parameters = vec![("who".to_owned(), "a \"b\"\u{e4}".to_owned())];
    plan.first_timestamp_ms = Some(155);
    let report = place(&plan);
    let heard = sink.next();

    assert!(report.is_good(), "{report:?}");
    assert_eq!((report.frames_sent, report.calls.len()), (102, 1));
    let [call] = &report.calls[..] else { panic!("one call") };
    assert_eq!((call.samples_sent, call.stopped), (2 * 8_123, true));
    assert_eq!(call.end, CallEnd::Closed { code: 1000, reason: "done".to_owned() });

    let messages = heard.json();
    assert_eq!(heard.text(0), r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#);
    let start = &messages[1]["start"];
    assert_eq!(start["streamSid"], call.stream_sid.as_str());
    assert_eq!(start["callSid"], call.call_sid.as_str());
    assert_eq!(start["tracks"], serde_json::json!(["inbound", "outbound"]));
    assert_eq!(start["customParameters"], serde_json::json!({"who": "a \"b\"\u{e4}"}));
    assert_eq!(messages.last().unwrap()["event"], "stop");
    for (at, message) in messages[1..].iter().enumerate() {
        assert_eq!(message["sequenceNumber"], (at + 1).to_string());
        assert_eq!(message["streamSid"], call.stream_sid.as_str());
    }
    for track in ["inbound", "outbound"] {
        for (at, media) in heard.media(track).iter().enumerate() {
            assert_eq!(number(&media["chunk"]), at as u64 + 1);
            let expected_ms = 155 + 20 * at as u64;
            assert!(number(&media["timestamp"]).abs_diff(expected_ms) <= 1, "{media}");
        }
    }
    assert_eq!(number(&heard.media("inbound")[0]["timestamp"]), 155);
    assert_eq!(heard.audio("inbound"), left);
    assert_eq!(heard.audio("outbound"), right);
}

#[test]
fn frames_come_at_the_pace_of_speech() {
    let sink = Sink::start(Manner::Polite);
    let mut plan = Plan::new(&sink.url);
    plan.duration = Some(Duration::from_millis(400));
    let begun = Instant::now();
    let report = place(&plan);
    // The last of twenty frames is due 380 ms after the first.
    assert!(begun.elapsed() >= Duration::from_millis(380));
    assert_eq!(report.frames_sent, 20);
    assert!(report.is_good() && report.lateness.worst_ms > 0.0, "{report:?}");
}

#[test]
fn every_call_has_its_own_ids_and_voice() {
    let sink = Sink::start(Manner::Polite);
    let mut plan = sink.flood();
    plan.calls = 40;
    plan.tracks = Some(DialledTracks::Both);
    plan.duration = Some(Duration::from_secs(10));
    let report = place(&plan);
    assert!(report.is_good(), "{report:?}");
    let mut audio = HashSet::new();
    let mut sids = HashSet::new();
    for _ in 0..plan.calls {
        let heard = sink.next();
        audio.extend([heard.audio("inbound"), heard.audio("outbound")]);
        let start = &heard.json()[1]["start"];
        let ids = ["streamSid", "callSid"].map(|name| start[name].as_str().unwrap().to_owned());
        assert!(ids[0].starts_with("MZ") && ids[1].starts_with("CA"));
        assert!(ids.iter().all(|id| id.len() == 34), "{ids:?}");
        sids.extend(ids);
    }
    assert_eq!((audio.len(), sids.len()), (80, 80));
}

#[test]
fn audio_is_repeated_or_cut_to_the_duration() {
    let sink = Sink::start(Manner::Polite);
    let audio = noise(3, 1000);
    let mut plan = sink.flood();
    plan.audio = Some(Audio::mono(audio.clone()));
    for (duration_ms, expected) in [(250, audio.repeat(2)), (50, audio[..400].to_vec())] {
        plan.duration = Some(Duration::from_millis(duration_ms));
        assert!(place(&plan).is_good());
        assert_eq!(sink.next().audio("inbound"), expected);
    }
}

#[test]
fn copies_hold_exactly_what_was_heard() {
    let sink = Sink::start(Manner::Polite);
    let directory = tempfile::tempdir().unwrap();
    let mut plan = sink.flood();
    plan.calls = 2;
    plan.tracks = Some(DialledTracks::Both);
    plan.duration = Some(Duration::from_millis(1010));
    plan.save_sent = Some(directory.path().join("sent"));
    plan.fault("late").unwrap();
    plan.fault("gap=100ms@200ms").unwrap();
    assert!(place(&plan).is_good());
    for _ in 0..2 {
        let heard = sink.next();
        let stream_sid = heard.json()[1]["streamSid"].as_str().unwrap().to_owned();
        for (track, side) in [("inbound", ""), ("outbound", ".outbound")] {
            let path = directory.path().join(format!("sent/{stream_sid}{side}.ulaw"));
            assert_eq!(std::fs::read(path).unwrap(), heard.audio(track));
        }
    }
}

#[test]
fn keys_and_marks_come_at_their_time() {
    let sink = Sink::start(Manner::Polite);
    let mut plan = sink.flood();
    plan.duration = Some(Duration::from_millis(200));
    plan.cues = vec![
        Cue { at: Some(Duration::from_millis(40)), action: Action::Dtmf('#') },
        Cue { at: Some(Duration::from_millis(100)), action: Action::Mark("said".to_owned()) },
    ];
    assert!(place(&plan).is_good());
    let events = sink.next().events();
    let expected = "connected start media media dtmf media media media mark media media media \
                    media media stop";
    assert_eq!(events.join(" "), expected);
}

#[test]
fn faults_of_messages_are_what_they_claim_to_be() {
    let half = 25;
    let sound = || (1..=50).collect::<Vec<u64>>();
    let without =
        |lost: std::ops::Range<u64>| sound().into_iter().filter(move |n| !lost.contains(n));

    for (fault, chunks) in [
        ("gap=100ms", without(half + 1..half + 6).collect()),
        ("gap=100ms@0s", without(1..6).collect::<Vec<_>>()),
        ("duplicate", [&sound()[..26], &sound()[25..]].concat()),
        ("reorder", [&sound()[..25], &[27, 26], &sound()[27..]].concat()),
        ("late=60ms", [&sound()[..25], &[27, 28, 29, 26], &sound()[29..]].concat()),
    ] {
        let heard = one_call(fault);
        let heard_chunks: Vec<u64> =
            heard.media("inbound").iter().map(|media| number(&media["chunk"])).collect();
        assert_eq!(heard_chunks, chunks, "{fault}");
        for media in heard.media("inbound") {
            let expected_ms = 100 + 20 * (number(&media["chunk"]) - 1);
            assert!(number(&media["timestamp"]).abs_diff(expected_ms) <= 1, "{fault}: {media}");
        }
    }

    let heard = one_call("gap-no-hole=100ms");
    let media = heard.media("inbound");
    assert_eq!(media.len(), 45);
    assert!(media.iter().map(|media| number(&media["chunk"])).eq(1..=45));
    assert!(number(&media[25]["timestamp"]).abs_diff(100 + 20 * 30) <= 1);

    let heard = one_call("timestamp-jump=1m");
    let media = heard.media("inbound");
    assert!(number(&media[24]["timestamp"]).abs_diff(100 + 20 * 24) <= 1);
    assert!(number(&media[25]["timestamp"]).abs_diff(60_100 + 20 * 25) <= 1);
}

#[test]
fn bad_messages_come_between_good_ones() {
    let heard = one_call("bad-base64");
    let bad: Vec<_> = heard.media("inbound").into_iter().filter(|m| payload(m).is_none()).collect();
    assert_eq!(bad.len(), 1);
    assert_eq!(heard.media("inbound").len(), 51);

    let heard = one_call("bad-json");
    let broken = |text: &&str| serde_json::from_str::<Value>(text).is_err();
    assert_eq!(heard.texts().iter().filter(|text| broken(text)).count(), 1);

    let heard = one_call("binary");
    assert_eq!(heard.messages.iter().filter(|message| message.is_binary()).count(), 1);

    let events = one_call("media-before-start").events();
    assert_eq!(events[..4], ["connected", "media", "start", "media"]);

    let events = one_call("media-after-stop").events();
    assert_eq!(events[events.len() - 2..], ["stop", "media"]);
}

#[test]
fn a_second_start_begins_to_count_anew() {
    for (fault, same_id) in [("second-start", true), ("second-start-other", false)] {
        let heard = one_call(fault);
        let messages = heard.json();
        let starts: Vec<_> =
            (0..messages.len()).filter(|&at| messages[at]["event"] == "start").collect();
        assert_eq!(starts, [1, 27]);
        assert_eq!(messages[27]["sequenceNumber"], "1");
        assert_eq!(messages[28]["media"]["chunk"], "1");
        assert_eq!(messages[28]["media"]["timestamp"], "100");
        assert_eq!(messages[1]["streamSid"] == messages[27]["streamSid"], same_id, "{fault}");
        assert_eq!(messages.last().unwrap()["streamSid"], messages[27]["streamSid"]);
    }
}

#[test]
fn ways_of_writing_change_no_message() {
    let plain = one_call("media-after-stop").events();
    for fault in ["split-bytes", "fragments", "slow", "stall=50ms"] {
        let heard = one_call(fault);
        assert_eq!(heard.events(), plain[..plain.len() - 1], "{fault}");
        assert_eq!(heard.audio("inbound"), noise(9, 8000), "{fault}");
        // Once a message, from the first media message on: fifty media, stop.
        assert_eq!(heard.pings, if fault == "fragments" { 51 } else { 0 }, "{fault}");
    }
}

#[test]
fn violations_are_the_ones_they_claim_to_be() {
    use ProtocolError as P;
    type Is = fn(&Error) -> bool;
    let violations: [(&str, u16, Is); 7] = [
        ("unmasked", 1002, |e| matches!(e, Error::Protocol(P::UnmaskedFrameFromClient))),
        ("rsv", 1002, |e| matches!(e, Error::Protocol(P::NonZeroReservedBits))),
        ("reserved-opcode", 1002, |e| matches!(e, Error::Protocol(P::InvalidOpcode(3)))),
        ("lone-continuation", 1002, |e| matches!(e, Error::Protocol(P::UnexpectedContinueFrame))),
        ("fragmented-control", 1002, |e| matches!(e, Error::Protocol(P::FragmentedControlFrame))),
        ("bad-utf8", 1007, |e| matches!(e, Error::Utf8(_))),
        ("huge-frame", 1009, |e| {
            let Error::Capacity(CapacityError::MessageTooLong { size, .. }) = e else {
                return false;
            };
            *size == 1 << 62
        }),
    ];
    for (fault, code, is_it) in violations {
        let sink = Sink::start(Manner::Polite);
        let mut plan = sink.flood();
        plan.duration = Some(Duration::from_secs(1));
        plan.fault(fault).unwrap();
        let report = place(&plan);
        let heard = sink.next();
        assert!(is_it(heard.error.as_ref().unwrap()), "{fault}: {:?}", heard.error);
        assert_eq!(heard.media("inbound").len(), 25, "{fault}");
        let call = only(&report);
        assert!(call.good && !call.stopped, "{fault}: {call:?}");
        assert_eq!(call.end, CallEnd::Closed { code, reason: String::new() }, "{fault}");
    }
}

#[test]
fn endings_are_the_ones_they_claim_to_be() {
    let ended = |fault: &str| {
        let sink = Sink::start(Manner::Polite);
        let mut plan = sink.flood();
        plan.duration = Some(Duration::from_secs(1));
        plan.fault(fault).unwrap();
        let report = place(&plan);
        let heard = sink.next();
        assert_eq!(heard.media("inbound").len(), 25, "{fault}");
        assert!(!heard.events().iter().any(|event| event == "stop"), "{fault}");
        assert!(report.is_good(), "{fault}: {report:?}");
        (only(&report).end.clone(), heard)
    };
    let closed = CallEnd::Closed { code: 1000, reason: String::new() };
    let (end, heard) = ended("stop-missing");
    assert_eq!(end, closed);
    assert_eq!(heard.close_code, Some(1000));

    let eof = |error: &Option<Error>| {
        matches!(error, Some(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)))
    };
    let (end, heard) = ended("fin");
    assert!(eof(&heard.error) && end == CallEnd::Dropped, "{:?}", heard.error);

    let (_, heard) = ended("half-frame");
    assert!(heard.error.is_some() && heard.close_code.is_none(), "{:?}", heard.error);

    let (end, heard) = ended("rst");
    assert_eq!(end, CallEnd::CutOff);
    let Some(Error::Io(error)) = heard.error else { panic!("{:?}", heard.error) };
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    let (end, _) = ended("silent=50ms");
    assert_eq!(end, CallEnd::StillOpen);
}

#[test]
fn reconnects_and_replays_keep_their_ids() {
    let audio = noise(9, 8000);
    for (fault, parts) in [
        ("reconnect@300ms", [&audio[..2400], &audio[2400..]]),
        ("replay", [&audio[..], &audio[..]]),
    ] {
        let sink = Sink::start(Manner::Polite);
        let directory = tempfile::tempdir().unwrap();
        let mut plan = sink.flood();
        plan.audio = Some(Audio::mono(audio.clone()));
        plan.save_sent = Some(directory.path().to_owned());
        plan.fault(fault).unwrap();
        let report = place(&plan);
        assert!(report.is_good(), "{report:?}");
        let [first, second] = &report.calls[..] else { panic!("two connections") };
        assert_eq!((&first.stream_sid, first.call_index), (&second.stream_sid, second.call_index));
        // The second connection may end before the first one is read to its end.
        let taken = [sink.next(), sink.next()].map(|call| call.audio("inbound"));
        for (part, number) in parts.into_iter().zip(["", "-2"]) {
            assert!(
                taken.iter().any(|taken| taken == part),
                "{fault}: no connection has this part"
            );
            let copy = directory.path().join(format!("{}{number}.ulaw", first.stream_sid));
            assert_eq!(std::fs::read(copy).unwrap(), part, "{fault}");
        }
    }
}

#[test]
fn pings_are_answered_unless_told_otherwise() {
    for (faults, pongs) in [(&[][..], 1), (&["no-pong", "silent=100ms@500ms"][..], 0)] {
        let sink = Sink::start(Manner::PingAfterStart);
        let mut plan = Plan::new(&sink.url);
        plan.duration = Some(Duration::from_millis(600));
        for fault in faults {
            plan.fault(fault).unwrap();
        }
        assert!(place(&plan).is_good());
        assert_eq!(sink.next().pongs, pongs, "{faults:?}");
    }
}

#[test]
fn cues_of_one_instant_all_take_effect_in_whatever_order_they_are_given() {
    for faults in [["silent=100ms@500ms", "no-pong@500ms"], ["no-pong@500ms", "silent=100ms@500ms"]]
    {
        let sink = Sink::start(Manner::PingAtBadJson);
        let mut plan = sink.flood();
        plan.duration = Some(Duration::from_secs(1));
        for fault in faults.into_iter().chain(["bad-json@500ms"]) {
            plan.fault(fault).unwrap();
        }
        let report = place(&plan);
        assert_eq!(only(&report).end, CallEnd::StillOpen, "{faults:?}");
        let heard = sink.next();
        assert_eq!((heard.media("inbound").len(), heard.pongs), (25, 0), "{faults:?}");
        assert_eq!(heard.texts().len(), 2 + 25 + 1, "{faults:?}: the bad message came");
    }
}

#[test]
fn a_server_that_does_not_close_well_is_told_on() {
    let ended = |manner| {
        let sink = Sink::start(manner);
        let mut plan = sink.flood();
        plan.duration = Some(Duration::from_secs(1));
        plan.patience = Duration::from_millis(200);
        let report = place(&plan);
        assert!(!report.is_good(), "{report:?}");
        only(&report).clone()
    };
    let call = ended(Manner::NeverCloses);
    assert_eq!((call.end, call.stopped), (CallEnd::StillOpen, true));
    let call = ended(Manner::ClosesWith(1011));
    assert_eq!(call.end, CallEnd::Closed { code: 1011, reason: "done".to_owned() });
    let call = ended(Manner::DropsAtStop);
    assert!(matches!(call.end, CallEnd::Dropped | CallEnd::Reset), "{call:?}");
}

#[test]
fn a_server_that_hangs_up_first_is_told_on() {
    let sink = Sink::start(Manner::HangsUpAfterStart);
    let mut plan = Plan::new(&sink.url);
    plan.duration = Some(Duration::from_secs(30));
    let report = place(&plan);
    let call = only(&report);
    assert!(!call.good && !call.stopped, "{call:?}");
    assert_eq!(call.end, CallEnd::Closed { code: 1000, reason: "done".to_owned() });
}

#[test]
fn a_refusal_says_status_and_reason() {
    let body = "\nwrong\x1b[31m signature\nand more";
    let head = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n", body.len());
    let (address, _requests) = answering(head + body);
    for url in [format!("ws://{address}/media-stream"), format!("http://{address}/incoming-call")] {
        let report = place(&Plan::new(url));
        let error = "refused with status 403: wrong\\u{1b}[31m signature".to_owned();
        assert_eq!(only(&report).end, CallEnd::Failed { error });
        assert!(!report.is_good());
    }
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let report = place(&Plan::new(format!("ws://{closed}/")));
    let CallEnd::Failed { error } = &only(&report).end else { panic!("{report:?}") };
    assert!(error.starts_with(&format!("cannot connect to {closed}: ")), "{error}");
}

#[test]
fn what_is_no_url_is_refused_before_any_call() {
    for url in ["", "example.com", "ftp://example.com/", "ws:"] {
        let error = block_on(callreel::caller::place(&Plan::new(url))).unwrap_err().to_string();
        assert!(error.contains("ws://, wss://, http:// or https://"), "{error}");
    }
}

#[test]
fn what_would_come_after_the_end_of_the_call_is_refused_before_any_call() {
    let sink = Sink::start(Manner::Polite);
    let refusal = |plan: &Plan| block_on(callreel::caller::place(plan)).unwrap_err().to_string();
    for (cue, length) in [("gap=500ms@10s", "10s"), ("rst@1m", "10s")] {
        let mut plan = Plan::new(&sink.url);
        plan.fault(cue).unwrap();
        let said =
            format!("`{}` is after the end of the call ({length})", cue.replace("1m", "60s"));
        assert_eq!(refusal(&plan), said);
    }
    let mut plan = sink.flood();
    plan.audio = Some(Audio::mono(noise(1, 8_000)));
    let at = Some(Duration::from_millis(1500));
    for action in [Action::Dtmf('#'), Action::Mark("#".to_owned())] {
        plan.cues = vec![Cue { at, action }];
        assert_eq!(refusal(&plan), "`#@1.5s` is after the end of the call (1s)");
    }
    plan.duration = Some(Duration::from_secs(2));
    assert!(place(&plan).is_good());
    assert_eq!(sink.next().events().iter().filter(|event| *event == "mark").count(), 1);
}

#[test]
fn the_verdict_names_the_streams_of_a_few_calls() {
    let sink = Sink::start(Manner::Polite);
    let verdict = |options: &[&str]| {
        let mut call = Command::new(callreel());
        call.args(["call", "--url", &sink.url, "--flood", "--duration", "200ms"]).args(options);
        let output = call.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let said = verdict(&["--stream-sid", "MZ1", "--fault", "replay"]);
    assert_eq!(said.lines().filter(|line| *line == "stream MZ1").count(), 1, "{said}");
    assert!(!verdict(&["--calls", "20"]).contains("stream MZ"));
}

#[test]
fn a_webhook_is_posted_signed_and_its_twiml_followed() {
    let sink = Sink::start(Manner::Polite);
    let stream_url = "wss://calls.example.com/media-stream";
    let twiml = format!(
        "<Response><Start><Stream track=\"both_tracks\" url=\"{stream_url}\"><Parameter \
         name=\"token\" value=\"a&amp;b\"/></Stream></Start><Dial>+1</Dial></Response>"
    );
    let length = twiml.len();
    let (address, requests) = answering(format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {length}\r\n\r\n{twiml}"
    ));
    let token = AuthToken::new("12345".to_owned()).unwrap();
    let public_url = "https://calls.example.com/incoming-call";
    let mut plan = Plan::new(format!("http://{address}/incoming-call"));
    plan.flood = true;
    plan.duration = Some(Duration::from_millis(100));
    plan.connect = Some(sink.address.to_string());
    plan.auth_token = Some(token.clone());
    plan.sign_url = Some(public_url.to_owned());
    let report = place(&plan);
    assert!(report.is_good(), "{report:?}");

    let request = requests.recv_timeout(PATIENCE).unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /incoming-call HTTP/1.1\r\n"), "{head}");
    let form: Vec<(String, String)> = url_form(body);
    let call_sid = form.iter().find(|(name, _)| name == "CallSid").unwrap().1.clone();
    assert_eq!(call_sid, only(&report).call_sid);
    let signature = twilio::sign(&token, public_url, &form);
    assert!(head.contains(&format!("x-twilio-signature: {signature}\r\n")), "{head}");

    let heard = sink.next();
    let no_form: [(&str, &str); 0] = [];
    assert_eq!(heard.signature, Some(twilio::sign(&token, stream_url, &no_form)));
    assert_eq!((heard.path.as_str(), heard.host.as_str()), ("/media-stream", "calls.example.com"));
    let start = &heard.json()[1]["start"];
    assert_eq!(start["customParameters"], serde_json::json!({"token": "a&b"}));
    assert_eq!(start["tracks"], serde_json::json!(["inbound", "outbound"]));
    assert_eq!(start["callSid"], call_sid.as_str());
}

/// One unpaced call of one second with one fault, as the sink heard it.
fn one_call(fault: &str) -> Heard {
    let sink = Sink::start(Manner::Polite);
    let mut plan = sink.flood();
    plan.audio = Some(Audio::mono(noise(9, 8000)));
    plan.first_timestamp_ms = Some(100);
    plan.fault(fault).unwrap();
    let report = place(&plan);
    assert!(report.is_good(), "{fault}: {report:?}");
    sink.next()
}

fn place(plan: &Plan) -> Report {
    block_on(callreel::caller::place(plan)).unwrap()
}

pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await.expect("in time") })
}

pub(crate) fn only(report: &Report) -> &CallReport {
    let [call] = &report.calls[..] else { panic!("one call: {report:?}") };
    call
}

fn noise(seed: u64, samples: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..samples).map(|_| next()).collect()
}

fn number(value: &Value) -> u64 {
    value.as_str().unwrap().parse().unwrap()
}

fn payload(media: &Value) -> Option<Vec<u8>> {
    Base64::decode_vec(media["payload"].as_str().unwrap()).ok()
}

fn url_form(body: &str) -> Vec<(String, String)> {
    let pairs: HashMap<String, String> = body
        .split('&')
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.replace("%2B", "+")))
        .collect();
    pairs.into_iter().collect()
}

/// A server that gives every connection the same answer, and passes the requests on.
fn answering(answer: String) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, requests) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let request = request_on(&mut stream);
            assert!(is_whole(request.as_bytes()), "the request ends early");
            stream.write_all(answer.as_bytes()).unwrap();
            if asked.send(request).is_err() {
                return;
            }
        }
    });
    (address, requests)
}

/// Behaviour of a sink towards its calls.
#[derive(Clone, Copy)]
enum Manner {
    /// Closes with 1000 after stop.
    Polite,
    ClosesWith(u16),
    DropsAtStop,
    HangsUpAfterStart,
    NeverCloses,
    PingAfterStart,
    PingAtBadJson,
}

/// A WebSocket server that receives calls and passes their messages on.
struct Sink {
    address: SocketAddr,
    url: String,
    heard: Receiver<Heard>,
}

/// One connection, after its end.
#[derive(Default)]
struct Heard {
    path: String,
    host: String,
    signature: Option<String>,
    authorization: Option<String>,
    subprotocol: Option<String>,
    /// Text and binary messages.
    messages: Vec<Message>,
    pings: usize,
    pongs: usize,
    close_code: Option<u16>,
    error: Option<Error>,
}

impl Sink {
    fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (ended, heard) = channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, ended) = (stream.unwrap(), ended.clone());
                thread::spawn(move || hear(stream, manner, &ended));
            }
        });
        Self { address, url: format!("ws://{address}/media-stream"), heard }
    }

    /// A plan of one unpaced call to this sink.
    fn flood(&self) -> Plan {
        let mut plan = Plan::new(&self.url);
        plan.flood = true;
        plan
    }

    /// The next connection that ends.
    fn next(&self) -> Heard {
        self.heard.recv_timeout(PATIENCE).unwrap()
    }
}

impl Heard {
    fn texts(&self) -> Vec<&str> {
        let texts = self.messages.iter().filter(|message| message.is_text());
        texts.map(|message| message.to_text().unwrap()).collect()
    }

    fn text(&self, at: usize) -> &str {
        self.messages[at].to_text().unwrap()
    }

    /// Every text message that is JSON.
    fn json(&self) -> Vec<Value> {
        self.texts().iter().filter_map(|text| serde_json::from_str(text).ok()).collect()
    }

    fn events(&self) -> Vec<String> {
        self.json().iter().map(|message| message["event"].as_str().unwrap().to_owned()).collect()
    }

    fn media(&self, track: &str) -> Vec<Value> {
        let messages = self.json().into_iter();
        let media = messages.map(|mut message| message["media"].take());
        media.filter(|media| media["track"] == track).collect()
    }

    fn audio(&self, track: &str) -> Vec<u8> {
        self.media(track).iter().filter_map(payload).flatten().collect()
    }
}

fn hear(stream: TcpStream, manner: Manner, ended: &Sender<Heard>) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut heard = Heard::default();
    #[expect(clippy::result_large_err, reason = "tungstenite asks for it")]
    let note = |request: &Request, mut response: Response| {
        let header =
            |name: &str| request.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
        heard.path = request.uri().to_string();
        heard.host = header("host").unwrap();
        heard.signature = header("x-twilio-signature");
        heard.authorization = header("authorization");
        heard.subprotocol = header("sec-websocket-protocol");
        if let Some(subprotocol) = request.headers().get("sec-websocket-protocol") {
            response.headers_mut().insert("sec-websocket-protocol", subprotocol.clone());
        }
        Ok(response)
    };
    let config = WebSocketConfig::default().max_message_size(Some(256 << 10));
    let mut ws = tungstenite::accept_hdr_with_config(stream, note, Some(config)).unwrap();
    let error = loop {
        match ws.read() {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                react(&mut ws, manner, &message);
                heard.messages.push(message);
            }
            Ok(Message::Ping(_)) => heard.pings += 1,
            Ok(Message::Pong(_)) => heard.pongs += 1,
            Ok(Message::Close(frame)) => heard.close_code = frame.map(|frame| frame.code.into()),
            Ok(Message::Frame(_)) => unreachable!("never read"),
            Err(error) => break error,
        }
    };
    answer_violation(&mut ws, &error);
    heard.error = Some(error);
    let _ = ended.send(heard);
}

fn react(ws: &mut WebSocket<TcpStream>, manner: Manner, message: &Message) {
    let is = |event: &str| {
        message.to_text().is_ok_and(|text| text.contains(&format!("\"event\":\"{event}\"")))
    };
    let close = |ws: &mut WebSocket<TcpStream>, code: u16| {
        let _ = ws.close(Some(CloseFrame { code: code.into(), reason: "done".into() }));
    };
    match manner {
        Manner::Polite | Manner::PingAfterStart if is("stop") => close(ws, 1000),
        Manner::ClosesWith(code) if is("stop") => close(ws, code),
        Manner::DropsAtStop if is("stop") => ws.get_mut().shutdown(Shutdown::Both).unwrap(),
        Manner::HangsUpAfterStart if is("start") => close(ws, 1000),
        Manner::PingAfterStart if is("start") => ws.send(Message::Ping("now".into())).unwrap(),
        Manner::PingAtBadJson if message.to_text().is_ok_and(|text| !text.ends_with('}')) => {
            ws.send(Message::Ping("now".into())).unwrap();
        }
        _ => {}
    }
}

/// Sends the close code of a violation, which tungstenite leaves to its user.
fn answer_violation(ws: &mut WebSocket<TcpStream>, error: &Error) {
    let code: u16 = match error {
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return,
        Error::Protocol(_) => 1002,
        Error::Utf8(_) => 1007,
        Error::Capacity(_) => 1009,
        _ => return,
    };
    let [high, low] = code.to_be_bytes();
    let _ = ws.get_mut().write_all(&[0x88, 2, high, low]);
}
