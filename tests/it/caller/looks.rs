//! Calls with the look of every provider: recorded by a server as they were sent, with the faults that the
//! provider can have, and with proofs that the server's admission takes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use callreel::audio::{self, Audio};
use callreel::caller::{AskedCodec, CallEnd, CallReport, DialledTracks, Look, Plan};
use callreel::twilio::AuthToken;
use serde_json::Value;
use tungstenite::Message;

use super::{Manner, Sink, block_on, only, place};
use crate::g722::decoded_by_ffmpeg;
use crate::harness::oracle;
use crate::harness::process::{PATIENCE, Server, Setup, callreel, eventually};
use crate::harness::shelf;

/// A plan of one unpaced call of 1010 ms to a server: the last chunk is short.
fn plan(server: &Server, look: &str) -> Plan {
    let mut plan = Plan::new(format!("ws://{}/media-stream", server.address));
    plan.look = Look::named(look).unwrap();
    plan.flood = true;
    plan.duration = Some(Duration::from_millis(1010));
    // Voices as short as the call: making up the usual ones takes longer than all calls here.
    let voice = || audio::speech(VOICES.fetch_add(1, Ordering::Relaxed), 8080);
    plan.audio = Some(Audio::stereo(voice(), voice()));
    plan.tracks = Some(DialledTracks::Inbound);
    plan
}

/// Number of the next voice.
static VOICES: AtomicU64 = AtomicU64::new(0);

/// Places the calls of all plans at one time; returns the report of the only call of each.
fn place_all(plans: Vec<Plan>) -> Vec<CallReport> {
    let all = async {
        let mut calls = tokio::task::JoinSet::new();
        for (at, plan) in plans.into_iter().enumerate() {
            calls.spawn(async move { (at, callreel::caller::place(&plan).await) });
        }
        let mut reports = calls.join_all().await;
        reports.sort_by_key(|(at, _)| *at);
        reports
    };
    let report = |(at, report): (usize, _)| {
        let report: Result<_, callreel::caller::Error> = report;
        only(&report.unwrap_or_else(|error| panic!("{at}: {error}"))).clone()
    };
    block_on(all).into_iter().map(report).collect()
}

impl Found {
    /// Whether the record has an id of the call.
    fn is_of(&self, call: &CallReport) -> bool {
        let ids = [&call.stream_sid, &call.call_sid];
        ["stream_id", "call_id"].iter().any(|name| ids.iter().any(|id| self.record[name] == **id))
    }

    fn channel(&self, channel: usize) -> Vec<i16> {
        self.samples.iter().skip(channel).step_by(self.channels).copied().collect()
    }
}

/// A record, and the samples of its file, channel by channel in turns.
struct Found {
    record: Value,
    channels: usize,
    samples: Vec<i16>,
}

/// The recordings of a directory, once there are `count`.
fn recordings(dir: &Path, count: usize) -> Vec<Found> {
    let records = eventually(PATIENCE, "the recordings", || {
        let files = shelf::files(dir).into_iter();
        let records: Vec<_> =
            files.filter(|path| path.extension().is_some_and(|e| e == "json")).collect();
        (records.len() >= count).then_some(records)
    });
    let read = |path: &PathBuf| {
        let record: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let wav = fs::read(path.with_extension("wav")).unwrap();
        let size = u32::from_le_bytes(wav[40..44].try_into().unwrap()) as usize;
        let samples = wav[44..44 + size].chunks(2).map(|s| i16::from_le_bytes([s[0], s[1]]));
        let (channels, samples) = (usize::from(wav[22]), samples.collect());
        Found { record, channels, samples }
    };
    records.iter().map(read).collect()
}

