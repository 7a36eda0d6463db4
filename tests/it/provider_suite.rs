//! The list that every provider passes: one suite, run for each row of [`DIALECTS`].
//!
//! A provider is done when its row is here and its fixture, with its source, is in `tests/fixtures`.

use base64::prelude::*;
use callreel_core::frame::{PeerError, Provider, Track};
use callreel_core::session::{
    Error, Event, Gap, RING_BOTH_TRACKS_MIN, Session, Stats, TRACK_LAG_MS_MAX,
};

/// Messages of one provider, as its server sends them.
struct Dialect {
    provider: Provider,
    /// Messages of a connection before the start.
    greeting: fn() -> Vec<String>,
    /// A start of stream `id` that announces one or both tracks.
    start: fn(id: &str, tracks: &[Track]) -> String,
    /// A chunk of stream `id`.
    media: fn(id: &str, chunk: &Chunk<'_>) -> String,
    /// The stop of stream `id`; `None` if the provider ends a stream by closing the connection, as its
    /// habits must say.
    stop: Option<fn(id: &str, sequence: u64) -> String>,
}

/// Audio of one track.
struct Chunk<'a> {
    track: Track,
    /// Among the messages of the stream.
    sequence: u64,
    timestamp_ms: u64,
    payload: &'a str,
}

