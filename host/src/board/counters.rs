//! The sums over the life of the process: counters of calls, requests, messages and audio, and times.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use callreel_core::format::Codec;
use callreel_core::frame::{PeerError, Provider};
use callreel_core::session::Stats;

use crate::record::{End, State};

/// Most buckets of a [`Histogram`], without the one for all longer durations.
const BUCKETS: usize = 14;

/// Bounds for times of the disk.
const DISK_US: [u64; BUCKETS] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
    10_000_000,
];

/// Bounds for durations of calls: one second to four hours.
const CALLS_US: [u64; BUCKETS] = {
    let mut bounds = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_200, 3_600, 7_200, 14_400];
    let mut index = 0;
    while index < BUCKETS {
        bounds[index] *= 1_000_000;
        index += 1;
    }
    bounds
};

/// Bounds for response latencies of voice bots: 0.1 to 10 seconds.
const RESPONSES_US: [u64; 11] = [
    100_000, 200_000, 300_000, 500_000, 700_000, 1_000_000, 1_500_000, 2_000_000, 3_000_000,
    5_000_000, 10_000_000,
];

/// Sums over the life of the process.
#[derive(Debug, Default)]
pub struct Counters {
    /// Recordings that began.
    pub begun: AtomicU64,
    /// Those, by the codec of the stream, in the order of [`CODECS`].
    pub begun_by_codec: [AtomicU64; CODECS.len()],
    /// Streams with the bytes of their samples in another order than that of the provider's table.
    pub orders_corrected: AtomicU64,
    /// Refused calls, by [`Refused`].
    pub refused: [AtomicU64; Refused::ALL.len()],
    /// Requests and connections at the public listener that were refused, by [`RequestRefused`].
    pub requests_refused: [AtomicU64; RequestRefused::ALL.len()],
    /// Wrong tokens shown at the admin listener.
    pub wrong_tokens: AtomicU64,
    /// Ended calls, by [`PROVIDERS`] and [`End`].
    pub ended: [[AtomicU64; End::ALL.len()]; PROVIDERS.len()],
    /// Durations of ended calls, by the clock.
    pub call_time: CallTimes,
    /// Finished recordings, by [`State`].
    pub finished: [AtomicU64; STATES.len()],
    /// Media messages with audio in a recording.
    pub frames: AtomicU64,
    /// Media messages, of `frames`, that came after their place in media time had passed.
    pub late: AtomicU64,
    /// Media messages dropped as exact repeats.
    pub repeated: AtomicU64,
    /// Media messages before a start.
    pub before_start: AtomicU64,
    /// Messages that had not come when later messages did, by their sequence numbers.
    pub missing: AtomicU64,
    /// Messages, of `missing`, that came late, into the place held open for them.
    pub reordered: AtomicU64,
    /// Media messages that name no stream, or a stream that did not start.
    pub unaddressed: AtomicU64,
    /// Media messages with base64 in another spelling than the usual one.
    pub odd_base64: AtomicU64,
    /// Rejected messages, by [`PeerError::index`].
    pub rejected: [AtomicU64; PeerError::ALL.len()],
    /// Bytes of samples handed to writers.
    pub audio_bytes: AtomicU64,
    /// Gaps in media time, counted for each track.
    pub gaps: AtomicU64,
    /// Total length of the gaps; an outage of both tracks of a call counts once.
    pub missing_ms: AtomicU64,
    /// Audio that became silence because the disk did not take it, in microseconds.
    pub lost_us: AtomicU64,
    /// The most bytes that ever waited for the disk in one recording's queue.
    pub queue_bytes_max: AtomicU64,
    /// Turns of conversations, inbound and outbound.
    pub turns: [AtomicU64; 2],
    /// Interruptions in conversations, by the track that made them, inbound and outbound.
    pub interruptions: [AtomicU64; 2],
    /// Response latencies of the outbound side of conversations.
    pub response_time: ResponseTimes,
    /// Times to write one block.
    pub write_time: Histogram,
    /// Times to make all written data durable.
    pub sync_time: Histogram,
}

/// Codecs of streams, in the order of [`Counters::begun_by_codec`].
pub const CODECS: [Codec; 5] = [Codec::Alaw, Codec::G722, Codec::L16Be, Codec::L16Le, Codec::Mulaw];

/// Providers, in the order of [`Counters::ended`].
pub const PROVIDERS: &[Provider] = Provider::ALL;

/// States in which a recording can end, in the order of [`Counters::finished`].
pub const STATES: [State; 4] = [State::Complete, State::Partial, State::Recovered, State::Failed];

