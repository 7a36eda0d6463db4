//! An intermediary between a provider and a bot that interferes with the call in one way, or in none.

use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::client::{self, CLOSE, FIN, PING, PONG, TEXT};
use super::process::PATIENCE;
use super::relayed::{self as bot, Frame, read_head};

/// Silence of the bot after which an intermediary that minds it ends the call.
pub(crate) const IDLE: Duration = Duration::from_millis(200);

/// Longest message that an intermediary with a limit passes on.
pub(crate) const LIMIT_BYTES: usize = 64 * 1024;

/// Something that an intermediary does to a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Deed {
    Nothing,
    SwallowEchoes,
    DelayEchoes,
    EchoEarly,
    SwallowMarks,
    DropTimestamps,
    BareNumbers,
    DelayStart,
    Merge,
    ClearFirst,
    Rewrite,
    DropOdd,
    LimitLength,
    PassPings,
    ChangeHost,
    PassExtensions,
    DropAddresses,
    NoUnselected,
    PassUnoffered,
    AnswerFirst,
    SecondSocket,
    WaitForProvider,
    ChangeCodes,
    EndIdle,
    EndAtStop,
}

/// A listener in front of a bot.
pub(crate) struct Intermediary {
    pub address: SocketAddr,
}

impl Intermediary {
    /// An intermediary for one call to the bot at this address.
    pub(crate) fn start(bot: SocketAddr, deed: Deed) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (provider, _) = listener.accept().expect("a call");
            // A side that is gone ends the call.
            let _ = Call::pass(provider, bot, deed);
        });
        Self { address }
    }
}

/// A call through an intermediary.
struct Call {
    deed: Deed,
    /// Bytes for the provider, which wait without a limit; `None` ends the call.
    to_provider: Sender<Option<Vec<u8>>>,
    to_bot: Mutex<TcpStream>,
}

/// The lines of a head without those of these headers.
fn without(head: &str, names: &[&str]) -> String {
    let is_kept = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default().to_lowercase();
        !names.contains(&name.as_str())
    };
    head.trim_end().lines().filter(is_kept).map(|line| format!("{line}\r\n")).collect()
}

impl Call {
    /// Does the handshake, and passes on all messages until a side ends.
    fn pass(mut provider: TcpStream, bot: SocketAddr, deed: Deed) -> std::io::Result<()> {
        provider.set_nodelay(true)?;
        provider.set_read_timeout(Some(PATIENCE))?;
        let asked = read_head(&mut provider);
        if deed == Deed::AnswerFirst {
            write!(provider, "HTTP/1.1 101 Switching Protocols\r\n\r\n")?;
        }
        let mut to_bot = TcpStream::connect(bot)?;
        to_bot.set_nodelay(true)?;
        let is_idle = deed == Deed::EndIdle;
        to_bot.set_read_timeout(Some(if is_idle { IDLE } else { PATIENCE }))?;
        let request = request(&asked, &provider, deed);
        to_bot.write_all(request.as_bytes())?;
        let answer = read_head(&mut to_bot);
        let _second = match deed {
            Deed::SecondSocket => Some(TcpStream::connect(bot)?),
            _ => None,
        };
        if deed != Deed::AnswerFirst {
            provider.write_all(answer_of(&asked, &answer, deed).as_bytes())?;
        }
        let (sender, waiting) = channel::<Option<Vec<u8>>>();
        let call = Self { deed, to_provider: sender, to_bot: Mutex::new(to_bot.try_clone()?) };
        let call = Arc::new(call);
        let (of_provider, mut socket) = (Arc::clone(&call), provider.try_clone()?);
        thread::spawn(move || of_provider.pass_of_provider(socket));
        socket = provider.try_clone()?;
        let other = to_bot.try_clone()?;
        thread::spawn(move || {
            while let Ok(Some(bytes)) = waiting.recv()
                && socket.write_all(&bytes).is_ok()
            {}
            let _ = socket.shutdown(Shutdown::Both);
            let _ = other.shutdown(Shutdown::Both);
        });
        if deed == Deed::WaitForProvider {
            // Nothing of the bot is read while the provider says nothing.
            provider.peek(&mut [0])?;
        }
        call.pass_of_bot(to_bot);
        Ok(())
    }

