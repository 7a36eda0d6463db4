//! Conversations with providers that must be answered, or that tell of media time without audio.

use super::turn::Pending;
use super::{Error, Event, Gap, Session, State, Turn, parts, silence};
use crate::frame::dialogue::Cause;
use crate::frame::{self, Body, Dialogue, Frame, PeerError, Reply, Skipped, Start};

/// Longest time without audio that one message may tell: four hours.
pub const SKIP_MS_MAX: u32 = 4 * 60 * 60 * 1000;

impl<S: AsRef<[u8]> + AsMut<[u8]>> Session<S> {
    /// State of the conversation with the provider. Sessions of one connection share one: store it here
    /// before a message, and read it back afterwards. With the feature `replies`.
    #[must_use]
    pub const fn dialogue_mut(&mut self) -> &mut Dialogue {
        &mut self.dialogue
    }

    /// Parses a message of another provider than Twilio.
    #[cold]
    pub(super) fn parse_of_dialogue<'t>(&self, text: &'t mut [u8]) -> Result<Frame<'t>, PeerError> {
        let mut frame = frame::parse_or_start(self.provider, text, |id| self.is_addressed(id))?;
        if let Body::Start(start) = &mut frame.body {
            self.complete(start);
        }
        Ok(frame)
    }

    /// Gives a start without a format that of the conversation.
    fn complete(&self, start: &mut Start<'_>) {
        if start.format.is_none() && start.encoding.is_empty() {
            start.format = self.dialogue.format;
        }
    }

    /// Takes a message other than media.
    #[cold]
    pub(super) fn handle_rare<'t>(
        &mut self,
        mut frame: Frame<'t>,
    ) -> Result<Turn<'_, 't, S>, Error> {
        self.dialogue.note(frame.sequence, frame.stream_id);
        if let Body::Start(start) = &mut frame.body {
            self.complete(start);
            self.dialogue.note_start(start);
        }
        let turn = match frame {
            Frame { sequence, body: Body::Asked(ask), .. } => {
                self.tell(sequence, Event::Asked(ask))
            }
            Frame { sequence, body: Body::Trouble(words), .. } => {
                self.tell(sequence, Event::Trouble(words))
            }
            Frame { sequence, body: Body::Offer(format, _), .. } => {
                self.dialogue.format = format;
                self.tell(sequence, Event::Connected)
            }
            Frame { sequence, body: Body::Bye, .. } => {
                self.note_number(sequence);
                let gaps = self.end();
                let mut turn = self.tell(None, Event::Over);
                turn.gaps = gaps;
                turn
            }
            Frame { sequence, body: Body::Skipped(skipped), .. }
                if self.state == State::Recording =>
            {
                self.note_number(sequence);
                self.skip(skipped)
            }
            frame => self.handle_plain(frame)?,
        };
        if turn.reply().is_some() {
            turn.session.dialogue.sent += 1;
        }
        Ok(turn)
    }

    /// A turn without audio.
    fn tell<'t>(&mut self, sequence: Option<u64>, event: Event<'t>) -> Turn<'_, 't, S> {
        self.note_number(sequence);
        self.jitter.forget_closed_holes();
        Turn { session: self, event, gaps: [None; 2], pending: Pending::default() }
    }

    /// Counts the messages missing before this one, while there is a recording.
    fn note_number(&mut self, sequence: Option<u64>) {
        if self.state == State::Recording {
            self.note_sequence(sequence);
        }
    }

    /// Puts silence in the place of audio that did not come.
    fn skip<'t>(&mut self, Skipped { micros, is_pause }: Skipped) -> Turn<'_, 't, S> {
        let layout = self.jitter.layout();
        if parts(layout, self.tracks) != 1 {
            // Which of the tracks it is about is not told.
            return self.tell(None, Event::Ignored);
        }
        self.jitter.forget_closed_holes();
        let micros = micros.min(u64::from(SKIP_MS_MAX) * 1000);
        let rate = u64::from(layout.format().sample_rate_hz);
        let (missing, at) = (micros * rate / 1_000_000, self.jitter.placed(0));
        let cost = (micros * u64::from(silence::PER_MS)).div_ceil(1000);
        let is_paid = u32::try_from(cost).is_ok_and(|cost| self.silence.take(cost));
        let samples = if is_paid { missing } else { 0 };
        self.silence_at = at as u32;
        let track = self.tracks.iter().next();
        let gap =
            track.map(|track| Gap { track, at, missing, filled: samples, is_by_arrival: false });
        // A pause that is silence in the recording is no loss.
        let gap = gap.filter(|gap| gap.missing > 0 && !(is_pause && is_paid));
        let event = Event::Skipped { at, samples, is_pause };
        let pending = Pending { channel: 0, silence: samples, bytes: &[] };
        Turn { session: self, event, gaps: [gap, None], pending }
    }
}

impl<'t, S: AsRef<[u8]> + AsMut<[u8]>> Turn<'_, 't, S> {
    /// The message that the provider must be sent because of this turn's; `None` if it expects none. Send
    /// it before those of later turns, in the few seconds that providers wait. With the feature `replies`.
    ///
    /// ```
    /// # use callreel_core::frame::Provider;
    /// # use callreel_core::session::{RING_ONE_TRACK_MIN, Session};
    /// # #[cfg(feature = "sinch")] {
    /// # let mut session = Session::new(Provider::Sinch, [0; 4 * RING_ONE_TRACK_MIN]);
    /// let mut connect = *br#"{"command":"connect","callId":"c-1","codec":"PCM","sampleRate":8000}"#;
    /// let turn = session.handle_message(&mut connect)?;
    /// let reply = turn.reply().map(|reply| reply.to_string());
    /// assert_eq!(reply.as_deref(), Some(r#"{"command":"answer"}"#));
    /// # }
    /// # Ok::<(), callreel_core::session::Error>(())
    /// ```
    #[must_use]
    pub fn reply(&self) -> Option<Reply<'t>> {
        let cause = match &self.event {
            Event::Asked(ask) => Cause::Ask(ask),
            Event::Connected => Cause::Hello,
            Event::Over => Cause::Over,
            Event::Refused(_) => Cause::Refused,
            Event::Started { start, .. } => Cause::Start(start),
            Event::Stopped => Cause::Stop,
            _ => return None,
        };
        Reply::to(self.session.provider, cause, self.session.dialogue)
    }
}
