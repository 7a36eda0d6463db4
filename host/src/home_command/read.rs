//! `callreel home ls`, `get` and `verify`: recordings read back from a home.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;
use hyper::body::Bytes;
use jiff::Timestamp;
use jiff::civil::Date;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::Error;
use crate::disk::{WholeFile, is_there};
use crate::home::index::{Library, Listed};
use crate::home::{Address, Config, Digest, Fault, Home, PIECE, Variables};
use crate::instance::Instance;
use crate::list::length;
use crate::log::{complain, say, say_bytes};
use crate::record::{Cursor, Filter, Id, Key, State, parse_day};
use crate::{shown, tasks};

/// Recordings that are listed with one request for a page.
const PAGE: usize = 500;

/// Recordings that are read at one time.
const PLACES: usize = 4;

/// Pieces that wait for the disk.
const WAITING: usize = 2;

/// The home that is meant.
#[derive(clap::Args, Debug)]
pub struct HomeArg {
    /// Home of the recordings, as --home of serve
    #[arg(long, env = "CALLREEL_HOME", value_name = "URL")]
    pub home: Address,
}

const LS_NOTES: &str = "\
It reads the index that recorders keep in the home: a recording is there a few seconds after its upload.

Exit code: 0, also if there is no recording; 1 if the home cannot be read; 2 if the command line is wrong.";

/// Arguments of `callreel home ls`.
#[derive(clap::Args, Debug)]
#[command(after_help = LS_NOTES)]
pub struct LsArgs {
    /// The home.
    #[command(flatten)]
    pub home: HomeArg,

    /// Only recordings that began on this day, in UTC, like 2026-11-22
    #[arg(long, value_name = "DAY", value_parser = day)]
    pub day: Option<Date>,

    /// Most recordings to print, at least 1
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: u64,

    /// Print each recording as a JSON object in a line
    #[arg(long)]
    pub json: bool,
}

const GET_NOTES: &str = "\
Examples:
  callreel home get 2026-11-27/MZ0123              Download to ./MZ0123.wav
  callreel home get MZ0123 -o - | aplay            Look for the id, the latest day first, and play it

A file that does not have the digest of its record is not left behind, and a file that is there is not replaced.

Exit code: 0 if the whole recording was written; 1 if not; 2 if the command line is wrong.";

/// Arguments of `callreel home get`.
#[derive(clap::Args, Debug)]
#[command(after_help = GET_NOTES)]
pub struct GetArgs {
    /// The home.
    #[command(flatten)]
    pub home: HomeArg,

    /// Id of the recording, better with its day before it, like 2026-11-27/MZ0123
    #[arg(value_name = "ID", value_parser = wanted)]
    pub id: Wanted,

    /// File to write; `-` for standard output, where a wrong digest is told after the fact [default: ID.wav]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Write the record as well, beside the WAV
    #[arg(long)]
    pub record: bool,

    /// Only a recording of this instance, where several have the id
    #[arg(long, value_name = "NAME")]
    pub instance: Option<Instance>,
}

const VERIFY_NOTES: &str = "\
It reads all audio, and prints a line for each recording that is not whole: `missing` (an object of it), `other`
(it has another digest than its record), `unknown` (its record has no digest).

Exit code: 0 if every recording is whole; 1 if not, or if the home cannot be read; 2 if the command line is
wrong.";

/// Arguments of `callreel home verify`.
#[derive(clap::Args, Debug)]
#[command(after_help = VERIFY_NOTES)]
pub struct VerifyArgs {
    /// The home.
    #[command(flatten)]
    pub home: HomeArg,

    /// Only recordings that began on this day, in UTC, like 2026-11-22
    #[arg(long, value_name = "DAY", value_parser = day)]
    pub day: Option<Date>,
}

/// A recording that is asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    day: Option<Date>,
    id: Id,
}

fn day(text: &str) -> Result<Date, &'static str> {
    parse_day(text).ok_or("give a day like 2026-11-22")
}

fn wanted(text: &str) -> Result<Wanted, &'static str> {
    const FORM: &str = "give an id as `callreel home ls` prints it, like 2026-11-27/MZ0123";
    let (day, id) = match text.split_once('/') {
        Some((day, id)) => (Some(parse_day(day).ok_or(FORM)?), id),
        None => (None, text),
    };
    Ok(Wanted { day, id: id.to_owned().try_into().map_err(|_| FORM)? })
}

/// Opens a home to be read. Nothing is put there.
fn open(home: &HomeArg) -> Result<Library, Error> {
    let home = Home::open(&Config {
        address: home.home.clone(),
        variables: Variables::of_process(),
        encryption: None,
        evict_after: None,
    })?;
    Ok(Library::new(home))
}

fn failed(library: &Library) -> impl Fn(Fault) -> Error + use<> {
    let address = library.home().address().to_string();
    move |fault| match fault {
        Fault::Away { reason, .. } => Error::Away { address: address.clone(), reason },
        fault => Error::Gives { address: address.clone(), reason: fault.to_string() },
    }
}

