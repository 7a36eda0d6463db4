//! The way to a receiver: certificates, proxies, and the command that tries it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::Value;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{command, said};
use crate::backlog::SECRET;
use crate::harness::admin::shelve;
use crate::harness::receiver::{read_request, receivers, request_on};

/// The certificate of a server, and that of its authority as PEM.
struct Chain {
    server: CertificateDer<'static>,
    key: KeyPair,
    authority: String,
}

fn params(name: &str, is_authority: bool) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    if is_authority {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params
}

/// A certificate of a private authority.
fn private() -> Chain {
    let ca = params("private authority", true);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = params("server", false).signed_by(&key, &ca).unwrap();
    Chain { server: server.der().clone(), key, authority: ca.pem() }
}

/// A self-signed certificate that is its own authority, as `openssl req -x509` makes them.
fn self_signed() -> Chain {
    let key = KeyPair::generate().unwrap();
    let server = params("self-signed", true).self_signed(&key).unwrap();
    Chain { server: server.der().clone(), key, authority: server.pem() }
}

/// A server with this certificate that takes every message.
fn serve(chain: &Chain) -> SocketAddr {
    let key = PrivatePkcs8KeyDer::from(chain.key.serialize_der());
    let config = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![chain.server.clone()], key.into())
        .unwrap();
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut tls = StreamOwned::new(connection, socket.unwrap());
            if tls.read(&mut [0; 16 << 10]).is_ok() {
                let _ = tls.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
                let _ = tls.flush();
            }
        }
    });
    address
}

/// The exit code and the output of a test of the receiver at `url`.
fn try_it(url: &str, arguments: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let arguments = [&["test", "--url", url], arguments].concat();
    let output = command(&arguments, &[&[("CALLREEL_WEBHOOK_SECRET", SECRET)], env].concat());
    (output.status.code(), said(&output))
}

#[test]
fn a_private_authority_and_a_self_signed_certificate_are_trusted_if_they_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let stranger = dir.path().join("stranger.pem");
    fs::write(&stranger, private().authority).unwrap();
    let stranger = stranger.to_str().unwrap();
    for (name, chain) in [("private", private()), ("self-signed", self_signed())] {
        let url = format!("https://localhost:{}/", serve(&chain).port());
        let file = dir.path().join(format!("{name}.pem"));
        fs::write(&file, &chain.authority).unwrap();
        let file = file.to_str().unwrap();
        for (arguments, env) in [
            (&["--ca", file][..], &[("SSL_CERT_FILE", stranger)][..]),
            (&[], &[("CALLREEL_WEBHOOK_CA", file)]),
            (&[], &[("SSL_CERT_FILE", file)]),
        ] {
            let (code, said) = try_it(&url, arguments, env);
            assert!(code == Some(0) && said.contains(": 204 No Content"), "{name}: {said}");
        }
        let (code, said) = try_it(&url, &["--ca", stranger], &[]);
        let hint = "trust it by --webhook-ca FILE or SSL_CERT_FILE";
        assert!(code == Some(1) && said.contains(hint), "{name}: {said}");
        // Trusted, but for another name.
        let other = url.replace("localhost", "127.0.0.1");
        let (code, said) = try_it(&other, &["--ca", file], &[]);
        let hint = "use the name for which the certificate was issued";
        assert!(code == Some(1) && said.contains(hint), "{name}: {said}");
    }
    let (url, _received) = receivers(|_| Some("204 No Content".to_owned()));
    let (code, said) = try_it(&url.replace("http:", "https:"), &["--ca", stranger], &[]);
    assert!(code == Some(1) && said.contains("that port seems to speak no TLS"), "{said}");
}

#[test]
fn a_receiver_is_asked_through_the_proxy_of_the_environment() {
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://user:pass@{}", proxy.local_addr().unwrap());
    let asked = thread::spawn(move || {
        let (mut socket, _) = proxy.accept().unwrap();
        let connect = request_on(&mut socket);
        socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let (headers, _) = read_request(&mut socket);
        socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        (connect, headers)
    });
    let env = [("HTTP_PROXY", address.as_str()), ("NO_PROXY", "127.0.0.1")];
    let (code, said) = try_it("http://receiver.invalid/hook", &[], &env);
    assert!(code == Some(0) && !said.contains("pass"), "{said}");
    let (connect, headers) = asked.join().unwrap();
    assert!(connect.starts_with("CONNECT receiver.invalid:80 HTTP/1.1\r\n"), "{connect}");
    assert!(connect.contains("Proxy-Authorization: Basic dXNlcjpwYXNz\r\n"), "{connect}");
    assert_eq!((&*headers[":path"], &*headers["host"]), ("/hook", "receiver.invalid"));
    let (url, _received) = receivers(|_| Some("204 No Content".to_owned()));
    assert_eq!(try_it(&url, &[], &env).0, Some(0), "not through the proxy");
}

#[test]
fn the_test_of_a_receiver_sends_a_sample_or_the_newest_record_and_tells_the_answer() {
    let (url, received) = receivers(|(headers, _)| {
        let is_good = headers[":path"] != "/bad";
        Some(if is_good { "202 Accepted" } else { "401 Unauthorized" }.to_owned())
    });
    let next = || {
        let ((headers, body), _) = received.recv().unwrap();
        (headers, serde_json::from_str::<Value>(&body).unwrap())
    };
    let good = format!("{url}/good?key=hidden");
    let (code, told) = try_it(&good, &[], &[]);
    let (headers, message) = next();
    assert_eq!((code, &message["type"]), (Some(0), &"webhook.test".into()));
    let shown = format!("{url}/good?...: 202 Accepted, it took the message");
    assert!(told.contains(&shown) && !told.contains("hidden") && !told.contains(SECRET), "{told}");
    assert!(told.contains(&headers["webhook-signature"]), "{told}");
    serde_json::from_value::<callreel::record::Record>(message["data"].clone()).unwrap();

    let dir = tempfile::tempdir().unwrap();
    shelve(dir.path(), "2026-01-01", "MZold");
    shelve(dir.path(), "2026-01-02", "MZnew");
    let home = dir.path().to_str().unwrap();
    let both = format!("{url}/bad {url}/good");
    let output = command(
        &["test", "--dir", home],
        &[("CALLREEL_WEBHOOK", &both), ("CALLREEL_WEBHOOK_SECRET", SECRET)],
    );
    let told = said(&output);
    assert!(output.status.code() == Some(1) && told.contains("/bad: 401 Unauthorized"), "{told}");
    assert_eq!(
        (&next().1["data"]["id"], &next().1["data"]["id"]),
        (&"MZnew".into(), &"MZnew".into())
    );

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, told) = try_it(&format!("http://{closed}/"), &[], &[]);
    assert!(code == Some(1) && told.contains("Connection refused"), "{told}");
    assert_eq!(command(&["test"], &[]).status.code(), Some(2));
}
