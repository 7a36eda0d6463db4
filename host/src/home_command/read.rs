//! `callreel home ls` and `verify`: recordings in a home, listed and compared.

use futures_util::StreamExt as _;
use jiff::Timestamp;
use jiff::civil::Date;
use serde::Deserialize;

use super::Error;
use crate::home::index::{Library, Listed};
use crate::home::{Address, Audio, Config, Digest, Fault, Form, Home, PIECE, Variables};
use crate::list::length;
use crate::log::{complain, say, say_bytes};
use crate::record::{Cursor, Filter, Id, Key, Search, State, parse_day};
use crate::shown;

/// Recordings that are listed with one request for a page.
const PAGE: usize = 500;

/// Recordings that are read at one time.
const PLACES: usize = 4;

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

fn day(text: &str) -> Result<Date, &'static str> {
    parse_day(text).ok_or("give a day like 2026-11-22")
}

/// Opens a home to be read. Nothing is put there.
pub(super) fn open(home: &HomeArg) -> Result<Library, Error> {
    let home = Home::open(&Config {
        address: home.home.clone(),
        variables: Variables::of_process(),
        encryption: None,
        form: Form::Wav,
        evict_after: None,
    })?;
    Ok(Library::new(home))
}

pub(super) fn failed(library: &Library) -> impl Fn(Fault) -> Error + use<> {
    let address = library.home().address().to_string();
    move |fault| match fault {
        Fault::Away { reason, .. } => Error::Away { address: address.clone(), reason },
        fault => Error::Gives { address: address.clone(), reason: fault.to_string() },
    }
}

/// All recordings of a day, or all, one page after the other.
pub(super) struct Pages {
    library: Library,
    filter: Filter,
    after: Option<Cursor>,
    is_over: bool,
}

impl Pages {
    pub(super) fn new(library: &Library, day: Option<Date>, search: Search) -> Self {
        let filter = Filter { from: day, to: day, search, ..Filter::default() };
        Self { library: library.clone(), filter, after: None, is_over: false }
    }

    pub(super) async fn next(&mut self) -> Result<Option<Vec<Listed>>, Fault> {
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
    let mut pages = Pages::new(&library, args.day, Search::default());
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
    let Some(Audio { ending, bytes }) = Audio::of(&record) else { return Ok(Verdict::Whole) };
    let Some(path) = library.home().address().path_of(&listed.url, ending) else {
        return Ok(missing(ending));
    };
    match library.home().head(&path).await? {
        None => return Ok(missing(ending)),
        Some(object) if object.size != bytes => return Ok(Verdict::Other),
        Some(_) => {}
    }
    let mut digest = Digest::of_object(&record);
    let mut at = 0;
    while at < bytes {
        let end = (at + PIECE).min(bytes);
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
    let mut pages = Pages::new(&library, args.day, Search::default());
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
