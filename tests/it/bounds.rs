//! Memory and file bytes of a call, bounded by the bytes that its peer sends and the time that passes: a
//! call on the host without socket and disk, fed with any messages, in any order and at any pace.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use callreel::board::Board;
use callreel::call::routing::STREAMS_MAX;
use callreel::call::{Action, Call, Context};
use callreel::pace::Pace;
use callreel::recording::{BLOCK_MS_MAX, QUEUE_MS_MAX, Tally};
use callreel_core::frame::Detector;
use callreel_core::session::SilenceBudget;
use callreel_core::wav::Encoding;
use callreel_core::ws::CloseCode;
use proptest::prelude::*;

use crate::harness::client;
use crate::harness::messages::{media, start};

/// Bytes of a millisecond of one track in a file.
const BYTES_PER_MS: u64 = 16;

/// Longest audio of one message, in milliseconds of a track: 256 KiB of base64.
const MESSAGE_MS_MAX: u64 = 192 * 1024 / 8;

/// Most audio that waits for the disk, in milliseconds of a track: the limit is checked between two
/// messages, and a message is posted together with the block begun before it.
const WAITING_MS_MAX: u64 = QUEUE_MS_MAX + MESSAGE_MS_MAX + BLOCK_MS_MAX;

/// A connection with a socket, a clock and a disk that the test simulates.
struct Line {
    call: Call,
    board: Arc<Board>,
    context: Context,
    disk: Tally,
    began: Instant,
    now_ms: u64,
    /// Bytes that the call has not handled, and whether it was held back when it was asked last.
    unread: Vec<u8>,
    is_held_back: bool,
    is_closed: bool,
    /// Bytes sent, WebSocket framing included.
    sent: u64,
    /// Streams under way; `track_ms` is the time that their tracks have run, two tracks each.
    live: Vec<String>,
    track_ms: u64,
}

impl Line {
    fn new(capture: bool, encoding: Encoding) -> Self {
        let board = Arc::<Board>::default();
        let (posts, disk) = Tally::start(&board);
        let context = Context {
            posts,
            encoding,
            segment_bytes_max: u64::MAX,
            pause_key: None,
            stream_tokens: None,
            callers: None,
            failures: Arc::default(),
            door: Arc::default(),
            pace: Arc::new(Pace::new(None)),
            is_stopping: false,
            finished: Arc::new(|_, _| ()),
        };
        Self {
            call: Call::new(([127, 0, 0, 1], 1).into(), 0, Detector::new(), capture),
            board,
            context,
            disk,
            began: Instant::now(),
            now_ms: 0,
            unread: Vec::new(),
            is_held_back: false,
            is_closed: false,
            sent: 0,
            live: Vec::new(),
            track_ms: 0,
        }
    }

    fn now(&self) -> Instant {
        self.began + Duration::from_millis(self.now_ms)
    }

    /// Lets time pass in steps of 100 ms, each with the housekeeping of the media thread.
    fn pass(&mut self, ms: u64) {
        for step in std::iter::repeat_n(100, (ms / 100) as usize).chain([ms % 100]) {
            self.now_ms += step;
            self.track_ms += 2 * step * self.live.len() as u64;
            self.read();
            let now = self.now();
            self.is_held_back |= self.call.tend(&mut self.context.posts, now).is_held_back;
            self.context.posts.send();
        }
    }

    /// Sends a message, unless the peer is held back or the connection is closed.
    fn send(&mut self, message: &str) {
        if self.is_closed || self.asks_to_wait() {
            return;
        }
        let bytes = client::text(message);
        self.sent += bytes.len() as u64;
        self.unread.extend(bytes);
        self.read();
    }

    /// Whether the peer is held back now.
    fn asks_to_wait(&mut self) -> bool {
        if self.is_held_back {
            self.read();
        }
        self.is_held_back
    }

