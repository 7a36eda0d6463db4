//! Any messages in any order: no audio is lost, the counts add up, and both channels have the same
//! length.

#![no_main]

use arbitrary::Arbitrary;
use base64::prelude::*;
use callreel_core::frame::{PeerError, Provider};
use callreel_core::g711::decode_mulaw_all;
use callreel_core::session::{
    Error, Event, Gap, RING_BOTH_TRACKS_MIN, RING_ONE_TRACK_MIN, Session, Turn,
};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    ring: Ring,
    out_places: u8,
    messages: Vec<Message>,
}

/// Size of a session's ring.
#[derive(Arbitrary, Debug)]
enum Ring {
    /// The usual size for two tracks.
    Usual,
    /// The smallest ring for two tracks.
    Least,
    /// The smallest ring for one track.
    One,
}

#[derive(Arbitrary, Debug)]
enum Message {
    Media(Media),
    /// The message before, once more.
    Again,
    Mark,
    Start {
        inbound: bool,
        outbound: bool,
    },
    Stop,
    Text(String),
    /// Media with a turn that is dropped undrained.
    Undrained(Media),
}

#[derive(Arbitrary, Debug)]
struct Media {
    outbound: bool,
    sequence: Option<u8>,
    time: Time,
    length: Length,
    valid: bool,
}

#[derive(Arbitrary, Debug)]
enum Time {
    Any(u64),
    /// In steps of 100 ms: around the longest gap that is filled.
    Far(u8),
    /// In steps of 5 ms: around the border between wobble and gap.
    Near(u8),
    None,
}

#[derive(Arbitrary, Debug)]
enum Length {
    Long(u16),
    Short(u8),
}

