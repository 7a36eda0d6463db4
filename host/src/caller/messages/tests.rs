//! Messages of public logs, vendors' documents and vendors' own programs, with their ids replaced; see
//! `tests/fixtures/README.md` for the kinds of sources.

use data_encoding::BASE64;

use super::*;
use crate::caller::DialledTracks;

mod later;

/// Messages with the ids account, call, stream and session.
fn of(name: &str, rate_hz: u32, ids: [&str; 4], parameters: &[(&str, &str)]) -> Messages {
    with_tracks(name, rate_hz, ids, parameters, DialledTracks::Inbound)
}

fn with_tracks(
    name: &str,
    rate_hz: u32,
    ids: [&str; 4],
    parameters: &[(&str, &str)],
    tracks: DialledTracks,
) -> Messages {
    let look = Look::named(name).unwrap();
    let [account_sid, call_sid, stream_sid, session] = ids.map(str::to_owned);
    let text = |text: &str| text.to_owned();
    let parameters = parameters.iter().map(|(name, value)| (text(name), text(value))).collect();
    let facts = Facts {
        look,
        stride: look.stride(None, Some(rate_hz)).unwrap(),
        tracks: tracks.as_slice(),
        parameters,
        is_stream_named: false,
    };
    Messages::new(facts, Ids { account_sid, call_sid, stream_sid, session })
}

fn text(message: &[u8]) -> String {
    String::from_utf8(message.to_vec()).unwrap()
}

