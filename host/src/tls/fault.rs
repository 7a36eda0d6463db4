//! The reasons why there is no TLS: of the files, and of one handshake.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use tokio_rustls::rustls;

/// Reasons why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("{option}: cannot read {}: {cause}", path.display())]
    Read {
        /// The option that names the file.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// A file holds something else.
    #[error("{option}: {} holds no {wanted} in PEM that can be read: {hint}", path.display())]
    Content {
        /// The option that names the file.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// The content that is wanted.
        wanted: &'static str,
        /// Advice.
        hint: &'static str,
    },
    /// The key belongs to another certificate.
    #[error(
        "{option}: the key in {} is not that of the first certificate in {}: give the pair that was made together",
        key.display(), cert.display()
    )]
    Pair {
        /// The option that names the key.
        option: &'static str,
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// The key is of a kind that is not supported.
    #[error("{option}: the key in {} is of an unknown kind: make an ECDSA (P-256, P-384), RSA or Ed25519 key", path.display())]
    KeyKind {
        /// The option that names the file.
        option: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The certificate has expired.
    #[error("{option}: the certificate in {} expired at {until}: renew it", path.display())]
    Expired {
        /// The option that names the file.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// Its end.
        until: Timestamp,
    },
    /// The certificate is not valid yet.
    #[error("{option}: the certificate in {} is valid from {from} on: check this machine's clock", path.display())]
    NotYet {
        /// The option that names the file.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// Its beginning.
        from: Timestamp,
    },
    /// The chain does not hold together.
    #[error(
        "{option}: certificate {number} in {} was not issued by the one behind it: give the file with the whole chain \
         (fullchain.pem), the server's own certificate first",
        path.display()
    )]
    Order {
        /// The option that names the file.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// The place of the certificate in the file, from 1 on.
        number: usize,
    },
}

/// Reasons why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The client does not speak TLS.
    #[error("the client speaks no TLS: its URL must begin with wss:// or https://")]
    Plain,
    /// The handshake took too long.
    #[error("the handshake of TLS took longer than {0:?}")]
    Timeout(Duration),
    /// The client and this server have no common terms, or the client does not like the certificate.
    #[error("the handshake of TLS failed: {0}")]
    Handshake(String),
    /// The client went away.
    #[error("the client ended the connection in the handshake of TLS")]
    Gone,
    /// ACME has got no certificate yet.
    #[error("there is no certificate yet: the ACME server has given out none")]
    NoCertificate,
    /// An ACME server, or another client, asks for an answer that nobody offered.
    #[error(
        "the client asks for the answer to a challenge of ACME, and there is no such challenge"
    )]
    NoChallenge,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        match cause {
            Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
                Self::Plain
            }
            Some(cause) => Self::Handshake(cause.to_string()),
            None => Self::Gone,
        }
    }
}
