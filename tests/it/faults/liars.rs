//! Peers that take what they can get of what all calls share, by saying what is not so.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::messages::{media, start};
use crate::harness::peer::{FIN, PING, Peer, TEXT, frame};
use crate::harness::process::Server;

/// What the ids of their streams begin with.
pub const PREFIX: &str = "ML";

/// Frames that one of them sends, one after the other.
type Frames = Box<dyn Iterator<Item = Vec<u8>>>;

/// The ways to lie, each for a stream's id.
pub const LIES: [fn(&str) -> Frames; 9] =
    [gaps, clocks, starts, streams, texts, rejects, pings, endless_message, silence];

/// Lies until it is told that it is over, and holds meanwhile what it has got.
pub fn lie(server: &Server, id: &str, frames: Frames, is_over: &AtomicBool) {
    let Ok(mut peer) = Peer::try_connect(server, id, "") else {
        return;
    };
    // It may be held back, or ended.
    peer.socket.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    for frame in frames {
        if is_over.load(Ordering::Relaxed) || peer.socket.write_all(&frame).is_err() {
            break;
        }
        thread::sleep(Duration::from_millis(1));
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

/// A chunk of `id` at `at_ms`, of so many codes.
fn chunk(id: &str, number: u64, at_ms: u64, codes: usize) -> Vec<u8> {
    text(&media("inbound", number + 2, at_ms, &vec![0x10; codes]).replace("MZ1", id))
}

/// Enough chunks in order for the timestamps to be believed.
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

/// Timestamps anywhere.
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

/// Media that is rejected, so that the record has something to say each second.
fn rejects(id: &str) -> Frames {
    let reject = text(&format!(
        r#"{{"event":"media","streamSid":"{id}","media":{{"track":"inbound","payload":"?"}}}}"#
    ));
    Box::new([begin(id)].into_iter().chain(honest_chunks(id)).chain(std::iter::repeat(reject)))
}

/// Pings whose answers nobody reads.
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

/// An upgrade that is all.
fn silence(_: &str) -> Frames {
    Box::new(std::iter::empty())
}
