//! Messages of the providers that are told by conversations and by perspectives.

use super::*;

#[test]
fn the_messages_of_sinch_audiocodes_and_ringcentral_equal_those_of_their_documents_and_programs() {
    let id = "0f1e2d3c-0000-4000-8000-000000000001";
    let account = "00000000-0000-4000-8000-000000000001";
    let mut messages = of("sinch", 8000, [account, id, "", ""], &[("key", "value")]);
    assert_eq!(
        text(messages.start()),
        r#"{"command":"connect","version":1,"callId":"0f1e2d3c-0000-4000-8000-000000000001","applicationKey":"00000000-0000-4000-8000-000000000001","codec":"PCM","sampleRate":8000,"callHeaders":{"key":"value"}}"#
    );

    let mut messages = of("audiocodes", 16_000, ["", "4a5b4b9d", "", ""], &[]);
    assert_eq!(
        text(messages.start()),
        r#"{"conversationId":"4a5b4b9d","type":"session.initiate","expectAudioMessages":true,"botName":"rec","caller":"+15555550123","supportedMediaFormats":["raw/lpcm16"]}"#
    );
    assert_eq!(
        text(messages.media(Track::Inbound, 0, &[0; 3])),
        r#"{"conversationId":"4a5b4b9d","type":"userStream.chunk","audioChunk":"AAAA"}"#
    );
    assert_eq!(
        text(messages.dtmf('5')),
        r#"{"conversationId":"4a5b4b9d","type":"activities","activities":[{"type":"event","name":"DTMF","value":"5"}]}"#
    );
    assert_eq!(
        text(messages.stop("end")),
        r#"{"conversationId":"4a5b4b9d","type":"session.end","reasonCode":"client-side","reason":"Client Side"}"#
    );

    let id = "202601010000000100000000000001";
    let mut messages = of("ringcentral", 8000, ["", id, "", ""], &[]);
    assert_eq!(text(messages.connected()), r#"{"event":"Connected"}"#);
    assert_eq!(
        text(messages.start()),
        r#"{"event":"Start","metadata":{"callId":"202601010000000100000000000001"}}"#
    );
    for (track, name) in [(Track::Outbound, "Conference"), (Track::Inbound, "Participant")] {
        assert_eq!(
            text(messages.media(track, 0, &[255; 3])),
            format!(
                r#"{{"event":"Media","perspective":"{name}","media":"////","metadata":{{"callId":"{id}"}}}}"#
            )
        );
    }
    assert_eq!(
        text(messages.stop("end")),
        r#"{"event":"Stop","metadata":{"callId":"202601010000000100000000000001"}}"#
    );
}

#[test]
fn the_messages_of_azure_and_webex_equal_those_of_their_documents_with_the_time_of_the_audio() {
    let session = "89e8cb59-0000-4000-8000-000000000001";
    let mut messages = of("acs", 16_000, ["", "", "", session], &[]);
    messages.begun_ms = 1_731_698_172_925;
    assert_eq!(
        text(messages.connected()),
        r#"{"kind":"AudioMetadata","audioMetadata":{"subscriptionId":"89e8cb59-0000-4000-8000-000000000001","encoding":"PCM","sampleRate":16000,"channels":1,"length":640}}"#
    );
    assert_eq!(
        text(messages.media(Track::Inbound, 20, &[0; 3])),
        r#"{"kind":"AudioData","audioData":{"timestamp":"2024-11-15T19:16:12.945Z","data":"AAAA","silent":false}}"#
    );
    let mut messages = of("acs-unmixed", 16_000, ["", "", "", session], &[]);
    messages.begun_ms = 1_731_698_172_925;
    assert_eq!(
        text(messages.media(Track::Inbound, 75, &[0; 3])),
        r#"{"kind":"AudioData","audioData":{"timestamp":"2024-11-15T19:16:13.000Z","participantRawID":"4:+15555550123","data":"AAAA","silent":false}}"#
    );
    let key = text(messages.dtmf('5'));
    assert!(key.ends_with(r#"Z","participantRawID":"4:+15555550123","data":"5"}}"#), "{key}");

    let ids = ["org-1", "d7e20000-0000-4000-8000-000000000001", "", ""];
    let mut messages = of("webex", 8000, ids, &[("entry_point", "ivr_main")]);
    messages.begun_ms = 1_755_764_429_950;
    // Without the time at which it is sent.
    let timeless = |said: &[u8]| {
        let said = text(said);
        let at = said.find(r#""ts":""#).unwrap() + 6;
        assert!(said[at..].starts_with("20") && said[at + 23..].starts_with(r#"Z""#), "{said}");
        format!("{}TIME{}", &said[..at], &said[at + 24..])
    };
    assert_eq!(
        timeless(messages.connected()),
        r#"{"type":"VOICE_VA_REQUEST","seq":1,"ts":"TIME","conversation_id":"d7e20000-0000-4000-8000-000000000001","metadata":{},"payload":{"conversation_id":"d7e20000-0000-4000-8000-000000000001","customer_org_id":"org-1","allow_partial_responses":true,"voice_va_input_type":{"event_input":{"event_type":"SESSION_START","name":"entry","parameters":{"entry_point":"ivr_main"}}}}}"#
    );
    assert_eq!(
        timeless(messages.media(Track::Inbound, 0, &[255; 3])),
        r#"{"type":"VOICE_VA_REQUEST","seq":2,"ts":"TIME","conversation_id":"d7e20000-0000-4000-8000-000000000001","payload":{"conversation_id":"d7e20000-0000-4000-8000-000000000001","customer_org_id":"org-1","voice_va_input_type":{"audio_input":{"caller_audio_b64":"////","encoding":"MULAW_FORMAT","sample_rate_hertz":8000,"audio_timestamp":"2025-08-21T08:20:29.950Z","language_code":"en-US","is_single_utterance":false}}}}"#
    );
    let key = timeless(messages.dtmf('#'));
    assert!(key.ends_with(r#"{"dtmf_input":{"dtmf_events":["DTMF_DIGIT_POUND"]}}}}"#), "{key}");
    assert_eq!(messages.next_number, 4);
}
