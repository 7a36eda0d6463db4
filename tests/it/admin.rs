//! The admin listener, tested with an HTTP client: API, events, listen-in, access, metrics, webhook.

mod answers;
mod events;
mod find;
mod limits;
mod listen;
mod system;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base64ct::{Base64, Encoding as _};
use callreel::admin::{Config, Token};
use callreel::audio::Audio;
use callreel::caller::DialledTracks;
use callreel::webhook;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};

use crate::harness::admin::{Answer, Events, Recorder, shelve, tone};
use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, Server, Setup, eventually};
use crate::harness::receiver::receiver;
use crate::harness::shelf;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn open() -> Config {
    Config { allows_delete: true, ..Config::default() }
}

fn locked() -> Config {
    Config { token: Some(Token::new(TOKEN.into()).unwrap()), ..open() }
}

/// Records one short call; returns its path in the API and its summary.
fn record_one(recorder: &Recorder) -> (String, Value) {
    let mut plan = recorder.plan();
    plan.flood = true;
    plan.duration = Some(Duration::from_secs(3));
    plan.tracks = Some(DialledTracks::Both);
    plan.parameters = vec![("tenant".into(), "Acme".into())];
    plan.fault("gap=500ms@1s").unwrap();
    plan.cues.push(dtmf());
    assert!(recorder.place(&plan).is_good());
    let summary = recorder.wait_for_recordings(1)[0].clone();
    let path = format!(
        "/api/v1/recordings/{}/{}",
        summary["day"].as_str().unwrap(),
        summary["id"].as_str().unwrap()
    );
    (path, summary)
}

fn dtmf() -> callreel::caller::Cue {
    callreel::caller::Cue {
        at: Some(Duration::from_millis(500)),
        action: callreel::caller::Action::Dtmf('1'),
    }
}

#[test]
fn a_live_call_is_listed_heard_and_gone_when_it_ends() {
    let recorder = Recorder::start(open());
    let mut plan = recorder.plan();
    let (left, right) = (tone(1000.0, Duration::from_secs(1)), tone(440.0, Duration::from_secs(1)));
    plan.audio = Some(Audio::stereo(left, right));
    plan.duration = Some(Duration::from_secs(8));
    plan.call_sid = Some("CAlive".into());
    let placed = recorder.place_meanwhile(plan);
    let call = recorder.wait_for("/api/v1/calls", |answer| {
        let call = answer["calls"].get(0)?;
        (call["levels"][0].as_u64()? > 10_000).then(|| call.clone())
    });
    assert_eq!(call["call_id"], "CAlive");
    assert_eq!(call["tracks"], json!(["inbound", "outbound"]));
    let path = format!("/api/v1/calls/{}", call["key"].as_str().unwrap());
    assert_eq!(recorder.get(&path).json()["call_id"], "CAlive");
    listen::check(&recorder, &path, [1000.0, 440.0]);
    assert!(recorder.block_on(placed).unwrap().is_good());
    recorder.wait_for("/api/v1/calls", |answer| {
        answer["calls"].as_array().filter(|calls| calls.is_empty()).map(drop)
    });
    assert_eq!(recorder.get(&format!("{path}/listen")).status, 404);
}

#[test]
fn what_happens_is_told_as_it_happens() {
    let recorder = Recorder::start(open());
    let mut events = Events::of(recorder.admin);
    assert_eq!(events.next().0, "hello");
    let mut plan = recorder.plan();
    plan.duration = Some(Duration::from_millis(2500));
    plan.fault("gap=400ms@1s").unwrap();
    plan.cues.push(dtmf());
    let placed = recorder.place_meanwhile(plan);
    let mut seen: BTreeMap<String, Value> = BTreeMap::new();
    while !seen.contains_key("published") {
        let (event, data) = events.next();
        seen.insert(event, data);
    }
    assert!(recorder.block_on(placed).unwrap().is_good());
    let order: BTreeSet<&str> = seen.keys().map(String::as_str).collect();
    assert!(order.is_superset(&BTreeSet::from(["started", "level", "gap", "dtmf", "ended"])));
    let missing_ms = seen["gap"]["moment"]["missing_ms"].as_u64().unwrap();
    assert!(missing_ms.abs_diff(400) < 20, "{missing_ms} ms");
    assert_eq!(seen["dtmf"]["moment"]["value"], "1");
    assert_eq!(seen["published"]["state"], "complete");
}

