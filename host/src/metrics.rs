//! The metrics that Prometheus scrapes. All label values are defined in the code or by the settings:
//! none comes from a call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use callreel_core::frame::PeerError;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelValue, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::board::{BUCKETS_US, Board, Histogram, Refused, RequestRefused, STATES};
use crate::lock::lock;
use crate::log;
use crate::outbox::{Health, ReceiverHealth};
use crate::record::State;
use crate::store::{Removal, Retention};

/// Content type of the text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Sources of the metrics.
#[derive(Debug)]
pub(crate) struct Scrape {
    /// The counters and the live recordings.
    pub board: Arc<Board>,
    /// Free bytes on the disk, if known.
    pub disk_free_bytes: Option<u64>,
    /// Free inodes on the disk, if it has a limit of inodes.
    pub disk_free_inodes: Option<u64>,
    /// Past and planned work of the automatic deletion.
    pub retention: Retention,
    /// Whether the recorder is draining: new calls are refused.
    pub is_draining: bool,
    /// CPU time of the process.
    pub cpu_time: Duration,
    /// State of the webhook, if one is set.
    pub webhook: Option<Health>,
}

impl Scrape {
    /// Returns the metrics as text.
    #[must_use]
    pub(crate) fn into_text(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        encode(&mut text, &registry).expect("a string takes any text");
        text
    }
}

type Result = std::fmt::Result;

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result {
        let mut to = Metrics(encoder);
        let counters = &self.board.counters;
        to.gauge("callreel_calls", "Recordings under way", self.board.count() as f64)?;
        to.counter("callreel_calls_begun", "Recordings that began", &counters.begun)?;
        to.family(
            "callreel_calls_refused",
            "Refused calls, by reason",
            "reason",
            Refused::ALL.iter().map(|why| why.name()).zip(&counters.refused),
        )?;
        to.family(
            "callreel_handshakes_refused",
            "Requests at the public listener that were refused, by reason: each may have been a call",
            "reason",
            RequestRefused::ALL.iter().map(|why| why.name()).zip(&counters.requests_refused),
        )?;
        to.family(
            "callreel_recordings",
            "Finished recordings, by state",
            "state",
            STATES.iter().map(State::to_string).zip(&counters.finished),
        )?;
        to.counter("callreel_frames", "Media messages with recorded audio", &counters.frames)?;
        to.counter("callreel_frames_late", "Media messages that came late", &counters.late)?;
        let missing = "Messages that had not come when later messages did";
        to.counter("callreel_frames_missing", missing, &counters.missing)?;
        let reordered = "Missing messages that came late, into the place held open for them";
        to.counter("callreel_frames_reordered", reordered, &counters.reordered)?;
        let unaddressed = "Media messages that name no stream, or a stream that did not start";
        to.counter("callreel_frames_unaddressed", unaddressed, &counters.unaddressed)?;
        let dropped = [("before_start", &counters.before_start), ("repeated", &counters.repeated)];
        let rejected = PeerError::ALL.iter().map(|reason| reason.name()).zip(&counters.rejected);
        to.family(
            "callreel_frames_rejected",
            "Messages that are in no recording, by reason",
            "reason",
            rejected.chain(dropped),
        )?;
        to.counter("callreel_audio_bytes", "Bytes of samples recorded", &counters.audio_bytes)?;
        to.counter("callreel_gaps", "Gaps in media time, of each track", &counters.gaps)?;
        let missing = "Length of the gaps; an outage of both tracks counts once";
        to.counter("callreel_missing_milliseconds", missing, &counters.missing_ms)?;
        let lost_ms = AtomicU64::new(counters.lost_us.load(Ordering::Relaxed).div_ceil(1000));
        let lost = "Audio that arrived and became silence, because the disk did not take it";
        to.counter("callreel_lost_milliseconds", lost, &lost_ms)?;
        let queue = counters.queue_bytes_max.load(Ordering::Relaxed);
        to.gauge(
            "callreel_queue_high_water_bytes",
            "Most audio of one recording that ever waited for the disk, in bytes",
            queue as f64,
        )?;
        let write = "Time to write one block and its header";
        to.histogram("callreel_write_seconds", write, &counters.write_time)?;
        let sync = "Time to make all written data durable";
        to.histogram("callreel_sync_seconds", sync, &counters.sync_time)?;
        if let Some(free_bytes) = self.disk_free_bytes {
            to.gauge("callreel_disk_free_bytes", "Free bytes on the disk", free_bytes as f64)?;
        }
        if let Some(free) = self.disk_free_inodes {
            to.gauge("callreel_disk_free_inodes", "Free inodes on the disk", free as f64)?;
        }
        let dropped = AtomicU64::new(log::health().dropped);
        let lines = "Log lines that standard error did not take in time";
        to.counter("callreel_log_lines_dropped", lines, &dropped)?;
        let left_out = AtomicU64::new(self.board.log_rooms.left_out());
        let lines = "Log lines left out because peers caused too many";
        to.counter("callreel_log_lines_left_out", lines, &left_out)?;
        let wrong = "Wrong tokens shown at the admin listener";
        to.counter("callreel_admin_tokens_refused", wrong, &counters.wrong_tokens)?;
        let next = self.retention.next.as_ref().map_or(0, |plan| plan.recordings);
        to.gauge(
            "callreel_retention_next_removals",
            "Recordings that the next check removes because of --keep-days",
            next as f64,
        )?;
        let removed = self.retention.removed.map(AtomicU64::new);
        to.family(
            "callreel_recordings_removed",
            "Recordings that were removed, by reason",
            "reason",
            Removal::ALL.iter().map(|why| why.name()).zip(&removed),
        )?;
        let undelivered = AtomicU64::new(self.retention.removed_undelivered);
        let removed = "Recordings removed for room before their webhook message was delivered";
        to.counter("callreel_recordings_removed_undelivered", removed, &undelivered)?;
        let alarms = [
            ("clock", self.retention.clock_alarm.is_some()),
            ("room", self.retention.room_alarm.is_some()),
        ];
        to.flags(
            "callreel_retention_stopped",
            "1 while automatic deletion is stopped, by reason",
            "reason",
            &alarms,
        )?;
        let draining = f64::from(u8::from(self.is_draining));
        to.gauge("callreel_draining", "1 when no new calls are taken", draining)?;
        if let Some(webhook) = &self.webhook {
            to.webhook(webhook)?;
        }
        to.seconds("process_cpu_seconds", "CPU time of the process", self.cpu_time)?;
        to.build()
    }
}

