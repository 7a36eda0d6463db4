//! Several instances on one directory: each records, one keeps house for all, and none touches a
//! recording that another one works on.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use callreel::finished::Finished;
use callreel::record::Record;
use callreel::store::{self, Store};
use callreel_core::frame::Provider;
use callreel_core::wav::{self, Encoding, Length, Spec};
use rustix::process::Signal;
use serde_json::Value;

use super::{check_whole, go_on_and_finish, heard_call};
use crate::harness::process::{PATIENCE, Server, Setup, eventually};
use crate::harness::receiver::{Request, receiver};
use crate::harness::shelf;

fn open(dir: &Path) -> Store {
    let config = store::Config { dir: dir.to_owned(), ..store::Config::default() };
    Store::open(config, Finished::default()).unwrap()
}

/// Begins a recording of 50 samples.
fn begin(store: &Store, stream_id: &str) -> store::Part {
    let spec = Spec { channels: 1, sample_rate_hz: 8000, encoding: Encoding::Pcm16 };
    let part = store.create(stream_id, jiff::Timestamp::now()).unwrap();
    let bytes = [&wav::header(spec, Length::Bytes(0))[..], &[2; 100]].concat();
    part.file().write_all_at(&bytes, 0).unwrap();
    part
}

#[test]
fn the_recovery_leaves_the_files_of_another_instance_alone_until_that_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (open(dir.path()), open(dir.path()));
    assert_eq!((first.keeps_house(), second.keeps_house()), (true, false));
    let (its_own, part) = (begin(&first, "MZ1"), begin(&second, "MZ2"));
    // A name is taken once, whichever instance asks.
    assert_eq!(begin(&first, "MZ2").id().as_str(), "MZ2-2");
    // That recording is dropped, as if its instance had been killed; nobody else's is touched.
    first.recover();
    second.recover();
    assert_eq!(shelf::finished_ids(dir.path()), ["MZ2-2"]);
    assert!(its_own.is_in_place().unwrap() && part.is_in_place().unwrap());
    assert_eq!((first.recovery().found, first.recovery().finished), (1, 1));
    drop(part);
    second.recover();
    assert_eq!(shelf::finished_ids(dir.path()), ["MZ2-2"]);
    first.recover();
    assert_eq!(shelf::finished_ids(dir.path()), ["MZ2", "MZ2-2"]);
    assert_eq!(shelf::finished(dir.path())["MZ2"].samples().len(), 50);
    second.tend();
    assert!(!second.keeps_house());
    drop((first, its_own));
    second.tend();
    assert!(second.keeps_house());
    second.recover();
    assert_eq!(shelf::finished_ids(dir.path()), ["MZ1", "MZ2", "MZ2-2"]);
    assert!(shelf::unfinished(dir.path()).is_empty());
}

#[test]
fn a_new_file_of_another_instance_is_left_alone_before_it_is_locked() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let day = dir.path().join("2026-01-02");
    fs::create_dir(&day).unwrap();
    let [new, old] = ["new", "old"].map(|id| day.join(format!("{id}.wav.part")));
    fs::write(&new, "").unwrap();
    let file = fs::File::create(&old).unwrap();
    file.set_modified(std::time::SystemTime::now() - 10 * super::SECOND).unwrap();
    store.recover();
    assert!(new.exists() && !old.exists());
    let file = fs::File::options().write(true).open(&new).unwrap();
    file.set_modified(std::time::SystemTime::now() - 10 * super::SECOND).unwrap();
    store.recover();
    assert!(!new.exists());
}

#[test]
fn failures_of_two_instances_are_published_once_while_one_recovers_all_the_time() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (Arc::new(open(dir.path())), open(dir.path()));
    let recovering = Arc::clone(&first);
    let is_over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let recovery = std::thread::spawn(move || {
        while !over.load(std::sync::atomic::Ordering::Relaxed) {
            recovering.recover();
        }
    });
    for number in 0..300 {
        let mut record = Record::unknown(Provider::Twilio, jiff::Timestamp::now());
        record.stream_id = format!("MZ{number}");
        record.fail("no audio");
        second.publish_failure(&mut record).unwrap();
        begin(&second, &format!("MY{number}")).is_in_place().unwrap().then_some(()).unwrap();
    }
    is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    recovery.join().unwrap();
    first.recover();
    let finished = shelf::finished(dir.path());
    assert_eq!(finished.len(), 600);
    assert!(finished.keys().all(|id| !id.ends_with("-2")), "{:?}", finished.keys());
    // A failure may be seen just before it gets its name, and is finished already when it is looked at.
    let recovery = first.recovery();
    assert!(recovery.found >= 300 && recovery.finished == recovery.found, "{recovery:?}");
    assert!(shelf::unfinished(dir.path()).is_empty());
}

