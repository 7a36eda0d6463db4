//! The one door for a finished recording: every consumer of finished recordings is told here.

use std::sync::Arc;

use crate::board::Board;
use crate::outbox::Outbox;
use crate::record::{Key, Record};

/// Consumers of finished recordings: the outbox, if somebody is to be told, and the board.
#[derive(Clone, Debug, Default)]
pub struct Finished {
    outbox: Option<Outbox>,
    board: Arc<Board>,
}

impl Finished {
    /// The door to these consumers.
    #[must_use]
    pub const fn new(outbox: Option<Outbox>, board: Arc<Board>) -> Self {
        Self { outbox, board }
    }

    /// Keeps a message about the recording, durably. Call it just before the record gets its final name:
    /// after a crash a message may come twice, but is never lost.
    pub(crate) fn announce(&self, key: &Key, record: &Record) {
        self.outbox.iter().for_each(|outbox| outbox.post(key, record));
    }

    /// Whether somebody is still to be told of a recording, and may then ask for it.
    pub(crate) fn holds(&self, key: &Key) -> bool {
        self.outbox.as_ref().is_some_and(|outbox| outbox.holds(key))
    }

    /// Counts the recording, shows it to watchers and has its message delivered. Call it once, when the
    /// final names are durable.
    pub(crate) fn settle(&self, record: &Record) {
        self.board.publish(record);
        self.outbox.iter().for_each(Outbox::wake);
    }
}
