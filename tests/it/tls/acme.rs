//! Certificates from an ACME server: Pebble gives them out after it has checked the challenge TLS-ALPN-01
//! at the recorder's own port.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use rustix::process::Signal;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConnection, StreamOwned};

use super::{UPGRADE, await_end, await_upgrade, frames};
use crate::harness::messages::call_codes;
use crate::harness::pebble::{Pebble, options};
use crate::harness::peer::pcm;
use crate::harness::pki;
use crate::harness::process::{PATIENCE, Server, Setup, callreel, eventually};
use crate::harness::renewals::{EXPLANATION, Renewals};
use crate::harness::shelf;

const DOMAIN: &str = "calls.example.com";

/// Seconds for which a certificate is valid that no test wants renewed.
const LONG: u64 = 24 * 60 * 60;

type Line = StreamOwned<ClientConnection, TcpStream>;

/// An ACME server, and a port that it asks for challenges: recorders inherit it.
struct Site {
    socket: TcpListener,
    pebble: Arc<Pebble>,
    root: CertificateDer<'static>,
    dir: tempfile::TempDir,
}

impl Site {
    fn new(valid_seconds: u64) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let pebble = Arc::new(Pebble::start(socket.local_addr().unwrap(), valid_seconds));
        let root = pebble.root();
        Self { socket, pebble, root, dir: tempfile::tempdir().unwrap() }
    }

    fn recordings(&self) -> PathBuf {
        self.dir.path().join("rec")
    }

    fn with_options(&self, setup: Setup) -> Server {
        Self::with_these(&self.pebble.options(DOMAIN), setup)
    }

    fn with_these(options: &[String; 6], setup: Setup) -> Server {
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
    Arc::get_mut(&mut site.pebble).expect("nobody else has it").kill();
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

/// The name of a certificate by RFC 9773, section 4.1, as openssl reads the certificate.
fn name_of(certificate: &Path) -> String {
    let read = |what: &[&str]| {
        let told = Command::new("openssl")
            .args(["x509", "-noout", "-in"])
            .arg(certificate)
            .args(what)
            .output()
            .expect("openssl runs");
        let told = String::from_utf8(told.stdout).unwrap();
        let last = told.trim().rsplit(['=', '\n']).next().unwrap_or_default();
        let hex: String = last.chars().filter(char::is_ascii_hexdigit).collect();
        assert!(!hex.is_empty() && hex.len().is_multiple_of(2), "{what:?}: {told}");
        let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        let mut bytes: Vec<u8> = pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
        if what == ["-serial"] && bytes[0] >= 0x80 {
            bytes.insert(0, 0);
        }
        URL_SAFE_NO_PAD.encode(bytes)
    };
    [read(&["-ext", "authorityKeyIdentifier"]), read(&["-serial"])].join(".")
}

/// The time that the last line of the log with these words has in a field.
fn told_time(server: &Server, words: &str, field: &str) -> Option<Timestamp> {
    let lines = server.log_lines();
    let line = lines.iter().rfind(|line| line.contains(words))?;
    let value = line.split(&format!(" {field}=")).nth(1)?.split(' ').next()?;
    value.parse().ok()
}

#[test]
fn a_renewal_comes_when_the_acme_server_suggests_it_and_names_the_certificate_it_replaces() {
    let site = Site::new(LONG);
    let renewals = Renewals::start(&site.pebble);
    let ca = site.dir.path().join("proxy.pem");
    fs::write(&ca, &renewals.certificate).unwrap();
    let options = options(DOMAIN, renewals.address, ca.to_str().unwrap());
    let start = || {
        let setup = Setup::on_socket(&site.socket, &site.recordings());
        Site::with_these(&options, setup.env("CALLREEL_LOG", "info,callreel::acme=debug"))
    };
    let mut server = start();
    let first = site.await_other(&server, None);
    let first_name = name_of(&site.folder().join(format!("{DOMAIN}.pem")));
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    let is_due_in = |server: &Server, [start, end]: [Timestamp; 2]| {
        eventually(PATIENCE, "the time of the renewal", || {
            let due = told_time(server, "has a certificate that is renewed", "due");
            due.filter(|due| (start..=end).contains(due))
        })
    };
    let hours =
        |from: i64, to: i64| [from, to].map(|hours| now + SignedDuration::from_hours(hours));

    // The server suggests nothing yet: the renewal is due when a third of the day is left.
    server.wait_for_log("suggests no time");
    is_due_in(&server, hours(15, 17));
    assert_eq!(renewals.asked(), std::slice::from_ref(&first_name));

    renewals.suggest(&first_name, hours(5, 6));
    server.signal(Signal::HUP);
    let time = is_due_in(&server, hours(5, 6));
    let suggested = server.wait_for_log("suggests this time");
    assert!(suggested.contains(EXPLANATION), "{suggested}");
    assert_eq!(told_time(&server, "suggests this time", "time"), Some(time));
    assert_eq!(site.await_other(&server, None), first, "it is not due yet");

    // Never later than the last sixth of its life: a failure needs time for further tries.
    renewals.suggest(&first_name, hours(30, 40));
    server.signal(Signal::HUP);
    is_due_in(&server, hours(19, 21));

    // A window that is over: the certificate is about to be revoked, for instance. Within an hour of the last
    // order no other follows; a restart forgets that time.
    renewals.suggest(&first_name, hours(-2, -1));
    server.signal(Signal::HUP);
    is_due_in(&server, hours(-2, -1));
    assert_eq!(site.await_other(&server, None), first);
    assert_eq!(renewals.replaced(), [""]);
    server.stop();
    let server = start();
    let second = site.await_other(&server, Some(&first));
    assert_eq!(renewals.replaced(), ["", &first_name]);
    let second_name = name_of(&site.folder().join(format!("{DOMAIN}.pem")));
    assert_ne!(second_name, first_name);
    is_due_in(&server, hours(15, 17));
    assert_eq!(renewals.asked().last(), Some(&second_name));
    assert_eq!(site.await_other(&server, None), second);
    assert_eq!(site.pebble.counts(), (1, 2));
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
