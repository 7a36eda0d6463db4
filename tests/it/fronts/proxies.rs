//! The snippets of `host/proxies`, in nginx, Caddy and HAProxy themselves.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rcgen::{CertificateParams, CertifiedKey, KeyPair};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::TOKEN;
use crate::harness::process::{PATIENCE, Server, Setup, callreel, eventually, free_address};
use crate::harness::shelf;

/// Begins each value that a user replaces, in the snippets.
const NAME: &str = "calls.example.com";

#[test]
fn the_snippet_for_nginx_carries_calls_live_audio_and_the_console() {
    let mut front = Front::new();
    let pem = front.file("certificate.pem", &front.certificate);
    let key = front.file("key.pem", &front.key);
    let snippet = snippet("nginx.conf")
        .replace("listen 443", &format!("listen {}", front.address))
        .replace("/etc/ssl/calls.example.com.pem", pem.to_str().unwrap())
        .replace("/etc/ssl/calls.example.com.key", key.to_str().unwrap());
    // `user`: as root, nginx would work as another one, who may not enter this directory.
    let around = "user root; daemon off; master_process off; pid nginx.pid; events {} \
                  http { access_log off; client_body_temp_path a; proxy_temp_path b; \
                  fastcgi_temp_path c; uwsgi_temp_path d; scgi_temp_path e;";
    let config = front.file("nginx.conf", &format!("{around}\n{}\n}}\n", front.local(&snippet)));
    let dir = front.dir.path().to_str().unwrap().to_owned();
    front.start("nginx", &["-e", "stderr", "-p", &dir, "-c", config.to_str().unwrap()]);
    front.check();
}

#[test]
fn the_snippet_for_caddy_carries_calls_live_audio_and_the_console() {
    let mut front = Front::new();
    let pem = front.file("certificate.pem", &front.certificate);
    let key = front.file("key.pem", &front.key);
    let site = format!("https://localhost:{} {{", front.address.port());
    let tls = format!("bind 127.0.0.1\n\ttls {} {}", pem.display(), key.display());
    let snippet = snippet("Caddyfile");
    let snippet = snippet.replace(&format!("\n{NAME} {{"), &format!("\n{site}\n\t{tls}"));
    let options = "{\n\tadmin off\n\tauto_https disable_redirects\n}\n";
    let config = front.file("Caddyfile", &format!("{options}{}", front.local(&snippet)));
    let config = config.to_str().unwrap();
    front.start("caddy", &["run", "--adapter", "caddyfile", "--config", config]);
    front.check();
}

#[test]
fn the_snippet_for_haproxy_carries_calls_live_audio_and_the_console() {
    let mut front = Front::new();
    let pem = front.file("both.pem", &format!("{}{}", front.certificate, front.key));
    let snippet = snippet("haproxy.cfg")
        .replace("bind :443", &format!("bind {}", front.address))
        .replace("/etc/haproxy/calls.example.com.pem", pem.to_str().unwrap());
    let config = front.file("haproxy.cfg", &front.local(&snippet));
    front.start("haproxy", &["-db", "-f", config.to_str().unwrap()]);
    front.check();
}

#[test]
fn the_short_forms_of_the_snippets_are_parts_of_them() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let mut blocks = 0;
    for (language, file) in
        [("nginx", "nginx.conf"), ("caddy", "Caddyfile"), ("haproxy", "haproxy.cfg")]
    {
        let whole = snippet(file);
        let known: Vec<&str> = whole.lines().map(str::trim).collect();
        for block in readme.split("```").skip(1).step_by(2) {
            let Some(lines) = block.strip_prefix(&format!("{language}\n")) else { continue };
            blocks += 1;
            for line in lines.lines() {
                let line = line.split(" # ").next().unwrap_or_default().trim();
                assert!(known.contains(&line), "README: {line:?} is not in host/proxies/{file}");
            }
        }
    }
    assert_eq!(blocks, 3);
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A file of `host/proxies`.
fn snippet(file: &str) -> String {
    fs::read_to_string(root().join("host/proxies").join(file)).unwrap()
}

/// A proxy with TLS in front of callreel, both on this machine.
struct Front {
    dir: tempfile::TempDir,
    server: Server,
    proxy: Option<Child>,
    address: SocketAddr,
    /// As PEM.
    certificate: String,
    key: String,
    der: CertificateDer<'static>,
}

