//! callreel: records the phone calls that a provider streams over WebSocket.

pub mod acme;
pub mod admin;
pub mod admission;
mod announce;
pub mod answer;
pub mod asker;
pub mod audio;
pub mod board;
pub mod bot;
pub mod call;
pub mod caller;
mod caller_ids;
pub mod capacity;
pub mod check;
pub mod cli;
mod client;
mod connect;
pub mod console_command;
pub mod decode;
pub mod demo;
pub mod descriptors;
mod disk;
mod drain;
pub mod engine;
pub mod export;
pub mod finished;
pub mod flac;
mod headers;
pub mod home;
pub mod home_command;
pub mod http;
pub mod instance;
mod lines;
pub mod list;
mod listener;
mod lock;
pub mod log;
mod manager;
mod metrics;
pub mod origin;
pub mod outbox;
pub mod pace;
pub mod ports;
pub mod public_url;
mod pulse;
mod ready;
pub mod record;
pub mod recording;
pub mod relay;
pub mod repair;
pub mod rights;
pub mod secrets;
mod shown;
pub mod stop;
pub mod store;
pub mod stream_paths;
mod stream_tokens;
pub mod tail;
mod tasks;
pub mod tls;
pub mod trust;
pub mod twilio;
mod units;
mod uploads;
pub mod webhook;

use std::io;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::acme::Keeper;
use crate::announce::Opened;
use crate::board::Board;
use crate::drain::Running;
use crate::engine::Engine;
use crate::finished::Finished;
use crate::home::Home;
use crate::home::index::Library;
use crate::instance::Instance;
pub use crate::listener::{HandOver, Listener};
use crate::outbox::Outbox;
use crate::pace::Pace;
use crate::public_url::PublicUrl;
use crate::ready::{Phase, Readiness};
pub use crate::stop::Stop;
use crate::store::Store;
use crate::tasks::Task;
use crate::uploads::Uploads;

/// The longest time from the end of another instance that kept house to the delivery of its webhook
/// messages by this one, beside that until the store has noticed.
const DELIVERY_LOOK: Duration = Duration::from_millis(500);

/// All settings of [`serve`]. Each module owns its part.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The ACME server that gives out the certificate, if any. The listeners' certificate is then that of
    /// [`acme::Config::files`].
    pub acme: Option<acme::Config>,
    /// The admin listener.
    pub admin: admin::Config,
    /// Time for which new calls are taken after the first order to end, while the recorder says that it is not
    /// ready: balancers need it to send calls elsewhere.
    pub drain_delay: Duration,
    /// Longest time for which running calls go on to their own end after [`Stop::stop`] and that delay.
    pub drain: Duration,
    /// The public listener.
    pub http: http::Config,
    /// The media threads.
    pub engine: engine::Config,
    /// The recordings.
    pub store: store::Config,
    /// The home of finished recordings, if any.
    pub home: Option<home::Config>,
    /// The name of this recorder in records and in the home; absent: records have none.
    pub instance: Option<Instance>,
    /// The receivers of finished recordings' records, if any.
    pub webhook: Option<webhook::Config>,
}

/// The listening sockets of a recorder.
#[derive(Debug)]
pub struct Listeners {
    /// The listener for providers.
    pub public: Listener,
    /// The listener for operators, if wanted.
    pub admin: Option<Listener>,
}

impl From<TcpListener> for Listeners {
    fn from(public: TcpListener) -> Self {
        Self { public: public.into(), admin: None }
    }
}

