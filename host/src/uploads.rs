//! The thread of the home: it uploads finished recordings, and has evicted those that are uploaded.
//!
//! It has a runtime of its own at a lower priority. So the digests of audio, which take the processor for
//! milliseconds, hold up neither a handshake nor a call.

use std::collections::HashMap;
use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::home::{self, Audio, Fault, Form, Home, Probe};
use crate::outbox::Outbox;
use crate::store::{Evictable, Store};
use crate::tasks::{self, give_way};

/// The longest time from the end of another instance that kept house to the uploads of this one, beside
/// that until the store has noticed.
const LOOK: Duration = Duration::from_millis(500);

/// The longest wait for uploads at the end, and the time between two looks.
const LAST_WAIT: Duration = Duration::from_secs(5);
const LAST_LOOK: Duration = Duration::from_millis(50);

/// Time between two looks for recordings to evict.
const EVICT_EVERY: Duration = Duration::from_secs(1);

/// Time after which a recording that the home lacks is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(60 * 60);

/// A look takes at most this share of the time. What it has found is evicted as fast as the home answers.
const EVICT_SHARE: u32 = 20;

/// An open home with its outbox.
pub(crate) struct Uploads {
    home: Home,
    outbox: Outbox,
    form: Form,
    evict_after: Option<Duration>,
    /// A probe has found it good.
    is_tried: bool,
}

/// The thread at work. It ends soon after this is dropped, in the middle of an upload if need be: the next
/// start goes on.
pub(crate) struct Uploading {
    outbox: Outbox,
    _end: oneshot::Sender<()>,
}

impl Uploading {
    /// Waits until the last recordings are uploaded, for five seconds at most, and not at all for a home that
    /// takes none.
    pub(crate) async fn finish(&self) {
        let all = async {
            loop {
                let health = self.outbox.health();
                let stuck: u64 = health.receivers.iter().map(|home| home.stuck).sum();
                let is_failing =
                    health.failing_since.is_some() || stuck > 0 && stuck == health.pending;
                let outbox = self.outbox.clone();
                if is_failing || tasks::blocking(move || outbox.is_empty()).await.unwrap_or(true) {
                    return;
                }
                tokio::time::sleep(LAST_LOOK).await;
            }
        };
        if tokio::time::timeout(LAST_WAIT, all).await.is_err() {
            let pending = self.outbox.health().pending;
            tracing::warn!(pending, "recordings are left on the disk: the next start uploads them");
        }
    }
}

impl Uploads {
    /// Opens a home and tries it. One that cannot be reached is used all the same. `webhooks` gets the
    /// entries of the recordings that are uploaded.
    ///
    /// # Errors
    /// The settings have to be changed.
    pub(crate) async fn open(
        config: home::Config,
        store_dir: &Path,
        webhooks: Option<Outbox>,
    ) -> Result<Self, home::Error> {
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
        let (form, evict_after) = (config.form, config.evict_after);
        Ok(Self { home, outbox, form, evict_after, is_tried })
    }

    pub(crate) const fn home(&self) -> &Home {
        &self.home
    }

    pub(crate) const fn form(&self) -> Form {
        self.form
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
        let outbox = self.outbox.clone();
        let work = move || {
            give_way();
            runtime.block_on(async {
                tokio::select! {
                    () = self.work(store) => {}
                    _ = is_ended => {}
                }
            });
            // Reads and copies under way are not waited for.
            runtime.shutdown_background();
        };
        thread::Builder::new().name("home".to_owned()).spawn(work)?;
        Ok(Uploading { outbox, _end: end })
    }

    async fn work(self, store: Arc<Store>) {
        let Self { home, outbox, is_tried, evict_after, .. } = self;
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
            let delivery = home::deliver(home.clone(), is_tried, outbox.clone(), end);
            tokio::select! {
                () = delivery => {}
                () = evict(&home, evict_after, &store) => {}
            }
            drop(work);
            if store.keeps_house() {
                return; // It cannot go on, and has said so.
            }
        }
    }
}

/// Removes recordings from the disk that have been in the home for `evict_after`, for ever.
async fn evict(home: &Home, evict_after: Option<Duration>, store: &Arc<Store>) {
    let Some(age) = evict_after else { return pending().await };
    let mut alarm = None;
    // Recordings that the home lacks, and the time from which they are looked for again.
    let mut missing = Arc::new(HashMap::<String, Instant>::new());
    loop {
        let began = Instant::now();
        Arc::make_mut(&mut missing).retain(|_, again| *again > began);
        let (looked_at, address, left_out) =
            (Arc::clone(store), home.address().clone(), Arc::clone(&missing));
        let look = move || {
            let is_wanted =
                |url: &str| address.path_of(url, "").is_some() && !left_out.contains_key(url);
            looked_at.evictable(age, is_wanted)
        };
        // Only a panic ends the look; it was reported already.
        let Ok(found) = tasks::blocking(look).await else { return pending().await };
        let next_look = Instant::now() + (began.elapsed() * EVICT_SHARE).max(EVICT_EVERY);
        for evictable in found {
            match is_whole(home, &evictable).await {
                Ok(true) => {
                    let store = Arc::clone(store);
                    if tasks::blocking(move || store.evict(&evictable)).await.is_err() {
                        return pending().await;
                    }
                }
                Ok(false) => {
                    let url = evictable.url;
                    tracing::error!(
                        url,
                        "a recording that was uploaded is not in the home, or not whole: it stays on the disk"
                    );
                    Arc::make_mut(&mut missing).insert(url, began + LOOK_AGAIN);
                }
                Err(fault) => {
                    let error = fault.to_string();
                    if alarm.as_ref() != Some(&error) {
                        tracing::warn!(
                            error,
                            "nothing is evicted: the home does not tell of a recording"
                        );
                    }
                    alarm = Some(error);
                    break;
                }
            }
        }
        tokio::time::sleep_until(next_look.into()).await;
    }
}

/// Whether the home has a recording. One that does not tell whether an object is there told the checksum of
/// the upload instead, or else the recording would still be in the outbox.
async fn is_whole(home: &Home, evictable: &Evictable) -> Result<bool, Fault> {
    let Some(wav_bytes) = evictable.wav_bytes else {
        return home.has_object(&evictable.url, ".json", None).await;
    };
    let (ending, bytes) = match evictable.is_flac {
        false => (".wav", wav_bytes),
        true => match home.audio_of(&evictable.url).await {
            Ok(Some(Audio { ending, bytes })) => (ending, bytes),
            Ok(None) => return Ok(false),
            Err(Fault::Forbidden(_)) => return Ok(true),
            Err(fault) => return Err(fault),
        },
    };
    Ok(home.has_object(&evictable.url, ending, Some(bytes)).await?
        && home.has_object(&evictable.url, ".json", None).await?)
}
