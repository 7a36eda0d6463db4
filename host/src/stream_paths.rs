//! Paths of the public listener that belong to one provider's streams.

use std::str::FromStr;

use callreel_core::frame::Provider;

use crate::asker::Asker;
use crate::public_url::{PathPrefix, WEBHOOK_PATH};

/// A path at which every stream is of one provider.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StreamPath {
    /// Begins with a slash, and does not end with one.
    pub path: String,
    /// The provider of its streams.
    pub provider: Provider,
}

/// The reason why a text names no path and provider.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// No equals sign.
    #[error("must be PATH=NAME, like /telnyx=telnyx")]
    Form,
    /// The path is the root, or has other characters than a path of this server.
    #[error("the path must be one like /telnyx, of letters, digits, `-`, `.`, `_` and `~`")]
    Path,
    /// Something else is at that path.
    #[error("the path {0} is taken: it answers other requests than streams")]
    Taken(String),
    /// No such provider.
    #[error("{0:?} is no provider that is recorded: choose one of {names}", names = names())]
    Provider(String),
}

/// The names of all providers.
fn names() -> String {
    Provider::ALL.iter().map(|provider| provider.name()).collect::<Vec<_>>().join(", ")
}

/// The provider of a name, for the options of commands.
///
/// # Errors
/// [`Error::Provider`]: there is none of that name.
pub fn provider(name: &str) -> Result<Provider, Error> {
    Provider::named(name).ok_or_else(|| Error::Provider(name.chars().take(64).collect()))
}

impl FromStr for StreamPath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (path, name) = text.rsplit_once('=').ok_or(Error::Form)?;
        let path: PathPrefix = path.parse().map_err(|_| Error::Path)?;
        match path.as_str() {
            "" => return Err(Error::Path),
            taken @ (WEBHOOK_PATH | "/readyz") => return Err(Error::Taken(taken.to_owned())),
            taken if Asker::of_webhook(taken).is_some() => {
                return Err(Error::Taken(taken.to_owned()));
            }
            _ => {}
        }
        Ok(Self { path: path.as_str().to_owned(), provider: provider(name)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_a_name_are_taken_and_anything_else_is_explained() {
        let path: StreamPath = "/voice/telnyx-3f9a/=telnyx".parse().unwrap();
        assert_eq!((path.path.as_str(), path.provider), ("/voice/telnyx-3f9a", Provider::Telnyx));
        let error = |text: &str| text.parse::<StreamPath>().unwrap_err();
        assert_eq!(error("telnyx"), Error::Form);
        for text in ["=telnyx", "/=telnyx", "telnyx=telnyx", "/a b=telnyx", "/{id}=telnyx"] {
            assert_eq!(error(text), Error::Path, "{text}");
        }
        assert_eq!(error("/incoming-call=telnyx"), Error::Taken("/incoming-call".to_owned()));
        let taken = Error::Taken("/telnyx/incoming-call".to_owned());
        assert_eq!(error("/telnyx/incoming-call/=telnyx"), taken);
        let told = error("/x=Telnyx").to_string();
        assert!(
            told.contains("\"Telnyx\"") && told.contains("plivo, signalwire, telnyx"),
            "{told}"
        );
    }
}
