//! A log that nobody reads, that is closed, that hangs, or that is on a full disk: no recording suffers,
//! and every promise holds.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::process::Signal;
use serde_json::Value;

use super::{SECOND, heard_call, stream_id};
use crate::harness::disk::{Disk, Errno};
use crate::harness::peer::{FIN, Peer, TEXT, frame};
use crate::harness::process::{PATIENCE, Server, Setup, callreel, eventually};
use crate::harness::shelf;
use crate::harness::small_disk::SmallDisk;

/// Most time from SIGTERM to the end: calls to finish, and a second for the log.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Condition of the log's destination.
#[derive(Clone, Copy, Debug)]
enum Sink {
    /// A full pipe that nobody reads.
    Hangs,
    /// The same pipe, full, for standard output as well.
    HangsWithOutput,
    /// A pipe without a reader.
    Gone,
    /// No descriptor at all.
    Closed,
    /// A device that is always full.
    Full,
    /// A terminal that was closed.
    HungUp,
}

impl Sink {
    /// Sends a server's log to this sink. The second value keeps the full pipe open.
    fn under(self, home: &std::path::Path) -> (Setup, Option<std::io::PipeReader>) {
        match self {
            Self::Hangs => {
                let (reader, writer) = full_pipe();
                (Setup::new(home).log_to(writer, Stdio::null()), Some(reader))
            }
            Self::HangsWithOutput => {
                let (reader, writer) = full_pipe();
                let output = writer.try_clone().unwrap();
                (Setup::new(home).log_to(writer, output), Some(reader))
            }
            Self::Gone => {
                let (reader, writer) = std::io::pipe().unwrap();
                drop(reader);
                (Setup::new(home).log_to(writer, Stdio::null()), None)
            }
            Self::Closed => {
                let wrapper = ["sh", "-c", "exec \"$0\" \"$@\" 2>&-"];
                let setup = Setup::through(&wrapper, home);
                (setup.log_to(Stdio::null(), Stdio::null()), None)
            }
            Self::Full => {
                let device = OpenOptions::new().write(true).open("/dev/full").unwrap();
                (Setup::new(home).log_to(device, Stdio::null()), None)
            }
            Self::HungUp => (Setup::new(home).log_to(hung_up_terminal(), Stdio::null()), None),
        }
    }
}

/// A pipe that takes nothing until it is read.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
    rustix::fs::fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while writer.write(&[b'\n'; 4096]).is_ok() {}
    rustix::fs::fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

/// The program's side of a terminal that is closed on the other side.
fn hung_up_terminal() -> File {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let path = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
    let mut options = OpenOptions::new();
    let options = options.write(true).read(true);
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, OFlags::NOCTTY.bits() as i32)
        .open(path)
        .unwrap()
}

#[test]
fn whatever_the_log_is_every_promise_holds() {
    let sinks = [
        (Sink::Hangs, "human"),
        (Sink::Hangs, "json"),
        (Sink::HangsWithOutput, "json"),
        (Sink::Gone, "human"),
        (Sink::Gone, "json"),
        (Sink::Closed, "human"),
        (Sink::Full, "human"),
        (Sink::Full, "json"),
        (Sink::HungUp, "human"),
    ];
    std::thread::scope(|scope| {
        for (sink, format) in sinks {
            scope.spawn(move || promises_hold(sink, format));
        }
    });
}

