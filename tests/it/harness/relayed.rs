//! A voice bot by hand, behind a relay: its listener, the requests that reach it, and every byte of a
//! connection.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::prelude::*;
use callreel_core::ws::accept_key;
use rustix::net::sockopt;
use serde_json::Value;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::client::{CLOSE, FIN, PING, PONG, TEXT};
use super::disk::Disk;
use super::line::{Line, Target};
use super::peer::Peer;
use super::process::{PATIENCE, Server, Setup, eventually};
use super::shelf::{self, FINISH_MAX};

/// A connection, with TLS or without.
trait Channel: Read + Write + Send + Sync {}

impl<T: Read + Write + Send + Sync> Channel for T {}

/// The listener of a bot.
pub(crate) struct BotHouse {
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
}

impl BotHouse {
    pub(crate) fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        listener.set_nonblocking(true).unwrap();
        Self { listener, tls: None }
    }

    /// A house whose door speaks TLS.
    pub(crate) fn with_tls(tls: Arc<ServerConfig>) -> Self {
        Self { tls: Some(tls), ..Self::open() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// The address for `--relay`.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "wss" } else { "ws" };
        format!("{scheme}://{}", self.address())
    }

    /// Waits for a connection without a byte so far.
    pub(crate) fn accept_tcp(&self) -> TcpStream {
        let (tcp, _) = eventually(PATIENCE, "a call for the bot", || self.listener.accept().ok());
        tcp.set_nonblocking(false).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.set_write_timeout(Some(PATIENCE)).unwrap();
        tcp.set_nodelay(true).unwrap();
        tcp
    }

    /// Whether a connection waits that nobody has accepted; it is closed.
    pub(crate) fn is_called(&self) -> bool {
        self.listener.accept().is_ok()
    }

    /// Waits for a request.
    pub(crate) fn accept(&self) -> Asked {
        let tcp = self.accept_tcp();
        let socket = tcp.try_clone().unwrap();
        let mut channel: Box<dyn Channel> = match &self.tls {
            None => Box::new(socket),
            Some(tls) => {
                let tls = ServerConnection::new(Arc::clone(tls)).unwrap();
                Box::new(StreamOwned::new(tls, socket))
            }
        };
        let head = read_head(&mut channel);
        Asked { channel, tcp, head }
    }
}

/// Reads the head of a request or of an answer.
pub(crate) fn read_head(channel: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        channel.read_exact(&mut byte).expect("a whole head");
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("ASCII")
}

/// A request that reached the bot, not answered yet.
pub(crate) struct Asked {
    channel: Box<dyn Channel>,
    tcp: TcpStream,
    pub head: String,
}

impl Asked {
    /// The values of all headers of this name.
    pub(crate) fn headers(&self, name: &str) -> Vec<&str> {
        let headers = self.head.lines().filter_map(|line| line.split_once(": "));
        headers
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }

    /// The value of the only header of this name.
    pub(crate) fn header(&self, name: &str) -> &str {
        match self.headers(name)[..] {
            [value] => value,
            _ => panic!("not one {name} in {}", self.head),
        }
    }

    /// Reads the body of the request.
    pub(crate) fn body(&mut self) -> Vec<u8> {
        let mut body = vec![0; self.header("content-length").parse().unwrap()];
        self.channel.read_exact(&mut body).expect("the whole body");
        body
    }

    /// Reads to the end of the connection, and answers nothing.
    pub(crate) fn rest(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.channel.read_to_end(&mut rest).expect("the end of the connection");
        rest
    }

    /// Answers with these bytes, and ends the connection.
    pub(crate) fn answer(mut self, bytes: &[u8]) {
        self.channel.write_all(bytes).expect("the relay reads");
        let _ = self.tcp.shutdown(Shutdown::Write);
    }

    /// Takes the call.
    pub(crate) fn take(self) -> Bot {
        self.take_with("", b"")
    }

    /// Takes the call with further headers, and with `first` in the same write.
    pub(crate) fn take_with(mut self, headers: &str, first: &[u8]) -> Bot {
        let accept = accept_key(self.header("sec-websocket-key").as_bytes()).expect("a key");
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{headers}\r\n"
        );
        self.channel.write_all(&[answer.as_bytes(), first].concat()).expect("the relay reads");
        Bot { channel: self.channel, tcp: self.tcp }
    }
}

