//! Commands and settings. The arguments of a command become the `Config` of each part of the server. All
//! of them are checked before anything is opened or bound.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::error::ErrorKind;
use clap::{ArgMatches, Args, FromArgMatches, Parser, Subcommand};

use crate::caller_ids::Callers;
use crate::decode::Format;
use crate::log::LogFormat;
use crate::stream_tokens::StreamTokens;
use crate::units::{count, duration, positive, size};
use crate::{
    Config, admin, caller, decode, demo, engine, http, log, repair, shown, store, twilio, webhook,
};

/// Longest `--read-interval`. The interval delays every checkpoint, and so adds to the audio that a
/// crash may cost.
const READ_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// Records phone calls that a provider streams over WebSocket.
#[derive(Debug, Parser)]
#[command(
    name = "callreel",
    version,
    override_usage = "callreel [OPTIONS] [COMMAND]",
    after_help = EXAMPLES
)]
pub struct Cli {
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Without a command, callreel runs `serve` and takes the options of `serve`.

Examples:
  callreel                                    Record on 0.0.0.0:5050 into ./recordings
  callreel serve --help                       List all settings; each is also a variable CALLREEL_...
  CALLREEL_LOG=debug callreel                 Log more: error, warn, info (default), debug, trace";

const SERVE_EXAMPLES: &str = "\
Examples:
  Try it; without an auth token, anybody that finds the address can record:
    callreel serve --dir recordings
    ngrok http 5050     # then set the number's webhook to https://<name>.ngrok.app/incoming-call

  In public; only requests that Twilio has signed for this address are accepted:
    TWILIO_AUTH_TOKEN=... callreel serve --public-url https://calls.example.com

  CALLREEL_LOG=debug (or error, warn, info, callreel::http=debug) sets the log level;
  CALLREEL_LOG=@FILE reads the level from a file, at the start and again at SIGHUP.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Place calls as Twilio does, for tests, demos, CI and load
    Call(Deferred<caller::Args>),
    /// Turn stored mu-law or captured frames into WAV
    Decode(Deferred<decode::Args>),
    /// Record a few calls on this machine, without an account at a provider, and check them
    Demo(Deferred<demo::Args>),
    /// Make WAV files playable that were not finished or have a wrong header
    Repair(Deferred<repair::Args>),
    /// Record calls (the default)
    Serve(Deferred<ServeArgs>),
}

/// Arguments of a command. clap builds them only when that command is used: building those of all
/// commands takes as long as decoding a short call.
#[derive(Debug)]
pub struct Deferred<A>(pub Box<A>);

impl<A: Args> Args for Deferred<A> {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.defer(A::augment_args)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        command.defer(A::augment_args_for_update)
    }
}

