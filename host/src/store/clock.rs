//! Doubts about the wall clock, which gives the age of a recording.
//!
//! A wall clock can be wrong by years: a battery that is empty, a virtual machine that was stopped, a
//! time server that lies. Deletion by age would then remove everything. So the store keeps an *odometer*
//! of the seconds that have certainly passed: the system's time since boot, added up over boots. If the
//! boot differs from the one of the last look, only the time since the new boot counts, so the odometer
//! never shows more than has passed.
//!
//! - **The clock is compared with the odometer.** From a point at which both were believed (the anchor)
//!   they may drift apart by a day. The anchor moves on once a day at most, so that many small jumps
//!   count as one large jump.
//! - **No recording is younger than it looks.** The odometer's readings are kept for a day together with
//!   the clock's offset, in segments of one offset each. A recording's end, read through the offset of
//!   each segment, may fall into that segment; its age is at least that of the youngest such reading. So
//!   a recording made while the clock said 1970 is safe for a day after the clock was set right.
//! - **A long absence is no jump.** After another boot, a month in which the machine was off looks like
//!   a clock that jumped. The clock is believed again when it has been stable for a day, or for an hour
//!   if systemd's time service says that it is synchronised. After a jump within one boot, or with a
//!   clock that lies before the newest recording, only such an hour or an operator's confirmation makes
//!   it believed again.
//!
//! State that must survive restarts is in the lock file, in two slots that are written by turns, each
//! with a digest: a power loss leaves the other slot.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::disk::found;

/// File with which an operator confirms that the clock is right.
pub(super) const CONFIRM_FILE: &str = ".callreel.clock-is-right";

/// systemd's time service touches this file when it has set the clock.
const SYNCHRONISED_FILE: &str = "/run/systemd/timesync/synchronized";

const HOUR_S: u64 = 60 * 60;
const DAY_S: u64 = 24 * HOUR_S;

/// Largest difference between two readings of one offset: the clock is slewed all the time.
const SLEW_S: u64 = 60;

/// Distance at which a recording's end still belongs to a segment: a look is due every minute.
const LOOK_S: u64 = 120;

/// Most segments in a day: with more, the clock is not believed at all.
const SEGMENTS_MAX: usize = 32;

/// Room for the state in each of its two slots.
const SLOT_BYTES: usize = 4096;

/// One reading of both clocks.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    /// Identity of the boot.
    boot: String,
    uptime_s: u64,
    /// Wall clock, in Unix time.
    wall_s: i64,
    is_synchronised: bool,
}

impl Reading {
    /// Reads the clocks now.
    pub(super) fn now() -> Self {
        // Not by `clock_gettime`: a tool that fakes one clock for a process fakes the other as well.
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id");
        let uptime = fs::read_to_string("/proc/uptime");
        let seconds = uptime.ok().and_then(|text| text.split(['.', ' ']).next()?.parse().ok());
        let (boot, uptime_s) = match (boot, seconds) {
            (Ok(boot), Some(seconds)) => (boot.trim().to_owned(), seconds),
            // Without these files each process counts as a boot of its own.
            _ => (format!("process {}", std::process::id()), process_age().as_secs()),
        };
        Self {
            boot,
            uptime_s,
            wall_s: wall_s(SystemTime::now()),
            is_synchronised: Path::new(SYNCHRONISED_FILE).exists(),
        }
    }
}

fn process_age() -> Duration {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed()
}

/// A time in whole seconds of Unix time.
pub(super) fn wall_s(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_secs().cast_signed(),
        Err(before) => -before.duration().as_secs().cast_signed(),
    }
}

/// State of the clock's judgement.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Clock {
    /// Grows with each write of the state.
    sequence: u64,
    boot: String,
    uptime_s: u64,
    /// Seconds that have certainly passed since the first look.
    odometer_s: u64,
    wall_s: i64,
    /// Segments of the last day, oldest first.
    segments: Vec<Segment>,
    /// Last time at which both clocks were believed.
    anchor: Option<Anchor>,
    /// Odometer reading up to which the clock is doubted for too many segments.
    wild_until_s: u64,
    /// Recordings that ended no later than this are known to be no reason for doubt.
    known_newest_s: Option<i64>,
}

