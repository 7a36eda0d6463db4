//! The command line: an error is one line that tells the remedy.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::process::{Server, Setup, callreel};

/// Runs a command to its end, in a directory and environment of its own; returns whether it succeeded,
/// its standard output and its standard error.
fn run(dir: &Path, args: &[&str], env: &[(&str, &str)]) -> (bool, String, String) {
    let mut command = Command::new(callreel());
    command.current_dir(dir).args(args).env_clear().envs(env.iter().copied());
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_setting_that_cannot_be_followed_is_refused_in_one_line_that_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let address = "give IP:PORT, like 127.0.0.1:5050";
    let count = "give a whole number, at least 1";
    let webhook = "https://example.com/";
    for (args, env, words) in [
        (&["--listen", "5060"][..], ("", ""), address),
        (&["--listen", ":5060"], ("", ""), address),
        (&["--listen", "localhost:5060"], ("", ""), address),
        (&[], ("CALLREEL_LISTEN", ""), address),
        (&["--admin", "localhost"], ("", ""), "give IP:PORT, like 127.0.0.1:5051, or off"),
        (&["--max-calls", "0"], ("", ""), count),
        (&["--max-new-calls", "some"], ("", ""), count),
        (&["--keep-days", "0"], ("", ""), count),
        (&[], ("CALLREEL_ALLOW_DELETE", "perhaps"), "not a boolean"),
        (&["--webhook", webhook], ("", ""), "set CALLREEL_WEBHOOK_SECRET, --webhook-secret or"),
        (&["--webhook", webhook], ("CALLREEL_WEBHOOK_SECRET", ""), "set CALLREEL_WEBHOOK_SECRET"),
        (&["--webhook", webhook, "--webhook-secret", "x"], ("", ""), "must be whsec_"),
        (
            &["--webhook", webhook, "--webhook-secret", "x", "--webhook-secret-file", "y"],
            ("", ""),
            "both a webhook secret and a file of them are set",
        ),
        (&["--webhook", webhook, "--webhook-secret-file", "none"], ("", ""), "cannot read none"),
        (
            &["--webhook", webhook, "--webhook-ca", "none"],
            ("CALLREEL_WEBHOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            "none has no certificate to trust",
        ),
        (&["--listen", "127.0.0.1:5051"], ("", ""), "are the same port"),
        (&["--listen", "0.0.0.0:5051"], ("", ""), "are the same port"),
        (&[], ("CALLREEL_LOG", "warning"), "give error, warn, info, debug, trace or off"),
        (&[], ("CALLREEL_LOG", "callreel=debug,verbose"), "give error, warn"),
        (&[], ("CALLREEL_LOG", "callreel=verbose"), "give error, warn"),
        (&[], ("CALLREEL_LOG", "callreel[call]=debug"), "give error, warn"),
    ] {
        let env: &[_] = if env.0.is_empty() { &[] } else { &[env] };
        let (good, _, said) = run(dir.path(), args, env);
        assert!(!good && said.contains(words), "{args:?} {env:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{args:?} {env:?}: {said}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn yes_and_no_are_understood_in_many_words() {
    let dir = tempfile::tempdir().unwrap();
    for word in ["0", "1", "yes", "on"] {
        let mut server = Setup::new(dir.path()).env("CALLREEL_ALLOW_DELETE", word).start();
        assert!(server.stop().0.success(), "{word}");
    }
}

#[test]
fn log_levels_may_be_of_any_case_or_of_modules() {
    let dir = tempfile::tempdir().unwrap();
    for levels in ["", "INFO", "callreel=info", "warn,callreel=info"] {
        // `start` waits for the log line about listening, so each filter must let it through.
        let mut server = Setup::new(dir.path()).env("CALLREEL_LOG", levels).start();
        assert!(server.stop().0.success(), "{levels}");
    }
}

#[test]
fn a_capture_directory_that_cannot_be_made_is_what_is_complained_of() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let capture = file.join("capture");
    let setup = Setup::new(&dir.path().join("recordings"));
    let (code, said) = setup.args(&["--capture", capture.to_str().unwrap()]).refuse();
    let last = said.last().unwrap();
    assert_eq!(code, Some(1), "{said:?}");
    assert!(last.contains("another --capture") && !last.contains("--dir"), "{last}");
    assert!(last.contains(capture.to_str().unwrap()), "{last}");
}

#[test]
fn the_usage_shows_that_the_command_may_be_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let (good, said, _) = run(dir.path(), &["--help"], &[]);
    assert!(good && said.contains("Usage: callreel [OPTIONS] [COMMAND]\n"), "{said}");
}

#[test]
fn a_demo_shows_one_call_and_where_it_cannot_record_it_says_only_why() {
    let dir = tempfile::tempdir().unwrap();
    let demo = ["demo", "--once", "--calls", "1", "--seconds", "1", "--dir", "."];
    let (good, shown, said) = run(dir.path(), &demo, &[]);
    assert!(good && shown.contains("placing 1 call of 1 s"), "{shown}{said}");
    // A server that records to the directory is no reason not to.
    let _server = Server::start(dir.path());
    let (good, shown, said) = run(dir.path(), &demo, &[]);
    assert!(good && said.is_empty(), "{shown}{said}");
    let taken = dir.path().join("file");
    std::fs::write(&taken, "").unwrap();
    let demo = ["demo", "--once", "--calls", "1", "--seconds", "1", "--dir", "file"];
    let (good, shown, said) = run(dir.path(), &demo, &[]);
    assert_eq!((good, shown.as_str()), (false, ""));
    assert!(said.starts_with("error: cannot record to file"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}