    fn read(&mut self) {
        let now = self.now();
        while !self.is_closed {
            let before = self.unread.len();
            let handled = self.call.handle_bytes(&mut self.unread, &mut self.context, now);
            self.unread.truncate(handled.kept);
            self.context.posts.send();
            self.is_closed = handled.action != Action::GoOn;
            self.is_held_back = handled.is_held_back;
            if !self.is_held_back || handled.kept == before {
                break;
            }
        }
    }

    fn start(&mut self, id: &str, tracks: &[&str]) {
        self.start_by(id, &named(&start(tracks), id));
    }

    fn start_by(&mut self, id: &str, message: &str) {
        let before = self.sent;
        self.send(message);
        if self.sent > before {
            self.live.retain(|live| live != id);
            self.live.push(id.to_owned());
            // Beyond `STREAMS_MAX` the oldest stream gives way.
            self.live.drain(..self.live.len().saturating_sub(STREAMS_MAX));
        }
    }

    /// Checks the bound that holds at any instant.
    fn check(&mut self) {
        let waiting_ms = self.disk.queued_audio_bytes_max() / 16;
        assert!(waiting_ms <= WAITING_MS_MAX, "{waiting_ms} ms of audio wait in a queue");
    }

    /// Ends the call, writes all jobs and checks the bound of the files; returns their bytes.
    fn end(mut self) -> u64 {
        self.check();
        let now = self.now();
        self.call.end(callreel::record::End::Disconnect, CloseCode::NORMAL, &mut self.context, now);
        self.context.posts.send();
        self.disk.write(usize::MAX);
        assert_eq!((self.disk.queued_bytes_max(), self.board.count()), (0, 0));
        let files = self.disk.file_bytes();
        let paid = 4 * self.sent + BYTES_PER_MS * self.track_ms;
        // The allowance of both tracks, and the file and the record of the first start.
        let allowed = 2 * BYTES_PER_MS * u64::from(SilenceBudget::ALLOWANCE_MS) + 2048;
        assert!(
            files <= paid + allowed,
            "{files} bytes of files for {} sent in {} ms",
            self.sent,
            self.now_ms
        );
        files
    }
}

/// The same message for the stream `id`.
fn named(message: &str, id: &str) -> String {
    message.replace("MZ1", id)
}

/// Sends a stream that begins with 12 chunks in order, so that the session trusts its timestamps. Then a
/// gap precedes each chunk of one sample, on one track after the other.
fn gap_bomb(
    line: &mut Line,
    tracks: &[&str],
    gaps: u64,
    gap_ms: u64,
    mut each: impl FnMut(&mut Line),
) {
    line.start("MZ1", tracks);
    let mut times = [0; 2];
    let mut sequence = 2;
    let mut say = |line: &mut Line, channel: usize, step: u64, codes: &[u8]| {
        times[channel] += step;
        line.send(&media(tracks[channel], sequence, times[channel], codes));
        sequence += 1;
    };
    for _ in 0..12 {
        (0..tracks.len()).for_each(|channel| say(line, channel, 20, &[0x10; 160]));
    }
    for number in 0..gaps {
        say(line, number as usize % tracks.len(), gap_ms, &[0x10]);
        each(line);
        line.check();
    }
}

const SHAPES: [(&[&str], Encoding); 3] = [
    (&["inbound"], Encoding::Pcm16),
    (&["inbound", "outbound"], Encoding::Pcm16),
    (&["inbound", "outbound"], Encoding::Mulaw),
];

#[test]
fn gaps_beyond_the_clock_and_its_allowance_take_no_disk() {
    for (tracks, encoding) in SHAPES {
        for gap_ms in [9900, 500, 60] {
            let mut line = Line::new(false, encoding);
            gap_bomb(&mut line, tracks, 2000, gap_ms, |line| line.disk.write(usize::MAX));
            let (sent, files) = (line.sent, line.end());
            let sample_frame = u64::from(encoding.sample_bytes()) * tracks.len() as u64;
            let of_allowance = u64::from(SilenceBudget::ALLOWANCE_MS) * 8 * sample_frame;
            let of_gap = gap_ms * 8 * sample_frame;
            // A replay of an honest call in as little time gets the allowance, too.
            assert!(files > of_allowance - of_gap, "{tracks:?} {gap_ms}: {files}");
            assert!(files < of_allowance + 4 * sent, "{tracks:?} {gap_ms}: {files}");
        }
    }
}

