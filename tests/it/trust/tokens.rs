//! Several auth tokens at once: while one is changed, and of subaccounts.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::{PUBLIC_URL, sign, webhook};
use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, Server, Setup, eventually};

const NEW: &str = "00000000000000000000000000000001";
const OLD: &str = "00000000000000000000000000000002";
const OTHER: &str = "00000000000000000000000000000003";
const ACCOUNT: &str = "AC0000000000000000000000000000000a";
const STRANGER: &str = "AC0000000000000000000000000000000b";

fn setup(dir: &Path) -> Setup {
    Setup::new(&dir.join("recordings")).args(&["--public-url", PUBLIC_URL])
}

/// A file of tokens that its owner alone may read.
fn file_of(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("tokens");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

/// The status of a webhook of an account that is signed with `token`.
fn ask(server: &Server, token: &str, account: &str) -> u16 {
    let form = [("CallSid", "CA1"), ("AccountSid", account)];
    let signature = sign(token, &format!("{PUBLIC_URL}/incoming-call"), &form);
    webhook(server, "/incoming-call", &form, Some(&signature))
}

/// The status of a stream that is signed with `token`.
fn connect(server: &Server, token: &str) -> u16 {
    let signature = sign(token, "wss://calls.example.com/media-stream", &[]);
    let headers = format!("X-Twilio-Signature: {signature}\r\n");
    Peer::try_connect(server, "MZ1", &headers).map_or_else(|status| status, |_| 101)
}

#[test]
fn while_a_token_is_changed_the_old_and_the_new_one_are_taken() {
    let home = tempfile::tempdir().unwrap();
    let both = format!("{NEW},{OLD}");
    for setup in [
        setup(home.path()).args(&["--auth-token", NEW, "--auth-token", OLD]),
        setup(home.path()).env("CALLREEL_AUTH_TOKEN", &both).env("TWILIO_AUTH_TOKEN", OTHER),
        setup(home.path()).env("TWILIO_AUTH_TOKEN", format!("{NEW} {OLD}\n")),
    ] {
        let mut server = setup.start();
        assert_eq!((ask(&server, NEW, ACCOUNT), connect(&server, NEW)), (200, 101));
        let told = || server.log_lines().iter().filter(|l| l.contains("older auth token")).count();
        assert_eq!(told(), 0);
        assert_eq!((ask(&server, OLD, ACCOUNT), connect(&server, OLD)), (200, 101));
        assert_eq!((ask(&server, OTHER, ACCOUNT), connect(&server, OTHER)), (403, 403));
        server.wait_for_log("older auth token");
        assert_eq!(told(), 1);
        server.stop();
        let log = server.log_lines().join("\n");
        assert!([NEW, OLD, OTHER].iter().all(|token| !log.contains(token)), "{log}");
    }
}

#[test]
fn a_file_of_tokens_is_followed_and_a_bad_one_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let text = format!("# tokens\n{NEW}\n\n{ACCOUNT} {OTHER}\n");
    let path = file_of(home.path(), &text);
    let server = setup(home.path()).args(&["--auth-token-file", path.to_str().unwrap()]).start();
    // An account with a token of its own signs with that alone; a stream does not name its account.
    assert_eq!((ask(&server, OTHER, ACCOUNT), ask(&server, NEW, ACCOUNT)), (200, 403));
    assert_eq!((ask(&server, OTHER, STRANGER), ask(&server, NEW, STRANGER)), (403, 200));
    assert_eq!((connect(&server, OTHER), connect(&server, NEW)), (101, 101));
    assert_eq!(connect(&server, OLD), 403);

    let next = home.path().join("next");
    fs::write(&next, format!("{OLD}\n")).unwrap();
    fs::rename(&next, &path).unwrap();
    server.wait_for_log("took over the changed secrets");
    assert_eq!((ask(&server, OLD, ACCOUNT), ask(&server, NEW, STRANGER)), (200, 403));

    fs::write(&path, format!("{NEW}\nnot a token\n")).unwrap();
    server.signal(Signal::HUP);
    let line = server.wait_for_log("line 2: must be an auth token");
    assert!(line.contains("ERROR") && line.contains("tokens"), "{line}");
    assert_eq!((ask(&server, OLD, ACCOUNT), ask(&server, NEW, ACCOUNT)), (200, 403));

    fs::write(&path, format!("{STRANGER} {NEW}\n")).unwrap();
    eventually(PATIENCE, "the good file is taken over", || {
        (ask(&server, NEW, STRANGER) == 200).then_some(())
    });
    assert_eq!(ask(&server, NEW, ACCOUNT), 403);
    // The log has room for a line a second, after so many refusals.
    eventually(PATIENCE, "the log tells the reason", || {
        ask(&server, NEW, ACCOUNT);
        let mut lines = server.log_lines().into_iter();
        lines.any(|line| line.contains("no auth token is known for the account")).then_some(())
    });
    let log = server.log_lines().join("\n");
    assert!([NEW, OLD, OTHER].iter().all(|token| !log.contains(token)), "{log}");
    assert!(!log.contains("can read or change"), "{log}");
}

