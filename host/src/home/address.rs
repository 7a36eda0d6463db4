//! The address of a home, and the keys of recordings in it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use object_store::path::Path;
use url::Url;

use crate::instance::Instance;
use crate::record::Key;

/// The folder of a home, below its prefix, for objects that are no recordings.
const OWN_DIR: &str = ".callreel";

/// The folder of a home, below its prefix, for the index of its recordings.
const INDEX_DIR: &str = "index";

/// The address of a home: `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX` or
/// `file:///FOLDER`. The prefix may be empty.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Address {
    /// The URL without a slash at its end.
    text: String,
    place: Place,
    prefix: Path,
}

/// The kind of a home.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// A bucket of Amazon S3, or of a server that speaks its protocol.
    S3(String),
    /// A bucket of Google Cloud Storage.
    Google(String),
    /// A container of Azure Blob Storage.
    Azure(String),
    /// A folder of a file system.
    Folder(PathBuf),
}

/// A text is not the address of a home.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "give s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///FOLDER, without a login, a query \
     and `..`; endpoint and credentials come from the environment"
)]
pub struct NotAnAddress;

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let url: Url = text.parse().map_err(|_| NotAnAddress)?;
        let has_more = !url.username().is_empty()
            || url.password().is_some()
            || url.port().is_some()
            || url.query().is_some()
            || url.fragment().is_some();
        if has_more || text.contains("/..") {
            return Err(NotAnAddress);
        }
        let host = url.host_str().filter(|host| !host.is_empty());
        let prefix = Path::from_url_path(url.path().trim_matches('/')).map_err(|_| NotAnAddress)?;
        let (place, prefix) = match (url.scheme(), host) {
            ("s3", Some(bucket)) => (Place::S3(bucket.to_owned()), prefix),
            ("gs", Some(bucket)) => (Place::Google(bucket.to_owned()), prefix),
            ("az", Some(container)) => (Place::Azure(container.to_owned()), prefix),
            ("file", None) => {
                let folder = url.to_file_path().map_err(|()| NotAnAddress)?;
                (Place::Folder(folder), Path::default())
            }
            _ => return Err(NotAnAddress),
        };
        Ok(Self { text: url.as_str().trim_end_matches('/').to_owned(), place, prefix })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Address {
    /// The kind of the home, and its bucket or folder.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// The URL of a recording, without the endings `.wav` and `.json` of its objects:
    /// `<home>/2026/11/27/<instance>/<id>`.
    #[must_use]
    pub fn url_of(&self, key: &Key, instance: &Instance) -> String {
        let day = key.day().strftime("%Y/%m/%d");
        format!("{}/{day}/{instance}/{}", self.text, key.id())
    }

    /// The path in the store of the object with this ending, `.wav` for one, of the recording at a URL that
    /// [`url_of`](Self::url_of) made; `None` if the URL is not below this home.
    #[must_use]
    pub fn path_of(&self, url: &str, ending: &str) -> Option<Path> {
        let rest = url.strip_prefix(&self.text)?.strip_prefix('/')?;
        self.below(&format!("{rest}{ending}"))
    }

    /// The path in the store of an object that is no recording.
    #[must_use]
    pub fn own_path(&self, name: &str) -> Path {
        self.below(&format!("{OWN_DIR}/{name}")).unwrap_or_default()
    }

    /// The path in the store of the folder with the recordings of a day, `2026/11/27`.
    #[must_use]
    pub fn day_path(&self, day: jiff::civil::Date) -> Path {
        self.below(&day.strftime("%Y/%m/%d").to_string()).unwrap_or_default()
    }

    /// The path in the store of the folder with the [index](super::index) of a day, or of all days.
    #[must_use]
    pub fn index_path(&self, day: Option<jiff::civil::Date>) -> Path {
        let day = day.map(|day| day.strftime("/%Y/%m/%d").to_string()).unwrap_or_default();
        self.below(&format!("{INDEX_DIR}{day}")).unwrap_or_default()
    }

    /// The instance in a URL that [`url_of`](Self::url_of) made for this recording; `None` for any other text.
    #[must_use]
    pub fn instance_of(&self, url: &str, key: &Key) -> Option<Instance> {
        let (folder, id) = url.rsplit_once('/')?;
        let instance = folder.rsplit_once('/')?.1.parse().ok()?;
        (id == key.id().as_str() && self.url_of(key, &instance) == url).then_some(instance)
    }

    /// The path in the store of everything.
    #[must_use]
    pub const fn prefix(&self) -> &Path {
        &self.prefix
    }

    fn below(&self, rest: &str) -> Option<Path> {
        let rest = Path::parse(rest).ok()?;
        Some(self.prefix.parts().chain(rest.parts()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_a_bucket_and_a_prefix_and_nothing_else() {
        for (text, place, prefix) in [
            ("s3://calls", Place::S3("calls".into()), ""),
            ("s3://calls/", Place::S3("calls".into()), ""),
            ("s3://my.calls/a/b/", Place::S3("my.calls".into()), "a/b"),
            ("gs://calls/eu", Place::Google("calls".into()), "eu"),
            ("az://calls/eu%20west", Place::Azure("calls".into()), "eu west"),
            ("file:///mnt/calls", Place::Folder("/mnt/calls".into()), ""),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((&address.place, address.prefix.as_ref()), (&place, prefix), "{text}");
        }
        for text in [
            "",
            "calls",
            "/mnt/calls",
            "s3://",
            "s3:///a",
            "s3://key:secret@calls",
            "s3://calls?region=x",
            "s3://calls#a",
            "s3://calls/../a",
            "s3://calls:9000/a",
            "https://calls.s3.amazonaws.com/",
            "file://server/share",
            "memory:///",
        ] {
            assert_eq!(text.parse::<Address>(), Err(NotAnAddress), "{text}");
        }
    }

    #[test]
    fn the_key_of_a_recording_is_its_day_its_instance_and_its_id() {
        let key = Key::parse("2026-01-09", "MZ1.a_b-2").unwrap();
        let instance = "pod-0".parse().unwrap();
        for (text, path) in [
            ("s3://calls/eu%20west/", "eu west/2026/01/09/pod-0/MZ1.a_b-2.wav"),
            ("gs://calls", "2026/01/09/pod-0/MZ1.a_b-2.wav"),
            ("file:///mnt/calls", "2026/01/09/pod-0/MZ1.a_b-2.wav"),
        ] {
            let address: Address = text.parse().unwrap();
            let url = address.url_of(&key, &instance);
            assert_eq!(address.path_of(&url, ".wav").unwrap().as_ref(), path);
            let other: Address = "s3://calls/eu".parse().unwrap();
            assert_eq!(other.path_of(&url, ".wav"), None, "{url}");
            assert_eq!(address.instance_of(&url, &key), Some("pod-0".parse().unwrap()));
            assert_eq!(address.instance_of(&format!("{url}x"), &key), None);
            assert_eq!(other.instance_of(&url, &key), None);
            assert!(address.index_path(Some(key.day())).as_ref().ends_with("index/2026/01/09"));
        }
    }
}
