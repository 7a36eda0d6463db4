//! The session of a call: the place of its audio, the counts, and that nothing is lost.

use callreel_core::frame::{PeerError, Provider, Track};
use callreel_core::g711::decode_mulaw;
use callreel_core::session::{
    Error, Event, Gap, MediaClock, RING_BOTH_TRACKS_MIN, RING_ONE_TRACK_MIN, Session,
};
use proptest::prelude::*;

use crate::harness::client;
use crate::harness::fixtures;
use crate::harness::messages::{CONNECTED, call, call_codes, chunk, media, start, stop};
use crate::harness::recorder::{Recording, connection, device_connection, record, record_one};

fn decoded(codes: &[u8]) -> Vec<i16> {
    codes.iter().map(|code| decode_mulaw(*code)).collect()
}

/// Records chunks of 20 ms on one track, given by sequence number and timestamp.
fn chunks(times: &[(u64, u64)]) -> Recording {
    let media = times
        .iter()
        .zip(0..)
        .map(|((sequence, time), index)| media("inbound", *sequence, *time, &chunk(index)));
    record_one(&messages(&["inbound"], media))
}

fn messages(tracks: &[&str], media: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut messages = vec![CONNECTED.to_owned(), start(tracks)];
    messages.extend(media);
    messages
}

/// A gap of the inbound track.
fn gap(at: u64, missing: u64, filled: u64) -> Gap {
    Gap { track: Track::Inbound, at, missing, filled, is_by_arrival: false }
}

#[test]
fn timestamps_that_wobble_by_40_ms_change_nothing() {
    for second in [0, 10, 20, 59, 60] {
        let recording = chunks(&[(2, 0), (3, second)]);
        assert_eq!(recording.samples, decoded(&call_codes(2)), "{second}");
        assert_eq!((recording.gaps, recording.stats.late), (vec![], 0), "{second}");
    }
}

#[test]
fn a_gap_of_more_than_40_ms_becomes_silence_of_its_whole_length() {
    let recording = chunks(&[(2, 0), (3, 61)]);
    assert_eq!(recording.gaps, [gap(160, 41 * 8, 41 * 8)]);
    let silence = vec![0; 41 * 8];
    let expected = [decoded(&chunk(0)), silence, decoded(&chunk(1))].concat();
    assert_eq!(recording.samples, expected);
    assert_eq!((recording.stats.late, recording.stats.missing), (0, 0));
}

#[test]
fn where_messages_are_missing_more_than_10_ms_are_a_gap() {
    assert_eq!(chunks(&[(2, 0), (4, 30)]).gaps, []);
    let recording = chunks(&[(2, 0), (4, 31)]);
    assert_eq!((recording.gaps, recording.stats.missing), (vec![gap(160, 88, 88)], 1));
    // A hole in the numbers counts once, for the next chunk of the track.
    assert_eq!(chunks(&[(2, 0), (4, 20), (5, 71)]).gaps, []);
    // The missing messages are counted even where no silence is filled in.
    assert_eq!(chunks(&[(2, 0), (9, 20)]).stats.missing, 6);
}

#[test]
fn ten_seconds_are_filled_and_a_longer_jump_is_written_down_and_closed_up() {
    let recording = chunks(&[(2, 0), (3, 10_020), (4, 10_040)]);
    assert_eq!(recording.gaps, [gap(160, 80_000, 80_000)]);
    assert_eq!(recording.samples.len(), 3 * 160 + 80_000);

    let recording = chunks(&[(2, 0), (3, 10_021), (4, 10_041), (5, 10_102)]);
    assert_eq!(recording.gaps, [gap(160, 80_008, 0), gap(480, 328, 328)]);
    assert_eq!(recording.samples.len(), 4 * 160 + 328);
}

#[test]
fn what_comes_late_is_appended_and_a_jump_back_sets_the_clock_anew() {
    let late = |second| chunks(&[(2, 20_000), (3, second), (4, 20_040)]).stats.late;
    assert_eq!((late(19_980), late(19_979), late(10_020)), (0, 1, 1));
    let recording = chunks(&[(2, 20_000), (3, 10_019), (4, 10_039), (5, 10_100)]);
    assert_eq!(recording.gaps, [gap(480, 328, 328)]);
    assert_eq!((recording.stats.late, recording.samples.len()), (1, 4 * 160 + 328));
    assert_eq!(recording.samples[..480], decoded(&call_codes(3)));
}

