//! The real program as a process: started, watched by its log, sent signals, never outliving its test.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::line::{House, Line, Target, is_run_over_tls};

/// Far above the time of any step here on a busy machine, far below a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Most time for an answer that waits for nothing, on a machine whose cores are all in use.
pub(crate) const PROMPT: Duration = Duration::from_secs(10);

/// Path of the program, built by cargo if need be.
pub(crate) fn callreel() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let profile: &[&str] = if cfg!(debug_assertions) { &[] } else { &["--release"] };
        build(&[&["--package", "callreel", "--bin", "callreel"], profile].concat())
    })
}

/// Has cargo build one program by `arguments`; returns its path.
pub(crate) fn build(arguments: &[&str]) -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    // The variables that cargo sets for a test are an input of some build scripts: with them, ring and all
    // that needs it would be built again, and once more by the next command outside of a test.
    let of_this_test = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
    for (name, _) in std::env::vars_os() {
        let is_one = |prefix| name.to_str().is_some_and(|name| name.starts_with(prefix));
        if of_this_test.into_iter().any(is_one) {
            cargo.env_remove(name);
        }
    }
    cargo.arg("build").args(arguments).args(["--message-format", "json"]);
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    let built = cargo.stderr(Stdio::inherit()).output().expect("cargo runs");
    assert!(built.status.success(), "cargo cannot build {arguments:?}");
    let messages = String::from_utf8(built.stdout).expect("cargo writes UTF-8");
    let executable = messages.lines().rev().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    executable.expect("cargo names the program it built")
}

/// Path of a program of the benches, built with core alone, without the crates that it is compared with.
pub(crate) fn bench(program: &str) -> PathBuf {
    build(&[
        "--profile",
        "bench",
        "--package",
        "callreel-bench",
        "--no-default-features",
        "--features",
        "lenient",
        "--bin",
        program,
    ])
}

/// A server to start.
pub(crate) struct Setup {
    command: Command,
    /// The public and the admin address, if the log goes elsewhere and cannot tell them.
    addresses: Option<(SocketAddr, SocketAddr)>,
    is_tls: bool,
}

impl Setup {
    /// `callreel serve` into `dir`, on a free port of loopback, with `PATH` alone of the environment.
    pub(crate) fn new(dir: &Path) -> Self {
        Self::through(&[], dir)
    }

    /// `callreel serve` started by another program, which gets callreel's command line as its last
    /// arguments.
    pub(crate) fn through(wrapper: &[&str], dir: &Path) -> Self {
        let mut words = wrapper.iter().map(OsStr::new).chain([callreel().as_os_str()]);
        let mut command = Command::new(words.next().expect("there is a program"));
        command.args(words).args(["serve", "--dir"]).arg(dir);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        // Many servers run at one time; the console has tests of its own.
        command.env("CALLREEL_LISTEN", "127.0.0.1:0").env("CALLREEL_ADMIN", "off");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        if is_run_over_tls() {
            let house = House::get();
            command.env("CALLREEL_TLS_CERT", house.cert()).env("CALLREEL_TLS_KEY", house.key());
        }
        Self { command, addresses: None, is_tls: is_run_over_tls() }
    }

    /// `callreel console` on a free port of loopback, with `PATH` alone of the environment.
    pub(crate) fn console() -> Self {
        let mut command = Command::new(callreel());
        command.args(["console", "--admin", "127.0.0.1:0"]);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Self { command, addresses: None, is_tls: false }
    }

    /// Has the server speak no TLS, or with the certificate of its arguments, in every run.
    pub(crate) fn plain(mut self) -> Self {
        self.command.env_remove("CALLREEL_TLS_CERT").env_remove("CALLREEL_TLS_KEY");
        self.is_tls = false;
        self
    }

