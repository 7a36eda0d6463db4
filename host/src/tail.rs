//! `callreel tail`: a line as each call of a running server begins and ends.
//!
//! It reads the events of the admin listener, which tell the beginning and the end of each call in order,
//! however short it is. When the connection is lost it connects again, and gets the events since the last
//! one that it had. Only where the server does not know these any more, as after its restart, the calls
//! that it knew are compared with those that go on.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::StatusCode;
use hyper::body::Incoming;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::{sleep, timeout};
use url::Url;

use crate::client::{self, Headers};
use crate::list::length;
use crate::log::{self, ReaderGone};
use crate::tasks;

/// Silence after which a connection counts as lost: the server sends its state every two seconds.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Pause before the first attempt to connect again, and the longest one.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Most bytes of one event: the picture of some thousand calls.
const EVENT_BYTES_MAX: usize = 64 << 20;

/// Asks for all kinds of events that have an id, so that the last id is never far behind. The server says
/// nothing in the place of the others every two seconds.
const QUERY: &str = "kind=dtmf,ended,gap,hello,mark,published,started";

const EXAMPLES: &str = "\
Examples:
  callreel tail
  CALLREEL_ADMIN_TOKEN=... callreel tail --admin https://calls.example.com/console
  callreel tail --json | jq -r 'select(.event == \"ended\" and .state != \"complete\") | .stream_id'

It goes on until Ctrl-C, or until the reader of its output goes away.";

/// Settings of `callreel tail`.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Address of the server's admin listener: IP:PORT, or an http or https URL
    #[arg(
        long,
        env = "CALLREEL_ADMIN",
        value_name = "URL",
        default_value = "127.0.0.1:5051",
        value_parser = admin_url
    )]
    pub admin: Url,

    /// Token of the admin listener. Others can see a command line, so better set CALLREEL_ADMIN_TOKEN
    #[arg(long, env = "CALLREEL_ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub admin_token: Option<String>,

    /// Print each line as a JSON object
    #[arg(long)]
    pub json: bool,
}

fn admin_url(text: &str) -> Result<Url, &'static str> {
    const FORM: &str = "give IP:PORT, or a URL like https://calls.example.com/console";
    if text == "off" {
        return Err("the server has no admin listener (off), and only that one tells of calls");
    }
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let mut url = Url::parse(&full).map_err(|_| FORM)?;
    let is_fit = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none();
    if !is_fit {
        return Err(FORM);
    }
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

/// Reasons why the events of a server cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no server, or it cannot be reached.
    #[error("{cause}; does `callreel serve` run there? --admin names the address of its console")]
    Unreachable {
        /// The reason, in words.
        cause: String,
    },
    /// The server does not know the token.
    #[error("{url} asks for another token: set CALLREEL_ADMIN_TOKEN to that of the server")]
    Token {
        /// Address of the admin listener.
        url: Url,
    },
    /// Another answer than events.
    #[error(
        "{url} answers {status} instead of events: is it the admin listener of callreel?{detail}"
    )]
    Answer {
        /// Address of the admin listener.
        url: Url,
        /// The status.
        status: u16,
        /// The reason that the server gave, after a blank; empty if it gave none.
        detail: String,
    },
    /// The system gives no thread or no socket.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Prints a line as each call begins and ends, until the reader of the output is gone.
///
/// # Errors
/// See [`Error`]: the server cannot be reached at first, or refuses. Later it is tried again.
pub fn run(args: &Args) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tasks::run_on(&runtime, follow(args))
}

