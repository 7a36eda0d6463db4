//! The TwiML that a webhook answers with, read as Twilio reads it.

use roxmltree::{Document, Node};

use super::dictionary::{NOT_TWIML, SCHEMA, TRACK, TwilioError};
use super::{DialledTracks, Error};

/// Twilio passes on parameters whose name and value together are shorter than this.
/// <https://www.twilio.com/docs/voice/twiml/stream#custom-parameters>
const PARAMETER_CHARS: usize = 500;

/// The first step of the TwiML that matters to a stream.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Stream(Order),
    /// The call goes on with the TwiML at this URL, which may be relative.
    Continue {
        url: String,
        with_get: bool,
    },
}

/// The stream that TwiML asks for.
#[derive(Debug, PartialEq)]
pub(super) struct Order {
    /// As written; it may be relative.
    pub(super) url: String,
    pub(super) tracks: Option<DialledTracks>,
    /// Whether Twilio plays the audio of the other end to the caller: a stream of `<Connect>`.
    pub(super) takes_audio: bool,
    pub(super) parameters: Vec<(String, String)>,
    /// Remarks about TwiML that Twilio accepts and hardly anybody wants.
    pub(super) notes: Vec<String>,
}

/// An error of TwiML that Twilio would not follow to a stream.
pub(super) fn refusal(cause: impl Into<String>, twilio: Option<TwilioError>) -> Error {
    Error::Twiml { cause: cause.into(), twilio }
}

/// Reads TwiML up to its first stream or redirection.
///
/// Verbs that do something else, like `<Say>`, take no time here.
///
/// # Errors
/// It is no TwiML, it asks for something that Twilio refuses, or it ends the call without a stream.
pub(super) fn read(body: &[u8]) -> Result<Step, Error> {
    let not_twiml = |cause: String| refusal(cause, Some(NOT_TWIML));
    let text = str::from_utf8(body).map_err(|_| not_twiml("the TwiML is not UTF-8".to_owned()))?;
    let document = Document::parse(text)
        .map_err(|cause| not_twiml(format!("the TwiML is not XML: {cause}")))?;
    let root = document.root_element();
    if !is(root, "Response") {
        return Err(not_twiml("the TwiML's root element is not <Response>".to_owned()));
    }
    for verb in root.children().filter(Node::is_element) {
        match verb.tag_name().name() {
            "Reject" => {
                let reason = verb.attribute("reason").unwrap_or("rejected");
                return Err(refusal(format!("<Reject> turns the call away ({reason})"), None));
            }
            "Hangup" => return Err(refusal("<Hangup> ends the call before any <Stream>", None)),
            "Redirect" => return Ok(continuation(verb, verb.text().unwrap_or_default())),
            "Connect" | "Start" => {
                if let Some(stream) = verb.children().find(|node| is(*node, "Stream")) {
                    return order(verb, stream).map(Step::Stream);
                }
            }
            // Nobody answers or speaks here: these verbs end at once, and go on with their action.
            "Dial" | "Record" => {
                if let Some(action) = verb.attribute("action") {
                    return Ok(continuation(verb, action));
                }
            }
            _ => {}
        }
    }
    let is_stray = |node: Node<'_, '_>| node.tag_name().name().eq_ignore_ascii_case("stream");
    Err(if document.descendants().any(is_stray) {
        let cause = "Twilio ignores a <Stream> that is not directly inside <Start> or <Connect>, \
                     or that is spelled in another case";
        refusal(cause, Some(SCHEMA))
    } else {
        refusal("the TwiML has no <Stream>", None)
    })
}

fn is(node: Node<'_, '_>, name: &str) -> bool {
    node.is_element() && node.tag_name().name() == name
}

fn continuation(verb: Node<'_, '_>, url: &str) -> Step {
    let with_get =
        verb.attribute("method").is_some_and(|method| method.eq_ignore_ascii_case("GET"));
    Step::Continue { url: url.trim().to_owned(), with_get }
}

fn order(verb: Node<'_, '_>, stream: Node<'_, '_>) -> Result<Order, Error> {
    let is_connect = is(verb, "Connect");
    let tracks = match (stream.attribute("track"), is_connect) {
        (None, _) => None,
        (Some("inbound_track"), _) => Some(DialledTracks::Inbound),
        (Some("outbound_track"), false) => Some(DialledTracks::Outbound),
        (Some("both_tracks"), false) => Some(DialledTracks::Both),
        (Some(track), true) => {
            let cause = format!(
                "<Connect><Stream> takes no track=\"{track}\", only inbound_track; use <Start>"
            );
            return Err(refusal(cause, Some(TRACK)));
        }
        (Some(track), false) => {
            let cause = format!(
                "<Stream> takes no track=\"{track}\", only inbound_track, outbound_track and \
                 both_tracks"
            );
            return Err(refusal(cause, Some(TRACK)));
        }
    };
    let Some(url) = stream.attribute("url") else {
        return Err(refusal("the TwiML's <Stream> has no url", None));
    };
    let mut parameters = Vec::new();
    for node in stream.children().filter(|node| is(*node, "Parameter")) {
        let (Some(name), Some(value)) = (node.attribute("name"), node.attribute("value")) else {
            continue;
        };
        let length = name.chars().count() + value.chars().count();
        if length >= PARAMETER_CHARS {
            let start: String = name.chars().take(40).collect();
            let cause = format!(
                "name and value of <Parameter> `{start}` have {length} characters, and fewer than \
                 {PARAMETER_CHARS} are allowed"
            );
            return Err(refusal(cause, None));
        }
        parameters.push((name.to_owned(), value.to_owned()));
    }
    let mut notes = Vec::new();
    if !is_connect && verb.next_sibling_element().is_none() {
        let note = "no verb follows <Start>: Twilio hangs up as soon as the stream has begun";
        notes.push(note.to_owned());
    }
    Ok(Order { url: url.trim().to_owned(), tracks, takes_audio: is_connect, parameters, notes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twiml_gives_url_track_and_parameters_unescaped() {
        let twiml = br#"<?xml version="1.0" encoding="UTF-8"?><Response><Start><Stream url="wss://a.example/s?x=1&amp;y" track="both_tracks"><Parameter name="who" value="A &lt;b&gt;" /></Stream></Start><Dial>+1</Dial></Response>"#;
        let expected = Step::Stream(Order {
            url: "wss://a.example/s?x=1&y".to_owned(),
            tracks: Some(DialledTracks::Both),
            takes_audio: false,
            parameters: vec![("who".to_owned(), "A <b>".to_owned())],
            notes: Vec::new(),
        });
        assert_eq!(read(twiml).unwrap(), expected);
    }

    #[test]
    fn a_parameter_may_have_499_characters_and_no_more() {
        let twiml = |length: usize| {
            let value = "\u{e4}".repeat(length - 1);
            format!(
                "<Response><Connect><Stream url=\"wss://a/s\"><Parameter name=\"n\" \
                 value=\"{value}\"/></Stream></Connect></Response>"
            )
        };
        assert!(read(twiml(499).as_bytes()).is_ok());
        let refused = read(twiml(500).as_bytes()).unwrap_err().to_string();
        assert!(refused.contains("`n` have 500 characters"), "{refused}");
    }
}