impl<A: Args> FromArgMatches for Deferred<A> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        A::from_arg_matches(matches).map(|args| Self(Box::new(args)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

impl Cli {
    /// Reads a command line. Its first item is the name of the program.
    ///
    /// # Errors
    /// The error of clap, which for `--help` and `--version` is not a failure. Hand it to [`exit`].
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut args: Vec<OsString> = args.into_iter().collect();
        let is_about_the_whole =
            |arg: &OsString| ["-h", "--help", "-V", "--version"].iter().any(|option| arg == option);
        let names_a_command = args.get(1).is_some_and(|arg| {
            is_about_the_whole(arg) || !arg.as_encoded_bytes().starts_with(b"-")
        });
        if !names_a_command {
            args.insert(args.len().min(1), "serve".into());
        }
        Self::try_parse_from(&args).map_err(|error| {
            // clap repeats arguments as they came, and a name that a shell filled in may hold anything.
            let shown = args.iter().map(|arg| shown::line(&arg.to_string_lossy()).into_owned());
            Self::try_parse_from(shown).err().unwrap_or(error)
        })
    }
}

/// Prints the message of clap and ends the process: 0 after help, 2 after a mistake.
///
/// A value that cannot be used is one line; other mistakes come with clap's hints.
pub fn exit(error: &clap::Error) -> ! {
    let text = error.to_string();
    if error.kind() == ErrorKind::ValueValidation {
        log::complain(text.lines().next().unwrap_or_default());
    } else if text.lines().all(|line| shown::line(line) == line) {
        error.exit();
    } else {
        text.lines().for_each(log::complain);
    }
    std::process::exit(error.exit_code());
}

/// Settings of `callreel serve`.
#[derive(Args, Debug)]
#[command(after_help = SERVE_EXAMPLES)]
pub struct ServeArgs {
    /// Address of the public listener: /, /incoming-call, /media-stream and /readyz
    #[arg(
        long,
        env = "CALLREEL_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "0.0.0.0:5050",
        value_parser = address
    )]
    pub listen: SocketAddr,

    /// Directory of the recordings; created if missing
    #[arg(long, env = "CALLREEL_DIR", value_name = "DIR", default_value = "recordings")]
    pub dir: PathBuf,

    /// Sample format of the WAV files; mulaw takes half the disk, but fewer programs read it
    #[arg(long, env = "CALLREEL_FORMAT", value_enum, default_value_t)]
    pub format: Format,

    /// Write gaps, keys and marks as cue points behind the samples of each finished WAV; ffmpeg and mpv
    /// show them as chapters [default: off]
    #[arg(long, env = "CALLREEL_CUES", value_parser = BoolishValueParser::new())]
    pub cues: bool,

    /// Address at which Twilio reaches this server. A path in it is a prefix that your proxy strips.
    /// Without this option the stream URL is wss://HOST, port 443, with HOST from the Host header, its
    /// port left out
    #[arg(long, env = "CALLREEL_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<twilio::PublicUrl>,

    /// Twilio's auth token: refuse every request that is not signed with it for --public-url. Others can
    /// see a command line, so better set CALLREEL_AUTH_TOKEN or TWILIO_AUTH_TOKEN
    #[arg(long, env = "CALLREEL_AUTH_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub auth_token: Option<String>,

    /// Record only streams that show the one-time token which /incoming-call gave to their call within
    /// the last 60 s. Webhook and stream must reach the same process [default: off]
    #[arg(long, env = "CALLREEL_STREAM_TOKEN", value_parser = BoolishValueParser::new())]
    pub stream_token: bool,

    /// Leave the caller's and the called number out of records. Otherwise callreel keeps the From, To,
    /// Direction, ForwardedFrom and CallerName of a webhook in memory and writes them into the end
    /// record of the call [default: off]
    #[arg(long, env = "CALLREEL_NO_CALLER_IDS", value_parser = BoolishValueParser::new())]
    pub no_caller_ids: bool,

    /// Text spoken to the caller before the stream begins, at most 4096 characters; empty: nothing is
    /// spoken
    #[arg(long, env = "CALLREEL_GREETING", value_name = "TEXT", default_value_t = twilio::Texts::default().greeting)]
    pub greeting: twilio::Text,

    /// Text spoken to the caller after the greeting and a pause of one second, at most 4096 characters;
    /// empty: nothing is spoken
    #[arg(long, env = "CALLREEL_READY", value_name = "TEXT", default_value_t = twilio::Texts::default().ready)]
    pub ready: twilio::Text,

    /// Calls recorded at one time, at least 1; further calls are refused with 503 [default: as many as
    /// the limit of open files (ulimit -n) allows]
    #[arg(long, env = "CALLREEL_MAX_CALLS", value_name = "COUNT", value_parser = count::<NonZeroUsize>)]
    pub max_calls: Option<NonZeroUsize>,

    /// Calls that may begin in one second, at least 1; a further stream on a connection counts as a
    /// call. Calls beyond that are refused [default: no limit]
    #[arg(long, env = "CALLREEL_MAX_NEW_CALLS", value_name = "COUNT", value_parser = count::<NonZeroU32>)]
    pub max_new_calls: Option<NonZeroU32>,

    /// Refuse new calls with 503 while less disk space than this is free, so that the calls being
    /// recorded have room, like 500MB or 10GiB [default: 64MiB, or a twentieth of a smaller disk]
    #[arg(long, env = "CALLREEL_KEEP_FREE", value_name = "SIZE", value_parser = size)]
    pub keep_free: Option<u64>,

    /// Refuse new calls with 503 while fewer inodes than this are free; each file takes one [default:
    /// 4096, or a twentieth of a smaller file system's inodes]
    #[arg(long, env = "CALLREEL_KEEP_FREE_INODES", value_name = "COUNT")]
    pub keep_free_inodes: Option<u64>,

    /// Remove the oldest finished recordings while less is free than --keep-free or --keep-free-inodes,
    /// as long as that helps [default: off]
    #[arg(long, env = "CALLREEL_MAKE_ROOM", value_parser = BoolishValueParser::new())]
    pub make_room: bool,

    /// Remove finished recordings that are older than this many days, at least 1. Nothing is removed
    /// while the clock is in doubt [default: keep them]
    #[arg(long, env = "CALLREEL_KEEP_DAYS", value_name = "DAYS", value_parser = count::<NonZeroU32>)]
    pub keep_days: Option<NonZeroU32>,

    /// Number of the newest finished recordings that --keep-days and --make-room never remove
    #[arg(long, env = "CALLREEL_KEEP_MIN", value_name = "COUNT", default_value_t = 0)]
    pub keep_min: usize,

    /// End a call when its connection is this old, or its recording this long
    #[arg(long, env = "CALLREEL_MAX_DURATION", value_name = "DURATION", default_value = "24h", value_parser = positive)]
    pub max_duration: Duration,

    /// End a connection after this long without a byte from the peer, not even the answer to a ping; and
    /// a connection on which nothing is recorded, at this age
    #[arg(long, env = "CALLREEL_IDLE_TIMEOUT", value_name = "DURATION", default_value = "60s", value_parser = positive)]
    pub idle_timeout: Duration,

    /// Time between two reads of one call, 0 to 1s; 0 reads every frame as it arrives and takes several
    /// times the CPU
    #[arg(long, env = "CALLREEL_READ_INTERVAL", value_name = "DURATION", default_value = "100ms", value_parser = read_interval)]
    pub read_interval: Duration,

    /// Also write the frames of every stream to this directory, as .jsonl for `decode` and for bug
    /// reports. They are personal data [default: not written]
    #[arg(long, env = "CALLREEL_CAPTURE", value_name = "DIR")]
    pub capture: Option<PathBuf>,

    /// Address of the admin listener: console, API and metrics; `off` for none. An address other than
    /// loopback needs --admin-token
    #[arg(
        long,
        env = "CALLREEL_ADMIN",
        value_name = "ADDRESS:PORT|off",
        default_value = "127.0.0.1:5051",
        value_parser = admin_address
    )]
    pub admin: AdminAddress,

    /// Token, 16 to 256 visible ASCII characters, that everybody must show at the admin listener: people
    /// at a login page, programs as a bearer token. Others can see a command line, so better set
    /// CALLREEL_ADMIN_TOKEN
    #[arg(long, env = "CALLREEL_ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub admin_token: Option<String>,

    /// Let the console and the API delete recordings [default: off]
    #[arg(long, env = "CALLREEL_ALLOW_DELETE", value_parser = BoolishValueParser::new())]
    pub allow_delete: bool,

    /// Post the end record of every finished recording to this address (Standard Webhooks), repeated for
    /// three days until the receiver accepts it. Needs --webhook-secret
    #[arg(long, env = "CALLREEL_WEBHOOK", value_name = "URL")]
    pub webhook: Option<webhook::Url>,

    /// Key that signs webhook messages: whsec_ and the base64 of 24 to 64 random bytes. Others can see a
    /// command line, so better set CALLREEL_WEBHOOK_SECRET
    #[arg(long, env = "CALLREEL_WEBHOOK_SECRET", value_name = "SECRET", hide_env_values = true)]
    pub webhook_secret: Option<String>,

    /// Format of log lines on standard error
    #[arg(long, env = "CALLREEL_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// Address of the admin listener; `None` for no listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminAddress(pub Option<SocketAddr>);

