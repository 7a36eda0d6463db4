//! No call is taken that cannot be finished, and readiness tells the truth, on both listeners.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::disk::{Disk, Errno};
use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, PROMPT, Server, Setup, eventually};
use crate::harness::shelf;

const ALL: std::ops::RangeInclusive<u64> = 1..=u64::MAX;

const SECOND: Duration = Duration::from_secs(1);

/// A call with one second of audio, all of it read by the server.
fn heard_call(server: &Server, id: &str) -> Peer {
    let mut peer = Peer::call(server, id);
    peer.say(SECOND);
    peer.sync();
    peer
}

/// A disk like exFAT, SMB or one behind FUSE: no link, no rename that refuses to replace, no sync of
/// directories.
fn plain_disk(dir: &Path) -> Disk {
    let mut disk = Disk::new();
    disk.fail("*", "rename-new", ALL, Errno::INVAL);
    disk.fail("*", "link", ALL, Errno::PERM);
    let day = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    // Only the paths of directories end like this: that of a file goes on with its name.
    for name in [day, ".callreel.trial".to_owned()] {
        disk.fail(&format!("{}/{name}$", dir.display()), "sync", ALL, Errno::INVAL);
    }
    disk
}

#[test]
fn a_file_system_without_links_and_exclusive_renames_is_recorded_to() {
    let dir = tempfile::tempdir().unwrap();
    let disk = plain_disk(dir.path());
    let options = ["--admin", "127.0.0.1:0"];
    let mut server = disk.under(Setup::new(dir.path()).args(&options), dir.path()).start();
    assert_eq!((server.ask_admin("/readyz").0, server.get("/readyz")), (200, 200));
    let first = heard_call(&server, "MZ1").finish();
    let before = shelf::contents(dir.path());
    let again = heard_call(&server, "MZ1");
    // Another program takes the name that the recording is about to get.
    // Once both its files are there, it has looked for a free name.
    let part = eventually(PATIENCE, "its files are made", || {
        let files = shelf::unfinished(dir.path());
        let are_parts =
            files.len() == 2 && files.iter().all(|path| path.extension() == Some("part".as_ref()));
        are_parts.then(|| files[0].clone())
    });
    let theirs = part.with_file_name("MZ1-2.wav");
    fs::write(&theirs, "theirs").unwrap();
    let mut again = again;
    again.stop();
    server.wait_for_log("the disk does not take audio");
    assert_eq!(fs::read(&theirs).unwrap(), b"theirs");
    fs::remove_file(&theirs).unwrap();
    assert_eq!(again.close_code(), Some(1000));
    let finished = shelf::finished(dir.path());
    for (id, peer) in [("MZ1", &first), ("MZ1-2", &again)] {
        assert_eq!(finished[id].state(), ("complete", "stop"));
        assert!(finished[id].samples() == peer.pcm());
    }
    let after = shelf::contents(dir.path());
    assert!(before.iter().all(|(path, bytes)| after[path] == *bytes));
    assert!(shelf::unfinished(dir.path()).is_empty());
    let told = server.log_lines();
    let told = told.iter().filter(|line| line.contains("cannot make names durable")).count();
    assert_eq!(told, 1);
    assert_eq!(server.stop().0.code(), Some(0));
}