#[test]
fn gaps_at_the_pace_of_the_clock_are_filled_however_long_the_call_is() {
    let mut line = Line::new(false, Encoding::Pcm16);
    gap_bomb(&mut line, &["inbound"], 400, 9000, |line| {
        line.disk.write(usize::MAX);
        line.pass(9000);
    });
    assert!(line.now_ms == 3_600_000);
    let files = line.end();
    assert!(files > 3_600_000 * BYTES_PER_MS, "{files} bytes of an hour");
}

#[test]
fn gaps_take_no_memory_while_the_disk_takes_nothing() {
    for (tracks, encoding) in SHAPES {
        for gap_ms in [9900, 500, 60] {
            let mut line = Line::new(false, encoding);
            let mut most = 0;
            // Longer than a stuck disk holds the peer back.
            gap_bomb(&mut line, tracks, 1000, gap_ms, |line| {
                line.pass(100);
                most = most.max(line.disk.waiting_bytes());
            });
            // Short silence stays in the blocks, up to the limit of 10 s.
            let bound = tracks.len() as u64 * if gap_ms > 100 { 48_000 } else { 110_000 };
            assert!(most < bound, "{tracks:?} {gap_ms}: {most} bytes wait");
            line.end();
        }
    }
}

#[test]
fn a_gap_holds_the_peer_back_as_audio_does() {
    let mut line = Line::new(false, Encoding::Pcm16);
    gap_bomb(&mut line, &["inbound"], 1, 9900, |_| ());
    assert!(line.asks_to_wait());
    line.disk.write(usize::MAX);
    assert!(!line.asks_to_wait());
    line.end();
}

#[test]
fn audio_that_a_stuck_disk_lost_is_owed_as_a_number() {
    let mut line = Line::new(false, Encoding::Pcm16);
    line.start("MZ0", &["inbound", "outbound"]);
    let mut time = 0;
    let mut say = |line: &mut Line, codes: usize, times: usize| {
        for _ in 0..times {
            line.send(&named(&media("inbound", 2, time, &vec![0x10; codes]), "MZ0"));
            time += codes as u64 / 8;
            line.check();
        }
    };
    say(&mut line, 800, 126);
    assert!(line.asks_to_wait());
    // The disk is stuck from here on.
    line.pass(10_600);
    say(&mut line, 8000, 44);
    line.disk.write(usize::MAX);
    // The lost audio is posted, as a number, before the first block that the queue takes again.
    say(&mut line, 160, 40);
    assert!(line.disk.queued_bytes_max() / 16 > 40_000);
    assert!(line.disk.waiting_bytes() < 100_000);
    line.end();
}

#[test]
fn starts_renew_no_allowance() {
    let mut line = Line::new(false, Encoding::Pcm16);
    for number in 0..300 {
        gap_bomb(&mut line, &["inbound"], 20, 9900, |line| line.disk.write(usize::MAX));
        line.start(&format!("MZ{number}"), &["inbound"]);
    }
    line.end();
}