/// Errors of settings that are valid one by one, but not together.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The admin listener shows personal data, so other machines need a token.
    #[error(
        "--admin {0} can be reached from other machines, so it needs a token: set CALLREEL_ADMIN_TOKEN, for example \
         to the output of `openssl rand -hex 16`"
    )]
    AdminWithoutToken(SocketAddr),
    /// The admin token is not usable.
    #[error(transparent)]
    AdminToken(#[from] admin::TokenError),
    /// Both listeners want the same port.
    #[error("--listen {listen} and --admin {admin} are the same port: give one of them another")]
    SamePort {
        /// Address of the public listener.
        listen: SocketAddr,
        /// Address of the admin listener.
        admin: SocketAddr,
    },
    /// The auth token is not usable.
    #[error(transparent)]
    Token(#[from] twilio::Error),
    /// The system gives no random numbers.
    #[error("cannot make a key for stream tokens: {0}")]
    StreamToken(#[from] std::io::Error),
    /// Twilio signs for a URL, which only the user knows.
    #[error(
        "an auth token is set (--auth-token, CALLREEL_AUTH_TOKEN or TWILIO_AUTH_TOKEN) but no --public-url: Twilio \
         signs for the address it calls, so give that, like --public-url https://calls.example.com"
    )]
    TokenWithoutPublicUrl,
    /// The secret of the webhook is not usable.
    #[error(transparent)]
    WebhookSecret(#[from] webhook::Error),
    /// Webhook messages are never sent without a signature.
    #[error(
        "--webhook signs its messages, so it needs a secret: set CALLREEL_WEBHOOK_SECRET or --webhook-secret, for \
         example to the output of `echo whsec_$(openssl rand -base64 32)`"
    )]
    WebhookWithoutSecret,
}

