//! The way from the webhook to the stream: TwiML that Twilio takes, and TwiML that it refuses.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use callreel::caller::{CallEnd, CallReport, DialledTracks, Plan};
use callreel::twilio::{self, AuthToken};

use super::{Manner, PATIENCE, Sink, only, place};
use crate::harness::process::callreel;
use crate::harness::receiver::request_on;

const STREAM: &str = "wss://calls.example.com/media-stream";

#[test]
fn a_query_is_taken_off_the_stream_url_with_a_note() {
    let sink = Sink::start(Manner::Polite);
    let web = Web::start(&[("/in", &connect(&format!("url=\"{STREAM}?agent=7&amp;b\"")))]);
    let mut plan = web.plan("/in", &sink);
    plan.auth_token = Some(token());
    let report = place(&plan);
    assert!(report.is_good(), "{report:?}");
    let heard = sink.next();
    assert_eq!(heard.path, "/media-stream");
    let no_form: [(&str, &str); 0] = [];
    assert_eq!(heard.signature, Some(twilio::sign(&token(), STREAM, &no_form)));
    let [note] = &only(&report).notes[..] else { panic!("{report:?}") };
    assert!(note.starts_with("the query ?agent=7&b of the <Stream> url was taken off"), "{note}");

    let output = run(&web, "/in", &sink, &[]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains("\nnote the query ?agent=7&b of the <Stream> url was taken off"),
        "{said}"
    );
}

#[test]
fn what_twilio_refuses_opens_no_stream_and_has_twilios_number() {
    let long = "v".repeat(500);
    let parameter = format!("<Parameter name=\"a\" value=\"{long}\"/>");
    let within =
        |before: &str, stream: &str| twiml(&format!("{before}<Connect>{stream}</Connect>"));
    let stream = format!("<Stream url=\"{STREAM}\"/>");
    let started = |track: &str| {
        twiml(&format!("<Start><Stream url=\"{STREAM}\" track=\"{track}\"/></Start><Say/>"))
    };
    let tracked = |track: &str| connect(&format!("url=\"{STREAM}\" track=\"{track}\""));
    let page = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n<Response/>";
    for (answer, number, said) in [
        (connect("url=\"ws://calls.example.com/s\""), 31922, "only wss:// is taken; --allow-ws"),
        (connect("url=\"https://calls.example.com/s\""), 31922, "is https://"),
        (connect("url=\"wss://\""), 31923, "is no URL"),
        (tracked("both_tracks"), 31941, "takes no track=\"both_tracks\", only inbound_track"),
        (tracked("outbound_track"), 31941, "takes no track=\"outbound_track\""),
        (started("both"), 31941, "takes no track=\"both\""),
        (within("<Reject reason=\"busy\"/>", &stream), 0, "<Reject> turns the call away (busy)"),
        (within("<Say>Bye</Say><Hangup/>", &stream), 0, "<Hangup> ends the call"),
        (
            within("", &format!("<Stream url=\"{STREAM}\">{parameter}</Stream>")),
            0,
            "501 characters",
        ),
        (within("", "<Stream/>"), 0, "has no url"),
        (twiml("<Say>Hello</Say>"), 0, "has no <Stream>"),
        (twiml(&stream), 12200, "not directly inside <Start> or <Connect>"),
        (twiml(&format!("<connect>{stream}</connect>")), 12200, "in another case"),
        (twiml("<Redirect>ftp://calls.example.com/</Redirect>"), 11100, "no http(s) URL"),
        (typed("text/xml", "<Answer/>"), 12100, "root element is not <Response>"),
        (typed("text/xml", "\n<?xml version=\"1.0\"?><Response/>"), 12100, "not XML"),
        (typed("text/xml", &" ".repeat(65_537)), 11750, "larger than 64 KiB"),
        (page.to_owned(), 12300, "its answer is application/json"),
        ("HTTP/1.1 200 OK\r\n\r\n<Response/>".to_owned(), 12300, "no Content-Type"),
        ("HTTP/1.1 500 No\r\n\r\nno".to_owned(), 11217, "refused with status 500: no"),
        ("HTTP/1.1 304 No\r\n\r\n".to_owned(), 11216, "status 304 is no redirect to follow"),
        ("HTTP/1.1 302 No\r\n\r\n".to_owned(), 11216, "status 302 is no redirect to follow"),
        ("SSH-2.0\r\n".to_owned(), 11200, "the webhook failed"),
    ] {
        let sink = Sink::start(Manner::Polite);
        let web = Web::start(&[("/in", &answer)]);
        let report = place(&web.plan("/in", &sink));
        let call = only(&report);
        assert!(failure(call).contains(said), "{call:?}");
        assert_eq!(twilio_number(call), number, "{call:?}");
        assert!(sink.heard.try_recv().is_err() && !call.good, "{call:?}");
    }
}

