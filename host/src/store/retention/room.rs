//! Deletion for room (`--make-room`): the oldest recordings, as many as room is short of.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use super::balance::{Coin, Step};
use super::{Found, LOOK_EVERY, Plan, Removal, Work, plan_of};
use crate::disk;
use crate::finished::Held;
use crate::record::Key;
use crate::store::{Inodes, Room, Store};

impl Store {
    /// Removes the oldest recordings, as many as room is short of and as long as that helps.
    pub(in crate::store) fn make_room(&self) {
        if !self.config.make_room {
            return;
        }
        let Ok(Room { free, keep_free, inodes, .. }) = self.look_for_room() else {
            return;
        };
        let mut work = self.work();
        let work = &mut *work;
        let written = self.keeping.written.load(Ordering::Relaxed);
        let files = self.keeping.files.load(Ordering::Relaxed);
        let Inodes { free: free_inodes, keep_free: keep_inodes, .. } =
            inodes.unwrap_or(Inodes { free: 0, total: 0, keep_free: 0 });
        let mut alarms = Vec::new();
        for (coin, free, keep_free, used) in [
            (Coin::Bytes, free, keep_free, written),
            (Coin::Inodes, free_inodes, keep_inodes, files),
        ] {
            let short = keep_free.saturating_sub(free);
            match work.balances[coin as usize].step(coin, short, free, used, Instant::now()) {
                Step::Rest => {}
                Step::Wait => {
                    // Some file systems free the room of removed files only when they are synced.
                    let _ = disk::sync_file_system(&self.lock);
                    return;
                }
                Step::Hold(alarm) => alarms.push(alarm),
                Step::Remove(count) => {
                    alarms.extend(self.remove_for_room(work, coin, short, count))
                }
            }
        }
        let alarm = (!alarms.is_empty()).then(|| alarms.join("; "));
        let told = alarm.as_ref().map(|alarm| format!("--make-room removes nothing more: {alarm}"));
        self.show(|shown| shown.room_alarm = told);
        if work.room_alarm.is_due(alarm.is_some())
            && let Some(alarm) = &alarm
        {
            tracing::error!(free, keep_free, alarm, "--make-room removes nothing more");
        }
    }

    /// Removes at most `count` recordings to get `short` bytes or inodes. Returns the reason if that
    /// would not help; then nothing is removed.
    fn remove_for_room(
        &self,
        work: &mut Work,
        coin: Coin,
        short: u64,
        count: usize,
    ) -> Option<String> {
        let is_fresh = |(made, of): (Instant, Coin)| of == coin && made.elapsed() < LOOK_EVERY;
        let queued = |queue: &VecDeque<Found>| queue.iter().map(|it| it.room(coin)).sum::<u64>();
        let is_in_vain = work.balances[coin as usize].is_in_vain;
        if !work.queue_made.is_some_and(is_fresh) || (queued(&work.queue) < short && !is_in_vain) {
            work.queue = self.oldest(coin, short.saturating_mul(2)).into();
            work.queue_made = Some((Instant::now(), coin));
        }
        let is_in_vain = queued(&work.queue) < short;
        work.balances[coin as usize].is_in_vain = is_in_vain;
        if is_in_vain {
            let (all, unit) = (queued(&work.queue), coin.name());
            return Some(format!(
                "{short} more {unit} are needed, but all recordings that may be removed take only {all}: other files fill the disk, or recordings that the home lacks"
            ));
        }
        let (mut wanted, mut batch) = (short, Vec::new());
        while wanted > 0
            && batch.len() < count
            && let Some(found) = work.queue.pop_front()
        {
            wanted = wanted.saturating_sub(found.room(coin));
            batch.push(found);
        }
        if let Some(Plan { recordings, bytes, oldest, newest, .. }) =
            plan_of(&batch, SystemTime::now())
        {
            let (option, unit) = (coin.option(), coin.name());
            tracing::warn!(recordings, bytes, %oldest, %newest, short, unit, "less is free than {option}: removing the oldest recordings");
        }
        for found in batch {
            if self.remove_found(&found, Removal::MakeRoom) {
                work.balances[coin as usize].removed += found.room(coin);
            }
        }
        self.remove_empty_days();
        None
    }

    /// The oldest recordings that may be removed and free some room: enough of them for `wanted` bytes
    /// or inodes, or all. Recordings that somebody is to be told of come after all others; those that the
    /// home lacks are never among them.
    fn oldest(&self, coin: Coin, wanted: u64) -> Vec<Found> {
        let (newest, mut oldest, mut sum) = (self.newest(), Vec::new(), 0);
        let mut days = self.days().unwrap_or_default();
        days.retain(|day| !self.is_elsewhere(*day));
        let passes = [None, Some(Held::Webhook)]
            .into_iter()
            .flat_map(|held| days.iter().map(move |day| (held, *day)));
        for (held, day) in passes {
            let wanted_ones = |key: &Key| self.finished.holds(key) == held;
            let mut found = self.finished_in(day, wanted_ones).unwrap_or_default();
            found.retain(|(names, _)| !newest.contains(&names.json()));
            found.sort_by_key(|(_, ended)| *ended);
            for (names, ended) in found {
                let found = Found::new(names, ended, false);
                if sum >= wanted {
                    return oldest;
                }
                if found.room(coin) > 0 {
                    sum += found.room(coin);
                    oldest.push(found);
                }
            }
        }
        oldest
    }
}