#[test]
fn a_constant_timestamp_is_as_good_as_none() {
    let times: Vec<_> = (0..100).map(|i| (i + 2, 52)).collect();
    let recording = chunks(&times);
    assert_eq!(recording.samples, decoded(&call_codes(100)));
    assert_eq!((recording.gaps, recording.clock), (vec![], MediaClock::Frozen));
    // Chunks more than 40 ms late, until the session knows that the clock stands still.
    assert_eq!(recording.stats.late, 7);
    // A clock that moves by bursts counts milliseconds after all: a gap is a gap.
    let bursts = (0..100).map(|i| (i + 2, i / 20 * 400 + if i < 60 { 0 } else { 1000 }));
    let recording = chunks(&bursts.collect::<Vec<_>>());
    assert_eq!(recording.clock, MediaClock::Milliseconds);
    assert_eq!(recording.gaps.len(), 1, "{:?}", recording.gaps);
}

/// Records chunks of 20 ms, each with `time` of its number as its timestamp.
fn clock(time: impl Fn(u64) -> u64) -> Recording {
    chunks(&(0..40).map(|i| (i + 2, time(i))).collect::<Vec<_>>())
}

#[test]
fn the_unit_of_the_timestamps_is_told_by_the_audio() {
    for (expected, recording) in [
        (MediaClock::Milliseconds, clock(|i| 52 + 20 * i)),
        (MediaClock::UnixMilliseconds, clock(|i| 1_700_000_000_000 + 20 * i + i % 3)),
        (MediaClock::Samples, clock(|i| 160 * i)),
        (MediaClock::Samples, clock(|i| 4_000_000_000 + 160 * i)),
        (MediaClock::Microseconds, clock(|i| 20_000 * i)),
        (MediaClock::Microseconds, clock(|i| 1_700_000_000_000_000 + 20_000 * i + i % 7 * 90)),
        (MediaClock::Frozen, clock(|_| 0)),
        (MediaClock::Slow, clock(|i| 10 * i)),
        (MediaClock::Slow, clock(|i| i)),
        (MediaClock::Racing, clock(|i| 30 * i)),
        (MediaClock::Racing, clock(|i| 60 * i)),
    ] {
        assert_eq!(recording.clock, expected);
        assert_eq!(recording.samples, decoded(&call_codes(40)), "{expected:?}");
        assert_eq!(recording.gaps, [], "{expected:?}");
    }
    // The first step may be a gap; the steps that follow show that it was none.
    let recording = clock(|i| 1000 * i);
    assert_eq!(recording.clock, MediaClock::Racing);
    assert_eq!(recording.gaps, [gap(160, 980 * 8, 980 * 8)]);
}

#[test]
fn a_gap_counts_in_the_unit_of_the_timestamps() {
    for scale in [160, 20_000] {
        let recording = clock(|i| scale * if i < 20 { i } else { i + 25 });
        assert_eq!(recording.gaps, [gap(20 * 160, 25 * 160, 25 * 160)], "{scale}");
        assert_eq!(recording.samples.len(), (40 + 25) * 160);
    }
    // A gap at the beginning does not show another unit.
    let recording = clock(|i| if i == 0 { 0 } else { 20 * i + 140 });
    assert_eq!(recording.clock, MediaClock::Milliseconds);
    assert_eq!(recording.samples.len(), 40 * 160 + 140 * 8);
}

/// Records chunks in the order of `numbers`, each at its time plus its wobble.
fn in_order(numbers: &[u64], wobble: impl Fn(u64) -> u64) -> Recording {
    let media = numbers.iter().map(|i| media("inbound", i + 2, 20 * i + wobble(*i), &chunk(*i)));
    record_one(&messages(&["inbound"], media))
}