/// A call: look, codec, rate, tracks, the provider and the codec of its record.
type Row =
    (&'static str, Option<AskedCodec>, Option<u32>, DialledTracks, &'static str, &'static str);

const CALLS: [Row; 45] = {
    use AskedCodec::{Alaw, G722, L16, Mulaw};
    use DialledTracks::{Both, Inbound};
    [
        ("twilio", None, None, Both, "twilio", "mulaw"),
        ("telnyx", None, None, Both, "telnyx", "mulaw"),
        ("telnyx", Some(Alaw), None, Both, "telnyx", "alaw"),
        ("telnyx", Some(L16), Some(16_000), Both, "telnyx", "l16be"),
        ("plivo", None, None, Both, "plivo", "mulaw"),
        ("plivo", Some(L16), None, Inbound, "plivo", "l16le"),
        ("vobiz", None, None, Both, "plivo", "l16le"),
        ("signalwire", None, None, Both, "signalwire", "mulaw"),
        ("signalwire", Some(L16), Some(24_000), Both, "signalwire", "l16le"),
        ("exotel", None, None, Inbound, "exotel", "l16le"),
        ("exotel", Some(Mulaw), None, Inbound, "exotel", "mulaw"),
        ("bandwidth", None, None, Both, "bandwidth", "mulaw"),
        ("voximplant", None, Some(16_000), Inbound, "voximplant", "l16le"),
        ("wavix", None, None, Both, "wavix", "l16le"),
        ("fonoster", None, None, Inbound, "twilio", "mulaw"),
        ("cloudonix", None, None, Both, "twilio", "mulaw"),
        ("somleng", None, None, Both, "twilio", "mulaw"),
        ("smartflo", None, None, Inbound, "twilio", "mulaw"),
        ("2600hz", None, None, Both, "twilio", "l16le"),
        ("2600hz", Some(Mulaw), None, Inbound, "twilio", "mulaw"),
        ("vonage", None, None, Inbound, "vonage", "l16le"),
        ("vonage", None, Some(24_000), Inbound, "vonage", "l16le"),
        ("vonage-video", None, Some(8000), Inbound, "vonage", "l16le"),
        ("infobip", None, Some(32_000), Inbound, "vonage", "l16le"),
        ("jambonz", None, None, Both, "jambonz", "l16le"),
        ("jambonz", None, Some(16_000), Inbound, "jambonz", "l16le"),
        ("mod-audio-fork", None, None, Inbound, "jambonz", "l16le"),
        ("mod-audio-stream", None, Some(16_000), Both, "mod-audio-stream", "l16le"),
        ("2600hz-raw", None, None, Inbound, "mod-audio-stream", "l16le"),
        ("asterisk", None, None, Inbound, "asterisk", "mulaw"),
        ("asterisk", Some(Alaw), None, Inbound, "asterisk", "alaw"),
        ("asterisk-json", None, Some(48_000), Inbound, "asterisk", "l16le"),
        ("genesys", None, None, Both, "genesys", "mulaw"),
        ("telnyx", Some(G722), None, Both, "telnyx", "g722"),
        ("asterisk-json", Some(G722), None, Inbound, "asterisk", "g722"),
        ("acs", None, None, Inbound, "acs", "l16le"),
        ("acs-unmixed", None, Some(24_000), Inbound, "acs", "l16le"),
        ("audiocodes", None, None, Inbound, "audiocodes", "l16le"),
        ("audiocodes", None, Some(24_000), Inbound, "audiocodes", "l16le"),
        ("audiocodes", Some(Mulaw), None, Inbound, "audiocodes", "mulaw"),
        ("ringcentral", None, None, Both, "ringcentral", "mulaw"),
        ("sinch", None, Some(96_000), Inbound, "sinch", "l16le"),
        ("webex", None, None, Inbound, "webex", "mulaw"),
        ("webex", Some(Alaw), None, Inbound, "webex", "alaw"),
        ("webex", Some(L16), Some(16_000), Inbound, "webex", "l16le"),
    ]
};

/// Paths of looks whose messages do not tell the provider or the format.
const PATHS: [(&str, &str); 2] = [
    ("mod-audio-stream", "mod-audio-stream:16000:stereo"),
    ("2600hz-raw", "mod-audio-stream:8000"),
];

#[test]
fn a_call_of_every_look_is_recorded_as_it_was_sent() {
    let dir = tempfile::tempdir().unwrap();
    let sent = dir.path().join("sent");
    let kept = dir.path().join("kept");
    let paths = PATHS.map(|(look, spoken)| format!("/{look}={spoken}")).join(",");
    let server = Setup::new(&kept).plain().args(&["--provider", &paths]).start();
    let plans = CALLS.iter().map(|(look, codec, rate_hz, tracks, ..)| {
        let mut plan = plan(&server, look);
        (plan.codec, plan.rate_hz, plan.tracks) = (*codec, *rate_hz, Some(*tracks));
        plan.save_sent = Some(sent.clone());
        if PATHS.iter().any(|(of, _)| of == look) {
            plan.url = format!("ws://{}/{look}", server.address);
        }
        if *look == "voximplant" {
            plan.stream_sid = Some("T1".to_owned());
        }
        plan
    });
    let reports = place_all(plans.collect());
    for (row, report) in CALLS.iter().zip(&reports) {
        assert!(report.good, "{row:?}: {report:?}");
    }
    let recordings = recordings(&kept, CALLS.len());

    // A tool's start takes longer than its work: each format gets all at once.
    let mut bytes = BTreeMap::<&str, Vec<u8>>::new();
    let mut places = Vec::new();
    for (row, report) in CALLS.iter().zip(&reports) {
        let (extension, format) = match row.5 {
            "mulaw" => ("ulaw", "mulaw"),
            "alaw" => ("alaw", "alaw"),
            "g722" => ("g722", "g722"),
            "l16be" => ("s16be", "s16be"),
            _ => ("s16le", "s16le"),
        };
        let sides = if row.3 == DialledTracks::Both { &["", ".outbound"][..] } else { &[""] };
        let ranges = sides.iter().map(|side| {
            let path = sent.join(format!("{}{side}.{extension}", report.stream_sid));
            let sent = fs::read(&path).unwrap_or_else(|error| panic!("{row:?}: {error}"));
            let all = bytes.entry(format).or_default();
            let width = if format.starts_with('s') { 2 } else { 1 };
            let range = all.len() / width..(all.len() + sent.len()) / width;
            all.extend(sent);
            range
        });
        places.push((format, ranges.collect::<Vec<_>>()));
    }
    let coded = bytes.remove("g722").unwrap();
    let decoded: BTreeMap<_, _> =
        bytes.iter().map(|(format, bytes)| (*format, oracle::ffmpeg_raw(format, bytes))).collect();
    for ((row, report), (format, ranges)) in CALLS.iter().zip(&reports).zip(places) {
        let samples = |range: Range<usize>| match format {
            // Each sample of a stream stands on those before it.
            "g722" => decoded_by_ffmpeg(&coded[range]),
            format => decoded[format][range].to_vec(),
        };
        let sent: Vec<_> = ranges.into_iter().map(samples).collect();
        let is_equal =
            |found: &Found| (0..).zip(&sent).all(|(channel, sent)| found.channel(channel) == *sent);
        // Some providers name neither the stream nor the call.
        let found = recordings.iter().find(|found| found.is_of(report));
        let found = found.or_else(|| recordings.iter().find(|found| is_equal(found)));
        let found = found.unwrap_or_else(|| panic!("{row:?}: no such recording"));
        assert!(is_equal(found), "{row:?}: {:#}", found.record);
        let samples: usize = sent.iter().map(Vec::len).sum();
        assert_eq!(samples as u64, report.samples_sent, "{row:?}");
        let record = &found.record;
        assert_eq!(record["state"], "complete", "{row:?}: {record:#}");
        assert_eq!(record["provider"], row.4, "{row:?}");
        assert_eq!(record["wire"]["codec"], row.5, "{row:?}: {record:#}");
        assert_eq!(record["gaps"], serde_json::json!([]), "{row:?}: {record:#}");
        let rate_hz = record["wire"]["sample_rate_hz"].as_u64().unwrap();
        assert_eq!(sent[0].len() as u64, rate_hz * 1010 / 1000, "{row:?}");
    }
}

/// Faults that disturb messages, each with the codes that are right at the end.
const FAULTS: [&str; 18] = [
    "stop-missing",
    "fin",
    "rst",
    "half-frame",
    "unmasked",
    "bad-utf8",
    "gap=200ms",
    "gap-no-hole=200ms",
    "late=200ms",
    "reorder",
    "duplicate",
    "timestamp-jump",
    "bad-base64",
    "bad-json",
    "binary",
    "media-before-start",
    "second-start",
    "fragments",
];

#[test]
fn every_fault_of_every_look_ends_as_it_must_or_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).plain().start();
    let told = CALLS.iter().filter(|row| PATHS.iter().all(|(look, _)| *look != row.0));
    let looks: BTreeSet<_> = told.map(|row| row.0).collect();
    let mut plans = Vec::new();
    let mut refused = Vec::new();
    for look in looks {
        for fault in FAULTS {
            let mut plan = plan(&server, look);
            plan.fault(fault).unwrap();
            // Refusals come before any connection.
            let elsewhere = Plan { url: "ws://127.0.0.1:1/".to_owned(), ..plan.clone() };
            match block_on(callreel::caller::place(&elsewhere)) {
                Ok(_) => plans.push((look, fault, plan)),
                Err(error) => refused.push(error.to_string()),
            }
        }
    }
    let (names, plans): (Vec<_>, Vec<_>) =
        plans.into_iter().map(|(look, fault, plan)| ((look, fault), plan)).unzip();
    let reports = place_all(plans);
    for (name, report) in names.iter().zip(&reports) {
        assert!(report.good, "{name:?}: {report:?}");
    }
    let reasons: BTreeSet<_> =
        refused.iter().map(|told| told.split_once(": ").unwrap().1.to_owned()).collect();
    assert_eq!(
        reasons.into_iter().collect::<Vec<_>>(),
        [
            "it says no stop",
            "it waits for an answer before its audio",
            "its audio comes in binary messages",
            "its audio has no timestamps",
            "its audio is not in base64",
            "its connections carry one stream",
            "its messages are not JSON",
            "its streams have no start",
        ]
    );
    let of_text = refused.iter().filter(|told| told.contains(" is not for plivo: ")).count();
    assert_eq!(of_text, 1, "{refused:#?}");
}

