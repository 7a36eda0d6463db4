//! Admission by signature and token, and data that stays secret.

mod tokens;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::harness::peer::{FIN, Peer, TEXT, frame};
use crate::harness::process::{PATIENCE, Server, Setup, eventually};
use crate::harness::python;
use crate::harness::shelf;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const PUBLIC_URL: &str = "https://calls.example.com";

fn signed_server(dir: &Path, args: &[&str]) -> Server {
    let setup = Setup::new(dir).args(&["--public-url", PUBLIC_URL]).args(args);
    setup.env("TWILIO_AUTH_TOKEN", TOKEN).start()
}

#[test]
fn only_what_twilios_own_library_signs_for_the_public_url_gets_in() {
    let dir = tempfile::tempdir().unwrap();
    let server = signed_server(dir.path(), &[]);
    let form = [("CallSid", "CA1"), ("From", "+15005550006"), ("A b", "ü&=+ \"")];
    let url = format!("{PUBLIC_URL}/incoming-call");
    let genuine = sign(TOKEN, &url, &form);
    assert_eq!(webhook(&server, "/incoming-call", &form, Some(&genuine)), 200);
    assert_eq!(webhook(&server, "/incoming-call", &form, Some(&genuine)), 200, "a repetition");
    let with_port = sign(TOKEN, "https://calls.example.com:443/incoming-call", &form);
    assert_eq!(webhook(&server, "/incoming-call", &form, Some(&with_port)), 200);
    let query = "/incoming-call?a=%C3%BC&b=1";
    let signed = sign(TOKEN, &format!("{PUBLIC_URL}{query}"), &form);
    assert_eq!(webhook(&server, query, &form, Some(&signed)), 200);
    for (what, path, fields, signature) in [
        ("no signature", "/incoming-call", &form[..], None),
        ("another token", "/incoming-call", &form, Some(sign("f00", &url, &form))),
        (
            "another URL",
            "/incoming-call",
            &form,
            Some(sign(TOKEN, "https://evil.example/incoming-call", &form)),
        ),
        (
            "http",
            "/incoming-call",
            &form,
            Some(sign(TOKEN, "http://calls.example.com/incoming-call", &form)),
        ),
        ("another field", "/incoming-call", &form[..2], Some(genuine.clone())),
        ("another query", "/incoming-call?x=1", &form, Some(genuine.clone())),
        (
            "the host's own",
            "/incoming-call",
            &form,
            Some(sign(TOKEN, &format!("http://{}/incoming-call", server.address), &form)),
        ),
    ] {
        assert_eq!(webhook(&server, path, fields, signature.as_deref()), 403, "{what}");
    }

    let stream = sign(TOKEN, "wss://calls.example.com/media-stream", &[]);
    let header = |signature: &str| format!("X-Twilio-Signature: {signature}\r\n");
    let connect = |headers: &str| Peer::try_connect(&server, "MZ1", headers);
    for (what, headers) in [
        ("no signature", String::new()),
        ("another token", header(&sign("f00", "wss://calls.example.com/media-stream", &[]))),
        ("the webhook's", header(&sign(TOKEN, "https://calls.example.com/media-stream", &[]))),
        (
            "a forwarded host",
            format!(
                "X-Forwarded-Host: evil.example\r\n{}",
                header(&sign(TOKEN, "wss://evil.example/media-stream", &[]))
            ),
        ),
        ("twice", format!("{0}{0}", header(&stream))),
        ("a browser", format!("Origin: {PUBLIC_URL}\r\n{}", header(&stream))),
    ] {
        assert_eq!(connect(&headers).err(), Some(403), "{what}");
    }
    assert!(shelf::finished(dir.path()).is_empty() && shelf::unfinished(dir.path()).is_empty());
    let mut peer = connect(&header(&stream)).unwrap_or_else(|_| panic!("genuine stream refused"));
    peer.start(&[]);
    peer.say(std::time::Duration::from_secs(1));
    let peer = peer.finish();
    assert!(shelf::finished(dir.path())[&peer.stream_id].samples() == peer.pcm());
}

