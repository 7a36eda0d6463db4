//! One suite for each kind of store: objects that are put once.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::{Arc, Mutex};

use callreel::home::{Config, Fault, Home, Parts, Probe, Upload, Variables};
use object_store::memory::InMemory;
use sha2::{Digest as _, Sha256};

use crate::harness::bucket::Bucket;

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
    Config { address: address.parse().unwrap(), variables, encryption: None, evict_after: None }
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
        }
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
    let bucket = Bucket::new();
    let variables = bucket.variables().into_iter().collect();
    let home = Home::open(&config(&bucket.home(), variables)).unwrap();
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