struct Metrics<'e>(DescriptorEncoder<'e>);

impl Metrics<'_> {
    /// The delivery of messages. The names of the receivers come from the settings.
    fn webhook(&mut self, webhook: &Health) -> Result {
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

    fn by_receiver(
        &mut self,
        name: &str,
        help: &str,
        receivers: &[ReceiverHealth],
        values: impl Iterator<Item = f64>,
    ) -> Result {
        let mut to = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (receiver, value) in receivers.iter().zip(values) {
            let labels = [("receiver", receiver.name.as_str())];
            ConstGauge::new(value).encode(to.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> Result {
        let to = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(to)
    }

    fn counter(&mut self, name: &str, help: &str, value: &AtomicU64) -> Result {
        let to = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value.load(Ordering::Relaxed)).encode(to)
    }

    fn seconds(&mut self, name: &str, help: &str, value: Duration) -> Result {
        let to = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value.as_secs_f64()).encode(to)
    }

    fn family<'v>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl Iterator<Item = (impl EncodeLabelValue, &'v AtomicU64)>,
    ) -> Result {
        let mut to = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (value, count) in values {
            let count = ConstCounter::new(count.load(Ordering::Relaxed));
            count.encode(to.encode_family(&[(label, value)])?)?;
        }
        Ok(())
    }

    fn flags(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: &[(&'static str, bool)],
    ) -> Result {
        let mut to = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (value, is_set) in values {
            let flag = ConstGauge::new(u64::from(*is_set));
            flag.encode(to.encode_family(&[(label, *value)])?)?;
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) -> Result {
        let mut to = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        let (counts, sum) = histogram.read();
        let longest = BUCKETS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = longest.zip(counts).collect();
        to.encode_histogram::<NoLabelSet>(sum.as_secs_f64(), counts.iter().sum(), &buckets, None)
    }

    fn build(&mut self) -> Result {
        let name = "callreel_build_info";
        let mut to = self.0.encode_descriptor(name, "Running version", None, MetricType::Gauge)?;
        let labels = [("version", env!("CARGO_PKG_VERSION"))];
        ConstGauge::new(1u64).encode(to.encode_family(&labels)?)
    }
}

fn seconds(age_s: Option<u64>) -> f64 {
    age_s.unwrap_or(0) as f64
}

/// Meter of the process's CPU use. Holds the time, the CPU time and the result of the last measurement.
#[derive(Debug, Default)]
pub(crate) struct CpuMeter(std::sync::Mutex<Option<(std::time::Instant, Duration, f64)>>);

impl CpuMeter {
    /// Returns the CPU time of the process so far.
    #[must_use]
    pub(crate) fn cpu_time() -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
    }

    /// Returns the average number of CPUs in use between the last two measurements, which are at least a
    /// second apart; 1.0 is one whole CPU.
    #[must_use]
    pub(crate) fn cpus(&self) -> f64 {
        let mut last = lock(&self.0);
        let (now, used) = (std::time::Instant::now(), Self::cpu_time());
        let (then, used_then, cpus) = last.unwrap_or((now, used, 0.0));
        let elapsed = now - then;
        if elapsed < Duration::from_secs(1) {
            *last = Some((then, used_then, cpus));
            return cpus;
        }
        let cpus = (used.saturating_sub(used_then)).as_secs_f64() / elapsed.as_secs_f64();
        *last = Some((now, used, cpus));
        cpus
    }
}
