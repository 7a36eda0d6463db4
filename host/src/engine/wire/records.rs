//! Where the records of TLS end in the bytes of a connection.

/// Bytes of a record's header: its type, two bytes of a version, the length of its body.
const HEADER_BYTES: usize = 5;

/// Longest body of a record, by TLS 1.2 (RFC 5246, section 6.2.3). TLS 1.3 has shorter ones.
const BODY_BYTES_MAX: usize = (1 << 14) + 2048;

/// Most bytes of one read while the records' beginnings are not known.
const UNALIGNED_BYTES_MAX: usize = 4096;

/// Finds the ends of records in a stream of their bytes. It reads headers only: a mistake costs time in
/// the library that opens the records, and no byte.
#[derive(Debug)]
pub(super) struct Records {
    /// The header at hand, as far as it has come.
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    /// Bytes of the body at hand that are still to come.
    missing: usize,
    /// Whether records are known to begin where this value says.
    is_aligned: bool,
}

impl Records {
    /// A stream of which some bytes have passed already, perhaps a part of a record.
    pub(super) const fn in_the_middle() -> Self {
        Self { header: [0; HEADER_BYTES], header_bytes: 0, missing: 0, is_aligned: false }
    }

    /// Most bytes of `room` to fill by one read: no more than the rest of a record of which a part has
    /// come, so that a record's bytes are opened before those of the next arrive.
    pub(super) fn bytes_max(&self, room: usize) -> usize {
        match self.missing {
            _ if !self.is_aligned => room.min(UNALIGNED_BYTES_MAX),
            0 => room,
            missing => room.min(missing),
        }
    }

    /// The number of bytes at the start of `bytes`, which is not empty, up to the end of the first record
    /// or of `bytes`. They count as passed.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> usize {
        if !self.is_aligned {
            // The first header that is seen at the start of a read.
            self.is_aligned =
                bytes.first_chunk().is_some_and(|header| body_bytes(header).is_some());
            if !self.is_aligned {
                return bytes.len();
            }
        }
        let mut passed = 0;
        if self.missing == 0 {
            passed = bytes.len().min(HEADER_BYTES - self.header_bytes);
            self.header[self.header_bytes..][..passed].copy_from_slice(&bytes[..passed]);
            self.header_bytes += passed;
            if self.header_bytes < HEADER_BYTES {
                return passed;
            }
            self.header_bytes = 0;
            let Some(missing) = body_bytes(&self.header) else {
                // No record: the library will say so.
                self.is_aligned = false;
                return bytes.len();
            };
            self.missing = missing;
        }
        let body = self.missing.min(bytes.len() - passed);
        self.missing -= body;
        passed + body
    }
}

/// The bytes of the body that a header announces, if it is the header of a record.
fn body_bytes(header: &[u8; HEADER_BYTES]) -> Option<usize> {
    let [kind, major, _, high, low] = *header;
    let bytes = usize::from(u16::from_be_bytes([high, low]));
    let is_record = matches!(kind, 20..=23) && major == 3 && bytes <= BODY_BYTES_MAX;
    is_record.then_some(bytes)
}