/// A time in which the wall clock was off the odometer by one offset.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Segment {
    from_s: u64,
    to_s: u64,
    offset_s: i64,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Anchor {
    odometer_s: u64,
    wall_s: i64,
    /// The odometer has missed nothing since.
    is_exact: bool,
}

impl Clock {
    /// Reads the state that an earlier run left in the lock file; an unreadable slot counts as empty.
    pub(super) fn load(lock: &File) -> Option<Self> {
        let slots = [0, 1].map(|slot| {
            let mut bytes = vec![0; SLOT_BYTES];
            let length = lock.read_at(&mut bytes, slot * SLOT_BYTES as u64).ok()?;
            let line = bytes[..length].split(|byte| *byte == b'\n').next()?;
            let (digest, json) = line.trim_ascii_end().split_at_checked(65)?;
            let is_whole = digest[..64] == *digest_of(json).as_bytes();
            is_whole.then(|| serde_json::from_slice::<Self>(json).ok())?
        });
        slots.into_iter().flatten().max_by_key(|clock| clock.sequence)
    }

    /// Writes the state to the lock file. It becomes durable with the next sync.
    pub(super) fn save(&mut self, lock: &File) -> std::io::Result<()> {
        self.sequence += 1;
        let json = serde_json::to_vec(self)?;
        let mut line = format!("{} ", digest_of(&json)).into_bytes();
        line.extend(json);
        line.resize(line.len().max(SLOT_BYTES - 1), b' ');
        line.push(b'\n');
        lock.write_all_at(&line, self.sequence % 2 * SLOT_BYTES as u64)
    }

    /// The first look. Only files tell of the past: `newest_s` is the time of the newest one, if there
    /// is any.
    pub(super) fn first(now: &Reading, newest_s: Option<i64>) -> Self {
        let mut clock = Self::default();
        clock.advance(now);
        clock.anchor = Some(Anchor {
            odometer_s: clock.odometer_s,
            wall_s: newest_s.unwrap_or(now.wall_s),
            is_exact: false,
        });
        clock
    }

    /// Takes in a reading.
    pub(super) fn advance(&mut self, now: &Reading) {
        let is_same_boot = now.boot == self.boot && now.uptime_s >= self.uptime_s;
        let passed = if is_same_boot { now.uptime_s - self.uptime_s } else { now.uptime_s };
        if let Some(anchor) = &mut self.anchor {
            anchor.is_exact &= is_same_boot;
        }
        self.odometer_s += passed;
        (self.boot, self.uptime_s, self.wall_s) = (now.boot.clone(), now.uptime_s, now.wall_s);
        let (odometer_s, offset_s) = (self.odometer_s, now.wall_s - self.odometer_s.cast_signed());
        match self.segments.last_mut() {
            Some(last) if last.offset_s.abs_diff(offset_s) <= SLEW_S => last.to_s = odometer_s,
            _ => self.segments.push(Segment { from_s: odometer_s, to_s: odometer_s, offset_s }),
        }
        self.segments.retain(|segment| segment.to_s + DAY_S + LOOK_S >= odometer_s);
        if self.segments.len() > SEGMENTS_MAX {
            self.segments.remove(0);
            self.wild_until_s = odometer_s + DAY_S;
        }
    }

