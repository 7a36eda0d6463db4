//! The options of `serve`, grouped as its help shows them.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::home::HomeArgs;
use super::relay::RelayArgs;
use crate::acme::{Contact, DirectoryUrl, Domain};
use crate::admin::Setting;
use crate::call::pause::PauseKey;
use crate::decode::OutputFormat;
use crate::log::LogFormat;
use crate::origin::Origin;
use crate::public_url::{PathPrefix, PublicUrl};
use crate::rights::Rights;
use crate::stream_paths::StreamPath;
use crate::units::{count, duration, positive, size};
use crate::{admission, twilio, webhook};

/// Longest `--read-interval`. The interval delays every checkpoint, and so adds to the audio that a
/// crash may cost.
const READ_INTERVAL_MAX: Duration = Duration::from_secs(1);

const SERVE_EXAMPLES: &str = "\
Examples:
  Try it; without an auth token, anybody that finds the address can record:
    callreel serve --dir recordings
    ngrok http 5050     # then set the number's webhook to https://<name>.ngrok.app/incoming-call

  In public; only requests that Twilio has signed for this address are accepted:
    TWILIO_AUTH_TOKEN=... callreel serve --public-url https://calls.example.com

  CALLREEL_LOG=debug (or error, warn, info, callreel::http=debug) sets the log level;
  CALLREEL_LOG=@FILE reads the level from a file, at the start and again at SIGHUP.";

/// Settings of `callreel serve`.
#[derive(Args, Debug)]
#[command(after_help = SERVE_EXAMPLES)]
pub struct ServeArgs {
    /// Options of the listeners and of what stands before them.
    #[command(flatten, next_help_heading = "Addresses and fronts")]
    pub listening: ListeningArgs,
    /// Options of certificates that an ACME server gives out.
    #[command(flatten, next_help_heading = "Certificate by ACME")]
    pub acme: AcmeArgs,
    /// Options of calls with a voice bot.
    #[command(flatten, next_help_heading = "Voice bots")]
    pub relay: RelayArgs,
    /// Options of calls through Twilio.
    #[command(flatten, next_help_heading = "Twilio")]
    pub twilio: TwilioArgs,
    /// Options of the files of a recording.
    #[command(flatten, next_help_heading = "Recordings")]
    pub files: FilesArgs,
    /// Options that bound calls.
    #[command(flatten, next_help_heading = "Limits of calls")]
    pub limits: LimitsArgs,
    /// Options that keep room on the disk.
    #[command(flatten, next_help_heading = "Disk space and automatic deletion")]
    pub disk: DiskArgs,
    /// Options of the home of finished recordings.
    #[command(flatten, next_help_heading = "Home of finished recordings")]
    pub home: HomeArgs,
    /// Options of the admin listener.
    #[command(flatten, next_help_heading = "Console, API and metrics")]
    pub admin: AdminArgs,
    /// Options of the webhooks that are told of finished recordings.
    #[command(flatten, next_help_heading = "Webhook")]
    pub webhook: WebhookArgs,

    /// Format of log lines on standard error
    #[arg(long, help_heading = "Log", env = "CALLREEL_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// All settings as they are in force, to be shown.
    #[arg(skip)]
    pub settings: Vec<Setting>,
}

impl ServeArgs {
    /// The address at which Twilio reaches this server: that of --public-url, or else that of the first
    /// domain of --acme, which the ACME server reaches at port 443 as well.
    #[must_use]
    pub fn public_url(&self) -> Option<PublicUrl> {
        let of_acme = || format!("https://{}", self.acme.acme.first()?).parse().ok();
        let url = self.listening.public_url.clone().or_else(of_acme)?;
        Some(url.below(&self.listening.path_prefix.clone().unwrap_or_default()))
    }
}

