//! The host's recording path in any format. No provider of the host announces another format than 8 kHz
//! mu-law, so a session gets starts and chunks that the test builds, and a recording takes its turns.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use callreel::board::{Board, Listener};
use callreel::finished::Finished;
use callreel::record::{End, Key, PauseCause, Record};
use callreel::recording::{AudioFormat, Outcome, Posts, QUEUE_MS_MAX, Recording, Tally, Writers};
use callreel::store::outline::Drawing;
use callreel::store::{self, Store};
use callreel_core::format::{Codec, Format};
use callreel_core::frame::{Body, Frame, Media, Provider, Start, Text, Track, Tracks};
use callreel_core::session::{Event, Session, ring_bytes_min};
use callreel_core::wav::Encoding;
use serde_json::{Value, json};

use crate::harness::oracle::{self, Wavs, probe};
use crate::harness::process::{PATIENCE, callreel, eventually};
use crate::harness::shelf::sha256;

const INBOUND: Tracks = Tracks::One(Track::Inbound);

/// Length of a chunk.
const CHUNK_MS: u64 = 20;

/// A gap that a listener hears, and one longer than a listener's memory. Neither is a multiple of a
/// chunk's samples, which would pass for a clock that counts samples.
const GAPS_MS: [u64; 2] = [610, 3010];

/// Chunks before each gap and behind the last one. The first second of 16-bit samples waits until their byte
/// order is measured.
const CHUNKS: [usize; 3] = [60, 15, 5];

/// The shape of a stream.
#[derive(Clone, Copy, Debug)]
struct Shape {
    codec: Codec,
    sample_rate_hz: u32,
    tracks: Tracks,
    is_interleaved: bool,
}

impl Shape {
    const fn new(codec: Codec, sample_rate_hz: u32, tracks: Tracks, is_interleaved: bool) -> Self {
        Self { codec, sample_rate_hz, tracks, is_interleaved }
    }

    fn start<'t>(&self, id: &'t str) -> Start<'t> {
        let Self { codec, sample_rate_hz, tracks, is_interleaved } = *self;
        let format = Some(Format { codec, sample_rate_hz });
        Start { stream_id: Text::new(id), format, tracks, is_interleaved, ..Start::new() }
    }

    fn channels(&self) -> usize {
        usize::from(self.tracks.channels())
    }

    /// The sample that is silence: A-law has no zero.
    fn silence(&self) -> i16 {
        if self.codec == Codec::Alaw { g711::alaw(0xD5) } else { 0 }
    }

    fn samples_in(&self, ms: u64) -> usize {
        (u64::from(self.sample_rate_hz) * ms / 1000) as usize
    }
}

/// One chunk of a track on the wire and its samples.
fn chunk(shape: &Shape, number: usize, channel: usize) -> (Vec<u8>, Vec<i16>) {
    let count = shape.samples_in(CHUNK_MS);
    // Any 16-bit number, another one in each chunk, channel and place.
    let mut random = fastrand::Rng::with_seed((number * 2 + channel) as u64);
    let linear: Vec<i16> = (0..count).map(|_| random.i16(..)).collect();
    let codes: Vec<u8> = linear.iter().map(|sample| *sample as u8).collect();
    match shape.codec {
        Codec::L16Be => (linear.iter().flat_map(|s| s.to_be_bytes()).collect(), linear),
        Codec::L16Le => (linear.iter().flat_map(|s| s.to_le_bytes()).collect(), linear),
        Codec::Alaw => (codes.clone(), codes.into_iter().map(g711::alaw).collect()),
        Codec::Mulaw => (codes.clone(), codes.into_iter().map(g711::mulaw).collect()),
        Codec::G722 => panic!("its samples depend on those before"),
    }
}

/// G.711 by the tables of ffmpeg.
mod g711 {
    use std::sync::LazyLock;

    use crate::harness::oracle::{ffmpeg_alaw, ffmpeg_mulaw};

    static ALL: LazyLock<Vec<u8>> = LazyLock::new(|| (0..=255).collect());
    static ALAW: LazyLock<Vec<i16>> = LazyLock::new(|| ffmpeg_alaw(&ALL));
    static MULAW: LazyLock<Vec<i16>> = LazyLock::new(|| ffmpeg_mulaw(&ALL));

