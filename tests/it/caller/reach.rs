//! Errors of TLS and of addresses, each told apart with its remedy.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::thread;

use rcgen::{CertificateParams, CertifiedKey, DnType, KeyPair};
use tokio_rustls::rustls::{ServerConnection, StreamOwned};

use crate::harness::pki;
use crate::harness::process::{Setup, callreel, free_address};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const OTHER_TOKEN: &str = "fedcba9876543210fedcba9876543210";
const PUBLIC_URL: &str = "https://calls.example.com";

#[test]
fn tls_to_a_port_without_it_and_a_self_signed_certificate_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).plain().start();
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
fn a_private_authority_is_trusted_if_named_and_the_certificate_is_shown() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), pki::Authority::new("Private"));
    let files = authority.issue(|_| ()).write(dir.path());
    let files = files.each_ref().map(String::as_str);
    let server = Setup::new(&dir.path().join("rec")).args(&files).start();
    let openssl = ["x509", "-in", files[1], "-noout", "-fingerprint", "-sha256"];
    let fingerprint = Command::new("openssl").args(openssl).output().unwrap();
    let fingerprint = String::from_utf8(fingerprint.stdout).unwrap();
    let digits = fingerprint.trim().split('=').nth(1).unwrap();
    let digits = digits.replace(':', "").to_ascii_lowercase();
    let shown =
        "for localhost, 127.0.0.1, issued by Private, valid until 4096-01-01T00:00:00Z, SHA-256 ";

    let url = format!("wss://{}/media-stream", server.address);
    let said = complaint(dir.path(), &["--url", &url]);
    let expected =
        format!("give --ca FILE or set SSL_CERT_FILE; the server's certificate is {shown}{digits}");
    assert!(said.contains(&expected), "{said}");

    let ca = authority.write(dir.path());
    let call = |more: &[&str]| {
        let mut call = Command::new(callreel());
        call.args(["call", "--duration", "200ms", "--url", &url, "--ca"]).arg(&ca).args(more);
        let output = call.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let said = call(&[]);
    assert!(said.contains(&format!("\ncertificate {shown}{digits}\n")), "{said}");
    let report: serde_json::Value = serde_json::from_str(&call(&["--json"])).unwrap();
    assert_eq!(report["certificate"]["sha256"], digits);
    assert_eq!(report["certificate"]["issuer"], "Private");

    let said = complaint(dir.path(), &["--url", &url, "--ca", files[3]]);
    assert!(said.contains("--ca: ") && said.contains("has no certificate to trust"), "{said}");
}

