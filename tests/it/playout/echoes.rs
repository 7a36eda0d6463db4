//! Echoes of marks: the offset that they tell, underruns, and those that tell nothing.

use callreel_core::playout::{ECHO_LATE_MS_MAX, MARKS_MAX, Truth};

use super::*;

/// The way to the provider and back in most tests.
const OFFSET: u64 = ms(70);

/// A provider at the end of a way, seen on the caller's clock: it takes each message `offset` later, and echoes
/// marks.
#[derive(Default)]
struct Provider {
    offset: u64,
    /// Messages on their way, and the position of their arrival.
    inbox: VecDeque<(u64, Sent)>,
    player: Player,
    /// Marks behind the audio that waits, with the number of the sample that they stand before.
    marks: VecDeque<(u64, Vec<u8>)>,
    echoes: VecDeque<(u64, Vec<u8>)>,
}

impl Provider {
    fn new(offset: u64) -> Self {
        Self { offset, ..Self::default() }
    }

    fn send(&mut self, at: u64, delay: u64, sent: Sent) {
        // The connection keeps the order.
        let last = self.inbox.back().map_or(0, |(at, _)| *at);
        self.inbox.push_back((last.max(at + self.offset + delay), sent));
    }

    fn advance(&mut self, now: u64) {
        while let Some((at, sent)) = self.inbox.pop_front_if(|(at, _)| *at <= now) {
            self.play_until(at);
            match sent {
                Sent::Audio(samples) => self.player.take(at, samples),
                Sent::Mark(Some(name)) => self.marks.push_back((self.player.next, name)),
                Sent::Mark(None) => {}
                Sent::Clear => {
                    self.player.clear(at);
                    self.echoes.extend(self.marks.drain(..).map(|(_, name)| (at, name)));
                }
            }
            self.play_until(at);
        }
        self.play_until(now);
    }

    fn play_until(&mut self, now: u64) {
        while let Some((before, _)) = self.marks.front() {
            let ahead: u64 = self
                .player
                .waiting
                .iter()
                .map(|(first, samples)| (first + samples).min(*before).saturating_sub(*first))
                .sum();
            if self.player.now.max(now) < self.player.now + ahead {
                break;
            }
            let at = self.player.now + ahead;
            self.player.play_until(at);
            let (_, name) = self.marks.pop_front().unwrap();
            self.echoes.push_back((at, name));
        }
        self.player.play_until(now);
    }
}

/// A call through a relay: a bot, a listener and a provider.
struct Call {
    now: u64,
    listener: Listener,
    provider: Provider,
}

impl Call {
    fn new(offset: u64) -> Self {
        Self { now: 0, listener: Listener::new(RATE), provider: Provider::new(offset) }
    }

    /// Goes on to a position: the echoes until then come in.
    fn go_to(&mut self, position: u64) {
        self.provider.advance(position);
        while let Some((at, name)) = self.provider.echoes.pop_front() {
            self.listener.poll(at);
            self.listener.playout.handle_echo(at, &name);
        }
        self.now = self.now.max(position);
        self.listener.poll(self.now);
    }

    fn go_on(&mut self, samples: u64) {
        self.go_to(self.now + samples);
    }

    fn send_late(&mut self, delay: u64, sent: Sent) {
        self.provider.send(self.now, delay, sent.clone());
        match sent {
            Sent::Audio(samples) => self.listener.audio(self.now, samples),
            Sent::Clear => drop(self.listener.clear(self.now)),
            Sent::Mark(name) => self.listener.playout.handle_mark(name.as_deref()),
        }
    }

    fn send(&mut self, sent: Sent) {
        self.send_late(0, sent);
    }

    fn audio(&mut self, samples: u64) {
        self.send(Sent::Audio(samples));
    }

    fn mark(&mut self, name: &str) {
        self.send(Sent::Mark(Some(name.as_bytes().to_vec())));
    }

    fn truth(&self) -> Truth {
        self.listener.playout.truth()
    }

    /// The numbers of the samples that were played, and of those that were heard by the model.
    fn numbers(&self) -> [Vec<(u64, u64)>; 2] {
        [&self.provider.player.played, &self.listener.heard].map(|runs| {
            let mut joined: Vec<(u64, u64)> = Vec::new();
            for run in runs {
                match joined.last_mut() {
                    Some(last) if last.1 == run.first => last.1 += run.samples,
                    _ => joined.push((run.first, run.first + run.samples)),
                }
            }
            joined
        })
    }
}

fn confirmed(offset: u64, echoes: u32) -> Truth {
    Truth::EchoConfirmed { offset_samples: offset, echoes }
}

