//! A tap on a connection: it passes each byte on, and keeps those of both directions.

use std::io::{Cursor, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use base64::prelude::*;

use super::client::{BINARY, CLOSE};
use super::process::PATIENCE;
use super::relayed::{Frame, read_head};

/// A listener in front of a server of WebSockets, for one connection.
pub(crate) struct Tap {
    pub address: SocketAddr,
    kept: [Receiver<Vec<u8>>; 2],
}

/// One direction of a connection.
pub(crate) struct Passed {
    /// The head of the request, or of the answer.
    pub head: String,
    /// All frames, to the last whole one.
    pub frames: Vec<Frame>,
}

/// Both directions of a connection.
pub(crate) struct Tapped {
    pub to_server: Passed,
    pub to_client: Passed,
}

impl Tap {
    /// A tap in front of the server at this address.
    pub(crate) fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().unwrap();
        let (sender, to_server) = channel();
        let (other_sender, to_client) = channel();
        thread::spawn(move || {
            let (client, _) = listener.accept().expect("a connection");
            let server = TcpStream::connect(server).expect("the server listens");
            let ways = [(&client, &server, sender), (&server, &client, other_sender)];
            for (from, to, kept) in ways {
                let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                to.set_nodelay(true).unwrap();
                thread::spawn(move || {
                    let _ = kept.send(pass(from, to));
                });
            }
        });
        Self { address, kept: [to_server, to_client] }
    }

    /// All that has passed, once the connection is over.
    pub(crate) fn end(self) -> Tapped {
        let [to_server, to_client] = self
            .kept
            .map(|kept| Passed::of(kept.recv_timeout(PATIENCE).expect("the connection ends")));
        Tapped { to_server, to_client }
    }
}

/// Passes on all bytes and the end of the stream; returns the bytes.
fn pass(mut from: TcpStream, mut to: TcpStream) -> Vec<u8> {
    let (mut kept, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        kept.extend(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    kept
}

impl Passed {
    fn of(bytes: Vec<u8>) -> Self {
        let mut bytes = Cursor::new(bytes);
        let head = read_head(&mut bytes);
        Self { head, frames: std::iter::from_fn(|| Frame::read(&mut bytes)).collect() }
    }

    /// The messages, each as its bytes on the wire.
    pub(crate) fn messages(&self) -> impl Iterator<Item = &Frame> {
        self.frames.iter().filter(|frame| frame.opcode() < CLOSE)
    }

    /// The messages as text, those in binary in base64.
    pub(crate) fn texts(&self) -> Vec<String> {
        let text = |frame: &Frame| match frame.opcode() {
            BINARY => BASE64_STANDARD.encode(&frame.payload),
            _ => String::from_utf8(frame.payload.clone()).expect("UTF-8"),
        };
        self.messages().map(text).collect()
    }
}
