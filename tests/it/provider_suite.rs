//! The list that every provider passes: one suite, run for each row of [`DIALECTS`].
//!
//! A provider is done when its row is here and its fixture, with its source, is in `tests/fixtures`.

mod answered;
mod rows;

use base64::prelude::*;
use callreel_core::frame::{Detector, PeerError, Provider, Track, Verdict};
use callreel_core::session::{Error, Event, Gap, Session, Stats, TRACK_LAG_MS_MAX};
use serde_json::json;

use self::rows::DIALECTS;
use crate::harness::client::{Said, said};

/// Messages of one provider, as its server sends them.
struct Dialect {
    provider: Provider,
    /// Messages of a connection before the start.
    greeting: &'static [&'static str],
    /// Messages behind them, the last of which tells the provider.
    hello: &'static [&'static str],
    /// A start of stream `id` that announces one or both tracks.
    start: fn(id: &str, tracks: &[Track]) -> String,
    /// A chunk of stream `id`.
    media: fn(id: &str, chunk: &Chunk<'_>) -> String,
    /// The stop of stream `id`; `None` if the provider ends a stream by closing the connection, as its
    /// habits must say.
    stop: Option<fn(id: &str, sequence: u64) -> String>,
    /// Whether its first messages tell the provider.
    is_told: bool,
    /// Where these are not those of most providers: messages that are rejected, each with its reason.
    /// `DEPTH` stands for brackets.
    broken: Option<&'static [(&'static str, PeerError)]>,
    tracks: Announced,
    numbers: Numbers,
    has_times: bool,
    /// Bytes of 20 ms of a track.
    chunk_bytes: usize,
    /// The silence of a byte.
    silence: u8,
}

/// The tracks that a start tells.
#[derive(Clone, Copy, PartialEq)]
enum Announced {
    /// Those of the stream.
    Named,
    /// None: both may come.
    Both,
    /// None: only inbound audio is sent.
    Inbound,
}

/// The numbers by which missing messages are known.
#[derive(Clone, Copy, PartialEq)]
enum Numbers {
    OfMessages,
    OfChunks,
    None,
}

/// Audio of one track.
struct Chunk<'a> {
    track: Track,
    /// Among the messages of the stream.
    sequence: u64,
    /// Among the chunks of the track.
    number: u64,
    timestamp_ms: u64,
    payload: &'a str,
}

fn names(tracks: &[Track]) -> Vec<&'static str> {
    tracks.iter().map(|track| track.name()).collect()
}

/// Every row.
fn all() -> impl Iterator<Item = &'static Dialect> {
    DIALECTS.iter().chain(&answered::DIALECTS)
}

/// The end of a recording.
struct Recorded {
    /// Of each channel, as the provider encodes them.
    channels: Vec<Vec<u8>>,
    gaps: Vec<Gap>,
    stats: Stats,
}

/// A stream of one provider, message by message.
struct Stream {
    dialect: &'static Dialect,
    session: Session<Vec<u8>>,
    bytes: Vec<u8>,
    gaps: Vec<Gap>,
    sequence: u64,
    /// Chunks of each track so far.
    chunks: [u64; 2],
}

/// A stream id of two digits, so that it may be the end of a UUID.
const ID: &str = "51";

impl Stream {
    /// A stream that has started with these tracks.
    fn new(dialect: &'static Dialect, tracks: &[Track]) -> Self {
        let session = Session::new(dialect.provider, vec![0; 64 << 10]);
        let mut stream =
            Self { dialect, session, bytes: vec![], gaps: vec![], sequence: 1, chunks: [0; 2] };
        for message in dialect.greeting.iter().chain(dialect.hello) {
            stream.take(message).unwrap();
        }
        assert_eq!(stream.take(&(dialect.start)(ID, tracks)).unwrap(), "Started");
        stream
    }

