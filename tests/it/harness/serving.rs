//! The server in this process, on free ports of the loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use callreel::{Config, Listeners, Stop, tls};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::line::{House, Line, Target, is_run_over_tls};

/// A whole server; when dropped, it is stopped and must stop without an error.
pub(crate) struct Serving {
    pub public: SocketAddr,
    /// Whether the public listener speaks TLS with the certificate of the run.
    is_tls: bool,
    pub admin: SocketAddr,
    /// Runtime of the server, free for other tasks as well.
    pub runtime: Arc<Runtime>,
    running: Option<Running>,
}

/// Thread of the server, and the way to stop it.
struct Running {
    stop: Stop,
    thread: JoinHandle<Result<(), callreel::Error>>,
}

impl Serving {
    pub(crate) fn start(mut config: Config) -> Self {
        if is_run_over_tls() {
            let house = House::get();
            let files = tls::Config {
                cert: house.cert(),
                key: house.key(),
                client_ca: None,
                challenges: None,
            };
            config.http.certificate = Some(tls::Certificate::open(files).unwrap());
        }
        Self::start_plain(config)
    }

    /// A server that speaks no TLS in any run: for callers that know no certificate.
    pub(crate) fn start_plain(config: Config) -> Self {
        let is_tls = config.http.certificate.is_some();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = Arc::new(runtime.worker_threads(2).enable_all().build().unwrap());
        let bind = || runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let (public, console) = (bind(), bind());
        let addresses = (public.local_addr().unwrap(), console.local_addr().unwrap());
        let listeners = Listeners { public: public.into(), admin: Some(console.into()) };
        let stop = Stop::default();
        let (serving, stopped) = (Arc::clone(&runtime), stop.clone());
        let thread = std::thread::spawn(move || {
            serving.block_on(callreel::serve(listeners, config, stopped))
        });
        let (public, admin) = addresses;
        Self { public, is_tls, admin, runtime, running: Some(Running { stop, thread }) }
    }

    /// The public listener.
    pub(crate) fn target(&self) -> Target {
        Target { address: self.public, is_tls: self.is_tls }
    }

    /// A connection on which a request may be sent.
    pub(crate) fn connect(&self) -> Line {
        self.target().connect().expect("the server listens")
    }

    /// Stops the server and waits for its end.
    pub(crate) fn stop(&mut self) {
        if let Some(Running { stop, thread }) = self.running.take() {
            stop.finish();
            let stopped = thread.join();
            assert!(matches!(stopped, Ok(Ok(()))) || std::thread::panicking(), "{stopped:?}");
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop();
    }
}
