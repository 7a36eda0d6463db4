//! The commands `callreel home ...`: compare a directory with its home, upload by hand, and read back.

mod get;
mod read;

use std::io;
use std::path::PathBuf;

use clap::Subcommand;
use futures_util::{FutureExt as _, StreamExt as _};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::runtime::Builder;

use crate::home::index::{Indexer, Library, Line};
use crate::home::{self, Address, Config, Encryption, Fault, Form, Found, Home, Probe, Variables};
use crate::instance::Instance;
use crate::log::{complain, say};
use crate::record::{Key, Record, Wav};
use crate::store::catalog::{Catalog, Cursor, Filter, Order};
use crate::tasks;

/// Recordings that are looked at, or uploaded, at one time.
const PLACES: usize = 8;

/// Records read at a time.
const PAGE: usize = 500;

/// Arguments of `callreel home`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The command to run.
    #[command(subcommand)]
    pub action: Action,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Try the home, and tell which recordings of a directory it lacks
    Check(CheckArgs),
    /// Upload the finished recordings of a directory that the home lacks
    Sync(SyncArgs),
    /// List the recordings in the home, those of all recorders
    Ls(read::LsArgs),
    /// Download a recording, and compare it with its digest
    Get(get::GetArgs),
    /// Read recordings in the home, and compare them with their digests
    Verify(read::VerifyArgs),
}

const CHECK_NOTES: &str = "\
A line tells each recording that is not in the home as it is on the disk: `waits` for a recorder, `missing`,
`other` (another object has its name, and was not replaced), or `damaged` on the disk. Lengths are compared,
and digests where the store keeps them.

Exit code: 0 if the home has every recording, or a recorder is to upload it; 1 if not, or if the home takes
none; 2 if the command line is wrong.";

/// The directory and the home that are meant.
#[derive(clap::Args, Debug)]
pub struct PlacesArgs {
    /// Home of the recordings, as --home of serve
    #[arg(long, env = "CALLREEL_HOME", value_name = "URL")]
    pub home: Address,

    /// Encryption that an s3:// home is asked for, as --home-sse of serve
    #[arg(long, env = "CALLREEL_HOME_SSE", value_name = "KIND")]
    pub home_sse: Option<Encryption>,

    /// Directory of the recordings
    #[arg(long, env = "CALLREEL_DIR", value_name = "DIR", default_value = "recordings")]
    pub dir: PathBuf,

    /// Name in the keys of recordings that name no recorder [default: the host name]
    #[arg(long, env = "CALLREEL_INSTANCE", value_name = "NAME")]
    pub instance: Option<Instance>,
}

/// Arguments of `callreel home check`.
#[derive(clap::Args, Debug)]
#[command(after_help = CHECK_NOTES)]
pub struct CheckArgs {
    /// The directory and the home.
    #[command(flatten)]
    pub places: PlacesArgs,
}

const SYNC_NOTES: &str = "\
It may run beside a recorder, be stopped and run again: an object that is there already is compared and left
alone. Files on the disk stay as they are. A recording that was made without --home gets the key
YYYY/MM/DD/INSTANCE/ID, and has its audio in the form of --home-format.

Exit code: 0 if the home has every recording now; 1 if not; 2 if the command line is wrong.";

/// Arguments of `callreel home sync`.
#[derive(clap::Args, Debug)]
#[command(after_help = SYNC_NOTES)]
pub struct SyncArgs {
    /// The directory and the home.
    #[command(flatten)]
    pub places: PlacesArgs,

    /// Form of the audio of recordings made without --home: wav, or flac, lossless and half as long
    #[arg(
        long,
        env = "CALLREEL_HOME_FORMAT",
        value_name = "FORMAT",
        default_value = "wav",
        hide_possible_values = true
    )]
    pub home_format: Form,
}

/// Reasons why a command was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The home cannot be opened, or takes no recordings.
    #[error(transparent)]
    Home(#[from] home::Error),
    /// The home cannot be reached.
    #[error("--home {address} cannot be reached: {reason}")]
    Away {
        /// The address.
        address: String,
        /// The reason.
        reason: String,
    },
    /// The system gives no runtime.
    #[error("cannot start: {0}")]
    System(io::Error),
    /// The home does not give what is asked for.
    #[error("--home {address}: {reason}")]
    Gives {
        /// The address.
        address: String,
        /// The reason.
        reason: String,
    },
    /// There is no such recording.
    #[error("--home {address} has no recording {id}: `callreel home ls` lists them")]
    NoRecording {
        /// The address.
        address: String,
        /// The id, with the day if it was given.
        id: String,
    },
    /// The recording cannot be written to its file.
    #[error("cannot write {}: {cause}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// The reason.
        cause: io::Error,
    },
    /// The directory of the recordings cannot be read.
    #[error("{}: {cause}", dir.display())]
    Dir {
        /// The directory.
        dir: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
}

/// Runs a command. Returns whether all is well.
///
/// # Errors
/// The command could not be done.
pub fn run(args: &Args) -> Result<bool, Error> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(Error::System)?;
    tasks::run_on(&runtime, async {
        match &args.action {
            Action::Check(args) => check(&args.places).await,
            Action::Sync(args) => sync(&args.places, args.home_format).await,
            Action::Ls(args) => read::ls(args).await,
            Action::Get(args) => get::get(args).await,
            Action::Verify(args) => read::verify(args).await,
        }
    })
}

/// A finished recording of the directory.
struct Local {
    key: Key,
    wav: Option<Wav>,
    url: String,
    /// It was made for this home, in a form of its own.
    has_form: bool,
    /// Its line for the index.
    line: Option<Line>,
}

