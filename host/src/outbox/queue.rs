//! The messages that wait for one receiver, in memory, and the order in which they are sent.
//!
//! Messages that were never tried are sent in the order in which they were written. Messages that failed
//! are tried again in the order of their times. While both wait, they take turns, so that neither new
//! messages nor old ones wait for the others to be done. Failed messages take at most half of the places:
//! those that hang leave the other half to new ones.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Deliveries to one receiver at one time.
pub const PLACES: usize = 8;

/// Deliveries at one time of messages that failed before.
const RETRY_PLACES: usize = PLACES / 2;

/// The most messages that are known by name: about 20 MB. Of further ones only the number is known until
/// half of these are done; all are files.
const KNOWN_MAX: usize = 100_000;

/// The longest pause before the next try of a receiver that cannot be reached.
const DOWN_PAUSE_MAX: Duration = Duration::from_secs(60);

/// The name of a message's file, without its ending.
pub(super) type Stem = Arc<str>;

/// The messages that wait for one receiver.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: HashMap<Stem, Waiting>,
    /// Messages that were never tried, oldest first.
    fresh: BTreeSet<(SystemTime, Stem)>,
    /// Messages that failed, by the time of their next try.
    later: BTreeSet<(Instant, Stem)>,
    /// Messages that could not be tried yet, by the time at which they are looked at again.
    unready: BTreeSet<(Instant, Stem)>,
    /// The number of further messages that wait, not known by name.
    beyond: u64,
    under_way: usize,
    retries_under_way: usize,
    is_turn_of_later: bool,
    /// Set while the receiver cannot be reached.
    down: Option<Down>,
    /// The time at which the oldest message was written, if that was looked up since it changed.
    oldest: Option<SystemTime>,
    /// The sum of the lengths of the messages known by name.
    bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    written: SystemTime,
    /// Failed tries so far.
    tries: u32,
    place: Place,
    /// The last look at the directory that found the file.
    seen: u64,
    /// The length of the recording's WAV.
    bytes: u64,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Fresh,
    Later(Instant),
    Unready(Instant),
    UnderWay { was_later: Option<Instant> },
}

#[derive(Clone, Copy, Debug)]
struct Down {
    tries: u32,
    until: Instant,
}

/// A message to be sent now.
#[derive(Clone, Debug)]
pub(super) struct Pick {
    pub stem: Stem,
    pub written: SystemTime,
    /// Failed tries so far.
    pub tries: u32,
}

impl Queue {
    /// The number of messages that wait or are under way.
    pub(super) fn len(&self) -> u64 {
        self.waiting.len() as u64 + self.beyond
    }

    /// The sum of the lengths of the messages that are known by name.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The time at which the oldest message was written. Takes long after the oldest was removed.
    pub(super) fn oldest(&mut self) -> Option<SystemTime> {
        if self.oldest.is_none() {
            self.oldest = self.waiting.values().map(|message| message.written).min();
        }
        self.oldest
    }

    /// Whether there are messages that are not known by name, and much room to know them.
    pub(super) fn is_short(&self) -> bool {
        self.beyond > 0 && self.waiting.len() < KNOWN_MAX / 2
    }

    /// Marks a known message as found by the look of this number. Returns whether it is known.
    pub(super) fn see(&mut self, stem: &str, look: u64) -> bool {
        let message = self.waiting.get_mut(stem);
        message.map(|message| message.seen = look).is_some()
    }

    /// Adds the length of a known message to the sum, if the message has none yet.
    pub(super) fn weigh(&mut self, stem: &str, bytes: u64) {
        if let Some(message) = self.waiting.get_mut(stem).filter(|message| message.bytes == 0) {
            message.bytes = bytes;
            self.bytes += bytes;
        }
    }

