//! The request that a WebSocket begins with.

use core::ffi::c_int;

use callreel_core::http::{Head, answer};
use callreel_core::ws;

use crate::memory::{bytes, room};
use crate::{CALLREEL_INCOMPLETE, CALLREEL_OK, CALLREEL_REJECTED, callreel_text};

/// Bytes of `Sec-WebSocket-Accept`.
pub const CALLREEL_ACCEPT_BYTES: usize = 28;
/// Bytes of the longest answer of `callreel_upgrade`.
pub const CALLREEL_UPGRADE_BYTES: usize = 192;

/// The answer to the request that a WebSocket begins with.
#[repr(C)]
pub struct callreel_upgrade_answer {
    /// Bytes of the request's head: those of the WebSocket begin behind them.
    pub head_bytes: usize,
    /// Path of the request, with its query. It lies in the request's bytes.
    pub path: callreel_text,
    /// Bytes of the answer.
    pub length: usize,
    /// The answer.
    pub bytes: [u8; CALLREEL_UPGRADE_BYTES],
}

/// Reads the head of a request for a WebSocket at the start of `received`, and makes the answer to send: that
/// of the handshake, or a refusal.
///
/// Returns `CALLREEL_OK`; `CALLREEL_INCOMPLETE` while the head goes on, which leaves `answer` as it is; or
/// `CALLREEL_REJECTED`: send the answer, a status and no body, and end the connection. Compare the path before
/// you send the answer, if the path is a secret.
///
/// # Safety
/// `received` has `length` bytes; `answer` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn callreel_upgrade(
    received: *const u8,
    length: usize,
    answer: *mut callreel_upgrade_answer,
) -> c_int {
    // SAFETY: as the caller promises.
    let received = unsafe { bytes(received, length) };
    let mut made = callreel_upgrade_answer {
        head_bytes: 0,
        path: callreel_text::NONE,
        length: 0,
        bytes: [0; CALLREEL_UPGRADE_BYTES],
    };
    let accepted = match Head::parse(received) {
        Ok(None) => return CALLREEL_INCOMPLETE,
        Ok(Some(head)) => {
            made.head_bytes = head.bytes();
            let path = head.target();
            made.path = callreel_text { bytes: path.as_ptr(), length: path.len() };
            head.accept()
        }
        Err(error) => Err(error),
    };
    let status = match &accepted {
        Ok(accept) => {
            self::answer(accept, None).into_iter().for_each(|part| made.put(part));
            CALLREEL_OK
        }
        Err(error) => {
            made.put("HTTP/1.1 ");
            made.put(error.status());
            made.put("\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n");
            made.put("Content-Length: 0\r\nConnection: close\r\n\r\n");
            CALLREEL_REJECTED
        }
    };
    // SAFETY: as the caller promises.
    unsafe { answer.write(made) };
    status
}

impl callreel_upgrade_answer {
    fn put(&mut self, text: &str) {
        for byte in text.bytes() {
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = byte;
                self.length += 1;
            }
        }
    }
}

/// Computes `Sec-WebSocket-Accept`, 28 bytes without a zero, of a request's `Sec-WebSocket-Key`, for programs
/// with HTTP of their own. Returns `CALLREEL_OK`, or `CALLREEL_REJECTED` if the key is not valid.
///
/// # Safety
/// `key` has `length` bytes, and `out` has `CALLREEL_ACCEPT_BYTES`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn callreel_accept_key(key: *const u8, length: usize, out: *mut u8) -> c_int {
    // SAFETY: as the caller promises.
    let (key, out) = unsafe { (bytes(key, length), room(out, CALLREEL_ACCEPT_BYTES)) };
    let Some(accept) = ws::accept_key(key) else { return CALLREEL_REJECTED };
    out.iter_mut().zip(accept.bytes()).for_each(|(place, byte)| *place = byte);
    CALLREEL_OK
}