impl TryFrom<ServeArgs> for Config {
    type Error = Error;

    /// Distributes the settings to the parts of the server. Reads TWILIO_AUTH_TOKEN if no other token is
    /// given.
    fn try_from(args: ServeArgs) -> Result<Self, Error> {
        let token = args.auth_token.or_else(|| std::env::var("TWILIO_AUTH_TOKEN").ok());
        let verifier = match (token.map(twilio::AuthToken::new).transpose()?, &args.public_url) {
            (None, _) => None,
            (Some(token), Some(public_url)) => {
                Some(twilio::Verifier::new(token, public_url.clone()))
            }
            (Some(_), None) => return Err(Error::TokenWithoutPublicUrl),
        };
        let stream_tokens = match args.stream_token {
            true => Some(Arc::new(StreamTokens::new()?)),
            false => None,
        };
        let callers = (!args.no_caller_ids).then(Arc::<Callers>::default);
        let admin_token = args.admin_token.map(admin::Token::new).transpose()?;
        if let (AdminAddress(Some(address)), None) = (args.admin, &admin_token)
            && !address.ip().is_loopback()
        {
            return Err(Error::AdminWithoutToken(address));
        }
        if let Some(admin) = args.admin.0.filter(|admin| is_same_port(args.listen, *admin)) {
            return Err(Error::SamePort { listen: args.listen, admin });
        }
        let secret = args.webhook_secret.filter(|secret| !secret.is_empty());
        let webhook = match (args.webhook, secret) {
            (None, _) => None,
            (Some(_), None) => return Err(Error::WebhookWithoutSecret),
            (Some(url), Some(secret)) => Some(webhook::Config {
                url,
                secret: webhook::Secret::new(&secret)?,
                first_pause: webhook::FIRST_PAUSE,
            }),
        };
        let texts = twilio::Texts { greeting: args.greeting, ready: args.ready };
        Ok(Config {
            admin: admin::Config {
                token: admin_token,
                allows_delete: args.allow_delete,
                ..admin::Config::default()
            },
            webhook,
            http: http::Config {
                twilio: twilio::Config {
                    texts,
                    public_url: args.public_url,
                    verifier,
                    stream_tokens: stream_tokens.clone(),
                    callers: callers.clone(),
                },
                calls_max: args.max_calls.map(NonZeroUsize::get),
                calls_per_second_max: args.max_new_calls.map(NonZeroU32::get),
                ..http::Config::default()
            },
            engine: engine::Config {
                read_interval: args.read_interval,
                idle_timeout: args.idle_timeout,
                max_duration: args.max_duration,
                encoding: args.format.into(),
                capture: args.capture.is_some(),
                stream_tokens,
                callers,
                ..engine::Config::default()
            },
            store: store::Config {
                dir: args.dir,
                capture_dir: args.capture,
                keep_free: args.keep_free,
                keep_free_inodes: args.keep_free_inodes,
                make_room: args.make_room,
                keep_days: args.keep_days.map(NonZeroU32::get),
                cues: args.cues,
                keep_min: args.keep_min,
                webhooks: None,
            },
        })
    }
}

