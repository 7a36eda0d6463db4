//! A whole call: bytes of its connection in, writes of its file out.

use core::ffi::{c_int, c_void};
use core::mem::{align_of, size_of};

use callreel_core::frame::Provider;
use callreel_core::session::{self, Event, Session, Turn};
use callreel_core::wav::{Composer, Encoding, Step};
use callreel_core::ws::{self, CloseCode, Control, Decoder};

use crate::memory::{Ring, room};
use crate::{CALLREEL_FULL, CALLREEL_OK, CALLREEL_OVER, CALLREEL_RING, callreel_text};

/// Bytes of the longest answer of `callreel_call_feed`.
pub const CALLREEL_ANSWER_BYTES: usize = 127;

/// Words of 8 bytes of a call.
#[cfg(target_pointer_width = "32")]
pub const CALLREEL_CALL_WORDS: usize = 104;
/// Words of 8 bytes of a call.
// Enough for core with all its features, as in a build of the whole workspace.
#[cfg(not(target_pointer_width = "32"))]
pub const CALLREEL_CALL_WORDS: usize = 192;

/// A call, in memory of the caller's: one connection behind its handshake, and the file of its stream. Its
/// content is the library's.
#[repr(C)]
pub struct callreel_call {
    /// Not for you.
    pub words: [u64; CALLREEL_CALL_WORDS],
}

/// The start of a recording.
#[repr(C)]
pub struct callreel_start {
    /// Id of the stream, not checked in any way: not fit for a path.
    pub stream_id: callreel_text,
    /// Id of the call, as unchecked.
    pub call_id: callreel_text,
    /// Samples a second of each channel.
    pub sample_rate_hz: u32,
    /// 1, or 2 with both tracks.
    pub channels: u16,
}

/// The file of a call, by callbacks. Each returns 0, or an error number of yours above 255, which comes back
/// from the function that was called. None may call a function with the same call.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct callreel_file {
    /// Given to each callback.
    pub context: *mut c_void,
    /// Begins an empty file. The texts of `start` live as long as this callback. May be null.
    pub begin:
        Option<unsafe extern "C" fn(context: *mut c_void, start: *const callreel_start) -> c_int>,
    /// Writes all `length` bytes at this place, in bytes from the start of the file: at the end, or over
    /// bytes that are there. After an error nothing is written before `callreel_call_checkpoint` or `callreel_call_end`.
    pub write: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            at: u32,
            bytes: *const u8,
            length: usize,
        ) -> c_int,
    >,
    /// Makes durable the bytes written so far, before any that is written later. May be null.
    pub flush: Option<unsafe extern "C" fn(context: *mut c_void) -> c_int>,
}

/// A WebSocket frame to be sent.
#[repr(C)]
pub struct callreel_answer {
    /// Bytes of the frame; 0 if there is nothing to send.
    pub length: usize,
    /// The frame.
    pub bytes: [u8; CALLREEL_ANSWER_BYTES],
}

/// Counts of a call.
#[repr(C)]
pub struct callreel_report {
    /// Bytes of samples in the file.
    pub data_bytes: u64,
    /// Messages with audio in the recording.
    pub media: u64,
    /// Messages missing by their numbers.
    pub missing: u64,
    /// Messages that were rejected.
    pub rejected: u64,
    /// First error of the file or of its ring that ended the call; 0 if there was none.
    pub error: c_int,
    /// Close code of the answer that ended the call; 0 while it goes on.
    pub close_code: u16,
}

struct Inner {
    session: Session<Ring>,
    decoder: Decoder,
    /// From the start on.
    composer: Option<Composer>,
    file: callreel_file,
    error: c_int,
    close_code: u16,
}

const _: () = assert!(size_of::<Inner>() <= size_of::<callreel_call>());
const _: () = assert!(align_of::<Inner>() <= align_of::<callreel_call>());
const _: () = assert!(CALLREEL_ANSWER_BYTES == ws::CONTROL_BYTES_MAX + 2);

/// Bytes of a call, for languages that cannot read a header.
#[unsafe(no_mangle)]
pub const extern "C" fn callreel_call_size() -> usize {
    size_of::<callreel_call>()
}

/// Alignment of a call, in bytes.
#[unsafe(no_mangle)]
pub const extern "C" fn callreel_call_align() -> usize {
    align_of::<callreel_call>()
}

