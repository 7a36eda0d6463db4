//! One connection's messages: audio chunk by chunk at its time, cues between them, and the end.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep, sleep_until};

use self::conversation::Conversation;
use self::ear::Ear;
use super::call::{DialledCall, blank_report};
use super::copies::Copies;
use super::line::Line;
use super::looks::{Carried, End, Stride, Talk};
use super::messages::{Ids, Messages};
use super::wire::{self, Outbox};
use super::{Action, CallEnd, CallReport, Error, Fault, Track};

mod conversation;
mod ear;
mod faults;
mod steps;

/// Bytes that a flood gathers for one write.
const FLOOD_WRITE_BYTES: usize = 64 << 10;

/// Bytes of the outbox beyond the size of a write: room for the frame that fills it.
const FRAME_BYTES: usize = 1024;

/// Time for which a connection stays open behind a stop that does not end it.
const LINGER: Duration = Duration::from_millis(500);

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
    message: Vec<u8>,
    /// Its audio.
    payloads: Vec<(Track, Vec<u8>)>,
}

/// One connection's stream of messages.
pub(super) struct DialledStream<'c, 'a> {
    call: &'c mut DialledCall<'a>,
    line: Line,
    stride: Stride,
    messages: Messages,
    /// Present if the provider talks with the server.
    conversation: Option<Conversation>,
    /// Present if the caller hears the audio of the other end.
    ear: Option<Ear>,
    /// Samples of the call before the connection, and at the end of the last chunk.
    said_from: u64,
    said_to: u64,
    /// Audio of the present chunk, of each voice that is sent.
    payloads: Vec<(Track, Vec<u8>)>,
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
        let stride = call.crew.stride;
        let usual_timestamp_ms = plan.look.clock.first_ms(call.index);
        let now = Instant::now();
        let write_bytes = if plan.flood { FLOOD_WRITE_BYTES } else { 0 };
        let slot = next_slot(call.crew.begun, call.index, now, stride.chunk());
        let epoch = (slot, first_chunk);
        let talks = plan.look.talk != Talk::None;
        let payload = || vec![0; stride.chunk_bytes()];
        let hears = call.hears && !plan.flood;
        let ear = hears.then(|| Ear::new(plan, stride.format, &call.ids.stream_sid, slot));
        let said_from = first_chunk * stride.chunk_samples() as u64;
        DialledStream {
            line,
            stride,
            messages: Messages::new(call.facts.clone(), call.ids.clone()),
            conversation: talks.then(|| Conversation::new(now)),
            ear,
            said_from,
            said_to: said_from,
            payloads: call.facts.tracks.iter().map(|&track| (track, payload())).collect(),
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
        let spoken = self.speak(first_chunk, cues).await;
        if let Some(ear) = &mut self.ear {
            ear.hang_up(Instant::now());
        }
        match spoken {
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
        if let Some(end) = self.begin().await? {
            return Ok(ConnectionEnd::Over(end));
        }
        // Ways of writing and answering count from now on: the server may speak before the first chunk.
        let is_way = |due: u64, action: &Action| due <= first_chunk && action.rank() == 0;
        while let Some((_, action)) = cues.pop_front_if(|(due, action)| is_way(*due, action)) {
            self.act(&action, first_chunk).await?;
        }
        let chunks = self.call.chunks();
        for chunk in first_chunk..chunks {
            if !self.call.crew.plan.flood
                && let Some(end) = self.wait_for(chunk).await?
            {
                return Ok(ConnectionEnd::Over(end));
            }
            if self.ear.as_ref().is_some_and(|ear| ear.is_told_to_hang_up) {
                break;
            }
            while let Some((_, action)) = cues.pop_front_if(|&mut (due, _)| due <= chunk) {
                if let Some(outcome) = self.act(&action, chunk).await? {
                    return Ok(outcome);
                }
            }
            if self.conversation.is_some()
                && let Some(end) = self.converse(chunk).await?
            {
                return Ok(ConnectionEnd::Over(end));
            }
            self.say(chunk).await?;
            if self.ear.is_none()
                && self.outbox.bytes.is_empty()
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

    /// Sends the start and the greeting before it; returns the end if the call does not come about.
    async fn begin(&mut self) -> Result<Option<CallEnd>, Failure> {
        self.outbox.put(self.messages.connected());
        if self.call.crew.plan.has(Fault::MediaBeforeStart) {
            self.put_forbidden(0);
            self.begin_anew(self.messages.ids().clone());
        }
        self.start(self.first_chunk)?;
        self.flush().await?;
        if self.conversation.is_some()
            && let Some(end) = self.await_opened().await?
        {
            return Ok(Some(end));
        }
        self.call.settle();
        Ok(None)
    }

    /// Counts anew, for a stream of these ids.
    fn begin_anew(&mut self, ids: Ids) {
        self.messages = Messages::new(self.call.facts.clone(), ids);
    }

    /// Audio that must not be recorded: full scale throughout, so that it is never mistaken for speech.
    fn forbidden(&self) -> Vec<u8> {
        let is_interleaved = self.call.crew.plan.look.tracks == Carried::Interleaved;
        let tracks = if is_interleaved { self.call.facts.tracks.len() } else { 1 };
        vec![self.stride.loudest(); tracks * self.stride.chunk_bytes()]
    }

    fn put_forbidden(&mut self, timestamp_ms: u64) {
        let forbidden = self.forbidden();
        let message = self.messages.media(Track::Inbound, timestamp_ms, &forbidden);
        let opcode = self.call.crew.plan.look.opcode();
        self.outbox.put_message(opcode, message);
    }

    fn start(&mut self, chunk: u64) -> Result<(), Failure> {
        self.first_chunk = chunk;
        self.outbox.put(self.messages.start());
        if let Some(directory) = &self.call.crew.plan.save_sent {
            let (stream_sid, codec) = (&self.messages.ids().stream_sid, self.stride.format.codec);
            self.copies = Copies::create(directory, stream_sid, self.call.facts.tracks, codec)?;
        }
        Ok(())
    }

    /// Waits until the chunk of this number is due; returns the end of the call if it comes before.
    async fn wait_for(&mut self, chunk: u64) -> Result<Option<CallEnd>, Failure> {
        let (epoch, first_chunk) = self.epoch;
        let due = epoch + self.stride.chunk() * (chunk - first_chunk) as u32;
        if self.ear.is_some() {
            if let Some(end) = self.listen_until(due).await? {
                return Ok(Some(end));
            }
        } else {
            self.clock.as_mut().reset(due);
            self.clock.as_mut().await;
        }
        if due >= self.excused_until {
            self.call.crew.meter.tick_was_late_by(due.elapsed());
        }
        Ok(None)
    }

    /// Sends the chunk of every track.
    async fn say(&mut self, chunk: u64) -> Result<(), Failure> {
        let chunk_samples = self.stride.chunk_samples() as u64;
        let from = chunk * chunk_samples;
        let samples = (self.call.samples - from).min(chunk_samples) as usize;
        self.said_to = from + samples as u64;
        if chunk < self.lost_until_chunk || !self.is_listened_to() {
            return Ok(());
        }
        let bytes = self.stride.bytes(samples);
        let timestamp_ms = self.timestamp_ms(chunk);
        let mut payloads = std::mem::take(&mut self.payloads);
        for (track, payload) in &mut payloads {
            payload.resize(bytes, 0);
            let voice = self.call.voices.iter_mut().find(|(of, _)| of == track);
            voice.expect("a voice for each track").1.fill(from, payload);
        }
        let is_interleaved = self.call.crew.plan.look.tracks == Carried::Interleaved;
        for payloads in payloads.chunks(if is_interleaved { 2 } else { 1 }) {
            self.say_once(chunk, timestamp_ms, payloads).await?;
        }
        self.payloads = payloads;
        self.release_held(chunk).await
    }

    /// Sends one message with the audio of one track or of two, sample by sample.
    async fn say_once(
        &mut self,
        chunk: u64,
        timestamp_ms: u64,
        payloads: &[(Track, Vec<u8>)],
    ) -> Result<(), Failure> {
        let message = match payloads {
            [(track, payload)] => self.messages.media(*track, timestamp_ms, payload),
            _ => {
                let both = interleaved(payloads, self.stride.format.codec.width());
                self.messages.media(Track::Inbound, timestamp_ms, &both)
            }
        };
        let later = std::mem::take(&mut self.hold_next_chunks);
        if later > 0 {
            let (message, payloads) = (message.to_vec(), payloads.to_vec());
            self.held.push(Held { until_chunk: chunk + later, message, payloads });
            return Ok(());
        }
        let opcode = self.call.crew.plan.look.opcode();
        self.outbox.put_message(opcode, message);
        if std::mem::take(&mut self.repeat_next) {
            self.outbox.put_message(opcode, message);
            self.frames_waiting += 1;
        }
        self.count(payloads)?;
        self.flush_if_full().await
    }

    fn timestamp_ms(&self, chunk: u64) -> u64 {
        let age = chunk - self.first_chunk;
        let passed_ms = u64::from(self.stride.chunk_ms) * age;
        let wobble_ms = self.call.crew.plan.look.clock.wobble_ms(age);
        self.first_timestamp_ms + self.timestamp_jump_ms + passed_ms + wobble_ms - 1
    }

    async fn release_held(&mut self, chunk: u64) -> Result<(), Failure> {
        while let Some(at) = self.held.iter().position(|held| held.until_chunk <= chunk) {
            let held = self.held.remove(at);
            self.outbox.put_message(self.call.crew.plan.look.opcode(), &held.message);
            self.count(&held.payloads)?;
            self.flush_if_full().await?;
        }
        Ok(())
    }

    /// Counts a message with this audio.
    fn count(&mut self, payloads: &[(Track, Vec<u8>)]) -> Result<(), Failure> {
        self.frames_waiting += 1;
        for (track, payload) in payloads {
            self.report.samples_sent += self.stride.samples_in(payload.len()) as u64;
            self.copies.write(*track, payload).map_err(Failure::Save)?;
        }
        Ok(())
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
                    sleep(self.stride.chunk() / 10).await;
                }
            }
        }
        self.outbox.bytes.clear();
        self.report.frames_sent += self.frames_waiting;
        self.call.crew.meter.frames_went(self.frames_waiting);
        self.frames_waiting = 0;
        Ok(())
    }