    /// Judges whether the clock is believed. `newest_s` is when the newest recording ended.
    ///
    /// # Errors
    /// The reason for the doubt, in words.
    pub(super) fn judge(&mut self, now: &Reading, newest_s: Option<i64>) -> Result<(), String> {
        let Some(anchor) = self.anchor else {
            self.believe(newest_s);
            return Ok(());
        };
        let passed_s = (self.odometer_s - anchor.odometer_s).cast_signed();
        let ahead_s = now.wall_s - (anchor.wall_s + passed_s);
        let is_to_come = |newest_s: &i64| {
            *newest_s > now.wall_s + HOUR_S.cast_signed() && Some(*newest_s) > self.known_newest_s
        };
        let is_far = ahead_s.unsigned_abs() > DAY_S;
        let may_be_absence = is_far && ahead_s > 0 && !anchor.is_exact;
        let doubt = if self.odometer_s < self.wild_until_s {
            format!("it was set more than {SEGMENTS_MAX} times in a day")
        } else if may_be_absence {
            format!("by it, {} have passed since the last run", text_of(ahead_s))
        } else if is_far && ahead_s > 0 {
            format!("it is {} ahead of the time measured since it was believed", text_of(ahead_s))
        } else if is_far {
            format!("it is {} behind the time measured since it was believed", text_of(-ahead_s))
        } else if let Some(newest_s) = newest_s.filter(is_to_come) {
            format!(
                "the newest recording or file is dated {}, which is still to come",
                date_of(newest_s)
            )
        } else {
            if !anchor.is_exact || passed_s.unsigned_abs() >= DAY_S {
                self.believe(self.known_newest_s);
            }
            return Ok(());
        };
        let stable_s = self.segments.last().map_or(0, |last| self.odometer_s - last.from_s);
        let needed_s = match (now.is_synchronised, may_be_absence) {
            (true, _) => HOUR_S,
            (false, true) => DAY_S,
            (false, false) => u64::MAX,
        };
        if stable_s >= needed_s {
            self.believe(newest_s);
            return Ok(());
        }
        let wait = match needed_s {
            u64::MAX => String::new(),
            _ => format!(
                "; it is believed when it has been stable for {} more",
                text_of((needed_s - stable_s).cast_signed())
            ),
        };
        Err(format!("the clock says {}, but {doubt}{wait}", date_of(now.wall_s)))
    }

    /// Believes the clock from now on. Recordings that ended by `newest_s` are no reason for doubt any
    /// more.
    pub(super) fn believe(&mut self, newest_s: Option<i64>) {
        self.anchor =
            Some(Anchor { odometer_s: self.odometer_s, wall_s: self.wall_s, is_exact: true });
        self.known_newest_s = newest_s.max(self.known_newest_s);
        self.wild_until_s = 0;
    }

    /// Whether a recording that ended at `ended_s` may be less than a day old, regardless of the clock's
    /// present time.
    pub(super) fn may_be_young(&self, ended_s: i64) -> bool {
        self.segments.iter().any(|segment| {
            let reading_s = ended_s - segment.offset_s;
            let from_s = segment.from_s.cast_signed() - LOOK_S.cast_signed();
            let to_s = (segment.to_s + LOOK_S).cast_signed();
            let age_s = self.odometer_s.cast_signed() - reading_s;
            (from_s..=to_s).contains(&reading_s) && age_s < DAY_S.cast_signed()
        })
    }
}

/// Whether an operator has just confirmed the clock. Removes the file that confirms it.
pub(super) fn is_confirmed(dir: &Path) -> bool {
    matches!(found(fs::remove_file(dir.join(CONFIRM_FILE))), Ok(Some(())))
}

fn digest_of(json: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(json))
}

/// A length of time in the largest unit that fits.
fn text_of(seconds: i64) -> String {
    let seconds = seconds.unsigned_abs();
    match seconds {
        DAY_S.. => format!("{} days", seconds / DAY_S),
        HOUR_S.. => format!("{} hours", seconds / HOUR_S),
        _ => format!("{} minutes", seconds.div_ceil(60)),
    }
}