#[test]
fn a_file_of_tokens_that_cannot_be_used_refuses_the_start() {
    let home = tempfile::tempdir().unwrap();
    let missing = home.path().join("missing");
    let refused = |setup: Setup| {
        let (code, said) = setup.refuse();
        assert_eq!(code, Some(1), "{said:?}");
        let last = said.last().unwrap().clone();
        assert!(!last.contains(NEW), "{last}");
        last
    };
    let given =
        |path: &Path| setup(home.path()).args(&["--auth-token-file", path.to_str().unwrap()]);
    assert!(refused(given(&missing)).contains("--auth-token-file: cannot read"));
    for (text, words) in [
        ("# none\n", "there is no auth token in it"),
        (&format!("{ACCOUNT}\n{NEW}\n"), "line 1: must be"),
        (&format!("{NEW} {ACCOUNT}\n"), "line 1: must be"),
    ] {
        let said = refused(given(&file_of(home.path(), text)));
        assert!(said.contains(words), "{said}");
    }
    let path = file_of(home.path(), NEW);
    let said = refused(given(&path).env("CALLREEL_AUTH_TOKEN", NEW));
    assert!(said.contains("leave one of them out"), "{said}");
    let said = refused(setup(home.path()).args(&["--auth-token", &format!("{NEW},")]));
    assert!(said.contains("an auth token is empty"), "{said}");
    let said = refused(setup(home.path()).args(&["--auth-token", ACCOUNT]));
    assert!(said.contains("an account SID"), "{said}");
    // Twilio's own variable gives way to the file.
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let server = given(&path).env("TWILIO_AUTH_TOKEN", OLD).start();
    server.wait_for_log("every user of this machine can read or change a file of secrets");
    assert_eq!((ask(&server, NEW, ACCOUNT), ask(&server, OLD, ACCOUNT)), (200, 403));
}

#[test]
fn the_log_tells_a_wrong_url_from_a_wrong_token() {
    let home = tempfile::tempdir().unwrap();
    let server = setup(home.path()).args(&["--auth-token", NEW]).start();
    // The helper sends `Host: evil.example`; a stream has `Host: a`.
    for url in [
        "https://evil.example/incoming-call",
        "http://calls.example.com/incoming-call",
        "https://evil.example:443/incoming-call",
    ] {
        let signature = sign(NEW, url, &[("CallSid", "CA1")]);
        let form = [("CallSid", "CA1")];
        assert_eq!(webhook(&server, "/incoming-call", &form, Some(&signature)), 403, "{url}");
        let line = server.wait_for_log(&format!("auth token for {}", url.replace(":443", "")));
        assert!(line.contains("set --public-url") && line.contains("WARN"), "{line}");
    }
    let signature = sign(NEW, "wss://a/media-stream", &[]);
    let headers = format!("X-Twilio-Signature: {signature}\r\n");
    assert_eq!(Peer::try_connect(&server, "MZ1", &headers).err(), Some(403));
    server.wait_for_log("it is signed with the right auth token for wss://a/media-stream");
    assert_eq!(ask(&server, OLD, ACCOUNT), 403);
    let line = server.wait_for_log("the auth token is the account's");
    assert!(line.contains(&format!("the URL that was checked is {PUBLIC_URL}/incoming-call")));
}
