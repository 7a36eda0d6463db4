//! The resources that a media thread lends to the call it works on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use callreel_core::frame::Start;
use callreel_core::wav;

use super::opening::Allowance;
use super::pause::PauseKey;
use crate::caller_ids::Callers;
use crate::pace::Pace;
use crate::recording::{AudioFormat, Done, Outcome, Posts};
use crate::store::Door;
use crate::stream_tokens::StreamTokens;

/// Resources of a media thread for the call that it works on.
pub struct Context {
    /// The jobs for the writer of the recordings.
    pub posts: Posts,
    /// Encoding asked for; the stream's own decides as well, see [`AudioFormat::of`].
    pub encoding: wav::Encoding,
    /// Most bytes of samples in a file; beyond it the recording goes on in the next file.
    pub segment_bytes_max: u64,
    /// The tokens of which a stream must send one in its start; `None`: a stream needs no token.
    pub stream_tokens: Option<Arc<StreamTokens>>,
    /// Caller ids of the calls reported by webhooks, if end records include them.
    pub callers: Option<Arc<Callers>>,
    /// State of the disk, asked before each recording after a connection's first.
    pub door: Arc<Door>,
    /// Allowance of records for connections without a start.
    pub failures: Arc<Allowance>,
    /// Rate limit of new calls. Each stream after a connection's first counts; the upgrade counts for
    /// the first.
    pub pace: Arc<Pace>,
    /// The key that pauses a recording and lets it go on.
    pub pause_key: Option<PauseKey>,
    /// The recorder stops: bytes that have arrived are handled although the disk is behind.
    pub is_stopping: bool,
    /// Called when a recording or a failure record is finished, with the key of its call. It runs on the
    /// thread that finished the file, and must not wait.
    pub finished: Arc<dyn Fn(usize, Outcome) + Send + Sync>,
}

impl Context {
    /// Takes room in the log for a line about a problem; see [`crate::log::Room::take`].
    pub(crate) fn room(&self, peer: SocketAddr, now: Instant) -> Option<Option<u64>> {
        self.posts.board().log_rooms.trouble.take(peer.ip(), now)
    }

    /// The callback for a recording or a failure record of the call `key`.
    pub(super) fn done(&self, key: usize) -> Done {
        let finished = Arc::clone(&self.finished);
        Box::new(move |outcome| finished(key, outcome))
    }

    /// The format of the recording of a stream.
    pub(super) fn format_of(&self, start: &Start<'_>) -> AudioFormat {
        AudioFormat::of(start, self.encoding)
    }
}
