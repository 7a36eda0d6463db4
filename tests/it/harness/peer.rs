//! The peer of a stream, made of raw bytes, so that it can end, break and lie in every way.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use base64::prelude::*;
use callreel_core::g711;
use rustix::net::sockopt;

pub(crate) use super::client::{CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, frame};
use super::line::Line;
use super::process::Server;

/// The example of RFC 6455, section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A stream with one inbound track. It remembers the audio it has sent.
pub(crate) struct Peer {
    pub socket: Line,
    pub stream_id: String,
    sequence: u64,
    /// Every mu-law code sent.
    pub codes: Vec<u8>,
}

impl Peer {
    /// Does the handshake, and sends nothing.
    pub(crate) fn connect(server: &Server, stream_id: &str) -> Self {
        Self::try_connect(server, stream_id, "").unwrap_or_else(|status| panic!("{status}"))
    }

    /// Does the handshake with further headers; the error is a status other than 101.
    pub(crate) fn try_connect(
        server: &Server,
        stream_id: &str,
        headers: &str,
    ) -> Result<Self, u16> {
        Self::upgrade(server.connect(), stream_id, headers)
    }

    /// Does the handshake on an open connection.
    pub(crate) fn upgrade(mut socket: Line, stream_id: &str, headers: &str) -> Result<Self, u16> {
        let request = format!(
            "GET /media-stream HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{headers}\r\n"
        );
        socket.write_all(request.as_bytes()).expect("the handshake is sent");
        Self::upgraded(socket, stream_id)
    }

