//! Paths of the public listener that belong to one provider's streams.

use std::str::FromStr;

use callreel_core::format::{Codec, Format};
use callreel_core::frame::{Provider, Start, Tracks};

use crate::asker::Asker;
use crate::public_url::{PathPrefix, WEBHOOK_PATH};

/// A path at which every stream is of one provider.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StreamPath {
    /// Begins with a slash, and does not end with one.
    pub path: String,
    /// The provider of its streams.
    pub provider: Provider,
    /// Settings for streams that do not tell their format.
    pub assumed: Assumed,
}

/// The format of streams that do not tell it, as far as the user knows it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Assumed {
    /// Samples a second of each track; `None`: the provider's usual rate.
    pub sample_rate_hz: Option<u32>,
    /// Binary messages hold two tracks that alternate sample by sample, inbound first.
    pub is_stereo: bool,
}

impl Assumed {
    /// Fills in what a start does not tell. A start that tells its format stays as it is.
    pub fn complete(self, start: &mut Start<'_>) {
        if !start.is_format_assumed {
            return;
        }
        if let (Some(rate), Some(format)) = (self.sample_rate_hz, &mut start.format) {
            format.sample_rate_hz = rate;
        }
        if self.is_stereo {
            start.tracks = Tracks::Both;
            start.is_interleaved = true;
        }
    }
}

/// A provider, as options name it: `NAME`, `NAME:RATE` or `NAME:RATE:stereo`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Spoken {
    /// The provider.
    pub provider: Provider,
    /// Settings for streams that do not tell their format.
    pub assumed: Assumed,
}

impl FromStr for Spoken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.split(':');
        let provider = provider(parts.next().unwrap_or_default())?;
        let sample_rate_hz = parts.next().map(rate).transpose()?;
        let is_stereo = match parts.next() {
            None | Some("mono") => false,
            Some("stereo") if provider.habits().has_binary_audio => true,
            Some("stereo") => return Err(Error::Stereo(provider.name())),
            Some(_) => return Err(Error::Layout),
        };
        match parts.next() {
            None => Ok(Self { provider, assumed: Assumed { sample_rate_hz, is_stereo } }),
            Some(_) => Err(Error::Layout),
        }
    }
}

/// A sample rate that can be recorded.
fn rate(text: &str) -> Result<u32, Error> {
    let format = |sample_rate_hz| Format { codec: Codec::L16Le, sample_rate_hz };
    let rate = text.parse().ok().filter(|rate| format(*rate).is_recordable());
    rate.ok_or_else(|| Error::Rate(text.chars().take(64).collect()))
}

/// The reason why a text names no path and provider.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// No equals sign.
    #[error("must be PATH=NAME, like /telnyx=telnyx")]
    Form,
    /// Neither `mono` nor `stereo` behind the rate, or more behind that.
    #[error(
        "behind the sample rate there may be :mono or :stereo, like mod-audio-stream:16000:stereo"
    )]
    Layout,
    /// The path is the root, or has other characters than a path of this server.
    #[error("the path must be one like /telnyx, of letters, digits, `-`, `.`, `_` and `~`")]
    Path,
    /// Something else is at that path.
    #[error("the path {0} is taken: it answers other requests than streams")]
    Taken(String),
    /// No such provider.
    #[error("{0:?} is no provider that is recorded: choose one of {names}", names = names())]
    Provider(String),
    /// A sample rate that is not recorded.
    #[error(
        "{0:?} is no sample rate that is recorded: give a whole number of kilohertz from 8000 to 192000, or 44100"
    )]
    Rate(String),
    /// The provider does not send two tracks in one message.
    #[error("{0} names the tracks of its audio: leave out :stereo")]
    Stereo(&'static str),
}

/// The names of all providers.
fn names() -> String {
    Provider::ALL.iter().map(|provider| provider.name()).collect::<Vec<_>>().join(", ")
}

/// The provider of a name.
fn provider(name: &str) -> Result<Provider, Error> {
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
        let Spoken { provider, assumed } = name.parse()?;
        Ok(Self { path: path.as_str().to_owned(), provider, assumed })
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
        let path: StreamPath = "/fs=mod-audio-stream:16000:stereo".parse().unwrap();
        let assumed = Assumed { sample_rate_hz: Some(16_000), is_stereo: true };
        assert_eq!((path.provider, path.assumed), (Provider::ModAudioStream, assumed));
        for text in ["/x=vonage:16000:both", "/x=vonage:16000:mono:mono", "/x=vonage:16000:"] {
            assert_eq!(error(text), Error::Layout, "{text}");
        }
        for rate in ["", "22050", "4000", "x"] {
            assert_eq!(error(&format!("/x=wavix:{rate}")), Error::Rate(rate.to_owned()));
        }
        assert_eq!(error("/x=wavix:16000:stereo"), Error::Stereo("wavix"));
        assert_eq!(error("/incoming-call=telnyx"), Error::Taken("/incoming-call".to_owned()));
        let taken = Error::Taken("/telnyx/incoming-call".to_owned());
        assert_eq!(error("/telnyx/incoming-call/=telnyx"), taken);
        let told = error("/x=Telnyx").to_string();
        assert!(
            told.contains("\"Telnyx\"") && told.contains("plivo, ringcentral, signalwire"),
            "{told}"
        );
    }
}
