//! `callreel demo`: the whole recorder on one machine, without an account at a provider.
//!
//! A server on loopback, calls placed at it by the [`caller`], and every recording compared with the
//! audio sent, sample by sample.

mod certificate;
mod conversation;

use std::fs;
use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::time::Duration;

use callreel_core::g711::decode_mulaw;
use callreel_core::wav::{self, Length, Spec};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use self::certificate::CertificateFiles;
use crate::caller::{self, CallReport, DialledTracks, Plan, Track, place};
use crate::disk::open_to_read;
use crate::log::{Printer, Stream};
use crate::public_url::STREAM_PATH;
use crate::stop::{Order, Stop};
use crate::tls;
use crate::trust::{Authorities, NoAuthority};
use crate::{Config, Listeners, http, shown, store};

/// Address of the console of `callreel serve` without options.
const DEFAULT_ADMIN: &str = "127.0.0.1:5051";

/// URL of the streams of `callreel serve` with a certificate and without other options.
const DEFAULT_SECURE_URL: &str = "wss://127.0.0.1:5050/media-stream";

/// Settings of `callreel demo`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Directory of the recordings of the demo; created if missing
    #[arg(long, value_name = "DIR", default_value = "callreel-demo")]
    pub dir: PathBuf,

    /// Calls to place at one time, 1 to 100; every second call has both tracks
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub calls: u32,

    /// Length of each call in seconds, 1 to 600
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,

    /// Make a certificate and record over wss, as providers do; its files stay in DIR/tls
    #[arg(long)]
    pub tls: bool,

    /// Record a conversation with a small bot instead; callreel stands between caller and bot, and records
    /// both sides as the caller heard them
    #[arg(long, conflicts_with_all = ["calls", "seconds"])]
    pub bot: bool,

    /// End when the recordings are checked; otherwise serve on until Ctrl-C
    #[arg(long)]
    pub once: bool,
}

