//! Independent tools as judges, run as processes.
//!
//! A missing tool fails the test that needs it: a skipped proof is no proof.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs `program` with `input` on its standard input; returns its standard output.
///
/// # Panics
/// If the program is not installed, with the command to install it; if it fails, with its error output.
pub(crate) fn run(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let spawned = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => panic!("cannot run {program} ({error}): apt-get install {program}"),
    };
    let mut stdin = child.stdin.take().expect("was piped");
    let output = std::thread::scope(|scope| {
        // A tool may stop reading early.
        scope.spawn(move || stdin.write_all(input).ok());
        child.wait_with_output().expect("a child can be waited for")
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    output.stdout
}

/// The samples that ffmpeg decodes from raw mu-law.
pub(crate) fn ffmpeg_mulaw(codes: &[u8]) -> Vec<i16> {
    let arguments = "-v error -f mulaw -ar 8000 -ac 1 -i pipe:0 -f s16le -c:a pcm_s16le pipe:1";
    samples(&run("ffmpeg", &words(arguments), codes))
}

/// The samples that ffmpeg decodes from raw audio, in one of its own formats: `alaw`, `mulaw`, `s16be`,
/// `s16le`.
pub(crate) fn ffmpeg_raw(format: &str, bytes: &[u8]) -> Vec<i16> {
    let arguments =
        format!("-v error -f {format} -ar 8000 -ac 1 -i pipe:0 -f s16le -c:a pcm_s16le pipe:1");
    samples(&run("ffmpeg", &words(&arguments), bytes))
}

/// The samples that ffmpeg decodes from raw A-law.
pub(crate) fn ffmpeg_alaw(codes: &[u8]) -> Vec<i16> {
    let arguments = "-v error -f alaw -ar 8000 -ac 1 -i pipe:0 -f s16le -c:a pcm_s16le pipe:1";
    samples(&run("ffmpeg", &words(arguments), codes))
}

/// The samples that SoX decodes from raw A-law.
pub(crate) fn sox_alaw(codes: &[u8]) -> Vec<i16> {
    let arguments = "-t raw -e a-law -r 8000 -c 1 - -t raw -e signed -b 16 -L -";
    samples(&run("sox", &words(arguments), codes))
}

/// The A-law codes that ffmpeg makes of samples.
pub(crate) fn to_alaw_by_ffmpeg(samples: &[i16]) -> Vec<u8> {
    let arguments = "-v error -f s16le -ar 8000 -ac 1 -i pipe:0 -f alaw pipe:1";
    run("ffmpeg", &words(arguments), &bytes(samples))
}

/// The A-law codes that SoX makes of samples.
pub(crate) fn to_alaw_by_sox(samples: &[i16]) -> Vec<u8> {
    // Without dither.
    let arguments = "-D -t raw -e signed -b 16 -L -r 8000 -c 1 - -t raw -e a-law -";
    run("sox", &words(arguments), &bytes(samples))
}

/// WAV files that a tool reads all at once, since its start takes longer than the reading.
pub(crate) struct Wavs {
    paths: Vec<String>,
}

impl Wavs {
    /// Writes the files to a folder of their own, called `area`.
    pub(crate) fn new<'w>(area: &str, wavs: impl IntoIterator<Item = &'w [u8]>) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(area);
        fs::create_dir_all(&folder).expect("the target's folder is writable");
        let write = |(index, wav): (usize, &[u8])| {
            let path = folder.join(format!("{index}.wav"));
            fs::write(&path, wav).expect("the target's folder is writable");
            path.to_str().expect("a path of ours is UTF-8").to_owned()
        };
        Self { paths: wavs.into_iter().enumerate().map(write).collect() }
    }

    /// The samples that ffmpeg reads, file by file.
    pub(crate) fn ffmpeg(&self) -> Vec<Vec<i16>> {
        let mut arguments = words("-v error -y");
        for path in &self.paths {
            arguments.extend(["-i", path]);
        }
        let outputs = self.paths.iter().enumerate();
        let outputs: Vec<_> =
            outputs.map(|(index, path)| (format!("{index}:a"), format!("{path}.s16"))).collect();
        for (input, output) in &outputs {
            arguments.extend(["-map", input, "-c:a", "pcm_s16le", "-f", "s16le", output]);
        }
        run("ffmpeg", &arguments, &[]);
        let read = |(_, path): &(_, String)| fs::read(path).expect("ffmpeg wrote it");
        outputs.iter().map(|output| samples(&read(output))).collect()
    }

    /// The samples that SoX reads, of all files in a row. All must have the same number of channels.
    pub(crate) fn sox(&self) -> Vec<i16> {
        samples(&run("sox", &self.sox_arguments("-V1"), &[]))
    }

    /// The samples that SoX reads, as [`Wavs::sox`].
    ///
    /// # Panics
    /// If SoX warns of any file.
    pub(crate) fn sox_without_a_word(&self) -> Vec<i16> {
        let output = Command::new("sox").args(self.sox_arguments("-V2")).output();
        let output = output.expect("sox is installed: apt-get install sox");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{said}");
        samples(&output.stdout)
    }

    fn sox_arguments<'a>(&'a self, loudness: &'a str) -> Vec<&'a str> {
        let mut arguments = vec![loudness];
        arguments.extend(self.paths.iter().map(String::as_str));
        arguments.extend(words("-t raw -e signed -b 16 -L -"));
        arguments
    }

    /// The samples that Python's `wave` reads, of all files in a row. All must have `channels` channels
    /// of 16 bits at 8 kHz.
    pub(crate) fn python(&self, channels: u16) -> Vec<i16> {
        let program = "import sys, wave
for path in sys.argv[2:]:
    w = wave.open(path)
    assert w.getparams()[:3] == (int(sys.argv[1]), 2, 8000), w.getparams()
    sys.stdout.buffer.write(w.readframes(w.getnframes()))";
        let channels = channels.to_string();
        let mut arguments = vec!["-c", program, &channels];
        arguments.extend(self.paths.iter().map(String::as_str));
        samples(&run("python3", &arguments, &[]))
    }

    /// The samples that hound reads, file by file.
    pub(crate) fn hound(&self) -> Vec<Vec<i16>> {
        let read = |path| {
            let reader = hound::WavReader::open(path).expect("hound reads the header");
            reader.into_samples().collect::<Result<_, _>>().expect("hound reads the samples")
        };
        self.paths.iter().map(read).collect()
    }
}

/// Samples as little-endian bytes.
pub(crate) fn bytes(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

/// The samples that little-endian bytes hold.
pub(crate) fn samples(bytes: &[u8]) -> Vec<i16> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    assert!(rest.is_empty(), "half a sample");
    pairs.iter().map(|pair| i16::from_le_bytes(*pair)).collect()
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// Codec, rate, channels and duration, as ffprobe sees them without a complaint.
pub(crate) fn probe(path: &Path) -> String {
    let mut ffprobe = Command::new("ffprobe");
    ffprobe.args(["-v", "warning", "-of", "csv=p=0"]);
    ffprobe.args(["-show_entries", "stream=codec_name,sample_rate,channels,duration"]);
    let output = ffprobe.arg(path).output().expect("ffprobe is installed: apt-get install ffmpeg");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
