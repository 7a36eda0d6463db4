//! The recorder that an informed user would write in an afternoon: axum, serde_json, base64, hound,
//! one file a call. It is correct for calls that go well, and callreel's cost is compared with its
//! cost. It does not handle gaps, both tracks, crashes or full disks.
//!
//! Run it with its default read buffer, and with `--read-buffer 8192`: the WebSocket crate clears
//! its read buffer (128 KiB by default) before every read. With `--tls-cert` and `--tls-key` it speaks
//! TLS by rustls.

use std::io::{self, BufWriter};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use axum::routing::any;
use axum::serve::Listener;
use callreel_bench::peers::{self, Event, MULAW};
use clap::Parser;
use hound::{SampleFormat, WavSpec, WavWriter};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

const SPEC: WavSpec = WavSpec {
    channels: 1,
    sample_rate: 8000,
    bits_per_sample: 16,
    sample_format: SampleFormat::Int,
};

/// Records each call that is streamed to ws://LISTEN/media-stream into DIR/STREAM-SID.wav.
#[derive(Parser)]
struct Args {
    /// Address and port to listen on
    #[arg(long, default_value = "127.0.0.1:5051")]
    listen: SocketAddr,

    /// Folder for the recordings
    #[arg(long)]
    dir: PathBuf,

    /// Bytes of the WebSocket's read buffer [default: the crate's]
    #[arg(long)]
    read_buffer: Option<usize>,

    /// Certificate, in PEM: speaks TLS
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// Key of the certificate, in PEM
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Arc::new(Args::parse());
    let listener = TcpListener::bind(args.listen).await.context("cannot listen")?;
    println!("listening on {}", listener.local_addr()?);
    let files = args.tls_cert.clone().zip(args.tls_key.clone());
    let app = Router::new().route("/media-stream", any(upgrade)).with_state(args);
    match files {
        Some((cert, key)) => {
            axum::serve(Secured::start(listener, acceptor(&cert, &key)?)?, app).await?
        }
        None => axum::serve(listener, app).await?,
    }
    Ok(())
}

fn acceptor(cert: &Path, key: &Path) -> anyhow::Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<_, _>>()?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A listener that speaks TLS. Each handshake is a task of its own.
struct Secured {
    address: SocketAddr,
    shaken: mpsc::UnboundedReceiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl Secured {
    fn start(listener: TcpListener, acceptor: TlsAcceptor) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, shaken) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((socket, peer)) = listener.accept().await {
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                tokio::spawn(async move {
                    match acceptor.accept(socket).await {
                        Ok(stream) => drop(sender.send((stream, peer))),
                        Err(error) => eprintln!("a handshake failed: {error}"),
                    }
                });
            }
        });
        Ok(Self { address, shaken })
    }
}

impl Listener for Secured {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.shaken.recv().await {
            Some(accepted) => accepted,
            // The socket is broken: there are no more connections.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}

async fn upgrade(State(args): State<Arc<Args>>, upgrade: WebSocketUpgrade) -> Response {
    let upgrade = match args.read_buffer {
        Some(bytes) => upgrade.read_buffer_size(bytes),
        None => upgrade,
    };
    upgrade.on_upgrade(async move |mut socket| {
        if let Err(error) = record(&mut socket, &args.dir).await {
            eprintln!("a recording ended early: {error:#}");
        }
    })
}

async fn record(socket: &mut WebSocket, dir: &Path) -> anyhow::Result<()> {
    let mut wav: Option<WavWriter<BufWriter<std::fs::File>>> = None;
    while let Some(message) = socket.recv().await {
        let Message::Text(text) = message? else {
            continue;
        };
        match serde_json::from_str(&text)? {
            Event::Start { start } => {
                let is_name = |byte: &u8| byte.is_ascii_alphanumeric();
                anyhow::ensure!(start.stream_sid.as_bytes().iter().all(is_name), "bad stream id");
                let path = dir.join(start.stream_sid).with_extension("wav");
                wav = Some(WavWriter::create(path, SPEC)?);
            }
            Event::Media { media } => {
                let wav = wav.as_mut().context("media before the start")?;
                let codes = peers::decode_base64(&media.payload)?;
                let mut samples = wav.get_i16_writer(codes.len() as u32);
                codes.iter().for_each(|code| samples.write_sample(MULAW[usize::from(*code)]));
                samples.flush()?;
            }
            Event::Stop => {
                wav.take().context("a stop before the start")?.finalize()?;
                let normal = CloseFrame { code: close_code::NORMAL, reason: "".into() };
                socket.send(Message::Close(Some(normal))).await?;
            }
            Event::Other => {}
        }
    }
    Ok(())
}
