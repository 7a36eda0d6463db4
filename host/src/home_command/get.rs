//! `callreel home get`: a recording of a home as a file.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use hyper::body::Bytes;
use jiff::civil::Date;
use tokio::sync::mpsc;

use super::Error;
use super::read::{HomeArg, Pages, failed, open};
use crate::disk::{WholeFile, is_there};
use crate::home::index::Library;
use crate::home::{Audio, Digest, Fault, PIECE};
use crate::instance::Instance;
use crate::log::complain;
use crate::record::{Id, Key, Search, parse_day};
use crate::{flac, tasks};

/// Pieces that wait for the disk.
const WAITING: usize = 2;

const GET_NOTES: &str = "\
Examples:
  callreel home get 2026-11-27/MZ0123              Download to ./MZ0123.wav
  callreel home get MZ0123 -o - | aplay            Look for the id, the latest day first, and play it
  callreel home get MZ0123 --wav                   The WAV that was recorded, if the home has its FLAC

A file that does not have the digest of its record is not left behind, and a file that is there is not replaced.

Exit code: 0 if the whole recording was written; 1 if not; 2 if the command line is wrong.";

/// Arguments of `callreel home get`.
#[derive(clap::Args, Debug)]
#[command(after_help = GET_NOTES)]
pub struct GetArgs {
    /// The home.
    #[command(flatten)]
    pub home: HomeArg,

    /// Id of the recording, better with its day before it, like 2026-11-27/MZ0123
    #[arg(value_name = "ID", value_parser = wanted)]
    pub id: Wanted,

    /// File to write; `-` for standard output, where a wrong digest is told after the fact [default: ID
    /// with .wav, or with .flac if the home has that]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Make the WAV again where the home has its FLAC: the same bytes, compared with the digest of the WAV
    #[arg(long)]
    pub wav: bool,

    /// Write the record as well, beside the audio
    #[arg(long)]
    pub record: bool,

    /// Only a recording of this instance, where several have the id
    #[arg(long, value_name = "NAME")]
    pub instance: Option<Instance>,
}

/// A recording that is asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    day: Option<Date>,
    id: Id,
}

fn wanted(text: &str) -> Result<Wanted, &'static str> {
    const FORM: &str = "give an id as `callreel home ls` prints it, like 2026-11-27/MZ0123";
    let (day, id) = match text.split_once('/') {
        Some((day, id)) => (Some(parse_day(day).ok_or(FORM)?), id),
        None => (None, text),
    };
    Ok(Wanted { day, id: id.to_owned().try_into().map_err(|_| FORM)? })
}

/// The key and the URL of the wanted recording.
async fn find(library: &Library, args: &GetArgs) -> Result<Option<(Key, String)>, Fault> {
    let Wanted { day, id } = &args.id;
    if let Some(day) = *day {
        let key = Key::new(day, id.clone());
        let url = library.find(&key, args.instance.as_ref()).await?;
        return Ok(url.map(|url| (key, url)));
    }
    let mut pages = Pages::new(library, None, Search::for_text(id.as_str()));
    while let Some(page) = pages.next().await? {
        for listed in page {
            let key = Key::new(listed.place.day(), id.clone());
            let instance = library.home().address().instance_of(&listed.url, &key);
            if instance.is_some() && (args.instance.is_none() || args.instance == instance) {
                return Ok(Some((key, listed.url.into())));
            }
        }
    }
    Ok(None)
}

