//! Events for the streams of `/api/v1/events`: their kinds, the wishes of a stream, and a memory of the
//! last events for clients that come back.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use hyper::body::Bytes;
use serde::Serialize;
use tokio::sync::broadcast;

use super::views::{MomentView, json_of};
use crate::lock::lock;

/// Most events that a slow stream may lag behind.
const BACKLOG_MAX: usize = 256;

/// Most events that are kept for clients that come back, and most bytes of them.
const KEPT_MAX: usize = 1024;
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Kind of an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Dtmf,
    Ended,
    Gap,
    Hello,
    Level,
    /// Events were missed. Each stream gets it, whatever it asks for.
    Lost,
    Mark,
    Published,
    Started,
    Status,
}

impl Kind {
    /// All kinds, by name.
    pub(super) const ALL: [Self; 10] = [
        Self::Dtmf,
        Self::Ended,
        Self::Gap,
        Self::Hello,
        Self::Level,
        Self::Lost,
        Self::Mark,
        Self::Published,
        Self::Started,
        Self::Status,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Dtmf => "dtmf",
            Self::Ended => "ended",
            Self::Gap => "gap",
            Self::Hello => "hello",
            Self::Level => "level",
            Self::Lost => "lost",
            Self::Mark => "mark",
            Self::Published => "published",
            Self::Started => "started",
            Self::Status => "status",
        }
    }
}

impl From<&MomentView> for Kind {
    fn from(moment: &MomentView) -> Self {
        match moment {
            MomentView::Gap { .. } => Self::Gap,
            MomentView::Dtmf { .. } => Self::Dtmf,
            MomentView::Mark { .. } => Self::Mark,
        }
    }
}

/// The events that a stream asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Wishes {
    /// The provider's id of a call; `None` for all calls.
    pub call: Option<String>,
    /// Kinds of events; `None` for all.
    pub kinds: Option<Vec<Kind>>,
}

impl Wishes {
    /// Whether the stream takes events of a kind.
    pub(super) fn takes(&self, kind: Kind) -> bool {
        kind == Kind::Lost || self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind))
    }

    /// Whether the stream takes events of a call.
    pub(super) fn takes_call(&self, call_id: &str) -> bool {
        self.call.as_ref().is_none_or(|call| call == call_id)
    }

    /// Whether the stream takes an event. With the id of a call it takes none that is of no call.
    pub(super) fn takes_event(&self, event: &Event) -> bool {
        let call_id = event.call_id.as_deref();
        self.takes(event.kind) && call_id.map_or(self.call.is_none(), |id| self.takes_call(id))
    }
}

/// An event for all streams.
#[derive(Debug)]
pub(super) struct Event {
    /// Number among all events that are kept; `None` for one that is not.
    pub number: Option<u64>,
    pub kind: Kind,
    /// The provider's id of the call, if the event is of one.
    pub call_id: Option<String>,
    pub text: Bytes,
}

/// The events of all streams: those to come, and the last ones.
#[derive(Debug)]
pub(super) struct Told {
    to_come: broadcast::Sender<Arc<Event>>,
    kept: Mutex<Kept>,
    /// Prefix of this run's ids: those of another run are recognised.
    run: String,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// Number of the last event; the first one is 1.
    last: u64,
}

/// The start of a stream, or its return to the events after it fell behind.
pub(super) struct Start {
    pub to_come: broadcast::Receiver<Arc<Event>>,
    /// The events since the client's position; `None` if they are not known any more.
    pub missed: Option<Vec<Arc<Event>>>,
    /// Position of the stream from now on.
    pub position: u64,
}

/// The last event that a client has got.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Position {
    /// None: it begins now.
    Now,
    After(u64),
    /// An event of another run, or no event.
    Unknown,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            to_come: broadcast::channel(BACKLOG_MAX).0,
            kept: Mutex::default(),
            run: format!("{:08x}", fastrand::u32(..)),
        }
    }
}

impl Told {
    /// Whether a stream is open.
    pub(super) fn has_streams(&self) -> bool {
        self.to_come.receiver_count() > 0
    }

    /// Sends an event to the streams, and keeps it.
    pub(super) fn tell(&self, kind: Kind, call_id: &str, data: &impl Serialize) {
        let mut kept = lock(&self.kept);
        let number = kept.last + 1;
        let text = text_of(kind, Some(&self.id(number)), data);
        let call_id = Some(call_id.to_owned());
        let event = Arc::new(Event { number: Some(number), kind, call_id, text });
        kept.push(Arc::clone(&event));
        // Under the lock, so that a stream that begins meanwhile gets each event once. The last stream
        // may have ended.
        let _ = self.to_come.send(event);
    }

    /// Sends an event that is of no call to the streams, and does not keep it.
    pub(super) fn tell_only(&self, kind: Kind, data: &impl Serialize) {
        let text = text_of(kind, None, data);
        let _ = self.to_come.send(Arc::new(Event { number: None, kind, call_id: None, text }));
    }

