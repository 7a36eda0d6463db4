//! Reasons for which a call, or all calls, cannot be placed.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::dictionary::{self, TwilioError};
use super::{Cue, ServerCertificate};
use crate::audio;
use crate::trust::NoAuthority;

/// An error of one call, or of all calls; one line that says how to fix it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The audio file is missing or unfit.
    #[error(transparent)]
    Audio(#[from] audio::Error),
    /// The file of authorities cannot be used.
    #[error("--ca: {0}")]
    Authority(#[from] NoAuthority),
    /// The server does not answer.
    #[error("cannot connect to {address}: {cause}; {}", dictionary::connect_advice(.cause))]
    Connect {
        /// Address of the server.
        address: String,
        /// The operating system's error.
        cause: io::Error,
    },
    /// The provider has no such format.
    #[error("{look} has no such format; it has {formats} (--codec, --rate)")]
    Format {
        /// Name of the provider.
        look: &'static str,
        /// Its formats.
        formats: String,
    },
    /// The server answers, but the WebSocket handshake fails.
    #[error("no WebSocket handshake with {address}: {cause}")]
    Handshake {
        /// Address of the server.
        address: String,
        /// The error in the answer.
        cause: String,
    },
    /// A cue is due after the end of the calls.
    #[error("`{cue}` is after the end of the call ({length:?})")]
    Late {
        /// The cue.
        cue: Cue,
        /// Length of the calls.
        length: Duration,
    },
    /// Words are due after the end of the calls.
    #[error(
        "words at {at:?} are after the end of the call ({length:?}): give them an earlier time, or --duration"
    )]
    LateWords {
        /// Time of the words.
        at: Duration,
        /// Length of the calls.
        length: Duration,
    },
    /// All calls failed before their first message.
    #[error("{reason}")]
    NoCall {
        /// Error of the first call.
        reason: String,
    },
    /// The calls cannot hear a bot.
    #[error(
        "{reason}: leave out --say, --barge-in, --save-heard, --max-latency and the faults of echoes"
    )]
    OneWay {
        /// The reason.
        reason: &'static str,
    },
    /// There is no root certificate to check `wss` with.
    #[error("{}", crate::trust::NoRoots)]
    NoRoots,
    /// The process to measure does not exist, or cannot be measured.
    #[error("cannot measure process {pid}: {cause}")]
    Process {
        /// Id of the process.
        pid: u32,
        /// The operating system's error.
        cause: io::Error,
    },
    /// The server answered with another status than the expected one.
    #[error("refused with status {status}{line}{advice}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The first line of the body, after a colon.
        line: String,
        /// The most likely remedy, after a semicolon; empty if there is none.
        advice: String,
    },
    /// The copy of the sent audio cannot be written.
    #[error("cannot save the sent audio to {}: {cause}", .path.display())]
    Save {
        /// Path of the copy, or of its directory.
        path: PathBuf,
        /// The operating system's error.
        cause: io::Error,
    },
    /// The file of both sides cannot be written, or is there already.
    #[error("cannot save the conversation to {}: {cause}; give --save-heard another name, or room", .path.display())]
    SaveHeard {
        /// Path of the file.
        path: PathBuf,
        /// The operating system's error.
        cause: io::Error,
    },
    /// The server answers, but there is no encrypted connection.
    #[error("no TLS with {address}: {cause}; {}{}", dictionary::tls_advice(.cause), shown_certificate(.certificate.as_deref()))]
    Tls {
        /// Address of the server.
        address: String,
        /// Error of the TLS handshake.
        cause: io::Error,
        /// The certificate that the server showed, if it came to that.
        certificate: Option<Box<ServerCertificate>>,
    },
    /// The provider does not follow TwiML.
    #[error(
        "{look} follows no TwiML, which a webhook answers with: give the URL of the stream, ws:// or wss://"
    )]
    NoWebhook {
        /// Name of the provider.
        look: &'static str,
    },
    /// The token is of no use to the provider.
    #[error("--auth-token is not for {look}: {reason}")]
    Token {
        /// Name of the provider.
        look: &'static str,
        /// The reason.
        reason: &'static str,
    },
    /// The provider sends one track.
    #[error("{look} sends one track, {track}: leave out --tracks both")]
    Tracks {
        /// Name of the provider.
        look: &'static str,
        /// Name of its track.
        track: &'static str,
    },
    /// The TwiML leads Twilio to no stream.
    #[error("no stream with this TwiML: {cause}")]
    Twiml {
        /// The reason.
        cause: String,
        /// Twilio's error, if it has one for this.
        twilio: Option<TwilioError>,
    },
    /// The provider never does this.
    #[error("`{cue}` is not for {look}: {reason}")]
    Unlike {
        /// The cue.
        cue: Cue,
        /// Name of the provider.
        look: &'static str,
        /// The reason.
        reason: &'static str,
    },
    /// The URL cannot be called.
    #[error(
        "`{url}` is no URL to call; give ws://, wss://, http:// or https://, and write a host with letters outside ASCII \
         in its xn-- form"
    )]
    Url {
        /// The URL.
        url: String,
    },
    /// The webhook failed.
    #[error("the webhook failed: {cause}")]
    Webhook {
        /// The reason.
        cause: String,
        /// Twilio's error, if it has one for this.
        twilio: Option<TwilioError>,
    },
}

fn shown_certificate(certificate: Option<&ServerCertificate>) -> String {
    certificate.map(|shown| format!("; the server's certificate is {shown}")).unwrap_or_default()
}
