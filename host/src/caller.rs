//! The calling side: a look-alike of Twilio, and of other providers, that places calls.
//!
//! It sends a provider's messages, in its spelling and at its pace, with signatures if a token is
//! given and with faults if they are asked for. Users try their deployment with it, CI runs it, and
//! callreel's own tests and load runs have no other client. It follows TwiML as Twilio does, and must be
//! neither kinder nor harder. A provider is a table in `looks`; nothing else knows its spelling.
//!
//! It hears the other end, too: a bot's audio goes through a provider's play-out buffer, and the report tells
//! the part that a caller would have heard.
//!
//! [`place`] is the library's entry point, [`run`] the command's.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use serde::Serialize;
use tokio::task::JoinSet;
use url::Url;

use self::looks::{Carried, End, Stride, Tongue};
use crate::audio::Audio;
use crate::disk::is_there;
use crate::tasks::Task;
use crate::trust::{Authorities, Cipher};
use crate::twilio::AuthToken;

mod args;
mod call;
mod certificate;
mod copies;
mod cue;
mod dictionary;
mod error;
mod heard;
mod line;
mod looks;
mod messages;
mod meter;
mod playout;
mod proof;
mod providers;
mod refusal;
mod sound;
mod stream;
mod template;
mod tongue;
mod twiml;
mod verdict;
mod voice;
mod webhook;
mod wire;
mod words;

pub use args::{Args, run};
pub use certificate::ServerCertificate;
pub use cue::{Action, Cue, Fault};
pub use dictionary::TwilioError;
pub use error::Error;
pub use heard::{Heard, Latency, Turn, Utterance};
pub use looks::{AskedCodec, Look};
pub use messages::Track;
pub use meter::{Lateness, Meter, ServerCost};
pub use words::{SaidFile, Words};

const USER_AGENT: &str = concat!("callreel/", env!("CARGO_PKG_VERSION"));

/// Length of a call with made-up audio and no duration.
const DEFAULT_DURATION: Duration = Duration::from_secs(10);

/// Time for the answer to the last words of a call without a duration.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// The tracks of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DialledTracks {
    /// The far party's voice
    Inbound,
    /// The audio that the far party hears
    Outbound,
    /// Both, as two different voices
    Both,
}

impl DialledTracks {
    fn as_slice(self) -> &'static [Track] {
        match self {
            Self::Inbound => &[Track::Inbound],
            Self::Outbound => &[Track::Outbound],
            Self::Both => &[Track::Inbound, Track::Outbound],
        }
    }
}