/// Options of certificates that an ACME server gives out.
#[derive(Args, Debug)]
pub struct AcmeArgs {
    /// Get a certificate of Let's Encrypt for this name; and speak TLS at --listen. It is renewed by the
    /// challenge TLS-ALPN-01, which asks port 443 of the name. Repeat it, or separate names by commas, for
    /// more names. The first one makes the public URL, unless --public-url does. With this option you agree
    /// to the terms of the ACME server
    #[arg(
        long,
        env = "CALLREEL_ACME",
        value_name = "DOMAIN",
        value_delimiter = ',',
        conflicts_with_all = ["tls_cert", "tls_key"],
        group = "has_certificate"
    )]
    pub acme: Vec<Domain>,

    /// Mail address at which the ACME server may tell of trouble [default: none]
    #[arg(long, env = "CALLREEL_ACME_CONTACT", value_name = "MAIL", requires = "acme")]
    pub acme_contact: Option<Contact>,

    /// Directory of another ACME server; https://acme-staging-v02.api.letsencrypt.org/directory is for
    /// trials [default: that of Let's Encrypt, https://acme-v02.api.letsencrypt.org/directory]
    #[arg(long, env = "CALLREEL_ACME_URL", value_name = "URL", requires = "acme")]
    pub acme_url: Option<DirectoryUrl>,

    /// Folder of the account, the certificate and its key. Several servers may share it: one of them asks
    /// the ACME server [default: .acme in the directory of --dir]
    #[arg(long, env = "CALLREEL_ACME_DIR", value_name = "DIR", requires = "acme")]
    pub acme_dir: Option<PathBuf>,

    /// File of authorities that the ACME server's own certificate may be of; PEM certificates. This
    /// machine's own are trusted as well, or those of SSL_CERT_FILE and SSL_CERT_DIR
    #[arg(long, env = "CALLREEL_ACME_CA", value_name = "FILE", requires = "acme")]
    pub acme_ca: Option<PathBuf>,
}

/// Options of the listeners and of what stands before them.
#[derive(Args, Debug)]
pub struct ListeningArgs {
    /// Address of the public listener: /, /readyz, /incoming-call and /media-stream; the webhooks and
    /// streams of other providers as well, like /telnyx/incoming-call
    #[arg(
        long,
        env = "CALLREEL_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "0.0.0.0:5050",
        value_parser = address
    )]
    pub listen: SocketAddr,

    /// Address at which Twilio reaches this server. A path in it is the whole path before
    /// /incoming-call; your proxy may strip it. Without this option the stream URL is wss://HOST, port
    /// 443, with HOST from the Host header, its port left out
    #[arg(long, env = "CALLREEL_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<PublicUrl>,

    /// Provider of all streams at a path; PATH=NAME, like /telnyx=telnyx. Repeat it, or separate values by
    /// commas. NAME is acs, asterisk, audiocodes, bandwidth, exotel, genesys, jambonz, mod-audio-stream, plivo,
    /// ringcentral, signalwire, sinch, telnyx, twilio, vonage, voximplant, wavix or webex. NAME:RATE and NAME:RATE:stereo, like
    /// /fs=mod-audio-stream:16000:stereo, are for streams that do not tell their format. With an auth token,
    /// a path that is not twilio's needs an --admission of its own [default: handshake and first messages tell the provider]
    #[arg(long, env = "CALLREEL_PROVIDER", value_name = "PATH=NAME", value_delimiter = ',')]
    pub provider: Vec<StreamPath>,

    /// Path below which both listeners answer as well as at the root; like /callreel, for a proxy that
    /// does not strip it. URLs for Twilio begin with it, unless --public-url has a path [default: the
    /// path of --public-url, at the public listener]
    #[arg(long, env = "CALLREEL_PATH_PREFIX", value_name = "PATH")]
    pub path_prefix: Option<PathPrefix>,

    /// Share the port of --listen with another server of the same user; both need this option
    /// (SO_REUSEPORT). A server that drains closes its socket. A connection that arrives in that moment is
    /// reset; a socket passed on by systemd loses none [default: off]
    #[arg(long, env = "CALLREEL_REUSE_PORT", value_parser = BoolishValueParser::new())]
    pub reuse_port: bool,

    /// Speak TLS at --listen, with the certificate in this PEM file; its chain is behind it. URLs begin
    /// with https:// and wss://. The file is read again when it changes, so a renewal needs no restart.
    /// Needs --tls-key
    #[arg(
        long,
        env = "CALLREEL_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key",
        group = "has_certificate"
    )]
    pub tls_cert: Option<PathBuf>,

    /// PEM file of the certificate's key
    #[arg(long, env = "CALLREEL_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Take only clients with a certificate of an authority in this PEM file; for providers that show one
    #[arg(long, env = "CALLREEL_TLS_CLIENT_CA", value_name = "FILE", requires = "has_certificate")]
    pub tls_client_ca: Option<PathBuf>,

    /// Expect a header of the PROXY protocol at --listen; version 1 or 2, in front of each connection. The
    /// client's address is taken from it, and a connection without it is closed. Let nobody but the load
    /// balancer reach that port: a client could name any address [default: off]
    #[arg(long, env = "CALLREEL_PROXY_PROTOCOL", value_parser = BoolishValueParser::new())]
    pub proxy_protocol: bool,

    /// Admit requests at a path by another proof; in the place of Twilio's signature. KIND is `none`, or
    /// SCHEME:FILE with `basic`, `bearer`, `fonoster`, `genesys`, `plivo`, `signalwire`, `telnyx` or
    /// `vonage` and a file of secrets, one a line, several while they are changed: `USER:PASSWORD` for
    /// basic, `API_KEY SECRET` for genesys, the public key for telnyx. It is read again at SIGHUP and when
    /// it changes. Repeat the option, or separate values by commas [default: paths need Twilio's signature
    /// if an auth token is set, else nothing]
    #[arg(long, env = "CALLREEL_ADMISSION", value_name = "PATH=KIND", value_delimiter = ',')]
    pub admission: Vec<admission::Setting>,

    /// Origin of another site that may send streams and requests; the value of the Origin header of media
    /// streams and at the admin listener, like `https://calls.example.com`. Repeat it, or separate values
    /// by commas. The answers of the API have no CORS headers [default: streams with an Origin are refused, and so are requests of other
    /// sites' pages]
    #[arg(long, env = "CALLREEL_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub allow_origin: Vec<Origin>,
}

