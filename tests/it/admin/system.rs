//! The state of the recorder itself: its settings, refusals and warnings.

use serde_json::{Value, json};

use crate::harness::process::{Setup, body_of};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn the_settings_in_force_are_told_without_secrets_and_so_is_what_was_refused() {
    let dir = tempfile::tempdir().unwrap();
    let secret = format!("whsec_{}", "c2VjcmV0".repeat(5));
    let server = Setup::new(dir.path())
        .plain()
        .env("CALLREEL_ADMIN", "127.0.0.1:0")
        .env("CALLREEL_MAX_CALLS", "7")
        .env("CALLREEL_AUTH_TOKEN", TOKEN)
        .env("CALLREEL_WEBHOOK_SECRET", &secret)
        .args(&["--webhook", "http://login:pass@127.0.0.1:9/hook?key=hidden", "--keep-days", "30"])
        .args(&["--public-url", "https://calls.example.com"])
        .args(&["--relay", "/bot=ws://bot:pass@127.0.0.1:9/ws", "--relay-header", "X-Key: hidden"])
        .start();
    let (status, text) = server.ask_admin("/api/v1/system");
    assert_eq!(status, 200);
    for hidden in [TOKEN, "c2VjcmV0", "pass", "hidden"] {
        assert!(!text.contains(hidden), "{hidden}");
    }
    let system: Value = body_of(&text);
    let setting = |name: &str| {
        let all = system["settings"].as_array().unwrap();
        all.iter().find(|one| one["name"] == name).cloned().unwrap_or_default()
    };
    for (name, value, set_by) in [
        ("--max-calls", "7", "environment"),
        ("--keep-days", "30", "command_line"),
        ("--webhook", "http://127.0.0.1:9/hook?...", "command_line"),
        ("--relay", "/bot=ws://127.0.0.1:9/ws", "command_line"),
        ("--make-room", "false", "default"),
        ("--drain", "0s", "default"),
    ] {
        assert_eq!(setting(name), json!({ "name": name, "value": value, "set_by": set_by }));
    }
    for name in ["--auth-token", "--webhook-secret"] {
        assert_eq!(setting(name), json!({ "name": name, "set_by": "environment" }));
    }
    assert_eq!(
        setting("--relay-header"),
        json!({ "name": "--relay-header", "set_by": "command_line" })
    );
    assert_eq!(setting("--capture"), Value::Null, "it is not set");
    assert_eq!((&system["refused_requests"], &system["dead_letters"]), (&json!({}), &json!(0)));

    let call = server.caller().args(["--flood", "--duration", "1s"]).output().unwrap();
    assert!(!call.status.success(), "it was not signed");
    let system: Value = body_of(&server.ask_admin("/api/v1/system").1);
    assert_eq!(system["refused_requests"], json!({ "signature": 1 }));
    let last = system["warnings"].as_array().unwrap().last().unwrap().as_str().unwrap();
    assert!(last.contains(" WARN ") && last.contains("X-Twilio-Signature is missing"), "{last}");
}
