//! Twilio's numbers for the errors that a call of its own would have met.
//!
//! Source: Twilio's "Error and Warning Dictionary", <https://www.twilio.com/docs/api/errors>. An error
//! that has no entry there has no number here.

use std::{fmt, io};

use serde::Serialize;
use tokio_rustls::rustls::{self, CertificateError};

use super::line::NO_ANSWER;
use super::{CallEnd, Error};

/// An entry of Twilio's dictionary of errors and warnings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TwilioError {
    /// The number.
    pub number: u32,
    /// The meaning, as the dictionary words it.
    pub meaning: &'static str,
}

impl fmt::Display for TwilioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Twilio: {}, {}", self.number, self.meaning)
    }
}

const fn entry(number: u32, meaning: &'static str) -> TwilioError {
    TwilioError { number, meaning }
}

pub(super) const BAD_URL: TwilioError = entry(11100, "Invalid URL format");
pub(super) const RETRIEVAL: TwilioError = entry(11200, "HTTP retrieval failure");
pub(super) const CONNECTION: TwilioError = entry(11205, "HTTP connection failure");
const HOST_NAME: TwilioError = entry(11210, "HTTP bad host name");
pub(super) const REDIRECTS: TwilioError = entry(11215, "HTTP too many redirects");
pub(super) const REDIRECT: TwilioError = entry(11216, "HTTP invalid redirect");
const STATUS: TwilioError = entry(11217, "HTTP error response code");
const TLS: TwilioError = entry(11220, "SSL/TLS Handshake Error");
const CERTIFICATE_NAME: TwilioError = entry(11235, "Certificate Invalid - Domain Mismatch");
const CERTIFICATE_AGE: TwilioError = entry(11236, "Certificate Invalid - Certificate Expired");
const CERTIFICATE_PATH: TwilioError =
    entry(11237, "Certificate Invalid - Could not find path to certificate");
pub(super) const TOO_LARGE: TwilioError = entry(11750, "The response body is larger than 64 kB");
pub(super) const NOT_TWIML: TwilioError = entry(12100, "Document parse failure");
pub(super) const SCHEMA: TwilioError = entry(12200, "Schema validation warning");
pub(super) const CONTENT_TYPE: TwilioError = entry(12300, "Invalid Content-Type");
const STREAM_TIMEOUT: TwilioError = entry(31901, "Stream - WebSocket - Connection Timeout");
const STREAM_REFUSED: TwilioError = entry(31902, "Stream - WebSocket - Connection Refused");
const STREAM_TLS: TwilioError = entry(31910, "Stream - WebSocket - SSL Protocol Error");
const HANDSHAKE: TwilioError = entry(31920, "Stream - WebSocket - Handshake Error");
const CLOSED: TwilioError = entry(31921, "Stream - WebSocket - Close Error");
pub(super) const SCHEME: TwilioError =
    entry(31922, "Stream - WebSocket - URL Schema Not Supported");
pub(super) const STREAM_URL: TwilioError = entry(31923, "Stream - WebSocket - Malformed URL");
const PROTOCOL: TwilioError = entry(31924, "Stream - WebSocket - Protocol Error");
pub(super) const TRACK: TwilioError = entry(31941, "Stream - Invalid Track configuration");

/// The part of a call in which an error happens.
#[derive(Clone, Copy)]
pub(super) enum Stage {
    Webhook,
    Stream,
}

