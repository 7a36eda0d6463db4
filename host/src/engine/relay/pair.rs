//! One relayed call: the provider's side, the bot's side, and the recorder between them.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use callreel_core::ws::CloseCode;
use mio::event::Event;
use mio::{Registry, Token};

use super::super::desk::Desk;
use super::super::places::Place;
use super::super::wire::Wire;
use super::super::{BotEnd, Connection};
use super::recorder::{OfBot, Recorder};
use super::side::{PING_INTERVAL, Side};
use super::tape::Kind;
use super::{RECORD_INTERVAL, TEND_INTERVAL};
use crate::call::Call;
use crate::record::End;
use crate::recording::Outcome;

/// Bytes of one read.
const READ_BYTES: usize = 64 * 1024;

/// Bytes read from one side before other calls have their turn.
const TURN_BYTES_MAX: usize = 256 * 1024;

/// Time for the bot to end its side after the stream has stopped.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Shortest time after which a bot without a word is gone. One that listens says nothing, and answers only
/// the pings.
const BOT_PATIENCE_MIN: Duration = PING_INTERVAL.saturating_mul(3);

/// Longest time for the sides to close after one of them has.
const LINGER: Duration = Duration::from_secs(2);

/// A relayed call on its thread.
pub(super) struct Pair {
    provider: Side,
    bot: Side,
    recorder: Recorder,
    peer: SocketAddr,
    place: Place,
    began: Instant,
    /// Time of the last housekeeping.
    tended: Instant,
    closing: Closing,
    /// Most bytes of the bot that wait for the provider.
    queue_bytes_max: usize,
    /// The bot has to wait for the provider, and the provider for the bot.
    is_waiting: [bool; 2],
}

enum Closing {
    No,
    /// The stream has stopped; closes at this time, if nobody does before.
    Stopped(Instant),
    /// The bot's side is closed, and the provider's will be, with this code: when the recordings are finished,
    /// or at this time.
    Finishing(CloseCode, Instant),
    /// Both sides are closed from here; ends at this time at the latest.
    Lingering(Instant),
    Gone,
}

/// The side from which bytes come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Source {
    Provider,
    Bot,
}

impl Pair {
    /// Takes over a call whose bot has answered; `None` if the connection has no bot.
    pub(super) fn new(
        connection: Connection,
        place: Place,
        token: Token,
        desk: &Desk,
    ) -> Option<Self> {
        let now = Instant::now();
        let Connection { stream, tls, already_read, peer, detector, known, bot } = connection;
        let BotEnd { stream: bot, tls: bot_tls, already_read: bot_read, queue_bytes_max } = *bot?;
        let call = Call::new(peer, token.0, detector, desk.config.capture).knowing(known);
        Some(Self {
            provider: Side::of_client(Wire::new(stream, tls), already_read, now),
            bot: Side::of_server(Wire::new(bot, bot_tls), bot_read, now),
            recorder: Recorder::new(call),
            peer,
            place,
            began: now,
            tended: now,
            closing: Closing::No,
            queue_bytes_max,
            is_waiting: [false; 2],
        })
    }

    /// Has the poll report both sockets.
    ///
    /// # Errors
    /// The system does not watch one of them.
    pub(super) fn watch(
        &mut self,
        registry: &Registry,
        provider: Token,
        bot: Token,
    ) -> io::Result<()> {
        self.provider.wire.watch_both_ways(registry, provider)?;
        self.bot.wire.watch_both_ways(registry, bot)
    }

    /// Ends the reports of the poll.
    pub(super) fn release(mut self: Box<Self>, registry: &Registry) {
        self.provider.wire.forget(registry);
        self.bot.wire.forget(registry);
    }

    /// Whether the call must be dropped.
    pub(super) const fn is_gone(&self) -> bool {
        matches!(self.closing, Closing::Gone)
    }

    /// Takes note of a report of the poll about one of the sockets. Returns whether the call has something
    /// to do.
    pub(super) fn note(&mut self, event: &Event, is_bot: bool) -> bool {
        let Self { provider, bot, .. } = self;
        let (side, other) = if is_bot { (bot, provider) } else { (provider, bot) };
        let mut is_ready = side.note(event);
        if event.is_writable() && side.wire.has_unsent() {
            side.flush(other);
            // The other side may have waited for this.
            is_ready |= other.is_readable;
        }
        is_ready
    }

