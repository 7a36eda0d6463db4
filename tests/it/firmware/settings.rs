//! The settings of an appliance: addresses, proofs, the time; and parts of files.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use callreel::twilio::{self, AuthToken};
use callreel_firmware_sim::qemu::{self, Network};
use libtest_mimic::Failed;
use serde_json::Value;

use super::bench::{self, Bench, ensure};
use super::conversation::{STOP, media, start, voice};
use super::device_peer::Peer;
use super::wire::{self, Wire};
use super::{Outcome, place_calls};

const SECRET: &str = "4f1c0a7d9e2b4c55";
const TOKEN: &str = "reader-of-the-front-desk";
const AUTH_TOKEN: &str = "0123456789abcdef0123456789abcdef";
const PUBLIC_URL: &str = "https://recorder.example.com";

/// A request with these lines in its head. Returns the status, the head and the body of the answer.
fn ask(
    address: SocketAddr,
    request: &str,
    lines: &str,
    body: &str,
) -> io::Result<(u16, String, Vec<u8>)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(stream, "{request} HTTP/1.1\r\nHost: {address}\r\n{lines}\r\n{body}")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.ok_or_else(|| io::Error::other("no head"))?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("no status"))?;
    Ok((status, head, answer.split_off(end + 4)))
}

fn status(address: SocketAddr, request: &str, lines: &str, body: &str) -> io::Result<u16> {
    ask(address, request, lines, body).map(|(status, ..)| status)
}

/// Ensures that a request is answered with this status.
fn expect(is: u16, bench: &Bench, request: &str, lines: &str, body: &str) -> Outcome {
    let got = status(bench.appliance.address(), request, lines, body)?;
    ensure(got == is, || format!("{request}, {lines:?}: {got}, not {is}"))
}

pub(crate) fn numbers_differ() -> Outcome {
    let hardware = "52:54:00:c0:ff:ee";
    let wire = Wire::start()?;
    let network =
        Network { hardware: Some(hardware), wire: Some(wire.address()), ..Network::default() };
    let mut bench = Bench::configured("numbers", 16, "", network)?;
    for boots in 1..=2 {
        for _ in 0..3 {
            let health = bench.health()?;
            ensure(health["boots"] == boots && health["reset"] == "power", || health.to_string())?;
        }
        if boots == 1 {
            bench = bench.cut_power_and_boot_in(network)?;
        }
    }
    let accepted = wire.accepted();
    let numbers: BTreeSet<u32> = accepted.iter().map(|(_, number)| *number).collect();
    println!("{} connections in two boots", accepted.len());
    ensure(accepted.len() >= 8 && numbers.len() == accepted.len(), || format!("{accepted:?}"))?;
    let senders: BTreeSet<&str> = accepted.iter().map(|(sender, _)| sender.as_str()).collect();
    ensure(senders.into_iter().eq([hardware.replace(":", "-").as_str()]), || {
        format!("{accepted:?}")
    })?;
    bench.check_card()
}

pub(crate) fn a_bad_line() -> Outcome {
    let address = Ipv4Addr::new(10, 0, 2, 77);
    let configuration = "# front desk\r\nname = front-desk\r\naddress = 10.0.2.77/24\r\n\
                         gateway = 10.0.2.2\r\nsecret = short\r\nsekret = 0123456789abcdef\r\n";
    let bench = Bench::configured(
        "bad-line",
        16,
        configuration,
        Network { address, ..Network::default() },
    )?;
    let health = bench.health()?;
    let is_told = health["config"] == "faulty"
        && health["config_faults"] == 2
        && health["config_errors"][0]["line"] == 5
        && health["config_errors"][1]["line"] == 6;
    ensure(is_told, || health.to_string())?;
    let is_in_force = health["name"] == "front-desk" && health["address"] == "10.0.2.77";
    ensure(is_in_force, || health.to_string())?;
    // The secret is not known, so nobody has shown it.
    let refusal = Peer::connect(bench.appliance.address()).err().map(|error| error.to_string());
    ensure(refusal.as_deref() == Some("HTTP/1.1 503 Service Unavailable"), || {
        format!("a call without the secret got {refusal:?}")
    })?;
    expect(200, &bench, "GET /recordings", "", "")
}

