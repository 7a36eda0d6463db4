//! Core reads every message that `serde_json` reads within core's limits, with equal values. The
//! spelling recognised byte for byte has the same meaning in the parser.

#![no_main]

use std::fmt;

use base64::prelude::*;
use callreel_core::frame::{
    Body, DEPTH_MAX, PARAMETERS_MAX, PeerError, Provider, Text, Track, Tracks, parse,
};
use libfuzzer_sys::fuzz_target;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

fuzz_target!(|text: &str| {
    let found = said(text);
    // A leading blank makes core leave the message to the parser.
    let parsed = said(&format!(" {text}"));
    assert_eq!(parsed, found);
    let Ok(node) = serde_json::from_str::<Node>(text) else { return };
    if node.depth() <= DEPTH_MAX
        && let Some(expected) = expect(&node)
    {
        let found = found.map(|found| Message { stream_id: None, ..found });
        assert_eq!(found, expected);
    }
});

/// A message, owned.
#[derive(Debug, PartialEq)]
struct Message {
    sequence: Option<u64>,
    /// `None` where the stream id is not compared.
    stream_id: Option<String>,
    said: Said,
}

#[derive(Debug, PartialEq)]
enum Said {
    Connected,
    Dtmf(String),
    Mark(String),
    Media {
        track: Track,
        chunk: Option<u64>,
        timestamp_ms: Option<u64>,
        codes: Vec<u8>,
    },
    Other,
    Start {
        ids: [String; 3],
        tracks: Tracks,
        encoding: String,
        supported: bool,
        parameters: Vec<(String, String)>,
        dropped: usize,
    },
    Stop,
}

fn said(text: &str) -> Result<Message, PeerError> {
    let mut text = text.as_bytes().to_vec();
    let frame = parse(Provider::Twilio, &mut text)?;
    let stream_id = core::str::from_utf8(frame.stream_id).expect("the text is UTF-8");
    let stream_id = Some(Text::new(stream_id).to_string());
    let owned = |text: Text<'_>| text.to_string();
    let said = match frame.body {
        Body::Connected => Said::Connected,
        Body::Dtmf(dtmf) => Said::Dtmf(owned(dtmf.digit)),
        Body::Mark(mark) => Said::Mark(owned(mark.name)),
        Body::Media(media) => Said::Media {
            track: media.tracks.iter().next().expect("a chunk has a track"),
            chunk: media.chunk,
            timestamp_ms: media.timestamp_ms,
            codes: media.bytes.to_vec(),
        },
        Body::Other => Said::Other,
        Body::Rejected(error) => return Err(error),
        Body::Start(start) => Said::Start {
            ids: [start.stream_id, start.call_id, start.account_id].map(owned),
            tracks: start.tracks,
            encoding: owned(start.encoding),
            supported: start.format.is_some(),
            parameters: start.parameters.iter().map(|(n, v)| (owned(*n), owned(*v))).collect(),
            dropped: start.parameters_dropped as usize,
        },
        Body::Stop => Said::Stop,
        other => panic!("not a message of Twilio's: {other:?}"),
    };
    Ok(Message { sequence: frame.sequence, stream_id, said })
}

/// The meaning that a message must have; `None` where core may refuse the message: a known field
/// that is there twice or has another type.
fn expect(message: &Node) -> Option<Result<Message, PeerError>> {
    let event = message.one("event")?.text()?;
    let sequence = message.number("sequenceNumber")?;
    let known = ["connected", "dtmf", "mark", "media", "start", "stop"].contains(&event);
    let said = if known { expect_known(event, message)? } else { Ok(Said::Other) };
    Some(said.map(|said| Message { sequence, stream_id: None, said }))
}

fn expect_known(event: &str, message: &Node) -> Option<Result<Said, PeerError>> {
    // The fields of other events must be valid too: the parser reads all fields at once.
    let media = message.object("media")?.map(expect_media);
    let stream_sid = message.string("streamSid")?.unwrap_or_default();
    let start = message.object("start")?.map(|start| expect_start(start, stream_sid));
    let only = |body: &str, field: &str| {
        let body = message.object(body)?;
        Some(match body {
            Some(body) => Some(body.one(field)?.text()?.to_owned()),
            None => None,
        })
    };
    let (digit, mark) = (only("dtmf", "digit")?, only("mark", "name")?);
    let media = media.map_or(Some(None), |media| media.map(Some))?;
    let start = start.map_or(Some(None), |start| start.map(Some))?;
    Some(match event {
        "connected" => Ok(Said::Connected),
        "dtmf" => Ok(Said::Dtmf(digit.unwrap_or_default())),
        "mark" => Ok(Said::Mark(mark.unwrap_or_default())),
        "media" => media.unwrap_or(Err(PeerError::Shape)),
        "start" => {
            // The same fields beside `start` would count.
            let fields = ["callSid", "accountSid", "tracks", "mediaFormat", "customParameters"];
            for name in fields.into_iter().chain(["custom_parameters"]) {
                if message.maybe(name)?.is_some() {
                    return None;
                }
            }
            Ok(start?)
        }
        _ => Ok(Said::Stop),
    })
}

