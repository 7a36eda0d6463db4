//! Twilio's messages in every legal spelling, and messages that are refused.

use base64::prelude::*;
use callreel_core::format::Format;
use callreel_core::frame::{
    Body, DEPTH_MAX, PARAMETERS_MAX, PeerError, Provider, Track, Tracks, parse,
};
use proptest::prelude::*;

/// A parsed message, owned.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    Connected,
    Dtmf(String),
    Mark(String),
    Media { track: Track, chunk: Option<u64>, timestamp_ms: Option<u64>, codes: Vec<u8> },
    Other,
    Start(Box<Start>),
    Stop,
}

#[derive(Clone, Debug, PartialEq)]
struct Start {
    ids: [String; 3],
    tracks: Tracks,
    encoding: String,
    format: Option<Format>,
    parameters: Vec<(String, String)>,
    dropped: u32,
    odd: u32,
}

fn said(text: &str) -> Result<(Option<u64>, Said), PeerError> {
    let mut text = text.as_bytes().to_vec();
    let frame = parse(Provider::Twilio, &mut text)?;
    let body = match frame.body {
        Body::Connected => Said::Connected,
        Body::Dtmf(dtmf) => Said::Dtmf(dtmf.digit.to_string()),
        Body::Mark(mark) => Said::Mark(mark.name.to_string()),
        Body::Media(media) => Said::Media {
            track: only(media.tracks),
            chunk: media.chunk,
            timestamp_ms: media.timestamp_ms,
            codes: media.bytes.to_vec(),
        },
        Body::Other => Said::Other,
        Body::Rejected(error) => return Err(error),
        Body::Start(start) => Said::Start(Box::new(Start {
            ids: [start.stream_id, start.call_id, start.account_id].map(|id| id.to_string()),
            tracks: start.tracks,
            encoding: start.encoding.to_string(),
            format: start.format,
            parameters: start
                .parameters
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
            dropped: start.parameters_dropped,
            odd: start.odd_fields,
        })),
        Body::Stop => Said::Stop,
        other => unreachable!("Twilio says nothing like {other:?}"),
    };
    Ok((frame.sequence, body))
}

/// The one track of a chunk: Twilio's chunks are never interleaved.
fn only(tracks: Tracks) -> Track {
    let Tracks::One(track) = tracks else { panic!("interleaved") };
    track
}

fn body(text: &str) -> Said {
    said(text).unwrap_or_else(|error| panic!("{error}: {text}")).1
}

fn start(text: &str) -> Start {
    match body(text) {
        Said::Start(start) => *start,
        other => panic!("not a start: {other:?}"),
    }
}

fn refused(text: &str) -> PeerError {
    said(text).expect_err(text)
}

fn audio(track: Track, chunk: u64, timestamp_ms: u64, codes: &[u8]) -> Said {
    let codes = codes.to_vec();
    Said::Media { track, chunk: Some(chunk), timestamp_ms: Some(timestamp_ms), codes }
}

/// A media message in Twilio's own spelling. Every other spelling has to mean the same.
const MEDIA: &str = r#"{"event":"media","sequenceNumber":"3","media":{"track":"outbound","chunk":"2","timestamp":"72","payload":"+/+/gA=="},"streamSid":"MZ1"}"#;

fn meant() -> (Option<u64>, Said) {
    (Some(3), audio(Track::Outbound, 2, 72, &[0xFB, 0xFF, 0xBF, 0x80]))
}

