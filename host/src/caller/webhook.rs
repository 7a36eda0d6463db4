//! The call before its stream: asks the webhook for TwiML, and follows that to the stream.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use form_urlencoded::Serializer;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use url::{Host, Position, Url};

use super::certificate::TlsClient;
use super::dictionary::{self, TwilioError};
use super::line::Target;
use super::messages::Ids;
use super::twiml::{self, Step, refusal};
use super::{DialledTracks, Error, Plan, USER_AGENT};
use crate::connect::Stream;
use crate::public_url::WEBHOOK_PATH;
use crate::twilio;

/// Largest TwiML: Twilio itself reads 64 KiB; the usual size is a few hundred bytes.
const TWIML_BYTES_MAX: usize = 64 << 10;

/// Time for which Twilio waits for a webhook's answer.
/// <https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides>
const PATIENCE: Duration = Duration::from_secs(15);

/// Most HTTP redirects in a row, and most documents that continue each other. Twilio has such bounds,
/// too, and does not tell them.
const REDIRECTS_MAX: usize = 10;
const DOCUMENTS_MAX: usize = 20;

/// The types of a document that Twilio reads as TwiML.
const TWIML_TYPES: [&str; 3] = ["text/xml", "application/xml", "text/html"];

/// The stream to which a webhook's TwiML leads.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) target: Target,
    /// The text that the upgrade's signature covers.
    pub(super) signed_url: String,
    pub(super) tracks: Option<DialledTracks>,
    /// Whether the audio of the other end is played to the caller.
    pub(super) takes_audio: bool,
    pub(super) parameters: Vec<(String, String)>,
    /// Remarks for the verdict.
    pub(super) notes: Vec<String>,
}

/// Asks the webhook as Twilio does for an incoming call, and follows its TwiML.
///
/// # Errors
/// No connection, a status that is no success (with the first line of the body), or TwiML that leads
/// Twilio to no stream.
pub(super) async fn ask(webhook: &Url, asker: Asker<'_>) -> Result<Answer, Error> {
    let plan = asker.plan;
    let public = plan.sign_url.clone().unwrap_or_else(|| webhook.as_str().to_owned());
    let mut page = Page { public, asked: webhook.clone() };
    let mut manner = Manner::Post;
    for _ in 0..DOCUMENTS_MAX {
        let body = fetch(&mut page, manner, asker).await?;
        match twiml::read(&body)? {
            Step::Stream(order) => return page.answer(order, plan),
            Step::Continue { url, with_get } => {
                page = page.turn(&url).ok_or_else(|| {
                    let cause = format!("the TwiML continues at `{url}`, which is no http(s) URL");
                    refusal(cause, Some(dictionary::BAD_URL))
                })?;
                manner = if with_get { Manner::Get } else { Manner::Post };
            }
        }
    }
    let cause = format!("{DOCUMENTS_MAX} documents continue each other, and none has a <Stream>");
    Err(refusal(cause, None))
}

/// The call that asks a webhook.
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) plan: &'a Plan,
    pub(super) tls: &'a TlsClient,
    pub(super) ids: &'a Ids,
}

/// The address of a TwiML document.
struct Page {
    /// The URL by which Twilio would know it: it is signed, and relative URLs are relative to it.
    public: String,
    /// The URL that is asked. It is another one with `--sign-url`.
    asked: Url,
}

impl Page {
    /// The page at `to`, an absolute or relative URL. Pages of the public server are asked from the
    /// server that was asked so far.
    fn turn(&self, to: &str) -> Option<Self> {
        let base = Url::parse(&self.public).ok()?;
        let public = base.join(to).ok()?;
        if !matches!(public.scheme(), "http" | "https") || public.host().is_none() {
            return None;
        }
        let asked = if public.origin() != base.origin() {
            public.clone()
        } else if Url::parse(to).is_err() {
            self.asked.join(to).ok()?
        } else {
            let mut asked = self.asked.clone();
            asked.set_path(public.path());
            asked.set_query(public.query());
            asked
        };
        Some(Self { public: public.into(), asked })
    }

