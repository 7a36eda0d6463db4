//! Pebble, the ACME server of Let's Encrypt for tests, as a process: with a DNS server of its own, in
//! which all names are on this machine.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::json;
use tokio_rustls::rustls::StreamOwned;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use super::pki::Authority;
use super::process::{PATIENCE, eventually, free_address};

/// An ACME server; killed when dropped.
pub(crate) struct Pebble {
    server: Child,
    names: Child,
    names_control: SocketAddr,
    /// The authority of the ACME server's own certificate.
    authority: Authority,
    address: SocketAddr,
    control: SocketAddr,
    dir: tempfile::TempDir,
}

impl Pebble {
    /// Starts an ACME server that asks for challenges at `challenged`, a port of this machine, and gives
    /// out certificates that are valid for `seconds`.
    pub(crate) fn start(challenged: SocketAddr, seconds: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [address, control, names, names_control] = [(); 4].map(|()| free_address());
        let authority = Authority::new("Pebble's own");
        let pair = authority.issue(|_| ());
        pair.write(dir.path());
        let config = json!({ "pebble": {
            "listenAddress": address.to_string(),
            "managementListenAddress": control.to_string(),
            "certificate": dir.path().join("cert.pem"),
            "privateKey": dir.path().join("key.pem"),
            "httpPort": 1,
            "tlsPort": challenged.port(),
            "certificateValidityPeriod": seconds,
        } });
        fs::write(dir.path().join("pebble.json"), config.to_string()).unwrap();
        let names_log = File::create(dir.path().join("names.log")).unwrap();
        let names_arguments = [
            ("-dns01", names.to_string()),
            ("-management", names_control.to_string()),
            ("-defaultIPv6", String::new()),
            ("-http01", String::new()),
            ("-https01", String::new()),
            ("-tlsalpn01", String::new()),
        ];
        let names_server = Command::new("pebble-challtestsrv")
            .args(names_arguments.iter().flat_map(|(name, value)| [*name, value.as_str()]))
            .stdin(Stdio::null())
            .stdout(names_log.try_clone().unwrap())
            .stderr(names_log)
            .spawn();
        let log = File::create(dir.path().join("pebble.log")).unwrap();
        let server = Command::new("pebble")
            .arg("-config")
            .arg(dir.path().join("pebble.json"))
            .args(["-dnsserver", &names.to_string()])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_AUTHZREUSE", "0")
            .env("PEBBLE_WFE_NONCEREJECT", "0")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        let started = "pebble and pebble-challtestsrv start: Debian's package pebble";
        let pebble = Self {
            server: server.expect(started),
            names: names_server.expect(started),
            names_control,
            authority,
            address,
            control,
            dir,
        };
        for port in [names_control, control, address] {
            eventually(PATIENCE, "pebble listens", || TcpStream::connect(port).ok());
        }
        pebble
    }

    /// The options of a recorder that gets its certificate here.
    pub(crate) fn options(&self, domain: &str) -> [String; 6] {
        let ca = self.authority.write(self.dir.path()).to_str().unwrap().to_owned();
        options(domain, self.address, &ca)
    }

    /// Sends it a request of HTTP/1.0, or one that ends the connection; returns the answer.
    pub(crate) fn ask(&self, request: &[u8]) -> Vec<u8> {
        self.ask_at(self.address, request)
    }

    fn ask_at(&self, address: SocketAddr, request: &[u8]) -> Vec<u8> {
        let socket = TcpStream::connect(address).unwrap();
        let mut line = StreamOwned::new(self.authority.client(), socket);
        line.write_all(request).unwrap();
        let mut answer = Vec::new();
        // Go ends such a connection as it likes.
        let _ = line.read_to_end(&mut answer);
        answer
    }

    /// The root of the certificates that it gives out.
    pub(crate) fn root(&self) -> CertificateDer<'static> {
        let answer = self.ask_at(self.control, b"GET /roots/0 HTTP/1.0\r\n\r\n");
        CertificateDer::from_pem_slice(&answer).expect("a certificate")
    }

    /// Makes all names lead to another address of this machine from now on.
    pub(crate) fn lead_names_to(&self, ip: &str) {
        let body = json!({ "ip": ip }).to_string();
        let mut socket = TcpStream::connect(self.names_control).unwrap();
        let head = format!("POST /set-default-ipv4 HTTP/1.0\r\nContent-Length: {}", body.len());
        write!(socket, "{head}\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 200 "), "{answer}");
    }

    /// The number of accounts and of orders that it has seen.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let log = fs::read_to_string(self.log()).unwrap();
        let count = |text: &str| log.matches(text).count();
        (count("POST /sign-me-up ->"), count("Added order "))
    }

    /// Ends it.
    pub(crate) fn kill(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("pebble.log")
    }
}

/// The options of a recorder that gets its certificate from the server at `address`, whose authority's file
/// is `ca`.
pub(crate) fn options(domain: &str, address: SocketAddr, ca: &str) -> [String; 6] {
    let url = format!("https://{address}/dir");
    ["--acme", domain, "--acme-url", &url, "--acme-ca", ca].map(str::to_owned)
}

impl Drop for Pebble {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("Pebble's log:\n{}", fs::read_to_string(self.log()).unwrap_or_default());
        }
        for child in [&mut self.server, &mut self.names] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