/// A bot in a call.
pub(crate) struct Bot {
    channel: Box<dyn Channel>,
    tcp: TcpStream,
}

impl Bot {
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.channel.write_all(bytes).expect("the relay reads");
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.send(&frame(FIN | TEXT, text.as_bytes()));
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) fn receive(&mut self) -> Option<Frame> {
        Frame::read(&mut self.channel)
    }

    /// The next text message.
    pub(crate) fn heard(&mut self) -> String {
        heard(&mut self.channel)
    }

    /// Reads to the relay's close frame; returns its code, `None` if the connection ends without one.
    pub(crate) fn close_code(&mut self) -> Option<u16> {
        close_code(&mut self.channel)
    }

    pub(crate) fn read_exact(&mut self, room: &mut [u8]) {
        self.channel.read_exact(room).expect("the relay sends");
    }

    /// A second handle of a connection without TLS, for a thread of its own.
    pub(crate) fn socket(&self) -> TcpStream {
        self.tcp.try_clone().unwrap()
    }

    /// Ends the sending side without a word.
    pub(crate) fn fin(&mut self) {
        self.tcp.shutdown(Shutdown::Write).expect("the socket is open");
    }

    /// Ends the connection by a reset.
    pub(crate) fn reset(self) {
        sockopt::set_socket_linger(&self.tcp, Some(Duration::ZERO)).expect("a TCP socket");
    }
}

/// A frame as a server sends it, its length in the shortest form.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(length as u8),
        length @ 126..=0xFFFF => {
            bytes.push(126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(payload);
    bytes
}

/// A media message of a bot with these mu-law codes.
pub(crate) fn media(codes: &[u8]) -> String {
    let payload = BASE64_STANDARD.encode(codes);
    format!(r#"{{"event": "media", "streamSid": "MZ1", "media": {{"payload": "{payload}"}}}}"#)
}

/// A frame as it came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Frame {
    pub raw: Vec<u8>,
    /// Without its mask.
    pub payload: Vec<u8>,
    pub is_masked: bool,
}

impl Frame {
    /// Reads a frame; `None` at the end of the connection.
    pub(crate) fn read(channel: &mut impl Read) -> Option<Self> {
        let mut raw = vec![0; 2];
        channel.read_exact(&mut raw).ok()?;
        let more = |raw: &mut Vec<u8>, count: usize, channel: &mut dyn Read| {
            let end = raw.len();
            raw.resize(end + count, 0);
            channel.read_exact(&mut raw[end..]).ok()
        };
        let (is_masked, short) = (raw[1] & 0x80 != 0, raw[1] & 0x7F);
        let length_bytes = [0, 2, 8][usize::from(short >= 126) + usize::from(short == 127)];
        more(&mut raw, length_bytes, channel)?;
        let long = raw[2..].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        let length = if short < 126 { usize::from(short) } else { long };
        let mask_at = raw.len();
        more(&mut raw, if is_masked { 4 } else { 0 }, channel)?;
        let mask = raw[mask_at..].to_vec();
        let start = raw.len();
        more(&mut raw, length, channel)?;
        let mut payload = raw[start..].to_vec();
        for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= key;
        }
        Some(Self { raw, payload, is_masked })
    }

    pub(crate) fn opcode(&self) -> u8 {
        self.raw[0] & 0x0F
    }
}

/// The next frame that is no ping and no pong.
pub(crate) fn message(channel: &mut impl Read) -> Frame {
    loop {
        let frame = Frame::read(channel).expect("a message");
        if !matches!(frame.opcode(), PING | PONG) {
            return frame;
        }
    }
}

/// The next text message.
pub(crate) fn heard(channel: &mut impl Read) -> String {
    let frame = message(channel);
    assert_eq!(frame.opcode(), TEXT);
    String::from_utf8(frame.payload).expect("UTF-8")
}

/// Reads to a close frame; returns its code, `None` if the connection ends without one. Messages are passed
/// over.
pub(crate) fn close_code(channel: &mut impl Read) -> Option<u16> {
    loop {
        let frame = Frame::read(channel)?;
        if frame.opcode() == CLOSE {
            return frame.payload.first_chunk().map(|code| u16::from_be_bytes(*code));
        }
    }
}

/// A relaying server, the house of its bot, and a directory of recordings.
pub(crate) struct Relayed {
    pub server: Server,
    pub house: BotHouse,
    pub dir: tempfile::TempDir,
}

