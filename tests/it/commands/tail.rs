//! `callreel tail`: a line for each beginning and end of a call.

use std::io::{self, BufRead as _, BufReader};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::{TOKEN, command, record, run};
use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, Setup, eventually};

/// A running `callreel tail`; killed when dropped.
struct Tail {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    complaints: Arc<Mutex<Vec<String>>>,
}

impl Tail {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = gather(child.stdout.take().unwrap());
        let complaints = gather(child.stderr.take().unwrap());
        Self { child, lines, complaints }
    }

    fn wait_for(&self, words: &[&str]) -> String {
        let is_found = |line: &&String| words.iter().all(|word| line.contains(word));
        eventually(PATIENCE, &format!("{words:?}"), || {
            let lines = [&self.lines, &self.complaints].map(|lines| lines.lock().unwrap().clone());
            lines.concat().iter().find(is_found).cloned()
        })
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines that come from a pipe, as they come.
fn gather(pipe: impl std::io::Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::<Mutex<Vec<String>>>::default();
    let gathered = Arc::clone(&lines);
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            gathered.lock().unwrap().push(line);
        }
    });
    lines
}

#[test]
fn tail_tells_of_calls_as_they_begin_and_end_also_after_a_restart_of_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("recordings");
    let log = dir.path().join("log");
    let setup = || Setup::new(&home).env("CALLREEL_ADMIN_TOKEN", TOKEN);
    let mut server = setup().log_to_file(&log).start();
    let (public, admin) = (server.address.to_string(), server.admin_address().to_string());
    let tail = |token: &str, options: &[&str]| {
        let mut tail = command(dir.path(), &[&["tail", "--admin", &admin], options].concat());
        tail.env("CALLREEL_ADMIN_TOKEN", token);
        tail
    };
    let (code, _, said) = run(&mut tail(&TOKEN.replace('0', "1"), &[]));
    assert!(code == Some(1) && said.contains("asks for another token"), "{said}");
    assert!(!said.contains("123456789abcdef"), "{said}");

    let mut before = Peer::call(&server, "MZbefore");
    before.say(Duration::from_millis(100));
    let people = Tail::start(&mut tail(TOKEN, &[]));
    let programs = Tail::start(&mut tail(TOKEN, &["--json"]));
    people.wait_for(&["began", "MZbefore", "inbound"]);
    programs.wait_for(&["\"event\":\"began\"", "MZbefore"]);
    record(&server, &home, "MZduring", Duration::from_millis(1500));
    people.wait_for(&["ended", "MZduring", "1.5 s, complete (stop)"]);
    let line: Value = serde_json::from_str(&programs.wait_for(&["\"ended\"", "MZduring"])).unwrap();
    assert_eq!((&line["state"], &line["duration_ms"]), (&json!("complete"), &json!(1500)));
    assert_eq!(line.get("caller"), None);

    server.stop();
    people.wait_for(&["lost the connection"]);
    let addresses = ["--listen", &public, "--admin", &admin];
    let mut server = setup().args(&addresses).log_to_file(&log).spawn();
    server.address = public.parse().unwrap();
    people.wait_for(&["connected again"]);
    record(&server, &home, "MZafter", Duration::from_millis(100));
    people.wait_for(&["ended", "MZafter"]);
    programs.wait_for(&["\"ended\"", "MZafter"]);
    // It ended with the server, which told nobody any more.
    people.wait_for(&["ended", "MZbefore"]);
    server.stop();

    let (code, _, said) = run(&mut tail(TOKEN, &[]));
    assert!(code == Some(1) && said.contains("does `callreel serve` run there?"), "{said}");
    let (code, _, said) = run(&mut command(dir.path(), &["tail", "--admin", "off"]));
    assert!(code == Some(2) && said.contains("no admin listener"), "{said}");
}

/// A way to a server that can be cut and opened again.
struct Way {
    address: SocketAddr,
    /// The sockets of the connections on it; `None` while it is cut.
    open: Arc<Mutex<Option<Vec<TcpStream>>>>,
}

impl Way {
    fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let open = Arc::new(Mutex::new(Some(Vec::new())));
        let sockets = Arc::clone(&open);
        thread::spawn(move || {
            for here in listener.incoming().map_while(Result::ok) {
                let Some(sockets) = &mut *sockets.lock().unwrap() else { continue };
                let there = TcpStream::connect(server).unwrap();
                for (from, to) in [(&here, &there), (&there, &here)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    thread::spawn(move || io::copy(&mut from, &mut to));
                }
                sockets.extend([here, there]);
            }
        });
        Self { address, open }
    }

    fn cut(&self) {
        for socket in self.open.lock().unwrap().take().into_iter().flatten() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn open(&self) {
        self.open.lock().unwrap().get_or_insert_default();
    }
}

#[test]
fn tail_tells_the_beginning_and_the_end_of_each_call_in_order_however_short_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("recordings");
    let server = Setup::new(&home).env("CALLREEL_ADMIN", "127.0.0.1:0").start();
    let way = Way::to(server.admin_address());
    let args = ["tail", "--json", "--admin", &way.address.to_string()];
    let tail = Tail::start(&mut command(dir.path(), &args));
    let _going_on = Peer::call(&server, "MZgoing-on");
    tail.wait_for(&["\"began\"", "MZgoing-on"]);
    let mut expected = vec![json!(["began", "MZgoing-on"])];
    let mut place = |ids: std::ops::Range<u32>| {
        for id in ids.map(|number| format!("MZ{number:02}")) {
            record(&server, &home, &id, Duration::from_millis(20));
            expected.extend([json!(["began", id]), json!(["ended", id])]);
        }
    };
    place(0..20);
    tail.wait_for(&["\"ended\"", "MZ19"]);
    way.cut();
    tail.wait_for(&["lost the connection"]);
    place(20..40);
    way.open();
    tail.wait_for(&["\"ended\"", "MZ39"]);
    place(40..42);
    tail.wait_for(&["\"ended\"", "MZ41"]);
    let told: Vec<Value> = tail.lines.lock().unwrap().iter().map(|line| told(line)).collect();
    assert_eq!(told, expected);
}

/// The event and the stream of a line.
fn told(line: &str) -> Value {
    let line: Value = serde_json::from_str(line).unwrap();
    json!([line["event"], line["stream_id"]])
}