#[test]
fn what_a_provider_does_not_have_is_refused_before_any_call() {
    let refusal = |look: &str, change: &dyn Fn(&mut Plan)| {
        let mut plan = Plan::new("ws://127.0.0.1:1/");
        plan.look = Look::named(look).unwrap();
        change(&mut plan);
        block_on(callreel::caller::place(&plan)).unwrap_err().to_string()
    };
    let said = refusal("exotel", &|plan| plan.tracks = Some(DialledTracks::Both));
    assert_eq!(said, "exotel sends one track, inbound: leave out --tracks both");
    let said = refusal("plivo", &|plan| plan.codec = Some(AskedCodec::Alaw));
    let formats = "mulaw 8000, l16le 8000/16000/24000";
    assert_eq!(said, format!("plivo has no such format; it has {formats} (--codec, --rate)"));
    let said = refusal("wavix", &|plan| plan.rate_hz = Some(8000));
    assert!(said.starts_with("wavix has no such format; it has l16le 24000"), "{said}");
    let said = refusal("telnyx", &|plan| plan.url = "https://a.example/in".to_owned());
    assert!(said.starts_with("telnyx follows no TwiML"), "{said}");
    let token = |plan: &mut Plan| plan.auth_token = Some(AuthToken::new("x".to_owned()).unwrap());
    assert!(refusal("somleng", &token).contains("prove nothing"));
    assert!(refusal("exotel", &token).contains("in the URL"));
    assert!(refusal("genesys", &token).contains("API_KEY:SECRET"));
    let key = |plan: &mut Plan| {
        plan.cues =
            vec![callreel::caller::Cue { at: None, action: callreel::caller::Action::Dtmf('1') }]
    };
    assert_eq!(refusal("wavix", &key), "`1` is not for wavix: it sends no keys");
}

