//! The caller as the hearer of a bot: its messages are read as they come, its audio goes through the
//! provider's play-out buffer, and its marks are echoed when that audio has been played.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use callreel_core::format::Format;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::Message;

use super::{ConnectionEnd, DialledStream, Failure, LINGER};
use crate::audio::converted;
use crate::caller::heard::{Heard, Sides};
use crate::caller::looks::{Dropped, Look};
use crate::caller::playout::Playout;
use crate::caller::tongue::{self, Said};
use crate::caller::voice::Voice;
use crate::caller::{CallEnd, Error, Plan};

/// Most messages of the bot that are read while a chunk of the caller's is late.
const HEARD_AT_ONCE_MAX: usize = 64;

/// The times at which marks are echoed.
#[derive(Clone, Copy)]
pub(super) enum Echo {
    /// When the audio before the mark has been played, and this much later.
    Played(Duration),
    /// As soon as the mark comes.
    Early,
    Never,
}

/// An answer of the provider that waits for its time.
struct Reply {
    due: Instant,
    template: &'static str,
    /// Name of the mark; empty for another answer.
    mark: String,
}

/// The hearer's state of one connection.
pub(super) struct Ear {
    look: &'static Look,
    format: Format,
    stream_id: String,
    /// The zero of the call's clock: the time of the first chunk.
    epoch: Instant,
    playout: Playout,
    clears: Vec<u64>,
    replies: VecDeque<Reply>,
    pub(super) echo: Echo,
    /// Place of the end, once the call is over.
    end: Option<u64>,
    /// Whether the bot asked the provider to end the call.
    pub(super) is_told_to_hang_up: bool,
    largest: u64,
    /// Reasons for which messages are odd, with their counts.
    odd: BTreeMap<&'static str, u64>,
    has_heard: bool,
    heard: Heard,
}

impl Ear {
    /// An ear for a call of this plan, whose first chunk is due at `epoch`.
    pub(super) fn new(plan: &Plan, format: Format, stream_id: &str, epoch: Instant) -> Self {
        Self {
            look: plan.look,
            format,
            stream_id: stream_id.to_owned(),
            epoch,
            playout: Playout::new(format),
            clears: Vec::new(),
            replies: VecDeque::new(),
            echo: Echo::Played(Duration::ZERO),
            end: None,
            is_told_to_hang_up: false,
            largest: 0,
            odd: BTreeMap::new(),
            has_heard: false,
            heard: Heard::default(),
        }
    }

    /// Whether the bot has said anything.
    pub(super) const fn has_heard(&self) -> bool {
        self.has_heard
    }