/// Options of calls through Twilio.
#[derive(Args, Debug)]
pub struct TwilioArgs {
    /// Twilio's auth token: refuse every request that is not signed with it for --public-url. While it is
    /// changed, give the new one and then the old one: repeat the option, or separate them by commas.
    /// Others can see a command line, so better set CALLREEL_AUTH_TOKEN or TWILIO_AUTH_TOKEN
    #[arg(long, env = "CALLREEL_AUTH_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub auth_token: Vec<String>,

    /// File of auth tokens, one a line, the newest first; `ACCOUNT_SID TOKEN` is the token of that
    /// (sub)account alone. Empty lines and lines that begin with # are left out. Read again at SIGHUP and
    /// when it changes
    #[arg(long, env = "CALLREEL_AUTH_TOKEN_FILE", value_name = "FILE")]
    pub auth_token_file: Option<PathBuf>,

    /// Record only streams that show a one-time token; the webhook gave it to their call within the last
    /// 60 s. Webhook and stream must reach the same process [default: off]
    #[arg(long, env = "CALLREEL_STREAM_TOKEN", value_parser = BoolishValueParser::new())]
    pub stream_token: bool,

    /// Leave the caller's and the called number out of records. Otherwise callreel keeps the From, To,
    /// Direction, ForwardedFrom, CallerName and CallStatus of a webhook in memory and writes them into the
    /// end record of the call, and those that the start of a stream tells [default: off]
    #[arg(long, env = "CALLREEL_NO_CALLER_IDS", value_parser = BoolishValueParser::new())]
    pub no_caller_ids: bool,

    /// Text spoken to the caller before the stream begins; at most 4096 characters. If empty, nothing is
    /// spoken
    #[arg(long, env = "CALLREEL_GREETING", value_name = "TEXT", default_value_t = twilio::SpokenTexts::default().greeting)]
    pub greeting: twilio::SpokenText,

    /// Text spoken to the caller after the greeting and a pause of 1 s; at most 4096 characters. If
    /// empty, nothing is spoken
    #[arg(long, env = "CALLREEL_READY", value_name = "TEXT", default_value_t = twilio::SpokenTexts::default().ready)]
    pub ready: twilio::SpokenText,
}

/// Options of the files of a recording.
#[derive(Args, Debug)]
pub struct FilesArgs {
    /// Directory of the recordings; created if missing
    #[arg(long, env = "CALLREEL_DIR", value_name = "DIR", default_value = "recordings")]
    pub dir: PathBuf,

    /// Sample format of the WAV files; mulaw keeps mu-law and A-law as they come, in half the disk, but
    /// fewer programs read it
    #[arg(long, env = "CALLREEL_FORMAT", value_enum, default_value_t)]
    pub format: OutputFormat,

    /// Write gaps, keys and marks into each WAV; as cue points behind the samples, once it is finished.
    /// ffmpeg and mpv show them as chapters [default: off]
    #[arg(long, env = "CALLREEL_CUES", value_parser = BoolishValueParser::new())]
    pub cues: bool,

    /// Keep no peaks beside each WAV; the console then draws long recordings from parts of their WAV
    /// [default: 100 ms of a channel are a byte in ID.peaks]
    #[arg(long, env = "CALLREEL_NO_PEAKS", value_parser = BoolishValueParser::new())]
    pub no_peaks: bool,

    /// Key that pauses a recording and lets it go on; one of 0 to 9, * and #, pressed by the caller or an
    /// agent, for numbers that must not be recorded. Keys pressed in between are left out [default: none]
    #[arg(long, env = "CALLREEL_PAUSE_KEY", value_name = "KEY")]
    pub pause_key: Option<PauseKey>,