    pub(super) fn alaw(code: u8) -> i16 {
        ALAW[usize::from(code)]
    }

    pub(super) fn mulaw(code: u8) -> i16 {
        MULAW[usize::from(code)]
    }
}

/// A store in a directory with its writers.
struct Studio {
    board: Arc<Board>,
    store: Arc<Store>,
    writers: Writers,
    posts: Posts,
}

impl Studio {
    fn open(dir: &Path) -> Self {
        let board = Arc::<Board>::default();
        let config = store::Config { dir: dir.to_owned(), ..store::Config::default() };
        let finished = Finished::new(None, Arc::clone(&board));
        let store = Arc::new(Store::open(config, finished).unwrap());
        let (writers, mut posts) = Writers::start(&store, &board, 1, 1).unwrap();
        Self { board, store, writers, posts: posts.remove(0) }
    }

    fn close(self) {
        drop(self.posts);
        self.writers.join();
    }
}

/// A stream under way and everything that is known about it.
struct Stream {
    shape: Shape,
    session: Session<Vec<u8>>,
    recording: Recording,
    began: Instant,
    time_ms: u64,
    sequence: u64,
    /// Samples of each channel that the file must have.
    samples: Vec<Vec<i16>>,
}

impl Stream {
    fn begin(shape: Shape, id: &str, asked: Encoding, posts: &mut Posts) -> Self {
        let start = shape.start(id);
        let ring = vec![0; ring_bytes_min(&start).unwrap()];
        let mut session = Session::new(Provider::Twilio, ring);
        let began = Instant::now();
        let turn = session.handle_frame(Frame::new(Some(1), id.as_bytes(), Body::Start(start)));
        let turn = turn.unwrap();
        let Event::Started { start, .. } = turn.event() else {
            panic!("{shape:?}: {:?}", turn.event());
        };
        let format = AudioFormat::of(start, asked);
        let record = Record::new(Provider::Twilio, start, format.spec);
        let recording = Recording::begin(posts, record, format, 0, began);
        drop(turn);
        let samples = vec![Vec::new(); shape.channels()];
        Self { shape, session, recording, began, time_ms: 0, sequence: 1, samples }
    }

    fn now(&self) -> Instant {
        self.began + Duration::from_millis(self.time_ms)
    }

    /// Sends a chunk of each track.
    fn say(&mut self, number: usize, posts: &mut Posts) {
        let shape = self.shape;
        let tracks: Vec<Track> = shape.tracks.iter().collect();
        let chunks: Vec<_> =
            (0..tracks.len()).map(|channel| chunk(&shape, number, channel)).collect();
        for (all, (_, samples)) in self.samples.iter_mut().zip(&chunks) {
            all.extend(samples);
        }
        if shape.is_interleaved {
            let width = shape.codec.width();
            let [(left, _), (right, _)] = &chunks[..] else { panic!("two tracks") };
            let pairs = left.chunks(width).zip(right.chunks(width));
            let bytes: Vec<u8> = pairs.flat_map(|(left, right)| [left, right].concat()).collect();
            self.send(Tracks::Both, &bytes, posts);
        } else {
            for (track, (bytes, _)) in tracks.iter().zip(&chunks) {
                self.send(Tracks::One(*track), bytes, posts);
            }
        }
        self.time_ms += CHUNK_MS;
        if number.is_multiple_of(10) {
            self.tend(posts);
        }
    }

    fn send(&mut self, tracks: Tracks, bytes: &[u8], posts: &mut Posts) {
        self.sequence += 1;
        let media = Media { tracks, chunk: None, timestamp_ms: Some(self.time_ms), bytes };
        let frame = Frame::new(Some(self.sequence), b"", Body::Media(media));
        let now = self.now();
        let mut turn = self.session.handle_frame(frame).unwrap();
        self.recording.take(&mut turn, posts, now);
    }

