//! Twilio's messages, in the spelling and key order captured on the wire: compact, ASCII except for
//! free text, and every count quoted.

use std::io::Write as _;

use data_encoding::BASE64;
use serde::{Serialize, Serializer};

/// A track: one side of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Track {
    /// The far party's voice.
    Inbound,
    /// The audio that the far party hears.
    Outbound,
}

impl Track {
    /// The name of the track in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// Twilio's ids of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ids {
    /// `AC` and 32 hexadecimal digits.
    pub account_sid: String,
    /// `CA` and 32 hexadecimal digits.
    pub call_sid: String,
    /// `MZ` and 32 hexadecimal digits.
    pub stream_sid: String,
}

/// Writes one stream's messages, each into the same buffer, and keeps its counters.
///
/// All messages of a stream share `sequenceNumber`; each track has its own `chunk`. Both begin at 1.
pub(super) struct Messages {
    ids: Ids,
    sequence_number: u64,
    chunks: [u64; 2],
    text: Vec<u8>,
    /// The text after the payload of a media message.
    media_tail: Vec<u8>,
}

impl Messages {
    pub(super) fn new(ids: Ids) -> Self {
        let stream_sid = json(&ids.stream_sid);
        let media_tail = [br#""},"streamSid":"#, stream_sid.as_slice(), b"}"].concat();
        Self { ids, sequence_number: 0, chunks: [0; 2], text: Vec::with_capacity(512), media_tail }
    }

    pub(super) fn ids(&self) -> &Ids {
        &self.ids
    }

    pub(super) fn connected(&mut self) -> &[u8] {
        self.set(br#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#)
    }

    pub(super) fn start(&mut self, tracks: &[Track], parameters: &[(String, String)]) -> &[u8] {
        let message = Start {
            event: "start",
            sequence_number: self.next_sequence_number(),
            start: StartBody {
                account_sid: &self.ids.account_sid,
                stream_sid: &self.ids.stream_sid,
                call_sid: &self.ids.call_sid,
                tracks,
                media_format: MediaFormat {
                    encoding: "audio/x-mulaw",
                    sample_rate: 8000,
                    channels: 1,
                },
                custom_parameters: parameters,
            },
            stream_sid: &self.ids.stream_sid,
        };
        self.text = json(&message);
        &self.text
    }

    /// A media message. It is sent fifty times a second, so it is written by hand, without allocation.
    pub(super) fn media(&mut self, track: Track, timestamp_ms: u64, payload: &[u8]) -> &[u8] {
        self.sequence_number += 1;
        self.chunks[track as usize] += 1;
        let mut number = itoa::Buffer::new();
        let text = &mut self.text;
        text.clear();
        text.extend_from_slice(br#"{"event":"media","sequenceNumber":""#);
        text.extend_from_slice(number.format(self.sequence_number).as_bytes());
        text.extend_from_slice(br#"","media":{"track":""#);
        text.extend_from_slice(track.name().as_bytes());
        text.extend_from_slice(br#"","chunk":""#);
        text.extend_from_slice(number.format(self.chunks[track as usize]).as_bytes());
        text.extend_from_slice(br#"","timestamp":""#);
        text.extend_from_slice(number.format(timestamp_ms).as_bytes());
        text.extend_from_slice(br#"","payload":""#);
        let payload_at = text.len();
        text.resize(payload_at + BASE64.encode_len(payload.len()), 0);
        BASE64.encode_mut(payload, &mut text[payload_at..]);
        text.extend_from_slice(&self.media_tail);
        text
    }

    pub(super) fn dtmf(&mut self, digit: char) -> &[u8] {
        let sequence_number = self.next_sequence_number();
        let (stream_sid, digit) = (json(&self.ids.stream_sid), json(&digit));
        self.set(
            &[
                br#"{"event":"dtmf","streamSid":"#,
                stream_sid.as_slice(),
                br#","sequenceNumber":""#,
                sequence_number.as_bytes(),
                br#"","dtmf":{"track":"inbound_track","digit":"#,
                &digit,
                b"}}",
            ]
            .concat(),
        )
    }

    pub(super) fn mark(&mut self, name: &str) -> &[u8] {
        let sequence_number = self.next_sequence_number();
        let (stream_sid, name) = (json(&self.ids.stream_sid), json(&name));
        self.set(
            &[
                br#"{"event":"mark","sequenceNumber":""#,
                sequence_number.as_bytes(),
                br#"","streamSid":"#,
                &stream_sid,
                br#","mark":{"name":"#,
                &name,
                b"}}",
            ]
            .concat(),
        )
    }

    pub(super) fn stop(&mut self) -> &[u8] {
        let sequence_number = self.next_sequence_number();
        let [account_sid, call_sid, stream_sid] =
            [&self.ids.account_sid, &self.ids.call_sid, &self.ids.stream_sid].map(json);
        self.set(
            &[
                br#"{"event":"stop","sequenceNumber":""#,
                sequence_number.as_bytes(),
                br#"","streamSid":"#,
                &stream_sid,
                br#","stop":{"accountSid":"#,
                &account_sid,
                br#","callSid":"#,
                &call_sid,
                b"}}",
            ]
            .concat(),
        )
    }

    /// Counts messages and chunks that are never sent, so that the numbers have a hole.
    pub(super) fn lose(&mut self, track: Track, count: u64) {
        self.sequence_number += count;
        self.chunks[track as usize] += count;
    }

    fn next_sequence_number(&mut self) -> String {
        self.sequence_number += 1;
        self.sequence_number.to_string()
    }

    fn set(&mut self, text: &[u8]) -> &[u8] {
        self.text.clear();
        self.text.extend_from_slice(text);
        &self.text
    }
}

/// A `start` message, its keys in the captured order.
/// Source: Twilio, "Media Streams - WebSocket Messages", read 2026-11-22.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Start<'a> {
    event: &'a str,
    sequence_number: String,
    start: StartBody<'a>,
    stream_sid: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StartBody<'a> {
    account_sid: &'a str,
    stream_sid: &'a str,
    call_sid: &'a str,
    tracks: &'a [Track],
    media_format: MediaFormat<'a>,
    #[serde(serialize_with = "as_object")]
    custom_parameters: &'a [(String, String)],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MediaFormat<'a> {
    encoding: &'a str,
    sample_rate: u32,
    channels: u32,
}

fn as_object<S: Serializer>(pairs: &[(String, String)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, value)| (name, value)))
}

fn json(value: &impl Serialize) -> Vec<u8> {
    let mut text = Vec::new();
    serde_json::to_writer(&mut text, value).expect("text and numbers always have a JSON form");
    text.flush().expect("a Vec takes every write");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(account_sid: &str, call_sid: &str, stream_sid: &str) -> Messages {
        let [account_sid, call_sid, stream_sid] =
            [account_sid, call_sid, stream_sid].map(str::to_owned);
        Messages::new(Ids { account_sid, call_sid, stream_sid })
    }

    /// Messages from a public log, with their ids replaced.
    #[test]
    fn messages_equal_the_captured_ones_byte_for_byte() {
        let mut messages = messages(
            "AC746cf1fafe4b7ce2557345ffa29c748a",
            "CAd7e3cb755dc106a0688e367b0d5f5668",
            "MZ8993907d76ad521d2bfb945804e17b8f",
        );
        let payload = "f39///////9/f39/f3//f3///v///////////39/f3///3//f39/f////3//f3///////39/f39//39/f39/f39//3//f////////39/fn9/f/9/f39/f3//f39/f/9//////3///////////39/f/////9/////////////f39/f39//39//3///3//////f39/f39///9/f39//39/fw==";
        let audio = BASE64.decode(payload.as_bytes()).unwrap();
        assert_eq!(audio.len(), 160);
        assert_eq!(
            messages.connected(),
            br#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#
        );
        assert_eq!(
            messages.start(&[Track::Inbound], &[]),
            br#"{"event":"start","sequenceNumber":"1","start":{"accountSid":"AC746cf1fafe4b7ce2557345ffa29c748a","streamSid":"MZ8993907d76ad521d2bfb945804e17b8f","callSid":"CAd7e3cb755dc106a0688e367b0d5f5668","tracks":["inbound"],"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1},"customParameters":{}},"streamSid":"MZ8993907d76ad521d2bfb945804e17b8f"}"#
        );
        let media =
            String::from_utf8(messages.media(Track::Inbound, 155, &audio).to_vec()).unwrap();
        assert_eq!(
            media,
            format!(
                r#"{{"event":"media","sequenceNumber":"2","media":{{"track":"inbound","chunk":"1","timestamp":"155","payload":"{payload}"}},"streamSid":"MZ8993907d76ad521d2bfb945804e17b8f"}}"#
            )
        );
        messages.lose(Track::Inbound, 375);
        assert_eq!(
            messages.stop(),
            br#"{"event":"stop","sequenceNumber":"378","streamSid":"MZ8993907d76ad521d2bfb945804e17b8f","stop":{"accountSid":"AC746cf1fafe4b7ce2557345ffa29c748a","callSid":"CAd7e3cb755dc106a0688e367b0d5f5668"}}"#
        );
    }

    #[test]
    fn marks_parameters_and_digits_equal_the_captured_and_documented_ones() {
        let mut messages = messages("AC1", "CA1", "9e7ee906-377b-408f-a852-eebfb834422a");
        let parameters = [("hello".to_owned(), "Hello\"Value".to_owned())];
        let start = messages.start(&[Track::Inbound, Track::Outbound], &parameters).to_vec();
        let start = String::from_utf8(start).unwrap();
        assert!(start.contains(r#""tracks":["inbound","outbound"],"#), "{start}");
        assert!(start.contains(r#""customParameters":{"hello":"Hello\"Value"}},"#), "{start}");
        messages.lose(Track::Inbound, 101);
        assert_eq!(
            messages.mark("Repeat message 0"),
            br#"{"event":"mark","sequenceNumber":"103","streamSid":"9e7ee906-377b-408f-a852-eebfb834422a","mark":{"name":"Repeat message 0"}}"#
        );
        assert_eq!(
            messages.dtmf('1'),
            br#"{"event":"dtmf","streamSid":"9e7ee906-377b-408f-a852-eebfb834422a","sequenceNumber":"104","dtmf":{"track":"inbound_track","digit":"1"}}"#
        );
    }

    #[test]
    fn tracks_share_the_sequence_and_count_their_own_chunks() {
        let mut messages = messages("AC1", "CA1", "MZ1");
        messages.start(&[Track::Inbound, Track::Outbound], &[]);
        messages.media(Track::Inbound, 52, &[0xFF]);
        let outbound = messages.media(Track::Outbound, 52, &[0xFF]);
        assert_eq!(
            outbound,
            br#"{"event":"media","sequenceNumber":"3","media":{"track":"outbound","chunk":"1","timestamp":"52","payload":"/w=="},"streamSid":"MZ1"}"#
        );
    }
}