    /// Gives the session a message and drains it; returns the name of its event.
    fn take(&mut self, message: &str) -> Result<String, Error> {
        let (mut text, audio);
        let mut turn = match said(message.as_bytes()) {
            Said::Text(said) => {
                text = said;
                self.session.handle_message(&mut text)?
            }
            Said::Binary(said) => {
                audio = said;
                self.session.handle_audio(&audio)?
            }
        };
        self.gaps.extend(turn.gaps());
        let mut bytes = [0; 332];
        let event = format!("{:?}", turn.event());
        while let count @ 1.. = turn.poll_wire(&mut bytes) {
            self.bytes.extend(&bytes[..count]);
        }
        Ok(event.split(['(', ' ']).next().unwrap().to_owned())
    }

    /// The payload of 20 ms of one byte.
    fn payload(&self, byte: u8) -> String {
        BASE64_STANDARD.encode(vec![byte; self.dialect.chunk_bytes])
    }

    /// The next chunk of a track: 20 ms of one byte.
    fn chunk(&mut self, track: Track, timestamp_ms: u64, byte: u8) -> String {
        self.sequence += 1;
        self.chunks[track as usize] += 1;
        let (sequence, number) = (self.sequence, self.chunks[track as usize]);
        let payload = self.payload(byte);
        let chunk = Chunk { track, sequence, number, timestamp_ms, payload: &payload };
        (self.dialect.media)(ID, &chunk)
    }

    /// Sends the next chunk of a track.
    fn say(&mut self, track: Track, timestamp_ms: u64, byte: u8) {
        let message = self.chunk(track, timestamp_ms, byte);
        assert_eq!(self.take(&message).unwrap(), "Media");
    }

    /// The audio so far, of each channel.
    fn channels(&self) -> Vec<Vec<u8>> {
        let count = usize::from(self.session.tracks().channels());
        let width = self.session.format().unwrap().codec.width();
        let samples: Vec<_> = self.bytes.chunks(width).collect();
        let channel = |index| samples[index..].iter().step_by(count).flat_map(|s| s.to_vec());
        (0..count).map(|index| channel(index).collect()).collect()
    }

    /// Ends the stream as the provider ends it.
    fn end(mut self) -> Recorded {
        if let Some(stop) = self.dialect.stop {
            let event = self.take(&stop(ID, self.sequence + 1)).unwrap();
            assert!(["Over", "Stopped"].contains(&&*event), "{event}");
        }
        let mut turn = self.session.handle_end();
        self.gaps.extend(turn.gaps());
        let mut bytes = [0; 332];
        while let count @ 1.. = turn.poll_wire(&mut bytes) {
            self.bytes.extend(&bytes[..count]);
        }
        drop(turn);
        Recorded { channels: self.channels(), stats: *self.session.stats(), gaps: self.gaps }
    }
}

impl Dialect {
    /// 20 ms of each byte.
    fn audio(&self, bytes: &[u8]) -> Vec<u8> {
        bytes.iter().flat_map(|byte| vec![*byte; self.chunk_bytes]).collect()
    }

    /// The channels of a recording of `track` with this audio.
    fn alone(&self, track: Track, audio: Vec<u8>) -> Vec<Vec<u8>> {
        if self.tracks != Announced::Both {
            return vec![audio];
        }
        let silence = vec![self.silence; audio.len()];
        if track == Inbound { vec![audio, silence] } else { vec![silence, audio] }
    }

    /// The tracks that a stream may have alone.
    const fn lone_tracks(&self) -> &[Track] {
        if matches!(self.tracks, Announced::Inbound) { &[Inbound] } else { &[Inbound, Outbound] }
    }

    /// Samples of 20 ms of a track.
    fn samples(&self) -> u64 {
        let width = if self.silence == 0 { 2 } else { 1 };
        (self.chunk_bytes / width) as u64
    }
}

use Track::{Inbound, Outbound};

