//! Errors of TLS and of addresses, each told apart with its remedy.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use base64ct::{Base64, Encoding as _};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::harness::process::{Server, Setup, callreel};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const PUBLIC_URL: &str = "https://calls.example.com";

/// A self-signed certificate for `localhost`, and its key.
const CERTIFICATE: &str = "\
    MIIBoDCCAUagAwIBAgIUecyERMDuDlWYGRfQ0zTggyIewRowCgYIKoZIzj0EAwIwGDEWMBQGA1UEAwwNY2Fs\
    bHJlZWwgdGVzdDAgFw0yNjExMjcxMTEwNDZaGA8yMTI2MTEwMzExMTA0NlowGDEWMBQGA1UEAwwNY2FsbHJl\
    ZWwgdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABGc/MTSmOtZXC79bzu8X51sRPnDa0JG644TDB/qA\
    zpqLjJ9uzPwyeDjK9OtS9bo/XEWm3viXb7NE67Adp0lsMOOjbDBqMB0GA1UdDgQWBBS1RlmWnK61CKzr3oDJ\
    +vzIjxPo3TAfBgNVHSMEGDAWgBS1RlmWnK61CKzr3oDJ+vzIjxPo3TAaBgNVHREEEzARgglsb2NhbGhvc3SH\
    BH8AAAEwDAYDVR0TAQH/BAIwADAKBggqhkjOPQQDAgNIADBFAiEAnqYpP5SIJpEc69q8EWpmM8StWb0Lq2Bc\
    EZYtp4b2ZIcCIAyBLeFuRx8+V4YcwNMZNnyUJ8vwnnzMYys+8OzgrmrX\
    ";
/// The key of [`CERTIFICATE`].
const KEY: &str = "\
    MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgy3vwlVcy+5Pa5g+43mjn3XepVh56LJ/LrNvK\
    s9d4zoOhRANCAARnPzE0pjrWVwu/W87vF+dbET5w2tCRuuOEwwf6gM6ai4yfbsz8Mng4yvTrUvW6P1xFpt74\
    l2+zROuwHadJbDDj\
    ";
/// The only authority that the caller trusts here.
const OTHER_CERTIFICATE: &str = "\
    MIIBrDCCAVOgAwIBAgIUb4afsRgD+tKh8k8gu+nm2os8UlkwCgYIKoZIzj0EAwIwKzEpMCcGA1UEAwwgY2Fs\
    bHJlZWwgdGVzdCwgYW5vdGhlciBhdXRob3JpdHkwIBcNMjYxMTI3MTExMDQ2WhgPMjEyNjExMDMxMTEwNDZa\
    MCsxKTAnBgNVBAMMIGNhbGxyZWVsIHRlc3QsIGFub3RoZXIgYXV0aG9yaXR5MFkwEwYHKoZIzj0CAQYIKoZI\
    zj0DAQcDQgAEdEGKrKPMpE0mXGnWbWVQC4IvAs0DmkvGoq+fJmWaC7a/DnjLdccy0aaaH5dAJFAT09XiqZp5\
    G1XE2RceITr3C6NTMFEwHQYDVR0OBBYEFAtNRIOCKmqRqFnEOKxMBL26e1bbMB8GA1UdIwQYMBaAFAtNRIOC\
    KmqRqFnEOKxMBL26e1bbMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDRwAwRAIgf18/XVX47eMWtE5D\
    ctJdOc3iSCvBnJ5MJQsMnNJbVVcCIFP9nS0DNhF5dCy4ZEV8V1uWu4nIMgpJoqUP6kbkDKw1\
    ";

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
    let pem =
        format!("-----BEGIN CERTIFICATE-----\n{OTHER_CERTIFICATE}\n-----END CERTIFICATE-----\n");
    fs::write(&trusted, pem).unwrap();
    let mut call = Command::new(callreel());
    call.args(["call", "--duration", "200ms"]).args(options);
    call.env("SSL_CERT_FILE", trusted).env_remove("SSL_CERT_DIR").env_remove("TWILIO_AUTH_TOKEN");
    let output = call.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// A server that shows [`CERTIFICATE`] to every connection.
fn self_signed() -> SocketAddr {
    let certificate = Base64::decode_vec(CERTIFICATE).unwrap();
    let key = PrivatePkcs8KeyDer::from(Base64::decode_vec(KEY).unwrap());
    let config = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.into()], key.into())
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