    /// `callreel serve` on a listening socket of loopback that it inherits, as from systemd.
    pub(crate) fn on_socket(socket: &TcpListener, dir: &Path) -> Self {
        let script = r#"exec 3<&0 </dev/null; export LISTEN_PID=$$; exec "$0" "$@""#;
        let mut setup = Self::through(&["sh", "-c", script], dir);
        setup.command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "public");
        setup.command.stdin(OwnedFd::from(socket.try_clone().expect("a descriptor")));
        setup
    }

    /// Sends the log and the output to these destinations, unread. The server then has an admin
    /// listener.
    pub(crate) fn log_to(mut self, stderr: impl Into<Stdio>, stdout: impl Into<Stdio>) -> Self {
        let (listen, admin) = (free_address(), free_address());
        self.command.env("CALLREEL_LISTEN", listen.to_string());
        self.command.env("CALLREEL_ADMIN", admin.to_string());
        self.command.stderr(stderr).stdout(stdout);
        self.addresses = Some((listen, admin));
        self
    }

    /// Sends the log to a file, unread.
    pub(crate) fn log_to_file(self, path: &Path) -> Self {
        self.log_to(std::fs::File::create(path).expect("the log's file"), Stdio::null())
    }

    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Starts the server, and waits until it listens.
    pub(crate) fn start(self) -> Server {
        let mut server = self.spawn();
        server.wait_until_it_listens();
        server
    }

    /// Starts the server in the directory of an interrupted one, and waits until the recovery is over.
    pub(crate) fn start_and_recover(self) -> Server {
        let server = self.start();
        server.wait_for_log("recovery is over");
        server
    }

    /// Starts the server, and waits for nothing.
    pub(crate) fn spawn(mut self) -> Server {
        let mut child = self.command.spawn().expect("callreel starts");
        let log = Arc::<Log>::default();
        let lines = Arc::clone(&log);
        let stderr = child.stderr.take();
        let reader = thread::spawn(move || {
            for line in stderr.into_iter().flat_map(|stderr| BufReader::new(stderr).split(b'\n')) {
                let Ok(line) = line else { break };
                lines.push(String::from_utf8_lossy(&line).into_owned());
            }
            lines.end();
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let (address, admin) = self.addresses.unzip();
        let address = address.unwrap_or(nowhere);
        Server { child, address, is_tls: self.is_tls, admin, log, reader: Some(reader) }
    }

    /// Starts a server that must refuse to run; returns its exit code and its log.
    pub(crate) fn refuse(self) -> (Option<i32>, Vec<String>) {
        let mut server = self.spawn();
        let status = server.wait(PATIENCE);
        (status.code(), server.log_lines())
    }
}

/// A running `callreel serve`; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub address: SocketAddr,
    /// Whether the public listener speaks TLS with the certificate of the run.
    is_tls: bool,
    /// The address of the admin listener, if the log does not tell it.
    admin: Option<SocketAddr>,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(dir: &Path) -> Self {
        Setup::new(dir).start()
    }

    pub(crate) fn wait_until_it_listens(&mut self) {
        if self.admin.is_some() {
            let is_up = || TcpStream::connect(self.address).ok();
            eventually(PATIENCE, "it listens", is_up);
            return;
        }
        let line = self.wait_for_log("listening");
        let (_, port) = line.rsplit_once("127.0.0.1:").expect("the line names the address");
        let digits = port.find(|c: char| !c.is_ascii_digit()).unwrap_or(port.len());
        self.address.set_port(port[..digits].parse().expect("a port"));
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the process is ours");
    }

    /// Kills the server with SIGKILL, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        assert_eq!(self.wait(PATIENCE).signal(), Some(9));
    }

    /// Stops the server with SIGTERM; returns its exit status and the time that the stop took.
    pub(crate) fn stop(&mut self) -> (ExitStatus, Duration) {
        let asked = Instant::now();
        self.signal(Signal::TERM);
        (self.wait(PATIENCE), asked.elapsed())
    }

    /// Waits for the end of the process.
    pub(crate) fn wait(&mut self, patience: Duration) -> ExitStatus {
        let status = eventually(patience, "the process ends", || {
            self.child.try_wait().expect("the process is ours")
        });
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the log is read");
        }
        status
    }

    /// Waits until a line of the log holds `text`; returns the line.
    pub(crate) fn wait_for_log(&self, text: &str) -> String {
        self.log.wait_for(text).unwrap_or_else(|| {
            panic!("{text:?} is not in the log:\n{}", self.log_lines().join("\n"))
        })
    }

    pub(crate) fn log_lines(&self) -> Vec<String> {
        self.log.lines.lock().unwrap().0.clone()
    }

    /// The public listener.
    pub(crate) fn target(&self) -> Target {
        Target { address: self.address, is_tls: self.is_tls }
    }

    /// A connection on which a request may be sent.
    pub(crate) fn connect(&self) -> Line {
        self.target().connect().expect("the server listens")
    }

    /// A connection without a byte so far.
    pub(crate) fn connect_tcp(&self) -> TcpStream {
        let target = Target::plain(self.address);
        match target.connect().expect("the server listens") {
            Line::Plain(tcp) => tcp,
            Line::Tls(_) => unreachable!("a plain target"),
        }
    }

    /// `callreel call` to the stream of this server.
    pub(crate) fn caller(&self) -> Command {
        let mut caller = Command::new(callreel());
        caller.args(["call", "--url", &self.target().url("ws", "/media-stream")]);
        if self.is_tls {
            caller.env("SSL_CERT_FILE", House::get().ca());
        }
        caller
    }

    /// The address of the console and the API.
    pub(crate) fn admin_address(&self) -> SocketAddr {
        if let Some(admin) = self.admin {
            return admin;
        }
        let line = self.wait_for_log("console at http://");
        let (_, address) = line.rsplit_once("http://").expect("the line names the address");
        address.trim_end_matches('/').parse().expect("an address")
    }

    /// Sends a request to the admin listener, and leaves the answer unread.
    pub(crate) fn begin_to_ask_admin(&self, path: &str) -> TcpStream {
        let mut socket = TcpStream::connect(self.admin_address()).expect("it listens");
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = "HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        write!(socket, "GET {path} {head}").unwrap();
        socket
    }

    /// Sends a request to the admin listener; returns the status and the whole answer.
    pub(crate) fn ask_admin(&self, path: &str) -> (u16, String) {
        answer_of(self.begin_to_ask_admin(path))
    }

    /// Sends a POST without a body to the admin listener; returns the status and the whole answer.
    pub(crate) fn post_admin(&self, path: &str) -> (u16, String) {
        let mut socket = TcpStream::connect(self.admin_address()).expect("it listens");
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = "HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        write!(socket, "POST {path} {head}").unwrap();
        answer_of(socket)
    }

    /// One of the figures at `/metrics`.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.ask_admin("/metrics");
        let line =
            text.lines().find(|line| line.strip_prefix(name).is_some_and(|l| l.starts_with(' ')));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        value.unwrap_or_else(|| panic!("{name} is not in {text}"))
    }

    /// Sends a request as it is; returns the status and the whole answer.
    pub(crate) fn ask(&self, request: &str) -> (u16, String) {
        let mut socket = self.connect();
        // The server may answer and close before all is sent.
        let _ = socket.write_all(request.as_bytes());
        answer_of(socket)
    }

    pub(crate) fn get(&self, path: &str) -> u16 {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).0
    }

    /// Resident memory in bytes: now (`VmRSS`), or its peak (`VmHWM`).
    pub(crate) fn memory(&self, line: &str) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find(|l| l.starts_with(line)).expect("Linux tells");
        let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
        kib.expect("in KiB") * 1024
    }

    /// Bytes that the server has written so far, to files and sockets.
    pub(crate) fn written(&self) -> u64 {
        let io = self.proc("io");
        let written = io.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse().ok());
        written.expect("Linux tells")
    }

    /// A limit of the process: soft, hard and unit.
    pub(crate) fn limit(&self, name: &str) -> String {
        let limits = self.proc("limits");
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).expect("Linux tells");
        line.trim_start().to_owned()
    }

    /// Processor time of the server so far.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = self.proc("stat");
        let fields: Vec<&str> = stat.rsplit(") ").next().expect("Linux tells").split(' ').collect();
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Processor time by kind of thread: threads are named like `media-0`.
    pub(crate) fn cpu_by_threads(&self) -> BTreeMap<String, Duration> {
        let mut kinds = BTreeMap::new();
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id()));
        for task in tasks.expect("Linux tells of our processes").map_while(Result::ok) {
            // A thread that has ended meanwhile counts nothing.
            let read =
                |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
            let (name, spent) = (read("comm"), read("schedstat"));
            let kind = name.trim_end().trim_end_matches(|c: char| c == '-' || c.is_ascii_digit());
            let ns = spent.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
            *kinds.entry(kind.to_owned()).or_default() += Duration::from_nanos(ns);
        }
        kinds
    }

    fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.child.id());
        std::fs::read_to_string(path).expect("Linux tells of our processes")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            let lines = self.log_lines();
            let last = &lines[lines.len().saturating_sub(20)..];
            eprintln!("the end of the server's log:\n{}", last.join("\n"));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A free address, outside of the range of ports that the system gives to other sockets.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = std::process::id() % 5_000 * 2;
    let at = |_| {
        let port = 20_000 + (first + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % 12_000;
        let address = SocketAddr::from(([127, 0, 0, 1], port as u16));
        TcpListener::bind(address).is_ok().then_some(address)
    };
    (0..1_000).find_map(at).expect("a port is free")
}

