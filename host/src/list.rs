//! `callreel list`: the finished recordings of a directory.
//!
//! It reads the directory alone, so it works beside a running server and without one. The two ends of a
//! call are personal data: they are shown only on demand.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::civil::Date;
use serde::Serialize;

use crate::caller_ids::CallerIds;
use crate::log::{self, ReaderGone};
use crate::record::{Brief, Record, Search, State, Summary, TERMS, Word, csv, day_of, parse_day};
use crate::store::catalog::{Catalog, Cursor, Filter, Order};
use crate::units;

/// Records read before the first of them are printed.
const PAGE: usize = 100;

/// The examples, and the terms of a search.
fn notes() -> String {
    let width = TERMS.iter().map(|(example, _)| example.len()).max().unwrap_or(0);
    let terms = TERMS.map(|(example, meaning)| format!("  {example:<width$}  {meaning}"));
    format!(
        "\
Terms of a search, all of which must be met:
{}

Examples:
  callreel list --state partial --since 24h    Recordings of a day that are not whole
  callreel list --search '-has:gaps agent:zoe' --sort -latency
  callreel list --json | jq -r .wav            Paths of the audio files
  callreel list --csv --limit 1000000 > all.csv

Exit code: 0, also if there is no recording; 1 if the directory cannot be read; 2 if the command line
is wrong.",
        terms.join("\n")
    )
}

/// Settings of `callreel list`.
#[derive(clap::Args, Debug)]
#[command(after_help = notes())]
pub struct Args {
    /// Directory of the recordings
    #[arg(long, env = "CALLREEL_DIR", value_name = "DIR", default_value = "recordings")]
    pub dir: PathBuf,

    /// Only recordings that began on this day, in UTC, like 2026-11-22
    #[arg(long, value_name = "DAY", value_parser = day, conflicts_with = "since")]
    pub day: Option<Date>,

    /// Only recordings that began since then; a day like 2026-11-22, or a time before now like 24h
    #[arg(long, value_name = "DAY|DURATION", value_parser = since)]
    pub since: Option<Since>,

    /// Only recordings of this state: complete, partial, recovered or failed
    #[arg(long, value_name = "STATE", value_parser = state)]
    pub state: Option<State>,

    /// Only recordings that meet all these terms, see below
    #[arg(long, value_name = "TERMS", allow_hyphen_values = true)]
    pub search: Option<Search>,

    /// Order: started, duration, trouble or latency; with a hyphen before it, the greatest first
    #[arg(long, value_name = "ORDER", default_value = "-started", allow_hyphen_values = true)]
    pub sort: Order,

    /// Most recordings to print, at least 1
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: u64,

    /// Show the numbers of both ends of a call, too; they are personal data
    #[arg(long)]
    pub numbers: bool,

    /// Print each recording as a JSON object in a line
    #[arg(long)]
    pub json: bool,

    /// Print CSV, with the columns of the API
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
}

/// Earliest start of the recordings to list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Since {
    /// A day, in UTC.
    Day(Date),
    /// A time before now.
    Ago(Duration),
}

impl Since {
    fn time(self) -> Option<Timestamp> {
        match self {
            Self::Day(day) => Some(day.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp()),
            Self::Ago(age) => SystemTime::now().checked_sub(age)?.try_into().ok(),
        }
    }
}

fn day(text: &str) -> Result<Date, &'static str> {
    parse_day(text).ok_or("give a day like 2026-11-22")
}

fn since(text: &str) -> Result<Since, &'static str> {
    let ago = || units::duration(text).ok().map(Since::Ago);
    let since = parse_day(text).map(Since::Day).or_else(ago);
    since.ok_or("give a day like 2026-11-22, or a time before now like 24h")
}

fn state(text: &str) -> Result<State, &'static str> {
    let state = serde_json::from_value(text.into()).ok().filter(|state| *state != State::Recording);
    state.ok_or("give complete, partial, recovered or failed")
}

/// The directory of the recordings cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot list the recordings in {}: {cause} (--dir or CALLREEL_DIR names the directory of `callreel serve`)", .dir.display())]
pub struct Error {
    /// The directory.
    pub dir: PathBuf,
    /// The system's error.
    pub cause: io::Error,
}

/// Prints the finished recordings of a directory, in the wanted order. Ends early when the reader of the output is
/// gone.
///
/// # Errors
/// The directory, or the folder of a day, cannot be read.
pub fn run(args: &Args) -> Result<(), Error> {
    let failed = |cause| Error { dir: args.dir.clone(), cause };
    fs::read_dir(&args.dir).map_err(failed)?;
    match print(args).map_err(failed)? {
        Ok(true) if !args.json => {
            let first = if args.sort == Order::Newest { "newest" } else { "first" };
            log::complain(&format!("the {first} {}; --limit COUNT shows more", args.limit));
        }
        _ => {}
    }
    Ok(())
}

