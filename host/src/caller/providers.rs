//! `callreel call --list-providers`: the looks as a table, or as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::looks::{Carried, Clock, End, Look, Proof, Tongue};

/// A look as `--list-providers --json` tells it.
#[derive(Serialize)]
struct Listed {
    name: &'static str,
    /// `text` or `binary`: the messages that carry audio.
    transport: &'static str,
    codecs: Vec<ListedCodec>,
    tracks: Vec<&'static str>,
    is_interleaved: bool,
    chunk_ms: u32,
    time: &'static str,
    end: &'static str,
    proof: &'static str,
    subprotocol: Option<&'static str>,
    /// Whether it takes the audio of a bot, and echoes a bot's marks.
    is_two_way: bool,
    has_marks: bool,
}

#[derive(Serialize)]
struct ListedCodec {
    codec: &'static str,
    /// The provider's name for it.
    encoding: &'static str,
    sample_rates_hz: &'static [u32],
}

impl From<&Look> for Listed {
    fn from(look: &Look) -> Self {
        let codecs = look.wires.iter().map(|wire| ListedCodec {
            codec: wire.codec.name(),
            encoding: wire.encoding,
            sample_rates_hz: wire.rates_hz,
        });
        Self {
            name: look.name(),
            transport: if look.is_binary() { "binary" } else { "text" },
            codecs: codecs.collect(),
            tracks: match look.tracks {
                Carried::Apart | Carried::Interleaved => vec!["inbound", "outbound"],
                Carried::Named(names) => names.to_vec(),
                Carried::One(name) => vec![name],
            },
            is_interleaved: look.tracks == Carried::Interleaved,
            chunk_ms: look.chunk_ms,
            time: match look.clock {
                Clock::Twilio | Clock::Ms { .. } => "ms",
                Clock::Arrival => "ms of arrival",
                Clock::UnixMs => "ms since 1970",
                Clock::Samples => "samples",
                Clock::None => "none",
            },
            end: match look.end {
                End::ServerCloses => "stop",
                End::Lingers => "stop, stays open",
                End::CallerCloses => "close",
                End::EmptyThenCloses => "empty message, close",
                End::Farewell => "close, closed",
            },
            proof: match look.proof {
                Proof::None => "none",
                Proof::Basic => "basic",
                Proof::Bearer => "bearer",
                Proof::Fonoster => "fonoster",
                Proof::Genesys => "genesys",
                Proof::Plivo => "plivo",
                Proof::Twilio => "twilio",
                Proof::Vonage => "vonage",
            },
            subprotocol: look.subprotocol,
            is_two_way: look.bot.tongue != Tongue::None,
            has_marks: look.has_marks(),
        }
    }
}

/// The list as an array of JSON.
pub(super) fn json() -> String {
    let listed: Vec<_> = Look::all().iter().map(|look| Listed::from(*look)).collect();
    serde_json::to_string_pretty(&listed).expect("text and numbers always have a JSON form") + "\n"
}

/// The list as a table, with a line a look.
pub(super) fn table() -> String {
    let mut text = row(["NAME", "AUDIO IN", "TRACKS", "TIME", "END", "PROOF", "BOT", "CODECS"]);
    for look in Look::all() {
        let listed = Listed::from(*look);
        let tracks = listed.tracks.join(if listed.is_interleaved { "+" } else { " " });
        let formats = look.formats();
        let bot = match (listed.is_two_way, listed.has_marks) {
            (false, _) => "-",
            (true, false) => "audio",
            (true, true) => "audio, marks",
        };
        let cells = [
            listed.name,
            listed.transport,
            &tracks,
            listed.time,
            listed.end,
            listed.proof,
            bot,
            &formats,
        ];
        text.push_str(&row(cells));
    }
    text
}

fn row([name, transport, tracks, time, end, proof, bot, codecs]: [&str; 8]) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{name:<17} {transport:<8} {tracks:<16} {time:<13} {end:<20} {proof:<8} {bot:<12} {codecs}"
    );
    text
}
