//! Power loss: the operations on the disk are logged, and every prefix of the log is the disk after a
//! power loss, with unsynced data dropped, kept or torn.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use callreel::finished::Finished;
use callreel::store::{self, Store};

use super::{CHUNK, SECOND, stream_id};
use crate::harness::disk::{Disk, Operation};
use crate::harness::peer::Peer;
use crate::harness::process::Setup;
use crate::harness::shelf;

/// Longest time until written audio is durable: the goal. The promise is five seconds.
const DURABLE_AFTER_MAX: Duration = Duration::from_secs(2);

const HEADER_BYTES: usize = 44;

#[test]
fn whenever_the_power_goes_what_was_durable_is_recovered_and_that_is_all_but_two_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new();
    let mut server = disk.under(Setup::new(dir.path()), dir.path()).start();
    let mut peers: Vec<Peer> = (0..3).map(|n| Peer::call(&server, &stream_id(n))).collect();
    let began = Instant::now();
    for chunk in 1..=175 {
        for (number, peer) in peers.iter_mut().enumerate() {
            // One call stops early, one breaks off, one goes on to the end.
            match (number, chunk) {
                (0, 100) => peer.stop(),
                (1, 120) => peer.fin(),
                (0, 101..) | (1, 121..) => {}
                _ => peer.say(CHUNK),
            }
        }
        std::thread::sleep((chunk * CHUNK).saturating_sub(began.elapsed()));
    }
    server.kill();
    let operations = disk.operations();
    let worst = longest_unsynced(&operations);
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut rounds = 0;
    for length in 0..=operations.len() {
        for loss in [Loss::All, Loss::None, Loss::Torn] {
            let after = Platter::after(&operations[..length], loss, &mut random);
            check(
                &after,
                dir.path(),
                &peers,
                &format!("{length} operations, {loss:?}, seed {seed}"),
            );
            rounds += 1;
        }
    }
    eprintln!(
        "power loss: {rounds} disks recovered; audio was durable {worst:?} after it was written"
    );
    assert!(worst <= DURABLE_AFTER_MAX);
}

#[test]
fn calls_that_end_together_share_syncs_and_each_name_is_durable_before_its_close() {
    let cores = std::thread::available_parallelism().unwrap().get();
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Disk::new();
    let server = disk.under_without_data(Setup::new(dir.path()), dir.path()).start();
    // Behind the first syncs, all other calls come to their end.
    disk.delay(".wav.part$", "sync", 1..=u64::MAX, 1000);
    let mut peers: Vec<Peer> = (0..8 * cores).map(|n| Peer::call(&server, &stream_id(n))).collect();
    peers.iter_mut().for_each(|peer| peer.say(5 * CHUNK));
    peers.iter_mut().for_each(Peer::sync);
    peers.iter_mut().for_each(Peer::stop);
    let mut day = PathBuf::new();
    let is_sync =
        |operation: &Operation, day: &Path| operation.kind == "fsync" && operation.path == day;
    for peer in &mut peers {
        assert_eq!(peer.close_code(), Some(1000));
        let named = |ending: &str| format!("{}.{ending}", peer.stream_id);
        let operations = disk.operations();
        let place = |ending: &str| {
            operations.iter().position(|operation| operation.to.ends_with(named(ending)))
        };
        let wav = place("wav").expect("a closed call has its final name");
        day = operations[wav].to.parent().unwrap().to_owned();
        assert!(
            operations[wav..].iter().any(|o| is_sync(o, &day)),
            "{} is not durable",
            named("wav")
        );
        // Before its record says that it is whole, and before it has its name, each file is durable.
        let described = operations[..wav].iter().rposition(|o| o.to.ends_with(named("json.part")));
        let described = described.expect("the final record takes the place of the first one");
        for file in [named("wav.part"), named("json.tmp")] {
            let before = &operations[..described];
            let is_file = |operation: &&Operation| operation.path.ends_with(&file);
            let written = before.iter().rposition(|o| o.kind == "write" && is_file(&o));
            let written = written.expect("the file was written");
            let is_synced = before[written..]
                .iter()
                .any(|o| o.kind == "syncfs" || o.kind == "fsync" && is_file(&o));
            assert!(is_synced, "{file} is not durable");
        }
    }
    let operations = disk.operations();
    let syncs = operations.iter().filter(|operation| is_sync(operation, &day)).count();
    assert!(syncs < peers.len(), "{syncs} syncs of the folder for {} calls", peers.len());
    let syncs = operations.iter().filter(|o| o.kind == "syncfs" || o.kind == "fsync").count();
    assert!(syncs < 2 * peers.len(), "{syncs} syncs for {} calls", peers.len());
}

/// The fate of writes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Loss {
    All,
    None,
    Torn,
}

/// A disk's contents.
#[derive(Default)]
struct Platter {
    dirs: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, Contents>,
}

#[derive(Clone, Default)]
struct Contents {
    durable: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
    /// Bytes that survive every loss.
    durable_bytes: usize,
}

