//! The audio that the caller of a bot hears: captures of real bots, and any order of inputs, against a
//! provider that plays one message after the other.

mod echoes;

use std::collections::VecDeque;

use base64::prelude::*;
use callreel_core::frame::Provider;
use callreel_core::frame::bot::{BotFrame, parse, parse_binary};
use callreel_core::playout::{Cut, PIECES_MAX, Piece, Playout, Utterance};
use proptest::prelude::*;
use serde_json::Value;

use crate::harness::fixtures::{self, Fixture};

/// Samples a second of most tests.
const RATE: u64 = 8000;

const fn ms(milliseconds: u64) -> u64 {
    milliseconds * RATE / 1000
}

/// The provider of a capture, its samples a second, and the bytes of a sample.
pub(crate) fn stream_of(name: &str) -> (Provider, u64, u64) {
    let ends = |with: &str| name.ends_with(with);
    match name {
        _ if ends("-telnyx") => (Provider::Telnyx, 8000, 1),
        _ if ends("-plivo") || name.starts_with("plivo-") => (Provider::Plivo, 8000, 1),
        _ if ends("-exotel") => (Provider::Exotel, 8000, 2),
        _ if ends("-vonage") => (Provider::Vonage, 16_000, 2),
        _ if ends("-genesys") => (Provider::Genesys, 8000, 1),
        _ => (Provider::Twilio, 8000, 1),
    }
}

/// A message of a bot, at a position.
#[derive(Clone, Debug)]
enum Sent {
    Audio(u64),
    Clear,
    Mark(Option<Vec<u8>>),
}

fn samples_of(sent: &Sent) -> u64 {
    if let Sent::Audio(samples) = sent { *samples } else { 0 }
}

/// The messages of a capture, read by core; and the summary of the whole run.
fn read(capture: &Fixture) -> (Vec<(u64, Sent)>, Value) {
    let (provider, rate, sample_bytes) = stream_of(&capture.name);
    let position = |seconds: f64| (seconds * rate as f64).round() as u64;
    let (mut sent, mut summary) = (Vec::new(), Value::Null);
    for line in capture.messages() {
        let line: Value = serde_json::from_slice(&line).unwrap();
        let bytes = line["audio"].as_u64().unwrap_or(0);
        if let Some(pieces) = line["omitted"].as_u64() {
            let [first, last] = ["t_first", "t_last"].map(|name| line[name].as_f64().unwrap());
            if capture.name.starts_with("bolna") {
                // The rest of one utterance of 3 s and the whole of another, each sent at once: the even
                // spread of other captures is not that of this one.
                let rest = 24_000 - sent.iter().map(|(_, sent)| samples_of(sent)).sum::<u64>();
                sent.push((position(first), Sent::Audio(rest)));
                sent.push((position(last), Sent::Audio(bytes - rest)));
                continue;
            }
            for piece in 0..pieces {
                let share = |piece: u64| bytes / sample_bytes * piece / pieces;
                let at = first + (last - first) * piece as f64 / (pieces - 1).max(1) as f64;
                sent.push((position(at), Sent::Audio(share(piece + 1) - share(piece))));
            }
        }
        if let Some(whole) = line.get("summary") {
            summary = whole.clone();
        }
        let Some(at) = line["t"].as_f64().map(position) else { continue };
        let (mut text, binary);
        let frame = if let Some(raw) = line["raw"].as_str() {
            text = raw.as_bytes().to_vec();
            parse(provider, &mut text).unwrap_or_else(|error| panic!("{error}: {raw}"))
        } else if let Some(first) = line["binary"].as_str() {
            binary = BASE64_STANDARD.decode(first).unwrap();
            parse_binary(provider, &binary)
        } else {
            continue;
        };
        match frame {
            BotFrame::Audio(shortened) => {
                assert!(!shortened.is_empty() && bytes >= shortened.len() as u64, "{line}");
                sent.push((at, Sent::Audio(bytes / sample_bytes)));
            }
            BotFrame::Clear => sent.push((at, Sent::Clear)),
            BotFrame::Mark(name) => sent.push((at, Sent::Mark(name.map(<[u8]>::to_vec)))),
            BotFrame::Other => assert_eq!(bytes, 0, "{line}"),
        }
    }
    (sent, summary)
}

