//! One call, from the webhook to the close frame.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use url::Url;

use super::certificate::TlsClient;
use super::dictionary::{self, Stage};
use super::line::{Greeting, Line, Target};
use super::looks::{Carried, Look, Stride, Talk};
use super::messages::{Facts, Ids, Messages};
use super::proof::Signed;
use super::stream::{ConnectionEnd, DialledStream};
use super::template::random_id;
use super::voice::Voice;
use super::{
    Action, CallEnd, CallReport, DialledTracks, Error, Fault, Meter, Plan, Track, webhook,
};
use crate::audio::speech;

/// Number of made-up voices. Further tracks repeat them, from other positions on.
const VOICES: usize = 16;

/// Length of a made-up voice before it repeats: 30 s.
const VOICE_SAMPLES: usize = 30 * 8000;

/// State that all calls share.
pub(super) struct Crew {
    pub(super) plan: Plan,
    pub(super) stride: Stride,
    pub(super) meter: Arc<Meter>,
    pub(super) begun: Instant,
    pub(super) tls: TlsClient,
    url: Url,
    voices: [OnceLock<Arc<[u8]>>; VOICES],
}

impl Crew {
    pub(super) fn new(plan: Plan, stride: Stride, url: Url, meter: Arc<Meter>) -> Self {
        let voices = std::array::from_fn(|_| OnceLock::new());
        let tls = TlsClient::new(&plan.ca, plan.cipher);
        Self { plan, stride, meter, begun: Instant::now(), tls, url, voices }.rehearse()
    }

    /// Makes up the voices and reads the authorities before the first call, since that takes milliseconds
    /// that would make calls late; then the run begins.
    fn rehearse(mut self) -> Self {
        let tracks = self.plan.calls as usize * 2;
        if self.plan.audio.is_none() && self.plan.say.is_empty() {
            (0..tracks.min(VOICES)).for_each(|number| drop(self.made_up(number)));
        }
        if matches!(self.url.scheme(), "wss" | "https") {
            // Without authorities, each call tells it.
            let _ = self.tls.connector();
        }
        self.begun = Instant::now();
        self
    }

    /// The audio of a call's track.
    fn voice(&self, index: u32, track: Track) -> Voice {
        let given = self.plan.audio.as_ref().and_then(|audio| match track {
            Track::Inbound => Some(audio.inbound()),
            // A call with the outbound track alone sends the only track of mono audio.
            Track::Outbound if self.plan.tracks == Some(DialledTracks::Outbound) => {
                Some(audio.outbound().unwrap_or(audio.inbound()))
            }
            Track::Outbound => audio.outbound(),
        });
        if !self.plan.say.is_empty() && track == Track::Inbound {
            return Voice::of_words(&self.plan.say, self.stride.format);
        }
        if let Some(audio) = given {
            return Voice::new(audio.clone(), 0, self.stride.format);
        }
        // Every other call swaps the tracks of the high and the low voice.
        let number = index as usize * 2 + (track as usize ^ (index as usize & 1));
        // 7919 is coprime to the voice's length, so that calls begin at different positions.
        let offset = number / VOICES * 7919 % VOICE_SAMPLES;
        Voice::new(self.made_up(number % VOICES), offset, self.stride.format)
    }

    fn made_up(&self, number: usize) -> Arc<[u8]> {
        let seed = self.plan.seed.wrapping_mul(VOICES as u64).wrapping_add(number as u64);
        self.voices[number].get_or_init(|| speech(seed, VOICE_SAMPLES).into()).clone()
    }

    fn ids(&self) -> Ids {
        let (plan, forms) = (&self.plan, &self.plan.look.ids);
        Ids {
            account_sid: plan.account_sid.clone().unwrap_or_else(|| random_id(forms.account)),
            call_sid: plan.call_sid.clone().unwrap_or_else(|| random_id(forms.call)),
            stream_sid: plan.stream_sid.clone().unwrap_or_else(|| random_id(forms.stream)),
            session: random_id(forms.session),
        }
    }
}

/// Places one call of a plan; returns a report for each connection it took.
pub(super) async fn run(crew: Arc<Crew>, index: u32) -> Vec<CallReport> {
    let ramp = crew.plan.ramp.unwrap_or(Duration::from_millis(2) * crew.plan.calls);
    sleep_until(crew.begun + ramp * index / crew.plan.calls).await;

    let ids = crew.ids();
    let mut reports = Vec::new();
    match DialledCall::prepare(&crew, index, ids.clone()).await {
        Ok(mut call) => call.run(&mut reports).await,
        Err(error) => {
            crew.meter.call_settled();
            reports.push(failure(crew.plan.look, index, &ids, &error, Stage::Webhook));
        }
    }
    crew.meter.call_over();
    reports
}