#[test]
fn what_twilio_takes_leads_to_the_stream() {
    let stream = connect(&format!("url=\"{STREAM}\""));
    let redirect = |to: &str| format!("HTTP/1.1 {to}\r\n\r\n");
    let pages = [
        ("/a/in", twiml("<Say>Hello</Say><Redirect> ../b?x=1 </Redirect><Hangup/>")),
        ("/b?x=1", stream.clone()),
        ("/302", redirect("302 Found\r\nLocation: /b?x=1")),
        ("/301", redirect("301 Moved\r\nLocation: 302")),
        ("/307", redirect("307 Moved\r\nLocation: /b?x=1")),
        ("/dialled", twiml("<Dial action=\"b?x=1\">+1</Dial>")),
        ("/relative", connect("url=\"/media-stream\"")),
        (
            "/start",
            twiml(&format!("<Start><Stream url=\"{STREAM}\" track=\"both_tracks\"/></Start>")),
        ),
        ("/html", typed("text/html; charset=UTF-8", stream.split_once("\r\n\r\n").unwrap().1)),
    ];
    let pages: Vec<(&str, &str)> =
        pages.iter().map(|(path, page)| (*path, page.as_str())).collect();
    for (path, asked, note) in [
        ("/a/in", &["POST /a/in", "POST /b?x=1"][..], ""),
        ("/302", &["POST /302", "GET /b?x=1"], ""),
        ("/301", &["POST /301", "GET /302", "GET /b?x=1"], ""),
        ("/307", &["POST /307", "POST /b?x=1"], ""),
        ("/dialled", &["POST /dialled", "POST /b?x=1"], ""),
        ("/relative", &["POST /relative"], ""),
        ("/start", &["POST /start"], "no verb follows <Start>"),
        ("/html", &["POST /html"], ""),
    ] {
        let sink = Sink::start(Manner::Polite);
        let web = Web::start(&pages);
        let report = place(&web.plan(path, &sink));
        assert!(report.is_good(), "{path}: {report:?}");
        assert_eq!(sink.next().path, "/media-stream");
        for expected in asked {
            let request = web.asked.recv_timeout(PATIENCE).unwrap();
            assert!(request.starts_with(&format!("{expected} HTTP/1.1\r\n")), "{path}: {request}");
            assert_eq!(request.contains("CallSid="), expected.starts_with("POST"), "{request}");
        }
        let notes = only(&report).notes.concat();
        assert!(
            notes.starts_with(note) && (note.is_empty() == notes.is_empty()),
            "{path}: {notes}"
        );
    }
}

#[test]
fn a_redirect_with_get_has_the_calls_parameters_in_its_signed_query() {
    let sink = Sink::start(Manner::Polite);
    let next = "https://calls.example.com/next?a=b";
    let web = Web::start(&[
        ("/in", &twiml(&format!("<Redirect method=\"GET\">{next}</Redirect>"))),
        ("/next", &connect("url=\"/media-stream\"")),
    ]);
    let mut plan = web.plan("/in", &sink);
    plan.auth_token = Some(token());
    plan.sign_url = Some("https://calls.example.com/in".to_owned());
    plan.call_sid = Some("CA1".to_owned());
    let report = place(&plan);
    assert!(report.is_good(), "{report:?}");
    web.asked.recv_timeout(PATIENCE).unwrap();
    let request = web.asked.recv_timeout(PATIENCE).unwrap();
    let (line, head) = request.split_once("\r\n").unwrap();
    let query = line.strip_prefix("GET /next?a=b&").unwrap().strip_suffix(" HTTP/1.1").unwrap();
    assert!(query.starts_with("CallSid=CA1&AccountSid=AC"), "{query}");
    let no_form: [(&str, &str); 0] = [];
    let signature = twilio::sign(&token(), &format!("{next}&{query}"), &no_form);
    assert!(head.contains(&format!("x-twilio-signature: {signature}\r\n")), "{head}");
    let heard = sink.next();
    assert_eq!(heard.host, "calls.example.com");
    assert_eq!(heard.signature, Some(twilio::sign(&token(), STREAM, &no_form)));
}

#[test]
fn redirections_without_end_are_given_up() {
    let sink = Sink::start(Manner::Polite);
    let pages = [
        ("/http", "HTTP/1.1 307 Again\r\nLocation: /http\r\n\r\n".to_owned()),
        ("/twiml", twiml("<Redirect>/twiml</Redirect>")),
    ];
    let web = Web::start(&[(pages[0].0, &pages[0].1), (pages[1].0, &pages[1].1)]);
    for (path, number, said) in [
        ("/http", 11215, "more than 10 redirects in a row"),
        ("/twiml", 0, "20 documents continue each other"),
    ] {
        let report = place(&web.plan(path, &sink));
        assert!(failure(only(&report)).contains(said), "{report:?}");
        assert_eq!(twilio_number(only(&report)), number, "{report:?}");
    }
}