#[test]
fn audio_is_served_whole_in_parts_and_not_again() {
    let recorder = Recorder::start(open());
    let (path, summary) = record_one(&recorder);
    let audio = format!("{path}/audio");
    let whole = recorder.get(&audio);
    let length = summary["bytes"].as_u64().unwrap();
    assert_eq!((whole.status, whole.body.len() as u64), (200, length));
    assert_eq!(
        (whole.header("accept-ranges"), whole.header("content-type")),
        ("bytes", "audio/wav")
    );
    let etag = whole.header("etag").to_owned();
    let ranged = |range: &str| recorder.ask("GET", &audio, &[("range", range)]);
    for (range, from, to) in [
        ("bytes=0-3", 0, 4),
        ("bytes=44-", 44, length as usize),
        ("bytes=-10", length as usize - 10, length as usize),
        ("bytes=100-99999999999", 100, length as usize),
        ("bytes=-99999999999999999999", 0, length as usize),
    ] {
        let part = ranged(range);
        assert_eq!(part.status, 206, "{range}");
        assert!(part.body == whole.body[from..to], "{range}");
        assert_eq!(part.header("content-range"), format!("bytes {from}-{}/{length}", to - 1));
    }
    let beyond = ranged(&format!("bytes={length}-"));
    assert_eq!(
        (beyond.status, beyond.header("content-range")),
        (416, &*format!("bytes */{length}"))
    );
    assert_eq!(ranged("bytes=0-1,4-5").status, 200);
    let head = recorder.ask("HEAD", &audio, &[]);
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), length.to_string());
    assert_eq!(recorder.ask("HEAD", &audio, &[("range", "bytes=0-3")]).status, 200);
    for tags in [etag.clone(), format!("\"other\", W/{etag}"), "*".to_owned()] {
        assert_eq!(recorder.ask("GET", &audio, &[("if-none-match", &tags)]).status, 304, "{tags}");
    }
    let other = [("range", "bytes=0-3"), ("if-range", "\"another\"")];
    assert_eq!(recorder.ask("GET", &audio, &other).status, 200);
    let same = [("range", "bytes=0-3"), ("if-range", etag.as_str())];
    assert_eq!(recorder.ask("GET", &audio, &same).status, 206);
}

#[test]
fn peaks_are_those_of_the_samples() {
    let recorder = Recorder::start(open());
    let (path, _) = record_one(&recorder);
    let wav = recorder.get(&format!("{path}/audio")).body;
    let samples: Vec<i16> =
        hound::WavReader::new(&wav[..]).unwrap().into_samples().map(Result::unwrap).collect();
    let peaks = recorder.get(&format!("{path}/peaks?columns=100")).json();
    assert_eq!((&peaks["columns"], &peaks["is_sampled"]), (&json!(100), &json!(false)));
    for channel in 0..2 {
        let column: Vec<i16> =
            samples[..samples.len() / 100].iter().skip(channel).step_by(2).copied().collect();
        let high = column.iter().max().map(|high| (*high).max(0) >> 8).unwrap();
        assert_eq!(peaks["channels"][channel]["high"][0], high);
        assert_eq!(peaks["channels"][channel]["low"].as_array().unwrap().len(), 100);
    }
    // A part of it, to the sample: time behind the end counts for nothing.
    let part = recorder.get(&format!("{path}/peaks?columns=10&from_ms=1000&to_ms=99000")).json();
    let from = 2 * 8 * 1000;
    let column = &samples[from..from + 2 * ((samples.len() - from) / 2 / 10)];
    for channel in 0..2 {
        let high = column.iter().skip(channel).step_by(2).max().map(|high| (*high).max(0) >> 8);
        assert_eq!(part["channels"][channel]["high"][0], high.unwrap());
        assert_eq!(part["channels"][channel]["high"].as_array().unwrap().len(), 10);
    }
    let behind = recorder.get(&format!("{path}/peaks?from_ms=90000")).json();
    assert_eq!(behind["columns"], 0);
    for wrong in ["columns=x", "from_ms=x", "from_ms=5&to_ms=5"] {
        assert_eq!(recorder.get(&format!("{path}/peaks?{wrong}")).status, 400, "{wrong}");
    }
}

