//! The order of messages by their sequence numbers.

use super::Session;
use crate::log;

/// Largest step between two sequence numbers that counts as loss: ten minutes of two tracks, in chunks of
/// 20 ms.
pub(super) const SEQUENCE_JUMP_MAX: u64 = 2 * 10 * 60 * 1000 / 20;

impl<S: AsRef<[u8]> + AsMut<[u8]>> Session<S> {
    /// Counts missing messages by the numbers of those that arrived; returns whether this message is
    /// older than one that arrived before it.
    pub(super) fn note_sequence(&mut self, sequence: Option<u64>) -> bool {
        let Some(sequence) = sequence else {
            return false;
        };
        let last = *self.sequence.get_or_insert(sequence);
        let ahead = sequence.wrapping_sub(last).cast_signed();
        if ahead.unsigned_abs() > SEQUENCE_JUMP_MAX {
            // Too many to be lost: the numbers restart.
            self.sequence = Some(sequence);
        } else if ahead > 0 {
            self.sequence = Some(sequence);
            let absent = ahead.unsigned_abs() - 1;
            self.stats.missing += absent.saturating_sub(core::mem::take(&mut self.refused));
            if absent > core::mem::take(&mut self.foreign) {
                let from = sequence.wrapping_sub(absent);
                self.clocks.iter_mut().for_each(|clock| {
                    clock.missing_from.get_or_insert(from);
                });
                log::debug!("{} messages are missing or were rejected", absent);
            }
        }
        // An old number changes nothing: the chunk fills its hole, or its timestamp gives its place.
        ahead < 0
    }
}