    /// Forgets all events: from now on some may be missed.
    pub(super) fn forget(&self) {
        let mut kept = lock(&self.kept);
        *kept = Kept { last: kept.last + 1, ..Kept::default() };
    }

    /// Begins a stream at a client's position.
    pub(super) fn begin(&self, position: Position) -> Start {
        let kept = lock(&self.kept);
        let missed = match position {
            Position::Now => Some(Vec::new()),
            Position::After(number) => kept.after(number),
            Position::Unknown => None,
        };
        Start { to_come: self.to_come.subscribe(), missed, position: kept.last }
    }

    /// The id of an event.
    pub(super) fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.run)
    }

    /// The position that the id of an event stands for.
    pub(super) fn position(&self, id: &str) -> Position {
        let number = id.strip_prefix(&self.run).and_then(|rest| rest.strip_prefix('-'));
        number.and_then(|number| number.parse().ok()).map_or(Position::Unknown, Position::After)
    }
}

impl Kept {
    fn push(&mut self, event: Arc<Event>) {
        self.last += 1;
        self.bytes += event.text.len();
        self.events.push_back(event);
        while self.events.len() > KEPT_MAX || self.bytes > KEPT_BYTES_MAX {
            let oldest = self.events.pop_front();
            self.bytes -= oldest.map_or(self.bytes, |event| event.text.len());
        }
    }

    /// The events after one; `None` if one of them is not kept, or that one has not been.
    fn after(&self, number: u64) -> Option<Vec<Arc<Event>>> {
        let count = self.last.checked_sub(number)?;
        let skipped = (self.events.len() as u64).checked_sub(count)?;
        Some(self.events.iter().skip(skipped as usize).cloned().collect())
    }
}

/// An event as a stream of server-sent events holds it.
pub(super) fn text_of(kind: Kind, id: Option<&str>, data: &impl Serialize) -> Bytes {
    let id = id.map_or(String::new(), |id| format!("id: {id}\n"));
    format!("{id}event: {}\ndata: {}\n\n", kind.name(), json_of(data)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missed(told: &Told, position: Position) -> Option<Vec<u64>> {
        let missed = told.begin(position).missed?;
        Some(missed.iter().filter_map(|event| event.number).collect())
    }

    #[test]
    fn a_client_that_comes_back_gets_what_it_missed_or_is_told_that_it_is_lost() {
        let told = Told::default();
        let first = told.begin(Position::Now).position;
        assert_eq!(missed(&told, Position::After(first)), Some(vec![]));
        (0..3).for_each(|_| told.tell(Kind::Ended, "CA1", &()));
        assert_eq!(missed(&told, Position::After(first)), Some(vec![1, 2, 3]));
        assert_eq!(told.position(&told.id(1)), Position::After(1));
        assert_eq!(missed(&told, Position::After(1)), Some(vec![2, 3]));
        assert_eq!(missed(&told, Position::After(3)), Some(vec![]));
        assert_eq!(missed(&told, Position::Now), Some(vec![]));
        for lost in [Position::After(4), Position::After(u64::MAX), Position::Unknown] {
            assert_eq!(missed(&told, lost), None, "{lost:?}");
        }
        for id in ["", "7", "0-0", &told.run, "-1"] {
            assert_eq!(told.position(id), Position::Unknown, "{id}");
        }
        told.forget();
        assert_eq!(missed(&told, Position::After(3)), None);
        assert_eq!(missed(&told, Position::After(4)), Some(vec![]));
    }

    #[test]
    fn the_memory_of_events_is_bounded() {
        let told = Told::default();
        (0..2000).for_each(|_| told.tell(Kind::Ended, "CA1", &()));
        assert_eq!(missed(&told, Position::After(2000 - 1024)).map(|m| m.len()), Some(1024));
        assert_eq!(missed(&told, Position::After(2000 - 1025)), None);
        (0..20).for_each(|_| told.tell(Kind::Mark, "CA1", &"m".repeat(100_000)));
        let kept = lock(&told.kept);
        assert!(kept.bytes <= KEPT_BYTES_MAX && kept.events.len() == 10, "{}", kept.bytes);
    }

    #[test]
    fn a_stream_gets_what_it_asks_for() {
        let event = |kind, call_id: Option<&str>| Event {
            number: None,
            kind,
            call_id: call_id.map(str::to_owned),
            text: Bytes::new(),
        };
        let all = Wishes::default();
        let one = Wishes { call: Some("CA1".to_owned()), kinds: Some(vec![Kind::Ended]) };
        for (kind, call_id, taken) in [
            (Kind::Ended, Some("CA1"), true),
            (Kind::Ended, Some("CA2"), false),
            (Kind::Started, Some("CA1"), false),
            (Kind::Status, None, false),
        ] {
            assert_eq!(one.takes_event(&event(kind, call_id)), taken, "{kind:?} {call_id:?}");
            assert!(all.takes_event(&event(kind, call_id)));
        }
        assert!(one.takes(Kind::Lost) && !one.takes(Kind::Hello));
    }
}
