//! callreel: records the phone calls that a provider streams over WebSocket.

pub mod admin;
pub mod audio;
pub mod board;
pub mod call;
pub mod caller;
mod caller_ids;
pub mod cli;
pub mod decode;
pub mod demo;
pub mod descriptors;
mod disk;
pub mod engine;
pub mod finished;
pub mod http;
mod listener;
mod lock;
pub mod log;
mod metrics;
pub mod origin;
pub mod outbox;
pub mod pace;
pub mod public_url;
mod pulse;
mod ready;
pub mod record;
pub mod recording;
pub mod repair;
mod shown;
pub mod store;
mod stream_tokens;
pub mod twilio;
mod units;
pub mod webhook;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread;

use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use crate::board::Board;
use crate::engine::Engine;
use crate::finished::Finished;
use crate::outbox::Outbox;
use crate::pace::Pace;
use crate::public_url::PublicUrl;
use crate::ready::{Phase, Readiness};
use crate::store::Store;

/// All settings of [`serve`]. Each module owns its part.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The admin listener.
    pub admin: admin::Config,
    /// The public listener.
    pub http: http::Config,
    /// The media threads.
    pub engine: engine::Config,
    /// The recordings.
    pub store: store::Config,
    /// The receiver of finished recordings' records, if any.
    pub webhook: Option<webhook::Config>,
}

/// The listening sockets of a recorder.
#[derive(Debug)]
pub struct Listeners {
    /// The listener for providers.
    pub public: TcpListener,
    /// The listener for operators, if wanted.
    pub admin: Option<TcpListener>,
}

impl From<TcpListener> for Listeners {
    fn from(public: TcpListener) -> Self {
        Self { public, admin: None }
    }
}

/// Reasons why the recorder does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directory of the recordings cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The system gives no thread or no socket.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Records calls until `shutdown` resolves, then finishes every call and returns.
///
/// The caller brings the listeners, so a test can bind port 0. While calls are being finished, new calls
/// are refused with 503.
///
/// # Errors
/// The directory or the system does not allow recording. Nothing has been recorded then.
pub async fn serve(
    listeners: impl Into<Listeners>,
    mut config: Config,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let listeners = listeners.into();
    let outbox = config.webhook.is_some().then(|| Outbox::new(&config.store.dir));
    config.engine.pace = Arc::new(Pace::new(config.http.calls_per_second_max));
    let board = Arc::<Board>::default();
    let finished = Finished::new(outbox.clone(), Arc::clone(&board));
    let store = Arc::new(Store::open(config.store, finished)?);
    let dir = std::path::absolute(store.dir()).unwrap_or_else(|_| store.dir().to_owned());
    let engine = Engine::start(&config.engine, &store, &board)?;
    // Recordings interrupted earlier are finished meanwhile, in the background.
    if let Ok(address) = listeners.public.local_addr() {
        let version = env!("CARGO_PKG_VERSION");
        tracing::info!(%address, dir = %dir.display(), version, "listening");
    }
    let (phase, phases) = watch::channel(Phase::Open);
    let counted = Arc::clone(&board);
    let readiness = Readiness::new(Arc::clone(&store), engine.handle(), phases.clone());
    let sources = admin::Sources {
        board,
        store,
        readiness: readiness.clone(),
        outbox: outbox.clone(),
        public_address: listeners.public.local_addr()?,
        webhook_url: config.http.twilio.public_url.as_ref().map(PublicUrl::webhook_url),
    };
    let admin = async {
        if let Some(listener) = listeners.admin {
            admin::serve(listener, config.admin, sources, phases.clone()).await;
        }
    };
    let delivery = config.webhook.zip(outbox);
    let delivery = delivery
        .map(|(config, outbox)| tokio::spawn(webhook::deliver(config, outbox)).abort_handle());
    let http = http::serve(
        listeners.public,
        config.http,
        engine.handle(),
        counted,
        readiness,
        phases.clone(),
    );
    let stop = async {
        shutdown.await;
        let _ = sd_notify::notify(false, &[NotifyState::Stopping]);
        phase.send_replace(Phase::Draining);
        // It waits for calls to be finished, on a thread of its own.
        let (drained, is_drained) = oneshot::channel();
        let drain = move || {
            engine.drain();
            let _ = drained.send(());
        };
        match thread::Builder::new().name("drain".to_owned()).spawn(drain) {
            // A panic on that thread has been reported already.
            Ok(_) => drop(is_drained.await),
            Err(error) => tracing::error!(%error, "cannot finish calls: the next start does it"),
        }
        phase.send_replace(Phase::Closed);
    };
    // Has no effect unless a service manager asked to be notified.
    let _ = sd_notify::notify(false, &[NotifyState::Ready]);
    tokio::join!(http, admin, stop);
    // The next start delivers the messages that are left.
    delivery.iter().for_each(tokio::task::AbortHandle::abort);
    Ok(())
}