    /// Passes on the bytes of both sides. Returns whether more wait, and other calls had no turn.
    pub(super) fn take_turn(&mut self, desk: &mut Desk, now: Instant) -> bool {
        let of_provider = self.pass(Source::Provider, desk, now);
        let of_bot = self.pass(Source::Bot, desk, now);
        of_provider || of_bot
    }

    /// Passes on the bytes of one side.
    fn pass(&mut self, from: Source, desk: &mut Desk, now: Instant) -> bool {
        let mut turn_bytes = 0;
        loop {
            let Self { provider, bot, recorder, is_waiting, .. } = self;
            let (side, other) = match from {
                Source::Provider => (provider, bot),
                Source::Bot => (bot, provider),
            };
            if !side.is_readable || side.is_over {
                return false;
            }
            if other.wire.unsent_bytes() >= self.queue_bytes_max {
                return self.wait_for_room(from, desk, now);
            }
            is_waiting[from as usize] = false;
            if turn_bytes >= TURN_BYTES_MAX {
                return true;
            }
            let received = match side.receive(&mut desk.buffer[..READ_BYTES]) {
                Ok(Some(received)) => received,
                Ok(None) => return self.end_of_stream(from, End::Disconnect, desk, now),
                Err(_) => return self.end_of_stream(from, End::Reset, desk, now),
            };
            side.is_readable = !received.is_drained;
            turn_bytes += received.work;
            if received.bytes == 0 {
                continue;
            }
            // Not before the bytes came: the caller's clock is that of the frame with the shortest way, so one
            // frame that seems to come too early would shift the bot's audio in the file for good.
            let now = Instant::now();
            side.heard = now;
            let bytes = &desk.buffer[..received.bytes];
            let closes = match from {
                Source::Provider => side.pass(bytes, other, &mut ()),
                Source::Bot => side.pass(bytes, other, &mut OfBot { recorder, at: now }),
            };
            other.flush(side);
            side.flush(other);
            if from == Source::Provider {
                recorder.keep(Kind::Provider(side.ends), bytes, now);
            }
            if recorder.is_due() {
                self.record(desk, now);
            }
            if let Some(code) = closes {
                self.close(from, code, End::Close, desk, now);
            }
        }
    }

    /// Gives the recorder its turn, and does the housekeeping if that is due. Returns whether the call has
    /// something to pass on.
    pub(super) fn look_after(&mut self, desk: &mut Desk, now: Instant) -> bool {
        if now - self.tended + RECORD_INTERVAL / 2 >= TEND_INTERVAL {
            self.tended = now;
            return self.tend(desk, now);
        }
        self.record(desk, now);
        false
    }

    /// Records what has gone on.
    fn record(&mut self, desk: &mut Desk, now: Instant) {
        self.recorder.catch_up(desk);
        self.note_stop(now);
    }

    /// Gives the bot its time to end, once the recorder has come to the end of the stream.
    fn note_stop(&mut self, now: Instant) {
        if self.recorder.has_stopped() && matches!(self.closing, Closing::No) {
            self.closing = Closing::Stopped(now + STOP_PATIENCE);
        }
    }

    /// The other side does not take more: no more is read from this one for now.
    #[cold]
    fn wait_for_room(&mut self, from: Source, desk: &mut Desk, now: Instant) -> bool {
        let peer = self.peer;
        if std::mem::replace(&mut self.is_waiting[from as usize], true) {
            return false;
        }
        if from == Source::Bot {
            self.recorder.keep(Kind::BotWaits, &[], now);
        }
        if let Some(left_out) = desk.context.room(peer, now) {
            let (sender, receiver) = match from {
                Source::Provider => ("the provider", "the bot"),
                Source::Bot => ("the bot", "the provider"),
            };
            tracing::warn!(%peer, left_out, "{sender} sends more than {receiver} takes: it has to wait");
        }
        false
    }