    /// Bits of the modes that new files and directories lack, as an octal number: with 027 files are 0640
    /// and directories 0750, so that the group may read recordings [default: 077, with --group 027]
    #[arg(long, env = "CALLREEL_UMASK", value_name = "OCTAL", value_parser = umask)]
    pub umask: Option<u32>,

    /// Group, by name or number, that gets all new files and directories. The process must be a member of
    /// it [default: that of the process, or of a setgid directory]
    #[arg(long, env = "CALLREEL_GROUP", value_name = "NAME|GID", value_parser = group)]
    pub group: Option<u32>,

    /// Also write the frames of every stream to this directory; as .jsonl for `decode` and for bug
    /// reports. They are personal data [default: not written]
    #[arg(long, env = "CALLREEL_CAPTURE", value_name = "DIR")]
    pub capture: Option<PathBuf>,
}

impl FilesArgs {
    /// The rights of all files that the server makes.
    #[must_use]
    pub fn rights(&self) -> Rights {
        Rights::new(self.umask, self.group)
    }
}

/// Options that bound calls.
#[derive(Args, Debug)]
pub struct LimitsArgs {
    /// Calls recorded at one time, at least 1; further calls are refused with 503 [default: as many as
    /// the limit of open files (ulimit -n) allows]
    #[arg(long, env = "CALLREEL_MAX_CALLS", value_name = "COUNT", value_parser = count::<NonZeroUsize>)]
    pub max_calls: Option<NonZeroUsize>,

    /// Calls that may begin in one second, at least 1; a further stream on a connection counts as a
    /// call. Calls beyond that are refused [default: no limit]
    #[arg(long, env = "CALLREEL_MAX_NEW_CALLS", value_name = "COUNT", value_parser = count::<NonZeroU32>)]
    pub max_new_calls: Option<NonZeroU32>,

    /// Longest duration of a call; it ends when its connection is this old, or its recording this long
    #[arg(long, env = "CALLREEL_MAX_DURATION", value_name = "DURATION", default_value = "24h", value_parser = positive)]
    pub max_duration: Duration,

    /// Time for running calls to end after SIGTERM; new ones are refused, also after SIGINT and SIGQUIT.
    /// Then, or at a second signal, all are finished. SIGUSR1 and POST /api/v1/drain wait for the last call
    /// without a limit
    #[arg(long, env = "CALLREEL_DRAIN", value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub drain: Duration,

    /// Time for which /readyz answers 503 before a drain; new calls are taken meanwhile, until a balancer sends
    /// them elsewhere. --drain counts from then on. A second signal ends it
    #[arg(long, env = "CALLREEL_DRAIN_DELAY", value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub drain_delay: Duration,

    /// End a connection after this long without a byte; not even the answer to a ping came from the peer.
    /// Also end a connection on which nothing is recorded, at this age
    #[arg(long, env = "CALLREEL_IDLE_TIMEOUT", value_name = "DURATION", default_value = "60s", value_parser = positive)]
    pub idle_timeout: Duration,

    /// Time between two reads of one call, 0 to 1s; 0 reads every frame as it arrives and takes several
    /// times the CPU. Above 300ms, audio may wait longer than 800ms for the disk, and a crash costs that
    /// much more
    #[arg(long, env = "CALLREEL_READ_INTERVAL", value_name = "DURATION", default_value = "100ms", value_parser = read_interval)]
    pub read_interval: Duration,
}

/// Options that keep room on the disk.
#[derive(Args, Debug)]
pub struct DiskArgs {
    /// Refuse new calls with 503 while less disk space is free; the calls being recorded need it. Like
    /// 500MB or 10GiB [default: 64MiB, or a twentieth of a smaller disk]
    #[arg(long, env = "CALLREEL_KEEP_FREE", value_name = "SIZE", value_parser = size)]
    pub keep_free: Option<u64>,

    /// Refuse new calls with 503 while fewer inodes than this are free; each file takes one [default:
    /// 4096, or a twentieth of a smaller file system's inodes]
    #[arg(long, env = "CALLREEL_KEEP_FREE_INODES", value_name = "COUNT")]
    pub keep_free_inodes: Option<u64>,

    /// Remove the oldest finished recordings while room is short; less is free than --keep-free or
    /// --keep-free-inodes, and the removal helps. Those with a webhook message to be delivered go last [default: off]
    #[arg(long, env = "CALLREEL_MAKE_ROOM", value_parser = BoolishValueParser::new())]
    pub make_room: bool,

