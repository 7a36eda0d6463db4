//! callreel: records the phone calls that a provider streams over WebSocket.

pub mod audio;
pub mod call;
pub mod caller;
pub mod cli;
pub mod engine;
pub mod http;
pub mod recording;
pub mod repair;
pub mod store;
pub mod twilio;

use std::future::Future;
use std::io;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::engine::Engine;
use crate::http::Phase;
use crate::store::Store;

/// Everything that `serve` can be told. Each room owns its part.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The public listener.
    pub http: http::Config,
    /// The media threads.
    pub engine: engine::Config,
    /// The recordings.
    pub store: store::Config,
}

/// Why nothing is recorded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directory cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The system gives no threads, or no socket.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Records calls until `shutdown` resolves, then finishes every call and returns.
///
/// The listener is the caller's, so a test binds port 0. While calls are being finished, new ones
/// are refused with 503.
///
/// # Errors
/// Before anything is recorded: the directory, or the system, does not let us.
pub async fn serve(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let store = Arc::new(Store::open(config.store)?);
    let engine = Engine::start(&config.engine, &store)?;
    // Whoever waits for this line finds what was interrupted before finished.
    tracing::info!(address = %listener.local_addr()?, "listening");
    let (phase, phases) = watch::channel(Phase::Open);
    let http = http::serve(listener, config.http, engine.handle(), phases);
    let stop = async {
        shutdown.await;
        phase.send_replace(Phase::Draining);
        // It waits for calls to be finished; a panic in there has been reported already.
        let _ = tokio::task::spawn_blocking(|| engine.drain()).await;
        phase.send_replace(Phase::Closed);
    };
    tokio::join!(http, stop);
    Ok(())
}