    /// One side has ended its stream, with or without a close frame before.
    fn end_of_stream(&mut self, from: Source, end: End, desk: &mut Desk, now: Instant) -> bool {
        match from {
            Source::Provider => self.provider.is_over = true,
            Source::Bot => self.bot.is_over = true,
        }
        self.close(from, None, end, desk, now);
        false
    }

    /// Closes both sides, since one of them has closed. Its code goes on to the other.
    fn close(
        &mut self,
        from: Source,
        code: Option<CloseCode>,
        end: End,
        desk: &mut Desk,
        now: Instant,
    ) {
        // The bot's end is an ordinary end of the call, however it comes.
        let end = if from == Source::Bot { End::Bot } else { end };
        self.close_both(code.unwrap_or(CloseCode::NORMAL), end, desk, now);
    }

    fn close_both(&mut self, code: CloseCode, end: End, desk: &mut Desk, now: Instant) {
        self.recorder.end(end, desk, now);
        self.place.linger();
        self.bot.close(code, &self.provider);
        if matches!(self.closing, Closing::No | Closing::Stopped(_)) {
            self.closing = Closing::Finishing(code, now + LINGER);
        }
        self.close_if_finished(now);
        self.go_if_over();
    }

    /// Closes the provider's side when the recordings are finished, or have taken too long.
    fn close_if_finished(&mut self, now: Instant) {
        if let Closing::Finishing(code, until) = self.closing
            && (!self.recorder.is_finishing() || now >= until)
        {
            self.provider.close(code, &self.bot);
            self.closing = Closing::Lingering(now + LINGER);
        }
    }

    /// The call is gone when both sides have closed and have been told so.
    fn go_if_over(&mut self) {
        let Self { provider, bot, .. } = self;
        let is_over = |side: &Side| side.is_over && !side.wire.has_unsent();
        if matches!(self.closing, Closing::Lingering(_)) && is_over(provider) && is_over(bot) {
            self.closing = Closing::Gone;
        }
    }

    /// Notes that one of the recordings is finished.
    pub(super) fn note_finished(&mut self, outcome: Outcome, now: Instant) {
        self.recorder.note_finished(outcome);
        self.close_if_finished(now);
        self.go_if_over();
    }

    /// Reads the bytes that have arrived, then closes both sides: the recorder stops.
    pub(super) fn drain(&mut self, desk: &mut Desk, now: Instant) {
        self.take_turn(desk, now);
        self.close_both(CloseCode::GOING_AWAY, End::Shutdown, desk, now);
    }

    /// Does the housekeeping. Returns whether the call has something to do.
    fn tend(&mut self, desk: &mut Desk, now: Instant) -> bool {
        let health = self.recorder.tend(desk, now);
        self.note_stop(now);
        let patience = desk.config.idle_timeout;
        let media_time = health.map(|health| health.media_time).unwrap_or_default();
        match self.closing {
            Closing::Stopped(until) if now >= until => {
                self.close_both(CloseCode::NORMAL, End::Stop, desk, now);
            }
            Closing::Finishing(..) => self.close_if_finished(now),
            Closing::Lingering(until) if now >= until => self.closing = Closing::Gone,
            Closing::Lingering(_) => self.go_if_over(),
            Closing::Gone => {}
            _ if now - self.provider.heard >= patience => {
                self.close_both(CloseCode::POLICY, End::Idle, desk, now);
            }
            _ if now - self.bot.heard >= patience.max(BOT_PATIENCE_MIN) => {
                self.close_both(CloseCode::NORMAL, End::Bot, desk, now);
            }
            _ if (now - self.began).max(media_time) >= desk.config.max_duration => {
                self.close_both(CloseCode::POLICY, End::MaxDuration, desk, now);
            }
            _ => {
                self.provider.ping(now);
                self.bot.ping(now);
            }
        }
        let Self { provider, bot, .. } = self;
        provider.flush(bot);
        bot.flush(provider);
        // A side that had to wait for the other is read again when there is room.
        provider.is_readable && !provider.is_over || bot.is_readable && !bot.is_over
    }
}