#[test]
fn proofs_are_those_that_the_admission_of_a_server_takes() {
    const PUBLIC: &str = "https://calls.example.com";
    let dir = tempfile::tempdir().unwrap();
    let schemes = [
        ("plivo", "plivo", "right", "wrong"),
        ("fonoster", "fonoster", "right", "wrong"),
        ("telnyx", "bearer", "right", "wrong"),
        ("vonage", "vonage", "right", "wrong"),
        ("genesys", "genesys", "key cmlnaHQ=", "key:d3Jvbmc="),
        ("exotel", "basic", "user:p ss", "user:wrong"),
    ];
    let (mut paths, mut settings) = (Vec::new(), Vec::new());
    for (look, scheme, secret, _) in schemes {
        let file = dir.path().join(look);
        fs::write(&file, secret).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        paths.push(format!("/{look}=twilio"));
        settings.push(format!("/{look}={scheme}:{}", file.display()));
    }
    let server = Setup::new(&dir.path().join("kept"))
        .plain()
        .args(&["--public-url", PUBLIC, "--provider", &paths.join(",")])
        .args(&["--admission", &settings.join(",")])
        .start();
    let status = |look: &str, secret: &str| {
        let mut plan = plan(&server, look);
        let login = if look == "exotel" {
            format!("{}@", secret.replace(' ', "%20"))
        } else {
            String::new()
        };
        plan.url = format!("ws://{login}{}/{look}?b=2&a=1", server.address);
        plan.sign_url = Some(format!("wss://calls.example.com/{look}?b=2&a=1"));
        if login.is_empty() {
            plan.auth_token = Some(AuthToken::new(secret.replace(' ', ":")).unwrap());
        }
        plan.patience = Duration::from_millis(1);
        match &only(&place(&plan)).end {
            CallEnd::Failed { error } if error.contains("refused with status 40") => 403,
            CallEnd::Failed { error } if !error.contains("opened") => panic!("{look}: {error}"),
            _ => 101,
        }
    };
    for (look, _, right, wrong) in schemes {
        assert_eq!((look, status(look, right)), (look, 101));
        assert_eq!((look, status(look, wrong)), (look, 403));
    }
}

