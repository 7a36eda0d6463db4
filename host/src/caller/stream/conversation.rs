//! The conversation of AudioHook: answers that are waited for, pings, and orders to pause.
//!
//! Each side numbers its messages and tells the number of the last one that it heard. A server that
//! miscounts, or names another session, is told on, as Genesys' own client would do.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use super::{DialledStream, Failure};
use crate::caller::looks::Talk;
use crate::caller::looks::genesys::{DISCARDED, ERROR, PAUSED, PING, PING_WITH_TIME, RESUMED};
use crate::caller::messages::seconds;
use crate::caller::{CallEnd, Track};

/// Longest time for the answers `opened` and `pong`.
pub(super) const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// Time of the first ping, and between the later ones.
const FIRST_PING: Duration = Duration::from_secs(1);
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// The state of a conversation.
pub(super) struct Conversation {
    next_ping: Instant,
    /// Time of the ping that waits for its answer.
    pinged: Option<Instant>,
    has_told_time: bool,
    /// Number of the ping that waits for its answer, in steps.
    pub(super) number_pinged: Option<u64>,
    /// The server ordered the end of the call.
    pub(super) is_to_end: bool,
    /// Media time at which the pause began, in samples.
    paused_at: Option<u64>,
    /// Media time before which no audio is wanted, in samples.
    discarded_to: Option<u64>,
}

impl Conversation {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            next_ping: now + FIRST_PING,
            pinged: None,
            has_told_time: false,
            number_pinged: None,
            is_to_end: false,
            paused_at: None,
            discarded_to: None,
        }
    }
}

/// A message of the server.
#[derive(Deserialize)]
struct Said {
    version: String,
    r#type: String,
    id: String,
    seq: u64,
    clientseq: u64,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parameters {
    #[serde(default)]
    media: Vec<Medium>,
    #[serde(default)]
    start_paused: bool,
    discard_to: Option<String>,
}

#[derive(Deserialize)]
struct Medium {
    channels: Vec<String>,
}

impl DialledStream<'_, '_> {
    /// Whether audio is wanted at present.
    pub(super) fn is_listened_to(&self) -> bool {
        self.conversation.as_ref().is_none_or(|c| c.paused_at.is_none() && c.discarded_to.is_none())
    }

    /// Notes the media time, in samples, for the next messages.
    pub(super) fn keep_position(&mut self, samples: u64) {
        self.messages.standing.position = samples;
    }

    /// Waits for `opened`, and takes the media that the server chose.
    pub(super) async fn await_opened(&mut self) -> Result<Option<CallEnd>, Failure> {
        self.line.keep_texts();
        if let Talk::Steps(steps) = self.call.crew.plan.look.talk {
            return self.take_opening(steps).await;
        }
        let deadline = Instant::now() + ANSWER_PATIENCE;
        loop {
            let text = match self.line.next_text(deadline).await {
                Ok(text) => text,
                Err(Some(end)) => return Ok(Some(end)),
                Err(None) => return self.give_up("Open transaction timeout", "opened").await,
            };
            let said = match self.read(&text) {
                Ok(said) => said,
                Err(end) => return Ok(Some(end)),
            };
            match said.r#type.as_str() {
                "opened" => return self.opened(said.parameters),
                "disconnect" => return self.leave("disconnect").await.map(Some),
                _ => {}
            }
        }
    }

    fn opened(&mut self, parameters: Parameters) -> Result<Option<CallEnd>, Failure> {
        let Parameters { media, start_paused, discard_to } = parameters;
        let channels = media.first().map(|medium| medium.channels.as_slice()).unwrap_or_default();
        let has = |track: &Track| {
            let name = if *track == Track::Inbound { "external" } else { "internal" };
            channels.iter().any(|channel| channel == name)
        };
        self.payloads.retain(|(track, _)| has(track));
        if media.len() > 1 || self.payloads.len() != channels.len() {
            return Ok(Some(broken("it chose other media than those offered")));
        }
        let rate = self.stride.format.sample_rate_hz;
        let discarded = discard_to.map(|text| samples(&text, rate)).unwrap_or(Some(0));
        let Some(discarded) = discarded else {
            return Ok(Some(broken("its discardTo is no duration in seconds")));
        };
        let conversation = self.conversation.as_mut().expect("of a look that talks");
        conversation.discarded_to = (discarded > 0).then_some(discarded);
        conversation.paused_at = start_paused.then_some(0);
        Ok(None)
    }