#[test]
fn an_instance_that_was_killed_is_recovered_by_the_one_that_keeps_house() {
    let dir = tempfile::tempdir().unwrap();
    let first = Server::start(dir.path());
    let own = heard_call(&first, "MZ1");
    let mut second = Server::start(dir.path());
    second.wait_for_log("another callreel records to the directory as well");
    let mut killed = heard_call(&second, "MZ2");
    killed.say(super::SECOND);
    killed.sync();
    eventually(PATIENCE, "some audio is in the file", || {
        let parts = shelf::unfinished(dir.path());
        let part = parts.iter().find(|path| path.ends_with("MZ2.wav.part"))?;
        (part.metadata().ok()?.len() > 44).then_some(())
    });
    second.kill();
    let recovered = eventually(PATIENCE, "the survivor recovers it", || {
        shelf::finished(dir.path()).remove("MZ2")
    });
    assert_eq!(recovered.word("state"), "recovered");
    assert!(killed.pcm().starts_with(recovered.samples()) && !recovered.samples().is_empty());
    let own = go_on_and_finish(own);
    check_whole(dir.path(), &[own]);
}

#[test]
fn an_instance_that_drains_gives_the_house_to_one_that_waits_and_keeps_it_alone() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    first.drain();
    first.tend();
    assert!(first.keeps_house());
    let (second, third) = (open(dir.path()), open(dir.path()));
    // No right is given away under work that goes on by it.
    let work = first.begin_house_work().unwrap();
    first.tend();
    second.tend();
    assert_eq!((first.keeps_house(), second.keeps_house()), (false, false));
    assert!(first.begin_house_work().is_none() && second.begin_house_work().is_none());
    drop(work);
    first.tend();
    second.tend();
    first.tend();
    assert_eq!((first.keeps_house(), second.keeps_house()), (false, true));
    // Its recordings go on, and are its own.
    let part = begin(&first, "MZ1");
    second.recover();
    assert!(part.is_in_place().unwrap() && second.recovery().found == 0);
    // One that drains comes after one that does not, and keeps house if there is no other.
    second.drain();
    second.tend();
    first.tend();
    third.tend();
    assert_eq!([&first, &second, &third].map(Store::keeps_house), [false, false, true]);
    drop(third);
    first.tend();
    assert!(first.keeps_house());
}

#[test]
fn while_one_drains_the_webhooks_of_the_new_one_count() {
    let dir = tempfile::tempdir().unwrap();
    let start = |url: &str| {
        let setup = Setup::new(dir.path()).args(&["--admin", "127.0.0.1:0", "--webhook", url]);
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        setup.env("CALLREEL_WEBHOOK_SECRET", secret).start()
    };
    let [(old_url, old), (new_url, new)] = [receiver(vec![200; 9]), receiver(vec![200; 9])];
    let mut first = start(&old_url);
    let (one, two) = (heard_call(&first, "MZ1"), heard_call(&first, "MZ2"));
    first.signal(Signal::USR1);
    first.wait_for_log("draining, 2 calls left");
    // Alone, it goes on to keep house.
    let one = go_on_and_finish(one);
    assert_eq!(told(old.iter().take(1)), ["MZ1"]);
    let mut second = start(&new_url);
    second.wait_for_log("this one deletes, recovers and sends webhook messages now");
    let two = go_on_and_finish(two);
    assert_eq!(told(new.iter().take(1)), ["MZ2"]);
    assert_eq!(first.wait(PATIENCE).code(), Some(0));
    let three = heard_call(&second, "MZ3").finish();
    assert_eq!(told(new.iter().take(1)), ["MZ3"]);
    assert_eq!(second.stop().0.code(), Some(0));
    assert!(old.try_recv().is_err() && new.try_recv().is_err(), "each is told once");
    check_whole(dir.path(), &[one, two, three]);
}

/// The ids of the recordings that messages tell of.
fn told(messages: impl Iterator<Item = Request>) -> Vec<String> {
    let id = |(_, body): Request| {
        let body: Value = serde_json::from_str(&body).unwrap();
        body["data"]["id"].as_str().unwrap().to_owned()
    };
    messages.map(id).collect()
}

#[test]
fn when_the_one_that_keeps_house_is_killed_the_other_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let (url, messages) = receiver(vec![200; 10]);
    let start = || {
        let setup = Setup::new(dir.path()).args(&["--admin", "127.0.0.1:0", "--webhook", &url]);
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        setup.env("CALLREEL_WEBHOOK_SECRET", secret).start()
    };
    let mut first = start();
    let mut second = start();
    let keeps_house = |server: &Server| {
        let (_, status) = server.ask_admin("/api/v1/status");
        status.contains(r#""keeps_house":true"#)
    };
    assert!(keeps_house(&first) && !keeps_house(&second));
    // The message of the second instance is delivered by the first one, at its own next one.
    let one = heard_call(&second, "MZ1").finish();
    let two = heard_call(&first, "MZ2").finish();
    let mut ids = told(messages.iter().take(1));
    let cut = heard_call(&first, "MZ3");
    let going_on = heard_call(&second, "MZ4");
    first.kill();
    second.wait_for_log("the other callreel is gone");
    let recovered =
        eventually(PATIENCE, "it is recovered", || shelf::finished(dir.path()).remove("MZ3"));
    assert_eq!(recovered.word("state"), "recovered");
    assert!(cut.pcm().starts_with(recovered.samples()));
    let going_on = go_on_and_finish(going_on);
    assert!(keeps_house(&second));
    ids.extend(told(messages.iter().take(3)));
    ids.sort();
    ids.dedup();
    assert!(ids.contains(&"MZ4".to_owned()) && ids.contains(&"MZ3".to_owned()), "{ids:?}");
    check_whole(dir.path(), &[one, two, going_on]);
    assert_eq!(second.stop().0.code(), Some(0));
}