    fn answer(&self, order: twiml::Order, plan: &Plan) -> Result<Answer, Error> {
        let twiml::Order { url, tracks, takes_audio, parameters, mut notes } = order;
        let stream = StreamUrl::read(&self.public, &url, plan.allow_ws)?;
        if let Some(query) = stream.query {
            notes.push(format!(
                "the query ?{query} of the <Stream> url was taken off, since Twilio supports none \
                 there; use <Parameter>"
            ));
        }
        let target = target(&self.asked, stream.url, plan.connect.as_deref());
        let signed_url = stream.signed;
        Ok(Answer { target, signed_url, tracks, takes_audio, parameters, notes })
    }
}

/// The way to ask for a document.
#[derive(Clone, Copy)]
enum Manner {
    /// The call's parameters are in a form.
    Post,
    /// The call's parameters are in the query.
    Get,
    /// After a redirect of HTTP: the URL as it is.
    Bare,
}

/// An answer to one HTTP request.
struct Response {
    status: u16,
    location: Option<String>,
    content_type: Option<String>,
    body: Bytes,
}

fn failed(cause: impl std::fmt::Display, twilio: TwilioError) -> Error {
    Error::Webhook { cause: cause.to_string(), twilio: Some(twilio) }
}

fn broken(cause: impl std::fmt::Display) -> Error {
    failed(cause, dictionary::RETRIEVAL)
}

/// An error of HTTP. One of the connection below says more than the one of HTTP about it.
fn unanswered(error: &hyper::Error) -> Error {
    let below = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    below.map_or_else(|| broken(error), broken)
}

/// Gets a document, and follows redirects of HTTP: afterwards `page` is the document's own address.
async fn fetch(page: &mut Page, mut manner: Manner, asker: Asker<'_>) -> Result<Bytes, Error> {
    for _ in 0..=REDIRECTS_MAX {
        let response = exchange(page, manner, asker).await?;
        if !(300..400).contains(&response.status) {
            let document = document(response, page, asker.plan);
            return match document {
                Err(error) => Err(explain(error, page, manner, asker).await),
                document => document,
            };
        }
        let status = response.status;
        let location = response.location.filter(|_| matches!(status, 301 | 302 | 303 | 307));
        let Some(next) = location.as_deref().and_then(|location| page.turn(location)) else {
            let cause = format!(
                "status {status} is no redirect to follow: Twilio takes 301, 302, 303 and 307 with \
                 an http(s) URL as Location"
            );
            return Err(failed(cause, dictionary::REDIRECT));
        };
        *page = next;
        if status != 307 {
            manner = Manner::Bare;
        }
    }
    Err(failed(format!("more than {REDIRECTS_MAX} redirects in a row"), dictionary::REDIRECTS))
}

/// Finds out whether a refused signature has a wrong token or covers a wrong URL: the server can tell
/// that of one for the URL which is asked.
async fn explain(error: Error, page: &Page, manner: Manner, asker: Asker<'_>) -> Error {
    let asked = page.asked.as_str();
    if !error.is_in_doubt() || page.public == asked {
        return error;
    }
    let second = Page { public: asked.to_owned(), asked: page.asked.clone() };
    let refused = match exchange(&second, manner, asker).await {
        Ok(response) => document(response, &second, asker.plan).err(),
        Err(error) => Some(error),
    };
    error.after_second(refused.as_ref(), asked, &page.public)
}

/// Takes the document out of an answer that is no redirect.
fn document(response: Response, page: &Page, plan: &Plan) -> Result<Bytes, Error> {
    let Response { status, content_type, body, .. } = response;
    if !(200..300).contains(&status) {
        let signed_url = plan.auth_token.is_some().then_some(page.public.as_str());
        return Err(Error::refused(status, &body, &page.asked, signed_url));
    }
    let media_type =
        content_type.as_deref().map(|text| text.split(';').next().unwrap_or("").trim());
    match media_type {
        Some(media_type) if TWIML_TYPES.iter().any(|t| media_type.eq_ignore_ascii_case(t)) => {
            Ok(body)
        }
        Some(media_type) => {
            let way = match page.asked.path() {
                "/" => format!("; the URL has no path: callreel's webhook is at {WEBHOOK_PATH}"),
                _ => String::new(),
            };
            let cause = format!("its answer is {media_type}, and TwiML is text/xml{way}");
            Err(failed(cause, dictionary::CONTENT_TYPE))
        }
        None => {
            let cause = "its answer has no Content-Type, and TwiML is text/xml";
            Err(failed(cause, dictionary::CONTENT_TYPE))
        }
    }
}

