//! Errors of a store: the kind that decides how to go on, and the reason in one line.

use std::error::Error;
use std::time::Duration;

use object_store::client::{HttpError, HttpErrorKind};

use crate::connect::in_words;
use crate::shown;

/// Most characters of a reason.
const CHARS_MAX: usize = 400;

/// The reason why a request to a store failed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Fault {
    /// The store did not answer, or asked for no requests for a time: others need not be tried now.
    #[error("{reason}")]
    Away {
        /// The reason in words.
        reason: String,
        /// The time for which the store asked to be left alone.
        wait: Duration,
    },
    /// The store has a fault of its own, or too much to do: it answered with a status of 5xx or 429, or the
    /// connection broke.
    #[error("{0}")]
    Unwell(String),
    /// There is no such object, or no such bucket.
    #[error("{0}")]
    Missing(String),
    /// The credentials are wrong, or do not allow this.
    #[error("{0}")]
    Forbidden(String),
    /// An object of another content is there. It was not replaced.
    #[error("{0}")]
    Taken(String),
    /// The store does not take the request as it is.
    #[error("{0}")]
    Refused(String),
    /// The file on the disk cannot be read, or is not the recorded one.
    #[error("{0}")]
    Local(String),
}

impl Fault {
    /// The fault of an error. `wait`: the time for which the store asked to be left alone.
    pub(super) fn of(error: &object_store::Error, wait: Option<Duration>) -> Self {
        use object_store::Error as Of;
        let reason = shown(error);
        if let Some(wait) = wait {
            return Self::Away { reason, wait };
        }
        match error {
            Of::NotFound { .. } => Self::Missing(reason),
            Of::PermissionDenied { .. } | Of::Unauthenticated { .. } => Self::Forbidden(reason),
            Of::AlreadyExists { .. } | Of::Precondition { .. } | Of::NotModified { .. } => {
                Self::Taken(reason)
            }
            _ => match kind(error) {
                Some(HttpErrorKind::Connect | HttpErrorKind::Timeout) => {
                    Self::Away { reason, wait: Duration::ZERO }
                }
                // A connection that broke says little about the next one.
                Some(_) => Self::Unwell(reason),
                None => Self::by_status(error, reason),
            },
        }
    }

    fn by_status(error: &object_store::Error, reason: String) -> Self {
        match status(&in_words(error)) {
            Some(429 | 500..) => Self::Unwell(reason),
            _ => Self::Refused(reason),
        }
    }

    /// A file on the disk is not the recorded one.
    pub(super) fn damaged() -> Self {
        let text =
            "its SHA-256 is not that of the record: the file was damaged or changed on the disk";
        Self::Local(text.to_owned())
    }

    /// The error of a file on the disk.
    pub(super) fn local(error: &std::io::Error) -> Self {
        Self::Local(error.to_string())
    }
}

/// The kind of the transport's error, if the store gave no answer at all.
fn kind(error: &object_store::Error) -> Option<HttpErrorKind> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<HttpError>() {
            return Some(error.kind());
        }
        cause = error.source();
    }
    None
}

/// An error in one line: the status with the code and the message of the store, or else the innermost
/// causes.
pub(super) fn shown(error: &object_store::Error) -> String {
    let words = in_words(error);
    let text = match status(&words) {
        Some(status) => {
            let code = element(&words, "Code").unwrap_or_default();
            let message = element(&words, "Message").unwrap_or_default();
            let said = [code, message].into_iter().filter(|part| !part.is_empty());
            let said = said.collect::<Vec<_>>().join(": ");
            let status = hyper::StatusCode::from_u16(status);
            let status = status.map(|status| status.to_string()).unwrap_or_default();
            if said.is_empty() {
                format!("the store answered {status}")
            } else {
                format!("the store answered {status} ({said})")
            }
        }
        None if words.contains("redirect without LOCATION") => {
            "the store redirects to another region: set AWS_REGION to that of the bucket".to_owned()
        }
        None => innermost(error),
    };
    let text: String = text.chars().take(CHARS_MAX).collect();
    shown::line(&text).into_owned()
}

/// The causes of an error, from the one that the transport told.
fn innermost(error: &object_store::Error) -> String {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let (true, Some(told)) = (error.is::<HttpError>(), error.source()) {
            return in_words(told);
        }
        cause = error.source();
    }
    in_words(error)
}

/// The status in the text of an error.
fn status(words: &str) -> Option<u16> {
    let (_, behind) = words.split_once("status code: ")?;
    behind.get(..3)?.parse().ok()
}

/// The text of an element of XML.
fn element<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, behind) = text.split_once(&format!("<{name}>"))?;
    Some(behind.split_once('<')?.0.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: text.to_owned().into() }
    }

    #[test]
    fn a_reason_is_one_line_with_the_words_of_the_store() {
        let body = "Server returned non-2xx status code: 400 Bad Request: <?xml version=\"1.0\"?>\n<Error>\
            <Code>AuthorizationHeaderMalformed</Code><Message>expecting 'eu-west-1'</Message></Error>";
        let fault = Fault::of(&generic(body), None);
        let reason = "the store answered 400 Bad Request (AuthorizationHeaderMalformed: expecting 'eu-west-1')";
        assert_eq!(fault, Fault::Refused(reason.to_owned()));
        let busy = "Server returned non-2xx status code: 503 Service Unavailable: ";
        let reason = "the store answered 503 Service Unavailable".to_owned();
        assert_eq!(Fault::of(&generic(busy), None), Fault::Unwell(reason.clone()));
        let wait = Duration::from_secs(7);
        assert_eq!(Fault::of(&generic(busy), Some(wait)), Fault::Away { reason, wait });
    }
}
