//! The request of a WebSocket and its answer, as core reads and writes them for firmware.

use std::io::{self, Read, Write};

use callreel_core::http::{Error, FIELDS_MAX, Head, answer};
use tungstenite::client::IntoClientRequest as _;
use tungstenite::handshake::client::generate_key;

const REQUEST: &str = "GET /media-stream?a=b HTTP/1.1\r\nHost: example:80\r\nUpgrade: WebSocket\r\n\
    Connection: keep-alive , Upgrade\r\nSec-WebSocket-Key:  dGhlIHNhbXBsZSBub25jZQ==\t\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

fn accept(request: &str) -> Result<String, Error> {
    let head = Head::parse(request.as_bytes())?.expect("a whole head");
    assert_eq!(head.bytes(), request.len());
    head.accept().map(|accept| accept.to_string())
}

#[test]
fn a_head_is_read_once_it_is_whole() {
    for length in 0..REQUEST.len() {
        assert_eq!(Head::parse(&REQUEST.as_bytes()[..length]), Ok(None), "{length}");
    }
    let received = [REQUEST.as_bytes(), b"\x81\x85\0"].concat();
    let head = Head::parse(&received).unwrap().unwrap();
    assert_eq!(received[head.bytes()..], *b"\x81\x85\0");
    assert_eq!((head.method(), head.target()), ("GET", "/media-stream?a=b"));
    assert_eq!((head.path(), head.field("host")), ("/media-stream", Some("example:80")));
    assert_eq!((head.field("Hos"), head.field("ample")), (None, None));
    assert_eq!(accept(REQUEST).as_deref(), Ok("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
}

#[test]
fn what_is_no_request_for_a_websocket_is_told_apart() {
    for (from, to, error) in [
        ("GET", "POST", Error::Upgrade),
        ("WebSocket", "h2c", Error::Upgrade),
        (", Upgrade", ", Upgraded", Error::Upgrade),
        ("13", "8", Error::Upgrade),
        ("Sec-WebSocket-Key", "Sec-WebSocket-Kex", Error::Key),
        ("dGhl", "dGhldGhl", Error::Key),
        ("Host: example", "Host example", Error::Malformed),
        ("Host: example", "Host: a\r\n folded", Error::Malformed),
        (" HTTP/1.1", "", Error::Malformed),
    ] {
        assert!(REQUEST.contains(from));
        assert_eq!(accept(&REQUEST.replacen(from, to, 1)), Err(error), "{to}");
    }
    let many = |count| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(count));
    assert_eq!(accept(&many(FIELDS_MAX)), Err(Error::Upgrade));
    let too_many = many(FIELDS_MAX + 1);
    assert_eq!(Head::parse(too_many.as_bytes()), Err(Error::TooLong));
    for error in [Error::Malformed, Error::TooLong, Error::Upgrade, Error::Key] {
        assert!(error.status()[..3].parse::<u16>().is_ok_and(|status| status >= 400), "{error}");
    }
}

/// A server in memory: answers the request that is written to it.
#[derive(Default)]
struct Server {
    received: Vec<u8>,
    answer: Vec<u8>,
}

impl Write for Server {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.received.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(head) = Head::parse(&self.received).map_err(io::Error::other)? {
            let accept = head.accept().map_err(io::Error::other)?;
            let offered = head.field("sec-websocket-protocol").unwrap_or_default();
            let first = offered.split(", ").next().filter(|first| !first.is_empty());
            self.answer = answer(&accept, first).concat().into_bytes();
            self.received.clear();
        }
        Ok(())
    }
}

impl Read for Server {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.answer.as_slice().read(into)?;
        self.answer.drain(..count);
        Ok(count)
    }
}

#[test]
fn another_client_takes_the_answer_with_the_subprotocol_that_it_offered() {
    for offered in [None, Some("audio.jambonz.org, other")] {
        let mut request = "ws://example/media-stream".into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Key", generate_key().parse().unwrap());
        if let Some(offered) = offered {
            request.headers_mut().insert("Sec-WebSocket-Protocol", offered.parse().unwrap());
        }
        let (_, response) = tungstenite::client(request, Server::default()).unwrap();
        let chosen = response.headers().get("Sec-WebSocket-Protocol");
        assert_eq!(
            chosen.map(|chosen| chosen.as_bytes()),
            offered.map(|_| &b"audio.jambonz.org"[..])
        );
    }
}