#[test]
fn binary_looks_say_a_text_and_then_nothing_but_audio() {
    let heard = |look: &str, tracks| {
        let sink = Sink::start(Manner::Polite);
        let sent = tempfile::tempdir().unwrap();
        let mut plan = sink.flood();
        plan.look = Look::named(look).unwrap();
        plan.duration = Some(Duration::from_millis(110));
        plan.tracks = Some(tracks);
        plan.save_sent = Some(sent.path().to_owned());
        let report = place(&plan);
        assert!(report.is_good(), "{report:?}");
        let mut files = shelf::files(sent.path());
        files.sort_by_key(|path| path.to_string_lossy().len());
        let audio: Vec<_> = files.iter().map(|path| fs::read(path).unwrap()).collect();
        let heard = sink.next();
        let binary = |message: &Message| match message {
            Message::Binary(bytes) => Some(bytes.to_vec()),
            _ => None,
        };
        let texts: Vec<_> = heard.texts().into_iter().map(str::to_owned).collect();
        let binary: Vec<_> = heard.messages.iter().filter_map(binary).collect();
        (texts, binary, audio, heard.close_code, heard.subprotocol)
    };
    let (texts, binary, audio, code, _) = heard("vonage", DialledTracks::Inbound);
    let first: Value = serde_json::from_str(&texts[0]).unwrap();
    assert_eq!(first["content-type"], "audio/l16;rate=16000");
    assert_eq!((texts.len(), binary.len(), binary[0].len(), code), (1, 6, 640, Some(1000)));
    assert_eq!(binary.concat(), audio[0]);

    // Two tracks sample by sample, and an empty message before the end.
    let (texts, binary, audio, code, protocol) = heard("jambonz", DialledTracks::Both);
    assert!(texts[0].contains(r#""sampleRate":8000,"mixType":"stereo""#), "{texts:?}");
    assert_eq!((binary.len(), binary[0].len(), code), (7, 640, Some(1000)));
    assert_eq!((protocol.as_deref(), binary[6].len()), (Some("audio.jambonz.org"), 0));
    let frames = binary.concat();
    let track =
        |at: usize| -> Vec<u8> { frames.chunks(4).flat_map(|f| f[at..at + 2].to_vec()).collect() };
    assert_eq!([track(0), track(2)], [audio[0].clone(), audio[1].clone()]);

    let (texts, binary, audio, _, protocol) = heard("asterisk", DialledTracks::Inbound);
    assert!(texts[0].starts_with("MEDIA_START connection_id:") && binary.concat() == audio[0]);
    assert_eq!((binary[0].len(), protocol.as_deref()), (160, Some("media")));
    let (texts, binary, audio, ..) = heard("2600hz-raw", DialledTracks::Inbound);
    assert!(texts.is_empty() && binary.concat() == audio[0]);
}

#[test]
fn the_list_names_every_look_for_people_and_for_programs() {
    let list = |options: &[&str]| {
        let output =
            Command::new(callreel()).args(["call", "--list-providers"]).args(options).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let (table, json) = (list(&[]), list(&["--json"]));
    let json: Vec<Value> = serde_json::from_str(&json).unwrap();
    assert_eq!(json.len(), Look::all().len());
    for (look, (listed, line)) in Look::all().iter().zip(json.iter().zip(table.lines().skip(1))) {
        assert_eq!(listed["name"], look.name());
        assert!(line.starts_with(&format!("{} ", look.name())), "{line}");
        let codecs = listed["codecs"].as_array().unwrap();
        assert!(codecs.iter().all(|codec| codec["sample_rates_hz"][0].is_u64()), "{listed}");
    }
    let wavix = json.iter().find(|listed| listed["name"] == "wavix").unwrap();
    assert_eq!((&wavix["time"], &wavix["end"]), (&"samples".into(), &"stop".into()));
    let two_way = |name: &str| {
        let listed = json.iter().find(|listed| listed["name"] == name).unwrap();
        (listed["is_two_way"] == true, listed["has_marks"] == true)
    };
    let expected = [(true, true), (true, false), (false, false)];
    assert_eq!(["exotel", "bandwidth", "genesys"].map(two_way), expected);

    let said = Command::new(callreel()).args(["call", "--as", "nobody"]).output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("--as <PROVIDER>': no such provider; known are 2600hz, "), "{said}");
}

#[test]
fn a_token_of_twilios_variable_goes_to_no_other_provider() {
    let sink = Sink::start(Manner::Polite);
    let authorization = |token: &[&str]| {
        let call = Command::new(callreel())
            .args(["call", "--as", "telnyx", "--flood", "--duration", "100ms", "--url", &sink.url])
            .args(token)
            .env("TWILIO_AUTH_TOKEN", "0123456789abcdef")
            .output()
            .unwrap();
        assert!(call.status.success(), "{call:?}");
        let verdict = String::from_utf8_lossy(&call.stdout).into_owned();
        assert!(verdict.starts_with("1 call as telnyx, 5 frames sent"), "{verdict}");
        sink.next().authorization
    };
    assert_eq!(authorization(&[]), None);
    assert_eq!(authorization(&["--auth-token", "mine"]).as_deref(), Some("Bearer mine"));
}
