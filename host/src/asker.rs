//! The providers beside Twilio that ask by a webhook for the next step of a call, and their paths.

use callreel_core::frame::Provider;

/// A provider with a webhook of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// Bandwidth: BXML. The answer waits until the stream has ended.
    Bandwidth,
    /// Plivo: XML.
    Plivo,
    /// SignalWire: cXML, by its older name LaML.
    SignalWire,
    /// Telnyx: TeXML.
    Telnyx,
    /// Vonage: NCCO. The one track has all parties of the call.
    Vonage,
}

impl Asker {
    /// Every provider with a webhook of its own.
    pub const ALL: [Self; 5] =
        [Self::Bandwidth, Self::Plivo, Self::SignalWire, Self::Telnyx, Self::Vonage];

    /// Name in paths, options and logs: that of its dialect.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.provider().name()
    }

    /// Path of the webhook below the public URL.
    #[must_use]
    pub const fn webhook_path(self) -> &'static str {
        match self {
            Self::Bandwidth => "/bandwidth/incoming-call",
            Self::Plivo => "/plivo/incoming-call",
            Self::SignalWire => "/signalwire/incoming-call",
            Self::Telnyx => "/telnyx/incoming-call",
            Self::Vonage => "/vonage/incoming-call",
        }
    }

    /// Path of the streams for which the answer asks.
    #[must_use]
    pub const fn stream_path(self) -> &'static str {
        match self {
            Self::Bandwidth => "/bandwidth/media-stream",
            Self::Plivo => "/plivo/media-stream",
            Self::SignalWire => "/signalwire/media-stream",
            Self::Telnyx => "/telnyx/media-stream",
            Self::Vonage => "/vonage/media-stream",
        }
    }

    /// The provider with the webhook at this path.
    #[must_use]
    pub fn of_webhook(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|asker| asker.webhook_path() == path)
    }

    /// The provider with the streams at this path.
    #[must_use]
    pub fn of_stream(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|asker| asker.stream_path() == path)
    }

    /// The dialect of its streams.
    #[must_use]
    pub const fn provider(self) -> Provider {
        match self {
            Self::Bandwidth => Provider::Bandwidth,
            Self::Plivo => Provider::Plivo,
            Self::SignalWire => Provider::SignalWire,
            Self::Telnyx => Provider::Telnyx,
            Self::Vonage => Provider::Vonage,
        }
    }

    /// The schemes of `--admission` that suit its webhook and its streams, for errors.
    pub(crate) const fn schemes(self) -> (&'static str, &'static str) {
        match self {
            Self::Bandwidth => ("basic:FILE", "basic:FILE"),
            Self::Plivo => ("plivo:FILE", "plivo:FILE"),
            Self::SignalWire => ("signalwire:FILE", "none together with --stream-token"),
            Self::Telnyx => ("telnyx:FILE", "none together with --stream-token"),
            Self::Vonage => ("vonage:FILE", "vonage:FILE"),
        }
    }

    /// Media type of the answer.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Vonage => "application/json",
            _ => "application/xml",
        }
    }

    /// Whether its proof covers the query of the URL, or is a login, which proves the whole request.
    pub(crate) const fn proves_query(self) -> bool {
        !matches!(self, Self::Telnyx)
    }

    /// Names of the fields of a webhook, the preferred one first: the id of the call, then those of
    /// [`CallerIds`](crate::caller_ids::CallerIds) in their order.
    pub(crate) const fn fields(self) -> [&'static [&'static str]; 7] {
        match self {
            Self::Bandwidth => {
                [&["callId"], &["from"], &["to"], &["direction"], &[], &[], &["eventType"]]
            }
            Self::Plivo => [
                &["CallUUID"],
                &["From"],
                &["To"],
                &["Direction"],
                &["ForwardedFrom"],
                &["CallerName"],
                &["CallStatus"],
            ],
            Self::SignalWire | Self::Telnyx => [
                &["CallSid"],
                &["From", "Caller"],
                &["To", "Called"],
                &["Direction"],
                &["ForwardedFrom"],
                &["CallerName", "CallerId"],
                &["CallStatus"],
            ],
            Self::Vonage => [
                &["uuid", "conversation_uuid"],
                &["from"],
                &["to"],
                &["direction"],
                &[],
                &[],
                &["status"],
            ],
        }
    }

    /// The name of the id of a call in its webhook.
    #[must_use]
    pub const fn call_id_name(self) -> &'static str {
        self.fields()[0][0]
    }
}
