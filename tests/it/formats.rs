//! Streams in other formats than 8 kHz mu-law, given to a session by a caller that parses the messages.

use callreel_core::format::{Codec, Format};
use callreel_core::frame::{Body, Frame, Media, PeerError, Provider, Start, Track, Tracks};
use callreel_core::g711::{decode_alaw, decode_mulaw};
use callreel_core::session::{
    Error, Event, Gap, RING_BOTH_TRACKS_MIN, Session, Stats, ring_bytes_min,
};
use proptest::prelude::*;

/// A chunk of a script: its track, sequence number, timestamp, and mu-law codes at 8 kHz.
#[derive(Clone, Debug)]
struct Chunk {
    track: Track,
    sequence: u64,
    timestamp_ms: u64,
    codes: Vec<u8>,
}

/// A recording.
#[derive(Debug, PartialEq)]
struct Recorded {
    /// Of each channel.
    samples: Vec<Vec<i16>>,
    /// In media time at 8 kHz.
    gaps: Vec<Gap>,
    stats: Stats,
}

/// Plays a script to a session, each chunk as `bytes_of` writes it in `start`'s format, and drains every
/// turn in steps of `step` items. Times are divided by `rate`, the multiple of 8 kHz.
fn play(
    start: Start<'static>,
    chunks: &[Chunk],
    bytes_of: impl Fn(&Chunk) -> Vec<u8>,
    step: usize,
) -> Recorded {
    let format = start.format.unwrap();
    let rate = u64::from(format.sample_rate_hz / 8000);
    let channels = usize::from(start.tracks.channels());
    let (interleaved, width) = (start.is_interleaved, format.codec.width());
    let mut session = Session::new(Provider::Twilio, Vec::new());
    let Err(Error::Ring { bytes_min }) =
        session.handle_frame(Frame::new(None, b"S", Body::Start(clone(&start)))).map(drop)
    else {
        panic!("an empty ring serves nothing");
    };
    assert_eq!(ring_bytes_min(&start), Some(bytes_min));
    session.set_ring(vec![0; bytes_min]);
    drop(session.handle_frame(Frame::new(None, b"S", Body::Start(start))).unwrap());
    assert_eq!(session.format(), Some(format));
    let mut samples = Vec::new();
    let mut gaps: Vec<Gap> = Vec::new();
    // The bytes and the samples of a turn are the same audio: chunks alternate between the two.
    let mut wire = vec![0; step * channels * width];
    let mut pcm = vec![0; step * channels];
    for chunk in chunks {
        let bytes = bytes_of(chunk);
        let tracks = if interleaved { Tracks::Both } else { Tracks::One(chunk.track) };
        let timestamp_ms = Some(chunk.timestamp_ms);
        let media = Media { tracks, chunk: None, timestamp_ms, bytes: &bytes };
        let frame = Frame::new(Some(chunk.sequence), b"S", Body::Media(media));
        let mut turn = session.handle_frame(frame).unwrap();
        gaps.extend(turn.gaps());
        if chunk.sequence.is_multiple_of(2) {
            while let count @ 1.. = turn.poll_pcm(&mut pcm) {
                samples.extend_from_slice(&pcm[..count]);
            }
            assert!(turn.is_drained());
        } else {
            while !turn.is_drained() {
                let count = turn.poll_wire(&mut wire);
                let at = samples.len();
                samples.resize(at + count / width, 0);
                format.codec.decode(&wire[..count], &mut samples[at..]);
            }
        }
    }
    let mut turn = session.handle_end();
    gaps.extend(turn.gaps());
    while let count @ 1.. = turn.poll_pcm(&mut pcm) {
        samples.extend_from_slice(&pcm[..count]);
    }
    drop(turn);
    for gap in &mut gaps {
        (gap.at, gap.missing, gap.filled) = (gap.at / rate, gap.missing / rate, gap.filled / rate);
    }
    let of_channel = |channel| samples.iter().skip(channel).step_by(channels).copied().collect();
    Recorded { samples: (0..channels).map(of_channel).collect(), gaps, stats: *session.stats() }
}

fn clone(start: &Start<'static>) -> Start<'static> {
    let Start { tracks, format, is_interleaved, .. } = *start;
    Start { tracks, format, is_interleaved, ..Start::new() }
}

fn start(codec: Codec, sample_rate_hz: u32, tracks: Tracks) -> Start<'static> {
    Start { format: Some(Format { codec, sample_rate_hz }), tracks, ..Start::new() }
}