pub(crate) fn the_time() -> Outcome {
    let wire = Wire::start()?;
    let configuration =
        format!("name=front-desk\ndns={}\ntime_server={}\n", wire::MACHINE, wire::NAME);
    let network = Network { wire: Some(wire.address()), ..Network::default() };
    let bench = Bench::configured("time", 32, &configuration, network)?;
    bench.await_health(|health| health["time"].is_string())?;
    let told: jiff::Timestamp = text(&bench.health()?["time"])?.parse()?;
    let begin = jiff::Timestamp::from_second(wire::UNIX_S as i64)?;
    let is_near =
        |moment: jiff::Timestamp| (0..60).contains(&moment.duration_since(begin).as_secs());
    ensure(is_near(told), || told.to_string())?;
    let mut peer = Peer::connect(bench.appliance.address())?;
    peer.send(
        r#"{"event":"start","start":{"streamSid":"MZ1","callSid":"CA1","accountSid":"AC1","tracks":["inbound"],"customParameters":{"a\"b":"c\\d\u0001","long":"LONG","z":"ü"}}}"#
            .replace("LONG", &"x".repeat(200))
            .as_str(),
    )?;
    for frame in 0..50 {
        peer.send(&media(frame, &voice(1, frame)))?;
    }
    peer.send(STOP)?;
    ensure(peer.close_code()? == 1000, || "another close code".into())?;
    let record = bench.end_record(1)?;
    let [started, ended] = ["started_at", "ended_at"].map(|name| text(&record[name]));
    let [started, ended]: [jiff::Timestamp; 2] = [started?.parse()?, ended?.parse()?];
    let lasted = ended.duration_since(started).as_millis();
    ensure(is_near(started) && record["elapsed_ms"] == lasted as i64, || record.to_string())?;
    let parameters = &record["parameters"];
    let is_kept = parameters["a\"b"] == "c\\d\u{1}" && parameters["z"] == "ü";
    ensure(is_kept && record["parameters_dropped"] == 1, || record.to_string())?;
    for (name, value) in [
        ("schema", Value::from(1)),
        ("id", "R0000001".into()),
        ("instance", "front-desk".into()),
        ("account_id", "AC1".into()),
        ("tracks", vec!["inbound"].into()),
        ("samples", 8000.into()),
        ("duration_ms", 1000.into()),
    ] {
        ensure(record[name] == value, || format!("{name}: {record}"))?;
    }
    let place = bench.place.clone();
    bench.check_card()?;
    // mtools shows the date in the form of the place.
    let volume = format!("{}@@{}", place.join("card.img").display(), qemu::PARTITION_OFFSET);
    let output = Command::new("mdir").args(["-i", &volume, "::/CALLS"]).output()?;
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    let date = started.strftime("%Y-%m-%d").to_string();
    let dated = listed.lines().filter(|line| line.starts_with("R0000001") && line.contains(&date));
    ensure(dated.count() == 2, || listed.clone())
}

fn text(value: &Value) -> Result<&str, Failed> {
    value.as_str().ok_or_else(|| Failed::from(format!("no text but {value}")))
}

