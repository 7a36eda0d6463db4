//! The files of a certificate: replaced while the server runs, and refused when they cannot be used.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use callreel::tls::{Certificate, Config};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustix::process::Signal;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use super::{Secured, UPGRADE, await_end, await_upgrade, frames};
use crate::harness::pki::{Authority, Pair};
use crate::harness::process::{PATIENCE, Setup, eventually};

/// The certificate that the server shows.
fn shown(secured: &Secured) -> CertificateDer<'static> {
    let line = secured.connect();
    line.conn.peer_certificates().unwrap()[0].clone().into_owned()
}

#[test]
fn a_renewed_certificate_is_taken_over_and_a_broken_one_is_not() {
    let secured = Secured::start(&[]);
    let dir = secured.dir.path();
    let first = shown(&secured);
    let mut line = secured.connect();
    line.write_all(UPGRADE.as_bytes()).unwrap();
    await_upgrade(&mut line);
    let frames = frames("MZ1", 100);
    line.write_all(&frames[..50].concat()).unwrap();
    // Links that move, as certbot leaves them.
    let place = |name: &str, pair: &Pair| {
        let live = dir.join(name);
        fs::create_dir(&live).unwrap();
        pair.write(&live);
        for file in ["cert.pem", "key.pem"] {
            let _ = fs::remove_file(dir.join(file));
            symlink(live.join(file), dir.join(file)).unwrap();
        }
    };
    place("second", &secured.authority.issue(|_| ()));
    let second = eventually(PATIENCE, "the second certificate is shown", || {
        Some(shown(&secured)).filter(|cert| *cert != first)
    });
    let mut broken = secured.authority.issue(|_| ());
    broken.key = KeyPair::generate().unwrap().serialize_pem();
    place("broken", &broken);
    secured.server.signal(Signal::HUP);
    secured.server.wait_for_log("goes on with the certificate read before");
    assert_eq!(shown(&secured), second);
    // The call that began before all that goes on.
    line.write_all(&frames[50..].concat()).unwrap();
    await_end(&mut line);
    secured.check("MZ1", 100);
}

#[test]
fn files_that_cannot_be_used_are_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("Test");
    let good = authority.issue(|_| ());
    let changed = |change: fn(&mut CertificateParams)| authority.issue(change);
    let pair = |cert: &str, key: &str| Pair { cert: cert.to_owned(), key: key.to_owned() };
    let other = Authority::new("Other").issue(|_| ());
    let own = good.cert.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
    for (pair, words) in [
        (pair(&good.cert, &other.key), "is not that of the first certificate"),
        (pair("", &good.key), "holds no certificate in PEM"),
        (pair(&good.key, &good.key), "holds no certificate in PEM"),
        (pair(&good.cert, &good.cert), "holds no private key in PEM"),
        (pair(&[own, &other.cert].concat(), &good.key), "certificate 1 in "),
        (changed(|params| params.not_after = date_time_ymd(2020, 1, 1)), "expired at 2020-01-01"),
        (changed(|params| params.not_before = date_time_ymd(2090, 1, 1)), "valid from 2090-01-01"),
    ] {
        let files = pair.write(dir.path());
        let setup =
            Setup::new(&dir.path().join("rec")).plain().args(&files.each_ref().map(String::as_str));
        let (code, log) = setup.refuse();
        assert!(code == Some(1) && log.len() == 1 && log[0].contains(words), "{words}: {log:?}");
        assert!(!log[0].contains("PRIVATE"), "{log:?}");
    }
    let (code, log) = Setup::new(dir.path())
        .plain()
        .args(&["--tls-cert", "/none", "--tls-key", "/none"])
        .refuse();
    assert!(code == Some(1) && log[0].contains("--tls-cert: cannot read /none"), "{log:?}");
    let (code, log) = Setup::new(dir.path()).plain().args(&["--tls-cert", "/none"]).refuse();
    assert!(code == Some(2) && log.iter().any(|line| line.contains("--tls-key")), "{log:?}");
}

