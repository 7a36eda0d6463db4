//! Peers that lie to get as many as they can of the resources that all calls share.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::messages::{media, start};
use crate::harness::peer::{FIN, PING, Peer, TEXT, frame};
use crate::harness::process::Server;

/// Prefix of the liars' stream ids.
pub(super) const PREFIX: &str = "ML";

/// Pause between two frames: the pace of speech.
const PAUSE: Duration = Duration::from_millis(20);

/// Frames that a liar sends, one after the other.
type Frames = Box<dyn Iterator<Item = Vec<u8>>>;

/// The kinds of lies, each for the id of a stream.
pub(super) const LIES: [fn(&str) -> Frames; 9] =
    [gaps, clocks, starts, streams, texts, rejects, pings, endless_message, silence];

/// Sends the frames, then holds the connection and its resources until `is_over`.
pub(super) fn lie(server: &Server, id: &str, frames: Frames, is_over: &AtomicBool) {
    let Ok(mut peer) = Peer::try_connect(server, id, "") else {
        return;
    };
    // The server may hold the peer back, or end the connection.
    peer.socket.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    for frame in frames {
        if is_over.load(Ordering::Relaxed) || peer.socket.write_all(&frame).is_err() {
            break;
        }
        thread::sleep(PAUSE);
    }
    while !is_over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(20));
    }
}

fn text(message: &str) -> Vec<u8> {
    frame(FIN | TEXT, message.as_bytes())
}

fn begin(id: &str) -> Vec<u8> {
    text(&start(&["inbound"]).replace("MZ1", id))
}

/// A chunk of the stream `id` at `at_ms`, `codes` codes long.
fn chunk(id: &str, number: u64, at_ms: u64, codes: usize) -> Vec<u8> {
    text(&media("inbound", number + 2, at_ms, &vec![0x10; codes]).replace("MZ1", id))
}

/// Chunks in order, enough for the session to trust the timestamps.
fn honest_chunks(id: &str) -> impl Iterator<Item = Vec<u8>> + use<> {
    let id = id.to_owned();
    (0..12).map(move |number| chunk(&id, number, number * 20, 160))
}

/// Timestamps that jump by the longest gap with each message.
fn gaps(id: &str) -> Frames {
    let bomb = {
        let id = id.to_owned();
        (12..u64::MAX).map(move |number| chunk(&id, number, number * 9900, 1))
    };
    Box::new([begin(id)].into_iter().chain(honest_chunks(id)).chain(bomb))
}

/// Timestamps scattered over their whole range.
fn clocks(id: &str) -> Frames {
    let id = id.to_owned();
    let anywhere = {
        let id = id.clone();
        (12..u64::MAX)
            .map(move |number| chunk(&id, number, number.wrapping_mul(0x9E37_79B9_7F4A_7C15), 160))
    };
    Box::new([begin(&id)].into_iter().chain(honest_chunks(&id)).chain(anywhere))
}

/// A start and a chunk, over and over.
fn starts(id: &str) -> Frames {
    let id = id.to_owned();
    Box::new((0..u64::MAX).flat_map(move |number| [begin(&id), chunk(&id, number, 0, 160)]))
}

/// More streams at a time than one connection may carry.
fn streams(id: &str) -> Frames {
    let id = id.to_owned();
    Box::new((0..u64::MAX).flat_map(move |number| {
        let id = format!("{id}-{}", number % 12);
        [begin(&id), chunk(&id, number, number * 20, 160)]
    }))
}

/// Parameters, marks and keys without end.
fn texts(id: &str) -> Frames {
    let parameters: Vec<String> =
        (0..30).map(|number| format!(r#""p{number}":"{}""#, "x".repeat(8000))).collect();
    let start = start(&["inbound"]).replace("MZ1", id).replace(
        r#""customParameters":{}"#,
        &format!(r#""customParameters":{{{}}}"#, parameters.join(",")),
    );
    assert!(start.len() > 240_000);
    let id = id.to_owned();
    let events = (0..u64::MAX).map(move |number| {
        let name = format!("{number}{}", "m".repeat(1000));
        text(&format!(r#"{{"event":"mark","streamSid":"{id}","mark":{{"name":"{name}"}}}}"#))
    });
    Box::new([text(&start)].into_iter().chain(events))
}

/// Media that is rejected, so that the record changes each second.
fn rejects(id: &str) -> Frames {
    let reject = text(&format!(
        r#"{{"event":"media","streamSid":"{id}","media":{{"track":"inbound","payload":"?"}}}}"#
    ));
    Box::new([begin(id)].into_iter().chain(honest_chunks(id)).chain(std::iter::repeat(reject)))
}

/// Pings, without ever reading the pongs.
fn pings(id: &str) -> Frames {
    let pings = frame(FIN | PING, &[b'p'; 125]).repeat(50);
    Box::new([begin(id)].into_iter().chain(std::iter::repeat(pings)))
}

/// A message that does not end.
fn endless_message(id: &str) -> Frames {
    let mut part = vec![FIN | TEXT, 0xFF];
    part.extend(260_000u64.to_be_bytes());
    part.extend([0; 4]);
    part.extend([b' '; 259_000]);
    Box::new([begin(id), part].into_iter())
}

/// Nothing after the upgrade.
fn silence(_: &str) -> Frames {
    Box::new(std::iter::empty())
}