    /// Passes on the messages of the provider.
    fn pass_of_provider(&self, mut provider: TcpStream) {
        let mut held = Vec::new();
        let mut is_started = false;
        while let Some(frame) = Frame::read(&mut provider) {
            let text = String::from_utf8_lossy(&frame.payload).into_owned();
            let is = |event: &str| text.contains(&format!(r#""event":"{event}""#));
            match (self.deed, frame.opcode()) {
                (Deed::PassPings, _) | (_, CLOSE) => {}
                (_, PING | PONG) => {
                    if frame.opcode() == PING {
                        self.send_to_provider(&bot::frame(FIN | PONG, &frame.payload));
                    }
                    continue;
                }
                (Deed::SwallowEchoes | Deed::EchoEarly, _) if is("mark") => continue,
                (Deed::DelayEchoes, _) if is("mark") => {
                    held.push(frame.raw);
                    continue;
                }
                (Deed::DelayStart, _) if is("start") && !is_started => {
                    held.push(frame.raw);
                    is_started = true;
                    continue;
                }
                (Deed::EndAtStop, _) if is("stop") => break,
                _ => {}
            }
            let changed = match self.deed {
                Deed::DropTimestamps => without_timestamp(&text),
                Deed::BareNumbers => without_quotes(&text),
                Deed::Rewrite => rewritten(&text),
                _ => text.clone(),
            };
            let raw = if changed == text { frame.raw } else { client::text(changed) };
            self.send_to_bot(&raw);
            if is("media") {
                held.drain(..).for_each(|raw| self.send_to_bot(&raw));
            }
        }
        self.end();
    }

    /// Passes on the messages of the bot.
    fn pass_of_bot(&self, mut bot: TcpStream) {
        let mut held = Vec::<Vec<u8>>::new();
        while let Some(frame) = Frame::read(&mut bot) {
            let text = String::from_utf8_lossy(&frame.payload).into_owned();
            let is = |event: &str| text.contains(&format!(r#""event": "{event}""#));
            match (self.deed, frame.opcode()) {
                (Deed::ChangeCodes, CLOSE) => {
                    self.send_to_provider(&bot::frame(FIN | CLOSE, &1000_u16.to_be_bytes()));
                    continue;
                }
                (Deed::PassPings, _) | (_, CLOSE) => {}
                (_, PING | PONG) => {
                    if frame.opcode() == PING {
                        self.send_to_bot(&client::frame(FIN | PONG, &frame.payload));
                    }
                    continue;
                }
                (Deed::SwallowMarks, _) if is("mark") => continue,
                (Deed::EchoEarly, _) if is("mark") => self.send_to_bot(&client::text(&text)),
                (Deed::DropOdd, _) if !text.contains(r#""event""#) => continue,
                (Deed::LimitLength, _) if text.len() > LIMIT_BYTES => break,
                // Audio waits for more of it, or for another message, which goes first.
                (Deed::Merge | Deed::ClearFirst, TEXT) if is("media") && held.is_empty() => {
                    held.push(frame.payload);
                    continue;
                }
                (Deed::Merge, TEXT) if is("media") => {
                    let whole = merged(&held.remove(0), &frame.payload);
                    self.send_to_provider(&bot::frame(FIN | TEXT, whole.as_bytes()));
                    continue;
                }
                _ => {}
            }
            let changed = if self.deed == Deed::Rewrite { rewritten(&text) } else { text.clone() };
            let raw = match changed == text {
                true => frame.raw,
                false => bot::frame(FIN | TEXT, changed.as_bytes()),
            };
            self.send_to_provider(&raw);
            for payload in held.drain(..) {
                self.send_to_provider(&bot::frame(FIN | TEXT, &payload));
            }
        }
        self.end();
    }

    fn send_to_provider(&self, bytes: &[u8]) {
        let _ = self.to_provider.send(Some(bytes.to_vec()));
    }

    fn send_to_bot(&self, bytes: &[u8]) {
        let _ = self.to_bot.lock().unwrap().write_all(bytes);
    }

    /// Ends both sides behind all that waits.
    fn end(&self) {
        let _ = self.to_provider.send(None);
    }
}

/// The request to the bot for that of the provider.
fn request(asked: &str, provider: &TcpStream, deed: Deed) -> String {
    let mut left_out = vec!["x-forwarded-for"];
    if deed != Deed::PassExtensions {
        left_out.push("sec-websocket-extensions");
    }
    if deed == Deed::ChangeHost {
        left_out.push("host");
    }
    let mut request = without(asked, &left_out);
    if deed == Deed::ChangeHost {
        request.push_str("Host: 127.0.0.1\r\n");
    }
    if deed != Deed::DropAddresses {
        let of_asked = asked.lines().filter_map(|line| line.split_once(": "));
        let known = of_asked.filter(|(name, _)| name.eq_ignore_ascii_case("x-forwarded-for"));
        let mut addresses: Vec<_> = known.map(|(_, value)| value.to_owned()).collect();
        addresses.push(provider.peer_addr().unwrap().ip().to_string());
        request.push_str(&format!("X-Forwarded-For: {}\r\n", addresses.join(", ")));
    }
    request + "\r\n"
}

/// The answer to the provider for that of the bot.
fn answer_of(asked: &str, answer: &str, deed: Deed) -> String {
    let has_protocol = |head: &str| head.to_lowercase().contains("sec-websocket-protocol:");
    if deed == Deed::NoUnselected && has_protocol(asked) && !has_protocol(answer) {
        return "HTTP/1.1 502 Bad Gateway\r\n\r\n".to_owned();
    }
    let mut left_out = vec!["sec-websocket-extensions"];
    if deed == Deed::PassExtensions {
        left_out.clear();
    }
    if deed != Deed::PassUnoffered && !has_protocol(asked) {
        left_out.push("sec-websocket-protocol");
    }
    without(answer, &left_out) + "\r\n"
}

/// A message without its timestamp.
fn without_timestamp(text: &str) -> String {
    match text.split_once(r#""timestamp":""#) {
        None => text.to_owned(),
        Some((before, rest)) => {
            let (_, behind) = rest.split_once("\",").unwrap_or_default();
            format!("{before}{behind}")
        }
    }
}

/// A message whose sequence number has no quotes.
fn without_quotes(text: &str) -> String {
    match text.split_once(r#""sequenceNumber":""#) {
        None => text.to_owned(),
        Some((before, rest)) => {
            format!(r#"{before}"sequenceNumber":{}"#, rest.replacen('"', "", 1))
        }
    }
}

/// A message as another program writes it.
fn rewritten(text: &str) -> String {
    serde_json::from_str::<Value>(text).map_or_else(|_| text.to_owned(), |value| value.to_string())
}

/// One message with the audio of two.
fn merged(first: &[u8], second: &[u8]) -> String {
    let read = |message: &[u8]| serde_json::from_slice::<Value>(message).expect("JSON");
    let (mut whole, second) = (read(first), read(second));
    let payloads = [&whole, &second].map(|message| message["media"]["payload"].as_str().unwrap());
    whole["media"]["payload"] = payloads.concat().into();
    whole.to_string()
}
