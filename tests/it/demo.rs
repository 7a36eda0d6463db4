//! `callreel demo`: the commands and the link that it prints, typed as they are.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::harness::process::{PATIENCE, callreel, eventually, free_address};
use crate::harness::shelf;

/// The last line that the demo prints before it waits.
const LAST: &str = "  place a call";

#[test]
fn the_commands_that_the_demo_prints_work_from_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    // Started by a relative path with a blank and a quote, which a shell would take apart.
    let home = dir.path().join("Jo's files");
    fs::create_dir(&home).unwrap();
    fs::hard_link(callreel(), home.join("callreel"))
        .or_else(|_| fs::copy(callreel(), home.join("callreel")).map(drop))
        .unwrap();
    let mut demo = Demo::start(&home, "./callreel demo", "/usr/bin:/bin");
    let printed = demo.printed();

    let link = printed.iter().find_map(|line| line.split_once(": http://")).expect("a link").1;
    let (console, place) = link.split_once("/#recordings/").expect("a place in the console");
    let console: SocketAddr = console.parse().unwrap();
    let answer = get(console, "/");
    assert!(answer.contains("<title>callreel</title>"), "{answer}");
    let record = get(console, &format!("/api/v1/recordings/{place}"));
    assert!(record.contains("\"complete\""), "{record}");

    let [call, serve, later] = &commands(&printed)[..] else { panic!("three: {printed:#?}") };
    let output = type_in(elsewhere.path(), &format!("{call} --duration 1s"));
    let said = String::from_utf8(output.stdout).unwrap();
    let stream = said.lines().find_map(|line| line.strip_prefix("stream ")).expect("an id");
    assert_eq!(shelf::wait_for(&home.join("callreel-demo"), stream).state(), ("complete", "stop"));
    demo.end();

    // As printed, but on free ports.
    let (listen, admin) = (free_address(), free_address());
    let serve = format!("exec {serve} --listen {listen} --admin {admin}");
    let mut server = Demo::typed(elsewhere.path(), &serve);
    eventually(PATIENCE, "it listens", || TcpStream::connect(listen).ok());
    assert!(get(admin, &format!("/api/v1/recordings/{place}")).contains("\"complete\""));
    let later = format!("{later} --duration 1s --url ws://{listen}/media-stream");
    let output = type_in(elsewhere.path(), &later);
    assert!(output.status.success(), "{output:?}");
    server.end();
}

#[test]
fn a_demo_that_the_shell_found_by_its_name_prints_that_name() {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(callreel(), bin.join("callreel")).unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let mut demo = Demo::start(dir.path(), "callreel demo", &path);
    let printed = demo.printed();
    for command in commands(&printed) {
        assert!(command.starts_with("callreel "), "{command}");
    }
    let admin = printed.iter().find_map(|line| line.strip_prefix("then open http://")).unwrap();
    let admin = admin.split('/').next().unwrap();
    let help = Command::new(callreel()).args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains(&format!("[default: {admin}]")), "{admin}");
    demo.end();
}

#[test]
fn a_demo_over_wss_makes_a_certificate_that_other_programs_trust() {
    let dir = tempfile::tempdir().unwrap();
    let demo = format!("{} demo --tls", callreel().display());
    let mut demo = Demo::start(dir.path(), &demo, "/usr/bin:/bin");
    let printed = demo.printed();
    let said = printed.join("\n");
    assert!(
        said.contains("at wss://127.0.0.1:") && said.contains("matches the audio sent"),
        "{said}"
    );
    let [call, serve, later] = &commands(&printed)[..] else { panic!("three: {printed:#?}") };
    let output = type_in(dir.path(), &format!("{call} --duration 200ms"));
    assert!(output.status.success(), "{output:?}");

    let (cert, key) = (dir.path().join("callreel-demo/tls/cert.pem"), "callreel-demo/tls/key.pem");
    assert_eq!(fs::metadata(dir.path().join(key)).unwrap().permissions().mode() & 0o777, 0o600);
    let server = call.split("wss://").nth(1).unwrap().split('/').next().unwrap();
    let verified = Command::new("openssl")
        .args(["s_client", "-connect", server, "-verify_ip", "127.0.0.1", "-verify_return_error"])
        .arg("-CAfile")
        .arg(&cert)
        .stdin(Stdio::null())
        .output();
    let verified = String::from_utf8_lossy(&verified.unwrap().stdout).into_owned();
    assert!(verified.contains("Verify return code: 0 (ok)"), "{verified}");
    demo.end();

    // As printed, but on free ports.
    let (listen, admin) = (free_address(), free_address());
    let serve = format!("exec {serve} --listen {listen} --admin {admin}");
    let mut server = Demo::typed(dir.path(), &serve);
    eventually(PATIENCE, "it listens", || TcpStream::connect(listen).ok());
    let later = later.replace("127.0.0.1:5050", &listen.to_string());
    let output = type_in(dir.path(), &format!("{later} --duration 200ms"));
    assert!(output.status.success(), "{output:?}");
    server.end();
}

/// The lines with a command for the shell.
fn commands(printed: &[String]) -> Vec<String> {
    let named = |line: &&String| {
        line.contains("callreel call")
            || line.contains("callreel serve")
            || line.contains("callreel' ")
    };
    let lines = printed.iter().filter(|line| line.starts_with("  ")).filter(named);
    lines.map(|line| line.trim().to_owned()).collect()
}

/// Runs a command as a user types it.
fn type_in(dir: &Path, command: &str) -> Output {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir(dir).env_clear().env("PATH", "/usr/bin:/bin");
    shell.stdin(Stdio::null()).output().unwrap()
}

fn get(address: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    std::io::Write::write_all(&mut socket, request.as_bytes()).unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut socket, &mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    answer
}

/// A program that a shell started, and its output.
struct Demo(Child);

impl Demo {
    /// Starts a demo of one short call by this command.
    fn start(dir: &Path, command: &str, path: &str) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec {command} --calls 1 --seconds 1")]);
        shell.current_dir(dir).env_clear().env("PATH", path);
        shell.stdin(Stdio::null()).stdout(Stdio::piped());
        Self(shell.spawn().unwrap())
    }

    fn typed(dir: &Path, command: &str) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).current_dir(dir).env_clear();
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(shell.spawn().unwrap())
    }

    /// The lines up to the last one.
    fn printed(&mut self) -> Vec<String> {
        let output = BufReader::new(self.0.stdout.take().expect("it is read once"));
        let mut printed = Vec::new();
        for line in output.lines() {
            printed.push(line.unwrap());
            if printed.iter().rev().nth(1).is_some_and(|line| line.contains(LAST.trim())) {
                return printed;
            }
        }
        panic!("it ended: {printed:#?}");
    }

    /// Ends it as Ctrl-C does.
    fn end(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
