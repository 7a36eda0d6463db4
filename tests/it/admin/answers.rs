//! The form of answers: compression, the order and the pages of the recordings, and the description of
//! the API.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::{check, locked, open, record_one};
use crate::harness::admin::{Answer, Recorder, shelve};
use crate::harness::python;

const GZIP: (&str, &str) = ("accept-encoding", "br;q=1.0, gzip;q=0.8");

/// Unpacks an answer with gzip.
fn unpacked(answer: &Answer) -> Vec<u8> {
    assert_eq!(answer.header("content-encoding"), "gzip");
    let mut gzip = Command::new("gzip")
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("gzip runs");
    let (mut input, packed) = (gzip.stdin.take().unwrap(), answer.body.clone());
    let writing = std::thread::spawn(move || input.write_all(&packed).unwrap());
    let mut text = Vec::new();
    gzip.stdout.take().unwrap().read_to_end(&mut text).unwrap();
    writing.join().unwrap();
    assert!(gzip.wait().unwrap().success());
    text
}

#[test]
fn errors_are_pages_for_people_and_json_for_programs() {
    let recorder = Recorder::start(open());
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    for (path, root) in
        [("/nowhere", "./"), ("/api/v1/recordings/2026-01-01/MZ%3Cb%3E", "../../../../")]
    {
        let page = recorder.ask("GET", path, &[("accept", browser)]);
        assert_eq!((page.status, page.header("content-type")), (404, "text/html; charset=utf-8"));
        let text = String::from_utf8(page.body.clone()).unwrap();
        for part in ["<h1>Not Found</h1>", &format!("href=\"{root}\"")] {
            assert!(text.contains(part), "{path}: {text}");
        }
        for accept in ["*/*", "application/json", "application/json, text/html;q=0.5"] {
            let answer = recorder.ask("GET", path, &[("accept", accept)]);
            assert_eq!(answer.header("content-type"), "application/problem+json", "{accept}");
            assert!(text.contains(answer.json()["detail"].as_str().unwrap()));
        }
    }
}

#[test]
fn texts_are_compressed_for_clients_that_take_gzip() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    (0..200).for_each(|number| shelve(dir.path(), "2026-01-01", &format!("MZ{number}")));
    let recorder = Recorder::start_in(dir, open(), None);
    for path in [
        "/api/v1/recordings?limit=200",
        "/openapi.json",
        "/",
        "/console/app.js",
        "/console/style.css",
    ] {
        let plain = recorder.ask("GET", path, &[("accept-encoding", "gzip;q=0, identity")]);
        assert_eq!(plain.header("content-encoding"), "", "{path}");
        let packed = recorder.ask("GET", path, &[GZIP]);
        assert!(unpacked(&packed) == plain.body, "{path}");
        assert!(packed.body.len() < plain.body.len() / 2, "{path}");
        for answer in [&plain, &packed] {
            let mut varies = answer.headers.get_all("vary").iter();
            assert!(varies.any(|by| by == "accept-encoding"), "{path}");
        }
        let head = recorder.ask("HEAD", path, &[GZIP]);
        assert_eq!(head.header("content-length"), plain.body.len().to_string(), "{path}");
        if let Some(strong) = packed.header("etag").strip_prefix("W/") {
            assert_eq!(strong, plain.header("etag"), "{path}");
            let tag = packed.header("etag");
            let known = recorder.ask("GET", path, &[GZIP, ("if-none-match", tag)]);
            assert_eq!((known.status, known.body.len()), (304, 0), "{path}");
        }
    }
    let metrics = recorder.ask("GET", "/metrics", &[GZIP]);
    assert!(String::from_utf8(unpacked(&metrics)).unwrap().contains("callreel_calls 0"));
    let short = recorder.ask("GET", "/healthz", &[GZIP]);
    assert_eq!((short.header("content-encoding"), &short.json()["status"]), ("", &json!("ok")));
}

#[test]
fn audio_and_live_answers_are_never_compressed() {
    let recorder = Recorder::start(open());
    let (path, summary) = record_one(&recorder);
    let audio = recorder.ask("GET", &format!("{path}/audio"), &[GZIP]);
    assert_eq!(audio.header("content-encoding"), "");
    assert_eq!(audio.body.len() as u64, summary["bytes"].as_u64().unwrap());
    let mut plan = recorder.plan();
    plan.duration = Some(Duration::from_secs(20));
    let _placed = recorder.place_meanwhile(plan);
    let key = recorder.wait_for("/api/v1/calls", |answer| {
        Some(answer["calls"].get(0)?["key"].as_str()?.to_owned())
    });
    for live in ["/api/v1/events".to_owned(), format!("/api/v1/calls/{key}/listen")] {
        let asked = ureq::get(recorder.url(&live)).header(GZIP.0, GZIP.1).call().unwrap();
        let headers = asked.headers();
        assert!(headers.get("content-encoding").is_none(), "{live}");
        assert_eq!(headers["cache-control"], "no-store, no-transform", "{live}");
    }
}