fn answer_of(mut socket: impl Read) -> (u16, String) {
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.get(9..12).and_then(|digits| digits.parse().ok());
    (status.unwrap_or_else(|| panic!("no answer: {answer:?}")), answer)
}

/// The body of a whole answer, JSON.
pub(crate) fn body_of(answer: &str) -> Value {
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    serde_json::from_str(body).expect("JSON")
}

/// The lines of a log so far, and whether the log has ended.
#[derive(Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

impl Log {
    fn push(&self, line: String) {
        self.lines.lock().unwrap().0.push(line);
        self.changed.notify_all();
    }

    fn end(&self) {
        self.lines.lock().unwrap().1 = true;
        self.changed.notify_all();
    }

    fn wait_for(&self, text: &str) -> Option<String> {
        let found = |lines: &[String]| lines.iter().find(|line| line.contains(text)).cloned();
        let lines = self.lines.lock().unwrap();
        let waits = |(lines, ended): &mut (Vec<String>, bool)| !*ended && found(lines).is_none();
        let (lines, _) = self.changed.wait_timeout_while(lines, PATIENCE, waits).unwrap();
        found(&lines.0)
    }
}

/// Polls `look` until it returns a value, for changes that cannot be waited for.
///
/// # Panics
/// If `look` returns no value within `patience`.
pub(crate) fn eventually<T>(
    patience: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let until = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "not within {patience:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
