//! Certificates from an ACME server: Pebble gives them out after it has checked the challenge TLS-ALPN-01
//! at the recorder's own port.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConnection, StreamOwned};

use super::{UPGRADE, await_end, await_upgrade, frames};
use crate::harness::messages::call_codes;
use crate::harness::pebble::Pebble;
use crate::harness::peer::pcm;
use crate::harness::pki;
use crate::harness::process::{PATIENCE, Server, Setup, callreel, eventually};
use crate::harness::shelf;

const DOMAIN: &str = "calls.example.com";

/// Seconds for which a certificate is valid that no test wants renewed.
const LONG: u64 = 24 * 60 * 60;

type Line = StreamOwned<ClientConnection, TcpStream>;

/// An ACME server, and a port that it asks for challenges: recorders inherit it.
struct Site {
    socket: TcpListener,
    pebble: Pebble,
    root: CertificateDer<'static>,
    dir: tempfile::TempDir,
}

impl Site {
    fn new(valid_seconds: u64) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let pebble = Pebble::start(socket.local_addr().unwrap(), valid_seconds);
        let root = pebble.root();
        Self { socket, pebble, root, dir: tempfile::tempdir().unwrap() }
    }

    fn recordings(&self) -> PathBuf {
        self.dir.path().join("rec")
    }

    fn with_options(&self, setup: Setup) -> Server {
        let options = self.pebble.options(DOMAIN);
        let setup = setup.args(&options.each_ref().map(String::as_str));
        setup.env("CALLREEL_ADMIN", "127.0.0.1:0").start()
    }

    /// A recorder at the port that the ACME server asks.
    fn start(&self) -> Server {
        self.with_options(Setup::on_socket(&self.socket, &self.recordings()))
    }

    /// A connection to a recorder; nothing if it shows no certificate of the ACME server for the domain.
    fn connect(&self, address: SocketAddr) -> Option<Line> {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        let mut tls = pki::client(self.root.clone(), DOMAIN);
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).ok()?;
        }
        Some(StreamOwned::new(tls, socket))
    }

    /// The first certificate that a recorder shows, and that is not `known`.
    fn await_other(&self, server: &Server, known: Option<&Shown>) -> Shown {
        eventually(PATIENCE, "a certificate is shown", || {
            let shown = self.connect(server.address)?.conn.peer_certificates()?[0].to_vec();
            Some(shown).filter(|shown| Some(shown) != known)
        })
    }

    /// The folder of this ACME server's files.
    fn folder(&self) -> PathBuf {
        let mut folders = fs::read_dir(self.recordings().join(".acme")).unwrap();
        let folder = folders.next().expect("a folder of the server").unwrap().path();
        assert!(folders.next().is_none(), "one server, one folder");
        folder
    }
}

/// A certificate in DER.
type Shown = Vec<u8>;

fn begin_call(line: &mut Line, frames: &[Vec<u8>]) {
    line.write_all(UPGRADE.as_bytes()).unwrap();
    await_upgrade(line);
    line.write_all(&frames.concat()).unwrap();
}

fn check(recordings: &Path, id: &str, chunks: u64) {
    let finished = shelf::wait_for(recordings, id);
    assert_eq!(finished.state(), ("complete", "stop"), "{id}");
    assert!(finished.samples() == pcm(&call_codes(chunks)), "{id}: other samples");
}

