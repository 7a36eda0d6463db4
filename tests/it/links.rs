//! Directories that other users may write to: links, pipes and files that stand where callreel writes or
//! reads. No link is followed, no file of other users is changed, and calls are recorded.

mod days;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, Setup, callreel, eventually};
use crate::harness::receiver::receiver;
use crate::harness::shelf;

/// A directory, and a file of another user outside of it.
struct Trap {
    home: tempfile::TempDir,
    victim: PathBuf,
}

impl Trap {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let victim = home.path().join("victim");
        fs::write(&victim, "somebody's own").unwrap();
        fs::create_dir(home.path().join("dir")).unwrap();
        Self { home, victim }
    }

    fn dir(&self) -> PathBuf {
        self.home.path().join("dir")
    }

    /// Puts a link to the victim at `name`.
    fn link(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.dir().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(&self.victim, &path).unwrap();
        path
    }

    fn is_untouched(&self) {
        assert_eq!(fs::read_to_string(&self.victim).unwrap(), "somebody's own");
    }
}

fn pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

fn today() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d").to_string()
}

#[test]
fn a_lock_that_is_no_file_is_refused_and_not_followed() {
    let trap = Trap::new();
    let lock = trap.link(".callreel.lock");
    let (code, said) = Setup::new(&trap.dir()).refuse();
    assert_eq!(code, Some(1), "{said:?}");
    assert!(said.last().unwrap().contains(".callreel.lock"), "{said:?}");
    trap.is_untouched();
    fs::remove_file(&lock).unwrap();
    pipe(&lock);
    assert_eq!(Setup::new(&trap.dir()).refuse().0, Some(1));
    // A repair does not wait for a writer of the pipe either.
    let output = Command::new(callreel()).arg("repair").arg(trap.dir()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn what_waits_under_a_temporary_name_is_replaced_and_not_written_through() {
    let trap = Trap::new();
    let (url, received) = receiver(vec![204]);
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    // A directory for the trial that leads elsewhere.
    let elsewhere = trap.home.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join(".callreel.part"), "theirs").unwrap();
    symlink(&elsewhere, trap.dir().join(".callreel.trial")).unwrap();
    let options = ["--webhook", &url, "--webhook-secret", secret];
    let server = Setup::new(&trap.dir()).args(&options).start();
    assert_eq!(fs::read(elsewhere.join(".callreel.part")).unwrap(), b"theirs");
    trap.link(format!("{}/MZ1.json.tmp", today()));
    trap.link(format!(".webhooks/msg_{}_MZ1.tmp", today()));
    let mut peer = Peer::call(&server, "MZ1");
    peer.say(Duration::from_secs(2));
    let peer = peer.finish();
    let finished = shelf::wait_for(&trap.dir(), "MZ1");
    assert_eq!(finished.state(), ("complete", "stop"));
    assert!(finished.samples() == peer.pcm());
    let (headers, _) = received.recv_timeout(PATIENCE).unwrap();
    assert_eq!(headers["webhook-id"], format!("msg_{}_MZ1", today()));
    assert!(shelf::unfinished(&trap.dir()).is_empty());
    trap.is_untouched();
}

#[test]
fn a_capture_is_a_new_file_always() {
    let trap = Trap::new();
    let captures = trap.home.path().join("captures");
    fs::create_dir(&captures).unwrap();
    symlink(&trap.victim, captures.join("MZ1.jsonl")).unwrap();
    fs::write(captures.join("MZ1-2.jsonl"), "of another day\n").unwrap();
    let options = ["--capture", captures.to_str().unwrap()];
    let server = Setup::new(&trap.dir()).args(&options).start();
    let mut peer = Peer::call(&server, "MZ1");
    peer.say(Duration::from_secs(1));
    let peer = peer.finish();
    assert!(shelf::wait_for(&trap.dir(), "MZ1").samples() == peer.pcm());
    assert_eq!(fs::read(captures.join("MZ1-2.jsonl")).unwrap(), b"of another day\n");
    trap.is_untouched();
    let kept = fs::read_to_string(captures.join("MZ1-3.jsonl")).unwrap();
    assert_eq!(kept.lines().filter(|line| line.contains("\"media\"")).count(), 50);
}

#[test]
fn a_finished_recording_that_is_a_link_or_a_pipe_is_not_given_away() {
    let trap = Trap::new();
    let admin = ["--admin", "127.0.0.1:0"];
    let mut server = Setup::new(&trap.dir()).args(&admin).start();
    let mut peer = Peer::call(&server, "MZ1");
    peer.say(Duration::from_secs(1));
    peer.finish();
    shelf::wait_for(&trap.dir(), "MZ1");
    server.stop();
    let day = trap.dir().join(today());
    let (wav, json) = (day.join("MZ1.wav"), day.join("MZ1.json"));
    let path = format!("/api/v1/recordings/{}/MZ1", today());
    let server = Setup::new(&trap.dir()).args(&admin).start();
    assert_eq!(server.ask_admin(&format!("{path}/audio")).0, 200);
    fs::rename(&wav, trap.home.path().join("moved.wav")).unwrap();
    symlink(&trap.victim, &wav).unwrap();
    for what in ["audio", "peaks"] {
        assert_eq!(server.ask_admin(&format!("{path}/{what}")).0, 404, "{what}");
    }
    fs::remove_file(&wav).unwrap();
    pipe(&wav);
    assert_eq!(server.ask_admin(&format!("{path}/audio")).0, 404);
    // A record that is a link is not given away either.
    let moved = trap.home.path().join("moved.json");
    fs::rename(&json, &moved).unwrap();
    symlink(&moved, &json).unwrap();
    assert_eq!(server.ask_admin(&path).0, 404);
    trap.is_untouched();
}

#[test]
fn a_waiting_message_that_is_a_link_is_not_sent() {
    let trap = Trap::new();
    let message = |id: &str| {
        format!(
            r#"{{"type":"recording.finished","timestamp":"2026-11-22T08:00:01Z","data":{{"id":"{id}","started_at":"2026-11-22T08:00:00Z","wav":null}}}}"#
        )
    };
    let queue = trap.dir().join(".webhooks");
    fs::create_dir(&queue).unwrap();
    let outside = trap.home.path().join("outside.json");
    fs::write(&outside, message("outside")).unwrap();
    symlink(&outside, queue.join("msg_a.json")).unwrap();
    pipe(&queue.join("msg_b.json"));
    fs::write(queue.join("msg_c.json"), message("inside")).unwrap();
    let (url, received) = receiver(vec![204, 204, 204]);
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let options = ["--admin", "127.0.0.1:0", "--webhook", &url, "--webhook-secret", secret];
    let server = Setup::new(&trap.dir()).args(&options).start();
    let (headers, _) = received.recv_timeout(PATIENCE).unwrap();
    assert_eq!(headers["webhook-id"], "msg_c");
    eventually(PATIENCE, "the others are passed over", || {
        (server.metric("callreel_webhook_pending") == 0.0).then_some(())
    });
    assert!(received.try_recv().is_err() && outside.exists());
}

#[test]
fn further_calls_of_a_capture_and_repaired_copies_follow_no_link() {
    let trap = Trap::new();
    let start = |id: &str| {
        format!(
            r#"{{"event":"start","start":{{"streamSid":"{id}","tracks":["inbound"],"mediaFormat":{{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}}}},"streamSid":"{id}"}}"#
        ) + "\n"
    };
    let capture = trap.dir().join("c.jsonl");
    fs::write(&capture, [start("MZ1"), start("MZ2")].concat()).unwrap();
    let decode = |output: &Path| {
        let mut command = Command::new(callreel());
        command.arg("decode").arg(&capture).arg("-o").arg(output).output().unwrap()
    };
    // The output that the user names may be a link, if it leads to no file.
    let null = trap.dir().join("null");
    symlink("/dev/null", &null).unwrap();
    assert_eq!(decode(&null).status.code(), Some(0));
    symlink("/dev/null", trap.dir().join("o-2.wav")).unwrap();
    let output = decode(&trap.dir().join("o.wav"));
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("o-2.wav exists and is not overwritten"), "{said}");
    assert_eq!(decode(&trap.link("p.wav")).status.code(), Some(1));

    let day = trap.dir().join("wavs");
    fs::create_dir(&day).unwrap();
    let mut broken = fs::File::create(day.join("a.wav")).unwrap();
    broken.write_all(b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\0\0\0\0abcd").unwrap();
    for name in ["a.repaired.wav", "a.repaired.wav.tmp"] {
        let planted = trap.link(format!("wavs/{name}"));
        let output = Command::new(callreel()).arg("repair").arg(&day).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}: {output:?}");
        fs::remove_file(planted).unwrap();
    }
    trap.is_untouched();
}
