//! Recordings read back from a home: by a console without a recorder, by a recorder that has evicted them, and
//! by the commands.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use callreel::home::Home;
use callreel::home::index::{Indexer, Library, Line};
use callreel::record::{Cursor, Filter, Record};
use callreel_core::frame::Provider;
use object_store::memory::InMemory;
use object_store::{ObjectStore as _, ObjectStoreExt as _};
use serde_json::{Value, json};

use super::{record, wait_until_uploaded};
use crate::harness::bucket::Bucket;
use crate::harness::oracle;
use crate::harness::peer::Peer;
use crate::harness::pki::Authority;
use crate::harness::process::{PATIENCE, Server, Setup, callreel, eventually};
use crate::harness::shelf;

/// The body of an answer of 200 or 206, by curl.
pub(super) fn curl(address: SocketAddr, path: &str, options: &[&str]) -> Vec<u8> {
    let url = format!("http://{address}{path}");
    let arguments: Vec<_> = ["-sSf", "--max-time", "30"].iter().chain(options).copied().collect();
    oracle::run("curl", &[&arguments[..], &[&url]].concat(), b"")
}

pub(super) fn json_at(server: &Server, path: &str) -> Value {
    serde_json::from_slice(&curl(server.admin_address(), path, &[])).unwrap()
}

/// All recordings of a list, page by page.
fn all(server: &Server, query: &str) -> Vec<Value> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    for _ in 0..1000 {
        let path = format!("/api/v1/recordings?limit=2&cursor={cursor}&{query}");
        let mut page = json_at(server, &path);
        assert_eq!(page["warning"], Value::Null);
        found.append(page["recordings"].as_array_mut().unwrap());
        match page["next"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => return found,
        }
    }
    panic!("the list has no end");
}

pub(super) fn path_of(recording: &Value, part: &str) -> String {
    let word = |name: &str| recording[name].as_str().unwrap().to_owned();
    let (day, id, instance) = (word("day"), word("id"), word("instance"));
    format!("/api/v1/recordings/{day}/{id}{part}?instance={instance}")
}

pub(super) fn home_command(bucket: &Bucket, arguments: &[&str]) -> Output {
    let mut command = Command::new(callreel());
    command.arg("home").args(arguments).args(["--home", &bucket.home()]).env_clear();
    command.envs(bucket.variables()).output().unwrap()
}

/// Checks that the audio of a recording is a file of the directory, in whole and in parts.
fn assert_plays(server: &Server, recording: &Value, wav: &[u8]) {
    let (admin, path) = (server.admin_address(), path_of(recording, "/audio"));
    assert!(curl(admin, &path, &[]) == wav, "{path}");
    let end = wav.len();
    for (range, expected) in [
        ("0-0", &wav[..1]),
        ("44-1043", &wav[44..1044]),
        ("1000-", &wav[1000..]),
        ("-100", &wav[end - 100..]),
        ("0-99999999", wav),
    ] {
        assert!(curl(admin, &path, &["-r", range]) == expected, "{range}");
    }
    let head = String::from_utf8(curl(admin, &path, &["-I"])).unwrap().to_lowercase();
    assert!(head.contains(&format!("content-length: {end}")), "{head}");
}

