//! An ACME server that suggests times for renewals (RFC 9773): a proxy in front of Pebble, whose release in
//! Debian suggests none. Requests and answers go through as they are, but for the directory, the answers to
//! new orders and the suggestions.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, Weak};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use rcgen::CertifiedKey;
use serde_json::{Value, json};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::pebble::Pebble;
use super::pki;
use super::receiver::is_whole;

/// Path of the suggestions.
const PATH: &str = "/renewal-info";

/// The page that explains the suggestions.
pub(crate) const EXPLANATION: &str = "https://ca.example.com/why";

type Line = StreamOwned<ServerConnection, TcpStream>;

/// The proxy; it ends with the process.
pub(crate) struct Renewals {
    pub(crate) address: SocketAddr,
    /// The proxy's own certificate, in PEM: it is its own authority.
    pub(crate) certificate: String,
    shared: Arc<Shared>,
}

struct Shared {
    address: SocketAddr,
    /// Weak: the thread of the proxy outlives the test, and the ACME server must not.
    pebble: Weak<Pebble>,
    config: Arc<ServerConfig>,
    /// The suggestions, by the names of their certificates.
    windows: Mutex<BTreeMap<String, [Timestamp; 2]>>,
    /// The names of certificates that were asked for.
    asked: Mutex<Vec<String>>,
    /// The certificate that each order replaces, by its name; empty for a first one.
    replaced: Mutex<Vec<String>>,
}

impl Renewals {
    pub(crate) fn start(pebble: &Arc<Pebble>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let CertifiedKey { cert, .. } = &own;
        let shared = Arc::new(Shared {
            address,
            pebble: Arc::downgrade(pebble),
            config: pki::server_config(&own),
            windows: Mutex::default(),
            asked: Mutex::default(),
            replaced: Mutex::default(),
        });
        let renewals = Self { address, certificate: cert.pem(), shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let (socket, shared) = (socket.unwrap(), Arc::clone(&shared));
                std::thread::spawn(move || shared.serve(socket));
            }
        });
        renewals
    }

    /// Suggests this window for the renewal of a certificate from now on.
    pub(crate) fn suggest(&self, name: &str, window: [Timestamp; 2]) {
        self.shared.windows.lock().unwrap().insert(name.to_owned(), window);
    }

    /// The names of certificates that were asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// The certificate that each order replaces, by its name; empty for a first one.
    pub(crate) fn replaced(&self) -> Vec<String> {
        self.shared.replaced.lock().unwrap().clone()
    }
}

impl Shared {
    /// Serves the one request of a connection.
    fn serve(&self, socket: TcpStream) {
        let tls = ServerConnection::new(Arc::clone(&self.config)).unwrap();
        let mut line = StreamOwned::new(tls, socket);
        let Some(request) = read_request(&mut line) else { return };
        // The client may be gone.
        let Some(answer) = self.answer(&request) else { return };
        let _ = line.write_all(&answer);
        line.conn.send_close_notify();
        let _ = line.flush();
    }

    /// The answer to a request; `None` when the ACME server has ended.
    fn answer(&self, request: &[u8]) -> Option<Vec<u8>> {
        let text = String::from_utf8_lossy(request);
        let path = text.split(' ').nth(1).unwrap_or_default();
        if let Some(name) = path.strip_prefix(PATH) {
            return Some(self.suggestion(name.trim_start_matches('/')));
        }
        let end = text.find("\r\n").unwrap();
        let request = [&request[..end], b"\r\nConnection: close", &request[end..]].concat();
        let answer = self.pebble.upgrade()?.ask(&request);
        Some(match path {
            "/dir" => with_field(&answer, "renewalInfo", &self.url()),
            "/order-plz" => {
                let replaced = replaced_by(&request);
                self.replaced.lock().unwrap().push(replaced.clone());
                match replaced.as_str() {
                    "" => answer,
                    replaced => with_field(&answer, "replaces", replaced),
                }
            }
            _ => answer,
        })
    }

    fn url(&self) -> String {
        format!("https://{}{PATH}", self.address)
    }

    fn suggestion(&self, name: &str) -> Vec<u8> {
        self.asked.lock().unwrap().push(name.to_owned());
        let window = self.windows.lock().unwrap().get(name).copied();
        let (status, kind, body) = match window {
            Some([start, end]) => {
                let window = json!({ "start": start.to_string(), "end": end.to_string() });
                let body = json!({ "suggestedWindow": window, "explanationURL": EXPLANATION });
                ("200 OK", "application/json", body)
            }
            None => {
                let body = json!({ "type": "urn:ietf:params:acme:error:malformed" });
                ("404 Not Found", "application/problem+json", body)
            }
        };
        let body = body.to_string();
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nRetry-After: 21600\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

/// Reads a request; nothing if there is none.
fn read_request(line: &mut Line) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    let mut bytes = [0; 4096];
    while !is_whole(&request) {
        match line.read(&mut bytes) {
            Ok(count) if count > 0 => request.extend_from_slice(&bytes[..count]),
            _ => return None,
        }
    }
    Some(request)
}

/// The certificate that a new order says that it replaces; empty if it says none.
fn replaced_by(request: &[u8]) -> String {
    let start = request.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    let signed: Value = serde_json::from_slice(&request[start..]).unwrap();
    let order = URL_SAFE_NO_PAD.decode(signed["payload"].as_str().unwrap()).unwrap();
    let order: Value = serde_json::from_slice(&order).unwrap();
    order["replaces"].as_str().unwrap_or_default().to_owned()
}

/// An answer with one more field in its object of JSON.
fn with_field(answer: &[u8], name: &str, value: &str) -> Vec<u8> {
    let start = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    let Ok(mut object) = serde_json::from_slice::<Value>(&answer[start..]) else {
        return answer.to_vec();
    };
    object[name] = value.into();
    let body = object.to_string();
    let head = String::from_utf8_lossy(&answer[..start - 4]);
    let kept = head.lines().filter(|line| !line.to_lowercase().starts_with("content-length:"));
    let kept: String = kept.map(|line| format!("{line}\r\n")).collect();
    format!("{kept}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
