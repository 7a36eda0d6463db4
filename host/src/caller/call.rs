//! One call, from the webhook to the close frame.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufWriter, Write as _},
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use callreel_core::g711::MULAW_SILENCE;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use url::Url;

use super::{
    Action, CallReport, End, Error, Fault, Meter, Plan, Track, Tracks,
    line::{Line, Target},
    messages::{Ids, Messages},
    webhook, wire,
};
use crate::audio::speech;

/// Samples of a chunk: 20 ms.
const CHUNK_SAMPLES: usize = 160;

/// Media time of a chunk.
const CHUNK: Duration = Duration::from_millis(20);

/// Bytes that a flood gathers for one write.
const FLOOD_WRITE_BYTES: usize = 64 << 10;

/// First timestamps seen in captures.
const FIRST_TIMESTAMPS_MS: [u64; 4] = [52, 102, 155, 171];

/// How many voices are made up; more calls than that say the same from different places on.
const VOICES: u64 = 16;

/// Length of a made-up voice before it repeats.
const VOICE_SAMPLES: usize = 30 * 8000;

/// Audio that must not be recorded: a full-scale square wave, which nobody takes for speech.
const FORBIDDEN_CHUNK: [u8; CHUNK_SAMPLES] = [0; CHUNK_SAMPLES];

/// How long a server has to say why it ended a call whose connection has just failed.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What all calls share.
pub(super) struct Crew {
    plan: Plan,
    url: Url,
    meter: Arc<Meter>,
    begun: Instant,
    voices: Mutex<Vec<Option<Arc<[u8]>>>>,
}

impl Crew {
    pub(super) fn new(plan: Plan, url: Url, meter: Arc<Meter>, begun: Instant) -> Crew {
        let voices = Mutex::new(vec![None; VOICES as usize]);
        Crew { plan, url, meter, begun, voices }
    }

    /// The audio of a call's track.
    fn voice(&self, index: u32, track: Track) -> Voice {
        let given = self.plan.audio.as_ref().and_then(|audio| match track {
            Track::Inbound => Some(audio.inbound()),
            // A call of the outbound track alone says what there is.
            Track::Outbound if self.plan.tracks == Some(Tracks::Outbound) => {
                Some(audio.outbound().unwrap_or(audio.inbound()))
            }
            Track::Outbound => audio.outbound(),
        });
        if let Some(audio) = given {
            return Voice { audio: audio.clone(), offset: 0 };
        }
        let number = u64::from(index) * 2 + track as u64;
        let mut voices = self.voices.lock().expect("no holder panics");
        let seed = self.plan.seed.wrapping_mul(VOICES).wrapping_add(number % VOICES);
        let audio = voices[(number % VOICES) as usize]
            .get_or_insert_with(|| speech(seed, VOICE_SAMPLES).into())
            .clone();
        // 7919 is prime to the voice's length, so that no two calls begin at one place.
        let offset = (number / VOICES) as usize * 7919 % VOICE_SAMPLES;
        Voice { audio, offset }
    }

    fn ids(&self) -> Ids {
        let plan = &self.plan;
        Ids {
            account_sid: plan.account_sid.clone().unwrap_or_else(|| random_sid("AC")),
            call_sid: plan.call_sid.clone().unwrap_or_else(|| random_sid("CA")),
            stream_sid: plan.stream_sid.clone().unwrap_or_else(|| random_sid("MZ")),
        }
    }
}

fn random_sid(prefix: &str) -> String {
    format!("{prefix}{:032x}", fastrand::u128(..))
}

/// A track's audio, repeated without end.
struct Voice {
    audio: Arc<[u8]>,
    offset: usize,
}

