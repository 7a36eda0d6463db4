//! Any messages of a voice bot to any provider, which the first byte chooses, one a line, and binary ones,
//! which begin with `=`: nothing panics, no audio is longer than its base64, a message means the same in the
//! usual spelling and in another, and all audio is heard, taken back or left over, each sample once.

#![no_main]

use callreel_core::frame::bot::{BotFrame, parse, parse_binary, told_format};
use callreel_core::frame::Provider;
use callreel_core::playout::{Piece, Playout};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, lines)) = bytes.split_first() else { return };
    let Ok(lines) = core::str::from_utf8(lines) else { return };
    let provider = Provider::ALL[usize::from(*first) % Provider::ALL.len()];
    // Time from message to message.
    let step = 37 * u64::from(*first) / Provider::ALL.len() as u64;
    let mut playout = Playout::new(8000);
    let (mut at, mut polled, mut heard, mut dropped) = (0, 0, 0, 0);
    for line in lines.lines().take(200) {
        at += step;
        let mut text = line.as_bytes().to_vec();
        let frame = match line.strip_prefix('=') {
            Some(audio) => parse_binary(provider, audio.as_bytes()),
            None => {
                let direct = format!("{:?}", parse(provider, &mut text.clone()));
                // A leading blank makes core leave the message to the reader of all spellings.
                let mut other = format!(" {line}").into_bytes();
                assert_eq!(direct, format!("{:?}", parse(provider, &mut other)), "{line}");
                if let Some(format) = told_format(provider, line) {
                    assert!((8000..=192_000).contains(&format.sample_rate_hz), "{line}");
                }
                match parse(provider, &mut text) {
                    Ok(frame) => frame,
                    Err(_) => continue,
                }
            }
        };
        match frame {
            BotFrame::Audio(bytes) => {
                assert!(line.starts_with('=') || bytes.len() <= line.len() / 4 * 3, "{line}");
                playout.handle_audio(at, bytes.len() as u64);
            }
            BotFrame::Clear => dropped += playout.handle_clear(at),
            BotFrame::Mark(name) => {
                playout.handle_mark(name);
                // Some come back, at some time.
                if let Some(name) = name.filter(|name| name.len() % 3 > 0) {
                    at += step * name.len() as u64;
                    playout.handle_echo(at, name);
                }
            }
            BotFrame::Other => {
                while let Some(piece) = playout.poll(at) {
                    let samples = match piece {
                        Piece::Audio(samples) => {
                            heard += samples;
                            samples
                        }
                        Piece::Silence(samples) => samples,
                    };
                    assert!(samples > 0);
                    polled += samples;
                }
                assert!(polled >= at, "polled to the end");
            }
        }
    }
    dropped += playout.finish(at);
    while let Some(piece) = playout.poll(u64::MAX) {
        heard += if let Piece::Audio(samples) = piece { samples } else { 0 };
    }
    let stats = playout.stats();
    assert_eq!((stats.sent, stats.heard), (heard + dropped, heard), "{stats:?}");
    let told: u64 = std::iter::from_fn(|| playout.take_utterance()).map(|one| one.heard).sum();
    assert!(told <= heard);
});