#[test]
fn a_chunk_that_comes_late_lands_in_its_place() {
    for order in [
        &[0, 2, 1, 3, 4, 5, 6, 7, 8, 9][..],
        &[0, 1, 2, 4, 5, 6, 3, 7, 8, 9],
        &[0, 1, 4, 2, 3, 5, 6, 7, 8, 9],
        &[0, 1, 4, 3, 2, 5, 6, 7, 8, 9],
        &[0, 2, 1, 4, 3, 6, 5, 8, 7, 9],
        &[0, 1, 2, 3, 4, 5, 6, 7, 9, 8],
    ] {
        for wobble in [0, 1, 3] {
            let recording = in_order(order, |i| i * 7 % 4 * wobble);
            assert_eq!(recording.samples, decoded(&call_codes(10)), "{order:?} {wobble}");
            let stats = recording.stats;
            assert_eq!((recording.gaps, stats.late, stats.media), (vec![], 0, 10), "{order:?}");
            assert_eq!(stats.missing, stats.reordered, "{order:?}");
        }
    }
    // At the very beginning, as far as the window reaches.
    for order in
        [&[1, 0, 2, 3, 4, 5][..], &[2, 0, 1, 3, 4, 5], &[2, 1, 0, 3, 4, 5], &[3, 0, 1, 2, 4, 5]]
    {
        for wobble in [0, 1, 3] {
            let recording = in_order(order, |i| i * 7 % 4 * wobble);
            let is_whole = recording.samples == decoded(&call_codes(6));
            // A hole of several messages takes one of them where no timestamp tells its length.
            let is_short = order[0] > 1;
            assert!(is_whole || is_short, "{order:?} {wobble}: {:?}", recording.stats);
            assert_eq!((recording.gaps, recording.samples.len()), (vec![], 6 * 160), "{order:?}");
        }
    }
    // What never comes there is no gap: the recording begins with its first chunk.
    let recording = in_order(&[1, 2, 3, 4, 5, 6, 7, 8], |_| 0);
    let expected: Vec<u8> = (1..9).flat_map(chunk).collect();
    assert_eq!((recording.samples, recording.gaps), (decoded(&expected), vec![]));
    // Without timestamps the sequence numbers tell the order.
    let nameless = |i: u64| media("inbound", i + 2, 0, &chunk(i)).replace("timestamp", "x");
    let recording = record_one(&messages(&["inbound"], [0, 1, 3, 2, 4].map(nameless)));
    assert_eq!(recording.samples, decoded(&call_codes(5)));
}

#[test]
fn what_comes_after_the_window_is_late_and_what_never_comes_is_silence() {
    let recording = in_order(&[0, 2, 3, 4, 5, 1, 6], |_| 0);
    let silence = vec![0; 160];
    let tail: Vec<u8> = [2, 3, 4, 5, 1, 6].into_iter().flat_map(chunk).collect();
    assert_eq!(recording.samples, [decoded(&chunk(0)), silence, decoded(&tail)].concat());
    assert_eq!(recording.gaps, [gap(160, 160, 160)]);
    let stats = recording.stats;
    assert_eq!((stats.late, stats.missing, stats.reordered), (1, 1, 0));
    // At the end the missing chunk is given up.
    let recording = in_order(&[0, 2], |_| 0);
    assert_eq!((recording.samples.len(), recording.gaps), (480, vec![gap(160, 160, 160)]));
}

#[test]
fn the_ring_s_size_changes_nothing() {
    let media: Vec<_> = [0u64, 2, 1, 3, 7, 4, 5, 8, 6, 15, 16, 9]
        .map(|i| media("inbound", i + 2, 20 * i, &chunk(i)))
        .into();
    let all = messages(&["inbound"], media);
    let small = record(&all, RING_ONE_TRACK_MIN, 64).0;
    assert_eq!(small, record(&all, 4096, 64).0);
    assert_eq!(small, record(&all, RING_BOTH_TRACKS_MIN, 1).0);
}

