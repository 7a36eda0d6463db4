//! The home of finished recordings: a bucket, or a folder of another file system. The disk is their spool.
//!
//! A recording is two objects, `<prefix>/2026/11/27/<instance>/<id>.wav` and `.json`. The record is put
//! last: where it is, the recording is whole. No object of a recording is ever replaced: objects are put only
//! where there is none, and an object that is there already must be equal.

pub mod address;
mod fault;
mod flac;
mod folder;
mod health;
pub mod index;
mod open;
mod probe;
mod put;
mod read;
mod transport;
mod upload;

use std::ffi::OsString;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::HeaderValue;
use hyper::http::HeaderMap;
use object_store::local::LocalFileSystem;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectMeta, ObjectStore, ObjectStoreExt as _};
use tokio::sync::Semaphore;

pub use self::address::Address;
use self::address::Place;
pub use self::fault::Fault;
pub(crate) use self::flac::Audio;
pub use self::health::Health;
pub(crate) use self::probe::warn;
pub use self::probe::{Probe, ProbeError};
pub use self::put::{Parts, Upload};
pub use self::read::{Digest, PIECE};
use self::transport::{LeftAlone, Traffic, Transport};
pub use self::upload::deliver;
pub(crate) use self::upload::{Found, PEAKS_FROM, compare, upload};

/// Most bytes of recordings that uploads hold in memory, in KiB.
const MEMORY_KIB: usize = 32 << 10;

/// Settings of a home.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// Its address.
    pub address: Address,
    /// The settings of the store: its endpoint, its credentials and so on.
    pub variables: Variables,
    /// The encryption that the store is asked for; its own default without.
    pub encryption: Option<Encryption>,
    /// The form of the audio of new recordings.
    pub form: Form,
    /// The age, from its end, at which a recording in the home is removed from the disk.
    pub evict_after: Option<Duration>,
}

/// The variables of the environment that a store is set up by, with the names that the tools of its provider
/// know: those that begin with `AWS_`, `GOOGLE_` or `AZURE_`, and a few more. Never shown: they hold secrets.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Variables(Vec<(String, String)>);

impl Variables {
    /// Those of this process. Names and values that are not UTF-8 are left out.
    #[must_use]
    pub fn of_process() -> Self {
        let text = |(name, value): (OsString, OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        std::env::vars_os().filter_map(text).collect()
    }
}

impl FromIterator<(String, String)> for Variables {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self(variables.into_iter().collect())
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Variables({})", self.0.len())
    }
}

/// The form of the audio in a home.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Form {
    /// The WAV as it is on the disk.
    #[default]
    Wav,
    /// FLAC of the same samples, in about half the room of 16-bit PCM. A recording without audio has none.
    Flac,
}

/// The encryption of objects by an S3 store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Encryption {
    /// With keys of the store (SSE-S3).
    Aes256,
    /// With a key of the key service (SSE-KMS): its id, or the key that the account has by default.
    Kms(Option<String>),
}

/// A text is no encryption.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("give aes256, kms, or kms:KEY with the id or ARN of a key")]
pub struct NotAnEncryption;

impl FromStr for Encryption {
    type Err = NotAnEncryption;

    fn from_str(text: &str) -> Result<Self, NotAnEncryption> {
        match text.split_once(':') {
            None if text.eq_ignore_ascii_case("aes256") => Ok(Self::Aes256),
            None if text.eq_ignore_ascii_case("kms") => Ok(Self::Kms(None)),
            Some((kind, key)) if kind.eq_ignore_ascii_case("kms") && !key.is_empty() => {
                Ok(Self::Kms(Some(key.to_owned())))
            }
            _ => Err(NotAnEncryption),
        }
    }
}