    /// Adds a message that is not known. `tried`: its failed tries so far, and the time of the next one.
    pub(super) fn add(
        &mut self,
        stem: &Stem,
        written: SystemTime,
        tried: Option<(u32, Instant)>,
        look: u64,
    ) {
        if self.see(stem, look) {
            return;
        }
        if self.waiting.len() >= KNOWN_MAX {
            self.beyond += 1;
            return;
        }
        let (tries, place) = match tried {
            Some((tries, next)) => (tries, Place::Later(next)),
            None => (0, Place::Fresh),
        };
        self.oldest = self.oldest.map(|oldest| oldest.min(written));
        self.waiting
            .insert(Arc::clone(stem), Waiting { written, tries, place, seen: look, bytes: 0 });
        self.enlist(stem);
    }

    /// Forgets the messages that the look of this number has not found, unless they are under way.
    pub(super) fn forget_unseen(&mut self, look: u64) {
        let is_gone = |message: &Waiting| {
            message.seen < look && !matches!(message.place, Place::UnderWay { .. })
        };
        let gone = self.waiting.iter().filter(|(_, message)| is_gone(message));
        let gone: Vec<Stem> = gone.map(|(stem, _)| Arc::clone(stem)).collect();
        for stem in &gone {
            self.remove(stem);
        }
    }

    /// Begins to count anew the messages that are not known by name.
    pub(super) const fn count_anew(&mut self) {
        self.beyond = 0;
    }

    /// Takes a message that is due and puts it under way, if there is a place for it.
    pub(super) fn pick(&mut self, now: Instant) -> Option<Pick> {
        let places = match &self.down {
            Some(down) if down.until > now => 0,
            Some(_) => 1,
            None => PLACES,
        };
        if self.under_way >= places {
            return None;
        }
        while let Some((_, stem)) = self.unready.first().filter(|(next, _)| *next <= now) {
            let stem = Arc::clone(stem);
            self.delist(&stem);
            self.waiting.get_mut(&stem)?.place = Place::Fresh;
            self.enlist(&stem);
        }
        let later = self
            .later
            .first()
            .filter(|(next, _)| *next <= now && self.retries_under_way < RETRY_PLACES);
        let fresh = self.fresh.first();
        let is_later = later.is_some() && (self.is_turn_of_later || fresh.is_none());
        let stem = if is_later { &later?.1 } else { &fresh?.1 };
        let stem = Arc::clone(stem);
        self.is_turn_of_later = !is_later;
        self.delist(&stem);
        let message = self.waiting.get_mut(&stem)?;
        let was_later = match message.place {
            Place::Later(next) => Some(next),
            _ => None,
        };
        message.place = Place::UnderWay { was_later };
        let (written, tries) = (message.written, message.tries);
        self.under_way += 1;
        self.retries_under_way += usize::from(was_later.is_some());
        Some(Pick { stem, written, tries })
    }

    /// Counts a failed try of a message that is under way, and puts it off until `next`.
    pub(super) fn failed(&mut self, stem: &str, next: Instant) {
        let Some(stem) = self.come_back(stem) else { return };
        if let Some(message) = self.waiting.get_mut(&stem) {
            message.tries += 1;
            message.place = Place::Later(next);
        }
        self.enlist(&stem);
    }

    /// Puts a message that is under way and could not be tried yet off until `next`.
    pub(super) fn not_ready(&mut self, stem: &str, next: Instant) {
        let Some(stem) = self.come_back(stem) else { return };
        if let Some(message) = self.waiting.get_mut(&stem) {
            let is_fresh = message.tries == 0;
            message.place = if is_fresh { Place::Unready(next) } else { Place::Later(next) };
        }
        self.enlist(&stem);
    }

    /// Puts a message that is under way back to its place before, since the receiver cannot be reached,
    /// and has the receiver tried again after a pause that grows from `first_pause` and is `wait` at least.
    pub(super) fn found_down(
        &mut self,
        stem: &str,
        now: Instant,
        first_pause: Duration,
        wait: Duration,
    ) {
        if let Some(stem) = self.come_back(stem) {
            self.enlist(&stem);
        }
        // Others that were under way meanwhile count once.
        if self.down.is_some_and(|down| down.until > now) {
            return;
        }
        let tries = self.down.map_or(0, |down| down.tries);
        let pause = spread(grown(first_pause, tries).min(DOWN_PAUSE_MAX)).max(wait);
        self.down = Some(Down { tries: tries + 1, until: now + pause });
    }

