//! One call: the bytes of its connection in, its samples in a queue for whoever owns the card.

use callreel_core::frame::{Provider, Text};
use callreel_core::session::{
    Error, Event, RING_BOTH_TRACKS_MIN, RING_ONE_TRACK_MIN, Session, SilenceBudget, Turn,
};
use callreel_core::wav::Spec;
use callreel_core::ws::{self, CloseCode, Control, Decoder};
use heapless::String;

use crate::queue::Queue;

/// The longest WebSocket message that is taken: four times a media frame of 20 ms.
pub const MESSAGE_BYTES_MAX: usize = 2048;

/// Memory for the bytes of a connection.
pub const BUFFER_BYTES: usize = MESSAGE_BYTES_MAX + ws::OVERHEAD_BYTES_MAX;

/// Bytes of a session's ring: one track waits only for messages that are missing, two wait for each
/// other.
pub const RING_BYTES: usize =
    if cfg!(feature = "both-tracks") { RING_BOTH_TRACKS_MIN } else { RING_ONE_TRACK_MIN };

/// The queue to the card: half a second of each track, and a message's worth more.
pub const QUEUE_SAMPLES: usize = if cfg!(feature = "both-tracks") { 8000 } else { 4000 } + ROOM_MIN;

/// While less fits into the queue, messages wait in the connection's window: what the largest can
/// hold, and what the ring adds.
const ROOM_MIN: usize = 2048;

/// How long a full queue holds the provider up; then audio is given up, counted and replaced by
/// silence, so that a stop or a close still gets through.
pub const STALL_MS_MAX: u64 = 2000;

/// An id as it goes into an end record: what else than letters, digits, `-`, `_` and `.` it had is
/// replaced by `_`.
pub type Id = String<40>;

/// A recording that begins.
#[derive(Debug, Clone)]
pub struct Opening {
    /// What the file holds.
    pub spec: Spec,
    /// The stream's id.
    pub stream_id: Id,
    /// The call's id.
    pub call_id: Id,
}

/// Why a recording ended, in the words of its end record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The provider said stop.
    Stop,
    /// The connection was closed, or broke, without a stop.
    Closed,
    /// A second start came.
    Restart,
    /// Nothing came for too long.
    Silent,
    /// The peer broke the WebSocket protocol.
    Protocol,
}

impl Ending {
    /// One word for records.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Closed => "closed",
            Self::Restart => "restart",
            Self::Silent => "silent",
            Self::Protocol => "protocol",
        }
    }
}

/// What the call's messages amounted to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Media messages recorded.
    pub media: u64,
    /// Of those, the late ones.
    pub late: u64,
    /// Messages missing by their sequence numbers.
    pub missing: u64,
    /// Messages that could not be taken, and repeated ones.
    pub dropped: u64,
    /// Gaps in media time.
    pub gaps: u64,
    /// Samples of silence that fill them.
    pub filled: u64,
    /// Samples given up because the card was stalled too long, replaced by silence.
    pub lost: u64,
}

/// What the card's side finds at the end of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Why.
    pub ending: Ending,
    /// What happened.
    pub summary: Summary,
}

/// One connection's call, and the recording it is making.
///
/// The network's side feeds [`handle_bytes`](Self::handle_bytes) and [`end`](Self::end); the card's
/// side takes [`take_opening`](Self::take_opening), then samples, then [`take_end`](Self::take_end), and
/// says [`finished`](Self::finished). A second recording on the connection begins only when the first
/// was taken to its end.
pub struct Call<'q> {
    decoder: Decoder,
    session: Session<[u8; RING_BYTES]>,
    queue: &'q mut Queue<QUEUE_SAMPLES>,
    opening: Option<Opening>,
    end: Option<End>,
    summary: Summary,
    is_recording: bool,
    /// The card's side has taken an opening and not said that its recording is finished.
    is_open: bool,
    full_since_ms: Option<u64>,
    close: Option<CloseCode>,
    pong: Option<Control>,
}