#[test]
fn plain_http_to_a_port_with_tls_is_told() {
    let dir = tempfile::tempdir().unwrap();
    // An alert of TLS, and the answers of nginx and of Caddy.
    let nginx = "<html>\r\n<head><title>400 The plain HTTP request was sent to HTTPS port</title></head>\r\n";
    let caddy = "Client sent an HTTP request to an HTTPS server.\n";
    for address in [self_signed(), canned(400, nginx), canned(400, caddy)] {
        for scheme in ["http", "ws"] {
            let said = complaint(dir.path(), &["--url", &format!("{scheme}://{address}/a")]);
            assert!(said.contains("that port speaks TLS: give wss:// or https://"), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
}

#[test]
fn a_wrong_token_a_wrong_url_and_no_signature_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path()).plain().args(&["--public-url", PUBLIC_URL]);
    let server = setup.env("TWILIO_AUTH_TOKEN", TOKEN).start();
    let wrong_token = "; the auth token is not the server's: give that one";
    for (path, plain, encrypted) in
        [("/incoming-call", "http", "https"), ("/media-stream", "ws", "wss")]
    {
        let url = format!("{plain}://{}{path}", server.address);
        let own = format!("{encrypted}://calls.example.com{path}");
        let say = |options: &[&str]| {
            let said = complaint(dir.path(), &[&["--url", &url][..], options].concat());
            assert!(said.contains("the request is not signed for this server: "), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
            said
        };
        let said = say(&[]);
        assert!(said.contains("; the request had no signature: give the auth token"), "{said}");
        let said = say(&["--auth-token", TOKEN]);
        let expected = format!(
            "the auth token is right, but X-Twilio-Signature is for {url}; the URL that was \
             checked is {own}; sign the URL that was checked (--sign-url)"
        );
        assert!(said.contains(&expected), "{said}");
        let log = server.wait_for_log(&format!("right auth token for {url}: set --public-url"));
        assert!(log.contains(&own), "{log}");
        let said = say(&["--auth-token", OTHER_TOKEN]);
        assert!(said.contains(wrong_token) && !said.contains("calls.example.com"), "{said}");
        let misspelt = format!("{encrypted}://call.example.com{path}");
        let said = say(&["--auth-token", TOKEN, "--sign-url", &misspelt]);
        let expected = format!(
            "; the auth token is right, but the URL {misspelt} is not the server's: sign {own} "
        );
        assert!(said.contains(&expected), "{said}");
        let said = say(&["--auth-token", OTHER_TOKEN, "--sign-url", &misspelt]);
        assert!(said.contains(wrong_token) && !said.contains("calls.example.com"), "{said}");
    }
}

#[test]
fn a_url_that_the_server_takes_as_it_is_called_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let public_url = format!("http://{address}");
    let args = ["--listen", &address.to_string(), "--public-url", &public_url];
    let _server =
        Setup::new(dir.path()).plain().args(&args).env("TWILIO_AUTH_TOKEN", TOKEN).start();
    let url = format!("{public_url}/incoming-call");
    let signed = ["--auth-token", TOKEN, "--sign-url", "https://calls.example.com/incoming-call"];
    let said = complaint(dir.path(), &[&["--url", &url][..], &signed].concat());
    let expected = format!("is not the server's: sign {url} (--sign-url)");
    assert!(said.contains(&expected), "{said}");
}

#[test]
fn a_url_with_a_wrong_path_or_scheme_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).plain().start();
    let paths = "callreel's streams are at /media-stream, its webhook is at /incoming-call";
    let no_path = format!("; the URL has no path: {paths}");
    for (scheme, path, expected) in [
        ("ws", "", &no_path[..]),
        ("http", "", "; the URL has no path: "),
        ("ws", "/media-streams", &format!("404: not found; {paths}")),
        ("http", "/incoming", &format!("404: not found; {paths}")),
        ("ws", "/incoming-call", "; that is a webhook: call it by http:// or https://"),
        ("http", "/media-stream", "; that is a stream: call it by wss:// or ws://"),
    ] {
        let url = format!("{scheme}://{}{path}", server.address);
        let said = complaint(dir.path(), &["--url", &url]);
        assert!(said.contains(expected), "{url}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let moved = format!("ws://{}/media-stream", canned(301, ""));
    let said = complaint(dir.path(), &["--url", &moved]);
    assert!(said.contains("; no stream follows a redirect: give the URL of its target"), "{said}");
    for url in ["127.0.0.1:5050/incoming-call", "localhost:5050", "/incoming-call"] {
        let said = complaint(dir.path(), &["--url", url]);
        assert!(said.contains("give ws://, wss://, http:// or https://"), "{said}");
    }
}

#[test]
fn a_port_where_nothing_listens_and_an_unknown_name_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    // No name has a label of 64 characters, so nobody is asked for it.
    let unknown = "a".repeat(64);
    for scheme in ["http", "ws"] {
        let said = complaint(dir.path(), &["--url", &format!("{scheme}://{}/a", free_address())]);
        assert!(said.contains("; nothing listens there: start the server"), "{said}");
        let said = complaint(dir.path(), &["--url", &format!("{scheme}://{unknown}/a")]);
        assert!(said.contains("; no address is known for that name: check its spelling"), "{said}");
    }
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
    let config = pki::server_config(&certificate("callreel test"));
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

/// A server that answers each request with this status and body.
fn canned(status: u16, body: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let _ = socket.read(&mut [0; 4096]);
            let length = body.len();
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n");
            // In one write: the caller looks at the bytes that come with the head.
            let _ = socket.write_all(format!("{head}Location: /\r\n\r\n{body}").as_bytes());
        }
    });
    address
}
