//! `callreel check`: good things, faults with their remedies, and no trace of it afterwards.

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, CertifiedKey, DnType, KeyPair};
use tokio_rustls::rustls::{ServerConnection, StreamOwned};

use super::{TOKEN, command, run};
use crate::harness::disk::{Disk, Errno};
use crate::harness::pki;
use crate::harness::process::{Server, Setup};
use crate::harness::shelf;

/// `callreel check` with listeners on free ports.
fn check(dir: &Path, options: &[&str]) -> Command {
    let free = ["check", "--listen", "127.0.0.1:0", "--admin", "off"];
    command(dir, &[&free[..], options].concat())
}

/// The line of a subject, which has this verdict.
fn line<'t>(text: &'t str, verdict: &str, subject: &str) -> &'t str {
    let start = format!("{verdict:<7}  {subject:<11}  ");
    let line = text.lines().find(|line| line.starts_with(&start));
    line.unwrap_or_else(|| panic!("no {start:?} in {text}"))
}

#[test]
fn a_machine_that_is_ready_is_called_so_and_nothing_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let options = ["--dir", "a/b/recordings", "--capture", "captures"];
    let (code, said, error) = run(&mut check(dir.path(), &options));
    assert_eq!((code, error.as_str()), (Some(0), ""), "{said}");
    for (subject, words) in [
        ("directory", "a/b/recordings will be made; a trial recording in "),
        ("captures", "a trial recording in "),
        ("room", "hours of one call"),
        ("clock", "nothing contradicts it"),
        ("open files", "calls at one time"),
        ("public port", "127.0.0.1:0 is free"),
        ("environment", "each variable"),
        ("settings", "fit together"),
    ] {
        assert!(line(&said, "good", subject).contains(words), "{said}");
    }
    assert!(said.contains("/s, a small durable write in "), "{said}");
    line(&said, "warning", "signatures");
    line(&said, "warning", "public URL");
    assert!(said.ends_with("0 errors, 2 warnings\n"), "{said}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "it left something behind");
}

#[test]
fn beside_a_running_server_it_changes_nothing_and_asks_the_public_url() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).plain().env("CALLREEL_ADMIN", "127.0.0.1:0").start();
    let (public, admin) = (server.address.to_string(), server.admin_address().to_string());
    super::record(&server, dir.path(), "MZ1", Duration::from_millis(100));
    let files = || {
        let mut files = shelf::contents(dir.path());
        // The server notes its readings of the clock there.
        files.retain(|path, _| !path.ends_with(".callreel.lock"));
        files
    };
    let before = files();
    let url = format!("http://{public}/incoming-call");
    let mut checked = command(dir.path(), &["check", "--dir", "."]);
    let options = ["--listen", &public, "--admin", &admin, "--public-url", &url];
    let (code, said, _) = run(checked.args(options).env("TWILIO_AUTH_TOKEN", TOKEN));
    assert_eq!(code, Some(0), "{said}");
    assert!(line(&said, "good", "directory").ends_with("a callreel records there now"), "{said}");
    for subject in ["public port", "admin port"] {
        assert!(line(&said, "good", subject).ends_with("is in use by a callreel that runs"));
    }
    let answer = line(&said, "good", "public URL");
    assert!(
        answer.ends_with(&format!("a callreel answers there; enter {url} at Twilio")),
        "{said}"
    );
    for words in ["so it is taken off", "Twilio cannot reach it", "is not encrypted"] {
        assert!(said.contains(words), "{said}");
    }
    line(&said, "good", "signatures");
    assert!(!said.contains(TOKEN), "{said}");
    assert_eq!(files(), before);
    assert_eq!(server.get("/readyz"), 200);
}