pub(super) async fn get(args: &GetArgs) -> Result<bool, Error> {
    let library = open(&args.home)?;
    let failed = failed(&library);
    let missing = || Error::NoRecording {
        address: args.home.home.to_string(),
        id: match args.id.day {
            Some(day) => format!("{day}/{}", args.id.id),
            None => args.id.id.to_string(),
        },
    };
    let (key, url) = find(&library, args).await.map_err(&failed)?.ok_or_else(missing)?;
    let record = library.record(&key, &url).await.map_err(&failed)?.ok_or_else(missing)?;
    let audio = Audio::of(&record);
    let ending = audio.filter(|_| !args.wav).map_or(".wav", |audio| audio.ending);
    let to = args.output.clone().unwrap_or_else(|| format!("{}{ending}", key.id()).into());
    let is_piped = to.as_os_str() == "-";
    if args.record && !is_piped {
        let file = to.with_extension("json");
        let text = serde_json::to_vec_pretty(&record).unwrap_or_default();
        let written = whole(&file, move |file| file.write_all(&text)).await;
        written.map_err(|cause| Error::Write { file, cause })?;
    }
    let Some(audio) = audio else {
        complain(&format!("{}/{} has no audio: {}", key.day(), key.id(), record.state));
        return Ok(false);
    };
    let Some(path) = library.home().address().path_of(&url, audio.ending) else {
        return Err(missing());
    };
    let (pieces, pieces_received) = mpsc::channel::<Bytes>(WAITING);
    let received =
        Received { pieces: pieces_received, left: audio.bytes, digest: Digest::of_object(&record) };
    let made = record.wav.as_ref().and_then(|wav| wav.made()).filter(|_| args.wav);
    let of_wav = made.map(|(_, made)| Digest::of_whole(&made.wav_sha256));
    let folder = to.parent().filter(|_| !is_piped).map(Path::to_owned);
    let write = move |out: &mut dyn io::Write| match of_wav {
        None => received.write(out),
        Some(digest) => received.write_wav(folder.as_deref(), digest, out),
    };
    let file = to.clone();
    let written = async {
        if !is_piped {
            return whole(&file, move |file| write(file)).await;
        }
        finished(tasks::blocking(move || {
            let mut out = io::stdout().lock();
            write(&mut out).and_then(|()| out.flush())
        }))
        .await
    };
    let send = async {
        let mut at = 0;
        while at < audio.bytes {
            let end = (at + PIECE).min(audio.bytes);
            let piece = library.home().read(&path, at..end).await?;
            if pieces.send(piece).await.is_err() {
                break; // The writing ended, and tells why.
            }
            at = end;
        }
        drop(pieces);
        Ok(())
    };
    let (sent, written) = tokio::join!(send, written);
    sent.map_err(&failed)?;
    match written {
        // The reader of a pipe has enough.
        Err(cause) if is_piped && cause.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(cause) => Err(Error::Write { file: to, cause }),
        Ok(()) if is_piped => Ok(true),
        Ok(()) => {
            let bytes = record.wav.as_ref().filter(|_| args.wav).map_or(audio.bytes, |w| w.bytes);
            complain(&format!("{}/{}: {bytes} bytes in {}", key.day(), key.id(), to.display()));
            Ok(true)
        }
    }
}

/// An object that is downloaded.
struct Received {
    pieces: mpsc::Receiver<Bytes>,
    /// Bytes that are to come.
    left: u64,
    digest: Digest,
}

impl Received {
    /// Writes all of it, and compares it with its digest.
    fn write(mut self, out: &mut dyn io::Write) -> io::Result<()> {
        while let Some(piece) = self.pieces.blocking_recv() {
            self.left -= piece.len() as u64;
            self.digest.update(&piece);
            out.write_all(&piece)?;
        }
        match self.digest.finish() {
            _ if self.left > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            Some(false) => Err(io::Error::other(
                "the audio in the home does not have the digest of its record: it was damaged or replaced there",
            )),
            None => {
                complain("the record has no digest: only the length was compared");
                Ok(())
            }
            Some(true) => Ok(()),
        }
    }

    /// Writes the WAV of which it is the FLAC, and compares that with its digest. The FLAC is in a file of the folder
    /// meanwhile, or of that for temporary files.
    fn write_wav(
        self,
        folder: Option<&Path>,
        digest: Digest,
        out: &mut dyn io::Write,
    ) -> io::Result<()> {
        let mut flac = match folder {
            Some(folder) if folder.as_os_str().is_empty() => tempfile::tempfile_in("."),
            Some(folder) => tempfile::tempfile_in(folder),
            None => tempfile::tempfile(),
        }?;
        self.write(&mut flac)?;
        flac.rewind()?;
        let mut out = Digested { out, digest };
        flac::restore(flac, &mut out).map_err(|error| match error {
            flac::Error::Io(error) => error,
            error => io::Error::other(format!(
                "no WAV can be made of its FLAC in the home: {error}; leave out --wav to get the FLAC"
            )),
        })?;
        match out.digest.finish() {
            Some(true) => Ok(()),
            _ => Err(io::Error::other(
                "the FLAC in the home gives another WAV than the recorded one: leave out --wav to get the FLAC, and \
                 report this",
            )),
        }
    }
}

/// Bytes on their way to `out`, and their digest.
struct Digested<'o> {
    out: &'o mut dyn io::Write,
    digest: Digest,
}

impl io::Write for Digested<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.digest.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Writes a file that nobody sees half written, in no other file's place.
async fn whole(
    to: &Path,
    content: impl FnOnce(&mut File) -> io::Result<()> + Send + 'static,
) -> io::Result<()> {
    let to = to.to_owned();
    finished(tasks::blocking(move || {
        if is_there(&to)? {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is a file of this name; choose another with -o",
            ));
        }
        let name = to.file_name().unwrap_or_default().to_string_lossy();
        let temporary = to.with_file_name(format!(".{name}.{:016x}", fastrand::u64(..)));
        WholeFile { temporary: &temporary, to: &to, is_durable: true, replaces: false }
            .write(content)
            .map(drop)
    }))
    .await
}

/// The result of work on a thread.
async fn finished(
    work: impl Future<Output = Result<io::Result<()>, tokio::task::JoinError>>,
) -> io::Result<()> {
    work.await.unwrap_or_else(|_| Err(io::Error::other("the writing ended with a bug")))
}