/// Checks the promises P1, P6, P9, P10 and P16 with a log of this kind.
fn promises_hold(sink: Sink, format: &str) {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("recordings");
    let mut disk = Disk::new();
    let (setup, _reader) = sink.under(&home);
    let setup = setup.args(&["--log-format", format]).env("CALLREEL_LOG", "trace");
    let mut server = disk.under(setup, &home).start();

    // P1: audio that arrived is in the file.
    let peers: Vec<Peer> = (1..=25).map(|number| heard_call(&server, number)).collect();
    for peer in peers.into_iter().map(Peer::finish) {
        let recording = &shelf::finished(&home)[&peer.stream_id];
        assert_eq!(recording.state(), ("complete", "stop"), "{sink:?} {format}");
        assert!(recording.samples() == peer.pcm(), "{sink:?} {format}");
    }
    // P9: a bad call costs no other call.
    let mut victim = heard_call(&server, 30);
    let mut attacker = heard_call(&server, 31);
    let junk = frame(FIN | TEXT, b"{\"event\":\"junk\"}").repeat(2_000);
    attacker.send(&[&junk[..], &frame(FIN | 0x0B, b"no such opcode")].concat());
    assert_eq!(attacker.close_code(), Some(1002), "{sink:?} {format}");
    assert!(shelf::wait_for(&home, &attacker.stream_id).samples() == attacker.pcm());
    // P10: a disk that fails, and works again.
    disk.fail(&victim.stream_id, "write", 1..=u64::MAX, Errno::NOSPC);
    victim.say(SECOND);
    victim.sync();
    for path in ["/", "/readyz"] {
        let asked = Instant::now();
        assert!(path == "/readyz" || server.get(path) == 200, "{sink:?} {format}");
        assert!(path == "/" || server.ask_admin(path).0 > 0, "{sink:?} {format}");
        assert!(asked.elapsed() < 2 * SECOND, "{sink:?} {format}: {:?}", asked.elapsed());
    }
    for signal in [Signal::HUP, Signal::USR1] {
        server.signal(signal);
    }
    disk.heal();
    let victim = victim.finish();
    assert!(shelf::finished(&home)[&victim.stream_id].samples() == victim.pcm());
    // P16: every loss is in the record.
    disk.fail(&format!("{}.wav", stream_id(40)), "sync", 1..=1, Errno::IO);
    let hurt = heard_call(&server, 40).finish();
    assert_eq!(shelf::finished(&home)[&hurt.stream_id].word("state"), "partial");
    // P6: a server that is told to stop finishes every call.
    let running: Vec<Peer> = (50..53).map(|number| heard_call(&server, number)).collect();
    let (status, took) = server.stop();
    assert!(status.code() == Some(0) && took < STOP_MAX, "{sink:?} {format}: {status}, {took:?}");
    for peer in running {
        let recording = &shelf::finished(&home)[&peer.stream_id];
        assert_eq!(recording.word("end"), "shutdown", "{sink:?} {format}");
        assert!(recording.samples() == peer.pcm(), "{sink:?} {format}");
    }
    assert!(shelf::unfinished(&home).is_empty(), "{sink:?} {format}");
}

#[test]
fn a_log_on_the_disk_that_fills_goes_on_with_the_recordings_when_there_is_room() {
    let disk = SmallDisk::mount();
    let path = disk.dir().with_file_name("log");
    let setup = Setup::new(&disk.dir()).log_to(File::create(&path).unwrap(), Stdio::null());
    let setup = setup.args(&["--keep-free", "0", "--log-format", "json"]);
    let mut server = setup.start();
    let mut call = heard_call(&server, 1);
    disk.fill(0);
    // More lines than the rest of a page holds.
    let mut asked = (0, server.cpu());
    let dropped = eventually(PATIENCE, "lines are dropped", || {
        server.signal(Signal::HUP);
        asked.0 += 1;
        Some(server.metric("callreel_log_lines_dropped_total")).filter(|dropped| *dropped > 5.0)
    });
    let cpu = server.cpu() - asked.1;
    call.say(SECOND);
    disk.clear();
    let call = call.finish();
    let recording = &shelf::finished(&disk.dir())[&call.stream_id];
    assert_eq!(recording.state(), ("complete", "stop"), "{:?}", recording.record);
    assert!(recording.samples() == call.pcm());
    assert_eq!(server.stop().0.code(), Some(0));
    let log = fs::read_to_string(&path).unwrap();
    let told = dropped_lines_told(&log);
    assert!(told >= dropped, "{told} told, {dropped} dropped before, {cpu:?}, {} signals", asked.0);
    assert!(log.lines().last().unwrap().contains("finishing every call"), "{log}");
}

#[test]
fn a_log_that_is_read_again_tells_how_many_lines_were_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let (mut reader, writer) = full_pipe();
    let filter = dir.path().join("filter");
    // Each reload logs the long filter, so that the queue is soon full.
    fs::write(&filter, format!("info,{}=info", "m".repeat(15_000))).unwrap();
    let setup = Setup::new(&dir.path().join("recordings")).log_to(writer, Stdio::null());
    let setup = setup.args(&["--log-format", "json"]);
    let mut server = setup.env("CALLREEL_LOG", format!("@{}", filter.display())).start();
    let mut call = heard_call(&server, 1);
    let dropped = || server.metric("callreel_log_lines_dropped_total");
    eventually(PATIENCE, "lines are dropped", || {
        server.signal(Signal::HUP);
        Some(dropped()).filter(|dropped| *dropped > 10.0)
    });
    call.say(SECOND);
    let call = call.finish();
    let reading = std::thread::spawn(move || {
        let mut log = String::new();
        reader.read_to_string(&mut log).unwrap();
        log
    });
    // The last dropped line may be counted after the reading has begun.
    eventually(PATIENCE, "lines are taken again", || {
        let before = dropped();
        server.signal(Signal::USR1);
        std::thread::sleep(Duration::from_millis(20));
        (dropped() == before).then_some(())
    });
    let dropped = dropped();
    assert_eq!(server.stop().0.code(), Some(0));
    let log = reading.join().unwrap();
    assert_eq!(dropped_lines_told(&log), dropped);
    let last = log.lines().last().unwrap();
    assert!(last.contains("finishing every call"), "{last}");
    let recording = &shelf::finished(&dir.path().join("recordings"))[&call.stream_id];
    assert!(recording.samples() == call.pcm());
}

