//! Dead letters: messages that a receiver has not taken for [`GIVE_UP_AFTER`](super::GIVE_UP_AFTER). They
//! are kept, and sent again when the user wishes.
//!
//! A dead letter is the file of its message, in the directory `dead`, by the name `ID@RECEIVER.json`. To
//! send it again is to move it back among the messages that wait, where that name says that this receiver
//! alone is to get it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::Serialize;

use super::{DIR, id_of};
use crate::disk::{self, WholeFile, create_dir, found, read_small, sync_dir};

/// The directory of dead letters, inside that of the messages.
const DEAD_DIR: &str = "dead";

/// The most dead letters that are kept.
pub const KEPT_MAX: usize = 10_000;

/// Letters that are removed beyond those that must be, so that not each new one lists them all.
const SPARE: usize = 100;

/// The age of a message at which its dead letter is removed.
pub const KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A dead letter.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Letter {
    /// Its name: the id of its message, `@`, and the receiver.
    pub name: String,
    /// The `webhook-id` of its message.
    pub id: String,
    /// The name of the receiver that has not taken it.
    pub receiver: String,
    /// Time at which the message was written.
    pub written_at: Timestamp,
}

/// The dead letters of the recordings in `store_dir`, the oldest message first.
///
/// # Errors
/// The directory cannot be read.
pub fn list(store_dir: &Path) -> io::Result<Vec<Letter>> {
    let mut letters = Vec::new();
    for entry in found(fs::read_dir(dir(store_dir)))?.into_iter().flatten() {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().and_then(|name| name.strip_suffix(".json"));
        let Some((name, receiver)) = name.and_then(|name| Some((name, name.split_once('@')?.1)))
        else {
            continue;
        };
        // A file without a time was removed meanwhile.
        let written = entry.metadata().and_then(|metadata| metadata.modified());
        let Some(written_at) = written.ok().and_then(|time| Timestamp::try_from(time).ok()) else {
            continue;
        };
        letters.push(Letter {
            name: name.to_owned(),
            id: id_of(name).to_owned(),
            receiver: receiver.to_owned(),
            written_at,
        });
    }
    letters.sort_unstable_by(|a, b| (a.written_at, &a.name).cmp(&(b.written_at, &b.name)));
    Ok(letters)
}

/// Sends dead letters again: all of them, or those of the name or the message `which`. Each is tried for
/// three days from now. Returns their number. A recorder on the directory notices them within seconds.
///
/// # Errors
/// A file cannot be moved; those before it were.
pub fn redeliver(store_dir: &Path, which: Option<&str>) -> io::Result<usize> {
    let (from, to) = (dir(store_dir), store_dir.join(DIR));
    let mut count = 0;
    for Letter { name, id, .. } in list(store_dir)? {
        if which.is_some_and(|which| which != name && which != id) {
            continue;
        }
        let file = format!("{name}.json");
        let Some(letter) = found(disk::open(OpenOptions::new().write(true), &from.join(&file)))?
        else {
            continue;
        };
        letter.set_modified(SystemTime::now())?;
        fs::rename(from.join(&file), to.join(&file))?;
        count += 1;
    }
    if count > 0 {
        sync_dir(&to)?;
    }
    Ok(count)
}

/// Makes a dead letter for `receiver` of the message in `file`. With `is_last` the file itself becomes the
/// letter: no other receiver waits for it. Otherwise it is copied.
pub(super) fn bury(
    store_dir: &Path,
    file: &Path,
    id: &str,
    receiver: &str,
    is_last: bool,
) -> io::Result<()> {
    let dir = dir(store_dir);
    create_dir(&dir)?;
    let to = dir.join(format!("{id}@{receiver}.json"));
    if is_last {
        return fs::rename(file, to);
    }
    let written = fs::symlink_metadata(file)?.modified()?;
    let text = read_small(file)?;
    let temporary = to.with_extension("tmp");
    let copy = WholeFile { temporary: &temporary, to: &to, is_durable: true, replaces: true };
    copy.write(|file| {
        file.write_all(&text)?;
        file.set_modified(written)
    })?;
    Ok(())
}