#[test]
fn names_that_were_claimed_when_the_recorder_was_killed_are_given_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    // A call, and a stream that could not be recorded.
    let mut refused = Peer::connect(&server, "MZ2");
    let foreign = refused.start_message(&[]).replace("audio/x-mulaw", "audio/opus");
    refused.text(&foreign);
    assert_eq!(refused.close_code(), Some(1003));
    let call = heard_call(&server, "MZ1");
    let is_there = |path: &PathBuf| path.to_string_lossy().ends_with("MZ1.json.part");
    eventually(PATIENCE, "it is begun", || {
        shelf::unfinished(dir.path()).iter().any(is_there).then_some(())
    });
    server.kill();
    let part = shelf::unfinished(dir.path()).remove(0);
    let place = |name: &str| part.with_file_name(name);
    fs::rename(place("MZ2.json"), place("MZ2.json.part")).unwrap();
    for claimed in ["MZ1.wav", "MZ1.json", "MZ2.json"] {
        fs::write(place(claimed), "").unwrap();
    }
    for is_plain in [false, true] {
        let home = tempfile::tempdir().unwrap();
        let (disk, setup) = (plain_disk(home.path()), Setup::new(home.path()));
        for path in shelf::files(dir.path()) {
            let to = home.path().join(path.strip_prefix(dir.path()).unwrap());
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(path, to).unwrap();
        }
        let setup = if is_plain { disk.under(setup, home.path()) } else { setup };
        let server = setup.start_and_recover();
        let finished = shelf::finished(home.path());
        assert_eq!(finished["MZ1"].word("state"), "recovered");
        assert!(call.pcm().starts_with(finished["MZ1"].samples()));
        assert_eq!(finished["MZ2"].state(), ("failed", "refused"));
        assert!(shelf::unfinished(home.path()).is_empty());
        drop(server);
    }
}

#[test]
fn a_directory_in_which_nothing_can_be_finished_is_refused_at_the_start() {
    for (kind, words) in [
        ("rename", "replace a file by a rename"),
        ("rename-new", "give a finished file its name"),
        ("mkdir", "make a directory"),
        ("sync", "make a file durable"),
        ("write", "write to a file"),
        ("unlink", "remove a file"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = Disk::new();
        disk.fail(".callreel.trial", kind, ALL, Errno::IO);
        let (code, said) = disk.under(Setup::new(dir.path()), dir.path()).refuse();
        let errors: Vec<_> = said.iter().filter(|line| line.starts_with("error: ")).collect();
        assert!(code == Some(1) && errors.len() == 1, "{kind}: {said:?}");
        let is_told = |text: &str| errors[0].contains(text);
        let dir = dir.path().to_str().unwrap();
        assert!([words, dir, "choose another --dir"].into_iter().all(is_told), "{errors:?}");
    }
}

#[test]
fn a_disk_that_gives_no_more_names_gets_no_new_calls_until_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Disk::new();
    let options = ["--admin", "127.0.0.1:0"];
    let server = disk.under(Setup::new(dir.path()).args(&options), dir.path()).start();
    let mut running = heard_call(&server, "MZ1");
    disk.fail("*", "rename-new", ALL, Errno::IO);
    eventually(PATIENCE, "/readyz answers 503", || (server.get("/readyz") == 503).then_some(()));
    let (status, why) = server.ask_admin("/readyz");
    assert!(status == 503 && why.contains("cannot be written to"), "{why}");
    let (_, public) = server.ask("GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(public.ends_with("{\"status\":\"unavailable\"}"), "{public}");
    assert_eq!(server.get("/"), 200);
    assert_eq!(Peer::try_connect(&server, "MZ2", "").err(), Some(503));
    assert_eq!(server.metric("callreel_calls_refused_total{reason=\"disk\"}"), 1.0);
    running.say(SECOND);
    running.stop();
    server.wait_for_log("the disk does not take audio");
    disk.heal();
    assert_eq!(running.close_code(), Some(1000));
    assert!(shelf::finished(dir.path())["MZ1"].samples() == running.pcm());
    // Without a request to /readyz.
    eventually(PATIENCE, "calls are taken", || Peer::try_connect(&server, "MZ2", "").ok());
    assert_eq!((server.ask_admin("/readyz").0, server.get("/readyz")), (200, 200));
}

