//! `callreel demo --bot`: a conversation with a small bot, recorded through the relay.

use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{Error, Recorded, find, read};
use crate::bot::{self, Manner};
use crate::caller::{CallReport, DialledTracks, Plan, Words, place};
use crate::log::Printer;
use crate::public_url::STREAM_PATH;
use crate::record::Record;
use crate::relay::{self, Route};
use crate::shown;
use crate::trust::Authorities;

/// Length of the call.
const DURATION: Duration = Duration::from_secs(12);

/// Times at which the caller begins to speak: the second time over the bot.
const WORDS: [Duration; 2] = [Duration::from_secs(1), Duration::from_millis(3600)];

/// Most difference between the bot's audio in the file and that which the caller heard: the time that a clear
/// takes on a busy machine, twice.
const DIFFERENCE_MS_MAX: u64 = 200;

/// Begins to serve as a bot; returns the task, and the settings of a relay to it.
///
/// # Errors
/// No port is free.
pub(super) async fn start_bot() -> io::Result<(JoinHandle<()>, relay::Config)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("ws://{}/", listener.local_addr()?).parse().map_err(io::Error::other)?;
    let route = Route { path: Some(STREAM_PATH.to_owned()), url };
    let task = tokio::spawn(bot::serve(listener, Manner::default()));
    Ok((task, relay::Config::of(route)))
}

/// Places the call, and compares the recording with that which the caller heard.
pub(super) async fn record(
    dir: &Path,
    url: &str,
    ca: Authorities,
    out: &Printer,
) -> Result<Recorded, Error> {
    let plan = Plan {
        tracks: Some(DialledTracks::Inbound),
        duration: Some(DURATION),
        say: WORDS.iter().zip(1..).map(|(at, seed)| Words::built_in(*at, seed)).collect(),
        ca,
        ..Plan::new(url)
    };
    let say = |text: String| out.print((text + "\n").into());
    say(format!("callreel demo: a call of {} s with a bot, at {url}", DURATION.as_secs()));
    let report = place(&plan).await?;
    let mut recorded = Recorded { wrong: 0, first: PathBuf::new() };
    for call in &report.calls {
        match check(call, dir) {
            Ok((path, record)) => {
                say(told(&record));
                let name = path.display().to_string();
                say(format!(
                    "\n  {}: the caller left, and the heard part of the bot right",
                    shown::line(&name)
                ));
                recorded.first = path;
            }
            Err(why) => {
                recorded.wrong += 1;
                say(format!("  WRONG: stream {}: {}", call.stream_sid, shown::line(&why)));
            }
        }
    }
    Ok(recorded)
}

/// The bot's side of a record in words.
fn told(record: &Record) -> String {
    let Some(bot) = &record.bot else {
        return String::new();
    };
    let s = |ms: u64| ms as f64 / 1000.0;
    let mut text = format!(
        "\nThe bot sent {:.1} s of speech, and the caller heard {:.1} s of it:\n",
        s(bot.sent_ms),
        s(bot.heard_ms)
    );
    for utterance in &bot.utterances {
        let cut = match utterance.cut.as_deref() {
            Some("clear") => ", then the caller spoke, and the bot took the rest back",
            Some(_) => ", then the call ended",
            None => "",
        };
        let (at, heard, sent) = (s(utterance.at_ms), s(utterance.heard_ms), s(utterance.sent_ms));
        text += &format!("\n  at {at:4.1} s  {heard:.1} s of {sent:.1} s heard{cut}");
    }
    text
}

/// Compares a recording with the report of its call. Returns its path and its record.
fn check(call: &CallReport, dir: &Path) -> Result<(PathBuf, Record), String> {
    if !call.good {
        return Err(call.end.to_string());
    }
    let path = find(dir, &format!("{}.wav", call.stream_sid));
    let path = path.ok_or("no recording of this call was found")?;
    let record = read(&path.with_extension("json")).map_err(|error| error.to_string())?;
    let record: Record = serde_json::from_slice(&record).map_err(|error| error.to_string())?;
    let found = record.bot.as_deref().ok_or("the record tells nothing of the bot")?.heard_ms;
    let heard = call.heard.as_ref().ok_or("the caller heard nothing")?.heard_s;
    let heard = (heard * 1000.0) as u64;
    if found.abs_diff(heard) > DIFFERENCE_MS_MAX {
        return Err(format!("the caller heard {heard} ms of the bot, and the file has {found} ms"));
    }
    Ok((path, record))
}
