//! `callreel call`: the command line and the progress bar.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::cue::{self, parse_dtmf, parse_mark};
use super::verdict::{first_failure_if_all_failed, json, verdict};
use super::words::{self, SaidFile, parse_say};
use super::{AskedCodec, Cue, DialledTracks, Error, Look, Meter, Plan, place_metered, providers};
use crate::audio::Audio;
use crate::tasks;
use crate::trust::{Authorities, Cipher};
use crate::twilio::{self, AuthToken};
use crate::{descriptors, units};

/// Interval of the progress bar's updates.
const REDRAW: Duration = Duration::from_millis(200);

/// The variable of Twilio's auth token.
const TOKEN_VARIABLE: &str = "TWILIO_AUTH_TOKEN";

/// Places calls as Twilio or another provider does: a look-alike for tests, demos, CI and load.
///
/// Exit code 0 means that every call ended as expected: closed by the server with 1000 after stop, as the
/// provider's streams end, or as the fault demands. A call with a voice bot is good if the bot closes, ends the TCP
/// stream behind stop or hangs up with 1000, and if no answer is later than --max-latency.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:
  callreel call                            one made-up call of 10 s to a server on this machine
  callreel call greeting.wav --tracks both
  callreel call --as telnyx --codec l16 --rate 16000
  callreel call --as genesys --auth-token KEY:SECRET --url wss://calls.example.com/genesys
  callreel call --url http://127.0.0.1:5050/incoming-call
  callreel call --calls 100 --duration 1m --save-sent sent
  callreel call --fault gap=500ms@2s --fault rst@5s
  callreel call --url ws://127.0.0.1:8765/ws --say question.wav@1s --barge-in 6s --max-latency 1.5s
                                           a voice bot, interrupted in its answer
  TWILIO_AUTH_TOKEN=... callreel call --url http://127.0.0.1:5050/incoming-call \\
      --sign-url https://calls.example.com/incoming-call --connect 127.0.0.1:5050
                                           a server here that only takes requests signed for
                                           its public address")]
pub struct Args {
    /// WAV (8 kHz; PCM, A-law or mu-law; mono or stereo) or raw mu-law (.ulaw); none: made-up
    /// speech, another voice in every call
    pub audio: Option<PathBuf>,

    /// Provider that the calls look like; --list-providers tells all
    #[arg(long = "as", value_name = "PROVIDER", default_value = "twilio", value_parser = parse_look)]
    pub look: &'static Look,

    /// Codec of the audio [default: the usual one of the provider that has the rate]
    #[arg(long)]
    pub codec: Option<AskedCodec>,

    /// Samples a second, like 16000; audio of 8 kHz is taken to it [default: the usual one of the codec]
    #[arg(long, value_name = "HZ")]
    pub rate: Option<u32>,

    /// List the providers, with codecs, tracks, times and ends
    #[arg(long)]
    pub list_providers: bool,

    /// URL of the stream (ws, wss) or of a webhook (http, https); the TwiML of a webhook is followed as
    /// Twilio follows it, and what Twilio refuses is refused with Twilio's error number
    #[arg(long, default_value = "ws://127.0.0.1:5050/media-stream")]
    pub url: String,

    /// Connect to this address instead of the stream URL's host; without TLS, as the proxy in
    /// front of the server does. tls://HOST:PORT keeps TLS
    #[arg(long, value_name = "HOST:PORT")]
    pub connect: Option<String>,

    /// Trust the certificates in this file (PEM), too, for wss and https
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,

    /// Offer this cipher of TLS alone, like TLS13_AES_128_GCM_SHA256
    #[arg(long, value_name = "NAME")]
    pub cipher: Option<Cipher>,

    /// Take a ws:// URL from the TwiML, too, which Twilio refuses; for rehearsals without TLS
    #[arg(long)]
    pub allow_ws: bool,

    /// Number of calls
    #[arg(long, short = 'n', value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub calls: u32,

    /// Length of a call, like 10s or 2m; audio is cut or repeated to it [default: the audio's
    /// length, or 10s]
    #[arg(long, value_parser = units::duration)]
    pub duration: Option<Duration>,

    /// Tracks to send [default: both for a stereo file or if the TwiML says so, else inbound]
    #[arg(long)]
    pub tracks: Option<DialledTracks>,

    /// Send frames as fast as the server takes them, not 50 a second
    #[arg(long)]
    pub flood: bool,

    /// Time over which the calls begin [default: 2 ms a call]
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    pub ramp: Option<Duration>,

    /// Stream id, the same for all calls [default: random]
    #[arg(long, value_name = "ID")]
    pub stream_sid: Option<String>,