#[test]
fn one_console_lists_and_plays_the_recordings_of_all_recorders() {
    let bucket = Bucket::new();
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let servers: Vec<_> = ["pod-0", "pod-1"]
        .iter()
        .zip(&dirs)
        .map(|(name, dir)| bucket.recorder(dir.path()).env("CALLREEL_INSTANCE", name).start())
        .collect();
    for (server, id) in servers.iter().zip(["MZ0", "MZ1"]) {
        record(server, id);
        record(server, "MZsame");
    }
    servers.iter().for_each(|server| wait_until_uploaded(server, 2));
    let console = bucket.console();
    // The list is the same in the console and at each recorder: every recording once, newest first.
    for server in servers.iter().chain([&console]) {
        let found = all(server, "");
        let mut names: Vec<_> =
            found.iter().map(|one| format!("{} {}", one["instance"], one["id"])).collect();
        names.sort();
        let expected = [
            "\"pod-0\" \"MZ0\"",
            "\"pod-0\" \"MZsame\"",
            "\"pod-1\" \"MZ1\"",
            "\"pod-1\" \"MZsame\"",
        ];
        assert_eq!(names, expected);
        let starts: Vec<_> = found.iter().map(|one| one["started_at"].as_str().unwrap()).collect();
        assert!(starts.is_sorted_by(|a, b| a >= b), "{starts:?}");
        let same = all(server, "q=mzsam");
        assert_eq!(same.len(), 2, "{same:?}");
        for recording in &found {
            let instance = usize::from(recording["instance"] == "pod-1");
            let id = recording["id"].as_str().unwrap();
            let local = &shelf::finished(dirs[instance].path())[id];
            assert_eq!(json_at(server, &path_of(recording, "")), local.record);
            let day = recording["day"].as_str().unwrap();
            let wav = fs::read(dirs[instance].path().join(day).join(format!("{id}.wav"))).unwrap();
            assert_plays(server, recording, &wav);
            let peaks = path_of(recording, "/peaks");
            assert_eq!(json_at(server, &peaks), json_at(&servers[instance], &peaks));
        }
    }
    let status = json_at(&console, "/api/v1/status");
    assert_eq!(
        (&status["reads_home"], &status["stream_url"]),
        (&bucket.home().into(), &Value::Null)
    );
    assert_eq!(console.ask_admin("/readyz").0, 200);
    assert_eq!(console.post_admin("/api/v1/drain").0, 404);
    for path in ["/api/v1/recordings/2026-01-01/MZ0", "/metrics"] {
        assert_eq!(console.ask_admin(path).0, 404, "{path}");
    }
    // No request lists more than a folder of the index, and nobody but the uploader puts.
    let lists = bucket.asked().into_iter().filter(|asked| asked.path.contains("list-type=2"));
    for list in lists {
        assert!(list.path.contains("index%2F") && list.path.contains("delimiter"), "{}", list.path);
    }
}

#[test]
fn recordings_in_the_home_are_listed_downloaded_and_verified_by_commands() {
    let bucket = Bucket::new();
    let dir = tempfile::tempdir().unwrap();
    let server = bucket.recorder(dir.path()).start();
    record(&server, "MZ1");
    record(&server, "MZ2");
    wait_until_uploaded(&server, 2);
    let listed = home_command(&bucket, &["ls", "--json"]);
    let lines = String::from_utf8(listed.stdout).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| &line["id"]).collect::<Vec<_>>(), ["MZ2", "MZ1"]);
    let day = lines[0]["day"].as_str().unwrap();
    let table = home_command(&bucket, &["ls", "--day", day]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains(&format!("pod-0             {day}/MZ1")), "{table}");
    assert_eq!(home_command(&bucket, &["ls", "--day", "2001-01-01"]).stdout, b"");
    let to = tempfile::tempdir().unwrap();
    let file = to.path().join("one.wav");
    let wav = fs::read(dir.path().join(day).join("MZ1.wav")).unwrap();
    let get = |id: &str| home_command(&bucket, &["get", id, "-o", file.to_str().unwrap()]);
    assert_eq!(get("MZ1").status.code(), Some(0));
    assert!(fs::read(&file).unwrap() == wav);
    let again = String::from_utf8(get(&format!("{day}/MZ1")).stderr).unwrap();
    assert!(again.contains("there is a file of this name"), "{again}");
    assert!(
        home_command(&bucket, &["get", &format!("{day}/MZ2"), "-o", "-"])
            .stdout
            .starts_with(b"RIFF")
    );
    let missing = get("MZ");
    let told = String::from_utf8(missing.stderr).unwrap();
    assert!(missing.status.code() == Some(1) && told.contains("has no recording MZ:"), "{told}");
    let verify = || home_command(&bucket, &["verify", "--day", day]);
    let whole = verify();
    assert_eq!(whole.status.code(), Some(0), "{whole:?}");
    assert_eq!(String::from_utf8(whole.stderr).unwrap().trim(), "2 whole, 0 not");
    // Somebody changes the audio of one.
    fs::remove_file(&file).unwrap();
    bucket.put(&format!("{}/pod-0/MZ1.wav", day.replace('-', "/")), "x".repeat(wav.len()));
    let damaged = verify();
    let line = String::from_utf8(damaged.stdout).unwrap();
    let url = format!("{}/{}/pod-0/MZ1", bucket.home(), day.replace('-', "/"));
    assert_eq!((damaged.status.code(), line.trim()), (Some(1), &*format!("other   {url}")));
    let refused = get("MZ1");
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(
        refused.status.code() == Some(1) && told.contains("damaged or replaced there"),
        "{told}"
    );
    assert_eq!(fs::read_dir(to.path()).unwrap().count(), 0, "nothing is left");
}