impl Relayed {
    pub(crate) fn start() -> Self {
        Self::with(|setup| setup)
    }

    /// A server whose start is changed by `change`.
    pub(crate) fn with(change: impl FnOnce(Setup) -> Setup) -> Self {
        let (house, dir) = (BotHouse::open(), tempfile::tempdir().unwrap());
        let setup = Setup::new(dir.path()).args(&["--relay", &house.url()]);
        Self { server: change(setup).start(), house, dir }
    }

    /// A server with a disk between it and its recordings.
    pub(crate) fn with_disk(disk: &Disk) -> Self {
        let (house, dir) = (BotHouse::open(), tempfile::tempdir().unwrap());
        let setup = disk.under(Setup::new(dir.path()), dir.path());
        Self { server: setup.args(&["--relay", &house.url()]).start(), house, dir }
    }

    /// A server that records into this directory.
    pub(crate) fn into(recordings: &Path) -> Self {
        let (house, dir) = (BotHouse::open(), tempfile::tempdir().unwrap());
        let server = Setup::new(recordings).args(&["--relay", &house.url()]).start();
        Self { server, house, dir }
    }

    /// Sends a handshake of a provider; it is not answered before the bot has answered.
    pub(crate) fn dial(&self, path: &str, headers: &str) -> Line {
        dial(self.server.target(), path, headers, b"")
    }

    /// A call that the bot has taken.
    pub(crate) fn call(&self, stream_id: &str) -> (Peer, Bot) {
        let line = self.dial("/media-stream", "");
        let bot = self.house.accept().take();
        (Peer::upgraded(line, stream_id).unwrap_or_else(|status| panic!("{status}")), bot)
    }

    /// A call whose stream has started; the bot has got the messages of that.
    pub(crate) fn started(&self, stream_id: &str) -> (Peer, Bot) {
        let (mut peer, mut bot) = self.call(stream_id);
        peer.start(&[]);
        assert!(bot.heard().contains("connected") && bot.heard().contains("start"));
        (peer, bot)
    }

    /// Waits for a finished recording of two tracks.
    pub(crate) fn recorded(&self, stream_id: &str) -> Both {
        Both::wait_for(self.dir.path(), stream_id)
    }

    /// Waits for the record of the only call, of which there is no file.
    pub(crate) fn failed(&self) -> Value {
        let only = || shelf::finished(self.dir.path()).into_values().next();
        let finished = eventually(FINISH_MAX, "a record", only);
        assert!(finished.samples.is_none(), "{}", finished.record);
        finished.record
    }
}

/// Sends a handshake of a provider, with `first` in the same write.
pub(crate) fn dial(target: Target, path: &str, headers: &str, first: &[u8]) -> Line {
    let mut line = target.connect().expect("the server listens");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: calls.example.com\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    );
    line.write_all(&[request.as_bytes(), first].concat()).expect("the handshake is sent");
    line
}

/// A finished recording of the caller and the bot.
pub(crate) struct Both {
    pub record: Value,
    /// The caller.
    pub left: Vec<i16>,
    /// The bot.
    pub right: Vec<i16>,
}

impl Both {
    pub(crate) fn wait_for(dir: &Path, id: &str) -> Self {
        let ends_with = |path: &Path, name: &str| path.file_name().is_some_and(|own| own == name);
        let wav = eventually(FINISH_MAX, id, || {
            let mut files = shelf::files(dir).into_iter();
            files.find(|path| ends_with(path, &format!("{id}.wav")))
        });
        let record = std::fs::read(wav.with_extension("json")).expect("the record comes first");
        let record: Value = serde_json::from_slice(&record).expect("JSON");
        let mut reader = hound::WavReader::open(&wav).expect("hound reads the header");
        let spec = reader.spec();
        assert_eq!((spec.channels, spec.sample_rate, spec.bits_per_sample), (2, 8000, 16));
        let samples: Vec<i16> = reader.samples().map(Result::unwrap).collect();
        let channel = |at: usize| samples.iter().skip(at).step_by(2).copied().collect();
        let both = Self { left: channel(0), right: channel(1), record };
        assert_eq!(both.record["samples"], both.left.len());
        both
    }

    /// The fields `state` and `end` of the record.
    pub(crate) fn state(&self) -> (&str, &str) {
        let word = |field: &str| self.record[field].as_str().unwrap_or_default();
        (word("state"), word("end"))
    }
}