    /// Notes that the receiver has answered.
    pub(super) const fn found_up(&mut self) {
        self.down = None;
    }

    /// Removes a message. Returns the number of its failed tries, if it was known.
    pub(super) fn remove(&mut self, stem: &str) -> Option<u32> {
        self.come_back(stem);
        self.delist(stem);
        let message = self.waiting.remove(stem)?;
        self.bytes -= message.bytes;
        if self.oldest == Some(message.written) {
            self.oldest = None;
        }
        Some(message.tries)
    }

    /// The messages that are due and were written before `time`.
    pub(super) fn due_before(&self, time: SystemTime, now: Instant) -> Vec<Stem> {
        let fresh = self.fresh.iter().take_while(|(written, _)| *written < time);
        let later = self.later.iter().take_while(|(next, _)| *next <= now);
        let later = later.filter(|(_, stem)| {
            self.waiting.get(stem).is_some_and(|message| message.written < time)
        });
        fresh.map(|(_, stem)| stem).chain(later.map(|(_, stem)| stem)).cloned().collect()
    }

    /// The time at which a message is to be picked, if none under way has to end before.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let later = self.later.first().filter(|_| self.retries_under_way < RETRY_PLACES);
        let waits = later.into_iter().chain(self.unready.first()).map(|(next, _)| *next).min();
        let next = if self.fresh.is_empty() { waits? } else { now };
        match &self.down {
            Some(down) if self.under_way == 0 => Some(next.max(down.until)),
            None if self.under_way < PLACES => Some(next),
            _ => None,
        }
    }

    /// The messages that failed: their stems, their tries, and the times of their next ones.
    pub(super) fn tried(&self) -> impl Iterator<Item = (&Stem, u32, Instant)> {
        self.waiting.iter().filter(|(_, message)| message.tries > 0).filter_map(
            |(stem, message)| match message.place {
                Place::Later(next) | Place::UnderWay { was_later: Some(next) } => {
                    Some((stem, message.tries, next))
                }
                _ => None,
            },
        )
    }

    /// Ends the time under way of a message, if it is: its place is the one before again.
    fn come_back(&mut self, stem: &str) -> Option<Stem> {
        let (stem, _) = self.waiting.get_key_value(stem)?;
        let stem = Arc::clone(stem);
        let message = self.waiting.get_mut(&stem)?;
        let Place::UnderWay { was_later } = message.place else { return None };
        message.place = was_later.map_or(Place::Fresh, Place::Later);
        self.under_way -= 1;
        self.retries_under_way -= usize::from(was_later.is_some());
        Some(stem)
    }

    fn enlist(&mut self, stem: &Stem) {
        let Some(message) = self.waiting.get(stem) else { return };
        match message.place {
            Place::Fresh => drop(self.fresh.insert((message.written, Arc::clone(stem)))),
            Place::Later(next) => drop(self.later.insert((next, Arc::clone(stem)))),
            Place::Unready(next) => drop(self.unready.insert((next, Arc::clone(stem)))),
            Place::UnderWay { .. } => {}
        }
    }

    fn delist(&mut self, stem: &str) {
        let Some((stem, message)) = self.waiting.get_key_value(stem) else { return };
        match message.place {
            Place::Fresh => drop(self.fresh.remove(&(message.written, Arc::clone(stem)))),
            Place::Later(next) => drop(self.later.remove(&(next, Arc::clone(stem)))),
            Place::Unready(next) => drop(self.unready.remove(&(next, Arc::clone(stem)))),
            Place::UnderWay { .. } => {}
        }
    }
}

/// A pause that doubles with each try.
pub(super) fn grown(first: Duration, tries: u32) -> Duration {
    first.saturating_mul(1 << tries.min(20))
}

