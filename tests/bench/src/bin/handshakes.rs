//! Handshakes of TLS one after the other, on many connections at a time, and a call that tells how late its
//! messages are read meanwhile. Prints one JSON object.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use callreel_bench::{START, masked, media};
use clap::{Parser, Subcommand};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::{ClientSessionMemoryCache, Resumption};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, HandshakeKind, RootCertStore};

/// Longest time of one handshake, or of one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time from one media message of the call to the next.
const CHUNK: Duration = Duration::from_millis(20);

/// Media messages from one ping to the next: 60 ms, so that the pings of a run come at different times of the
/// recorder's looks, which are 100 or 200 ms apart.
const CHUNKS_A_PING: u64 = 3;

#[derive(Parser)]
struct Args {
    /// Address and port of the server, whose certificate is for `localhost`
    #[arg(long, global = true, default_value = "127.0.0.1:5050")]
    address: SocketAddr,

    /// Certificate to trust, in PEM
    #[arg(long, global = true, default_value = "cert.pem")]
    ca: PathBuf,

    /// Length of the run, in seconds
    #[arg(long, global = true, default_value_t = 5)]
    seconds: u64,

    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand)]
enum Work {
    /// Opens connections, does the handshake, and closes them
    Load {
        /// Connections at one time
        #[arg(long, default_value_t = 16)]
        parallel: usize,

        /// Resume the session of an earlier connection
        #[arg(long)]
        resume: bool,
    },
    /// Places a call with pings behind its messages, which are answered when they are read
    Probe,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Arc::new(Args::parse());
    let report = match args.work {
        Work::Load { parallel, resume } => load(&args, parallel, resume).await?,
        Work::Probe => probe(&args).await?,
    };
    println!("{report}");
    Ok(())
}

/// The client of TLS; with `sessions`, it resumes as many.
fn connector(args: &Args, sessions: usize) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&args.ca)? {
        roots.add(certificate?)?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = match sessions {
        0 => Resumption::disabled(),
        sessions => Resumption::store(Arc::new(ClientSessionMemoryCache::new(sessions))),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn connect(args: &Args, tls: &TlsConnector) -> anyhow::Result<TlsStream<TcpStream>> {
    let shaken = async {
        let tcp = TcpStream::connect(args.address).await?;
        tcp.set_nodelay(true)?;
        tls.connect(ServerName::try_from("localhost")?, tcp).await.context("no TLS")
    };
    timeout(PATIENCE, shaken).await?
}

async fn load(
    args: &Arc<Args>,
    parallel: usize,
    resume: bool,
) -> anyhow::Result<serde_json::Value> {
    let began = Instant::now();
    let end = began + Duration::from_secs(args.seconds);
    let mut clients = JoinSet::new();
    for _ in 0..parallel {
        let (args, tls) = (Arc::clone(args), connector(args, if resume { 8 } else { 0 })?);
        clients.spawn(async move {
            let (mut full, mut resumed) = (0_u64, 0_u64);
            while Instant::now() < end {
                let mut stream = connect(&args, &tls).await?;
                match stream.get_ref().1.handshake_kind() {
                    Some(HandshakeKind::Resumed) => resumed += 1,
                    _ => full += 1,
                }
                if resume {
                    timeout(PATIENCE, take_ticket(&mut stream)).await??;
                }
                stream.shutdown().await?;
            }
            anyhow::Ok((full, resumed))
        });
    }
    let (mut full, mut resumed) = (0, 0);
    while let Some(counts) = clients.join_next().await {
        let counts = counts??;
        (full, resumed) = (full + counts.0, resumed + counts.1);
    }
    Ok(json!({ "full": full, "resumed": resumed, "seconds": began.elapsed().as_secs_f64() }))
}

/// Reads until the server has sent a ticket, behind its handshake.
async fn take_ticket(stream: &mut TlsStream<TcpStream>) -> anyhow::Result<()> {
    while stream.get_ref().1.tls13_tickets_received() == 0 {
        stream.get_ref().0.readable().await?;
        let (tcp, tls) = stream.get_mut();
        let mut arrived = [0; 4096];
        match tcp.try_read(&mut arrived) {
            Ok(0) => bail!("the server closed without a ticket"),
            Ok(count) => {
                let mut arrived = &arrived[..count];
                while !arrived.is_empty() {
                    tls.read_tls(&mut arrived)?;
                    tls.process_new_packets()?;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn probe(args: &Args) -> anyhow::Result<serde_json::Value> {
    let mut stream = connect(args, &connector(args, 0)?).await?;
    let request = "GET /media-stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await?);
    }
    ensure!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    stream.write_all(&masked(START)).await?;
    let chunks = args.seconds * 1000 / CHUNK.as_millis() as u64;
    let (mut pace, mut sent, mut delays_ms) = (interval(CHUNK), Vec::new(), Vec::new());
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut own_ms, mut heard) = (0_f64, Vec::new());
    let mut index = 0;
    while index < chunks || delays_ms.len() < sent.len() {
        let mut bytes = [0; 512];
        tokio::select! {
            due = pace.tick(), if index < chunks => {
                own_ms = own_ms.max(due.elapsed().as_secs_f64() * 1e3);
                let mut frames = masked(&media(index));
                if index % CHUNKS_A_PING == 0 {
                    frames.extend(ping(sent.len() as u32));
                    sent.push(Instant::now());
                }
                stream.write_all(&frames).await?;
                stream.flush().await?;
                index += 1;
            }
            read = timeout(PATIENCE, stream.read(&mut bytes)) => {
                let count = read??;
                ensure!(count > 0, "the server closed the call");
                heard.extend_from_slice(&bytes[..count]);
                while let Some(number) = take_pong(&mut heard)? {
                    let sent = sent.get(number as usize).context("a pong without its ping")?;
                    delays_ms.push(sent.elapsed().as_secs_f64() * 1e3);
                }
            }
        }
    }
    delays_ms.sort_by(f64::total_cmp);
    let at = |part: usize| delays_ms[(delays_ms.len() * part).div_ceil(100).max(1) - 1];
    Ok(json!({ "p50_ms": at(50), "p99_ms": at(99), "worst_ms": at(100), "own_ms": own_ms }))
}

/// A ping with a number, masked by zeros.
fn ping(number: u32) -> Vec<u8> {
    [&[0x89, 0x84, 0, 0, 0, 0], &number.to_be_bytes()[..]].concat()
}

/// Takes the next pong off the bytes that came, and returns its number.
fn take_pong(heard: &mut Vec<u8>) -> anyhow::Result<Option<u32>> {
    let Some(frame) = heard.first_chunk::<6>() else {
        return Ok(None);
    };
    let [kind, length, number @ ..] = *frame;
    ensure!((kind, length) == (0x8A, 4), "not a pong, but {kind:#x}");
    heard.drain(..6);
    Ok(Some(u32::from_be_bytes(number)))
}
