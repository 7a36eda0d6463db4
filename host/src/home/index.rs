//! The index of the recordings in a home: a folder of objects for each day,
//! `<prefix>/index/2026/11/27/<instance>-<number>.ndjson`. Nothing else tells of the recordings of all
//! instances without a listing of the whole bucket.
//!
//! An object has one line for each recording: its [summary](crate::record::Summary) as JSON, with its URL in
//! the home. Objects are never changed. Each instance puts its own, with a number that no other one has. When it
//! has several small ones it puts one in their place, and then removes them. So a line may be in two objects
//! for a while, or for ever if the instance is killed then: readers count a URL once.
//!
//! A line is put after its record, and before the recording leaves the outbox. So the index lacks no recording
//! for good; and it lacks the latest for the few seconds in which lines are gathered. A line stays when the
//! objects of its recording are removed by other means.

mod reader;
mod writer;

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::Deserialize;

pub use self::reader::{Library, Listed};
pub use self::writer::Indexer;
use super::Address;
use crate::instance::Instance;
use crate::record::{Brief, Id, Key, Record, Summary};

/// The ending of the objects.
const ENDING: &str = ".ndjson";

/// Digits of the number of an object.
const NUMBER_DIGITS: usize = 16;

/// A line for the index: that of one recording in a home.
#[derive(Clone, Debug)]
pub struct Line {
    key: Key,
    instance: Instance,
    url: String,
    text: String,
}

impl Line {
    /// The line of the recording at this URL; `None` if the record has no file, or the URL is not that of a
    /// recording of this name in the home.
    #[must_use]
    pub fn new(address: &Address, record: &Record, url: &str) -> Option<Self> {
        let key = Key::new(record.day(), record.id.clone()?);
        let instance = address.instance_of(url, &key)?;
        let summary = Summary::of(&Brief::of(record)).at(url, instance.as_str());
        let text = serde_json::to_string(&summary).ok()?;
        Some(Self { key, instance, url: url.to_owned(), text })
    }

    /// The day of the recording.
    #[must_use]
    pub const fn day(&self) -> Date {
        self.key.day()
    }

    /// The URL of the recording.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// The fields of a line that an index needs.
#[derive(Deserialize)]
struct Indexed<'t> {
    id: Id,
    started_at: Timestamp,
    #[serde(borrow)]
    home: Cow<'t, str>,
}

/// Whether an object of this name is one of the instance.
fn is_of(name: &str, instance: &Instance) -> bool {
    let parts = name.strip_suffix(ENDING).and_then(|stem| stem.rsplit_once('-'));
    parts.is_some_and(|(writer, number)| {
        writer == instance.as_str()
            && number.len() == NUMBER_DIGITS
            && number.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_belongs_to_one_instance() {
        let instance: Instance = "pod-1".parse().unwrap();
        assert!(is_of("pod-1-0123456789abcdef.ndjson", &instance));
        for name in [
            "pod-1-0-0123456789abcdef.ndjson",
            "pod-0123456789abcdef.ndjson",
            "pod-1-0123456789abcde.ndjson",
            "pod-1-0123456789abcdefg.ndjson",
            "pod-1-0123456789abcdef.json",
            "pod-1.ndjson",
        ] {
            assert!(!is_of(name, &instance), "{name}");
        }
    }
}