    /// Ends the call as its provider does.
    async fn stop(&mut self) -> Result<CallEnd, Failure> {
        self.release_held(u64::MAX).await?;
        self.call.crew.meter.call_stopping();
        self.keep_position(self.call.samples);
        if let Some(end) = self.take_leave().await? {
            return Ok(end);
        }
        self.outbox.put(self.messages.stop("end"));
        if self.call.crew.plan.has(Fault::MediaAfterStop) {
            self.put_forbidden(self.timestamp_ms(self.call.chunks()));
        }
        self.line.mute_answers(false);
        self.flush().await?;
        self.copies.flush()?;
        self.report.stopped = true;
        let stopped = Instant::now();
        let patience = self.call.crew.plan.patience;
        if let Some(ear) = &mut self.ear {
            ear.hang_up(stopped);
        }
        let end = match self.call.crew.plan.look.end {
            End::ServerCloses | End::Lingers if self.is_conversation() => {
                self.part_from_bot(patience).await
            }
            End::ServerCloses => self.line.ending(patience).await,
            End::Farewell => self.part(patience).await,
            end => self.close(end, patience).await,
        };
        self.report.close_lag_ms = Some(stopped.elapsed().as_secs_f64() * 1e3);
        Ok(end)
    }

    /// Closes the connection, and waits for the server to answer that.
    async fn close(&mut self, end: End, patience: Duration) -> CallEnd {
        if end == End::Lingers {
            // The server may close, too.
            match self.line.ending(LINGER.min(patience)).await {
                CallEnd::StillOpen => {}
                end => return end,
            }
        }
        if end == End::EmptyThenCloses {
            self.outbox.put_frame(wire::FIN | wire::BINARY, &[]);
            if self.flush().await.is_err() {
                return self.line.ending(LAST_WORDS).await;
            }
        }
        // A connection that fails meanwhile is found out by the wait.
        let _ = self.line.close(Some(1000)).await;
        self.line.ending(patience).await
    }
}