#[test]
fn the_first_certificate_comes_when_the_name_leads_here_and_serves_calls() {
    let site = Site::new(LONG);
    site.pebble.lead_names_to("127.0.0.77");
    let server = site.start();
    // Nobody listens there, and the ACME server says so.
    let line = server.wait_for_log("got no certificate");
    assert!(line.contains("127.0.0.77") && line.contains("tls-alpn-01"), "{line}");
    assert!(site.connect(server.address).is_none(), "no certificate, no connection");
    server.wait_for_log("there is no certificate yet");
    let (status, answer) = server.ask_admin("/readyz");
    assert!(status == 503 && answer.contains("no certificate yet"), "{answer}");
    assert!(answer.contains("127.0.0.77"), "the reason: {answer}");
    assert_eq!(server.ask_admin("/healthz").0, 200);
    let port = server.address.port().to_string();
    let hint = server.wait_for_log("asks port 443");
    assert!(hint.contains(&port), "{hint}");

    site.pebble.lead_names_to("127.0.0.1");
    server.signal(Signal::HUP);
    let _ = site.await_other(&server, None);
    assert_eq!(server.ask_admin("/readyz").0, 200);
    let until = server.metric("callreel_tls_certificate_end_timestamp_seconds");
    let now = jiff::Timestamp::now().as_second() as f64;
    assert!((until - now - LONG as f64).abs() < 300.0, "it ends at {until}");
    let (mut line, frames) = (site.connect(server.address).unwrap(), frames("MZ1", 50));
    begin_call(&mut line, &frames);
    await_end(&mut line);
    check(&site.recordings(), "MZ1", 50);

    // Nobody else may read the files; and they are no recordings.
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let folder = site.folder();
    assert_eq!(mode(&folder), 0o700);
    let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.iter().all(|file| mode(file) == 0o600), "{files:?}");
    assert!(!files.iter().any(|file| file.to_str().unwrap().contains("challenge")), "{files:?}");
    assert_eq!(shelf::finished_ids(&site.recordings()), ["MZ1"]);
    let webhook = server.wait_for_log("enter this at Twilio");
    assert!(webhook.contains("https://calls.example.com/incoming-call"), "{webhook}");

    // `check` asks the ACME server as well.
    let checked = Command::new(callreel())
        .args(["check", "--listen", "127.0.0.1:0", "--admin", "off", "--dir"])
        .arg(site.recordings())
        .args(site.pebble.options(DOMAIN))
        .output()
        .unwrap();
    let checked = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.contains("there is one that ends at"), "{checked}");
    assert!(checked.contains("/dir answers"), "{checked}");

    // A challenge that nobody asked for has no answer.
    let told = Command::new("openssl")
        .args(["s_client", "-connect", &server.address.to_string()])
        .args(["-servername", DOMAIN, "-alpn", "acme-tls/1"])
        .stdin(Stdio::null())
        .output()
        .expect("openssl runs");
    let told = [told.stdout, told.stderr].concat();
    assert!(String::from_utf8_lossy(&told).contains("alert access denied"));
}

#[test]
fn a_renewal_loses_no_call_and_a_broken_server_leaves_the_certificate() {
    let mut site = Site::new(9);
    let server = site.start();
    let first = site.await_other(&server, None);
    let (mut line, frames) = (site.connect(server.address).unwrap(), frames("MZ1", 100));
    begin_call(&mut line, &frames[..50]);
    let second = site.await_other(&server, Some(&first));
    site.pebble.kill();
    server.wait_for_log("got no certificate");
    assert_eq!(site.await_other(&server, None), second);
    let (status, answer) = server.ask_admin("/readyz");
    assert!(status == 200 && answer.contains("is not renewed"), "{answer}");
    line.write_all(&frames[50..].concat()).unwrap();
    await_end(&mut line);
    check(&site.recordings(), "MZ1", 100);
}

#[test]
fn a_restart_and_a_second_recorder_use_the_stored_certificate() {
    let site = Site::new(LONG);
    let mut server = site.start();
    let first = site.await_other(&server, None);
    assert_eq!(site.pebble.counts(), (1, 1));
    // Another one in the same directory, while the first one is there still.
    let mut second = site.with_options(Setup::new(&site.recordings()));
    second.wait_for_log("another callreel gets the certificates");
    assert_eq!(site.await_other(&second, None), first);
    server.stop();
    second.stop();
    let mut server = site.start();
    server.wait_for_log("has a certificate that is renewed by ACME");
    assert_eq!(site.await_other(&server, None), first);
    server.stop();
    assert_eq!(site.pebble.counts(), (1, 1), "no other account and no other order");
    // A file that cannot be used is replaced.
    fs::write(site.folder().join(format!("{DOMAIN}.pem")), "spoilt").unwrap();
    let server = site.start();
    server.wait_for_log("the stored certificate is of no use");
    assert_ne!(site.await_other(&server, None), first);
    assert_eq!(site.pebble.counts(), (1, 2), "the same account");
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (args, words) in [
        (&["--acme", "a.example", "--tls-cert", "c", "--tls-key", "k"][..], "cannot be used with"),
        (&["--acme-contact", "ops@example.com"], "--acme <DOMAIN>"),
        (&["--acme", "*.example.com"], "wildcard"),
        (&["--acme", "192.0.2.1"], "no addresses"),
        (&["--acme", "a.example", "--acme-url", "http://a.example"], "ACME directory"),
        (&["--acme", "a.example", "--acme-ca", "/nothing"], "--acme-ca: /nothing"),
        (&["--acme", "a.example", "--acme-dir", "/proc/none"], "--acme-dir: cannot use /proc/none"),
    ] {
        let refused = Command::new(callreel())
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "off", "--dir"])
            .arg(dir.path())
            .args(args)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains(words), "{args:?}: {said}");
    }
}
