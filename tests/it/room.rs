//! Limits on a call's texts and records, on clients that watch, and on a disk with few inodes.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::admin::shelve;
use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, Server, Setup, eventually};
use crate::harness::shelf;
use crate::harness::small_disk::SmallDisk;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const ADMIN: [&str; 2] = ["--admin", "127.0.0.1:0"];

/// A call with the most texts that it can send beside its audio.
fn talkative(server: &Server, id: &str) -> Peer {
    let mut peer = Peer::connect(server, id);
    let names: Vec<String> = (0..32).map(|n| format!("name{n}")).collect();
    let value = "\u{1F480}".repeat(1750);
    let parameters: Vec<(&str, &str)> = names.iter().map(|name| (&**name, &*value)).collect();
    peer.start(&parameters);
    for _ in 0..1000 {
        let name = "\u{1F480}".repeat(256);
        peer.text(&format!(r#"{{"event":"mark","streamSid":"{id}","mark":{{"name":"{name}"}}}}"#));
    }
    peer.say(Duration::from_millis(200));
    peer.sync();
    peer
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").expect("a body").1
}

fn json_of(server: &Server, path: &str) -> Value {
    serde_json::from_str(body(&server.ask_admin(path).1)).expect("JSON")
}

#[test]
fn the_texts_of_a_call_take_64_kib_in_its_record_and_little_in_lists() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).args(&ADMIN).start();
    let peer = talkative(&server, "MZ1");
    let list = eventually(PATIENCE, "it is listed", || {
        let answer = server.ask_admin("/api/v1/calls").1;
        let listed: Value = serde_json::from_str(body(&answer)).unwrap();
        let is_shown = listed["calls"][0]["moments"].as_array().is_some_and(|all| !all.is_empty());
        is_shown.then(|| body(&answer).to_owned())
    });
    assert!(list.len() < 8192, "{list}");
    let brief = &serde_json::from_str::<Value>(&list).unwrap()["calls"][0];
    assert_eq!(brief["parameters_left_out"], 32);
    let whole = json_of(&server, &format!("/api/v1/calls/{}", brief["key"].as_str().unwrap()));
    let parameters = whole["parameters"].as_object().unwrap();
    assert_eq!((parameters.len(), &whole["parameters_left_out"]), (32, &Value::Null));
    let is_marked = |value: &Value| value.as_str().unwrap().contains("…[cut: 7000 bytes, sha256 ");
    assert!(parameters.values().all(is_marked), "{parameters:?}");

    let peer = peer.finish();
    let recording = shelf::wait_for(dir.path(), &peer.stream_id);
    let files = shelf::contents(dir.path());
    let (_, text) = files.iter().find(|(path, _)| path.ends_with("MZ1.json")).unwrap();
    assert!(text.len() < 66 * 1024, "{} bytes", text.len());
    let record = recording.record;
    let listed = record["events"].as_array().unwrap().len() as u64;
    assert_eq!((&record["texts_cut"], &record["parameters_dropped"]), (&json!(32), &json!(0)));
    assert_eq!((record["events_dropped"].as_u64(), listed > 10), (Some(1000 - listed), true));
    let recordings = server.ask_admin("/api/v1/recordings").1;
    assert!(recordings.len() < 4096, "{recordings}");
    assert!(recordings.contains("\"parameters_left_out\":32"), "{recordings}");
}

#[test]
fn one_long_text_is_cut_with_a_mark_and_costs_the_others_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut peer = Peer::connect(&server, &format!("MZ{}", "\u{e4}".repeat(10_000)));
    let long = "\u{1}".repeat(20_000);
    peer.start(&[("long", &long), ("number", "+15550100001"), ("text", &"t".repeat(400))]);
    peer.say(Duration::from_millis(100));
    peer.finish();
    let finished = shelf::finished(dir.path());
    let (id, recording) = finished.first_key_value().unwrap();
    let (record, parameters) = (&recording.record, &recording.record["parameters"]);
    assert_eq!(
        (&parameters["number"], &parameters["text"]),
        (&json!("+15550100001"), &json!("t".repeat(400)))
    );
    assert!(parameters["long"].as_str().unwrap().contains("[cut: 20000 bytes, sha256 "));
    // The stream's id, the call's id, which contains it, and the parameter.
    assert_eq!(record["texts_cut"], 3);
    let kept = record["stream_id"].as_str().unwrap();
    let digest = id.strip_prefix("stream-").unwrap();
    assert!(kept.starts_with("MZ\u{e4}") && kept.ends_with(&format!("sha256 {digest}]")), "{kept}");
    assert!(kept.len() <= 256 && record.to_string().len() < 66 * 1024);
}

#[test]
fn talkative_calls_take_little_memory_and_their_records_are_written_seldom() {
    const CALLS: usize = 60;
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).args(&ADMIN).start();
    drop(talkative(&server, "MZwarm"));
    let before = server.memory("VmRSS");
    let mut calls: Vec<Peer> = (0..CALLS).map(|n| talkative(&server, &format!("MZ{n}"))).collect();
    let each = server.memory("VmRSS").saturating_sub(before) / CALLS as u64;
    eprintln!("a talkative call: {} KiB", each / KIB);
    assert!(each <= 192 * KIB, "{each} bytes");
    let written = server.written();
    for _ in 0..4 {
        for peer in &mut calls {
            peer.text(r#"{"event":"media","media":{"payload":"?"}}"#);
        }
        std::thread::sleep(Duration::from_millis(1050));
    }
    // 64 KiB a second and call, and the records begun before.
    let most = 6 * 64 * KIB * CALLS as u64;
    let wrote = server.written() - written;
    assert!(wrote <= most, "{wrote} bytes of {most}");
    calls.into_iter().for_each(|peer| drop(peer.finish()));
}