/// Reasons why the demo fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The calls could not be placed.
    #[error(transparent)]
    Caller(#[from] caller::Error),
    /// The certificate that was just made is not trusted.
    #[error(transparent)]
    Authority(#[from] NoAuthority),
    /// The certificate that was just made cannot be used.
    #[error(transparent)]
    Certificate(#[from] tls::Error),
    /// No port is free, or no room for the certificate or for the copies of the audio sent.
    #[error("the demo cannot run here: {0}")]
    Machine(#[from] io::Error),
    /// Nothing can be recorded.
    #[error(transparent)]
    Recorder(#[from] crate::Error),
    /// A recording differs from the audio sent. That is a bug: please report it.
    #[error("{0} of the recordings differ from the audio sent; this is a bug, please report it")]
    Wrong(usize),
}

/// Records a few calls, prints where the recordings are and whether they are right, and goes on serving
/// until `stop` resolves, unless `args.once` is set. Nothing happens before the first poll.
///
/// # Errors
/// See [`Error`].
#[inline(never)]
pub fn run(
    args: &Args,
    stop: Stop,
) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + '_>> {
    // With its type hidden, the code of the future is built with this crate alone.
    Box::pin(show(args, stop))
}

async fn show(args: &Args, stop: Stop) -> Result<(), Error> {
    // The demo has its own settings and port: a server may run beside it. It looks for no token.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let files = args.tls.then(|| CertificateFiles::make(&args.dir)).transpose()?;
    let scheme = if args.tls { "wss" } else { "ws" };
    let url = format!("{scheme}://{}{STREAM_PATH}", listener.local_addr()?);
    let admin = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let console = format!("http://{}/", admin.local_addr()?);
    let store = store::Config { dir: args.dir.clone(), ..store::Config::default() };
    let certificate = files.as_ref().map(CertificateFiles::open).transpose()?;
    let mut config = Config { store, ..Config::default() };
    config.http = http::Config { certificate, ..http::Config::default() };
    let mut bot = None;
    if args.bot {
        let (task, relay) = conversation::start_bot().await?;
        (bot, config.http.relay) = (Some(task), Some(relay));
        config.engine.relay_threads = config.engine.threads;
    }
    // A reader that stops taking the output must not delay the recording.
    let out = Printer::start(Stream::Stdout)?;
    let end = Stop::default();
    let listeners = Listeners { public: listener.into(), admin: Some(admin.into()) };
    let mut server = pin!(crate::serve(listeners, config, end.clone()));
    let shown = async {
        let mut stop = pin!(stop.exceeds(Order::GoOn));
        let wrong = tokio::select! {
            biased;
            // The calls are cut off, and the audio recorded until then is kept.
            () = &mut stop => Ok(0),
            recorded = record(args, &url, files.as_ref(), &out) => match recorded {
                Ok(Recorded { wrong: 0, first }) => {
                    let commands = Commands::of(&args.dir, files.as_ref())?;
                    if args.once {
                        out.print(commands.later().into());
                    } else {
                        out.print(commands.now(&url, &console, &first).into());
                        stop.await;
                    }
                    Ok(0)
                }
                recorded => recorded.map(|recorded| recorded.wrong),
            }
        };
        end.finish();
        wrong
    };
    // The server comes first: the error that keeps it from starting is reported before a call is placed.
    let wrong = tokio::select! {
        biased;
        served = &mut server => return Ok(served?),
        wrong = shown => wrong,
    };
    server.await?;
    bot.iter().for_each(JoinHandle::abort);
    out.flush();
    match wrong? {
        0 => Ok(()),
        wrong => Err(Error::Wrong(wrong)),
    }
}

/// The commands that go on from here, as a shell takes them in any directory.
struct Commands {
    program: String,
    dir: String,
    /// The words for the certificate and for its key, if there is one.
    tls: Option<[String; 2]>,
}

impl Commands {
    /// Commands for the recordings in `dir`.
    ///
    /// # Errors
    /// The current directory or the program has gone.
    fn of(dir: &Path, files: Option<&CertificateFiles>) -> io::Result<Self> {
        let called = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
        // A name alone was found by the shell, unless the caller made it up.
        let is_found = called.components().count() == 1
            && std::env::var_os("PATH").is_some_and(|path| {
                std::env::split_paths(&path).any(|dir| dir.join(&called).is_file())
            });
        let program = if is_found { called } else { std::env::current_exe()? };
        let word = |path: &Path| io::Result::Ok(shell_word(&std::path::absolute(path)?));
        let tls = files.map(|files| io::Result::Ok([word(&files.cert)?, word(&files.key)?]));
        Ok(Self { program: shell_word(&program), dir: word(dir)?, tls: tls.transpose()? })
    }

    /// The words while the demo goes on; `first` is the path of a recording.
    fn now(&self, url: &str, console: &str, first: &Path) -> String {
        let program = &self.program;
        let day = first.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        let id = first.file_stem().unwrap_or_default().to_string_lossy();
        let (later, trust) = (self.later(), self.trust());
        format!(
            "\nSee and hear the first one: {console}#recordings/{day}/{id}\n\
             Still recording. Place another call in another terminal:\n  {program} call --url {url}{trust}\n\
             Ctrl-C ends the demo. The recordings stay.\n{later}"
        )
    }

    /// The words for the time after the demo.
    fn later(&self) -> String {
        let Self { program, dir, tls } = self;
        let (serve, call) = match tls {
            Some([cert, key]) => (
                format!(" --tls-cert {cert} --tls-key {key}"),
                format!(" --url {DEFAULT_SECURE_URL}{}", self.trust()),
            ),
            None => (String::new(), String::new()),
        };
        format!(
            "\nLater, to see them again and to record more:\n  {program} serve --dir {dir}{serve}\n\
             then open http://{DEFAULT_ADMIN}/#recordings, and place a call in another terminal:\n  \
             {program} call{call}\n"
        )
    }

    /// The option with which a caller trusts the certificate, behind a blank.
    fn trust(&self) -> String {
        self.tls.as_ref().map(|[cert, _]| format!(" --ca {cert}")).unwrap_or_default()
    }
}

/// Returns a path as one word of a shell.
fn shell_word(path: &Path) -> String {
    let path = path.to_string_lossy();
    let path = shown::line(&path);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,".contains(c);
    if !path.is_empty() && path.chars().all(is_plain) {
        return path.into_owned();
    }
    format!("'{}'", path.replace('\'', r"'\''"))
}

/// The recordings of the demo.
struct Recorded {
    /// Number of those that differ from the audio sent.
    wrong: usize,
    /// Path of the first one that does not; empty if there is none.
    first: PathBuf,
}

/// Places the calls and checks the recordings.
async fn record(
    args: &Args,
    url: &str,
    files: Option<&CertificateFiles>,
    out: &Printer,
) -> Result<Recorded, Error> {
    let ca = files.map(|files| Authorities::read(&files.cert)).transpose()?.unwrap_or_default();
    if args.bot {
        return conversation::record(&args.dir, url, ca, out).await;
    }
    let sent = tempfile::tempdir()?;
    let plan = |calls, tracks, seed| Plan {
        calls,
        tracks: Some(tracks),
        duration: Some(Duration::from_secs(args.seconds)),
        save_sent: Some(sent.path().to_owned()),
        ca: ca.clone(),
        seed,
        ..Plan::new(url)
    };
    let calls = if args.calls == 1 { "1 call".to_owned() } else { format!("{} calls", args.calls) };
    let say = |text: String| out.print((text + "\n").into());
    say(format!("callreel demo: placing {calls} of {} s at {url}", args.seconds));
    let mono = plan(args.calls.div_ceil(2), DialledTracks::Inbound, 1);
    let stereo = plan(args.calls / 2, DialledTracks::Both, 2);
    let (mono, stereo) = tokio::try_join!(place(&mono), place(&stereo))?;
    let mut recorded = Recorded { wrong: 0, first: PathBuf::new() };
    say("\n  tracks  length  recording".to_owned());
    for call in mono.calls.iter().chain(&stereo.calls) {
        match check(call, &args.dir, sent.path()) {
            Ok((path, tracks, seconds)) => {
                let name = path.display().to_string();
                let name = shown::line(&name);
                say(format!("  {tracks:>6}  {seconds:>4.1} s  {name} matches the audio sent"));
                if recorded.first.as_os_str().is_empty() {
                    recorded.first = path;
                }
            }
            Err(why) => {
                recorded.wrong += 1;
                say(format!("  WRONG: stream {}: {}", call.stream_sid, shown::line(&why)));
            }
        }
    }
    let rest = "\nThe .json beside each .wav is the record of the call. Listen with any player.";
    say(rest.to_owned());
    Ok(recorded)
}

/// Compares one recording with the audio sent. Returns its path, its number of tracks and its length in
/// seconds.
fn check(call: &CallReport, dir: &Path, sent: &Path) -> Result<(PathBuf, usize, f64), String> {
    if !call.good {
        return Err(call.end.to_string());
    }
    let name = format!("{}.wav", call.stream_sid);
    let path = find(dir, &name).ok_or("no recording of this call was found")?;
    let found = read(&path).map_err(|error| error.to_string())?;
    let tracks: Vec<Vec<u8>> = [Track::Inbound, Track::Outbound]
        .into_iter()
        .filter_map(|track| {
            let side = if track == Track::Outbound { ".outbound" } else { "" };
            read(&sent.join(format!("{}{side}.ulaw", call.stream_sid))).ok()
        })
        .collect();
    let samples = tracks.iter().map(Vec::len).max().unwrap_or(0);
    let expected: Vec<u8> = (0..samples)
        .flat_map(|index| tracks.iter().map(move |track| track.get(index).copied()))
        .flat_map(|code| code.map_or(0, decode_mulaw).to_le_bytes())
        .collect();
    let spec = Spec {
        channels: tracks.len() as u16,
        sample_rate_hz: callreel_core::g711::SAMPLE_RATE_HZ,
        encoding: wav::Encoding::Pcm16,
    };
    let header = wav::header(spec, Length::Bytes(expected.len() as u32));
    if found != [&header[..], &expected].concat() {
        return Err(format!("{} differs from the audio sent", path.display()));
    }
    Ok((path, tracks.len(), samples as f64 / f64::from(spec.sample_rate_hz)))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_to_read(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    let days = fs::read_dir(dir).ok()?;
    days.filter_map(Result::ok).map(|day| day.path().join(name)).find(|path| path.is_file())
}