    /// Reads the answer to a handshake that was sent.
    pub(crate) fn upgraded(mut socket: Line, stream_id: &str) -> Result<Self, u16> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).expect("the handshake is answered");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("ASCII");
        match head.get(9..12) {
            Some("101") => {
                let stream_id = stream_id.to_owned();
                Ok(Self { socket, stream_id, sequence: 0, codes: Vec::new() })
            }
            status => Err(status.and_then(|s| s.parse().ok()).expect("a status")),
        }
    }

    /// Connects and starts a stream.
    pub(crate) fn call(server: &Server, stream_id: &str) -> Self {
        let mut peer = Self::connect(server, stream_id);
        peer.start(&[]);
        peer
    }

    /// Sends the messages that a stream begins with.
    pub(crate) fn start(&mut self, parameters: &[(&str, &str)]) {
        self.text(r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#);
        let start = self.start_message(parameters);
        self.text(&start);
    }

    pub(crate) fn start_message(&mut self, parameters: &[(&str, &str)]) -> String {
        self.sequence += 1;
        let parameters: serde_json::Map<_, _> =
            parameters.iter().map(|(name, value)| (name.to_string(), (*value).into())).collect();
        let parameters = serde_json::Value::from(parameters);
        let (sequence, id) = (self.sequence, &self.stream_id);
        format!(
            r#"{{"event":"start","sequenceNumber":"{sequence}","start":{{"accountSid":"AC1","streamSid":"{id}","callSid":"CA{id}","tracks":["inbound"],"mediaFormat":{{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}},"customParameters":{parameters}}},"streamSid":"{id}"}}"#
        )
    }

    /// Sends audio of this duration at once, in frames of 20 ms, each unlike the others.
    pub(crate) fn say(&mut self, duration: Duration) {
        let mut bytes = Vec::new();
        for _ in 0..duration.as_millis() / 20 {
            bytes.extend(frame(FIN | TEXT, self.next_media().as_bytes()));
        }
        self.send(&bytes);
    }

    /// The next media message, remembered as sent.
    pub(crate) fn next_media(&mut self) -> String {
        let chunk = self.codes.len() as u64 / 160;
        let codes = chunk_codes(&self.stream_id, chunk);
        self.codes.extend(&codes);
        self.sequence += 1;
        let (sequence, id, payload) =
            (self.sequence, &self.stream_id, BASE64_STANDARD.encode(codes));
        format!(
            r#"{{"event":"media","sequenceNumber":"{sequence}","media":{{"track":"inbound","chunk":"{}","timestamp":"{}","payload":"{payload}"}},"streamSid":"{id}"}}"#,
            chunk + 1,
            chunk * 20,
        )
    }

    /// Sends audio of this duration as fast as the server takes it, in messages of eight seconds. Each
    /// message has the audio of the fifth one after it.
    pub(crate) fn flood(&mut self, duration: Duration) {
        const CHUNKS: usize = 400;
        let made: Vec<(Vec<u8>, String)> = (0..5)
            .map(|n| {
                let chunks = n * CHUNKS..(n + 1) * CHUNKS;
                let codes: Vec<u8> =
                    chunks.flat_map(|chunk| chunk_codes(&self.stream_id, chunk as u64)).collect();
                let payload = BASE64_STANDARD.encode(&codes);
                (codes, payload)
            })
            .collect();
        for (codes, payload) in made.iter().cycle().take(duration.as_secs() as usize / 8) {
            self.sequence += 1;
            let (sequence, id, at_ms) = (self.sequence, &self.stream_id, self.codes.len() / 8);
            let message = format!(
                r#"{{"event":"media","sequenceNumber":"{sequence}","media":{{"track":"inbound","timestamp":"{at_ms}","payload":"{payload}"}},"streamSid":"{id}"}}"#
            );
            self.codes.extend(codes);
            self.text(&message);
        }
    }

    /// The next media message, not remembered as sent: it will not arrive whole.
    pub(crate) fn lost_media(&mut self) -> String {
        let known = self.codes.len();
        let message = self.next_media();
        self.codes.truncate(known);
        message
    }

    pub(crate) fn stop(&mut self) {
        self.sequence += 1;
        let (sequence, id) = (self.sequence, &self.stream_id);
        let stop = format!(
            r#"{{"event":"stop","sequenceNumber":"{sequence}","streamSid":"{id}","stop":{{"accountSid":"AC1","callSid":"CA{id}"}}}}"#
        );
        self.text(&stop);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.send(&frame(FIN | TEXT, text.as_bytes()));
    }

    pub(crate) fn close(&mut self, code: u16) {
        self.send(&frame(FIN | CLOSE, &code.to_be_bytes()));
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the server reads");
    }

    /// Waits until the server has read all that was sent.
    pub(crate) fn sync(&mut self) {
        let ping = frame(FIN | PING, &(self.codes.len() as u32).to_be_bytes());
        self.send(&ping);
        loop {
            match self.receive() {
                Some((PONG, payload)) if payload == ping_payload(self.codes.len()) => return,
                Some((PING | PONG, _)) => {}
                other => panic!("no pong but {other:?}"),
            }
        }
    }

    /// The next frame of the server: opcode and payload; `None` at the end of the connection.
    pub(crate) fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 2];
        self.socket.read_exact(&mut header).ok()?;
        assert!(header[0] & 0xF0 == FIN && header[1] < 126, "a frame that callreel never sends");
        let mut payload = vec![0; usize::from(header[1])];
        self.socket.read_exact(&mut payload).ok()?;
        Some((header[0] & 0x0F, payload))
    }

    /// Reads to the server's close frame; returns its code, `None` if the connection ends without one.
    pub(crate) fn close_code(&mut self) -> Option<u16> {
        loop {
            match self.receive()? {
                (CLOSE, payload) => {
                    return payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                }
                (PING | PONG, _) => {}
                other => panic!("not a recorder's frame: {other:?}"),
            }
        }
    }

    /// Stops, and waits for the close frame, which means that all audio is on the disk.
    pub(crate) fn finish(mut self) -> Self {
        self.stop();
        assert_eq!(self.close_code(), Some(1000));
        self
    }

    /// Ends the sending side.
    pub(crate) fn fin(&mut self) {
        self.socket.end().expect("the socket is open");
    }

    /// Ends the connection by a reset.
    pub(crate) fn reset(self) -> Vec<i16> {
        let pcm = self.pcm();
        sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO)).expect("a TCP socket");
        drop(self.socket);
        pcm
    }

    /// The samples of a perfect recording of this stream.
    pub(crate) fn pcm(&self) -> Vec<i16> {
        pcm(&self.codes)
    }
}

/// The samples of mu-law codes.
pub(crate) fn pcm(codes: &[u8]) -> Vec<i16> {
    codes.iter().map(|code| g711::decode_mulaw(*code)).collect()
}

/// The audio of one chunk, different for each stream and each chunk.
pub(crate) fn chunk_codes(stream_id: &str, chunk: u64) -> [u8; 160] {
    let seed = stream_id.bytes().fold(chunk, |seed, byte| seed.wrapping_mul(131) + u64::from(byte));
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    std::array::from_fn(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
}

fn ping_payload(count: usize) -> [u8; 4] {
    (count as u32).to_be_bytes()
}
