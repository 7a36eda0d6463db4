//! Recordings that the home lacks: kept on the disk by every option, and told by `callreel home`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use callreel::finished::Finished;
use callreel::home::Home;
use callreel::outbox::Outbox;
use callreel::store::{self, Store};
use object_store::memory::InMemory;

use super::{is_beside, record};
use crate::harness::admin::shelve;
use crate::harness::bucket::Bucket;
use crate::harness::process::{Setup, callreel};
use crate::harness::small_disk::SmallDisk;

const DAY: &str = "2026-01-02";

/// Bytes of the WAV of each recording.
const WAV_BYTES: usize = 100 * 1024;

#[test]
fn no_option_removes_a_recording_that_the_home_lacks_however_little_room_there_is() {
    let disk = SmallDisk::mount();
    let dir = disk.dir();
    let ids = ["MZ1", "MZ2", "MZ3", "MZ4"];
    fs::create_dir_all(dir.join(".home")).unwrap();
    for id in ids {
        shelve(&dir, DAY, id);
        fs::write(dir.join(DAY).join(format!("{id}.wav")), [0; WAV_BYTES]).unwrap();
        fs::write(dir.join(".home").join(format!("msg_{DAY}_{id}.json")), "{}").unwrap();
    }
    fs::remove_file(dir.join(".home").join(format!("msg_{DAY}_MZ3.json"))).unwrap();
    let keep_free = 512 * 1024;
    let config = store::Config {
        dir: dir.clone(),
        keep_days: Some(3),
        make_room: true,
        keep_free: Some(keep_free),
        ..store::Config::default()
    };
    let home = Home::over(&"s3://calls".parse().unwrap(), Arc::new(InMemory::new()));
    let finished = Finished::default().with_home(home, Outbox::of_home(&dir, None));
    let store = Store::open(config, finished).unwrap();
    disk.fill(keep_free - 5 * WAV_BYTES as u64 / 2);
    (0..250).for_each(|_| store.tend());
    let left = ids.map(|id| dir.join(DAY).join(format!("{id}.wav")).exists());
    assert_eq!(left, [true, true, false, true]);
    let alarms = store.retention().alarms().join("\n");
    assert!(alarms.contains("recordings that the home lacks"), "{alarms}");
    assert!(store.door().fault().is_some(), "new calls are refused");
}

/// Runs `callreel home`.
fn home(bucket: &Bucket, dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(callreel());
    command.arg("home").args(arguments).arg("--dir").arg(dir).env_clear();
    command.args(["--home", &bucket.home(), "--instance", "pod-7"]);
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.envs(bucket.variables()).output().unwrap()
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

#[test]
fn an_old_directory_is_compared_and_uploaded_by_hand_and_again() {
    let bucket = Bucket::new();
    let dir = tempfile::tempdir().unwrap();
    // Recorded before there was a home, under this machine's name.
    let mut server = Setup::new(dir.path()).args(&["--instance", "pod-3"]).start();
    for id in ["MZ1", "MZ2", "MZ3"] {
        record(&server, id);
    }
    server.stop();
    let checked = home(&bucket, dir.path(), &["check"]);
    let text = said(&checked);
    assert_eq!(checked.status.code(), Some(1), "{text}");
    assert_eq!(text.matches("missing ").count(), 3, "{text}");
    assert!(text.contains("0 in the home, 0 waiting for a recorder, 3 not in it"), "{text}");
    for _ in 0..2 {
        let synced = home(&bucket, dir.path(), &["sync"]);
        assert_eq!(synced.status.code(), Some(0), "{}", said(&synced));
        assert!(said(&synced).contains("3 in the home, 0 not in it"), "{}", said(&synced));
    }
    let puts = bucket.asked().into_iter().filter(|asked| asked.method == "PUT");
    let puts = puts.filter(|asked| asked.path.contains("/MZ")).count();
    assert_eq!(puts, 6, "the second run puts nothing");
    let (objects, _) = bucket.contents();
    let of_pod_3 = |key: &&String| key.contains("/pod-3/") || key.contains("/pod-3-");
    assert!(objects.keys().all(|key| of_pod_3(&key)), "{:?}", objects.keys());
    let (index, parts): (Vec<_>, Vec<_>) = objects.iter().partition(|(key, _)| is_beside(key));
    assert_eq!(parts.len(), 6);
    let lines = index.iter().flat_map(|(_, lines)| lines.iter()).filter(|byte| **byte == b'\n');
    assert_eq!(lines.count(), 3, "the second run adds no line to the index");
    assert_eq!(home(&bucket, dir.path(), &["check"]).status.code(), Some(0));
    // An object that is not that of the disk is told, and not replaced.
    let key = objects.keys().find(|key| key.ends_with("MZ2.json")).unwrap();
    bucket.put(key, "{}");
    let checked = home(&bucket, dir.path(), &["check"]);
    assert!(
        said(&checked).contains("other ") && said(&checked).contains("MZ2"),
        "{}",
        said(&checked)
    );
    let synced = home(&bucket, dir.path(), &["sync"]);
    assert_eq!(synced.status.code(), Some(1), "{}", said(&synced));
    assert_eq!(bucket.contents().0[key], b"{}");
}