#[test]
fn the_first_utterance_tells_the_offset_and_the_next_is_heard_by_it() {
    let mut call = Call::new(OFFSET);
    for name in ["a", "b"] {
        call.audio(ms(400));
        call.mark(name);
    }
    call.go_on(ms(2000));
    assert_eq!(call.truth(), confirmed(OFFSET, 2));
    for _ in 0..2 {
        call.audio(ms(300));
        call.go_on(ms(1000));
    }
    let played = &call.provider.player.played;
    let heard = &call.listener.heard;
    // The first was placed before anything was known.
    assert_eq!(heard[0], Run { position: 0, first: 0, samples: ms(800) });
    assert_eq!(played[0].position, OFFSET);
    assert_eq!(heard[1..], played[1..]);
    let told: Vec<_> = call.listener.utterances.iter().map(|one| one.heard_from).collect();
    assert_eq!(told, [0, ms(2000) + OFFSET, ms(3000) + OFFSET]);
}

#[test]
fn an_offset_that_becomes_known_makes_no_hole_in_speech() {
    let mut call = Call::new(OFFSET);
    // Sent in real time, 80 ms ahead.
    for number in 0..100 {
        call.audio(ms(if number == 0 { 100 } else { 20 }));
        call.mark("same");
        call.go_on(ms(20));
    }
    call.go_on(ms(1000));
    assert!(matches!(call.truth(), Truth::EchoConfirmed { offset_samples: OFFSET, .. }));
    assert_eq!(call.listener.heard.len(), 1);
    assert_eq!(call.listener.playout.stats().underruns, 0);
}

#[test]
fn a_clear_takes_back_the_same_samples_with_and_without_a_known_offset() {
    let mut call = Call::new(OFFSET);
    for utterance in 0..3 {
        call.audio(ms(3000));
        if utterance > 0 {
            call.mark("end");
        }
        call.go_on(ms(1000));
        call.send(Sent::Clear);
        // Audio that was on its way.
        call.audio(ms(200));
        call.mark("late");
        call.go_on(ms(1500));
    }
    assert_eq!(call.truth(), confirmed(OFFSET, 3));
    let [played, heard] = call.numbers();
    assert_eq!(heard, played);
    let told: Vec<_> = call.listener.utterances.iter().map(|one| one.heard).collect();
    assert_eq!(told, [ms(1000), ms(200)].repeat(3));
}

#[test]
fn echoes_that_tell_nothing_are_no_evidence() {
    let mut call = Call::new(OFFSET);
    // Nothing before it.
    call.mark("before");
    call.go_on(ms(500));
    // Without a name, and then one that a clear overtakes.
    call.send(Sent::Mark(None));
    call.audio(ms(1000));
    call.mark("cleared");
    call.go_on(ms(300));
    call.send(Sent::Clear);
    call.go_on(ms(500));
    // Idle, long after its audio.
    call.mark("idle");
    call.go_on(ms(500));
    assert_eq!(call.truth(), Truth::Modelled);
    let playout = &mut call.listener.playout;
    // As soon as it was sent; never sent; far too late.
    playout.handle_audio(call.now, ms(1000));
    playout.handle_mark(Some(b"early"));
    playout.handle_echo(call.now + ms(10), b"early");
    playout.handle_echo(call.now + ms(20), b"unknown");
    playout.handle_mark(Some(b"lost"));
    let too_late = call.now + ms(1000) + ms(u64::from(ECHO_LATE_MS_MAX)) + 1;
    playout.handle_echo(too_late, b"lost");
    assert_eq!(playout.truth(), Truth::Modelled);
    let stats = playout.stats();
    assert_eq!((stats.marks, stats.marks_nameless, stats.echoes_ignored), (5, 1, 6));
}

#[test]
fn names_that_repeat_match_first_in_first_out_across_a_clear() {
    let mut call = Call::new(OFFSET);
    for _ in 0..4 {
        for _ in 0..10 {
            call.audio(ms(100));
            call.mark("responsePart");
        }
        call.go_on(ms(450));
        call.send(Sent::Clear);
        for _ in 0..3 {
            call.audio(ms(200));
            call.mark("responsePart");
        }
        call.go_on(ms(2000));
    }
    // Four before each clear, of which three are back when it comes, and three behind it.
    assert!(matches!(call.truth(), Truth::EchoConfirmed { offset_samples: OFFSET, .. }));
    let stats = call.listener.playout.stats();
    assert_eq!(stats.underruns, 0, "{stats:?}");
    let [played, heard] = call.numbers();
    assert_eq!(heard, played);
}

