//! The hand-over of a listening socket: two instances, one directory, one port, running calls, and new
//! ones that keep coming. No call is cut.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};

use super::{check_whole, go_on_and_finish, go_on_and_finish_all, heard_call};
use crate::harness::line::Target;
use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, Server, Setup, callreel, eventually, free_address};
use crate::harness::shelf;

/// Calls that run when the first instance is told to drain.
pub(super) const RUNNING: usize = 50;

/// New calls at most; further connections ask for the TwiML document alone.
const NEW_MAX: usize = 100;

/// Connects, and asks for a TwiML document or a stream; the error is that of the connection.
pub(super) fn try_call(target: impl Into<Target>, number: usize) -> io::Result<Option<Peer>> {
    let mut socket = target.into().connect()?;
    if number.is_multiple_of(2) {
        let mut answer = String::new();
        let request = "GET /incoming-call HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        socket.write_all(request.as_bytes())?;
        socket.read_to_string(&mut answer)?;
        if answer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        return Ok(None);
    }
    // A reset shows at the peek, before the strict client reads the answer.
    let key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
    write!(socket, "GET /media-stream HTTP/1.1\r\nHost: a\r\n{upgrade}{key}")?;
    if socket.tcp().peek(&mut [0])? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let peer = Peer::upgraded(socket, &format!("MZnew{number}"));
    let mut peer = peer.unwrap_or_else(|status| panic!("{status}"));
    peer.start(&[]);
    Ok(Some(peer))
}

/// New calls, one after the other, until they are ended.
pub(super) struct Callers {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<(Vec<Peer>, usize, Vec<io::Error>)>,
}

impl Callers {
    pub(super) fn start(target: impl Into<Target>) -> Self {
        let target = target.into();
        let is_over = Arc::<AtomicBool>::default();
        let over = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let (mut peers, mut errors, mut count) = (Vec::new(), Vec::new(), 0);
            while !over.load(Ordering::Relaxed) {
                count += 1;
                // An odd number is that of a call.
                let number = if peers.len() < NEW_MAX { count } else { 2 * count };
                match try_call(target, number) {
                    Ok(peer) => peers.extend(peer),
                    Err(error) => errors.push(error),
                }
            }
            (go_on_and_finish_all(peers), count, errors)
        });
        Self { is_over, thread }
    }

    /// Ends them. Returns the finished calls, the number of all attempts, and the connections that were
    /// not answered.
    pub(super) fn end(self) -> (Vec<Peer>, usize, Vec<io::Error>) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

pub(super) fn running_calls(server: &Server) -> Vec<Peer> {
    (0..RUNNING).map(|number| heard_call(server, &format!("MZold{number}"))).collect()
}

/// The instance that drains takes no more calls from now on.
fn wait_for_drain(server: &Server) {
    server.wait_for_log("calls left");
}

#[test]
fn two_instances_that_share_a_socket_cut_no_call_and_refuse_no_handshake() {
    let dir = tempfile::tempdir().unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut old = Setup::on_socket(&socket, dir.path()).start();
    assert_eq!(old.address, socket.local_addr().unwrap());
    let running = running_calls(&old);
    let mut new = Setup::on_socket(&socket, dir.path()).start();
    let callers = Callers::start(old.target());
    old.signal(Signal::USR1);
    wait_for_drain(&old);
    // All of them go to the new instance.
    let late: Vec<Peer> = (0..5).map(|n| heard_call(&new, &format!("MZlate{n}"))).collect();
    let running = go_on_and_finish_all(running);
    let (peers, count, errors) = callers.end();
    assert_eq!(old.wait(PATIENCE).code(), Some(0));
    let late = go_on_and_finish_all(late);
    assert!(errors.is_empty(), "of {count}: {errors:?}");
    eprintln!("{} running calls, {count} new connections: none cut, none refused", running.len());
    for peers in [&running, &peers, &late] {
        check_whole(dir.path(), peers);
    }
    new.wait_for_log("the other callreel is gone");
    assert_eq!(new.stop().0.code(), Some(0));
    assert!(shelf::unfinished(dir.path()).is_empty());
}

#[test]
fn connections_that_wait_while_no_instance_accepts_are_taken_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut old = Setup::on_socket(&socket, dir.path()).start();
    let running = heard_call(&old, "MZ1");
    old.signal(Signal::USR1);
    wait_for_drain(&old);
    let target = old.target();
    let waiting = std::thread::spawn(move || try_call(target, 1).unwrap().unwrap());
    let running = go_on_and_finish(running);
    assert_eq!(old.wait(PATIENCE).code(), Some(0));
    assert!(!waiting.is_finished());
    let _new = Setup::on_socket(&socket, dir.path()).start();
    let waiting = go_on_and_finish(waiting.join().unwrap());
    check_whole(dir.path(), &[running, waiting]);
}