/// The chunk's samples as 16-bit PCM, each `rate` times.
fn linear(codec: Codec, rate: usize, chunk: &Chunk) -> Vec<u8> {
    let bytes = |code: &u8| {
        let sample = decode_mulaw(*code);
        let bytes = if codec == Codec::L16Be { sample.to_be_bytes() } else { sample.to_le_bytes() };
        bytes.repeat(rate)
    };
    chunk.codes.iter().flat_map(bytes).collect()
}

/// Chunks of 20 ms, and the ones that are lost, late, early or repeated, by `faults`.
fn script(faults: &[u8], tracks: &[Track]) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let (mut sequence, mut ahead_ms) = (1, 0);
    for (index, fault) in faults.iter().enumerate() {
        for track in tracks {
            sequence += 1;
            let code = |at| (index * 7 + at) as u8 ^ (*track as u8) << 7;
            let timestamp_ms = 20 * index as u64 + ahead_ms;
            let codes = (0..160).map(code).collect();
            let chunk = Chunk { track: *track, sequence, timestamp_ms, codes };
            match fault {
                0 => {}
                1 => chunks.extend([chunk.clone(), chunk]),
                2 => chunks.insert(chunks.len().saturating_sub(1), chunk),
                _ => chunks.push(chunk),
            }
        }
        match fault {
            // No multiple of a chunk's samples at any rate: it would pass for a clock that counts samples.
            3 => ahead_ms += 600,
            4 => ahead_ms += 20_000,
            _ => {}
        }
    }
    chunks
}

proptest! {
    #[test]
    fn a_call_is_the_same_recording_in_any_linear_format(
        faults in prop::collection::vec(0u8..24, 1..40),
        both in any::<bool>(),
        rate in prop::sample::select(vec![1usize, 2, 3, 6]),
        codec in prop::sample::select(vec![Codec::L16Be, Codec::L16Le]),
        step in 1usize..700,
    ) {
        let tracks = if both { Tracks::Both } else { Tracks::One(Track::Inbound) };
        let chunks = script(&faults, &tracks.iter().collect::<Vec<_>>());
        let telephone = start(Codec::Mulaw, 8000, tracks);
        let expected = play(telephone, &chunks, |chunk| chunk.codes.clone(), 160);
        let wide = start(codec, 8000 * rate as u32, tracks);
        let found = play(wide, &chunks, |chunk| linear(codec, rate, chunk), step);
        prop_assert_eq!(&found.gaps, &expected.gaps);
        prop_assert_eq!(found.stats, expected.stats);
        for (found, expected) in found.samples.iter().zip(&expected.samples) {
            let every: Vec<i16> = found.iter().step_by(rate).copied().collect();
            prop_assert_eq!(found.len(), rate * expected.len());
            prop_assert!(every == *expected);
        }
    }

    #[test]
    fn interleaved_tracks_are_recorded_as_two_tracks_with_equal_faults(
        faults in prop::collection::vec(0u8..24, 1..40),
        wide in any::<bool>(),
        step in 1usize..700,
    ) {
        let chunks = script(&faults, &[Track::Inbound]);
        let codec = if wide { Codec::L16Le } else { Codec::Mulaw };
        let single = |chunk: &Chunk| match codec {
            Codec::Mulaw => chunk.codes.clone(),
            codec => linear(codec, 1, chunk),
        };
        let outbound = |chunk: &Chunk| Chunk {
            codes: chunk.codes.iter().map(|code| code ^ 0x80).collect(),
            ..chunk.clone()
        };
        let one = || start(codec, 8000, Tracks::One(Track::Inbound));
        let left = play(one(), &chunks, single, 160);
        let right = play(one(), &chunks, |chunk| single(&outbound(chunk)), 160);
        let both = Start { is_interleaved: true, ..start(codec, 8000, Tracks::Both) };
        let width = codec.width();
        let pairs = |chunk: &Chunk| {
            let (left, right) = (single(chunk), single(&outbound(chunk)));
            let pairs = left.chunks(width).zip(right.chunks(width));
            pairs.flat_map(|(left, right)| [left, right].concat()).collect()
        };
        let found = play(both, &chunks, pairs, step);
        let other = |gap: &Gap| [*gap, Gap { track: Track::Outbound, ..*gap }];
        let mut gaps: Vec<Gap> = left.gaps.iter().flat_map(other).collect();
        let mut found_gaps = found.gaps;
        let order = |gap: &Gap| (gap.at, gap.track as u8);
        gaps.sort_by_key(order);
        found_gaps.sort_by_key(order);
        prop_assert_eq!(found_gaps, gaps);
        prop_assert_eq!(found.stats, left.stats);
        prop_assert!(found.samples == [left.samples, right.samples].concat());
    }
}

