//! pipecat: real time, no marks, a clear at each word of the caller, two seconds of silence before it hangs up.

use super::{CASE, Case, Compared};
use crate::harness::packages;
use crate::harness::program::Program;

/// Samples of an answer, and of it most that are sent before they are due.
const ANSWER: usize = 16_000;
const LEAD_MAX: usize = 1600;

/// Checks the messages of a bot that speaks by the clock: each utterance is to the byte that of the bot without
/// the relay, only the length of the one that is interrupted depends on the time.
fn check_messages(compared: &Compared, clear: &str) {
    compared.check_told(|text| text.contains("clearedAudio"));
    let [alone, relayed] =
        [&compared.alone, &compared.relayed].map(|tapped| tapped.to_client.texts());
    let parts = |texts: &[String]| -> Vec<Vec<String>> {
        texts.split(|text| text == clear).map(<[String]>::to_vec).collect()
    };
    let (alone, relayed) = (parts(&alone), parts(&relayed));
    let lengths = |parts: &[Vec<String>]| parts.iter().map(Vec::len).collect::<Vec<_>>();
    let told = format!("{:?} alone, {:?} relayed", lengths(&alone), lengths(&relayed));
    // A clear at the first word, when nothing plays; one that interrupts.
    assert_eq!((alone.len(), relayed.len()), (3, 3), "{told}");
    assert!(alone[0].is_empty() && relayed[0].is_empty(), "{told}");
    assert!(super::is_begin(&alone[1], &relayed[1], 50) && !relayed[1].is_empty(), "{told}");
    assert!(alone[2] == relayed[2] && relayed[2].len() == 51, "{told}");
}

#[test]
fn pipecat_does_as_without_the_relay_and_the_file_is_what_was_heard() {
    let bot = Program::python("pipecat_bot", "pipecat", &packages::PIPECAT);
    let compared = CASE.compare(bot.port);
    check_messages(&compared, r#"{"event": "clear", "streamSid": "MZbot"}"#);
    // Twilio's messages have nothing that changes, and go by nothing but each other.
    let told = [&compared.alone, &compared.relayed].map(|tapped| tapped.to_server.texts());
    assert!(super::is_begin(&told[0], &told[1], super::FRAMES_MAX));
    let recording = &compared.recording;
    assert_eq!(recording.state(), ("complete", "bot"));
    let told = &recording.record["bot"];
    assert_eq!((&told["truth"], &told["clears"]), (&"modelled".into(), &2.into()), "{told}");
    let lengths: Vec<_> = compared.utterances.iter().map(|part| part.samples.len()).collect();
    let [cut, last] = lengths[..] else { panic!("{lengths:?}") };
    // It hangs up as soon as it has sent its last word, some of which then waits to be played.
    assert!(cut < ANSWER && (ANSWER - LEAD_MAX..=ANSWER).contains(&last), "{lengths:?} {told}");
}

#[test]
fn pipecat_does_as_without_the_relay_with_three_other_providers() {
    if std::env::var_os("CALLREEL_LONG").is_none() {
        // It is the same bot, with other serializers.
        return;
    }
    let bot = Program::python("pipecat_bot", "pipecat", &packages::PIPECAT);
    for (look, options, message_ms, clear) in [
        ("telnyx", &["--tracks", "inbound"][..], 20, r#"{"event": "clear"}"#),
        ("plivo", &[], 20, r#"{"event": "clearAudio", "streamId": "MZbot"}"#),
        ("exotel", &[], 100, r#"{"event": "clear", "stream_sid": "MZbot"}"#),
    ] {
        let compared = Case { look, path: look, options, message_ms, ..CASE }.compare(bot.port);
        check_messages(&compared, clear);
        assert_eq!(compared.recording.state(), ("complete", "bot"), "{look}");
    }
}