#[test]
fn a_media_message_means_the_same_in_every_legal_spelling() {
    assert_eq!(said(MEDIA), Ok(meant()));
    let spellings = [
        MEDIA.replace(':', " : ").replace(',', "\r\n\t, "),
        format!(" \t\r\n{MEDIA}\n "),
        r#"{"streamSid":"MZ1","media":{"payload":"+/+/gA==","timestamp":"72","chunk":"2","track":"outbound"},"sequenceNumber":"3","event":"media"}"#.to_owned(),
        MEDIA.replace('/', "\\/"),
        MEDIA.replace('+', "\\u002b").replace('=', "\\u003D"),
        MEDIA.replace("payload", "\\u0070ayloa\\u0064").replace("\"media\"", "\"\\u006dedia\""),
        MEDIA.replace("outbound", "o\\u0075tbound").replace("event", "\\u0065vent"),
        MEDIA.replace("outbound", "outbound_track"),
        MEDIA.replace("\"72\"", "72").replace("\"2\"", "2").replace("\"3\"", "3"),
        MEDIA.replace("\"72\"", "\"0072\"").replace("\"2\"", "\"\\u0032\""),
        MEDIA.replace("\"streamSid\"", "\"x\":[{\"y\":\"}\\\"]\"},-1.5e+3,null],\"streamSid\""),
        MEDIA.replace("\"track\"", "\"payloads\":\"no\",\"timestamp_\":9,\"track\""),
        MEDIA.replace("MZ1", "a stream \\\" id\\\\"),
        MEDIA.replace("\"streamSid\":\"MZ1\"", "\"streamSid\":5"),
        MEDIA.replace(",\"streamSid\":\"MZ1\"", ""),
        MEDIA.replace("{\"event\"", "{\"é\\u00e9\":\"\\ud83d\\ude00\",\"event\""),
        MEDIA.replace("\"streamSid\"", "\"start\":null,\"streamSid\""),
    ];
    for spelling in spellings {
        assert_eq!(said(&spelling), Ok(meant()), "{spelling}");
    }
}