#[test]
fn a_law_is_recorded_as_its_own_codes_with_its_own_silence() {
    let chunks = script(&[9, 9, 3, 9], &[Track::Inbound]);
    let alaw = start(Codec::Alaw, 8000, Tracks::One(Track::Inbound));
    let found = play(alaw, &chunks, |chunk| chunk.codes.clone(), 160);
    let mut codes: Vec<u8> = chunks[..3].iter().flat_map(|chunk| chunk.codes.clone()).collect();
    codes.resize(codes.len() + 600 * 8, 0xD5);
    codes.extend(&chunks[3].codes);
    let expected: Vec<i16> = codes.into_iter().map(decode_alaw).collect();
    assert_eq!(found.samples, [expected]);
}

#[test]
fn a_format_that_cannot_be_recorded_begins_nothing() {
    let format = |codec, sample_rate_hz| Some(Format { codec, sample_rate_hz });
    for format in [
        None,
        format(Codec::Mulaw, 0),
        format(Codec::Mulaw, 7999),
        format(Codec::L16Le, 44_100),
        format(Codec::L16Be, 193_000),
        format(Codec::Alaw, u32::MAX),
    ] {
        let mut session = Session::new(Provider::Twilio, [0; RING_BOTH_TRACKS_MIN]);
        let start = Start { format, ..Start::new() };
        let turn = session.handle_frame(Frame::new(None, b"S", Body::Start(start))).unwrap();
        assert!(matches!(turn.event(), Event::Refused(_)), "{format:?}");
        drop(turn);
        assert_eq!(session.spec(), None);
    }
}

#[test]
fn a_chunk_that_is_not_whole_samples_is_refused_and_changes_nothing() {
    let mut session = Session::new(Provider::Twilio, [0; 64_000]);
    let both = Start { is_interleaved: true, ..start(Codec::L16Le, 16_000, Tracks::Both) };
    drop(session.handle_frame(Frame::new(None, b"S", Body::Start(both))).unwrap());
    let media = |tracks, bytes| {
        let media = Media { tracks, chunk: None, timestamp_ms: None, bytes };
        Frame::new(None, b"S", Body::Media(media))
    };
    for (tracks, bytes, reason) in [
        (Tracks::Both, &[0; 3][..], PeerError::Shape),
        (Tracks::Both, &[0; 6], PeerError::Shape),
        (Tracks::One(Track::Inbound), &[0; 4], PeerError::Track),
    ] {
        let error = session.handle_frame(media(tracks, bytes)).map(drop);
        assert_eq!(error, Err(Error::Peer(reason)), "{tracks:?}");
    }
    let mut out = [1; 4];
    let mut turn = session.handle_frame(media(Tracks::Both, &[1, 0, 2, 0])).unwrap();
    assert_eq!((turn.poll_pcm(&mut out), out), (2, [1, 2, 1, 1]));
    drop(turn);
    assert_eq!((session.stats().media, session.stats().undrained), (1, 0));
}

#[test]
fn the_loudest_sample_of_each_channel_is_that_of_the_decoded_samples() {
    let mut state = 1_u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let bytes: Vec<u8> = (0..4096).map(|_| byte()).collect();
    let extreme = [0, 0x80, 0xFF, 0x7F, 0x55, 0xD5, 0x80, 0];
    for codec in [Codec::Alaw, Codec::L16Be, Codec::L16Le, Codec::Mulaw] {
        for count in (0..80).chain([4096]) {
            for bytes in
                [&bytes[..count], &extreme[..count.min(8)], &[codec.silence(); 80][..count.min(80)]]
            {
                let mut samples = vec![0; bytes.len() / codec.width()];
                codec.decode(bytes, &mut samples);
                let most = |from: usize, step: usize| {
                    let whole = samples.len() / step * step;
                    let heard = samples[..whole].iter().skip(from).step_by(step);
                    heard.map(|sample| sample.unsigned_abs()).max().unwrap_or(0)
                };
                assert_eq!(codec.loudest(bytes, false), [most(0, 1), 0], "{codec:?} {bytes:?}");
                assert_eq!(
                    codec.loudest(bytes, true),
                    [most(0, 2), most(1, 2)],
                    "{codec:?} {bytes:?}"
                );
            }
        }
    }
}
