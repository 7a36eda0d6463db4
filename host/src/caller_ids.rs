//! Caller ids: the two ends of a call, as the provider's webhook reported them. The stream itself
//! carries only the id of its call.
//!
//! They are personal data. They are kept in memory for a while, and go from there into end records;
//! no log line shows them, not even by `Debug`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::lock::lock;

/// Time for which a call's caller ids are kept after the webhook: a call may wait in a queue before its
/// stream begins.
pub(crate) const AGE_MAX: Duration = Duration::from_secs(4 * 60 * 60);

/// Most calls with caller ids in memory. One more replaces the oldest.
pub(crate) const CALLS_MAX: usize = 10_000;

/// Most memory of all caller ids together.
const BYTES_MAX: usize = 4 << 20;

/// Memory of an entry beside its texts.
const ENTRY_BYTES: usize = 256;

/// Longest text that is kept, in bytes. A longer one is cut.
const TEXT_BYTES_MAX: usize = 128;

/// Longest call id that is accepted, in bytes; Twilio's have 34 characters.
const CALL_ID_BYTES_MAX: usize = 256;

/// The ends of one call. `None`: the provider did not report it.
#[derive(Clone, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct CallerIds {
    /// The number or address of the calling party.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Box<str>>,
    /// The number or address that was called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Box<str>>,
    /// The provider's word for the direction, like `inbound`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Box<str>>,
    /// The number that forwarded the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarded_from: Option<Box<str>>,
    /// The calling party's name, by a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller_name: Option<Box<str>>,
    /// The provider's word for the state of the call when it asked, like `ringing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Box<str>>,
}

impl CallerIds {
    /// The texts that the provider reported.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let Self { from, to, direction, forwarded_from, caller_name, status } = self;
        let all = [from, to, direction, forwarded_from, caller_name, status];
        all.into_iter().filter_map(Option::as_deref)
    }

    /// Fills the texts that are missing from `others`.
    #[must_use]
    pub(crate) fn or(self, others: Self) -> Self {
        Self {
            from: self.from.or(others.from),
            to: self.to.or(others.to),
            direction: self.direction.or(others.direction),
            forwarded_from: self.forwarded_from.or(others.forwarded_from),
            caller_name: self.caller_name.or(others.caller_name),
            status: self.status.or(others.status),
        }
    }
}

impl fmt::Debug for CallerIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallerIds(..)")
    }
}

/// Cuts a text to the length that is kept.
#[must_use]
pub(crate) fn shorten(text: &str) -> Box<str> {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].into()
}

/// Caller ids of the calls that webhooks reported recently, by call id.
///
/// One process knows only the calls that its own webhook received.
#[derive(Default)]
pub struct Callers(Mutex<Table>);

/// *Invariant: `order` has the number of each entry of `calls`, and nothing else.*
#[derive(Default)]
struct Table {
    calls: HashMap<Arc<str>, Entry>,
    /// Call ids in the order in which they were reported.
    order: BTreeMap<u64, Arc<str>>,
    next_number: u64,
    bytes: usize,
}

struct Entry {
    number: u64,
    told: Instant,
    bytes: usize,
    ids: CallerIds,
}

impl Callers {
    /// Keeps a call's caller ids; later ones replace earlier ones. Ignores caller ids without any text,
    /// and a call id too long to be a provider's.
    pub fn tell(&self, call_id: &str, ids: CallerIds, now: Instant) {
        let texts = ids.texts().map(str::len).sum::<usize>();
        if texts == 0 || call_id.len() > CALL_ID_BYTES_MAX {
            return;
        }
        let mut table = lock(&self.0);
        table.remove(call_id);
        let bytes = texts + call_id.len() + ENTRY_BYTES;
        let number = table.next_number;
        let call_id: Arc<str> = call_id.into();
        table.next_number += 1;
        table.bytes += bytes;
        table.order.insert(number, Arc::clone(&call_id));
        table.calls.insert(call_id, Entry { number, told: now, bytes, ids });
        table.forget_old(now);
    }

    /// The caller ids of a call, if the webhook reported them less than [`AGE_MAX`] ago. They stay,
    /// since a call may have several streams.
    #[must_use]
    pub fn of(&self, call_id: &str, now: Instant) -> Option<Box<CallerIds>> {
        let mut table = lock(&self.0);
        table.forget_old(now);
        table.calls.get(call_id).map(|entry| Box::new(entry.ids.clone()))
    }
}

impl Table {
    fn remove(&mut self, call_id: &str) {
        if let Some(entry) = self.calls.remove(call_id) {
            self.order.remove(&entry.number);
            self.bytes -= entry.bytes;
        }
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((_number, oldest)) = self.order.first_key_value() {
            let is_old =
                self.calls.get(oldest).is_none_or(|e| now.duration_since(e.told) >= AGE_MAX);
            if !is_old && self.calls.len() <= CALLS_MAX && self.bytes <= BYTES_MAX {
                return;
            }
            let oldest = Arc::clone(oldest);
            self.remove(&oldest);
        }
    }
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callers(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(from: &str) -> CallerIds {
        CallerIds { from: Some(shorten(from)), ..CallerIds::default() }
    }

    #[test]
    fn a_calls_ids_are_known_to_all_its_streams_for_four_hours() {
        let callers = Callers::default();
        let now = Instant::now();
        callers.tell("CA1", ids("+15550100001"), now);
        callers.tell("CA2", CallerIds::default(), now);
        for _ in 0..2 {
            assert_eq!(callers.of("CA1", now), Some(Box::new(ids("+15550100001"))));
        }
        assert_eq!(callers.of("CA2", now), None);
        callers.tell("CA1", ids("+15550100002"), now + AGE_MAX / 2);
        assert_eq!(callers.of("CA1", now + AGE_MAX), Some(Box::new(ids("+15550100002"))));
        assert_eq!(callers.of("CA1", now + AGE_MAX * 3 / 2), None);
        let table = callers.0.lock().unwrap();
        assert_eq!((table.calls.len(), table.order.len(), table.bytes), (0, 0, 0));
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_calls_are_forgotten() {
        let callers = Callers::default();
        let now = Instant::now();
        for call in 0..CALLS_MAX + 100 {
            callers.tell(&format!("CA{call}"), ids("+15550100001"), now);
        }
        assert!(callers.of("CA99", now).is_none() && callers.of("CA100", now).is_some());
        let long = shorten(&"ä".repeat(1000));
        assert_eq!(long.len(), TEXT_BYTES_MAX);
        let longest = CallerIds {
            from: Some(long.clone()),
            to: Some(long.clone()),
            direction: Some(long.clone()),
            forwarded_from: Some(long.clone()),
            caller_name: Some(long.clone()),
            status: Some(long),
        };
        for call in 0..CALLS_MAX {
            callers.tell(&format!("CB{call}{}", "-".repeat(200)), longest.clone(), now);
        }
        callers.tell(&"CC".repeat(200), longest, now);
        let table = callers.0.lock().unwrap();
        assert!(table.bytes <= BYTES_MAX && table.calls.len() == table.order.len());
        assert!(table.calls.len() > BYTES_MAX / 2000 && !table.calls.contains_key("CA100"));
    }

    #[test]
    fn nothing_shows_them_but_the_record() {
        let callers = Callers::default();
        callers.tell("CA1", ids("+15550100001"), Instant::now());
        let shown = format!("{callers:?} {:?} {:?}", ids("+15550100001"), Some(ids("x")));
        assert_eq!(shown, "Callers(..) CallerIds(..) Some(CallerIds(..))");
    }
}