#[test]
fn marks_without_an_answer_to_a_clear_are_forgotten() {
    let mut call = Call::new(OFFSET);
    let playout = &mut call.listener.playout;
    playout.handle_audio(0, ms(1000));
    for _ in 0..5 {
        playout.handle_mark(Some(b"same"));
    }
    playout.handle_clear(ms(100));
    // The provider echoes nothing of it.
    playout.handle_audio(ms(3000), ms(500));
    playout.handle_mark(Some(b"same"));
    playout.handle_echo(ms(3500) + OFFSET, b"same");
    assert_eq!(playout.truth(), confirmed(OFFSET, 1));
}

#[test]
fn a_burst_with_more_marks_than_are_kept_is_no_underrun() {
    let mut call = Call::new(OFFSET);
    let count = 4 * MARKS_MAX as u64;
    for _ in 0..2 {
        for _ in 0..count {
            call.audio(ms(20));
            call.mark("same");
        }
        call.go_on(count * ms(20) + ms(1000));
    }
    let stats = call.listener.playout.stats();
    let kept = MARKS_MAX as u32 - 1;
    assert_eq!(call.truth(), confirmed(OFFSET, 2 * kept));
    assert_eq!((stats.underruns, stats.marks), (0, 2 * count));
    assert_eq!(stats.marks_forgotten, 2 * (count - u64::from(kept)));
}

#[test]
fn the_position_of_a_mark_is_that_of_the_last_input_or_poll() {
    for is_later in [false, true] {
        let mut playout = Playout::new(RATE as u32);
        playout.handle_audio(0, ms(100));
        if is_later {
            // Tells the position, and nothing else.
            playout.handle_audio(ms(500), 0);
        }
        playout.handle_mark(Some(b"mark"));
        playout.handle_echo(ms(500) + OFFSET, b"mark");
        assert_eq!(playout.truth() == Truth::Modelled, is_later);
    }
}

#[test]
fn echoes_that_differ_by_the_wobble_of_a_network_are_no_underrun() {
    for (late, underruns) in [(0, 0), (59, 0), (61, 1)] {
        let mut playout = Playout::new(RATE as u32);
        for mark in [b"a", b"b"] {
            playout.handle_audio(0, ms(500));
            playout.handle_mark(Some(mark));
        }
        playout.handle_audio(0, ms(500));
        while playout.poll(ms(500) + OFFSET).is_some() {}
        playout.handle_echo(ms(500) + OFFSET, b"a");
        while playout.poll(ms(1000 + late) + OFFSET).is_some() {}
        playout.handle_echo(ms(1000 + late) + OFFSET, b"b");
        assert_eq!(playout.truth(), confirmed(OFFSET, 2));
        assert_eq!(playout.stats().underruns, underruns, "{late} ms");
    }
}

#[test]
fn all_that_waits_for_an_underrun_moves() {
    let mut playout = Playout::new(RATE as u32);
    for (name, samples) in [(b"a", 50), (b"b", 250)] {
        playout.handle_audio(ms(1000), ms(samples));
        playout.handle_mark(Some(name));
    }
    playout.handle_echo(ms(1050), b"a");
    playout.handle_audio(ms(1350), ms(100));
    playout.handle_audio(ms(1460), ms(100));
    // Nothing was polled meanwhile.
    playout.handle_echo(ms(1750), b"b");
    assert_eq!((playout.truth(), playout.stats().underruns), (confirmed(0, 2), 1));
    // 300 ms until 1750 ms, and the next 100 and 100 ms behind it, without a hole.
    assert_eq!(playout.finish(ms(1800)), ms(150));
    let pieces: Vec<_> = std::iter::from_fn(|| playout.poll(u64::MAX)).collect();
    assert_eq!(pieces, [Piece::Silence(ms(1450)), Piece::Audio(ms(300)), Piece::Audio(ms(50))]);
}

/// A call with a known offset, and an utterance of eight pieces of 100 ms on its way, of which the third is
/// stuck for 600 ms: 400 ms longer than there is audio before it.
fn stuck() -> Call {
    let mut call = Call::new(OFFSET);
    call.audio(ms(500));
    call.go_on(ms(300));
    call.send(Sent::Clear);
    call.audio(ms(200));
    call.mark("known");
    call.go_on(ms(1000));
    for number in 0..8 {
        call.send_late(if number == 2 { ms(600) } else { 0 }, Sent::Audio(ms(100)));
        call.mark("piece");
    }
    call
}

/// The position behind the last sample.
fn end(runs: &[Run]) -> Option<u64> {
    runs.last().map(|run| run.position + run.samples)
}

