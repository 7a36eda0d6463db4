//! One connection's messages: audio chunk by chunk at its time, cues between them, and the end.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::call::{DialledCall, blank_report, random_sid};
use super::copies::Copies;
use super::line::Line;
use super::messages::{Ids, Messages};
use super::wire::{self, Outbox};
use super::{Action, CallEnd, CallReport, Error, Fault, Track};

/// Samples of a chunk: 20 ms.
pub(super) const CHUNK_SAMPLES: usize = 160;

/// Media time of a chunk.
pub(super) const CHUNK: Duration = Duration::from_millis(20);

/// Bytes that a flood gathers for one write.
const FLOOD_WRITE_BYTES: usize = 64 << 10;

/// Bytes of the outbox beyond the size of a write: room for the frame that fills it.
const FRAME_BYTES: usize = 1024;

/// First timestamps seen in captures.
const FIRST_TIMESTAMPS_MS: [u64; 4] = [52, 102, 155, 171];

/// Audio that must not be recorded: full scale throughout, so that it is never mistaken for speech.
const FORBIDDEN_CHUNK: [u8; CHUNK_SAMPLES] = [0; CHUNK_SAMPLES];

/// Time for the server to report the reason for ending a call, after its connection has failed.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The end of one connection, and the next step.
pub(super) enum ConnectionEnd {
    Over(CallEnd),
    /// Connect again and go on with the chunk of this number.
    Reconnect(u64),
}

/// Way of writing bytes.
#[derive(Clone, Copy)]
enum Delivery {
    Whole,
    Bytes,
    Slow,
}

/// A frame that is written later than its time.
struct Held {
    until_chunk: u64,
    track: Track,
    text: Vec<u8>,
    payload: Vec<u8>,
}

/// One connection's stream of messages.
pub(super) struct DialledStream<'c, 'a> {
    call: &'c mut DialledCall<'a>,
    line: Line,
    messages: Messages,
    pub(super) report: CallReport,
    clock: Pin<Box<Sleep>>,
    /// Due time of the connection's first chunk, and its number.
    epoch: (Instant, u64),
    /// Ticks due before this were made late by a fault, and do not count as late.
    excused_until: Instant,
    /// Number of the chunk at which the stream's `start` was sent.
    first_chunk: u64,
    first_timestamp_ms: u64,
    timestamp_jump_ms: u64,
    /// Media before this chunk is not sent, as if it was lost on its way to us.
    lost_until_chunk: u64,
    hold_next_chunks: u64,
    repeat_next: bool,
    held: Vec<Held>,
    delivery: Delivery,
    outbox: Outbox,
    /// More bytes than these are written at once; fewer wait for the next frames.
    write_bytes: usize,
    frames_waiting: u64,
    copies: Copies,
}

impl<'c, 'a> DialledStream<'c, 'a> {
    pub(super) fn new(call: &'c mut DialledCall<'a>, line: Line, first_chunk: u64) -> Self {
        let plan = &call.crew.plan;
        let usual_timestamp_ms = FIRST_TIMESTAMPS_MS[call.index as usize % 4];
        let now = Instant::now();
        let write_bytes = if plan.flood { FLOOD_WRITE_BYTES } else { 0 };
        let epoch = (next_slot(call.crew.begun, call.index, now), first_chunk);
        DialledStream {
            line,
            messages: Messages::new(call.ids.clone()),
            report: blank_report(call.index, &call.ids),
            clock: Box::pin(sleep_until(now)),
            epoch,
            excused_until: now,
            first_chunk,
            first_timestamp_ms: plan.first_timestamp_ms.unwrap_or(usual_timestamp_ms),
            timestamp_jump_ms: 0,
            lost_until_chunk: 0,
            hold_next_chunks: 0,
            repeat_next: false,
            held: Vec::new(),
            delivery: Delivery::Whole,
            outbox: Outbox::with_capacity(write_bytes + FRAME_BYTES),
            write_bytes,
            frames_waiting: 0,
            copies: Copies::default(),
            call,
        }
    }

    /// Sends until the call is over; a failed connection ends the call, too.
    pub(super) async fn run(
        &mut self,
        first_chunk: u64,
        cues: &mut VecDeque<(u64, Action)>,
    ) -> ConnectionEnd {
        match self.speak(first_chunk, cues).await {
            Ok(outcome) => outcome,
            Err(Failure::Line) => match self.line.ending(LAST_WORDS).await {
                CallEnd::StillOpen => ConnectionEnd::Over(CallEnd::Reset),
                end => ConnectionEnd::Over(end),
            },
            Err(Failure::Save(error)) => {
                ConnectionEnd::Over(CallEnd::Failed { error: error.to_string() })
            }
        }
    }

