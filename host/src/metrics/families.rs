//! The families of metrics: names, helps, labels and values.

use std::fmt::Result;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use callreel_core::format::Codec;
use callreel_core::frame::{PeerError, Provider, Track};
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{Process, Scrape};
use crate::board::{
    Board, CODECS, Counters, Histogram, PROVIDERS, Refused, RequestRefused, STATES,
};
use crate::home;
use crate::log;
use crate::outbox::{Health, ReceiverHealth};
use crate::record::{End, State};
use crate::store::{Removal, Retention, Room};

/// Writes families of metrics.
pub(super) struct Families<'e>(pub(super) DescriptorEncoder<'e>);

impl Families<'_> {
    /// The calls: live, begun, ended and refused.
    pub(super) fn calls(&mut self, board: &Board) -> Result {
        let counters = &board.counters;
        self.gauge("callreel_calls", "Recordings under way", board.count() as f64)?;
        self.counter("callreel_calls_begun", "Recordings that began", &counters.begun)?;
        let codecs = CODECS.map(Codec::name).into_iter().zip(&counters.begun_by_codec);
        let help = "Recordings that began, by the codec that the start of the stream announced";
        self.counters("callreel_calls_begun_by_codec", help, "codec", codecs)?;
        let ended = "Recorded streams that ended, by provider and reason";
        let mut to = self.family("callreel_calls_ended", ended, MetricType::Counter)?;
        for (provider, ends) in PROVIDERS.iter().copied().map(Provider::name).zip(&counters.ended) {
            for (end, count) in End::ALL.iter().zip(ends) {
                count_of(&mut to, &[("provider", provider), ("end", end.name())], count)?;
            }
        }
        let durations = "Durations of recorded streams, by the clock, counted at their ends";
        self.histogram("callreel_call_duration_seconds", durations, &counters.call_time.0)?;
        let reasons = Refused::ALL.iter().map(|why| why.name()).zip(&counters.refused);
        self.counters("callreel_calls_refused", "Refused calls, by reason", "reason", reasons)?;
        self.counters(
            "callreel_handshakes_refused",
            "Requests at the public listener that were refused, by reason: each may have been a call",
            "reason",
            RequestRefused::ALL.iter().map(|why| why.name()).zip(&counters.requests_refused),
        )
    }

    /// The messages of streams.
    pub(super) fn messages(&mut self, counters: &Counters) -> Result {
        let recorded = "Media messages with recorded audio";
        self.counter("callreel_frames", recorded, &counters.frames)?;
        self.counter("callreel_frames_late", "Media messages that came late", &counters.late)?;
        let missing = "Messages that had not come when later messages did";
        self.counter("callreel_frames_missing", missing, &counters.missing)?;
        let reordered = "Missing messages that came late, into the place held open for them";
        self.counter("callreel_frames_reordered", reordered, &counters.reordered)?;
        let unaddressed = "Media messages that name no stream, or a stream that did not start";
        self.counter("callreel_frames_unaddressed", unaddressed, &counters.unaddressed)?;
        let odd_base64 =
            "Media messages with base64 that lacks its padding or is of the URL alphabet";
        self.counter("callreel_frames_odd_base64", odd_base64, &counters.odd_base64)?;
        let dropped = [("before_start", &counters.before_start), ("repeated", &counters.repeated)];
        let rejected = PeerError::ALL.iter().map(|reason| reason.name()).zip(&counters.rejected);
        self.counters(
            "callreel_frames_rejected",
            "Messages that are in no recording, by reason",
            "reason",
            rejected.chain(dropped),
        )
    }

    /// The audio, and the lack of it.
    pub(super) fn audio(&mut self, counters: &Counters) -> Result {
        let recorded = "Bytes of samples recorded";
        self.counter("callreel_audio_bytes", recorded, &counters.audio_bytes)?;
        self.counter("callreel_gaps", "Gaps in media time, of each track", &counters.gaps)?;
        let missing = "Length of the gaps; an outage of both tracks counts once";
        let missing_for = Duration::from_millis(counters.missing_ms.load(Ordering::Relaxed));
        self.seconds("callreel_missing_seconds", missing, missing_for)?;
        let orders = "Streams with the bytes of their samples in another order than documented";
        self.counter("callreel_byte_orders_corrected", orders, &counters.orders_corrected)?;
        let lost = "Audio that arrived and became silence, because the disk did not take it";
        let lost_for = Duration::from_micros(counters.lost_us.load(Ordering::Relaxed));
        self.seconds("callreel_lost_seconds", lost, lost_for)?;
        let queue = "Most audio of one recording that ever waited for the disk";
        let queue_bytes = counters.queue_bytes_max.load(Ordering::Relaxed) as f64;
        self.gauge("callreel_queue_high_water_bytes", queue, queue_bytes)
    }

    /// The conversations on two tracks.
    pub(super) fn conversations(&mut self, counters: &Counters) -> Result {
        let tracks = [Track::Inbound, Track::Outbound].map(Track::name);
        let help = "Turns of conversations on two tracks, by the track that spoke";
        let turns = tracks.into_iter().zip(&counters.turns);
        self.counters("callreel_turns", help, "track", turns)?;
        let help = "Interruptions in conversations on two tracks, by the track that made them";
        let interruptions = tracks.into_iter().zip(&counters.interruptions);
        self.counters("callreel_interruptions", help, "track", interruptions)?;
        let help = "Time from the end of inbound speech to the beginning of outbound speech";
        self.histogram("callreel_response_latency_seconds", help, &counters.response_time.0)
    }

    /// The recordings: finished, unfinished and removed.
    pub(super) fn recordings(&mut self, scrape: &Scrape) -> Result {
        let states: Vec<String> = STATES.iter().map(State::to_string).collect();
        let finished = states.iter().map(String::as_str).zip(&scrape.board.counters.finished);
        let help = "Finished recordings, by state";
        self.counters("callreel_recordings", help, "state", finished)?;
        self.gauge(
            "callreel_oldest_unfinished_recording_seconds",
            "Time since the end of the oldest call with an unfinished recording; 0 if there is none",
            scrape.unfinished_s,
        )?;
        let removed = scrape.retention.removed.map(AtomicU64::new);
        let reasons = Removal::ALL.iter().map(|why| why.name()).zip(&removed);
        let help = "Recordings that were removed, by reason";
        self.counters("callreel_recordings_removed", help, "reason", reasons)?;
        let undelivered = AtomicU64::new(scrape.retention.removed_undelivered);
        let help = "Recordings removed for room before their webhook message was delivered";
        self.counter("callreel_recordings_removed_undelivered", help, &undelivered)
    }

    /// The disk: its room and its times.
    pub(super) fn disk(&mut self, room: Option<Room>, counters: &Counters) -> Result {
        let write = "Time to write one block and its header";
        self.histogram("callreel_write_seconds", write, &counters.write_time)?;
        let sync = "Time to make all written data durable";
        self.histogram("callreel_sync_seconds", sync, &counters.sync_time)?;
        if let Some(Room { free, inodes, .. }) = room {
            self.gauge("callreel_disk_free_bytes", "Free bytes on the disk", free as f64)?;
            if let Some(inodes) = inodes {
                let free = inodes.free as f64;
                self.gauge("callreel_disk_free_inodes", "Free inodes on the disk", free)?;
            }
        }
        Ok(())
    }

    /// The log, the admin listener, and draining.
    pub(super) fn listeners(&mut self, scrape: &Scrape) -> Result {
        let dropped = AtomicU64::new(log::health().dropped);
        let lines = "Log lines that standard error did not take in time";
        self.counter("callreel_log_lines_dropped", lines, &dropped)?;
        let left_out = AtomicU64::new(scrape.board.log_rooms.left_out());
        let lines = "Log lines left out because peers caused too many";
        self.counter("callreel_log_lines_left_out", lines, &left_out)?;
        let wrong = "Wrong tokens shown at the admin listener";
        let wrong_tokens = &scrape.board.counters.wrong_tokens;
        self.counter("callreel_admin_tokens_refused", wrong, wrong_tokens)?;
        if let Some(until) = scrape.certificate_until {
            let name = "callreel_tls_certificate_end_timestamp_seconds";
            self.gauge(
                name,
                "End of the certificate in use, in Unix time",
                until.as_second() as f64,
            )?;
        }
        let draining = f64::from(u8::from(scrape.is_draining));
        self.gauge(
            "callreel_draining",
            "1 when the recorder was told to drain: no new calls are taken after --drain-delay",
            draining,
        )
    }

    /// Automatic deletion.
    pub(super) fn retention(&mut self, retention: &Retention) -> Result {
        let next = retention.next.as_ref().map_or(0, |plan| plan.recordings);
        self.gauge(
            "callreel_retention_next_removals",
            "Recordings that the next check removes because of --keep-days",
            next as f64,
        )?;
        let stopped = "1 while automatic deletion is stopped, by reason";
        let mut to = self.family("callreel_retention_stopped", stopped, MetricType::Gauge)?;
        for (reason, alarm) in [("clock", &retention.clock_alarm), ("room", &retention.room_alarm)]
        {
            let is_stopped = ConstGauge::new(u64::from(alarm.is_some()));
            is_stopped.encode(to.encode_family(&[("reason", reason)])?)?;
        }
        Ok(())
    }

    /// The delivery of messages. The names of the receivers come from the settings.
    pub(super) fn webhook(&mut self, webhook: &Health) -> Result {
        let pending = "Webhook messages not accepted yet, each counted once for each receiver";
        self.gauge("callreel_webhook_pending", pending, webhook.pending as f64)?;
        let oldest =
            "Age of the oldest webhook message not accepted yet, in seconds; 0 if none waits";
        self.gauge("callreel_webhook_oldest_seconds", oldest, seconds(webhook.oldest_s))?;
        let delivered = AtomicU64::new(webhook.delivered);
        self.counter("callreel_webhook_delivered", "Webhook messages accepted", &delivered)?;
        let given_up = AtomicU64::new(webhook.given_up);
        self.counter("callreel_webhook_given_up", "Webhook messages given up", &given_up)?;
        let dead = "Webhook messages that were given up and are kept, to be sent again on request";
        self.gauge("callreel_webhook_dead", dead, webhook.dead as f64)?;
        let receivers = &webhook.receivers;
        let pending = "Webhook messages not accepted yet, by receiver";
        let values = receivers.iter().map(|receiver| receiver.pending as f64);
        self.by_receiver("callreel_webhook_receiver_pending", pending, receivers, values)?;
        let oldest = "Age of the oldest webhook message not accepted yet, in seconds, by receiver";
        let values = receivers.iter().map(|receiver| seconds(receiver.oldest_s));
        self.by_receiver("callreel_webhook_receiver_oldest_seconds", oldest, receivers, values)?;
        let failing = "1 while all tries to reach a receiver fail";
        let is_failing = |receiver: &ReceiverHealth| receiver.failing_since.is_some();
        let values = receivers.iter().map(|receiver| f64::from(u8::from(is_failing(receiver))));
        self.by_receiver("callreel_webhook_receiver_failing", failing, receivers, values)
    }

    /// The uploads to the home.
    pub(super) fn home(&mut self, home: &home::Health) -> Result {
        let pending = "Finished recordings that the home lacks";
        self.gauge("callreel_home_pending", pending, home.pending as f64)?;
        let bytes = "Bytes of the finished recordings that the home lacks";
        self.gauge("callreel_home_pending_bytes", bytes, home.pending_bytes as f64)?;
        let oldest =
            "Time since the end of the oldest recording that the home lacks; 0 if it lacks none";
        self.gauge("callreel_home_oldest_seconds", oldest, seconds(home.oldest_s))?;
        let uploaded = AtomicU64::new(home.uploaded);
        self.counter("callreel_home_uploaded", "Recordings uploaded to the home", &uploaded)?;
        let sent = AtomicU64::new(home.sent_bytes);
        self.counter("callreel_home_sent_bytes", "Bytes sent to the home", &sent)?;
        let received = AtomicU64::new(home.received_bytes);
        self.counter("callreel_home_received_bytes", "Bytes received from the home", &received)?;
        let stuck = "Recordings that cannot be uploaded although the home works";
        self.gauge("callreel_home_stuck", stuck, home.stuck as f64)?;
        let failing = f64::from(u8::from(home.failing_since.is_some()));
        self.gauge("callreel_home_failing", "1 while the home takes no recordings", failing)
    }

    fn by_receiver(
        &mut self,
        name: &str,
        help: &str,
        receivers: &[ReceiverHealth],
        values: impl Iterator<Item = f64>,
    ) -> Result {
        let mut to = self.family(name, help, MetricType::Gauge)?;
        for (receiver, value) in receivers.iter().zip(values) {
            let labels = [("receiver", receiver.name.as_str())];
            ConstGauge::new(value).encode(to.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// The process and its version. Figures that the system does not tell are left out.
    pub(super) fn process(&mut self, process: &Process) -> Result {
        self.seconds("process_cpu_seconds", "CPU time of the process", process.cpu_time)?;
        let began = process.began.as_duration().as_secs_f64();
        let gauges = [
            ("process_start_time_seconds", "Start of the process, in Unix time", Some(began)),
            (
                "process_resident_memory_bytes",
                "Memory that the process holds",
                process.resident_bytes,
            ),
            ("process_virtual_memory_bytes", "Memory that the process maps", process.virtual_bytes),
            ("process_open_fds", "Open file descriptors", process.open_fds),
            ("process_max_fds", "Limit of open file descriptors", process.max_fds),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                self.gauge(name, help, value)?;
            }
        }
        let mut to = self.family("callreel_build_info", "Running version", MetricType::Gauge)?;
        let labels = [("version", env!("CARGO_PKG_VERSION"))];
        ConstGauge::new(1u64).encode(to.encode_family(&labels)?)
    }

    fn family<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        kind: MetricType,
    ) -> std::result::Result<MetricEncoder<'s>, std::fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> Result {
        ConstGauge::new(value).encode(self.family(name, help, MetricType::Gauge)?)
    }

    fn counter(&mut self, name: &str, help: &str, value: &AtomicU64) -> Result {
        let to = self.family(name, help, MetricType::Counter)?;
        ConstCounter::new(value.load(Ordering::Relaxed)).encode(to)
    }

    fn seconds(&mut self, name: &str, help: &str, value: Duration) -> Result {
        let to = self.family(name, help, MetricType::Counter)?;
        ConstCounter::new(value.as_secs_f64()).encode(to)
    }

    fn counters<'v>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl Iterator<Item = (&'v str, &'v AtomicU64)>,
    ) -> Result {
        let mut to = self.family(name, help, MetricType::Counter)?;
        for (value, count) in values {
            count_of(&mut to, &[(label, value)], count)?;
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) -> Result {
        let mut to = self.family(name, help, MetricType::Histogram)?;
        let (buckets, sum) = histogram.read();
        let count = buckets.iter().map(|(_, count)| count).sum();
        to.encode_histogram::<NoLabelSet>(sum.as_secs_f64(), count, &buckets, None)
    }
}

/// Writes one counter of a family.
fn count_of(to: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, count: &AtomicU64) -> Result {
    let count = ConstCounter::new(count.load(Ordering::Relaxed));
    count.encode(to.encode_family(labels)?)
}

fn seconds(age_s: Option<u64>) -> f64 {
    age_s.unwrap_or(0) as f64
}
