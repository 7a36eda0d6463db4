//! Memory of the caller's: bytes, rings, and the places of calls and sessions.

use crate::callreel_text;

/// The bytes at a place; none at a null pointer.
///
/// # Safety
/// There are `length` bytes, and nobody changes them while they are borrowed.
pub(crate) unsafe fn bytes<'a>(at: *const u8, length: usize) -> &'a [u8] {
    // SAFETY: as the caller promises.
    if at.is_null() { &[] } else { unsafe { core::slice::from_raw_parts(at, length) } }
}

/// The same, to be changed.
///
/// # Safety
/// As [`bytes`], and nobody reads them meanwhile.
pub(crate) unsafe fn room<'a, T>(at: *mut T, length: usize) -> &'a mut [T] {
    // SAFETY: as the caller promises.
    if at.is_null() { &mut [] } else { unsafe { core::slice::from_raw_parts_mut(at, length) } }
}

/// A ring in the caller's memory.
pub(crate) struct Ring {
    at: *mut u8,
    length: usize,
}

impl Ring {
    /// # Safety
    /// The bytes belong to this ring as long as it is used.
    pub(crate) const unsafe fn new(at: *mut u8, length: usize) -> Self {
        Self { at, length }
    }
}

impl AsRef<[u8]> for Ring {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the bytes belong to this ring.
        unsafe { bytes(self.at, self.length) }
    }
}

impl AsMut<[u8]> for Ring {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: the bytes belong to this ring.
        unsafe { room(self.at, self.length) }
    }
}

impl callreel_text {
    pub(crate) const NONE: Self = Self { bytes: b"".as_ptr(), length: 0 };

    pub(crate) const fn of(text: callreel_core::frame::Text<'_>) -> Self {
        let escaped = text.as_escaped();
        Self { bytes: escaped.as_ptr(), length: escaped.len() }
    }
}
