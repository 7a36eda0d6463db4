//! Conversations in steps: messages that are said in turn, and answers that are waited for.

/// The steps of a conversation. Messages are templates, as those of a look.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::caller) struct Steps {
    /// The member of the server's messages that tells their kind.
    pub(in crate::caller) kind: &'static str,
    /// Behind the start, before any audio.
    pub(in crate::caller) opening: &'static [Step],
    /// Behind the audio, before the stop.
    pub(in crate::caller) closing: &'static [Step],
    /// After every [`PING_INTERVAL_S`] of audio; its answer must have the same number.
    pub(in crate::caller) ping: Option<Step>,
    /// Kinds by which the server refuses the call, or ends it with an error.
    pub(in crate::caller) refusals: &'static [&'static str],
    /// The member of an answer that must name the encoding, if it is there.
    pub(in crate::caller) encoding: &'static str,
    /// The kind of messages with `activities`, of which one named `hangup` ends the call.
    pub(in crate::caller) orders: &'static str,
}

impl Steps {
    /// No steps at all.
    pub(super) const NONE: Self = Self {
        kind: "type",
        opening: &[],
        closing: &[],
        ping: None,
        refusals: &[],
        encoding: "",
        orders: "",
    };
}

/// A message, and the kind of the answer that is waited for. Either may be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::caller) struct Step {
    pub(in crate::caller) says: &'static str,
    pub(in crate::caller) awaits: &'static str,
}

/// Seconds of audio between two pings.
pub(in crate::caller) const PING_INTERVAL_S: u64 = 10;
