//! The thread of the home: it uploads finished recordings, and has evicted those that are uploaded.
//!
//! It has a runtime of its own at a lower priority. So the digests of audio, which take the processor for
//! milliseconds, hold up neither a handshake nor a call.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::Error;
use crate::home::{self, Address, Home, Probe};
use crate::outbox::Outbox;
use crate::store::Store;

/// The longest time from the end of another instance that kept house to the uploads of this one, beside
/// that until the store has noticed.
const LOOK: Duration = Duration::from_millis(500);

/// Niceness of the thread: others have the processor first.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// An open home with its outbox.
pub(crate) struct Uploads {
    home: Home,
    outbox: Outbox,
    evict_after: Option<Duration>,
    /// A probe has found it good.
    is_tried: bool,
}

/// The thread at work. It ends soon after this is dropped, in the middle of an upload if need be: the next
/// start goes on.
pub(crate) struct Uploading {
    _end: oneshot::Sender<()>,
}

impl Uploads {
    /// Opens a home and tries it. One that cannot be reached is used all the same. `webhooks` gets the
    /// entries of the recordings that are uploaded.
    ///
    /// # Errors
    /// [`Error::Home`] or [`Error::HomeRefuses`]: the settings have to be changed.
    pub(crate) async fn open(
        config: home::Config,
        store_dir: &Path,
        webhooks: Option<Outbox>,
    ) -> Result<Self, Error> {
        let home = Home::open(&config)?;
        let address = config.address.to_string();
        let is_tried = match home.probe().await? {
            Probe::Good => true,
            Probe::Limited(warnings) => {
                home::warn(&warnings);
                true
            }
            Probe::Away(error) => {
                tracing::warn!(
                    home = address,
                    error,
                    "the home cannot be reached: recording all the same, and trying it again"
                );
                false
            }
        };
        if is_tried {
            tracing::info!(home = address, "finished recordings are uploaded");
        }
        let outbox = Outbox::of_home(store_dir, webhooks);
        Ok(Self { home, outbox, evict_after: config.evict_after, is_tried })
    }

    pub(crate) fn address(&self) -> &Address {
        self.home.address()
    }

    pub(crate) const fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread, or no runtime.
    pub(crate) fn start(self, store: Arc<Store>) -> std::io::Result<Uploading> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (end, is_ended) = oneshot::channel();
        let work = move || {
            // Only on Linux does the niceness belong to one thread.
            #[cfg(target_os = "linux")]
            if let Err(error) = rustix::process::nice(NICENESS) {
                tracing::debug!(%error, "the thread of the home cannot give way to others");
            }
            runtime.block_on(async {
                tokio::select! {
                    () = self.work(&store) => {}
                    _ = is_ended => {}
                }
            });
            // Reads and copies under way are not waited for.
            runtime.shutdown_background();
        };
        thread::Builder::new().name("home".to_owned()).spawn(work)?;
        Ok(Uploading { _end: end })
    }

    async fn work(self, store: &Store) {
        let Self { home, outbox, is_tried, .. } = self;
        loop {
            // Of the instances on one directory, the one that keeps house uploads for all.
            let Some(work) = store.begin_house_work() else {
                tokio::time::sleep(LOOK).await;
                continue;
            };
            let end = async {
                while store.keeps_house() {
                    tokio::time::sleep(LOOK).await;
                }
            };
            home::deliver(home.clone(), is_tried, outbox.clone(), end).await;
            drop(work);
            if store.keeps_house() {
                return; // It cannot go on, and has said so.
            }
        }
    }
}