fn failure(look: &Look, call_index: u32, ids: &Ids, error: &Error, stage: Stage) -> CallReport {
    let end = CallEnd::Failed { error: error.to_string() };
    let twilio_error = look.is_twilio().then(|| dictionary::of_error(error, stage)).flatten();
    CallReport { end, twilio_error, ..blank_report(call_index, ids) }
}

pub(super) fn blank_report(call_index: u32, ids: &Ids) -> CallReport {
    CallReport {
        call_index,
        stream_sid: ids.stream_sid.clone(),
        call_sid: ids.call_sid.clone(),
        frames_sent: 0,
        samples_sent: 0,
        stopped: false,
        end: CallEnd::CutOff,
        close_lag_ms: None,
        good: false,
        twilio_error: None,
        notes: Vec::new(),
        heard: None,
    }
}

/// State of one call that all its connections share.
pub(super) struct DialledCall<'a> {
    pub(super) crew: &'a Crew,
    pub(super) index: u32,
    pub(super) ids: Ids,
    pub(super) facts: Facts,
    pub(super) voices: Vec<(Track, Voice)>,
    /// Samples of each track.
    pub(super) samples: u64,
    /// Whether the stream takes the audio of the other end.
    pub(super) hears: bool,
    target: Target,
    greeting: Greeting,
    /// Remarks about the TwiML.
    notes: Vec<String>,
    settled: bool,
}