impl Contents {
    fn sync(&mut self) {
        for (offset, data) in std::mem::take(&mut self.unsynced) {
            put(&mut self.durable, offset, &data);
        }
        self.durable_bytes = self.durable.len();
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    bytes.resize(bytes.len().max(offset + data.len()), 0);
    bytes[offset..offset + data.len()].copy_from_slice(data);
}

impl Platter {
    /// The disk after these operations and `loss`. Names change in order, as on a journalling file
    /// system; only synced data is durable.
    fn after(operations: &[Operation], loss: Loss, random: &mut fastrand::Rng) -> Self {
        let mut platter = Self::default();
        for operation in operations {
            platter.perform(operation);
        }
        for contents in platter.files.values_mut() {
            for (offset, data) in std::mem::take(&mut contents.unsynced) {
                let kept = match loss {
                    Loss::All => continue,
                    Loss::None => data.len(),
                    Loss::Torn => random.usize(0..=data.len()),
                };
                put(&mut contents.durable, offset, &data[..kept]);
            }
        }
        platter
    }

    fn perform(&mut self, operation: &Operation) {
        let Operation { kind, path, to, offset, data, .. } = operation;
        match kind.as_str() {
            "mkdir" => drop(self.dirs.insert(path.clone())),
            "create" => {
                // The thread that made the directory may log that later.
                self.dirs.extend(path.parent().map(Path::to_owned));
                self.files.entry(path.clone()).or_default();
            }
            "empty" => drop(self.files.insert(path.clone(), Contents::default())),
            "write" => {
                let contents = self.files.entry(path.clone()).or_default();
                contents.unsynced.push((*offset as usize, data.clone()));
            }
            "fsync" => {
                if let Some(contents) = self.files.get_mut(path) {
                    contents.sync();
                }
            }
            "syncfs" => self.files.values_mut().for_each(Contents::sync),
            "rename" => {
                if let Some(contents) = self.files.remove(path) {
                    self.files.insert(to.clone(), contents);
                }
            }
            "unlink" => drop(self.files.remove(path)),
            "truncate" => {
                if let Some(contents) = self.files.get_mut(path) {
                    contents.durable.resize(*offset as usize, 0);
                }
            }
            "pread" => {}
            other => panic!("unknown operation {other}"),
        }
    }

    /// Writes the disk's contents below another directory.
    fn write(&self, from: &Path, to: &Path) {
        let place = |path: &Path| to.join(path.strip_prefix(from).expect("below the directory"));
        self.dirs.iter().for_each(|dir| fs::create_dir_all(place(dir)).unwrap());
        for (path, contents) in &self.files {
            fs::write(place(path), &contents.durable).unwrap();
        }
    }
}

fn check(platter: &Platter, dir: &Path, peers: &[Peer], when: &str) {
    let copy = tempfile::tempdir().unwrap();
    platter.write(dir, copy.path());
    let config = store::Config { dir: copy.path().to_owned(), ..store::Config::default() };
    Store::open(config, Finished::default()).expect("the directory is good").recover();
    let finished = shelf::finished(copy.path());
    for left in shelf::unfinished(copy.path()) {
        let ours = dir.join(left.strip_prefix(copy.path()).unwrap());
        // A file without durable bytes is not known to be callreel's, and may be left.
        let is_durable = platter.files.get(&ours).is_some_and(|file| file.durable_bytes > 0);
        assert!(!is_durable, "{when}: {} is left", left.display());
    }
    for peer in peers {
        let path = platter.files.keys().find(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.strip_suffix(".part").unwrap_or(&name) == format!("{}.wav", peer.stream_id)
        });
        let Some(path) = path else {
            continue;
        };
        let durable = platter.files[path].durable_bytes.saturating_sub(HEADER_BYTES) / 2;
        let Some(recording) = finished.get(&peer.stream_id) else {
            assert_eq!(durable, 0, "{when}: nothing is recovered");
            continue;
        };
        let samples = recording.samples();
        let pcm = peer.pcm();
        assert!(samples.len() >= durable && samples[..durable] == pcm[..durable], "{when}");
        if path.extension().is_some_and(|extension| extension == "wav") {
            assert!(*samples == pcm[..], "{when}: a finished recording is not whole");
        }
    }
}

/// Longest time that audio stayed unsynced.
fn longest_unsynced(operations: &[Operation]) -> Duration {
    let is_audio = |operation: &Operation| {
        operation.kind == "write" && operation.path.to_string_lossy().ends_with(".wav.part")
    };
    let end = operations.last().expect("there were operations").at_ms;
    let mut worst = 0;
    for (index, write) in operations.iter().enumerate().filter(|(_, o)| is_audio(o)) {
        let makes_durable =
            |o: &&Operation| o.kind == "syncfs" || o.kind == "fsync" && o.path == write.path;
        // Audio written after the last sync has waited at least until the end.
        let synced = operations[index..].iter().find(makes_durable).map_or(end, |sync| sync.at_ms);
        worst = worst.max(synced - write.at_ms);
    }
    assert!(end > 3 * SECOND.as_millis() as u64 / 2, "the run was too short");
    Duration::from_millis(worst)
}