/// The ids of a page, and the cursor of the next one.
fn page(recorder: &Recorder, cursor: &str) -> (Vec<String>, Option<String>) {
    let page = recorder.get(&format!("/api/v1/recordings?limit=3&cursor={cursor}")).json();
    let ids = page["recordings"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap());
    (ids.map(str::to_owned).collect(), page["next"].as_str().map(str::to_owned))
}

#[test]
fn recordings_are_in_the_order_of_their_starts_on_pages_that_stay() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    // The time of a file is the reverse of the start of its call, as after a copy or a long wait.
    let shelve_at = |id: &str, minute: u64| {
        shelve(dir.path(), "2026-01-01", id);
        let path = dir.path().join(format!("2026-01-01/{id}.json"));
        let record = fs::read_to_string(&path).unwrap();
        let start = format!("2026-01-01T12:{minute:02}:00Z");
        fs::write(&path, record.replace("2026-01-01T12:00:00Z", &start)).unwrap();
        let written = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 - minute);
        File::options().write(true).open(&path).unwrap().set_modified(written).unwrap();
    };
    (0..9).for_each(|number| shelve_at(&format!("MZ{number}"), 10 + 2 * number));
    let recorder = Recorder::start_in(Arc::clone(&dir), open(), None);
    let (first, next) = page(&recorder, "");
    assert_eq!(first, ["MZ8", "MZ7", "MZ6"]);
    // One that comes before the place of the cursor, one behind it, and one that goes.
    shelve_at("MZbefore", 25);
    shelve_at("MZbehind", 19);
    fs::remove_file(dir.path().join("2026-01-01/MZ6.json")).unwrap();
    let (second, next) = page(&recorder, &next.unwrap());
    assert_eq!(second, ["MZ5", "MZbehind", "MZ4"]);
    let (third, next) = page(&recorder, &next.unwrap());
    assert_eq!(third, ["MZ3", "MZ2", "MZ1"]);
    assert_eq!(page(&recorder, &next.unwrap()), (vec!["MZ0".to_owned()], None));
    assert_eq!(page(&recorder, "").0, ["MZ8", "MZbefore", "MZ7"]);
}

#[test]
fn the_description_is_valid_and_names_each_operation() {
    const PROGRAM: &str = "import json, sys\n\
        import openapi_spec_validator\n\
        openapi_spec_validator.validate(json.load(sys.stdin))\n\
        print('valid')";
    let recorder = Recorder::start(open());
    let answer = recorder.get("/openapi.json");
    assert_eq!(python::run(PROGRAM, answer.text()), "valid");
    let description = answer.json();
    let groups = [&description["paths"], &description["webhooks"]];
    let items = groups.into_iter().flat_map(|group| group.as_object().unwrap().values());
    let operations: Vec<&Value> = items
        .flat_map(|item| item.as_object().unwrap().iter().filter(|(key, _)| *key != "parameters"))
        .map(|(_, operation)| operation)
        .collect();
    let ids: BTreeSet<&str> =
        operations.iter().map(|operation| operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), operations.len());
}

#[test]
fn refusals_are_as_described() {
    let recorders = [open(), locked()].map(Recorder::start);
    let description = recorders[0].get("/openapi.json").json();
    for (path, item) in description["paths"].as_object().unwrap() {
        if path.contains('{') || path.ends_with("/events") {
            continue;
        }
        let method = if item.get("get").is_some() { "get" } else { "post" };
        let is_public = item[method]["security"] == json!([]);
        for (recorder, header, value, status) in [
            (&recorders[0], "host", "rebound.example", 421),
            (&recorders[0], "sec-fetch-site", "cross-site", 403),
            (&recorders[0], "x-forwarded-for", "192.0.2.1", 403),
            (&recorders[1], "accept", "*/*", if is_public { 200 } else { 401 }),
        ] {
            let answer = recorder.ask(&method.to_uppercase(), path, &[(header, value)]);
            // A server without memory of its disk may not be ready yet.
            let is_expected = answer.status == status || path == "/readyz" && status == 200;
            assert!(is_expected, "{path} {header}: {}", answer.status);
            check(&description, item, method, &answer, path);
        }
    }
}