    /// Lets time pass without audio.
    fn skip(&mut self, ms: u64) {
        let silence = self.shape.silence();
        let count = self.shape.samples_in(ms);
        self.samples.iter_mut().for_each(|all| all.extend(std::iter::repeat_n(silence, count)));
        self.time_ms += ms;
    }

    fn tend(&mut self, posts: &mut Posts) {
        let now = self.now();
        self.recording.tend(self.session.stats(), posts, now);
        posts.send();
    }

    /// Ends the recording and waits until it is finished.
    fn end(mut self, posts: &mut Posts) {
        let now = self.now();
        let mut turn = self.session.handle_end();
        self.recording.take(&mut turn, posts, now);
        drop(turn);
        let (done, outcome) = mpsc::channel();
        let done = Box::new(move |outcome| done.send(outcome).unwrap());
        drop(self.recording.finish(End::Stop, self.session.stats(), posts, now, done));
        posts.send();
        assert_eq!(outcome.recv_timeout(PATIENCE), Ok(Outcome::Published));
    }

    /// The samples of the file, interleaved.
    fn expected(&self) -> Vec<i16> {
        let frames = self.samples[0].len();
        (0..frames).flat_map(|at| self.samples.iter().map(move |all| all[at])).collect()
    }

    /// The largest amplitude of each channel.
    fn peaks(&self) -> [u16; 2] {
        let of = |all: &Vec<i16>| all.iter().map(|sample| sample.unsigned_abs()).max().unwrap();
        [of(&self.samples[0]), self.samples.get(1).map_or(0, of)]
    }
}

fn paths(dir: &Path, id: &str) -> (PathBuf, PathBuf) {
    let day = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).find(|it| it.is_dir());
    let day = day.unwrap();
    (day.join(format!("{id}.wav")), day.join(format!("{id}.json")))
}