#[test]
fn nobody_waits_long_for_a_disk_that_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Disk::new();
    let server = disk.under(Setup::new(dir.path()), dir.path()).start();
    disk.delay(".callreel.trial", "mkdir", ALL, 8000);
    thread::sleep(SECOND); // The last trial is good for a second.
    let ask = || {
        let began = Instant::now();
        (server.get("/readyz"), began.elapsed())
    };
    let answers: Vec<(u16, Duration)> = thread::scope(|scope| {
        let flood: Vec<_> = (0..100).map(|_| scope.spawn(ask)).collect();
        let began = Instant::now();
        assert_eq!(server.get("/"), 200);
        assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
        flood.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    for (status, took) in answers {
        assert!(status == 503 && took < PROMPT, "{status} after {took:?}");
    }
    let (status, took) = ask();
    assert!(status == 503 && took < PROMPT, "{status} after {took:?}");
    disk.heal();
    eventually(PATIENCE, "/readyz answers 200", || (server.get("/readyz") == 200).then_some(()));
}

#[test]
fn a_flood_of_questions_tries_the_disk_once_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new();
    let server = disk.under(Setup::new(dir.path()), dir.path()).start();
    let began = Instant::now();
    for _ in 0..200 {
        assert_eq!(server.get("/readyz"), 200);
    }
    let is_trial = |kind: &str, path: &Path| kind == "mkdir" && path.ends_with(".callreel.trial");
    let trials = disk.operations().iter().filter(|op| is_trial(&op.kind, &op.path)).count();
    // Besides one a second: one at the start, and one by the recorder itself.
    let trials_max = began.elapsed().as_secs() as usize + 4;
    assert!(trials <= trials_max, "{trials} trials in {:?}", began.elapsed());
}

#[test]
fn a_media_thread_that_stands_still_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).args(&["--admin", "127.0.0.1:0"]).start();
    assert_eq!(server.get("/readyz"), 200);
    let stopped = StoppedThread::of(&server, "media-0");
    eventually(PATIENCE, "/readyz answers 503", || (server.get("/readyz") == 503).then_some(()));
    let (status, why) = server.ask_admin("/readyz");
    assert!(status == 503 && why.contains("a thread that reads calls stands still"), "{why}");
    assert_eq!(server.get("/"), 200);
    drop(stopped);
    eventually(PATIENCE, "/readyz answers 200", || (server.get("/readyz") == 200).then_some(()));
}

#[test]
fn a_writer_that_stands_still_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Disk::new();
    let options = ["--admin", "127.0.0.1:0"];
    let server = disk.under(Setup::new(dir.path()).args(&options), dir.path()).start();
    disk.delay("MZ1.wav.part", "write", 2..=2, 8000);
    let peer = heard_call(&server, "MZ1");
    eventually(PATIENCE, "/readyz answers 503", || (server.get("/readyz") == 503).then_some(()));
    assert!(server.ask_admin("/readyz").1.contains("a thread that writes recordings stands still"));
    eventually(PATIENCE, "/readyz answers 200", || (server.get("/readyz") == 200).then_some(()));
    let peer = peer.finish();
    assert!(shelf::finished(dir.path())["MZ1"].samples() == peer.pcm());
}

/// A thread that a debugger holds until this is dropped.
struct StoppedThread(std::process::Child);

impl StoppedThread {
    fn of(server: &Server, name: &str) -> Self {
        const PROGRAM: &str = "import ctypes, sys\n\
            libc = ctypes.CDLL(None, use_errno=True)\n\
            thread = int(sys.argv[1])\n\
            SEIZE, INTERRUPT = 0x4206, 0x4207\n\
            assert libc.ptrace(SEIZE, thread, None, None) == 0, ctypes.get_errno()\n\
            assert libc.ptrace(INTERRUPT, thread, None, None) == 0, ctypes.get_errno()\n\
            print('stopped', flush=True)\n\
            sys.stdin.read()";
        let tasks = format!("/proc/{}/task", server.pid().as_raw_nonzero());
        let thread = fs::read_dir(tasks).unwrap().map(|task| task.unwrap()).find(|task| {
            fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name)
        });
        let thread = thread.expect("there is such a thread").file_name();
        let mut debugger = Command::new("python3");
        debugger.args(["-c", PROGRAM]).arg(thread).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut debugger = debugger.spawn().expect("python3 starts");
        let mut said = String::new();
        BufReader::new(debugger.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "stopped\n", "run as root: a debugger must be allowed to stop a thread");
        Self(debugger)
    }
}

impl Drop for StoppedThread {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