/// Prints the recordings. Returns whether there are more than were asked for.
fn print(args: &Args) -> io::Result<Result<bool, ReaderGone>> {
    let catalog = Catalog::new(args.dir.clone());
    let since = args.since.and_then(Since::time);
    let filter = Filter {
        state: args.state,
        from: args.day.or_else(|| since.map(day_of)),
        to: args.day,
        since,
        search: args.search.clone().unwrap_or_default(),
        until: None,
    };
    let (mut left, mut after) = (args.limit, None::<Cursor>);
    let mut table = Table { is_begun: false, numbers: args.numbers };
    if args.csv && log::say_bytes(&csv::head()).is_err() {
        return Ok(Err(ReaderGone));
    }
    let show = |record: &Record| {
        if args.csv {
            Shown::Line(line(record, args))
        } else {
            Shown::Row(Box::new(Row::new(record, args)))
        }
    };
    loop {
        let page = catalog.list(&filter, args.sort, after.as_ref(), PAGE, show)?;
        for shown in page.records {
            if left == 0 {
                return Ok(Ok(true));
            }
            left -= 1;
            let said = match shown {
                Shown::Line(line) => log::say_bytes(&line),
                Shown::Row(row) if args.json => log::say_json(&row),
                Shown::Row(row) => table.say(&row),
            };
            if said.is_err() {
                return Ok(Err(ReaderGone));
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(Ok(false));
        }
    }
}

/// A recording as it is printed.
enum Shown {
    /// A line of CSV.
    Line(Vec<u8>),
    Row(Box<Row>),
}

fn line(record: &Record, args: &Args) -> Vec<u8> {
    let numbers = if args.numbers { csv::Numbers::Shown } else { csv::Numbers::Hidden };
    let summary = serde_json::to_string(&Summary::of(&Brief::of(record)));
    csv::line(&summary.unwrap_or_default(), numbers)
}

/// A recording in the list.
#[derive(Serialize)]
struct Row {
    day: Date,
    id: Option<String>,
    stream_id: String,
    call_id: String,
    state: State,
    end: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    started_at: Timestamp,
    ended_at: Timestamp,
    duration_ms: u64,
    tracks: Vec<String>,
    /// Path of the audio; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    wav: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<Box<CallerIds>>,
}

impl Row {
    fn new(record: &Record, args: &Args) -> Self {
        let day = record.day();
        let path = |file: &str| args.dir.join(day.to_string()).join(file);
        // A name with a separator would lead elsewhere.
        let file = record.wav.as_ref().map(|wav| Path::new(&wav.file)).and_then(Path::file_name);
        Self {
            day,
            id: record.id.as_ref().map(|id| id.as_str().to_owned()),
            stream_id: record.stream_id.clone(),
            call_id: record.call_id.clone(),
            state: record.state,
            end: record.end.as_str().to_owned(),
            reason: record.reason.clone(),
            started_at: record.started_at,
            ended_at: record.ended_at,
            duration_ms: record.duration_ms,
            tracks: record.tracks.iter().map(|track| Word::as_str(track).to_owned()).collect(),
            wav: file.and_then(|file| file.to_str()).map(path),
            caller: record.caller.clone().filter(|_| args.numbers),
        }
    }
}

/// The recordings as a table for people.
struct Table {
    is_begun: bool,
    numbers: bool,
}

impl Table {
    fn say(&mut self, row: &Row) -> Result<(), ReaderGone> {
        if !self.is_begun {
            self.is_begun = true;
            let numbers = if self.numbers { "FROM              TO                " } else { "" };
            log::say(&format!(
                "STARTED (UTC)        LENGTH    STATE      END           TRACKS  {numbers}RECORDING"
            ))?;
        }
        let numbers = if self.numbers {
            let caller = row.caller.as_deref();
            let from = caller.and_then(|caller| caller.from.as_deref());
            let to = caller.and_then(|caller| caller.to.as_deref());
            format!("{:<16}  {:<16}  ", from.unwrap_or("-"), to.unwrap_or("-"))
        } else {
            String::new()
        };
        log::say(&format!(
            "{}  {:<8}  {:<9}  {:<12}  {:<6}  {numbers}{}/{}",
            row.started_at.strftime("%Y-%m-%d %H:%M:%S"),
            length(row.duration_ms),
            row.state.to_string(),
            row.end,
            row.tracks.len(),
            row.day,
            row.id.as_deref().unwrap_or(&row.stream_id),
        ))
    }
}

/// A length of time as `H:MM:SS`, with tenths of a second below a minute.
pub(crate) fn length(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{seconds}.{} s", ms % 1000 / 100),
        _ => format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}