#[test]
fn a_running_server_that_speaks_tls_is_known_as_a_callreel() {
    let dir = tempfile::tempdir().unwrap();
    let pair = pki::Authority::new("Test").issue(|_| ());
    let files = pair.write(dir.path());
    let files = files.each_ref().map(String::as_str);
    let ca = pki::Authority::new("Clients").write(dir.path());
    let asks_clients = ["--tls-client-ca", ca.to_str().unwrap()];
    for (more, verdict, words) in [
        (&[][..], "good", "is in use by a callreel that runs"),
        (&["--admin-tls"], "good", "is in use by a callreel that runs"),
        (&asks_clients, "warning", "answers no client without a certificate"),
    ] {
        let options = [&files[..], more].concat();
        let setup = Setup::new(&dir.path().join("rec")).plain().args(&options);
        let server = setup.env("CALLREEL_ADMIN", "127.0.0.1:0").start();
        let public = server.address.to_string();
        let said = server.wait_for_log("console at http");
        let (_, admin) = said.rsplit_once("//").expect("an address");
        let mut checked = command(dir.path(), &["check", "--dir", "rec", "--listen", &public]);
        checked.args(["--admin", admin.trim_end_matches('/')]).args(&options);
        let (code, said, _) = run(&mut checked);
        assert_eq!(code, Some(0), "{said}");
        assert!(line(&said, verdict, "public port").contains(words), "{said}");
        line(&said, "good", "admin port");
    }
    // A server without TLS where TLS should be is another program.
    let server = Setup::new(&dir.path().join("plain")).plain().start();
    let public = server.address.to_string();
    let mut checked = command(dir.path(), &["check", "--listen", &public, "--admin", "off"]);
    let (code, said, _) = run(checked.args(files));
    assert_eq!(code, Some(1), "{said}");
    line(&said, "ERROR", "public port");
}

#[test]
fn each_fault_is_an_error_that_tells_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for socket in other.incoming().map_while(Result::ok) {
            let _ = (&socket).read(&mut [0; 1024]);
            let _ = (&socket).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
        }
    });
    let public_url = format!("http://{taken}");
    for (subject, options, env, words) in [
        ("directory", &["--dir", "file"][..], ("", ""), "choose another --dir"),
        ("directory", &["--dir", "file/below"], ("", ""), "choose another --dir"),
        ("captures", &["--capture", "file"], ("", ""), "choose another --capture"),
        ("room", &["--keep-free", "999TB"], ("", ""), "give less"),
        ("settings", &["--auth-token", TOKEN], ("", ""), "but no --public-url"),
        ("settings", &["--webhook", "https://a.example/"], ("", ""), "needs a secret"),
        ("environment", &[], ("CALLREEL_AUTHTOKEN", TOKEN), "is CALLREEL_AUTH_TOKEN meant?"),
        ("public URL", &["--public-url", &public_url], ("", ""), "but not as callreel does"),
    ] {
        let env = Some(env).filter(|(name, _)| !name.is_empty());
        let (code, said, _) = run(check(dir.path(), options).envs(env));
        assert_eq!(code, Some(1), "{said}");
        assert!(line(&said, "ERROR", subject).contains(words), "{said}");
        assert!(said.contains("\n1 error, ") && !said.contains(TOKEN), "{said}");
    }
    for listen in [taken.as_str(), "192.0.2.1:0"] {
        let mut check = command(dir.path(), &["check", "--listen", listen, "--admin", "off"]);
        let (code, said, _) = run(&mut check);
        let remedy = "with --listen";
        assert!(code == Some(1) && line(&said, "ERROR", "public port").ends_with(remedy), "{said}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let (code, said, _) = run(&mut check(dir.path(), &["--max-calls", "99999999"]));
    assert_eq!(code, Some(0));
    assert!(line(&said, "warning", "open files").contains("ulimit -n"), "{said}");
}

#[test]
fn the_rights_of_files_are_tried_as_the_server_sets_them() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("recordings");
    fs::DirBuilder::new().mode(0o700).create(&dir).unwrap();
    let (path, group) = (dir.to_str().unwrap(), rustix::process::getegid().as_raw().to_string());
    let options = ["--dir", path, "--umask", "027"];
    let (code, said, _) = run(&mut check(home.path(), &options));
    assert_eq!(code, Some(0), "{said}");
    assert!(line(&said, "warning", "directory").contains("lacks the rights of --umask"), "{said}");
    fs::set_permissions(&dir, Permissions::from_mode(0o750)).unwrap();
    let (_, said, _) = run(&mut check(home.path(), &options));
    assert!(!said.contains("lacks the rights"), "{said}");
    line(&said, "good", "directory");
    // A user that is no member of the group.
    let mut disk = Disk::new();
    disk.fail("*", "chown", 1..=u64::MAX, Errno::PERM);
    let mut checked = check(home.path(), &["--dir", path, "--group", &group]);
    let (code, said, _) = run(checked.envs(disk.environment(home.path())));
    let error = line(&said, "ERROR", "directory");
    assert!(code == Some(1) && error.contains("as a member of that group"), "{said}");
    assert_eq!(shelf::files(&dir), [] as [std::path::PathBuf; 0]);
}