/// A plan of calls: the URL, the number of calls, their audio and their faults.
///
/// ```no_run
/// # async fn example() {
/// use callreel::caller::{DialledTracks, Plan, place};
///
/// let mut plan = Plan::new("ws://127.0.0.1:5050/media-stream");
/// plan.calls = 3;
/// plan.tracks = Some(DialledTracks::Both);
/// let report = place(&plan).await.unwrap();
/// assert!(report.is_good());
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Plan {
    /// The provider that the calls look like.
    pub look: &'static Look,
    /// Codec of the audio; `None`: the provider's usual one that has the rate.
    pub codec: Option<AskedCodec>,
    /// Samples a second, in Hz; `None`: the usual rate of the codec.
    pub rate_hz: Option<u32>,
    /// `ws` or `wss`: the stream itself; `http` or `https`: a webhook that answers with the TwiML to
    /// follow.
    pub url: String,
    /// `HOST:PORT` that TCP connects to for the stream, without TLS (as behind a tunnel or proxy
    /// that ends it), or `tls://HOST:PORT`.
    pub connect: Option<String>,
    /// Authorities that are trusted for `wss` and `https` beside those of this machine.
    pub ca: Authorities,
    /// The only cipher that is offered for `wss` and `https`; `None`: all.
    pub cipher: Option<Cipher>,
    /// Whether a `ws` URL in the TwiML is followed, which Twilio refuses.
    pub allow_ws: bool,
    /// Number of calls.
    pub calls: u32,
    /// Audio of the calls; `None`: made up, another voice in every call.
    pub audio: Option<Audio>,
    /// Tracks of a call; `None`: those of the TwiML, else all that the audio has.
    pub tracks: Option<DialledTracks>,
    /// Length of a call; audio is cut or repeated to it. `None`: the audio's, or 10 s.
    pub duration: Option<Duration>,
    /// Whether frames go as fast as the server takes them, not fifty a second.
    pub flood: bool,
    /// The time over which calls begin; `None`: 2 ms a call.
    pub ramp: Option<Duration>,
    /// Account id of every call; `None`: a random one.
    pub account_sid: Option<String>,
    /// Call id of every call; `None`: random ones.
    pub call_sid: Option<String>,
    /// Stream id of every call; `None`: random ones.
    pub stream_sid: Option<String>,
    /// Custom parameters of the stream, beside those of the TwiML.
    pub parameters: Vec<(String, String)>,
    /// Signs webhook and upgrade with this token, or proves the upgrade with it as the provider does.
    pub auth_token: Option<AuthToken>,
    /// The URL to sign, if the server's public URL is not the called one.
    pub sign_url: Option<String>,
    /// Words at their times, with silence between them, in the place of other audio. Empty: none.
    pub say: Vec<Words>,
    /// Keys, marks and faults besides the audio.
    pub cues: Vec<Cue>,
    /// Media time of the first frame, in milliseconds; `None`: the provider's, one seen in captures.
    pub first_timestamp_ms: Option<u64>,
    /// Directory for copies of the sent audio, as raw bytes: each stream and track goes to a file
    /// `<streamSid>[-<n>][.outbound].<format>`, each chunk once, in the order sent; `n` counts from 2 if an
    /// id is repeated. The format is `ulaw`, `alaw`, `g722`, `s16le` or `s16be`.
    pub save_sent: Option<PathBuf>,
    /// New file for both sides of a conversation, on one clock: the caller left, and right the audio of the
    /// bot as the caller heard it. 16-bit PCM at the stream's rate.
    pub save_heard: Option<PathBuf>,
    /// Largest latency of the bot's answers with which a call is good.
    pub max_latency: Option<Duration>,
    /// Longest time for the server to close after `stop`.
    pub patience: Duration,
    /// Seed of the made-up voices.
    pub seed: u64,
}