impl Voice {
    fn fill(&self, at: u64, chunk: &mut [u8]) {
        let Ok(length) = u64::try_from(self.audio.len()) else { unreachable!("64 bits") };
        if length == 0 {
            return chunk.fill(MULAW_SILENCE);
        }
        let mut from = ((at + self.offset as u64) % length) as usize;
        let mut filled = 0;
        while filled < chunk.len() {
            let count = (chunk.len() - filled).min(self.audio.len() - from);
            chunk[filled..filled + count].copy_from_slice(&self.audio[from..from + count]);
            filled += count;
            from = 0;
        }
    }
}

/// Places one call of a plan; returns a report for each connection it took.
pub(super) async fn run(crew: Arc<Crew>, index: u32) -> Vec<CallReport> {
    let ramp = crew.plan.ramp.unwrap_or(Duration::from_millis(2) * crew.plan.calls);
    sleep_until(crew.begun + ramp * index / crew.plan.calls).await;

    let ids = crew.ids();
    let mut reports = Vec::new();
    match Call::prepare(&crew, index, ids.clone()).await {
        Ok(mut call) => call.run(&mut reports).await,
        Err(error) => {
            crew.meter.call_settled();
            reports.push(failure(index, &ids, &error));
        }
    }
    crew.meter.call_over();
    reports
}

fn failure(call_index: u32, ids: &Ids, error: &Error) -> CallReport {
    let end = End::Failed { error: error.to_string() };
    CallReport { end, ..blank_report(call_index, ids) }
}

fn blank_report(call_index: u32, ids: &Ids) -> CallReport {
    CallReport {
        call_index,
        stream_sid: ids.stream_sid.clone(),
        call_sid: ids.call_sid.clone(),
        frames_sent: 0,
        samples_sent: 0,
        stopped: false,
        end: End::CutOff,
        close_lag_ms: None,
        good: false,
    }
}

/// What stays the same over all connections of one call.
struct Call<'a> {
    crew: &'a Crew,
    index: u32,
    ids: Ids,
    target: Target,
    signature: Option<String>,
    tracks: Tracks,
    parameters: Vec<(String, String)>,
    voices: Vec<(Track, Voice)>,
    samples: u64,
    recordings: u32,
    settled: bool,
}

/// How one connection ended, and what comes after it.
enum Outcome {
    Over(End),
    /// Connect again and go on with the chunk of this number.
    Reconnect(u64),
}