/// A pause that differs a little from each other one, so that tries do not all hit a server at once when
/// it comes back.
pub(super) fn spread(pause: Duration) -> Duration {
    pause.mul_f64(0.8 + 0.4 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn queue(messages: &[(&str, u64)]) -> Queue {
        let mut queue = Queue::default();
        for (stem, written) in messages {
            queue.add(&Arc::from(*stem), at(*written), None, 1);
        }
        queue
    }

    fn picks(queue: &mut Queue, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| Some(queue.pick(now)?.stem.to_string())).collect()
    }

    #[test]
    fn new_messages_and_failed_ones_take_turns_and_failed_ones_half_of_the_places() {
        let now = Instant::now();
        let names: Vec<String> = (0..20).map(|n| format!("m{n:02}")).collect();
        let mut queue = Queue::default();
        for (n, name) in names.iter().enumerate() {
            let tried = (n < 10).then_some((3, now - Duration::from_secs(n as u64)));
            queue.add(&Arc::from(name.as_str()), at(n as u64), tried, 1);
        }
        // The failed ones whose time came first, the new ones that were written first.
        let first = picks(&mut queue, now);
        assert_eq!(first, ["m10", "m09", "m11", "m08", "m12", "m07", "m13", "m06"]);
        for stem in &first[..4] {
            queue.remove(stem);
        }
        assert_eq!(picks(&mut queue, now), ["m14", "m05", "m15", "m04"]);
        // Failed ones that hang leave half of the places to new ones.
        for stem in ["m12", "m13", "m14", "m15"] {
            queue.remove(stem);
        }
        assert_eq!(picks(&mut queue, now), ["m16", "m17", "m18", "m19"]);
        assert_eq!((queue.len(), queue.oldest()), (12, Some(at(0))));
    }

    #[test]
    fn a_receiver_that_is_down_is_asked_by_one_message_and_costs_none_a_try() {
        let mut now = Instant::now();
        let mut queue = queue(&[("a", 1), ("b", 2), ("c", 3)]);
        assert_eq!(picks(&mut queue, now), ["a", "b", "c"]);
        for stem in ["a", "b", "c"] {
            queue.found_down(stem, now, Duration::from_secs(5), Duration::ZERO);
        }
        for longest in [6, 12, 24, 48, 72, 72] {
            assert_eq!(picks(&mut queue, now), Vec::<String>::new());
            let next = queue.next(now).unwrap();
            assert!(next <= now + Duration::from_secs(longest), "{:?}", next - now);
            now = next;
            assert_eq!(picks(&mut queue, now), ["a"]);
            queue.found_down("a", now, Duration::from_secs(5), Duration::ZERO);
        }
        assert_eq!(queue.tried().count(), 0);
        assert_eq!(queue.due_before(at(3), now), [Stem::from("a"), Stem::from("b")]);
        queue.found_up();
        assert_eq!(picks(&mut queue, now), ["a", "b", "c"]);
    }

    #[test]
    fn a_message_that_failed_waits_and_a_file_that_was_taken_away_is_forgotten() {
        let now = Instant::now();
        let mut queue = queue(&[("a", 1), ("b", 2)]);
        assert_eq!(picks(&mut queue, now), ["a", "b"]);
        let later = now + Duration::from_secs(7);
        queue.failed("a", later);
        queue.not_ready("b", now);
        assert_eq!((queue.next(now), picks(&mut queue, now)), (Some(now), vec!["b".to_owned()]));
        assert_eq!(queue.tried().collect::<Vec<_>>(), [(&Stem::from("a"), 1, later)]);
        queue.see("a", 2);
        queue.forget_unseen(2);
        assert_eq!(queue.len(), 2, "one was found, one is under way");
        queue.forget_unseen(3);
        queue.failed("b", now);
        queue.forget_unseen(3);
        assert_eq!((queue.len(), queue.next(now), queue.oldest()), (0, None, None));
    }

    #[test]
    fn of_very_many_messages_the_number_is_known() {
        let mut queue = Queue::default();
        for n in 0..KNOWN_MAX as u64 + 5 {
            queue.add(&Arc::from(n.to_string()), at(n), None, 1);
        }
        assert_eq!((queue.len(), queue.waiting.len()), (KNOWN_MAX as u64 + 5, KNOWN_MAX));
        (0..=KNOWN_MAX as u64 / 2).for_each(|n| {
            assert!(!queue.is_short());
            queue.remove(&n.to_string());
        });
        assert!(queue.is_short());
    }
}