#[test]
fn a_clock_that_is_set_anew_keeps_both_tracks_together() {
    for (ahead, gaps) in [(15_000, 2), (100_000, 2)] {
        // Outbound is absent for a while around the jump.
        let time = |i: u64| 20 * i + if i < 10 { 0 } else { ahead };
        let both = (0..30).flat_map(|i| {
            let outbound = (!(8..13).contains(&i))
                .then(|| media("outbound", 2 * i + 3, time(i), &chunk(i + 100)));
            [Some(media("inbound", 2 * i + 2, time(i), &chunk(i))), outbound]
        });
        let recording = record_one(&messages(&["inbound", "outbound"], both.flatten()));
        assert_eq!(recording.channel(0), decoded(&call_codes(30)), "{ahead}");
        let outbound = recording.channel(1);
        for number in (0..8).chain(13..30) {
            let place = number as usize * 160;
            let expected = decoded(&chunk(number + 100));
            assert_eq!(outbound[place..place + 160], expected, "{ahead} {number}");
        }
        let jumps = recording.gaps.iter().filter(|gap| gap.missing > gap.filled);
        assert_eq!(jumps.count(), gaps, "{:?}", recording.gaps);
    }
}

#[test]
fn media_of_no_stream_that_started_is_taken_and_counted() {
    let mut all = call(4);
    all[3] = all[3].replace(r#""streamSid":""#, r#""streamSid":"another"#);
    all[4] = all[4].replace(r#","streamSid":""#, r#","x":""#);
    let recording = record_one(&all);
    assert_eq!(recording.samples, decoded(&call_codes(4)));
    assert_eq!(recording.stats.unaddressed, 2);
    // Ids of every length are told apart to their last byte.
    for length in [0, 1, 3, 7, 8, 33, 34, 39, 40, 41, 48, 500] {
        let id = "x".repeat(length);
        let with = |id: &str| -> Vec<String> {
            let place = |text: String| text.replace("STREAM", id);
            call(2).into_iter().map(|text| replace_ids(&text)).map(place).collect()
        };
        assert_eq!(record_one(&with(&id)).stats.unaddressed, 0, "{length}");
        let mut other = with(&id);
        let changed = format!("{}y", &id[..length.saturating_sub(1)]);
        other[2] = with(&changed)[2].clone();
        assert_eq!(record_one(&other).stats.unaddressed, 1, "{length}");
    }
}

/// A message with `STREAM` in place of each stream's id.
fn replace_ids(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(r#""streamSid":""#) {
        let (before, behind) = rest.split_at(at + 13);
        out.push_str(before);
        out.push_str("STREAM");
        rest = &behind[behind.find('"').unwrap()..];
    }
    out + rest
}

#[test]
fn an_absurd_timestamp_costs_no_silence_and_no_audio() {
    for absurd in [u64::MAX, u64::MAX / 8, 1 << 60, 1 << 40, 1_700_000_000_000] {
        let recording = chunks(&[(2, 0), (3, absurd), (4, 40), (5, 60)]);
        assert_eq!(recording.samples, decoded(&call_codes(4)), "{absurd}");
    }
    let first = chunks(&[(2, u64::MAX / 8), (3, 20), (4, 40)]);
    assert_eq!(first.samples, decoded(&call_codes(3)));
}

#[test]
fn an_exact_repeat_is_dropped_and_anything_less_is_kept() {
    let one = || media("inbound", 2, 0, &chunk(0));
    let recording = record_one(&messages(&["inbound"], [one(), one(), one()]));
    assert_eq!(recording.samples, decoded(&chunk(0)));
    assert_eq!((recording.stats.repeated, recording.stats.media), (2, 1));

    let mut flipped = chunk(0);
    flipped[159] ^= 1;
    for other in [
        media("inbound", 3, 0, &chunk(0)),
        media("inbound", 2, 1, &chunk(0)),
        media("inbound", 2, 0, &flipped),
        media("inbound", 2, 0, &chunk(0)[..159]),
        media("inbound", 2, 0, &chunk(0)).replace(r#""chunk":"2""#, r#""chunk":"9""#),
        // The same message, but not the last one any more.
        [media("inbound", 2, 0, &chunk(0))].concat(),
    ] {
        let recording =
            record_one(&messages(&["inbound"], [one(), media("inbound", 2, 0, &chunk(5)), other]));
        assert_eq!(recording.stats.repeated, 0);
        assert!(recording.samples.len() > 460);
    }
    // Two flipped bits that cancel out in a plain sum.
    for (first, second) in
        (0..16).flat_map(|first| (first + 1..32).map(move |second| (first, second)))
    {
        let mut other = chunk(0);
        (other[first], other[second]) = (other[first] ^ 0x80, other[second] ^ 0x80);
        let recording =
            record_one(&messages(&["inbound"], [one(), media("inbound", 2, 0, &other)]));
        assert_eq!((recording.samples.len(), recording.stats.repeated), (320, 0));
    }
    // Without a sequence number nothing is a repeat: silence looks alike.
    let nameless = || r#"{"event":"media","media":{"payload":"/////w=="}}"#.to_owned();
    let recording = record_one(&messages(&["inbound"], [nameless(), nameless()]));
    assert_eq!((recording.samples.len(), recording.stats.repeated), (8, 0));
}

#[test]
fn both_tracks_are_channels_of_one_length_on_one_clock() {
    let both = (0..10).flat_map(|i| {
        [
            media("outbound", 2 * i + 2, i * 20, &chunk(i + 100)),
            media("inbound", 2 * i + 3, i * 20, &chunk(i)),
        ]
    });
    let mut messages = messages(&["outbound", "inbound"], both);
    messages.push(media("inbound", 22, 200, &chunk(10)));
    let recording = record_one(&messages);
    assert_eq!(recording.channel(0), decoded(&call_codes(11)));
    let outbound: Vec<u8> = (100..110).flat_map(chunk).collect();
    let padded = [decoded(&outbound), vec![0; 160]].concat();
    assert_eq!((recording.channel(1), recording.gaps), (padded, vec![]));
}

#[test]
fn a_track_that_falls_behind_by_more_than_200_ms_is_silence_and_then_late() {
    let inbound = (0..20).map(|i| media("inbound", i + 2, i * 20, &chunk(i)));
    let outbound = (0..2).map(|i| media("outbound", i + 22, i * 20, &chunk(i + 100)));
    let recording = record_one(&messages(&["inbound", "outbound"], inbound.chain(outbound)));
    // After 400 ms of inbound alone, 200 ms of outbound are given up as silence.
    let outbound: Vec<u8> = (100..102).flat_map(chunk).collect();
    let expected = [vec![0; 1600], decoded(&outbound), vec![0; 1600 - 320]].concat();
    assert_eq!(recording.channel(1), expected);
    let gap =
        Gap { track: Track::Outbound, at: 0, missing: 1600, filled: 1600, is_by_arrival: false };
    assert_eq!((recording.gaps, recording.stats.late), (vec![gap], 2));
}

#[test]
fn a_track_that_never_comes_is_a_gap_of_the_whole_call() {
    let inbound = (0..20).map(|i| media("inbound", i + 2, i * 20, &chunk(i)));
    let recording = record_one(&messages(&["inbound", "outbound"], inbound));
    assert_eq!(recording.channel(1), vec![0; 3200]);
    let gap =
        Gap { track: Track::Outbound, at: 0, missing: 3200, filled: 3200, is_by_arrival: false };
    assert_eq!(recording.gaps, [gap]);
}

#[test]
fn a_chunk_far_longer_than_the_ring_passes_through_it() {
    let long: Vec<u8> = (0..100_000).map(|i| (i % 253) as u8).collect();
    let mono = messages(&["inbound"], [media("inbound", 2, 0, &long)]);
    assert_eq!(record_one(&mono).samples, decoded(&long));
    let (recordings, _) = record(&mono, RING_ONE_TRACK_MIN, 1);
    assert_eq!(recordings[0].samples, decoded(&long));
    let (recordings, _) = record(&mono, 1000, 7);
    assert_eq!(recordings[0].samples, decoded(&long));

    let both = messages(&["inbound", "outbound"], [media("inbound", 2, 0, &long)]);
    let recording = record_one(&both);
    assert_eq!((recording.channel(0), recording.channel(1)), (decoded(&long), vec![0; 100_000]));
}

#[test]
fn a_ring_that_does_not_serve_the_tracks_says_so_and_takes_the_start_again_with_a_larger_one() {
    for (tracks, length, bytes_min) in [
        (&["inbound"][..], 0, RING_ONE_TRACK_MIN),
        (&["outbound"], RING_ONE_TRACK_MIN - 1, RING_ONE_TRACK_MIN),
        (&["inbound", "outbound"], RING_ONE_TRACK_MIN, RING_BOTH_TRACKS_MIN),
        (&["inbound", "outbound"], RING_BOTH_TRACKS_MIN - 2, RING_BOTH_TRACKS_MIN),
        (&["inbound", "outbound"], RING_BOTH_TRACKS_MIN + 1, RING_BOTH_TRACKS_MIN),
    ] {
        let mut session = Session::new(Provider::Twilio, vec![0; length]);
        let mut text = start(tracks).into_bytes();
        let error = session.handle_message(&mut text).err();
        assert_eq!(error, Some(Error::Ring { bytes_min }), "{length}");
        assert_eq!(session.spec(), None);
        assert_eq!(session.set_ring(vec![0; bytes_min]).len(), length);
        assert!(matches!(
            session.handle_message(&mut text).unwrap().event(),
            Event::Started { .. }
        ));
        // A session that records takes no other ring.
        assert_eq!(session.set_ring(vec![0; 9]).len(), 9);
    }
}

#[test]
fn a_track_that_nobody_announced_is_rejected_and_leaves_no_hole_in_the_other() {
    let frame = |track, number: u64, second| media(track, number + 2, second, &chunk(number));
    let both = (0..10).flat_map(|number| {
        // As late as a chunk may be where nothing is missing.
        let wobble = if number % 2 == 1 { 30 } else { 0 };
        [
            frame("inbound", 2 * number, 20 * number + wobble),
            frame("outbound", 2 * number + 1, 20 * number),
        ]
    });
    let (recordings, errors) = record(&messages(&["inbound"], both), 4096, 64);
    assert_eq!(errors, [Error::Peer(PeerError::Track); 10]);
    let recording = &recordings[0];
    assert_eq!((&recording.gaps[..], recording.stats.missing), (&[][..], 0));
    let inbound: Vec<u8> = (0..10).flat_map(|number| chunk(2 * number)).collect();
    assert_eq!(recording.samples, decoded(&inbound));
}

#[test]
fn media_before_start_and_after_stop_is_counted_not_recorded() {
    let mut all = vec![media("inbound", 1, 0, &chunk(9)), stop(1)];
    all.extend(call(3));
    all.extend([media("inbound", 9, 60, &chunk(9)), stop(10), CONNECTED.to_owned()]);
    let recording = record_one(&all);
    assert_eq!(recording.samples, decoded(&call_codes(3)));
    assert_eq!((recording.stats.before_start, recording.stats.after_stop), (1, 3));
    assert!(recording.stopped);
}

#[test]
fn a_second_start_is_a_second_recording() {
    let mut all = call(3);
    all.truncate(5);
    all.push(start(&["inbound", "outbound"]));
    all.push(media("outbound", 2, 7, &chunk(7)));
    all.extend(call(2));
    let (recordings, errors) = record(&all, 4096, 512);
    assert_eq!((recordings.len(), errors), (3, vec![]));
    assert_eq!(recordings[0].samples, decoded(&call_codes(3)));
    assert_eq!(recordings[1].channel(1), decoded(&chunk(7)));
    assert_eq!(recordings[2].samples, decoded(&call_codes(2)));
    assert_eq!([0, 1, 2].map(|i| recordings[i].stopped), [false, false, true]);
}

#[test]
fn with_the_memory_of_one_session_a_start_ends_the_stream_before_it() {
    let fixture =
        fixtures::twilio().into_iter().find(|f| f.name == "two-streams-on-one-connection");
    let bytes: Vec<u8> = fixture.unwrap().messages().iter().flat_map(client::text).collect();
    let beside = connection(&[&bytes], 2048);
    let alone = device_connection(&[&bytes], 2048);
    let lengths = |all: &[Recording]| all.iter().map(|one| one.samples.len()).collect::<Vec<_>>();
    assert_eq!(lengths(&beside), [1600, 1120]);
    // The second stream takes all media up to the first stop.
    assert_eq!(lengths(&alone)[0], 640);
    assert_eq!(alone[0].samples, beside[0].samples[..640]);
    assert_eq!((alone.len(), alone[1].stats.media, alone[1].stats.unaddressed), (2, 12, 6));
}

#[test]
fn a_rejected_message_changes_nothing_and_is_counted_once() {
    let mut all = call(4);
    let good = all.clone();
    all[3] = all[3].replace("payload\":\"", "payload\":\"!");
    all.insert(5, "{".to_owned());
    all.insert(6, media("outbound", 77, 0, &chunk(9)));
    let (recordings, errors) = record(&all, 4096, 512);
    let recording = &recordings[0];
    let expected = [PeerError::Base64, PeerError::Json, PeerError::Track].map(Error::Peer);
    assert_eq!(errors, expected);
    for error in PeerError::ALL {
        let count = u64::from(expected.contains(&Error::Peer(error)));
        assert_eq!(recording.stats.rejected[error.index()], count, "{error:?}");
    }
    // Its audio is missing, but the message is not: it came and was rejected.
    assert_eq!((recording.stats.missing, recording.stats.media), (0, 3));
    assert_eq!(recording.gaps, [gap(160, 160, 160)]);
    let whole = record_one(&good);
    assert_eq!(recording.samples.len(), whole.samples.len());
    assert_eq!(recording.samples[320..], whole.samples[320..]);
}

#[test]
fn an_unsupported_format_begins_nothing() {
    let mut session = Session::new(Provider::Twilio, [0; 4096]);
    for (was, is) in [
        ("audio/x-mulaw", "audio/opus"),
        ("8000", "\"fast\""),
        ("8000", "22050"),
        ("8000", "4294967296"),
        ("\"channels\":1", "\"channels\":2"),
    ] {
        let mut unsupported = start(&["inbound"]).replace(was, is).into_bytes();
        let turn = session.handle_message(&mut unsupported).unwrap();
        // A rate that is no number is an odd field, and taken for absent.
        let is_refused = is != "\"fast\"";
        assert_eq!(matches!(turn.event(), Event::Refused(_)), is_refused, "{is}");
        drop(turn);
        assert_eq!(session.spec().is_none(), is_refused, "{is}");
        session.reset();
    }
}

#[test]
fn keys_and_marks_have_their_place_in_the_recording() {
    let mut all = call(4);
    all.insert(4, r#"{"event":"dtmf","dtmf":{"track":"inbound_track","digit":"5"}}"#.to_owned());
    all.insert(6, r#"{"event":"mark","mark":{"name":"over"}}"#.to_owned());
    let recording = record_one(&all);
    assert_eq!(recording.cues, [("digit 5".to_owned(), 320), ("mark over".to_owned(), 480)]);
}

#[test]
fn what_an_undrained_turn_held_is_counted() {
    let mut session = Session::new(Provider::Twilio, [0; 4096]);
    let mut out = [0; 512];
    let mut texts: Vec<_> = call(3).into_iter().map(String::into_bytes).collect();
    let mut heard = 0;
    for (index, text) in texts.iter_mut().enumerate() {
        let mut turn = session.handle_message(text).unwrap();
        // The second chunk is not drained.
        if index != 3 {
            heard += core::iter::from_fn(|| Some(turn.poll_pcm(&mut out)))
                .take_while(|count| *count > 0)
                .sum::<usize>();
        }
    }
    assert_eq!((session.stats().undrained, heard), (160, 320));
}

#[test]
fn an_end_that_was_not_drained_yields_its_samples_at_the_next() {
    let mut session = Session::new(Provider::Twilio, [0; 4096]);
    let mut out = [0; 512];
    for text in messages(&["inbound", "outbound"], [media("inbound", 2, 0, &chunk(0))]) {
        assert_eq!(session.handle_message(&mut text.into_bytes()).unwrap().poll_pcm(&mut out), 0);
    }
    drop(session.handle_end());
    assert_eq!(session.handle_end().poll_pcm(&mut out), 320);
    assert_eq!(session.stats().undrained, 0);
}

#[test]
fn sequence_numbers_that_begin_anew_are_no_loss() {
    assert_eq!(chunks(&[(2, 0), (60_002, 20)]).stats.missing, 59_999);
    assert_eq!(chunks(&[(2, 0), (60_003, 20), (60_004, 40)]).stats.missing, 0);
    assert_eq!(chunks(&[(100_000, 0), (1, 20), (2, 40), (4, 60)]).stats.missing, 1);
    // An older number counts nothing.
    assert_eq!(chunks(&[(2, 0), (4, 20), (3, 40), (5, 60)]).stats.missing, 1);
}

/// A call in disorder: whether it has both tracks; of each chunk, whether it is outbound, its timestamp
/// and its length.
fn disorder() -> impl Strategy<Value = (bool, Vec<(bool, u64, usize)>)> {
    let time = prop_oneof![12 => 0..2000u64, 1 => 0..30_000u64, 1 => any::<u64>()];
    let length = prop_oneof![6 => Just(160), 2 => 0..400usize, 1 => 3000..5000usize];
    (any::<bool>(), proptest::collection::vec((any::<bool>(), time, length), 0..30))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn audio_cut_into_any_chunks_is_the_same_recording(
        sizes in proptest::collection::vec(0..2000usize, 1..30),
        out_places in 1..700usize,
    ) {
        let codes = call_codes(50);
        let mut rest = &codes[..];
        let mut pieces = Vec::new();
        for (index, size) in sizes.iter().enumerate() {
            let at_ms = (codes.len() - rest.len()) as u64 / 8;
            let (piece, after) = rest.split_at((*size).min(rest.len()));
            pieces.push(media("inbound", index as u64 + 2, at_ms, piece));
            rest = after;
        }
        let recorded = &codes[..codes.len() - rest.len()];
        let (recordings, _) = record(&messages(&["inbound"], pieces), 777, out_places);
        prop_assert_eq!(&recordings[0].samples, &decoded(recorded));
        prop_assert_eq!(&recordings[0].gaps, &vec![]);
    }

    #[test]
    fn whatever_the_times_no_audio_is_lost_and_the_figures_add_up((stereo, pieces) in disorder()) {
        let tracks: &[&str] = if stereo { &["inbound", "outbound"] } else { &["inbound"] };
        let mut sent = [0; 2];
        let mut all = messages(tracks, []);
        for (index, (outbound, time, length)) in pieces.into_iter().enumerate() {
            let outbound = outbound && stereo;
            // No code is silence, so that audio can be told from filled-in silence.
            let codes = vec![0x20 + index as u8; length];
            let track = if outbound { "outbound" } else { "inbound" };
            all.push(media(track, index as u64 + 2, time, &codes));
            sent[usize::from(outbound)] += length;
        }
        let (recordings, errors) = record(&all, 4096, 64);
        prop_assert_eq!(errors, vec![]);
        let recording = &recordings[0];
        let channels = usize::from(recording.spec.channels);
        prop_assert_eq!(recording.samples.len() % channels, 0);
        for (channel, sent) in sent.into_iter().enumerate().take(channels) {
            let samples = recording.channel(channel);
            let heard = samples.iter().filter(|sample| **sample != 0).count();
            prop_assert_eq!(heard, sent);
            let track = [Track::Inbound, Track::Outbound][channel];
            let gaps = recording.gaps.iter().filter(|gap| gap.track == track);
            let filled: u64 = gaps.map(|gap| gap.filled).sum();
            let padding = samples.len() - sent - filled as usize;
            prop_assert!(padding == 0 || stereo && padding <= 1600, "padding {}", padding);
        }
        // The ring's size changes nothing.
        if !stereo {
            prop_assert_eq!(&record(&all, RING_ONE_TRACK_MIN, 5).0[0].samples, &recording.samples);
        } else {
            prop_assert_eq!(&record(&all, RING_BOTH_TRACKS_MIN, 5).0[0].samples, &recording.samples);
        }
    }
}