    async fn speak(
        &mut self,
        first_chunk: u64,
        cues: &mut VecDeque<(u64, Action)>,
    ) -> Result<ConnectionEnd, Failure> {
        self.begin().await?;
        let chunks = self.call.chunks();
        for chunk in first_chunk..chunks {
            if !self.call.crew.plan.flood {
                self.wait_for(chunk).await;
            }
            while let Some((_, action)) = cues.pop_front_if(|&mut (due, _)| due <= chunk) {
                if let Some(outcome) = self.act(&action, chunk).await? {
                    return Ok(outcome);
                }
            }
            self.say(chunk).await?;
            if self.outbox.bytes.is_empty()
                && let Some(end) = self.line.hear()
            {
                return Ok(ConnectionEnd::Over(end));
            }
            if self.call.crew.meter.is_hung_up() {
                break;
            }
        }
        self.stop().await.map(ConnectionEnd::Over)
    }

    async fn begin(&mut self) -> Result<(), Failure> {
        let plan = &self.call.crew.plan;
        self.outbox.put(self.messages.connected());
        if plan.has(Fault::MediaBeforeStart) {
            self.outbox.put(self.messages.media(Track::Inbound, 0, &FORBIDDEN_CHUNK));
            self.messages = Messages::new(self.call.ids.clone());
        }
        self.start(self.first_chunk)?;
        self.flush().await?;
        self.call.settle();
        Ok(())
    }

    fn start(&mut self, chunk: u64) -> Result<(), Failure> {
        self.first_chunk = chunk;
        let tracks = self.call.tracks.as_slice();
        self.outbox.put(self.messages.start(tracks, &self.call.parameters));
        if let Some(directory) = &self.call.crew.plan.save_sent {
            let stream_sid = &self.messages.ids().stream_sid;
            self.copies = Copies::create(directory, stream_sid, tracks)?;
        }
        Ok(())
    }

    async fn wait_for(&mut self, chunk: u64) {
        let (epoch, first_chunk) = self.epoch;
        let due = epoch + CHUNK * (chunk - first_chunk) as u32;
        self.clock.as_mut().reset(due);
        self.clock.as_mut().await;
        if due >= self.excused_until {
            self.call.crew.meter.tick_was_late_by(due.elapsed());
        }
    }

    /// Sends the chunk of every track.
    async fn say(&mut self, chunk: u64) -> Result<(), Failure> {
        if chunk < self.lost_until_chunk {
            return Ok(());
        }
        let from = chunk * CHUNK_SAMPLES as u64;
        let samples = (self.call.samples - from).min(CHUNK_SAMPLES as u64) as usize;
        let timestamp_ms = self.timestamp_ms(chunk);
        let mut buffer = [0; CHUNK_SAMPLES];
        let payload = &mut buffer[..samples];
        for voice in 0..self.call.voices.len() {
            let (track, voice) = &self.call.voices[voice];
            let track = *track;
            voice.fill(from, payload);
            let text = self.messages.media(track, timestamp_ms, payload);
            let later = std::mem::take(&mut self.hold_next_chunks);
            if later > 0 {
                let (text, payload) = (text.to_vec(), payload.to_vec());
                self.held.push(Held { until_chunk: chunk + later, track, text, payload });
                continue;
            }
            self.outbox.put(text);
            if std::mem::take(&mut self.repeat_next) {
                self.outbox.put(text);
                self.frames_waiting += 1;
            }
            self.count(track, payload)?;
            self.flush_if_full().await?;
        }
        self.release_held(chunk).await
    }

    fn timestamp_ms(&self, chunk: u64) -> u64 {
        let age = chunk - self.first_chunk;
        self.first_timestamp_ms + self.timestamp_jump_ms + 20 * age + wobble_ms(age) - 1
    }

    async fn release_held(&mut self, chunk: u64) -> Result<(), Failure> {
        while let Some(at) = self.held.iter().position(|held| held.until_chunk <= chunk) {
            let held = self.held.remove(at);
            self.outbox.put(&held.text);
            self.count(held.track, &held.payload)?;
            self.flush_if_full().await?;
        }
        Ok(())
    }

    fn count(&mut self, track: Track, payload: &[u8]) -> Result<(), Failure> {
        self.frames_waiting += 1;
        self.report.samples_sent += payload.len() as u64;
        self.copies.write(track, payload).map_err(Failure::Save)
    }

