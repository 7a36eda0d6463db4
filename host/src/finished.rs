//! The one door for a finished recording: every consumer of finished recordings is told here.

use std::sync::Arc;

use crate::board::Board;
use crate::record::{Key, Record};
use crate::webhook;

/// Consumers of finished recordings: the webhook's receiver, if there is one, and the board.
#[derive(Clone, Debug, Default)]
pub struct Finished {
    webhooks: Option<webhook::Queue>,
    board: Arc<Board>,
}

impl Finished {
    /// The door to these consumers.
    #[must_use]
    pub const fn new(webhooks: Option<webhook::Queue>, board: Arc<Board>) -> Self {
        Self { webhooks, board }
    }

    /// Keeps a message about the recording, durably. Call it just before the record gets its final name:
    /// after a crash a message may come twice, but is never lost.
    pub(crate) fn announce(&self, key: &Key, record: &Record) {
        self.webhooks.iter().for_each(|webhooks| webhooks.post(key, record));
    }

    /// Counts the recording, shows it to watchers and has its message delivered. Call it once, when the
    /// final names are durable.
    pub(crate) fn settle(&self, record: &Record) {
        self.board.publish(record);
        self.webhooks.iter().for_each(webhook::Queue::wake);
    }
}
