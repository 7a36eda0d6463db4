//! `callreel bot`: a small voice bot, as the other end of a two-way stream in Twilio's dialect.
//!
//! It listens until the caller has been silent for a while, and answers with made-up speech: faster than real
//! time, with a mark behind each piece. A caller who speaks meanwhile interrupts it: it clears its audio, and
//! answers again. Demos and rehearsals have it where a real bot would stand.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use callreel_core::g711::{SAMPLE_RATE_HZ, decode_mulaw};
use data_encoding::BASE64;
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::accept_async_with_config;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};

use crate::audio::speech;
use crate::log::{self, ReaderGone};
use crate::{ports, units};

/// Most calls at one time; further ones wait.
const CALLS_MAX: usize = 100;

/// Longest time for a WebSocket handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest message that is read.
const MESSAGE_BYTES_MAX: usize = 256 << 10;

/// Audio of one message, and the time between two messages: five times real time.
const PIECE: Duration = Duration::from_millis(400);
const PIECE_INTERVAL: Duration = Duration::from_millis(80);

/// Mean amplitude of a chunk from which on it counts as speech.
const LOUDNESS_MIN: u64 = 300;

/// Speech after which the caller counts as speaking, so that a click is no turn.
const SPEECH_MIN: Duration = Duration::from_millis(60);

/// Settings of `callreel bot`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  callreel bot
  callreel call --url ws://127.0.0.1:8765/ --say question.wav@1s --barge-in 5s

It goes on until Ctrl-C. The first line that it prints has its URL.")]
pub struct Args {
    /// IP address and port to take calls on; port 0 is any free one
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8765")]
    pub listen: SocketAddr,

    /// Length of an answer
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = units::positive)]
    pub answer: Duration,

    /// Silence of the caller that ends a turn; the answer begins behind it
    #[arg(long, value_name = "DURATION", default_value = "600ms", value_parser = units::positive)]
    pub pause: Duration,
}

/// Reasons why the bot does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The port cannot be had.
    #[error("{}", ports::refusal(*.address, "--listen", .cause))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The operating system's error.
        cause: io::Error,
    },
    /// The system gives no threads or no sockets.
    #[error("the bot cannot run here: {0}")]
    Machine(#[from] io::Error),
    /// The reader of the output is gone, so that nobody learns the URL.
    #[error(transparent)]
    ReaderGone(#[from] ReaderGone),
}

/// Manners of a bot.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Length of an answer.
    pub answer: Duration,
    /// Silence of the caller that ends a turn.
    pub pause: Duration,
}

impl Default for Manner {
    /// Answers of 3 s, after 600 ms of silence.
    fn default() -> Self {
        Self { answer: Duration::from_secs(3), pause: Duration::from_millis(600) }
    }
}

/// Runs `callreel bot` until the process ends.
///
/// It must not be called from within an async runtime.
///
/// # Errors
/// See [`Error`].
pub fn run(args: &Args) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let failed = |cause| Error::Listen { address: args.listen, cause };
        let listener = TcpListener::bind(args.listen).await.map_err(failed)?;
        log::say(&format!("a bot takes calls at ws://{}/", listener.local_addr()?))?;
        serve(listener, Manner { answer: args.answer, pause: args.pause }).await;
        Ok(())
    })
}

