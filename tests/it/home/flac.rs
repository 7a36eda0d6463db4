//! FLAC in the home in the place of the WAV: made when a recording is uploaded, and the same samples.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use super::readback::{curl, home_command, json_at, path_of};
use super::{is_beside, key_of, record, wait_until_uploaded};
use crate::harness::bucket::{Bucket, Fault};
use crate::harness::oracle;
use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, eventually};
use crate::harness::shelf;

#[test]
fn the_home_gets_flac_with_the_facts_in_the_record_and_gives_the_wav_again() {
    for format in ["pcm16", "mulaw"] {
        let bucket = Bucket::new();
        let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let options = ["--home-format", "flac", "--format", format];
        let mut server = bucket.recorder(dir.path()).args(&options).start();
        let mut peer = Peer::call(&server, "MZlong");
        peer.flood(Duration::from_secs(150));
        peer.finish();
        record(&server, "MZ1");
        Peer::call(&server, "MZempty").finish();
        wait_until_uploaded(&server, 3);
        let (objects, _) = bucket.contents();
        let listed = json_at(&server, "/api/v1/recordings")["recordings"].clone();
        let listed = listed.as_array().unwrap();
        let console = bucket.console();
        let mut of_recordings = 0;
        for one in listed {
            let (day, id) = (one["day"].as_str().unwrap(), one["id"].as_str().unwrap());
            let of_disk = |ending: &str| dir.path().join(day).join(format!("{id}{ending}"));
            let on_disk: &Value =
                &serde_json::from_slice(&fs::read(of_disk(".json")).unwrap()).unwrap();
            let wav = fs::read(of_disk(".wav")).unwrap();
            let json = &objects[&key_of(on_disk, ".json")];
            let mut in_home: Value = serde_json::from_slice(json).unwrap();
            if id == "MZempty" {
                assert_eq!(&in_home, on_disk, "a file without audio stays a WAV");
                assert!(objects[&key_of(on_disk, ".wav")] == wav);
                of_recordings += 2;
                continue;
            }
            let flac = &objects[&key_of(on_disk, ".flac")];
            of_recordings += 2;
            let name = format!("{id}.flac");
            assert_eq!(on_disk["wav"]["flac"], json!({"file": name}));
            let facts = json!({
                "file": name, "bytes": flac.len(), "sha256": shelf::sha256(flac), "wav_sha256": shelf::sha256(&wav),
            });
            assert_eq!(in_home["wav"]["flac"], facts, "{format} {id}");
            in_home["wav"]["flac"] = on_disk["wav"]["flac"].clone();
            assert_eq!(&in_home, on_disk, "{format} {id}");
            // The reference decoder reads the samples of the WAV.
            let (file, wav_file) = (to.path().join(&name), to.path().join(format!("{id}.wav")));
            fs::write(&file, flac).unwrap();
            let file = file.to_str().unwrap();
            oracle::run("flac", &["--test", "--silent", "--warnings-as-errors", file], b"");
            let raw = ["-dcs", "--force-raw-format", "--endian=little", "--sign=signed", file];
            let samples = oracle::run("flac", &raw, b"");
            let wav_path = of_disk(".wav");
            let decoded =
                ["-v", "error", "-i", wav_path.to_str().unwrap(), "-f", "s16le", "pipe:1"];
            let expected = oracle::run("ffmpeg", &decoded, b"");
            assert!(samples.len() >= 3200 && samples == expected, "{format} {id}");
            // The disk gives the WAV; the home its FLAC, whole and in parts.
            let (audio, admin) = (path_of(one, "/audio"), console.admin_address());
            assert!(curl(server.admin_address(), &audio, &[]) == wav, "{id}");
            assert!(curl(admin, &audio, &[]) == *flac, "{id}");
            assert!(curl(admin, &audio, &["-r", "100-1099"]) == flac[100..1100], "{id}");
            let head = String::from_utf8(curl(admin, &audio, &["-I"])).unwrap().to_lowercase();
            for line in [
                "content-type: audio/flac".to_owned(),
                format!("content-length: {}", flac.len()),
                format!("filename=\"{}\"", name.to_lowercase()),
                format!("etag: \"{}\"", shelf::sha256(flac)),
            ] {
                assert!(head.contains(&line), "{line}: {head}");
            }
            // So many columns that the peaks in the home are too coarse: the FLAC is decoded.
            let peaks = path_of(one, "/peaks?columns=2000").replace("?instance", "&instance");
            assert_eq!(json_at(&console, &peaks), json_at(&server, &peaks), "{format} {id}");
            // Both forms as files.
            let get = |options: &[&str], to: &str| {
                let done = home_command(&bucket, &[&["get", id, "-o", to], options].concat());
                assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
                done.stdout
            };
            assert!(get(&[], "-") == *flac, "{id}");
            assert!(get(&["--wav"], "-") == wav, "{id}");
            get(&["--wav"], wav_file.to_str().unwrap());
            assert!(fs::read(wav_file).unwrap() == wav, "{id}");
        }
        assert_eq!(objects.keys().filter(|key| !is_beside(key)).count(), of_recordings);
        let dir_option = dir.path().to_str().unwrap();
        for (arguments, told) in [
            (&["verify"][..], "3 whole, 0 not"),
            (&["check", "--dir", dir_option], "3 in the home, 0 waiting"),
            (&["sync", "--dir", dir_option], "3 in the home, 0 not"),
        ] {
            let done = home_command(&bucket, arguments);
            let said = String::from_utf8(done.stderr).unwrap();
            assert!(done.status.success() && said.contains(told), "{said}");
        }
        assert_eq!(bucket.contents().0, objects, "nothing was put again");
        server.stop();
        let options = [&options[..], &["--evict-after", "0s"]].concat();
        let server = bucket.recorder(dir.path()).args(&options).start();
        let name = "callreel_recordings_removed_total{reason=\"evicted\"}";
        eventually(PATIENCE, "all are evicted", || (server.metric(name) == 3.0).then_some(()));
        let audio = path_of(&listed[listed.len() - 1], "/audio");
        assert!(curl(server.admin_address(), &audio, &[]).starts_with(b"fLaC"));
    }
}