#[test]
fn recordings_are_paged_newest_first_and_found() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    for number in 0..25 {
        shelve(dir.path(), &format!("2026-01-{:02}", number % 5 + 1), &format!("MZ{number:02}"));
    }
    std::fs::write(dir.path().join("2026-01-01/foreign.json"), "{}").unwrap();
    let recorder = Recorder::start_in(dir, open(), None);
    let mut found: Vec<(String, String)> = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = recorder.get(&format!("/api/v1/recordings?limit=4&cursor={cursor}")).json();
        for recording in page["recordings"].as_array().unwrap() {
            let text = |name: &str| recording[name].as_str().unwrap().to_owned();
            found.push((text("day"), text("id")));
        }
        let Some(next) = page["next"].as_str() else { break };
        cursor = next.to_owned();
    }
    assert_eq!(found.len(), 25);
    assert!(found.is_sorted_by(|a, b| a.0 >= b.0));
    assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), 25);
    for (query, count) in [
        ("q=mz07", 1),
        ("q=CA-MZ1", 10),
        ("q=ac1", 25),
        ("state=partial", 0),
        ("state=complete", 25),
        ("from=2026-01-02&to=2026-01-03", 10),
        ("from=2026-01-02T12:00:00Z&to=2026-01-04T11:00:00Z", 10),
        ("from=2026-01-02T12:00:01Z&to=2026-01-03", 5),
        ("from=2026-01-02T00:00:00-14:00&to=2026-01-03", 5),
        ("q=MZ07&from=2026-01-04", 0),
    ] {
        let page = recorder.get(&format!("/api/v1/recordings?limit=100&{query}")).json();
        assert_eq!(page["recordings"].as_array().unwrap().len(), count, "{query}");
    }
    // A changed folder is read again.
    let day = recorder.dir.path().join("2026-01-05");
    std::fs::File::open(&day).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let ids = || -> BTreeSet<String> {
        let page = recorder.get("/api/v1/recordings?from=2026-01-05").json();
        let ids = page["recordings"].as_array().unwrap().iter().map(|found| found["id"].clone());
        ids.map(|id| id.as_str().unwrap().to_owned()).collect()
    };
    let mut expected = ids();
    assert!(expected.len() == 5 && expected.remove("MZ04"));
    std::fs::remove_file(day.join("MZ04.json")).unwrap();
    shelve(recorder.dir.path(), "2026-01-05", "MZnew");
    expected.insert("MZnew".to_owned());
    assert_eq!(ids(), expected);
    for (query, said) in [
        ("state=fine", "`state` is complete, partial, recovered or failed"),
        (
            "from=yesterday",
            "`from` and `to` are days like 2026-11-22, or times like 2026-11-22T08:00:00Z",
        ),
        ("cursor=x", "unknown cursor: pass `next` of the previous page unchanged, with its `sort`"),
        ("limit=x", "`limit` is a number from 1 to 200"),
        ("q=a&q=b", "a parameter is given twice"),
    ] {
        let answer = recorder.get(&format!("/api/v1/recordings?{query}"));
        assert_eq!(answer.status, 400, "{query}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(answer.json()["detail"], said);
    }
}