#[test]
fn twilios_messages_equal_the_captured_ones_byte_for_byte() {
    let ids = [
        "AC746cf1fafe4b7ce2557345ffa29c748a",
        "CAd7e3cb755dc106a0688e367b0d5f5668",
        "MZ8993907d76ad521d2bfb945804e17b8f",
        "",
    ];
    let mut messages = of("twilio", 8000, ids, &[]);
    let payload = "f39///////9/f39/f3//f3///v///////////39/f3///3//f39/f////3//f3///////39/f39//39/f39/f39//3//f////////39/fn9/f/9/f39/f3//f39/f/9//////3///////////39/f/////9/////////////f39/f39//39//3///3//////f39/f39///9/f39//39/fw==";
    let audio = BASE64.decode(payload.as_bytes()).unwrap();
    assert_eq!(audio.len(), 160);
    let said = text(messages.connected());
    assert_eq!(said, r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#);
    let said = text(messages.start());
    assert_eq!(
        said,
        r#"{"event":"start","sequenceNumber":"1","start":{"accountSid":"AC746cf1fafe4b7ce2557345ffa29c748a","streamSid":"MZ8993907d76ad521d2bfb945804e17b8f","callSid":"CAd7e3cb755dc106a0688e367b0d5f5668","tracks":["inbound"],"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1},"customParameters":{}},"streamSid":"MZ8993907d76ad521d2bfb945804e17b8f"}"#
    );
    let said = text(messages.media(Track::Inbound, 155, &audio));
    let expected = r#"{"event":"media","sequenceNumber":"2","media":{"track":"inbound","chunk":"1","timestamp":"155","payload":"PAYLOAD"},"streamSid":"MZ8993907d76ad521d2bfb945804e17b8f"}"#;
    assert_eq!(said, expected.replace("PAYLOAD", payload));
    messages.lose(Track::Inbound, 375);
    let said = text(messages.stop("end"));
    assert_eq!(
        said,
        r#"{"event":"stop","sequenceNumber":"378","streamSid":"MZ8993907d76ad521d2bfb945804e17b8f","stop":{"accountSid":"AC746cf1fafe4b7ce2557345ffa29c748a","callSid":"CAd7e3cb755dc106a0688e367b0d5f5668"}}"#
    );
}

#[test]
fn marks_parameters_and_digits_equal_the_captured_and_documented_ones() {
    let ids = ["AC1", "CA1", "9e7ee906-377b-408f-a852-eebfb834422a", ""];
    let parameters = [("hello", "Hello\"Value")];
    let mut messages = with_tracks("twilio", 8000, ids, &parameters, DialledTracks::Both);
    let start = text(messages.start());
    assert!(start.contains(r#""tracks":["inbound","outbound"],"#), "{start}");
    assert!(start.contains(r#""customParameters":{"hello":"Hello\"Value"}},"#), "{start}");
    messages.lose(Track::Inbound, 101);
    let said = text(messages.mark("Repeat message 0"));
    assert_eq!(
        said,
        r#"{"event":"mark","sequenceNumber":"103","streamSid":"9e7ee906-377b-408f-a852-eebfb834422a","mark":{"name":"Repeat message 0"}}"#
    );
    let said = text(messages.dtmf('1'));
    assert_eq!(
        said,
        r#"{"event":"dtmf","streamSid":"9e7ee906-377b-408f-a852-eebfb834422a","sequenceNumber":"104","dtmf":{"track":"inbound_track","digit":"1"}}"#
    );
}

#[test]
fn tracks_share_the_sequence_and_count_their_own_chunks() {
    let mut messages =
        with_tracks("twilio", 8000, ["AC1", "CA1", "MZ1", ""], &[], DialledTracks::Both);
    messages.start();
    messages.media(Track::Inbound, 52, &[0xFF]);
    let outbound = text(messages.media(Track::Outbound, 52, &[0xFF]));
    assert_eq!(
        outbound,
        r#"{"event":"media","sequenceNumber":"3","media":{"track":"outbound","chunk":"1","timestamp":"52","payload":"/w=="},"streamSid":"MZ1"}"#
    );
}

#[test]
fn telnyxs_messages_equal_the_documented_ones() {
    let ids = [
        "3E6F995F-85F7-4705-9741-53B116D28237",
        "v2:T02llQxIyaRkhfRKxgAP8nY511EhFLizdvdUKJiSw8d6A9BborherQ",
        "32DE0DEA-53CB-4B21-89A4-9E1819C043BC",
        "ff55a038-6f5d-11ef-9692-02420aeffb1f",
    ];
    let mut messages = of("telnyx", 8000, ids, &[("customer_id", "customer_123")]);
    assert_eq!(text(messages.connected()), r#"{"event":"connected","version":"1.0.0"}"#);
    assert_eq!(
        text(messages.start()),
        r#"{"event":"start","sequence_number":"1","stream_id":"32DE0DEA-53CB-4B21-89A4-9E1819C043BC","start":{"user_id":"3E6F995F-85F7-4705-9741-53B116D28237","call_control_id":"v2:T02llQxIyaRkhfRKxgAP8nY511EhFLizdvdUKJiSw8d6A9BborherQ","call_session_id":"ff55a038-6f5d-11ef-9692-02420aeffb1f","from":"+14155550194","to":"+14155550156","tags":["TAG1","TAG2"],"client_state":"aGF2ZSBhIG5pY2UgZGF5ID1d","custom_parameters":{"customer_id":"customer_123"},"media_format":{"encoding":"PCMU","sample_rate":8000,"channels":1}}}"#
    );
    assert_eq!(
        text(messages.media(Track::Inbound, 5, &[0xD5, 0xD5, 0xD5])),
        r#"{"event":"media","sequence_number":"2","media":{"track":"inbound","chunk":"1","timestamp":"5","payload":"1dXV"},"stream_id":"32DE0DEA-53CB-4B21-89A4-9E1819C043BC"}"#
    );
    messages.lose(Track::Inbound, 2);
    assert_eq!(
        text(messages.mark("some_mark_name")),
        r#"{"event":"mark","stream_id":"32DE0DEA-53CB-4B21-89A4-9E1819C043BC","sequence_number":"5","mark":{"name":"some_mark_name"}}"#
    );
    assert_eq!(
        text(messages.stop("end")),
        r#"{"event":"stop","sequence_number":"6","stop":{"user_id":"3E6F995F-85F7-4705-9741-53B116D28237","call_control_id":"v2:T02llQxIyaRkhfRKxgAP8nY511EhFLizdvdUKJiSw8d6A9BborherQ"},"stream_id":"32DE0DEA-53CB-4B21-89A4-9E1819C043BC"}"#
    );
    let dtmf = text(messages.dtmf('1'));
    assert!(dtmf.starts_with(r#"{"event":"dtmf","stream_id":"32DE0DEA-53CB-4B21-89A4-9E1819C043BC","occurred_at":"20"#), "{dtmf}");
    assert!(dtmf.ends_with(r#"Z","sequence_number":"7","dtmf":{"digit":"1"}}"#), "{dtmf}");
}

#[test]
fn plivos_messages_equal_the_documented_ones_and_vobizs_too() {
    let ids = [
        "MAXXXXXXXXXXXXXXXXXX",
        "12345678-1234-1234-1234-123456789abc",
        "87654321-4321-4321-4321-cba987654321",
        "",
    ];
    let mut messages = of("plivo", 8000, ids, &[("userId", "12345"), ("sessionId", "abc-xyz")]);
    messages.begun_ms = 1_705_312_200_000;
    assert_eq!(messages.connected(), b"");
    assert_eq!(
        text(messages.start()),
        r#"{"event":"start","sequenceNumber":1,"start":{"callId":"12345678-1234-1234-1234-123456789abc","streamId":"87654321-4321-4321-4321-cba987654321","accountId":"MAXXXXXXXXXXXXXXXXXX","tracks":["inbound"],"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000}},"extra_headers":"userId=12345;sessionId=abc-xyz"}"#
    );
    messages.lose(Track::Inbound, 40);
    assert_eq!(
        text(messages.media(Track::Inbound, 0, &[255; 3])),
        r#"{"event":"media","sequenceNumber":42,"streamId":"87654321-4321-4321-4321-cba987654321","media":{"track":"inbound","timestamp":"1705312200000","chunk":41,"payload":"////"},"extra_headers":"userId=12345;sessionId=abc-xyz"}"#
    );
    messages.lose(Track::Inbound, 7);
    messages.last_time_ms = 50_000;
    assert_eq!(
        text(messages.dtmf('5')),
        r#"{"event":"dtmf","sequenceNumber":50,"streamId":"87654321-4321-4321-4321-cba987654321","dtmf":{"track":"inbound","digit":"5","timestamp":"1705312250000"}}"#
    );
    messages.lose(Track::Inbound, 24);
    assert_eq!(
        text(messages.mark("c1")),
        r#"{"event":"playedStream","sequenceNumber":75,"streamId":"87654321-4321-4321-4321-cba987654321","name":"c1"}"#
    );
    assert_eq!(messages.stop("end"), b"");

    let ids = [
        "500025",
        "5401fd2e-6344-40df-a22c-c8ffea7a92e7",
        "c4dfd815-a92a-4140-ab85-5ff28c004116",
        "",
    ];
    let mut messages = of("vobiz", 16_000, ids, &[]);
    messages.begun_ms = 1_778_597_597_091;
    assert_eq!(
        text(messages.start()),
        r#"{"sequenceNumber":0,"event":"start","start":{"callId":"5401fd2e-6344-40df-a22c-c8ffea7a92e7","streamId":"c4dfd815-a92a-4140-ab85-5ff28c004116","accountId":"500025","tracks":["inbound"],"mediaFormat":{"encoding":"audio/x-l16","sampleRate":16000}},"extra_headers":"{}"}"#
    );
    messages.lose(Track::Inbound, 1);
    assert_eq!(
        text(messages.media(Track::Inbound, 0, &[0, 0, 0])),
        r#"{"sequenceNumber":2,"streamId":"c4dfd815-a92a-4140-ab85-5ff28c004116","event":"media","media":{"track":"inbound","timestamp":"1778597597091","chunk":2,"payload":"AAAA"},"extra_headers":"{}"}"#
    );
    assert_eq!(
        text(messages.mark("response-3")),
        r#"{"event":"playedStream","name":"response-3"}"#
    );
    let mut messages = of("vobiz", 16_000, ids, &[("a", "b")]);
    assert!(text(messages.start()).ends_with(r#""extra_headers":"{\"a\":\"b\"}"}"#));
}

#[test]
fn signalwires_messages_equal_the_documented_ones() {
    let ids = [
        "b08dacad-2f6c-4de1-93d6-cc732e0c0001",
        "76ac3c36-56da-4a3e-a0d6-b5f8df6d0001",
        "7d56cc11-536d-4a45-b4fb-ed3d55be0001",
        "",
    ];
    let mut messages = of("signalwire", 24_000, ids, &[]);
    assert_eq!(
        text(messages.connected()),
        r#"{"event":"connected","protocol":"Call","version":"0.2.0"}"#
    );
    assert_eq!(
        text(messages.start()),
        r#"{"event":"start","sequenceNumber":"1","start":{"streamSid":"7d56cc11-536d-4a45-b4fb-ed3d55be0001","accountSid":"b08dacad-2f6c-4de1-93d6-cc732e0c0001","callSid":"76ac3c36-56da-4a3e-a0d6-b5f8df6d0001","tracks":["inbound"],"customParameters":{},"mediaFormat":{"encoding":"audio/x-L16","sampleRate":24000,"channels":1}}}"#
    );
    messages.next_number = 42;
    assert_eq!(
        text(messages.media(Track::Inbound, 0, &[255; 3])),
        r#"{"event":"media","sequenceNumber":"42","media":{"track":"inbound","chunk":"1","timestamp":"0","payload":"////"}}"#
    );
    messages.next_number = 123;
    assert_eq!(
        text(messages.dtmf('5')),
        r#"{"event":"dtmf","sequenceNumber":"123","streamSid":"7d56cc11-536d-4a45-b4fb-ed3d55be0001","dtmf":{"digit":"5","duration":2000}}"#
    );
    assert_eq!(
        text(messages.mark("my-custom-mark")),
        r#"{"event":"mark","streamSid":"7d56cc11-536d-4a45-b4fb-ed3d55be0001","mark":{"name":"my-custom-mark"}}"#
    );
    messages.next_number = 999;
    assert_eq!(text(messages.stop("end")), r#"{"event":"stop","sequenceNumber":"999"}"#);
}

#[test]
fn the_messages_of_exotel_bandwidth_voximplant_and_wavix_equal_the_documented_ones() {
    let ids = [
        "ACxxxxxxxxxxxxxxxxxxxxxxxx",
        "CAxxxxxxxxxxxxxxxxxxxxxxxx",
        "MZxxxxxxxxxxxxxxxxxxxxxxxx",
        "",
    ];
    let mut messages = of("exotel", 8000, ids, &[("key1", "value1")]);
    assert_eq!(text(messages.connected()), r#"{"event":"connected"}"#);
    assert_eq!(
        text(messages.start()),
        r#"{"event":"start","sequence_number":"1","stream_sid":"MZxxxxxxxxxxxxxxxxxxxxxxxx","start":{"stream_sid":"MZxxxxxxxxxxxxxxxxxxxxxxxx","call_sid":"CAxxxxxxxxxxxxxxxxxxxxxxxx","account_sid":"ACxxxxxxxxxxxxxxxxxxxxxxxx","from":"+915550143210","to":"+915550191899","custom_parameters":{"key1":"value1"},"media_format":{"encoding":"audio/x-raw","sample_rate":"8000","bit_rate":"16"}}}"#
    );
    messages.lose(Track::Inbound, 1);
    assert_eq!(
        text(messages.media(Track::Inbound, 200, &[0; 3])),
        r#"{"event":"media","sequence_number":"3","stream_sid":"MZxxxxxxxxxxxxxxxxxxxxxxxx","media":{"chunk":"2","timestamp":"200","payload":"AAAA"}}"#
    );
    messages.lose(Track::Inbound, 3);
    assert_eq!(
        text(messages.dtmf('5')),
        r#"{"event":"dtmf","sequence_number":"7","stream_sid":"MZxxxxxxxxxxxxxxxxxxxxxxxx","dtmf":{"digit":"5","duration":"100"}}"#
    );

    let ids = [
        "5500001",
        "c-11111111-22222222-3333-4444-5555-666666660001",
        "s-11111111-22222222-3333-4444-5555-666666660001",
        "",
    ];
    let parameters = [("internal_id", "call_ABC")];
    let mut messages = with_tracks("bandwidth", 8000, ids, &parameters, DialledTracks::Both);
    assert_eq!(
        text(messages.start()),
        r#"{"eventType":"start","metadata":{"accountId":"5500001","callId":"c-11111111-22222222-3333-4444-5555-666666660001","streamId":"s-11111111-22222222-3333-4444-5555-666666660001","streamName":"live_audience","tracks":[{"name":"inbound","mediaFormat":{"encoding":"PCMU","sampleRate":8000}},{"name":"outbound","mediaFormat":{"encoding":"PCMU","sampleRate":8000}}]},"streamParams":{"internal_id":"call_ABC"}}"#
    );
    assert_eq!(
        text(messages.media(Track::Outbound, 0, &[255; 3])),
        r#"{"eventType":"media","track":"outbound","payload":"////"}"#
    );
    assert_eq!(
        text(messages.stop("end")),
        r#"{"eventType":"stop","metadata":{"accountId":"5500001","callId":"c-11111111-22222222-3333-4444-5555-666666660001","streamId":"s-11111111-22222222-3333-4444-5555-666666660001","streamName":"live_audience","tracks":[{"name":"inbound","mediaFormat":{"encoding":"PCMU","sampleRate":8000}},{"name":"outbound","mediaFormat":{"encoding":"PCMU","sampleRate":8000}}]}}"#
    );

    let mut messages = of("voximplant", 16_000, ["", "", "T1", ""], &[]);
    assert_eq!(
        text(messages.start()),
        r#"{"event":"start","sequenceNumber":0,"start":{"mediaFormat":{"encoding":"PCM16","sampleRate":16000},"customParameters":{}}}"#
    );
    messages.next_number = 2;
    assert_eq!(
        text(messages.media(Track::Inbound, 5, &[0; 3])),
        r#"{"event":"media","sequenceNumber":2,"media":{"chunk":1,"timestamp":5,"payload":"AAAA"}}"#
    );
    messages.next_number = 777;
    messages.audio_bytes = 124 * 32_000;
    assert_eq!(
        text(messages.stop("end")),
        r#"{"event":"stop","sequenceNumber":777,"stop":{"mediaInfo":{"bytesSent":3968000,"duration":124}}}"#
    );
    messages.facts.is_stream_named = true;
    assert!(text(messages.start()).contains(r#""start":{"tag":"T1","mediaFormat":"#));

    let mut messages = of("wavix", 24_000, ["", "abc-123", "str-456", ""], &[]);
    let timeless = |said: &[u8]| {
        let said = text(said);
        let at = said.find(r#""event_time":""#).unwrap() + 14;
        assert!(said[at..].starts_with("20") && said[at + 19..].starts_with(r#"Z""#), "{said}");
        format!("{}TIME{}", &said[..at], &said[at + 20..])
    };
    assert_eq!(timeless(messages.connected()), r#"{"event":"connected","event_time":"TIME"}"#);
    assert_eq!(
        timeless(messages.start()),
        r#"{"event":"start","event_time":"TIME","call_id":"abc-123","stream_id":"str-456","stream_type":"twoway","channel":"both","sequence_number":1}"#
    );
    assert_eq!(
        timeless(messages.media(Track::Inbound, 0, &[0; 3])),
        r#"{"event":"media","event_time":"TIME","call_id":"abc-123","stream_id":"str-456","sequence_number":2,"media":{"payload":"AAAA","track":"inbound","timestamp":480,"chunk":1}}"#
    );
    messages.next_number = 10;
    assert_eq!(
        timeless(messages.mark("end-of-greeting")),
        r#"{"event":"mark","event_time":"TIME","call_id":"abc-123","stream_id":"str-456","sequence_number":10,"mark":{"name":"end-of-greeting"}}"#
    );
    messages.next_number = 100;
    assert_eq!(
        timeless(messages.stop("end")),
        r#"{"event":"stop","event_time":"TIME","call_id":"abc-123","stream_id":"str-456","sequence_number":100}"#
    );
}

#[test]
fn the_messages_of_twilios_clones_equal_those_of_their_users_and_programs() {
    let ids = [
        "AC00000000000000000000000000000001",
        "CA00000000000000000000000000000001",
        "MZ00000000000000000000000000000001",
        "00000000000000000000000000000001",
    ];
    let mut messages = of("cloudonix", 8000, ids, &[]);
    messages.start();
    assert_eq!(
        text(messages.media(Track::Inbound, 20, &[255; 3])),
        r#"{"event":"media","sequenceNumber":"2","media":{"track":"inbound","chunk":1,"timestamp":"20","payload":"////"},"streamSid":"MZ00000000000000000000000000000001"}"#
    );
    assert_eq!(
        text(messages.stop("end")),
        r#"{"event":"stop","sequenceNumber":"3","stop":{"accountSid":"AC00000000000000000000000000000001","callSid":"CA00000000000000000000000000000001","session":"00000000000000000000000000000001"},"streamSid":"MZ00000000000000000000000000000001"}"#
    );
    let mut messages = of("smartflo", 8000, ids, &[]);
    assert_eq!(
        text(messages.start()),
        r#"{"event":"start","sequenceNumber":"1","start":{"streamSid":"MZ00000000000000000000000000000001","accountSid":"AC00000000000000000000000000000001","callSid":"CA00000000000000000000000000000001","from":"15555550123","to":"18005550199","direction":"inbound","mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"bitRate":64,"bitDepth":8},"customParameters":{}},"streamSid":"MZ00000000000000000000000000000001"}"#
    );
    let mut messages = of("2600hz", 8000, ids, &[]);
    assert_eq!(
        text(messages.start()),
        r#"{"event":"start","sequenceNumber":"1","start":{"accountSid":"AC00000000000000000000000000000001","streamSid":"MZ00000000000000000000000000000001","callSid":"CA00000000000000000000000000000001","tracks":["inbound"],"mediaFormat":{"encoding":"audio/L16","sampleRate":8000,"channels":1}},"streamSid":"MZ00000000000000000000000000000001"}"#
    );

    let ids = [
        "c4612957-0000-4000-8000-000000000001",
        "21fb5eee-0000-4000-8000-000000000001",
        "5cc20000-0000-4000-8000-000000000001",
        "",
    ];
    let mut messages = of("somleng", 8000, ids, &[("foo", "bar")]);
    assert_eq!(
        text(messages.connected()),
        "{ \n    \"event\": \"connected\",\n    \"protocol\": \"Call\", \n    \"version\": \"1.0.0\"\n  }"
    );
    assert_eq!(
        text(messages.start()),
        r#"{"event": "start","sequenceNumber": "1","start": {"accountSid": "c4612957-0000-4000-8000-000000000001","callSid": "21fb5eee-0000-4000-8000-000000000001","streamSid": "5cc20000-0000-4000-8000-000000000001","tracks": ["inbound"],"mediaFormat": {"encoding": "audio/x-mulaw","sampleRate": 8000,"channels": 1}},"customParameters": {"foo":"bar"},"streamSid": "5cc20000-0000-4000-8000-000000000001"}"#
    );
    assert_eq!(
        text(messages.media(Track::Inbound, 21, &[255; 3])),
        r#"{ "event": "media","sequenceNumber": "2","media": {"track": "inbound","chunk": "1","timestamp": "21","payload": "////"},"streamSid": "5cc20000-0000-4000-8000-000000000001"}"#
    );
    assert_eq!(
        text(messages.dtmf('5')),
        r#"{"event": "dtmf","streamSid":"5cc20000-0000-4000-8000-000000000001","sequenceNumber":"3","dtmf": { "track":"inbound_track","digit": "5"}}"#
    );
    assert_eq!(
        text(messages.stop("end")),
        r#"{"event": "stop","sequenceNumber": "4","stop": {"accountSid": "c4612957-0000-4000-8000-000000000001","callSid": "21fb5eee-0000-4000-8000-000000000001"},"streamSid": "5cc20000-0000-4000-8000-000000000001"}"#
    );
}

#[test]
fn the_control_messages_of_binary_providers_equal_those_of_their_programs() {
    let mut messages =
        of("vonage", 16_000, [""; 4], &[("language", "en-GB"), ("caller-id", "xxx")]);
    assert_eq!(
        text(messages.start()),
        r#"{"event":"websocket:connected","content-type":"audio/l16;rate=16000","language":"en-GB","caller-id":"xxx"}"#
    );
    assert_eq!(
        text(messages.dtmf('5')),
        r#"{"event":"websocket:dtmf","digit":"5","duration":260}"#
    );
    assert_eq!(
        text(messages.mark("m7")),
        r#"{"event":"websocket:notify","payload":{"name":"m7"}}"#
    );
    assert_eq!(messages.media(Track::Inbound, 0, &[1, 2]), [1, 2]);

    let ids = [
        "9351f46a-0000-4000-8000-000000000001",
        "1d1c3b5e-0000-4000-8000-000000000001",
        "f0c2e5d0-0000-123c-0000-000000000001",
        "0e0681b0-0000-4000-8000-000000000001",
    ];
    let mut messages = with_tracks("jambonz", 8000, ids, &[("tag", "k=v")], DialledTracks::Both);
    assert_eq!(
        text(messages.start()),
        r#"{"sampleRate":8000,"mixType":"stereo","callSid":"1d1c3b5e-0000-4000-8000-000000000001","direction":"inbound","from":"15555550123","to":"18005550199","callId":"f0c2e5d0-0000-123c-0000-000000000001","sbcCallid":"0000000001@192.0.2.10","sipStatus":200,"sipReason":"OK","callStatus":"in-progress","callerId":"","accountSid":"9351f46a-0000-4000-8000-000000000001","traceId":"00000000000000000000000000000001","applicationSid":"0e0681b0-0000-4000-8000-000000000001","fsSipAddress":"192.0.2.20:5060","originatingSipIp":"192.0.2.30","tag":"k=v"}"#
    );
    assert_eq!(text(messages.dtmf('5')), r#"{"event":"dtmf","dtmf":"5","duration":"2080"}"#);
    assert_eq!(
        text(messages.mark("m1")),
        r#"{"type":"mark","data":{"name":"m1","event":"playout"}}"#
    );

    let ids = ["", "rec-1764200000.42", "32966726-0000-4000-8000-000000000001", "0x7f0000000001"];
    let mut messages = of("asterisk", 16_000, ids, &[]);
    assert_eq!(
        text(messages.start()),
        "MEDIA_START connection_id:32966726-0000-4000-8000-000000000001 channel:WebSocket/rec/0x7f0000000001 channel_id:rec-1764200000.42 format:slin16 optimal_frame_size:640 ptime:20"
    );
    assert_eq!(text(messages.dtmf('5')), "DTMF_END digit:5 channel_id:rec-1764200000.42");
    assert_eq!(text(messages.mark("m1")), "MEDIA_MARK_PROCESSED m1");
    let mut messages = of("asterisk-json", 8000, ids, &[]);
    assert_eq!(
        text(messages.start()),
        r#"{"event":"MEDIA_START","connection_id":"32966726-0000-4000-8000-000000000001","channel":"WebSocket/rec/0x7f0000000001","channel_id":"rec-1764200000.42","format":"ulaw","optimal_frame_size":160,"ptime":20,"channel_variables":{"DIALEDPEERNUMBER":"rec/c(ulaw)","MEDIA_WEBSOCKET_CONNECTION_ID":"32966726-0000-4000-8000-000000000001","MEDIA_WEBSOCKET_OPTIMAL_FRAME_SIZE":"160"}}"#
    );
    assert_eq!(
        text(messages.dtmf('5')),
        r#"{"event":"DTMF_END","channel_id":"rec-1764200000.42","digit":"5"}"#
    );
}

#[test]
fn the_conversation_of_genesys_is_spelled_like_that_of_its_own_client() {
    use crate::caller::looks::genesys::{DISCARDED, ERROR, PAUSED, PING, PING_WITH_TIME, RESUMED};
    let ids = [
        "d7934305-0972-4844-938e-9060eef7d001",
        "090eaa2f-72fa-480a-83e0-8667ff890001",
        "e160e428-53b8-487c-a110-8b2c1e2f0001",
        "883efee8-3d6c-4537-b500-6d7ca4b90001",
    ];
    let mut messages = with_tracks("genesys", 8000, ids, &[], DialledTracks::Both);
    assert_eq!(
        text(messages.start()),
        r#"{"version":"2","type":"open","id":"e160e428-53b8-487c-a110-8b2c1e2f0001","seq":1,"serverseq":0,"position":"PT0S","parameters":{"organizationId":"d7934305-0972-4844-938e-9060eef7d001","conversationId":"090eaa2f-72fa-480a-83e0-8667ff890001","participant":{"id":"883efee8-3d6c-4537-b500-6d7ca4b90001","ani":"+1-555-555-0123","aniName":"John Doe","dnis":"+1-800-555-0199"},"media":[{"type":"audio","format":"PCMU","channels":["external","internal"],"rate":8000},{"type":"audio","format":"PCMU","channels":["external"],"rate":8000},{"type":"audio","format":"PCMU","channels":["internal"],"rate":8000}]}}"#
    );
    let head = r#"{"version":"2","type":"TYPE","id":"e160e428-53b8-487c-a110-8b2c1e2f0001","seq":"#;
    for (number, heard, samples, template, own, expected) in [
        (
            2,
            1,
            8000,
            PING,
            &[][..],
            ("ping", r#"2,"serverseq":1,"position":"PT1S","parameters":{}}"#),
        ),
        (
            3,
            2,
            8000,
            PING_WITH_TIME,
            &[("rtt", "PT0.003269937S")],
            ("ping", r#"3,"serverseq":2,"position":"PT1S","parameters":{"rtt":"PT0.003269937S"}}"#),
        ),
        (
            2,
            2,
            4800,
            PAUSED,
            &[],
            ("paused", r#"2,"serverseq":2,"position":"PT0.6S","parameters":{}}"#),
        ),
        (
            5,
            5,
            12_800,
            RESUMED,
            &[("from", "PT0.6S"), ("discarded", "PT1S")],
            (
                "resumed",
                r#"5,"serverseq":5,"position":"PT1.6S","parameters":{"start":"PT0.6S","discarded":"PT1S"}}"#,
            ),
        ),
        (
            2,
            1,
            8000,
            DISCARDED,
            &[("from", "PT0S"), ("discarded", "PT1S")],
            (
                "discarded",
                r#"2,"serverseq":1,"position":"PT1S","parameters":{"start":"PT0S","discarded":"PT1S"}}"#,
            ),
        ),
        (
            2,
            0,
            0,
            ERROR,
            &[("reason", "Open transaction timeout")],
            (
                "error",
                r#"2,"serverseq":0,"position":"PT0S","parameters":{"code":408,"message":"Open transaction timeout"}}"#,
            ),
        ),
    ] {
        messages.next_number = number;
        messages.standing = Standing { heard, position: samples };
        let (kind, rest) = expected;
        assert_eq!(text(messages.say(template, own)), head.replace("TYPE", kind) + rest);
    }
    messages.next_number = 4;
    messages.standing = Standing { heard: 3, position: 24_800 };
    assert_eq!(
        text(messages.stop("end")),
        head.replace("TYPE", "close")
            + r#"4,"serverseq":3,"position":"PT3.1S","parameters":{"reason":"end"}}"#
    );
    assert_eq!(seconds(3_269_937, 1_000_000_000), "PT0.003269937S");
}

#[test]
fn every_message_of_every_look_can_be_said_and_a_broken_one_is_not_json() {
    for look in Look::all() {
        let mut messages =
            of(look.name(), look.wires[0].rates_hz[0], ["a", "c", "s", "t"], &[("k", "v")]);
        let chunk = vec![0; messages.facts.stride.chunk_bytes()];
        let said = [
            messages.connected().to_vec(),
            messages.start().to_vec(),
            messages.media(Track::Inbound, 0, &chunk).to_vec(),
            messages.dtmf('1').to_vec(),
            messages.mark("m").to_vec(),
            messages.stop("end").to_vec(),
        ];
        let has_json = look.spelling.start.starts_with('{');
        for said in said.iter().filter(|said| has_json && said.first() == Some(&b'{')) {
            assert!(serde_json::from_slice::<serde_json::Value>(said).is_ok(), "{}", look.name());
        }
        if has_json {
            let broken = messages.broken();
            assert!(
                serde_json::from_slice::<serde_json::Value>(broken).is_err(),
                "{}",
                look.name()
            );
            assert!(!broken.is_empty());
        }
        if !look.is_binary() {
            // A fault spoils the middle of a message, which must be audio.
            let message = text(&said[2]);
            let payload_at = message.find("AAAAAAAA").unwrap_or_else(|| panic!("{message}"));
            assert!((payload_at..payload_at + chunk.len()).contains(&(message.len() / 2)));
        }
    }
}
