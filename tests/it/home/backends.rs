//! One suite for each kind of store: objects that are put once, read in parts, and listed by the index.

use std::fs::File;
use std::io::{self, Write as _};
use std::process::Command;
use std::sync::{Arc, Mutex};

use callreel::home::index::{Indexer, Library, Line};
use callreel::home::{
    Config, Encryption, Error, Fault, Form, Home, Parts, Probe, Upload, Variables,
};
use callreel::record::{Filter, Key, Record};
use callreel_core::frame::Provider;
use object_store::memory::InMemory;
use sha2::{Digest as _, Sha256};

use super::{record, wait_until_uploaded};
use crate::harness::bucket::{self, Bucket};
use crate::harness::clouds::Cloud;
use crate::harness::process::{Setup, callreel};

/// A note of an upload in memory.
#[derive(Default)]
struct Note(Mutex<Option<String>>);

impl Parts for Note {
    fn begun(&self) -> Option<String> {
        self.0.lock().unwrap().clone()
    }

    fn begin(&self, id: &str) -> io::Result<()> {
        *self.0.lock().unwrap() = Some(id.to_owned());
        Ok(())
    }

    fn end(&self) {
        *self.0.lock().unwrap() = None;
    }
}

fn file(content: &[u8]) -> Upload {
    let mut file: File = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    let sha256 = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    Upload { file: Arc::new(file), bytes: content.len() as u64, sha256: Some(sha256) }
}

fn config(address: &str, variables: Variables) -> Config {
    let (address, form) = (address.parse().unwrap(), Form::Wav);
    Config { address, variables, encryption: None, form, evict_after: None }
}

async fn suite(home: &Home) {
    assert_eq!(home.probe().await, Ok(Probe::Good));
    let path = |name: &str| home.address().own_path(name);
    let small = path("small");
    assert_eq!(home.head(&small).await.unwrap(), None);
    assert!(matches!(home.get(&small).await, Err(Fault::Missing(_))));
    for _ in 0..2 {
        home.put(&small, "one".into()).await.unwrap();
        assert!(matches!(home.put(&small, "two".into()).await, Err(Fault::Taken(_))));
        assert!(matches!(home.put(&small, "longer".into()).await, Err(Fault::Taken(_))));
        assert_eq!(home.get(&small).await.unwrap(), "one");
        assert_eq!(home.head(&small).await.unwrap().unwrap().size, 3);
    }
    home.replace(&small, "two".into()).await.unwrap();
    assert_eq!(home.get(&small).await.unwrap(), "two");
    home.remove(&small).await.unwrap();
    home.remove(&small).await.unwrap();
    assert_eq!(home.head(&small).await.unwrap(), None);
    // A part is 8 MiB: less than one, one, and more than two.
    for length in [0, 100_000, 8 << 20, (17 << 20) + 5] {
        let content: Vec<u8> = (0..length).map(|n: usize| (n * 31 % 251) as u8).collect();
        let (path, upload, note) =
            (path(&format!("file-{length}")), file(&content), Note::default());
        let damaged = Upload { sha256: Some("00".repeat(32)), ..upload.clone() };
        let refused = home.put_file(&path, &damaged, &note).await;
        assert!(matches!(refused, Err(Fault::Local(_))), "{length}: {refused:?}");
        assert_eq!(home.head(&path).await.unwrap(), None);
        for _ in 0..2 {
            home.put_file(&path, &upload, &note).await.unwrap();
            assert_eq!(note.begun(), None);
            assert!(home.get(&path).await.unwrap() == content);
        }
        if length > 0 {
            let other = file(&vec![7; length]);
            let taken = home.put_file(&path, &other, &note).await;
            assert!(matches!(taken, Err(Fault::Taken(_))), "{length}: {taken:?}");
            assert!(home.get(&path).await.unwrap() == content);
            let (from, to) = (length / 3, length - 1);
            let part = home.read(&path, from as u64..to as u64).await.unwrap();
            assert!(part == content[from..to], "{length}");
            let beyond = home.read(&path, from as u64..length as u64 + 1).await;
            assert!(matches!(beyond, Err(Fault::Refused(_))), "{length}: {beyond:?}");
        }
    }
    lists(home).await;
}

/// Recordings of two instances and two days, listed by the index, a page at a time.
async fn lists(home: &Home) {
    let (indexer, library) = (Indexer::new(home.clone()), Library::new(home.clone()));
    library.try_it().await.unwrap();
    let list = async |after: Option<&_>, count| {
        library.list(&Filter::default(), after, count).await.unwrap()
    };
    assert!(list(None, 10).await.records.is_empty());
    let mut expected = Vec::new();
    for (instance, day) in [("pod-0", 26), ("pod-1", 26), ("pod-0", 27), ("pod-1", 27)] {
        let second = expected.len();
        let start = format!("2026-11-{day}T10:00:{second:02}Z");
        let mut record = Record::unknown(Provider::Twilio, start.parse().unwrap());
        record.id = Some(format!("MZ{second}").try_into().unwrap());
        let key = Key::new(record.day(), record.id.clone().unwrap());
        let url = home.address().url_of(&key, &instance.parse().unwrap());
        let path = home.address().path_of(&url, ".json").unwrap();
        home.put(&path, serde_json::to_vec(&record).unwrap().into()).await.unwrap();
        indexer.add(Line::new(home.address(), &record, &url).unwrap()).await.unwrap();
        assert!(library.has(key.day(), &url).await.unwrap());
        assert_eq!(library.find(&key, None).await.unwrap(), Some(url.clone()));
        assert_eq!(library.record(&key, &url).await.unwrap(), Some(record));
        expected.insert(0, url);
    }
    // The end of a page is the end of a day, and is not.
    for count in 1..=4 {
        let (mut urls, mut after) = (Vec::new(), None);
        for _ in 0..10 {
            let page = list(after.as_ref(), count).await;
            urls.extend(page.records.into_iter().map(|listed| listed.url.to_string()));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(urls, expected, "{count} on a page");
    }
}

fn run(suite: impl Future<Output = ()>) {
    tokio::runtime::Runtime::new().unwrap().block_on(suite);
}

#[test]
fn a_store_in_memory() {
    let address = "s3://calls/eu".parse().unwrap();
    run(suite(&Home::over(&address, Arc::new(InMemory::new()))));
}

#[test]
fn a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let address = format!("file://{}", dir.path().display());
    run(suite(&Home::open(&config(&address, Variables::default())).unwrap()));
}

