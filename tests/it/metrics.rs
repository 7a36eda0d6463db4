//! The metrics, judged by Prometheus' own tools, and the calls that they tell of.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use callreel::admin::Config;
use serde_json::Value;

use crate::harness::admin::Recorder;
use crate::harness::disk::{Disk, Errno};
use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, Setup, eventually};
use crate::harness::python;

const OPENMETRICS: &str = "application/openmetrics-text";

/// Header Accept of Prometheus 2.42.
const PROMETHEUS: &str = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

/// A recorder with one finished call, which was then deleted.
fn after_a_call() -> Recorder {
    let recorder = Recorder::start(Config { allows_delete: true, ..Config::default() });
    let mut plan = recorder.plan();
    plan.duration = Some(Duration::from_millis(1500));
    assert!(recorder.place(&plan).is_good());
    let recording = recorder.wait_for_recordings(1)[0].clone();
    let text = |name: &str| recording[name].as_str().unwrap().to_owned();
    let path = format!("/api/v1/recordings/{}/{}", text("day"), text("id"));
    assert_eq!(recorder.ask("DELETE", &path, &[]).status, 204);
    recorder
}

/// The metrics in the format that a client with this header gets.
fn metrics(recorder: &Recorder, accept: &str) -> (String, String) {
    let answer = recorder.ask("GET", "/metrics", &[("accept", accept)]);
    assert_eq!(answer.status, 200);
    assert!(answer.header("vary").contains("accept"), "{}", answer.header("vary"));
    (answer.header("content-type").to_owned(), answer.text().to_owned())
}

/// The value of a sample.
fn value(text: &str, sample: &str) -> f64 {
    let line =
        text.lines().find(|line| line.strip_prefix(sample).is_some_and(|l| l.starts_with(' ')));
    let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.unwrap_or_else(|| panic!("{sample} is not in {text}"))
}

/// Runs `promtool` of Debian's package prometheus.
fn promtool(arguments: &[&str], input: &str) {
    let mut tool = Command::new("promtool")
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs: apt-get install --no-install-recommends prometheus");
    tool.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && complaints.is_empty(), "{complaints}\n{input}");
}

#[test]
fn promtool_finds_no_fault() {
    let recorder = after_a_call();
    for accept in ["", "*/*", "text/plain", "text/plain;version=0.0.4", "text/html, */*;q=0.1"] {
        let (kind, text) = metrics(&recorder, accept);
        assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8", "{accept}");
        promtool(&["check", "metrics"], &text);
    }
    promtool(&["check", "rules", "../host/monitoring/alerts.yaml"], "");
    promtool(&["test", "rules", "../host/monitoring/alerts_test.yaml"], "");
}

#[test]
fn both_formats_hold_the_same_samples() {
    const PROGRAM: &str = "import json, sys\n\
        from prometheus_client import openmetrics, parser\n\
        from prometheus_client.openmetrics import parser as openmetrics_parser\n\
        texts = json.load(sys.stdin)\n\
        def samples(families):\n\
        \x20   return [[f.name, f.type, f.documentation, s.name, s.labels, s.value]\n\
        \x20           for f in families for s in f.samples]\n\
        print(json.dumps([samples(parser.text_string_to_metric_families(texts[0])),\n\
        \x20             samples(openmetrics_parser.text_string_to_metric_families(texts[1]))]))";
    let recorder = after_a_call();
    let (_, text) = metrics(&recorder, "text/plain");
    let (kind, openmetrics) = metrics(&recorder, PROMETHEUS);
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert_eq!(metrics(&recorder, OPENMETRICS).0, kind);
    assert!(metrics(&recorder, "text/plain, application/openmetrics-text;q=0.9").0 != kind);
    let input = Value::from(vec![text, openmetrics]).to_string();
    let samples: [Vec<Value>; 2] = serde_json::from_str(&python::run(PROGRAM, &input)).unwrap();
    let [text, openmetrics] = samples.map(|samples| {
        let is_steady = |sample: &Value| {
            let name = sample[3].as_str().unwrap();
            !name.starts_with("process_") && !name.contains("_sync_") && !name.contains("_disk_")
        };
        let steady: Vec<Value> = samples.into_iter().filter(is_steady).collect();
        steady
    });
    assert_eq!(text, openmetrics);
    assert!(text.len() > 80, "{} samples", text.len());
}