/// All recordings of a day, or all, one page after the other.
struct Pages {
    library: Library,
    filter: Filter,
    after: Option<Cursor>,
    is_over: bool,
}

impl Pages {
    fn new(library: &Library, day: Option<Date>, text: Option<String>) -> Self {
        let filter = Filter { from: day, to: day, text, ..Filter::default() };
        Self { library: library.clone(), filter, after: None, is_over: false }
    }

    async fn next(&mut self) -> Result<Option<Vec<Listed>>, Fault> {
        if self.is_over {
            return Ok(None);
        }
        let page = self.library.list(&self.filter, self.after.as_ref(), PAGE).await?;
        self.is_over = page.next.is_none();
        self.after = page.next;
        Ok(Some(page.records))
    }
}

/// The fields of a summary that the table shows.
#[derive(Deserialize)]
struct Row {
    day: Date,
    id: Id,
    state: State,
    started_at: Timestamp,
    duration_ms: u64,
    #[serde(default)]
    bytes: u64,
    #[serde(default)]
    instance: String,
}

pub(super) async fn ls(args: &LsArgs) -> Result<bool, Error> {
    let library = open(&args.home)?;
    let failed = failed(&library);
    let mut pages = Pages::new(&library, args.day, None);
    let (mut left, mut is_begun) = (args.limit, args.json);
    while let Some(page) = pages.next().await.map_err(&failed)? {
        for listed in page {
            if left == 0 {
                if !args.json {
                    complain(&format!("the newest {}; --limit COUNT shows more", args.limit));
                }
                return Ok(true);
            }
            left -= 1;
            if !is_begun {
                is_begun = true;
                let head = "STARTED (UTC)        LENGTH    STATE          BYTES  INSTANCE          RECORDING";
                if say(head).is_err() {
                    return Ok(true);
                }
            }
            let said = if args.json {
                say_bytes(format!("{}\n", shown::json(listed.summary.get())).as_bytes())
            } else {
                match serde_json::from_str::<Row>(listed.summary.get()) {
                    Ok(row) => say(&format!(
                        "{}  {:<8}  {:<9}  {:>9}  {:<16}  {}/{}",
                        row.started_at.strftime("%Y-%m-%d %H:%M:%S"),
                        length(row.duration_ms),
                        row.state.to_string(),
                        row.bytes,
                        row.instance,
                        row.day,
                        row.id,
                    )),
                    Err(_) => say(&listed.url),
                }
            };
            if said.is_err() {
                return Ok(true);
            }
        }
    }
    Ok(true)
}

/// The key and the URL of the wanted recording.
async fn find(library: &Library, args: &GetArgs) -> Result<Option<(Key, String)>, Fault> {
    let Wanted { day, id } = &args.id;
    if let Some(day) = *day {
        let key = Key::new(day, id.clone());
        let url = library.find(&key, args.instance.as_ref()).await?;
        return Ok(url.map(|url| (key, url)));
    }
    let mut pages = Pages::new(library, None, Some(id.to_string()));
    while let Some(page) = pages.next().await? {
        for listed in page {
            let key = Key::new(listed.place.day(), id.clone());
            let instance = library.home().address().instance_of(&listed.url, &key);
            if instance.is_some() && (args.instance.is_none() || args.instance == instance) {
                return Ok(Some((key, listed.url.into())));
            }
        }
    }
    Ok(None)
}

pub(super) async fn get(args: &GetArgs) -> Result<bool, Error> {
    let library = open(&args.home)?;
    let failed = failed(&library);
    let missing = || Error::NoRecording {
        address: args.home.home.to_string(),
        id: match args.id.day {
            Some(day) => format!("{day}/{}", args.id.id),
            None => args.id.id.to_string(),
        },
    };
    let (key, url) = find(&library, args).await.map_err(&failed)?.ok_or_else(missing)?;
    let record = library.record(&key, &url).await.map_err(&failed)?.ok_or_else(missing)?;
    let to = args.output.clone().unwrap_or_else(|| format!("{}.wav", key.id()).into());
    let is_piped = to.as_os_str() == "-";
    if args.record && !is_piped {
        let file = to.with_extension("json");
        let text = serde_json::to_vec_pretty(&record).unwrap_or_default();
        let written = whole(&file, move |file| file.write_all(&text)).await;
        written.map_err(|cause| Error::Write { file, cause })?;
    }
    let Some(bytes) = record.wav.as_ref().map(|wav| wav.bytes) else {
        complain(&format!("{}/{} has no audio: {}", key.day(), key.id(), record.state));
        return Ok(false);
    };
    let Some(path) = library.home().address().path_of(&url, ".wav") else { return Err(missing()) };
    let (pieces, mut received) = mpsc::channel::<Bytes>(WAITING);
    let mut digest = Digest::of(&record);
    let write = move |out: &mut dyn io::Write| {
        let mut left = bytes;
        while let Some(piece) = received.blocking_recv() {
            left -= piece.len() as u64;
            digest.update(&piece);
            out.write_all(&piece)?;
        }
        match digest.finish() {
            _ if left > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            Some(false) => Err(io::Error::other(
                "the audio in the home does not have the digest of its record: it was damaged or replaced there",
            )),
            None => {
                complain("the record has no digest: only the length was compared");
                Ok(())
            }
            Some(true) => Ok(()),
        }
    };
    let file = to.clone();
    let written = async {
        if !is_piped {
            return whole(&file, move |file| write(file)).await;
        }
        finished(tasks::blocking(move || {
            let mut out = io::stdout().lock();
            write(&mut out).and_then(|()| out.flush())
        }))
        .await
    };
    let send = async {
        let mut at = 0;
        while at < bytes {
            let end = (at + PIECE).min(bytes);
            let piece = library.home().read(&path, at..end).await?;
            if pieces.send(piece).await.is_err() {
                break; // The writing ended, and tells why.
            }
            at = end;
        }
        drop(pieces);
        Ok(())
    };
    let (sent, written) = tokio::join!(send, written);
    sent.map_err(&failed)?;
    match written {
        // The reader of a pipe has enough.
        Err(cause) if is_piped && cause.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(cause) => Err(Error::Write { file: to, cause }),
        Ok(()) if is_piped => Ok(true),
        Ok(()) => {
            complain(&format!("{}/{}: {bytes} bytes in {}", key.day(), key.id(), to.display()));
            Ok(true)
        }
    }
}

