//! House rules that a test can hold.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::fixtures;

/// Lines of a file without its tests.
const FILE_LINES_MAX: usize = 750;

#[test]
fn only_a_providers_own_file_knows_its_field_names() {
    let names = ["streamSid", "stream_sid", "callSid", "accountSid", "customParameters"];
    for (path, code) in sources(&["core/src", "firmware-sim/src", "host/src"]) {
        // Twilio's webhook and the look-alike that places calls speak its language, too.
        let speaks = [
            "core/src/frame/",
            "host/src/caller",
            "host/src/twilio.rs",
            "/src/demo.rs",
            "/src/bin/probe/",
        ];
        if speaks.iter().any(|home| path.contains(home)) {
            continue;
        }
        for (number, line) in without_tests(&code).lines().enumerate() {
            // A doc comment may show a message.
            let found = names.iter().find(|name| line.contains(**name));
            let is_doc = line.trim_start().starts_with("///");
            assert!(found.is_none() || is_doc, "{path}:{}: says {found:?}", number + 1);
        }
    }
}

#[test]
fn core_is_without_unsafe_alloc_and_std() {
    let lib = fs::read_to_string(root().join("core/src/lib.rs")).unwrap();
    assert!(lib.contains("#![no_std]") && lib.contains("#![forbid(unsafe_code)]"));
    for (path, code) in sources(&["core/src"]) {
        let code = without_tests(&code).replace("#[cfg(test)]\nextern crate std;", "");
        for word in ["extern crate", "alloc::", "std::", "unsafe {"] {
            assert!(!code.contains(word), "{path}: {word}");
        }
    }
}

#[test]
fn files_are_opened_by_one_function() {
    // Files that the user named, and those of the kernel.
    let others = [
        "host/src/audio.rs",
        "host/src/caller/meter.rs",
        "host/src/decode.rs",
        "host/src/log.rs",
        "host/src/store/clock.rs",
        "host/src/store/disk.rs",
    ];
    let ways = [
        "File::open(",
        "File::create",
        ".open(",
        "fs::read(",
        "fs::read_to_string(",
        "fs::write(",
        "fs::copy(",
    ];
    for (path, code) in sources(&["host/src"]) {
        if others.contains(&path.as_str()) {
            continue;
        }
        for (number, line) in without_tests(&code).lines().enumerate() {
            let found = ways.iter().find(|way| line.contains(**way));
            let is_tcp = line.contains("target.open()") || line.contains("webhook.clone()).open()");
            assert!(found.is_none() || is_tcp, "{path}:{}: {line}", number + 1);
        }
    }
}

#[test]
fn a_todo_says_when() {
    for (path, code) in sources(&["core", "firmware-sim", "host", "tests"]) {
        for (number, line) in code.lines().enumerate() {
            // In two parts, lest this file break its own rule.
            let todo = line.contains(concat!("TO", "DO")) && !line.contains(" when ");
            assert!(!todo, "{path}:{}: when is it due?", number + 1);
        }
    }
}

#[test]
fn no_file_is_too_long_to_be_read() {
    for (path, code) in sources(&["core", "firmware-sim", "host", "tests"]) {
        let lines = without_tests(&code).lines().count();
        assert!(lines <= FILE_LINES_MAX, "{path}: {lines} lines");
    }
}

#[test]
fn every_fixture_has_its_line_in_the_readme() {
    let readme = fs::read_to_string(fixtures::directory().join("README.md")).unwrap();
    let told: Vec<_> =
        readme.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next()).collect();
    let there: Vec<_> = fixtures::twilio().into_iter().map(|fixture| fixture.name).collect();
    assert_eq!(told, there, "tests/fixtures/README.md, in the order of the names");
}

/// The Rust files under some of the repository's folders, by their path from its root.
fn sources(folders: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

fn without_tests(code: &str) -> &str {
    code.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