    /// Remove finished recordings that are older than this many days; at least 1. Nothing is removed
    /// while the clock is in doubt. A recording stays until its webhook message is delivered or given
    /// up, unless less is free than --keep-free or --keep-free-inodes [default: keep them]
    #[arg(long, env = "CALLREEL_KEEP_DAYS", value_name = "DAYS", value_parser = count::<NonZeroU32>)]
    pub keep_days: Option<NonZeroU32>,

    /// Number of the newest recordings to keep always; neither --keep-days nor --make-room removes them
    #[arg(long, env = "CALLREEL_KEEP_MIN", value_name = "COUNT", default_value_t = 0)]
    pub keep_min: usize,
}

/// Options of the admin listener.
#[derive(Args, Debug)]
pub struct AdminArgs {
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

    /// Speak TLS at --admin as well, with the same certificate; clients need none [default: off]
    #[arg(long, env = "CALLREEL_ADMIN_TLS", value_parser = BoolishValueParser::new(), requires = "has_certificate")]
    pub admin_tls: bool,

    /// Token that everybody must show at the admin listener; 16 to 256 visible ASCII characters. People
    /// show it at a login page, programs as a bearer token. Others can see a command line, so better set
    /// CALLREEL_ADMIN_TOKEN
    #[arg(long, env = "CALLREEL_ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub admin_token: Option<String>,

    /// Answer requests that came through a proxy, without a token; for a proxy that asks for a login
    /// itself. The proxy must send `Host: localhost` or the address of --admin, which must be loopback
    /// [default: without a token such requests are refused]
    #[arg(long, env = "CALLREEL_ADMIN_BEHIND_PROXY", value_parser = BoolishValueParser::new())]
    pub admin_behind_proxy: bool,

    /// Let the console and the API delete recordings [default: off]
    #[arg(long, env = "CALLREEL_ALLOW_DELETE", value_parser = BoolishValueParser::new())]
    pub allow_delete: bool,
}

/// Options of the webhooks that are told of finished recordings.
#[derive(Args, Debug)]
pub struct WebhookArgs {
    /// Post the end record of every finished recording to this address; by Standard Webhooks, repeated for
    /// three days until the receiver accepts it. Repeat the option, or separate addresses by spaces, for
    /// several receivers. Needs a secret
    #[arg(long, env = "CALLREEL_WEBHOOK", value_name = "URL", value_delimiter = ' ')]
    pub webhook: Vec<webhook::Url>,

    /// Key that signs webhook messages: whsec_ and the base64 of 24 to 64 random bytes. Others can see a
    /// command line, so better set CALLREEL_WEBHOOK_SECRET
    #[arg(long, env = "CALLREEL_WEBHOOK_SECRET", value_name = "SECRET", hide_env_values = true)]
    pub webhook_secret: Option<String>,

    /// File of such keys instead, one a line: each message has a signature of each, the first one's first.
    /// It is read again when it changes, and at SIGHUP
    #[arg(long, env = "CALLREEL_WEBHOOK_SECRET_FILE", value_name = "FILE")]
    pub webhook_secret_file: Option<PathBuf>,

    /// File of authorities that webhook messages trust; PEM certificates. This machine's own are trusted
    /// as well, or those of SSL_CERT_FILE and SSL_CERT_DIR
    #[arg(long, env = "CALLREEL_WEBHOOK_CA", value_name = "FILE")]
    pub webhook_ca: Option<PathBuf>,
}

/// Address of the admin listener; `None` for no listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminAddress(pub Option<SocketAddr>);

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

fn umask(text: &str) -> Result<u32, String> {
    let is_octal = text.len() <= 4 && text.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
    match u32::from_str_radix(text, 8) {
        Ok(umask @ 0..=0o077) if is_octal => Ok(umask),
        _ => Err("give an octal number up to 077, like 027".to_owned()),
    }
}

fn group(text: &str) -> Result<u32, String> {
    /// Number that system calls take for no group.
    const NONE: u32 = u32::MAX;
    if let Ok(id) = text.parse::<u32>()
        && id != NONE
    {
        return Ok(id);
    }
    match nix::unistd::Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => {
            Err("no such group: give a name that `getent group` lists, or a number".to_owned())
        }
        Err(error) => Err(format!("cannot look for the group: {error}")),
    }
}

fn read_interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        duration if duration > READ_INTERVAL_MAX => {
            Err(format!("must not be longer than {READ_INTERVAL_MAX:?}"))
        }
        duration => Ok(duration),
    }
}