/// The audio of two tracks, sample by sample.
fn interleaved(payloads: &[(Track, Vec<u8>)], width: usize) -> Vec<u8> {
    let mut both = Vec::new();
    let mut tracks: Vec<_> = payloads.iter().map(|(_, payload)| payload.chunks(width)).collect();
    while let [Some(left), Some(right)] = [tracks[0].next(), tracks[1].next()] {
        both.extend_from_slice(left);
        both.extend_from_slice(right);
    }
    both
}

/// A moment after `now`, two chunks at most, that is the call's turn. The golden ratio spreads the turns of
/// the calls, in any number, evenly over the time of a chunk.
fn next_slot(begun: Instant, index: u32, now: Instant, chunk: Duration) -> Instant {
    let phase = chunk.mul_f64((f64::from(index) * 0.618_033_988_749_895).fract());
    let rounds = (now - begun).as_micros() / chunk.as_micros() + 1;
    begun + phase + chunk * rounds as u32
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

    const CHUNK: Duration = Duration::from_millis(20);

    #[test]
    fn the_turns_of_many_calls_are_spread_over_the_20_ms() {
        let begun = Instant::now();
        let now = begun + Duration::from_millis(1234);
        let mut turns: Vec<Duration> =
            (0..1000).map(|index| next_slot(begun, index, now, CHUNK) - now).collect();
        turns.sort_unstable();
        let gaps = turns.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(turns[0] > Duration::ZERO && turns[999] <= 2 * CHUNK);
        assert!(gaps.max().unwrap() < Duration::from_micros(100));
    }

    #[test]
    fn a_call_keeps_its_turn_however_late_it_connects() {
        let begun = Instant::now();
        let turn =
            |late_ms| next_slot(begun, 7, begun + Duration::from_millis(late_ms), CHUNK) - begun;
        assert_eq!((turn(500) - turn(0)).as_micros() % CHUNK.as_micros(), 0);
    }
}