fuzz_target!(|input: Input| {
    // Filling gaps costs time: ten seconds of silence for each message.
    if input.messages.len() > 40 {
        return;
    }
    let ring_bytes = match input.ring {
        Ring::Usual => 4096,
        Ring::Least => RING_BOTH_TRACKS_MIN,
        Ring::One => RING_ONE_TRACK_MIN,
    };
    let mut state = State::new(ring_bytes, usize::from(input.out_places) * 16 + 2);
    let mut last = String::new();
    for message in &input.messages {
        let (text, drained) = match message {
            Message::Again => (last.clone(), true),
            Message::Mark => (r#"{"event":"mark","mark":{"name":"m"}}"#.to_owned(), true),
            Message::Media(media) => (media.text(), true),
            Message::Start { inbound, outbound } => (start(*inbound, *outbound), true),
            Message::Stop => (r#"{"event":"stop"}"#.to_owned(), true),
            Message::Text(text) => (text.clone(), true),
            Message::Undrained(media) => (media.text(), false),
        };
        state.take(&text, drained);
        last = text;
    }
    state.end();
});

fn start(inbound: bool, outbound: bool) -> String {
    let tracks: &[&str] = match (inbound, outbound) {
        (true, true) => &["inbound", "outbound"],
        (false, true) => &["outbound"],
        _ => &["inbound"],
    };
    format!(r#"{{"event":"start","start":{{"tracks":{tracks:?}}}}}"#)
}

impl Media {
    fn text(&self) -> String {
        let length = match self.length {
            Length::Long(length) => usize::from(length) / 8,
            Length::Short(length) => usize::from(length),
        };
        // Codes other than silence, so that audio differs from the silence that fills gaps.
        let payload = BASE64_STANDARD.encode(vec![0x21 + self.outbound as u8; length]);
        let timestamp = match self.time {
            Time::Any(time) => format!(r#""timestamp":"{time}","#),
            Time::Far(time) => format!(r#""timestamp":{},"#, u32::from(time) * 100),
            Time::Near(time) => format!(r#""timestamp":{},"#, u32::from(time) * 5),
            Time::None => String::new(),
        };
        let sequence = self.sequence.map(|s| format!(r#""sequenceNumber":"{s}","#));
        let track = if self.outbound { "outbound" } else { "inbound" };
        let stray = if self.valid { "" } else { "!" };
        format!(
            r#"{{"event":"media",{}"media":{{"track":"{track}",{timestamp}"payload":"{payload}{stray}"}}}}"#,
            sequence.unwrap_or_default()
        )
    }
}

/// A session, and the counts that it is checked against.
struct State {
    session: Session<Vec<u8>>,
    ring_bytes: usize,
    drained: Drained,
    gaps: Vec<Gap>,
    taken: [usize; 2],
    messages: u64,
    others: u64,
    media: u64,
    undrained: u64,
}

impl State {
    fn new(ring_bytes: usize, out_places: usize) -> Self {
        Self {
            session: Session::new(Provider::Twilio, vec![0; ring_bytes]),
            ring_bytes,
            drained: Drained {
                out: vec![0; out_places],
                codes: vec![0; out_places],
                asks_for_codes: false,
                samples: 0,
                heard: [0; 2],
            },
            gaps: Vec::new(),
            taken: [0; 2],
            messages: 0,
            others: 0,
            media: 0,
            undrained: 0,
        }
    }

    fn take(&mut self, text: &str, drained: bool) {
        let mut text = text.as_bytes().to_vec();
        let before = (*self.session.stats(), self.session.spec());
        let channels = self.session.tracks().channels();
        self.messages += 1;
        let taken = match self.session.handle_message(&mut text) {
            Ok(turn) => {
                self.gaps.extend(turn.gaps());
                let restart = matches!(turn.event(), Event::Restart);
                match turn.event() {
                    Event::Media(placed) => {
                        self.media += u64::from(!placed.repeated);
                        // A late chunk that lands in its place needs no draining.
                        if drained || placed.reordered {
                            for track in placed.tracks.iter() {
                                self.taken[track as usize] += placed.samples;
                            }
                        } else {
                            self.undrained += placed.samples as u64;
                        }
                    }
                    Event::Premature => {}
                    _ => self.others += 1,
                }
                if drained {
                    self.drained.drain(turn, channels);
                }
                Ok(restart)
            }
            Err(error) => Err(error),
        };
        let restart = match taken {
            Ok(restart) => restart,
            Err(error) => {
                let (mut stats, spec) = before;
                match error {
                    Error::Peer(error) => stats.rejected[error.index()] += 1,
                    _ => self.others += 1,
                }
                assert_eq!((*self.session.stats(), self.session.spec()), (stats, spec));
                return;
            }
        };
        let stats = *self.session.stats();
        assert_eq!(stats.media, self.media);
        // A dropped turn also loses the silence of its gap.
        assert!(stats.undrained >= self.undrained);
        if restart {
            let places = self.drained.out.len();
            std::mem::replace(self, Self::new(self.ring_bytes, places)).end();
            let again = core::str::from_utf8(&text).unwrap().to_owned();
            self.take(&again, drained);
        }
    }

    fn end(mut self) {
        let channels = self.session.tracks().channels();
        let turn = self.session.handle_end();
        self.gaps.extend(turn.gaps());
        self.drained.drain(turn, channels);
        self.drained.drain(self.session.handle_end(), channels);

        let stats = *self.session.stats();
        let rejected: u64 = PeerError::ALL.iter().map(|error| stats.rejected[error.index()]).sum();
        assert!(stats.late + stats.reordered <= stats.media);
        assert!(stats.reordered <= stats.missing && stats.unaddressed <= stats.media + stats.repeated);
        let counted = stats.media + stats.repeated + stats.before_start + rejected;
        assert_eq!(counted + self.others, self.messages, "{stats:?}");
        let Drained { samples, heard, .. } = self.drained;
        if self.session.spec().is_none() {
            assert_eq!(samples, 0);
            return;
        }
        let channels = usize::from(channels);
        assert_eq!(samples % channels, 0);
        for (channel, track) in self.session.tracks().iter().enumerate() {
            let heard = heard[channel];
            assert_eq!(heard, self.taken[track as usize], "{track:?}");
            let filled = |gap: &&Gap| gap.track == track;
            let filled: u64 = self.gaps.iter().filter(filled).map(|gap| gap.filled).sum();
            let padding = (samples / channels) as i64 - heard as i64 - filled as i64;
            if stats.undrained == 0 {
                let padding_max = if channels == 2 { 1600 } else { 0 };
                assert!((0..=padding_max).contains(&padding), "{track:?} {padding}");
            }
            for gap in &self.gaps {
                assert!(gap.missing > 0 && gap.filled <= gap.missing);
            }
        }
    }
}

/// The output of a session.
struct Drained {
    out: Vec<i16>,
    codes: Vec<u8>,
    asks_for_codes: bool,
    samples: usize,
    /// Samples of each channel that are not silence.
    heard: [usize; 2],
}

impl Drained {
    fn drain(&mut self, mut turn: Turn<'_, '_, Vec<u8>>, channels: u16) {
        let is_heard = |sample: &&i16| **sample != 0;
        loop {
            let count = if self.asks_for_codes {
                let count = turn.poll_wire(&mut self.codes);
                decode_mulaw_all(&self.codes[..count], &mut self.out);
                count
            } else {
                turn.poll_pcm(&mut self.out)
            };
            if count == 0 {
                return;
            }
            self.asks_for_codes = !self.asks_for_codes;
            let samples = &self.out[..count];
            self.samples += samples.len();
            if channels == 1 {
                self.heard[0] += samples.iter().filter(is_heard).count();
            } else {
                let pairs = samples.as_chunks::<2>().0.iter();
                for (channel, heard) in self.heard.iter_mut().enumerate() {
                    *heard += pairs.clone().filter(|pair| pair[channel] != 0).count();
                }
            }
        }
    }
}
