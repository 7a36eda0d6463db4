//! Errors of TLS and of addresses, each told apart with its remedy.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use rcgen::{CertificateParams, CertifiedKey, DnType, KeyPair};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::harness::process::{Server, Setup, callreel};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const PUBLIC_URL: &str = "https://calls.example.com";

#[test]
fn tls_to_a_port_without_it_and_a_self_signed_certificate_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let plain = server.address;
    let tls = self_signed();
    for (scheme, stage) in [("https", "Twilio: 11220, "), ("wss", "Twilio: 31910, ")] {
        let said = complaint(dir.path(), &["--url", &format!("{scheme}://{plain}/media-stream")]);
        assert!(said.contains("that port seems to speak no TLS") && said.contains(stage), "{said}");
    }
    for (scheme, stage) in [("https", "Twilio: 11237, "), ("wss", "Twilio: 31910, ")] {
        let said = complaint(dir.path(), &["--url", &format!("{scheme}://{tls}/media-stream")]);
        let expected = "the certificate is self-signed or of an unknown authority";
        assert!(said.contains(expected) && said.contains(stage), "{said}");
    }
}

#[test]
fn no_signature_another_url_and_no_path_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path()).args(&["--public-url", PUBLIC_URL]);
    let server = setup.env("TWILIO_AUTH_TOKEN", TOKEN).start();
    for (path, scheme) in [("/incoming-call", "http"), ("/media-stream", "ws")] {
        let url = format!("{scheme}://{}{path}", server.address);
        let said = complaint(dir.path(), &["--url", &url]);
        assert!(said.contains("; the request had no signature: give the auth token"), "{said}");
        let said = complaint(dir.path(), &["--url", &url, "--auth-token", TOKEN]);
        let expected = format!("; it was signed for {url}: if the server's log names another URL");
        assert!(said.contains(&expected) && said.contains("else the auth tokens differ"), "{said}");
        let log = server.wait_for_log("X-Twilio-Signature is for another URL");
        assert!(log.contains(PUBLIC_URL) || log.contains("wss://calls.example.com"), "{log}");
    }
    let said = complaint(dir.path(), &["--url", &format!("ws://{}", server.address)]);
    let expected = "; the URL has no path: callreel's streams are at /media-stream, its webhook is \
                    at /incoming-call (Twilio: 31920, ";
    assert!(said.contains(expected), "{said}");
}

/// The standard error of `callreel call` with these options, which must fail.
fn complaint(dir: &Path, options: &[&str]) -> String {
    let trusted = dir.join("trusted.pem");
    fs::write(&trusted, certificate("another authority").cert.pem()).unwrap();
    let mut call = Command::new(callreel());
    call.args(["call", "--duration", "200ms"]).args(options);
    call.env("SSL_CERT_FILE", trusted).env_remove("SSL_CERT_DIR").env_remove("TWILIO_AUTH_TOKEN");
    let output = call.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// A new self-signed certificate of `subject` for `localhost`, and its key.
fn certificate(subject: &str) -> CertifiedKey<KeyPair> {
    let names = ["localhost", "127.0.0.1"].map(str::to_owned);
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, subject);
    let signing_key = KeyPair::generate().unwrap();
    let cert = params.self_signed(&signing_key).unwrap();
    CertifiedKey { cert, signing_key }
}

/// A server that shows a self-signed certificate to every connection.
fn self_signed() -> SocketAddr {
    let CertifiedKey { cert, signing_key } = certificate("callreel test");
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into())
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut tls = StreamOwned::new(connection, socket.unwrap());
            let _ = tls.read(&mut [0; 4096]);
            let _ = tls.flush();
        }
    });
    address
}
