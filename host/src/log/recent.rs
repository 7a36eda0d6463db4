//! The last warnings and errors of the process, for its console.

use std::collections::VecDeque;
use std::sync::Mutex;

use crate::lock::lock;

/// Most lines that are kept, and most bytes of each.
const LINES_MAX: usize = 100;
const LINE_BYTES_MAX: usize = 1000;

static RECENT: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// The last warnings and errors that the log's filter let through, as lines of text, the newest last. At most 100,
/// each cut off behind 1000 bytes.
#[must_use]
pub fn warnings() -> Vec<String> {
    lock(&RECENT).iter().cloned().collect()
}

/// Keeps a line.
pub(super) fn keep(mut line: String) {
    line.truncate(line.floor_char_boundary(LINE_BYTES_MAX));
    let mut recent = lock(&RECENT);
    if recent.len() == LINES_MAX {
        recent.pop_front();
    }
    recent.push_back(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_are_kept_and_long_ones_cut() {
        (0..=LINES_MAX).for_each(|n| keep(format!("{n}{}", "é".repeat(LINE_BYTES_MAX))));
        let kept = warnings();
        assert_eq!(kept.len(), LINES_MAX);
        assert!(kept[0].starts_with("1é") && kept[LINES_MAX - 1].starts_with("100é"));
        assert!(
            kept.iter().all(|line| (LINE_BYTES_MAX - 1..=LINE_BYTES_MAX).contains(&line.len()))
        );
    }
}
