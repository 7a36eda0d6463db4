//! A webhook server that is down for long: the cost of the messages that wait, and their delivery.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use callreel::outbox::{self, Outbox};
use callreel::webhook;
use serde_json::{Value, json};

use crate::harness::process::{PATIENCE, Server, Setup, body_of, callreel, eventually};
use crate::harness::receiver::{read_request, receiver};

pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Leaves messages in the queue, as an outage does; returns their ids, oldest first. The order of their
/// names is another one.
pub(crate) fn leave_messages(dir: &Path, count: usize) -> Vec<String> {
    let queue = dir.join(".webhooks");
    fs::create_dir_all(&queue).unwrap();
    let hour_ago = SystemTime::now() - Duration::from_secs(60 * 60);
    (0..count)
        .map(|nth| {
            let id = format!("msg_2026-11-22_MZ{:06}", nth * 7919 % count);
            let data = json!({ "id": id, "started_at": "2026-11-22T08:00:00Z", "wav": null });
            let message = json!({
                "type": "recording.finished", "timestamp": "2026-11-22T08:00:01Z", "data": data
            });
            let path = queue.join(format!("{id}.json"));
            fs::write(&path, message.to_string()).unwrap();
            let written = hour_ago + Duration::from_millis(nth as u64);
            File::options().write(true).open(path).unwrap().set_modified(written).unwrap();
            id
        })
        .collect()
}

fn start(dir: &Path, url: &str) -> Server {
    let options = ["--admin", "127.0.0.1:0", "--webhook", url, "--webhook-secret", SECRET];
    Setup::new(dir).args(&options).start()
}

#[test]
fn a_backlog_costs_next_to_nothing_and_is_delivered_from_the_oldest_on() {
    let long = std::env::var_os("CALLREEL_LONG").is_some();
    let (count, window_s) = if long { (50_000, 20) } else { (3_001, 5) };
    let dir = tempfile::tempdir().unwrap();
    let ids = leave_messages(dir.path(), count);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    callreel(); // Built before the start is timed.
    let began = Instant::now();
    let mut server = start(dir.path(), &format!("http://{closed}/"));
    let started = began.elapsed();
    assert!(started < Duration::from_secs(2), "{started:?} with {count} messages");
    eventually(PATIENCE, "a delivery was tried", || {
        let status: Value = body_of(&server.ask_admin("/api/v1/status").1);
        status["webhook"]["failing_since"].is_string().then_some(())
    });
    assert_eq!(server.metric("callreel_webhook_pending"), count as f64);
    let (memory, cpu, since) = (server.memory("VmRSS"), server.cpu(), Instant::now());
    thread::sleep(Duration::from_secs(window_s));
    let (cpu, elapsed) = (server.cpu() - cpu, since.elapsed());
    // The system counts processor time in steps of 10 ms.
    let most = elapsed.mul_f64(0.01) + Duration::from_millis(10);
    eprintln!(
        "{count} messages: started in {started:?}, {cpu:?} in {elapsed:?}, {} KiB",
        memory >> 10
    );
    assert!(cpu <= most, "{cpu:?} of a processor in {elapsed:?} for {count} messages");
    assert!(server.memory("VmRSS") < memory + (4 << 20));
    server.stop();
    let (url, received) = receiver(vec![204; count]);
    let server = start(dir.path(), &url);
    let mut delivered: Vec<String> = (0..count)
        .map(|_| received.recv_timeout(PATIENCE).unwrap().0["webhook-id"].clone())
        .collect();
    assert!(ids[..outbox::PLACES].contains(&delivered[0]), "{} is not of the oldest", delivered[0]);
    delivered.sort();
    let mut ids = ids;
    ids.sort();
    assert!(delivered == ids, "each once");
    eventually(PATIENCE, "none is left", || {
        (server.metric("callreel_webhook_delivered_total") == count as f64).then_some(())
    });
    assert_eq!(server.metric("callreel_webhook_pending"), 0.0);
    assert_eq!(fs::read_dir(dir.path().join(".webhooks")).unwrap().count(), 0);
}

#[test]
fn a_receiver_may_put_off_a_message_or_want_it_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let ids = leave_messages(dir.path(), 3);
    let [put_off, unwanted, refused] = ids.try_into().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let config = webhook::Config {
        first_pause: Duration::from_millis(1),
        ..webhook::Config::new(vec![url], Some(SECRET), None, None).unwrap()
    };
    let outbox = Outbox::new(dir.path());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.spawn(webhook::deliver(config, outbox.clone(), std::future::pending()));
    let mut asked: Vec<String> = Vec::new();
    while asked.iter().filter(|id| **id == refused).count() < 4 {
        let (mut socket, _) = listener.accept().unwrap();
        let (headers, _) = read_request(&mut socket);
        let id = headers["webhook-id"].clone();
        let answer = match &id {
            id if *id == put_off => "503 Service Unavailable\r\nRetry-After: 3600",
            id if *id == unwanted => "410 Gone",
            id if asked.iter().filter(|asked| *asked == id).count() == 3 => "200 OK",
            _ => "500 Internal Server Error",
        };
        asked.push(id);
        let head = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        socket.write_all(head.as_bytes()).unwrap();
    }
    let times = |wanted: &String| asked.iter().filter(|id| *id == wanted).count();
    assert_eq!((times(&put_off), times(&unwanted)), (1, 1), "{asked:?}");
    eventually(PATIENCE, "the message that is not wanted was given up", || {
        let health = outbox.health();
        (health.given_up == 1 && health.delivered == 1 && health.pending == 1).then_some(())
    });
}
