//! The metrics that Prometheus scrapes, as OpenMetrics or in Prometheus' own format 0.0.4. All label
//! values are defined in the code or by the settings: none comes from a call.

mod families;
mod process;
mod text;

use std::sync::Arc;

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use self::families::Families;
pub(crate) use self::process::{CpuMeter, Process};
use crate::board::Board;
use crate::home;
use crate::outbox::Health;
use crate::store::{Retention, Room};

/// Format of the metrics.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Format {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4.
    Text,
}

impl Format {
    /// The content type of the text.
    #[must_use]
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Sources of the metrics.
#[derive(Debug)]
pub(crate) struct Scrape {
    /// The counters and the live recordings.
    pub board: Arc<Board>,
    /// Room on the disk, if known.
    pub room: Option<Room>,
    /// Past and planned work of the automatic deletion.
    pub retention: Retention,
    /// Seconds since the end of the oldest call with an unfinished recording; 0 if there is none.
    pub unfinished_s: f64,
    /// Whether the recorder was told to drain.
    pub is_draining: bool,
    /// State of the webhook, if one is set.
    pub webhook: Option<Health>,
    /// State of the home, if there is one.
    pub home: Option<home::Health>,
    /// The end of the certificate in use, if there is one.
    pub certificate_until: Option<Timestamp>,
    /// Figures of the process.
    pub process: Process,
}

impl Scrape {
    /// Returns the metrics as text.
    #[must_use]
    pub(crate) fn into_text(self, format: Format) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        encode(&mut text, &registry).expect("a string takes any text");
        match format {
            Format::OpenMetrics => text,
            Format::Text => text::of_openmetrics(&text),
        }
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let mut families = Families(encoder);
        families.calls(&self.board)?;
        families.messages(&self.board.counters)?;
        families.audio(&self.board.counters)?;
        families.conversations(&self.board.counters)?;
        families.recordings(self)?;
        families.disk(self.room, &self.board.counters)?;
        families.listeners(self)?;
        families.retention(&self.retention)?;
        if let Some(webhook) = &self.webhook {
            families.webhook(webhook)?;
        }
        if let Some(home) = &self.home {
            families.home(home)?;
        }
        families.process(&self.process)
    }
}
