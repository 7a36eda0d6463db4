//! One message after the other: events and samples.

use core::ffi::c_int;
use core::mem::{align_of, size_of};
use core::ptr::{addr_of, addr_of_mut};

use callreel_core::frame::Provider;
use callreel_core::session::{Error, Event, Session, Turn};

use crate::memory::{Ring, room};
use crate::{CALLREEL_OK, CALLREEL_REJECTED, CALLREEL_RING, CALLREEL_UNDRAINED, callreel_text};

/// Words of 8 bytes of a session.
#[cfg(target_pointer_width = "32")]
pub const CALLREEL_SESSION_WORDS: usize = 136;
/// Words of 8 bytes of a session.
// Enough for core with all its features, as in a build of the whole workspace.
#[cfg(not(target_pointer_width = "32"))]
pub const CALLREEL_SESSION_WORDS: usize = 352;

/// A session, in memory of the caller's: one recording, from its start message to its end. Its content is the
/// library's.
#[repr(C)]
pub struct callreel_session {
    /// Not for you.
    pub words: [u64; CALLREEL_SESSION_WORDS],
}

/// The session, and the turn that is not drained. The turn borrows the session beside it, and the text.
struct Inner {
    turn: Option<Turn<'static, 'static, Ring>>,
    session: Session<Ring>,
}

const _: () = assert!(size_of::<Inner>() <= size_of::<callreel_session>());
const _: () = assert!(align_of::<Inner>() <= align_of::<callreel_session>());

/// Nothing for a recorder to do.
pub const CALLREEL_EVENT_NONE: u32 = 0;
/// The recording begins: `text` is the id of the stream, `call_id` that of the call.
pub const CALLREEL_EVENT_STARTED: u32 = 1;
/// Audio was placed: fetch it.
pub const CALLREEL_EVENT_MEDIA: u32 = 2;
/// Keys were pressed: `text`, behind `at` samples.
pub const CALLREEL_EVENT_DTMF: u32 = 3;
/// A mark came back: `text`, behind `at` samples.
pub const CALLREEL_EVENT_MARK: u32 = 4;
/// The recording is over: fetch its last samples.
pub const CALLREEL_EVENT_STOPPED: u32 = 5;
/// Another stream begins; this one is unchanged. Give the message to another session.
pub const CALLREEL_EVENT_RESTART: u32 = 6;
/// The start announces audio that is not recorded, in the encoding of `text`.
pub const CALLREEL_EVENT_REFUSED: u32 = 7;

/// Meaning of a message. A field that its kind does not name is zero.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct callreel_event {
    /// One of `CALLREEL_EVENT_*`.
    pub kind: u32,
    /// Of `CALLREEL_EVENT_STARTED`: samples a second of each channel.
    pub sample_rate_hz: u32,
    /// Samples of one channel before the event.
    pub at: u64,
    /// See the kinds.
    pub text: callreel_text,
    /// Of `CALLREEL_EVENT_STARTED`: the call.
    pub call_id: callreel_text,
    /// Of `CALLREEL_EVENT_STARTED`: 1, or 2 with both tracks: samples come interleaved, inbound first.
    pub channels: u16,
}

impl callreel_event {
    const NONE: Self = Self {
        kind: CALLREEL_EVENT_NONE,
        sample_rate_hz: 0,
        at: 0,
        text: callreel_text::NONE,
        call_id: callreel_text::NONE,
        channels: 0,
    };

    fn of(event: &Event<'_>) -> Self {
        let of_kind = |kind| Self { kind, ..Self::NONE };
        match event {
            Event::Started { start, spec } => Self {
                text: callreel_text::of(start.stream_id),
                call_id: callreel_text::of(start.call_id),
                channels: spec.channels,
                sample_rate_hz: spec.sample_rate_hz,
                ..of_kind(CALLREEL_EVENT_STARTED)
            },
            Event::Media(_) => of_kind(CALLREEL_EVENT_MEDIA),
            Event::Dtmf { digit, at } => {
                Self { text: callreel_text::of(*digit), at: *at, ..of_kind(CALLREEL_EVENT_DTMF) }
            }
            Event::Mark { name, at } => {
                Self { text: callreel_text::of(*name), at: *at, ..of_kind(CALLREEL_EVENT_MARK) }
            }
            Event::Stopped | Event::Ended => of_kind(CALLREEL_EVENT_STOPPED),
            Event::Restart => of_kind(CALLREEL_EVENT_RESTART),
            Event::Refused(start) => {
                Self { text: callreel_text::of(start.encoding), ..of_kind(CALLREEL_EVENT_REFUSED) }
            }
            _ => Self::NONE,
        }
    }
}

