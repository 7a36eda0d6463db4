//! The options of the home of finished recordings.

use std::time::Duration;

use clap::Args;

use crate::home::{self, Address, Encryption, Form, Variables};
use crate::instance::Instance;
use crate::units::duration;

/// Options of the home of finished recordings.
#[derive(Args, Debug)]
pub struct HomeArgs {
    /// Upload finished recordings to this home: s3://BUCKET/PREFIX, gs://, az:// or file:///FOLDER.
    /// Endpoint and credentials come from the variables that the tools of each provider know, like
    /// AWS_REGION, AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or from the role of the
    /// machine. --dir is the spool: a recording stays there until it is uploaded
    #[arg(long, env = "CALLREEL_HOME", value_name = "URL")]
    pub home: Option<Address>,

    /// Remove a recording from the disk at this age; counted from its end, once it is in the home and every
    /// webhook receiver was told. 0s removes it at once, `never` leaves that to --keep-days and --make-room
    #[arg(
        long,
        env = "CALLREEL_EVICT_AFTER",
        value_name = "AGE|never",
        default_value = "never",
        value_parser = evict_after
    )]
    pub evict_after: EvictAfter,

    /// Encryption that an s3:// home is asked for; aes256, kms, or kms:KEY with the id of a key [default:
    /// that of the bucket]
    #[arg(long, env = "CALLREEL_HOME_SSE", value_name = "KIND", requires = "home")]
    pub home_sse: Option<Encryption>,

    /// Form of the audio in the home: wav, or flac, lossless and half as long. On the disk it stays WAV
    #[arg(
        long,
        env = "CALLREEL_HOME_FORMAT",
        value_name = "FORMAT",
        default_value = "wav",
        hide_possible_values = true
    )]
    pub home_format: Form,

    /// Name of this recorder in records and in the home; different for each recorder that shares the home,
    /// and the same after a restart. At most 64 letters, digits, `.`, `_` and `-` [default: the host name]
    #[arg(long, env = "CALLREEL_INSTANCE", value_name = "NAME")]
    pub instance: Option<Instance>,
}

/// Age at which a recording in the home is removed from the disk; `None` for never.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EvictAfter(pub Option<Duration>);

fn evict_after(text: &str) -> Result<EvictAfter, String> {
    match text {
        "never" => Ok(EvictAfter(None)),
        text => Ok(EvictAfter(Some(duration(text).map_err(|hint| format!("{hint}, or never"))?))),
    }
}

impl HomeArgs {
    /// The settings of the home, if there is one.
    pub(crate) fn config(&self) -> Result<Option<home::Config>, super::Error> {
        if self.home.is_none() && self.home_format != Form::Wav {
            return Err(super::Error::FormatWithoutHome);
        }
        match (&self.home, self.evict_after) {
            (Some(address), EvictAfter(evict_after)) => Ok(Some(home::Config {
                address: address.clone(),
                variables: Variables::of_process(),
                encryption: self.home_sse.clone(),
                form: self.home_format,
                evict_after,
            })),
            (None, EvictAfter(None)) => Ok(None),
            (None, EvictAfter(Some(_))) => Err(super::Error::EvictWithoutHome),
        }
    }
}