#[test]
fn a_clock_that_the_server_would_doubt_is_doubted() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    super::record(&server, dir.path(), "MZ1", Duration::from_millis(100));
    drop(server);
    // Without the knowledge of earlier runs, the newest recording is the only witness.
    fs::remove_file(dir.path().join(".callreel.lock")).unwrap();
    let to_come = SystemTime::now() + Duration::from_secs(3 * 24 * 60 * 60);
    for path in shelf::files(dir.path()) {
        fs::File::options().write(true).open(path).unwrap().set_modified(to_come).unwrap();
    }
    let options = ["--dir", ".", "--keep-days", "9"];
    let (code, said, _) = run(&mut check(dir.path(), &options));
    assert_eq!(code, Some(0), "{said}");
    let doubt = line(&said, "warning", "clock");
    assert!(doubt.contains("3 days behind") || doubt.contains("2 days behind"), "{said}");
    assert!(doubt.contains("--keep-days removes nothing until it is believed"), "{said}");
}

#[test]
fn the_certificate_of_the_public_url_is_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let long = certificate((2040, 1, 1));
    let soon = jiff::Zoned::now().date() + jiff::Span::new().days(5);
    let short = certificate((soon.year().into(), soon.month() as u8, soon.day() as u8));
    let trusted = dir.path().join("trusted.pem");
    let message = r#"{"message":"callreel is running: point a Twilio number at /incoming-call"}"#;
    let ask = |address: SocketAddr, host: &str| {
        let url = format!("https://{host}:{}", address.port());
        let mut check = check(dir.path(), &["--public-url", &url, "--auth-token", TOKEN]);
        run(check.env("SSL_CERT_FILE", &trusted))
    };
    fs::write(&trusted, long.cert.pem()).unwrap();
    let (code, said, _) = ask(serve_tls(&long, message), "localhost");
    assert_eq!(code, Some(0), "{said}");
    assert!(line(&said, "good", "certificate").ends_with("is valid for 3650 more days"), "{said}");
    assert!(line(&said, "good", "public URL").contains("a callreel answers there"), "{said}");
    // The certificate is for the name alone, not for the address.
    let (code, said, _) = ask(serve_tls(&long, message), "127.0.0.1");
    let words = "get a certificate for that name";
    assert!(code == Some(1) && line(&said, "ERROR", "certificate").contains(words), "{said}");
    let (code, said, _) = ask(serve_tls(&short, message), "localhost");
    let words = "get one of a public authority";
    assert!(code == Some(1) && line(&said, "ERROR", "certificate").contains(words), "{said}");
    fs::write(&trusted, short.cert.pem()).unwrap();
    let (code, said, _) = ask(serve_tls(&short, message), "localhost");
    assert_eq!(code, Some(0), "{said}");
    let warning = line(&said, "warning", "certificate");
    assert!(warning.contains(" for 4 more days") || warning.contains(" for 5 more days"), "{said}");
    assert!(warning.ends_with("renew it"), "{said}");
    let past = certificate((2020, 1, 1));
    fs::write(&trusted, past.cert.pem()).unwrap();
    let (code, said, _) = ask(serve_tls(&past, message), "localhost");
    let words = "renew the certificate";
    assert!(code == Some(1) && line(&said, "ERROR", "certificate").contains(words), "{said}");
}

/// A new self-signed certificate for `localhost` that expires at the start of a day, and its key.
fn certificate((year, month, day): (i32, u8, u8)) -> CertifiedKey<KeyPair> {
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "callreel test");
    params.not_before = rcgen::date_time_ymd(2010, 1, 1);
    params.not_after = rcgen::date_time_ymd(year, month, day);
    let signing_key = KeyPair::generate().unwrap();
    let cert = params.self_signed(&signing_key).unwrap();
    CertifiedKey { cert, signing_key }
}

/// A server that shows a certificate to every connection and answers every request with `body`.
fn serve_tls(certificate: &CertifiedKey<KeyPair>, body: &str) -> SocketAddr {
    let config = pki::server_config(certificate);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    thread::spawn(move || {
        for socket in listener.incoming() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut tls = StreamOwned::new(connection, socket.unwrap());
            if tls.read(&mut [0; 4096]).is_ok() {
                let _ = tls.write_all(answer.as_bytes()).and_then(|()| tls.flush());
            }
        }
    });
    address
}