fn one_track_is_recorded_as_it_came(dialect: &'static Dialect) {
    for track in dialect.lone_tracks() {
        let mut stream = Stream::new(dialect, &[*track]);
        stream.say(*track, 0, 1);
        stream.say(*track, 20, 2);
        let recorded = stream.end();
        assert!(recorded.channels == dialect.alone(*track, dialect.audio(&[1, 2])));
        assert_eq!((recorded.gaps, recorded.stats.media), (vec![], 2));
        assert_eq!((recorded.stats.unaddressed, recorded.stats.missing), (0, 0));
    }
}

fn two_tracks_are_the_two_channels(dialect: &'static Dialect) {
    if dialect.tracks == Announced::Inbound {
        return;
    }
    let mut stream = Stream::new(dialect, &[Inbound, Outbound]);
    for index in 0..4 {
        stream.say(Outbound, 20 * index, 2);
        stream.say(Inbound, 20 * index, 1);
    }
    let recorded = stream.end();
    assert!(recorded.channels == [dialect.audio(&[1; 4]), dialect.audio(&[2; 4])]);
    assert_eq!((recorded.gaps, recorded.stats.missing), (vec![], 0));
}

fn a_track_that_is_silent_does_not_hold_back_the_other(dialect: &'static Dialect) {
    if dialect.tracks == Announced::Inbound {
        return;
    }
    let mut stream = Stream::new(dialect, &[Inbound, Outbound]);
    let chunks = u64::from(TRACK_LAG_MS_MAX) / 20 + 2;
    for index in 0..chunks {
        stream.say(Inbound, 20 * index, 1);
    }
    assert_eq!(stream.bytes.len(), 2 * 2 * dialect.chunk_bytes);
}

fn missing_time_is_silence_and_a_gap(dialect: &'static Dialect) {
    let mut stream = Stream::new(dialect, &[Inbound]);
    stream.say(Inbound, 0, 1);
    // Not as many milliseconds as a chunk has samples: that would be another clock.
    stream.say(Inbound, 1020, 2);
    let recorded = stream.end();
    let length = 50 * dialect.samples();
    let gap = Gap {
        track: Inbound,
        at: dialect.samples(),
        missing: length,
        filled: length,
        is_by_arrival: false,
    };
    let (silence, gaps) = if dialect.has_times { (50, vec![gap]) } else { (0, vec![]) };
    let silence = vec![dialect.silence; silence];
    let audio = dialect.audio(&[&[1], &silence[..], &[2]].concat());
    assert!(recorded.channels[0] == audio, "{}", dialect.provider.name());
    assert_eq!(recorded.gaps, gaps);
}

fn a_late_chunk_finds_its_hole(dialect: &'static Dialect) {
    let mut stream = Stream::new(dialect, &[Inbound]);
    stream.say(Inbound, 0, 1);
    let late = stream.chunk(Inbound, 20, 2);
    stream.say(Inbound, 40, 3);
    stream.take(&late).unwrap();
    let recorded = stream.end();
    let (order, count) =
        if dialect.numbers == Numbers::None { ([1, 3, 2], 0) } else { ([1, 2, 3], 1) };
    assert!(recorded.channels[0] == dialect.audio(&order));
    assert_eq!((recorded.stats.missing, recorded.stats.reordered), (count, count));
}

fn a_repeat_is_dropped(dialect: &'static Dialect) {
    let mut stream = Stream::new(dialect, &[Inbound]);
    let chunk = stream.chunk(Inbound, 0, 1);
    stream.take(&chunk).unwrap();
    stream.take(&chunk).unwrap();
    let recorded = stream.end();
    // Without a number, it may as well be the same sound again.
    let (audio, count) =
        if dialect.numbers == Numbers::None { (&[1, 1][..], 0) } else { (&[1][..], 1) };
    assert!(recorded.channels[0] == dialect.audio(audio));
    assert_eq!(recorded.stats.repeated, count);
}