const DIALECTS: [Dialect; 1] = [Dialect {
    provider: Provider::Twilio,
    greeting: || vec![r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#.to_owned()],
    start: |id, tracks| {
        let tracks: Vec<String> = tracks.iter().map(|t| format!("\"{}\"", t.name())).collect();
        let tracks = tracks.join(",");
        format!(
            r#"{{"event":"start","sequenceNumber":"1","start":{{"accountSid":"AC1","streamSid":"{id}","callSid":"CA1","tracks":[{tracks}],"mediaFormat":{{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}},"customParameters":{{}}}},"streamSid":"{id}"}}"#
        )
    },
    media: |id, chunk| {
        let Chunk { track, sequence, timestamp_ms, payload } = chunk;
        let track = track.name();
        format!(
            r#"{{"event":"media","sequenceNumber":"{sequence}","media":{{"track":"{track}","chunk":"{sequence}","timestamp":"{timestamp_ms}","payload":"{payload}"}},"streamSid":"{id}"}}"#
        )
    },
    stop: Some(|id, sequence| {
        format!(
            r#"{{"event":"stop","sequenceNumber":"{sequence}","streamSid":"{id}","stop":{{"accountSid":"AC1","callSid":"CA1"}}}}"#
        )
    }),
}];

/// The end of a recording.
struct Recorded {
    /// Of both channels, interleaved, as the provider encodes them.
    bytes: Vec<u8>,
    gaps: Vec<Gap>,
    stats: Stats,
}

/// A stream of one provider, message by message.
struct Stream {
    dialect: &'static Dialect,
    session: Session<[u8; RING_BOTH_TRACKS_MIN]>,
    bytes: Vec<u8>,
    gaps: Vec<Gap>,
    sequence: u64,
}

impl Stream {
    /// A stream that has started with these tracks.
    fn new(dialect: &'static Dialect, tracks: &[Track]) -> Self {
        let session = Session::new(dialect.provider, [0; RING_BOTH_TRACKS_MIN]);
        let mut stream = Self { dialect, session, bytes: vec![], gaps: vec![], sequence: 1 };
        for message in (dialect.greeting)() {
            stream.take(&message).unwrap();
        }
        assert_eq!(stream.take(&(dialect.start)("S1", tracks)).unwrap(), "Started");
        stream
    }

    /// Gives the session a message and drains it; returns the name of its event.
    fn take(&mut self, message: &str) -> Result<String, Error> {
        let mut text = message.as_bytes().to_vec();
        let mut turn = self.session.handle_message(&mut text)?;
        self.gaps.extend(turn.gaps());
        let mut bytes = [0; 333];
        let event = format!("{:?}", turn.event());
        while let count @ 1.. = turn.poll_wire(&mut bytes) {
            self.bytes.extend(&bytes[..count]);
        }
        Ok(event.split(['(', ' ']).next().unwrap().to_owned())
    }

    /// The next chunk of a track: 20 ms of one byte.
    fn chunk(&mut self, track: Track, timestamp_ms: u64, byte: u8) -> String {
        self.sequence += 1;
        let payload = BASE64_STANDARD.encode([byte; 160]);
        let chunk = Chunk { track, sequence: self.sequence, timestamp_ms, payload: &payload };
        (self.dialect.media)("S1", &chunk)
    }

    /// Sends the next chunk of a track.
    fn say(&mut self, track: Track, timestamp_ms: u64, byte: u8) {
        let message = self.chunk(track, timestamp_ms, byte);
        assert_eq!(self.take(&message).unwrap(), "Media");
    }

    /// Ends the stream as the provider ends it.
    fn end(mut self) -> Recorded {
        if let Some(stop) = self.dialect.stop {
            assert_eq!(self.take(&stop("S1", self.sequence + 1)).unwrap(), "Stopped");
        }
        let mut turn = self.session.handle_end();
        self.gaps.extend(turn.gaps());
        let mut bytes = [0; 333];
        while let count @ 1.. = turn.poll_wire(&mut bytes) {
            self.bytes.extend(&bytes[..count]);
        }
        drop(turn);
        Recorded { bytes: self.bytes, gaps: self.gaps, stats: *self.session.stats() }
    }
}

use Track::{Inbound, Outbound};

fn one_track_is_recorded_as_it_came(dialect: &'static Dialect) {
    for track in [Inbound, Outbound] {
        let mut stream = Stream::new(dialect, &[track]);
        stream.say(track, 0, 1);
        stream.say(track, 20, 2);
        let recorded = stream.end();
        assert_eq!(recorded.bytes, [[1; 160], [2; 160]].concat());
        assert_eq!((recorded.gaps, recorded.stats.media), (vec![], 2));
    }
}

fn two_tracks_are_the_two_channels(dialect: &'static Dialect) {
    let mut stream = Stream::new(dialect, &[Inbound, Outbound]);
    for index in 0..4 {
        stream.say(Outbound, 20 * index, 2);
        stream.say(Inbound, 20 * index, 1);
    }
    assert_eq!(stream.end().bytes, [1, 2].repeat(4 * 160));
}

fn a_track_that_is_silent_does_not_hold_back_the_other(dialect: &'static Dialect) {
    let mut stream = Stream::new(dialect, &[Inbound, Outbound]);
    let chunks = u64::from(TRACK_LAG_MS_MAX) / 20 + 2;
    for index in 0..chunks {
        stream.say(Inbound, 20 * index, 1);
    }
    assert_eq!(stream.bytes.len(), 2 * 2 * 160);
}

fn missing_time_is_silence_and_a_gap(dialect: &'static Dialect) {
    let mut stream = Stream::new(dialect, &[Inbound]);
    stream.say(Inbound, 0, 1);
    stream.say(Inbound, 520, 2);
    let recorded = stream.end();
    let gap = Gap { track: Inbound, at: 160, missing: 4000, filled: 4000 };
    assert_eq!((recorded.bytes.len(), recorded.gaps), (320 + 4000, vec![gap]));
}

fn a_late_chunk_finds_its_hole(dialect: &'static Dialect) {
    let mut stream = Stream::new(dialect, &[Inbound]);
    stream.say(Inbound, 0, 1);
    let late = stream.chunk(Inbound, 20, 2);
    stream.say(Inbound, 40, 3);
    stream.take(&late).unwrap();
    let recorded = stream.end();
    assert_eq!(recorded.bytes, [[1; 160], [2; 160], [3; 160]].concat());
    assert_eq!((recorded.stats.missing, recorded.stats.reordered), (1, 1));
}

fn a_repeat_is_dropped(dialect: &'static Dialect) {
    let mut stream = Stream::new(dialect, &[Inbound]);
    let chunk = stream.chunk(Inbound, 0, 1);
    stream.take(&chunk).unwrap();
    stream.take(&chunk).unwrap();
    let recorded = stream.end();
    assert_eq!((recorded.bytes.len(), recorded.stats.repeated), (160, 1));
}

fn a_broken_message_costs_itself_only(dialect: &'static Dialect) {
    let mut stream = Stream::new(dialect, &[Inbound]);
    stream.say(Inbound, 0, 1);
    let chunk = |payload| Chunk { track: Inbound, sequence: 3, timestamp_ms: 20, payload };
    let deep = "[".repeat(200);
    for (message, reason) in [
        ((dialect.media)("S1", &chunk("~~~~")), PeerError::Base64),
        (format!(r#"{{"a":{deep}"#), PeerError::Depth),
        ("{\"event\":".to_owned(), PeerError::Json),
        ("[]".to_owned(), PeerError::Shape),
    ] {
        assert_eq!(stream.take(&message), Err(Error::Peer(reason)), "{message}");
    }
    let other = Chunk { track: Outbound, ..chunk("AAAA") };
    let refused = stream.take(&(dialect.media)("S1", &other));
    assert_eq!(refused, Err(Error::Peer(PeerError::Track)));
    stream.sequence = 3;
    stream.say(Inbound, 20, 2);
    let recorded = stream.end();
    assert_eq!(recorded.bytes, [[1; 160], [2; 160]].concat());
    assert_eq!(recorded.stats.rejected, [1; PeerError::ALL.len()]);
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
    let mut plain = Stream::new(dialect, &[Inbound, Outbound]);
    let mut spelled = Stream::new(dialect, &[Inbound]);
    spelled.session.reset();
    let start = spell(&(dialect.start)("S1", &[Inbound, Outbound]));
    assert_eq!(spelled.take(&start).unwrap(), "Started");
    for index in 0..6 {
        for track in [Inbound, Outbound] {
            let message = plain.chunk(track, 20 * index, index as u8 * 40);
            plain.take(&message).unwrap();
            spelled.take(&spell(&message)).unwrap();
        }
    }
    spelled.sequence = plain.sequence;
    let (plain, spelled) = (plain.end(), spelled.end());
    assert_eq!((plain.bytes, plain.gaps), (spelled.bytes, spelled.gaps));
    assert_eq!(plain.stats, spelled.stats);
}

fn audio_before_the_start_and_after_the_end_is_counted(dialect: &'static Dialect) {
    let mut stream = Stream::new(dialect, &[Inbound]);
    stream.session.reset();
    let early = stream.chunk(Inbound, 0, 1);
    assert_eq!(stream.take(&early).unwrap(), "Premature");
    stream.take(&(dialect.start)("S1", &[Inbound])).unwrap();
    stream.say(Inbound, 20, 2);
    if let Some(stop) = dialect.stop {
        stream.take(&stop("S1", 9)).unwrap();
    }
    drop(stream.session.handle_end());
    let late = stream.chunk(Inbound, 40, 3);
    assert_eq!(stream.take(&late).unwrap(), "Ignored");
    assert_eq!(stream.bytes, [2; 160]);
    let stats = stream.session.stats();
    assert_eq!((stats.before_start, stats.media, stats.after_stop), (1, 1, 1));
}

fn another_start_is_told_and_changes_nothing(dialect: &'static Dialect) {
    let mut stream = Stream::new(dialect, &[Inbound]);
    stream.say(Inbound, 0, 1);
    let mut again = (dialect.start)("S2", &[Inbound]).into_bytes();
    let turn = stream.session.handle_message(&mut again).unwrap();
    assert!(matches!(turn.event(), Event::Restart));
    drop(turn);
    stream.say(Inbound, 20, 2);
    assert_eq!(stream.end().bytes, [[1; 160], [2; 160]].concat());
}

fn its_name_and_its_habits_are_known(dialect: &'static Dialect) {
    let name = dialect.provider.name();
    assert_eq!(dialect.provider.habits().ends_with_stop, dialect.stop.is_some());
    assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
}

/// A test for each item of the list, which runs it for every provider.
macro_rules! every_provider {
    ($($item:ident)*) => {
        mod every_provider {
            $(#[test]
            fn $item() {
                for dialect in &super::DIALECTS {
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
}