impl<'a> Call<'a> {
    async fn prepare(crew: &'a Crew, index: u32, ids: Ids) -> Result<Call<'a>, Error> {
        let plan = &crew.plan;
        let of_audio = match plan.audio.as_ref().and_then(|audio| audio.outbound()) {
            Some(_) => Tracks::Both,
            None => Tracks::Inbound,
        };
        let mut tracks = plan.tracks.unwrap_or(of_audio);
        let mut parameters = plan.parameters.clone();
        let connect = plan.connect.as_deref();
        let (target, signed_url) = if crew.url.scheme().starts_with("ws") {
            let target = match connect {
                Some(connect) => Target::through(crew.url.clone(), connect),
                None => Target::new(crew.url.clone()),
            };
            (target, plan.sign_url.clone().unwrap_or_else(|| plan.url.clone()))
        } else {
            let answer = webhook::ask(&crew.url, plan, &ids).await?;
            tracks = plan.tracks.or(answer.tracks).unwrap_or(tracks);
            parameters.extend(answer.parameters);
            (webhook::stream_target(&crew.url, &answer.stream_url, connect)?, answer.stream_url)
        };
        let signature = plan.auth_token.as_deref();
        let signature = signature.map(|token| webhook::sign(token, &signed_url, &[]));
        let voices = tracks.as_slice().iter();
        let voices = voices.map(|&track| (track, crew.voice(index, track))).collect();
        let samples = plan.length().as_micros() as u64 / 125;
        let (recordings, settled) = (0, false);
        Ok(Call {
            crew,
            index,
            ids,
            target,
            signature,
            tracks,
            parameters,
            voices,
            samples,
            recordings,
            settled,
        })
    }

    async fn run(&mut self, reports: &mut Vec<CallReport>) {
        let mut cues = self.schedule();
        let mut replays = u32::from(self.crew.plan.has(Fault::Replay));
        let mut first_chunk = 0;
        loop {
            let (report, outcome) = self.connection(first_chunk, &mut cues).await;
            reports.push(report);
            match outcome {
                Outcome::Reconnect(chunk) => first_chunk = chunk,
                Outcome::Over(_) if replays > 0 => {
                    replays -= 1;
                    first_chunk = 0;
                    cues = self.schedule();
                }
                Outcome::Over(_) => break,
            }
        }
        self.crew.meter.call_stopping();
    }

    /// The cues by the number of the chunk they come before.
    fn schedule(&self) -> VecDeque<(u64, Action)> {
        let half = self.chunks() / 2;
        let mut cues: Vec<_> = self
            .crew
            .plan
            .cues
            .iter()
            .map(|cue| (cue.at.map_or_else(|| usual_chunk(&cue.action, half), chunks_in), &cue.action))
            .map(|(chunk, action)| (chunk, action.clone()))
            .collect();
        cues.sort_by_key(|&(chunk, _)| chunk);
        cues.into()
    }

    fn chunks(&self) -> u64 {
        self.samples.div_ceil(CHUNK_SAMPLES as u64)
    }

    async fn connection(
        &mut self,
        first_chunk: u64,
        cues: &mut VecDeque<(u64, Action)>,
    ) -> (CallReport, Outcome) {
        let line = Line::connect(&self.target, self.signature.as_deref()).await;
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                self.settle();
                let report = failure(self.index, &self.ids, &error);
                return (report, Outcome::Over(End::Failed { error: error.to_string() }));
            }
        };
        let mut stream = Stream::new(self, line, first_chunk);
        let outcome = stream.run(first_chunk, cues).await;
        let mut report = stream.report;
        report.end = match &outcome {
            Outcome::Over(end) => end.clone(),
            Outcome::Reconnect(_) => End::CutOff,
        };
        report.good = match &outcome {
            Outcome::Over(_) => self.is_good(&report),
            Outcome::Reconnect(_) => true,
        };
        (report, outcome)
    }

    fn is_good(&self, report: &CallReport) -> bool {
        let expected = self.crew.plan.expected_codes();
        let may_end_early = self.crew.plan.has(Fault::StopMissing);
        match report.end {
            End::Failed { .. } => false,
            _ if expected.is_empty() => true,
            End::Closed { code, .. } => {
                expected.contains(&code) && (report.stopped || may_end_early || code != 1000)
            }
            _ => false,
        }
    }

    fn settle(&mut self) {
        if !self.settled {
            self.settled = true;
            self.crew.meter.call_settled();
        }
    }
}

/// The chunk that a cue without a time comes before.
fn usual_chunk(action: &Action, half: u64) -> u64 {
    use Fault::{Fragments, NoPong, Slow, SplitBytes};
    match action {
        Action::Fault(Fragments | NoPong | Slow | SplitBytes, _) => 0,
        _ => half,
    }
}

fn chunks_in(time: Duration) -> u64 {
    (time.as_micros() / CHUNK.as_micros()) as u64
}

