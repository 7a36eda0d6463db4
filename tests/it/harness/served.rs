//! The server in this process, as a recorder of messages and as a place to call.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use callreel::{Config, engine, store};
use serde_json::Value;

use super::client;
use super::recorder::Recorder;
use super::serving::Serving;

const HANDSHAKE: &str = "GET /media-stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A running server with a directory of its own.
pub(crate) struct Served {
    serving: Serving,
    dir: tempfile::TempDir,
}

impl Served {
    pub(crate) fn start(engine: engine::Config) -> Self {
        Self::start_by(Serving::start, engine)
    }

    /// A server that speaks no TLS in any run: for callers that know no certificate.
    pub(crate) fn start_plain(engine: engine::Config) -> Self {
        Self::start_by(Serving::start_plain, engine)
    }

    fn start_by(serve: fn(Config) -> Serving, engine: engine::Config) -> Self {
        // In memory if the system has /dev/shm: these tests are not about the disk.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let store = store::Config { dir: dir.path().to_owned(), ..store::Config::default() };
        let config = Config { engine, store, ..Config::default() };
        Self { serving: serve(config), dir }
    }

    /// URL for streams.
    pub(crate) fn url(&self) -> String {
        self.serving.target().url("ws", "/media-stream")
    }

    /// The end records of all finished recordings with their paths, in the order of their starts.
    pub(crate) fn records(&self) -> Vec<(PathBuf, Value)> {
        self.records_but(&BTreeSet::new())
    }

    /// The end records without the known ones, which are not read: there may be thousands.
    fn records_but(&self, known: &BTreeSet<PathBuf>) -> Vec<(PathBuf, Value)> {
        let new = self.paths().filter(|path| !known.contains(path));
        let mut records: Vec<_> = new
            .map(|path| {
                let record = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
                (path, record)
            })
            .collect();
        let started = |record: &Value| record["started_at"].as_str().unwrap().to_owned();
        records.sort_by_key(|(path, record)| (started(record), path.clone()));
        records
    }

    fn paths(&self) -> impl Iterator<Item = PathBuf> {
        let days = fs::read_dir(self.dir.path()).unwrap().map(|day| day.unwrap().path());
        days.filter(|day| day.is_dir())
            .flat_map(|day| fs::read_dir(day).unwrap().map(|file| file.unwrap().path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
    }

    /// Sends messages on one connection and closes it; returns the new end records.
    pub(crate) fn send(&self, messages: &[Vec<u8>]) -> Vec<(PathBuf, Value)> {
        let known = self.paths().collect();
        let mut socket = self.serving.connect();
        socket.write_all(HANDSHAKE.as_bytes()).unwrap();
        let mut bytes: Vec<u8> = messages.iter().flat_map(client::message).collect();
        bytes.extend(client::frame(client::FIN | client::CLOSE, &1000u16.to_be_bytes()));
        // The server may close before it has read all: after a stop it ignores the rest.
        let _ = socket.write_all(&bytes);
        // The server closes when the recordings are finished.
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
        self.records_but(&known)
    }
}

impl Served {
    /// Sends messages in one write with the handshake, and ends the stream after the server's answer.
    /// Returns when the server has closed the connection.
    pub(crate) fn send_with_the_handshake(&self, messages: &[String]) {
        let mut socket = self.serving.connect();
        let messages = messages.iter().flat_map(client::text);
        let bytes: Vec<u8> = HANDSHAKE.bytes().chain(messages).collect();
        socket.write_all(&bytes).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            answer.extend(byte);
        }
        socket.end().unwrap();
        let _ = socket.read_to_end(&mut answer);
    }
}

impl Recorder for Served {
    fn record(&self, messages: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let paths = self.send(messages).into_iter().map(|(path, _)| path.with_extension("wav"));
        paths.filter_map(|path| fs::read(path).ok()).collect()
    }
}

/// Settings that read at once, for tests that are not about the pace.
pub(crate) fn at_once() -> engine::Config {
    engine::Config { read_interval: Duration::ZERO, threads: 1, ..engine::Config::default() }
}
