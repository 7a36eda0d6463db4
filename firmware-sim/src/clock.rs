//! The time of day: asked from a server by SNTP (RFC 4330), written as in ISO 8601 and in FAT's form.
//!
//! Own code: the crates for SNTP wait in sockets of their own, which nothing here may do; and those for
//! dates bring calendars and time zones that would fill a tenth of the flash. UTC is all that is needed.

use core::fmt::{self, Write};

/// Bytes of a request and of an answer.
pub const PACKET_BYTES: usize = 48;

/// Seconds from the beginning of NTP's era, 1900, to that of Unix.
const NTP_TO_UNIX_S: u64 = 2_208_988_800;

/// A request. The server repeats `cookie`, a random number, in its answer.
#[must_use]
pub fn request(cookie: u64) -> [u8; PACKET_BYTES] {
    let mut packet = [0; PACKET_BYTES];
    // Version 4, client.
    packet[0] = 4 << 3 | 3;
    packet[40..].copy_from_slice(&cookie.to_be_bytes());
    packet
}

/// The time that a server tells, in milliseconds of Unix; `None` if the packet is no answer to the request
/// with this cookie, or if the server's own clock is not set.
#[must_use]
pub fn parse_answer(packet: &[u8], cookie: u64) -> Option<u64> {
    let packet: &[u8; PACKET_BYTES] = packet.get(..PACKET_BYTES)?.try_into().ok()?;
    let (leap, mode, stratum) = (packet[0] >> 6, packet[0] & 7, packet[1]);
    let is_set = leap != 3 && (1..=15).contains(&stratum);
    if mode != 4 || !is_set || packet[24..32] != cookie.to_be_bytes() {
        return None;
    }
    let word = |at: usize| {
        u64::from(u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]))
    };
    let (seconds, fraction) = (word(40), word(44));
    // The era that began in 1900 ends in 2036: numbers below its middle are of the next one.
    let seconds = if seconds < 1 << 31 { seconds + (1 << 32) } else { seconds };
    Some((seconds - NTP_TO_UNIX_S) * 1000 + ((fraction * 1000) >> 32))
}

/// The clock: the time of day at any moment of the board's uptime, once it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Clock {
    /// The time of day at the uptime 0, in milliseconds of Unix; `None` while it is not known.
    pub boot_unix_ms: Option<u64>,
}

impl Clock {
    /// The date and time at this uptime.
    #[must_use]
    pub fn at(&self, uptime_ms: u64) -> Option<Date> {
        self.boot_unix_ms.map(|boot| Date::of(boot + uptime_ms))
    }
}

/// A moment in UTC. It is shown as `2026-11-28T07:27:52.125Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    year: u32,
    month: u32,
    day: u32,
    ms_of_day: u32,
}

impl Date {
    /// The date of a time of Unix in milliseconds.
    #[must_use]
    pub fn of(unix_ms: u64) -> Self {
        let ms_of_day = (unix_ms % 86_400_000) as u32;
        let mut day = (unix_ms / 86_400_000) as u32;
        let mut year = 1970;
        let is_leap = |year: u32| {
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
        };
        while day >= 365 + u32::from(is_leap(year)) {
            day -= 365 + u32::from(is_leap(year));
            year += 1;
        }
        let mut month = 1;
        for days in [31, 28 + u32::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30] {
            if day < days {
                break;
            }
            day -= days;
            month += 1;
        }
        Self { year, month, day: day + 1, ms_of_day }
    }

    /// The time and date of a directory's entry in FAT, to two seconds. Years before 1980 become 1980.
    #[must_use]
    pub fn fat(&self) -> [u8; 4] {
        let seconds = self.ms_of_day / 1000;
        let time = (seconds / 3600) << 11 | (seconds / 60 % 60) << 5 | (seconds % 60 / 2);
        let date = self.year.saturating_sub(1980) << 9 | self.month << 5 | self.day;
        (date << 16 | time).to_le_bytes()
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, ms_of_day } = *self;
        let seconds = ms_of_day / 1000;
        for (number, separator) in [
            (year / 100, ""),
            (year % 100, "-"),
            (month, "-"),
            (day, "T"),
            (seconds / 3600, ":"),
            (seconds / 60 % 60, ":"),
            (seconds % 60, "."),
        ] {
            f.write_char(char::from(b'0' + (number / 10 % 10) as u8))?;
            f.write_char(char::from(b'0' + (number % 10) as u8))?;
            f.write_str(separator)?;
        }
        write!(f, "{:03}Z", ms_of_day % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_if_it_is_one() {
        // 2026-11-28T07:27:52.5Z
        let unix_ms = 1_795_850_872_500;
        let mut answer = [0; PACKET_BYTES];
        answer[..2].copy_from_slice(&[4 << 3 | 4, 2]);
        answer[24..32].copy_from_slice(&7_u64.to_be_bytes());
        let seconds = (unix_ms / 1000 + NTP_TO_UNIX_S) as u32;
        answer[40..44].copy_from_slice(&seconds.to_be_bytes());
        answer[44] = 0x80;
        assert_eq!(parse_answer(&answer, 7), Some(unix_ms));
        assert_eq!(parse_answer(&answer, 8), None, "another cookie");
        assert_eq!(parse_answer(&answer[..47], 7), None, "short");
        for (at, byte) in [(0, 3 << 6 | 4 << 3 | 4), (0, 4 << 3 | 3), (1, 0), (1, 16)] {
            let mut other = answer;
            other[at] = byte;
            assert_eq!(parse_answer(&other, 7), None, "byte {at} is {byte}");
        }
        // After 2036-02-07 the seconds begin again.
        answer[40..44].copy_from_slice(&1_u32.to_be_bytes());
        let date = Date::of(parse_answer(&answer, 7).unwrap());
        assert_eq!(date.to_string(), "2036-02-07T06:28:17.500Z");
    }

    #[test]
    fn fat_holds_two_seconds() {
        let date = Date::of(1_795_850_872_500);
        assert_eq!(date.to_string(), "2026-11-28T07:27:52.500Z");
        let [a, b, c, d] = date.fat();
        let (time, date) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
        assert_eq!((time >> 11, time >> 5 & 63, time & 31), (7, 27, 26));
        assert_eq!((date >> 9, date >> 5 & 15, date & 31), (46, 11, 28));
    }
}