    /// Takes the server's messages and sends those that are due before the chunk of this number; returns the end
    /// of the call if it has come.
    pub(super) async fn converse(&mut self, chunk: u64) -> Result<Option<CallEnd>, Failure> {
        if let Talk::Steps(steps) = self.call.crew.plan.look.talk {
            return self.follow(steps, chunk).await;
        }
        let position = chunk * self.stride.chunk_samples() as u64;
        self.keep_position(position);
        while let Some(text) = self.line.text() {
            let said = match self.read(&text) {
                Ok(said) => said,
                Err(end) => return Ok(Some(end)),
            };
            if let Some(end) = self.obey(&said.r#type, position).await? {
                return Ok(Some(end));
            }
        }
        let conversation = self.conversation.as_mut().expect("of a look that talks");
        if conversation.discarded_to.is_some_and(|until| until <= position) {
            conversation.discarded_to = None;
            let discarded = self.messages.duration(position);
            let own = [("from", "PT0S"), ("discarded", &*discarded)];
            self.outbox.put(self.messages.say(DISCARDED, &own));
        }
        let now = Instant::now();
        let conversation = self.conversation.as_mut().expect("of a look that talks");
        if conversation.pinged.is_some_and(|pinged| now > pinged + ANSWER_PATIENCE) {
            return self.give_up("Timeout waiting for pong", "pong").await;
        }
        if conversation.pinged.is_none() && now >= conversation.next_ping {
            conversation.pinged = Some(now);
            conversation.next_ping = now + PING_INTERVAL;
            self.outbox.put(self.messages.say(PING, &[]));
        }
        self.flush().await?;
        Ok(None)
    }

    async fn obey(&mut self, order: &str, position: u64) -> Result<Option<CallEnd>, Failure> {
        let conversation = self.conversation.as_mut().expect("of a look that talks");
        match order {
            "pong" => {
                let Some(pinged) = conversation.pinged.take() else { return Ok(None) };
                if !std::mem::replace(&mut conversation.has_told_time, true) {
                    // Once, the time to the answer is told by a second ping.
                    let took = u64::try_from(pinged.elapsed().as_nanos()).unwrap_or_default();
                    conversation.pinged = Some(Instant::now());
                    let rtt = seconds(took, 1_000_000_000);
                    self.outbox.put(self.messages.say(PING_WITH_TIME, &[("rtt", &rtt)]));
                }
            }
            "pause" => {
                conversation.paused_at.get_or_insert(position);
                self.outbox.put(self.messages.say(PAUSED, &[]));
            }
            "resume" => {
                let Some(from) = conversation.paused_at.take() else { return Ok(None) };
                let discarded = self.messages.duration(position - from);
                let from = self.messages.duration(from);
                let own = [("from", &*from), ("discarded", &*discarded)];
                self.outbox.put(self.messages.say(RESUMED, &own));
            }
            "disconnect" => return self.leave("disconnect").await.map(Some),
            _ => {}
        }
        Ok(None)
    }

    /// Reads a message of the server, and checks its numbers.
    fn read(&mut self, text: &str) -> Result<Said, CallEnd> {
        let said: Said = serde_json::from_slice(text.as_bytes())
            .map_err(|error| broken(&format!("it sent no message of AudioHook: {error}")))?;
        let expected = self.messages.standing.heard + 1;
        if said.version != "2" || said.id != self.messages.ids().stream_sid {
            return Err(broken("it named another version or session"));
        }
        if said.seq != expected {
            return Err(broken(&format!("its seq is {} instead of {expected}", said.seq)));
        }
        if said.clientseq > self.messages.last_number() {
            return Err(broken("its clientseq is of a message that was never sent"));
        }
        self.messages.standing.heard = said.seq;
        Ok(said)
    }

    /// Says that an answer did not come, and ends the call.
    async fn give_up(
        &mut self,
        reason: &'static str,
        answer: &'static str,
    ) -> Result<Option<CallEnd>, Failure> {
        self.outbox.put(self.messages.say(ERROR, &[("reason", reason)]));
        let _ = self.leave("error").await?;
        Ok(Some(CallEnd::Unanswered { answer }))
    }

    /// Says close before the time.
    async fn leave(&mut self, reason: &str) -> Result<CallEnd, Failure> {
        self.outbox.put(self.messages.stop(reason));
        self.flush().await?;
        self.copies.flush()?;
        let patience = self.call.crew.plan.patience;
        Ok(self.part(patience).await)
    }

    /// Waits for `closed`, and closes the connection without a code.
    pub(super) async fn part(&mut self, patience: Duration) -> CallEnd {
        let deadline = Instant::now() + patience;
        loop {
            let text = match self.line.next_text(deadline).await {
                Ok(text) => text,
                Err(end) => return end.unwrap_or(CallEnd::Unanswered { answer: "closed" }),
            };
            match self.read(&text) {
                Ok(said) if said.r#type == "closed" => break,
                Ok(_) => {}
                Err(end) => return end,
            }
        }
        // A connection that fails meanwhile is found out by the wait.
        let _ = self.line.close(None).await;
        self.line.ending(patience).await
    }
}

pub(super) fn broken(error: &str) -> CallEnd {
    CallEnd::Unintelligible { error: error.to_owned() }
}

/// The samples of a duration like `PT1.5S`.
fn samples(text: &str, rate_hz: u32) -> Option<u64> {
    let seconds: f64 = text.strip_prefix("PT")?.strip_suffix('S')?.parse().ok()?;
    (0.0..=86_400.0).contains(&seconds).then(|| (seconds * f64::from(rate_hz)).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_they_are_written() {
        for (text, count) in [("PT0S", 0), ("PT1.5S", 12_000), ("PT0.6S", 4800)] {
            assert_eq!(samples(text, 8000), Some(count));
            assert_eq!(seconds(count, 8000), text);
        }
        for text in ["1.5", "PT-1S", "PT1M", "PTinfS", ""] {
            assert_eq!(samples(text, 8000), None, "{text}");
        }
    }
}