pub(crate) fn the_proofs() -> Outcome {
    let configuration = format!(
        "secret={SECRET}\nreading_token={TOKEN}\nauth_token={AUTH_TOKEN}\npublic_url={PUBLIC_URL}/\n"
    );
    let bench = Bench::configured("proofs", 32, &configuration, Network::default())?;
    let address = bench.appliance.address();
    ensure(bench.health()?["config"] == "read", || "another configuration".into())?;
    // Readers.
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    for (is, lines) in [
        (401, String::new()),
        (401, bearer("reader-of-the-front-desj")),
        (401, bearer(&TOKEN[1..])),
        (401, format!("Authorization: Basic {TOKEN}\r\n")),
        (200, bearer(TOKEN)),
        (200, format!("X-Forwarded-For: 192.0.2.1\r\nauthorization: bearer  {TOKEN}\r\n")),
    ] {
        expect(is, &bench, "GET /recordings", &lines, "")?;
    }
    expect(401, &bench, "GET /recordings/R0000001.wav", "", "")?;
    expect(404, &bench, "GET /recordings/R0000001.wav", &bearer(TOKEN), "")?;
    // Webhooks, signed as a server signs and checks them.
    let token = AuthToken::new(AUTH_TOKEN.into())?;
    let form = "To=%2B15550100&From=%2B15550199&CallSid=CA1&To=%2B15550100&Name=a+b%C3%BC&Empty=";
    let fields: Vec<(String, String)> =
        form_urlencoded::parse(form.as_bytes()).into_owned().collect();
    let path = format!("/incoming-call/{SECRET}?a=b%20c");
    let url = format!("{PUBLIC_URL}{path}");
    let signed = |signature: &str| {
        format!(
            "Content-Type: application/x-www-form-urlencoded; charset=UTF-8\r\nContent-Length: {}\r\n\
             X-Twilio-Signature: {signature}\r\n",
            form.len()
        )
    };
    let good = signed(&twilio::sign(&token, &url, &fields));
    let post = format!("POST {path}");
    let (got, _, twiml) = ask(address, &post, &good, form)?;
    let stream = format!(r#"<Stream url="wss://recorder.example.com/media-stream/{SECRET}" />"#);
    let twiml = String::from_utf8_lossy(&twiml).into_owned();
    ensure(got == 200 && twiml.contains(&stream), || format!("{got}: {twiml}"))?;
    let none: [(&str, &str); 0] = [];
    let get = format!("X-Twilio-Signature: {}\r\n", twilio::sign(&token, &url, &none));
    expect(200, &bench, &format!("GET {path}"), &get, "")?;
    let other = AuthToken::new(AUTH_TOKEN.replace("01", "11"))?;
    for bad in [
        twilio::sign(&other, &url, &fields),
        twilio::sign(&token, &format!("{PUBLIC_URL}/incoming-call/{SECRET}"), &fields),
        twilio::sign(&token, &url, &fields[..5]),
        "short".to_owned(),
    ] {
        expect(403, &bench, &post, &signed(&bad), form)?;
    }
    expect(403, &bench, &post, &good, &form.replace("15550199", "15550198"))?;
    expect(403, &bench, "POST /incoming-call/4f1c0a7d9e2b4c56", &good, form)?;
    expect(403, &bench, "GET /incoming-call", "", "")?;
    // Streams.
    let stream = |path: &str, signature: &str| {
        let line = format!("X-Twilio-Signature: {signature}\r\n");
        Peer::connect_to(path, &line, address)
    };
    let path = format!("/media-stream/{SECRET}");
    let signature = twilio::sign(&token, &format!("wss://recorder.example.com{path}"), &none);
    let https = twilio::sign(&token, &format!("{PUBLIC_URL}{path}"), &none);
    let wrong_path = format!("/media-stream/{}", SECRET.replace('4', "5"));
    for (path, signature) in [
        ("/media-stream", &signature),
        (&wrong_path, &signature),
        (&path, &https),
        (&path, &String::new()),
    ] {
        let refusal = stream(path, signature).err().map(|error| error.to_string());
        ensure(refusal.as_deref() == Some("HTTP/1.1 403 Forbidden"), || {
            format!("{path}, {signature}: {refusal:?}")
        })?;
    }
    let mut peer = stream(&path, &signature)?;
    peer.send(&start(1))?;
    peer.send(STOP)?;
    ensure(peer.close_code()? == 1000, || "another close code".into())?;
    expect(200, &bench, "GET /recordings/R0000001.json", &bearer(TOKEN), "")
}

pub(crate) fn without_settings() -> Outcome {
    let bench = Bench::boot("no-settings", 64)?;
    let health = bench.health()?;
    let is_so = health["config"] == "none" && health["address"] == "10.0.2.15";
    ensure(is_so && health.get("time").is_none(), || health.to_string())?;
    place_calls(&bench, 1, 1)?;
    for (is, lines) in [
        (200, ""),
        (403, "X-Forwarded-For: 192.0.2.1\r\n"),
        (403, "Forwarded: for=192.0.2.1\r\n"),
        (403, "Via: 1.1 proxy\r\n"),
    ] {
        expect(is, &bench, "GET /recordings/R0000001.wav", lines, "")?;
        expect(is, &bench, "GET /recordings", lines, "")?;
    }
    let address = bench.appliance.address();
    let (got, _, twiml) = ask(address, "GET /incoming-call", "", "")?;
    let stream = format!(r#"<Stream url="wss://{address}/media-stream" />"#);
    let twiml = String::from_utf8_lossy(&twiml).into_owned();
    ensure(got == 200 && twiml.contains(&stream), || format!("{got}: {twiml}"))?;
    expect(404, &bench, "GET /media-stream/0123456789abcdef", UPGRADE, "")
}

const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

pub(crate) fn parts_and_ids() -> Outcome {
    let bench = Bench::boot("parts", 64)?;
    let address = bench.appliance.address();
    let mut open = Peer::connect(address)?;
    open.send(&start(77))?;
    open.send(&media(0, &voice(77, 0)))?;
    bench::poll(|| Ok(bench.recordings()? == 1))?;
    for call in 1..=3 {
        let mut peer = Peer::connect(address)?;
        peer.send(&start(call))?;
        for frame in 0..100 {
            peer.send(&media(frame, &voice(call, frame)))?;
        }
        peer.send(STOP)?;
        ensure(peer.close_code()? == 1000, || "another close code".into())?;
    }
    let whole = bench.wav(3)?;
    let path = "GET /recordings/R0000003.wav";
    for (range, first, last) in [
        ("0-0", 0, 0),
        ("1-2", 1, 2),
        ("511-512", 511, 512),
        ("1000-9999", 1000, 9999),
        ("2048-", 2048, whole.len() - 1),
        ("-700", whole.len() - 700, whole.len() - 1),
        ("30000-999999999", 30_000, whole.len() - 1),
    ] {
        let (got, head, body) = ask(address, path, &format!("Range: bytes={range}\r\n"), "")?;
        ensure(got == 206 && body == whole[first..=last], || format!("{range}: {head}"))?;
        let told = format!("Content-Range: bytes {first}-{last}/{}", whole.len());
        ensure(head.lines().any(|line| line == told), || format!("{range}: {head}"))?;
    }
    let (got, head, _) = ask(address, path, "Range: bytes=32044-\r\n", "")?;
    ensure(got == 416 && head.contains("Content-Range: bytes */32044"), || head)?;
    // A client that goes on with a broken download.
    let file = bench.place.join("half.wav");
    fs::write(&file, &whole[..12_345])?;
    let url = format!("http://{address}/recordings/R0000003.wav");
    let curl = Command::new("curl").args(["-sS", "-C", "-", "-o"]).arg(&file).arg(&url).status()?;
    ensure(curl.success() && fs::read(&file)? == whole, || "curl has another file".into())?;
    // By the ids of the stream and of the call, also while it is recorded.
    for (id, name) in [
        ("MZ2", Some("R0000003.wav")),
        ("CA3", Some("R0000004.wav")),
        ("MZ77", Some("R0000001.wav")),
        ("MZ7", None),
        ("2", None),
        ("", None),
    ] {
        let names = bench.names_of(id)?;
        ensure(names.iter().map(String::as_str).eq(name), || format!("{id}: {names:?}"))?;
    }
    open.send(STOP)?;
    ensure(open.close_code()? == 1000, || "another close code".into())
}
