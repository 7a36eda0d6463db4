//! The delivery of webhook messages: messages and receivers that fail beside those that do not, restarts,
//! dead letters, secrets.

mod reach;
mod signatures;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime};

use callreel::outbox::Outbox;
use callreel::record::{Id, Key, Record, State};
use callreel::webhook;
use callreel_core::frame::Provider;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::backlog::{SECRET, leave_messages};
use crate::harness::process::{PATIENCE, Server, Setup, callreel, eventually};
use crate::harness::receiver::{Request, receivers};

/// The longest delay of a message beside others that hang.
const PROMPT: Duration = Duration::from_secs(1);

/// A server with these receivers.
fn start(dir: &Path, urls: &[&str]) -> Server {
    let urls = urls.iter().flat_map(|url| ["--webhook", url]).collect::<Vec<_>>();
    let options = [&["--admin", "127.0.0.1:0", "--webhook-secret", SECRET], &urls[..]].concat();
    Setup::new(dir).args(&options).start()
}

/// Puts a message into the directory, as another recorder on it does.
fn put(dir: &Path, id: &str) {
    let data = json!({ "id": id, "started_at": "2026-11-22T08:00:00Z", "wav": null });
    let message = json!({
        "type": "recording.finished", "timestamp": "2026-11-22T08:00:01Z", "data": data
    });
    let queue = dir.join(".webhooks");
    fs::create_dir_all(&queue).unwrap();
    fs::write(queue.join("new"), message.to_string()).unwrap();
    fs::rename(queue.join("new"), queue.join(format!("{id}.json"))).unwrap();
}

/// Makes a waiting message four days old.
fn age(dir: &Path, id: &str) {
    let path = dir.join(".webhooks").join(format!("{id}.json"));
    let written = SystemTime::now() - Duration::from_secs(4 * 24 * 60 * 60);
    fs::File::options().write(true).open(path).unwrap().set_modified(written).unwrap();
}

/// The ids of the messages that wait, by their files.
fn waiting(dir: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(dir.join(".webhooks")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| Some(name.strip_suffix(".json")?.to_owned())).collect()
}

fn status(server: &Server) -> Value {
    let (status, answer) = server.ask_admin("/api/v1/status");
    assert_eq!(status, 200);
    serde_json::from_str::<Value>(answer.split_once("\r\n\r\n").unwrap().1).unwrap()["webhook"]
        .take()
}

fn has_metric(server: &Server, name: &str, value: f64) {
    let is = || (server.metric(name) == value).then_some(());
    eventually(PATIENCE, &format!("{name} is {value}"), is);
}