#[test]
fn an_underrun_at_the_provider_delays_the_audio_behind_it() {
    let mut call = stuck();
    call.go_on(ms(3000));
    let stats = call.listener.playout.stats();
    assert_eq!((call.truth(), stats.underruns), (confirmed(OFFSET, 9), 1));
    let (played, heard) = (&call.provider.player.played, &call.listener.heard);
    // The model learns of it by the third echo, and is right again from then on.
    let (last, first) = (heard.last().unwrap(), played.last().unwrap());
    assert_eq!(heard.len(), played.len(), "one hole: {heard:?}");
    assert_eq!(last.position, first.position + (last.first - first.first));
    assert_eq!(end(heard), end(played));
    // The next utterance is not late.
    call.audio(ms(100));
    call.go_on(ms(1000));
    assert_eq!(call.listener.heard.last(), call.provider.player.played.last());
}

#[test]
fn a_clear_behind_an_underrun_takes_back_what_the_provider_drops() {
    // Before that the model has heard more than was played, and that cannot be undone.
    for after in [1100, 1120, 1150, 1190].map(ms) {
        let mut call = stuck();
        call.go_on(after);
        call.send(Sent::Clear);
        // At once heard: nothing waits at the provider any more.
        call.audio(ms(100));
        call.go_on(ms(2000));
        assert_eq!(call.listener.playout.stats().underruns, 1);
        let [played, heard] = call.numbers();
        assert_eq!(heard, played, "{after}");
        assert_eq!(call.listener.heard.last(), call.provider.player.played.last());
    }
}

#[test]
fn a_clear_ends_the_wait_of_an_underrun() {
    let mut call = stuck();
    // The third echo comes at 770 ms; all but one piece is heard by then, and this one waits 400 ms.
    call.go_on(ms(870));
    call.send(Sent::Clear);
    call.go_on(ms(50));
    call.audio(ms(100));
    call.go_on(ms(1000));
    assert_eq!(call.listener.heard.last(), call.provider.player.played.last());
}

#[test]
fn each_underrun_of_an_utterance_counts_and_a_hole_makes_up_for_it() {
    let mut call = stuck();
    call.go_on(ms(1200));
    // Two further pieces, one stuck for longer than there is to play.
    for delay in [ms(900), 0, 0, 0] {
        call.send_late(delay, Sent::Audio(ms(200)));
        call.mark("piece");
    }
    call.go_on(ms(1000));
    // The provider is still busy, and so is the model.
    call.audio(ms(300));
    call.mark("end");
    call.go_on(ms(4000));
    assert_eq!(call.listener.playout.stats().underruns, 2);
    let (played, heard) = (&call.provider.player.played, &call.listener.heard);
    assert_eq!(end(heard), end(played));
    let [played, heard] = call.numbers();
    assert_eq!(heard, played);
}

#[test]
fn an_echo_of_the_last_utterance_does_not_delay_the_next_more_than_the_provider_does() {
    for delay in [0, 100, 300, 500].map(ms) {
        let mut call = Call::new(OFFSET);
        call.audio(ms(200));
        call.mark("known");
        call.go_on(ms(1000));
        // The last piece of an utterance is stuck, and the next utterance comes behind it.
        call.audio(ms(400));
        call.mark("piece");
        call.send_late(delay + ms(400), Sent::Audio(ms(100)));
        call.mark("last");
        call.go_on(ms(750));
        call.audio(ms(500));
        call.mark("next");
        call.go_on(ms(3000));
        let (played, heard) = (&call.provider.player.played, &call.listener.heard);
        let wrong = end(heard).unwrap().abs_diff(end(played).unwrap());
        assert!(wrong <= ms(60), "{delay}: {heard:?}, not {played:?}");
    }
}

#[test]
fn the_end_of_the_call_does_not_count_audio_that_waits_for_an_underrun() {
    let mut call = stuck();
    call.go_on(ms(900));
    let played = length(&call.provider.player.played);
    call.listener.finish(call.now);
    call.listener.poll(u64::MAX);
    call.listener.check();
    // The pieces that the model had heard before it knew are too many, no more.
    let heard = length(&call.listener.heard);
    assert!((played..=played + ms(500)).contains(&heard), "{heard}, not {played}");
    assert_eq!(call.listener.position, call.now);
}

