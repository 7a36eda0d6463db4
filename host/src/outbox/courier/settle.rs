//! The ends of tries: taken, put off, given up; and their traces in the log.

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

use super::super::journal::Mark;
use super::super::queue::{self, Pick, Stem};
use super::super::{Answer, GIVE_UP_AFTER, Kind, dead, id_of};
use super::{Courier, Receiver, WAIT_MAX};
use crate::disk::found;

/// The longest pause between two tries of one message.
const PAUSE_MAX: Duration = Duration::from_secs(60 * 60);

/// The longest pause between two tries of one upload, unless the recording has a fault of its own.
const UPLOAD_PAUSE_MAX: Duration = Duration::from_secs(5 * 60);

/// The shortest pause between two tries of a recording with a fault of its own.
const STUCK_PAUSE_MIN: Duration = Duration::from_secs(10 * 60);

/// Time between two lines of the log about a home that takes no recordings.
const REMIND_EVERY: Duration = Duration::from_secs(60);

/// Time between two looks at a recording that is still being published.
const NOT_YET_PAUSE: Duration = Duration::from_secs(10);

impl Courier {
    /// Settles the answer to a message that was under way.
    pub(super) fn settle(&mut self, receiver: usize, pick: &Pick, answer: Answer) {
        let kind = self.kind();
        let Receiver { queue, health, stuck, told, .. } = &mut self.receivers[receiver];
        if !matches!(answer, Answer::Unreachable { .. }) {
            queue.found_up();
        }
        stuck.remove(&pick.stem);
        match answer {
            Answer::Taken => {
                health.delivered += 1;
                health.error = None;
                *told = None;
                if health.failing_since.take().is_some() {
                    match kind {
                        Kind::Webhooks => {
                            tracing::info!(receiver = health.name, "the webhook works again");
                        }
                        Kind::Home => tracing::info!("the home takes recordings again"),
                    }
                }
                self.finish(receiver, &pick.stem);
            }
            Answer::Unwanted(error) if kind == Kind::Home => {
                let message = id_of(&pick.stem);
                tracing::warn!(recording = message, error, "a recording is left out of the home");
                health.given_up += 1;
                self.finish(receiver, &pick.stem);
            }
            Answer::Stuck(error) => {
                let message = id_of(&pick.stem);
                tracing::error!(
                    recording = message,
                    error,
                    "cannot upload a recording: trying again later"
                );
                stuck.insert(Arc::clone(&pick.stem));
                self.put_off(receiver, pick, PAUSE_MAX, STUCK_PAUSE_MIN);
            }
            Answer::Unwanted(error) => {
                let (message, name) = (&*pick.stem, &health.name);
                let told = "gave up a webhook message: it is not wanted";
                tracing::error!(id = message, receiver = name, error, "{told}");
                health.given_up += 1;
                self.finish(receiver, &pick.stem);
            }
            Answer::NotYet => queue.not_ready(&pick.stem, Instant::now() + NOT_YET_PAUSE),
            Answer::Refused { error, wait } => self.fail(receiver, pick, error, wait),
            Answer::Unreachable { error, wait } => {
                self.note_failure(receiver, error);
                let (now, first_pause) = (Instant::now(), self.first_pause);
                let queue = &mut self.receivers[receiver].queue;
                queue.found_down(&pick.stem, now, first_pause, wait.min(WAIT_MAX));
                if kind == Kind::Webhooks {
                    for stem in queue.due_before(SystemTime::now() - GIVE_UP_AFTER, now) {
                        self.bury(receiver, &stem);
                    }
                }
            }
        }
    }

    /// Sets the time of the next try of a message that failed, or makes a dead letter of it if it is too
    /// old.
    pub(super) fn fail(&mut self, receiver: usize, pick: &Pick, error: String, wait: Duration) {
        self.note_failure(receiver, error);
        match self.kind() {
            Kind::Webhooks if pick.written <= SystemTime::now() - GIVE_UP_AFTER => {
                self.bury(receiver, &pick.stem);
            }
            Kind::Webhooks => self.put_off(receiver, pick, PAUSE_MAX, wait),
            Kind::Home => self.put_off(receiver, pick, UPLOAD_PAUSE_MAX, wait),
        }
    }

    /// Notes that a receiver fails.
    fn note_failure(&mut self, receiver: usize, error: String) {
        let kind = self.kind();
        let Receiver { health, told, .. } = &mut self.receivers[receiver];
        if health.failing_since.is_none() {
            match kind {
                Kind::Webhooks => {
                    let told = "the webhook does not take messages; trying again for 3 days";
                    tracing::warn!(receiver = health.name, error, "{told}");
                }
                Kind::Home => {
                    let told = "the home takes no recordings; they wait on the disk";
                    tracing::warn!(error, "{told}");
                }
            }
            health.failing_since = Some(Timestamp::now());
            *told = Some(Instant::now());
        }
        health.error = Some(error);
    }