/// Reasons for refusing a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refused {
    /// The disk has less free than must stay free.
    Disk,
    /// The recorder stops.
    Draining,
    /// A connection that had not begun a call made room for a new one.
    GaveWay,
    /// The number of calls has reached its limit.
    Limit,
    /// Messages came, but no start that could be read.
    NoStart,
    /// The calls that have begun in this second have reached their limit.
    Rate,
    /// The request is not signed for this server.
    Signature,
    /// The stream shows no fresh token of its call.
    Token,
}

impl Refused {
    /// All reasons, in the order of [`Counters::refused`].
    pub const ALL: [Self; 8] = [
        Self::Disk,
        Self::Draining,
        Self::GaveWay,
        Self::Limit,
        Self::NoStart,
        Self::Rate,
        Self::Signature,
        Self::Token,
    ];

    /// Returns the name of the reason in the metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Draining => "draining",
            Self::GaveWay => "gave_way",
            Self::Limit => "limit",
            Self::NoStart => "no_start",
            Self::Rate => "rate",
            Self::Signature => "signature",
            Self::Token => "token",
        }
    }

    /// Returns the reason in words.
    #[must_use]
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Disk => {
                "the disk has less free than --keep-free or --keep-free-inodes, or a trial recording fails"
            }
            Self::Draining => "the recorder is being stopped",
            Self::GaveWay => "the connection had not begun a call, and no place was free",
            Self::Limit => "the number of calls has reached --max-calls or the limit of open files",
            Self::NoStart => "messages came, but no start message that could be read",
            Self::Rate => "the calls begun in this second have reached --max-new-calls",
            Self::Signature => "the request is not signed for this server",
            Self::Token => "the stream shows no fresh token of its call",
        }
    }
}

/// Reasons for refusing a request at the public listener. Each request may have been a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RequestRefused {
    /// The body is malformed or was broken off.
    Body,
    /// A webhook that needs a CallSid has none.
    CallSid,
    /// The connection made room for newer ones before the request was whole.
    Crowded,
    /// The disk has less free than must stay free.
    Disk,
    /// The recorder stops.
    Draining,
    /// The Host header names no host.
    Host,
    /// The number of calls has reached its limit.
    Limit,
    /// The request is not HTTP/1.1, or its head was broken off.
    Malformed,
    /// The path does not support the method.
    Method,
    /// The request asks for the stream without an upgrade to a WebSocket.
    NoUpgrade,
    /// The path is none of the recorder's.
    NotFound,
    /// The request has an Origin header, as those of browsers have.
    Origin,
    /// The calls that have begun in this second have reached their limit.
    Rate,
    /// The request is not signed for this server.
    Signature,
    /// The request was not whole in time.
    Timeout,
    /// The handshake of TLS failed.
    Tls,
    /// The head or the body is too long.
    TooLarge,
    /// The handshake does not follow RFC 6455.
    WebSocket,
}

impl RequestRefused {
    /// All reasons, in the order of [`Counters::requests_refused`].
    pub const ALL: [Self; 18] = [
        Self::Body,
        Self::CallSid,
        Self::Crowded,
        Self::Disk,
        Self::Draining,
        Self::Host,
        Self::Limit,
        Self::Malformed,
        Self::Method,
        Self::NoUpgrade,
        Self::NotFound,
        Self::Origin,
        Self::Rate,
        Self::Signature,
        Self::Timeout,
        Self::Tls,
        Self::TooLarge,
        Self::WebSocket,
    ];

    /// Returns the name of the reason in the metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::CallSid => "call_sid",
            Self::Crowded => "crowded",
            Self::Disk => "disk",
            Self::Draining => "draining",
            Self::Host => "host",
            Self::Limit => "limit",
            Self::Malformed => "malformed",
            Self::Method => "method",
            Self::NoUpgrade => "no_upgrade",
            Self::NotFound => "not_found",
            Self::Origin => "origin",
            Self::Rate => "rate",
            Self::Signature => "signature",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::TooLarge => "too_large",
            Self::WebSocket => "websocket",
        }
    }
}