#[test]
fn a_recording_is_deleted_only_where_that_is_allowed() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let mut recorder = Recorder::start_in(Arc::clone(&dir), Config::default(), None);
    let (path, _) = record_one(&recorder);
    assert_eq!(recorder.ask("DELETE", &path, &[]).status, 403);
    assert_eq!(recorder.get(&path).status, 200);
    recorder.stop();
    let recorder = Recorder::start_in(dir, open(), None);
    let foreign = [("sec-fetch-site", "cross-site")];
    assert_eq!(recorder.ask("DELETE", &path, &foreign).status, 403);
    assert_eq!(recorder.ask("DELETE", &path, &[("origin", "https://evil.example")]).status, 403);
    assert_eq!(recorder.ask("DELETE", &path, &[]).status, 204);
    assert_eq!(recorder.ask("DELETE", &path, &[]).status, 404);
    assert_eq!(recorder.get(&format!("{path}/audio")).status, 404);
    assert!(recorder.get("/api/v1/recordings").json()["recordings"].as_array().unwrap().is_empty());
}

#[test]
fn what_is_not_ours_is_not_deleted() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let day = dir.path().join("2026-01-01");
    std::fs::create_dir(&day).unwrap();
    for (name, content) in
        [("song.wav", "RIFF"), ("other.wav", "RIFF"), ("other.json", "{\"id\":\"other\"}")]
    {
        std::fs::write(day.join(name), content).unwrap();
    }
    let recorder = Recorder::start_in(dir, open(), None);
    for id in ["song", "other"] {
        let answer = recorder.ask("DELETE", &format!("/api/v1/recordings/2026-01-01/{id}"), &[]);
        assert_eq!(answer.status, 404, "{id}");
    }
    assert_eq!(shelf::files(&day).len(), 3);
}

#[test]
fn no_path_leads_out_of_the_directory() {
    let recorder = Recorder::start(open());
    let secret = recorder.dir.path().parent().unwrap().join("callreel-secret.json");
    std::fs::write(&secret, "{}").unwrap();
    for path in [
        "/api/v1/recordings/2026-01-01/..%2f..%2fcallreel-secret",
        "/api/v1/recordings/..%2f/callreel-secret",
        "/api/v1/recordings/../callreel-secret",
        "/api/v1/recordings/.webhooks/x",
        "/api/v1/recordings/2026-01-01/%00",
        "/api/v1/recordings/2026-01-01/%ff",
        "/console/..%2fadmin.rs",
        "/api/v1/calls/-1",
        "/api/v1/calls/x/listen",
    ] {
        let answer = recorder.get(path);
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{path}");
    }
    std::fs::remove_file(secret).unwrap();
}

#[test]
fn without_a_token_only_loopback_names_are_answered() {
    let recorder = Recorder::start(open());
    for (host, status) in [
        ("localhost", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:5051", 200),
        ("rebound.evil.example", 421),
        ("10.0.0.1", 421),
    ] {
        let answer = recorder.ask("GET", "/api/v1/calls", &[("host", host)]);
        assert_eq!(answer.status, status, "{host}");
    }
    let policy = recorder.get("/").header("content-security-policy").to_owned();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
}

#[test]
fn with_a_token_everything_but_health_demands_it() {
    let recorder = Recorder::start(locked());
    let bearer = format!("Bearer {TOKEN}");
    for path in ["/api/v1/calls", "/api/v1/recordings", "/api/v1/events", "/metrics"] {
        assert_eq!(recorder.get(path).status, 401, "{path}");
        let wrong = [("authorization", "Bearer 0123456789abcdef0123456789abcdeF")];
        assert_eq!(recorder.ask("GET", path, &wrong).status, 401, "{path}");
    }
    assert_eq!(recorder.ask("GET", "/metrics", &[("authorization", &bearer)]).status, 200);
    assert_eq!(recorder.get("/healthz").status, 200);
    assert_eq!(recorder.get("/").header("location"), "login");
    let login = |token: &str| -> Answer {
        let mut socket = TcpStream::connect(recorder.admin).unwrap();
        let body = format!("token={token}");
        let head = "POST /login HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length:";
        write!(socket, "{head} {}\r\n\r\n{body}", body.len()).unwrap();
        let mut raw = String::new();
        socket.read_to_string(&mut raw).unwrap();
        let status = raw[9..12].parse().unwrap();
        let cookie = raw.lines().find_map(|line| line.strip_prefix("set-cookie: "));
        let mut headers = ureq::http::HeaderMap::new();
        cookie
            .iter()
            .for_each(|cookie| drop(headers.insert("set-cookie", cookie.parse().unwrap())));
        Answer { status, headers, body: Vec::new() }
    };
    assert_eq!(login("wrong").status, 401);
    let welcome = login(TOKEN);
    let cookie = welcome.header("set-cookie");
    assert_eq!(welcome.status, 303);
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    assert!(!cookie.contains(TOKEN));
    let session = cookie.split(';').next().unwrap();
    assert_eq!(recorder.ask("GET", "/api/v1/calls", &[("cookie", session)]).status, 200);
    let forged = session.replace("callreel=1", "callreel=9");
    assert_eq!(recorder.ask("GET", "/api/v1/calls", &[("cookie", &forged)]).status, 401);
}

#[test]
fn an_admin_address_that_others_reach_is_refused_without_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let (code, log) = Setup::new(dir.path()).args(&["--admin", "0.0.0.0:0"]).refuse();
    assert_eq!(code, Some(1));
    assert!(log.len() == 1 && log[0].contains("CALLREEL_ADMIN_TOKEN"), "{log:?}");
}