async fn exchange(page: &Page, manner: Manner, asker: Asker<'_>) -> Result<Response, Error> {
    let request = request(page, manner, asker.plan, asker.ids)?;
    let target = Target::new(page.asked.clone());
    let socket = target.open(asker.tls).await?;
    let socket: Box<dyn Stream> = Box::new(TokioIo::new(socket));
    let (mut sender, connection) = http1::handshake(socket).await.map_err(|e| unanswered(&e))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|e| unanswered(&e))?;
        let header = |name| {
            let value = response.headers().get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let (location, content_type) = (header(header::LOCATION), header(header::CONTENT_TYPE));
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), TWIML_BYTES_MAX).collect().await;
        let body = body.map_err(|cause| {
            if cause.is::<LengthLimitError>() {
                failed("its answer is larger than 64 KiB", dictionary::TOO_LARGE)
            } else {
                broken(cause)
            }
        })?;
        Ok(Response { status, location, content_type, body: body.to_bytes() })
    };
    tokio::select! {
        answer = exchange => answer,
        Err(cause) = connection => Err(unanswered(&cause)),
        () = tokio::time::sleep(PATIENCE) => {
            let cause = format!("no answer in {} s", PATIENCE.as_secs());
            Err(failed(cause, dictionary::CONNECTION))
        }
    }
}

