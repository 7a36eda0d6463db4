//! callreel: records the phone calls that a provider streams over WebSocket.

pub mod cli;
pub mod engine;
pub mod http;
pub mod store;
pub mod twilio;

use std::future::Future;

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::engine::Engine;
use crate::http::Phase;

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

/// Records calls until `shutdown` resolves, then finishes every call and returns.
///
/// The listener is the caller's, so a test binds port 0. While calls are being finished, new ones are refused with 503.
pub async fn serve(listener: TcpListener, config: Config, shutdown: impl Future<Output = ()>) {
    let engine = Engine::default();
    let (phase, phases) = watch::channel(Phase::Open);
    let http = http::serve(listener, config.http, engine, phases);
    let stop = async {
        shutdown.await;
        phase.send_replace(Phase::Draining);
        phase.send_replace(Phase::Closed);
    };
    tokio::join!(http, stop);
}