/// Writes a file that nobody sees half written, in no other file's place.
async fn whole(
    to: &Path,
    content: impl FnOnce(&mut File) -> io::Result<()> + Send + 'static,
) -> io::Result<()> {
    let to = to.to_owned();
    finished(tasks::blocking(move || {
        if is_there(&to)? {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is a file of this name; choose another with -o",
            ));
        }
        let name = to.file_name().unwrap_or_default().to_string_lossy();
        let temporary = to.with_file_name(format!(".{name}.{:016x}", fastrand::u64(..)));
        WholeFile { temporary: &temporary, to: &to, is_durable: true, replaces: false }
            .write(content)
            .map(drop)
    }))
    .await
}

/// The result of work on a thread.
async fn finished(
    work: impl Future<Output = Result<io::Result<()>, tokio::task::JoinError>>,
) -> io::Result<()> {
    work.await.unwrap_or_else(|_| Err(io::Error::other("the writing ended with a bug")))
}

/// The fault of a recording in the home, in a word.
enum Verdict {
    Whole,
    Missing(String),
    Other,
    Unknown,
}

/// Reads a recording in the home, and compares it.
async fn compare(library: &Library, listed: &Listed) -> Result<Verdict, Fault> {
    let missing = |ending: &str| Verdict::Missing(format!("no object {}{ending}", listed.url));
    let Some((_, id)) = listed.url.rsplit_once('/') else { return Ok(missing("")) };
    let Ok(id) = Id::try_from(id.to_owned()) else { return Ok(missing("")) };
    let key = Key::new(listed.place.day(), id);
    let Some(record) = library.record(&key, &listed.url).await? else {
        return Ok(missing(".json"));
    };
    let Some(wav) = &record.wav else { return Ok(Verdict::Whole) };
    let Some(path) = library.home().address().path_of(&listed.url, ".wav") else {
        return Ok(missing(".wav"));
    };
    match library.home().head(&path).await? {
        None => return Ok(missing(".wav")),
        Some(object) if object.size != wav.bytes => return Ok(Verdict::Other),
        Some(_) => {}
    }
    let mut digest = Digest::of(&record);
    let mut at = 0;
    while at < wav.bytes {
        let end = (at + PIECE).min(wav.bytes);
        digest.update(&library.home().read(&path, at..end).await?);
        at = end;
    }
    Ok(match digest.finish() {
        Some(true) => Verdict::Whole,
        Some(false) => Verdict::Other,
        None => Verdict::Unknown,
    })
}

pub(super) async fn verify(args: &VerifyArgs) -> Result<bool, Error> {
    let library = open(&args.home)?;
    let failed = failed(&library);
    let mut pages = Pages::new(&library, args.day, None);
    let (mut good, mut bad) = (0_u64, 0_u64);
    while let Some(page) = pages.next().await.map_err(&failed)? {
        let looks = futures_util::stream::iter(page).map(|listed| async {
            let verdict = compare(&library, &listed).await;
            (listed, verdict)
        });
        let mut looks = looks.buffered(PLACES);
        while let Some((listed, verdict)) = looks.next().await {
            let (word, reason) = match verdict.map_err(&failed)? {
                Verdict::Whole => {
                    good += 1;
                    continue;
                }
                Verdict::Missing(reason) => ("missing", reason),
                Verdict::Other => ("other", String::new()),
                Verdict::Unknown => ("unknown", String::new()),
            };
            bad += 1;
            let line = format!("{word:<7} {} {reason}", listed.url);
            if say(line.trim_end()).is_err() {
                return Ok(false);
            }
        }
    }
    complain(&format!("{good} whole, {bad} not"));
    Ok(bad == 0)
}