impl<'q> Call<'q> {
    /// A call whose connection has just become a WebSocket.
    #[must_use]
    pub fn new(queue: &'q mut Queue<QUEUE_SAMPLES>) -> Self {
        queue.clear();
        let mut session = Session::new(Provider::Twilio, [0; RING_BYTES]);
        *session.silence_mut() = SilenceBudget::new();
        Self {
            decoder: Decoder::new(MESSAGE_BYTES_MAX),
            session,
            queue,
            opening: None,
            end: None,
            summary: Summary::default(),
            is_recording: false,
            is_open: false,
            full_since_ms: None,
            close: None,
            pong: None,
        }
    }

    /// Begins another connection's call in the same memory.
    pub fn reset(&mut self) {
        self.queue.clear();
        self.decoder = Decoder::new(MESSAGE_BYTES_MAX);
        self.session.reset();
        *self.session.silence_mut() = SilenceBudget::new();
        self.opening = None;
        self.end = None;
        self.summary = Summary::default();
        self.is_recording = false;
        self.is_open = false;
        self.full_since_ms = None;
        self.close = None;
        self.pong = None;
    }

    /// Takes what the connection's buffer holds, and says how many bytes at its start to keep.
    ///
    /// Bytes stay while the card is behind; call it again without new ones then.
    pub fn handle_bytes(&mut self, bytes: &mut [u8], now_ms: u64) -> usize {
        self.session.silence_mut().advance(now_ms, self.is_recording.into());
        while self.may_take_message(now_ms) {
            match self.decoder.poll(bytes) {
                None => break,
                Some(Ok(ws::Event::Text(text))) => self.handle_text(text),
                Some(Ok(ws::Event::Binary(_))) => {
                    self.stop(Ending::Protocol, CloseCode::UNSUPPORTED)
                }
                Some(Ok(ws::Event::Ping(payload))) => self.pong = Some(ws::pong(payload)),
                Some(Ok(ws::Event::Pong)) => {}
                Some(Ok(ws::Event::Close(code))) => {
                    self.stop(Ending::Closed, code.unwrap_or(CloseCode::NORMAL));
                }
                Some(Err(code)) => self.stop(Ending::Protocol, code),
            }
        }
        self.decoder.compact(bytes)
    }

