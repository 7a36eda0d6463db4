//! Numbers: twenty thousand recordings, a million of them, ten thousand uploads. Each costs what its part costs, and
//! no more memory than the first.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use jiff::ToSpan as _;
use jiff::civil::{Date, date};
use serde_json::{Value, json};

use crate::harness::bucket::Bucket;
use crate::harness::process::{PATIENCE, Server, eventually};

/// Objects of the index that the instances have left of one day, and the lines of each.
const OBJECTS: usize = 8;
const LINES: usize = 2500;

/// Recordings of one day.
const OF_DAY: usize = OBJECTS * LINES;

/// Puts the index of some days into a bucket, as eight recorders have left it. The starts of all recorders are
/// mixed, four seconds apart. Recording `n` of all has the id `MZ<n>`, the last one started last.
fn fill(bucket: &Bucket, first: Date, days: usize) {
    let mut lines = String::new();
    for day in 0..days {
        let date = first + i32::try_from(day).unwrap().days();
        let (day_of_key, midnight) = (date.strftime("%Y/%m/%d").to_string(), date.to_string());
        for object in 0..OBJECTS {
            lines.clear();
            for line in 0..LINES {
                let of_day = line * OBJECTS + object;
                let (id, second) = (format!("MZ{:07}", day * OF_DAY + of_day), of_day * 4);
                let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
                let line = json!({
                    "day": midnight, "id": id, "state": "complete", "end": "stop", "provider": "twilio",
                    "stream_id": id, "call_id": format!("CA{id}"), "account_id": "AC1",
                    "parameters": {"agent": format!("a{}", of_day % 7)}, "tracks": ["inbound"],
                    "started_at": format!("{midnight}T{hour:02}:{minute:02}:{second:02}Z"),
                    "ended_at": format!("{midnight}T23:00:00Z"), "duration_ms": 1000, "gaps": 0,
                    "missing_ms": 0, "lost_ms": 0, "late": 0, "bytes": 16044,
                    "instance": format!("pod-{object}"),
                    "home": format!("{}/{day_of_key}/pod-{object}/{id}", bucket.home()),
                });
                writeln!(lines, "{line}").unwrap();
            }
            let key = format!("index/{day_of_key}/pod-{object}-{object:016x}.ndjson");
            bucket.put(&key, &lines);
        }
    }
}

fn name(number: usize) -> String {
    format!("MZ{number:07}")
}