/// A FLAC by the reference encoder.
fn encoded(wav: &[u8]) -> Vec<u8> {
    oracle::run("flac", &["-8", "--silent", "--stdout", "-"], wav)
}

#[test]
fn the_form_is_that_of_the_time_of_the_recording_and_a_flac_that_is_there_is_decoded() {
    let bucket = Bucket::new();
    let dir = tempfile::tempdir().unwrap();
    bucket.set_away(true);
    let mut server = bucket.recorder(dir.path()).start();
    record(&server, "MZwav");
    server.stop();
    // Another encoder has put one of these before a kill, and somebody else something for the other.
    let mut server = bucket.recorder(dir.path()).args(&["--home-format", "flac"]).start();
    record(&server, "MZ1");
    record(&server, "MZ2");
    server.stop();
    let recordings = shelf::finished(dir.path());
    let wav_of = |id: &str| {
        let day = &recordings[id].record["started_at"].as_str().unwrap()[..10];
        fs::read(dir.path().join(day).join(format!("{id}.wav"))).unwrap()
    };
    let of_another = encoded(&wav_of("MZ1"));
    bucket.put(&key_of(&recordings["MZ1"].record, ".flac"), &of_another);
    bucket.put(&key_of(&recordings["MZ2"].record, ".flac"), encoded(&wav_of("MZ1")));
    bucket.set_away(false);
    let server = bucket.recorder(dir.path()).start();
    wait_until_uploaded_but(&server, 2, 1);
    let (objects, _) = bucket.contents();
    assert!(objects[&key_of(&recordings["MZwav"].record, ".wav")] == wav_of("MZwav"));
    let json = &objects[&key_of(&recordings["MZ1"].record, ".json")];
    let in_home: Value = serde_json::from_slice(json).unwrap();
    assert_eq!(in_home["wav"]["flac"]["sha256"], shelf::sha256(&of_another));
    assert!(!objects.contains_key(&key_of(&recordings["MZ2"].record, ".json")));
    server.wait_for_log("another object is at");
}

/// Waits until all but the stuck ones are uploaded.
fn wait_until_uploaded_but(server: &crate::harness::process::Server, count: usize, stuck: usize) {
    eventually(PATIENCE * 2, "all but some are uploaded", || {
        let is_done = server.metric("callreel_home_stuck") == stuck as f64
            && server.metric("callreel_home_uploaded_total") == count as f64;
        is_done.then_some(())
    });
}

#[test]
fn an_old_directory_goes_as_flac_by_hand_and_a_flac_that_changed_is_told() {
    let bucket = Bucket::new();
    let dir = tempfile::tempdir().unwrap();
    let mut server = crate::harness::process::Setup::new(dir.path()).start();
    record(&server, "MZ1");
    server.stop();
    let dir_option = dir.path().to_str().unwrap();
    let run = |arguments: &[&str]| {
        let done = home_command(&bucket, arguments);
        let said = [done.stdout, done.stderr].concat();
        (done.status.code(), String::from_utf8(said).unwrap())
    };
    // A kill of the network between the FLAC and its record.
    bucket.treat(|asked| match asked.method.as_str() {
        "PUT" if asked.path.ends_with(".json") => Fault::Status(403, 0),
        _ => Fault::None,
    });
    let sync = ["sync", "--instance", "pod-0", "--home-format", "flac", "--dir", dir_option];
    assert_eq!(run(&sync).0, Some(1));
    bucket.treat(|_| Fault::None);
    for _ in 0..2 {
        let (code, said) = run(&sync);
        assert!(code == Some(0) && said.contains("1 in the home, 0 not"), "{said}");
    }
    let (objects, _) = bucket.contents();
    let key = objects.keys().find(|key| key.ends_with("MZ1.flac")).unwrap();
    assert!(!objects.keys().any(|key| key.ends_with(".wav")));
    let (code, said) = run(&["check", "--instance", "pod-0", "--dir", dir_option]);
    assert!(code == Some(0), "{said}");
    let mut damaged = objects[key].clone();
    *damaged.last_mut().unwrap() ^= 1;
    bucket.put(key, damaged);
    let (code, said) = run(&["verify"]);
    assert!(code == Some(1) && said.contains("other "), "{said}");
    for options in [&["get", "MZ1", "-o", "-"][..], &["get", "MZ1", "--wav", "-o", "-"]] {
        let (code, said) = run_raw(&bucket, options);
        assert!(code == Some(1) && said.contains("damaged or replaced there"), "{said}");
    }
}

fn run_raw(bucket: &Bucket, arguments: &[&str]) -> (Option<i32>, String) {
    let done = home_command(bucket, arguments);
    (done.status.code(), String::from_utf8(done.stderr).unwrap())
}