impl Counters {
    /// Counts a recording that begins, of a stream in the codec of this name.
    pub(super) fn begin(&self, codec: Option<&str>) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let codec = CODECS.iter().position(|known| Some(known.name()) == codec);
        if let Some(count) = codec.and_then(|index| self.begun_by_codec.get(index)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a refused request.
    pub fn refuse_request(&self, why: RequestRefused) {
        self.requests_refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a wrong token at the admin listener.
    pub fn count_wrong_token(&self) {
        self.wrong_tokens.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a refused call.
    pub fn refuse(&self, why: Refused) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the end of a call that was recorded.
    pub fn end(&self, provider: Provider, end: End, duration: Duration) {
        let ends = PROVIDERS.iter().position(|known| *known == provider).map(|at| &self.ended[at]);
        let end = End::ALL.iter().position(|known| *known == end);
        if let Some((ends, end)) = ends.zip(end) {
            ends[end].fetch_add(1, Ordering::Relaxed);
        }
        self.call_time.0.add(duration);
    }

    /// Adds the counts of a session since `counted`, and sets `counted` to the current counts.
    pub fn add(&self, stats: &Stats, counted: &mut Stats) {
        let add = |total: &AtomicU64, now: u64, before: u64| {
            if now > before {
                total.fetch_add(now - before, Ordering::Relaxed);
            }
        };
        add(&self.frames, stats.media, counted.media);
        add(&self.late, stats.late, counted.late);
        add(&self.repeated, stats.repeated, counted.repeated);
        add(&self.before_start, stats.before_start, counted.before_start);
        add(&self.missing, stats.missing, counted.missing);
        add(&self.reordered, stats.reordered, counted.reordered);
        add(&self.unaddressed, stats.unaddressed, counted.unaddressed);
        add(&self.odd_base64, stats.odd_base64, counted.odd_base64);
        for (index, total) in self.rejected.iter().enumerate() {
            add(total, stats.rejected[index], counted.rejected[index]);
        }
        *counted = *stats;
    }
}

/// Counts of durations by bucket; any thread may add to them. By default the bounds are those for times
/// of the disk.
#[derive(Debug)]
pub struct Histogram {
    /// In microseconds, at most [`BUCKETS`].
    bounds_us: &'static [u64],
    /// Count for each bound: durations up to that bound, and longer than the bound before. The count behind
    /// the last bound is for longer durations.
    counts: [AtomicU64; BUCKETS + 1],
    sum_us: AtomicU64,
}

/// Durations of calls.
#[derive(Debug)]
pub struct CallTimes(pub Histogram);

/// Response latencies.
#[derive(Debug)]
pub struct ResponseTimes(pub Histogram);

impl Default for Histogram {
    fn default() -> Self {
        Self::with_bounds(&DISK_US)
    }
}

impl Default for CallTimes {
    fn default() -> Self {
        Self(Histogram::with_bounds(&CALLS_US))
    }
}

impl Default for ResponseTimes {
    fn default() -> Self {
        Self(Histogram::with_bounds(&RESPONSES_US))
    }
}

impl Histogram {
    fn with_bounds(bounds_us: &'static [u64]) -> Self {
        Self { bounds_us, counts: Default::default(), sum_us: AtomicU64::new(0) }
    }

    /// Adds a duration.
    pub fn add(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = self.bounds_us.partition_point(|longest| *longest < us);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Returns the upper bound of each bucket in seconds with its count, and the sum of all durations. The
    /// last bound is infinite.
    #[must_use]
    pub fn read(&self) -> (Vec<(f64, u64)>, Duration) {
        let bounds = self.bounds_us.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let sum = Duration::from_micros(self.sum_us.load(Ordering::Relaxed));
        (bounds.zip(counts).collect(), sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_the_bucket_that_is_long_enough() {
        let histogram = Histogram::default();
        for us in [0, 50, 51, 10_000_000, 10_000_001] {
            histogram.add(Duration::from_micros(us));
        }
        let (counts, sum) = histogram.read();
        assert_eq!((counts[0], counts[1]), ((50e-6, 2), (100e-6, 1)));
        assert_eq!((counts[13], counts[14]), ((10.0, 1), (f64::INFINITY, 1)));
        assert_eq!(sum, Duration::from_micros(20_000_102));
        let ResponseTimes(responses) = ResponseTimes::default();
        for ms in [700, 701, 20_000] {
            responses.add(Duration::from_millis(ms));
        }
        let (counts, _) = responses.read();
        let found = counts.iter().filter(|(_, count)| *count > 0);
        assert!(found.eq(&[(0.7, 1), (1.0, 1), (f64::INFINITY, 1)]), "{counts:?}");
    }

    #[test]
    fn an_end_is_counted_under_its_provider_and_reason() {
        let counters = Counters::default();
        counters.end(Provider::Twilio, End::Idle, Duration::from_secs(61));
        for (provider, counts) in PROVIDERS.iter().zip(&counters.ended) {
            for (end, count) in End::ALL.iter().zip(counts) {
                let is_it = *provider == Provider::Twilio && *end == End::Idle;
                assert_eq!(count.load(Ordering::Relaxed), u64::from(is_it), "{end}");
            }
        }
        let (counts, _) = counters.call_time.0.read();
        assert_eq!(counts[7], (120.0, 1));
    }
}
