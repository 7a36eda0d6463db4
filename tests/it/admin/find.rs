//! Recordings searched, sorted, counted and exported, compared with a look at the records themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::Offset;
use jiff::{Timestamp, ToSpan as _};
use serde_json::{Value, json};

use super::open;
use crate::harness::admin::{Recorder, shelve};
use crate::harness::process::{Setup, callreel, eventually};
use crate::harness::python;

/// Recordings of the scale test, and those with `CALLREEL_LONG`.
const MANY: u64 = 20_000;
const VERY_MANY: u64 = 1_000_000;

/// The record of a finished recording, number `n`. Numbers repeat in cycles without a common
/// divisor, so that facts come in all combinations.
fn record_of(n: u64, started_at: Timestamp) -> Value {
    let pick = |words: &[&'static str], cycle: u64| words[(n % cycle) as usize % words.len()];
    let id = format!("MZ{n:07}");
    let gap = json!({ "track": "inbound", "at_ms": 0, "missing_ms": 20, "filled_ms": 20 });
    let gaps = vec![gap; (n % 4 / 2) as usize];
    let mut record = json!({
        "schema": 1, "recorder": "callreel", "id": id,
        "state": pick(&["complete", "complete", "partial", "failed", "recovered"], 5),
        "end": pick(&["stop", "close", "idle"], 3),
        "provider": pick(&["twilio", "telnyx", "another"], 7),
        "stream_id": id, "call_id": format!("CA-{n}"), "account_id": "AC1",
        "parameters": { "agent": pick(&["Zoë Müller", "=Ann", "Bob"], 11), "state": pick(&["Bayern", "Hessen"], 2) },
        "parameters_dropped": 0, "caller": { "from": format!("+1555{n:07}"), "to": "sip:desk@a.example" },
        "started_at": started_at.to_string(), "ended_at": started_at.to_string(),
        "tracks": ["inbound", "outbound"],
        "format": { "encoding": "pcm16", "sample_rate_hz": 8000, "channels": 2 },
        "samples": 0, "duration_ms": n * 7919 % 1000 * 1000, "elapsed_ms": 0,
        "frames": { "received": 0, "late": 0, "repeated": 0, "before_start": 0, "missing": 0, "rejected": {} },
        "gaps": gaps, "gaps_dropped": 0, "missing_ms": gaps.len() * 20,
        "events": [], "events_dropped": 0, "lost_ms": n % 13 / 12 * 500,
        "silent_tracks": [], "equal_channels": false,
    });
    if n.is_multiple_of(6) {
        record["events"] = json!([{ "at_ms": 1, "dtmf": "5" }, { "at_ms": 2, "mark": "hello" }]);
    }
    if n.is_multiple_of(9) {
        record["silent_tracks"] = json!(["outbound"]);
    }
    if !n.is_multiple_of(3) {
        let interruption =
            json!({ "by": "inbound", "at_ms": 5, "overlap_ms": 5, "is_heeded": true });
        let interruptions = vec![interruption; (n % 2) as usize];
        record["conversation"] = json!({
            "sides": [], "turns": [], "response_max_ms": n * 31 % 4000, "interruptions": interruptions,
            "dead_air": [], "dead_air_ms": 0, "overlap_ms": 0, "silence_ms": 0, "silence_ratio": 0.0,
        });
    }
    record
}

/// The start of a recording, and its file, whose folder is made.
fn place(dir: &Path, n: u64, step: jiff::Span) -> (Timestamp, PathBuf) {
    let begin: Timestamp = "2026-03-06T20:00:00Z".parse().unwrap();
    let started_at = begin + step * i64::try_from(n).unwrap();
    let day = dir.join(&started_at.to_string()[..10]);
    fs::create_dir_all(&day).unwrap();
    (started_at, day.join(format!("MZ{n:07}.json")))
}

fn number(record: &Value, field: &str) -> u64 {
    record[field].as_u64().unwrap()
}

fn latency(record: &Value) -> Option<u64> {
    record.pointer("/conversation/response_max_ms").map(|ms| ms.as_u64().unwrap())
}

/// All pages of a list: the ids.
fn ids(recorder: &Recorder, query: &str, limit: usize) -> Vec<String> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    for _ in 0..1000 {
        let page =
            recorder.get(&format!("/api/v1/recordings?{query}&limit={limit}&cursor={cursor}"));
        let page = page.json();
        assert_eq!(page["complete"], true, "{query}: {page}");
        let ids = page["recordings"].as_array().unwrap().iter();
        all.extend(ids.map(|one| one["id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return all,
        }
    }
    panic!("the pages of {query} have no end");
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// A recorder with 300 records, whose index is made.
fn stocked() -> (Recorder, Vec<Value>) {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let shelve = |n| {
        let (started_at, file) = place(dir.path(), n, 37.minutes());
        let record = record_of(n, started_at);
        fs::write(file, record.to_string()).unwrap();
        record
    };
    let records = (0..300).map(shelve).collect();
    let recorder = Recorder::start_in(dir, open(), None);
    recorder.wait_for("/api/v1/recordings/days", |days| (days["complete"] == true).then_some(()));
    (recorder, records)
}

#[test]
fn each_term_finds_the_recordings_that_meet_it() {
    let (recorder, records) = stocked();
    type Meets = fn(&Value) -> bool;
    let terms: [(&str, Meets); 24] = [
        ("state:partial,failed", |r| r["state"] == "partial" || r["state"] == "failed"),
        ("-state:complete", |r| r["state"] != "complete"),
        ("end:idle", |r| r["end"] == "idle"),
        ("provider:telnyx", |r| r["provider"] == "telnyx"),
        ("provider:unknown", |r| r["provider"] == "another"),
        ("has:gaps", |r| number(r, "missing_ms") > 0),
        ("has:lost", |r| number(r, "lost_ms") > 0),
        ("has:silent", |r| r["silent_tracks"] != json!([])),
        ("has:keys", |r| r["events"] != json!([])),
        ("has:marks -has:gaps", |r| r["events"] != json!([]) && number(r, "missing_ms") == 0),
        ("has:interruptions", |r| r.pointer("/conversation/interruptions/0").is_some()),
        ("has:lost,silent", |r| number(r, "lost_ms") > 0 || r["silent_tracks"] != json!([])),
        ("longer:10m", |r| number(r, "duration_ms") > 600_000),
        ("longer:1m shorter:2m", |r| (60_001..120_000).contains(&number(r, "duration_ms"))),
        ("latency:>1.5s", |r| latency(r).is_some_and(|ms| ms > 1500)),
        ("latency:<800ms", |r| latency(r).is_some_and(|ms| ms < 800)),
        ("-latency:>0", |r| latency(r).is_none_or(|ms| ms == 0)),
        ("ZOE muller", |r| r["parameters"]["agent"] == "Zoë Müller"),
        ("agent:\"zoë m\"", |r| r["parameters"]["agent"] == "Zoë Müller"),
        ("-\"zoe muller\" -agent:bob", |r| r["parameters"]["agent"] == "=Ann"),
        ("parameter.state:bay", |r| r["parameters"]["state"] == "Bayern"),
        ("\"muller zoe\"", |_| false),
        ("sip:desk has:gaps", |r| number(r, "missing_ms") > 0),
        ("ca-17 end:idle", |r| {
            r["call_id"].as_str().unwrap().starts_with("CA-17") && r["end"] == "idle"
        }),
    ];
    for (query, meets) in terms {
        let expected: BTreeSet<String> = records
            .iter()
            .filter(|record| meets(record))
            .map(|record| record["id"].as_str().unwrap().to_owned())
            .collect();
        let found = ids(&recorder, &format!("q={}", encoded(query)), 200);
        assert_eq!(found.iter().cloned().collect::<BTreeSet<_>>(), expected, "{query}");
        assert_eq!(found.len(), expected.len(), "{query}");
        assert!(query.contains("muller zoe") || !expected.is_empty(), "{query} finds nothing");
        let days = recorder.get(&format!("/api/v1/recordings/days?q={}", encoded(query))).json();
        assert_eq!(days["total"], expected.len(), "{query}");
    }
    for (query, said) in [
        (
            "q=zoe+has:fun",
            "`has:fun`: `has:` takes gaps, lost, silent, interruptions, keys or marks",
        ),
        ("q=state:recording", "`state:recording`: `state:` takes complete, failed, partial or"),
        ("q=longer:5", "`longer:5`: `longer:` takes a duration with its unit, like 90s or 10m"),
        ("q=latency:2s", "`latency:2s`: `latency:` takes > or <"),
        ("sort=loudness", "`sort`: give one of -started, started, -duration"),
        ("sort=duration&cursor=2026-01-01~1~MZ1", "unknown cursor"),
        ("format=xml", "`format` is json, csv or ndjson"),
        ("format=csv&limit=5", "CSV and NDJSON have all recordings"),
    ] {
        let answer = recorder.get(&format!("/api/v1/recordings?{query}"));
        assert_eq!(answer.status, 400, "{query}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.starts_with(said), "{query}: {detail}");
    }
    let wrong = recorder.get("/api/v1/recordings/days?zone=Mars");
    assert_eq!(wrong.status, 400);
}

#[test]
fn each_order_is_kept_over_its_pages_while_recordings_come_and_go() {
    let (recorder, mut records) = stocked();
    let trouble = |record: &Value| {
        let states = ["complete", "recovered", "partial", "failed"];
        let state = states.iter().position(|state| record["state"] == *state).unwrap();
        (state, number(record, "missing_ms") + number(record, "lost_ms"))
    };
    // The default order is that of the ids in reverse; sorts are stable.
    records.reverse();
    let sorted = |compare: &dyn Fn(&Value, &Value) -> std::cmp::Ordering| {
        let mut sorted = records.clone();
        sorted.sort_by(compare);
        let ids = sorted.iter().map(|record| record["id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>()
    };
    let duration = |record: &Value| number(record, "duration_ms");
    let slow = |record: &Value| latency(record).map_or(0, |ms| ms + 1);
    let quick = |record: &Value| latency(record).unwrap_or(u64::MAX);
    for (order, expected) in [
        ("", sorted(&|_, _| std::cmp::Ordering::Equal)),
        ("-started", sorted(&|_, _| std::cmp::Ordering::Equal)),
        ("started", sorted(&|a, b| a["id"].as_str().cmp(&b["id"].as_str()))),
        ("-duration", sorted(&|a, b| duration(b).cmp(&duration(a)))),
        ("duration", sorted(&|a, b| duration(a).cmp(&duration(b)))),
        ("-trouble", sorted(&|a, b| trouble(b).cmp(&trouble(a)))),
        ("trouble", sorted(&|a, b| trouble(a).cmp(&trouble(b)))),
        ("-latency", sorted(&|a, b| slow(b).cmp(&slow(a)))),
        ("latency", sorted(&|a, b| quick(a).cmp(&quick(b)))),
    ] {
        assert_eq!(ids(&recorder, &format!("sort={order}"), 7), expected, "{order}");
    }
    // A page goes on behind its place, although the recording there is gone and another one came.
    let path = "/api/v1/recordings?sort=-latency&limit=3";
    let page = recorder.get(path).json();
    let last = page["recordings"][2].clone();
    let file = |id: &Value| {
        let (day, id) = (last["day"].as_str().unwrap(), id.as_str().unwrap());
        recorder.dir.path().join(day).join(format!("{id}.json"))
    };
    fs::remove_file(file(&last["id"])).unwrap();
    shelve(recorder.dir.path(), last["day"].as_str().unwrap(), "MZnew");
    let rest = format!("{path}&cursor={}", page["next"].as_str().unwrap());
    let behind = recorder.get(&rest).json()["recordings"][0]["id"].clone();
    let all = sorted(&|a, b| slow(b).cmp(&slow(a)));
    assert_eq!(behind, all[3]);
    assert!(ids(&recorder, "sort=latency", 200).contains(&"MZnew".to_owned()));
}

#[test]
fn recordings_are_counted_by_the_days_of_the_zone_that_is_asked_for() {
    let (recorder, records) = stocked();
    // Los Angeles, where summer time began at that instant.
    let change: Timestamp = "2026-03-08T10:00:00Z".parse().unwrap();
    let zone = format!("-480,{}:-420", change.as_second());
    let mut expected = BTreeMap::<String, u64>::new();
    for record in &records {
        let started_at: Timestamp = record["started_at"].as_str().unwrap().parse().unwrap();
        let offset = Offset::constant(if started_at < change { -8 } else { -7 });
        *expected.entry(offset.to_datetime(started_at).date().to_string()).or_default() += 1;
    }
    let answer = recorder.get(&format!("/api/v1/recordings/days?zone={zone}")).json();
    let days = answer["days"].as_array().unwrap().iter().rev();
    let days = days.map(|day| (day["day"].as_str().unwrap().to_owned(), number(day, "recordings")));
    assert_eq!(days.collect::<Vec<_>>(), expected.into_iter().collect::<Vec<_>>());
    assert_eq!((&answer["total"], &answer["complete"]), (&json!(300), &json!(true)));
    let one = recorder.get("/api/v1/recordings/days?from=2026-03-08&to=2026-03-08").json();
    assert_eq!(one["days"].as_array().unwrap().len(), 1);
}

#[test]
fn the_whole_selection_is_exported_as_csv_and_in_lines_of_json() {
    let (recorder, _) = stocked();
    let wanted = "q=-state%3Acomplete&sort=-duration";
    let expected = ids(&recorder, wanted, 200);
    assert!(expected.len() > 150);
    let lines = recorder.get(&format!("/api/v1/recordings?{wanted}&format=ndjson"));
    assert_eq!(lines.header("content-type"), "application/x-ndjson");
    let rows: Vec<Value> =
        lines.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let page = recorder.get(&format!("/api/v1/recordings?{wanted}&limit=200")).json();
    assert_eq!(
        json!(rows[..page["recordings"].as_array().unwrap().len().min(rows.len())]),
        page["recordings"]
    );
    assert!(rows.iter().map(|row| row["id"].as_str().unwrap()).eq(&expected));

    let csv =
        recorder.ask("GET", &format!("/api/v1/recordings?{wanted}"), &[("accept", "text/csv")]);
    assert!(csv.header("content-type").starts_with("text/csv"));
    assert!(csv.header("content-disposition").contains("recordings.csv"));
    const PROGRAM: &str = "import csv, io, json, sys\n\
        text = sys.stdin.buffer.read().decode()\n\
        rows = list(csv.DictReader(io.StringIO(text, newline=''), strict=True))\n\
        assert text.count('\\r\\n') == text.count('\\n') == len(rows) + 1\n\
        print(json.dumps(rows))";
    let read: Vec<Value> = serde_json::from_str(&python::run(PROGRAM, csv.text())).unwrap();
    assert_eq!(read.len(), rows.len());
    for (cells, row) in read.iter().zip(&rows) {
        for name in ["day", "id", "state", "end", "started_at", "call_id"] {
            assert_eq!(cells[name], row[name], "{name}");
        }
        for name in ["duration_ms", "missing_ms", "lost_ms", "keys", "interruptions"] {
            let shown = row.get(name).map_or(json!("0"), |number| json!(number.to_string()));
            assert_eq!(cells[name], shown, "{name}");
        }
        // A number begins as a formula does.
        let from = format!("'{}", row["caller"]["from"].as_str().unwrap());
        assert_eq!((&cells["from"], &cells["to"]), (&json!(from), &row["caller"]["to"]));
        let parameters: Value =
            serde_json::from_str(cells["parameters"].as_str().unwrap()).unwrap();
        assert_eq!(parameters, row["parameters"]);
    }
}

#[test]
fn all_places_that_tell_the_terms_of_a_search_tell_the_same() {
    let recorder = Recorder::start(open());
    let page = recorder.get("/").text().to_owned();
    let description = recorder.get("/openapi.json").json();
    let parameters = &description["paths"]["/api/v1/recordings"]["get"]["parameters"];
    let q = parameters.as_array().unwrap().iter().find(|one| one["name"] == "q").unwrap();
    let help = Command::new(callreel()).args(["list", "-h"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/README.md");
    let readme = fs::read_to_string(readme).unwrap();
    for (example, meaning) in callreel::record::TERMS {
        let plain = |text: &str| text.replace('<', "&lt;").replace('>', "&gt;");
        let shown = format!("<dt><code>{}</code></dt><dd>{}</dd>", plain(example), plain(meaning));
        assert!(page.contains(&shown), "the console does not say {shown}");
        let described = format!("`{example}`: {meaning}");
        assert!(q["description"].as_str().unwrap().contains(&described), "the API: {described}");
        let told = help.lines().any(|line| {
            line.trim_start().strip_prefix(example).is_some_and(|rest| rest.trim() == meaning)
        });
        assert!(told, "callreel list -h does not say {example}: {meaning}");
        let row = format!("| `{example}` | {meaning} |");
        assert!(readme.contains(&row), "host/README.md does not say {row}");
    }
    // The orders are those of the console, too.
    let sort = parameters.as_array().unwrap().iter().find(|one| one["name"] == "sort").unwrap();
    for (name, order) in callreel::record::Order::ALL {
        assert!(sort["schema"]["enum"].as_array().unwrap().contains(&json!(name)), "{name}");
        let is_default = order == callreel::record::Order::default();
        let value = if is_default { "" } else { name };
        assert!(page.contains(&format!("<option value=\"{value}\">")), "{name}");
    }
}

/// Bytes and calls of all reads of a process so far.
fn reads(pid: impl std::fmt::Display) -> (u64, u64) {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let figure = |name: &str| {
        let line = io.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap().parse::<u64>().unwrap()
    };
    (figure("rchar"), figure("syscr"))
}

#[test]
fn a_page_reads_its_own_records_alone_and_a_search_none_but_those_it_shows() {
    let long = std::env::var_os("CALLREEL_LONG").is_some();
    let count = if long { VERY_MANY } else { MANY };
    let dir = tempfile::tempdir().unwrap();
    let mut record_bytes = 0;
    // A thousand records, again and again with other ids, numbers and starts.
    let start = Timestamp::UNIX_EPOCH;
    let texts: Vec<String> = (0..1000).map(|n| record_of(n, start).to_string()).collect();
    for n in 0..count {
        let (started_at, file) = place(dir.path(), n, 45.seconds());
        let text =
            texts[(n % 1000) as usize].replace(&format!("{:07}", n % 1000), &format!("{n:07}"));
        let text = text.replace(&start.to_string(), &started_at.to_string());
        fs::write(file, &text).unwrap();
        record_bytes += text.len() as u64;
    }
    let server = Setup::new(dir.path()).args(&["--admin", "127.0.0.1:0"]).start();
    // The latest day is there at once, before all others are read.
    assert_eq!(server.ask_admin("/api/v1/recordings").0, 200);
    let ask = |path: &str| {
        let (status, answer) = server.ask_admin(path);
        assert_eq!(status, 200, "{path}");
        serde_json::from_str::<Value>(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    // The thread that makes it gives way to all other programs of this machine.
    let patience = Duration::from_secs(if long { 3000 } else { 200 });
    eventually(patience, "the index is made", || {
        let days = ask("/api/v1/recordings/days");
        (days["complete"] == true).then(|| assert_eq!(days["total"], count))
    });
    let texts_bytes = count * 200;
    for (query, found, bytes_max) in [
        ("", count, 500_000),
        ("?sort=-latency", count, 500_000),
        ("?sort=trouble&state=failed", count / 5, 500_000),
        ("?q=longer:16m", count / 1000 * 39, 500_000),
        ("?q=nobodyatall", 0, texts_bytes),
        (&format!("?q=+1555{:07}", count / 2).replace('+', "%2B"), 1, texts_bytes),
    ] {
        let (before_bytes, before_calls) = reads(server.pid().as_raw_pid());
        let page = ask(&format!("/api/v1/recordings{query}"));
        let (bytes, calls) = reads(server.pid().as_raw_pid());
        let (bytes, calls) = (bytes - before_bytes, calls - before_calls);
        assert_eq!(page["complete"], true, "{query}");
        let shown = page["recordings"].as_array().unwrap().len() as u64;
        assert_eq!(shown, found.min(50), "{query}");
        println!("{query}: {bytes} bytes in {calls} reads, of {record_bytes} bytes of records");
        assert!(bytes < bytes_max + 500_000, "{query}: {bytes} bytes");
        // A record takes three, with its id; texts come in blocks.
        assert!(calls < 600 + texts_bytes / 8192, "{query}: {calls} reads");
        let days = query.replace("sort=-latency", "");
        let days = ask(&format!("/api/v1/recordings/days{days}"));
        assert_eq!(days["total"], found, "{query}");
    }
    // Beside the program's own pages.
    let memory = server.memory("RssAnon");
    println!("{memory} bytes of memory");
    assert!(memory < 64 << 20, "{memory} bytes");
}