/// Makes a call that waits for its start, for a stream of Twilio's Media Streams. It copies `file` and keeps
/// `ring`, see `CALLREEL_RING_BYTES_ONE_TRACK`. A message longer than `message_bytes_max` ends the call: 2048 is
/// sound where memory is scarce. The receive buffer needs `CALLREEL_OVERHEAD_BYTES` more.
///
/// # Safety
/// `call` can be written; `file` can be read, and its callbacks called, as long as the call is used; `ring` has
/// `ring_bytes` bytes, which belong to the call from now on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn callreel_call_init(
    call: *mut callreel_call,
    file: *const callreel_file,
    ring: *mut u8,
    ring_bytes: usize,
    message_bytes_max: usize,
) {
    // SAFETY: as the caller promises; the sizes fit, as asserted above.
    unsafe {
        call.cast::<Inner>().write(Inner {
            session: Session::new(Provider::Twilio, Ring::new(ring, ring_bytes)),
            decoder: Decoder::new(message_bytes_max),
            composer: None,
            file: *file,
            error: CALLREEL_OK,
            close_code: 0,
        });
    }
}

/// Takes the bytes of the connection: `buffer` has `*length` bytes, those that the last call left and all that
/// arrived since. Writes the audio in them to the file. Moves the rest to the start of `buffer` and sets
/// `*length` to its length: receive behind it.
///
/// Returns `CALLREEL_OK`: send the answer, if it has bytes, and go on. Anything else ends the call: send the
/// answer, a close frame, end the connection, call `callreel_call_end`. `CALLREEL_OVER`: the peer is done, or
/// broke the protocol. `CALLREEL_RING`: the ring is too small. `CALLREEL_FULL`: the file is. Others are errors of
/// your callbacks; the audio of the messages behind it is lost, and the file is as good as at its last
/// checkpoint, or better after `callreel_call_end`.
///
/// # Safety
/// `call` is initialised; `buffer` has `*length` bytes; `answer` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn callreel_call_feed(
    call: *mut callreel_call,
    buffer: *mut u8,
    length: *mut usize,
    answer: *mut callreel_answer,
) -> c_int {
    // SAFETY: as the caller promises.
    let (inner, buffer) = unsafe { (&mut *call.cast::<Inner>(), room(buffer, *length)) };
    let Inner { session, decoder, composer, file, error, close_code } = inner;
    let (mut sent, mut status) = (None, CALLREEL_OVER);
    while *close_code == 0 {
        let Some(event) = decoder.poll(buffer) else {
            status = CALLREEL_OK;
            break;
        };
        let code = match event {
            Ok(ws::Event::Text(text)) => match session.handle_message(text) {
                Ok(turn) => match keep(turn, composer, file) {
                    Ok(code) => code,
                    Err(number) => {
                        (*error, status) = (number, number);
                        Some(CloseCode::INTERNAL)
                    }
                },
                Err(session::Error::Ring { .. }) => {
                    (*error, status) = (CALLREEL_RING, CALLREEL_RING);
                    Some(CloseCode::INTERNAL)
                }
                // Counted.
                Err(_) => None,
            },
            Ok(ws::Event::Binary(_)) => Some(CloseCode::UNSUPPORTED),
            Ok(ws::Event::Ping(payload)) => {
                sent = Some(ws::pong(payload));
                None
            }
            Ok(ws::Event::Pong) => None,
            Ok(ws::Event::Close(_)) => Some(CloseCode::NORMAL),
            Err(code) => Some(code),
        };
        if let Some(code) = code {
            *close_code = code.get();
            sent = Some(ws::close(code));
        }
    }
    // SAFETY: as the caller promises.
    unsafe {
        *length = decoder.compact(buffer);
        put(answer, sent.as_ref());
    }
    status
}

/// Writes a frame, or none, to its place.
///
/// # Safety
/// `answer` can be written.
unsafe fn put(answer: *mut callreel_answer, frame: Option<&Control>) {
    let mut made = callreel_answer { length: 0, bytes: [0; CALLREEL_ANSWER_BYTES] };
    let frame = frame.map_or(&[][..], |frame| frame);
    made.bytes.iter_mut().zip(frame).for_each(|(place, byte)| *place = *byte);
    made.length = frame.len();
    // SAFETY: as the caller promises.
    unsafe { answer.write(made) };
}