#[test]
fn metrics_count_what_was_recorded() {
    let recorder = Recorder::start(open());
    record_one(&recorder);
    let text = recorder.get("/metrics").text().to_owned();
    let value = |name: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(name) && !line.starts_with('#'));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
            .unwrap_or_else(|| panic!("{name}"))
    };
    assert_eq!(value("callreel_recordings_total{state=\"complete\"}"), 1.0);
    assert_eq!(value("callreel_calls "), 0.0);
    assert_eq!(value("callreel_frames_total"), 250.0);
    assert_eq!(value("callreel_lost_seconds_total"), 0.0);
    // Half a second of both tracks. Timestamps wobble by a few milliseconds, as Twilio's do.
    assert!((value("callreel_missing_seconds_total") - 0.5).abs() < 0.03);
    assert!(value("callreel_write_seconds_count") >= 1.0);
    assert!(value("callreel_disk_free_bytes") > 0.0);
    assert!(text.contains("callreel_build_info{version="));
    for told in ["Acme", "CA", "MZ"] {
        assert!(!text.contains(told), "no label comes from a call: {told}");
    }
    assert_eq!(recorder.get("/readyz").status, 200);
}

#[test]
fn a_webhook_is_signed_and_tried_again_across_a_restart() {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let config = |url: &str| webhook::Config {
        first_pause: Duration::from_millis(50),
        ..webhook::Config::new(vec![url.parse().unwrap()], Some(secret), None, None).unwrap()
    };
    let dir = Arc::new(tempfile::tempdir().unwrap());
    // An address without a listener.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = config(&format!("http://{closed}/"));
    let mut recorder = Recorder::start_in(Arc::clone(&dir), open(), Some(silent));
    let (_, summary) = record_one(&recorder);
    let health = recorder.wait_for("/api/v1/status", |status| {
        status["webhook"]["failing_since"].is_string().then(|| status["webhook"].clone())
    });
    assert_eq!(health["pending"], 1);
    assert!(health["error"].is_string());
    recorder.stop();
    let (url, received) = receiver(vec![500, 204]);
    let recorder = Recorder::start_in(dir, open(), Some(config(&url)));
    let (refused, _) = received.recv_timeout(PATIENCE).unwrap();
    let (headers, body) = received.recv_timeout(PATIENCE).unwrap();
    assert_eq!(refused["webhook-id"], headers["webhook-id"]);
    let signed = format!("{}.{}.{body}", headers["webhook-id"], headers["webhook-timestamp"]);
    let key = Base64::decode_vec(&secret["whsec_".len()..]).unwrap();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
    mac.update(signed.as_bytes());
    let expected = format!("v1,{}", Base64::encode_string(&mac.finalize().into_bytes()));
    assert_eq!(headers["webhook-signature"], expected);
    let message: Value = serde_json::from_str(&body).unwrap();
    let description = recorder.get("/openapi.json").json();
    let sent = &description["webhooks"]["recording"]["post"]["requestBody"]["content"];
    validate(&description, &sent["application/json"]["schema"], &message);
    assert_eq!(message["type"], "recording.finished");
    assert_eq!(message["data"]["id"], summary["id"]);
    assert_eq!(message["data"]["wav"]["bytes"], summary["bytes"]);
    recorder.wait_for("/api/v1/status", |status| {
        (status["webhook"]["delivered"] == 1 && status["webhook"]["pending"] == 0).then_some(())
    });
}