#[test]
fn a_certificate_ends_when_openssl_says_and_a_part_of_it_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| dir.path().join(name));
    let [cert_path, key_path] = [&cert, &key].map(|path| path.to_str().unwrap());
    let open = || {
        let (cert, key) = (cert.clone(), key.clone());
        Certificate::open(Config { cert, key, client_ca: None, challenges: None })
    };
    let kind = ["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    // Dates from 2050 on are written in another form.
    for days in ["30", "36500"] {
        let rest = ["-subj", "/O=A company/CN=localhost", "-days", days];
        let files = ["-keyout", key_path, "-out", cert_path];
        super::run("openssl", &[&kind[..], &rest, &files].concat(), "");
        let told = ["x509", "-in", cert_path, "-noout", "-enddate", "-dateopt", "iso_8601"];
        let (_, told) = super::run("openssl", &told, "");
        let until = open().unwrap().until().unwrap();
        assert_eq!(told.trim(), format!("notAfter={until}").replace('T', " "));
    }
    let whole = CertificateDer::from_pem_file(&cert).unwrap();
    for length in 0..whole.len() {
        let part = BASE64_STANDARD.encode(&whole[..length]);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{part}\n-----END CERTIFICATE-----\n");
        fs::write(&cert, pem).unwrap();
        let refused = open().expect_err("a part of a certificate").to_string();
        assert!(refused.contains("holds no certificate"), "{length}: {refused}");
    }
}

#[test]
fn a_certificate_that_ends_soon_is_told_everywhere() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new("Test"));
    let soon = jiff::Timestamp::now().as_second() + 5 * 24 * 60 * 60;
    let pair = authority.issue(|params| {
        params.not_after = std::time::UNIX_EPOCH.into();
        params.not_after += std::time::Duration::from_secs(soon as u64);
    });
    let files = pair.write(dir.path());
    let setup =
        Setup::new(&dir.path().join("rec")).plain().args(&files.each_ref().map(String::as_str));
    let server = setup.env("CALLREEL_ADMIN", "127.0.0.1:0").start();
    server.wait_for_log("the certificate ends soon");
    let (status, said) = server.ask_admin("/readyz");
    assert!(status == 200 && said.contains("the certificate of --tls-cert ends at"), "{said}");
    assert_eq!(server.metric("callreel_tls_certificate_end_timestamp_seconds"), soon as f64);
}

#[test]
fn clients_show_a_certificate_where_that_is_asked_for_and_operators_need_none() {
    let (dir, clients) = (tempfile::tempdir().unwrap(), Authority::new("Clients"));
    let ca = clients.write(dir.path());
    let ca = ca.to_str().unwrap();
    let secured = Secured::start(&["--tls-client-ca", ca, "--admin-tls"]);
    let client = clients.issue(|_| ());
    let [cert, key] = [dir.path().join("client.pem"), dir.path().join("client.key")];
    fs::write(&cert, client.cert).unwrap();
    fs::write(&key, client.key).unwrap();
    let server_ca = secured.authority.write(secured.dir.path());
    let curl = |port: u16, args: &[&str]| {
        let url = format!("https://localhost:{port}/readyz");
        let ca = server_ca.to_str().unwrap();
        super::run("curl", &[&["-sS", "--cacert", ca, &url], args].concat(), "")
    };
    let port = secured.server.address.port();
    let (code, said) = curl(port, &[]);
    assert!(code != Some(0), "{said}");
    secured.server.wait_for_log("the handshake of TLS failed");
    let pair = ["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let (code, said) = curl(port, &pair);
    assert!(code == Some(0) && said.contains("ok"), "{said}");
    let line = secured.server.wait_for_log("console at https://");
    let admin = line.rsplit_once(':').unwrap().1.trim_end_matches('/').parse().unwrap();
    let (code, said) = curl(admin, &[]);
    assert!(code == Some(0) && said.contains("warnings"), "{said}");
}
