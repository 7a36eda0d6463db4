//! callreel-core for C.
//!
//! Two ways in. `callreel_call_*` records a whole call: bytes of the connection in, writes of a WAV file
//! out, by callbacks. `callreel_session_*` takes one message after the other and gives samples back, for
//! programs with a WebSocket of their own. `callreel_upgrade` and `callreel_accept_key` answer the request that
//! a WebSocket begins with.
//!
//! Nothing is allocated: a call and a session lie in memory of the caller's, must not move between two calls
//! of functions, and need no end. They may be used by one thread at a time, each by another. No function
//! keeps a pointer that its description does not name. There is no global state.
//!
//! On bare metal the program supplies `callreel_panic`, see there. Elsewhere a fault of the library ends the
//! process.
#![cfg_attr(target_os = "none", no_std)]
#![deny(missing_docs)]
#![warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

pub mod call;
pub mod handshake;
mod memory;
pub mod session;

use core::ffi::c_int;

/// Version of this interface. It grows with each change of a function, a type or a number that is there.
pub const CALLREEL_ABI_VERSION: u32 = 1;

/// Done.
pub const CALLREEL_OK: c_int = 0;
/// The call is over: send the answer, a close frame, then end the connection and the call.
pub const CALLREEL_OVER: c_int = 1;
/// The message is not valid, or not for this call. It is counted and left out: go on with the next one.
pub const CALLREEL_REJECTED: c_int = 2;
/// The ring does not serve the tracks of the call: `CALLREEL_RING_BYTES_BOTH_TRACKS` always do.
pub const CALLREEL_RING: c_int = 3;
/// Samples of the message before are not fetched yet. Nothing has changed.
pub const CALLREEL_UNDRAINED: c_int = 4;
/// The file would pass the 4 GiB that a WAV can describe.
pub const CALLREEL_FULL: c_int = 5;
/// No more than this can be told yet: more bytes must come.
pub const CALLREEL_INCOMPLETE: c_int = 6;

/// Bytes of the smallest ring for calls of one track.
pub const CALLREEL_RING_BYTES_ONE_TRACK: usize = 641;
/// Bytes of the smallest ring for calls of both tracks, and of one.
pub const CALLREEL_RING_BYTES_BOTH_TRACKS: usize = 3202;
/// Bytes that a receive buffer needs beyond the longest message.
pub const CALLREEL_OVERHEAD_BYTES: usize = 131;

const _: () = assert!(
    CALLREEL_RING_BYTES_ONE_TRACK == callreel_core::session::RING_ONE_TRACK_MIN
        && CALLREEL_RING_BYTES_BOTH_TRACKS == callreel_core::session::RING_BOTH_TRACKS_MIN
        && CALLREEL_OVERHEAD_BYTES == callreel_core::ws::OVERHEAD_BYTES_MAX
);

/// Text of a message, as JSON spells it between its quotes: not terminated by zero. It lies in the message and
/// lives as long. `callreel_text_copy` copies it as it is meant.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct callreel_text {
    /// First byte; never null.
    pub bytes: *const u8,
    /// Number of bytes; 0 for a text that the message does not have.
    pub length: usize,
}

/// Version of the interface of the library that is linked. A program compiled with another
/// `CALLREEL_ABI_VERSION` must not go on.
#[unsafe(no_mangle)]
pub const extern "C" fn callreel_abi_version() -> u32 {
    CALLREEL_ABI_VERSION
}

/// Copies a text as it is meant, in UTF-8, escapes undone, as far as it fits into `room` bytes at `out`; adds
/// no zero. Returns the bytes of the whole text, which are more than `room` if it did not fit.
///
/// # Safety
/// `text` is from an event or a start, its message is still there, and `out` has `room` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn callreel_text_copy(
    text: callreel_text,
    out: *mut u8,
    room: usize,
) -> usize {
    // SAFETY: as the caller promises; the bytes of a text are those of a `&str`.
    let (escaped, out) =
        unsafe { (memory::bytes(text.bytes, text.length), memory::room(out, room)) };
    let escaped = core::str::from_utf8(escaped).unwrap_or_default();
    let mut length = 0;
    for character in callreel_core::frame::Text::new(escaped).chars() {
        for byte in character.encode_utf8(&mut [0; 4]).bytes() {
            if let Some(place) = out.get_mut(length) {
                *place = byte;
            }
            length += 1;
        }
    }
    length
}

#[cfg(target_os = "none")]
unsafe extern "C" {
    /// Supplied by a program on bare metal: called if the library has a fault, must not return. Bytes of a peer
    /// cannot cause it on the way of a media message, which is proven by linking; where the linker leaves
    /// unused sections out, a program that uses no other way links without this function.
    fn callreel_panic() -> !;
}

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: the program supplies it.
    unsafe { callreel_panic() }
}