/// Number of dropped lines that a JSON log tells of in all. Each line must be whole, except one that a
/// full disk cut short.
fn dropped_lines_told(log: &str) -> f64 {
    let mut torn = 0;
    let mut told = 0.0;
    for line in log.lines().filter(|line| !line.is_empty()) {
        match serde_json::from_str::<Value>(line) {
            Ok(line) => told += line["fields"]["dropped"].as_f64().unwrap_or(0.0),
            Err(_) => torn += 1,
        }
    }
    assert!(torn <= 1, "{torn} lines are not whole: {log}");
    told
}

#[test]
fn a_stop_that_cannot_be_told_is_a_stop_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let _lock = Server::start(dir.path());
    for sink in [Sink::Hangs, Sink::Gone, Sink::Full] {
        let (setup, _reader) = sink.under(dir.path());
        let mut refused = setup.spawn();
        let began = Instant::now();
        assert_eq!(refused.wait(PATIENCE).code(), Some(1), "{sink:?}");
        assert!(began.elapsed() < 5 * SECOND, "{sink:?}: {:?}", began.elapsed());
    }
}

/// A demo of one short call, with its standard output sent to `stdout`.
fn demo(dir: &std::path::Path, stdout: impl Into<Stdio>, seconds: &str, more: &[&str]) -> Command {
    let mut command = Command::new(callreel());
    command.args(["demo", "--calls", "1", "--seconds", seconds, "--dir"]).arg(dir).args(more);
    command.env_clear().stdin(Stdio::null()).stdout(stdout).stderr(Stdio::null());
    command
}

#[test]
fn a_demo_records_whether_its_words_are_read_or_not() {
    let (hanging, full) = full_pipe();
    let (gone, closed) = std::io::pipe().unwrap();
    drop(gone);
    for stdout in [full, closed] {
        let dir = tempfile::tempdir().unwrap();
        let mut demo = demo(dir.path(), stdout, "1", &["--once"]);
        let began = Instant::now();
        let status = demo.status().unwrap();
        assert_eq!(status.code(), Some(0));
        assert!(began.elapsed() < 20 * SECOND, "{:?}", began.elapsed());
        let finished = shelf::finished(dir.path());
        let (_, recording) = finished.first_key_value().expect("a recording");
        assert_eq!(recording.state(), ("complete", "stop"));
    }
    drop(hanging);
}

#[test]
fn a_demo_that_is_ended_in_a_call_keeps_it() {
    for signal in [Signal::INT, Signal::HUP, Signal::TERM, Signal::QUIT] {
        let dir = tempfile::tempdir().unwrap();
        let mut demo = demo(dir.path(), Stdio::null(), "60", &[]).spawn().unwrap();
        let is_heard = || {
            let part = shelf::unfinished(dir.path());
            let is_wav = |path: &&std::path::PathBuf| path.to_string_lossy().ends_with(".wav.part");
            part.iter()
                .find(is_wav)
                .filter(|path| fs::metadata(path).unwrap().len() > 8_000)
                .cloned()
        };
        eventually(PATIENCE, "a call is recorded", is_heard);
        rustix::process::kill_process(rustix::process::Pid::from_child(&demo), signal).unwrap();
        let status = eventually(PATIENCE, "it ends", || demo.try_wait().unwrap());
        assert_eq!(status.code(), Some(0), "{signal:?}");
        assert!(shelf::unfinished(dir.path()).is_empty(), "{signal:?}");
        let finished = shelf::finished(dir.path());
        let (_, recording) = finished.first_key_value().expect("a recording");
        assert!(recording.samples().len() > 3_000, "{signal:?}: {:?}", recording.record);
    }
}
