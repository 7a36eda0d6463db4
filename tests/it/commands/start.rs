//! The start of `serve`: the first lines of its log, and variables that nearly are settings.

use serde_json::Value;

use super::{TOKEN, command, run};
use crate::harness::process::Setup;

const NAME: &str = "https://calls.example.com";

#[test]
fn the_first_lines_tell_webhook_signatures_directory_and_console_in_this_order() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("recordings");
    let setup = |options: &[&str]| {
        let setup = Setup::new(&home).plain().args(options).env("CALLREEL_ADMIN", "127.0.0.1:0");
        let server = setup.start();
        let said = server.log_lines().join("\n");
        let places: Vec<usize> = [
            "webhook=",
            "signatures_checked=",
            "recordings dir=",
            "console at http://",
            "listening",
        ]
        .iter()
        .map(|words| said.find(words).unwrap_or_else(|| panic!("no {words} in {said}")))
        .collect();
        assert!(places.is_sorted(), "{said}");
        assert!(said.contains(&format!("recordings dir={}", home.display())), "{said}");
        said
    };
    let said = setup(&[]);
    assert!(said.contains("webhook=https://HOST/incoming-call"), "{said}");
    assert!(said.contains("lets anybody record here") && said.contains("_checked=false"), "{said}");
    assert!(!said.contains("ulimit"), "{said}");
    let said = setup(&["--public-url", NAME, "--auth-token", TOKEN]);
    assert!(said.contains(&format!("webhook={NAME}/incoming-call")), "{said}");
    assert!(
        said.contains("only requests that Twilio has signed") && !said.contains(TOKEN),
        "{said}"
    );
    let said = setup(&["--max-calls", "99999999"]);
    assert!(said.contains("(ulimit -n) limits the calls"), "{said}");
}

#[test]
fn json_has_the_same_facts_as_fields() {
    let dir = tempfile::tempdir().unwrap();
    let options = ["--log-format", "json", "--public-url", NAME];
    let server = Setup::new(dir.path()).args(&options).start();
    let field = |name: &str| {
        let lines = server.log_lines();
        let lines = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut values = lines.filter_map(|line| line["fields"].get(name).cloned());
        values.next().unwrap_or_else(|| panic!("no field {name}"))
    };
    assert_eq!(field("webhook"), format!("{NAME}/incoming-call"));
    assert_eq!(field("signatures_checked"), false);
    assert_eq!(field("dir"), dir.path().to_str().unwrap());
    assert_eq!(field("address"), server.address.to_string());
}

#[test]
fn a_public_url_with_the_path_of_the_webhook_or_of_the_stream_is_understood() {
    let dir = tempfile::tempdir().unwrap();
    for (given, taken_off) in [
        (format!("{NAME}/below/incoming-call"), "/incoming-call"),
        ("wss://calls.example.com/below/media-stream/".to_owned(), "/media-stream"),
    ] {
        let server = Setup::new(dir.path()).args(&["--public-url", &given]).start();
        let said = server.log_lines().join("\n");
        assert!(said.contains(&format!("webhook={NAME}/below/incoming-call")), "{said}");
        assert!(said.contains(&format!("taken_off={taken_off}")), "{said}");
        let (status, twiml) = server.ask("GET /incoming-call HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(status == 200 && twiml.contains("\"wss://calls.example.com/below/media-stream\""));
    }
}

#[test]
fn a_misspelt_variable_stops_the_start_and_another_one_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    for (given, meant) in [
        ("CALLREEL_AUTHTOKEN", "CALLREEL_AUTH_TOKEN"),
        ("CALLREEL_AUTH_TOKN", "CALLREEL_AUTH_TOKEN"),
        ("CALLREEL_TOKEN", "CALLREEL_ADMIN_TOKEN or CALLREEL_AUTH_TOKEN"),
        ("TWILIO_AUTHTOKEN", "TWILIO_AUTH_TOKEN"),
        ("TWILIO_TOKEN", "TWILIO_AUTH_TOKEN"),
        ("CALLREEL_KEEPDAYS", "CALLREEL_KEEP_DAYS"),
    ] {
        let (code, _, said) = run(command(dir.path(), &["serve"]).env(given, TOKEN));
        assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.contains(&format!("{given} has no effect: is {meant} meant?")), "{said}");
        assert!(!said.contains(TOKEN), "{said}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let silent =
        ["CALLREEL_PORT", "CALLREEL_PORT_5050_TCP", "CALLREEL_SERVICE_HOST", "CALLREEL_LONG"];
    let mut setup = Setup::new(dir.path()).env("CALLREEL_IMAGE", TOKEN);
    for name in silent {
        setup = setup.env(name, TOKEN);
    }
    let server = setup.start();
    let said = server.log_lines().join("\n");
    let warned = said.matches("is no setting of callreel").count();
    assert!(warned == 1 && said.contains("CALLREEL_IMAGE"), "{said}");
    assert!(!silent.iter().any(|name| said.contains(name)) && !said.contains(TOKEN), "{said}");
}