    /// Place of a moment on the call's clock; moments before the first chunk have its place.
    fn place(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.epoch);
        (passed.as_nanos() * u128::from(self.format.sample_rate_hz) / 1_000_000_000) as u64
    }

    /// The moment at which the sample before a place has been played.
    fn moment(&self, place: u64) -> Instant {
        let rate = u128::from(self.format.sample_rate_hz);
        let nanos = (u128::from(place) * 1_000_000_000).div_ceil(rate);
        self.epoch + Duration::from_nanos(nanos as u64)
    }

    /// Takes a message that came at the moment `now`.
    fn take(&mut self, message: &Message, now: Instant) {
        self.has_heard = true;
        let said = match message {
            Message::Text(text) => {
                let heard = tongue::read_text(self.look.bot.tongue, text);
                if heard.stream.is_some_and(|stream| stream != *self.stream_id) {
                    self.note("a message that names another stream, which was taken all the same");
                }
                heard.said
            }
            Message::Binary(bytes) => tongue::read_binary(self.look.bot.tongue, bytes),
            _ => return,
        };
        match said {
            Said::Audio { bytes, codec, rate_hz } => {
                let own = Format {
                    codec: codec.unwrap_or(self.format.codec),
                    sample_rate_hz: rate_hz.unwrap_or(self.format.sample_rate_hz),
                };
                let bytes = if own == self.format {
                    bytes
                } else {
                    self.note("audio of another format than the stream's, which was converted");
                    converted(&bytes, own, self.format)
                };
                self.play(&bytes, now);
            }
            Said::Mark(name) => self.mark(name, now),
            Said::Clear => self.clear(now),
            Said::ClearMarks => self.replies.retain(|reply| reply.mark.is_empty()),
            Said::HangUp => self.is_told_to_hang_up = true,
            Said::Known => {}
            Said::Odd(reason) => {
                self.heard.odd_messages += 1;
                self.note(reason);
            }
        }
    }

    fn note(&mut self, reason: &'static str) {
        *self.odd.entry(reason).or_default() += 1;
    }

    fn play(&mut self, bytes: &[u8], now: Instant) {
        let samples = (bytes.len() / self.format.codec.width()) as u64;
        self.heard.messages += 1;
        self.largest = self.largest.max(samples);
        if self.end.is_some() {
            return self.playout.miss(bytes);
        }
        self.playout.play(self.place(now), bytes);
    }

    fn mark(&mut self, name: Option<String>, now: Instant) {
        self.heard.marks += 1;
        let Some(mark) = name else {
            self.heard.nameless_marks += 1;
            return;
        };
        let template = self.look.bot.played(&self.look.spelling);
        if template.is_empty() || self.end.is_some() {
            return;
        }
        let due = match self.echo {
            Echo::Played(late) => self.moment(self.playout.end()).max(now) + late,
            Echo::Early => now,
            Echo::Never => return,
        };
        self.replies.push_back(Reply { due, template, mark });
    }

    fn clear(&mut self, now: Instant) {
        self.heard.clears += 1;
        if self.end.is_some() {
            return;
        }
        let place = self.place(now);
        self.playout.clear(place);
        self.clears.push(place);
        let Echo::Played(late) = self.echo else { return self.answer_clear(now) };
        let is_pending = |reply: &Reply| !reply.mark.is_empty() && reply.due > now + late;
        match self.look.bot.dropped {
            Dropped::Never => self.replies.retain(|reply| !is_pending(reply)),
            dropped => {
                for reply in self.replies.iter_mut().filter(|reply| is_pending(reply)) {
                    reply.due = now + late;
                    if let Dropped::As(template) = dropped {
                        reply.template = template;
                    }
                }
            }
        }
        self.answer_clear(now);
    }

    fn answer_clear(&mut self, now: Instant) {
        let template = self.look.bot.cleared;
        if !template.is_empty() {
            self.replies.push_back(Reply { due: now, template, mark: String::new() });
        }
    }

    fn next_reply(&self) -> Option<Instant> {
        self.replies.front().map(|reply| reply.due)
    }

    /// The next reply that is due.
    fn due_reply(&mut self, now: Instant) -> Option<Reply> {
        let reply = self.replies.pop_front_if(|reply| reply.due <= now)?;
        self.heard.echoes += u64::from(!reply.mark.is_empty());
        Some(reply)
    }

    /// Ends the call: audio that was not played until `now` is never heard.
    pub(super) fn hang_up(&mut self, now: Instant) {
        if self.end.is_none() {
            let place = self.place(now);
            self.playout.hang_up(place);
            self.replies.clear();
            self.end = Some(place);
        }
    }

    /// The report, and remarks about odd messages; `said` are the caller's samples of the connection.
    fn report(
        mut self,
        plan: &Plan,
        voice: &Voice,
        said: Range<u64>,
        is_end_of_bot: bool,
    ) -> Result<(Heard, Vec<String>), Error> {
        self.hang_up(Instant::now());
        let end = self.end.unwrap_or_default();
        let sides = Sides {
            format: self.format,
            voice,
            said,
            playout: &self.playout,
            clears: &self.clears,
            end,
        };
        let seconds = |samples: u64| samples as f64 / f64::from(self.format.sample_rate_hz);
        let mut heard = self.heard;
        sides.judge(&mut heard, plan.max_latency);
        heard.largest_message_s = seconds(self.largest);
        heard.hung_up_s = is_end_of_bot.then(|| seconds(end));
        heard.file = plan.save_heard.as_deref().map(|path| sides.save(path)).transpose()?;
        let number = |reason: &str| match reason {
            _ if !plan.look.is_twilio() => "",
            "a binary message" => " (Twilio: 31950)",
            _ => " (Twilio: 31951)",
        };
        let note = |(reason, count): (&'static str, u64)| {
            format!("the bot sent, {count} x, {reason}{}", number(reason))
        };
        Ok((heard, self.odd.into_iter().map(note).collect()))
    }
}