fn expect_media(media: &Node) -> Option<Result<Said, PeerError>> {
    let (chunk, timestamp_ms) = (media.number("chunk")?, media.number("timestamp")?);
    let name = media.string("track")?;
    let payload = media.string("payload")?.unwrap_or_default();
    Some(match name.map_or(Some(Track::Inbound), track) {
        None => Err(PeerError::Track),
        Some(track) => {
            let usual = payload.replace('-', "+").replace('_', "/");
            let codes = BASE64_STANDARD.decode(&usual);
            match codes.or_else(|_| BASE64_STANDARD_NO_PAD.decode(&usual)) {
                Ok(codes) => Ok(Said::Media { track, chunk, timestamp_ms, codes }),
                Err(_) => Err(PeerError::Base64),
            }
        }
    })
}

fn expect_start(start: &Node, stream_sid: &str) -> Option<Said> {
    if start.maybe("custom_parameters")?.is_some() {
        return None;
    }
    let ids = [
        start.string("streamSid")?.unwrap_or(stream_sid),
        start.string("callSid")?.unwrap_or_default(),
        start.string("accountSid")?.unwrap_or_default(),
    ];
    let mut tracks = (false, false);
    match start.maybe("tracks")? {
        None => {}
        Some(Node::Array(names)) => {
            for name in names {
                match track(name.text()?) {
                    None if ["both", "both_tracks"].contains(&name.text()?) => tracks = (true, true),
                    Some(Track::Inbound) => tracks.0 = true,
                    Some(Track::Outbound) => tracks.1 = true,
                    None => {}
                }
            }
        }
        Some(_) => return None,
    }
    let empty = Node::Object(Vec::new());
    let format = start.object("mediaFormat")?.unwrap_or(&empty);
    let encoding = format.string("encoding")?;
    let (rate, channels) = (format.number("sampleRate")?, format.number("channels")?);
    let mut parameters = Vec::new();
    let mut dropped = 0;
    if let Some(Node::Object(pairs)) = start.object("customParameters")? {
        for (name, value) in pairs {
            if parameters.len() == PARAMETERS_MAX {
                dropped += 1;
            } else {
                parameters.push((name.clone(), value.text()?.to_owned()));
            }
        }
    }
    Some(Said::Start {
        ids: ids.map(str::to_owned),
        tracks: match tracks {
            (true, true) => Tracks::Both,
            (false, true) => Tracks::One(Track::Outbound),
            _ => Tracks::One(Track::Inbound),
        },
        encoding: encoding.unwrap_or_default().to_owned(),
        supported: encoding.is_none_or(is_known)
            && rate.unwrap_or(8000) <= u64::from(u32::MAX)
            && channels.unwrap_or(1) == 1,
        parameters,
        dropped,
    })
}

fn is_known(encoding: &str) -> bool {
    let name = encoding.split(';').next().unwrap_or_default().to_ascii_lowercase();
    let name = name.split_once('/').map_or(&*name, |(_, behind)| behind).trim();
    let name = name.strip_prefix("x-").unwrap_or(name);
    let all = "mulaw pcmu ulaw mulaw_format alaw pcma alaw_format l16 pcm16 pcm raw slin lpcm16 \
        linear16 linear16_format base64";
    all.split_whitespace().any(|known| known == name)
}

fn track(name: &str) -> Option<Track> {
    match name {
        "inbound" | "inbound_track" => Some(Track::Inbound),
        "outbound" | "outbound_track" => Some(Track::Outbound),
        _ => None,
    }
}

/// JSON as serde_json reads it. An object keeps its members in order, repeated ones included.
enum Node {
    Array(Vec<Node>),
    Integer(u64),
    Null,
    Object(Vec<(String, Node)>),
    /// Fractions, negative numbers, booleans.
    Scalar,
    String(String),
}

impl Node {
    fn depth(&self) -> usize {
        match self {
            Self::Array(items) => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
            Self::Object(pairs) => 1 + pairs.iter().map(|(_, n)| n.depth()).max().unwrap_or(0),
            _ => 0,
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The member of that name, if there is exactly one.
    fn one(&self, name: &str) -> Option<&Node> {
        let Self::Object(pairs) = self else { return None };
        let mut found = pairs.iter().filter(|(key, _)| key == name).map(|(_, node)| node);
        found.next().filter(|_| found.next().is_none())
    }

    /// The member of that name; `Some(None)` if it is absent or null; `None` if it is there twice.
    fn maybe(&self, name: &str) -> Option<Option<&Node>> {
        let Self::Object(pairs) = self else { return None };
        match pairs.iter().filter(|(key, _)| key == name).count() {
            0 => Some(None),
            1 => Some(self.one(name).filter(|node| !matches!(node, Self::Null))),
            _ => None,
        }
    }

    fn object(&self, name: &str) -> Option<Option<&Node>> {
        self.maybe(name).filter(|found| matches!(found, None | Some(Self::Object(_))))
    }

    fn string(&self, name: &str) -> Option<Option<&str>> {
        match self.maybe(name)? {
            None => Some(None),
            Some(node) => node.text().map(Some),
        }
    }

    fn number(&self, name: &str) -> Option<Option<u64>> {
        Some(match self.maybe(name)? {
            Some(Self::Integer(number)) => Some(*number),
            Some(Self::String(digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok()
            }
            _ => None,
        })
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Integer(number))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut found = Vec::new();
        while let Some(item) = items.next_element()? {
            found.push(item);
        }
        Ok(Node::Array(found))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Node, A::Error> {
        let mut found = Vec::new();
        while let Some(pair) = pairs.next_entry()? {
            found.push(pair);
        }
        Ok(Node::Object(found))
    }
}