#[test]
fn a_stop_does_not_wait_for_a_webhooks_server() {
    let dir = tempfile::tempdir().unwrap();
    // A server that accepts connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let options = ["--webhook", &url, "--webhook-secret", secret];
    let mut server = Setup::new(dir.path()).args(&options).start();
    let mut peer = Peer::call(&server, "MZ1");
    peer.say(Duration::from_secs(1));
    peer.finish();
    silent.set_nonblocking(true).unwrap();
    let _asked = eventually(PATIENCE, "its server is asked", || silent.accept().ok());
    let (status, took) = server.stop();
    assert!(status.code() == Some(0) && took < Duration::from_secs(10), "{status}, {took:?}");
}

#[test]
fn what_an_earlier_run_left_is_counted_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let mut peer = Peer::call(&server, "MZleft");
    peer.say(Duration::from_secs(1));
    let is_heard = |path: &PathBuf| std::fs::metadata(path).is_ok_and(|file| file.len() > 8000);
    eventually(PATIENCE, "half a second is on the disk", || {
        shelf::unfinished(dir.path()).iter().any(is_heard).then_some(())
    });
    server.kill();
    let (url, received) = receiver(vec![204]);
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let options = ["--admin", "127.0.0.1:0", "--webhook", &url, "--webhook-secret", secret];
    let server = Setup::new(dir.path()).args(&options).start_and_recover();
    eventually(PATIENCE, "it is counted", || {
        let count = server.metric("callreel_recordings_total{state=\"recovered\"}");
        (count == 1.0).then_some(())
    });
    let (_, body) = received.recv_timeout(PATIENCE).unwrap();
    let message: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&message["data"]["id"], &message["data"]["state"]),
        (&json!("MZleft"), &json!("recovered"))
    );
}