/// Reasons why the recorder does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directory of the recordings cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The home cannot be used as it is set up, or takes no recordings.
    #[error(transparent)]
    Home(#[from] home::Error),
    /// The folder of ACME cannot be used.
    #[error(transparent)]
    Acme(#[from] acme::FolderError),
    /// The system gives no thread or no socket.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// A recorder at work, until its end: see [`serve`].
pub type Serving = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// Records calls until `stop` orders an end, then drains, finishes every call and returns.
///
/// The caller brings the listeners, so a test can bind port 0. From the first order and
/// [`Config::drain_delay`] on, new calls are refused with 503, or left to the other recorder that has the same socket (see [`HandOver`]).
///
/// Nothing happens before the first poll.
///
/// # Errors
/// The directory or the system does not allow recording. Nothing has been recorded then.
pub fn serve(listeners: impl Into<Listeners>, config: Config, stop: Stop) -> Serving {
    serving(listeners.into(), config, stop)
}

/// Hides the type of the future: its code is built with this crate, and not once more with each program that
/// polls it.
#[inline(never)]
fn serving(listeners: Listeners, config: Config, stop: Stop) -> Serving {
    Box::pin(run(listeners, config, stop))
}

async fn run(listeners: Listeners, mut config: Config, stop: Stop) -> Result<(), Error> {
    let Listeners { public, admin } = listeners;
    let public_address = public.local_addr()?;
    let outbox = config.webhook.is_some().then(|| Outbox::new(&config.store.dir));
    // Requests of its own: those of the uploads are made by a thread that gives way to others.
    let library = match &config.home {
        Some(home) if admin.is_some() => Some(Library::new(Home::open(home)?)),
        _ => None,
    };
    let home = match config.home {
        Some(home) => Some(Uploads::open(home, &config.store.dir, outbox.clone()).await?),
        None => None,
    };
    config.engine.pace = Arc::new(Pace::new(config.http.calls_per_second_max));
    let board = Arc::<Board>::default();
    let mut finished =
        Finished::new(outbox.clone(), Arc::clone(&board)).of_instance(config.instance);
    if let Some(home) = &home {
        finished = finished.with_home(home.home().clone(), home.outbox().clone());
        finished = finished.in_form(home.form());
    }
    let store = Arc::new(Store::open(config.store, finished)?);
    let keeper = config.acme.map(Keeper::open).transpose()?;
    let engine = Engine::start(&config.engine, &store, &board)?;
    let handle = engine.handle();
    // Recordings interrupted earlier are finished meanwhile, in the background.
    let admin_address = admin.as_ref().and_then(|admin| admin.local_addr().ok());
    let admin_speaks_tls = config.admin.certificate.is_some();
    let dir = store.dir();
    Opened { public: public_address, admin: admin_address, dir, admin_speaks_tls }
        .tell(&config.http);
    let (phase, phases) = watch::channel(Phase::Open);
    let upgrading = Arc::<AtomicUsize>::default();
    let running = Running {
        engine: handle.clone(),
        upgrading: Arc::clone(&upgrading),
        crowd: public.crowd_at_drain(),
    };
    let certificate = config.http.certificate.clone();
    let readiness =
        Readiness::new(Arc::clone(&store), handle.clone(), phases.clone(), certificate.clone());
    let sources = admin::Sources {
        board: Arc::clone(&board),
        store: Some(Arc::clone(&store)),
        library,
        readiness: Some(readiness.clone()),
        outbox: outbox.clone(),
        public_address: Some(public_address),
        certificate: certificate.clone(),
        webhook_url: config.http.twilio.public_url.as_ref().map(PublicUrl::webhook_url),
        stop: stop.clone(),
    };
    let uploading = home.map(|home| home.start(Arc::clone(&store))).transpose()?;
    let admin = async {
        if let Some(listener) = admin {
            admin::serve(listener, config.admin, sources, phases.clone()).await;
        }
    };
    let helpers = [
        keeper.zip(certificate.clone()).map(|(keeper, certificate)| {
            tasks::spawn(keeper.run(certificate, public_address)).abort_handle()
        }),
        certificate.map(|certificate| tasks::spawn(certificate.watch()).abort_handle()),
        config.webhook.zip(outbox).map(|(config, outbox)| {
            tasks::spawn(deliver(config, outbox, Arc::clone(&store))).abort_handle()
        }),
        Some(tasks::spawn(manager::feed_watchdog(handle.clone())).abort_handle()),
    ];
    let entrance = http::Entrance { engine: handle, board, readiness, upgrading };
    // Accepted by the threads that serve the requests: no call is handed from thread to thread before its
    // handshake is over.
    let mut listening = JoinSet::new();
    let served: Task<()> = Box::pin(http::serve(public, config.http, entrance, phases.clone()));
    listening.spawn(served);
    let http = async {
        if let Some(Err(error)) = listening.join_next().await
            && let Ok(panic) = error.try_into_panic()
        {
            resume_unwind(panic);
        }
    };
    let end = async {
        stop.exceeds(stop::Order::GoOn).await;
        manager::tell_stopping();
        if !config.drain_delay.is_zero() {
            phase.send_replace(Phase::Leaving);
            drain::delay(&stop, config.drain_delay).await;
        }
        phase.send_replace(Phase::Draining);
        store.drain();
        drain::wait(&stop, config.drain, &running).await;
        phase.send_replace(Phase::Finishing);
        finish(engine).await;
        if let Some(uploading) = &uploading {
            uploading.finish().await;
        }
        phase.send_replace(Phase::Closed);
    };
    manager::tell_ready();
    tokio::join!(http, admin, end);
    // The next start, or another instance, delivers the messages that are left.
    helpers.iter().flatten().for_each(tokio::task::AbortHandle::abort);
    drop(uploading);
    Ok(())
}

/// Delivers webhook messages while this instance keeps house in the directory, until the future is
/// dropped. Else another instance delivers them, those of this one as well.
async fn deliver(config: webhook::Config, outbox: Outbox, store: Arc<Store>) {
    loop {
        let Some(work) = store.begin_house_work() else {
            tokio::time::sleep(DELIVERY_LOOK).await;
            continue;
        };
        let end = async {
            while store.keeps_house() {
                tokio::time::sleep(DELIVERY_LOOK).await;
            }
        };
        webhook::deliver(config.clone(), outbox.clone(), end).await;
        drop(work);
        if store.keeps_house() {
            return; // It cannot go on, and has said so.
        }
    }
}

/// Finishes every call, and waits for that on a thread of its own.
async fn finish(engine: Engine) {
    tracing::info!("finishing every call, then stopping");
    manager::tell_finishing();
    let (finished, is_finished) = oneshot::channel();
    let finish = move || {
        engine.drain();
        let _ = finished.send(());
    };
    match thread::Builder::new().name("drain".to_owned()).spawn(finish) {
        // A panic on that thread has been reported already.
        Ok(_) => drop(is_finished.await),
        Err(error) => tracing::error!(%error, "cannot finish calls: the next start does it"),
    }
}
