//! Other people's tools as judges, run as processes.
//!
//! A tool that is missing fails the test that needs it: a proof that was skipped is none.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// Runs `program` with `input` on its standard input; returns its standard output.
///
/// # Panics
/// When it is not installed or fails, with what to do or what it said.
pub fn run(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
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
        // A tool may stop reading when it has what it wants.
        scope.spawn(move || stdin.write_all(input).ok());
        child.wait_with_output().expect("a child can be waited for")
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    output.stdout
}

/// The samples that ffmpeg reads in a WAV file.
pub fn ffmpeg_wav(wav: &[u8]) -> Vec<i16> {
    let arguments = "-v error -f wav -i pipe:0 -f s16le -c:a pcm_s16le pipe:1";
    samples(&run("ffmpeg", &words(arguments), wav))
}

/// The samples that ffmpeg decodes from raw mu-law.
pub fn ffmpeg_mulaw(codes: &[u8]) -> Vec<i16> {
    let arguments = "-v error -f mulaw -ar 8000 -ac 1 -i pipe:0 -f s16le -c:a pcm_s16le pipe:1";
    samples(&run("ffmpeg", &words(arguments), codes))
}

/// The samples that SoX reads in a WAV file.
pub fn sox_wav(wav: &[u8]) -> Vec<i16> {
    samples(&run("sox", &words("-V1 -t wav - -t raw -e signed -b 16 -L -"), wav))
}

/// The samples that Python's `wave` reads in a WAV file, whose format must be this one.
pub fn python_wav(wav: &[u8], channels: u16) -> Vec<i16> {
    let program = "import io, sys, wave
w = wave.open(io.BytesIO(sys.stdin.buffer.read()))
assert w.getparams()[:3] == (int(sys.argv[1]), 2, 8000), w.getparams()
sys.stdout.buffer.write(w.readframes(w.getnframes()))";
    samples(&run("python3", &["-c", program, &channels.to_string()], wav))
}

/// The samples that hound reads in a WAV file.
pub fn hound_wav(wav: &[u8]) -> Vec<i16> {
    let reader = hound::WavReader::new(wav).expect("hound reads the header");
    reader.into_samples().collect::<Result<_, _>>().expect("hound reads the samples")
}

/// Takes little-endian bytes for samples.
pub fn samples(bytes: &[u8]) -> Vec<i16> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    assert!(rest.is_empty(), "half a sample");
    pairs.iter().map(|pair| i16::from_le_bytes(*pair)).collect()
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}
