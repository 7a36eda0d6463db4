//! Routing of messages to the streams of a connection.

/// Most streams of one connection that are known at one time. For one more, the oldest that is over
/// gives way, or else the oldest.
pub const STREAMS_MAX: usize = 8;

/// A stream of a connection.
pub trait Routed {
    /// Whether the stream's start announced this id.
    fn is_addressed(&self, stream_id: &[u8]) -> bool;

    /// Whether the stream has started and not ended.
    fn is_live(&self) -> bool;
}

/// Index of the stream that a message belongs to; `streams` is in the order of starts. It is the stream
/// with a start that announced the message's id, else the live stream that began last, else the last
/// stream.
pub fn index_of(streams: &[impl Routed], stream_id: &[u8]) -> usize {
    if streams.len() == 1 {
        return 0;
    }
    let found = streams.iter().rposition(|stream| stream.is_addressed(stream_id));
    let found = found.or_else(|| streams.iter().rposition(Routed::is_live));
    found.unwrap_or(streams.len().saturating_sub(1))
}

/// Index of the stream that gives way to a new one, if one has to. It is the stream of the same id. If
/// there is none and there are [`STREAMS_MAX`] streams, it is the oldest that is over, or else the
/// oldest.
pub fn index_to_replace(streams: &[impl Routed], stream_id: &[u8]) -> Option<usize> {
    let same = streams.iter().position(|stream| stream.is_addressed(stream_id));
    let oldest = || streams.iter().position(|stream| !stream.is_live()).unwrap_or(0);
    same.or_else(|| (streams.len() >= STREAMS_MAX).then(oldest))
}