/// Runs `callreel webhook`.
fn command(arguments: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(callreel());
    command.arg("webhook").args(arguments).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.envs(env.iter().copied()).output().unwrap()
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// An outbox with a delivery to these receivers, in this process.
struct Delivery {
    outbox: Outbox,
    _runtime: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
}

impl Delivery {
    fn start(urls: &[String]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let urls = urls.iter().map(|url| url.parse().unwrap()).collect();
        let config = webhook::Config::new(urls, Some(SECRET), None, None).unwrap();
        let outbox = Outbox::new(dir.path());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.spawn(webhook::deliver(config, outbox.clone(), std::future::pending()));
        Self { outbox, _runtime: runtime, _dir: dir }
    }

    /// Posts the message of a recording without a file.
    fn post(&self, id: &str) {
        let mut record = Record::unknown(Provider::Twilio, Timestamp::now());
        record.state = State::Failed;
        self.outbox.post(&Key::new(record.day(), Id::of_stream(id)), &record);
        self.outbox.wake();
    }
}

/// The requests until `count` are `wanted`, which must have come by then.
fn collect(
    received: &mpsc::Receiver<(Request, Instant)>,
    count: usize,
    wanted: impl Fn(&Request) -> bool,
) -> Vec<(Request, Instant)> {
    let mut all = Vec::new();
    while all.len() < count {
        let (request, at) = received.recv_timeout(PATIENCE).unwrap();
        if wanted(&request) {
            all.push((request, at));
        }
    }
    all
}

#[test]
fn a_thousand_refused_messages_hold_up_no_good_one() {
    let dir = tempfile::tempdir().unwrap();
    let refused = leave_messages(dir.path(), 1050);
    put(dir.path(), "msg_good_1");
    let (url, received) = receivers(|(headers, _)| {
        let is_good = headers["webhook-id"].starts_with("msg_good");
        Some(if is_good { "204 No Content" } else { "500 Internal Server Error" }.to_owned())
    });
    let server = start(dir.path(), &[&url]);
    let is_good = |(headers, _): &Request| headers["webhook-id"].starts_with("msg_good");
    // All are tried, in the order of their times; then the refused ones wait and are tried again.
    collect(&received, 1, is_good);
    put(dir.path(), "msg_good_2");
    let put_at = Instant::now();
    let (_, at) = collect(&received, 1, is_good)[0];
    assert!(at - put_at < Duration::from_secs(5), "{:?}", at - put_at);
    has_metric(&server, "callreel_webhook_delivered_total", 2.0);
    assert_eq!(server.metric("callreel_webhook_pending"), refused.len() as f64);
    assert!(server.metric("callreel_webhook_oldest_seconds") >= 3600.0);
}

#[test]
fn a_receiver_that_hangs_delays_no_other() {
    let (server, received) = receivers(|(headers, _)| {
        (headers[":path"] != "/hangs").then(|| "204 No Content".to_owned())
    });
    let mut urls: Vec<String> = (0..100).map(|n| format!("{server}/{n}")).collect();
    urls.insert(0, format!("{server}/hangs"));
    let delivery = Delivery::start(&urls);
    // More messages than the receiver that hangs has places.
    for n in 0..10 {
        let began = Instant::now();
        delivery.post(&format!("MZ{n}"));
        let others = collect(&received, 100, |(headers, _)| headers[":path"] != "/hangs");
        let paths: BTreeSet<_> = others.iter().map(|((headers, _), _)| &headers[":path"]).collect();
        assert_eq!(paths.len(), 100, "each once");
        let latest = others.iter().map(|(_, at)| *at - began).max().unwrap();
        assert!(latest < PROMPT, "message {n} took {latest:?}");
    }
    eventually(PATIENCE, "only one receiver waits", || {
        let health = delivery.outbox.health();
        (health.pending == 10 && health.receivers[0].pending == 10).then_some(())
    });
}

#[test]
fn messages_that_hang_delay_no_other_message() {
    let (url, received) = receivers(|(headers, _)| {
        (!headers["webhook-id"].contains("hang")).then(|| "204 No Content".to_owned())
    });
    let delivery = Delivery::start(&[url]);
    (0..4).for_each(|n| delivery.post(&format!("hang{n}")));
    collect(&received, 4, |_| true);
    for n in 0..100 {
        let began = Instant::now();
        delivery.post(&format!("MZ{n}"));
        let (_, at) = collect(&received, 1, |_| true)[0];
        assert!(at - began < PROMPT, "message {n} took {:?}", at - began);
    }
}

#[test]
fn tries_and_receivers_that_are_done_survive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let (server, received) = receivers(|(headers, _)| {
        let is_refused = headers[":path"] == "/busy" && headers["webhook-id"] == "msg_1";
        let refusal = "503 Service Unavailable\r\nRetry-After: 3600";
        Some(if is_refused { refusal } else { "204 No Content" }.to_owned())
    });
    let (good, busy) = (format!("{server}/good"), format!("{server}/busy"));
    put(dir.path(), "msg_1");
    let mut server = start(dir.path(), &[&good, &busy]);
    collect(&received, 2, |_| true);
    let journal = dir.path().join(".webhooks/tries.jsonl");
    eventually(PATIENCE, "both are noted", || {
        let text = fs::read_to_string(&journal).unwrap_or_default();
        (text.contains("\"tries\":1") && text.contains("\"done\":true")).then_some(())
    });
    server.kill();
    let mut server = start(dir.path(), &[&good, &busy]);
    put(dir.path(), "msg_2");
    let asked = collect(&received, 2, |_| true);
    let ids: Vec<_> = asked.iter().map(|((headers, _), _)| &headers["webhook-id"]).collect();
    assert_eq!(ids, ["msg_2", "msg_2"]);
    eventually(PATIENCE, "one message waits, for one receiver", || {
        let status = status(&server);
        let pending = |index: usize| status["receivers"][index]["pending"].as_u64();
        (pending(0) == Some(0) && pending(1) == Some(1)).then_some(())
    });
    let noted = fs::read_to_string(&journal).unwrap();
    let line = noted.lines().find(|line| line.contains("\"tries\":1")).unwrap();
    let next: Timestamp =
        serde_json::from_str::<Value>(line).unwrap()["next"].as_str().unwrap().parse().unwrap();
    assert!(next.duration_since(Timestamp::now()).as_secs() > 3000, "{noted}");
    // Nobody waits for the message once its receiver is no receiver any more.
    server.kill();
    let _server = start(dir.path(), &[&good]);
    eventually(PATIENCE, "it is removed", || waiting(dir.path()).is_empty().then_some(()));
    assert!(received.try_recv().is_err(), "nothing was asked twice");
}

