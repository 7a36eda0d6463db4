//! Bots that send faster than real time, with marks, in three dialects.

use callreel_core::g711::decode_mulaw;
use serde_json::json;

use super::{CASE, Case, Compared};
use crate::harness::packages;
use crate::harness::program::Program;

/// Samples of an answer.
const ANSWER: usize = 16_000;

/// Checks a bot that sends an answer at once: its messages do not depend on the time. The first answer is cut,
/// and the second one is heard to its end.
fn check(compared: &Compared, messages: usize) {
    let said = compared.relayed.to_client.texts();
    assert_eq!(said, compared.alone.to_client.texts());
    assert_eq!(said.len(), messages, "{said:#?}");
    let told = &compared.recording.record["bot"];
    let facts = json!([told["truth"], told["clears"], told["marks"], told["unread"]]);
    let marks = said.iter().filter(|text| text.contains("answer") || text.contains("mark"));
    assert_eq!(facts, json!(["echo_confirmed", 1, marks.count(), null]), "{told}");
    let lengths: Vec<_> = compared.utterances.iter().map(|part| part.samples.len()).collect();
    let [cut, last] = lengths[..] else { panic!("{lengths:?}") };
    // The file ends with the last frame of the caller before a bot hangs up.
    let has_all = last + super::DIFFERENCE_MS_MAX * super::SAMPLES_PER_MS > ANSWER;
    assert!(cut < ANSWER && has_all, "{lengths:?} {told}");
}

#[test]
fn audio_of_plivos_package_on_a_stream_of_another_format_is_heard_as_it_is() {
    // The defaults of both: mu-law in the package, 16-bit samples on a stream of Plivo's.
    let bot = Program::python("bots", "sdks", &packages::SDKS);
    let options = &["--codec", "l16", "--rate", "8000"];
    let compared = Case { look: "plivo", path: "plivo", options, ..CASE }.compare(bot.port);
    check(&compared, 5);
    let spoken: Vec<_> = (0..ANSWER).map(|at| (26 + at * 7 + at / 251) % 96).collect();
    let last = compared.utterances[1].samples.iter();
    assert!(last.zip(spoken).all(|(sample, code)| *sample == decode_mulaw(code as u8)));
}

#[test]
fn plivos_own_package_does_as_without_the_relay_and_the_file_is_what_was_heard() {
    let bot = Program::python("bots", "sdks", &packages::SDKS);
    let case = Case { look: "plivo", path: "plivo", duration: "20s", ..CASE };
    let compared = case.compare(bot.port);
    compared.check_told(|text| text.contains("playedStream") || text.contains("clearedAudio"));
    // Two answers, a checkpoint behind each, a clear.
    check(&compared, 5);
    assert_eq!(compared.recording.state(), ("complete", "bot"));
}

#[test]
fn jambonzs_own_package_does_as_without_the_relay_and_the_file_is_what_was_heard() {
    let bot = Program::node("jambonz_bot", "sdks-node", &packages::SDKS_OF_NODE);
    let case = Case { look: "jambonz", path: "jambonz", duration: "20s", ..CASE };
    let compared = case.compare(bot.port);
    compared.check_told(|text| text.contains("\"mark\""));
    // Ten messages an answer, two marks, two messages that clear, one that hangs up.
    check(&compared, 25);
    assert_eq!(compared.recording.state(), ("complete", "bot"));
}

#[test]
fn tring_does_as_without_the_relay_and_the_file_is_what_was_heard() {
    if std::env::var_os("CALLREEL_LONG").is_none() {
        // Its packages are its own.
        return;
    }
    let bot = Program::python("bots", "tring", &packages::TRING);
    let case = Case { look: "twilio", path: "tring", duration: "8s", ..CASE };
    let compared = case.compare(bot.port);
    compared.check_told(|text| text.contains("\"mark\""));
    // A hundred messages of 20 ms an answer, a mark behind each tenth, a clear.
    check(&compared, 221);
    assert_eq!(compared.recording.state(), ("complete", "stop"));
    assert_eq!(compared.recording.record["bot"]["sent_ms"], 4000);
}