    /// Has a message that failed tried again after a pause that grows to `pause_max`, and is `wait` at least.
    fn put_off(&mut self, receiver: usize, pick: &Pick, pause_max: Duration, wait: Duration) {
        let Pick { stem, tries, .. } = pick;
        let Receiver { queue, health, .. } = &mut self.receivers[receiver];
        let pause = queue::spread(queue::grown(self.first_pause, *tries).min(pause_max));
        let pause = pause.max(wait.min(WAIT_MAX));
        queue.failed(stem, Instant::now() + pause);
        let next = Timestamp::now().checked_add(pause).ok();
        self.journal.add(stem, &health.name, Mark { tries: tries + 1, next, done: false });
    }

    /// Tells in the log, once a minute, that a home takes no recordings.
    pub(super) fn remind(&mut self, now: Instant) {
        if self.kind() == Kind::Webhooks {
            return;
        }
        for Receiver { health, told, .. } in &mut self.receivers {
            let is_due = told.is_some_and(|told| now.duration_since(told) >= REMIND_EVERY);
            if health.failing_since.is_none() || !is_due {
                continue;
            }
            *told = Some(now);
            let age = |oldest: SystemTime| oldest.elapsed().unwrap_or_default().as_secs();
            tracing::warn!(
                waiting = health.pending,
                bytes = health.bytes,
                oldest_s = health.oldest.map(age),
                error = health.error,
                "the home still takes no recordings; they wait on the disk"
            );
        }
    }

    pub(super) fn kind(&self) -> Kind {
        self.outbox.0.kind
    }

    /// Ends the wait of a receiver for a message: removes the file if no other receiver waits for it.
    fn finish(&mut self, receiver: usize, stem: &Stem) {
        if self.is_last(receiver, stem) {
            let gone = match &self.outbox.0.next {
                Some(next) => found(next.take_over(&self.path(stem), stem)),
                None => found(fs::remove_file(self.path(stem))),
            };
            if let Err(error) = gone {
                let kind = self.kind();
                let message = id_of(stem);
                match kind {
                    Kind::Webhooks => {
                        tracing::error!(id = message, %error, "cannot remove a webhook message; it will be sent again");
                    }
                    Kind::Home => {
                        tracing::error!(recording = message, %error, "cannot note that a recording is in the home; it is looked at again");
                        let pick =
                            Pick { stem: Arc::clone(stem), written: SystemTime::now(), tries: 0 };
                        return self.put_off(receiver, &pick, UPLOAD_PAUSE_MAX, Duration::ZERO);
                    }
                }
            }
            self.forget(stem);
        } else {
            self.mark_done(receiver, stem);
        }
    }

    /// Makes a dead letter of a message that is too old.
    fn bury(&mut self, receiver: usize, stem: &Stem) {
        let is_last = self.is_last(receiver, stem);
        let Receiver { queue, health, .. } = &mut self.receivers[receiver];
        let (message, name) = (&**stem, &health.name);
        let store_dir = &self.outbox.0.store_dir;
        let file = self.outbox.path(stem);
        if let Err(error) = dead::bury(store_dir, &file, id_of(stem), name, is_last) {
            if error.kind() == io::ErrorKind::NotFound {
                queue.remove(stem); // Its file was removed.
                return;
            }
            let told = "cannot give up a webhook message after 3 days: trying again";
            tracing::error!(id = message, receiver = name, %error, "{told}");
            return queue.failed(stem, Instant::now() + PAUSE_MAX);
        }
        let told = "gave up a webhook message after 3 days: a dead letter";
        tracing::error!(id = message, receiver = name, error = health.error, "{told}");
        health.given_up += 1;
        if is_last {
            self.forget(stem);
        } else {
            self.mark_done(receiver, stem);
        }
        self.dead += 1;
        if self.dead > dead::KEPT_MAX {
            self.prune();
        }
    }

    /// Removes dead letters that need not be kept, and counts the others.
    pub(super) fn prune(&mut self) {
        match dead::prune(&self.outbox.0.store_dir) {
            Ok(count) => self.dead = count,
            Err(error) => tracing::error!(%error, "cannot read the dead webhook messages"),
        }
    }

    fn mark_done(&mut self, receiver: usize, stem: &Stem) {
        let Receiver { queue, done, health, .. } = &mut self.receivers[receiver];
        queue.remove(stem);
        done.insert(Arc::clone(stem));
        self.journal.add(stem, &health.name, Mark { done: true, ..Mark::default() });
    }

    /// Forgets a message without a file.
    pub(super) fn forget(&mut self, stem: &Stem) {
        for Receiver { queue, done, health, stuck, .. } in &mut self.receivers {
            stuck.remove(stem);
            let was_tried = queue.remove(stem).is_some_and(|tries| tries > 0);
            if done.remove(stem) || was_tried {
                self.journal.add(stem, &health.name, Mark::default());
            }
        }
    }
}
