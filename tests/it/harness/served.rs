//! The server in this process, as a recorder of messages and as a place to call.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use callreel::{Config, engine, store};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::client;
use super::recorder::Recorder;

/// Far above what anything here takes, far below a hang.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server's thread, and what ends it.
pub type Running = (oneshot::Sender<()>, JoinHandle<Result<(), callreel::Error>>);

/// A server on a port and in a directory of its own, for as long as it lives.
pub struct Served {
    address: SocketAddr,
    running: Option<Running>,
    dir: tempfile::TempDir,
}

impl Served {
    pub fn start(engine: engine::Config) -> Self {
        // In memory where that is to be had: these tests are not about the disk.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let store = store::Config { dir: dir.path().to_owned(), ..store::Config::default() };
        let config = Config { engine, store, ..Config::default() };
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let shutdown = async { drop(stopped.await) };
            runtime.block_on(callreel::serve(listener, config, shutdown))
        });
        Self { address, running: Some((stop, thread)), dir }
    }

    /// Where streams go.
    pub fn url(&self) -> String {
        format!("ws://{}/media-stream", self.address)
    }

    /// The end records of all finished recordings with their paths, in the order of their starts.
    pub fn records(&self) -> Vec<(PathBuf, Value)> {
        self.records_but(&BTreeSet::new())
    }

    /// The same without some, which are not read: there may be thousands.
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

    /// Sends messages on one connection and closes it; the records of what came of them.
    pub fn send(&self, messages: &[Vec<u8>]) -> Vec<(PathBuf, Value)> {
        let known = self.paths().collect();
        let mut socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let handshake = "GET /media-stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
            Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        socket.write_all(handshake.as_bytes()).unwrap();
        let mut bytes: Vec<u8> = messages.iter().flat_map(client::text).collect();
        bytes.extend(client::frame(client::FIN | client::CLOSE, &1000u16.to_be_bytes()));
        // The server may close before it has read all: it is not interested after a stop.
        let _ = socket.write_all(&bytes);
        // It closes when what it records is finished.
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
        self.records_but(&known)
    }
}

impl Recorder for Served {
    fn record(&self, messages: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let paths = self.send(messages).into_iter().map(|(path, _)| path.with_extension("wav"));
        paths.filter_map(|path| fs::read(path).ok()).collect()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            let _ = stop.send(());
            let ended = thread.join();
            assert!(matches!(ended, Ok(Ok(()))) || std::thread::panicking(), "{ended:?}");
        }
    }
}

/// Reads at once: what is tested is not the pace.
pub fn at_once() -> engine::Config {
    engine::Config { read_interval: Duration::ZERO, threads: 1, ..engine::Config::default() }
}
