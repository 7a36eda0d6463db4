//! Any messages of any provider, which the first byte chooses, one a line, and binary ones, which begin with
//! `=`: nothing panics, no sample is lost or made up but the silence of gaps, looking for the provider
//! changes no message, and answers are JSON, numbered one by one.

#![no_main]

use callreel_core::frame::{
    Body, Detector, Frame, Provider, REPLY_BYTES_MAX, Start, Verdict, parse,
};
use callreel_core::session::{Error, Event, Gap, Session, SilenceBudget, ring_bytes_min};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, lines)) = bytes.split_first() else { return };
    let Ok(lines) = core::str::from_utf8(lines) else { return };
    let provider = Provider::ALL[usize::from(*first) % Provider::ALL.len()];
    let habits = provider.habits();
    // Time from message to message.
    let step_ms = 41 * (u64::from(*first) / Provider::ALL.len() as u64);
    let mut detector = Detector::new();
    let mut session = Session::new(provider, Vec::new());
    if habits.is_answered {
        // A few bytes may ask for hours of silence.
        *session.silence_mut() = SilenceBudget::new();
    }
    let (mut taken, mut drained, mut gaps, mut replies) = (0, 0, Vec::new(), 0);
    // A stream that begins with audio has that in the message of its start.
    let lines = lines.lines().take(40);
    let times = 1 + usize::from(provider.habits().begins_with_audio);
    let lines = lines.flat_map(|line| std::iter::repeat_n(line, times));
    for (number, line) in lines.enumerate() {
        let at_ms = step_ms * number as u64;
        session.set_arrival_ms(Some(at_ms).filter(|_| line.len() % 16 != 0));
        if let Some(audio) = line.strip_prefix('=') {
            if session.spec().is_none() && habits.has_optional_start {
                let start = Start::assumed(provider);
                session.set_ring(vec![0; ring_bytes_min(&start).unwrap_or_default()]);
                let turn = session.handle_frame(Frame::new(None, b"", Body::Start(start)));
                assert!(turn.is_ok_and(|turn| turn.is_drained()));
            }
            let Ok(mut turn) = session.handle_audio(audio.as_bytes()) else { continue };
            if let Event::Media(placed) = turn.event() {
                taken += placed.samples as u64;
            }
            gaps.extend(turn.gaps());
            drained += drain(&mut turn);
            continue;
        }
        let direct = format!("{:?}", parse(provider, &mut line.as_bytes().to_vec()));
        let mut text = line.as_bytes().to_vec();
        // Texts that may be words are not looked at as JSON once their provider is known.
        let is_words = habits.has_free_start
            || habits.has_binary_audio && !line.trim_start().starts_with('{');
        match detector.note_text(&mut text) {
            _ if is_words => text = line.as_bytes().to_vec(),
            Ok(Verdict::Known(_) | Verdict::Foreign(_) | Verdict::Undecided) => {
                // The look at it left the message as it was, but for its spelling.
                let after = format!("{:?}", parse(provider, &mut text.clone()));
                assert_eq!(after, direct, "{line}");
            }
            Err(error) => {
                assert!(direct.starts_with("Err"), "{error} in {line}, but {direct}");
                text = line.as_bytes().to_vec();
            }
        }
        let Ok(frame) = session.parse(&mut text) else { continue };
        if let Body::Start(start) = &frame.body {
            // A fuzzer's clock may ask for any room.
            let bytes = ring_bytes_min(start).unwrap_or_default().min(1 << 20);
            session.set_ring(vec![0; bytes]);
        }
        let mut turn = match session.handle_frame(frame) {
            Ok(turn) => turn,
            Err(Error::Ring { bytes_min }) => panic!("{bytes_min} bytes were there"),
            Err(_) => continue,
        };
        if let Event::Media(placed) = turn.event() {
            taken += placed.samples as u64;
        }
        if let Some(reply) = turn.reply().map(|reply| reply.to_string()) {
            replies += 1;
            assert!(reply.len() <= REPLY_BYTES_MAX, "{reply}");
            let reply: serde_json::Value = serde_json::from_str(&reply).expect("an answer is JSON");
            if reply["version"] == "2" {
                assert_eq!(reply["seq"], replies);
            }
        }
        gaps.extend(turn.gaps());
        drained += drain(&mut turn);
    }
    let channels = session.spec().map_or(1, |spec| u64::from(spec.channels));
    let mut turn = session.handle_end();
    gaps.extend(turn.gaps());
    drained += drain(&mut turn);
    drop(turn);
    assert!(drained.is_multiple_of(channels) && drained >= taken, "{drained} of {taken}");
    assert!(gaps.iter().all(|gap: &Gap| gap.filled <= gap.missing));
    let stats = session.stats();
    // A message that was rejected may be taken for a missing one that then comes.
    let rejected: u64 = stats.rejected.iter().sum();
    assert!(stats.undrained == 0 && stats.reordered <= stats.missing + rejected, "{stats:?}");
});

/// The samples of a turn, of all channels.
fn drain(turn: &mut callreel_core::session::Turn<'_, '_, Vec<u8>>) -> u64 {
    let (mut out, mut count) = ([0; 512], 0);
    loop {
        match turn.poll_pcm(&mut out) {
            0 => return count,
            more => count += more as u64,
        }
    }
}