    /// Whether the card keeps it from taking messages, or did so when it was last asked to.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.opening.is_some() || self.end.is_some() || self.full_since_ms.is_some()
    }

    /// Ends the call from outside: the connection broke, or nothing came for too long. Not to be
    /// called while it [`is_behind`](Self::is_behind): what the connection holds is to be taken first.
    pub fn end(&mut self, ending: Ending) {
        self.stop(ending, CloseCode::GOING_AWAY);
    }

    /// The close code to send, once the recording is on the card.
    #[must_use]
    pub fn close_code(&self) -> Option<CloseCode> {
        self.close.filter(|_| self.opening.is_none() && !self.is_open)
    }

    /// Says that the card failed, so that the call ends; its audio has no place to go. To be called
    /// before the recording is [`finished`](Self::finished), when no close code is out yet.
    pub fn fail(&mut self) {
        // The stream that was to follow has no place either, and the end is of the one before.
        if self.opening.take().is_some() {
            self.is_recording = false;
        }
        self.finish(Ending::Closed);
        self.close = Some(CloseCode::INTERNAL);
    }

    /// Takes the answer to a ping that has to be sent.
    pub fn take_pong(&mut self) -> Option<Control> {
        self.pong.take()
    }

    /// Takes the recording that has begun.
    pub fn take_opening(&mut self) -> Option<Opening> {
        let opening = self.opening.take();
        self.is_open |= opening.is_some();
        opening
    }

    /// Takes samples of the recording, as mu-law codes; zero means that none are there now.
    pub fn pop(&mut self, out: &mut [u8]) -> usize {
        self.queue.pop(out)
    }

    /// Takes the recording's end, once its samples were taken.
    pub fn take_end(&mut self) -> Option<End> {
        let end = self.end.take()?;
        self.queue.clear();
        Some(end)
    }

    /// Says that the recording that was taken is on the card, or as much of it as ever will be.
    pub fn finished(&mut self) {
        self.is_open = false;
    }

    /// Whether another message may be taken: its samples fit, or have waited long enough. It may be
    /// another start, so the recording that has begun must have been taken.
    fn may_take_message(&mut self, now_ms: u64) -> bool {
        if self.opening.is_some() || self.end.is_some() || self.close.is_some() {
            return false;
        }
        if self.queue.room() >= ROOM_MIN {
            self.full_since_ms = None;
            return true;
        }
        let since = *self.full_since_ms.get_or_insert(now_ms);
        now_ms.saturating_sub(since) >= STALL_MS_MAX
    }

    fn handle_text(&mut self, text: &mut [u8]) {
        match self.take_message(text) {
            Ok(Next::Go) => {}
            Ok(Next::Begin { stream_id, call_id }) => self.begin(stream_id, call_id),
            Ok(Next::Stop) => self.stop(Ending::Stop, CloseCode::NORMAL),
            Ok(Next::Restart) => {
                self.finish(Ending::Restart);
                self.session.reset();
                // No deeper than this: a session's first start is no restart.
                self.handle_text(text);
            }
            Ok(Next::Refuse) | Err(Error::Ring { .. }) => {
                self.close.get_or_insert(CloseCode::UNSUPPORTED);
            }
            // Counted in the session; the call goes on.
            Err(_) => {}
        }
    }

    fn take_message(&mut self, text: &mut [u8]) -> Result<Next, Error> {
        let mut turn = self.session.handle_message(text)?;
        Ok(drain(&mut turn, self.queue, &mut self.summary))
    }

    fn begin(&mut self, stream_id: Id, call_id: Id) {
        let Some(spec) = self.session.spec() else { return };
        self.is_recording = true;
        self.opening = Some(Opening { spec, stream_id, call_id });
    }

    fn stop(&mut self, ending: Ending, code: CloseCode) {
        self.finish(ending);
        self.close.get_or_insert(code);
    }

    /// Ends the recording, if there is one that has not ended.
    fn finish(&mut self, ending: Ending) {
        if !core::mem::take(&mut self.is_recording) {
            return;
        }
        drain(&mut self.session.handle_end(), self.queue, &mut self.summary);
        let stats = self.session.stats();
        let summary = Summary {
            media: stats.media,
            late: stats.late,
            missing: stats.missing - stats.reordered,
            dropped: stats.repeated + stats.rejected.iter().sum::<u64>(),
            lost: self.queue.lost(),
            ..core::mem::take(&mut self.summary)
        };
        self.end = Some(End { ending, summary });
    }
}

/// What a message asks of the call.
enum Next {
    Go,
    Begin { stream_id: Id, call_id: Id },
    Stop,
    Restart,
    Refuse,
}

/// Moves a turn's samples to the queue until there are none, as the session wants it.
fn drain<const Q: usize>(
    turn: &mut Turn<'_, '_, [u8; RING_BYTES]>,
    queue: &mut Queue<Q>,
    summary: &mut Summary,
) -> Next {
    for gap in turn.gaps() {
        summary.gaps += 1;
        summary.filled += gap.filled;
    }
    let next = match turn.event() {
        Event::Started(start) => {
            Next::Begin { stream_id: id(start.stream_id), call_id: id(start.call_id) }
        }
        Event::Stopped => Next::Stop,
        Event::Restart => Next::Restart,
        Event::Refused(_) => Next::Refuse,
        _ => Next::Go,
    };
    let mut codes = [0; 256];
    loop {
        match turn.poll_mulaw(&mut codes) {
            0 => return next,
            count => queue.push(&codes[..count]),
        }
    }
}

fn id(text: Text<'_>) -> Id {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let mut id = Id::new();
    for character in text.chars() {
        if id.push(if plain(character) { character } else { '_' }).is_err() {
            break;
        }
    }
    id
}