#[test]
fn listeners_that_do_not_read_cost_no_sample() {
    let recorder = Recorder::start(open());
    let mut plan = recorder.plan();
    plan.duration = Some(Duration::from_secs(4));
    let placed = recorder.place_meanwhile(plan);
    let key = recorder.wait_for("/api/v1/calls", |answer| {
        Some(answer["calls"].get(0)?["key"].as_str()?.to_owned())
    });
    let stuck: Vec<TcpStream> =
        ["/api/v1/events".to_owned(), format!("/api/v1/calls/{key}/listen")]
            .iter()
            .cycle()
            .take(20)
            .map(|path| {
                let mut socket = TcpStream::connect(recorder.admin).unwrap();
                write!(socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
                socket
            })
            .collect();
    let report = recorder.block_on(placed).unwrap();
    assert!(report.is_good());
    let recording = &recorder.wait_for_recordings(1)[0];
    assert_eq!(recording["duration_ms"], 4000);
    assert_eq!((&recording["lost_ms"], &recording["late"]), (&json!(0), &json!(0)));
    drop(stuck);
}

#[test]
fn a_stop_is_told_to_the_service_manager() {
    use std::os::unix::net::UnixDatagram;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = || {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let mut server = Setup::new(&dir.path().join("rec")).env("NOTIFY_SOCKET", &path).start();
    assert!(next().contains("READY=1"));
    let (status, _) = server.stop();
    assert!(status.success() && next().contains("STOPPING=1"));
}

#[test]
fn the_api_is_what_its_description_says() {
    let recorder = Recorder::start(open());
    let description = recorder.get("/openapi.json").json();
    let (path, summary) = record_one(&recorder);
    let mut plan = recorder.plan();
    plan.duration = Some(Duration::from_secs(20));
    plan.fault("gap=300ms@500ms").unwrap();
    let _placed = recorder.place_meanwhile(plan);
    let key = recorder.wait_for("/api/v1/calls", |answer| {
        let call = answer["calls"].get(0)?;
        (call["gaps"] == 1).then(|| call["key"].as_str().unwrap_or_default().to_owned())
    });
    for (template, item) in description["paths"].as_object().unwrap() {
        let real = template
            .replace("{key}", &key)
            .replace("{day}", summary["day"].as_str().unwrap())
            .replace("{id}", summary["id"].as_str().unwrap());
        let endless = template.ends_with("/listen") || template.ends_with("/events");
        if item.get("get").is_none() {
            assert_eq!(recorder.get(&real).status, 405, "{real}");
            // A drain would end the recorder.
            if !template.ends_with("/drain") {
                let answer = recorder.ask("POST", &real, &[]);
                check(&description, item, "post", &answer, &real);
                assert_eq!(answer.status, 200, "{real}");
            }
        } else if !endless {
            check(&description, item, "get", &recorder.get(&real), &real);
        } else {
            let response = ureq::get(recorder.url(&real)).call().unwrap();
            let documented = &item["get"]["responses"]["200"]["content"];
            let kind = response.headers()["content-type"].to_str().unwrap();
            assert!(documented.get(kind).is_some(), "{real}: {kind}");
            listen::check_against(item, &recorder, &real);
        }
        let put = recorder.ask("PATCH", &real, &[]);
        assert_eq!(put.status, 405, "{real} takes only the documented methods");
        let allowed: BTreeSet<String> =
            put.header("allow").split(',').map(|m| m.trim().to_lowercase()).collect();
        let documented: BTreeSet<String> = item
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| *key != "parameters")
            .flat_map(|key| if key == "get" { vec!["get", "head"] } else { vec![key.as_str()] })
            .map(str::to_owned)
            .collect();
        assert_eq!(allowed, documented, "{real}");
    }
    for (asked, template) in [
        (format!("{path}/peaks"), "/api/v1/recordings/{day}/{id}/peaks"),
        ("/api/v1/recordings".to_owned(), "/api/v1/recordings"),
    ] {
        let parameters = description["paths"][template]["get"]["parameters"].as_array().unwrap();
        let number = parameters.iter().find(|one| one["schema"]["type"] == "integer").unwrap();
        let limit = |name: &str| number["schema"][name].as_u64().unwrap();
        let status = |count: u64| {
            let query = format!("{asked}?{}={count}", number["name"].as_str().unwrap());
            recorder.get(&query).status
        };
        let (least, most) = (limit("minimum"), limit("maximum"));
        assert_eq!([least, most].map(status), [200, 200], "{template}");
        assert_eq!([least - 1, most + 1].map(status), [400, 400], "{template}");
    }
    let missing = path.replace(summary["id"].as_str().unwrap(), "MZnone");
    let item = &description["paths"]["/api/v1/recordings/{day}/{id}"];
    check(&description, item, "get", &recorder.get(&missing), &missing);
    check(&description, item, "delete", &recorder.ask("DELETE", &path, &[]), &path);
    let list = &description["paths"]["/api/v1/recordings"];
    let wrong = "/api/v1/recordings?state=x";
    check(&description, list, "get", &recorder.get(wrong), wrong);
    // The last request: it is the beginning of the end.
    let drain = "/api/v1/drain";
    let item = &description["paths"][drain];
    check(&description, item, "post", &recorder.ask("POST", drain, &[]), drain);
}

/// Checks an answer against its description: the status, the content type, and the body by its schema.
fn check(description: &Value, item: &Value, method: &str, answer: &Answer, path: &str) {
    let response = &item[method]["responses"][answer.status.to_string()];
    assert!(response.is_object(), "{path}: {} is not documented", answer.status);
    let shared = response["$ref"].as_str().and_then(|name| name.strip_prefix('#'));
    let response = shared.map_or(response, |name| description.pointer(name).unwrap());
    let Some(content) = response["content"].as_object() else {
        return;
    };
    let kind = answer.header("content-type").split(';').next().unwrap();
    let documented = content.get(kind).unwrap_or_else(|| panic!("{path}: {kind}"));
    if let Some(schema) = documented.get("schema") {
        validate(description, schema, &answer.json());
    }
}

/// Checks a value by a schema of the description.
pub(crate) fn validate(description: &Value, schema: &Value, value: &Value) {
    let mut whole = json!({ "components": description["components"] });
    whole.as_object_mut().unwrap().extend(schema.as_object().unwrap().clone());
    let validator = jsonschema::validator_for(&whole).unwrap();
    let errors: Vec<String> = validator.iter_errors(value).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?}\n{value:#}");
}

/// Runs two recorders of 300 paced calls at the same time: one without observers, and one with 20
/// listeners that do not read and ten scrapes a second. Prints the processor time of a frame in each.
#[test]
#[ignore = "takes a minute of an idle machine; run with --release --ignored --nocapture"]
fn watching_costs_recordings_nothing() {
    let dirs = [(); 2].map(|()| tempfile::tempdir_in("/dev/shm").unwrap());
    let servers = dirs
        .each_ref()
        .map(|dir| Setup::new(dir.path()).plain().args(&["--admin", "127.0.0.1:0"]).start());
    let mut calls = servers.each_ref().map(|server| {
        let mut command = Command::new(crate::harness::process::callreel());
        command.args(["call", "--calls", "300", "--duration", "45s", "--ramp", "2s", "--url"]);
        command.arg(format!("ws://{}/media-stream", server.address));
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    });
    for server in &servers {
        eventually(PATIENCE, "300 calls", || {
            (server.metric("callreel_calls") == 300.0).then_some(())
        });
    }
    let watched = &servers[1];
    let paths = ["/api/v1/events", "/api/v1/calls/1/listen"];
    let stuck: Vec<TcpStream> =
        paths.iter().cycle().take(20).map(|path| watched.begin_to_ask_admin(path)).collect();
    let spent = || {
        servers
            .each_ref()
            .map(|server| (server.cpu_by_threads(), server.metric("callreel_frames_total")))
    };
    let before = spent();
    // All scrapes on one connection, as Prometheus does.
    let prometheus = ureq::Agent::new_with_defaults();
    let metrics = format!("http://{}/metrics", watched.admin_address());
    let began = Instant::now();
    for scrape in 1..=300 {
        prometheus.get(&metrics).call().unwrap().body_mut().read_to_string().unwrap();
        let due = scrape * Duration::from_millis(100);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
    }
    let after = spent();
    let costs = [0, 1].map(|server| -> BTreeMap<String, f64> {
        let ((before, frames_before), (after, frames)) = (&before[server], &after[server]);
        let frames = frames - frames_before;
        let cost = |(kind, time): (&String, &Duration)| {
            let time = *time - before.get(kind).copied().unwrap_or_default();
            (kind.clone(), time.as_secs_f64() * 1e6 / frames)
        };
        after.iter().map(cost).collect()
    });
    println!("CPU a frame in microseconds: alone, watched");
    for (kind, watched) in &costs[1] {
        let alone = costs[0].get(kind).copied().unwrap_or_default();
        println!("{kind:>20} {alone:6.3} {watched:6.3}");
    }
    let [alone, watched] = costs.each_ref().map(|kinds| kinds.values().sum::<f64>());
    println!("{:>20} {alone:6.3} {watched:6.3} {:+.1} %", "all", 100.0 * (watched / alone - 1.0));
    for (server, calls) in servers.iter().zip(&mut calls) {
        assert!(calls.wait().unwrap().success());
        assert_eq!(server.metric("callreel_lost_seconds_total"), 0.0);
        assert_eq!(server.metric("callreel_recordings_total{state=\"complete\"}"), 300.0);
        assert_eq!(server.metric("callreel_frames_total"), 300.0 * 45.0 * 50.0);
    }
    drop(stuck);
    assert!(watched < 1.1 * alone);
}
