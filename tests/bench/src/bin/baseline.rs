//! The recorder that an informed user would write in an afternoon: axum, serde_json, base64, hound,
//! one file a call. It is correct for calls that go well, and callreel's cost is compared with its
//! cost. It does not handle gaps, both tracks, crashes or full disks.
//!
//! Run it with its default read buffer, and with `--read-buffer 8192`: the WebSocket crate clears
//! its read buffer (128 KiB by default) before every read.

use std::io::BufWriter;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use axum::routing::any;
use callreel_bench::peers::{self, Event, MULAW};
use clap::Parser;
use hound::{SampleFormat, WavSpec, WavWriter};

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
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Arc::new(Args::parse());
    let listener = tokio::net::TcpListener::bind(args.listen).await.context("cannot listen")?;
    println!("listening on {}", listener.local_addr()?);
    let app = Router::new().route("/media-stream", any(upgrade)).with_state(args);
    Ok(axum::serve(listener, app).await?)
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