/// A page, and the time and the requests that it took. No request lists more than one folder of the index.
fn page(console: &Server, bucket: &Bucket, query: &str) -> (Value, Duration, usize) {
    bucket.forget_asked();
    let began = Instant::now();
    let (status, answer) = console.ask_admin(&format!("/api/v1/recordings?{query}"));
    let took = began.elapsed();
    assert_eq!(status, 200, "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let asked = bucket.asked();
    for asked in asked.iter().filter(|asked| asked.path.contains("list-type=2")) {
        let is_folder = asked.path.contains("index%2F") && asked.path.contains("delimiter");
        assert!(is_folder, "{}", asked.path);
    }
    (serde_json::from_str(body).unwrap(), took, asked.len())
}

#[test]
fn a_page_of_twenty_thousand_recordings_a_day_costs_a_few_requests() {
    let bucket = Bucket::new();
    fill(&bucket, date(2026, 11, 20), 1);
    let console = bucket.console();
    let (first, took, requests) = page(&console, &bucket, "limit=200");
    let found = first["recordings"].as_array().unwrap();
    let ids: Vec<_> = found.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
    let expected: Vec<_> = (OF_DAY - 200..OF_DAY).rev().map(name).collect();
    assert_eq!((ids, &found[0]["instance"]), (expected, &"pod-7".into()));
    // Years, months, days, the day, its objects.
    assert_eq!(requests, 4 + OBJECTS);
    let cursor = first["next"].as_str().unwrap();
    let (second, next_took, requests) =
        page(&console, &bucket, &format!("limit=200&cursor={cursor}"));
    assert_eq!(second["recordings"][0]["id"], name(OF_DAY - 201));
    assert_eq!(requests, 4, "the objects are known");
    eprintln!("20 000 recordings: the first page in {took:.1?}, the next in {next_took:.1?}");
    // The search goes through all of them.
    let id = name(0);
    let (found, ..) = page(&console, &bucket, &format!("q=ca{id}&from=2026-11-01"));
    assert_eq!(found["recordings"][0]["id"], id);
    for (query, expected) in [
        ("to=2026-11-20&limit=1", json!(name(OF_DAY - 1))),
        ("to=2026-11-19", Value::Null),
        ("from=2026-11-21", Value::Null),
    ] {
        let (found, ..) = page(&console, &bucket, query);
        assert_eq!(found["recordings"][0]["id"], expected, "{query}");
    }
}

#[test]
fn a_million_recordings_are_listed_and_searched_page_by_page_in_little_memory() {
    if std::env::var_os("CALLREEL_LONG").is_none() {
        return;
    }
    const DAYS: usize = 50;
    let bucket = Bucket::new();
    let first = date(2026, 10, 1);
    fill(&bucket, first, DAYS);
    let console = bucket.console();
    let at_start = console.memory("VmRSS");
    let last = DAYS * OF_DAY - 1;
    let (cold, took, requests) = page(&console, &bucket, "limit=200");
    assert_eq!(cold["recordings"][0]["id"], name(last));
    // Years, months, days, the day, its objects.
    assert_eq!(requests, 4 + OBJECTS);
    eprintln!("{} recordings: the first page in {took:.1?}, {requests} requests", last + 1);
    let cursor = cold["next"].as_str().unwrap();
    let (_, took, requests) = page(&console, &bucket, &format!("limit=200&cursor={cursor}"));
    assert_eq!(requests, 4);
    eprintln!("the next page in {took:.1?}, {requests} requests");
    for back in [10, 40] {
        let day = first + i32::try_from(DAYS - 1 - back).unwrap().days();
        let (found, took, requests) = page(&console, &bucket, &format!("limit=200&to={day}"));
        assert_eq!(found["recordings"][0]["id"], name((DAYS - back) * OF_DAY - 1));
        assert_eq!(requests, 4 + OBJECTS);
        eprintln!("a page of {day} in {took:.1?}, {requests} requests");
    }
    // A search of all days for the very first recording.
    let (began, mut pages, mut most, mut slowest) = (Instant::now(), 0, 0, Duration::ZERO);
    let mut cursor = String::new();
    let found = loop {
        let query = format!("limit=200&q=CA{}&cursor={cursor}", name(0));
        let (mut found, took, requests) = page(&console, &bucket, &query);
        pages += 1;
        (most, slowest) = (most.max(requests), slowest.max(took));
        assert!(pages <= 2 * DAYS, "the search has no end");
        match found["next"].as_str() {
            Some(next) if found["recordings"][0].is_null() => cursor = next.to_owned(),
            _ => break found["recordings"].take(),
        }
    };
    assert_eq!(found[0]["id"], name(0));
    // Years, months, and of two days at most the days, the day and its objects.
    assert!(most <= 2 * (3 + OBJECTS) + 2, "{most} requests");
    let peak = console.memory("VmHWM");
    eprintln!(
        "a search of all in {pages} pages and {:.1?}, the slowest in {slowest:.1?}, {most} requests; memory {} MiB at \
         the start, {} MiB at most",
        began.elapsed(),
        at_start >> 20,
        peak >> 20
    );
    assert!(peak - at_start < 256 << 20, "{peak} bytes of memory");
    // Days without a recording cost nothing.
    let (empty, _, requests) = page(&console, &bucket, "from=2027-01-01");
    assert_eq!((&empty["recordings"], requests), (&json!([]), 1));
}

#[test]
fn memory_is_flat_over_ten_thousand_uploads() {
    if std::env::var_os("CALLREEL_LONG").is_none() {
        return;
    }
    const COUNT: usize = 1000;
    const ROUNDS: usize = 10;
    let bucket = Bucket::new();
    let dir = tempfile::tempdir().unwrap();
    let server = bucket.recorder(dir.path()).plain().args(&["--evict-after", "0s"]).start();
    let mut figures = Vec::new();
    for round in 1..=ROUNDS {
        let began = Instant::now();
        let mut caller = server.caller();
        caller.args(["--calls", &COUNT.to_string(), "--duration", "200ms", "--ramp", "10s"]);
        caller.args(["--seed", &round.to_string(), "--patience", "60s"]);
        assert!(caller.output().unwrap().status.success());
        let all = (round * COUNT) as f64;
        eventually(PATIENCE * 20, "all are uploaded and evicted", || {
            let evicted = "callreel_recordings_removed_total{reason=\"evicted\"}";
            let figures = ["callreel_home_uploaded_total", evicted];
            (figures.map(|name| server.metric(name)) == [all, all]).then_some(())
        });
        figures.push((server.memory("RssAnon"), server.memory("VmRSS")));
        let (anonymous, resident) = figures[round - 1];
        eprintln!(
            "{all} uploads: {} KiB anonymous, {} KiB resident, {:.1?} a thousand",
            anonymous >> 10,
            resident >> 10,
            began.elapsed()
        );
    }
    // The first thousands fill pools and buffers.
    let (early, late) = (figures[2].0, figures[ROUNDS - 1].0);
    assert!(late < early + (4 << 20), "{early} bytes grew to {late}");
}