/// Samples that are heard one after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Run {
    position: u64,
    /// Number of the first sample: each has one of its own.
    first: u64,
    samples: u64,
}

/// Adds a run, which may go on where the last one ended.
fn push(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        _ if run.samples == 0 => {}
        Some(last)
            if (last.position + last.samples, last.first + last.samples)
                == (run.position, run.first) =>
        {
            last.samples += run.samples;
        }
        _ => runs.push(run),
    }
}

fn length(runs: &[Run]) -> u64 {
    runs.iter().map(|run| run.samples).sum()
}

/// A provider that plays one message after the other: the number of its first sample, and its length.
#[derive(Default)]
struct Player {
    now: u64,
    next: u64,
    waiting: VecDeque<(u64, u64)>,
    played: Vec<Run>,
}

impl Player {
    fn play_until(&mut self, position: u64) {
        while self.now < position {
            let Some((first, left)) = self.waiting.pop_front() else {
                self.now = position;
                return;
            };
            let samples = left.min(position - self.now);
            push(&mut self.played, Run { position: self.now, first, samples });
            self.now += samples;
            if samples < left {
                self.waiting.push_front((first + samples, left - samples));
            }
        }
    }

    fn take(&mut self, at: u64, samples: u64) {
        self.play_until(at);
        self.waiting.push_back((self.next, samples));
        self.next += samples;
    }

    fn clear(&mut self, at: u64) -> u64 {
        self.play_until(at);
        self.waiting.drain(..).map(|(_, samples)| samples).sum()
    }
}

/// A user of a [`Playout`] with a queue of samples, which have numbers.
struct Listener {
    playout: Playout,
    next: u64,
    /// Numbers of the samples that wait; those that are dropped leave a hole.
    queue: VecDeque<(u64, u64)>,
    position: u64,
    heard: Vec<Run>,
    utterances: Vec<Utterance>,
}

impl Listener {
    fn new(rate: u64) -> Self {
        Self {
            playout: Playout::new(rate as u32),
            next: 0,
            queue: VecDeque::new(),
            position: 0,
            heard: Vec::new(),
            utterances: Vec::new(),
        }
    }

    fn queued(&self) -> u64 {
        self.queue.iter().map(|(_, samples)| samples).sum()
    }

    fn audio(&mut self, at: u64, samples: u64) {
        self.playout.handle_audio(at, samples);
        self.queue.push_back((self.next, samples));
        self.next += samples;
        self.take();
    }

    fn drop_back(&mut self, dropped: u64) -> u64 {
        let mut left = dropped;
        while left > 0 {
            let (_, samples) = self.queue.back_mut().expect("so many are queued");
            let some = left.min(*samples);
            (*samples, left) = (*samples - some, left - some);
            if *samples == 0 {
                self.queue.pop_back();
            }
        }
        self.take();
        dropped
    }

    fn clear(&mut self, at: u64) -> u64 {
        let dropped = self.playout.handle_clear(at);
        self.drop_back(dropped)
    }

    fn finish(&mut self, at: u64) -> u64 {
        let dropped = self.playout.finish(at);
        self.drop_back(dropped)
    }

    fn poll(&mut self, until: u64) {
        while let Some(piece) = self.playout.poll(until) {
            let (mut left, is_audio) = match piece {
                Piece::Audio(samples) => (samples, true),
                Piece::Silence(samples) => (samples, false),
            };
            assert!(left > 0);
            while is_audio && left > 0 {
                let (first, queued) = self.queue.pop_front().expect("polled audio is queued");
                let samples = left.min(queued);
                push(&mut self.heard, Run { position: self.position, first, samples });
                (self.position, left) = (self.position + samples, left - samples);
                if samples < queued {
                    self.queue.push_front((first + samples, queued - samples));
                }
            }
            self.position += left;
            self.take();
        }
    }

    fn take(&mut self) {
        self.utterances.extend(std::iter::from_fn(|| self.playout.take_utterance()));
    }