impl DialledStream<'_, '_> {
    /// Hears the bot and answers it until `due`; returns the end of the call if it comes before.
    pub(super) async fn listen_until(&mut self, due: Instant) -> Result<Option<CallEnd>, Failure> {
        let (mut count, mut pings) = (0, 0);
        loop {
            self.answer_bot().await?;
            let Some(ear) = &mut self.ear else { return Ok(None) };
            if ear.is_told_to_hang_up {
                return Ok(None);
            }
            let wake = ear.next_reply().map_or(due, |at| at.min(due));
            self.clock.as_mut().reset(wake);
            tokio::select! {
                biased;
                heard = self.line.next_message() => match heard {
                    Ok(Some(message)) => ear.take(&message, Instant::now()),
                    Ok(None) => pings += 1,
                    Err(end) => return Ok(Some(end)),
                },
                () = self.clock.as_mut() => if Instant::now() >= due {
                    return Ok(None);
                },
            }
            count += 1;
            if pings >= HEARD_AT_ONCE_MAX {
                // The pongs for a server that reads none would fill the line, and nothing would go on it.
                self.clock.as_mut().reset(due);
                self.clock.as_mut().await;
                return Ok(None);
            }
            if count >= HEARD_AT_ONCE_MAX && Instant::now() >= due {
                return Ok(None);
            }
        }
    }

    /// Sends the replies that are due.
    async fn answer_bot(&mut self) -> Result<(), Failure> {
        let Some(ear) = &mut self.ear else { return Ok(()) };
        let now = Instant::now();
        while let Some(reply) = ear.due_reply(now) {
            let own = [("mark", &*reply.mark), ("verbatim", &*reply.mark)];
            self.outbox.put(self.messages.say(reply.template, &own));
        }
        if self.outbox.bytes.is_empty() { Ok(()) } else { self.flush().await }
    }

    /// Whether the call is one with a bot, whose end is not that of a recorder.
    pub(super) fn is_conversation(&self) -> bool {
        let is_asked_for = self.call.crew.plan.is_two_way();
        self.ear.as_ref().is_some_and(|ear| ear.has_heard() || is_asked_for)
    }

    /// Waits a while for the bot to close the connection, as few do behind a stop, and then closes it. The
    /// bot's further audio is counted, and never heard.
    pub(super) async fn part_from_bot(&mut self, patience: Duration) -> CallEnd {
        if let Some(end) = self.overhear(LINGER.min(patience)).await {
            return end;
        }
        // A connection that fails meanwhile is found out by the wait.
        let _ = self.line.close(Some(1000)).await;
        match self.overhear(patience).await {
            Some(end) => end,
            None => self.line.ending(Duration::ZERO).await,
        }
    }

    async fn overhear(&mut self, within: Duration) -> Option<CallEnd> {
        let deadline = Instant::now() + within;
        while let Ok(heard) = timeout_at(deadline, self.line.next_message()).await {
            match (heard, &mut self.ear) {
                (Ok(Some(message)), Some(ear)) => ear.take(&message, Instant::now()),
                (Ok(_), _) => {}
                (Err(end), _) => return Some(end),
            }
            // A bot that speaks on and on is not heard out.
            if Instant::now() >= deadline {
                break;
            }
        }
        None
    }

    /// Completes the report of the connection after its end `end`.
    pub(in crate::caller) fn conclude(&mut self, end: &ConnectionEnd) -> Result<(), Error> {
        let is_conversation = self.is_conversation();
        let Some(ear) = self.ear.take().filter(|_| is_conversation) else { return Ok(()) };
        let plan = &self.call.crew.plan;
        let said = self.said_from..self.said_to;
        let [(_, voice)] = &self.call.voices[..] else { return Ok(()) };
        let is_end_of_bot = !self.report.stopped
            && !plan.has_ending()
            && matches!(
                end,
                ConnectionEnd::Over(CallEnd::Closed { .. } | CallEnd::Dropped | CallEnd::Reset)
            );
        let (heard, notes) = ear.report(plan, voice, said, is_end_of_bot)?;
        self.report.heard = Some(heard);
        self.report.notes = notes;
        Ok(())
    }
}