/// Bytes of a session, for languages that cannot read a header. At most `sizeof(callreel_session)`.
#[unsafe(no_mangle)]
pub const extern "C" fn callreel_session_size() -> usize {
    size_of::<callreel_session>()
}

/// Alignment of a session, in bytes.
#[unsafe(no_mangle)]
pub const extern "C" fn callreel_session_align() -> usize {
    align_of::<callreel_session>()
}

/// Makes a session that waits for its start, for messages of Twilio's Media Streams. It keeps `ring`, the
/// memory for samples that may still change: see `CALLREEL_RING_BYTES_ONE_TRACK`.
///
/// # Safety
/// `session` can be written; `ring` has `ring_bytes` bytes, which belong to the session from now on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn callreel_session_init(
    session: *mut callreel_session,
    ring: *mut u8,
    ring_bytes: usize,
) {
    // SAFETY: as the caller promises; the sizes fit, as asserted above.
    unsafe {
        let ring = Ring::new(ring, ring_bytes);
        let inner = Inner { turn: None, session: Session::new(Provider::Twilio, ring) };
        session.cast::<Inner>().write(inner);
    }
}

/// Takes one whole text message in UTF-8, and rewrites its bytes. Fetch its samples by `callreel_poll_pcm`,
/// until that returns 0, before the next message. The session keeps `text` until then.
///
/// Returns `CALLREEL_OK` and tells the `event`, with texts that lie in the message. `CALLREEL_REJECTED`: left out.
/// `CALLREEL_RING`: the ring is too small for this start. `CALLREEL_UNDRAINED`: samples of the message before
/// are not fetched. Then `event` is `CALLREEL_EVENT_NONE`.
///
/// # Safety
/// `session` is initialised; `text` has `length` bytes, which stay until the samples are fetched; `event` can
/// be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn callreel_handle_text(
    session: *mut callreel_session,
    text: *mut u8,
    length: usize,
    event: *mut callreel_event,
) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { handle(session, event, |session| session.handle_message(room(text, length))) }
}

/// Ends a recording without a stop: however a call ends, call it, then fetch the samples that are left. After
/// a stop there are none. Returns and tells as `callreel_handle_text` does.
///
/// # Safety
/// `session` is initialised; `event` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn callreel_handle_end(
    session: *mut callreel_session,
    event: *mut callreel_event,
) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { handle(session, event, |session| Ok(session.handle_end())) }
}

/// # Safety
/// As `callreel_handle_text`.
unsafe fn handle(
    session: *mut callreel_session,
    event: *mut callreel_event,
    work: impl FnOnce(&'static mut Session<Ring>) -> Result<Turn<'static, 'static, Ring>, Error>,
) -> c_int {
    let inner = session.cast::<Inner>();
    // SAFETY: as the caller promises. The two fields are only reached by pointers of their own, so that the
    // turn may borrow the session.
    let turn = unsafe { addr_of_mut!((*inner).turn) };
    // SAFETY: the same.
    unsafe {
        event.write(callreel_event::NONE);
        if (*turn).as_ref().is_some_and(|turn| !turn.is_drained()) {
            return CALLREEL_UNDRAINED;
        }
        *turn = None;
        match work(&mut *addr_of_mut!((*inner).session)) {
            Ok(made) => {
                event.write(callreel_event::of(made.event()));
                *turn = Some(made);
                CALLREEL_OK
            }
            Err(Error::Ring { .. }) => CALLREEL_RING,
            Err(_) => CALLREEL_REJECTED,
        }
    }
}

/// Moves samples of the last message to `out`, 16-bit, interleaved where there are two channels; returns their
/// number. 0 means that all are fetched. `room` must be at least 2.
///
/// # Safety
/// `session` is initialised, the text of the last message is still there, and `out` has `room` samples.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn callreel_poll_pcm(
    session: *mut callreel_session,
    out: *mut i16,
    room: usize,
) -> usize {
    let inner = session.cast::<Inner>();
    // SAFETY: as the caller promises.
    unsafe {
        let Some(turn) = (*addr_of_mut!((*inner).turn)).as_mut() else { return 0 };
        turn.poll_pcm(self::room(out, room))
    }
}

/// Messages of this session that were rejected: the peer's fault.
///
/// # Safety
/// `session` is initialised, and all samples are fetched.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn callreel_rejected(session: *const callreel_session) -> u64 {
    let inner = session.cast::<Inner>();
    // SAFETY: as the caller promises: no turn borrows the session any more.
    unsafe { (*addr_of!((*inner).session)).stats().rejected.iter().sum() }
}