#[test]
fn calls_deletions_and_the_process_are_told() {
    let recorder = after_a_call();
    let (_, text) = metrics(&recorder, "");
    let ended =
        |end: &str| format!("callreel_calls_ended_total{{provider=\"twilio\",end=\"{end}\"}}");
    assert_eq!((value(&text, &ended("stop")), value(&text, &ended("idle"))), (1.0, 0.0));
    assert_eq!(value(&text, "callreel_call_duration_seconds_count"), 1.0);
    let duration_s = value(&text, "callreel_call_duration_seconds_sum");
    assert!((1.4..20.0).contains(&duration_s), "{duration_s}");
    assert_eq!(value(&text, "callreel_call_duration_seconds_bucket{le=\"1.0\"}"), 0.0);
    assert_eq!(value(&text, "callreel_recordings_removed_total{reason=\"api\"}"), 1.0);
    assert_eq!(value(&text, "callreel_oldest_unfinished_recording_seconds"), 0.0);
    assert!(value(&text, "process_resident_memory_bytes") > 1e6);
    let memory = value(&text, "process_virtual_memory_bytes");
    assert!(memory >= value(&text, "process_resident_memory_bytes"));
    let fds = value(&text, "process_open_fds");
    assert!(fds > 5.0 && fds < value(&text, "process_max_fds"), "{fds}");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    let uptime_s = now - value(&text, "process_start_time_seconds");
    assert!((0.0..600.0).contains(&uptime_s), "{uptime_s}");
}

#[test]
fn a_recording_that_the_disk_refuses_to_finish_is_told_until_it_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Disk::new();
    let setup = Setup::new(dir.path()).args(&["--admin", "127.0.0.1:0"]);
    let server = disk.under(setup, dir.path()).start();
    let oldest = || server.metric("callreel_oldest_unfinished_recording_seconds");
    let mut peer = Peer::call(&server, "MZ1");
    peer.say(Duration::from_secs(1));
    peer.sync();
    assert_eq!(oldest(), 0.0);
    disk.fail("MZ1", "write", 1..=u64::MAX, Errno::NOSPC);
    peer.say(Duration::from_secs(1));
    peer.stop();
    eventually(PATIENCE, "it waits", || (oldest() >= 0.5).then_some(()));
    disk.heal();
    eventually(PATIENCE, "it is finished", || (oldest() == 0.0).then_some(()));
}

#[test]
fn the_rules_and_the_dashboard_ask_for_metrics_that_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        ["--admin", "127.0.0.1:0", "--webhook", "http://127.0.0.1:9/", "--webhook-secret"];
    let home = tempfile::tempdir().unwrap();
    let url = format!("file://{}", home.path().display());
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let setup = Setup::new(dir.path()).args(&options).args(&[secret, "--home", &url]);
    let server = setup.start();
    let text = eventually(PATIENCE, "the receiver is known", || {
        let (_, text) = server.ask_admin("/metrics");
        text.contains("callreel_webhook_receiver_pending{").then_some(text)
    });
    let there: BTreeSet<&str> =
        text.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../host/monitoring");
    for file in ["alerts.yaml", "grafana.json"] {
        let asked = fs::read_to_string(folder.join(file)).unwrap();
        let names = asked.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let names =
            names.filter(|name| name.starts_with("callreel_") || name.starts_with("process_"));
        let named: BTreeSet<&str> = names.collect();
        assert!(named.len() > 5, "{file}");
        for name in named {
            let is_there = there.contains(name) || there.contains(&*format!("{name}_bucket"));
            assert!(is_there, "{file}: {name}");
        }
    }
}
