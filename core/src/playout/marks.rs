//! The marks that wait for their echo.

use heapless::Deque;

use super::MARKS_MAX;
use crate::frame::Text;

/// The marks of a call, in the order in which they were sent.
#[derive(Debug)]
pub(super) struct Marks(Deque<Mark, MARKS_MAX>);

#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Hash of the name.
    name: u32,
    kind: Kind,
    /// Depends on the kind.
    value: u64,
    /// Number of the samples before the mark.
    samples: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// A mark behind audio that ends, by the times of arrival alone, at the position `value`.
    Due,
    /// A mark with no audio before it.
    Idle,
    /// A mark that a clear at the position `value` overtook.
    Cleared,
    /// So many marks as `value` of which nothing is known.
    Forgotten,
}

impl Marks {
    pub(super) const fn new() -> Self {
        Self(Deque::new())
    }

    /// Adds a mark with the end of the audio before it, by the times of arrival alone, and the number of the
    /// samples up to there; `None` if there is no audio before it. Returns whether there was room for it.
    pub(super) fn push(&mut self, name: &[u8], due: Option<(u64, u64)>) -> bool {
        let kind = if due.is_some() { Kind::Due } else { Kind::Idle };
        let (value, samples) = due.unwrap_or((0, 0));
        let mark = Mark { name: hash(name), kind, value, samples };
        let has_room = self.0.len() + 1 < MARKS_MAX;
        if has_room {
            let _ = self.0.push_back(mark);
        } else if let Some(last) = self.0.back_mut().filter(|last| last.kind == Kind::Forgotten) {
            last.value = last.value.saturating_add(1);
        } else {
            // The last place is for those without one of their own.
            let _ = self.0.push_back(Mark { name: 0, kind: Kind::Forgotten, value: 1, samples: 0 });
        }
        has_room
    }

    /// Takes note that the echoes of all marks so far may come at any time.
    pub(super) fn clear(&mut self, at: u64) {
        for mark in self.0.iter_mut().filter(|mark| matches!(mark.kind, Kind::Due | Kind::Idle)) {
            (mark.kind, mark.value) = (Kind::Cleared, at);
        }
    }

    /// Forgets the marks that a clear before `before` overtook, as far as they were sent before all others.
    pub(super) fn expire(&mut self, before: u64) {
        let is_over = |mark: &&Mark| mark.kind == Kind::Cleared && mark.value < before;
        while self.0.front().filter(is_over).is_some() {
            self.0.pop_front();
        }
    }

    /// Takes out the first mark of a name, and all before it: their echoes would have come before this one.
    /// Returns what it was pushed with, if its echo is evidence.
    pub(super) fn take(&mut self, name: &[u8]) -> Option<(u64, u64)> {
        let name = hash(name);
        let is_meant = |mark: &Mark| mark.kind == Kind::Forgotten || mark.name == name;
        let place = self.0.iter().position(is_meant)?;
        let mark = *self.0.iter().nth(place)?;
        if mark.kind == Kind::Forgotten && mark.value > 1 {
            let found = self.0.iter_mut().nth(place)?;
            found.value -= 1;
            return None;
        }
        for _ in 0..=place {
            self.0.pop_front();
        }
        (mark.kind == Kind::Due).then_some((mark.value, mark.samples))
    }
}

/// A hash (FNV-1a) of the characters that a name means: the provider may escape others than the bot.
fn hash(name: &[u8]) -> u32 {
    let add = |hash: u32, value: u32| (hash ^ value).wrapping_mul(0x0100_0193);
    let seed = 0x811C_9DC5;
    match core::str::from_utf8(name) {
        Ok(name) => Text::new(name).chars().fold(seed, |hash, char| add(hash, u32::from(char))),
        Err(_) => name.iter().fold(seed, |hash, byte| add(hash, u32::from(*byte))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_first_in_first_out_in_any_spelling() {
        let mut marks = Marks::new();
        for (name, due) in [("a", Some(1)), ("a", Some(2)), (r"caf\u00e9", Some(3)), ("b", None)] {
            assert!(marks.push(name.as_bytes(), due.map(|due| (due, 10 * due))));
        }
        assert_eq!(marks.take(b"unknown"), None);
        assert_eq!(marks.take(b"a"), Some((1, 10)));
        assert_eq!(marks.take("café".as_bytes()), Some((3, 30)));
        assert_eq!(marks.take(b"a"), None, "its echo would have come before");
        assert_eq!(marks.take(b"b"), None, "nothing was before it");
        assert!(marks.0.is_empty());
    }

    #[test]
    fn marks_beyond_the_room_are_counted_and_their_echoes_are_no_evidence() {
        let mut marks = Marks::new();
        let sent = MARKS_MAX as u64 + 50;
        let kept = (0..sent).filter(|due| marks.push(b"same", Some((*due, 0)))).count();
        assert_eq!(kept, MARKS_MAX - 1);
        for due in 0..kept as u64 {
            assert_eq!(marks.take(b"same"), Some((due, 0)));
        }
        // A mark that comes while the others are still awaited.
        assert!(marks.push(b"same", Some((1000, 0))));
        for _ in kept as u64..sent {
            assert_eq!(marks.take(b"same"), None);
        }
        assert_eq!(marks.take(b"same"), Some((1000, 0)));
    }

    #[test]
    fn a_clear_makes_the_echoes_of_all_marks_no_evidence() {
        let mut marks = Marks::new();
        assert!(marks.push(b"a", Some((1, 0))) && marks.push(b"a", Some((2, 0))));
        marks.clear(100);
        assert!(marks.push(b"a", Some((300, 0))));
        marks.expire(100);
        assert_eq!(marks.take(b"a"), None);
        marks.expire(101);
        assert_eq!(marks.take(b"a"), Some((300, 0)), "the second was not echoed");
    }
}
