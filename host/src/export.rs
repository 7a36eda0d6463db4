//! `callreel export`: a finished WAV in another form.

use std::io;
use std::path::PathBuf;

use crate::disk::{WholeFile, open_to_read};
use crate::flac::{self, Flac};
use crate::log;

/// Settings of `callreel export`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The FLAC has the same samples, its cue points as chapters, and CALLREEL_WAV_SHA256 as a tag. It is read back and
compared before it gets its name. `flac --decode --keep-foreign-metadata` makes the WAV again if that is 16-bit PCM.

Exit code: 0 if it is done; 1 if not, and then there is no new file; 2 if the command line is wrong.")]
pub struct Args {
    /// A finished WAV: 16-bit PCM, mu-law or A-law
    #[arg(value_name = "WAV")]
    pub wav: PathBuf,

    /// The FLAC file, which must not exist [default: the name of the WAV, with .flac]
    #[arg(short, long, value_name = "FLAC")]
    pub output: Option<PathBuf>,
}

/// The WAV could not be exported; there is no new file.
#[derive(Debug, thiserror::Error)]
#[error("cannot make {} of {}: {cause}", .output.display(), .wav.display())]
pub struct Error {
    /// The WAV.
    pub wav: PathBuf,
    /// The file that was to be made.
    pub output: PathBuf,
    /// The reason.
    pub cause: flac::Error,
}

/// Makes the FLAC, durably, and prints its size. Returns true.
///
/// # Errors
/// [`Error`]: no file was made.
pub fn run(args: &Args) -> Result<bool, Error> {
    let output = args.output.clone().unwrap_or_else(|| args.wav.with_extension("flac"));
    let Flac { bytes, wav_bytes, wav_sha256, .. } = export(args, &output)
        .map_err(|cause| Error { wav: args.wav.clone(), output: output.clone(), cause })?;
    let percent = bytes * 100 / wav_bytes.max(1);
    let name = output.display();
    let _ = log::say(&format!(
        "{name}: {bytes} bytes, {percent} % of the WAV with SHA-256 {wav_sha256}"
    ));
    Ok(true)
}

fn export(args: &Args, output: &std::path::Path) -> Result<Flac, flac::Error> {
    let wav = open_to_read(&args.wav)?;
    let mut temporary = output.as_os_str().to_owned();
    temporary.push(".tmp");
    let whole =
        WholeFile { temporary: temporary.as_ref(), to: output, is_durable: true, replaces: false };
    let mut made = None;
    let written = whole.write(|out| match flac::encode(&wav, out) {
        Ok(flac) => {
            made = Some(Ok(flac));
            Ok(())
        }
        Err(error) => {
            made = Some(Err(error));
            Err(io::ErrorKind::Other.into())
        }
    });
    match (written, made) {
        (Ok(_), Some(made)) | (Err(_), Some(made @ Err(_))) => made,
        (Err(error), _) => Err(error.into()),
        (Ok(_), None) => Err(flac::Error::Empty),
    }
}
