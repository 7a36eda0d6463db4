//! Placeholder until the directory layout arrives.

use std::path::PathBuf;

/// What the samples become on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// 16-bit PCM.
    #[default]
    Pcm16,
    /// G.711 mu-law.
    Mulaw,
}

/// Where recordings go.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of the recordings.
    pub dir: PathBuf,
    /// Sample format of the WAV files.
    pub format: Format,
    /// Directory for captured frames, if they are kept.
    pub capture: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: "recordings".into(),
            format: Format::Pcm16,
            capture: None,
        }
    }
}
