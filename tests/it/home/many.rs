//! Three recorders behind a balancer, with one home: one is killed and one drained while calls go on and come, and
//! one console has every recording.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use callreel_core::g711::decode_mulaw;
use rustix::process::Signal;
use serde_json::Value;

use super::readback::json_at;
use crate::harness::bucket::Bucket;
use crate::harness::process::{PATIENCE, Server, callreel, eventually, free_address};
use crate::harness::shelf;

/// The balancer; ended when dropped.
struct Balancer {
    child: Child,
    address: SocketAddr,
    _home: tempfile::TempDir,
}

impl Balancer {
    /// HAProxy, which asks each recorder whether it is ready, ten times a second.
    fn start(recorders: &[Server]) -> Self {
        let (home, address) = (tempfile::tempdir().unwrap(), free_address());
        let mut text = format!(
            "global\n  maxconn 4000\n\
             defaults\n  mode http\n  option redispatch 1\n  retries 3\n  timeout connect 5s\n  timeout client 1h\n  \
             timeout server 1h\n  timeout tunnel 1h\n  timeout check 10s\n\
             frontend public\n  bind {address}\n  default_backend callreel\n\
             backend callreel\n  balance roundrobin\n  option httpchk GET /readyz\n  \
             default-server check inter 100ms fall 1 rise 1\n"
        );
        for (n, recorder) in recorders.iter().enumerate() {
            text.push_str(&format!("  server pod-{n} {}\n", recorder.address));
        }
        let settings = home.path().join("haproxy.cfg");
        fs::write(&settings, text).unwrap();
        let mut command = Command::new("/usr/sbin/haproxy");
        command.args(["-db", "-f"]).arg(&settings);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("HAProxy is installed");
        eventually(PATIENCE, "the balancer listens", || TcpStream::connect(address).ok());
        Self { child, address, _home: home }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Calls by `callreel call` that go on.
struct Calls {
    child: Child,
    dir: tempfile::TempDir,
}

impl Calls {
    fn begin(to: SocketAddr, count: usize, duration: &str, seed: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(callreel());
        command.args(["call", "--json", "--url", &format!("ws://{to}/media-stream")]);
        command.args(["--calls", &count.to_string(), "--duration", duration, "--seed", seed]);
        command.args(["--patience", "60s"]).arg("--save-sent").arg(dir.path().join("sent"));
        fs::create_dir(dir.path().join("sent")).unwrap();
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command.stdout(fs::File::create(dir.path().join("report")).unwrap());
        Self { child: command.spawn().unwrap(), dir }
    }

    /// Waits for the end; returns the codes sent and whether the call ended well, by the ids of the streams.
    fn end(mut self) -> BTreeMap<String, (Vec<u8>, bool)> {
        eventually(PATIENCE * 10, "the calls end", || self.child.try_wait().unwrap());
        let report: Value =
            serde_json::from_slice(&fs::read(self.dir.path().join("report")).unwrap()).unwrap();
        let call = |call: &Value| {
            let id = call["stream_sid"].as_str().unwrap().to_owned();
            let sent = self.dir.path().join("sent").join(format!("{id}.ulaw"));
            (id, (fs::read(sent).unwrap_or_default(), call["good"] == true))
        };
        report["calls"].as_array().unwrap().iter().map(call).collect()
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Recordings under way whose files have audio.
fn heard(dir: &Path) -> usize {
    let has_audio = |path: &std::path::PathBuf| {
        path.to_str().is_some_and(|path| path.ends_with(".wav.part"))
            && path.metadata().is_ok_and(|file| file.len() > 44)
    };
    shelf::files(dir).iter().filter(|path| has_audio(path)).count()
}

/// All recordings of the list of a console.
fn list(console: &Server) -> Vec<Value> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    for _ in 0..100 {
        let mut page = json_at(console, &format!("/api/v1/recordings?limit=100&cursor={cursor}"));
        found.append(page["recordings"].as_array_mut().unwrap());
        match page["next"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => return found,
        }
    }
    panic!("the list has no end");
}

#[test]
fn of_three_recorders_one_is_killed_and_one_drained_and_one_console_has_all_calls() {
    let long = std::env::var_os("CALLREEL_LONG").is_some();
    let (count, duration) = if long { (600, "10s") } else { (30, "4s") };
    let began = Instant::now();
    let bucket = Bucket::new();
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let recorder = |n: usize| {
        let setup = bucket.recorder(dirs[n].path()).plain();
        let setup = setup.env("CALLREEL_INSTANCE", format!("pod-{n}"));
        setup.args(&["--drain-delay", "1s", "--drain", "2m"])
    };
    let mut recorders: Vec<_> = (0..3).map(|n| recorder(n).start()).collect();
    let balancer = Balancer::start(&recorders);
    let begun = |recorder: &Server| recorder.metric("callreel_calls_begun_total");
    let first = Calls::begin(balancer.address, count / 2, duration, "1");
    eventually(PATIENCE, "half of the calls are heard", || {
        let heard: Vec<_> = dirs.iter().map(|dir| heard(dir.path())).collect();
        (heard.iter().sum::<usize>() == count / 2 && !heard.contains(&0)).then_some(())
    });
    let of_killed = begun(&recorders[1]) as usize;
    recorders[1].kill();
    recorders[2].signal(Signal::TERM);
    recorders[2].wait_for_log("/readyz tells of a drain");
    assert_eq!(recorders[2].get("/readyz"), 503);
    let second = Calls::begin(balancer.address, count - count / 2, duration, "2");
    // The killed one comes back on its disk, as a StatefulSet has it.
    let address = recorders[1].address.to_string();
    recorders[1] = recorder(1).env("CALLREEL_LISTEN", address).start();
    let (first, second) = (first.end(), second.end());
    let cut: Vec<_> = first.iter().filter(|(_, (_, good))| !good).map(|(id, _)| id).collect();
    assert_eq!(cut.len(), of_killed, "only the calls of the killed recorder are cut");
    let refused = second.iter().filter(|(_, (_, good))| !good).count();
    assert_eq!(refused, 0, "no call that comes meanwhile is cut or refused");
    // A drain ends by itself. Recordings that it had no time to upload wait on its disk.
    assert_eq!(recorders[2].wait(PATIENCE).code(), Some(0));
    recorders[2] = recorder(2).start();
    eventually(PATIENCE * 4, "the home lacks nothing", || {
        let pending = recorders.iter().map(|one| one.metric("callreel_home_pending"));
        (pending.sum::<f64>() == 0.0).then_some(())
    });
    let console = bucket.console();
    let listed = list(&console);
    let by_id: BTreeMap<_, _> =
        listed.iter().map(|one| (one["id"].as_str().unwrap().to_owned(), one)).collect();
    assert_eq!((listed.len(), by_id.len()), (count, count), "each call once");
    let (objects, uploads) = bucket.contents();
    assert_eq!(uploads, 0);
    let mut of_instances = BTreeMap::<&str, usize>::new();
    for (id, (codes, good)) in first.iter().chain(&second) {
        let recording = by_id[id];
        let url = recording["home"].as_str().unwrap();
        let (_, key) = url.split_once("/eu/").unwrap();
        let found = shelf::pcm_of(&objects[&format!("{key}.wav")]);
        let sent: Vec<i16> = codes.iter().copied().map(decode_mulaw).collect();
        let is_right =
            if *good { found == sent } else { !found.is_empty() && sent.starts_with(&found) };
        assert!(is_right, "{} of {} samples: {recording}", found.len(), sent.len());
        assert_eq!(recording["state"] == "complete", *good, "{recording}");
        *of_instances.entry(recording["instance"].as_str().unwrap()).or_default() += 1;
    }
    eprintln!(
        "{count} calls, {} cut by a kill, recordings of {of_instances:?}, {} bytes in the bucket, {:.1?}",
        cut.len(),
        objects.values().map(Vec::len).sum::<usize>(),
        began.elapsed()
    );
}