impl Plan {
    /// One call with the look of Twilio and made-up audio of 10 s at real pace.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            look: Look::twilio(),
            codec: None,
            rate_hz: None,
            url: url.into(),
            connect: None,
            ca: Authorities::default(),
            cipher: None,
            allow_ws: false,
            calls: 1,
            audio: None,
            tracks: None,
            duration: None,
            flood: false,
            ramp: None,
            account_sid: None,
            call_sid: None,
            stream_sid: None,
            parameters: Vec::new(),
            auth_token: None,
            sign_url: None,
            say: Vec::new(),
            cues: Vec::new(),
            first_timestamp_ms: None,
            save_sent: None,
            save_heard: None,
            max_latency: None,
            patience: Duration::from_secs(10),
            seed: 0,
        }
    }

    /// Adds a fault, as `--fault` spells it.
    ///
    /// # Errors
    /// There is no such fault, or its time cannot be read.
    pub fn fault(&mut self, fault: &str) -> Result<(), String> {
        self.cues.push(fault.parse()?);
        Ok(())
    }

    fn has(&self, fault: Fault) -> bool {
        self.cues.iter().any(|cue| matches!(cue.action, Action::Fault(other, _) if other == fault))
    }

    /// The close codes that are right at the end; empty: any end is right.
    fn expected_codes(&self) -> &'static [u16] {
        let mut faults = self.cues.iter().filter_map(|cue| match cue.action {
            Action::Fault(fault, _) => Some(fault.expected_codes()),
            _ => None,
        });
        let usual: &[u16] = match self.look.end {
            End::ServerCloses => &[1000],
            // The server repeats the caller's code, or leaves it out.
            _ => &[1000, 1005],
        };
        faults.rfind(|codes| *codes != [1000]).unwrap_or(usual)
    }

    /// The format of the audio.
    fn stride(&self) -> Result<Stride, Error> {
        self.look
            .stride(self.codec, self.rate_hz)
            .ok_or_else(|| Error::Format { look: self.look.name(), formats: self.look.formats() })
    }

    fn length(&self) -> Duration {
        let of_audio = |audio: &Audio| Duration::from_micros(audio.samples() as u64 * 125);
        let of_words = |words: &Words| (words.end() + ANSWER_TIME).max(DEFAULT_DURATION);
        self.duration
            .or_else(|| self.say.iter().map(of_words).max())
            .or_else(|| self.audio.as_ref().map(of_audio))
            .unwrap_or(DEFAULT_DURATION)
    }

    /// Whether anything is asked for that only a call with a bot has.
    fn is_two_way(&self) -> bool {
        let is_of_echo = |cue: &Cue| matches!(&cue.action, Action::Fault(f, _) if f.is_of_echo());
        !self.say.is_empty()
            || self.max_latency.is_some()
            || self.save_heard.is_some()
            || self.cues.iter().any(is_of_echo)
    }

    /// The reason for which no call of the plan can hear a bot; `None` if it may.
    fn deafness(&self) -> Option<&'static str> {
        if self.flood {
            return Some("a flood has no real time, in which audio is heard");
        }
        if self.look.bot.tongue == Tongue::None {
            return Some("nobody tells how this provider takes audio");
        }
        match self.tracks {
            None | Some(DialledTracks::Inbound) => None,
            _ => Some("a stream that takes audio has the inbound track alone"),
        }
    }

    /// Whether a fault ends the connection.
    fn has_ending(&self) -> bool {
        self.cues.iter().any(|cue| cue.action.ends_connection())
    }

    /// Refuses a plan that no call of this look can follow.
    fn check(&self, url: &Url) -> Result<Stride, Error> {
        let (look, stride) = (self.look.name(), self.stride()?);
        if url.scheme().starts_with("http") && !self.look.has_twiml {
            return Err(Error::NoWebhook { look });
        }
        if let Some(reason) = self.auth_token.as_ref().and_then(|t| proof::obstacle(self.look, t)) {
            return Err(Error::Token { look, reason });
        }
        if let (Carried::One(track), Some(DialledTracks::Both)) = (self.look.tracks, self.tracks) {
            return Err(Error::Tracks { look, track });
        }
        if let Some(reason) = self.deafness().filter(|_| self.is_two_way()) {
            return Err(Error::OneWay { reason });
        }
        if let Some(path) = &self.save_heard
            && is_there(path).unwrap_or(false)
        {
            let cause = io::Error::new(io::ErrorKind::AlreadyExists, "there is such a file");
            return Err(Error::SaveHeard { path: path.clone(), cause });
        }
        if let Some(words) = self.say.iter().find(|words| words.at >= self.length()) {
            return Err(Error::LateWords { at: words.at, length: self.length() });
        }
        for cue in &self.cues {
            if let Some(reason) = self.look.obstacle(&cue.action) {
                return Err(Error::Unlike { cue: cue.clone(), look, reason });
            }
        }
        // No chunk of the call is at its time or later.
        let chunks = stride.chunks(stride.samples(self.length()));
        let is_late = |cue: &&Cue| stride.chunks_in(cue.at.unwrap_or_default()) >= chunks;
        match self.cues.iter().find(is_late) {
            Some(cue) => Err(Error::Late { cue: cue.clone(), length: self.length() }),
            None => Ok(stride),
        }
    }
}

/// The end of a call, as seen by the caller.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "how", rename_all = "snake_case")]
#[non_exhaustive]
pub enum CallEnd {
    /// The server sent a close frame (1005: one without a code), of its own or as the answer to the
    /// caller's.
    Closed {
        /// The close code.
        code: u16,
        /// The close reason.
        reason: String,
    },
    /// The caller cut the connection, as planned.
    CutOff,
    /// The server ended the TCP stream without a close frame.
    Dropped,
    /// The call never began.
    Failed {
        /// The reason.
        error: String,
    },
    /// The connection was reset.
    Reset,
    /// The server did not end the call in time.
    StillOpen,
    /// The server did not answer a message in time.
    Unanswered {
        /// The missing answer.
        answer: &'static str,
    },
    /// The server broke the WebSocket protocol, or the provider's.
    Unintelligible {
        /// The error.
        error: String,
    },
}

impl fmt::Display for CallEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { code, reason } if reason.is_empty() => write!(f, "closed with {code}"),
            Self::Closed { code, reason } => write!(f, "closed with {code} ({reason})"),
            Self::CutOff => f.write_str("cut off by the caller"),
            Self::Dropped => f.write_str("dropped by the server without a close frame"),
            Self::Failed { error } => write!(f, "failed: {error}"),
            Self::Reset => f.write_str("reset"),
            Self::StillOpen => f.write_str("not closed by the server in time"),
            Self::Unanswered { answer } => write!(f, "not answered with `{answer}` in time"),
            Self::Unintelligible { error } => write!(f, "ended by a protocol error: {error}"),
        }
    }
}