/// Removes the dead letters of too old messages, and the oldest of too many. Returns the number of those
/// that are left.
pub(super) fn prune(store_dir: &Path) -> io::Result<usize> {
    let letters = list(store_dir)?;
    let unwanted = &letters[..unwanted(&letters, Timestamp::now())];
    for letter in unwanted {
        found(fs::remove_file(dir(store_dir).join(format!("{}.json", letter.name))))?;
    }
    if !unwanted.is_empty() {
        tracing::warn!(count = unwanted.len(), "removed the oldest dead webhook messages");
    }
    Ok(letters.len() - unwanted.len())
}

/// The number of the oldest letters that are to be removed.
fn unwanted(letters: &[Letter], now: Timestamp) -> usize {
    let oldest = now.checked_sub(KEPT_FOR).unwrap_or(Timestamp::MIN);
    let old = letters.partition_point(|letter| letter.written_at < oldest);
    match letters.len().saturating_sub(old) {
        kept if kept > KEPT_MAX => letters.len() - KEPT_MAX + SPARE,
        _ => old,
    }
}

/// The directory of the dead letters.
pub(super) fn dir(store_dir: &Path) -> PathBuf {
    store_dir.join(DIR).join(DEAD_DIR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letters(dir: &Path, count: usize, age: Duration) {
        let waiting = dir.join(DIR);
        create_dir(&waiting).unwrap();
        for n in 0..count {
            let file = waiting.join(format!("msg_{n}.json"));
            fs::write(&file, "{}").unwrap();
            let written = SystemTime::now() - age + Duration::from_millis(n as u64);
            fs::File::options().write(true).open(&file).unwrap().set_modified(written).unwrap();
            bury(dir, &file, &format!("msg_{n}"), "r-1", n != 1).unwrap();
        }
    }

    #[test]
    fn the_oldest_of_too_many_go_and_all_of_old_messages() {
        let now = Timestamp::now();
        let letter = |age_s: u64| Letter {
            name: String::new(),
            id: String::new(),
            receiver: String::new(),
            written_at: now - Duration::from_secs(age_s),
        };
        let mut letters: Vec<_> = (0..KEPT_MAX as u64).map(letter).collect();
        letters.reverse();
        assert_eq!(unwanted(&letters, now), 0);
        letters.insert(0, letter(KEPT_FOR.as_secs() + 1));
        assert_eq!(unwanted(&letters, now), 1);
        letters[0] = letter(KEPT_FOR.as_secs() - 1);
        assert_eq!(unwanted(&letters, now), 1 + SPARE);
        let dir = tempfile::tempdir().unwrap();
        self::letters(dir.path(), 3, KEPT_FOR + Duration::from_secs(60));
        self::letters(dir.path(), 1, Duration::from_secs(60));
        assert_eq!(
            (prune(dir.path()).unwrap(), list(dir.path()).unwrap()[0].id.as_str()),
            (1, "msg_0")
        );
    }

    #[test]
    fn a_letter_is_sent_again_by_its_name_or_by_the_id_of_its_message() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(redeliver(dir.path(), None).unwrap(), 0);
        letters(dir.path(), 3, KEPT_FOR / 2);
        assert_eq!(redeliver(dir.path(), Some("../msg_0")).unwrap(), 0);
        assert_eq!(redeliver(dir.path(), Some("msg_0")).unwrap(), 1);
        assert_eq!(redeliver(dir.path(), Some("msg_1@r-1")).unwrap(), 1);
        assert_eq!(list(dir.path()).unwrap().len(), 1);
        let again = dir.path().join(DIR).join("msg_1@r-1.json");
        assert!(again.metadata().unwrap().modified().unwrap().elapsed().unwrap() < KEPT_FOR / 4);
        assert_eq!(redeliver(dir.path(), None).unwrap(), 1);
    }
}
