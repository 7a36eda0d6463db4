//! The cues of a call at their time: keys, marks and faults.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::ear::Echo;
use super::{ConnectionEnd, Delivery, DialledStream, Failure};
use crate::caller::messages::Ids;
use crate::caller::template::random_id;
use crate::caller::wire::{self, Outbox};
use crate::caller::{Action, CallEnd, Fault, Track};

impl DialledStream<'_, '_> {
    /// Performs the action of a cue; returns an outcome if the action ends the connection.
    pub(super) async fn act(
        &mut self,
        action: &Action,
        chunk: u64,
    ) -> Result<Option<ConnectionEnd>, Failure> {
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
            Fault::LateEcho | Fault::EarlyEcho | Fault::NoEcho => {
                if let Some(ear) = &mut self.ear {
                    ear.echo = match fault {
                        Fault::EarlyEcho => Echo::Early,
                        Fault::NoEcho => Echo::Never,
                        _ => Echo::Played(measure),
                    };
                }
            }
            Fault::Stall => {
                sleep(measure).await;
                self.excused_until = Instant::now();
            }
            Fault::Gap | Fault::GapNoHole => self.lose(chunk, measure, fault == Fault::Gap),
            Fault::Late => self.hold_next_chunks = self.stride.chunks_in(measure).max(1),
            Fault::Reorder => self.hold_next_chunks = 1,
            Fault::Duplicate => self.repeat_next = true,
            Fault::TimestampJump => self.timestamp_jump_ms += measure.as_millis() as u64,
            Fault::BadBase64 | Fault::BadJson | Fault::Binary => self.put_bad_message(fault, chunk),
            Fault::SecondStart => {
                self.begin_anew(self.messages.ids().clone());
                self.start(chunk)?;
            }
            Fault::SecondStartOther => {
                let stream_sid = random_id(self.call.crew.plan.look.ids.stream);
                self.begin_anew(Ids { stream_sid, ..self.messages.ids().clone() });
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
        let lost = self.stride.chunks_in(measure);
        self.lost_until_chunk = chunk + lost;
        if with_numbers {
            for &track in self.call.facts.tracks {
                self.messages.lose(track, lost);
            }
        }
    }

    /// Queues a message that a recorder must reject; it carries no audio that counts.
    fn put_bad_message(&mut self, fault: Fault, chunk: u64) {
        let timestamp_ms = self.timestamp_ms(chunk);
        match fault {
            Fault::BadBase64 => {
                let forbidden = self.forbidden();
                let mut text =
                    self.messages.media(Track::Inbound, timestamp_ms, &forbidden).to_vec();
                let payload_at = text.len() / 2;
                text[payload_at] = b'!';
                self.outbox.put(&text);
            }
            Fault::BadJson => self.outbox.put(self.messages.broken()),
            _ => self.outbox.put_frame(wire::FIN | wire::BINARY, &self.forbidden()),
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
                self.put_forbidden(0);
                let half = self.outbox.bytes.len() / 2;
                self.line.write(&self.outbox.bytes[..half]).await?;
                self.line.finish_writing().await?;
            }
            Fault::StopMissing => self.line.close(Some(1000)).await?,
            Fault::Silent => return Ok(self.line.ending(measure).await),
            violation => {
                put_violation(&mut self.outbox, violation);
                self.line.write(&self.outbox.bytes).await?;
            }
        }
        Ok(self.line.ending(patience).await)
    }
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