    /// Nothing is lost or made up, and the utterances tell the same as the samples.
    fn check(&self) {
        let stats = self.playout.stats();
        let left = self.queued();
        assert_eq!(stats.sent, self.next);
        assert_eq!(stats.heard, length(&self.heard));
        assert_eq!(stats.sent, stats.heard + stats.cleared + stats.unheard + left, "{stats:?}");
        let ends = |run: &Run| (run.position + run.samples, run.first + run.samples);
        let goes_on = |pair: &[Run]| {
            let (position, sample) = ends(&pair[0]);
            position <= pair[1].position && sample <= pair[1].first
        };
        assert!(self.heard.windows(2).all(goes_on), "no position and no sample comes twice");
        for utterance in &self.utterances {
            assert!(utterance.heard <= utterance.sent);
            assert_eq!(utterance.cut.is_none(), utterance.heard == utterance.sent, "{utterance:?}");
            assert!(utterance.sent_at <= utterance.last_sent_at);
            if utterance.heard > 0 {
                let is_in = |run: &Run| (run.position..ends(run).0).contains(&utterance.heard_from);
                assert!(self.heard.iter().any(is_in));
            }
        }
    }
}

/// The utterances that are over once everything has been heard.
fn listen(sent: &[(u64, Sent)], rate: u64) -> Listener {
    let mut listener = Listener::new(rate);
    for (at, message) in sent {
        listener.poll(*at);
        match message {
            Sent::Audio(samples) => listener.audio(*at, *samples),
            Sent::Clear => drop(listener.clear(*at)),
            Sent::Mark(name) => listener.playout.handle_mark(name.as_deref()),
        }
    }
    listener.poll(listener.position + 60 * rate);
    listener
}

#[test]
fn captured_bots_are_heard_as_long_as_the_model_of_the_capture_says() {
    let captures = fixtures::in_folder("bots");
    assert_eq!(captures.len(), 27);
    for capture in captures {
        let (provider, rate, sample_bytes) = stream_of(&capture.name);
        let (mut sent, summary) = read(&capture);
        if provider == Provider::Genesys {
            // The model of the capture did not know that barge-in is a clear.
            sent.retain(|(_, sent)| !matches!(sent, Sent::Clear));
        }
        let listener = listen(&sent, rate);
        listener.check();
        let stats = listener.playout.stats();
        let seconds = |samples: u64| samples as f64 / rate as f64;
        let total = |name: &str| summary[name].as_f64().unwrap();
        let name = &capture.name;
        // What was left out of a capture may be the half of a sample.
        assert_eq!(stats.sent * sample_bytes, total("audio_sent_bytes") as u64, "{name}");
        let expected = total("heard_s_by_model");
        let heard = seconds(stats.heard);
        assert!((heard - expected).abs() <= 0.020, "{name}: {heard} s, not {expected} s");
        let clears = sent.iter().filter(|(_, sent)| matches!(sent, Sent::Clear)).count();
        assert_eq!(clears as f64, total("clears"), "{name}");
        assert_eq!(stats.holes_closed, 0, "{name}");
    }
}

#[test]
fn captured_bots_are_heard_to_the_sample_as_a_provider_plays_them() {
    for capture in fixtures::in_folder("bots") {
        let (_, rate, _) = stream_of(&capture.name);
        let (sent, _) = read(&capture);
        let listener = listen(&sent, rate);
        let mut player = Player::default();
        for (at, message) in &sent {
            match message {
                Sent::Audio(samples) => player.take(*at, *samples),
                Sent::Clear => drop(player.clear(*at)),
                Sent::Mark(_) => {}
            }
        }
        player.play_until(listener.position);
        assert!(listener.heard == player.played, "{}", capture.name);
    }
}

