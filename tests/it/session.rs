//! What becomes of a call: where its audio goes, what is counted, and that nothing is lost.

use callreel_core::frame::{PeerError, Provider, Track};
use callreel_core::g711::decode_mulaw;
use callreel_core::session::{Error, Event, Gap, RING_BOTH_TRACKS_MIN, Session};
use proptest::prelude::*;

use crate::harness::messages::{CONNECTED, call, call_codes, chunk, media, start, stop};
use crate::harness::recorder::{Recording, record, record_one};

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
    Gap { track: Track::Inbound, at, missing, filled }
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
    // The hole counts once, for the next chunk of the track.
    assert_eq!(chunks(&[(2, 0), (4, 20), (5, 71)]).gaps, []);
    // It is counted even where nothing is filled.
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
    // Beyond 40 ms.
    assert_eq!((recording.gaps, recording.stats.late), (vec![], 97));
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
        // Not the last one any more.
        [media("inbound", 2, 0, &chunk(0))].concat(),
    ] {
        let recording =
            record_one(&messages(&["inbound"], [one(), media("inbound", 2, 0, &chunk(5)), other]));
        assert_eq!(recording.stats.repeated, 0);
        assert!(recording.samples.len() > 460);
    }
    // Two bits that a plain sum would take for none.
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
    // 400 ms of inbound left 200 ms of outbound to silence.
    let outbound: Vec<u8> = (100..102).flat_map(chunk).collect();
    let expected = [vec![0; 1600], decoded(&outbound), vec![0; 1600 - 320]].concat();
    assert_eq!(recording.channel(1), expected);
    let gap = Gap { track: Track::Outbound, at: 0, missing: 1600, filled: 1600 };
    assert_eq!((recording.gaps, recording.stats.late), (vec![gap], 2));
}

#[test]
fn a_track_that_never_comes_is_a_gap_of_the_whole_call() {
    let inbound = (0..20).map(|i| media("inbound", i + 2, i * 20, &chunk(i)));
    let recording = record_one(&messages(&["inbound", "outbound"], inbound));
    assert_eq!(recording.channel(1), vec![0; 3200]);
    let gap = Gap { track: Track::Outbound, at: 0, missing: 3200, filled: 3200 };
    assert_eq!(recording.gaps, [gap]);
}

#[test]
fn a_chunk_far_longer_than_the_ring_passes_through_it() {
    let long: Vec<u8> = (0..100_000).map(|i| (i % 253) as u8).collect();
    let mono = messages(&["inbound"], [media("inbound", 2, 0, &long)]);
    assert_eq!(record_one(&mono).samples, decoded(&long));
    let (recordings, _) = record::<1>(&mono, 1);
    assert_eq!(recordings[0].samples, decoded(&long));
    let (recordings, _) = record::<300>(&mono, 7);
    assert_eq!(recordings[0].samples, decoded(&long));

    let both = messages(&["inbound", "outbound"], [media("inbound", 2, 0, &long)]);
    let recording = record_one(&both);
    assert_eq!((recording.channel(0), recording.channel(1)), (decoded(&long), vec![0; 100_000]));
}

#[test]
fn a_ring_that_does_not_serve_two_tracks_says_so_and_changes_nothing() {
    const SERVES: usize = RING_BOTH_TRACKS_MIN;
    fn check<const N: usize>() {
        let mut session: Session<N> = const { Session::new(Provider::Twilio) };
        let mut both = start(&["inbound", "outbound"]).into_bytes();
        assert_eq!(session.handle_message(&mut both).err(), Some(Error::Resource));
        assert_eq!(session.spec(), None);
        let mut wider: Session<SERVES> = session.clone().with_ring();
        assert!(matches!(wider.handle_message(&mut both).unwrap().event(), Event::Started(_)));
        let mut one = start(&["outbound"]).into_bytes();
        assert!(matches!(session.handle_message(&mut one).unwrap().event(), Event::Started(_)));
        let other: Session<2> = session.with_ring();
        assert_eq!(other.spec(), None, "it waits whatever the first one did");
    }
    check::<1>();
    check::<{ SERVES - 2 }>();
    check::<{ SERVES + 1 }>();
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
    let (recordings, errors) = record::<4096>(&messages(&["inbound"], both), 64);
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
    let (recordings, errors) = record::<4096>(&all, 512);
    assert_eq!((recordings.len(), errors), (3, vec![]));
    assert_eq!(recordings[0].samples, decoded(&call_codes(3)));
    assert_eq!(recordings[1].channel(1), decoded(&chunk(7)));
    assert_eq!(recordings[2].samples, decoded(&call_codes(2)));
    assert_eq!([0, 1, 2].map(|i| recordings[i].stopped), [false, false, true]);
}

#[test]
fn a_rejected_message_changes_nothing_and_is_counted_once() {
    let mut all = call(4);
    let good = all.clone();
    all[3] = all[3].replace("payload\":\"", "payload\":\"!");
    all.insert(5, "{".to_owned());
    all.insert(6, media("outbound", 77, 0, &chunk(9)));
    let (recordings, errors) = record::<4096>(&all, 512);
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
    let mut session: Session = Session::new(Provider::Twilio);
    let mut unsupported = start(&["inbound"]).replace("8000", "16000").into_bytes();
    let turn = session.handle_message(&mut unsupported).unwrap();
    assert!(matches!(turn.event(), Event::Refused(start) if !start.supported));
    drop(turn);
    assert_eq!(session.spec(), None);
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
    let mut session: Session = Session::new(Provider::Twilio);
    let mut out = [0; 512];
    let mut texts: Vec<_> = call(3).into_iter().map(String::into_bytes).collect();
    let mut heard = 0;
    for (index, text) in texts.iter_mut().enumerate() {
        let mut turn = session.handle_message(text).unwrap();
        // The second chunk is not asked for.
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
    let mut session: Session = Session::new(Provider::Twilio);
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
    // An older number is no news.
    assert_eq!(chunks(&[(2, 0), (4, 20), (3, 40), (5, 60)]).stats.missing, 1);
}

/// A call of one or both tracks in disorder: whether it is outbound, timestamp, length.
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
        let (recordings, _) = record::<777>(&messages(&["inbound"], pieces), out_places);
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
            // No code is silence, so that audio can be told from what was filled in.
            let codes = vec![0x20 + index as u8; length];
            let track = if outbound { "outbound" } else { "inbound" };
            all.push(media(track, index as u64 + 2, time, &codes));
            sent[usize::from(outbound)] += length;
        }
        let (recordings, errors) = record::<4096>(&all, 64);
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
            prop_assert_eq!(&record::<13>(&all, 5).0[0].samples, &recording.samples);
        } else {
            prop_assert_eq!(&record::<RING_BOTH_TRACKS_MIN>(&all, 5).0[0].samples, &recording.samples);
        }
    }
}