/// The reason why a home cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store takes no recordings.
    #[error(transparent)]
    Refuses(#[from] ProbeError),
    /// A setting of the environment cannot be used.
    #[error("--home {address}: a setting of the environment cannot be used: {reason}")]
    Environment {
        /// The address.
        address: Address,
        /// The reason.
        reason: String,
    },
    /// Only S3 takes an order for encryption.
    #[error(
        "--home-sse is for s3:// alone, and --home is {0}: leave it out (Google and Azure encrypt every object)"
    )]
    Encryption(Address),
    /// The folder is not there.
    #[error(
        "--home {address}: there is no such folder ({reason}): mount or make it; callreel does not, lest it fills a \
         mount point without its disk"
    )]
    Folder {
        /// The address.
        address: Address,
        /// The system's error.
        reason: String,
    },
}

/// An open home. Cheap to clone.
#[derive(Clone)]
pub struct Home(Arc<Shared>);

struct Shared {
    address: Address,
    store: Arc<dyn ObjectStore>,
    /// The same store, asked to tell the checksums that it keeps.
    checker: Arc<dyn ObjectStore>,
    /// Uploads in parts; `None` for a folder, to which files are copied.
    parts: Option<Arc<dyn MultipartStore>>,
    /// The store's wish to be left alone; `None` for a folder.
    left_alone: Option<Arc<LeftAlone>>,
    /// The bytes that went over the network.
    traffic: Arc<Traffic>,
    /// Whether the store is known to refuse to replace an object.
    is_exclusive: AtomicBool,
    memory: Semaphore,
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Home").field("address", &self.0.address.to_string()).finish_non_exhaustive()
    }
}

impl Home {
    /// Opens a home. Reads certificates; asks nothing of the store.
    ///
    /// # Errors
    /// A setting cannot be used, see [`Error`].
    pub fn open(config: &Config) -> Result<Self, Error> {
        let Config { address, encryption, .. } = config;
        if encryption.is_some() && !matches!(address.place(), Place::S3(_)) {
            return Err(Error::Encryption(address.clone()));
        }
        let transport = Transport::new();
        let network = Some((transport.left_alone(), transport.traffic()));
        let odd = |error: object_store::Error| Error::Environment {
            address: address.clone(),
            reason: fault::shown(&error),
        };
        let home = match address.place() {
            Place::S3(bucket) => {
                let build = |options| open::s3(bucket, config, &transport, options);
                let store = Arc::new(build(ClientOptions::new()).map_err(odd)?);
                let mut headers = HeaderMap::new();
                headers.insert("x-amz-checksum-mode", HeaderValue::from_static("ENABLED"));
                let options = ClientOptions::new().with_default_headers(headers);
                let checker = Arc::new(build(options).map_err(odd)?);
                Self::new(address, Arc::clone(&store) as _, checker, Some(store), network)
            }
            Place::Google(bucket) => {
                let store = Arc::new(open::google(bucket, config, transport).map_err(odd)?);
                let checker = Arc::clone(&store) as _;
                Self::new(address, Arc::clone(&store) as _, checker, Some(store), network)
            }
            Place::Azure(container) => {
                let store = Arc::new(open::azure(container, config, transport).map_err(odd)?);
                let checker = Arc::clone(&store) as _;
                Self::new(address, Arc::clone(&store) as _, checker, Some(store), network)
            }
            Place::Folder(folder) => {
                let missing = |reason| Error::Folder { address: address.clone(), reason };
                if !folder.is_dir() {
                    return Err(missing(format!("{} is no folder", folder.display())));
                }
                let store = LocalFileSystem::new_with_prefix(folder);
                let store = store.map_err(|error| missing(fault::shown(&error)))?;
                let store: Arc<dyn ObjectStore> = Arc::new(store);
                Self::new(address, Arc::clone(&store), store, None, None)
            }
        };
        Ok(home)
    }

    /// A home at `address` in a store that is open already, which uploads in `parts`.
    #[must_use]
    pub fn over(address: &Address, parts: Arc<impl ObjectStore + MultipartStore>) -> Self {
        let store: Arc<dyn ObjectStore> = Arc::clone(&parts) as _;
        Self::new(address, Arc::clone(&store), store, Some(parts), None)
    }