#[test]
fn a_socket_that_is_of_no_use_is_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    for (names, count, word) in [("web:admin", "2", "name it public or admin"), ("x", "2", "\"x\"")]
    {
        let setup = Setup::on_socket(&socket, dir.path());
        let setup = setup.env("LISTEN_FDNAMES", names).env("LISTEN_FDS", count);
        let (code, said) = setup.refuse();
        assert!(code == Some(1) && said.len() == 1 && said[0].contains(word), "{said:?}");
    }
    let script = r#"exec 3</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$0" "$@""#;
    let (code, said) = Setup::through(&["sh", "-c", script], dir.path()).refuse();
    assert!(code == Some(1) && said.len() == 1 && said[0].contains("not a socket"), "{said:?}");
}

/// A deploy by a shell under `systemd-socket-activate`. Each line on its input is the next step: the
/// second instance is started, the first one is told to drain and waited for, the second one is stopped.
const DEPLOY: &str = r#"
trap 'kill -KILL $old $new; exit' TERM
start() { sh -c 'export LISTEN_PID=$$; exec "$@"' sh "$@" </dev/null & }
end() { kill -$1 $2; wait $2; echo "ended with $?"; }
start "$@"; old=$!
read step; start "$@"; new=$!
read step; end USR1 $old
read step; end TERM $new
"#;

/// The shell of a deploy; ended with both instances when dropped.
struct Deploy(Child);

impl Deploy {
    /// The instances write their logs to `log`.
    fn start(address: SocketAddr, dir: &Path, log: &Path) -> Self {
        let mut command = Command::new("systemd-socket-activate");
        command.args(["--fdname", "public", "--listen", &address.to_string()]);
        command.args(["-E", "PATH", "sh", "-c", DEPLOY, "sh"]).arg(callreel());
        command.args(["serve", "--admin", "off", "--dir"]).arg(dir);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let log = fs::File::create(log).unwrap();
        Self(command.stderr(log).spawn().expect("Debian's package systemd is there"))
    }

    fn step(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"go on\n").unwrap();
    }

    /// The next line of its output.
    fn line(&mut self) -> String {
        let mut line = String::new();
        let output = self.0.stdout.as_mut().unwrap();
        while !line.ends_with('\n') {
            let mut byte = [0];
            output.read_exact(&mut byte).unwrap();
            line.push(byte[0].into());
        }
        line
    }
}

impl Drop for Deploy {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

#[test]
fn a_deploy_under_systemd_socket_activate_cuts_no_call_and_refuses_no_handshake() {
    let home = tempfile::tempdir().unwrap();
    let (dir, log) = (&home.path().join("recordings"), home.path().join("log"));
    let logged = |text: &str| {
        eventually(PATIENCE, text, || fs::read_to_string(&log).ok()?.contains(text).then_some(()))
    };
    let address = free_address();
    let mut deploy = Deploy::start(address, dir, &log);
    let first =
        eventually(PATIENCE, "the first connection starts it", || TcpStream::connect(address).ok());
    drop(first);
    let mut running: Vec<Peer> = (0..RUNNING)
        .map(|number| try_call(address, 1000 + 2 * number + 1).unwrap().unwrap())
        .collect();
    for peer in &mut running {
        peer.sync();
    }
    deploy.step();
    let callers = Callers::start(address);
    logged("another callreel records to the directory as well");
    deploy.step();
    logged("calls left");
    let running = go_on_and_finish_all(running);
    let (peers, count, errors) = callers.end();
    assert_eq!(deploy.line(), "ended with 0\n");
    assert!(errors.is_empty(), "of {count}: {errors:?}");
    let last = go_on_and_finish(try_call(address, 1).unwrap().unwrap());
    deploy.step();
    assert_eq!(deploy.line(), "ended with 0\n");
    eprintln!("{count} new connections, {} of them calls", peers.len());
    for peers in [&running[..], &peers, &[last]] {
        check_whole(dir, peers);
    }
    assert!(shelf::unfinished(dir).is_empty());
}

#[test]
fn two_instances_that_share_a_port_cut_no_call_and_only_the_moment_of_the_close_resets_handshakes()
{
    let dir = tempfile::tempdir().unwrap();
    let address = free_address().to_string();
    let setup = || Setup::new(dir.path()).args(&["--listen", &address, "--reuse-port"]);
    let mut old = setup().start();
    let running = running_calls(&old);
    // Without the option the port is in use.
    let (code, said) = Setup::new(dir.path()).args(&["--listen", &address]).refuse();
    assert!(code == Some(1) && said.last().unwrap().contains("uses the port"), "{said:?}");
    let mut new = setup().start();
    let callers = Callers::start(old.target());
    old.signal(Signal::USR1);
    wait_for_drain(&old);
    let late: Vec<Peer> = (0..5).map(|n| heard_call(&new, &format!("MZlate{n}"))).collect();
    let running = go_on_and_finish_all(running);
    let (peers, count, errors) = callers.end();
    let late = go_on_and_finish_all(late);
    // Some new calls may have gone to the old instance.
    assert_eq!(old.wait(PATIENCE).code(), Some(0));
    eprintln!("{} of {count} new connections were reset: {errors:?}", errors.len());
    assert!(errors.len() <= 1, "one caller can meet the moment once: {errors:?}");
    for peers in [&running, &peers, &late] {
        check_whole(dir.path(), peers);
    }
    assert_eq!(new.stop().0.code(), Some(0));
    assert!(shelf::unfinished(dir.path()).is_empty());
}