#[test]
fn a_capture_of_interruptions_gives_its_utterances() {
    let capture = fixtures::in_folder("bots").into_iter().find(|one| one.name == "vocode");
    let (sent, _) = read(&capture.unwrap());
    let told: Vec<_> = listen(&sent, RATE)
        .utterances
        .into_iter()
        .map(|one| (one.sent_at / ms(1), one.sent / ms(1), one.heard / ms(1), one.cut))
        .collect();
    // Speech, speech that the clear cut, silence of 1.1 s and speech: the pause between them is 4 ms.
    let expected =
        [(30, 3000, 3000, None), (5532, 3000, 1302, Some(Cut::Clear)), (6835, 4100, 4100, None)];
    assert_eq!(told, expected);
}

/// A step of a call.
#[derive(Clone, Debug)]
enum Step {
    Audio { after: u64, samples: u64 },
    Clear { after: u64 },
    Poll { after: u64 },
    Mark(u8),
    Echo { after: u64, name: u8 },
    Finish { after: u64 },
}

/// Steps that a provider without a delay may see: marks are not echoed.
fn plain_steps() -> impl Strategy<Value = Vec<Step>> {
    let after = || prop_oneof![4 => Just(0), 4 => 0..400u64, 2 => 0..6000u64];
    let step = prop_oneof![
        6 => (after(), prop_oneof![0..400u64, 0..6000u64])
            .prop_map(|(after, samples)| Step::Audio { after, samples }),
        1 => after().prop_map(|after| Step::Clear { after }),
        4 => after().prop_map(|after| Step::Poll { after }),
        1 => any::<u8>().prop_map(Step::Mark),
    ];
    proptest::collection::vec(step, 0..60)
}

/// Any steps at all.
fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let after = || prop_oneof![3 => Just(0), 3 => 0..400u64, 1 => 0..60_000u64];
    let name = || 0..3u8;
    let step = prop_oneof![
        6 => (after(), 0..6000u64).prop_map(|(after, samples)| Step::Audio { after, samples }),
        2 => after().prop_map(|after| Step::Clear { after }),
        3 => after().prop_map(|after| Step::Poll { after }),
        2 => name().prop_map(Step::Mark),
        2 => (after(), name()).prop_map(|(after, name)| Step::Echo { after, name }),
        1 => after().prop_map(|after| Step::Finish { after }),
    ];
    proptest::collection::vec(step, 0..80)
}

#[test]
fn pieces_beyond_the_room_lose_their_holes_and_no_audio() {
    let mut listener = Listener::new(RATE);
    let pieces = PIECES_MAX as u64 + 10;
    for piece in 0..pieces {
        // A hole of 1 ms behind each.
        listener.audio(piece * ms(21), ms(20));
    }
    assert_eq!(listener.playout.stats().holes_closed, 10);
    listener.poll(pieces * ms(21));
    listener.check();
    assert_eq!(length(&listener.heard), pieces * ms(20));
    assert_eq!(listener.heard.len(), PIECES_MAX);
    // A relay that polls has each hole.
    let mut listener = Listener::new(RATE);
    for piece in 0..pieces {
        listener.poll(piece * ms(21));
        listener.audio(piece * ms(21), ms(20));
    }
    listener.poll(pieces * ms(21) + ms(1000));
    assert_eq!(listener.heard.len() as u64, pieces);
    let stats = listener.playout.stats();
    assert_eq!((stats.holes, stats.holes_closed), (pieces - 1, 0));
    let [utterance] = listener.utterances[..] else { panic!("{:?}", listener.utterances) };
    assert_eq!((utterance.sent, utterance.heard), (pieces * ms(20), pieces * ms(20)));
}

#[test]
fn a_pause_of_200_ms_ends_an_utterance_whether_it_was_polled_or_not() {
    for polls in [false, true] {
        for (hole, count) in [(199, 1), (200, 2)] {
            let mut listener = Listener::new(RATE);
            listener.audio(0, ms(100));
            if polls {
                listener.poll(ms(100 + hole));
            }
            listener.audio(ms(100 + hole), ms(100));
            listener.poll(ms(1000));
            listener.check();
            assert_eq!(listener.utterances.len(), count, "{hole} ms");
            assert_eq!(listener.playout.stats().holes, u64::from(count == 1));
        }
    }
}