/// Takes calls until it is dropped, each on a task of its own: 100 at one time, and further ones wait.
pub async fn serve(listener: TcpListener, manner: Manner) {
    let places = Arc::new(Semaphore::new(CALLS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("nobody closes it");
        // A connection that was reset before it was taken; or no descriptor is free, and one may be soon.
        let Ok((tcp, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        tokio::spawn(async move {
            // A call that breaks off leaves nothing to do.
            let _ = converse(tcp, manner).await;
            drop(place);
        });
    }
}

/// The part of a message that the bot reads.
#[derive(Deserialize)]
struct Heard {
    event: String,
    #[serde(default)]
    start: Start,
    #[serde(default)]
    media: Media,
    #[serde(default)]
    mark: Mark,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Start {
    #[serde(default)]
    stream_sid: String,
}

#[derive(Default, Deserialize)]
struct Media {
    #[serde(default)]
    payload: String,
}

#[derive(Default, Deserialize)]
struct Mark {
    #[serde(default)]
    name: String,
}

type Ws = WebSocketStream<TcpStream>;
type Wire = tokio_tungstenite::tungstenite::Result<()>;

async fn converse(tcp: TcpStream, manner: Manner) -> Wire {
    tcp.set_nodelay(true)?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let shaken = timeout(HANDSHAKE_TIMEOUT, accept_async_with_config(tcp, Some(config))).await;
    let mut ws = shaken.map_err(io::Error::from)??;
    let mut bot = Bot::new(manner);
    loop {
        let next_piece = bot.answer.as_ref().and_then(Answer::next);
        let heard = tokio::select! {
            heard = ws.next() => heard,
            () = sleep_until(next_piece.unwrap_or_else(Instant::now)), if next_piece.is_some() => {
                bot.speak(&mut ws).await?;
                continue;
            }
        };
        let message = match heard {
            Some(Ok(Message::Text(text))) => serde_json::from_str::<Heard>(&text),
            Some(Ok(_)) => continue,
            Some(Err(error)) => return Err(error),
            None => return Ok(()),
        };
        // Messages that the bot does not know say nothing to it.
        let Ok(message) = message else { continue };
        match message.event.as_str() {
            "start" => bot.stream = message.start.stream_sid,
            "media" => bot.hear(&message.media.payload, &mut ws).await?,
            "mark" => bot.played(&message.mark.name),
            "stop" => {
                let code = 1000.into();
                return ws.close(Some(CloseFrame { code, reason: "".into() })).await;
            }
            _ => {}
        }
    }
}

/// A bot in one call.
struct Bot {
    manner: Manner,
    stream: String,
    turns: Turns,
    /// The answer that is said or played.
    answer: Option<Answer>,
    answers: u64,
}

/// An answer, as far as it is not played yet.
struct Answer {
    number: u64,
    audio: Vec<u8>,
    sent: usize,
    /// Number of marks that were sent and not echoed.
    pending: usize,
    marks: usize,
    due: Instant,
}

impl Answer {
    /// The time of the next piece; `None` if all is sent.
    fn next(&self) -> Option<Instant> {
        (self.sent < self.audio.len()).then_some(self.due)
    }
}

impl Bot {
    fn new(manner: Manner) -> Self {
        let turns = Turns::new(manner.pause);
        Self { manner, stream: String::new(), turns, answer: None, answers: 0 }
    }

    /// Takes a chunk of the caller's audio.
    async fn hear(&mut self, payload: &str, ws: &mut Ws) -> Wire {
        // Broken audio is silence.
        let codes = BASE64.decode(payload.as_bytes()).unwrap_or_default();
        match self.turns.hear(&codes) {
            Some(Change::Speaks) if self.answer.take().is_some() => {
                let clear = json!({"event": "clear", "streamSid": self.stream});
                ws.send(Message::text(clear.to_string())).await
            }
            Some(Change::IsSilent) => {
                self.answers += 1;
                let number = self.answers;
                let audio = speech(1000 + number, samples(self.manner.answer));
                let due = Instant::now();
                self.answer = Some(Answer { number, audio, sent: 0, pending: 0, marks: 0, due });
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Sends the next piece of the answer, and a mark behind it.
    async fn speak(&mut self, ws: &mut Ws) -> Wire {
        let Some(answer) = &mut self.answer else { return Ok(()) };
        let end = (answer.sent + samples(PIECE)).min(answer.audio.len());
        let payload = BASE64.encode(&answer.audio[answer.sent..end]);
        answer.sent = end;
        answer.due += PIECE_INTERVAL;
        answer.marks += 1;
        answer.pending += 1;
        let name = format!("answer-{}:{}", answer.number, answer.marks);
        let (stream, media) = (&self.stream, json!({"payload": payload}));
        let media = json!({"event": "media", "streamSid": stream, "media": media});
        let mark = json!({"event": "mark", "streamSid": stream, "mark": {"name": name}});
        ws.feed(Message::text(media.to_string())).await?;
        ws.send(Message::text(mark.to_string())).await
    }

    /// Notes the echo of a mark: the audio before it was played.
    fn played(&mut self, name: &str) {
        let Some(answer) = &mut self.answer else { return };
        if name.starts_with(&format!("answer-{}:", answer.number)) {
            answer.pending = answer.pending.saturating_sub(1);
        }
        if answer.next().is_none() && answer.pending == 0 {
            self.answer = None;
        }
    }
}

fn samples(time: Duration) -> usize {
    (time.as_millis() * u128::from(SAMPLE_RATE_HZ) / 1000) as usize
}

/// A change of the caller's side.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    Speaks,
    IsSilent,
}

/// Finds the caller's turns by the loudness of chunks.
struct Turns {
    pause: usize,
    is_speaking: bool,
    /// Samples of loud chunks in a row, and of quiet ones.
    loud: usize,
    quiet: usize,
}

impl Turns {
    fn new(pause: Duration) -> Self {
        Self { pause: samples(pause), is_speaking: false, loud: 0, quiet: 0 }
    }

    fn hear(&mut self, codes: &[u8]) -> Option<Change> {
        let amplitude = |code: &u8| u64::from(decode_mulaw(*code).unsigned_abs());
        let sum: u64 = codes.iter().map(amplitude).sum();
        if sum >= LOUDNESS_MIN * codes.len() as u64 && !codes.is_empty() {
            self.loud += codes.len();
            self.quiet = 0;
        } else {
            self.loud = 0;
            self.quiet += codes.len();
        }
        let change = match self.is_speaking {
            false if self.loud >= samples(SPEECH_MIN) => Change::Speaks,
            true if self.quiet >= self.pause => Change::IsSilent,
            _ => return None,
        };
        self.is_speaking = change == Change::Speaks;
        Some(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_ends_with_a_long_silence_and_a_click_is_none() {
        let mut turns = Turns::new(Duration::from_millis(100));
        let (loud, quiet) = ([0x10; 160], [0xFF; 160]);
        let mut hear = |codes: &[u8], count: usize| -> Vec<Change> {
            (0..count).filter_map(|_| turns.hear(codes)).collect()
        };
        assert_eq!(hear(&loud, 2), []);
        assert_eq!(hear(&quiet, 50), []);
        assert_eq!(hear(&loud, 9), [Change::Speaks]);
        assert_eq!(hear(&quiet, 4), []);
        assert_eq!(hear(&loud, 1), []);
        assert_eq!(hear(&quiet, 20), [Change::IsSilent]);
        assert_eq!(hear(&[], 20), []);
    }
}
