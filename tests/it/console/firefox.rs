//! The console in Firefox.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::open;
use crate::conversation;
use crate::harness::admin::Recorder;
use crate::harness::packages;

const PACKAGES: [&str; 1] = ["puppeteer-core@24.43.1"];

#[test]
fn calls_are_seen_and_recordings_found_drawn_and_played_in_firefox() {
    let recorder = Recorder::start(open());
    let mut plan = recorder.plan();
    plan.flood = true;
    plan.audio = Some(conversation::audio());
    plan.parameters = vec![("agent".into(), "Zoë".into())];
    assert!(recorder.place(&plan).is_good());
    recorder.wait_for_recordings(1);
    let home = packages::node("puppeteer", &PACKAGES).parent().unwrap().to_owned();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("it/harness/firefox.mjs");
    fs::copy(script, home.join("firefox.mjs")).unwrap();
    let mut live = recorder.plan();
    live.duration = Some(Duration::from_secs(600));
    let call = recorder.place_meanwhile(live);
    let mut node = Command::new("node");
    node.arg("firefox.mjs").arg(recorder.url("/")).current_dir(home);
    let output =
        node.output().expect("the console is tried in Firefox: apt-get install nodejs firefox-esr");
    call.abort();
    let said = String::from_utf8_lossy(&output.stderr);
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
    assert_eq!(seen, json!({ "errors": [], "foreign": [], "plays": true, "fits": true }));
}
