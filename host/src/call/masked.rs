//! Messages as the capture of a paused recording keeps them: without audio and keys.

use base64ct::{Base64, Encoding as _};
use serde_json::Value;

use crate::lines;

/// Events of messages that hold neither audio nor keys.
const PLAIN: [&str; 5] = ["clear", "connected", "mark", "start", "stop"];

/// The line of a message, with the byte `silence` in the place of its audio; `None` if the message must
/// not be kept: it is a key, or it cannot be told what it holds.
pub(super) fn line(line: &[u8], silence: u8) -> Option<Vec<u8>> {
    if let lines::Message::Binary(audio) = lines::read(line) {
        let mut line = Vec::new();
        lines::write_binary(&mut line, &vec![silence; audio.len()]);
        return Some(line);
    }
    let mut message: Value = serde_json::from_slice(line).ok()?;
    match message.get("event").or_else(|| message.get("eventType"))?.as_str()? {
        "media" => {
            // Most providers have an object of that name around the audio.
            let place = if message.get("media").is_some() { "/media/payload" } else { "/payload" };
            let payload = message.pointer_mut(place)?;
            let audio = Base64::decode_vec(payload.as_str()?).ok()?;
            *payload = Base64::encode_string(&vec![silence; audio.len()]).into();
        }
        event if PLAIN.contains(&event) => {}
        _ => return None,
    }
    let mut line = serde_json::to_vec(&message).ok()?;
    line.push(b'\n');
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_audio_and_no_key_is_kept() {
        let line = |text: &[u8]| super::line(text, 0xFF);
        let kept =
            line(br#"{"event":"media","media":{"track":"inbound","payload":"AQID"}}"#).unwrap();
        let kept: Value = serde_json::from_slice(&kept).unwrap();
        assert_eq!(kept["media"]["payload"], "////");
        assert_eq!(kept["media"]["track"], "inbound");
        let kept = line(br#"{"eventType":"media","track":"inbound","payload":"AQID"}"#).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&kept).unwrap()["payload"], "////");
        line(br#"{"event":"mark","mark":{"name":"a"}}"#).unwrap();
        assert_eq!(line(br#"{"binary":"AQID"}"#).unwrap(), b"{\"binary\":\"////\"}\n");
        for secret in [
            &br#"{"event":"dtmf","dtmf":{"digit":"4"}}"#[..],
            br#"{"event":"media","media":{"payload":"?"}}"#,
            br#"{"event":"media","media":{"chunk":"1"}}"#,
            br#"{"eventType":"dtmf","digit":"4"}"#,
            br#"{"event":"other","digits":"4"}"#,
            br#""DTMF_END digit:4""#,
            b"4",
            b"",
        ] {
            assert_eq!(line(secret), None);
        }
    }
}