/// How frames are written.
#[derive(Clone, Copy, PartialEq)]
enum Delivery {
    Whole,
    Bytes,
    Fragments,
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
struct Stream<'c, 'a> {
    call: &'c mut Call<'a>,
    line: Line,
    messages: Messages,
    report: CallReport,
    clock: Pin<Box<Sleep>>,
    /// When the connection's first chunk is due, and its number.
    epoch: (Instant, u64),
    /// Ticks due before this were made late by a fault, and do not count as late.
    excused_until: Instant,
    /// The chunk at whose time the stream's `start` was sent.
    first_chunk: u64,
    first_timestamp_ms: u64,
    timestamp_jump_ms: u64,
    /// Media before this chunk is lost on its way to us.
    lost_until_chunk: u64,
    hold_next_chunks: u64,
    repeat_next: bool,
    held: Vec<Held>,
    delivery: Delivery,
    random: fastrand::Rng,
    /// Frames that wait to be written, and how many of them make a write.
    out: Vec<u8>,
    write_bytes: usize,
    frames_waiting: u64,
    copies: Copies,
}

impl<'c, 'a> Stream<'c, 'a> {
    fn new(call: &'c mut Call<'a>, line: Line, first_chunk: u64) -> Stream<'c, 'a> {
        let plan = &call.crew.plan;
        let usual_timestamp_ms = FIRST_TIMESTAMPS_MS[call.index as usize % 4];
        let now = Instant::now();
        let epoch = (next_slot(call.crew.begun, call.index, now), first_chunk);
        Stream {
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
            random: fastrand::Rng::new(),
            out: Vec::with_capacity(if plan.flood { FLOOD_WRITE_BYTES + 1024 } else { 1024 }),
            write_bytes: if plan.flood { FLOOD_WRITE_BYTES } else { 0 },
            frames_waiting: 0,
            copies: Copies::default(),
            call,
        }
    }

    /// Speaks until the call is over; a connection that fails meanwhile ends it, too.
    async fn run(&mut self, first_chunk: u64, cues: &mut VecDeque<(u64, Action)>) -> Outcome {
        match self.speak(first_chunk, cues).await {
            Ok(outcome) => outcome,
            Err(Failure::Line) => match self.line.ending(LAST_WORDS).await {
                End::StillOpen => Outcome::Over(End::Reset),
                end => Outcome::Over(end),
            },
            Err(Failure::Save(error)) => Outcome::Over(End::Failed { error: error.to_string() }),
        }
    }

    async fn speak(
        &mut self,
        first_chunk: u64,
        cues: &mut VecDeque<(u64, Action)>,
    ) -> Result<Outcome, Failure> {
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
            if self.out.is_empty()
                && let Some(end) = self.line.hear()
            {
                return Ok(Outcome::Over(end));
            }
            if self.call.crew.meter.is_hung_up() {
                break;
            }
        }
        self.stop().await.map(Outcome::Over)
    }

