//! A server that sends a flood of pings and does not read.

use std::io::Write;
use std::net::TcpListener;
use std::process::Command;

use tungstenite::Message;
use tungstenite::protocol::CloseFrame;

use crate::harness::process::callreel;

#[test]
fn a_flood_of_pings_that_nobody_reads_the_pongs_of_takes_no_memory() {
    const PINGS: u32 = 80_000;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // A small receive buffer: the system holds few of the pongs.
    rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 64 << 10).unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let mut child = Command::new(callreel())
        .args(["call", "--duration", "200ms", "--patience", "60s", "--url", &url])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut ws = tungstenite::accept(listener.accept().unwrap().0).unwrap();
    let peak_kib = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let before_kib = peak_kib();
    // FIN and the opcode of a ping, its length, its payload.
    let ping = |number: u32| [&[0x89, 125], &number.to_be_bytes()[..], &[b'p'; 121]].concat();
    for first in (0..PINGS).step_by(500) {
        let pings: Vec<u8> = (first..first + 500).flat_map(ping).collect();
        ws.get_mut().write_all(&pings).unwrap();
    }
    let more_kib = peak_kib() - before_kib;
    assert!(more_kib < 3 << 10, "{more_kib} KiB");
    // Every message is whole, and the last ping has its pong.
    let (mut texts, mut last, mut is_over) = (0, None, false);
    while !is_over || last != Some(PINGS - 1) {
        match ws.read().unwrap() {
            Message::Text(text) => {
                texts += 1;
                is_over |= text.contains("\"event\":\"stop\"");
            }
            Message::Pong(payload) => {
                last = Some(u32::from_be_bytes(payload[..4].try_into().unwrap()))
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(texts, 2 + 10 + 1, "connected, start, 200 ms, stop");
    let done = CloseFrame { code: 1000.into(), reason: "".into() };
    ws.close(Some(done)).unwrap();
    while ws.read().is_ok() {}
    drop(ws); // The client waits for the server to end the connection.
    assert!(child.wait().unwrap().success());
}