#[test]
fn a_bucket_of_s3() {
    // With a checksum that the server keeps, and with none.
    for checksum in ["sha256", "none"] {
        let bucket = Bucket::new();
        let home = opened(&bucket, checksum);
        run(async {
            suite(&home).await;
            // An upload that was cut off is ended before the next one begins.
            let (path, note) = (home.address().own_path("cut-off"), Note::default());
            note.begin("an-upload-that-the-store-does-not-know").unwrap();
            home.put_file(&path, &file(&vec![1; 9 << 20]), &note).await.unwrap();
            assert_eq!(note.begun(), None);
        });
        assert_eq!(bucket.contents().1, 0);
    }
}

fn opened(bucket: &Bucket, checksum: &str) -> Home {
    let checksum = ("AWS_CHECKSUM_ALGORITHM".to_owned(), checksum.to_owned());
    let variables = bucket.variables().into_iter().chain([checksum]).collect();
    Home::open(&config(&bucket.home(), variables)).unwrap()
}

#[test]
fn an_upload_is_verified_without_reading_it_back_where_the_store_tells_a_digest() {
    for checksum in ["sha256", "none"] {
        let bucket = Bucket::new();
        let home = opened(&bucket, checksum);
        run(async {
            let put = async |name: &str, length: usize| {
                let content: Vec<u8> = (0..length).map(|n| (n * 31 % 251) as u8).collect();
                let path = home.address().own_path(name);
                home.put_file(&path, &file(&content), &Note::default()).await
            };
            for length in [1, 100_000, (17 << 20) + 5] {
                put(&format!("file-{length}"), length).await.unwrap();
            }
            let (sent, received) = home.traffic();
            assert!(sent > 17 << 20, "{checksum}: {sent} bytes sent");
            assert!(received < 10_000, "{checksum}: {received} bytes received");
            // What was damaged on the way is not taken for the recording.
            bucket.treat(|asked| match asked.method.as_str() {
                "PUT" => bucket::Fault::Damage,
                _ => bucket::Fault::None,
            });
            for length in [1, 100_000, 9 << 20] {
                let damaged = put(&format!("damaged-{length}"), length).await;
                assert!(damaged.is_err(), "{checksum}: {length}");
            }
        });
    }
}

#[test]
fn a_container_of_azure() {
    if std::env::var_os("CALLREEL_LONG").is_none() {
        return;
    }
    let cloud = Cloud::azure();
    a_cloud(&cloud);
    let wrong = ("AZURE_STORAGE_ACCOUNT_KEY".to_owned(), "d3Jvbmc=".to_owned());
    let variables = cloud.variables.iter().filter(|(name, _)| *name != wrong.0).cloned();
    let variables = variables.chain([wrong.clone()]).collect();
    let home = Home::open(&config(&cloud.home, variables)).unwrap();
    run(async {
        let refused = home.probe().await.unwrap_err();
        assert!(refused.reason.contains("403"), "{refused}");
    });
}

/// The suite, the refusals, and a recorder with the home.
fn a_cloud(cloud: &Cloud) {
    let variables: Variables = cloud.variables.iter().cloned().collect();
    let config = config(&cloud.home, variables);
    run(suite(&Home::open(&config).unwrap()));
    let encrypted = Config { encryption: Some(Encryption::Aes256), ..config.clone() };
    assert!(matches!(Home::open(&encrypted), Err(Error::Encryption(_))));
    let address = cloud.home.replace("calls", "no-such-bucket").parse().unwrap();
    let elsewhere = Home::open(&Config { address, ..config }).unwrap();
    run(async {
        let refused = elsewhere.probe().await.unwrap_err();
        assert!(refused.reason.contains("404"), "{refused}");
    });
    let dir = tempfile::tempdir().unwrap();
    let mut setup = Setup::new(dir.path());
    for (name, value) in &cloud.variables {
        setup = setup.env(name, value);
    }
    let server = setup.args(&["--home", &cloud.home, "--admin", "127.0.0.1:0"]).start();
    let ids = ["MZ1", "MZ2", "MZ3"];
    ids.iter().for_each(|id| drop(record(&server, id)));
    wait_until_uploaded(&server, ids.len());
    for (command, told) in [("verify", "3 whole, 0 not"), ("check", "3 in the home, 0 waiting")] {
        let mut home = Command::new(callreel());
        home.args(["home", command, "--home", &cloud.home]).env_clear();
        if command == "check" {
            home.arg("--dir").arg(dir.path());
        }
        let done = home.envs(cloud.variables.iter().cloned()).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() && said.contains(told), "{command}: {said}");
    }
}