/// The entry for an error that keeps a call from its stream.
pub(super) fn of_error(error: &Error, stage: Stage) -> Option<TwilioError> {
    match (error, stage) {
        (Error::Twiml { twilio, .. } | Error::Webhook { twilio, .. }, _) => *twilio,
        (Error::Connect { cause, .. }, Stage::Webhook) => {
            Some(if is_of_name(cause) { HOST_NAME } else { CONNECTION })
        }
        (Error::Connect { cause, .. }, Stage::Stream) if is_late(cause) => Some(STREAM_TIMEOUT),
        (Error::Connect { cause, .. }, Stage::Stream)
            if cause.kind() == io::ErrorKind::ConnectionRefused =>
        {
            Some(STREAM_REFUSED)
        }
        (Error::Tls { cause, .. }, Stage::Webhook) => Some(match certificate_error(cause) {
            Some(Certificate::Name) => CERTIFICATE_NAME,
            Some(Certificate::Age) => CERTIFICATE_AGE,
            Some(Certificate::Path) => CERTIFICATE_PATH,
            None => TLS,
        }),
        (Error::Tls { .. }, Stage::Stream) => Some(STREAM_TLS),
        (Error::Refused { status: 400..=599, .. }, Stage::Webhook) => Some(STATUS),
        (Error::Refused { .. }, Stage::Webhook) => Some(RETRIEVAL),
        (Error::Handshake { cause, .. }, Stage::Stream) if cause == NO_ANSWER => {
            Some(STREAM_TIMEOUT)
        }
        (Error::Refused { .. } | Error::Handshake { .. }, Stage::Stream) => Some(HANDSHAKE),
        _ => None,
    }
}

/// The entry for a stream that the server ended before its time, or against the protocol.
pub(super) fn of_end(end: &CallEnd, stopped: bool) -> Option<TwilioError> {
    match end {
        CallEnd::Closed { .. } if !stopped => Some(CLOSED),
        CallEnd::Unintelligible { .. } => Some(PROTOCOL),
        _ => None,
    }
}

fn is_late(cause: &io::Error) -> bool {
    cause.kind() == io::ErrorKind::TimedOut
}

/// Whether the host's name led to no address. An error of the system's resolver has no number of the
/// operating system.
fn is_of_name(cause: &io::Error) -> bool {
    cause.raw_os_error().is_none() && !is_late(cause)
}

/// The most likely remedy where there is no connection.
pub(super) fn connect_advice(cause: &io::Error) -> &'static str {
    if is_of_name(cause) {
        return "no address is known for that name: check its spelling, and the name's DNS records";
    }
    match cause.kind() {
        io::ErrorKind::ConnectionRefused => {
            "nothing listens there: start the server, or give the address and port it listens on"
        }
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable => {
            "the host is down, at another address, or behind a firewall that drops the connection"
        }
        _ => "is the server running there?",
    }
}

/// Faults of a certificate.
enum Certificate {
    Name,
    Age,
    /// Self-signed, or of a certificate authority that is not known here.
    Path,
}

fn tls_error(cause: &io::Error) -> Option<&rustls::Error> {
    cause.get_ref()?.downcast_ref()
}

fn certificate_error(cause: &io::Error) -> Option<Certificate> {
    use CertificateError as Fault;
    let rustls::Error::InvalidCertificate(fault) = tls_error(cause)? else { return None };
    match fault {
        Fault::NotValidForName | Fault::NotValidForNameContext { .. } => Some(Certificate::Name),
        Fault::Expired | Fault::ExpiredContext { .. } => Some(Certificate::Age),
        // `Other`: the certificate of an authority stands where a server's own should be.
        Fault::UnknownIssuer | Fault::Other(_) => Some(Certificate::Path),
        _ => None,
    }
}

/// The most likely remedy for a TLS handshake that failed.
pub(super) fn tls_advice(cause: &io::Error) -> &'static str {
    const NO_TLS: &str = "that port seems to speak no TLS: give ws:// or http://, or --connect \
                          HOST:PORT if a proxy in front of the server ends TLS";
    match (tls_error(cause), certificate_error(cause)) {
        (Some(rustls::Error::InvalidMessage(_)), _) => NO_TLS,
        (None, _)
            if matches!(
                cause.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
            ) =>
        {
            NO_TLS
        }
        (_, Some(Certificate::Path)) => {
            "the certificate is self-signed or of an unknown authority, which Twilio does not \
             accept; to trust it here, give --ca FILE or set SSL_CERT_FILE"
        }
        (_, Some(Certificate::Name)) => {
            "give the name for which the certificate was issued; Twilio accepts no other"
        }
        (_, Some(Certificate::Age)) => "renew the certificate; Twilio does not accept it",
        _ => "to trust a certificate of your own, give --ca FILE or set SSL_CERT_FILE",
    }
}
