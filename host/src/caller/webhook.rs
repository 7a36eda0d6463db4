//! The call before its stream: posts the webhook and reads the TwiML of its answer.

use std::time::Duration;

use form_urlencoded::Serializer;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use url::{Host, Url};

use super::line::Target;
use super::messages::Ids;
use super::{Error, Plan, Tracks, USER_AGENT};
use crate::twilio;

/// Largest TwiML: Twilio itself reads 64 KiB; the usual size is a few hundred bytes.
const TWIML_BYTES_MAX: usize = 64 << 10;

/// Time for which Twilio waits for a webhook's answer.
/// <https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides>
const PATIENCE: Duration = Duration::from_secs(15);

/// The stream that a webhook's TwiML asks for.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    /// The stream's URL as written in the TwiML: the upgrade's signature covers this text.
    pub(super) stream_url: String,
    pub(super) tracks: Option<Tracks>,
    pub(super) parameters: Vec<(String, String)>,
}

/// Posts the webhook as Twilio does for an incoming call, and reads the answer.
///
/// # Errors
/// No connection, a status other than 200 (with the first line of the body), or TwiML without a
/// `<Stream>`.
pub(super) async fn ask(webhook: &Url, plan: &Plan, ids: &Ids) -> Result<Answer, Error> {
    let form = form(ids);
    let body = Serializer::new(String::new()).extend_pairs(&form).finish();
    let mut request = Request::post(&webhook[url::Position::BeforePath..])
        .header("host", &webhook[url::Position::BeforeHost..url::Position::AfterPort])
        .header("content-type", "application/x-www-form-urlencoded; charset=UTF-8")
        .header("accept", "*/*")
        .header("user-agent", USER_AGENT);
    if let Some(token) = &plan.auth_token {
        let signed_url = plan.sign_url.as_deref().unwrap_or(webhook.as_str());
        request = request.header(twilio::SIGNATURE_HEADER, twilio::sign(token, signed_url, &form));
    }
    let request = request.body(Full::<Bytes>::from(body)).map_err(failed)?;

    let socket = Target::new(webhook.clone()).open().await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.map_err(failed)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), TWIML_BYTES_MAX).collect().await;
        Ok::<_, Error>((status, body.map_err(failed)?.to_bytes()))
    };
    let (status, body) = tokio::select! {
        answer = exchange => answer?,
        Err(cause) = connection => return Err(failed(cause)),
        () = tokio::time::sleep(PATIENCE) => {
            return Err(failed(format!("no answer in {} s", PATIENCE.as_secs())));
        }
    };
    if status != 200 {
        return Err(Error::refused(status, &body));
    }
    parse_twiml(&body)
}

fn failed(cause: impl std::fmt::Display) -> Error {
    Error::Webhook { cause: cause.to_string() }
}

/// The parameters of an incoming call, in the order Twilio documents them; the numbers are those
/// of Twilio's own examples.
fn form(ids: &Ids) -> Vec<(&'static str, &str)> {
    const FROM: &str = "+14158675309";
    const TO: &str = "+18005551212";
    vec![
        ("CallSid", &ids.call_sid),
        ("AccountSid", &ids.account_sid),
        ("From", FROM),
        ("To", TO),
        ("Caller", FROM),
        ("Called", TO),
        ("CallStatus", "ringing"),
        ("Direction", "inbound"),
        ("ApiVersion", "2010-04-01"),
    ]
}

fn parse_twiml(body: &[u8]) -> Result<Answer, Error> {
    let text = str::from_utf8(body).map_err(|_| failed("the TwiML is not UTF-8"))?;
    let document = roxmltree::Document::parse(text)
        .map_err(|cause| failed(format!("the TwiML is not XML: {cause}")))?;
    let stream = document
        .descendants()
        .find(|node| node.has_tag_name("Stream"))
        .ok_or_else(|| failed("the TwiML has no <Stream>"))?;
    let stream_url =
        stream.attribute("url").ok_or_else(|| failed("the TwiML's <Stream> has no url"))?;
    let tracks = match stream.attribute("track") {
        Some("both_tracks") => Some(Tracks::Both),
        Some("outbound_track") => Some(Tracks::Outbound),
        Some("inbound_track") => Some(Tracks::Inbound),
        _ => None,
    };
    let parameters = stream
        .children()
        .filter(|node| node.has_tag_name("Parameter"))
        .filter_map(|node| Some((node.attribute("name")?, node.attribute("value")?)))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Ok(Answer { stream_url: stream_url.to_owned(), tracks, parameters })
}

/// The target of the stream that a webhook's TwiML names.
///
/// `connect` decides, if given. Otherwise a webhook on this machine, by plain HTTP, and a stream on the
/// same host without a port count as one server without its tunnel: TwiML always says `wss` and has no
/// port, so that following it to the letter would reach no server.
///
/// # Errors
/// The URL is no WebSocket URL.
pub(super) fn stream_target(
    webhook: &Url,
    stream_url: &str,
    connect: Option<&str>,
) -> Result<Target, Error> {
    let url = webhook.join(stream_url).map_err(|_| Error::Url { url: stream_url.to_owned() })?;
    if !matches!(url.scheme(), "ws" | "wss") {
        return Err(Error::Url { url: stream_url.to_owned() });
    }
    if let Some(connect) = connect {
        return Ok(Target::through(url, connect));
    }
    let local = webhook.scheme() == "http" && is_loopback(webhook) && webhook.host() == url.host();
    if local && url.port().is_none() {
        let address = Target::new(webhook.clone()).address();
        return Ok(Target::through(url, &address));
    }
    Ok(Target::new(url))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twiml_gives_url_track_and_parameters_unescaped() {
        let twiml = br#"<?xml version="1.0" encoding="UTF-8"?><Response><Start><Stream url="wss://a.example/s?x=1&amp;y" track="both_tracks"><Parameter name="who" value="A &lt;b&gt;" /></Stream></Start><Dial>+1</Dial></Response>"#;
        let expected = Answer {
            stream_url: "wss://a.example/s?x=1&y".to_owned(),
            tracks: Some(Tracks::Both),
            parameters: vec![("who".to_owned(), "A <b>".to_owned())],
        };
        assert_eq!(parse_twiml(twiml).unwrap(), expected);
        let refusal = |twiml: &[u8]| parse_twiml(twiml).unwrap_err().to_string();
        assert!(refusal(b"<Response><Say>no</Say></Response>").contains("no <Stream>"));
        assert!(refusal(b"{\"message\":1}").contains("not XML"));
    }

    #[test]
    fn a_local_webhook_is_its_own_stream_server() {
        let reached = |webhook: &str, stream: &str, connect| {
            let webhook = Url::parse(webhook).unwrap();
            let target = stream_target(&webhook, stream, connect).unwrap();
            (target.address(), target.tls)
        };
        let local = "http://127.0.0.1:5050/incoming-call";
        let remote = "https://a.example/incoming-call";
        let here = ("127.0.0.1:5050".to_owned(), false);
        assert_eq!(reached(local, "wss://127.0.0.1/media-stream", None), here);
        assert_eq!(reached(local, "wss://a.example/s", None), ("a.example:443".to_owned(), true));
        assert_eq!(reached(local, "wss://a.example/s", Some("127.0.0.1:5050")), here);
        assert_eq!(reached(remote, "wss://a.example/s", None), ("a.example:443".to_owned(), true));
        let through_tls = ("127.0.0.1:8443".to_owned(), true);
        assert_eq!(reached(remote, "wss://a.example/s", Some("tls://127.0.0.1:8443")), through_tls);
    }
}