fn request(
    page: &Page,
    manner: Manner,
    plan: &Plan,
    ids: &Ids,
) -> Result<Request<Full<Bytes>>, Error> {
    let form = form(ids);
    let (mut asked, mut public) = (page.asked.clone(), page.public.clone());
    if matches!(manner, Manner::Get) {
        asked.query_pairs_mut().extend_pairs(&form);
        let mut url = Url::parse(&public).map_err(broken)?;
        url.query_pairs_mut().extend_pairs(&form);
        public = url.into();
    }
    let (method, body, signed): (_, _, &[(&str, &str)]) = match manner {
        Manner::Post => {
            ("POST", Serializer::new(String::new()).extend_pairs(&form).finish(), &form)
        }
        Manner::Get | Manner::Bare => ("GET", String::new(), &[]),
    };
    let mut request = Request::builder()
        .method(method)
        .uri(&asked[Position::BeforePath..Position::AfterQuery])
        .header("host", &asked[Position::BeforeHost..Position::AfterPort])
        .header("accept", "*/*")
        .header("user-agent", USER_AGENT);
    if matches!(manner, Manner::Post) {
        let media_type = "application/x-www-form-urlencoded; charset=UTF-8";
        request = request.header("content-type", media_type);
    }
    if let Some(token) = &plan.auth_token {
        request = request.header(twilio::SIGNATURE_HEADER, twilio::sign(token, &public, signed));
    }
    request.body(Full::<Bytes>::from(body)).map_err(broken)
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

/// The URL of a stream as Twilio takes it.
#[derive(Debug)]
struct StreamUrl {
    url: Url,
    /// The URL as written in the TwiML if it is absolute there, without its query.
    signed: String,
    /// The query that was taken off.
    query: Option<String>,
}

impl StreamUrl {
    /// Reads the url of a `<Stream>` in the document at `public`.
    fn read(public: &str, written: &str, allow_ws: bool) -> Result<Self, Error> {
        let malformed = || {
            let cause = format!("the <Stream> url `{written}` is no URL");
            refusal(cause, Some(dictionary::STREAM_URL))
        };
        let (mut url, is_relative) = match Url::parse(written) {
            Ok(url) => (url, false),
            Err(url::ParseError::RelativeUrlWithoutBase) => {
                let base = Url::parse(public).map_err(|_| malformed())?;
                let mut url = base.join(written).map_err(|_| malformed())?;
                // Twilio streams to wss alone, whatever the scheme of the webhook.
                url.set_scheme("wss").map_err(|()| malformed())?;
                (url, true)
            }
            Err(_) => return Err(malformed()),
        };
        match url.scheme() {
            "wss" => {}
            "ws" if allow_ws => {}
            scheme => {
                let way = if scheme == "ws" { "; --allow-ws allows it in a rehearsal" } else { "" };
                let cause = format!(
                    "the <Stream> url `{written}` is {scheme}://, only wss:// is taken{way}"
                );
                return Err(refusal(cause, Some(dictionary::SCHEME)));
            }
        }
        let query = url.query().map(str::to_owned);
        url.set_query(None);
        let signed = match written.split_once('?') {
            _ if is_relative => url.as_str().to_owned(),
            Some((before, _query)) => before.to_owned(),
            None => written.to_owned(),
        };
        Ok(Self { url, signed, query })
    }
}

/// The target of the stream at `url`.
///
/// `connect` decides, if given. Otherwise a webhook on this machine, by plain HTTP, and a stream on the
/// same host without a port, or on the webhook's own, count as one server without its tunnel: TwiML
/// always says `wss`, so that following it to the letter would reach no server.
fn target(webhook: &Url, url: Url, connect: Option<&str>) -> Target {
    if let Some(connect) = connect {
        return Target::through(url, connect);
    }
    let local = webhook.scheme() == "http" && is_loopback(webhook) && webhook.host() == url.host();
    if local && (url.port().is_none() || url.port() == webhook.port()) {
        let address = Target::new(webhook.clone()).address();
        return Target::through(url, &address);
    }
    Target::new(url)
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
    fn a_local_webhook_is_its_own_stream_server() {
        let reached = |webhook: &str, stream: &str, connect| {
            let url = StreamUrl::read(webhook, stream, false).unwrap().url;
            let target = target(&Url::parse(webhook).unwrap(), url, connect);
            (target.address(), target.tls)
        };
        let local = "http://127.0.0.1:5050/incoming-call";
        let remote = "https://a.example/incoming-call";
        let here = ("127.0.0.1:5050".to_owned(), false);
        assert_eq!(reached(local, "wss://127.0.0.1/media-stream", None), here);
        assert_eq!(reached(local, "/media-stream", None), here);
        assert_eq!(reached(remote, "/s", None), ("a.example:443".to_owned(), true));
        assert_eq!(reached(local, "wss://a.example/s", None), ("a.example:443".to_owned(), true));
        assert_eq!(reached(local, "wss://a.example/s", Some("127.0.0.1:5050")), here);
        assert_eq!(reached(remote, "wss://a.example/s", None), ("a.example:443".to_owned(), true));
        let through_tls = ("127.0.0.1:8443".to_owned(), true);
        assert_eq!(reached(remote, "wss://a.example/s", Some("tls://127.0.0.1:8443")), through_tls);
    }

    #[test]
    fn a_page_of_the_public_server_is_asked_from_the_server_at_hand() {
        let public = "https://calls.example.com/voice/in".to_owned();
        let page = Page { public, asked: Url::parse("http://127.0.0.1:5050/in").unwrap() };
        let turned = |to| page.turn(to).map(|page| (page.public, page.asked.to_string()));
        let both = |public: &str, asked: &str| Some((public.to_owned(), asked.to_owned()));
        let next = "https://calls.example.com/voice/next?a=b";
        assert_eq!(turned("next?a=b"), both(next, "http://127.0.0.1:5050/next?a=b"));
        assert_eq!(turned(next), both(next, "http://127.0.0.1:5050/voice/next?a=b"));
        let other = "https://other.example/x";
        assert_eq!(turned(other), both(other, other));
        assert_eq!(turned("ftp://calls.example.com/"), None);
    }
}