    /// Call id, the same for all calls [default: random]
    #[arg(long, value_name = "ID")]
    pub call_sid: Option<String>,

    /// Account id [default: random]
    #[arg(long, value_name = "ID")]
    pub account_sid: Option<String>,

    /// Custom parameter of the stream; may be given again
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_parameter)]
    pub parameter: Vec<(String, String)>,

    /// Sign webhook and upgrade with this token, as Twilio does; with --as prove the upgrade as that provider
    /// does. The variable is for Twilio alone
    #[arg(long, value_name = "TOKEN", env = TOKEN_VARIABLE, hide_env_values = true, value_parser = parse_token)]
    pub auth_token: Option<AuthToken>,

    /// URL to sign, if the server's public URL is not --url; with a webhook the signature of the stream
    /// covers the URL in the TwiML, and --connect leads the stream to the server itself
    #[arg(long, value_name = "URL", requires = "auth_token")]
    pub sign_url: Option<String>,

    /// Say this WAV or raw mu-law at a time, and be silent otherwise; may be given again.
    /// Without TIME it is said at the next --barge-in, or at the start. A caller with words talks with a bot:
    /// the verdict tells the audio that came back, and the latency of each answer
    #[arg(long, value_name = "FILE[@TIME]", value_parser = parse_say, conflicts_with_all = ["audio", "flood"])]
    pub say: Vec<SaidFile>,

    /// Begin to speak at this time of the call, over the bot; with the words of a --say without TIME, or
    /// built-in ones; may be given again
    #[arg(long, value_name = "TIME", value_parser = units::duration, conflicts_with_all = ["audio", "flood"])]
    pub barge_in: Vec<Duration>,

    /// Largest latency of a bot's answer: from the caller's last sound to the first one of the bot. A later
    /// or missing answer makes the exit code 1
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    pub max_latency: Option<Duration>,

    /// New WAV for both sides of the call on one clock: the caller left, the bot as it was heard right
    #[arg(long, value_name = "FILE")]
    pub save_heard: Option<PathBuf>,

    /// Press a key: DIGIT or DIGIT@TIME; may be given again
    #[arg(long, value_name = "DIGIT[@TIME]", value_parser = parse_dtmf)]
    pub dtmf: Vec<Cue>,

    /// Send a mark: NAME or NAME@TIME; may be given again
    #[arg(long, value_name = "NAME[@TIME]", value_parser = parse_mark)]
    pub mark: Vec<Cue>,

    /// Inject a fault, like rst or gap=500ms@2s; may be given again; --help lists all
    #[arg(long, value_name = "FAULT", long_help = cue::help())]
    pub fault: Vec<Cue>,

    /// Media time of the first frame, in ms [default: the provider's; Twilio's are 52 to 171]
    #[arg(long, value_name = "MS")]
    pub first_timestamp: Option<u64>,

    /// Directory for copies of the sent audio, a file a track: STREAM_SID.ulaw,
    /// STREAM_SID.outbound.ulaw; other codecs are .alaw, .g722, .s16le and .s16be
    #[arg(long, value_name = "DIR")]
    pub save_sent: Option<PathBuf>,

    /// Longest time for the server's close, or its answer
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = units::duration)]
    pub patience: Duration,

    /// Measure this process (the server): CPU time a frame, memory a call; may be given again, for the sum
    #[arg(long)]
    pub pid: Vec<u32>,

    /// Seed of the made-up voices
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// Print the verdict, or the list of providers, as JSON
    #[arg(long)]
    pub json: bool,
}

fn parse_parameter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a parameter is NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn parse_look(text: &str) -> Result<&'static Look, String> {
    Look::named(text).ok_or_else(|| {
        let names: Vec<_> = Look::all().iter().map(|look| look.name()).collect();
        format!("no such provider; known are {}", names.join(", "))
    })
}

fn parse_token(text: &str) -> Result<AuthToken, twilio::Error> {
    AuthToken::new(text.to_owned())
}