/// Begins the file at the start of a recording, and writes the samples of a turn; returns the code to close
/// with, if the call is over.
fn keep(
    mut turn: Turn<'_, '_, Ring>,
    composer: &mut Option<Composer>,
    file: &callreel_file,
) -> Result<Option<CloseCode>, c_int> {
    let code = match turn.event() {
        Event::Started { start, spec } => {
            let start = callreel_start {
                stream_id: callreel_text::of(start.stream_id),
                call_id: callreel_text::of(start.call_id),
                sample_rate_hz: spec.sample_rate_hz,
                channels: spec.channels,
            };
            file.begin(&start)?;
            file.drive(composer.insert(Composer::new(*spec)))?;
            None
        }
        Event::Refused(_) => Some(CloseCode::UNSUPPORTED),
        Event::Restart | Event::Stopped => Some(CloseCode::NORMAL),
        _ => None,
    };
    let Some(composer) = composer else { return Ok(code) };
    let (mut codes, mut samples) = ([0; 128], [0; 256]);
    while let count @ 1.. = turn.poll_wire(&mut codes) {
        let codes = codes.get(..count).unwrap_or_default();
        let used = 2 * Encoding::Pcm16.encode_mulaw(codes, &mut samples);
        let samples = samples.get(..used).unwrap_or_default();
        let at = composer.append(used).map_err(|_| CALLREEL_FULL)?;
        file.write(at, samples)?;
        composer.done();
    }
    Ok(code)
}

impl callreel_file {
    fn begin(&self, start: &callreel_start) -> Result<(), c_int> {
        // SAFETY: as promised at `callreel_call_init`.
        self.begin.map_or(Ok(()), |begin| told(unsafe { begin(self.context, start) }))
    }

    fn write(&self, at: u32, bytes: &[u8]) -> Result<(), c_int> {
        let Some(write) = self.write else { return Ok(()) };
        // SAFETY: as promised at `callreel_call_init`.
        told(unsafe { write(self.context, at, bytes.as_ptr(), bytes.len()) })
    }

    fn flush(&self) -> Result<(), c_int> {
        // SAFETY: as promised at `callreel_call_init`.
        self.flush.map_or(Ok(()), |flush| told(unsafe { flush(self.context) }))
    }

    /// Does the steps that are left.
    fn drive(&self, composer: &mut Composer) -> Result<(), c_int> {
        while let Some(step) = composer.step() {
            match step {
                Step::Write { at, bytes } => self.write(at, &bytes)?,
                Step::Flush => self.flush()?,
                Step::WriteChunks { .. } => {}
            }
            composer.done();
        }
        Ok(())
    }
}

/// The answer of a callback.
const fn told(number: c_int) -> Result<(), c_int> {
    if number == CALLREEL_OK { Ok(()) } else { Err(number) }
}

/// Writes the sizes of the samples so far into the file's header: the file up to there survives a power cut.
/// Returns `CALLREEL_OK`, also before the start of a recording, or the error of a callback: call it again.
///
/// # Safety
/// `call` is initialised.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn callreel_call_checkpoint(call: *mut callreel_call) -> c_int {
    // SAFETY: as the caller promises.
    let Inner { composer, file, .. } = unsafe { &mut *call.cast::<Inner>() };
    let Some(composer) = composer else { return CALLREEL_OK };
    composer.checkpoint();
    file.drive(composer).err().unwrap_or(CALLREEL_OK)
}

/// Completes the file, however the call ended: writes the samples that are held, the sizes and the pad byte.
/// Returns `CALLREEL_OK`, also if no recording had begun and there is no file, or the error of a callback: call
/// it again to complete the file with the samples so far. Afterwards the memory is yours.
///
/// # Safety
/// `call` is initialised.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn callreel_call_end(call: *mut callreel_call) -> c_int {
    // SAFETY: as the caller promises.
    let Inner { session, composer, file, .. } = unsafe { &mut *call.cast::<Inner>() };
    let kept = match composer {
        // An earlier write failed. The samples behind it would not be in their place.
        Some(composer) if composer.is_adrift() => Ok(None),
        _ => keep(session.handle_end(), composer, file),
    };
    let Some(composer) = composer else { return CALLREEL_OK };
    let sealed = kept.and_then(|_| {
        composer.seal();
        file.drive(composer)
    });
    sealed.err().unwrap_or(CALLREEL_OK)
}

/// Tells the counts of a call.
///
/// # Safety
/// `call` is initialised; `report` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn callreel_call_report(
    call: *const callreel_call,
    report: *mut callreel_report,
) {
    // SAFETY: as the caller promises.
    let Inner { session, composer, error, close_code, .. } = unsafe { &*call.cast::<Inner>() };
    let stats = session.stats();
    let made = callreel_report {
        data_bytes: composer.as_ref().map_or(0, |composer| composer.data_bytes().into()),
        media: stats.media,
        missing: stats.missing,
        rejected: stats.rejected.iter().sum(),
        error: *error,
        close_code: *close_code,
    };
    // SAFETY: as the caller promises.
    unsafe { report.write(made) };
}