#[test]
fn audio_that_was_polled_is_not_taken_back() {
    let mut listener = Listener::new(RATE);
    listener.audio(0, ms(1000));
    listener.poll(ms(500));
    // The clear comes late.
    assert_eq!(listener.clear(ms(400)), ms(500));
    listener.poll(ms(2000));
    assert_eq!(length(&listener.heard), ms(500));
    assert_eq!(listener.utterances[0].heard, ms(500));
}

#[test]
fn the_end_of_the_call_leaves_the_rest_unheard_and_what_comes_then_as_well() {
    let mut listener = Listener::new(RATE);
    listener.audio(0, ms(3000));
    listener.poll(ms(900));
    assert_eq!(listener.finish(ms(1000)), ms(2000));
    listener.poll(ms(5000));
    assert_eq!(listener.position, ms(1000));
    // Bots that do not know of the end go on.
    listener.audio(ms(1500), ms(100));
    listener.poll(ms(5000));
    assert_eq!((listener.position, listener.finish(ms(6000))), (ms(1000), ms(100)));
    listener.check();
    assert_eq!(listener.playout.stats().unheard, ms(2100));
    let told: Vec<_> = listener.utterances.iter().map(|one| (one.heard, one.cut)).collect();
    assert_eq!(told, [(ms(1000), Some(Cut::End)), (0, Some(Cut::End))]);
}

proptest! {
    #[test]
    fn audio_is_heard_as_a_provider_plays_it(steps in plain_steps()) {
        let (mut listener, mut player) = (Listener::new(RATE), Player::default());
        let mut now = 0;
        for step in steps {
            match step {
                Step::Audio { after, samples } => {
                    now += after;
                    listener.audio(now, samples);
                    player.take(now, samples);
                }
                Step::Clear { after } => {
                    now += after;
                    let dropped = listener.clear(now);
                    prop_assert_eq!(dropped, player.clear(now));
                }
                Step::Poll { after } => {
                    now += after;
                    listener.poll(now);
                }
                Step::Mark(name) => listener.playout.handle_mark(Some(&[name])),
                Step::Echo { .. } | Step::Finish { .. } => {}
            }
            listener.check();
        }
        let stats = listener.playout.stats();
        listener.poll(now + 400_000);
        player.play_until(now + 400_000);
        listener.check();
        if stats.holes_closed == 0 {
            prop_assert!(listener.heard == player.played);
        }
        let [sent, heard] = [|one: &Utterance| one.sent, |one: &Utterance| one.heard]
            .map(|of| listener.utterances.iter().map(of).sum::<u64>());
        if stats.utterances_forgotten == 0 {
            prop_assert_eq!((sent, heard), (listener.next, length(&listener.heard)));
        }
    }

    #[test]
    fn nothing_is_lost_or_heard_twice_in_any_order_of_inputs(steps in any_steps()) {
        let mut listener = Listener::new(RATE);
        let mut now = 0u64;
        let mut end = None;
        for step in steps {
            // Positions may go back, too.
            let mut at = |after: u64| {
                now += after;
                now.saturating_sub(after % 7)
            };
            match step {
                Step::Audio { after, samples } => listener.audio(at(after), samples),
                Step::Clear { after } => {
                    listener.clear(at(after));
                }
                Step::Poll { after } => listener.poll(at(after)),
                Step::Mark(name) => listener.playout.handle_mark((name > 0).then_some(&[name])),
                Step::Echo { after, name } => {
                    let at = at(after);
                    listener.playout.handle_echo(at, &[name]);
                }
                Step::Finish { after } => {
                    listener.finish(at(after));
                    end.get_or_insert(now.max(listener.position));
                }
            }
            listener.check();
        }
        listener.finish(now);
        listener.poll(u64::MAX);
        listener.check();
        let stats = listener.playout.stats();
        prop_assert_eq!(stats.sent, stats.heard + stats.cleared + stats.unheard);
        prop_assert!(listener.position <= end.unwrap_or(now.max(listener.position)));
        let told: u64 = listener.utterances.iter().map(|one| one.heard).sum();
        prop_assert!(told == stats.heard || stats.utterances_forgotten > 0);
    }
}
