//! A voice bot of the tests, of tungstenite and serde_json: it does as a script tells, message by message.

use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use base64ct::{Base64, Encoding as _};
use serde_json::{Value, json};
use tungstenite::handshake::server::{Request, Response};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::{Message, WebSocket};

use super::process::PATIENCE;

/// A bot for one call, on a thread of its own.
pub(crate) struct Bot<T> {
    pub(crate) url: String,
    ended: Receiver<T>,
}

impl<T: Send + 'static> Bot<T> {
    /// Begins to listen for the call that `script` conducts.
    pub(crate) fn start(script: impl FnOnce(&mut Talk) -> T + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}/bot", listener.local_addr().unwrap());
        let (ended, receiver) = channel();
        thread::spawn(move || {
            let (tcp, _) = listener.accept().unwrap();
            tcp.set_read_timeout(Some(PATIENCE)).unwrap();
            tcp.set_nodelay(true).unwrap();
            #[expect(clippy::result_large_err, reason = "tungstenite asks for it")]
            let choose = |request: &Request, mut response: Response| {
                if let Some(offered) = request.headers().get("sec-websocket-protocol") {
                    response.headers_mut().insert("sec-websocket-protocol", offered.clone());
                }
                Ok(response)
            };
            let ws = tungstenite::accept_hdr(tcp, choose).unwrap();
            let mut talk = Talk { ws, heard: Vec::new(), chunks: 0 };
            let _ = ended.send(script(&mut talk));
        });
        Self { url, ended: receiver }
    }

    /// The value of the script, once it has ended.
    pub(crate) fn end(self) -> T {
        self.ended.recv_timeout(PATIENCE).expect("the script ends")
    }
}

/// The bot's side of a call.
pub(crate) struct Talk {
    pub(crate) ws: WebSocket<TcpStream>,
    /// Audio of the caller so far, as it was on the wire.
    pub(crate) heard: Vec<u8>,
    /// Messages with audio so far.
    pub(crate) chunks: u64,
}

impl Talk {
    /// The next message that is no audio, as JSON or as a string; `None` at the end of the connection.
    /// Audio before it is gathered.
    pub(crate) fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(other) = self.step()? {
                return Some(other);
            }
        }
    }

    /// Reads one message; returns it if it is no audio.
    fn step(&mut self) -> Option<Option<Value>> {
        let audio = match self.ws.read() {
            Ok(Message::Binary(bytes)) => bytes.to_vec(),
            Ok(Message::Text(text)) => {
                let Ok(message) = serde_json::from_str::<Value>(&text) else {
                    return Some(Some(Value::String(text.to_string())));
                };
                let is_of_bandwidth = message["eventType"] == "media";
                if message["event"] != "media" && !is_of_bandwidth {
                    return Some(Some(message));
                }
                let media = if is_of_bandwidth { &message } else { &message["media"] };
                Base64::decode_vec(media["payload"].as_str().unwrap()).unwrap()
            }
            Ok(_) => return Some(None),
            Err(_) => return None,
        };
        self.chunks += 1;
        self.heard.extend(audio);
        Some(None)
    }

    /// Reads on until the caller has sent this many chunks; other messages before them are lost.
    pub(crate) fn until_chunk(&mut self, count: u64) {
        while self.chunks < count {
            self.step().expect("the call goes on");
        }
    }

    /// Reads on until the end of the connection; returns the messages that are no audio.
    pub(crate) fn rest(&mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.next()).collect()
    }

    pub(crate) fn send(&mut self, message: &Value) {
        self.ws.send(Message::text(message.to_string())).unwrap();
    }

    pub(crate) fn play(&mut self, audio: &[u8]) {
        self.send(&media(audio));
    }

    /// Plays audio in a message of three fragments with a ping between them.
    pub(crate) fn play_in_fragments(&mut self, audio: &[u8]) {
        let text = media(audio).to_string().into_bytes();
        let third = text.len() / 3;
        let mut parts = [&text[..third], &text[third..2 * third], &text[2 * third..]].into_iter();
        let mut send = |part: &[u8], opcode, is_last| {
            let frame = Frame::message(part.to_vec(), OpCode::Data(opcode), is_last);
            self.ws.send(Message::Frame(frame)).unwrap();
        };
        send(parts.next().unwrap(), Data::Text, false);
        send(parts.next().unwrap(), Data::Continue, false);
        self.ws.send(Message::Ping("between".into())).unwrap();
        let mut send = |part: &[u8]| {
            let frame = Frame::message(part.to_vec(), OpCode::Data(Data::Continue), true);
            self.ws.send(Message::Frame(frame)).unwrap();
        };
        send(parts.next().unwrap());
    }

    pub(crate) fn mark(&mut self, name: &str) {
        self.send(&json!({"event": "mark", "streamSid": null, "mark": {"name": name}}));
    }

    pub(crate) fn clear(&mut self) {
        self.send(&json!({"event": "clear", "streamSid": null}));
    }

    pub(crate) fn close(&mut self, code: u16) {
        let _ = self.ws.close(Some(CloseFrame { code: code.into(), reason: "".into() }));
    }
}

/// A message that plays audio, in Twilio's dialect.
fn media(audio: &[u8]) -> Value {
    json!({"event": "media", "streamSid": null, "media": {"payload": Base64::encode_string(audio)}})
}
