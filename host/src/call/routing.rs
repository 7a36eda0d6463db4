//! Which of a connection's streams a message belongs to.

/// Streams of one connection that are known at one time. When one more starts, the oldest gives way.
pub const STREAMS_MAX: usize = 8;

/// A stream of a connection.
pub trait Routed {
    /// Whether its start announced this id.
    fn is_addressed(&self, stream_id: &[u8]) -> bool;

    /// Whether it has started and not ended.
    fn is_live(&self) -> bool;
}

/// The index of the stream that a message belongs to, of streams in the order of their starts: the one
/// whose start announced its id, else the live one that began last, else the last.
pub fn index_of(streams: &[impl Routed], stream_id: &[u8]) -> usize {
    if streams.len() == 1 {
        return 0;
    }
    let found = streams.iter().rposition(|stream| stream.is_addressed(stream_id));
    let found = found.or_else(|| streams.iter().rposition(Routed::is_live));
    found.unwrap_or(streams.len().saturating_sub(1))
}

/// The index of the stream that gives way to one that starts, if one has to: the one of the same id,
/// else, of [`STREAMS_MAX`], the oldest that is over, else the oldest.
pub fn index_to_replace(streams: &[impl Routed], stream_id: &[u8]) -> Option<usize> {
    let same = streams.iter().position(|stream| stream.is_addressed(stream_id));
    let oldest = || streams.iter().position(|stream| !stream.is_live()).unwrap_or(0);
    same.or_else(|| (streams.len() >= STREAMS_MAX).then(oldest))
}
