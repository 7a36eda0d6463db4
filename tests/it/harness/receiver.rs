//! A web server that takes webhook messages.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::time::Instant;

/// The headers and the body of a request.
pub(crate) type Request = (BTreeMap<String, String>, String);

/// A web server that answers each request with the next status, and passes the requests on.
pub(crate) fn receiver(statuses: Vec<u16>) -> (String, mpsc::Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (sender, received) = mpsc::channel();
    std::thread::spawn(move || {
        for status in statuses {
            let (mut socket, _) = listener.accept().unwrap();
            let request = read_request(&mut socket);
            let answer =
                format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            socket.write_all(answer.as_bytes()).unwrap();
            if sender.send(request).is_err() {
                return;
            }
        }
    });
    (url, received)
}

/// A web server that answers each request in a thread of its own, and passes the requests on, with the
/// times at which they came. `answer` makes the status line without the version, and further headers;
/// `None` for no answer and an open connection.
pub(crate) fn receivers(
    answer: impl Fn(&Request) -> Option<String> + Send + Sync + 'static,
) -> (String, mpsc::Receiver<(Request, Instant)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, received) = mpsc::channel();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let (mut socket, sender, answer) = (socket.unwrap(), sender.clone(), answer.clone());
            std::thread::spawn(move || {
                let request = read_request(&mut socket);
                let answer = answer(&request);
                // The test may be over.
                let _ = sender.send((request, Instant::now()));
                match answer {
                    Some(answer) => {
                        let end = "Content-Length: 0\r\nConnection: close\r\n\r\n";
                        let _ = write!(socket, "HTTP/1.1 {answer}\r\n{end}");
                    }
                    None => drop(socket.read(&mut [0])),
                }
            });
        }
    });
    (url, received)
}

/// Reads a request. The names of its headers are in lower case; `:path` is the path.
pub(crate) fn read_request(socket: &mut TcpStream) -> Request {
    let mut reader = BufReader::new(socket);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim_end().split_once(": ") {
            Some((name, value)) => drop(headers.insert(name.to_lowercase(), value.to_owned())),
            None if line.trim_end().is_empty() => break,
            None => {
                let path = line.split(' ').nth(1).unwrap_or_default();
                headers.insert(":path".to_owned(), path.to_owned());
            }
        }
    }
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    (headers, String::from_utf8(body).unwrap())
}

/// Reads a request up to its end, or to that of the connection.
pub(crate) fn request_on(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    let mut bytes = [0; 4096];
    while !is_whole(&request) {
        match stream.read(&mut bytes).unwrap() {
            0 => break,
            count => request.extend_from_slice(&bytes[..count]),
        }
    }
    String::from_utf8(request).unwrap()
}

/// Whether a request has all of its body.
pub(crate) fn is_whole(request: &[u8]) -> bool {
    let request = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}