#[test]
fn downloads_and_watchers_that_take_nothing_hold_64_mib_together() {
    let dir = tempfile::tempdir().unwrap();
    shelve(dir.path(), "2026-01-01", "MZ1");
    let day = dir.path().join("2026-01-01");
    let length = 64 * MIB;
    std::fs::File::create(day.join("MZ1.wav")).unwrap().set_len(length).unwrap();
    let mut record: Value =
        serde_json::from_slice(&std::fs::read(day.join("MZ1.json")).unwrap()).unwrap();
    record["wav"] = json!({"file": "MZ1.wav", "bytes": length, "sha256": "0"});
    std::fs::write(day.join("MZ1.json"), record.to_string()).unwrap();
    let server = Setup::new(dir.path()).args(&ADMIN).start();
    let _calls: Vec<Peer> = (0..20).map(|n| Peer::call(&server, &format!("MZlive{n}"))).collect();
    let audio = "/api/v1/recordings/2026-01-01/MZ1/audio";
    let before = server.memory("VmRSS");
    let stuck: Vec<TcpStream> = (0..240)
        .map(|n| server.begin_to_ask_admin(if n % 4 == 0 { "/api/v1/events" } else { audio }))
        .collect();
    // A client that reads gets the whole file meanwhile.
    let mut reader = server.begin_to_ask_admin(audio);
    let (mut piece, mut got) = (vec![0; 256 * 1024], 0);
    while let Ok(count @ 1..) = reader.read(&mut piece) {
        got += count as u64;
    }
    assert!(got > length, "{got} bytes");
    let grown = server.memory("VmHWM").saturating_sub(before);
    eprintln!("{} clients that take nothing: {} MiB", stuck.len(), grown / MIB);
    assert!(grown <= 64 * MIB, "{} MiB", grown / MIB);
}

#[test]
fn a_call_is_refused_before_the_file_system_has_no_inode_left() {
    let disk = SmallDisk::mount_with("size=64m,nr_inodes=120");
    let server = Setup::new(&disk.dir()).args(&ADMIN).start();
    let mut honest = Peer::call(&server, "MZhonest");
    honest.say(Duration::from_secs(1));
    // One stream after the other on one connection, which alone meets the refusal.
    let mut greedy = Peer::connect(&server, "MZ0");
    for n in 0..100 {
        greedy.stream_id = format!("MZ{n}");
        // With audio, so that each recording takes all its files.
        let messages = [greedy.start_message(&[]), greedy.next_media()];
        let frames = messages.map(|message| crate::harness::client::text(message.as_bytes()));
        if greedy.socket.write_all(&frames.concat()).is_err() {
            break;
        }
    }
    let refused = || server.metric("callreel_calls_refused_total{reason=\"disk\"}");
    eventually(PATIENCE, "further streams are refused", || (refused() > 0.0).then_some(()));
    assert!(disk.free_inodes() >= 8, "{}", disk.free_inodes());
    assert_eq!(Peer::try_connect(&server, "MZnew", "").err(), Some(503));
    let (status, answer) = server.ask_admin("/readyz");
    assert!(status == 503 && answer.contains("--keep-free-inodes"), "{answer}");
    let shown = || server.metric("callreel_disk_free_inodes");
    eventually(PATIENCE, "the figure is that of the last second", || {
        (shown() == disk.free_inodes() as f64).then_some(())
    });
    let room = json_of(&server, "/api/v1/status")["disk"].clone();
    assert_eq!((&room["total_inodes"], &room["keep_free_inodes"]), (&json!(120), &json!(16)));
    let honest = honest.finish();
    let recording = &shelf::finished(&disk.dir())["MZhonest"];
    assert!(recording.samples() == honest.pcm() && recording.word("state") == "complete");
}

#[test]
fn recordings_make_room_for_files_and_no_more_than_are_needed() {
    let disk = SmallDisk::mount_with("size=64m,nr_inodes=120");
    for n in 0..40 {
        shelve(&disk.dir(), "2026-01-01", &format!("MZ{n:02}"));
    }
    let free = disk.free_inodes();
    let keep = (free + 10).to_string();
    let args = ["--make-room", "--keep-free-inodes", &keep];
    let server = Setup::new(&disk.dir()).args(&ADMIN).args(&args).start();
    let wanted: u64 = keep.parse().unwrap();
    eventually(PATIENCE, "there is room", || (disk.free_inodes() >= wanted).then_some(()));
    eventually(PATIENCE, "calls are taken", || {
        Peer::try_connect(&server, "MZnew", "").is_ok().then_some(())
    });
    let left = shelf::finished_ids(&disk.dir()).len();
    assert!((20..=32).contains(&left), "{left}");
}

#[test]
fn more_inodes_to_keep_than_there_are_is_refused() {
    let disk = SmallDisk::mount_with("size=64m,nr_inodes=120");
    let (code, log) = Setup::new(&disk.dir()).args(&["--keep-free-inodes", "120"]).refuse();
    assert!(code == Some(1) && log.join("").contains("has 120 in all"), "{code:?} {log:?}");
}