impl Args {
    /// The plan of these arguments; reads the audio file.
    ///
    /// # Errors
    /// The audio file cannot be read or is unfit.
    pub fn plan(&self) -> Result<Plan, Error> {
        let args = self.clone();
        let audio = args.audio.as_deref().map(Audio::read).transpose()?;
        let ca = args.ca.as_deref().map(Authorities::read).transpose()?.unwrap_or_default();
        // A token of Twilio must not reach the server of somebody else.
        let is_twilios = |token: &AuthToken| {
            let variable = std::env::var_os(TOKEN_VARIABLE);
            variable.is_some_and(|value| value.as_encoded_bytes() == token.bytes())
        };
        let auth_token = args.auth_token.filter(|t| args.look.is_twilio() || !is_twilios(t));
        let say = words::words(&args.say, &args.barge_in, args.seed)?;
        Ok(Plan {
            look: args.look,
            codec: args.codec,
            rate_hz: args.rate,
            url: args.url,
            connect: args.connect,
            ca,
            cipher: args.cipher,
            allow_ws: args.allow_ws,
            calls: args.calls,
            audio,
            tracks: args.tracks,
            duration: args.duration,
            flood: args.flood,
            ramp: args.ramp,
            account_sid: args.account_sid,
            call_sid: args.call_sid,
            stream_sid: args.stream_sid,
            parameters: args.parameter,
            auth_token,
            sign_url: args.sign_url,
            say,
            cues: [args.dtmf, args.mark, args.fault].concat(),
            first_timestamp_ms: args.first_timestamp,
            save_sent: args.save_sent,
            save_heard: args.save_heard,
            max_latency: args.max_latency,
            patience: args.patience,
            seed: args.seed,
        })
    }
}

/// Runs `callreel call`: places the calls, shows progress on a terminal, prints the verdict, and returns
/// whether every call ended as expected. With `--list-providers` prints the list instead.
///
/// Ctrl-C lets all calls stop in good order. Everything runs on the calling thread, so that a
/// second core is left to the server; it must not be called from within an async runtime.
///
/// # Errors
/// The arguments cannot be followed, or no call at all could begin: then the error is that of the first
/// call (with `--json`, failed calls are printed like others instead).
pub fn run(args: &Args) -> Result<bool, Error> {
    if args.list_providers {
        let list = if args.json { providers::json() } else { providers::table() };
        // If stdout is closed, nobody reads the list.
        let _ = io::stdout().write_all(list.as_bytes());
        return Ok(true);
    }
    let plan = args.plan()?;
    let meter =
        Meter::new(plan.calls, &args.pid).map_err(|(pid, cause)| Error::Process { pid, cause })?;
    let meter = Arc::new(meter);
    // A thousand calls need a thousand sockets, and a file a track if copies are kept. Too few descriptors
    // show up as failed calls, with the system's own message.
    descriptors::raise_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a process can have one more epoll");
    let report = tasks::run_on(&runtime, async {
        let watched = tasks::spawn(watch(meter.clone(), progress_bar(&plan)));
        let report = place_metered(&plan, meter).await;
        watched.abort();
        report
    });
    // A resolver that does not answer is not waited for.
    runtime.shutdown_background();
    let report = report?;
    if let Some(reason) = first_failure_if_all_failed(&report)
        && !args.json
    {
        return Err(Error::NoCall { reason });
    }
    let printed = if args.json { json(&report) } else { verdict(&report) };
    // If stdout is closed, nobody reads the verdict; the exit code still gives it.
    let _ = io::stdout().write_all(printed.as_bytes());
    Ok(report.is_good())
}

fn progress_bar(plan: &Plan) -> ProgressBar {
    const STYLE: &str = "{msg} [{wide_bar}] {elapsed} of {prefix}";
    let tracks = plan.tracks.map_or(1, |tracks| tracks.as_slice().len() as u64);
    let chunk_ms = u128::from(plan.look.chunk_ms);
    let frames = (plan.length().as_millis() / chunk_ms) as u64 * u64::from(plan.calls) * tracks;
    // Draws on stderr, and only if that is a terminal.
    let bar = ProgressBar::new(frames);
    bar.set_style(ProgressStyle::with_template(STYLE).expect("the template is well formed"));
    bar.set_prefix(if plan.flood { "flood".to_owned() } else { format!("{:?}", plan.length()) });
    bar
}

/// Moves the bar and listens for Ctrl-C until it is aborted.
async fn watch(meter: Arc<Meter>, bar: ProgressBar) {
    let cleared = ClearOnDrop(bar);
    let mut redraw = tokio::time::interval(REDRAW);
    loop {
        tokio::select! {
            _ = redraw.tick() => {
                let live = meter.calls_settled().saturating_sub(meter.calls_over());
                cleared.0.set_message(format!("{live} calls, {} over", meter.calls_over()));
                cleared.0.set_position(meter.frames_sent());
            }
            _ = tokio::signal::ctrl_c() => {
                if meter.is_hung_up() {
                    // A second Ctrl-C: the user does not want to wait.
                    std::process::exit(130);
                }
                meter.hang_up();
            }
        }
    }
}

struct ClearOnDrop(ProgressBar);

impl Drop for ClearOnDrop {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
