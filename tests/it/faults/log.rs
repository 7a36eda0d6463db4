//! A log of plain values, and a log that nobody reads, that is closed, that hangs, or that is on a full disk: no recording suffers,
//! and every promise holds.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::fs::OFlags;
use rustix::process::Signal;
use serde_json::Value;

use super::{SECOND, heard_call, stream_id};
use crate::harness::disk::{Disk, Errno};
use crate::harness::peer::{FIN, Peer, TEXT, frame};
use crate::harness::process::{PATIENCE, PROMPT, Server, Setup, callreel, eventually};
use crate::harness::shelf;
use crate::harness::small_disk::SmallDisk;

/// Most time from SIGTERM to the end on a machine whose cores are all in use: calls to finish, and a
/// second for the log.
const STOP_MAX: Duration = Duration::from_secs(20);

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
        assert!(asked.elapsed() < PROMPT, "{sink:?} {format}: {:?}", asked.elapsed());
    }
    for signal in [Signal::HUP, Signal::USR2] {
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
        server.signal(Signal::USR2);
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
    let other = Server::start(dir.path());
    for sink in [Sink::Hangs, Sink::Gone, Sink::Full] {
        let (setup, _reader) = sink.under(dir.path());
        // A port that is in use.
        let mut refused = setup.env("CALLREEL_LISTEN", other.address.to_string()).spawn();
        let began = Instant::now();
        assert_eq!(refused.wait(PATIENCE).code(), Some(1), "{sink:?}");
        assert!(began.elapsed() < PROMPT, "{sink:?}: {:?}", began.elapsed());
    }
}

/// Makes a server log many kinds of events, and stops it.
fn make_events(setup: Setup, home: &std::path::Path) {
    let mut disk = Disk::new();
    let mut server = disk.under(setup, home).start();
    let call = heard_call(&server, 1);
    let mut victim = heard_call(&server, 2);
    disk.fail(&victim.stream_id, "write", 1..=u64::MAX, Errno::NOSPC);
    victim.say(SECOND);
    victim.sync();
    // Refused requests, with and without a user agent, and messages without a start.
    server.get("/nothing?secret=1");
    server.ask("GET /media-stream HTTP/1.1\r\nHost: a\r\nUser-Agent: my \"agent\"\r\n\r\n");
    server.ask("\u{16}\u{3}\u{1}");
    let mut lost = Peer::connect(&server, "MZlost");
    lost.text("{\"event\":\"media\"}");
    lost.stop();
    let mut odd = Peer::connect(&server, "MZ odd \u{202e} id");
    odd.start(&[("number", "1")]);
    odd.text("{\"event\":\"junk\"");
    odd.say(SECOND);
    server.ask_admin("/api/v1/events?kind=x");
    server.begin_to_ask_admin("/api/v1/recordings/2026-01-01/MZ1/audio");
    for signal in [Signal::HUP, Signal::USR2] {
        server.signal(signal);
    }
    disk.heal();
    victim.finish();
    call.finish();
    drop(odd);
    let left = heard_call(&server, 4);
    let is_heard = || fs::metadata(shelf::unfinished(home).first()?).ok();
    eventually(PATIENCE, "a file is begun", is_heard);
    assert_eq!(server.stop().0.code(), Some(0));
    drop(left);
}

#[test]
fn each_value_of_the_json_log_is_plain() {
    let dir = tempfile::tempdir().unwrap();
    // A name that its `Debug` would show otherwise.
    let home = dir.path().join("a \"home\"");
    let path = dir.path().join("log");
    for _ in 0..2 {
        let log = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        let setup = Setup::new(&home).log_to(log, Stdio::null()).args(&["--log-format", "json"]);
        make_events(setup.env("CALLREEL_LOG", "debug"), &home);
    }
    let log = fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut calls = 0;
    for line in &lines {
        let mut names: Vec<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
        names.retain(|name| *name != "span");
        names.sort_unstable();
        assert_eq!(names, ["fields", "level", "target", "timestamp"], "{line}");
        assert!(line["fields"]["message"].is_string(), "{line}");
        let time = line["timestamp"].as_str().unwrap();
        assert!(time.ends_with('Z') && time.parse::<Timestamp>().is_ok(), "{time}");
        let span = line["span"].as_object();
        let fields = line["fields"].as_object().unwrap();
        for (name, value) in span.into_iter().flatten().chain(fields) {
            assert!(value.is_number() || value.is_boolean() || value.is_string(), "{name}: {line}");
            let text = value.as_str().unwrap_or_default();
            let is_plain = !text.starts_with('"') && !text.contains("Some(");
            assert!(is_plain, "{name}: {line}");
        }
        if line["fields"]["message"] == "recording began" {
            let span = span.expect("the call's ids");
            let ids = ["stream", "call"].map(|name| span[name].as_str().unwrap());
            assert_eq!(ids[1], format!("CA{}", ids[0]));
            assert_eq!((&span["name"], &span["provider"]), (&"call".into(), &"twilio".into()));
            calls += 1;
        }
    }
    assert!(calls >= 6, "{calls} calls: {log}");
    let kinds: std::collections::BTreeSet<&str> =
        lines.iter().map(|line| line["fields"]["message"].as_str().unwrap()).collect();
    assert!(kinds.len() >= 12, "{kinds:#?}");
    let listening = lines.iter().find(|line| line["fields"]["message"] == "listening").unwrap();
    assert_eq!(listening["fields"]["dir"].as_str(), home.to_str());
}

#[test]
fn journald_gets_the_priorities_of_the_text_and_others_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("recordings");
    let levels = [("<3>", "ERROR"), ("<4>", "WARN"), ("<6>", "INFO"), ("<7>", "DEBUG")];
    for (format, is_journal) in [("human", true), ("human", false), ("json", true)] {
        let path = dir.path().join(format!("log-{format}-{is_journal}"));
        let file = File::create(&path).unwrap();
        let metadata = file.metadata().unwrap();
        let inode = metadata.ino() + u64::from(!is_journal);
        let setup = Setup::new(&home).log_to(file, Stdio::null()).args(&["--log-format", format]);
        let setup = setup.env("JOURNAL_STREAM", format!("{}:{inode}", metadata.dev()));
        make_events(setup.env("CALLREEL_LOG", "debug"), &home);
        let log = fs::read_to_string(&path).unwrap();
        let mut seen = 0;
        for line in log.lines() {
            let level = levels.iter().position(|(_, level)| line.contains(level));
            let prefix = levels.iter().position(|(prefix, _)| line.starts_with(prefix));
            let expected = level.filter(|_| is_journal && format == "human");
            assert_eq!(prefix, expected, "{format} {is_journal}: {line}");
            seen |= 1 << level.expect("a level");
        }
        assert_eq!(seen, 0b1111, "{format}: {log}");
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