fn a_broken_message_costs_itself_only(dialect: &'static Dialect) {
    let mut stream = Stream::new(dialect, &[Inbound]);
    stream.say(Inbound, 0, 1);
    let chunk =
        |payload| Chunk { track: Inbound, sequence: 3, number: 2, timestamp_ms: 20, payload };
    let deep = "[".repeat(200);
    if let Some(broken) = dialect.broken {
        for (message, reason) in broken {
            let message = message.replace("DEPTH", &deep);
            assert_eq!(stream.take(&message), Err(Error::Peer(*reason)), "{message}");
        }
        stream.say(Inbound, 20, 2);
        let recorded = stream.end();
        assert!(recorded.channels[0] == dialect.audio(&[1, 2]));
        assert_eq!(recorded.stats.rejected.iter().sum::<u64>(), broken.len() as u64);
        return;
    }
    for (message, reason) in [
        ((dialect.media)(ID, &chunk("~~~~")), PeerError::Base64),
        (format!(r#"{{"a":{deep}"#), PeerError::Depth),
        ("{\"event\":".to_owned(), PeerError::Json),
        ("[]".to_owned(), PeerError::Shape),
    ] {
        assert_eq!(stream.take(&message), Err(Error::Peer(reason)), "{message}");
    }
    let other = (dialect.media)(ID, &Chunk { track: Outbound, ..chunk("AAAA") });
    let refused = stream.take(&match dialect.tracks {
        Announced::Both => other.replace("outbound", "third"),
        _ => other,
    });
    assert_eq!(refused, Err(Error::Peer(PeerError::Track)));
    stream.sequence = 3;
    stream.say(Inbound, 20, 2);
    let recorded = stream.end();
    assert!(recorded.channels[0] == dialect.audio(&[1, 2]));
    // The length of a message is known before it is parsed.
    let once = |reason| u64::from(reason != PeerError::Length);
    assert_eq!(recorded.stats.rejected, PeerError::ALL.map(once));
}

fn any_spelling_of_a_message_means_the_same(dialect: &'static Dialect) {
    let spell = |message: &str| {
        let value: serde_json::Value = serde_json::from_str(message).unwrap();
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        // Every letter of a name or a text as an escape; numbers and payloads stay.
        let mut quoted = false;
        let escape = |letter: char| {
            quoted ^= letter == '"';
            match letter {
                'a'..='z' if quoted => format!("\\u{:04x}", u32::from(letter)),
                other => other.to_string(),
            }
        };
        pretty.chars().map(escape).collect::<String>()
    };
    let tracks = match dialect.tracks {
        Announced::Inbound => &[Inbound][..],
        _ => &[Inbound, Outbound],
    };
    let mut plain = Stream::new(dialect, tracks);
    let mut spelled = Stream::new(dialect, &[Inbound]);
    spelled.session.reset();
    let start = spell(&(dialect.start)(ID, tracks));
    assert_eq!(spelled.take(&start).unwrap(), "Started");
    for index in 0..6 {
        for track in tracks.iter().copied() {
            let message = plain.chunk(track, 20 * index, index as u8 * 40);
            plain.take(&message).unwrap();
            spelled.take(&spell(&message)).unwrap();
        }
    }
    spelled.sequence = plain.sequence;
    let (plain, spelled) = (plain.end(), spelled.end());
    assert!(plain.channels == spelled.channels);
    assert_eq!(plain.gaps, spelled.gaps);
    assert_eq!(plain.stats, spelled.stats);
}

fn audio_before_the_start_and_after_the_end_is_counted(dialect: &'static Dialect) {
    if dialect.provider.habits().begins_with_audio {
        return;
    }
    let mut stream = Stream::new(dialect, &[Inbound]);
    stream.session.reset();
    let early = stream.chunk(Inbound, 0, 1);
    assert_eq!(stream.take(&early).unwrap(), "Premature");
    stream.take(&(dialect.start)(ID, &[Inbound])).unwrap();
    stream.say(Inbound, 20, 2);
    if let Some(stop) = dialect.stop {
        stream.take(&stop(ID, 9)).unwrap();
    }
    let mut turn = stream.session.handle_end();
    let mut bytes = [0; 332];
    while let count @ 1.. = turn.poll_wire(&mut bytes) {
        stream.bytes.extend(&bytes[..count]);
    }
    drop(turn);
    let late = stream.chunk(Inbound, 40, 3);
    assert_eq!(stream.take(&late).unwrap(), "Ignored");
    assert!(stream.channels()[0] == dialect.audio(&[2]));
    let stats = stream.session.stats();
    assert_eq!((stats.before_start, stats.media, stats.after_stop), (1, 1, 1));
}

fn another_start_is_told_and_changes_nothing(dialect: &'static Dialect) {
    let mut stream = Stream::new(dialect, &[Inbound]);
    stream.say(Inbound, 0, 1);
    let mut again = (dialect.start)("52", &[Inbound]).into_bytes();
    let turn = stream.session.handle_message(&mut again).unwrap();
    let is_ignored = matches!(turn.event(), Event::Ignored);
    assert_eq!(is_ignored, dialect.provider.habits().has_free_start);
    assert!(is_ignored || matches!(turn.event(), Event::Restart));
    drop(turn);
    stream.say(Inbound, 20, 2);
    assert!(stream.end().channels[0] == dialect.audio(&[1, 2]));
}

fn its_name_and_its_habits_are_known(dialect: &'static Dialect) {
    let name = dialect.provider.name();
    assert_eq!(Provider::named(name), Some(dialect.provider));
    let habits = dialect.provider.habits();
    assert_eq!(habits.ends_with_stop, dialect.stop.is_some());
    let chunk = Chunk { track: Inbound, sequence: 2, number: 1, timestamp_ms: 0, payload: "" };
    let is_binary = (dialect.media)(ID, &chunk).starts_with(r#"{"binary":"#);
    assert_eq!(habits.has_binary_audio, is_binary);
    assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
}

fn its_first_messages_tell_it(dialect: &'static Dialect) {
    let mut detector = Detector::new();
    for message in dialect.greeting {
        let verdict = detector.note_text(&mut message.as_bytes().to_vec());
        assert_eq!(verdict, Ok(Verdict::Undecided));
    }
    let mut session = Session::new(dialect.provider, vec![0; 64 << 10]);
    for message in dialect.hello {
        let mut text = message.as_bytes().to_vec();
        detector.note_text(&mut text).unwrap();
        drop(session.handle_message(&mut text).unwrap());
    }
    let is_early = detector.verdict() != Verdict::Undecided;
    assert_eq!(is_early, !dialect.hello.is_empty());
    let start = (dialect.start)(ID, &[Inbound]);
    let mut text = start.clone().into_bytes();
    let verdict = detector.note_text(&mut text);
    let known = Verdict::Known(dialect.provider);
    assert_eq!(verdict, Ok(if dialect.is_told { known } else { Verdict::Undecided }), "{start}");
    // The text is as good as before.
    assert!(matches!(session.handle_message(&mut text).unwrap().event(), Event::Started { .. }));
}

/// A test for each item of the list, which runs it for every provider.
macro_rules! every_provider {
    ($($item:ident)*) => {
        mod every_provider {
            $(#[test]
            fn $item() {
                for dialect in super::all() {
                    super::$item(dialect);
                }
            })*
        }
    };
}

every_provider! {
    one_track_is_recorded_as_it_came
    two_tracks_are_the_two_channels
    a_track_that_is_silent_does_not_hold_back_the_other
    missing_time_is_silence_and_a_gap
    a_late_chunk_finds_its_hole
    a_repeat_is_dropped
    a_broken_message_costs_itself_only
    any_spelling_of_a_message_means_the_same
    audio_before_the_start_and_after_the_end_is_counted
    another_start_is_told_and_changes_nothing
    its_name_and_its_habits_are_known
    its_first_messages_tell_it
}

#[test]
fn every_provider_has_a_row() {
    let mut rows: Vec<_> = all().map(|dialect| dialect.provider.name()).collect();
    rows.sort_unstable();
    assert_eq!(rows, Provider::ALL.iter().map(|provider| provider.name()).collect::<Vec<_>>());
}
