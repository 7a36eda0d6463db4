//! The end record, by the server: it tells the missing audio, and nothing twice.

use callreel_core::names::End;
use serde_json::{Value, json};

use crate::harness::messages::{CONNECTED, chunk, media, start, stop};
use crate::harness::served::{Served, at_once};

/// The words of a text: runs of small letters and `_`.
fn words(text: &str) -> Vec<&str> {
    text.split(|c: char| !c.is_ascii_lowercase() && c != '_').filter(|w| !w.is_empty()).collect()
}

#[test]
fn the_console_the_api_and_the_readme_have_a_word_for_every_end() {
    let names = End::ALL.map(End::name);
    let script = include_str!("../../host/src/console/player.js");
    let (_, rest) = script.split_once("const END_WORDS = {\n").unwrap();
    let (table, _) = rest.split_once("\n};").unwrap();
    let keys = table.lines().map(|line| words(line)[0]);
    assert!(keys.eq(names), "{table}");

    let api: Value =
        serde_json::from_str(include_str!("../../host/src/admin/openapi.json")).unwrap();
    for schema in ["Record", "Summary"] {
        let end = &api["components"]["schemas"][schema]["properties"]["end"]["enum"];
        assert_eq!(*end, json!(names), "{schema}");
    }

    let readme = include_str!("../../host/README.md");
    let row = readme.lines().find_map(|line| line.strip_prefix("| `end` | ")).unwrap();
    let mut told: Vec<_> = row.split('`').skip(1).step_by(2).collect();
    told.sort_unstable();
    assert_eq!(told, names);
}

/// The end record of a call with these messages.
fn record_of(messages: &[String]) -> Value {
    let served = Served::start(at_once());
    let messages: Vec<Vec<u8>> = messages.iter().map(|text| text.clone().into_bytes()).collect();
    served.send(&messages).remove(0).1
}

#[test]
fn an_outage_of_both_tracks_is_as_long_as_it_was() {
    let both = ["inbound", "outbound"];
    let mut messages = vec![CONNECTED.to_owned(), start(&both)];
    let mut sequence = 2;
    // Two outages of both tracks, of 500 ms and of 1 s, and one of 300 ms on one track.
    for at_ms in (0..4000).step_by(20) {
        for (index, track) in both.into_iter().enumerate() {
            let is_out = match at_ms {
                500..1000 | 2000..3000 => true,
                1400..1700 => index == 1,
                _ => false,
            };
            if !is_out {
                messages.push(media(track, sequence, at_ms, &chunk(sequence)));
                sequence += 1;
            }
        }
    }
    messages.push(stop(sequence));
    let record = record_of(&messages);
    let lengths = record["gaps"].as_array().unwrap().iter().map(|gap| gap["missing_ms"].clone());
    assert_eq!(lengths.collect::<Value>(), json!([500, 500, 300, 1000, 1000]));
    assert_eq!((&record["missing_ms"], &record["duration_ms"]), (&json!(1800), &json!(4000)));
    assert_eq!(record["state"], "complete", "{record}");
}

#[test]
fn a_recording_that_lacks_audio_is_partial_and_says_what_was_not_taken() {
    let mut messages = vec![CONNECTED.to_owned(), start(&["inbound"])];
    messages.extend((2..12).map(|n| media("inbound", n, n * 20, &chunk(n))));
    messages.push(messages[5].replace("\"payload\":\"", "\"payload\":\"*"));
    messages.push(stop(13));
    let record = record_of(&messages);
    assert_eq!((&record["state"], &record["end"]), (&json!("partial"), &json!("stop")));
    assert_eq!(record["reason"], "some audio was not taken: 1 base64");
    assert_eq!((&record["samples"], &record["frames"]["received"]), (&json!(1600), &json!(10)));
}
