//! Admission: signatures that the providers' own libraries made, and a server that checks them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use callreel::admission::{Asked, Fault, Scheme, Secrets, check};
use callreel::secrets::Watched;
use callreel::twilio::{AuthToken, AuthTokens, Proof, Verifier, Webhook, sign};
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, Server, Setup, eventually};

const PUBLIC_URL: &str = "https://calls.example.com";
const STREAM_URL: &str = "wss://calls.example.com/media-stream";
const FORM: &str = "application/x-www-form-urlencoded";

/// The vectors: each a request, its signature, and whether it is to be admitted.
fn vectors() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/signatures/vectors.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn word<'v>(vector: &'v Value, name: &str) -> &'v str {
    vector[name].as_str().unwrap_or_default()
}

/// The parameters of a vector: pairs, or names with a value or with several.
fn params(vector: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    match &vector["params"] {
        Value::Array(pairs) => pairs.iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect(),
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| match value {
                Value::Array(values) => values.iter().map(|v| (name.clone(), text(v))).collect(),
                value => vec![(name.clone(), text(value))],
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn form(params: &[(String, String)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(params).finish()
}

#[test]
fn every_vector_of_twilio_is_taken_or_refused_as_listed() {
    let mut seen = 0;
    for vector in vectors().iter().filter(|v| word(v, "scheme").starts_with("twilio")) {
        seen += 1;
        let (case, url, signature) =
            (word(vector, "case"), word(vector, "url_seen"), word(vector, "signature"));
        let params = params(vector);
        let at = url.find("://").unwrap() + 3;
        let path = url[at..].find('/').map(|path| at + path);
        // No request has these: a user belongs to Authorization, a fragment stays with the client, and a
        // path is never empty.
        if url.contains(['@', '#']) || path.is_none() {
            let token = AuthToken::new(word(vector, "key").to_owned()).unwrap();
            assert_eq!(sign(&token, url, &params), signature, "{case}");
            continue;
        }
        let (base, path_and_query) = url.split_at(path.unwrap());
        let (tokens, settings) = match word(vector, "scheme") {
            "twilio-hmac-sha1" => (word(vector, "key").to_owned(), None),
            _ => (
                format!("token\nwebhooks_sharedkey_01 {}", word(vector, "key")),
                Some("key=webhooks_sharedkey_01,algorithm=HMAC_SHA256"),
            ),
        };
        let tokens = Watched::fixed(AuthTokens::from_file(&tokens).unwrap());
        let verifier = Verifier::new(tokens, base.parse().unwrap());
        let proof = Proof { signature: Some(signature), settings };
        let verified = if url.starts_with("wss") {
            verifier.verify_upgrade(path_and_query, proof)
        } else {
            let body = vector["body"].as_str().map_or_else(|| form(&params), str::to_owned);
            let is_form = vector["body"].is_null() || !body.starts_with('{');
            let content_type = Some(if is_form { FORM } else { "application/json" });
            let body = body.as_bytes();
            verifier.verify_webhook(&Webhook { path_and_query, content_type, body }, proof)
        };
        assert_eq!(verified.is_ok(), vector["accept"] == true, "{case}: {verified:?}");
    }
    assert_eq!(seen, 58);
}

#[test]
fn a_signature_of_twilio_by_an_unknown_hash_or_key_is_refused() {
    let vectors = vectors();
    let vector = vectors.iter().find(|v| word(v, "scheme") == "twilio-hmac-sha256").unwrap();
    let body = form(&params(vector));
    let webhook =
        Webhook { path_and_query: "/answer", content_type: Some(FORM), body: body.as_bytes() };
    let verify = |file: &str, settings| {
        let tokens = Watched::fixed(AuthTokens::from_file(file).unwrap());
        let verifier = Verifier::new(tokens, "https://rec.example.com".parse().unwrap());
        let proof = Proof { signature: Some(word(vector, "signature")), settings: Some(settings) };
        verifier.verify_webhook(&webhook, proof).is_ok()
    };
    let key = format!("webhooks_sharedkey_01 {}", word(vector, "key"));
    assert!(verify(&key, "algorithm=HMAC_SHA256"));
    assert!(verify(&key, "algorithm=HMAC_SHA256, key=webhooks_sharedkey_01"));
    assert!(!verify(&key, "key=webhooks_sharedkey_02,algorithm=HMAC_SHA256"));
    assert!(!verify(&key, "key=webhooks_sharedkey_01,algorithm=HMAC_SHA512"));
    assert!(!verify(&key, "key=webhooks_sharedkey_01"));
    // The auth token is no shared key.
    assert!(!verify(word(vector, "key"), "algorithm=HMAC_SHA256"));
}

/// A request of a vector that is not Twilio's.
struct Signed {
    scheme: Scheme,
    secret: String,
    method: String,
    url: String,
    path_and_query: String,
    headers: HeaderMap,
    body: Vec<u8>,
    now: Timestamp,
}

impl Signed {
    /// `None` for a vector of Twilio, and for one with a signature that no known header carries.
    fn of(vector: &Value) -> Option<Self> {
        let (text, signature) = (|name| word(vector, name).to_owned(), word(vector, "signature"));
        let mut headers = HeaderMap::new();
        let mut set = |name: &str, value: &str| {
            let name = HeaderName::try_from(name).unwrap();
            headers.insert(name, HeaderValue::try_from(value).unwrap());
        };
        let (mut method, mut body) = ("POST".to_owned(), text("body"));
        let (mut secret, mut path_and_query) = (text("key"), String::new());
        let mut now = Timestamp::from_second(1_795_741_002).unwrap();
        let scheme = match word(vector, "scheme") {
            "telnyx-ed25519" => {
                set("telnyx-signature-ed25519", signature);
                set("telnyx-timestamp", word(vector, "timestamp"));
                secret = text("public_key");
                now = Timestamp::from_second(1_700_000_300).unwrap();
                Scheme::Telnyx
            }
            version @ ("plivo-v3" | "plivo-v2") => {
                let header = format!("x-plivo-signature-{}", &version[6..]);
                set(&header, &format!("{}, {signature}", "A".repeat(44)));
                set(&format!("{header}-nonce"), word(vector, "nonce"));
                set("content-type", FORM);
                method = if version == "plivo-v2" { "GET".to_owned() } else { text("method") };
                body = form(&params(vector));
                Scheme::Plivo
            }
            "signalwire-a-sha256" => {
                set("x-signalwire-sha256-signature", signature);
                Scheme::SignalWire
            }
            name @ ("signalwire-a-sha1" | "signalwire-b") => {
                let is_form = name == "signalwire-b";
                set("content-type", if is_form { FORM } else { "application/json" });
                set(
                    if is_form { "x-twilio-signature" } else { "x-signalwire-signature" },
                    signature,
                );
                Scheme::SignalWire
            }
            "fonoster" => {
                set("x-fonoster-timestamp", word(vector, "timestamp"));
                set("x-fonoster-signature", signature);
                now = Timestamp::from_second(1_700_000_000).unwrap();
                Scheme::Fonoster
            }
            "genesys-http-signature" => {
                for (name, value) in vector["headers"].as_object().unwrap() {
                    set(name, value.as_str().unwrap());
                }
                set("signature", &format!("sig1=:{signature}:"));
                let api_key = vector["headers"]["x-api-key"].as_str().unwrap();
                secret = format!("{api_key} {}", word(vector, "key_base64"));
                (method, path_and_query) = ("GET".to_owned(), text("request_target"));
                let input = vector["headers"]["signature-input"].as_str().unwrap();
                let created = input.split("created=").nth(1).unwrap().split(';').next().unwrap();
                now = Timestamp::from_second(created.parse().unwrap()).unwrap();
                Scheme::Genesys
            }
            "vonage-jwt" => {
                set("authorization", &format!("Bearer {}", word(vector, "jwt")));
                Scheme::Vonage
            }
            _ => return None,
        };
        let (url, body) = (text("url_seen"), body.into_bytes());
        Some(Self { scheme, secret, method, url, path_and_query, headers, body, now })
    }

    fn check(&self) -> Result<(), Fault> {
        let secrets = format!("# two\n{}\n{}\n", self.other(), self.secret);
        let asked = Asked {
            method: &self.method,
            urls: std::slice::from_ref(&self.url),
            path_and_query: &self.path_and_query,
            headers: &self.headers,
            body: &self.body,
            now: self.now,
        };
        check(self.scheme, &Secrets::read(self.scheme, &secrets).unwrap(), &asked)
    }

    /// Another secret of the scheme.
    fn other(&self) -> String {
        match self.scheme {
            Scheme::Genesys => "another c2VjcmV0".to_owned(),
            Scheme::Telnyx => "A".repeat(43) + "=",
            _ => "another-secret".to_owned(),
        }
    }
}

#[test]
fn every_vector_of_the_other_providers_is_taken_or_refused_as_listed() {
    let mut left_out = BTreeSet::new();
    let mut seen = 0;
    for vector in vectors().iter().filter(|v| !word(v, "scheme").starts_with("twilio")) {
        let Some(signed) = Signed::of(vector) else {
            left_out.insert(word(vector, "scheme").to_owned());
            continue;
        };
        seen += 1;
        let checked = signed.check();
        assert_eq!(checked.is_ok(), vector["accept"] == true, "{vector}: {checked:?}");
    }
    // The headers with the two references of Fonoster's second signature are not documented.
    assert_eq!((seen, left_out), (41, BTreeSet::from(["fonoster-app".to_owned()])));
}

#[test]
fn a_changed_part_or_another_time_or_secret_is_refused() {
    let vectors = vectors();
    let mut schemes = BTreeSet::new();
    for vector in vectors.iter().filter(|vector| vector["accept"] == true) {
        let Some(signed) = Signed::of(vector) else { continue };
        schemes.insert(signed.scheme.name());
        let secret = signed.other();
        assert!(Signed { secret, ..Signed::of(vector).unwrap() }.check().is_err(), "{vector}");
        if signed.scheme.signs_url() {
            let url = signed.url.replacen("://", "://other.", 1);
            assert!(Signed { url, ..Signed::of(vector).unwrap() }.check().is_err(), "{vector}");
        }
        // Plivo's second version leaves the content out.
        if word(vector, "scheme") != "plivo-v2" {
            let body = [&signed.body[..], b"&x=1"].concat();
            assert!(Signed { body, ..Signed::of(vector).unwrap() }.check().is_err(), "{vector}");
        }
        if matches!(signed.scheme, Scheme::Fonoster | Scheme::Genesys | Scheme::Telnyx) {
            for seconds in [-602, 602] {
                let now = signed.now + jiff::SignedDuration::from_secs(seconds);
                let checked = Signed { now, ..Signed::of(vector).unwrap() }.check();
                assert_eq!(checked, Err(Fault::Time), "{vector}");
            }
        }
        for name in signed.headers.keys().filter(|name| name.as_str() != "content-type") {
            let mut headers = signed.headers.clone();
            headers.remove(name);
            let checked = Signed { headers, ..Signed::of(vector).unwrap() }.check();
            assert!(checked.is_err(), "without {name}: {vector}");
        }
    }
    assert_eq!(schemes.len(), 6, "{schemes:?}");
}

/// A server that admits by these settings, and the file of the secrets.
fn serve(dir: &Path, path: &str, scheme: &str, secrets: &str) -> (Server, PathBuf) {
    let file = dir.join("secrets");
    fs::write(&file, secrets).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let admission = format!("{path}={scheme}:{}", file.display());
    let setup = Setup::new(&dir.join("recordings"));
    let setup = setup.args(&["--public-url", PUBLIC_URL, "--admission", &admission]);
    // Twilio's signature is not asked for on that path.
    (setup.env("TWILIO_AUTH_TOKEN", "0123456789abcdef").start(), file)
}

/// The status of a stream with these headers.
fn connect(server: &Server, id: &str, headers: &str) -> u16 {
    Peer::try_connect(server, id, headers).map_or_else(|status| status, |_| 101)
}

/// The output of openssl for this message and key: an HMAC with SHA-256.
fn hmac(message: &str, key: &str, form: &str) -> String {
    let script = format!("printf %s \"$1\" | openssl dgst -sha256 -hmac \"$2\" {form}");
    let output = Command::new("sh").args(["-c", &script, "sh", message, key]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let output = String::from_utf8(output.stdout).unwrap();
    output.trim().rsplit(' ').next().unwrap().to_owned()
}

#[test]
fn a_stream_with_a_login_is_taken_and_others_are_told_the_scheme() {
    let dir = tempfile::tempdir().unwrap();
    let (server, file) = serve(dir.path(), "/media-stream", "bearer", "old-token\n");
    assert_eq!(connect(&server, "MZ1", "Authorization: Bearer old-token\r\n"), 101);
    assert_eq!(connect(&server, "MZ2", "Authorization: Bearer other\r\n"), 401);
    server.wait_for_log("not admitted by bearer: the signature or the credentials do not fit");
    // Changed while the server runs.
    fs::write(&file, "new-token\nold-token\n").unwrap();
    server.signal(Signal::HUP);
    eventually(PATIENCE, "the new token is taken", || {
        (connect(&server, "MZ3", "Authorization: bearer new-token\r\n") == 101).then_some(())
    });
    drop(server);

    let dir = tempfile::tempdir().unwrap();
    let (server, _) = serve(dir.path(), "/media-stream", "basic", "me:pass:word\n");
    assert_eq!(connect(&server, "MZ1", "Authorization: Basic bWU6cGFzczp3b3Jk\r\n"), 101);
    assert_eq!(connect(&server, "MZ2", "Authorization: Basic bWU6cGFzcw==\r\n"), 401);
    let request = "GET /media-stream HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let (status, answer) = server.ask(request);
    assert_eq!(status, 401, "{answer}");
    assert!(
        answer.to_lowercase().contains("www-authenticate: basic realm=\"callreel\""),
        "{answer}"
    );
    // The webhook has no admission of its own, so it needs Twilio's signature.
    assert_eq!(server.get("/incoming-call"), 403);
}

#[test]
fn a_stream_that_is_signed_for_the_public_url_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (server, _) = serve(dir.path(), "/media-stream", "plivo", "plivo-token\n");
    let signed = |url: &str| {
        let signature = hmac(&format!("{url}.77"), "plivo-token", "-binary | base64");
        format!("X-Plivo-Signature-V3: {signature}\r\nX-Plivo-Signature-V3-Nonce: 77\r\n")
    };
    assert_eq!(connect(&server, "MZ1", &signed(STREAM_URL)), 101);
    assert_eq!(connect(&server, "MZ2", &signed("wss://other.example.com/media-stream")), 403);
    assert_eq!(connect(&server, "MZ3", ""), 403);
    drop(server);

    let dir = tempfile::tempdir().unwrap();
    let (server, _) = serve(dir.path(), "/media-stream", "fonoster", "fonoster-secret\n");
    let signed = |seconds: i64| {
        let signature = hmac(&format!("{seconds}.{STREAM_URL}"), "fonoster-secret", "-hex");
        format!("X-Fonoster-Timestamp: {seconds}\r\nX-Fonoster-Signature: {signature}\r\n")
    };
    let now = Timestamp::now().as_second();
    assert_eq!(connect(&server, "MZ1", &signed(now)), 101);
    assert_eq!(connect(&server, "MZ2", &signed(now - 400)), 401);
    server.wait_for_log("not admitted by fonoster: it was signed too long ago");
}

#[test]
fn an_admission_that_could_admit_nobody_stops_the_start_with_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secrets");
    let refusal = |setting: &str, secrets: &str, args: &[&str]| {
        fs::write(&file, secrets).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let setting = setting.replace("FILE", file.to_str().unwrap());
        let setup = Setup::new(dir.path()).args(&["--admission", &setting]).args(args);
        let (code, said) = setup.refuse();
        assert!(code.is_some_and(|code| code > 0), "{setting} is taken");
        said.join("\n")
    };
    let url: &[&str] = &["--public-url", PUBLIC_URL];
    for (setting, secrets, args, expected) in [
        ("/media-stream=bearer", "", url, "`bearer` needs a file of secrets: bearer:FILE"),
        ("/media-stream=magic:FILE", "", url, "`magic` is no scheme: give one of none, basic"),
        ("/other=bearer:FILE", "x", url, "there is no path /other: give /media-stream"),
        ("/media-stream=bearer:FILE", "# none\n", url, "there is no secret in it"),
        (
            "/media-stream=bearer:FILE",
            "pass word\n",
            url,
            "line 1: must be a secret without blanks",
        ),
        ("/media-stream=basic:FILE", "me\n", url, "line 1: must be USER:PASSWORD"),
        ("/media-stream=genesys:FILE", "key\n", url, "line 1: must be an API key, a blank"),
        ("/incoming-call=telnyx:FILE", "key\n", url, "line 1: must be Telnyx's public key"),
        ("/media-stream=telnyx:FILE", "key\n", url, "Telnyx signs webhooks and no stream"),
        ("/media-stream=plivo:FILE", "x", &[], "plivo signs the address that it calls"),
        ("/media-stream=bearer:FILE,/media-stream/=none", "x", url, "/media-stream is given twice"),
    ] {
        let said = refusal(setting, secrets, args);
        assert!(said.contains(expected), "{setting}: {said}");
        assert!(!said.contains("pass word") && said.lines().count() == 1, "{said}");
    }
    // A path of another provider must not come in unsigned by an oversight.
    let setup = Setup::new(dir.path()).args(&["--provider", "/telnyx=telnyx"]).args(url);
    let (code, said) = setup.env("TWILIO_AUTH_TOKEN", "0123456789abcdef").refuse();
    let said = said.join("\n");
    assert!(code == Some(1) && said.contains("--admission /telnyx=bearer:FILE"), "{said}");
}
