//! Clients of other makes: versions, resumption, and the ways in which they end a connection.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Secured, run};
use crate::harness::packages;
use crate::harness::peer::pcm;
use crate::harness::pki::Authority;
use crate::harness::process::{PATIENCE, callreel, eventually, free_address};
use crate::harness::shelf;

/// The package that places the calls, with its version.
const WS: &str = "ws@8.23.0";

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

#[test]
fn node_places_a_call_by_each_version_and_gets_no_compression() {
    let secured = Secured::start(&[]);
    let ca = secured.authority.write(secured.dir.path());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("it/harness/ws_call.js");
    for (version, id) in [("TLSv1.2", "MZold"), ("TLSv1.3", "MZnew")] {
        let sent = secured.dir.path().join(id);
        let mut node = Command::new("node");
        node.arg(&script).arg(secured.url("wss", "/media-stream")).arg(&ca).args([version, id]);
        let called = node
            .arg(&sent)
            .env("NODE_PATH", packages::node("ws", &[WS]))
            .output()
            .expect("Node.js");
        let said = String::from_utf8_lossy(&called.stdout);
        let errors = String::from_utf8_lossy(&called.stderr);
        assert_eq!(said, format!("{version} extensions=\nclosed with 1000\n"), "{errors}");
        let finished = shelf::wait_for(&secured.recordings(), id);
        assert_eq!(finished.state(), ("complete", "stop"), "{version}");
        assert!(finished.samples() == pcm(&fs::read(sent).unwrap()), "{version}: other samples");
    }
}

#[test]
fn a_call_offers_the_cipher_that_it_is_told_and_no_other() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new("Test"));
    authority.issue(|_| ()).write(dir.path());
    let (address, ca) = (free_address(), authority.write(dir.path()));
    let mut server = Command::new("openssl")
        .args(["s_server", "-www", "-ciphersuites", "TLS_AES_128_GCM_SHA256"])
        .args(["-accept", &address.to_string(), "-cert", "cert.pem", "-key", "key.pem"])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl runs");
    eventually(PATIENCE, "openssl listens", || TcpStream::connect(address).ok());
    let said = |cipher: &str| {
        let url = format!("wss://localhost:{}/", address.port());
        let mut call = Command::new(callreel());
        let called = call.args(["call", "--url", &url, "--cipher", cipher, "--ca"]).arg(&ca);
        String::from_utf8_lossy(&called.output().unwrap().stderr).into_owned()
    };
    let (same, other) = (said("TLS13_AES_128_GCM_SHA256"), said("TLS13_AES_256_GCM_SHA384"));
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(same.contains("no WebSocket handshake"), "behind the handshake of TLS: {same}");
    assert!(other.contains("no TLS") && other.contains("HandshakeFailure"), "{other}");
    assert!(said("AES").contains("TLS13_CHACHA20_POLY1305_SHA256"), "the error lists the names");
}

#[test]
fn gnutls_finds_two_versions_and_gets_its_answer_behind_its_own_end() {
    let secured = Secured::start(&[]);
    let ca = secured.authority.write(secured.dir.path());
    let port = secured.server.address.port().to_string();
    let ask = |priority: &str| {
        let args = ["--x509cafile", ca.to_str().unwrap(), "--port", &port, "--alpn", "http/1.1"];
        // It ends its side in TLS when its input ends, which is before the answer comes.
        run("gnutls-cli", &[&args[..], &["--priority", priority, "localhost"]].concat(), REQUEST)
    };
    for version in ["TLS1.2", "TLS1.3"] {
        let (code, said) = ask(&format!("NORMAL:-VERS-ALL:+VERS-{version}"));
        assert_eq!(code, Some(0), "{version}: {said}");
        let found = ["Handshake was completed", "callreel is running", "http/1.1"];
        assert!(found.iter().all(|words| said.contains(words)), "{version}: {said}");
        // And the server has ended its side in TLS, too.
        let words = [&format!("({version}-"), "Peer has closed the GnuTLS connection"];
        assert!(words.iter().all(|words| said.contains(*words)), "{version}: {said}");
    }
    for version in ["TLS1.0", "TLS1.1"] {
        let (code, said) = ask(&format!("NORMAL:-VERS-ALL:+VERS-{version}"));
        assert!(code != Some(0) && said.contains("Received alert"), "{version}: {said}");
    }
}

#[test]
fn sessions_are_resumed_and_none_is_renegotiated() {
    let secured = Secured::start(&[]);
    let ca = secured.authority.write(secured.dir.path());
    let host = format!("localhost:{}", secured.server.address.port());
    let session = secured.dir.path().join("session.pem");
    let session = session.to_str().unwrap();
    let client = |more: &[&str], input: &str| {
        let args = ["s_client", "-connect", &host, "-CAfile", ca.to_str().unwrap()];
        run("openssl", &[&args[..], more].concat(), input)
    };
    for version in ["-tls1_2", "-tls1_3"] {
        let (_, said) = client(&[version, "-ign_eof", "-sess_out", session], REQUEST);
        assert!(said.contains("callreel is running") && !said.contains("Reused, "), "{said}");
        let (_, said) = client(&[version, "-ign_eof", "-sess_in", session], REQUEST);
        assert!(said.contains("callreel is running") && said.contains("Reused, "), "{said}");
    }
    // The letter asks for another handshake on the connection.
    let (code, said) = client(&["-tls1_2"], "R\n");
    assert!(said.contains("RENEGOTIATING") && said.contains("no renegotiation"), "{said}");
    assert_ne!(code, Some(0), "{said}");
}
