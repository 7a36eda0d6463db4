//! The appliance's call between the network side and the card side, whichever of them runs next.

use callreel_core::g711::decode_mulaw;
use callreel_core::names::End;
use callreel_core::ws::CloseCode;
use callreel_firmware_sim::call::{BUFFER_BYTES, Call, MESSAGE_BYTES_MAX, Opening, QUEUE_BYTES};
use callreel_firmware_sim::queue::Queue;

use crate::harness::client::text;
use crate::harness::messages::{chunk, media, start, stop};
use crate::harness::recorder;

/// The network side: a call and its connection's buffer, as in `net.rs`.
struct Connection<'q> {
    call: Call<'q>,
    buffer: [u8; BUFFER_BYTES],
    held: usize,
}

impl<'q> Connection<'q> {
    fn new(queue: &'q mut Queue<QUEUE_BYTES>) -> Self {
        Self { call: Call::new(queue), buffer: [0; BUFFER_BYTES], held: 0 }
    }

    fn receive(&mut self, bytes: &[u8]) {
        let end = self.held + bytes.len();
        self.buffer[self.held..end].copy_from_slice(bytes);
        self.held = self.call.handle_bytes(&mut self.buffer[..end], 0);
    }

    /// Runs one step of a connection that its peer has closed.
    fn poll_closed(&mut self) {
        self.receive(&[]);
        if !self.call.is_behind() {
            self.call.end(End::Disconnect);
        }
    }
}

/// The card side: the finished recordings, and the recording under way.
#[derive(Default)]
struct Card {
    finished: Vec<(String, Vec<i16>, End)>,
    open: Option<(Opening, Vec<i16>)>,
}

impl Card {
    /// Runs one step of `recorder.rs`.
    fn step(&mut self, call: &mut Call<'_>) {
        let Some((_, samples)) = &mut self.open else {
            self.open = call.take_opening().map(|opening| (opening, vec![]));
            return;
        };
        let mut codes = [0; 256];
        let count = call.pop(&mut codes);
        samples.extend(codes[..count].iter().map(|&code| decode_mulaw(code)));
        if count > 0 {
            return;
        }
        if let Some(ended) = call.take_end() {
            let (opening, samples) = self.open.take().expect("the recording is open");
            self.finished.push((opening.origin.stream_id.to_string(), samples, ended.end));
            call.finished();
        }
    }
}

/// The messages of a stream with chunks of these numbers, without a stop.
fn stream(id: &str, chunks: &[u64]) -> Vec<u8> {
    let media = (2..).zip(chunks).map(|(at, &index)| media("inbound", at, at * 20, &chunk(index)));
    let messages = [start(&["inbound"])].into_iter().chain(media);
    messages.map(|message| message.replace("MZ1", id)).flat_map(text).collect()
}

#[test]
fn streams_that_come_in_one_segment_become_a_recording_each() {
    let starts = [stream("MZ7", &[]), stream("MZ8", &[1]), stream("MZ9", &[2])].concat();
    let stopped = [starts.clone(), text(stop(9))].concat();
    let (stop, hang_up) =
        ((End::Stop, CloseCode::NORMAL), (End::Disconnect, CloseCode::GOING_AWAY));
    for (bytes, (ending, code)) in [(stopped, stop), (starts, hang_up)] {
        let endings = [End::Restart, End::Restart, ending];
        let recordings = recorder::connection(&[&bytes], MESSAGE_BYTES_MAX);
        let samples = recordings.into_iter().map(|recording| recording.samples);
        let expected: Vec<_> = ["MZ7", "MZ8", "MZ9"]
            .into_iter()
            .zip(samples)
            .zip(endings)
            .map(|((id, samples), ending)| (id.to_owned(), samples, ending))
            .collect();
        // The number of steps that the card side runs between two polls of the network.
        for steps in 1..8 {
            let mut queue = Queue::new();
            let mut connection = Connection::new(&mut queue);
            let mut card = Card::default();
            connection.receive(&bytes);
            for _ in 0..20 {
                (0..steps).for_each(|_| card.step(&mut connection.call));
                connection.poll_closed();
            }
            assert_eq!(card.finished, expected, "{steps} steps");
            assert_eq!(connection.call.close_code(), Some(code), "{steps} steps");
        }
    }
}

/// Progress of the card side when the card fails, or when the close code is read.
#[derive(Clone, Copy, Debug)]
enum Doing {
    Opening,
    Writing,
    Finishing,
}

/// Receives all of `bytes`, and brings the card side to `doing`.
fn advance(connection: &mut Connection<'_>, bytes: &[u8], doing: Doing) {
    connection.receive(bytes);
    connection.call.take_opening().expect("a stream has begun");
    connection.poll_closed();
    if !matches!(doing, Doing::Opening) {
        while connection.call.pop(&mut [0; 256]) > 0 {}
    }
    if matches!(doing, Doing::Finishing) {
        connection.call.take_end().expect("the stream has ended");
    }
    connection.poll_closed();
}

#[test]
fn the_close_code_waits_until_the_recording_is_on_the_card() {
    let bytes = [stream("MZ7", &[1]), text(stop(9))].concat();
    for doing in [Doing::Opening, Doing::Writing, Doing::Finishing] {
        let mut queue = Queue::new();
        let mut connection = Connection::new(&mut queue);
        advance(&mut connection, &bytes, doing);
        assert_eq!(connection.call.close_code(), None, "{doing:?}");
        connection.call.take_end();
        connection.call.finished();
        assert_eq!(connection.call.close_code(), Some(CloseCode::NORMAL), "{doing:?}");
    }
}

#[test]
fn a_card_that_fails_ends_the_call_for_an_error_of_ours() {
    let first = stream("MZ7", &[1]);
    let stopped = [first.clone(), text(stop(9))].concat();
    let restarted = [first, stream("MZ8", &[2])].concat();
    for (bytes, ending) in [(stopped, End::Stop), (restarted, End::Restart)] {
        for doing in [Doing::Opening, Doing::Writing, Doing::Finishing] {
            let mut queue = Queue::new();
            let mut connection = Connection::new(&mut queue);
            advance(&mut connection, &bytes, doing);
            connection.call.fail();
            let end = connection.call.take_end().map(|ended| ended.end);
            assert!(end.is_none_or(|end| end == ending), "{doing:?}: {end:?}");
            // The end record is not written yet.
            assert_eq!(connection.call.close_code(), None, "{doing:?}");
            connection.call.finished();
            connection.poll_closed();
            assert!(connection.call.take_opening().is_none(), "{doing:?}: another stream begins");
            assert_eq!(connection.call.close_code(), Some(CloseCode::INTERNAL), "{doing:?}");
        }
    }
}