fn date_of(wall_s: i64) -> String {
    let time = Timestamp::UNIX_EPOCH.saturating_add(SignedDuration::from_secs(wall_s));
    time.map_or_else(|_| "no date".to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = DAY_S as i64;
    const NOON: i64 = 1_800_000_000;

    /// A reading `uptime_s` after the start of boot `boot`, at `wall_s` by the wall clock.
    fn at(boot: u32, uptime_s: i64, wall_s: i64) -> Reading {
        let boot = boot.to_string();
        Reading { boot, uptime_s: uptime_s.unsigned_abs(), wall_s, is_synchronised: false }
    }

    fn believed() -> Clock {
        let now = at(1, 1000, NOON);
        let mut clock = Clock::first(&now, Some(NOON - 60));
        clock.judge(&now, Some(NOON - 60)).unwrap();
        clock
    }

    /// Takes in a reading every minute for `seconds`.
    fn run(clock: &mut Clock, from: &Reading, seconds: i64) -> Result<(), String> {
        let mut verdict = Ok(());
        for passed in (0..=seconds).step_by(60) {
            let mut now = from.clone();
            now.uptime_s += passed.unsigned_abs();
            now.wall_s += passed;
            clock.advance(&now);
            verdict = clock.judge(&now, None);
        }
        verdict
    }

    #[test]
    fn a_clock_that_keeps_pace_is_believed_over_restarts_and_short_absences() {
        let mut clock = believed();
        run(&mut clock, &at(1, 1060, NOON + 60), 3 * DAY).unwrap();
        run(&mut clock, &at(1, 1060 + 5 * DAY, NOON + 60 + 5 * DAY), 60).unwrap();
        run(&mut clock, &at(2, 30, NOON + 60 + 5 * DAY + DAY / 2), 60).unwrap();
    }

    #[test]
    fn a_jump_in_one_boot_is_doubted_until_it_is_undone_confirmed_or_vouched_for() {
        let mut clock = believed();
        let jumped = at(1, 1060, NOON + 400 * DAY);
        let why = run(&mut clock, &jumped, 2 * DAY).unwrap_err();
        assert!(why.contains("399 days ahead"), "{why}");
        let mut back = clock.clone();
        run(&mut back, &at(1, 1060 + 3 * DAY, NOON + 3 * DAY), 60).unwrap();
        let mut synchronised = at(1, 1120 + 2 * DAY, NOON + 402 * DAY + 60);
        synchronised.is_synchronised = true;
        run(&mut clock.clone(), &synchronised, 60).unwrap();
        clock.believe(None);
        run(&mut clock, &at(1, 1120 + 2 * DAY, NOON + 402 * DAY + 60), 60).unwrap();
    }

    #[test]
    fn many_small_jumps_are_a_large_one() {
        let mut clock = believed();
        let verdicts: Vec<bool> = (1..5)
            .map(|n| run(&mut clock, &at(1, 1000 + n * 60, NOON + n * DAY * 9 / 10), 0).is_ok())
            .collect();
        assert_eq!(verdicts, [true, false, false, false]);
    }

    #[test]
    fn a_month_off_is_believed_after_a_day() {
        let mut clock = believed();
        let on_again = at(2, 30, NOON + 30 * DAY);
        let why = run(&mut clock, &on_again, DAY / 2).unwrap_err();
        assert!(why.contains("since the last run") && why.contains("12 hours more"), "{why}");
        run(&mut clock, &on_again, DAY + 120).unwrap();
    }

    #[test]
    fn a_clock_that_lies_before_the_newest_recording_is_doubted_until_it_is_confirmed() {
        let mut clock = believed();
        let now = at(1, 1060, NOON + 60);
        clock.advance(&now);
        let to_come = Some(NOON + 2 * DAY);
        assert!(clock.judge(&now, to_come).unwrap_err().contains("still to come"));
        clock.believe(to_come);
        clock.judge(&now, to_come).unwrap();
        clock.judge(&now, Some(NOON + 3 * DAY)).unwrap_err();
    }

    #[test]
    fn what_was_recorded_with_a_wrong_clock_is_young_for_a_day_after_it_was_set() {
        let mut clock = Clock::first(&at(1, 10, 0), None);
        run(&mut clock, &at(1, 10, 0), 3600).unwrap();
        let _ = run(&mut clock, &at(1, 3670, NOON), 3600);
        assert!(clock.may_be_young(1800) && clock.may_be_young(NOON + 60));
        assert!(!clock.may_be_young(-2 * DAY) && !clock.may_be_young(NOON - 2 * DAY));
        let _ = run(&mut clock, &at(1, 3670 + 3600, NOON + 3600), 25 * 3600);
        assert!(!clock.may_be_young(1800) && !clock.may_be_young(NOON + 60));
        assert!(clock.may_be_young(NOON + 25 * 3600));
    }

    #[test]
    fn what_is_kept_survives_a_torn_write() {
        let file = tempfile::tempfile().unwrap();
        assert!(Clock::load(&file).is_none());
        let mut clock = believed();
        clock.save(&file).unwrap();
        clock.odometer_s += 60;
        clock.save(&file).unwrap();
        assert_eq!(Clock::load(&file).unwrap().odometer_s, clock.odometer_s);
        let slot = clock.sequence % 2 * SLOT_BYTES as u64;
        file.write_all_at(b"torn", slot + 100).unwrap();
        assert_eq!(Clock::load(&file).unwrap().odometer_s, clock.odometer_s - 60);
    }
}