#[test]
fn an_evicted_recording_is_listed_and_plays_as_before() {
    let bucket = Bucket::new();
    let (dir, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut server = bucket.recorder(dir.path()).start();
    let mut peer = Peer::call(&server, "MZlong");
    peer.flood(Duration::from_secs(300));
    peer.finish();
    record(&server, "MZ1");
    wait_until_uploaded(&server, 2);
    let before = all(&server, "");
    let peaks: Vec<_> =
        before.iter().map(|one| json_at(&server, &path_of(one, "/peaks"))).collect();
    server.stop();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir()
            && !entry.file_name().to_str().unwrap().starts_with('.')
        {
            let to = spool.path().join(entry.file_name());
            fs::create_dir(&to).unwrap();
            for file in fs::read_dir(entry.path()).unwrap() {
                let file = file.unwrap();
                fs::copy(file.path(), to.join(file.file_name())).unwrap();
            }
        }
    }
    let server = bucket.recorder(dir.path()).args(&["--evict-after", "0s"]).start();
    let name = "callreel_recordings_removed_total{reason=\"evicted\"}";
    eventually(PATIENCE, "both are evicted", || (server.metric(name) == 2.0).then_some(()));
    let after = all(&server, "");
    assert_eq!(after, before);
    let kept = shelf::finished(spool.path());
    for (recording, peaks) in after.iter().zip(&peaks) {
        let (day, id) = (recording["day"].as_str().unwrap(), recording["id"].as_str().unwrap());
        assert_eq!(json_at(&server, &path_of(recording, "")), kept[id].record);
        let wav = fs::read(spool.path().join(day).join(format!("{id}.wav"))).unwrap();
        assert_plays(&server, recording, &wav);
        assert_eq!(&json_at(&server, &path_of(recording, "/peaks")), peaks);
    }
    // The waveform of the long one came from its peaks.
    let asked = bucket.asked();
    assert!(asked.iter().any(|asked| asked.method == "GET" && asked.path.contains("MZlong.peaks")));
    // A store that is away costs the list what is there, and a word.
    bucket.set_away(true);
    let page = json_at(&server, "/api/v1/recordings");
    assert_eq!(page["recordings"], json!([]));
    let warning = page["warning"].as_str().unwrap();
    assert!(warning.contains("the recordings in the home are not listed"), "{warning}");
    assert_eq!(server.ask_admin(&path_of(&before[0], "")).0, 503);
}