    fn new(
        address: &Address,
        store: Arc<dyn ObjectStore>,
        checker: Arc<dyn ObjectStore>,
        parts: Option<Arc<dyn MultipartStore>>,
        network: Option<(Arc<LeftAlone>, Arc<Traffic>)>,
    ) -> Self {
        let (left_alone, traffic) = network.unzip();
        Self(Arc::new(Shared {
            address: address.clone(),
            store,
            checker,
            parts,
            left_alone,
            traffic: traffic.unwrap_or_default(),
            is_exclusive: AtomicBool::new(false),
            memory: Semaphore::new(MEMORY_KIB),
        }))
    }

    /// Its address, which makes the paths of its objects.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.0.address
    }

    /// Bytes of objects that were sent over the network and received, those of requests that failed as well; both 0
    /// of a folder.
    #[must_use]
    pub fn traffic(&self) -> (u64, u64) {
        let Traffic { sent, received } = &*self.0.traffic;
        (sent.load(Ordering::Relaxed), received.load(Ordering::Relaxed))
    }

    /// The store, to list it and to read it in parts. The paths are those of the [`address`](Self::address).
    #[must_use]
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.0.store
    }

    /// Reads a whole object. For small ones: it is in memory.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn get(&self, path: &Path) -> Result<Bytes, Fault> {
        let read = async { self.0.store.get(path).await?.bytes().await };
        read.await.map_err(|error| self.fault(&error))
    }

    /// Length and times of an object; `None` if there is none.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn head(&self, path: &Path) -> Result<Option<ObjectMeta>, Fault> {
        match self.0.store.head(path).await {
            Ok(meta) => Ok(Some(meta)),
            Err(error) => match self.fault(&error) {
                Fault::Missing(_) => Ok(None),
                fault => Err(fault),
            },
        }
    }

    /// Whether the object with this ending of the recording at a URL is there, and of this length if one is given.
    /// Also true if the home does not tell.
    ///
    /// # Errors
    /// See [`Fault`].
    pub(crate) async fn has_object(
        &self,
        url: &str,
        ending: &str,
        bytes: Option<u64>,
    ) -> Result<bool, Fault> {
        let Some(path) = self.address().path_of(url, ending) else { return Ok(false) };
        match self.head(&path).await {
            Ok(object) => {
                Ok(object.is_some_and(|object| bytes.is_none_or(|bytes| bytes == object.size)))
            }
            Err(Fault::Forbidden(_)) => Ok(true),
            Err(fault) => Err(fault),
        }
    }

    /// Puts an object in place of any other. For objects that are no recordings, indexes for example.
    ///
    /// # Errors
    /// See [`Fault`]. The object may be there all the same.
    pub async fn replace(&self, path: &Path, content: Bytes) -> Result<(), Fault> {
        match self.folder_of(path) {
            Some(file) => folder::replace(file, content).await,
            None => {
                self.0.store.put(path, content.into()).await.map(drop).map_err(|e| self.fault(&e))
            }
        }
    }

    /// Removes an object, if it is there.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn remove(&self, path: &Path) -> Result<(), Fault> {
        match self.0.store.delete(path).await.map_err(|error| self.fault(&error)) {
            Ok(()) | Err(Fault::Missing(_)) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// The file of an object, if the home is a folder.
    fn folder_of(&self, path: &Path) -> Option<std::path::PathBuf> {
        match self.0.address.place() {
            Place::Folder(folder) if self.0.parts.is_none() => Some(folder.join(path.as_ref())),
            _ => None,
        }
    }

    fn fault(&self, error: &object_store::Error) -> Fault {
        let wait = self.0.left_alone.as_ref().and_then(|left_alone| left_alone.wait());
        Fault::of(error, wait)
    }
}