#[test]
fn a_stream_without_tls_is_taken_only_if_it_is_allowed() {
    let sink = Sink::start(Manner::Polite);
    let web = Web::start(&[("/in", &connect(&format!("url=\"{}\"", sink.url)))]);
    let mut plan = web.plan("/in", &sink);
    plan.connect = None;
    assert!(!place(&plan).is_good());
    plan.allow_ws = true;
    plan.tracks = Some(DialledTracks::Inbound);
    assert!(place(&plan).is_good());
    assert_eq!(sink.next().host, sink.address.to_string());
    let output = run(&web, "/in", &sink, &["--allow-ws"]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn twilios_numbers_are_in_the_verdict_and_in_the_json() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let sink = Sink::start(Manner::HangsUpAfterStart);
    let web = Web::start(&[
        ("/track", &connect(&format!("url=\"{STREAM}\" track=\"both_tracks\""))),
        ("/in", &connect(&format!("url=\"{STREAM}\""))),
    ]);
    let (number, title) = (31941, "Stream - Invalid Track configuration");
    let output = run(&web, "/track", &sink, &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.ends_with(&format!("use <Start> (Twilio: {number}, {title})\n")), "{said}");
    let output = run(&web, "/track", &sink, &["--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = serde_json::json!({"number": number, "meaning": title});
    assert_eq!(report["calls"][0]["twilio_error"], expected);

    let output = run(&web, "/in", &sink, &["--duration", "30s"]);
    let said = String::from_utf8(output.stdout).unwrap();
    let expected =
        "BAD  1 x closed with 1000 (done) (Twilio: 31921, Stream - WebSocket - Close Error)";
    assert!(said.contains(expected), "{said}");
    sink.next();

    let mut plan = web.plan("/in", &sink);
    plan.connect = Some(closed.to_string());
    assert_eq!(twilio_number(only(&place(&plan))), 31902);
    plan.connect = Some(web.address.to_string());
    assert_eq!(twilio_number(only(&place(&plan))), 31920);
    plan.url = format!("http://{closed}/in");
    assert_eq!(twilio_number(only(&place(&plan))), 11205);
}

/// `callreel call` of 200 ms that asks for the page at `path` and streams to the sink.
fn run(web: &Web, path: &str, sink: &Sink, options: &[&str]) -> Output {
    let mut call = Command::new(callreel());
    let (url, connect) = (format!("http://{}{path}", web.address), sink.address.to_string());
    call.args(["call", "--url", &url]).args(options).env_remove("TWILIO_AUTH_TOKEN");
    if !options.contains(&"--duration") {
        call.args(["--duration", "200ms"]);
    }
    if !options.contains(&"--allow-ws") {
        call.args(["--connect", &connect]);
    }
    call.output().unwrap()
}

fn token() -> AuthToken {
    AuthToken::new("12345".to_owned()).unwrap()
}

fn typed(media_type: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\n\r\n{body}")
}

fn twiml(verbs: &str) -> String {
    typed("text/xml", &format!("<?xml version=\"1.0\"?><Response>{verbs}</Response>"))
}

fn connect(attributes: &str) -> String {
    twiml(&format!("<Connect><Stream {attributes}/></Connect>"))
}

fn failure(call: &CallReport) -> &str {
    let CallEnd::Failed { error } = &call.end else { panic!("{call:?}") };
    error
}

/// The number of Twilio's error; 0 if there is none.
fn twilio_number(call: &CallReport) -> u32 {
    call.twilio_error.map_or(0, |error| error.number)
}

/// A web server of a few pages, each a whole answer; it closes every connection after one.
struct Web {
    address: SocketAddr,
    /// The requests, head and body.
    asked: Receiver<String>,
}

impl Web {
    fn start(pages: &[(&str, &str)]) -> Self {
        let own = |(path, page): &(&str, &str)| ((*path).to_owned(), (*page).to_owned());
        let pages: HashMap<String, String> = pages.iter().map(own).collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (ask, asked) = channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let request = request_on(&mut stream);
                let path = request.split(' ').nth(1).unwrap_or_default();
                let bare = path.split('?').next().unwrap();
                let page = pages.get(path).or_else(|| pages.get(bare));
                let page = page.map_or("HTTP/1.1 404 Not Found\r\n\r\n", String::as_str);
                // A caller that has read enough may be gone.
                let _ = stream.write_all(page.as_bytes());
                if ask.send(request).is_err() {
                    return;
                }
            }
        });
        Self { address, asked }
    }

    /// A plan of a short unpaced call whose TwiML is the page at `path`; its stream goes to the sink.
    fn plan(&self, path: &str, sink: &Sink) -> Plan {
        let mut plan = Plan::new(format!("http://{}{path}", self.address));
        plan.connect = Some(sink.address.to_string());
        plan.flood = true;
        plan.duration = Some(Duration::from_millis(100));
        plan
    }
}