/// The report of one connection.
#[derive(Clone, Debug, Serialize)]
pub struct CallReport {
    /// Index of the call in the plan, from 0; a reconnect or replay has a report of its own.
    pub call_index: u32,
    /// The stream's id.
    pub stream_sid: String,
    /// The call's id.
    pub call_sid: String,
    /// Media frames sent.
    pub frames_sent: u64,
    /// Samples sent, both tracks together, each chunk counted once.
    pub samples_sent: u64,
    /// Whether the call was ended as its provider ends it: by `stop`, or by closing the connection.
    pub stopped: bool,
    /// The end of the connection.
    pub end: CallEnd,
    /// Milliseconds from `stop`, or from the caller's close, to the end.
    pub close_lag_ms: Option<f64>,
    /// Whether the connection ended as expected.
    pub good: bool,
    /// The error that Twilio would show for a bad end, if it has one for it.
    pub twilio_error: Option<TwilioError>,
    /// Remarks about the TwiML that the call followed, and about messages of the bot.
    pub notes: Vec<String>,
    /// The conversation with the bot at the other end; none with a server that only listens, unless the plan
    /// asks for it.
    pub heard: Option<Heard>,
}

/// The report of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Name of the provider that the calls looked like.
    pub provider: &'static str,
    /// One entry a connection, in the order of the calls.
    pub calls: Vec<CallReport>,
    /// Media frames sent.
    pub frames_sent: u64,
    /// Seconds from the start of the run to the last end.
    pub seconds: f64,
    /// Lateness of the caller itself; zero in a flood.
    pub lateness: Lateness,
    /// The certificate that the server showed last; none without TLS.
    pub certificate: Option<ServerCertificate>,
    /// Cost of the server's process, if it was asked for and all calls were up at one time.
    pub server: Option<ServerCost>,
}

impl Report {
    /// Whether every call ended as expected, and no answer was later than the plan's largest latency.
    pub fn is_good(&self) -> bool {
        let is_slow =
            |call: &CallReport| call.heard.as_ref().is_some_and(|heard| heard.is_too_slow);
        self.calls.iter().all(|call| call.good && !is_slow(call))
    }
}

/// Places the plan's calls and waits until they are over.
///
/// The failure of a single call is in its report; it is no error here. Uses one task a call on the
/// current runtime; one core can pace about a thousand calls.
///
/// # Errors
/// The URL cannot be called, the provider has no such format, track, token or cue, or a cue is due after the
/// end of the call.
pub async fn place(plan: &Plan) -> Result<Report, Error> {
    let meter = Meter::new(plan.calls, &[]).expect("no process to look for");
    place_metered(plan, Arc::new(meter)).await
}

/// [`place`], with counters that can be watched meanwhile; `meter` must be made for the plan's number
/// of calls.
///
/// # Errors
/// As for [`place`].
pub async fn place_metered(plan: &Plan, meter: Arc<Meter>) -> Result<Report, Error> {
    let url = Url::parse(&plan.url).map_err(|_| Error::Url { url: plan.url.clone() })?;
    if !matches!(url.scheme(), "ws" | "wss" | "http" | "https") || url.host().is_none() {
        return Err(Error::Url { url: plan.url.clone() });
    }
    let stride = plan.check(&url)?;
    let crew = Arc::new(call::Crew::new(plan.clone(), stride, url, meter.clone()));
    let (begun, tls) = (crew.begun, crew.tls.clone());
    let mut calls = JoinSet::new();
    for index in 0..plan.calls {
        calls.spawn(Box::pin(call::run(crew.clone(), index)) as Task<_>);
    }
    let mut reports: Vec<CallReport> = calls.join_all().await.into_iter().flatten().collect();
    // Stable: a call's reconnects stay in their order.
    reports.sort_by_key(|report| report.call_index);
    Ok(Report {
        provider: plan.look.name(),
        frames_sent: reports.iter().map(|report| report.frames_sent).sum(),
        calls: reports,
        seconds: begun.elapsed().as_secs_f64(),
        lateness: meter.lateness(),
        certificate: tls.shown(),
        server: meter.server_cost(),
    })
}