impl<'a> DialledCall<'a> {
    async fn prepare(crew: &'a Crew, index: u32, ids: Ids) -> Result<DialledCall<'a>, Error> {
        let plan = &crew.plan;
        let of_audio = match plan.audio.as_ref().and_then(|audio| audio.outbound()) {
            _ if matches!(plan.look.tracks, Carried::One(_)) => DialledTracks::Inbound,
            // A monitor of Genesys is offered both.
            _ if plan.look.talk == Talk::Genesys => DialledTracks::Both,
            Some(_) => DialledTracks::Both,
            None => DialledTracks::Inbound,
        };
        let mut tracks = plan.tracks.unwrap_or(of_audio);
        let mut parameters = plan.parameters.clone();
        let mut notes = Vec::new();
        let mut hears = plan.deafness().is_none();
        let (target, signed_url) = if crew.url.scheme().starts_with("ws") {
            let target = match plan.connect.as_deref() {
                Some(connect) => Target::through(crew.url.clone(), connect),
                None => Target::new(crew.url.clone()),
            };
            (target, plan.sign_url.clone().unwrap_or_else(|| plan.url.clone()))
        } else {
            let asker = webhook::Asker { plan, tls: &crew.tls, ids: &ids };
            let answer = webhook::ask(&crew.url, asker).await?;
            tracks = plan.tracks.or(answer.tracks).unwrap_or(tracks);
            parameters.extend(answer.parameters);
            notes = answer.notes;
            hears &= answer.takes_audio;
            (answer.target, answer.signed_url)
        };
        hears &= tracks == DialledTracks::Inbound;
        if !hears && plan.is_two_way() {
            return Err(Error::OneWay {
                reason: "the TwiML asks for a stream that takes no audio",
            });
        }
        let facts = Facts {
            look: plan.look,
            stride: crew.stride,
            tracks: tracks.as_slice(),
            parameters,
            is_stream_named: plan.stream_sid.is_some(),
        };
        let mut messages = Messages::new(facts.clone(), ids.clone());
        let headers = plan.look.headers.iter().map(|(name, value)| {
            (*name, String::from_utf8_lossy(messages.say(value, &[])).into_owned())
        });
        let headers: Vec<_> = headers.collect();
        let token = plan.auth_token.as_ref();
        let signed = Signed::new(plan.look, token, signed_url, &target.url, &headers);
        let greeting = Greeting { subprotocol: plan.look.subprotocol, headers, signed };
        let voices = tracks.as_slice().iter();
        let voices = voices.map(|&track| (track, crew.voice(index, track))).collect();
        Ok(DialledCall {
            crew,
            index,
            ids,
            facts,
            voices,
            samples: crew.stride.samples(plan.length()),
            hears,
            target,
            greeting,
            notes,
            settled: false,
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
                ConnectionEnd::Reconnect(chunk) => first_chunk = chunk,
                ConnectionEnd::Over(_) if replays > 0 => {
                    replays -= 1;
                    first_chunk = 0;
                    cues = self.schedule();
                }
                ConnectionEnd::Over(_) => break,
            }
        }
        self.crew.meter.call_stopping();
    }

    /// The cues in order, each with the number of the chunk that follows it.
    fn schedule(&self) -> VecDeque<(u64, Action)> {
        let (half, stride) = (self.chunks() / 2, self.crew.stride);
        let mut cues: Vec<_> = self
            .crew
            .plan
            .cues
            .iter()
            .map(|cue| {
                let usual = || usual_chunk(&cue.action, half);
                (cue.at.map_or_else(usual, |at| stride.chunks_in(at)), &cue.action)
            })
            .map(|(chunk, action)| (chunk, action.clone()))
            .collect();
        cues.sort_by_key(|(chunk, action)| (*chunk, action.rank()));
        cues.into()
    }

    pub(super) fn chunks(&self) -> u64 {
        self.crew.stride.chunks(self.samples)
    }

    async fn connection(
        &mut self,
        first_chunk: u64,
        cues: &mut VecDeque<(u64, Action)>,
    ) -> (CallReport, ConnectionEnd) {
        let line = Line::connect(&self.target, &self.crew.tls, &self.greeting).await;
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                let error = self.explain(error).await;
                self.settle();
                let look = self.crew.plan.look;
                let report = failure(look, self.index, &self.ids, &error, Stage::Stream);
                let report = CallReport { notes: self.notes.clone(), ..report };
                return (report, ConnectionEnd::Over(CallEnd::Failed { error: error.to_string() }));
            }
        };
        let mut stream = DialledStream::new(self, line, first_chunk);
        let mut outcome = stream.run(first_chunk, cues).await;
        if let Err(error) = stream.conclude(&outcome) {
            outcome = ConnectionEnd::Over(CallEnd::Failed { error: error.to_string() });
        }
        let mut report = stream.report;
        report.end = match &outcome {
            ConnectionEnd::Over(end) => end.clone(),
            ConnectionEnd::Reconnect(_) => CallEnd::CutOff,
        };
        report.good = match &outcome {
            ConnectionEnd::Over(_) => self.is_good(&report),
            ConnectionEnd::Reconnect(_) => true,
        };
        if !report.good && self.crew.plan.look.is_twilio() {
            report.twilio_error = dictionary::of_end(&report.end, report.stopped);
        }
        report.notes.splice(..0, self.notes.iter().cloned());
        (report, outcome)
    }

    /// Finds out whether a refused signature has a wrong token or covers a wrong URL: the server can
    /// tell that of one for the URL which is asked.
    async fn explain(&self, error: Error) -> Error {
        let asked = self.target.url.as_str();
        let Some(signed) = &self.greeting.signed else { return error };
        if !error.is_in_doubt() || signed.url == asked {
            return error;
        }
        let Plan { look, auth_token, .. } = &self.crew.plan;
        let (url, headers) = (&self.target.url, &self.greeting.headers);
        let second = Signed::new(look, auth_token.as_ref(), asked.to_owned(), url, headers);
        let second = Greeting { signed: second, ..self.greeting.clone() };
        let second = Line::connect(&self.target, &self.crew.tls, &second).await.err();
        error.after_second(second.as_ref(), asked, &signed.url)
    }

    fn is_good(&self, report: &CallReport) -> bool {
        let expected = self.crew.plan.expected_codes();
        let may_end_early = self.crew.plan.has(Fault::StopMissing);
        match report.end {
            CallEnd::Failed { .. } => false,
            _ if expected.is_empty() => true,
            _ if report.heard.is_some() && !self.crew.plan.has_ending() => {
                is_usual_end_of_bot(report)
            }
            CallEnd::Closed { code, .. } => {
                // 1005 is a usual end without a code.
                let is_usual = matches!(code, 1000 | 1005);
                expected.contains(&code) && (report.stopped || may_end_early || !is_usual)
            }
            _ => false,
        }
    }

    /// Tells the meter, only once, that the call is up or never will be.
    pub(super) fn settle(&mut self) {
        if !self.settled {
            self.settled = true;
            self.crew.meter.call_settled();
        }
    }
}

/// Whether a call with a bot ended in an ordinary way. Behind a stop most bots wait for the caller's close, and
/// many end the TCP stream without a close frame. A bot that closes before hangs up.
fn is_usual_end_of_bot(report: &CallReport) -> bool {
    match report.end {
        CallEnd::Closed { code, .. } => matches!(code, 1000 | 1001 | 1005),
        CallEnd::Dropped | CallEnd::Reset => report.stopped,
        _ => false,
    }
}

/// Number of the chunk that follows a cue without a time.
fn usual_chunk(action: &Action, half: u64) -> u64 {
    use Fault::{EarlyEcho, Fragments, LateEcho, NoEcho, NoPong, Slow, SplitBytes};
    match action {
        Action::Fault(
            EarlyEcho | Fragments | LateEcho | NoEcho | NoPong | Slow | SplitBytes,
            _,
        ) => 0,
        _ => half,
    }
}