async fn check(args: &PlacesArgs) -> Result<bool, Error> {
    let home = open(args).await?;
    let all = recordings(args, &home)?;
    let looks = futures_util::stream::iter(&all).map(|local| {
        let Local { key, wav, url, .. } = local;
        home::compare(&home, &args.dir, key, wav.as_ref(), url).map(move |found| (local, found))
    });
    let mut looks = looks.buffer_unordered(PLACES);
    let (mut good, mut waiting, mut bad) = (0_u64, 0_u64, 0_u64);
    while let Some((Local { key, url, .. }, found)) = looks.next().await {
        let (word, reason) = match found {
            Ok(Found::Equal) => {
                good += 1;
                continue;
            }
            Ok(Found::Waiting) => ("waits", String::new()),
            Ok(Found::Missing) => ("missing", String::new()),
            Err(Fault::Taken(reason)) => ("other", reason),
            Err(Fault::Local(reason)) => ("damaged", reason),
            Err(fault) => {
                let (address, reason) = (home.address().to_string(), fault.to_string());
                return Err(Error::Away { address, reason });
            }
        };
        *(if word == "waits" { &mut waiting } else { &mut bad }) += 1;
        let line = format!("{word:<7} {}/{} {url} {reason}", key.day(), key.id());
        if say(line.trim_end()).is_err() {
            return Ok(false);
        }
    }
    let moved = moved(&home);
    complain(&format!(
        "{good} in the home, {waiting} waiting for a recorder, {bad} not in it{moved}"
    ));
    Ok(bad == 0)
}

async fn sync(args: &PlacesArgs, form: Form) -> Result<bool, Error> {
    let home = open(args).await?;
    let all = recordings(args, &home)?;
    let bar = ProgressBar::new(all.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} recordings, {eta} left") {
        bar.set_style(style);
    }
    let (library, indexer) = (Library::new(home.clone()), Indexer::new(home.clone()));
    let (home, library, indexer) = (&home, &library, &indexer);
    let uploads = futures_util::stream::iter(&all).map(|local| async move {
        let Local { key, wav, url, has_form, .. } = local;
        let form = if *has_form { Form::Wav } else { form };
        let done = match home::upload(home, &args.dir, key, wav.as_ref(), url, form).await {
            Ok(()) => index(library, indexer, local).await,
            fault => fault,
        };
        (local, done)
    });
    let mut uploads = uploads.buffer_unordered(PLACES);
    let (mut good, mut bad) = (0_u64, 0_u64);
    while let Some((Local { key, .. }, uploaded)) = uploads.next().await {
        bar.inc(1);
        match uploaded {
            Ok(()) => good += 1,
            Err(fault @ Fault::Away { .. }) => {
                bar.abandon();
                let (address, reason) = (home.address().to_string(), fault.to_string());
                return Err(Error::Away { address, reason });
            }
            Err(fault) => {
                bad += 1;
                bar.suspend(|| complain(&format!("{}/{}: {fault}", key.day(), key.id())));
            }
        }
    }
    bar.finish_and_clear();
    complain(&format!("{good} in the home, {bad} not in it{}", moved(home)));
    Ok(bad == 0)
}

/// The bytes that went over the network, in words.
fn moved(home: &Home) -> String {
    match home.traffic() {
        (0, 0) => String::new(),
        (sent, received) => format!("; {sent} bytes sent, {received} received"),
    }
}

/// Adds a recording in the home to its index, unless it is there.
async fn index(library: &Library, indexer: &Indexer, local: &Local) -> Result<(), Fault> {
    match &local.line {
        Some(line) if !library.has(line.day(), line.url()).await? => {
            indexer.add(line.clone()).await
        }
        _ => Ok(()),
    }
}

/// Opens a home and tries it.
async fn open(args: &PlacesArgs) -> Result<Home, Error> {
    let home = Home::open(&Config {
        address: args.home.clone(),
        variables: Variables::of_process(),
        encryption: args.home_sse.clone(),
        form: Form::Wav,
        evict_after: None,
    })?;
    match home.probe().await.map_err(home::Error::Refuses)? {
        Probe::Good => {}
        Probe::Limited(warnings) => warnings.iter().for_each(|warning| complain(warning)),
        Probe::Away(reason) => {
            return Err(Error::Away { address: home.address().to_string(), reason });
        }
    }
    Ok(home)
}

/// The finished recordings of a directory with their places in the home, newest first. A recording that has
/// none there gets one by its recorder's name, or else by the given one.
fn recordings(args: &PlacesArgs, home: &Home) -> Result<Vec<Local>, Error> {
    let failed = |cause| Error::Dir { dir: args.dir.clone(), cause };
    std::fs::read_dir(&args.dir).map_err(failed)?;
    let catalog = Catalog::new(args.dir.clone());
    let given = args.instance.clone().unwrap_or_else(Instance::of_host);
    let local = |record: &Record| {
        let key = Key::new(record.day(), record.id.clone()?);
        let of_record = record.instance.as_deref().and_then(|name| name.parse().ok());
        let known = record.home.as_deref().filter(|url| home.address().path_of(url, "").is_some());
        let has_form = known.is_some();
        let url = match known {
            Some(url) => url.to_owned(),
            None => home.address().url_of(&key, of_record.as_ref().unwrap_or(&given)),
        };
        let line = Line::new(home.address(), record, &url);
        Some(Local { key, wav: record.wav.clone(), url, has_form, line })
    };
    let (mut all, mut after) = (Vec::new(), None::<Cursor>);
    loop {
        let page = catalog.list(&Filter::default(), Order::Newest, after.as_ref(), PAGE, local);
        let page = page.map_err(failed)?;
        all.extend(page.records.into_iter().flatten());
        after = page.next;
        if after.is_none() {
            return Ok(all);
        }
    }
}