/// Whether two listeners want the same port of the same address, or of all addresses.
fn is_same_port(one: SocketAddr, other: SocketAddr) -> bool {
    let is_any = one.ip().is_unspecified() || other.ip().is_unspecified();
    let is_one_ip = one.ip() == other.ip() || is_any && one.is_ipv4() == other.is_ipv4();
    one.port() == other.port() && one.port() != 0 && is_one_ip
}

fn admin_address(text: &str) -> Result<AdminAddress, String> {
    if text == "off" {
        return Ok(AdminAddress(None));
    }
    let address = text.parse().map_err(|_| "give IP:PORT, like 127.0.0.1:5051, or off")?;
    Ok(AdminAddress(Some(address)))
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "give IP:PORT, like 127.0.0.1:5050".to_owned())
}

fn read_interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        duration if duration > READ_INTERVAL_MAX => {
            Err(format!("must not be longer than {READ_INTERVAL_MAX:?}"))
        }
        duration => Ok(duration),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve_args(args: &[&str]) -> Result<ServeArgs, clap::Error> {
        let args = std::iter::once("callreel").chain(args.iter().copied()).map(OsString::from);
        match Cli::from_args(args)?.command {
            Command::Serve(args) => Ok(*args.0),
            other => panic!("{other:?} is not serve"),
        }
    }

    fn token_and_url(token: Option<&str>, public_url: Option<&str>) -> Result<Config, Error> {
        let mut args = serve_args(&["--greeting", "Hello"]).unwrap();
        args.auth_token = token.map(str::to_owned);
        args.public_url = public_url.map(|url| url.parse().unwrap());
        args.try_into()
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn options_without_a_command_are_those_of_serve() {
        for args in [&["--max-calls", "3"][..], &["serve", "--max-calls", "3"]] {
            assert_eq!(serve_args(args).unwrap().max_calls, NonZeroUsize::new(3));
        }
        assert_eq!(serve_args(&["--help"]).unwrap_err().kind(), ErrorKind::DisplayHelp);
        assert_eq!(serve_args(&["nonsense"]).unwrap_err().kind(), ErrorKind::InvalidSubcommand);
    }

    #[test]
    fn a_bad_value_is_named_in_the_first_line() {
        for (args, words) in [
            (
                ["--public-url", "ftp://example.com"],
                "--public-url <URL>': must be the address at which Twilio",
            ),
            (["--listen", "5050"], "--listen <ADDRESS:PORT>'"),
            (["--max-calls", "0"], "--max-calls <COUNT>'"),
            (["--idle-timeout", "0"], "must be longer than 0"),
            (["--read-interval", "2s"], "must not be longer than 1s"),
            (["--greeting", "\u{7}"], "control characters"),
        ] {
            let error = serve_args(&args).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ValueValidation);
            let text = error.to_string();
            assert!(text.lines().next().unwrap().contains(words), "{text}");
        }
    }

    #[test]
    fn an_admin_address_that_others_reach_asks_for_a_token() {
        let config = |args: &[&str]| Config::try_from(serve_args(args).unwrap());
        let error = config(&["--admin", "0.0.0.0:5051"]).unwrap_err().to_string();
        assert!(error.contains("CALLREEL_ADMIN_TOKEN") && error.lines().count() == 1, "{error}");
        config(&["--admin", "0.0.0.0:5051", "--admin-token", "0123456789abcdef"]).unwrap();
        config(&["--admin", "0.0.0.0:5051", "--admin-token", "short"]).unwrap_err();
        for address in ["127.0.0.1:5051", "[::1]:0", "off"] {
            config(&["--admin", address]).unwrap();
        }
        config(&["--webhook", "https://example.com/"]).unwrap_err();
    }

    #[test]
    fn a_token_asks_for_a_public_url() {
        let error = token_and_url(Some("12345"), None).unwrap_err().to_string();
        assert!(error.contains("--public-url") && !error.contains("12345"), "{error}");
        assert!(token_and_url(Some(""), Some("https://example.com")).is_err());
        let config = token_and_url(Some("12345"), Some("https://example.com")).unwrap();
        assert!(config.http.twilio.verifier.is_some());
    }
}