#[test]
fn fields_that_are_not_there_are_none() {
    let media = |fields: &str| body(&format!(r#"{{"event":"media","media":{{{fields}}}}}"#));
    let bare = |codes: &[u8]| Said::Media {
        track: Track::Inbound,
        chunk: None,
        timestamp_ms: None,
        codes: codes.to_vec(),
    };
    assert_eq!(media(r#""payload":"gA==""#), bare(&[0x80]));
    assert_eq!(media(""), bare(&[]));
    assert_eq!(media(r#""payload":"""#), bare(&[]));
    assert_eq!(media(r#""payload":null,"track":null,"chunk":null"#), bare(&[]));
    let unknown = start(r#"{"event":"start","start":{}}"#);
    assert_eq!(unknown.ids, ["", "", ""]);
    assert_eq!(unknown.tracks, Tracks::One(Track::Inbound));
    assert!(unknown.format.is_some() && unknown.parameters.is_empty());
    // At the top level, too.
    let beside = start(r#"{"event":"start","streamSid":"MZ9","start":{"customParameters":null}}"#);
    assert_eq!(beside.ids, ["MZ9", "", ""]);
}

#[test]
fn a_sequence_number_of_any_event_counts_as_long_as_it_fits() {
    for event in ["dtmf", "mark", "media", "start", "stop", "weather"] {
        for (number, expected) in [
            (r#""00018446744073709551615""#, Some(u64::MAX)),
            ("14784112115037066581", Some(14_784_112_115_037_066_581)),
            (r#""18446744073709551616""#, None),
            (r#""12a""#, None),
        ] {
            let text = format!(
                r#"{{"event":"{event}","sequenceNumber":{number},"media":{{"payload":"gA=="}}}}"#
            );
            assert_eq!(said(&text).unwrap().0, expected, "{text}");
        }
    }
}

#[test]
fn a_number_that_is_none_is_not_there_and_its_audio_is() {
    for number in [
        "-1",
        "\"-1\"",
        "1.0",
        "1e3",
        "\"\"",
        "\" 1\"",
        "\"1 \"",
        "\"+1\"",
        "\"1_000\"",
        "true",
        "null",
        "[]",
        "[1]",
        "{}",
        "{\"a\":\"1\"}",
        "\"soon\"",
        "18446744073709551616",
        "\"18446744073709551616\"",
        "1e400",
        "\"\\u00b9\"",
        "\"١\"",
    ] {
        let text = MEDIA.replace("\"72\"", number).replace("\"3\"", number);
        let (sequence, body) = said(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let Said::Media { timestamp_ms, codes, .. } = body else { panic!("{text}") };
        assert_eq!((sequence, timestamp_ms, codes.len()), (None, None, 4), "{text}");
    }
    let most = MEDIA.replace("\"72\"", "\"18446744073709551615\"").replace("\"3\"", "0");
    let expected = (Some(0), audio(Track::Outbound, 2, u64::MAX, &[0xFB, 0xFF, 0xBF, 0x80]));
    assert_eq!(said(&most), Ok(expected));
}

#[test]
fn only_base64_without_blanks_stray_bits_and_half_a_padding_is_a_payload() {
    for payload in [
        "A",
        "AAAAA",
        "AA=",
        "A===",
        "====",
        "=",
        "==",
        "AA==AA==",
        "AA==A",
        "gB==",
        "AAB=",
        "AAAA====",
        "AA A",
        " AAAA",
        "AAAA\\n",
        "-_-*",
        "-_-é",
        "AAA*",
        "AA=A",
        "=AAA",
        "AAé=",
        "AAAA\\u0000",
        "\\\\AAA",
        "AA\\u00e9",
        "...",
    ] {
        let text = MEDIA.replace("+/+/gA==", payload);
        assert_eq!(refused(&text), PeerError::Base64, "{payload}");
    }
}

#[test]
fn a_start_tells_what_it_holds() {
    let text = r#"{"event":"start","sequenceNumber":"1","start":{"accountSid":"AC1","streamSid":"MZ1","callSid":"CA1","tracks":["outbound","inbound","side"],"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1},"customParameters":{"a":"b","timestamp":"01","channels":"two","é\n":"\ud83d\ude00\"\/"}},"streamSid":"MZ1"}"#;
    let parameters = [("a", "b"), ("timestamp", "01"), ("channels", "two"), ("é\n", "😀\"/")];
    let expected = Start {
        ids: ["MZ1", "CA1", "AC1"].map(str::to_owned),
        tracks: Tracks::Both,
        encoding: "audio/x-mulaw".to_owned(),
        format: Some(Format::TELEPHONE),
        parameters: parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        dropped: 0,
        odd: 0,
    };
    assert_eq!(said(text), Ok((Some(1), Said::Start(Box::new(expected)))));
}

#[test]
fn tracks_are_what_is_announced_in_any_order() {
    let tracks =
        |names: &str| start(&format!(r#"{{"event":"start","start":{{"tracks":{names}}}}}"#)).tracks;
    assert_eq!(tracks(r#"["inbound"]"#), Tracks::One(Track::Inbound));
    assert_eq!(tracks(r#"["outbound"]"#), Tracks::One(Track::Outbound));
    assert_eq!(tracks(r#"["outbound_track","inbound_track"]"#), Tracks::Both);
    assert_eq!(tracks(r#"["inbound","inbound"]"#), Tracks::One(Track::Inbound));
    assert_eq!(tracks("[]"), Tracks::One(Track::Inbound));
    assert_eq!(tracks(r#"["left"]"#), Tracks::One(Track::Inbound));
    assert_eq!(tracks("null"), Tracks::One(Track::Inbound));
}

#[test]
fn any_format_but_mono_mulaw_at_8_khz_is_unsupported() {
    let supported = |format: &str| {
        let text = format!(r#"{{"event":"start","start":{{"mediaFormat":{{{format}}}}}}}"#);
        start(&text).format == Some(Format::TELEPHONE)
    };
    for format in [
        "",
        r#""encoding":"audio/x-mulaw""#,
        r#""encoding":"AUDIO\/X-MULAW","sampleRate":"8000","channels":"1""#,
        r#""encoding":"audio/pcmu""#,
        r#""encoding":"PCMU","sampleRate":8000"#,
    ] {
        assert!(supported(format), "{format}");
    }
    for format in [
        r#""encoding":"audio/x-l16""#,
        r#""encoding":"audio/x-mulaw","sampleRate":16000"#,
        r#""encoding":"audio/x-mulaw","channels":2"#,
        r#""encoding":"""#,
        r#""encoding":"PCMA""#,
    ] {
        assert!(!supported(format), "{format}");
    }
}

#[test]
fn parameters_beyond_the_first_32_are_counted() {
    let with = |count: usize| {
        let pairs: Vec<_> = (0..count).map(|i| format!(r#""p{i}":"{i}""#)).collect();
        let pairs = pairs.join(",");
        start(&format!(r#"{{"event":"start","start":{{"customParameters":{{{pairs}}}}}}}"#))
    };
    for count in [0, 1, PARAMETERS_MAX - 1, PARAMETERS_MAX, PARAMETERS_MAX + 1, 1000] {
        let start = with(count);
        assert_eq!(start.parameters.len(), count.min(PARAMETERS_MAX));
        assert_eq!(start.dropped as usize, count.saturating_sub(PARAMETERS_MAX));
        for (index, pair) in start.parameters.iter().enumerate() {
            assert_eq!(*pair, (format!("p{index}"), index.to_string()));
        }
    }
}

#[test]
fn the_rare_events_and_those_nobody_knows() {
    assert_eq!(body(r#"{"event":"connected","protocol":"Call"}"#), Said::Connected);
    let dtmf = r#"{"event":"dtmf","dtmf":{"track":"inbound_track","digit":"\u0023"}}"#;
    assert_eq!(body(dtmf), Said::Dtmf("#".to_owned()));
    let mark = r#"{"event":"mark","mark":{"name":"caf\u00e9 \"1\""}}"#;
    assert_eq!(body(mark), Said::Mark("café \"1\"".to_owned()));
    assert_eq!(body(r#"{"event":"stop","stop":{"callSid":"CA1"}}"#), Said::Stop);
    assert_eq!(body(r#"{"event":"st\u006fp"}"#), Said::Stop);
    let weather = r#"{"event":"weather","sequenceNumber":"9","media":"rain","start":[],"mark":1}"#;
    assert_eq!(said(weather), Ok((Some(9), Said::Other)));
    assert_eq!(body(r#"{"event":""}"#), Said::Other);
    assert_eq!(body(r#"{"event":"s\u0000top"}"#), Said::Other);
}

#[test]
fn depth_32_passes_and_33_does_not() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let nested = |depth: usize| {
            let (open, close) = (open.repeat(depth - 1), close.repeat(depth - 1));
            said(&format!(r#"{{"event":"x","a":{open}0{close}}}"#))
        };
        assert_eq!(nested(DEPTH_MAX), Ok((None, Said::Other)));
        assert_eq!(nested(DEPTH_MAX + 1), Err(PeerError::Depth));
    }
    // Brackets in strings are no nesting, nor are closed brackets.
    let flat = format!(r#"{{"event":"x","a":"{}","b":[{}0]}}"#, "[".repeat(99), "[],".repeat(99));
    assert_eq!(body(&flat), Said::Other);
}

#[test]
fn media_with_a_field_of_another_type_or_one_twice_is_refused() {
    for text in [
        r#"{"event":"media","event":"media","media":{}}"#,
        r#"{"event":"media","media":{},"media":{}}"#,
        r#"{"event":"media","media":{"payload":"","pa\u0079load":""}}"#,
        r#"{"event":"media","media":{"track":1}}"#,
        r#"{"event":"media","media":{"payload":1}}"#,
        r#"{"event":"media","media":[]}"#,
        r#"{"event":"media"}"#,
        r#"{"event":1}"#,
        r#"{"event":null}"#,
        r#"{"media":{}}"#,
        r#"{}"#,
        r#"[]"#,
        r#""media""#,
    ] {
        assert_eq!(refused(text), PeerError::Shape, "{text}");
    }
    assert_eq!(refused(&MEDIA.replace("outbound", "sideways")), PeerError::Track);
    // A repeated number is a repeated field, too, unless its value is no number.
    let twice = r#"{"event":"media","media":{"chunk":"1","chunk":2}}"#;
    assert_eq!(refused(twice), PeerError::Shape);
}

#[test]
fn an_odd_field_of_a_start_costs_nothing_but_itself() {
    let plain = r#"{"event":"start","sequenceNumber":"1","start":{"accountSid":"AC1","streamSid":"MZ1","callSid":"CA1","tracks":["outbound"],"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1},"customParameters":{"a":"b"}},"streamSid":"MZ1"}"#;
    let expected = start(plain);
    assert_eq!(expected.odd, 0);
    let fields = [
        ("accountSid", r#""AC1""#),
        ("streamSid", r#""MZ1""#),
        ("callSid", r#""CA1""#),
        ("tracks", r#"["outbound"]"#),
        ("encoding", r#""audio/x-mulaw""#),
        ("sampleRate", "8000"),
        ("channels", "1"),
        ("customParameters", r#"{"a":"b"}"#),
        ("sequenceNumber", r#""1""#),
    ];
    let odd = [
        "true",
        "[1]",
        "{\"x\":[{}]}",
        "-1.5e3",
        "\"\"",
        "null",
        "[]",
        "{}",
        "12345678901234567890123",
    ];
    for (name, value) in fields {
        for other in odd {
            let text =
                plain.replace(&format!("\"{name}\":{value}"), &format!("\"{name}\":{other}"));
            assert_ne!(text, plain);
            let found = start(&text);
            // An empty name is the name of an unknown encoding.
            assert!(found.format.is_some() || (name, other) == ("encoding", "\"\""), "{text}");
            for (index, id) in ["streamSid", "callSid", "accountSid"].into_iter().enumerate() {
                assert!(name == id || found.ids[index] == expected.ids[index], "{text}");
            }
            assert!(name == "tracks" || found.tracks == expected.tracks, "{text}");
            assert!(
                name == "customParameters" || found.parameters == expected.parameters,
                "{text}"
            );
        }
    }
}

#[test]
fn what_is_odd_is_read_as_far_as_it_makes_sense_and_counted() {
    let inner = |fields: &str| start(&format!(r#"{{"event":"start","start":{{{fields}}}}}"#));
    assert_eq!(
        inner(r#""streamSid":1001,"callSid":true,"accountSid":-7.5"#).ids,
        ["1001", "true", "-7.5"]
    );
    assert_eq!(inner(r#""streamSid":1001,"callSid":true,"accountSid":-7.5"#).odd, 3);
    for (tracks, expected) in [
        (r#""outbound""#, Tracks::One(Track::Outbound)),
        (r#""inbound_track""#, Tracks::One(Track::Inbound)),
        (r#""both_tracks""#, Tracks::Both),
        (r#""both""#, Tracks::Both),
        (r#"[1,"outbound",{}]"#, Tracks::One(Track::Outbound)),
        ("5", Tracks::One(Track::Inbound)),
    ] {
        let found = inner(&format!(r#""tracks":{tracks}"#));
        assert_eq!((found.tracks, found.odd > 0), (expected, true), "{tracks}");
    }
    let parameters = |value: &str| inner(&format!(r#""customParameters":{value}"#));
    let texts = [
        ("queue", "sales"),
        ("priority", "5"),
        ("vip", "false"),
        ("none", "null"),
        ("list", "[1,\"a\"]"),
        ("map", "{\"k\":{}}"),
    ];
    let found = parameters(
        r#"{"queue":"sales","priority":5,"vip":false,"none":null,"list":[1,"a"],"map":{"k":{}}}"#,
    );
    assert_eq!(found.parameters, texts.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(found.odd, 5);
    assert_eq!((parameters("[]").parameters, parameters("[]").odd), (vec![], 0));
    assert_eq!((parameters("null").parameters, parameters("null").odd), (vec![], 0));
    for (value, text) in
        [(r#""agent=ada""#, "agent=ada"), ("7", "7"), (r#"[{"a":1}]"#, r#"[{"a":1}]"#)]
    {
        let kept = [("customParameters".to_owned(), text.to_owned())];
        assert_eq!(
            (&parameters(value).parameters[..], parameters(value).odd > 0),
            (&kept[..], true)
        );
    }
    // Fields beside `start`, or with a `start` of another type.
    let beside = r#""streamSid":"MZ1","callSid":"CA1","tracks":["outbound"],"customParameters":{"agent":"ada"}"#;
    for (message, odd) in [
        (format!(r#"{{"event":"start",{beside}}}"#), 0),
        (format!(r#"{{"event":"start","start":null,{beside}}}"#), 0),
        (format!(r#"{{"event":"start","start":"x",{beside}}}"#), 1),
        (format!(r#"{{"event":"start","start":[{{}}],{beside}}}"#), 1),
        (format!(r#"{{"event":"start","start":{{"customParameters":{{}}}},{beside}}}"#), 0),
    ] {
        let found = start(&message);
        assert_eq!(found.ids, ["MZ1", "CA1", ""], "{message}");
        assert_eq!(found.tracks, Tracks::One(Track::Outbound), "{message}");
        assert_eq!(found.parameters, [("agent".to_owned(), "ada".to_owned())], "{message}");
        assert_eq!(found.odd, odd, "{message}");
    }
    // Of a repeated field the last counts, as everywhere in a start.
    assert_eq!(inner(r#""callSid":"a","callSid":"b""#).ids[1], "b");
    // Keys and marks that lack their name.
    assert_eq!(body(r#"{"event":"dtmf","dtmf":{"digit":5}}"#), Said::Dtmf("5".to_owned()));
    assert_eq!(body(r#"{"event":"dtmf","dtmf":{}}"#), Said::Dtmf(String::new()));
    assert_eq!(body(r#"{"event":"mark","mark":{}}"#), Said::Mark(String::new()));
    assert_eq!(body(r#"{"event":"mark"}"#), Said::Mark(String::new()));
}

#[test]
fn a_message_names_its_stream() {
    let named = |text: &str| {
        let mut text = text.as_bytes().to_vec();
        String::from_utf8_lossy(parse(Provider::Twilio, &mut text).unwrap().stream_id).into_owned()
    };
    assert_eq!(named(MEDIA), "MZ1");
    assert_eq!(named(&MEDIA.replace(':', " : ")), "MZ1");
    assert_eq!(named(&MEDIA.replace("+/+/gA==", "!")), "MZ1");
    assert_eq!(named(r#"{"streamSid":"MZ2","event":"media","media":{"payload":"gA=="}}"#), "MZ2");
    assert_eq!(named(r#"{"event":"media","media":{"payload":"gA=="},"streamSid":7}"#), "7");
    for none in ["null", "[]", "{}"] {
        let text =
            format!(r#"{{"event":"media","streamSid":{none},"media":{{"payload":"gA=="}}}}"#);
        assert_eq!(named(&text), "");
    }
    assert_eq!(named(r#"{"event":"stop","streamSid":"MZ3"}"#), "MZ3");
    assert_eq!(named(r#"{"event":"start","start":{"streamSid":"MZ4"},"streamSid":"x"}"#), "MZ4");
}

#[test]
fn a_byte_order_mark_is_a_blank() {
    assert_eq!(said(&format!("\u{feff}{MEDIA}")), Ok(meant()));
    assert_eq!(refused(&format!("{MEDIA}\u{feff}")), PeerError::Json);
}

#[test]
fn what_is_cut_or_goes_on_is_not_json() {
    for end in 1..MEDIA.len() {
        assert!(said(&MEDIA[..end]).is_err(), "{}", &MEDIA[..end]);
    }
    for more in ["x", "}", "{}", "\"", ",", "\0", "\u{feff}"] {
        assert_eq!(refused(&format!("{MEDIA}{more}")), PeerError::Json);
        assert_eq!(refused(&format!("{{\"event\":\"stop\"}}{more}")), PeerError::Json);
    }
}

proptest! {
    #[test]
    fn the_exact_spelling_and_the_parser_read_the_same(
        numbers in any::<[u64; 3]>(),
        outbound in any::<bool>(),
        codes in proptest::collection::vec(any::<u8>(), 0..400),
        id in "[A-Za-z0-9-]{0,40}",
    ) {
        let [sequence, chunk, timestamp] = numbers.map(|n| n >> (n % 61));
        let track = if outbound { "outbound" } else { "inbound" };
        let payload = BASE64_STANDARD.encode(&codes);
        let exact = format!(
            r#"{{"event":"media","sequenceNumber":"{sequence}","media":{{"track":"{track}","chunk":"{chunk}","timestamp":"{timestamp}","payload":"{payload}"}},"streamSid":"{id}"}}"#
        );
        let found = said(&exact);
        // A trailing blank is enough to leave the message to the parser.
        prop_assert_eq!(&said(&format!("{exact} ")), &found);
        let track = if outbound { Track::Outbound } else { Track::Inbound };
        prop_assert_eq!(found, Ok((Some(sequence), audio(track, chunk, timestamp, &codes))));
    }

    #[test]
    fn one_changed_byte_is_read_alike_by_the_exact_spelling_and_the_parser(
        place in 0..MEDIA.len(),
        byte in 0..128u8,
    ) {
        let mut changed = MEDIA.as_bytes().to_vec();
        changed[place] = byte;
        let changed = String::from_utf8(changed).unwrap();
        prop_assert_eq!(said(&changed), said(&format!(" {changed}")));
    }

    #[test]
    fn a_payload_is_read_exactly_when_the_base64_crate_reads_it(payload in "[AQgwB/+_=-]{0,13}") {
        let usual = payload.replace('-', "+").replace('_', "/");
        let expected = BASE64_STANDARD.decode(&usual);
        let expected = expected.or_else(|_| BASE64_STANDARD_NO_PAD.decode(&usual));
        let expected = expected.map_err(|_| PeerError::Base64);
        let found = said(&MEDIA.replace("+/+/gA==", &payload)).map(|(_, body)| match body {
            Said::Media { codes, .. } => codes,
            other => panic!("{other:?}"),
        });
        prop_assert_eq!(found, expected);
    }
}