#[test]
fn a_folder_is_read_back_as_a_bucket_is_over_tls_too() {
    let (dir, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let url = format!("file://{}", home.path().display());
    let options = ["--home", &url, "--instance", "pod-0", "--admin", "127.0.0.1:0"];
    let server = Setup::new(dir.path()).args(&options).start();
    ["MZ0", "MZ1"].iter().for_each(|id| drop(record(&server, id)));
    wait_until_uploaded(&server, 2);
    let console = Setup::console().args(&["--home", &url]).spawn();
    let found = all(&console, "");
    assert_eq!(found, all(&server, ""));
    let authority = Authority::new("Test");
    let (pki, token) = (tempfile::tempdir().unwrap(), "0123456789abcdef0123456789abcdef");
    let (ca, files) = (authority.write(pki.path()), authority.issue(|_| ()).write(pki.path()));
    let secured = Setup::console().args(&["--home", &url, "--admin-token", token]);
    let secured = secured.args(&files.each_ref().map(String::as_str)).spawn();
    let line = secured.wait_for_log("console at https://");
    let (_, base) = line.split_once("console at ").unwrap();
    for recording in &found {
        let (day, id) = (recording["day"].as_str().unwrap(), recording["id"].as_str().unwrap());
        let wav = fs::read(dir.path().join(day).join(format!("{id}.wav"))).unwrap();
        assert_plays(&console, recording, &wav);
        let peaks = path_of(recording, "/peaks");
        assert_eq!(json_at(&console, &peaks), json_at(&server, &peaks));
        let audio = format!("{}{}", base.trim_end_matches('/'), path_of(recording, "/audio"));
        let ca = ca.to_str().unwrap();
        let bearer = format!("Authorization: Bearer {token}");
        let whole = ["-sSf", "--max-time", "30", "--cacert", ca, "-H", &bearer, &audio];
        assert!(oracle::run("curl", &whole, b"") == wav);
        let status = ["-sS", "--cacert", ca, "-o", "/dev/null", "-w", "%{http_code}", &audio];
        assert_eq!(oracle::run("curl", &status, b""), b"401");
    }
}

#[test]
fn a_day_of_300_000_recordings_takes_no_more_memory_than_a_small_one() {
    if std::env::var_os("CALLREEL_LONG").is_none() {
        return;
    }
    const OBJECTS: usize = 150;
    const LINES: usize = 2000;
    let home = tempfile::tempdir().unwrap();
    let url = format!("file://{}", home.path().display());
    let index = home.path().join("index/2026/11/27");
    fs::create_dir_all(&index).unwrap();
    for object in 0..OBJECTS {
        let lines: String = (0..LINES).map(|line| line_of(&url, object, line)).collect();
        fs::write(index.join(format!("pod-{object}-{object:016x}.ndjson")), lines).unwrap();
    }
    let console = Setup::console().args(&["--home", &url]).spawn();
    let mut cursor = String::new();
    for page in 0..2 {
        let path = format!("/api/v1/recordings?limit=200&cursor={cursor}");
        let listed = curl(console.admin_address(), &path, &["--max-time", "240"]);
        let listed: Value = serde_json::from_slice(&listed).unwrap();
        let starts = listed["recordings"].as_array().unwrap().iter().map(|one| &one["started_at"]);
        assert_eq!(starts.len(), 200, "page {page}");
        cursor = listed["next"].as_str().unwrap().to_owned();
    }
    // 64 MiB of objects are kept, and a few more are read.
    assert!(console.memory("VmHWM") < 160 << 20, "{} bytes", console.memory("VmHWM"));
}

/// A line of an index.
fn line_of(home: &str, object: usize, line: usize) -> String {
    let (id, second) = (format!("MZ{object:03}x{line:05}"), line * 40 + object % 40);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let line = json!({
        "day": "2026-11-27", "id": id, "state": "complete", "end": "stop", "provider": "twilio",
        "stream_id": id, "call_id": id, "account_id": "AC1", "parameters": {}, "tracks": ["inbound"],
        "started_at": format!("2026-11-27T{hour:02}:{minute:02}:{second:02}Z"),
        "ended_at": "2026-11-27T23:59:00Z", "duration_ms": 1000, "gaps": 0, "missing_ms": 0, "lost_ms": 0,
        "late": 0, "bytes": 16044, "instance": format!("pod-{object}"),
        "home": format!("{home}/2026/11/27/pod-{object}/{id}"),
    });
    format!("{line}\n")
}

#[test]
fn a_long_recording_without_peaks_in_the_home_is_drawn_from_parts_of_it_and_says_so() {
    let bucket = Bucket::new();
    let dir = tempfile::tempdir().unwrap();
    let server = bucket.recorder(dir.path()).args(&["--no-peaks"]).start();
    let mut peer = Peer::call(&server, "MZlong");
    peer.flood(Duration::from_secs(1200));
    peer.finish();
    wait_until_uploaded(&server, 1);
    let console = bucket.console();
    let recording = &all(&console, "")[0];
    bucket.forget_asked();
    let peaks = json_at(&console, &path_of(recording, "/peaks"));
    assert_eq!((&peaks["is_sampled"], &peaks["columns"]), (&true.into(), &100.into()));
    let high = peaks["channels"][0]["high"].as_array().unwrap();
    assert!(high.len() == 100 && high.iter().all(|level| level.as_i64() > Some(10)), "{high:?}");
    // A console without a recorder writes nothing, and does not download the whole.
    let asked = bucket.asked();
    assert!(asked.iter().all(|asked| matches!(&*asked.method, "GET" | "HEAD")), "{asked:?}");
    let reads = asked.iter().filter(|asked| asked.path.ends_with(".wav"));
    assert!((50..=110).contains(&reads.count()), "{asked:?}");
}

#[test]
fn an_index_stays_small_and_lists_each_recording_once_however_often_it_is_added() {
    const COUNT: usize = 400;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = Arc::new(InMemory::new());
    let home = Home::over(&"s3://calls/eu".parse().unwrap(), Arc::clone(&store));
    let (instance, other) = ("pod-0".parse().unwrap(), "pod-0-1".parse().unwrap());
    let line = |number: usize, instance| {
        let time = format!("2026-11-27T10:{:02}:{:02}Z", number / 60, number % 60);
        let mut record = Record::unknown(Provider::Twilio, time.parse().unwrap());
        record.id = Some(format!("MZ{number}").try_into().unwrap());
        let key = callreel::record::Key::new(record.day(), record.id.clone().unwrap());
        let url = home.address().url_of(&key, instance);
        Line::new(home.address(), &record, &url).unwrap()
    };
    runtime.block_on(async {
        Indexer::new(home.clone()).add(line(0, &other)).await.unwrap();
        // A start after a kill adds again what was not noted as added.
        for _ in 0..2 {
            let indexer = Indexer::new(home.clone());
            for batch in 0..COUNT / 4 {
                let mut adds = tokio::task::JoinSet::new();
                for n in 0..4 {
                    let (indexer, line) = (indexer.clone(), line(batch * 4 + n, &instance));
                    adds.spawn(async move { indexer.add(line).await });
                }
                adds.join_all().await.into_iter().for_each(|added| added.unwrap());
            }
        }
        let folder = home.address().index_path(None);
        let day = home.address().index_path(Some("2026-11-27".parse().unwrap()));
        let objects = store.list_with_delimiter(Some(&day)).await.unwrap().objects;
        assert!(objects.len() <= 3 * 8, "{} objects", objects.len());
        let of_other = objects.iter().filter(|o| o.location.as_ref().contains("pod-0-1-"));
        assert_eq!(of_other.count(), 1);
        // Whatever else lies there is no line.
        let odd = day.join("pod-0-x.ndjson");
        store.put(&odd, "{}\nnonsense\n{\"id\":\"../x\"}\n".into()).await.unwrap();
        store.put(&folder.join("x").join("y"), "z".into()).await.unwrap();
        let library = Library::new(home.clone());
        let (mut urls, mut after) = (Vec::new(), None::<Cursor>);
        loop {
            let page = library.list(&Filter::default(), after.as_ref(), 70).await.unwrap();
            urls.extend(page.records.into_iter().map(|listed| listed.url));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let expected = (0..COUNT).rev().map(|number| line(number, &instance).url().to_owned());
        let mut expected: Vec<_> = expected.collect();
        expected.push(line(0, &other).url().to_owned());
        let mut found: Vec<_> = urls.iter().map(ToString::to_string).collect();
        // The two of one id and one time are in any order.
        expected[COUNT - 1..].sort();
        found[COUNT - 1..].sort();
        assert_eq!(found, expected);
    });
}