    async fn flush_if_full(&mut self) -> Result<(), Failure> {
        if self.outbox.bytes.len() > self.write_bytes { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        let bytes = &self.outbox.bytes;
        match self.delivery {
            Delivery::Whole => self.line.write(bytes).await?,
            Delivery::Bytes => {
                self.line.write(&[]).await?;
                for byte in bytes.chunks(1) {
                    self.line.write_on(byte).await?;
                }
            }
            Delivery::Slow => {
                self.line.write(&[]).await?;
                for part in bytes.chunks(bytes.len().div_ceil(8).max(1)) {
                    self.line.write_on(part).await?;
                    sleep(CHUNK / 10).await;
                }
            }
        }
        self.outbox.bytes.clear();
        self.report.frames_sent += self.frames_waiting;
        self.call.crew.meter.frames_went(self.frames_waiting);
        self.frames_waiting = 0;
        Ok(())
    }

    async fn stop(&mut self) -> Result<CallEnd, Failure> {
        self.release_held(u64::MAX).await?;
        self.call.crew.meter.call_stopping();
        self.outbox.put(self.messages.stop());
        if self.call.crew.plan.has(Fault::MediaAfterStop) {
            let timestamp_ms = self.timestamp_ms(self.call.chunks());
            let media = self.messages.media(Track::Inbound, timestamp_ms, &FORBIDDEN_CHUNK);
            self.outbox.put(media);
        }
        self.line.mute_answers(false);
        self.flush().await?;
        self.copies.flush()?;
        self.report.stopped = true;
        let stopped = Instant::now();
        let end = self.line.ending(self.call.crew.plan.patience).await;
        self.report.close_lag_ms = Some(stopped.elapsed().as_secs_f64() * 1e3);
        Ok(end)
    }

    /// Performs the action of a cue; returns an outcome if the action ends the connection.
    async fn act(&mut self, action: &Action, chunk: u64) -> Result<Option<ConnectionEnd>, Failure> {
        let (fault, measure) = match action {
            Action::Dtmf(digit) => {
                self.outbox.put(self.messages.dtmf(*digit));
                return self.flush().await.map(|()| None);
            }
            Action::Mark(name) => {
                self.outbox.put(self.messages.mark(name));
                return self.flush().await.map(|()| None);
            }
            Action::Fault(fault, measure) => {
                (*fault, measure.unwrap_or_else(|| fault.default_measure()))
            }
        };
        self.flush().await?;
        match fault {
            Fault::StopMissing
            | Fault::Fin
            | Fault::Rst
            | Fault::HalfFrame
            | Fault::Unmasked
            | Fault::Rsv
            | Fault::ReservedOpcode
            | Fault::LoneContinuation
            | Fault::FragmentedControl
            | Fault::BadUtf8
            | Fault::HugeFrame
            | Fault::Silent => {
                self.call.crew.meter.call_stopping();
                self.copies.flush()?;
                return self
                    .end_badly(fault, measure)
                    .await
                    .map(|end| Some(ConnectionEnd::Over(end)));
            }
            Fault::Reconnect => {
                self.copies.flush()?;
                self.line.finish_writing().await?;
                return Ok(Some(ConnectionEnd::Reconnect(chunk)));
            }
            Fault::NoPong => self.line.mute_answers(true),
            Fault::Stall => {
                sleep(measure).await;
                self.excused_until = Instant::now();
            }
            Fault::Gap | Fault::GapNoHole => self.lose(chunk, measure, fault == Fault::Gap),
            Fault::Late => self.hold_next_chunks = chunks_in(measure).max(1),
            Fault::Reorder => self.hold_next_chunks = 1,
            Fault::Duplicate => self.repeat_next = true,
            Fault::TimestampJump => self.timestamp_jump_ms += measure.as_millis() as u64,
            Fault::BadBase64 | Fault::BadJson | Fault::Binary => self.put_bad_message(fault, chunk),
            Fault::SecondStart => {
                self.messages = Messages::new(self.messages.ids().clone());
                self.start(chunk)?;
            }
            Fault::SecondStartOther => {
                let stream_sid = random_sid("MZ");
                self.messages = Messages::new(Ids { stream_sid, ..self.messages.ids().clone() });
                self.start(chunk)?;
            }
            Fault::SplitBytes => self.delivery = Delivery::Bytes,
            Fault::Fragments => self.outbox.in_fragments = true,
            Fault::Slow => self.delivery = Delivery::Slow,
            // These three have no time: they are done at the start or the end of the call.
            Fault::MediaBeforeStart | Fault::MediaAfterStop | Fault::Replay => {}
        }
        self.flush().await.map(|()| None)
    }

    fn lose(&mut self, chunk: u64, measure: Duration, with_numbers: bool) {
        let lost = chunks_in(measure);
        self.lost_until_chunk = chunk + lost;
        if with_numbers {
            for &track in self.call.tracks.as_slice() {
                self.messages.lose(track, lost);
            }
        }
    }

    /// Queues a message that a recorder must reject; it carries no audio that counts.
    fn put_bad_message(&mut self, fault: Fault, chunk: u64) {
        let timestamp_ms = self.timestamp_ms(chunk);
        match fault {
            Fault::BadBase64 => {
                let mut text =
                    self.messages.media(Track::Inbound, timestamp_ms, &FORBIDDEN_CHUNK).to_vec();
                let payload_at = text.len() / 2;
                text[payload_at] = b'!';
                self.outbox.put(&text);
            }
            Fault::BadJson => self.outbox.put(br#"{"event":"media","sequenceNumber":"#),
            _ => self.outbox.put_frame(wire::FIN | wire::BINARY, &FORBIDDEN_CHUNK),
        }
    }

    async fn end_badly(&mut self, fault: Fault, measure: Duration) -> Result<CallEnd, Failure> {
        let patience = self.call.crew.plan.patience;
        match fault {
            Fault::Rst => {
                self.line.reset_on_drop()?;
                return Ok(CallEnd::CutOff);
            }
            Fault::Fin => self.line.finish_writing().await?,
            Fault::HalfFrame => {
                self.outbox.put(self.messages.media(Track::Inbound, 0, &FORBIDDEN_CHUNK));
                let half = self.outbox.bytes.len() / 2;
                self.line.write(&self.outbox.bytes[..half]).await?;
                self.line.finish_writing().await?;
            }
            Fault::StopMissing => self.line.close(1000).await?,
            Fault::Silent => return Ok(self.line.ending(measure).await),
            violation => {
                put_violation(&mut self.outbox, violation);
                self.line.write(&self.outbox.bytes).await?;
            }
        }
        Ok(self.line.ending(patience).await)
    }
}

/// Number of chunks of a track with `samples` samples.
pub(super) fn chunks(samples: u64) -> u64 {
    samples.div_ceil(CHUNK_SAMPLES as u64)
}

pub(super) fn chunks_in(time: Duration) -> u64 {
    (time.as_micros() / CHUNK.as_micros()) as u64
}

/// One frame that RFC 6455 forbids.
fn put_violation(outbox: &mut Outbox, fault: Fault) {
    const TEXT: u8 = wire::FIN | wire::TEXT;
    match fault {
        Fault::Unmasked => outbox.put_unmasked(TEXT, b"{}"),
        Fault::Rsv => outbox.put_frame(TEXT | wire::RSV1, b"{}"),
        Fault::ReservedOpcode => outbox.put_frame(wire::FIN | wire::RESERVED, b"{}"),
        Fault::LoneContinuation => outbox.put_frame(wire::FIN | wire::CONTINUATION, b"{}"),
        Fault::FragmentedControl => outbox.put_frame(wire::PING, b""),
        Fault::BadUtf8 => outbox.put_frame(TEXT, b"{\"event\":\"\xC0\xAF\"}"),
        Fault::HugeFrame => outbox.put_head(TEXT, 1 << 62),
        other => unreachable!("{other:?} breaks no rule of the frame format"),
    }
}

/// Deviation of a timestamp in milliseconds, plus 1: 0, 1 or 2. Twilio's timestamps stay within a
/// millisecond of 20 ms steps. The first does not deviate.
fn wobble_ms(age: u64) -> u64 {
    if age == 0 { 1 } else { (age.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) % 3 }
}

/// A moment after `now`, 40 ms at most, that is the call's turn. The golden ratio spreads the turns of
/// the calls, in any number, evenly over the 20 ms.
fn next_slot(begun: Instant, index: u32, now: Instant) -> Instant {
    let phase = CHUNK.mul_f64((f64::from(index) * 0.618_033_988_749_895).fract());
    let rounds = (now - begun).as_micros() / CHUNK.as_micros() + 1;
    begun + phase + CHUNK * rounds as u32
}

/// Reason for which a stream cannot go on.
enum Failure {
    Line,
    Save(Error),
}

impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Self::Line
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Save(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_stay_within_a_millisecond_and_do_not_stand_still() {
        let wobbles: Vec<u64> = (0..1000).map(wobble_ms).collect();
        assert_eq!(wobbles[0], 1);
        for wobble in 0..=2 {
            assert!(wobbles.iter().filter(|&&other| other == wobble).count() > 250);
        }
    }

    #[test]
    fn the_turns_of_many_calls_are_spread_over_the_20_ms() {
        let begun = Instant::now();
        let now = begun + Duration::from_millis(1234);
        let mut turns: Vec<Duration> =
            (0..1000).map(|index| next_slot(begun, index, now) - now).collect();
        turns.sort_unstable();
        let gaps = turns.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(turns[0] > Duration::ZERO && turns[999] <= 2 * CHUNK);
        assert!(gaps.max().unwrap() < Duration::from_micros(100));
    }

    #[test]
    fn a_call_keeps_its_turn_however_late_it_connects() {
        let begun = Instant::now();
        let turn = |late_ms| next_slot(begun, 7, begun + Duration::from_millis(late_ms)) - begun;
        assert_eq!((turn(500) - turn(0)).as_micros() % CHUNK.as_micros(), 0);
    }
}