#[test]
fn starts_wait_until_time_has_paid_for_their_files() {
    for streams in [1, 2, 9] {
        let mut line = Line::new(false, Encoding::Pcm16);
        for number in 0..6000 {
            let id = (number % streams).to_string();
            line.start_by(&id, &format!(r#"{{"event":"start","streamSid":"{id}"}}"#));
            line.disk.write(usize::MAX);
            line.pass(1);
        }
        let begun = line.board.counters.begun.load(Ordering::Relaxed);
        // The allowance pays for the first starts, then the time of each stream for one every 128 ms.
        assert!((200..700).contains(&begun), "{begun} recordings of {streams} streams");
        line.end();
    }
}

/// An action of the peer, the clock or the disk.
#[derive(Clone, Debug)]
enum Step {
    Start { id: u8, both: bool, honest: bool },
    Media { id: u8, outbound: bool, ahead_ms: i64, codes: usize, times: u16, sequence: u64 },
    Mark { times: u16 },
    Stop { id: u8 },
    Text(&'static str),
    Pass(u64),
    Write(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let ahead_ms = prop_oneof![
        3 => prop::sample::select(vec![0, 1, 9, 20, 41, 100, 101, 5000, 9900, 10_000, 10_001]),
        1 => -20_000..20_000i64,
        1 => any::<i64>(),
    ];
    let codes = prop::sample::select(vec![0, 1, 160, 161, 800, 8000]);
    let id = 0..10u8;
    prop_oneof![
        2 => (id.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(id, both, honest)| Step::Start { id, both, honest }),
        8 => (id.clone(), any::<bool>(), ahead_ms, codes, 1..80u16, 0..4u64).prop_map(
            |(id, outbound, ahead_ms, codes, times, sequence)| Step::Media {
                id, outbound, ahead_ms, codes, times, sequence,
            }
        ),
        1 => (1..80u16).prop_map(|times| Step::Mark { times }),
        1 => id.prop_map(|id| Step::Stop { id }),
        1 => prop::sample::select(vec![
            "{",
            r#"{"event":"media","media":{"payload":"?"}}"#,
            r#"{"event":"start"}"#,
            r#"{"event":"dtmf","dtmf":{"digit":"5"}}"#,
        ])
        .prop_map(Step::Text),
        3 => (0..15_000u64).prop_map(Step::Pass),
        5 => prop_oneof![Just(usize::MAX), 0..20usize].prop_map(Step::Write),
    ]
}

fn perform(line: &mut Line, step: Step, clocks: &mut [u64; 10], sequence: &mut u64) {
    match step {
        Step::Start { id, both, honest } => {
            let tracks: &[&str] = if both { &["inbound", "outbound"] } else { &["inbound"] };
            let name = format!("MZ{id}");
            line.start(&name, tracks);
            for _ in 0..if honest { 12 } else { 0 } {
                *sequence += 1;
                let time = &mut clocks[usize::from(id)];
                *time = time.wrapping_add(20);
                line.send(&named(&media("inbound", *sequence, *time, &[0x10; 160]), &name));
            }
        }
        Step::Media { id, outbound, ahead_ms, codes, times, sequence: numbers } => {
            let track = if outbound { "outbound" } else { "inbound" };
            for _ in 0..times {
                *sequence += numbers;
                let time = &mut clocks[usize::from(id)];
                *time = time.wrapping_add_signed(ahead_ms);
                let message = media(track, *sequence, *time, &vec![0x10; codes]);
                line.send(&named(&message, &format!("MZ{id}")));
                line.check();
            }
        }
        Step::Mark { times } => {
            for number in 0..times {
                line.send(&format!(r#"{{"event":"mark","mark":{{"name":"mark {number}"}}}}"#));
            }
        }
        Step::Stop { id } => {
            let id = format!("MZ{id}");
            line.send(&format!(r#"{{"event":"stop","streamSid":"{id}"}}"#));
            line.live.retain(|live| *live != id);
        }
        Step::Text(text) => line.send(text),
        Step::Pass(ms) => line.pass(ms),
        Step::Write(jobs) => line.disk.write(jobs),
    }
    line.check();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_a_peer_sends_memory_and_files_stay_within_what_it_pays_for(
        capture in any::<bool>(),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut line = Line::new(capture, Encoding::Pcm16);
        let (mut clocks, mut sequence) = ([0; 10], 0);
        for step in steps {
            perform(&mut line, step, &mut clocks, &mut sequence);
            // Besides audio, captures and records wait for the disk, each kind up to its own bound.
            let recordings = 8;
            let audio = WAITING_MS_MAX * 16;
            let waiting = line.disk.waiting_bytes();
            prop_assert!(waiting <= recordings * audio + 4 * line.sent, "{} bytes wait", waiting);
        }
        line.end();
    }
}