#[test]
fn late_echoes_alone_do_not_shift_what_is_heard_for_long() {
    for late in [20, 60, 100, 200].map(ms) {
        // An intermediary that delays every echo: the offset is larger, and nothing else changes.
        let mut call = Call::new(OFFSET + late);
        for _ in 0..3 {
            for _ in 0..10 {
                call.audio(ms(40));
                call.mark("fm");
            }
            call.go_on(ms(1500));
        }
        assert_eq!(call.truth(), confirmed(OFFSET + late, 30));
        assert_eq!(call.listener.playout.stats().underruns, 0);
        assert_eq!(call.listener.utterances.len(), 3);
    }
}

#[test]
fn captured_bots_with_marks_are_confirmed_by_echoes_and_those_without_are_not() {
    for capture in fixtures::in_folder("bots") {
        let (_, rate, _) = stream_of(&capture.name);
        if rate != RATE {
            continue;
        }
        let (sent, _) = read(&capture);
        let is_named = |(_, sent): &(u64, Sent)| matches!(sent, Sent::Mark(Some(_)));
        // The only mark of this one is overtaken by a clear.
        let has_marks = sent.iter().any(is_named) && capture.name != "plivo-stream-sdk";
        let mut call = Call::new(OFFSET);
        for (at, message) in sent {
            call.go_to(at);
            call.send(message);
        }
        call.go_on(ms(40_000));
        call.listener.check();
        let name = &capture.name;
        let stats = call.listener.playout.stats();
        assert_eq!(stats.underruns, 0, "{name}: {stats:?}");
        let [played, heard] = call.numbers();
        assert_eq!(heard, played, "{name}");
        let confirmed = matches!(call.truth(), Truth::EchoConfirmed { offset_samples: OFFSET, .. });
        assert_eq!((confirmed, call.truth() == Truth::Modelled), (has_marks, !has_marks), "{name}");
    }
}

proptest! {
    #[test]
    fn the_same_samples_are_heard_as_are_played_at_the_end_of_any_way(
        offset in 0..ms(400),
        steps in any_steps(),
    ) {
        let mut call = Call::new(offset);
        for step in steps {
            match step {
                Step::Audio { after, samples } => {
                    call.go_on(after);
                    call.audio(samples);
                }
                Step::Clear { after } => {
                    call.go_on(after);
                    call.send(Sent::Clear);
                }
                Step::Poll { after } => call.go_on(after),
                Step::Mark(name) => call.send(Sent::Mark((name > 0).then(|| vec![name]))),
                Step::Echo { .. } | Step::Finish { .. } => {}
            }
            call.listener.check();
        }
        call.go_on(ms(60_000));
        call.listener.check();
        let stats = call.listener.playout.stats();
        let [played, heard] = call.numbers();
        prop_assert_eq!(heard, played);
        prop_assert_eq!(stats.underruns, 0);
        if let Truth::EchoConfirmed { offset_samples, .. } = call.truth() {
            prop_assert_eq!(offset_samples, offset);
        }
        // Nothing is heard before it is played by more than the offset, nor after it.
        let mut places = call.provider.player.played.iter();
        for run in &call.listener.heard {
            let is_in = |played: &&Run| {
                (played.first..played.first + played.samples).contains(&run.first)
            };
            let played = places.clone().find(is_in).expect("it was played");
            let position = played.position + (run.first - played.first);
            prop_assert!((run.position..=run.position + offset).contains(&position));
            while places.clone().next().is_some_and(|one| one.first + one.samples <= run.first) {
                places.next();
            }
        }
    }
}

proptest! {
    #[test]
    fn a_provider_that_runs_dry_costs_nothing_but_time(
        pieces in proptest::collection::vec((0..ms(300), 1..ms(300), 0..ms(500), any::<bool>()), 1..40),
        clears in any::<bool>(),
    ) {
        let mut call = Call::new(OFFSET);
        call.audio(ms(100));
        call.mark("known");
        call.go_on(ms(1000));
        for (after, samples, delay, has_mark) in pieces {
            call.go_on(after);
            call.send_late(delay, Sent::Audio(samples));
            if has_mark {
                call.mark("same");
            }
            call.listener.check();
        }
        if clears {
            call.send(Sent::Clear);
        }
        call.go_on(ms(30_000));
        call.listener.check();
        let [played, heard] = [&call.provider.player.played, &call.listener.heard].map(|r| length(r));
        // A clear may be stuck, too, behind the audio.
        prop_assert!(clears || heard == played);
        let is_known = matches!(call.truth(), Truth::EchoConfirmed { offset_samples: OFFSET, .. });
        prop_assert!(is_known);
        // All is forgotten by the next utterance.
        call.audio(ms(100));
        call.go_on(ms(1000));
        prop_assert_eq!(call.listener.heard.last(), call.provider.player.played.last());
    }
}