impl Front {
    /// Starts callreel as the snippets say; [`Self::start`] starts the proxy.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = free_address();
        let public_url = format!("https://localhost:{}", address.port());
        let server = Setup::new(&dir.path().join("recordings"))
            .plain()
            .args(&["--public-url", &public_url, "--admin-token", TOKEN, "--auth-token", TOKEN])
            .env("CALLREEL_ADMIN", "127.0.0.1:0")
            .start();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let CertifiedKey { cert, signing_key } =
            CertifiedKey { cert: certificate, signing_key: key };
        let (certificate, key, der) = (cert.pem(), signing_key.serialize_pem(), cert.der().clone());
        Self { dir, server, proxy: None, address, certificate, key, der }
    }

    /// Writes a file of the proxy.
    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// The snippet with the name and the ports of this machine.
    fn local(&self, snippet: &str) -> String {
        let (public, admin) = (self.server.address, self.server.admin_address());
        let local = snippet.replace("127.0.0.1:5050", &public.to_string());
        local.replace("127.0.0.1:5051", &admin.to_string()).replace(NAME, "localhost")
    }

    /// Starts the proxy, and waits until it listens.
    fn start(&mut self, program: &str, args: &[&str]) {
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        let home = self.dir.path();
        let mut command = Command::new(program);
        command.args(args).env_clear().env("PATH", path).env("HOME", home).current_dir(home);
        let log = fs::File::create(home.join("proxy.log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let hint = format!("{program} is tested: apt-get install {program}");
        self.proxy = Some(command.spawn().expect(&hint));
        eventually(PATIENCE, "the proxy listens", || {
            let ended = self.proxy.as_mut().unwrap().try_wait().unwrap();
            assert_eq!(ended, None, "{}", fs::read_to_string(home.join("proxy.log")).unwrap());
            TcpStream::connect(self.address).ok()
        });
    }

    /// Places a call as Twilio does, and listens to it meanwhile.
    fn check(&self) {
        let console = self.ask("/callreel/").1;
        assert!(console.contains("<title>callreel</title>"), "{console}");
        assert_eq!(self.ask("/callreel/console/app.js").0, 200);
        let trusted = self.file("trusted.pem", &self.certificate);
        let mut call = Command::new(callreel());
        let webhook = format!("https://localhost:{}/incoming-call", self.address.port());
        call.args(["call", "--url", &webhook, "--auth-token", TOKEN, "--stream-sid", "MZfront"]);
        call.args(["--duration", "10m"]);
        call.env_clear().env("SSL_CERT_FILE", trusted);
        call.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let call = Ended(call.spawn().unwrap());
        eventually(PATIENCE, "the call is listed", || {
            self.ask("/callreel/api/v1/calls").1.contains("MZfront").then_some(())
        });
        // The call goes on for ten minutes: no proxy holds its audio back until it ends.
        let mut live = self.open("/callreel/api/v1/calls/0/listen?format=s16le");
        let mut audio = [0; 16_000];
        live.read_exact(&mut audio).expect("a second of live audio");
        assert!(audio.iter().any(|byte| *byte != 0));
        drop(live);
        call.hang_up();
        let recording = shelf::wait_for(&self.dir.path().join("recordings"), "MZfront");
        assert_eq!(recording.state(), ("complete", "stop"), "{:?}", recording.record);
        assert!(recording.samples().len() >= 8_000);
    }

    /// Asks through the proxy; returns the status and the answer.
    fn ask(&self, path: &str) -> (u16, String) {
        let (status, mut rest) = self.request(path, "Connection: close\r\n");
        let mut body = Vec::new();
        // The end of TLS is not always announced.
        let _ = rest.read_to_end(&mut body);
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    /// Asks through the proxy; returns what follows the head of the answer, a stream without chunks.
    fn open(&self, path: &str) -> impl std::io::Read {
        let (status, rest) = self.request(path, "");
        assert_eq!(status, 200, "{path}");
        rest
    }

    fn request(&self, path: &str, headers: &str) -> (u16, impl std::io::BufRead) {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut tls = StreamOwned::new(connection, socket);
        let host = format!("localhost:{}", self.address.port());
        write!(
            tls,
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n{headers}\r\n"
        )
        .unwrap();
        let mut answer = BufReader::new(tls);
        let mut line = String::new();
        answer.read_line(&mut line).unwrap();
        let status = line.get(9..12).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no answer to {path}: {line:?}"));
        while line != "\r\n" {
            line.clear();
            assert_ne!(answer.read_line(&mut line).unwrap(), 0, "the head ends");
        }
        (status, answer)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("proxy.log")).unwrap_or_default();
            eprintln!("the proxy's log:\n{log}");
        }
        if let Some(proxy) = &mut self.proxy {
            let _ = proxy.kill();
            let _ = proxy.wait();
        }
    }
}

/// A call that ends with its test.
struct Ended(Child);

impl Ended {
    /// Ends the call in good order, as Ctrl-C does.
    fn hang_up(mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