async fn follow(args: &Args) -> Result<(), Error> {
    let mut url = args.admin.clone();
    url.set_path(&format!("{}/api/v1/events", url.path().trim_end_matches('/')));
    url.set_query(Some(QUERY));
    let mut calls = Calls { json: args.json, ..Calls::default() };
    let mut pause = PAUSE;
    loop {
        let lost = match connect(&url, args, calls.last_event.as_deref()).await {
            Ok(body) => {
                if calls.has_picture {
                    log::complain("connected again");
                }
                pause = PAUSE;
                match read(body, &mut calls).await {
                    Ok(lost) => lost,
                    Err(ReaderGone) => return Ok(()),
                }
            }
            Err(error @ Error::Unreachable { .. }) if calls.has_picture => error.to_string(),
            Err(error) => return Err(error),
        };
        if log::is_reader_gone() {
            return Ok(());
        }
        if pause == PAUSE {
            log::complain(&format!("lost the connection to {}: {lost}; trying again", args.admin));
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn connect(url: &Url, args: &Args, last_event: Option<&str>) -> Result<Incoming, Error> {
    let token = args.admin_token.as_deref();
    let headers = Headers { accept: "text/event-stream", token, last_event };
    let answer = client::get(url, headers).await;
    let answer = answer.map_err(|error| Error::Unreachable { cause: error.to_string() })?;
    match answer.response.status() {
        StatusCode::OK => Ok(answer.response.into_body()),
        StatusCode::UNAUTHORIZED => Err(Error::Token { url: args.admin.clone() }),
        // A proxy whose server is being started again.
        status @ (StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT) => {
            Err(Error::Unreachable { cause: format!("{} answers {status}", args.admin) })
        }
        status => {
            let text = client::read(answer.response).await.map(|(_, text)| text);
            let problem = serde_json::from_slice::<Value>(text.unwrap_or_default().as_bytes());
            let detail = problem.ok().and_then(|it| Some(it.get("detail")?.as_str()?.to_owned()));
            let detail = detail.map(|detail| format!(" {detail}")).unwrap_or_default();
            Err(Error::Answer { url: args.admin.clone(), status: status.as_u16(), detail })
        }
    }
}

/// Reads events until the connection is lost. Returns the reason of the loss.
async fn read(mut body: Incoming, calls: &mut Calls) -> Result<String, ReaderGone> {
    let mut text = Vec::new();
    loop {
        let frame = match timeout(SILENCE_MAX, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Ok(error.to_string()),
            Ok(None) => return Ok("the server ended it".to_owned()),
            Err(_) => return Ok("nothing came for 10 s".to_owned()),
        };
        let Ok(bytes) = frame.into_data() else { continue };
        let searched = text.len().saturating_sub(1);
        text.extend_from_slice(&bytes);
        let mut begin = 0;
        let mut from = searched;
        while let Some(end) = text[from..].windows(2).position(|two| two == b"\n\n") {
            let end = from + end;
            calls.take(&text[begin..end])?;
            begin = end + 2;
            from = begin;
        }
        text.drain(..begin);
        if text.len() > EVENT_BYTES_MAX {
            return Ok("an event is too long".to_owned());
        }
        if log::is_reader_gone() {
            return Err(ReaderGone);
        }
    }
}

/// A live call, as the server tells it.
#[derive(Clone, Debug, Deserialize)]
struct Live {
    key: String,
    #[serde(flatten)]
    head: Head,
}

/// Facts about a call that are known from its start on. Numbers and parameters are left out.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Head {
    stream_id: String,
    call_id: String,
    started_at: Timestamp,
    tracks: Vec<String>,
}

/// A finished recording, as the server tells it.
#[derive(Debug, Deserialize, Serialize)]
struct Finished {
    #[serde(flatten)]
    head: Head,
    day: String,
    id: Option<String>,
    state: String,
    end: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    ended_at: Timestamp,
    duration_ms: u64,
}

/// A line of the output.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'c> {
    /// A call began, or was going on when the connection was made.
    Began(&'c Head),
    /// Its recording is finished.
    Ended(&'c Finished),
    /// It ended while there was no connection: `callreel list` tells how.
    Missed(&'c Head),
}

/// The calls that are known to go on.
#[derive(Default)]
struct Calls {
    json: bool,
    /// By their keys.
    known: BTreeMap<String, Head>,
    /// The calls that the last picture told to be over, as far as they are not finished since.
    missed: Vec<Head>,
    /// The first picture has come.
    has_picture: bool,
    /// Events were lost since the last picture.
    is_lost: bool,
    /// Id of the last event.
    last_event: Option<String>,
}

impl Calls {
    /// Takes one event, without the empty line behind it. Events of other kinds are ignored, and so are
    /// those that another version writes in another form.
    fn take(&mut self, event: &[u8]) -> Result<(), ReaderGone> {
        let event = String::from_utf8_lossy(event);
        let field = |name| event.lines().find_map(|line| line.strip_prefix(name));
        let (Some(kind), Some(data)) = (field("event: "), field("data: ")) else { return Ok(()) };
        self.take_known(kind, data)?;
        if let Some(id) = field("id: ") {
            self.last_event = Some(id.to_owned());
        }
        Ok(())
    }

    fn take_known(&mut self, kind: &str, data: &str) -> Result<(), ReaderGone> {
        match kind {
            "lost" => {
                self.is_lost = true;
                Ok(())
            }
            // The events tell all that has changed since the last picture.
            "hello" if self.has_picture && !self.is_lost => Ok(()),
            "hello" => {
                #[derive(Deserialize)]
                struct Picture {
                    calls: Vec<Live>,
                }
                match serde_json::from_slice::<Picture>(data.as_bytes()) {
                    Ok(picture) => {
                        (self.has_picture, self.is_lost) = (true, false);
                        self.compare(picture.calls)
                    }
                    Err(_) => Ok(()),
                }
            }
            "started" => match serde_json::from_slice::<Live>(data.as_bytes()) {
                Ok(live) => self.begin(live),
                Err(_) => Ok(()),
            },
            "published" => match serde_json::from_slice::<Finished>(data.as_bytes()) {
                Ok(finished) => self.end(&finished),
                Err(_) => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Tells the differences between the known calls and those of a new picture. A server that was
    /// started again gives the same keys to other calls.
    fn compare(&mut self, calls: Vec<Live>) -> Result<(), ReaderGone> {
        let before = std::mem::take(&mut self.known);
        let goes_on = |head: &Head| calls.iter().any(|live| live.head == *head);
        let (going_on, gone): (Vec<Head>, Vec<Head>) = before.into_values().partition(goes_on);
        for head in &gone {
            self.say(&Line::Missed(head))?;
        }
        self.missed = gone;
        for live in calls {
            if going_on.contains(&live.head) {
                self.known.insert(live.key, live.head);
            } else {
                self.begin(live)?;
            }
        }
        Ok(())
    }

    /// Notes a call, and tells of it unless the picture did: an event may come that is older than that.
    fn begin(&mut self, live: Live) -> Result<(), ReaderGone> {
        if self.known.get(&live.key) == Some(&live.head) {
            return Ok(());
        }
        self.say(&Line::Began(&live.head))?;
        self.known.insert(live.key, live.head);
        Ok(())
    }

    /// Notes the end of a call, and tells of it unless that was done before: its recording may be finished
    /// only after the connection was lost and made again.
    fn end(&mut self, finished: &Finished) -> Result<(), ReaderGone> {
        if let Some(index) = self.missed.iter().position(|head| *head == finished.head) {
            self.missed.swap_remove(index);
            return Ok(());
        }
        self.known.retain(|_, head| *head != finished.head);
        self.say(&Line::Ended(finished))
    }

    fn say(&self, line: &Line<'_>) -> Result<(), ReaderGone> {
        if self.json {
            return log::say_json(line);
        }
        let at = |time: &Timestamp| time.strftime("%Y-%m-%d %H:%M:%S").to_string();
        log::say(&match line {
            Line::Began(Head { stream_id, started_at, tracks, .. }) => {
                format!("{}  began   {stream_id}  {}", at(started_at), tracks.join(" and "))
            }
            Line::Ended(Finished { head, state, end, reason, ended_at, duration_ms, .. }) => {
                let reason = reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
                let (stream_id, length) = (&head.stream_id, length(*duration_ms));
                format!("{}  ended   {stream_id}  {length}, {state} ({end}){reason}", at(ended_at))
            }
            Line::Missed(Head { stream_id, .. }) => format!(
                "{}  ended   {stream_id}  while there was no connection; see `callreel list`",
                at(&Timestamp::now())
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_or_a_url_leads_to_the_events() {
        for (text, url) in [
            ("127.0.0.1:5051", "http://127.0.0.1:5051/"),
            ("[::1]:5051", "http://[::1]:5051/"),
            ("https://a.example/console/", "https://a.example/console"),
            ("http://a.example/?x=1#y", "http://a.example/"),
        ] {
            assert_eq!(admin_url(text).unwrap().as_str(), url, "{text}");
        }
        for text in ["off", "", "ftp://a.example", "https://user:pass@a.example", "http://"] {
            admin_url(text).unwrap_err();
        }
    }
}