#[test]
fn a_stream_token_is_asked_for_at_the_start_and_good_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Setup::new(dir.path()).args(&["--stream-token"]).start();
    let token = |call_id: &str| {
        let body = format!("CallSid={call_id}");
        let (status, twiml) = server.ask(&format!(
            "POST /incoming-call HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!(status, 200);
        let (_, rest) = twiml.split_once("<Parameter name=\"callreel_token\" value=\"").unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    };
    assert_eq!(server.get("/incoming-call"), 400);
    let try_start = |stream_id: &str, parameters: &[(&str, &str)]| {
        let mut peer = Peer::connect(&server, stream_id);
        peer.start(parameters);
        peer.say(std::time::Duration::from_secs(1));
        peer
    };
    let genuine = token("CAMZ1");
    // The webhook is called again: both tokens together admit one stream.
    let second = token("CAMZ1");
    let other = token("CAMZ9");
    for parameters in [
        &[][..],
        &[("callreel_token", "")],
        &[("callreel_token", "AAAA")],
        &[("callreel_token", other.as_str())],
    ] {
        assert_eq!(try_start("MZ1", parameters).close_code(), Some(1008), "{parameters:?}");
    }
    assert!(shelf::unfinished(dir.path()).is_empty() && shelf::finished(dir.path()).is_empty());
    let peer = try_start("MZ1", &[("callreel_token", &genuine), ("name", "value")]).finish();
    for used in [&genuine, &second] {
        assert_eq!(try_start("MZ1", &[("callreel_token", used)]).close_code(), Some(1008));
    }
    let finished = shelf::finished(dir.path());
    assert_eq!(finished.len(), 1);
    assert!(finished["MZ1"].samples() == peer.pcm());
    assert_eq!(finished["MZ1"].record["parameters"], serde_json::json!({ "name": "value" }));
    server.stop();
    let everything = [
        server.log_lines().join("\n"),
        shelf::contents(dir.path()).values().map(|bytes| String::from_utf8_lossy(bytes)).collect(),
    ];
    assert!(everything.iter().all(|text| !text.contains(&genuine)), "the token is on the disk");
}

#[test]
fn files_are_their_owners_alone_and_not_to_be_had_on_the_public_listener() {
    let dir = tempfile::tempdir().unwrap();
    let recordings = dir.path().join("made");
    let capture = dir.path().join("capture");
    let args = ["--capture", capture.to_str().unwrap()];
    let server = Setup::through(&["sh", "-c", "umask 0; exec \"$0\" \"$@\""], &recordings)
        .args(&args)
        .start();
    let mut running = Peer::call(&server, "MZ2");
    running.say(std::time::Duration::from_secs(2));
    let mut peer = Peer::call(&server, "MZ1");
    peer.say(std::time::Duration::from_secs(1));
    peer.finish();
    let ends = ["MZ1.wav", "MZ1.json", "MZ2.wav.part", "MZ1.jsonl", "MZ2.jsonl"];
    let mut all = eventually(PATIENCE, "one is finished, one is being recorded", || {
        let all = shelf::files(dir.path());
        ends.iter().all(|end| all.iter().any(|path| path.ends_with(end))).then_some(all)
    });
    let day = shelf::files(&recordings)[1].parent().unwrap().to_owned();
    for path in &all {
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", path.display());
    }
    for path in [&recordings, &capture, &day] {
        assert_eq!(
            path.metadata().unwrap().permissions().mode() & 0o777,
            0o700,
            "{}",
            path.display()
        );
    }
    all.retain(|path| path.starts_with(&recordings));
    for path in all {
        let below = path.strip_prefix(&recordings).unwrap().to_str().unwrap().to_owned();
        for url in [
            format!("/{below}"),
            format!("/recordings/{below}"),
            format!("/incoming-call/../{below}"),
            format!("/%2e%2e/made/{below}"),
            path.to_str().unwrap().to_owned(),
        ] {
            assert_eq!(server.get(&url), 404, "{url}");
        }
    }
}

#[test]
fn no_log_level_tells_audio_secrets_or_numbers_and_no_input_forges_a_line() {
    const SECRETS: [&str; 4] = ["+15005550006", "15005550006", TOKEN, "very-secret"];
    let dir = tempfile::tempdir().unwrap();
    for format in ["human", "json"] {
        let home = dir.path().join(format);
        let setup = Setup::new(&home).args(&["--public-url", PUBLIC_URL, "--log-format", format]);
        let mut server = setup.env("TWILIO_AUTH_TOKEN", TOKEN).env("CALLREEL_LOG", "trace").start();
        let form = [("CallSid", "CA1"), ("From", "+15005550006"), ("CallerName", "very-secret")];
        webhook(&server, "/incoming-call?From=%2B15005550006&p=very-secret", &form, Some("AAAA"));
        webhook(&server, "/incoming-call\u{1b}[31m", &form, None);
        server.ask("GET /x\nERROR forged HTTP/1.1\r\nHost: a\u{1b}[2J\r\nX: +15005550006\r\n\r\n");
        server.ask(
            "GET /media-stream?token=very-secret HTTP/1.1\r\nHost: a\r\nUser-Agent: \u{2028}\u{9b}31m\u{85}ERROR forged\r\n\
             Origin: \u{2028}\u{85}ERROR forged\r\n\r\n",
        );
        let stream = sign(TOKEN, "wss://calls.example.com/media-stream", &[]);
        let headers = format!("X-Twilio-Signature: {stream}\r\n");
        let genuine = sign(TOKEN, &format!("{PUBLIC_URL}/incoming-call"), &form);
        assert_eq!(webhook(&server, "/incoming-call", &form, Some(&genuine)), 200);
        let mut peer = Peer::try_connect(&server, "MZ1", &headers).ok().unwrap();
        peer.stream_id = r"MZ\n2026-01-01T00:00:00Z ERROR forged\u001b[31m\r\u2028x".to_owned();
        peer.start(&[("From", "+15005550006"), ("password", "very-secret")]);
        peer.say(std::time::Duration::from_secs(1));
        let payload = peer.next_media();
        let payload = payload.split("\"payload\":\"").nth(1).unwrap()[..40].to_owned();
        peer.send(&frame(FIN | TEXT, b"{\"event\":\"\\nERROR forged\", very-secret"));
        peer.send(&frame(FIN | TEXT, br#"{"event":"dtmf","dtmf":{"digit":"\nERROR forged"}}"#));
        peer.finish();
        assert_eq!(server.stop().0.code(), Some(0));
        for line in server.log_lines() {
            let secrets = SECRETS.into_iter().chain([payload.as_str(), stream.as_str()]);
            let told = secrets.into_iter().find(|secret| line.contains(secret));
            assert_eq!(told, None, "{line}");
            let is_whole = if format == "json" {
                serde_json::from_str::<serde_json::Value>(&line).is_ok()
            } else {
                line.starts_with("20") && !line.starts_with("2026-01-01")
            };
            let is_plain = |c: char| !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}');
            assert!(is_whole && line.chars().all(is_plain), "{line:?}");
        }
        // File names hold safe characters alone, though ids come from the wire.
        let mut names = shelf::files(&home)
            .into_iter()
            .filter_map(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()));
        let is_safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        assert!(names.all(|name| name.chars().all(is_safe)));
    }
}

/// Posts a form; returns the status.
fn webhook(server: &Server, path: &str, form: &[(&str, &str)], signature: Option<&str>) -> u16 {
    let encode =
        |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02X}")).collect() };
    let fields: Vec<String> =
        form.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    let body = fields.join("&");
    let signature = signature.map(|s| format!("X-Twilio-Signature: {s}\r\n")).unwrap_or_default();
    let (status, answer) = server.ask(&format!(
        "POST {path} HTTP/1.1\r\nHost: evil.example\r\n{signature}\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(answer.contains("<Stream"), status == 200, "{answer}");
    status
}

/// Signs with the `twilio` package from PyPI.
fn sign(token: &str, url: &str, form: &[(&str, &str)]) -> String {
    const PROGRAM: &str = "import json, sys\n\
        from twilio.request_validator import RequestValidator\n\
        token, url, form = json.load(sys.stdin)\n\
        print(RequestValidator(token).compute_signature(url, dict(form)))";
    python::run(PROGRAM, &serde_json::json!([token, url, form]).to_string())
}
