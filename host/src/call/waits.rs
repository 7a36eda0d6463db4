//! The waits of a connection: silence, starts and repeated starts are paid for by time.

use std::time::Instant;

use super::Call;
use crate::recording::{AudioFormat, Finishing, MESSAGE_BYTES_PER_MS, Recording, STUCK_AFTER};

/// Most audio that comes at once from a sender in step, in milliseconds of one track: that of a look, and of
/// a late network.
const AT_ONCE_MS_MAX: u64 = 400;

impl Call {
    /// Lets time pass, and forgets the reasons to wait that are over: the recording that a repeated start
    /// has ended is finished, or takes too long. With `is_stopping`, nobody waits for it or for time.
    pub(super) fn let_go(&mut self, is_stopping: bool, now: Instant) {
        if is_stopping {
            self.owed = 0;
        }
        let is_over = |(finishing, since): &(Finishing, Instant)| {
            is_stopping || finishing.is_over() || now - *since >= STUCK_AFTER
        };
        self.before.take_if(|before| is_over(before));
        self.advance(now);
    }

    /// Whether no message may be handled now. Checked between messages: one message can put only a
    /// bounded amount into a queue. With `is_stopping`, only a repeated start holds the rest up.
    pub(super) fn has_to_wait(&mut self, is_stopping: bool, now: Instant) -> bool {
        if self.before.is_some() || is_stopping {
            return self.before.is_some();
        }
        let mut recordings = self.streams.iter_mut().filter_map(|stream| stream.recording.as_mut());
        self.owed > 0 || recordings.any(|recording| recording.is_full(now))
    }

    /// Lets time pass: real time pays for silence and starts.
    pub(super) fn advance(&mut self, now: Instant) {
        let now_ms = now.saturating_duration_since(self.began).as_millis() as u64;
        let live = self.streams.iter().filter(|stream| stream.recording.is_some()).count();
        self.silence.advance(now_ms, live as u32);
        self.pay();
    }

    /// Tells the streams when the messages in `bytes` bytes arrived, unless too many came at once: then
    /// they waited somewhere.
    pub(super) fn note_arrival(&mut self, bytes: usize, now: Instant) {
        let now_ms = now.saturating_duration_since(self.began).as_millis() as u64;
        for stream in &mut self.streams {
            let format = stream.recording.as_ref().map(Recording::format);
            let usual = format.map_or(MESSAGE_BYTES_PER_MS, AudioFormat::message_bytes_per_ms);
            let is_usual = bytes as u64 <= usual * AT_ONCE_MS_MAX;
            stream.session.set_arrival_ms(is_usual.then_some(now_ms));
        }
    }

    pub(super) fn pay(&mut self) {
        if self.silence.take(self.owed) {
            self.owed = 0;
        }
    }
}
