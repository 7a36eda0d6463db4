//! The silence that timestamps ask for, limited by the time that has passed.

use callreel_core::frame::{Provider, Track};
use callreel_core::names::End;
use callreel_core::session::{Gap, SilenceBudget};
use callreel_firmware_sim::call::{BUFFER_BYTES, Call, MESSAGE_BYTES_MAX};
use callreel_firmware_sim::queue::Queue;

use crate::harness::client::text;
use crate::harness::messages::{chunk, media, start};
use crate::harness::taken::Taken;

/// A session of Twilio's messages that has begun.
fn begun(tracks: &[&str], silence: SilenceBudget) -> Taken {
    Taken::new(Provider::Twilio, &start(tracks), tracks.len(), silence)
}

/// A budget with `ms` milliseconds left.
fn budget(ms: u32) -> SilenceBudget {
    let mut budget = SilenceBudget::new();
    let spent = 8 * (SilenceBudget::ALLOWANCE_MS - ms);
    assert!(budget.take(spent));
    budget
}

#[test]
fn a_gap_that_the_clock_does_not_pay_for_is_closed_up_and_told() {
    let mut taken = begun(&["inbound"], budget(1500));
    // In order at first, so that the session trusts the timestamps.
    let times = (0..240).step_by(20).chain([1240, 2260, 2280, 3300]);
    for (number, time) in (0..).zip(times) {
        taken.take(&media("inbound", number + 2, time, &chunk(number)));
    }
    let gap = |at, missing, filled| Gap {
        track: Track::Inbound,
        at,
        missing,
        filled,
        is_by_arrival: false,
    };
    // After a gap that was closed up, time counts on from the audio behind it.
    let gaps = [gap(1920, 8000, 8000), gap(10_080, 8000, 0), gap(10_400, 8000, 0)];
    assert_eq!(taken.gaps, gaps);
    assert_eq!(taken.codes.len(), 16 * 160 + 8000);
    assert_eq!(taken.codes[9920..], [12, 13, 14, 15].map(chunk).concat()[..]);
    // The time that passes pays for silence again.
    let budget = taken.session.silence_mut();
    budget.advance(10_000, 0);
    budget.advance(10_500, 1);
    taken.take(&media("inbound", 18, 4320, &chunk(5)));
    assert_eq!(taken.gaps[3], gap(10_560, 8000, 8000));
}

#[test]
fn tracks_stay_together_when_a_gap_of_both_is_closed_up() {
    let tracks = ["inbound", "outbound"];
    for (left_ms, filled_ms) in [(0, 0), (3, 0), (8999, 0), (9000, 9000), (30_000, 9000)] {
        let mut taken = begun(&tracks, budget(left_ms));
        let mut sequence = 1;
        // 9 s without a message of either track, in the middle.
        for time in (0..400).step_by(20).chain((9400..9800).step_by(20)) {
            for track in tracks {
                sequence += 1;
                // Both tracks have the same audio, so that a shift between them is seen.
                taken.take(&media(track, sequence, time, &chunk(time / 20)));
            }
        }
        let mut turn = taken.session.handle_end();
        let mut out = [0; 4096];
        while let count @ 1.. = turn.poll_wire(&mut out) {
            taken.codes.extend(&out[..count]);
        }
        let pairs = taken.codes.as_chunks::<2>().0;
        assert_eq!(pairs.len(), 40 * 160 + filled_ms * 8, "{left_ms}");
        let apart = pairs.iter().filter(|[left, right]| left != right).count();
        assert_eq!(apart, 0, "{left_ms}");
        let filled = |track| {
            let gaps = taken.gaps.iter().filter(|gap| gap.track == track);
            gaps.map(|gap| (gap.missing, gap.filled)).collect::<Vec<_>>()
        };
        let told = [(72_000, filled_ms as u64 * 8)];
        assert_eq!(filled(Track::Inbound), told, "{left_ms}");
        assert_eq!(filled(Track::Outbound), told, "{left_ms}");
    }
}

#[test]
fn a_session_without_a_budget_fills_every_gap() {
    let mut taken = begun(&["inbound"], SilenceBudget::UNLIMITED);
    taken.session.silence_mut().advance(1, 1);
    // In order at first, so that the session trusts the timestamps.
    for number in 0..100u64 {
        let time = 20 * number + number.saturating_sub(20) * 9000;
        taken.take(&media("inbound", number + 2, time, &chunk(number)));
    }
    assert_eq!(taken.codes.len(), 100 * 160 + 79 * 72_000);
    assert!(taken.gaps.iter().all(|gap| gap.filled == gap.missing));
}

#[test]
fn the_appliance_holds_silence_to_its_own_clock_whatever_starts_it_is_sent() {
    let mut queue = Queue::new();
    let mut call = Call::new(&mut queue);
    let mut samples = 0;
    for round in 0..10 {
        let mut messages = vec![start(&["inbound"])];
        let time = |number: u64| 20 * number + number.saturating_sub(20) * 9000;
        let media = |number| media("inbound", number + 2, time(number), &chunk(number));
        messages.extend((0..40).map(media));
        for message in messages {
            assert!(message.len() < MESSAGE_BYTES_MAX);
            let mut buffer = [0; BUFFER_BYTES];
            let bytes = text(&message);
            buffer[..bytes.len()].copy_from_slice(&bytes);
            let mut held = call.handle_bytes(&mut buffer[..bytes.len()], 1_000_000 + round * 1000);
            // The card side.
            while held > 0 || call.is_behind() {
                let mut codes = [0; 4096];
                while let count @ 1.. = call.pop(&mut codes) {
                    samples += count;
                }
                let _ = call.take_opening();
                if call.take_end().is_some() {
                    call.finished();
                }
                held = call.handle_bytes(&mut buffer[..held], 1_000_000 + round * 1000);
            }
        }
    }
    call.end(End::Disconnect);
    let mut codes = [0; 4096];
    while let count @ 1.. = call.pop(&mut codes) {
        samples += count;
    }
    // The audio, and as many whole gaps as the allowance and the nine seconds that have passed pay for.
    assert_eq!(samples, 10 * 40 * 160 + 4 * 72_000);
}