    async fn begin(&mut self) -> Result<(), Failure> {
        let plan = &self.call.crew.plan;
        put(&mut self.out, &mut self.random, self.delivery, self.messages.connected());
        if plan.has(Fault::MediaBeforeStart) {
            let media = self.messages.media(Track::Inbound, 0, &FORBIDDEN_CHUNK);
            put(&mut self.out, &mut self.random, self.delivery, media);
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
        let text = self.messages.start(tracks, &self.call.parameters);
        put(&mut self.out, &mut self.random, self.delivery, text);
        if let Some(directory) = &self.call.crew.plan.save_sent {
            self.call.recordings += 1;
            let stream_sid = &self.messages.ids().stream_sid;
            self.copies = Copies::create(directory, stream_sid, self.call.recordings, tracks)?;
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
            put(&mut self.out, &mut self.random, self.delivery, text);
            if std::mem::take(&mut self.repeat_next) {
                put(&mut self.out, &mut self.random, self.delivery, text);
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
            put(&mut self.out, &mut self.random, self.delivery, &held.text);
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
        if self.out.len() > self.write_bytes { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        match self.delivery {
            Delivery::Whole | Delivery::Fragments => self.line.write(&self.out).await?,
            Delivery::Bytes => {
                for byte in self.out.chunks(1) {
                    self.line.write(byte).await?;
                }
            }
            Delivery::Slow => {
                for part in self.out.chunks(self.out.len().div_ceil(8).max(1)) {
                    self.line.write(part).await?;
                    sleep(Duration::from_millis(2)).await;
                }
            }
        }
        self.out.clear();
        self.report.frames_sent += self.frames_waiting;
        self.call.crew.meter.frames_went(self.frames_waiting);
        self.frames_waiting = 0;
        Ok(())
    }

    async fn stop(&mut self) -> Result<End, Failure> {
        self.release_held(u64::MAX).await?;
        self.call.crew.meter.call_stopping();
        put(&mut self.out, &mut self.random, self.delivery, self.messages.stop());
        if self.call.crew.plan.has(Fault::MediaAfterStop) {
            let timestamp_ms = self.timestamp_ms(self.call.chunks());
            let media = self.messages.media(Track::Inbound, timestamp_ms, &FORBIDDEN_CHUNK);
            put(&mut self.out, &mut self.random, self.delivery, media);
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

    /// Does what a cue asks for; returns an outcome if that ends the connection.
    async fn act(&mut self, action: &Action, chunk: u64) -> Result<Option<Outcome>, Failure> {
        let (fault, measure) = match action {
            Action::Dtmf(digit) => {
                let text = self.messages.dtmf(*digit);
                put(&mut self.out, &mut self.random, self.delivery, text);
                return self.flush().await.map(|()| None);
            }
            Action::Mark(name) => {
                let text = self.messages.mark(name);
                put(&mut self.out, &mut self.random, self.delivery, text);
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
                return self.end_badly(fault, measure).await.map(|end| Some(Outcome::Over(end)));
            }
            Fault::Reconnect => {
                self.copies.flush()?;
                self.line.finish_writing().await?;
                return Ok(Some(Outcome::Reconnect(chunk)));
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
            Fault::Fragments => self.delivery = Delivery::Fragments,
            Fault::Slow => self.delivery = Delivery::Slow,
            // These three are no matter of time: they are done where the call begins and ends.
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

    /// Messages that a recorder must reject; they carry no audio that counts.
    fn put_bad_message(&mut self, fault: Fault, chunk: u64) {
        let timestamp_ms = self.timestamp_ms(chunk);
        match fault {
            Fault::BadBase64 => {
                let mut text =
                    self.messages.media(Track::Inbound, timestamp_ms, &FORBIDDEN_CHUNK).to_vec();
                let payload_at = text.len() / 2;
                text[payload_at] = b'!';
                put(&mut self.out, &mut self.random, self.delivery, &text);
            }
            Fault::BadJson => {
                let text = br#"{"event":"media","sequenceNumber":"#;
                put(&mut self.out, &mut self.random, self.delivery, text);
            }
            _ => {
                let mask = self.random.u32(..).to_ne_bytes();
                wire::put_frame(&mut self.out, wire::FIN | wire::BINARY, mask, &FORBIDDEN_CHUNK);
            }
        }
    }

    async fn end_badly(&mut self, fault: Fault, measure: Duration) -> Result<End, Failure> {
        let patience = self.call.crew.plan.patience;
        match fault {
            Fault::Rst => {
                self.line.reset()?;
                return Ok(End::CutOff);
            }
            Fault::Fin => self.line.finish_writing().await?,
            Fault::HalfFrame => {
                let text = self.messages.media(Track::Inbound, 0, &FORBIDDEN_CHUNK);
                put(&mut self.out, &mut self.random, Delivery::Whole, text);
                self.line.write(&self.out[..self.out.len() / 2]).await?;
                self.line.finish_writing().await?;
            }
            Fault::StopMissing => self.line.close(1000).await?,
            Fault::Silent => return Ok(self.line.ending(measure).await),
            violation => {
                let mask = self.random.u32(..).to_ne_bytes();
                put_violation(&mut self.out, violation, mask);
                self.line.write(&self.out).await?;
            }
        }
        Ok(self.line.ending(patience).await)
    }
}

/// Frames one message, in the way messages are delivered just now.
fn put(out: &mut Vec<u8>, random: &mut fastrand::Rng, delivery: Delivery, text: &[u8]) {
    let mut mask = || random.u32(..).to_ne_bytes();
    if delivery != Delivery::Fragments {
        return wire::put_frame(out, wire::FIN | wire::TEXT, mask(), text);
    }
    let (head, rest) = text.split_at(text.len() / 3);
    let (middle, tail) = rest.split_at(rest.len() / 2);
    wire::put_frame(out, wire::TEXT, mask(), head);
    wire::put_frame(out, wire::FIN | wire::PING, mask(), b"between");
    wire::put_frame(out, wire::CONTINUATION, mask(), middle);
    wire::put_frame(out, wire::FIN | wire::CONTINUATION, mask(), tail);
}

/// One frame that RFC 6455 forbids.
fn put_violation(out: &mut Vec<u8>, fault: Fault, mask: [u8; 4]) {
    const TEXT: u8 = wire::FIN | wire::TEXT;
    match fault {
        Fault::Unmasked => wire::put_unmasked(out, TEXT, b"{}"),
        Fault::Rsv => wire::put_frame(out, TEXT | wire::RSV1, mask, b"{}"),
        Fault::ReservedOpcode => wire::put_frame(out, wire::FIN | wire::RESERVED, mask, b"{}"),
        Fault::LoneContinuation => {
            wire::put_frame(out, wire::FIN | wire::CONTINUATION, mask, b"{}");
        }
        Fault::FragmentedControl => wire::put_frame(out, wire::PING, mask, b""),
        Fault::BadUtf8 => wire::put_frame(out, TEXT, mask, b"{\"event\":\"\xC0\xAF\"}"),
        Fault::HugeFrame => wire::put_head(out, TEXT, mask, 1 << 62),
        other => unreachable!("{other:?} breaks no rule of the frame format"),
    }
}

/// 0, 1 or 2: Twilio's timestamps stay within a millisecond of 20 ms steps. Never moves the first.
fn wobble_ms(age: u64) -> u64 {
    if age == 0 { 1 } else { (age.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) % 3 }
}

/// The first moment after `now` that is the call's turn: the calls' turns are spread evenly over
/// the 20 ms by the golden ratio, however many there are.
fn next_slot(begun: Instant, index: u32, now: Instant) -> Instant {
    let phase = CHUNK.mul_f64((f64::from(index) * 0.618_033_988_749_895).fract());
    let rounds = (now - begun).as_micros() / CHUNK.as_micros() + 1;
    begun + phase + CHUNK * rounds as u32
}

/// Why a stream cannot go on.
enum Failure {
    Line,
    Save(Error),
}

impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Failure {
        Failure::Line
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Save(error)
    }
}

/// Copies of the audio that is sent, a file a track.
#[derive(Default)]
struct Copies {
    files: Vec<(Track, PathBuf, BufWriter<File>)>,
}

impl Copies {
    /// Creates `<streamSid>[-<recording>][.outbound].ulaw` for each track.
    fn create(
        directory: &std::path::Path,
        stream_sid: &str,
        recording: u32,
        tracks: &[Track],
    ) -> Result<Copies, Error> {
        let number = if recording > 1 { format!("-{recording}") } else { String::new() };
        let mut files = Vec::new();
        for &track in tracks {
            let side = if track == Track::Outbound { ".outbound" } else { "" };
            let path = directory.join(format!("{stream_sid}{number}{side}.ulaw"));
            let file = std::fs::create_dir_all(directory).and_then(|()| File::create(&path));
            let file = file.map_err(|cause| Error::Save { path: path.clone(), cause })?;
            files.push((track, path, BufWriter::with_capacity(16 << 10, file)));
        }
        Ok(Copies { files })
    }

    fn write(&mut self, track: Track, payload: &[u8]) -> Result<(), Error> {
        match self.files.iter_mut().find(|(of, ..)| *of == track) {
            Some((_, path, file)) => {
                file.write_all(payload).map_err(|cause| Error::Save { path: path.clone(), cause })
            }
            None => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.files.iter_mut().try_for_each(|(_, path, file)| {
            file.flush().map_err(|cause| Error::Save { path: path.clone(), cause })
        })
    }
}
