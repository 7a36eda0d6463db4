//! Any messages of any provider, which the first byte chooses, one a line: nothing panics, no sample is
//! lost or made up but the silence of gaps, and looking for the provider changes no message.

#![no_main]

use callreel_core::frame::{Body, Detector, Provider, Verdict, parse};
use callreel_core::session::{Error, Event, Gap, Session, ring_bytes_min};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, lines)) = bytes.split_first() else { return };
    let Ok(lines) = core::str::from_utf8(lines) else { return };
    let provider = Provider::ALL[usize::from(*first) % Provider::ALL.len()];
    // Time from message to message.
    let step_ms = 41 * (u64::from(*first) / Provider::ALL.len() as u64);
    let mut detector = Detector::new();
    let mut session = Session::new(provider, Vec::new());
    let (mut taken, mut drained, mut gaps) = (0, 0, Vec::new());
    for (number, line) in lines.lines().take(40).enumerate() {
        let at_ms = step_ms * number as u64;
        session.set_arrival_ms(Some(at_ms).filter(|_| line.len() % 16 != 0));
        let direct = format!("{:?}", parse(provider, &mut line.as_bytes().to_vec()));
        let mut text = line.as_bytes().to_vec();
        match detector.note_text(&mut text) {
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
        let Ok(frame) = parse(provider, &mut text) else { continue };
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
