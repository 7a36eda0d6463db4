//! The things that a media thread lends to whichever connection it works on.

use std::sync::Arc;
use std::time::Instant;

use super::Config;
use super::pool::{BUFFER_BYTES, Pool};
use crate::call::Context;
use crate::record::Record;

/// The things that a media thread lends to whichever connection it works on.
pub(super) struct Desk {
    /// Buffer for a read: an unfinished message, and the new bytes behind it.
    pub buffer: Vec<u8>,
    /// Resources for the call of the connection.
    pub context: Context,
    /// Memory for long unfinished messages.
    pub pool: Arc<Pool>,
    pub config: Config,
}

impl Desk {
    pub(super) fn new(config: &Config, context: Context, pool: &Arc<Pool>) -> Self {
        let (buffer, pool) = (vec![0; BUFFER_BYTES], Arc::clone(pool));
        Self { buffer, context, pool, config: config.clone() }
    }

    /// Writes the record of a call that did not come about, unless too many such calls came of late.
    pub(super) fn fail(&mut self, record: Record) {
        if self.context.failures.take(Instant::now()) {
            self.context.posts.fail(record, Box::new(|_| ()));
        }
    }
}
