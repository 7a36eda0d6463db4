//! The commands `callreel webhook ...`: try a receiver, list dead letters, send them again.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use callreel_core::frame::Provider;
use clap::Subcommand;
use jiff::Timestamp;

use super::post::{Client, Failure};
use super::{Config, ConfigError, Url, headers};
use crate::log::say;
use crate::outbox::dead;
use crate::record::{End, Id, Record, State, Wav};
use crate::store::catalog::{Catalog, Filter, Order};
use crate::tasks;

/// Arguments of `callreel webhook`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The command to run.
    #[command(subcommand)]
    pub action: Action,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Send a signed message (webhook.test) to each receiver, and tell the answers
    Test(TestArgs),
    /// List the messages that were given up after three days, the oldest first
    List(DirArgs),
    /// Send messages that were given up again, by the recorder on the directory
    Redeliver(RedeliverArgs),
}

/// Arguments of `callreel webhook test`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Exit code: 0 if every receiver took the message; 1 if one did not; 2 if the command line is wrong.")]
pub struct TestArgs {
    /// Address to post to; repeat it, or separate addresses by spaces, for several receivers
    #[arg(
        long,
        env = "CALLREEL_WEBHOOK",
        value_name = "URL",
        required = true,
        value_delimiter = ' '
    )]
    pub url: Vec<Url>,

    /// Key that signs the message, as --webhook-secret of serve
    #[arg(long, env = "CALLREEL_WEBHOOK_SECRET", value_name = "SECRET", hide_env_values = true)]
    pub secret: Option<String>,

    /// File of such keys instead, one a line
    #[arg(long, env = "CALLREEL_WEBHOOK_SECRET_FILE", value_name = "FILE")]
    pub secret_file: Option<PathBuf>,

    /// File of certificates (PEM) of authorities to trust, as --webhook-ca of serve
    #[arg(long, env = "CALLREEL_WEBHOOK_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,

    /// Send the newest end record of this directory of recordings [default: an invented one]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// The directory whose messages are meant.
#[derive(clap::Args, Debug)]
pub struct DirArgs {
    /// Directory of the recordings
    #[arg(long, env = "CALLREEL_DIR", value_name = "DIR", default_value = "recordings")]
    pub dir: PathBuf,
}

/// Arguments of `callreel webhook redeliver`.
#[derive(clap::Args, Debug)]
pub struct RedeliverArgs {
    /// Id of a message, or the name of a dead letter (ID@RECEIVER) as `list` shows it; `all` for all
    #[arg(value_name = "ID|all")]
    pub which: String,

    /// The directory.
    #[command(flatten)]
    pub dir: DirArgs,
}

/// Reasons why a command was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings of the test are not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The system gives no runtime.
    #[error("cannot start: {0}")]
    System(io::Error),
    /// The directory of the recordings cannot be read, or its files cannot be moved.
    #[error("{}: {cause}", dir.display())]
    Dir {
        /// The directory.
        dir: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// There is no such dead letter.
    #[error("there is no dead letter `{0}`: `callreel webhook list` shows them")]
    NoLetter(String),
}

/// Runs a command. Returns whether all went well.
///
/// # Errors
/// The command could not be done.
pub fn run(args: &Args) -> Result<bool, Error> {
    match &args.action {
        Action::Test(args) => test(args),
        Action::List(args) => list(&args.dir).map(|()| true),
        Action::Redeliver(args) => redeliver(&args.dir.dir, &args.which).map(|()| true),
    }
}

fn test(args: &TestArgs) -> Result<bool, Error> {
    let (file, authorities) = (args.secret_file.as_deref(), args.ca.as_deref());
    let config = Config::new(args.url.clone(), args.secret.as_deref(), file, authorities)?;
    let data = match &args.dir {
        Some(dir) => newest_record(dir).map_err(|cause| Error::Dir { dir: dir.clone(), cause })?,
        None => serde_json::to_string(&sample()).expect("these are plain values"),
    };
    let now = Timestamp::now();
    let body = format!(r#"{{"type":"webhook.test","timestamp":"{now}","data":{data}}}"#);
    let id = format!("msg_test_{}", now.as_nanosecond());
    let headers = headers(&config.secrets.get(), id, &body);
    for (name, value) in &headers {
        tell(&format!("{name}: {value}"));
    }
    tell(&body);
    let client = Client::new(&config.authorities);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::System)?;
    let mut is_good = true;
    for url in &config.urls {
        let began = Instant::now();
        let reply = tasks::run_on(&runtime, client.post(&url.0, &headers, body.clone()));
        let (is_taken, answer) = match reply {
            Ok(reply) if reply.status.is_success() => {
                (true, format!("{}, it took the message", reply.status))
            }
            Ok(reply) => (false, format!("{}, so it did not take the message", reply.status)),
            Err(Failure::Unreachable(error) | Failure::Unanswered(error)) => (false, error),
        };
        is_good &= is_taken;
        tell(&format!("{}: {answer} ({} ms)", url.shown(), began.elapsed().as_millis()));
    }
    Ok(is_good)
}

/// The end record of the newest recording in a directory, in JSON.
fn newest_record(dir: &Path) -> io::Result<String> {
    let page = Catalog::new(dir.to_owned()).list(
        &Filter::default(),
        Order::Newest,
        None,
        1,
        Record::clone,
    )?;
    let newest = page.records.first();
    let newest = newest.ok_or_else(|| io::Error::other("there is no end record in it"))?;
    serde_json::to_string(newest).map_err(io::Error::from)
}

/// The record of a call that never was.
fn sample() -> Record {
    let name = |prefix: &str| format!("{prefix}{}", "0".repeat(32));
    let id = Id::of_stream(&name("MZ"));
    let file = format!("{id}.wav");
    let wav = Wav { file, bytes: 16_044, sha256: None, data_sha256: None, flac: None };
    let mut record = Record::unknown(Provider::Twilio, Timestamp::now());
    (record.state, record.end) = (State::Complete, End::Stop.into());
    (record.stream_id, record.call_id, record.account_id) = (name("MZ"), name("CA"), name("AC"));
    (record.samples, record.duration_ms, record.elapsed_ms) = (8000, 1000, 1000);
    (record.id, record.wav) = (Some(id), Some(wav));
    record
}

fn list(dir: &Path) -> Result<(), Error> {
    let letters = dead::list(dir).map_err(|cause| Error::Dir { dir: dir.to_owned(), cause })?;
    if letters.is_empty() {
        tell("no message was given up");
    }
    for letter in letters {
        if say(&format!("{} {}", letter.written_at, letter.name)).is_err() {
            break;
        }
    }
    Ok(())
}

fn redeliver(dir: &Path, which: &str) -> Result<(), Error> {
    let wanted = Some(which).filter(|which| *which != "all");
    let sent = dead::redeliver(dir, wanted);
    match sent.map_err(|cause| Error::Dir { dir: dir.to_owned(), cause })? {
        0 if wanted.is_some() => Err(Error::NoLetter(which.to_owned())),
        count => {
            tell(&format!("{count} to be sent again"));
            Ok(())
        }
    }
}

/// Prints a line. A reader that is gone changes nothing: the exit code tells the result.
fn tell(text: &str) {
    let _ = say(text);
}