#[test]
fn a_message_that_was_given_up_is_kept_listed_and_sent_again_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let works = Arc::new(AtomicBool::new(false));
    let is_up = Arc::clone(&works);
    let (url, received) = receivers(move |_| {
        let is_up = is_up.load(Ordering::Relaxed);
        Some(if is_up { "204 No Content" } else { "500 Internal Server Error" }.to_owned())
    });
    for id in ["msg_1", "msg_2", "msg_3"] {
        put(dir.path(), id);
        age(dir.path(), id);
    }
    let server = start(dir.path(), &[&url]);
    has_metric(&server, "callreel_webhook_dead", 3.0);
    assert_eq!(server.metric("callreel_webhook_given_up_total"), 3.0);
    assert_eq!(server.metric("callreel_webhook_pending"), 0.0);
    assert_eq!(waiting(dir.path()), BTreeSet::new());
    collect(&received, 3, |_| true);
    let ready: Value = {
        let (_, answer) = server.ask_admin("/readyz");
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    let warning = ready["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("a webhook receiver has taken no message since "), "{warning}");

    let (_, answer) = server.ask_admin("/api/v1/webhook/dead?limit=2");
    let list: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!((&list["total"], &list["dead"][0]["id"]), (&json!(3), &json!("msg_1")));
    assert_eq!(list["dead"].as_array().unwrap().len(), 2);
    let name = list["dead"][0]["name"].as_str().unwrap().to_owned();
    let home = dir.path().to_str().unwrap();
    let listed = said(&command(&["list", "--dir", home], &[]));
    assert!(listed.lines().count() == 3 && listed.contains(&name), "{listed}");

    works.store(true, Ordering::Relaxed);
    let sent_again = || collect(&received, 1, |_| true)[0].0.0["webhook-id"].clone();
    let output = command(&["redeliver", &name, "--dir", home], &[]);
    assert_eq!((output.status.code(), &*said(&output)), (Some(0), "1 to be sent again\n"));
    assert_eq!(sent_again(), "msg_1");
    let post = |id: &str| {
        let url = format!("http://{}/api/v1/webhook/dead?id={id}", server.admin_address());
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        agent.post(url).send_empty().unwrap().status().as_u16()
    };
    assert_eq!((post(""), post("msg_9"), post("msg_2")), (400, 404, 200));
    assert_eq!(sent_again(), "msg_2");
    let output = command(&["redeliver", "msg_9", "--dir", home], &[]);
    assert!(output.status.code() == Some(1) && said(&output).contains("no dead letter `msg_9`"));
    assert!(command(&["redeliver", "all", "--dir", home], &[]).status.success());
    assert_eq!(sent_again(), "msg_3");
    has_metric(&server, "callreel_webhook_delivered_total", 3.0);
    has_metric(&server, "callreel_webhook_dead", 0.0);
    assert_eq!(waiting(dir.path()), BTreeSet::new());
}

#[test]
fn a_dead_letter_of_one_receiver_is_sent_again_to_that_one_alone() {
    let dir = tempfile::tempdir().unwrap();
    let works = Arc::new(AtomicBool::new(false));
    let is_up = Arc::clone(&works);
    let (server, received) = receivers(move |(headers, _)| {
        let is_good = headers[":path"] == "/good" || is_up.load(Ordering::Relaxed);
        Some(if is_good { "204 No Content" } else { "500 Internal Server Error" }.to_owned())
    });
    put(dir.path(), "msg_1");
    age(dir.path(), "msg_1");
    let server = start(dir.path(), &[&format!("{server}/good"), &format!("{server}/bad")]);
    has_metric(&server, "callreel_webhook_dead", 1.0);
    collect(&received, 2, |_| true);
    works.store(true, Ordering::Relaxed);
    let home = dir.path().to_str().unwrap();
    assert!(command(&["redeliver", "msg_1", "--dir", home], &[]).status.success());
    has_metric(&server, "callreel_webhook_delivered_total", 2.0);
    let (headers, body) = collect(&received, 1, |_| true).remove(0).0;
    assert_eq!((&*headers[":path"], &*headers["webhook-id"]), ("/bad", "msg_1"));
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["data"]["id"], "msg_1");
    assert!(received.try_recv().is_err() && waiting(dir.path()).is_empty());
}