fn read_record(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Appends to `heard` the sample frames that came since the last look.
fn listen(listener: &mut Listener, channels: usize, heard: &mut Vec<i16>) {
    let mut frames = Vec::new();
    assert!(listener.poll(&mut frames));
    heard.extend(frames.iter().flat_map(|frame| &frame[..channels]));
}

#[test]
fn a_stream_is_recorded_at_its_own_rate_in_its_own_samples() {
    use Codec::{Alaw, L16Be, L16Le, Mulaw};
    let shapes = [
        Shape::new(Mulaw, 8000, INBOUND, false),
        Shape::new(Mulaw, 8000, Tracks::Both, true),
        Shape::new(Mulaw, 16_000, Tracks::Both, false),
        Shape::new(Alaw, 8000, INBOUND, false),
        Shape::new(Alaw, 8000, Tracks::Both, false),
        Shape::new(Alaw, 12_000, Tracks::Both, true),
        Shape::new(L16Be, 8000, Tracks::Both, true),
        Shape::new(L16Be, 16_000, INBOUND, false),
        Shape::new(L16Le, 16_000, Tracks::Both, false),
        Shape::new(L16Le, 24_000, Tracks::Both, true),
        Shape::new(L16Be, 48_000, Tracks::Both, false),
        Shape::new(L16Le, 192_000, INBOUND, false),
    ];
    let dir = tempfile::tempdir().unwrap();
    let mut studio = Studio::open(dir.path());
    let mut all = Vec::new();
    for (number, shape) in shapes.iter().enumerate() {
        for asked in [Encoding::Pcm16, Encoding::Mulaw] {
            let id = format!("{number}-{asked:?}");
            let expected = record_one(&mut studio, *shape, &id, asked);
            check_record(dir.path(), &id, shape, asked, &expected);
            let key = key_of(dir.path(), &id);
            let record = studio.store.catalog().record(&key).unwrap().unwrap();
            let peaks = studio.store.peaks(&key, &record, &Drawing::whole(1)).unwrap().unwrap();
            assert_eq!(peaks.channels.len(), shape.channels());
            all.push((id, expected));
        }
    }
    studio.close();
    let files: Vec<Vec<u8>> =
        all.iter().map(|(id, _)| fs::read(paths(dir.path(), id).0).unwrap()).collect();
    let read = Wavs::new("any-format", files.iter().map(Vec::as_slice)).ffmpeg();
    for ((id, expected), read) in all.iter().zip(read) {
        assert!(read == *expected, "{id}: ffmpeg reads other samples");
    }
    for (id, expected) in &all {
        let read = Wavs::new("any-format-one", [&fs::read(paths(dir.path(), id).0).unwrap()[..]]);
        assert!(read.sox_without_a_word() == *expected, "{id}: SoX reads other samples");
    }
}

fn key_of(dir: &Path, id: &str) -> Key {
    let (wav, _) = paths(dir, id);
    let day = wav.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    Key::parse(&day, id).unwrap()
}

/// Records a stream with both gaps, with a listener and a look at the levels. Returns its samples.
fn record_one(studio: &mut Studio, shape: Shape, id: &str, asked: Encoding) -> Vec<i16> {
    let posts = &mut studio.posts;
    let mut stream = Stream::begin(shape, id, asked, posts);
    let entry = studio.board.entries().remove(0);
    let mut listener = entry.listen();
    let (mut heard, mut peaks) = (Vec::new(), [0; 2]);
    let mut number = 0;
    for (part, chunks) in CHUNKS.into_iter().enumerate() {
        for _ in 0..chunks {
            stream.say(number, posts);
            number += 1;
            // The long gap passes at once, so a listener hears later audio instead.
            if part < 2 {
                listen(&mut listener, shape.channels(), &mut heard);
            }
        }
        stream.tend(posts);
        let taken = entry.take_peaks();
        peaks = std::array::from_fn(|channel| taken[channel].max(peaks[channel]));
        if part == 1 {
            assert!(heard == stream.expected(), "{id}: a listener heard other samples");
        }
        if let Some(ms) = GAPS_MS.get(part) {
            stream.skip(*ms);
        }
    }
    let expected = stream.expected();
    assert_eq!(entry.progress().samples as usize * shape.channels(), expected.len());
    assert_eq!(peaks, stream.peaks(), "{id}");
    stream.end(posts);
    expected
}

fn check_record(dir: &Path, id: &str, shape: &Shape, asked: Encoding, expected: &[i16]) {
    let (wav, record) = paths(dir, id);
    let record = read_record(&record);
    let encoding = match (asked, shape.codec) {
        (Encoding::Mulaw, Codec::Mulaw) => "mulaw",
        (Encoding::Mulaw, Codec::Alaw) => "alaw",
        _ => "pcm16",
    };
    let (rate, channels) = (shape.sample_rate_hz, shape.channels());
    let format = json!({ "encoding": encoding, "sample_rate_hz": rate, "channels": channels });
    assert_eq!(record["format"], format, "{id}");
    let ms = CHUNKS.iter().sum::<usize>() as u64 * CHUNK_MS + GAPS_MS.iter().sum::<u64>();
    assert_eq!(record["samples"], expected.len() / channels, "{id}");
    let said = ["duration_ms", "elapsed_ms", "missing_ms", "lost_ms"].map(|field| &record[field]);
    assert_eq!(said, [ms, ms, GAPS_MS.iter().sum(), 0], "{id}");
    assert_eq!((&record["state"], &record["equal_channels"]), (&json!("complete"), &json!(false)));
    assert_eq!(record["silent_tracks"], json!([]), "{id}");
    let first_ms = CHUNKS[0] as u64 * CHUNK_MS;
    let second_ms = first_ms + GAPS_MS[0] + CHUNKS[1] as u64 * CHUNK_MS;
    for track in record["tracks"].as_array().unwrap() {
        let gaps = record["gaps"].as_array().unwrap().iter().filter(|gap| gap["track"] == *track);
        let gaps: Vec<_> =
            gaps.map(|gap| ["at_ms", "missing_ms"].map(|field| gap[field].as_u64())).collect();
        let told = [[first_ms, GAPS_MS[0]], [second_ms, GAPS_MS[1]]];
        assert_eq!(gaps, told.map(|gap| gap.map(Some)), "{id}");
    }
    let seconds = ms as f64 / 1000.0;
    let name = match encoding {
        "mulaw" => "pcm_mulaw",
        "alaw" => "pcm_alaw",
        _ => "pcm_s16le",
    };
    assert_eq!(probe(&wav), format!("{name},{rate},{channels},{seconds:.6}"), "{id}");
    let (header, sample_bytes) = if encoding == "pcm16" { (44, 2) } else { (58, 1) };
    let data = &fs::read(&wav).unwrap()[header..][..expected.len() * sample_bytes];
    assert_eq!(record["wav"]["data_sha256"], sha256(data), "{id}");
    if encoding == "pcm16" {
        assert!(data == oracle::bytes(expected), "{id}");
    }
}

#[test]
fn levels_and_silent_tracks_are_told_of_any_samples() {
    let dir = tempfile::tempdir().unwrap();
    let mut studio = Studio::open(dir.path());
    let loud =
        [(Codec::Mulaw, 0x8F), (Codec::Alaw, 0xAA), (Codec::L16Be, 0x40), (Codec::L16Le, 0x40)];
    for (codec, byte) in loud {
        let id = format!("{codec:?}");
        let shape = Shape::new(codec, 16_000, Tracks::Both, true);
        let mut stream = Stream::begin(shape, &id, Encoding::Pcm16, &mut studio.posts);
        let entry = studio.board.entries().remove(0);
        // Silence on both tracks, but for one sample of the inbound one.
        let mut bytes = vec![codec.silence(); 2 * 320 * codec.width()];
        bytes[4 * codec.width()..][..codec.width()].fill(byte);
        stream.send(Tracks::Both, &bytes, &mut studio.posts);
        // Nothing tells the byte order, and no more audio comes.
        stream.time_ms += 1500;
        stream.tend(&mut studio.posts);
        let (inbound, outbound) = match codec {
            Codec::Alaw => (g711::alaw(byte).unsigned_abs(), 8),
            Codec::Mulaw => (g711::mulaw(byte).unsigned_abs(), 0),
            Codec::G722 | Codec::L16Be | Codec::L16Le => (0x4040, 0),
        };
        assert_eq!(entry.take_peaks(), [inbound, outbound], "{id}");
        stream.end(&mut studio.posts);
        let record = read_record(&paths(dir.path(), &id).1);
        let said = (&record["silent_tracks"], &record["equal_channels"]);
        assert_eq!(said, (&json!(["outbound"]), &json!(false)), "{id}");
        assert_eq!(record["duration_ms"], 20, "{id}");
    }
    studio.close();
}

#[test]
fn a_pause_is_the_silence_of_the_streams_own_encoding() {
    let dir = tempfile::tempdir().unwrap();
    let mut studio = Studio::open(dir.path());
    for codec in [Codec::Alaw, Codec::L16Be, Codec::L16Le, Codec::Mulaw] {
        let id = format!("{codec:?}");
        let shape = Shape::new(codec, 16_000, Tracks::Both, true);
        let mut stream = Stream::begin(shape, &id, Encoding::Pcm16, &mut studio.posts);
        stream.say(1, &mut studio.posts);
        let now = stream.now();
        stream.recording.ask_pause(Some(PauseCause::Api), now);
        stream.say(2, &mut studio.posts);
        for all in &mut stream.samples {
            all[shape.samples_in(CHUNK_MS)..].fill(shape.silence());
        }
        let expected = stream.expected();
        stream.end(&mut studio.posts);
        let (wav, record) = paths(dir.path(), &id);
        assert!(fs::read(wav).unwrap()[44..] == oracle::bytes(&expected), "{id}");
        assert_eq!(read_record(&record)["paused_ms"], CHUNK_MS, "{id}");
    }
    studio.close();
}

#[test]
fn an_interrupted_recording_is_finished_at_its_own_rate_even_without_its_record() {
    let dir = tempfile::tempdir().unwrap();
    let copies = tempfile::tempdir().unwrap();
    let mut studio = Studio::open(dir.path());
    let shape = Shape::new(Codec::L16Be, 16_000, Tracks::Both, true);
    let mut stream = Stream::begin(shape, "wide", Encoding::Pcm16, &mut studio.posts);
    (0..50).for_each(|number| stream.say(number, &mut studio.posts));
    stream.time_ms += 500;
    stream.tend(&mut studio.posts);
    let part = eventually(PATIENCE, "the audio is in the file", || {
        let (wav, _) = paths(dir.path(), "wide");
        let part = wav.with_extension("wav.part");
        let length = fs::metadata(&part).ok()?.len();
        (length == 44 + 2 * stream.expected().len() as u64).then_some(part)
    });
    let day = part.parent().unwrap();
    for (name, has_record) in [("with", true), ("without", false)] {
        let home = copies.path().join(name);
        let copy = home.join(day.file_name().unwrap());
        fs::create_dir_all(&copy).unwrap();
        fs::copy(&part, copy.join("wide.wav.part")).unwrap();
        if has_record {
            fs::copy(day.join("wide.json.part"), copy.join("wide.json.part")).unwrap();
        }
        let finished = Finished::new(None, Arc::default());
        let config = store::Config { dir: home.clone(), ..store::Config::default() };
        Store::open(config, finished).unwrap().recover();
        let (wav, record) = paths(&home, "wide");
        let record = read_record(&record);
        let format = json!({ "encoding": "pcm16", "sample_rate_hz": 16_000, "channels": 2 });
        assert_eq!((&record["state"], &record["format"]), (&json!("recovered"), &format));
        assert_eq!(record["duration_ms"], 1000);
        assert_eq!(probe(&wav), "pcm_s16le,16000,2,1.000000");
        let read = Wavs::new("any-format-recovered", [&fs::read(&wav).unwrap()[..]]).ffmpeg();
        assert!(read[0] == stream.expected(), "{name}");
    }
    // The same file with the sizes that it began with.
    let begun = copies.path().join("begun.wav");
    let mut bytes = fs::read(&part).unwrap();
    bytes[4..8].copy_from_slice(&36u32.to_le_bytes());
    bytes[40..44].fill(0);
    fs::write(&begun, bytes).unwrap();
    let repair = Command::new(callreel()).arg("repair").arg(&begun).output().unwrap();
    assert!(repair.status.success(), "{repair:?}");
    assert_eq!(probe(&begun.with_extension("repaired.wav")), "pcm_s16le,16000,2,1.000000");
    stream.end(&mut studio.posts);
    studio.close();
}

#[test]
fn a_stuck_disk_holds_ten_seconds_of_any_format_and_loses_the_rest() {
    for codec in [Codec::Mulaw, Codec::L16Le] {
        let board = Arc::<Board>::default();
        let (mut posts, mut disk) = Tally::start(&board);
        let shape = Shape::new(codec, 48_000, Tracks::Both, true);
        let mut stream = Stream::begin(shape, "stuck", Encoding::Pcm16, &mut posts);
        let per_ms = 48 * 2 * codec.width() as u64;
        let mut sent_ms = 0;
        let now = |stream: &Stream, waited_ms| stream.now() + Duration::from_millis(waited_ms);
        let mut waited_ms = 0;
        for number in 0..1500 {
            // The peer is held back for ten seconds; then its audio is taken, as silence.
            while stream.recording.is_full(now(&stream, waited_ms)) {
                waited_ms += 100;
            }
            stream.began += Duration::from_millis(waited_ms);
            waited_ms = 0;
            stream.say(number, &mut posts);
            sent_ms += CHUNK_MS;
        }
        let queued = disk.queued_audio_bytes_max();
        let at_most = (QUEUE_MS_MAX + callreel::recording::BLOCK_MS_MAX) * per_ms;
        assert!((QUEUE_MS_MAX * per_ms / 2..=at_most).contains(&queued), "{codec:?}: {queued}");
        stream.tend(&mut posts);
        let lost_us = board.counters.lost_us.load(std::sync::atomic::Ordering::Relaxed);
        let kept_ms = sent_ms - lost_us / 1000;
        let held_ms = queued / per_ms;
        assert!(kept_ms.abs_diff(held_ms) <= 2000, "{codec:?}: {kept_ms} kept, {held_ms} held");
        disk.write(usize::MAX);
    }
}
