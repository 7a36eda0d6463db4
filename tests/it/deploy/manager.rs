//! The messages to the service manager.

use std::os::unix::net::UnixDatagram;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{SECOND, heard_call};
use crate::harness::disk::Disk;
use crate::harness::process::{PATIENCE, Setup};

/// Starts callreel with a watchdog of its process.
const WATCHED: [&str; 3] = ["sh", "-c", r#"export WATCHDOG_PID=$$; exec "$0" "$@""#];

#[test]
fn the_watchdog_is_fed_while_all_threads_go_on_and_a_drain_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    // Read all the time, as systemd does: a full socket would hold the messages up.
    let (sender, received) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 256];
        while let Ok(length) = socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if sender.send((Instant::now(), text)).is_err() {
                return;
            }
        }
    });
    let next = || received.recv_timeout(PATIENCE).expect("a message in time");
    let home = dir.path().join("rec");
    let mut disk = Disk::new();
    let setup = Setup::through(&WATCHED, &home).env("NOTIFY_SOCKET", &path);
    let setup = disk.under(setup.env("WATCHDOG_USEC", "400000"), &home);
    let mut server = setup.start();
    let first = [next().1, next().1, next().1].concat();
    assert!(first.contains("READY=1\n") && first.matches("WATCHDOG=1\n").count() == 2, "{first}");
    disk.delay("MZ1.wav.part", "write", 2..=2, 8000);
    let peer = heard_call(&server, "MZ1");
    server.wait_for_log("the watchdog of the service manager gets no sign of life");
    // The silence lasts as long as the writer stands still, more than a second.
    let (mut last, mut silence) = (next().0, Duration::ZERO);
    while silence < SECOND {
        let (at, text) = next();
        assert_eq!(text, "WATCHDOG=1\n");
        (last, silence) = (at, at - last);
    }
    server.signal(Signal::USR1);
    let mut told = String::new();
    while !told.contains("STATUS=") {
        told += &next().1;
    }
    assert!(told.contains("STOPPING=1\n"), "{told}");
    assert!(told.contains("STATUS=draining, 1 calls left\n"), "{told}");
    assert!(told.contains("EXTEND_TIMEOUT_USEC=30000000\n"), "{told}");
    while next().1 != "WATCHDOG=1\n" {}
    peer.finish();
    assert_eq!(server.wait(PATIENCE).code(), Some(0));
}
